//! The whole tree that a namespace shows, by the one law of reading: what everything costs, so only for what needs everything. A part at a time is
//! read by `view.rs`.

use super::{Content, off_thread};
use crate::service::ServiceResult;
use crate::store::content::NodeRow;
use ferry_protocol::read::{self, Entry, States};
use ferry_protocol::{NamespaceId, NodeId, RelPath};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Nodes in all trees that are kept together; above it the oldest go (I14).
const KEPT_NODES_MAX: usize = 200_000;

/// A namespace as it is shown at one head of its feed.
#[derive(Debug)]
pub(super) struct Tree {
    /// Every entry by its path, parents before children.
    pub(super) entries: BTreeMap<RelPath, Entry>,
    /// Number and times of every node, shown or not.
    pub(super) rows: BTreeMap<NodeId, Times>,
}

/// When a node came and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// The number of its newest change.
    pub(super) seq: u64,
    /// When it first came to the relay, in milliseconds since 1970.
    pub(super) created_at_ms: i64,
    /// When it last changed on the relay, in milliseconds since 1970.
    pub(super) updated_at_ms: i64,
}

impl From<&NodeRow> for Times {
    fn from(row: &NodeRow) -> Self {
        Self { seq: row.seq, created_at_ms: row.created_at_ms, updated_at_ms: row.updated_at_ms }
    }
}

impl Tree {
    pub(super) fn new(rows: Vec<NodeRow>) -> Self {
        let times = rows.iter().map(|row| (row.id, Times::from(row))).collect();
        let states: States = rows.into_iter().map(|row| (row.id, row.state)).collect();
        Self { entries: read::resolve(&states), rows: times }
    }
}

/// Trees that were asked for lately.
#[derive(Debug, Default)]
pub(super) struct Trees(Mutex<VecDeque<(NamespaceId, u64, Arc<Tree>)>>);

impl Trees {
    fn get(&self, namespace: NamespaceId, head_seq: u64) -> Option<Arc<Tree>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(n, h, _)| *n == namespace && *h == head_seq).map(|(_, _, tree)| tree.clone())
    }

    fn put(&self, namespace: NamespaceId, head_seq: u64, tree: &Arc<Tree>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(n, _, _)| *n != namespace);
        kept.push_back((namespace, head_seq, tree.clone()));
        while kept.iter().map(|(_, _, t)| t.rows.len()).sum::<usize>() > KEPT_NODES_MAX && kept.len() > 1 {
            kept.pop_front();
        }
    }
}

impl Content {
    /// The tree of a namespace as it is now.
    pub(super) async fn tree(&self, namespace: NamespaceId) -> ServiceResult<Arc<Tree>> {
        // Only the head is wanted: nothing comes after the last number.
        let head_seq = self.meta.feed(namespace, i64::MAX as u64, 1, 0).await?.head_seq;
        if let Some(tree) = self.trees.get(namespace, head_seq) {
            return Ok(tree);
        }
        let all = self.meta.all_nodes(namespace).await?;
        let head_seq = all.head_seq;
        super::view::note_rows_read(namespace, all.nodes.len());
        let tree = Arc::new(off_thread(move || Tree::new(all.nodes)).await?);
        self.trees.put(namespace, head_seq, &tree);
        Ok(tree)
    }
}
