//! Files for people and the plain API: list, look at, rename and move, delete; versions and usage.

use super::edit::Edit;
use super::tree::Tree;
use super::{Content, Entry, patiently};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use ferry_protocol::wire::Role;
use ferry_protocol::{Name, NamespaceId, NodeId, RelPath, node, read};
use std::cmp::Ordering;

/// Most entries of one page.
const PAGE_MAX: usize = 1000;
/// Most entries that one request deletes.
const DELETE_MAX: usize = 100_000;

/// A file, directory or link as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The node.
    pub node: NodeId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// Where it is shown.
    pub path: RelPath,
    /// `directory`, `symlink`, or a file's media type.
    pub file_type: &'static str,
    /// What it is.
    pub content: node::Content,
    /// Its modification time in nanoseconds since 1970, for files.
    pub mtime_ns: Option<i64>,
    /// The number of its newest change: the value that `If-Match` compares.
    pub seq: u64,
    /// When it came to the relay, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it last changed on the relay, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// Whether it stands under a conflict name.
    pub is_conflict: bool,
    /// For a conflicted copy the version that it shows: the node's own version is another.
    pub version_id: Option<[u8; 16]>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// By path.
    #[default]
    Name,
    /// By size.
    Size,
    /// By the time of the last change.
    Modified,
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// The directory; nothing for everything at any depth.
    pub directory: Option<RelPath>,
    /// The order.
    pub sort: Sort,
    /// Largest or newest or last name first.
    pub descending: bool,
    /// Entries to skip: the cursor.
    pub after: usize,
    /// Most entries in the answer.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct FilePage {
    /// The entries.
    pub files: Vec<FileInfo>,
    /// Where the next page begins, if there is one.
    pub next: Option<usize>,
}

/// A change of a file's place; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct FileUpdate {
    /// The new name.
    pub name: Option<String>,
    /// The directory to move to.
    pub directory: Option<RelPath>,
    /// The number that the file's newest change must have.
    pub if_seq: Option<u64>,
}

/// A kept version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The version.
    pub row: crate::store::content::VersionRow,
    /// Whether the file shows it now.
    pub is_current: bool,
}

/// What a user uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use in all namespaces that the user owns.
    pub used_bytes: u64,
    /// The limit that counts, if there is one.
    pub limit_bytes: Option<u64>,
}

impl Content {
    /// The namespace in which the caller sees this node, entered with this role.
    pub async fn enter_by_file(&self, caller: &Caller, file: NodeId, role: Role) -> ServiceResult<Entry> {
        let row = self.meta.locate_node(caller.user_id, file).await?.into_iter().next().ok_or_else(ServiceError::not_found)?;
        let entry = self.part(caller, row, role).await?;
        if !entry.within.is_root() {
            let tree = self.tree(entry.row.id).await?;
            let (path, _) = tree.of_node(file).ok_or_else(ServiceError::not_found)?;
            entry.confine(path)?;
        }
        Ok(entry)
    }

    /// The namespace to list: the named one, or the caller's home. An app password of one folder sees that folder.
    pub async fn enter_to_list(&self, caller: &Caller, namespace: Option<NamespaceId>) -> ServiceResult<Entry> {
        self.enter_part(caller, namespace, Role::Viewer).await
    }

    /// Lists what a namespace shows.
    pub async fn list_files(&self, entry: &Entry, query: &ListQuery) -> ServiceResult<FilePage> {
        let tree = self.tree(entry.row.id).await?;
        let mut found: Vec<(&RelPath, &read::Entry)> = match &query.directory {
            None => tree.entries.iter().filter(|(path, _)| entry.confine_below(path).is_ok()).collect(),
            Some(directory) => {
                entry.confine(directory)?;
                directory_of(&tree, directory)?;
                let depth = directory.names().len() + 1;
                tree.below(directory).filter(|(path, _)| path.names().len() == depth).collect()
            }
        };
        found.sort_by(|a, b| {
            let order = compare(&tree, query.sort, a, b).then_with(|| a.0.cmp(b.0));
            if query.descending { order.reverse() } else { order }
        });
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut files = Vec::new();
        for (path, shown) in found.iter().skip(query.after).take(limit) {
            files.push(self.describe(entry.row.id, &tree, path, shown).await?);
        }
        let reached = query.after.saturating_add(files.len());
        Ok(FilePage { next: (reached < found.len()).then_some(reached), files })
    }

