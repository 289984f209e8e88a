//! Large files that a device nearby is still reading: their chunks are fetched as they are offered. When the manifest comes, what is there becomes
//! the beginning of its stage.
//!
//! An offer is a hint. What it brought is verified chunk by chunk; what no manifest claims in time is thrown away. Bounded by
//! [`PREFETCHES_MAX`] files of a folder at once (I14).

use super::Direction;
use super::progress::Progress;
use crate::fs::{EarlyStage, Root, Stage};
use crate::lan::{LanFolder, Link};
use ferry_engine::Obstacle;
use ferry_protocol::lan::Piece;
use ferry_protocol::{ChunkId, DeviceId, Manifest};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Files at once.
const PREFETCHES_MAX: usize = 4;
/// Requests of one file at once, and bytes of one request.
const REQUESTS_MAX: usize = 3;
const REQUEST_BYTES: u64 = 8 << 20;
/// Pieces that may wait to be fetched: who offers more than this at once is read slowly.
const WAITING_MAX: usize = 65_536;
/// A file of which nothing more is heard for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The prefetches of one folder. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prefetches {
    shared: Arc<Mutex<Vec<Arc<Prefetch>>>>,
    runtime: tokio::runtime::Handle,
    lan: LanFolder,
    progress: Progress,
}

/// One file.
struct Prefetch {
    link: Arc<Link>,
    file: u64,
    stage: EarlyStage,
    waiting: Mutex<VecDeque<Piece>>,
    /// Pieces that wait or are being fetched.
    open: AtomicUsize,
    ended: AtomicBool,
    /// Nobody will claim it, or somebody has.
    over: AtomicBool,
    changed: Notify,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefetches {
    pub fn new(runtime: tokio::runtime::Handle, lan: LanFolder, progress: Progress) -> Self {
        Self { shared: Arc::default(), runtime, lan, progress }
    }

    /// A device offers chunks of a file that it is reading; those that are on this disk have been left out.
    pub fn offered(&self, root: &Arc<Root>, link: Arc<Link>, file: u64, pieces: Vec<Piece>) {
        let known = whole(&self.shared).iter().find(|p| p.file == file && p.link.device == link.device).cloned();
        if let Some(prefetch) = known {
            return prefetch.add(pieces);
        }
        // The beginning was missed, or it all is here: nothing to prefetch.
        if pieces.is_empty() || whole(&self.shared).len() >= PREFETCHES_MAX {
            return;
        }
        let Ok(stage) = EarlyStage::begin(root) else { return };
        let prefetch = Arc::new(Prefetch {
            link,
            file,
            stage,
            waiting: Mutex::default(),
            open: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            over: AtomicBool::new(false),
            changed: Notify::new(),
        });
        prefetch.add(pieces);
        whole(&self.shared).push(prefetch.clone());
        let all = self.clone();
        self.runtime.spawn(async move {
            prefetch.run(&all.lan, &all.progress).await;
            all.forget(&prefetch);
        });
    }

    /// The device has read the file to its end, or gave up.
    pub fn ended(&self, device: DeviceId, file: u64, is_whole: bool) {
        let found = whole(&self.shared).iter().find(|p| p.file == file && p.link.device == device).cloned();
        if let Some(prefetch) = found {
            prefetch.ended.store(true, Ordering::Release);
            if !is_whole {
                prefetch.over.store(true, Ordering::Release);
                self.forget(&prefetch);
            }
            prefetch.changed.notify_waiters();
        }
    }

    fn forget(&self, prefetch: &Arc<Prefetch>) {
        whole(&self.shared).retain(|p| !Arc::ptr_eq(p, prefetch));
    }

    /// What has been prefetched of a content, as its stage: waits until everything that was offered of it is there. Nothing if there is nothing.
    pub async fn claim(&self, manifest: &Manifest) -> Option<Stage> {
        let found = whole(&self.shared).iter().find(|p| p.stage.is_part_of(manifest) && p.offers(manifest)).cloned()?;
        // Its manifest is known: nothing more is offered of it.
        found.ended.store(true, Ordering::Release);
        found.settled().await;
        self.forget(&found);
        found.over.store(true, Ordering::Release);
        found.changed.notify_waiters();
        let manifest = manifest.clone();
        // It can end between the two: then the stage begins anew.
        tokio::task::spawn_blocking(move || found.stage.take_stage(&manifest).ok()).await.ok().flatten()
    }
}

impl Prefetch {
    fn add(&self, pieces: Vec<Piece>) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let mut waiting = whole(&self.waiting);
        for piece in pieces.into_iter().take(WAITING_MAX.saturating_sub(waiting.len())) {
            self.open.fetch_add(1, Ordering::AcqRel);
            waiting.push_back(piece);
        }
        drop(waiting);
        self.changed.notify_waiters();
    }

