//! P19: the relay's database and its chunks come from backups of different times. What is lost is named, devices that have it send it again, and
//! nobody deletes anything. P16: a device's disk and index come from a backup.

use super::rows::*;
use ferry_tests::cluster::{Cluster, NAMESPACE, PATIENCE};
use ferry_tests::device::Device;
use ferry_tests::poll::until;
use ferry_tests::tree;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

const FILES: u32 = 12;

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn third(cluster: &Cluster) -> Device {
    let mut device = Device::new(cluster.folder(), "C");
    device.start();
    device.login(&cluster.relay.url());
    device.attach(NAMESPACE);
    device
}

/// Copies a directory with all that the files say of themselves.
fn copy_tree(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(done.success(), "cp -a {} {}", from.display(), to.display());
}

/// A device writes, its disk and index are restored to what they were before, and the same file is edited again.
fn restored(replaced_meanwhile: bool) {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put_bytes(&a, "f", b"version 1");
    cluster.settle();
    cluster.devices[0].stop();
    let (home, backup) = (cluster.devices[0].home().to_owned(), cluster.folder().join("backup"));
    copy_tree(&home, &backup);
    cluster.devices[0].start();
    put_bytes(&a, "f", b"version 2, forgotten");
    cluster.settle();
    if replaced_meanwhile {
        put_bytes(&b, "f", b"version 3, by the other");
        cluster.settle();
    }
    cluster.devices[0].stop();
    fs::remove_dir_all(&home).unwrap();
    copy_tree(&backup, &home);
    // It finds the edit before it hears of anything.
    cluster.relay.stop();
    put_bytes(&a, "f", b"edited after the restore");
    cluster.devices[0].start();
    until("the edit is taken in", PATIENCE, || {
        is("nothing is to be sent", cluster.devices[0].status()["folders"][0]["pending"]["upload"] == 1)
    });
    cluster.relay.resume();
    cluster.settle();
    let theirs = if replaced_meanwhile { "version 3, by the other" } else { "version 2, forgotten" };
    for dir in [&a, &b] {
        let held: Vec<String> = names(dir).into_iter().map(|name| fs::read_to_string(dir.join(name)).unwrap()).collect();
        for content in [theirs, "edited after the restore"] {
            assert!(held.iter().any(|text| text == content), "{content:?} is not in {}: {held:?}", dir.display());
        }
    }
    cluster.finish();
}

/// The edit's number is not that of the forgotten one, which everybody knows as replaced.
#[test]
fn p16_a_restored_devices_edit_is_not_taken_for_one_that_was_replaced() {
    restored(true);
}

/// The edit does not cover the forgotten one, which still stands.
#[test]
fn p16_a_restored_devices_edit_covers_nothing_that_stands() {
    restored(false);
}

