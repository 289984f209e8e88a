//! How often one device may announce itself.

use crate::service::shared::Shared;
use crate::service::{ServiceError, ServiceResult};
use crate::store::limits::Meter;
use ferry_protocol::DeviceId;

/// Announcements of one device in a minute. It makes about two, and one more for each change.
const PER_MINUTE: u32 = 60;

/// Counts one; refuses when there were too many.
pub(super) async fn step(shared: &Shared, device: DeviceId, now_ms: i64) -> ServiceResult<()> {
    let bucket = Meter::Bucket { key: shared.meter_key("announce", device.as_bytes()), per_minute: PER_MINUTE };
    match shared.limits.count(&[bucket], now_ms).await? {
        0 => Ok(()),
        wait_ms => Err(ServiceError::too_many(wait_ms.unsigned_abs().div_ceil(1000))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_device_has_its_own_pace() {
        let shared = Shared::local([7; 32]);
        let (a, b) = (DeviceId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        for _ in 0..PER_MINUTE {
            step(&shared, a, 60_000).await.unwrap();
        }
        assert_eq!(step(&shared, a, 60_000).await.unwrap_err().retry_after_s(), Some(1));
        step(&shared, b, 60_000).await.unwrap();
        step(&shared, a, 61_000).await.unwrap();
        assert!(step(&shared, a, 0).await.is_err(), "a clock that was set back opens nothing");
        step(&shared, a, 120_000).await.unwrap();
    }
}
