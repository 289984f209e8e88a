//! Small pictures that were made once, in a directory of this machine: a cache. All of it may be removed at any time; nothing refers to it, no backup
//! holds it, and every process has its own.
//!
//! * **TC1** Never more than its bound of bytes: what was kept first goes first. What is older than [`KEPT_FOR`] goes whatever the space, so that nothing
//!   of a purged file stays.
//! * **TC2** What is read is what was written, or nothing: each file begins with the hash of the rest, and none of them is synced.

use super::StoreError;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How long a picture is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Length of the hash before each picture, in bytes.
const HASH_BYTES: usize = 8;

/// The name of a picture in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

/// The cache. Its methods wait for the disk.
#[derive(Debug)]
pub struct ThumbnailCache {
    root: PathBuf,
    max_bytes: u64,
    /// Bytes of all files; nothing before they were counted.
    held: Mutex<Option<u64>>,
    written: AtomicU64,
}

struct File {
    path: PathBuf,
    bytes: u64,
    at: SystemTime,
}

impl ThumbnailCache {
    /// The cache in this directory, which is made when it is needed; of at most so many bytes.
    pub fn new(root: &Path, max_bytes: u64) -> Self {
        Self { root: root.to_owned(), max_bytes, held: Mutex::new(None), written: AtomicU64::new(0) }
    }

    fn path(&self, key: Key) -> PathBuf {
        let name = hex::encode(key.0);
        self.root.join(&name[..2]).join(name)
    }

    /// What was kept under this name; nothing if it is not there, or damaged.
    pub fn get(&self, key: Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key)).ok()?;
        let hash = bytes.get(..HASH_BYTES)?;
        if hash != hash_of(&bytes[HASH_BYTES..]) {
            return None;
        }
        bytes.drain(..HASH_BYTES);
        Some(bytes)
    }

    /// Keeps a picture, and lets others go when there are too many.
    pub fn put(&self, key: Key, picture: &[u8]) -> Result<(), StoreError> {
        let bytes = (picture.len() + HASH_BYTES) as u64;
        if bytes > self.max_bytes {
            return Ok(());
        }
        self.write(key, picture).map_err(|e| StoreError::Unavailable(format!("{}: {e}", self.root.display())))?;
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = match *held {
            Some(before) => before + bytes,
            None => self.files().iter().map(|file| file.bytes).sum(),
        };
        *held = Some(if now > self.max_bytes { self.make_room() } else { now });
        Ok(())
    }

    fn write(&self, key: Key, picture: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let tmp = folder.join(format!("{}.tmp", self.written.fetch_add(1, Ordering::Relaxed)));
        let done = fs::write(&tmp, [&hash_of(picture)[..], picture].concat()).and_then(|()| fs::rename(&tmp, &path));
        if done.is_err() {
            // The error that matters is the first one.
            let _ = fs::remove_file(&tmp);
        }
        done
    }

    /// Removes the oldest until a quarter is free; gives the bytes that are left.
    fn make_room(&self) -> u64 {
        let mut files = self.files();
        files.sort_by_key(|file| file.at);
        let mut held: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if held <= self.max_bytes / 4 * 3 {
                break;
            }
            if fs::remove_file(&file.path).is_ok() {
                held -= file.bytes;
            }
        }
        held
    }

    /// Removes what is older than [`KEPT_FOR`], and counts the rest anew; gives how many files went.
    pub fn expire(&self) -> u64 {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut gone, mut left) = (0, 0);
        for file in self.files() {
            let is_old = file.at.elapsed().is_ok_and(|age| age > KEPT_FOR);
            if is_old && fs::remove_file(&file.path).is_ok() {
                gone += 1;
            } else {
                left += file.bytes;
            }
        }
        *held = Some(left);
        gone
    }

    /// All files, leftovers of writes that were cut off among them.
    fn files(&self) -> Vec<File> {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let folders = entries(&self.root).map(|entry| entry.path());
        folders
            .flat_map(|folder| entries(&folder).collect::<Vec<_>>())
            .filter_map(|entry| {
                let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(File { path: entry.path(), bytes: facts.len(), at: facts.modified().ok()? })
            })
            .collect()
    }
}

fn hash_of(picture: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&Sha256::digest(picture)[..HASH_BYTES]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ThumbnailCache::new(&dir.path().join("made/later"), 1000);
        assert_eq!(cache.get(key(1)), None);
        cache.put(key(1), b"picture").unwrap();
        assert_eq!(cache.get(key(1)).as_deref(), Some(&b"picture"[..]));
        for damage in [&b""[..], b"short", b"12345678picturE"] {
            fs::write(cache.path(key(1)), damage).unwrap();
            assert_eq!(cache.get(key(1)), None, "{damage:?}");
        }
    }

    #[test]
    fn it_keeps_to_its_bound_and_the_first_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ThumbnailCache::new(dir.path(), 10 * 108);
        for n in 0..10 {
            cache.put(key(n), &[n; 100]).unwrap();
            // Their order by time must not depend on how fine the disk's clock is.
            let at = SystemTime::now() - Duration::from_secs(1000 - u64::from(n));
            fs::File::open(cache.path(key(n))).unwrap().set_modified(at).unwrap();
        }
        assert!((0..10).all(|n| cache.get(key(n)).is_some()));
        // Counted anew by a process that finds them.
        let cache = ThumbnailCache::new(dir.path(), 10 * 108);
        cache.put(key(10), &[10; 100]).unwrap();
        let left: Vec<u8> = (0..=10).filter(|n| cache.get(key(*n)).is_some()).collect();
        assert_eq!(left, [4, 5, 6, 7, 8, 9, 10]);
        cache.put(key(11), &[0; 2000]).unwrap();
        assert_eq!(cache.get(key(11)), None);
    }

    #[test]
    fn what_is_old_goes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ThumbnailCache::new(dir.path(), 1000);
        cache.put(key(1), b"old").unwrap();
        cache.put(key(2), b"new").unwrap();
        let before = SystemTime::now() - KEPT_FOR - Duration::from_secs(60);
        fs::File::open(cache.path(key(1))).unwrap().set_modified(before).unwrap();
        assert_eq!(cache.expire(), 1);
        assert_eq!((cache.get(key(1)), cache.get(key(2)).is_some()), (None, true));
    }
}
