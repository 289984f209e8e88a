//! Group K: kill -9 under load, a full disk, an index that is lost or damaged, a relay that dies.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::tree;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A small generator, so that a run can be repeated.
pub struct Dice(pub u64);

impl Dice {
    /// The seed of this run: `FERRY_E2E_SEED`, or one that differs from run to run and is printed.
    pub fn of_this_run(test: &str) -> Self {
        let given = std::env::var("FERRY_E2E_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("repeat with: FERRY_E2E_SEED={seed} bash tests/run {test}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end.max(1)
    }
}

/// One burst of work on A: new files, edits, renames, deletes.
fn burst(device: &Device, round: u32, dice: &mut Dice) {
    let d = device.path("work");
    for k in 0..25u32 {
        let size = if dice.below(8) == 0 { 900_000 } else { 2_000 };
        let (file, number) = (format!("{}/{}", dice.below(4), dice.below(40)), round * 1000 + k);
        put_bytes(&d, &file, &sized(&d, number, size));
    }
    let files = tree::all_files(&d);
    for _ in 0..5 {
        let path = &files[dice.below(files.len() as u64) as usize];
        match dice.below(3) {
            0 => drop(fs::remove_file(path)),
            1 => drop(fs::rename(path, d.join(format!("moved {round} {}", dice.below(9))))),
            _ => drop(fs::rename(d.join(dice.below(4).to_string()), d.join(format!("dir {round}")))),
        }
    }
}

fn killed_under_load(who: usize, test: &str) {
    let mut dice = Dice::of_this_run(test);
    let mut cluster = Cluster::new(2);
    for round in 0..6 {
        burst(&cluster.devices[0], round, &mut dice);
        pause(Duration::from_millis(20 + dice.below(500)));
        cluster.devices[who].kill();
        cluster.devices[who].start();
    }
    cluster.settle();
    cluster.finish();
}

#[test]
fn k01_the_receiver_is_killed_again_and_again() {
    killed_under_load(1, "k01");
}

#[test]
fn k02_the_sender_is_killed_again_and_again() {
    killed_under_load(0, "k02");
}

/// K04, K06: the relay is killed under load; every 2xx stays, nothing refers to a chunk that is not there.
#[test]
fn k04_the_relay_is_killed_again_and_again() {
    let mut dice = Dice::of_this_run("k04");
    let mut cluster = Cluster::new(2);
    for round in 0..5 {
        burst(&cluster.devices[0], round, &mut dice);
        pause(Duration::from_millis(20 + dice.below(400)));
        cluster.relay.kill();
        cluster.relay.resume();
    }
    cluster.settle();
    cluster.finish();
}

/// K03: killed while a folder of many files is renamed: one of the two trees, finished after the restart.
#[test]
fn k03_killed_while_a_folder_is_renamed() {
    let mut dice = Dice::of_this_run("k03");
    let mut cluster = Cluster::new(2);
    let d = cluster.devices[0].path("d");
    (0..600).for_each(|k| put(&d, &format!("big/{}/{k}", k % 20), k));
    cluster.settle();
    for round in 0..3 {
        let (from, to) = if round % 2 == 0 { ("big", "large") } else { ("large", "big") };
        mv(&cluster.devices[0].path("d"), from, to);
        pause(Duration::from_millis(dice.below(250)));
        cluster.devices[1].kill();
        cluster.devices[1].start();
    }
    cluster.settle();
    only(&cluster.devices[1].path("d"), &["large"]).expect("one tree");
    cluster.finish();
}

/// K34: told to end under load, a daemon ends well and leaves no temporary file.
#[test]
fn k34_ending_under_load() {
    let mut dice = Dice::of_this_run("k34");
    let mut cluster = Cluster::new(2);
    for round in 0..3 {
        burst(&cluster.devices[0], round, &mut dice);
        cluster.devices[1].stop();
        cluster.devices[1].start();
    }
    cluster.settle();
    cluster.finish();
}

/// K35: a second daemon on the same home is refused.
#[test]
fn k35_a_second_daemon_is_refused() {
    let cluster = Cluster::new(1);
    let answer = cluster.devices[0].run(&["daemon"]);
    assert!(answer.code != 0 && !answer.err.is_empty(), "{answer:?}");
    until("the first one goes on", Duration::from_secs(60), || cluster.devices[0].is_quiet());
    cluster.finish();
}

/// Where the index of a device lies: below its home, not in the synced folder.
fn index_files(device: &Device) -> Vec<std::path::PathBuf> {
    let all = tree::all_files(device.home());
    all.into_iter().filter(|p| p.components().any(|c| c.as_os_str().to_string_lossy().contains("index"))).collect()
}

fn populated() -> Cluster {
    let mut cluster = Cluster::new(2);
    let d = cluster.devices[0].path("d");
    (0..200).for_each(|k| put(&d, &format!("{}/{k}", k % 9), k));
    cluster.settle();
    cluster
}

fn still_whole(mut cluster: Cluster) {
    cluster.settle();
    for device in &cluster.devices {
        let d = device.path("d");
        (0..200).try_for_each(|k| holds(&d, &format!("{}/{k}", k % 9), k)).unwrap_or_else(|what| panic!("{}: {what}", device.name()));
        assert_eq!(tree::all_files(&d).len(), 200, "{}: no twins, no conflicts", device.name());
    }
    cluster.finish();
}

/// K26: the index is gone: the files are read again, nothing is deleted, nothing doubled.
#[test]
fn k26_the_index_is_deleted() {
    let mut cluster = populated();
    cluster.devices[1].stop();
    let files = index_files(&cluster.devices[1]);
    assert!(!files.is_empty(), "the index was found below the home");
    files.iter().for_each(|p| fs::remove_file(p).expect("the index"));
    // Meanwhile the other side goes on.
    put(&cluster.devices[0].path("d"), "meanwhile", 999);
    cluster.settle();
    cluster.devices[1].start();
    cluster.settle();
    rm(&cluster.devices[0].path("d"), "meanwhile");
    still_whole(cluster);
}

/// K27: the index is damaged in many ways: noticed, set aside, built again.
#[test]
fn k27_the_index_is_damaged() {
    let mut dice = Dice::of_this_run("k27");
    let mut cluster = populated();
    for round in 0..4 {
        cluster.devices[1].stop();
        for path in index_files(&cluster.devices[1]) {
            let file = fs::File::options().write(true).open(&path).expect("the index");
            let len = file.metadata().map_or(0, |m| m.len());
            match round {
                0 => (0..200).for_each(|_| file.write_all_at(&[dice.below(256) as u8], dice.below(len)).expect("room")),
                1 => file.set_len(len / 2).expect("cut"),
                2 => file.write_all_at(&vec![0; 8192], dice.below(len) & !4095).expect("room"),
                _ => file.set_len(0).expect("cut"),
            }
        }
        cluster.devices[1].start();
        cluster.settle();
    }
    still_whole(cluster);
}

/// K09: a disk too small for what comes: said so, nothing half, the other side unharmed; with room it goes on.
#[test]
fn k09_a_full_disk() {
    if !super::roots::can_mount() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let small = super::roots::Mount::tmpfs(&folder.path().join("small"), "12m");
    let devices = vec![Device::new(folder.path(), "A"), Device::new(folder.path(), "B").with_root(small.path())];
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    let d = cluster.devices[0].path("d");
    put(&d, "small", 1);
    cluster.settle();
    (0..6).for_each(|k| put_bytes(&d, &format!("big{k}"), &sized(&d, 50 + k, 5 << 20)));
    until("B says that its disk is full", Duration::from_secs(90), || {
        let text = cluster.devices[1].status().to_string();
        if text.contains("full") || text.contains("space") { Ok(()) } else { Err(text) }
    });
    let b = cluster.devices[1].path("d");
    for path in tree::all_files(&b) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(fs::read(&path).expect("readable"), fs::read(d.join(&name)).expect("A has it"), "{name} is whole");
    }
    put(&d, "after", 2);
    (2..6).for_each(|k| rm(&d, &format!("big{k}")));
    small.resize("64m");
    cluster.settle();
    holds(&b, "after", 2).expect("it goes on");
    cluster.devices.iter_mut().for_each(|d| d.stop());
    cluster.check_nothing_is_lost();
    drop(cluster);
    drop(small);
}
