//! Rows of the catalogue that need a moment to be chosen: what happens between two steps of a device. Simulated disks and relay.

use ferry_engine::{DiskOutcome, Filter, Obstacle, Policy};
use ferry_protocol::RelPath;
use ferry_tests::sim::calm::Tree;
use ferry_tests::sim::device::STEPS;
use ferry_tests::sim::{Calm, Step, path};

/// Steps that look at the disk and read it.
const LOOKING: [Step; 5] = [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::TakeHashes, Step::AnswerHash];

fn contents(tree: &Tree) -> Vec<&str> {
    let mut out: Vec<&str> = tree.values().map(String::as_str).filter(|c| !c.is_empty()).collect();
    out.sort_unstable();
    out
}

/// The device takes in what its user did, and nothing else.
fn look(world: &mut Calm, device: usize) {
    for _ in 0..20 {
        for step in LOOKING {
            world.devices[device].step(step, &mut world.relay);
        }
    }
}

/// B23, K14, K17: what cannot be read is told and stays everywhere; everything else goes on; readable again, it is taken up.
#[test]
fn what_cannot_be_read_is_told_and_stays() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    for (at, content) in [("d/in", "in an unreadable directory"), ("f", "first version of f"), ("g", "first version of g")] {
        world.write(0, at, content);
    }
    let before = world.converge();
    world.write(0, "f", "second version of f");
    for unreadable in ["f", "d"] {
        world.devices[0].disk.set_unreadable(&path(unreadable), true);
    }
    world.write(0, "g", "second version of g");
    world.devices[0].engine.rescan();
    world.settle_all();
    let mut wanted = before.clone();
    wanted.insert("g".into(), "second version of g".into());
    assert_eq!(world.tree(1), wanted, "nothing else is touched");
    let told: Vec<String> = world.devices[0].engine.issues().map(|(p, _)| p.to_string()).collect();
    assert_eq!(told, ["d", "f"]);
    world.write(1, "d/in", "changed elsewhere meanwhile");
    world.settle_all();
    world.devices[0].disk.unreadable.clear();
    world.devices[0].engine.rescan();
    let got = world.converge();
    assert_eq!((got["f"].as_str(), got["d/in"].as_str()), ("second version of f", "changed elsewhere meanwhile"));
    assert!(world.devices[0].engine.issues().next().is_none());
}

/// I15: what a look or a reading met that began before everything was looked at again is older news, also when its answer comes after that: it is
/// no longer told once the newer look is over, although what it stood for goes by another path now.
#[test]
fn what_an_older_look_met_is_not_told_for_ever() {
    let mut world = Calm::new(2);
    for (directory, file) in [("d", "d/in"), ("p", "p/f")] {
        world.mkdir(0, directory);
        world.write(0, file, "first version");
    }
    world.converge();
    world.write(0, "p/f", "second version");
    let device = &mut world.devices[0];
    for unreadable in ["d", "p/f"] {
        device.disk.set_unreadable(&path(unreadable), true);
    }
    device.engine.rescan();
    let (mut looks, mut readings) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        for look in device.engine.next_looks(8).expect("trees in memory") {
            let seen = device.disk.look(&look);
            if look.path == path("d") {
                looks.push((look, seen));
            } else {
                device.engine.handle_look(&look, seen).expect("trees in memory");
            }
        }
        for task in device.engine.next_hashes(8).expect("trees in memory") {
            let read = device.disk.hash(&task);
            readings.push((task, read));
        }
    }
    assert_eq!((looks.len(), readings.len()), (1, 1));
    device.disk.unreadable.clear();
    device.engine.rescan();
    for (look, seen) in looks {
        device.engine.handle_look(&look, seen).expect("trees in memory");
    }
    for (task, read) in readings {
        device.engine.handle_hash(&task, read).expect("trees in memory");
    }
    let told: Vec<String> = device.engine.issues().map(|(p, _)| p.to_string()).collect();
    assert_eq!(told, ["d", "p/f"], "told until it is known better");
    world.rename(0, "d", "e");
    world.rename(0, "p", "q");
    let got = world.converge();
    assert_eq!(got["q/f"], "second version");
    assert!(world.devices[0].engine.issues().next().is_none(), "{:?}", world.devices[0].engine.issues().collect::<Vec<_>>());
}

