//! Disks that refuse: full, read-only, forbidden, immutable, unmounted, folding case. Whoever runs the tests as root gets the real thing;
//! others get what a user can make.

use super::fixture::{Folder, MARKER, manifest, noise, rel};
use super::root::RootError;
use super::*;
use ferry_engine::disk::{DiskAction, DiskOutcome, Kind, Obstacle};
use ferry_protocol::VerifiedChunk;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|out| out.status.success())
}

/// A filesystem of its own, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    /// Nothing where mounting is not allowed.
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        (is_root() && run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str()?])).then(|| Self(at.to_path_buf()))
    }

    fn unmount(self) {
        assert!(run("umount", &[self.0.to_str().unwrap()]), "no handle of ours keeps the disk busy");
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

#[test]
fn a_full_disk_stops_a_download_and_harms_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(&temp.path().join("m"), "size=4m") else { return };
    let root = Arc::new(Root::attach(&mount.0, &MARKER).unwrap());
    std::fs::write(mount.0.join("old"), noise(100, 1)).unwrap();
    let bytes = noise(6 << 20, 2);
    assert_eq!(Stage::begin(&root, &manifest(&bytes)).err(), Some(Obstacle::NoSpace));
    // Several that would fit alone do not fit together (Q10).
    let parts: Vec<_> = (0..4).map(|i| Stage::begin(&root, &manifest(&noise(1 << 20, 10 + i)))).collect();
    assert!(parts[0].is_ok() && parts[3].as_ref().err() == Some(&Obstacle::NoSpace));
    drop(parts);
    // Somebody else fills the disk while chunks arrive.
    let bytes = noise(2 << 20, 3);
    let stage = Stage::begin(&root, &manifest(&bytes)).unwrap();
    let _ = std::fs::write(mount.0.join("fill"), noise(4 << 20, 4));
    let missing = stage.missing();
    let put = |(_, at, c): &(usize, u64, ferry_protocol::ChunkRef)| {
        stage.put(*at, &VerifiedChunk::of(bytes[*at as usize..][..c.len as usize].to_vec()))
    };
    assert!(missing.iter().any(|m| put(m) == Err(Obstacle::NoSpace)));
    assert!(!stage.is_complete());
    // It goes on when there is room.
    std::fs::remove_file(mount.0.join("fill")).unwrap();
    for chunk in &stage.missing() {
        put(chunk).unwrap();
    }
    let content = stage.finish().unwrap().content;
    let place = DiskAction::PutFile { path: rel("new"), expect: None, content, mode: 0o644, mtime_ns: 1 };
    assert!(matches!(apply(&root, &[place]).unwrap()[0], DiskOutcome::Done(_)));
    assert_eq!(std::fs::read(mount.0.join("new")).unwrap(), bytes);
    assert_eq!(std::fs::read(mount.0.join("old")).unwrap(), noise(100, 1));
}

#[test]
fn an_unmounted_root_is_gone_and_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let at = temp.path().join("m");
    let Some(mount) = Mount::tmpfs(&at, "size=1m") else { return };
    let root = Arc::new(Root::attach(&at, &MARKER).unwrap());
    std::fs::write(at.join("f"), "x").unwrap();
    assert_eq!(list(&root, &rel("")).unwrap().len(), 1);
    mount.unmount();
    assert_eq!(root.check(), Err(RootError::Replaced));
    assert_eq!(list(&root, &rel("")), Err(PathError::Blocked(Obstacle::RootGone)));
    let make = DiskAction::MakeDir { path: rel("d"), mode: 0o755 };
    assert_eq!(apply(&root, &[make]).unwrap(), [DiskOutcome::Blocked(Obstacle::RootGone)]);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
}

