//! Backup and restore: made under load, wiped, brought back, verified. Nothing that was acknowledged before is missing.

use super::process::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out
}

fn content(n: usize) -> Vec<u8> {
    (0..2000 + n).map(|i| (i * 31 + n * 7) as u8).collect()
}

#[test]
fn a_backup_under_load_brings_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let relay = Relay::start(&data, &[]);
    let token = relay.login();
    let mut before = BTreeMap::new();
    for n in 0..20 {
        before.insert(n, relay.upload(&token, &format!("before {n}"), &content(n)));
    }
    // Somebody writes all the time, and the sweep goes round.
    let stop = AtomicBool::new(false);
    let create = ["backup", "create", "-o", backup.to_str().unwrap(), "--json"];
    let (report, during) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 1000;
            while !stop.load(Ordering::SeqCst) || n < 1005 {
                relay.upload(&token, &format!("during {n}"), &content(n));
                n += 1;
            }
            n - 1000
        });
        let sweeper = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                stdout(&run(&data, &["storage", "gc"]));
            }
        });
        let report = json(&data, &create);
        stop.store(true, Ordering::SeqCst);
        sweeper.join().unwrap();
        (report, writer.join().unwrap())
    });
    assert!(during >= 5 && report["packs"].as_u64() >= Some(20), "{report}");
    assert!(stdout(&run(&data, &["backup", "verify", backup.to_str().unwrap()])).contains("the backup is whole"));
    // One that was broken off before its manifest leaves the one before it whole.
    std::fs::create_dir(backup.join("database/7")).unwrap();
    std::fs::write(backup.join("database/7/relay.db"), "half").unwrap();
    std::fs::write(backup.join("packs-7.tsv"), "half").unwrap();
    stdout(&run(&data, &["backup", "verify", backup.to_str().unwrap()]));
    // Again into the same directory: what is there is not copied again.
    let packs_now = json(&data, &["storage", "stats", "--json"])["packs"].as_u64().unwrap();
    let again = json(&data, &create);
    assert!(again["packs_copied"].as_u64().unwrap() <= packs_now - report["packs"].as_u64().unwrap(), "{again}");
    let copied_third = json(&data, &create)["packs_copied"].as_u64();
    assert_eq!(copied_third, Some(0));
    assert_eq!(std::fs::read_dir(backup.join("database")).unwrap().count(), 1, "older databases are gone");
    assert!(!backup.join("packs-7.tsv").exists());
    let told = get(relay.admin, "/metrics").unwrap().text();
    assert!(told.contains("ferry_relay_backup_last_success_timestamp_seconds"), "{told}");
    assert!(stdout(&run(&data, &["audit", "list", "--json"])).contains("backup.created"));
    // What comes after the last backup is lost here; devices would send it again.
    relay.upload(&token, "after", b"after the backup");
    drop(relay);
    std::fs::remove_dir_all(&data).unwrap();

    let restored = json(&data, &["backup", "restore", backup.to_str().unwrap(), "--json"]);
    assert_eq!(restored["packs"], again["packs"]);
    let verified = json(&data, &["storage", "verify", "--read-data", "--json"]);
    assert_eq!((verified["damaged"].as_u64(), verified["packs_wrong"].as_u64()), (Some(0), Some(0)), "{verified}");
    let relay = Relay::start(&data, &[]);
    // Keys came along: the tokens of before are good.
    for (n, file) in &before {
        let answer = relay.call("GET", &format!("/download/{file}"), &token, None);
        assert_eq!((answer.status, answer.body), (200, content(*n)), "before {n}");
    }
    // A cursor of the former life is told to start over, and nothing is deleted (I3, I11).
    let spaces = relay.call("GET", "/sync/v1/namespaces", &token, None).json();
    assert_eq!(spaces[0]["epoch"], restored["epoch"], "{spaces}");
    let old = format!("/sync/v1/{}/delta?since=1&epoch={}", spaces[0]["id"].as_str().unwrap(), "0".repeat(32));
    assert_eq!(relay.call("GET", &old, &token, None).json()["code"], "epoch_changed");
    // A restore overwrites nothing.
    drop(relay);
    let refused = run(&data, &["backup", "restore", backup.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(8), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn damage_of_a_backup_is_found_and_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let relay = Relay::start(&data, &[]);
    let token = relay.login();
    relay.upload(&token, "a", &content(1));
    relay.upload(&token, "b", &content(2));
    json(&data, &["backup", "create", "-o", backup.to_str().unwrap(), "--json"]);
    let verify = |code: i32| {
        let output = run(&data, &["backup", "verify", backup.to_str().unwrap(), "--json"]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    };
    verify(0);
    let packs: Vec<_> = files_below(&backup.join("packs"));
    assert_eq!(packs.len(), 2);
    let good = std::fs::read(&packs[0]).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&packs[0], &bad).unwrap();
    verify(6);
    let other = dir.path().join("other");
    let restore = |code: i32, part: &str| {
        let output = run(&other, &["backup", "restore", backup.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(part), "{said}");
        assert!(!other.join("relay.db").exists(), "a restore that failed leaves no database behind");
    };
    restore(6, "not what was backed up");
    std::fs::write(&packs[0], &good).unwrap();
    verify(0);
    // A row's pack that is not there, and a manifest that lies.
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(backup.join("manifest.json")).unwrap()).unwrap();
    let list = backup.join(manifest["packs_list"].as_str().unwrap());
    let lines = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, lines.lines().next().unwrap().to_owned() + "\n").unwrap();
    verify(6);
    restore(6, ".tsv is not what was backed up");
    std::fs::write(&list, lines).unwrap();
    std::fs::remove_file(backup.join("manifest.json")).unwrap();
    verify(6);
    restore(6, "no whole backup");
    // What is not a backup is not written into.
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    let output = run(&data, &["backup", "create", "-o", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Breaks what can be counted anew, with the words of its own database, and has it repaired.
pub fn repaired(data: &Path, env: &[(&str, &str)], breaks: impl FnOnce()) {
    breaks();
    let found = run_with(data, env, &["storage", "verify", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(6));
    let (refs, usage) = (report["rows"]["refs_wrong"].as_u64().unwrap(), report["rows"]["usage_wrong"].as_u64().unwrap());
    assert!(refs > 0 && usage > 0, "{report}");
    for (words, left) in [(&["storage", "repair", "--dry-run", "--json"][..], 6), (&["storage", "repair", "--json"], 0)] {
        let report = json_with(data, env, words);
        assert_eq!((&report["refs_corrected"], &report["usage_corrected"]), (&json!(refs), &json!(usage)), "{report}");
        assert_eq!(run_with(data, env, &["storage", "verify"]).status.code(), Some(left));
    }
}

#[test]
fn what_can_be_counted_anew_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    let token = relay.login();
    relay.upload(&token, "a", &content(1));
    relay.upload(&token, "b", &content(2));
    drop(relay);
    repaired(&data, &[], || {
        let statement = "UPDATE namespace_chunks SET refs = refs + 3; UPDATE users SET storage_used = 7;";
        let done = std::process::Command::new("sqlite3").arg(data.join("relay.db")).arg(statement).status();
        assert!(done.expect("sqlite3 is there").success());
    });
    // Bytes that were gone and are back: the mark goes, and nobody has to send them.
    let pack = files_below(&data.join("blobs")).into_iter().find(|p| p.extension().is_some_and(|e| e == "pack")).unwrap();
    let aside = dir.path().join("aside");
    std::fs::rename(&pack, &aside).unwrap();
    assert_eq!(run(&data, &["storage", "verify"]).status.code(), Some(6));
    assert_eq!(json(&data, &["storage", "repair", "--json"])["chunks_still_damaged"], 1);
    std::fs::rename(&aside, &pack).unwrap();
    assert_eq!(json(&data, &["storage", "repair", "--json"])["chunks_sound_again"], 1);
    assert_eq!(json(&data, &["storage", "stats", "--json"])["damaged_chunks"], 0);
    assert!(stdout(&run(&data, &["storage", "verify", "--read-data"])).contains("there and whole"));
}

/// The operator's side of a database and chunks of different times (P19): what is missing is listed, marked, and heals when it comes again.
#[test]
fn a_database_newer_than_its_chunks_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    let token = relay.login();
    let kept = relay.upload(&token, "kept", &content(1));
    let old: Vec<_> = files_below(&data.join("blobs")).into_iter().filter(|p| p.extension().is_some_and(|e| e == "pack")).collect();
    let lost = relay.upload(&token, "lost", &content(2));
    drop(relay);
    // The chunk directory of yesterday.
    for path in files_below(&data.join("blobs")).iter().filter(|p| p.extension().is_some_and(|e| e == "pack") && !old.contains(p)) {
        std::fs::remove_file(path).unwrap();
    }
    let output = run(&data, &["storage", "verify", "--json"]);
    assert_eq!(output.status.code(), Some(6));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let chunk = ferry_protocol::ChunkId::of(&content(2)).to_string();
    assert_eq!((&report["damaged_chunks"], &report["packs_wrong"]), (&json!([chunk]), &json!(1)));
    let relay = Relay::start(&data, &[]);
    assert_eq!(relay.call("GET", &format!("/download/{kept}"), &token, None).status, 200);
    // An error, or an answer that is broken off before its announced end: never wrong bytes, nor a whole answer with too few.
    let broken = relay.call("GET", &format!("/download/{lost}"), &token, None);
    let announced = format!("content-length: {}", content(2).len());
    assert!(broken.status >= 500 || (broken.body.is_empty() && broken.head.to_ascii_lowercase().contains(&announced)), "{}", broken.head);
    // Somebody who has the bytes sends them again.
    let spaces = relay.call("GET", "/sync/v1/namespaces", &token, None).json();
    let mut body = ferry_protocol::wire::ChunkFrame::header(ferry_protocol::ChunkId::of(&content(2)), content(2).len()).to_vec();
    body.extend(content(2));
    let headers = format!("Content-Type: {}\r\nAuthorization: Bearer {token}\r\n", ferry_protocol::wire::CHUNKS_CONTENT_TYPE);
    let path = format!("/upload/v1/{}/chunks", spaces[0]["id"].as_str().unwrap());
    assert_eq!(ask(relay.addr, "POST", &path, &headers, &body).unwrap().status, 200);
    assert_eq!(relay.call("GET", &format!("/download/{lost}"), &token, None).body, content(2));
    assert!(stdout(&run(&data, &["storage", "verify", "--read-data"])).contains("there and whole"));
}
