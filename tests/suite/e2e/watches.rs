//! Q01, Q02: file events that do not come, because the system's limits are reached. What is not seen is found by looking.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::device::Device;
use ferry_tests::poll::until;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;

/// Q01: a user with 50 watches and 200 directories is told so, and by which setting; what changes in a directory without a watch goes out with the next
/// scan.
#[test]
fn q01_watches_run_out() {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let few = "echo 50 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let a = Device::new(folder.path(), "A").behind(&["unshare", "--user", "--map-root-user", "sh", "-c", few, "sh"]);
    a.ok(&["config", "set", "scan.interval", "10s"]);
    let devices = vec![a, Device::new(folder.path(), "B")];
    let mut cluster = Cluster::with_devices(folder, devices, |devices| {
        (0..200).for_each(|k| put(&devices[0].path(format!("d{k}")), "f", k));
    });
    let told = cluster.devices[0].run(&["status", "--json"]).out + &cluster.devices[0].run(&["doctor"]).out;
    assert!(told.contains("fs.inotify.max_user_watches") && told.contains("not every directory"), "{told}");
    // Two hundred directories, of which three quarters have no watch: each is edited.
    for k in 0..200 {
        put(&cluster.devices[0].path(format!("d{k}")), "f", 1000 + k);
    }
    until("every edit goes out", Duration::from_secs(120), || {
        (0..200).try_for_each(|k| holds(&cluster.devices[1].path(format!("d{k}")), "f", 1000 + k))
    });
    cluster.settle();
    cluster.finish();
}

/// Q02: more events than the kernel keeps, while the daemon does not read them: everything is looked at again, and nothing is missed.
#[test]
fn q02_events_are_lost() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("inotify");
    let limit: u32 = limit.trim().parse().expect("a number");
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..20).for_each(|k| mkdir(&a, &format!("{k}")));
    cluster.settle();
    let pid = Pid::from_raw(cluster.devices[0].pid().expect("it runs") as i32).expect("a process");
    kill_process(pid, Signal::STOP).expect("it stands still");
    // Each is made, written and closed: three events at least. Each tenth goes again.
    let count = (limit / 3 + 500).min(60_000);
    (0..count).for_each(|k| put(&a, &format!("{}/{k}", k % 20), k));
    (0..count).step_by(10).for_each(|k| rm(&a, &format!("{}/{k}", k % 20)));
    kill_process(pid, Signal::CONT).expect("it goes on");
    let of_all = |dir: &std::path::Path| {
        (0..count).try_for_each(|k| {
            let name = format!("{}/{k}", k % 20);
            if k % 10 == 0 { gone(dir, &name) } else { holds(dir, &name, k) }
        })
    };
    until("all of it arrives", Duration::from_secs(240), || of_all(&b));
    let log = fs::read_to_string(cluster.devices[0].log()).expect("a log");
    assert!(log.contains("Overflow"), "the kernel lost events, and that was noticed");
    cluster.settle_within(Duration::from_secs(240));
    of_all(&a).expect("what was made stays");
    cluster.finish();
}
