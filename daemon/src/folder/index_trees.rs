//! The engine's trees on the device's index.
//!
//! Writes are gathered and go to the index together ([`IndexTrees::commit`]), so that the index always holds the trees as they were after
//! one whole call of the engine. Reads see the gathered writes. Keys are ordered so that what is asked together stands together.
//!
//! * **T1** What one call of the engine changed is committed together with everything before it, or not at all (E7).

use crate::index::{Durability, IndexError, IndexStore, OpenedIndex, Row, Table, WriteBatch, prefix_end};
use ferry_engine::trees::Result;
use ferry_engine::{FeedRun, Item, ItemContent, ItemKey, Meta, NodeRecord, PeerCursor, TreeError, Trees};
use ferry_protocol::{ChunkId, Dot, Name, NodeId, ReplicaId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Writes of one table by key; nothing where the row goes.
type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// [`Trees`] on an [`IndexStore`].
pub struct IndexTrees {
    store: Arc<dyn IndexStore>,
    /// Keeps the index to this process; dropped after the store.
    _opened: Option<OpenedIndex>,
    /// Writes that are not in the index yet, by table.
    written: [Writes; Table::ALL.len()],
    meta: Meta,
    stored_meta: Option<Meta>,
    /// How many rows the table of unsent nodes has.
    unsent: u64,
}

/// Everything but [`Table::Meta`].
const TREE_TABLES: [Table; 8] =
    [Table::Nodes, Table::Feed, Table::Kids, Table::Items, Table::Names, Table::Inodes, Table::Chunks, Table::Unsent];

const META_KEY: &[u8] = b"trees";
/// The runs of our own feed, in [`Table::Meta`]. Under `runs` an older version kept them without their leaps: they are forgotten, and readers begin again.
const RUNS_KEY: &[u8] = b"feed_runs";
/// How far the feeds of other devices were read, in [`Table::Meta`]: then the replica's 16 bytes.
const PEER_PREFIX: &[u8] = b"peer/";
/// Chunk ids are cut to this many bytes as keys: a holder is verified before it is used, so a chance hit costs a look.
const CHUNK_KEY_BYTES: usize = 12;

fn store_error(error: IndexError) -> TreeError {
    TreeError(error.to_string())
}

fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| TreeError(e.to_string()))
}

fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V> {
    postcard::from_bytes(bytes).map_err(|e| TreeError(format!("a record is malformed: {e}")))
}

fn malformed() -> TreeError {
    TreeError("a key is malformed".into())
}

fn item_key(key: ItemKey) -> Vec<u8> {
    let mut out = key.node.as_bytes().to_vec();
    if let Some(dot) = key.copy {
        out.extend_from_slice(dot.replica.as_bytes());
        out.extend_from_slice(&dot.counter.to_be_bytes());
    }
    out
}

fn parse_item_key(bytes: &[u8]) -> Result<ItemKey> {
    let (node, rest) = bytes.split_at_checked(16).ok_or_else(malformed)?;
    let node = NodeId::from_slice(node).ok_or_else(malformed)?;
    if rest.is_empty() {
        return Ok(ItemKey { node, copy: None });
    }
    let (replica, counter) = rest.split_at_checked(16).ok_or_else(malformed)?;
    let replica = ReplicaId::from_slice(replica).ok_or_else(malformed)?;
    let counter = u64::from_be_bytes(counter.try_into().map_err(|_| malformed())?);
    Ok(ItemKey { node, copy: Some(Dot { replica, counter }) })
}

/// Parent, then name: a directory's entries in the order of their names.
fn name_key(parent: NodeId, name: &Name) -> Vec<u8> {
    [parent.as_bytes(), name.as_bytes()].concat()
}

/// A zero byte ends the name: no name holds one.
fn kid_key(parent: NodeId, name: &Name, node: NodeId) -> Vec<u8> {
    [parent.as_bytes(), name.as_bytes(), &[0][..], node.as_bytes()].concat()
}

fn parse_kid(key: &[u8]) -> Result<(Name, NodeId)> {
    let rest = key.get(16..).ok_or_else(malformed)?;
    let (name, node) = rest.split_at_checked(rest.len().saturating_sub(17)).ok_or_else(malformed)?;
    let node = node.get(1..).and_then(NodeId::from_slice).ok_or_else(malformed)?;
    Ok((Name::new(name).map_err(|_| malformed())?, node))
}

