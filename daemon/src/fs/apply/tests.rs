//! Every outcome of a batch, with races planted between the check and the change.

use super::{HOOK, Step, apply, apply_each, sync};
use crate::fs::fixture::{Folder, noise, rel};
use crate::fs::trash::{self, TrashReason};
use ferry_engine::disk::{DiskAction, DiskOutcome, Kind, Obstacle};
use rustix::io::Errno;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// Runs `race` once, when the next batch reaches a step.
fn at(wanted: Step, race: impl FnOnce() + 'static) {
    let mut race = Some(race);
    HOOK.set(Some(Box::new(move |step| {
        if step == wanted
            && let Some(race) = race.take()
        {
            race();
        }
    })));
}

thread_local! {
    /// Makes the syncs before the renames fail, as a failing disk does.
    pub(super) static FAIL_SYNC: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Makes those after the renames fail with this.
    pub(super) static FAIL_DIR_SYNC: std::cell::Cell<Option<Errno>> = const { std::cell::Cell::new(None) };
}

/// Removes the hook even when a test fails.
struct NoHook;
impl Drop for NoHook {
    fn drop(&mut self) {
        HOOK.set(None);
        FAIL_SYNC.set(false);
        FAIL_DIR_SYNC.set(None);
    }
}

#[test]
fn a_new_file_is_placed_with_mode_and_time() {
    let folder = Folder::new();
    let DiskOutcome::Done(Some(stat)) = folder.apply(folder.put("a", None, b"hello")) else { panic!() };
    assert_eq!(folder.read("a").unwrap(), b"hello");
    assert_eq!((stat.mtime_ns, stat.mode, stat.kind), (1_000_000_007, 0o644, Kind::File));
    assert_eq!(folder.stat("a"), Some(stat));
    assert!(folder.own("tmp").is_empty() && folder.own("trash").is_empty());
}

#[test]
fn a_new_file_never_goes_over_anything() {
    let folder = Folder::new();
    let stat = folder.write("a", "theirs");
    assert_eq!(folder.apply(folder.put("a", None, b"ours")), DiskOutcome::Stale(Some(stat)));
    assert_eq!(folder.read("a").unwrap(), b"theirs");
    symlink(folder.temp.path().join("canary/file"), folder.path("l")).unwrap();
    let link = folder.stat("l");
    assert_eq!(folder.apply(folder.put("l", None, b"ours")), DiskOutcome::Stale(link));
    folder.assert_canary();
}

#[test]
fn a_replaced_file_rests_in_the_trash() {
    let folder = Folder::new();
    let old = folder.write("a", "old");
    assert!(matches!(folder.apply(folder.put("a", Some(old), b"new")), DiskOutcome::Done(Some(_))));
    assert_eq!(folder.read("a").unwrap(), b"new");
    let [entry] = &trash::list(&folder.root).unwrap()[..] else { panic!() };
    assert_eq!((&entry.path, entry.reason), (&rel("a"), TrashReason::Replaced));
    assert!(trash::check_late_writes(&folder.root, 0).unwrap().is_empty());
    let back = trash::restore(&folder.root, &entry.id, None).unwrap();
    assert_eq!((back, folder.read("a (restored)").unwrap()), (rel("a (restored)"), b"old".to_vec()));
}

#[test]
fn an_edit_before_the_check_is_left_alone() {
    let folder = Folder::new();
    let old = folder.write("a", "old");
    let put = folder.put("a", Some(old), b"new");
    let edited = folder.write("a", "edit");
    assert_eq!(folder.apply(put), DiskOutcome::Stale(Some(edited)));
    assert_eq!(folder.apply(DiskAction::Remove { path: rel("a"), expect: old }), DiskOutcome::Stale(Some(edited)));
    assert_eq!(folder.read("a").unwrap(), b"edit");
}

