//! Moving a user to another shard: everything goes along, nobody notices, and a process that dies in the middle of it loses nothing (ADR 0007).

use super::super::testing::{World, Writer, collect, frames};
use super::super::{Content, Entry, MoveReport, MoveStep, MoveWish, NewUpload, UploadBegun};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::MetaStore;
use crate::store::blob::BlobStore;
use crate::store::content::{ChangesQuery, PackId, Scope, Shard};
use crate::store::moves::MoveRow;
use crate::store::postgres::Postgres;
use crate::store::testing::{Db, cluster, settings};
use bytes::Bytes;
use ferry_protocol::wire::{CommitReply, Role};
use ferry_protocol::{ChunkId, ContentHash, NamespaceId, NodeId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// A world on a directory and three shards beside it, and another process of the same relay.
struct Relay {
    world: World,
    second: Arc<Content>,
}

async fn relay() -> Relay {
    let urls = [(); 4].map(|()| cluster().database());
    let open = async || {
        let store: Arc<dyn MetaStore> = Arc::new(Postgres::open(&urls[0], &urls[1..], &[], &settings()).await.unwrap());
        store
    };
    let mut world = World::new().await;
    world.db = open().await;
    world.content = world.second(world.db.clone()).await;
    let second = world.second(open().await).await;
    Relay { world, second }
}

impl Relay {
    async fn place(&self, caller: &Caller) -> u16 {
        self.world.db.shard_of(caller.user_id).await.unwrap().0
    }

    /// A shard beside the directory in which the user is not.
    async fn elsewhere(&self, caller: &Caller) -> u16 {
        self.place(caller).await % 3 + 1
    }

    async fn go(&self, caller: &Caller, to: u16) -> ServiceResult<MoveReport> {
        self.go_until(caller, to, u32::MAX).await
    }

    /// Moves, and dies after so many steps.
    async fn go_until(&self, caller: &Caller, to: u16, steps: u32) -> ServiceResult<MoveReport> {
        let wish = MoveWish { user: caller.user_id, to: Shard(to), pause_max: Duration::from_secs(60), settle: Duration::ZERO };
        let mut left = steps;
        let mut told = |_: MoveStep| {
            let is_dead = left == 0;
            left = left.saturating_sub(1);
            if is_dead { Err(died()) } else { Ok(()) }
        };
        self.world.content.move_user(&wish, &mut told).await
    }

    /// All that a user can see, as text: what two databases must agree on.
    async fn portrait(&self, caller: &Caller) -> String {
        let (mut text, db) = (String::new(), &self.world.db);
        for row in db.namespaces_of(caller.user_id).await.unwrap() {
            let all = db.all_nodes(row.id).await.unwrap();
            writeln!(text, "{row:?}\n{:?}\n{:?}", db.members(row.id).await.unwrap(), all).unwrap();
            let mut chunks = Vec::new();
            for node in &all.nodes {
                for version in db.versions(row.id, node.id).await.unwrap() {
                    let parts = db.version_chunks(row.id, version.version_id).await.unwrap();
                    chunks.extend(parts.iter().map(|c| c.id));
                    writeln!(text, "{version:?} {parts:?}").unwrap();
                }
            }
            let changed = db
                .changed_since(row.id, ChangesQuery { since_ms: i64::MIN, by: None, after: None, limit_nodes: 1000, limit_bytes: 1 << 20 })
                .await
                .unwrap();
            writeln!(text, "{changed:?} {}", db.history_since(row.id).await.unwrap()).unwrap();
            writeln!(text, "{:?} {:?}", db.held(row.id, &chunks).await.unwrap(), db.lacks(row.id, None, 1000).await.unwrap()).unwrap();
            let entry = self.world.content.enter(caller, row.id, Role::Viewer).await.unwrap();
            let bytes = collect(self.world.content.get_chunks(&entry, chunks).await.unwrap()).await;
            writeln!(text, "{bytes:?}").unwrap();
        }
        writeln!(text, "{:?}", db.quota(caller.user_id).await.unwrap()).unwrap();
        text
    }

    /// How many namespaces each shard has, the directory first.
    async fn namespaces(&self) -> Vec<u64> {
        self.world.content.shard_totals().await.unwrap().iter().map(|s| s.totals.namespaces).collect()
    }

    async fn must_be_sound(&self) {
        let report = self.world.content.verify(true).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}

fn died() -> ServiceError {
    ServiceError::internal("died")
}

async fn add(content: &Content, world: &World, home: &Entry, writer: &mut Writer, name: &str) -> ServiceResult<u64> {
    let update = writer.file(NodeId::from_bytes(world.id()), name, &[name.as_bytes(), b"the same in all"]);
    match content.commit(home, world.request(vec![update], &[name.as_bytes(), b"the same in all"], u64::MAX)).await? {
        CommitReply::Accepted { head_seq, .. } => Ok(head_seq),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_moves_with_all_that_is_theirs_and_nobody_notices() {
    let relay = relay().await;
    let Relay { world, second } = &relay;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let home = world.home(&alice).await;
    let shared = world.share(&home, &bob, Role::Editor).await;
    let mut writer = world.writer(&alice);
    let (node, _) = world.add_file(&home, &mut writer, "first", b"one").await;
    add(second, world, &home, &mut writer, "second").await.unwrap();
    let other = world.content.create_namespace(&alice, None, "Photos").await.unwrap();
    let photos = world.content.enter(&alice, other.id, Role::Owner).await.unwrap();
    world.add_file(&photos, &mut writer, "a photo", b"bytes of a photo").await;
    let (gone, _) = world.add_file(&photos, &mut writer, "gone", b"deleted").await;
    world.content.delete_file(&photos, gone, None).await.unwrap();
    world.content.put_chunks(&home, frames(&[b"leased"])).await.unwrap();
    // An upload that is under way, and a commit whose answer did not arrive.
    let upload = NewUpload {
        file_name: "up".into(),
        directory: String::new(),
        namespace: None,
        size_bytes: 5,
        hash: Some(ContentHash::of(b"hello")),
        mtime_ns: None,
    };
    let UploadBegun::Begun(upload) = world.content.begin_upload(&alice, &upload).await.unwrap() else { panic!() };
    let request = world.request(vec![writer.file(NodeId::from_bytes(world.id()), "twice", &[b"twice"])], &[b"twice"], u64::MAX);
    let answer = world.content.commit(&home, request.clone()).await.unwrap();
    let before = relay.portrait(&alice).await;
    let cursor = world.content.feed(&home, 0, None, 2).await.unwrap();
    let (from, to) = (relay.place(&alice).await, relay.elsewhere(&alice).await);

    let rehearsed = world.content.rehearse_move(alice.user_id, Shard(to)).await.unwrap();
    assert_eq!(relay.portrait(&alice).await, before);
    assert_eq!(world.content.unfinished_moves().await.unwrap(), []);
    let report = relay.go(&alice, to).await.unwrap();
    assert_eq!((report.from, report.to, report.namespaces), (from, to, 2));
    assert_eq!((report.rows, report.chunks, report.chunk_bytes), (rehearsed.rows, rehearsed.chunks, rehearsed.chunk_bytes));
    assert!(report.rows > 20 && report.chunks == 7, "{report:?}");

    assert_eq!(relay.portrait(&alice).await, before);
    assert_eq!(relay.place(&alice).await, to);
    assert_eq!(relay.namespaces().await[usize::from(to)], 2);
    assert_eq!(relay.namespaces().await[usize::from(from)], 0, "nothing is left behind");
    assert_eq!(world.content.unfinished_moves().await.unwrap(), []);
    // Cursors, the answer to a commit, the upload: all of them go on, in both processes.
    for content in [&world.content, second] {
        let home = content.enter(&alice, home.namespace(), Role::Owner).await.unwrap();
        let page = content.feed(&home, cursor.cursor, Some(cursor.epoch), 100).await.unwrap();
        assert_eq!(page.nodes.len(), 1, "{page:?}");
        assert_eq!(content.commit(&home, request.clone()).await.unwrap(), answer);
    }
    second.put_upload_chunk(&alice, upload.version_id, 0, Bytes::from_static(b"hello"), None).await.unwrap();
    assert_eq!(world.content.complete_upload(&alice, upload.version_id, None).await.unwrap().version_id, upload.version_id);
    for (content, entry, caller) in [(&world.content, &home, &alice), (second, &shared, &bob)] {
        add(content, world, entry, &mut world.writer(caller), "after").await.unwrap();
    }
    assert_eq!(second.file_versions(&home, node).await.unwrap().len(), 1);
    // The old shard's sweep takes what nobody needs there, and nothing of ours.
    world.clock.advance_ms(1);
    world.content.sweep(false).await.unwrap();
    world.clock.advance_ms(25 * 3600 * 1000);
    world.content.sweep(false).await.unwrap();
    world.clock.advance_ms(25 * 3600 * 1000);
    world.content.sweep(false).await.unwrap();
    let totals = world.content.shard_totals().await.unwrap();
    assert_eq!((totals[usize::from(from)].totals.chunks, totals[usize::from(from)].users), (0, u64::from(relay.place(&bob).await == from)));
    relay.must_be_sound().await;
    // Once more is nothing, and there and back is what it was.
    let now = relay.portrait(&alice).await;
    assert_eq!(relay.go(&alice, to).await.unwrap().rows, 0);
    relay.go(&alice, from).await.unwrap();
    assert_eq!(relay.portrait(&alice).await, now);
    relay.go(&alice, 0).await.unwrap();
    assert_eq!(relay.portrait(&alice).await, now, "the directory's own database is a shard like another");
    relay.go(&alice, from).await.unwrap();
    assert_eq!(relay.portrait(&alice).await, now);
}

/// What cannot be moved, and to where nothing can be moved, is said; nothing has changed.
#[tokio::test]
async fn what_cannot_be_moved_is_said() {
    let relay = relay().await;
    let alice = relay.world.user(None).await;
    relay.world.home(&alice).await;
    assert_eq!(relay.go(&alice, 9).await.unwrap_err().code(), "no_such_shard");
    let nobody = Caller { user_id: ferry_protocol::UserId::from_bytes([9; 16]), ..alice };
    assert_eq!(relay.go(&nobody, 1).await.unwrap_err().kind(), Kind::NotFound);
    let moves = relay.second.meta.moves().unwrap();
    let alone = moves.alone().await.unwrap().unwrap();
    assert_eq!(relay.go(&alice, relay.elsewhere(&alice).await).await.unwrap_err().code(), "moves_busy");
    assert_eq!(relay.world.content.hold_moves().await.err().unwrap().code(), "moves_busy", "nor is a backup begun");
    drop(alone);
    assert!(relay.world.content.hold_moves().await.unwrap().is_some());
    let single = World::on(Db::Sqlite).await;
    let user = single.user(None).await;
    assert_eq!(single.content.rehearse_move(user.user_id, Shard(0)).await.unwrap_err().code(), "one_shard");
    let one = World::on(Db::Postgres).await;
    let user = one.user(None).await;
    assert_eq!(one.content.rehearse_move(user.user_id, Shard(0)).await.unwrap_err().code(), "one_shard");
}

/// Chunks whose bytes are lost stay lost, and asked for; a device that sends them heals them where the user is now.
#[tokio::test]
async fn what_is_damaged_moves_as_damaged_and_is_healed_there() {
    let relay = relay().await;
    let world = &relay.world;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "lost", b"lost").await;
    let lost: Vec<PackId> = world.blobs.list().await.unwrap().iter().map(|b| b.id).collect();
    world.add_file(&home, &mut writer, "kept", b"kept").await;
    for pack in lost {
        world.blobs.damage(pack, |bytes| bytes.iter_mut().for_each(|b| *b ^= 1));
    }
    let report = relay.go(&alice, relay.elsewhere(&alice).await).await.unwrap();
    assert_eq!((report.chunks, report.chunks_damaged), (1, 1));
    assert_eq!(world.content.lacks(&home, None, 10).await.unwrap(), [ChunkId::of(b"lost")]);
    world.content.put_chunks(&home, frames(&[b"lost"])).await.unwrap();
    assert!(world.content.lacks(&home, None, 10).await.unwrap().is_empty());
    let read = collect(world.content.get_chunks(&home, vec![ChunkId::of(b"lost"), ChunkId::of(b"kept")]).await.unwrap()).await;
    assert_eq!(read, [Some(b"lost".to_vec()), Some(b"kept".to_vec())]);
    // What was there damaged before is healed by a move that brings good bytes.
    let bob = world.user(None).await;
    relay.go(&bob, relay.place(&alice).await).await.unwrap();
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

/// A process that dies while writers are kept out holds them up for a time that ends by itself; then they go on where the user still is.
#[tokio::test]
async fn writers_are_kept_out_for_a_time_that_ends_by_itself() {
    let relay = relay().await;
    let Relay { world, second } = &relay;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "a", b"a").await;
    let (from, to) = (Shard(relay.place(&alice).await), Shard(relay.elsewhere(&alice).await));
    let row = MoveRow { user: alice.user_id, from, to, is_switched: false, started_at_ms: 0 };
    let moves = world.db.moves().unwrap();
    moves.note(row.user, from, to, 0).await.unwrap();
    assert!(moves.bring(&row, home.namespace()).await.is_err(), "its chunk is not there yet");
    let until_ms = moves.hold(&row, 3_600_000).await.unwrap();
    for content in [&world.content, second] {
        let error = add(content, world, &home, &mut writer, "b").await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after_s()), (Kind::Unavailable, Some(1)));
        assert_eq!(content.create_namespace(&alice, None, "New").await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(content.feed(&home, 0, None, 10).await.unwrap().nodes.len(), 1, "readers go on");
    }
    // The time has come: a time that is over.
    assert!(moves.hold(&row, -1).await.unwrap() < until_ms);
    assert_eq!(add(second, world, &home, &mut writer, "b").await.unwrap(), 2);
    // Nobody is led anywhere by whoever believes that writers were kept out since.
    assert_eq!(moves.switch(&row, until_ms).await.unwrap(), crate::store::moves::Switched::Lapsed);
    relay.go(&alice, to.0).await.unwrap();
    let home = second.enter(&alice, home.namespace(), Role::Owner).await.unwrap();
    assert_eq!(second.feed(&home, 0, None, 10).await.unwrap().nodes.len(), 2);
    assert_eq!(relay.place(&alice).await, to.0);
    relay.must_be_sound().await;
}

/// A time that is too short for what is to be copied is said, and writers are let in at once.
#[tokio::test]
async fn a_pause_that_is_too_short_changes_nothing() {
    let relay = relay().await;
    let world = &relay.world;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.add_file(&home, &mut world.writer(&alice), "a", b"a").await;
    let from = relay.place(&alice).await;
    let to = Shard(relay.elsewhere(&alice).await);
    let wish = MoveWish { user: alice.user_id, to, pause_max: Duration::ZERO, settle: Duration::ZERO };
    assert_eq!(world.content.move_user(&wish, &mut |_| Ok(())).await.unwrap_err().code(), "pause_too_short");
    add(&world.content, world, &home, &mut world.writer(&alice), "b").await.unwrap();
    assert_eq!(world.content.unfinished_moves().await.unwrap().len(), 1);
    // Back to where it is: what was left is taken away.
    assert_eq!(relay.go(&alice, from).await.unwrap().rows, 0);
    assert_eq!(relay.namespaces().await.iter().sum::<u64>(), 1);
    assert_eq!(world.content.unfinished_moves().await.unwrap(), []);
}

/// Whatever fails while writers are kept out, they are let in at once, where the user still is: they do not wait for the end of the pause.
#[tokio::test]
async fn a_failure_in_the_pause_lets_writers_in_at_once() {
    let relay = relay().await;
    let world = &relay.world;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "0", b"0").await;
    let (from, to) = (relay.place(&alice).await, relay.elsewhere(&alice).await);
    let places = world.db.shard_totals().await.unwrap();
    let sql = |shard: u16, sql: &str| {
        let place = &places.iter().find(|s| s.shard == Shard(shard)).unwrap().place;
        cluster().sql(place.rsplit('/').next().unwrap(), sql)
    };
    let wish = MoveWish { user: alice.user_id, to: Shard(to), pause_max: Duration::from_secs(3600), settle: Duration::ZERO };
    // The new shard fails; then the pause is not the one any more that was begun.
    for (name, shard, breaks, mends) in [
        ("1", to, "ALTER TABLE files RENAME TO gone", "ALTER TABLE gone RENAME TO files"),
        ("2", from, "UPDATE owners SET moving_until = moving_until + 1 WHERE moving_to IS NOT NULL", "SELECT 1"),
    ] {
        let mut told = |step: MoveStep| {
            if matches!(step, MoveStep::Held) {
                sql(shard, breaks);
            }
            Ok(())
        };
        world.content.move_user(&wish, &mut told).await.unwrap_err();
        sql(shard, mends);
        assert_eq!(relay.place(&alice).await, from);
        add(&world.content, world, &home, &mut writer, name).await.unwrap();
        world.content.create_namespace(&alice, None, name).await.unwrap();
    }
    relay.go(&alice, to).await.unwrap();
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().nodes.len(), 3);
    relay.must_be_sound().await;
}

