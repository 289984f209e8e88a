//! Several processes on one PostgreSQL: they share a run, a copy of the database begins another, and a pool that is too small makes them wait.

use crate::service::Kind;
use crate::service::content::testing::{World, Writer};
use crate::service::content::{Content, Entry};
use crate::store::MetaStore;
use crate::store::postgres::{Postgres, Settings};
use crate::store::testing::{cluster, settings};
use ferry_protocol::wire::CommitReply;
use ferry_protocol::{NodeId, ReplicaId};
use std::sync::Arc;
use std::time::Duration;

async fn open(url: &str, settings: &Settings) -> Arc<dyn MetaStore> {
    Arc::new(Postgres::open(url, &[], &[], settings).await.unwrap())
}

/// A world on a database of this address.
async fn world_at(url: &str) -> World {
    let mut world = World::new().await;
    world.db = open(url, &settings()).await;
    world.content = world.second(world.db.clone()).await;
    world
}

async fn commit(content: &Arc<Content>, world: &World, home: &Entry, name: &str) -> u64 {
    let mut writer = world.writer(home.caller());
    let update = writer.file(NodeId::from_bytes(world.id()), name, &[name.as_bytes()]);
    match content.commit(home, world.request(vec![update], &[name.as_bytes()], u64::MAX)).await.unwrap() {
        CommitReply::Accepted { head_seq, .. } => head_seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_database_share_a_run_and_its_numbers() {
    let url = cluster().database();
    let world = Arc::new(world_at(&url).await);
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let second = world.second(open(&url, &settings()).await).await;
    assert_eq!(second.identity(), world.content.identity());
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let content = if n % 2 == 0 { world.content.clone() } else { second.clone() };
            let (world, home) = (world.clone(), home.clone());
            tokio::spawn(async move { commit(&content, &world, &home, &format!("f{n}")).await })
        })
        .collect();
    let mut heads = Vec::new();
    for task in tasks {
        heads.push(task.await.unwrap());
    }
    heads.sort_unstable();
    assert_eq!(heads, (1..=24).collect::<Vec<u64>>(), "no gap between two processes of one run");
    assert_eq!(second.feed(&home, 0, None, 100).await.unwrap().nodes.len(), 24);
    assert!(second.verify(true).await.unwrap().is_sound());
}

/// ADR 0004: a database that was copied, or brought back to a point in time, is another one; whoever writes in it begins a new run, and every process follows.
#[tokio::test]
async fn a_copy_of_the_database_begins_a_run_of_its_own() {
    let url = cluster().database();
    let world = world_at(&url).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    assert_eq!(commit(&world.content, &world, &home, "before").await, 1);
    let before = world.content.identity();
    world.db.close().await;
    let name = url.rsplit('/').next().unwrap();
    cluster().sql("postgres", &format!("CREATE DATABASE {name}_copy TEMPLATE {name}"));
    let copy = world_at(&format!("{url}_copy")).await;
    let home = Entry { caller: alice, row: home.row.clone(), within: home.within.clone(), only: None };
    let head = commit(&copy.content, &copy, &home, "after").await;
    assert!(head > 1 << 28, "{head}");
    let after = copy.content.identity();
    assert_eq!(after.epoch, before.epoch, "what devices have read is still good");
    assert_ne!(after.replica, before.replica);
    assert_eq!(copy.content.feed(&home, 1, Some(after.epoch), 10).await.unwrap().nodes.len(), 1);
    assert_eq!(copy.content.feed(&home, 2, Some(after.epoch), 10).await.unwrap_err().kind(), Kind::Gone, "a number of the lost life");
    // The original, served again, is what it was.
    let again = world_at(&url).await;
    assert_eq!(again.content.identity(), before);
    assert_eq!(commit(&again.content, &again, &home, "after all").await, 2);
}

/// `storage new-epoch` beside running relays: the next write of each finds the new epoch.
#[tokio::test]
async fn a_new_epoch_reaches_processes_that_are_running() {
    let url = cluster().database();
    let world = world_at(&url).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let second = world.second(open(&url, &settings()).await).await;
    let epoch = second.renew_identity().await.unwrap();
    let mut writer = world.writer(&alice);
    let update = writer.file(NodeId::from_bytes(world.id()), "f", &[b"f"]);
    let reply = world.content.commit(&home, world.request(vec![update], &[b"f"], 0)).await.unwrap();
    assert_eq!(reply, CommitReply::EpochChanged(epoch));
    assert_eq!(world.content.identity().epoch, epoch);
}

