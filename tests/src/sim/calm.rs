//! A calm world: devices and a relay, run to rest after each change. For scenarios in which only the order of changes matters.

use crate::sim::device::{Device, round};
use crate::sim::disk::{Seen, path};
use crate::sim::lan::Lan;
use crate::sim::relay::SimRelay;
use ferry_engine::{Kind, Policy};
use ferry_protocol::read::resolve;
use ferry_protocol::{Content, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// Devices and a relay.
pub struct Calm {
    /// The devices.
    pub devices: Vec<Device>,
    /// The relay.
    pub relay: SimRelay,
    /// The time in milliseconds.
    pub now_ms: u64,
    /// Whether the relay can be reached at all.
    pub relay_on: bool,
    /// Devices that cannot reach the relay.
    pub no_relay: BTreeSet<usize>,
    /// Whether the relay is given what daemons displace. It rests in their trashes, and no device fetches from a trash: without a relay it may be
    /// nowhere else when somebody's move brings it back.
    pub keeps_trash: bool,
    /// The LAN between the devices; without links in the beginning.
    pub lan: Lan,
}

/// A tree as text: path and content; directories end in `/`.
pub type Tree = BTreeMap<String, String>;

impl Calm {
    /// So many fresh devices.
    pub fn new(count: usize) -> Self {
        Self::with_policy(count, Policy::default())
    }

    /// So many fresh devices under this policy.
    pub fn with_policy(count: usize, policy: Policy) -> Self {
        let devices = (0..count).map(|i| Device::new(i, policy.clone())).collect();
        Self {
            devices,
            relay: SimRelay::default(),
            now_ms: 0,
            relay_on: true,
            keeps_trash: false,
            no_relay: BTreeSet::new(),
            lan: Lan::default(),
        }
    }

    /// A file is written in place on a device.
    pub fn write(&mut self, device: usize, at: &str, bytes: &str) {
        let device = &mut self.devices[device];
        assert!(device.disk.write(&path(at), bytes.as_bytes()), "write {at}");
        device.hints.push(path(at));
    }

    /// A file is saved by renaming on a device.
    pub fn save(&mut self, device: usize, at: &str, bytes: &str) {
        let device = &mut self.devices[device];
        assert!(device.disk.save(&path(at), bytes.as_bytes()), "save {at}");
        device.hints.push(path(at));
    }

    /// A directory is made on a device.
    pub fn mkdir(&mut self, device: usize, at: &str) {
        let device = &mut self.devices[device];
        assert!(device.disk.mkdir(&path(at)), "mkdir {at}");
        device.hints.push(path(at));
    }

    /// Something is renamed on a device.
    pub fn rename(&mut self, device: usize, from: &str, to: &str) {
        let device = &mut self.devices[device];
        assert!(device.disk.rename(&path(from), &path(to)), "rename {from} {to}");
        device.hints.push(path(from));
        device.hints.push(path(to));
    }

    /// Something is removed on a device.
    pub fn remove(&mut self, device: usize, at: &str) {
        let device = &mut self.devices[device];
        assert!(device.disk.remove(&path(at)), "remove {at}");
        device.hints.push(path(at));
    }

    /// Runs one device, with the relay and the peers that it reaches, until it has nothing to do.
    pub fn settle(&mut self, index: usize) {
        // What waits for another device is tried again and again: that is for the next round of all.
        let mut waits = 0;
        for rounds in 0.. {
            self.devices[index].set_time(self.now_ms);
            let busy = round(|step| self.step(index, step)) | self.hear_peers(index);
            let device = &self.devices[index];
            if !busy {
                match device.engine.deadline_ms() {
                    Some(at) if !self.rests(index) && !self.waits_for_a_carrier(index) && waits < 8 => {
                        self.now_ms = self.now_ms.max(at);
                        waits += 1;
                    }
                    _ => return,
                }
            }
            if rounds > 300 {
                let tail: Vec<_> = device.log.iter().rev().take(40).rev().cloned().collect();
                panic!("{} does not come to rest:\n{}", device.name, tail.join("\n"));
            }
        }
    }

    /// Runs all devices until nobody has anything to do.
    pub fn settle_all(&mut self) {
        for _ in 0..40 {
            let before = self.progress();
            for index in 0..self.devices.len() {
                self.settle(index);
            }
            if self.progress() == before {
                if (0..self.devices.len()).all(|index| self.rests(index)) {
                    return;
                }
                self.wait_for_carriers();
            }
        }
        let idle: Vec<_> = self.devices.iter().map(|d| (d.name.clone(), d.is_idle(), d.engine.pending())).collect();
        let tails: Vec<String> =
            self.devices.iter().map(|d| d.log.iter().rev().take(15).rev().cloned().collect::<Vec<_>>().join("\n")).collect();
        panic!("the devices do not come to rest: {idle:?}\n{}", tails.join("\n"));
    }

    fn progress(&self) -> (u64, Vec<u64>) {
        // What a device may tell and has heard is progress too: others hear it in the next round.
        let lan = |d: &Device| d.engine.meta().seq + u64::from(d.engine.meta().heard);
        let news = |d: &Device| if self.lan.has_links() { d.actions + lan(d) } else { d.actions };
        (self.relay.head, self.devices.iter().map(news).collect())
    }

    /// The tree on a device's disk.
    pub fn tree(&self, device: usize) -> Tree {
        text(&self.devices[device].disk.tree())
    }

    /// Comes to rest and holds I1, I2 (contents named are kept somewhere) and the order of the trees. The common tree.
    pub fn converge(&mut self) -> Tree {
        self.settle_all();
        self.check();
        self.tree(0)
    }

    /// All disks are equal, each is what its engine says it should be, and no device harmed anything.
    pub fn check(&self) {
        self.devices.iter().for_each(check_device);
        let first = self.devices[0].disk.tree();
        for device in &self.devices {
            let tree = device.disk.tree();
            let differs = differences(&first, &tree);
            assert!(differs.is_empty(), "{} and {} differ: {differs:#?}", self.devices[0].name, device.name);
        }
    }
}

/// The disk of a device is what its states show, its items are what stands there, and it harmed nothing.
pub fn check_device(device: &Device) {
    let states = device.engine.trees().states();
    let shown: BTreeMap<RelPath, (Kind, Vec<u8>)> = resolve(&states)
        .into_iter()
        .map(|(path, entry)| {
            let seen = match &entry.content {
                Content::Dir => (Kind::Dir, Vec::new()),
                Content::File(file) => (Kind::File, file.manifest.hash().as_bytes().to_vec()),
                Content::Symlink(target) => (Kind::Symlink, target.to_vec()),
                Content::Tombstone => unreachable!("never shown"),
            };
            (path, seen)
        })
        .collect();
    let held: BTreeMap<RelPath, (Kind, Vec<u8>)> = device
        .disk
        .tree()
        .into_iter()
        .map(|(path, seen)| {
            let bytes = if seen.kind == Kind::File { ferry_protocol::ContentHash::of(&seen.bytes).as_bytes().to_vec() } else { seen.bytes };
            (path, (seen.kind, bytes))
        })
        .collect();
    let differs = differences(&shown, &held);
    assert!(differs.is_empty(), "the disk of {} is not what its states show: {differs:#?}", device.name);
    assert_eq!(device.disk.parked().len(), 0, "{} left something parked", device.name);
    assert!(device.disk.crimes.is_empty(), "{}: {:?}", device.name, device.disk.crimes);
    let mut items = 0;
    for (key, item) in device.engine.trees().all_items() {
        let path = device.engine.item_path(item).expect("trees in memory");
        let path = path.unwrap_or_else(|| panic!("{}: {key:?} stands nowhere", device.name));
        let stat = device.disk.stat(&path).unwrap_or_else(|| panic!("{}: nothing stands at {path}", device.name));
        assert!(stat.same_version(&item.stat), "{}: {path} is not what its item says", device.name);
        items += 1;
    }
    assert_eq!(items, held.len(), "{}: one item for each thing on disk", device.name);
}

/// What stands in one tree and not so in the other, by path.
fn differences<'t, V: PartialEq>(
    a: &'t BTreeMap<RelPath, V>,
    b: &'t BTreeMap<RelPath, V>,
) -> Vec<(&'t RelPath, Option<&'t V>, Option<&'t V>)> {
    let paths: BTreeSet<&RelPath> = a.keys().chain(b.keys()).collect();
    paths.into_iter().map(|p| (p, a.get(p), b.get(p))).filter(|(_, a, b)| a != b).collect()
}

/// A tree as text.
pub fn text(tree: &BTreeMap<RelPath, Seen>) -> Tree {
    tree.iter()
        .map(|(path, seen)| match seen.kind {
            Kind::Dir => (format!("{path}/"), String::new()),
            Kind::Symlink => (path.to_string(), format!("-> {}", String::from_utf8_lossy(&seen.bytes))),
            _ => (path.to_string(), String::from_utf8_lossy(&seen.bytes).into_owned()),
        })
        .collect()
}
