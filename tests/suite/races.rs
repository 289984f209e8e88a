//! What happens between two steps of a device: a user acts while a batch is carried out, looks are answered late.

use ferry_tests::sim::{Calm, Step, path};

/// Steps until the batch under way is carried out but not yet answered.
fn carry_out(world: &mut Calm, device: usize) {
    let (device, relay) = (&mut world.devices[device], &mut world.relay);
    for step in [Step::Hear, Step::Plan, Step::AnswerFetch, Step::Plan] {
        while device.step(step, relay) && step != Step::Plan {}
    }
    while device.step(Step::Act, relay) {}
}

#[test]
fn what_a_batch_put_and_a_user_took_away_before_the_answer_is_a_delete() {
    let mut world = Calm::new(2);
    world.write(0, "keep", "kept");
    world.converge();
    world.write(0, "f", "content of f");
    world.settle(0);
    carry_out(&mut world, 1);
    assert!(world.tree(1).contains_key("f"), "it is placed");
    world.remove(1, "f");
    let (device, relay) = (&mut world.devices[1], &mut world.relay);
    for step in [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::AnswerLook] {
        device.step(step, relay);
    }
    assert!(!world.converge().contains_key("f"), "it was seen missing while the batch was under way");
}

#[test]
fn what_a_user_put_into_a_directory_that_was_just_made_is_found() {
    let mut world = Calm::new(2);
    world.write(0, "keep", "kept");
    world.converge();
    world.mkdir(0, "d");
    world.settle(0);
    carry_out(&mut world, 1);
    world.write(1, "d/new", "put there before the directory was known");
    let (device, relay) = (&mut world.devices[1], &mut world.relay);
    for step in [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::FinishBatch] {
        device.step(step, relay);
    }
    // Before it is looked into, it moves on.
    world.rename(0, "d", "e");
    world.settle(0);
    let (device, relay) = (&mut world.devices[1], &mut world.relay);
    for step in [Step::Hear, Step::Plan, Step::Act, Step::FinishBatch] {
        device.step(step, relay);
    }
    let tree = world.converge();
    assert_eq!(tree["e/new"], "put there before the directory was known");
}

#[test]
fn the_mode_that_a_user_gave_a_directory_while_it_moved_is_kept() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.write(0, "d/in", "content");
    world.converge();
    world.rename(0, "d", "e");
    world.settle(0);
    let (device, relay) = (&mut world.devices[1], &mut world.relay);
    while device.step(Step::Hear, relay) {}
    device.step(Step::Plan, relay);
    assert!(device.disk.chmod(&path("d"), 0o700));
    device.hints.push(path("d"));
    while device.step(Step::Act, relay) {}
    device.step(Step::FinishBatch, relay);
    world.converge();
    assert_eq!(world.devices[0].disk.tree()[&path("e")].mode, 0o700);
}

/// The device takes in what its user did, and nothing else.
fn look(world: &mut Calm, device: usize) {
    let (device, relay) = (&mut world.devices[device], &mut world.relay);
    for _ in 0..20 {
        for step in [Step::Hints, Step::TakeLooks, Step::AnswerLook, Step::TakeHashes, Step::AnswerHash] {
            device.step(step, relay);
        }
    }
}

/// I2: of two files of one name a user puts the one in the place of the other. Another device sees twins and tidies one of them away, while this
/// one notes that the other left its place: the file stays all the same.
#[test]
fn a_file_moved_over_its_conflicted_copy_is_not_tidied_away() {
    for sent_first in [true, false] {
        let mut world = Calm::new(2);
        world.write(0, "x", "written on D0");
        look(&mut world, 0);
        world.write(1, "x", "written on D1");
        look(&mut world, 1);
        let tree = world.converge();
        let copy = tree.keys().find(|at| *at != "x").expect("a conflicted copy").clone();
        world.rename(0, "x", &copy);
        look(&mut world, 0);
        let steps = if sent_first { [Step::TakeCommit, Step::SendCommit] } else { [Step::Plan, Step::Act] };
        for step in steps {
            world.devices[0].step(step, &mut world.relay);
        }
        world.settle(1);
        let got = world.converge();
        assert_eq!(got.values().collect::<Vec<_>>(), [&tree["x"]], "sent first: {sent_first}");
    }
}

/// E5: what was parked is back in its place when the daemon dies before it knows that, and a user deletes it there: it is not wanted back for ever
/// from others who never had it.
#[test]
fn what_was_parked_and_never_sent_is_deleted_by_its_user_after_a_crash() {
    let mut world = Calm::new(2);
    world.mkdir(1, "a");
    world.settle(1);
    world.write(0, "a", "only on D0");
    look(&mut world, 0);
    let (device, relay) = (&mut world.devices[0], &mut world.relay);
    while device.step(Step::Hear, relay) {}
    let copy = loop {
        assert!(device.step(Step::Plan, relay), "the file gets another name");
        while device.step(Step::Act, relay) {}
        if let Some((at, _)) = device.disk.tree().into_iter().find(|(_, seen)| seen.bytes == b"only on D0")
            && at != path("a")
        {
            break at.to_string();
        }
        device.step(Step::FinishBatch, relay);
    };
    device.durable = device.engine.trees().clone();
    world.remove(0, &copy);
    world.devices[0].restart();
    assert_eq!(world.converge().into_keys().collect::<Vec<_>>(), ["a/"]);
}

/// What a user puts into a directory that is about to be removed, and takes out again before it is, is gone with it.
#[test]
fn what_was_in_a_directory_for_a_moment_before_it_was_removed() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.write(0, "keep", "kept");
    world.converge();
    world.remove(1, "d");
    world.settle(1);
    let (device, relay) = (&mut world.devices[0], &mut world.relay);
    while device.step(Step::Hear, relay) {}
    assert!(device.step(Step::Plan, relay), "the directory is to be removed");
    world.write(0, "d/f", "there for a moment");
    look(&mut world, 0);
    world.remove(0, "d/f");
    let (device, relay) = (&mut world.devices[0], &mut world.relay);
    device.hints.clear();
    while device.step(Step::Act, relay) {}
    device.step(Step::FinishBatch, relay);
    assert_eq!(world.converge().into_keys().collect::<Vec<_>>(), ["keep"]);
}
