//! Where chunks come from: devices nearby first, then the relay. Devices that want the same from the relay divide it among themselves, so that
//! the way to the relay carries each chunk about once.
//!
//! The division needs no agreement: every device computes who brings which chunk ([`bringer`]), tells the others what it has brought, and gives
//! it on. A device that leaves, or says nothing for a while, is not waited for.

use super::progress::Moving;
use super::{Direction, Via};
use crate::lan::fetch::{PeerChunk, PeerError};
use crate::lan::{LanFolder, Link};
use crate::relay::{FetchedChunk, RelayClient, RelayError};
use bytes::Bytes;
use ferry_engine::Obstacle;
use ferry_protocol::lan::chunks::bringer;
use ferry_protocol::{ChunkId, NamespaceId, VerifiedChunk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests under way at once: to the relay, to devices nearby.
const RELAY_REQUESTS_MAX: usize = 4;
const PEER_REQUESTS_MAX: usize = 4;
/// Chunks that wait to be written, for each request.
const PUTS_MAX: usize = 6;
/// A chunk of at most so many bytes is hashed where it is read.
const AT_ONCE_MAX_BYTES: usize = 64 << 10;
/// How long a device is given for a request: at least, for each chunk more, and that at most.
const ASK_MIN: Duration = Duration::from_secs(30);
const ASK_EACH: Duration = Duration::from_secs(10);
const ASK_MORE_MAX: Duration = Duration::from_secs(120);
/// The same while this device itself limits what comes: it is not the peer that drips then.
const ASK_LIMITED_MAX: Duration = Duration::from_secs(3600);
/// A device that has brought nothing for so long is no longer waited for.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// One that is silent for so long is helped with a chunk by a device that has nothing left to do itself, and again this often. A device that goes on
/// bringing is not helped: the way to the relay is what all wait for, and each chunk is to cross it once.
const HELP_AFTER: Duration = Duration::from_secs(4);
const HELP_EVERY: Duration = Duration::from_secs(1);
/// Chunks that are announced together, and how long the first of them waits for the others.
const TELL_TOGETHER: usize = 32;
const TELL_WITHIN: Duration = Duration::from_millis(20);

/// A chunk that came.
pub(super) enum Came {
    /// From the relay, hashed.
    Relay(VerifiedChunk<Bytes>),
    /// From a device nearby: still to be hashed.
    Peer(PeerChunk),
}

impl Came {
    pub fn id(&self) -> ChunkId {
        match self {
            Self::Relay(chunk) => chunk.id(),
            Self::Peer(chunk) => chunk.id(),
        }
    }

    /// Its length in bytes, as far as it is known.
    fn len_bytes(&self) -> usize {
        match self {
            Self::Relay(chunk) => chunk.bytes().len(),
            Self::Peer(chunk) => chunk.len_bytes(),
        }
    }

    /// The chunk, if it is what it should be.
    fn open(self) -> Option<VerifiedChunk<Bytes>> {
        match self {
            Self::Relay(chunk) => Some(chunk),
            Self::Peer(chunk) => chunk.open(),
        }
    }

    fn via(&self) -> Via {
        match self {
            Self::Relay(_) => Via::Relay,
            Self::Peer(_) => Via::Lan,
        }
    }
}

/// Takes chunks in, on a thread that may block.
pub(super) trait Sink: Send + Sync + 'static {
    /// Whether it keeps chunks in memory: then a small one is taken in at once, as that is less work than to hand it to a thread.
    const IN_MEMORY: bool;
    /// Writes a chunk where it belongs.
    fn put(&self, chunk: &VerifiedChunk<Bytes>) -> Result<(), Obstacle>;
    /// So many bytes came.
    fn moved(&self, bytes: u64, via: Via);
}

/// Where chunks come from. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sources {
    pub relay: Option<Arc<RelayClient>>,
    pub lan: LanFolder,
    namespace: NamespaceId,
    slots: Slots,
}