#[test]
fn an_edit_between_check_and_exchange_goes_back_to_its_name() {
    let _clean = NoHook;
    for rename in [false, true] {
        let folder = Folder::new();
        let old = folder.write("a", "old");
        let put = folder.put("a", Some(old), b"new");
        let (a, b) = (folder.path("a"), folder.path("b"));
        at(Step::Checked, move || {
            if rename {
                std::fs::write(&b, "edit").unwrap();
                std::fs::rename(&b, &a).unwrap();
            } else {
                std::fs::write(&a, "edit").unwrap();
            }
        });
        let DiskOutcome::Stale(Some(now)) = folder.apply(put.clone()) else { panic!() };
        assert_eq!(folder.read("a").unwrap(), b"edit");
        assert!(folder.own("trash").is_empty());
        HOOK.set(None);
        // What was staged is still there for the next plan, which expects the edit.
        let DiskAction::PutFile { path, content, mode, mtime_ns, .. } = put else { panic!() };
        let again = DiskAction::PutFile { path, expect: folder.stat("a"), content, mode, mtime_ns };
        assert_eq!(folder.stat("a").unwrap().ino, now.ino);
        assert!(matches!(folder.apply(again), DiskOutcome::Done(_)));
    }
}

#[test]
fn of_two_edits_around_the_exchange_both_are_kept() {
    let _clean = NoHook;
    let folder = Folder::new();
    let old = folder.write("a", "old");
    let put = folder.put("a", Some(old), b"new");
    let (a, b) = (folder.path("a"), folder.path("b"));
    HOOK.set(Some(Box::new(move |step| match step {
        Step::Checked => std::fs::write(&a, "first edit").unwrap(),
        Step::Undoing => {
            std::fs::write(&b, "second").unwrap();
            std::fs::rename(&b, &a).unwrap();
        }
        _ => {}
    })));
    assert!(matches!(folder.apply(put), DiskOutcome::Stale(Some(_))));
    assert_eq!(folder.read("a").unwrap(), b"second");
    let late = trash::check_late_writes(&folder.root, 0).unwrap();
    assert_eq!(late.len(), 1);
    trash::accept_late_write(&folder.root, &late[0]).unwrap();
    assert!(trash::check_late_writes(&folder.root, 0).unwrap().is_empty());
    trash::restore(&folder.root, &late[0].entry.id, Some(&rel("kept"))).unwrap();
    assert_eq!(folder.read("kept").unwrap(), b"first edit");
}

#[test]
fn a_file_that_vanishes_before_the_exchange_stays_gone() {
    let _clean = NoHook;
    let folder = Folder::new();
    let old = folder.write("a", "old");
    let put = folder.put("a", Some(old), b"new");
    let a = folder.path("a");
    at(Step::Checked, move || std::fs::remove_file(a).unwrap());
    assert_eq!(folder.apply(put), DiskOutcome::Stale(None));
    assert_eq!(folder.read("a"), None);
    assert!(folder.own("trash").is_empty());
}

#[test]
fn an_edit_between_check_and_removal_stays() {
    let _clean = NoHook;
    let folder = Folder::new();
    let old = folder.write("a", "old");
    let a = folder.path("a");
    at(Step::Checked, move || std::fs::write(a, "edit").unwrap());
    let DiskOutcome::Stale(Some(_)) = folder.apply(DiskAction::Remove { path: rel("a"), expect: old }) else { panic!() };
    assert_eq!(folder.read("a").unwrap(), b"edit");
    assert!(folder.own("trash").is_empty());
}

#[test]
fn writes_through_an_open_handle_after_the_removal_are_found() {
    use std::io::Write;
    let folder = Folder::new();
    let old = folder.write("a", "old");
    let mut writer = std::fs::OpenOptions::new().append(true).open(folder.path("a")).unwrap();
    assert_eq!(folder.apply(DiskAction::Remove { path: rel("a"), expect: old }), DiskOutcome::Done(None));
    assert!(trash::check_late_writes(&folder.root, 0).unwrap().is_empty());
    writer.write_all(b" and more").unwrap();
    let late = trash::check_late_writes(&folder.root, 0).unwrap();
    assert_eq!(late.len(), 1);
    trash::restore(&folder.root, &late[0].entry.id, None).unwrap();
    assert_eq!(folder.read("a").unwrap(), b"old and more");
}

