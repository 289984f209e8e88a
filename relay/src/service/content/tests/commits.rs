//! Commits and the feed.

use crate::service::Kind;
use crate::service::content::testing::{World, Writer, frames};
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::limits::LAMPORT_JUMP_MAX;
use ferry_protocol::wire::{CommitReply, NodeUpdate, Role};
use ferry_protocol::{ChunkId, DeviceId, Epoch, NodeId, NodeState, node};
use std::collections::BTreeSet;

fn accepted(reply: CommitReply) -> (u64, bool) {
    match reply {
        CommitReply::Accepted { head_seq, gapless } => (head_seq, gapless),
        other => panic!("{other:?}"),
    }
}

on_each_kind!(a_commit_comes_back_in_the_feed);

async fn a_commit_comes_back_in_the_feed(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let update = writer.file(NodeId::from_bytes(world.id()), "a.txt", &[b"hello"]);
    let request = world.request(vec![update.clone()], &[b"hello"], 0);
    assert_eq!(accepted(world.content.commit(&home, request).await.unwrap()), (1, true));
    let page = world.content.feed(&home, 0, None, 100).await.unwrap();
    assert_eq!((page.cursor, page.head, page.has_more), (1, 1, false));
    assert_eq!(page.nodes, [update]);
    let rest = world.content.feed(&home, 1, Some(page.epoch), 100).await.unwrap();
    assert!(rest.nodes.is_empty() && rest.cursor == 1);
}

on_each_kind!(the_same_commit_again_changes_nothing);

async fn the_same_commit_again_changes_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let update = writer.file(NodeId::from_bytes(world.id()), "a", &[b"x"]);
    let request = world.request(vec![update.clone()], &[b"x"], 0);
    let first = world.content.commit(&home, request.clone()).await.unwrap();
    assert_eq!(world.content.commit(&home, request.clone()).await.unwrap(), first);
    assert_eq!(world.content.feed(&home, 0, None, 100).await.unwrap().head, 1);
    let mut other = request;
    other.nodes = vec![writer.edit(&update, &[b"y"])];
    assert_eq!(world.content.commit(&home, other).await.unwrap_err().code(), "commit_id_reused");
}

on_each_kind!(what_changed_since_the_base_is_stale_unless_it_is_included);

async fn what_changed_since_the_base_is_stale_unless_it_is_included(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut laptop = world.writer(&alice);
    let mut phone =
        Writer { replica: ferry_protocol::ReplicaId::from_bytes(world.id()), device: world.device(alice.user_id).await, counter: 0 };
    let base = laptop.file(NodeId::from_bytes(world.id()), "a", &[b"x"]);
    world.content.commit(&home, world.request(vec![base.clone()], &[b"x"], 0)).await.unwrap();
    let ours = laptop.edit(&base, &[b"laptop"]);
    let theirs = phone.edit(&base, &[b"phone"]);
    assert_eq!(accepted(world.content.commit(&home, world.request(vec![theirs.clone()], &[b"phone"], 1)).await.unwrap()), (2, true));
    let reply = world.content.commit(&home, world.request(vec![ours.clone()], &[b"laptop"], 1)).await.unwrap();
    assert_eq!(reply, CommitReply::Stale(vec![base.id]));
    // Having joined what it heard, the device commits again; an old base no longer matters.
    let mut joined = ours;
    joined.state.join(&theirs.state);
    let reply = world.content.commit(&home, world.request(vec![joined.clone()], &[b"laptop"], 1)).await.unwrap();
    assert_eq!(accepted(reply), (3, false));
    let page = world.content.feed(&home, 2, Some(world.content.identity().epoch), 10).await.unwrap();
    assert_eq!(page.nodes[0].state.body().values().len(), 2);
    assert_eq!(world.content.meta.versions(home.namespace(), base.id).await.unwrap().len(), 3);
}

on_each_kind!(missing_chunks_are_named_and_nothing_is_committed);

