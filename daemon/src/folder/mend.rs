//! Sending the relay again what it has lost (P19, X02): it says beside its feed that it lacks bytes, this device asks which, and sends those that
//! stand in its files. Nothing else follows from it: what the relay has lost is deleted nowhere.

use super::driver::Driver;
use super::random_u16;
use crate::fs;
use crate::lan::LanFolder;
use crate::relay::{RelayClient, RelayError};
use ferry_engine::ChunkPlace;
use ferry_protocol::limits::CHUNK_BATCH_TARGET_BYTES;
use ferry_protocol::{ChunkId, NamespaceId, VerifiedChunk};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What this device could not send is looked for again after so long: its files change.
const AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Devices that hear of it in one moment begin within this time, in milliseconds, so that the later ones find less to do.
const SPREAD_MS: u16 = 1500;

/// What was done for the relay.
#[derive(Debug, Clone, Default)]
pub(super) struct Mending(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    /// Of which finding of the relay everything was sent that stood here, and when.
    done: Option<(i64, Instant)>,
}

impl Mending {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to begin now: the relay lacks something since `since_ms`.
    fn begin(&self, since_ms: i64) -> bool {
        let mut state = self.state();
        let is_news = state.done.is_none_or(|(done, at)| since_ms > done || at.elapsed() >= AGAIN_AFTER);
        let begins = is_news && !state.is_running;
        state.is_running |= begins;
        begins
    }

    /// It ended; well, if everything that stands here was sent.
    fn end(&self, since_ms: i64, well: bool) {
        let mut state = self.state();
        state.is_running = false;
        if well {
            state.done = Some((since_ms, Instant::now()));
        }
    }
}

impl Driver {
    /// The relay says since when it lacks something, if it does.
    pub(super) fn mend_relay(&mut self, lacks_since_ms: Option<i64>) {
        let (Some(since_ms), Some(relay)) = (lacks_since_ms, self.deps.relay.borrow().clone()) else { return };
        let may_write = self.state.as_mut().is_some_and(|state| state.engine.policy_mut().may_write);
        let mending = self.relay.mending.clone();
        if !may_write || !mending.begin(since_ms) {
            return;
        }
        let (lan, namespace) = (self.deps.lan.clone(), self.config.id);
        self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(random_u16() % SPREAD_MS))).await;
            let sent = mend(&relay, &lan, namespace).await;
            match &sent {
                Ok(0) => tracing::debug!(%namespace, "the relay lacks bytes that this device has not"),
                Ok(chunks) => tracing::warn!(%namespace, chunks, "the relay had lost bytes; they were sent again"),
                Err(error) => tracing::info!(%namespace, %error, "what the relay lacks could not be sent; ferry tries again"),
            }
            mending.end(since_ms, sent.is_ok());
        });
    }
}

/// Sends what the relay lacks and this device has. How many chunks that were.
async fn mend(relay: &RelayClient, lan: &LanFolder, namespace: NamespaceId) -> Result<usize, RelayError> {
    let (mut after, mut sent) = (None, 0);
    loop {
        let lacked = relay.lacks(namespace, after).await?;
        let Some(last) = lacked.last().copied() else { return Ok(sent) };
        if after.is_some_and(|after| last <= after) {
            return Err(RelayError::peer_fault("the same chunks again where the next were asked for"));
        }
        after = Some(last);
        let Some((root, places)) = lan.places(lacked).await else {
            return Err(RelayError::retry("The folder is not open now."));
        };
        for batch in batches(places.into_iter().flatten().collect()) {
            // Another device may have sent them meanwhile.
            let ids: Vec<ChunkId> = batch.iter().map(|place| place.chunk.id).collect();
            let wanted: HashSet<ChunkId> = relay.missing(namespace, &ids).await?.into_iter().collect();
            let root = root.clone();
            let read = tokio::task::spawn_blocking(move || {
                let wanted = batch.iter().filter(|place| wanted.contains(&place.chunk.id));
                // What was edited since is no longer here.
                wanted.filter_map(|at| fs::read_chunk(&root, &at.path, at.offset, &at.chunk).ok()).collect::<Vec<VerifiedChunk>>()
            });
            let chunks = read.await.map_err(|_| RelayError::retry("ferry is stopping."))?;
            sent += chunks.len();
            relay.put_chunks(namespace, chunks).await?;
        }
    }
}

/// Requests of about the right size, in the order of the files, so that the disk is read forwards.
fn batches(mut places: Vec<ChunkPlace>) -> Vec<Vec<ChunkPlace>> {
    places.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    let (mut out, mut bytes) = (Vec::new(), usize::MAX);
    for place in places {
        if bytes >= CHUNK_BATCH_TARGET_BYTES {
            out.push(Vec::new());
            bytes = 0;
        }
        bytes += place.chunk.len as usize;
        if let Some(batch) = out.last_mut() {
            batch.push(place);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_for_each_finding() {
        let mending = Mending::default();
        assert!(mending.begin(5));
        assert!(!mending.begin(6), "one at a time");
        mending.end(5, false);
        assert!(mending.begin(5), "what failed is tried again");
        mending.end(5, true);
        assert!(!mending.begin(5), "what could be sent was");
        assert!(mending.begin(6), "the relay has found more");
    }
}