/// A user who is deleted in the middle of a move leaves nothing in either shard.
#[tokio::test]
async fn a_user_who_is_deleted_meanwhile_is_gone_everywhere() {
    let relay = relay().await;
    let world = &relay.world;
    for steps in 0..9 {
        let alice = world.user(None).await;
        let home = world.home(&alice).await;
        world.add_file(&home, &mut world.writer(&alice), "a", b"a").await;
        let to = relay.elsewhere(&alice).await;
        assert!(relay.go_until(&alice, to, steps).await.is_err() || steps > 7, "{steps}");
        assert!(world.db.delete_user(alice.user_id).await.unwrap());
        assert_eq!(relay.go(&alice, to).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(relay.namespaces().await.iter().sum::<u64>(), 0, "after {steps} steps");
        assert_eq!(world.content.unfinished_moves().await.unwrap(), []);
    }
}

/// Writers in both processes while the user goes round: every commit that was accepted is there once, with the number that it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_a_user_moves_is_there_once() {
    let relay = Arc::new(relay().await);
    let alice = relay.world.user(None).await;
    let home = relay.world.home(&alice).await;
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let (relay, home) = (relay.clone(), home.clone());
            tokio::spawn(async move {
                let content = if n == 0 { &relay.world.content } else { &relay.second };
                let (mut writer, mut accepted) = (relay.world.writer(home.caller()), BTreeMap::new());
                while accepted.len() < 15 {
                    let name = format!("{n}-{}", accepted.len());
                    match add(content, &relay.world, &home, &mut writer, &name).await {
                        Ok(seq) => _ = accepted.insert(seq, name),
                        Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
                accepted
            })
        })
        .collect();
    let mut to = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        to = (to + 1) % 4;
        relay.go(&alice, to).await.unwrap();
    }
    relay.go(&alice, 1).await.unwrap();
    let mut accepted = BTreeMap::new();
    for task in tasks {
        for (seq, name) in task.await.unwrap() {
            assert_eq!(accepted.insert(seq, name), None, "a number that was given twice");
        }
    }
    let slice = relay.world.db.all_nodes(home.namespace()).await.unwrap();
    let found: BTreeMap<u64, String> = slice.nodes.iter().map(|n| (n.seq, n.state.places()[0].name.to_string())).collect();
    assert_eq!(found, accepted);
    assert_eq!(relay.namespaces().await, [0, 1, 0, 0]);
    relay.must_be_sound().await;
}

