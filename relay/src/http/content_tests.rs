//! Content over the real router: the daemon's binary routes, the plain API, and who gets in where.

use super::*;
use crate::config::Config;
use crate::service::UserRole;
use crate::service::accounts::NewUser;
use crate::store::content::Scope;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use ferry_protocol::wire::*;
use ferry_protocol::*;
use http_body_util::BodyExt;
use serde_json::{Value as JsonValue, json};
use tower::ServiceExt;

pub(super) const PASSWORD: &str = "correct horse";

/// Names and values of a request's headers.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

pub(super) struct World {
    pub(super) app: AppState,
    pub(super) router: Router,
    pub(super) _dir: Option<tempfile::TempDir>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> JsonValue {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
    pub(super) fn wire<B: ferry_protocol::wire::Body>(&self) -> B {
        decode(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
    pub(super) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("{name} in {}", self.json())).to_owned()
    }
}

/// A user who calls.
pub(super) struct User {
    email: String,
    pub(super) token: String,
    pub(super) id: UserId,
    pub(super) device: DeviceId,
    pub(super) home: NamespaceId,
}

impl World {
    pub(super) async fn on(kind: Db) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data: dir.path().into(),
            database: kind.config(dir.path()),
            public_url: "https://files.example.org".into(),
            ..Config::default()
        };
        let app = AppState::new(App::open(&config).await.unwrap());
        let (router, _) = router(&app, &app.roles);
        Self { app, router, _dir: Some(dir) }
    }

    /// One of several processes that serve what this configuration names.
    #[cfg(feature = "cluster")]
    pub(super) async fn one_of_many(config: &Config, clock: crate::clock::ManualClock) -> Self {
        let app = AppState::new(App::open_with(config, std::sync::Arc::new(clock)).await.unwrap());
        let (router, _) = router(&app, &app.roles);
        Self { app, router, _dir: None }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    pub(super) async fn call(&self, user: &User, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", user.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(super) async fn get(&self, user: &User, path: &str) -> Answer {
        self.call(user, Method::GET, path, &[], "").await
    }

    pub(super) async fn json(&self, user: &User, method: Method, path: &str, body: JsonValue) -> Answer {
        self.call(user, method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(super) async fn wire<B: ferry_protocol::wire::Body>(&self, user: &User, path: &str, body: &B) -> Answer {
        self.call(user, Method::POST, path, &[("content-type", CONTENT_TYPE)], encode(body)).await
    }

    pub(super) async fn user(&self, n: u8) -> User {
        let email = format!("u{n}@example.org");
        self.app.accounts.add_user(NewUser { email: &email, name: None, password: PASSWORD }, UserRole::User).await.unwrap();
        self.login(email, Some(n)).await
    }

    /// One more device of a user.
    pub(super) async fn device(&self, user: &User, n: u8) -> User {
        self.login(user.email.clone(), Some(n)).await
    }

    /// A user in a browser, without a device.
    pub(super) async fn browser(&self, user: &User) -> User {
        self.login(user.email.clone(), None).await
    }

    async fn login(&self, email: String, n: Option<u8>) -> User {
        let device = n.map(|n| json!({"name": "laptop", "public_key": hex::encode([n; 32])}));
        let body = json!({"email": email, "password": PASSWORD, "device": device}).to_string();
        let request = Request::post("/auth/login").header("content-type", "application/json").body(Body::from(body)).unwrap();
        let token = self.send(request).await.text("access_token");
        let device = n.map(|n| DeviceId::of_public_key(&[n; 32])).unwrap_or_default();
        let mut user = User { email, token, id: UserId::default(), device, home: NamespaceId::default() };
        let list: Vec<NamespaceInfo> = serde_json::from_value(self.get(&user, "/sync/v1/namespaces").await.json()).unwrap();
        (user.id, user.home) = (list[0].owner, list[0].id);
        user
    }

    pub(super) async fn upload(&self, user: &User, name: &str, bytes: &[u8]) -> String {
        let init = json!({"file_name": name, "file_size": bytes.len(), "file_hash": ContentHash::of(bytes)});
        let id = self.json(user, Method::POST, "/upload/init", init).await.text("version_id");
        let put = self.call(user, Method::PUT, &format!("/upload/{id}/chunks/0"), &[], bytes.to_vec()).await;
        assert_eq!(put.status, 200, "{}", put.json());
        self.call(user, Method::POST, &format!("/upload/complete/{id}"), &[], "").await.text("file_id")
    }
}

pub(super) fn file(user: &User, n: u8, bytes: &[u8]) -> NodeUpdate {
    let replica = ReplicaId::from_bytes([n; 16]);
    let mut state =
        NodeState::new(Place { stamp: Stamp { counter: 1, replica }, parent: NodeId::ROOT, name: Name::new(format!("f{n}")).unwrap() });
    let manifest = Manifest::new(ContentHash::of(bytes), vec![ChunkRef { id: ChunkId::of(bytes), len: bytes.len() as u32 }]).unwrap();
    let content = node::Content::File(FileContent::new(manifest, 1));
    let author = Author { device: user.device, name: "laptop".into() };
    let value = Value { dot: Dot { replica, counter: 1 }, stamp: Stamp { counter: 2, replica }, content, author, wall_ms: 0 };
    state.body_mut().put(&[], value);
    NodeUpdate { id: NodeId::from_bytes([n; 16]), state }
}

pub(super) fn commit(n: u8, epoch: Epoch, nodes: Vec<NodeUpdate>) -> CommitRequest {
    CommitRequest {
        commit: CommitId::from_bytes([n; 16]),
        epoch,
        base_seq: 0,
        replica: ReplicaId::from_bytes([n; 16]),
        nodes,
        chunks: vec![],
    }
}

pub(super) fn frames(bytes: &[u8]) -> Vec<u8> {
    [&ChunkFrame::header(ChunkId::of(bytes), bytes.len())[..], bytes].concat()
}

on_each_store!(a_devices_round_trip);

async fn a_devices_round_trip(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let ns = alice.home;
    let list: Vec<NamespaceInfo> = serde_json::from_value(world.get(&alice, "/sync/v1/namespaces").await.json()).unwrap();
    assert_eq!((list.len(), list[0].name.as_str(), list[0].role), (1, "Ferry", ferry_protocol::wire::Role::Owner));
    let epoch = list[0].epoch;
    let bytes = vec![b'x'; 100_000];
    let request = commit(1, epoch, vec![file(&alice, 1, &bytes)]);
    let missing = world.wire(&alice, &format!("/sync/v1/{ns}/commit"), &request).await;
    assert_eq!(missing.status, 409);
    assert_eq!(missing.wire::<CommitReply>(), CommitReply::MissingChunks(vec![ChunkId::of(&bytes)]));
    let ask = ChunkIds { ids: vec![ChunkId::of(&bytes)] };
    assert_eq!(world.wire(&alice, &format!("/upload/v1/{ns}/missing"), &ask).await.wire::<ChunkIds>(), ask);
    let packed = zstd::bulk::compress(&frames(&bytes), 1).unwrap();
    let headers = [("content-type", CHUNKS_CONTENT_TYPE), ("content-encoding", "zstd")];
    let put = world.call(&alice, Method::POST, &format!("/upload/v1/{ns}/chunks"), &headers, packed).await;
    assert_eq!((put.status, put.json()), (200, json!({"stored": 1})));
    let accepted = world.wire(&alice, &format!("/sync/v1/{ns}/commit"), &request).await;
    assert_eq!(accepted.status, 200);
    assert_eq!(accepted.wire::<CommitReply>(), CommitReply::Accepted { head_seq: 1, gapless: true });
    let page: FeedPage = world.get(&alice, &format!("/sync/v1/{ns}/delta?since=0&epoch={epoch}&limit=10")).await.wire();
    assert_eq!((page.cursor, page.nodes), (1, request.nodes));
    // Chunks come back as frames, compressed if asked so.
    let headers = [("content-type", CONTENT_TYPE), ("accept-encoding", "zstd")];
    let got = world.call(&alice, Method::POST, &format!("/download/v1/{ns}/chunks"), &headers, encode(&ask)).await;
    assert_eq!(got.headers["content-encoding"], "zstd");
    assert_eq!(zstd::stream::decode_all(&got.body[..]).unwrap(), frames(&bytes));
    let plain = world.wire(&alice, &format!("/download/v1/{ns}/chunks"), &ask).await;
    assert_eq!((plain.headers["content-type"].to_str().unwrap(), plain.body), (CHUNKS_CONTENT_TYPE, frames(&bytes)));
    // Another epoch: 410 names the one that counts.
    let gone = world.get(&alice, &format!("/sync/v1/{ns}/delta?since=0&epoch={}", Epoch::default())).await;
    assert_eq!((gone.status, gone.text("epoch")), (410, epoch.to_string()));
    let other = world.wire(&alice, &format!("/sync/v1/{ns}/commit"), &commit(2, Epoch::default(), vec![])).await;
    assert_eq!((other.status, other.wire::<CommitReply>()), (409, CommitReply::EpochChanged(epoch)));
}

on_each_store!(malformed_bodies_are_refused_with_a_reason);

async fn malformed_bodies_are_refused_with_a_reason(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let ns = alice.home;
    let commit_path = format!("/sync/v1/{ns}/commit");
    let chunks_path = format!("/upload/v1/{ns}/chunks");
    let wire = [("content-type", CONTENT_TYPE)];
    let chunks = [("content-type", CHUNKS_CONTENT_TYPE)];
    let bad_zstd = [("content-type", CHUNKS_CONTENT_TYPE), ("content-encoding", "zstd")];
    let gzip = [("content-type", CHUNKS_CONTENT_TYPE), ("content-encoding", "gzip")];
    let mut wrong = frames(b"right");
    *wrong.last_mut().unwrap() ^= 1;
    let huge = [&ChunkFrame::header(ChunkId::default(), u32::MAX as usize)[..], b"x"].concat();
    let mut trailing = encode(&ChunkIds { ids: vec![] });
    trailing.push(0);
    let cases: [(&str, Headers<'_>, Vec<u8>, u16); 11] = [
        (&commit_path, &[], vec![], 415),
        (&commit_path, &wire, vec![], 400),
        (&commit_path, &wire, vec![9, 1, 2], 415),
        (&commit_path, &wire, vec![1, 0xff, 0xff, 0xff], 400),
        (&commit_path, &wire, trailing, 400),
        (&chunks_path, &wire, frames(b"x"), 415),
        (&chunks_path, &chunks, wrong, 422),
        (&chunks_path, &chunks, frames(b"cut")[..39].to_vec(), 400),
        (&chunks_path, &chunks, huge, 400),
        (&chunks_path, &bad_zstd, b"not zstd".to_vec(), 400),
        (&chunks_path, &gzip, frames(b"x"), 415),
    ];
    for (i, (path, headers, body, status)) in cases.into_iter().enumerate() {
        let answer = world.call(&alice, Method::POST, path, headers, body).await;
        assert_eq!(answer.status, status, "case {i}: {}", answer.json());
        assert_eq!(answer.headers["content-type"], "application/problem+json", "case {i}");
        assert!(!answer.text("detail").is_empty());
    }
    for path in ["delta?since=-1", "delta?since=x", "delta?epoch=zz", "delta?since=99999999999999999999"] {
        assert_eq!(world.get(&alice, &format!("/sync/v1/{ns}/{path}")).await.status, 400, "{path}");
    }
    for body in [
        json!({}),
        json!({"file_name": "x", "file_size": -1, "file_hash": "00"}),
        json!({"file_name": "x", "file_size": 1, "file_hash": "zz"}),
    ] {
        assert_eq!(world.json(&alice, Method::POST, "/upload/init", body.clone()).await.status, 422, "{body}");
    }
    for since in ["yesterday", "c!!", "2026-13-45T00:00:00Z"] {
        assert_eq!(world.get(&alice, &format!("/sync/delta?since={since}")).await.status, 400, "{since}");
    }
    assert_eq!(
        world.app.content.storage_totals().await.unwrap(),
        crate::store::content::StorageTotals { namespaces: 1, ..Default::default() }
    );
}

on_each_store!(a_download_has_safe_headers_and_ranges);

async fn a_download_has_safe_headers_and_ranges(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let id = world.upload(&alice, "evil\".html", b"0123456789").await;
    let path = format!("/download/{id}");
    let whole = world.get(&alice, &path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    let header = |a: &Answer, name: &str| a.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header(&whole, "cache-control"), "private, no-store");
    assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
    assert_eq!(header(&whole, "content-length"), "10");
    assert!(header(&whole, "content-disposition").starts_with("attachment; filename=\"evil_.html\""));
    let etag = header(&whole, "etag");
    let part = world.call(&alice, Method::GET, &path, &[("range", "bytes=2-4"), ("if-range", &etag)], "").await;
    assert_eq!((part.status, &part.body[..], header(&part, "content-range").as_str()), (206, &b"234"[..], "bytes 2-4/10"));
    let beyond = world.call(&alice, Method::GET, &path, &[("range", "bytes=10-")], "").await;
    assert_eq!((beyond.status, header(&beyond, "content-range").as_str()), (416, "bytes */10"));
    let same = world.call(&alice, Method::GET, &path, &[("if-none-match", &etag)], "").await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = world.call(&alice, Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.body.len(), header(&head, "content-length").as_str()), (200, 0, "10"));
    // A signed address needs no token; its address is the configured one.
    let url = world.json(&alice, Method::POST, &format!("{path}/url"), json!({"expires_in": 60})).await.text("url");
    let signed = url.strip_prefix("https://files.example.org").unwrap();
    let got = world.send(Request::get(signed).body(Body::empty()).unwrap()).await;
    assert_eq!((got.status, &got.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(world.send(Request::get(format!("{signed}x")).body(Body::empty()).unwrap()).await.status, 404);
}

on_each_store!(chunks_come_as_json_as_a_form_and_raw);

async fn chunks_come_as_json_as_a_form_and_raw(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let begin = async |name: &str, bytes: &[u8]| {
        let init = json!({"file_name": name, "file_size": bytes.len(), "file_hash": ContentHash::of(bytes), "path": "/docs"});
        world.json(&alice, Method::POST, "/upload/init", init).await
    };
    let id = begin("a", b"json!").await.text("version_id");
    let body = json!({"version_id": id, "chunk_index": 0, "chunk_data": "anNvbiE="});
    let put = world.json(&alice, Method::POST, "/upload/chunk", body).await;
    assert_eq!((put.status, put.json()["uploaded"].as_bool(), put.json()["remaining"].as_u64()), (200, Some(true), Some(0)));
    let id = begin("b", b"form!").await.text("version_id");
    let field = |name: &str, value: &str| format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let form = [field("version_id", &id), field("chunk_index", "0"), field("chunk_data", "form!"), "--B--\r\n".into()].concat();
    let put = world.call(&alice, Method::POST, "/upload/chunk", &[("content-type", "multipart/form-data; boundary=B")], form).await;
    assert_eq!(put.status, 200, "{}", put.json());
    let done = world.call(&alice, Method::POST, &format!("/upload/complete/{id}"), &[], "").await;
    assert_eq!(done.text("status"), "completed");
    let again = begin("b2", b"form!").await;
    // The hash may come at the end.
    let init = json!({"file_name": "c", "file_size": 4, "path": "/docs"});
    let id = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    assert!(world.get(&alice, &format!("/upload/{id}")).await.json()["file_hash"].is_null());
    let raw =
        world.call(&alice, Method::PUT, &format!("/upload/{id}/chunks/0"), &[("content-type", "application/octet-stream")], "late").await;
    assert_eq!(raw.status, 200);
    let complete = format!("/upload/complete/{id}");
    let told = |bytes: &[u8]| json!({"file_hash": ContentHash::of(bytes)});
    assert_eq!(world.json(&alice, Method::POST, &complete, json!({"file_hash": "zz"})).await.text("code"), "invalid_hash");
    assert_eq!(world.json(&alice, Method::POST, &complete, told(b"other")).await.text("code"), "file_hash_mismatch");
    assert_eq!(world.call(&alice, Method::POST, &complete, &[("content-type", "text/plain")], "{}").await.status, 415);
    assert_eq!(world.json(&alice, Method::POST, &complete, told(b"late")).await.text("file_hash"), ContentHash::of(b"late").to_string());
    assert_eq!((again.json()["deduplication"].as_bool(), again.json()["file_id"].is_string()), (Some(true), true));
    let list = world.get(&alice, "/metadata/files?path=/docs").await.json();
    let names: Vec<&str> = list["files"].as_array().unwrap().iter().map(|f| f["file_path"].as_str().unwrap()).collect();
    assert_eq!(names, ["/docs/b", "/docs/b2", "/docs/c"]);
    let delta = world.get(&alice, "/sync/delta?since=1970-01-01T00:00:00Z").await.json();
    assert_eq!(delta["changes"].as_array().unwrap().len(), 4);
    assert!(delta["cursor"].is_string() && delta["server_time"].is_string() && delta["has_more"] == false);
}

on_each_store!(what_is_not_the_callers_does_not_exist);

/// Every content route with the ids of somebody else's things: not there, in the same words as for ids that never were (R16, R19).
async fn what_is_not_the_callers_does_not_exist(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let id = world.upload(&alice, "secret", b"secret").await;
    let init = json!({"file_name": "open", "file_size": 4, "file_hash": ContentHash::of(b"open")});
    let open = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    let ids = encode(&ChunkIds { ids: vec![ChunkId::of(b"secret")] });
    let wire: &[(&str, &str)] = &[("content-type", CONTENT_TYPE)];
    let text: &[(&str, &str)] = &[("content-type", "application/json")];
    let rename = json!({"file_name": "mine"}).to_string().into_bytes();
    let restore = |id: &str| json!({"file_id": id}).to_string().into_bytes();
    let routes = |ns: &str, file: &str, upload: &str| {
        [
            (Method::GET, format!("/sync/v1/{ns}/delta"), wire, vec![]),
            (Method::POST, format!("/sync/v1/{ns}/commit"), wire, encode(&commit(1, Epoch::default(), vec![]))),
            (Method::POST, format!("/upload/v1/{ns}/missing"), wire, ids.clone()),
            (Method::POST, format!("/upload/v1/{ns}/chunks"), wire, frames(b"x")),
            (Method::POST, format!("/download/v1/{ns}/chunks"), wire, ids.clone()),
            (Method::GET, format!("/metadata/files?space_id={ns}"), text, vec![]),
            (Method::GET, format!("/api/v1/trash?space_id={ns}"), text, vec![]),
            (Method::GET, format!("/metadata/files?parent={file}"), text, vec![]),
            (Method::GET, format!("/metadata/files/{file}"), text, vec![]),
            (Method::PUT, format!("/metadata/files/{file}"), text, rename.clone()),
            (Method::DELETE, format!("/metadata/files/{file}"), text, vec![]),
            (Method::GET, format!("/api/v1/files/{file}/versions"), text, vec![]),
            (Method::POST, "/api/v1/trash/restore".into(), text, restore(file)),
            (Method::GET, format!("/download/{file}"), text, vec![]),
            (Method::POST, format!("/download/{file}/url"), text, vec![]),
            (Method::GET, format!("/upload/{upload}"), text, vec![]),
            (Method::PUT, format!("/upload/{upload}/chunks/0"), text, b"open".to_vec()),
            (Method::POST, format!("/upload/complete/{upload}"), text, vec![]),
            (Method::DELETE, format!("/upload/{upload}"), text, vec![]),
        ]
    };
    let never = "00112233445566778899aabbccddeeff";
    let without_id = |a: &Answer| {
        let mut body = a.json();
        body.as_object_mut().unwrap().remove("request_id");
        body
    };
    for ((method, theirs, headers, body), (_, random, ..)) in
        routes(&alice.home.to_string(), &id, &open).into_iter().zip(routes(never, never, never))
    {
        let real = world.call(&mal, method.clone(), &theirs, headers, body.clone()).await;
        let fake = world.call(&mal, method.clone(), &random, headers, body).await;
        assert_eq!(real.status, 404, "{method} {theirs}: {}", real.json());
        assert_eq!(without_id(&real), without_id(&fake), "{method} {theirs}");
    }
    assert_eq!(world.get(&alice, &format!("/download/{id}")).await.body, b"secret");
    let socket = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(world.call(&mal, Method::GET, &format!("/ws/sync/{}", alice.id), &socket, "").await.status, 403);
    let foreign = [&socket[..], &[("origin", "https://evil.example")]].concat();
    assert_eq!(world.call(&mal, Method::GET, &format!("/ws/sync/{}", mal.id), &foreign, "").await.status, 403);
}

on_each_store!(a_viewer_reads_and_changes_nothing);

async fn a_viewer_reads_and_changes_nothing(kind: Db) {
    let world = World::on(kind).await;
    let (alice, vi) = (world.user(1).await, world.user(2).await);
    let id = world.upload(&alice, "a", b"text").await;
    let ns = alice.home;
    let mut tx = world.app.db.begin(Scope::Namespace(ns)).await.unwrap();
    tx.set_member(ns, vi.id, ferry_protocol::wire::Role::Viewer, 0).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.get(&vi, &format!("/download/{id}")).await.body, b"text");
    let wire = [("content-type", CONTENT_TYPE)];
    let text = [("content-type", "application/json")];
    let init = json!({"file_name": "x", "file_size": 1, "file_hash": ContentHash::of(b"x"), "space_id": ns}).to_string().into_bytes();
    let cases: [(Method, String, Headers<'_>, Vec<u8>); 7] = [
        (Method::POST, format!("/sync/v1/{ns}/commit"), &wire, encode(&commit(1, Epoch::default(), vec![]))),
        (Method::POST, format!("/upload/v1/{ns}/chunks"), &[("content-type", CHUNKS_CONTENT_TYPE)], frames(b"x")),
        (Method::POST, format!("/upload/v1/{ns}/missing"), &wire, encode(&ChunkIds { ids: vec![] })),
        (Method::POST, "/upload/init".into(), &text, init),
        (Method::PUT, format!("/metadata/files/{id}"), &text, json!({"file_name": "b"}).to_string().into_bytes()),
        (Method::DELETE, format!("/metadata/files/{id}"), &text, vec![]),
        (Method::POST, "/api/v1/trash/restore".into(), &text, json!({"file_id": id}).to_string().into_bytes()),
    ];
    for (method, path, headers, body) in cases {
        let answer = world.call(&vi, method.clone(), &path, headers, body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN.as_u16(), "{method} {path}: {}", answer.json());
    }
}