/// K11: what is in place and cannot be made durable is not taken for done, over a restart too; it is told, and what users do elsewhere goes on. When the
/// disk is well again all goes on by itself, also if it has forgotten what was in place.
#[test]
fn what_cannot_be_made_durable_is_not_taken_for_done() {
    for (restarts, forgets) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = Calm::new(2);
        for at in ["edited", "removed", "moved", "stays"] {
            world.write(0, at, &format!("first version of {at}"));
        }
        let before = world.converge();
        let items = |world: &Calm| world.devices[1].engine.trees().all_items().map(|(k, i)| (*k, i.clone())).collect::<Vec<_>>();
        let told = |world: &Calm| world.devices[1].engine.issues().map(|(p, i)| (p.is_root(), i.code)).collect::<Vec<_>>();
        let (known, earlier) = (items(&world), world.devices[1].disk.clone());
        world.devices[1].disk.fails_syncs = true;
        world.save(0, "edited", "second version of edited");
        world.remove(0, "removed");
        world.rename(0, "moved", "target");
        world.settle(0);
        world.settle(1);
        assert_ne!(world.tree(1), before, "something is in place");
        // What the watcher says of it, and a look at everything.
        world.devices[1].hints.extend(["edited", "removed", "moved", "target"].map(path));
        world.devices[1].engine.rescan();
        world.settle(1);
        assert_eq!((items(&world), told(&world)), (known.clone(), vec![(true, "io_error")]));
        assert!(!world.devices[1].engine.is_settled());
        if !restarts && !forgets {
            world.write(1, "own", "made here meanwhile");
            world.settle(1);
            world.settle(0);
            assert_eq!(world.tree(0)["own"], "made here meanwhile");
        }
        if restarts {
            world.devices[1].durable = world.devices[1].engine.trees().clone();
            world.devices[1].restart();
            world.write(0, "later", "made while the disk is not well");
            world.settle(0);
            world.settle(1);
            assert_eq!((items(&world), told(&world)), (known, vec![(true, "io_error")]), "nothing is looked at before a sync");
            assert!(!world.tree(1).contains_key("later"));
        }
        if forgets {
            world.devices[1].disk = earlier;
        }
        world.devices[1].disk.fails_syncs = false;
        let got = world.converge();
        assert!(got["edited"].starts_with("second") && got.contains_key("target") && !got.contains_key("removed"), "{got:?}");
        assert_eq!(contents(&got).len(), 3 + usize::from(restarts || !forgets), "no twins: {got:?}");
        assert_eq!(told(&world), []);
    }
}

/// K15: what was staged and thrown away, because it could not be made durable, is fetched again.
#[test]
fn what_was_staged_and_is_gone_is_fetched_again() {
    let mut world = Calm::new(2);
    world.write(0, "f", "the content of f");
    world.settle(0);
    let device = &mut world.devices[1];
    let content = ferry_protocol::ContentHash::of(b"the content of f");
    let mut fetches = 0;
    for _ in 0..40 {
        device.step(Step::TakeLooks, &mut world.relay);
        device.step(Step::AnswerLook, &mut world.relay);
        device.step(Step::Hear, &mut world.relay);
        let plan = device.engine.plan(4).expect("trees in memory");
        for fetch in plan.fetches {
            assert_eq!(fetch.manifest.hash(), content);
            fetches += 1;
            device.engine.handle_fetch(content, Ok(())).expect("trees in memory");
        }
        if let Some(batch) = plan.batch {
            let outcomes = vec![DiskOutcome::Blocked(Obstacle::Corrupt); batch.actions.len()];
            device.engine.handle_batch(batch.id, outcomes).expect("trees in memory");
            let due = device.engine.deadline_ms().expect("it is tried again");
            device.set_time(due);
        }
    }
    assert!(fetches > 2, "fetched {fetches} times");
}

/// B26: a file is written again within the clock's granule after it was read, so that no stat shows it. The hands distrust such a reading and ask
/// for it once more.
#[test]
fn a_rewrite_within_the_clocks_granule_is_read_again() {
    for sent in [false, true] {
        let mut world = Calm::new(2);
        world.write(0, "f", "the first bytes");
        look(&mut world, 0);
        if sent {
            world.converge();
        }
        assert!(world.devices[0].disk.rewrite_unseen(&path("f"), b"the other bytes"));
        let name = ferry_protocol::Name::new("f").expect("a name");
        world.devices[0].engine.distrust(ferry_protocol::NodeId::ROOT, &name).expect("trees in memory");
        assert_eq!(world.converge()["f"], "the other bytes");
    }
}

