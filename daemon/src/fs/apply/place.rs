//! The actions of a batch, one by one: check, rename, look at what came out.

use super::dirs::Dir;
use super::prepare::{Ready, blocked};
use super::{Batch, Prepared, Step, is_expected, step};
use crate::fs::handle::{PathError, dir_mode, file_mode, mtime_only, obstacle, statx_at, statx_fd};
use crate::fs::trash::{TrashEntry, TrashReason};
use ferry_engine::disk::{DiskAction, DiskOutcome, Kind, Obstacle, Stat};
use ferry_protocol::{Name, RelPath};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::rc::Rc;

/// Why an action ends early; its outcome.
struct Stop(DiskOutcome);

impl From<Obstacle> for Stop {
    fn from(obstacle: Obstacle) -> Self {
        Self(DiskOutcome::Blocked(obstacle))
    }
}

impl From<PathError> for Stop {
    fn from(error: PathError) -> Self {
        Self(match error {
            PathError::Gone => DiskOutcome::Stale(None),
            PathError::Blocked(obstacle) => DiskOutcome::Blocked(obstacle),
        })
    }
}

/// What stands there in the end, or why the action ended early.
type Placed = Result<Option<Stat>, Stop>;

fn stale(stat: Option<Stat>) -> Stop {
    Stop(DiskOutcome::Stale(stat))
}

