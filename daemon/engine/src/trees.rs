//! The trees and what is kept about them: a small trait that the engine reads and writes, so that a million nodes need not be in memory.
//!
//! * **remote**: node states, the join of everything heard and of everything done here; with an index of living children.
//! * **synced**: one [`Item`] for each thing on disk that stands for a node: what both the disk and the remote tree have held.
//! * **local**: what the disk holds. It is kept as its difference from *synced*, found by looking; see `observe.rs`.
//!
//! One commit of the implementation behind this trait holds everything that one call of the engine changed (E7).

use crate::disk::Stat;
use ferry_protocol::{ChunkId, Dot, Epoch, Manifest, Name, NodeId, NodeState, ReplicaId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The store of the trees failed; nothing was changed. The folder stops and says so: a tree that cannot be read is never taken for empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index cannot be read or written: {0}")]
pub struct TreeError(pub String);

/// What an engine call answers.
pub type Result<T> = std::result::Result<T, TreeError>;

/// A node of the remote tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The state, joined.
    pub state: NodeState,
    /// This device's number of the node's newest change: its place in our own feed (I11).
    pub seq: u64,
    /// Which of its places counts; above 0 only while a newer one would close a cycle (CR7).
    pub place: u8,
}

/// Which thing of a node: nothing for what keeps the node's name, or the event of a conflicted copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemKey {
    /// The node.
    pub node: NodeId,
    /// The event, for a conflicted copy.
    pub copy: Option<Dot>,
}

impl ItemKey {
    /// What keeps the node's name.
    pub fn primary(node: NodeId) -> Self {
        Self { node, copy: None }
    }
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemContent {
    /// A directory.
    Dir,
    /// A file with this content.
    File(Manifest),
    /// A symbolic link.
    Symlink(Arc<[u8]>),
}

/// A thing on disk that stands for a node: the synced tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The directory that it stands in; [`PARKED`] while it waits outside for its place to become free.
    pub parent: NodeId,
    /// Its name there.
    pub name: Name,
    /// The disk's fact when both were last equal.
    pub stat: Stat,
    /// The content.
    pub content: ItemContent,
    /// The events that it shows: an edit on disk replaces exactly these.
    pub dots: Vec<Dot>,
    /// The permission bits that it stands for.
    pub mode: u16,
    /// The modification time that it stands for, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The pretended parent of parked items: they stand in `.ferry/parked` under their key.
pub const PARKED: NodeId = NodeId::from_bytes([0xFF; 16]);

/// The rest of what a device knows of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Under which id this index writes. A fresh index has a fresh one.
    pub replica: ReplicaId,
    /// The highest Lamport counter seen or used.
    pub clock: u64,
    /// The newest number of our own feed.
    pub seq: u64,
    /// How many ids were minted.
    pub minted: u64,
    /// The relay's epoch and how far its feed was read.
    pub relay: Option<(Epoch, u64)>,
    /// Whether the others were heard once: before that, what is on disk is not new (adoption).
    pub heard: bool,
    /// How many items there are.
    pub items: u64,
    /// Sum of the sizes of all items in bytes.
    pub bytes: u64,
}

impl Meta {
    /// What a fresh index starts from.
    pub fn new(replica: ReplicaId) -> Self {
        Self { replica, clock: 0, seq: 0, minted: 0, relay: None, heard: false, items: 0, bytes: 0 }
    }
}

/// How far another device's feed was read. Everything that stands in it up to there has been joined here, whenever this is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCursor {
    /// The run of the feed in which its numbers were read.
    pub run: Epoch,
    /// The newest number that was read.
    pub seq: u64,
    /// Whether nothing came after it. In the middle of a feed a node can be passed over because it has just moved behind what was read; if
    /// that device is then set back, the node stands at its old number again. So only the end of a feed can be carried over to another run.
    pub at_end: bool,
}

/// A run of our own feed: the time from one opening of the folder to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRun {
    /// Its random id.
    pub id: Epoch,
    /// The newest number of the feed when it began.
    pub began: u64,
    /// The clock before and after the leap with which it began. No life that led to this one gave an event a number above the first, up to the second.
    pub leap: (u64, u64),
}

