//! A sync that is owed: what stands on the disk, and might be gone after a power cut (I7).
//!
//! * **When the engine is opened** one is owed, as whoever ran before may have died between a change and its sync. Until it succeeds nothing is
//!   looked at and nothing is changed: what is not looked at is not taken for done.
//! * **When the hands could not make a batch durable** the batch stays under way ([`Engine::handle_unsynced`]). What is seen at its places does not
//!   count meanwhile, as with every batch (see `overlap`), and there is no other one; what a user writes elsewhere is taken in.
//!
//! It is tried again after growing pauses. A sync that succeeds after one that failed proves that what is there now stays, not that what was written
//! is there: a kernel forgets what it could not write. So the hands look at the places of the batch again before they answer it, and the engine at
//! everything.

use crate::disk::{DiskOutcome, Obstacle};
use crate::engine::{Engine, Issue};
use crate::policy::Planted;
use crate::trees::{Result, Trees};
use ferry_protocol::RelPath;

/// A sync that is owed.
#[derive(Debug)]
pub(crate) struct Owed {
    /// The batch that is to be made durable; nothing for all that there is.
    batch: Option<u64>,
    /// Why the last try failed, and what a person is told.
    failed: Option<(Obstacle, Issue)>,
    /// Under which path that is told: the folder itself.
    at: RelPath,
    until_ms: u64,
    tries: u32,
    /// The hands are at it.
    is_under_way: bool,
}

impl Owed {
    /// What is owed when the engine is opened.
    pub fn at_first() -> Self {
        Self { batch: None, failed: None, at: RelPath::root(), until_ms: 0, tries: 0, is_under_way: false }
    }

    /// When it is due.
    pub fn deadline_ms(&self) -> Option<u64> {
        (!self.is_under_way).then_some(self.until_ms)
    }

    /// It is due now.
    pub fn hurry(&mut self, now_ms: u64) {
        self.until_ms = self.until_ms.min(now_ms);
    }

    /// What a person is told.
    pub fn issue(&self) -> Option<(&RelPath, &Issue)> {
        self.failed.as_ref().map(|(_, issue)| (&self.at, issue))
    }
}

impl<T: Trees> Engine<T> {
    /// Whether the hands are to try a sync now: of the batch that was answered with [`Engine::handle_unsynced`], else of the whole folder, to be
    /// answered with [`Engine::handle_sync`].
    pub fn next_sync(&mut self) -> bool {
        let now = self.now_ms;
        match &mut self.owed {
            Some(owed) if !owed.is_under_way && owed.until_ms <= now => {
                owed.is_under_way = true;
                true
            }
            _ => false,
        }
    }

    /// The whole folder was made durable, or not.
    pub fn handle_sync(&mut self, result: std::result::Result<(), Obstacle>) {
        match (result, &self.owed) {
            (_, None | Some(Owed { batch: Some(_), .. })) => {}
            (Ok(()), Some(_)) => self.end_sync(),
            (Err(obstacle), Some(_)) => self.owe(None, obstacle),
        }
    }

    /// The batch was carried out, but could not be made durable. It stays under way: the same batch is to be tried again when
    /// [`Engine::next_sync`] says so, and is answered with [`Engine::handle_batch`] once that has succeeded.
    pub fn handle_unsynced(&mut self, id: u64, obstacle: Obstacle) -> Result<()> {
        let Some(actions) = self.plans.batch.as_ref().filter(|(expected, _)| *expected == id).map(|(_, actions)| actions.len()) else {
            return Ok(());
        };
        if self.planted(Planted::AdoptsUnsynced) {
            return self.handle_batch(id, vec![DiskOutcome::Blocked(obstacle); actions]);
        }
        self.owe(Some(id), obstacle);
        Ok(())
    }

    /// Something was changed here for a person that could not be made durable: nothing is looked at before a sync of the whole folder succeeds.
    pub fn owe_sync(&mut self, obstacle: Obstacle) {
        if self.owed.is_none() {
            self.owe(None, obstacle);
        }
    }

    /// Why what was changed on this disk cannot be made durable, if a sync failed and none has succeeded since.
    pub fn sync_obstacle(&self) -> Option<Obstacle> {
        self.owed.as_ref().and_then(|owed| owed.failed.as_ref()).map(|(obstacle, _)| *obstacle)
    }

    /// A batch was answered: what was owed for it was done.
    pub(crate) fn end_sync_of(&mut self, id: u64) {
        if self.owed.as_ref().is_some_and(|owed| owed.batch == Some(id)) {
            self.end_sync();
        }
    }

    /// Whether nothing may be looked at, because it might not outlive a crash.
    pub(crate) fn may_not_look(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.batch.is_none()) && !self.planted(Planted::AdoptsUnsynced)
    }

    fn owe(&mut self, batch: Option<u64>, obstacle: Obstacle) {
        let tries = self.owed.as_ref().filter(|owed| owed.batch == batch && owed.failed.is_some()).map_or(0, |owed| owed.tries + 1);
        let until_ms = self.now_ms + crate::backoff::pause_ms(&self.policy, tries);
        let message = format!("what was changed on this disk could not be made durable and does not count yet: {}", obstacle.sentence());
        let issue = Issue { code: obstacle.code(), message, hint: obstacle.hint() };
        let failed = Some((obstacle, issue));
        self.owed = Some(Owed { batch, failed, at: RelPath::root(), until_ms, tries, is_under_way: false });
    }

    fn end_sync(&mut self) {
        if self.owed.take().is_some_and(|owed| owed.failed.is_some()) {
            self.rescan();
        }
    }
}