/// What happens in one generated life of a user.
#[derive(Debug, Clone)]
enum Event {
    /// A move to this shard that dies after so many steps.
    Dies { to: u16, steps: u32 },
    /// A commit in one of the processes, in one of the namespaces.
    Writes { in_second: bool, is_home: bool },
    /// A sweep, a day later.
    Sweeps,
}

fn life() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0u16..4, 0u32..12).prop_map(|(to, steps)| Event::Dies { to, steps }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(in_second, is_home)| Event::Writes { in_second, is_home }),
        1 => Just(Event::Sweeps),
    ];
    proptest::collection::vec(event, 1..12)
}

/// Lets the time of a move that has died be over, as waiting for it would.
async fn let_time_pass(relay: &Relay) {
    let moves = relay.world.db.moves().unwrap();
    for row in moves.noted().await.unwrap().iter().filter(|row| !row.is_switched) {
        moves.hold(row, -1).await.unwrap();
    }
}

async fn lives(relay: &Relay, events: &[Event]) {
    let Relay { world, second } = relay;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let other = world.content.create_namespace(&alice, None, "Other").await.unwrap();
    let other = world.content.enter(&alice, other.id, Role::Owner).await.unwrap();
    let mut writer = world.writer(&alice);
    let mut expected: BTreeMap<(NamespaceId, u64), String> = BTreeMap::new();
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::Dies { to, steps } => _ = relay.go_until(&alice, *to, *steps).await,
            Event::Writes { in_second, is_home } => {
                let_time_pass(relay).await;
                let (content, entry) = (if *in_second { second } else { &world.content }, if *is_home { &home } else { &other });
                let name = format!("file {n}");
                let seq = add(content, world, entry, &mut writer, &name).await.unwrap();
                expected.insert((entry.namespace(), seq), name);
            }
            Event::Sweeps => {
                world.clock.advance_ms(25 * 3600 * 1000);
                world.content.sweep(false).await.unwrap();
            }
        }
        // Whatever has happened: all is there, once, for both.
        for db in [&world.content.meta, &second.meta] {
            let mut found = BTreeMap::new();
            for row in db.namespaces_of(alice.user_id).await.unwrap() {
                for node in db.all_nodes(row.id).await.unwrap().nodes {
                    found.insert((row.id, node.seq), node.state.places()[0].name.to_string());
                }
            }
            assert_eq!(found, expected);
        }
    }
    let before = relay.portrait(&alice).await;
    let to = relay.elsewhere(&alice).await;
    relay.go(&alice, to).await.unwrap();
    assert_eq!(relay.portrait(&alice).await, before);
    let others = relay.namespaces().await;
    assert_eq!((others[usize::from(to)], others.iter().sum::<u64>()), (2, 2), "nothing is left behind");
    assert_eq!(world.content.unfinished_moves().await.unwrap(), []);
    relay.must_be_sound().await;
    assert!(world.db.delete_user(alice.user_id).await.unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Killed anywhere, again and again, between writes: the next run goes on or goes back, and nothing is lost or doubled.
    #[test]
    fn a_move_that_is_killed_anywhere_loses_and_doubles_nothing(events in life()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { lives(&relay().await, &events).await });
    }
}

