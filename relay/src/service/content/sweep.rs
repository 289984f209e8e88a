//! The sweep: removes chunks that nothing refers to, in two phases with a grace period between them (R8).
//!
//! Phase one drops leases that ended and marks chunks that no namespace holds. Phase two deletes chunks that were marked longer ago than the
//! grace period and are still held by nobody, then packs without a chunk, then blobs without a pack. A new upload of a marked chunk unmarks it.
//! Between them, packs that are mostly dead are rewritten, and small ones merged (`rewrite.rs`).

use super::rewrite::{LIVE_MIN_PERCENT, PACKS_MAX};
use super::{Content, patiently};
use crate::service::ServiceResult;
use crate::store::content::{PackId, PackRow, Scope, Shard};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;

/// Rows that one transaction deletes: writers wait no longer than that takes.
const BATCH: usize = 1000;
/// How long a commit is remembered, in milliseconds: longer than any device keeps repeating it.
const COMMITS_KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// What a sweep did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Leases that ended without a commit.
    pub leases_dropped: u64,
    /// Chunks found unreferenced for the first time.
    pub chunks_marked: u64,
    /// Chunks deleted.
    pub chunks_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Mostly dead packs whose chunks were copied into new ones; they go after one more grace period.
    pub packs_rewritten: u64,
    /// Small packs that were merged into larger ones; they go after one more grace period.
    pub packs_merged: u64,
    /// Bytes of the chunks that were copied.
    pub bytes_rewritten: u64,
    /// Packs deleted: their blobs are gone.
    pub packs_deleted: u64,
    /// Blobs deleted that no pack row knew: left by a crash between blob and row.
    pub stray_blobs_deleted: u64,
}

impl Content {
    /// Sweeps. With `dry_run` nothing is changed; the report says what would be deleted now if nothing else happened.
    pub async fn sweep(&self, dry_run: bool) -> ServiceResult<SweepReport> {
        let now_ms = self.clock.now_ms();
        let before_ms = now_ms.saturating_sub(self.config.grace_ms);
        if dry_run {
            return self.rehearse(now_ms, before_ms).await;
        }
        let mut report = SweepReport::default();
        for shard in self.meta.shards() {
            self.sweep_shard(shard, now_ms, before_ms, &mut report).await?;
        }
        report.stray_blobs_deleted = self.delete_stray_blobs(before_ms).await?;
        metrics::counter!("ferry_relay_gc_deleted_bytes_total").increment(report.bytes_deleted);
        metrics::gauge!("ferry_relay_gc_last_success_timestamp_seconds").set((now_ms / 1000) as f64);
        Ok(report)
    }

    async fn sweep_shard(&self, shard: Shard, now_ms: i64, before_ms: i64, report: &mut SweepReport) -> ServiceResult<()> {
        let scope = Scope::Shard(shard);
        let drop_leases = async || {
            let mut tx = self.meta.begin(scope).await?;
            let dropped = tx.drop_leases(now_ms, BATCH).await?;
            tx.commit().await?;
            ServiceResult::Ok(dropped)
        };
        let mark = async || {
            let mut tx = self.meta.begin(scope).await?;
            tx.drop_expired(now_ms, now_ms.saturating_sub(COMMITS_KEPT_MS)).await?;
            let marked = tx.mark_orphans(now_ms).await?;
            tx.commit().await?;
            ServiceResult::Ok(marked)
        };
        let delete = async || {
            let mut tx = self.meta.begin(scope).await?;
            let deleted = tx.delete_orphans(before_ms, BATCH).await?;
            tx.commit().await?;
            ServiceResult::Ok(deleted)
        };
        loop {
            let dropped = patiently!(drop_leases().await)?;
            report.leases_dropped += dropped;
            if dropped < BATCH as u64 {
                break;
            }
        }
        report.chunks_marked += patiently!(mark().await)?;
        loop {
            let (chunks, bytes) = patiently!(delete().await)?;
            report.chunks_deleted += chunks;
            report.bytes_deleted += bytes;
            if chunks < BATCH as u64 {
                break;
            }
        }
        let (packs, bytes) = self.rewrite_packs(shard, before_ms).await?;
        report.packs_rewritten += packs;
        let (merged, merged_bytes) = self.merge_packs(shard, before_ms).await?;
        report.packs_merged += merged;
        report.bytes_rewritten += bytes + merged_bytes;
        report.packs_deleted += self.delete_packs(shard, before_ms).await?;
        Ok(())
    }

    /// The rows first, then the blobs: a crash between leaves stray blobs, never a row without its blob.
    async fn delete_packs(&self, shard: Shard, before_ms: i64) -> ServiceResult<u64> {
        let mut deleted = 0;
        let delete = async || {
            let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
            let packs = tx.delete_empty_packs(before_ms, BATCH).await?;
            tx.commit().await?;
            ServiceResult::Ok(packs)
        };
        loop {
            let packs = patiently!(delete().await)?;
            // Asked after the rows are gone: a backup that begins later does not name these packs. Blobs that stay are strays for a later sweep.
            if self.sweep_is_held().await? {
                return Ok(deleted);
            }
            for pack in &packs {
                self.blobs.delete(pack.id).await?;
            }
            deleted += packs.len() as u64;
            if packs.len() < BATCH {
                return Ok(deleted);
            }
        }
    }

