//! What every content store must do (R6): one suite, run against each implementation. That of the blob stores: `blob_contract`.

use super::StoreError;
use super::content::*;
use super::dav_contract;
use super::testing::{Db, on_each_kind};
use super::versions_contract;
use crate::service::UserRole;
use crate::store::accounts::{AccountStore, User};
use crate::store::tree::Standing;
use ferry_protocol::wire::Role;
use ferry_protocol::*;

struct Names {
    owner: UserId,
    guest: UserId,
    namespace: NamespaceRow,
    /// Where the owner's namespaces stand.
    shard: Shard,
}

async fn totals(store: &dyn ContentStore) -> StorageTotals {
    let mut sum = StorageTotals::default();
    for shard in store.shard_totals().await.unwrap() {
        sum += shard.totals;
    }
    sum
}

async fn names(store: &dyn ContentStore, accounts: &dyn AccountStore) -> Names {
    let mut users = [UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16])];
    for id in &mut users {
        let email = format!("{id}@example.org");
        let user = User {
            user_id: *id,
            email: email.clone(),
            email_key: email,
            name: "n".into(),
            password_hash: "!".into(),
            role: UserRole::User,
            storage_used_bytes: 0,
            storage_limit_bytes: Some(100),
            disabled: false,
            created_at_ms: 1,
        };
        assert!(accounts.insert_user(&user).await.unwrap());
    }
    let id = NamespaceId::from_bytes([9; 16]);
    let (owner, name, run) = (users[0], "N".into(), Some(ReplicaId::from_bytes([3; 16])));
    let namespace = NamespaceRow { id, owner, name, is_home: true, head_seq: 0, settled_seq: 0, max_counter: 0, run, role: Role::Owner };
    let mut tx = store.begin(Scope::Owner(owner)).await.unwrap();
    tx.create_namespace(&namespace, 5).await.unwrap();
    tx.commit().await.unwrap();
    let shard = store.shard_of(users[0]).await.unwrap();
    assert!(store.shards().contains(&shard));
    Names { owner: users[0], guest: users[1], namespace, shard }
}

fn state(counter: u64, content: node::Content) -> NodeState {
    let replica = ReplicaId::from_bytes([7; 16]);
    let stamp = Stamp { counter, replica };
    let mut state = NodeState::new(Place { stamp, parent: NodeId::ROOT, name: Name::new(b"n\xff").unwrap() });
    let dot = state.body().next_dot(replica);
    let author = Author { device: DeviceId::default(), name: "d".into() };
    state.body_mut().put(&[], Value { dot, stamp, content, author, wall_ms: 3 });
    state
}

fn write(id: u8, seq: u64) -> NodeWrite {
    let state = state(seq, node::Content::Dir);
    NodeWrite {
        id: NodeId::from_bytes([id; 16]),
        seq,
        state,
        size_bytes: 0,
        file_type: "directory",
        hash: None,
        link_target: None,
        is_deleted: false,
        standing: Standing::Plain,
        before: None,
        changed_by: None,
    }
}

async fn namespaces_and_feeds(store: &dyn ContentStore, names: &Names) {
    let fresh = Identity { epoch: Epoch::from_bytes([1; 16]), replica: ReplicaId::from_bytes([2; 16]) };
    assert_eq!(store.identity(fresh, 1).await.unwrap(), fresh);
    let other = Identity { epoch: Epoch::from_bytes([3; 16]), ..fresh };
    assert_eq!(store.identity(other, 2).await.unwrap(), fresh);
    store.replace_identity(other, 3).await.unwrap();
    assert_eq!(store.identity(fresh, 4).await.unwrap(), other);

    let id = names.namespace.id;
    assert_eq!(store.namespaces_of(names.owner).await.unwrap(), std::slice::from_ref(&names.namespace));
    assert_eq!(store.namespace_for(id, names.guest).await.unwrap(), None);
    // A transaction that is dropped has done nothing (CS2).
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.set_member(id, names.guest, Role::Viewer, 5).await.unwrap();
    drop(tx);
    assert_eq!(store.namespace_for(id, names.guest).await.unwrap(), None);
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.set_member(id, names.guest, Role::Viewer, 5).await.unwrap();
    tx.set_member(id, names.guest, Role::Editor, 5).await.unwrap();
    tx.put_nodes(&names.namespace, &[write(1, 1), write(2, 2), write(3, 3)], 3, 77, 10).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.namespace_for(id, names.guest).await.unwrap().unwrap().role, Role::Editor);
    assert_eq!(store.members(id).await.unwrap(), [(names.owner, Role::Owner), (names.guest, Role::Editor)]);

    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    assert!(tx.remove_member(id, names.guest).await.unwrap());
    assert!(!tx.remove_member(id, names.guest).await.unwrap());
    drop(tx);
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_nodes(&names.namespace, &[write(1, 4)], 4, 50, 20).await.unwrap();
    tx.commit().await.unwrap();
    let row = store.namespace_for(id, names.owner).await.unwrap().unwrap();
    assert_eq!((row.head_seq, row.max_counter), (4, 77), "the highest counter never falls");
    let seqs = |slice: FeedSlice| slice.nodes.iter().map(|n| n.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.feed(id, 0, 100, usize::MAX).await.unwrap()), [2, 3, 4]);
    assert_eq!(seqs(store.feed(id, 2, 1, usize::MAX).await.unwrap()), [3]);
    assert_eq!(seqs(store.feed(id, 0, 100, 1).await.unwrap()), [2], "at least one, whatever the limit in bytes");
    assert_eq!(seqs(store.feed(id, 4, 100, 1).await.unwrap()), [0; 0]);
    let node = &store.nodes(id, &[NodeId::from_bytes([1; 16]), NodeId::from_bytes([99; 16])]).await.unwrap()[0];
    assert_eq!((node.seq, node.created_at_ms, node.updated_at_ms), (4, 10, 20));
    assert_eq!(node.state, write(1, 4).state);
    assert_eq!(store.first_seq_since(id, 11).await.unwrap(), Some(4));
    assert_eq!(store.first_seq_since(id, 10).await.unwrap(), Some(2));
    assert_eq!(store.first_seq_since(id, 21).await.unwrap(), None);
    assert_eq!(store.locate_node(names.guest, node.id).await.unwrap().len(), 1);
    assert_eq!(store.check_states(id).await.unwrap(), 0);
}

