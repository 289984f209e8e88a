//! Directories, versions brought back, conflicts settled.

use crate::service::content::testing::{World, Writer, manifest};
use crate::service::content::*;
use crate::service::{Caller, Kind};
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{CommitReply, NodeUpdate, Role};
use ferry_protocol::{FileContent, NodeId, node};

async fn commit(world: &World, entry: &Entry, update: &NodeUpdate, bytes: &[u8]) {
    let request = world.request(vec![update.clone()], &[bytes], u64::MAX);
    assert!(matches!(world.content.commit(entry, request).await.unwrap(), CommitReply::Accepted { .. }));
}

async fn text(world: &World, entry: &Entry, file: NodeId) -> Vec<u8> {
    let download = world.content.download(entry, file, None).await.unwrap();
    let mut stream = world.content.read_file(&download, 0..download.size_bytes).await.unwrap();
    let mut out = Vec::new();
    while let Some(batch) = stream.recv().await {
        out.extend_from_slice(&batch.unwrap());
    }
    out
}

async fn shown(world: &World, entry: &Entry) -> Vec<(String, bool)> {
    let page = world.content.list_files(entry, &ListQuery { limit: 100, ..ListQuery::default() }).await.unwrap();
    page.files.iter().map(|f| (f.path.to_string(), f.is_conflict)).collect()
}

/// One file that two devices changed at once: `left` keeps the name.
async fn edited_twice(world: &World, alice: &Caller) -> (Entry, NodeId) {
    let home = world.home(alice).await;
    let (mut a, mut b) = (world.writer(alice), world.writer(alice));
    let base = a.file(NodeId::from_bytes(world.id()), "f.txt", &[b"base"]);
    commit(world, &home, &base, b"base").await;
    commit(world, &home, &b.edit(&base, &[b"right"]), b"right").await;
    a.counter = 50;
    commit(world, &home, &a.edit(&base, &[b"left"]), b"left").await;
    (home, base.id)
}

/// Two files of one name, made on two sides at once: the first keeps it.
async fn made_twice(world: &World, alice: &Caller) -> (Entry, NodeId, NodeId) {
    let home = world.home(alice).await;
    let file = |writer: &mut Writer, bytes: &[u8]| {
        let content = node::Content::File(FileContent::new(manifest(&[bytes]), 1));
        writer.node(NodeId::from_bytes(world.id()), "n.txt", content)
    };
    let (mut a, mut b) = (world.writer(alice), world.writer(alice));
    let first = file(&mut a, b"first");
    b.counter = 50;
    let second = file(&mut b, b"second");
    commit(world, &home, &first, b"first").await;
    commit(world, &home, &second, b"second").await;
    (home, first.id, second.id)
}

on_each_store!(directories_are_made_once_and_only_where_there_is_one);

