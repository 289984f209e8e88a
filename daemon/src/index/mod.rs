//! The device's index: what it knows of its folders between two runs.
//!
//! An ordered key-value store in plain types ([`IndexStore`]), so that the library below can change. Three of them stand behind it: redb
//! ([`DEFAULT_KIND`], docs/adr/0002-index-store.md says why), sled, and memory; one contract suite runs on all three.
//!
//! The index is never the truth about a file: the disk is. Losing it costs a rescan, not a delete (I2, I3). What must not happen is that it
//! is *wrong* without anyone noticing, so this layer adds to every library:
//!
//! * **X1** A batch is applied whole or not at all; a `Durable` batch is on the disk when `commit` returns.
//! * **X2** Every value carries a checksum of its table, key and value. A value that does not match is damage, never a row.
//! * **X3** The number of the last durable batch stands a second time, outside the store. A store that is behind it was rolled back or cut
//!   short, and is damaged: counters of an older state must not be used again (I8, I11).
//! * **X4** Damaged files are set aside under another name, never deleted; the caller is told that the index is new.
//! * **X5** One process at a time. An index of a newer format is refused and left as it is.

mod checked;
#[cfg(test)]
mod contract;
mod error;
#[cfg(test)]
mod kill_test;
mod memory;
mod open;
mod redb;
mod sled;

pub use error::IndexError;
pub use memory::{MemoryDisk, open_memory};
pub use open::{Kind, OpenedIndex, Origin, open};

/// The library of a new index. docs/adr/0002-index-store.md has the figures.
pub const DEFAULT_KIND: Kind = Kind::Redb;

/// Memory that a store may use for its cache, in bytes.
pub const CACHE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The tables of an index. Each is ordered by key on its own.
///
/// The number is on disk: never change or reuse one, append new ones. Number 0 belongs to this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Facts about the index and its folder: replica id, counters, cursors.
    Meta = 1,
    /// Node states: the join of everything heard.
    Nodes = 2,
    /// This replica's own feed: sequence number to node.
    Feed = 3,
    /// Children by parent.
    Kids = 4,
    /// What the disk holds, by node.
    Items = 5,
    /// Items by parent and name.
    Names = 6,
    /// Items by inode, to recognise moves.
    Inodes = 7,
    /// Where a chunk stands: chunk id to file and offset.
    Chunks = 8,
    /// Changes that the relay has not confirmed.
    Unsent = 9,
    /// The last state that both sides held.
    Synced = 10,
    /// Nodes that wait for a plan.
    Dirty = 11,
    /// The trash: displaced versions and their retention.
    Trash = 12,
    /// Problems per path, for the status.
    Issues = 13,
    /// Unfinished downloads.
    Partial = 14,
}

impl Table {
    /// All tables, in order of their numbers.
    pub const ALL: [Table; 14] = [
        Table::Meta,
        Table::Nodes,
        Table::Feed,
        Table::Kids,
        Table::Items,
        Table::Names,
        Table::Inodes,
        Table::Chunks,
        Table::Unsent,
        Table::Synced,
        Table::Dirty,
        Table::Trash,
        Table::Issues,
        Table::Partial,
    ];

    /// The table's number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// When a batch is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When `commit` returns, and with it every earlier batch.
    Durable,
    /// Some time later. Power loss or a kill may lose it, but only together with every later batch.
    Relaxed,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// The new value, or nothing to delete the key.
    pub value: Option<Vec<u8>>,
}

/// Writes that are applied together, in order: of two writes of one key the later counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    writes: Vec<Write>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key to a value.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push(Write { table, key: key.into(), value: Some(value.into()) });
    }

    /// Deletes a key; deleting one that is not there is no error.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.push(Write { table, key: key.into(), value: None });
    }

    /// The writes, in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// How many writes there are.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Forgets the writes and keeps the memory.
    pub fn clear(&mut self) {
        self.writes.clear();
    }

    /// Adds the writes of another batch after these.
    pub fn append(&mut self, mut other: WriteBatch) {
        self.writes.append(&mut other.writes);
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered key-value store. Calls block on the disk: use a thread that may.
pub trait IndexStore: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Pairs with key at or after `from` and before `until` (nothing: to the end of the table), in key order, at most `limit`.
    fn range(&self, table: Table, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, IndexError>;

    /// Applies all writes or none (X1). An empty durable batch makes the earlier relaxed ones durable.
    fn commit(&self, batch: &WriteBatch, durability: Durability) -> Result<(), IndexError>;

    /// What the store takes on the disk, in bytes.
    fn size_bytes(&self) -> Result<u64, IndexError>;
}

/// The first key after all keys that begin with `prefix`: the `until` of a prefix scan. Nothing if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_numbers_are_frozen() {
        let numbers: Vec<u8> = Table::ALL.iter().map(|t| t.number()).collect();
        assert_eq!(numbers, (1..=14).collect::<Vec<u8>>());
        assert_eq!(Table::Items.number(), 5);
        assert_eq!(Table::Partial.number(), 14);
    }

    #[test]
    fn the_end_of_a_prefix_is_just_after_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255, 255]), None);
        assert_eq!(prefix_end(b""), None);
    }
}
