//! Rewriting packs that are mostly dead: what lives in them moves together into new packs, so that a store's size follows what is needed.
//!
//! The order is that of an upload (I7): the new blob is durable before a row names it, in one transaction the rows move, and the old blob stays for
//! the grace period, because somebody may be reading it. A crash between leaves a stray blob or a retired pack, which the sweep removes. Every chunk is
//! hashed on its way; a pack with a damaged one is left as it is.

use super::read::runs;
use super::{Content, patiently, random};
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, PackId, PackRow, Scope, Shard};
use bytes::Bytes;
use ferry_protocol::ChunkId;
use ferry_protocol::wire::{ChunkFrame, FRAME_HEADER_BYTES};
use std::collections::BTreeMap;

/// A pack of which less than this share is needed is rewritten.
pub(super) const LIVE_MIN_PERCENT: u64 = 50;
/// Packs that one sweep rewrites.
pub(super) const PACKS_MAX: usize = 10_000;
/// A new pack is written when so many bytes are gathered: with the largest pack's living half this bounds the memory.
const GATHER_BYTES: usize = 16 * 1024 * 1024;

/// Chunks on their way into a new pack, with where they stand now.
#[derive(Default)]
struct Gathered {
    chunks: Vec<(ChunkLocation, Bytes)>,
    bytes: usize,
}

impl Content {
    /// Rewrites packs stored before this time. Returns how many, and the bytes that were copied.
    pub(super) async fn rewrite_packs(&self, shard: Shard, before_ms: i64) -> ServiceResult<(u64, u64)> {
        let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
        let sparse = tx.sparse_packs(before_ms, LIVE_MIN_PERCENT, PACKS_MAX).await?;
        drop(tx);
        let (mut packs, mut bytes) = (0, 0);
        let mut gathered = Gathered::default();
        for (pack, _) in sparse {
            let Some(living) = self.read_living(shard, pack.id).await? else { continue };
            packs += 1;
            gathered.bytes += living.iter().map(|(_, b)| b.len()).sum::<usize>();
            gathered.chunks.extend(living);
            if gathered.bytes >= GATHER_BYTES {
                bytes += self.write_gathered(shard, std::mem::take(&mut gathered)).await?;
            }
        }
        bytes += self.write_gathered(shard, gathered).await?;
        Ok((packs, bytes))
    }

    /// Every chunk of a pack, verified; nothing if one is damaged.
    async fn read_living(&self, shard: Shard, pack: PackId) -> ServiceResult<Option<Vec<(ChunkLocation, Bytes)>>> {
        let locations = self.meta.pack_chunks(shard, pack).await?;
        let mut bytes: BTreeMap<ChunkId, Bytes> = BTreeMap::new();
        for run in runs(locations.iter().copied()) {
            for (id, chunk) in self.read_run(run).await? {
                let Some(chunk) = chunk else { return Ok(None) };
                bytes.insert(id, chunk);
            }
        }
        Ok(Some(locations.into_iter().filter_map(|l| Some((l, bytes.remove(&l.id)?))).collect()))
    }

    /// Writes one pack and moves the rows. Returns the bytes of its chunks.
    async fn write_gathered(&self, shard: Shard, gathered: Gathered) -> ServiceResult<u64> {
        if gathered.chunks.is_empty() {
            return Ok(0);
        }
        let id = PackId(random()?);
        let (mut parts, mut moves, mut length) = (Vec::new(), Vec::new(), 0u64);
        for (from, bytes) in gathered.chunks {
            let offset = length + FRAME_HEADER_BYTES as u64;
            moves.push((ChunkLocation { pack: id, offset, ..from }, from.pack));
            length = offset + bytes.len() as u64;
            parts.push(Bytes::copy_from_slice(&ChunkFrame::header(from.id, bytes.len())));
            parts.push(bytes);
        }
        self.blobs.put(id, parts).await?;
        let now_ms = self.clock.now_ms();
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
            tx.move_chunks(PackRow { id, length_bytes: length, created_at_ms: now_ms }, &moves, now_ms).await?;
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)?;
        Ok(gathered.bytes as u64)
    }
}
