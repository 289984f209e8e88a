//! WebDAV over the real router: who gets in, what each method does to the folder, and what is refused.

use crate::http::content_tests::{Answer, User, World, commit, file, frames};
use crate::store::content::Scope;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine;
use bytes::Bytes;
use ferry_protocol::wire::{CHUNKS_CONTENT_TYPE, CommitReply, CommitRequest, FeedPage, NamespaceInfo, NodeUpdate, Role};
use ferry_protocol::{ContentHash, Name, Place, ReplicaId, Stamp};
use serde_json::{Value, json};

/// A WebDAV client with an app password.
struct Client<'w> {
    world: &'w World,
    email: String,
    secret: String,
    id: String,
}

type Headers<'a> = &'a [(&'a str, &'a str)];

impl<'w> Client<'w> {
    async fn new(world: &'w World, user: &User, email: &str, password: Value) -> Self {
        let made = world.json(user, Method::POST, "/api/v1/me/tokens", password).await;
        let id = made.json()["token"]["token_id"].as_str().unwrap().to_owned();
        Self { world, email: email.into(), secret: made.text("secret"), id }
    }

    async fn of(world: &'w World, user: &User, number: u8) -> Self {
        Self::new(world, user, &format!("u{number}@example.org"), json!({"name": "mount", "scopes": ["dav"]})).await
    }