/// Q07: a pool of two connections and 200 requests: each is answered, or told to come back; none waits for another for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_two_serves_two_hundred() {
    let url = cluster().database();
    let mut world = world_at(&url).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.db.close().await;
    world.db = open(&url, &Settings { pool_size: 2, acquire_timeout: Duration::from_secs(5), ..settings() }).await;
    world.content = world.second(world.db.clone()).await;
    let world = Arc::new(world);
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
            Err(error) => assert_eq!((error.kind(), error.retry_after_s()), (Kind::Unavailable, Some(1)), "{error}"),
        }
    }
    assert!(accepted > 0);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

/// The databases of a relay know their places: another order, a shard left out, a shard of another relay are refused at the start.
#[tokio::test]
async fn shards_know_their_number_and_their_relay() {
    let urls = [cluster().database(), cluster().database(), cluster().database()];
    let open = async |url: &str, shards: &[&String]| {
        let shards: Vec<String> = shards.iter().map(|s| (*s).clone()).collect();
        Postgres::open(url, &shards, &[], &settings()).await.err().map(|e| e.to_string())
    };
    let mut world = World::new().await;
    world.db = Arc::new(Postgres::open(&urls[0], &urls[1..], &[], &settings()).await.unwrap());
    world.content = world.second(world.db.clone()).await;
    let mut shards = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let user = world.user(None).await;
        world.home(&user).await;
        shards.insert(world.db.shard_of(user.user_id).await.unwrap().0);
    }
    assert_eq!(shards, [1, 2].into(), "new users stand beside the directory");
    let totals = world.content.shard_totals().await.unwrap();
    assert_eq!(totals.iter().map(|t| (t.shard.0, t.users, t.totals.namespaces)).collect::<Vec<_>>()[0], (0, 0, 0));
    assert_eq!(totals.iter().map(|t| t.users).sum::<u64>(), 6);
    assert!(totals.iter().all(|t| t.users == t.totals.namespaces));
    assert!(open(&urls[0], &[&urls[2], &urls[1]]).await.unwrap().contains("order"));
    assert!(open(&urls[0], &[&urls[1]]).await.unwrap().contains("shard 2"));
    assert!(open(&cluster().database(), &[&urls[1]]).await.unwrap().contains("another relay"));
    assert_eq!(open(&urls[0], &[&urls[1], &urls[2]]).await, None);
}

/// A streaming replica answers what may be old, and nothing else; when it is gone the primary does.
#[tokio::test]
async fn a_replica_is_asked_for_what_may_be_old() {
    let primary = crate::store::testing::server::Cluster::start();
    let url = primary.database();
    drop(open(&url, &settings()).await);
    let replica = primary.replica();
    let name = url.rsplit('/').next().unwrap();
    let store = Postgres::open(&url, &[], &[replica.url(name)], &settings()).await.unwrap();
    let mut world = World::new().await;
    world.db = Arc::new(store);
    world.content = world.second(world.db.clone()).await;
    let one = world.user(None).await;
    let listed = async || world.db.users("", 10).await.unwrap().len();
    // It follows.
    let mut seen = 0;
    for _ in 0..100_000 {
        seen = listed().await;
        if seen == 1 {
            break;
        }
    }
    assert_eq!(seen, 1);
    replica.sql(name, "SELECT pg_wal_replay_pause()");
    let two = world.user(None).await;
    assert_eq!(listed().await, 1, "the list is of the replica");
    for user in [one, two] {
        assert!(world.db.user(user.user_id).await.unwrap().is_some(), "one user is asked of the primary: one's own writes are there");
    }
    let home = world.home(&two).await;
    assert_eq!(commit(&world.content, &world, &home, "f").await, 1);
    assert_eq!(world.content.feed(&home, 0, None, 10).await.unwrap().head, 1);
    replica.crash();
    assert_eq!(listed().await, 2, "the replica is gone, and nobody minds");
}

/// A transaction that holds what a request needs makes it wait, then come back: it is never answered as if it were done.
#[tokio::test]
async fn what_another_transaction_holds_is_waited_for_and_then_told() {
    let url = cluster().database();
    let world = world_at(&url).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let short = Settings { lock_timeout: Duration::from_millis(50), ..settings() };
    let hasty = world.second(open(&url, &short).await).await;
    let held = world.db.begin(crate::store::content::Scope::Namespace(home.namespace())).await.unwrap();
    let mut writer = world.writer(&alice);
    let update = writer.file(NodeId::from_bytes(world.id()), "f", &[b"f"]);
    let request = world.request(vec![update], &[b"f"], 0);
    let error = hasty.commit(&home, request.clone()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "contended"));
    drop(held);
    assert!(matches!(hasty.commit(&home, request).await.unwrap(), CommitReply::Accepted { head_seq: 1, .. }));
}
