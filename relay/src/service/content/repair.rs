//! Repair: sets right what verification found and what can be set right without anybody's bytes.
//!
//! Counts of references and of used bytes are counted anew. A chunk that is marked as damaged and whose bytes are right again, because somebody brought
//! the chunk directory back, loses its mark. What is really gone stays marked, and devices are asked for it.

use super::Content;
use super::read::runs;
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, Scope, Shard};
use serde::Serialize;

/// Chunks looked at in one step.
const STEP: usize = 4096;

/// What a repair did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Reference counts that were wrong.
    pub refs_corrected: u64,
    /// Users whose used bytes were wrong.
    pub usage_corrected: u64,
    /// Chunks marked as damaged whose bytes are right.
    pub chunks_sound_again: u64,
    /// Chunks that stay marked: their bytes are gone.
    pub chunks_still_damaged: u64,
}

impl Content {
    /// Repairs. With `dry_run` nothing is changed; the report says what would be.
    pub async fn repair(&self, dry_run: bool) -> ServiceResult<RepairReport> {
        let mut report = RepairReport::default();
        for shard in self.meta.shards() {
            let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
            let (refs, usage) = tx.recount().await?;
            report.refs_corrected += refs;
            report.usage_corrected += usage;
            if dry_run {
                drop(tx);
            } else {
                tx.commit().await?;
            }
            self.look_again(shard, dry_run, &mut report).await?;
        }
        Ok(report)
    }

    /// Reads the chunks that are marked as damaged once more.
    async fn look_again(&self, shard: Shard, dry_run: bool, report: &mut RepairReport) -> ServiceResult<()> {
        let mut after = None;
        loop {
            let step = self.meta.stored_chunks(shard, after, STEP).await?;
            let Some(last) = step.last() else { return Ok(()) };
            after = Some(last.location.id);
            let mut marked: Vec<ChunkLocation> = step.iter().filter(|c| c.is_damaged).map(|c| c.location).collect();
            marked.sort_by_key(|l| (l.pack, l.offset));
            let mut sound = Vec::new();
            for run in runs(marked.iter().copied()) {
                for (id, bytes) in self.read_run(run).await? {
                    match (bytes, marked.iter().find(|l| l.id == id)) {
                        (Some(_), Some(location)) => sound.push(*location),
                        _ => report.chunks_still_damaged += 1,
                    }
                }
            }
            report.chunks_sound_again += sound.len() as u64;
            if !dry_run && !sound.is_empty() {
                let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
                tx.mark_sound(&sound).await?;
                tx.commit().await?;
            }
        }
    }
}
