//! Two edits of one text become one version where that is clean (off by default, for each device and folder), and a conflicted copy where not.

use ferry_engine::{Policy, Trees};
use ferry_protocol::ContentHash;
use ferry_protocol::read::shown;
use ferry_tests::sim::calm::Tree;
use ferry_tests::sim::device::{STEPS, Step};
use ferry_tests::sim::{Calm, path};

const BASE: &str = "one\ntwo\nthree\nfour\nfive\n";
const FIRST: &str = "ONE\ntwo\nthree\nfour\nfive\n";
const LAST: &str = "one\ntwo\nthree\nfour\nFIVE\n";
const BOTH: &str = "ONE\ntwo\nthree\nfour\nFIVE\n";

/// Devices that hold one text, of which these merge.
fn world<const N: usize>(merging: [bool; N], text: &str) -> Calm {
    let mut world = Calm::new(N);
    for (device, on) in world.devices.iter_mut().zip(merging) {
        device.policy.merge_text = on;
        device.engine.set_merging(on);
    }
    world.write(0, "f", text);
    world.converge();
    world
}

/// The same without a relay, on a LAN.
fn lan_world<const N: usize>(merging: [bool; N], text: &str) -> Calm {
    let mut world = Calm::new(N);
    world.relay_on = false;
    for (device, on) in world.devices.iter_mut().zip(merging) {
        device.policy.merge_text = on;
        device.engine.set_merging(on);
    }
    world.lan.connect_all(N);
    // Without a relay somebody begins: the device on which the folder was made has nobody to hear first.
    world.devices[0].engine.trees_mut().meta_mut().heard = true;
    world.write(0, "f", text);
    let tree = world.converge();
    assert_eq!(tree.get("f").map(String::as_str), Some(text));
    world
}

/// Each device takes in what its user did, and hears nobody.
fn alone(world: &mut Calm) {
    let (relay, lan) = (std::mem::replace(&mut world.relay_on, false), std::mem::take(&mut world.lan));
    (0..world.devices.len()).for_each(|index| world.settle(index));
    (world.relay_on, world.lan) = (relay, lan);
}

/// What stood in somebody's way is tried again.
fn after_a_pause(world: &mut Calm) {
    let due = world.devices.iter().filter_map(|d| d.engine.deadline_ms()).max();
    world.now_ms = world.now_ms.max(due.unwrap_or(0)) + 1;
}

fn only(tree: &Tree) -> &str {
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["f"], "no conflicted copy: {tree:?}");
    &tree["f"]
}

fn copies(tree: &Tree) -> Vec<&str> {
    tree.iter().filter(|(p, _)| p.contains("conflicted copy")).map(|(_, c)| c.as_str()).collect()
}

fn merges(world: &Calm) -> Vec<u64> {
    world.devices.iter().map(|d| d.merged).collect()
}

/// No device placed a conflicted copy, not even for a moment.
fn no_copy_came_and_went(world: &Calm, devices: &[usize]) {
    for index in devices {
        let device = &world.devices[*index];
        let trace: Vec<&String> = device.log.iter().filter(|line| line.contains("PutFile") && line.contains("conflicted copy")).collect();
        assert!(trace.is_empty(), "{trace:#?}");
    }
}

