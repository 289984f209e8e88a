//! Versions of texts that are kept because a merge may need them as its base: `.ferry/bases/<hash>`, each compressed.
//!
//! Once a file is edited, the version before it stands nowhere on this disk. The relay's history may have it; without a relay only this does. It is a
//! cache: what is damaged or was dropped for room costs a merge, never a content. So nothing here is synced to the disk, and whatever is read is hashed.

use super::handle::statx_at;
use super::hash::read_full;
use super::list::open_file;
use super::root::{OpenRoot, Root};
use super::stage::{NEW, names_in, remove_own, write_full};
use ferry_engine::Keep;
use ferry_protocol::limits::MERGE_MAX_BYTES;
use ferry_protocol::{ContentHash, merge};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directory, in Ferry's own.
const BASES: &str = "bases";
/// So much room the versions of one folder take at most, compressed; the oldest go first.
pub const BASES_MAX_BYTES: u64 = 256 << 20;
/// What is left of that when some had to go.
const BASES_LEFT_BYTES: u64 = BASES_MAX_BYTES / 8 * 7;
const LEVEL: i32 = 1;

/// So much of a file is read before the rest is, in bytes: most that are no texts show it there.
const HEAD_BYTES: usize = 8 << 10;

/// The kept versions of one folder.
pub struct Bases {
    root: Arc<Root>,
    /// Whether versions are kept.
    on: AtomicBool,
    /// Their compressed size in bytes, once it is known. Whoever writes or removes holds this.
    held: Mutex<Option<u64>>,
}

impl Bases {
    /// The versions kept for a root, and whether more are.
    pub fn new(root: Arc<Root>, on: bool) -> Self {
        Self { root, on: AtomicBool::new(on), held: Mutex::new(None) }
    }

    /// Versions are kept from now on, or no more: then [`Bases::clear`] removes what was. Never waits.
    pub fn set_on(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
    }

    /// Keeps these versions, as far as they still stand where they stood and are texts, and the disk has room for them. What does not work is left out.
    pub fn keep(&self, versions: &[Keep]) {
        let Some(dir) = self.dir_if_on() else { return };
        for version in versions {
            if statx_at(&dir, name(&version.manifest.hash()).as_bytes()).is_ok() {
                continue;
            }
            let Ok(open) = self.root.enter() else { return };
            let size = version.manifest.size();
            if self.root.promise(&open, size).is_err() {
                tracing::debug!(path = %version.path, "no room to keep versions for merges");
                return;
            }
            if let Some(bytes) = read_file(&open, version)
                && let Err(error) = self.write(&dir, &version.manifest.hash(), &bytes)
            {
                tracing::debug!(path = %version.path, %error, "a version is not kept for merges");
            }
            self.root.keep_promise(size);
        }
    }

