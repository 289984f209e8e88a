//! Storing chunks: hash, write one pack, then the rows.
//!
//! The order is blob first, row second (I7): a crash between the two leaves a blob that no row knows, which the sweep removes. A blob goes at once
//! only when no row can know it: where a commit broke off, its rows may stand.

use super::{Content, Entry, off_thread, random};
use crate::config::DEFAULT_REGION;
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::{ChunkLocation, ContentTx, PackId, PackRow, Quota};
use bytes::{Bytes, BytesMut};
use ferry_protocol::ChunkId;
use ferry_protocol::wire::{ChunkFrame, FRAME_HEADER_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Chunk frames whose hashes were found to be right: the body they stand in, and where.
#[derive(Debug)]
pub(super) struct VerifiedFrames {
    body: Bytes,
    frames: Vec<(ChunkId, Range<usize>)>,
}

impl VerifiedFrames {
    /// The chunk's bytes, if it is among the frames.
    pub(super) fn get(&self, id: ChunkId) -> Option<Bytes> {
        let (_, range) = self.frames.iter().find(|(i, _)| *i == id)?;
        Some(self.body.slice(range.start + FRAME_HEADER_BYTES..range.end))
    }

    /// The chunks of several bodies as those of one.
    pub(super) fn together<'f>(all: impl Iterator<Item = &'f Self>) -> Self {
        let (mut body, mut frames, mut seen) = (BytesMut::new(), Vec::new(), BTreeSet::new());
        for one in all {
            for (id, range) in one.frames.iter().filter(|(id, _)| seen.insert(*id)) {
                frames.push((*id, body.len()..body.len() + range.len()));
                body.extend_from_slice(&one.body[range.clone()]);
            }
        }
        Self { body: body.freeze(), frames }
    }

    /// Length of the body in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.body.len()
    }

    /// How many distinct chunks.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Distinct chunks with their lengths in bytes.
    pub(super) fn chunks(&self) -> Vec<(ChunkId, u32)> {
        self.frames.iter().map(|(id, range)| (*id, (range.len() - FRAME_HEADER_BYTES) as u32)).collect()
    }
}

/// A body of no more bytes is hashed at once: going to another thread would take longer.
const AT_ONCE_BYTES: usize = 64 * 1024;

/// Reads and hashes a body of chunk frames (P3). One wrong hash refuses the whole.
pub(super) async fn verify_frames(body: Bytes) -> ServiceResult<VerifiedFrames> {
    if body.len() <= AT_ONCE_BYTES { verified(body) } else { off_thread(move || verified(body)).await? }
}

fn verified(body: Bytes) -> ServiceResult<VerifiedFrames> {
    let mut frames = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = 0;
    while at < body.len() {
        let parsed = ChunkFrame::parse(&body[at..]).map_err(|e| ServiceError::malformed(e.to_string()))?;
        let Some((frame, taken)) = parsed else {
            return Err(ServiceError::malformed("The body ends in the middle of a chunk frame."));
        };
        let ChunkFrame::Chunk(id, bytes) = frame else {
            return Err(ServiceError::malformed("An upload holds chunks only, no frames of absence."));
        };
        if ChunkId::of(bytes) != id {
            let detail = format!("The bytes of chunk {id} have another hash. Nothing was stored.");
            return Err(ServiceError::invalid("chunk_hash_mismatch", detail).with("chunk", id.to_string()));
        }
        if seen.insert(id) {
            frames.push((id, at..at + taken));
        }
        at += taken;
    }
    Ok(VerifiedFrames { body, frames })
}

/// Hashes one chunk, and makes the frame of it in which it is stored. `claimed` is what its sender says that its hash is.
pub(super) async fn verify_chunk(bytes: Bytes, claimed: Option<ChunkId>) -> ServiceResult<(ChunkId, VerifiedFrames)> {
    off_thread(move || {
        let id = ChunkId::of(&bytes);
        if claimed.is_some_and(|claimed| claimed != id) {
            return Err(ServiceError::invalid("chunk_hash_mismatch", "The bytes of the chunk have another hash. Nothing was stored."));
        }
        let mut body = BytesMut::with_capacity(FRAME_HEADER_BYTES + bytes.len());
        body.extend_from_slice(&ChunkFrame::header(id, bytes.len()));
        body.extend_from_slice(&bytes);
        let whole = 0..body.len();
        Ok((id, VerifiedFrames { body: body.freeze(), frames: vec![(id, whole)] }))
    })
    .await?
}

