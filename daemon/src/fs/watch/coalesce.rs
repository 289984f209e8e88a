//! From single events to batches of hints. Pure: time is passed in, as milliseconds of any clock that does not run backwards.
//!
//! * **W1** A path that was signalled is hinted at, within [`WRITING_MAX_MS`] plus [`GAP_MAX_MS`] plus [`BATCH_MAX_MS`].
//! * **W2** A path that changes all the time is hinted at most once per [`GAP_MAX_MS`] in the long run.
//! * **W3** A change at rest is hinted after [`CALM_MS`].

use ferry_protocol::RelPath;
use std::collections::{BTreeMap, BTreeSet};

/// A batch goes out after so long without a further path, in milliseconds.
pub const CALM_MS: u64 = 25;
/// A batch goes out after so long, in milliseconds, however many paths follow.
pub const BATCH_MAX_MS: u64 = 150;
/// A file that is written to counts as resting after so long without a write, in milliseconds, even if it stays open.
pub const WRITING_REST_MS: u64 = 300;
/// A file that is written to without a rest is taken all the same after so long, in milliseconds.
pub const WRITING_MAX_MS: u64 = 3_000;
/// The least time between two hints at one path: nothing at first, longer the longer it changes without a rest; in milliseconds.
const GAPS_MS: [u64; 6] = [0, 250, 500, 1_000, 2_000, GAP_MAX_MS];
/// The longest time between two hints at a path that changes all the time, in milliseconds.
pub const GAP_MAX_MS: u64 = 3_000;
/// A second change later than this begins anew with the shortest gap, in milliseconds.
const STREAK_MS: u64 = 1_000;
/// More paths at one time are given up for one rescan: memory is bounded (I14).
pub const PATHS_MAX: usize = 50_000;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// An entry came, went, or got other attributes.
    Changed(RelPath),
    /// A file was written to; it may still be open.
    Writing(RelPath),
    /// A file that was open for writing was closed.
    Closed(RelPath),
    /// A directory came, with all that is in it.
    Tree(RelPath),
}

/// What to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Entries to look at, sorted.
    pub paths: Vec<RelPath>,
    /// Directories to walk with all that is in them, sorted; none lies in another, no path lies in one.
    pub trees: Vec<RelPath>,
    /// There was more than can be told: look at everything.
    pub everything: bool,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since_ms: u64,
    due_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    hinted_ms: u64,
    streak: usize,
}

/// Collects signals until a batch of them is worth a look.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Paths that rest, with the time of their first signal.
    ready: BTreeMap<RelPath, u64>,
    trees: BTreeSet<RelPath>,
    /// First and newest addition to the two sets above.
    ready_ms: Option<(u64, u64)>,
    waiting: BTreeMap<RelPath, Waiting>,
    by_due: BTreeSet<(u64, RelPath)>,
    recent: BTreeMap<RelPath, Recent>,
    by_hint: BTreeSet<(u64, RelPath)>,
    everything: bool,
}

impl Coalescer {
    /// Takes in what happened.
    pub fn signal(&mut self, now_ms: u64, signal: Signal) {
        if self.ready.len() + self.waiting.len() + self.trees.len() >= PATHS_MAX {
            self.give_up();
        }
        match signal {
            // A change of attributes, or the event of its creation, does not end the writing.
            Signal::Changed(path) if self.waiting.contains_key(&path) => {}
            Signal::Changed(path) => self.settle(now_ms, path, now_ms),
            Signal::Closed(path) => {
                let since = self.stop_waiting(&path).map_or(now_ms, |w| w.since_ms);
                self.settle(now_ms, path, since);
            }
            Signal::Writing(path) => {
                // Opened and closed again and again, it is still taken in time: what counts is its first signal.
                let waited = self.stop_waiting(&path).map(|w| w.since_ms);
                let since_ms = self.ready.remove(&path).or(waited).unwrap_or(now_ms);
                if self.ready.is_empty() && self.trees.is_empty() {
                    self.ready_ms = None;
                }
                let rest = (now_ms + WRITING_REST_MS).min(since_ms + WRITING_MAX_MS);
                let due_ms = rest.max(self.earliest(&path)).max(now_ms);
                self.wait(path, Waiting { since_ms, due_ms });
            }
            Signal::Tree(path) => {
                self.trees.insert(path);
                self.added(now_ms);
            }
        }
    }