/// B48: a directory and a file in it are made, renamed and edited before anybody looks, whatever the order of the hints.
#[test]
fn made_renamed_edited_and_renamed_before_anybody_looks() {
    for order in 0..3 {
        let mut world = Calm::new(2);
        world.write(0, "other", "stays");
        world.converge();
        world.mkdir(0, "d");
        world.write(0, "d/f", "as it was made");
        world.rename(0, "d", "e");
        world.write(0, "e/f", "as it was edited");
        world.rename(0, "e/f", "e/g");
        match order {
            1 => world.devices[0].hints.reverse(),
            2 => world.devices[0].hints.retain(|p| p.names().len() == 1),
            _ => {}
        }
        let got = world.converge();
        assert_eq!(got.keys().collect::<Vec<_>>(), ["e/", "e/g", "other"], "order {order}");
        assert_eq!(got["e/g"], "as it was edited");
    }
}

/// Leaves out one directory.
struct Without(&'static str);

impl Filter for Without {
    fn is_ignored(&self, path: &RelPath, _: bool) -> bool {
        path.names().first().is_some_and(|n| n.as_bytes() == self.0.as_bytes())
    }
}

/// B61: a directory is left out on one device and its files are removed there, and the daemon dies at any moment of it: never a delete elsewhere.
#[test]
fn what_is_left_out_here_is_deleted_nowhere() {
    for moment in 0..24 {
        let mut world = Calm::new(2);
        world.mkdir(0, "d");
        for i in 0..4 {
            world.write(0, &format!("d/f{i}"), &format!("content {i}"));
        }
        world.write(0, "other", "stays");
        let before = world.converge();
        let device = &mut world.devices[1];
        device.step(Step::Flush, &mut world.relay);
        device.engine.set_filter(Box::new(Without("d")));
        device.engine.rescan();
        for step in STEPS.iter().cycle().take(moment) {
            device.step(*step, &mut world.relay);
        }
        assert!(device.disk.remove(&path("d")));
        for step in STEPS.iter().cycle().skip(moment).take(moment % 5) {
            device.step(*step, &mut world.relay);
        }
        device.restart();
        device.engine.set_filter(Box::new(Without("d")));
        device.engine.rescan();
        world.settle_all();
        assert_eq!(world.tree(0), before, "moment {moment}");
        assert_eq!(world.tree(1).len(), 1, "moment {moment}");
        world.devices[1].engine.set_filter(Box::new(ferry_engine::NoFilter));
        world.devices[1].engine.rescan();
        assert_eq!(world.converge(), before, "chosen again, it comes back (moment {moment})");
    }
}

/// C28: taking an edit back is an edit. Against a concurrent edit both stay to be had, and so does what was in between.
#[test]
fn an_edit_that_was_taken_back_is_an_edit() {
    let mut world = Calm::new(2);
    world.write(0, "f", "the first version");
    world.converge();
    world.write(1, "f", "the other's version");
    look(&mut world, 1);
    for content in ["the second version", "the first version"] {
        world.write(0, "f", content);
        world.settle(0);
    }
    let got = world.converge();
    assert_eq!(contents(&got), ["the first version", "the other's version"]);
    assert!(world.relay.keeps(b"the second version"));
}

/// C34: a directory was replaced by a file elsewhere; here somebody changes and adds something in it, and nobody has looked.
#[test]
fn a_directory_replaced_by_a_file_meets_unscanned_changes() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    for name in ["d/changed", "d/untouched"] {
        world.write(0, name, &format!("{name} as it was"));
    }
    world.write(0, "other", "stays");
    world.converge();
    world.remove(0, "d");
    world.write(0, "d", "a file now");
    world.settle(0);
    let disk = &mut world.devices[1].disk;
    assert!(disk.write(&path("d/changed"), b"changed unseen") && disk.write(&path("d/new"), b"new and unseen"));
    world.settle_all();
    world.devices[1].engine.rescan();
    let got = world.converge();
    assert_eq!(contents(&got), ["a file now", "changed unseen", "new and unseen", "stays"]);
    assert_eq!((got["d/changed"].as_str(), got["d/new"].as_str()), ("changed unseen", "new and unseen"));
}

