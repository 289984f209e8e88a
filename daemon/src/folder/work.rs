//! What blocks on the disk, on threads of its own: looking, reading, applying. Each job answers with one wake of the control loop.

use super::driver::Wake;
use super::early::Early;
use super::panics::planted;
use crate::fs::bases::Bases;
use crate::fs::{self, HashOutcome, PathError, Root, Unsynced};
use crate::lan::LanFolder;
use crossbeam_channel::{Receiver, Sender};
use ferry_engine::{DiskAction, DiskOutcome, HashResult, HashTask, Keep, Kind, Listed, Look, LookResult, Obstacle};
use ferry_protocol::lan::Piece;
use ferry_protocol::{ChunkRef, Name, NodeId, RelPath, VerifiedChunk};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Something to do on the disk.
pub(super) enum Job {
    /// Look at directories.
    Look(Arc<Root>, Look),
    /// Read files and links; chunks may go out meanwhile.
    Hash(Arc<Root>, Vec<HashTask>, Ahead),
    /// Keep versions that merges may need.
    Keep(Arc<Bases>, Vec<Keep>),
    /// Carry out a batch.
    Apply(Arc<Root>, u64, Vec<DiskAction>),
    /// Make a batch durable that could not be made so before.
    SyncBatch(Arc<Root>, u64, Unsynced),
    /// Make everything in the folder durable.
    Sync(Arc<Root>),
}

/// Whom chunks go to while their file is read.
#[derive(Clone)]
pub(super) struct Ahead {
    pub relay: Option<Arc<Early>>,
    pub lan: LanFolder,
}

/// Threads that take jobs.
pub(super) struct Workers {
    jobs: Sender<(u64, Job)>,
}

