//! Search by name over everything that a caller may see: own and shared folders, and single files that are shared.
//!
//! What is plain is found by the index of names (`store/search.rs`). What is contested has the names that the law of reading gives it, and so has what
//! stands in directories that are shown as one: these are settled as for a list, and searched here.
//!
//! * **SQ1** A search finds exactly those entries that lists of the same folders show, each once, and those of nobody else (I13, R67).

use super::view::{Directory, Shown, View};
use super::{Content, Entry, FileInfo, folder_of, patiently};
use crate::service::{Caller, ServiceError, ServiceResult};
use crate::store::content::{ContentStore, NamespaceRow, Scope};
use crate::store::search::{Kind, NameHit, NameQuery, fold};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, RelPath, node};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most hits of one page.
const PAGE_MAX: usize = 200;
/// Longest text, in bytes: longer than any name.
const TEXT_MAX_BYTES: usize = 512;
/// Most words.
const WORDS_MAX: usize = 8;

/// What is searched.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery {
    /// What was typed.
    pub text: String,
    /// Only this folder.
    pub space: Option<NamespaceId>,
    /// Only what is below this directory of it.
    pub directory: Option<RelPath>,
    /// Only this kind.
    pub kind: Kind,
    /// Not smaller, in bytes.
    pub min_size: Option<u64>,
    /// Not larger, in bytes.
    pub max_size: Option<u64>,
    /// Not changed before, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// The hit after which to go on.
    pub after: Option<SearchCursor>,
    /// Most hits in the answer.
    pub limit: usize,
}

/// A kind by the word for it.
pub fn kind_of(word: &str) -> ServiceResult<Kind> {
    Ok(match word {
        "directory" | "folder" => Kind::Directory,
        "file" => Kind::File,
        "symlink" => Kind::Symlink,
        "image" => Kind::Ending(&[".avif", ".bmp", ".gif", ".heic", ".ico", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp"]),
        "video" => Kind::Ending(&[".avi", ".m4v", ".mkv", ".mov", ".mp4", ".ogv", ".webm"]),
        "audio" => Kind::Ending(&[".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav"]),
        "document" => Kind::Ending(&[
            ".csv", ".doc", ".docx", ".epub", ".md", ".odp", ".ods", ".odt", ".pdf", ".ppt", ".pptx", ".rtf", ".tex", ".txt", ".xls",
            ".xlsx",
        ]),
        "archive" => Kind::Ending(&[".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"]),
        _ => {
            let detail = "'type' is directory, file, symlink, image, video, audio, document or archive.";
            return Err(ServiceError::malformed(detail));
        }
    })
}

/// The place of a hit in the order of all: by rank, the newest first, then by node, folder, and the name of a copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SearchCursor {
    rank: u8,
    /// The time of the last change with the other sign.
    newest: i64,
    node: NodeId,
    namespace: NamespaceId,
    /// Of what is not plain: a node may be shown several times.
    path: Vec<u8>,
}

impl SearchCursor {
    fn plain(namespace: NamespaceId, hit: &NameHit) -> Self {
        Self { rank: hit.rank, newest: -hit.updated_at_ms, node: hit.node, namespace, path: Vec::new() }
    }

    fn settled(namespace: NamespaceId, rank: u8, shown: &Shown) -> Self {
        let path = shown.path.to_bytes();
        Self { rank, newest: -shown.times.updated_at_ms, node: shown.entry.node, namespace, path }
    }

    /// As clients keep it.
    pub fn to_text(&self) -> String {
        let mut bytes = vec![self.rank];
        bytes.extend(self.newest.to_be_bytes());
        bytes.extend(self.node.as_bytes());
        bytes.extend(self.namespace.as_bytes());
        bytes.extend(&self.path);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Back again.
    pub fn parse(text: &str) -> ServiceResult<Self> {
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let (rank, rest) = bytes.split_first()?;
            let (newest, rest) = rest.split_first_chunk::<8>()?;
            let (node, rest) = rest.split_first_chunk::<16>()?;
            let (namespace, path) = rest.split_first_chunk::<16>()?;
            let newest = Some(i64::from_be_bytes(*newest)).filter(|n| *n != i64::MIN)?;
            let (node, namespace) = (NodeId::from_bytes(*node), NamespaceId::from_bytes(*namespace));
            Some(Self { rank: *rank, newest, node, namespace, path: path.to_vec() })
        };
        read().ok_or_else(|| ServiceError::malformed("'cursor' is not one of this relay."))
    }

    /// The same as a bound of one namespace's plain nodes.
    fn bound(&self) -> NameHit {
        NameHit { node: self.node, rank: self.rank, updated_at_ms: -self.newest }
    }
}

/// A hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The entry. Of a single file that is shared its place is not told.
    pub info: FileInfo,
    /// Whether the caller sees only this file of its folder.
    pub is_shared_file: bool,
}

