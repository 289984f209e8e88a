//! A folder's side of the LAN: which peers sync it too, what they have, and the way between them and the folder's control loop.

use super::hub::Hub;
use super::link::Link;
use super::offers::Offers;
use super::warm::Warm;
use crate::fs::Root;
use bytes::Bytes;
use ferry_engine::ChunkPlace;
use ferry_protocol::lan::message::FeedCursor;
use ferry_protocol::lan::session::Opened;
use ferry_protocol::lan::{Message, PeerPage, Piece};
use ferry_protocol::limits::LAN_HAVES_MAX;
use ferry_protocol::wire::{FeedPage, Role};
use ferry_protocol::{ChunkId, ContentHash, DeviceId, NamespaceId, RelPath, VerifiedChunk};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{Notify, oneshot, watch};

/// Wakes that may wait for the control loop before peers are read more slowly.
const QUEUED_MAX: usize = 2048;
/// Announcements of chunks that are remembered.
const GOT_MAX: usize = 65_536;

/// What the folder's control loop is told and asked.
pub enum PeerWake {
    /// A peer syncs the folder too.
    Opened {
        /// The peer.
        link: Arc<Link>,
        /// What it may do.
        role: Role,
        /// Its side.
        folder: Opened,
    },
    /// It no longer does, or is gone.
    Closed {
        /// Who.
        device: DeviceId,
    },
    /// Whether it reaches a relay has changed.
    Relays {
        /// Who.
        device: DeviceId,
        /// Now.
        relays: bool,
    },
    /// A page of its feed.
    Page {
        /// Whose.
        device: DeviceId,
        /// From where the page begins.
        since: Option<FeedCursor>,
        /// The page.
        page: Box<FeedPage>,
        /// Told, once it is taken in, up to where.
        done: oneshot::Sender<FeedCursor>,
    },
    /// It wants a page of our feed. The answer is dropped when there is none to be had.
    AskPage {
        /// How far it has read.
        cursor: Option<FeedCursor>,
        /// The answer.
        reply: oneshot::Sender<PeerPage>,
    },
    /// It asked for chunks that do not stand where our index says: these files have changed since (H05).
    Stale(Vec<RelPath>),
    /// It has taken in our feed so far.
    Heard {
        /// Who.
        device: DeviceId,
        /// How far.
        cursor: FeedCursor,
    },
    /// It wants chunks: where do they stand?
    AskPlaces {
        /// Which.
        ids: Vec<ChunkId>,
        /// The root, and the place of each; dropped when the folder is not open.
        reply: oneshot::Sender<(Arc<Root>, Vec<Option<ChunkPlace>>)>,
    },
    /// A peer has got contents that it did not have before.
    Have,
    /// A peer reads a large file: chunks that can be fetched already.
    Offered {
        /// The peer.
        link: Arc<Link>,
        /// Its number for the file.
        file: u64,
        /// The chunks.
        pieces: Vec<Piece>,
    },
    /// It has read the file to its end, or given up.
    OfferEnded {
        /// The peer.
        device: DeviceId,
        /// Its number for the file.
        file: u64,
    },
}

/// Chunks that the control loop looks for in one turn.
const PLACES_MAX: usize = 1024;

type Wake = Box<dyn Fn(PeerWake) + Send + Sync>;

/// A folder's side of the LAN. Cheap to clone.
#[derive(Clone)]
pub struct LanFolder {
    pub(super) shared: Arc<Shared>,
}

/// The peers that sync the folder now, what they may do, and their sides.
type Peers = BTreeMap<DeviceId, (Arc<Link>, Role, Opened)>;

pub(super) struct Shared {
    pub namespace: NamespaceId,
    began: Instant,
    hub: Weak<Hub>,
    wake: Mutex<Option<Wake>>,
    opened: Mutex<Option<Opened>>,
    peers: Mutex<Peers>,
    /// Who has got which chunk from the relay, in the order of the announcements.
    got: Mutex<Got>,
    /// Something of the above changed.
    changed: Notify,
    /// The head of our feed: it has grown.
    grown: watch::Sender<u64>,
    pub warm: Warm,
    pub offers: Offers,
    /// Requests for chunks that are being answered.
    pub answering: AtomicUsize,
    /// Wakes that the control loop has not handled yet.
    queued: AtomicUsize,
}

