//! Named scenarios of two and three devices and a relay, from the catalogue: what the disks hold at the end (I1), and that nothing is lost (I2).

use ferry_engine::Policy;
use ferry_tests::sim::calm::Tree;
use ferry_tests::sim::device::{STEPS, Step};
use ferry_tests::sim::{Calm, path};

fn tree<const N: usize>(of: [(&str, &str); N]) -> Tree {
    of.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn copies(tree: &Tree) -> Vec<&str> {
    tree.iter().filter(|(p, _)| p.contains("conflicted copy")).map(|(_, c)| c.as_str()).collect()
}

#[test]
fn a_file_a_directory_and_a_link_arrive() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.mkdir(0, "d/e");
    world.write(0, "d/e/f.txt", "first content of f");
    world.write(0, "empty", "");
    assert!(world.devices[0].disk.symlink(&path("l"), b"d/e/f.txt"));
    world.devices[0].hints.push(path("l"));
    let got = world.converge();
    assert_eq!(got, tree([("d/", ""), ("d/e/", ""), ("d/e/f.txt", "first content of f"), ("empty", ""), ("l", "-> d/e/f.txt")]));
}

#[test]
fn an_edit_arrives_either_way_of_saving() {
    let mut world = Calm::new(2);
    world.write(0, "f", "version 1 of the file");
    world.converge();
    world.write(1, "f", "version 2, written in place");
    assert_eq!(world.converge(), tree([("f", "version 2, written in place")]));
    world.save(0, "f", "version 3, renamed over it");
    assert_eq!(world.converge(), tree([("f", "version 3, renamed over it")]));
    assert_eq!(world.relay.states().len(), 1, "an edit keeps the node");
}

#[test]
fn a_delete_arrives_and_stays() {
    let mut world = Calm::new(3);
    world.mkdir(0, "d");
    for i in 0..5 {
        world.write(0, &format!("d/f{i}"), &format!("content {i}"));
    }
    world.write(0, "keep", "kept");
    world.converge();
    world.remove(1, "d/f1");
    assert!(!world.converge().contains_key("d/f1"));
    world.remove(2, "d");
    assert_eq!(world.converge(), tree([("keep", "kept")]));
    for device in &mut world.devices {
        device.engine.rescan();
    }
    assert_eq!(world.converge(), tree([("keep", "kept")]));
}

#[test]
fn a_rename_keeps_the_node_and_moves_no_bytes() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.write(0, "d/f", "the content of f");
    world.converge();
    let nodes = world.relay.states().len();
    world.rename(0, "d/f", "g");
    assert_eq!(world.converge(), tree([("d/", ""), ("g", "the content of f")]));
    world.rename(1, "g", "d/h");
    assert_eq!(world.converge(), tree([("d/", ""), ("d/h", "the content of f")]));
    assert_eq!(world.relay.states().len(), nodes);
    assert_eq!(world.devices[1].disk.trash.len() + world.devices[0].disk.trash.len(), 0);
}

#[test]
fn a_rename_of_a_directory_is_one_change() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    for i in 0..20 {
        world.write(0, &format!("d/f{i}"), &format!("content {i}"));
    }
    world.converge();
    let (head, acts) = (world.relay.head, world.devices[1].actions);
    world.rename(0, "d", "e");
    let got = world.converge();
    assert_eq!(got.len(), 21);
    assert_eq!(got["e/f7"], "content 7");
    assert_eq!(world.relay.head - head, 1, "one change of the feed");
    assert_eq!(world.devices[1].actions - acts, 1, "one action on the other disk");
}

#[test]
fn a_renamed_and_edited_file_keeps_its_node() {
    let mut world = Calm::new(2);
    world.write(0, "f", "version 1");
    world.converge();
    world.rename(0, "f", "g");
    world.write(0, "g", "version 2 under another name");
    assert_eq!(world.converge(), tree([("g", "version 2 under another name")]));
    assert_eq!(world.relay.states().len(), 1);
}

