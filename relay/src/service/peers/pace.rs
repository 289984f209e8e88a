//! How often one device may announce itself.

use ferry_protocol::DeviceId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Announcements of one device in a minute. It makes about two, and one more for each change.
const PER_MINUTE: u32 = 60;
const MINUTE_MS: i64 = 60_000;
/// Most devices that are counted; beyond it counting begins anew.
const DEVICES_MAX: usize = 50_000;

/// Counts announcements, in this process.
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<DeviceId, (i64, u32)>>);

impl Pace {
    /// Counts one; an error says in how many seconds the next may come.
    pub(super) fn step(&self, device: DeviceId, now_ms: i64) -> Result<(), u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= DEVICES_MAX && !counts.contains_key(&device) {
            counts.clear();
        }
        let (since_ms, count) = counts.entry(device).or_insert((now_ms, 0));
        if !(0..MINUTE_MS).contains(&(now_ms - *since_ms)) {
            (*since_ms, *count) = (now_ms, 0);
        }
        if *count >= PER_MINUTE {
            return Err((*since_ms + MINUTE_MS - now_ms).unsigned_abs().div_ceil(1000));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_its_own_pace() {
        let pace = Pace::default();
        let (a, b) = (DeviceId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        assert!((0..PER_MINUTE).all(|_| pace.step(a, 0).is_ok()));
        assert_eq!(pace.step(a, 1_000), Err(59));
        assert_eq!(pace.step(b, 1_000), Ok(()));
        assert_eq!(pace.step(a, MINUTE_MS), Ok(()));
        assert_eq!(pace.step(a, 0), Ok(()), "a clock that was set back locks nobody out");
    }
}
