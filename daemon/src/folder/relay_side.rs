//! The folder and its relay: reading the feed, sending commits, and patience when the relay is away.

use super::driver::{Driver, Wake};
use super::early::Early;
use super::mend::Mending;
use super::send::{self, Sent};
use crate::index::Durability;
use crate::relay::{DeltaReply, RelayError};
use ferry_engine::{HearError, TreeError, Trees};
use ferry_protocol::limits::COMMIT_NODES_MAX;
use ferry_protocol::wire::CommitReply;
use ferry_protocol::{CommitId, NamespaceId, RelPath, ReplicaId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes of one page of the feed.
const PAGE_NODES: usize = 2000;
/// Nodes and bytes of chunks in one commit.
const COMMIT_NODES: usize = 1000;
const COMMIT_BYTES: u64 = 256 << 20;
/// The feed is asked this often even if nobody says that it changed.
const POLL: Duration = Duration::from_secs(30);
/// A commit of so many bytes, or one of so many nodes that are to be sent, waits a little while devices nearby are given theirs.
const PATIENT_BYTES: u64 = 16 << 20;
const PATIENT_NODES: u64 = 256;
const PATIENT_EVERY: Duration = Duration::from_millis(100);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A relay that says when to come back is not taken at its word for ever: a store that stays full is sent everything again each time.
const RETRY_ASKED_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(COMMIT_NODES <= COMMIT_NODES_MAX && PAGE_NODES <= COMMIT_NODES_MAX);

/// What is under way with the relay.
pub(super) struct RelaySide {
    namespace: NamespaceId,
    pull_wanted: bool,
    pulling: bool,
    sending: bool,
    /// How often the feed was asked, and how often that ended.
    asked: u64,
    heard: u64,
    failures: u32,
    not_before: Instant,
    next_poll: Instant,
    /// Whether the feed was begun again because the relay had lost directories; once is enough until a whole commit was accepted.
    began_again: bool,
    /// When to look again whether a large commit may go.
    patient: Option<Instant>,
    /// What was done for a relay that has lost bytes.
    pub mending: Mending,
    /// The last error, until something worked.
    pub error: Option<RelayError>,
    /// Whether the last request worked.
    pub reachable: bool,
    /// Whether there is a relay to ask.
    pub is_given: bool,
}

impl RelaySide {
    pub fn new(namespace: NamespaceId) -> Self {
        let now = Instant::now();
        Self {
            namespace,
            pull_wanted: true,
            pulling: false,
            sending: false,
            asked: 0,
            heard: 0,
            failures: 0,
            not_before: now,
            next_poll: now + POLL,
            began_again: false,
            patient: None,
            mending: Mending::default(),
            error: None,
            reachable: false,
            is_given: false,
        }
    }

    /// The feed is to be read.
    pub fn want_pull(&mut self) {
        self.pull_wanted = true;
    }

    /// The number of the next reading of the feed.
    pub fn next_pull(&self) -> u64 {
        self.asked + 1
    }

    /// Whether that reading has ended, or is not to be had now.
    pub fn has_pulled(&self, pull: u64) -> bool {
        (self.heard >= pull && !self.pull_wanted) || !self.is_given || self.error.is_some()
    }

    /// Whether nothing is under way or wanted.
    pub fn is_idle(&self) -> bool {
        !self.pull_wanted && !self.pulling && !self.sending
    }

    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        let busy = self.pulling || self.sending;
        let wanted = (self.pull_wanted || self.failures > 0) && !busy;
        let due = if wanted { self.not_before } else { self.next_poll };
        Some(self.patient.map_or(due, |patient| patient.min(due)))
    }

    fn worked(&mut self) -> bool {
        let news = !self.reachable;
        self.failures = 0;
        self.error = None;
        self.reachable = true;
        self.not_before = Instant::now();
        news
    }

    fn failed(&mut self, error: RelayError) {
        tracing::info!(namespace = %self.namespace, %error, "the relay did not answer as hoped");
        self.reachable = false;
        let grown = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        // Jitter keeps many devices from coming back in one moment (P28).
        let jitter = u64::from(super::random_u16()) % (grown.as_millis() as u64 / 4 + 1);
        let wait = error.retry_after().map_or(grown, |asked| asked.max(grown.min(RETRY_ASKED_MAX))) + Duration::from_millis(jitter);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + wait;
        self.error = Some(error);
    }
}

