//! Asking a peer for chunks, and its answers.
//!
//! The answers have the form of [`crate::wire::ChunkFrame`], with one kind more: 1 byte kind, 32 bytes chunk id, 4 bytes length of what
//! follows (little endian), then the bytes. Kind 2 is a chunk compressed with zstd: 4 bytes of its own length, then the compressed bytes.

use crate::bounded;
use crate::id::{ChunkId, DeviceId, NamespaceId};
use crate::limits::{CHUNK_IDS_MAX, CHUNK_MAX_BYTES};
use crate::wire::{Body, ChunkFrame, DecodeError, FRAME_HEADER_BYTES};
use serde::{Deserialize, Serialize};

/// A request for chunks of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAsk {
    /// Which namespace: a hash from outside it gets nothing (L2).
    pub namespace: NamespaceId,
    /// Which chunks, in the order in which they are wanted.
    #[serde(deserialize_with = "bounded::list::<CHUNK_IDS_MAX, _, _>")]
    pub ids: Vec<ChunkId>,
}

impl Body for ChunkAsk {}

/// One answer. Its bytes are of unknown origin until hashed (P3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkAnswer<'a> {
    /// A chunk as it is.
    Plain(ChunkId, &'a [u8]),
    /// A chunk compressed with zstd.
    Packed {
        /// Which.
        id: ChunkId,
        /// Its own length in bytes: what comes out may not be longer.
        len: usize,
        /// The compressed bytes.
        bytes: &'a [u8],
    },
    /// The sender has no good copy.
    Absent(ChunkId),
}

/// Length of the length before compressed bytes.
const PACKED_LEN_BYTES: usize = 4;
const KIND_PACKED: u8 = 2;

impl<'a> ChunkAnswer<'a> {
    /// What stands before the compressed bytes of a chunk of `len` bytes.
    pub fn packed_header(id: ChunkId, len: usize, packed: usize) -> [u8; FRAME_HEADER_BYTES + PACKED_LEN_BYTES] {
        let mut header = [0; FRAME_HEADER_BYTES + PACKED_LEN_BYTES];
        header[..FRAME_HEADER_BYTES].copy_from_slice(&ChunkFrame::header(id, packed + PACKED_LEN_BYTES));
        header[0] = KIND_PACKED;
        header[FRAME_HEADER_BYTES..].copy_from_slice(&(len as u32).to_le_bytes());
        header
    }

    /// How many bytes the frame takes whose header this is; a length above the limit is refused before anything is allocated (L4).
    pub fn frame_len(header: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, DecodeError> {
        let len = u32::from_le_bytes([header[33], header[34], header[35], header[36]]) as usize;
        match header[0] {
            0 if (1..=CHUNK_MAX_BYTES).contains(&len) => {}
            1 if len == 0 => {}
            // Packed is never longer than plain: who packs badly sends plain.
            KIND_PACKED if (PACKED_LEN_BYTES + 1..=CHUNK_MAX_BYTES).contains(&len) => {}
            0..=KIND_PACKED => return Err(DecodeError::Limit("length of a chunk frame")),
            kind => return Err(DecodeError::Malformed(format!("chunk frame of kind {kind}"))),
        }
        Ok(FRAME_HEADER_BYTES + len)
    }

    /// Reads the next answer from the beginning of `buffer`: the answer and how many bytes it took, or nothing while it is incomplete.
    pub fn parse(buffer: &'a [u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some(header) = buffer.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let total = Self::frame_len(header)?;
        let Some(frame) = buffer.get(..total) else { return Ok(None) };
        let mut id = [0; 32];
        id.copy_from_slice(&header[1..33]);
        let (id, body) = (ChunkId::from_bytes(id), &frame[FRAME_HEADER_BYTES..]);
        let answer = match header[0] {
            0 => Self::Plain(id, body),
            1 => Self::Absent(id),
            _ => {
                let (len, bytes) = body.split_first_chunk::<PACKED_LEN_BYTES>().ok_or(DecodeError::Empty)?;
                let len = u32::from_le_bytes(*len) as usize;
                if !(1..=CHUNK_MAX_BYTES).contains(&len) {
                    return Err(DecodeError::Limit("length of a packed chunk"));
                }
                Self::Packed { id, len, bytes }
            }
        };
        Ok(Some((answer, total)))
    }
}

/// Which of some devices brings a chunk from the relay for all of them: every device comes to the same answer without asking (rendezvous
/// hashing, Thaler and Ravishankar 1998). A device that leaves gives up its own chunks only. Nothing if there are no devices.
pub fn bringer(chunk: ChunkId, devices: impl IntoIterator<Item = DeviceId>) -> Option<DeviceId> {
    let weight = |device: &DeviceId| ChunkId::of(&[&device.as_bytes()[..], chunk.as_bytes()].concat());
    devices.into_iter().max_by_key(|device| (weight(device), *device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_divided_about_evenly_and_a_leaver_gives_up_only_its_own() {
        let devices: Vec<DeviceId> = (1..=4).map(|n| DeviceId::from_bytes([n; 16])).collect();
        let chunks: Vec<ChunkId> = (0..4000u32).map(|n| ChunkId::of(&n.to_le_bytes())).collect();
        let bring = |chunk: &ChunkId, devices: &[DeviceId]| bringer(*chunk, devices.iter().copied()).unwrap();
        for device in &devices {
            let share = chunks.iter().filter(|chunk| bring(chunk, &devices) == *device).count();
            assert!((850..1150).contains(&share), "{share}");
        }
        let moved = chunks.iter().filter(|c| bring(c, &devices) != bring(c, &devices[1..]));
        assert!(moved.into_iter().all(|chunk| bring(chunk, &devices) == devices[0]));
        assert_eq!(bringer(chunks[0], []), None);
    }

    #[test]
    fn answers_come_back_as_they_were_made() {
        let id = ChunkId::of(b"x");
        let mut bytes = ChunkFrame::header(id, 3).to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(ChunkAnswer::parse(&bytes).unwrap(), Some((ChunkAnswer::Plain(id, b"abc"), 40)));
        assert_eq!(ChunkAnswer::parse(&bytes[..39]).unwrap(), None);
        let mut bytes = ChunkAnswer::packed_header(id, 900, 3).to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(ChunkAnswer::parse(&bytes).unwrap(), Some((ChunkAnswer::Packed { id, len: 900, bytes: b"abc" }, 44)));
        assert_eq!(ChunkAnswer::parse(&ChunkFrame::absent(id)).unwrap(), Some((ChunkAnswer::Absent(id), 37)));
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_their_bytes_come() {
        let id = ChunkId::of(b"x");
        for len in [0, CHUNK_MAX_BYTES + 1, u32::MAX as usize] {
            assert!(ChunkAnswer::parse(&ChunkFrame::header(id, len)).is_err(), "{len}");
        }
        for (len, packed) in [(0, 10), (CHUNK_MAX_BYTES + 1, 10), (10, 0), (10, CHUNK_MAX_BYTES)] {
            let mut bytes = ChunkAnswer::packed_header(id, len, packed).to_vec();
            bytes.extend(vec![0; packed.min(100)]);
            assert!(ChunkAnswer::parse(&bytes).is_err(), "{len} {packed}");
        }
        let mut other = ChunkFrame::header(id, 3);
        other[0] = 3;
        assert!(ChunkAnswer::parse(&other).is_err());
    }
}
