//! Opening an index: lock, find out its kind, and set it aside when it is damaged (X4, X5).

use super::checked::{Backend, Checked, DAMAGE_MARK, catching};
use super::redb::RedbBackend;
use super::sled::SledBackend;
use super::{IndexError, IndexStore};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The library below an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// redb: one file.
    Redb,
    /// sled 0.34: a directory.
    Sled,
}

impl Kind {
    fn store_name(self) -> &'static str {
        match self {
            Self::Redb => "store.redb",
            Self::Sled => "store.sled",
        }
    }

    /// The name, as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Sled => "sled",
        }
    }
}

/// Where the rows of an opened index come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// They were there.
    Existing,
    /// There was no index. If folders were synced from here before, it was lost: scan in union mode (K26).
    New,
    /// The index was damaged and set aside; this one is empty. Scan in union mode (K27).
    Rebuilt {
        /// Where the damaged files are now.
        set_aside: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// An open index and its lock.
pub struct OpenedIndex {
    /// The store.
    pub store: Arc<dyn IndexStore>,
    /// What it stands on: the kind found on disk, or the one asked for when it is new.
    pub kind: Kind,
    /// Where its rows come from.
    pub origin: Origin,
    /// Held as long as the index is open.
    _lock: File,
}

impl OpenedIndex {
    /// Whether a damaged index was set aside, so that the folders must be scanned in union mode.
    pub fn rebuilt(&self) -> bool {
        matches!(self.origin, Origin::Rebuilt { .. })
    }
}

/// Opens the index in `dir`, or makes one of this kind. An index that is there keeps its kind.
///
/// A damaged index is renamed to `index.damaged-<n>` beside it and a new one is made: see [`OpenedIndex::origin`]. Drop the store before the
/// [`OpenedIndex`], which holds the lock.
pub fn open(dir: &Path, kind: Kind) -> Result<OpenedIndex, IndexError> {
    fs::create_dir_all(dir).map_err(|e| io_error("making its directory", e))?;
    let lock = lock(dir)?;
    let path = dir.join("index");
    let found = [Kind::Redb, Kind::Sled].into_iter().find(|kind| path.join(kind.store_name()).exists());
    let kind = found.unwrap_or(kind);
    let existing = found.is_some();
    let reason = match open_store(&path, kind) {
        Ok(store) => {
            let origin = if existing { Origin::Existing } else { Origin::New };
            if !existing {
                sync_names(dir, &path)?;
            }
            return Ok(OpenedIndex { store, kind, origin, _lock: lock });
        }
        Err(IndexError::Damaged { detail }) => detail,
        Err(error) => return Err(error),
    };
    let set_aside = set_aside(dir, &path)?;
    let store = open_store(&path, kind)?;
    sync_names(dir, &path)?;
    Ok(OpenedIndex { store, kind, origin: Origin::Rebuilt { set_aside, reason }, _lock: lock })
}

/// Makes the names of new files durable: without them a durable batch could go with its file (X1).
fn sync_names(dir: &Path, path: &Path) -> Result<(), IndexError> {
    let sync = |dir: &Path| File::open(dir)?.sync_all();
    sync(path).and_then(|()| sync(dir)).map_err(|e| io_error("syncing its directory", e))
}

/// A lock that was just let go may be held for a moment more: a program that this process is about to start has a copy of the open file until it runs.
const LOCK_TRIES: u32 = 25;
/// Between two tries.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn lock(dir: &Path) -> Result<File, IndexError> {
    let path = dir.join("index.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| io_error("opening its lock", e))?;
    for last in (0..LOCK_TRIES).rev() {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if last > 0 => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(e)) => return Err(io_error("locking it", e)),
        }
    }
    Err(IndexError::Locked { path })
}

fn open_store(path: &Path, kind: Kind) -> Result<Arc<dyn IndexStore>, IndexError> {
    fs::create_dir_all(path).map_err(|e| io_error("making its directory", e))?;
    if let Ok(reason) = fs::read_to_string(path.join(DAMAGE_MARK)) {
        return Err(IndexError::Damaged { detail: reason });
    }
    let store = path.join(kind.store_name());
    match kind {
        Kind::Redb => checked(path, || RedbBackend::open(&store)),
        Kind::Sled => checked(path, || SledBackend::open(&store)),
    }
}

fn checked<B: Backend>(path: &Path, open: impl FnOnce() -> Result<B, IndexError>) -> Result<Arc<dyn IndexStore>, IndexError> {
    // Closing a damaged store after a failed check can panic too: all of it happens inside.
    catching(|| Ok(Arc::new(Checked::new(open()?, Some(path.to_owned()))?) as Arc<dyn IndexStore>))
}

fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, IndexError> {
    for n in 1.. {
        let target = dir.join(format!("index.damaged-{n}"));
        if !target.exists() {
            // Only this process holds the lock, so nobody takes the name in between.
            fs::rename(path, &target).map_err(|e| io_error("setting it aside", e))?;
            return Ok(target);
        }
    }
    Err(io_error("setting it aside", io::Error::other("no free name")))
}

fn io_error(doing: &'static str, source: io::Error) -> IndexError {
    IndexError::Io { doing, source }
}
