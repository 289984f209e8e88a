//! A host of a test network: a network namespace with a port in each LAN that it joined.

use super::{FOLDER, Lan, ip, run, within};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A port of a host and the bridge's end of its cable.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub lan: Lan,
    pub device: String,
    pub address: Ipv4Addr,
    pub mac: String,
    pub bridge: String,
    pub far: String,
}

/// Bytes and frames that crossed a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the host received, frame headers included.
    pub in_bytes: u64,
    /// Bytes that the host sent.
    pub out_bytes: u64,
    /// Frames that the host received.
    pub in_frames: u64,
    /// Frames that the host sent.
    pub out_frames: u64,
}

impl Traffic {
    /// What crossed since an earlier reading.
    pub fn since(self, before: Self) -> Self {
        Self {
            in_bytes: self.in_bytes - before.in_bytes,
            out_bytes: self.out_bytes - before.out_bytes,
            in_frames: self.in_frames - before.in_frames,
            out_frames: self.out_frames - before.out_frames,
        }
    }
}

struct Inner {
    name: String,
    namespace: String,
    ports: Mutex<Vec<Port>>,
}

/// A host; clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

impl Host {
    pub(super) fn new(name: &str, namespace: String) -> Self {
        Self(Arc::new(Inner { name: name.into(), namespace, ports: Mutex::default() }))
    }

    pub(super) fn add_port(&self, port: Port) {
        self.0.ports.lock().expect("no holder panics").push(port);
    }

    pub(super) fn ports(&self) -> Vec<Port> {
        self.0.ports.lock().expect("no holder panics").clone()
    }

    pub(super) fn port(&self, lan: Lan) -> Port {
        self.ports().into_iter().find(|p| p.lan == lan).unwrap_or_else(|| panic!("{} is not on {lan:?}", self.0.name))
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The address in the first LAN that it joined.
    pub fn address(&self) -> Ipv4Addr {
        self.ports()[0].address
    }

    /// The address in this LAN.
    pub fn address_in(&self, lan: Lan) -> Ipv4Addr {
        self.port(lan).address
    }

    /// A program to be run on this host; its process id is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        within(&self.0.namespace, program)
    }

    /// Does something on this host, in a thread of its own; sockets and threads that it makes stay on the host.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread onto this host, for good.
    pub(super) fn enter(&self) {
        let namespace = File::open(format!("{FOLDER}/{}", self.0.namespace)).expect("the namespace is there");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
    }