/// B11: directories that change names among themselves share one for a moment while the change is taken in; none is shown as another.
#[test]
fn a_swap_and_a_rotation_of_directories() {
    let mut world = Calm::new(2);
    for k in 1..4 {
        world.mkdir(0, &format!("d{k}"));
        world.write(0, &format!("d{k}/in"), &format!("content {k}"));
    }
    world.converge();
    for (from, to) in [("d1", "t"), ("d2", "d1"), ("d3", "d2"), ("t", "d3")] {
        world.rename(0, from, to);
    }
    let rotated = |a, b, c| tree([("d1/", ""), ("d1/in", a), ("d2/", ""), ("d2/in", b), ("d3/", ""), ("d3/in", c)]);
    assert_eq!(world.converge(), rotated("content 2", "content 3", "content 1"));
    for (from, to) in [("d1", "t"), ("d2", "d1"), ("t", "d2")] {
        world.rename(1, from, to);
    }
    assert_eq!(world.converge(), rotated("content 3", "content 2", "content 1"));
    assert_eq!(world.relay.states().len(), 6, "every node is kept");
}

#[test]
fn a_swap_and_a_rotation() {
    let mut world = Calm::new(2);
    for n in ["a", "b", "c"] {
        world.write(0, n, &format!("content of {n}"));
    }
    world.mkdir(0, "x");
    world.write(0, "x/in-x", "in x");
    world.mkdir(0, "y");
    world.write(0, "y/in-y", "in y");
    world.converge();
    let nodes = world.relay.states().len();
    for (a, b) in [("a", "b"), ("x", "y")] {
        assert!(world.devices[0].disk.exchange(&path(a), &path(b)));
        world.devices[0].hints.extend([path(a), path(b)]);
    }
    let got = world.converge();
    assert_eq!((got["a"].as_str(), got["b"].as_str()), ("content of b", "content of a"));
    assert_eq!((got["x/in-y"].as_str(), got["y/in-x"].as_str()), ("in y", "in x"));
    world.rename(1, "a", "t");
    world.rename(1, "b", "a");
    world.rename(1, "c", "b");
    world.rename(1, "t", "c");
    let got = world.converge();
    assert_eq!((got["a"].as_str(), got["b"].as_str(), got["c"].as_str()), ("content of a", "content of c", "content of b"));
    assert_eq!(world.relay.states().len(), nodes, "every node lives on");
}

#[test]
fn a_change_of_kind() {
    let mut world = Calm::new(2);
    world.write(0, "f", "a file");
    world.mkdir(0, "d");
    world.write(0, "d/in", "inside");
    world.write(0, "other", "stays");
    world.converge();
    world.remove(0, "f");
    world.mkdir(0, "f");
    world.write(0, "f/new", "in what was a file");
    assert_eq!(world.converge(), tree([("d/", ""), ("d/in", "inside"), ("f/", ""), ("f/new", "in what was a file"), ("other", "stays")]));
    world.remove(1, "d");
    world.write(1, "d", "now a file");
    assert_eq!(world.converge(), tree([("d", "now a file"), ("f/", ""), ("f/new", "in what was a file"), ("other", "stays")]));
}

#[test]
fn concurrent_edits_are_both_kept_and_a_settled_copy_stays_settled() {
    let mut world = Calm::new(3);
    world.write(0, "report.txt", "base version");
    world.converge();
    world.write(0, "report.txt", "edit by the first");
    world.write(1, "report.txt", "edit by the second");
    let got = world.converge();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(copies(&got).len(), 1);
    let copy = got.keys().find(|p| p.contains("conflicted copy")).unwrap().clone();
    assert!(copy.ends_with(".txt"));
    let listed = world.devices[2].engine.conflicts().unwrap();
    assert_eq!(
        listed.iter().map(|c| (c.copy.to_string(), c.original.to_string())).collect::<Vec<_>>(),
        [(copy.clone(), "report.txt".into())]
    );
    let why = world.devices[2].engine.why(&path(&copy)).unwrap();
    assert!(why.item.is_some() && why.wanted.is_some() && !why.is_unsent && !why.is_missing && !why.is_planned, "{why:?}");
    world.remove(2, &copy);
    let got = world.converge();
    assert_eq!(got.len(), 1, "deleting the copy settles it: {got:?}");
}

#[test]
fn an_edited_or_renamed_copy_is_a_file_of_its_own() {
    let mut world = Calm::new(2);
    for name in ["a.txt", "b.txt"] {
        world.write(0, name, &format!("base of {name}"));
    }
    world.converge();
    for name in ["a.txt", "b.txt"] {
        world.write(0, name, &format!("{name} by the first"));
        world.write(1, name, &format!("{name} by the second"));
    }
    let got = world.converge();
    assert_eq!(got.len(), 4);
    let all: Vec<String> = got.keys().filter(|p| p.contains("conflicted copy")).cloned().collect();
    let (a, b) = (all[0].clone(), all[1].clone());
    world.write(0, &a, "the copy, edited");
    world.rename(1, &b, "mine.txt");
    let got = world.converge();
    assert_eq!(got.len(), 4);
    assert_eq!(got[&a], "the copy, edited");
    assert!(got["mine.txt"].starts_with("b.txt by"));
}