#[test]
fn directories_are_made_and_only_empty_ones_removed() {
    let folder = Folder::new();
    let DiskOutcome::Done(Some(stat)) = folder.apply(DiskAction::MakeDir { path: rel("d"), mode: 0o2057 }) else { panic!() };
    assert_eq!(std::fs::metadata(folder.path("d")).unwrap().permissions().mode() & 0o7777, 0o757);
    assert_eq!(folder.apply(DiskAction::MakeDir { path: rel("d"), mode: 0o755 }), DiskOutcome::Stale(folder.stat("d")));
    assert_eq!(folder.apply(DiskAction::MakeDir { path: rel("x/d"), mode: 0o755 }), DiskOutcome::Stale(None));
    folder.write("d/f", "ignored");
    let remove = DiskAction::Remove { path: rel("d"), expect: stat };
    assert_eq!(folder.apply(remove.clone()), DiskOutcome::Blocked(Obstacle::NotEmpty));
    std::fs::remove_file(folder.path("d/f")).unwrap();
    assert_eq!(folder.apply(remove), DiskOutcome::Done(None));
    assert_eq!(folder.stat("d"), None);
}

#[test]
fn links_are_made_replaced_and_removed_and_never_followed() {
    let folder = Folder::new();
    let canary = folder.temp.path().join("canary");
    let target = |text: &str| std::sync::Arc::from(text.as_bytes());
    let put = |expect, to: &str| DiskAction::PutLink { path: rel("l"), expect, target: target(to) };
    let DiskOutcome::Done(Some(first)) = folder.apply(put(None, canary.to_str().unwrap())) else { panic!() };
    assert_eq!(first.kind, Kind::Symlink);
    let through = DiskAction::MakeDir { path: rel("l/evil"), mode: 0o755 };
    assert_eq!(folder.apply(through), DiskOutcome::Stale(None));
    assert_eq!(folder.apply(folder.put("l/file", None, b"evil")), DiskOutcome::Stale(None));
    let DiskOutcome::Done(Some(second)) = folder.apply(put(Some(first), "elsewhere")) else { panic!() };
    assert_eq!(std::fs::read_link(folder.path("l")).unwrap().to_str(), Some("elsewhere"));
    let set = DiskAction::SetAttributes { path: rel("l"), expect: second, mode: Some(0o777), mtime_ns: Some(5) };
    let DiskOutcome::Done(Some(third)) = folder.apply(set) else { panic!() };
    assert_eq!(third.mtime_ns, 5);
    assert_eq!(folder.apply(DiskAction::Remove { path: rel("l"), expect: third }), DiskOutcome::Done(None));
    folder.assert_canary();
}

#[test]
fn a_file_takes_the_place_of_an_empty_directory_only() {
    let folder = Folder::new();
    for name in ["empty", "full"] {
        std::fs::create_dir(folder.path(name)).unwrap();
    }
    folder.write("full/f", "x");
    assert!(matches!(folder.apply(folder.put("empty", folder.stat("empty"), b"new")), DiskOutcome::Done(Some(_))));
    let full = folder.stat("full");
    assert_eq!(folder.apply(folder.put("full", full, b"new")), DiskOutcome::Blocked(Obstacle::NotEmpty));
    assert_eq!(folder.read("full/f").unwrap(), b"x");
    assert_eq!(folder.read("empty").unwrap(), b"new");
}

#[test]
fn moves_take_what_is_expected_and_nothing_else() {
    let _clean = NoHook;
    let folder = Folder::new();
    std::fs::create_dir(folder.path("d")).unwrap();
    let a = folder.write("a", "a");
    let b = folder.write("b", "b");
    let to = |from: &str, expect, to: &str| DiskAction::Move { from: rel(from), expect, to: rel(to) };
    assert_eq!(folder.apply(to("a", a, "b")), DiskOutcome::Stale(Some(b)));
    assert_eq!(folder.apply(to("b", a, "c")), DiskOutcome::Stale(Some(b)));
    assert_eq!(folder.apply(to("a", a, "none/c")), DiskOutcome::Stale(None));
    let DiskOutcome::Done(Some(moved)) = folder.apply(to("a", a, "d/a")) else { panic!() };
    assert!(moved.same_inode(&a) && folder.stat("a").is_none());
    let (from, aside) = (folder.path("d/a"), folder.path("aside"));
    at(Step::Checked, move || {
        std::fs::rename(&from, aside).unwrap();
        std::fs::write(&from, "other").unwrap();
    });
    let DiskOutcome::Stale(Some(_)) = folder.apply(to("d/a", moved, "c")) else { panic!() };
    assert_eq!((folder.read("d/a").unwrap(), folder.stat("c")), (b"other".to_vec(), None));
    HOOK.set(None);
    let d = folder.stat("d").unwrap();
    assert_eq!(folder.apply(to("d", d, "d/inside")), DiskOutcome::Blocked(Obstacle::Unrepresentable));
}

