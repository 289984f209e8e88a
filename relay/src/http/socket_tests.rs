//! The wake-up socket over real connections: who gets one, how many, and what ends it (R53, R54).

use super::content_tests::World;
use super::*;
use crate::config::{Auth, Config};
use crate::service::UserRole;
use crate::service::accounts::NewUser;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket as the wire shows it.
pub(super) struct Socket {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Socket {
    /// Asks for a socket; the status of the answer.
    pub(super) async fn open(at: SocketAddr, user: &str, headers: &[(&str, &str)]) -> (u16, Self) {
        Self::on(TcpStream::connect(at).await.unwrap(), user, headers).await
    }

    /// [`Socket::open`] on a connection that is there.
    pub(super) async fn on(mut stream: TcpStream, user: &str, headers: &[(&str, &str)]) -> (u16, Self) {
        let at = stream.peer_addr().unwrap();
        let mut request = format!(
            "GET /ws/sync/{user} HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        let mut socket = Self { stream, seen: Vec::new() };
        let end = socket.until(b"\r\n\r\n").await;
        let status = std::str::from_utf8(&socket.seen[9..12]).unwrap().parse().unwrap();
        socket.seen.drain(..end);
        (status, socket)
    }

    /// Reads until these bytes have come, and where they end.
    pub(super) async fn until(&mut self, wanted: &[u8]) -> usize {
        loop {
            if let Some(at) = self.seen.windows(wanted.len()).position(|w| w == wanted) {
                return at + wanted.len();
            }
            let mut part = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut part)).await.unwrap().unwrap();
            assert!(read > 0, "it ends before {:?} came: {:?}", String::from_utf8_lossy(wanted), String::from_utf8_lossy(&self.seen));
            self.seen.extend_from_slice(&part[..read]);
        }
    }

    /// A masked frame of one message, as a client must send it; the mask is zero. A relay that has closed already does not mind.
    pub(super) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        let _ = self.stream.write_all(&frame).await;
    }

    /// What has come so far counts no more.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Reads to the end: the code of the close frame, if there is one.
    pub(super) async fn end(mut self) -> Option<u16> {
        let mut rest = Vec::new();
        // A connection that is reset has ended too.
        let _ = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("it ends");
        self.seen.extend_from_slice(&rest);
        let at = self.seen.iter().rposition(|b| *b == 0x88)?;
        let code = self.seen.get(at + 2..at + 4)?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }
}

pub(super) async fn serve(app: &AppState) -> SocketAddr {
    let listener = Listener { socket: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None };
    let at = listener.addr().unwrap();
    listen(app, listener, router(app, &app.roles).0);
    at
}

on_each_store!(a_socket_is_for_its_user_and_so_many);

async fn a_socket_is_for_its_user_and_so_many(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let at = serve(&world.app).await;
    let (id, bearer) = (alice.id.to_string(), format!("Bearer {}", alice.token));
    let good = ("Authorization", bearer.as_str());
    let of_mal = format!("Bearer {}", mal.token);
    for (headers, status) in [
        (vec![], 401),
        (vec![("Authorization", "Bearer x")], 401),
        (vec![("Authorization", of_mal.as_str())], 403),
        (vec![good, ("Origin", "https://evil.example")], 403),
        (vec![good, ("Origin", "null")], 403),
        (vec![good, ("Origin", "https://files.example.org.evil.example")], 403),
    ] {
        assert_eq!(Socket::open(at, &id, &headers).await.0, status, "{headers:?}");
    }
    assert_eq!(Socket::open(at, &format!("{id}?access_token={}", alice.token), &[]).await.0, 401, "no token in the query");
    let mut open = Vec::new();
    for _ in 0..64 {
        let (status, mut socket) = Socket::open(at, &id, &[good, ("Origin", "https://files.example.org")]).await;
        assert_eq!(status, 101);
        socket.until(b"\"hello\"").await;
        open.push(socket);
    }
    let (status, _) = Socket::open(at, &id, &[good]).await;
    assert_eq!(status, 429, "one more");
    assert_eq!(Socket::open(at, &mal.id.to_string(), &[("Authorization", &of_mal)]).await.0, 101, "others have their own");
    // A change wakes its user's sockets, and nobody else's ids are in what they say.
    world.upload(&alice, "f", b"x").await;
    for socket in &mut open {
        socket.until(b"\"file_change\"").await;
        assert!(!String::from_utf8_lossy(&socket.seen).contains(&mal.home.to_string()));
    }
    world.app.drain.cancel();
}

