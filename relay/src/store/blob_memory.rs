//! Blobs in memory: for tests and the simulated world.

use super::StoreError;
use super::blob::{BlobRow, BlobStore};
use super::content::PackId;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Blobs in memory. Their time of writing is 0: older than any grace period.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Mutex<BTreeMap<PackId, Bytes>>);

impl MemoryBlobs {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<PackId, Bytes>> {
        // A panic while the lock is held leaves a whole map: every change is one call.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes a blob's bytes behind the relay's back: what a bad disk does. Returns whether it was there.
    pub fn damage(&self, id: PackId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut map = self.map();
        let Some(blob) = map.get_mut(&id) else { return false };
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
        self.map().insert(id, bytes.into());
        Ok(())
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        let map = self.map();
        let Some(blob) = map.get(&id) else { return Ok(None) };
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
        Ok(map.iter().map(|(id, b)| BlobRow { id: *id, length_bytes: b.len() as u64, written_at_ms: 0 }).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
