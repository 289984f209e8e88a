//! L23 and P15: a member's device that rewrites and deletes everything, and a device that was away for longer than anything is kept elsewhere.

use super::rows::*;
use ferry_tests::cluster::{Cluster, NAMESPACE, PATIENCE};
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::tree;
use std::fs;
use std::time::Duration;

const FILES: u32 = 150;

/// What a status says of many changes by another device: message and hint.
fn notices(device: &Device) -> Vec<(String, String)> {
    let status = device.status();
    let issues = status["folders"][0]["issues"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    issues.iter().filter(|i| i["code"] == "mass_change").map(|i| (text(&i["message"]), text(&i["hint"]))).collect()
}

/// L23: three devices, one of them infected: the others are told who it was and how much, and one command takes all of it back.
#[test]
fn l23_an_infected_device() {
    let mut cluster = Cluster::new(3);
    let d = cluster.devices[0].path("d");
    (0..FILES).for_each(|k| put(&d, &format!("file {k}"), k));
    cluster.settle();
    let good = tree::read(cluster.devices[0].root());
    // The relay's clock and the devices' are one: what follows is later than what was.
    pause(Duration::from_millis(1500));
    let evil = cluster.devices[2].path("d");
    (0..110).for_each(|k| put(&evil, &format!("file {k}"), 1000 + k));
    (0..20).for_each(|k| mv(&evil, &format!("file {k}"), &format!("file {k}.locked")));
    (110..FILES).for_each(|k| rm(&evil, &format!("file {k}")));
    put(&evil, "PAY ME", 2000);
    cluster.settle();
    for victim in [0, 1] {
        let device = &cluster.devices[victim];
        let (message, hint) = until("the notice", PATIENCE, || notices(device).into_iter().next().ok_or("none".to_owned()));
        assert!(message.starts_with("C changed "), "{message}");
        assert!(hint.contains(&format!("ferry folder rewind '{NAMESPACE}' --to ")), "{hint}");
        holds(&device.path("d"), "file 30", 1030).expect("nothing was held up");
    }
    assert!(notices(&cluster.devices[2]).is_empty(), "who does it is not told of it");
    // It stays until somebody takes note, also after a restart.
    cluster.devices[1].stop();
    cluster.devices[1].start();
    until("the notice after a restart", PATIENCE, || notices(&cluster.devices[1]).into_iter().next().ok_or("none".to_owned()));

    // The command that the notice names.
    let hint = notices(&cluster.devices[0]).remove(0).1;
    let command = hint.split("with: ferry ").nth(1).and_then(|h| h.split(" --dry-run").next()).expect("a command").replace('\'', "");
    let words: Vec<&str> = command.split_whitespace().collect();
    let before = tree::read(cluster.devices[0].root());
    let plan = cluster.devices[0].ok(&[&words[..], &["--dry-run", "--json"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("a plan");
    let count = |name: &str| plan["counts"][name].as_u64().unwrap_or(0);
    assert_eq!((count("restored") + count("reverted"), count("kept_for_others")), (u64::from(FILES), 0), "{plan}");
    assert!(count("restored") >= 40 && count("removed") >= 1, "{plan}");
    assert!(tree::differences(&before, &tree::read(cluster.devices[0].root())).is_empty(), "a plan changes nothing");
    let done = cluster.devices[0].ok(&[&words[..], &["--yes"]].concat());
    assert!(done.contains("take this back with"), "{done}");
    cluster.settle();
    for device in &cluster.devices {
        let differences = tree::differences(&good, &tree::read(device.root()));
        assert!(differences.is_empty(), "{}: {differences:?}", device.name());
    }
    cluster.devices[0].ok(&["folder", "dismiss", NAMESPACE]);
    until("no notice of it any more", PATIENCE, || {
        let left = notices(&cluster.devices[0]);
        if left.iter().any(|(message, _)| message.starts_with("C ")) { Err(format!("{left:?}")) } else { Ok(()) }
    });
    let again = cluster.devices[0].run(&["folder", "dismiss", "no such folder"]);
    assert_eq!(again.code, 7, "{again:?}");
    cluster.finish();
}

/// Everything is deleted while a device is away, the trash is emptied for good and the relay sweeps. The device comes back with an edit of its own.
fn away_for_long(cluster: &mut Cluster, back: impl FnOnce(&mut Cluster)) {
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..10).for_each(|k| put(&a, &format!("file {k}"), k));
    put(&a.join("deep/er"), "below", 20);
    cluster.settle();
    cluster.devices[1].stop();
    put(&b, "file 3", 303);
    put(&b, "made while away", 304);
    fs::remove_dir_all(&a).expect("the folder's content");
    cluster.devices[0].until_state("held");
    cluster.devices[0].ok(&["folder", "approve", NAMESPACE]);
    cluster.settle();
    back(cluster);
    cluster.devices[1].start();
    // Its edits live, and what they stand in; nothing else comes back by itself.
    until("its edits, and only those", PATIENCE, || {
        let is_so = |d| only(d, &["file 3", "made while away"]).and(holds(d, "file 3", 303)).and(holds(d, "made while away", 304));
        is_so(&a).and_then(|()| is_so(&b))
    });
    // Its stale files did not vanish without a trace: they rest in its own trash.
    let trash: Vec<String> = tree::all_files(&cluster.devices[1].root().join(".ferry/trash"))
        .iter()
        .filter_map(|p| fs::read(p).ok())
        .map(|b| tree::hash(&b))
        .collect();
    let b_dir = b.as_path();
    for k in (0..10).filter(|k| *k != 3) {
        assert!(trash.contains(&tree::hash(&bytes(b_dir, k))), "file {k} is in the trash of the device that was away");
    }
    assert!(trash.contains(&tree::hash(&bytes(&b.join("deep/er"), 20))), "what was deeper too");
}

/// P15 over the relay.
#[test]
fn p15_away_while_everything_was_deleted_and_forgotten() {
    let mut cluster = Cluster::new(2);
    away_for_long(&mut cluster, |cluster| {
        let words = ["trash", "purge", "--relay", "--all", "--folder", NAMESPACE, "--yes", "--json"];
        let answer: serde_json::Value = serde_json::from_str(&cluster.devices[0].ok(&words)).expect("a document");
        assert!(answer["count"].as_u64().is_some_and(|n| n >= 12), "{answer}");
        let gc = cluster.relay.storage(&["gc"]);
        assert!(gc.status.success());
    });
    cluster.settle();
    cluster.finish();
}

/// P15 over the LAN alone: the relay is away when the device comes back.
#[test]
fn p15_away_and_back_without_the_relay() {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let devices = ["A", "B"].map(|name| Device::new(folder.path(), name).with_lan()).into();
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    let addresses: Vec<String> = cluster.devices.iter().map(|d| d.lan_address().to_string()).collect();
    cluster.devices[0].ok(&["config", "set", "lan.peers", &addresses[1]]);
    cluster.devices[1].ok(&["config", "set", "lan.peers", &addresses[0]]);
    until("they have met", PATIENCE, || {
        let status = cluster.devices[0].try_status()?;
        if status["peers"].as_array().is_some_and(|p| !p.is_empty()) { Ok(()) } else { Err(status["peers"].to_string()) }
    });
    away_for_long(&mut cluster, |cluster| cluster.links.iter().for_each(|link| link.cut()));
    cluster.links.iter().for_each(|link| link.heal());
    cluster.settle();
    cluster.finish();
}
