//! Edits that the relay makes itself, for the plain API: it is one more replica, with the user's web access as the device.
//!
//! An edit replaces exactly the events that its maker was shown. What a device wrote meanwhile stays beside it, as with any other replica.

use super::commit::{missing_of, web_device};
use super::derive::{node_write, version_write};
use super::settle::{Reached, put_nodes};
use super::{Content, Entry};
use crate::service::{ServiceError, ServiceResult};
use crate::store::bus::Wake;
use crate::store::content::{ContentTx, NamespaceRow, NodeRow, Scope, VersionWrite};
use ferry_protocol::wire::Role;
use ferry_protocol::{Author, ChunkId, Dot, Name, NodeId, NodeState, Place, ReplicaId, Stamp, Value, node};
use std::collections::{BTreeMap, BTreeSet};

/// How the web is named in versions and conflicted copies.
const WEB_NAME: &str = "web";
/// Missing chunks, and entries that need them, that an answer names.
const NAMED_MAX: usize = 100;

/// A writing transaction with a pen: stamps, values and what changed so far.
pub(super) struct Edit {
    tx: Box<dyn ContentTx>,
    /// The namespace inside the transaction.
    pub(super) namespace: NamespaceRow,
    replica: ReplicaId,
    author: Author,
    counter: u64,
    now_ms: i64,
    /// Nodes as the transaction found them.
    before: BTreeMap<NodeId, NodeState>,
    /// Nodes as they will be.
    after: BTreeMap<NodeId, NodeState>,
    /// Changed nodes in the order of their changes, so that a reader of the feed hears of a directory before what is in it.
    order: Vec<NodeId>,
    /// The id that the version of this value is to have.
    named: Option<(Dot, [u8; 16])>,
}

impl Content {
    /// Begins an edit of these nodes. The role is checked inside the transaction.
    pub(super) async fn edit(&self, entry: &Entry, nodes: &[NodeId]) -> ServiceResult<Edit> {
        let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
        let replica = self.identity_in(&mut *tx).await?.replica;
        let found = match entry.only {
            None => tx.namespace_for(entry.row.id, entry.caller.user_id).await?,
            Some(file) => tx.shared_namespace(entry.row.id, file, entry.caller.user_id).await?,
        };
        let namespace = found.ok_or_else(ServiceError::not_found)?;
        super::check_membership(&entry.caller, &namespace, Role::Editor)?;
        let rows: Vec<NodeRow> = tx.nodes(entry.row.id, nodes).await?;
        let before: BTreeMap<NodeId, NodeState> = rows.into_iter().map(|r| (r.id, r.state)).collect();
        Ok(Edit {
            tx,
            replica,
            author: Author { device: web_device(entry.caller.user_id), name: WEB_NAME.into() },
            counter: namespace.max_counter,
            namespace,
            now_ms: self.clock.now_ms(),
            after: before.clone(),
            before,
            order: Vec::new(),
            named: None,
        })
    }

    /// Writes what changed and tells the listeners. Refused if a part of a new content is not in the store.
    pub(super) async fn finish(&self, edit: Edit) -> ServiceResult<u64> {
        let Edit { mut tx, namespace, replica, author, counter, now_ms, before, mut after, order, named } = edit;
        let (mut writes, mut versions) = (Vec::new(), Vec::new());
        let mut head_seq = if order.is_empty() { namespace.head_seq } else { self.numbers_after(&namespace, replica)? };
        self.keep_gap(&mut *tx, &namespace, head_seq, replica).await?;
        for (id, state) in order.into_iter().filter_map(|id| Some((id, after.remove(&id)?))) {
            let is_new = |v: &&Value| before.get(&id).is_none_or(|b| b.body().value(v.dot).is_none());
            for value in state.body().values().iter().filter(is_new) {
                if let Some(mut version) = version_write(namespace.id, id, value, now_ms) {
                    if let Some((_, wanted)) = named.filter(|(dot, _)| *dot == value.dot) {
                        version.row.version_id = wanted;
                    }
                    versions.push(version);
                }
            }
            head_seq += 1;
            writes.push(node_write(id, head_seq, state, before.get(&id), Some((replica, author.device))));
        }
        // R3: a node never points at what is not there. What is looked at before the transaction may be lost since.
        let missing = missing_of(&mut *tx, namespace.id, &versions).await?;
        if !missing.is_empty() {
            tx.rollback().await?;
            return Err(lost(&missing, &versions));
        }
        let known: Vec<NodeId> = before.keys().copied().collect();
        let reached = Reached { head_seq, max_counter: counter, now_ms };
        put_nodes(&mut *tx, &namespace, &writes, &known, reached).await?;
        tx.add_versions(namespace.id, &versions).await?;
        tx.commit().await?;
        if !writes.is_empty() {
            self.bus.publish(Wake::feed(namespace.id, head_seq));
        }
        Ok(head_seq)
    }
}

