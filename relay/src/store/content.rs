//! What the relay keeps of content: namespaces, node states, versions, chunks, uploads. Types and two traits: [`ContentStore`] reads committed state,
//! [`ContentTx`] is one writing transaction.
//!
//! * **CS1** Writers of one namespace are one after another; a sequence number that a reader sees has no smaller one still to come (I11).
//!   Writers of other namespaces may go on at the same time; what they share (chunks, a user's used bytes) is locked as it is touched.
//! * **CS2** A transaction that is dropped has done nothing; one whose `commit` returned is durable (I7).
//! * **CS3** `namespace_chunks.refs` is the number of rows of `file_chunks` in that namespace that name the chunk.

use super::StoreError;
use super::activity::ActivityStore;
use super::dav::{DavStore, DavTx};
pub use super::history::{AuthorRow, Before, BeforeKind, Changed, ChangesQuery, HistoryRow, RewindRow};
pub(super) use super::history::{dots_column, dots_of_column, within};
use super::moves::ShardMoves;
use super::search::{SearchStore, SearchTx};
use super::tree::{Standing, TreeStore, TreeTx};
use super::versions::{VersionStore, VersionTx};
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, CommitId, ContentHash, DeviceId, Dot, Epoch, NamespaceId, NodeId, NodeState, ReplicaId, UserId};
use std::collections::{BTreeMap, BTreeSet};

/// The setting that says until when a holder keeps the sweep from blobs. All names of such begin with `sweep_held`.
pub(super) fn sweep_hold(holder: [u8; 16]) -> String {
    format!("sweep_held/{}", hex::encode(holder))
}

/// A part of the store that holds whole namespaces, those of some users. A transaction touches one shard, and bytes are stored once within a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a writing transaction is for: it says in which shard it works and for whom it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This namespace: the transaction waits for the one before it that wrote there.
    Namespace(NamespaceId),
    /// A new namespace of this user.
    Owner(UserId),
    /// Chunks, packs and leases of a whole shard: sweep and repair.
    Shard(Shard),
}

/// How many nodes are looked at for one that is out of order.
pub(super) const TIMES_LOOKED_AT: u64 = 1000;

/// Which life of which relay a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The epoch of its feeds.
    pub epoch: Epoch,
    /// The replica that the relay is, for edits made through the plain API: one for each run (docs/adr/0004-numbers-of-a-feed.md).
    pub replica: ReplicaId,
}

/// A namespace as one user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its id.
    pub id: NamespaceId,
    /// Who owns it and pays for it with quota.
    pub owner: UserId,
    /// Its name.
    pub name: String,
    /// Whether it is the owner's home, where plain uploads go.
    pub is_home: bool,
    /// The newest sequence number; 0 for none.
    pub head_seq: u64,
    /// The number up to which it is known where its nodes stand; where that is not the head, nobody may believe it ([`super::tree`]).
    pub settled_seq: u64,
    /// The highest Lamport counter ever seen in it.
    pub max_counter: u64,
    /// The run of a relay that wrote in it last, by the replica that it is; nothing if that is not known.
    pub run: Option<ReplicaId>,
    /// What the user may do.
    pub role: Role,
}

/// A node with the sequence number of its newest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// The node.
    pub id: NodeId,
    /// The number of its newest change.
    pub seq: u64,
    /// When it first came to the relay, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it last changed on the relay, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// Its state.
    pub state: NodeState,
}

/// A deleted node, with what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedRow {
    /// The node.
    pub id: NodeId,
    /// Where it stood.
    pub parent: NodeId,
    /// Its name, as the disk held it.
    pub name: Vec<u8>,
    /// Size in bytes of the file that it was.
    pub size_bytes: u64,
    /// Kind or media type of what it was.
    pub file_type: String,
    /// Hash of the file that it was.
    pub hash: Option<ContentHash>,
    /// When the relay heard of the deletion, in milliseconds since 1970.
    pub deleted_at_ms: i64,
    /// The number of its newest change.
    pub seq: u64,
}

/// A deleted node as a restore needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashedNode {
    /// The node.
    pub row: NodeRow,
    /// Kind or media type of what it was.
    pub file_type: String,
    /// Where the link pointed that it was.
    pub link_target: Option<Vec<u8>>,
}

