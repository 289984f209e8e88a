//! Joining texts for the engine: the three contents, the merge on a thread of its own, the result staged.
//!
//! The bytes of both sides stand on disks or at the relay like any content. Those of the base may stand nowhere any more but in what was kept
//! ([`crate::fs::bases`]) or in the relay's history.

use super::driver::{Driver, Wake};
use super::fetch::{Fetcher, Gathered, Source};
use crate::fs::bases::Bases;
use crate::fs::stage::stage_small;
use crate::fs::{self, Root, Stage};
use crate::relay::RelayClient;
use ferry_engine::{LocalSource, Merge, Merged, Obstacle};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::limits::MERGE_MAX_BYTES;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Manifest, VerifiedChunk, merge};
use std::collections::HashMap;
use std::sync::Arc;

/// Merges under way at once: each holds its texts in memory.
pub(super) const MERGES_MAX: usize = 2;

impl Fetcher {
    /// Starts merges; each is answered in a [`Wake::Merged`] to this life of the folder.
    pub fn merge(&self, life: u64, root: &Arc<Root>, bases: &Arc<Bases>, relay: Option<Arc<RelayClient>>, merges: Vec<Merge>) {
        for one in merges {
            let (source, bases) = (self.source(root, relay.clone()), bases.clone());
            let (wakes, turns) = (self.wakes.clone(), self.merges.clone());
            self.runtime.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let id = one.id;
                let result = source.merge(one, &bases).await.unwrap_or_else(|result| result);
                let _ = wakes.send(Wake::OfLife(life, Box::new(Wake::Merged(id, result))));
            });
        }
    }
}

impl Source {
    async fn merge(self, merge: Merge, bases: &Arc<Bases>) -> Result<Merged, Merged> {
        let newer = self.text(&merge.newer, &merge.local, bases).await.map_err(Merged::Unavailable)?;
        let older = self.text(&merge.older, &merge.local, bases).await.map_err(Merged::Unavailable)?;
        let base = self.text(&merge.base, &merge.local, bases).await.map_err(|_| Merged::NoBase)?;
        let root = self.root.clone();
        let joined = tokio::task::spawn_blocking(move || match merge::lines(&base, &newer, &older) {
            Some(text) => stage(&root, &text).map_or_else(Merged::Unavailable, Merged::Clean),
            None => Merged::Conflict,
        });
        // A mistake of ours over one text costs its merge, nothing else (K37).
        Ok(joined.await.unwrap_or(Merged::Conflict))
    }

    /// The bytes of a content: kept, of this disk's files, of peers, of the relay.
    async fn text(&self, manifest: &Manifest, local: &[LocalSource], bases: &Arc<Bases>) -> Result<Vec<u8>, Obstacle> {
        if manifest.size() > MERGE_MAX_BYTES {
            return Err(Obstacle::Unavailable);
        }
        let (root, bases, wanted, local) = (self.root.clone(), bases.clone(), manifest.clone(), local.to_vec());
        let near = move || {
            if let Some(kept) = bases.read(&wanted.hash()) {
                return Ok(kept);
            }
            let mut have: HashMap<ChunkId, VerifiedChunk> = HashMap::new();
            for chunk in wanted.chunks() {
                let sources = local.iter().filter(|l| l.chunk == chunk.id);
                let bytes = sources.into_iter().find_map(|l| fs::read_chunk(&root, &l.path, l.offset, chunk).ok());
                have.extend(bytes.map(|bytes| (chunk.id, bytes)));
            }
            Err(have)
        };
        let have = match tokio::task::spawn_blocking(near).await.map_err(|_| Obstacle::Io)? {
            Ok(kept) => return Ok(kept),
            Err(have) => have,
        };
        let missing: Vec<ChunkId> = manifest.chunks().iter().map(|c| c.id).filter(|id| !have.contains_key(id)).collect();
        let gathered = Arc::new(Gathered::new(have, self.progress.clone()));
        if !missing.is_empty() {
            self.chunks.collect(&missing, &gathered).await?;
        }
        let have = gathered.have();
        let mut out = Vec::with_capacity(manifest.size() as usize);
        for chunk in manifest.chunks() {
            out.extend_from_slice(have.get(&chunk.id).ok_or(Obstacle::Unavailable)?.bytes());
        }
        drop(have);
        if ContentHash::of(&out) == manifest.hash() { Ok(out) } else { Err(Obstacle::Corrupt) }
    }
}

/// Stages a text, cut as everywhere.
fn stage(root: &Arc<Root>, text: &[u8]) -> Result<Manifest, Obstacle> {
    let (mut chunks, mut pieces, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(len) = ChunkSizes::for_file(text.len() as u64).next_cut(&text[at..], true) {
        let piece = VerifiedChunk::of(text[at..at + len].to_vec());
        chunks.push(ChunkRef { id: piece.id(), len: len as u32 });
        pieces.push((at as u64, piece));
        at += len;
    }
    let manifest = Manifest::new(ContentHash::of(text), chunks).map_err(|_| Obstacle::Io)?;
    if let [] | [_] = &pieces[..] {
        stage_small(root, pieces.first().map(|(_, piece)| piece))?;
        return Ok(manifest);
    }
    let stage = Stage::begin(root, &manifest)?;
    pieces.iter().try_for_each(|(at, piece)| stage.put(*at, piece))?;
    stage.finish()?;
    Ok(manifest)
}

impl Driver {
    /// Texts of this folder are merged from now on, or no longer.
    pub(super) fn set_merging(&mut self, on: bool) {
        self.config.merge_text = on;
        let Some(state) = &mut self.state else { return };
        state.engine.set_merging(on);
        state.bases.set_on(on);
        if !on {
            let bases = state.bases.clone();
            self.runtime.spawn_blocking(move || bases.clear());
        }
    }
}
