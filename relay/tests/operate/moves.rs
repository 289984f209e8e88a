//! `ferry-relay shard move` as an operator runs it: beside a relay that is written to all the time, and killed at each of its steps.
#![cfg(feature = "cluster")]

use super::backup_postgres::server;
use super::process::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

/// Steps after which the command is killed: more than it has.
const STEPS: usize = 9;

/// One request, said again as long as the relay says that it is to be said again.
fn patiently(relay: &Relay, method: &str, path: &str, token: &str, kind: &str, body: &[u8]) -> Answer {
    let headers = format!("Content-Type: {kind}\r\nAuthorization: Bearer {token}\r\n");
    let mut answer = None;
    until("it is not told to come back", || {
        let got = ask(relay.addr, method, path, &headers, body).unwrap();
        let is_over = got.status != 503;
        assert!(is_over || got.head.to_ascii_lowercase().contains("retry-after"), "{}", got.head);
        answer = Some(got);
        is_over
    });
    answer.unwrap()
}

/// Uploads a file; its id.
fn upload(relay: &Relay, token: &str, name: &str, content: &[u8]) -> String {
    let hash = ferry_protocol::ContentHash::of(content).to_string();
    let init = json!({"file_name": name, "file_size": content.len(), "file_hash": hash}).to_string();
    let begun = patiently(relay, "POST", "/upload/init", token, "application/json", init.as_bytes());
    let version = begun.json()["version_id"].as_str().unwrap_or_else(|| panic!("{}", begun.text())).to_owned();
    let put = patiently(relay, "PUT", &format!("/upload/{version}/chunks/0"), token, "application/octet-stream", content);
    assert_eq!(put.status, 200, "{}", put.text());
    let done = patiently(relay, "POST", &format!("/upload/complete/{version}"), token, "application/json", b"");
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()["file_id"].as_str().unwrap().to_owned()
}

/// Runs the command and kills it when it has told of so many steps; whether it came to its end before.
fn killed_after(steps: usize, data: &Path, env: &[(&str, &str)], user: &str, to: &str) -> bool {
    let words = ["shard", "move", user, "--to", to, "--settle", "1", "--pause", "5", "--json"];
    let mut child = program(data).envs(env.iter().copied()).args(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let told =
        BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).filter(|line| line.contains("\"step\"")).take(steps);
    if told.count() == steps {
        // Fails when it has ended, which is well.
        let _ = child.kill();
    }
    child.wait().unwrap().success()
}

#[test]
fn a_move_that_is_killed_at_any_step_loses_nothing_that_is_written_meanwhile() {
    let cluster = server::Cluster::start();
    let urls = [(); 3].map(|()| cluster.database());
    let shards = urls[1..].join(",");
    let env = [("FERRY_RELAY__DATABASE__URL", urls[0].as_str()), ("FERRY_RELAY__DATABASE__SHARDS", shards.as_str())];
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &env);
    let token = relay.login();
    let place = || {
        let list: Value = json_with(&data, &env, &["shard", "list", "--json"]);
        let of = |n: usize| list["shards"][n]["users"].as_u64().unwrap();
        (1..3).find(|n| of(*n) == 1).unwrap_or(0)
    };
    let is_over = AtomicBool::new(false);
    let files = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut files = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let content = format!("content number {}", files.len()).into_bytes();
                let id = upload(&relay, &token, &format!("file {}", files.len()), &content);
                files.push((id, content));
            }
            files
        });
        for steps in 1..=STEPS {
            let to = (3 - place().max(1)).to_string();
            let has_ended = killed_after(steps, &data, &env, EMAIL, &to);
            assert!(!has_ended || steps > 4, "after {steps} steps");
            // Half of them go on, half are taken back.
            let to = if steps % 2 == 0 { to } else { place().to_string() };
            let said = run_with(&data, &env, &["shard", "move", EMAIL, "--to", &to, "--settle", "1"]);
            stdout(&said);
            assert_eq!(place().to_string(), to);
            assert_eq!(json_with(&data, &env, &["shard", "list", "--json"])["unfinished"], json!([]));
        }
        is_over.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    assert!(!files.is_empty());
    for (id, content) in &files {
        let answer = relay.call("GET", &format!("/download/{id}"), &token, None);
        assert_eq!((answer.status, &answer.body), (200, content));
    }
    let usage = relay.call("GET", "/api/v1/me/usage", &token, None).json();
    assert_eq!(usage["storage_used"].as_u64(), Some(files.iter().map(|(_, c)| c.len() as u64).sum()), "{usage}");
    let verified = json_with(&data, &env, &["storage", "verify", "--read-data", "--json"]);
    assert_eq!(verified["damaged"], 0, "{verified}");
    let totals = &json_with(&data, &env, &["shard", "list", "--json"])["shards"];
    let namespaces: u64 = (0..3).map(|n| totals[n]["totals"]["namespaces"].as_u64().unwrap()).sum();
    assert_eq!(namespaces, 1, "{totals}");
}
