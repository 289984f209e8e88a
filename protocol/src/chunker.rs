//! Where a file is cut into chunks: FastCDC (Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
//! Deduplication", USENIX ATC 2016; here in its 2020 form with normalised chunking level 1).
//!
//! A cut depends only on the bytes before it since the last cut, so inserting a byte moves one or two chunks and leaves the rest. A file
//! at or below the minimum is one chunk. Files above 16 GiB use larger chunks so that their manifests stay small.

use crate::limits::{CHUNK_MAX_BYTES, MANIFEST_CHUNKS_MAX};
use fastcdc::v2020::FastCDC;

/// Chunk sizes in bytes. Frozen: changing them makes every file's manifest differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk but the last is smaller.
    pub min: usize,
    /// What the cutting aims at.
    pub avg: usize,
    /// No chunk is larger.
    pub max: usize,
}

/// Sizes for files up to [`LARGE_FILE_BYTES`].
pub const STANDARD: ChunkSizes = ChunkSizes { min: 256 << 10, avg: 1 << 20, max: 4 << 20 };
/// Sizes for files above [`LARGE_FILE_BYTES`].
pub const LARGE: ChunkSizes = ChunkSizes { min: 1 << 20, avg: 4 << 20, max: 16 << 20 };
/// The size of a file, in bytes, above which [`LARGE`] chunks are cut.
pub const LARGE_FILE_BYTES: u64 = 16 << 30;
/// The fixed chunk of the plain upload API, in bytes.
pub const UPLOAD_CHUNK_BYTES: usize = 4 << 20;

const _: () = assert!(LARGE.max <= CHUNK_MAX_BYTES);
const _: () = assert!(crate::limits::FILE_MAX_BYTES / (LARGE.min as u64) <= (MANIFEST_CHUNKS_MAX as u64) * 4);

impl ChunkSizes {
    /// The sizes for a file of this many bytes.
    pub fn for_file(size: u64) -> Self {
        if size > LARGE_FILE_BYTES { LARGE } else { STANDARD }
    }

    /// The length of the next chunk at the beginning of `buffer`, or nothing while more bytes are needed to decide.
    ///
    /// `buffer` holds the file's bytes from the last cut on; `is_end` says that no more will come. The answer does not depend on how
    /// the bytes were read. Never 0; nothing for an empty buffer.
    pub fn next_cut(&self, buffer: &[u8], is_end: bool) -> Option<usize> {
        if buffer.is_empty() || (!is_end && buffer.len() < self.max) {
            return None;
        }
        let window = &buffer[..buffer.len().min(self.max)];
        if window.len() <= self.min {
            return Some(window.len());
        }
        let (_, end) = FastCDC::new(window, self.min, self.avg, self.max).cut(0, window.len());
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: ChunkSizes = ChunkSizes { min: 64, avg: 256, max: 1024 };

    fn cuts(sizes: ChunkSizes, data: &[u8], reads: &[usize]) -> Vec<usize> {
        let (mut out, mut start, mut have, mut i) = (Vec::new(), 0, 0, 0);
        loop {
            while let Some(len) = sizes.next_cut(&data[start..have], have == data.len()) {
                out.push(len);
                start += len;
            }
            if have == data.len() {
                return out;
            }
            have = data.len().min(have + reads[i % reads.len()].max(1));
            i += 1;
        }
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut x = seed | 1;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_reads(len in 0usize..20_000, seed: u64, reads in proptest::collection::vec(1usize..3000, 1..6)) {
            let data = noise(len, seed);
            let whole = cuts(SMALL, &data, &[usize::MAX / 2]);
            prop_assert_eq!(&whole, &cuts(SMALL, &data, &reads));
            prop_assert_eq!(whole.iter().sum::<usize>(), len);
            for (i, c) in whole.iter().enumerate() {
                prop_assert!(*c <= SMALL.max && (*c >= SMALL.min || i + 1 == whole.len()));
            }
        }
    }

    #[test]
    fn one_byte_at_the_head_moves_few_chunks() {
        let data = noise(24 << 20, 7);
        let mut shifted = vec![1u8];
        shifted.extend_from_slice(&data);
        let ids = |d: &[u8]| {
            let mut at = 0;
            cuts(STANDARD, d, &[1 << 22])
                .into_iter()
                .map(|len| {
                    at += len;
                    crate::ChunkId::of(&d[at - len..at])
                })
                .collect::<Vec<_>>()
        };
        let (old, new) = (ids(&data), ids(&shifted));
        let moved = new.iter().filter(|id| !old.contains(id)).count();
        assert!(moved <= 3, "{moved} of {} chunks moved", new.len());
    }

    #[test]
    fn zeros_are_cut_at_the_maximum() {
        let zeros = vec![0u8; (8 << 20) + 1];
        assert_eq!(cuts(STANDARD, &zeros, &[1 << 20]), [4 << 20, 4 << 20, 1]);
    }
}
