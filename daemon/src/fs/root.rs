//! The root of a folder: attached once, proven each time (I3, I12).
//!
//! A folder's root holds `.ferry/` with Ferry's own files: the marker `folder.json`, `tmp` for files on their way, `trash` for what was
//! displaced. A root is proven by three things: the directory's inode in its life (inode and birth), and the two ids in the marker. An
//! unmounted disk, a folder that was renamed away or made again by hand fails the proof; then nothing counts as deleted.

use super::handle::{PathError, View, birth_ns, device, mount_id, obstacle, statx_at, statx_fd};
use ferry_engine::disk::{Obstacle, Stat};
use ferry_protocol::NamespaceId;
use ferry_protocol::name::BOOKKEEPING;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MARKER: &str = "folder.json";
/// Name of the directory for files on their way, in `.ferry`.
pub(crate) const TMP: &str = "tmp";
/// Name of the directory for what was displaced, in `.ferry`.
pub(crate) const TRASH: &str = "trash";
/// Name of the directory for what waits for its place to become free (a swap, a rotation), in `.ferry`.
pub(crate) const PARKED: &str = "parked";
const DIRS: [&str; 3] = [TMP, TRASH, PARKED];
/// A marker is a few dozen bytes; more is not one.
const MARKER_MAX_BYTES: u64 = 4096;
/// What is left free on a disk unless set otherwise, in bytes: at most this, and at most a twentieth of the disk.
pub const RESERVE_MAX_BYTES: u64 = 64 << 20;

/// The random id of one attachment of a folder to one place of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InstanceId(pub [u8; 16]);

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        hex::encode(id.0)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({})", hex::encode(self.0))
    }
}

/// What `.ferry/folder.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderMarker {
    /// The folder that is synced here.
    pub namespace: NamespaceId,
    /// This attachment of it.
    pub instance: InstanceId,
}

#[derive(Serialize, Deserialize)]
struct MarkerFile {
    format: u32,
    #[serde(flatten)]
    marker: FolderMarker,
}

/// What proves a root. The driver keeps it in its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootIdentity {
    /// Device number at the time of attaching; later numbers of the same disk are read as this one.
    pub dev: u64,
    /// Inode number of the root directory.
    pub ino: u64,
    /// Birth of that inode in nanoseconds since 1970, where the filesystem knows it.
    pub birth_ns: Option<i64>,
    /// The folder that is synced here.
    pub namespace: NamespaceId,
    /// The attachment.
    pub instance: InstanceId,
}

/// Why a directory cannot be, or is no longer, a folder's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Nothing is at the path, or it is not a directory.
    #[error("there is no directory at this path (unmounted, renamed or deleted)")]
    Missing,
    /// Another directory is at the path.
    #[error("another directory is at this path than the one that was attached (unmounted or replaced)")]
    Replaced,
    /// The marker is absent, unreadable, or names another folder or attachment.
    #[error("the folder's marker .ferry/folder.json is missing or belongs to another folder")]
    Unmarked,
    /// It exists, but cannot be used now.
    #[error("{}: {}", .0.code(), .0.hint())]
    Blocked(Obstacle),
}

impl RootError {
    /// The same as an obstacle of everything in the folder.
    pub fn obstacle(self) -> Obstacle {
        match self {
            Self::Missing | Self::Replaced | Self::Unmarked => Obstacle::RootGone,
            Self::Blocked(obstacle) => obstacle,
        }
    }
}

impl From<Errno> for RootError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => Self::Missing,
            other => Self::Blocked(obstacle(other)),
        }
    }
}

/// The root of a folder. Holds no handle (F2).
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    resolved: PathBuf,
    identity: RootIdentity,
    folds_names: AtomicBool,
    reserve_bytes: AtomicU64,
    promised_bytes: AtomicU64,
    /// Held while the trash is open.
    pub(crate) trash_lock: Mutex<()>,
}

/// A proven root, open for one call.
pub(crate) struct OpenRoot {
    pub fd: OwnedFd,
    pub view: View,
}

