//! A content service on a new database, blobs in memory, a clock that tests move; users and devices to act as.

use super::{Content, ContentConfig, Entry};
use crate::clock::{Clock, ManualClock};
use crate::service::{Caller, SessionId, UserRole};
use crate::store::accounts::{Device, User};
use crate::store::blob::{BlobRegions, BlobRow, BlobStore};
use crate::store::blob_memory::MemoryBlobs;
use crate::store::bus::LocalBus;
use crate::store::content::{PackId, Scope};
use crate::store::testing::Db;
use crate::store::{MetaStore, StoreError};
use bytes::Bytes;
use ferry_protocol::wire::{ChunkFrame, CommitReply, CommitRequest, InlineChunk, NodeUpdate, Role};
use ferry_protocol::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// When the clock of every test begins, in milliseconds since 1970.
pub(crate) const START_MS: i64 = 1_795_343_400_000;

/// Something that happens once.
type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store that does what it is told and then dies, once: what a crash after the write looks like. Or one that cannot be reached.
pub(crate) struct Frail {
    inner: Arc<MemoryBlobs>,
    pub(crate) dies_after_put: AtomicBool,
    pub(crate) is_away: AtomicBool,
    /// What happens, once, before it is listed.
    pub(crate) before_list: Mutex<Option<Deed>>,
}

impl Frail {
    pub(crate) fn over(inner: &Arc<MemoryBlobs>) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            dies_after_put: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            before_list: Mutex::default(),
        })
    }

    fn reached(&self) -> Result<&MemoryBlobs, StoreError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("away".into())),
            false => Ok(&self.inner),
        }
    }
}

