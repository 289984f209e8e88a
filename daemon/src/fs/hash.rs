//! Reading files: manifests for the index, verified chunks for the relay and for peers.
//!
//! A file counts as read only if its version was the same before and after, seen through one handle (H01). Files of more than one chunk
//! are hashed as a whole on a second thread while this one cuts and hashes chunks.

use super::handle::{PathError, obstacle, statx_fd};
use super::list::open_file;
use super::root::{OpenRoot, Root};
use ferry_engine::disk::{Obstacle, Stat};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::limits::{CHUNK_MAX_BYTES, FILE_MAX_BYTES};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Manifest, RelPath, VerifiedChunk};
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::time::{SystemTime, UNIX_EPOCH};

/// What came of hashing a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOutcome {
    /// The content of exactly this version.
    Hashed {
        /// The chunks and the hash of the whole.
        manifest: Manifest,
        /// The version that was hashed.
        stat: Stat,
        /// The file was changed so shortly before that a later change could carry the same times: look again once, a little later (B26).
        racy: bool,
    },
    /// It is another version than expected, or became one meanwhile; nothing when it is gone.
    Changed(Option<Stat>),
    /// It cannot be read now; that is not a deletion.
    Unreadable(Obstacle),
}

/// How long the times of an inode may stand still while its content changes, in nanoseconds: two ticks of a slow kernel clock.
const GRANULE_NS: i64 = 20_000_000;
/// The same for filesystems that keep whole seconds (some count in twos).
const COARSE_GRANULE_NS: i64 = 2_000_000_000;
/// Bytes read between two looks at the hashing thread; at least one chunk of the standard sizes.
const WINDOW_BYTES: usize = 8 << 20;