async fn the_trash_keeps_what_was(store: &dyn ContentStore, names: &Names) {
    let id = names.namespace.id;
    let link = NodeWrite { file_type: "symlink", link_target: Some(b"to\xff".into()), ..write(11, 11) };
    let inside = |node: u8, seq: u64, parent: u8| {
        let mut one = write(node, seq);
        let stamp = Stamp { counter: seq + 1, replica: ReplicaId::from_bytes([7; 16]) };
        one.state.move_to(Place { stamp, parent: NodeId::from_bytes([parent; 16]), name: Name::new("in").unwrap() });
        one
    };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let row = tx.namespace_for(id, names.owner).await.unwrap().unwrap();
    // 12 > 13 > 14 and 12 > 15 > 16; 15 lives, so what is below it is another matter. 17 and 18 stand in each other.
    let tree = [
        link,
        write(12, 12),
        inside(13, 13, 12),
        inside(14, 14, 13),
        inside(15, 15, 12),
        inside(16, 16, 15),
        inside(17, 17, 18),
        inside(18, 18, 17),
    ];
    tx.put_nodes(&row, &tree, 18, 18, 40).await.unwrap();
    let gone: Vec<NodeWrite> = tree
        .iter()
        .filter(|n| n.seq != 15)
        .map(|n| NodeWrite { seq: n.seq + 10, is_deleted: true, file_type: "deleted", link_target: None, ..n.clone() })
        .collect();
    tx.put_nodes(&row, &gone, 28, 18, 50).await.unwrap();
    tx.commit().await.unwrap();
    let below = async |node: u8, limit: usize| {
        let rows = store.deleted_below(id, NodeId::from_bytes([node; 16]), limit).await.unwrap();
        let mut ids: Vec<u8> = rows.iter().map(|r| r.row.id.as_bytes()[0]).collect();
        ids.sort();
        (ids, rows)
    };
    assert_eq!(below(12, 100).await.0, [12, 13, 14]);
    assert_eq!(below(12, 2).await.0.len(), 2);
    assert_eq!(below(15, 100).await.0, [0; 0], "it lives");
    assert_eq!(below(17, 100).await.0, [17, 18]);
    let link = below(11, 100).await.1.remove(0);
    assert_eq!((link.file_type.as_str(), link.link_target.as_deref(), link.row.seq), ("symlink", Some(&b"to\xff"[..]), 21));
    // Written again as something else, it is no link any more.
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_nodes(&row, &[write(11, 29)], 29, 18, 60).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { is_deleted: true, ..write(11, 30) }], 30, 18, 60).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(below(11, 100).await.1[0].link_target, None);
}

async fn skipped_numbers_are_known_from_given_ones(store: &dyn ContentStore, names: &Names) {
    let id = names.namespace.id;
    let run = ReplicaId::from_bytes([4; 16]);
    for (to, last) in [(1000, 1002), (5000, 5001)] {
        let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
        let row = tx.namespace_for(id, names.owner).await.unwrap().unwrap();
        tx.skip_numbers(&row, to, run).await.unwrap();
        let written: Vec<NodeWrite> = (to + 1..=last).map(|seq| write(seq as u8, seq)).collect();
        tx.put_nodes(&row, &written, last, 1, 30).await.unwrap();
        tx.commit().await.unwrap();
        let row = store.namespace_for(id, names.owner).await.unwrap().unwrap();
        assert_eq!((row.head_seq, row.run), (last, Some(run)));
    }
    for (since, is_known) in
        [(0, true), (30, true), (31, false), (999, false), (1000, true), (1002, true), (1003, false), (4999, false), (5001, true)]
    {
        assert_eq!(store.feed(id, since, 1, 1).await.unwrap().since_is_known, is_known, "{since}");
    }
}