#[async_trait::async_trait]
impl BlobStore for Frail {
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.reached()?.put(id, parts).await?;
        match self.dies_after_put.swap(false, Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("died".into())),
            false => Ok(()),
        }
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        self.reached()?.read(id, offset, len).await
    }

    async fn delete(&self, id: PackId) -> Result<(), StoreError> {
        self.reached()?.delete(id).await
    }

    async fn list(&self) -> Result<Vec<BlobRow>, StoreError> {
        let before = self.before_list.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        self.reached()?.list().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reached()?.ping().await
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) db: Arc<dyn MetaStore>,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) clock: ManualClock,
    pub(crate) content: Arc<Content>,
    next: AtomicU64,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Db::Sqlite).await
    }

    pub(crate) async fn on(kind: Db) -> Self {
        Self::with_on(kind, ContentConfig::default()).await
    }

    pub(crate) async fn with(config: ContentConfig) -> Self {
        Self::with_on(Db::Sqlite, config).await
    }

    pub(crate) async fn with_on(kind: Db, config: ContentConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = kind.store(&dir).await;
        let clock = ManualClock::at(START_MS);
        let blobs = Arc::new(MemoryBlobs::new(Arc::new(clock.clone())));
        let bus = Arc::new(LocalBus::default());
        let content = Content::open(db.clone(), blobs.clone(), bus, Arc::new(clock.clone()), config, [7; 32]).await.unwrap();
        Self { dir, db, blobs, clock, content: Arc::new(content), next: AtomicU64::new(1) }
    }

    /// Another process that serves the same stores.
    #[cfg(feature = "cluster")]
    pub(crate) async fn second(&self, db: Arc<dyn MetaStore>) -> Arc<Content> {
        let (clock, bus) = (Arc::new(self.clock.clone()), Arc::new(LocalBus::default()));
        Arc::new(Content::open(db, self.blobs.clone(), bus, clock, ContentConfig::default(), [7; 32]).await.unwrap())
    }

    /// The same relay in a process with these blob stores.
    pub(crate) async fn process(&self, blobs: impl Into<BlobRegions>, config: ContentConfig) -> Arc<Content> {
        let clock = Arc::new(self.clock.clone());
        Arc::new(Content::open(self.db.clone(), blobs, Arc::new(LocalBus::default()), clock, config, [7; 32]).await.unwrap())
    }

    /// A copy of the database as it is now, under this name, while nothing is written.
    pub(crate) fn backup(&self, name: &str) {
        for end in ["", "-wal"] {
            std::fs::copy(self.dir.path().join(format!("relay.db{end}")), self.dir.path().join(format!("{name}{end}"))).unwrap();
        }
    }

    /// A relay that begins to serve this database: a backup, or `relay.db`.
    pub(crate) async fn begin_serving(&mut self, name: &str) {
        self.db = Db::Sqlite.open(&self.dir.path().join(name).display().to_string()).await;
        let clock = Arc::new(self.clock.clone());
        let (db, blobs, bus) = (self.db.clone(), self.blobs.clone(), Arc::new(LocalBus::default()));
        self.content = Arc::new(Content::open(db, blobs, bus, clock, ContentConfig::default(), [7; 32]).await.unwrap());
    }

    /// A new id of this world: 16 bytes that no other call gets.
    pub(crate) fn id(&self) -> [u8; 16] {
        let mut id = [0xA5; 16];
        id[..8].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        id
    }

    /// A user with one device.
    pub(crate) async fn user(&self, limit_bytes: Option<u64>) -> Caller {
        let id = self.id();
        let user_id = UserId::from_bytes(id);
        let email = format!("{user_id}@example.org");
        let user = User {
            user_id,
            email: email.clone(),
            email_key: email,
            name: "Test".into(),
            password_hash: "!".into(),
            role: UserRole::User,
            storage_used_bytes: 0,
            storage_limit_bytes: limit_bytes,
            disabled: false,
            created_at_ms: self.clock.now_ms(),
        };
        assert!(self.db.insert_user(&user).await.unwrap());
        let device_id = self.device(user_id).await;
        Caller {
            user_id,
            device_id: Some(device_id),
            session_id: SessionId::from_bytes(id),
            role: UserRole::User,
            expires_at_ms: i64::MAX,
            token: None,
        }
    }

    /// One more device of a user.
    pub(crate) async fn device(&self, user_id: UserId) -> DeviceId {
        let mut public_key = [0; 32];
        public_key[..16].copy_from_slice(&self.id());
        let device_id = DeviceId::of_public_key(&public_key);
        let now_ms = self.clock.now_ms();
        let device = Device {
            device_id,
            user_id,
            name: "LAPTOP".into(),
            public_key,
            created_at_ms: now_ms,
            last_seen_at_ms: now_ms,
            revoked_at_ms: None,
        };
        self.db.put_device(&device).await.unwrap();
        device_id
    }

    /// The home of a user, entered as its owner.
    pub(crate) async fn home(&self, caller: &Caller) -> Entry {
        self.content.enter_home(caller).await.unwrap()
    }

    /// A writer on the caller's device.
    pub(crate) fn writer(&self, caller: &Caller) -> Writer {
        let replica = ReplicaId::from_bytes(self.id());
        Writer { replica, device: caller.device_id.unwrap(), counter: 0 }
    }

    pub(crate) fn request(&self, nodes: Vec<NodeUpdate>, chunks: &[&[u8]], base_seq: u64) -> CommitRequest {
        CommitRequest {
            commit: CommitId::from_bytes(self.id()),
            epoch: self.content.identity().epoch,
            base_seq,
            replica: ReplicaId::default(),
            nodes,
            chunks: chunks.iter().map(|b| InlineChunk { id: ChunkId::of(b), bytes: b.to_vec() }).collect(),
        }
    }

    /// Commits one new file with inline content.
    pub(crate) async fn add_file(&self, entry: &Entry, writer: &mut Writer, name: &str, bytes: &[u8]) -> (NodeId, u64) {
        let node = NodeId::from_bytes(self.id());
        let update = writer.file(node, name, &[bytes]);
        let request = self.request(vec![update], &[bytes], u64::MAX);
        match self.content.commit(entry, request).await.unwrap() {
            CommitReply::Accepted { head_seq, .. } => (node, head_seq),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn share(&self, entry: &Entry, with: &Caller, role: Role) -> Entry {
        let mut tx = self.content.meta.begin(Scope::Namespace(entry.namespace())).await.unwrap();
        tx.set_member(entry.namespace(), with.user_id, role, START_MS).await.unwrap();
        tx.commit().await.unwrap();
        self.content.enter(with, entry.namespace(), role).await.unwrap()
    }
}

/// One device that writes.
pub(crate) struct Writer {
    pub(crate) replica: ReplicaId,
    pub(crate) device: DeviceId,
    pub(crate) counter: u64,
}

impl Writer {
    pub(crate) fn stamp(&mut self) -> Stamp {
        self.counter += 1;
        Stamp { counter: self.counter, replica: self.replica }
    }

    pub(crate) fn value(&mut self, state: &NodeState, content: node::Content) -> Value {
        Value {
            dot: state.body().next_dot(self.replica),
            stamp: self.stamp(),
            content,
            author: Author { device: self.device, name: "LAPTOP".into() },
            wall_ms: START_MS,
        }
    }

    pub(crate) fn node(&mut self, id: NodeId, name: &str, content: node::Content) -> NodeUpdate {
        self.node_in(NodeId::ROOT, id, name, content)
    }

    pub(crate) fn node_in(&mut self, parent: NodeId, id: NodeId, name: &str, content: node::Content) -> NodeUpdate {
        let place = Place { stamp: self.stamp(), parent, name: Name::new(name).unwrap() };
        let mut state = NodeState::new(place);
        let value = self.value(&state, content);
        state.body_mut().put(&[], value);
        NodeUpdate { id, state }
    }

    /// A new file of these chunks.
    pub(crate) fn file(&mut self, id: NodeId, name: &str, chunks: &[&[u8]]) -> NodeUpdate {
        self.node(id, name, node::Content::File(FileContent::new(manifest(chunks), 1)))
    }

    /// The same node at another place.
    pub(crate) fn moved(&mut self, update: &NodeUpdate, parent: NodeId, name: &str) -> NodeUpdate {
        let mut state = update.state.clone();
        state.move_to(Place { stamp: self.stamp(), parent, name: Name::new(name).unwrap() });
        NodeUpdate { id: update.id, state }
    }

    /// The same node, deleted.
    pub(crate) fn deleted(&mut self, update: &NodeUpdate) -> NodeUpdate {
        self.deleted_at(update, 0)
    }

    /// The same node, deleted so many milliseconds after the test began, by the device's clock.
    pub(crate) fn deleted_at(&mut self, update: &NodeUpdate, after_ms: i64) -> NodeUpdate {
        let mut state = update.state.clone();
        let dots: Vec<Dot> = state.body().values().iter().map(|v| v.dot).collect();
        let value = Value { wall_ms: START_MS + after_ms, ..self.value(&state, node::Content::Tombstone) };
        state.body_mut().put(&dots, value);
        NodeUpdate { id: update.id, state }
    }

    /// The same file with other content beside all that it shows.
    pub(crate) fn fork(&mut self, update: &NodeUpdate, chunks: &[&[u8]]) -> NodeUpdate {
        let mut state = update.state.clone();
        let value = self.value(&state, node::Content::File(FileContent::new(manifest(chunks), 3)));
        state.body_mut().put(&[], value);
        NodeUpdate { id: update.id, state }
    }

    /// The same file with other content, replacing all that it shows.
    pub(crate) fn edit(&mut self, update: &NodeUpdate, chunks: &[&[u8]]) -> NodeUpdate {
        let mut state = update.state.clone();
        let dots: Vec<Dot> = state.body().values().iter().map(|v| v.dot).collect();
        let value = self.value(&state, node::Content::File(FileContent::new(manifest(chunks), 2)));
        state.body_mut().put(&dots, value);
        NodeUpdate { id: update.id, state }
    }
}

pub(crate) fn manifest(chunks: &[&[u8]]) -> Manifest {
    let refs = chunks.iter().map(|c| ChunkRef { id: ChunkId::of(c), len: c.len() as u32 }).collect();
    Manifest::new(ContentHash::of(&chunks.concat()), refs).unwrap()
}

pub(crate) fn frames(chunks: &[&[u8]]) -> Bytes {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&ChunkFrame::header(ChunkId::of(chunk), chunk.len()));
        out.extend_from_slice(chunk);
    }
    out.into()
}

/// Every chunk of a stream: its bytes, or nothing for a frame of absence.
pub(crate) async fn collect(mut stream: super::ChunkStream) -> Vec<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(batch) = stream.recv().await {
        bytes.extend_from_slice(&batch.unwrap());
    }
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some((frame, taken)) = ChunkFrame::parse(&bytes[at..]).unwrap() {
        out.push(if let ChunkFrame::Chunk(_, b) = frame { Some(b.to_vec()) } else { None });
        at += taken;
    }
    assert_eq!(at, bytes.len());
    out
}
