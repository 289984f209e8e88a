//! Flushing: what stood on the disk, and at the relay, when somebody asked has been taken up before he gets his answer.
//!
//! The watcher is made to see an event of our own ([`crate::fs::watch::Watcher::ring`]); what comes before it in the kernel's queue has been told
//! when it comes. Where no watcher can say so, everything is looked at. Then the looks and readings that follow end, and the relay's head is
//! asked for. A folder in which something is written all the time is never at rest: the answer comes after a while all the same.

use super::driver::Driver;
use super::{CommandError, Reply};
use ferry_engine::TreeError;
use std::time::{Duration, Instant};

/// How long the watcher may take to tell what it has seen.
const RING_MAX: Duration = Duration::from_secs(2);
/// How long an answer waits at most.
const FLUSH_MAX: Duration = Duration::from_secs(20);

/// Somebody waits for an answer.
struct Waiting {
    reply: Reply<()>,
    asked: Instant,
    phase: Phase,
}

enum Phase {
    /// The watcher has not come to our event yet.
    Ringing(u64),
    /// What was seen is being looked at, and the feed is read: the reading of this number.
    Settling { pull: u64 },
}

/// Those who wait.
#[derive(Default)]
pub(super) struct Flushes {
    waiting: Vec<Waiting>,
    rings: u64,
}

impl Flushes {
    /// When something is due that no wake brings.
    pub fn due(&self) -> Option<Instant> {
        let due = |w: &Waiting| match w.phase {
            Phase::Ringing(_) => w.asked + RING_MAX,
            Phase::Settling { .. } => w.asked + FLUSH_MAX,
        };
        self.waiting.iter().map(due).min()
    }
}

impl Driver {
    /// Begins to flush for somebody.
    pub(super) fn begin_flush(&mut self, reply: Reply<()>) {
        let Some(state) = &self.state else {
            let answer: Result<(), CommandError> = Ok(());
            drop(reply.send(answer));
            return;
        };
        self.flushes.rings += 1;
        let ring = self.flushes.rings;
        let rung = state.watcher.as_ref().is_some_and(|watcher| watcher.ring(ring));
        self.flushes.waiting.push(Waiting { reply, asked: Instant::now(), phase: Phase::Ringing(ring) });
        if !rung {
            self.look_at_everything(ring);
        }
    }

    /// The watcher has told everything that it saw before this ring.
    pub(super) fn heard_ring(&mut self, ring: u64) {
        self.relay.want_pull();
        let pull = self.relay.next_pull();
        for waiting in &mut self.flushes.waiting {
            if matches!(waiting.phase, Phase::Ringing(r) if r <= ring) {
                waiting.phase = Phase::Settling { pull };
            }
        }
    }

    /// No watcher tells what is new: a scan will.
    fn look_at_everything(&mut self, ring: u64) {
        if let Some(state) = &mut self.state
            && state.engine.meta().heard
        {
            state.engine.rescan();
            self.report.scan_started();
        }
        self.heard_ring(ring);
    }

    /// Answers whoever has what he waits for.
    pub(super) fn finish_flushes(&mut self) -> Result<(), TreeError> {
        if self.flushes.waiting.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let late = |w: &Waiting| match w.phase {
            Phase::Ringing(ring) if now >= w.asked + RING_MAX => Some(ring),
            _ => None,
        };
        if let Some(ring) = self.flushes.waiting.iter().filter_map(late).max() {
            self.look_at_everything(ring);
        }
        let rests = match &self.state {
            Some(state) => self.paused || (self.reads_nothing_again() && state.engine.pending()?.scan == 0 && state.engine.is_looked_at()),
            None => true,
        };
        let (relay, paused) = (&self.relay, self.paused);
        let is_done = |w: &Waiting| match w.phase {
            Phase::Ringing(_) => false,
            Phase::Settling { pull } => (rests && (paused || relay.has_pulled(pull))) || now >= w.asked + FLUSH_MAX,
        };
        let (done, waiting) = std::mem::take(&mut self.flushes.waiting).into_iter().partition(is_done);
        self.flushes.waiting = waiting;
        let done: Vec<Waiting> = done;
        if !done.is_empty() {
            self.commit_trees(crate::index::Durability::Durable)?;
            self.publish_status_now()?;
            done.into_iter().for_each(|w| drop(w.reply.send(Ok(()))));
        }
        Ok(())
    }
}
