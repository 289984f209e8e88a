//! What people do to files beside uploading them: make a directory, bring back a version, settle a conflict.

use super::edit::Edit;
use super::files::{check_place, name_of};
use super::view::Shown;
use super::{Content, Entry, FileInfo};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::{Dot, FileContent, Manifest, Name, NodeId, RelPath, node, read};

/// Most conflicts of one answer.
const CONFLICTS_MAX: usize = 1000;

/// What stays of two contents that claim one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// What has the name now; the copy remains among the versions or in the trash.
    Current,
    /// The copy, under the name; what had it remains among the versions.
    Copy,
    /// Both: the copy becomes a file of its own under the name that it is shown under.
    Both,
}

/// Two contents that claim one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What has the name; nothing if it is gone meanwhile.
    pub current: Option<FileInfo>,
    /// What is shown beside it.
    pub copy: FileInfo,
}

impl Content {
    /// Makes a directory. The directories above it must be there.
    pub async fn make_directory(&self, entry: &Entry, directory: &RelPath, name: &str) -> ServiceResult<FileInfo> {
        let (view, name) = (self.view(entry.row.id), name_of(name)?);
        check_place(&directory.join(&name))?;
        let directory = view.directory(directory).await?;
        if view.look(&directory, &name).await?.is_some() {
            return Err(ServiceError::conflict("name_taken", "There is something of that name already. Choose another name."));
        }
        let mut edit = self.edit(entry, &[]).await?;
        let node = edit.make_directories(directory.node(), &[name])?;
        self.finish(edit).await?;
        self.file_info(entry, node).await
    }

    /// Makes an old version the newest one. What is there now stays among the versions.
    pub async fn restore_version(&self, entry: &Entry, file: NodeId, version_id: [u8; 16]) -> ServiceResult<FileInfo> {
        let rows = self.meta.versions(entry.row.id, file).await?;
        let version = rows.into_iter().find(|v| v.version_id == version_id).ok_or_else(ServiceError::not_found)?;
        let chunks = self.meta.version_chunks(entry.row.id, version_id).await?;
        let manifest = Manifest::new(version.hash, chunks).map_err(ServiceError::internal)?;
        let content = FileContent::new(manifest, version.mtime_ns);
        let mut edit = self.edit(entry, &[file]).await?;
        let state = edit.state(file).ok_or_else(ServiceError::not_found)?;
        let shown = read::shown(state.body());
        let Some(newest) = shown.first() else {
            return Err(ServiceError::conflict("is_deleted", "This file is in the trash. Restore it first."));
        };
        if newest.value.content.file().is_none_or(|now| now.manifest == content.manifest) {
            return Err(ServiceError::conflict("already_current", "This version is what the file shows now."));
        }
        let dots = newest.dots.clone();
        edit.put(file, &dots, node::Content::File(content))?;
        self.finish(edit).await?;
        self.file_info(entry, file).await
    }

    /// The conflicts of a namespace, in the order of their paths.
    pub async fn conflicts(&self, entry: &Entry) -> ServiceResult<Vec<Conflict>> {
        if !self.meta.is_contested(entry.row.id).await? {
            return Ok(Vec::new());
        }
        // Where directories are shown as one, anything in them may be in conflict: the whole tree says.
        let tree = self.tree(entry.row.id).await?;
        let mut found = Vec::new();
        for (path, shown) in tree.entries.iter().filter(|(_, e)| e.is_conflict).take(CONFLICTS_MAX) {
            let Some(times) = tree.rows.get(&shown.node).copied() else { continue };
            let shown = Shown { path: path.clone(), entry: shown.clone(), times };
            let copy = self.describe(entry.row.id, &shown).await?;
            let current = match self.rival(entry, &shown).await? {
                Some(rival) => Some(self.describe(entry.row.id, &rival).await?),
                None => None,
            };
            found.push(Conflict { current, copy });
        }
        Ok(found)
    }

    /// Settles the conflict of the copy that is shown at `path`. Nothing is lost by it: what goes remains among the versions or in the trash.
    pub async fn settle(&self, entry: &Entry, path: &RelPath, keep: Keep) -> ServiceResult<FileInfo> {
        let view = self.view(entry.row.id);
        let copy = view.at(path).await?.filter(|shown| shown.entry.is_conflict);
        let copy = copy.ok_or_else(|| ServiceError::conflict("no_conflict", "There is no conflicted copy at this place any more."))?;
        let rival = self.rival(entry, &copy).await?.map(|shown| shown.entry);
        let copy = copy.entry;
        let (directory, name) = path.split_last().ok_or_else(ServiceError::not_found)?;
        let parent = view.directory(&directory).await?.node();
        let mut nodes = vec![copy.node];
        nodes.extend(rival.as_ref().map(|r| r.node));
        let mut edit = self.edit(entry, &nodes).await?;
        let settled = write_settled(&mut edit, &copy, rival.as_ref(), keep, (parent, name))?;
        self.finish(edit).await?;
        self.file_info(entry, settled).await
    }

    /// What has the name that a conflicted copy lost.
    async fn rival(&self, entry: &Entry, copy: &Shown) -> ServiceResult<Option<Shown>> {
        let view = self.view(entry.row.id);
        if copy.entry.copy.is_some() {
            return view.of_node(copy.entry.node).await;
        }
        let nodes = self.meta.nodes(entry.row.id, &[copy.entry.node]).await?;
        let Some((row, (directory, _))) = nodes.first().zip(copy.path.split_last()) else { return Ok(None) };
        view.at(&directory.join(&row.state.places()[0].name)).await
    }
}

/// Writes what was chosen; returns the node that stands for it.
fn write_settled(
    edit: &mut Edit,
    copy: &read::Entry,
    rival: Option<&read::Entry>,
    keep: Keep,
    (parent, name): (NodeId, &Name),
) -> ServiceResult<NodeId> {
    let is_own_node = copy.copy.is_none();
    match (keep, rival) {
        (Keep::Both, _) if is_own_node => {
            edit.move_to(copy.node, parent, name.clone())?;
            Ok(copy.node)
        }
        (Keep::Both, Some(rival)) => {
            let fresh = NodeId::from_bytes(super::random()?);
            edit.create(fresh, parent, name.clone(), copy.content.clone());
            edit.put(copy.node, &both(rival, copy), rival.content.clone())?;
            Ok(fresh)
        }
        (Keep::Current, Some(rival)) if is_own_node => {
            edit.put(copy.node, &copy.dots, node::Content::Tombstone)?;
            Ok(rival.node)
        }
        (Keep::Current, Some(rival)) => {
            edit.put(rival.node, &both(rival, copy), rival.content.clone())?;
            Ok(rival.node)
        }
        (Keep::Copy, Some(rival)) => {
            if rival.content.is_dir() || copy.content.is_dir() {
                return Err(ServiceError::conflict("is_a_directory", "A directory takes part in this conflict. Keep both and rename one."));
            }
            if is_own_node {
                edit.put(rival.node, &rival.dots, copy.content.clone())?;
                edit.put(copy.node, &copy.dots, node::Content::Tombstone)?;
            } else {
                edit.put(rival.node, &both(rival, copy), copy.content.clone())?;
            }
            Ok(rival.node)
        }
        (_, None) => Err(ServiceError::conflict("no_conflict", "What this copy was in conflict with is gone.")),
    }
}

fn both(one: &read::Entry, other: &read::Entry) -> Vec<Dot> {
    one.dots.iter().chain(&other.dots).copied().collect()
}
