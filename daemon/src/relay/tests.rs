//! The client against a relay that misbehaves: a small server whose answers each test writes itself.

use super::*;
use crate::bandwidth::Limiter;
use crate::identity::{Credentials, IdentityError};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State, WebSocketUpgrade, ws};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use ferry_protocol::wire::{self, CHUNKS_CONTENT_TYPE, CONTENT_TYPE, ChunkFrame, ChunkIds, CommitReply, CommitRequest, FeedPage};
use ferry_protocol::{ChunkId, CommitId, DeviceId, Epoch, NamespaceId, ReplicaId, UserId, VerifiedChunk};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NAMESPACE: NamespaceId = NamespaceId::from_bytes([3; 16]);

/// Credentials in memory; can be told to fail.
#[derive(Default)]
struct Kept {
    saved: Mutex<Vec<Credentials>>,
    fail: Mutex<bool>,
}

impl KeepCredentials for Kept {
    fn save(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        if *self.fail.lock().unwrap() {
            return Err(IdentityError::Io { path: "credentials.json".into(), source: io::Error::from(io::ErrorKind::StorageFull) });
        }
        self.saved.lock().unwrap().push(credentials.clone());
        Ok(())
    }

    fn remove(&self) -> Result<(), IdentityError> {
        self.saved.lock().unwrap().clear();
        Ok(())
    }
}

fn credentials() -> Credentials {
    Credentials {
        relay: String::new(),
        user_id: UserId::from_bytes([1; 16]),
        device_id: DeviceId::from_bytes([2; 16]),
        access_token: "access-0".into(),
        refresh_token: "refresh-0".into(),
        grant_key: None,
    }
}

fn timing() -> Timing {
    Timing {
        idle: Duration::from_secs(20),
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(10),
        ..Timing::default()
    }
}

async fn serve(router: Router) -> RelayUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn client_with(url: RelayUrl, keep: Arc<Kept>, timing: Timing) -> RelayClient {
    let options = RelayOptions { up: Limiter::default(), down: Limiter::default(), timing };
    RelayClient::new(url, options, Some(credentials()), keep).unwrap()
}

async fn client_to(router: Router) -> RelayClient {
    client_with(serve(router).await, Arc::default(), timing())
}

