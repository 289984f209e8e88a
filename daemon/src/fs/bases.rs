//! Versions of texts that are kept because a merge may need them as its base: `.ferry/bases/<hash>`, each compressed.
//!
//! Once a file is edited, the version before it stands nowhere on this disk. The relay's history may have it; without a relay only this does. It is a
//! cache: what is damaged or was dropped for room costs a merge, never a content. So nothing here is synced to the disk, and whatever is read is hashed.

use super::handle::statx_at;
use super::hash::read_full;
use super::list::open_file;
use super::root::Root;
use super::stage::{NEW, remove_own, write_full};
use ferry_engine::Keep;
use ferry_protocol::limits::MERGE_MAX_BYTES;
use ferry_protocol::{ContentHash, merge};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, RawDir};
use std::collections::BTreeSet;
use std::io::Read;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

/// The directory, in Ferry's own.
const BASES: &str = "bases";
/// So much room the versions of one folder take at most, compressed; the oldest go first.
pub const BASES_MAX_BYTES: u64 = 256 << 20;
/// What is left of that when some had to go.
const BASES_LEFT_BYTES: u64 = BASES_MAX_BYTES / 8 * 7;
const LEVEL: i32 = 1;

/// The kept versions of one folder.
pub struct Bases {
    root: Arc<Root>,
    /// Their compressed size in bytes, once it is known.
    held: Mutex<Option<u64>>,
}

impl Bases {
    /// The versions kept for a root.
    pub fn new(root: Arc<Root>) -> Self {
        Self { root, held: Mutex::new(None) }
    }

    /// Keeps these versions, as far as they still stand where they stood and are texts. What does not work is left out.
    pub fn keep(&self, versions: &[Keep]) {
        let Some(dir) = self.dir() else { return };
        for version in versions {
            if statx_at(&dir, name(&version.manifest.hash()).as_bytes()).is_ok() {
                continue;
            }
            if let Some(bytes) = self.read_file(version)
                && let Err(error) = self.write(&dir, &version.manifest.hash(), &bytes)
            {
                tracing::debug!(path = %version.path, %error, "a version is not kept for merges");
            }
        }
    }

    fn read_file(&self, version: &Keep) -> Option<Vec<u8>> {
        let open = self.root.enter().ok()?;
        let (file, stat) = open_file(&open, &version.path).ok()?;
        if !stat.same_version(&version.stat) || stat.size != version.manifest.size() || stat.size > MERGE_MAX_BYTES {
            return None;
        }
        let mut bytes = vec![0; stat.size as usize];
        let read = read_full(&file, &mut bytes, 0).ok()?;
        (read == bytes.len() && merge::is_text(&bytes) && ContentHash::of(&bytes) == version.manifest.hash()).then_some(bytes)
    }

    fn write(&self, dir: &OwnedFd, hash: &ContentHash, bytes: &[u8]) -> std::io::Result<()> {
        let packed = zstd::bulk::compress(bytes, LEVEL)?;
        // One writer at a time: the size is counted, and a name that is being written is nobody else's.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Drops all: texts are no longer merged here.
    pub fn clear(&self) {
        let Some(own) = self.root.enter().ok().and_then(|open| open.bookkeeping().ok()) else { return };
        // Not made only to be removed.
        if statx_at(&own, BASES.as_bytes()).is_err() {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
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
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut raw = RawDir::new(dir, &mut buffer);
    while let Some(Ok(entry)) = raw.next() {
        names.push(entry.file_name().to_bytes().to_vec());
    }
    let names = names.into_iter().filter(|name| name != b"." && name != b"..");
    let sized = |name: Vec<u8>| {
        let raw = statx_at(dir, &name).ok()?;
        Some(Entry { changed: (raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec), name, bytes: raw.stx_size })
    };
    names.filter_map(sized).collect()
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
        let bases = Bases::new(folder.root.clone());
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
        bases.clear();
        assert!(!folder.path(".ferry/bases").exists());
        bases.clear();
        assert!(!folder.path(".ferry/bases").exists(), "and it is not made for that");
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = Folder::new();
        let dir = Bases::new(folder.root.clone()).dir().unwrap();
        for (age, name) in ["c", "a", "b"].iter().enumerate() {
            let path = folder.path(&format!(".ferry/bases/{name}"));
            std::fs::write(&path, [0; 100]).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + age as u64);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(drop_oldest(&dir, 150), 100);
        assert!(folder.path(".ferry/bases/b").exists() && !folder.path(".ferry/bases/c").exists());
    }
}
