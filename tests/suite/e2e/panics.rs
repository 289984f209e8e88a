//! K37: mistakes of ours over one path or one folder, planted. The others go on, the daemon is not started again, and the status says which it is.

use super::rows::*;
use ferry_tests::cluster::{Cluster, NAMESPACE};
use ferry_tests::device::Device;
use ferry_tests::poll::until;
use std::time::Duration;

/// One file makes the reader panic, another the hands that would place it: each waits, said by its path; under other names both go on.
#[test]
fn k37_a_path_that_breaks_us_waits_alone() {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let devices = vec![
        Device::new(folder.path(), "A").with_env("FERRY_TEST_PANIC", "read:trips"),
        Device::new(folder.path(), "B").with_env("FERRY_TEST_PANIC", "place:stumbles"),
    ];
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    let pids: Vec<_> = cluster.devices.iter().map(Device::pid).collect();
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..20).for_each(|k| put(&a, &format!("{k}"), k));
    put(&a, "trips", 100);
    put(&a, "stumbles", 101);
    (20..40).for_each(|k| put(&a, &format!("{k}"), k));
    until("the others are there", Duration::from_secs(60), || (0..40).try_for_each(|k| holds(&b, &format!("{k}"), k)));
    cluster.devices[0].until_issue("trips");
    cluster.devices[1].until_issue("stumbles");
    gone(&b, "trips").and(gone(&b, "stumbles")).expect("they wait");
    put(&b, "back", 102);
    until("the other way too", Duration::from_secs(60), || holds(&a, "back", 102));
    mv(&a, "trips", "walks");
    mv(&a, "stumbles", "runs");
    cluster.settle();
    holds(&b, "walks", 100).and(holds(&b, "runs", 101)).expect("under other names");
    assert_eq!(pids, cluster.devices.iter().map(Device::pid).collect::<Vec<_>>(), "nobody was started again");
    cluster.finish();
}

/// The planner of one folder panics whenever it is asked: that folder says so and stands still, and the device's other folder goes on.
#[test]
fn k37_a_folder_that_breaks_us_leaves_the_others_alone() {
    let mut cluster = Cluster::new(1);
    let (d, other) = (cluster.devices[0].path("d"), cluster.folder().join("other"));
    put(&d, "before", 1);
    std::fs::create_dir(&other).expect("a folder");
    cluster.settle();
    cluster.devices[0].ok(&["folder", "add", &other.display().to_string(), "--name", "Other"]);
    put(&other, "f", 2);
    cluster.settle();
    let mut second = Device::new(cluster.folder(), "B").with_env("FERRY_TEST_PANIC", &format!("plan:{NAMESPACE}"));
    second.start();
    second.login(&cluster.relay.url());
    second.attach(NAMESPACE);
    let copy = cluster.folder().join("copy");
    second.ok(&["folder", "add", &copy.display().to_string(), "--remote", "Other"]);
    let pid = second.pid();
    for k in 3..6 {
        put(&other, "f", k);
        until("the other folder goes on", Duration::from_secs(60), || {
            let got = std::fs::read(copy.join("f")).unwrap_or_default();
            is("the newest content", got == bytes(&other, k))
        });
    }
    until("it is said", Duration::from_secs(60), || {
        let status = second.status().to_string();
        if status.contains("internal_error") { Ok(()) } else { Err(status) }
    });
    assert_eq!(second.pid(), pid, "nobody was started again");
    second.stop();
    holds(&d, "before", 1).expect("nothing is deleted");
    cluster.finish();
}
