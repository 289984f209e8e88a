//! What every bus must do, run against each implementation (R6).

use super::*;

/// Longer than anything here takes.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::store) fn feed(seq: u64) -> Wake {
    Wake::feed(NamespaceId::from_bytes([1; 16]), seq)
}

pub(in crate::store) async fn next(wakes: &mut Wakes) -> Heard {
    tokio::time::timeout(PATIENCE, wakes.next()).await.expect("it comes").expect("the bus is there")
}

/// `here` publishes, `there` listens; both may be the same bus.
pub(in crate::store) async fn a_bus_carries_wakes(here: &dyn Bus, there: &dyn Bus) {
    here.publish(feed(1));
    assert!(here.flush(PATIENCE).await);
    let (mut a, mut b, mut own) = (there.subscribe(), there.subscribe(), here.subscribe());
    // What was published before may still be on its way; it is a hint, no more.
    let every = [
        feed(2),
        feed(u64::MAX),
        Wake::peers(NamespaceId::from_bytes([2; 16]), None),
        Wake::peers(NamespaceId::from_bytes([2; 16]), Some(DeviceId::from_bytes([3; 16]))),
        Wake::access(UserId::from_bytes([4; 16])),
    ];
    every.iter().for_each(|wake| here.publish(*wake));
    for listener in [&mut a, &mut b, &mut own] {
        let mut heard = next(listener).await;
        while heard == Heard::Wake(feed(1)) {
            heard = next(listener).await;
        }
        for wake in &every {
            assert_eq!(heard, Heard::Wake(*wake), "each wake-up once, in order");
            if *wake != every[every.len() - 1] {
                heard = next(listener).await;
            }
        }
        assert_eq!(listener.next_now(), None, "and nothing else");
    }
    assert_eq!(here.health(), Health::Good);
}

/// A listener that does not listen is told that it missed something, and publishing never waits for it.
pub(in crate::store) async fn a_slow_listener_learns_that_it_missed_something(bus: &dyn Bus) {
    let mut slow = bus.subscribe();
    for seq in 0..3 * QUEUE_MAX as u64 {
        bus.publish(feed(seq));
    }
    assert_eq!(next(&mut slow).await, Heard::Missed);
    assert!(matches!(next(&mut slow).await, Heard::Wake(_)), "and hears what came last");
}

#[tokio::test]
async fn the_bus_of_one_process() {
    let bus = LocalBus::default();
    a_bus_carries_wakes(&bus, &bus).await;
    a_slow_listener_learns_that_it_missed_something(&bus).await;
}