#[test]
fn an_edit_wins_over_a_delete() {
    let mut world = Calm::new(3);
    world.mkdir(0, "d");
    world.write(0, "d/f", "base");
    world.write(0, "d/g", "goes");
    world.write(0, "z", "stays");
    world.converge();
    world.write(0, "d/f", "edited while it was deleted elsewhere");
    world.remove(1, "d");
    assert_eq!(world.converge(), tree([("d/", ""), ("d/f", "edited while it was deleted elsewhere"), ("z", "stays")]));
}

#[test]
fn something_new_in_a_deleted_directory_keeps_it() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.mkdir(0, "d/e");
    world.write(0, "d/f", "goes");
    world.write(0, "z", "stays");
    world.converge();
    world.write(0, "d/e/new", "made while the directory was deleted");
    world.remove(1, "d");
    assert_eq!(world.converge(), tree([("d/", ""), ("d/e/", ""), ("d/e/new", "made while the directory was deleted"), ("z", "stays")]));
}

#[test]
fn a_move_into_a_deleted_directory_and_a_move_of_a_deleted_file() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    world.write(0, "f", "moved in");
    world.write(0, "g", "moved away");
    world.write(0, "z", "stays");
    world.converge();
    world.rename(0, "f", "d/f");
    world.remove(1, "d");
    world.rename(0, "g", "h");
    world.remove(1, "g");
    assert_eq!(world.converge(), tree([("d/", ""), ("d/f", "moved in"), ("h", "moved away"), ("z", "stays")]));
}

#[test]
fn concurrent_moves_into_each_other() {
    let mut world = Calm::new(2);
    for d in ["a", "b"] {
        world.mkdir(0, d);
        world.write(0, &format!("{d}/in"), &format!("in {d}"));
    }
    world.converge();
    world.rename(0, "a", "b/a");
    world.rename(1, "b", "a/b");
    let got = world.converge();
    let contents: Vec<&String> = got.values().filter(|c| !c.is_empty()).collect();
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(contents.len(), 2);
    // The tree stays usable afterwards.
    let file = got.keys().find(|p| p.ends_with("/in")).unwrap().clone();
    world.write(1, &file, "edited after the cycle");
    world.converge();
}

#[test]
fn one_file_moved_to_two_places_stands_at_one() {
    let mut world = Calm::new(2);
    world.mkdir(0, "x");
    world.mkdir(0, "y");
    world.write(0, "f", "the file");
    world.converge();
    world.rename(0, "f", "x/f");
    world.rename(1, "f", "y/f");
    let got = world.converge();
    assert_eq!(got.values().filter(|c| *c == "the file").count(), 1, "{got:?}");
}

#[test]
fn equal_trees_are_adopted_without_twins() {
    let mut world = Calm::new(2);
    for device in 0..2 {
        world.mkdir(device, "d");
        for i in 0..10 {
            world.write(device, &format!("d/f{i}"), &format!("same content {i}"));
        }
    }
    world.write(0, "only-0", "of the first");
    world.write(1, "only-1", "of the second");
    world.settle(0);
    let got = world.converge();
    assert_eq!(got.len(), 13);
    assert_eq!(world.relay.states().len(), 13, "no twins");
    assert_eq!(world.devices[1].disk.trash.len(), 0);
}

#[test]
fn trees_made_at_once_become_one() {
    let mut world = Calm::new(3);
    world.converge();
    for device in 0..3 {
        world.mkdir(device, "d");
        world.mkdir(device, "d/e");
        world.write(device, "d/same", "the same bytes");
        world.write(device, &format!("d/e/own-{device}"), &format!("of {device}"));
        world.write(device, "d/clash", &format!("different {device}"));
    }
    let got = world.converge();
    assert_eq!(got.keys().filter(|p| p.starts_with("d/e/own-")).count(), 3, "{got:?}");
    assert_eq!(got.values().filter(|c| *c == "the same bytes").count(), 1);
    assert_eq!(copies(&got).len(), 2);
    assert_eq!(world.relay.living(), 2 + 1 + 3 + 3, "twins are tidied");
    world.rename(1, "d", "renamed");
    let got = world.converge();
    assert!(got.keys().all(|p| p.starts_with("renamed/")), "{got:?}");
    world.write(2, "renamed/same", "no longer the same");
    world.remove(0, "renamed/e");
    world.converge();
}

