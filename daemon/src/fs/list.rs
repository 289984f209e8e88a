//! Listings and stats: what stands under the names of a directory.

use super::handle::{PathError, obstacle, open_beneath, open_dir, open_parent, statx_at, statx_fd};
use super::root::{OpenRoot, Root};
use ferry_engine::disk::{Kind, Listed, Obstacle, Stat};
use ferry_protocol::name::BOOKKEEPING;
use ferry_protocol::{Name, RelPath};
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// Bytes of one getdents call: some hundreds of entries.
const LISTING_BYTES: usize = 32 << 10;
/// A directory that changes while it is listed is listed again, this often at the most.
const LISTING_TRIES: usize = 3;

/// The entries of a directory, by name; `.ferry` at the root is left out.
///
/// An error is an error of the directory and never an empty listing (I3). A directory that was changed meanwhile is listed again; one that
/// never rests may lack an entry that was renamed just then, so absence needs a second look by [`stat`] (K18). Names that are longer than
/// a [`Name`] are left out and logged.
pub fn list(root: &Root, path: &RelPath) -> Result<Vec<Listed>, PathError> {
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    let dir = open_dir(&open, path)?;
    let mut tries = 0;
    loop {
        let before = open.view.stat(&statx_fd(&dir)?);
        let mut entries = list_once(&open, &dir, path.is_root())?;
        let after = open.view.stat(&statx_fd(&dir)?);
        tries += 1;
        if tries == LISTING_TRIES || (before.mtime_ns, before.ctime_ns) == (after.mtime_ns, after.ctime_ns) {
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            return Ok(entries);
        }
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
    }
}

fn list_once(open: &OpenRoot, dir: &OwnedFd, is_root: bool) -> Result<Vec<Listed>, PathError> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); LISTING_BYTES];
    let mut entries = Vec::new();
    let mut raw = RawDir::new(dir, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry.map_err(|errno| match errno {
            // The directory was removed while open: it is gone, not empty.
            Errno::NOENT => PathError::Gone,
            other => PathError::Blocked(obstacle(other)),
        })?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." || (is_root && bytes == BOOKKEEPING) {
            continue;
        }
        let Ok(name) = Name::new(bytes) else {
            tracing::warn!(name = ferry_protocol::name::display_bytes(bytes), "an entry with an impossible name is left out");
            continue;
        };
        let stat = match open.stat_at(dir, bytes) {
            Ok(Some(stat)) => Ok(stat),
            Ok(None) => continue,
            Err(obstacle) => Err(obstacle),
        };
        entries.push(Listed { name, stat });
    }
    Ok(entries)
}

/// What stands at a path; nothing when it, or one of its parents, is absent or no directory.
pub fn stat(root: &Root, path: &RelPath) -> Result<Option<Stat>, Obstacle> {
    let open = root.enter().map_err(super::root::RootError::obstacle)?;
    if path.is_root() {
        return Ok(Some(open.view.stat(&statx_fd(&open.fd).map_err(obstacle)?)));
    }
    match open_parent(&open, path).map_err(PathError::from) {
        Ok((dir, name)) => open.stat_at(&dir, name.as_bytes()),
        Err(PathError::Gone) => Ok(None),
        Err(PathError::Blocked(obstacle)) => Err(obstacle),
    }
}

/// The target of a symbolic link, and the version of the link that it was read from.
pub fn read_link(root: &Root, path: &RelPath) -> Result<(Vec<u8>, Stat), PathError> {
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    // A handle of the link itself, so that target and version belong together.
    let link = open_link(&open, path)?;
    let stat = open.view.stat(&statx_fd(&link)?);
    if stat.kind != Kind::Symlink {
        return Err(PathError::Gone);
    }
    let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
    Ok((target.into_bytes(), stat))
}

fn open_link(open: &OpenRoot, path: &RelPath) -> Result<OwnedFd, PathError> {
    let (dir, name) = open_parent(open, path)?;
    if open.view.is_foreign(&statx_at(&dir, name.as_bytes())?) {
        return Err(PathError::Blocked(Obstacle::OtherFilesystem));
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&dir, name.as_bytes(), flags, rustix::fs::Mode::empty())?)
}

/// Opens a regular file for reading, without following, blocking, or touching its access time where that is allowed.
pub(crate) fn open_file(open: &OpenRoot, path: &RelPath) -> Result<(OwnedFd, Stat), PathError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_beneath(open, path, flags | OFlags::NOATIME) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => open_beneath(open, path, flags)?,
        // A socket, or a FIFO opened the wrong way.
        Err(Errno::NXIO) => return Err(PathError::Blocked(Obstacle::Unsupported)),
        done => done?,
    };
    let stat = open.view.stat(&statx_fd(&file)?);
    match stat.kind {
        Kind::File => Ok((file, stat)),
        Kind::Other => Err(PathError::Blocked(Obstacle::Unsupported)),
        Kind::Dir | Kind::Symlink => Err(PathError::Gone),
    }
}

/// The directories in a directory, without what is on other filesystems and without `.ferry` at the root.
pub(crate) fn subdirs(root: &Root, path: &RelPath) -> Result<Vec<Name>, PathError> {
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    let dir = open_dir(&open, path)?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); LISTING_BYTES];
    let mut names = Vec::new();
    let mut raw = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        // Most filesystems tell the kind along with the name, so that files cost nothing here.
        if !matches!(entry.file_type(), rustix::fs::FileType::Directory | rustix::fs::FileType::Unknown) {
            continue;
        }
        let bytes = entry.file_name().to_bytes();
        let Ok(name) = Name::new(bytes) else { continue };
        if path.is_root() && name.is_bookkeeping() {
            continue;
        }
        if let Ok(Some(stat)) = open.stat_at(&dir, bytes)
            && stat.kind == Kind::Dir
        {
            names.push(name);
        }
    }
    Ok(names)
}