/// Writers whose clocks disagree: nothing that changed since is passed over.
async fn a_time_finds_the_first_number_though_clocks_disagree(store: &dyn ContentStore, names: &Names) {
    let row = NamespaceRow { id: NamespaceId::from_bytes([0xC1; 16]), name: "clocks".into(), is_home: false, ..names.namespace.clone() };
    let mut tx = store.begin(Scope::Owner(names.owner)).await.unwrap();
    tx.create_namespace(&row, 1).await.unwrap();
    for (seq, now_ms) in [(1, 100), (2, 105), (3, 101), (4, 109), (5, 103), (6, 120)] {
        tx.put_nodes(&row, &[write(seq as u8, seq)], seq, 1, now_ms).await.unwrap();
    }
    tx.commit().await.unwrap();
    for (since_ms, first) in [(0, Some(1)), (101, Some(2)), (104, Some(2)), (106, Some(4)), (110, Some(6)), (121, None)] {
        assert_eq!(store.first_seq_since(row.id, since_ms).await.unwrap(), first, "{since_ms}");
    }
}

async fn chunks_and_versions(store: &dyn ContentStore, names: &Names) {
    let (a, b) = (ChunkRef { id: ChunkId::of(b"a"), len: 1 }, ChunkRef { id: ChunkId::of(b"bb"), len: 2 });
    let id = names.namespace.id;
    let pack = PackRow { id: PackId([4; 16]), length_bytes: 100, created_at_ms: 30 };
    let at = |chunk: ChunkRef, offset| ChunkLocation { id: chunk.id, len: chunk.len, pack: pack.id, offset };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.add_pack(pack, &[at(a, 37), at(b, 75)]).await.unwrap();
    assert_eq!(tx.lease_chunks(id, &[(a.id, 1), (b.id, 2), (a.id, 1)], 1000).await.unwrap(), 3);
    assert_eq!(tx.lease_chunks(id, &[(a.id, 1)], 500).await.unwrap(), 0);
    tx.add_usage(names.owner, 3).await.unwrap();
    tx.commit().await.unwrap();
    let held = store.held(id, &[a.id, b.id, ChunkId::of(b"no")]).await.unwrap();
    assert_eq!(held.len(), 2);
    assert_eq!(held[&a.id], HeldChunk { len: 1, refs: 0, is_damaged: false, lease_until_ms: 1000 });
    assert!(store.locate_chunks(id, &[a.id], true).await.unwrap().is_empty());
    assert_eq!(store.locate_chunks(id, &[a.id], false).await.unwrap()[&a.id], at(a, 37));
    assert!(store.held(NamespaceId::default(), &[a.id]).await.unwrap().is_empty());

    let replica = ReplicaId::from_bytes([7; 16]);
    let version = |number: u64, chunks: Vec<ChunkRef>| VersionWrite {
        row: VersionRow {
            version_id: [number as u8; 16],
            node: NodeId::from_bytes([1; 16]),
            number: 0,
            dot: Dot { replica, counter: number },
            hash: ContentHash::of(b"w"),
            size_bytes: 3,
            mtime_ns: -1,
            author_device: DeviceId::default(),
            author_name: "d".into(),
            wall_ms: 1,
            created_at_ms: 40,
            label: None,
        },
        chunks,
    };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.add_versions(id, &[version(1, vec![a, b, a]), version(2, vec![a])]).await.unwrap();
    tx.add_versions(id, &[version(2, vec![a]), version(1, vec![a, b, a])]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.held(id, &[a.id]).await.unwrap()[&a.id].refs, 3, "twice is once");
    let rows = store.versions(id, NodeId::from_bytes([1; 16])).await.unwrap();
    assert_eq!(rows.iter().map(|v| v.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(store.version_chunks(id, [1; 16]).await.unwrap(), [a, b, a]);
    assert_eq!(store.version(id, [2; 16]).await.unwrap().unwrap(), rows[0]);
    assert_eq!(store.version(NamespaceId::default(), [2; 16]).await.unwrap(), None);
    assert_eq!(store.check_rows().await.unwrap(), RowFaults::default());
}

async fn damage_and_sweep(store: &dyn ContentStore, names: &Names) {
    assert_eq!(store.sweep_held_until_ms().await.unwrap(), 0);
    // Each holder says for itself; nobody's end is another's.
    let (first, second) = ([1; 16], [2; 16]);
    for (holder, until_ms, held_ms) in [(first, 5_000, 5_000), (second, 9_000, 9_000), (first, 7_000, 9_000)] {
        store.hold_sweep(holder, until_ms).await.unwrap();
        assert_eq!(store.sweep_held_until_ms().await.unwrap(), held_ms);
    }
    store.release_sweep(second, 5_000).await.unwrap();
    assert_eq!(store.sweep_held_until_ms().await.unwrap(), 7_000);
    store.release_sweep(second, 7_001).await.unwrap();
    assert_eq!(store.sweep_held_until_ms().await.unwrap(), 0, "who went away without a word is forgotten");
    let shard = names.shard;
    let id = names.namespace.id;
    let (held, loose) = (ChunkId::of(b"a"), ChunkRef { id: ChunkId::of(b"loose"), len: 5 });
    let location = store.locate_chunks(id, &[held], true).await.unwrap()[&held];
    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    tx.mark_damaged(&[(location, "wrong bytes")], 50).await.unwrap();
    tx.mark_damaged(&[(ChunkLocation { pack: PackId([99; 16]), ..location }, "moved since")], 50).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.stored(id, &[held]).await.unwrap().is_empty() && store.held(id, &[held]).await.unwrap()[&held].is_damaged);
    let healed = PackRow { id: PackId([5; 16]), length_bytes: 80, created_at_ms: 60 };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let places = [ChunkLocation { pack: healed.id, ..location }, ChunkLocation { id: loose.id, len: 5, pack: healed.id, offset: 75 }];
    tx.add_pack(healed, &places).await.unwrap();
    tx.lease_chunks(id, &[(loose.id, 5)], 100).await.unwrap();
    tx.add_usage(names.owner, 5).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.locate_chunks(id, &[held], true).await.unwrap()[&held].pack, healed.id);

    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    assert_eq!(tx.drop_leases(100, 10).await.unwrap(), 0, "a lease counts until after its end");
    assert_eq!(tx.drop_leases(101, 10).await.unwrap(), 1);
    assert_eq!(tx.mark_orphans(101).await.unwrap(), 1);
    assert_eq!(tx.mark_orphans(102).await.unwrap(), 0);
    assert_eq!(tx.delete_orphans(101, 10).await.unwrap(), (0, 0), "not before the grace period");
    assert_eq!(tx.delete_empty_packs(1000, 10).await.unwrap(), [], "both packs have a chunk");
    tx.commit().await.unwrap();
    assert_eq!(store.quota(names.owner).await.unwrap(), Quota { used_bytes: 3, limit_bytes: Some(100) });
    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    assert_eq!(tx.delete_orphans(102, 10).await.unwrap(), (1, 5));
    assert_eq!(tx.delete_orphans(102, 10).await.unwrap(), (0, 0));
    tx.commit().await.unwrap();
    assert!(store.stored(id, &[loose.id]).await.unwrap().is_empty());
    assert_eq!(store.check_rows().await.unwrap(), RowFaults::default());
    assert_eq!(store.packs().await.unwrap().len(), 2);
}

