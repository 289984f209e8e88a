//! [`Trees`] in memory: for tests, the simulated world and as the reference of the contract suite.

use crate::trees::{FeedRun, Item, ItemContent, ItemKey, Meta, NodeRecord, PeerCursor, Result, Trees};
use ferry_protocol::{ChunkId, Name, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// All trees of a namespace in ordered maps.
#[derive(Debug, Clone)]
pub struct MemoryTrees {
    nodes: BTreeMap<NodeId, NodeRecord>,
    feed: BTreeMap<u64, NodeId>,
    kids: BTreeSet<(NodeId, Name, NodeId)>,
    items: BTreeMap<ItemKey, Item>,
    names: BTreeMap<(NodeId, Name), ItemKey>,
    inodes: BTreeSet<(u64, u64, ItemKey)>,
    chunks: BTreeSet<(ChunkId, ItemKey)>,
    unsent: BTreeSet<NodeId>,
    runs: Vec<FeedRun>,
    peers: BTreeMap<ReplicaId, PeerCursor>,
    meta: Meta,
}

impl MemoryTrees {
    /// Empty trees that write under this replica id.
    pub fn new(replica: ReplicaId) -> Self {
        Self {
            nodes: BTreeMap::new(),
            feed: BTreeMap::new(),
            kids: BTreeSet::new(),
            items: BTreeMap::new(),
            names: BTreeMap::new(),
            inodes: BTreeSet::new(),
            chunks: BTreeSet::new(),
            unsent: BTreeSet::new(),
            runs: Vec::new(),
            peers: BTreeMap::new(),
            meta: Meta::new(replica),
        }
    }

    /// All items.
    pub fn all_items(&self) -> impl Iterator<Item = (&ItemKey, &Item)> {
        self.items.iter()
    }

    /// All node states.
    pub fn states(&self) -> ferry_protocol::read::States {
        self.nodes.iter().map(|(id, r)| (*id, r.state.clone())).collect()
    }

    fn index(&mut self, key: ItemKey, item: &Item, present: bool) {
        let place = (item.parent, item.name.clone());
        let inode = (item.stat.dev, item.stat.ino, key);
        if present {
            self.names.insert(place, key);
            self.inodes.insert(inode);
        } else {
            if self.names.get(&place) == Some(&key) {
                self.names.remove(&place);
            }
            self.inodes.remove(&inode);
        }
        if let ItemContent::File(manifest) = &item.content {
            for chunk in manifest.chunks() {
                if present {
                    self.chunks.insert((chunk.id, key));
                } else {
                    self.chunks.remove(&(chunk.id, key));
                }
            }
        }
    }
}

const FIRST_KEY: ItemKey = ItemKey { node: NodeId::ROOT, copy: None };

impl Trees for MemoryTrees {
    fn node(&self, id: NodeId) -> Result<Option<NodeRecord>> {
        Ok(self.nodes.get(&id).cloned())
    }
    fn put_node(&mut self, id: NodeId, record: &NodeRecord) -> Result<()> {
        if let Some(old) = self.nodes.insert(id, record.clone()) {
            self.feed.remove(&old.seq);
        }
        self.feed.insert(record.seq, id);
        Ok(())
    }
    fn nodes_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<(NodeId, NodeRecord)>> {
        let from = after.map_or(Unbounded, Excluded);
        Ok(self.nodes.range((from, Unbounded)).take(limit).map(|(k, v)| (*k, v.clone())).collect())
    }
    fn feed_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, NodeId)>> {
        Ok(self.feed.range((Excluded(seq), Unbounded)).take(limit).map(|(s, n)| (*s, *n)).collect())
    }
    fn kids_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>> {
        let from = (parent, name.clone(), NodeId::ROOT);
        Ok(self.kids.range(from..).take_while(|(p, n, _)| *p == parent && n == name).map(|(_, _, id)| *id).collect())
    }
    fn kids_after(&self, parent: NodeId, after: Option<(&Name, NodeId)>, limit: usize) -> Result<Vec<(Name, NodeId)>> {
        let from = match after {
            Some((name, id)) => Excluded((parent, name.clone(), id)),
            None => match Name::new([1u8]) {
                Ok(first) => Included((parent, first, NodeId::ROOT)),
                Err(_) => Unbounded,
            },
        };
        let rows = self.kids.range((from, Unbounded)).take_while(|(p, _, _)| *p == parent);
        Ok(rows.take(limit).map(|(_, n, id)| (n.clone(), *id)).collect())
    }
    fn set_kid(&mut self, parent: NodeId, name: &Name, node: NodeId, present: bool) -> Result<()> {
        let row = (parent, name.clone(), node);
        if present {
            self.kids.insert(row);
        } else {
            self.kids.remove(&row);
        }
        Ok(())
    }
    fn item(&self, key: ItemKey) -> Result<Option<Item>> {
        Ok(self.items.get(&key).cloned())
    }
    fn items_of(&self, node: NodeId) -> Result<Vec<(ItemKey, Item)>> {
        let rows = self.items.range(ItemKey::primary(node)..).take_while(|(k, _)| k.node == node);
        Ok(rows.map(|(k, v)| (*k, v.clone())).collect())
    }
    fn put_item(&mut self, key: ItemKey, item: Option<&Item>) -> Result<()> {
        if let Some(old) = self.items.remove(&key) {
            self.index(key, &old, false);
            self.meta.items -= 1;
            self.meta.bytes -= old.size();
        }
        if let Some(item) = item {
            self.index(key, item, true);
            self.items.insert(key, item.clone());
            self.meta.items += 1;
            self.meta.bytes += item.size();
        }
        Ok(())
    }
    fn item_at(&self, parent: NodeId, name: &Name) -> Result<Option<ItemKey>> {
        Ok(self.names.get(&(parent, name.clone())).copied())
    }
    fn items_in(&self, parent: NodeId, after: Option<&Name>, limit: usize) -> Result<Vec<(Name, ItemKey)>> {
        let from = match after {
            Some(name) => Excluded((parent, name.clone())),
            None => match Name::new([1u8]) {
                Ok(first) => Included((parent, first)),
                Err(_) => Unbounded,
            },
        };
        let rows = self.names.range((from, Unbounded)).take_while(|((p, _), _)| *p == parent);
        Ok(rows.take(limit).map(|((_, n), k)| (n.clone(), *k)).collect())
    }
    fn items_of_inode(&self, dev: u64, ino: u64) -> Result<Vec<ItemKey>> {
        let rows = self.inodes.range((dev, ino, FIRST_KEY)..).take_while(|(d, i, _)| *d == dev && *i == ino);
        Ok(rows.map(|(_, _, k)| *k).collect())
    }
    fn holders(&self, chunk: ChunkId, limit: usize) -> Result<Vec<ItemKey>> {
        let rows = self.chunks.range((chunk, FIRST_KEY)..).take_while(|(c, _)| *c == chunk);
        Ok(rows.take(limit).map(|(_, k)| *k).collect())
    }
    fn is_unsent(&self, node: NodeId) -> Result<bool> {
        Ok(self.unsent.contains(&node))
    }
    fn set_unsent(&mut self, node: NodeId, unsent: bool) -> Result<()> {
        if unsent {
            self.unsent.insert(node);
        } else {
            self.unsent.remove(&node);
        }
        Ok(())
    }
    fn unsent(&self) -> u64 {
        self.unsent.len() as u64
    }

    fn unsent_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>> {
        let from = after.map_or(Unbounded, Excluded);
        Ok(self.unsent.range((from, Unbounded)).take(limit).copied().collect())
    }
    fn feed_runs(&self) -> Result<Vec<FeedRun>> {
        Ok(self.runs.clone())
    }
    fn set_feed_runs(&mut self, runs: &[FeedRun]) -> Result<()> {
        self.runs = runs.to_vec();
        Ok(())
    }
    fn peer_cursor(&self, replica: ReplicaId) -> Result<Option<PeerCursor>> {
        Ok(self.peers.get(&replica).copied())
    }
    fn set_peer_cursor(&mut self, replica: ReplicaId, cursor: Option<PeerCursor>) -> Result<()> {
        match cursor {
            Some(cursor) => self.peers.insert(replica, cursor),
            None => self.peers.remove(&replica),
        };
        Ok(())
    }
    fn clear(&mut self) -> Result<()> {
        let meta = Meta { items: 0, bytes: 0, ..self.meta.clone() };
        *self = Self { meta, runs: std::mem::take(&mut self.runs), ..Self::new(self.meta.replica) };
        Ok(())
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_in_memory_keep_the_contract() {
        crate::contract::run(|| MemoryTrees::new(ReplicaId::from_bytes([1; 16])));
    }
}