#[test]
fn a_file_and_a_directory_of_one_name() {
    let mut world = Calm::new(2);
    world.converge();
    world.write(0, "n", "a file");
    world.mkdir(1, "n");
    world.write(1, "n/in", "inside");
    let got = world.converge();
    assert_eq!(got["n/in"], "inside");
    assert_eq!(copies(&got), ["a file"]);
}

#[test]
fn a_lost_index_neither_deletes_nor_doubles() {
    let mut world = Calm::new(2);
    world.mkdir(0, "d");
    for i in 0..10 {
        world.write(0, &format!("d/f{i}"), &format!("content {i}"));
    }
    let before = world.converge();
    let nodes = world.relay.states().len();
    world.devices[1].lose_index();
    assert_eq!(world.converge(), before);
    assert_eq!(world.relay.states().len(), nodes);
    // Changes made while there was no index.
    world.write(0, "d/f1", "changed on the other side");
    world.remove(0, "d/f2");
    world.settle(0);
    world.write(1, "d/f3", "changed here meanwhile");
    world.devices[1].lose_index();
    let got = world.converge();
    assert_eq!(got["d/f1"].as_str(), "changed on the other side");
    assert!(got.values().any(|c| c == "changed here meanwhile"), "{got:?}");
    assert!(got.values().any(|c| c == "content 3"), "{got:?}");
}

#[test]
fn a_restored_relay_gets_back_what_it_lacks() {
    let mut world = Calm::new(2);
    world.write(0, "a", "content a");
    world.converge();
    let backup = world.relay.clone();
    world.write(0, "b", "content b");
    world.write(1, "a", "content a, edited");
    world.mkdir(1, "d");
    world.write(1, "d/c", "content c");
    let before = world.converge();
    world.relay.restore(&backup);
    assert_eq!(world.converge(), before);
    assert_eq!(world.relay.living(), 4);
    world.relay.restore(&Default::default());
    assert_eq!(world.converge(), before);
    assert_eq!(world.relay.living(), 4);
}

#[test]
fn a_device_restored_from_a_backup_deletes_nothing() {
    let mut world = Calm::new(2);
    world.write(0, "a", "content a");
    world.write(1, "b", "content b");
    world.converge();
    let (disk, trees) = (world.devices[1].disk.clone(), world.devices[1].engine.trees().clone());
    world.write(1, "c", "content c, after the backup");
    world.write(1, "b", "content b, edited after the backup");
    world.write(0, "a", "content a, edited after the backup");
    world.converge();
    world.devices[1].restore(disk, trees);
    let got = world.converge();
    for content in ["content c, after the backup", "content b, edited after the backup", "content a, edited after the backup"] {
        assert!(got.values().any(|c| c == content), "{content} is gone: {got:?}");
    }
    world.write(1, "e", "made in the new life");
    world.converge();
}

#[test]
fn the_brake_holds_until_a_person_answers() {
    let mut world = Calm::new(2);
    for i in 0..4 {
        world.write(0, &format!("f{i}"), &format!("content {i}"));
    }
    let before = world.converge();
    for i in 0..4 {
        world.remove(0, &format!("f{i}"));
    }
    world.settle_all();
    assert_eq!(world.tree(1), before, "held");
    assert_eq!(world.devices[0].engine.held_deletes(), Some((4, 4)));
    assert_eq!(world.devices[0].engine.reject_deletes().unwrap(), 4);
    assert_eq!(world.converge(), before, "not meant: it comes back");
    for i in 0..4 {
        world.remove(0, &format!("f{i}"));
    }
    world.settle_all();
    assert_eq!(world.devices[0].engine.approve_deletes().unwrap(), 4);
    assert_eq!(world.converge(), tree([]));
}