on_each_store!(devices_hear_of_each_other);

/// A device that announces itself is news for its user's other devices: one message, however many namespaces they share.
async fn devices_hear_of_each_other(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let phone = world.device(&alice, 3).await;
    for n in 0..3 {
        let made = world.json(&alice, Method::POST, "/sync/v1/namespaces", serde_json::json!({"name": format!("n{n}")})).await;
        assert_eq!(made.status, 201);
    }
    let at = serve(&world.app).await;
    let mut sockets = Vec::new();
    for user in [&alice, &phone, &mal] {
        let (status, mut socket) = Socket::open(at, &user.id.to_string(), &[("Authorization", &format!("Bearer {}", user.token))]).await;
        assert_eq!(status, 101);
        socket.until(b"\"hello\"").await;
        sockets.push(socket);
    }
    let message = br#"{"type":"peers"}"#;
    for (user, other) in [(&phone, 0), (&alice, 1)] {
        let body = serde_json::json!({"addresses": [format!("10.0.0.{}:4711", other + 1)]});
        assert_eq!(world.json(user, Method::POST, "/api/v1/peers/announce", body).await.status, 200);
        sockets[other].until(message).await;
    }
    world.upload(&alice, "f", b"x").await;
    world.upload(&mal, "f", b"x").await;
    for (socket, told) in sockets.iter_mut().zip([1, 1, 0]) {
        socket.until(b"\"file_change\"").await;
        assert_eq!(socket.seen.windows(message.len()).filter(|w| w == message).count(), told, "nobody hears of itself");
    }
    world.app.drain.cancel();
}

on_each_store!(a_client_that_sends_too_much_is_let_go);

async fn a_client_that_sends_too_much_is_let_go(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let at = serve(&world.app).await;
    let (id, bearer) = (alice.id.to_string(), format!("Bearer {}", alice.token));
    let open = async || {
        let (status, mut socket) = Socket::open(at, &id, &[("Authorization", &bearer)]).await;
        assert_eq!(status, 101);
        socket.until(b"\"hello\"").await;
        socket
    };
    let mut large = open().await;
    large.send(1, &vec![b'x'; 1 << 20]).await;
    large.end().await;
    // Of one that only says how large it is nothing is on the way that could hide the answer.
    let mut large = open().await;
    large.stream.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(large.end().await, Some(1009), "too large");
    let mut many = open().await;
    for _ in 0..=1000 {
        many.send(1, b"x").await;
    }
    assert_eq!(many.end().await, Some(1008), "too many");
    let mut junk = open().await;
    junk.stream.write_all(&[0xff; 64]).await.unwrap();
    junk.end().await;
    let mut odd = open().await;
    odd.send(2, &[0xff; 100]).await;
    odd.send(1, b"{}").await;
    // What it says is not listened to, and it goes on being told.
    world.upload(&alice, "f", b"x").await;
    odd.until(b"\"file_change\"").await;
    world.app.drain.cancel();
    assert_eq!(odd.end().await, Some(1012), "the relay says that it restarts");
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth { access_ttl_s: 3, ..Auth::default() };
    let config = Config { data: dir.path().into(), auth, public_url: "https://files.example.org".into(), ..Config::default() };
    let app = AppState::new(App::open(&config).await.unwrap());
    let new = NewUser { email: "ana@example.org", name: None, password: "correct horse" };
    let user = app.accounts.add_user(new, UserRole::User).await.unwrap();
    let at = serve(&app).await;
    let body = r#"{"email":"ana@example.org","password":"correct horse"}"#;
    let request = Request::post("/auth/login").header("content-type", "application/json").body(Body::from(body)).unwrap();
    let answer = tower::ServiceExt::oneshot(router(&app, &app.roles).0, request).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let token = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["access_token"].as_str().unwrap().to_owned();
    let (status, socket) = Socket::open(at, &user.user_id.to_string(), &[("Authorization", &format!("Bearer {token}"))]).await;
    if status == 101 {
        assert_eq!(socket.end().await, Some(4401));
    } else {
        assert_eq!(status, 401, "the token had ended before it was shown");
    }
    app.drain.cancel();
}
