//! "What changed after this number, in this epoch?" (I11)
//!
//! A database that was restored from a backup gives again the numbers that it gave before, to other changes; a device that had read them would
//! miss those. So the first write of each run of a relay in a namespace skips a random number of numbers, many more than a lost life of the feed
//! can have given, and remembers the gap (RC6). A cursor beyond the head, or in a gap, is of a life that was lost: the device starts over (P18).

use super::{Content, Entry, random};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::{ContentTx, NamespaceRow};
use ferry_protocol::limits::{COMMIT_NODES_MAX, PAGE_TARGET_BYTES};
use ferry_protocol::wire::{FeedPage, NodeUpdate};
use ferry_protocol::{Epoch, ReplicaId};

/// At least so many numbers are skipped, and less than twice as many: more than a namespace changes between a backup and its restore, and so few
/// that a million runs stay below 2^53, the largest number that JSON carries everywhere.
const GAP_MIN: u64 = 1 << 28;

impl Content {
    /// One page of the feed after `since`. A cursor of another epoch, or from beyond the head, is answered with the epoch to start over in.
    pub async fn feed(&self, entry: &Entry, since: u64, epoch: Option<Epoch>, limit: usize) -> ServiceResult<FeedPage> {
        let identity = self.identity();
        if epoch.is_some_and(|e| e != identity.epoch) || (epoch.is_none() && since > 0) {
            return Err(epoch_changed(identity.epoch));
        }
        let limit = limit.clamp(1, COMMIT_NODES_MAX);
        let slice = self.meta.feed(entry.row.id, since, limit, PAGE_TARGET_BYTES).await?;
        if since > slice.head_seq || !slice.since_is_known {
            return Err(epoch_changed(identity.epoch));
        }
        let last = slice.nodes.last().map_or(slice.head_seq, |n| n.seq);
        let has_more = last < slice.head_seq && !slice.nodes.is_empty();
        metrics::counter!("ferry_relay_sync_delta_entries_total").increment(slice.nodes.len() as u64);
        Ok(FeedPage {
            epoch: identity.epoch,
            replica: identity.replica,
            cursor: last,
            head: slice.head_seq,
            has_more,
            nodes: slice.nodes.into_iter().map(|n| NodeUpdate { id: n.id, state: n.state }).collect(),
        })
    }
}

impl Content {
    /// The number after which a write in this namespace goes on in this run (RC6).
    pub(super) fn numbers_after(&self, namespace: &NamespaceRow, run: ReplicaId) -> ServiceResult<u64> {
        if namespace.run == Some(run) {
            return Ok(namespace.head_seq);
        }
        let gap = GAP_MIN + u64::from(u32::from_le_bytes(random()?)) % GAP_MIN;
        Ok(namespace.head_seq.saturating_add(gap))
    }

    /// Remembers the gap, if there is one, before something is written with the numbers after it.
    pub(super) async fn keep_gap(
        &self,
        tx: &mut dyn ContentTx,
        namespace: &NamespaceRow,
        base_seq: u64,
        run: ReplicaId,
    ) -> ServiceResult<()> {
        if base_seq != namespace.head_seq {
            tx.skip_numbers(namespace, base_seq, run).await?;
        }
        Ok(())
    }
}

/// 410 with the epoch that counts now.
pub(super) fn epoch_changed(epoch: Epoch) -> ServiceError {
    ServiceError::new(
        Kind::Gone,
        "epoch_changed",
        "This cursor is of another life of the feed. Read the feed from the start; delete nothing.",
    )
    .with("epoch", epoch.to_string())
}
