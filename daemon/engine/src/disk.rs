//! What a device observes of its disk, and what it may do to it: the words between the engine and the hands.

use ferry_protocol::{ContentHash, Name, RelPath};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; never followed.
    Symlink,
    /// A FIFO, socket or device: skipped, and said so.
    Other,
}

/// The identity and version of something on disk, from one `statx` through a directory handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stat {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth of the inode in nanoseconds since 1970, where the filesystem knows it: tells a reused inode from a moved one.
    pub birth_ns: Option<i64>,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes; for a link, of its target.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time of the inode in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Hard links to the inode.
    pub links: u32,
}

impl Stat {
    /// Whether both are one inode in one life: the same thing, perhaps changed or moved.
    pub fn same_inode(&self, other: &Stat) -> bool {
        self.dev == other.dev && self.ino == other.ino && self.kind == other.kind && self.birth_ns == other.birth_ns
    }

    /// Whether both are the same version of the same thing (I6). A directory's times change with its entries, so only its inode counts.
    pub fn same_version(&self, other: &Stat) -> bool {
        self.same_inode(other)
            && (self.kind == Kind::Dir || (self.size == other.size && self.mtime_ns == other.mtime_ns && self.ctime_ns == other.ctime_ns))
    }
}

/// A change of the disk, with the state that it expects to find (I6). The hands check again as the last step before the change; what is not
/// as expected is left alone and answered with [`DiskOutcome::Stale`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskAction {
    /// Makes a directory where nothing stands.
    MakeDir {
        /// Where.
        path: RelPath,
        /// Permission bits.
        mode: u16,
    },
    /// Puts a staged file in place: where nothing stands, or in exchange for exactly the version that is expected, which goes to the trash.
    PutFile {
        /// Where.
        path: RelPath,
        /// What stands there; nothing for a new file.
        expect: Option<Stat>,
        /// The staged content (verified, durable).
        content: ContentHash,
        /// Permission bits.
        mode: u16,
        /// Modification time in nanoseconds since 1970.
        mtime_ns: i64,
    },
    /// Puts a symbolic link in place, like [`DiskAction::PutFile`].
    PutLink {
        /// Where.
        path: RelPath,
        /// What stands there; nothing for a new link.
        expect: Option<Stat>,
        /// The target's bytes.
        target: Arc<[u8]>,
    },
    /// Moves something, never over anything.
    Move {
        /// From where.
        from: RelPath,
        /// What is expected there.
        expect: Stat,
        /// To where; nothing may stand there.
        to: RelPath,
    },
    /// Removes a file or link by moving it to the trash, or a directory if it is empty.
    Remove {
        /// Which.
        path: RelPath,
        /// What is expected there.
        expect: Stat,
    },
    /// Sets permission bits and modification time, as far as given.
    SetAttributes {
        /// Of what.
        path: RelPath,
        /// What is expected there.
        expect: Stat,
        /// Permission bits.
        mode: Option<u16>,
        /// Modification time in nanoseconds since 1970.
        mtime_ns: Option<i64>,
    },
}

impl DiskAction {
    /// The path that the action leaves something at, or removes something from.
    pub fn path(&self) -> &RelPath {
        match self {
            Self::MakeDir { path, .. }
            | Self::PutFile { path, .. }
            | Self::PutLink { path, .. }
            | Self::Remove { path, .. }
            | Self::SetAttributes { path, .. } => path,
            Self::Move { to, .. } => to,
        }
    }
}

/// Why something cannot be done or read now. Each has one sentence for people and a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Obstacle {
    /// The disk or quota is full.
    NoSpace,
    /// Permission denied.
    Denied,
    /// The filesystem or the item is read-only or immutable.
    ReadOnly,
    /// The name or path is too long or not allowed here.
    Unrepresentable,
    /// Another entry has this name on a disk that folds case or normalises Unicode (CR11).
    NameClash,
    /// A directory still holds entries that are not synced (ignored, unreadable, new).
    NotEmpty,
    /// It is on another filesystem than the folder.
    OtherFilesystem,
    /// The kind of entry is not synced (FIFO, socket, device).
    Unsupported,
    /// The content did not verify.
    Corrupt,
    /// The folder's root is not the one that was attached (I3).
    RootGone,
    /// No device and no relay that can be reached has the content.
    Unavailable,
    /// This user may read but not change the folder.
    ViewerOnly,
    /// Too many open files or too little memory: passes.
    Busy,
    /// Any other input/output error.
    Io,
}

impl Obstacle {
    /// The stable code that status, JSON and exit messages use.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoSpace => "disk_full",
            Self::Denied => "permission_denied",
            Self::ReadOnly => "read_only",
            Self::Unrepresentable => "name_not_possible_here",
            Self::NameClash => "name_clash",
            Self::NotEmpty => "directory_not_empty",
            Self::OtherFilesystem => "other_filesystem",
            Self::Unsupported => "unsupported_kind",
            Self::Corrupt => "content_corrupt",
            Self::RootGone => "root_gone",
            Self::Unavailable => "content_unavailable",
            Self::ViewerOnly => "viewer_only",
            Self::Busy => "out_of_resources",
            Self::Io => "io_error",
        }
    }

    /// What is the matter, in one sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoSpace => "there is no space left on this disk",
            Self::Denied => "permission denied",
            Self::ReadOnly => "it is on a read-only filesystem or is immutable",
            Self::Unrepresentable => "this disk cannot hold a file of this name",
            Self::NameClash => "another file here has the same name to this disk",
            Self::NotEmpty => "it was deleted elsewhere, but something in it is not synced",
            Self::OtherFilesystem => "it is on another filesystem than the folder",
            Self::Unsupported => "this kind of file is not synced",
            Self::Corrupt => "its content did not match its hash",
            Self::RootGone => "the folder is not where it was",
            Self::Unavailable => "its content is not to be had now",
            Self::ViewerOnly => "it was changed here, but this user may only read the folder",
            Self::Busy => "it keeps changing, or too many files are open",
            Self::Io => "the disk answered with an error",
        }
    }

    /// What the user can do about it, in one sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoSpace => "free some space on this disk; Ferry goes on by itself",
            Self::Denied => "give yourself permission to read and change it (chmod, chown)",
            Self::ReadOnly => "make the filesystem writable, or clear the immutable flag (chattr -i)",
            Self::Unrepresentable => "rename it on another device to a name that is possible here",
            Self::NameClash => "rename one of the two; this disk cannot hold both names",
            Self::NotEmpty => "it was deleted elsewhere but holds entries that are not synced; move or delete them",
            Self::OtherFilesystem => "a mount point inside the folder is not synced; add it as a folder of its own",
            Self::Unsupported => "FIFOs, sockets and devices are not synced; ignore or remove it",
            Self::Corrupt => "the content did not match its hash and was not placed; it is fetched again",
            Self::RootGone => "mount the disk or bring the folder back, or remove it with: ferry folder remove",
            Self::Unavailable => "connect a device that has it, or the relay; Ferry goes on by itself",
            Self::ViewerOnly => "ask the owner for the role of editor, or move the change out of the folder",
            Self::Busy => "Ferry tries again by itself",
            Self::Io => "check the disk; Ferry tries again by itself",
        }
    }
}

/// What became of a [`DiskAction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOutcome {
    /// Done. What stands there now; nothing after a removal.
    Done(Option<Stat>),
    /// Not as expected; nothing was changed. What stands there instead.
    Stale(Option<Stat>),
    /// Not possible now; nothing was changed.
    Blocked(Obstacle),
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// What stands there, or why it cannot be told: unreadable is not absent (E8).
    pub stat: Result<Stat, Obstacle>,
}
