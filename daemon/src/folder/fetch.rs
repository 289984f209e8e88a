//! Getting contents: each chunk from the best holder, into a stage, verified.
//!
//! Small files travel in groups: one request for many chunks, one pass over the disk. A large file is a stage of its own, which survives a
//! restart. Own files are asked before the network, and devices nearby before the relay (`sources.rs`).

use super::driver::Wake;
use super::merging::MERGES_MAX;
use super::prefetch::{Claimed, Prefetches};
use super::progress::{Moving, Progress};
use super::sources::{Sink, Slots, Sources, count};
use super::{Direction, Via};
use crate::fs::{self, Root, Stage};
use crate::lan::LanFolder;
use crate::relay::RelayClient;
use bytes::Bytes;
use crossbeam_channel::Sender;
use ferry_engine::{Fetch, Obstacle};
use ferry_protocol::limits::CHUNK_BATCH_TARGET_BYTES;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, NamespaceId, VerifiedChunk};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Small files in one group: at most so many, and so many bytes.
const GROUP_FILES: usize = 512;
const GROUP_BYTES: u64 = 4 << 20;
/// Large files under way at once: each holds one open file.
const LARGE_MAX: usize = 4;
/// From so many local chunks on they are copied by two threads.
const COPY_TOGETHER_MIN: usize = 8;

type Results = Vec<(ContentHash, Result<(), Obstacle>)>;

/// Fetches contents for one folder.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub runtime: tokio::runtime::Handle,
    pub namespace: NamespaceId,
    pub wakes: Sender<Wake>,
    /// Large files that come before their manifest.
    pub prefetches: Prefetches,
    lan: LanFolder,
    large: Arc<Semaphore>,
    pub merges: Arc<Semaphore>,
    slots: Slots,
    progress: Progress,
}

/// What one fetch needs.
#[derive(Clone)]
pub(super) struct Source {
    pub root: Arc<Root>,
    pub chunks: Sources,
    prefetches: Prefetches,
    pub progress: Progress,
}

impl Fetcher {
    pub fn new(runtime: tokio::runtime::Handle, namespace: NamespaceId, wakes: Sender<Wake>, lan: LanFolder, progress: Progress) -> Self {
        let prefetches = Prefetches::new(runtime.clone(), lan.clone(), progress.clone());
        let (large, merges) = (Arc::new(Semaphore::new(LARGE_MAX)), Arc::new(Semaphore::new(MERGES_MAX)));
        Self { runtime, namespace, wakes, prefetches, lan, large, merges, slots: Slots::default(), progress }
    }

    /// What fetching from this relay, the devices nearby and this root needs.
    pub fn source(&self, root: &Arc<Root>, relay: Option<Arc<RelayClient>>) -> Source {
        let chunks = Sources::new(relay, self.lan.clone(), self.namespace, self.slots.clone());
        Source { root: root.clone(), chunks, prefetches: self.prefetches.clone(), progress: self.progress.clone() }
    }

    /// Starts fetching; each content is answered in a [`Wake::Fetched`].
    pub fn start(&self, root: &Arc<Root>, relay: Option<Arc<RelayClient>>, fetches: Vec<Fetch>) {
        let source = self.source(root, relay);
        let (mut group, mut bytes) = (Vec::new(), 0);
        for fetch in fetches {
            if fetch.manifest.chunks().len() > 1 {
                self.start_large(source.clone(), fetch);
                continue;
            }
            bytes += fetch.manifest.size();
            group.push(fetch);
            if group.len() >= GROUP_FILES || bytes >= GROUP_BYTES {
                self.start_group(source.clone(), std::mem::take(&mut group));
                bytes = 0;
            }
        }
        if !group.is_empty() {
            self.start_group(source, group);
        }
    }

    fn start_group(&self, source: Source, group: Vec<Fetch>) {
        let wakes = self.wakes.clone();
        self.runtime.spawn(async move {
            let _ = wakes.send(Wake::Fetched(source.small_files(group).await));
        });
    }

