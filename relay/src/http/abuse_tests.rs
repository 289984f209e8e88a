//! What a caller who means harm sends, over the real router: rows of group R of the catalogue.

use super::content_tests::*;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use ferry_protocol::limits::{CHUNK_IDS_MAX, COMMIT_NODES_MAX, REQUEST_MAX_BYTES};
use ferry_protocol::wire::*;
use ferry_protocol::*;
use futures_util::stream;
use serde_json::json;

const JSON: (&str, &str) = ("content-type", "application/json");
const WIRE: (&str, &str) = ("content-type", CONTENT_TYPE);
const CHUNKS: (&str, &str) = ("content-type", CHUNKS_CONTENT_TYPE);

/// Nothing but the empty home is there.
async fn stored_nothing(world: &World) {
    let empty = crate::store::content::StorageTotals { namespaces: 1, ..Default::default() };
    let totals = world.app.content.storage_totals().await.unwrap();
    // An upload that was begun is no more than a row.
    assert_eq!(crate::store::content::StorageTotals { uploads_open: 0, ..totals }, empty);
}

/// A body that ends as it says: after these parts, or broken off.
fn parts(parts: Vec<Vec<u8>>, is_broken_off: bool) -> Body {
    let end = is_broken_off.then(|| Err(std::io::Error::other("gone")));
    Body::from_stream(stream::iter(parts.into_iter().map(Ok).chain(end)))
}

on_each_store!(chunks_out_of_bounds_are_refused_and_store_nothing);

/// R27: too much, announced or not, nothing at all, and hashes that are none.
async fn chunks_out_of_bounds_are_refused_and_store_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let init = json!({"file_name": "f", "file_size": 5, "file_hash": ContentHash::of(b"right")});
    let id = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    let raw = format!("/upload/{id}/chunks/0");
    let frames_path = format!("/upload/v1/{}/chunks", alice.home);
    let many = || vec![vec![0u8; 1 << 20]; 7];
    for (path, kind, over) in
        [(raw.as_str(), ("content-type", "application/octet-stream"), 7usize << 20), (&frames_path, CHUNKS, REQUEST_MAX_BYTES + 1)]
    {
        let announced = [kind, ("content-length", &over.to_string())];
        assert_eq!(world.call(&alice, method_of(path), path, &announced, "").await.status, 413, "{path}");
    }
    assert_eq!(world.call(&alice, Method::PUT, &raw, &[], parts(many(), false)).await.status, 413, "not announced");
    for wrong in [&b""[..], b"righ", b"right!"] {
        assert_eq!(world.call(&alice, Method::PUT, &raw, &[], wrong.to_vec()).await.status, 422, "{wrong:?}");
    }
    for index in ["1", "18446744073709551615"] {
        assert_eq!(world.call(&alice, Method::PUT, &format!("/upload/{id}/chunks/{index}"), &[], "right").await.status, 422, "{index}");
    }
    for index in ["-1", "x", "99999999999999999999", "..%2f0"] {
        assert_eq!(world.call(&alice, Method::PUT, &format!("/upload/{id}/chunks/{index}"), &[], "right").await.status, 404, "{index}");
    }
    for digest in ["md5=:x:", "sha-256=:zz:", "sha-256=../..", ""] {
        assert_eq!(world.call(&alice, Method::PUT, &raw, &[("content-digest", digest)], "right").await.status, 400, "{digest}");
    }
    let of_other = [("content-digest", "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:")];
    assert_eq!(world.call(&alice, Method::PUT, &raw, &of_other, "right").await.status, 422);
    for (what, body) in
        [("no bytes", ChunkFrame::header(ChunkId::of(b""), 0).to_vec()), ("absence", ChunkFrame::absent(ChunkId::of(b"x")).to_vec())]
    {
        assert_eq!(world.call(&alice, Method::POST, &frames_path, &[CHUNKS], body).await.status, 400, "{what}");
    }
    stored_nothing(&world).await;
    assert_eq!(world.get(&alice, "/api/v1/me/usage").await.json()["storage_used"], 0);
}

fn method_of(path: &str) -> Method {
    if path.contains("/v1/") { Method::POST } else { Method::PUT }
}

on_each_store!(a_body_that_ends_early_stores_nothing);

