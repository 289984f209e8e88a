//! What S3 adds to the contract: faults between the relay and the server, large packs in parts, listings in pages, sentences at the start.

use super::testing::{ACCESS, BUCKET, Fault, S3Server, SECRET, key, quick};
use super::{S3Blobs, S3Tuning};
use crate::config::S3Key;
use crate::store::StoreError;
use crate::store::blob::BlobStore;
use crate::store::content::PackId;
use bytes::Bytes;
use std::time::Duration;

fn bytes(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[7] ^ seed).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn a_fault_on_the_way_is_tried_again_and_nothing_is_lost() {
    let server = S3Server::start().await;
    let store = server.open("").await;
    let faults = [
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "SlowDown"),
        Fault::Refuse(502, "BadGateway"),
        Fault::Drop,
        Fault::DropAnswer,
        Fault::Stall,
        Fault::Truncate,
    ];
    for (number, fault) in (0u8..).zip(&faults) {
        let (id, content) = (PackId([number; 16]), bytes(100_000, number));
        if *fault != Fault::Truncate {
            server.plan("PUT /chunks/", fault, 2);
        }
        store.put(id, vec![content.slice(..70_000), content.slice(70_000..)]).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        server.plan("GET /chunks/", fault, 2);
        let read = store.read(id, 10, 99_000).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(read.unwrap(), content.slice(10..99_010), "{fault:?}");
        assert!(server.is_over(), "{fault:?}");
    }
    assert_eq!(store.list().await.unwrap().len(), faults.len());
}

