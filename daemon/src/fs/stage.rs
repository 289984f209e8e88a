//! Files on their way: `.ferry/tmp/<hash>.part` while chunks arrive, `<hash>.ready` once every byte is verified (I5).
//!
//! A stage survives a restart: what is in a `.part` is hashed again and counts if it is right. Nothing here is durable;
//! [`super::apply`](mod@super::apply) makes it so before it gives the file its name (I7).

use super::handle::{PathError, obstacle, statx_at, statx_fd};
use super::hash::{now_ns, read_chunk, read_full};
use super::root::{OpenRoot, Root, TMP};
use ferry_engine::disk::Obstacle;
use ferry_protocol::chunker::{LARGE, STANDARD};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Manifest, RelPath, VerifiedChunk};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A file whose content is complete and verified, waiting for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Staged {
    /// The content.
    pub content: ContentHash,
    /// Its size in bytes.
    pub size: u64,
}

/// A file whose chunks are being collected. All methods may be called from several threads.
///
/// It holds one open file; the driver bounds how many stages it has at once.
#[derive(Debug)]
pub struct Stage {
    root: Arc<Root>,
    manifest: Manifest,
    offsets: Vec<u64>,
    file: OwnedFd,
    ino: u64,
    /// Whether the file began empty: what was not written is zeros.
    fresh: bool,
    /// Bytes written by this stage.
    written: AtomicU64,
    progress: Mutex<Progress>,
}

/// After so many bytes a stage begins to write them back.
const WRITE_BACK_BYTES: u64 = 64 << 20;

#[derive(Debug)]
struct Progress {
    present: Vec<bool>,
    missing: usize,
    promised_bytes: u64,
    /// Hash of the file up to the chunk `hashed`.
    whole: Sha256,
    hashed: usize,
}

pub(crate) fn part_name(content: &ContentHash) -> String {
    format!("{content}.part")
}

pub(crate) fn ready_name(content: &ContentHash) -> String {
    format!("{content}.ready")
}

/// Flags for a file of ours: never through a link, never somebody else's.
const OURS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
pub(super) const NEW: OFlags = OURS.union(OFlags::CREATE).union(OFlags::EXCL);

/// What an early stage hands over: see `early.rs`.
pub(super) struct StageParts {
    pub file: OwnedFd,
    pub ino: u64,
    /// Which chunks are there.
    pub present: Vec<bool>,
    /// Room that was promised for the others.
    pub missing_bytes: u64,
    /// The hash of the first `hashed` chunks.
    pub whole: Sha256,
    pub hashed: usize,
}

impl Stage {
    /// A stage whose part is there already, every chunk of it verified.
    pub(super) fn of_parts(root: &Arc<Root>, manifest: &Manifest, parts: StageParts) -> Self {
        let missing = parts.present.iter().filter(|present| !**present).count();
        let StageParts { file, ino, present, missing_bytes: promised_bytes, whole, hashed } = parts;
        Self {
            root: root.clone(),
            manifest: manifest.clone(),
            offsets: manifest.with_offsets().map(|(at, _)| at).collect(),
            file,
            ino,
            fresh: false,
            written: AtomicU64::new(0),
            progress: Mutex::new(Progress { present, missing, promised_bytes, whole, hashed }),
        }
    }

    /// Begins to collect a content, or goes on where an earlier stage of it ended.
    ///
    /// Answers [`Obstacle::NoSpace`] before the disk is full: a reserve and the room promised to other stages are left alone (K09, Q10).
    pub fn begin(root: &Arc<Root>, manifest: &Manifest) -> Result<Self, Obstacle> {
        let open = root.enter().map_err(super::root::RootError::obstacle)?;
        let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
        let name = part_name(&manifest.hash());
        let (file, fresh) = open_part(&tmp, &name).map_err(obstacle)?;
        let raw = statx_fd(&file).map_err(obstacle)?;
        let had = raw.stx_blocks.saturating_mul(512).min(manifest.size());
        root.promise(&open, manifest.size() - had)?;
        let offsets: Vec<u64> = manifest.with_offsets().map(|(at, _)| at).collect();
        let count = offsets.len();
        let progress = Progress {
            present: vec![false; count],
            missing: count,
            promised_bytes: manifest.size() - had,
            whole: Sha256::new(),
            hashed: 0,
        };
        let stage = Self {
            root: root.clone(),
            manifest: manifest.clone(),
            offsets,
            file,
            ino: raw.stx_ino,
            fresh,
            written: AtomicU64::new(0),
            progress: Mutex::new(progress),
        };
        rustix::fs::ftruncate(&stage.file, manifest.size()).map_err(obstacle)?;
        if !fresh && raw.stx_blocks > 0 {
            stage.find_present().map_err(obstacle)?;
        }
        stage.take_zeros();
        Ok(stage)
    }

