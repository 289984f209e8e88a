//! What people name things never becomes a header, a second line of the log, or a part of an answer that it is not (R49, R65): generated names of files,
//! devices, users, folders and app passwords.

use super::content_tests::{PASSWORD, World, commit};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use ferry_protocol::wire::{CommitReply, InlineChunk, NodeUpdate};
use ferry_protocol::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// What such names are made of.
const PARTS: [&str; 22] = [
    "\r\n",
    "\n",
    "\r",
    "\"",
    "\\",
    "\0",
    ";",
    "; filename*=UTF-8''x.exe",
    "\"; filename=\"x.exe",
    "\r\nSet-Cookie: planted=1\r\n\r\n<script>",
    "%0d%0a",
    "%",
    "é",
    "\u{202e}",
    "\u{2028}",
    "\u{85}",
    "\u{1b}[31m",
    "\t",
    " ",
    "planted",
    ".html",
    "日本",
];

fn odd() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PARTS[..]), 1..6).prop_map(|parts| parts.concat())
}

/// So many of them, the same each time.
fn names(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| odd().new_tree(&mut runner).unwrap().current()).chain(PARTS.map(str::to_owned)).collect()
}

/// The log of this thread, as it is written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The names of an answer's headers, once each.
fn kinds(headers: &HeaderMap) -> BTreeSet<String> {
    let all: Vec<String> = headers.keys().map(|name| name.to_string()).collect();
    assert_eq!(headers.len(), all.len(), "none comes twice: {headers:?}");
    all.into_iter().collect()
}

/// Everything that takes a name is given each of these; whatever it says, it says it, and it is no failure of ours.
async fn say_everything(world: &World, names: &[String]) {
    let alice = world.user(1).await;
    let list = world.get(&alice, "/sync/v1/namespaces").await.json();
    let epoch: Epoch = list[0]["epoch"].as_str().unwrap().parse().unwrap();
    let fine = |status: u16, what: &str| assert!(status < 500, "{what}: {status}");
    for (number, name) in names.iter().enumerate() {
        let replica = ReplicaId::from_bytes([7; 16]);
        let stamp = Stamp { counter: number as u64 + 1, replica };
        // A name on a disk may hold anything but a slash and a zero.
        let bytes: Vec<u8> = name.bytes().filter(|b| ![0, b'/'].contains(b)).chain(*b"\xff").chain(number.to_string().bytes()).collect();
        let mut state = NodeState::new(Place { stamp, parent: NodeId::ROOT, name: Name::new(bytes).unwrap() });
        let dot = state.body().next_dot(replica);
        let content = format!("content {number}").into_bytes();
        let manifest = Manifest::new(ContentHash::of(&content), vec![ChunkRef { id: ChunkId::of(&content), len: content.len() as u32 }]);
        let content_value = node::Content::File(FileContent::new(manifest.unwrap(), 1));
        let author = Author { device: alice.device, name: "laptop".into() };
        state.body_mut().put(&[], Value { dot, stamp, content: content_value, author, wall_ms: 1 });
        let mut id = [9; 16];
        id[..2].copy_from_slice(&(number as u16).to_be_bytes());
        let id = NodeId::from_bytes(id);
        let mut request = commit(0, epoch, vec![NodeUpdate { id, state }]);
        request.commit = CommitId::from_bytes(*id.as_bytes());
        request.chunks = vec![InlineChunk { id: ChunkId::of(&content), bytes: content.clone() }];
        let reply = world.wire(&alice, &format!("/sync/v1/{}/commit", alice.home), &request).await;
        assert!(matches!(reply.wire::<CommitReply>(), CommitReply::Accepted { .. }), "{name:?}");

        let got = world.get(&alice, &format!("/download/{id}")).await;
        assert_eq!((got.status, &got.body), (200, &content), "{name:?}");
        let plain =
            ["accept-ranges", "cache-control", "content-disposition", "content-length", "content-security-policy", "content-type", "etag"];
        let more = ["referrer-policy", "x-content-type-options", "x-frame-options", "x-request-id"];
        // Whether this relay is on HTTPS is none of the name's doing.
        let mut headers = got.headers.clone();
        headers.remove("strict-transport-security");
        assert_eq!(kinds(&headers), plain.iter().chain(&more).map(|n| (*n).to_owned()).collect(), "{name:?}");
        fine(world.call(&alice, Method::DELETE, &format!("/metadata/files/{id}"), &[], "").await.status, name);
        fine(world.json(&alice, Method::POST, "/api/v1/trash/restore", json!({"file_id": id.to_string()})).await.status, name);
        for (path, body) in [
            ("/auth/login", json!({"email": name, "password": PASSWORD})),
            (
                "/auth/login",
                json!({"email": "u1@example.org", "password": PASSWORD, "device": {"name": name, "public_key": hex::encode([1; 32])}}),
            ),
            ("/auth/register", json!({"email": format!("{name}@example.org"), "password": PASSWORD, "name": name})),
            ("/sync/v1/namespaces", json!({"name": name})),
            ("/api/v1/me/tokens", json!({"name": name, "scopes": ["files:read"]})),
            ("/upload/init", json!({"file_name": name, "file_size": 1, "file_hash": ContentHash::of(b"x"), "path": name})),
            ("/metadata/files/x", json!({"file_name": name})),
        ] {
            let answer = world.json(&alice, Method::POST, path, body).await;
            fine(answer.status, path);
            kinds(&answer.headers);
            assert!(!answer.headers.contains_key("set-cookie") || path == "/auth/login", "{path}: {name:?}");
        }
        // As a header and as an address, where a caller can put it there at all.
        let escaped: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        let request =
            Request::get(format!("/d/{escaped}?x={escaped}")).header("x-request-id", escaped.replace('%', "")).body(Body::empty());
        fine(world.send(request.unwrap()).await.status, name);
    }
}

/// Set in the process in which the names are said.
const ALONE: &str = "FERRY_TEST_ALONE";

/// In a process of its own: what is logged at all is settled for a whole process, and other tests settle it too.
#[tokio::test]
async fn no_name_becomes_a_header_or_a_line_of_the_log() {
    if std::env::var_os(ALONE).is_none() {
        let alone = ["--exact", "http::injection_tests::no_name_becomes_a_header_or_a_line_of_the_log"];
        let done = std::process::Command::new(std::env::current_exe().unwrap()).args(alone).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    for is_json in [false, true] {
        let log = Log::default();
        let writer = log.clone();
        let builder = tracing_subscriber::fmt().with_env_filter("ferry_relay=trace").with_ansi(false).with_writer(move || writer.clone());
        let _guard = if is_json {
            tracing::subscriber::set_default(builder.json().flatten_event(true).finish())
        } else {
            tracing::subscriber::set_default(builder.finish())
        };
        let world = World::on(crate::store::testing::Db::Sqlite).await;
        say_everything(&world, &names(if is_json { 20 } else { 60 })).await;
        let text = log.text();
        assert!(text.lines().count() > 100, "there is a log");
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            if is_json {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
            assert!(is_json || (line.starts_with("20") && line.get(10..11) == Some("T")), "a line of its own making: {line:?}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(!line.contains("planted"), "no name is logged: {line:?}");
        }
    }
}