/// C36: the right to write goes while an edit waits to be sent: nothing is sent any more, and the bytes stay here.
#[test]
fn an_edit_of_one_who_may_no_longer_write_stays_here() {
    let mut world = Calm::new(2);
    world.write(0, "f", "the first version");
    world.converge();
    world.write(1, "f", "an edit that waits");
    world.write(1, "g", "a new file that waits");
    look(&mut world, 1);
    let head = world.relay.head;
    let viewer = Policy { may_write: false, ..Policy::default() };
    world.devices[1].policy = viewer.clone();
    *world.devices[1].engine.policy_mut() = viewer;
    world.settle_all();
    assert_eq!(world.relay.head, head, "nothing was sent");
    world.write(0, "f", "the second version");
    world.settle_all();
    assert_eq!(contents(&world.tree(0)), ["the second version"]);
    let here = world.tree(1);
    assert!(["an edit that waits", "a new file that waits"].iter().all(|c| contents(&here).contains(c)), "{here:?}");
}

/// P12: a clock that is a year ahead, one that is a day behind, and one of 1970 change no outcome.
#[test]
fn clocks_decide_nothing() {
    const DAY_MS: i64 = 86_400_000;
    let run = |skews: [i64; 3]| {
        let mut world = Calm::new(3);
        world.now_ms = 1_764_000_000_000;
        for (device, skew) in world.devices.iter_mut().zip(skews) {
            device.skew_ms = skew;
        }
        for name in ["edited", "deleted", "fought over"] {
            world.write(0, name, &format!("{name} at first"));
        }
        world.converge();
        world.write(0, "fought over", "by the first");
        world.write(1, "fought over", "by the second");
        world.remove(2, "deleted");
        world.settle(2);
        world.write(2, "edited", "by the third");
        world.converge();
        // An edit after the delete was heard of, and a look at everything, bring nothing back.
        world.write(1, "edited", "by the second, after the third");
        world.devices.iter_mut().for_each(|d| d.engine.rescan());
        let tree = world.converge();
        let name = |path: &String| path.split(" (conflicted").next().unwrap_or_default().to_owned();
        tree.iter().map(|(path, content)| (name(path), path.contains("conflicted"), content.clone())).collect::<Vec<_>>()
    };
    let right = run([0; 3]);
    assert_eq!(right.len(), 3, "{right:?}");
    assert_eq!(run([365 * DAY_MS, -DAY_MS, -1_764_000_000_000]), right);
    assert_eq!(run([-1_764_000_000_000, 365 * DAY_MS, 0]), right);
}

/// P20: two machines go on from one disk and one index. The one that hears of the other under its own name begins a new life; no edit is lost.
#[test]
fn two_machines_with_one_index_become_two() {
    let mut world = Calm::new(3);
    world.write(0, "f", "the first version");
    world.converge();
    let (disk, trees) = (world.devices[0].disk.clone(), world.devices[0].engine.trees().clone());
    world.devices[2].restore(disk, trees);
    world.write(0, "f", "an edit by the original");
    world.write(2, "f", "an edit by the clone");
    world.write(0, "a", "a file of the original");
    world.write(2, "c", "a file of the clone");
    let got = world.converge();
    let all = ["a file of the clone", "a file of the original", "an edit by the clone", "an edit by the original"];
    assert_eq!(contents(&got), all);
    for device in [0, 2] {
        world.write(device, &format!("later {device}"), &format!("later on {device}"));
    }
    assert_eq!(world.converge().len(), 6);
}

/// H03, H04: a file is edited, cut short, deleted, renamed or replaced between the commit's assembly and its sending.
#[test]
fn a_file_that_changes_while_it_is_sent() {
    type Change = fn(&mut Calm);
    let changes: [(&str, Change); 5] = [
        ("edited", |w| w.write(0, "f", "the second version, longer than the first one")),
        ("cut short", |w| w.write(0, "f", "the first")),
        ("deleted", |w| w.remove(0, "f")),
        ("renamed", |w| w.rename(0, "f", "g")),
        ("replaced", |w| w.save(0, "f", "another file under the same name")),
    ];
    for (what, change) in changes {
        let mut world = Calm::new(2);
        world.write(0, "other", "stays");
        world.converge();
        world.write(0, "f", "the first version of the file");
        look(&mut world, 0);
        assert!(world.devices[0].step(Step::TakeCommit, &mut world.relay), "{what}");
        change(&mut world);
        world.devices[0].step(Step::SendCommit, &mut world.relay);
        let wanted = world.tree(0);
        assert_eq!(world.converge(), wanted, "{what}");
    }
}

