//! What the relay may lack, as commits: parents before children, each with the chunks that it names and where they stand on this disk.

use crate::carried::Carried;
use crate::disk::Stat;
use crate::engine::Engine;
use crate::policy::Planted;
use crate::trees::{ItemContent, Result, Trees};
use ferry_protocol::wire::{CommitReply, NodeUpdate};
use ferry_protocol::{ChunkRef, Content, NodeId, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// A chunk that a commit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkAt {
    /// The chunk.
    pub chunk: ChunkRef,
    /// The file that holds it, its version, and the offset in bytes; nothing if only others hold it.
    pub source: Option<(RelPath, Stat, u64)>,
}

/// Nodes to send to the relay in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// How far the relay's feed was read.
    pub base_seq: u64,
    /// The nodes.
    pub nodes: Vec<NodeUpdate>,
    /// The chunks of their living values.
    pub chunks: Vec<ChunkAt>,
    /// How many of the values are edits made here, for the activity log.
    pub bytes: u64,
}

/// A node that waits for content.
#[derive(Debug)]
struct Withheld {
    seq: u64,
    until_ms: u64,
    tries: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Publishing {
    /// Nodes of the commit under way, with the version that was sent.
    in_flight: Option<Vec<(NodeId, u64)>>,
    /// Nodes that wait for content that neither the relay nor this device has, with the version that waits.
    withheld: BTreeMap<NodeId, Withheld>,
    /// Nodes that a peer brings to the relay.
    pub carried: Carried,
}

impl Publishing {
    /// Its content may stand elsewhere now.
    pub fn reconsider(&mut self, node: NodeId) {
        self.withheld.remove(&node);
    }

    /// Whether it cannot be sent now.
    pub fn withholds(&self, node: NodeId) -> bool {
        self.withheld.contains_key(&node)
    }

    /// When the next of the withheld or carried is to be sent. What may be sent already waits for the relay, not for the time.
    pub fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let withheld = self.withheld.values().map(|w| w.until_ms).filter(|until| *until > now_ms).min();
        withheld.into_iter().chain(self.carried.deadline_ms()).min()
    }
}

