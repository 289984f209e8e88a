//! Chunks: possession, quota, damage.

use crate::service::Kind;
use crate::service::content::testing::{World, collect, frames};
use crate::store::blob::BlobStore;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{ChunkFrame, CommitReply, Role};
use ferry_protocol::{ChunkId, NodeId};

fn ids(chunks: &[&[u8]]) -> Vec<ChunkId> {
    chunks.iter().map(|c| ChunkId::of(c)).collect()
}

on_each_store!(a_hash_is_never_a_capability);

async fn a_hash_is_never_a_capability(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(None).await, world.user(None).await);
    let (hers, his) = (world.home(&alice).await, world.home(&mal).await);
    world.add_file(&hers, &mut world.writer(&alice), "secret", b"secret").await;
    assert_eq!(world.content.missing_chunks(&his, &ids(&[b"secret"])).await.unwrap(), ids(&[b"secret"]));
    let mut writer = world.writer(&mal);
    let update = writer.file(NodeId::from_bytes(world.id()), "mine", &[b"secret"]);
    let request = world.request(vec![update], &[], 0);
    assert_eq!(world.content.commit(&his, request.clone()).await.unwrap(), CommitReply::MissingChunks(ids(&[b"secret"])));
    let got = collect(world.content.get_chunks(&his, ids(&[b"secret"])).await.unwrap()).await;
    assert_eq!(got, [None]);
    // With the bytes in hand it works, and they are stored once.
    world.content.put_chunks(&his, frames(&[b"secret"])).await.unwrap();
    assert!(matches!(world.content.commit(&his, request).await.unwrap(), CommitReply::Accepted { .. }));
    assert_eq!(world.content.storage_totals().await.unwrap().packs, 1);
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

on_each_store!(chunks_come_back_in_the_asked_order);

async fn chunks_come_back_in_the_asked_order(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    for (name, bytes) in [("a", &b"aaaa"[..]), ("b", b"bb"), ("c", b"cccccc")] {
        world.add_file(&home, &mut writer, name, bytes).await;
    }
    world.content.put_chunks(&home, frames(&[b"leased only"])).await.unwrap();
    let asked = ids(&[b"cccccc", b"nobody has this", b"aaaa", b"leased only", b"bb", b"aaaa"]);
    let got = collect(world.content.get_chunks(&home, asked).await.unwrap()).await;
    let text = |b: &[u8]| Some(b.to_vec());
    assert_eq!(got, [text(b"cccccc"), None, text(b"aaaa"), None, text(b"bb"), text(b"aaaa")]);
}

on_each_store!(one_wrong_hash_stores_nothing);

async fn one_wrong_hash_stores_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut body = frames(&[b"good"]).to_vec();
    body.extend_from_slice(&ChunkFrame::header(ChunkId::of(b"bad"), 4));
    body.extend_from_slice(b"evil");
    let refused = world.content.put_chunks(&home, body.into()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Invalid, "chunk_hash_mismatch"));
    for cut in [frames(&[b"good"]).slice(..40), ChunkFrame::absent(ChunkId::default()).to_vec().into()] {
        assert_eq!(world.content.put_chunks(&home, cut).await.unwrap_err().kind(), Kind::Malformed);
    }
    assert_eq!(world.content.storage_totals().await.unwrap().chunks, 0);
    assert_eq!(world.content.meta.quota(alice.user_id).await.unwrap().used_bytes, 0);
    assert!(world.blobs.list().await.unwrap().is_empty());
}

on_each_store!(the_quota_is_exact_and_counts_each_chunk_once);

async fn the_quota_is_exact_and_counts_each_chunk_once(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(Some(10)).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "a", b"12345").await;
    world.add_file(&home, &mut writer, "same again", b"12345").await;
    assert_eq!(world.content.meta.quota(alice.user_id).await.unwrap().used_bytes, 5);
    let over = world.content.put_chunks(&home, frames(&[b"123456"])).await.unwrap_err();
    assert_eq!((over.kind(), over.code()), (Kind::TooLarge, "quota_exceeded"));
    assert_eq!(over.extra()["needed_bytes"], 6);
    // A chunk that is held already takes nothing.
    world.content.put_chunks(&home, frames(&[b"12345", b"54321"])).await.unwrap();
    assert_eq!(world.content.meta.quota(alice.user_id).await.unwrap().used_bytes, 10);
    let update = writer.file(NodeId::from_bytes(world.id()), "b", &[b"1"]);
    let over = world.content.commit(&home, world.request(vec![update], &[b"1"], u64::MAX)).await.unwrap_err();
    assert_eq!(over.code(), "quota_exceeded");
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
    // Who is only a guest spends the owner's room.
    let guest = world.user(None).await;
    let shared = world.share(&home, &guest, Role::Editor).await;
    assert_eq!(world.content.put_chunks(&shared, frames(&[b"x"])).await.unwrap_err().code(), "quota_exceeded");
}

on_each_store!(parallel_uploads_cannot_pass_the_quota_together);

