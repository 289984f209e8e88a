//! Many at once: the sweep beside uploaders, the same bytes from several, more requests than connections to the database.

use crate::clock::Clock;
use crate::service::Kind;
use crate::service::content::ContentConfig;
use crate::service::content::testing::{World, Writer, collect, frames};
use crate::store::blob::BlobStore;
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::wire::{CommitReply, Role};
use ferry_protocol::{ChunkId, NodeId, ReplicaId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const GRACE_MS: i64 = 1000;
/// Who works beside the sweep, and how far the clock may go while each of them does one turn.
const PEOPLE: usize = 4;
const TURN_MS: i64 = 25_000;

on_each_kind!(the_same_chunk_from_many_at_once_is_stored_once_and_right);

/// R28, X08: the same bytes from several at once, some of them wrong, are stored once and right.
async fn the_same_chunk_from_many_at_once_is_stored_once_and_right(kind: Db) {
    let world = Arc::new(World::on(kind).await);
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let tasks: Vec<_> = (0..24u8)
        .map(|i| {
            let (world, home) = (world.clone(), home.clone());
            tokio::spawn(async move {
                let mut body = frames(&[b"the same"]).to_vec();
                if i % 3 == 0 {
                    *body.last_mut().unwrap() ^= 1;
                }
                world.content.put_chunks(&home, body.into()).await.map_err(|e| e.code())
            })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), if i % 3 == 0 { Err("chunk_hash_mismatch") } else { Ok(1) });
    }
    assert_eq!(world.content.storage_totals().await.unwrap().chunks, 1);
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, 8);
    assert!(world.content.verify(true).await.unwrap().is_sound());
    // Packs that came second are no more than what the sweep removes.
    world.clock.advance_ms(25 * 60 * 60 * 1000);
    world.add_file(&home, &mut world.writer(&alice), "f", b"the same").await;
    world.content.sweep(false).await.unwrap();
    assert_eq!(world.blobs.list().await.unwrap().len(), 1);
}

on_each_kind!(chunks_that_went_between_question_and_commit_are_asked_for_again);

/// H12: what was there when a device asked, and is gone when it commits, is named, and nothing is committed.
async fn chunks_that_went_between_question_and_commit_are_asked_for_again(kind: Db) {
    let world = World::with_on(kind, ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let wanted = [ChunkId::of(b"one"), ChunkId::of(b"two")];
    world.content.put_chunks(&home, frames(&[b"one", b"two"])).await.unwrap();
    assert!(world.content.missing_chunks(&home, &wanted).await.unwrap().is_empty());
    for _ in 0..2 {
        world.clock.advance_ms(GRACE_MS + 1);
        world.content.sweep(false).await.unwrap();
    }
    for chunks in [&[&b"one"[..]][..], &[b"one", b"two"]] {
        let update = world.writer(&alice).file(NodeId::from_bytes(world.id()), "f", chunks);
        let request = world.request(vec![update], &[], 0);
        let CommitReply::MissingChunks(mut missing) = world.content.commit(&home, request.clone()).await.unwrap() else { panic!() };
        missing.sort();
        let mut named: Vec<ChunkId> = chunks.iter().map(|c| ChunkId::of(c)).collect();
        named.sort();
        assert_eq!(missing, named);
        assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 0);
    }
    world.content.put_chunks(&home, frames(&[b"one", b"two"])).await.unwrap();
    let update = world.writer(&alice).file(NodeId::from_bytes(world.id()), "f", &[b"one", b"two"]);
    let reply = world.content.commit(&home, world.request(vec![update], &[], 0)).await.unwrap();
    assert!(matches!(reply, CommitReply::Accepted { .. }));
}

on_each_kind!(a_commit_id_of_another_user_is_another);

/// R32: a commit's id is its user's; the same of another is another.
async fn a_commit_id_of_another_user_is_another(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let home = world.home(&alice).await;
    let shared = world.share(&home, &bob, Role::Editor).await;
    let of_alice = world.request(vec![world.writer(&alice).file(NodeId::from_bytes(world.id()), "a", &[b"x"])], &[b"x"], 0);
    let mut of_bob = world.request(vec![world.writer(&bob).file(NodeId::from_bytes(world.id()), "b", &[b"x"])], &[b"x"], 0);
    of_bob.commit = of_alice.commit;
    let first = world.content.commit(&home, of_alice.clone()).await.unwrap();
    let second = world.content.commit(&shared, of_bob.clone()).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(world.content.commit(&home, of_alice).await.unwrap(), first);
    assert_eq!(world.content.commit(&shared, of_bob).await.unwrap(), second);
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 2);
}

on_each_kind!(the_sweep_beside_everybody_takes_nothing_that_is_needed, flavor = "multi_thread", worker_threads = 2);