    /// The directory, made if need be; nothing while nothing is kept.
    fn dir_if_on(&self) -> Option<OwnedFd> {
        let _held = self.lock();
        if self.on.load(Ordering::SeqCst) { self.dir() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, dir: &OwnedFd, hash: &ContentHash, bytes: &[u8]) -> std::io::Result<()> {
        let packed = zstd::bulk::compress(bytes, LEVEL)?;
        // One writer at a time: the size is counted, and a name that is being written is nobody else's.
        let mut held = self.lock();
        // After a switch there is no write any more that what removes all could miss.
        if !self.on.load(Ordering::SeqCst) {
            return Ok(());
        }
        let known = held.get_or_insert_with(|| entries(dir).iter().map(|e| e.bytes).sum());
        *known += packed.len() as u64;
        if *known > BASES_MAX_BYTES {
            *known = drop_oldest(dir, BASES_LEFT_BYTES.saturating_sub(packed.len() as u64)) + packed.len() as u64;
        }
        let (new, name) = (format!("{}.new", name(hash)), name(hash));
        remove_own(dir, new.as_bytes());
        let file = rustix::fs::openat(dir, &new, NEW, Mode::RUSR | Mode::WUSR)?;
        let done = write_full(&file, &packed, 0).and_then(|()| rustix::fs::renameat(dir, &new, dir, &name));
        if done.is_err() {
            remove_own(dir, new.as_bytes());
        }
        Ok(done?)
    }

    /// A kept version, if it is there and what it should be.
    pub fn read(&self, hash: &ContentHash) -> Option<Vec<u8>> {
        let dir = self.dir()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::openat(&dir, name(hash), flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        // A damaged one may claim to hold any number of bytes.
        zstd::Decoder::new(file).ok()?.take(MERGE_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
        (ContentHash::of(&bytes) == *hash).then_some(bytes)
    }

    /// Drops all, if nothing is kept any more.
    pub fn clear(&self) {
        let mut held = self.lock();
        let Some(own) = self.root.enter().ok().and_then(|open| open.bookkeeping().ok()) else { return };
        // Not made only to be removed.
        if self.on.load(Ordering::SeqCst) || statx_at(&own, BASES.as_bytes()).is_err() {
            return;
        }
        if let Some(dir) = self.dir() {
            entries(&dir).iter().for_each(|entry| remove_own(&dir, &entry.name));
        }
        remove_own(&own, BASES.as_bytes());
        *held = None;
    }

    fn dir(&self) -> Option<OwnedFd> {
        self.root.enter().ok()?.own_dir(BASES).ok()
    }
}

/// The bytes of a version, if it still stands where it stood and is a text.
fn read_file(open: &OpenRoot, version: &Keep) -> Option<Vec<u8>> {
    let (file, stat) = open_file(open, &version.path).ok()?;
    if !stat.same_version(&version.stat) || stat.size != version.manifest.size() || stat.size > MERGE_MAX_BYTES {
        return None;
    }
    let bytes = read_text(stat.size as usize, |buffer, offset| read_full(&file, buffer, offset).ok())?;
    (ContentHash::of(&bytes) == version.manifest.hash()).then_some(bytes)
}

/// So many bytes of what `read` reads at an offset, if they are a text. What is none is seldom read whole: a folder may hold very much of it.
fn read_text(size: usize, mut read: impl FnMut(&mut [u8], u64) -> Option<usize>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    let (head, rest) = bytes.split_at_mut(size.min(HEAD_BYTES));
    if read(head, 0)? < head.len() || !may_begin_text(head) || read(rest, head.len() as u64)? < rest.len() {
        return None;
    }
    merge::is_text(&bytes).then_some(bytes)
}

/// Whether a text may begin with these bytes. A character may be cut at their end.
fn may_begin_text(head: &[u8]) -> bool {
    !head.contains(&0) && std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn name(hash: &ContentHash) -> String {
    hash.to_string()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    changed: (i64, u32),
    name: Vec<u8>,
    bytes: u64,
}

/// What is kept, the oldest first.
fn entries(dir: &OwnedFd) -> BTreeSet<Entry> {
    let sized = |name: Vec<u8>| {
        let raw = statx_at(dir, &name).ok()?;
        Some(Entry { changed: (raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec), name, bytes: raw.stx_size })
    };
    names_in(dir).unwrap_or_default().into_iter().filter_map(sized).collect()
}

/// Removes the oldest until so much is left, in bytes; how much that is.
fn drop_oldest(dir: &OwnedFd, left: u64) -> u64 {
    let entries = entries(dir);
    let mut held: u64 = entries.iter().map(|e| e.bytes).sum();
    for entry in &entries {
        if held <= left {
            break;
        }
        remove_own(dir, &entry.name);
        held -= entry.bytes;
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::fixture::{Folder, manifest, rel};

    fn version(folder: &Folder, at: &str, bytes: &[u8]) -> Keep {
        Keep { path: rel(at), stat: folder.write(at, bytes), manifest: manifest(bytes) }
    }

    #[test]
    fn what_is_kept_outlives_the_file_and_damage_is_noticed() {
        let folder = Folder::new();
        let bases = Bases::new(folder.root.clone(), true);
        let text = version(&folder, "f", b"one\ntwo\n");
        let binary = version(&folder, "binary", b"one\0two\n");
        let gone = version(&folder, "gone", b"before\n");
        folder.write("gone", b"after, longer\n");
        bases.keep(&[text.clone(), binary.clone(), gone.clone()]);
        folder.write("f", b"changed");
        assert_eq!(bases.read(&text.manifest.hash()).unwrap(), b"one\ntwo\n");
        assert_eq!(bases.read(&binary.manifest.hash()), None, "no text");
        assert_eq!(bases.read(&gone.manifest.hash()), None, "it no longer stands there");
        let at = format!(".ferry/bases/{}", text.manifest.hash());
        folder.write(&at, zstd::bulk::compress(b"another\n", 1).unwrap());
        assert_eq!(bases.read(&text.manifest.hash()), None, "damaged");
        bases.set_on(false);
        bases.clear();
        assert!(!folder.path(".ferry/bases").exists());
        bases.clear();
        assert!(!folder.path(".ferry/bases").exists(), "and it is not made for that");
    }

    /// The switch may come while versions are on their way to be kept: they must not bring back what it removes.
    #[test]
    fn what_is_switched_off_keeps_nothing() {
        let folder = Folder::new();
        let bases = Bases::new(folder.root.clone(), true);
        let (first, second) = (version(&folder, "f", b"one\n"), version(&folder, "g", b"two\n"));
        bases.keep(std::slice::from_ref(&first));
        let dir = bases.dir_if_on().unwrap();
        bases.clear();
        assert!(bases.read(&first.manifest.hash()).is_some(), "it is on again before anything was removed");
        bases.set_on(false);
        bases.write(&dir, &second.manifest.hash(), b"two\n").unwrap();
        assert_eq!(names_in(&dir).unwrap().len(), 1, "a keep that had begun before the switch");
        bases.clear();
        bases.keep(&[first.clone(), second]);
        assert!(!folder.path(".ferry/bases").exists(), "a keep that waited");
        bases.set_on(true);
        bases.keep(std::slice::from_ref(&first));
        assert!(bases.read(&first.manifest.hash()).is_some());
    }

    #[test]
    fn what_the_disk_has_no_room_for_is_not_kept() {
        let folder = Folder::new();
        let bases = Bases::new(folder.root.clone(), true);
        let text = version(&folder, "f", b"one\n");
        folder.root.set_reserve_bytes(u64::MAX - 1);
        bases.keep(std::slice::from_ref(&text));
        assert_eq!(bases.read(&text.manifest.hash()), None);
        folder.root.set_reserve_bytes(0);
        bases.keep(std::slice::from_ref(&text));
        assert!(bases.read(&text.manifest.hash()).is_some());
    }

    #[test]
    fn what_is_no_text_is_not_read_whole() {
        let read = |bytes: &[u8]| {
            let mut total = 0;
            let text = read_text(bytes.len(), |buffer, offset| {
                buffer.copy_from_slice(&bytes[offset as usize..offset as usize + buffer.len()]);
                total += buffer.len();
                Some(buffer.len())
            });
            assert!(text.is_none_or(|text| text == bytes && total == bytes.len()));
            total
        };
        let long = "ab\n".repeat(HEAD_BYTES).into_bytes();
        let with = |at: usize, byte: u8| [&long[..at], &[byte], &long[at..]].concat();
        assert_eq!(read(&long), long.len());
        assert_eq!(read(b"short\n"), 6);
        assert_eq!(read(&with(10, 0)), HEAD_BYTES, "a zero byte");
        assert_eq!(read(&with(10, 0xFF)), HEAD_BYTES, "not UTF-8");
        assert_eq!(read(&with(HEAD_BYTES + 10, 0)), long.len() + 1);
        let cut = [&long[..HEAD_BYTES - 1], "\u{e9}".as_bytes(), &long].concat();
        assert!(
            read_text(cut.len(), |buffer, offset| {
                buffer.copy_from_slice(&cut[offset as usize..offset as usize + buffer.len()]);
                Some(buffer.len())
            })
            .is_some(),
            "a character that is cut at the end of the head"
        );
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = Folder::new();
        let dir = Bases::new(folder.root.clone(), true).dir().unwrap();
        for (age, name) in ["c", "a", "b"].iter().enumerate() {
            let path = folder.path(&format!(".ferry/bases/{name}"));
            std::fs::write(&path, [0; 100]).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + age as u64);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(entries(&dir).len(), 3);
        assert_eq!(drop_oldest(&dir, 150), 100, "also of a directory that was read before");
        assert!(folder.path(".ferry/bases/b").exists() && !folder.path(".ferry/bases/c").exists());
    }
}