async fn missing_chunks_are_named_and_nothing_is_committed(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let small = writer.file(NodeId::from_bytes(world.id()), "small", &[b"s"]);
    let large = writer.file(NodeId::from_bytes(world.id()), "large", &[b"one", b"two", b"three"]);
    let request = world.request(vec![small, large], &[b"two"], 0);
    let CommitReply::MissingChunks(missing) = world.content.commit(&home, request.clone()).await.unwrap() else { panic!() };
    let wanted: BTreeSet<ChunkId> = [&b"s"[..], b"one", b"three"].map(ChunkId::of).into();
    assert_eq!(missing.into_iter().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 0);
    assert_eq!(world.content.put_chunks(&home, frames(&[b"s", b"one", b"three"])).await.unwrap(), 3);
    assert_eq!(accepted(world.content.commit(&home, request).await.unwrap()), (2, true));
}

on_each_kind!(a_file_whose_chunks_do_not_make_its_hash_is_refused);

async fn a_file_whose_chunks_do_not_make_its_hash_is_refused(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let mut lie = crate::service::content::testing::manifest(&[b"one", b"two"]);
    lie = ferry_protocol::Manifest::new(ferry_protocol::ContentHash::of(b"other"), lie.chunks().to_vec()).unwrap();
    let content = node::Content::File(ferry_protocol::FileContent::new(lie, 0));
    let update = writer.node(NodeId::from_bytes(world.id()), "lie", content);
    let request = world.request(vec![update], &[b"one", b"two"], 0);
    assert_eq!(world.content.commit(&home, request).await.unwrap_err().code(), "file_hash_mismatch");
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 0);
    assert_eq!(world.content.storage_totals().await.unwrap().chunks, 0);
}

on_each_kind!(another_epoch_changes_nothing);

async fn another_epoch_changes_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let before = world.content.identity().epoch;
    let request = world.request(vec![writer.file(NodeId::from_bytes(world.id()), "a", &[b"x"])], &[b"x"], 0);
    let now = world.content.renew_identity().await.unwrap();
    assert_ne!(now, before);
    assert_eq!(world.content.commit(&home, request).await.unwrap(), CommitReply::EpochChanged(now));
    for (since, epoch) in [(0, Some(before)), (1, None), (1, Some(now)), (0, Some(Epoch::default()))] {
        assert_eq!(world.content.feed(&home, since, epoch, 10).await.unwrap_err().kind(), Kind::Gone, "{since} {epoch:?}");
    }
}

on_each_kind!(who_may_commit_and_in_whose_name);

async fn who_may_commit_and_in_whose_name(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(None).await, world.user(None).await);
    let home = world.home(&alice).await;
    assert_eq!(world.content.enter(&mal, home.namespace(), Role::Viewer).await.unwrap_err().kind(), Kind::NotFound);
    let viewing = world.share(&home, &mal, Role::Viewer).await;
    assert_eq!(world.content.enter(&mal, home.namespace(), Role::Editor).await.unwrap_err().kind(), Kind::Forbidden);
    let mut writer = world.writer(&mal);
    let update = writer.file(NodeId::from_bytes(world.id()), "a", &[b"x"]);
    // The role counts inside the transaction too: an entry from before is no pass.
    let refused = world.content.commit(&viewing, world.request(vec![update], &[b"x"], 0)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Forbidden);
    // A stranger's device as the author.
    let mut forger = Writer { device: DeviceId::from_bytes([9; 16]), ..world.writer(&alice) };
    let forged = forger.file(NodeId::from_bytes(world.id()), "b", &[b"x"]);
    let refused = world.content.commit(&home, world.request(vec![forged.clone()], &[b"x"], 0)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Forbidden, "foreign_author"));
    assert_eq!(refused.extra()["nodes"], serde_json::json!([forged.id.to_string()]), "it is named, so that the rest can be sent");
    // The relay's own replica.
    let mut forger = Writer { replica: world.content.identity().replica, ..world.writer(&alice) };
    let forged = forger.file(NodeId::from_bytes(world.id()), "b", &[b"x"]);
    let refused = world.content.commit(&home, world.request(vec![forged], &[b"x"], 0)).await.unwrap_err();
    assert_eq!(refused.code(), "foreign_replica");
    // Another member's device is history that travels through ours.
    let mut theirs = world.writer(&mal);
    let relayed = theirs.file(NodeId::from_bytes(world.id()), "c", &[b"x"]);
    accepted(world.content.commit(&home, world.request(vec![relayed], &[b"x"], 0)).await.unwrap());
}