/// Rows newer than blobs: chunks are missing.
#[test]
fn p19_the_chunks_are_older_than_the_database() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..FILES).for_each(|k| put(&a, &format!("old {k}"), k));
    cluster.settle();
    cluster.relay.stop();
    let backup = cluster.folder().join("backup");
    cluster.relay.copy_chunks(&backup);
    cluster.relay.resume();
    (0..FILES).for_each(|k| put(&a, &format!("new {k}"), 100 + k));
    let large = sized(&a, 200, 900_000);
    put_bytes(&a, "large", &large);
    cluster.settle();
    cluster.devices.iter_mut().for_each(Device::stop);
    cluster.relay.stop();
    cluster.relay.restore_blobs(&backup);

    let verify = cluster.relay.storage(&["verify"]);
    let text = said(&verify);
    assert!(!verify.status.success(), "{text}");
    for k in 0..FILES {
        let chunk = tree::hash(&bytes(&a, 100 + k));
        assert!(text.contains(&chunk) && text.contains(&format!("'new {k}'")), "{chunk} of 'new {k}' is not named: {text}");
        assert!(!text.contains(&tree::hash(&bytes(&a, k))), "'old {k}' is whole: {text}");
    }

    // Nobody who has the bytes is there: a device that wants them says so, has the rest, and nothing is deleted.
    cluster.relay.resume();
    let c = third(&cluster);
    let there = c.path("d");
    until("the third device has what the relay has", PATIENCE, || (0..FILES).try_for_each(|k| holds(&there, &format!("old {k}"), k)));
    let code = c.until_issue("new 0");
    assert_eq!(code, "content_unavailable");
    assert_ne!(c.folder_state(), "up_to_date");
    assert_eq!(cluster.relay.asked("SELECT count(*) FROM files WHERE is_deleted"), "0");

    // A device comes back that has them, with a new file that needs one of the lost chunks.
    put(&a, "needs what is lost", 105);
    cluster.devices[0].start();
    until("the third device has everything", PATIENCE, || {
        (0..FILES).try_for_each(|k| holds(&there, &format!("new {k}"), 100 + k))?;
        holds_bytes(&there, "large", &large).and(holds(&there, "needs what is lost", 105))
    });
    until("the relay has everything", PATIENCE, || {
        let verify = cluster.relay.storage(&["verify", "--read-data"]);
        if verify.status.success() { Ok(()) } else { Err(said(&verify)) }
    });
    assert_eq!(cluster.relay.asked("SELECT count(*) FROM chunks WHERE damaged_at IS NOT NULL"), "0");
    assert_eq!(cluster.relay.asked("SELECT count(*) FROM files WHERE is_deleted"), "0");
    cluster.devices[1].start();
    cluster.devices.push(c);
    cluster.settle();
    for d in [&a, &b, &there] {
        assert_eq!(names(d).len() as u32, 2 * FILES + 2, "{}", d.display());
    }
    cluster.finish();
}

/// Blobs newer than rows: what the database does not know is sent again, what nobody names goes with the sweep.
#[test]
fn p19_the_database_is_older_than_the_chunks() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..FILES).for_each(|k| put(&a, &format!("old {k}"), k));
    put(&a, "edited", 50);
    put(&a, "deleted later", 51);
    cluster.settle();
    cluster.relay.stop();
    let backup = cluster.relay.copy_stores(&cluster.folder().join("backup"));
    cluster.relay.resume();
    (0..FILES).for_each(|k| put(&a, &format!("new {k}"), 100 + k));
    put(&a, "edited", 52);
    rm(&a, "deleted later");
    cluster.settle();
    cluster.relay.stop();
    cluster.relay.restore_database(&backup);

    let verify = cluster.relay.storage(&["verify"]);
    let text = said(&verify);
    assert!(verify.status.success() && !text.contains(" 0 stray blobs"), "strays do no harm, and are counted: {text}");
    // Nobody names them any more, and they are old by the time the sweep looks.
    let strays = tree::all_files(&cluster.relay.blobs());
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    strays.iter().for_each(|path| {
        fs::File::options().write(true).open(path).and_then(|f| f.set_modified(long_ago)).expect("a blob's time");
    });
    let before = strays.len();
    cluster.relay.resume();
    cluster.settle();
    let gc = cluster.relay.storage(&["gc"]);
    assert!(gc.status.success(), "{}", said(&gc));
    assert!(strays.iter().filter(|path| path.exists()).count() < before, "the strays are gone: {}", said(&gc));
    let c = third(&cluster);
    let there = c.path("d");
    cluster.devices.push(c);
    cluster.settle();
    for d in [&a, &b, &there] {
        (0..FILES).for_each(|k| holds(d, &format!("old {k}"), k).and(holds(d, &format!("new {k}"), 100 + k)).expect("all files"));
        holds(d, "edited", 52).and(gone(d, "deleted later")).expect("the newest state");
        assert_eq!(names(d).len() as u32, 2 * FILES + 1, "{}", d.display());
    }
    cluster.finish();
}
