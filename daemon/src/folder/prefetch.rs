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
use ferry_protocol::limits::MANIFEST_CHUNKS_MAX;
use ferry_protocol::{ChunkId, ContentHash, DeviceId, Manifest};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
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
/// When its manifest is known, what is under way is waited for so long at most, and so long without anything that comes.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_PAUSE: Duration = Duration::from_secs(10);

/// The prefetches of one folder. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prefetches {
    shared: Arc<Mutex<Shared>>,
    runtime: tokio::runtime::Handle,
    lan: LanFolder,
    progress: Progress,
}

#[derive(Default)]
struct Shared {
    files: Vec<Arc<Prefetch>>,
    /// Contents whose manifests are known: what is offered of them is not fetched a second time (P04).
    claimed: Vec<Claim>,
}

impl Shared {
    /// Leaves out what comes by another way already. What was left out because of a prefetch keeps that for a while longer.
    fn leave_out(&self, own: Option<&Arc<Prefetch>>, pieces: &mut Vec<Piece>) {
        pieces.retain(|piece| !self.claimed.iter().any(|claim| claim.ids.contains(&piece.chunk.id)));
        for other in self.files.iter().filter(|other| own.is_none_or(|own| !Arc::ptr_eq(own, other))) {
            let (before, known) = (pieces.len(), whole(&other.known));
            pieces.retain(|piece| !known.contains(&piece.chunk.id));
            if pieces.len() < before {
                *whole(&other.wanted_at) = Instant::now();
            }
        }
    }
}

struct Claim {
    content: ContentHash,
    ids: HashSet<ChunkId>,
    /// All of it is here, and its place is still to be taken: so many batches ago.
    staged: Option<u8>,
}

/// One file.
struct Prefetch {
    link: Arc<Link>,
    file: u64,
    stage: EarlyStage,
    waiting: Mutex<VecDeque<Piece>>,
    /// The chunks that came, are fetched or wait.
    known: Mutex<HashSet<ChunkId>>,
    /// How many pieces wait or are being fetched.
    open: AtomicUsize,
    ended: AtomicBool,
    /// Nobody will claim it, or somebody has.
    over: AtomicBool,
    /// When something was last left out because it is here.
    wanted_at: Mutex<Instant>,
    changed: Notify,
}

/// What has come of a content before its manifest did. As long as this lives nothing that is offered of it is prefetched.
pub(super) struct Claimed {
    prefetches: Prefetches,
    content: ContentHash,
    /// The stage, if there is the better part of one.
    pub stage: Option<Stage>,
    /// What else has some of it.
    others: Vec<Arc<Prefetch>>,
    is_staged: bool,
}

impl Claimed {
    /// Moves into a stage of it what that lacks and came early. May block.
    pub fn fill(&mut self, stage: &Stage) -> Result<(), Obstacle> {
        self.others.drain(..).try_for_each(|other| other.stage.copy_into(stage))
    }

