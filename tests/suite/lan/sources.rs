//! What a device nearby is asked for: files that are not any more what its index says (H05), and very many small ones (S01).

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::until;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// H05: A's file was edited behind its back, with the size and the time of before, and nobody watches: asked for the old content A hashes what it reads, has
/// nothing to give, and looks at the file again. B gets the old content from the relay, never a mixture, and then the new one.
#[test]
fn h05_a_file_that_changed_since_it_was_indexed() {
    let mut lab = Lab::lay(&[2], &[]);
    lab.set_all("scan.watch", "false");
    lab.begin();
    lab.until_all_connected();
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    lab.device_mut(1).stop();
    let (old, new) = (sized(&a, 1, 3 << 20), sized(&a, 2, 3 << 20));
    let new = &new[..old.len()];
    put_bytes(&a, "f", &old);
    lab.device(0).ok(&["folder", "scan", ferry_tests::cluster::NAMESPACE]);
    lab.cluster.settle();
    // Nothing of it is in A's memory any more.
    lab.restart(0);
    lab.cluster.settle();
    lab.cluster.note_content("old", &old);
    let written = fs::metadata(a.join("f")).and_then(|m| m.modified()).expect("a time");
    let file = fs::File::options().write(true).open(a.join("f")).expect("it is there");
    std::os::unix::fs::FileExt::write_all_at(&file, new, 0).expect("written in place");
    file.set_modified(written).expect("its time");
    drop(file);
    lab.device_mut(1).start();
    until("B has what A has now", Duration::from_secs(120), || {
        if let Ok(got) = fs::read(b.join("f")) {
            assert!(got == old || got == new, "never a mixture");
        }
        holds_bytes(&b, "f", new)
    });
    lab.cluster.settle();
    lab.finish();
}

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