impl FeedRun {
    /// Whether this number was leapt over.
    pub fn leapt_over(&self, number: u64) -> bool {
        self.leap.0 < number && number <= self.leap.1
    }
}

/// How many runs of our own feed are remembered: readers that were away for longer begin again.
pub const FEED_RUNS_MAX: usize = 64;

/// Where the trees are kept. Two implementations, one contract suite ([`crate::contract`]).
///
/// Reads see this engine's earlier writes. Orders are by key; `after` is exclusive.
pub trait Trees {
    /// A node.
    fn node(&self, id: NodeId) -> Result<Option<NodeRecord>>;
    /// Writes a node, and its place in our feed in exchange for the older one.
    fn put_node(&mut self, id: NodeId, record: &NodeRecord) -> Result<()>;
    /// Nodes in the order of their ids.
    fn nodes_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<(NodeId, NodeRecord)>>;
    /// Our feed: nodes by their newest change above `seq`.
    fn feed_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, NodeId)>>;

    /// Living children of a directory under one name.
    fn kids_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>>;
    /// Living children of a directory, by name and id.
    fn kids_after(&self, parent: NodeId, after: Option<(&Name, NodeId)>, limit: usize) -> Result<Vec<(Name, NodeId)>>;
    /// Adds or removes a living child.
    fn set_kid(&mut self, parent: NodeId, name: &Name, node: NodeId, present: bool) -> Result<()>;

    /// An item.
    fn item(&self, key: ItemKey) -> Result<Option<Item>>;
    /// All items of a node, the primary first.
    fn items_of(&self, node: NodeId) -> Result<Vec<(ItemKey, Item)>>;
    /// Writes or removes an item, and its entries in the indexes by name, inode and chunk.
    fn put_item(&mut self, key: ItemKey, item: Option<&Item>) -> Result<()>;
    /// The item at a place on disk.
    fn item_at(&self, parent: NodeId, name: &Name) -> Result<Option<ItemKey>>;
    /// Items of a directory, by name.
    fn items_in(&self, parent: NodeId, after: Option<&Name>, limit: usize) -> Result<Vec<(Name, ItemKey)>>;
    /// Items whose inode this was.
    fn items_of_inode(&self, dev: u64, ino: u64) -> Result<Vec<ItemKey>>;
    /// Some items whose content has this chunk.
    fn holders(&self, chunk: ChunkId, limit: usize) -> Result<Vec<ItemKey>>;

    /// Whether the relay may lack this node's state.
    fn is_unsent(&self, node: NodeId) -> Result<bool>;
    /// Remembers whether the relay may lack this node's state.
    fn set_unsent(&mut self, node: NodeId, unsent: bool) -> Result<()>;
    /// Unsent nodes in the order of their ids.
    fn unsent_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>>;
    /// How many nodes are marked so. Costs no reading: it is asked for with every status.
    fn unsent(&self) -> u64;

    /// The runs of our own feed, newest last.
    fn feed_runs(&self) -> Result<Vec<FeedRun>>;
    /// Remembers the runs of our own feed, at most [`FEED_RUNS_MAX`].
    fn set_feed_runs(&mut self, runs: &[FeedRun]) -> Result<()>;
    /// How far the feed of another device was read.
    fn peer_cursor(&self, replica: ReplicaId) -> Result<Option<PeerCursor>>;
    /// Remembers how far the feed of another device was read.
    fn set_peer_cursor(&mut self, replica: ReplicaId, cursor: Option<PeerCursor>) -> Result<()>;

    /// Forgets all nodes and items, and how far the feeds of other devices were read. Of the rest only the counts change.
    fn clear(&mut self) -> Result<()>;

    /// The rest.
    fn meta(&self) -> &Meta;
    /// The rest, to write to.
    fn meta_mut(&mut self) -> &mut Meta;
}

impl Item {
    /// Size in bytes for people.
    pub fn size(&self) -> u64 {
        match &self.content {
            ItemContent::File(manifest) => manifest.size(),
            _ => 0,
        }
    }
}