impl Workers {
    /// Starts so many threads; they end when this is dropped.
    pub fn start(threads: usize, wakes: &Sender<Wake>) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::unbounded::<(u64, Job)>();
        for index in 0..threads {
            let (queue, wakes): (Receiver<(u64, Job)>, _) = (queue.clone(), wakes.clone());
            std::thread::Builder::new().name(format!("ferry-disk-{index}")).spawn(move || {
                for (life, job) in queue {
                    // The loop ends when the folder does; an answer without a reader is of no use to anyone.
                    let _ = wakes.send(Wake::OfLife(life, Box::new(run(job))));
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Gives a job to the next free thread. The control loop bounds how many are under way.
    pub fn give(&self, life: u64, job: Job) {
        let _ = self.jobs.send((life, job));
    }
}

fn run(job: Job) -> Wake {
    match job {
        Job::Look(root, look) => {
            let result = caught(|| self::look(&root, &look)).unwrap_or(LookResult::Unreadable(Obstacle::Io));
            Wake::Looked(look, result)
        }
        Job::Hash(root, tasks, ahead) => {
            let results = tasks
                .into_iter()
                .map(|task| {
                    let result = caught(|| read(&root, &task, &ahead)).unwrap_or((HashResult::Unreadable(Obstacle::Io), false));
                    (task, result.0, result.1)
                })
                .collect();
            Wake::Hashed(results)
        }
        Job::Keep(bases, versions) => {
            // What could not be kept is a merge less.
            let _ = caught(|| bases.keep(&versions));
            Wake::Kept
        }
        Job::Apply(root, id, actions) => {
            // One that panics must not stand in the way of its batch for ever: then each is carried out alone, and it is the one that is blocked.
            let applied = caught(|| apply(&root, &actions))
                .unwrap_or_else(|| fs::apply_each(&root, &actions, |action| caught(|| apply(&root, std::slice::from_ref(action)))));
            Wake::Applied(id, applied)
        }
        Job::SyncBatch(root, id, unsynced) => {
            let again = unsynced.clone();
            Wake::Applied(id, caught(|| unsynced.sync(&root)).unwrap_or(Err(again)))
        }
        Job::Sync(root) => Wake::Synced(caught(|| fs::sync(&root)).unwrap_or(Err(Obstacle::Io))),
    }
}

/// A panic over one path must not take the others with it (K37): it becomes an error of that path.
fn caught<R>(work: impl FnOnce() -> R) -> Option<R> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.inspect_err(|_| tracing::error!("a disk job panicked; its paths are treated as unreadable")).ok()
}

fn apply(root: &Root, actions: &[DiskAction]) -> Result<Vec<DiskOutcome>, Unsynced> {
    actions.iter().for_each(|action| planted("place", last(action.path())));
    fs::apply(root, actions)
}

fn last(path: &RelPath) -> &[u8] {
    path.names().last().map_or(&[], Name::as_bytes)
}

fn look(root: &Root, look: &Look) -> LookResult {
    let own = if look.directory == NodeId::ROOT {
        root.stat().map_err(|e| e.obstacle())
    } else {
        match fs::stat(root, &look.path) {
            Ok(Some(stat)) if stat.kind == Kind::Dir => Ok(stat),
            Ok(_) => return LookResult::Gone,
            Err(obstacle) => Err(obstacle),
        }
    };
    let own = match own {
        Ok(own) => own,
        Err(obstacle) => return LookResult::Unreadable(obstacle),
    };
    let entries = match &look.names {
        None => fs::list(root, &look.path),
        Some(names) => names_of(root, &look.path, names),
    };
    match entries {
        Ok(entries) => LookResult::Listed(own, entries),
        Err(PathError::Gone) => LookResult::Gone,
        Err(PathError::Blocked(obstacle)) => LookResult::Unreadable(obstacle),
    }
}

fn names_of(root: &Root, path: &RelPath, names: &BTreeSet<Name>) -> Result<Vec<Listed>, PathError> {
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        if path.is_root() && name.is_bookkeeping() {
            continue;
        }
        match fs::stat(root, &path.join(name)) {
            Ok(Some(stat)) => out.push(Listed { name: name.clone(), stat: Ok(stat) }),
            Ok(None) => {}
            Err(Obstacle::RootGone) => return Err(PathError::Blocked(Obstacle::RootGone)),
            Err(obstacle) => out.push(Listed { name: name.clone(), stat: Err(obstacle) }),
        }
    }
    Ok(out)
}

/// What stands there, and whether it was changed so lately that it must be read once more.
fn read(root: &Root, task: &HashTask, ahead: &Ahead) -> (HashResult, bool) {
    planted("read", last(&task.path));
    if task.stat.kind == Kind::Symlink {
        return match fs::read_link(root, &task.path) {
            Ok((target, stat)) if stat.same_version(&task.stat) => (HashResult::Link(target.into(), stat), false),
            Ok(_) | Err(PathError::Gone) => (HashResult::Changed, false),
            Err(PathError::Blocked(obstacle)) => (HashResult::Unreadable(obstacle), false),
        };
    }
    let mut offering = ahead.lan.offer(&task.path, task.stat.size);
    let mut on_chunk = |offset: u64, chunk: VerifiedChunk<&[u8]>| {
        // A large file goes to the devices nearby first: both at once would take twice as long for them. Its commit brings it to the relay.
        match (&mut offering, &ahead.relay) {
            (Some(offering), _) => offering.add(Piece { offset, chunk: ChunkRef { id: chunk.id(), len: chunk.bytes().len() as u32 } }),
            (None, Some(early)) => early.offer(chunk),
            (None, None) => {}
        }
    };
    let outcome = fs::hash_file(root, &task.path, &task.stat, &mut on_chunk);
    if let (HashOutcome::Hashed { manifest, .. }, Some(offering)) = (&outcome, offering) {
        offering.end(manifest.hash());
    }
    match outcome {
        HashOutcome::Hashed { manifest, stat, racy } => (HashResult::File(manifest, stat), racy),
        HashOutcome::Changed(_) => (HashResult::Changed, false),
        HashOutcome::Unreadable(obstacle) => (HashResult::Unreadable(obstacle), false),
    }
}
