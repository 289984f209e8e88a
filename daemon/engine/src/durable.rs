//! A sync that is owed: what stands on the disk, and might be gone after a power cut (I7).
//!
//! * **When the engine is opened** one is owed, as whoever ran before may have died between a change and its sync. Until it succeeds nothing is
//!   looked at and nothing is changed: what is not looked at is not taken for done.
//! * **When the hands could not make a batch durable** the batch stays under way ([`Engine::handle_unsynced`]). What is seen at its places does not
//!   count meanwhile, as with every batch (see `overlap`), and there is no other one; what a user writes elsewhere is taken in.
//!
//! It is tried again after growing pauses. A sync that succeeds after one that failed proves that what is there now stays, not that what was written
//! is there: a kernel forgets what it could not write. So the hands look at the places of the batch again before they answer it, and the engine at
//! everything ([`seen_again`] is the law of it).

use crate::disk::{DiskAction, DiskOutcome, Obstacle, Stat};
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
    /// Something else was changed meanwhile that is to be made durable too: a sync that succeeds now may have begun before.
    all: bool,
}

impl Owed {
    /// What is owed when the engine is opened.
    pub fn at_first() -> Self {
        Self { batch: None, failed: None, at: RelPath::root(), until_ms: 0, tries: 0, is_under_way: false, all: false }
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
        match &mut self.owed {
            Some(owed) => owed.all = true,
            None => self.owe(None, obstacle),
        }
    }

    /// Why what was changed on this disk cannot be made durable, if a sync failed and none has succeeded since.
    pub fn sync_obstacle(&self) -> Option<Obstacle> {
        self.owed.as_ref().and_then(|owed| owed.failed.as_ref()).map(|(obstacle, _)| *obstacle)
    }

    /// Whether the disk is still asked to keep what was written before, and nothing is known of its answer.
    pub fn waits_for_disk(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.failed.is_none())
    }

    /// A batch was answered: what was owed for it was done.
    pub(crate) fn end_sync_of(&mut self, id: u64) {
        if self.owed.as_ref().is_some_and(|owed| owed.batch == Some(id)) {
            self.end_sync();
        }
    }

    /// Whether nothing may be looked at, because it might not outlive a crash. Meanwhile nothing is to be heard either: what was done here before is to be
    /// known before it is weighed against what others did (CR3).
    pub fn may_not_look(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.batch.is_none() || owed.all) && !self.planted(Planted::AdoptsUnsynced)
    }

    fn owe(&mut self, batch: Option<u64>, obstacle: Obstacle) {
        // A batch that takes the place of a sync of everything settles only its own.
        let all = batch.is_some() && self.owed.as_ref().is_some_and(|owed| owed.all || owed.batch.is_none());
        let tries = self.owed.as_ref().filter(|owed| owed.batch == batch && owed.failed.is_some()).map_or(0, |owed| owed.tries + 1);
        let until_ms = self.now_ms + crate::backoff::pause_ms(&self.policy, tries);
        let message = format!("what was changed on this disk could not be made durable and does not count yet: {}", obstacle.sentence());
        let issue = Issue { code: obstacle.code(), message, hint: obstacle.hint() };
        let failed = Some((obstacle, issue));
        self.owed = Some(Owed { batch, failed, at: RelPath::root(), until_ms, tries, is_under_way: false, all });
    }

    fn end_sync(&mut self) {
        let Some(owed) = self.owed.take() else { return };
        if owed.all {
            self.owed = Some(Owed { batch: None, until_ms: self.now_ms, tries: 0, is_under_way: false, all: false, ..owed });
        } else if owed.failed.is_some() {
            self.rescan();
        }
    }
}

/// The outcomes of a batch that could be made durable only later, by what is `now` there. What a kernel forgot is as it was before the batch: the old
/// thing stands there, or nothing does. Anything else is somebody's work since, and is found as an edit of what we had put there. What somebody deleted
/// looks like what was forgotten, and is put again.
///
/// A place that a later action of the batch took, or moved away with what is above it, stands as that one does.
pub fn seen_again(
    actions: &[DiskAction],
    mut outcomes: Vec<DiskOutcome>,
    mut now: impl FnMut(&RelPath) -> Option<Stat>,
) -> Vec<DiskOutcome> {
    let was_done: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, DiskOutcome::Done(_))).collect();
    let count = actions.len().min(outcomes.len());
    for at in (0..count).rev().filter(|at| was_done[*at]) {
        let path = actions[at].path();
        let later = (at + 1..count).find(|later| was_done[*later] && takes(&actions[*later], path));
        let now = now(path);
        let stands = match (later, &outcomes[at], &now) {
            (Some(later), ..) => matches!(outcomes[later], DiskOutcome::Done(_)),
            (None, DiskOutcome::Done(Some(was)), Some(now)) if was.same_inode(now) => true,
            (None, DiskOutcome::Done(was), Some(now)) => !before(&actions[at], was.as_ref()).is_some_and(|old| old.same_inode(now)),
            (None, DiskOutcome::Done(was), None) => was.is_none(),
            (None, ..) => false,
        };
        if !stands {
            outcomes[at] = DiskOutcome::Stale(now);
        }
    }
    outcomes
}