#[test]
fn two_edits_become_one_version() {
    let mut world = world([true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    assert_eq!(only(&world.converge()), BOTH);
    no_copy_came_and_went(&world, &[0, 1]);
    for side in [FIRST, LAST, BOTH] {
        assert!(world.relay.history.contains(&ContentHash::of(side.as_bytes())), "{side:?} is in the history");
    }
    let states = world.relay.states();
    let state = states.values().next().unwrap();
    assert_eq!(shown(state.body()).len(), 1, "one version replaces both");
    let (head, acts) = (world.relay.head, world.devices[0].actions + world.devices[1].actions);
    world.devices.iter_mut().for_each(|d| d.engine.rescan());
    world.converge();
    assert_eq!((world.relay.head, world.devices[0].actions + world.devices[1].actions), (head, acts), "it rests (I9)");
}

#[test]
fn the_next_edit_follows_the_merge() {
    let mut world = world([true, true], BASE);
    for (round, line) in ["x\n", "y\n", "z\n"].into_iter().enumerate() {
        let text = world.tree(0)["f"].clone();
        world.write(0, "f", &format!("{line}{text}"));
        world.save(1, "f", &format!("{text}{line}"));
        alone(&mut world);
        assert_eq!(only(&world.converge()), format!("{line}{text}{line}"), "round {round}");
    }
}

#[test]
fn without_a_relay_too() {
    let mut world = lan_world([true, true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(2, "f", LAST);
    alone(&mut world);
    assert_eq!(only(&world.converge()), BOTH);
    no_copy_came_and_went(&world, &[0, 1, 2]);
}

/// Each hears the other's edit before the other's merge: both make one, of the same bytes, and that is all.
#[test]
fn both_merge_at_once() {
    let mut world = lan_world([true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = world.ask_peer(from, to, 10).unwrap();
        world.devices[to].hear_peer(&sent, true);
    }
    alone_with_what_they_heard(&mut world);
    assert_eq!(merges(&world), [1, 1]);
    assert_eq!(only(&world.converge()), BOTH);
    assert_eq!(merges(&world), [1, 1], "equal bytes are one: nothing is merged again");
    world.write(0, "f", "ONE\ntwo\nthree\nfour\nFIVE\nsix\n");
    assert_eq!(only(&world.converge()), "ONE\ntwo\nthree\nfour\nFIVE\nsix\n", "the next edit replaces both");
}

/// The bytes of the other side come from its disk, and nothing else is heard.
fn alone_with_what_they_heard(world: &mut Calm) {
    for _ in 0..40 {
        for index in 0..world.devices.len() {
            for step in STEPS {
                world.step(index, step);
            }
        }
    }
}

#[test]
fn the_same_lines_are_a_conflict_as_ever() {
    for (a, b) in [(FIRST, "uno\ntwo\nthree\nfour\nfive\n"), (FIRST, "one\nTWO\nthree\nfour\nfive\n"), (FIRST, "one\0two\n")] {
        let mut world = world([true, true], BASE);
        world.write(0, "f", a);
        world.write(1, "f", b);
        alone(&mut world);
        let tree = world.converge();
        let mut all = copies(&tree);
        all.push(&tree["f"]);
        all.sort_unstable();
        let mut expected = [a, b];
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}

/// Off by default, and whoever has it on merges only what both sides say they were edited from.
#[test]
fn one_side_that_does_not_merge_is_a_conflict() {
    for merging in [[false, false], [true, false], [false, true]] {
        let mut world = world(merging, BASE);
        world.write(0, "f", FIRST);
        world.write(1, "f", LAST);
        alone(&mut world);
        assert_eq!(copies(&world.converge()).len(), 1);
        assert_eq!(merges(&world), [0, 0]);
    }
    assert!(!Policy::default().merge_text);
}

#[test]
fn a_device_that_does_not_merge_takes_what_others_merged() {
    let mut world = world([true, true, false], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    assert_eq!(only(&world.converge()), BOTH);
    no_copy_came_and_went(&world, &[0, 1]);
}

#[test]
fn three_edits_become_one_version() {
    let mut world = world([true, true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    world.write(2, "f", "one\ntwo\n3\nfour\nfive\n");
    alone(&mut world);
    // They come in one after the other, and each is merged into what there is.
    assert_eq!(only(&world.converge()), "ONE\ntwo\n3\nfour\nFIVE\n");
}

#[test]
fn many_edits_alone_are_merged_from_what_both_had() {
    let mut world = world([true, true], BASE);
    world.relay_on = false;
    let mut text = BASE.to_owned();
    for number in 0..40 {
        text = format!("line {number}\n{text}");
        world.write(0, "f", &text);
        world.settle(0);
    }
    world.write(1, "f", LAST);
    world.settle(1);
    world.relay_on = true;
    assert_eq!(only(&world.converge()), text.replace("five", "FIVE"));
}

#[test]
fn endings_mode_and_a_move_survive() {
    let mut world = world([true, true], &BASE.replace('\n', "\r\n"));
    world.write(0, "f", &FIRST.replace('\n', "\r\n"));
    world.write(1, "f", LAST.replace('\n', "\r\n").trim_end());
    assert!(world.devices[1].disk.chmod(&path("f"), 0o755));
    world.rename(0, "f", "g");
    alone(&mut world);
    let tree = world.converge();
    assert_eq!(tree.into_iter().collect::<Vec<_>>(), [("g".to_owned(), BOTH.replace('\n', "\r\n").trim_end().to_owned())]);
    for device in &world.devices {
        assert_eq!(device.disk.stat(&path("g")).unwrap().mode & 0o777, 0o755);
    }
}

#[test]
fn the_time_is_the_same_everywhere_and_new() {
    let mut world = lan_world([true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    let latest = world.devices.iter().map(|d| d.disk.stat(&path("f")).unwrap().mtime_ns).max().unwrap();
    alone(&mut world);
    world.converge();
    let times: Vec<i64> = world.devices.iter().map(|d| d.disk.stat(&path("f")).unwrap().mtime_ns).collect();
    assert!(times[0] == times[1] && times[0] > latest, "an editor sees that the file changed: {times:?}, {latest}");
}

#[test]
fn a_viewer_merges_nothing() {
    let mut world = world([true, true, true], BASE);
    world.devices[2].policy.may_write = false;
    world.devices[2].engine.policy_mut().may_write = false;
    world.devices.iter_mut().for_each(|d| d.forget_kept());
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    assert_eq!(only(&world.converge()), BOTH);
    assert_eq!(world.devices[2].merged, 0);
    let kept: Vec<bool> = world.devices.iter().map(|d| d.kept() > 0).collect();
    assert_eq!(kept, [true, true, false], "and keeps nothing for it");
}

/// A user writes again while the merge is on its way: his edit stands, and what was merged meets it.
#[test]
fn an_edit_during_the_merge_is_kept() {
    let mut world = lan_world([true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    let sent = world.ask_peer(0, 1, 10).unwrap();
    world.devices[1].hear_peer(&sent, true);
    let mut written = false;
    for _ in 0..40 {
        for step in STEPS {
            world.step(1, step);
            if world.devices[1].merged > 0 && !std::mem::replace(&mut written, world.devices[1].merged > 0) {
                world.write(1, "f", "one\ntwo\nthree\nfour\nFIVE\nsix\n");
            }
        }
    }
    let text = world.converge();
    assert_eq!(only(&text), "ONE\ntwo\nthree\nfour\nFIVE\nsix\n");
}

/// Without the base a conflict is what it always was; when it can be had again, it is merged after all.
#[test]
fn a_base_that_is_out_of_reach() {
    // One chunk, so that no piece of the base stands in either side.
    let mut world = world([true, true], "a\nb\nc\nd\n");
    world.write(0, "f", "A\nb\nc\nd\n");
    world.write(1, "f", "a\nb\nc\nD\n");
    alone(&mut world);
    world.lan.connect_all(2);
    world.relay_on = false;
    world.devices.iter_mut().for_each(|d| d.forget_kept());
    let tree = world.converge();
    assert_eq!(copies(&tree).len(), 1);
    assert_eq!(merges(&world), [0, 0]);
    world.relay_on = true;
    world.devices.iter_mut().for_each(|d| d.engine.retry_now());
    assert_eq!(only(&world.converge()), "A\nb\nc\nD\n");
}

/// A crash after the file was placed and before the index knew: it is an edit, and the other side is merged into it.
#[test]
fn a_crash_in_the_middle() {
    let mut world = lan_world([true, true], BASE);
    world.write(0, "f", FIRST);
    world.write(1, "f", LAST);
    alone(&mut world);
    let durable = world.devices[1].engine.trees().clone();
    let sent = world.ask_peer(0, 1, 10).unwrap();
    world.devices[1].hear_peer(&sent, true);
    while world.devices[1].disk.read(&path("f")).as_deref() != Some(BOTH.as_bytes()) {
        for step in STEPS.into_iter().filter(|step| *step != Step::FinishBatch) {
            world.step(1, step);
        }
    }
    world.devices[1].durable = durable;
    world.devices[1].restart();
    world.settle_all();
    // The first asked for the side that nobody held any more, and asks again after a pause.
    after_a_pause(&mut world);
    assert_eq!(only(&world.converge()), BOTH);
}

/// A side that nobody has any more does not hold up what the other writes: it goes on as a conflict does.
#[test]
fn a_side_that_is_gone_holds_nothing_up() {
    let mut world = lan_world([true, true, true], "a\nb\nc\nd\n");
    world.write(0, "f", "A\nb\nc\nd\n");
    world.write(1, "f", "a\nb\nc\nD\n");
    alone(&mut world);
    let sent = world.ask_peer(1, 2, 10).unwrap();
    world.devices[2].hear_peer(&sent, true);
    // The second device told what it wrote, and is gone before anybody has the bytes.
    world.lan.cut_all();
    world.lan.connect(0, 2);
    for text in ["0\nA\nb\nc\nd\n", "-\n0\nA\nb\nc\nd\n"] {
        world.write(0, "f", text);
        for _ in 0..3 {
            (0..3).for_each(|index| world.settle(index));
            after_a_pause(&mut world);
        }
        let shown: Vec<String> = world.tree(2).into_values().collect();
        assert!(shown.iter().any(|held| held == text), "{text:?} is held up: {shown:?}");
    }
    world.lan.connect_all(3);
    world.devices.iter_mut().for_each(|d| d.engine.retry_now());
    world.settle_all();
    after_a_pause(&mut world);
    assert_eq!(only(&world.converge()), "-\n0\nA\nb\nc\nD\n");
}

/// Both merge, and both or one of them die after any step, with an index that is as new as the disk or older: nothing is lost, and the merge is
/// made again or found made.
#[test]
fn interrupted_anywhere_it_ends_the_same() {
    for (relay, flushes) in [(false, true), (false, false), (true, true), (true, false)] {
        for cut in 0..100 {
            let mut world = if relay { world([true, true], BASE) } else { lan_world([true, true], BASE) };
            world.write(0, "f", FIRST);
            world.write(1, "f", LAST);
            alone(&mut world);
            if !relay {
                for (from, to) in [(0, 1), (1, 0)] {
                    let sent = world.ask_peer(from, to, 10).unwrap();
                    world.devices[to].hear_peer(&sent, true);
                }
            }
            let steps: Vec<Step> = STEPS.into_iter().filter(|step| flushes || *step != Step::Flush).collect();
            for number in 0..cut {
                (0..2).for_each(|index| _ = world.step(index, steps[number % steps.len()]));
            }
            (0..2).filter(|index| cut % 3 != *index).for_each(|index| world.devices[index].restart());
            world.settle_all();
            after_a_pause(&mut world);
            assert_eq!(only(&world.converge()), BOTH, "relay {relay}, flushes {flushes}, cut {cut}");
        }
    }
}