impl Batch<'_> {
    pub(super) fn carry_out(&mut self, action: &DiskAction, prepared: &Prepared) -> DiskOutcome {
        let done = match (action, prepared) {
            (DiskAction::MakeDir { path, mode }, _) => self.make_dir(path, *mode),
            (DiskAction::PutFile { path, expect: None, .. }, Prepared { ready: Some(ready), .. }) => self.place_new(path, ready),
            (
                DiskAction::PutFile { path, expect: Some(expect), .. } | DiskAction::PutLink { path, expect: Some(expect), .. },
                Prepared { ready: Some(ready), record: Some(record) },
            ) => self.replace(path, expect, ready, record),
            (DiskAction::PutLink { path, expect: None, target }, _) => self.link_new(path, target),
            (DiskAction::Move { from, expect, to }, _) => self.move_to(from, expect, to),
            (DiskAction::Remove { path, expect }, Prepared { record: Some(record), .. }) => self.remove(path, expect, record),
            (DiskAction::Remove { path, expect }, _) => self.remove_dir(path, expect),
            (DiskAction::SetAttributes { path, expect, mode, mtime_ns }, _) => self.set_attributes(path, expect, *mode, *mtime_ns),
            // What an action needs was prepared for it, or it is not carried out.
            (DiskAction::PutFile { .. } | DiskAction::PutLink { .. }, _) => Err(Obstacle::Io.into()),
        };
        match done {
            Ok(stat) => DiskOutcome::Done(stat),
            Err(Stop(outcome)) => outcome,
        }
    }

    fn parent<'p>(&mut self, path: &'p RelPath) -> Result<(Rc<Dir>, &'p Name), PathError> {
        self.dirs.parent(&self.open, path)
    }

    /// Looks at what stands there; goes on only if it is exactly what is expected.
    fn expect(&self, dir: &Dir, name: &Name, expect: &Stat) -> Result<(), Stop> {
        match self.open.stat_at(&dir.fd, name.as_bytes())? {
            Some(now) if now.same_version(expect) => Ok(()),
            now => Err(stale(now)),
        }
    }

    /// Something stands where nothing should.
    fn occupied(&self, dir: &Dir, name: &Name) -> Stop {
        match self.open.stat_at(&dir.fd, name.as_bytes()) {
            Ok(Some(_)) if self.root.folds_names() && !has_exact_name(&dir.fd, name) => Obstacle::NameClash.into(),
            Ok(now) => stale(now),
            Err(obstacle) => obstacle.into(),
        }
    }

    /// What stands there after we put it there. If it is not quite that (somebody was faster than our look), then what we put there: the
    /// next scan sees the difference as an edit.
    fn settled(&self, dir: &Dir, name: &Name, put: &Stat) -> Option<Stat> {
        match self.open.stat_at(&dir.fd, name.as_bytes()) {
            Ok(Some(now)) if is_expected(put, &now) => Some(now),
            _ => Some(*put),
        }
    }

    fn make_dir(&mut self, path: &RelPath, mode: u16) -> Placed {
        let (dir, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&dir.fd, name.as_bytes(), Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.occupied(&dir, name)),
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(errno) => return Err(blocked(&dir.fd, name.as_bytes(), errno).into()),
        }
        self.dirs.touch(&dir);
        step(Step::Changed);
        // The mode by a handle, so that neither the umask nor a link in its place matters.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&dir.fd, name.as_bytes(), flags, Mode::empty()).map_err(PathError::from)?;
        rustix::fs::fchmod(&made, dir_mode(mode)).map_err(obstacle)?;
        Ok(Some(self.open.view.stat(&statx_fd(&made).map_err(obstacle)?)))
    }

    fn place_new(&mut self, path: &RelPath, ready: &Ready) -> Placed {
        let (dir, name) = self.parent(path)?;
        step(Step::Checked);
        match rename_new(&self.tmp, ready.name.as_bytes(), &dir.fd, name.as_bytes()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.occupied(&dir, name)),
            Err(Errno::NOENT) if statx_at(&self.tmp, ready.name.as_bytes()).is_err() => return Err(Obstacle::Corrupt.into()),
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(errno) => return Err(blocked(&dir.fd, name.as_bytes(), errno).into()),
        }
        self.dirs.touch(&dir);
        step(Step::Changed);
        Ok(self.settled(&dir, name, &ready.stat))
    }

    fn link_new(&mut self, path: &RelPath, target: &[u8]) -> Placed {
        let (dir, name) = self.parent(path)?;
        match rustix::fs::symlinkat(target, &dir.fd, name.as_bytes()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.occupied(&dir, name)),
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(errno) => return Err(blocked(&dir.fd, name.as_bytes(), errno).into()),
        }
        self.dirs.touch(&dir);
        step(Step::Changed);
        match self.open.stat_at(&dir.fd, name.as_bytes())? {
            Some(now) if now.kind == Kind::Symlink && now.size == target.len() as u64 => Ok(Some(now)),
            now => Err(stale(now)),
        }
    }

    /// Exchanges what is expected with the new version, by way of the trash: what comes out is there at once.
    fn replace(&mut self, path: &RelPath, expect: &Stat, ready: &Ready, record: &TrashEntry) -> Placed {
        let (dir, name) = self.parent(path)?;
        self.expect(&dir, name, expect)?;
        let id = record.id.as_bytes();
        match rename_new(&self.tmp, ready.name.as_bytes(), &self.trash.dir, id) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(Obstacle::Corrupt.into()),
            Err(errno) => return Err(obstacle(errno).into()),
        }
        step(Step::Checked);
        match rustix::fs::renameat_with(&self.trash.dir, id, &dir.fd, name.as_bytes(), RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.unstage(id, ready);
                return self.replace_in_two(&dir, name, expect, ready, record);
            }
            Err(errno) => {
                self.unstage(id, ready);
                return Err(if errno == Errno::NOENT { stale(None) } else { blocked(&dir.fd, name.as_bytes(), errno).into() });
            }
        }
        self.dirs.touch(&dir);
        step(Step::Changed);
        let out = self.open.view.stat(&statx_at(&self.trash.dir, id).map_err(obstacle)?);
        if !is_expected(expect, &out) {
            return Err(self.undo_exchange(&dir, name, id, ready));
        }
        if out.kind == Kind::Dir {
            match rustix::fs::unlinkat(&self.trash.dir, id, AtFlags::REMOVEDIR) {
                Ok(()) => self.dirs.forget(path),
                Err(errno) => {
                    self.undo_exchange(&dir, name, id, ready);
                    return Err(obstacle(errno).into());
                }
            }
        }
        Ok(self.settled(&dir, name, &ready.stat))
    }

    /// Puts back what came out. If something newer still came out then, the newer goes back, and the older stays in the trash, where its
    /// record shows it as a late write.
    fn undo_exchange(&self, dir: &Dir, name: &Name, id: &[u8], ready: &Ready) -> Stop {
        step(Step::Undoing);
        let exchange = || rustix::fs::renameat_with(&self.trash.dir, id, &dir.fd, name.as_bytes(), RenameFlags::EXCHANGE);
        match exchange() {
            Ok(()) => {}
            // The user removed our version meanwhile: theirs goes back to its name all the same.
            Err(Errno::NOENT) => {
                let _ = rename_new(&self.trash.dir, id, &dir.fd, name.as_bytes());
            }
            Err(errno) => return obstacle(errno).into(),
        }
        match statx_at(&self.trash.dir, id) {
            Ok(raw) if raw.stx_ino == ready.stat.ino => self.unstage(id, ready),
            Ok(_) => {
                let _ = exchange();
            }
            Err(_) => {}
        }
        match self.open.stat_at(&dir.fd, name.as_bytes()) {
            Ok(now) => stale(now),
            Err(obstacle) => obstacle.into(),
        }
    }

    /// Moves the new version back to where it was staged.
    fn unstage(&self, id: &[u8], ready: &Ready) {
        if rename_new(&self.trash.dir, id, &self.tmp, ready.name.as_bytes()).is_err() {
            crate::fs::stage::remove_own(&self.trash.dir, id);
        }
    }

    /// For filesystems without exchange: first the old version goes to the trash, then the new one takes the name. Between the two there is
    /// no file, but never a half one (I4).
    fn replace_in_two(&mut self, dir: &Rc<Dir>, name: &Name, expect: &Stat, ready: &Ready, record: &TrashEntry) -> Placed {
        if expect.kind == Kind::Dir {
            rustix::fs::unlinkat(&dir.fd, name.as_bytes(), AtFlags::REMOVEDIR).map_err(obstacle)?;
        } else {
            self.displace(dir, name, expect, record)?;
        }
        self.dirs.touch(dir);
        match rename_new(&self.tmp, ready.name.as_bytes(), &dir.fd, name.as_bytes()) {
            Ok(()) => Ok(self.settled(dir, name, &ready.stat)),
            Err(Errno::EXIST) => Err(self.occupied(dir, name)),
            Err(errno) => {
                let _ = rename_new(&self.trash.dir, record.id.as_bytes(), &dir.fd, name.as_bytes());
                Err(obstacle(errno).into())
            }
        }
    }

    /// Moves what is expected to the trash; what turns out to be something else goes back.
    fn displace(&mut self, dir: &Rc<Dir>, name: &Name, expect: &Stat, record: &TrashEntry) -> Result<(), Stop> {
        let id = record.id.as_bytes();
        match rename_new(&dir.fd, name.as_bytes(), &self.trash.dir, id) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(errno) => return Err(blocked(&dir.fd, name.as_bytes(), errno).into()),
        }
        self.dirs.touch(dir);
        step(Step::Changed);
        let out = self.open.view.stat(&statx_at(&self.trash.dir, id).map_err(obstacle)?);
        if is_expected(expect, &out) {
            return Ok(());
        }
        step(Step::Undoing);
        // If the name was taken again, the newer keeps it and this one stays in the trash as a late write.
        let _ = rename_new(&self.trash.dir, id, &dir.fd, name.as_bytes());
        Err(match self.open.stat_at(&dir.fd, name.as_bytes()) {
            Ok(now) => stale(now),
            Err(obstacle) => obstacle.into(),
        })
    }

    fn remove(&mut self, path: &RelPath, expect: &Stat, record: &TrashEntry) -> Placed {
        if expect.kind == Kind::Other {
            return Err(Obstacle::Unsupported.into());
        }
        let (dir, name) = self.parent(path)?;
        self.expect(&dir, name, expect)?;
        step(Step::Checked);
        self.displace(&dir, name, expect, record)?;
        Ok(None)
    }

    fn remove_dir(&mut self, path: &RelPath, expect: &Stat) -> Placed {
        let (dir, name) = self.parent(path)?;
        self.expect(&dir, name, expect)?;
        step(Step::Checked);
        // Only an empty directory goes, whoever made it.
        match rustix::fs::unlinkat(&dir.fd, name.as_bytes(), AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(Errno::NOTDIR) => return Err(self.occupied(&dir, name)),
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Err(Obstacle::NotEmpty.into()),
            Err(errno) => return Err(blocked(&dir.fd, name.as_bytes(), errno).into()),
        }
        self.dirs.forget(path);
        self.dirs.touch(&dir);
        step(Step::Changed);
        Ok(None)
    }

    fn move_to(&mut self, from: &RelPath, expect: &Stat, to: &RelPath) -> Placed {
        let (old_dir, old) = self.parent(from)?;
        let (new_dir, new) = self.parent(to)?;
        self.expect(&old_dir, old, expect)?;
        step(Step::Checked);
        match rename_new(&old_dir.fd, old.as_bytes(), &new_dir.fd, new.as_bytes()) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = self.open.stat_at(&new_dir.fd, new.as_bytes())?;
                if !there.is_some_and(|there| there.same_inode(expect)) || !self.root.folds_names() {
                    return Err(self.occupied(&new_dir, new));
                }
                self.respell(from, (&old_dir, old), (&new_dir, new), expect)?;
            }
            // The source vanished, or the target's directory.
            Err(Errno::NOENT) => return Err(stale(None)),
            Err(errno) => return Err(blocked(&old_dir.fd, old.as_bytes(), errno).into()),
        }
        self.dirs.forget(from);
        self.dirs.touch(&old_dir);
        self.dirs.touch(&new_dir);
        step(Step::Changed);
        match self.open.stat_at(&new_dir.fd, new.as_bytes())? {
            Some(now) if is_expected(expect, &now) => Ok(Some(now)),
            // Gone again, or replaced by the user: the move itself was right.
            None => Err(stale(None)),
            Some(_) => {
                step(Step::Undoing);
                let _ = rename_new(&new_dir.fd, new.as_bytes(), &old_dir.fd, old.as_bytes());
                Err(match self.open.stat_at(&old_dir.fd, old.as_bytes()) {
                    Ok(now) => stale(now),
                    Err(obstacle) => obstacle.into(),
                })
            }
        }
    }

    /// Gives an entry another spelling of its own name, on a disk for which both are one (B20): by way of the trash, whose log says where
    /// to put it back after a crash.
    fn respell(&mut self, path: &RelPath, old: (&Dir, &Name), new: (&Dir, &Name), expect: &Stat) -> Result<(), Stop> {
        let record = self.trash.record(path, TrashReason::Moving, *expect, None);
        self.trash.log(std::slice::from_ref(&record)).map_err(obstacle)?;
        self.trash.sync_log().map_err(obstacle)?;
        let id = record.id.as_bytes();
        rename_new(&old.0.fd, old.1.as_bytes(), &self.trash.dir, id).map_err(PathError::from)?;
        step(Step::Changed);
        match rename_new(&self.trash.dir, id, &new.0.fd, new.1.as_bytes()) {
            Ok(()) => Ok(()),
            Err(errno) => {
                // A hard link of the same inode, or a newcomer: as it was.
                let _ = rename_new(&self.trash.dir, id, &old.0.fd, old.1.as_bytes());
                Err(if errno == Errno::EXIST { self.occupied(new.0, new.1) } else { obstacle(errno).into() })
            }
        }
    }

    fn set_attributes(&mut self, path: &RelPath, expect: &Stat, mode: Option<u16>, mtime_ns: Option<i64>) -> Placed {
        let (dir, name) = self.parent(path)?;
        self.expect(&dir, name, expect)?;
        step(Step::Checked);
        let fail = |errno| Stop::from(blocked(&dir.fd, name.as_bytes(), errno));
        if expect.kind == Kind::Symlink {
            if let Some(ns) = mtime_ns {
                rustix::fs::utimensat(&dir.fd, name.as_bytes(), &mtime_only(ns), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
                self.dirs.touch_all();
            }
            return Ok(self.open.stat_at(&dir.fd, name.as_bytes())?);
        }
        let item = open_item(&dir.fd, name.as_bytes()).map_err(PathError::from)?;
        // The version once more by the handle through which it is changed; a write in the moment between this look and the change of the
        // time would only be seen at its next change.
        let now = self.open.view.stat(&statx_fd(&item).map_err(obstacle)?);
        if !now.same_version(expect) {
            return Err(stale(Some(now)));
        }
        if let Some(mode) = mode {
            let mode = if expect.kind == Kind::Dir { dir_mode(mode) } else { file_mode(mode) };
            change_mode(&item, mode).map_err(fail)?;
        }
        let now = self.open.view.stat(&statx_fd(&item).map_err(obstacle)?);
        if expect.kind != Kind::Dir && (now.mtime_ns, now.size) != (expect.mtime_ns, expect.size) {
            return Err(stale(Some(now)));
        }
        if let Some(ns) = mtime_ns {
            change_mtime(&item, ns).map_err(fail)?;
        }
        step(Step::Changed);
        self.dirs.touch_all();
        Ok(Some(self.open.view.stat(&statx_fd(&item).map_err(obstacle)?)))
    }
}

