//! What a place shows to a WebDAV client. Symbolic links are not shown: the protocol has no word for them, and none is followed (I12).
//!
//! This file alone reads what is shown for WebDAV.

use crate::service::content::view::Shown;
use crate::service::content::{Content, Entry};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::{ContentHash, NodeId, RelPath, node};

/// A file or directory, as a WebDAV client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DavEntry {
    /// Where it is.
    pub path: RelPath,
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: DavKind,
    /// Whether it is a conflicted copy: its node is that of the file beside it.
    pub is_copy: bool,
    /// When it came to the relay, in milliseconds since 1970; nothing for the root.
    pub created_at_ms: Option<i64>,
    /// When it last changed on the relay, in milliseconds since 1970; nothing for the root.
    pub updated_at_ms: Option<i64>,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DavKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its size in bytes.
        size_bytes: u64,
        /// Hash of the whole.
        hash: ContentHash,
        /// Its own time in nanoseconds since 1970.
        mtime_ns: i64,
    },
}

impl DavEntry {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == DavKind::Directory
    }

    fn root() -> Self {
        let path = RelPath::root();
        Self { path, node: NodeId::ROOT, kind: DavKind::Directory, is_copy: false, created_at_ms: None, updated_at_ms: None }
    }

    fn of(shown: &Shown) -> Option<Self> {
        let kind = match &shown.entry.content {
            node::Content::Dir => DavKind::Directory,
            node::Content::File(file) => {
                DavKind::File { size_bytes: file.manifest.size(), hash: file.manifest.hash(), mtime_ns: file.mtime_ns }
            }
            node::Content::Symlink(_) | node::Content::Tombstone => return None,
        };
        let (created_at_ms, updated_at_ms) = (Some(shown.times.created_at_ms), Some(shown.times.updated_at_ms));
        let (path, node, is_copy) = (shown.path.clone(), shown.entry.node, shown.entry.copy.is_some());
        Some(Self { path, node, kind, is_copy, created_at_ms, updated_at_ms })
    }
}

impl Content {
    /// What is at a place. The directories above the open part are there, with nothing in them but the way down.
    pub async fn dav_look(&self, entry: &Entry, path: &RelPath) -> ServiceResult<Option<DavEntry>> {
        if !path.starts_with(&entry.within) && !entry.within.starts_with(path) {
            return Ok(None);
        }
        if path.is_root() {
            return Ok(Some(DavEntry::root()));
        }
        let shown = self.view(entry.row.id).at(path).await?;
        Ok(shown.as_ref().and_then(DavEntry::of))
    }

    /// What is in a directory, in the order of names.
    pub async fn dav_list(&self, entry: &Entry, directory: &RelPath) -> ServiceResult<Vec<DavEntry>> {
        let view = self.view(entry.row.id);
        if directory.starts_with(&entry.within) {
            let listed = view.list(&view.directory(directory).await?).await?;
            return Ok(listed.iter().filter_map(DavEntry::of).collect());
        }
        // Above the open part there is nothing but the way down.
        let way = entry.within.names().get(directory.names().len()).filter(|_| entry.within.starts_with(directory));
        let way = way.ok_or_else(ServiceError::not_found)?;
        let shown = view.look(&view.directory(directory).await?, way).await?;
        Ok(shown.as_ref().and_then(DavEntry::of).into_iter().collect())
    }

    /// Whether more than `most` entries lie below a place, at any depth.
    pub async fn dav_has_more_than(&self, entry: &Entry, path: &RelPath, most: usize) -> ServiceResult<bool> {
        let from = if path.starts_with(&entry.within) { path } else { &entry.within };
        let view = self.view(entry.row.id);
        // A file has nothing below it.
        let Some(top) = view.directory_if_any(from).await? else { return Ok(false) };
        Ok(view.walk(top, false, None, most).await?.1)
    }

    /// The node and the hash of what is shown at a place, for [`Content::download`]: a conflicted copy is one of its node's versions.
    pub async fn dav_version(&self, entry: &Entry, path: &RelPath) -> ServiceResult<(NodeId, Option<String>)> {
        entry.confine(path)?;
        let shown = self.view(entry.row.id).at(path).await?.ok_or_else(ServiceError::not_found)?.entry;
        let Some(dot) = shown.copy else { return Ok((shown.node, None)) };
        let versions = self.meta.versions(entry.row.id, shown.node).await?;
        let version = versions.iter().find(|v| v.dot == dot).ok_or_else(ServiceError::not_found)?;
        Ok((shown.node, Some(hex::encode(version.version_id))))
    }
}