async fn sparse_packs_are_emptied_and_retired(store: &dyn ContentStore, names: &Names) {
    let shard = names.shard;
    let chunk = |name: &[u8], pack: u8, offset| ChunkLocation { id: ChunkId::of(name), len: 100, pack: PackId([pack; 16]), offset };
    let pack = |id: u8, length_bytes, created_at_ms| PackRow { id: PackId([id; 16]), length_bytes, created_at_ms };
    let (one, two, three) = (chunk(b"one", 50, 37), chunk(b"two", 50, 174), chunk(b"three", 51, 37));
    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    tx.add_pack(pack(50, 549, 70), &[one, two]).await.unwrap();
    tx.add_pack(pack(51, 137, 70), &[three]).await.unwrap();
    for (before_ms, live_percent, is_sparse) in [(71, 50, true), (70, 50, false), (71, 49, false)] {
        let sparse = tx.sparse_packs(before_ms, live_percent, 10).await.unwrap();
        assert_eq!(sparse.contains(&(pack(50, 549, 70), 200)), is_sparse, "274 of 549 bytes live: {sparse:?}");
        assert!(sparse.iter().all(|(p, _)| p.id != three.pack));
    }
    tx.mark_damaged(&[(two, "wrong bytes")], 72).await.unwrap();
    assert!(tx.sparse_packs(71, 50, 10).await.unwrap().iter().all(|(p, _)| p.id != one.pack), "with a damaged chunk");
    tx.commit().await.unwrap();
    assert_eq!(store.pack_chunks(shard, PackId([50; 16])).await.unwrap(), [one, two]);
    // What is damaged, or stands elsewhere meanwhile, stays where it is.
    let to = |from: ChunkLocation, offset| ChunkLocation { pack: PackId([52; 16]), offset, ..from };
    let moves = [(to(one, 37), one.pack), (to(two, 174), two.pack), (to(three, 311), one.pack)];
    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    tx.move_chunks(pack(52, 411, 80), &moves, 80).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.pack_chunks(shard, PackId([50; 16])).await.unwrap(), [two]);
    assert_eq!(store.pack_chunks(shard, PackId([51; 16])).await.unwrap(), [three]);
    assert_eq!(store.pack_chunks(shard, PackId([52; 16])).await.unwrap(), [to(one, 37)]);
    // Emptied, a pack goes a grace period after that, not after it was stored.
    let mut tx = store.begin(Scope::Shard(shard)).await.unwrap();
    tx.move_chunks(pack(53, 137, 90), &[(ChunkLocation { pack: PackId([53; 16]), ..three }, three.pack)], 90).await.unwrap();
    assert_eq!(tx.delete_empty_packs(90, 10).await.unwrap(), []);
    assert_eq!(tx.delete_empty_packs(91, 10).await.unwrap(), [pack(51, 137, 70)]);
    drop(tx);
}

