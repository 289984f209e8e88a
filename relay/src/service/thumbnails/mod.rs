//! Small pictures of files. Whoever may download a file may see it small; what the file holds is never trusted.
//!
//! * **TN1** A picture is decoded only after its bytes and its pixels were found to be within bounds, and only while all that are decoded at once stay
//!   within [`ThumbnailConfig::memory_bytes`] together (I14).
//! * **TN2** Decoding happens outside of the async threads, two at a time; who waits for it holds nothing but a place in the queue.
//! * **TN3** A kept picture is found by the namespace and the content, so that neither its age nor its speed tells what others have.

mod picture;

pub use picture::Picture;

use super::content::{Content, Download, Entry};
use super::{ServiceError, ServiceResult};
use crate::store::thumbnails::{Key, ThumbnailCache};
use ferry_protocol::ContentHash;
use picture::Refusal;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Largest file of which there is a small picture, in bytes.
pub const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// How many pictures are read and decoded at once.
const AT_ONCE: usize = 2;
/// The unit in which memory is counted, in bytes: 1 MiB.
const UNIT_BYTES: u64 = 1 << 20;
/// Counts up when pictures come to look different, so that none of before is shown.
const FORM: u8 = 1;

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct ThumbnailConfig {
    /// Memory of all pictures that are decoded at once, in bytes; 0: there are no small pictures.
    pub memory_bytes: u64,
}

/// How large a small picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// For a list.
    Small,
    /// For a screen.
    Large,
}

impl Size {
    /// The smaller one that has at least so many pixels a side.
    pub fn at_least(side: u32) -> Self {
        if side <= Self::Small.side() { Self::Small } else { Self::Large }
    }

    /// Longest side in pixels.
    pub fn side(self) -> u32 {
        match self {
            Self::Small => 256,
            Self::Large => 1024,
        }
    }
}

/// The service. Holds nothing that matters (R7).
pub struct Thumbnails {
    content: Arc<Content>,
    cache: Arc<ThumbnailCache>,
    config: ThumbnailConfig,
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// What the cache holds under a name.
enum Kept {
    Picture(Picture),
    Refused(Refusal),
}

impl Kept {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Picture(picture) => [if picture.media_type == "image/webp" { b"w" } else { b"j" }, &picture.bytes[..]].concat(),
            Self::Refused(Refusal::Unreadable) => b"u".to_vec(),
            Self::Refused(Refusal::TooManyPixels) => b"p".to_vec(),
        }
    }

    fn from_bytes(mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        match bytes.remove(0) {
            b'w' => Some(Self::Picture(Picture { media_type: "image/webp", bytes })),
            b'j' => Some(Self::Picture(Picture { media_type: "image/jpeg", bytes })),
            b'u' => Some(Self::Refused(Refusal::Unreadable)),
            b'p' => Some(Self::Refused(Refusal::TooManyPixels)),
            _ => None,
        }
    }

    fn into_result(self) -> ServiceResult<Picture> {
        match self {
            Self::Picture(picture) => Ok(picture),
            Self::Refused(Refusal::Unreadable) => Err(none("The file is no JPEG, PNG, GIF or WebP, or it is damaged.")),
            Self::Refused(Refusal::TooManyPixels) => Err(none("The picture has too many pixels.")),
        }
    }
}

fn none(detail: impl Into<String>) -> ServiceError {
    ServiceError::invalid("no_thumbnail", detail).hint("Download the file to see it.")
}

impl Thumbnails {
    /// The service over these stores.
    pub fn new(content: Arc<Content>, cache: ThumbnailCache, config: ThumbnailConfig) -> Self {
        let units = usize::try_from(config.memory_bytes / UNIT_BYTES).unwrap_or(0).min(Semaphore::MAX_PERMITS);
        Self { content, cache: Arc::new(cache), config, places: Arc::new(Semaphore::new(AT_ONCE)), memory: Arc::new(Semaphore::new(units)) }
    }

