//! Chunks from the relay: frames as they arrive, each hashed before it leaves (N1).

use super::error::RelayError;
use super::http::Http;
use bytes::{Bytes, BytesMut};
use ferry_protocol::wire::{ChunkFrame, DecodeError, FRAME_HEADER_BYTES};
use ferry_protocol::{ChunkId, VerifiedChunk};
use reqwest::Response;
use std::collections::HashSet;
use std::sync::Arc;

/// Chunks from this size on, in bytes, are hashed on a thread that may be busy.
const HASH_ELSEWHERE_MIN_BYTES: usize = 64 * 1024;

/// One answer of the relay about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchedChunk {
    /// Its bytes, hashed and right.
    Chunk(VerifiedChunk<Bytes>),
    /// The relay has no good copy of it.
    Absent(ChunkId),
}

/// The chunks that were asked for, in the order in which the relay sends them. Dropping it ends the request.
pub struct ChunkStream {
    http: Arc<Http>,
    response: Option<Response>,
    buffer: BytesMut,
    wanted: HashSet<ChunkId>,
}

impl ChunkStream {
    pub(super) fn new(http: Arc<Http>, response: Option<Response>, wanted: HashSet<ChunkId>) -> Self {
        Self { http, response, buffer: BytesMut::new(), wanted }
    }

    /// The next chunk, or nothing when all that were asked for have been answered. After an error the stream is over; what came before counts.
    /// Not cancel safe: a call that is given up may take a chunk with it, so drop the stream then.
    pub async fn next(&mut self) -> Option<Result<FetchedChunk, RelayError>> {
        let result = self.advance().await;
        if result.is_err() {
            self.response = None;
            self.wanted.clear();
        }
        result.transpose()
    }

    /// The chunks that were not answered yet.
    pub fn outstanding(&self) -> usize {
        self.wanted.len()
    }

    async fn advance(&mut self) -> Result<Option<FetchedChunk>, RelayError> {
        loop {
            if self.wanted.is_empty() {
                self.response = None;
                return Ok(None);
            }
            if let Some(frame) = self.parse()? {
                return self.accept(frame).await.map(Some);
            }
            let Some(response) = &mut self.response else { return Ok(None) };
            match self.http.next_piece(response).await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Err(RelayError::retry("The relay sent only a part of the chunks; ferry asks for the rest again.")),
            }
        }
    }

    /// Takes a whole frame out of the buffer: its chunk, and its bytes unless it is absent.
    fn parse(&mut self) -> Result<Option<(ChunkId, Option<Bytes>)>, RelayError> {
        let frame = ChunkFrame::parse(&self.buffer).map_err(|e: DecodeError| RelayError::peer_fault(e.to_string()))?;
        let Some((frame, taken)) = frame else {
            // The length has passed the limit above: room for the whole chunk at once, instead of growing piece by piece.
            if let Some(length) = self.buffer.get(FRAME_HEADER_BYTES - 4..FRAME_HEADER_BYTES) {
                let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
                self.buffer.reserve((FRAME_HEADER_BYTES + length).saturating_sub(self.buffer.len()));
            }
            return Ok(None);
        };
        let (id, present) = match frame {
            ChunkFrame::Chunk(id, _) => (id, true),
            ChunkFrame::Absent(id) => (id, false),
        };
        let bytes = self.buffer.split_to(taken).freeze();
        Ok(Some((id, present.then(|| bytes.slice(FRAME_HEADER_BYTES..)))))
    }

    async fn accept(&mut self, (id, bytes): (ChunkId, Option<Bytes>)) -> Result<FetchedChunk, RelayError> {
        if !self.wanted.remove(&id) {
            return Err(RelayError::peer_fault(format!("chunk {id}, which was not asked for")));
        }
        let Some(bytes) = bytes else { return Ok(FetchedChunk::Absent(id)) };
        let chunk = if bytes.len() < HASH_ELSEWHERE_MIN_BYTES {
            VerifiedChunk::verify(id, bytes)
        } else {
            let hashed = tokio::task::spawn_blocking(move || VerifiedChunk::verify(id, bytes)).await;
            hashed.map_err(|_| RelayError::retry("ferry is stopping."))?
        };
        chunk.map(FetchedChunk::Chunk).ok_or_else(|| RelayError::peer_fault(format!("bytes that are not chunk {id}")))
    }
}
