//! A file that comes before it is known what it is: its sender still reads it. Once the manifest is known, what has come becomes the beginning of
//! a [`Stage`], without being read again.
//!
//! * **ES2** No byte is written twice: a piece that would stand where another does is refused, so that what was hashed is what stands there.
//! * **ES1** Once the stage is taken nothing is written through this any more: what was verified stays as it was (I5).

use super::handle::{PathError, obstacle, statx_at, statx_fd};
use super::hash::read_full;
use super::root::{Root, RootError, TMP};
use super::stage::{NEW, Stage, StageParts, part_name, write_full};
use ferry_engine::disk::Obstacle;
use ferry_protocol::limits::{FILE_MAX_BYTES, MANIFEST_CHUNKS_MAX};
use ferry_protocol::{ChunkId, ChunkRef, Manifest, VerifiedChunk};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// After so many bytes the disk begins to write them back.
const WRITE_BACK_BYTES: u64 = 64 << 20;

/// Chunks at offsets, in a temporary file without a name that lasts: after a crash it is swept away.
#[derive(Debug)]
pub struct EarlyStage {
    root: Arc<Root>,
    name: String,
    file: OwnedFd,
    ino: u64,
    written: AtomicU64,
    /// Nothing more is written: it has become a stage, or a write failed half way. Held while something is written.
    closed: RwLock<bool>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    pieces: BTreeMap<u64, ChunkRef>,
    /// Where pieces stand or are being written, each to its end: no two may meet (ES2).
    taken: BTreeMap<u64, u64>,
    /// Hash of the file up to `hashed` bytes.
    whole: Sha256,
    hashed: u64,
}

impl Progress {
    /// Takes the place of a piece; whether it is still to be written. [`Obstacle::Corrupt`] where something else stands or is being written.
    fn take(&mut self, offset: u64, piece: ChunkRef) -> Result<bool, Obstacle> {
        let end = offset.saturating_add(u64::from(piece.len));
        if self.pieces.get(&offset) == Some(&piece) {
            return Ok(false);
        }
        if end > FILE_MAX_BYTES || self.taken.len() >= MANIFEST_CHUNKS_MAX {
            return Err(Obstacle::Unrepresentable);
        }
        let meets_earlier = self.taken.range(..=offset).next_back().is_some_and(|(_, its_end)| *its_end > offset);
        let meets_later = self.taken.range(offset..).next().is_some_and(|(its_start, _)| *its_start < end);
        if meets_earlier || meets_later {
            return Err(Obstacle::Corrupt);
        }
        self.taken.insert(offset, end);
        Ok(true)
    }
}

