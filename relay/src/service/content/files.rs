//! Files for people and the plain API: look at, rename and move, delete; usage.

use super::edit::{Edit, Write};
use super::view::Shown;
use super::{Content, Entry};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use ferry_protocol::wire::Role;
use ferry_protocol::{Dot, Name, NamespaceId, NodeId, RelPath, node, read};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// What a user uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use in all namespaces that the user owns.
    pub used_bytes: u64,
    /// The limit that counts, if there is one.
    pub limit_bytes: Option<u64>,
}

impl Content {
    /// The namespace in which the caller sees this node, entered with this role: `space` if one is named. Ids are chosen by devices, so that somebody may
    /// have chosen one that another folder of the caller's has (R16): without `space` such a node is refused rather than guessed at.
    pub async fn enter_by_file(&self, caller: &Caller, file: NodeId, space: Option<NamespaceId>, role: Role) -> ServiceResult<Entry> {
        let rows = self.meta.locate_node(caller.user_id, file).await?;
        let row = match space.or(super::folder_of(caller).map(|folder| folder.namespace)) {
            Some(wanted) => rows.into_iter().find(|row| row.id == wanted),
            None => {
                let shared = self.meta.locate_shared(caller.user_id, file).await?;
                let places: BTreeSet<NamespaceId> = rows.iter().chain(&shared).map(|row| row.id).collect();
                if places.len() > 1 {
                    let detail = "Several folders have a file of this id. Name the folder that is meant in 'space_id'.";
                    return Err(ServiceError::conflict("ambiguous_file", detail));
                }
                rows.into_iter().next()
            }
        };
        let entry = self.part(caller, row.ok_or_else(ServiceError::not_found)?, role).await?;
        if !entry.within.is_root() {
            entry.confine(&self.shown(entry.row.id, file).await?.path)?;
        }
        Ok(entry)
    }

    /// The namespace to list: the named one, or the caller's home. An app password of one folder sees that folder.
    pub async fn enter_to_list(&self, caller: &Caller, namespace: Option<NamespaceId>) -> ServiceResult<Entry> {
        self.enter_part(caller, namespace, Role::Viewer).await
    }

    /// The entry that shows a node under its own name.
    pub(super) async fn shown(&self, namespace: NamespaceId, file: NodeId) -> ServiceResult<Shown> {
        self.view(namespace).of_node(file).await?.ok_or_else(ServiceError::not_found)
    }

    /// One entry by its node.
    pub async fn file_info(&self, entry: &Entry, file: NodeId) -> ServiceResult<FileInfo> {
        let shown = self.shown(entry.row.id, file).await?;
        entry.confine(&shown.path)?;
        let mut info = self.describe(entry.row.id, &shown).await?;
        if entry.only.is_some() {
            super::shared_files::hide_place(&mut info);
        }
        Ok(info)
    }

    pub(super) async fn describe(&self, namespace: NamespaceId, shown: &Shown) -> ServiceResult<FileInfo> {
        let Shown { path, entry, times } = shown;
        let mut version_id = None;
        if let Some(dot) = entry.copy {
            let versions = self.meta.versions(namespace, entry.node).await?;
            version_id = versions.iter().find(|v| v.dot == dot).map(|v| v.version_id);
        }
        Ok(FileInfo {
            node: entry.node,
            namespace,
            path: path.clone(),
            file_type: match &entry.content {
                node::Content::Dir => "directory",
                node::Content::Symlink(_) => "symlink",
                _ => super::derive::media_type(entry.name.as_bytes()),
            },
            mtime_ns: entry.content.file().map(|f| f.mtime_ns),
            content: entry.content.clone(),
            seq: times.seq,
            created_at_ms: times.created_at_ms,
            updated_at_ms: times.updated_at_ms,
            is_conflict: entry.is_conflict,
            version_id,
        })
    }

    /// Renames or moves an entry.
    pub async fn update_file(&self, entry: &Entry, file: NodeId, update: &FileUpdate) -> ServiceResult<FileInfo> {
        let view = self.view(entry.row.id);
        let shown = self.shown(entry.row.id, file).await?;
        self.check_seq(entry, &shown, file, update.if_seq).await?;
        let path = &shown.path;
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
        let parent = view.directory(&directory).await?;
        if target != *path && view.look(&parent, &name).await?.is_some() {
            return Err(ServiceError::conflict("name_taken", "There is something of that name already. Choose another name."));
        }
        let parent = parent.node();
        let write: Write = Arc::new(move |pen| {
            pen.move_to(file, parent, name.clone())?;
            Ok(1)
        });
        self.write(entry, vec![file], write).await?;
        self.file_info(entry, file).await
    }

