//! What happened in a namespace, and what it holds, for people. Read from what is kept anyway: the history of nodes, the nodes, and their versions.

use super::StoreError;
use super::content::BeforeKind;
use async_trait::async_trait;
use ferry_protocol::{DeviceId, Dot, NamespaceId, NodeId};

/// What a node showed at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownThen {
    /// What it was.
    pub kind: BeforeKind,
    /// Where it stood.
    pub parent: NodeId,
    /// Its name there, as the disk held it.
    pub name: Vec<u8>,
    /// The event that wrote the file's content.
    pub dot: Option<Dot>,
}

/// The place of an act among all, the newest last: when, and whose change it is.
pub type ActKey = (i64, NodeId, u64);

/// One change of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActRow {
    /// When the relay heard of it, in milliseconds since 1970; the node; the number of the change.
    pub key: ActKey,
    /// Who made it, where that is known.
    pub device: Option<DeviceId>,
    /// Whether nothing is known of the node before it.
    pub is_first: bool,
    /// What was shown before it.
    pub before: ShownThen,
    /// What was shown after it; nothing if it is what the node shows now.
    pub after: Option<ShownThen>,
}

/// What a namespace holds, each file by its whole length: what it would take without deduplication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceTotals {
    /// Files that are shown.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Files in the trash.
    pub trash: u64,
    /// Their bytes.
    pub trash_bytes: u64,
    /// Kept versions, the newest of each file among them.
    pub versions: u64,
    /// Their bytes.
    pub version_bytes: u64,
}

/// Reads what happened.
#[async_trait]
pub trait ActivityStore: Send + Sync + 'static {
    /// Changes before this one, the newest first, at most `limit`; only those that this device made, if one is named.
    async fn activity(
        &self,
        namespace: NamespaceId,
        before: Option<ActKey>,
        by: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<ActRow>, StoreError>;
    /// What a namespace holds.
    async fn space_totals(&self, namespace: NamespaceId) -> Result<SpaceTotals, StoreError>;
}
