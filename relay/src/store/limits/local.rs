//! The counters of one process: the relay without Redis, and what remains when Redis is gone.

use super::{LimitStore, Meter, MeterKey};
use crate::store::StoreError;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most entries of each kind; the older half is forgotten beyond it.
const ENTRIES_MAX: usize = 50_000;
const MINUTE_MS: f64 = 60_000.0;

/// Counters in memory.
#[derive(Debug, Default)]
pub struct LocalLimits(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: HashMap<MeterKey, Bucket>,
    pauses: HashMap<MeterKey, Pause>,
    /// Until when each mark stands.
    marks: HashMap<MeterKey, i64>,
}

/// What still counts, draining.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    count: u32,
    at_ms: i64,
}

#[async_trait]
impl LimitStore for LocalLimits {
    async fn wait_ms(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError> {
        Ok(self.inner().wait_ms(meters, now_ms))
    }

    async fn count(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError> {
        let mut inner = self.inner();
        let wait_ms = inner.wait_ms(meters, now_ms);
        if wait_ms == 0 {
            meters.iter().for_each(|meter| inner.add(meter, now_ms));
        }
        Ok(wait_ms)
    }

    async fn give_back(&self, meters: &[Meter], now_ms: i64) -> Result<(), StoreError> {
        let mut inner = self.inner();
        meters.iter().for_each(|meter| inner.take_back(meter, now_ms));
        Ok(())
    }

    async fn clear_and_mark(&self, clear: MeterKey, mark: MeterKey, mark_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.pauses.remove(&clear);
        inner.buckets.remove(&clear);
        forget_oldest(&mut inner.marks, |until_ms| *until_ms);
        inner.marks.insert(mark, now_ms.saturating_add(mark_ms));
        Ok(())
    }
}

impl LocalLimits {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counts stay usable after a panic elsewhere; refusing to count would open the door.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wait_ms(&self, meters: &[Meter], now_ms: i64) -> i64 {
        meters.iter().map(|meter| self.wait_of(meter, now_ms)).max().unwrap_or(0).max(0)
    }

    fn wait_of(&self, meter: &Meter, now_ms: i64) -> i64 {
        match *meter {
            Meter::Bucket { key, per_minute } => {
                let rate = f64::from(per_minute);
                let level = self.buckets.get(&key).map_or(0.0, |b| level_at(b, rate, now_ms));
                // The tolerance swallows what rounding leaves over.
                ((level + 1.0 - rate - 1e-6).max(0.0) * MINUTE_MS / rate).ceil() as i64
            }
            Meter::Pause { key, free, first_ms, max_ms, memory_ms, unless } => {
                let Some(pause) = self.pauses.get(&key).filter(|p| now_ms - p.at_ms <= memory_ms) else { return 0 };
                if self.marks.get(&unless).is_some_and(|until_ms| now_ms < *until_ms) {
                    return 0;
                }
                match pause.count.checked_sub(free) {
                    None => 0,
                    Some(over) => pause.at_ms + (first_ms << over.min(16)).min(max_ms) - now_ms,
                }
            }
        }
    }

    fn add(&mut self, meter: &Meter, now_ms: i64) {
        match *meter {
            Meter::Bucket { key, per_minute } => {
                forget_oldest(&mut self.buckets, |b| b.at_ms);
                let bucket = self.buckets.entry(key).or_insert(Bucket { level: 0.0, at_ms: now_ms });
                let level = level_at(bucket, f64::from(per_minute), now_ms) + 1.0;
                *bucket = Bucket { level, at_ms: now_ms.max(bucket.at_ms) };
            }
            Meter::Pause { key, memory_ms, .. } => {
                forget_oldest(&mut self.pauses, |p| p.at_ms);
                let pause = self.pauses.entry(key).or_insert(Pause { count: 0, at_ms: now_ms });
                let count = if now_ms - pause.at_ms > memory_ms { 0 } else { pause.count };
                *pause = Pause { count: count.saturating_add(1), at_ms: now_ms.max(pause.at_ms) };
            }
        }
    }

    fn take_back(&mut self, meter: &Meter, now_ms: i64) {
        match *meter {
            Meter::Bucket { key, per_minute } => {
                if let Some(bucket) = self.buckets.get_mut(&key) {
                    let level = (level_at(bucket, f64::from(per_minute), now_ms) - 1.0).max(0.0);
                    *bucket = Bucket { level, at_ms: now_ms.max(bucket.at_ms) };
                }
            }
            Meter::Pause { key, .. } => {
                if let Some(pause) = self.pauses.get_mut(&key) {
                    pause.count = pause.count.saturating_sub(1);
                }
            }
        }
    }
}

fn level_at(bucket: &Bucket, per_minute: f64, now_ms: i64) -> f64 {
    let passed_ms = (now_ms - bucket.at_ms).max(0) as f64;
    (bucket.level - passed_ms * per_minute / MINUTE_MS).max(0.0)
}

fn forget_oldest<V>(map: &mut HashMap<MeterKey, V>, at_ms: impl Fn(&V) -> i64) {
    if map.len() < ENTRIES_MAX {
        return;
    }
    let mut times: Vec<i64> = map.values().map(&at_ms).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    map.retain(|_, v| at_ms(v) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_bounded() {
        let limits = LocalLimits::default();
        let key = |i: i64| {
            let mut key = MeterKey::default();
            key[..8].copy_from_slice(&i.to_be_bytes());
            key
        };
        for i in 0..ENTRIES_MAX as i64 + 10 {
            let pause = Meter::Pause { key: key(i), free: 1, first_ms: 1, max_ms: 1, memory_ms: 1_000_000, unless: key(-1) };
            limits.count(&[Meter::Bucket { key: key(i), per_minute: 1 }, pause], i).await.unwrap();
            limits.clear_and_mark(key(-2), key(i), 1, i).await.unwrap();
        }
        let inner = limits.inner();
        let sizes = [inner.buckets.len(), inner.pauses.len(), inner.marks.len()];
        assert!(sizes.iter().all(|n| (ENTRIES_MAX / 2..=ENTRIES_MAX).contains(n)), "{sizes:?}");
    }
}