#[test]
fn a_mount_in_the_folder_is_neither_read_nor_changed() {
    let folder = Folder::new();
    let Some(mount) = Mount::tmpfs(&folder.path("m"), "size=1m") else { return };
    std::fs::write(mount.0.join("f"), "x").unwrap();
    let entries = list(&folder.root, &rel("")).unwrap();
    assert_eq!(entries[0].stat, Err(Obstacle::OtherFilesystem));
    assert_eq!(stat(&folder.root, &rel("m")), Err(Obstacle::OtherFilesystem));
    assert_eq!(list(&folder.root, &rel("m")), Err(PathError::Blocked(Obstacle::OtherFilesystem)));
    assert_eq!(folder.apply(folder.put("m/g", None, b"g")), DiskOutcome::Blocked(Obstacle::OtherFilesystem));
    let canary = folder.temp.path().join("canary");
    let bind = folder.path("bind");
    std::fs::create_dir(&bind).unwrap();
    assert!(run("mount", &["--bind", canary.to_str().unwrap(), bind.to_str().unwrap()]));
    let _bound = Mount(bind);
    // The same disk, but another mount: outside all the same (B58).
    assert_eq!(stat(&folder.root, &rel("bind")), Err(Obstacle::OtherFilesystem));
    assert_eq!(folder.apply(folder.put("bind/g", None, b"g")), DiskOutcome::Blocked(Obstacle::OtherFilesystem));
    folder.assert_canary();
}

#[test]
fn a_read_only_disk_and_an_immutable_file_block_and_say_so() {
    let temp = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(&temp.path().join("m"), "size=1m") else { return };
    let root = Arc::new(Root::attach(&mount.0, &MARKER).unwrap());
    std::fs::write(mount.0.join("f"), "x").unwrap();
    let expect = stat(&root, &rel("f")).unwrap().unwrap();
    assert!(run("mount", &["-o", "remount,ro", mount.0.to_str().unwrap()]));
    let remove = || DiskAction::Remove { path: rel("f"), expect };
    assert_eq!(apply(&root, &[remove()]).unwrap(), [DiskOutcome::Blocked(Obstacle::ReadOnly)]);
    assert!(matches!(hash_file(&root, &rel("f"), &expect, &mut |_, _| ()), HashOutcome::Hashed { .. }));
    assert!(run("mount", &["-o", "remount,rw", mount.0.to_str().unwrap()]));
    assert_eq!(apply(&root, &[remove()]).unwrap(), [DiskOutcome::Done(None)]);

    let folder = Folder::new();
    folder.write("f", "x");
    let path = folder.path("f");
    if !run("chattr", &["+i", path.to_str().unwrap()]) {
        return;
    }
    let expect = folder.stat("f").unwrap();
    let put = folder.put("f", Some(expect), b"new");
    let outcomes = apply(&folder.root, &[put.clone(), folder.put("other", None, b"other")]).unwrap();
    let cleared = run("chattr", &["-i", path.to_str().unwrap()]);
    assert_eq!(outcomes[0], DiskOutcome::Blocked(Obstacle::ReadOnly));
    assert!(matches!(outcomes[1], DiskOutcome::Done(_)), "the others proceed");
    assert!(cleared && folder.own("trash").is_empty() && folder.read("f").unwrap() == b"x");
}

