//! Devices of one LAN converge without a relay, in every order of healing: P01, P03, P06, P30.

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::until;
use ferry_tests::tree;
use std::path::Path;
use std::time::Duration;

/// P01: the relay is away: an edit goes to the neighbour, nobody says that the relay has it, and it gets it once.
#[test]
fn p01_the_relay_is_away() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.cut_wan();
    let a = lab.dir(0, "d");
    put_bytes(&a, "big", &sized(&a, 1, 3_000_000));
    put(&a, "small", 2);
    lab.until_same(&[0, 1], |root| holds_bytes(&root.join("d"), "big", &sized(&a, 1, 3_000_000)).and(holds(&root.join("d"), "small", 2)));
    until("the sender says that the relay does not have it", Duration::from_secs(60), || {
        let status = lab.device(0).try_status()?;
        let pending = status["folders"][0]["pending"]["upload"].as_u64().unwrap_or(0);
        is(&status.to_string(), status["folders"][0]["relay"]["state"] != "connected" && pending > 0)
    });
    let before = lab.wan_traffic();
    lab.heal_wan();
    lab.cluster.settle();
    let crossed = lab.wan_traffic().since(before);
    // Both find the relay at about the same time and neither knows yet that the other does: at most once each.
    assert!((2_900_000..7_000_000).contains(&crossed.out_bytes), "the relay got it: {crossed:?}");
    assert!(crossed.in_bytes < 500_000, "and nobody fetched it from there: {crossed:?}");
    lab.finish();
}

/// Everything that people do, without a relay; and the same trees when it is back.
#[test]
fn all_kinds_of_work_without_a_relay() {
    let mut lab = Lab::new(3);
    lab.until_all_connected();
    let (a, b, c) = (lab.dir(0, "d"), lab.dir(1, "d"), lab.dir(2, "d"));
    (0..20).for_each(|k| put(&a, &format!("old/{k}"), k));
    put(&a, "edited", 30);
    put(&a, "deleted", 31);
    put(&a, "moved", 32);
    lab.cluster.settle();
    lab.cut_wan();
    put(&a, "new", 40);
    put_bytes(&b, "big", &sized(&a, 41, 5_000_000));
    put(&b, "edited", 42);
    rm(&c, "deleted");
    mv(&c, "moved", "moved away");
    mv(&a, "old", "renamed");
    mkdir(&b, "empty");
    std::os::unix::fs::symlink("new", c.join("link")).expect("a link");
    lab.until_same(&[0, 1, 2], |root| {
        let d = root.join("d");
        holds(&d, "new", 40)?;
        holds_bytes(&d, "big", &sized(&a, 41, 5_000_000))?;
        holds(&d, "edited", 42)?;
        gone(&d, "deleted")?;
        gone(&d, "moved")?;
        holds(&d, "moved away", 32)?;
        gone(&d, "old")?;
        is("an empty folder", d.join("empty").is_dir())?;
        is("a link", d.join("link").is_symlink())?;
        (0..20).try_for_each(|k| holds(&d, &format!("renamed/{k}"), k))
    });
    let before = tree::read(lab.device(0).root());
    lab.heal_wan();
    lab.cluster.settle();
    assert_eq!(tree::differences(&before, &tree::read(lab.device(0).root())), Vec::<String>::new(), "the relay changes nothing");
    lab.finish();
}

/// What stands on a disk after both sides worked apart.
fn both_edits(root: &Path) -> Verdict {
    let d = root.join("d");
    kept_beside(&d, "edited", &[10, 20])?;
    kept_beside(&d, "made", &[11, 21])?;
    holds(&d, "edit and delete", 12)?;
    is("one of both new names", d.join("name of A").exists() != d.join("name of B").exists())?;
    holds(&d, "only A", 14).and(holds(&d, "only B", 24))
}

/// P03: no relay and no LAN, edits and conflicts on both; the ways come back in each order, and the outcome is the same.
fn apart(heal: impl FnOnce(&mut Lab, Vec<ferry_tests::net::Rule>)) {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    put(&a, "edited", 1);
    put(&a, "edit and delete", 2);
    put(&a, "name", 3);
    lab.cluster.settle();
    let walls = lab.cut_lan();
    lab.cut_wan();
    for (d, base) in [(&a, 10), (&b, 20)] {
        put(d, "edited", base);
        put(d, "made", base + 1);
    }
    put(&a, "edit and delete", 12);
    rm(&b, "edit and delete");
    mv(&a, "name", "name of A");
    mv(&b, "name", "name of B");
    put(&a, "only A", 14);
    put(&b, "only B", 24);
    for number in 0..2 {
        until("the device has seen its own edits", Duration::from_secs(60), || {
            let status = lab.device(number).try_status()?;
            is(&status.to_string(), status["folders"][0]["pending"]["upload"].as_u64().unwrap_or(0) > 0)
        });
    }
    heal(&mut lab, walls);
    lab.cluster.settle();
    for number in 0..2 {
        both_edits(lab.device(number).root()).expect("both edits");
    }
    lab.finish();
}

