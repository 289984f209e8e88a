//! Two edits of one text on real devices: merged where that is clean and turned on, a conflicted copy where not, both sides in the relay's history.

use super::rows::*;
use ferry_tests::api::Api;
use ferry_tests::cluster::{Cluster, NAMESPACE};
use ferry_tests::tree::hash;
use reqwest::Method;
use serde_json::Value as Json;
use std::fs;
use std::path::Path;

const LINES: usize = 200;

/// A text in which these lines are changed.
fn text(changed: &[(usize, &str)]) -> String {
    (0..LINES).map(|n| changed.iter().find(|(at, _)| *at == n).map_or(format!("line {n}\r\n"), |(_, line)| format!("{line}\r\n"))).collect()
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::create_dir_all(dir).expect("a folder");
    fs::write(dir.join(name), text).expect("a text");
}

fn merging(cluster: &Cluster, devices: &[usize]) {
    for device in devices {
        let shown = cluster.devices[*device].ok(&["folder", "set", NAMESPACE, "merge-text=true"]);
        assert!(shown.contains("is changed"), "{shown}");
        let shown = cluster.devices[*device].ok(&["folder", "show", NAMESPACE]);
        assert!(shown.contains("are merged"), "{shown}");
    }
}

fn reads(dir: &Path, name: &str, expected: &str) -> Verdict {
    let held = fs::read_to_string(dir.join(name)).unwrap_or_default();
    is(
        &format!("{name} holds {} bytes:\n{}", held.len(), held.lines().filter(|l| !l.starts_with("line ")).collect::<Vec<_>>().join("\n")),
        held == expected,
    )
}

#[test]
fn edits_of_two_devices_become_one_version() {
    let mut cluster = Cluster::new(3);
    merging(&cluster, &[0, 1]);
    let dir = cluster.devices[0].path("d");
    write(&dir, "notes.txt", &text(&[]));
    write(&dir, "same.txt", &text(&[]));
    write(&dir, "mode.sh", &text(&[]));
    cluster.settle();
    cluster.devices[..2].iter_mut().for_each(|d| d.stop());
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    let (first, second) = (text(&[(3, "A was here")]), text(&[(150, "B was here")]));
    write(&a, "notes.txt", &first);
    write(&b, "notes.txt", &second);
    write(&a, "same.txt", &text(&[(7, "A's")]));
    write(&b, "same.txt", &text(&[(7, "B's")]));
    chmod(&a, "mode.sh", 0o755);
    write(&b, "mode.sh", &text(&[(0, "#!/bin/sh")]));
    for device in &mut cluster.devices[..2] {
        device.start();
        assert_eq!(device.run(&["wait", "--timeout", "60"]).code, 0);
    }
    cluster.settle();
    let both = text(&[(3, "A was here"), (150, "B was here")]);
    for device in &cluster.devices {
        let dir = device.path("d");
        reads(&dir, "notes.txt", &both).and(reads(&dir, "mode.sh", &text(&[(0, "#!/bin/sh")]))).unwrap();
        let copies: Vec<String> = names(&dir).into_iter().filter(|n| n.contains("conflicted copy")).collect();
        assert!(matches!(&copies[..], [only] if only.starts_with("same ")), "{}: {copies:?}", device.name());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.join("mode.sh")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o755, "{}", device.name());
    }
    let told: Vec<String> = cluster.devices.iter().map(|d| d.ok(&["activity"])).collect();
    assert!(told.iter().any(|t| t.contains("notes.txt was changed on two sides; both edits were merged")), "{told:?}");
    assert!(!told.iter().take(2).any(|t| t.contains("notes (conflicted copy")), "no copy came and went: {told:?}");

    // Both sides are versions in the history, and the next edit follows the merge.
    let api = Api::login(&cluster.relay);
    let list = api.json(Method::GET, &format!("/metadata/files?space_id={}&path=/d", api.space(NAMESPACE)), &Json::Null);
    let file = list["files"].as_array().unwrap().iter().find(|f| f["file_name"] == "notes.txt").unwrap_or_else(|| panic!("{list}"));
    let versions = api.json(Method::GET, &format!("/api/v1/files/{}/versions", file["file_id"].as_str().unwrap()), &Json::Null).to_string();
    for side in [text(&[]), first, second, both] {
        assert!(versions.contains(&hash(side.as_bytes())), "a side is not in the history: {versions}");
    }
    write(&b, "notes.txt", &text(&[(3, "A was here"), (150, "B was here"), (60, "and again")]));
    cluster.settle();
    reads(&a, "notes.txt", &text(&[(3, "A was here"), (150, "B was here"), (60, "and again")])).unwrap();
    assert_eq!(names(&a).len(), 4);
    cluster.finish();
}

/// Off by default, and off again: then a conflict is what it always was.
#[test]
fn without_the_setting_a_conflict_stays_one() {
    let mut cluster = Cluster::new(2);
    let dir = cluster.devices[0].path("d");
    write(&dir, "notes.txt", &text(&[]));
    cluster.settle();
    merging(&cluster, &[0, 1]);
    cluster.settle();
    assert!(cluster.devices[0].root().join(".ferry/bases").exists());
    for device in &cluster.devices {
        device.ok(&["folder", "set", NAMESPACE, "merge-text=false"]);
    }
    cluster.devices.iter_mut().for_each(|d| d.stop());
    write(&cluster.devices[0].path("d"), "notes.txt", &text(&[(3, "A was here")]));
    write(&cluster.devices[1].path("d"), "notes.txt", &text(&[(150, "B was here")]));
    cluster.devices.iter_mut().for_each(|d| d.start());
    cluster.settle();
    assert_eq!(names(&cluster.devices[0].path("d")).len(), 2);
    assert!(!cluster.devices[0].root().join(".ferry/bases").exists(), "what was kept is gone with the setting");

    // Settled by the place of what is kept, on any device.
    let copy = names(&dir).into_iter().find(|n| n.contains("conflicted copy")).expect("a conflicted copy");
    let kept = fs::read_to_string(dir.join(copy)).unwrap();
    let list: Json = serde_json::from_str(&cluster.devices[0].ok(&["conflict", "list", "--json"])).unwrap();
    let id = list["conflicts"][0]["id"].as_str().unwrap_or_else(|| panic!("{list}"));
    cluster.devices[0].ok(&["conflict", "resolve", id, "--keep-copy"]);
    cluster.settle();
    for device in &cluster.devices {
        reads(&device.path("d"), "notes.txt", &kept).and(only(&device.path("d"), &["notes.txt"])).unwrap();
    }
    cluster.finish();
}