impl AsFd for OpenRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Makes a directory the root of a folder: writes the marker durably and makes Ferry's own directories. An earlier marker is replaced;
    /// ask [`Root::marker_at`] first whether there is one.
    pub fn attach(path: &Path, marker: &FolderMarker) -> Result<Self, RootError> {
        let fd = open_root(path)?;
        let root = rustix::fs::openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let book = make_private_dir(&root, BOOKKEEPING)?;
        for name in DIRS {
            make_private_dir(&book, name.as_bytes())?;
        }
        write_marker(&book, marker)?;
        rustix::fs::fsync(&root)?;
        let raw = statx_fd(&fd)?;
        let identity = RootIdentity {
            dev: device(&raw),
            ino: raw.stx_ino,
            birth_ns: birth_ns(&raw),
            namespace: marker.namespace,
            instance: marker.instance,
        };
        Self::open(path, &identity)
    }

    /// Opens an attached root again, if it is the one. The device number may have changed since: a disk may get another after a boot.
    pub fn open(path: &Path, expected: &RootIdentity) -> Result<Self, RootError> {
        let path = std::path::absolute(path).map_err(|_| RootError::Missing)?;
        let resolved = std::fs::canonicalize(&path).map_err(|e| from_io(&e))?;
        let root = Self {
            path,
            resolved,
            identity: *expected,
            folds_names: AtomicBool::new(false),
            reserve_bytes: AtomicU64::new(u64::MAX),
            promised_bytes: AtomicU64::new(0),
            trash_lock: Mutex::new(()),
        };
        root.check()?;
        let open = root.enter()?;
        let book = open.bookkeeping()?;
        for name in DIRS {
            make_private_dir(&book, name.as_bytes())?;
        }
        Ok(root)
    }

    /// The marker of a directory that is a folder's root already.
    pub fn marker_at(path: &Path) -> Option<FolderMarker> {
        let fd = open_root(path).ok()?;
        read_marker(&open_bookkeeping(&fd).ok()?)
    }

    /// Proves the root: the path leads to the directory that was attached, and the marker holds the same ids (K20 to K23).
    pub fn check(&self) -> Result<(), RootError> {
        let open = self.enter()?;
        let book = open.bookkeeping().map_err(|e| if e == Errno::NOENT { RootError::Unmarked } else { e.into() })?;
        match read_marker(&book) {
            Some(marker) if marker.namespace == self.identity.namespace && marker.instance == self.identity.instance => Ok(()),
            _ => Err(RootError::Unmarked),
        }
    }

    /// What proves this root.
    pub fn identity(&self) -> &RootIdentity {
        &self.identity
    }

    /// The path as it was given, made absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path without links, as it was when the root was opened; for the watcher.
    pub fn resolved_path(&self) -> &Path {
        &self.resolved
    }

    /// The inode version of the root directory itself.
    pub fn stat(&self) -> Result<Stat, RootError> {
        let open = self.enter()?;
        Ok(open.view.stat(&statx_fd(&open.fd)?))
    }

    /// Says that the disk folds case or normalises names, so that two names may mean one entry.
    pub fn set_folds_names(&self, folds: bool) {
        self.folds_names.store(folds, Ordering::Relaxed);
    }

    /// Whether two names may mean one entry here.
    pub fn folds_names(&self) -> bool {
        self.folds_names.load(Ordering::Relaxed)
    }

    /// Sets how many bytes downloads leave free on the disk.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.reserve_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Promises room for a download, if the disk has it beside the reserve and the earlier promises (K09, Q10).
    pub(crate) fn promise(&self, open: &OpenRoot, bytes: u64) -> Result<(), Obstacle> {
        let fs = rustix::fs::fstatvfs(&open.fd).map_err(obstacle)?;
        let free = fs.f_bavail.saturating_mul(fs.f_frsize);
        let reserve = match self.reserve_bytes.load(Ordering::Relaxed) {
            u64::MAX => RESERVE_MAX_BYTES.min(fs.f_blocks.saturating_mul(fs.f_frsize) / 20),
            set => set,
        };
        let before = self.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes).saturating_add(reserve) > free {
            self.keep_promise(bytes);
            return Err(Obstacle::NoSpace);
        }
        Ok(())
    }

    /// The promised bytes were written, or are no longer wanted.
    pub(crate) fn keep_promise(&self, bytes: u64) {
        self.promised_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes and removes an empty file in Ferry's own directory: an event for whoever watches it.
    pub(crate) fn ring(&self, name: &str) -> Result<(), RootError> {
        let book = self.enter()?.bookkeeping()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // One that a crash left behind.
        let _ = rustix::fs::unlinkat(&book, name, AtFlags::empty());
        rustix::fs::openat(&book, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(rustix::fs::unlinkat(&book, name, AtFlags::empty())?)
    }

    /// Opens the root for one call and proves that it is the directory that was attached (F3).
    pub(crate) fn enter(&self) -> Result<OpenRoot, RootError> {
        let fd = open_root(&self.path)?;
        let raw = statx_fd(&fd)?;
        if raw.stx_ino != self.identity.ino || birth_ns(&raw) != self.identity.birth_ns {
            return Err(RootError::Replaced);
        }
        let view = View { dev_now: device(&raw), dev_known: self.identity.dev, mount: mount_id(&raw) };
        Ok(OpenRoot { fd, view })
    }
}

impl OpenRoot {
    /// Ferry's own directory.
    pub fn bookkeeping(&self) -> Result<OwnedFd, Errno> {
        open_bookkeeping(&self.fd)
    }

    /// One of Ferry's own directories; made again if a cleaner removed it.
    pub fn own_dir(&self, name: &str) -> Result<OwnedFd, PathError> {
        Ok(make_private_dir(self.bookkeeping()?, name.as_bytes())?)
    }

    /// What stands under a name of a directory of this root.
    pub fn stat_at(&self, dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Obstacle> {
        match statx_at(dir, name) {
            Ok(raw) if self.view.is_foreign(&raw) => Err(Obstacle::OtherFilesystem),
            Ok(raw) => Ok(Some(self.view.stat(&raw))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(obstacle(errno)),
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, RootError> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_bookkeeping(root: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(root, BOOKKEEPING, flags, Mode::empty())
}

fn make_private_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(&parent, name, flags, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

fn write_marker(book: &OwnedFd, marker: &FolderMarker) -> Result<(), RootError> {
    let text = serde_json::to_vec(&MarkerFile { format: 1, marker: *marker }).map_err(|_| RootError::Blocked(Obstacle::Io))?;
    let name = "folder.json.new";
    match rustix::fs::unlinkat(book, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(book, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(|e| from_io(&e))?;
    rustix::fs::renameat(book, name, book, MARKER)?;
    Ok(rustix::fs::fsync(book)?)
}

fn read_marker(book: &OwnedFd) -> Option<FolderMarker> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(book, MARKER, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.take(MARKER_MAX_BYTES).read_to_end(&mut text).ok()?;
    let read: MarkerFile = serde_json::from_slice(&text).ok()?;
    (read.format == 1).then_some(read.marker)
}

fn from_io(error: &std::io::Error) -> RootError {
    Errno::from_io_error(error).map_or(RootError::Blocked(Obstacle::Io), RootError::from)
}

/// Why a directory is refused as the root of a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootRefused {
    /// The whole filesystem.
    #[error("'/' cannot be a synced folder; choose a directory below it")]
    FilesystemRoot,
    /// It is, holds, or lies in Ferry's own state directory.
    #[error("a synced folder cannot hold Ferry's own data or lie in it ({0}); choose another directory")]
    State(PathBuf),
    /// It is the root of a folder already, or lies in one.
    #[error("this directory is, or lies in, the synced folder {0}")]
    Inside(PathBuf),
    /// A folder's root lies in it.
    #[error("the synced folder {0} lies in this directory")]
    Around(PathBuf),
    /// There is no such directory.
    #[error("there is no such directory: {0}")]
    Missing(PathBuf),
}

/// Whether a directory may become the root of a folder, beside the existing roots and the state directory (B59).
///
/// Paths are compared after resolving links. Existing roots that are gone at present are compared as they were written.
pub fn conflicts_with(path: &Path, existing: &[PathBuf], state_dirs: &[PathBuf]) -> Result<(), RootRefused> {
    let resolve = |p: &Path| std::fs::canonicalize(p).or_else(|_| std::path::absolute(p)).unwrap_or_else(|_| p.to_path_buf());
    let new = std::fs::canonicalize(path).map_err(|_| RootRefused::Missing(path.to_path_buf()))?;
    if !new.is_dir() {
        return Err(RootRefused::Missing(path.to_path_buf()));
    }
    if new.parent().is_none() {
        return Err(RootRefused::FilesystemRoot);
    }
    for state in state_dirs {
        let own = resolve(state);
        if own.starts_with(&new) || new.starts_with(&own) {
            return Err(RootRefused::State(state.clone()));
        }
    }
    for other in existing {
        let root = resolve(other);
        if new.starts_with(&root) {
            return Err(RootRefused::Inside(other.clone()));
        }
        if root.starts_with(&new) {
            return Err(RootRefused::Around(other.clone()));
        }
    }
    Ok(())
}
