//! What is on its way, for people: transfers by path, and how fast bytes move.

use super::{Direction, PendingBytes, Rates, Transfer, Via};
use ferry_protocol::RelPath;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(2);

/// Transfers of one folder. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    under_way: Mutex<BTreeMap<u64, Entry>>,
    next: AtomicU64,
    /// Bytes of contents since the start: sent, received.
    moved: [AtomicU64; 2],
}

struct Entry {
    path: RelPath,
    direction: Direction,
    total_bytes: u64,
    done_bytes: Arc<AtomicU64>,
    /// Of those, how many came from devices nearby.
    lan_bytes: Arc<AtomicU64>,
}

/// One transfer; it is over when this is dropped.
pub(super) struct Moving {
    shared: Arc<Shared>,
    number: u64,
    direction: Direction,
    done_bytes: Arc<AtomicU64>,
    lan_bytes: Arc<AtomicU64>,
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::Upload => 0,
        Direction::Download => 1,
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        // Whole between any two statements.
        self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer begins.
    pub fn begin(&self, path: RelPath, direction: Direction, total_bytes: u64) -> Moving {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (done_bytes, lan_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let entry = Entry { path, direction, total_bytes, done_bytes: done_bytes.clone(), lan_bytes: lan_bytes.clone() };
        self.lock().insert(number, entry);
        Moving { shared: self.shared.clone(), number, direction, done_bytes, lan_bytes }
    }

    /// Bytes that moved without a transfer of their own.
    pub fn moved(&self, direction: Direction, bytes: u64) {
        self.shared.moved[side(direction)].fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is under way, the oldest first.
    pub fn transfers(&self) -> Vec<Transfer> {
        let transfer = |entry: &Entry| {
            let done_bytes = entry.done_bytes.load(Ordering::Relaxed).min(entry.total_bytes);
            let lan_bytes = entry.lan_bytes.load(Ordering::Relaxed).min(done_bytes);
            let via = if lan_bytes * 2 > done_bytes { Via::Lan } else { Via::Relay };
            let via = (done_bytes > 0).then_some(via);
            Transfer { path: entry.path.clone(), direction: entry.direction, via, total_bytes: entry.total_bytes, done_bytes, lan_bytes }
        };
        self.lock().values().map(transfer).collect()
    }

    /// Bytes that are still to move in what is under way.
    pub fn left(&self) -> PendingBytes {
        let mut left = PendingBytes::default();
        for entry in self.lock().values() {
            let bytes = entry.total_bytes.saturating_sub(entry.done_bytes.load(Ordering::Relaxed));
            match entry.direction {
                Direction::Upload => left.upload += bytes,
                Direction::Download => left.download += bytes,
            }
        }
        left
    }
}

impl Moving {
    /// So many bytes were there without moving.
    pub fn is_there(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more bytes are there, and how they came.
    pub fn add(&self, bytes: u64, via: Via) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        if via == Via::Lan {
            self.lan_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.shared.moved[side(self.direction)].fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Measures rates from samples.
#[derive(Default)]
pub(super) struct Meter {
    samples: std::collections::VecDeque<(Instant, [u64; 2])>,
}

impl Meter {
    /// The rates over the last seconds, as of now.
    pub fn sample(&mut self, progress: &Progress, now: Instant) -> Rates {
        let moved = [0, 1].map(|i: usize| progress.shared.moved[i].load(Ordering::Relaxed));
        self.samples.push_back((now, moved));
        // One sample older than the window stays: the rate is measured from it.
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        let Some((from, before)) = self.samples.front() else { return Rates::default() };
        let seconds = now.duration_since(*from).max(WINDOW).as_secs_f64();
        let rate = |i: usize| ((moved[i] - before[i]) as f64 / seconds) as u64;
        Rates { up_bytes_per_s: rate(0), down_bytes_per_s: rate(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_shown_while_they_last_and_rates_fall_to_nothing() {
        let (progress, mut meter, start) = (Progress::default(), Meter::default(), Instant::now());
        assert_eq!(meter.sample(&progress, start), Rates::default());
        let path = RelPath::parse(b"a/b").unwrap();
        let moving = progress.begin(path.clone(), Direction::Download, 100);
        moving.add(40, Via::Lan);
        progress.moved(Direction::Upload, 20);
        let shown = progress.transfers();
        assert_eq!((shown.len(), shown[0].done_bytes, shown[0].total_bytes), (1, 40, 100));
        assert_eq!(progress.left(), PendingBytes { upload: 0, download: 60 });
        let rates = meter.sample(&progress, start + Duration::from_secs(2));
        assert_eq!(rates, Rates { up_bytes_per_s: 10, down_bytes_per_s: 20 });
        drop(moving);
        assert!(progress.transfers().is_empty());
        for second in 3..9 {
            meter.sample(&progress, start + Duration::from_secs(second));
        }
        assert_eq!(meter.sample(&progress, start + Duration::from_secs(9)), Rates::default());
    }
}