on_each_kind!(counters_cannot_be_used_up_and_a_node_is_named_once);

async fn counters_cannot_be_used_up_and_a_node_is_named_once(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = Writer { counter: u64::MAX - 9, ..world.writer(&alice) };
    let update = writer.file(NodeId::from_bytes(world.id()), "a", &[b"x"]);
    let refused = world.content.commit(&home, world.request(vec![update], &[b"x"], 0)).await.unwrap_err();
    assert_eq!(refused.code(), "counter_jump");
    let mut writer = world.writer(&alice);
    let update = writer.file(NodeId::from_bytes(world.id()), "a", &[b"x"]);
    let refused = world.content.commit(&home, world.request(vec![update.clone(), update], &[b"x"], 0)).await.unwrap_err();
    assert_eq!(refused.code(), "node_twice");
    let page = world.content.feed(&home, 0, None, 10).await.unwrap();
    assert_eq!(page.head, 0);
    // A leap that is allowed, and then another one, is for a node's own numbers too: devices take them from the same clock.
    let mut writer = Writer { counter: LAMPORT_JUMP_MAX - 9, ..world.writer(&alice) };
    for name in ["b", "c"] {
        let NodeUpdate { id, state } = writer.file(NodeId::from_bytes(world.id()), name, &[b"x"]);
        let mut value = state.body().values()[0].clone();
        value.dot.counter = value.stamp.counter;
        let mut numbered = NodeState::new(state.places()[0].clone());
        numbered.body_mut().put(&[], value);
        let request = world.request(vec![NodeUpdate { id, state: numbered }], &[b"x"], 0);
        accepted(world.content.commit(&home, request).await.unwrap());
        writer.counter += LAMPORT_JUMP_MAX - 99;
    }
}

on_each_kind!(a_node_stands_in_what_is_known);

/// R34: a parent that is neither here nor in the commit; what is there already keeps its place whatever became of that.
async fn a_node_stands_in_what_is_known(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let (home, others) = (world.home(&alice).await, world.home(&bob).await);
    let mut writer = world.writer(&alice);
    let dir = writer.node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
    let inner = writer.node_in(dir.id, NodeId::from_bytes(world.id()), "e", node::Content::Dir);
    let leaf = writer.node_in(inner.id, NodeId::from_bytes(world.id()), "f", node::Content::Dir);
    // A directory of another namespace is no parent here.
    let theirs = world.writer(&bob).node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
    accepted(world.content.commit(&others, world.request(vec![theirs.clone()], &[], 0)).await.unwrap());
    let strange = writer.node_in(theirs.id, NodeId::from_bytes(world.id()), "g", node::Content::Dir);
    let all = || vec![inner.clone(), leaf.clone(), strange.clone()];
    let refused = world.content.commit(&home, world.request(all(), &[], 0)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Invalid, "unknown_parent"));
    let named: BTreeSet<&str> = refused.extra()["nodes"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(named, BTreeSet::from([inner.id.to_string().as_str(), strange.id.to_string().as_str()]), "not what hangs on them");
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 0, "nothing of it is here");
    // In one commit the order does not matter; in a later one the parent is known.
    accepted(world.content.commit(&home, world.request(vec![inner.clone(), dir.clone()], &[], 0)).await.unwrap());
    accepted(world.content.commit(&home, world.request(vec![leaf.clone()], &[], 0)).await.unwrap());
    // A move is held to it too; an edit of what stands somewhere is not.
    let moved = writer.moved(&leaf, NodeId::from_bytes([9; 16]), "f");
    let refused = world.content.commit(&home, world.request(vec![moved], &[], u64::MAX)).await.unwrap_err();
    assert_eq!(refused.code(), "unknown_parent");
    accepted(world.content.commit(&home, world.request(vec![writer.deleted(&leaf)], &[], u64::MAX)).await.unwrap());
}