    /// The content that is collected.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chunks that are not there yet: their places in the manifest, their offsets in bytes, and what they are.
    pub fn missing(&self) -> Vec<(usize, u64, ChunkRef)> {
        let progress = self.lock();
        let all = self.manifest.chunks().iter().zip(&self.offsets).enumerate();
        all.filter(|(i, _)| !progress.present[*i]).map(|(i, (chunk, offset))| (i, *offset, *chunk)).collect()
    }

    /// Whether every chunk is there.
    pub fn is_complete(&self) -> bool {
        self.lock().missing == 0
    }

    /// Writes a chunk at an offset where the manifest has it; elsewhere nothing happens. Chunks of zeros stay holes.
    pub fn put<B: AsRef<[u8]>>(&self, offset: u64, chunk: &VerifiedChunk<B>) -> Result<(), Obstacle> {
        let Some(index) = self.place_of(offset, &chunk.id()) else { return Ok(()) };
        if self.lock().present[index] {
            return Ok(());
        }
        if !self.fresh || chunk.bytes().iter().any(|b| *b != 0) {
            write_full(&self.file, chunk.bytes(), offset).map_err(obstacle)?;
            self.begin_writing_back(chunk.bytes().len() as u64)?;
        }
        let mut progress = self.lock();
        self.mark(&mut progress, index, Some(chunk.bytes()));
        self.catch_up(&mut progress).map_err(obstacle)
    }