#[derive(Default)]
struct Got {
    last: BTreeMap<DeviceId, Instant>,
    holders: BTreeMap<ChunkId, DeviceId>,
    order: std::collections::VecDeque<ChunkId>,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is being answered; over when this is dropped.
pub(super) struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LanFolder {
    pub(super) fn begin_answer(&self) -> Answering {
        self.shared.answering.fetch_add(1, Ordering::AcqRel);
        Answering(self.shared.clone())
    }

    /// The side of a folder; registered with the hub as long as it exists.
    pub(super) fn new(namespace: NamespaceId, hub: Weak<Hub>) -> Self {
        let shared = Shared {
            namespace,
            began: Instant::now(),
            hub,
            wake: Mutex::default(),
            opened: Mutex::default(),
            peers: Mutex::default(),
            got: Mutex::default(),
            changed: Notify::new(),
            grown: watch::Sender::new(0),
            warm: Warm::default(),
            offers: Offers::default(),
            answering: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A side without a LAN: for a folder alone.
    pub fn none(namespace: NamespaceId) -> Self {
        Self::new(namespace, Weak::new())
    }

    /// Who is told and asked from now on.
    pub fn attach(&self, wake: impl Fn(PeerWake) + Send + Sync + 'static) {
        let mut attached = whole(&self.shared.wake);
        self.shared.queued.store(0, Ordering::Release);
        *attached = Some(Box::new(wake));
    }

    /// Tells the peers that the folder is synced here, or no longer.
    pub fn set_opened(&self, opened: Option<Opened>) {
        let before = std::mem::replace(&mut *whole(&self.shared.opened), opened);
        if before != opened
            && let Some(hub) = self.shared.hub.upgrade()
        {
            hub.folders_changed();
        }
    }

    pub(super) fn opened(&self) -> Option<Opened> {
        *whole(&self.shared.opened)
    }

    /// Our feed has grown to this number.
    pub fn grown(&self, seq: u64) {
        self.shared.grown.send_if_modified(|known| std::mem::replace(known, seq) != seq);
    }

    pub(super) fn growth(&self) -> watch::Receiver<u64> {
        self.shared.grown.subscribe()
    }

    /// The peers that sync this folder now.
    pub fn peers(&self) -> Vec<Arc<Link>> {
        whole(&self.shared.peers).values().map(|(link, _, _)| link.clone()).collect()
    }

    /// Whether a device nearby is being given chunks now.
    pub fn is_answering(&self) -> bool {
        self.shared.answering.load(Ordering::Acquire) > 0
    }

    /// The peers that may be asked for chunks.
    pub fn sources(&self) -> Vec<Arc<Link>> {
        self.peers().into_iter().filter(|link| link.is_trusted()).collect()
    }

    /// The peers that reach a relay themselves.
    pub fn relayed(&self) -> Vec<DeviceId> {
        let peers = whole(&self.shared.peers);
        peers.iter().filter(|(_, (link, _, folder))| folder.relays && link.is_trusted()).map(|(device, _)| *device).collect()
    }

    /// The peer that has announced a chunk, if it is still there.
    pub fn holder(&self, chunk: &ChunkId) -> Option<Arc<Link>> {
        let device = *whole(&self.shared.got).holders.get(chunk)?;
        whole(&self.shared.peers).get(&device).map(|(link, _, _)| link.clone()).filter(|link| link.is_trusted())
    }

    /// When a peer last announced anything; long ago if never.
    pub fn last_news(&self, device: DeviceId) -> Instant {
        whole(&self.shared.got).last.get(&device).copied().unwrap_or(self.shared.began)
    }

    /// These were announced and could not be had.
    pub fn disbelieve<'c>(&self, chunks: impl Iterator<Item = &'c ChunkId>) {
        let mut got = whole(&self.shared.got);
        for chunk in chunks {
            got.holders.remove(chunk);
        }
    }

    /// Keeps a chunk for a while, to be given on.
    pub fn keep_warm(&self, chunk: &VerifiedChunk<Bytes>) {
        self.shared.warm.keep(chunk.clone());
    }

    /// This device.
    pub fn own(&self) -> DeviceId {
        self.shared.hub.upgrade().map(|hub| hub.own()).unwrap_or_default()
    }

    /// What this device's user may do in the folder, if a grant says so.
    pub fn own_role(&self) -> Option<Role> {
        self.shared.hub.upgrade().and_then(|hub| hub.own_role(self.shared.namespace))
    }

    /// Waits for news of what peers have.
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared.changed.notified()
    }

    /// Asks a peer for its feed.
    pub fn subscribe(&self, link: &Link, cursor: Option<FeedCursor>) {
        link.send(Message::Subscribe { namespace: self.shared.namespace, cursor });
    }

    /// Tells the peers of contents that this device has got whole.
    pub fn tell_have(&self, contents: &[ContentHash]) {
        for part in contents.chunks(LAN_HAVES_MAX) {
            self.tell(&Message::Have { namespace: self.shared.namespace, contents: part.to_vec() });
        }
    }

    /// Tells the peers of chunks that came from the relay.
    pub fn tell_got(&self, chunks: Vec<ChunkId>) {
        self.tell(&Message::Got { namespace: self.shared.namespace, chunks });
    }

    pub(super) fn tell(&self, message: &Message) {
        for link in self.peers() {
            link.send(message.clone());
        }
    }

    pub(super) fn wake(&self, wake: PeerWake) {
        if let Some(tell) = &*whole(&self.shared.wake) {
            self.shared.queued.fetch_add(1, Ordering::AcqRel);
            tell(wake);
        }
    }

    /// Where chunks stand on this disk, in the order of the question; nothing while the folder is not open. The control loop looks for some at a
    /// time, so that a long question does not hold up its other work.
    pub async fn places(&self, ids: Vec<ChunkId>) -> Option<(Arc<Root>, Vec<Option<ChunkPlace>>)> {
        let (mut root, mut places) = (None, Vec::with_capacity(ids.len()));
        for ids in ids.chunks(PLACES_MAX) {
            let (reply, found) = oneshot::channel();
            self.wake(PeerWake::AskPlaces { ids: ids.to_vec(), reply });
            let (of, found) = found.await.ok()?;
            root = Some(of);
            places.extend(found);
        }
        Some((root?, places))
    }

    /// The control loop has handled a wake.
    pub fn note_handled(&self) {
        let less = |queued: usize| Some(queued.saturating_sub(1));
        // The closure always answers.
        let _ = self.shared.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    pub(super) fn is_behind(&self) -> bool {
        self.shared.queued.load(Ordering::Acquire) > QUEUED_MAX
    }

    pub(super) fn peer_opened(&self, link: &Arc<Link>, role: Role, folder: Opened) {
        {
            // Told under the lock: the loop hears of peers in the order in which they come and go.
            let mut peers = whole(&self.shared.peers);
            peers.insert(link.device, (link.clone(), role, folder));
            self.wake(PeerWake::Opened { link: link.clone(), role, folder });
        }
        self.shared.changed.notify_waiters();
    }

    pub(super) fn peer_closed(&self, link: &Arc<Link>) {
        {
            let mut peers = whole(&self.shared.peers);
            if !peers.get(&link.device).is_some_and(|(known, _, _)| Arc::ptr_eq(known, link)) {
                return;
            }
            peers.remove(&link.device);
            self.wake(PeerWake::Closed { device: link.device });
            if peers.is_empty() {
                self.shared.warm.clear();
            }
        }
        whole(&self.shared.got).last.remove(&link.device);
        self.shared.changed.notify_waiters();
    }

    pub(super) fn peer_relays(&self, device: DeviceId, relays: bool) {
        if let Some((_, _, folder)) = whole(&self.shared.peers).get_mut(&device) {
            folder.relays = relays;
        }
        self.wake(PeerWake::Relays { device, relays });
        self.shared.changed.notify_waiters();
    }

    pub(super) fn peer_has(&self) {
        self.wake(PeerWake::Have);
        self.shared.changed.notify_waiters();
    }

    pub(super) fn peer_got(&self, device: DeviceId, chunks: Vec<ChunkId>) {
        let mut got = whole(&self.shared.got);
        got.last.insert(device, Instant::now());
        for chunk in chunks {
            if got.holders.insert(chunk, device).is_none() {
                got.order.push_back(chunk);
            }
        }
        while got.order.len() > GOT_MAX {
            if let Some(oldest) = got.order.pop_front() {
                got.holders.remove(&oldest);
            }
        }
        drop(got);
        self.shared.changed.notify_waiters();
    }
}
