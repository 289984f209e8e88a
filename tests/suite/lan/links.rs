//! Bad links: flapping, one-way, lossy and reordering, without UDP; P04, P05, P07, P08.

use super::finding::PORT;
use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;
use ferry_tests::net::udp::{Trouble, UdpProxy};
use ferry_tests::poll::{pause, until};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const BIG: usize = 48 << 20;

fn open_files(lab: &Lab, number: usize) -> usize {
    let pid = lab.device(number).pid().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// P04: the only link goes down and up under a transfer and many small edits: it finishes, little is sent twice, no connection leaks.
#[test]
fn p04_a_flapping_link() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.cut_wan();
    let (lan, a) = (lab.lan(), lab.dir(0, "d"));
    let before = [open_files(&lab, 0), open_files(&lab, 1)];
    let host = lab.device(0).host().clone();
    host.limit(lan, 60);
    let sent = lab.traffic(0);
    put_bytes(&a, "big", &sized(&a, 0, BIG));
    for round in 0..6u32 {
        (0..50).for_each(|k| put(&a, &format!("small/{}", round * 50 + k), 1 + round * 50 + k));
        pause(Duration::from_millis(1500));
        host.unplug(lan);
        pause(Duration::from_millis(1500));
        host.plug(lan);
    }
    lab.until_same(&[0, 1], |root| {
        let d = root.join("d");
        holds_bytes(&d, "big", &sized(&a, 0, BIG))?;
        (0..300).try_for_each(|k| holds(&d, &format!("small/{k}"), 1 + k))
    });
    let sent = lab.traffic(0).since(sent).out_bytes;
    // A tenth more for what the cuts lost on the way; headers, acknowledgements and the small files come on top.
    assert!(sent < BIG as u64 * 13 / 10, "it was sent again and again: {sent} of {BIG}");
    lab.heal_wan();
    lab.cluster.settle();
    until("no connection is left over", Duration::from_secs(60), || {
        let now = [open_files(&lab, 0), open_files(&lab, 1)];
        is(&format!("{now:?}, before {before:?}"), now.iter().zip(before).all(|(now, before)| *now <= before + 12))
    });
    lab.finish();
}

/// P04: the link to the best source goes away in the middle of a transfer; the rest comes from elsewhere.
#[test]
fn p04_a_source_that_goes_in_the_middle() {
    let mut lab = Lab::new(3);
    lab.until_all_connected();
    let (lan, a) = (lab.lan(), lab.dir(0, "d"));
    lab.device_mut(2).stop();
    put_bytes(&a, "big", &sized(&a, 0, BIG));
    lab.cluster.settle();
    let host = lab.device(0).host().clone();
    let source = lab.traffic(0);
    host.limit(lan, 40);
    lab.device_mut(2).start();
    // Either neighbour may have been asked: A is slow and then gone.
    until("something is on its way", Duration::from_secs(60), || {
        let arrived = holds_bytes(&lab.dir(2, "d"), "big", &sized(&a, 0, BIG)).is_ok();
        is("not yet", arrived || lab.traffic(2).in_bytes > BIG as u64 / 8 || lab.traffic(0).since(source).out_bytes > BIG as u64 / 8)
    });
    host.unplug(lan);
    lab.until_same(&[1, 2], |root| holds_bytes(&root.join("d"), "big", &sized(&a, 0, BIG)));
    host.plug(lan);
    lab.cluster.settle();
    lab.finish();
}

/// P05: what A sends never reaches B, for good: they meet at the relay, and do not spin.
#[test]
fn p05_a_one_way_link() {
    let mut lab = Lab::new(3);
    lab.until_all_connected();
    let (lan, a) = (lab.lan(), lab.device(0).host().clone());
    let deaf = lab.device(1).host().block_from(lan, &a);
    put(&lab.dir(0, "d"), "from A", 1);
    put(&lab.dir(1, "d"), "from B", 2);
    put(&lab.dir(2, "d"), "from C", 3);
    let all = |root: &std::path::Path| {
        let d = root.join("d");
        holds(&d, "from A", 1).and(holds(&d, "from B", 2)).and(holds(&d, "from C", 3))
    };
    lab.until_same(&[0, 1, 2], all);
    lab.cluster.settle();
    // Without the relay there is still the way by C.
    lab.cut_wan();
    put(&lab.dir(0, "d"), "more of A", 4);
    put(&lab.dir(1, "d"), "more of B", 5);
    lab.until_same(&[0, 1, 2], |root| holds(&root.join("d"), "more of A", 4).and(holds(&root.join("d"), "more of B", 5)));
    lab.heal_wan();
    lab.cluster.settle();
    let before = (lab.traffic(0), lab.device(0).cpu_ms(), lab.device(1).cpu_ms());
    pause(Duration::from_secs(15));
    let frames = lab.traffic(0).since(before.0).out_frames;
    let cpu = (lab.device(0).cpu_ms() - before.1, lab.device(1).cpu_ms() - before.2);
    assert!(frames < 1500 && cpu.0 < 5000 && cpu.1 < 5000, "they rest: {frames} frames, {cpu:?} ms");
    assert!(deaf.hits() > 0);
    drop(deaf);
    lab.finish();
}