    /// One entry by its node.
    pub async fn file_info(&self, entry: &Entry, file: NodeId) -> ServiceResult<FileInfo> {
        let tree = self.tree(entry.row.id).await?;
        let (path, shown) = tree.of_node(file).ok_or_else(ServiceError::not_found)?;
        entry.confine(path)?;
        let mut info = self.describe(entry.row.id, &tree, path, shown).await?;
        if entry.only.is_some() {
            super::shared_files::hide_place(&mut info);
        }
        Ok(info)
    }

    pub(super) async fn describe(
        &self,
        namespace: NamespaceId,
        tree: &Tree,
        path: &RelPath,
        shown: &read::Entry,
    ) -> ServiceResult<FileInfo> {
        let times = tree.rows.get(&shown.node).copied().ok_or_else(|| ServiceError::internal("a shown node has no row"))?;
        let mut version_id = None;
        if let Some(dot) = shown.copy {
            let versions = self.meta.versions(namespace, shown.node).await?;
            version_id = versions.iter().find(|v| v.dot == dot).map(|v| v.version_id);
        }
        let name = path.names().last().map_or(&b""[..], Name::as_bytes);
        Ok(FileInfo {
            node: shown.node,
            namespace,
            path: path.clone(),
            file_type: match &shown.content {
                node::Content::Dir => "directory",
                node::Content::Symlink(_) => "symlink",
                _ => super::derive::media_type(name),
            },
            mtime_ns: shown.content.file().map(|f| f.mtime_ns),
            content: shown.content.clone(),
            seq: times.seq,
            created_at_ms: times.created_at_ms,
            updated_at_ms: times.updated_at_ms,
            is_conflict: shown.is_conflict,
            version_id,
        })
    }

    /// Renames or moves an entry.
    pub async fn update_file(&self, entry: &Entry, file: NodeId, update: &FileUpdate) -> ServiceResult<FileInfo> {
        let tree = self.tree(entry.row.id).await?;
        let (path, _) = tree.of_node(file).ok_or_else(ServiceError::not_found)?;
        check_seq(&tree, file, update.if_seq)?;
        let (old_directory, old_name) = path.split_last().ok_or_else(ServiceError::not_found)?;
        let directory = update.directory.clone().unwrap_or(old_directory);
        let name = match &update.name {
            Some(name) => name_of(name)?,
            None => old_name.clone(),
        };
        if directory.starts_with(path) {
            return Err(ServiceError::invalid("move_into_itself", "A directory cannot be moved into itself."));
        }
        let target = directory.join(&name);
        entry.confine_below(path)?;
        entry.confine_below(&target)?;
        check_place(&target)?;
        if target != *path && tree.entries.contains_key(&target) {
            return Err(ServiceError::conflict("name_taken", "There is something of that name already. Choose another name."));
        }
        let parent = directory_of(&tree, &directory)?;
        let attempt = async || {
            let mut edit = self.edit(entry, &[file]).await?;
            edit.move_to(file, parent, name.clone())?;
            self.finish(edit).await
        };
        patiently!(attempt().await)?;
        self.file_info(entry, file).await
    }

    /// Deletes an entry and everything below it: into the trash, from where it can be restored. Returns how many entries went.
    pub async fn delete_file(&self, entry: &Entry, file: NodeId, if_seq: Option<u64>) -> ServiceResult<usize> {
        let tree = self.tree(entry.row.id).await?;
        let (path, shown) = tree.of_node(file).ok_or_else(ServiceError::not_found)?;
        entry.confine_below(path)?;
        check_seq(&tree, file, if_seq)?;
        let mut gone: Vec<(NodeId, Vec<ferry_protocol::Dot>)> = Vec::new();
        for one in std::iter::once(shown).chain(tree.below(path).map(|(_, e)| e)) {
            gone.push((one.node, one.dots.clone()));
            gone.extend(one.twins.iter().map(|(node, _, dots)| (*node, dots.clone())));
        }
        if gone.len() > DELETE_MAX {
            return Err(ServiceError::too_large(format!("One request deletes at most {DELETE_MAX} entries. Delete parts of it first.")));
        }
        let ids: Vec<NodeId> = gone.iter().map(|(node, _)| *node).collect();
        let attempt = async || {
            let mut edit = self.edit(entry, &ids).await?;
            for (node, dots) in &gone {
                edit.put(*node, dots, node::Content::Tombstone)?;
            }
            self.finish(edit).await
        };
        patiently!(attempt().await)?;
        Ok(gone.len())
    }

