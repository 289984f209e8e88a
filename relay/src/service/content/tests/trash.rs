//! The trash: what comes back, with what, and where.

use crate::service::content::testing::{World, Writer, manifest};
use crate::service::content::{Entry, FileUpdate, ListQuery, parse_path};
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{CommitReply, NodeUpdate};
use ferry_protocol::{FileContent, NodeId, node};

async fn commit(world: &World, home: &Entry, nodes: &[&NodeUpdate], chunks: &[&[u8]]) {
    let request = world.request(nodes.iter().map(|n| (*n).clone()).collect(), chunks, u64::MAX);
    let reply = world.content.commit(home, request).await.unwrap();
    assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
}

async fn paths(world: &World, home: &Entry) -> Vec<String> {
    let page = world.content.list_files(home, &ListQuery { limit: 1000, ..Default::default() }).await.unwrap();
    page.files.iter().map(|f| f.path.to_string()).collect()
}

fn file(bytes: &[u8]) -> node::Content {
    node::Content::File(FileContent::new(manifest(&[bytes]), 1))
}

/// `d/`, `d/a` (b"a"), `d/e/`, `d/e/b` (b"b"), `d/link` -> `target`.
struct Tree {
    d: NodeUpdate,
    a: NodeUpdate,
    e: NodeUpdate,
    b: NodeUpdate,
    link: NodeUpdate,
}

impl Tree {
    async fn make(world: &World, home: &Entry, writer: &mut Writer) -> Self {
        let d = writer.node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
        let a = writer.node_in(d.id, NodeId::from_bytes(world.id()), "a", file(b"a"));
        let e = writer.node_in(d.id, NodeId::from_bytes(world.id()), "e", node::Content::Dir);
        let b = writer.node_in(e.id, NodeId::from_bytes(world.id()), "b", file(b"b"));
        let link = writer.node_in(d.id, NodeId::from_bytes(world.id()), "link", node::Content::Symlink((*b"target").into()));
        commit(world, home, &[&d, &a, &e, &b, &link], &[b"a", b"b"]).await;
        Self { d, a, e, b, link }
    }
}

const ALL: [&str; 5] = ["d", "d/a", "d/e", "d/e/b", "d/link"];

on_each_store!(a_directory_comes_back_with_what_was_deleted_with_it);

async fn a_directory_comes_back_with_what_was_deleted_with_it(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let tree = Tree::make(&world, &home, &mut writer).await;
    // By the web in one act.
    assert_eq!(world.content.delete_file(&home, tree.d.id, None).await.unwrap(), 5);
    assert_eq!(world.content.restore(&home, tree.d.id).await.unwrap().count, 5);
    assert_eq!(paths(&world, &home).await, ALL);
    let link = world.content.file_info(&home, tree.link.id).await.unwrap();
    assert_eq!(link.content, node::Content::Symlink((*b"target").into()));
    // By a device in several commits, a while after it had deleted one of the files; another device had deleted another.
    let now = world.content.feed(&home, 0, None, 100).await.unwrap();
    let state = |id: NodeId| now.nodes.iter().find(|n| n.id == id).unwrap().clone();
    writer.counter = 1000;
    let mut phone = Writer { device: world.device(alice.user_id).await, ..world.writer(&alice) };
    phone.counter = 1000;
    let minute = 60_000;
    let deletions = [(&tree.a, 0), (&tree.link, 10 * minute), (&tree.e, 11 * minute), (&tree.d, 11 * minute + 1)]
        .map(|(n, at)| writer.deleted_at(&state(n.id), at));
    let by_phone = phone.deleted_at(&state(tree.b.id), 11 * minute);
    for deletion in deletions.iter().chain([&by_phone]) {
        commit(&world, &home, &[deletion], &[]).await;
    }
    assert_eq!(paths(&world, &home).await, Vec::<String>::new());
    assert_eq!(world.content.restore(&home, tree.d.id).await.unwrap().count, 3);
    assert_eq!(paths(&world, &home).await, ["d", "d/e", "d/link"]);
    // The others one by one.
    assert_eq!(world.content.restore(&home, tree.a.id).await.unwrap().count, 1);
    assert_eq!(world.content.restore(&home, tree.b.id).await.unwrap().count, 1);
    assert_eq!(paths(&world, &home).await, ALL);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(a_directory_in_a_deleted_one_comes_back_alone_and_brings_the_way_to_it);

async fn a_directory_in_a_deleted_one_comes_back_alone_and_brings_the_way_to_it(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let tree = Tree::make(&world, &home, &mut world.writer(&alice)).await;
    world.content.delete_file(&home, tree.d.id, None).await.unwrap();
    assert_eq!(world.content.restore(&home, tree.e.id).await.unwrap().count, 2);
    assert_eq!(paths(&world, &home).await, ["d", "d/e", "d/e/b"]);
    // The directory above is shown again, but lies in the trash itself still.
    assert_eq!(world.content.restore(&home, tree.d.id).await.unwrap().count, 3);
    assert_eq!(paths(&world, &home).await, ALL);
    assert_eq!(world.content.restore(&home, tree.d.id).await.unwrap_err().code(), "not_deleted");
}

on_each_store!(what_comes_back_to_a_taken_place_gets_a_free_name);

async fn what_comes_back_to_a_taken_place_gets_a_free_name(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let tree = Tree::make(&world, &home, &mut writer).await;
    world.content.delete_file(&home, tree.a.id, None).await.unwrap();
    let other = writer.node_in(tree.d.id, NodeId::from_bytes(world.id()), "a", file(b"other"));
    let taken = writer.node_in(tree.d.id, NodeId::from_bytes(world.id()), "a (restored)", file(b"other"));
    commit(&world, &home, &[&other, &taken], &[b"other"]).await;
    world.content.restore(&home, tree.a.id).await.unwrap();
    assert_eq!(world.content.file_info(&home, tree.a.id).await.unwrap().path.to_string(), "d/a (restored 2)");
    assert_eq!(world.content.file_info(&home, other.id).await.unwrap().path.to_string(), "d/a");
    // A whole directory, beside a new one of its name: its content does not mix with the new one's.
    world.content.delete_file(&home, tree.d.id, None).await.unwrap();
    let new = writer.node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
    commit(&world, &home, &[&new], &[]).await;
    world.content.restore(&home, tree.d.id).await.unwrap();
    let all = paths(&world, &home).await;
    assert_eq!(all[..2], ["d", "d (restored)"]);
    assert_eq!(all.len(), 8, "{all:?}");
    // A file whose directory's name is a file's now comes back beside that.
    world.content.delete_file(&home, tree.d.id, None).await.unwrap();
    let in_the_way = writer.node(NodeId::from_bytes(world.id()), "d (restored)", file(b"other"));
    commit(&world, &home, &[&in_the_way], &[b"other"]).await;
    world.content.restore(&home, tree.b.id).await.unwrap();
    assert_eq!(paths(&world, &home).await, ["b", "d", "d (restored)"]);
    // And back at a free old place it stays what it was called.
    world.content.delete_file(&home, tree.b.id, None).await.unwrap();
    let moved = FileUpdate { name: Some("elsewhere".into()), directory: Some(parse_path("d").unwrap()), if_seq: None };
    world.content.update_file(&home, in_the_way.id, &moved).await.unwrap();
    world.content.restore(&home, tree.b.id).await.unwrap();
    assert_eq!(paths(&world, &home).await, ["b", "d", "d/elsewhere"]);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}
