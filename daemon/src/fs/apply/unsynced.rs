//! What is on the disk and could not be made durable (K11, I7).
//!
//! The kernel tells an error of writing back once, and may forget what it could not write: a sync that succeeds later says nothing of what was
//! written before (fsyncgate). So a batch is answered only after such a sync, and by what its directories list then.

use super::{sync_dir, sync_fs};
use crate::fs::handle::{PathError, obstacle, open_beneath};
use crate::fs::list::list;
use crate::fs::root::{Root, TMP, TRASH};
use ferry_engine::disk::{DiskAction, DiskOutcome, Obstacle, Stat};
use ferry_engine::seen_again;
use ferry_protocol::{Name, RelPath};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;

/// A batch that was carried out and might not outlive a crash.
#[derive(Debug, Clone)]
#[must_use = "nobody else knows what is to be made durable"]
pub struct Unsynced {
    batch: Box<Batch>,
}

#[derive(Debug, Clone)]
struct Batch {
    actions: Vec<DiskAction>,
    outcomes: Vec<DiskOutcome>,
    /// Directories of which the filesystem was asked one by one.
    dirs: Vec<RelPath>,
    obstacle: Obstacle,
}

impl Unsynced {
    pub(super) fn new(actions: Vec<DiskAction>, outcomes: Vec<DiskOutcome>, dirs: Vec<RelPath>, errno: Errno) -> Self {
        tracing::warn!(%errno, "a batch of changes could not be made durable");
        Self { batch: Box::new(Batch { actions, outcomes, dirs, obstacle: obstacle(errno) }) }
    }

    /// Why not.
    pub fn obstacle(&self) -> Obstacle {
        self.batch.obstacle
    }

    /// Tries again: the outcomes of the batch, by what is there now.
    pub fn sync(mut self, root: &Root) -> Result<Vec<DiskOutcome>, Self> {
        match sync_these(root, &self.batch.dirs) {
            Ok(()) => Ok(self.batch.look_again(root)),
            Err(obstacle) => {
                self.batch.obstacle = obstacle;
                Err(self)
            }
        }
    }
}

impl Batch {
    /// The outcomes, as far as what was done is still there. A directory is listed: what a single name leads to the kernel may remember from before.
    fn look_again(self, root: &Root) -> Vec<DiskOutcome> {
        let mut listed = BTreeMap::new();
        let mut now = |path: &RelPath| -> Result<Option<Stat>, Obstacle> {
            let Some((parent, name)) = path.split_last() else { return Err(Obstacle::Unrepresentable) };
            match listed.entry(parent).or_insert_with_key(|parent| entries(root, parent)) {
                Ok(entries) => entries.get(name).copied().transpose(),
                Err(obstacle) => Err(*obstacle),
            }
        };
        seen_again(&self.actions, self.outcomes, |path| now(path).ok().flatten())
    }
}

type Entries = BTreeMap<Name, Result<Stat, Obstacle>>;

fn entries(root: &Root, dir: &RelPath) -> Result<Entries, Obstacle> {
    match list(root, dir) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| (entry.name, entry.stat)).collect()),
        Err(PathError::Gone) => Ok(Entries::new()),
        Err(PathError::Blocked(obstacle)) => Err(obstacle),
    }
}

/// Carries out each action as a batch of its own, by `alone`; nothing where that failed altogether. What an earlier try left is made durable with it.
pub fn apply_each(
    root: &Root,
    actions: &[DiskAction],
    mut alone: impl FnMut(&DiskAction) -> Option<Result<Vec<DiskOutcome>, Unsynced>>,
) -> Result<Vec<DiskOutcome>, Unsynced> {
    let mut dirs = Vec::new();
    let mut outcomes = Vec::with_capacity(actions.len());
    for action in actions {
        let mut done = match alone(action) {
            Some(Ok(outcomes)) => outcomes,
            Some(Err(unsynced)) => {
                dirs.extend(unsynced.batch.dirs);
                unsynced.batch.outcomes
            }
            None => Vec::new(),
        };
        outcomes.push(done.pop().unwrap_or(DiskOutcome::Blocked(Obstacle::Io)));
    }
    match sync_these(root, &dirs) {
        Ok(()) => Ok(outcomes),
        Err(obstacle) => Err(Unsynced { batch: Box::new(Batch { actions: actions.to_vec(), outcomes, dirs, obstacle }) }),
    }
}

/// Makes everything in the folder durable, whoever wrote it.
pub fn sync(root: &Root) -> Result<(), Obstacle> {
    sync_these(root, &[])
}

fn sync_these(root: &Root, dirs: &[RelPath]) -> Result<(), Obstacle> {
    let open = root.enter().map_err(crate::fs::RootError::obstacle)?;
    let tmp = open.own_dir(TMP).map_err(PathError::obstacle)?;
    let trash = open.own_dir(TRASH).map_err(PathError::obstacle)?;
    for dir in dirs.iter().chain([&RelPath::root()]) {
        // One that was moved, may not be read, or has another filesystem on it is a part of this one all the same.
        if let Ok(dir) = open_beneath(&open, dir, OFlags::RDONLY | OFlags::DIRECTORY) {
            sync_dir(&dir).map_err(obstacle)?;
        }
    }
    sync_dir(&trash).and_then(|_| sync_fs(&tmp)).map_err(obstacle)
}
