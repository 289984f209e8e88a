//! Decoders.

use crate::allocation::peak_of;
use ferry_protocol::DeviceId;
use ferry_protocol::grant::{Grant, SignedGrant};
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::{ChunkAnswer, ChunkAsk, GrantBook, Message, Offered, PeerPage};
use ferry_protocol::limits::CHUNK_MAX_BYTES;
use ferry_protocol::wire::{Body, ChunkFrame, ChunkIds, CommitReply, CommitRequest, FeedPage, decode, encode};
use std::fmt::Debug;

/// What decoding may take beyond a multiple of the input: the pre-allocations of nested lists.
const CONSTANT_BYTES: usize = 6 << 20;
/// What a byte of input may become in memory at the peak.
const PER_INPUT_BYTE: usize = 12;

fn bounded<T>(len: usize, work: impl FnOnce() -> T) -> T {
    let (answer, peak) = peak_of(work);
    let bound = PER_INPUT_BYTE * len + CONSTANT_BYTES;
    assert!(peak <= bound, "{peak} bytes for an input of {len}");
    answer
}

fn body<B: Body + PartialEq + Debug>(bytes: &[u8]) -> Option<B> {
    let body = bounded(bytes.len(), || decode::<B>(bytes)).ok()?;
    let again = encode(&body);
    assert_eq!(decode::<B>(&again).as_ref(), Ok(&body));
    Some(body)
}

/// A body behind a length is the body itself, and every cut of it is waited for.
fn framed<B: Body + PartialEq + Debug>(bytes: &[u8], kind: StreamKind) {
    if let Ok(Some((body, len))) = bounded(bytes.len(), || frame::parse::<B>(bytes, kind)) {
        assert!(len <= bytes.len());
        let again = frame::frame(&body);
        assert_eq!(frame::parse::<B>(&again, kind), Ok(Some((body, again.len()))));
        assert_eq!(frame::parse::<B>(&again[..again.len() - 1], kind), Ok(None));
    }
}

/// All bodies, frames and chunk answers.
pub fn frame_decode(bytes: &[u8]) {
    body::<Message>(bytes);
    body::<PeerPage>(bytes);
    body::<ChunkAsk>(bytes);
    body::<CommitRequest>(bytes);
    body::<CommitReply>(bytes);
    body::<FeedPage>(bytes);
    body::<ChunkIds>(bytes);
    framed::<Message>(bytes, StreamKind::Control);
    framed::<PeerPage>(bytes, StreamKind::Feed);
    framed::<ChunkAsk>(bytes, StreamKind::Chunks);
    let mut rest = bytes;
    while let Ok(Some((answer, len))) = ChunkAnswer::parse(rest) {
        if let ChunkAnswer::Packed { len, .. } = answer {
            assert!((1..=CHUNK_MAX_BYTES).contains(&len));
        }
        rest = &rest[len..];
    }
    let mut rest = bytes;
    while let Ok(Some((_, len))) = ChunkFrame::parse(rest) {
        rest = &rest[len..];
    }
}

/// Grants as bodies, and as they are offered to a book.
pub fn grant(bytes: &[u8]) {
    if let Some(grant) = body::<Grant>(bytes) {
        assert!(!grant.is_newer_than(&grant) && !grant.is_live(grant.expires_ms));
        for member in &grant.members {
            assert_eq!(grant.member(member.device), Some(member));
        }
        let signed = SignedGrant { body: bytes.to_vec(), signature: vec![7; 64] };
        let own = grant.members.first().map_or(DeviceId::default(), |m| m.device);
        let mut book = GrantBook::new(Box::new(|_, signature| signature == [7; 64]));
        let offered = book.offer(own, &signed);
        let learned = !grant.members.is_empty();
        assert_eq!(offered, if learned { Offered::Learned(grant.namespace) } else { Offered::Refused });
        assert_eq!(book.role(grant.namespace, own, i64::MIN).is_some(), learned);
        assert_eq!(book.role(grant.namespace, own, grant.expires_ms), None);
        let forged = SignedGrant { signature: vec![8; 64], ..signed };
        assert_eq!(book.offer(own, &forged), Offered::Refused);
    }
    if let Some(signed) = body::<SignedGrant>(bytes) {
        assert!(signed.open(|_, _| false).is_err());
        let _ = bounded(bytes.len(), || signed.open(|_, _| true));
    }
}