impl<T: Trees> Engine<T> {
    /// The next commit, if there is anything to send and no commit is under way: at most so many nodes, and about so many bytes of chunks.
    pub fn next_commit(&mut self, max_nodes: usize, max_bytes: u64) -> Result<Option<Commit>> {
        let Some((_, base_seq)) = self.trees.meta().relay else { return Ok(None) };
        if self.publishing.in_flight.is_some() || !self.may_send() || !self.trees.meta().heard || self.waits_for_relay() {
            return Ok(None);
        }
        if self.trees.unsent() <= self.publishing.carried.len() {
            return Ok(None);
        }
        let mut commit = Commit { base_seq, nodes: Vec::new(), chunks: Vec::new(), bytes: 0 };
        let mut sent = Vec::new();
        let mut taken = BTreeSet::new();
        let mut after = None;
        'pages: loop {
            let page = self.trees.unsent_after(after, 256)?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for id in page {
                if self.publishing.carried.holds(id) {
                    continue;
                }
                let line = self.unsent_line(id, &taken)?;
                // Nodes that stand in each other go together.
                if commit.nodes.len() + line.len() > max_nodes && !commit.nodes.is_empty() {
                    break 'pages;
                }
                for id in line {
                    if commit.nodes.len() >= max_nodes || (commit.bytes >= max_bytes && !commit.nodes.is_empty()) {
                        break 'pages;
                    }
                    if let Some(seq) = self.add_to_commit(id, &mut commit)? {
                        taken.insert(id);
                        sent.push((id, seq));
                    } else {
                        break;
                    }
                }
            }
        }
        if commit.nodes.is_empty() {
            return Ok(None);
        }
        self.publishing.in_flight = Some(sent);
        Ok(Some(commit))
    }

    /// Whether anything of ours leaves this device (CR12, I13).
    pub(crate) fn may_send(&self) -> bool {
        self.policy.may_write || self.planted(Planted::ViewerSends)
    }

    /// An unsent node with its unsent ancestors, the highest first; nothing while its directory is not known here, because the page of a peer's
    /// feed with it is still to come: the relay takes nothing that stands in a directory it does not know. For the same reason ancestors go along
    /// even if a peer carries them.
    fn unsent_line(&self, id: NodeId, taken: &BTreeSet<NodeId>) -> Result<Vec<NodeId>> {
        let mut line = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT && !taken.contains(&at) && !line.contains(&at) && self.trees.is_unsent(at)? {
            line.push(at);
            match self.trees.node(at)? {
                // By its newest place, as the relay asks for it, also if it is shown at an older one because of a cycle.
                Some(record) => at = record.state.places()[0].parent,
                None => break,
            }
        }
        if at != NodeId::ROOT && self.trees.node(at)?.is_none() {
            return Ok(Vec::new());
        }
        line.reverse();
        Ok(line)
    }

    /// Adds a node, unless content written here is no longer on disk as it was: then a newer edit is about to replace it.
    fn add_to_commit(&self, id: NodeId, commit: &mut Commit) -> Result<Option<u64>> {
        let Some(record) = self.trees.node(id)? else { return Ok(None) };
        if self.publishing.withheld.get(&id).is_some_and(|w| w.seq == record.seq && w.until_ms > self.now_ms) {
            return Ok(None);
        }
        let items = self.trees.items_of(id)?;
        let own = self.trees.meta().replica;
        let mut chunks = Vec::new();
        for value in record.state.body().values() {
            let Content::File(file) = &value.content else { continue };
            let holder = items.iter().find(|(_, item)| match &item.content {
                ItemContent::File(manifest) => manifest.hash() == file.manifest.hash() && manifest.chunks() == file.manifest.chunks(),
                _ => false,
            });
            let place = match holder {
                Some((_, item)) => self.item_path(item)?.map(|path| (path, item.stat)),
                None => None,
            };
            if place.is_none() && value.dot.replica == own {
                // A value of ours that only others hold by now was sent before; one that nobody holds has been edited since.
                let known = file.manifest.chunks().iter().all(|c| self.trees.holders(c.id, 1).is_ok_and(|h| !h.is_empty()));
                if !known && !self.unsent_value_is_known_elsewhere(id)? {
                    return Ok(None);
                }
            }
            for (offset, chunk) in file.manifest.with_offsets() {
                let source = place.as_ref().map(|(path, stat)| (path.clone(), *stat, offset));
                chunks.push(ChunkAt { chunk, source });
            }
        }
        commit.bytes += chunks.iter().map(|c| u64::from(c.chunk.len)).sum::<u64>();
        commit.chunks.extend(chunks);
        commit.nodes.push(NodeUpdate { id, state: record.state });
        Ok(Some(record.seq))
    }

    /// Whether everything of a node waits here only because the relay changed epoch: then the relay says what it lacks.
    fn unsent_value_is_known_elsewhere(&self, id: NodeId) -> Result<bool> {
        Ok(!self.dirty.contains(&id) && self.trees.items_of(id)?.is_empty())
    }

    /// Takes the relay's answer to the commit under way. `MissingChunks` leaves it under way: send them and commit again, or give up with
    /// [`Engine::drop_commit`].
    ///
    /// An answer that nobody waits for any more, because the feed began again meanwhile, changes nothing: what it accepted the feed tells.
    pub fn handle_commit(&mut self, reply: &CommitReply) -> Result<()> {
        if self.publishing.in_flight.is_none() {
            return Ok(());
        }
        match reply {
            CommitReply::MissingChunks(_) => return Ok(()),
            CommitReply::Accepted { head_seq, gapless } => {
                for (id, seq) in self.publishing.in_flight.take().unwrap_or_default() {
                    self.publishing.withheld.remove(&id);
                    if self.trees.node(id)?.is_some_and(|r| r.seq == seq) {
                        self.note_sent(id)?;
                    }
                }
                if let (true, Some((epoch, _))) = (*gapless, self.trees.meta().relay) {
                    self.trees.meta_mut().relay = Some((epoch, *head_seq));
                }
            }
            CommitReply::Stale(_) => self.publishing.in_flight = None,
            CommitReply::EpochChanged(epoch) => {
                self.publishing.in_flight = None;
                self.handle_epoch(*epoch)?;
            }
        }
        Ok(())
    }

    /// The relay lacks these chunks and they cannot be read here: the nodes of the commit under way that name them wait until they change,
    /// for a growing pause, or until [`Engine::retry_withheld`]; the others are sent again without them. Answers where they stand: look there.
    pub fn withhold(&mut self, chunks: &BTreeSet<ferry_protocol::ChunkId>) -> Result<Vec<RelPath>> {
        let mut paths = Vec::new();
        for (id, seq) in self.publishing.in_flight.take().unwrap_or_default() {
            let Some(record) = self.trees.node(id)? else { continue };
            let files = record.state.body().values().iter().filter_map(|v| v.content.file());
            if files.flat_map(|f| f.manifest.chunks()).any(|c| chunks.contains(&c.id)) {
                self.hold_back(id, seq);
                for (_, item) in self.trees.items_of(id)? {
                    paths.extend(self.item_path(&item)?);
                }
            }
        }
        Ok(paths)
    }

    /// The relay refuses a commit because of these nodes: they wait as in [`Engine::withhold`], with those that stand in them; the others are sent
    /// again without them.
    pub fn withhold_nodes(&mut self, mut refused: BTreeSet<NodeId>) -> Result<()> {
        let in_flight = self.publishing.in_flight.take().unwrap_or_default();
        loop {
            let before = refused.len();
            for (id, _) in &in_flight {
                let parent = self.trees.node(*id)?.map(|r| r.state.places()[0].parent);
                if parent.is_some_and(|parent| refused.contains(&parent)) {
                    refused.insert(*id);
                }
            }
            if refused.len() == before {
                break;
            }
        }
        for (id, seq) in in_flight.into_iter().filter(|(id, _)| refused.contains(id)) {
            self.hold_back(id, seq);
        }
        Ok(())
    }

    fn hold_back(&mut self, id: NodeId, seq: u64) {
        let tries = self.publishing.withheld.get(&id).map_or(0, |w| w.tries + 1);
        let until_ms = self.now_ms + crate::backoff::pause_ms(&self.policy, tries);
        self.publishing.withheld.insert(id, Withheld { seq, until_ms, tries });
        self.merge_may_go_on(id);
    }

    /// Tries again what was withheld.
    pub fn retry_withheld(&mut self) {
        self.publishing.withheld.clear();
    }

    /// How many nodes are withheld.
    pub fn withheld(&self) -> usize {
        self.publishing.withheld.len()
    }

    /// The commit under way came to nothing, or its end is not known: what it held is sent again. Twice is once (I8).
    pub fn drop_commit(&mut self) {
        self.publishing.in_flight = None;
    }
}