/// A node to be written, with the columns derived from its state.
#[derive(Debug, Clone)]
pub struct NodeWrite {
    /// The node.
    pub id: NodeId,
    /// Its new number.
    pub seq: u64,
    /// Its new state.
    pub state: NodeState,
    /// Size in bytes of what it shows; 0 unless a file.
    pub size_bytes: u64,
    /// Kind and type of what it shows: `directory`, `symlink`, or the media type of a file.
    pub file_type: &'static str,
    /// Hash of the file that it shows.
    pub hash: Option<ContentHash>,
    /// Where the link points that it shows; of a deleted one where the link pointed that it was, if the writer knows.
    pub link_target: Option<Vec<u8>>,
    /// Whether it shows nothing.
    pub is_deleted: bool,
    /// How it is shown at its newest place, as far as it says itself; [`TreeTx::set_stands`] says the rest.
    pub standing: Standing,
    /// What it showed before, for a new node that nothing was there; nothing if it shows the same.
    pub before: Option<Before>,
    /// Who made the change, where that is known.
    pub changed_by: Option<DeviceId>,
}

/// One slice of a feed, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSlice {
    /// The feed's head in that snapshot.
    pub head_seq: u64,
    /// Whether the number that was asked from is none of those that were skipped ([`ContentTx::skip_numbers`]).
    pub since_is_known: bool,
    /// Nodes by rising `seq`.
    pub nodes: Vec<NodeRow>,
}

/// One content that a file had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Its id.
    pub version_id: [u8; 16],
    /// The file.
    pub node: NodeId,
    /// Its number within the file, from 1; 0 when it is to be assigned.
    pub number: u64,
    /// The event that wrote it.
    pub dot: Dot,
    /// Hash of the whole.
    pub hash: ContentHash,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The file's own time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Which device wrote it.
    pub author_device: DeviceId,
    /// That device's name then.
    pub author_name: String,
    /// The writer's clock in milliseconds since 1970.
    pub wall_ms: i64,
    /// When it came to the relay, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// What somebody calls it; such a version is kept.
    pub label: Option<String>,
}

/// A version to be kept, with its chunks.
#[derive(Debug, Clone)]
pub struct VersionWrite {
    /// The version; its number is assigned when it is written.
    pub row: VersionRow,
    /// Its chunks in order.
    pub chunks: Vec<ChunkRef>,
}

/// A chunk that a namespace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldChunk {
    /// Length in bytes.
    pub len: u32,
    /// How many version rows name it here; 0 while only a lease holds it.
    pub refs: u64,
    /// Whether its bytes were found to be wrong.
    pub is_damaged: bool,
    /// Until when a lease holds it, in milliseconds since 1970.
    pub lease_until_ms: i64,
}

/// The id of a pack: a blob with the chunk frames of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub [u8; 16]);

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Where a chunk's bytes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLocation {
    /// The chunk.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
    /// The pack.
    pub pack: PackId,
    /// Offset of its first byte in the pack.
    pub offset: u64,
}

/// A pack's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRow {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// When it was stored, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// What a user's namespaces take and may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub used_bytes: u64,
    /// The user's own limit, if there is one.
    pub limit_bytes: Option<u64>,
}

/// The answer that a commit got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitRecord {
    /// Hash of what was committed.
    pub digest: [u8; 32],
    /// The head after it.
    pub head_seq: u64,
    /// Whether nobody else had changed the feed since its base.
    pub gapless: bool,
}

/// An upload of the plain API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Its id; becomes the version's id.
    pub version_id: [u8; 16],
    /// Where the file goes.
    pub namespace: NamespaceId,
    /// Who uploads.
    pub user: UserId,
    /// The node that the file will be, if it is new.
    pub node: NodeId,
    /// The path below the namespace's root, or below `below`, `/`-separated.
    pub path: Vec<u8>,
    /// The directory that `path` is below; none for the namespace's root.
    pub below: Option<NodeId>,
    /// The hash of the whole: promised, or of what was completed; nothing as long as nobody has said it.
    pub hash: Option<ContentHash>,
    /// The promised size in bytes.
    pub size_bytes: u64,
    /// The file's own time in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// Size in bytes of every chunk but the last.
    pub chunk_size_bytes: u64,
    /// How many chunks.
    pub num_chunks: u64,
    /// When it was completed, in milliseconds since 1970.
    pub completed_at_ms: Option<i64>,
    /// When it was begun, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it is forgotten, in milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// One row of a verification: a chunk with what its rows say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// Where it should be.
    pub location: ChunkLocation,
    /// Whether it is marked as damaged.
    pub is_damaged: bool,
}

