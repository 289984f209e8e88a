//! What a batch prepares in `.ferry/tmp` before it changes any name.

use super::{Batch, DiskAction, Prepared, displaces};
use crate::fs::handle::{PathError, file_mode, mtime_only, obstacle, open_parent, statx_at, statx_fd};
use crate::fs::root::PARKED;
use crate::fs::stage::{ready_name, remove_own};
use ferry_engine::disk::{Kind, Obstacle, Stat};
use ferry_protocol::{ContentHash, RelPath};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;

/// A new file or link under a temporary name.
pub(super) struct Ready {
    pub name: String,
    pub stat: Stat,
    /// Open until it is durable, while files are few.
    file: Option<OwnedFd>,
}

impl Ready {
    pub fn is_file(&self) -> bool {
        self.stat.kind == Kind::File
    }

    pub fn sync(&self) -> Result<(), Errno> {
        #[cfg(test)]
        if super::tests::FAIL_SYNC.get() {
            return Err(Errno::IO);
        }
        self.file.as_ref().map_or(Ok(()), rustix::fs::fsync)
    }

    pub fn close(&mut self) {
        self.file = None;
    }
}

impl Batch<'_> {
    pub(super) fn prepare(&mut self, actions: &[DiskAction]) -> Vec<Result<Prepared, Obstacle>> {
        let mut uses: BTreeMap<ContentHash, usize> = BTreeMap::new();
        let mut files = 0;
        for action in actions {
            if let DiskAction::PutFile { content, .. } = action {
                *uses.entry(*content).or_default() += 1;
                files += 1;
            }
        }
        let keep_open = files <= super::SYNC_EACH_MAX;
        actions.iter().enumerate().map(|(index, action)| self.prepare_one(index, action, &mut uses, keep_open)).collect()
    }

    fn prepare_one(
        &mut self,
        index: usize,
        action: &DiskAction,
        uses: &mut BTreeMap<ContentHash, usize>,
        keep_open: bool,
    ) -> Result<Prepared, Obstacle> {
        refuse_bookkeeping(action)?;
        let ready = match action {
            DiskAction::PutFile { path, expect, content, mode, mtime_ns } => {
                let left = uses.entry(*content).or_insert(1);
                *left -= 1;
                // Several files of one content: each takes a copy, the last one the staged file itself.
                let copy = (*left > 0).then_some(index);
                let mut ready = self.ready_file(content, copy, *mode, *mtime_ns, expect.is_some().then_some(path))?;
                if !keep_open {
                    ready.close();
                }
                Some(ready)
            }
            DiskAction::PutLink { expect: Some(_), target, .. } => Some(self.ready_link(index, target).map_err(obstacle)?),
            _ => None,
        };
        let record = displaces(action).map(|(reason, expect)| {
            let incoming = ready.as_ref().map(|r| r.stat.ino);
            self.trash.record(action.path(), reason, *expect, incoming)
        });
        Ok(Prepared { ready, record })
    }

    fn ready_file(
        &self,
        content: &ContentHash,
        copy: Option<usize>,
        mode: u16,
        mtime_ns: i64,
        replaced: Option<&RelPath>,
    ) -> Result<Ready, Obstacle> {
        let staged = ready_name(content);
        let open = |name: &str| {
            // Bits and times are set through it; it may be read-only already, from an earlier try.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.tmp, name, flags, Mode::empty()) {
                // Removed by a cleaner, or replaced by a link: it is staged again.
                Err(Errno::NOENT | Errno::LOOP) => Err(Obstacle::Corrupt),
                done => done.map_err(obstacle),
            }
        };
        let source = open(&staged)?;
        let (name, file) = match copy {
            None => (staged, source),
            Some(index) => {
                let name = format!("{content}.{index}.copy");
                let size = statx_fd(&source).map_err(obstacle)?.stx_size;
                let file = copy_file(&self.tmp, &source, &name, size).map_err(|errno| {
                    remove_own(&self.tmp, name.as_bytes());
                    obstacle(errno)
                })?;
                (name, file)
            }
        };
        let finish = || {
            self.keep_owner(&file, replaced);
            rustix::fs::fchmod(&file, file_mode(mode))?;
            rustix::fs::futimens(&file, &mtime_only(mtime_ns))?;
            statx_fd(&file)
        };
        let stat = self.open.view.stat(&finish().map_err(obstacle)?);
        if stat.kind != Kind::File || stat.links != 1 {
            return Err(Obstacle::Corrupt);
        }
        Ok(Ready { name, stat, file: Some(file) })
    }

    /// A daemon that runs as root keeps the owner of a file that it replaces (B53).
    fn keep_owner(&self, file: &OwnedFd, replaced: Option<&RelPath>) {
        let Some(path) = replaced.filter(|_| rustix::process::geteuid().is_root()) else { return };
        if let Ok(raw) = open_parent(&self.open, path).and_then(|(dir, name)| statx_at(dir, name.as_bytes())) {
            let (owner, group) = (rustix::process::Uid::from_raw(raw.stx_uid), rustix::process::Gid::from_raw(raw.stx_gid));
            // Where it cannot be kept, the file still belongs to the daemon's user.
            let _ = rustix::fs::fchown(file, Some(owner), Some(group));
        }
    }

    fn ready_link(&self, index: usize, target: &[u8]) -> Result<Ready, Errno> {
        let name = format!("{index}.link");
        remove_own(&self.tmp, name.as_bytes());
        rustix::fs::symlinkat(target, &self.tmp, &name)?;
        let stat = self.open.view.stat(&statx_at(&self.tmp, name.as_bytes())?);
        Ok(Ready { name, stat, file: None })
    }
}

