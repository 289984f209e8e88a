//! C30 to C33: a remote change arrives where a local one stands that nobody has scanned. The daemon of B is stopped while B's disk changes,
//! and A's change is at the relay before B's daemon starts: whichever it takes first, nothing of B is lost.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use std::path::Path;

fn b(cluster: &Cluster) -> std::path::PathBuf {
    cluster.devices[1].path("d")
}

/// A acts and tells the relay, B acts unseen, B starts.
fn race(before: impl Fn(&Path), remote: impl Fn(&Path), unseen: impl Fn(&Path), expect: impl Fn(&Path) -> Verdict) {
    let mut cluster = Cluster::new(2);
    before(&cluster.devices[0].path("d"));
    cluster.settle();
    cluster.devices[1].stop();
    remote(&cluster.devices[0].path("d"));
    assert_eq!(cluster.devices[0].run(&["wait", "--timeout", "60"]).code, 0);
    unseen(&b(&cluster));
    cluster.devices[1].start();
    cluster.settle();
    for device in &cluster.devices {
        expect(&device.path("d")).unwrap_or_else(|what| panic!("{}: {what}", device.name()));
    }
    cluster.finish();
}

#[test]
fn c30_a_new_file_meets_an_unscanned_one() {
    race(|d| put(d, "other", 0), |d| put(d, "f", 1), |d| put(d, "f", 2), |d| kept_beside(d, "f", &[1, 2]));
}

#[test]
fn c31_a_remote_delete_meets_an_unscanned_edit() {
    race(|d| put(d, "f", 1), |d| rm(d, "f"), |d| put(d, "f", 2), |d| holds(d, "f", 2));
}

#[test]
fn c32_a_remote_rename_meets_an_unscanned_file() {
    race(|d| put(d, "x", 1), |d| mv(d, "x", "y"), |d| put(d, "y", 2), |d| gone(d, "x").and(kept_beside(d, "y", &[1, 2])));
}

#[test]
fn c33_a_remote_removal_meets_an_unscanned_new_file() {
    let before = |d: &Path| (0..20).for_each(|k| put(d, &format!("dir/{k}"), k));
    race(before, |d| rm(d, "dir"), |d| put(d, "dir/new", 99), |d| only(&d.join("dir"), &["new"]).and(holds(d, "dir/new", 99)));
}

/// The same races with a running daemon: both sides write at once, again and again.
#[test]
fn both_sides_write_at_once() {
    let mut cluster = Cluster::new(2);
    put(&cluster.devices[0].path("d"), "f0", 0);
    cluster.settle();
    for k in 1..12u32 {
        for (i, device) in cluster.devices.iter().enumerate() {
            let dir = device.path("d");
            let mine = 100 * (i as u32 + 1) + k;
            put(&dir, "both", mine);
            put(&dir, &format!("own {i} {k}"), mine);
            if i == 0 && k > 1 {
                // It may have been taken away or renamed by a conflict meanwhile; that is the point.
                let _ = std::fs::rename(dir.join(format!("own 0 {}", k - 1)), dir.join(format!("moved {k}")));
            }
        }
        ferry_tests::poll::pause(std::time::Duration::from_millis(120));
    }
    let last: Vec<Vec<u8>> = (0..2u32).map(|i| bytes(&b(&cluster), 100 * (i + 1) + 11)).collect();
    cluster.settle();
    let files = ferry_tests::tree::all_files(&b(&cluster));
    for (i, wanted) in last.iter().enumerate() {
        let found = files.iter().any(|p| std::fs::read(p).is_ok_and(|got| got == *wanted));
        assert!(found, "the last write of device {i} is there");
    }
    cluster.finish();
}
