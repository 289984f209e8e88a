//! One connection with another device: its streams, and the session that decides what they may carry.

use super::body::{Bodies, PIECE_MAX, RESERVE_MAX_BYTES};
use super::hub::Hub;
use super::serve;
use crate::folder::{Bandwidth, Counters};
use bytes::Bytes;
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::session::Opened;
use ferry_protocol::lan::{Message, Output, PeerPage, Session};
use ferry_protocol::wire::Role;
use ferry_protocol::{DeviceId, NamespaceId};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// How long the two sides have to find out that they know each other.
const GREET_MAX: Duration = Duration::from_secs(5);
/// Messages that may wait to be sent; a peer that reads more slowly than that is dropped, and resumes.
const MESSAGES_MAX: usize = 4096;
/// Over how long rates are measured, and after how many of these the session is told that time goes on: a grant may have expired.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
const ADVANCE_LOOKS: u32 = 3;
/// Feeds of ours that one peer may have asked for at once, those included that a later question replaces.
const FEEDS_MAX: usize = 2048;
/// Wrong chunks after which a peer is not asked for any more, as long as it is connected.
const FAULTS_MAX: u32 = 3;
/// How long a peer waits for a folder that is behind before it is looked at again.
const BEHIND_WAIT: Duration = Duration::from_millis(5);
/// Close codes beside those of the session.
const CLOSE_NORMAL: u32 = 0;
pub(super) const CLOSE_TWICE: u32 = 10;
const CLOSE_LATE: u32 = 11;

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// By this device.
    Here,
    /// By the other.
    There,
}

/// A connection.
pub struct Link {
    /// Whom it leads to.
    pub device: DeviceId,
    /// Who began it.
    pub begun: Begun,
    /// When it was taken in.
    pub(super) began: Instant,
    /// Whether a grant listed the device when it connected.
    pub(super) is_known: bool,
    /// QUIC's side of it.
    pub connection: Connection,
    name: Mutex<String>,
    session: Mutex<Session>,
    /// What the session has decided and is not carried out yet; and whose turn it is to do that.
    decided: Mutex<VecDeque<Output>>,
    turn: Mutex<()>,
    has_ended: AtomicBool,
    messages: mpsc::Sender<Message>,
    folders: Mutex<BTreeMap<NamespaceId, (Role, Opened)>>,
    /// The number of the newest subscription to each of our feeds.
    feeds: Mutex<BTreeMap<NamespaceId, u64>>,
    /// There is a newer subscription.
    feed_news: Notify,
    greeted: AtomicBool,
    faults: AtomicU32,
    /// Bytes of bodies and chunks received from and sent to this peer.
    pub in_bytes: AtomicU64,
    /// See [`Link::in_bytes`].
    pub out_bytes: AtomicU64,
    /// The last look at the two counts, and how fast they grew before it.
    meter: Mutex<Meter>,
    counters: Arc<Counters>,
    limits: Arc<Bandwidth>,
    /// Bytes of bodies that are not whole yet.
    pub(super) begun_bytes: Arc<AtomicUsize>,
    feed_slots: Arc<Semaphore>,
}