/// What was taken out of a trash for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Purged {
    /// Entries.
    pub entries: u64,
    /// Versions of them.
    pub versions: u64,
    /// Bytes of chunks that the namespace holds no longer.
    pub freed_bytes: u64,
}

impl std::ops::AddAssign for Purged {
    fn add_assign(&mut self, more: Self) {
        self.entries += more.entries;
        self.versions += more.versions;
        self.freed_bytes += more.freed_bytes;
    }
}

/// A kept version that names a damaged chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DegradedVersion {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The file.
    pub node: NodeId,
    /// The file's name, as the disk held it.
    pub name: Vec<u8>,
    /// The version's number within the file.
    pub number: u64,
}

/// Rows that disagree with each other; all zero in a sound store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RowFaults {
    /// Chunks named by a version that the version's namespace does not hold.
    pub chunks_missing: u64,
    /// Reference counts that differ from the number of rows that refer (CS3).
    pub refs_wrong: u64,
    /// Users whose used bytes differ from the sum of what their namespaces hold.
    pub usage_wrong: u64,
    /// Chunks without their pack's row.
    pub packs_missing: u64,
}

/// Totals for operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct StorageTotals {
    /// Namespaces.
    pub namespaces: u64,
    /// Nodes, deleted ones included.
    pub nodes: u64,
    /// Kept versions.
    pub versions: u64,
    /// Sum of the sizes of all kept versions, in bytes: what would be stored without deduplication.
    pub version_bytes: u64,
    /// Distinct chunks.
    pub chunks: u64,
    /// Sum of their lengths in bytes.
    pub chunk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Sum of their lengths in bytes.
    pub pack_bytes: u64,
    /// Chunks that nothing refers to, waiting for the end of their grace period.
    pub orphaned_chunks: u64,
    /// Chunks found to be damaged and not healed yet.
    pub damaged_chunks: u64,
    /// Uploads of the plain API that are begun and neither completed nor given up.
    pub uploads_open: u64,
}

impl std::ops::AddAssign for StorageTotals {
    fn add_assign(&mut self, more: Self) {
        self.namespaces += more.namespaces;
        self.nodes += more.nodes;
        self.versions += more.versions;
        self.version_bytes += more.version_bytes;
        self.chunks += more.chunks;
        self.chunk_bytes += more.chunk_bytes;
        self.packs += more.packs;
        self.pack_bytes += more.pack_bytes;
        self.orphaned_chunks += more.orphaned_chunks;
        self.damaged_chunks += more.damaged_chunks;
        self.uploads_open += more.uploads_open;
    }
}

/// A shard, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardTotals {
    /// Its number.
    pub shard: Shard,
    /// Where it is, without a password.
    pub place: String,
    /// Users whose namespaces stand in it.
    pub users: u64,
    /// What it holds.
    pub totals: StorageTotals,
}

/// Reads of committed state.
#[async_trait]
pub trait ContentStore: TreeStore + DavStore + VersionStore + SearchStore + ActivityStore {
    /// Begins a writing transaction; waits for the writer before it.
    async fn begin(&self, scope: Scope) -> Result<Box<dyn ContentTx>, StoreError>;
    /// Every shard.
    fn shards(&self) -> Vec<Shard>;
    /// The shard in which a user's namespaces stand.
    async fn shard_of(&self, user: UserId) -> Result<Shard, StoreError>;

    /// The relay's identity. The epoch is the database's, `fresh`'s if it has none yet. The replica is the run's: where one process owns the
    /// database, `fresh`'s when it asks first; where several share it, what they have in common until the database has gone back in time.
    async fn identity(&self, fresh: Identity, now_ms: i64) -> Result<Identity, StoreError>;
    /// Gives the relay a new identity: after a restore.
    async fn replace_identity(&self, fresh: Identity, now_ms: i64) -> Result<(), StoreError>;

