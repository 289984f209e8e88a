//! The watcher on a real directory: every change is hinted at, whatever the order in which watches and events meet.

use super::{Hint, RescanReason, WatchHealth, Watcher};
use crate::fs::fixture::{Folder, rel};
use crossbeam_channel::{Receiver, unbounded};
use ferry_protocol::RelPath;
use std::time::{Duration, Instant};

fn watch(folder: &Folder) -> (Watcher, Receiver<Hint>) {
    let (send, hints) = unbounded();
    let ignored = rel("ignored");
    let watcher = Watcher::start(folder.root.clone(), move |path| *path != ignored, move |hint| drop(send.send(hint)));
    (watcher.unwrap(), hints)
}

fn covers(hint: &Hint, path: &RelPath) -> bool {
    match hint {
        Hint::Paths(paths) => paths.contains(path),
        Hint::Trees(trees) => trees.iter().any(|tree| path.starts_with(tree)),
        Hint::Rescan(_) => true,
        Hint::Rung(_) => false,
    }
}

/// Waits until every path was hinted at; what was hinted.
fn wait_for(hints: &Receiver<Hint>, paths: &[&str]) -> Vec<Hint> {
    let (mut left, mut seen): (Vec<RelPath>, _) = (paths.iter().map(|p| rel(p)).collect(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !left.is_empty() {
        let hint = hints.recv_deadline(deadline).unwrap_or_else(|_| panic!("never hinted: {left:?}; seen: {seen:?}"));
        left.retain(|path| !covers(&hint, path));
        seen.push(hint);
    }
    seen
}

#[test]
fn changes_of_all_kinds_are_hinted_at_and_our_own_files_are_not() {
    let folder = Folder::new();
    folder.write("old", "x");
    std::fs::create_dir_all(folder.path("d/e")).unwrap();
    let (watcher, hints) = watch(&folder);
    assert_eq!(watcher.health(), WatchHealth { watches: 3, exhausted: None });
    folder.stage(b"our own");
    folder.write("new", "x");
    wait_for(&hints, &["new"]);
    folder.write("d/e/deep", "x");
    wait_for(&hints, &["d/e/deep"]);
    std::fs::rename(folder.path("old"), folder.path("d/old")).unwrap();
    wait_for(&hints, &["old", "d/old"]);
    std::fs::remove_file(folder.path("new")).unwrap();
    let seen = wait_for(&hints, &["new"]);
    assert!(!seen.iter().any(|hint| matches!(hint, Hint::Paths(paths) if paths.iter().any(|p| p.starts_with(&rel(".ferry"))))));
    std::os::unix::fs::symlink("/", folder.path("link")).unwrap();
    wait_for(&hints, &["link"]);
}

#[test]
fn new_directories_are_watched_with_what_is_in_them() {
    let folder = Folder::new();
    let (watcher, hints) = watch(&folder);
    let outside = folder.temp.path().join("outside");
    std::fs::create_dir_all(outside.join("a/b")).unwrap();
    std::fs::write(outside.join("a/b/f"), "x").unwrap();
    std::fs::rename(&outside, folder.path("in")).unwrap();
    wait_for(&hints, &["in/a/b/f"]);
    folder.write("in/a/b/g", "x");
    wait_for(&hints, &["in/a/b/g"]);
    // A rename of a watched directory: hints for both names, and watches that follow (Q11).
    std::fs::create_dir(folder.path("other")).unwrap();
    wait_for(&hints, &["other"]);
    for (from, to) in [("in", "other/in"), ("other/in", "back"), ("back", "in")] {
        std::fs::rename(folder.path(from), folder.path(to)).unwrap();
        wait_for(&hints, &[from, to]);
    }
    folder.write("in/a/b/h", "x");
    wait_for(&hints, &["in/a/b/h"]);
    assert_eq!(watcher.health().watches, 5);
    std::fs::rename(folder.path("in"), folder.temp.path().join("out")).unwrap();
    wait_for(&hints, &["in"]);
    assert_eq!(watcher.health().watches, 2);
}

#[test]
fn a_tree_that_grows_while_it_is_found_is_hinted_at_wholly() {
    let folder = Folder::new();
    let (_watcher, hints) = watch(&folder);
    let paths: Vec<String> = (0..200).map(|i| format!("t{}/s{}/f{i}", i % 7, i % 13)).collect();
    for path in &paths {
        let full = folder.path(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, "x").unwrap();
    }
    wait_for(&hints, &paths.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn unwanted_directories_cost_no_watch() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("ignored/many/dirs")).unwrap();
    let (watcher, _hints) = watch(&folder);
    assert_eq!(watcher.health().watches, 1);
}

#[test]
fn a_root_that_is_moved_away_is_said() {
    let folder = Folder::new();
    let (_watcher, hints) = watch(&folder);
    std::fs::rename(folder.path(""), folder.temp.path().join("away")).unwrap();
    let seen = wait_for(&hints, &["anything"]);
    assert!(seen.contains(&Hint::Rescan(RescanReason::RootMoved)));
}

/// Whoever rings hears of everything that happened before, files that are still being written to among it.
#[test]
fn a_ring_comes_after_everything_before_it() {
    let folder = Folder::new();
    let (watcher, hints) = watch(&folder);
    for ring in 1..20u64 {
        let name = format!("f{ring}");
        let mut open = std::fs::File::create(folder.path(&name)).unwrap();
        std::io::Write::write_all(&mut open, b"begun").unwrap();
        assert!(watcher.ring(ring));
        let mut told = false;
        loop {
            match hints.recv_timeout(Duration::from_secs(30)).unwrap() {
                Hint::Rung(number) => {
                    assert_eq!(number, ring);
                    break;
                }
                hint => told |= covers(&hint, &rel(&name)),
            }
        }
        assert!(told, "{name} was not told before the ring");
    }
    assert_eq!(folder.own("").iter().filter(|n| n.starts_with("ring-")).count(), 0);
}