on_each_kind!(moves_that_close_a_cycle_are_joined_and_shown_as_a_tree);

/// R34: moves that close a cycle are no error, they come from devices that did not know of each other. The tree that is shown has none.
async fn moves_that_close_a_cycle_are_joined_and_shown_as_a_tree(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let a = writer.node(NodeId::from_bytes(world.id()), "a", node::Content::Dir);
    let b = writer.node(NodeId::from_bytes(world.id()), "b", node::Content::Dir);
    accepted(world.content.commit(&home, world.request(vec![a.clone(), b.clone()], &[], 0)).await.unwrap());
    let into_b = writer.moved(&a, b.id, "a");
    let into_a = writer.moved(&b, a.id, "b");
    accepted(world.content.commit(&home, world.request(vec![into_b], &[], 2)).await.unwrap());
    accepted(world.content.commit(&home, world.request(vec![into_a], &[], 2)).await.unwrap());
    let page = world.content.list_files(&home, &crate::service::content::ListQuery { limit: 10, ..Default::default() }).await.unwrap();
    let paths: Vec<String> = page.files.iter().map(|f| f.path.to_string()).collect();
    assert_eq!(paths, ["b", "b/a"], "the newer move falls back");
}

on_each_kind!(concurrent_commits_leave_no_gap_for_a_reader);

async fn concurrent_commits_leave_no_gap_for_a_reader(kind: Db) {
    let world = std::sync::Arc::new(World::on(kind).await);
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (world, home, mut writer) = (world.clone(), home.clone(), world.writer(&alice));
        tasks.push(tokio::spawn(async move {
            for i in 0..6 {
                let nodes: Vec<NodeUpdate> =
                    (0..3).map(|k| writer.file(NodeId::from_bytes(world.id()), &format!("{i}-{k}"), &[b"x"])).collect();
                accepted(world.content.commit(&home, world.request(nodes, &[b"x"], 0)).await.unwrap());
            }
        }));
    }
    let reader = {
        let (world, home) = (world.clone(), home.clone());
        tokio::spawn(async move {
            let epoch = world.content.identity().epoch;
            let (mut cursor, mut seen) = (0, Vec::new());
            while seen.len() < 8 * 6 * 3 {
                let page = world.content.feed(&home, cursor, Some(epoch), 5).await.unwrap();
                assert!(page.cursor >= cursor);
                cursor = page.cursor;
                seen.extend(page.nodes.into_iter().map(|n| n.id));
            }
            seen
        })
    };
    for task in tasks {
        task.await.unwrap();
    }
    let seen = reader.await.unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

on_each_kind!(a_commit_of_the_largest_size_comes_back_whole);

async fn a_commit_of_the_largest_size_comes_back_whole(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let contents: Vec<Vec<u8>> = (0..4096u32).map(|i| i.to_le_bytes().to_vec()).collect();
    let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let nodes: Vec<NodeUpdate> =
        contents.iter().enumerate().map(|(i, c)| writer.file(NodeId::from_bytes(world.id()), &format!("f{i}"), &[c])).collect();
    world.content.put_chunks(&home, frames(&slices)).await.unwrap();
    let request = world.request(nodes, &[], 0);
    accepted(world.content.commit(&home, request).await.unwrap());

    let mut cursor = 0;
    let mut count = 0;
    loop {
        let page = world.content.feed(&home, cursor, Some(world.content.identity().epoch), 1000).await.unwrap();
        count += page.nodes.len();
        cursor = page.cursor;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(count, 4096);
}
