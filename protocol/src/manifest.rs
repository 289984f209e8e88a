//! What a file's content is: the chunks in order, and the hash of the whole.

use crate::bounded;
use crate::id::{ChunkId, ContentHash};
use crate::limits::{CHUNK_MAX_BYTES, FILE_MAX_BYTES, MANIFEST_CHUNKS_MAX};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One chunk of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// SHA-256 of the chunk's bytes.
    pub id: ChunkId,
    /// Length of the chunk in bytes; never 0.
    pub len: u32,
}

/// Why chunks, a size and a hash are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More chunks or bytes than [`crate::limits`] allow.
    #[error("a manifest has at most {MANIFEST_CHUNKS_MAX} chunks and {FILE_MAX_BYTES} bytes")]
    TooLarge,
    /// A chunk of no bytes, or above the largest chunk.
    #[error("a chunk has 1 to {CHUNK_MAX_BYTES} bytes, not {0}")]
    ChunkLength(u32),
    /// A manifest of one chunk whose hash is not the hash of the whole.
    #[error("the hash of the only chunk is not the hash of the file")]
    HashDiffers,
}

/// Content of a file: its chunks in order and the SHA-256 of the whole. The size is the sum of the chunks (I10).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawManifest")]
pub struct Manifest {
    hash: ContentHash,
    chunks: Arc<[ChunkRef]>,
    #[serde(skip)]
    size: u64,
}

#[derive(Deserialize)]
struct RawManifest {
    hash: ContentHash,
    #[serde(deserialize_with = "bounded::list::<MANIFEST_CHUNKS_MAX, _, _>")]
    chunks: Vec<ChunkRef>,
}

impl TryFrom<RawManifest> for Manifest {
    type Error = ManifestError;
    fn try_from(raw: RawManifest) -> Result<Self, ManifestError> {
        Manifest::new(raw.hash, raw.chunks)
    }
}

impl Manifest {
    /// A manifest, if the chunks can be one.
    pub fn new(hash: ContentHash, chunks: Vec<ChunkRef>) -> Result<Self, ManifestError> {
        if chunks.len() > MANIFEST_CHUNKS_MAX {
            return Err(ManifestError::TooLarge);
        }
        let mut size: u64 = 0;
        for chunk in &chunks {
            if chunk.len == 0 || chunk.len as usize > CHUNK_MAX_BYTES {
                return Err(ManifestError::ChunkLength(chunk.len));
            }
            size += u64::from(chunk.len);
        }
        if size > FILE_MAX_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let only = match &chunks[..] {
            [] => ContentHash::of(b"") == hash,
            [one] => one.id.as_bytes() == hash.as_bytes(),
            _ => true,
        };
        if !only {
            return Err(ManifestError::HashDiffers);
        }
        Ok(Self { hash, chunks: chunks.into(), size })
    }

    /// The manifest of an empty file.
    pub fn empty() -> Self {
        Self { hash: ContentHash::of(b""), chunks: Arc::new([]), size: 0 }
    }

    /// SHA-256 of the whole file.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Each chunk with the offset in bytes at which it stands.
    pub fn with_offsets(&self) -> impl Iterator<Item = (u64, ChunkRef)> + '_ {
        self.chunks.iter().scan(0u64, |offset, chunk| {
            let at = *offset;
            *offset += u64::from(chunk.len);
            Some((at, *chunk))
        })
    }
}

/// Bytes that were hashed and found to be the chunk that they claim to be (P3). There is no other way to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChunk<B: AsRef<[u8]> = Vec<u8>> {
    id: ChunkId,
    bytes: B,
}

impl<B: AsRef<[u8]>> VerifiedChunk<B> {
    /// The chunk, if `bytes` are what `id` names; otherwise nothing.
    pub fn verify(id: ChunkId, bytes: B) -> Option<Self> {
        (bytes.as_ref().len() <= CHUNK_MAX_BYTES && ChunkId::of(bytes.as_ref()) == id).then_some(Self { id, bytes })
    }

    /// The chunk that these bytes are.
    pub fn of(bytes: B) -> Self {
        Self { id: ChunkId::of(bytes.as_ref()), bytes }
    }

    /// The chunk's id.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The chunk's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The same chunk in memory of its own.
    pub fn to_vec(&self) -> VerifiedChunk<Vec<u8>> {
        VerifiedChunk { id: self.id, bytes: self.bytes.as_ref().to_vec() }
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> B {
        self.bytes
    }
}

impl VerifiedChunk<Vec<u8>> {
    /// The same bytes in another owner, which a conversion without copying gives: they are not hashed again.
    pub fn into_owner<B: AsRef<[u8]> + From<Vec<u8>>>(self) -> VerifiedChunk<B> {
        VerifiedChunk { id: self.id, bytes: B::from(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_lies_is_refused() {
        let id = ChunkId::of(b"x");
        let hash = ContentHash::of(b"x");
        assert!(Manifest::new(hash, vec![ChunkRef { id, len: 1 }]).is_ok());
        assert_eq!(Manifest::new(hash, vec![ChunkRef { id, len: 0 }]), Err(ManifestError::ChunkLength(0)));
        assert!(matches!(Manifest::new(hash, vec![ChunkRef { id, len: u32::MAX }]), Err(ManifestError::ChunkLength(_))));
        assert_eq!(Manifest::new(ContentHash::of(b"y"), vec![ChunkRef { id, len: 1 }]), Err(ManifestError::HashDiffers));
        assert_eq!(Manifest::new(hash, vec![]), Err(ManifestError::HashDiffers));
        assert_eq!(Manifest::new(ContentHash::of(b""), vec![]), Ok(Manifest::empty()));
    }

    #[test]
    fn only_true_bytes_become_a_verified_chunk() {
        assert!(VerifiedChunk::verify(ChunkId::of(b"x"), b"x".to_vec()).is_some());
        assert!(VerifiedChunk::verify(ChunkId::of(b"x"), b"y".to_vec()).is_none());
    }

    #[test]
    fn the_size_comes_back_when_decoded() {
        let chunks = vec![ChunkRef { id: ChunkId::of(b"a"), len: 5 }, ChunkRef { id: ChunkId::of(b"b"), len: 7 }];
        let manifest = Manifest::new(ContentHash::of(b"whole"), chunks).unwrap();
        let again: Manifest = postcard::from_bytes(&postcard::to_stdvec(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
        assert_eq!(again.size(), 12);
        assert_eq!(again.with_offsets().map(|(at, _)| at).collect::<Vec<_>>(), [0, 5]);
    }
}
