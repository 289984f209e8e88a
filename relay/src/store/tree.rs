//! Where nodes stand in the tree that is shown: what of the law of reading is kept beside each node, so that a page costs what is on it.
//!
//! The store keeps and finds; what is right is decided above (`service/content/settle.rs` when something is written, `service/content/view.rs` when it is
//! read). Of a namespace whose [`super::content::NamespaceRow::settled_seq`] is not its head nothing here can be believed.

use super::StoreError;
use super::content::NodeRow;
use async_trait::async_trait;
use ferry_protocol::{Name, NamespaceId, NodeId};
use std::collections::BTreeSet;

/// How a node is shown in the directory in which it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not at all.
    Hidden,
    /// As one entry under its own name, which nothing else there claims.
    Plain,
    /// As the law of reading says, from all that claims names there.
    Contested,
}

impl Standing {
    /// As it stands in its column.
    pub fn code(self) -> i16 {
        match self {
            Self::Hidden => 0,
            Self::Plain => 1,
            Self::Contested => 2,
        }
    }

    /// Back again.
    pub(super) fn of_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Hidden),
            1 => Ok(Self::Plain),
            2 => Ok(Self::Contested),
            _ => Err(StoreError::Corrupt(format!("unknown standing {code}"))),
        }
    }
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The node.
    pub node: NodeId,
    /// The directory.
    pub parent: NodeId,
    /// The name that it claims there.
    pub name: Name,
    /// How it is shown.
    pub standing: Standing,
    /// Whether that is not its newest place: a cycle was broken here, or nobody knows its parent.
    pub is_displaced: bool,
    /// Whether what it shows by itself is a directory.
    pub is_directory: bool,
}

/// A node and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedNode {
    /// The node.
    pub row: NodeRow,
    /// Where it stands.
    pub stand: Stand,
}

/// By what the entries of a directory are ordered; equal ones by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By name, byte by byte.
    #[default]
    Name,
    /// By size.
    Size,
    /// By the time of the last change.
    Modified,
}

/// Which children to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildQuery<'q> {
    /// The directory.
    pub parent: NodeId,
    /// Their order.
    pub order: Order,
    /// Whether the last comes first.
    pub descending: bool,
    /// Only what comes after this size or time in milliseconds (0 where the order is by name) and name.
    pub after: Option<(i64, &'q Name)>,
    /// At most so many.
    pub limit: usize,
}

/// A name that comes after every name.
const BEYOND: [u8; ferry_protocol::limits::NAME_MAX_BYTES + 1] = [0xFF; ferry_protocol::limits::NAME_MAX_BYTES + 1];

impl ChildQuery<'_> {
    /// Where to go on, always with a bound: one form of a statement, and one that an index answers.
    pub(super) fn bound(&self) -> (i64, Vec<u8>) {
        match self.after {
            Some((key, name)) => (key, name.as_bytes().to_vec()),
            None if self.descending => (i64::MAX, BEYOND.to_vec()),
            None => (i64::MIN, Vec::new()),
        }
    }

    /// The comparison and the order in SQL; `key` and `name` are the bound's parameters.
    pub(super) fn clause(&self, key: &str, name: &str) -> String {
        let (than, way) = if self.descending { ("<", "DESC") } else { (">", "ASC") };
        match self.order {
            Order::Name => format!("file_name {than} {name} ORDER BY file_name {way}"),
            Order::Size => format!("(file_size, file_name) {than} ({key}, {name}) ORDER BY file_size {way}, file_name {way}"),
            Order::Modified => format!("(updated_at, file_name) {than} ({key}, {name}) ORDER BY updated_at {way}, file_name {way}"),
        }
    }
}

/// Reads of the shown tree.
#[async_trait]
pub trait TreeStore: Send + Sync + 'static {
    /// Plain children of a directory, in their order, and after them all that is contested there, as of one moment: what becomes the one or the other
    /// meanwhile is in the answer once.
    async fn children(&self, namespace: NamespaceId, query: ChildQuery<'_>) -> Result<Vec<PlacedNode>, StoreError>;
    /// What stands in these directories and is shown; with `contested_only` what is not plain.
    async fn claims(&self, namespace: NamespaceId, parents: &[NodeId], contested_only: bool) -> Result<Vec<PlacedNode>, StoreError>;
    /// What stands in a directory and is either plain and of this name, or contested.
    async fn named(&self, namespace: NamespaceId, parent: NodeId, name: &Name) -> Result<Vec<PlacedNode>, StoreError>;
    /// Which of these names something plain has in a directory.
    async fn taken(&self, namespace: NamespaceId, parent: NodeId, names: &BTreeSet<Name>) -> Result<BTreeSet<Name>, StoreError>;
    /// These nodes and every one above them, in no order.
    async fn line(&self, namespace: NamespaceId, nodes: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError>;
    /// What is shown below these nodes at any depth, at most `limit`, in no order.
    async fn subtree(&self, namespace: NamespaceId, nodes: &[NodeId], limit: usize) -> Result<Vec<PlacedNode>, StoreError>;
    /// In which of these nodes something stands that is shown.
    async fn with_shown_child(&self, namespace: NamespaceId, nodes: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError>;
    /// Whether anything in the namespace is contested.
    async fn is_contested(&self, namespace: NamespaceId) -> Result<bool, StoreError>;
}

/// The same inside a writing transaction.
#[async_trait]
pub trait TreeTx: Send {
    /// Every node of a namespace.
    async fn all_nodes(&mut self, namespace: NamespaceId) -> Result<Vec<NodeRow>, StoreError>;
    /// These nodes and where they stand, as far as they exist.
    async fn placed(&mut self, namespace: NamespaceId, nodes: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError>;
    /// Where these nodes stand, as far as they exist.
    async fn stands(&mut self, namespace: NamespaceId, nodes: &[NodeId]) -> Result<Vec<Stand>, StoreError>;
    /// The nodes that stand at another place than their newest.
    async fn displaced(&mut self, namespace: NamespaceId) -> Result<Vec<Stand>, StoreError>;
    /// What is shown at those of these places where it is not one plain node.
    async fn crowded(&mut self, namespace: NamespaceId, places: &[(NodeId, Name)]) -> Result<Vec<PlacedNode>, StoreError>;
    /// In which of these nodes something stands that is shown.
    async fn with_shown_child(&mut self, namespace: NamespaceId, nodes: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError>;
    /// Says where these nodes stand; `is_directory` follows from what they are.
    async fn set_stands(&mut self, namespace: NamespaceId, stands: &[Stand]) -> Result<(), StoreError>;
    /// Says that every node stands where it should, up to this number of the feed.
    async fn set_settled(&mut self, namespace: NamespaceId, seq: u64) -> Result<(), StoreError>;
}

#[cfg(test)]
mod contract;
