//! Small packs do not become many objects for ever: the sweep merges them, and no crash on the way loses anything.

use crate::service::content::testing::{Frail, World, collect, frames};
use crate::service::content::{ContentConfig, Entry};
use crate::store::content::Scope;
use ferry_protocol::ChunkId;
use std::sync::atomic::Ordering;

const GRACE_MS: i64 = 1000;

fn config() -> ContentConfig {
    ContentConfig { grace_ms: GRACE_MS, merge_from_packs: 4, ..ContentConfig::default() }
}

fn edit(number: usize) -> Vec<u8> {
    format!("edit {number}").into_bytes()
}

/// A world with so many commits of one small file each, old enough to be merged.
async fn edited(count: usize) -> (World, Entry) {
    let world = World::with(config()).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    for number in 0..count {
        world.add_file(&home, &mut writer, &format!("f{number}"), &edit(number)).await;
    }
    world.clock.advance_ms(GRACE_MS + 1);
    (world, home)
}

async fn all_there(world: &World, home: &Entry, count: usize) {
    let ids = (0..count).map(|n| ChunkId::of(&edit(n))).collect();
    let got = collect(world.content.get_chunks(home, ids).await.unwrap()).await;
    assert_eq!(got, (0..count).map(|n| Some(edit(n))).collect::<Vec<_>>());
    let report = world.content.verify(true).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

async fn objects(world: &World) -> usize {
    use crate::store::blob::BlobStore;
    world.blobs.list().await.unwrap().len()
}

#[tokio::test]
async fn many_small_commits_become_few_objects() {
    let (world, home) = edited(40).await;
    assert_eq!(objects(&world).await, 40);
    let used = world.content.usage(home.caller()).await.unwrap().used_bytes;
    let rehearsal = world.content.sweep(true).await.unwrap();
    let report = world.content.sweep(false).await.unwrap();
    assert_eq!((report.packs_merged, rehearsal.packs_merged), (40, 40));
    assert_eq!(objects(&world).await, 41, "the old ones stay for their readers");
    all_there(&world, &home, 40).await;
    world.clock.advance_ms(GRACE_MS + 1);
    let report = world.content.sweep(false).await.unwrap();
    assert_eq!((report.packs_merged, report.packs_deleted), (0, 40), "one pack is not merged with itself");
    assert_eq!(objects(&world).await, 1);
    all_there(&world, &home, 40).await;
    assert_eq!(world.content.usage(home.caller()).await.unwrap().used_bytes, used);
}

#[tokio::test]
async fn few_small_packs_wait_for_more() {
    let (world, home) = edited(3).await;
    assert_eq!(world.content.sweep(false).await.unwrap().packs_merged, 0);
    world.content.put_chunks(&home, frames(&[&vec![7; 2 * 1024 * 1024]])).await.unwrap();
    world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(world.content.sweep(false).await.unwrap().packs_merged, 0, "a large one does not count");
    all_there(&world, &home, 3).await;
}

#[tokio::test]
async fn a_crash_while_merging_loses_nothing_and_the_next_sweep_goes_on() {
    let (mut world, home) = edited(10).await;
    let frail = Frail::over(&world.blobs);
    world.content = world.process(frail.clone(), config()).await;
    // The blob of the merged pack is there, its rows are not.
    frail.dies_after_put.store(true, Ordering::SeqCst);
    world.content.sweep(false).await.unwrap_err();
    assert_eq!((objects(&world).await, world.content.storage_totals().await.unwrap().packs), (11, 10));
    all_there(&world, &home, 10).await;
    assert_eq!(world.content.sweep(false).await.unwrap().packs_merged, 10);
    all_there(&world, &home, 10).await;
    // The rows of the old packs are gone, their blobs are not.
    world.clock.advance_ms(GRACE_MS + 1);
    let mut tx = world.content.meta.begin(Scope::Shard(world.content.meta.shards()[0])).await.unwrap();
    assert_eq!(tx.delete_empty_packs(i64::MAX, 100).await.unwrap().len(), 10);
    tx.commit().await.unwrap();
    assert_eq!(objects(&world).await, 12);
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 11, "ten old ones and what the crash left");
    assert_eq!(objects(&world).await, 1);
    all_there(&world, &home, 10).await;
}

#[tokio::test]
async fn a_chunk_that_is_damaged_keeps_its_pack_apart() {
    use crate::store::blob::BlobStore;
    let (world, home) = edited(6).await;
    let bad = world.content.meta.locate_chunks(home.namespace(), &[ChunkId::of(&edit(2))], true).await.unwrap()[&ChunkId::of(&edit(2))];
    world.blobs.damage(bad.pack, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(world.content.sweep(false).await.unwrap().packs_merged, 5);
    assert!(world.blobs.list().await.unwrap().iter().any(|b| b.id == bad.pack));
    world.content.put_chunks(&home, frames(&[&edit(2)])).await.unwrap();
    all_there(&world, &home, 6).await;
}