    /// Whether somebody, a backup, needs blobs to stay.
    pub(crate) async fn sweep_is_held(&self) -> ServiceResult<bool> {
        Ok(self.sweep_held_until_ms().await? > self.clock.now_ms())
    }

    /// Until when, in milliseconds since 1970.
    pub(crate) async fn sweep_held_until_ms(&self) -> ServiceResult<i64> {
        Ok(self.meta.sweep_held_until_ms().await?)
    }

    /// Keeps blobs from being deleted until then, in milliseconds since 1970: what a reader of the whole store finds named, it finds.
    pub async fn hold_sweep(&self, holder: [u8; 16], until_ms: i64) -> ServiceResult<()> {
        Ok(self.meta.hold_sweep(holder, until_ms).await?)
    }

    /// Ends what this holder held.
    pub async fn release_sweep(&self, holder: [u8; 16]) -> ServiceResult<()> {
        Ok(self.meta.release_sweep(holder, self.clock.now_ms()).await?)
    }

    /// Every pack that the database names now.
    pub async fn packs(&self) -> ServiceResult<Vec<PackRow>> {
        Ok(self.meta.packs().await?)
    }

    /// A part of a pack as it is stored; nothing if the blob is not there or too short.
    pub async fn read_pack(&self, pack: &PackRow, offset: u64, len: usize) -> ServiceResult<Option<Bytes>> {
        self.blobs.read(pack.id, offset, len).await
    }

    /// Blobs are listed before the rows are read, and young ones are left alone, so that an upload between its blob and its row is safe.
    async fn delete_stray_blobs(&self, before_ms: i64) -> ServiceResult<u64> {
        let mut deleted = 0;
        let strays = self.stray_blobs(before_ms).await?;
        if self.sweep_is_held().await? {
            return Ok(deleted);
        }
        for (region, id) in strays {
            self.blobs.store(&region)?.delete(id).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Blobs that no row knows, and copies that are more than the rows say.
    pub(super) async fn stray_blobs(&self, before_ms: i64) -> ServiceResult<Vec<(String, PackId)>> {
        let listed = self.blobs.list().await?;
        let packs: Vec<PackId> = self.meta.packs().await?.into_iter().map(|p| p.id).collect();
        let copies = self.blobs.copies_of(&packs).await?;
        let mut stray = Vec::new();
        let there: BTreeSet<(&str, PackId)> =
            listed.iter().flat_map(|(region, blobs)| blobs.iter().map(move |b| (region.as_str(), b.id))).collect();
        for (region, blobs) in &listed {
            let is_stray = |id: &PackId| match copies.get(id) {
                None => true,
                // In another region than its row says: it goes only if it is where its row says.
                Some(regions) => !regions.contains(region) && regions.iter().any(|r| there.contains(&(r.as_str(), *id))),
            };
            stray.extend(blobs.iter().filter(|b| b.written_at_ms < before_ms && is_stray(&b.id)).map(|b| (region.clone(), b.id)));
        }
        Ok(stray)
    }

    /// The same statements in transactions that are dropped (CS2).
    async fn rehearse(&self, now_ms: i64, before_ms: i64) -> ServiceResult<SweepReport> {
        let mut report = SweepReport::default();
        for shard in self.meta.shards() {
            let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
            report.leases_dropped += tx.drop_leases(now_ms, usize::MAX >> 1).await?;
            report.chunks_marked += tx.mark_orphans(now_ms).await?;
            let (chunks, bytes) = tx.delete_orphans(before_ms, usize::MAX >> 1).await?;
            report.chunks_deleted += chunks;
            report.bytes_deleted += bytes;
            let sparse = tx.sparse_packs(before_ms, LIVE_MIN_PERCENT, PACKS_MAX).await?;
            report.packs_rewritten += sparse.len() as u64;
            report.bytes_rewritten += sparse.iter().map(|(_, live_bytes)| live_bytes).sum::<u64>();
            // Those that are mostly dead are rewritten before; of the others nearly all bytes are chunks.
            let small = self.to_merge(&mut *tx, before_ms).await?.into_values().flatten();
            for pack in small.filter(|pack| !sparse.iter().any(|(s, _)| s.id == pack.id)) {
                report.packs_merged += 1;
                report.bytes_rewritten += pack.length_bytes;
            }
            report.packs_deleted += tx.delete_empty_packs(before_ms, usize::MAX >> 1).await?.len() as u64;
            // A sweep passes over rows that are locked: the next one is to find none of ours.
            tx.rollback().await?;
        }
        report.stray_blobs_deleted = self.stray_blobs(before_ms).await?.len() as u64;
        Ok(report)
    }
}