/// R28: the caller goes in the middle of a body.
async fn a_body_that_ends_early_stores_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let init = json!({"file_name": "f", "file_size": 5, "file_hash": ContentHash::of(b"right")});
    let id = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    let frame = frames(b"right");
    let cases = [
        (Method::PUT, format!("/upload/{id}/chunks/0"), ("content-type", "application/octet-stream"), b"right".to_vec()),
        (Method::POST, format!("/upload/v1/{}/chunks", alice.home), CHUNKS, frame),
        (Method::POST, format!("/sync/v1/{}/commit", alice.home), WIRE, encode(&commit(1, Epoch::default(), vec![]))),
        (Method::POST, "/upload/init".into(), JSON, b"{\"file_name\":\"x\"}".to_vec()),
    ];
    for (method, path, kind, body) in cases {
        let answer = world.call(&alice, method, &path, &[kind], parts(vec![body], true)).await;
        assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (400, "application/problem+json"), "{path}");
    }
    stored_nothing(&world).await;
}

on_each_store!(names_that_are_none_are_refused);

/// R33: names that are none, or not the caller's to use.
async fn names_that_are_none_are_refused(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let long = "n".repeat(256);
    for name in ["", ".", "..", "/", "a/b", "../x", "a\0b", &long, ".ferry"] {
        let init = json!({"file_name": name, "file_size": 1, "file_hash": ContentHash::of(b"x")});
        let answer = world.json(&alice, Method::POST, "/upload/init", init).await;
        assert_eq!(answer.status, 422, "{name:?}");
    }
    for path in ["..", "a/../b", "a//b", "a\0b", ".ferry", ".ferry/x", &long, &"d/".repeat(1100)] {
        let init = json!({"file_name": "f", "path": path, "file_size": 1, "file_hash": ContentHash::of(b"x")});
        assert_eq!(world.json(&alice, Method::POST, "/upload/init", init).await.status, 422, "{path:?}");
    }
    stored_nothing(&world).await;
    let id = world.upload(&alice, "good", b"x").await;
    world.upload(&alice, "taken", b"y").await;
    for name in ["", ".", "..", "a/b", "a\0b", &long, ".ferry"] {
        let answer = world.json(&alice, Method::PUT, &format!("/metadata/files/{id}"), json!({"file_name": name})).await;
        assert_eq!(answer.status, 422, "{name:?}");
    }
    let taken = world.json(&alice, Method::PUT, &format!("/metadata/files/{id}"), json!({"file_name": "taken"})).await;
    assert_eq!((taken.status, taken.text("code")), (409, "name_taken".into()));
    assert_eq!(world.get(&alice, &format!("/metadata/files/{id}")).await.text("file_path"), "/good");
}

on_each_store!(lists_are_bounded_and_the_same_twice_is_once);

/// R35, R62: more than a commit or a question may hold, and the same thing twice.
async fn lists_are_bounded_and_the_same_twice_is_once(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let ns = alice.home;
    let nodes: Vec<NodeUpdate> = (0..=COMMIT_NODES_MAX)
        .map(|i| {
            let mut update = file(&alice, 1, b"x");
            update.id = NodeId::from_bytes((i as u128 + 1).to_be_bytes());
            update
        })
        .collect();
    // A list is refused by the length that it states, before an entry of it is read: the body is no body of this kind.
    assert_eq!(world.wire(&alice, &format!("/sync/v1/{ns}/commit"), &commit(1, Epoch::default(), nodes)).await.status, 400);
    let ids = |count: usize| ChunkIds { ids: (0..count as u32).map(|i| ChunkId::of(&i.to_le_bytes())).collect() };
    for path in [format!("/upload/v1/{ns}/missing"), format!("/download/v1/{ns}/chunks")] {
        assert_eq!(world.wire(&alice, &path, &ids(CHUNK_IDS_MAX + 1)).await.status, 400, "{path}");
        // Compressed it is still too much, and is not even inflated beyond what the route takes.
        let packed = zstd::bulk::compress(&vec![1u8; 4 << 20], 1).unwrap();
        let headers = [WIRE, ("content-encoding", "zstd")];
        assert_eq!(world.call(&alice, Method::POST, &path, &headers, packed).await.status, 413, "{path}");
    }
    let twice = ChunkIds { ids: vec![ChunkId::of(b"x"), ChunkId::of(b"x")] };
    let missing = world.wire(&alice, &format!("/upload/v1/{ns}/missing"), &twice).await;
    assert_eq!(missing.wire::<ChunkIds>().ids, [ChunkId::of(b"x")]);
    stored_nothing(&world).await;
}

on_each_store!(cursors_that_were_never_given_start_over_or_are_refused);

