//! Blobs on any S3-compatible server: `PREFIX/ab/abcdef….pack`, one object a pack.
//!
//! * An object is visible whole or not at all: a PUT counts when the server has all its bytes (each request carries their SHA-256, signed), a large
//!   pack comes together when its last part is there (BS1, I4). What a broken-off upload leaves is no object; it is removed at the next start.
//! * What was stored is looked at before it counts: a server that says yes and has nothing is found while the sender still has the bytes.
//! * Absence is only what the server calls by its name, `NoSuchKey`. Any other 404 (a bucket that is gone, a proxy's page) is a failure, so that
//!   nothing is taken for damaged that only cannot be reached.
//! * Nothing is believed to be right: the relay hashes what it reads (RC4).

mod error;
mod large;
mod open;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use open::S3Tuning;

use self::error::Trouble;
use super::StoreError;
use super::blob::{BlobRow, BlobStore, SignedRead};
use super::content::PackId;
use crate::config::S3Place;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// What a key ends with, so that other objects of the bucket are left alone.
const KEY_END: &str = ".pack";
/// Objects in one page of a listing: the most that S3 gives.
const PAGE_OBJECTS: i32 = 1000;

/// Blobs in one bucket, below one prefix.
#[derive(Clone)]
pub struct S3Blobs {
    client: Client,
    place: Arc<S3Place>,
    tuning: S3Tuning,
}

// The client's own form shows the key's id.
impl std::fmt::Debug for S3Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("S3Blobs").field(&self.place).finish()
    }
}

impl S3Blobs {
    fn key(&self, id: PackId) -> String {
        let name = id.to_string();
        format!("{}{}/{name}{KEY_END}", self.place.prefix, &name[..2])
    }

    fn id(&self, key: &str) -> Option<PackId> {
        let name = key.strip_prefix(&self.place.prefix)?.strip_suffix(KEY_END)?;
        let (shard, name) = name.split_once('/')?;
        let mut id = [0; 16];
        hex::decode_to_slice(name, &mut id).ok()?;
        // The one spelling under which we would look for it.
        (name == hex::encode(id) && name.starts_with(shard) && shard.len() == 2).then_some(PackId(id))
    }

    async fn put_whole(&self, key: &str, bytes: Bytes) -> Result<(), Trouble> {
        let put = self.client.put_object().bucket(&self.place.bucket).key(key);
        put.content_type("application/octet-stream").body(ByteStream::from(bytes)).send().await.map_err(Trouble::of)?;
        Ok(())
    }

    /// The length of an object in bytes, if it is there.
    async fn length(&self, key: &str) -> Result<Option<u64>, Trouble> {
        match self.client.head_object().bucket(&self.place.bucket).key(key).send().await {
            Ok(head) => Ok(head.content_length().and_then(|n| u64::try_from(n).ok())),
            Err(error) => match Trouble::of(error) {
                // The answer to HEAD has no body that could name the reason: ask in a way that has one.
                trouble if trouble.status == Some(404) => self.absent(key).await.map(|()| None),
                trouble => Err(trouble),
            },
        }
    }

    /// Whether the server itself says that there is no such object.
    async fn absent(&self, key: &str) -> Result<(), Trouble> {
        match self.client.get_object().bucket(&self.place.bucket).key(key).range("bytes=0-0").send().await.map_err(Trouble::of) {
            Err(trouble) if trouble.is_absence() => Ok(()),
            Err(trouble) => Err(trouble),
            Ok(_) => Err(Trouble::odd("the object came into being while it was looked for")),
        }
    }

    async fn read_once(&self, key: &str, offset: u64, len: usize) -> Result<Option<Bytes>, Trouble> {
        let range = range_of(offset, len);
        let got = match self.client.get_object().bucket(&self.place.bucket).key(key).range(range).send().await.map_err(Trouble::of) {
            Err(trouble) if trouble.is_absence() || trouble.is_beyond_the_end() => return Ok(None),
            other => other?,
        };
        // Before anything is allocated: the length comes from a row and may be wrong.
        match fit(offset, len, got.content_length(), got.content_range()) {
            Fit::Exact => self.body(got, len).await.map(Some),
            Fit::TooShort => Ok(None),
            Fit::Other => Err(Trouble::odd("the server answered with other bytes than were asked for")),
        }
    }

