//! What the relay has lost: it says so, asks for it, and takes it back.

use crate::service::content::testing::{World, collect, frames};
use crate::store::blob::BlobStore;
use crate::store::bus::{Heard, Wake};
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::ChunkId;
use ferry_protocol::wire::CommitReply;

on_each_store!(lost_packs_are_found_named_and_healed);

async fn lost_packs_are_found_named_and_healed(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let (hers, his) = (world.home(&alice).await, world.home(&bob).await);
    let (mut writer, mut other) = (world.writer(&alice), world.writer(&bob));
    world.add_file(&hers, &mut writer, "kept", b"kept").await;
    let kept = world.blobs.list().await.unwrap()[0].id;
    let (lost, _) = world.add_file(&hers, &mut writer, "lost", b"lost").await;
    world.add_file(&his, &mut other, "his", b"his own").await;
    // Held, and named by no version: nobody is asked for it.
    world.content.put_chunks(&hers, frames(&[b"leased"])).await.unwrap();
    assert_eq!(world.content.find_lost_packs().await.unwrap(), 0);
    assert_eq!(world.content.lacks_since(&hers).await.unwrap(), None);
    for blob in world.blobs.list().await.unwrap() {
        let is_his = world.content.standing_in(blob.id).await.unwrap()[0].id == ChunkId::of(b"his own");
        if blob.id != kept && !is_his {
            world.blobs.delete(blob.id).await.unwrap();
        }
    }
    world.clock.advance_ms(7);
    assert_eq!(world.content.find_lost_packs().await.unwrap(), 2);
    assert_eq!(world.content.lacks_since(&hers).await.unwrap(), Some(super::super::testing::START_MS + 7));
    assert_eq!(world.content.lacks(&hers, None, 10).await.unwrap(), [ChunkId::of(b"lost")]);
    assert!(world.content.lacks(&hers, Some(ChunkId::of(b"lost")), 10).await.unwrap().is_empty());
    // It is nobody else's affair (I13).
    assert_eq!(world.content.lacks_since(&his).await.unwrap(), None);
    assert!(world.content.lacks(&his, None, 10).await.unwrap().is_empty());
    let report = world.content.verify(false).await.unwrap();
    assert_eq!((report.versions_degraded, report.packs_wrong), (1, 2));
    let line = &report.degraded_versions[0];
    assert_eq!((line.file_name.as_str(), line.file_id.as_str(), line.version_number), ("lost", lost.to_string().as_str(), 1));

    // A commit that needs it is told so, not refused for ever.
    let update = writer.file(ferry_protocol::NodeId::from_bytes(world.id()), "again", &[b"lost"]);
    let request = world.request(vec![update], &[], u64::MAX);
    let missing = CommitReply::MissingChunks(vec![ChunkId::of(b"lost")]);
    assert_eq!(world.content.commit(&hers, request.clone()).await.unwrap(), missing);
    world.content.put_chunks(&hers, frames(&[b"lost"])).await.unwrap();
    assert!(matches!(world.content.commit(&hers, request).await.unwrap(), CommitReply::Accepted { .. }));
    assert_eq!(world.content.lacks_since(&hers).await.unwrap(), None);
    let got = collect(world.content.get_chunks(&hers, vec![ChunkId::of(b"lost")]).await.unwrap()).await;
    assert_eq!(got, [Some(b"lost".to_vec())]);
    assert_eq!(world.content.verify(true).await.unwrap().versions_degraded, 0);
}

on_each_store!(a_read_that_finds_nothing_wakes_the_devices);

/// Whoever finds out at a read wakes those who may have the bytes.
async fn a_read_that_finds_nothing_wakes_the_devices(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.add_file(&home, &mut world.writer(&alice), "lost", b"lost").await;
    let mut wakes = world.content.subscribe();
    let id = ChunkId::of(b"lost");
    assert_eq!(collect(world.content.get_chunks(&home, vec![id]).await.unwrap()).await, [Some(b"lost".to_vec())]);
    assert!(wakes.next_now().is_none(), "nothing is lost");
    let blob = world.blobs.list().await.unwrap()[0].id;
    world.blobs.delete(blob).await.unwrap();
    assert_eq!(collect(world.content.get_chunks(&home, vec![id]).await.unwrap()).await, [None]);
    assert_eq!(wakes.next().await, Some(Heard::Wake(Wake::feed(home.namespace(), 0))));
    assert_eq!(world.content.lacks(&home, None, 10).await.unwrap(), [id]);
}
