//! Damaged and lying bytes are refused as a whole, without a panic and within memory bounded by their length (P2, P4, I10, I14).

use crate::allocation::peak_of;
use crate::history::{run, steps};
use crate::roundtrip::{commit, page};
use ferry_protocol::limits::{CHUNK_IDS_MAX, CHUNK_MAX_BYTES, COMMIT_NODES_MAX, CONTEXT_MAX, PLACES_MAX, VALUES_MAX};
use ferry_protocol::wire::{
    Body, ChunkFrame, ChunkIds, CommitReply, CommitRequest, DecodeError, FORMAT, FRAME_HEADER_BYTES, FeedPage, decode, encode,
};
use ferry_protocol::{ChunkId, Epoch, ReplicaId};
use proptest::prelude::*;
use serde::Serialize;

/// What decoding may take beyond a multiple of the input: the pre-allocations of nested lists.
const CONSTANT_BYTES: usize = 6 << 20;
/// What a byte of input may become in memory at the peak: ids and counters of one byte become words, and a growing list is held twice
/// while it moves.
const PER_INPUT_BYTE: usize = 12;

/// Decodes within the bound; an accepted body encodes again to what can be decoded to the same.
fn decode_bounded<B: Body + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<B> {
    let (result, peak) = peak_of(|| decode::<B>(bytes));
    let bound = PER_INPUT_BYTE * bytes.len() + CONSTANT_BYTES;
    assert!(peak <= bound, "{peak} bytes for an input of {} (bound {bound})", bytes.len());
    let body = result.ok()?;
    assert_eq!(decode::<B>(&encode(&body)).as_ref(), Ok(&body));
    Some(body)
}

fn decode_as_everything(bytes: &[u8]) {
    decode_bounded::<CommitRequest>(bytes);
    decode_bounded::<CommitReply>(bytes);
    decode_bounded::<FeedPage>(bytes);
    decode_bounded::<ChunkIds>(bytes);
    let mut rest = bytes;
    while let Ok(Some((_, len))) = ChunkFrame::parse(rest) {
        rest = &rest[len..];
    }
}

