//! Chunks as devices ask for and send them: which are missing, store these, give me those.

use super::read::{Run, runs};
use super::stage::verify_frames;
use super::{Content, Entry, patiently};
use crate::service::{ServiceError, ServiceResult};
use crate::store::bus::Wake;
use crate::store::content::{HeldChunk, Scope};
use bytes::{Bytes, BytesMut};
use ferry_protocol::ChunkId;
use ferry_protocol::wire::{ChunkFrame, FRAME_HEADER_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches of chunk frames, read ahead a little. It ends early when the store fails; the receiver asks again for what it lacks.
#[derive(Debug)]
pub struct ChunkStream {
    first: Option<ServiceResult<Bytes>>,
    rest: mpsc::Receiver<ServiceResult<Bytes>>,
}

impl ChunkStream {
    /// Waits for the first batch, so that a store that cannot be read is an error and not an answer that breaks off at once (K07).
    pub(super) async fn begun(mut rest: mpsc::Receiver<ServiceResult<Bytes>>) -> ServiceResult<Self> {
        let first = rest.recv().await.transpose()?.map(Ok);
        Ok(Self { first, rest })
    }

    /// The next batch; after a failure nothing comes.
    pub async fn recv(&mut self) -> Option<ServiceResult<Bytes>> {
        match self.first.take() {
            None => self.rest.recv().await,
            first => first,
        }
    }
}

/// Batches that wait for a slow reader.
const BATCHES_AHEAD: usize = 2;

impl Content {
    /// Which of these chunks the caller must send before a commit may name them. A chunk that only other namespaces hold is missing (RC3, R23). Those that
    /// are there wait for the commit anew.
    pub async fn missing_chunks(&self, entry: &Entry, ids: &[ChunkId]) -> ServiceResult<Vec<ChunkId>> {
        let held = self.meta.held(entry.row.id, ids).await?;
        self.renew_leases(entry, &held).await?;
        let mut seen = BTreeSet::new();
        Ok(ids.iter().copied().filter(|id| held.get(id).is_none_or(|h| h.is_damaged) && seen.insert(*id)).collect())
    }

    /// Holds chunks that no version names yet for a whole grace period more, those of which less than half is left: a file that takes days to arrive
    /// is still wanted by whoever asks for the rest of it.
    pub(super) async fn renew_leases(&self, entry: &Entry, held: &BTreeMap<ChunkId, HeldChunk>) -> ServiceResult<()> {
        let is_old = |chunk: &HeldChunk| chunk.refs == 0 && self.is_half_over(chunk.lease_until_ms);
        let old: Vec<ChunkId> = held.iter().filter(|(_, chunk)| is_old(chunk)).map(|(id, _)| *id).collect();
        if old.is_empty() {
            return Ok(());
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            // The sweep may have taken some since: a lease is for what is there.
            let there = tx.held(entry.row.id, &old).await?;
            let chunks: Vec<(ChunkId, u32)> = there.into_iter().map(|(id, chunk)| (id, chunk.len)).collect();
            tx.lease_chunks(entry.row.id, &chunks, self.clock.now_ms().saturating_add(self.config.grace_ms)).await?;
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)
    }

    /// Whether less than half of a grace period is left of what ends then.
    pub(super) fn is_half_over(&self, until_ms: i64) -> bool {
        until_ms.saturating_sub(self.clock.now_ms()) < self.config.grace_ms / 2
    }

    /// Stores a body of chunk frames for the namespace. Returns how many distinct chunks it held. All or nothing (I5).
    pub async fn put_chunks(&self, entry: &Entry, body: Bytes) -> ServiceResult<usize> {
        let verified = verify_frames(body).await?;
        if verified.len() == 0 {
            return Ok(0);
        }
        self.precheck_quota(entry, &verified.chunks()).await?;
        for reuse in [true, false] {
            let staged = self.stage(entry, &verified, reuse).await?;
            let attempt = async || {
                let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
                let admitted = self.admit(&mut *tx, entry, &staged).await?;
                if admitted {
                    tx.commit().await?;
                }
                ServiceResult::Ok(admitted)
            };
            match patiently!(attempt().await) {
                Ok(true) => {
                    return Ok(verified.len());
                }
                // The sweep took a chunk between the look and the transaction: write them all.
                Ok(false) => self.discard(&staged).await,
                Err(error) => {
                    self.discard_after(&staged, &error).await;
                    return Err(error);
                }
            }
        }
        Err(ServiceError::unavailable("The store changed while it was written. Try again."))
    }

    /// The chunks in the asked order, as frames. A frame of absence for what no version of the namespace names, and for what is damaged.
    pub async fn get_chunks(self: &Arc<Self>, entry: &Entry, ids: Vec<ChunkId>) -> ServiceResult<ChunkStream> {
        let found = self.meta.locate_chunks(entry.row.id, &ids, true).await?;
        let mut plan: Vec<Step> = Vec::new();
        let mut waiting = Vec::new();
        for id in ids {
            match found.get(&id) {
                Some(location) => waiting.push(*location),
                None => {
                    plan.extend(runs(std::mem::take(&mut waiting)).into_iter().map(Step::Read));
                    plan.push(Step::Absent(id));
                }
            }
        }
        plan.extend(runs(waiting).into_iter().map(Step::Read));
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let this = Arc::clone(self);
        let namespace = entry.row.id;
        tokio::spawn(async move {
            let mut lost = false;
            for step in plan {
                let batch = match step {
                    Step::Absent(id) => Ok(Bytes::copy_from_slice(&ChunkFrame::absent(id))),
                    Step::Read(run) => this.read_run(run).await.map(|chunks| {
                        lost |= chunks.iter().any(|(_, bytes)| bytes.is_none());
                        frames(&chunks)
                    }),
                };
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    break;
                }
            }
            if lost {
                // Whoever has the bytes hears of it with the next page of the feed: let that be now.
                this.bus.publish(Wake::feed(namespace, 0));
            }
        });
        ChunkStream::begun(receiver).await
    }

    /// Chunks of a namespace by id, verified, in one read per run; for hashing whole files and for plain downloads.
    pub(super) async fn locate_all(
        &self,
        namespace: ferry_protocol::NamespaceId,
        ids: &[ChunkId],
        committed_only: bool,
    ) -> ServiceResult<Result<Vec<Run>, Vec<ChunkId>>> {
        let mut unique: Vec<ChunkId> = ids.to_vec();
        unique.sort();
        unique.dedup();
        let found: BTreeMap<_, _> = self.meta.locate_chunks(namespace, &unique, committed_only).await?;
        let missing: Vec<ChunkId> = unique.iter().copied().filter(|id| !found.contains_key(id)).collect();
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        Ok(Ok(runs(ids.iter().filter_map(|id| found.get(id).copied()))))
    }
}

enum Step {
    Read(Run),
    Absent(ChunkId),
}

fn frames(chunks: &[(ChunkId, Option<Bytes>)]) -> Bytes {
    let size = chunks.iter().map(|(_, b)| FRAME_HEADER_BYTES + b.as_ref().map_or(0, Bytes::len)).sum();
    let mut out = BytesMut::with_capacity(size);
    for (id, bytes) in chunks {
        match bytes {
            Some(bytes) => {
                out.extend_from_slice(&ChunkFrame::header(*id, bytes.len()));
                out.extend_from_slice(bytes);
            }
            None => out.extend_from_slice(&ChunkFrame::absent(*id)),
        }
    }
    out.freeze()
}