struct Meter {
    at: Instant,
    bytes: [u64; 2],
    per_s: [u64; 2],
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// A connection whose handshake has ended, and the messages that its writer is to send.
    pub(super) fn new(
        hub: &Hub,
        device: DeviceId,
        begun: Begun,
        is_known: bool,
        connection: Connection,
    ) -> (Arc<Self>, mpsc::Receiver<Message>) {
        let (messages, outbox) = mpsc::channel(MESSAGES_MAX);
        let session = Session::new(hub.own(), &hub.name(), device);
        let link = Self {
            device,
            begun,
            began: Instant::now(),
            is_known,
            connection,
            name: Mutex::default(),
            session: Mutex::new(session),
            decided: Mutex::default(),
            turn: Mutex::default(),
            has_ended: AtomicBool::new(false),
            messages,
            folders: Mutex::default(),
            feeds: Mutex::default(),
            feed_news: Notify::new(),
            greeted: AtomicBool::new(false),
            faults: AtomicU32::new(0),
            in_bytes: AtomicU64::new(0),
            out_bytes: AtomicU64::new(0),
            meter: Mutex::new(Meter { at: Instant::now(), bytes: [0; 2], per_s: [0; 2] }),
            counters: hub.counters.clone(),
            limits: hub.limits.clone(),
            begun_bytes: Arc::default(),
            feed_slots: Arc::new(Semaphore::new(FEEDS_MAX)),
        };
        (Arc::new(link), outbox)
    }

    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        whole(&self.session)
    }

    /// Queues what the session decided; called while the session is held.
    pub(super) fn queue(&self, outputs: Vec<Output>) {
        whole(&self.decided).extend(outputs);
    }

    pub(super) fn has_queued(&self) -> bool {
        !whole(&self.decided).is_empty()
    }

    pub(super) fn queued(&self) -> Option<Output> {
        whole(&self.decided).pop_front()
    }

    /// The turn to carry out, unless somebody has it: then he does it.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(std::sync::TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Nothing is opened any more; called while the folders are held.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// The namespaces that both sync now, what the peer may do there, and its side.
    pub(super) fn folders(&self) -> MutexGuard<'_, BTreeMap<NamespaceId, (Role, Opened)>> {
        whole(&self.folders)
    }

    /// A new subscription to our feed: earlier ones end.
    pub(super) fn next_feed(&self, namespace: NamespaceId) -> u64 {
        let mut feeds = whole(&self.feeds);
        let number = feeds.entry(namespace).or_default();
        *number += 1;
        self.feed_news.notify_waiters();
        *number
    }

    /// A place for one more task that serves a feed; a peer that asks for too many is let go.
    pub(super) fn feed_slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = self.feed_slots.clone().try_acquire_owned().ok();
        if slot.is_none() {
            self.close(ferry_protocol::lan::End::Broken.code());
        }
        slot
    }

    /// Whether a subscription is the newest.
    pub(super) fn is_feed(&self, namespace: NamespaceId, number: u64) -> bool {
        whole(&self.feeds).get(&namespace) == Some(&number)
    }

    /// Returns when a subscription is no longer the newest.
    pub(super) async fn feed_superseded(&self, namespace: NamespaceId, number: u64) {
        loop {
            let mut news = std::pin::pin!(self.feed_news.notified());
            // From here on nothing is missed.
            news.as_mut().enable();
            if !self.is_feed(namespace, number) {
                return;
            }
            news.await;
        }
    }

    /// The peer's name, as it says; empty before it has said it.
    pub fn name(&self) -> String {
        whole(&self.name).clone()
    }

    pub(super) fn greet(&self, name: String) {
        *whole(&self.name) = name;
        self.greeted.store(true, Ordering::Relaxed);
        self.connection.set_receive_window(VarInt::from_u32(super::endpoint::WINDOW_BYTES));
    }

    /// Whether it is known to be one of ours.
    pub fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// Puts a message into the queue. A peer that does not read for so long that the queue is full is dropped.
    pub(super) fn send(&self, message: Message) {
        if self.messages.try_send(message).is_err() {
            self.close(CLOSE_LATE);
        }
    }

    pub(super) fn close(&self, code: u32) {
        self.connection.close(VarInt::from_u32(code), b"");
    }

    pub(super) fn close_normally(&self) {
        self.close(CLOSE_NORMAL);
    }

    pub(super) fn close_as_twin(&self) {
        self.close(CLOSE_TWICE);
    }

    /// The peer sent something that is not what it should be.
    pub fn blame(&self) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(peer = %self.device, faults, "a peer sent bytes that are not the chunk that was asked for");
    }

    /// Whether it is asked for chunks at all.
    pub fn is_trusted(&self) -> bool {
        self.faults.load(Ordering::Relaxed) < FAULTS_MAX && self.connection.close_reason().is_none()
    }

    /// Bytes per second received and sent lately.
    pub fn rates(&self) -> [u64; 2] {
        whole(&self.meter).per_s
    }

    fn measure(&self) {
        let now = [&self.in_bytes, &self.out_bytes].map(|bytes| bytes.load(Ordering::Relaxed));
        let mut meter = whole(&self.meter);
        let seconds = meter.at.elapsed().as_secs_f64().max(0.001);
        meter.per_s = [0, 1].map(|i| (now[i].saturating_sub(meter.bytes[i]) as f64 / seconds) as u64);
        (meter.at, meter.bytes) = (Instant::now(), now);
    }

    pub(super) fn count_in(&self, bytes: usize) {
        self.in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.lan_in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_out(&self, bytes: usize) {
        self.out_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.lan_out_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What is sent of a large piece at once, in bytes: a peer that reads, however slowly, is told from one that does not by each of them.
const SLICE_BYTES: usize = 256 << 10;
/// The same under a limit: others that wait for their part of it wait no longer than this takes.
const SLICE_LIMITED_BYTES: usize = 16 << 10;
/// How long a write may stand still: a peer that reads nothing is let go.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);

/// A piece could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("the peer took nothing more: {0}")]
pub(super) struct NotSent(String);

impl Link {
    /// Sends chunks and pages, as fast as the limit allows.
    pub(super) async fn send_bytes(&self, stream: &mut SendStream, bytes: Bytes) -> Result<(), NotSent> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = if self.limits.lan_out.rate().is_some() { SLICE_LIMITED_BYTES } else { SLICE_BYTES };
            let next = rest.split_to(slice.min(rest.len()));
            self.limits.lan_out.acquire(next.len()).await;
            self.count_out(next.len());
            match tokio::time::timeout(STALL_MAX, stream.write_chunk(next)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(NotSent(error.to_string())),
                Err(_) => return Err(NotSent("for too long".into())),
            }
        }
        Ok(())
    }

    /// Chunks or pages of so many bytes have come; returns when more may. What is not read yet the peer cannot send for ever.
    pub(super) async fn received(&self, bytes: usize) {
        self.limits.lan_in.acquire(bytes).await;
    }

    /// Whether this device itself limits what comes.
    pub fn is_limited(&self) -> bool {
        self.limits.lan_in.rate().is_some()
    }
}

