//! Chunks that came a moment ago: given on to peers before their file is in place.

use bytes::Bytes;
use ferry_protocol::{ChunkId, VerifiedChunk};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept at most (I14).
const WARM_MAX_BYTES: usize = 48 << 20;

/// The newest chunks of a folder, up to [`WARM_MAX_BYTES`].
#[derive(Default)]
pub struct Warm(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    chunks: HashMap<ChunkId, VerifiedChunk<Bytes>>,
    order: VecDeque<ChunkId>,
    bytes: usize,
}

impl Warm {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole between any two calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a chunk for a while.
    pub fn keep(&self, chunk: VerifiedChunk<Bytes>) {
        let mut kept = self.kept();
        let (id, bytes) = (chunk.id(), chunk.bytes().len());
        if kept.chunks.insert(id, chunk).is_some() {
            return;
        }
        kept.order.push_back(id);
        kept.bytes += bytes;
        while kept.bytes > WARM_MAX_BYTES {
            let Some(oldest) = kept.order.pop_front() else { return };
            if let Some(gone) = kept.chunks.remove(&oldest) {
                kept.bytes -= gone.bytes().len();
            }
        }
    }

    /// A chunk, if it is still there.
    pub fn get(&self, id: &ChunkId) -> Option<VerifiedChunk<Bytes>> {
        self.kept().chunks.get(id).cloned()
    }

    /// Forgets all: nobody is there to whom they could be given.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }
}
