//! What the folder says of itself: derived from the engine on each turn, published at most ten times a second.
//!
//! * **F2** *Up to date* is said only when the disk has been looked at, nothing is pending, and the feed has been read to its end or the relay is
//!   shown as not reachable (I15).

use super::driver::root_sentence;
use super::lan_side::LanSide;
use super::opening::{OpenError, Opened};
use super::progress::{Meter, Progress};
use super::relay_side::RelaySide;
use super::{FolderConfig, FolderState, FolderStatus, HeldDeletes, Issue, Pending, Rates, RelayLink, RelayState};
use crate::events::{EventKind, EventSink, Origin};
use crate::folder::Via;
use ferry_engine::{ChangeKind, Event, TreeError};
use ferry_protocol::RelPath;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(100);
/// Issues that a status lists by path; the rest is a number.
const ISSUES_MAX: usize = 1000;

/// Builds and publishes the status.
pub(super) struct Report {
    status: watch::Sender<Arc<FolderStatus>>,
    events: EventSink,
    current: FolderStatus,
    next: Instant,
    stale: bool,
    scanning: Option<Instant>,
    scanned: bool,
    since: BTreeMap<RelPath, (&'static str, i64)>,
    problem: Option<(String, &'static str, &'static str)>,
    /// Since when changes may be noticed late.
    unwatched_ms: Option<i64>,
    progress: Progress,
    meter: Meter,
}

impl Report {
    pub fn new(config: &FolderConfig, status: watch::Sender<Arc<FolderStatus>>, events: EventSink, progress: Progress) -> Self {
        let current = FolderStatus::starting(config.id, config.name.clone(), config.path.clone(), now_ms());
        let (next, since) = (Instant::now(), BTreeMap::new());
        Self {
            status,
            events,
            current,
            next,
            stale: true,
            scanning: None,
            scanned: false,
            since,
            problem: None,
            unwatched_ms: None,
            progress,
            meter: Meter::default(),
        }
    }

    /// When a status waits to be published.
    pub fn due(&self) -> Option<Instant> {
        self.stale.then_some(self.next)
    }

    /// The next update is published at once.
    pub fn hurry(&mut self) {
        self.next = Instant::now();
    }

    pub fn opened(&mut self) {
        self.problem = None;
        self.unwatched_ms = None;
        self.scanned = false;
    }

    pub fn not_open(&mut self, error: &OpenError) {
        let sentence = match error {
            OpenError::Root(root) => root_sentence(root),
            other => other.to_string(),
        };
        self.problem = Some((sentence, error.code(), error.hint()));
        self.stale = true;
    }

    pub fn scan_started(&mut self) {
        self.scanning = Some(Instant::now());
    }

    /// Takes in what the engine says; publishes if it is time and something is new. Whether the folder is now up to date and was not before.
    pub fn update(&mut self, state: Option<&mut Opened>, relay: &RelaySide, lan: &LanSide, paused: bool) -> Result<bool, TreeError> {
        let mut state = state;
        if let Some(opened) = state.as_deref_mut() {
            for event in opened.engine.take_events() {
                self.emit(opened, event);
            }
        }
        let now = Instant::now();
        if now < self.next {
            self.stale = true;
            return Ok(false);
        }
        self.next = now + EVERY;
        let mut new = self.current.clone();
        self.fill(&mut new, state.as_deref(), relay, lan, paused)?;
        // A busy folder has more to say soon; a calm one is done.
        self.stale = new.rates != Rates::default()
            || match new.state {
                FolderState::Scanning => true,
                // What something stands in the way of waits longer than this.
                FolderState::Syncing => state.as_deref().is_some_and(|s| !s.engine.is_settled()) || !relay.is_idle(),
                FolderState::UpToDate | FolderState::Paused | FolderState::Error | FolderState::Held => false,
            };
        let came_to_rest = new.state == FolderState::UpToDate && self.current.state != FolderState::UpToDate;
        if new.state != self.current.state {
            new.state_since_ms = now_ms();
            self.events.emit(EventKind::FolderState { state: new.state, reason: new.state_reason.clone() });
        }
        if new != self.current {
            self.current = new.clone();
            self.status.send_replace(Arc::new(new));
        }
        Ok(came_to_rest)
    }

