//! The folder and the devices nearby: hearing their feeds, answering for ours.
//!
//! * **LS1** Before a page of our feed leaves, the index is durable: what others have heard from us is never forgotten here (I8).
//! * **LS2** A feed is only heard of a device whose user may write (L3); the hub has checked it for each page.

use super::driver::{Driver, Wake};
use crate::index::Durability;
use crate::lan::{LanFolder, Link, PeerWake};
use ferry_engine::{HearError, TreeError};
use ferry_protocol::lan::message::FeedCursor;
use ferry_protocol::lan::session::Opened as PeerFolder;
use ferry_protocol::lan::{PeerPage, Piece};
use ferry_protocol::wire::{FeedPage, Role};
use ferry_protocol::{ContentHash, DeviceId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Nodes of one page of our feed.
const PAGE_NODES: usize = 2000;
/// A peer that takes nothing in, or tells nothing, for so long does not keep this folder from being up to date.
const LAG_MAX: Duration = Duration::from_secs(20);
/// How long the relay waits for devices nearby; and how long after one has heard of something it is given time to ask for it.
const FIRST_MAX: Duration = Duration::from_secs(5);
const FIRST_AFTER_NEWS: Duration = Duration::from_millis(500);
/// Two devices that find their relay within this time found it at once.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How often news of what peers have ends the pauses of what is blocked.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// How often one peer may make this device go on as a new replica.
const SET_BACK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What is under way with the devices nearby.
pub(super) struct LanSide {
    lan: LanFolder,
    peers: BTreeMap<DeviceId, PeerSide>,
    /// The newest number of our feed that is durable.
    durable_seq: u64,
    /// The newest number of our feed, and since when it is that.
    seq: u64,
    grown_at: Instant,
    /// Contents that came and are told once they are in place.
    came: Vec<ContentHash>,
    retried: Instant,
    /// Who has made this device go on as a new replica, and when.
    set_back: SetBack,
    /// Since when this device reaches its relay.
    relays_since: Option<Instant>,
    /// Since when the relay waits for the devices nearby; and when it may be let wait again.
    first: Option<(Instant, Instant)>,
}

/// Which peers made this device go on as a new replica. Whoever forges this device's numbers could do that again and again, and each time everything is
/// compared anew; a device that really was set back hears so once from each peer, and from the relay.
#[derive(Debug, Default)]
struct SetBack(BTreeMap<DeviceId, Instant>);

impl SetBack {
    /// Whether this peer is believed now; if so, not again for a day.
    fn believes(&mut self, device: DeviceId, now: Instant) -> bool {
        match self.0.get(&device) {
            Some(at) if now.duration_since(*at) < SET_BACK_EVERY => false,
            _ => {
                self.0.insert(device, now);
                true
            }
        }
    }
}

struct PeerSide {
    link: Arc<Link>,
    role: Role,
    folder: PeerFolder,
    /// Whether its feed has been read to the end.
    is_read: bool,
    /// When it was asked for its feed, or last sent some of it.
    told_us: Instant,
    /// How far it has taken in our feed, and since when.
    heard_us: Option<(FeedCursor, Instant)>,
    /// When it found its relay.
    relays_since: Option<Instant>,
}

impl LanSide {
    pub fn new(lan: LanFolder) -> Self {
        Self {
            lan,
            peers: BTreeMap::new(),
            durable_seq: 0,
            seq: 0,
            grown_at: Instant::now(),
            came: Vec::new(),
            retried: Instant::now(),
            set_back: SetBack::default(),
            relays_since: None,
            first: None,
        }
    }

    /// Whether a device nearby has something that is not known here, or does not know something that is, as far as can be told.
    pub fn is_busy(&self, seq: u64) -> bool {
        self.peers.values().any(|peer| {
            let reads = peer.role >= Role::Editor && !peer.is_read && peer.told_us.elapsed() < LAG_MAX;
            let tells = peer.heard_us.is_some_and(|((_, heard), at)| heard < seq && at.max(self.grown_at).elapsed() < LAG_MAX);
            reads || tells
        })
    }

    /// When the state may change although nothing happens: a peer that lags is given up.
    pub fn due(&self, seq: u64) -> Option<Instant> {
        let lags = self.peers.values().filter_map(|peer| peer.heard_us).filter(|((_, heard), _)| *heard < seq);
        let lags = lags.map(|(_, at)| at.max(self.grown_at));
        let silent = self.peers.values().filter(|peer| peer.role >= Role::Editor && !peer.is_read).map(|peer| peer.told_us);
        lags.chain(silent).map(|at| at + LAG_MAX).filter(|at| *at > Instant::now()).min()
    }

    /// Whether a large commit to the relay waits now because devices nearby are being given chunks: for a short while, then not again for a long
    /// one. The relay makes the content durable; that must not hang on a slow neighbour.
    pub fn goes_first(&mut self, now: Instant, seq: u64) -> bool {
        let waits = |((_, heard), at): (FeedCursor, Instant)| heard < seq || at.elapsed() < FIRST_AFTER_NEWS;
        if !self.lan.is_answering() && !self.peers.values().filter_map(|peer| peer.heard_us).any(waits) {
            return false;
        }
        match self.first {
            Some((since, _)) if now < since + FIRST_MAX => true,
            Some((_, again)) if now < again => false,
            _ => {
                self.first = Some((now, now + FIRST_MAX * 4));
                true
            }
        }
    }

    /// Contents are staged.
    pub fn note_came(&mut self, contents: impl Iterator<Item = ContentHash>) {
        if !self.peers.is_empty() {
            self.came.extend(contents);
        }
    }

    /// A batch was carried out: what came is in place.
    pub fn tell_came(&mut self) {
        if !self.came.is_empty() {
            self.lan.tell_have(&std::mem::take(&mut self.came));
        }
    }

    /// The folder was closed: another index may be opened.
    pub fn forget_durable(&mut self) {
        self.durable_seq = 0;
    }

    pub fn note_durable(&mut self, seq: u64) {
        self.durable_seq = seq;
    }
}

impl Driver {
    /// Lets the hub wake this loop.
    pub(super) fn attach_lan(&self) {
        let wakes = self.wakes.clone();
        self.deps.lan.attach(move |wake| drop(wakes.send(Wake::Lan(wake))));
    }

    /// Tells the devices nearby what is true now: that the folder is synced here, how far our feed goes.
    pub(super) fn tell_lan(&mut self) -> Result<(), TreeError> {
        let relays = self.relay.reachable && self.deps.relay.borrow().is_some();
        self.note_own_relay(relays);
        let own_role = self.deps.lan.own_role();
        let Some(state) = &mut self.state else {
            self.deps.lan.set_opened(None);
            return Ok(());
        };
        let may_write_before = state.engine.policy_mut().may_write;
        if let Some(role) = own_role {
            state.engine.policy_mut().may_write = role >= Role::Editor;
        }
        let may_write = state.engine.policy_mut().may_write;
        let meta = state.engine.meta();
        let run = state.engine.run();
        let opened = run.filter(|_| !self.paused && meta.heard);
        let opened = opened.map(|run| PeerFolder { replica: meta.replica, run, relays: relays && may_write });
        // A folder that has heard nobody yet listens, and has nothing to tell.
        let listens = run.filter(|_| !self.paused).map(|run| PeerFolder { replica: meta.replica, run, relays: false });
        self.deps.lan.set_opened(opened.or(listens));
        if self.lan.seq != meta.seq {
            (self.lan.seq, self.lan.grown_at) = (meta.seq, Instant::now());
        }
        // That it may be told at all is news too: whoever asked before waits for it, also if the feed is empty.
        self.deps.lan.grown(if meta.heard { state.engine.feed_head() + 1 } else { 0 });
        if may_write && !may_write_before {
            // What a viewer made here and kept beside is a change now.
            self.rescan_now();
        }
        Ok(())
    }

    pub(super) fn handle_lan(&mut self, wake: PeerWake) -> Result<(), TreeError> {
        match wake {
            PeerWake::Opened { link, role, folder } => self.peer_opened(link, role, folder)?,
            PeerWake::Closed { device } => {
                if let (Some(peer), Some(state)) = (self.lan.peers.remove(&device), &mut self.state) {
                    state.engine.drop_carrier(peer.folder.replica);
                }
            }
            PeerWake::Relays { device, relays } => self.peer_relays(device, relays)?,
            PeerWake::Page { device, since, page, done } => self.peer_page(device, since, &page, done)?,
            PeerWake::AskPage { cursor, reply } => self.give_page(cursor, reply)?,
            PeerWake::Heard { device, cursor } => {
                if let Some(peer) = self.lan.peers.get_mut(&device) {
                    peer.heard_us = Some((cursor, Instant::now()));
                }
            }
            PeerWake::AskPlaces { ids, reply } => {
                if let Some(state) = &self.state {
                    let places = state.engine.chunk_places(&ids)?;
                    // The peer may have gone.
                    let _ = reply.send((state.root.clone(), places));
                }
            }
            PeerWake::Stale(paths) => {
                if let Some(state) = &mut self.state {
                    state.engine.handle_hints(&paths)?;
                }
            }
            PeerWake::Offered { link, file, pieces } => self.offered(link, file, pieces)?,
            PeerWake::OfferEnded { device, file } => self.fetcher.prefetches.ended(device, file),
            PeerWake::Have => {
                if let Some(state) = self.state.as_mut().filter(|s| s.engine.blocked() > 0)
                    && self.lan.retried.elapsed() >= RETRY_EVERY
                {
                    self.lan.retried = Instant::now();
                    state.engine.retry_now();
                }
            }
        }
        Ok(())
    }

    /// A peer has found or lost its relay. If it has found it before us and has all that we have, it brings that there (P01): of two that find it at
    /// the same time the one with the smaller id does. Who found it well before hears this without giving anything away.
    fn peer_relays(&mut self, device: DeviceId, relays: bool) -> Result<(), TreeError> {
        let (Some(peer), Some(state)) = (self.lan.peers.get_mut(&device), &mut self.state) else { return Ok(()) };
        peer.folder.relays = relays;
        if !relays {
            state.engine.drop_carrier(peer.folder.replica);
            return Ok(());
        }
        peer.relays_since = Some(Instant::now());
        // A viewer brings nothing anywhere.
        let has_all = peer.role >= Role::Editor && peer.heard_us.is_some_and(|((_, heard), _)| heard == state.engine.meta().seq);
        let found_it_first = match self.lan.relays_since {
            None => true,
            Some(since) => since.elapsed() < AT_ONCE && device < self.deps.lan.own(),
        };
        if has_all && found_it_first {
            state.engine.carry_unsent(peer.folder.replica)?;
        }
        Ok(())
    }

    /// Takes note of whether this device reaches its relay. What peers that found it at the same time are to bring, the smaller id brings itself.
    fn note_own_relay(&mut self, relays: bool) {
        if relays == self.lan.relays_since.is_some() {
            return;
        }
        self.lan.relays_since = relays.then(Instant::now);
        let (own, Some(state)) = (self.deps.lan.own(), &mut self.state) else { return };
        let at_once = |peer: &&PeerSide| relays && own < peer.link.device && peer.relays_since.is_some_and(|at| at.elapsed() < AT_ONCE);
        for peer in self.lan.peers.values().filter(at_once) {
            state.engine.drop_carrier(peer.folder.replica);
        }
    }

    /// What is offered and not on this disk is fetched while the peer reads on. A viewer's files are not ours to have.
    fn offered(&mut self, link: Arc<Link>, file: u64, pieces: Vec<Piece>) -> Result<(), TreeError> {
        let may = self.lan.peers.get(&link.device).is_some_and(|peer| peer.role >= Role::Editor);
        let Some(state) = self.state.as_ref().filter(|s| may && !self.paused && s.engine.meta().heard) else { return Ok(()) };
        let ids: Vec<_> = pieces.iter().map(|piece| piece.chunk.id).collect();
        let places = state.engine.chunk_places(&ids)?;
        let wanted = pieces.into_iter().zip(places).filter(|(_, place)| place.is_none()).map(|(piece, _)| piece).collect();
        self.fetcher.prefetches.offered(&state.root, link, file, wanted);
        Ok(())
    }

    fn peer_opened(&mut self, link: Arc<Link>, role: Role, folder: PeerFolder) -> Result<(), TreeError> {
        let Some(state) = &mut self.state else { return Ok(()) };
        if let Some(before) = self.lan.peers.get(&link.device)
            && before.folder.replica != folder.replica
        {
            state.engine.drop_carrier(before.folder.replica);
        }
        if role >= Role::Editor {
            self.deps.lan.subscribe(&link, state.engine.peer_cursor(folder.replica)?);
        }
        // It may have what is waited for here.
        state.engine.retry_now();
        let device = link.device;
        let peer = PeerSide { link, role, folder, is_read: false, told_us: Instant::now(), heard_us: None, relays_since: None };
        self.lan.peers.insert(device, peer);
        Ok(())
    }

    fn peer_page(
        &mut self,
        device: DeviceId,
        since: Option<FeedCursor>,
        page: &FeedPage,
        done: oneshot::Sender<FeedCursor>,
    ) -> Result<(), TreeError> {
        // Nobody else's relay is as good as ours: before the first hearing a peer's feed counts only when there is none to ask.
        let counts = !self.relay.is_given || self.relay.error.is_some();
        let (Some(peer), Some(state)) = (self.lan.peers.get_mut(&device), &mut self.state) else { return Ok(()) };
        if peer.role < Role::Editor || page.replica != peer.folder.replica || self.paused || state.engine.may_not_look() {
            return Ok(());
        }
        let heard_before = state.engine.meta().heard;
        let heard = state.engine.handle_peer_page(page, since, peer.folder.relays, counts);
        state.notices.keep(&state.engine);
        match heard {
            Ok(heard) if heard.follows => {
                (peer.is_read, peer.told_us) = (!page.has_more, Instant::now());
                // The reader of the stream may have gone.
                let _ = done.send((page.epoch, page.cursor));
            }
            Ok(_) => {
                peer.is_read = false;
                self.deps.lan.subscribe(&peer.link, state.engine.peer_cursor(peer.folder.replica)?);
            }
            Err(HearError::Trees(error)) => return Err(error),
            Err(HearError::RolledBack) if !self.lan.set_back.believes(device, Instant::now()) => {
                tracing::warn!(folder = %self.config.name, peer = %device, "a peer says again that this device's index is old; it is not believed twice a day, and its feed is not heard");
                peer.is_read = true;
            }
            Err(HearError::RolledBack) => {
                tracing::warn!(folder = %self.config.name, "this device's index is older than what others heard from it; going on as a new replica, nothing is deleted");
                state.engine.begin_new_life(ReplicaId::from_bytes(super::random_bytes()))?;
                self.relay.want_pull();
                self.hear_peers_anew();
            }
            Err(error @ (HearError::Epoch(_) | HearError::ClockJump)) => {
                tracing::warn!(folder = %self.config.name, peer = %device, %error, "a page of a peer's feed is not taken in");
                // It cannot be heard; that does not make this folder wait.
                peer.is_read = true;
            }
        }
        if let Some(state) = &self.state
            && state.engine.meta().heard
            && !heard_before
        {
            self.rescan_now();
        }
        Ok(())
    }

    /// What peers told while nothing was to be heard is read again, from where it was heard.
    pub(super) fn hear_peers_on(&mut self) -> Result<(), TreeError> {
        let Some(state) = self.state.as_ref().filter(|state| !state.engine.may_not_look()) else { return Ok(()) };
        for peer in self.lan.peers.values_mut().filter(|p| p.role >= Role::Editor) {
            (peer.is_read, peer.told_us) = (false, Instant::now());
            self.deps.lan.subscribe(&peer.link, state.engine.peer_cursor(peer.folder.replica)?);
        }
        Ok(())
    }

    /// What was heard is forgotten: every feed is read from its start.
    pub(super) fn hear_peers_anew(&mut self) {
        for peer in self.lan.peers.values_mut().filter(|p| p.role >= Role::Editor) {
            (peer.is_read, peer.told_us) = (false, Instant::now());
            self.deps.lan.subscribe(&peer.link, None);
        }
    }

    /// Answers with a page of our feed, durable first (LS1). Without an answer the peer's task waits for our feed to grow.
    fn give_page(&mut self, cursor: Option<FeedCursor>, reply: oneshot::Sender<PeerPage>) -> Result<(), TreeError> {
        let Some(state) = self.state.as_mut().filter(|_| !self.paused) else { return Ok(()) };
        let Some(page) = state.engine.feed_page(cursor, PAGE_NODES)? else { return Ok(()) };
        let seq = state.engine.meta().seq;
        if self.lan.durable_seq < seq {
            self.commit_trees(Durability::Durable)?;
        }
        // The peer may have gone.
        let _ = reply.send(PeerPage { since: page.since, page: page.page });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_number_ends_one_life_a_day() {
        let (mut set_back, now) = (SetBack::default(), Instant::now());
        let device = |n| DeviceId::from_bytes([n; 16]);
        assert!(set_back.believes(device(1), now));
        assert!((0..100).all(|n| !set_back.believes(device(1), now + Duration::from_secs(n))));
        assert!(set_back.believes(device(2), now), "another peer is another word");
        assert!(set_back.believes(device(1), now + SET_BACK_EVERY));
    }
}
