//! Strangers and floods at a real device: L01, L02, L03, L10, L19, L20, L33, Q12.

use crate::e2e::rows::*;
use ferry_protocol::lan::Message;
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_tests::attacker::{Attacker, Guise, end_of};
use ferry_tests::cluster::Cluster;
use ferry_tests::device::Device;
use ferry_tests::poll::until;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// What an attack may leave in memory on top of what was there, in bytes: caches and freed memory that the allocator keeps.
const GROWTH_MAX_BYTES: u64 = 96 << 20;

/// A device A that listens for others, B whose key the test uses, and devices of whom A knows by the relay only.
pub(super) fn stage(others: usize) -> (Cluster, Attacker, SocketAddr) {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let mut devices = vec![Device::new(folder.path(), "A").with_lan()];
    devices.extend(["B", "C"][..=others].iter().map(|name| Device::new(folder.path(), name)));
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    cluster.devices[1].stop();
    let attacker = Attacker::with_key_of(&cluster.devices[1]);
    let address = cluster.devices[0].lan_address();
    (cluster, attacker, address)
}

/// The device answers, holds no more memory than before and some, and no more open files.
pub(super) fn unharmed(device: &Device, before: (u64, usize)) {
    until("the device is as it was before", Duration::from_secs(60), || {
        device.try_status()?;
        let (memory, files) = (device.resident_bytes(), device.open_files());
        let calm = memory < before.0 + GROWTH_MAX_BYTES && files <= before.1 + 8;
        if calm { Ok(()) } else { Err(format!("{memory} bytes and {files} files; before {before:?}")) }
    });
    let log = std::fs::read_to_string(device.log()).expect("a log");
    assert!(!log.contains("panicked"), "{log}");
}

pub(super) fn now(device: &Device) -> (u64, usize) {
    (device.resident_bytes(), device.open_files())
}

/// L01, L02, L03, L10: who has no key that the relay listed gets a handshake at most, and not one byte of ours.
#[test]
fn l01_l02_l03_l10_strangers_hear_nothing() {
    let (cluster, member, address) = stage(0);
    let before = now(&cluster.devices[0]);
    let stranger = Attacker::stranger(cluster.folder());
    stranger.run(async {
        let silent = stranger.connect(address).await.expect("a key is proved, that is all");
        let talker = stranger.connect(address).await;
        // A second connection of the same device takes the first one's place, or ends.
        drop(talker);
        end_of(&silent).await.expect("it ends");
        let stats = silent.stats();
        assert_eq!(stats.frame_rx.stream, 0, "not one byte of a stream: {stats:?}");
        let talker = stranger.connect(address).await.expect("a connection");
        let mut control = talker.open_uni().await.expect("a stream");
        let mut bytes = vec![StreamKind::Control as u8];
        bytes.extend(frame::frame(&Message::Hello { min: 1, max: 1 }));
        bytes.extend(frame::frame(&Message::Ready { name: "A".into() }));
        let _ = control.write_all(&bytes).await;
        assert_eq!(end_of(&talker).await, Some(1), "it shares nothing with us");
        assert_eq!(talker.stats().frame_rx.stream, 0);
        for alpn in [&b"ferry/0"[..], b"ferry/2", b"h3", b"libp2p", b""] {
            let guise = Guise { alpn: alpn.to_vec(), certificate: None };
            assert!(stranger.connect_as(address, &guise).await.is_err(), "another protocol: {alpn:?}");
        }
        for guise in [Guise::bare(), Guise::self_signed("A"), Guise::self_signed(&member.own().to_string())] {
            // A client's handshake is over before the server has looked at its certificate: the refusal follows.
            if let Ok(connection) = stranger.connect_as(address, &guise).await {
                assert!(!matches!(connection.closed().await, quinn::ConnectionError::LocallyClosed));
                assert_eq!(connection.stats().frame_rx.stream, 0, "{:?}", guise.alpn);
            }
        }
        let guise = Guise::self_signed("A");
        assert!(!stranger.has_early_data(address, &guise).await, "no tickets, so nothing is sent before the handshake");
    });
    member.run(async { drop(member.join(address).await) });
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}

/// L20, L33, Q12: hundreds of handshakes at once, connections that are dropped in the middle, and datagrams of noise.
#[test]
fn l20_l33_q12_floods_leave_nothing() {
    let (cluster, member, address) = stage(0);
    let device = &cluster.devices[0];
    let before = now(device);
    let stranger = Attacker::stranger(cluster.folder());
    stranger.run(async {
        for _ in 0..5 {
            let mut whole = Vec::new();
            for _ in 0..200 {
                // Dropped in the middle of the handshake, for the most part.
                let begin = stranger.connect(address);
                if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(2), begin).await {
                    whole.push(connection);
                }
            }
            whole.iter().for_each(|connection| connection.close(7u32.into(), b""));
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut x = 0x2026_u64;
    for number in 0..20_000u32 {
        let mut bytes = [0; 1300];
        for byte in &mut bytes {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *byte = (x >> 32) as u8;
        }
        // Now and then what looks like the first packet of a connection, of this version or another.
        match number % 4 {
            0 => bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
            1 => bytes[..6].copy_from_slice(&[0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 20]),
            _ => {}
        }
        let len = [1200, 1300, 40, 1][(number as usize / 4) % 4];
        let _ = socket.send_to(&bytes[..len], address);
    }
    member.run(async { drop(member.join(address).await) });
    unharmed(device, before);
    cluster.finish();
}

/// L19: a member whose streams never end, never begin, or are never read; others are served meanwhile.
#[test]
fn l19_a_peer_that_stalls_holds_up_nobody_else() {
    let (mut cluster, attacker, address) = stage(1);
    let before = now(&cluster.devices[0]);
    let (a, c) = (cluster.devices[0].path("d"), cluster.devices[2].path("d"));
    put_bytes(&a, "big", &sized(&a, 1, 6_000_000));
    cluster.settle();
    let slow = attacker.run(async {
        let member = attacker.join(address).await;
        let mut held = Vec::new();
        for number in 0..24 {
            let (mut send, receive) = member.connection.open_bi().await.expect("a stream");
            // A byte of a question, half a length, or nothing at all.
            let _ = send.write_all(&[StreamKind::Chunks as u8, 0xff, 0xff][..number % 3]).await;
            held.push((send, receive));
        }
        let mut feeds = Vec::new();
        for number in 0..40u32 {
            let body = [&(60_000_000 + number).to_le_bytes()[..], &[1, 0]].concat();
            feeds.push(member.feed(&body).await.expect("a stream"));
        }
        (member, held, feeds)
    });
    put(&a, "from A", 2);
    put(&c, "from C", 3);
    cluster.settle();
    holds(&c, "from A", 2).and(holds(&a, "from C", 3)).expect("both arrived");
    drop(slow);
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}
