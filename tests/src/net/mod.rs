//! Networks for tests: hosts as network namespaces, LANs as bridges, a router, links that are slow, cut, lossy or deaf.
//!
//! | module | what it does |
//! |---|---|
//! | [`host`] | one host: running programs and closures in it, its links, what crossed them |
//! | [`rule`] | packets that are dropped or lost, as long as a value lives |
//! | [`udp`] | a UDP proxy that delays, reorders, doubles, damages and repeats |
//! | [`lab`] | a relay and devices on such a network, with the checks of a cluster |
//!
//! Every LAN and every host is a namespace of its own, so nothing is seen by the machine's own network, and nothing of it is seen. Names begin
//! with `ferry-` and the id of the process that made them; dropping the [`Net`] removes them, after a panic too, and what a killed process left is
//! removed by the next one. Network namespaces need root, `ip`, `tc` and `nft`; without them a test fails, it is never left out.
//!
//! LAN number N (from 0) has the addresses `10.(70+N).0.0/24`: the router is `.1`, hosts begin at `.10`. Every port has an IPv6 link-local address
//! too. Frames are as large as the sender's segmentation makes them, so that loss counts such frames, not wire packets.

pub mod host;
pub mod lab;
pub mod rule;
pub mod udp;

pub use host::Host;
pub use rule::Rule;

use host::Port;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

const FOLDER: &str = "/run/netns";
static NETS: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();
/// `ip netns add` prepares its folder the first time, and two at once disturb each other.
static ADDING: Mutex<()> = Mutex::new(());

/// A LAN of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan(usize);

impl Lan {
    /// The address of a host by its last number.
    fn address(self, last: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 70 + self.0 as u8, 0, last as u8)
    }

    /// The LAN as `ip` and `nft` write it.
    pub fn range(self) -> String {
        format!("{}/24", self.address(0))
    }
}

/// A program to be run in a namespace; its process id is the program's own. Not by `ip netns exec`, which gives the program a copy of all mounts: a
/// filesystem that another test mounted would then stay in use after its end.
fn within(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={FOLDER}/{namespace}")).arg("--").arg(program);
    command
}

/// A network of namespaces; dropping it removes them and ends what still runs in them.
pub struct Net {
    prefix: String,
    /// How many hosts joined each LAN.
    joined: Vec<usize>,
    namespaces: Vec<String>,
}

impl Net {
    /// An empty network. Panics without root or the tools.
    pub fn new() -> Self {
        SWEPT.call_once(sweep);
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("ferry-{}-{number}", std::process::id()), joined: Vec::new(), namespaces: Vec::new() }
    }

    /// A LAN: a bridge in a namespace of its own.
    pub fn lan(&mut self) -> Lan {
        let lan = Lan(self.joined.len());
        self.joined.push(0);
        let namespace = self.namespace(&format!("lan{}", lan.0));
        // Without snooping the bridge forwards multicast to everybody, as a simple switch does.
        ip(&["-n", &namespace, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"]);
        ip(&["-n", &namespace, "link", "set", "br0", "up"]);
        lan
    }

    /// A host on a LAN; its default route is the LAN's router, there or not.
    pub fn host(&mut self, name: &str, lan: Lan) -> Host {
        let host = Host::new(name, self.namespace(name));
        self.join(&host, lan);
        let gateway = lan.address(1).to_string();
        ip(&["-n", host.namespace(), "route", "add", "default", "via", &gateway]);
        host
    }

    /// One more port of a host, into another LAN; it does not forward between them.
    pub fn join(&mut self, host: &Host, lan: Lan) {
        let number = self.joined[lan.0];
        self.joined[lan.0] += 1;
        self.connect(host, lan, number, number + 10);
    }

    /// A router between these LANs.
    pub fn router(&mut self, lans: &[Lan]) -> Host {
        let host = Host::new("router", self.namespace("router"));
        host.set("ipv4/ip_forward", "1");
        for lan in lans {
            let number = self.joined[lan.0];
            self.joined[lan.0] += 1;
            self.connect(&host, *lan, number, 1);
        }
        host
    }

    fn connect(&mut self, host: &Host, lan: Lan, number: usize, last: usize) {
        let bridge = format!("{}-lan{}", self.prefix, lan.0);
        let (device, far) = (format!("eth{}", host.ports().len()), format!("p{number}"));
        let (address, mac) = (lan.address(last), format!("02:fe:00:{:02x}:00:{last:02x}", lan.0));
        let here = host.namespace();
        ip(&["link", "add", &device, "netns", here, "address", &mac, "type", "veth", "peer", "name", &far, "netns", &bridge]);
        ip(&["-n", &bridge, "link", "set", &far, "master", "br0", "up"]);
        ip(&["-n", here, "addr", "add", &format!("{address}/24"), "brd", "+", "dev", &device]);
        ip(&["-n", here, "link", "set", &device, "up"]);
        host.add_port(Port { lan, device, address, mac, bridge, far });
    }

    fn namespace(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.prefix);
        let guard = ADDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ip(&["netns", "add", &namespace]);
        drop(guard);
        self.namespaces.push(namespace.clone());
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        // Addresses are usable at once, and a host with two ports answers on each.
        let host = Host::new(name, namespace.clone());
        host.set("ipv6/conf/all/accept_dad", "0");
        host.set("ipv6/conf/default/accept_dad", "0");
        host.set("ipv4/conf/all/rp_filter", "0");
        host.set("ipv4/conf/default/rp_filter", "0");
        namespace
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.namespaces.iter().rev().for_each(|namespace| remove(namespace));
    }
}