    fn start_large(&self, source: Source, fetch: Fetch) {
        let (wakes, large) = (self.wakes.clone(), self.large.clone());
        let moving = Arc::new(self.progress.begin(fetch.path.clone(), Direction::Download, fetch.manifest.size()));
        self.runtime.spawn(async move {
            let _permit = large.acquire_owned().await;
            let content = fetch.manifest.hash();
            let result = source.large_file(fetch, moving).await;
            let _ = wakes.send(Wake::Fetched(vec![(content, result)]));
        });
    }
}

/// Chunks of small files, gathered in memory until they are staged together.
pub(super) struct Gathered {
    have: Mutex<HashMap<ChunkId, VerifiedChunk>>,
    progress: Progress,
}

impl Gathered {
    pub fn new(have: HashMap<ChunkId, VerifiedChunk>, progress: Progress) -> Self {
        Self { have: Mutex::new(have), progress }
    }

    pub fn have(&self) -> std::sync::MutexGuard<'_, HashMap<ChunkId, VerifiedChunk>> {
        // Whole between any two insertions.
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Gathered {
    const IN_MEMORY: bool = true;

    fn put(&self, chunk: &VerifiedChunk<Bytes>) -> Result<(), Obstacle> {
        self.have().insert(chunk.id(), chunk.to_vec());
        Ok(())
    }

    fn moved(&self, bytes: u64, via: Via) {
        count(None, &self.progress, bytes, via);
    }
}

/// A part of a large file on its way into its stage.
struct Part {
    stage: Arc<Stage>,
    places: BTreeMap<ChunkId, Vec<u64>>,
    moving: Arc<Moving>,
    progress: Progress,
}

impl Sink for Part {
    const IN_MEMORY: bool = false;

    fn put(&self, chunk: &VerifiedChunk<Bytes>) -> Result<(), Obstacle> {
        self.places.get(&chunk.id()).into_iter().flatten().try_for_each(|offset| self.stage.put(*offset, chunk))
    }

    fn moved(&self, bytes: u64, via: Via) {
        count(Some(&self.moving), &self.progress, bytes, via);
    }
}

impl Source {
    async fn small_files(self, group: Vec<Fetch>) -> Results {
        let contents: Vec<ContentHash> = group.iter().map(|f| f.manifest.hash()).collect();
        let moving = |f: &Fetch| self.progress.begin(f.path.clone(), Direction::Download, f.manifest.size());
        let _moving: Vec<Moving> = group.iter().map(moving).collect();
        let all = |obstacle: Obstacle| contents.iter().map(|c| (*c, Err(obstacle))).collect();
        let root = self.root.clone();
        let local = tokio::task::spawn_blocking(move || {
            let mut have: HashMap<ChunkId, VerifiedChunk> = HashMap::new();
            for fetch in &group {
                for (chunk, source) in fetch.manifest.chunks().iter().zip(&fetch.local) {
                    if let Ok(bytes) = fs::read_chunk(&root, &source.path, source.offset, chunk) {
                        have.insert(chunk.id, bytes);
                    }
                }
            }
            (group, have)
        });
        let Ok((group, have)) = local.await else { return all(Obstacle::Io) };
        let needed: Vec<ChunkId> =
            group.iter().flat_map(|f| f.manifest.chunks()).map(|c| c.id).filter(|id| !have.contains_key(id)).collect();
        let gathered = Arc::new(Gathered::new(have, self.progress.clone()));
        let mut failed = Obstacle::Unavailable;
        if !needed.is_empty()
            && let Err(obstacle) = self.chunks.collect(&needed, &gathered).await
        {
            failed = obstacle;
        }
        let root = self.root.clone();
        let staged = tokio::task::spawn_blocking(move || stage_group(&root, &group, &gathered.have(), failed));
        staged.await.unwrap_or_else(|_| all(Obstacle::Io))
    }