async fn packs_know_their_regions(store: &dyn ContentStore, names: &Names) {
    let at = |region: &str| std::collections::BTreeSet::from([region.to_owned()]);
    let ids = [60u8, 61, 62].map(|n| PackId([n; 16]));
    let mut tx = store.begin(Scope::Shard(names.shard)).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let chunk = ChunkLocation { id: ChunkId::of(&id.0), len: 3, pack: *id, offset: 37 };
        tx.add_pack(PackRow { id: *id, length_bytes: 40 + n as u64, created_at_ms: 300 - n as i64 }, &[chunk]).await.unwrap();
    }
    tx.set_copies(ids[1], &at("eu")).await.unwrap();
    tx.set_copies(ids[2], &at("us")).await.unwrap();
    tx.set_copies(ids[2], &at("eu")).await.unwrap();
    assert_eq!(tx.copies(&ids).await.unwrap(), [(ids[1], at("eu")), (ids[2], at("eu"))].into());
    assert!(matches!(tx.set_copies(PackId([99; 16]), &at("eu")).await, Err(StoreError::Conflict(_))), "a pack that is gone");
    drop(tx);
    let mut tx = store.begin(Scope::Shard(names.shard)).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let chunk = ChunkLocation { id: ChunkId::of(&id.0), len: 3, pack: *id, offset: 37 };
        tx.add_pack(PackRow { id: *id, length_bytes: 40 + n as u64, created_at_ms: 300 - n as i64 }, &[chunk]).await.unwrap();
    }
    let both = std::collections::BTreeSet::from(["eu".to_owned(), "us".to_owned()]);
    tx.set_copies(ids[1], &at("eu")).await.unwrap();
    tx.set_copies(ids[2], &both).await.unwrap();
    // The oldest first, and nothing young, long, empty or damaged.
    let small = |rows: Vec<PackRow>| rows.iter().map(|r| r.id.0[0]).filter(|n| (60..70).contains(n)).collect::<Vec<_>>();
    assert_eq!(small(tx.small_packs(301, 100, 100).await.unwrap()), [62, 61, 60]);
    assert_eq!(small(tx.small_packs(300, 42, 100).await.unwrap()), [61]);
    tx.mark_damaged(&[(ChunkLocation { id: ChunkId::of(&ids[1].0), len: 3, pack: ids[1], offset: 37 }, "missing")], 300).await.unwrap();
    assert_eq!(small(tx.small_packs(301, 100, 100).await.unwrap()), [62, 60]);
    tx.commit().await.unwrap();
    assert_eq!(store.copies(&ids).await.unwrap(), [(ids[1], at("eu")), (ids[2], both)].into());
    let found =
        async |region, or_unplaced, after: Option<PackId>, limit| small(store.packs_in(region, or_unplaced, after, limit).await.unwrap());
    assert_eq!(found("eu", false, None, 100).await, [61, 62]);
    assert_eq!(found("eu", false, Some(ids[1]), 100).await, [62]);
    assert_eq!(found("us", true, None, 100).await, [60, 62]);
    assert_eq!(store.packs_in("eu", false, None, 1).await.unwrap().len(), 1);
    let mut tx = store.begin(Scope::Shard(names.shard)).await.unwrap();
    tx.set_copies(ids[2], &Default::default()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(found("us", true, None, 100).await, [60, 62], "not placed any more");

    assert_eq!(store.home_region(names.owner).await.unwrap(), None);
    let mut tx = store.begin(Scope::Shard(names.shard)).await.unwrap();
    assert!(tx.set_home_region(names.owner, Some("eu")).await.unwrap());
    assert!(!tx.set_home_region(UserId::from_bytes([77; 16]), Some("eu")).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.home_region(names.owner).await.unwrap().as_deref(), Some("eu"));
    let mut tx = store.begin(Scope::Shard(names.shard)).await.unwrap();
    assert!(tx.set_home_region(names.owner, None).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.home_region(names.owner).await.unwrap(), None);
}