/// Ferry's own directory is nobody's to change, whoever asks (L12). Only what waits in `.ferry/parked` for its place to become free comes
/// and goes: no path from outside leads there, since no node stands in a `.ferry` at the root.
fn refuse_bookkeeping(action: &DiskAction) -> Result<(), Obstacle> {
    let is_own = |path: &RelPath| match path.names() {
        [book, parked, _, ..] if book.is_bookkeeping() => parked.as_bytes() != PARKED.as_bytes(),
        [first, ..] => first.is_bookkeeping(),
        [] => true,
    };
    let own = match action {
        DiskAction::Move { from, to, .. } => is_own(from) || is_own(to),
        other => is_own(other.path()),
    };
    if own { Err(Obstacle::Unrepresentable) } else { Ok(()) }
}

/// A copy, by sharing blocks where the filesystem can.
fn copy_file(dir: &OwnedFd, source: &OwnedFd, name: &str, size: u64) -> Result<OwnedFd, Errno> {
    remove_own(dir, name.as_bytes());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    if rustix::fs::ioctl_ficlone(&file, source).is_ok() {
        return Ok(file);
    }
    let (mut from, mut to) = (0u64, 0u64);
    while from < size {
        let left = usize::try_from(size - from).unwrap_or(usize::MAX).min(1 << 30);
        if rustix::fs::copy_file_range(source, Some(&mut from), &file, Some(&mut to), left)? == 0 {
            return Err(Errno::IO);
        }
    }
    Ok(file)
}

/// The same error as an obstacle, told apart where an immutable flag is the reason (K16).
pub(super) fn blocked(dir: &OwnedFd, name: &[u8], errno: Errno) -> Obstacle {
    let flagged = || {
        let item = statx_at(dir, name).is_ok_and(|raw| crate::fs::handle::is_immutable(&raw));
        item || statx_fd(dir).is_ok_and(|raw| crate::fs::handle::is_immutable(&raw))
    };
    if matches!(errno, Errno::PERM | Errno::ACCESS) && flagged() { Obstacle::ReadOnly } else { PathError::from(errno).obstacle() }
}