impl Driver {
    /// Chunks go out while their files are read, if a relay answers and this user may write.
    pub(super) fn open_early(&mut self) {
        let may = self.relay.reachable
            && self.state.as_mut().is_some_and(|s| s.engine.relay_cursor().is_some() && s.engine.policy_mut().may_write);
        match self.deps.relay.borrow().as_ref().filter(|_| may) {
            Some(relay) if self.early.as_ref().is_some_and(|early| early.is_for(relay)) => {}
            Some(relay) => {
                self.early = Some(Arc::new(Early::new(relay.clone(), self.config.id, self.runtime.clone(), self.progress.clone())))
            }
            None => self.early = None,
        }
    }

    /// Reads the feed if that is wanted, else sends what the relay may lack.
    pub(super) fn give_to_relay(&mut self) -> Result<(), TreeError> {
        let now = Instant::now();
        self.relay.patient = self.relay.patient.filter(|until| now < *until);
        if now >= self.relay.next_poll {
            self.relay.next_poll = now + POLL;
            self.relay.pull_wanted = true;
        }
        let Some(relay) = self.deps.relay.borrow().clone() else { return Ok(()) };
        let Some(state) = &mut self.state else { return Ok(()) };
        if now < self.relay.not_before || state.engine.may_not_look() {
            return Ok(());
        }
        let namespace = self.config.id;
        if self.relay.pull_wanted && !self.relay.pulling {
            self.relay.pull_wanted = false;
            self.relay.pulling = true;
            self.relay.asked += 1;
            let cursor = state.engine.relay_cursor();
            let (relay, wakes) = (relay.clone(), self.wakes.clone());
            self.runtime.spawn(async move {
                let (epoch, since) = cursor.map_or((None, 0), |(epoch, since)| (Some(epoch), since));
                let _ = wakes.send(Wake::Page(since, relay.delta(namespace, since, epoch, PAGE_NODES).await));
            });
        }
        if self.relay.sending || self.relay.patient.is_some() {
            return Ok(());
        }
        let seq = state.engine.meta().seq;
        if state.engine.trees().unsent() >= PATIENT_NODES && self.lan.goes_first(now, seq) {
            self.relay.patient = Some(now + PATIENT_EVERY);
            return Ok(());
        }
        let (Some((epoch, _)), Some(commit)) = (state.engine.relay_cursor(), state.engine.next_commit(COMMIT_NODES, COMMIT_BYTES)?) else {
            return Ok(());
        };
        if commit.bytes >= PATIENT_BYTES && self.lan.goes_first(now, seq) {
            state.engine.drop_commit();
            self.relay.patient = Some(now + PATIENT_EVERY);
            return Ok(());
        }
        // What others hear from us must never be forgotten here.
        self.commit_trees(Durability::Durable)?;
        let Some(state) = &self.state else { return Ok(()) };
        let sender = send::Sender {
            root: state.root.clone(),
            relay,
            early: self.early.clone(),
            progress: self.progress.clone(),
            namespace,
            replica: state.engine.meta().replica,
            epoch,
            commit: CommitId::from_bytes(super::random_bytes()),
        };
        self.relay.sending = true;
        let wakes = self.wakes.clone();
        self.runtime.spawn(async move {
            let _ = wakes.send(Wake::Sent(Box::new(sender.send(commit).await)));
        });
        Ok(())
    }