#[test]
fn p03_the_relay_comes_back_first() {
    apart(|lab, walls| {
        lab.heal_wan();
        lab.until_same(&[0, 1], both_edits);
        drop(walls);
        lab.until_all_connected();
    });
}

#[test]
fn p03_the_lan_comes_back_first() {
    apart(|lab, walls| {
        drop(walls);
        lab.until_same(&[0, 1], both_edits);
        lab.heal_wan();
    });
}

#[test]
fn p03_both_come_back_at_once() {
    apart(|lab, walls| {
        drop(walls);
        lab.heal_wan();
    });
}

/// P06: A reaches only B, C only B and the relay: A's edit comes to C and to the relay, C's to A.
#[test]
fn p06_a_chain() {
    let mut lab = Lab::lay(&[2, 1], &[]);
    let (first, second) = (lab.lans[0], lab.lans[1]);
    let middle = lab.device(1).host().clone();
    lab.net.join(&middle, second);
    lab.begin();
    let walls = [(first, lab.wan), (first, second), (second, first)].map(|(from, to)| lab.router.block_between(from, to));
    let a = lab.dir(0, "d");
    put_bytes(&a, "from A", &sized(&a, 1, 2_000_000));
    lab.until_same(&[0, 1, 2], |root| holds_bytes(&root.join("d"), "from A", &sized(&a, 1, 2_000_000)));
    put(&lab.dir(2, "d"), "from C", 2);
    put(&a, "from A", 3);
    lab.until_same(&[0, 1, 2], |root| holds(&root.join("d"), "from C", 2).and(holds(&root.join("d"), "from A", 3)));
    until("C brings it to the relay", Duration::from_secs(120), || lab.device(2).is_quiet());
    drop(walls);
    lab.cluster.settle();
    lab.finish();
}

/// P30: the relay does not have what A did; B heard it from A and edits on it; C hears of both from the relay, as one history.
#[test]
fn p30_a_neighbour_is_ahead_of_the_relay() {
    let mut lab = Lab::lay(&[2, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    lab.begin();
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    put(&a, "f", 1);
    lab.cluster.settle();
    let relay = lab.relay_host.clone();
    let cut_off = lab.device(0).host().block_from(lab.lan(), &relay);
    put(&a, "f", 2);
    put(&a, "new of A", 3);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "f", 2).and(holds(&root.join("d"), "new of A", 3)));
    put(&b, "f", 4);
    lab.until_same(&[0, 1, 2], |root| {
        let d = root.join("d");
        holds(&d, "f", 4)?;
        holds(&d, "new of A", 3)?;
        only(&d, &["f", "new of A"])
    });
    put(&lab.dir(2, "d"), "f", 5);
    lab.until_same(&[0, 1, 2], |root| holds(&root.join("d"), "f", 5).and(only(&root.join("d"), &["f", "new of A"])));
    drop(cut_off);
    drop(walls);
    lab.cluster.settle();
    lab.finish();
}

/// Two edits of one text become one without a relay: what both were edited from stands on no disk any more, and was kept.
#[test]
fn texts_are_merged_without_a_relay() {
    let mut lab = Lab::new(2);
    let text = |changed: &[usize]| -> String {
        (0..60).map(|n| if changed.contains(&n) { format!("changed {n}\n") } else { format!("line {n}\n") }).collect()
    };
    for index in 0..2 {
        lab.device(index).ok(&["folder", "set", ferry_tests::cluster::NAMESPACE, "merge-text=true"]);
    }
    lab.until_all_connected();
    put_bytes(&lab.dir(0, "d"), "notes.txt", text(&[]).as_bytes());
    lab.until_same(&[0, 1], |root| holds_bytes(&root.join("d"), "notes.txt", text(&[]).as_bytes()));
    // Both people write over it themselves: the relay has it from before.
    lab.cluster.settle();
    lab.cut_wan();
    lab.cluster.devices.iter_mut().for_each(|d| d.stop());
    put_bytes(&lab.dir(0, "d"), "notes.txt", text(&[5]).as_bytes());
    put_bytes(&lab.dir(1, "d"), "notes.txt", text(&[50]).as_bytes());
    lab.cluster.devices.iter_mut().for_each(|d| d.start());
    lab.until_same(&[0, 1], |root| {
        let d = root.join("d");
        holds_bytes(&d, "notes.txt", text(&[5, 50]).as_bytes()).and(only(&d, &["notes.txt"]))
    });
    lab.heal_wan();
    lab.cluster.settle();
    only(&lab.dir(0, "d"), &["notes.txt"]).unwrap();
    lab.finish();
}
