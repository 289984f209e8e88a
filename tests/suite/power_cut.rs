//! K28, K29, K30: the power goes. A device's whole disk (folder and index) is an ext4 image on a loop device that is shut down without a flush of
//! its log (`FS_IOC_SHUTDOWN`), at a random moment while files come in. After the journal's replay nothing half may count as an edit.

use crate::e2e::{Dice, Mount, can_mount, make_image};
use ferry_tests::cluster::Cluster;
use ferry_tests::content::{flaw, unique};
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::relay::left_out::embedded_only;
use ferry_tests::tree;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// `_IOR('X', 125, __u32)`: from now on the filesystem refuses all work, as if the power were gone.
fn cut_power(mounted: &Path) {
    let output = std::process::Command::new("python3")
        .args(["-c", "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))"])
        .arg(mounted)
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn k28_the_power_goes_while_files_come_in() {
    if !can_mount() {
        return;
    }
    let mut dice = Dice::of_this_run("k28");
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
    make_image(&image, 256);
    let mut mount = Mount::image(&image, &disk);
    let devices = vec![Device::new(folder.path(), "A"), Device::new(&disk, "B")];
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    for round in 0..5u32 {
        let a = cluster.devices[0].path("d");
        fs::create_dir_all(&a).expect("a folder");
        for k in 0..120 {
            // Some files are new, some replace what came in an earlier round.
            fs::write(a.join("next"), unique(&format!("{round} {k}"), 1000 + 400 * k)).expect("room");
            fs::rename(a.join("next"), a.join(format!("f{}", k + 40 * round as usize))).expect("a rename");
        }
        pause(Duration::from_millis(dice.below(1500)));
        cut_power(&disk);
        cluster.devices[1].kill();
        drop(mount);
        mount = Mount::image(&image, &disk);
        cluster.devices[1].start();
        cluster.settle();
        for path in tree::all_files(&a).iter().chain(&tree::all_files(&cluster.devices[1].path("d"))) {
            let bytes = fs::read(path).expect("readable");
            assert!(!bytes.is_empty() && flaw(&bytes).is_none(), "round {round}: {} is not whole", path.display());
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(!name.contains("conflicted copy"), "round {round}: an old or half file was taken for an edit: {name}");
        }
    }
    cluster.devices.iter_mut().for_each(Device::stop);
    cluster.check_nothing_is_lost();
    drop(cluster);
    drop(mount);
}

/// K30: the power of the relay goes as soon as a device was told that all is sent: after the journal's replay the store is sound, and another
/// device gets every file from it although the first one is away (I7).
#[test]
fn k30_the_power_of_the_relay_goes() {
    if embedded_only("k30_the_power_of_the_relay_goes") || !can_mount() {
        return;
    }
    let devices = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let (image, disk) = (devices.path().join("image"), devices.path().join("disk"));
    make_image(&image, 256);
    let mut mount = Mount::image(&image, &disk);
    let folder = tempfile::Builder::new().prefix("relay-").tempdir_in(&disk).expect("a temporary folder");
    let both = vec![Device::new(devices.path(), "A"), Device::new(devices.path(), "B")];
    let mut cluster = Cluster::with_devices(folder, both, |_| {});
    for round in 0..4u32 {
        cluster.devices[1].stop();
        let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
        fs::create_dir_all(&a).expect("a folder");
        let files: Vec<_> =
            (0..60).map(|k| (format!("f{}", k + 20 * round), unique(&format!("{round} {k}"), 500 + 900 * k as usize))).collect();
        files.iter().for_each(|(name, bytes)| fs::write(a.join(name), bytes).expect("room"));
        assert_eq!(cluster.devices[0].run(&["wait", "--timeout", "90"]).code, 0, "all is sent");
        cut_power(&disk);
        cluster.devices[0].kill();
        cluster.relay.kill();
        drop(mount);
        mount = Mount::image(&image, &disk);
        let verify = cluster.relay.storage(&["verify", "--read-data"]);
        assert!(verify.status.success(), "round {round}: {}", String::from_utf8_lossy(&verify.stdout));
        cluster.relay.resume();
        cluster.devices[1].start();
        until("B gets what was sent", Duration::from_secs(90), || {
            let missing: Vec<_> =
                files.iter().filter(|(name, bytes)| fs::read(b.join(name)).ok().as_ref() != Some(bytes)).map(|(n, _)| n).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("round {round}: {missing:?}")) }
        });
        cluster.devices[0].start();
        cluster.settle();
    }
    cluster.devices.iter_mut().for_each(Device::stop);
    cluster.relay.stop();
    cluster.check_nothing_is_lost();
    drop(cluster);
    drop(mount);
}

/// The rig itself: a file that was written without a sync is not whole after the cut; one that was synced is.
#[test]
fn the_rig_loses_what_was_not_synced() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
    make_image(&image, 64);
    let mount = Mount::image(&image, &disk);
    let content = unique("rig", 100_000);
    fs::write(disk.join("careful"), &content).expect("room");
    File::open(disk.join("careful")).and_then(|f| f.sync_all()).expect("a sync");
    File::open(&disk).and_then(|f| f.sync_all()).expect("a sync");
    fs::write(disk.join("careless"), &content).expect("room");
    cut_power(&disk);
    drop(mount);
    let mount = Mount::image(&image, &disk);
    assert_eq!(fs::read(disk.join("careful")).expect("it stays"), content);
    assert_ne!(fs::read(disk.join("careless")).unwrap_or_default(), content);
    drop(mount);
}