    /// Whether it has anything of a content: a file of which nothing has come yet is everything's part.
    fn offers(&self, manifest: &Manifest) -> bool {
        let first = manifest.chunks().first().map(|chunk| chunk.id);
        self.stage.has_any() || whole(&self.waiting).front().is_some_and(|piece| piece.offset == 0 && Some(piece.chunk.id) == first)
    }

    /// Waits until nothing is open, or nothing moves any more.
    async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            let before = self.open.load(Ordering::Acquire);
            if before == 0 || self.link.connection.close_reason().is_some() {
                return;
            }
            let waited = tokio::time::timeout(SILENCE_MAX / 3, changed).await;
            if waited.is_err() && self.open.load(Ordering::Acquire) == before {
                return;
            }
        }
    }

    /// Fetches what is offered until the file ends or falls silent, and is claimed or not.
    async fn run(self: &Arc<Self>, lan: &LanFolder, progress: &Progress) {
        let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let changed = self.changed.notified();
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let batch = self.next_batch();
            if batch.is_empty() {
                if self.ended.load(Ordering::Acquire) && self.open.load(Ordering::Acquire) == 0 && tasks.is_empty() {
                    // Claimed now, or in a while, or not at all.
                    let _ = tokio::time::timeout(SILENCE_MAX, changed).await;
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    Some(_) = tasks.join_next() => {}
                    _ = self.link.connection.closed() => return self.rest().await,
                    () = tokio::time::sleep(SILENCE_MAX) => return,
                }
                continue;
            }
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let (prefetch, lan, progress) = (self.clone(), lan.clone(), progress.clone());
            tasks.spawn(async move {
                let count = batch.len();
                if let Err(obstacle) = prefetch.fetch(&lan, &progress, batch).await {
                    tracing::debug!(?obstacle, "a part of a file that is on its way");
                }
                prefetch.open.fetch_sub(count, Ordering::AcqRel);
                prefetch.changed.notify_waiters();
                drop(slot);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    /// The device is gone. What it gave is kept for a while: when it is back, or another tells of the file, the rest is fetched and no more (P04).
    async fn rest(&self) {
        let over = async {
            loop {
                let changed = self.changed.notified();
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                changed.await;
            }
        };
        // After that nobody claims it.
        let _ = tokio::time::timeout(SILENCE_MAX, over).await;
    }

    fn next_batch(&self) -> Vec<Piece> {
        let mut waiting = whole(&self.waiting);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < REQUEST_BYTES
            && let Some(piece) = waiting.pop_front()
        {
            bytes += u64::from(piece.chunk.len);
            batch.push(piece);
        }
        batch
    }

    async fn fetch(self: &Arc<Self>, lan: &LanFolder, progress: &Progress, batch: Vec<Piece>) -> Result<(), Obstacle> {
        let mut places: HashMap<ChunkId, Vec<Piece>> = HashMap::new();
        let mut ids = Vec::new();
        for piece in batch {
            let at = places.entry(piece.chunk.id).or_default();
            if at.is_empty() {
                ids.push(piece.chunk.id);
            }
            at.push(piece);
        }
        let mut answers = lan.ask(&self.link, &ids).await.map_err(|_| Obstacle::Unavailable)?;
        let mut puts = tokio::task::JoinSet::new();
        while let Some(chunk) = answers.next().await.map_err(|_| Obstacle::Unavailable)? {
            let at = places.get(&chunk.id()).cloned().unwrap_or_default();
            let (prefetch, progress) = (self.clone(), progress.clone());
            puts.spawn_blocking(move || {
                let Some(chunk) = chunk.open() else { return Err(Obstacle::Corrupt) };
                progress.moved(Direction::Download, chunk.bytes().len() as u64);
                let fits = at.iter().filter(|piece| piece.chunk.len as usize == chunk.bytes().len());
                fits.map(|piece| piece.offset).try_for_each(|offset| prefetch.stage.put(offset, &chunk))
            });
        }
        while let Some(put) = puts.join_next().await {
            put.map_err(|_| Obstacle::Io)??;
        }
        Ok(())
    }
}
