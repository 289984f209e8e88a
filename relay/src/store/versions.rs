//! Versions one by one: what each costs, what it is called, who wrote it, and how long it is kept. Two traits beside those of
//! [`content`](super::content), which every content store has.

use super::StoreError;
use super::content::{AuthorRow, DeletedRow, NamespaceRow, Purged, VersionRow};
use async_trait::async_trait;
use ferry_protocol::{ChunkRef, ContentHash, DeviceId, Name, NamespaceId, NodeId, UserId};
use std::collections::BTreeMap;

/// What a namespace says about how long things are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionRow {
    /// Its own rule, as it was written; nothing if it has none.
    pub rule: Option<String>,
    /// Its owner's rule for all folders.
    pub owner_rule: Option<String>,
    /// When it was last seen to, in milliseconds since 1970.
    pub retained_at_ms: i64,
    /// The owner.
    pub owner: UserId,
}

/// What a file held, as its version keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptContent {
    /// Hash of the whole.
    pub hash: ContentHash,
    /// The file's own time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkRef>,
}

/// Reads of committed state.
#[async_trait]
pub trait VersionStore: Send + Sync {
    /// What these files of a namespace held last. Those of which no version is kept are left out.
    async fn newest_contents(&self, namespace: NamespaceId, files: &[NodeId]) -> Result<BTreeMap<NodeId, KeptContent>, StoreError>;
    /// Of each of these versions of the namespace the bytes of chunks that nothing else in the namespace names. Those without such a chunk may be left out.
    async fn version_costs(&self, namespace: NamespaceId, versions: &[[u8; 16]]) -> Result<BTreeMap<[u8; 16], u64>, StoreError>;
    /// What was deleted and had this name in one of these directories, newest first, less what is purged.
    async fn deleted_at(
        &self,
        namespace: NamespaceId,
        parents: &[NodeId],
        name: &Name,
        limit: usize,
    ) -> Result<Vec<DeletedRow>, StoreError>;
    /// Whose these devices are, as far as that is known.
    async fn authors_among(&self, devices: &[DeviceId]) -> Result<Vec<AuthorRow>, StoreError>;
    /// The files with more than one version, by rising id after `after`, at most `limit`.
    async fn files_with_history(&self, namespace: NamespaceId, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>, StoreError>;
    /// How long a namespace keeps things; nothing if there is no such namespace.
    async fn retention(&self, namespace: NamespaceId) -> Result<Option<RetentionRow>, StoreError>;
    /// A user's rule for all folders.
    async fn user_retention(&self, user: UserId) -> Result<Option<String>, StoreError>;
    /// Sets it. Returns whether there is such a user.
    async fn set_user_retention(&self, user: UserId, rule: Option<&str>) -> Result<bool, StoreError>;
}

/// Writes inside a transaction that holds the namespace.
#[async_trait]
pub trait VersionTx: Send {
    /// The versions of a file, newest first, inside the transaction.
    async fn versions(&mut self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError>;
    /// Gives a version of this file a label, or takes it away. Returns whether there is such a version.
    async fn set_label(
        &mut self,
        namespace: NamespaceId,
        node: NodeId,
        version_id: [u8; 16],
        label: Option<&str>,
    ) -> Result<bool, StoreError>;
    /// Drops these versions of the namespace, and its hold on chunks that nothing else in it names and no lease protects; what that was its owner uses no
    /// longer (CS3). No file may show one of them.
    async fn drop_versions(&mut self, namespace: &NamespaceRow, versions: &[[u8; 16]], now_ms: i64) -> Result<Purged, StoreError>;
    /// Sets the namespace's own rule.
    async fn set_retention(&mut self, namespace: NamespaceId, rule: Option<&str>) -> Result<(), StoreError>;
    /// Notes that the namespace is seen to at this time. Returns whether it was not since `since_ms`: of two who do this at once one is told so.
    async fn begin_retention(&mut self, namespace: NamespaceId, since_ms: i64, now_ms: i64) -> Result<bool, StoreError>;
}