/// Bounds what is under way for one folder.
#[derive(Clone)]
pub(super) struct Slots {
    relay: Arc<Semaphore>,
    peers: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { relay: Arc::new(Semaphore::new(RELAY_REQUESTS_MAX)), peers: Arc::new(Semaphore::new(PEER_REQUESTS_MAX)) }
    }
}

type Left = BTreeSet<ChunkId>;

impl Sources {
    pub fn new(relay: Option<Arc<RelayClient>>, lan: LanFolder, namespace: NamespaceId, slots: Slots) -> Self {
        Self { relay, lan, namespace, slots }
    }

    /// Gets chunks into a sink; each of them once. What could not be had is an obstacle; what came before that has been put.
    pub async fn collect<S: Sink>(&self, ids: &[ChunkId], sink: &Arc<S>) -> Result<(), Obstacle> {
        let mut left: Left = ids.iter().copied().collect();
        self.ask_peers(ids, &mut left, sink).await?;
        if left.is_empty() {
            return Ok(());
        }
        if self.relay.is_none() {
            return Err(Obstacle::Unavailable);
        }
        self.divided(ids.iter().filter(|id| left.contains(id)).copied().collect(), sink).await
    }

    /// Asks the devices nearby, one after the other, for what is left. Several requests begin with different devices.
    async fn ask_peers<S: Sink>(&self, ids: &[ChunkId], left: &mut Left, sink: &Arc<S>) -> Result<(), Obstacle> {
        let mut peers = self.lan.sources();
        let first = ids.first().map_or(0, |id| usize::from(id.as_bytes()[0]));
        let count = peers.len().max(1);
        peers.rotate_left(first % count);
        for link in peers {
            if left.is_empty() {
                break;
            }
            let wanted: Vec<ChunkId> = ids.iter().filter(|id| left.contains(id)).copied().collect();
            self.ask_peer(&link, &wanted, left, sink).await?;
        }
        Ok(())
    }