async fn parallel_uploads_cannot_pass_the_quota_together(kind: Db) {
    let world = std::sync::Arc::new(World::on(kind).await);
    let alice = world.user(Some(50)).await;
    let home = world.home(&alice).await;
    let tasks: Vec<_> = (0..20u8)
        .map(|i| {
            let (world, home) = (world.clone(), home.clone());
            tokio::spawn(async move { world.content.put_chunks(&home, frames(&[&[i; 10]])).await.is_ok() })
        })
        .collect();
    let mut stored = 0;
    for task in tasks {
        stored += usize::from(task.await.unwrap());
    }
    assert_eq!(stored, 5);
    assert_eq!(world.content.meta.quota(alice.user_id).await.unwrap().used_bytes, 50);
    assert_eq!(world.blobs.list().await.unwrap().len(), 5);
}

on_each_store!(a_damaged_chunk_is_not_served_and_heals);

async fn a_damaged_chunk_is_not_served_and_heals(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "a", b"precious").await;
    let pack = world.blobs.list().await.unwrap()[0].id;
    assert!(world.blobs.damage(pack, |bytes| *bytes.last_mut().unwrap() ^= 1));
    let wanted = ids(&[b"precious"]);
    assert_eq!(collect(world.content.get_chunks(&home, wanted.clone()).await.unwrap()).await, [None]);
    assert_eq!(world.content.storage_totals().await.unwrap().damaged_chunks, 1);
    assert_eq!(world.content.missing_chunks(&home, &wanted).await.unwrap(), wanted);
    world.content.put_chunks(&home, frames(&[b"precious"])).await.unwrap();
    assert_eq!(collect(world.content.get_chunks(&home, wanted).await.unwrap()).await, [Some(b"precious".to_vec())]);
    assert_eq!(world.content.storage_totals().await.unwrap().damaged_chunks, 0);
}

on_each_store!(a_short_or_missing_pack_is_absence);

async fn a_short_or_missing_pack_is_absence(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let nodes =
        vec![writer.file(NodeId::from_bytes(world.id()), "a", &[b"first"]), writer.file(NodeId::from_bytes(world.id()), "b", &[b"second"])];
    world.content.commit(&home, world.request(nodes, &[b"first", b"second"], 0)).await.unwrap();
    let pack = world.blobs.list().await.unwrap()[0].id;
    assert!(world.blobs.damage(pack, |bytes| bytes.truncate(bytes.len() - 1)));
    let got = collect(world.content.get_chunks(&home, ids(&[b"first", b"second"])).await.unwrap()).await;
    assert_eq!(got, [Some(b"first".to_vec()), None]);
    world.blobs.delete(pack).await.unwrap();
    let got = collect(world.content.get_chunks(&home, ids(&[b"first"])).await.unwrap()).await;
    assert_eq!(got, [None]);
}

/// R55, I13: addresses of the object store are made for what a version of the namespace names, for members, and only where they are turned on.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn addresses_of_chunks_are_for_members_and_committed_chunks_only() {
    use crate::service::content::ContentConfig;
    let server = crate::store::blob_s3::testing::S3Server::start().await;
    let mut world = World::new().await;
    let store = std::sync::Arc::new(server.open("").await);
    world.content = world.process(store.clone(), ContentConfig::default()).await;
    let (alice, mal) = (world.user(None).await, world.user(None).await);
    let (hers, his) = (world.home(&alice).await, world.home(&mal).await);
    world.add_file(&hers, &mut world.writer(&alice), "secret", b"secret").await;
    world.content.put_chunks(&hers, frames(&[b"not committed"])).await.unwrap();
    let wanted = ids(&[b"secret", b"not committed", b"unknown"]);
    let off = world.content.sign_chunks(&hers, &wanted).await.unwrap_err();
    assert_eq!((off.kind(), off.code()), (Kind::NotFound, "presign_off"));
    world.content = world.process(store, ContentConfig { presign: true, ..ContentConfig::default() }).await;
    let signed = world.content.sign_chunks(&hers, &wanted).await.unwrap();
    assert_eq!(signed.iter().map(|s| (s.id, s.len)).collect::<Vec<_>>(), [(ChunkId::of(b"secret"), 6)]);
    crate::install_tls_provider();
    let mut request = reqwest::Client::new().get(&signed[0].read.url);
    for (name, value) in &signed[0].read.headers {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.unwrap().bytes().await.unwrap(), &b"secret"[..]);
    assert!(world.content.sign_chunks(&his, &wanted).await.unwrap().is_empty());
    let many = vec![ChunkId::of(b"secret"); 1001];
    assert_eq!(world.content.sign_chunks(&hers, &many).await.unwrap_err().kind(), Kind::TooLarge);
    // A store that only the relay can read gives none.
    let alone = world.process(world.blobs.clone(), ContentConfig { presign: true, ..ContentConfig::default() }).await;
    assert!(alone.sign_chunks(&hers, &wanted).await.unwrap().is_empty());
}