/// Runs this very test again as a user without privileges, because nothing is forbidden to root.
fn as_user(test: &str) -> bool {
    if !is_root() {
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let temp = tempfile::tempdir().unwrap();
    // Where the other user may execute it and write.
    let copy = temp.path().join("test");
    std::fs::copy(program, &copy).unwrap();
    for path in [temp.path(), &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let (user, group) = ("--reuid=65534", "--regid=65534");
    let output = Command::new("setpriv")
        .args([user, group, "--clear-groups"])
        .arg(&copy)
        .args(["--exact", test])
        .env("TMPDIR", temp.path())
        .current_dir(temp.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    true
}

#[test]
fn what_may_not_be_read_is_not_absent() {
    if as_user("fs::tests_disk::what_may_not_be_read_is_not_absent") {
        return;
    }
    let folder = Folder::new();
    std::fs::create_dir(folder.path("d")).unwrap();
    folder.write("d/f", "x");
    let f = folder.write("f", "x");
    let mode = |path: &str, mode| std::fs::set_permissions(folder.path(path), PermissionsExt::from_mode(mode)).unwrap();
    mode("f", 0o000);
    mode("d", 0o000);
    let now = folder.stat("f").unwrap();
    assert_eq!(hash_file(&folder.root, &rel("f"), &now, &mut |_, _| ()), HashOutcome::Unreadable(Obstacle::Denied));
    assert_eq!(list(&folder.root, &rel("d")), Err(PathError::Blocked(Obstacle::Denied)));
    assert_eq!(stat(&folder.root, &rel("d/f")), Err(Obstacle::Denied));
    assert_eq!(stat(&folder.root, &rel("d/none")), Err(Obstacle::Denied));
    assert_eq!(list(&folder.root, &rel("")).unwrap().len(), 2);
    // A directory that may be listed but not entered: the entries are there, what they are is not known.
    mode("d", 0o400);
    let entries = list(&folder.root, &rel("d")).unwrap();
    assert_eq!((entries.len(), entries[0].stat), (1, Err(Obstacle::Denied)));
    // One that may be entered but not changed.
    mode("d", 0o500);
    let inside = folder.stat("d/f").unwrap();
    assert_eq!(folder.apply(DiskAction::Remove { path: rel("d/f"), expect: inside }), DiskOutcome::Blocked(Obstacle::Denied));
    assert_eq!(folder.apply(folder.put("d/f", Some(inside), b"new")), DiskOutcome::Blocked(Obstacle::Denied));
    assert_eq!(folder.apply(folder.put("d/g", None, b"new")), DiskOutcome::Blocked(Obstacle::Denied));
    assert_eq!(folder.read("d/f").unwrap(), b"x");
    // An owner may change the attributes of what may not be read, and replace it.
    let set = DiskAction::SetAttributes { path: rel("f"), expect: now, mode: Some(0o640), mtime_ns: Some(f.mtime_ns) };
    let DiskOutcome::Done(Some(set)) = folder.apply(set) else { panic!() };
    assert_eq!((set.mode, set.kind), (0o640, Kind::File));
    mode("d", 0o300);
    assert!(matches!(folder.apply(folder.put("d/g", None, b"new")), DiskOutcome::Done(_)), "it need not be readable for that");
    mode("d", 0o700);
}

#[test]
fn a_disk_that_folds_case_is_found_out_and_clashes_are_blocked() {
    let temp = tempfile::tempdir().unwrap();
    let (image, at) = (temp.path().join("image"), temp.path().join("m"));
    std::fs::create_dir(&at).unwrap();
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(16 << 20).unwrap();
    let made = is_root() && run("mkfs.vfat", &[image.to_str().unwrap()]);
    if !made || !run("mount", &["-o", "loop,utf8=1", image.to_str().unwrap(), at.to_str().unwrap()]) {
        return;
    }
    let mount = Mount(at);
    let root = Arc::new(Root::attach(&mount.0, &MARKER).unwrap());
    assert!(case::probe(&root).unwrap().case);
    std::fs::write(mount.0.join("Name.txt"), "x").unwrap();
    let (staged, _) = stage::stage_small_batch(&root, [Some(&VerifiedChunk::of(b"other".to_vec()))]);
    let put = DiskAction::PutFile { path: rel("NAME.TXT"), expect: None, content: staged[0].content, mode: 0o755, mtime_ns: 1 };
    assert_eq!(apply(&root, &[put]).unwrap(), [DiskOutcome::Blocked(Obstacle::NameClash)]);
    let expect = stat(&root, &rel("Name.txt")).unwrap().unwrap();
    let respell = DiskAction::Move { from: rel("Name.txt"), expect, to: rel("nAME.txt") };
    let outcomes = apply(&root, &[respell]).unwrap();
    let names: Vec<_> = list(&root, &rel("")).unwrap().iter().map(|e| e.name.display()).collect();
    assert_eq!(names, ["nAME.txt"], "{outcomes:?}");
    assert_eq!(std::fs::read(mount.0.join("nAME.txt")).unwrap(), b"x");
}
