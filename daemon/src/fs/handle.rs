//! Directory handles beneath a root, and what the kernel says about what stands there, in the engine's words.

use ferry_engine::disk::{Kind, Obstacle, Stat};
use ferry_protocol::{Name, RelPath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a path does not lead to something that can be read or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is there: the entry or one of its parents is absent, or a parent is not a directory (any more).
    #[error("nothing is there")]
    Gone,
    /// Something is in the way; whether anything is there is not known (E8).
    #[error("{}: {}", .0.code(), .0.hint())]
    Blocked(Obstacle),
}

impl From<Errno> for PathError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Self::Gone,
            other => Self::Blocked(obstacle(other)),
        }
    }
}

impl From<Obstacle> for PathError {
    fn from(obstacle: Obstacle) -> Self {
        Self::Blocked(obstacle)
    }
}

impl PathError {
    /// The obstacle; a missing parent counts as an input/output error, for callers that just proved that it is there.
    pub(crate) fn obstacle(self) -> Obstacle {
        match self {
            Self::Gone => Obstacle::Io,
            Self::Blocked(obstacle) => obstacle,
        }
    }
}

/// The engine's word for an error number.
pub(crate) fn obstacle(errno: Errno) -> Obstacle {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Obstacle::NoSpace,
        Errno::ACCESS | Errno::PERM => Obstacle::Denied,
        Errno::ROFS => Obstacle::ReadOnly,
        Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ | Errno::FBIG | Errno::OVERFLOW => Obstacle::Unrepresentable,
        Errno::XDEV => Obstacle::OtherFilesystem,
        Errno::NOTEMPTY => Obstacle::NotEmpty,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::BUSY | Errno::NOBUFS => Obstacle::Busy,
        Errno::NOTCONN | Errno::SHUTDOWN | Errno::NODEV => Obstacle::RootGone,
        _ => Obstacle::Io,
    }
}

/// How the numbers of one root are read.
///
/// A disk may have another device number after each boot. The number under which the folder was attached stands for the present one, so
/// that an index stays valid; other numbers are passed on as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// The device number that the kernel gives now.
    pub dev_now: u64,
    /// The device number that the index knows.
    pub dev_known: u64,
    /// The mount that the root is on; 0 where the kernel does not tell.
    pub mount: u64,
}

impl View {
    /// What the kernel told, in the engine's words.
    pub fn stat(&self, raw: &Statx) -> Stat {
        let dev = device(raw);
        Stat {
            dev: if dev == self.dev_now { self.dev_known } else { dev },
            ino: raw.stx_ino,
            birth_ns: birth_ns(raw),
            kind: kind(raw),
            size: raw.stx_size,
            mtime_ns: nanoseconds(raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec),
            ctime_ns: nanoseconds(raw.stx_ctime.tv_sec, raw.stx_ctime.tv_nsec),
            mode: raw.stx_mode & 0o7777,
            links: raw.stx_nlink,
        }
    }

    /// Whether this is on another filesystem: another mount, or a directory with another device number (a subvolume). Files are judged by
    /// their mount alone, because a layered filesystem gives them device numbers of their layers.
    pub fn is_foreign(&self, raw: &Statx) -> bool {
        mount_id(raw) != self.mount || (kind(raw) == Kind::Dir && device(raw) != self.dev_now)
    }
}

pub(crate) fn device(raw: &Statx) -> u64 {
    (u64::from(raw.stx_dev_major) << 32) | u64::from(raw.stx_dev_minor)
}

pub(crate) fn birth_ns(raw: &Statx) -> Option<i64> {
    let told = StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::BTIME);
    told.then(|| nanoseconds(raw.stx_btime.tv_sec, raw.stx_btime.tv_nsec))
}

pub(crate) fn mount_id(raw: &Statx) -> u64 {
    if StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::MNT_ID) { raw.stx_mnt_id } else { 0 }
}

fn kind(raw: &Statx) -> Kind {
    match raw.stx_mode & 0o170_000 {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Dir,
        0o120_000 => Kind::Symlink,
        _ => Kind::Other,
    }
}

