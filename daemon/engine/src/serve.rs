//! What other devices of the LAN are given: our own feed, and where chunks stand on this disk.
//!
//! Our feed is numbered by this index, and an index can be set back (a restored backup). So a cursor names the **run** in which it was read: a
//! new one each time the folder is opened. The index remembers at which number each run began; a cursor of a run that it does not know, or from
//! beyond the end of its run, is of a life that was lost, and its reader begins again (I11).

use crate::disk::Stat;
use crate::engine::Engine;
use crate::trees::{FeedRun, ItemContent, ItemKey, Result, Trees};
use ferry_protocol::limits::{COMMIT_NODES_MAX, PAGE_TARGET_BYTES};
use ferry_protocol::wire::{FeedPage, NodeUpdate};
use ferry_protocol::{ChunkId, ChunkRef, Content, Epoch, NodeId, NodeState, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// A page of our own feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPage {
    /// Where it begins: the reader's cursor, or nothing if it begins at the start.
    pub since: Option<(Epoch, u64)>,
    /// The page. Its epoch is the run of our feed.
    pub page: FeedPage,
}

/// Where a chunk stands on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The file.
    pub path: RelPath,
    /// Its version when it was hashed.
    pub stat: Stat,
    /// Where in it the chunk begins, in bytes.
    pub offset: u64,
    /// The chunk.
    pub chunk: ChunkRef,
}

/// Files that are tried for one chunk.
const HOLDERS_MAX: usize = 4;
/// Offsets of chunks that one question keeps in memory.
const OFFSETS_MAX: usize = 1 << 20;

impl<T: Trees> Engine<T> {
    /// A page of our own feed after a reader's cursor: at most so many nodes, and about [`PAGE_TARGET_BYTES`]; one node at least. Nothing before
    /// a run has begun and the others were heard: what is on this disk may still be found to be theirs. What was done in this run is not told before
    /// somebody was heard in it ([`Engine::feed_head`]).
    ///
    /// Before the page leaves this device the trees must be durable: what others have heard from us must never be forgotten here (I8).
    pub fn feed_page(&self, cursor: Option<(Epoch, u64)>, limit: usize) -> Result<Option<OwnPage>> {
        let runs = &self.run.known;
        let meta = self.trees.meta();
        let Some(FeedRun { id: run, .. }) = runs.last().filter(|_| meta.heard) else { return Ok(None) };
        let since = cursor.filter(|cursor| is_known(runs, *cursor, meta.seq));
        let after = since.map_or(0, |(_, seq)| seq);
        let limit = limit.clamp(1, COMMIT_NODES_MAX / 2);
        let end = self.feed_head().max(after);
        let mut rows = self.trees.feed_after(after, limit + 1)?;
        rows.retain(|(seq, _)| *seq <= end);
        let mut has_more = rows.len() > limit;
        rows.truncate(limit);
        let (mut nodes, mut taken, mut bytes, mut read) = (Vec::new(), BTreeSet::new(), 0, after);
        for (seq, id) in rows {
            let line = self.line_behind(id, seq, &taken)?;
            bytes += line.iter().map(|u| about_bytes(&u.state)).sum::<usize>();
            if !nodes.is_empty() && (bytes > PAGE_TARGET_BYTES || nodes.len() + line.len() > COMMIT_NODES_MAX) {
                has_more = true;
                break;
            }
            taken.extend(line.iter().map(|u| u.id));
            nodes.extend(line);
            read = seq;
        }
        let cursor = if has_more { read } else { end };
        Ok(Some(OwnPage { since, page: FeedPage { epoch: *run, replica: meta.replica, cursor, head: end, has_more, nodes } }))
    }

    /// A node and those of its directories that stand behind it in the feed, the highest first: a reader who is never told more knows the
    /// directory of everything he was told, and can bring it to the relay.
    fn line_behind(&self, id: NodeId, seq: u64, taken: &BTreeSet<NodeId>) -> Result<Vec<NodeUpdate>> {
        let mut line: Vec<NodeUpdate> = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT && !taken.contains(&at) && line.len() < COMMIT_NODES_MAX && line.iter().all(|u| u.id != at) {
            let Some(record) = self.trees.node(at)?.filter(|r| r.seq >= seq) else { break };
            let parent = record.state.places()[0].parent;
            line.push(NodeUpdate { id: at, state: record.state });
            at = parent;
        }
        line.reverse();
        Ok(line)
    }

    /// Where chunks stand on this disk, in the order of the question; nothing for what only other folders or nobody holds. The bytes are to be
    /// verified when they are read: the file may have changed since.
    pub fn chunk_places(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        let mut held = Held::default();
        ids.iter().map(|id| self.chunk_place(*id, &mut held)).collect()
    }

    fn chunk_place(&self, id: ChunkId, held: &mut Held) -> Result<Option<ChunkPlace>> {
        for key in self.trees.holders(id, HOLDERS_MAX)? {
            if !held.files.contains_key(&key) {
                let file = self.held_file(key)?;
                held.keep(key, file);
            }
            if let Some(Some(file)) = held.files.get(&key)
                && let Some((offset, len)) = file.offsets.get(&id)
            {
                let chunk = ChunkRef { id, len: *len };
                return Ok(Some(ChunkPlace { path: file.path.clone(), stat: file.stat, offset: *offset, chunk }));
            }
        }
        Ok(None)
    }

    fn held_file(&self, key: ItemKey) -> Result<Option<HeldFile>> {
        let Some(item) = self.trees.item(key)? else { return Ok(None) };
        let (ItemContent::File(manifest), Some(path)) = (&item.content, self.item_path(&item)?) else { return Ok(None) };
        let offsets = manifest.with_offsets().map(|(at, chunk)| (chunk.id, (at, chunk.len))).collect();
        Ok(Some(HeldFile { path, stat: item.stat, offsets }))
    }
}

/// Files that were asked for in one question: many chunks are of one file, and its manifest is read once.
#[derive(Default)]
struct Held {
    files: BTreeMap<ItemKey, Option<HeldFile>>,
    offsets: usize,
}

struct HeldFile {
    path: RelPath,
    stat: Stat,
    offsets: BTreeMap<ChunkId, (u64, u32)>,
}

impl Held {
    fn keep(&mut self, key: ItemKey, file: Option<HeldFile>) {
        let count = 1 + file.as_ref().map_or(0, |f| f.offsets.len());
        if self.offsets + count > OFFSETS_MAX {
            self.files.clear();
            self.offsets = 0;
        }
        self.offsets += count;
        self.files.insert(key, file);
    }
}

/// Whether a cursor was read in a life of our feed that led to this one: its run is known, and it is not from beyond the run's end.
fn is_known(runs: &[FeedRun], (run, seq): (Epoch, u64), head: u64) -> bool {
    let Some(at) = runs.iter().position(|known| known.id == run) else { return false };
    seq <= runs.get(at + 1).map_or(head, |next| next.began)
}

/// About how many bytes a state takes on the wire.
fn about_bytes(state: &NodeState) -> usize {
    let places: usize = state.places().iter().map(|p| 48 + p.name.as_bytes().len()).sum();
    let values = state.body().values().iter().map(|v| {
        let content = match &v.content {
            Content::File(file) => {
                let bases: usize = file.bases.iter().map(|b| 52 + 36 * b.manifest.chunks().len()).sum();
                64 + 36 * file.manifest.chunks().len() + bases
            }
            Content::Symlink(target) => target.len(),
            _ => 0,
        };
        96 + v.author.name.len() + content
    });
    48 + places + values.sum::<usize>() + 24 * state.body().context().len()
}