    /// The batch that is due, if one is. Call again until there is none.
    pub fn poll(&mut self, now_ms: u64) -> Option<Batch> {
        let mut overdue = self.everything;
        while let Some((due_ms, path)) = self.by_due.first().cloned().filter(|(due_ms, _)| *due_ms <= now_ms) {
            let since_ms = self.stop_waiting(&path).map_or(due_ms, |w| w.since_ms);
            self.ready.insert(path, since_ms);
            self.ready_ms.get_or_insert((due_ms, due_ms));
            overdue = true;
        }
        let (first_ms, newest_ms) = if overdue { (now_ms, now_ms) } else { self.ready_ms? };
        if !overdue && now_ms < newest_ms + CALM_MS && now_ms < first_ms + BATCH_MAX_MS {
            return None;
        }
        self.ready_ms = None;
        let mut trees: Vec<RelPath> = Vec::new();
        for tree in std::mem::take(&mut self.trees) {
            // In this order a directory stands right before what is in it.
            if !trees.last().is_some_and(|above| tree.starts_with(above)) {
                trees.push(tree);
            }
        }
        let within = |path: &RelPath| {
            let before = trees.partition_point(|tree| tree <= path);
            before > 0 && path.starts_with(&trees[before - 1])
        };
        let (inside, paths): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ready).into_keys().partition(within);
        for path in inside.iter().chain(&paths) {
            self.remember(now_ms, path);
        }
        self.forget(now_ms);
        Some(Batch { paths, trees, everything: std::mem::take(&mut self.everything) })
    }

    /// Everything that was signalled, at rest or not.
    pub fn take(&mut self, now_ms: u64) -> Batch {
        for path in self.waiting.keys().cloned().collect::<Vec<_>>() {
            let since_ms = self.stop_waiting(&path).map_or(now_ms, |w| w.since_ms);
            self.ready.insert(path, since_ms);
        }
        // Long ago: what is ready is due.
        self.ready_ms = Some((0, 0));
        self.poll(now_ms.max(BATCH_MAX_MS)).unwrap_or_default()
    }

    /// When [`Coalescer::poll`] should be called next, in milliseconds; never, if nothing waits.
    pub fn next_ms(&self) -> Option<u64> {
        let ready = self.ready_ms.map(|(first, newest)| (newest + CALM_MS).min(first + BATCH_MAX_MS));
        let waiting = self.by_due.first().map(|(due, _)| *due);
        let soonest = ready.into_iter().chain(waiting).min();
        if self.everything { Some(0) } else { soonest }
    }

    /// How many paths are held.
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting.len() + self.trees.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.everything
    }

    fn added(&mut self, now_ms: u64) {
        let (first, _) = self.ready_ms.unwrap_or((now_ms, now_ms));
        self.ready_ms = Some((first, now_ms));
    }

    /// The path rests: it is ready, unless it was hinted at too recently.
    fn settle(&mut self, now_ms: u64, path: RelPath, since_ms: u64) {
        let earliest = self.earliest(&path);
        if earliest > now_ms {
            self.wait(path, Waiting { since_ms, due_ms: earliest });
        } else {
            self.ready.entry(path).or_insert(since_ms);
            self.added(now_ms);
        }
    }

    fn earliest(&self, path: &RelPath) -> u64 {
        self.recent.get(path).map_or(0, |recent| recent.hinted_ms + GAPS_MS[recent.streak.min(GAPS_MS.len() - 1)])
    }

    fn wait(&mut self, path: RelPath, waiting: Waiting) {
        self.by_due.insert((waiting.due_ms, path.clone()));
        self.waiting.insert(path, waiting);
    }

    fn stop_waiting(&mut self, path: &RelPath) -> Option<Waiting> {
        let waiting = self.waiting.remove(path)?;
        self.by_due.remove(&(waiting.due_ms, path.clone()));
        Some(waiting)
    }

    fn remember(&mut self, now_ms: u64, path: &RelPath) {
        let streak = match self.recent.get(path) {
            Some(recent) => {
                self.by_hint.remove(&(recent.hinted_ms, path.clone()));
                let gap = GAPS_MS[recent.streak.min(GAPS_MS.len() - 1)];
                if now_ms - recent.hinted_ms < STREAK_MS.max(2 * gap) { recent.streak + 1 } else { 0 }
            }
            None => 0,
        };
        self.recent.insert(path.clone(), Recent { hinted_ms: now_ms, streak: streak.max(1) });
        self.by_hint.insert((now_ms, path.clone()));
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some((hinted_ms, path)) = self.by_hint.first().cloned() {
            if hinted_ms + 2 * GAP_MAX_MS > now_ms && self.recent.len() <= PATHS_MAX {
                return;
            }
            self.by_hint.remove(&(hinted_ms, path.clone()));
            self.recent.remove(&path);
        }
    }

    fn give_up(&mut self) {
        *self = Self { everything: true, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rel(path: &str) -> RelPath {
        RelPath::parse(path.as_bytes()).unwrap()
    }

    /// Lets the time pass to the end; the batches, each with its time.
    fn run(coalescer: &mut Coalescer, until_ms: u64) -> Vec<(u64, Batch)> {
        let mut out = Vec::new();
        while let Some(next) = coalescer.next_ms().filter(|next| *next <= until_ms) {
            match coalescer.poll(next) {
                Some(batch) => out.push((next, batch)),
                None => assert!(coalescer.next_ms().is_none_or(|later| later > next), "no progress at {next}"),
            }
        }
        out
    }

    fn feed(signals: &[(u64, Signal)], until_ms: u64) -> Vec<(u64, Batch)> {
        let (mut coalescer, mut out) = (Coalescer::default(), Vec::new());
        for (at, signal) in signals {
            out.extend(run(&mut coalescer, *at));
            coalescer.signal(*at, signal.clone());
        }
        out.extend(run(&mut coalescer, until_ms));
        out
    }

    #[test]
    fn a_saved_file_is_hinted_at_once_it_is_closed() {
        let f = || rel("f");
        let got = feed(&[(10, Signal::Changed(f())), (11, Signal::Writing(f())), (12, Signal::Closed(f()))], 10_000);
        assert_eq!(got, [(12 + CALM_MS, Batch { paths: vec![f()], ..Batch::default() })]);
    }

    #[test]
    fn a_burst_flows_in_batches() {
        let signals: Vec<_> = (0..1000).map(|i| (i, Signal::Changed(rel(&format!("f{i}"))))).collect();
        let got = feed(&signals, 10_000);
        assert!(got.len() >= 6, "{}", got.len());
        assert_eq!(got[0].0, BATCH_MAX_MS);
        assert_eq!(got.iter().map(|(_, b)| b.paths.len()).sum::<usize>(), 1000);
    }

    #[test]
    fn a_file_that_is_written_all_the_time_is_taken_now_and_then() {
        let signals: Vec<_> = (0..300).map(|i| (i * 100, Signal::Writing(rel("log")))).collect();
        let got = feed(&signals, 60_000);
        assert!((10..=14).contains(&got.len()), "{}", got.len());
        assert_eq!(got[0].0, WRITING_MAX_MS);
        assert!(got.last().unwrap().0 >= 29_900);
        // Opened and closed for each line.
        let line = |i: u64| [(i * 10, Signal::Writing(rel("log"))), (i * 10 + 1, Signal::Closed(rel("log")))];
        let got = feed(&(0..1000).flat_map(line).collect::<Vec<_>>(), 60_000);
        assert!((3..=9).contains(&got.len()), "{got:?}");
        let signals: Vec<_> = (0..300).map(|i| (i * 100, Signal::Closed(rel("log")))).collect();
        let got = feed(&signals, 60_000);
        assert!((10..=18).contains(&got.len()), "{}", got.len());
        assert!(got.last().unwrap().0 >= 29_900);
    }

    #[test]
    fn saves_some_seconds_apart_are_not_held_back() {
        let signals: Vec<_> = (0..10).map(|i| (i * 2_000, Signal::Closed(rel("f")))).collect();
        let got = feed(&signals, 60_000);
        assert_eq!(got.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (0..10).map(|i| i * 2_000 + CALM_MS).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_in_a_new_directory_is_told_once() {
        let signals = ["d/s", "d", "d/s/t", "e"].map(|t| (5, Signal::Tree(rel(t))));
        let paths = ["d/x", "d2", "d", "c"].map(|p| (6, Signal::Changed(rel(p))));
        let got = feed(&[signals, paths].concat(), 1_000);
        let batch = Batch { paths: vec![rel("c"), rel("d2")], trees: vec![rel("d"), rel("e")], everything: false };
        assert_eq!(got, [(6 + CALM_MS, batch)]);
    }

    #[test]
    fn too_much_becomes_one_rescan() {
        let signals: Vec<_> = (0..PATHS_MAX + 10).map(|i| (1, Signal::Writing(rel(&format!("f{i}"))))).collect();
        let got = feed(&signals, 20_000);
        assert!(got.iter().any(|(_, b)| b.everything));
        assert!(got.iter().all(|(_, b)| b.paths.len() < PATHS_MAX));
    }

    fn signal() -> impl Strategy<Value = Signal> {
        let path = || (0u8..6).prop_map(|i| rel(["a", "b", "d", "d/a", "d/s", "d/s/x"][i as usize]));
        prop_oneof![
            path().prop_map(Signal::Changed),
            path().prop_map(Signal::Writing),
            path().prop_map(Signal::Closed),
            path().prop_map(Signal::Tree),
        ]
    }

    proptest! {
        #[test]
        fn every_signal_is_followed_by_a_hint_in_time(steps in proptest::collection::vec((0u64..400, signal()), 1..80)) {
            let (mut now, mut signals) = (0, Vec::new());
            for (wait, signal) in steps {
                now += wait;
                signals.push((now, signal));
            }
            let bound = WRITING_MAX_MS + GAP_MAX_MS + BATCH_MAX_MS;
            let got = feed(&signals, now + 2 * bound);
            for (at, signal) in &signals {
                let (Signal::Changed(path) | Signal::Writing(path) | Signal::Closed(path) | Signal::Tree(path)) = signal;
                let covers = |batch: &Batch| batch.everything || batch.paths.contains(path) || batch.trees.iter().any(|t| path.starts_with(t));
                prop_assert!(got.iter().any(|(hinted, batch)| hinted >= at && *hinted <= at + bound && covers(batch)), "{signal:?} at {at}");
            }
            for (_, batch) in &got {
                prop_assert!(!batch.paths.is_empty() || !batch.trees.is_empty() || batch.everything);
                prop_assert!(batch.paths.iter().all(|p| !batch.trees.iter().any(|t| p.starts_with(t))));
                prop_assert!(batch.paths.is_sorted() && batch.trees.is_sorted());
            }
        }
    }
}