thread_local! {
    /// One buffer for each worker thread, kept between files.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads a file and computes its manifest.
///
/// `on_chunk` hears of each chunk of a file with more than one as soon as it is known, with its offset in bytes: uploads can start while
/// hashing goes on. What it heard means nothing if the outcome is not [`HashOutcome::Hashed`].
pub fn hash_file(root: &Root, path: &RelPath, expect: &Stat, on_chunk: &mut dyn FnMut(u64, ChunkRef)) -> HashOutcome {
    let open = match root.enter() {
        Ok(open) => open,
        Err(error) => return HashOutcome::Unreadable(error.obstacle()),
    };
    let started_ns = now_ns();
    let (file, before) = match open_file(&open, path) {
        Ok(found) => found,
        Err(PathError::Gone) => return HashOutcome::Changed(super::list::stat(root, path).ok().flatten()),
        Err(PathError::Blocked(obstacle)) => return HashOutcome::Unreadable(obstacle),
    };
    if !before.same_version(expect) {
        return HashOutcome::Changed(Some(before));
    }
    if before.size > FILE_MAX_BYTES {
        return HashOutcome::Unreadable(Obstacle::Unrepresentable);
    }
    let read = BUFFER.with_borrow_mut(|buffer| {
        let read = manifest_of(&file, before.size, buffer, on_chunk);
        // The buffer of the largest chunk sizes is not worth keeping.
        buffer.truncate(2 * WINDOW_BYTES);
        buffer.shrink_to(2 * WINDOW_BYTES);
        read
    });
    finish(&open, &file, before, started_ns, read)
}

fn finish(open: &OpenRoot, file: &OwnedFd, before: Stat, started_ns: i64, read: Result<Option<Manifest>, Errno>) -> HashOutcome {
    let after = match statx_fd(file) {
        Ok(raw) => open.view.stat(&raw),
        Err(errno) => return HashOutcome::Unreadable(obstacle(errno)),
    };
    match read {
        Err(errno) => HashOutcome::Unreadable(obstacle(errno)),
        Ok(Some(manifest)) if after.same_version(&before) => {
            HashOutcome::Hashed { manifest, stat: after, racy: is_racy(&before, started_ns) }
        }
        Ok(_) => HashOutcome::Changed(Some(after)),
    }
}

/// Whether a change right after `now_ns` could leave the times of this version as they are.
pub(crate) fn is_racy(stat: &Stat, now_ns: i64) -> bool {
    // The change time cannot be set by anyone, so it alone tells the age.
    let whole_seconds = stat.ctime_ns % 1_000_000_000 == 0 && stat.mtime_ns % 1_000_000_000 == 0;
    let granule = if whole_seconds { COARSE_GRANULE_NS } else { GRANULE_NS };
    now_ns.saturating_sub(stat.ctime_ns) < granule
}

pub(crate) fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// The manifest of the first `size` bytes; nothing if the file ends before.
fn manifest_of(
    file: &OwnedFd,
    size: u64,
    buffer: &mut Vec<u8>,
    on_chunk: &mut dyn FnMut(u64, ChunkRef),
) -> Result<Option<Manifest>, Errno> {
    let sizes = ChunkSizes::for_file(size);
    if size == 0 {
        return Ok(Some(Manifest::empty()));
    }
    if size > WINDOW_BYTES as u64 {
        // Advice only: a filesystem that does not know it reads on as it likes.
        let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    }
    let want = usize::try_from(size).unwrap_or(usize::MAX).min(WINDOW_BYTES.max(2 * sizes.max));
    if buffer.len() < want {
        buffer.resize(want, 0);
    }
    if size <= sizes.min as u64 {
        let bytes = &mut buffer[..want];
        if read_full(file, bytes, 0)? < want {
            return Ok(None);
        }
        return Ok(one_chunk(bytes));
    }
    let cutter = Cutter { sizes, size, chunks: Vec::new(), cut_to: 0, whole: Sha256::new() };
    cutter.run(file, &mut buffer[..want], on_chunk)
}

fn one_chunk(bytes: &[u8]) -> Option<Manifest> {
    let id = ChunkId::of(bytes);
    let len = u32::try_from(bytes.len()).ok()?;
    Manifest::new(ContentHash::from_bytes(*id.as_bytes()), vec![ChunkRef { id, len }]).ok()
}

struct Cutter {
    sizes: ChunkSizes,
    size: u64,
    chunks: Vec<ChunkRef>,
    /// Offset of the first byte after the last cut.
    cut_to: u64,
    whole: Sha256,
}

impl Cutter {
    fn run(mut self, file: &OwnedFd, buffer: &mut [u8], on_chunk: &mut dyn FnMut(u64, ChunkRef)) -> Result<Option<Manifest>, Errno> {
        // The buffer holds `have` bytes from `cut_to` on; the first `hashed` of them are in the hash of the whole.
        let mut hashed = 0;
        loop {
            let left = usize::try_from(self.size - self.cut_to).unwrap_or(usize::MAX);
            let have = left.min(buffer.len());
            let got = read_full(file, &mut buffer[hashed..have], self.cut_to + hashed as u64)?;
            if got < have - hashed {
                return Ok(None);
            }
            let (window, is_end) = (&buffer[..have], have == left);
            let whole = &mut self.whole;
            let (sizes, chunks, cut_to) = (self.sizes, &mut self.chunks, &mut self.cut_to);
            let used = std::thread::scope(|scope| {
                let other = scope.spawn(move || whole.update(&window[hashed..]));
                let used = cut_window(sizes, window, is_end, chunks, cut_to, on_chunk);
                // A panic over there is a panic here.
                other.join().map_or_else(|panic| std::panic::resume_unwind(panic), |()| used)
            });
            if is_end {
                let only = (self.chunks.len() == 1).then(|| ContentHash::from_bytes(*self.chunks[0].id.as_bytes()));
                let hash = only.unwrap_or_else(|| ContentHash::from_bytes(self.whole.finalize().into()));
                return Ok(Manifest::new(hash, self.chunks).ok());
            }
            buffer.copy_within(used..have, 0);
            hashed = have - used;
        }
    }
}

/// Cuts as much of the window as can be decided; how many bytes that are.
fn cut_window(
    sizes: ChunkSizes,
    window: &[u8],
    is_end: bool,
    chunks: &mut Vec<ChunkRef>,
    cut_to: &mut u64,
    on_chunk: &mut dyn FnMut(u64, ChunkRef),
) -> usize {
    let mut at = 0;
    while let Some(len) = sizes.next_cut(&window[at..], is_end) {
        // A chunk is at most CHUNK_MAX_BYTES, which fits.
        let chunk = ChunkRef { id: ChunkId::of(&window[at..at + len]), len: len as u32 };
        chunks.push(chunk);
        on_chunk(*cut_to, chunk);
        *cut_to += len as u64;
        at += len;
    }
    at
}

/// Reads until the buffer is full or the file ends; how many bytes that were.
pub(crate) fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut got = 0;
    while got < buffer.len() {
        match rustix::io::pread(file, &mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(got)
}

/// Why a chunk cannot be had from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The file is gone.
    #[error("the file is gone")]
    Gone,
    /// The file does not hold this chunk there any more: it has changed since it was hashed. Scan it again.
    #[error("the file has changed")]
    Changed(Stat),
    /// It cannot be read now.
    #[error("{}: {}", .0.code(), .0.hint())]
    Blocked(Obstacle),
}

impl From<PathError> for ChunkError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Gone => Self::Gone,
            PathError::Blocked(obstacle) => Self::Blocked(obstacle),
        }
    }
}

/// One chunk of a file, hashed anew (H05, H06). Bytes that verify are right whatever happened to the file, so the file's version is not
/// compared.
pub fn read_chunk(root: &Root, path: &RelPath, offset: u64, chunk: &ChunkRef) -> Result<VerifiedChunk, ChunkError> {
    let open = root.enter().map_err(|e| ChunkError::Blocked(e.obstacle()))?;
    let (file, stat) = open_file(&open, path)?;
    if chunk.len as usize > CHUNK_MAX_BYTES || stat.size < offset.saturating_add(u64::from(chunk.len)) {
        return Err(ChunkError::Changed(stat));
    }
    let mut bytes = vec![0; chunk.len as usize];
    if read_full(&file, &mut bytes, offset).map_err(|e| ChunkError::Blocked(obstacle(e)))? < bytes.len() {
        return Err(ChunkError::Changed(stat));
    }
    if let Some(len) = NonZeroU64::new(u64::from(chunk.len)).filter(|len| len.get() < stat.size) {
        // The next chunk is asked for soon.
        let _ = rustix::fs::fadvise(&file, offset + len.get(), Some(len), Advice::WillNeed);
    }
    VerifiedChunk::verify(chunk.id, bytes).ok_or(ChunkError::Changed(stat))
}
