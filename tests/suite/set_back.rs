//! Stores that go back in time, and answers that were asked for before the feed began again.

use ferry_engine::HearError;
use ferry_protocol::wire::CommitReply;
use ferry_tests::sim::device::replica;
use ferry_tests::sim::{Calm, Step};

/// P16, P18 at once: device and relay are set back together, and the device uses its numbers for something else than the others remember.
#[test]
fn a_number_that_stands_for_two_contents_is_noticed_and_both_are_kept() {
    let mut world = Calm::new(2);
    world.write(0, "f", "version 1");
    world.converge();
    let (disk, trees, relay) = (world.devices[0].disk.clone(), world.devices[0].engine.trees().clone(), world.relay.clone());
    world.write(0, "f", "version 2, before both were set back");
    world.converge();
    world.devices[0].restore(disk, trees);
    world.relay.restore(&relay);
    world.write(0, "f", "version 2, after both were set back");
    world.settle(0);
    let got = world.converge();
    let kept = |content: &str| {
        let shown = got.values().any(|c| c == content);
        shown || world.devices.iter().any(|d| d.disk.trash.iter().any(|t| **t == *content.as_bytes()))
    };
    assert!(kept("version 2, before both were set back") && kept("version 2, after both were set back"), "{got:?}");
    world.write(0, "g", "the device goes on");
    world.write(1, "f", "and so do the others");
    let got = world.converge();
    assert_eq!((got["g"].as_str(), got["f"].as_str()), ("the device goes on", "and so do the others"));
}

/// P16: a device is set back, and its next edit would have the number of one that it forgot and that others have replaced since.
#[test]
fn an_edit_after_a_device_was_set_back_is_not_taken_for_one_that_was_replaced() {
    edit_after_it_was_set_back(Calm::new(2));
}

/// See above; also how a planted bug is caught.
pub fn edit_after_it_was_set_back(mut world: Calm) {
    world.write(0, "f", "version 1");
    world.converge();
    let (disk, trees) = (world.devices[0].disk.clone(), world.devices[0].engine.trees().clone());
    world.write(0, "f", "version 2");
    world.converge();
    world.write(1, "f", "version 3, after version 2");
    world.converge();
    world.devices[0].restore(disk, trees);
    world.relay_on = false;
    world.write(0, "f", "version 2, after it was set back");
    world.write(0, "new", "made after it was set back");
    world.settle(0);
    world.relay_on = true;
    let got = world.converge();
    for content in ["version 3, after version 2", "version 2, after it was set back", "made after it was set back"] {
        assert!(got.values().any(|c| c == content), "{content:?} is shown: {got:?}");
    }
    world.write(0, "g", "the device goes on");
    assert_eq!(world.converge()["g"], "the device goes on");
}

/// P16: what a device wrote before it was set back still stands, and its next edit would cover it. The device sends nothing before it has heard.
#[test]
fn an_edit_after_a_device_was_set_back_does_not_cover_one_that_it_forgot() {
    edit_before_it_has_heard(Calm::new(3));
}

/// See above; also how a planted bug is caught.
pub fn edit_before_it_has_heard(mut world: Calm) {
    let (mine, lost) = ("version 2, after it was set back", "version 2, before it was set back");
    world.write(0, "f", "version 1");
    world.write(0, "moved", "moved");
    world.converge();
    let (disk, trees) = (world.devices[0].disk.clone(), world.devices[0].engine.trees().clone());
    world.write(0, "f", lost);
    world.rename(0, "moved", "moved elsewhere");
    world.converge();
    world.devices[0].restore(disk, trees);
    world.relay_on = false;
    world.write(0, "f", mine);
    world.settle(0);
    // A peer asks first, and then the relay is there: both are told nothing new.
    world.lan.connect(0, 1);
    let told = world.ask_peer(0, 1, 10).expect("a page");
    world.devices[1].hear_peer(&told, true);
    world.lan.cut_all();
    world.relay_on = true;
    for step in [Step::TakeCommit, Step::SendCommit] {
        world.devices[0].step(step, &mut world.relay);
    }
    let got = world.converge();
    for content in [mine, lost, "moved"] {
        assert!(got.values().any(|c| c == content), "{content:?} is shown: {got:?}");
    }
    assert!(got.contains_key("moved elsewhere"), "{got:?}");
    world.write(0, "g", "the device goes on");
    assert_eq!(world.converge()["g"], "the device goes on");
}

/// Both of two devices were started anew, and there is no relay: each tells what it knew before, hears that, and goes on.
#[test]
fn devices_that_were_all_started_anew_tell_each_other_all() {
    let mut world = Calm::new(2);
    world.write(0, "f", "version 1");
    world.converge();
    world.relay_on = false;
    world.devices.iter_mut().for_each(|device| device.restart());
    world.write(0, "a", "made by the one");
    world.write(1, "b", "made by the other");
    world.settle_all();
    world.lan.connect(0, 1);
    let got = world.converge();
    assert_eq!(got.len(), 3, "{got:?}");
}