    fn request(&self, method: &str, path: &str, headers: Headers<'_>, body: impl Into<Body>) -> Request<Body> {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", self.email, self.secret));
        let mut request = Request::builder().method(method).uri(format!("/dav{path}")).header("authorization", format!("Basic {basic}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.into()).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: Headers<'_>, body: impl Into<Body>) -> Answer {
        self.world.send(self.request(method, path, headers, body)).await
    }

    /// Asks and expects this status.
    async fn is(&self, status: u16, method: &str, path: &str, headers: Headers<'_>, body: &str) -> Answer {
        let answer = self.ask(method, path, headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        answer
    }

    async fn put(&self, path: &str, body: &str) {
        let answer = self.ask("PUT", path, &[], body.to_owned()).await;
        assert!([201, 204].contains(&answer.status), "PUT {path}: {} {}", answer.status, text(&answer));
    }

    async fn get(&self, path: &str) -> String {
        text(&self.is(200, "GET", path, &[], "").await)
    }

    /// The addresses that a PROPFIND of depth 1 names, without the place itself.
    async fn list(&self, path: &str) -> Vec<String> {
        let answer = self.is(207, "PROPFIND", path, &[("depth", "1")], "").await;
        let hrefs = values(&answer, "D:href");
        hrefs.into_iter().skip(1).map(|href| href.strip_prefix("/dav").unwrap().to_owned()).collect()
    }

    async fn lock(&self, path: &str, status: u16) -> String {
        let body = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
                    <D:owner><D:href>a &amp; b</D:href></D:owner></D:lockinfo>";
        let answer = self.is(status, "LOCK", path, &[("timeout", "Second-300"), ("depth", "infinity")], body).await;
        answer.headers.get("lock-token").map_or(String::new(), |v| v.to_str().unwrap().to_owned())
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// What stands in the elements of this name.
fn values(answer: &Answer, name: &str) -> Vec<String> {
    let (body, tag) = (text(answer), format!("<{name}>"));
    let parts = body.split(&tag).skip(1).map(|part| part.split('<').next().unwrap().to_owned());
    parts.collect()
}

async fn share(world: &World, owner: &User, guest: &User, role: Role) {
    let mut tx = world.app.db.begin(Scope::Namespace(owner.home)).await.unwrap();
    tx.set_member(owner.home, guest.id, role, 0).await.unwrap();
    tx.commit().await.unwrap();
}

/// Commits as a device that has heard everything.
async fn devices_commit(world: &World, user: &User, number: u8, nodes: Vec<NodeUpdate>) {
    let list: Vec<NamespaceInfo> = serde_json::from_value(world.get(user, "/sync/v1/namespaces").await.json()).unwrap();
    let request = CommitRequest { base_seq: list[0].head_seq, ..commit(number, list[0].epoch, nodes) };
    let reply = world.wire(user, &format!("/sync/v1/{}/commit", user.home), &request).await.wire::<CommitReply>();
    assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
}

/// Sends a chunk as a device does.
async fn devices_chunk(world: &World, user: &User, bytes: &[u8]) {
    let path = format!("/upload/v1/{}/chunks", user.home);
    let put = world.call(user, Method::POST, &path, &[("content-type", CHUNKS_CONTENT_TYPE)], frames(bytes)).await;
    assert_eq!(put.status, 200);
}

async fn stored_bytes(world: &World) -> u64 {
    world.app.db.shard_totals().await.unwrap().iter().map(|shard| shard.totals.chunk_bytes).sum()
}

on_each_store!(only_an_app_password_for_webdav_gets_in);

async fn only_an_app_password_for_webdav_gets_in(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let mut client = Client::of(&world, &alice, 1).await;
    client.is(207, "PROPFIND", "/", &[], "").await;
    let anonymous = world.send(Request::builder().method("PROPFIND").uri("/dav/").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (anonymous.status, anonymous.headers["www-authenticate"].to_str().unwrap()),
        (401, "Basic realm=\"Ferry\", charset=\"UTF-8\"")
    );
    // A login's token is none, and the account's own password least of all; the answer says what to do.
    assert_eq!(world.call(&alice, Method::GET, "/dav/", &[], "").await.status, 401);
    let right = std::mem::replace(&mut client.secret, crate::http::content_tests::PASSWORD.into());
    let refused = client.is(401, "PROPFIND", "/", &[], "").await.json();
    assert!(refused["hint"].as_str().unwrap().contains("App passwords"), "{refused}");
    client.secret = right;
    let email = std::mem::replace(&mut client.email, "u2@example.org".into());
    client.is(401, "PROPFIND", "/", &[], "").await;
    client.email = email;
    let files = Client::new(&world, &alice, "u1@example.org", json!({"name": "x", "scopes": ["files:read", "files:write"]})).await;
    assert_eq!(files.is(403, "PROPFIND", "/", &[], "").await.text("code"), "scope_missing");
    // Revoked is revoked.
    let gone = world.call(&alice, Method::DELETE, &format!("/api/v1/me/tokens/{}", client.id), &[], "").await;
    assert_eq!(gone.status, 204);
    client.is(401, "PROPFIND", "/", &[], "").await;
    // A program that goes on trying is told to wait, and nobody else is.
    let mut answers = std::collections::BTreeMap::new();
    for _ in 0..80 {
        *answers.entry(client.ask("PROPFIND", "/", &[], "").await.status).or_insert(0) += 1;
    }
    assert!(answers[&429] >= 15 && answers.len() == 2, "{answers:?}");
    Client::of(&world, &alice, 1).await.is(207, "PROPFIND", "/", &[], "").await;
}

on_each_store!(a_password_may_be_for_looking_or_for_one_folder);

async fn a_password_may_be_for_looking_or_for_one_folder(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    let all = Client::of(&world, &alice, 1).await;
    for place in ["/Ferry/Photos", "/Ferry/Photos/2026", "/Ferry/Other"] {
        all.is(201, "MKCOL", place, &[], "").await;
        all.put(&format!("{place}/a"), place).await;
    }
    let looks = Client::new(&world, &alice, "u1@example.org", json!({"name": "x", "scopes": ["dav", "files:read"]})).await;
    assert_eq!(looks.get("/Ferry/Other/a").await, "/Ferry/Other");
    for method in ["PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "MOVE", "COPY", "UNLOCK"] {
        let refused = looks.is(403, method, "/Ferry/Other/a", &[("destination", "/dav/Ferry/b")], "").await;
        assert_eq!(refused.text("code"), "read_only", "{method}");
    }
    let one = Client::new(&world, &alice, "u1@example.org", json!({"name": "x", "scopes": ["dav"], "path": "/Photos/2026"})).await;
    assert_eq!(one.list("/").await, ["/Ferry/"]);
    assert_eq!(one.list("/Ferry/").await, ["/Ferry/Photos/"], "the way down, and nothing beside it");
    assert_eq!(one.list("/Ferry/Photos/").await, ["/Ferry/Photos/2026/"]);
    one.put("/Ferry/Photos/2026/b", "mine").await;
    for (status, method, path, to) in [
        (404, "GET", "/Ferry/Photos/a", ""),
        (404, "PROPFIND", "/Ferry/Other/", ""),
        (404, "DELETE", "/Ferry/Other", ""),
        (404, "PUT", "/Ferry/Photos/x", ""),
        (404, "DELETE", "/Ferry/Photos/2026", ""),
        (404, "COPY", "/Ferry/Other/a", "/dav/Ferry/Photos/2026/x"),
        (404, "MOVE", "/Ferry/Photos/2026/b", "/dav/Ferry/Photos/b"),
        (404, "LOCK", "/Ferry/Photos/x", ""),
    ] {
        let body = if method == "LOCK" {
            "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"
        } else {
            ""
        };
        let answer = one.ask(method, path, &[("destination", to)][..usize::from(!to.is_empty())], body).await;
        assert!(
            answer.status == status || answer.status == 409 || (method == "LOCK" && answer.status == 423),
            "{method} {path}: {}",
            answer.status
        );
    }
    assert_eq!(all.list("/Ferry/Photos/").await, ["/Ferry/Photos/2026/", "/Ferry/Photos/a"]);
    // A viewer of somebody's folder looks, and an editor writes.
    share(&world, &alice, &bob, Role::Viewer).await;
    let guest = Client::of(&world, &bob, 2).await;
    let shared = format!("/{}", alice.home);
    assert_eq!(guest.get(&format!("{shared}/Other/a")).await, "/Ferry/Other");
    for method in ["PUT", "DELETE", "MKCOL", "LOCK", "PROPPATCH"] {
        guest.is(403, method, &format!("{shared}/Other/a"), &[], "").await;
    }
    share(&world, &alice, &bob, Role::Editor).await;
    guest.put(&format!("{shared}/Other/a"), "theirs").await;
    assert_eq!(all.get("/Ferry/Other/a").await, "theirs");
    // Two folders of one name: the own one has it, the other a part of its id behind it.
    let names = guest.list("/").await;
    assert!(names.contains(&"/Ferry/".to_owned()) && names.iter().any(|n| n.starts_with("/Ferry%20%28")), "{names:?}");
}

on_each_store!(files_come_go_and_stay_what_they_are);

async fn files_come_go_and_stay_what_they_are(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    client.is(409, "PUT", "/Ferry/no/a", &[], "x").await;
    client.is(409, "MKCOL", "/Ferry/no/a", &[], "").await;
    client.is(201, "MKCOL", "/Ferry/d/", &[], "").await;
    client.is(405, "MKCOL", "/Ferry/d/", &[], "").await;
    let made = client.is(201, "PUT", "/Ferry/d/a", &[("x-oc-mtime", "1700000000")], "one").await;
    let etag = format!("\"{}\"", super::meta::etag_of(&ContentHash::of(b"one")));
    assert_eq!((made.headers["etag"].to_str().unwrap(), made.headers["x-oc-mtime"].to_str().unwrap()), (etag.as_str(), "accepted"));
    let got = client.is(200, "GET", "/Ferry/d/a", &[], "").await;
    assert_eq!((text(&got).as_str(), got.headers["etag"].to_str().unwrap()), ("one", etag.as_str()));
    assert_eq!(got.headers["last-modified"], "Tue, 14 Nov 2023 22:13:20 GMT");
    assert!(got.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    client.is(304, "GET", "/Ferry/d/a", &[("if-none-match", &etag)], "").await;
    client.is(304, "GET", "/Ferry/d/a", &[("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT")], "").await;
    assert_eq!(text(&client.is(206, "GET", "/Ferry/d/a", &[("range", "bytes=1-")], "").await), "ne");
    client.is(204, "PUT", "/Ferry/d/a", &[("if-match", &etag)], "two").await;
    client.is(412, "PUT", "/Ferry/d/a", &[("if-match", &etag)], "three").await;
    client.is(412, "PUT", "/Ferry/d/a", &[("if-none-match", "*")], "three").await;
    // The plain API sees the same file, both versions, and the one id through a move.
    let listed = world.get(&alice, "/metadata/files?path=/d").await.json();
    let id = listed["files"][0]["file_id"].as_str().unwrap().to_owned();
    // Behind a proxy the client may know the relay by another name and scheme.
    client.is(201, "MOVE", "/Ferry/d/a", &[("destination", "http://inside:8000/dav/Ferry/b")], "").await;
    let there = world.get(&alice, &format!("/metadata/files/{id}")).await.json();
    assert_eq!(there["file_path"].as_str().or(there["file"]["file_path"].as_str()), Some("/b"), "{there}");
    let versions = world.get(&alice, &format!("/api/v1/files/{id}/versions")).await.json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2, "{versions}");
    // A copy moves no byte; a MOVE onto a file puts that into the trash.
    let before = stored_bytes(&world).await;
    client.is(201, "COPY", "/Ferry/b", &[("destination", "/dav/Ferry/d/c")], "").await;
    client.is(412, "COPY", "/Ferry/b", &[("destination", "/dav/Ferry/d/c"), ("overwrite", "F")], "").await;
    assert_eq!((stored_bytes(&world).await, client.get("/Ferry/d/c").await.as_str()), (before, "two"));
    client.is(204, "MOVE", "/Ferry/b", &[("destination", "/dav/Ferry/d/c")], "").await;
    let trash = world.get(&alice, "/api/v1/trash").await.json();
    assert_eq!(trash["files"].as_array().map(Vec::len), Some(1), "{trash}");
    // Directories as a whole, in one edit.
    client.is(201, "MKCOL", "/Ferry/d/e", &[], "").await;
    client.put("/Ferry/d/e/f", "deep").await;
    client.is(201, "COPY", "/Ferry/d", &[("destination", "/dav/Ferry/d2"), ("depth", "0")], "").await;
    assert!(client.list("/Ferry/d2/").await.is_empty());
    let head = world.app.content.namespaces(&caller(&world, &alice).await).await.unwrap()[0].head_seq;
    client.is(204, "COPY", "/Ferry/d", &[("destination", "/dav/Ferry/d2/")], "").await;
    let after = world.app.content.namespaces(&caller(&world, &alice).await).await.unwrap()[0].head_seq;
    assert_eq!(after - head, 5, "one tombstone and four copies");
    assert_eq!(client.get("/Ferry/d2/e/f").await, "deep");
    client.is(403, "MOVE", "/Ferry/d", &[("destination", "/dav/Ferry/d/e/x")], "").await;
    client.is(201, "COPY", "/Ferry/d", &[("destination", "/dav/Ferry/d/e/x")], "").await;
    assert_eq!(client.list("/Ferry/d/e/x/e/").await, ["/Ferry/d/e/x/e/f"]);
    client.is(204, "DELETE", "/Ferry/d", &[], "").await;
    assert_eq!(client.list("/Ferry/").await, ["/Ferry/d2/"]);
    client.is(404, "DELETE", "/Ferry/d", &[], "").await;
    for (method, path) in [("DELETE", "/Ferry"), ("DELETE", "/"), ("PUT", "/x"), ("MKCOL", "/")] {
        let status = client.ask(method, path, &[], "").await.status;
        assert!([403, 404, 405].contains(&status), "{method} {path}: {status}");
    }
    client.is(403, "MOVE", "/Ferry/d2", &[("destination", "/dav/Elsewhere/d2")], "").await;
    client.is(403, "MOVE", "/Ferry/d2", &[("destination", "/elsewhere")], "").await;
    client.is(400, "MOVE", "/Ferry/d2", &[], "").await;
    client.is(405, "POST", "/Ferry/d2", &[], "").await;
    client.is(405, "PATCH", "/Ferry/d2/c", &[], "").await;
    let options = client.is(200, "OPTIONS", "/Ferry/d2/", &[], "").await;
    assert_eq!(options.headers["dav"], "1, 2, 3");
}

async fn caller(world: &World, user: &User) -> crate::service::Caller {
    world.app.accounts.authenticate(&user.token).await.unwrap()
}

on_each_store!(what_breaks_off_or_is_not_as_promised_has_never_been);

async fn what_breaks_off_or_is_not_as_promised_has_never_been(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    client.put("/Ferry/a", "old").await;
    for name in ["a", "new"] {
        let path = format!("/Ferry/{name}");
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            vec![Ok(Bytes::from(vec![7; 5 << 20])), Err(std::io::Error::other("the connection broke"))];
        let broken = client.ask("PUT", &path, &[], Body::from_stream(futures_util::stream::iter(pieces))).await;
        assert!(broken.status >= 400, "{}", broken.status);
        let wrong = format!("SHA1:{}", "00".repeat(20));
        let refused = client.is(400, "PUT", &path, &[("oc-checksum", &wrong)], "new").await;
        assert_eq!(refused.text("code"), "checksum_mismatch");
        let short = client
            .ask(
                "PUT",
                &path,
                &[("x-expected-entity-length", "9")],
                Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("new")])),
            )
            .await;
        assert_eq!(short.status, 400);
        client.is(400, "PUT", &path, &[("content-range", "bytes 0-2/3")], "new").await;
        client.is(400, "PUT", &path, &[("x-oc-mtime", "soon")], "new").await;
    }
    assert_eq!((client.get("/Ferry/a").await.as_str(), client.list("/Ferry/").await), ("old", vec!["/Ferry/a".to_owned()]));
    // SHA-1 of "abc" (FIPS 180-1, appendix A).
    client.is(201, "PUT", "/Ferry/b", &[("oc-checksum", "SHA1:a9993e364706816aba3e25717850c26c9cd0d89d")], "abc").await;
    client.is(201, "PUT", "/Ferry/c", &[("oc-checksum", "ADLER32:11e60398")], "abc").await;
    // Long bodies in pieces of any size come out as they went in.
    let long: Vec<u8> = (0..11u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let pieces: Vec<Result<Bytes, std::io::Error>> = long.chunks(700_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let put = client.ask("PUT", "/Ferry/long", &[], Body::from_stream(futures_util::stream::iter(pieces))).await;
    assert_eq!(put.status, 201, "{}", text(&put));
    let got = client.ask("GET", "/Ferry/long", &[], "").await;
    assert!(got.status == 200 && got.body == long);
    // A full quota is refused before the first byte, with the status that clients know.
    let limit = crate::store::accounts::UserChange { storage_limit_bytes: Some(Some(16 << 20)), ..Default::default() };
    world.app.accounts.update_user(alice.id, &limit).await.unwrap();
    let full = client.is(507, "PUT", "/Ferry/more", &[("content-length", "2000000")], &"x".repeat(2_000_000)).await;
    assert_eq!(full.text("code"), "quota_exceeded");
    let ask = "<propfind xmlns='DAV:'><prop><quota-used-bytes/><quota-available-bytes/></prop></propfind>";
    let quota = client.is(207, "PROPFIND", "/Ferry/", &[("depth", "0")], ask).await;
    let (used, free) = (values(&quota, "D:quota-used-bytes"), values(&quota, "D:quota-available-bytes"));
    let sum: u64 = used.iter().chain(&free).map(|n| n.parse::<u64>().unwrap()).sum();
    assert_eq!((used.len(), sum), (1, 16 << 20), "{}", text(&quota));
}

on_each_store!(names_are_what_they_are_and_ways_out_are_closed);

async fn names_are_what_they_are_and_ways_out_are_closed(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    let long = "x".repeat(255);
    let names = ["a b", "100%", "a#b?c", "ünïcödé", "日本", "e\u{301}", ".hidden", "<&>\"'", "a+b", "C:\\x", &long];
    for name in names {
        let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        client.put(&format!("/Ferry/{encoded}"), name).await;
        assert_eq!(client.get(&format!("/Ferry/{encoded}")).await, name);
    }
    let listed = client.list("/Ferry/").await;
    assert_eq!(listed.len(), names.len());
    for href in &listed {
        assert!(names.contains(&client.get(href).await.as_str()), "{href}");
    }
    let encoded = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02X}")).collect::<String>();
    client.put(&format!("/Ferry/{}", encoded(b"\xff\xfe")), "not UTF-8").await;
    assert!(client.list("/Ferry/").await.contains(&"/Ferry/%FF%FE".to_owned()));
    let too_long = format!("/Ferry/{}", "x".repeat(256));
    for wrong in ["/Ferry/../etc", "/Ferry/%2e%2e/etc", "/Ferry/a%2fb", "/Ferry/x%00y", "/Ferry/./a", &too_long] {
        for method in ["GET", "PUT", "PROPFIND", "DELETE", "MKCOL"] {
            client.is(400, method, wrong, &[], "").await;
        }
        client.is(400, "MOVE", "/Ferry/100%25", &[("destination", &format!("/dav{wrong}"))], "").await;
    }
    client.is(422, "MKCOL", "/Ferry/.ferry", &[], "").await;
    client.is(400, "PROPFIND", "/Ferry/", &[], "<propfind xmlns='DAV:'").await;
    client.is(413, "PROPFIND", "/Ferry/", &[], &"<a>".repeat(20_000)).await;
    client.is(400, "PROPFIND", "/Ferry/", &[], "<!DOCTYPE x [<!ENTITY y 'z'>]><propfind xmlns='DAV:'><allprop/></propfind>").await;
}

on_each_store!(a_lock_keeps_other_clients_out_and_no_device);

async fn a_lock_keeps_other_clients_out_and_no_device(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    share(&world, &alice, &bob, Role::Editor).await;
    let home = format!("/{}", alice.home);
    let (ana, other, guest) = (Client::of(&world, &alice, 1).await, Client::of(&world, &alice, 1).await, Client::of(&world, &bob, 2).await);
    // A device's file.
    devices_chunk(&world, &alice, b"one").await;
    devices_commit(&world, &alice, 1, vec![file(&alice, 1, b"one")]).await;
    let path = format!("{home}/f1");
    let token = ana.lock(&path, 200).await;
    assert!(token.starts_with("<urn:uuid:"), "{token}");
    other.lock(&path, 423).await;
    for client in [&other, &guest] {
        client.is(423, "PUT", &path, &[], "theirs").await;
        client.is(423, "DELETE", &path, &[], "").await;
        client.is(423, "MOVE", &path, &[("destination", &format!("/dav{home}/x"))], "").await;
    }
    let shown = ana.ask("PROPFIND", &path, &[("depth", "0")], "").await;
    assert!(text(&shown).contains("a &amp; b") && text(&shown).contains(token.trim_matches(['<', '>'])), "{}", text(&shown));
    // The token is its user's: nobody else writes with it.
    let condition = format!("({token})");
    guest.is(423, "PUT", &path, &[("if", &condition)], "theirs").await;
    ana.is(204, "PUT", &path, &[("if", &condition)], "mine").await;
    ana.is(412, "PUT", &path, &[("if", "(<urn:uuid:00000000-0000-0000-0000-000000000000>)")], "mine").await;
    ana.is(400, "PUT", &path, &[("if", "(<urn:uuid:0 [\"cut")], "mine").await;
    // A device's change is not asked for a token: it is the newest version.
    let mut update = file(&alice, 1, b"one");
    let replica = ReplicaId::from_bytes([1; 16]);
    update.state.move_to(Place {
        stamp: Stamp { counter: 100, replica },
        parent: ferry_protocol::NodeId::ROOT,
        name: Name::new("f2").unwrap(),
    });
    devices_commit(&world, &alice, 2, vec![update]).await;
    assert_eq!(ana.get(&format!("{home}/f2")).await, "mine");
    ana.is(204, "UNLOCK", &path, &[("lock-token", &token)], "").await;
    ana.is(409, "UNLOCK", &path, &[("lock-token", &token)], "").await;
    guest.put(&path, "free").await;
    // Of a place where nothing is, a lock makes an empty file; it goes with what it is on.
    let token = guest.lock(&format!("{home}/empty"), 201).await;
    assert_eq!(guest.get(&format!("{home}/empty")).await, "");
    ana.is(423, "PUT", &format!("{home}/empty"), &[], "x").await;
    guest.is(204, "DELETE", &format!("{home}/empty"), &[("if", &format!("({token})"))], "").await;
    ana.put(&format!("{home}/empty"), "x").await;
    // A directory's lock is for all that is in it.
    ana.is(201, "MKCOL", &format!("{home}/d"), &[], "").await;
    let token = ana.lock(&format!("{home}/d"), 200).await;
    guest.is(423, "PUT", &format!("{home}/d/x"), &[], "x").await;
    guest.is(423, "MKCOL", &format!("{home}/d/y"), &[], "").await;
    ana.is(201, "PUT", &format!("{home}/d/x"), &[("if", &format!("</dav{home}/d> ({token})"))], "x").await;
}

on_each_store!(properties_are_kept_with_the_file);

async fn properties_are_kept_with_the_file(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    client.put("/Ferry/a", "x").await;
    let set =
        "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><z:colour xmlns:z='urn:z'>r&amp;d</z:colour></D:prop></D:set></D:propertyupdate>";
    let done = client.is(207, "PROPPATCH", "/Ferry/a", &[], set).await;
    assert!(text(&done).contains("200 OK"), "{}", text(&done));
    let ask = "<D:propfind xmlns:D='DAV:'><D:prop><z:colour xmlns:z='urn:z'/><D:displayname/><oc:checksums xmlns:oc='http://owncloud.org/ns'/></D:prop></D:propfind>";
    let asked = |path: String| {
        let client = &client;
        async move { text(&client.is(207, "PROPFIND", &path, &[("depth", "0")], ask).await) }
    };
    let found = asked("/Ferry/a".into()).await;
    assert!(found.contains(">r&amp;d</") && found.contains(">a</D:displayname>"), "{found}");
    assert!(found.contains(&format!("SHA256:{}", ContentHash::of(b"x"))), "{found}");
    client.is(201, "MOVE", "/Ferry/a", &[("destination", "/dav/Ferry/b")], "").await;
    client.is(201, "COPY", "/Ferry/b", &[("destination", "/dav/Ferry/c")], "").await;
    assert!(asked("/Ferry/b".into()).await.contains(">r&amp;d</") && asked("/Ferry/c".into()).await.contains(">r&amp;d</"));
    let remove = set.replace("D:set", "D:remove").replace("r&amp;d", "");
    client.is(207, "PROPPATCH", "/Ferry/b", &[], &remove).await;
    assert!(!asked("/Ferry/b".into()).await.contains("colour>") && asked("/Ferry/c".into()).await.contains(">r&amp;d</"));
    // Of a live property nothing is changed, and nothing beside it.
    let both = set.replace("</D:prop>", "<D:getetag>x</D:getetag></D:prop>");
    let refused = client.is(207, "PROPPATCH", "/Ferry/b", &[], &both).await;
    assert!(text(&refused).contains("403 ") && text(&refused).contains("424 "), "{}", text(&refused));
    assert!(!asked("/Ferry/b".into()).await.contains("colour>"));
    let huge = set.replace("r&amp;d", &"x".repeat(20_000));
    client.is(413, "PROPPATCH", "/Ferry/b", &[], &huge).await;
    // What is deleted and made anew is another file.
    client.is(204, "DELETE", "/Ferry/c", &[], "").await;
    client.put("/Ferry/c", "x").await;
    assert!(!asked("/Ferry/c".into()).await.contains("colour>"));
}

on_each_store!(everything_below_is_bounded_and_etags_tell);

async fn everything_below_is_bounded_and_etags_tell(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    client.is(201, "MKCOL", "/Ferry/d", &[], "").await;
    client.put("/Ferry/d/a", "x").await;
    let etag = || async { values(&client.is(207, "PROPFIND", "/Ferry/", &[("depth", "0")], "").await, "D:getetag") };
    let before = etag().await;
    assert_eq!(before, etag().await);
    client.put("/Ferry/d/a", "y").await;
    assert_ne!(before, etag().await, "something below has changed");
    let deep = client.is(207, "PROPFIND", "/Ferry/", &[("depth", "infinity")], "").await;
    assert_eq!(values(&deep, "D:href"), ["/dav/Ferry/", "/dav/Ferry/d/", "/dav/Ferry/d/a"]);
    assert_eq!(client.list("/Ferry").await, ["/Ferry/d/"]);
    let refused = client.is(403, "PROPFIND", "/", &[("depth", "infinity")], "").await;
    assert!(text(&refused).contains("propfind-finite-depth"));
    // More than is answered at once.
    let list: Vec<NamespaceInfo> = serde_json::from_value(world.get(&alice, "/sync/v1/namespaces").await.json()).unwrap();
    let (epoch, mut nodes) = (list[0].epoch, Vec::new());
    devices_chunk(&world, &alice, b"one").await;
    for n in 0..1001u16 {
        let mut update = file(&alice, 1, b"one");
        let mut id = [1; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        update.id = ferry_protocol::NodeId::from_bytes(id);
        let stamp = Stamp { counter: 3, replica: ReplicaId::from_bytes([1; 16]) };
        update.state.move_to(Place { stamp, parent: ferry_protocol::NodeId::ROOT, name: Name::new(format!("n{n:04}")).unwrap() });
        nodes.push(update);
    }
    devices_commit(&world, &alice, 1, nodes).await;
    let refused = client.is(403, "PROPFIND", "/Ferry/", &[("depth", "infinity"), ("x-litmus", "x")], "").await;
    assert!(text(&refused).contains("propfind-finite-depth"));
    assert_eq!(client.list("/Ferry/").await.len(), 1002);
    // A device that asks hears of what clients did.
    let page: FeedPage = world.get(&alice, &format!("/sync/v1/{}/delta?since=0&epoch={epoch}&limit=2000", alice.home)).await.wire();
    assert_eq!(page.nodes.len(), 1003);
}

on_each_store!(a_conflicted_copy_is_a_file_of_its_own);

async fn a_conflicted_copy_is_a_file_of_its_own(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    // Two devices that did not know of each other wrote the same file, three times over.
    for n in [10u8, 20, 30, 40] {
        for (bytes, twin) in [(&b"one"[..], n), (b"two", n + 1)] {
            devices_chunk(&world, &alice, bytes).await;
            let mut update = file(&alice, twin, bytes);
            update.id = ferry_protocol::NodeId::from_bytes([n; 16]);
            devices_commit(&world, &alice, twin, vec![update]).await;
        }
    }
    let listed = client.list("/Ferry/").await;
    let pair = |n: u8| {
        let name = format!("/Ferry/f{}", n + 1);
        let copy = listed.iter().find(|href| href.starts_with(&format!("{name}%20")) || href.starts_with(&format!("{name} "))).unwrap();
        (name, copy.clone())
    };
    assert_eq!(listed.len(), 8, "{listed:?}");
    let (name, copy) = pair(10);
    let (kept, other) = (client.get(&name).await, client.get(&copy).await);
    assert_ne!(kept, other);
    client
        .is(207, "PROPPATCH", &name, &[], "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='urn:x'>y</x></prop></set></propertyupdate>")
        .await;
    client
        .is(403, "PROPPATCH", &copy, &[], "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='urn:x'>y</x></prop></set></propertyupdate>")
        .await;
    // Written to, moved, copied over and deleted by its own name, and the other stays as it is.
    client.is(204, "PUT", &copy, &[], "three").await;
    assert_eq!((client.get(&name).await, client.get(&copy).await), (kept.clone(), "three".to_owned()));
    let (name, copy) = pair(20);
    client.is(201, "MOVE", &copy, &[("destination", "/dav/Ferry/moved")], "").await;
    assert_eq!((client.get(&name).await, client.get("/Ferry/moved").await), (kept.clone(), other.clone()));
    let (name, copy) = pair(30);
    client.is(204, "DELETE", &copy, &[], "").await;
    client.is(404, "GET", &copy, &[], "").await;
    assert_eq!(client.get(&name).await, kept);
    let (name, copy) = pair(40);
    client.is(201, "COPY", &copy, &[("destination", "/dav/Ferry/copied")], "").await;
    assert_eq!((client.get(&name).await, client.get(&copy).await, client.get("/Ferry/copied").await), (kept, other.clone(), other));
    assert_eq!(client.list("/Ferry/").await.len(), 8);
}

on_each_store!(what_is_purged_takes_its_properties_along);

async fn what_is_purged_takes_its_properties_along(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let client = Client::of(&world, &alice, 1).await;
    client.put("/Ferry/a", "x").await;
    let set = "<propertyupdate xmlns='DAV:'><set><prop><x xmlns='urn:x'>y</x></prop></set></propertyupdate>";
    client.is(207, "PROPPATCH", "/Ferry/a", &[], set).await;
    client.is(204, "DELETE", "/Ferry/a", &[], "").await;
    let nodes = || async { world.app.db.dav_prop_nodes(alice.home, 9).await.unwrap().len() };
    assert_eq!(nodes().await, 1, "from the trash it comes back with them");
    let entry = world.app.content.enter_home(&caller(&world, &alice).await).await.unwrap();
    let purged = world.app.content.purge(&entry, crate::service::content::PurgeWhat::Before(i64::MAX)).await.unwrap();
    assert_eq!((purged.entries, nodes().await), (1, 0));
}