async fn commits_and_uploads(store: &dyn ContentStore, names: &Names) {
    let (id, commit) = (names.namespace.id, CommitId::from_bytes([1; 16]));
    let record = CommitRecord { digest: [1; 32], head_seq: 4, gapless: true };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let (second, other) = (CommitId::from_bytes([2; 16]), CommitRecord { digest: [2; 32], head_seq: 5, gapless: false });
    let records = [(names.owner, commit, record), (names.owner, second, other), (names.guest, second, record)];
    tx.add_commit_records(id, &records, 10).await.unwrap();
    let asked = [commit, second, CommitId::from_bytes([3; 16])];
    let of_owner = tx.commit_records(id, names.owner, &asked).await.unwrap();
    assert_eq!(of_owner, [(commit, record), (second, other)].into());
    let of_guest = tx.commit_records(id, names.guest, &asked).await.unwrap();
    assert_eq!(of_guest, [(second, record)].into(), "another user's key is another key");
    let upload = UploadRow {
        version_id: [8; 16],
        namespace: id,
        user: names.owner,
        node: NodeId::from_bytes([8; 16]),
        path: b"dir/\xff".to_vec(),
        below: Some(NodeId::from_bytes([3; 16])),
        hash: Some(ContentHash::of(b"u")),
        size_bytes: 9,
        mtime_ns: None,
        chunk_size_bytes: 4,
        num_chunks: 3,
        completed_at_ms: None,
        created_at_ms: 1,
        expires_at_ms: 100,
    };
    tx.put_upload(&upload).await.unwrap();
    let at_the_root = UploadRow { version_id: [9; 16], below: None, hash: None, ..upload.clone() };
    tx.put_upload(&at_the_root).await.unwrap();
    assert_eq!(tx.upload([9; 16]).await.unwrap(), Some(at_the_root));
    tx.delete_upload([9; 16]).await.unwrap();
    let chunk = |text: &[u8]| ChunkRef { id: ChunkId::of(text), len: text.len() as u32 };
    tx.put_upload_chunk([8; 16], 1, chunk(b"x")).await.unwrap();
    tx.put_upload_chunk([8; 16], 1, chunk(b"yy")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.upload(names.owner, [8; 16]).await.unwrap().unwrap(), upload);
    assert_eq!(store.upload_chunks(id, [8; 16]).await.unwrap(), [(1, chunk(b"yy"))].into());
    assert_eq!(store.upload_chunk_count(id, [8; 16]).await.unwrap(), 1);
    // Prolonged: with the leases of what has arrived and is held, and never to an earlier time.
    let held = ChunkRef { id: ChunkId::of(b"a"), len: 1 };
    let leases = async || store.held(id, &[held.id]).await.unwrap()[&held.id].lease_until_ms;
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_upload_chunk([8; 16], 0, held).await.unwrap();
    tx.prolong_upload([8; 16], 5000).await.unwrap();
    tx.prolong_upload([8; 16], 70).await.unwrap();
    assert_eq!(tx.upload([8; 16]).await.unwrap().unwrap().expires_at_ms, 5000);
    tx.commit().await.unwrap();
    assert_eq!((leases().await, store.upload_chunk_count(id, [8; 16]).await.unwrap()), (5000, 2));
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.complete_upload([8; 16], NodeId::from_bytes([1; 16]), ContentHash::of(b"whole"), 50).await.unwrap();
    tx.drop_expired(5000, 10).await.unwrap();
    let completed = tx.upload([8; 16]).await.unwrap().unwrap();
    assert_eq!((completed.completed_at_ms, completed.hash), (Some(50), Some(ContentHash::of(b"whole"))));
    assert_eq!(tx.commit_records(id, names.owner, &asked).await.unwrap().len(), 2);
    tx.drop_expired(5001, 11).await.unwrap();
    assert_eq!(tx.upload([8; 16]).await.unwrap(), None);
    assert!(tx.commit_records(id, names.owner, &asked).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert_eq!(totals(store).await.versions, 2);
}

async fn what_was_before_is_kept(store: &dyn ContentStore, names: &Names) {
    let (id, device, other) = (names.namespace.id, DeviceId::from_bytes([5; 16]), DeviceId::from_bytes([6; 16]));
    let dot = |counter| Dot { replica: ReplicaId::from_bytes([7; 16]), counter };
    let before = |kind, dot, copies| {
        let (name, link_target) = (Name::new(b"old\xff").unwrap(), Some(b"to".into()));
        Before { parent: NodeId::ROOT, name, kind, link_target, dot, copies }
    };
    let first = before(BeforeKind::File, Some(dot(9)), Some(vec![dot(3), dot(u64::MAX >> 1)]));
    let (second, third) = (before(BeforeKind::Deleted, None, None), before(BeforeKind::Directory, None, Some(vec![])));
    let row = store.namespace_for(id, names.owner).await.unwrap().unwrap();
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let one = |seq, by, before: &Before| NodeWrite { before: Some(before.clone()), changed_by: by, ..write(1, seq) };
    tx.put_nodes(&row, &[one(6000, Some(device), &first), write(2, 6001)], 6001, 1, 10_700).await.unwrap();
    tx.put_nodes(&row, &[one(6002, None, &second)], 6002, 1, 10_800).await.unwrap();
    tx.put_nodes(&row, &[one(6003, Some(other), &third)], 6003, 1, 10_900).await.unwrap();
    tx.commit().await.unwrap();
    let all = |since_ms| ChangesQuery { since_ms, by: None, after: None, limit_nodes: 10, limit_bytes: usize::MAX };
    let changed = store.changed_since(id, all(10_699)).await.unwrap();
    let told = |at: i64, by, before: &Before| Some(HistoryRow { changed_at_ms: at, changed_by: by, before: before.clone() });
    assert_eq!(changed.iter().map(|c| c.row.seq).collect::<Vec<_>>(), [6003, 6001]);
    let last = told(10_900, Some(other), &third);
    assert_eq!((&changed[0].first, &changed[0].last), (&told(10_700, Some(device), &first), &last));
    assert_eq!((&changed[1].first, &changed[1].last), (&None, &None));
    let later = store.changed_since(id, all(10_700)).await.unwrap();
    assert_eq!(later.into_iter().map(|c| (c.first, c.last)).collect::<Vec<_>>(), [(told(10_800, None, &second), last.clone())]);
    for (by, first) in [(device, told(10_700, Some(device), &first)), (other, last.clone()), (DeviceId::from_bytes([7; 16]), None)] {
        let by = &[by].into();
        let found = store.changed_since(id, ChangesQuery { by: Some(by), ..all(10_699) }).await.unwrap();
        assert_eq!((&found[0].first, &found[0].last), (&first, &last), "the first by one of them, the last by anybody");
    }
    // In pages, by number or by size, but never an empty one.
    for (limit_nodes, limit_bytes) in [(1, usize::MAX), (10, 1), (10, 0)] {
        let page = async |after| store.changed_since(id, ChangesQuery { after, limit_nodes, limit_bytes, ..all(10_699) }).await.unwrap();
        let limited = page(None).await;
        let rest = page(Some(limited[0].row.id)).await;
        assert_eq!((limited.len(), rest.len()), (1, 1));
        assert_eq!([limited, rest].concat(), changed);
        assert!(page(Some(changed[1].row.id)).await.is_empty());
    }
    assert!(store.changed_since(NamespaceId::default(), all(0)).await.unwrap().is_empty());
    assert!(store.authors(id).await.unwrap().iter().any(|a| a.device == device && a.user.is_none()));
    assert_eq!(store.history_since(id).await.unwrap(), 0, "from its beginning");
}

async fn rewinds_are_remembered(store: &dyn ContentStore, names: &Names) {
    let id = names.namespace.id;
    let rewind = RewindRow { id: [3; 16], digest: [4; 32], started_at_ms: 5, position: None, is_finished: false, counts: "{}".into() };
    assert_eq!(store.rewind(id, rewind.id).await.unwrap(), None);
    let begin = async |row: &RewindRow| {
        let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
        let stands = tx.begin_rewind(id, row).await.unwrap();
        tx.commit().await.unwrap();
        stands
    };
    let advance = async |row: &RewindRow, from| {
        let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
        let done = tx.advance_rewind(id, row, from).await.unwrap();
        tx.commit().await.unwrap();
        done
    };
    assert_eq!(begin(&rewind).await, rewind);
    let second = RewindRow { started_at_ms: 6, digest: [5; 32], ..rewind.clone() };
    assert_eq!(begin(&second).await, rewind, "the first one stands");
    let position = Some(NodeId::from_bytes([6; 16]));
    let further = RewindRow { position, counts: "{1}".into(), ..rewind.clone() };
    assert!(!advance(&further, position).await, "it does not stand there");
    assert_eq!(store.rewind(id, rewind.id).await.unwrap().as_ref(), Some(&rewind));
    assert!(advance(&further, None).await);
    assert!(!advance(&further, None).await, "twice is once");
    let finished = RewindRow { is_finished: true, ..further };
    assert!(advance(&finished, position).await);
    assert!(!advance(&RewindRow { is_finished: false, ..finished.clone() }, position).await, "what is done is done");
    assert_eq!(begin(&rewind).await, finished);
    assert_eq!(store.rewind(id, rewind.id).await.unwrap(), Some(finished));
}

async fn a_page_of_the_trash_counts_what_is_kept_only(store: &dyn ContentStore, names: &Names) {
    let id = names.namespace.id;
    let row = store.namespace_for(id, names.owner).await.unwrap().unwrap();
    let inside = |node: u8, seq: u64, parent: u8| {
        let mut one = NodeWrite { is_deleted: true, ..write(node, seq) };
        let stamp = Stamp { counter: seq + 1, replica: ReplicaId::from_bytes([7; 16]) };
        one.state.move_to(Place { stamp, parent: NodeId::from_bytes([parent; 16]), name: Name::new("in").unwrap() });
        one
    };
    // 31 > 32 > 33, and more in 31.
    let head = NodeWrite { is_deleted: true, ..write(31, 7000) };
    let tree: Vec<NodeWrite> = [head, inside(32, 7001, 31), inside(33, 7002, 32)]
        .into_iter()
        .chain((34..44).map(|n| inside(n, 7000 + u64::from(n), 31)))
        .collect();
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_nodes(&row, &tree, 7100, 1, 11_500).await.unwrap();
    let purged: Vec<(NodeId, u64)> = tree.iter().filter(|n| n.seq != 7002).map(|n| (n.id, n.seq)).collect();
    assert_eq!(tx.purge(&row, &purged, 11_600).await.unwrap().entries, 12);
    tx.commit().await.unwrap();
    let below = store.deleted_below(id, NodeId::from_bytes([31; 16]), 1).await.unwrap();
    assert_eq!(below.iter().map(|t| t.row.id).collect::<Vec<_>>(), [NodeId::from_bytes([33; 16])], "below what is purged too");
}

async fn what_is_lost_is_named_and_what_is_purged_is_gone(store: &dyn ContentStore, names: &Names) {
    let (id, node) = (names.namespace.id, NodeId::from_bytes([1; 16]));
    let versions = store.versions(id, node).await.unwrap();
    let named = store.version_chunks(id, versions[0].version_id).await.unwrap()[0];
    let at = store.locate_chunks(id, &[named.id], true).await.unwrap()[&named.id];
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.mark_damaged(&[(at, "missing")], 11_000).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.lacks_since(id).await.unwrap(), Some(11_000));
    assert_eq!(store.lacks_since(NamespaceId::default()).await.unwrap(), None);
    assert!(store.lacks(id, None, 10).await.unwrap().contains(&named.id));
    assert!(!store.lacks(id, Some(named.id), 10).await.unwrap().contains(&named.id));
    let (total, listed) = store.degraded_versions(1).await.unwrap();
    assert!(total >= 1 && listed.len() == 1 && listed[0].node == node && listed[0].namespace == id);

    let row = store.namespace_for(id, names.owner).await.unwrap().unwrap();
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { is_deleted: true, ..write(1, 6013) }], 6013, 1, 11_100).await.unwrap();
    let living = NodeId::from_bytes([2; 16]);
    // What changed since it was looked at stays: it may have been brought back and deleted again.
    for other in [6012, 6014] {
        assert_eq!(tx.purge(&row, &[(node, other)], 12_000).await.unwrap(), Purged::default());
    }
    let living_seq = store.nodes(id, &[living]).await.unwrap()[0].seq;
    let purged = tx.purge(&row, &[(node, 6013), (living, living_seq), (NodeId::from_bytes([99; 16]), 6013)], 12_000).await.unwrap();
    assert_eq!((purged.entries, purged.versions), (1, versions.len() as u64));
    assert_eq!(tx.purge(&row, &[(node, 6013)], 12_000).await.unwrap(), Purged::default(), "twice is once");
    tx.commit().await.unwrap();
    assert!(store.versions(id, node).await.unwrap().is_empty());
    assert!(store.deleted(id, u64::MAX >> 1, 100).await.unwrap().iter().all(|d| d.id != node));
    assert!(store.deleted_below(id, node, 100).await.unwrap().iter().all(|d| d.row.id != node));
    assert_eq!(store.lacks_since(id).await.unwrap(), None, "nothing names it any more");
    assert_eq!(store.check_rows().await.unwrap().refs_wrong, 0);
    // It lives again, and is then deleted as anything is.
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.put_nodes(&row, &[write(1, 6014)], 6014, 1, 12_100).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { is_deleted: true, ..write(1, 6015) }], 6015, 1, 12_200).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.deleted(id, u64::MAX >> 1, 100).await.unwrap().iter().any(|d| d.id == node));
}

on_each_kind!(content_is_kept_as_it_was_given);

async fn content_is_kept_as_it_was_given(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = kind.store(&dir).await;
    let names = names(&*db, &*db).await;
    namespaces_and_feeds(&*db, &names).await;
    the_trash_keeps_what_was(&*db, &names).await;
    skipped_numbers_are_known_from_given_ones(&*db, &names).await;
    a_time_finds_the_first_number_though_clocks_disagree(&*db, &names).await;
    chunks_and_versions(&*db, &names).await;
    damage_and_sweep(&*db, &names).await;
    commits_and_uploads(&*db, &names).await;
    packs_know_their_regions(&*db, &names).await;
    sparse_packs_are_emptied_and_retired(&*db, &names).await;
    what_was_before_is_kept(&*db, &names).await;
    rewinds_are_remembered(&*db, &names).await;
    dav_contract::locks_and_properties(&*db, names.namespace.id, names.owner).await;
    versions_contract::versions_one_by_one(&*db, &names.namespace, names.owner).await;
    what_is_lost_is_named_and_what_is_purged_is_gone(&*db, &names).await;
    a_page_of_the_trash_counts_what_is_kept_only(&*db, &names).await;
}
