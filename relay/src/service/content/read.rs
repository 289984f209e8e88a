//! Reading chunks from packs: neighbours in one read, every chunk hashed before it is used (RC4).

use super::{Content, off_thread};
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, PackId, Scope};
use bytes::Bytes;
use ferry_protocol::ChunkId;
use tokio::sync::mpsc;

/// Most bytes of one read.
const RUN_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Runs that are read before they are wanted.
const RUNS_AHEAD: usize = 2;
/// Bytes between two chunks that are read and thrown away rather than read around.
const GAP_MAX_BYTES: u64 = 16 * 1024;

/// Chunks that stand close together in one pack, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pack: PackId,
    start: u64,
    end: u64,
    /// The chunks.
    pub(super) chunks: Vec<ChunkLocation>,
}

/// Joins neighbours. The order of chunks stays.
pub(super) fn runs(locations: impl IntoIterator<Item = ChunkLocation>) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for chunk in locations {
        let end = chunk.offset.saturating_add(u64::from(chunk.len));
        match out.last_mut() {
            Some(run)
                if run.pack == chunk.pack
                    && chunk.offset >= run.end
                    && chunk.offset - run.end <= GAP_MAX_BYTES
                    && end - run.start <= RUN_MAX_BYTES =>
            {
                run.end = end;
                run.chunks.push(chunk);
            }
            _ => out.push(Run { pack: chunk.pack, start: chunk.offset, end, chunks: vec![chunk] }),
        }
    }
    out
}

/// What became of a chunk: its verified bytes, or nothing if the store has no good copy.
pub(super) type ReadChunk = (ChunkId, Option<Bytes>);

impl Content {
    /// Reads a run and hashes every chunk. What is damaged or missing is reported and is nothing in the answer.
    pub(super) async fn read_run(&self, run: Run) -> ServiceResult<Vec<ReadChunk>> {
        let whole = self.blobs.read(run.pack, run.start, (run.end - run.start) as usize).await?;
        let mut parts: Vec<(ChunkLocation, Option<Bytes>)> = Vec::with_capacity(run.chunks.len());
        for chunk in run.chunks {
            let part = match &whole {
                Some(whole) => {
                    let from = (chunk.offset - run.start) as usize;
                    Some(whole.slice(from..from + chunk.len as usize))
                }
                // The pack is gone or too short: perhaps not for this chunk.
                None => self.blobs.read(chunk.pack, chunk.offset, chunk.len as usize).await?,
            };
            parts.push((chunk, part));
        }
        let mut checked = off_thread(move || {
            let check = |(chunk, part): (ChunkLocation, Option<Bytes>)| {
                let good = part.as_ref().is_some_and(|bytes| ChunkId::of(bytes) == chunk.id);
                let reason = if part.is_none() { "missing" } else { "wrong bytes" };
                (chunk, part.filter(|_| good), reason)
            };
            parts.into_iter().map(check).collect::<Vec<_>>()
        })
        .await?;
        for (chunk, bytes, reason) in checked.iter_mut().filter(|c| c.1.is_none()) {
            *bytes = self.read_elsewhere(chunk).await?;
            if bytes.is_some() {
                tracing::error!(chunk = %chunk.id, pack = %chunk.pack, reason, "a copy of a chunk is damaged; another one is served");
            }
        }
        let bad: Vec<(ChunkLocation, &'static str)> = checked.iter().filter(|c| c.1.is_none()).map(|c| (c.0, c.2)).collect();
        self.report_damage(&bad).await;
        Ok(checked.into_iter().map(|(chunk, bytes, _)| (chunk.id, bytes)).collect())
    }

    /// A good copy of a chunk of which the nearest is damaged.
    async fn read_elsewhere(&self, chunk: &ChunkLocation) -> ServiceResult<Option<Bytes>> {
        let copies = self.blobs.read_all(chunk.pack, chunk.offset, chunk.len as usize).await?;
        let id = chunk.id;
        off_thread(move || copies.into_iter().find(|bytes| ChunkId::of(bytes) == id)).await
    }

    /// Reads runs one after another, ahead of whoever takes them. Nothing is hashed: for what is hashed as a whole. What cannot be read is
    /// nothing in the answer.
    pub(super) fn read_ahead(&self, runs: Vec<Run>) -> mpsc::Receiver<ServiceResult<Vec<ReadChunk>>> {
        let (sender, receiver) = mpsc::channel(RUNS_AHEAD);
        let blobs = self.blobs.clone();
        tokio::spawn(async move {
            for run in runs {
                let read = blobs.read(run.pack, run.start, (run.end - run.start) as usize).await;
                let parts = read.map(|whole| {
                    let part = |chunk: &ChunkLocation| {
                        let from = (chunk.offset - run.start) as usize;
                        (chunk.id, whole.as_ref().map(|whole| whole.slice(from..from + chunk.len as usize)))
                    };
                    run.chunks.iter().map(part).collect()
                });
                if sender.send(parts).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Says that chunks are damaged: log, metric, and a mark that makes `missing` ask devices for good bytes (X02).
    /// A chunk whose row has gone or moved meanwhile is not damaged, only outdated; the store sees to that.
    pub(super) async fn report_damage(&self, bad: &[(ChunkLocation, &'static str)]) {
        if bad.is_empty() {
            return;
        }
        for (chunk, reason) in bad {
            tracing::error!(chunk = %chunk.id, pack = %chunk.pack, reason, "a stored chunk is damaged; it is not served");
        }
        metrics::counter!("ferry_relay_chunks_damaged_total").increment(bad.len() as u64);
        // A pack stands in one shard; where it does not, nothing is found to mark.
        let marked = async {
            for shard in self.meta.shards() {
                let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
                tx.mark_damaged(bad, self.clock.now_ms()).await?;
                tx.commit().await?;
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = marked.await {
            tracing::warn!(%error, "damaged chunks could not be marked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pack: u8, offset: u64, len: u32) -> ChunkLocation {
        ChunkLocation { id: ChunkId::of(&offset.to_le_bytes()), len, pack: PackId([pack; 16]), offset }
    }

    #[test]
    fn neighbours_are_read_at_once_and_others_apart() {
        let locations = [at(1, 37, 100), at(1, 174, 100), at(2, 37, 5), at(1, 311, 5), at(1, 37, 100), at(1, 1_000_000, 9)];
        let found: Vec<(u64, u64, usize)> = runs(locations).iter().map(|r| (r.start, r.end, r.chunks.len())).collect();
        assert_eq!(found, [(37, 274, 2), (37, 42, 1), (311, 316, 1), (37, 137, 1), (1_000_000, 1_000_009, 1)]);
    }

    #[test]
    fn a_run_is_bounded() {
        let big = 3 * 1024 * 1024;
        assert_eq!(runs([at(1, 37, big), at(1, 37 + 37 + u64::from(big), big)]).len(), 2);
    }
}
