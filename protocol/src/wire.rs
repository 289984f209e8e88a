//! Bodies that cross a network or rest on a disk.
//!
//! Every encoded body begins with one byte, the version of its format; then postcard. docs/PROTOCOL.md describes the bytes and golden tests
//! hold them (P1). An unknown version or trailing bytes are refused: a half-understood state is never joined.

use crate::bounded;
use crate::id::{ChunkId, CommitId, Epoch, NamespaceId, NodeId, ReplicaId, UserId};
use crate::limits::{CHUNK_IDS_MAX, CHUNK_MAX_BYTES, COMMIT_NODES_MAX};
use crate::node::NodeState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of every body in this module.
pub const FORMAT: u8 = 1;

/// The content type of bodies encoded by [`encode`].
pub const CONTENT_TYPE: &str = "application/vnd.ferry.v1";
/// The content type of a stream of chunk frames, see [`ChunkFrame`].
pub const CHUNKS_CONTENT_TYPE: &str = "application/vnd.ferry.chunks.v1";

/// The header with which the relay says, beside a page of a feed, that it has lost bytes of the namespace: ask it which, and send them again. Its
/// value is when it last found that it lacks some, in milliseconds since 1970.
pub const LACKS_HEADER: &str = "ferry-lacks";

/// Why bytes are not the body that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("the body is empty")]
    Empty,
    /// A format of another version.
    #[error("the body has format {0}; this side knows format {FORMAT}: upgrade the older side")]
    Format(u8),
    /// Not what the format says.
    #[error("the body is malformed: {0}")]
    Malformed(String),
    /// More than [`crate::limits`] allow.
    #[error("the body is over a limit: {0}")]
    Limit(&'static str),
}

/// A body that can be encoded; the check runs after decoding.
pub trait Body: Serialize + DeserializeOwned {
    /// Whether counts and lengths are within [`crate::limits`].
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Encodes a body: the version byte, then postcard.
pub fn encode<B: Body>(body: &B) -> Vec<u8> {
    // Only a serialiser that reports its own failure can fail here; the types above have none.
    postcard::to_extend(body, vec![FORMAT]).unwrap_or_default()
}

/// Decodes a body. Errors name what is wrong; nothing is half decoded.
pub fn decode<B: Body>(bytes: &[u8]) -> Result<B, DecodeError> {
    let (format, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *format != FORMAT {
        return Err(DecodeError::Format(*format));
    }
    let (body, rest) = postcard::take_from_bytes::<B>(rest).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed(format!("{} trailing bytes", rest.len())));
    }
    body.check()?;
    Ok(body)
}

/// A node and its state: what a feed and a commit are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUpdate {
    /// The node; never [`NodeId::ROOT`].
    pub id: NodeId,
    /// Its state, to be joined.
    pub state: NodeState,
}

/// A device's commit: joined by the relay in one transaction, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// Minted by the device; repeating a commit changes nothing and gives the same answer (I8).
    pub commit: CommitId,
    /// The relay's epoch that the device knows.
    pub epoch: Epoch,
    /// How far the device has read the relay's feed. A commit of a node that changed after this is answered [`CommitReply::Stale`].
    pub base_seq: u64,
    /// The replica that sends.
    pub replica: ReplicaId,
    /// The nodes.
    #[serde(deserialize_with = "bounded::list::<COMMIT_NODES_MAX, _, _>")]
    pub nodes: Vec<NodeUpdate>,
    /// Small chunks that travel with the commit.
    #[serde(deserialize_with = "bounded::list::<COMMIT_NODES_MAX, _, _>")]
    pub chunks: Vec<InlineChunk>,
}

/// A chunk inside a commit. Its bytes are of unknown origin until hashed (P3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineChunk {
    /// What the bytes claim to be.
    pub id: ChunkId,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Body for CommitRequest {
    fn check(&self) -> Result<(), DecodeError> {
        if self.nodes.len() > COMMIT_NODES_MAX {
            return Err(DecodeError::Limit("nodes in a commit"));
        }
        if self.chunks.len() > COMMIT_NODES_MAX || self.chunks.iter().any(|c| c.bytes.len() > CHUNK_MAX_BYTES) {
            return Err(DecodeError::Limit("chunks in a commit"));
        }
        check_nodes(&self.nodes)
    }
}

fn check_nodes(nodes: &[NodeUpdate]) -> Result<(), DecodeError> {
    for node in nodes {
        if node.id == NodeId::ROOT || node.state.places().iter().any(|p| p.parent == node.id) {
            return Err(DecodeError::Malformed("a node cannot be the root or stand in itself".into()));
        }
        if node.state.places().iter().any(|p| p.parent == NodeId::ROOT && p.name.is_bookkeeping()) {
            return Err(DecodeError::Malformed("'.ferry' at the root is reserved".into()));
        }
    }
    Ok(())
}

