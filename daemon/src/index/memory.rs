//! The index in memory: for tests, and for the simulated world. It can lose what was not durable, as a power cut does.

use super::checked::{Backend, Checked, RawWrite};
use super::{Durability, IndexError, IndexStore, Row};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The "disk" below an index in memory: it outlives the index that is opened on it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    /// What is durable.
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Batches after that, in order.
    pending: Vec<Vec<RawWrite>>,
    /// Both together.
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the disk is full.
    full: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of the batches that were not durable only the first `kept` survive. Open the index again afterwards.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.disk();
        disk.pending.truncate(kept);
        disk.settle();
    }

    /// Fills the disk, or makes room: on a full one every commit fails and writes nothing.
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// How many batches a crash could lose.
    pub fn pending_batches(&self) -> usize {
        self.disk().pending.len()
    }

    /// Flips one bit of the value that stands `nth` in key order: damage of the medium. Says whether there was one.
    pub fn flip_bit(&self, nth: usize) -> bool {
        let mut disk = self.disk();
        let Some(key) = disk.now.keys().nth(nth).cloned() else { return false };
        for map in [true, false] {
            let rows = if map { &mut disk.now } else { &mut disk.durable };
            if let Some(byte) = rows.get_mut(&key).and_then(|value| value.first_mut()) {
                *byte ^= 1;
            }
        }
        true
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn settle(&mut self) {
        for batch in std::mem::take(&mut self.pending) {
            write(&mut self.durable, &batch);
        }
        self.now = self.durable.clone();
    }
}

fn write(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &[RawWrite]) {
    for (key, value) in batch {
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
}

/// Opens an index on a disk in memory. It is damaged when a crash or a test damaged it.
pub fn open_memory(disk: &MemoryDisk) -> Result<Arc<dyn IndexStore>, IndexError> {
    Ok(Arc::new(Checked::new(disk.clone(), None)?))
}

impl Backend for MemoryDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.disk().now.get(key).cloned())
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let disk = self.disk();
        let rows = disk.now.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(until)));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), IndexError> {
        let mut disk = self.disk();
        if disk.full {
            return Err(IndexError::Io { doing: "writing a batch", source: std::io::ErrorKind::StorageFull.into() });
        }
        write(&mut disk.now, &writes);
        disk.pending.push(writes);
        if durability == Durability::Durable {
            for batch in std::mem::take(&mut disk.pending) {
                write(&mut disk.durable, &batch);
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, IndexError> {
        Ok(self.disk().now.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