#[test]
fn attributes_are_set_and_never_more_than_permission_bits() {
    let folder = Folder::new();
    let a = folder.write("a", "a");
    let set = |expect, mode, mtime_ns| DiskAction::SetAttributes { path: rel("a"), expect, mode, mtime_ns };
    let DiskOutcome::Done(Some(now)) = folder.apply(set(a, Some(0o7111), Some(-1))) else { panic!() };
    assert_eq!((now.mode, now.mtime_ns, folder.stat("a")), (0o511, -1, Some(now)));
    assert_eq!(folder.apply(set(a, Some(0o600), None)), DiskOutcome::Stale(Some(now)));
    folder.stage(b"s");
    let put = DiskAction::PutFile { path: rel("s"), expect: None, content: folder.stage(b"s"), mode: 0o6044, mtime_ns: i64::MAX };
    let DiskOutcome::Done(Some(s)) = folder.apply(put) else { panic!() };
    assert_eq!(s.mode, 0o444);
}

#[test]
fn a_batch_builds_a_tree_in_order_and_one_content_serves_many() {
    let folder = Folder::new();
    let content = folder.stage(b"same");
    let file = |path: String| DiskAction::PutFile { path: rel(&path), expect: None, content, mode: 0o755, mtime_ns: 9 };
    let mut actions = Vec::new();
    for d in 0..20 {
        actions.push(DiskAction::MakeDir { path: rel(&format!("d{d}")), mode: 0o755 });
        actions.extend((0..3).map(|f| file(format!("d{d}/f{f}"))));
    }
    let outcomes = apply(&folder.root, &actions).unwrap();
    assert!(outcomes.iter().all(|o| matches!(o, DiskOutcome::Done(Some(_)))), "{outcomes:?}");
    assert_eq!(folder.read("d19/f2").unwrap(), b"same");
    assert_eq!(std::fs::metadata(folder.path("d19/f2")).unwrap().nlink(), 1);
    assert!(folder.own("tmp").is_empty());
    let swap = |from: &str, to: &str| DiskAction::Move { from: rel(from), expect: folder.stat(from).unwrap(), to: rel(to) };
    let (d0, d1) = (folder.stat("d0").unwrap(), folder.stat("d1").unwrap());
    let actions = [
        swap("d0", "t"),
        DiskAction::Move { from: rel("d1"), expect: d1, to: rel("d0") },
        DiskAction::Move { from: rel("t"), expect: d0, to: rel("d1") },
        file("d1/last".into()),
    ];
    let outcomes = apply(&folder.root, &actions).unwrap();
    assert!(outcomes[..3].iter().all(|o| matches!(o, DiskOutcome::Done(_))), "{outcomes:?}");
    assert_eq!(outcomes[3], DiskOutcome::Blocked(Obstacle::Corrupt), "the staged file was used up");
    assert_eq!(folder.stat("d1").unwrap().ino, d0.ino);
}

#[test]
fn ferrys_own_directory_is_nobodys_to_change() {
    let folder = Folder::new();
    let own = rel(".ferry/folder.json");
    let stat = folder.stat(".ferry/folder.json").unwrap();
    for action in [
        DiskAction::Remove { path: own.clone(), expect: stat },
        DiskAction::Move { from: own.clone(), expect: stat, to: rel("x") },
        DiskAction::MakeDir { path: rel(".ferry/x"), mode: 0o755 },
        folder.put(".ferry/x", None, b"x"),
        DiskAction::MakeDir { path: rel(""), mode: 0o755 },
    ] {
        assert_eq!(folder.apply(action), DiskOutcome::Blocked(Obstacle::Unrepresentable));
    }
    folder.root.check().unwrap();
}