    async fn large_file(self, fetch: Fetch, moving: Arc<Moving>) -> Result<(), Obstacle> {
        let claimed = self.prefetches.claim(&fetch.manifest).await;
        let (claimed, stage) = {
            let (root, fetch) = (self.root.clone(), fetch);
            tokio::task::spawn_blocking(move || begin(&root, &fetch, claimed)).await.map_err(|_| Obstacle::Io)??
        };
        let stage = Arc::new(stage);
        let mut requests = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        let missing = stage.missing();
        moving.is_there(stage.manifest().size() - missing.iter().map(|(_, _, chunk)| u64::from(chunk.len)).sum::<u64>());
        for (_, offset, chunk) in missing {
            bytes += chunk.len as usize;
            batch.push((offset, chunk));
            if bytes >= CHUNK_BATCH_TARGET_BYTES {
                requests.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            requests.push(batch);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for request in requests {
            let (source, stage, moving) = (self.clone(), stage.clone(), moving.clone());
            tasks.spawn(async move { source.fill_stage(stage, request, moving).await });
        }
        let mut result = Ok(());
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or(Err(Obstacle::Io));
            if result.is_ok() {
                result = done;
            }
        }
        result?;
        let stage = Arc::into_inner(stage).ok_or(Obstacle::Io)?;
        if !stage.is_complete() {
            return Err(Obstacle::Unavailable);
        }
        tokio::task::spawn_blocking(move || stage.finish()).await.map_err(|_| Obstacle::Io)??;
        claimed.staged();
        Ok(())
    }

    /// Fetches some chunks of a large file. Writing goes on beside receiving.
    async fn fill_stage(&self, stage: Arc<Stage>, request: Vec<(u64, ChunkRef)>, moving: Arc<Moving>) -> Result<(), Obstacle> {
        let mut places: BTreeMap<ChunkId, Vec<u64>> = BTreeMap::new();
        let mut ids = Vec::with_capacity(request.len());
        for (offset, chunk) in &request {
            let offsets = places.entry(chunk.id).or_default();
            if offsets.is_empty() {
                ids.push(chunk.id);
            }
            offsets.push(*offset);
        }
        let part = Part { stage, places, moving, progress: self.progress.clone() };
        self.chunks.collect(&ids, &Arc::new(part)).await
    }
}

/// Begins or resumes a stage, goes on from what came early (which it answers with), and takes what own files hold.
fn begin(root: &Arc<Root>, fetch: &Fetch, mut claimed: Claimed) -> Result<(Claimed, Stage), Obstacle> {
    let stage = claimed.stage.take().map_or_else(|| Stage::begin(root, &fetch.manifest), Ok)?;
    claimed.fill(&stage)?;
    let local: HashMap<ChunkId, _> = fetch.local.iter().map(|l| (l.chunk, l)).collect();
    let copies: Vec<_> =
        stage.missing().into_iter().filter_map(|(_, at, chunk)| local.get(&chunk.id).map(|source| (source, at, chunk))).collect();
    let next = AtomicUsize::new(0);
    let copy = || {
        while let Some((source, at, chunk)) = copies.get(next.fetch_add(1, Ordering::Relaxed)) {
            stage.copy_from_local(&source.path, source.offset, *at, chunk)?;
        }
        Ok(())
    };
    let copied: Result<(), Obstacle> = if copies.len() < COPY_TOGETHER_MIN {
        copy()
    } else {
        // Both read, hash and write; neighbours are done at about the same time, so that the hash of the whole follows closely.
        std::thread::scope(|scope| {
            let other = scope.spawn(copy);
            let own = copy();
            other.join().unwrap_or(Err(Obstacle::Io)).and(own)
        })
    };
    copied?;
    Ok((claimed, stage))
}

fn stage_group(root: &Root, group: &[Fetch], have: &HashMap<ChunkId, VerifiedChunk>, failed: Obstacle) -> Results {
    let mut results = Vec::with_capacity(group.len());
    let mut ready = Vec::with_capacity(group.len());
    for fetch in group {
        match fetch.manifest.chunks().first() {
            None => ready.push((fetch.manifest.hash(), None)),
            Some(chunk) => match have.get(&chunk.id) {
                Some(bytes) => ready.push((fetch.manifest.hash(), Some(bytes))),
                None => results.push((fetch.manifest.hash(), Err(failed))),
            },
        }
    }
    let (staged, obstacle) = fs::stage::stage_small_batch(root, ready.iter().map(|(_, chunk)| *chunk));
    for (index, (content, _)) in ready.iter().enumerate() {
        let result = if index < staged.len() { Ok(()) } else { Err(obstacle.unwrap_or(Obstacle::Io)) };
        results.push((*content, result));
    }
    results
}
