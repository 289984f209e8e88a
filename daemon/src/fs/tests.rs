//! Roots, listings, hashing and staging against a real directory.

use super::fixture::{Folder, MARKER, manifest, noise, rel};
use super::hash::{ChunkError, is_racy};
use super::root::{RootError, RootRefused, conflicts_with};
use super::stage::{stage_small, stage_small_batch};
use super::*;
use ferry_engine::disk::{Kind, Obstacle};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Manifest, VerifiedChunk};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

#[test]
fn a_root_is_proven_by_inode_and_marker() {
    let folder = Folder::new();
    let identity = *folder.root.identity();
    let json = serde_json::to_string(&identity).unwrap();
    assert_eq!(serde_json::from_str::<RootIdentity>(&json).unwrap(), identity);
    Root::open(&folder.path(""), &identity).unwrap().check().unwrap();
    assert_eq!(Root::marker_at(&folder.path("")), Some(MARKER));
    let marker = folder.path(".ferry/folder.json");
    let text = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    assert_eq!(folder.root.check(), Err(RootError::Unmarked));
    std::fs::write(&marker, String::from_utf8(text.clone()).unwrap().replace("0202", "0303")).unwrap();
    assert_eq!(folder.root.check(), Err(RootError::Unmarked));
    std::fs::write(&marker, &text).unwrap();
    folder.root.check().unwrap();
    // A copy with the very marker is still another directory (K23).
    std::fs::rename(folder.path(""), folder.temp.path().join("away")).unwrap();
    assert_eq!(folder.root.check(), Err(RootError::Missing));
    std::fs::create_dir_all(folder.path(".ferry")).unwrap();
    std::fs::write(&marker, &text).unwrap();
    assert_eq!(folder.root.check(), Err(RootError::Replaced));
    assert!(matches!(list(&folder.root, &rel("")), Err(PathError::Blocked(Obstacle::RootGone))));
    assert_eq!(stat(&folder.root, &rel("a")), Err(Obstacle::RootGone));
}

#[test]
fn another_device_number_of_the_same_disk_is_read_as_the_known_one() {
    let folder = Folder::new();
    let identity = RootIdentity { dev: 77, ..*folder.root.identity() };
    folder.write("a", "x");
    let root = Root::open(&folder.path(""), &identity).unwrap();
    assert_eq!(stat(&root, &rel("a")).unwrap().unwrap().dev, 77);
    assert_eq!(list(&root, &rel("")).unwrap()[0].stat.unwrap().dev, 77);
}

#[test]
fn a_root_that_is_a_link_is_followed_once() {
    let folder = Folder::new();
    let link = folder.temp.path().join("link");
    symlink(folder.path(""), &link).unwrap();
    let root = Root::open(&link, folder.root.identity()).unwrap();
    assert_eq!(root.resolved_path(), std::fs::canonicalize(folder.path("")).unwrap());
    std::fs::remove_file(&link).unwrap();
    symlink(folder.temp.path().join("canary"), &link).unwrap();
    assert_eq!(root.check(), Err(RootError::Replaced));
}