/// A page of hits.
#[derive(Debug, Clone, Default)]
pub struct SearchPage {
    /// The hits, best first.
    pub found: Vec<Found>,
    /// Where the next page begins, if there is one.
    pub next: Option<SearchCursor>,
}

/// What was typed, ready to be compared.
struct Wish<'q> {
    query: &'q SearchQuery,
    text: String,
    words: Vec<String>,
}

impl<'q> Wish<'q> {
    fn new(query: &'q SearchQuery) -> ServiceResult<Self> {
        if query.text.len() > TEXT_MAX_BYTES {
            return Err(ServiceError::malformed(format!("'q' has more than {TEXT_MAX_BYTES} bytes. Search for a part of it.")));
        }
        let words: Vec<String> = fold(query.text.as_bytes()).split_whitespace().map(str::to_owned).collect();
        if words.len() > WORDS_MAX {
            return Err(ServiceError::malformed(format!("'q' has more than {WORDS_MAX} words. Leave some out.")));
        }
        let is_filtered = query.kind != Kind::Any || query.min_size.is_some() || query.max_size.is_some() || query.since_ms.is_some();
        if words.is_empty() && !is_filtered {
            return Err(ServiceError::malformed("Say what to search: 'q', or one of 'type', 'min_size', 'max_size' and 'since'."));
        }
        Ok(Self { query, text: words.join(" "), words })
    }

    /// The part of it that one namespace is asked.
    fn names(&self) -> NameQuery<'_> {
        let SearchQuery { kind, min_size, max_size, since_ms, .. } = *self.query;
        let from = self.query.after.as_ref().map(SearchCursor::bound);
        // One more shows whether there are more, and one may be the hit after which to go on.
        let limit = self.limit() + 2;
        NameQuery { text: &self.text, words: &self.words, kind, min_size, max_size, since_ms, below: None, not_in: &[], from, limit }
    }

    fn limit(&self) -> usize {
        self.query.limit.clamp(1, PAGE_MAX)
    }

    /// How good an entry is as a hit; nothing if it is none.
    fn rank(&self, shown: &Shown) -> Option<u8> {
        let name = fold(shown.entry.name.as_bytes());
        let content = &shown.entry.content;
        let is_kind = match self.query.kind {
            Kind::Any => true,
            Kind::Directory => content.is_dir(),
            Kind::Symlink => matches!(content, node::Content::Symlink(_)),
            Kind::File => content.file().is_some(),
            Kind::Ending(endings) => content.file().is_some() && endings.iter().any(|ending| name.ends_with(ending)),
        };
        let size = content.file().map_or(0, |f| f.manifest.size());
        let is_size = self.query.min_size.is_none_or(|min| size >= min) && self.query.max_size.is_none_or(|max| size <= max);
        let is_recent = self.query.since_ms.is_none_or(|since| shown.times.updated_at_ms >= since);
        self.names().rank(&name).filter(|_| is_kind && is_size && is_recent)
    }

    fn is_next(&self, cursor: &SearchCursor) -> bool {
        self.query.after.as_ref().is_none_or(|after| cursor > after)
    }
}

