//! What a device nearby is asked for: very many small files (S01).

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;
use std::fs;
use std::path::Path;

/// Calls that wait for the disk, in what a tracer wrote.
fn syncs(trace: &Path) -> usize {
    let text = fs::read_to_string(trace).expect("a trace");
    text.lines().filter(|line| line.contains("sync") && line.contains('(')).count()
}

/// S01: ten thousand small files for the first time over the LAN, with a bound on how often either device waits for its disk. How long it takes is the
/// matter of `lan_bench`.
#[test]
fn s01_ten_thousand_small_files() {
    const FILES: u32 = 10_000;
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let traces = ["A", "B"].map(|name| folder.path().join(format!("{name}.trace")));
    let mut lab = Lab::lay_below(folder, &[2], &[]);
    for (device, trace) in lab.cluster.devices.iter_mut().zip(&traces) {
        let trace = trace.display().to_string();
        device.put_behind(&["strace", "-D", "-f", "-qq", "-o", &trace, "-e", "trace=fsync,fdatasync,syncfs,sync,sync_file_range,msync"]);
    }
    lab.begin();
    lab.until_all_connected();
    let a = lab.dir(0, "d");
    let before = traces.each_ref().map(|trace| syncs(trace));
    (0..FILES).for_each(|k| put_bytes(&a, &format!("{}/{k}", k % 100), &sized(&a, k, 10_400)));
    lab.until_same(&[0, 1], |root| {
        (0..FILES).try_for_each(|k| holds_bytes(&root.join("d"), &format!("{}/{k}", k % 100), &sized(&a, k, 10_400)))
    });
    lab.cluster.settle();
    let now = traces.each_ref().map(|trace| syncs(trace));
    for (now, before) in now.iter().zip(before) {
        assert!(now - before <= 3 * FILES as usize && *now > 0, "{now} waits for the disk for {FILES} files");
    }
    println!("S01: waits for the disk on A and B: {now:?}, before {before:?}");
    lab.finish();
}
