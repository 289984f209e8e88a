//! Redis as it is in operation: shared by several processes, gone in the middle, full of what others wrote.

use super::bus::RedisBus;
use super::limits::RedisLimits;
use super::server::Server;
use super::*;
use crate::store::bus::contract::{PATIENCE, a_bus_carries_wakes, a_slow_listener_learns_that_it_missed_something, feed, next};
use crate::store::bus::{Bus, Heard};
use crate::store::limits::contract::{limits_are_kept, many_at_once_get_no_more};
use crate::store::limits::{LimitStore, Meter};
use std::sync::Arc;

async fn link(server: &Server) -> Arc<Link> {
    Arc::new(Link::open(&server.url(), "r").await.unwrap())
}

async fn bus(server: &Server, sender: u8) -> RedisBus {
    RedisBus::open(link(server).await, [sender; 8]).await
}

/// Waits for a condition; fails after a long time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_bus_of_two_processes() {
    let server = Server::start();
    let (a, b) = (bus(&server, 1).await, bus(&server, 2).await);
    a_bus_carries_wakes(&a, &b).await;
    a_bus_carries_wakes(&b, &b).await;
    a_slow_listener_learns_that_it_missed_something(&a).await;
}

#[tokio::test]
async fn another_relay_on_the_same_server_hears_nothing() {
    let server = Server::start();
    let ours = bus(&server, 1).await;
    let other = RedisBus::open(Arc::new(Link::open(&server.url(), "other").await.unwrap()), [2; 8]).await;
    let (mut wakes, mut echo) = (other.subscribe(), ours.subscribe());
    ours.publish(feed(1));
    assert!(ours.flush(PATIENCE).await);
    other.publish(feed(2));
    assert_eq!((next(&mut wakes).await, next(&mut echo).await), (Heard::Wake(feed(2)), Heard::Wake(feed(1))));
    assert_eq!(wakes.next_now(), None);
}

#[tokio::test]
async fn garbage_on_the_channel_is_ignored() {
    let server = Server::start();
    let (bus, stranger) = (bus(&server, 1).await, link(&server).await);
    let mut wakes = bus.subscribe();
    let long = vec![1; 1 << 20];
    for payload in [&b""[..], b"x", b"{\"version\":1}", &[1; 9], &[1; 10], &[2; 40], &[255; 64], &long] {
        stranger.ask::<i64>(redis::cmd("PUBLISH").arg(stranger.name("wake")).arg(payload)).await.unwrap();
    }
    let other = RedisBus::open(stranger, [2; 8]).await;
    other.publish(feed(7));
    assert_eq!(next(&mut wakes).await, Heard::Wake(feed(7)), "what is no message of ours wakes nobody and breaks nothing");
}

#[tokio::test]
async fn after_a_gap_every_listener_is_told() {
    let mut server = Server::start();
    let (a, b) = (bus(&server, 1).await, bus(&server, 2).await);
    let (mut own, mut there) = (a.subscribe(), b.subscribe());
    server.stop();
    until("both notice", || a.health() != Health::Good && b.health() != Health::Good).await;
    a.publish(feed(1));
    assert_eq!(next(&mut own).await, Heard::Wake(feed(1)), "listeners of the same process hear at once");
    assert!(!a.flush(PATIENCE).await, "and nobody claims that the others were told");
    assert_eq!(there.next_now(), None);
    server.resume();
    assert_eq!(next(&mut there).await, Heard::Missed);
    assert_eq!(next(&mut own).await, Heard::Missed);
    until("both are well again", || a.health() == Health::Good && b.health() == Health::Good).await;
    b.publish(feed(2));
    while next(&mut own).await != Heard::Wake(feed(2)) {}
}

