//! Changing the disk in batches (I4, I6, I7).
//!
//! A batch runs in four steps: prepare what is new in `.ferry/tmp` (mode, times), make it and the trash's log durable, carry out the
//! actions in their order by renames, make the touched directories durable. Only then is anything answered at all: a batch whose last step
//! failed is [`Unsynced`], until a sync succeeds. A crash between any two steps leaves each name with its old or its new content.
//!
//! Each action looks at what stands there through the handle by which it then changes it, and looks again at what came out (I6). What was
//! not expected goes back to where it was; if that cannot be, it stays in the trash and shows up as a late write (H15, H16).

mod dirs;
mod place;
mod prepare;
#[cfg(test)]
mod tests;
mod unsynced;

use super::handle::{PathError, obstacle};
use super::root::{OpenRoot, Root, TMP};
use super::trash::{Trash, TrashEntry, TrashReason};
use dirs::Dirs;
use ferry_engine::disk::{DiskAction, DiskOutcome, Kind, Obstacle, Stat};
use prepare::Ready;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
pub use unsynced::{Unsynced, apply_each, sync};

/// Up to this many files are made durable one by one; more by one sync of the filesystem.
const SYNC_EACH_MAX: usize = 8;

/// A point in a batch at which a test may interfere, or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Content and log are durable; renames begin.
    Durable,
    /// An action saw what it expected and is about to change it.
    Checked,
    /// A name was changed.
    Changed,
    /// What was displaced turned out to be something else and is about to be put back.
    Undoing,
    /// The touched directories are durable.
    Finished,
}

#[cfg(test)]
type Hook = Box<dyn FnMut(Step)>;

#[cfg(test)]
thread_local! {
    pub(crate) static HOOK: std::cell::RefCell<Option<Hook>> = const { std::cell::RefCell::new(None) };
}

#[cfg_attr(not(test), expect(unused_variables, reason = "only tests look at the steps"))]
fn step(at: Step) {
    #[cfg(test)]
    {
        // Taken out while it runs, so that a hook may itself change the disk through this module.
        let hook = HOOK.with_borrow_mut(Option::take);
        if let Some(mut hook) = hook {
            hook(at);
            HOOK.set(Some(hook));
        }
    }
}

/// Carries out a batch, in order. One outcome for each action, and all of it durable; or what is to be made durable still.
pub fn apply(root: &Root, actions: &[DiskAction]) -> Result<Vec<DiskOutcome>, Unsynced> {
    match Batch::open(root) {
        Ok(mut batch) => batch.run(actions),
        Err(obstacle) => Ok(vec![DiskOutcome::Blocked(obstacle); actions.len()]),
    }
}

/// One batch under way.
struct Batch<'r> {
    root: &'r Root,
    open: OpenRoot,
    tmp: OwnedFd,
    trash: Trash<'r>,
    dirs: Dirs,
}

/// What an action needs that was prepared for it.
#[derive(Default)]
struct Prepared {
    /// The new file or link, in `tmp`.
    ready: Option<Ready>,
    /// The line in the trash's log for what it displaces.
    record: Option<TrashEntry>,
}

impl<'r> Batch<'r> {
    fn open(root: &'r Root) -> Result<Self, Obstacle> {
        let open = root.enter().map_err(super::root::RootError::obstacle)?;
        let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
        let trash = Trash::open(root, &open).map_err(PathError::obstacle)?;
        Ok(Self { root, open, tmp, trash, dirs: Dirs::default() })
    }

    fn run(&mut self, actions: &[DiskAction]) -> Result<Vec<DiskOutcome>, Unsynced> {
        let mut prepared = self.prepare(actions);
        self.make_durable(&mut prepared);
        step(Step::Durable);
        let outcomes: Vec<DiskOutcome> = actions
            .iter()
            .zip(prepared)
            .map(|(action, prepared)| match prepared {
                Ok(prepared) => self.carry_out(action, &prepared),
                Err(obstacle) => DiskOutcome::Blocked(obstacle),
            })
            .collect();
        let synced = self.dirs.sync(&self.tmp, &self.trash.dir);
        step(Step::Finished);
        match synced {
            Ok(()) => Ok(outcomes),
            Err(errno) => Err(Unsynced::new(actions.to_vec(), outcomes, self.dirs.touched(), errno)),
        }
    }

