//! Counters that bound how often something is tried, shared by all processes of a relay. The numbers are the service's; here is only how they are kept.

#[cfg(test)]
pub(super) mod contract;
pub mod local;

use super::StoreError;
use async_trait::async_trait;

/// The name of a counter: a keyed hash of what is counted (an address, an account), so that no store shows which.
pub type MeterKey = [u8; 16];

/// One counter and its rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meter {
    /// A bucket that drains evenly: so many a minute.
    Bucket {
        /// Its name.
        key: MeterKey,
        /// How many it holds, and how many drain from it in a minute.
        per_minute: u32,
    },
    /// A pause that doubles with each count after the first few.
    Pause {
        /// Its name.
        key: MeterKey,
        /// Counts before pauses begin.
        free: u32,
        /// The first pause, in milliseconds.
        first_ms: i64,
        /// The longest pause, in milliseconds.
        max_ms: i64,
        /// After this long without a count it begins anew, in milliseconds.
        memory_ms: i64,
        /// While this mark stands the pause does not hold.
        unless: MeterKey,
    },
}

/// Keeps counters. Time is the caller's, in milliseconds since 1970; one that was set back drains nothing.
#[async_trait]
pub trait LimitStore: Send + Sync + 'static {
    /// How long until each of these meters takes one more, in milliseconds; 0 is now.
    async fn wait_ms(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError>;
    /// The same; if the answer is 0, counts one in each. Of many at once no more than fit are counted.
    async fn count(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError>;
    /// Takes one back from each, whose count was no failure after all; an empty one stays empty.
    async fn give_back(&self, meters: &[Meter], now_ms: i64) -> Result<(), StoreError>;
    /// Forgets the count of one name and sets a mark of another, for `mark_ms`.
    async fn clear_and_mark(&self, clear: MeterKey, mark: MeterKey, mark_ms: i64, now_ms: i64) -> Result<(), StoreError>;
}
