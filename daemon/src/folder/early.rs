//! Uploading while reading: chunks go to the relay from memory as they are cut, so that a new file is read once and the network works while the
//! disk does.
//!
//! It is an offer, never a promise. What the relay has already is not sent; what does not go out in time, because the relay is slow or away, is
//! read again when its commit is sent. A small edit's chunks rest here for the moment until its commit takes them along. Memory is bounded by
//! [`BATCHES_MAX`] + 2 times [`BATCH_BYTES`] and a chunk for each reader (I14).

use super::Direction;
use super::progress::Progress;
use super::uploads::{Uploads, in_order};
use crate::relay::RelayClient;
use ferry_protocol::limits::CHUNK_BATCH_TARGET_BYTES;
use ferry_protocol::{ChunkId, NamespaceId, VerifiedChunk};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one request.
const BATCH_BYTES: usize = CHUNK_BATCH_TARGET_BYTES;
/// Requests under way at once.
const BATCHES_MAX: u32 = 5;
/// How long a reader waits for a free request before it reads on without.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Chunks on their way. One for each folder and relay.
pub(super) struct Early {
    relay: Arc<RelayClient>,
    namespace: NamespaceId,
    runtime: tokio::runtime::Handle,
    progress: Progress,
    free: Arc<Semaphore>,
    resting: Mutex<Resting>,
    /// Whose turn it is to wait for a request.
    turn: Mutex<()>,
    /// The transfers of the commit that waits for what is under way.
    watching: Mutex<Option<Arc<Uploads>>>,
    /// The last reader did not get a request in time: the next ones do not wait.
    slow: AtomicBool,
}

#[derive(Default)]
struct Resting {
    chunks: BTreeMap<ChunkId, VerifiedChunk>,
    bytes: usize,
}

impl Early {
    pub fn new(relay: Arc<RelayClient>, namespace: NamespaceId, runtime: tokio::runtime::Handle, progress: Progress) -> Self {
        let free = Arc::new(Semaphore::new(BATCHES_MAX as usize));
        Self {
            relay,
            namespace,
            runtime,
            progress,
            free,
            resting: Mutex::default(),
            turn: Mutex::default(),
            watching: Mutex::default(),
            slow: AtomicBool::new(false),
        }
    }

    /// Whether it speaks to this relay.
    pub fn is_for(&self, relay: &Arc<RelayClient>) -> bool {
        Arc::ptr_eq(&self.relay, relay)
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        // Whole between any two statements.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chunk that was just cut. Called on a thread that reads; may wait a moment.
    pub fn offer(self: &Arc<Self>, chunk: VerifiedChunk<&[u8]>) {
        let is_full = {
            let mut resting = self.lock();
            if resting.bytes >= 2 * BATCH_BYTES {
                return;
            }
            if !resting.chunks.contains_key(&chunk.id()) {
                resting.bytes += chunk.bytes().len();
                resting.chunks.insert(chunk.id(), chunk.to_vec());
            }
            resting.bytes >= BATCH_BYTES
        };
        // One reader at a time waits for a request; the others read on.
        let Some(_turn) = self.turn.try_lock().ok().filter(|_| is_full) else { return };
        let permit = self.permit();
        let batch = std::mem::take(&mut *self.lock());
        if let Some(permit) = permit {
            self.send(permit, batch.chunks.into_values().collect());
        }
    }

    /// A free request, if there is one soon.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let free = self.free.clone();
        if let Ok(permit) = free.clone().try_acquire_owned() {
            self.slow.store(false, Ordering::Relaxed);
            return Some(permit);
        }
        if self.slow.load(Ordering::Relaxed) {
            return None;
        }
        let waited = self.runtime.block_on(async { tokio::time::timeout(WAIT_MAX, free.acquire_owned()).await });
        let permit = waited.ok().and_then(Result::ok);
        self.slow.store(permit.is_none(), Ordering::Relaxed);
        permit
    }

    fn send(self: &Arc<Self>, permit: OwnedSemaphorePermit, chunks: Vec<VerifiedChunk>) {
        let (relay, namespace, early) = (self.relay.clone(), self.namespace, self.clone());
        self.runtime.spawn(async move {
            let _permit = permit;
            let ids: Vec<ChunkId> = chunks.iter().map(VerifiedChunk::id).collect();
            let sent = async {
                let missing: std::collections::BTreeSet<ChunkId> = relay.missing(namespace, &ids).await?.into_iter().collect();
                let chunks: Vec<VerifiedChunk> = chunks.into_iter().filter(|c| missing.contains(&c.id())).collect();
                let lengths = chunks.iter().map(|c| (c.id(), c.bytes().len() as u64)).collect();
                let on_sent = in_order(lengths, move |id, bytes| early.count(id, bytes));
                relay.put_chunks_telling(namespace, chunks, Some(on_sent)).await?;
                Ok::<(), crate::relay::RelayError>(())
            };
            if let Err(error) = sent.await {
                // The commit will find them missing and send them.
                tracing::debug!(%error, "chunks did not go out while their files were read");
            }
        });
    }

    fn watching(&self) -> MutexGuard<'_, Option<Arc<Uploads>>> {
        // Replaced as a whole.
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, chunk: &ChunkId, bytes: u64) {
        if !self.watching().as_ref().is_some_and(|uploads| uploads.sent(chunk, bytes)) {
            self.progress.moved(Direction::Upload, bytes);
        }
    }

    /// From now on what goes out counts for these transfers; for none with nothing.
    pub fn watch(&self, uploads: Option<Arc<Uploads>>) {
        *self.watching() = uploads;
    }

    /// The resting chunks among these, which go out another way now.
    pub fn take(&self, mut wanted: impl FnMut(&ChunkId) -> bool) -> Vec<VerifiedChunk> {
        let mut resting = self.lock();
        let taken: Vec<VerifiedChunk> = resting.chunks.extract_if(.., |id, _| wanted(id)).map(|(_, chunk)| chunk).collect();
        resting.bytes -= taken.iter().map(|c| c.bytes().len()).sum::<usize>();
        taken
    }

    /// Waits until what is under way now has gone out, so that nothing is sent twice.
    pub async fn settle(&self) {
        // Fair: requests that begin later wait behind this. The semaphore is never closed.
        drop(self.free.acquire_many(BATCHES_MAX).await);
    }
}
