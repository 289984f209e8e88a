//! The middle of the LAN: which connections there are, what the grants allow, and which folder each message is for.
//!
//! * **H1** At most one connection for each device: of two that were begun at once from both sides, the one that the device with the smaller id
//!   began stays; of two that one side began, that side chooses, and the other waits a moment to see which.
//! * **H3** What a session decides is carried out in that order, and nothing of a connection after its end.
//! * **H2** Locks are taken in the order book, session, the rest; none is held while a folder or the network is waited for.

use super::dial::Targets;
use super::folder::{LanFolder, PeerWake};
use super::link::{self, Begun, Link};
use super::{serve, tls};
use crate::folder::{Bandwidth, Counters};
use crate::identity::{GrantKey, Identity};
use ferry_protocol::grant::SignedGrant;
use ferry_protocol::lan::message::FeedCursor;
use ferry_protocol::lan::session::Opened;
use ferry_protocol::lan::{ChunkAsk, GrantBook, Message, Offered, Output, PeerPage};
use ferry_protocol::wire::Role;
use ferry_protocol::{Author, DeviceId, NamespaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// Connections with devices that are not known to be ours yet, at once (I14).
const STRANGERS_MAX: usize = 32;
/// Connections at all.
const LINKS_MAX: usize = 512;

/// How long the side that began two connections has to close one of them.
const CHOICE_MAX: Duration = Duration::from_millis(300);

/// Two connections that were begun within this time were begun at once.
const TWINS_WITHIN: Duration = Duration::from_secs(4);

/// From this difference on, in milliseconds, a clock is wrong for grants.
const CLOCK_DIFFERS_MS: u64 = 60_000;

/// How long this machine has been up, its sleep included, in milliseconds.
fn up_ms() -> i64 {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    up.tv_sec.saturating_mul(1000).saturating_add(up.tv_nsec / 1_000_000)
}

/// Keeps the grants: durable when it returns.
pub type KeepGrants = Box<dyn Fn(Vec<SignedGrant>) + Send + Sync>;

/// The middle of the LAN.
pub struct Hub {
    own: DeviceId,
    author: watch::Receiver<Author>,
    /// Bytes on the wire.
    pub counters: Arc<Counters>,
    /// How many of them there may be.
    pub(super) limits: Arc<Bandwidth>,
    book: Mutex<GrantBook>,
    keep: KeepGrants,
    keeping: Mutex<()>,
    folders: Mutex<BTreeMap<NamespaceId, LanFolder>>,
    links: Mutex<Vec<Arc<Link>>>,
    /// Where devices may be found.
    pub targets: Targets,
    /// The connections, the targets or the grants changed.
    pub changed: Notify,
    /// The relay's clock, and for how long this machine had been up then, both in milliseconds.
    relay_time: Mutex<Option<(i64, i64)>>,
    me: Weak<Hub>,
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What checks signatures by the relay's key; without a key nothing is good (I13).
pub fn verifier(key: Option<GrantKey>) -> ferry_protocol::lan::book::Verify {
    Box::new(move |message, signature| key.as_ref().is_some_and(|key| key.verify(message, signature)))
}

impl Hub {
    /// A hub that knows no grants yet.
    pub fn new(
        identity: &Identity,
        author: watch::Receiver<Author>,
        counters: Arc<Counters>,
        limits: Arc<Bandwidth>,
        keep: KeepGrants,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            own: identity.device_id(),
            author,
            counters,
            limits,
            book: Mutex::new(GrantBook::new(verifier(None))),
            keep,
            keeping: Mutex::default(),
            folders: Mutex::default(),
            links: Mutex::default(),
            targets: Targets::default(),
            changed: Notify::new(),
            relay_time: Mutex::default(),
            me: me.clone(),
        })
    }

    /// This device.
    pub fn own(&self) -> DeviceId {
        self.own
    }

    /// This device's name.
    pub fn name(&self) -> String {
        self.author.borrow().name.to_string()
    }

    /// The grants.
    pub fn book(&self) -> MutexGuard<'_, GrantBook> {
        whole(&self.book)
    }

    /// Another login: only grants that its relay has signed count from now on.
    pub fn set_key(&self, key: Option<GrantKey>, grants: &[SignedGrant]) {
        let mut book = GrantBook::new(verifier(key));
        for grant in grants {
            book.offer(self.own, grant);
        }
        *self.book() = book;
        self.grants_changed();
    }

    /// Takes grants from the relay. Namespaces that it no longer names have ended for this device. Whether anything was new.
    pub fn take_grants(&self, grants: &[SignedGrant]) -> bool {
        let mut learned = false;
        {
            let mut book = self.book();
            let mut named = Vec::new();
            for grant in grants {
                match book.offer(self.own, grant) {
                    Offered::Learned(namespace) => {
                        learned = true;
                        named.push(namespace);
                    }
                    Offered::Known(namespace) => named.push(namespace),
                    Offered::Refused => tracing::warn!("the relay gave a grant that its own key did not sign; it is not used"),
                }
            }
            let gone: Vec<NamespaceId> = book.epochs().into_keys().filter(|n| !named.contains(n)).collect();
            for namespace in gone {
                learned = true;
                book.forget(namespace);
            }
        }
        if learned {
            self.grants_changed();
        }
        learned
    }

    fn grants_changed(&self) {
        {
            // What is kept is never older than what was kept before.
            let _order = whole(&self.keeping);
            let grants = self.book().all().map(|(signed, _)| signed.clone()).collect();
            (self.keep)(grants);
        }
        self.targets.forgive();
        for link in self.links() {
            self.advance(&link);
        }
        self.changed.notify_waiters();
    }

    /// The relay's clock as this device knows it, in milliseconds since 1970: for the expiry of grants only. Once the relay has told its time, setting
    /// this machine's clock changes nothing; before that it is this machine's clock, and one that is wrong by days has every grant expired, or none.
    pub fn now_ms(&self) -> i64 {
        match *whole(&self.relay_time) {
            Some((relay_ms, up_ms)) => relay_ms.saturating_add(self::up_ms() - up_ms),
            None => jiff::Timestamp::now().as_millisecond(),
        }
    }

    /// The relay says what time it is.
    pub fn set_time(&self, relay_ms: i64) {
        let before_ms = self.now_ms();
        *whole(&self.relay_time) = Some((relay_ms, up_ms()));
        if before_ms.abs_diff(relay_ms) >= CLOCK_DIFFERS_MS {
            tracing::warn!(
                by_ms = relay_ms.saturating_sub(before_ms),
                "this machine's clock is not the relay's; grants end by the relay's"
            );
            for link in self.links() {
                self.advance(&link);
            }
            self.changed.notify_waiters();
        }
    }

    /// What this device's user may do in a namespace, if a live grant says so.
    pub fn own_role(&self, namespace: NamespaceId) -> Option<Role> {
        self.book().role(namespace, self.own, self.now_ms())
    }

    /// All connections.
    pub fn links(&self) -> Vec<Arc<Link>> {
        whole(&self.links).clone()
    }

    /// The connection with a device, if it is one of ours.
    pub fn link(&self, device: DeviceId) -> Option<Arc<Link>> {
        whole(&self.links).iter().find(|l| l.device == device && l.is_greeted()).cloned()
    }

    /// A folder's side of the LAN.
    pub fn folder(&self, namespace: NamespaceId) -> LanFolder {
        whole(&self.folders).entry(namespace).or_insert_with(|| LanFolder::new(namespace, self.me.clone())).clone()
    }

    /// A folder was removed.
    pub fn drop_folder(&self, namespace: NamespaceId) {
        whole(&self.folders).remove(&namespace);
        self.folders_changed();
    }

    /// Whether a folder has more to do for peers than it should.
    pub(super) fn is_behind(&self) -> bool {
        whole(&self.folders).values().any(LanFolder::is_behind)
    }

    fn find(&self, namespace: NamespaceId) -> Option<LanFolder> {
        whole(&self.folders).get(&namespace).cloned()
    }

    fn open_folders(&self) -> BTreeMap<NamespaceId, Opened> {
        whole(&self.folders).iter().filter_map(|(namespace, folder)| Some((*namespace, folder.opened()?))).collect()
    }

    /// What is synced here has changed: every session says so.
    pub fn folders_changed(&self) {
        for link in self.links() {
            self.begin(&link);
        }
    }

    /// Takes a connection whose handshake has ended.
    pub async fn connected(&self, connection: quinn::Connection, begun: Begun) {
        let Some(device) = tls::device_of(&connection).filter(|device| *device != self.own) else {
            return connection.close(0u32.into(), b"");
        };
        // Of two that one side began, or of an old one and a new one, the side that began the new one knows whether it is wanted.
        let chosen_there = |l: &Link| l.begun == begun || (begun == Begun::There && l.began.elapsed() >= TWINS_WITHIN);
        let is_alive = |l: &Link| l.device == device && l.connection.close_reason().is_none();
        let has_another = whole(&self.links).iter().any(|l| is_alive(l) && chosen_there(l));
        match begun {
            // Found twice, by two ways: one will do.
            Begun::Here if has_another => return connection.close(link::CLOSE_TWICE.into(), b""),
            Begun::There if has_another => tokio::time::sleep(CHOICE_MAX).await,
            _ => {}
        }
        if connection.close_reason().is_none() {
            self.admit(connection, device, begun);
        }
    }

    fn admit(&self, connection: quinn::Connection, device: DeviceId, begun: Begun) {
        let Some(me) = self.me.upgrade() else { return };
        let is_known = !self.book().shared(self.own, device, self.now_ms()).is_empty();
        let (link, outbox) = Link::new(self, device, begun, is_known, connection);
        {
            let mut links = whole(&self.links);
            links.retain(|l| l.connection.close_reason().is_none());
            let preferred = if self.own < device { Begun::Here } else { Begun::There };
            // An older one of the same origin is dead without knowing it, or its owner would not have begun another (H1).
            if let Some(older) = links.iter().position(|l| l.device == device) {
                // One that has been there for a while is dead if its other side begins anew, and alive if we would.
                let at_once = links[older].began.elapsed() < TWINS_WITHIN;
                let refuses = if at_once { begun != preferred } else { begun == Begun::Here };
                if links[older].begun != begun && refuses {
                    drop(links);
                    return link.close_as_twin();
                }
                links.remove(older).close_as_twin();
            }
            let strangers = links.iter().filter(|l| !l.is_greeted() && !l.is_known).count();
            if links.len() >= LINKS_MAX || (strangers >= STRANGERS_MAX && !link.is_known) {
                drop(links);
                return link.close_normally();
            }
            links.push(link.clone());
        }
        tokio::spawn(link::run(me, link, outbox));
    }

    pub(super) fn begin(&self, link: &Arc<Link>) {
        {
            let book = self.book();
            let mut session = link.session();
            // Asked for under the lock: of two callers the later one knows more.
            session.set_folders(&book, self.now_ms(), self.open_folders());
            link.queue(session.take());
        }
        self.carry_out(link);
    }

    /// The grants changed, or time went on.
    pub(super) fn advance(&self, link: &Arc<Link>) {
        {
            let book = self.book();
            let mut session = link.session();
            session.advance(&book, self.now_ms());
            link.queue(session.take());
        }
        self.carry_out(link);
    }

    pub(super) fn heard(&self, link: &Arc<Link>, message: Message) {
        {
            let mut book = self.book();
            let mut session = link.session();
            session.handle(&mut book, self.now_ms(), message);
            link.queue(session.take());
        }
        self.carry_out(link);
    }

    /// Hands on a page of a peer's feed, if it may be heard. `done` is told when it is taken in.
    pub(super) fn heard_page(&self, link: &Arc<Link>, namespace: NamespaceId, page: PeerPage, done: oneshot::Sender<FeedCursor>) -> bool {
        let may = {
            let book = self.book();
            link.session().may_hear(&book, self.now_ms(), namespace)
        };
        match self.find(namespace).filter(|_| may) {
            Some(folder) => {
                folder.wake(PeerWake::Page { device: link.device, since: page.since, page: Box::new(page.page), done });
                true
            }
            None => false,
        }
    }

    /// The folder that may answer a request for chunks.
    pub(super) fn answering(&self, link: &Link, ask: &ChunkAsk) -> Option<LanFolder> {
        let may = {
            let book = self.book();
            link.session().may_answer(&book, self.now_ms(), ask)
        };
        self.find(ask.namespace).filter(|_| may)
    }

    /// Carries out what the session has decided, in that order: by one thread at a time, whoever queued it (H3).
    fn carry_out(&self, link: &Arc<Link>) {
        while link.has_queued() {
            let Some(_turn) = link.turn() else { return };
            while let Some(output) = link.queued() {
                self.carry_out_one(link, output);
            }
        }
    }

    fn carry_out_one(&self, link: &Arc<Link>, output: Output) {
        let folder = |namespace: NamespaceId| self.find(namespace);
        match output {
            Output::Send(message) => link.send(message),
            Output::Greeted { name } => {
                tracing::info!(peer = %link.device, name = %ferry_protocol::name::display_bytes(name.as_bytes()), address = %link.connection.remote_address(), "a device nearby is connected");
                link.greet(name);
                self.targets.met(link.device, link.connection.remote_address());
                self.changed.notify_waiters();
            }
            Output::Learned(_) => self.grants_changed(),
            Output::Opened { namespace, role, folder: theirs } => {
                let mut folders = link.folders();
                if link.has_ended() {
                    return;
                }
                folders.insert(namespace, (role, theirs));
                if let Some(folder) = folder(namespace) {
                    folder.peer_opened(link, role, theirs);
                }
            }
            Output::Closed { namespace } => {
                let mut folders = link.folders();
                folders.remove(&namespace);
                if let Some(folder) = folder(namespace) {
                    folder.peer_closed(link);
                }
            }
            Output::Relays { namespace, relays } => {
                if let Some(folder) = folder(namespace) {
                    folder.peer_relays(link.device, relays);
                }
            }
            Output::Subscribed { namespace, cursor } => {
                if let (Some(folder), Some(hub)) = (folder(namespace), self.me.upgrade()) {
                    serve::start_feed(hub, link.clone(), folder, cursor);
                }
            }
            Output::Heard { namespace, cursor } => {
                if let Some(folder) = folder(namespace) {
                    folder.wake(PeerWake::Heard { device: link.device, cursor });
                }
            }
            Output::Have { namespace, .. } => {
                if let Some(folder) = folder(namespace) {
                    folder.peer_has();
                }
            }
            Output::Got { namespace, chunks } => {
                if let Some(folder) = folder(namespace) {
                    folder.peer_got(link.device, chunks);
                }
            }
            Output::Offered { namespace, file, pieces } => {
                if let Some(folder) = folder(namespace) {
                    folder.wake(PeerWake::Offered { link: link.clone(), file, pieces });
                }
            }
            Output::OfferEnded { namespace, file, .. } => {
                if let Some(folder) = folder(namespace) {
                    folder.wake(PeerWake::OfferEnded { device: link.device, file });
                }
            }
            Output::End(end) => {
                tracing::info!(peer = %link.device, %end, "a connection ends");
                self.refused(link, &end.to_string());
                link.close(end.code());
            }
        }
    }

    /// A connection led to nothing.
    pub(super) fn refused(&self, link: &Link, why: &str) {
        self.targets.refused(link.device, link.connection.remote_address(), why);
    }

    /// Whether a namespace is still shared with the peer: asked while a feed is served.
    pub(super) fn still_shares(&self, link: &Link, namespace: NamespaceId) -> bool {
        link.folders().contains_key(&namespace) && self.book().shared(self.own, link.device, self.now_ms()).contains(&namespace)
    }

    pub(super) fn ended(&self, link: &Arc<Link>) {
        whole(&self.links).retain(|l| !Arc::ptr_eq(l, link));
        {
            let mut folders = link.folders();
            link.end();
            for folder in std::mem::take(&mut *folders).into_keys().filter_map(|n| self.find(n)) {
                folder.peer_closed(link);
            }
        }
        if let (false, Some(quinn::ConnectionError::ApplicationClosed(close))) = (link.is_greeted(), link.connection.close_reason())
            && (1..=3).contains(&close.error_code.into_inner())
        {
            self.refused(link, "it does not share a folder with this device, or is of another version");
        }
        if link.is_greeted() {
            let why = link.connection.close_reason().map(|e| e.to_string()).unwrap_or_default();
            tracing::info!(peer = %link.device, why, "a device nearby is gone");
            self.targets.lost(link.device);
        }
        self.changed.notify_waiters();
    }

    /// Ends all connections.
    pub fn close_all(&self) {
        for link in self.links() {
            link.close_normally();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::grant::{Grant, Member};
    use ferry_protocol::{UserId, wire};

    /// A clock that is wrong by a year neither ends a grant nor keeps one alive once the relay has told its time.
    #[test]
    fn grants_end_by_the_relays_clock() {
        const HOUR_MS: i64 = 3_600_000;
        let (dir, namespace) = (tempfile::tempdir().unwrap(), NamespaceId::from_bytes([7; 16]));
        let identity = Identity::load_or_create(&dir.path().join("key")).unwrap();
        let member = Member { device: identity.device_id(), user: UserId::default(), role: Role::Editor, name: "A".into() };
        let there_ms = jiff::Timestamp::now().as_millisecond() - 365 * 24 * HOUR_MS;
        let grant = Grant { namespace, epoch: 1, issued_ms: there_ms, expires_ms: there_ms + HOUR_MS, members: vec![member] };
        let key = libp2p_identity::ed25519::Keypair::generate();
        let body = wire::encode(&grant);
        let signature = key.sign(&SignedGrant::signed_bytes(&body));
        let key: GrantKey = hex::encode(key.public().to_bytes()).parse().unwrap();
        let author = Author { device: identity.device_id(), name: "A".into() };
        let hub = Hub::new(&identity, watch::channel(author).1, Arc::default(), Arc::default(), Box::new(|_| {}));
        hub.set_key(Some(key), &[SignedGrant { body, signature }]);
        assert_eq!(hub.own_role(namespace), None, "by this clock it ended a year ago");
        hub.set_time(there_ms);
        assert_eq!(hub.own_role(namespace), Some(Role::Editor));
        hub.set_time(there_ms + 2 * HOUR_MS);
        assert_eq!(hub.own_role(namespace), None);
    }
}