fn nanoseconds(seconds: i64, nanos: u32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// What stands under a name of a directory; links are not followed, automounts not triggered.
pub(crate) fn statx_at(dir: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED)
}

/// What an open handle leads to.
pub(crate) fn statx_fd(fd: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, WANTED)
}

/// Whether a refusal with EPERM comes from the immutable or append-only flag.
pub(crate) fn is_immutable(raw: &Statx) -> bool {
    raw.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// The path bytes that one call resolves at the most; longer paths are resolved in steps (PATH_MAX is 4096).
const STEP_BYTES: usize = 3072;

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens something beneath a directory: no link is followed, no mount point crossed, nothing outside reached (F1).
pub(crate) fn open_beneath(base: impl AsFd, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let names = path.names();
    if names.is_empty() {
        return step(base.as_fd(), b".", flags);
    }
    let mut at: Option<OwnedFd> = None;
    let mut from = 0;
    while from < names.len() {
        let (mut bytes, mut to) = (Vec::new(), from);
        while to < names.len() && (to == from || bytes.len() + names[to].as_bytes().len() < STEP_BYTES) {
            if to > from {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(names[to].as_bytes());
            to += 1;
        }
        let flags = if to == names.len() { flags } else { OFlags::PATH | OFlags::DIRECTORY };
        at = Some(match &at {
            Some(dir) => step(dir.as_fd(), &bytes, flags)?,
            None => step(base.as_fd(), &bytes, flags)?,
        });
        from = to;
    }
    at.ok_or(Errno::NOENT)
}

fn step(base: rustix::fd::BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        for _ in 0..8 {
            match rustix::fs::openat2(base, path, flags, Mode::empty(), rules) {
                // A rename somewhere in the system made the kernel unsure; it asks to try again.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) if !openat2_works() => break,
                done => return done,
            }
        }
    }
    step_by_step(base, path, flags)
}

/// Whether this kernel (or the container's filter) knows openat2 at all.
fn openat2_works() -> bool {
    let works = rustix::fs::openat2(rustix::fs::CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH).is_ok();
    NO_OPENAT2.store(!works, Ordering::Relaxed);
    works
}

/// The same by one openat for each name; a name is never `..`, and a link is refused, so nothing outside is reached.
fn step_by_step(base: rustix::fd::BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mount = mount_id(&statx_fd(base)?);
    let mut names = path.split(|b| *b == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let parents = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = if names.peek().is_none() { flags } else { parents };
        let next = match &at {
            Some(dir) => rustix::fs::openat(dir, name, flags, Mode::empty())?,
            None => rustix::fs::openat(base, name, flags, Mode::empty())?,
        };
        if mount_id(&statx_fd(&next)?) != mount {
            return Err(Errno::XDEV);
        }
        at = Some(next);
    }
    at.ok_or(Errno::NOENT)
}

/// A handle of a directory for reading its entries and for fsync.
pub(crate) fn open_dir(base: impl AsFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    open_beneath(base, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// A handle of the directory that holds an entry, good for calls on its entries; the entry's name beside it.
pub(crate) fn open_parent(base: impl AsFd, path: &RelPath) -> Result<(OwnedFd, &Name), Errno> {
    let (parent, name) = path.split_last().ok_or(Errno::INVAL)?;
    let dir = open_beneath(base, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((dir, name))
}

/// A time for `utimensat`.
pub(crate) fn timespec(ns: i64) -> rustix::fs::Timespec {
    rustix::fs::Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) as _ }
}

/// Sets the modification time and leaves the access time.
pub(crate) fn mtime_only(ns: i64) -> rustix::fs::Timestamps {
    let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ };
    rustix::fs::Timestamps { last_access: omit, last_modification: timespec(ns) }
}

/// The permission bits that Ferry gives to a file: `0o777` at the most, and always readable by its owner (it is replaced, never written to).
pub(crate) fn file_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o777 | 0o400))
}

/// The permission bits that Ferry gives to a directory: `0o777` at the most, and always usable by its owner.
pub(crate) fn dir_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o777 | 0o700))
}
