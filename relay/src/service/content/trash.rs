//! The trash: what was deleted and can come back. Nothing in it is ever lost to the sweep: its versions hold its chunks.

use super::{Content, Entry};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::DeletedRow;
use ferry_protocol::{FileContent, Manifest, NodeId, node, read};

/// Most entries of one page.
const PAGE_MAX: usize = 1000;

/// Something in the trash.
pub type TrashItem = DeletedRow;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The node.
    pub node: NodeId,
    /// The feed's head after it.
    pub head_seq: u64,
}

impl Content {
    /// What lies in the trash of a namespace, newest first; the second value is the cursor of the next page.
    pub async fn trash(&self, entry: &Entry, before_seq: Option<u64>, limit: usize) -> ServiceResult<(Vec<TrashItem>, Option<u64>)> {
        let limit = limit.clamp(1, PAGE_MAX);
        let items = self.meta.deleted(entry.row.id, before_seq.unwrap_or(i64::MAX as u64), limit).await?;
        let next = if items.len() == limit { items.last().map(|i| i.seq) } else { None };
        Ok((items, next))
    }

    /// Brings a deleted file or directory back, with the newest content that it had. Directories above it come back with it (CR8).
    pub async fn restore(&self, entry: &Entry, file: NodeId) -> ServiceResult<Restored> {
        let versions = self.meta.versions(entry.row.id, file).await?;
        let nodes = self.meta.nodes(entry.row.id, &[file]).await?;
        let state = &nodes.first().ok_or_else(ServiceError::not_found)?.state;
        if !read::shown(state.body()).is_empty() {
            return Err(ServiceError::conflict("not_deleted", "This is not in the trash."));
        }
        let content = match versions.first() {
            Some(version) => {
                let chunks = self.meta.version_chunks(version.version_id).await?;
                let manifest = Manifest::new(version.hash, chunks).map_err(ServiceError::internal)?;
                node::Content::File(FileContent { manifest, mtime_ns: version.mtime_ns })
            }
            None if self.was(entry, file, nodes[0].seq).await?.as_deref() == Some("symlink") => {
                return Err(ServiceError::conflict("link_not_kept", "The target of a deleted link is not kept. Make the link again."));
            }
            None => node::Content::Dir,
        };
        let mut edit = self.edit(entry, &[file]).await?;
        // Every tombstone that stands now is replaced; a living value that came meanwhile stays.
        let state = edit.state(file).ok_or_else(ServiceError::not_found)?;
        let dots: Vec<_> = state.body().values().iter().filter(|v| v.content.is_tombstone()).map(|v| v.dot).collect();
        edit.put(file, &dots, content)?;
        let head_seq = self.finish(edit).await?;
        Ok(Restored { node: file, head_seq })
    }

    async fn was(&self, entry: &Entry, file: NodeId, seq: u64) -> ServiceResult<Option<String>> {
        let rows = self.meta.deleted(entry.row.id, seq.saturating_add(1), 1).await?;
        Ok(rows.into_iter().find(|r| r.id == file).map(|r| r.file_type))
    }
}