/// A handle of a file or directory whose attributes change: for reading if that is allowed, otherwise one that only names it.
fn open_item(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, OFlags::RDONLY | flags, Mode::empty()) {
        Err(Errno::ACCESS | Errno::PERM) => rustix::fs::openat(dir, name, OFlags::PATH | flags, Mode::empty()),
        done => done,
    }
}

/// The name by which the kernel knows an open handle: leads to that very inode, wherever its path leads by now.
fn handle_name(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn change_mode(item: &OwnedFd, mode: Mode) -> Result<(), Errno> {
    match rustix::fs::fchmod(item, mode) {
        Err(Errno::BADF) => rustix::fs::chmod(handle_name(item), mode),
        done => done,
    }
}

fn change_mtime(item: &OwnedFd, ns: i64) -> Result<(), Errno> {
    match rustix::fs::futimens(item, &mtime_only(ns)) {
        Err(Errno::BADF) => rustix::fs::utimensat(rustix::fs::CWD, handle_name(item), &mtime_only(ns), AtFlags::empty()),
        done => done,
    }
}

/// Renames, never over anything.
fn rename_new(from_dir: &OwnedFd, from: &[u8], to_dir: &OwnedFd, to: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        Err(errno @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => rename_new_by_hand(from_dir, from, to_dir, to, errno),
        done => done,
    }
}

/// The same for filesystems without NOREPLACE: a second link fails where something stands. Directories cannot be linked; for them remains
/// the moment between the look and the rename, in which only an empty directory could be lost.
fn rename_new_by_hand(from_dir: &OwnedFd, from: &[u8], to_dir: &OwnedFd, to: &[u8], why: Errno) -> Result<(), Errno> {
    if statx_at(from_dir, from)?.stx_mode & 0o170_000 == 0o040_000 {
        return match statx_at(to_dir, to) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(from_dir, from, to_dir, to),
            Err(_) => Err(why),
        };
    }
    rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())?;
    rustix::fs::unlinkat(from_dir, from, AtFlags::empty())
}

fn has_exact_name(dir: &OwnedFd, name: &Name) -> bool {
    let mut buffer = vec![std::mem::MaybeUninit::<u8>::uninit(); 32 << 10];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(listing) = rustix::fs::openat(dir, ".", flags, Mode::empty()) else { return true };
    let mut raw = rustix::fs::RawDir::new(&listing, &mut buffer);
    while let Some(Ok(entry)) = raw.next() {
        if entry.file_name().to_bytes() == name.as_bytes() {
            return true;
        }
    }
    false
}
