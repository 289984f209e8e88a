//! Large packs in parts: several on their way at once, each tried again by itself. The object appears when the parts are put together; whatever
//! fails before that is thrown away.

use super::error::Trouble;
use super::{S3Blobs, joined};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// A broken-off upload older than this belongs to no process that still runs, in seconds.
const LEFTOVER_AGE_S: i64 = 24 * 3600;
/// Pages of broken-off uploads that one start looks through.
const LEFTOVER_PAGES_MAX: usize = 100;

impl S3Blobs {
    pub(super) async fn put_large(&self, key: &str, parts: Vec<Bytes>, length: u64) -> Result<(), Trouble> {
        let begun = self.client.create_multipart_upload().bucket(&self.place.bucket).key(key);
        let begun = begun.content_type("application/octet-stream").send().await.map_err(Trouble::of)?;
        let upload = begun.upload_id().ok_or_else(|| Trouble::odd("a multipart upload without an id"))?;
        let done = match self.put_parts(key, upload, parts).await {
            Ok(parts) => self.put_together(key, upload, parts, length).await,
            Err(trouble) => Err(trouble),
        };
        if done.is_err() {
            self.throw_away(key, upload).await;
        }
        done
    }

    async fn put_parts(&self, key: &str, upload: &str, parts: Vec<Bytes>) -> Result<Vec<CompletedPart>, Trouble> {
        let pieces = cut(parts, self.tuning.part_bytes);
        let sent = pieces.into_iter().zip(1..).map(|(piece, number)| async move {
            let part = self.client.upload_part().bucket(&self.place.bucket).key(key).upload_id(upload).part_number(number);
            let sent = part.body(ByteStream::from(piece)).send().await.map_err(Trouble::of)?;
            Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned)).build())
        });
        stream::iter(sent).buffered(PARTS_AT_ONCE).try_collect().await
    }

    async fn put_together(&self, key: &str, upload: &str, parts: Vec<CompletedPart>, length: u64) -> Result<(), Trouble> {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&self.place.bucket).key(key).upload_id(upload);
        match request.multipart_upload(list).send().await {
            Ok(_) => Ok(()),
            // Done, and only the answer was lost: the upload is gone and the object is there.
            Err(error) => match self.length(key).await {
                Ok(Some(found)) if found == length => Ok(()),
                _ => Err(Trouble::of(error)),
            },
        }
    }

    async fn throw_away(&self, key: &str, upload: &str) {
        let abort = self.client.abort_multipart_upload().bucket(&self.place.bucket).key(key).upload_id(upload);
        if let Err(error) = abort.send().await {
            tracing::debug!(trouble = %Trouble::of(error), "the parts of a broken-off pack stay for the next start");
        }
    }

    /// Throws away the parts of uploads that nobody goes on with. A server that cannot list them keeps them until its own rules remove them.
    pub(super) async fn throw_away_leftovers(&self, now_s: i64) -> Result<u64, Trouble> {
        let (mut thrown, mut marker) = (0, None);
        for _ in 0..LEFTOVER_PAGES_MAX {
            let list = self.client.list_multipart_uploads().bucket(&self.place.bucket).prefix(&self.place.prefix);
            let (key_marker, id_marker): (Option<String>, Option<String>) = marker.unzip();
            let page = list.set_key_marker(key_marker).set_upload_id_marker(id_marker).send().await.map_err(Trouble::of);
            let page = match page {
                Err(trouble) if trouble.is_unknown_here() => return Ok(thrown),
                other => other?,
            };
            for upload in page.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
                let is_old = upload.initiated().is_some_and(|at| at.secs() < now_s - LEFTOVER_AGE_S);
                if is_old && self.id(key).is_some() {
                    self.throw_away(key, id).await;
                    thrown += 1;
                }
            }
            match (page.is_truncated(), page.next_key_marker(), page.next_upload_id_marker()) {
                (Some(true), Some(key), Some(id)) => marker = Some((key.to_owned(), id.to_owned())),
                _ => break,
            }
        }
        Ok(thrown)
    }
}

/// Cuts the bytes into pieces of `size` bytes and a last one that may be smaller. Copies only where a piece spans several parts.
fn cut(parts: Vec<Bytes>, size: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let (mut open, mut open_bytes) = (Vec::new(), 0);
    for mut part in parts {
        while !part.is_empty() {
            let taken = part.split_to(part.len().min(size - open_bytes));
            open_bytes += taken.len();
            open.push(taken);
            if open_bytes == size {
                pieces.push(joined(std::mem::take(&mut open), size));
                open_bytes = 0;
            }
        }
    }
    if open_bytes > 0 {
        pieces.push(joined(open, open_bytes));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_loses_nothing() {
        let parts = ["", "abc", "d", "efghij", "", "kl"].map(|text| Bytes::from_static(text.as_bytes()));
        for size in 1..14 {
            let pieces = cut(parts.to_vec(), size);
            assert_eq!(pieces.concat(), b"abcdefghijkl", "{size}");
            let (last, full) = pieces.split_last().unwrap();
            assert!(full.iter().all(|p| p.len() == size) && (1..=size).contains(&last.len()), "{size}");
        }
    }
}
