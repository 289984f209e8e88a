//! Bodies on a stream: 4 bytes length (little endian), then the body as [`crate::wire`] encodes it. The first byte of a stream says what it carries.

use crate::limits::{CHUNK_IDS_MAX, LAN_MESSAGE_MAX_BYTES, LAN_PAGE_MAX_BYTES};
use crate::wire::{self, Body, DecodeError};

/// Length of the length before a body, in bytes.
pub const LENGTH_BYTES: usize = 4;

/// What a stream carries: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// [`super::Message`]s; one such stream in each direction, opened first, never closed.
    Control = 0,
    /// [`super::PeerPage`]s of one namespace's feed, from the device whose feed it is.
    Feed = 1,
    /// In both directions: one [`super::ChunkAsk`], answered by [`super::ChunkAnswer`]s until the end of the stream.
    Chunks = 2,
}

impl StreamKind {
    /// The kind that a first byte names.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Control, Self::Feed, Self::Chunks].into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The longest body on such a stream, in bytes.
    pub fn body_max_bytes(self) -> usize {
        match self {
            Self::Control => LAN_MESSAGE_MAX_BYTES,
            Self::Feed => LAN_PAGE_MAX_BYTES,
            // The ids, and some bytes for the rest.
            Self::Chunks => CHUNK_IDS_MAX * 32 + 64,
        }
    }
}

/// A body with its length.
pub fn frame<B: Body>(body: &B) -> Vec<u8> {
    let body = wire::encode(body);
    let mut out = Vec::with_capacity(LENGTH_BYTES + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// The length that stands before a body, if it is one that such a stream may carry: asked before memory is taken (L4).
pub fn length(bytes: [u8; LENGTH_BYTES], kind: StreamKind) -> Result<usize, DecodeError> {
    match u32::from_le_bytes(bytes) as usize {
        0 => Err(DecodeError::Empty),
        length if length > kind.body_max_bytes() => Err(DecodeError::Limit("length of a frame")),
        length => Ok(length),
    }
}

/// Takes the next body from the front of a buffer: the body and how many bytes it took, or nothing while it is incomplete.
pub fn parse<B: Body>(buffer: &[u8], kind: StreamKind) -> Result<Option<(B, usize)>, DecodeError> {
    let Some((head, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = length(*head, kind)?;
    match rest.get(..length) {
        Some(body) => Ok(Some((wire::decode(body)?, LENGTH_BYTES + length))),
        None => Ok(None),
    }
}
