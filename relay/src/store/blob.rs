//! Where packs rest: a directory, memory, S3. A blob is written once under a fresh random id and never changed.
//!
//! * **BS1** `put` returned ⇒ the whole blob is durable under its id. Before that no part of it is visible under it (I4, I7).
//! * **BS2** Deleting what is not there is no error; reading it is an absence, not an error (I8).

use super::StoreError;
use super::content::PackId;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A blob as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRow {
    /// Its id.
    pub id: PackId,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// When it was written, in milliseconds since 1970, by the store's clock.
    pub written_at_ms: i64,
}

/// Leave to read some bytes of one blob from the store itself, for a short while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRead {
    /// The address. It is a secret: whoever has it can read.
    pub url: String,
    /// Headers that the request must carry as they stand here; with others, or none, the store refuses.
    pub headers: Vec<(String, String)>,
}

/// A store of blobs.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores a blob, durably (BS1). The parts are written one after another.
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError>;
    /// Reads `len` bytes from `offset`; nothing if the blob is not there or too short.
    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError>;
    /// Deletes a blob.
    async fn delete(&self, id: PackId) -> Result<(), StoreError>;
    /// Every blob, in no order.
    async fn list(&self) -> Result<Vec<BlobRow>, StoreError>;
    /// Leave for others to read exactly these bytes for so long; nothing if the store cannot be reached but through the relay. Whether they are
    /// there is not looked at.
    async fn signed_read(&self, _id: PackId, _offset: u64, _len: usize, _for: Duration) -> Result<Option<SignedRead>, StoreError> {
        Ok(None)
    }
    /// Answers when the store can be read and written: the readiness check.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Blob stores under names.
#[derive(Clone)]
pub struct BlobRegions {
    /// The stores; never empty.
    pub stores: BTreeMap<String, Arc<dyn BlobStore>>,
    /// The one for users without a region of their own.
    pub home: String,
    /// Names in the order in which this process reads from them; those that are missing come after.
    pub prefer: Vec<String>,
}

impl<B: BlobStore> From<Arc<B>> for BlobRegions {
    /// One store for everything.
    fn from(store: Arc<B>) -> Self {
        let name = crate::config::DEFAULT_REGION.to_owned();
        let store: Arc<dyn BlobStore> = store;
        Self { stores: [(name.clone(), store)].into(), home: name, prefer: Vec::new() }
    }
}
