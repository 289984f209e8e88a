//! Going back to a time: every entry of a folder, or every one that certain devices changed since, becomes what it was (L23).
//!
//! Nothing is taken back in the history: a rewind is made of ordinary edits by whoever asked for it, so it converges like any other, and another rewind
//! takes it back. It goes through the folder in the order of ids, some nodes in one transaction, and remembers how far it came: asked again with its
//! id it goes on, and once it is finished it answers what it did (I8).
//!
//! * **RW1** Times are the relay's: when it heard of a change. No device's clock decides.
//! * **RW2** What somebody changed after the rewind began is left alone and counted.
//! * **RW3** With a choice of devices an entry goes back to what it was before the first change by one of them, unless somebody else has changed it since.

use super::edit::Edit;
use super::going_back::{self, Change, Decision, Task, Wanted};
use super::{Content, Entry};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::{Before, BeforeKind, Changed, ChangesQuery, RewindRow, Scope, VersionRow};
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, DeviceId, Dot, FileContent, Manifest, NamespaceId, NodeId, node};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Nodes of one transaction.
const PAGE: usize = 500;
/// Nodes of one request; the answer says that there is more.
const REQUEST_MAX: usize = 5000;
/// Bytes of node states that are read at once, and of manifests that one transaction writes, about: whatever is more waits for the next.
const PAGE_BYTES: usize = 16 << 20;
/// Entries of one page of a plan.
const ENTRIES_MAX: usize = 1000;

/// What to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindWish {
    /// The time, in milliseconds since 1970: what the relay had heard by then counts.
    pub to_ms: i64,
    /// Only what these devices changed; nothing for whoever it was.
    pub only_by: Option<BTreeSet<DeviceId>>,
}

/// How many entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindCounts {
    /// Were deleted and are back.
    pub restored: u64,
    /// Have the content of then again.
    pub reverted: u64,
    /// Stand where they stood.
    pub moved: u64,
    /// Came later and are in the trash.
    pub removed: u64,
    /// Contents that cannot come back, because they were purged or the relay has lost a part of them.
    pub not_kept: u64,
    /// Stay as they are, because somebody else changed them since.
    pub kept_for_others: u64,
    /// Stay as they are, because they changed while the rewind went on.
    pub changed_meanwhile: u64,
}

/// How far a rewind has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// When it was begun, in milliseconds since 1970: what was true just before is what taking it back leads to.
    pub started_at_ms: i64,
    /// Whether all is done; otherwise ask again with the same id.
    pub is_finished: bool,
    /// What was done so far.
    pub counts: RewindCounts,
}

/// What a rewind would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindPlan {
    /// To all entries.
    pub counts: RewindCounts,
    /// To these.
    pub entries: Vec<RewindEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<NodeId>,
}

/// What a rewind would do to one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindEntry {
    /// The node.
    pub node: NodeId,
    /// Its path now, or the name that it had.
    pub path: String,
    /// `restored`, `reverted`, `moved`, `removed`; `not_kept` if a content that it showed cannot come back.
    pub acts: Vec<&'static str>,
}

