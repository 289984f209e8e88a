//! Callers who are slow, silent or many, over real connections (R54, R64): each is let go, and whoever comes after them is answered. How long that takes
//! is not looked at; the limits are short here.

use super::content_tests::{PASSWORD, World};
use super::patience::Patience;
use super::socket_tests::{Socket, serve};
use super::*;
use crate::config::Config;
use crate::store::bus::Wake;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::ContentHash;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a caller who means well needs less than, on a busy machine too.
const SHORT: Duration = Duration::from_millis(1500);
/// Between two bytes of a caller who drips.
const DRIP: Duration = Duration::from_millis(20);

/// A relay that waits as long as this.
async fn world(kind: Db, patience: Patience) -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { data: dir.path().into(), database: kind.config(dir.path()), ..Config::default() };
    let mut app = App::open(&config).await.unwrap();
    app.patience = patience;
    let app = AppState::new(app);
    let (router, _) = router(&app, &app.roles);
    World { app, router, _dir: Some(dir) }
}

/// Asks again and again, with a deadline.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let asked = async {
        while !holds() {
            tokio::time::sleep(DRIP).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asked).await.is_ok(), "waited in vain: {what}");
}

/// A connection of a caller.
struct Line(TcpStream);

impl Line {
    async fn open(at: SocketAddr, first: &[u8]) -> Self {
        let mut line = Self(TcpStream::connect(at).await.unwrap());
        line.0.write_all(first).await.unwrap();
        line
    }

