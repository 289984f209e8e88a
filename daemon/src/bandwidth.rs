//! Limits on bytes per second, up and down, that can change while transfers run.
//!
//! [`Bucket`] is the arithmetic, with time passed in; [`Limiter`] waits by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A bucket holds at most this much time's worth of bytes: a pause is not saved up for later.
const BURST: Duration = Duration::from_millis(250);
/// A waiter looks again at least this often, so that a very low rate stays adjustable.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A token bucket that may go into debt: a piece is never cut for it, the next one waits longer.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Option<u64>,
    /// Bytes that may go now; negative after a piece that was larger.
    available: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket for `rate` bytes per second; nothing means no limit. A rate of 0 lets nothing through.
    pub fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut bucket = Self { rate, available: 0.0, filled_at: now };
        bucket.available = bucket.capacity();
        bucket
    }

    fn capacity(&self) -> f64 {
        self.rate.unwrap_or(0) as f64 * BURST.as_secs_f64()
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.available = (self.available + elapsed * self.rate.unwrap_or(0) as f64).min(self.capacity());
    }

    /// Changes the rate. A debt of the old rate is forgiven.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.available = self.available.clamp(0.0, self.capacity());
    }

    /// The rate in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Takes `bytes` if the bucket is not in debt; otherwise says how long to wait before asking again.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.fill(now);
        if rate > 0 && self.available >= 0.0 {
            self.available -= bytes as f64;
            return Ok(());
        }
        let wait = if rate == 0 { WAIT_MAX.as_secs_f64() } else { -self.available / rate as f64 };
        Err(Duration::from_secs_f64(wait.clamp(0.001, WAIT_MAX.as_secs_f64())))
    }
}

/// A limit shared by all transfers of one direction. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limiter {
    bucket: Arc<Mutex<Bucket>>,
    changed: Arc<Notify>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Limiter {
    /// A limit in bytes per second; nothing means no limit.
    pub fn new(rate: Option<u64>) -> Self {
        Self { bucket: Arc::new(Mutex::new(Bucket::new(rate, Instant::now()))), changed: Arc::new(Notify::new()) }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rate; transfers that wait go by the new one at once.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.bucket().set_rate(rate, Instant::now());
        self.changed.notify_waiters();
    }

    /// The rate in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.bucket().rate()
    }

    /// Returns when `bytes` may go.
    pub async fn acquire(&self, bytes: usize) {
        loop {
            // Registered before the bucket is asked, so that a change in between is not missed.
            let changed = self.changed.notified();
            let asked = self.bucket().take(bytes as u64, Instant::now());
            let Err(wait) = asked else { return };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces as fast as the bucket lets them for `seconds`, and gives the bytes.
    fn sent(bucket: &mut Bucket, start: Instant, seconds: u64, piece: u64) -> u64 {
        let (mut now, mut bytes) = (start, 0);
        while now < start + Duration::from_secs(seconds) {
            match bucket.take(piece, now) {
                Ok(()) => bytes += piece,
                Err(wait) => now += wait,
            }
        }
        bytes
    }

    #[test]
    fn the_rate_is_kept_for_small_and_large_pieces() {
        let start = Instant::now();
        for piece in [1_000, 65_536, 1_000_000] {
            let mut bucket = Bucket::new(Some(100_000), start);
            let bytes = sent(&mut bucket, start, 100, piece);
            assert!((9_000_000..=10_100_000 + piece).contains(&bytes), "{piece}: {bytes}");
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1_000), start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(250, later), Ok(()));
        assert_eq!(bucket.take(1, later), Ok(()));
        assert!(bucket.take(1, later).is_err());
    }

    #[test]
    fn no_limit_never_waits_and_zero_lets_nothing_through() {
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        assert!((0..1000).all(|_| bucket.take(u64::MAX, now).is_ok()));
        bucket.set_rate(Some(0), now);
        assert!(bucket.take(1, now + Duration::from_secs(10)).is_err());
        bucket.set_rate(Some(10), now);
        assert!(bucket.take(1, now).is_ok());
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_gives_nothing_away() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut bucket = Bucket::new(Some(1_000), now);
        bucket.take(10_000, now).unwrap();
        assert!(bucket.take(1, now).is_err());
        assert!(bucket.take(1, now - Duration::from_secs(50)).is_err());
        assert!(bucket.take(1, now + Duration::from_secs(10)).is_ok());
    }

    #[tokio::test]
    async fn raising_the_limit_wakes_a_waiter() {
        let limiter = Limiter::new(Some(0));
        let waiter = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.acquire(1 << 20).await }
        });
        tokio::task::yield_now().await;
        limiter.set_rate(None);
        tokio::time::timeout(Duration::from_secs(30), waiter).await.unwrap().unwrap();
        assert_eq!(limiter.rate(), None);
    }
}
