//! Where packs rest: a directory, memory, S3. A blob is written once under a fresh random id and never changed.
//!
//! * **BS1** `put` returned ⇒ the whole blob is durable under its id. Before that no part of it is visible under it (I4, I7).
//! * **BS2** Deleting what is not there is no error; reading it is an absence, not an error (I8).

use super::StoreError;
use super::content::PackId;
use async_trait::async_trait;
use bytes::Bytes;

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
    /// Answers when the store can be read and written: the readiness check.
    async fn ping(&self) -> Result<(), StoreError>;
}