impl Edit {
    /// The transaction, for what belongs to the edit beside nodes.
    pub(super) fn tx(&mut self) -> &mut dyn ContentTx {
        &mut *self.tx
    }

    /// A node as it will be.
    pub(super) fn state(&self, id: NodeId) -> Option<&NodeState> {
        self.after.get(&id)
    }

    fn stamp(&mut self) -> Stamp {
        self.counter += 1;
        Stamp { counter: self.counter, replica: self.replica }
    }

    fn value(&mut self, dot: Dot, content: node::Content) -> Value {
        let stamp = self.stamp();
        Value { dot, stamp, content, author: self.author.clone(), wall_ms: self.now_ms }
    }

    /// A new node. Returns the event that wrote its value.
    pub(super) fn create(&mut self, id: NodeId, parent: NodeId, name: Name, content: node::Content) -> Dot {
        let stamp = self.stamp();
        let mut state = NodeState::new(Place { stamp, parent, name });
        let dot = state.body().next_dot(self.replica);
        let value = self.value(dot, content);
        state.body_mut().put(&[], value);
        self.after.insert(id, state);
        self.order.push(id);
        dot
    }

    /// A new value that replaces the events in `replaces`.
    pub(super) fn put(&mut self, id: NodeId, replaces: &[Dot], content: node::Content) -> ServiceResult<Dot> {
        let mut state = self.after.get(&id).cloned().ok_or_else(ServiceError::not_found)?;
        let dot = state.body().next_dot(self.replica);
        let value = self.value(dot, content);
        state.body_mut().put(replaces, value);
        self.after.insert(id, state);
        self.order.push(id);
        Ok(dot)
    }

    /// Ends values without another in their place.
    pub(super) fn settle(&mut self, id: NodeId, dots: &[Dot]) -> ServiceResult<()> {
        self.after.get_mut(&id).ok_or_else(ServiceError::not_found)?.body_mut().settle(dots);
        self.order.push(id);
        Ok(())
    }

    /// Does nothing of it.
    pub(super) async fn abandon(self) -> ServiceResult<()> {
        Ok(self.tx.rollback().await?)
    }

    /// Moves a node.
    pub(super) fn move_to(&mut self, id: NodeId, parent: NodeId, name: Name) -> ServiceResult<()> {
        let stamp = self.stamp();
        let state = self.after.get_mut(&id).ok_or_else(ServiceError::not_found)?;
        state.move_to(Place { stamp, parent, name });
        self.order.push(id);
        Ok(())
    }

    /// Gives the version of this event an id that was promised before.
    pub(super) fn name_version(&mut self, dot: Dot, version_id: [u8; 16]) {
        self.named = Some((dot, version_id));
    }
}

/// What an edit is told that would point at what is not there.
fn lost(missing: &[ChunkId], versions: &[VersionWrite]) -> ServiceError {
    let missing: BTreeSet<ChunkId> = missing.iter().copied().collect();
    let needs = |version: &&VersionWrite| version.chunks.iter().any(|c| missing.contains(&c.id));
    let nodes: BTreeSet<String> = versions.iter().filter(needs).map(|v| v.row.node.to_string()).collect();
    let detail = format!("The relay has lost {} chunks of the content of {} entries. Nothing was changed.", missing.len(), nodes.len());
    ServiceError::conflict("content_lost", detail)
        .hint("A device that has the content sends it by itself when it next syncs. Choose another version, or try again then.")
        .with("chunks", missing.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>())
        .with("nodes", nodes.into_iter().take(NAMED_MAX).collect::<Vec<_>>())
}