    /// Sends byte after byte until nobody takes them any more, and gives what was answered.
    async fn drip(self, bytes: impl Iterator<Item = u8>) -> String {
        let (mut read, mut write) = self.0.into_split();
        let dripped = async {
            for byte in bytes {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(DRIP).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = dripped => {}
            // A connection that is reset has ended too.
            _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)) => {}
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Reads to the end of the connection.
    async fn end(self) -> Vec<u8> {
        let mut stream = self.0;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
        answer
    }
}

/// Somebody else is answered.
async fn others_are_served(at: SocketAddr) {
    let answer = Line::open(at, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.end().await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

on_each_store!(a_socket_that_says_nothing_is_let_go);

/// R54: who answers no ping is gone; who answers them stays.
async fn a_socket_that_says_nothing_is_let_go(kind: Db) {
    let world = world(kind, Patience { ping_every: SHORT, ..Patience::default() }).await;
    let alice = world.user(1).await;
    let at = serve(&world.app).await;
    let (id, bearer) = (alice.id.to_string(), format!("Bearer {}", alice.token));
    let open = async || {
        let (status, mut socket) = Socket::open(at, &id, &[("Authorization", &bearer)]).await;
        assert_eq!(status, 101);
        socket.until(b"\"hello\"").await;
        socket
    };
    let (silent, mut alive) = (open().await, open().await);
    for _ in 0..4 {
        alive.until(&[0x89, 0]).await;
        alive.forget();
        alive.send(10, b"").await;
    }
    assert_eq!(silent.end().await, None, "nobody is told");
    // It is still there, and hears.
    world.app.shared.bus.publish(Wake::feed(alice.home, 7));
    alive.until(b"\"file_change\"").await;
    world.app.drain.cancel();
}

on_each_store!(a_reader_that_stops_is_dropped_and_not_buffered_for);

/// R54: who does not read what it is told is dropped, while others hear everything; it comes back and is told where the feeds are.
async fn a_reader_that_stops_is_dropped_and_not_buffered_for(kind: Db) {
    let world = world(kind, Patience { message: SHORT, write: SHORT, ..Patience::default() }).await;
    let alice = world.user(1).await;
    let at = serve(&world.app).await;
    let (id, bearer) = (alice.id.to_string(), format!("Bearer {}", alice.token));
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(4096).unwrap();
    let (status, deaf) = Socket::on(narrow.connect(at).await.unwrap(), &id, &[("Authorization", &bearer)]).await;
    assert_eq!(status, 101);
    until("it is connected", || world.app.connections.len() > 1).await;
    // The listener itself is one of them.
    let wakes = async {
        for seq in 1.. {
            world.app.shared.bus.publish(Wake::feed(alice.home, seq));
            if seq % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = wakes => {}
        () = until("it is dropped", || world.app.connections.len() == 1) => {}
    }
    others_are_served(at).await;
    let (status, mut back) = Socket::open(at, &id, &[("Authorization", &bearer)]).await;
    assert_eq!(status, 101, "its place is free again");
    back.until(b"\"hello\"").await;
    drop(deaf);
    world.app.drain.cancel();
}

on_each_store!(slow_callers_are_refused_or_closed);

/// R64: heads and bodies that drip, connections that say nothing, heads of 1 MiB, and callers who do not take their answer.
async fn slow_callers_are_refused_or_closed(kind: Db) {
    let patience = Patience { head: SHORT, body: SHORT, write: SHORT, ..Patience::default() };
    let world = world(kind, patience).await;
    let alice = world.user(1).await;
    let at = serve(&world.app).await;
    let init = json!({"file_name": "f", "file_size": 100_000, "file_hash": ContentHash::of(b"x")});
    let id = world.json(&alice, axum::http::Method::POST, "/upload/init", init).await.text("version_id");
    let bearer = format!("Authorization: Bearer {}\r\n", alice.token);

    let head = Line::open(at, b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.drip(std::iter::repeat(b'a')).await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "a head that never ends: {head}");
    let body = format!("PUT /upload/{id}/chunks/0 HTTP/1.1\r\nHost: x\r\n{bearer}Content-Length: 100000\r\n\r\n");
    let body = Line::open(at, body.as_bytes()).await.drip(std::iter::repeat(b'a')).await;
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("too_slow"), "a body that drips: {body}");
    let json = format!(
        "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{{\"email\":\"",
        4000
    );
    let json = Line::open(at, json.as_bytes()).await.drip(PASSWORD.bytes().cycle()).await;
    assert!(json.starts_with("HTTP/1.1 408"), "a chunk that drips: {json}");
    // A hundred that are answered and then say nothing, and a hundred that never said anything.
    let mut idle = Vec::new();
    for n in 0..200 {
        let first: &[u8] = if n % 2 == 0 { b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" } else { b"" };
        idle.push(Line::open(at, first).await);
    }
    others_are_served(at).await;
    for (n, line) in idle.into_iter().enumerate() {
        let answer = line.end().await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), n % 2 == 0, "{}", String::from_utf8_lossy(&answer));
    }
    let mut large = b"GET /healthz HTTP/1.1\r\nHost: x\r\n".to_vec();
    (0..16).for_each(|n| large.extend(format!("X-{n}: {}\r\n", "a".repeat(64 * 1024)).bytes()));
    let mut line = Line(TcpStream::connect(at).await.unwrap());
    // It need not take all of it.
    let _ = line.0.write_all(&large).await;
    let answer = line.end().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    // Thousands of answers that nobody takes.
    until("nobody is connected", || world.app.connections.len() == 1).await;
    let mut greedy = Line(TcpStream::connect(at).await.unwrap());
    until("it is connected", || world.app.connections.len() == 2).await;
    let asks = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5000);
    let _ = tokio::time::timeout(PATIENCE, greedy.0.write_all(&asks)).await.expect("the connection ends or takes it");
    until("who takes nothing is let go", || world.app.connections.len() == 1).await;
    others_are_served(at).await;
    world.app.drain.cancel();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// `GET /healthz` as indexed fields and literals.
const FIELDS: &[u8] = b"\x82\x86\x04\x08/healthz\x41\x01x";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The kinds of the frames in these bytes, with their streams and the first word of what they hold.
fn kinds(mut bytes: &[u8]) -> Vec<(u8, u32, u32)> {
    let mut out = Vec::new();
    while bytes.len() >= 9 {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let payload = &bytes[9..(9 + len).min(bytes.len())];
        let word = |at: usize| payload.get(at..at + 4).map_or(0, |w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        // The reason of GOAWAY stands behind the last stream.
        out.push((bytes[3], stream, word(if bytes[3] == 7 { 4 } else { 0 })));
        bytes = &bytes[(9 + len).min(bytes.len())..];
    }
    out
}

on_each_store!(floods_of_http2_end_their_connection_only);

/// R64: a head without end in ever more frames, streams that are reset as soon as they are opened, and more streams at once than there may be.
async fn floods_of_http2_end_their_connection_only(kind: Db) {
    let world = world(kind, Patience { head: SHORT, body: SHORT, write: SHORT, ping_every: SHORT, ..Patience::default() }).await;
    let at = serve(&world.app).await;
    let (goaway, reset, refused, calm) = (7, 3, 7, 11);

    let mut line = Line::open(at, &[PREFACE, &frame(1, 0, 1, FIELDS)].concat()).await;
    let more = frame(9, 0, 1, &[0x00, 1, b'a', 1, b'b']);
    let mut sent = 0;
    while sent < 1_000_000 && line.0.write_all(&more).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 1_000_000, "a head without end is not read for ever");

    let mut flood = PREFACE.to_vec();
    for n in 0..20_000u32 {
        flood.extend(frame(1, 5, 2 * n + 1, FIELDS));
        flood.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let mut line = Line(TcpStream::connect(at).await.unwrap());
    let _ = line.0.write_all(&flood).await;
    others_are_served(at).await;
    let said = kinds(&line.end().await);
    assert!(said.is_empty() || said.iter().any(|(kind, _, code)| *kind == goaway && *code == calm), "it is told to calm down: {said:?}");

    let mut many = PREFACE.to_vec();
    // Bodies that never come.
    let fields = b"\x83\x86\x04\x0b/auth/login\x41\x01x\x0f\x10\x10application/json";
    (0..1000u32).for_each(|n| many.extend(frame(1, 4, 2 * n + 1, fields)));
    let line = Line::open(at, &many).await;
    others_are_served(at).await;
    let said = kinds(&line.end().await);
    let refusals = said.iter().filter(|(kind, _, code)| *kind == reset && *code == refused).count();
    assert!(refusals >= 800 || said.iter().any(|(kind, ..)| *kind == goaway), "{refusals} streams were refused");
    until("nothing is left of them", || world.app.connections.len() == 1).await;
    world.app.drain.cancel();
}
