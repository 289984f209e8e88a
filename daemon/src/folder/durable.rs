//! Making durable what is on the disk: every life of a folder begins with it, and a batch is answered only after it (I7).

use super::driver::Driver;
use super::work::Job;
use crate::fs::Unsynced;
use ferry_engine::{DiskOutcome, TreeError};
use std::time::{Duration, Instant};

/// So long a sync waits for batches of earlier lives. One that hangs on a filesystem that went away must not stop the folder for ever (K19).
const EARLIER_MAX: Duration = Duration::from_secs(60);

/// What is to be made durable.
#[derive(Default)]
pub(super) struct Durable {
    /// Batches under way, also of earlier lives.
    batches: usize,
    /// A batch that could not be made durable yet.
    unsynced: Option<(u64, Unsynced)>,
    /// Since when a sync is to be tried.
    due: Option<Instant>,
}

impl Durable {
    /// A batch is given out.
    pub fn batch_given(&mut self) {
        self.batches += 1;
    }

    /// A batch is answered, of whatever life.
    pub fn batch_answered(&mut self) {
        self.batches = self.batches.saturating_sub(1);
    }

    /// The folder is closed. The next life begins with a sync of everything.
    pub fn end_life(&mut self) {
        self.unsynced = None;
        self.due = None;
    }
}

impl Driver {
    /// Gives out a sync if one is due.
    pub(super) fn give_sync(&mut self) {
        let Some(state) = &mut self.state else { return };
        if state.engine.next_sync() {
            self.durable.due.get_or_insert_with(Instant::now);
        }
        let Some(since) = self.durable.due else { return };
        // What a batch of an earlier life does is durable only when it is over.
        if self.durable.batches > 0 && since.elapsed() < EARLIER_MAX {
            return;
        }
        self.durable.due = None;
        let root = state.root.clone();
        let job = match self.durable.unsynced.take() {
            Some((id, unsynced)) => {
                self.durable.batch_given();
                Job::SyncBatch(root, id, unsynced)
            }
            None => Job::Sync(root),
        };
        self.give(job);
    }

    /// A batch was carried out.
    pub(super) fn handle_applied(&mut self, id: u64, applied: Result<Vec<DiskOutcome>, Unsynced>) -> Result<(), TreeError> {
        let Some(state) = &mut self.state else { return Ok(()) };
        match applied {
            Ok(outcomes) => {
                state.engine.handle_batch(id, outcomes)?;
                self.lan.tell_came();
                self.fetcher.prefetches.batch_done();
            }
            Err(unsynced) => {
                state.engine.handle_unsynced(id, unsynced.obstacle())?;
                self.durable.unsynced = Some((id, unsynced));
            }
        }
        Ok(())
    }
}
