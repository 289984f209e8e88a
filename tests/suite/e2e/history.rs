//! Versions by the command line: listed, compared, named, saved elsewhere, brought back on all devices, out of the trash too; and rules for how long.

use ferry_tests::cluster::Cluster;
use ferry_tests::device::Answer;
use serde_json::Value;

fn run(cluster: &Cluster, words: &[&str]) -> Answer {
    cluster.devices[0].run(words)
}

fn document(cluster: &Cluster, words: &[&str]) -> Value {
    let answer = run(cluster, &[words, &["--json"]].concat());
    assert_eq!(answer.code, 0, "{words:?}: {}{}", answer.out, answer.err);
    serde_json::from_str(&answer.out).expect("JSON")
}

fn refused(cluster: &Cluster, words: &[&str]) -> (i32, String) {
    let answer = run(cluster, &[words, &["--json"]].concat());
    let error: Value = serde_json::from_str(&answer.err).unwrap_or_else(|e| panic!("{e}: {}{}", answer.out, answer.err));
    (answer.code, error["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn versions_are_listed_compared_saved_and_brought_back() {
    let mut cluster = Cluster::new(2);
    let place = cluster.devices[0].path("d/notes.txt");
    let path = place.to_str().expect("UTF-8").to_owned();
    let path = path.as_str();
    std::fs::create_dir(place.parent().expect("a folder")).expect("made");
    // Beside which the deletion below is a small one.
    (0..10).for_each(|n| std::fs::write(cluster.devices[0].path(format!("other {n}")), "other").expect("written"));
    for text in ["one\ntwo\n", "one\n2\n"] {
        std::fs::write(&place, text).expect("written");
        cluster.settle();
    }
    let history = document(&cluster, &["history", path]);
    let of = |n: usize| &history["versions"][n];
    assert_eq!(
        (history["total"].as_u64(), of(0)["version_number"].as_u64(), of(0)["is_current"].as_bool()),
        (Some(2), Some(2), Some(true))
    );
    assert_eq!((of(0)["by_me"].as_bool(), of(0)["origin"].as_str(), of(1)["cost_bytes"].as_u64()), (Some(true), Some("device"), Some(8)));
    let shown = run(&cluster, &["history", path]);
    assert!(shown.out.contains("current") && shown.out.contains("you"), "{}", shown.out);
    let named = document(&cluster, &["history", path, "--version", "1", "--label", "as sent"]);
    assert_eq!((named["label"].as_str(), named["version_number"].as_u64()), (Some("as sent"), Some(1)));

    // What changed last, between two versions, and with an edit that is not synced.
    let last = run(&cluster, &["diff", path]);
    assert!(last.out.contains("@@ -1,2 +1,2 @@\n one\n-two\n+2\n"), "{}{}", last.out, last.err);
    assert_eq!(document(&cluster, &["diff", path, "2", "1"])["hunks"][0]["lines"][1]["text"], "2");
    assert_eq!(refused(&cluster, &["diff", path, "7", "1"]), (7, "version_not_found".into()));
    cluster.devices[0].ok(&["pause"]);
    std::fs::write(&place, "one\n2\nthree\n").expect("written");
    assert_eq!(document(&cluster, &["diff", path])["added"], 1);
    assert_eq!(document(&cluster, &["diff", path, "1"])["added"], 2);
    std::fs::write(&place, b"\0binary").expect("written");
    assert_eq!(refused(&cluster, &["diff", path]), (1, "not_text".into()));
    std::fs::write(&place, "one\n2\n").expect("written");
    cluster.devices[0].ok(&["resume"]);
    cluster.settle();

    // Saved elsewhere: whole, and over nothing.
    let copy = cluster.devices[0].home().join("copy.txt");
    let to = copy.to_str().expect("UTF-8");
    assert_eq!(document(&cluster, &["restore", path, "--version", "1", "--to", to])["size"], 8);
    assert_eq!(std::fs::read(&copy).expect("saved"), b"one\ntwo\n");
    assert_eq!(refused(&cluster, &["restore", path, "--version", "2", "--to", to]), (8, "exists".into()));

    // Back on both devices, as a new version; and what it was by the hint.
    assert_eq!(refused(&cluster, &["restore", path]), (2, "usage".into()));
    let current = document(&cluster, &["history", path])["versions"][0]["version_number"].clone();
    let back = document(&cluster, &["restore", path, "--version", "v1"]);
    assert!(back["undo"].as_str().is_some_and(|undo| undo.ends_with(&format!("--version {current}"))), "{back}");
    cluster.settle();
    assert_eq!(std::fs::read(cluster.devices[1].path("d/notes.txt")).expect("there"), b"one\ntwo\n");
    assert_eq!(document(&cluster, &["history", path])["versions"][0]["same_as"], 1);

    // Gone with its folder, and back where it was.
    std::fs::remove_dir_all(place.parent().expect("a folder")).expect("removed");
    cluster.settle();
    assert_eq!(document(&cluster, &["history", path])["is_deleted"], true);
    assert_eq!(document(&cluster, &["restore", path])["from_trash"], true);
    cluster.settle();
    assert_eq!(std::fs::read(&place).expect("back"), b"one\ntwo\n");
    assert_eq!(refused(&cluster, &["history", cluster.devices[0].path("d/never").to_str().expect("UTF-8")]), (7, "not_on_relay".into()));

    rules(&cluster, path);
}

fn rules(cluster: &Cluster, path: &str) {
    let folder = cluster.devices[0].root().to_str().expect("UTF-8").to_owned();
    let total = || document(cluster, &["history", path])["total"].as_u64();
    let before = total();
    let preview = document(cluster, &["retention", "set", "--folder", &folder, "--max-versions", "1", "--dry-run"]);
    assert!(preview["versions"].as_u64().is_some_and(|gone| gone > 0), "{preview}");
    let rule = document(cluster, &["retention", "set", "--folder", &folder, "--max-versions", "1", "--yes"]);
    assert_eq!((rule["rule"]["max_versions"].as_u64(), rule["effective"]["max_versions"].as_u64()), (Some(1), Some(1)));
    assert_eq!(total(), before, "a new rule waits");
    let done = cluster.relay.run(&["retention", "run", "--json"]);
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["versions"], preview["versions"], "what was said goes");
    let left = document(cluster, &["history", path]);
    assert!(left["versions"].as_array().into_iter().flatten().any(|version| version["label"] == "as sent"), "{left}");
    assert_eq!(document(cluster, &["retention", "clear", "--folder", &folder])["rule"], Value::Null);
    let shown = run(cluster, &["retention", "show"]);
    assert!(shown.out.contains("kept for ever"), "{}", shown.out);
    cluster.relay.verify();
}
