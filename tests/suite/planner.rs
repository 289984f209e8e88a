//! Planted bugs: each one of them must be caught by the simulated world within a bounded number of seeds, by a scenario of its own, or by a property
//! of the planner ([`super::properties`]). Without
//! this the tests are decoration.

use ferry_engine::{Planted, Policy};
use ferry_tests::sim::device::{STEPS, Step};
use ferry_tests::sim::world::{Options, run};
use ferry_tests::sim::{Calm, path};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many seeds a bug may survive.
const SEEDS: u64 = 400;

fn fails(act: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(act)).is_err()
}

fn caught_by_seeds(bug: Planted, options: fn(u64) -> Options) {
    let caught = (0..SEEDS).find(|seed| {
        let with = Options { planted: Some(bug), ..options(*seed) };
        // A seed that fails without the bug proves nothing.
        fails(|| {
            run(&with);
        }) && !fails(|| {
            run(&options(*seed));
        })
    });
    assert!(caught.is_some(), "the world did not notice {bug:?} in {SEEDS} seeds");
}

fn caught_by_scenario(bug: Planted, scenario: fn(Calm)) {
    let world = |planted| {
        let policy = Policy { planted, ..Policy::default() };
        Calm::with_policy(2, policy)
    };
    scenario(world(None));
    assert!(fails(|| scenario(world(Some(bug)))), "the scenario did not notice {bug:?}");
}

macro_rules! caught {
    ($options:path, $($test:ident: $bug:ident,)*) => {$(
        #[test]
        fn $test() {
            caught_by_seeds(Planted::$bug, $options);
        }
    )*};
}

caught! {
    Options::of,
    a_delete_that_wins: DeleteWins,
    a_missing_identity_check: NoIdentityCheck,
    a_base_that_moves_first: BaseFirst,
    a_cursor_that_skips: CursorSkips,
    an_edit_over_what_was_heard: EditReplacesHeard,
    an_epoch_that_is_ignored: EpochIgnored,
}

caught! {
    Options::lan_of,
    a_cursor_of_a_peer_that_skips: PeerCursorSkips,
    a_node_that_is_carried_for_ever: CarriedForEver,
    a_peers_word_that_is_not_passed_on: HeardIsSent,
}

caught! {
    Options::merging_of,
    a_merge_from_what_one_side_had_not_seen: MergeFromAnyBase,
}

#[test]
fn a_merge_over_what_was_heard() {
    caught_by_scenario(Planted::MergeReplacesHeard, |mut world| {
        for device in &mut world.devices {
            device.policy.merge_text = true;
            device.engine.set_merging(true);
        }
        world.write(0, "f", "one\ntwo\nthree\nfour\nfive\n");
        world.converge();
        world.relay_on = false;
        world.write(0, "f", "ONE\ntwo\nthree\nfour\nfive\n");
        world.write(1, "f", "one\ntwo\nthree\nfour\nFIVE\n");
        world.settle_all();
        world.lan.connect(0, 1);
        let sent = world.ask_peer(0, 1, 10).expect("a page");
        assert!(world.devices[1].hear_peer(&sent, true));
        // The merge is made and placed; before that is known, the other's next edit is heard.
        while world.tree(1)["f"] != "ONE\ntwo\nthree\nfour\nFIVE\n" {
            for step in STEPS.into_iter().filter(|step| *step != Step::FinishBatch) {
                world.step(1, step);
            }
        }
        world.write(0, "f", "ONE\ntwo\nand more\nthree\nfour\nfive\n");
        world.lan.cut_all();
        world.settle(0);
        world.lan.connect(0, 1);
        let sent = world.ask_peer(0, 1, 10).expect("a page");
        assert!(world.devices[1].hear_peer(&sent, true));
        world.settle_all();
        // The first asked for a side that nobody held any more, and asks again after a pause.
        world.now_ms += 10_000;
        assert_eq!(world.converge()["f"], "ONE\ntwo\nand more\nthree\nfour\nFIVE\n");
    });
}

#[test]
fn a_run_whose_numbers_were_given_before() {
    caught_by_scenario(Planted::RunsOnAsBefore, crate::set_back::edit_after_it_was_set_back);
}

