//! A relay in memory: states joined in commit order, an epoch, chunks; it answers as `ferry_protocol::wire` documents.

use crate::sim::disk::Bytes;
use ferry_protocol::wire::{CommitReply, CommitRequest, FeedPage, NodeUpdate};
use ferry_protocol::{ChunkId, CommitId, Content, ContentHash, Epoch, Manifest, NodeId, NodeState, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// The relay. A clone is a backup.
#[derive(Debug, Clone)]
pub struct SimRelay {
    /// One life of the feed.
    pub epoch: Epoch,
    /// The newest number of the feed.
    pub head: u64,
    nodes: BTreeMap<NodeId, (NodeState, u64)>,
    feed: BTreeMap<u64, NodeId>,
    chunks: BTreeMap<ChunkId, Bytes>,
    /// Contents of all versions ever committed.
    pub history: BTreeSet<ContentHash>,
    commits: BTreeMap<CommitId, CommitReply>,
    lives: u64,
}

fn epoch(life: u64) -> Epoch {
    let mut bytes = [0xE0; 16];
    bytes[8..].copy_from_slice(&life.to_be_bytes());
    Epoch::from_bytes(bytes)
}

impl Default for SimRelay {
    fn default() -> Self {
        Self {
            epoch: epoch(1),
            head: 0,
            nodes: BTreeMap::new(),
            feed: BTreeMap::new(),
            chunks: BTreeMap::new(),
            history: BTreeSet::new(),
            commits: BTreeMap::new(),
            lives: 1,
        }
    }
}

impl SimRelay {
    /// A page of the feed.
    pub fn page(&self, after: u64, limit: usize) -> FeedPage {
        let rows: Vec<(u64, NodeId)> = self.feed.range(after + 1..).take(limit + 1).map(|(s, n)| (*s, *n)).collect();
        let has_more = rows.len() > limit;
        let rows = &rows[..rows.len().min(limit)];
        FeedPage {
            epoch: self.epoch,
            replica: ReplicaId::from_bytes([0xEE; 16]),
            cursor: if has_more { rows.last().map_or(after, |r| r.0) } else { self.head },
            head: self.head,
            has_more,
            nodes: rows.iter().map(|(_, id)| NodeUpdate { id: *id, state: self.nodes[id].0.clone() }).collect(),
        }
    }

    /// Takes a commit: all or nothing.
    pub fn commit(&mut self, request: &CommitRequest) -> CommitReply {
        if request.epoch != self.epoch {
            return CommitReply::EpochChanged(self.epoch);
        }
        if let Some(reply) = self.commits.get(&request.commit) {
            return reply.clone();
        }
        let stale: Vec<NodeId> =
            request.nodes.iter().filter(|u| self.nodes.get(&u.id).is_some_and(|(_, seq)| *seq > request.base_seq)).map(|u| u.id).collect();
        if !stale.is_empty() {
            return CommitReply::Stale(stale);
        }
        self.check_parents(request);
        let manifests = || request.nodes.iter().flat_map(|u| u.state.body().values()).filter_map(|v| v.content.file());
        let missing: BTreeSet<ChunkId> =
            manifests().flat_map(|f| f.manifest.chunks()).map(|c| c.id).filter(|c| !self.chunks.contains_key(c)).collect();
        if !missing.is_empty() {
            return CommitReply::MissingChunks(missing.into_iter().collect());
        }
        let gapless = self.head == request.base_seq;
        for file in manifests() {
            self.history.insert(file.manifest.hash());
        }
        for update in &request.nodes {
            self.join(update);
        }
        let reply = CommitReply::Accepted { head_seq: self.head, gapless };
        self.commits.insert(request.commit, reply.clone());
        reply
    }

    /// A real relay refuses a node whose directory it does not know (R34). Devices send parents before children, so it never comes to that.
    fn check_parents(&self, request: &CommitRequest) {
        for update in &request.nodes {
            let parent = update.state.places()[0].parent;
            let is_known = parent == NodeId::ROOT || self.nodes.contains_key(&parent) || request.nodes.iter().any(|u| u.id == parent);
            assert!(is_known || self.nodes.contains_key(&update.id), "{} is sent before its directory {parent}", update.id);
        }
    }

    fn join(&mut self, update: &NodeUpdate) {
        let old = self.nodes.get(&update.id).cloned();
        let joined = match &old {
            Some((state, _)) => {
                let mut joined = state.clone();
                if !joined.join(&update.state) {
                    return;
                }
                joined
            }
            None => update.state.clone(),
        };
        if let Some((_, seq)) = old {
            self.feed.remove(&seq);
        }
        self.head += 1;
        self.feed.insert(self.head, update.id);
        self.nodes.insert(update.id, (joined, self.head));
    }

    /// Takes a chunk.
    pub fn upload(&mut self, bytes: &[u8]) {
        self.chunks.insert(ChunkId::of(bytes), bytes.into());
    }

    /// A whole content, if all its chunks are here.
    pub fn fetch(&self, manifest: &Manifest) -> Option<Bytes> {
        let mut out = Vec::new();
        for chunk in manifest.chunks() {
            out.extend_from_slice(self.chunks.get(&chunk.id)?);
        }
        Some(out.into())
    }

    /// The bytes of a chunk.
    pub fn chunk(&self, id: ChunkId) -> Option<Vec<u8>> {
        self.chunks.get(&id).map(|b| b.to_vec())
    }

    /// All chunks.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkId, &Bytes)> {
        self.chunks.iter().map(|(id, bytes)| (*id, bytes))
    }

    /// All states: what the law of reading shows of them is what everybody should see.
    pub fn states(&self) -> ferry_protocol::read::States {
        self.nodes.iter().map(|(id, (state, _))| (*id, state.clone())).collect()
    }

    /// Starts again from a backup, in a new epoch.
    pub fn restore(&mut self, backup: &SimRelay) {
        let lives = self.lives + 1;
        *self = backup.clone();
        self.lives = lives;
        self.epoch = epoch(lives);
        self.commits.clear();
    }

    /// Whether a content is among the kept versions, with all its bytes.
    pub fn keeps(&self, bytes: &[u8]) -> bool {
        self.history.contains(&ContentHash::of(bytes))
            && bytes.chunks(super::disk::CHUNK_BYTES).all(|c| self.chunks.contains_key(&ChunkId::of(c)))
    }

    /// How many nodes live: for checks of what a history left behind.
    pub fn living(&self) -> usize {
        self.nodes.values().filter(|(s, _)| s.body().values().iter().any(|v| v.content != Content::Tombstone)).count()
    }
}