    /// All of it is here. It is known until it has its place.
    pub fn staged(mut self) {
        self.is_staged = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut shared = whole(&self.prefetches.shared);
        match self.is_staged {
            true => shared.claimed.iter_mut().filter(|c| c.content == self.content).for_each(|c| c.staged = Some(0)),
            false => shared.claimed.retain(|c| c.content != self.content),
        }
    }
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefetches {
    pub fn new(runtime: tokio::runtime::Handle, lan: LanFolder, progress: Progress) -> Self {
        Self { shared: Arc::default(), runtime, lan, progress }
    }

    /// A device offers chunks of a file that it is reading; those that are on this disk have been left out. What comes by another way already, or
    /// came when the file was read before, is left out here.
    pub fn offered(&self, root: &Arc<Root>, link: Arc<Link>, file: u64, mut pieces: Vec<Piece>) {
        let count = {
            let shared = whole(&self.shared);
            let known = shared.files.iter().find(|p| p.file == file && Arc::ptr_eq(&p.link, &link)).cloned();
            shared.leave_out(known.as_ref(), &mut pieces);
            if let Some(prefetch) = &known {
                prefetch.add(pieces);
                return;
            }
            shared.files.len()
        };
        // The beginning was missed, or it all is here: nothing to prefetch.
        if pieces.is_empty() || count >= PREFETCHES_MAX {
            return;
        }
        let Ok(stage) = EarlyStage::begin(root) else { return };
        let prefetch = Arc::new(Prefetch {
            link,
            file,
            stage,
            waiting: Mutex::default(),
            known: Mutex::default(),
            open: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            over: AtomicBool::new(false),
            wanted_at: Mutex::new(Instant::now()),
            changed: Notify::new(),
        });
        {
            // Whoever claims now sees either no piece of it, or all.
            let mut shared = whole(&self.shared);
            shared.leave_out(None, &mut pieces);
            prefetch.add(pieces);
            shared.files.push(prefetch.clone());
        }
        let all = self.clone();
        self.runtime.spawn(async move {
            prefetch.run(&all.lan, &all.progress).await;
            all.forget(&prefetch);
        });
    }

    /// The device has read the file to its end, or gave up because it changed meanwhile: it will be read again, and what came counts then.
    pub fn ended(&self, device: DeviceId, file: u64) {
        for prefetch in whole(&self.shared).files.iter().filter(|p| p.file == file && p.link.device == device) {
            prefetch.ended.store(true, Ordering::Release);
            prefetch.changed.notify_waiters();
        }
    }

    /// A batch was carried out. What was staged before it began has its place by now, or is no longer wanted.
    pub fn batch_done(&self) {
        whole(&self.shared).claimed.retain_mut(|claim| match &mut claim.staged {
            Some(batches) => {
                *batches += 1;
                *batches < 2
            }
            None => true,
        });
    }

    fn forget(&self, prefetch: &Arc<Prefetch>) {
        whole(&self.shared).files.retain(|p| !Arc::ptr_eq(p, prefetch));
    }

    /// What has been prefetched of a content: waits until all that was offered of it is there.
    pub async fn claim(&self, manifest: &Manifest) -> Claimed {
        let content = manifest.hash();
        let ids: HashSet<ChunkId> = manifest.chunks().iter().map(|chunk| chunk.id).collect();
        let found: Vec<_> = {
            let mut shared = whole(&self.shared);
            let found = shared.files.iter().filter(|p| !whole(&p.known).is_disjoint(&ids)).cloned().collect();
            shared.claimed.push(Claim { content, ids: ids.clone(), staged: None });
            found
        };
        let mut claimed = Claimed { prefetches: self.clone(), content, stage: None, others: Vec::new(), is_staged: false };
        for prefetch in found {
            if prefetch.stage.is_part_of(manifest) && whole(&prefetch.known).is_subset(&ids) {
                // Its manifest is known: nothing more is offered of it.
                prefetch.ended.store(true, Ordering::Release);
            }
            // Of a file that is still being read, and is something else, what is there now will do.
            if prefetch.ended.load(Ordering::Acquire) {
                prefetch.settled().await;
                self.forget(&prefetch);
                prefetch.over.store(true, Ordering::Release);
                prefetch.changed.notify_waiters();
            }
            claimed.others.push(prefetch);
        }
        let best = claimed.others.iter().filter(|p| p.over.load(Ordering::Acquire) && p.stage.is_part_of(manifest));
        if let Some(best) = best.max_by_key(|p| p.stage.bytes()).cloned() {
            claimed.others.retain(|other| !Arc::ptr_eq(other, &best));
            let manifest = manifest.clone();
            // Where a stage is there already this is copied into it like the others.
            let taken = tokio::task::spawn_blocking(move || best.stage.take_stage(&manifest).map_err(|_| best)).await;
            match taken {
                Ok(Ok(stage)) => claimed.stage = Some(stage),
                Ok(Err(best)) => claimed.others.push(best),
                Err(_) => {}
            }
        }
        claimed
    }
}

impl Prefetch {
    fn add(&self, pieces: Vec<Piece>) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let (mut waiting, mut known) = (whole(&self.waiting), whole(&self.known));
        let room = WAITING_MAX.saturating_sub(waiting.len()).min(MANIFEST_CHUNKS_MAX.saturating_sub(known.len()));
        for piece in pieces.into_iter().take(room) {
            self.open.fetch_add(1, Ordering::AcqRel);
            known.insert(piece.chunk.id);
            waiting.push_back(piece);
        }
        drop((waiting, known));
        self.changed.notify_waiters();
    }