#[test]
fn bookkeeping_that_is_a_link_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
    std::fs::create_dir(temp.path().join("folder")).unwrap();
    symlink(temp.path().join("elsewhere"), temp.path().join("folder/.ferry")).unwrap();
    assert!(Root::attach(&temp.path().join("folder"), &MARKER).is_err());
    assert_eq!(std::fs::read_dir(temp.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn impossible_roots_are_refused_with_a_reason() {
    let temp = tempfile::tempdir().unwrap();
    let at = |p: &str| temp.path().join(p);
    for dir in ["state/x", "a/b/c", "d"] {
        std::fs::create_dir_all(at(dir)).unwrap();
    }
    symlink(at("a"), at("link")).unwrap();
    let check = |p: std::path::PathBuf| conflicts_with(&p, &[at("a/b")], &[at("state")]);
    assert_eq!(check("/".into()), Err(RootRefused::FilesystemRoot));
    assert!(matches!(check(at("state")), Err(RootRefused::State(_))));
    assert!(matches!(check(at("state/x")), Err(RootRefused::State(_))));
    assert!(matches!(check(at("")), Err(RootRefused::State(_))));
    assert!(matches!(check(at("a/b")), Err(RootRefused::Inside(_))));
    assert!(matches!(check(at("link/b/c")), Err(RootRefused::Inside(_))));
    assert!(matches!(check(at("link")), Err(RootRefused::Around(_))));
    assert!(matches!(check(at("none")), Err(RootRefused::Missing(_))));
    assert_eq!(check(at("d")), Ok(()));
}

#[test]
fn a_listing_tells_kinds_and_leaves_bookkeeping_out() {
    use rustix::fs::{CWD, FileType, Mode};
    let folder = Folder::new();
    folder.write("file", "abc");
    std::fs::create_dir(folder.path("dir")).unwrap();
    symlink("/", folder.path("link")).unwrap();
    rustix::fs::mknodat(CWD, folder.path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let entries = list(&folder.root, &rel("")).unwrap();
    let seen: Vec<_> = entries.iter().map(|e| (e.name.display(), e.stat.unwrap().kind)).collect();
    let wanted = [("dir", Kind::Dir), ("fifo", Kind::Other), ("file", Kind::File), ("link", Kind::Symlink)];
    assert_eq!(seen, wanted.map(|(n, k)| (n.to_owned(), k)));
    assert_eq!(read_link(&folder.root, &rel("link")).unwrap().0, b"/");
    assert_eq!(read_link(&folder.root, &rel("file")), Err(PathError::Gone));
    assert_eq!(list(&folder.root, &rel("none")), Err(PathError::Gone));
    assert_eq!(list(&folder.root, &rel("link")), Err(PathError::Gone), "links are not followed");
    assert_eq!(stat(&folder.root, &rel("link/etc")), Ok(None));
    assert_eq!(stat(&folder.root, &rel("file/x")), Ok(None));
    // A FIFO is never waited for.
    let fifo = folder.stat("fifo").unwrap();
    assert_eq!(hash_file(&folder.root, &rel("fifo"), &fifo, &mut |_, _| ()), HashOutcome::Unreadable(Obstacle::Unsupported));
}

#[test]
fn very_deep_paths_are_reached() {
    let folder = Folder::new();
    let name = "n".repeat(200);
    let mut path = ferry_protocol::RelPath::root();
    let mut dir = rustix::fs::open(folder.path(""), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&dir, &*name, rustix::fs::Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &*name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        path = path.join(&ferry_protocol::Name::new(&name).unwrap());
    }
    assert_eq!(stat(&folder.root, &path).unwrap().unwrap().kind, Kind::Dir);
    assert_eq!(list(&folder.root, &path), Ok(vec![]));
    let file = path.join(&ferry_protocol::Name::new("f").unwrap());
    let content = folder.stage(b"deep");
    let put = ferry_engine::DiskAction::PutFile { path: file.clone(), expect: None, content, mode: 0o600, mtime_ns: 0 };
    let ferry_engine::DiskOutcome::Done(Some(stat)) = folder.apply(put) else { panic!() };
    assert!(matches!(hash_file(&folder.root, &file, &stat, &mut |_, _| ()), HashOutcome::Hashed { .. }));
}

fn hash(folder: &Folder, path: &str) -> (Manifest, Vec<(u64, ChunkRef)>) {
    let mut heard = Vec::new();
    let stat = folder.stat(path).unwrap();
    match hash_file(&folder.root, &rel(path), &stat, &mut |at, chunk| {
        heard.push((at, ChunkRef { id: chunk.id(), len: chunk.bytes().len() as u32 }))
    }) {
        HashOutcome::Hashed { manifest, .. } => (manifest, heard),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_manifest_is_the_same_however_it_was_read() {
    let folder = Folder::new();
    for len in [0, 1, 4096, 256 << 10, (256 << 10) + 1, 1 << 20, 8 << 20, (8 << 20) + 1, (20 << 20) + 17] {
        let bytes = noise(len, 3);
        folder.write("f", &bytes);
        let (got, heard) = hash(&folder, "f");
        assert_eq!(got, manifest(&bytes), "{len}");
        if len > 256 << 10 {
            assert_eq!(heard, got.with_offsets().collect::<Vec<_>>());
        }
        for (offset, chunk) in got.with_offsets() {
            let read = read_chunk(&folder.root, &rel("f"), offset, &chunk).unwrap();
            assert_eq!(read.bytes(), &bytes[offset as usize..][..chunk.len as usize]);
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_not_hashed() {
    let folder = Folder::new();
    let stat = folder.write("f", noise(12 << 20, 1));
    let (path, mut calls) = (folder.path("f"), 0);
    let outcome = hash_file(&folder.root, &rel("f"), &stat, &mut |_, _| {
        calls += 1;
        if calls == 1 {
            // Behind the reader, same size.
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"x", 0).unwrap();
        }
    });
    assert!(matches!(outcome, HashOutcome::Changed(Some(_))), "{outcome:?}");
    let short = folder.stat("f").unwrap();
    let outcome = hash_file(&folder.root, &rel("f"), &short, &mut |_, _| {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    });
    assert!(matches!(outcome, HashOutcome::Changed(Some(_))), "{outcome:?}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(hash_file(&folder.root, &rel("f"), &short, &mut |_, _| ()), HashOutcome::Changed(None));
}

#[test]
fn a_fresh_file_is_racy_and_a_rested_one_is_not() {
    let folder = Folder::new();
    let stat = folder.write("f", "x");
    assert!(is_racy(&stat, stat.ctime_ns + 1_000_000));
    assert!(!is_racy(&stat, stat.ctime_ns + 25_000_000));
    let coarse = ferry_engine::Stat { ctime_ns: 5_000_000_000, mtime_ns: 5_000_000_000, ..stat };
    assert!(is_racy(&coarse, 6_500_000_000) && !is_racy(&coarse, 7_500_000_000));
}

#[test]
fn a_chunk_that_is_no_longer_there_is_not_served() {
    let folder = Folder::new();
    folder.write("f", "hello");
    let chunk = ChunkRef { id: ChunkId::of(b"hello"), len: 5 };
    assert!(read_chunk(&folder.root, &rel("f"), 0, &chunk).is_ok());
    folder.write("f", "jello and more");
    assert!(matches!(read_chunk(&folder.root, &rel("f"), 0, &chunk), Err(ChunkError::Changed(_))));
    assert!(matches!(read_chunk(&folder.root, &rel("f"), 12, &chunk), Err(ChunkError::Changed(_))));
    assert_eq!(read_chunk(&folder.root, &rel("g"), 0, &chunk), Err(ChunkError::Gone));
}

#[test]
fn a_stage_goes_on_where_it_was_left() {
    let folder = Folder::new();
    let bytes = noise(9 << 20, 5);
    let whole = manifest(&bytes);
    let chunk = |at: u64, c: &ChunkRef| VerifiedChunk::of(bytes[at as usize..][..c.len as usize].to_vec());
    let stage = Stage::begin(&folder.root, &whole).unwrap();
    let missing = stage.missing();
    assert!(missing.len() > 4);
    for (_, at, c) in &missing[1..3] {
        stage.put(*at, &chunk(*at, c)).unwrap();
    }
    stage.put(7, &chunk(missing[0].1, &missing[0].2)).unwrap();
    drop(stage);
    let stage = Stage::begin(&folder.root, &whole).unwrap();
    assert_eq!(stage.missing().len(), missing.len() - 2);
    assert!(!stage.is_complete());
    folder.write("source", &bytes);
    for (_, at, c) in stage.missing() {
        assert!(!stage.copy_from_local(&rel("none"), at, at, &c).unwrap());
        assert!(!stage.copy_from_local(&rel("source"), at + 1, at, &c).unwrap());
        assert!(stage.copy_from_local(&rel("source"), at, at, &c).unwrap());
    }
    let staged = stage.finish().unwrap();
    assert_eq!((staged.content, staged.size), (ContentHash::of(&bytes), bytes.len() as u64));
    assert_eq!(folder.read(&format!(".ferry/tmp/{}.ready", staged.content)).unwrap(), bytes);
}

#[test]
fn an_incomplete_or_lying_stage_is_not_finished() {
    let folder = Folder::new();
    let bytes = noise(3 << 20, 6);
    let stage = Stage::begin(&folder.root, &manifest(&bytes)).unwrap();
    assert_eq!(stage.finish(), Err(Obstacle::Io));
    let lying = Manifest::new(ContentHash::of(b"other"), manifest(&bytes).chunks().to_vec()).unwrap();
    let stage = Stage::begin(&folder.root, &lying).unwrap();
    for (_, at, c) in stage.missing() {
        stage.put(at, &VerifiedChunk::of(bytes[at as usize..][..c.len as usize].to_vec())).unwrap();
    }
    assert_eq!(stage.finish(), Err(Obstacle::Corrupt));
    assert!(!folder.own("tmp").contains(&format!("{}.part", ContentHash::of(b"other"))));
}

#[test]
fn zeros_stay_holes_and_do_not_travel() {
    let folder = Folder::new();
    let mut bytes = vec![0; 24 << 20];
    bytes.extend(noise(1 << 20, 1));
    let stage = Stage::begin(&folder.root, &manifest(&bytes)).unwrap();
    let missing = stage.missing();
    assert!(missing.iter().map(|(_, _, c)| u64::from(c.len)).sum::<u64>() < 6 << 20, "{missing:?}");
    for (_, at, c) in missing {
        stage.put(at, &VerifiedChunk::of(bytes[at as usize..][..c.len as usize].to_vec())).unwrap();
    }
    let staged = stage.finish().unwrap();
    let file = std::fs::metadata(folder.path(&format!(".ferry/tmp/{}.ready", staged.content))).unwrap();
    assert_eq!(file.len(), bytes.len() as u64);
    assert!(file.blocks() * 512 < 8 << 20);
}

#[test]
fn a_temporary_file_that_was_tampered_with_is_never_written_through() {
    let folder = Folder::new();
    let bytes = noise(1 << 20, 9);
    let whole = manifest(&bytes);
    let canary = folder.temp.path().join("canary/file");
    let part = folder.path(&format!(".ferry/tmp/{}.part", whole.hash()));
    let fill = |stage: &Stage| {
        for (_, at, c) in stage.missing() {
            stage.put(at, &VerifiedChunk::of(bytes[at as usize..][..c.len as usize].to_vec())).unwrap();
        }
    };
    for hard in [false, true] {
        if hard {
            std::fs::hard_link(&canary, &part).unwrap();
        } else {
            symlink(&canary, &part).unwrap();
        }
        let stage = Stage::begin(&folder.root, &whole).unwrap();
        fill(&stage);
        folder.assert_canary();
        // A cleaner removes it, or somebody puts a link in its place.
        std::fs::remove_file(&part).unwrap();
        if hard {
            symlink(&canary, &part).unwrap();
        }
        assert_eq!(stage.finish(), Err(Obstacle::Io));
        let _ = std::fs::remove_file(&part);
    }
    // The same after it was finished.
    let content = folder.stage(&bytes);
    let ready = folder.path(&format!(".ferry/tmp/{content}.ready"));
    std::fs::remove_file(&ready).unwrap();
    symlink(&canary, &ready).unwrap();
    let put = ferry_engine::DiskAction::PutFile { path: rel("x"), expect: None, content, mode: 0o777, mtime_ns: 1 };
    assert_eq!(folder.apply(put), ferry_engine::DiskOutcome::Blocked(Obstacle::Corrupt));
    folder.assert_canary();
}

#[test]
fn what_nothing_came_of_is_dropped_when_it_has_rested() {
    let folder = Folder::new();
    let bytes = noise(1 << 16, 7);
    let content = folder.stage(&bytes);
    folder.write(".ferry/tmp/given-up.part", b"half");
    assert_eq!(trash::drop_old_parts(&folder.root, 60_000), Ok(0), "it is young");
    assert_eq!(folder.own("tmp").len(), 2);
    assert_eq!(trash::drop_old_parts(&folder.root, -1), Ok(2));
    assert!(folder.own("tmp").is_empty());
    // Who still wants it stages it again.
    let put = ferry_engine::DiskAction::PutFile { path: rel("x"), expect: None, content, mode: 0o644, mtime_ns: 1 };
    assert_eq!(folder.apply(put.clone()), ferry_engine::DiskOutcome::Blocked(Obstacle::Corrupt));
    folder.stage(&bytes);
    assert!(matches!(folder.apply(put), ferry_engine::DiskOutcome::Done(Some(_))));
}

#[test]
fn room_is_refused_before_the_disk_is_full() {
    let folder = Folder::new();
    let whole = manifest(&noise(1 << 20, 2));
    let free = rustix::fs::statvfs(folder.path("")).unwrap();
    folder.root.set_reserve_bytes(free.f_bavail * free.f_frsize + (1 << 40));
    assert_eq!(Stage::begin(&folder.root, &whole).err(), Some(Obstacle::NoSpace));
    let small = VerifiedChunk::of(b"x".to_vec());
    assert_eq!(stage_small(&folder.root, Some(&small)), Err(Obstacle::NoSpace));
    folder.root.set_reserve_bytes(0);
    let huge: Vec<_> = (0..1 << 18).map(|_| ChunkRef { id: ChunkId::of(b"h"), len: 16 << 20 }).collect();
    let huge = Manifest::new(ContentHash::of(b"huge"), huge).unwrap();
    assert_eq!(Stage::begin(&folder.root, &huge).err(), Some(Obstacle::NoSpace));
    assert!(stage_small(&folder.root, Some(&small)).is_ok());
}

#[test]
fn small_files_are_staged_in_one_go() {
    let folder = Folder::new();
    let chunks = [VerifiedChunk::of(b"a".to_vec()), VerifiedChunk::of(b"b".to_vec())];
    let (staged, obstacle) = stage_small_batch(&folder.root, chunks.iter().map(Some).chain([None]));
    assert_eq!((staged.len(), obstacle), (3, None));
    let put = |path: &str, content| ferry_engine::DiskAction::PutFile { path: rel(path), expect: None, content, mode: 0o644, mtime_ns: 0 };
    let actions: Vec<_> = staged.iter().zip(["x", "y", "z"]).map(|(s, path)| put(path, s.content)).collect();
    assert!(apply(&folder.root, &actions).unwrap().iter().all(|o| matches!(o, ferry_engine::DiskOutcome::Done(_))));
    assert_eq!((folder.read("x").unwrap(), folder.read("z").unwrap()), (b"a".to_vec(), b"".to_vec()));
}

#[test]
fn leftovers_of_an_earlier_run_are_parts_again_or_gone() {
    let folder = Folder::new();
    let content = folder.stage(b"complete but not durable");
    drop(Stage::begin(&folder.root, &manifest(b"half")).unwrap());
    std::fs::write(folder.path(".ferry/tmp/junk"), "x").unwrap();
    trash::recover(&folder.root, i64::MAX).unwrap();
    let mut names = folder.own("tmp");
    names.sort();
    let mut wanted = vec![format!("{}.part", ContentHash::of(b"half")), format!("{content}.part")];
    wanted.sort();
    assert_eq!(names, wanted);
    trash::recover(&folder.root, -1).unwrap();
    assert!(folder.own("tmp").is_empty());
}
