//! Taking in the feed of another replica: every state is joined; the rest follows from the trees.

use crate::carried::Group;
use crate::engine::Engine;
use crate::policy::Planted;
use crate::trees::{NodeRecord, Result, TreeError, Trees};
use ferry_protocol::limits::LAMPORT_JUMP_MAX;
use ferry_protocol::read::shown;
use ferry_protocol::wire::FeedPage;
use ferry_protocol::{Content, Dot, Epoch, NodeId, NodeState, Place, ReplicaId, Stamp, Stamped, Value};

/// Why a page of a feed was not taken in. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HearError {
    /// The trees failed.
    #[error(transparent)]
    Trees(#[from] TreeError),
    /// The page is of another epoch than the one that is being read: call [`Engine::handle_epoch`] and read from the start.
    #[error("the feed has another epoch")]
    Epoch(Epoch),
    /// A counter is so far ahead that taking it would use the numbers up.
    #[error("a stamp is too far ahead of everything known")]
    ClockJump,
    /// Others have heard more from this replica than it remembers, or something else under the same number: this index was restored from an
    /// older copy. Call [`Engine::begin_new_life`] with a fresh replica id (P16).
    #[error("this device's index is older than what others have heard from it")]
    RolledBack,
}

/// What a page brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Nodes that changed here.
    pub changed: usize,
    /// Whether the page left no gap. If it did, the feed is to be asked for again, from where it was read up to.
    pub follows: bool,
}

/// Who told us of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teller {
    /// The relay: it has what it tells.
    Relay,
    /// Another device; the group of nodes that it brings to the relay, if it does that.
    Peer(Option<Group>),
}

impl<T: Trees> Engine<T> {
    /// The relay's epoch and the cursor to read its feed from.
    pub fn relay_cursor(&self) -> Option<(Epoch, u64)> {
        self.trees.meta().relay
    }

    /// The relay's feed has this epoch. If it is another than before, the relay is a replica that lags: it is read from the start, and is sent
    /// everything; nothing is deleted (I3, I11).
    pub fn handle_epoch(&mut self, epoch: Epoch) -> Result<()> {
        if self.trees.meta().relay.is_some_and(|(known, _)| known == epoch) {
            return Ok(());
        }
        self.begin_epoch(epoch)
    }