    fn fill(
        &mut self,
        new: &mut FolderStatus,
        state: Option<&Opened>,
        relay: &RelaySide,
        lan: &LanSide,
        paused: bool,
    ) -> Result<(), TreeError> {
        new.relay = RelayLink {
            state: match (relay.reachable, &relay.error) {
                (true, _) => RelayState::Connected,
                (false, Some(_)) => RelayState::Offline,
                (false, None) => RelayState::Connecting,
            },
            lag: 0,
        };
        let Some(opened) = state else {
            new.state = if self.problem.is_some() { FolderState::Error } else { FolderState::Scanning };
            new.state_reason = self.problem.as_ref().map(|(sentence, _, _)| sentence.clone());
            new.issues =
                self.problem.iter().map(|(message, code, hint)| issue(RelPath::root(), code, message, hint, new.state_since_ms)).collect();
            new.issues_total = new.issues.len() as u64;
            return Ok(());
        };
        let pending = opened.engine.pending()?;
        let meta = opened.engine.meta();
        if pending.scan == 0 && self.scanning.is_some() && opened.engine.is_settled() {
            let took = self.scanning.take().map_or(0, |at| at.elapsed().as_millis() as u64);
            self.scanned = true;
            self.events.emit(EventKind::ScanFinished { files: meta.items, bytes: meta.bytes, took_ms: took });
        }
        (new.files, new.bytes) = (meta.items, meta.bytes);
        new.pending =
            Pending { upload: pending.upload, download: pending.download + opened.engine.blocked() as u64, delete: pending.delete };
        new.pending_bytes = self.progress.left();
        new.rates = self.meter.sample(&self.progress, Instant::now());
        new.blocked = opened.engine.blocked() as u64;
        self.fill_issues(new, opened);
        new.conflicts = opened.engine.contested() as u64;
        new.held = opened.engine.held_deletes().map(|(count, total)| HeldDeletes { count, total, made_here: true });
        (new.state, new.state_reason) = self.state_of(new, opened, (relay, lan), pending.scan, paused);
        if new.state == FolderState::UpToDate && self.current.state != FolderState::UpToDate {
            new.last_sync_ms = Some(now_ms());
        }
        Ok(())
    }

    fn state_of(
        &self,
        new: &FolderStatus,
        opened: &Opened,
        (relay, lan): (&RelaySide, &LanSide),
        scan: u64,
        paused: bool,
    ) -> (FolderState, Option<String>) {
        if paused {
            return (FolderState::Paused, None);
        }
        if let Some(obstacle) = opened.engine.sync_obstacle() {
            return (FolderState::Error, Some(format!("this disk does not keep what is changed: {}", obstacle.sentence())));
        }
        if let Some(held) = &new.held {
            let reason = format!("{} of {} items were deleted here; say whether that is meant", held.count, held.total);
            return (FolderState::Held, Some(reason));
        }
        if !opened.engine.meta().heard {
            let why = relay.error.as_ref().map_or_else(|| "waiting for the relay".to_owned(), ToString::to_string);
            return (FolderState::Syncing, Some(why));
        }
        if opened.engine.waits_for_disk() {
            return (FolderState::Scanning, Some("waiting for this disk to keep what was written before".to_owned()));
        }
        if !self.scanned || scan > 0 {
            return (FolderState::Scanning, None);
        }
        let asked = relay.reachable || (relay.is_given && relay.error.is_none());
        let relay_open = asked && (new.pending.upload > 0 || !relay.is_idle());
        if !opened.engine.is_settled() || relay_open || lan.is_busy(opened.engine.meta().seq) {
            return (FolderState::Syncing, None);
        }
        if new.blocked > 0 {
            return (FolderState::Syncing, Some(format!("{} cannot be brought up to date now", counted(new.blocked))));
        }
        let waiting = (new.pending.upload > 0).then(|| {
            let why = relay.error.as_ref().map_or_else(|| "there is no relay now".to_owned(), ToString::to_string);
            format!("{} changes wait for the relay: {why}", new.pending.upload)
        });
        (FolderState::UpToDate, waiting)
    }