/// A client of a relay that answers everything in one way.
async fn client_of(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> RelayClient {
    client_to(Router::new().fallback(any(move || async move { answer() }))).await
}

fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

fn problem(status: u16, body: &'static str) -> Response {
    (StatusCode::from_u16(status).unwrap(), typed("application/problem+json", body)).into_response()
}

fn commit_request() -> CommitRequest {
    CommitRequest {
        commit: CommitId::from_bytes([5; 16]),
        epoch: Epoch::from_bytes([6; 16]),
        base_seq: 1,
        replica: ReplicaId::from_bytes([7; 16]),
        nodes: vec![],
        chunks: vec![],
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&ChunkFrame::header(ChunkId::of(bytes), bytes.len())[..], bytes].concat()
}

async fn all(mut stream: ChunkStream) -> Result<Vec<FetchedChunk>, RelayError> {
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next().await {
        chunks.push(chunk?);
    }
    Ok(chunks)
}

/// A relay with tokens: how often they were refreshed, and which ones count now.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<u32>>);

async fn refresh(State(tokens): State<Tokens>, body: String) -> Response {
    let mut n = tokens.0.lock().unwrap();
    if body != format!(r#"{{"refresh_token":"refresh-{n}"}}"#) {
        return problem(401, r#"{"code":"token_reused","detail":"This login has ended."}"#);
    }
    *n += 1;
    typed(
        "application/json",
        format!(r#"{{"access_token":"access-{n}","token_type":"Bearer","expires_in":900,"refresh_token":"refresh-{n}"}}"#),
    )
}

async fn guarded(State(tokens): State<Tokens>, headers: HeaderMap) -> Response {
    let n = *tokens.0.lock().unwrap();
    let good = n > 0 && headers[header::AUTHORIZATION] == format!("Bearer access-{n}");
    if good { typed("application/json", "[]") } else { problem(401, r#"{"code":"token_expired","detail":"The token has ended."}"#) }
}

fn with_tokens(tokens: &Tokens) -> Router {
    Router::new().route("/auth/refresh", post(refresh)).route("/sync/v1/namespaces", get(guarded)).with_state(tokens.clone())
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once_for_all_callers_and_stored_first() {
    let (tokens, kept) = (Tokens::default(), Arc::new(Kept::default()));
    let client = client_with(serve(with_tokens(&tokens)).await, Arc::clone(&kept), timing());
    let calls: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.namespaces().await }
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), []);
    }
    assert_eq!(*tokens.0.lock().unwrap(), 1);
    assert_eq!(kept.saved.lock().unwrap().iter().map(|c| c.refresh_token.as_str()).collect::<Vec<_>>(), ["refresh-1"]);
}

#[tokio::test]
async fn a_pair_that_could_not_be_stored_is_stored_before_it_is_used() {
    let (tokens, kept) = (Tokens::default(), Arc::new(Kept::default()));
    let client = client_with(serve(with_tokens(&tokens)).await, Arc::clone(&kept), timing());
    *kept.fail.lock().unwrap() = true;
    for _ in 0..3 {
        let error = client.namespaces().await.unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("cannot be stored"), "{error}");
    }
    *kept.fail.lock().unwrap() = false;
    client.namespaces().await.unwrap();
    assert_eq!(*tokens.0.lock().unwrap(), 1);
    assert_eq!(kept.saved.lock().unwrap().last().unwrap().access_token, "access-1");
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_renewed_without_being_refused() {
    // Every token of this relay ends at once, and none is ever refused.
    let refreshed = Arc::new(Mutex::new(0));
    let log = Arc::clone(&refreshed);
    let refresh = move || async move {
        *log.lock().unwrap() += 1;
        typed("application/json", r#"{"access_token":"a","refresh_token":"r","expires_in":0}"#)
    };
    let first = Arc::new(Mutex::new(true));
    let list = move || async move {
        if std::mem::take(&mut *first.lock().unwrap()) { problem(401, "{}") } else { typed("application/json", "[]") }
    };
    let router = Router::new().route("/auth/refresh", post(refresh)).route("/sync/v1/namespaces", get(list));
    let client = client_to(router).await;
    for expected in 1..4 {
        client.namespaces().await.unwrap();
        assert_eq!(*refreshed.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_refused_refresh_asks_for_a_login_and_not_again() {
    let tokens = Tokens(Arc::new(Mutex::new(7)));
    let error = client_to(with_tokens(&tokens)).await.namespaces().await.unwrap_err();
    assert_eq!(error.to_string(), "This login has ended. Run 'ferry login' on this device.");
    // A new token that is refused too is not refreshed for ever.
    let stubborn = Router::new()
        .route("/auth/refresh", post(|| async { typed("application/json", r#"{"access_token":"a","refresh_token":"r"}"#) }))
        .fallback(|| async { problem(401, "{}") });
    assert!(matches!(client_to(stubborn).await.namespaces().await, Err(RelayError::LoginRequired { .. })));
}

#[tokio::test]
async fn login_join_and_logout_keep_and_forget_the_credentials() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let router = Router::new().fallback(any(move |request: Request| async move {
        let path = request.uri().path().to_owned();
        let body = to_bytes(request.into_body(), 10_000).await.unwrap();
        log.lock().unwrap().push((path.clone(), serde_json::from_slice::<serde_json::Value>(&body).unwrap()));
        if path == "/auth/logout" {
            return StatusCode::NO_CONTENT.into_response();
        }
        let reply = serde_json::json!({"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "expires_in": 900,
            "user_id": UserId::from_bytes([8; 16]), "device_id": DeviceId::from_bytes([9; 16]), "more": 1});
        typed("application/json", reply.to_string())
    }));
    let (url, kept) = (serve(router).await, Arc::new(Kept::default()));
    let client = RelayClient::new(url.clone(), RelayOptions::default(), None, kept.clone()).unwrap();
    assert!(matches!(client.namespaces().await, Err(RelayError::LoginRequired { .. })));
    let device = DeviceInfo { name: "LAPTOP".into(), public_key: [0xab; 32] };
    let credentials = client.login("me@example.org", "secret", &device).await.unwrap();
    assert_eq!((credentials.user_id, credentials.relay), (UserId::from_bytes([8; 16]), url.to_string()));
    assert_eq!(kept.saved.lock().unwrap().len(), 1);
    client.join("code", &device).await.unwrap();
    client.logout().await.unwrap();
    assert!(kept.saved.lock().unwrap().is_empty() && client.credentials().await.is_none());
    let device = serde_json::json!({"name": "LAPTOP", "public_key": "ab".repeat(32)});
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], ("/auth/login".into(), serde_json::json!({"email": "me@example.org", "password": "secret", "device": device})));
    assert_eq!(asked[1], ("/auth/join".into(), serde_json::json!({"secret": "code", "device": device})));
    assert_eq!(asked[2], ("/auth/logout".into(), serde_json::json!({"refresh_token": "r"})));
}

#[tokio::test]
async fn a_wrong_password_is_not_a_lost_login() {
    let client = client_of(|| problem(401, r#"{"code":"bad_credentials","detail":"Email or password is wrong."}"#)).await;
    let device = DeviceInfo { name: "x".into(), public_key: [0; 32] };
    let error = client.login("a", "b", &device).await.unwrap_err();
    assert_eq!(error.to_string(), "Email or password is wrong.");
    assert!(matches!(error, RelayError::Forbidden(_)));
}

#[tokio::test]
async fn a_sign_in_page_is_never_parsed() {
    let pages: [fn() -> Response; 6] = [
        || typed("text/html; charset=utf-8", "<html>Welcome to our WiFi</html>"),
        || typed("text/html", ""),
        || (StatusCode::FOUND, [(header::LOCATION, "http://login.wifi/")], "moved").into_response(),
        || StatusCode::OK.into_response(),
        || (StatusCode::NETWORK_AUTHENTICATION_REQUIRED, typed("text/html", "sign in")).into_response(),
        || (StatusCode::NOT_FOUND, typed("text/html", "nginx")).into_response(),
    ];
    for page in pages {
        let client = client_of(page).await;
        let chunk = VerifiedChunk::of(b"chunk".to_vec());
        let mut errors = vec![
            client.delta(NAMESPACE, 0, None, 10).await.map(drop).unwrap_err(),
            client.commit(NAMESPACE, &commit_request()).await.map(drop).unwrap_err(),
            client.missing(NAMESPACE, &[chunk.id()]).await.map(drop).unwrap_err(),
            client.get_chunks(NAMESPACE, &[chunk.id()]).await.map(drop).unwrap_err(),
            client.namespaces().await.map(drop).unwrap_err(),
            client.server_info().await.map(drop).unwrap_err(),
        ];
        if page().status() != StatusCode::OK || page().headers().contains_key(header::CONTENT_TYPE) {
            errors.push(client.put_chunks(NAMESPACE, vec![chunk]).await.unwrap_err());
        }
        for error in errors {
            assert!(error.is_temporary(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_its_type_says_is_the_relays_fault() {
    let client = client_of(|| typed(CONTENT_TYPE, "<html>")).await;
    assert!(matches!(client.delta(NAMESPACE, 0, None, 10).await, Err(RelayError::VersionMismatch { .. })));
    let client = client_of(|| typed(CONTENT_TYPE, vec![wire::FORMAT, 0xff, 0xff])).await;
    assert!(matches!(client.delta(NAMESPACE, 0, None, 10).await, Err(RelayError::PeerFault { .. })));
    let client = client_of(|| typed(CONTENT_TYPE, wire::encode(&ChunkIds { ids: vec![ChunkId::of(b"other")] }))).await;
    assert!(matches!(client.missing(NAMESPACE, &[ChunkId::of(b"asked")]).await, Err(RelayError::PeerFault { .. })));
}

#[tokio::test]
async fn problems_say_what_to_do_next() {
    let of =
        |status: u16, body: &'static str| async move { client_of(move || problem(status, body)).await.delta(NAMESPACE, 9, None, 10).await };
    let epoch = r#"{"code":"epoch_changed","detail":"d","epoch":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}"#;
    assert_eq!(of(410, epoch).await, Ok(DeltaReply::EpochChanged(Epoch::from_bytes([10; 16]))));
    assert!(matches!(of(410, r#"{"code":"gone"}"#).await, Err(RelayError::PeerFault { .. })));
    assert!(matches!(of(413, r#"{"code":"quota_exceeded","detail":"Full."}"#).await, Err(RelayError::OverQuota(_))));
    assert!(matches!(of(415, r#"{"code":"unsupported_format","detail":"Old."}"#).await, Err(RelayError::VersionMismatch { .. })));
    assert!(matches!(of(500, "not json").await, Err(RelayError::Retry { .. })));
    let busy = client_of(|| {
        let mut response = problem(429, r#"{"code":"too_many_requests","detail":"Slow down."}"#);
        response.headers_mut().insert(header::RETRY_AFTER, "17".parse().unwrap());
        response
    });
    assert_eq!(busy.await.namespaces().await.unwrap_err().retry_after(), Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn commit_takes_200_and_409_as_answers() {
    for (status, reply) in
        [(200, CommitReply::Accepted { head_seq: 4, gapless: true }), (409, CommitReply::MissingChunks(vec![ChunkId::of(b"x")]))]
    {
        let body = wire::encode(&reply);
        let client = client_of(move || (StatusCode::from_u16(status).unwrap(), typed(CONTENT_TYPE, body.clone())).into_response()).await;
        assert_eq!(client.commit(NAMESPACE, &commit_request()).await.unwrap(), reply);
    }
    let client = client_of(|| problem(409, r#"{"code":"conflict","detail":"No."}"#)).await;
    assert!(matches!(client.commit(NAMESPACE, &commit_request()).await, Err(RelayError::Blocked(_))));
}

/// U02: a page of a format that came later, one with more in it than we know, and one with a node of a kind that we do not know: none is taken in by halves, so
/// that no node looks deleted, or changed, that only is not understood.
#[tokio::test]
async fn a_page_that_is_not_understood_is_refused_whole() {
    use ferry_protocol::{Author, Content, Dot, Name, NodeId, NodeState, Place, Stamp, Value};
    let replica = ReplicaId::from_bytes([5; 16]);
    let page_of = |content: Content| {
        let stamp = Stamp { counter: 1, replica };
        let mut state = NodeState::new(Place { stamp, parent: NodeId::ROOT, name: Name::new("n").unwrap() });
        let author = Author { device: DeviceId::from_bytes([2; 16]), name: "a".into() };
        state.body_mut().put(&[], Value { dot: Dot { replica, counter: 1 }, stamp, content, author, wall_ms: 1 });
        let nodes = vec![wire::NodeUpdate { id: NodeId::from_bytes([6; 16]), state }];
        FeedPage { epoch: Epoch::default(), replica, cursor: 1, head: 1, has_more: false, nodes }
    };
    let (directory, deleted) = (wire::encode(&page_of(Content::Dir)), wire::encode(&page_of(Content::Tombstone)));
    let delta = async |bytes: Vec<u8>| client_of(move || typed(CONTENT_TYPE, bytes.clone())).await.delta(NAMESPACE, 0, None, 10).await;
    assert_eq!(delta(directory.clone()).await, Ok(DeltaReply::Page { page: page_of(Content::Dir), lacks_since_ms: None }));

    let mut newer = directory.clone();
    newer[0] = wire::FORMAT + 1;
    let refused = delta(newer).await.unwrap_err();
    assert!(matches!(&refused, RelayError::VersionMismatch { detail } if detail.contains("upgrade")), "{refused:?}");
    let with_a_field = [directory.clone(), vec![0]].concat();
    assert!(matches!(delta(with_a_field).await, Err(RelayError::PeerFault { .. })));
    // The one byte by which the two differ is the kind.
    let at = directory.iter().zip(&deleted).position(|(a, b)| a != b).unwrap();
    assert!(directory.len() == deleted.len() && directory[at + 1..] == deleted[at + 1..]);
    for kind in 4..=0x7f {
        let mut unknown = directory.clone();
        unknown[at] = kind;
        assert!(matches!(delta(unknown).await, Err(RelayError::PeerFault { .. })), "kind {kind}");
    }
}

#[tokio::test]
async fn large_bodies_are_compressed_both_ways_and_bombs_are_not_unpacked() {
    let page = FeedPage { epoch: Epoch::default(), replica: ReplicaId::default(), cursor: 1, head: 1, has_more: false, nodes: vec![] };
    let packed = zstd::bulk::compress(&wire::encode(&page), 1).unwrap();
    let client = client_of(move || ([(header::CONTENT_ENCODING, "zstd")], typed(CONTENT_TYPE, packed.clone())).into_response()).await;
    assert_eq!(client.delta(NAMESPACE, 0, None, 1).await, Ok(DeltaReply::Page { page, lacks_since_ms: None }));

    let bomb = zstd::bulk::compress(&vec![0; ferry_protocol::limits::REQUEST_MAX_BYTES + 1], 1).unwrap();
    let client = client_of(move || ([(header::CONTENT_ENCODING, "zstd")], typed(CONTENT_TYPE, bomb.clone())).into_response()).await;
    assert!(matches!(client.delta(NAMESPACE, 0, None, 1).await, Err(RelayError::PeerFault { .. })));

    // The ids are no noise, so that they compress; the relay takes zstd or does not.
    let ids = vec![ChunkId::from_bytes([9; 32]); 200];
    for takes_zstd in [true, false] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let router = Router::new().fallback(any(move |headers: HeaderMap, body: Bytes| async move {
            let packed = headers.contains_key(header::CONTENT_ENCODING);
            log.lock().unwrap().push((packed, body.len()));
            if packed && !takes_zstd {
                return problem(415, r#"{"code":"unsupported_encoding","detail":"d"}"#);
            }
            let body = if packed { zstd::stream::decode_all(&body[..]).unwrap() } else { body.to_vec() };
            typed(CONTENT_TYPE, body)
        }));
        let client = client_to(router).await;
        for _ in 0..2 {
            assert_eq!(client.missing(NAMESPACE, &ids).await.unwrap(), ids);
        }
        let packed: Vec<bool> = seen.lock().unwrap().iter().map(|(packed, _)| *packed).collect();
        assert_eq!(packed, if takes_zstd { vec![true, true] } else { vec![true, false, false] });
        assert!(seen.lock().unwrap()[0].1 < 500);
    }
}

#[tokio::test]
async fn chunks_come_verified_in_frames_cut_anywhere() {
    let (small, large) = (b"small".to_vec(), vec![7u8; 300_000]);
    let absent = ChunkId::of(b"absent");
    let bytes = [frame(&large), ChunkFrame::absent(absent).to_vec(), frame(&small)].concat();
    for cut in [1000, 37, 99_991] {
        let pieces: Vec<Result<Bytes, io::Error>> = bytes.chunks(cut).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let pieces = Arc::new(Mutex::new(Some(pieces)));
        let client = client_of(move || {
            let pieces = pieces.lock().unwrap().take().unwrap();
            typed(CHUNKS_CONTENT_TYPE, Body::from_stream(futures_util::stream::iter(pieces)))
        });
        let client = client.await;
        let wanted = [ChunkId::of(&small), ChunkId::of(&large), absent, ChunkId::of(&small)];
        let chunks = all(client.get_chunks(NAMESPACE, &wanted).await.unwrap()).await.unwrap();
        assert_eq!(chunks.len(), 3);
        assert!(matches!(&chunks[0], FetchedChunk::Chunk(chunk) if chunk.bytes() == large));
        assert_eq!(chunks[1], FetchedChunk::Absent(absent));
        assert!(matches!(&chunks[2], FetchedChunk::Chunk(chunk) if chunk.bytes() == small));
        assert_eq!(client.traffic().received_bytes(), bytes.len() as u64);
    }
    assert_eq!(all(client_of(|| problem(500, "")).await.get_chunks(NAMESPACE, &[]).await.unwrap()).await.unwrap(), []);
}

#[tokio::test]
async fn wrong_frames_are_refused_and_what_came_before_counts() {
    let good = b"good".to_vec();
    let wrong = |bytes: &[u8]| [&ChunkFrame::header(ChunkId::of(b"wanted"), bytes.len())[..], bytes].concat();
    let huge = ChunkFrame::header(ChunkId::of(b"wanted"), usize::MAX).to_vec();
    let cases: [(Vec<u8>, bool); 7] = [
        (wrong(b"something else"), true),
        (wrong(&[1; 100_000]), true),
        (frame(b"not asked for"), true),
        (frame(&good), true),
        (huge, true),
        (vec![9; 40], true),
        (frame(b"wanted")[..20].to_vec(), false),
    ];
    for (second, is_fault) in cases {
        let bytes = [frame(&good), second].concat();
        let client = client_of(move || typed(CHUNKS_CONTENT_TYPE, bytes.clone())).await;
        let mut stream = client.get_chunks(NAMESPACE, &[ChunkId::of(&good), ChunkId::of(b"wanted")]).await.unwrap();
        assert!(matches!(stream.next().await, Some(Ok(FetchedChunk::Chunk(chunk))) if chunk.bytes() == good));
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(matches!(error, RelayError::PeerFault { .. }), is_fault, "{error}");
        assert_eq!(stream.next().await, None);
    }
}

#[tokio::test]
async fn chunks_go_out_as_frames_and_are_counted() {
    let seen = Arc::new(Mutex::new(Bytes::new()));
    let log = Arc::clone(&seen);
    let router = Router::new().fallback(any(move |headers: HeaderMap, body: Body| async move {
        let body = to_bytes(body, usize::MAX).await.unwrap();
        assert_eq!(headers[header::CONTENT_TYPE], CHUNKS_CONTENT_TYPE);
        assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string());
        *log.lock().unwrap() = body;
        typed("application/json", r#"{"stored":2}"#)
    }));
    let client = client_to(router).await;
    let chunks = vec![VerifiedChunk::of(Bytes::from(vec![5; 200_000])), VerifiedChunk::of(Bytes::from_static(b"small"))];
    client.put_chunks(NAMESPACE, chunks).await.unwrap();
    assert_eq!(seen.lock().unwrap()[..], [frame(&vec![5; 200_000]), frame(b"small")].concat()[..]);
    assert_eq!(client.traffic().sent_bytes(), 200_005 + 2 * 37);
    client.put_chunks(NAMESPACE, Vec::<VerifiedChunk<Bytes>>::new()).await.unwrap();
}

#[tokio::test]
async fn a_relay_that_stands_still_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: RelayUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let timing = Timing { idle: Duration::from_millis(50), ..timing() };
    let client = client_with(url, Arc::default(), timing);
    // Nobody accepts: the connection stands in the backlog.
    let error = client.namespaces().await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("stopped answering"), "{error}");
    let router = Router::new().fallback(any(|| async {
        typed(CHUNKS_CONTENT_TYPE, Body::from_stream(futures_util::stream::pending::<Result<Bytes, io::Error>>()))
    }));
    let client = client_with(serve(router).await, Arc::default(), Timing { idle: Duration::from_millis(50), ..Timing::default() });
    let error = all(client.get_chunks(NAMESPACE, &[ChunkId::of(b"x")]).await.unwrap()).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_relay_that_is_down_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: RelayUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = client_with(url, Arc::default(), timing()).namespaces().await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("check that it runs"), "{error}");
}

/// Serves `/api/v1/server` over TLS with a certificate of its own; gives the port and the certificate's pin.
async fn tls_relay() -> (u16, Pin) {
    use sha2::Digest;
    let made = rcgen::generate_simple_self_signed(vec!["ferry-relay.invalid".to_owned()]).unwrap();
    let pin = Pin(sha2::Sha256::digest(made.cert.der()).into());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                    let body = r#"{"name":"relay","version":"0.1.0"}"#;
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (port, pin)
}

#[tokio::test]
async fn exactly_the_pinned_certificate_is_accepted() {
    let (port, pin) = tls_relay().await;
    let at = |url: RelayUrl| client_with(url, Arc::default(), timing());
    let info = at(RelayUrl::pinned(&format!("127.0.0.1:{port}"), pin).unwrap()).server_info().await.unwrap();
    assert_eq!(info.version, "0.1.0");
    let mut other = pin;
    other.0[31] ^= 1;
    let unpinned = format!("https://127.0.0.1:{port}").parse().unwrap();
    for url in [RelayUrl::pinned(&format!("127.0.0.1:{port}"), other).unwrap(), unpinned] {
        let client = at(url);
        let error = client.server_info().await.unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("certificate"), "{error}");
        assert_eq!(client.traffic().received_bytes(), 0);
    }
}

/// A relay whose wake-up connection says one thing and closes.
fn waking(tokens: &Tokens) -> Router {
    async fn connect(State(tokens): State<Tokens>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
        let n = *tokens.0.lock().unwrap();
        if n == 0 || headers[header::AUTHORIZATION] != format!("Bearer access-{n}") {
            return problem(401, "{}");
        }
        upgrade.on_upgrade(|mut socket: ws::WebSocket| async move {
            let change = format!(r#"{{"type":"file_change","data":{{"namespace_id":"{NAMESPACE}","seq":5}}}}"#);
            for text in [r#"{"type":"hello"}"#, "nonsense", &change] {
                if socket.send(ws::Message::text(text)).await.is_err() {
                    return;
                }
            }
            let _ = socket.send(ws::Message::Close(None)).await;
        })
    }
    let path = format!("/ws/sync/{}", credentials().user_id);
    with_tokens(tokens).merge(Router::new().route(&path, any(connect)).with_state(tokens.clone()))
}

#[tokio::test]
async fn wakeups_come_and_the_connection_comes_back() {
    let tokens = Tokens::default();
    let mut wakeups = client_to(waking(&tokens)).await.wakeups();
    for _ in 0..3 {
        assert_eq!(wakeups.next().await, Some(Wakeup::Connected));
        assert_eq!(wakeups.next().await, Some(Wakeup::Changed { namespace: NAMESPACE, seq: Some(5) }));
        assert!(matches!(wakeups.next().await, Some(Wakeup::Disconnected(e)) if e.is_temporary()));
    }
    assert_eq!(*tokens.0.lock().unwrap(), 1, "the refused token was refreshed");
}

#[tokio::test]
async fn a_wakeup_connection_that_cannot_be_made_says_why() {
    let mut wakeups = client_of(|| typed("text/html", "sign in")).await.wakeups();
    for _ in 0..2 {
        assert!(matches!(wakeups.next().await, Some(Wakeup::Disconnected(e)) if e.is_temporary()));
    }
}