    /// The durability barrier before the renames. Content that could not be made durable is thrown away: the kernel may have dropped it
    /// and would report the next fsync as clean (K15).
    fn make_durable(&mut self, prepared: &mut [Result<Prepared, Obstacle>]) {
        let records: Vec<TrashEntry> = prepared.iter().flatten().filter_map(|p| p.record.clone()).collect();
        let files = prepared.iter().flatten().filter(|p| p.ready.as_ref().is_some_and(Ready::is_file)).count();
        let mut logged = if records.is_empty() { Ok(()) } else { self.trash.log(&records) };
        if files > SYNC_EACH_MAX {
            let synced = sync_all(&self.tmp);
            if let (Ok(()), Err(errno)) = (logged, synced) {
                logged = Err(errno);
            }
            for slot in prepared.iter_mut() {
                self.discard_unless(synced, slot);
            }
        } else {
            if logged.is_ok() && !records.is_empty() {
                logged = self.trash.sync_log();
            }
            for slot in prepared.iter_mut() {
                if let Ok(Prepared { ready: Some(ready), .. }) = slot {
                    let synced = ready.sync();
                    self.discard_unless(synced, slot);
                }
            }
        }
        if let Err(errno) = logged {
            // Nothing is displaced without a line that says where it was.
            for slot in prepared.iter_mut().filter(|slot| slot.as_ref().is_ok_and(|p| p.record.is_some())) {
                *slot = Err(obstacle(errno));
            }
        }
        for ready in prepared.iter_mut().flatten().filter_map(|p| p.ready.as_mut()) {
            ready.close();
        }
    }

    fn discard_unless(&self, synced: Result<(), Errno>, slot: &mut Result<Prepared, Obstacle>) {
        let (Err(errno), Ok(Prepared { ready: Some(ready), .. })) = (synced, &slot) else { return };
        super::stage::remove_own(&self.tmp, ready.name.as_bytes());
        *slot = Err(obstacle(errno));
    }
}

fn sync_all(any: &OwnedFd) -> Result<(), Errno> {
    #[cfg(test)]
    if tests::FAIL_SYNC.get() {
        return Err(Errno::IO);
    }
    rustix::fs::syncfs(any)
}

/// Makes everything on this filesystem durable.
fn sync_fs(any: &OwnedFd) -> Result<(), Errno> {
    #[cfg(test)]
    if let Some(errno) = tests::FAIL_DIR_SYNC.get() {
        return Err(errno);
    }
    rustix::fs::syncfs(any)
}

/// Makes a directory durable; whether the filesystem can do that for one directory.
fn sync_dir(dir: &OwnedFd) -> Result<bool, Errno> {
    #[cfg(test)]
    if let Some(errno) = tests::FAIL_DIR_SYNC.get() {
        return Err(errno);
    }
    match rustix::fs::fsync(dir) {
        Ok(()) => Ok(true),
        // Not of this filesystem: some network filesystems.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether what came out of a place is what was expected there. The rename itself changes the change time, so that is left out; what was
/// written and then given its old time again is caught by the check before.
fn is_expected(expect: &Stat, got: &Stat) -> bool {
    expect.same_inode(got)
        && (expect.kind == Kind::Dir || (expect.size == got.size && expect.mtime_ns == got.mtime_ns && expect.mode == got.mode))
}

/// Why an action displaces what it names, if it may.
fn displaces(action: &DiskAction) -> Option<(TrashReason, &Stat)> {
    match action {
        DiskAction::PutFile { expect: Some(expect), .. } | DiskAction::PutLink { expect: Some(expect), .. } => {
            Some((TrashReason::Replaced, expect))
        }
        DiskAction::Remove { expect, .. } if expect.kind != Kind::Dir => Some((TrashReason::Removed, expect)),
        _ => None,
    }
}
