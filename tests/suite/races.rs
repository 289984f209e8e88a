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