#[tokio::test]
async fn a_subscription_that_only_looks_alive_is_made_anew() {
    let server = Server::start();
    let (a, b) = (bus(&server, 1).await, bus(&server, 2).await);
    let mut there = b.subscribe();
    let operator = link(&server).await;
    let killed: i64 = operator.ask(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await.unwrap();
    assert_eq!(killed, 2);
    assert_eq!(next(&mut there).await, Heard::Missed);
    a.publish(feed(3));
    while next(&mut there).await != Heard::Wake(feed(3)) {}
}

#[tokio::test]
async fn the_limits_of_many_processes() {
    let server = Server::start();
    limits_are_kept(&RedisLimits::new(link(&server).await)).await;
    let each: Vec<Arc<dyn LimitStore>> =
        vec![Arc::new(RedisLimits::new(link(&server).await)), Arc::new(RedisLimits::new(link(&server).await))];
    many_at_once_get_no_more(&each).await;
}

/// R11: gone, hanging, or holding nonsense, Redis never opens the door.
#[tokio::test]
async fn without_redis_each_process_limits_for_itself() {
    let mut server = Server::start();
    let (a, b) = (RedisLimits::new(link(&server).await), RedisLimits::new(link(&server).await));
    let five = [Meter::Bucket { key: [1; 16], per_minute: 5 }];
    for _ in 0..5 {
        assert_eq!(a.count(&five, 0).await.unwrap(), 0);
    }
    assert!(b.wait_ms(&five, 0).await.unwrap() > 0, "shared");
    server.stop();
    assert!(a.count(&five, 0).await.unwrap() > 0, "it remembers what it counted");
    for _ in 0..5 {
        assert_eq!(b.count(&five, 0).await.unwrap(), 0, "a bucket of its own");
    }
    assert!(b.count(&five, 0).await.unwrap() > 0);
    server.resume();
    let began = Instant::now();
    while b.link.ping().await != Health::Good {
        assert!(began.elapsed() < PATIENCE, "it comes back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..5 {
        assert_eq!(b.count(&five, 0).await.unwrap(), 0, "the server began anew");
    }
    assert!(a.wait_ms(&five, 0).await.unwrap() > 0, "and is shared again");
    // Somebody else's value under our name: the script fails, the local count holds.
    let name = b.name([2; 16]);
    b.link.ask::<()>(redis::cmd("SET").arg(&name).arg("nonsense")).await.unwrap();
    let two = [Meter::Bucket { key: [2; 16], per_minute: 2 }];
    assert_eq!(b.count(&two, 0).await.unwrap() + b.count(&two, 0).await.unwrap(), 0);
    assert!(b.count(&two, 0).await.unwrap() > 0);
}

/// K08: emptied or full, the server costs time only.
#[tokio::test]
async fn a_server_that_is_emptied_or_full_breaks_nothing() {
    let server = Server::start();
    let (a, b) = (bus(&server, 1).await, bus(&server, 2).await);
    let (limits, mut there) = (RedisLimits::new(link(&server).await), b.subscribe());
    let one = [Meter::Bucket { key: [4; 16], per_minute: 1 }];
    assert_eq!(limits.count(&one, 0).await.unwrap(), 0);
    limits.link.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction")).await.unwrap();
    limits.link.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1")).await.unwrap();
    assert!(limits.link.ask::<()>(redis::cmd("SET").arg("x").arg("y")).await.is_err(), "it is full");
    assert!(limits.count(&one, 0).await.unwrap() > 0, "what was counted counts");
    let other = [Meter::Bucket { key: [5; 16], per_minute: 1 }];
    assert_eq!(limits.count(&other, 0).await.unwrap(), 0);
    assert!(limits.count(&other, 0).await.unwrap() > 0, "counted here");
    assert!(limits.wait_ms(&other, 0).await.unwrap() > 0, "and who asks first is told so: a full server answers that nothing was counted");
    limits.link.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0")).await.unwrap();
    assert_eq!(limits.count(&[Meter::Bucket { key: [6; 16], per_minute: 1 }], 0).await.unwrap(), 0, "it counts again");
    assert!(limits.wait_ms(&other, 0).await.unwrap() > 0, "what was counted here counts until it has drained");
    // From then on the other processes' word alone is good.
    let elsewhere = RedisLimits::new(link(&server).await);
    let pause = |key| Meter::Pause { key: [key; 16], free: 1, first_ms: 600_000, max_ms: 600_000, memory_ms: 900_000, unless: [8; 16] };
    assert_eq!(limits.count(&[pause(7)], 0).await.unwrap(), 0);
    elsewhere.clear_and_mark([7; 16], [9; 16], 1, 0).await.unwrap();
    assert!(limits.wait_ms(&[pause(7)], 59_999).await.unwrap() > 0);
    assert_eq!(limits.wait_ms(&[pause(7)], 60_000).await.unwrap(), 0);
    limits.link.ask::<()>(&redis::cmd("FLUSHALL")).await.unwrap();
    a.publish(feed(1));
    assert_eq!(next(&mut there).await, Heard::Wake(feed(1)), "wake-ups go on");
}

#[tokio::test]
async fn a_server_that_hangs_costs_little() {
    let server = Server::start();
    let limits = RedisLimits::new(link(&server).await);
    let operator = Client::open(server.url()).unwrap();
    let mut sleeper = operator.get_multiplexed_async_connection().await.unwrap();
    let asleep = tokio::spawn(async move { redis::cmd("DEBUG").arg("SLEEP").arg("4").query_async::<()>(&mut sleeper).await });
    until("it hangs", || !asleep.is_finished()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let one = [Meter::Bucket { key: [3; 16], per_minute: 1 }];
    assert_eq!(limits.count(&one, 0).await.unwrap(), 0);
    assert!(limits.count(&one, 0).await.unwrap() > 0, "counted here");
    assert!(matches!(limits.link.ping().await, Health::Degraded(_)));
}

#[tokio::test]
async fn keys_show_nothing_and_end() {
    let server = Server::start();
    let limits = RedisLimits::new(link(&server).await);
    let pause = Meter::Pause { key: [2; 16], free: 1, first_ms: 1, max_ms: 1, memory_ms: 900_000, unless: [3; 16] };
    limits.count(&[Meter::Bucket { key: [1; 16], per_minute: 5 }, pause], 0).await.unwrap();
    limits.clear_and_mark([9; 16], [3; 16], i64::MAX, 0).await.unwrap();
    let names: Vec<String> = limits.link.ask(redis::cmd("KEYS").arg("*")).await.unwrap();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        assert!(name.starts_with("ferry:r:limit:"), "{name}");
        assert!(limits.link.ask::<i64>(redis::cmd("PTTL").arg(&name)).await.unwrap() > 0, "{name} has an end");
    }
}

#[tokio::test]
async fn a_server_that_refuses_us_stops_the_start_and_no_word_holds_the_password() {
    let server = Server::start();
    let operator = link(&server).await;
    operator.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("right-secret")).await.unwrap();
    let with = |password: &str| server.url().replace("redis://", &format!("redis://:{password}@"));
    assert!(Link::open(&with("right-secret"), "r").await.is_ok());
    for url in [server.url(), with("wrong-secret")] {
        let why = Link::open(&url, "r").await.err().unwrap();
        assert!(why.contains("refuses") && !why.contains("secret"), "{why}");
    }
    for url in ["rediss://:secret@h", "http://:secret@h", "redis://:secret@h:port", "secret", ""] {
        let why = check_url(url).unwrap_err();
        assert!(!why.contains("secret"), "{why}");
    }
    // Nobody there: the relay starts, and says what is worse.
    let gone = Link::open("redis://:secret@127.0.0.1:1", "r").await.unwrap();
    assert!(matches!(gone.ping().await, Health::Degraded(why) if !why.contains("secret")));
}