    /// The relay does not know our cursor: the feed begins again, be its epoch another one or the same (a relay that was restored without its
    /// operator saying so).
    pub fn handle_lost_cursor(&mut self, epoch: Epoch) -> Result<()> {
        if self.trees.meta().relay == Some((epoch, 0)) {
            return Ok(());
        }
        self.begin_epoch(epoch)
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<()> {
        let first = self.trees.meta().relay.is_none();
        if !first {
            // What peers carried they carried to the feed before this one.
            self.publishing.carried = Default::default();
        }
        self.trees.meta_mut().relay = Some((epoch, 0));
        // The answer to a commit of the older feed says nothing of this one.
        self.drop_commit();
        if first && self.trees.meta().seq == 0 {
            return Ok(());
        }
        if self.planted(Planted::EpochIgnored) {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.trees.nodes_after(after, 512)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (id, _) in page {
                self.trees.set_unsent(id, true)?;
            }
        }
    }

    /// Goes on under a fresh replica id after a roll-back, in union mode: what is on disk is compared with what is heard, nothing is deleted.
    ///
    /// What the index knew is forgotten as if it were lost (E9): its events may bear numbers that stand for something else elsewhere, and what
    /// it had not sent may name contents that nobody holds. Answers to looks, pages and commits of the older life may still come; they do no
    /// harm. A batch that is under way must still be answered before there is another one.
    pub fn begin_new_life(&mut self, replica: ReplicaId) -> Result<()> {
        self.trees.clear()?;
        let meta = self.trees.meta_mut();
        meta.replica = replica;
        meta.minted = 0;
        meta.heard = false;
        meta.relay = meta.relay.map(|(epoch, _)| (epoch, 0));
        self.observed = self.observed.again();
        self.plans = self.plans.again();
        self.merging = self.merging.again();
        self.publishing = Default::default();
        self.brake.release();
        self.view = Default::default();
        self.dirty.clear();
        self.orphans.clear();
        self.blocked.clear();
        self.issues.clear();
        self.opening = Some(None);
        Ok(())
    }

    /// Takes in a page of the relay's feed that was asked for from the cursor `since`.
    ///
    /// The states of every page are joined; the cursor moves on only with a page that leaves no gap. So a page that was asked for before the
    /// feed began again, by [`Engine::begin_new_life`] or another epoch, skips nothing (I11).
    pub fn handle_page(&mut self, page: &FeedPage, since: u64) -> std::result::Result<Heard, HearError> {
        match self.trees.meta().relay {
            Some((epoch, _)) if epoch != page.epoch => return Err(HearError::Epoch(page.epoch)),
            Some(_) => {}
            None => self.handle_epoch(page.epoch)?,
        }
        self.check_page(page)?;
        let mut heard = Heard::default();
        let skip = self.planted(Planted::CursorSkips) && page.nodes.len() > 1;
        for (index, update) in page.nodes.iter().enumerate() {
            if skip && index + 1 == page.nodes.len() {
                continue;
            }
            heard.changed += usize::from(self.hear_node(update.id, &update.state, Teller::Relay)?);
        }
        let meta = self.trees.meta_mut();
        let cursor = meta.relay.map_or(0, |(_, cursor)| cursor);
        if since <= cursor {
            // A page that comes late or twice moves nothing back (I8, I11).
            meta.relay = Some((page.epoch, cursor.max(page.cursor)));
            meta.heard |= !page.has_more;
            heard.follows = true;
            if !page.has_more {
                self.run.heard_relay();
            }
        }
        Ok(heard)
    }

    pub(crate) fn check_page(&self, page: &FeedPage) -> std::result::Result<(), HearError> {
        let (own, clock) = (self.trees.meta().replica, self.trees.meta().clock);
        let mut highest = clock;
        for update in &page.nodes {
            let counter = update.state.max_counter();
            let newest = update.state.body().context().iter().map(|(_, counter)| *counter).fold(counter, u64::max);
            // Counters that grow with the page itself are honest: the bound is against a single leap.
            if newest > highest.saturating_add(LAMPORT_JUMP_MAX) {
                return Err(HearError::ClockJump);
            }
            highest = highest.max(counter);
            let known = self.trees.node(update.id)?;
            let known_counter = known.as_ref().map_or(0, |r| r.state.body().counter(own));
            let own_place = update.state.places().iter().any(|p| p.stamp.replica == own && p.stamp.counter > clock);
            let used_twice = known.is_some_and(|r| uses_twice(own, &r.state, &update.state));
            let is_of_another_life = self.run.tells_of_another_life(own, &update.state);
            if update.state.body().counter(own) > known_counter || own_place || used_twice || is_of_another_life {
                return Err(HearError::RolledBack);
            }
        }
        Ok(())
    }

    /// Joins one node. Whether it changed here.
    pub(crate) fn hear_node(&mut self, id: NodeId, state: &NodeState, from: Teller) -> Result<bool> {
        let Some(before) = self.trees.node(id)? else {
            self.update_node(id, state.clone())?;
            self.note_told(id, from)?;
            return Ok(true);
        };
        let mut joined = before.state.clone();
        let changed = joined.join(state);
        let (was_unsent, was_carried) = (self.trees.is_unsent(id)?, self.publishing.carried.holds(id));
        if changed {
            self.update_node(id, joined.clone())?;
            self.note_harm(id, &before, &joined);
        }
        match from {
            Teller::Relay => self.note_relay_has(id, state.includes(&joined))?,
            Teller::Peer(_) if !changed => {}
            // What only we bring to the relay, or somebody else, this peer brings only if it has all of it.
            Teller::Peer(_) if was_unsent && !(was_carried && state.includes(&joined)) => self.note_told(id, Teller::Peer(None))?,
            Teller::Peer(_) => self.note_told(id, from)?,
        }
        if changed && self.policy.may_write && !self.settle_revived(id, &joined)? {
            self.revive(id, &before, state, joined)?;
        }
        Ok(changed)
    }

    fn note_relay_has(&mut self, id: NodeId, has_all: bool) -> Result<()> {
        if self.trees.is_unsent(id)? == has_all {
            self.trees.set_unsent(id, !has_all)?;
            self.publishing.reconsider(id);
            self.merge_may_go_on(id);
        }
        if has_all {
            self.publishing.carried.release(id);
        }
        Ok(())
    }

    /// What a peer told us and was new here may be new to the relay too.
    fn note_told(&mut self, id: NodeId, from: Teller) -> Result<()> {
        let Teller::Peer(group) = from else { return Ok(()) };
        if self.planted(Planted::HeardIsSent) {
            return Ok(());
        }
        self.trees.set_unsent(id, true)?;
        if let Some(group) = group {
            self.publishing.carried.add(id, group);
        }
        Ok(())
    }

    /// A revived value is old content put back: it yields to what somebody wrote meanwhile, else an edit, a delete and a move of three devices
    /// would end as a conflict with the version before the edit (CR3, C05). Such a value is known by its stamp, which is as old as the event
    /// that wrote the content and nobody's, while its dot is of the replica that put it back. Whoever sees both settles it; all do the same.
    fn settle_revived(&mut self, id: NodeId, joined: &NodeState) -> Result<bool> {
        let living = || joined.body().values().iter().filter(|v| !v.content.is_tombstone());
        let is_revived = |v: &&Value| v.stamp.replica != v.dot.replica;
        if !living().any(|v| is_revived(&v)) || living().all(|v| is_revived(&v)) {
            return Ok(false);
        }
        let dots: Vec<Dot> = living().filter(is_revived).map(|v| v.dot).collect();
        let mut state = joined.clone();
        state.body_mut().settle(&dots);
        self.write(id, state)?;
        Ok(true)
    }

    /// A move counts as a change (CR3): if one side deleted the node without having seen a move by the other, the node lives at its new place.
    fn revive(&mut self, id: NodeId, before: &NodeRecord, heard: &NodeState, joined: NodeState) -> Result<()> {
        if joined.body().has_living() {
            return Ok(());
        }
        let (dead, moved) = match (before.state.body().has_living(), heard.body().has_living()) {
            (true, false) => (heard, &before.state),
            (false, true) => (&before.state, heard),
            _ => return Ok(()),
        };
        let oldest = dead.places().last();
        let unseen = moved.places().iter().any(|p| !dead.places().contains(p) && oldest.is_none_or(|o| p > o || dead.places().len() < 8));
        let Some(old) = shown(moved.body()).first().map(|s| s.value.clone()) else { return Ok(()) };
        if !unseen || old.content == Content::Tombstone {
            return Ok(());
        }
        let mut state = joined;
        let dots: Vec<_> = state.body().values().iter().map(|v| v.dot).collect();
        // Nobody's stamp: also when it is put back by the replica that wrote it.
        let stamp = Stamp { replica: ReplicaId::default(), ..old.stamp };
        // Its author stays the author, whoever sees this first: a conflict name must not hang on that.
        let value = Value { stamp, author: old.author, wall_ms: old.wall_ms, ..self.new_value(&state, old.content) };
        state.body_mut().put(&dots, value);
        self.write(id, state)
    }
}

/// Whether this replica's events mean one thing in one state and another in the other: it was set back and has used its numbers twice.
fn uses_twice(own: ReplicaId, known: &NodeState, heard: &NodeState) -> bool {
    let value = |v: &Value| v.dot.replica == own && known.body().value(v.dot).is_some_and(|k| k != v);
    let place = |p: &Place| p.stamp.replica == own && known.places().iter().any(|k| k.stamp == p.stamp && k != p);
    fn register<V: Copy + PartialEq>(own: ReplicaId, known: Option<Stamped<V>>, heard: Option<Stamped<V>>) -> bool {
        matches!((known, heard), (Some(k), Some(h)) if h.stamp.replica == own && k.stamp == h.stamp && k.value != h.value)
    }
    heard.body().values().iter().any(value)
        || heard.places().iter().any(place)
        || register(own, known.attributes().mode, heard.attributes().mode)
        || register(own, known.attributes().mtime_ns, heard.attributes().mtime_ns)
}
