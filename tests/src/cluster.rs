//! A relay and some devices, all real processes on loopback, with the checks that every test ends with.
//!
//! A test makes a [`Cluster`], plays on the disks of its devices, calls [`Cluster::settle`] and looks at the disks. [`Cluster::finish`]
//! checks what holds in every scenario: nothing outside the folders was touched (I12), nothing that was there at a settled moment is lost
//! (I2), no temporary file is left (I4), the relay's store is sound (I5, I7), and all processes end well. A failing test keeps its folder
//! and prints where it is.

use crate::device::{Device, tail};
use crate::poll::until;
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::tree::{self, Item, Tree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a small change may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The name of the namespace of a cluster.
pub const NAMESPACE: &str = "Shared";

/// A relay, devices that share one namespace, and what was seen on their disks.
pub struct Cluster {
    folder: Option<tempfile::TempDir>,
    /// The relay.
    pub relay: Relay,
    /// The devices; all share one namespace.
    pub devices: Vec<Device>,
    /// Each device's link to the relay, on loopback; none on a test network.
    pub links: Vec<Proxy>,
    ledger: BTreeMap<String, (String, Vec<u8>)>,
    canary: Tree,
}

impl Cluster {
    /// A relay and `count` devices named A, B, C…, all attached and quiet.
    pub fn new(count: usize) -> Self {
        Self::with_setup(count, |_| {})
    }

    /// [`Cluster::new`] with files put onto the disks before the folders are attached.
    pub fn with_setup(count: usize, setup: impl FnOnce(&[Device])) -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
        let names = ["A", "B", "C", "D", "E"];
        let devices = names[..count].iter().map(|name| Device::new(folder.path(), name)).collect();
        Self::with_devices(folder, devices, setup)
    }

    /// [`Cluster::with_setup`] with devices made by the caller below `folder`.
    pub fn with_devices(folder: tempfile::TempDir, devices: Vec<Device>, setup: impl FnOnce(&[Device])) -> Self {
        let relay = Relay::start(folder.path());
        let links: Vec<Proxy> = devices.iter().map(|_| Proxy::to(relay.port())).collect();
        let urls: Vec<String> = links.iter().map(|link| format!("http://127.0.0.1:{}", link.port())).collect();
        let mut cluster = Self::of_parts(folder, relay, devices);
        cluster.links = links;
        setup(&cluster.devices);
        urls.iter().enumerate().for_each(|(i, url)| cluster.begin(i, url));
        cluster.settle();
        cluster
    }

    /// A cluster of what the caller made below `folder`; no daemon runs yet, and no proxy is between a device and the relay.
    pub fn of_parts(folder: tempfile::TempDir, relay: Relay, devices: Vec<Device>) -> Self {
        let canary = folder.path().join("canary");
        std::fs::create_dir_all(canary.join("inner")).expect("the canary's folder");
        std::fs::write(canary.join("sings"), "outside of every folder").expect("the canary");
        std::fs::write(canary.join("inner/too"), "and deeper").expect("the canary");
        let canary = tree::read(&canary);
        Self { folder: Some(folder), relay, devices, links: Vec::new(), ledger: BTreeMap::new(), canary }
    }

    /// Starts a device, logs it in at the relay's address and takes part in the namespace; the first device makes it.
    pub fn begin(&mut self, number: usize, url: &str) {
        let device = &mut self.devices[number];
        device.start();
        device.login(url);
        if number == 0 {
            device.add_new(NAMESPACE);
        } else {
            device.attach(NAMESPACE);
        }
    }

    /// The folder that holds everything of this cluster.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept until the end").path()
    }

    /// The canary tree outside of every synced folder.
    pub fn canary(&self) -> PathBuf {
        self.folder().join("canary")
    }

    /// Waits until all running devices say that they are up to date and their disks are the same, and notes what is there.
    pub fn settle(&mut self) {
        self.settle_within(PATIENCE);
    }

    /// [`Cluster::settle`] with another deadline.
    pub fn settle_within(&mut self, limit: Duration) {
        let running: Vec<&Device> = self.devices.iter().filter(|d| d.pid().is_some()).collect();
        let trees = until("the devices are quiet and the same", limit, || {
            let trees: Vec<Tree> = running.iter().map(|d| comparable(tree::read(d.root()))).collect();
            for (device, other) in running.iter().zip(&trees).skip(1) {
                let differences = tree::differences(&trees[0], other);
                if !differences.is_empty() {
                    let more = running.iter().filter_map(|d| d.is_quiet().err()).collect::<Vec<_>>();
                    let shown = differences[..differences.len().min(20)].join("\n");
                    return Err(format!("{} and {}:\n{shown}\n{}", running[0].name(), device.name(), more.join("\n")));
                }
            }
            for device in &running {
                device.is_quiet()?;
            }
            Ok(trees)
        });
        drop(trees);
        for device in running {
            let answer = device.run(&["wait", "--timeout", "30"]);
            assert!(answer.code == 0, "{}: `ferry wait` ended {}: {}{}", device.name(), answer.code, answer.out, answer.err);
        }
        self.note();
    }

    /// Puts everything that now stands on a disk into the ledger: it must be found somewhere at the end.
    pub fn note(&mut self) {
        for device in &self.devices {
            for path in tree::all_files(device.root()) {
                let inside = path.strip_prefix(device.root()).expect("below the root");
                if inside.starts_with(".ferry") {
                    continue;
                }
                if let Ok(bytes) = std::fs::read(&path) {
                    let start = bytes[..bytes.len().min(400)].to_vec();
                    self.ledger.entry(tree::hash(&bytes)).or_insert_with(|| (format!("{}:{}", device.name(), inside.display()), start));
                }
            }
        }
    }

    /// Every content of the ledger is in a file, a conflicted copy, a trash or the relay's history (I2).
    pub fn check_nothing_is_lost(&self) {
        let mut there = std::collections::BTreeSet::new();
        for path in self.devices.iter().flat_map(|d| tree::all_files(d.root())) {
            if let Ok(bytes) = std::fs::read(&path) {
                there.insert(tree::hash(&bytes));
            }
        }
        let missing: Vec<_> = self.ledger.iter().filter(|(hash, _)| !there.contains(*hash)).collect();
        if missing.is_empty() {
            return;
        }
        let stored = self.relay.stored_bytes();
        let lost: Vec<&String> = missing.iter().filter(|(_, (_, start))| !contains(&stored, start)).map(|(_, (what, _))| what).collect();
        assert!(lost.is_empty(), "I2: lost without a trace: {lost:?}");
    }

    /// What holds in every scenario; ends all processes.
    pub fn finish(mut self) {
        self.check_nothing_is_lost();
        let canary = tree::differences(&self.canary, &tree::read(&self.canary()));
        assert!(canary.is_empty(), "I12: the canary outside of every folder was touched: {canary:?}");
        for device in &mut self.devices {
            let running = device.pid().is_some();
            device.stop();
            // Parts of downloads may rest there, to be resumed or swept; nothing else.
            let mut left = tree::all_files(&device.root().join(".ferry/tmp"));
            left.retain(|p| !p.extension().is_some_and(|e| e == "part" || e == "ready"));
            assert!(!running || left.is_empty(), "I4: {} left temporary files: {left:?}", device.name());
        }
        self.relay.stop();
        self.relay.verify();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            for log in self.devices.iter().map(Device::log).chain([self.relay.log()]) {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                eprintln!("--- end of {}:\n{}", log.display(), tail(&text, 15));
            }
            eprintln!("--- kept: {}", folder.keep().display());
        }
    }
}

/// A tree without what is never synced.
fn comparable(tree: Tree) -> Tree {
    tree.into_iter().filter(|(_, item)| !matches!(item, Item::Other)).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|w| w == needle)
}