#[test]
fn what_waits_for_its_place_is_parked_and_comes_back() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("d")).unwrap();
    std::fs::write(folder.path("d/x"), "x").unwrap();
    let there = DiskAction::Move { from: rel("d"), expect: folder.stat("d").unwrap(), to: rel(".ferry/parked/0a") };
    assert!(matches!(folder.apply(there), DiskOutcome::Done(_)));
    let expect = folder.stat(".ferry/parked/0a").unwrap();
    let back = DiskAction::Move { from: rel(".ferry/parked/0a"), expect, to: rel("e") };
    assert!(matches!(folder.apply(back), DiskOutcome::Done(_)));
    assert_eq!(std::fs::read(folder.path("e/x")).unwrap(), b"x");
    let expect = folder.stat(".ferry/parked").unwrap();
    let all = DiskAction::Move { from: rel(".ferry/parked"), expect, to: rel("f") };
    assert_eq!(folder.apply(all), DiskOutcome::Blocked(Obstacle::Unrepresentable));
}

#[test]
fn a_replaced_root_blocks_everything() {
    let folder = Folder::new();
    let put = folder.put("a", None, b"x");
    std::fs::rename(folder.path(""), folder.temp.path().join("away")).unwrap();
    assert_eq!(folder.apply(put.clone()), DiskOutcome::Blocked(Obstacle::RootGone));
    std::fs::create_dir(folder.path("")).unwrap();
    assert_eq!(folder.apply(put), DiskOutcome::Blocked(Obstacle::RootGone));
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 0);
}

#[test]
fn long_and_odd_names_are_placed_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    for bytes in [vec![b'x'; 255], b"\xff\xfe".to_vec(), "é".repeat(127).into_bytes(), b"a\nb\\\"*?".to_vec()] {
        let name = ferry_protocol::Name::new(&bytes).unwrap();
        let path = ferry_protocol::RelPath::root().join(&name);
        let put = |expect| DiskAction::PutFile { path: path.clone(), expect, content: folder.stage(b"x"), mode: 0o644, mtime_ns: 1 };
        let DiskOutcome::Done(Some(stat)) = folder.apply(put(None)) else { panic!("{name:?}") };
        assert!(std::fs::exists(folder.path("").join(std::ffi::OsStr::from_bytes(&bytes))).unwrap());
        assert!(matches!(folder.apply(put(Some(stat))), DiskOutcome::Done(_)));
        let [entry] = &trash::list(&folder.root).unwrap()[..] else { panic!() };
        assert_eq!(entry.path, path);
        let beside = trash::restore(&folder.root, &entry.id, None).unwrap();
        assert_ne!(beside, path);
    }
}

#[test]
fn nothing_is_renamed_before_it_is_durable() {
    let _clean = NoHook;
    for count in [3, 30] {
        let folder = Folder::new();
        let mut actions: Vec<_> = (0..count).map(|i| folder.put(&format!("f{i}"), None, &noise(100, i))).collect();
        let old = folder.write("old", "old");
        actions.push(folder.put("old", Some(old), b"new"));
        let steps = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let (seen, place, log) = (steps.clone(), folder.path("f0"), folder.path(".ferry/trash/log"));
        HOOK.set(Some(Box::new(move |step| {
            if step == Step::Durable {
                assert!(!place.exists() && std::fs::read_to_string(&log).unwrap().contains("replaced"));
            }
            seen.borrow_mut().push(step);
        })));
        let outcomes = apply(&folder.root, &actions).unwrap();
        HOOK.set(None);
        assert!(outcomes.iter().all(|o| matches!(o, DiskOutcome::Done(_))));
        let steps = steps.borrow();
        assert_eq!((steps[0], steps[steps.len() - 1]), (Step::Durable, Step::Finished));
    }
}