    /// Asks one device; what it gave is no longer left. An error is its own affair: somebody else is asked.
    async fn ask_peer<S: Sink>(&self, link: &Arc<Link>, wanted: &[ChunkId], left: &mut Left, sink: &Arc<S>) -> Result<(), Obstacle> {
        let _slot = self.slots.peers.acquire().await;
        // A peer that drips is passed over: what it has given counts.
        let patience = if link.is_limited() { ASK_LIMITED_MAX } else { ASK_MIN + (ASK_EACH * wanted.len() as u32).min(ASK_MORE_MAX) };
        let until = tokio::time::Instant::now() + patience;
        let asked = tokio::time::timeout_at(until, self.lan.ask(link, wanted)).await.unwrap_or_else(|_| Err(late()));
        let mut answers = match asked {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(peer = %link.device, %error, "asking for chunks");
                return Ok(());
            }
        };
        let mut puts = Puts::new(sink);
        loop {
            match tokio::time::timeout_at(until, answers.next()).await.unwrap_or_else(|_| Err(late())) {
                Ok(Some(chunk)) => puts.begin(Came::Peer(chunk)).await?,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(peer = %link.device, %error, "the answer of a device nearby");
                    break;
                }
            }
        }
        for id in puts.end().await? {
            left.remove(&id);
        }
        Ok(())
    }

    /// Asks the relay for everything, when it is this request's turn.
    async fn ask_relay<S: Sink>(&self, ids: &[ChunkId], sink: &Arc<S>) -> Result<(), Obstacle> {
        let _slot = self.slots.relay.acquire().await;
        self.ask_relay_now(ids, sink).await
    }

    async fn ask_relay_now<S: Sink>(&self, ids: &[ChunkId], sink: &Arc<S>) -> Result<(), Obstacle> {
        self.ask_relay_until(ids, sink, |_| false).await.map(drop)
    }

    /// Asks the relay, and stops as soon as the next chunk that should come need not come this way any more; answers those that did not come.
    async fn ask_relay_until<S: Sink>(
        &self,
        ids: &[ChunkId],
        sink: &Arc<S>,
        is_needless: impl Fn(&ChunkId) -> bool,
    ) -> Result<Vec<ChunkId>, Obstacle> {
        let Some(relay) = &self.relay else { return Err(Obstacle::Unavailable) };
        let mut stream = relay.get_chunks(self.namespace, ids).await.map_err(obstacle_of)?;
        let mut puts = Puts::new(sink);
        let mut told = Told::new(&self.lan);
        let mut coming: VecDeque<ChunkId> = ids.iter().copied().collect();
        loop {
            // One call is waited for to its end, or the whole answer is given up.
            let next = stream.next();
            tokio::pin!(next);
            let chunk = loop {
                let news = self.lan.news();
                if coming.front().is_some_and(&is_needless) {
                    puts.end().await?;
                    return Ok(coming.into());
                }
                tokio::select! {
                    biased;
                    chunk = &mut next => break chunk,
                    () = news => {}
                }
            };
            match chunk.transpose().map_err(obstacle_of)? {
                Some(FetchedChunk::Chunk(chunk)) => {
                    coming.retain(|id| *id != chunk.id());
                    told.keep(&chunk);
                    puts.begin(Came::Relay(chunk)).await?;
                }
                Some(FetchedChunk::Absent(id)) => {
                    coming.retain(|waits| *waits != id);
                    tracing::warn!(chunk = %id, "the relay has no good copy of a chunk");
                }
                None => {
                    puts.end().await?;
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// Brings our share from the relay and gets the others' from them. Who brings what is decided when it is this request's turn: until then others
    /// may have found the relay, or have brought something already.
    async fn divided<S: Sink>(&self, ids: Vec<ChunkId>, sink: &Arc<S>) -> Result<(), Obstacle> {
        // Many connections on one narrow way starve one another: together the devices have about as many as one alone would.
        let together = (self.lan.relayed().len() + 1).min(RELAY_REQUESTS_MAX);
        let mut left: Left = ids.iter().copied().collect();
        let slot = {
            let turn = self.slots.relay.acquire_many(together as u32);
            tokio::pin!(turn);
            loop {
                let news = self.lan.news();
                // What others bring meanwhile is taken while they still hold it in memory.
                for (link, wanted) in self.ready(&left).into_values() {
                    self.ask_peer(&link, &wanted, &mut left, sink).await?;
                    self.lan.disbelieve(wanted.iter().filter(|id| left.contains(id)));
                }
                if left.is_empty() {
                    return Ok(());
                }
                tokio::select! {
                    slot = &mut turn => break slot,
                    () = news => {}
                }
            }
        };
        let mut devices = self.lan.relayed();
        devices.push(self.lan.own());
        let is_mine = |id: &ChunkId| bringer(*id, devices.iter().copied()) == Some(self.lan.own()) && self.lan.holder(id).is_none();
        let (mine, theirs): (Vec<ChunkId>, Vec<ChunkId>) = ids.into_iter().filter(|id| left.contains(id)).partition(is_mine);
        tracing::debug!(ours = mine.len(), theirs = theirs.len(), devices = devices.len(), "dividing what the relay has");
        let ours = async {
            // What another has brought meanwhile, because this was too slow, comes from there.
            let asked = match mine.is_empty() {
                true => Ok(mine),
                false => self.ask_relay_until(&mine, sink, |id| self.lan.holder(id).is_some()).await,
            };
            drop(slot);
            asked
        };
        let (ours, theirs) = tokio::join!(ours, self.others_share(theirs, sink));
        let left = ours?;
        theirs?;
        self.others_share(left, sink).await
    }

    /// Waits for what others bring; what nobody brings we bring.
    async fn others_share<S: Sink>(&self, ids: Vec<ChunkId>, sink: &Arc<S>) -> Result<(), Obstacle> {
        let mut left: Left = ids.iter().copied().collect();
        let (began, mut helped) = (Instant::now(), Instant::now());
        let (mut count, mut moved) = (left.len(), Instant::now());
        while !left.is_empty() {
            if left.len() != count {
                (count, moved) = (left.len(), Instant::now());
            }
            let news = self.lan.news();
            let ready = self.ready(&left);
            if !ready.is_empty() {
                let mut denied = Vec::new();
                for (link, wanted) in ready.into_values() {
                    self.ask_peer(&link, &wanted, &mut left, sink).await?;
                    // What it announced and does not give is not asked of it again.
                    self.lan.disbelieve(wanted.iter().filter(|id| left.contains(id)));
                    denied.extend(wanted.into_iter().filter(|id| left.contains(id)));
                }
                if !denied.is_empty() {
                    tracing::debug!(chunks = denied.len(), "announced and not given");
                    self.ask_relay(&denied, sink).await?;
                    left.retain(|id| !denied.contains(id));
                }
                continue;
            }
            // Nothing of this has come for too long, whatever else there is news of: it all falls to us.
            let lost = if moved.elapsed() >= SILENCE_MAX * 4 { left.iter().copied().collect() } else { self.lost(&left, began) };
            if !lost.is_empty() {
                tracing::debug!(chunks = lost.len(), "those who were to bring this are silent");
                self.ask_peers(&lost, &mut left, sink).await?;
                let lost: Vec<ChunkId> = lost.into_iter().filter(|id| left.contains(id)).collect();
                if !lost.is_empty() {
                    self.ask_relay(&lost, sink).await?;
                }
                left.retain(|id| !lost.contains(id));
                continue;
            }
            let is_idle = self.slots.relay.available_permits() == RELAY_REQUESTS_MAX;
            if is_idle && helped.elapsed() >= HELP_EVERY && began.elapsed() >= HELP_AFTER {
                helped = Instant::now();
                // Everybody helps with another one: the order is our own.
                let slow = self.silent_for(HELP_AFTER, &left, began);
                if let Some(id) = slow.into_iter().max_by_key(|id| ChunkId::of(&[self.lan.own().as_bytes(), &id.as_bytes()[..]].concat())) {
                    tracing::debug!(chunk = %id, "helping a slow device");
                    self.ask_relay(&[id], sink).await?;
                    left.remove(&id);
                    continue;
                }
            }
            // Woken by news, and now and then.
            let _ = tokio::time::timeout(HELP_EVERY / 4, news).await;
        }
        Ok(())
    }

    /// Of what is left, what others have announced, by device.
    fn ready(&self, left: &Left) -> BTreeMap<ferry_protocol::DeviceId, (Arc<Link>, Vec<ChunkId>)> {
        let mut ready: BTreeMap<_, (Arc<Link>, Vec<ChunkId>)> = BTreeMap::new();
        for id in left {
            if let Some(link) = self.lan.holder(id) {
                ready.entry(link.device).or_insert_with(|| (link, Vec::new())).1.push(*id);
            }
        }
        ready
    }

    /// Of what is left, what now falls to us: its bringer has gone, or has said nothing for too long.
    fn lost(&self, left: &Left, began: Instant) -> Vec<ChunkId> {
        let own = self.lan.own();
        let mut devices = self.relayed_and_heard(SILENCE_MAX, began);
        devices.push(own);
        left.iter().filter(|id| bringer(**id, devices.iter().copied()) == Some(own)).copied().collect()
    }

    /// Of what is left, what a device is to bring that has said nothing for so long.
    fn silent_for(&self, silence: Duration, left: &Left, began: Instant) -> Vec<ChunkId> {
        let mut devices = self.lan.relayed();
        devices.push(self.lan.own());
        let heard = self.relayed_and_heard(silence, began);
        let is_heard = |id: &ChunkId| bringer(*id, devices.iter().copied()).is_some_and(|device| heard.contains(&device));
        left.iter().filter(|id| !is_heard(id)).copied().collect()
    }

    /// The devices that reach the relay and have told of a chunk within this time.
    fn relayed_and_heard(&self, silence: Duration, began: Instant) -> Vec<ferry_protocol::DeviceId> {
        self.lan.relayed().into_iter().filter(|d| self.lan.last_news(*d).max(began).elapsed() < silence).collect()
    }
}

/// Verifies a chunk and puts it where it belongs; whether it was right.
fn take_in<S: Sink>(sink: &S, came: Came) -> (ChunkId, Result<bool, Obstacle>) {
    let (id, via) = (came.id(), came.via());
    let Some(chunk) = came.open() else { return (id, Ok(false)) };
    sink.moved(chunk.bytes().len() as u64, via);
    (id, sink.put(&chunk).map(|()| true))
}

/// Writes under way: a few, so that receiving goes on meanwhile.
struct Puts<S: Sink> {
    sink: Arc<S>,
    tasks: JoinSet<(ChunkId, Result<bool, Obstacle>)>,
    good: Vec<ChunkId>,
}

impl<S: Sink> Puts<S> {
    fn new(sink: &Arc<S>) -> Self {
        Self { sink: sink.clone(), tasks: JoinSet::new(), good: Vec::new() }
    }

    async fn begin(&mut self, came: Came) -> Result<(), Obstacle> {
        while self.tasks.len() >= PUTS_MAX {
            self.join().await?;
        }
        if S::IN_MEMORY && came.len_bytes() <= AT_ONCE_MAX_BYTES {
            let done = take_in(&*self.sink, came);
            return self.note(done);
        }
        let sink = self.sink.clone();
        self.tasks.spawn_blocking(move || take_in(&*sink, came));
        Ok(())
    }

    fn note(&mut self, (id, result): (ChunkId, Result<bool, Obstacle>)) -> Result<(), Obstacle> {
        if result? {
            self.good.push(id);
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<(), Obstacle> {
        if let Some(done) = self.tasks.join_next().await {
            return self.note(done.map_err(|_| Obstacle::Io)?);
        }
        Ok(())
    }

    /// The chunks that were right, once all are written.
    async fn end(mut self) -> Result<Vec<ChunkId>, Obstacle> {
        while !self.tasks.is_empty() {
            self.join().await?;
        }
        Ok(self.good)
    }
}

/// Keeps what came from the relay for those nearby, and tells them: some together.
struct Told<'l> {
    lan: &'l LanFolder,
    ids: Vec<ChunkId>,
    since: Instant,
    has_peers: bool,
}

impl<'l> Told<'l> {
    fn new(lan: &'l LanFolder) -> Self {
        Self { lan, ids: Vec::new(), since: Instant::now(), has_peers: !lan.peers().is_empty() }
    }

    fn keep(&mut self, chunk: &VerifiedChunk<Bytes>) {
        if !self.has_peers {
            return;
        }
        self.lan.keep_warm(chunk);
        if self.ids.is_empty() {
            self.since = Instant::now();
        }
        self.ids.push(chunk.id());
        if self.ids.len() >= TELL_TOGETHER || self.since.elapsed() >= TELL_WITHIN || chunk.bytes().len() >= 1 << 16 {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if !self.ids.is_empty() {
            self.lan.tell_got(std::mem::take(&mut self.ids));
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

fn late() -> PeerError {
    PeerError::late()
}

/// What an error of the relay means for a content that was wanted.
pub(super) fn obstacle_of(error: RelayError) -> Obstacle {
    match error {
        RelayError::PeerFault { .. } => Obstacle::Corrupt,
        _ => Obstacle::Unavailable,
    }
}

/// Counts what came for one transfer.
pub(super) fn count(moving: Option<&Moving>, progress: &super::progress::Progress, bytes: u64, via: Via) {
    match moving {
        Some(moving) => moving.add(bytes, via),
        None => progress.moved(Direction::Download, bytes),
    }
}