/// R36: cursors of another feed, epoch or time, and limits without end.
async fn cursors_that_were_never_given_start_over_or_are_refused(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    world.upload(&alice, "secret", b"secret").await;
    let list: Vec<NamespaceInfo> = serde_json::from_value(world.get(&alice, "/sync/v1/namespaces").await.json()).unwrap();
    let (ns, epoch) = (alice.home, list[0].epoch);
    for (query, status) in [
        (format!("since=2&epoch={epoch}"), 410),
        (format!("since={}&epoch={epoch}", u64::MAX), 410),
        ("since=1".into(), 410),
        (format!("since=0&epoch={}", Epoch::default()), 410),
        (format!("since=-1&epoch={epoch}"), 400),
        ("since=0&epoch=x".into(), 400),
        (format!("since=0&epoch={epoch}&limit=-1"), 400),
        (format!("since=0&epoch={epoch}&limit=1000000000"), 200),
        (format!("since=0&epoch={epoch}&limit=0"), 200),
    ] {
        let answer = world.get(&alice, &format!("/sync/v1/{ns}/delta?{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        if status == 410 {
            assert_eq!((answer.text("code"), answer.text("epoch")), ("epoch_changed".into(), epoch.to_string()), "{query}");
        }
    }
    // Somebody else's cursor of the plain delta says nothing about what is not the caller's.
    let cursor = world.get(&alice, "/sync/delta?since=0").await.text("cursor");
    let theirs = world.get(&mal, &format!("/sync/delta?since={cursor}")).await;
    assert_eq!((theirs.status, theirs.json()["changes"].as_array().unwrap().len()), (200, 0));
    let pages = world.get(&alice, "/sync/delta?since=0&limit=1000000000").await;
    assert_eq!(pages.json()["changes"].as_array().unwrap().len(), 1);
    for since in ["c", "cAAAA", &format!("{cursor}A"), &cursor[..cursor.len() - 2]] {
        assert_eq!(world.get(&alice, &format!("/sync/delta?since={since}")).await.status, 400, "{since}");
    }
}

on_each_store!(answers_are_for_their_caller_only);

/// R38, R52: no answer may be kept by others or read by a page of another origin.
async fn answers_are_for_their_caller_only(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let id = world.upload(&alice, "a", b"text").await;
    let etag = world.get(&alice, &format!("/download/{id}")).await.headers["etag"].clone();
    for path in [
        "/metadata/files",
        "/auth/me",
        "/sync/delta",
        "/api/v1/trash",
        "/api/v1/me/usage",
        &format!("/metadata/files/{id}"),
        &format!("/download/{id}"),
    ] {
        for origin in ["https://evil.example", "null", "https://files.example.org.evil.example"] {
            let answer = world.call(&alice, Method::GET, path, &[("origin", origin)], "").await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.headers["cache-control"].to_str().unwrap().contains("no-store"), "{path}");
            let shares = answer.headers.keys().any(|k| k.as_str().starts_with("access-control-"));
            assert!(!shares, "{path} {origin}: {:?}", answer.headers);
            let asks =
                [("origin", origin), ("access-control-request-method", "DELETE"), ("access-control-request-headers", "authorization")];
            let preflight = world.call(&alice, Method::OPTIONS, path, &asks, "").await;
            assert_eq!(preflight.status, 405, "{path}");
            assert!(!preflight.headers.keys().any(|k| k.as_str().starts_with("access-control-")), "{path}");
        }
    }
    // A hash is no way to learn whether somebody has a file.
    let probe = [("if-none-match", etag.to_str().unwrap())];
    assert_eq!(world.call(&mal, Method::GET, &format!("/download/{id}"), &probe, "").await.status, 404);
    let init = json!({"file_name": "mine", "file_size": 4, "file_hash": ContentHash::of(b"text")});
    assert_eq!(world.json(&mal, Method::POST, "/upload/init", init).await.json()["deduplication"], false);
}

on_each_store!(odd_names_are_taken_literally);

