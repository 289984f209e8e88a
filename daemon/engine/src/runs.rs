//! Runs: an index can go back in time (a snapshot of a virtual machine, a backup of the whole disk), and what it does then must not be taken for
//! what it did before (P16, ADR 0022).
//!
//! * With each run our numbers leap, so no number is given twice.
//! * An event of ours that we know nothing of and that has a number which was leapt over is of a life that was lost: [`crate::HearError::RolledBack`].
//! * Nothing that was done in this run leaves the device before the others were heard: our later number would cover the lost one, and whoever joins it
//!   would take the lost event for replaced. An index of which this is the first run cannot have been set back.

use crate::engine::Engine;
use crate::policy::Planted;
use crate::trees::{FEED_RUNS_MAX, FeedRun, Result, Trees};
use ferry_protocol::{ChunkId, Epoch, NodeState, ReplicaId};

/// What is known of this run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Its id; zeros before it has begun.
    pub id: Epoch,
    /// All runs that are remembered, this one last; as they stand in the trees.
    pub known: Vec<FeedRun>,
    /// Our feed is told up to this number until somebody was heard to the end.
    told_to: Option<u64>,
    /// Nothing is sent to the relay until it was heard to the end.
    waits_for_relay: bool,
}

impl Run {
    /// The newest number of our feed that may be told, of a feed that ends there.
    pub fn told_to(&self, head: u64) -> u64 {
        self.told_to.map_or(head, |began| began.min(head))
    }

    /// A peer was heard to the end of its feed.
    pub fn heard_peer(&mut self) {
        self.told_to = None;
    }

    /// The relay was heard to the end of its feed.
    pub fn heard_relay(&mut self) {
        (self.told_to, self.waits_for_relay) = (None, false);
    }

    /// Whether a state tells of an event of ours whose number this life leapt over.
    pub fn tells_of_another_life(&self, own: ReplicaId, state: &NodeState) -> bool {
        let leapt = |number: u64| self.known.iter().any(|run| run.leapt_over(number));
        let (body, attributes) = (state.body(), state.attributes());
        let places = state.places().iter().map(|p| p.stamp);
        let registers = attributes.mode.iter().map(|m| m.stamp).chain(attributes.mtime_ns.iter().map(|m| m.stamp));
        leapt(body.counter(own))
            || body.values().iter().any(|v| v.dot.replica == own && leapt(v.dot.counter))
            || places.chain(registers).any(|stamp| stamp.replica == own && leapt(stamp.counter))
    }
}

impl<T: Trees> Engine<T> {
    /// Begins a run under a fresh random id: once, after the folder was opened. It must be durable before anything is told or sent.
    pub fn begin_run(&mut self, id: Epoch) -> Result<()> {
        let mut known = self.trees.feed_runs()?;
        let (began, before) = (self.trees.meta().seq, self.trees.meta().clock);
        let after = if self.planted(Planted::RunsOnAsBefore) { before } else { before.saturating_add(leap(id)) };
        self.trees.meta_mut().clock = after;
        let waits = !known.is_empty() && !self.planted(Planted::TellsBeforeHearing);
        known.push(FeedRun { id, began, leap: (before, after) });
        known.drain(..known.len().saturating_sub(FEED_RUNS_MAX));
        self.trees.set_feed_runs(&known)?;
        self.run = Run { id, known, told_to: waits.then_some(began), waits_for_relay: waits };
        Ok(())
    }

    /// The id of this run, if one has begun.
    pub fn run(&self) -> Option<Epoch> {
        self.run.known.last().map(|run| run.id)
    }

    /// Whether the relay is to be heard to the end before it is sent anything.
    pub fn waits_for_relay(&self) -> bool {
        self.run.waits_for_relay
    }

    /// The newest number of our feed that may be told now: others are to be heard first after a start.
    pub fn feed_head(&self) -> u64 {
        self.run.told_to(self.trees.meta().seq)
    }
}

/// By how much the clock of a run is ahead of what the index knows: 1 to 65536, so that the numbers stay short on the wire.
fn leap(id: Epoch) -> u64 {
    let hash = ChunkId::of(id.as_bytes());
    let [a, b, ..] = *hash.as_bytes();
    1 + u64::from(u16::from_be_bytes([a, b]))
}