    /// Sets a value below `/proc/sys/net` of this host.
    pub(super) fn set(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.inside(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Pulls the cable: the host keeps its addresses, nothing passes.
    pub fn unplug(&self, lan: Lan) {
        let port = self.port(lan);
        ip(&["-n", &port.bridge, "link", "set", &port.far, "down"]);
    }

    /// Puts the cable in again.
    pub fn plug(&self, lan: Lan) {
        let port = self.port(lan);
        ip(&["-n", &port.bridge, "link", "set", &port.far, "up"]);
    }

    /// Limits the link to this LAN to so many Mbit/s in each direction.
    pub fn limit(&self, lan: Lan, mbit_per_s: u32) {
        let port = self.port(lan);
        // A burst must hold what one tick of the kernel's clock sends, and a frame of 64 KiB.
        let burst = (u64::from(mbit_per_s) * 1_000_000 / 8 / 250).max(128 * 1024).to_string();
        let rate = format!("{mbit_per_s}mbit");
        for (namespace, device) in [(self.namespace(), &port.device), (&port.bridge, &port.far)] {
            let words = ["-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf"];
            run(Command::new("tc").args(words).args(["rate", &rate, "burst", &burst, "latency", "50ms"]));
        }
    }

    /// What crossed the port to this LAN so far.
    pub fn traffic(&self, lan: Lan) -> Traffic {
        let device = self.port(lan).device;
        let table = self.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("the kernel's counters");
        let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{device}:"))).expect("the port is listed");
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        Traffic { in_bytes: numbers[0], in_frames: numbers[1], out_bytes: numbers[8], out_frames: numbers[9] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Net;
    use super::*;
    use crate::poll::until;
    use std::io::{Read, Write};
    use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Whether a UDP datagram from one host is heard on another.
    fn reaches(from: &Host, to: &Host, address: Ipv4Addr) -> bool {
        let receiver = to.inside(|| UdpSocket::bind((address, 9))).expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        from.inside(|| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"hello", (address, 9)))).is_ok()
            && receiver.recv(&mut [0; 16]).is_ok_and(|n| n == 5)
    }

    fn until_reaches(from: &Host, to: &Host, address: Ipv4Addr) {
        until("a datagram arrives", PATIENCE, || if reaches(from, to, address) { Ok(()) } else { Err("silence".into()) });
    }

    #[test]
    fn hosts_of_a_lan_reach_each_other_and_nobody_else() {
        let mut net = Net::new();
        let (lan, other) = (net.lan(), net.lan());
        let (a, b, far) = (net.host("A", lan), net.host("B", lan), net.host("far", other));
        until_reaches(&a, &b, b.address());
        assert!(!reaches(&a, &far, far.address()), "there is no router");
        let mut two = net.host("two", lan);
        net.join(&two, other);
        until_reaches(&two, &far, far.address());
        assert!(!reaches(&a, &far, far.address()), "a host on two LANs does not forward");
        let router = net.router(&[lan, other]);
        until_reaches(&a, &far, far.address());
        until_reaches(&far, &b, b.address());
        assert!(router.traffic(lan).in_frames > 0);
        two = net.host("three", lan);
        until_reaches(&two, &far, far.address());
        let names = String::from_utf8_lossy(&a.command("ip").args(["-br", "link"]).output().expect("ip").stdout).into_owned();
        assert!(names.contains("eth0") && !names.contains("eth1"), "a program sees the host's own ports: {names}");
    }

    #[test]
    fn link_local_addresses_and_multicast_work() {
        let mut net = Net::new();
        let lan = net.lan();
        let (a, b) = (net.host("A", lan), net.host("B", lan));
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let receiver = b.inside(|| UdpSocket::bind("0.0.0.0:5353")).expect("a socket");
        receiver.join_multicast_v4(&group, &b.address()).expect("the group");
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let shout = || a.inside(|| UdpSocket::bind((a.address(), 0)).and_then(|s| s.send_to(b"hello", (group, 5353))));
        until("a multicast arrives", PATIENCE, || {
            shout().map_err(|e| e.to_string())?;
            receiver.recv(&mut [0; 16]).map(drop).map_err(|e| e.to_string())
        });
        let deaf = b.block_multicast(lan);
        while receiver.recv(&mut [0; 16]).is_ok() {}
        shout().expect("sent");
        assert!(receiver.recv(&mut [0; 16]).is_err() && deaf.hits() > 0);
        let v6 = b.inside(|| UdpSocket::bind("[::]:7")).expect("a socket");
        v6.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        until("a datagram to a link-local address arrives", PATIENCE, || {
            let ((ip, _), (_, index)) = (link_local(&b)?, link_local(&a)?);
            let to = SocketAddr::V6(SocketAddrV6::new(ip, 7, 0, index));
            a.inside(|| UdpSocket::bind("[::]:0").and_then(|s| s.send_to(b"hello", to))).map_err(|e| e.to_string())?;
            v6.recv(&mut [0; 16]).map(drop).map_err(|e| e.to_string())
        });
    }

    /// The link-local address of a host's first port and the port's index, as the kernel lists them.
    fn link_local(host: &Host) -> Result<(Ipv6Addr, u32), String> {
        let table = host.inside(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6")).map_err(|e| e.to_string())?;
        let line = table.lines().find(|l| l.ends_with("eth0")).ok_or("no address yet")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(words[0], 16).map_err(|e| e.to_string())?;
        Ok((bits.into(), u32::from_str_radix(words[1], 16).map_err(|e| e.to_string())?))
    }

    #[test]
    fn a_pulled_cable_and_a_one_way_link() {
        let mut net = Net::new();
        let lan = net.lan();
        let (a, b) = (net.host("A", lan), net.host("B", lan));
        until_reaches(&a, &b, b.address());
        a.unplug(lan);
        assert!(!reaches(&a, &b, b.address()) && !reaches(&b, &a, a.address()));
        a.plug(lan);
        until_reaches(&a, &b, b.address());
        let deaf = a.block_from(lan, &b);
        assert!(!reaches(&b, &a, a.address()) && deaf.hits() > 0);
        until_reaches(&a, &b, b.address());
        drop(deaf);
        until_reaches(&b, &a, a.address());
        let no_udp = b.block_udp(lan);
        assert!(!reaches(&a, &b, b.address()) && !reaches(&b, &a, a.address()));
        drop(no_udp);
        until_reaches(&a, &b, b.address());
    }

    #[test]
    fn loss_is_as_asked() {
        let mut net = Net::new();
        let lan = net.lan();
        let (a, b) = (net.host("A", lan), net.host("B", lan));
        until_reaches(&a, &b, b.address());
        let receiver = b.inside(|| UdpSocket::bind((b.address(), 9))).expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let loss = b.lose(lan, 100);
        let sender = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        let mut got = 0;
        for _ in 0..40 {
            // In portions that the receiver's buffer holds.
            (0..50).for_each(|_| drop(sender.send_to(b"hello", (b.address(), 9))));
            receiver.set_nonblocking(true).expect("it can");
            while receiver.recv(&mut [0; 16]).is_ok() {
                got += 1;
            }
        }
        until("all have arrived or were dropped", PATIENCE, || {
            while receiver.recv(&mut [0; 16]).is_ok() {
                got += 1;
            }
            if got + loss.hits() == 2000 { Ok(()) } else { Err(format!("{got} arrived, {} were dropped", loss.hits())) }
        });
        assert!((100..320).contains(&loss.hits()), "about a tenth of 2,000 is lost: {}", loss.hits());
    }

    /// Bytes per second over TCP.
    fn speed(a: &Host, b: &Host, bytes: usize) -> f64 {
        let listener = b.inside(|| TcpListener::bind((b.address(), 10))).expect("a listener");
        let sink = std::thread::spawn(move || listener.accept().map(|(mut s, _)| std::io::copy(&mut s, &mut std::io::sink())));
        let start = Instant::now();
        let mut stream = a.inside(|| TcpStream::connect((b.address(), 10))).expect("a connection");
        stream.write_all(&vec![7; bytes]).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        let _ = stream.read(&mut [0; 1]);
        sink.join().expect("no panic").expect("accepted").expect("copied");
        bytes as f64 / start.elapsed().as_secs_f64()
    }

    #[test]
    fn a_limited_link_is_slow_and_its_bytes_are_counted() {
        let mut net = Net::new();
        let lan = net.lan();
        let (a, b) = (net.host("A", lan), net.host("B", lan));
        until_reaches(&a, &b, b.address());
        a.limit(lan, 40);
        let before = b.traffic(lan);
        // 4 MB at 5 MB/s. Only what cannot be by chance is asserted: the link is no faster than its limit and its burst.
        let slow = speed(&a, &b, 4_000_000);
        assert!(slow < 6_500_000.0, "{slow}");
        let crossed = b.traffic(lan).since(before);
        assert!((4_000_000..4_600_000).contains(&crossed.in_bytes) && crossed.out_bytes < 400_000, "{crossed:?}");
    }
}