async fn directories_are_made_once_and_only_where_there_is_one(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let content = &world.content;
    let make = async |path: &str, name: &str| content.make_directory(&home, &parse_path(path).unwrap(), name).await;
    let made = make("", "a").await.unwrap();
    assert!(made.content.is_dir());
    assert_eq!(make("/a", "b").await.unwrap().path.to_string(), "a/b");
    assert_eq!(make("", "a").await.unwrap_err().code(), "name_taken");
    assert_eq!(make("/x", "y").await.unwrap_err().kind(), Kind::NotFound);
    for name in ["", "..", "a/b"] {
        assert_eq!(make("", name).await.unwrap_err().code(), "invalid_name", "{name}");
    }
    assert_eq!(make("", ".ferry").await.unwrap_err().code(), "reserved_name");
    // Who may only read makes nothing.
    let reader = world.user(None).await;
    let theirs = world.share(&home, &reader, Role::Viewer).await;
    assert_eq!(content.make_directory(&theirs, &parse_path("").unwrap(), "z").await.unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(shown(&world, &home).await, [("a".to_owned(), false), ("a/b".to_owned(), false)]);
}

on_each_store!(a_version_comes_back_as_the_newest_and_none_is_lost);

async fn a_version_comes_back_as_the_newest_and_none_is_lost(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let base = writer.file(NodeId::from_bytes(world.id()), "f.txt", &[b"one"]);
    commit(&world, &home, &base, b"one").await;
    let edited = writer.edit(&base, &[b"two"]);
    commit(&world, &home, &edited, b"two").await;
    let versions = world.content.file_versions(&home, base.id).await.unwrap();
    let (current, old) = (versions[0].row.version_id, versions[1].row.version_id);
    assert_eq!(world.content.restore_version(&home, base.id, current).await.unwrap_err().code(), "already_current");
    assert_eq!(world.content.restore_version(&home, base.id, [9; 16]).await.unwrap_err().kind(), Kind::NotFound);
    world.content.restore_version(&home, base.id, old).await.unwrap();
    assert_eq!(text(&world, &home, base.id).await, b"one");
    let after = world.content.file_versions(&home, base.id).await.unwrap();
    assert_eq!((after.len(), after[0].is_current), (3, true));
    let reader = world.user(None).await;
    let theirs = world.share(&home, &reader, Role::Viewer).await;
    assert_eq!(world.content.restore_version(&theirs, base.id, current).await.unwrap_err().kind(), Kind::Forbidden);
    world.content.delete_file(&home, base.id, None).await.unwrap();
    assert_eq!(world.content.restore_version(&home, base.id, old).await.unwrap_err().code(), "is_deleted");
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(a_conflict_of_one_file_ends_as_it_was_chosen);

async fn a_conflict_of_one_file_ends_as_it_was_chosen(kind: Db) {
    for (keep, kept, count) in [(Keep::Current, &b"left"[..], 1), (Keep::Copy, b"right", 1), (Keep::Both, b"left", 2)] {
        let world = World::on(kind).await;
        let alice = world.user(None).await;
        let (home, file) = edited_twice(&world, &alice).await;
        let found = world.content.conflicts(&home).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].current.as_ref().unwrap().node, file);
        assert!(found[0].copy.version_id.is_some());
        let path = found[0].copy.path.clone();
        world.content.settle(&home, &path, keep).await.unwrap();
        let all = shown(&world, &home).await;
        assert!(all.len() == count && all.iter().all(|(_, is_conflict)| !is_conflict), "{keep:?} {all:?}");
        assert_eq!(text(&world, &home, file).await, kept, "{keep:?}");
        assert_eq!(world.content.settle(&home, &path, keep).await.unwrap_err().code(), "no_conflict");
        // What was not kept is still among the versions.
        let versions = world.content.file_versions(&home, file).await.unwrap();
        let hashes: Vec<_> = versions.iter().map(|v| v.row.hash).collect();
        assert!([b"left".as_slice(), b"right"].iter().all(|b| hashes.contains(&ferry_protocol::ContentHash::of(b))), "{keep:?}");
        assert!(world.content.verify(true).await.unwrap().is_sound());
    }
}

on_each_store!(a_conflict_of_two_files_ends_as_it_was_chosen);

async fn a_conflict_of_two_files_ends_as_it_was_chosen(kind: Db) {
    for (keep, kept, count) in [(Keep::Current, &b"first"[..], 1), (Keep::Copy, b"second", 1), (Keep::Both, b"first", 2)] {
        let world = World::on(kind).await;
        let alice = world.user(None).await;
        let (home, first, second) = made_twice(&world, &alice).await;
        let found = world.content.conflicts(&home).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].current.as_ref().unwrap().node, found[0].copy.node, found[0].copy.version_id), (first, second, None));
        world.content.settle(&home, &found[0].copy.path, keep).await.unwrap();
        let all = shown(&world, &home).await;
        assert!(all.len() == count && all.iter().all(|(_, is_conflict)| !is_conflict), "{keep:?} {all:?}");
        assert_eq!(text(&world, &home, first).await, kept, "{keep:?}");
        assert!(world.content.verify(true).await.unwrap().is_sound());
    }
}