    async fn body(&self, mut got: GetObjectOutput, len: usize) -> Result<Bytes, Trouble> {
        let (mut parts, mut length) = (Vec::new(), 0);
        loop {
            let next = tokio::time::timeout(self.tuning.first_byte, got.body.next()).await;
            let part = match next.map_err(|_| Trouble::broken("the answer stalled"))? {
                None => break,
                Some(part) => part.map_err(|e| Trouble::broken(format!("the answer broke off: {e}")))?,
            };
            length += part.len();
            if length > len {
                return Err(Trouble::odd("the server sent more bytes than it announced"));
            }
            parts.push(part);
        }
        if length == len { Ok(joined(parts, len)) } else { Err(Trouble::broken("the answer ended early")) }
    }

    /// Reads, and tries again what broke off on its way; what the server refused was tried again already, by the client.
    async fn read_again(&self, key: &str, offset: u64, len: usize) -> Result<Option<Bytes>, Trouble> {
        let mut tried = 1;
        loop {
            match self.read_once(key, offset, len).await {
                Err(trouble) if trouble.is_broken() && tried < self.tuning.attempts => {
                    tracing::debug!(%trouble, tried, "reading from the blob store again");
                    tokio::time::sleep(self.tuning.backoff(tried)).await;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    fn failed(&self, doing: &str, trouble: &Trouble) -> StoreError {
        trouble.store_error(doing, &self.place)
    }
}

/// The header that asks for these bytes; `len` is not 0.
fn range_of(offset: u64, len: usize) -> String {
    format!("bytes={offset}-{}", offset + len as u64 - 1)
}

#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Exact,
    TooShort,
    Other,
}

/// Whether the announced bytes are those that were asked for.
fn fit(offset: u64, len: usize, content_length: Option<i64>, content_range: Option<&str>) -> Fit {
    let Some(length) = content_length.and_then(|n| u64::try_from(n).ok()) else { return Fit::Other };
    // `bytes FIRST-LAST/TOTAL`; a server that knows no ranges sends the whole object without it.
    let first = content_range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    if first.unwrap_or(0) != offset || (first.is_none() && content_range.is_some()) {
        return Fit::Other;
    }
    match length.cmp(&(len as u64)) {
        std::cmp::Ordering::Equal => Fit::Exact,
        std::cmp::Ordering::Less => Fit::TooShort,
        std::cmp::Ordering::Greater => Fit::Other,
    }
}

/// Joins parts; a single one is not copied.
fn joined(parts: Vec<Bytes>, length: usize) -> Bytes {
    match <[Bytes; 1]>::try_from(parts) {
        Ok([one]) => one,
        Err(parts) => {
            let mut whole = BytesMut::with_capacity(length);
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            whole.freeze()
        }
    }
}

#[async_trait]
impl BlobStore for S3Blobs {
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let key = self.key(id);
        let length = parts.iter().map(Bytes::len).sum();
        let done = if length < self.tuning.large_bytes {
            self.put_whole(&key, joined(parts, length)).await
        } else {
            // In a task of its own: whoever waits may be gone before the parts are put together or thrown away.
            let this = self.clone();
            let large = tokio::spawn(async move { this.put_large(&key, parts, length as u64).await });
            large.await.unwrap_or_else(|e| Err(Trouble::broken(format!("the upload ended early: {e}"))))
        };
        // Nobody may rely on a pack that the server took and does not have (K07).
        let there = match done {
            Ok(()) => self.length(&self.key(id)).await,
            Err(trouble) => Err(trouble),
        };
        let there = there.map_err(|trouble| self.failed("storing a pack", &trouble))?;
        match there {
            Some(found) if found == length as u64 => Ok(()),
            _ => Err(self.failed("storing a pack", &Trouble::broken("it took a pack and does not have it"))),
        }
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        let key = self.key(id);
        let end = i64::try_from(len).ok().and_then(|len| i64::try_from(offset).ok()?.checked_add(len));
        if end.is_none() {
            return Ok(None);
        }
        let read = if len == 0 {
            self.length(&key).await.map(|length| length.filter(|length| offset <= *length).map(|_| Bytes::new()))
        } else {
            self.read_again(&key, offset, len).await
        };
        read.map_err(|trouble| self.failed("reading a pack", &trouble))
    }

    async fn delete(&self, id: PackId) -> Result<(), StoreError> {
        match self.client.delete_object().bucket(&self.place.bucket).key(self.key(id)).send().await.map_err(Trouble::of) {
            Err(trouble) if !trouble.is_absence() => Err(self.failed("deleting a pack", &trouble)),
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<BlobRow>, StoreError> {
        let mut rows = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let mut page = self.client.list_objects_v2().bucket(&self.place.bucket).max_keys(self.tuning.page_objects);
            if !self.place.prefix.is_empty() {
                page = page.prefix(&self.place.prefix);
            }
            let page = page.set_continuation_token(from.clone()).send().await.map_err(Trouble::of);
            let page = page.map_err(|trouble| self.failed("listing packs", &trouble))?;
            for object in page.contents() {
                let Some(id) = object.key().and_then(|key| self.id(key)) else { continue };
                let length_bytes = object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let written_at_ms = object.last_modified().and_then(|at| at.to_millis().ok()).unwrap_or(i64::MAX);
                rows.push(BlobRow { id, length_bytes, written_at_ms });
            }
            match page.next_continuation_token() {
                Some(next) if page.is_truncated() == Some(true) && from.as_deref() != Some(next) => from = Some(next.to_owned()),
                None if page.is_truncated() != Some(true) => return Ok(rows),
                Some(_) if page.is_truncated() != Some(true) => return Ok(rows),
                // A part of a listing must not be taken for the whole: what is not in it would look lost.
                _ => return Err(self.failed("listing packs", &Trouble::odd("the listing does not come to its end"))),
            }
        }
    }

    async fn signed_read(&self, id: PackId, offset: u64, len: usize, duration: Duration) -> Result<Option<SignedRead>, StoreError> {
        if len == 0 {
            return Ok(None);
        }
        // The range is among the signed headers: a pack holds chunks of others too, and the address opens nothing but these bytes.
        let get = self.client.get_object().bucket(&self.place.bucket).key(self.key(id)).range(range_of(offset, len));
        let get = get.response_content_disposition("attachment").response_content_type("application/octet-stream");
        let wrong = |why: String| self.failed("signing an address", &Trouble::odd(why));
        let config = PresigningConfig::expires_in(duration).map_err(|e| wrong(e.to_string()))?;
        let signed = get.presigned(config).await.map_err(|error| self.failed("signing an address", &Trouble::of(error)))?;
        let headers = signed.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Some(SignedRead { url: signed.uri().to_owned(), headers }))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach().await.map_err(|trouble| self.failed("looking at the bucket", &trouble))
    }
}

#[cfg(test)]
mod fits {
    use super::*;

    #[test]
    fn only_the_bytes_that_were_asked_for_are_taken() {
        assert_eq!(fit(0, 5, Some(5), Some("bytes 0-4/9")), Fit::Exact);
        assert_eq!(fit(0, 5, Some(5), None), Fit::Exact, "the whole object, without ranges");
        assert_eq!(fit(3, 5, Some(2), Some("bytes 3-4/5")), Fit::TooShort);
        for (length, range) in [
            (Some(5), None),
            (Some(9), Some("bytes 0-8/9")),
            (Some(5), Some("bytes 4-8/9")),
            (Some(5), Some("lines 3-7/9")),
            (Some(6), Some("bytes 3-8/9")),
            (Some(-1), Some("bytes 3-7/9")),
            (None, Some("bytes 3-7/9")),
        ] {
            assert_eq!(fit(3, 5, length, range), Fit::Other, "{length:?} {range:?}");
        }
    }
}