#[test]
fn a_crash_at_any_step_leaves_old_or_new_and_nothing_behind() {
    let _clean = NoHook;
    // Each round crashes one step later than the one before, until a batch gets through.
    for crash_at in 0.. {
        let folder = Folder::new();
        let old = folder.write("a", "old");
        let gone = folder.write("b", "gone");
        let moved = folder.write("c", "moved");
        let actions = [
            folder.put("a", Some(old), b"new"),
            DiskAction::Remove { path: rel("b"), expect: gone },
            DiskAction::Move { from: rel("c"), expect: moved, to: rel("d") },
            folder.put("e", None, b"created"),
        ];
        let mut count = 0;
        HOOK.set(Some(Box::new(move |_| {
            count += 1;
            if count > crash_at {
                std::panic::resume_unwind(Box::new("power cut"));
            }
        })));
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| apply(&folder.root, &actions).unwrap())).is_err();
        HOOK.set(None);
        trash::recover(&folder.root, i64::MAX).unwrap();
        let a = folder.read("a").unwrap();
        assert!(a == b"old" || a == b"new");
        let trashed: Vec<_> = trash::list(&folder.root).unwrap();
        let kept = |path: &str, bytes: &[u8]| {
            let in_trash = trashed.iter().any(|e| e.path == rel(path) && folder.read(&format!(".ferry/trash/{}", e.id)).unwrap() == bytes);
            assert!(folder.read(path).is_some_and(|now| now == bytes) != in_trash, "{path} after {crash_at}");
        };
        kept("a", b"old");
        kept("b", b"gone");
        assert!(folder.read("c").is_some() != folder.read("d").is_some());
        assert!(folder.read("e").is_none_or(|e| e == b"created"));
        assert!(folder.own("tmp").iter().all(|name| name.ends_with(".part")));
        if !crashed {
            return;
        }
    }
}

