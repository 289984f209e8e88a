//! "What changed after this number, in this epoch?" (I11)

use super::{Content, Entry};
use crate::service::{Kind, ServiceError, ServiceResult};
use ferry_protocol::Epoch;
use ferry_protocol::limits::{COMMIT_NODES_MAX, PAGE_TARGET_BYTES};
use ferry_protocol::wire::{FeedPage, NodeUpdate};

impl Content {
    /// One page of the feed after `since`. A cursor of another epoch, or from beyond the head, is answered with the epoch to start over in.
    pub async fn feed(&self, entry: &Entry, since: u64, epoch: Option<Epoch>, limit: usize) -> ServiceResult<FeedPage> {
        let identity = self.identity();
        if epoch.is_some_and(|e| e != identity.epoch) || (epoch.is_none() && since > 0) {
            return Err(epoch_changed(identity.epoch));
        }
        let limit = limit.clamp(1, COMMIT_NODES_MAX);
        let slice = self.meta.feed(entry.row.id, since, limit, PAGE_TARGET_BYTES).await?;
        if since > slice.head_seq {
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

/// 410 with the epoch that counts now.
pub(super) fn epoch_changed(epoch: Epoch) -> ServiceError {
    ServiceError::new(
        Kind::Gone,
        "epoch_changed",
        "This cursor is of another life of the feed. Read the feed from the start; delete nothing.",
    )
    .with("epoch", epoch.to_string())
}
