//! The relay client against the real relay, embedded: accounts, namespaces, chunks both ways, commits, the feed, wake-ups; plain and pinned.

#![cfg(feature = "embedded-relay")]

use bytes::Bytes;
use ferry_daemon::identity::{CredentialsFile, Identity};
use ferry_daemon::relay::{
    Announce, Announced, DeltaReply, DeviceInfo, FetchedChunk, JoinCode, Pin, RelayClient, RelayError, RelayOptions, RelayUrl, Wakeup,
};
use ferry_protocol::wire::{CommitReply, CommitRequest, NodeUpdate, Role};
use ferry_protocol::{
    Author, ChunkRef, CommitId, Content, ContentHash, DeviceId, FileContent, Manifest, Name, NamespaceId, NodeId, NodeState, Place,
    ReplicaId, Stamp, Value, VerifiedChunk,
};
use ferry_relay::embedded::{self, EmbeddedConfig, Listener, Running};
use ferry_relay::service::UserRole;
use ferry_relay::service::accounts::NewUser;
use std::path::Path;
use std::sync::Arc;

const PASSWORD: &str = "correct horse battery staple";

/// A relay with one user; listens plain and with its own certificate.
async fn relay(dir: &Path) -> (Running, RelayUrl, RelayUrl) {
    let addr = "127.0.0.1:0".parse().unwrap();
    let listeners = [false, true].map(|tls_self_signed| Listener { addr, tls_self_signed }).to_vec();
    let running = embedded::start(EmbeddedConfig { data_dir: dir.join("relay"), listeners, public_url: None }).await.unwrap();
    let user = NewUser { email: "me@example.org", name: None, password: PASSWORD };
    running.app.accounts.add_user(user, UserRole::Admin).await.unwrap();
    let plain = format!("http://{}", running.addrs[0]).parse().unwrap();
    let pinned = RelayUrl::pinned(&running.addrs[1].to_string(), Pin(running.certificate_sha256.unwrap())).unwrap();
    (running, plain, pinned)
}

struct Device {
    client: RelayClient,
    id: DeviceId,
}

async fn device(dir: &Path, url: &RelayUrl, name: &str, secret: Option<&str>) -> Device {
    let home = dir.join(name);
    let identity = Identity::load_or_create(&home).unwrap();
    let file = CredentialsFile::new(&home);
    let client = RelayClient::new(url.clone(), RelayOptions::default(), None, Arc::new(file.clone())).unwrap();
    let info = DeviceInfo::new(name, &identity);
    let credentials = match secret {
        Some(secret) => client.join(secret, &info).await.unwrap(),
        None => client.login("me@example.org", PASSWORD, &info).await.unwrap(),
    };
    assert_eq!(credentials.device_id, identity.device_id());
    assert_eq!(file.load().unwrap(), Some(credentials));
    Device { client, id: identity.device_id() }
}

