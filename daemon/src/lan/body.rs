//! Reading what comes over a stream: bodies with a length before them, and how long a piece may be waited for.

use super::link::Link;
use bytes::{Buf, Bytes, BytesMut};
use ferry_protocol::lan::frame::{self, LENGTH_BYTES, StreamKind};
use ferry_protocol::limits::LAN_PAGE_MAX_BYTES;
use ferry_protocol::wire::{self, Body};
use quinn::RecvStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long one piece of a body may be waited for.
pub(super) const PIECE_MAX: Duration = Duration::from_secs(20);
/// What memory is taken at once on the word of a length, in bytes.
pub(super) const RESERVE_MAX_BYTES: usize = 1 << 20;
/// What the bodies of one connection that have begun to come may hold together, in bytes: the largest page, and more of usual ones (L4).
const BODIES_MAX_BYTES: usize = LAN_PAGE_MAX_BYTES + (16 << 20);

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Decode(#[from] wire::DecodeError),
    #[error("the stream ended: {0}")]
    Stream(String),
}

/// Bodies of a stream, one after the other. Memory grows with what came, not with what was announced (L4).
pub(super) struct Bodies {
    stream: RecvStream,
    kind: StreamKind,
    buffer: BytesMut,
    held: Held,
    /// Bytes that came since somebody asked.
    came: usize,
}

/// Bytes that count against what a connection may hold.
#[derive(Default)]
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// Sets how many bytes are held; how many all bodies of the connection hold then.
    fn set(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.bytes, bytes);
        // First up, then down: the sum is never below what is held.
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_sub(before, Ordering::Relaxed) - before
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Bodies {
    pub fn new(stream: RecvStream, kind: StreamKind) -> Self {
        Self { stream, kind, buffer: BytesMut::new(), held: Held::default(), came: 0 }
    }

    /// The next body, or nothing at a clean end. `hurry` bounds the wait for its first byte too.
    pub async fn next<B: Body>(&mut self, link: &Link, hurry: bool) -> Result<Option<B>, BodyError> {
        if self.buffer.is_empty() {
            // Between two bodies a stream may rest for ever, unless something was asked.
            let first = self.stream.read_chunk(usize::MAX, true);
            let piece = if hurry { timely(first).await? } else { first.await.map_err(|e| BodyError::Stream(e.to_string()))? };
            match piece {
                Some(piece) => self.take(link, &piece.bytes)?,
                None => return Ok(None),
            }
        }
        loop {
            if let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = frame::length(*head, self.kind)?;
                if self.buffer.len() >= LENGTH_BYTES + length {
                    self.buffer.advance(LENGTH_BYTES);
                    let body = self.buffer.split_to(length);
                    self.held.set(self.buffer.len());
                    return Ok(Some(wire::decode(&body)?));
                }
                self.buffer.reserve((LENGTH_BYTES + length - self.buffer.len()).min(RESERVE_MAX_BYTES));
            }
            match timely(self.stream.read_chunk(usize::MAX, true)).await? {
                Some(piece) => self.take(link, &piece.bytes)?,
                None => return Err(BodyError::Stream("in the middle of a body".into())),
            }
        }
    }

    /// Bytes that came since this was asked before.
    pub fn take_came(&mut self) -> usize {
        std::mem::take(&mut self.came)
    }

    fn take(&mut self, link: &Link, bytes: &Bytes) -> Result<(), BodyError> {
        link.count_in(bytes.len());
        self.came += bytes.len();
        self.buffer.extend_from_slice(bytes);
        if !Arc::ptr_eq(&self.held.all, &link.begun_bytes) {
            self.held = Held { all: link.begun_bytes.clone(), bytes: 0 };
        }
        if self.held.set(self.buffer.len()) > BODIES_MAX_BYTES { Err(wire::DecodeError::Limit("bodies at once").into()) } else { Ok(()) }
    }
}

/// The next piece of something that has begun.
pub(super) async fn timely<T>(read: impl Future<Output = Result<T, quinn::ReadError>>) -> Result<T, BodyError> {
    match tokio::time::timeout(PIECE_MAX, read).await {
        Ok(read) => read.map_err(|e| BodyError::Stream(e.to_string())),
        Err(_) => Err(BodyError::Stream("nothing came for too long".into())),
    }
}