    /// Takes a chunk from a file of this folder, if it is still there: its bytes are hashed before they count (H06).
    pub fn copy_from_local(&self, source: &RelPath, offset: u64, dst_offset: u64, chunk: &ChunkRef) -> Result<bool, Obstacle> {
        match read_chunk(&self.root, source, offset, chunk) {
            Ok(bytes) => self.put(dst_offset, &bytes).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Verifies the whole and makes the file ready for [`super::apply()`].
    ///
    /// [`Obstacle::Corrupt`] when the whole is not what the manifest says; the part is thrown away then. [`Obstacle::Io`] when chunks are
    /// missing, or when the temporary file was removed or replaced meanwhile (H11): begin again.
    pub fn finish(self) -> Result<Staged, Obstacle> {
        let open = self.root.enter().map_err(super::root::RootError::obstacle)?;
        let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
        let part = part_name(&self.manifest.hash());
        let named = statx_at(&tmp, part.as_bytes()).map_err(|_| Obstacle::Io)?;
        if named.stx_ino != self.ino || named.stx_size != self.manifest.size() || self.lock().missing > 0 {
            return Err(Obstacle::Io);
        }
        if self.manifest.chunks().len() > 1 && !self.whole_is_right().map_err(obstacle)? {
            let _ = rustix::fs::unlinkat(&tmp, &part, AtFlags::empty());
            return Err(Obstacle::Corrupt);
        }
        let ready = ready_name(&self.manifest.hash());
        rustix::fs::renameat(&tmp, &part, &tmp, &ready).map_err(obstacle)?;
        Ok(Staged { content: self.manifest.hash(), size: self.manifest.size() })
    }

    /// Gives up and frees the space.
    pub fn discard(self) {
        self.unlink_part();
    }

    fn unlink_part(&self) {
        if let Ok(tmp) = self.root.enter().map_err(|_| ()).and_then(|open| open.own_dir(TMP).map_err(|_| ())) {
            let _ = rustix::fs::unlinkat(&tmp, part_name(&self.manifest.hash()), AtFlags::empty());
        }
    }

    /// Has the disk begin with what has come, while more comes: otherwise all of a large file is written when it is placed.
    ///
    /// The kernel tells an error of writing back once: whoever opens the file later would hear nothing of it. So the part is thrown away, and
    /// [`Stage::finish`] finds it gone (K15).
    fn begin_writing_back(&self, written: u64) -> Result<(), Obstacle> {
        let before = self.written.fetch_add(written, Ordering::Relaxed);
        if before / WRITE_BACK_BYTES != (before + written) / WRITE_BACK_BYTES {
            rustix::fs::fdatasync(&self.file).map_err(|errno| {
                self.unlink_part();
                obstacle(errno)
            })?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // The progress is valid between any two statements that change it.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place_of(&self, offset: u64, id: &ChunkId) -> Option<usize> {
        let index = self.offsets.binary_search(&offset).ok()?;
        (self.manifest.chunks()[index].id == *id).then_some(index)
    }

    fn mark(&self, progress: &mut Progress, index: usize, bytes: Option<&[u8]>) {
        if std::mem::replace(&mut progress.present[index], true) {
            return;
        }
        progress.missing -= 1;
        let freed = u64::from(self.manifest.chunks()[index].len).min(progress.promised_bytes);
        progress.promised_bytes -= freed;
        self.root.keep_promise(freed);
        // Chunks that arrive in order are hashed while they are in memory.
        if let (true, Some(bytes)) = (progress.hashed == index && self.manifest.chunks().len() > 1, bytes) {
            progress.whole.update(bytes);
            progress.hashed += 1;
        }
    }

    /// Hashes what has become contiguous with the hashed head, so that little is left to read when the last chunk arrives.
    fn catch_up(&self, progress: &mut Progress) -> Result<(), Errno> {
        let chunks = self.manifest.chunks();
        let mut buffer = Vec::new();
        while chunks.len() > 1 && progress.hashed < chunks.len() && progress.present[progress.hashed] {
            buffer.resize(chunks[progress.hashed].len as usize, 0);
            if read_full(&self.file, &mut buffer, self.offsets[progress.hashed])? < buffer.len() {
                return Err(Errno::IO);
            }
            progress.whole.update(&buffer);
            progress.hashed += 1;
        }
        Ok(())
    }

    fn find_present(&self) -> Result<(), Errno> {
        let mut buffer = Vec::new();
        for (index, (chunk, offset)) in self.manifest.chunks().iter().zip(&self.offsets).enumerate() {
            match rustix::fs::seek(&self.file, SeekFrom::Data(*offset)) {
                // Nothing but a hole from here to the end of the chunk, or of the file.
                Ok(data) if data >= offset + u64::from(chunk.len) => continue,
                Err(Errno::NXIO) => return Ok(()),
                Ok(_) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
            buffer.resize(chunk.len as usize, 0);
            if read_full(&self.file, &mut buffer, *offset)? == buffer.len() && ChunkId::of(&buffer) == chunk.id {
                self.mark(&mut self.lock(), index, Some(&buffer));
            }
        }
        Ok(())
    }

    /// Chunks of zeros of the largest size need not travel. Where a part holds other bytes, they are freed.
    fn take_zeros(&self) {
        for (index, chunk) in self.manifest.chunks().iter().enumerate() {
            if is_zero_chunk(chunk) && !self.lock().present[index] && self.is_hole(self.offsets[index], u64::from(chunk.len)) {
                self.mark(&mut self.lock(), index, None);
            }
        }
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data >= offset + len,
            Err(errno) => errno == Errno::NXIO,
        }
    }

    fn whole_is_right(&self) -> Result<bool, Errno> {
        let mut progress = self.lock();
        self.catch_up(&mut progress)?;
        Ok(<[u8; 32]>::from(progress.whole.clone().finalize()) == *self.manifest.hash().as_bytes())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let promised = self.lock().promised_bytes;
        self.root.keep_promise(promised);
    }
}

fn open_part(tmp: &OwnedFd, name: &str) -> Result<(OwnedFd, bool), Errno> {
    match rustix::fs::openat(tmp, name, NEW, Mode::RUSR | Mode::WUSR) {
        Err(Errno::EXIST) => {}
        done => return done.map(|file| (file, true)),
    }
    if let Ok(file) = rustix::fs::openat(tmp, name, OURS, Mode::empty()) {
        let raw = statx_fd(&file)?;
        // A second hard link would let our writes reach another name.
        if raw.stx_mode & 0o170_000 == 0o100_000 && raw.stx_nlink == 1 {
            return Ok((file, false));
        }
    }
    // Not a file of ours (a link, a FIFO): it is in Ferry's own directory, so it goes, and nothing is written through it (H11).
    rustix::fs::unlinkat(tmp, name, AtFlags::empty())?;
    rustix::fs::openat(tmp, name, NEW, Mode::RUSR | Mode::WUSR).map(|file| (file, true))
}

/// Stages a file of one chunk, or an empty one, in one go: the way of small files.
pub fn stage_small(root: &Root, chunk: Option<&VerifiedChunk>) -> Result<Staged, Obstacle> {
    let open = root.enter().map_err(super::root::RootError::obstacle)?;
    let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
    stage_small_in(root, &open, &tmp, chunk)
}

/// The same for many files; stops at the first that cannot be staged and tells how many were.
pub fn stage_small_batch<'c>(root: &Root, chunks: impl IntoIterator<Item = Option<&'c VerifiedChunk>>) -> (Vec<Staged>, Option<Obstacle>) {
    let mut done = Vec::new();
    let opened = root.enter().map_err(super::root::RootError::obstacle);
    let opened = opened.and_then(|open| open.own_dir(TMP).map_err(PathError::obstacle).map(|tmp| (open, tmp)));
    let (open, tmp) = match opened {
        Ok(opened) => opened,
        Err(obstacle) => return (done, Some(obstacle)),
    };
    for chunk in chunks {
        match stage_small_in(root, &open, &tmp, chunk) {
            Ok(staged) => done.push(staged),
            Err(obstacle) => return (done, Some(obstacle)),
        }
    }
    (done, None)
}

fn stage_small_in(root: &Root, open: &OpenRoot, tmp: &OwnedFd, chunk: Option<&VerifiedChunk>) -> Result<Staged, Obstacle> {
    let bytes = chunk.map_or(&[][..], |c| c.bytes());
    let content = chunk.map_or_else(|| ContentHash::of(b""), |c| ContentHash::from_bytes(*c.id().as_bytes()));
    let size = bytes.len() as u64;
    root.promise(open, size)?;
    let written = (|| {
        let ready = ready_name(&content);
        let file = match rustix::fs::openat(tmp, &ready, NEW, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {
                // Left by an earlier call, perhaps incomplete: never trusted.
                rustix::fs::unlinkat(tmp, &ready, AtFlags::empty())?;
                rustix::fs::openat(tmp, &ready, NEW, Mode::RUSR | Mode::WUSR)?
            }
            opened => opened?,
        };
        write_full(&file, bytes, 0)
    })();
    root.keep_promise(size);
    written.map_err(|errno| {
        let _ = rustix::fs::unlinkat(tmp, ready_name(&content), AtFlags::empty());
        obstacle(errno)
    })?;
    Ok(Staged { content, size })
}

pub(super) fn write_full(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether this is a chunk of zeros of one of the largest sizes, as long runs of zeros are cut.
fn is_zero_chunk(chunk: &ChunkRef) -> bool {
    static ZEROS: OnceLock<[ChunkRef; 2]> = OnceLock::new();
    let zeros = ZEROS.get_or_init(|| [STANDARD.max, LARGE.max].map(|len| ChunkRef { id: ChunkId::of(&vec![0; len]), len: len as u32 }));
    zeros.contains(chunk)
}

/// Makes what an earlier run left in `tmp` usable or removes it: complete files become parts, to be hashed again; parts that rested for
/// longer than `keep_ns`, and anything else, go. To be called once, before any stage begins.
pub(crate) fn sweep(open: &OpenRoot, keep_ns: i64) -> Result<(), PathError> {
    let tmp = open.own_dir(TMP)?;
    for name in names_in(&tmp)? {
        let name = name.as_slice();
        let old = rested_for(open, &tmp, name, keep_ns);
        let keep = if let (false, Some(stem)) = (old, name.strip_suffix(b".ready")) {
            let part = [stem, b".part"].concat();
            // It may have got the mode of a file that is read-only; a part is written to.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            if let Ok(file) = rustix::fs::openat(&tmp, name, flags, Mode::empty()) {
                let _ = rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR);
            }
            rustix::fs::renameat_with(&tmp, name, &tmp, &part, RenameFlags::NOREPLACE).is_ok()
        } else {
            !old && name.ends_with(b".part")
        };
        if !keep {
            remove_own(&tmp, name);
        }
    }
    Ok(())
}

/// Removes what has waited in `tmp` for longer than `keep_ns` while this runs: downloads that were given up, and contents whose place never became
/// free. Whoever still wants one stages it again. How many there were.
pub(crate) fn drop_old(open: &OpenRoot, keep_ns: i64) -> Result<usize, PathError> {
    let tmp = open.own_dir(TMP)?;
    let old: Vec<Vec<u8>> = names_in(&tmp)?.into_iter().filter(|name| rested_for(open, &tmp, name, keep_ns)).collect();
    old.iter().for_each(|name| remove_own(&tmp, name));
    Ok(old.len())
}

/// The names in a directory of ours. It is opened anew: whoever read it before has moved the place where its handle reads on.
pub(super) fn names_in(tmp: &OwnedFd) -> Result<Vec<Vec<u8>>, PathError> {
    let mut buffer = vec![std::mem::MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut names: Vec<Vec<u8>> = Vec::new();
    let dir = rustix::fs::openat(tmp, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut raw = rustix::fs::RawDir::new(&dir, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Whether nothing was done to it for so long.
fn rested_for(open: &OpenRoot, tmp: &OwnedFd, name: &[u8], ns: i64) -> bool {
    statx_at(tmp, name).is_ok_and(|raw| now_ns().saturating_sub(open.view.stat(&raw).ctime_ns) > ns)
}

/// Removes a temporary entry of ours, a file or an empty directory.
pub(crate) fn remove_own(dir: &OwnedFd, name: &[u8]) {
    if rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err() {
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
    }
}
