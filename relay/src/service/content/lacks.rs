//! What the relay has lost of what it committed to keep: chunks whose bytes are gone or wrong. Nothing is refused because of them and nothing is
//! deleted: the feed goes on, and members' devices are asked to send the bytes again (P19, X02).
//!
//! A database and a chunk directory that are restored to different times disagree. Rows that are newer than their blobs name chunks that are not
//! there: those are marked here, and lie in wait as damaged ones do. Blobs that are newer than the rows are strays, which the sweep removes, and
//! what the rows do not know devices send again.

use super::{Content, Entry};
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, DegradedVersion, PackId};
use ferry_protocol::ChunkId;
use ferry_protocol::limits::CHUNK_IDS_MAX;
use std::collections::BTreeMap;

impl Content {
    /// Chunks that versions of the namespace name and whose bytes the relay has lost, in the order of their ids: at most `limit` after `after`.
    pub async fn lacks(&self, entry: &Entry, after: Option<ChunkId>, limit: usize) -> ServiceResult<Vec<ChunkId>> {
        Ok(self.meta.lacks(entry.row.id, after, limit.clamp(1, CHUNK_IDS_MAX)).await?)
    }

    /// When the relay last found that it lacks something of the namespace, in milliseconds since 1970; nothing while it has everything. A device
    /// that sees a newer time than before asks for [`Content::lacks`].
    pub async fn lacks_since(&self, entry: &Entry) -> ServiceResult<Option<i64>> {
        Ok(self.meta.lacks_since(entry.row.id).await?)
    }

    /// Looks for packs whose blobs are gone or cut off, and marks the chunks that stood there. Lists, and reads nothing: cheap enough for every
    /// start. What a list lacks is looked for once more before it is marked, and what may be where this process cannot look is left alone. Returns how
    /// many chunks were marked.
    pub async fn find_lost_packs(&self) -> ServiceResult<u64> {
        // Rows before blobs: a pack that is stored meanwhile is not looked at, one that is swept meanwhile has no chunks any more.
        let packs = self.meta.packs().await?;
        // The longest copy of each, in whatever region.
        let mut blobs: BTreeMap<PackId, u64> = BTreeMap::new();
        for blob in self.blobs.list().await?.into_values().flatten() {
            let longest = blobs.entry(blob.id).or_default();
            *longest = (*longest).max(blob.length_bytes);
        }
        let mut marked = 0;
        for pack in packs.iter().filter(|p| blobs.get(&p.id).is_none_or(|length| *length < p.length_bytes)) {
            match self.blobs.is_gone(pack.id, pack.length_bytes).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(pack = %pack.id, %error, "whether a pack is there cannot be said; its chunks are left as they are");
                    continue;
                }
            }
            let there = blobs.get(&pack.id).copied().unwrap_or(0);
            let is_lost = |l: &ChunkLocation| l.offset + u64::from(l.len) > there;
            let lost: Vec<_> = self.standing_in(pack.id).await?.into_iter().filter(is_lost).map(|l| (l, "missing")).collect();
            self.report_damage(&lost).await;
            marked += lost.len() as u64;
        }
        Ok(marked)
    }

    /// The kept versions that cannot be served whole now: how many, and the first `limit` of them.
    pub async fn degraded(&self, limit: usize) -> ServiceResult<(u64, Vec<DegradedVersion>)> {
        Ok(self.meta.degraded_versions(limit).await?)
    }
}