    pub(super) fn handle_page(&mut self, since: u64, page: Result<DeltaReply, RelayError>) -> Result<(), TreeError> {
        self.relay.pulling = false;
        self.relay.heard = self.relay.asked;
        if let Ok(DeltaReply::Page { lacks_since_ms, .. }) = &page {
            self.mend_relay(*lacks_since_ms);
        }
        let Some(state) = &mut self.state else { return Ok(()) };
        let page = match page {
            Err(error) => {
                self.relay.pull_wanted = true;
                self.relay.failed(error);
                return Ok(());
            }
            Ok(DeltaReply::EpochChanged(epoch)) => {
                tracing::warn!(folder = %self.config.name, "the relay is a new or restored one; it is sent what it lacks, nothing is deleted");
                state.engine.handle_lost_cursor(epoch)?;
                self.relay.pull_wanted = true;
                return Ok(());
            }
            Ok(DeltaReply::Page { page, .. }) => page,
        };
        if self.relay.worked() {
            state.engine.retry_now();
        }
        let heard_before = state.engine.meta().heard;
        let heard = state.engine.handle_page(&page, since);
        state.notices.keep(&state.engine);
        match heard {
            // A page from beyond where the feed is read now was asked for before it began again.
            Ok(_) => self.relay.pull_wanted |= page.has_more || state.engine.relay_cursor().is_some_and(|(_, cursor)| cursor < since),
            Err(HearError::Trees(error)) => return Err(error),
            Err(HearError::Epoch(epoch)) => {
                state.engine.handle_epoch(epoch)?;
                self.relay.pull_wanted = true;
            }
            Err(HearError::RolledBack) => {
                tracing::warn!(folder = %self.config.name, "this device's index is older than what others heard from it; going on as a new replica, nothing is deleted");
                state.engine.begin_new_life(ReplicaId::from_bytes(super::random_bytes()))?;
                self.relay.pull_wanted = true;
                self.hear_peers_anew();
            }
            Err(error @ HearError::ClockJump) => {
                self.relay.pull_wanted = true;
                self.relay.failed(RelayError::PeerFault { detail: error.to_string() });
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

    pub(super) fn handle_sent(&mut self, sent: Sent) -> Result<(), TreeError> {
        self.relay.sending = false;
        let Some(state) = &mut self.state else { return Ok(()) };
        match sent {
            Sent::Answer(reply) => {
                self.relay.worked();
                self.relay.pull_wanted |= !matches!(reply, CommitReply::Accepted { gapless: true, .. });
                self.relay.began_again &= !matches!(reply, CommitReply::Accepted { .. });
                state.engine.handle_commit(&reply)?;
                if !matches!(reply, CommitReply::Accepted { .. }) {
                    state.engine.drop_commit();
                }
            }
            Sent::Unreadable(chunks) => {
                let paths: Vec<RelPath> = state.engine.withhold(&chunks)?;
                state.engine.handle_hints(&paths)?;
            }
            Sent::Unplaced { error, others_accepted } => {
                // Devices send directories first, so the relay has forgotten some: it was restored from a backup. What was accepted the feed tells.
                state.engine.drop_commit();
                self.relay.pull_wanted = true;
                match state.engine.relay_cursor() {
                    Some((epoch, _)) if !self.relay.began_again => {
                        tracing::warn!(folder = %self.config.name, "the relay has lost directories; it is sent what it lacks, nothing is deleted");
                        self.relay.began_again = true;
                        state.engine.handle_lost_cursor(epoch)?;
                    }
                    _ if others_accepted => _ = self.relay.worked(),
                    _ => self.relay.failed(error),
                }
            }
            Sent::Refused(nodes) => {
                self.relay.worked();
                tracing::warn!(folder = %self.config.name, nodes = nodes.len(), "the relay refuses changes that a device nearby told and no member wrote; the others are sent without them");
                state.engine.withhold_nodes(nodes)?;
            }
            Sent::Failed(error) => {
                state.engine.drop_commit();
                // Its end is not known: the feed tells (P11).
                self.relay.pull_wanted = true;
                self.relay.failed(error);
            }
        }
        Ok(())
    }

    /// The relay came or went, or settings changed.
    pub(super) fn follow_changes(&mut self) {
        let settings = self.deps.settings.borrow().clone();
        if let Some(state) = &mut self.state {
            state.follow_defaults(settings.ignore_defaults);
            let policy = state.engine.policy_mut();
            policy.brake_items = settings.held_deletes_count;
            policy.brake_percent = u64::from(settings.held_deletes_percent);
            state.engine.retry_now();
        }
        self.relay.pull_wanted = true;
        self.relay.failures = 0;
        self.relay.not_before = Instant::now();
        if self.deps.relay.borrow().is_none() {
            self.relay.reachable = false;
            self.relay.error = None;
        }
    }
}