/// What others deleted and we removed, but did not record before a crash, is nobody's loss: no person is asked about it again.
#[test]
fn the_brake_does_not_count_what_others_deleted() {
    let mut world = Calm::with_policy(2, Policy { brake_items: 1, ..Policy::default() });
    for i in 0..4 {
        world.write(0, &format!("f{i}"), &format!("content {i}"));
    }
    world.converge();
    for i in 0..4 {
        world.remove(0, &format!("f{i}"));
    }
    world.settle(0);
    assert_eq!(world.devices[0].engine.approve_deletes().unwrap(), 4);
    world.settle(0);
    for step in STEPS.into_iter().filter(|step| *step != Step::FinishBatch).cycle().take(20 * STEPS.len()) {
        world.step(1, step);
    }
    assert!(world.tree(1).len() < 3, "several are removed, and not recorded");
    world.devices[1].restart();
    world.settle(1);
    assert_eq!(world.devices[1].engine.held_deletes(), None);
    assert_eq!(world.converge(), tree([]));
}

/// What a user removed shortly before and what others deleted since are no question either: "0 of 0" would be held.
#[test]
fn the_brake_holds_nothing_where_there_is_nothing_to_ask() {
    let mut world = Calm::new(2);
    for i in 0..8 {
        world.write(0, &format!("f{i}"), &format!("content {i}"));
    }
    world.converge();
    for i in 0..3 {
        world.remove(1, &format!("f{i}"));
    }
    world.settle(1);
    world.settle(0);
    assert_eq!(world.tree(0).len(), 5);
    for i in 3..8 {
        world.remove(0, &format!("f{i}"));
    }
    world.settle(0);
    assert_eq!(world.devices[0].engine.approve_deletes().unwrap(), 5);
    world.settle(0);
    // The other one's user removes the same, after his device heard of it and before it could.
    assert!(world.step(1, Step::Hear));
    for i in 3..8 {
        world.remove(1, &format!("f{i}"));
    }
    world.settle(1);
    assert_eq!(world.devices[1].engine.held_deletes(), None);
    assert_eq!(world.converge(), tree([]));
}

#[test]
fn a_viewer_changes_nothing_and_keeps_what_he_wrote() {
    let mut world = Calm::new(1);
    let viewer = Policy { may_write: false, ..Policy::default() };
    world.devices.push(ferry_tests::sim::Device::new(1, viewer));
    world.write(0, "a", "content a");
    world.write(0, "b", "content b");
    world.converge();
    world.write(1, "mine", "a viewer's own file");
    world.write(1, "a", "a viewer's edit");
    world.remove(1, "b");
    world.settle_all();
    assert_eq!(world.tree(0), tree([("a", "content a"), ("b", "content b")]));
    let held = world.tree(1);
    assert_eq!(held["b"], "content b", "what a viewer deletes comes back");
    assert!(held.values().any(|c| c == "a viewer's edit") && held.values().any(|c| c == "a viewer's own file"), "{held:?}");
    world.write(0, "a", "content a, newer");
    world.settle_all();
    let held = world.tree(1);
    assert!(held.values().any(|c| c == "a viewer's edit"), "{held:?}");
    assert!(held.values().any(|c| c == "content a, newer"), "{held:?}");
}

#[test]
fn modes_and_times_travel_without_bytes() {
    let mut world = Calm::new(2);
    world.write(0, "run", "#!/bin/sh");
    world.mkdir(0, "d");
    world.converge();
    assert!(world.devices[0].disk.chmod(&path("run"), 0o755));
    assert!(world.devices[1].disk.chmod(&path("d"), 0o700));
    world.devices[0].hints.push(path("run"));
    world.devices[1].hints.push(path("d"));
    world.converge();
    assert_eq!(world.devices[1].disk.stat(&path("run")).unwrap().mode, 0o755);
    assert_eq!(world.devices[0].disk.stat(&path("d")).unwrap().mode, 0o700);
    assert_eq!(world.devices[1].disk.trash.len(), 0);
}

#[test]
fn hard_links_are_files_of_their_own() {
    let mut world = Calm::new(2);
    world.write(0, "a", "linked content");
    world.converge();
    assert!(world.devices[0].disk.link(&path("a"), &path("b")));
    world.devices[0].hints.push(path("b"));
    assert_eq!(world.converge(), tree([("a", "linked content"), ("b", "linked content")]));
    world.write(0, "a", "both names change");
    world.devices[0].engine.rescan();
    assert_eq!(world.converge(), tree([("a", "both names change"), ("b", "both names change")]));
}