/// A hit before it is looked at: a plain node is only known by its id.
struct Candidate {
    at: SearchCursor,
    shown: Option<Shown>,
    is_shared_file: bool,
}

/// What is not plain in a namespace.
#[derive(Default)]
struct Crooked {
    /// Every entry that must be settled.
    shown: Vec<Shown>,
    /// The nodes of directories that are shown as one.
    merged: Vec<NodeId>,
}

impl View<'_> {
    /// Settles every directory in which something contested stands, and those that are shown as one, with all that is in them.
    async fn crooked(&self) -> ServiceResult<Crooked> {
        let mut out = Crooked::default();
        if !self.meta.is_contested(self.namespace).await? {
            return Ok(out);
        }
        let parents = self.meta.contested_parents(self.namespace).await?;
        let mut open: VecDeque<Directory> = VecDeque::new();
        if parents.contains(&NodeId::ROOT) {
            open.push_back(Directory::root());
        }
        open.extend(self.of_nodes(&parents).await?.into_values().filter_map(|shown| shown.directory()));
        let mut done: BTreeSet<RelPath> = BTreeSet::new();
        while let Some(directory) = open.pop_front() {
            if !done.insert(directory.path.clone()) {
                continue;
            }
            if directory.nodes.len() > 1 {
                out.merged.extend(&directory.nodes);
            }
            for shown in self.contested(&directory).await? {
                open.extend(shown.directory().filter(|inner| inner.nodes.len() > 1));
                out.shown.push(shown);
            }
        }
        Ok(out)
    }
}

impl Content {
    /// Searches what the caller may see; `files` are the single files that are shared with the caller.
    pub async fn search(&self, caller: &Caller, query: &SearchQuery, files: &[(NamespaceId, NodeId)]) -> ServiceResult<SearchPage> {
        let wish = Wish::new(query)?;
        let mut spaces = self.meta.namespaces_of(caller.user_id).await?;
        spaces.retain(|row| folder_of(caller).is_none_or(|folder| folder.namespace == row.id));
        let members: BTreeSet<NamespaceId> = spaces.iter().map(|row| row.id).collect();
        if let Some(space) = query.space {
            spaces.retain(|row| row.id == space);
            if spaces.is_empty() {
                return Err(ServiceError::not_found());
            }
        }
        let mut found: Vec<Candidate> = Vec::new();
        for row in spaces {
            let entry = self.part(caller, row, Role::Viewer).await?;
            found.extend(self.search_in(&entry, &wish).await?);
        }
        if query.space.is_none() && folder_of(caller).is_none() {
            let others = files.iter().filter(|(namespace, _)| !members.contains(namespace));
            found.extend(self.search_shared(others, &wish).await?);
        }
        found.sort_unstable_by(|a, b| a.at.cmp(&b.at));
        let has_more = found.len() > wish.limit();
        found.truncate(wish.limit());
        let next = found.last().filter(|_| has_more).map(|last| last.at.clone());
        Ok(SearchPage { found: self.look_at(found).await?, next })
    }

    /// The best hits of one namespace.
    async fn search_in(&self, entry: &Entry, wish: &Wish<'_>) -> ServiceResult<Vec<Candidate>> {
        let (view, namespace) = (self.view(entry.row.id), entry.row.id);
        let top = match &wish.query.directory {
            Some(path) => {
                entry.confine(path)?;
                path.clone()
            }
            None => entry.within.clone(),
        };
        let below = match top.is_root() {
            true => None,
            false => Some(view.directory(&top).await?.nodes),
        };
        let crooked = view.crooked().await?;
        let names = NameQuery { below: below.as_deref(), not_in: &crooked.merged, ..wish.names() };
        let hits = match self.meta.search_names(namespace, &names).await? {
            Some(hits) => hits,
            None => {
                self.fold_names(&entry.row).await?;
                // Folded again by then, unless a release before this one writes all the time: what it wrote is found a moment later.
                self.meta.search_names(namespace, &names).await?.unwrap_or_default()
            }
        };
        let plain = hits.iter().map(|hit| Candidate { at: SearchCursor::plain(namespace, hit), shown: None, is_shared_file: false });
        let settled = crooked.shown.into_iter().filter(|shown| shown.path != top && shown.path.starts_with(&top)).filter_map(|shown| {
            let at = SearchCursor::settled(namespace, wish.rank(&shown)?, &shown);
            Some(Candidate { at, shown: Some(shown), is_shared_file: false })
        });
        Ok(plain.chain(settled).filter(|one| wish.is_next(&one.at)).collect())
    }