    /// The small picture of a file that an entry opens. What cannot be one is refused before it is read, as far as rows tell.
    pub async fn get(&self, entry: &Entry, download: &Download, size: Size) -> ServiceResult<Picture> {
        if self.config.memory_bytes < UNIT_BYTES {
            return Err(none("This relay makes no small pictures."));
        }
        if !["image/jpeg", "image/png", "image/gif", "image/webp"].contains(&download.media_type) {
            return Err(none("There are small pictures of JPEG, PNG, GIF and WebP only."));
        }
        if download.size_bytes > FILE_MAX_BYTES {
            return Err(none(format!("There are small pictures of files up to {FILE_MAX_BYTES} bytes only.")));
        }
        let key = key(entry, &download.hash, size);
        if let Some(kept) = self.kept(key).await? {
            return kept.into_result();
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(ServiceError::internal)?;
        // Somebody may have waited for the same one.
        if let Some(kept) = self.kept(key).await? {
            return kept.into_result();
        }
        let bytes = self.read(download).await?;
        let looked_at = tokio::task::spawn_blocking(move || (picture::memory_of(&bytes), bytes));
        let (needed, bytes) = looked_at.await.map_err(ServiceError::internal)?;
        let needed = needed.and_then(|needed| match needed.div_ceil(UNIT_BYTES) {
            units if units * UNIT_BYTES > self.config.memory_bytes => Err(Refusal::TooManyPixels),
            units => u32::try_from(units).map_err(|_| Refusal::TooManyPixels),
        });
        let memory = match needed {
            Ok(units) => Arc::clone(&self.memory).acquire_many_owned(units).await.map_err(ServiceError::internal)?,
            Err(refusal) => return self.keep(key, Kept::Refused(refusal)).await?.into_result(),
        };
        let memory_max = memory.num_permits() as u64 * UNIT_BYTES;
        // Whoever asked may be gone before it is done: the place and the memory are free when it is done, not before.
        let made = tokio::task::spawn_blocking(move || {
            let made = picture::shrink(&bytes, size.side(), memory_max);
            drop((bytes, memory, place));
            made
        });
        let kept = made.await.map_err(ServiceError::internal)?.map_or_else(Kept::Refused, Kept::Picture);
        self.keep(key, kept).await?.into_result()
    }

    /// Removes pictures that are old; gives how many.
    pub async fn expire(&self) -> ServiceResult<u64> {
        let cache = Arc::clone(&self.cache);
        tokio::task::spawn_blocking(move || cache.expire()).await.map_err(ServiceError::internal)
    }

    async fn read(&self, download: &Download) -> ServiceResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(download.size_bytes).map_err(ServiceError::internal)?);
        if download.size_bytes > 0 {
            let mut stream = self.content.read_file(download, 0..download.size_bytes).await?;
            while let Some(part) = stream.recv().await {
                bytes.extend_from_slice(&part?);
            }
        }
        Ok(bytes)
    }

    async fn kept(&self, key: Key) -> ServiceResult<Option<Kept>> {
        let cache = Arc::clone(&self.cache);
        let bytes = tokio::task::spawn_blocking(move || cache.get(key)).await.map_err(ServiceError::internal)?;
        Ok(bytes.and_then(Kept::from_bytes))
    }

    /// Keeps what was made; a disk that is full makes it slower and nothing else.
    async fn keep(&self, key: Key, kept: Kept) -> ServiceResult<Kept> {
        let cache = Arc::clone(&self.cache);
        let bytes = kept.into_bytes();
        let bytes = tokio::task::spawn_blocking(move || {
            if let Err(error) = cache.put(key, &bytes) {
                tracing::warn!(%error, "a small picture cannot be kept");
            }
            bytes
        });
        Kept::from_bytes(bytes.await.map_err(ServiceError::internal)?).ok_or_else(|| ServiceError::internal("no picture"))
    }
}

fn key(entry: &Entry, hash: &ContentHash, size: Size) -> Key {
    let mut name = Sha256::new();
    name.update(b"ferry thumbnail");
    name.update([FORM]);
    name.update(entry.namespace().as_bytes());
    name.update(hash.as_bytes());
    name.update(size.side().to_be_bytes());
    Key(name.finalize().into())
}
