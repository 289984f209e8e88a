//! Rewriting packs: what lives in mostly dead ones moves together into new ones, so that a store's size follows what is needed; what stands in many
//! small ones is merged, so that the number of objects does too. An edit is a small pack of its own, and an object store is paid by the object.
//!
//! The order is that of an upload (I7): the new blob is durable before a row names it, in one transaction the rows move, and the old blob stays for
//! the grace period, because somebody may be reading it. A crash between leaves a stray blob or a retired pack, which the sweep removes. Every chunk is
//! hashed on its way; a pack with a damaged one is left as it is. Packs of different regions are not mixed.

use super::read::runs;
use super::regions::rows_for;
use super::{Content, patiently, random};
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, ContentTx, PackId, PackRow, Scope, Shard};
use bytes::Bytes;
use ferry_protocol::ChunkId;
use ferry_protocol::wire::{ChunkFrame, FRAME_HEADER_BYTES};
use std::collections::{BTreeMap, BTreeSet};

/// A pack of which less than this share is needed is rewritten.
pub(super) const LIVE_MIN_PERCENT: u64 = 50;
/// Packs that one sweep rewrites, and as many that it merges.
pub(super) const PACKS_MAX: usize = 10_000;
/// A pack shorter than this is merged with others.
const SMALL_BYTES: u64 = 1024 * 1024;
/// Bytes that one sweep merges.
const MERGED_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// A new pack is written when so many bytes are gathered: with the largest pack's living half this bounds the memory.
const GATHER_BYTES: usize = 16 * 1024 * 1024;

/// Packs by the regions that they are in.
type ByRegions = BTreeMap<BTreeSet<String>, Vec<PackRow>>;

/// Chunks on their way into a new pack, with where they stand now.
#[derive(Default)]
struct Gathered {
    chunks: Vec<(ChunkLocation, Bytes)>,
    bytes: usize,
}

/// A pack of these chunks: its bytes in parts, where each chunk stands in it, and its length.
pub(super) fn packed(id: PackId, chunks: Vec<(ChunkLocation, Bytes)>) -> (Vec<Bytes>, Vec<ChunkLocation>, u64) {
    let (mut parts, mut locations, mut length) = (Vec::new(), Vec::new(), 0u64);
    for (from, bytes) in chunks {
        let offset = length + FRAME_HEADER_BYTES as u64;
        locations.push(ChunkLocation { pack: id, offset, ..from });
        length = offset + bytes.len() as u64;
        parts.push(Bytes::copy_from_slice(&ChunkFrame::header(from.id, bytes.len())));
        parts.push(bytes);
    }
    (parts, locations, length)
}

impl Content {
    /// Rewrites mostly dead packs stored before this time. Returns how many, and the bytes that were copied.
    pub(super) async fn rewrite_packs(&self, shard: Shard, before_ms: i64) -> ServiceResult<(u64, u64)> {
        let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
        let sparse = tx.sparse_packs(before_ms, LIVE_MIN_PERCENT, PACKS_MAX).await?;
        drop(tx);
        let packs = sparse.into_iter().map(|(pack, _)| pack).collect();
        self.rewrite(shard, self.by_regions(packs).await?).await
    }

    /// Merges small packs stored before this time. Returns how many, and the bytes that were copied.
    pub(super) async fn merge_packs(&self, shard: Shard, before_ms: i64) -> ServiceResult<(u64, u64)> {
        let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
        let to_merge = self.to_merge(&mut *tx, before_ms).await?;
        drop(tx);
        self.rewrite(shard, to_merge).await
    }

    /// The small packs that are worth merging, oldest first: enough in one place that the next sweep does not find as many again, so that a chunk
    /// is copied a few times in its life and not once a sweep.
    pub(super) async fn to_merge(&self, tx: &mut dyn ContentTx, before_ms: i64) -> ServiceResult<ByRegions> {
        let mut small = tx.small_packs(before_ms, SMALL_BYTES, PACKS_MAX).await?;
        let mut bytes = 0;
        small.retain(|pack| {
            bytes += pack.length_bytes;
            bytes <= MERGED_MAX_BYTES
        });
        let mut groups = self.by_regions(small).await?;
        groups.retain(|_, packs| packs.len() >= self.config.merge_from_packs.max(2));
        Ok(groups)
    }

    async fn by_regions(&self, packs: Vec<PackRow>) -> ServiceResult<ByRegions> {
        let ids: Vec<PackId> = packs.iter().map(|p| p.id).collect();
        let copies = self.blobs.copies_of(&ids).await?;
        let mut groups = ByRegions::new();
        for pack in packs {
            groups.entry(copies.get(&pack.id).cloned().unwrap_or_default()).or_default().push(pack);
        }
        Ok(groups)
    }

    async fn rewrite(&self, shard: Shard, groups: ByRegions) -> ServiceResult<(u64, u64)> {
        let (mut packs, mut bytes) = (0, 0);
        for (regions, group) in groups {
            if let Some(unknown) = regions.iter().find(|region| self.blobs.store(region).is_err()) {
                tracing::warn!(region = unknown, packs = group.len(), "packs of a region that this process does not know stay as they are");
                continue;
            }
            let mut gathered = Gathered::default();
            for pack in group {
                let Some(living) = self.read_living(shard, pack.id).await? else { continue };
                packs += 1;
                gathered.bytes += living.iter().map(|(_, b)| b.len()).sum::<usize>();
                gathered.chunks.extend(living);
                if gathered.bytes >= GATHER_BYTES {
                    bytes += self.write_gathered(shard, &regions, std::mem::take(&mut gathered)).await?;
                }
            }
            bytes += self.write_gathered(shard, &regions, gathered).await?;
        }
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

    /// Writes one pack to each of the regions and moves the rows. Returns the bytes of its chunks.
    async fn write_gathered(&self, shard: Shard, regions: &BTreeSet<String>, gathered: Gathered) -> ServiceResult<u64> {
        if gathered.chunks.is_empty() {
            return Ok(0);
        }
        let id = PackId(random()?);
        let old: Vec<PackId> = gathered.chunks.iter().map(|(from, _)| from.pack).collect();
        let (parts, locations, length) = packed(id, gathered.chunks);
        let moves: Vec<(ChunkLocation, PackId)> = locations.into_iter().zip(old).collect();
        for region in regions {
            self.blobs.put(region, id, parts.clone()).await?;
        }
        let now_ms = self.clock.now_ms();
        let rows = rows_for(regions);
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
            tx.move_chunks(PackRow { id, length_bytes: length, created_at_ms: now_ms }, &moves, now_ms).await?;
            if !rows.is_empty() {
                tx.set_copies(id, &rows).await?;
            }
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)?;
        Ok(gathered.bytes as u64)
    }
}