/// The scope says where a transaction works: a shard that the user has left gives nobody a place to write.
#[tokio::test]
async fn nobody_writes_where_the_user_was() {
    let relay = relay().await;
    let Relay { world, second } = &relay;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    // Both processes remember the place.
    for content in [&world.content, second] {
        content.feed(&home, 0, None, 1).await.unwrap();
    }
    relay.go(&alice, relay.elsewhere(&alice).await).await.unwrap();
    let mut tx = second.meta.begin(Scope::Namespace(home.namespace())).await.unwrap();
    assert!(tx.namespace_for(home.namespace(), alice.user_id).await.unwrap().is_some());
    tx.rollback().await.unwrap();
    second.create_namespace(&alice, None, "New").await.unwrap();
    assert_eq!(relay.namespaces().await.iter().filter(|n| **n > 0).count(), 1);
}

/// A shard that is drained takes nobody: not while its users go, and not after, in every process, until it is opened again.
#[tokio::test]
async fn nobody_new_is_placed_in_a_closed_shard() {
    let relay = relay().await;
    let Relay { world, second } = &relay;
    let places = async || {
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let user = world.user(None).await;
            world.home(&user).await;
            places.insert(relay.place(&user).await);
        }
        places
    };
    // By ids that say nothing, each is as likely as another.
    assert_eq!(places().await, [1, 2, 3].into());
    second.close_shard(Shard(2), true).await.unwrap();
    assert_eq!(places().await, [1, 3].into());
    second.close_shard(Shard(2), true).await.unwrap();
    assert_eq!(world.content.closed_shards().await.unwrap(), [Shard(2)].into(), "twice is once");
    // Those who are there stay, and what they make stands there.
    let alice = world.user(None).await;
    relay.go(&alice, 2).await.unwrap();
    let before = relay.namespaces().await[2];
    second.create_namespace(&alice, None, "New").await.unwrap();
    assert_eq!(relay.namespaces().await[2], before + 1);
    for shard in [1, 3] {
        second.close_shard(Shard(shard), true).await.unwrap();
    }
    assert_eq!(places().await, [0].into());
    assert_eq!(second.close_shard(Shard(0), true).await.unwrap_err().code(), "last_shard");
    assert_eq!(second.close_shard(Shard(9), true).await.unwrap_err().code(), "no_such_shard");
    second.close_shard(Shard(2), false).await.unwrap();
    assert_eq!(places().await, [2].into());
}

/// Whoever has closed a shard sees all that were placed there before: one that is being placed at that moment is waited for.
#[tokio::test]
async fn closing_waits_for_whoever_is_being_placed() {
    let relay = relay().await;
    let Relay { world, second } = &relay;
    let moves = second.meta.moves().unwrap();
    let add = async { futures_util::future::join_all((0..12).map(|_| world.user(None))).await };
    let close = async {
        moves.set_closed(Shard(1), true, 0).await.unwrap();
        second.users_in(Shard(1)).await.unwrap()
    };
    let (_, seen) = tokio::join!(add, close);
    assert_eq!(second.users_in(Shard(1)).await.unwrap(), seen);
}