/// One damage to a valid body.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    Double(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        6 => (at(), byte.clone()).prop_map(|(i, b)| Damage::Set(i, b)),
        2 => (at(), proptest::collection::vec(byte, 1..6)).prop_map(|(i, b)| Damage::Insert(i, b)),
        2 => (at(), 1..40usize).prop_map(|(i, n)| Damage::Remove(i, n)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1..60usize).prop_map(|(i, n)| Damage::Double(i, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Set(i, b) => *i.get_mut(bytes) = *b,
        Damage::Insert(i, new) => {
            let at = i.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Remove(i, n) => {
            let at = i.index(bytes.len());
            bytes.drain(at..(at + n).min(bytes.len()));
        }
        Damage::Cut(i) => bytes.truncate(i.index(bytes.len())),
        Damage::Double(i, n) => {
            let at = i.index(bytes.len());
            let again = bytes[at..(at + n).min(bytes.len())].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), with_format: bool) {
        if with_format {
            bytes.insert(0, FORMAT);
        }
        decode_as_everything(&bytes);
    }

    #[test]
    fn damaged_bodies_never_panic(steps in steps(), damages in proptest::collection::vec(damage(), 1..5), is_page: bool) {
        let all = run(&steps);
        let mut bytes = if is_page { encode(&page(&all, 7)) } else { encode(&commit(&all, 7)) };
        for one in &damages {
            apply(&mut bytes, one);
        }
        decode_as_everything(&bytes);
    }

    #[test]
    fn a_body_cut_short_is_refused(steps in steps(), cut: prop::sample::Index) {
        let bytes = encode(&commit(&run(&steps), 7));
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert!(decode::<CommitRequest>(cut).is_err());
    }
}

/// The shape of a node update on the wire, without its checks: what a liar would send.
#[derive(Serialize, Clone)]
struct RawUpdate {
    id: [u8; 16],
    places: Vec<RawPlace>,
    values: Vec<RawValue>,
    context: Vec<([u8; 16], u64)>,
    mode: Option<(u64, [u8; 16], u16)>,
    mtime_ns: Option<(u64, [u8; 16], i64)>,
}

#[derive(Serialize, Clone)]
struct RawPlace {
    counter: u64,
    replica: [u8; 16],
    parent: [u8; 16],
    name: Vec<u8>,
}

#[derive(Serialize, Clone)]
struct RawValue {
    dot: ([u8; 16], u64),
    stamp: (u64, [u8; 16]),
    content: RawContent,
    device: [u8; 16],
    device_name: String,
    wall_ms: i64,
}

#[derive(Serialize, Clone)]
enum RawContent {
    Dir,
    File {
        hash: [u8; 32],
        chunks: Vec<([u8; 32], u32)>,
        mtime_ns: i64,
    },
    Symlink(Vec<u8>),
    #[expect(dead_code, reason = "it keeps the numbers of the variants what they are")]
    Tombstone,
}

fn raw_place(counter: u64) -> RawPlace {
    RawPlace { counter, replica: [1; 16], parent: [0; 16], name: b"a".to_vec() }
}

fn raw_value(replica: u8, counter: u64) -> RawValue {
    RawValue {
        dot: ([replica; 16], counter),
        stamp: (counter, [replica; 16]),
        content: RawContent::Dir,
        device: [1; 16],
        device_name: "P".into(),
        wall_ms: 0,
    }
}

fn raw() -> RawUpdate {
    RawUpdate {
        id: [9; 16],
        places: vec![raw_place(2), raw_place(1)],
        values: vec![raw_value(1, 1), raw_value(2, 1)],
        context: vec![([1; 16], 1), ([2; 16], 1)],
        mode: None,
        mtime_ns: None,
    }
}

fn raw_page(updates: &[RawUpdate]) -> Vec<u8> {
    postcard::to_extend(&([2u8; 16], [3u8; 16], 7u64, 9u64, false, updates), vec![FORMAT]).unwrap()
}

fn refused(change: impl FnOnce(&mut RawUpdate)) -> bool {
    let mut update = raw();
    change(&mut update);
    decode::<FeedPage>(&raw_page(&[update])).is_err()
}

#[test]
fn the_liars_shape_is_the_true_one() {
    let page = decode::<FeedPage>(&raw_page(&[raw()])).unwrap();
    assert_eq!(page.nodes[0].state.places().len(), 2);
    assert_eq!(page.nodes[0].state.body().values().len(), 2);
    assert_eq!(encode(&page), raw_page(&[raw()]));
    assert!(!refused(|u| u.values[0].content = RawContent::Symlink(b"to".to_vec())));
    let whole = *ChunkId::of(b"x").as_bytes();
    assert!(!refused(|u| u.values[0].content = RawContent::File { hash: whole, chunks: vec![(whole, 1)], mtime_ns: 0 }));
}

#[test]
fn states_that_cannot_be_are_refused() {
    assert!(refused(|u| u.places.clear()), "no place");
    assert!(refused(|u| u.places.reverse()), "places not newest first");
    assert!(refused(|u| u.places[1] = u.places[0].clone()), "a place twice");
    assert!(refused(|u| u.places = (1..=PLACES_MAX as u64 + 1).rev().map(raw_place).collect()), "too many places");
    assert!(refused(|u| u.values.reverse()), "values not ordered by dot");
    assert!(refused(|u| u.values[1] = u.values[0].clone()), "a dot twice");
    assert!(refused(|u| u.context.reverse()), "context not ordered");
    assert!(refused(|u| u.context[1].0 = u.context[0].0), "a replica twice in the context");
    assert!(refused(|u| u.values[0].dot.1 = 2), "a dot that the context does not cover");
    assert!(refused(|u| u.context.clear()), "no context at all");
    assert!(refused(|u| (u.values[0].dot.1, u.context[0].1) = (0, 0)), "events are counted from 1");
    assert!(refused(|u| u.mode = Some((1, [1; 16], 0o1000))), "a mode with more than permission bits");
    assert!(refused(|u| u.values[0].device_name = "n".repeat(65)), "a device name that is too long");
    assert!(refused(|u| u.id = [0; 16]), "the root has no state");
    assert!(refused(|u| u.places[0].parent = u.id), "a node in itself");
}

#[test]
fn names_that_could_leave_the_folder_are_refused() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"../x", b"a\0", &[b'n'; 256]] {
        assert!(refused(|u| u.places[0].name = bad.to_vec()), "{bad:?}");
    }
    assert!(refused(|u| u.places[0].name = b".ferry".to_vec()), "the bookkeeping directory at the root");
    assert!(!refused(|u| (u.places[0].name, u.places[0].parent) = (b".ferry".to_vec(), [5; 16])), "elsewhere it is a name like any");
}