/// What was written but never sent before the index was set back, and is no longer on the disk, is wanted by nobody.
#[test]
fn a_new_life_wants_nothing_that_nobody_holds() {
    let mut world = Calm::new(2);
    world.write(0, "keep", "kept");
    world.converge();
    world.write(0, "f", "written, seen, never sent");
    let (device, relay) = (&mut world.devices[0], &mut world.relay);
    for step in [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::TakeLooks, Step::TakeHashes, Step::AnswerHash] {
        device.step(step, relay);
    }
    assert_eq!(device.engine.pending().expect("trees in memory").upload, 1);
    let (disk, trees) = (device.disk.clone(), device.engine.trees().clone());
    world.write(0, "later", "known to the others");
    world.converge();
    world.devices[0].restore(disk, trees);
    world.write(0, "f", "written over");
    let got = world.converge();
    assert!(got.values().any(|c| c == "written over"), "{got:?}");
    assert_eq!(got.len(), 4, "what the others had heard comes back beside it: {got:?}");
}

/// P18: the relay's epoch is the same, but it does not know our place in its feed.
#[test]
fn a_relay_set_back_without_a_new_epoch_gets_back_what_it_lacks() {
    let mut world = Calm::new(2);
    world.write(0, "a", "content a");
    world.converge();
    let (backup, epoch) = (world.relay.clone(), world.relay.epoch);
    world.write(0, "b", "content b");
    world.write(1, "a", "content a, edited");
    let before = world.converge();
    world.relay = backup;
    for device in &mut world.devices {
        device.engine.handle_lost_cursor(epoch).expect("trees in memory");
        assert_eq!(device.engine.relay_cursor(), Some((epoch, 0)), "the feed is read from its start");
        assert_eq!(device.engine.pending().expect("trees in memory").upload, 2, "and everything is sent again");
    }
    assert_eq!(world.converge(), before, "nothing is deleted");
    assert_eq!(world.relay.living(), 2);
}

#[test]
fn a_page_asked_for_before_the_feed_began_again_skips_nothing() {
    let mut world = Calm::new(2);
    for name in ["a", "b", "c", "d"] {
        world.write(0, name, &format!("content {name}"));
    }
    let before = world.converge();
    let (device, relay) = (&mut world.devices[1], &mut world.relay);
    let (epoch, since) = device.engine.relay_cursor().expect("heard");
    relay_writes(relay, &mut world.devices[0]);
    let device = &mut world.devices[1];
    let late = world.relay.page(since, 100);
    device.engine.begin_new_life(replica(1, 7)).expect("trees in memory");
    device.engine.handle_page(&late, since).expect("its states are joined");
    assert_eq!(device.engine.relay_cursor(), Some((epoch, 0)), "the cursor stays where the feed is read from");
    assert!(!device.engine.meta().heard, "and the feed is not heard to its end");
    device.engine.rescan();
    assert_eq!(world.converge().len(), before.len() + 1);
}

/// Device 0 writes something more.
fn relay_writes(relay: &mut ferry_tests::sim::SimRelay, device: &mut ferry_tests::sim::Device) {
    assert!(device.disk.write(&ferry_tests::sim::path("e"), b"content e"));
    device.hints.push(ferry_tests::sim::path("e"));
    while device.round(relay) {}
}

#[test]
fn an_answer_to_a_commit_of_an_older_feed_moves_no_cursor() {
    let mut world = Calm::new(1);
    world.write(0, "a", "content a");
    world.converge();
    world.write(0, "b", "content b");
    let (device, relay) = (&mut world.devices[0], &mut world.relay);
    for step in [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::TakeLooks, Step::TakeHashes, Step::AnswerHash, Step::TakeCommit] {
        device.step(step, relay);
    }
    assert!(device.sending.is_some(), "a commit is under way");
    let (epoch, head) = device.engine.relay_cursor().expect("heard");
    device.engine.handle_lost_cursor(epoch).expect("trees in memory");
    device.engine.handle_commit(&CommitReply::Accepted { head_seq: head + 5, gapless: true }).expect("trees in memory");
    assert_eq!(device.engine.relay_cursor(), Some((epoch, 0)));
    assert_eq!(device.engine.pending().expect("trees in memory").upload, 2, "all is still to be sent");
}

#[test]
fn a_copy_of_our_own_node_that_differs_under_one_number_is_a_roll_back() {
    let mut world = Calm::new(1);
    world.write(0, "f", "this content");
    world.converge();
    let mut other = Calm::new(1);
    other.write(0, "f", "that content");
    other.converge();
    let page = other.relay.page(0, 10);
    assert_eq!(world.devices[0].engine.handle_page(&page, 0), Err(HearError::RolledBack), "one node, one event, two contents");
}