    /// The versions of a file, newest first.
    pub async fn file_versions(&self, entry: &Entry, file: NodeId) -> ServiceResult<Vec<VersionInfo>> {
        let nodes = self.meta.nodes(entry.row.id, &[file]).await?;
        let state = &nodes.first().ok_or_else(ServiceError::not_found)?.state;
        let current = read::shown(state.body()).first().map(|s| s.value.dot);
        let rows = self.meta.versions(entry.row.id, file).await?;
        Ok(rows.into_iter().map(|row| VersionInfo { is_current: Some(row.dot) == current, row }).collect())
    }

    /// What the caller uses and may use.
    pub async fn usage(&self, caller: &Caller) -> ServiceResult<Usage> {
        let quota = self.meta.quota(caller.user_id).await?;
        Ok(Usage { used_bytes: quota.used_bytes, limit_bytes: quota.limit_bytes.or(self.config.default_limit_bytes) })
    }
}

impl Edit {
    /// Makes the directories of a path that are not there. Returns the node of the last one.
    pub(super) fn make_directories(&mut self, tree: &Tree, path: &RelPath) -> ServiceResult<NodeId> {
        let (mut at, mut parent) = (RelPath::root(), NodeId::ROOT);
        for name in path.names() {
            at = at.join(name);
            match tree.entries.get(&at) {
                Some(entry) if entry.content.is_dir() => parent = entry.node,
                Some(_) => return Err(not_a_directory(&at)),
                None => {
                    let id = NodeId::from_bytes(super::random()?);
                    self.create(id, parent, name.clone(), node::Content::Dir);
                    parent = id;
                }
            }
        }
        Ok(parent)
    }
}

fn compare(tree: &Tree, sort: Sort, a: &(&RelPath, &read::Entry), b: &(&RelPath, &read::Entry)) -> Ordering {
    let size = |e: &read::Entry| e.content.file().map_or(0, |f| f.manifest.size());
    let changed = |e: &read::Entry| tree.rows.get(&e.node).map_or(0, |t| t.updated_at_ms);
    match sort {
        Sort::Name => Ordering::Equal,
        Sort::Size => size(a.1).cmp(&size(b.1)),
        Sort::Modified => changed(a.1).cmp(&changed(b.1)),
    }
}

fn check_seq(tree: &Tree, file: NodeId, if_seq: Option<u64>) -> ServiceResult<()> {
    match (if_seq, tree.rows.get(&file)) {
        (Some(wanted), Some(times)) if times.seq != wanted => {
            let detail = "The file has changed since it was read. Read it again and repeat.";
            Err(ServiceError::new(Kind::PreconditionFailed, "changed", detail))
        }
        _ => Ok(()),
    }
}

/// The node of a directory; the root has one too.
pub(super) fn directory_of(tree: &Tree, path: &RelPath) -> ServiceResult<NodeId> {
    if path.is_root() {
        return Ok(NodeId::ROOT);
    }
    match tree.entries.get(path) {
        Some(entry) if entry.content.is_dir() => Ok(entry.node),
        Some(_) => Err(not_a_directory(path)),
        None => Err(ServiceError::not_found()),
    }
}

fn not_a_directory(path: &RelPath) -> ServiceError {
    ServiceError::conflict("not_a_directory", format!("'{path}' is not a directory."))
}

/// A name that a person typed.
pub(super) fn name_of(text: &str) -> ServiceResult<Name> {
    Name::new(text).map_err(|e| ServiceError::invalid("invalid_name", format!("This is no file name: {e}.")))
}

/// A path that a person typed: with or without slashes around it.
pub fn parse_path(text: &str) -> ServiceResult<RelPath> {
    let path = RelPath::parse(text.trim_matches('/').as_bytes());
    path.map_err(|e| ServiceError::invalid("invalid_path", format!("This is no path: {e}.")))
}

/// What belongs to Ferry at a folder's root is nobody's to write, and no path is deeper than devices can hold.
pub(super) fn check_place(path: &RelPath) -> ServiceResult<()> {
    if path.names().first().is_some_and(Name::is_bookkeeping) {
        return Err(ServiceError::invalid("reserved_name", "'.ferry' at the root is reserved."));
    }
    if path.names().len() > ferry_protocol::limits::PATH_DEPTH_MAX {
        return Err(ServiceError::invalid("path_too_deep", "The path has too many directories."));
    }
    Ok(())
}
