//! The chunker cuts where it always cut: its sizes are a format, and a change would make every manifest differ.

use ferry_protocol::chunker::{ChunkSizes, LARGE, LARGE_FILE_BYTES, STANDARD, UPLOAD_CHUNK_BYTES};
use ferry_protocol::{ChunkId, ContentHash};
use proptest::prelude::*;

/// Bytes that look random, the same everywhere (xorshift64).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn cuts(sizes: ChunkSizes, data: &[u8]) -> Vec<usize> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(len) = sizes.next_cut(&data[at..], true) {
        out.push(len);
        at += len;
    }
    out
}

#[test]
fn frozen_boundaries() {
    let data = noise(12 << 20, 2026);
    assert_eq!(ContentHash::of(&data).to_string(), GOLDEN_NOISE, "the noise itself");
    assert_eq!(cuts(STANDARD, &data), GOLDEN_STANDARD);
    assert_eq!(cuts(LARGE, &data), GOLDEN_LARGE);
}

const GOLDEN_NOISE: &str = "c8b3d6249f2e6f944771b3b5a3a32921b2668b835c1b7938dd5581e57d5719ae";
const GOLDEN_STANDARD: &[usize] = &[335264, 643817, 1653614, 1088814, 2093203, 1682021, 506138, 555374, 1679377, 499867, 1761506, 83917];
const GOLDEN_LARGE: &[usize] = &[8002871, 4496124, 83917];

#[test]
fn sizes_are_frozen() {
    assert_eq!((STANDARD.min, STANDARD.avg, STANDARD.max), (256 << 10, 1 << 20, 4 << 20));
    assert_eq!((LARGE.min, LARGE.avg, LARGE.max), (1 << 20, 4 << 20, 16 << 20));
    assert_eq!((LARGE_FILE_BYTES, UPLOAD_CHUNK_BYTES), (16 << 30, 4 << 20));
    assert_eq!(ChunkSizes::for_file(LARGE_FILE_BYTES), STANDARD);
    assert_eq!(ChunkSizes::for_file(LARGE_FILE_BYTES + 1), LARGE);
}

/// B02 and B35: files just below, at and just above the limits, of noise and of zeros.
#[test]
fn limits_of_size() {
    for max in [STANDARD.min, UPLOAD_CHUNK_BYTES, STANDARD.max] {
        for len in [max - 1, max, max + 1, 2 * max] {
            for data in [noise(len, 5), vec![0; len]] {
                let cuts = cuts(STANDARD, &data);
                assert_eq!(cuts.iter().sum::<usize>(), len);
                assert!(cuts.iter().all(|c| *c <= STANDARD.max));
                assert!(cuts[..cuts.len() - 1].iter().all(|c| *c >= STANDARD.min));
            }
        }
    }
    assert_eq!(cuts(STANDARD, &noise(STANDARD.min, 5)).len(), 1, "a file at the minimum is one chunk");
    assert!(cuts(STANDARD, b"").is_empty(), "an empty file has no chunk");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// An edit anywhere leaves almost all chunks alone: at most three are new, whatever was put in or taken out.
    #[test]
    fn an_edit_moves_few_chunks(seed: u64, at in 0usize..6 << 20, put in proptest::collection::vec(any::<u8>(), 0..2000), taken in 0usize..2000) {
        let data = noise(6 << 20, seed);
        let mut edited = data[..at].to_vec();
        edited.extend_from_slice(&put);
        edited.extend_from_slice(&data[(at + taken).min(data.len())..]);
        let ids = |data: &[u8]| {
            let mut at = 0;
            cuts(STANDARD, data).into_iter().map(|len| { at += len; ChunkId::of(&data[at - len..at]) }).collect::<Vec<_>>()
        };
        let old = ids(&data);
        let moved = ids(&edited).iter().filter(|id| !old.contains(id)).count();
        prop_assert!(moved <= 4, "{moved} chunks moved");
    }
}