/// The relay's answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitReply {
    /// Joined and durable.
    Accepted {
        /// The feed's head after the commit.
        head_seq: u64,
        /// Whether nobody else changed the feed since `base_seq`: then the device may take `head_seq` as its cursor.
        gapless: bool,
    },
    /// Nothing was done: these chunks are not in the store for this namespace.
    MissingChunks(#[serde(deserialize_with = "bounded::list::<CHUNK_IDS_MAX, _, _>")] Vec<ChunkId>),
    /// Nothing was done: these nodes changed after `base_seq`. Read the feed, join, and commit again.
    Stale(#[serde(deserialize_with = "bounded::list::<COMMIT_NODES_MAX, _, _>")] Vec<NodeId>),
    /// Nothing was done: the feed has another epoch. Read it from the start, send what it lacks, delete nothing.
    EpochChanged(Epoch),
}

impl Body for CommitReply {}

/// One page of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// The feed's epoch.
    pub epoch: Epoch,
    /// The replica whose feed it is.
    pub replica: ReplicaId,
    /// The cursor after this page: ask for what comes after it.
    pub cursor: u64,
    /// The feed's head when the page was read.
    pub head: u64,
    /// Whether more follows now.
    pub has_more: bool,
    /// The nodes that changed, in order of their newest change.
    #[serde(deserialize_with = "bounded::list::<COMMIT_NODES_MAX, _, _>")]
    pub nodes: Vec<NodeUpdate>,
}

impl Body for FeedPage {
    fn check(&self) -> Result<(), DecodeError> {
        if self.nodes.len() > COMMIT_NODES_MAX {
            return Err(DecodeError::Limit("nodes in a page"));
        }
        check_nodes(&self.nodes)
    }
}

/// Chunk ids: a question (which of these are missing, send me these) or its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkIds {
    /// The ids.
    #[serde(deserialize_with = "bounded::list::<CHUNK_IDS_MAX, _, _>")]
    pub ids: Vec<ChunkId>,
}

impl Body for ChunkIds {
    fn check(&self) -> Result<(), DecodeError> {
        if self.ids.len() > CHUNK_IDS_MAX { Err(DecodeError::Limit("chunk ids")) } else { Ok(()) }
    }
}

/// What a member is told of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// Its id.
    pub id: NamespaceId,
    /// Its name on the relay.
    pub name: String,
    /// What the asking user may do.
    pub role: Role,
    /// The owner.
    pub owner: UserId,
    /// The feed's epoch.
    pub epoch: Epoch,
    /// The feed's head.
    pub head_seq: u64,
}

/// What a member of a namespace may do. Ordered: each may do what the ones before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Read and change.
    Editor,
    /// Everything, members and deletion included.
    Owner,
}

/// One frame of a chunk stream: 1 byte kind, 32 bytes chunk id, 4 bytes length (little endian), then the bytes.
///
/// Kind 0 is a chunk; kind 1 says that the sender has no good copy (length 0). A stream is frames until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkFrame<'a> {
    /// A chunk; unverified.
    Chunk(ChunkId, &'a [u8]),
    /// The sender has no good copy of this chunk.
    Absent(ChunkId),
}

/// Length of a frame's header in bytes.
pub const FRAME_HEADER_BYTES: usize = 37;

impl<'a> ChunkFrame<'a> {
    /// The header that announces `len` bytes of this chunk.
    pub fn header(id: ChunkId, len: usize) -> [u8; FRAME_HEADER_BYTES] {
        let mut header = [0; FRAME_HEADER_BYTES];
        header[1..33].copy_from_slice(id.as_bytes());
        header[33..].copy_from_slice(&(len as u32).to_le_bytes());
        header
    }

    /// The frame that says that there is no good copy.
    pub fn absent(id: ChunkId) -> [u8; FRAME_HEADER_BYTES] {
        let mut header = Self::header(id, 0);
        header[0] = 1;
        header
    }

    /// Reads the next frame from the beginning of `buffer`: the frame and how many bytes it took, or nothing while it is incomplete.
    /// A length above the limit is refused before anything is allocated (P4).
    pub fn parse(buffer: &'a [u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        if buffer.len() < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let mut id = [0; 32];
        id.copy_from_slice(&buffer[1..33]);
        let id = ChunkId::from_bytes(id);
        let len = u32::from_le_bytes([buffer[33], buffer[34], buffer[35], buffer[36]]) as usize;
        match buffer[0] {
            0 if len == 0 || len > CHUNK_MAX_BYTES => Err(DecodeError::Limit("length of a chunk frame")),
            0 if buffer.len() < FRAME_HEADER_BYTES + len => Ok(None),
            0 => Ok(Some((Self::Chunk(id, &buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len]), FRAME_HEADER_BYTES + len))),
            1 if len == 0 => Ok(Some((Self::Absent(id), FRAME_HEADER_BYTES))),
            kind => Err(DecodeError::Malformed(format!("chunk frame of kind {kind} and length {len}"))),
        }
    }
}