/// H09: a directory is renamed while its files are being sent: the same nodes at the new place.
#[test]
fn a_directory_that_is_renamed_while_its_files_are_sent() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    for i in 0..40 {
        world.write(0, &format!("d/f{i}"), &format!("content of file {i}"));
    }
    for turn in 0..6 {
        look(&mut world, 0);
        world.devices[0].step(Step::Hear, &mut world.relay);
        world.devices[0].step(Step::TakeCommit, &mut world.relay);
        let (from, to) = if turn % 2 == 0 { ("d", "e") } else { ("e", "d") };
        world.rename(0, from, to);
        world.devices[0].step(Step::SendCommit, &mut world.relay);
    }
    let got = world.converge();
    assert_eq!((got.len(), world.relay.states().len()), (41, 41), "each file is one node");
    assert!(got.contains_key("d/f39"));
}

/// K36: the daemon dies again and again in its first look at a folder: what was sent counts, nothing is doubled or deleted.
#[test]
fn a_first_look_that_is_cut_off_again_and_again() {
    let mut world = Calm::new(2);
    for d in 0..5 {
        world.mkdir(0, &format!("d{d}"));
        for i in 0..12 {
            world.write(0, &format!("d{d}/f{i}"), &format!("content {d} {i}"));
        }
    }
    let wanted = world.tree(0);
    let mut sent = 0;
    for life in 0..5 {
        for step in STEPS.iter().cycle().take(60 + life * 7) {
            world.devices[0].step(*step, &mut world.relay);
        }
        assert!(world.relay.head >= sent, "what was sent counts");
        sent = world.relay.head;
        world.devices[0].restart();
        assert_eq!(world.tree(0), wanted);
    }
    assert!(sent > 0);
    assert_eq!(world.converge(), wanted);
    assert_eq!(world.relay.states().len(), wanted.len(), "each thing is one node");
}

/// K01, I2: the daemon dies after it put a directory where its twin had stood, before that was written down: the directory is known again by its
/// inode, and nothing in it is taken for deleted or for new.
#[test]
fn a_directory_in_its_twins_place_is_known_after_a_crash() {
    let mut world = Calm::new(2);
    world.mkdir(0, "a");
    world.write(0, "a/f", "in the directory");
    world.converge();
    world.mkdir(0, "b");
    look(&mut world, 0);
    world.rename(1, "a", "b");
    world.settle(1);
    let wanted = world.tree(1);
    while world.devices[0].step(Step::Hear, &mut world.relay) {}
    for _ in 0..4 {
        let device = &mut world.devices[0];
        device.step(Step::Plan, &mut world.relay);
        device.durable = device.engine.trees().clone();
        while device.step(Step::Act, &mut world.relay) {}
        if world.tree(0) == wanted {
            break;
        }
        world.devices[0].step(Step::FinishBatch, &mut world.relay);
    }
    assert_eq!(world.tree(0), wanted);
    world.devices[0].restart();
    assert_eq!(world.converge(), wanted);
    assert_eq!(world.relay.living(), 2, "no new nodes");
    assert!(world.devices[0].disk.trash.is_empty(), "nothing was removed");
}

/// I2, E6: a file that stands beside its equal is not removed in favour of that one while that one is missing: a user deleted one of two, not both.
#[test]
fn of_two_equal_files_that_meet_the_one_that_is_left_stays() {
    let mut world = Calm::new(2);
    world.mkdir(0, "a");
    world.write(0, "a/f", "the same bytes");
    world.converge();
    world.mkdir(0, "b");
    world.write(0, "b/f", "the same bytes");
    look(&mut world, 0);
    world.rename(1, "a", "b");
    world.settle(1);
    world.remove(0, "a/f");
    look(&mut world, 0);
    while world.devices[0].step(Step::Hear, &mut world.relay) {}
    let got = world.converge();
    assert_eq!(got.keys().collect::<Vec<_>>(), ["b/", "b/f"]);
    assert_eq!(got["b/f"], "the same bytes");
}