/// What stood where an action left something, or nothing, before it.
fn before<'a>(action: &'a DiskAction, was: Option<&Stat>) -> Option<&'a Stat> {
    match action {
        DiskAction::PutFile { expect, .. } | DiskAction::PutLink { expect, .. } => expect.as_ref(),
        DiskAction::Remove { expect, .. } => Some(expect).filter(|_| was.is_none()),
        DiskAction::MakeDir { .. } | DiskAction::Move { .. } | DiskAction::SetAttributes { .. } => None,
    }
}

/// Whether an action changes what stands at a path, or leads to it.
fn takes(action: &DiskAction, path: &RelPath) -> bool {
    let from = match action {
        DiskAction::Move { from, .. } => Some(from),
        _ => None,
    };
    path.starts_with(action.path()) || from.is_some_and(|from| path.starts_with(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Kind;

    fn stat(ino: u64) -> Stat {
        Stat { dev: 1, ino, birth_ns: None, kind: Kind::File, size: 1, mtime_ns: 0, ctime_ns: 0, mode: 0o644, links: 1 }
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn put(at: &str, expect: Option<Stat>) -> DiskAction {
        DiskAction::PutFile { path: path(at), expect, content: ferry_protocol::ContentHash::of(b"x"), mode: 0o644, mtime_ns: 0 }
    }

    fn again(actions: &[DiskAction], outcomes: Vec<Option<Stat>>, now: &[(&str, u64)]) -> Vec<DiskOutcome> {
        let outcomes = outcomes.into_iter().map(DiskOutcome::Done).collect();
        seen_again(actions, outcomes, |at| now.iter().find(|(name, _)| path(name) == *at).map(|(_, inode)| stat(*inode)))
    }

    #[test]
    fn what_a_kernel_forgot_is_stale_and_what_a_person_did_since_is_found_as_an_edit() {
        let replaced = [put("f", Some(stat(1)))];
        assert_eq!(again(&replaced, vec![Some(stat(2))], &[("f", 2)]), [DiskOutcome::Done(Some(stat(2)))]);
        assert_eq!(again(&replaced, vec![Some(stat(2))], &[("f", 1)]), [DiskOutcome::Stale(Some(stat(1)))], "forgotten");
        assert_eq!(again(&replaced, vec![Some(stat(2))], &[("f", 3)]), [DiskOutcome::Done(Some(stat(2)))], "saved over it");
        assert_eq!(again(&[put("f", None)], vec![Some(stat(2))], &[]), [DiskOutcome::Stale(None)], "forgotten or deleted: put again");
        let removed = [DiskAction::Remove { path: path("f"), expect: stat(1) }];
        assert_eq!(again(&removed, vec![None], &[]), [DiskOutcome::Done(None)]);
        assert_eq!(again(&removed, vec![None], &[("f", 1)]), [DiskOutcome::Stale(Some(stat(1)))], "forgotten");
        assert_eq!(again(&removed, vec![None], &[("f", 3)]), [DiskOutcome::Done(None)], "another one");
    }

    #[test]
    fn a_sync_of_everything_stays_owed_when_a_batch_fails_too() {
        let author = ferry_protocol::Author { device: ferry_protocol::DeviceId::default(), name: std::sync::Arc::from("T") };
        let trees = crate::memory::MemoryTrees::new(ferry_protocol::ReplicaId::default());
        let mut engine = Engine::open(trees, author, crate::Policy::default()).unwrap();
        assert!(engine.next_sync());
        engine.handle_sync(Ok(()));
        assert!(!engine.may_not_look(), "nothing is owed");
        engine.plans.batch = Some((7, Vec::new()));
        engine.owe_sync(Obstacle::Io);
        engine.handle_unsynced(7, Obstacle::Io).unwrap();
        assert!(engine.may_not_look(), "the batch took its place");
        engine.handle_batch(7, Vec::new()).unwrap();
        assert!(engine.may_not_look(), "a sync that settles the batch settles no more");
        engine.set_time(1 << 30, 0);
        assert!(engine.next_sync());
        engine.handle_sync(Ok(()));
        assert!(!engine.may_not_look() && engine.sync_obstacle().is_none());
    }

    #[test]
    fn a_place_that_the_batch_used_again_stands_as_its_last_use_does() {
        let swap =
            [DiskAction::Remove { path: path("f"), expect: stat(1) }, DiskAction::Move { from: path("g"), expect: stat(2), to: path("f") }];
        assert_eq!(again(&swap, vec![None, Some(stat(2))], &[("f", 2)]), [DiskOutcome::Done(None), DiskOutcome::Done(Some(stat(2)))]);
        let lost = again(&swap, vec![None, Some(stat(2))], &[]);
        assert!(lost.iter().all(|outcome| matches!(outcome, DiskOutcome::Stale(None))), "{lost:?}");
        let moved = [put("d/f", None), DiskAction::Move { from: path("d"), expect: stat(5), to: path("e") }];
        let stands = again(&moved, vec![Some(stat(2)), Some(stat(5))], &[("e", 5)]);
        assert_eq!(stands, [DiskOutcome::Done(Some(stat(2))), DiskOutcome::Done(Some(stat(5)))]);
    }
}