    /// The namespaces that a user is a member of, the home first, then by name.
    async fn namespaces_of(&self, user: UserId) -> Result<Vec<NamespaceRow>, StoreError>;
    /// One of them.
    async fn namespace_for(&self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError>;
    /// The members of a namespace.
    async fn members(&self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError>;

    /// The nodes changed after `since`, at most `limit_nodes` and about `limit_bytes` of states, but at least one if there is any.
    async fn feed(&self, namespace: NamespaceId, since: u64, limit_nodes: usize, limit_bytes: usize) -> Result<FeedSlice, StoreError>;
    /// The states of these nodes, as far as they exist.
    async fn nodes(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError>;
    /// Every node of a namespace, in one snapshot.
    async fn all_nodes(&self, namespace: NamespaceId) -> Result<FeedSlice, StoreError>;
    /// The namespaces of this user in which this node exists.
    async fn locate_node(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError>;
    /// The namespaces in which this node is a file that is shared with this user alone, as far as a role goes that the share gives.
    async fn locate_shared(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError>;
    /// A living file with this content that the user may read, in the shard of the namespace `beside`: the namespace and its node. One in `beside`
    /// itself comes first.
    async fn find_content(
        &self,
        user: UserId,
        beside: NamespaceId,
        hash: ContentHash,
        size_bytes: u64,
    ) -> Result<Option<(NamespaceId, NodeId)>, StoreError>;
    /// The lowest number of a node that last changed at or after `since_ms`; nothing if there is none. Times rise with numbers but for what clocks
    /// disagree about: where more than [`TIMES_LOOKED_AT`] nodes, in the order of times and in that of numbers, lie between, a lower one may be passed over.
    async fn first_seq_since(&self, namespace: NamespaceId, since_ms: i64) -> Result<Option<u64>, StoreError>;

    /// Deleted nodes that are not purged, with a lower number than `before_seq`, newest first.
    async fn deleted(&self, namespace: NamespaceId, before_seq: u64, limit: usize) -> Result<Vec<DeletedRow>, StoreError>;
    /// A deleted node and the deleted nodes below it, through deleted ones only, less those that are purged; at most `limit`, in no order.
    async fn deleted_below(&self, namespace: NamespaceId, node: NodeId, limit: usize) -> Result<Vec<TrashedNode>, StoreError>;

    /// Nodes that changed, with what they showed before, by rising id.
    async fn changed_since(&self, namespace: NamespaceId, query: ChangesQuery<'_>) -> Result<Vec<Changed>, StoreError>;
    /// Since when changes of the namespace are kept, in milliseconds since 1970; 0 for always.
    async fn history_since(&self, namespace: NamespaceId) -> Result<i64, StoreError>;
    /// Everybody who ever changed something in the namespace.
    async fn authors(&self, namespace: NamespaceId) -> Result<Vec<AuthorRow>, StoreError>;
    /// A rewind of the namespace.
    async fn rewind(&self, namespace: NamespaceId, id: [u8; 16]) -> Result<Option<RewindRow>, StoreError>;

    /// The versions of a file, newest first.
    async fn versions(&self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError>;
    /// A version by its id and the namespace that it is in.
    async fn version(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<Option<VersionRow>, StoreError>;
    /// The chunks of a version of this namespace, in order.
    async fn version_chunks(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<Vec<ChunkRef>, StoreError>;

    /// Which of these chunks the namespace holds.
    async fn held(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError>;
    /// Where those of these chunks stand that the namespace holds; with `committed_only`, those that a version of it names.
    async fn locate_chunks(
        &self,
        namespace: NamespaceId,
        ids: &[ChunkId],
        committed_only: bool,
    ) -> Result<BTreeMap<ChunkId, ChunkLocation>, StoreError>;
    /// Which of these chunks the namespace's shard holds undamaged for anybody.
    async fn stored(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError>;
    /// When a chunk that versions of a namespace name was last found to be damaged, in milliseconds since 1970; nothing if none is.
    async fn lacks_since(&self, namespace: NamespaceId) -> Result<Option<i64>, StoreError>;
    /// The damaged chunks that versions of a namespace name after `after`, in the order of ids, at most `limit`.
    async fn lacks(&self, namespace: NamespaceId, after: Option<ChunkId>, limit: usize) -> Result<Vec<ChunkId>, StoreError>;
    /// How many versions of all namespaces name a damaged chunk, and the first `limit` of them by namespace, file and number.
    async fn degraded_versions(&self, limit: usize) -> Result<(u64, Vec<DegradedVersion>), StoreError>;
    /// Every chunk stored in a shard after `after`, in the order of ids, at most `limit`.
    async fn stored_chunks(&self, shard: Shard, after: Option<ChunkId>, limit: usize) -> Result<Vec<StoredChunk>, StoreError>;
    /// The chunks that stand in a pack of this shard, by rising offset.
    async fn pack_chunks(&self, shard: Shard, pack: PackId) -> Result<Vec<ChunkLocation>, StoreError>;
    /// Every pack of every shard.
    async fn packs(&self) -> Result<Vec<PackRow>, StoreError>;
    /// In which regions these packs are. Those that were never placed are not in the answer.
    async fn copies(&self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError>;
    /// The packs that are in a region after `after`, in the order of ids, at most `limit`; with `or_unplaced` also those that were never placed.
    async fn packs_in(&self, region: &str, or_unplaced: bool, after: Option<PackId>, limit: usize) -> Result<Vec<PackRow>, StoreError>;
    /// Where a user's packs are written, if that was set.
    async fn home_region(&self, user: UserId) -> Result<Option<String>, StoreError>;

    /// What a user uses and may use.
    async fn quota(&self, user: UserId) -> Result<Quota, StoreError>;
    /// An upload of this user.
    async fn upload(&self, user: UserId, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError>;
    /// The chunks of an upload into this namespace that have arrived, by index.
    async fn upload_chunks(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<BTreeMap<u64, ChunkRef>, StoreError>;
    /// How many chunks of an upload into this namespace have arrived.
    async fn upload_chunk_count(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<u64, StoreError>;

    /// Compares the rows with each other.
    async fn check_rows(&self) -> Result<RowFaults, StoreError>;
    /// How many node states of a namespace cannot be decoded.
    async fn check_states(&self, namespace: NamespaceId) -> Result<u64, StoreError>;
    /// Until when the sweep leaves blobs alone, for whoever holds it longest, in milliseconds since 1970; 0 for not at all.
    async fn sweep_held_until_ms(&self) -> Result<i64, StoreError>;
    /// Holds it for this holder until then. Every process of the relay sees it at once.
    async fn hold_sweep(&self, holder: [u8; 16], until_ms: i64) -> Result<(), StoreError>;
    /// Ends what this holder held, and forgets what others held until before `now_ms`.
    async fn release_sweep(&self, holder: [u8; 16], now_ms: i64) -> Result<(), StoreError>;

    /// Every namespace.
    async fn namespace_ids(&self) -> Result<Vec<NamespaceId>, StoreError>;
    /// What moves users between shards; nothing if there is one shard for ever.
    fn moves(&self) -> Option<&dyn ShardMoves>;
    /// Totals of each shard.
    async fn shard_totals(&self) -> Result<Vec<ShardTotals>, StoreError>;
}

/// One writing transaction (CS2). It stays within its [`Scope`]: calls that name another namespace's shard are a mistake of the caller.
#[async_trait]
pub trait ContentTx: TreeTx + DavTx + VersionTx + SearchTx {
    /// Makes everything durable.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
    /// Undoes everything, and returns when it is undone: what was locked is free. One that is dropped is undone too, but some time later.
    async fn rollback(self: Box<Self>) -> Result<(), StoreError>;

    /// The relay's identity as this transaction finds it: what it writes is of that run.
    async fn identity(&mut self) -> Result<Identity, StoreError>;
    /// Creates a namespace with its owner as a member.
    async fn create_namespace(&mut self, row: &NamespaceRow, now_ms: i64) -> Result<(), StoreError>;
    /// A namespace as a user sees it, inside the transaction.
    async fn namespace_for(&mut self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError>;
    /// A namespace as somebody sees it with whom this one file of it is shared, inside the transaction.
    async fn shared_namespace(&mut self, namespace: NamespaceId, file: NodeId, user: UserId) -> Result<Option<NamespaceRow>, StoreError>;
    /// Makes someone a member or changes the role.
    async fn set_member(&mut self, namespace: NamespaceId, user: UserId, role: Role, now_ms: i64) -> Result<(), StoreError>;
    /// Ends a membership. Returns whether there was one.
    async fn remove_member(&mut self, namespace: NamespaceId, user: UserId) -> Result<bool, StoreError>;
    /// The members of a namespace.
    async fn members(&mut self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError>;
    /// Which of these devices belong to members of the namespace, or to those who once could write there.
    async fn devices_of_members(&mut self, namespace: NamespaceId, devices: &[DeviceId]) -> Result<BTreeSet<DeviceId>, StoreError>;

    /// The states of these nodes, as far as they exist.
    async fn nodes(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError>;
    /// Writes nodes at their newest places, keeps what they showed before, and moves the head, the number up to which the tree is settled and the
    /// highest counter.
    async fn put_nodes(
        &mut self,
        namespace: &NamespaceRow,
        nodes: &[NodeWrite],
        head_seq: u64,
        max_counter: u64,
        now_ms: i64,
    ) -> Result<(), StoreError>;
    /// Goes on with the number after `to_seq`, in this run of a relay, and remembers that those between were never given.
    async fn skip_numbers(&mut self, namespace: &NamespaceRow, to_seq: u64, run: ReplicaId) -> Result<(), StoreError>;
    /// Keeps versions and counts their chunks; those already kept are left as they are. Every chunk must be held (CS3).
    async fn add_versions(&mut self, namespace: NamespaceId, versions: &[VersionWrite]) -> Result<(), StoreError>;

    /// Begins a rewind, unless one of this id was begun before. Returns the one that stands.
    async fn begin_rewind(&mut self, namespace: NamespaceId, row: &RewindRow) -> Result<RewindRow, StoreError>;
    /// Remembers how far a rewind has come, if it still stands at `from` and is not finished. Returns whether it did.
    async fn advance_rewind(&mut self, namespace: NamespaceId, row: &RewindRow, from: Option<NodeId>) -> Result<bool, StoreError>;

    /// Purges those of these nodes that are deleted, not purged, and did not change since they had this number: their versions go, and the namespace holds a chunk no longer that nothing else in
    /// it refers to and no lease protects; what that was its owner uses no longer (CS3).
    async fn purge(&mut self, namespace: &NamespaceRow, nodes: &[(NodeId, u64)], now_ms: i64) -> Result<Purged, StoreError>;

    /// The answers that those of these commits of a user got that were accepted before.
    async fn commit_records(
        &mut self,
        namespace: NamespaceId,
        user: UserId,
        ids: &[CommitId],
    ) -> Result<BTreeMap<CommitId, CommitRecord>, StoreError>;
    /// Remembers answers.
    async fn add_commit_records(
        &mut self,
        namespace: NamespaceId,
        records: &[(UserId, CommitId, CommitRecord)],
        now_ms: i64,
    ) -> Result<(), StoreError>;

    /// Which of these chunks the namespace holds.
    async fn held(&mut self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError>;
    /// Which of these chunks the shard holds undamaged for anybody; they stay until the transaction ends.
    async fn stored(&mut self, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError>;
    /// Adds the row of a pack whose blob is durable, and its chunks; a chunk stored undamaged elsewhere keeps its place.
    async fn add_pack(&mut self, pack: PackRow, chunks: &[ChunkLocation]) -> Result<(), StoreError>;
    /// Lets the namespace hold these stored chunks until `lease_until_ms`. Returns the bytes that are new to it.
    async fn lease_chunks(&mut self, namespace: NamespaceId, chunks: &[(ChunkId, u32)], lease_until_ms: i64) -> Result<u64, StoreError>;
    /// What a user uses and may use.
    async fn quota(&mut self, user: UserId) -> Result<Quota, StoreError>;
    /// Adds to what a user uses.
    async fn add_usage(&mut self, user: UserId, bytes: u64) -> Result<(), StoreError>;

    /// Records an upload.
    async fn put_upload(&mut self, upload: &UploadRow) -> Result<(), StoreError>;
    /// An upload.
    async fn upload(&mut self, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError>;
    /// Lets an upload, and the leases of what of it has arrived, last until this time at least.
    async fn prolong_upload(&mut self, version_id: [u8; 16], until_ms: i64) -> Result<(), StoreError>;
    /// Records an upload's chunk; the same index again replaces it.
    async fn put_upload_chunk(&mut self, version_id: [u8; 16], index: u64, chunk: ChunkRef) -> Result<(), StoreError>;
    /// Marks an upload as completed; `node` is the file that it became, `hash` that of the whole.
    async fn complete_upload(&mut self, version_id: [u8; 16], node: NodeId, hash: ContentHash, now_ms: i64) -> Result<(), StoreError>;
    /// Forgets an upload; its chunks stay leased until their lease ends.
    async fn delete_upload(&mut self, version_id: [u8; 16]) -> Result<(), StoreError>;

    /// Counts references (CS3) and what owners use anew, in the transaction's shard, and says how many rows of each were wrong. Nobody else writes
    /// meanwhile.
    async fn recount(&mut self) -> Result<(u64, u64), StoreError>;
    /// Takes the mark of damage from chunks that still stand where their bytes were found to be right. How many.
    async fn mark_sound(&mut self, chunks: &[ChunkLocation]) -> Result<u64, StoreError>;

    /// Marks chunks as damaged, for operators and so that a device sends them again.
    async fn mark_damaged(&mut self, chunks: &[(ChunkLocation, &'static str)], now_ms: i64) -> Result<(), StoreError>;

    /// Drops at most `limit` leases that ended before `now_ms` and nothing refers to, and the usage that they were. Returns how many.
    async fn drop_leases(&mut self, now_ms: i64, limit: usize) -> Result<u64, StoreError>;
    /// Forgets uploads and commit records that ended before these times.
    async fn drop_expired(&mut self, uploads_before_ms: i64, commits_before_ms: i64) -> Result<(), StoreError>;
    /// Marks chunks that no namespace holds as orphaned, unmarks those that one holds again. Returns how many are newly marked.
    async fn mark_orphans(&mut self, now_ms: i64) -> Result<u64, StoreError>;
    /// Deletes at most `limit` chunks orphaned before `before_ms` that no namespace holds. Returns their number and bytes.
    async fn delete_orphans(&mut self, before_ms: i64, limit: usize) -> Result<(u64, u64), StoreError>;
    /// At most `limit` packs stored before `before_ms` whose chunks, with their frames, are less than `live_percent` of the pack, with the sum of the
    /// chunks' lengths. Packs without a chunk, and those with a damaged one, are not among them.
    async fn sparse_packs(&mut self, before_ms: i64, live_percent: u64, limit: usize) -> Result<Vec<(PackRow, u64)>, StoreError>;
    /// At most `limit` packs stored before `before_ms` that have a chunk and are shorter than `below_bytes`, the oldest first. Those with a damaged
    /// chunk are not among them.
    async fn small_packs(&mut self, before_ms: i64, below_bytes: u64, limit: usize) -> Result<Vec<PackRow>, StoreError>;
    /// In which regions these packs are, inside the transaction.
    async fn copies(&mut self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError>;
    /// Says in which regions a pack is; none means that it was never placed. A pack that is gone is a conflict.
    async fn set_copies(&mut self, pack: PackId, regions: &BTreeSet<String>) -> Result<(), StoreError>;
    /// Says where a user's packs are written. Returns whether there is such a user.
    async fn set_home_region(&mut self, user: UserId, region: Option<&str>) -> Result<bool, StoreError>;
    /// Adds the row of a pack whose blob is durable, and lets the chunks stand in it that still stand in the pack named with them. Packs left
    /// without a chunk are retired.
    async fn move_chunks(&mut self, pack: PackRow, chunks: &[(ChunkLocation, PackId)], now_ms: i64) -> Result<(), StoreError>;
    /// Deletes the rows of at most `limit` packs stored, and retired if they were, before `before_ms` without a chunk. Their blobs are to be deleted after `commit`.
    async fn delete_empty_packs(&mut self, before_ms: i64, limit: usize) -> Result<Vec<PackRow>, StoreError>;
}