impl Content {
    /// The devices that a name, an id or a user's address stands for, among those that changed something in the namespace.
    pub async fn rewind_authors(&self, entry: &Entry, device: Option<&str>, user: Option<&str>) -> ServiceResult<BTreeSet<DeviceId>> {
        let authors = self.meta.authors(entry.row.id).await?;
        let is_user = |a: &crate::store::content::AuthorRow, wanted: &str| {
            a.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(wanted)) || a.user.is_some_and(|u| u.to_string() == wanted)
        };
        let mut found = BTreeSet::new();
        if let Some(wanted) = device {
            let by_id = wanted.parse::<DeviceId>().ok();
            let named: Vec<DeviceId> = authors.iter().filter(|a| a.name == wanted || Some(a.device) == by_id).map(|a| a.device).collect();
            if named.len() > 1 {
                let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
                let detail = format!("Several devices that changed something here are called '{wanted}'. Name one by its id.");
                return Err(ServiceError::conflict("ambiguous", detail).with("devices", ids));
            }
            found.extend(named);
        }
        if let Some(wanted) = user {
            found.extend(authors.iter().filter(|a| is_user(a, wanted)).map(|a| a.device));
        }
        if found.is_empty() {
            let known: Vec<&str> = authors.iter().map(|a| a.name.as_str()).collect();
            let detail = "Nobody of that name has changed anything in this folder.";
            return Err(ServiceError::new(Kind::NotFound, "no_such_author", detail).with("devices", known.join(", ")));
        }
        Ok(found)
    }

    /// What a rewind would do: to all, and to the entries after `after` by name, at most `limit`.
    pub async fn rewind_plan(&self, entry: &Entry, wish: &RewindWish, after: Option<NodeId>, limit: usize) -> ServiceResult<RewindPlan> {
        self.check_rewind(entry, wish).await?;
        let limit = limit.clamp(1, ENTRIES_MAX);
        let has_lost = self.has_lost(entry.row.id).await?;
        let mut plan = RewindPlan { counts: RewindCounts::default(), entries: Vec::new(), next: None };
        let mut position = None;
        loop {
            let page = self.rewind_candidates(entry, wish, position).await?;
            let Some(last) = page.last() else {
                self.name_entries(entry.row.id, &mut plan.entries).await?;
                return Ok(plan);
            };
            position = Some(last.row.id);
            for changed in &page {
                let id = changed.row.id;
                let task = match self.judge(entry.row.id, wish, changed, has_lost).await? {
                    Judged::Nothing => continue,
                    Judged::KeptForOthers => {
                        plan.counts.kept_for_others += 1;
                        continue;
                    }
                    Judged::Do(task) => task,
                };
                task.count(&mut plan.counts);
                if after.is_some_and(|after| id <= after) {
                    continue;
                }
                if plan.entries.len() == limit {
                    plan.next = plan.next.or(plan.entries.last().map(|e| e.node));
                    continue;
                }
                let path = changed.row.state.places()[0].name.to_string();
                plan.entries.push(RewindEntry { node: id, path, acts: task.acts() });
            }
        }
    }

    /// Says where what is shown stands.
    async fn name_entries(&self, namespace: NamespaceId, entries: &mut [RewindEntry]) -> ServiceResult<()> {
        let ids: Vec<NodeId> = entries.iter().map(|e| e.node).collect();
        let shown = self.view(namespace).of_nodes(&ids).await?;
        for one in entries {
            if let Some(shown) = shown.get(&one.node) {
                one.path = shown.path.to_string();
            }
        }
        Ok(())
    }

    /// Rewinds, or goes on with the rewind of this id, or answers what that did.
    pub async fn rewind(&self, entry: &Entry, id: [u8; 16], wish: &RewindWish) -> ServiceResult<Rewound> {
        self.check_rewind(entry, wish).await?;
        let namespace = entry.row.id;
        let mut row = self.begin_rewind(entry, id, digest(wish)?).await?;
        let has_lost = self.has_lost(namespace).await?;
        let mut looked_at = 0;
        while !row.is_finished && looked_at < REQUEST_MAX {
            let page = self.rewind_candidates(entry, wish, row.position).await?;
            looked_at += page.len().max(1);
            row = match self.rewind_page(entry, wish, (&page, has_lost), &row).await? {
                Some(next) => next,
                // Somebody else goes on with it too, and was faster.
                None => self.meta.rewind(namespace, id).await?.ok_or_else(ServiceError::not_found)?,
            };
        }
        let counts = counts_of(&row)?;
        Ok(Rewound { started_at_ms: row.started_at_ms, is_finished: row.is_finished, counts })
    }

    /// The next nodes to look at, by rising id.
    async fn rewind_candidates(&self, entry: &Entry, wish: &RewindWish, after: Option<NodeId>) -> ServiceResult<Vec<Changed>> {
        let (by, limit_bytes) = (wish.only_by.as_ref(), PAGE_BYTES);
        let query = ChangesQuery { since_ms: wish.to_ms, by, after, limit_nodes: PAGE, limit_bytes };
        Ok(self.meta.changed_since(entry.row.id, query).await?)
    }

    /// Whether the store has lost something of the namespace: only then each content is looked at before it is put back.
    async fn has_lost(&self, namespace: NamespaceId) -> ServiceResult<bool> {
        Ok(self.meta.lacks_since(namespace).await?.is_some())
    }

    async fn check_rewind(&self, entry: &Entry, wish: &RewindWish) -> ServiceResult<()> {
        self.entry(&entry.caller, entry.row.clone(), Role::Editor)?;
        let since_ms = self.meta.history_since(entry.row.id).await?;
        if wish.to_ms < since_ms {
            let detail = "What entries were called is kept since a later time than this. Choose a later one.";
            return Err(ServiceError::conflict("history_begins_later", detail).with("since_ms", since_ms));
        }
        if wish.to_ms > self.clock.now_ms() {
            return Err(ServiceError::invalid("time_to_come", "This time is still to come."));
        }
        Ok(())
    }

    async fn begin_rewind(&self, entry: &Entry, id: [u8; 16], digest: [u8; 32]) -> ServiceResult<RewindRow> {
        let row = match self.meta.rewind(entry.row.id, id).await? {
            Some(row) => row,
            None => {
                let counts = serde_json::to_string(&RewindCounts::default()).map_err(ServiceError::internal)?;
                let row = RewindRow { id, digest, started_at_ms: self.clock.now_ms(), position: None, is_finished: false, counts };
                let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
                // Of two first requests one begins it, and both go on with that one.
                let row = tx.begin_rewind(entry.row.id, &row).await?;
                tx.commit().await?;
                row
            }
        };
        if row.digest != digest {
            let detail = "A rewind with this id asked for something else. Mint a new id for another rewind.";
            return Err(ServiceError::invalid("rewind_id_reused", detail));
        }
        Ok(row)
    }

    /// One transaction: the edits of some of these nodes, and how far the rewind has come. Nothing if it does not stand where `row` says any more.
    async fn rewind_page(
        &self,
        entry: &Entry,
        wish: &RewindWish,
        (page, has_lost): (&[Changed], bool),
        row: &RewindRow,
    ) -> ServiceResult<Option<RewindRow>> {
        let (mut done, mut next) = (counts_of(row)?, RewindRow { is_finished: page.is_empty(), ..row.clone() });
        let (mut ready, mut size_bytes) = (Vec::new(), 0);
        for changed in page {
            next.position = Some(changed.row.id);
            match self.judge(entry.row.id, wish, changed, has_lost).await? {
                Judged::Nothing => {}
                Judged::KeptForOthers => done.kept_for_others += 1,
                Judged::Do(task) => {
                    let puts = self.contents_of(entry.row.id, &task).await?;
                    size_bytes += puts.iter().map(|(_, content)| manifest_bytes(content)).sum::<usize>();
                    ready.push((changed, task, puts));
                }
            }
            // The rest waits for the next transaction: manifests are of any size.
            if size_bytes > PAGE_BYTES {
                break;
            }
        }
        // Directories before what may stand in them, and what goes last.
        ready.sort_by_key(|(_, task, puts)| match puts.last() {
            Some((_, node::Content::Dir)) => 0,
            _ if task.change.as_ref().is_some_and(|change| change.is_removal) => 2,
            _ => 1,
        });
        let ids: Vec<NodeId> = ready.iter().map(|(changed, ..)| changed.row.id).collect();
        let mut edit = self.edit(entry, &ids).await?;
        for (changed, task, puts) in ready {
            let id = changed.row.id;
            // RW2: since the rewind began, or between the look and this transaction.
            if task.is_any() && (changed.row.updated_at_ms > row.started_at_ms || edit.state(id) != Some(&changed.row.state)) {
                done.changed_meanwhile += 1;
                continue;
            }
            task.count(&mut done);
            carry_out(&mut edit, id, task, puts)?;
        }
        next.counts = serde_json::to_string(&done).map_err(ServiceError::internal)?;
        if !edit.tx().advance_rewind(entry.row.id, &next, row.position).await? {
            edit.abandon().await?;
            return Ok(None);
        }
        self.finish(edit).await?;
        Ok(Some(next))
    }

    /// What is to be done to a node.
    async fn judge(&self, namespace: NamespaceId, wish: &RewindWish, changed: &Changed, has_lost: bool) -> ServiceResult<Judged> {
        let (place, before) = match going_back::decide(changed, wish) {
            Decision::Nothing => return Ok(Judged::Nothing),
            Decision::KeptForOthers => return Ok(Judged::KeptForOthers),
            Decision::Back { place, before } => (place, before),
        };
        let body = changed.row.state.body();
        let mut task = Task { place, change: None, was_deleted: !body.has_living(), not_kept: 0 };
        let wanted = match before {
            Some(before) => self.wanted_of(namespace, changed, before).await?,
            None => Vec::new(),
        };
        task.not_kept = wanted.iter().filter(|found| found.is_none()).count() as u64;
        // Without its own content nothing else takes its place.
        if !matches!(wanted.first(), Some(None)) {
            match going_back::change(body, wanted.into_iter().flatten().collect(), before, wish) {
                Ok(change) => task.change = change,
                Err(going_back::KeptForOthers) if task.place.is_none() => return Ok(Judged::KeptForOthers),
                Err(going_back::KeptForOthers) => {}
            }
        }
        if has_lost && let Some(change) = task.change.take() {
            match self.are_there(namespace, &change).await? {
                true => task.change = Some(change),
                false => task.not_kept += 1,
            }
        }
        Ok(if task.is_any() || task.not_kept > 0 { Judged::Do(task) } else { Judged::Nothing })
    }

    /// What a node showed, its own content first; nothing for what is not kept.
    async fn wanted_of(&self, namespace: NamespaceId, changed: &Changed, before: &Before) -> ServiceResult<Vec<Option<Wanted>>> {
        let (body, dots) = (changed.row.state.body(), going_back::dots_of(before));
        let stands = |dot: &Option<Dot>| dot.is_none_or(|dot| body.value(dot).is_some());
        let versions = if dots.iter().all(stands) { Vec::new() } else { self.meta.versions(namespace, changed.row.id).await? };
        let find = |dot: Option<Dot>| match dot {
            None => directory_or_link(before).map(Wanted::Content),
            Some(dot) => match body.value(dot) {
                Some(value) => Some(Wanted::Content(value.content.clone())),
                None => versions.iter().find(|v| v.dot == dot).cloned().map(Wanted::Version),
            },
        };
        Ok(dots.into_iter().map(find).collect())
    }

    /// Whether the store has all chunks of what a change puts back.
    async fn are_there(&self, namespace: NamespaceId, change: &Change) -> ServiceResult<bool> {
        for put in &change.puts {
            let chunks = match &put.wanted {
                Wanted::Content(content) => content.file().map(|file| file.manifest.chunks().to_vec()).unwrap_or_default(),
                Wanted::Version(version) => self.meta.version_chunks(namespace, version.version_id).await?,
            };
            let ids: Vec<ChunkId> = chunks.iter().map(|c| c.id).collect();
            let held = self.meta.held(namespace, &ids).await?;
            if !ids.iter().all(|id| held.get(id).is_some_and(|chunk| !chunk.is_damaged)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a task writes, with what that replaces.
    async fn contents_of(&self, namespace: NamespaceId, task: &Task) -> ServiceResult<Vec<(Vec<Dot>, node::Content)>> {
        let mut out = Vec::new();
        for put in task.change.iter().flat_map(|change| &change.puts) {
            let content = match &put.wanted {
                Wanted::Content(content) => content.clone(),
                Wanted::Version(version) => node::Content::File(self.file_of(namespace, version).await?),
            };
            out.push((put.replaces.clone(), content));
        }
        Ok(out)
    }

    async fn file_of(&self, namespace: NamespaceId, version: &VersionRow) -> ServiceResult<FileContent> {
        let chunks = self.meta.version_chunks(namespace, version.version_id).await?;
        let manifest = Manifest::new(version.hash, chunks).map_err(ServiceError::internal)?;
        Ok(FileContent::new(manifest, version.mtime_ns))
    }
}

/// What is to be done to a node, with what its history says looked up.
enum Judged {
    Nothing,
    KeptForOthers,
    Do(Task),
}

fn directory_or_link(before: &Before) -> Option<node::Content> {
    match before.kind {
        BeforeKind::Directory => Some(node::Content::Dir),
        BeforeKind::Symlink => Some(node::Content::Symlink(before.link_target.as_deref().unwrap_or_default().into())),
        BeforeKind::File | BeforeKind::Deleted => None,
    }
}

/// Bytes that a content takes in memory, about.
fn manifest_bytes(content: &node::Content) -> usize {
    content.file().map_or(0, |file| size_of_val(file.manifest.chunks()))
}

fn counts_of(row: &RewindRow) -> ServiceResult<RewindCounts> {
    serde_json::from_str(&row.counts).map_err(ServiceError::internal)
}

fn carry_out(edit: &mut Edit, id: NodeId, task: Task, puts: Vec<(Vec<Dot>, node::Content)>) -> ServiceResult<()> {
    if let Some((parent, name)) = task.place {
        edit.move_to(id, parent, name)?;
    }
    if let Some(change) = task.change.filter(|change| !change.settles.is_empty()) {
        edit.settle(id, &change.settles)?;
    }
    for (replaces, content) in puts {
        edit.put(id, &replaces, content)?;
    }
    Ok(())
}

fn digest(wish: &RewindWish) -> ServiceResult<[u8; 32]> {
    let bytes = postcard::to_stdvec(&(wish.to_ms, &wish.only_by)).map_err(ServiceError::internal)?;
    Ok(Sha256::digest(&bytes).into())
}
