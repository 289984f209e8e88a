//! Nodes that a peer brings to the relay: it told us of them and has a working relay. If every device of a LAN sent what it heard from the
//! others, the same bytes would go up once for each of them.
//!
//! Nothing relies on the peer: if it leaves, loses its relay, or has not done it in time, the nodes are sent from here. A node that changes
//! here is no longer carried. All this is forgotten with the engine; then the nodes are sent, and twice is once (I8).

use crate::engine::Engine;
use crate::policy::Planted;
use crate::trees::{Result, Trees};
use ferry_protocol::{NodeId, ReplicaId};
use std::collections::BTreeMap;

/// How long a peer is given, in milliseconds.
const PATIENCE_MS: u64 = 15 * 60 * 1000;
/// So many nodes are remembered as carried at most; what is more is sent from here as well.
const CARRIED_MAX: u64 = 1 << 20;

/// Nodes that came with one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group(u32);

#[derive(Debug)]
struct Promise {
    by: ReplicaId,
    until_ms: u64,
    nodes: u64,
}

/// Which nodes are carried. Every one of them is unsent.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    nodes: BTreeMap<NodeId, Group>,
    /// Later groups have longer.
    groups: BTreeMap<Group, Promise>,
    next: u32,
}

impl Carried {
    /// A group of nodes that this replica brings to the relay. Without nodes it is forgotten with the next change.
    pub fn begin(&mut self, by: ReplicaId, now_ms: u64) -> Group {
        let group = Group(self.next);
        self.next = self.next.wrapping_add(1);
        self.groups.insert(group, Promise { by, until_ms: now_ms + PATIENCE_MS, nodes: 0 });
        group
    }

    /// The page of this group has been taken in.
    pub fn end(&mut self, group: Group) {
        if self.groups.get(&group).is_some_and(|p| p.nodes == 0) {
            self.groups.remove(&group);
        }
    }

    pub fn add(&mut self, node: NodeId, group: Group) {
        self.release(node);
        if self.len() >= CARRIED_MAX {
            return;
        }
        if let Some(promise) = self.groups.get_mut(&group) {
            promise.nodes += 1;
            self.nodes.insert(node, group);
        }
    }

    /// Whether a peer brings the node, as it is known here, to the relay.
    pub fn holds(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    pub fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// The node is no longer carried.
    pub fn release(&mut self, node: NodeId) {
        let Some(group) = self.nodes.remove(&node) else { return };
        if let Some(promise) = self.groups.get_mut(&group) {
            promise.nodes = promise.nodes.saturating_sub(1);
            self.end(group);
        }
    }

    fn release_groups(&mut self, which: impl Fn(&Promise) -> bool) {
        let before = self.groups.len();
        self.groups.retain(|_, promise| !which(promise));
        if self.groups.len() < before {
            self.nodes.retain(|_, group| self.groups.contains_key(group));
        }
    }

    /// When the next of them is sent from here after all.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.groups.values().next().map(|p| p.until_ms)
    }
}

impl<T: Trees> Engine<T> {
    /// This replica brings nothing to the relay any more: it left, or its relay is away. What it was to bring is sent from here.
    pub fn drop_carrier(&mut self, replica: ReplicaId) {
        if !self.planted(Planted::CarriedForEver) {
            self.publishing.carried.release_groups(|p| p.by == replica);
        }
    }

    /// This replica has everything that this device has, and has just found a relay: it brings there what is unsent here. Without this, all
    /// devices of a LAN would send the same when their relay comes back.
    pub fn carry_unsent(&mut self, by: ReplicaId) -> Result<()> {
        let group = self.publishing.carried.begin(by, self.now_ms);
        let mut after = None;
        loop {
            let page = self.trees.unsent_after(after, 512)?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for node in page {
                if !self.publishing.carried.holds(node) {
                    self.publishing.carried.add(node, group);
                }
            }
        }
        self.publishing.carried.end(group);
        Ok(())
    }

    /// How many nodes peers bring to the relay.
    pub fn carried(&self) -> u64 {
        self.publishing.carried.len()
    }

    /// Who had the time and did not do it is relied on no longer.
    pub(crate) fn expire_carriers(&mut self) {
        let now = self.now_ms;
        if self.publishing.carried.deadline_ms().is_some_and(|due| due <= now) && !self.planted(Planted::CarriedForEver) {
            self.publishing.carried.release_groups(|p| p.until_ms <= now);
        }
    }
}
