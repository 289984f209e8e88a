//! Asking a peer for chunks.

use super::body::{BodyError, timely};
use super::folder::LanFolder;
use super::link::Link;
use super::serve;
use bytes::{Bytes, BytesMut};
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::{ChunkAnswer, ChunkAsk};
use ferry_protocol::wire::FRAME_HEADER_BYTES;
use ferry_protocol::{ChunkId, NamespaceId, VerifiedChunk};
use quinn::RecvStream;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What memory is taken for a chunk on the word of its length, in bytes, before it has come.
const RESERVE_MAX_BYTES: usize = 4 << 20;

/// How long an answer to a ping is waited for.
const PING_MAX: Duration = Duration::from_secs(5);

/// A chunk as it came from a peer: of unknown origin until it is opened.
#[derive(Debug)]
pub struct PeerChunk {
    id: ChunkId,
    /// Its own length where `bytes` are compressed.
    packed: Option<usize>,
    bytes: Bytes,
    from: Arc<Link>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("device", &self.device).finish_non_exhaustive()
    }
}

impl PeerChunk {
    /// Which it claims to be.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// Its length in bytes once it is unpacked, as it claims.
    pub fn len_bytes(&self) -> usize {
        self.packed.unwrap_or(self.bytes.len())
    }

    /// Unpacks and hashes it: for a thread that may be busy. Nothing, and the peer is blamed, if it is not what it claims to be (I5).
    pub fn open(self) -> Option<VerifiedChunk<Bytes>> {
        let chunk = match self.packed {
            None => VerifiedChunk::verify(self.id, self.bytes),
            Some(len) => serve::unpack(self.id, len, &self.bytes),
        };
        if chunk.is_none() {
            self.from.blame();
        }
        chunk
    }
}

/// The answers to one request.
pub struct ChunkAnswers {
    link: Arc<Link>,
    stream: RecvStream,
    buffer: BytesMut,
    wanted: HashSet<ChunkId>,
}

impl LanFolder {
    /// Asks a peer for chunks of this folder.
    pub async fn ask(&self, link: &Arc<Link>, ids: &[ChunkId]) -> Result<ChunkAnswers, PeerError> {
        ask(link, self.shared.namespace, ids).await
    }
}

async fn ask(link: &Arc<Link>, namespace: NamespaceId, ids: &[ChunkId]) -> Result<ChunkAnswers, PeerError> {
    let ask = ChunkAsk { namespace, ids: ids.to_vec() };
    let (mut send, stream) = link.connection.open_bi().await.map_err(|e| PeerError(e.to_string()))?;
    let mut bytes = vec![StreamKind::Chunks as u8];
    bytes.extend(frame::frame(&ask));
    link.count_out(bytes.len());
    send.write_all(&bytes).await.map_err(|e| PeerError(e.to_string()))?;
    let _ = send.finish();
    Ok(ChunkAnswers { link: link.clone(), stream, buffer: BytesMut::new(), wanted: ids.iter().copied().collect() })
}

/// How long one request takes to the peer's daemon and back, over the connection that there is: it is asked for a chunk that nobody has, in a namespace
/// that nobody has, which every peer answers in the same way (L2).
pub async fn ping(link: &Arc<Link>) -> Result<Duration, PeerError> {
    let id = ChunkId::of(&crate::folder::random_bytes());
    let began = Instant::now();
    let answered = async {
        let mut answers = ask(link, NamespaceId::default(), &[id]).await?;
        answers.next().await
    };
    match tokio::time::timeout(PING_MAX, answered).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(PeerError::late()),
    }
}

/// A peer did not answer as it should; another source is asked.
#[derive(Debug, thiserror::Error)]
#[error("a peer did not answer: {0}")]
pub struct PeerError(String);

impl PeerError {
    /// It took too long.
    pub fn late() -> Self {
        Self("it took too long".into())
    }
}

impl From<BodyError> for PeerError {
    fn from(error: BodyError) -> Self {
        Self(error.to_string())
    }
}

impl ChunkAnswers {
    /// The next chunk that the peer has; nothing when all have been answered. Chunks that it lacks are passed over.
    pub async fn next(&mut self) -> Result<Option<PeerChunk>, PeerError> {
        loop {
            if self.wanted.is_empty() {
                return Ok(None);
            }
            if let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() {
                let total = ChunkAnswer::frame_len(header).map_err(|e| self.broken(&e.to_string()))?;
                if self.buffer.len() >= total {
                    if let Some(chunk) = self.take(total)? {
                        return Ok(Some(chunk));
                    }
                    continue;
                }
                self.buffer.reserve((total - self.buffer.len()).min(RESERVE_MAX_BYTES));
            }
            match timely(self.stream.read_chunk(usize::MAX, true)).await? {
                Some(piece) => {
                    self.link.count_in(piece.bytes.len());
                    self.buffer.extend_from_slice(&piece.bytes);
                    self.link.received(piece.bytes.len()).await;
                }
                None => return Err(PeerError("the answer ended too early".into())),
            }
        }
    }

    fn take(&mut self, total: usize) -> Result<Option<PeerChunk>, PeerError> {
        let whole = self.buffer.split_to(total).freeze();
        let answer = ChunkAnswer::parse(&whole).map_err(|e| self.broken(&e.to_string()))?;
        let (id, packed, bytes) = match answer {
            Some((ChunkAnswer::Plain(id, bytes), _)) => (id, None, Some(whole.slice_ref(bytes))),
            Some((ChunkAnswer::Packed { id, len, bytes }, _)) => (id, Some(len), Some(whole.slice_ref(bytes))),
            Some((ChunkAnswer::Absent(id), _)) => (id, None, None),
            None => return Err(self.broken("half an answer")),
        };
        if !self.wanted.remove(&id) {
            return Err(self.broken("a chunk that was not asked for"));
        }
        Ok(bytes.map(|bytes| PeerChunk { id, packed, bytes, from: self.link.clone() }))
    }

    fn broken(&self, why: &str) -> PeerError {
        self.link.blame();
        PeerError(why.to_owned())
    }
}
