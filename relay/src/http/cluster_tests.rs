//! Two processes of one relay: what one knows the other must not contradict, with Redis and without it (R5, R7, A1).

use super::content_tests::{Answer, User, World};
use super::socket_tests::{Socket, serve};
use crate::clock::ManualClock;
use crate::config::{Config, Redis};
use crate::service::accounts::CACHE_MS;
use crate::store::Health;
use crate::store::redis::server::Server;
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Pair {
    a: World,
    b: World,
    clock: ManualClock,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Self {
        let (server, dir, clock) = (Server::start(), tempfile::tempdir().unwrap(), ManualClock::at(1_800_000_000_000));
        let config = Config { data: dir.path().into(), redis: Redis { url: server.url() }, ..Config::default() };
        let a = World::one_of_many(&config, clock.clone()).await;
        let b = World::one_of_many(&config, clock.clone()).await;
        Self { a, b, clock, server, _dir: dir }
    }

    /// Waits until both processes say of Redis that it is well, or that it is not.
    async fn until_redis_is(&self, well: bool) {
        let began = Instant::now();
        for world in [&self.a, &self.b] {
            while (world.app.shared.health().await == Some(Health::Good)) != well {
                assert!(began.elapsed() < PATIENCE, "Redis is not {}", if well { "well" } else { "gone" });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn socket(world: &World, user: &User) -> Socket {
    let at = serve(&world.app).await;
    let (status, mut socket) = Socket::open(at, &user.id.to_string(), &[("Authorization", &format!("Bearer {}", user.token))]).await;
    assert_eq!(status, 101);
    socket.until(b"\"hello\"").await;
    socket
}

async fn wrong_login(world: &World, email: &str) -> Answer {
    let body = json!({"email": email, "password": "not the password"}).to_string();
    world.send(Request::post("/auth/login").header("content-type", "application/json").body(Body::from(body)).unwrap()).await
}

/// Asks until the answer is this one: word of a change is on its way.
async fn until_status(world: &World, user: &User, status: u16) {
    let began = Instant::now();
    while world.get(user, "/auth/verify").await.status != status {
        assert!(began.elapsed() < PATIENCE, "the other process does not hear of it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_commit_through_one_process_wakes_the_sockets_of_the_other() {
    let pair = Pair::new().await;
    let alice = pair.a.user(1).await;
    let mut there = socket(&pair.b, &alice).await;
    pair.a.upload(&alice, "f", b"x").await;
    there.until(b"\"file_change\"").await;
    assert_eq!(pair.b.get(&alice, "/metadata/files").await.json()["files"][0]["file_name"], "f", "and the other process has it");
}

/// R06, R21: the clock stands still, so what a process remembers would be good for ever.
#[tokio::test]
async fn what_one_process_revokes_is_dead_in_the_other_at_once() {
    let pair = Pair::new().await;
    for (n, by) in [(1, "logout"), (2, "password"), (3, "device"), (4, "session"), (5, "lock"), (6, "deletion")] {
        let (alice, mal) = (pair.a.user(n).await, pair.a.user(n + 100).await);
        let other = pair.a.device(&alice, n + 50).await;
        let there = socket(&pair.b, &alice).await;
        let mut stranger = socket(&pair.b, &mal).await;
        for user in [&alice, &mal] {
            assert_eq!(pair.b.get(user, "/auth/verify").await.status, 200, "the other process remembers the session");
        }
        let status = match by {
            "logout" => pair.a.call(&alice, Method::POST, "/auth/logout", &[], "").await.status,
            "password" => {
                let body = json!({"current_password": super::content_tests::PASSWORD, "new_password": "another good one"});
                pair.a.json(&other, Method::POST, "/auth/password/change", body).await.status
            }
            "device" => pair.a.call(&other, Method::DELETE, &format!("/api/v1/devices/{}", alice.device), &[], "").await.status,
            "session" => {
                let sessions = pair.a.get(&alice, "/api/v1/me/sessions").await.json();
                let own = sessions["sessions"].as_array().unwrap().iter().find(|s| s["current"] == true).unwrap();
                pair.a
                    .call(&other, Method::DELETE, &format!("/api/v1/me/sessions/{}", own["session_id"].as_str().unwrap()), &[], "")
                    .await
                    .status
            }
            "lock" => {
                let change = crate::store::accounts::UserChange { disabled: Some(true), ..Default::default() };
                pair.a.app.accounts.update_user(alice.id, &change).await.map(|_| 204).unwrap()
            }
            _ => pair.a.app.accounts.delete_user(alice.id).await.map(|()| 204).unwrap(),
        };
        assert_eq!(status, 204, "{by}");
        until_status(&pair.b, &alice, 401).await;
        assert_eq!(there.end().await, Some(4401), "{by}: its socket is closed");
        assert_eq!(pair.b.get(&mal, "/auth/verify").await.status, 200);
        pair.a.upload(&mal, "f", b"x").await;
        stranger.until(b"\"file_change\"").await;
    }
}

/// R09, R11: guesses through either process count together.
#[tokio::test]
async fn guesses_count_together_and_without_redis_still_count() {
    let mut pair = Pair::new().await;
    let alice = pair.a.user(1).await;
    for world in [&pair.a, &pair.b, &pair.a, &pair.b, &pair.a] {
        assert_eq!(wrong_login(world, "nobody@example.org").await.status, 401);
    }
    for world in [&pair.a, &pair.b] {
        assert_eq!(wrong_login(world, "nobody@example.org").await.status, 429);
    }
    pair.server.stop();
    pair.until_redis_is(false).await;
    let mut through = 0;
    for _ in 0..20 {
        for world in [&pair.a, &pair.b] {
            through += usize::from(wrong_login(world, "nobody@example.org").await.status == 401);
        }
    }
    assert!((1..=10).contains(&through), "each process has a bucket of five and no more: {through}");
    for world in [&pair.a, &pair.b] {
        assert_eq!(world.get(&alice, "/auth/verify").await.status, 200, "whoever is in stays in");
    }
}

/// Slower, still correct: without Redis a revocation holds after [`CACHE_MS`], and when it is back sockets are told that they missed something.
#[tokio::test]
async fn redis_may_go_and_come_back() {
    let mut pair = Pair::new().await;
    let (alice, bob) = (pair.a.user(1).await, pair.a.user(2).await);
    let mut there = socket(&pair.b, &alice).await;
    assert_eq!(pair.b.get(&bob, "/auth/verify").await.status, 200);
    pair.server.stop();
    pair.until_redis_is(false).await;
    let ready = pair.b.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "it serves on, and says how");
    assert_eq!(ready.json()["checks"]["redis"]["degraded"], true);
    pair.a.upload(&alice, "f", b"x").await;
    assert_eq!(pair.b.get(&alice, "/metadata/files").await.json()["files"][0]["file_name"], "f", "whoever asks is told the truth");
    pair.a.call(&bob, Method::POST, "/auth/logout", &[], "").await;
    pair.clock.advance_ms(CACHE_MS);
    assert_eq!(pair.b.get(&bob, "/auth/verify").await.status, 401);
    pair.server.resume();
    there.until(b"\"gap\"").await;
    pair.until_redis_is(true).await;
    pair.a.upload(&alice, "g", b"y").await;
    there.until(b"\"file_change\"").await;
    let ready = pair.b.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
}