    /// So many pieces came, or will not.
    fn done(&self, pieces: usize) {
        self.open.fetch_sub(pieces, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Nothing more is begun; waits for what is under way, unless that is slow: then it is asked for again, of all who have it.
    async fn settled(&self) {
        let dropped = std::mem::take(&mut *whole(&self.waiting)).len();
        self.done(dropped);
        let end = Instant::now() + SETTLE_MAX;
        let (mut least, mut moved_at) = (usize::MAX, Instant::now());
        loop {
            let changed = self.changed.notified();
            let open = self.open.load(Ordering::Acquire);
            // Only what has come counts as progress.
            if open < least {
                (least, moved_at) = (open, Instant::now());
            }
            let until = end.min(moved_at + SETTLE_PAUSE);
            if open == 0 || self.link.connection.close_reason().is_some() || Instant::now() >= until {
                return;
            }
            // Woken or not: it is looked at again.
            let _ = tokio::time::timeout_at(until.into(), changed).await;
        }
    }

    /// Waits until it is claimed, or nobody has wanted anything of it for a while.
    async fn linger(&self) {
        let began = Instant::now();
        loop {
            let changed = self.changed.notified();
            let until = began.max(*whole(&self.wanted_at)) + SILENCE_MAX;
            if self.over.load(Ordering::Acquire) || Instant::now() >= until {
                return;
            }
            // Woken or not: it is looked at again.
            let _ = tokio::time::timeout_at(until.into(), changed).await;
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
                    return self.linger().await;
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
                let left = Arc::new(AtomicUsize::new(batch.len()));
                if let Err(obstacle) = prefetch.fetch(&lan, &progress, batch, &left).await {
                    tracing::debug!(?obstacle, "a part of a file that is on its way");
                }
                prefetch.done(left.swap(0, Ordering::AcqRel));
                drop(slot);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    /// The device is gone. What it gave is kept for a while: when it is back, or another tells of the file, the rest is fetched and no more (P04).
    async fn rest(&self) {
        self.ended.store(true, Ordering::Release);
        *whole(&self.known) = self.stage.ids();
        // After that nobody claims it.
        self.linger().await;
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

    /// Fetches some pieces; `left` counts those that have not come.
    async fn fetch(
        self: &Arc<Self>,
        lan: &LanFolder,
        progress: &Progress,
        batch: Vec<Piece>,
        left: &Arc<AtomicUsize>,
    ) -> Result<(), Obstacle> {
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
            let (prefetch, progress, left) = (self.clone(), progress.clone(), left.clone());
            puts.spawn_blocking(move || {
                let Some(chunk) = chunk.open() else { return Err(Obstacle::Corrupt) };
                progress.moved(Direction::Download, chunk.bytes().len() as u64);
                let fits = at.iter().filter(|piece| piece.chunk.len as usize == chunk.bytes().len());
                fits.map(|piece| piece.offset).try_for_each(|offset| {
                    prefetch.stage.put(offset, &chunk)?;
                    // Unless all of it has been given up meanwhile.
                    if left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
                        prefetch.done(1);
                    }
                    Ok(())
                })
            });
        }
        while let Some(put) = puts.join_next().await {
            put.map_err(|_| Obstacle::Io)??;
        }
        Ok(())
    }
}