/// R45: names are names, and orders are a closed list.
async fn odd_names_are_taken_literally(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    world.upload(&mal, "other people's", b"other").await;
    let names =
        ["100%", "a_b", "aXb", "it's", "back\\slash", "'; DROP TABLE files; --", "\"q\"", "<img onerror=x>", "{{7*7}}", "é\u{202e}"];
    let mut ids = Vec::new();
    for name in names {
        ids.push(world.upload(&alice, name, name.as_bytes()).await);
    }
    let listed = world.get(&alice, "/metadata/files").await.json();
    let mut found: Vec<&str> = listed["files"].as_array().unwrap().iter().map(|f| f["file_name"].as_str().unwrap()).collect();
    found.sort();
    let mut wanted = names.to_vec();
    wanted.sort();
    assert_eq!(found, wanted);
    for (name, id) in names.iter().zip(&ids) {
        assert_eq!(world.get(&alice, &format!("/download/{id}")).await.body, name.as_bytes());
    }
    for path in ["a%25b", "%25", "_", "a%27%20OR%201=1", "a%5Fb"] {
        let answer = world.get(&alice, &format!("/metadata/files?path={path}")).await;
        assert!(matches!(answer.status, 404 | 409), "{path}: no directory of that name, {}", answer.status);
    }
    for query in ["sort=size;--", "sort=file_name%20desc", "sort=storage_used", "cursor=1%20OR%201", "cursor=-1", "limit=x"] {
        assert_eq!(world.get(&alice, &format!("/metadata/files?{query}")).await.status, 400, "{query}");
    }
}

on_each_store!(what_a_browser_might_run_is_a_download);

/// R47: whatever a browser might run comes as a download, in a sandbox, under the type that its name has.
async fn what_a_browser_might_run_is_a_download(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    for (i, name) in
        ["a.svg", "a.html", "a.htm", "a.xml", "a.xhtml", "a.pdf", "a.mht", "a.js", "a.txt", "a.png", "a"].into_iter().enumerate()
    {
        let id = world.upload(&alice, name, &[&script[..], &[i as u8]].concat()).await;
        let signed = world.json(&alice, Method::POST, &format!("/download/{id}/url"), json!({})).await.text("url");
        let signed = signed.strip_prefix("https://files.example.org").unwrap();
        let by_token = world.get(&alice, &format!("/download/{id}")).await;
        for answer in [by_token, world.send(Request::get(signed).body(Body::empty()).unwrap()).await] {
            assert_eq!(answer.status, 200, "{name}");
            let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
            assert!(header("content-disposition").starts_with("attachment;"), "{name}");
            assert_eq!(
                (header("x-content-type-options").as_str(), header("content-security-policy").as_str()),
                ("nosniff", "sandbox; default-src 'none'")
            );
        }
        // A signed address is for reading one file.
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(world.send(Request::builder().method(method).uri(signed).body(Body::empty()).unwrap()).await.status, 405, "{name}");
        }
    }
}

on_each_store!(no_way_of_writing_passes_the_quota);

/// R30: each way of writing counts, and a refusal says how much there is.
async fn no_way_of_writing_passes_the_quota(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let change = crate::store::accounts::UserChange { name: None, role: None, storage_limit_bytes: Some(Some(10)), disabled: None };
    world.app.accounts.update_user(alice.id, &change).await.unwrap();
    let kept = world.upload(&alice, "kept", b"12345").await;
    let refused = |answer: Answer| {
        assert_eq!((answer.status, answer.text("code")), (413, "quota_exceeded".into()));
        assert_eq!((answer.json()["used_bytes"].as_u64(), answer.json()["limit_bytes"].as_u64()), (Some(5), Some(10)));
    };
    let init = |size: u64| json!({"file_name": "f", "file_size": size, "file_hash": ContentHash::of(b"abcdef")});
    refused(world.json(&alice, Method::POST, "/upload/init", init(6)).await);
    assert_eq!(world.json(&alice, Method::POST, "/upload/init", init(u64::MAX)).await.status, 413);
    refused(world.call(&alice, Method::POST, &format!("/upload/v1/{}/chunks", alice.home), &[CHUNKS], frames(b"abcdef")).await);
    let list: Vec<NamespaceInfo> = serde_json::from_value(world.get(&alice, "/sync/v1/namespaces").await.json()).unwrap();
    let mut inline = commit(1, list[0].epoch, vec![file(&alice, 9, b"abcdef")]);
    inline.chunks = vec![InlineChunk { id: ChunkId::of(b"abcdef"), bytes: b"abcdef".to_vec() }];
    refused(world.wire(&alice, &format!("/sync/v1/{}/commit", alice.home), &inline).await);
    // A deleted file is kept and counts; bringing it back takes nothing more.
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{kept}"), &[], "").await.status, 200);
    refused(world.json(&alice, Method::POST, "/upload/init", init(6)).await);
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/trash/restore", json!({"file_id": kept})).await.status, 200);
    assert_eq!(world.get(&alice, "/api/v1/me/usage").await.json(), json!({"storage_used": 5, "storage_limit": 10}));
    assert!(world.app.content.verify(true).await.unwrap().is_sound());
}