#[test]
fn a_start_that_tells_before_it_has_heard() {
    caught_by_scenario(Planted::TellsBeforeHearing, crate::set_back::edit_before_it_has_heard);
}

#[test]
fn a_merge_that_is_written_first() {
    caught_by_scenario(Planted::MergeWrittenFirst, |mut world| {
        for device in &mut world.devices {
            device.policy.merge_text = true;
            device.engine.set_merging(true);
        }
        // One chunk, so that no two pieces of the merged version stand on the two disks.
        world.write(0, "f", "a\nb\nc\nd\n");
        world.converge();
        world.relay_on = false;
        world.write(0, "f", "A\nb\nc\nd\n");
        world.write(1, "f", "a\nb\nc\nD\n");
        world.settle_all();
        world.lan.connect(0, 1);
        let sent = world.ask_peer(0, 1, 10).expect("a page");
        assert!(world.devices[1].hear_peer(&sent, true));
        for step in STEPS.into_iter().cycle().take(10_000) {
            if world.devices[1].merged > 0 {
                break;
            }
            world.step(1, step);
        }
        world.step(1, Step::Plan);
        // It dies before anything is placed.
        world.devices[1].durable = world.devices[1].engine.trees().clone();
        world.devices[1].restart();
        world.settle_all();
        world.now_ms += 10_000;
        assert_eq!(world.converge()["f"], "A\nb\nc\nD\n");
    });
}

caught! {
    Options::unsynced_of,
    what_is_not_durable_is_adopted: AdoptsUnsynced,
}

#[test]
fn a_rename_as_create() {
    caught_by_scenario(Planted::RenameAsCreate, |mut world| {
        world.write(0, "a", "content a");
        world.write(0, "b", "content b");
        world.converge();
        world.rename(0, "a", "c");
        world.converge();
        assert_eq!(world.relay.states().len(), 2, "a rename keeps the node");
    });
}

#[test]
fn no_brake() {
    caught_by_scenario(Planted::NoBrake, |mut world| {
        world.write(0, "a", "content a");
        world.write(0, "b", "content b");
        let before = world.converge();
        world.remove(0, "a");
        world.remove(0, "b");
        world.settle_all();
        assert_eq!(world.tree(1), before, "everything at once is held");
    });
}

#[test]
fn no_second_look() {
    caught_by_scenario(Planted::NoSecondLook, |mut world| {
        world.write(0, "a", "content a");
        world.write(0, "b", "content b");
        world.converge();
        let nodes = world.relay.states();
        // An editor moves its file away and writes it anew: for a moment it is missing.
        assert!(world.devices[0].disk.rename(&path("a"), &path(".ferry/away")));
        world.devices[0].hints.push(path("a"));
        let (device, relay) = (&mut world.devices[0], &mut world.relay);
        for _ in 0..3 {
            device.round(relay);
        }
        assert!(world.devices[0].disk.rename(&path(".ferry/away"), &path("a")));
        world.devices[0].hints.push(path("a"));
        world.converge();
        assert_eq!(world.relay.states(), nodes, "it was never deleted");
    });
}

#[test]
fn unreadable_taken_for_missing() {
    caught_by_scenario(Planted::UnreadableIsMissing, |mut world| {
        world.mkdir(0, "d");
        world.write(0, "d/a", "content a");
        world.write(0, "b", "content b");
        let before = world.converge();
        world.devices[0].disk.set_unreadable(&path("d"), true);
        world.devices[0].engine.rescan();
        world.settle_all();
        assert_eq!(world.tree(1), before, "unreadable is not absent");
    });
}

#[test]
fn an_accepted_cycle() {
    caught_by_scenario(Planted::CycleAccepted, |mut world| {
        for d in ["a", "b"] {
            world.mkdir(0, d);
            world.write(0, &format!("{d}/in"), &format!("in {d}"));
        }
        world.converge();
        world.rename(0, "a", "b/a");
        world.rename(1, "b", "a/b");
        assert_eq!(world.converge().len(), 4, "nothing is lost in a cycle");
    });
}
