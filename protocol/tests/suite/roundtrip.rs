//! Decoding is the inverse of encoding, for every body (P1); chunk frames come back however the bytes arrive.

use crate::history::{Replica, run, steps};
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::{ChunkAnswer, ChunkAsk, PeerPage};
use ferry_protocol::wire::{
    ChunkFrame, ChunkIds, CommitReply, CommitRequest, FRAME_HEADER_BYTES, FeedPage, InlineChunk, NodeUpdate, decode, encode,
};
use ferry_protocol::{ChunkId, CommitId, Epoch, NamespaceId, NodeId, ReplicaId};
use proptest::prelude::*;

/// All nodes of these replicas as updates.
pub fn updates(all: &[Replica]) -> Vec<NodeUpdate> {
    all.iter().flat_map(|r| &r.states).map(|(id, state)| NodeUpdate { id: *id, state: state.clone() }).collect()
}

/// A commit of all that these replicas hold, with two small chunks.
pub fn commit(all: &[Replica], base_seq: u64) -> CommitRequest {
    CommitRequest {
        commit: CommitId::from_bytes([1; 16]),
        epoch: Epoch::from_bytes([2; 16]),
        base_seq,
        replica: ReplicaId::from_bytes([3; 16]),
        nodes: updates(all),
        chunks: [&b"x"[..], b"second"].map(|b| InlineChunk { id: ChunkId::of(b), bytes: b.to_vec() }).into(),
    }
}

/// A page of a feed with all that these replicas hold.
pub fn page(all: &[Replica], cursor: u64) -> FeedPage {
    FeedPage {
        epoch: Epoch::from_bytes([2; 16]),
        replica: ReplicaId::from_bytes([3; 16]),
        cursor,
        head: cursor.saturating_add(9),
        has_more: true,
        nodes: updates(all),
    }
}

proptest! {
    #[test]
    fn commits_and_pages_come_back(steps in steps(), seq: u64) {
        let all = run(&steps);
        let (commit, page) = (commit(&all, seq), page(&all, seq));
        let wire = encode(&commit);
        prop_assert_eq!(decode::<CommitRequest>(&wire), Ok(commit.clone()));
        // Equality leaves times of content aside; the bytes do not.
        prop_assert_eq!(encode(&decode::<CommitRequest>(&wire).unwrap()), wire);
        prop_assert_eq!(decode::<FeedPage>(&encode(&page)), Ok(page));
    }

    #[test]
    fn replies_and_questions_come_back(ids in proptest::collection::vec(any::<[u8; 32]>(), 0..40), nodes in proptest::collection::vec(any::<[u8; 16]>(), 0..40), seq: u64, gapless: bool) {
        let ids: Vec<ChunkId> = ids.into_iter().map(ChunkId::from_bytes).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().map(NodeId::from_bytes).collect();
        for reply in [
            CommitReply::Accepted { head_seq: seq, gapless },
            CommitReply::MissingChunks(ids.clone()),
            CommitReply::Stale(nodes),
            CommitReply::EpochChanged(Epoch::from_bytes([4; 16])),
        ] {
            prop_assert_eq!(decode::<CommitReply>(&encode(&reply)), Ok(reply));
        }
        let ids = ChunkIds { ids };
        prop_assert_eq!(decode::<ChunkIds>(&encode(&ids)), Ok(ids));
    }

    #[test]
    fn pages_and_questions_between_devices_come_back(steps in steps(), seq: u64, since: Option<u64>, ids in proptest::collection::vec(any::<[u8; 32]>(), 0..40)) {
        let page = PeerPage { since: since.map(|seq| (Epoch::from_bytes([5; 16]), seq)), page: page(&run(&steps), seq) };
        let bytes = frame::frame(&page);
        prop_assert_eq!(frame::parse::<PeerPage>(&bytes, StreamKind::Feed), Ok(Some((page, bytes.len()))));
        prop_assert_eq!(frame::parse::<PeerPage>(&bytes[..bytes.len() - 1], StreamKind::Feed), Ok(None));
        let ask = ChunkAsk { namespace: NamespaceId::from_bytes([6; 16]), ids: ids.into_iter().map(ChunkId::from_bytes).collect() };
        let bytes = frame::frame(&ask);
        prop_assert_eq!(frame::parse::<ChunkAsk>(&bytes, StreamKind::Chunks), Ok(Some((ask, bytes.len()))));
    }

    #[test]
    fn answers_between_devices_come_back(bytes in proptest::collection::vec(any::<u8>(), 1..300), len in 1usize..1 << 24, cut: prop::sample::Index) {
        let id = ChunkId::of(&bytes);
        let plain = [&ChunkFrame::header(id, bytes.len())[..], &bytes].concat();
        let packed = [&ChunkAnswer::packed_header(id, len, bytes.len())[..], &bytes].concat();
        for (stream, answer) in [(plain, ChunkAnswer::Plain(id, &bytes)), (packed, ChunkAnswer::Packed { id, len, bytes: &bytes })] {
            prop_assert_eq!(ChunkAnswer::parse(&stream[..cut.index(stream.len())]), Ok(None));
            prop_assert_eq!(ChunkAnswer::parse(&stream), Ok(Some((answer, stream.len()))));
        }
    }

    #[test]
    fn frames_come_back_however_they_arrive(chunks in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 1..300)), 0..8), read in 1usize..400) {
        let mut stream = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            match chunk {
                Some(bytes) => {
                    stream.extend_from_slice(&ChunkFrame::header(ChunkId::of(bytes), bytes.len()));
                    stream.extend_from_slice(bytes);
                }
                None => stream.extend_from_slice(&ChunkFrame::absent(ChunkId::from_bytes([i as u8; 32]))),
            }
        }
        let (mut got, mut buffer, mut at) = (Vec::new(), Vec::new(), 0);
        loop {
            while let Some((frame, len)) = ChunkFrame::parse(&buffer).unwrap() {
                got.push(match frame {
                    ChunkFrame::Chunk(id, bytes) => {
                        prop_assert_eq!(id, ChunkId::of(bytes));
                        Some(bytes.to_vec())
                    }
                    ChunkFrame::Absent(_) => None,
                });
                prop_assert!(len >= FRAME_HEADER_BYTES);
                buffer.drain(..len);
            }
            if at == stream.len() {
                break;
            }
            let end = stream.len().min(at + read);
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(got, chunks);
    }
}