fn inode_key(dev: u64, ino: u64) -> Vec<u8> {
    [dev.to_be_bytes(), ino.to_be_bytes()].concat()
}

fn peer_key(replica: ReplicaId) -> Vec<u8> {
    [PEER_PREFIX, replica.as_bytes()].concat()
}

/// The first key after this one.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

impl IndexTrees {
    /// Opens the trees in an index; a fresh index gets trees that write under `replica`.
    pub fn open(opened: OpenedIndex, replica: ReplicaId) -> Result<Self> {
        let store = opened.store.clone();
        Self::on(store, Some(opened), replica)
    }

    /// Opens the trees on a store; `opened`, if given, holds its lock.
    pub fn on(store: Arc<dyn IndexStore>, opened: Option<OpenedIndex>, replica: ReplicaId) -> Result<Self> {
        let stored = store.get(Table::Meta, META_KEY).map_err(store_error)?;
        let stored_meta: Option<Meta> = stored.map(|bytes| decode(&bytes)).transpose()?;
        let meta = stored_meta.clone().unwrap_or_else(|| Meta::new(replica));
        let mut trees = Self { store, _opened: opened, written: Default::default(), meta, stored_meta, unsent: 0 };
        trees.count_unsent()?;
        Ok(trees)
    }

    fn count_unsent(&mut self) -> Result<()> {
        let mut from = Vec::new();
        loop {
            let rows = self.store.range(Table::Unsent, &from, None, 4096).map_err(store_error)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            self.unsent += rows.len() as u64;
            from = after_key(last.clone());
        }
    }