/// P07, also damaged datagrams: a bad line between two networks that have nothing else.
#[test]
fn p07_a_line_that_loses_delays_and_reorders() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    let (first, second) = (lab.lans[0], lab.lans[1]);
    let middle = lab.net.host("middle", first);
    lab.net.join(&middle, second);
    let server = SocketAddr::from((lab.device(0).host().address(), PORT));
    let proxy = UdpProxy::on(&middle, "0.0.0.0".parse().expect("an address"), server, 11);
    proxy.set(Trouble { delay: Duration::from_millis(50), jitter: Duration::from_millis(10), lose: 50, double: 50, damage: 10 });
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    let by_proxy = SocketAddr::from((middle.address_in(second), proxy.address().port()));
    lab.device(1).ok(&["config", "set", "lan.peers", &by_proxy.to_string()]);
    lab.begin();
    lab.until_all_connected();
    lab.cut_wan();
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    put_bytes(&a, "big", &sized(&a, 0, 1 << 20));
    (0..100).for_each(|k| put(&b, &format!("small/{k}"), 1 + k));
    put(&a, "x", 200);
    lab.until_same(&[0, 1], |root| {
        let d = root.join("d");
        holds_bytes(&d, "big", &sized(&a, 0, 1 << 20))?;
        holds(&d, "x", 200)?;
        (0..100).try_for_each(|k| holds(&d, &format!("small/{k}"), 1 + k))
    });
    mv(&b, "small", "renamed");
    rm(&a, "x");
    lab.until_same(&[0, 1], |root| {
        gone(&root.join("d"), "x").and(gone(&root.join("d"), "small")).and(holds(&root.join("d"), "renamed/99", 100))
    });
    drop(walls);
    lab.heal_wan();
    lab.cluster.settle();
    drop(proxy);
    lab.finish();
}

/// Loss on a LAN at a normal rate costs time only.
#[test]
fn p07_a_lossy_lan() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.cut_wan();
    let loss: Vec<_> = lab.cluster.devices.iter().map(|d| d.host().lose(lab.lan(), 50)).collect();
    let a = lab.dir(0, "d");
    put_bytes(&a, "big", &sized(&a, 0, 16 << 20));
    (0..200).for_each(|k| put(&a, &format!("small/{k}"), 1 + k));
    lab.until_same(&[0, 1], |root| {
        holds_bytes(&root.join("d"), "big", &sized(&a, 0, 16 << 20))?;
        (0..200).try_for_each(|k| holds(&root.join("d"), &format!("small/{k}"), 1 + k))
    });
    assert!(loss.iter().any(|rule| rule.hits() > 0));
    drop(loss);
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// P08: UDP is blocked: the relay carries everything, and the list of peers says so.
#[test]
fn p08_without_udp() {
    let mut lab = Lab::lay(&[2], &[]);
    let walls = lab.cut_lan();
    lab.begin();
    let a = lab.dir(0, "d");
    put_bytes(&a, "f", &sized(&a, 1, 1_000_000));
    lab.cluster.settle();
    holds_bytes(&lab.dir(1, "d"), "f", &sized(&a, 1, 1_000_000)).expect("by the relay");
    assert!(lab.wan_traffic().in_bytes > 1_000_000);
    until("the list of peers says it", Duration::from_secs(90), || {
        let peers = lab.peers(0)?;
        let said = peers.iter().any(|p| p["state"] == "unreachable" && p["reason"].as_str().is_some_and(|r| !r.is_empty()));
        is(&format!("{peers:?}"), said)
    });
    assert_eq!(lab.device(0).status()["peers"].as_array().map_or(0, Vec::len), 0);
    drop(walls);
    lab.until_all_connected();
    lab.finish();
}

/// The way goes while both are connected, and comes back: nobody is told by the network, and the relay takes over.
#[test]
fn p08_udp_that_is_blocked_later() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    for round in 0..2 {
        let walls = lab.cut_lan();
        put(&lab.dir(0, "d"), "f", round * 2);
        lab.until_same(&[0, 1], |root| holds(&root.join("d"), "f", round * 2));
        drop(walls);
        lab.until_all_connected();
        lab.cut_wan();
        put(&lab.dir(1, "d"), "f", round * 2 + 1);
        lab.until_same(&[0, 1], |root| holds(&root.join("d"), "f", round * 2 + 1));
        lab.heal_wan();
    }
    lab.cluster.settle();
    lab.finish();
}
