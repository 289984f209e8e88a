//! Group B, the rows with settings or things of their own: ignored, odd, unreadable and adopted files, and folders that are refused.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::poll::until;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// B28, B44, B45: ignored is not absent. A rule for a synced file deletes nothing; an ignored file outlives its folder's deletion; what
/// was ignored and gone comes back when the rule goes.
#[test]
fn ignored_is_not_absent() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put(&a, "kept.log", 1);
    put(&a, "plain", 2);
    cluster.settle();
    fs::write(cluster.devices[0].path(".ferryignore"), "*.log\n").expect("room");
    cluster.settle();
    holds(&b, "kept.log", 1).expect("B44: a rule deletes nothing");
    put(&b, "own.log", 3);
    cluster.devices[1].ok(&["folder", "scan", ferry_tests::cluster::NAMESPACE]);
    rm(&a, "kept.log");
    rm(&a, "plain");
    until("the plain file is deleted on B", Duration::from_secs(60), || gone(&b, "plain"));
    holds(&b, "kept.log", 1).expect("B45: the absence of an ignored file is no delete");
    holds(&b, "own.log", 3).expect("B28: an ignored file is nobody else's");
    gone(&a, "own.log").expect("an ignored file does not travel");
    fs::write(cluster.devices[0].path(".ferryignore"), "\n").expect("room");
    cluster.settle();
    holds(&a, "kept.log", 1).expect("B45: it comes back when the rule goes");
    holds(&a, "own.log", 3).expect("and B's own file travels now");
    cluster.finish();
}

/// B30, B31, I12: a link out of the folder is a link, never followed; the canary behind it stays as it is.
#[test]
fn b30_links_out_of_the_folder_are_not_followed() {
    let mut cluster = Cluster::new(2);
    symlink(cluster.canary(), cluster.devices[0].path("out")).expect("a link");
    symlink(cluster.canary().join("sings"), cluster.devices[0].path("out.txt")).expect("a link");
    cluster.settle();
    let b = &cluster.devices[1];
    assert!(b.path("out").is_symlink() && b.path("out.txt").is_symlink());
    // The link becomes a real folder with a file of the canary's name: nothing may be written through the other side's link.
    fs::remove_file(cluster.devices[0].path("out")).expect("the link");
    put(&cluster.devices[0].path("out"), "sings", 1);
    cluster.settle();
    assert!(cluster.devices[1].path("out").symlink_metadata().is_ok_and(|m| m.is_dir()));
    cluster.finish();
}

/// B33: what cannot be synced is skipped, reported, and holds up nothing.
#[test]
fn b33_fifos_and_sockets_are_skipped_and_said() {
    let mut cluster = Cluster::new(2);
    let a = cluster.devices[0].path("d");
    put(&a, "before", 1);
    let mode = rustix::fs::Mode::from_bits_truncate(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, a.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(a.join("socket")).expect("a socket");
    put(&a, "zafter", 2);
    cluster.settle();
    let b = cluster.devices[1].path("d");
    only(&b, &["before", "zafter"]).expect("the rest arrived");
    let said = cluster.devices[0].issues();
    assert!(["d/fifo", "d/socket"].iter().all(|p| said.iter().any(|(_, path)| path.ends_with(p))), "said in the status: {said:?}");
    let why = cluster.devices[0].run(&["why", &a.join("fifo").display().to_string()]);
    assert!(why.code == 0 && !why.out.is_empty(), "{why:?}");
    cluster.finish();
}

/// B54: special permission bits never come from outside.
#[test]
fn b54_set_user_id_does_not_travel() {
    let mut cluster = Cluster::new(2);
    let a = cluster.devices[0].path("d");
    put(&a, "tool", 1);
    cluster.settle();
    chmod(&a, "tool", 0o4755);
    cluster.devices[0].ok(&["folder", "scan", ferry_tests::cluster::NAMESPACE]);
    let b = cluster.devices[1].path("d/tool");
    let mode = || fs::metadata(&b).map_or(0, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o7777);
    until("the plain bits arrive", Duration::from_secs(60), || is(&format!("{:o}", mode()), mode() == 0o755));
    chmod(&a, "tool", 0o755);
    cluster.settle();
    cluster.finish();
}

/// B59: folders that cannot be are refused in one sentence, and nothing changes.
#[test]
fn b59_impossible_folders_are_refused() {
    let cluster = Cluster::new(1);
    let a = &cluster.devices[0];
    fs::create_dir_all(a.path("inner")).expect("a folder");
    let file = cluster.folder().join("a file");
    fs::write(&file, "x").expect("room");
    let refused = |path: &str| {
        let answer = a.run(&["folder", "add", path, "--name", "Other"]);
        assert!(answer.code != 0 && !answer.err.is_empty(), "{path}: {answer:?}");
    };
    for path in [a.root(), &a.path("inner"), cluster.folder(), std::path::Path::new("/"), a.home(), &file] {
        refused(&path.display().to_string());
    }
    assert_eq!(a.status()["folders"].as_array().map(Vec::len), Some(1));
    cluster.finish();
}

/// B60: both had files before they were linked. Equal files become one without a transfer, differing ones are kept side by side, and
/// nothing is deleted.
#[test]
fn b60_existing_files_are_adopted() {
    let mut cluster = Cluster::with_setup(2, |devices| {
        for (i, device) in devices.iter().enumerate() {
            let d = device.path("d");
            (0..300).for_each(|k| put(&d, &format!("equal/{}/{k}", k % 10), k));
            put(&d, "differs.txt", 1000 + i as u32);
            put(&d, &format!("only on {i}"), 2000 + i as u32);
        }
    });
    cluster.settle();
    for device in &cluster.devices {
        let d = device.path("d");
        let checks = [
            only(&d.join("equal"), &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
            is("no twin of an equal file", (0..10).all(|n| names(&d.join(format!("equal/{n}"))).len() == 30)),
            kept_beside(&d, "differs.txt", &[1000, 1001]),
            holds(&d, "only on 0", 2000).and(holds(&d, "only on 1", 2001)),
        ];
        checks.into_iter().for_each(|c| c.unwrap_or_else(|what| panic!("{}: {what}", device.name())));
    }
    let received = cluster.devices[1].relay_bytes().0;
    assert!(received < 200_000, "equal files are not fetched: {received} bytes came in");
    cluster.finish();
}

/// B07: what was deleted is in the trash and comes back with its bytes and mode.
#[test]
fn b07_the_trash_gives_back() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put(&a, "tool", 1);
    put(&a, "stays", 2);
    chmod(&a, "tool", 0o755);
    cluster.settle();
    rm(&a, "tool");
    cluster.settle();
    gone(&b, "tool").expect("deleted");
    let list = cluster.devices[1].ok(&["trash", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let entries = json.as_array().cloned().or_else(|| json["entries"].as_array().cloned()).or_else(|| json["items"].as_array().cloned());
    let entry = entries.into_iter().flatten().find(|e| e.to_string().contains("tool")).unwrap_or_else(|| panic!("in the trash: {list}"));
    let id = entry["id"].as_str().map_or_else(|| entry["id"].to_string(), String::from);
    cluster.devices[1].ok(&["trash", "restore", &id]);
    until("it is back on both", Duration::from_secs(60), || holds(&a, "tool", 1).and(holds(&b, "tool", 1)));
    cluster.settle();
    let mode = fs::metadata(a.join("tool")).map_or(0, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777);
    assert_eq!(mode, 0o755, "with its mode");
    cluster.finish();
}