    /// Deletes an entry and everything below it: into the trash, from where it can be restored. Returns how many entries went.
    pub async fn delete_file(&self, entry: &Entry, file: NodeId, if_seq: Option<u64>) -> ServiceResult<usize> {
        let shown = self.shown(entry.row.id, file).await?;
        entry.confine_below(&shown.path)?;
        self.check_seq(entry, &shown, file, if_seq).await?;
        let mut gone: Vec<(NodeId, Vec<Dot>)> = vec![(shown.entry.node, shown.entry.dots.clone())];
        gone.extend(shown.entry.twins.iter().map(|(node, _, dots)| (*node, dots.clone())));
        if let Some(directories) = shown.entry.directories() {
            gone.extend(self.all_below(entry.row.id, &directories).await?);
        }
        if gone.len() > DELETE_MAX {
            return Err(ServiceError::too_large(format!("One request deletes at most {DELETE_MAX} entries. Delete parts of it first.")));
        }
        let ids: Vec<NodeId> = gone.iter().map(|(node, _)| *node).collect();
        let write: Write = Arc::new(move |pen| {
            for (node, dots) in &gone {
                pen.put(*node, dots, node::Content::Tombstone)?;
            }
            Ok(gone.len())
        });
        Ok(self.write(entry, ids, write).await?.count)
    }

    /// Every entry below these directories with the events that it stands for, parents before what is in them; too many are not all in it.
    async fn all_below(&self, namespace: NamespaceId, directories: &[NodeId]) -> ServiceResult<Vec<(NodeId, Vec<Dot>)>> {
        let found = self.meta.subtree(namespace, directories, DELETE_MAX + 1).await?;
        let mut inside: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (n, one) in found.iter().enumerate().filter(|(_, one)| !directories.contains(&one.row.id)) {
            inside.entry(one.stand.parent).or_default().push(n);
        }
        let mut out = Vec::with_capacity(found.len());
        let mut open: Vec<NodeId> = directories.to_vec();
        while let Some(directory) = open.pop() {
            for one in inside.remove(&directory).unwrap_or_default().into_iter().map(|n| &found[n]) {
                let has_child = inside.contains_key(&one.row.id);
                out.extend(read::rows_of(one.row.id, &one.row.state, has_child).into_iter().map(|row| (row.node, row.dots)));
                open.push(one.row.id);
            }
        }
        Ok(out)
    }

    /// Refuses if the node has changed since the caller read it. Of a node that is shown behind its twin the number is its own.
    async fn check_seq(&self, entry: &Entry, shown: &Shown, file: NodeId, if_seq: Option<u64>) -> ServiceResult<()> {
        let Some(wanted) = if_seq else { return Ok(()) };
        let is_it = match shown.entry.node == file {
            true => shown.times.seq == wanted,
            false => self.meta.nodes(entry.row.id, &[file]).await?.first().is_none_or(|row| row.seq == wanted),
        };
        if is_it {
            return Ok(());
        }
        let detail = "The file has changed since it was read. Read it again and repeat.";
        Err(ServiceError::new(Kind::PreconditionFailed, "changed", detail))
    }

    /// What the caller uses and may use.
    pub async fn usage(&self, caller: &Caller) -> ServiceResult<Usage> {
        let quota = self.meta.quota(caller.user_id).await?;
        Ok(Usage { used_bytes: quota.used_bytes, limit_bytes: quota.limit_bytes.or(self.config.default_limit_bytes) })
    }
}

impl Edit {
    /// Makes directories in each other, the first one in `parent`. Returns the node of the last one.
    pub(super) fn make_directories(&mut self, mut parent: NodeId, names: &[Name]) -> ServiceResult<NodeId> {
        for name in names {
            let id = NodeId::from_bytes(super::random()?);
            self.create(id, parent, name.clone(), node::Content::Dir);
            parent = id;
        }
        Ok(parent)
    }
}

pub(super) fn not_a_directory(path: &RelPath) -> ServiceError {
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