    /// Brings all gathered writes to the index, together.
    pub fn commit(&mut self, durability: Durability) -> Result<()> {
        let meta_changed = self.meta_changed();
        if self.gathered() == 0 && durability == Durability::Relaxed {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        if meta_changed {
            batch.put(Table::Meta, META_KEY, encode(&self.meta)?);
        }
        for (table, writes) in Table::ALL.into_iter().zip(std::mem::take(&mut self.written)) {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
        }
        if let Err(error) = self.store.commit(&batch, durability) {
            // A later commit without these writes would be half of what the engine did.
            let rows = batch.writes().iter().filter(|w| (w.table, &w.key[..]) != (Table::Meta, META_KEY));
            rows.for_each(|w| self.set(w.table, w.key.clone(), w.value.clone()));
            return Err(store_error(error));
        }
        self.stored_meta = Some(self.meta.clone());
        Ok(())
    }

    /// How many writes wait for [`IndexTrees::commit`].
    pub fn gathered(&self) -> usize {
        self.written.iter().map(BTreeMap::len).sum::<usize>() + usize::from(self.meta_changed())
    }

    fn meta_changed(&self) -> bool {
        self.stored_meta.as_ref() != Some(&self.meta)
    }

    fn written(&self, table: Table) -> &Writes {
        &self.written[table as usize - 1]
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.written(table).get(key) {
            Some(value) => Ok(value.clone()),
            None => self.store.get(table, key).map_err(store_error),
        }
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.written[table as usize - 1].insert(key, value);
    }

    /// Rows from `from` on and before `until`, the gathered writes included, at most `limit`.
    fn range(&self, table: Table, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let written = || self.written(table).range::<[u8], _>((Included(from), until.map_or(Unbounded, Excluded)));
        if written().next().is_none() {
            return self.store.range(table, from, until, limit).map_err(store_error);
        }
        let removed = written().filter(|(_, value)| value.is_none()).count();
        let stored = self.store.range(table, from, until, limit.saturating_add(removed)).map_err(store_error)?;
        let complete = stored.len() < limit.saturating_add(removed);
        let last = stored.last().map(|(key, _)| key.clone());
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in written() {
            // Beyond what was read of the index, its rows are not known.
            if !complete && last.as_ref().is_some_and(|last| key > last) {
                break;
            }
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    fn prefix(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>> {
        self.range(table, prefix, prefix_end(prefix).as_deref(), limit)
    }

    fn remove_all(&mut self, table: Table, prefix: &[u8]) -> Result<()> {
        let (mut from, end) = (prefix.to_vec(), prefix_end(prefix));
        loop {
            let rows = self.range(table, &from, end.as_deref(), 4096)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = after_key(last.clone());
            for (key, _) in rows {
                self.set(table, key, None);
            }
        }
    }

    fn index_item(&mut self, key: ItemKey, old: Option<&Item>, new: Option<&Item>) -> Result<()> {
        let bytes = item_key(key);
        let place = |item: &Item| name_key(item.parent, &item.name);
        let inode = |item: &Item| [inode_key(item.stat.dev, item.stat.ino), bytes.clone()].concat();
        if old.map(place) != new.map(place)
            && let Some(old) = old
        {
            // Somebody else may stand there by now.
            if self.get(Table::Names, &place(old))?.as_deref() == Some(&bytes) {
                self.set(Table::Names, place(old), None);
            }
        }
        if let Some(new) = new {
            self.set(Table::Names, place(new), Some(bytes.clone()));
        }
        if old.map(inode) != new.map(inode) {
            if let Some(old) = old {
                self.set(Table::Inodes, inode(old), None);
            }
            if let Some(new) = new {
                self.set(Table::Inodes, inode(new), Some(Vec::new()));
            }
        }
        let same_content = matches!((old, new), (Some(a), Some(b)) if a.content == b.content);
        if !same_content {
            for (item, present) in [(old, false), (new, true)] {
                let Some(Item { content: ItemContent::File(manifest), .. }) = item else { continue };
                for chunk in manifest.chunks() {
                    let chunk_key = [&chunk.id.as_bytes()[..CHUNK_KEY_BYTES], &bytes].concat();
                    self.set(Table::Chunks, chunk_key, present.then(Vec::new));
                }
            }
        }
        Ok(())
    }
}

impl Trees for IndexTrees {
    fn node(&self, id: NodeId) -> Result<Option<NodeRecord>> {
        self.get(Table::Nodes, id.as_bytes())?.map(|bytes| decode(&bytes)).transpose()
    }

    fn put_node(&mut self, id: NodeId, record: &NodeRecord) -> Result<()> {
        if let Some(old) = self.node(id)? {
            self.set(Table::Feed, old.seq.to_be_bytes().to_vec(), None);
        }
        self.set(Table::Feed, record.seq.to_be_bytes().to_vec(), Some(id.as_bytes().to_vec()));
        self.set(Table::Nodes, id.as_bytes().to_vec(), Some(encode(record)?));
        Ok(())
    }

    fn nodes_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<(NodeId, NodeRecord)>> {
        let from = after.map_or_else(Vec::new, |id| after_key(id.as_bytes().to_vec()));
        let rows = self.range(Table::Nodes, &from, None, limit)?;
        rows.into_iter().map(|(k, v)| Ok((NodeId::from_slice(&k).ok_or_else(malformed)?, decode(&v)?))).collect()
    }

    fn feed_after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, NodeId)>> {
        let Some(from) = seq.checked_add(1) else { return Ok(Vec::new()) };
        let rows = self.range(Table::Feed, &from.to_be_bytes(), None, limit)?;
        let parse = |(k, v): Row| {
            let seq = u64::from_be_bytes(k.try_into().map_err(|_| malformed())?);
            Ok((seq, NodeId::from_slice(&v).ok_or_else(malformed)?))
        };
        rows.into_iter().map(parse).collect()
    }

    fn kids_named(&self, parent: NodeId, name: &Name) -> Result<Vec<NodeId>> {
        let prefix = [parent.as_bytes(), name.as_bytes(), &[0][..]].concat();
        let rows = self.prefix(Table::Kids, &prefix, usize::MAX / 2)?;
        rows.iter().map(|(key, _)| parse_kid(key).map(|(_, id)| id)).collect()
    }

    fn kids_after(&self, parent: NodeId, after: Option<(&Name, NodeId)>, limit: usize) -> Result<Vec<(Name, NodeId)>> {
        let from = match after {
            Some((name, id)) => after_key(kid_key(parent, name, id)),
            None => parent.as_bytes().to_vec(),
        };
        let rows = self.range(Table::Kids, &from, prefix_end(parent.as_bytes()).as_deref(), limit)?;
        rows.iter().map(|(key, _)| parse_kid(key)).collect()
    }

    fn set_kid(&mut self, parent: NodeId, name: &Name, node: NodeId, present: bool) -> Result<()> {
        self.set(Table::Kids, kid_key(parent, name, node), present.then(Vec::new));
        Ok(())
    }

    fn item(&self, key: ItemKey) -> Result<Option<Item>> {
        self.get(Table::Items, &item_key(key))?.map(|bytes| decode(&bytes)).transpose()
    }

    fn items_of(&self, node: NodeId) -> Result<Vec<(ItemKey, Item)>> {
        let rows = self.prefix(Table::Items, node.as_bytes(), usize::MAX / 2)?;
        rows.into_iter().map(|(k, v)| Ok((parse_item_key(&k)?, decode(&v)?))).collect()
    }

    fn put_item(&mut self, key: ItemKey, item: Option<&Item>) -> Result<()> {
        let old = self.item(key)?;
        self.index_item(key, old.as_ref(), item)?;
        self.meta.items = self.meta.items + u64::from(item.is_some()) - u64::from(old.is_some());
        self.meta.bytes = (self.meta.bytes + item.map_or(0, Item::size)).saturating_sub(old.as_ref().map_or(0, Item::size));
        let value = item.map(encode).transpose()?;
        if old.is_some() || value.is_some() {
            self.set(Table::Items, item_key(key), value);
        }
        Ok(())
    }

    fn item_at(&self, parent: NodeId, name: &Name) -> Result<Option<ItemKey>> {
        self.get(Table::Names, &name_key(parent, name))?.map(|bytes| parse_item_key(&bytes)).transpose()
    }

    fn items_in(&self, parent: NodeId, after: Option<&Name>, limit: usize) -> Result<Vec<(Name, ItemKey)>> {
        let from = after.map_or_else(|| parent.as_bytes().to_vec(), |name| after_key(name_key(parent, name)));
        let rows = self.range(Table::Names, &from, prefix_end(parent.as_bytes()).as_deref(), limit)?;
        let parse = |(k, v): Row| Ok((Name::new(k.get(16..).unwrap_or_default()).map_err(|_| malformed())?, parse_item_key(&v)?));
        rows.into_iter().map(parse).collect()
    }

    fn items_of_inode(&self, dev: u64, ino: u64) -> Result<Vec<ItemKey>> {
        let rows = self.prefix(Table::Inodes, &inode_key(dev, ino), usize::MAX / 2)?;
        rows.iter().map(|(key, _)| parse_item_key(key.get(16..).unwrap_or_default())).collect()
    }

    fn holders(&self, chunk: ChunkId, limit: usize) -> Result<Vec<ItemKey>> {
        let rows = self.prefix(Table::Chunks, &chunk.as_bytes()[..CHUNK_KEY_BYTES], limit)?;
        rows.iter().map(|(key, _)| parse_item_key(key.get(CHUNK_KEY_BYTES..).unwrap_or_default())).collect()
    }

    fn is_unsent(&self, node: NodeId) -> Result<bool> {
        Ok(self.get(Table::Unsent, node.as_bytes())?.is_some())
    }

    fn set_unsent(&mut self, node: NodeId, unsent: bool) -> Result<()> {
        if self.is_unsent(node)? == unsent {
            return Ok(());
        }
        self.unsent = if unsent { self.unsent + 1 } else { self.unsent.saturating_sub(1) };
        self.set(Table::Unsent, node.as_bytes().to_vec(), unsent.then(Vec::new));
        Ok(())
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn unsent_after(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>> {
        let from = after.map_or_else(Vec::new, |id| after_key(id.as_bytes().to_vec()));
        let rows = self.range(Table::Unsent, &from, None, limit)?;
        rows.iter().map(|(key, _)| NodeId::from_slice(key).ok_or_else(malformed)).collect()
    }

    fn feed_runs(&self) -> Result<Vec<FeedRun>> {
        Ok(self.get(Table::Meta, RUNS_KEY)?.map(|bytes| decode(&bytes)).transpose()?.unwrap_or_default())
    }

    fn set_feed_runs(&mut self, runs: &[FeedRun]) -> Result<()> {
        self.set(Table::Meta, RUNS_KEY.to_vec(), Some(encode(&runs.to_vec())?));
        Ok(())
    }

    fn peer_cursor(&self, replica: ReplicaId) -> Result<Option<PeerCursor>> {
        self.get(Table::Meta, &peer_key(replica))?.map(|bytes| decode(&bytes)).transpose()
    }

    fn set_peer_cursor(&mut self, replica: ReplicaId, cursor: Option<PeerCursor>) -> Result<()> {
        let value = cursor.as_ref().map(encode).transpose()?;
        self.set(Table::Meta, peer_key(replica), value);
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        for table in TREE_TABLES {
            self.remove_all(table, &[])?;
        }
        self.remove_all(Table::Meta, PEER_PREFIX)?;
        (self.meta.items, self.meta.bytes, self.unsent) = (0, 0, 0);
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
    use crate::index::{Kind, MemoryDisk, open, open_memory};
    use ferry_engine::contract;
    use std::cell::Cell;
    use std::path::Path;

    const REPLICA: ReplicaId = ReplicaId::from_bytes([1; 16]);

    fn in_memory(disk: &MemoryDisk) -> IndexTrees {
        IndexTrees::on(open_memory(disk).unwrap(), None, REPLICA).unwrap()
    }

    fn on_disk(directory: &Path, kind: Kind) -> IndexTrees {
        IndexTrees::open(open(directory, kind).unwrap(), REPLICA).unwrap()
    }

    #[test]
    fn trees_in_an_index_keep_the_contract() {
        contract::run(|| in_memory(&MemoryDisk::new()));
        for kind in [Kind::Redb, Kind::Sled] {
            let (parent, count) = (tempfile::tempdir().unwrap(), Cell::new(0));
            contract::run(|| {
                let directory = parent.path().join(count.replace(count.get() + 1).to_string());
                std::fs::create_dir(&directory).unwrap();
                on_disk(&directory, kind)
            });
        }
    }

    /// Now and then what was gathered goes to the index, and the trees are closed and opened again.
    fn histories(writes: usize, seeds: std::ops::Range<u64>, make: impl Fn(u64) -> Box<dyn Fn() -> IndexTrees>) {
        for seed in seeds {
            let open = make(seed);
            contract::agrees_with_memory(open(), seed, writes, |mut trees, number| match number % 7 {
                0..3 => trees,
                3 => {
                    trees.commit(Durability::Durable).unwrap();
                    drop(trees);
                    open()
                }
                _ => {
                    trees.commit(Durability::Relaxed).unwrap();
                    trees
                }
            });
        }
    }

    #[test]
    fn trees_in_an_index_answer_as_trees_in_memory() {
        histories(120, 0..40, |_| {
            let disk = MemoryDisk::new();
            Box::new(move || in_memory(&disk))
        });
        for kind in [Kind::Redb, Kind::Sled] {
            let parent = tempfile::tempdir().unwrap();
            histories(120, 0..2, |seed| {
                let directory = parent.path().join(seed.to_string());
                std::fs::create_dir(&directory).unwrap();
                Box::new(move || on_disk(&directory, kind))
            });
        }
    }

    /// T1, K10: what a full disk refused is never left out of a later commit; opened again, the trees are as before it.
    #[test]
    fn a_commit_that_a_full_disk_refused_leaves_the_trees_whole() {
        let (disk, old, new) = (MemoryDisk::new(), NodeId::from_bytes([6; 16]), NodeId::from_bytes([7; 16]));
        let mut trees = in_memory(&disk);
        trees.set_unsent(old, true).unwrap();
        trees.commit(Durability::Durable).unwrap();
        trees.set_unsent(new, true).unwrap();
        disk.set_full(true);
        assert!(trees.commit(Durability::Durable).is_err());
        disk.set_full(false);
        let refused = trees.commit(Durability::Durable).is_err();
        assert_eq!(trees.is_unsent(new), Ok(true), "reads go on to see it");
        drop(trees);
        let trees = in_memory(&disk);
        assert_eq!((trees.is_unsent(old), trees.is_unsent(new)), (Ok(true), Ok(!refused)));
    }
}