/// Serves a connection until it ends.
pub(super) async fn run(hub: Arc<Hub>, link: Arc<Link>, outbox: mpsc::Receiver<Message>) {
    hub.begin(&link);
    let writer = tokio::spawn(write_messages(link.clone(), outbox));
    let serve = serve::accept(hub.clone(), link.clone());
    let read = accept_streams(hub.clone(), link.clone());
    let watch = watch(hub.clone(), link.clone());
    tokio::select! {
        () = serve => {}
        () = read => {}
        () = watch => {}
        _ = link.connection.closed() => {}
    }
    link.close_normally();
    writer.abort();
    hub.ended(&link);
}

/// Ends a connection that does not become one of ours; tells the session that time goes on.
async fn watch(hub: Arc<Hub>, link: Arc<Link>) {
    tokio::time::sleep(GREET_MAX).await;
    if !link.is_greeted() {
        hub.refused(&link, "it shares no folder with this device");
        link.close(ferry_protocol::lan::End::Stranger.code());
        return;
    }
    let mut looks: u32 = 0;
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        link.measure();
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(ADVANCE_LOOKS) {
            hub.advance(&link);
        }
    }
}

/// The control stream is opened with the first message: to a stranger there is none (L1).
async fn write_messages(link: Arc<Link>, mut outbox: mpsc::Receiver<Message>) {
    let mut stream: Option<SendStream> = None;
    while let Some(message) = outbox.recv().await {
        let mut bytes = Vec::new();
        let out = match &mut stream {
            Some(stream) => stream,
            None => {
                let Ok(opened) = link.connection.open_uni().await else { return };
                // Messages are small and others wait for them: before chunks.
                let _ = opened.set_priority(1);
                bytes.push(StreamKind::Control as u8);
                stream.insert(opened)
            }
        };
        bytes.extend(frame::frame(&message));
        while let Some(more) = (bytes.len() < RESERVE_MAX_BYTES).then(|| outbox.try_recv().ok()).flatten() {
            bytes.extend(frame::frame(&more));
        }
        link.count_out(bytes.len());
        if out.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn accept_streams(hub: Arc<Hub>, link: Arc<Link>) {
    let mut has_control = false;
    while let Ok(mut stream) = link.connection.accept_uni().await {
        let mut kind = [0];
        let read = tokio::time::timeout(PIECE_MAX, stream.read_exact(&mut kind)).await;
        match (matches!(read, Ok(Ok(()))).then(|| StreamKind::from_byte(kind[0])).flatten(), has_control) {
            (Some(StreamKind::Control), false) => {
                has_control = true;
                tokio::spawn(read_messages(hub.clone(), link.clone(), stream));
            }
            (Some(StreamKind::Feed), _) if link.is_greeted() => drop(tokio::spawn(read_feed(hub.clone(), link.clone(), stream))),
            _ => return link.close(ferry_protocol::lan::End::Broken.code()),
        }
    }
}

async fn read_messages(hub: Arc<Hub>, link: Arc<Link>, stream: RecvStream) {
    let mut bodies = Bodies::new(stream, StreamKind::Control);
    loop {
        match bodies.next::<Message>(&link, false).await {
            Ok(Some(message)) => {
                hub.heard(&link, message);
                // A folder that is behind is not told more: the peer waits (I14).
                while hub.is_behind() && link.connection.close_reason().is_none() {
                    tokio::time::sleep(BEHIND_WAIT).await;
                }
            }
            Ok(None) => return link.close_normally(),
            Err(error) => {
                tracing::debug!(peer = %link.device, %error, "a peer's control stream");
                return link.close(ferry_protocol::lan::End::Broken.code());
            }
        }
    }
}

/// A feed's pages, one after the other: the next is read when the folder has taken in the one before (back-pressure).
async fn read_feed(hub: Arc<Hub>, link: Arc<Link>, mut stream: RecvStream) {
    let mut namespace = [0; NamespaceId::LEN];
    let read = tokio::time::timeout(PIECE_MAX, stream.read_exact(&mut namespace)).await;
    if !matches!(read, Ok(Ok(()))) {
        return;
    }
    let namespace = NamespaceId::from_bytes(namespace);
    let mut bodies = Bodies::new(stream, StreamKind::Feed);
    loop {
        match bodies.next::<PeerPage>(&link, false).await {
            Ok(Some(page)) => {
                let (done, taken) = oneshot::channel();
                if !hub.heard_page(&link, namespace, page, done) {
                    return;
                }
                // The folder drops the sender when it does not take the page.
                let Ok(cursor) = taken.await else { return };
                link.received(bodies.take_came()).await;
                link.send(Message::Heard { namespace, cursor });
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(peer = %link.device, %error, "a peer's feed");
                return link.close(ferry_protocol::lan::End::Broken.code());
            }
        }
    }
}
