//! Taking things out of the trash for good. What goes is the content: versions, and the namespace's hold on their chunks. The tombstone stays, so
//! that what was deleted stays deleted (I3).
//!
//! Only an owner may: a member whose device is in wrong hands can delete, which is undone, but not destroy (L23).

use super::{Content, Entry, patiently};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::{Purged, Scope};
use ferry_protocol::NodeId;
use ferry_protocol::wire::Role;

/// Entries that one transaction purges: writers wait no longer than that takes.
const BATCH: usize = 200;
/// Most entries below one directory that one request purges.
const PURGE_MAX: usize = 100_000;

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeWhat {
    /// This entry, and what was deleted below it.
    Entry(NodeId),
    /// Everything that the relay heard of as deleted before this time, in milliseconds since 1970.
    Before(i64),
}

impl Content {
    /// Purges. In batches, each a transaction: one that is ended between two has purged some, and is simply asked again (I8).
    pub async fn purge(&self, entry: &Entry, what: PurgeWhat) -> ServiceResult<Purged> {
        // Refused before anything is read; each batch looks again.
        self.entry(&entry.caller, entry.row.clone(), Role::Owner)?;
        match what {
            PurgeWhat::Entry(file) => self.purge_entry(entry, file).await,
            PurgeWhat::Before(ms) => self.purge_before(entry, ms).await,
        }
    }

    async fn purge_entry(&self, entry: &Entry, file: NodeId) -> ServiceResult<Purged> {
        let found = self.meta.deleted_below(entry.row.id, file, PURGE_MAX + 1).await?;
        if found.len() > PURGE_MAX {
            return Err(ServiceError::too_large(format!("One request purges at most {PURGE_MAX} entries. Purge parts of it first.")));
        }
        if !found.iter().any(|trashed| trashed.row.id == file) {
            return Err(ServiceError::conflict("not_in_trash", "This is not in the trash."));
        }
        // What was asked for goes last: as long as it is there, asking again finds the rest.
        let (own, mut nodes): (Vec<_>, Vec<_>) =
            found.iter().map(|trashed| (trashed.row.id, trashed.row.seq)).partition(|(id, _)| *id == file);
        nodes.extend(own);
        let mut purged = Purged::default();
        for batch in nodes.chunks(BATCH) {
            purged += self.purge_batch(entry, batch).await?;
        }
        Ok(purged)
    }

    async fn purge_before(&self, entry: &Entry, before_ms: i64) -> ServiceResult<Purged> {
        let (mut purged, mut before_seq) = (Purged::default(), i64::MAX as u64);
        loop {
            let page = self.meta.deleted(entry.row.id, before_seq, BATCH).await?;
            let Some(last) = page.last() else { return Ok(purged) };
            before_seq = last.seq;
            let nodes: Vec<(NodeId, u64)> = page.iter().filter(|row| row.deleted_at_ms < before_ms).map(|row| (row.id, row.seq)).collect();
            if !nodes.is_empty() {
                purged += self.purge_batch(entry, &nodes).await?;
            }
        }
    }

    async fn purge_batch(&self, entry: &Entry, nodes: &[(NodeId, u64)]) -> ServiceResult<Purged> {
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let namespace = tx.namespace_for(entry.row.id, entry.caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
            self.entry(&entry.caller, namespace.clone(), Role::Owner)?;
            let purged = tx.purge(&namespace, nodes, self.clock.now_ms()).await?;
            tx.commit().await?;
            ServiceResult::Ok(purged)
        };
        patiently!(attempt().await)
    }
}
