//! What people do to files beside uploading them: make a directory, bring back a version, settle a conflict.

use super::edit::Edit;
use super::files::{check_place, name_of};
use super::tree::Tree;
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
        let tree = self.tree(entry.row.id).await?;
        let target = directory.join(&name_of(name)?);
        check_place(&target)?;
        if tree.entries.contains_key(&target) {
            return Err(ServiceError::conflict("name_taken", "There is something of that name already. Choose another name."));
        }
        super::files::directory_of(&tree, directory)?;
        let mut edit = self.edit(entry, &[]).await?;
        let node = edit.make_directories(&tree, &target)?;
        self.finish(edit).await?;
        self.file_info(entry, node).await
    }

    /// Makes an old version the newest one. What is there now stays among the versions.
    pub async fn restore_version(&self, entry: &Entry, file: NodeId, version_id: [u8; 16]) -> ServiceResult<FileInfo> {
        let rows = self.meta.versions(entry.row.id, file).await?;
        let version = rows.into_iter().find(|v| v.version_id == version_id).ok_or_else(ServiceError::not_found)?;
        let chunks = self.meta.version_chunks(entry.row.id, version_id).await?;
        let manifest = Manifest::new(version.hash, chunks).map_err(ServiceError::internal)?;
        let content = FileContent { manifest, mtime_ns: version.mtime_ns };
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
        let tree = self.tree(entry.row.id).await?;
        let mut found = Vec::new();
        for (path, shown) in tree.entries.iter().filter(|(_, e)| e.is_conflict).take(CONFLICTS_MAX) {
            let copy = self.describe(entry.row.id, &tree, path, shown).await?;
            let current = match self.rival(entry, &tree, path, shown).await? {
                Some((path, shown)) => Some(self.describe(entry.row.id, &tree, &path, shown).await?),
                None => None,
            };
            found.push(Conflict { current, copy });
        }
        Ok(found)
    }

    /// Settles the conflict of the copy that is shown at `path`. Nothing is lost by it: what goes remains among the versions or in the trash.
    pub async fn settle(&self, entry: &Entry, path: &RelPath, keep: Keep) -> ServiceResult<FileInfo> {
        let tree = self.tree(entry.row.id).await?;
        let copy = tree.entries.get(path).filter(|e| e.is_conflict);
        let copy = copy.ok_or_else(|| ServiceError::conflict("no_conflict", "There is no conflicted copy at this place any more."))?;
        let rival = self.rival(entry, &tree, path, copy).await?.map(|(_, shown)| shown);
        let (directory, name) = path.split_last().ok_or_else(ServiceError::not_found)?;
        let parent = super::files::directory_of(&tree, &directory)?;
        let mut nodes = vec![copy.node];
        nodes.extend(rival.map(|r| r.node));
        let mut edit = self.edit(entry, &nodes).await?;
        let settled = write_settled(&mut edit, copy, rival, keep, (parent, name))?;
        self.finish(edit).await?;
        self.file_info(entry, settled).await
    }

    /// What has the name that a conflicted copy lost.
    async fn rival<'t>(
        &self,
        entry: &Entry,
        tree: &'t Tree,
        path: &RelPath,
        copy: &read::Entry,
    ) -> ServiceResult<Option<(RelPath, &'t read::Entry)>> {
        if copy.copy.is_some() {
            return Ok(tree.of_node(copy.node).map(|(path, shown)| (path.clone(), shown)));
        }
        let nodes = self.meta.nodes(entry.row.id, &[copy.node]).await?;
        let Some((row, (directory, _))) = nodes.first().zip(path.split_last()) else { return Ok(None) };
        let place = directory.join(&row.state.places()[0].name);
        Ok(tree.entries.get_key_value(&place).map(|(path, shown)| (path.clone(), shown)))
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