/// Chunks on their way in: their blob is durable, their rows are not written yet.
#[derive(Debug)]
pub(super) struct Staged {
    pack: Option<PackRow>,
    /// In which region the blob is.
    region: String,
    locations: Vec<ChunkLocation>,
    all: Vec<(ChunkId, u32)>,
    /// Chunks that the store had already: their bytes were checked and not written again.
    reused: Vec<ChunkId>,
}

impl Staged {
    /// Of these chunks those that are named.
    pub(super) fn only(&self, wanted: &BTreeMap<ChunkId, u32>) -> Self {
        let locations: Vec<ChunkLocation> = self.locations.iter().filter(|l| wanted.contains_key(&l.id)).copied().collect();
        Self {
            // A pack of which nothing is needed is none.
            pack: self.pack.filter(|_| !locations.is_empty()),
            region: self.region.clone(),
            locations,
            all: self.all.iter().filter(|(id, _)| wanted.contains_key(id)).copied().collect(),
            reused: self.reused.iter().filter(|id| wanted.contains_key(id)).copied().collect(),
        }
    }

    /// Whether there is nothing to be written of it.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it has a blob.
    pub(super) fn has_pack(&self) -> bool {
        self.pack.is_some()
    }
}

impl Content {
    /// Writes the blob. With `reuse`, chunks that the store has are not written again.
    pub(super) async fn stage(&self, entry: &Entry, verified: &VerifiedFrames, reuse: bool) -> ServiceResult<Staged> {
        let all = verified.chunks();
        let ids: Vec<ChunkId> = all.iter().map(|(id, _)| *id).collect();
        let stored = if reuse { self.meta.stored(entry.row.id, &ids).await? } else { BTreeSet::new() };
        let id = PackId(random()?);
        let mut parts: Vec<Range<usize>> = Vec::new();
        let (mut locations, mut length) = (Vec::new(), 0u64);
        for (chunk, range) in verified.frames.iter().filter(|(chunk, _)| !stored.contains(chunk)) {
            let len = (range.len() - FRAME_HEADER_BYTES) as u32;
            locations.push(ChunkLocation { id: *chunk, len, pack: id, offset: length + FRAME_HEADER_BYTES as u64 });
            length += range.len() as u64;
            match parts.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => parts.push(range.clone()),
            }
        }
        // Where the owner's files are, whoever sends them.
        let region = self.blobs.home_of(entry.row.owner).await?;
        let mut pack = None;
        if !locations.is_empty() {
            let parts = parts.into_iter().map(|range| verified.body.slice(range)).collect();
            self.blobs.put(&region, id, parts).await?;
            pack = Some(PackRow { id, length_bytes: length, created_at_ms: self.clock.now_ms() });
        }
        let saved: u64 = all.iter().filter(|(id, _)| stored.contains(id)).map(|(_, len)| u64::from(*len)).sum();
        metrics::counter!("ferry_relay_chunks_received_total").increment(all.len() as u64);
        metrics::counter!("ferry_relay_upload_bytes_total").increment(all.iter().map(|(_, len)| u64::from(*len)).sum());
        metrics::counter!("ferry_relay_dedup_chunks_total").increment(stored.len() as u64);
        metrics::counter!("ferry_relay_dedup_saved_bytes_total").increment(saved);
        Ok(Staged { pack, region, locations, all, reused: stored.into_iter().collect() })
    }

    /// Writes the rows and holds the chunks for the namespace. False if a reused chunk is gone meanwhile: then stage without reuse.
    pub(super) async fn admit(&self, tx: &mut dyn ContentTx, entry: &Entry, staged: &Staged) -> ServiceResult<bool> {
        let Some(new_bytes) = self.admit_rows(tx, entry, staged).await? else { return Ok(false) };
        self.charge(tx, entry, new_bytes).await?;
        Ok(true)
    }

    /// The same without the owner, who is to be charged for so many bytes before the transaction ends; nothing if a reused chunk is gone.
    pub(super) async fn admit_rows(&self, tx: &mut dyn ContentTx, entry: &Entry, staged: &Staged) -> ServiceResult<Option<u64>> {
        if tx.stored(&staged.reused).await?.len() < staged.reused.len() {
            return Ok(None);
        }
        if let Some(pack) = staged.pack {
            tx.add_pack(pack, &staged.locations).await?;
            if staged.region != DEFAULT_REGION {
                tx.set_copies(pack.id, &[staged.region.clone()].into()).await?;
            }
        }
        let until = self.clock.now_ms().saturating_add(self.config.grace_ms);
        Ok(Some(tx.lease_chunks(entry.row.id, &staged.all, until).await?))
    }

    /// Charges the owner. The quota is checked here, inside the transaction, so that parallel uploads cannot pass it together (RC5). Everybody who
    /// writes in any of the owner's namespaces waits for this row, so it comes last.
    pub(super) async fn charge(&self, tx: &mut dyn ContentTx, entry: &Entry, new_bytes: u64) -> ServiceResult<()> {
        if new_bytes > 0 {
            let quota = tx.quota(entry.row.owner).await?;
            self.check_quota(quota, new_bytes)?;
            tx.add_usage(entry.row.owner, new_bytes).await?;
        }
        Ok(())
    }

    /// Refuses what does not fit, before it is stored.
    pub(super) fn check_quota(&self, quota: Quota, new_bytes: u64) -> ServiceResult<()> {
        let Some(limit) = quota.limit_bytes.or(self.config.default_limit_bytes) else { return Ok(()) };
        if quota.used_bytes.saturating_add(new_bytes) <= limit {
            return Ok(());
        }
        let detail = format!(
            "The storage of this folder's owner is full: {} of {limit} bytes are in use and {new_bytes} more are needed. Nothing was stored.",
            quota.used_bytes
        );
        Err(ServiceError::new(Kind::TooLarge, "quota_exceeded", detail)
            .hint("Delete what is not needed, or ask the relay's operator for a higher limit.")
            .with("used_bytes", quota.used_bytes)
            .with("limit_bytes", limit)
            .with("needed_bytes", new_bytes))
    }

    /// Removes the blob of chunks that were not admitted. A failure leaves an orphan for the sweep.
    pub(super) async fn discard(&self, staged: &Staged) {
        if let Some(pack) = staged.pack
            && let Err(error) = self.blobs.delete(pack.id).await
        {
            tracing::debug!(pack = %pack.id, %error, "an unused pack stays for the sweep");
        }
    }

    /// The same after a failure, if it is certain that no row names the blob. Where the store broke off while it committed the rows may be there:
    /// then the sweep decides.
    pub(super) async fn discard_after(&self, staged: &Staged, error: &ServiceError) {
        match error.is_in_doubt() {
            true => {
                tracing::warn!(pack = ?staged.pack.map(|p| p.id.to_string()), %error, "a pack whose rows may be there stays for the sweep")
            }
            false => self.discard(staged).await,
        }
    }

    /// Refuses early what cannot fit: how many of these bytes are new to the namespace is compared with the quota.
    pub(super) async fn precheck_quota(&self, entry: &Entry, chunks: &[(ChunkId, u32)]) -> ServiceResult<()> {
        let quota = self.meta.quota(entry.row.owner).await?;
        let total: u64 = chunks.iter().map(|(_, len)| u64::from(*len)).sum();
        if self.check_quota(quota, total).is_ok() {
            return Ok(());
        }
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        let held = self.meta.held(entry.row.id, &ids).await?;
        let new = chunks.iter().filter(|(id, _)| !held.contains_key(id)).map(|(_, len)| u64::from(*len)).sum();
        self.check_quota(quota, new)
    }
}
