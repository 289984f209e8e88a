//! Edits that the relay makes itself, for the plain API: it is one more replica, with the user's web access as the device.
//!
//! An edit replaces exactly the events that its maker was shown. What a device wrote meanwhile stays beside it, as with any other replica.

use super::commit::{Changes, missing_of, web_device};
use super::derive::{node_write, version_write};
use super::lanes::{Turn, Wish};
use super::settle::{Reached, put_nodes, rows_and_stands};
use super::{Content, Entry, patiently};
use crate::service::{ServiceError, ServiceResult};
use crate::store::bus::Wake;
use crate::store::content::{ContentTx, NamespaceRow, Scope, VersionWrite};
use crate::store::tree::Stand;
use ferry_protocol::wire::Role;
use ferry_protocol::{Author, ChunkId, Dot, Name, NodeId, NodeState, Place, ReplicaId, Stamp, UserId, Value, node};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// How the web is named in versions and conflicted copies.
const WEB_NAME: &str = "web";
/// Missing chunks, and entries that need them, that an answer names.
const NAMED_MAX: usize = 100;

/// What an edit writes: stamps, values and what changed so far.
pub(super) struct Pen {
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

/// A writing transaction with a pen.
pub(super) struct Edit {
    tx: Box<dyn ContentTx>,
    pen: Pen,
    /// Where the nodes stood that the transaction found.
    stands: BTreeMap<NodeId, Stand>,
}

impl Deref for Edit {
    type Target = Pen;

    fn deref(&self) -> &Pen {
        &self.pen
    }
}

impl DerefMut for Edit {
    fn deref_mut(&mut self) -> &mut Pen {
        &mut self.pen
    }
}

/// What an edit does with the pen, and how many entries that are. It may be asked again, on another state of the namespace.
pub(super) type Write = Arc<dyn Fn(&mut Pen) -> ServiceResult<usize> + Send + Sync>;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrote {
    /// The feed's head after it.
    pub(super) head_seq: u64,
    /// How many entries it was about, as [`Write`] says.
    pub(super) count: usize,
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
        let (rows, stands) = rows_and_stands(tx.placed(entry.row.id, nodes).await?);
        let found = rows.into_iter().map(|(id, row)| (id, row.state)).collect();
        Ok(Edit { tx, pen: Pen::new(namespace, replica, entry.caller.user_id, found, self.clock.now_ms()), stands })
    }

    /// Carries out an edit of these nodes that needs nothing but the pen; with what others write in the namespace at the same moment (RC7).
    pub(super) async fn write(&self, entry: &Entry, nodes: Vec<NodeId>, write: Write) -> ServiceResult<Wrote> {
        let lane = match self.turn(entry, Wish::Edit { nodes: nodes.clone(), write: write.clone() }).await {
            Turn::Done(done) => return Ok(Wrote { head_seq: done.head_seq, count: done.count }),
            Turn::Failed(error) => return Err(error),
            Turn::Alone(lane) => lane,
        };
        let attempt = async || {
            let mut edit = self.edit(entry, &nodes).await?;
            let count = write(&mut edit)?;
            ServiceResult::Ok(Wrote { head_seq: self.finish(edit).await?, count })
        };
        let done = patiently!(attempt().await);
        drop(lane);
        done
    }

    /// Writes what changed and tells the listeners. Refused if a part of a new content is not in the store.
    pub(super) async fn finish(&self, edit: Edit) -> ServiceResult<u64> {
        let Edit { mut tx, pen, stands } = edit;
        let (namespace, replica, now_ms) = (pen.namespace.clone(), pen.replica, pen.now_ms);
        let base_seq = if pen.order.is_empty() { namespace.head_seq } else { self.numbers_after(&namespace, replica)? };
        self.keep_gap(&mut *tx, &namespace, base_seq, replica).await?;
        let Changes { writes, versions, max_counter } = pen.changes(base_seq);
        let head_seq = base_seq + writes.len() as u64;
        // R3: a node never points at what is not there. What is looked at before the transaction may be lost since.
        let missing = missing_of(&mut *tx, namespace.id, &versions).await?;
        if !missing.is_empty() {
            tx.rollback().await?;
            return Err(lost(&missing, &versions));
        }
        let reached = Reached { head_seq, max_counter, now_ms };
        put_nodes(&mut *tx, &namespace, &writes, stands, reached).await?;
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

    /// Does nothing of it.
    pub(super) async fn abandon(self) -> ServiceResult<()> {
        Ok(self.tx.rollback().await?)
    }
}

impl Pen {
    /// A pen of this user's web access for these nodes.
    pub(super) fn new(namespace: NamespaceRow, replica: ReplicaId, user: UserId, before: BTreeMap<NodeId, NodeState>, now_ms: i64) -> Self {
        Self {
            replica,
            author: Author { device: web_device(user), name: WEB_NAME.into() },
            counter: namespace.max_counter,
            namespace,
            now_ms,
            after: before.clone(),
            before,
            order: Vec::new(),
            named: None,
        }
    }

    /// What was written, numbered after `base_seq`.
    pub(super) fn changes(mut self, base_seq: u64) -> Changes {
        let (mut writes, mut versions) = (Vec::new(), Vec::new());
        for (id, state) in self.order.into_iter().filter_map(|id| Some((id, self.after.remove(&id)?))) {
            let is_new = |v: &&Value| self.before.get(&id).is_none_or(|b| b.body().value(v.dot).is_none());
            for value in state.body().values().iter().filter(is_new) {
                if let Some(mut version) = version_write(self.namespace.id, id, value, self.now_ms) {
                    if let Some((_, wanted)) = self.named.filter(|(dot, _)| *dot == value.dot) {
                        version.row.version_id = wanted;
                    }
                    versions.push(version);
                }
            }
            let seq = base_seq + writes.len() as u64 + 1;
            writes.push(node_write(id, seq, state, self.before.get(&id), Some((self.replica, self.author.device))));
        }
        Changes { writes, versions, max_counter: self.counter }
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