/// X13: uploads, commits, deletions, restores and readers beside a sweep that never rests. The grace period is longer than any of them takes: time goes on
/// by turns, since who waits on a slow machine would outlive a period that is counted in sweeps.
async fn the_sweep_beside_everybody_takes_nothing_that_is_needed(kind: Db) {
    let world = Arc::new(World::with_on(kind, ContentConfig { grace_ms: 60_000, ..ContentConfig::default() }).await);
    let done = Arc::new(AtomicBool::new(false));
    let turn = Arc::new(AtomicI64::new(0));
    let next_turn = Arc::new(Barrier::new(PEOPLE));
    let sweeper = {
        let (world, done, turn) = (world.clone(), done.clone(), turn.clone());
        tokio::spawn(async move {
            let (mut rewritten, mut at_ms) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                if at_ms < (turn.load(Ordering::Relaxed) + 1) * TURN_MS {
                    at_ms += 5_000;
                    world.clock.advance_ms(5_000);
                }
                rewritten += world.content.sweep(false).await.unwrap().packs_rewritten;
                tokio::task::yield_now().await;
            }
            rewritten
        })
    };
    let mut people = JoinSet::new();
    for person in 0..PEOPLE as u8 {
        let caller = world.user(None).await;
        let (world, turn, next_turn) = (world.clone(), turn.clone(), next_turn.clone());
        people.spawn(async move {
            let home = world.home(&caller).await;
            let mut writer = world.writer(&caller);
            let mut files: Vec<(NodeId, Vec<u8>)> = Vec::new();
            for i in 0..12u8 {
                // Shared by all, one's own, and one that no commit will name.
                let (shared, own, loose) = (vec![i; 300], vec![person, i, 1], vec![person, i, 2, 7]);
                world.content.put_chunks(&home, frames(&[&shared, &own, &loose])).await.unwrap();
                let file = world.add_file(&home, &mut writer, &format!("{i} shared"), &shared).await.0;
                files.push((file, shared));
                files.push((world.add_file(&home, &mut writer, &format!("{i} own"), &own).await.0, own));
                let (old, bytes) = &files[usize::from(i) / 2];
                world.content.delete_file(&home, *old, None).await.unwrap();
                world.content.restore(&home, *old).await.unwrap();
                let got = collect(world.content.get_chunks(&home, vec![ChunkId::of(bytes)]).await.unwrap()).await;
                assert_eq!(got, [Some(bytes.clone())]);
                if next_turn.wait().await.is_leader() {
                    turn.fetch_add(1, Ordering::Relaxed);
                }
            }
            (home, files)
        });
    }
    let mut all = Vec::new();
    while let Some(person) = people.join_next().await {
        all.push(person.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    let mut rewritten = sweeper.await.unwrap();
    for _ in 0..4 {
        world.clock.advance_ms(61_000);
        rewritten += world.content.sweep(false).await.unwrap().packs_rewritten;
    }
    assert!(rewritten > 0, "packs were rewritten under readers");
    let report = world.content.verify(true).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    for (home, files) in all {
        let ids: Vec<ChunkId> = files.iter().map(|(_, bytes)| ChunkId::of(bytes)).collect();
        let got = collect(world.content.get_chunks(&home, ids).await.unwrap()).await;
        assert!(got.iter().zip(&files).all(|(got, (_, bytes))| got.as_ref() == Some(bytes)));
    }
    assert_eq!(world.content.storage_totals().await.unwrap().orphaned_chunks, 0);
}

on_each_kind!(more_requests_than_connections_are_all_answered, flavor = "multi_thread", worker_threads = 2);

/// Q07: many more requests than connections to the database: each is answered, or told to come back; none waits for another for ever.
async fn more_requests_than_connections_are_all_answered(kind: Db) {
    let world = Arc::new(World::on(kind).await);
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let tasks: Vec<_> = (0..200u32)
        .map(|i| {
            let (world, home) = (world.clone(), home.clone());
            tokio::spawn(async move {
                let replica = ReplicaId::from_bytes(world.id());
                let mut writer = Writer { replica, device: home.caller().device_id.unwrap(), counter: 0 };
                let bytes = i.to_le_bytes();
                let update = writer.file(NodeId::from_bytes(world.id()), &format!("f{i}"), &[&bytes]);
                let written = world.content.commit(&home, world.request(vec![update], &[&bytes], 0)).await;
                let read = world.content.feed(&home, 0, None, 1000).await.map(|page| page.head);
                written.map(|_| ()).and(read.map(|_| ()))
            })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => accepted += 1,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
        }
    }
    assert!(accepted > 0);
    assert!(world.clock.now_ms() > 0 && world.content.verify(true).await.unwrap().is_sound());
}