#[test]
fn contents_that_cannot_be_are_refused() {
    let file = |hash: [u8; 32], chunks: Vec<([u8; 32], u32)>| {
        move |u: &mut RawUpdate| u.values[0].content = RawContent::File { hash, chunks, mtime_ns: 0 }
    };
    let x = *ChunkId::of(b"x").as_bytes();
    assert!(refused(file(x, vec![(x, 0)])), "a chunk of no bytes");
    assert!(refused(file(x, vec![(x, CHUNK_MAX_BYTES as u32 + 1)])), "a chunk that is too large");
    assert!(refused(file([7; 32], vec![(x, 1)])), "the only chunk is the file");
    assert!(refused(file([7; 32], vec![])), "an empty file has one hash");
    for bad in [&b""[..], b"a\0b", &[b't'; 4096]] {
        assert!(refused(|u| u.values[0].content = RawContent::Symlink(bad.to_vec())), "target {bad:?}");
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    assert!(refused(|u| {
        u.values = (1..=VALUES_MAX as u64 + 1).map(|n| raw_value(1, n)).collect();
        u.context[0].1 = u64::MAX;
    }));
    assert!(refused(|u| u.context = (0..=CONTEXT_MAX as u128 + 9).map(|n| ((n << 64 | 1).to_be_bytes(), 1)).collect()));
    let many: Vec<RawUpdate> = (0..=COMMIT_NODES_MAX).map(|_| raw()).collect();
    assert!(decode::<FeedPage>(&raw_page(&many)).is_err());
    assert!(decode::<FeedPage>(&raw_page(&many[1..])).is_ok());
    let ids = |n: usize| encode(&ChunkIds { ids: vec![ChunkId::from_bytes([1; 32]); n] });
    assert!(decode::<ChunkIds>(&ids(CHUNK_IDS_MAX)).is_ok());
    assert!(decode::<ChunkIds>(&ids(CHUNK_IDS_MAX + 1)).is_err());
}

/// Bodies with far more entries than allowed: refused by the count that they state, before the entries take memory.
#[test]
fn a_stated_count_over_the_limit_takes_no_memory() {
    let nodes: Vec<RawUpdate> = (0..40 * COMMIT_NODES_MAX).map(|_| raw()).collect();
    let bytes = raw_page(&nodes);
    let (result, peak) = peak_of(|| decode::<FeedPage>(&bytes).is_err());
    assert!(result && peak < CONSTANT_BYTES, "{peak} bytes of memory for a page of {} bytes", bytes.len());
    let ids = encode(&ChunkIds { ids: vec![ChunkId::from_bytes([1; 32]); 20 * CHUNK_IDS_MAX] });
    let (result, peak) = peak_of(|| decode::<ChunkIds>(&ids).is_err());
    assert!(result && peak < CONSTANT_BYTES, "{peak} bytes of memory for {} bytes of ids", ids.len());
}

#[test]
fn wrong_versions_and_left_overs_are_refused() {
    let good = encode(&CommitReply::EpochChanged(Epoch::from_bytes([1; 16])));
    assert_eq!(decode::<CommitReply>(&[]), Err(DecodeError::Empty));
    for format in (0..=255).filter(|f| *f != FORMAT) {
        let mut bytes = good.clone();
        bytes[0] = format;
        assert_eq!(decode::<CommitReply>(&bytes), Err(DecodeError::Format(format)));
    }
    let mut long = good.clone();
    long.push(0);
    assert!(matches!(decode::<CommitReply>(&long), Err(DecodeError::Malformed(_))));
}

#[test]
fn frames_that_cannot_be_are_refused() {
    let id = ChunkId::of(b"x");
    let with = |kind: u8, len: u32| {
        let mut header = ChunkFrame::header(id, 0);
        header[0] = kind;
        header[33..].copy_from_slice(&len.to_le_bytes());
        header
    };
    for (kind, len) in [(0, 0), (0, CHUNK_MAX_BYTES as u32 + 1), (0, u32::MAX), (1, 1), (2, 0), (255, 5)] {
        assert!(ChunkFrame::parse(&with(kind, len)).is_err(), "kind {kind}, length {len}");
    }
    assert_eq!(ChunkFrame::parse(&with(0, CHUNK_MAX_BYTES as u32)), Ok(None), "the largest chunk, not yet there");
    assert_eq!(ChunkFrame::parse(&with(1, 0)[..FRAME_HEADER_BYTES - 1]), Ok(None));
    assert_eq!(ReplicaId::LEN, 16);
}
