//! The directories that a batch works in: each resolved once, each made durable once.

use crate::fs::handle::{PathError, open_beneath};
use ferry_protocol::{Name, RelPath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Open directories at one time.
const OPEN_MAX: usize = 48;
/// Up to this many directories are made durable one by one; more by one sync of the filesystem.
const SYNC_EACH_MAX: usize = 12;

/// Open parents of a batch's paths, and which of them were changed.
#[derive(Default)]
pub(super) struct Dirs {
    open: BTreeMap<RelPath, Rc<Dir>>,
    touched: Vec<Rc<Dir>>,
    /// More was changed than is worth, or able, to be made durable one by one.
    many: bool,
}

pub(super) struct Dir {
    pub fd: OwnedFd,
    path: RelPath,
    can_sync: bool,
}

impl Dirs {
    /// The directory that holds an entry, and the entry's name.
    pub fn parent<'p>(&mut self, root: impl AsFd, path: &'p RelPath) -> Result<(Rc<Dir>, &'p Name), PathError> {
        let (parent, name) = path.split_last().ok_or(PathError::Blocked(ferry_engine::Obstacle::Unrepresentable))?;
        if let Some(dir) = self.open.get(&parent) {
            return Ok((dir.clone(), name));
        }
        let dir = match open_beneath(&root, &parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Dir { fd, path: parent.clone(), can_sync: true },
            // Entries of a directory that may not be read can still be changed.
            Err(Errno::ACCESS) => {
                let fd = open_beneath(&root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
                Dir { fd, path: parent.clone(), can_sync: false }
            }
            Err(errno) => return Err(errno.into()),
        };
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let dir = Rc::new(dir);
        self.open.insert(parent, dir.clone());
        Ok((dir, name))
    }

    /// Something in this directory was changed.
    pub fn touch(&mut self, dir: &Rc<Dir>) {
        if self.many || self.touched.iter().any(|known| Rc::ptr_eq(known, dir)) {
            return;
        }
        if self.touched.len() >= SYNC_EACH_MAX || !dir.can_sync {
            self.many = true;
            self.touched.clear();
            return;
        }
        self.touched.push(dir.clone());
    }

    /// Something else than a directory's entries was changed that must be durable.
    pub fn touch_all(&mut self) {
        self.many = true;
        self.touched.clear();
    }

    /// A directory was moved or removed: paths below it lead elsewhere now.
    pub fn forget(&mut self, path: &RelPath) {
        self.open.retain(|known, _| !known.starts_with(path));
    }

    /// Makes every change durable: the touched directories and the trash.
    pub fn sync(&mut self, tmp: &OwnedFd, trash: &OwnedFd) -> Result<(), Errno> {
        if !self.many && self.touched.is_empty() {
            return Ok(());
        }
        let mut all = self.many;
        for dir in self.touched.iter().map(|dir| &dir.fd).chain((!all).then_some(trash)) {
            all |= !super::sync_dir(dir)?;
        }
        if all { super::sync_fs(tmp) } else { Ok(()) }
    }

    /// The directories that were to be made durable one by one, as they were called when they were opened.
    pub fn touched(&self) -> Vec<RelPath> {
        self.touched.iter().map(|dir| dir.path.clone()).collect()
    }
}
