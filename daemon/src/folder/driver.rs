//! The control loop of one folder: the only owner of its engine (D1).
//!
//! Everything that can wake it is a [`Wake`]; everything that takes time is done elsewhere and answers with a wake. One turn of the loop takes
//! in what has come, asks the engine what follows, and gives out work; what the trees have gathered goes to the index now and then. Before a commit
//! goes to the relay, or a page to a device nearby, the index is durable, so that no number that another replica has heard is ever used twice (I8).

use super::commands;
use super::durable::Durable;
use super::early::Early;
use super::fetch::Fetcher;
use super::flush::Flushes;
use super::index_trees::IndexTrees;
use super::lan_side::LanSide;
use super::opening::{self, Opened};
use super::panics::planted;
use super::progress::Progress;
use super::relay_side::RelaySide;
use super::report::Report;
use super::send::Sent;
use super::work::{Ahead, Job, Workers};
use super::{FolderCommand, FolderConfig, FolderDeps, FolderStatus};
use crate::fs::watch::{Hint, RescanReason};
use crate::fs::{RootError, Unsynced};
use crate::index::Durability;
use crate::lan::PeerWake;
use crate::relay::{DeltaReply, RelayError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ferry_engine::{DiskOutcome, Engine, HashResult, HashTask, Look, LookResult, Merged, Obstacle, TreeError};
use ferry_protocol::ContentHash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Everything that can wake the control loop.
pub(super) enum Wake {
    /// A command.
    Command(FolderCommand),
    /// The watcher saw something.
    Hint(Hint),
    /// An answer of the disk's threads, with the life of the folder that asked: see [`Driver::life`].
    OfLife(u64, Box<Wake>),
    /// A directory was looked at.
    Looked(Look, LookResult),
    /// Files were read; whether each was changed so lately that it must be read again.
    Hashed(Vec<(HashTask, HashResult, bool)>),
    /// A batch was carried out, and is durable or not.
    Applied(u64, Result<Vec<DiskOutcome>, Unsynced>),
    /// The whole folder was made durable, or not.
    Synced(Result<(), Obstacle>),
    /// Contents were staged, or not.
    Fetched(Vec<(ContentHash, Result<(), Obstacle>)>),
    /// Texts were merged, or not.
    Merged(u64, Merged),
    /// Versions were kept for merges: there may be more.
    Kept,
    /// A page of the relay's feed, asked for from this cursor.
    Page(u64, Result<DeltaReply, RelayError>),
    /// A commit ended.
    Sent(Box<Sent>),
    /// The devices nearby.
    Lan(PeerWake),
    /// The relay, the author or the settings changed.
    Changed,
}

/// Looks and groups of files under way at once.
const LOOKS_MAX: usize = 16;
const HASHES_MAX: usize = 256;
/// Files in one reading job, and the size up to which a file is small enough to share one.
const HASH_GROUP: usize = 16;
const HASH_GROUP_MAX_BYTES: u64 = 1 << 20;
/// Actions in one batch: large enough to share a durability barrier, small enough to show progress.
const BATCH_MAX: usize = 1000;
/// Wakes taken in before the trees are committed.
const WAKES_MAX: usize = 256;
/// What the engine writes is gathered: so many rows at most, and so long, before it goes to the index.
const GATHERED_MAX: usize = 4096;
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// After so many rows memory is given back at rest.
const MUCH_WORK_ROWS: usize = 2000;
/// How often the root is proved while nothing happens.
const ROOT_CHECK: Duration = Duration::from_secs(2);
/// After so many panics in a row the pause before the next attempt grows no more: about four minutes.
const FAILURES_COUNTED: u32 = 7;
/// How long a large file that changed while it was read is left before it is looked at again: whoever writes it goes on, and reading it over and
/// over would only slow him down.
const GROWING_WAIT: Duration = Duration::from_secs(1);
/// How long a file that was changed within the clock's granule is left before it is read again (B26).
const RACY_WAIT: Duration = Duration::from_millis(50);

pub(super) type FolderEngine = Engine<IndexTrees>;

/// One folder's control loop.
pub(super) struct Driver {
    pub config: FolderConfig,
    pub deps: FolderDeps,
    pub runtime: tokio::runtime::Handle,
    pub wakes: Sender<Wake>,
    inbox: Receiver<Wake>,
    pub report: Report,
    workers: Workers,
    pub state: Option<Opened>,
    pub fetcher: Fetcher,
    pub progress: Progress,
    pub relay: RelaySide,
    pub lan: LanSide,
    pub early: Option<Arc<Early>>,
    pub paused: bool,
    /// How often the folder was closed.
    life: u64,
    /// Panics since it was last up to date.
    failures: u32,
    /// It is told to stop.
    stopping: bool,
    started: Instant,
    next_open: Instant,
    next_root_check: Instant,
    looks: usize,
    hashes: usize,
    pub durable: Durable,
    racy: Vec<(Instant, HashTask)>,
    growing: Vec<(Instant, HashTask)>,
    rescan_due: Instant,
    /// Since when there is something that is not in the index.
    gathers_since: Option<Instant>,
    /// Since memory was last given back.
    rows_written: usize,
    pub flushes: Flushes,
}

impl Driver {
    pub fn new(
        config: FolderConfig,
        deps: FolderDeps,
        channel: (Sender<Wake>, Receiver<Wake>),
        status: watch::Sender<Arc<FolderStatus>>,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<Self> {
        let (wakes, inbox) = channel;
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8);
        let now = Instant::now();
        let progress = Progress::default();
        Ok(Self {
            workers: Workers::start(threads, &wakes)?,
            fetcher: Fetcher::new(runtime.clone(), config.id, wakes.clone(), deps.lan.clone(), progress.clone()),
            relay: RelaySide::new(config.id),
            lan: LanSide::new(deps.lan.clone()),
            early: None,
            report: Report::new(&config, status, deps.events.clone(), progress.clone()),
            progress,
            paused: config.paused,
            config,
            deps,
            runtime,
            wakes,
            inbox,
            state: None,
            life: 0,
            failures: 0,
            stopping: false,
            started: now,
            next_open: now,
            next_root_check: now + ROOT_CHECK,
            looks: 0,
            hashes: 0,
            durable: Durable::default(),
            racy: Vec::new(),
            growing: Vec::new(),
            rescan_due: now,
            gathers_since: None,
            rows_written: 0,
            flushes: Flushes::default(),
        })
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        self.attach_lan();
        loop {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.turn())) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                // The index cannot be read or written: nothing is guessed. It is closed, said so, and opened again after a while.
                Ok(Err(error)) => self.close(error),
                // The panic hook has said where. At the end nothing is left to be tried again.
                Err(_) if self.stopping => return,
                Err(_) => self.close_failed(),
            }
        }
    }

    /// One turn. Whether to go on.
    fn turn(&mut self) -> Result<bool, TreeError> {
        self.open_if_due();
        self.set_time();
        for wake in self.wait() {
            if !self.handle(wake)? {
                self.stopping = true;
                // Whoever stops it waits for its end, whatever the disk says: what was not kept is found again.
                if let Err(error) = self.commit_trees(Durability::Durable) {
                    tracing::warn!(folder = %self.config.name, %error, "the index could not be kept at the end");
                }
                return Ok(false);
            }
        }
        self.set_time();
        self.reread_racy()?;
        self.check_root();
        if !self.paused {
            self.give_out()?;
        }
        self.finish_flushes()?;
        self.commit_gathered()?;
        self.tell_lan()?;
        self.publish_status()?;
        Ok(true)
    }

    fn publish_status(&mut self) -> Result<(), TreeError> {
        // A relay that is there but has not answered yet may have news: the folder is not up to date before it does.
        self.relay.is_given = self.deps.relay.borrow().is_some();
        let came_to_rest = self.report.update(self.state.as_mut(), &self.relay, &self.lan, self.paused)?;
        let gathered = self.state.as_ref().map_or(0, |state| state.engine.trees().gathered());
        if came_to_rest {
            self.failures = 0;
        }
        if came_to_rest && self.rows_written + gathered >= MUCH_WORK_ROWS {
            self.rows_written = 0;
            self.runtime.spawn_blocking(crate::memory::give_back);
        }
        Ok(())
    }

    /// Publishes what is true now, for somebody who is about to look.
    pub fn publish_status_now(&mut self) -> Result<(), TreeError> {
        self.report.hurry();
        self.publish_status()
    }

    fn set_time(&mut self) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        if let Some(state) = &mut self.state {
            state.engine.set_time(now_ms, jiff::Timestamp::now().as_millisecond());
        }
    }

    /// Waits for the next wake or until something is due; then takes what else has come.
    fn wait(&mut self) -> Vec<Wake> {
        let mut out = Vec::new();
        match self.inbox.recv_timeout(self.timeout()) {
            Ok(wake) => out.push(wake),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return out,
        }
        out.extend(self.inbox.try_iter().take(WAKES_MAX));
        out
    }

    fn timeout(&self) -> Duration {
        let now = Instant::now();
        // What cannot be given out now is not due: it would be due for ever, and the loop would spin.
        let works = self.state.is_some() && !self.paused;
        let mut due = match &self.state {
            None => self.next_open,
            Some(state) if works && state.engine.meta().heard => self.next_root_check.min(self.rescan_due.max(now)),
            Some(_) => self.next_root_check,
        };
        if let Some(state) = self.state.as_ref().filter(|_| works)
            && let Some(ms) = state.engine.deadline_ms()
        {
            due = due.min(self.started + Duration::from_millis(ms) + Duration::from_millis(1));
        }
        due = self
            .racy
            .iter()
            .chain(&self.growing)
            .map(|(at, _)| *at)
            .chain(self.relay.due().filter(|_| works && self.deps.relay.borrow().is_some()))
            .chain(self.report.due())
            .chain(self.state.as_ref().and_then(|s| self.lan.due(s.engine.meta().seq)))
            .chain(self.flushes.due())
            .chain(self.gathers_since.map(|since| since + GATHERED_FOR))
            .fold(due, Instant::min);
        due.saturating_duration_since(now)
    }

    /// Opens root and index, if they are not open and it is time to try.
    fn open_if_due(&mut self) {
        if self.state.is_some() || Instant::now() < self.next_open {
            return;
        }
        match opening::open(&mut self.config, &self.deps, &self.wakes) {
            Ok(opened) => {
                self.state = Some(opened);
                self.rescan_due = Instant::now();
                self.report.opened();
                self.relay.want_pull();
            }
            Err(error) => {
                self.next_open = Instant::now() + ROOT_CHECK;
                self.report.not_open(&error);
            }
        }
    }

    fn close(&mut self, error: TreeError) {
        self.end_life();
        self.report.not_open(&opening::OpenError::Index(error.to_string()));
    }

    /// A panic of ours: what the engine held may be half changed, and the index is not. It is tried again, less and less often (K37).
    fn close_failed(&mut self) {
        tracing::error!(folder = %self.config.name, "this folder's task failed; it is opened again after a while");
        self.failures = (self.failures + 1).min(FAILURES_COUNTED);
        self.end_life();
        self.next_open = Instant::now() + ROOT_CHECK * 2u32.pow(self.failures);
        self.report.not_open(&opening::OpenError::Failed);
    }

    /// Forgets the open folder; it is opened again after a while.
    fn end_life(&mut self) {
        self.life += 1;
        self.lan.forget_durable();
        self.state = None;
        self.looks = 0;
        self.hashes = 0;
        self.durable.end_life();
        self.racy.clear();
        self.growing.clear();
        self.gathers_since = None;
        self.next_open = Instant::now() + ROOT_CHECK;
    }

    fn handle(&mut self, wake: Wake) -> Result<bool, TreeError> {
        match wake {
            Wake::Command(FolderCommand::Stop) => return Ok(false),
            Wake::Command(command) => commands::handle(self, command)?,
            Wake::Changed => self.follow_changes(),
            Wake::Page(since, page) => self.handle_page(since, page)?,
            Wake::Sent(sent) => self.handle_sent(*sent)?,
            Wake::Lan(wake) => {
                self.deps.lan.note_handled();
                self.handle_lan(wake)?;
            }
            wake => self.handle_disk(wake)?,
        }
        Ok(true)
    }

    /// What the disk's threads and the watcher bring. Answers that were asked for before the folder was opened again are dropped: the engine
    /// counts its questions from the beginning, and everything is asked anew.
    fn handle_disk(&mut self, wake: Wake) -> Result<(), TreeError> {
        if matches!(&wake, Wake::OfLife(_, answer) if matches!(**answer, Wake::Applied(..))) {
            self.durable.batch_answered();
        }
        let wake = match wake {
            Wake::OfLife(life, _) if life != self.life => return Ok(()),
            Wake::OfLife(_, wake) => *wake,
            wake => wake,
        };
        if let Wake::Hint(Hint::Rung(ring)) = wake {
            self.heard_ring(ring);
            return Ok(());
        }
        let Some(state) = &mut self.state else { return Ok(()) };
        match wake {
            Wake::Hint(Hint::Paths(paths)) => state.engine.handle_hints(&paths)?,
            Wake::Hint(Hint::Trees(paths)) => state.engine.walk(&paths)?,
            Wake::Hint(Hint::Rescan(reason)) => {
                tracing::info!(folder = %self.config.name, ?reason, "looking at the whole folder again");
                self.rescan_due = Instant::now();
                if reason == RescanReason::RootMoved {
                    self.next_root_check = Instant::now();
                }
            }
            Wake::Looked(look, result) => {
                self.looks = self.looks.saturating_sub(1);
                if result == LookResult::Unreadable(Obstacle::RootGone) {
                    self.next_root_check = Instant::now();
                }
                state.notice_rules(&look, &result);
                state.engine.handle_look(&look, result)?;
            }
            Wake::Hashed(results) => {
                self.hashes = self.hashes.saturating_sub(results.len());
                for (task, result, racy) in results {
                    if result == HashResult::Changed && task.stat.size > HASH_GROUP_MAX_BYTES {
                        self.growing.push((Instant::now() + GROWING_WAIT, task));
                        continue;
                    }
                    if racy {
                        self.racy.push((Instant::now() + RACY_WAIT, task.clone()));
                    }
                    state.engine.handle_hash(&task, result)?;
                }
            }
            Wake::Applied(id, applied) => self.handle_applied(id, applied)?,
            Wake::Synced(result) => {
                state.engine.handle_sync(result);
                self.hear_peers_on()?;
            }
            Wake::Fetched(results) => {
                self.lan.note_came(results.iter().filter(|(_, result)| result.is_ok()).map(|(content, _)| *content));
                for (content, result) in results {
                    state.engine.handle_fetch(content, result)?;
                }
            }
            Wake::Merged(id, result) => state.engine.handle_merge(id, result)?,
            Wake::Kept
            | Wake::OfLife(..)
            | Wake::Hint(Hint::Rung(_))
            | Wake::Command(_)
            | Wake::Page(..)
            | Wake::Sent(_)
            | Wake::Lan(_)
            | Wake::Changed => {}
        }
        Ok(())
    }

    /// Files that were changed within the clock's granule are looked at once more: a later change could carry the same times.
    fn reread_racy(&mut self) -> Result<(), TreeError> {
        let now = Instant::now();
        let Some(state) = &mut self.state else { return Ok(()) };
        for (_, task) in self.growing.extract_if(.., |(at, _)| *at <= now) {
            state.engine.handle_hash(&task, HashResult::Changed)?;
        }
        for (_, task) in self.racy.extract_if(.., |(at, _)| *at <= now) {
            // The engine forgets that it knows this version, and so reads it again.
            state.engine.distrust(task.directory, &task.name)?;
        }
        Ok(())
    }

    /// Whether no file waits to be read a second time.
    pub fn reads_nothing_again(&self) -> bool {
        self.racy.is_empty() && self.growing.is_empty()
    }

    fn check_root(&mut self) {
        if Instant::now() < self.next_root_check {
            return;
        }
        self.next_root_check = Instant::now() + ROOT_CHECK;
        let Some(state) = &self.state else { return };
        if let Err(error) = state.root.check() {
            tracing::warn!(folder = %self.config.name, %error, "the folder is not where it was; nothing is deleted, everything stops");
            self.end_life();
            self.report.not_open(&opening::OpenError::Root(error));
        }
    }

    /// Asks the engine what follows and gives it out.
    fn give_out(&mut self) -> Result<(), TreeError> {
        self.open_early();
        self.give_sync();
        let Some(state) = &mut self.state else { return Ok(()) };
        if state.engine.meta().heard && Instant::now() >= self.rescan_due {
            let (every, keep) = {
                let settings = self.deps.settings.borrow();
                (settings.rescan_interval, settings.trash_retention)
            };
            empty_trash(&state.root, keep);
            self.rescan_due = Instant::now() + every.max(Duration::from_secs(10));
            state.engine.rescan();
            self.report.scan_started();
        }
        for look in state.engine.next_looks(LOOKS_MAX.saturating_sub(self.looks))? {
            self.looks += 1;
            self.workers.give(self.life, Job::Look(state.root.clone(), look));
        }
        let ahead = Ahead { relay: self.early.clone(), lan: self.deps.lan.clone() };
        let mut group = Vec::new();
        for task in state.engine.next_hashes(HASHES_MAX.saturating_sub(self.hashes))? {
            self.hashes += 1;
            let alone = task.stat.size > HASH_GROUP_MAX_BYTES;
            group.push(task);
            if alone || group.len() == HASH_GROUP {
                self.workers.give(self.life, Job::Hash(state.root.clone(), std::mem::take(&mut group), ahead.clone()));
            }
        }
        if !group.is_empty() {
            self.workers.give(self.life, Job::Hash(state.root.clone(), group, ahead));
        }
        planted("plan", self.config.name.as_bytes());
        state.engine.set_relay_near(self.relay.reachable);
        let plan = state.engine.plan(BATCH_MAX)?;
        if !plan.keeps.is_empty() {
            self.workers.give(self.life, Job::Keep(state.bases.clone(), plan.keeps));
        }
        if !plan.merges.is_empty() {
            self.fetcher.merge(self.life, &state.root, &state.bases, self.deps.relay.borrow().clone(), plan.merges);
        }
        if !plan.fetches.is_empty() {
            self.fetcher.start(&state.root, self.deps.relay.borrow().clone(), plan.fetches);
        }
        if let Some(batch) = plan.batch {
            self.durable.batch_given();
            self.workers.give(self.life, Job::Apply(state.root.clone(), batch.id, batch.actions));
        }
        self.give_to_relay()
    }

    /// Brings what was gathered to the index once it is much, or has waited: each time costs, and whatever must not be forgotten is made durable
    /// before it is told (I8).
    fn commit_gathered(&mut self) -> Result<(), TreeError> {
        let Some(state) = &self.state else { return Ok(()) };
        let gathered = state.engine.trees().gathered();
        if gathered > 0 && self.gathers_since.is_none() {
            self.gathers_since = Some(Instant::now());
        }
        if self.gathers_since.is_some_and(|since| since.elapsed() >= GATHERED_FOR) {
            self.commit_trees(Durability::Durable)?;
        } else if gathered >= GATHERED_MAX {
            self.commit_trees(Durability::Relaxed)?;
        }
        Ok(())
    }

    pub fn give(&self, job: Job) {
        self.workers.give(self.life, job);
    }

    pub fn commit_trees(&mut self, durability: Durability) -> Result<(), TreeError> {
        let Some(state) = &mut self.state else { return Ok(()) };
        self.rows_written += state.engine.trees().gathered();
        state.engine.trees_mut().commit(durability)?;
        if durability == Durability::Durable {
            self.gathers_since = None;
            self.lan.note_durable(state.engine.meta().seq);
        }
        Ok(())
    }

    /// Looks at everything again, now.
    pub fn rescan_now(&mut self) {
        self.rescan_due = Instant::now();
        // A filesystem that has come back is worth a try at once.
        self.next_open = Instant::now();
    }
}

/// What was displaced longer ago than it is to be kept goes, and so do downloads that nothing came of.
fn empty_trash(root: &crate::fs::Root, keep: Duration) {
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    match crate::fs::trash::purge(root, super::report::now_ms().saturating_sub(keep_ms)) {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, "old entries of the trash are gone"),
        Err(error) => tracing::warn!(?error, "old entries of the trash could not be removed"),
    }
    match crate::fs::trash::drop_old_parts(root, opening::KEEP_PARTS.as_millis() as i64) {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "downloads that nothing came of are gone"),
        Err(error) => tracing::warn!(?error, "old downloads could not be removed"),
    }
}

/// A root error for people.
pub(super) fn root_sentence(error: &RootError) -> String {
    error.to_string()
}