impl EarlyStage {
    /// A new one.
    pub fn begin(root: &Arc<Root>) -> Result<Self, Obstacle> {
        /// Of this process: no two have one name.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let open = root.enter().map_err(RootError::obstacle)?;
        let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
        let name = format!("early-{}-{number}", std::process::id());
        // Left by an earlier process of this number.
        let _ = rustix::fs::unlinkat(&tmp, &name, AtFlags::empty());
        let file = rustix::fs::openat(&tmp, &name, NEW, Mode::RUSR | Mode::WUSR).map_err(obstacle)?;
        let ino = statx_fd(&file).map_err(obstacle)?.stx_ino;
        Ok(Self { root: root.clone(), name, file, ino, written: AtomicU64::new(0), closed: RwLock::new(false), progress: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // The progress is valid between any two statements that change it.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a chunk at an offset; [`Obstacle::Busy`] once the stage was taken.
    pub fn put<B: AsRef<[u8]>>(&self, offset: u64, chunk: &VerifiedChunk<B>) -> Result<(), Obstacle> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(Obstacle::Busy);
        }
        let len = chunk.bytes().len() as u64;
        let piece = ChunkRef { id: chunk.id(), len: len as u32 };
        if !self.lock().take(offset, piece)? {
            return Ok(());
        }
        // Zeros stay a hole.
        if chunk.bytes().iter().any(|b| *b != 0) {
            let room = self.root.enter().map_err(RootError::obstacle).and_then(|open| self.root.promise(&open, len));
            if let Err(obstacle) = room {
                self.lock().taken.remove(&offset);
                return Err(obstacle);
            }
            let written = write_full(&self.file, chunk.bytes(), offset);
            self.root.keep_promise(len);
            if let Err(errno) = written {
                // Half of it may stand where zeros are believed.
                drop(closed);
                *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
                return Err(obstacle(errno));
            }
            let before = self.written.fetch_add(len, Ordering::Relaxed);
            if before / WRITE_BACK_BYTES != (before + len) / WRITE_BACK_BYTES {
                rustix::fs::fdatasync(&self.file).map_err(obstacle)?;
            }
        }
        let mut progress = self.lock();
        progress.pieces.insert(offset, piece);
        if progress.hashed == offset {
            progress.whole.update(chunk.bytes());
            progress.hashed += len;
        }
        self.catch_up(&mut progress).map_err(obstacle)
    }

    /// Hashes what has become contiguous with the hashed head.
    fn catch_up(&self, progress: &mut Progress) -> Result<(), rustix::io::Errno> {
        let mut buffer = Vec::new();
        while let Some(piece) = progress.pieces.get(&progress.hashed) {
            buffer.resize(piece.len as usize, 0);
            let at = progress.hashed;
            let read = read_full(&self.file, &mut buffer, at)?;
            // Beyond the end of the file lies a hole that was not written.
            buffer[read..].fill(0);
            progress.whole.update(&buffer);
            progress.hashed += buffer.len() as u64;
        }
        Ok(())
    }

    /// The chunks that have come.
    pub fn ids(&self) -> HashSet<ChunkId> {
        self.lock().pieces.values().map(|piece| piece.id).collect()
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.lock().pieces.values().map(|piece| u64::from(piece.len)).sum()
    }

    /// Whether everything that came stands where a manifest has it.
    pub fn is_part_of(&self, manifest: &Manifest) -> bool {
        let progress = self.lock();
        let mut pieces = progress.pieces.iter().peekable();
        for (offset, chunk) in manifest.with_offsets() {
            match pieces.peek() {
                Some((at, piece)) if **at == offset && **piece == chunk => drop(pieces.next()),
                Some((at, _)) if **at > offset => {}
                Some(_) => return false,
                None => return true,
            }
        }
        pieces.next().is_none()
    }

    /// Copies what a stage lacks and this has: another version of its file, or an earlier reading. Every chunk is read and hashed again.
    pub fn copy_into(&self, stage: &Stage) -> Result<(), Obstacle> {
        let places: HashMap<ChunkId, u64> = self.lock().pieces.iter().map(|(offset, piece)| (piece.id, *offset)).collect();
        for (_, to, chunk) in stage.missing() {
            let Some(from) = places.get(&chunk.id) else { continue };
            let mut buffer = vec![0; chunk.len as usize];
            // Beyond the end of the file lies a hole that was not written. What cannot be read is fetched.
            let Ok(_) = read_full(&self.file, &mut buffer, *from) else { continue };
            if let Some(chunk) = VerifiedChunk::verify(chunk.id, buffer) {
                stage.put(to, &chunk)?;
            }
        }
        Ok(())
    }

    /// What came becomes the stage of a content of which it is a part; this is empty afterwards, and what is put into it is lost.
    ///
    /// # Errors
    /// [`Obstacle::Corrupt`] if it is no part of it; [`Obstacle::Busy`] if there is a stage of it, which may hold more;
    /// [`Obstacle::NoSpace`] if the rest has no room.
    pub fn take_stage(&self, manifest: &Manifest) -> Result<Stage, Obstacle> {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        if *closed || !self.is_part_of(manifest) {
            return Err(Obstacle::Corrupt);
        }
        let open = self.root.enter().map_err(RootError::obstacle)?;
        let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
        if statx_at(&tmp, part_name(&manifest.hash()).as_bytes()).is_ok() {
            return Err(Obstacle::Busy);
        }
        let missing_bytes = manifest.size().saturating_sub(self.bytes());
        self.root.promise(&open, missing_bytes)?;
        let adopt = || {
            rustix::fs::ftruncate(&self.file, manifest.size())?;
            rustix::fs::renameat(&tmp, &self.name, &tmp, part_name(&manifest.hash()))?;
            rustix::io::fcntl_dupfd_cloexec(&self.file, 3)
        };
        let file = adopt().map_err(|errno| {
            self.root.keep_promise(missing_bytes);
            obstacle(errno)
        })?;
        // What failed until here leaves it as it was.
        *closed = true;
        let progress = std::mem::take(&mut *self.lock());
        let present = manifest.with_offsets().map(|(offset, _)| progress.pieces.contains_key(&offset)).collect();
        let hashed = manifest.with_offsets().take_while(|(at, chunk)| at + u64::from(chunk.len) <= progress.hashed).count();
        let parts = StageParts { file, ino: self.ino, present, missing_bytes, whole: progress.whole, hashed };
        Ok(Stage::of_parts(&self.root, manifest, parts))
    }
}

impl Drop for EarlyStage {
    fn drop(&mut self) {
        // Under its new name, if it has become a stage, it is not found here.
        if let Ok(tmp) = self.root.enter().map_err(|_| ()).and_then(|open| open.own_dir(TMP).map_err(|_| ())) {
            let _ = rustix::fs::unlinkat(&tmp, &self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Folder, manifest, noise};
    use super::*;

    /// The chunks of some bytes with their offsets.
    fn pieces(bytes: &[u8]) -> Vec<(u64, VerifiedChunk)> {
        let manifest = manifest(bytes);
        manifest.with_offsets().map(|(at, c)| (at, VerifiedChunk::of(bytes[at as usize..][..c.len as usize].to_vec()))).collect()
    }

    #[test]
    fn what_came_early_in_any_order_becomes_the_stage_and_is_not_fetched_again() {
        let folder = Folder::new();
        let bytes = [noise(3 << 20, 1), vec![0; 9 << 20], noise(2 << 20, 2)].concat();
        let (whole, mut all) = (manifest(&bytes), pieces(&bytes));
        assert!(all.len() > 4);
        let last = all.pop().unwrap();
        all.reverse();
        let early = EarlyStage::begin(&folder.root).unwrap();
        assert!(early.ids().is_empty() && early.is_part_of(&whole));
        for (offset, chunk) in &all {
            early.put(*offset, chunk).unwrap();
        }
        assert!(early.is_part_of(&whole) && !early.is_part_of(&manifest(&noise(5 << 20, 3))) && !early.is_part_of(&Manifest::empty()));
        let stage = early.take_stage(&whole).unwrap();
        assert_eq!(early.put(last.0, &last.1), Err(Obstacle::Busy), "nothing is written behind the stage's back");
        assert_eq!(early.take_stage(&whole).unwrap_err(), Obstacle::Corrupt);
        drop(early);
        assert_eq!(stage.missing().iter().map(|(_, at, _)| *at).collect::<Vec<_>>(), [last.0]);
        stage.put(last.0, &last.1).unwrap();
        assert_eq!(stage.finish().unwrap().content, whole.hash());
        assert_eq!(folder.own("tmp"), [format!("{}.ready", whole.hash())]);
        assert_eq!(folder.read(&format!(".ferry/tmp/{}.ready", whole.hash())).unwrap(), bytes);
    }

    /// I5: who offers something else for a place, between two times the right chunk, gets nothing wrong into the file.
    #[test]
    fn no_piece_takes_the_place_of_another() {
        let folder = Folder::new();
        let bytes = noise(6 << 20, 1);
        let (whole, all) = (manifest(&bytes), pieces(&bytes));
        let early = EarlyStage::begin(&folder.root).unwrap();
        for (offset, chunk) in &all {
            early.put(*offset, chunk).unwrap();
        }
        let other = VerifiedChunk::of(noise(3 << 20, 2));
        let (second, last) = (all[1].0, all.last().unwrap());
        for offset in [0, 1, second - 1, second, second + 1, last.0] {
            assert_eq!(early.put(offset, &other), Err(Obstacle::Corrupt), "at {offset}");
        }
        early.put(second, &all[1].1).unwrap();
        let stage = early.take_stage(&whole).unwrap();
        stage.finish().unwrap();
        assert_eq!(folder.read(&format!(".ferry/tmp/{}.ready", whole.hash())).unwrap(), bytes);
    }

    #[test]
    fn a_part_that_is_there_stays_and_takes_what_it_lacks_from_any_reading() {
        let folder = Folder::new();
        let (before, after) = (noise(6 << 20, 1), [noise(6 << 20, 1), noise(2 << 20, 2)].concat());
        let (whole, all) = (manifest(&after), pieces(&after));
        let (first, last) = (&all[0], all.last().unwrap());
        let stage = Stage::begin(&folder.root, &whole).unwrap();
        stage.put(last.0, &last.1).unwrap();
        drop(stage);
        let (early, older) = (EarlyStage::begin(&folder.root).unwrap(), EarlyStage::begin(&folder.root).unwrap());
        early.put(first.0, &first.1).unwrap();
        for (offset, chunk) in &pieces(&before) {
            older.put(*offset, chunk).unwrap();
        }
        assert!(!older.is_part_of(&whole), "its last chunk was the file's end then");
        assert_eq!(early.take_stage(&whole).unwrap_err(), Obstacle::Busy);
        let stage = Stage::begin(&folder.root, &whole).unwrap();
        assert_eq!(stage.missing().len(), all.len() - 1);
        early.copy_into(&stage).unwrap();
        assert_eq!(stage.missing().len(), all.len() - 2);
        older.copy_into(&stage).unwrap();
        let known = older.ids();
        assert!(stage.missing().iter().all(|(_, _, chunk)| !known.contains(&chunk.id)));
        assert!(stage.missing().len() < all.len() - 2);
        // What was damaged on the disk does not count.
        let harmed = EarlyStage::begin(&folder.root).unwrap();
        let left = stage.missing();
        let (_, offset, _) = left[0];
        let piece = all.iter().find(|(at, _)| *at == offset).unwrap();
        harmed.put(piece.0, &piece.1).unwrap();
        write_full(&harmed.file, b"harm", offset).unwrap();
        harmed.copy_into(&stage).unwrap();
        assert_eq!(stage.missing(), left);
    }

    #[test]
    fn what_nobody_claims_leaves_nothing_and_lies_are_found() {
        let folder = Folder::new();
        let (bytes, other) = (noise(5 << 20, 1), noise(5 << 20, 2));
        let early = EarlyStage::begin(&folder.root).unwrap();
        let (offset, chunk) = &pieces(&other)[0];
        early.put(*offset, chunk).unwrap();
        assert_eq!(early.take_stage(&manifest(&bytes)).unwrap_err(), Obstacle::Corrupt);
        assert_eq!(early.put(FILE_MAX_BYTES, chunk), Err(Obstacle::Unrepresentable));
        drop(early);
        assert!(folder.own("tmp").is_empty());
    }
}
