//! What every store of counters must do, run against each implementation (R6).

use super::local::LocalLimits;
use super::*;
use std::sync::Arc;

const T0: i64 = 1_800_000_000_000;
const MINUTE_MS: i64 = 60_000;

fn key(byte: u8) -> MeterKey {
    [byte; 16]
}

fn bucket(byte: u8, per_minute: u32) -> Meter {
    Meter::Bucket { key: key(byte), per_minute }
}

fn pause(byte: u8) -> Meter {
    Meter::Pause { key: key(byte), free: 3, first_ms: 1000, max_ms: MINUTE_MS, memory_ms: 15 * MINUTE_MS, unless: key(byte + 1) }
}

/// Takes and gives up counters of fresh names, so that it can run on a server that others use.
pub(in crate::store) async fn limits_are_kept(limits: &dyn LimitStore) {
    a_bucket_holds_so_many_and_drains(limits).await;
    a_pause_doubles_and_ends(limits).await;
    all_or_none_is_counted(limits).await;
    what_was_no_failure_is_given_back(limits).await;
}

async fn a_bucket_holds_so_many_and_drains(limits: &dyn LimitStore) {
    let five = [bucket(10, 5)];
    for _ in 0..5 {
        assert_eq!(limits.wait_ms(&five, T0).await.unwrap(), 0, "looking counts nothing");
        assert_eq!(limits.count(&five, T0).await.unwrap(), 0);
    }
    assert_eq!(limits.wait_ms(&five, T0).await.unwrap(), 12_000);
    assert_eq!(limits.count(&five, T0).await.unwrap(), 12_000);
    assert_eq!(limits.count(&[bucket(11, 5)], T0).await.unwrap(), 0, "another name, another bucket");
    assert_eq!(limits.wait_ms(&five, T0 + 11_999).await.unwrap(), 1);
    assert_eq!(limits.count(&five, T0 + 12_000).await.unwrap(), 0);
    assert_eq!(limits.wait_ms(&five, T0 + 12_000).await.unwrap(), 12_000);
    assert_eq!(limits.wait_ms(&five, T0).await.unwrap(), 12_000, "a clock that was set back drains nothing");
    assert_eq!(limits.wait_ms(&five, T0 + 10 * MINUTE_MS).await.unwrap(), 0);
    assert_eq!(limits.wait_ms(&[], T0).await.unwrap(), 0);
}

async fn what_was_no_failure_is_given_back(limits: &dyn LimitStore) {
    let both = [bucket(60, 3), pause(61)];
    limits.give_back(&both, T0).await.unwrap();
    for _ in 0..3 {
        assert_eq!(limits.count(&both, T0).await.unwrap(), 0, "what is empty stays empty");
    }
    assert_eq!(limits.count(&both, T0).await.unwrap(), 20_000);
    limits.give_back(&both, T0).await.unwrap();
    assert_eq!(limits.wait_ms(&both[1..], T0).await.unwrap(), 0);
    assert_eq!(limits.count(&both, T0).await.unwrap(), 0);
    assert_eq!(limits.count(&both, T0).await.unwrap(), 20_000);
    assert_eq!(limits.wait_ms(&both[1..], T0).await.unwrap(), 1000);
}

async fn a_pause_doubles_and_ends(limits: &dyn LimitStore) {
    let account = [pause(20)];
    let mut now_ms = T0;
    for _ in 0..3 {
        assert_eq!(limits.count(&account, now_ms).await.unwrap(), 0);
    }
    for wanted_ms in [1000, 2000, 4000, 8000, 16_000, 32_000, MINUTE_MS, MINUTE_MS, MINUTE_MS] {
        assert_eq!(limits.wait_ms(&account, now_ms).await.unwrap(), wanted_ms);
        assert_eq!(limits.count(&account, now_ms + wanted_ms - 1).await.unwrap(), 1, "refused, and not counted");
        now_ms += wanted_ms;
        assert_eq!(limits.count(&account, now_ms).await.unwrap(), 0);
    }
    // The mark lifts the pause for as long as it stands.
    limits.clear_and_mark(key(29), key(21), 5000, now_ms).await.unwrap();
    assert_eq!(limits.wait_ms(&account, now_ms + 4999).await.unwrap(), 0);
    assert_eq!(limits.wait_ms(&account, now_ms + 5000).await.unwrap(), MINUTE_MS - 5000);
    limits.clear_and_mark(key(20), key(28), 1, now_ms).await.unwrap();
    assert_eq!(limits.wait_ms(&account, now_ms + 5000).await.unwrap(), 0, "cleared");
    for _ in 0..3 {
        assert_eq!(limits.count(&[pause(24)], now_ms).await.unwrap(), 0);
    }
    assert_eq!(limits.wait_ms(&[pause(24)], now_ms).await.unwrap(), 1000);
    let later_ms = now_ms + 16 * MINUTE_MS;
    assert_eq!(limits.count(&[pause(24)], later_ms).await.unwrap(), 0);
    assert_eq!(limits.wait_ms(&[pause(24)], later_ms).await.unwrap(), 0, "it began anew");
}

async fn all_or_none_is_counted(limits: &dyn LimitStore) {
    let (small, large) = (bucket(30, 1), bucket(31, 10));
    assert_eq!(limits.count(&[small, large], T0).await.unwrap(), 0);
    for _ in 0..20 {
        assert_eq!(limits.count(&[small, large], T0).await.unwrap(), MINUTE_MS, "the longest wait counts");
    }
    for _ in 0..9 {
        assert_eq!(limits.count(&[large], T0).await.unwrap(), 0, "what was refused was not counted elsewhere");
    }
    assert!(limits.count(&[large], T0).await.unwrap() > 0);
}

/// `each` are several ways to one set of counters: of many at once no more than fit get through.
pub(in crate::store) async fn many_at_once_get_no_more(each: &[Arc<dyn LimitStore>]) {
    let tasks: Vec<_> = (0..100)
        .map(|i| {
            let limits = each[i % each.len()].clone();
            tokio::spawn(async move { limits.count(&[bucket(40, 7)], T0).await.unwrap() == 0 })
        })
        .collect();
    let mut through = 0;
    for task in tasks {
        through += usize::from(task.await.unwrap());
    }
    assert_eq!(through, 7);
}

#[tokio::test]
async fn the_limits_of_one_process() {
    limits_are_kept(&LocalLimits::default()).await;
    many_at_once_get_no_more(&[Arc::new(LocalLimits::default())]).await;
}
