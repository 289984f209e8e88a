//! A relay and devices as real processes on a network of namespaces.
//!
//! ```text
//!   A   B         C
//!   └─┬─┘         │
//!   lan 0       lan 1
//!     └── router ─┘
//!            │
//!           WAN
//!            │
//!          relay
//! ```
//!
//! What leaves a LAN passes the router: [`Lab::wan_traffic`] is what the relay's side costs. [`Lab::finish`] makes the checks of a cluster.

use super::host::Traffic;
use super::{Host, Lan, Net, Rule};
use crate::cluster::{Cluster, PATIENCE};
use crate::device::Device;
use crate::poll::until;
use crate::relay::Relay;
use crate::tree;
use serde_json::Value as Json;
use std::path::Path;
use std::time::Duration;

const NAMES: [&str; 5] = ["A", "B", "C", "D", "E"];

/// The network with all that is on it. The processes end before the namespaces go.
pub struct Lab {
    /// The relay and the devices.
    pub cluster: Cluster,
    /// The LANs of the devices.
    pub lans: Vec<Lan>,
    /// The LAN of the relay.
    pub wan: Lan,
    /// Between all of them.
    pub router: Host,
    /// The relay's host.
    pub relay_host: Host,
    /// The namespaces, for more of them.
    pub net: Net,
}

impl Lab {
    /// One LAN with so many devices, all attached and quiet.
    pub fn new(devices: usize) -> Self {
        let mut lab = Self::lay(&[devices], &[]);
        lab.begin();
        lab
    }

    /// LANs with so many devices each and a relay with these variables; no daemon runs yet.
    pub fn lay(sizes: &[usize], relay_env: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
        Self::lay_below(folder, sizes, relay_env)
    }

    /// [`Lab::lay`] with all files below this folder.
    pub fn lay_below(folder: tempfile::TempDir, sizes: &[usize], relay_env: &[(&str, &str)]) -> Self {
        let mut net = Net::new();
        let lans: Vec<Lan> = sizes.iter().map(|_| net.lan()).collect();
        let wan = net.lan();
        let all: Vec<Lan> = lans.iter().copied().chain([wan]).collect();
        let router = net.router(&all);
        let relay_host = net.host("relay", wan);
        let relay = Relay::start_on(&relay_host, folder.path(), relay_env);
        let places = lans.iter().zip(sizes).flat_map(|(lan, size)| std::iter::repeat_n(*lan, *size));
        let devices = NAMES.iter().zip(places).map(|(name, lan)| Device::new(folder.path(), name).on_host(&net.host(name, lan))).collect();
        Self { cluster: Cluster::of_parts(folder, relay, devices), lans, wan, router, relay_host, net }
    }

    /// Starts all devices, logs them in, attaches them and waits until they are quiet.
    pub fn begin(&mut self) {
        let url = self.cluster.relay.url();
        (0..self.cluster.devices.len()).for_each(|number| self.cluster.begin(number, &url));
        self.cluster.settle();
    }

    /// Writes a setting of every device.
    pub fn set_all(&self, key: &str, value: &str) {
        self.cluster.devices.iter().for_each(|device| drop(device.ok(&["config", "set", key, value])));
    }

    /// The LAN of the first devices.
    pub fn lan(&self) -> Lan {
        self.lans[0]
    }

    /// One device.
    pub fn device(&self, number: usize) -> &Device {
        &self.cluster.devices[number]
    }

    /// One device, to be started and stopped.
    pub fn device_mut(&mut self, number: usize) -> &mut Device {
        &mut self.cluster.devices[number]
    }

    /// A folder of the row's name on one device's disk.
    pub fn dir(&self, number: usize, row: impl AsRef<Path>) -> std::path::PathBuf {
        self.cluster.devices[number].path(row)
    }

    /// Cuts all devices off the relay by pulling its cable.
    pub fn cut_wan(&self) {
        self.relay_host.unplug(self.wan);
    }

    /// Puts the relay's cable in again.
    pub fn heal_wan(&self) {
        self.relay_host.plug(self.wan);
    }

    /// Cuts one LAN off everything behind the router.
    pub fn cut_wan_of(&self, lan: usize) {
        self.router.unplug(self.lans[lan]);
    }

    /// Connects the LAN with the router again.
    pub fn heal_wan_of(&self, lan: usize) {
        self.router.plug(self.lans[lan]);
    }

    /// Cuts the direct ways between all devices, to the relay none: UDP goes nowhere.
    pub fn cut_lan(&self) -> Vec<Rule> {
        self.cluster.devices.iter().map(|device| device.host().block_udp(self.lan_of(device))).collect()
    }

    /// The first LAN of a device.
    pub fn lan_of(&self, device: &Device) -> Lan {
        device.host().ports()[0].lan
    }

    /// What crossed the router's port to the relay's side: `in` comes from the relay.
    pub fn wan_traffic(&self) -> Traffic {
        self.router.traffic(self.wan)
    }

    /// What crossed a device's own port.
    pub fn traffic(&self, number: usize) -> Traffic {
        let device = self.device(number);
        device.host().traffic(self.lan_of(device))
    }

    /// The rows of `ferry peer list --json` of a device.
    pub fn peers(&self, number: usize) -> Result<Vec<Json>, String> {
        peers(self.device(number))
    }

    /// Waits until a device is connected over the LAN with so many others.
    pub fn until_connected(&self, number: usize, others: usize) {
        let what = format!("{} is connected with {others} others", self.device(number).name());
        until(&what, Duration::from_secs(60), || {
            let peers = self.peers(number)?;
            let connected = peers.iter().filter(|p| p["state"] == "connected").count();
            if connected >= others { Ok(()) } else { Err(format!("{peers:?}\n{}", self.device(number).status())) }
        });
    }

    /// Waits until all devices of the first LAN are connected with each other.
    pub fn until_all_connected(&self) {
        let count = self.cluster.devices.len();
        (0..count).for_each(|number| self.until_connected(number, count - 1));
    }

    /// Waits until the disks of these devices are the same and something holds on each; they need not be quiet, nor the relay there.
    pub fn until_same(&mut self, numbers: &[usize], mut holds: impl FnMut(&Path) -> Result<(), String>) {
        until("the disks are the same and as they should be", PATIENCE, || {
            let trees: Vec<_> = numbers.iter().map(|n| tree::read(self.device(*n).root())).collect();
            for (number, tree) in numbers.iter().zip(&trees) {
                let differences = tree::differences(&trees[0], tree);
                let names = (self.device(numbers[0]).name(), self.device(*number).name());
                if !differences.is_empty() {
                    return Err(format!("{names:?}:\n{}", differences[..differences.len().min(20)].join("\n")));
                }
                holds(self.device(*number).root()).map_err(|what| format!("{}: {what}", self.device(*number).name()))?;
            }
            Ok(())
        });
        self.cluster.note();
    }

    /// Stops and starts a device.
    pub fn restart(&mut self, number: usize) {
        self.device_mut(number).stop();
        self.device_mut(number).start();
    }

    /// What holds in every scenario; ends all.
    pub fn finish(self) {
        self.cluster.finish();
    }
}

/// The rows of `ferry peer list --json`.
pub fn peers(device: &Device) -> Result<Vec<Json>, String> {
    let answer = device.run(&["peer", "list", "--json"]);
    let document: Json = serde_json::from_str(&answer.out).map_err(|e| format!("{e}: {}{}", answer.out, answer.err))?;
    document["peers"].as_array().cloned().ok_or(document.to_string())
}