/// Removes a namespace with all that runs in it. Failures are left to the next sweep.
fn remove(namespace: &str) {
    let pids = Command::new("ip").args(["netns", "pids", namespace]).output().map(|o| o.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        if pid != std::process::id() as i32
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", namespace]).output();
}

/// Namespaces of processes that are no more.
fn stale() -> Vec<String> {
    let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let of_dead = |name: &String| {
        let pid = name.strip_prefix("ferry-").and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    names.filter(of_dead).collect()
}

fn sweep() {
    assert!(rustix::process::geteuid().is_root(), "tests with network namespaces need root");
    for tool in [&["ip", "-V"], &["tc", "-V"], &["nft", "-v"]] {
        let found = Command::new(tool[0]).args(&tool[1..]).output();
        assert!(found.is_ok_and(|o| o.status.success()), "`{}` is missing; `bash tests/run` installs it", tool[0]);
    }
    stale().iter().for_each(|namespace| remove(namespace));
}

/// Runs `ip`, which must succeed.
fn ip(words: &[&str]) {
    run(Command::new("ip").args(words));
}

/// Runs a tool that must succeed; what it said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_a_dead_process_left_is_found() {
        let mut child = Command::new("true").spawn().expect("a process");
        let (pid, name) = (child.id(), format!("ferry-{}-0-left", child.id()));
        child.wait().expect("it ends");
        let net = Net::new();
        ip(&["netns", "add", &name]);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && stale().contains(&name));
        sweep();
        assert!(!Path::new(FOLDER).join(&name).exists());
        drop(net);
    }

    #[test]
    fn nothing_is_left_after_a_panic() {
        let (mut left, mut pid) = (Vec::new(), 0);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut net = Net::new();
            let lan = net.lan();
            let host = net.host("A", lan);
            let mut child = host.command("sleep").arg("600").spawn().expect("a process");
            left.clone_from(&net.namespaces);
            pid = child.id();
            crate::poll::until_true("it runs in the namespace", std::time::Duration::from_secs(10), || {
                run(Command::new("ip").args(["netns", "pids", host.namespace()])).contains(&pid.to_string())
            });
            drop(net);
            let status = child.wait().expect("it was killed");
            assert!(status.success(), "{status}");
        }));
        assert!(panicked.is_err() && left.len() == 2);
        assert!(left.iter().all(|name| !Path::new(FOLDER).join(name).exists()), "{left:?}");
    }
}
