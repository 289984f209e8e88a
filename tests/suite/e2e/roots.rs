//! K20 to K25: a folder's root that is not there, or not the same, is never an empty folder; many deletes wait for a yes.

use super::rows::*;
use ferry_tests::cluster::{Cluster, NAMESPACE};
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mount that ends with this value.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs of this size, empty.
    pub fn tmpfs(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let mount = Self(path.into());
        mount.run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "ferry-test"]).arg(path));
        mount
    }

    /// An image file, mounted.
    pub fn image(image: &Path, path: &Path) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let mount = Self(path.into());
        mount.run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(path));
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Another size for a tmpfs.
    pub fn resize(&self, size: &str) {
        self.run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }

    fn run(&self, command: &mut Command) {
        let output = command.output().expect("mount is installed");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A busy mount goes when its last user does.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Whether this process may mount. Only root may; as anyone else the tests that need it say that they did not run.
pub fn can_mount() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("NOT RUN: needs root to mount");
    }
    may
}

/// Makes an ext4 image of this many megabytes.
pub fn make_image(path: &Path, megabytes: u64) {
    fs::File::create(path).and_then(|f| f.set_len(megabytes << 20)).expect("room for an image");
    let output = Command::new("mkfs.ext4").arg("-q").arg(path).output().expect("mkfs.ext4 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const FILES: u32 = 150;

fn fill(device: &Device) {
    let d = device.path("d");
    (0..FILES).for_each(|k| put(&d, &format!("{}/{k}", k % 6), k));
}

fn is_full(device: &Device) {
    let d = device.path("d");
    (0..FILES).try_for_each(|k| holds(&d, &format!("{}/{k}", k % 6), k)).unwrap_or_else(|what| panic!("{}: {what}", device.name()));
}

/// The folder of `device` says that it cannot be used, and stays so.
fn stopped(device: &Device) {
    until(&format!("{} says that its root is not the one it knows", device.name()), Duration::from_secs(90), || {
        let _ = device.run(&["folder", "scan", NAMESPACE]);
        let state = device.try_status()?["folders"][0]["state"].as_str().unwrap_or("").to_string();
        if state == "error" || state == "held" { Ok(()) } else { Err(state) }
    });
}

/// K20: the root is a mount that goes away: an empty folder shows, nothing is deleted anywhere; it goes on when the mount is back.
#[test]
fn k20_the_root_is_unmounted() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let (image, root) = (folder.path().join("image"), folder.path().join("mounted"));
    make_image(&image, 48);
    let mount = Mount::image(&image, &root);
    let _ = fs::remove_dir(root.join("lost+found"));
    let devices = vec![Device::new(folder.path(), "A"), Device::new(folder.path(), "B").with_root(&root)];
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    fill(&cluster.devices[0]);
    cluster.settle();
    cluster.devices[1].stop();
    drop(mount);
    assert!(names(&root).is_empty(), "an empty folder shows");
    cluster.devices[1].start();
    stopped(&cluster.devices[1]);
    put(&cluster.devices[0].path("d"), "meanwhile", 900);
    pause(Duration::from_secs(1));
    is_full(&cluster.devices[0]);
    assert!(names(&root).is_empty(), "nothing is written into the empty folder");
    let mount = Mount::image(&image, &root);
    cluster.settle();
    is_full(&cluster.devices[1]);
    holds(&cluster.devices[1].path("d"), "meanwhile", 900).expect("it goes on by itself");
    cluster.devices.iter_mut().for_each(|d| d.stop());
    drop(cluster);
    drop(mount);
}

/// K22, K23: the root is renamed away, replaced by a file, by another folder, by another folder with the old marker in it.
#[test]
fn k22_the_root_is_replaced() {
    let mut cluster = Cluster::new(2);
    fill(&cluster.devices[0]);
    cluster.settle();
    let root = cluster.devices[1].root().to_path_buf();
    let away = cluster.folder().join("away");
    fs::rename(&root, &away).expect("a rename");
    stopped(&cluster.devices[1]);
    fs::write(&root, "a file").expect("room");
    stopped(&cluster.devices[1]);
    fs::remove_file(&root).expect("the file");
    fs::create_dir(&root).expect("another folder");
    stopped(&cluster.devices[1]);
    is_full(&cluster.devices[0]);
    fs::remove_dir_all(&root).expect("the other folder");
    fs::rename(&away, &root).expect("back");
    cluster.settle();
    cluster.devices.iter().for_each(is_full);
    cluster.finish();
}

/// K24: everything is deleted: held until a person says yes, then sent; the trash has it all.
#[test]
fn k24_deleting_everything_waits_for_a_yes() {
    let mut cluster = Cluster::new(2);
    fill(&cluster.devices[0]);
    cluster.settle();
    rm(cluster.devices[0].root(), "d");
    cluster.devices[0].until_state("held");
    pause(Duration::from_secs(1));
    is_full(&cluster.devices[1]);
    cluster.devices[0].ok(&["folder", "approve", NAMESPACE, "--yes"]);
    cluster.settle();
    only(cluster.devices[1].root(), &[]).expect("sent after the yes");
    let kept = tree::all_files(&cluster.devices[1].root().join(".ferry/trash")).len();
    assert!(kept >= FILES as usize, "{kept} files in the trash");
    cluster.finish();
}

/// K25: more than a hundred items and more than 30 % are held; fewer go through.
#[test]
fn k25_the_brake_has_a_threshold() {
    let mut cluster = Cluster::new(2);
    let d = cluster.devices[0].path("d");
    (0..500).for_each(|k| put(&d, &format!("{}/{k}", k % 10), k));
    cluster.settle();
    (0..2).for_each(|n| rm(&cluster.devices[0].path("d"), &n.to_string()));
    cluster.settle();
    assert!(!cluster.devices[1].path("d/1").exists(), "a fifth goes through");
    (2..5).for_each(|n| rm(&cluster.devices[0].path("d"), &n.to_string()));
    cluster.devices[0].until_state("held");
    assert!(cluster.devices[1].path("d/4").exists(), "more than 30 % of what is left is held");
    cluster.devices[0].ok(&["folder", "approve", NAMESPACE, "--yes"]);
    cluster.settle();
    assert!(!cluster.devices[1].path("d/4").exists());
    cluster.finish();
}
