//! Two relay processes on one PostgreSQL, as they stand behind a balancer (P22): what one has answered, the other knows at once, and no number of the
//! feed is skipped however the commits come.
#![cfg(feature = "cluster")]

#[path = "../../tests/src/postgres.rs"]
mod server;

use ferry_protocol::wire::{CONTENT_TYPE, CommitReply, CommitRequest, FeedPage, NodeUpdate, decode, encode};
use ferry_protocol::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Longer than anything here may take; a hang fails instead of standing still.
const PATIENCE: Duration = Duration::from_secs(120);
const WRITERS: u8 = 4;
const COMMITS: u8 = 20;
/// Commits that are under way when the database goes.
const AT_ONCE: u8 = 200;

fn program(data: &Path, database: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry-relay"));
    command.env_clear().env("FERRY_RELAY__DATA", data).env("FERRY_RELAY__ADMIN__LISTEN", "").env("FERRY_RELAY__DATABASE__URL", database);
    command.stdin(Stdio::null());
    command
}

/// A running relay; killed when the test ends.
struct Relay {
    child: Child,
    at: SocketAddr,
}

impl Relay {
    fn start(data: &Path, database: &str) -> Self {
        let mut command = program(data, database);
        let mut child = command.args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("FERRY_RELAY__PUBLIC_URL") {
            assert!(out.read_line(&mut banner).unwrap() > 0, "it ended early: {banner}");
        }
        assert!(banner.contains("postgresql"), "{banner}");
        let line = banner.lines().find_map(|l| l.trim().strip_prefix("listening ")).unwrap();
        let at = line.split("://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        Self { child, at }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails when it has ended, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn add_user(data: &Path, database: &str) {
    let mut add = program(data, database);
    let mut child = add
        .args(["user", "add", "ana@example.org", "--admin", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// One request on a connection of its own: status and body.
fn ask(at: SocketAddr, method: &str, path: &str, token: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

fn ask_json(at: SocketAddr, method: &str, path: &str, token: &str, body: &Json) -> Json {
    let (status, bytes) = ask(at, method, path, token, "application/json", body.to_string().as_bytes());
    assert!(status < 300, "{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

/// Who writes: a device of the one user, and where.
#[derive(Clone)]
struct Caller {
    token: String,
    device: DeviceId,
    namespace: NamespaceId,
    epoch: Epoch,
}

/// Logs a device in and finds the home.
fn login(at: SocketAddr) -> Caller {
    let key = [7u8; 32];
    let body = json!({"email": "ana@example.org", "password": "correct horse", "device": {"name": "d", "public_key": hex::encode(key)}});
    let token = ask_json(at, "POST", "/auth/login", "", &body)["access_token"].as_str().unwrap().to_owned();
    let home = &ask_json(at, "GET", "/sync/v1/namespaces", &token, &Json::Null)[0];
    let id = |name: &str| home[name].as_str().unwrap().parse().unwrap();
    Caller { token, device: DeviceId::of_public_key(&key), namespace: id("id"), epoch: home["epoch"].as_str().unwrap().parse().unwrap() }
}

fn directory(caller: &Caller, writer: u8, n: u8) -> NodeUpdate {
    let replica = ReplicaId::from_bytes([writer + 1; 16]);
    let stamp = Stamp { counter: u64::from(n) + 1, replica };
    let mut state = NodeState::new(Place { stamp, parent: NodeId::ROOT, name: Name::new(format!("{writer}-{n}").into_bytes()).unwrap() });
    let dot = state.body().next_dot(replica);
    let author = Author { device: caller.device, name: "d".into() };
    state.body_mut().put(&[], Value { dot, stamp, content: node::Content::Dir, author, wall_ms: 1 });
    let mut id = [writer + 1; 16];
    id[0] = n;
    NodeUpdate { id: NodeId::from_bytes(id), state }
}

/// Commits one directory and gives the head after it.
fn commit(at: SocketAddr, caller: &Caller, writer: u8, n: u8) -> (NodeId, u64) {
    // Told to come back, it comes back: the commit has its id, so that twice is once.
    (0..100).find_map(|_| try_commit(at, caller, writer, n)).expect("it is not told to come back for ever")
}

/// The same, once: nothing if it is told to come back, or if the relay does not answer.
fn try_commit(at: SocketAddr, caller: &Caller, writer: u8, n: u8) -> Option<(NodeId, u64)> {
    let update = directory(caller, writer, n);
    let node = update.id;
    let mut commit = [writer; 16];
    commit[1] = n;
    let request = CommitRequest {
        commit: CommitId::from_bytes(commit),
        epoch: caller.epoch,
        base_seq: u64::MAX,
        replica: ReplicaId::default(),
        nodes: vec![update],
        chunks: vec![],
    };
    let path = format!("/sync/v1/{}/commit", caller.namespace);
    let (status, body) = ask(at, "POST", &path, &caller.token, CONTENT_TYPE, &encode(&request));
    match status {
        200 => match decode::<CommitReply>(&body).unwrap() {
            CommitReply::Accepted { head_seq, .. } => Some((node, head_seq)),
            other => panic!("{other:?}"),
        },
        503 => None,
        _ => panic!("{status} {}", String::from_utf8_lossy(&body)),
    }
}

fn page(at: SocketAddr, caller: &Caller, since: u64) -> FeedPage {
    let path = format!("/sync/v1/{}/delta?since={since}&epoch={}", caller.namespace, caller.epoch);
    let (status, body) = ask(at, "GET", &path, &caller.token, CONTENT_TYPE, b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    decode(&body).unwrap()
}

/// Reads the feed of a relay by its cursor until the writers are done, and gives how often each node came.
fn follow(at: SocketAddr, caller: &Caller, done: &AtomicBool) -> BTreeMap<NodeId, u32> {
    let (mut cursor, mut seen) = (0, BTreeMap::new());
    loop {
        let was_done = done.load(Ordering::SeqCst);
        let page = page(at, caller, cursor);
        assert!(page.cursor >= cursor && page.head >= page.cursor);
        for node in &page.nodes {
            *seen.entry(node.id).or_default() += 1;
        }
        cursor = page.cursor;
        if was_done && page.nodes.is_empty() {
            return seen;
        }
    }
}

/// P22, U05: two that start at once on an empty database migrate it once; then commits through both, and the feed read through both.
#[test]
fn what_one_process_has_answered_the_other_knows_and_no_number_is_skipped() {
    let cluster = server::Cluster::start();
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), &database);
    let relays = std::thread::scope(|scope| {
        let starts = [(); 2].map(|()| scope.spawn(|| Relay::start(dir.path(), &database)));
        starts.map(|start| start.join().unwrap())
    });
    let [a, b] = [relays[0].at, relays[1].at];
    let caller = login(a);
    let done = AtomicBool::new(false);
    let readers = std::thread::scope(|scope| {
        let readers = [a, b].map(|at| {
            let (caller, done) = (&caller, &done);
            scope.spawn(move || follow(at, caller, done))
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let caller = &caller;
                let (through, other) = if writer % 2 == 0 { (a, b) } else { (b, a) };
                scope.spawn(move || {
                    for n in 0..COMMITS {
                        let (node, head) = commit(through, caller, writer, n);
                        // Read your writes, through the other process, at once.
                        let page = page(other, caller, head - 1);
                        assert!(page.head >= head && page.nodes.iter().any(|u| u.id == node), "{writer} {n}: {head} of {}", page.head);
                        assert_eq!(commit(other, caller, writer, n), (node, head), "twice is once, through whichever process");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        readers.map(|reader| reader.join().unwrap())
    });
    let wanted: BTreeMap<NodeId, u32> =
        (0..WRITERS).flat_map(|w| (0..COMMITS).map(move |n| (w, n))).map(|(w, n)| (directory(&caller, w, n).id, 1)).collect();
    assert_eq!(readers[0], wanted);
    assert_eq!(readers[1], wanted);
    // Both are of one run: the numbers have no gap.
    assert_eq!(page(a, &caller, 0).head, u64::from(WRITERS) * u64::from(COMMITS));
}

/// K05: PostgreSQL is killed in the middle of 200 commits at once and started again: every commit that was answered is there, the others go through when
/// they are repeated, and the relay needs no help.
#[test]
fn postgres_is_killed_under_commits_and_nothing_answered_is_lost() {
    // What is acknowledged must be in the server's log before; not on the disk, as the machine goes on.
    let cluster = server::Cluster::start_with(&["synchronous_commit=on"]);
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), &database);
    let relay = Relay::start(dir.path(), &database);
    let at = relay.at;
    let caller = login(at);
    let (answered, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let heads = std::thread::scope(|scope| {
        let committers: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let (caller, answered, refused) = (&caller, &answered, &refused);
                scope.spawn(move || {
                    let began = std::time::Instant::now();
                    loop {
                        match try_commit(at, caller, 0, n) {
                            Some(done) => {
                                answered.fetch_add(1, Ordering::SeqCst);
                                return done;
                            }
                            None => refused.fetch_add(1, Ordering::SeqCst),
                        };
                        assert!(began.elapsed() < PATIENCE, "it is told to come back for ever");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        while answered.load(Ordering::SeqCst) < u32::from(AT_ONCE) / 10 {
            std::thread::yield_now();
        }
        cluster.kill();
        let before = answered.load(Ordering::SeqCst);
        // Somebody notices.
        let seen = refused.load(Ordering::SeqCst);
        while refused.load(Ordering::SeqCst) == seen {
            std::thread::yield_now();
        }
        assert!(before < u32::from(AT_ONCE), "it was killed in their middle");
        cluster.resume();
        committers.into_iter().map(|c| c.join().unwrap()).collect::<BTreeMap<NodeId, u64>>()
    });
    assert_eq!(heads.len(), usize::from(AT_ONCE));
    let (mut cursor, mut seen) = (0, BTreeMap::<NodeId, u32>::new());
    loop {
        let page = page(at, &caller, cursor);
        page.nodes.iter().for_each(|node| *seen.entry(node.id).or_default() += 1);
        if page.nodes.is_empty() {
            break;
        }
        cursor = page.cursor;
    }
    assert_eq!(seen, heads.keys().map(|id| (*id, 1)).collect(), "each commit once, and nothing else");
    assert!(heads.values().all(|head| *head <= cursor));
}

/// A wrong password, a server that is not there, a database that is not: one sentence each, without the password.
#[test]
fn what_cannot_be_reached_is_told_without_the_password() {
    let cluster = server::Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    for (url, part) in [
        (cluster.url("nowhere").replace("postgres@", "postgres:hush@"), "nowhere"),
        ("postgres://u:hush@127.0.0.1:1/d".to_owned(), "127.0.0.1/d"),
        ("postgres://u:hush@127.0.0.1:port/d".to_owned(), "postgres://USER"),
    ] {
        let output = program(dir.path(), &url).args(["user", "list"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(part) && !text.contains("hush") && text.lines().count() <= 2, "{text}");
    }
    // The address may come from a file, as every setting may.
    let file = dir.path().join("url");
    std::fs::write(&file, cluster.database() + "\n").unwrap();
    let mut command = program(dir.path(), "");
    command.env_remove("FERRY_RELAY__DATABASE__URL").env("FERRY_RELAY__DATABASE__URL_FILE", &file);
    let output = command.args(["storage", "stats"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!dir.path().join("relay.db").exists(), "nothing is kept beside it");
}