/// A new file with these chunks under the root.
fn file(n: u8, device: DeviceId, chunks: &[VerifiedChunk<Bytes>]) -> NodeUpdate {
    let refs = chunks.iter().map(|chunk| ChunkRef { id: chunk.id(), len: chunk.bytes().len() as u32 }).collect();
    let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
    let manifest = Manifest::new(ContentHash::of(&whole), refs).unwrap();
    let replica = ReplicaId::from_bytes([n; 16]);
    let stamp = Stamp { counter: 1, replica };
    let mut state = NodeState::new(Place { stamp, parent: NodeId::ROOT, name: Name::new(format!("file {n}").as_bytes()).unwrap() });
    let content = Content::File(FileContent::new(manifest, 0));
    let author = Author { device, name: "LAPTOP".into() };
    let dot = state.body().next_dot(replica);
    state.body_mut().put(&[], Value { dot, stamp, content, author, wall_ms: 0 });
    NodeUpdate { id: NodeId::from_bytes([n; 16]), state }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_hear_who_may_take_part_and_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (running, plain, _) = relay(dir.path()).await;
    let first = device(dir.path(), &plain, "first", None).await;
    let second = device(dir.path(), &plain, "second", None).await;
    let namespace = NamespaceId::from_bytes([9; 16]);
    first.client.create_namespace(namespace, "Notes").await.unwrap();
    let mut wakeups = first.client.wakeups();
    assert_eq!(wakeups.next().await, Some(Wakeup::Connected));
    let at = |address: &str| Announce { addresses: vec![address.parse().unwrap()], ..Announce::default() };
    let announced = second.client.announce(&at("10.0.0.2:4711")).await.unwrap();
    assert_eq!(wakeups.next().await, Some(Wakeup::Peers));
    let heard = first.client.announce(&at("[fe80::1]:4711")).await.unwrap();
    assert_eq!((heard.peers.len(), heard.peers[0].device, heard.peers[0].name.as_str()), (1, second.id, "second"));
    assert_eq!(heard.peers[0].addresses, ["10.0.0.2:4711".parse().unwrap()]);

    let key = first.client.credentials().await.unwrap().grant_key.unwrap();
    assert_eq!(key, heard.grant_key);
    let signed = |answer: &Announced| answer.grants.iter().find(|(id, _)| *id == namespace).unwrap().1.clone();
    assert_eq!(signed(&heard), signed(&announced));
    let grant = signed(&heard).open(|message, signature| key.verify(message, signature)).unwrap();
    assert_eq!(grant.namespace, namespace);
    assert_eq!(grant.members.iter().map(|m| m.role).collect::<Vec<_>>(), [Role::Owner; 2]);
    assert!(grant.is_live(heard.server_time_ms));

    let owner = first.client.credentials().await.unwrap().user_id;
    running.app.accounts.revoke_device(owner, second.id).await.unwrap();
    // Besides, its user's devices are told to ask for everything that is theirs.
    while wakeups.next().await.expect("it is woken") != Wakeup::Peers {}
    let later = first
        .client
        .announce(&Announce { addresses: vec![], epochs: [(namespace, grant.epoch)].into(), ..Announce::default() })
        .await
        .unwrap();
    let without = signed(&later).open(|message, signature| key.verify(message, signature)).unwrap();
    assert!(without.is_newer_than(&grant) && without.member(second.id).is_none() && later.peers.is_empty());
    let error = second.client.announce(&Announce::default()).await.unwrap_err();
    assert!(matches!(error, RelayError::LoginRequired { .. }), "{error}");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_meet_over_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (running, plain, pinned) = relay(dir.path()).await;
    let first = device(dir.path(), &plain, "first", None).await;
    let secret = first.client.create_join_secret().await.unwrap().secret;
    let code = JoinCode { addresses: vec![running.addrs[1].to_string()], pin: pinned.pin(), tls: true, secret };
    let code: JoinCode = code.to_text().unwrap().parse().unwrap();
    assert_eq!(code.urls().unwrap(), std::slice::from_ref(&pinned));
    let second = device(dir.path(), &pinned, "second", Some(&code.secret)).await;

    let namespace = first.client.create_namespace(ferry_protocol::NamespaceId::from_bytes([9; 16]), "Notes").await.unwrap();
    let found = second.client.namespaces().await.unwrap().into_iter().find(|n| n.id == namespace.id).unwrap();
    assert_eq!((found.name.as_str(), found.epoch), ("Notes", namespace.epoch));
    let mut wakeups = second.client.wakeups();
    assert_eq!(wakeups.next().await, Some(Wakeup::Connected));

    let chunks = [VerifiedChunk::of(Bytes::from(vec![1; 400_000])), VerifiedChunk::of(Bytes::from_static(b"the end"))];
    let ids: Vec<_> = chunks.iter().map(VerifiedChunk::id).collect();
    let request = CommitRequest {
        commit: CommitId::from_bytes([1; 16]),
        epoch: namespace.epoch,
        base_seq: namespace.head_seq,
        replica: ReplicaId::from_bytes([1; 16]),
        nodes: vec![file(1, first.id, &chunks)],
        chunks: vec![],
    };
    let missing = first.client.commit(namespace.id, &request).await.unwrap();
    assert!(matches!(missing, CommitReply::MissingChunks(missing) if missing.len() == 2));
    assert_eq!(first.client.missing(namespace.id, &ids).await.unwrap().len(), 2);
    first.client.put_chunks(namespace.id, chunks.to_vec()).await.unwrap();
    assert_eq!(first.client.missing(namespace.id, &ids).await.unwrap(), []);
    let accepted = first.client.commit(namespace.id, &request).await.unwrap();
    let CommitReply::Accepted { head_seq, .. } = accepted else { panic!("{accepted:?}") };
    assert_eq!(first.client.commit(namespace.id, &request).await.unwrap(), accepted, "a commit repeated is the same commit");

    loop {
        match wakeups.next().await.unwrap() {
            Wakeup::Changed { namespace: changed, seq } if changed == namespace.id => break assert_eq!(seq, Some(head_seq)),
            other => assert!(!matches!(other, Wakeup::Disconnected(_)), "{other:?}"),
        }
    }
    let DeltaReply::Page { page, .. } = second.client.delta(namespace.id, 0, None, 100).await.unwrap() else { panic!() };
    assert_eq!((page.nodes, page.cursor, page.has_more), (request.nodes, head_seq, false));
    let mut stream = second.client.get_chunks(namespace.id, &ids).await.unwrap();
    let mut fetched = Vec::new();
    while let Some(chunk) = stream.next().await {
        let FetchedChunk::Chunk(chunk) = chunk.unwrap() else { panic!("absent") };
        fetched.push(chunk);
    }
    fetched.sort_by_key(|chunk| std::cmp::Reverse(chunk.bytes().len()));
    assert_eq!(fetched, chunks);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relays_refusals_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let (running, plain, _) = relay(dir.path()).await;
    let device = device(dir.path(), &plain, "device", None).await;
    let client = &device.client;
    let info = client.server_info().await.unwrap();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));

    let wrong = client.login("me@example.org", "wrong", &DeviceInfo { name: "x".into(), public_key: [1; 32] }).await.unwrap_err();
    assert!(matches!(wrong, RelayError::Forbidden(_)), "{wrong:?}");
    let used = client.join("ffffffffffffffffffffffffffffffff", &DeviceInfo { name: "x".into(), public_key: [1; 32] }).await.unwrap_err();
    assert!(!used.is_temporary(), "{used:?}");
    let unknown = client.delta(NamespaceId::from_bytes([9; 16]), 0, None, 1).await.unwrap_err();
    assert!(matches!(unknown, RelayError::NotFound(_)), "{unknown:?}");
    let namespace = client.create_namespace(ferry_protocol::NamespaceId::from_bytes([9; 16]), "Notes").await.unwrap();
    let epoch = ferry_protocol::Epoch::from_bytes([9; 16]);
    assert_eq!(client.delta(namespace.id, 5, Some(epoch), 1).await.unwrap(), DeltaReply::EpochChanged(namespace.epoch));

    // A login goes on after a restart from what was stored, also when its access token is no longer good.
    let file = CredentialsFile::new(&dir.path().join("device"));
    let mut stored = file.load().unwrap().unwrap();
    stored.access_token = "no longer good".into();
    // As a version of before grants stored it.
    let grant_key = stored.grant_key.take();
    assert!(grant_key.is_some());
    let again = RelayClient::new(plain.clone(), RelayOptions::default(), Some(stored.clone()), Arc::new(file.clone())).unwrap();
    // The relay refuses a long body before it has read it: the refusal must still be heard.
    let chunks: Vec<_> = (0..16).map(|n| VerifiedChunk::of(Bytes::from(vec![n; 1 << 20]))).collect();
    again.put_chunks(namespace.id, chunks.clone()).await.unwrap();
    let ids: Vec<_> = chunks.iter().map(VerifiedChunk::id).collect();
    assert_eq!(again.missing(namespace.id, &ids).await.unwrap(), []);
    let renewed = file.load().unwrap().unwrap();
    assert_ne!(renewed.refresh_token, stored.refresh_token);
    assert_eq!(renewed.grant_key, grant_key);
    again.logout().await.unwrap();
    assert_eq!(file.load().unwrap(), None);
    assert!(matches!(again.namespaces().await, Err(RelayError::LoginRequired { .. })));
    running.shutdown().await;
}
