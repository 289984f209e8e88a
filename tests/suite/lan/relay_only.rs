//! Devices that have no way to each other, or may not use it, meet at the relay: P02, and the promise that the LAN is only faster.

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;

/// A round of what people do on two devices, and its outcome on both.
fn work(lab: &mut Lab) {
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    put(&a, "from A", 1);
    put(&b, "from B", 2);
    put_bytes(&a, "big", &sized(&a, 3, 3_000_000));
    (0..50).for_each(|k| put(&a, &format!("many/{k}"), 100 + k));
    lab.cluster.settle();
    mv(&b, "many", "renamed");
    put(&a, "from B", 4);
    rm(&b, "from A");
    lab.cluster.settle();
    for d in [&a, &b] {
        holds(d, "from B", 4).and(gone(d, "from A")).and(gone(d, "many")).expect("edit, delete and rename");
        holds_bytes(d, "big", &sized(&a, 3, 3_000_000)).expect("the big file");
        (0..50).try_for_each(|k| holds(d, &format!("renamed/{k}"), 100 + k)).expect("all");
    }
}

/// With the LAN off nothing is said to a neighbour, and everything arrives.
#[test]
fn with_the_lan_off_all_goes_by_the_relay() {
    let mut lab = Lab::lay(&[2], &[]);
    lab.set_all("lan.enabled", "false");
    let watched: Vec<_> = lab.cut_lan();
    lab.begin();
    work(&mut lab);
    assert!(watched.iter().all(|rule| rule.hits() == 0), "not one datagram");
    assert!(lab.wan_traffic().in_bytes > 3_000_000 && lab.wan_traffic().out_bytes > 3_000_000);
    drop(watched);
    lab.finish();
}

/// P02: two networks with nothing between them but the relay.
#[test]
fn p02_networks_without_a_way_between_them() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    lab.begin();
    work(&mut lab);
    drop(walls);
    lab.finish();
}

/// The relay's cable is out while both work, again and again.
#[test]
fn the_relay_comes_and_goes() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    lab.begin();
    for round in 0..4 {
        lab.cut_wan();
        for number in 0..2 {
            let d = lab.dir(number, format!("from {number}"));
            (0..5).for_each(|k| put(&d, &format!("{k}"), round * 10 + k));
        }
        put(&lab.dir(0, "both"), &format!("{round}"), round * 2);
        put(&lab.dir(1, "both"), &format!("{round}"), round * 2 + 1);
        ferry_tests::poll::pause(std::time::Duration::from_millis(300));
        lab.heal_wan();
        lab.cluster.settle();
    }
    for number in 0..2 {
        (0..4)
            .try_for_each(|round| kept_beside(&lab.dir(number, "both"), &round.to_string(), &[round * 2, round * 2 + 1]))
            .expect("both edits");
    }
    drop(walls);
    lab.finish();
}
