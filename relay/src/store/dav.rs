//! What WebDAV clients leave in the database: locks, and properties that nobody else knows the meaning of. Two traits beside those of
//! [`content`](super::content), which every content store has.

use super::StoreError;
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use std::collections::BTreeSet;

/// A lock, ended or not: who asks compares the times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DavLockRow {
    /// Its token's random bytes.
    pub token: [u8; 16],
    /// What is locked: names joined by slashes, empty for the namespace's root.
    pub path: Vec<u8>,
    /// Who locked it.
    pub user: UserId,
    /// What the client says of its user, as XML.
    pub owner_xml: Option<String>,
    /// Whether others may have a shared lock beside it.
    pub is_shared: bool,
    /// Whether it holds for everything below, too.
    pub is_deep: bool,
    /// For how long it was taken, in seconds.
    pub timeout_s: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// A property of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DavPropRow {
    /// Its XML namespace; may be empty.
    pub space: String,
    /// Its name.
    pub name: String,
    /// The whole element, as XML.
    pub value: Vec<u8>,
}

/// Reads of committed state.
#[async_trait]
pub trait DavStore: Send + Sync {
    /// The locks of a namespace, by token.
    async fn dav_locks(&self, namespace: NamespaceId) -> Result<Vec<DavLockRow>, StoreError>;
    /// The nodes of a namespace that have properties, at most `limit`.
    async fn dav_prop_nodes(&self, namespace: NamespaceId, limit: usize) -> Result<BTreeSet<NodeId>, StoreError>;
    /// The properties of a node, by XML namespace and name.
    async fn dav_props(&self, namespace: NamespaceId, node: NodeId) -> Result<Vec<DavPropRow>, StoreError>;
}

/// Writes inside a transaction that holds the namespace.
#[async_trait]
pub trait DavTx: Send {
    /// The locks of a namespace, by token.
    async fn dav_locks(&mut self, namespace: NamespaceId) -> Result<Vec<DavLockRow>, StoreError>;
    /// Makes a lock, or replaces the one of its token.
    async fn put_dav_lock(&mut self, namespace: NamespaceId, lock: &DavLockRow) -> Result<(), StoreError>;
    /// Removes these locks; those that are not there are no matter.
    async fn delete_dav_locks(&mut self, namespace: NamespaceId, tokens: &[[u8; 16]]) -> Result<(), StoreError>;
    /// The properties of a node, by XML namespace and name.
    async fn dav_props(&mut self, namespace: NamespaceId, node: NodeId) -> Result<Vec<DavPropRow>, StoreError>;
    /// How many properties all nodes of a namespace have.
    async fn dav_prop_count(&mut self, namespace: NamespaceId) -> Result<u64, StoreError>;
    /// Gives a node a property, or another value of it.
    async fn put_dav_prop(&mut self, namespace: NamespaceId, node: NodeId, prop: &DavPropRow) -> Result<(), StoreError>;
    /// Takes a property from a node; one that it has not is no matter.
    async fn delete_dav_prop(&mut self, namespace: NamespaceId, node: NodeId, space: &str, name: &str) -> Result<(), StoreError>;
}
