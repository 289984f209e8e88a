//! Blobs in memory: for tests and the simulated world.

use super::StoreError;
use super::blob::{BlobRow, BlobStore};
use super::content::PackId;
use crate::clock::Clock;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Blobs in memory.
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<PackId, (i64, Bytes)>>,
    clock: Arc<dyn Clock>,
}

impl MemoryBlobs {
    /// No blobs yet; the clock gives the time of writing.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { blobs: Mutex::default(), clock }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<PackId, (i64, Bytes)>> {
        // A panic while the lock is held leaves a whole map: every change is one call.
        self.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes a blob's bytes behind the relay's back: what a bad disk does. Returns whether it was there.
    pub fn damage(&self, id: PackId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut map = self.map();
        let Some((_, blob)) = map.get_mut(&id) else { return false };
        let mut bytes = blob.to_vec();
        change(&mut bytes);
        *blob = bytes.into();
        true
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(parts.iter().map(Bytes::len).sum());
        for part in parts {
            bytes.extend_from_slice(&part);
        }
        let now_ms = self.clock.now_ms();
        self.map().insert(id, (now_ms, bytes.into()));
        Ok(())
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        let map = self.map();
        let Some((_, blob)) = map.get(&id) else { return Ok(None) };
        let Ok(from) = usize::try_from(offset) else { return Ok(None) };
        let Some(to) = from.checked_add(len).filter(|to| *to <= blob.len()) else { return Ok(None) };
        Ok(Some(blob.slice(from..to)))
    }

    async fn delete(&self, id: PackId) -> Result<(), StoreError> {
        self.map().remove(&id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BlobRow>, StoreError> {
        let map = self.map();
        Ok(map.iter().map(|(id, (at, b))| BlobRow { id: *id, length_bytes: b.len() as u64, written_at_ms: *at }).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