#[test]
fn a_directory_swapped_for_a_link_never_leads_outside() {
    let folder = Folder::new();
    let canary = folder.temp.path().join("canary");
    let (dir, aside, link) = (folder.path("d"), folder.path("aside"), folder.path("link"));
    std::fs::create_dir(&dir).unwrap();
    symlink(&canary, &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE);
            }
            let _ = std::fs::remove_file(&aside);
        });
        for round in 0..300 {
            let file = rel("d/file");
            let put = folder.put("d/file", None, &noise(20, round));
            let make = DiskAction::MakeDir { path: rel("d/sub"), mode: 0o700 };
            apply(&folder.root, &[put, make]).unwrap();
            if let Ok(Some(expect)) = crate::fs::stat(&folder.root, &file) {
                let set = DiskAction::SetAttributes { path: file.clone(), expect, mode: Some(0o600), mtime_ns: Some(1) };
                let remove = DiskAction::Remove { path: file.clone(), expect };
                apply(&folder.root, &[set, remove]).unwrap();
            }
            if let Ok(Some(expect)) = crate::fs::stat(&folder.root, &rel("d/sub")) {
                apply(&folder.root, &[DiskAction::Remove { path: rel("d/sub"), expect }]).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    folder.assert_canary();
    assert_eq!(std::fs::metadata(canary.join("file")).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn another_spelling_of_a_name_is_a_clash_on_a_disk_that_folds() {
    let folder = Folder::new();
    folder.root.set_folds_names(true);
    // Here the disk does not fold, so that the exact name is there: the ordinary answer.
    let stat = folder.write("a", "x");
    assert_eq!(folder.apply(folder.put("a", None, b"y")), DiskOutcome::Stale(Some(stat)));
    // A hard link under the new name is not another spelling: both stay.
    std::fs::hard_link(folder.path("a"), folder.path("b")).unwrap();
    let a = folder.stat("a").unwrap();
    assert!(matches!(folder.apply(DiskAction::Move { from: rel("a"), expect: a, to: rel("b") }), DiskOutcome::Stale(Some(_))));
    assert_eq!((folder.read("a").unwrap(), folder.read("b").unwrap()), (b"x".to_vec(), b"x".to_vec()));
}

#[test]
fn content_that_could_not_be_made_durable_is_thrown_away() {
    let _clean = NoHook;
    for count in [2, 20] {
        let folder = Folder::new();
        let old = folder.write("f0", "old");
        let mut actions: Vec<_> = (1..count).map(|i| folder.put(&format!("f{i}"), None, &noise(100, i))).collect();
        actions.insert(0, folder.put("f0", Some(old), b"new"));
        FAIL_SYNC.set(true);
        let outcomes = apply(&folder.root, &actions).unwrap();
        FAIL_SYNC.set(false);
        assert!(outcomes.iter().all(|o| *o == DiskOutcome::Blocked(Obstacle::Io)), "{outcomes:?}");
        assert_eq!((folder.read("f0").unwrap(), folder.stat("f1")), (b"old".to_vec(), None));
        // The next try finds nothing that it could take for clean (K15).
        assert!(folder.own("tmp").is_empty());
        assert_eq!(apply(&folder.root, &actions).unwrap()[1], DiskOutcome::Blocked(Obstacle::Corrupt));
    }
}

/// K11: what is in place and could not be made durable is answered only when a sync has succeeded, by what its directories list then.
#[test]
fn a_batch_is_not_answered_before_its_directories_are_durable() {
    let _clean = NoHook;
    // The directories one by one, and everything by one sync.
    for count in [2, 30] {
        let folder = Folder::new();
        let old = folder.write("old", "old");
        let gone = folder.write("gone", "gone");
        let mut actions = vec![folder.put("old", Some(old), b"new"), DiskAction::Remove { path: rel("gone"), expect: gone }];
        for i in 0..count {
            actions.push(DiskAction::MakeDir { path: rel(&format!("d{i}")), mode: 0o755 });
            actions.push(folder.put(&format!("d{i}/f"), None, &noise(100, i)));
        }
        FAIL_DIR_SYNC.set(Some(Errno::NOSPC));
        let unsynced = apply(&folder.root, &actions).unwrap_err();
        assert_eq!(unsynced.obstacle(), Obstacle::NoSpace);
        FAIL_DIR_SYNC.set(Some(Errno::IO));
        let unsynced = unsynced.sync(&folder.root).unwrap_err();
        assert_eq!((unsynced.obstacle(), sync(&folder.root)), (Obstacle::Io, Err(Obstacle::Io)));
        // The kernel has forgotten one and somebody wrote to another before the disk is well again.
        std::fs::remove_file(folder.path("d0/f")).unwrap();
        std::fs::write(folder.path("d1/f"), "written since").unwrap();
        FAIL_DIR_SYNC.set(None);
        let outcomes = unsynced.sync(&folder.root).unwrap();
        assert_eq!(outcomes.len(), actions.len());
        for (action, outcome) in actions.iter().zip(outcomes) {
            match action.path().to_string().as_str() {
                "gone" => assert_eq!(outcome, DiskOutcome::Done(None)),
                "d0/f" => assert_eq!(outcome, DiskOutcome::Stale(None)),
                "d1/f" => assert!(matches!(outcome, DiskOutcome::Done(Some(stat)) if stat.size == 100), "an edit of what was put there"),
                path => assert!(matches!(outcome, DiskOutcome::Done(Some(_))), "{path}: {outcome:?}"),
            }
        }
    }
}

/// A batch of which nothing came out, but something may have been moved meanwhile, is not durable either.
#[test]
fn what_was_undone_is_made_durable_too() {
    let _clean = NoHook;
    let folder = Folder::new();
    let expect = folder.write("a", "seen");
    let path = folder.path("a");
    at(Step::Checked, move || std::fs::write(path, "written just now").unwrap());
    FAIL_DIR_SYNC.set(Some(Errno::IO));
    let unsynced = apply(&folder.root, &[DiskAction::Remove { path: rel("a"), expect }]).unwrap_err();
    FAIL_DIR_SYNC.set(None);
    let outcomes = unsynced.sync(&folder.root).unwrap();
    assert!(matches!(outcomes[..], [DiskOutcome::Stale(Some(_))]), "{outcomes:?}");
    assert_eq!(folder.read("a").unwrap(), b"written just now");
}

/// K37: after a panic in the middle of a batch each action is carried out alone; what the batch had done before is made durable with them.
#[test]
fn what_a_panic_left_is_made_durable() {
    let _clean = NoHook;
    let folder = Folder::new();
    let actions = [folder.put("a", None, b"a"), folder.put("b", None, b"b")];
    FAIL_DIR_SYNC.set(Some(Errno::IO));
    let applied = apply_each(&folder.root, &actions, |action| {
        (action.path() == &rel("a")).then(|| apply(&folder.root, std::slice::from_ref(action)))
    });
    FAIL_DIR_SYNC.set(None);
    let outcomes = applied.unwrap_err().sync(&folder.root).unwrap();
    assert!(matches!(outcomes[..], [DiskOutcome::Done(Some(_)), DiskOutcome::Blocked(Obstacle::Io)]), "{outcomes:?}");
}