    /// The hits among single files that are shared.
    async fn search_shared<'f>(
        &self,
        files: impl Iterator<Item = &'f (NamespaceId, NodeId)>,
        wish: &Wish<'_>,
    ) -> ServiceResult<Vec<Candidate>> {
        let mut by_space: BTreeMap<NamespaceId, Vec<NodeId>> = BTreeMap::new();
        for (namespace, file) in files {
            by_space.entry(*namespace).or_default().push(*file);
        }
        let mut found = Vec::new();
        for (namespace, nodes) in by_space {
            let all = self.view(namespace).of_nodes(&nodes).await?;
            found.extend(all.into_iter().filter(|(_, shown)| shown.entry.content.file().is_some()).filter_map(|(node, shown)| {
                // By its id, not by its place, which its receiver does not know.
                let at = SearchCursor { node, path: Vec::new(), ..SearchCursor::settled(namespace, wish.rank(&shown)?, &shown) };
                Some(Candidate { at, shown: Some(shown), is_shared_file: true })
            }));
        }
        found.retain(|one: &Candidate| wish.is_next(&one.at));
        Ok(found)
    }

    /// Makes hits of candidates, in their order. What went meanwhile is left out.
    async fn look_at(&self, candidates: Vec<Candidate>) -> ServiceResult<Vec<Found>> {
        let mut asked: BTreeMap<NamespaceId, Vec<NodeId>> = BTreeMap::new();
        for one in candidates.iter().filter(|one| one.shown.is_none()) {
            asked.entry(one.at.namespace).or_default().push(one.at.node);
        }
        let mut known = BTreeMap::new();
        for (namespace, nodes) in asked {
            known.extend(self.view(namespace).of_nodes(&nodes).await?.into_iter().map(|(node, shown)| ((namespace, node), shown)));
        }
        let mut out = Vec::with_capacity(candidates.len());
        for one in candidates {
            let key = (one.at.namespace, one.at.node);
            let Some(shown) = one.shown.or_else(|| known.remove(&key)) else { continue };
            let mut info = self.describe(one.at.namespace, &shown).await?;
            if one.is_shared_file {
                super::shared_files::hide_place(&mut info);
            }
            out.push(Found { info, is_shared_file: one.is_shared_file });
        }
        Ok(out)
    }

    /// Folds the names of a namespace in which a release wrote that does not keep this (SN1): takes as long as the namespace is large, once. Whoever asked
    /// may run out of time meanwhile; what was begun is finished all the same.
    async fn fold_names(&self, row: &NamespaceRow) -> ServiceResult<()> {
        let (meta, namespace) = (self.meta.clone(), row.id);
        let folding = tokio::spawn(async move { patiently!(fold_all(&*meta, namespace).await) });
        let changed = folding.await.map_err(ServiceError::internal)??;
        tracing::info!(%namespace, changed, "names of a namespace were made ready to be searched");
        Ok(())
    }
}

/// Folds the names of a namespace in one transaction. Returns how many were not.
async fn fold_all(meta: &dyn ContentStore, namespace: NamespaceId) -> ServiceResult<u64> {
    let mut tx = meta.begin(Scope::Namespace(namespace)).await?;
    let changed = tx.fold_names(namespace).await?;
    tx.commit().await?;
    Ok(changed)
}