    fn fill_issues(&mut self, new: &mut FolderStatus, opened: &Opened) {
        let now = now_ms();
        let mut since = BTreeMap::new();
        new.issues.clear();
        new.issues_total = 0;
        for (path, found) in opened.engine.issues() {
            let at = self.since.get(path).filter(|(code, _)| *code == found.code).map_or(now, |(_, at)| *at);
            if at == now {
                let (path, message) = (path.clone(), found.message.clone());
                self.events.emit(EventKind::Issue { path, code: found.code, message });
            }
            since.insert(path.clone(), (found.code, at));
            new.issues_total += 1;
            if new.issues.len() < ISSUES_MAX {
                new.issues.push(issue(path.clone(), found.code, &found.message, found.hint, at));
            }
        }
        for (path, (code, _)) in self.since.iter().filter(|(path, _)| !since.contains_key(*path)) {
            self.events.emit(EventKind::IssueResolved { path: path.clone(), code });
        }
        self.since = since;
        for change in opened.engine.mass_changes() {
            let (message, hint) = super::notices::sentence(change, &new.name);
            new.issues_total += 1;
            new.issues.push(issue(RelPath::root(), "mass_change", &message, &hint, change.since_ms));
        }
        if let Some(problem) = opened.watch_problem() {
            let now = *self.unwatched_ms.get_or_insert(now);
            new.issues_total += 1;
            new.issues.push(issue(
                RelPath::root(),
                "watch_limited",
                &problem,
                "raise fs.inotify.max_user_watches; until then changes are found by scanning",
                now,
            ));
        }
    }

    fn emit(&self, opened: &Opened, event: Event) {
        let size = |path: &RelPath| fs_size(opened, path);
        let kind = match event {
            Event::LocalChange { kind: ChangeKind::Deleted, path } => EventKind::Deleted { path, origin: Origin::Here },
            Event::RemoteChange { kind: ChangeKind::Deleted, path } => EventKind::Deleted { path, origin: Origin::Elsewhere },
            Event::LocalChange { kind: ChangeKind::Moved, path } => EventKind::Moved { from: path.clone(), path, origin: Origin::Here },
            Event::RemoteChange { kind: ChangeKind::Moved, path } => {
                EventKind::Moved { from: path.clone(), path, origin: Origin::Elsewhere }
            }
            Event::LocalChange { kind: ChangeKind::Attributes, .. } | Event::RemoteChange { kind: ChangeKind::Attributes, .. } => return,
            Event::LocalChange { path, .. } => EventKind::Created { path, origin: Origin::Here },
            Event::RemoteChange { path, .. } => {
                let bytes = size(&path);
                EventKind::FileDownloaded { path, bytes, via: Via::Relay, peer: None }
            }
            Event::Merged { path } => EventKind::Merged { path },
            Event::Conflict { path } => EventKind::Conflict { path: path.clone(), copy: path },
            Event::Held { count, total } => EventKind::DeletesHeld { held: HeldDeletes { count, total, made_here: true } },
        };
        self.events.emit(kind);
    }
}

fn fs_size(opened: &Opened, path: &RelPath) -> u64 {
    crate::fs::stat(&opened.root, path).ok().flatten().map_or(0, |s| s.size)
}

fn issue(path: RelPath, code: &'static str, message: &str, hint: &str, since_ms: i64) -> Issue {
    Issue { path, code, message: message.to_owned(), hint: hint.to_owned(), since_ms }
}

fn counted(items: u64) -> String {
    if items == 1 { "1 item".into() } else { format!("{items} items") }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
