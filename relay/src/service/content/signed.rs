//! Addresses under which a client reads chunks from the object store itself, past the relay: an option, off unless the operator turns it on.
//!
//! What the relay gives up by it is to hash the bytes just before they leave (RC4): the client hashes them, as it hashes everything (I5). What it keeps:
//! an address is made only for what a version of the namespace names, opens exactly the chunk's bytes, by GET, for five minutes (R55).

use super::{Content, Entry};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::blob::SignedRead;
use ferry_protocol::ChunkId;
use std::time::Duration;

/// How long an address is good.
pub const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Chunks in one request.
const CHUNKS_MAX: usize = 1000;

/// Where a client reads a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
    /// Leave to read it.
    pub read: SignedRead,
}

impl Content {
    /// Addresses for those of these chunks that a version of the namespace names and an object store holds. The others are to be fetched through the
    /// relay.
    pub async fn sign_chunks(&self, entry: &Entry, ids: &[ChunkId]) -> ServiceResult<Vec<SignedChunk>> {
        if !self.config.presign {
            return Err(ServiceError::new(Kind::NotFound, "presign_off", "This relay gives no addresses of its object store.")
                .hint("Fetch the chunks from /download/v1/{namespace}/chunks."));
        }
        if ids.len() > CHUNKS_MAX {
            return Err(ServiceError::new(Kind::TooLarge, "too_many_chunks", format!("At most {CHUNKS_MAX} chunks at once.")));
        }
        let found = self.meta.locate_chunks(entry.row.id, ids, true).await?;
        let mut signed = Vec::new();
        for location in found.into_values() {
            if let Some(read) = self.blobs.signed_read(location.pack, location.offset, location.len as usize, SIGNED_FOR).await? {
                signed.push(SignedChunk { id: location.id, len: location.len, read });
            }
        }
        metrics::counter!("ferry_relay_chunks_signed_total").increment(signed.len() as u64);
        Ok(signed)
    }
}
