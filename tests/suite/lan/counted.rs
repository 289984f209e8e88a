//! How often the same bytes cross the way to the relay: what one neighbour has, the others do not fetch from far away, and nobody sends twice.

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;

const SIZE: usize = 16 << 20;

/// New content of one device goes to the relay once, and to its neighbours directly.
#[test]
fn neighbours_fetch_from_each_other() {
    let mut lab = Lab::new(3);
    lab.until_all_connected();
    let (before, a) = (lab.wan_traffic(), lab.dir(0, "d"));
    put_bytes(&a, "big", &sized(&a, 1, SIZE));
    (0..200).for_each(|k| put_bytes(&a, &format!("many/{k}"), &sized(&a, 10 + k, 10_000)));
    lab.cluster.settle();
    let crossed = lab.wan_traffic().since(before);
    let content = (SIZE + 200 * 10_000) as u64;
    assert!((content * 9 / 10..content * 13 / 10).contains(&crossed.out_bytes), "sent to the relay once: {crossed:?}, {content}");
    assert!(crossed.in_bytes < content / 5, "not fetched from there: {crossed:?}");
    lab.finish();
}

/// What comes from far away is divided among the devices of a LAN: it crosses the way to them about once.
#[test]
fn a_lan_fetches_from_far_away_about_once() {
    let mut lab = Lab::lay(&[4, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    lab.begin();
    (0..4).for_each(|number| lab.until_connected(number, 3));
    // A shared uplink: without a limit whoever is first has everything before the others ask.
    lab.router.limit(lab.lan(), 100);
    let (before, far) = (lab.router.traffic(lab.lan()), lab.dir(4, "d"));
    put_bytes(&far, "big", &sized(&far, 1, SIZE));
    (0..100).for_each(|k| put_bytes(&far, &format!("many/{k}"), &sized(&far, 10 + k, 20_000)));
    lab.cluster.settle();
    let crossed = lab.router.traffic(lab.lan()).since(before).out_bytes;
    let content = (SIZE + 100 * 20_000) as u64;
    assert!(crossed < content * 15 / 10, "about once, not four times: {crossed} of {content}");
    drop(walls);
    lab.finish();
}

/// The same bytes as a file that is known are not sent again to anybody.
#[test]
fn a_copy_costs_nothing() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    let a = lab.dir(0, "d");
    put_bytes(&a, "big", &sized(&a, 1, SIZE));
    lab.cluster.settle();
    let before = (lab.traffic(0), lab.wan_traffic());
    std::fs::copy(a.join("big"), a.join("copy")).expect("room");
    lab.cluster.settle();
    let (own, wan) = (lab.traffic(0).since(before.0), lab.wan_traffic().since(before.1));
    assert!(own.out_bytes < SIZE as u64 / 10 && wan.out_bytes < SIZE as u64 / 10, "{own:?} {wan:?}");
    lab.finish();
}
