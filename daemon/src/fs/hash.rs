//! Reading files: manifests for the index, verified chunks for the relay and for peers.
//!
//! A file counts as read only if its version was the same before and after, seen through one handle (H01). Large files are read and hashed as
//! a whole on a second thread while this one cuts and hashes chunks.

use super::handle::{PathError, obstacle, statx_fd};
use super::list::open_file;
use super::root::{OpenRoot, Root};
use ferry_engine::disk::{Obstacle, Stat};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::limits::{CHUNK_MAX_BYTES, FILE_MAX_BYTES};
use ferry_protocol::{ChunkRef, ContentHash, Manifest, RelPath, VerifiedChunk};
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
/// Files up to this size, in bytes, are read in one go: several workers share the cores.
const WHOLE_MAX_BYTES: usize = 8 << 20;
/// Larger ones are read in windows of this size, in bytes, so many at once.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOWS: usize = 2;

thread_local! {
    /// One buffer for each worker thread, kept between files.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads a file and computes its manifest.
///
/// `on_chunk` hears of each chunk as soon as it is known, with its offset in bytes: uploads can start while hashing goes on. What it heard means
/// nothing if the outcome is not [`HashOutcome::Hashed`].
pub fn hash_file(root: &Root, path: &RelPath, expect: &Stat, on_chunk: &mut OnChunk<'_>) -> HashOutcome {
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
    let read = manifest_of(&file, before.size, on_chunk);
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

/// Hears of each chunk as soon as it is known: its offset in bytes, and the chunk.
pub type OnChunk<'a> = dyn FnMut(u64, VerifiedChunk<&[u8]>) + 'a;

/// The manifest of the first `size` bytes; nothing if the file ends before.
fn manifest_of(file: &OwnedFd, size: u64, on_chunk: &mut OnChunk<'_>) -> Result<Option<Manifest>, Errno> {
    if size == 0 {
        return Ok(Some(Manifest::empty()));
    }
    if size > WHOLE_MAX_BYTES as u64 {
        // Advice only: a filesystem that does not know it reads on as it likes.
        let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
        return in_windows(file, size, on_chunk);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let want = size as usize;
        if buffer.len() < want {
            buffer.resize(want, 0);
        }
        let bytes = &mut buffer[..want];
        if read_full(file, bytes, 0)? < want {
            return Ok(None);
        }
        let mut cutter = Cutter::new(size);
        cutter.cut(bytes, true, on_chunk);
        Ok(cutter.manifest(|| Sha256::digest(bytes).into()))
    })
}

/// Reads and hashes the whole on a second thread, a window ahead of this one, which cuts and hashes chunks.
fn in_windows(file: &OwnedFd, size: u64, on_chunk: &mut OnChunk<'_>) -> Result<Option<Manifest>, Errno> {
    let mut cutter = Cutter::new(size);
    // Before each window there is room for what the last one left undecided: always less than the largest chunk.
    let room = cutter.sizes.max;
    let (give_back, free) = crossbeam_channel::bounded::<Vec<u8>>(WINDOWS);
    let (filled, windows) = crossbeam_channel::bounded::<(Vec<u8>, usize)>(WINDOWS);
    for _ in 0..WINDOWS {
        // There is room for all of them.
        let _ = give_back.send(vec![0; room + WINDOW_BYTES]);
    }
    let whole = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut whole, mut at) = (Sha256::new(), 0);
            while at < size {
                let Ok(mut buffer) = free.recv() else { return Ok(None) };
                let want = usize::try_from(size - at).unwrap_or(usize::MAX).min(WINDOW_BYTES);
                let window = &mut buffer[room..room + want];
                if read_full(file, window, at)? < want {
                    return Ok(None);
                }
                whole.update(&*window);
                at += want as u64;
                if filled.send((buffer, want)).is_err() {
                    return Ok(None);
                }
            }
            Ok(Some(whole))
        });
        // Dropped with this closure, also by a panic in it: the reader must not wait for ever.
        let give_back = give_back;
        let mut left: Vec<u8> = Vec::with_capacity(room);
        let mut seen = 0;
        for (mut buffer, len) in windows {
            seen += len as u64;
            let begin = room - left.len();
            buffer[begin..room].copy_from_slice(&left);
            let bytes = &buffer[begin..room + len];
            let used = cutter.cut(bytes, seen == size, on_chunk);
            left.clear();
            left.extend_from_slice(&bytes[used..]);
            // The reader may have ended already.
            let _ = give_back.send(buffer);
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(whole.and_then(|whole| cutter.manifest(|| whole.finalize().into())))
}

struct Cutter {
    sizes: ChunkSizes,
    chunks: Vec<ChunkRef>,
    /// Offset of the first byte after the last cut.
    cut_to: u64,
}

impl Cutter {
    fn new(size: u64) -> Self {
        Self { sizes: ChunkSizes::for_file(size), chunks: Vec::new(), cut_to: 0 }
    }

    /// Cuts as much of the bytes after the last cut as can be decided; how many bytes that are.
    fn cut(&mut self, bytes: &[u8], is_end: bool, on_chunk: &mut OnChunk<'_>) -> usize {
        let mut at = 0;
        while let Some(len) = self.sizes.next_cut(&bytes[at..], is_end) {
            let chunk = VerifiedChunk::of(&bytes[at..at + len]);
            // A chunk is at most CHUNK_MAX_BYTES, which fits.
            self.chunks.push(ChunkRef { id: chunk.id(), len: len as u32 });
            on_chunk(self.cut_to, chunk);
            self.cut_to += len as u64;
            at += len;
        }
        at
    }

    /// The manifest. Of a file of one chunk its hash is the whole's.
    fn manifest(self, whole: impl FnOnce() -> [u8; 32]) -> Option<Manifest> {
        let hash = match &self.chunks[..] {
            [only] => *only.id.as_bytes(),
            _ => whole(),
        };
        Manifest::new(ContentHash::from_bytes(hash), self.chunks).ok()
    }
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