#[tokio::test]
async fn what_does_not_go_away_is_an_error_and_leaves_nothing_half() {
    let server = S3Server::start().await;
    let store = server.open("").await;
    let id = PackId([1; 16]);
    for fault in [Fault::Refuse(503, "SlowDown"), Fault::Drop, Fault::Stall, Fault::Refuse(403, "AccessDenied")] {
        server.plan("PUT /chunks/", &fault, 3);
        let error = store.put(id, vec![bytes(1000, 1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error}");
        server.planned_away();
        assert_eq!(store.read(id, 0, 1).await.unwrap(), None, "{fault:?}");
    }
    server.plan("PUT /chunks/", &Fault::Refuse(507, "InsufficientStorage"), 3);
    assert!(matches!(store.put(id, vec![bytes(1000, 1)]).await.unwrap_err(), StoreError::Full(_)));
    server.planned_away();
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn only_what_the_server_calls_absent_is_absent() {
    let server = S3Server::start().await;
    let store = server.open("").await;
    let id = PackId([1; 16]);
    store.put(id, vec![bytes(10, 1)]).await.unwrap();
    let page = Fault::Answer(404, "<html>no such page</html>".into());
    for fault in [page, Fault::Refuse(404, "NoSuchBucket"), Fault::Refuse(403, "AccessDenied")] {
        server.plan("GET /chunks/", &fault, 3);
        let error = store.read(id, 0, 10).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error}");
        server.planned_away();
    }
    server.plan("HEAD /chunks/", &Fault::Answer(404, String::new()), 1);
    server.plan("GET /chunks/", &Fault::Refuse(404, "NoSuchBucket"), 1);
    store.read(id, 0, 0).await.unwrap_err();
    server.plan("GET /chunks/", &Fault::Refuse(404, "NoSuchKey"), 1);
    assert_eq!(store.read(id, 0, 10).await.unwrap(), None);
}

#[tokio::test]
async fn a_large_pack_travels_in_parts_and_appears_whole() {
    let server = S3Server::start().await;
    let store = server.open("sub/folder/").await;
    let (id, content) = (PackId([0xAB; 16]), bytes(13 * 1024 * 1024 + 5, 3));
    server.plan("PUT /chunks/sub/folder/ab/", &Fault::Refuse(503, "SlowDown"), 2);
    server.plan("partNumber=2", &Fault::Drop, 1);
    store.put(id, vec![content.slice(..7), content.slice(7..)]).await.unwrap();
    assert_eq!(server.seen("partNumber=").len(), 3 + 3, "three parts, and three tries more");
    assert_eq!(store.read(id, 0, content.len()).await.unwrap().unwrap(), content);
    let rows = store.list().await.unwrap();
    assert_eq!((rows.len(), rows[0].id, rows[0].length_bytes), (1, id, content.len() as u64));
}

#[tokio::test]
async fn a_large_pack_that_fails_is_thrown_away() {
    let server = S3Server::start().await;
    let store = server.open("").await;
    let id = PackId([0xAB; 16]);
    let content = bytes(13 * 1024 * 1024, 3);
    let together = "POST /chunks/ab/abababababababababababababababab.pack?uploadId=";
    for (words, fault) in [("partNumber=2", Fault::Drop), (together, Fault::Refuse(500, "InternalError"))] {
        server.plan(words, &fault, 3);
        store.put(id, vec![content.clone()]).await.unwrap_err();
        server.planned_away();
        assert_eq!(store.read(id, 0, 1).await.unwrap(), None, "{words}");
        assert!(!server.seen("DELETE /chunks/ab/").is_empty(), "{words}");
    }
    // Only the answer is lost: the pack is there, and that is no failure.
    server.plan(together, &Fault::DropAnswer, 1);
    store.put(id, vec![content.clone()]).await.unwrap();
    assert_eq!(store.read(id, 13, 1000).await.unwrap().unwrap(), content.slice(13..1013));
}

/// K07: the bytes never arrive, the server refuses or says nothing, or it takes a pack and does not have it: nothing is committed, reads fail rather than
/// be empty, and when it is well again all goes on.
#[tokio::test]
async fn a_store_that_fails_takes_no_commit_and_serves_nothing_else() {
    use crate::service::Kind;
    use crate::service::content::ContentConfig;
    use crate::service::content::testing::{World, collect, frames};
    use ferry_protocol::wire::CommitReply;
    use ferry_protocol::{ChunkId, NodeId};
    let server = S3Server::start().await;
    let mut world = World::new().await;
    world.content = world.process(std::sync::Arc::new(server.open("").await), ContentConfig::default()).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let nothing = || Fault::Answer(404, "<Error><Code>NoSuchKey</Code></Error>".into());
    let faults: [(&str, &[(&str, Fault)]); 6] = [
        ("it fails", &[("PUT /chunks/", Fault::Refuse(500, "InternalError"))]),
        ("it is busy", &[("PUT /chunks/", Fault::Refuse(503, "SlowDown"))]),
        ("it goes in the middle", &[("PUT /chunks/", Fault::Drop)]),
        ("it hangs", &[("PUT /chunks/", Fault::Stall)]),
        ("it forgets", &[("HEAD /chunks/", Fault::Answer(404, String::new())), ("GET /chunks/", nothing())]),
        ("it goes after it took it", &[("HEAD /chunks/", Fault::Drop)]),
    ];
    for (number, (what, planned)) in (0u8..).zip(faults) {
        let content = bytes(50_000, number);
        planned.iter().for_each(|(words, fault)| server.plan(words, fault, 3));
        let refused = world.content.put_chunks(&home, frames(&[&content])).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable, "{what}");
        server.planned_away();
        let node = NodeId::from_bytes(world.id());
        let update = writer.file(node, &format!("f{number}"), &[&content]);
        let commit = world.content.commit(&home, world.request(vec![update.clone()], &[], u64::MAX)).await.unwrap();
        assert_eq!(commit, CommitReply::MissingChunks(vec![ChunkId::of(&content)]), "{what}");

        assert_eq!(world.content.put_chunks(&home, frames(&[&content])).await.unwrap(), 1, "{what}");
        let commit = world.content.commit(&home, world.request(vec![update], &[], u64::MAX)).await.unwrap();
        assert!(matches!(commit, CommitReply::Accepted { .. }), "{what}");
        let reads = [Fault::Refuse(503, "SlowDown"), Fault::Drop, Fault::Answer(404, "<html>A proxy</html>".into()), Fault::Stall];
        // One that hangs takes its time, and is the same whatever came before.
        for fault in &reads[..if number == 0 { 4 } else { 3 }] {
            server.plan("GET /chunks/", fault, 24);
            let read = world.content.get_chunks(&home, vec![ChunkId::of(&content)]).await.unwrap_err();
            assert_eq!(read.kind(), Kind::Unavailable, "{what}, {fault:?}");
            server.planned_away();
        }
        let read = collect(world.content.get_chunks(&home, vec![ChunkId::of(&content)]).await.unwrap()).await;
        assert_eq!(read, [Some(content.to_vec())], "{what}");
    }
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn parts_that_nobody_goes_on_with_are_thrown_away_at_the_start() {
    let server = S3Server::start().await;
    let upload =
        |name: &str, at: &str, id: &str| format!("<Upload><Key>{name}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>");
    let pack = format!("ab/{}.pack", "ab".repeat(16));
    let body = format!(
        "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>chunks</Bucket>{}{}{}<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        upload(&pack, "2020-01-01T00:00:00.000Z", "old"),
        upload(&pack, "2999-01-01T00:00:00.000Z", "young"),
        upload("somebody/else", "2020-01-01T00:00:00.000Z", "foreign"),
    );
    server.plan("?uploads", &Fault::Answer(200, body), 1);
    server.open("").await;
    let thrown: Vec<String> = server.seen("DELETE").into_iter().filter(|l| l.contains("uploadId")).collect();
    assert!(!thrown.is_empty() && thrown.iter().all(|l| l.contains("uploadId=old")), "{thrown:?}");
}

#[tokio::test]
async fn a_listing_has_every_page_and_nothing_of_others() {
    let server = S3Server::start().await;
    let (here, there) = (server.open("here/").await, server.open("here-too/").await);
    for number in 0..20u8 {
        here.put(PackId([number; 16]), vec![bytes(1, number)]).await.unwrap();
    }
    there.put(PackId([99; 16]), vec![bytes(1, 0)]).await.unwrap();
    let shard = server.dir.path().join(BUCKET).join("here/00");
    std::fs::write(shard.join("readme.txt"), "not ours").unwrap();
    std::fs::write(shard.join(format!("{}.pack", "01".repeat(16))), "in the wrong folder").unwrap();
    let mut ids: Vec<PackId> = here.list().await.unwrap().iter().map(|r| r.id).collect();
    ids.sort();
    assert_eq!(ids, (0..20u8).map(|n| PackId([n; 16])).collect::<Vec<_>>());
    assert!(server.seen("continuation-token").len() >= 2);
    // Half a listing is no listing.
    server.plan("continuation-token", &Fault::Refuse(500, "InternalError"), 3);
    here.list().await.unwrap_err();
}

#[tokio::test]
async fn the_start_says_in_a_sentence_what_is_wrong_and_no_secret() {
    let server = S3Server::start().await;
    let open = async |place, key: S3Key| S3Blobs::open(place, &key, quick()).await.unwrap_err().to_string();
    let mut nowhere = server.place("");
    nowhere.bucket = "missing".into();
    let message = open(nowhere, key()).await;
    assert!(message.contains("the bucket 'missing'") && message.contains("create it"), "{message}");
    for wrong in [S3Key { secret: "hunter2".into(), ..key() }, S3Key { access: "nobody".into(), ..key() }] {
        let message = open(server.place(""), wrong).await;
        assert!(message.contains("blobs.secret_key") && !message.contains("hunter2"), "{message}");
        assert!(![ACCESS, SECRET, "nobody"].iter().any(|secret| message.contains(secret)), "{message}");
    }
    let mut gone = server.place("");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    gone.endpoint = Some(format!("http://127.0.0.1:{port}"));
    let message = open(gone, key()).await;
    assert!(message.contains("cannot be reached") && message.contains("blobs.url"), "{message}");
}

#[tokio::test]
async fn readiness_tells_the_truth() {
    let server = S3Server::start().await;
    let store = server.open("").await;
    for fault in [Fault::Drop, Fault::Stall, Fault::Refuse(503, "SlowDown"), Fault::Answer(404, String::new())] {
        server.plan("HEAD /chunks", &fault, 1);
        store.ping().await.unwrap_err();
        assert!(server.is_over(), "{fault:?}");
        store.ping().await.unwrap();
    }
}

/// R55: an address opens what it was made for, for as long as it was made for, and nothing else.
#[tokio::test]
async fn a_signed_address_opens_its_bytes_and_nothing_else() {
    let server = S3Server::start().await;
    let store = server.open("p/").await;
    let (id, other) = (PackId([1; 16]), PackId([2; 16]));
    store.put(id, vec![bytes(1000, 1)]).await.unwrap();
    store.put(other, vec![bytes(1000, 2)]).await.unwrap();
    let signed = store.signed_read(id, 100, 50, Duration::from_secs(60)).await.unwrap().unwrap();
    let range = signed.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("range")).map(|(_, value)| value.as_str());
    assert_eq!(range, Some("bytes=100-149"));
    crate::install_tls_provider();
    let http = reqwest::Client::new();
    let send = async |method: reqwest::Method, url: &str, range: Option<&str>| {
        let mut request = http.request(method, url);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap())
    };
    let (status, headers, body) = send(reqwest::Method::GET, &signed.url, range).await;
    assert_eq!((status, body), (206, bytes(1000, 1).slice(100..150)));
    assert_eq!(headers["content-disposition"], "attachment");
    assert_eq!(headers["content-type"], "application/octet-stream");
    let (one, two) = (id.to_string(), other.to_string());
    let tricks = [
        ("GET", signed.url.clone(), Some("bytes=0-999"), "another range"),
        ("GET", signed.url.clone(), None, "the whole pack"),
        ("GET", signed.url.replace(&one, &two).replace("/01/", "/02/"), range, "another key"),
        ("GET", signed.url.replace("attachment", "inline"), range, "another disposition"),
        ("GET", signed.url.replace("octet-stream", "xhtml"), range, "another type"),
        ("GET", signed.url.replace("Expires=60", "Expires=6000"), range, "a longer life"),
        ("GET", signed.url.replace(&format!("p/01/{one}.pack"), ""), range, "a listing"),
        ("PUT", signed.url.clone(), range, "another method"),
        ("DELETE", signed.url.clone(), range, "another method"),
    ];
    for (method, url, range, what) in tricks {
        let (status, _, body) = send(method.parse().unwrap(), &url, range).await;
        assert!((400..500).contains(&status), "{what}: {status}");
        assert!(!body.windows(16).any(|w| w == &bytes(1000, 1)[100..116]), "{what}");
    }
    assert_eq!(store.read(id, 0, 1000).await.unwrap().unwrap(), bytes(1000, 1));
    let short = store.signed_read(id, 100, 50, Duration::from_secs(1)).await.unwrap().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while send(reqwest::Method::GET, &short.url, range).await.0 != 403 {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn the_tuning_obeys_the_server() {
    let tuning = S3Tuning::default();
    // S3 takes 10,000 parts and none below 5 MiB; the largest pack is one request.
    assert!(tuning.part_bytes >= 5 * 1024 * 1024 && tuning.large_bytes > tuning.part_bytes);
    assert!(ferry_protocol::limits::REQUEST_MAX_BYTES / tuning.part_bytes < 10_000);
}
