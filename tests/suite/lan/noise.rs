//! Anybody on the LAN can send packets: forged announcements and random bytes cost nothing but themselves; L08, L33.

use super::finding::PORT;
use crate::e2e::rows::*;
use ferry_tests::net::Host;
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::pause;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const SERVICE: &[&str] = &["_ferry", "_udp", "local"];
const GROUP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);

/// Pseudo-random numbers (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn name(out: &mut Vec<u8>, labels: &[&str]) {
    for label in labels {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

fn record(out: &mut Vec<u8>, labels: &[&str], kind: u16, data: &[u8]) {
    name(out, labels);
    out.extend_from_slice(&kind.to_be_bytes());
    // Class IN, to be kept for 120 s.
    out.extend_from_slice(&[0, 1, 0, 0, 0, 120]);
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// An mDNS answer that announces a service of ours at an address.
fn announcement(instance: &str, host: &str, address: Ipv4Addr, port: u16) -> Vec<u8> {
    let full = [&[instance], SERVICE].concat();
    // An answer, authoritative, with four records.
    let mut out = vec![0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let mut data = Vec::new();
    name(&mut data, &full);
    record(&mut out, SERVICE, 12, &data);
    data = vec![0, 0, 0, 0];
    data.extend_from_slice(&port.to_be_bytes());
    name(&mut data, &[host, "local"]);
    record(&mut out, &full, 33, &data);
    record(&mut out, &full, 16, b"\x03v=1\x09tag=00000");
    record(&mut out, &[host, "local"], 1, &address.octets());
    out
}

fn attacker(lab: &mut Lab) -> (Host, UdpSocket) {
    let lan = lab.lan();
    let host = lab.net.host("attacker", lan);
    let socket = host.inside(|| UdpSocket::bind((host.address(), 5353))).expect("a socket");
    (host, socket)
}

fn resident(lab: &Lab) -> [u64; 2] {
    [0, 1].map(|number| lab.device(number).resident_bytes())
}

/// After the noise the devices live, hold little more memory, and the LAN still works.
fn still_well(mut lab: Lab, before: [u64; 2]) {
    let now = resident(&lab);
    assert!(now.iter().zip(before).all(|(now, before)| *now < before + (64 << 20)), "memory is bounded: {now:?}, before {before:?}");
    lab.cut_wan();
    put(&lab.dir(0, "d"), "after", 9);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "after", 9));
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// L08: thousands of peers that do not exist, our own address, one address again and again.
#[test]
fn l08_forged_announcements() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    let (host, socket) = attacker(&mut lab);
    let before = (resident(&lab), lab.traffic(0));
    let victim = lab.device(0).host().address();
    let mut noise = Noise(8);
    for n in 0..10_000u32 {
        let address = match n % 3 {
            0 => victim,
            1 => host.address(),
            _ => Ipv4Addr::from(0x0a46_0000 | (noise.next() as u32 & 0xff)),
        };
        let datagram = announcement(&format!("{:016x}", noise.next()), &format!("h{n}"), address, noise.next() as u16 | 1);
        socket.send_to(&datagram, GROUP).expect("sent");
        if n % 200 == 0 {
            pause(Duration::from_millis(50));
        }
    }
    pause(Duration::from_secs(5));
    let sent = lab.traffic(0).since(before.1).out_frames;
    assert!(sent < 20_000, "dialling is limited: {sent} frames");
    still_well(lab, before.0);
}

/// L33, L20 in part: random datagrams, and such that begin like QUIC, at each port.
#[test]
fn l33_random_bytes_at_the_ports() {
    let mut lab = Lab::lay(&[2], &[]);
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    lab.begin();
    lab.until_all_connected();
    let (_host, socket) = attacker(&mut lab);
    let before = resident(&lab);
    let mut noise = Noise(33);
    for n in 0..20_000u32 {
        let len = noise.next() as usize % 1400;
        let mut datagram = noise.bytes(len);
        if n % 2 == 0 && len > 20 {
            // A long header of version 1 with connection ids of eight bytes: taken for the beginning of a connection.
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram[5] = 8;
            datagram[14] = 8;
        }
        let victim = lab.device(n as usize % 2).host().address();
        let port = if n % 5 == 0 { 5353 } else { PORT };
        let _ = socket.send_to(&datagram, (victim, port));
        if n % 500 == 0 {
            pause(Duration::from_millis(20));
        }
    }
    still_well(lab, before);
}
