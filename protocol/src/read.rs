//! The one law of reading: the tree that a set of node states shows.
//!
//! [`resolve`] is a pure function of the states, so replicas with equal states show equal trees (I1). `model.py` is its executable
//! specification. The steps are public, because a device applies the same law to a part of the tree at a time: [`shown`] for one node,
//! [`rows_of`] for one node in a directory, [`settle_name`] for one name in a directory. Nothing else decides what is shown.
//!
//! * A tombstone is hidden by any living value; equal content is one (CR1); of concurrent values the highest stamp keeps the name and the
//!   others are shown beside it as conflicted copies (CR2, CR3).
//! * A deleted directory with a living descendant lives (CR4, CR8).
//! * In a cycle made by concurrent moves the newest move falls back to that node's older place, at last to the root (CR7).
//! * Directories of one name are shown as one; files of one name and equal bytes too; otherwise the lower stamp keeps the name and the
//!   others get conflict names (CR9).

use crate::conflict::{conflict_name, label};
use crate::id::NodeId;
use crate::name::{Name, RelPath};
use crate::node::{Body, Content, Dot, NodeState, Stamp, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Node states by id: what [`resolve`] reads.
pub type States = BTreeMap<NodeId, NodeState>;

/// One thing that a node shows: a value, with all events that the value stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The value; of equal ones the one with the highest stamp.
    pub value: &'a Value,
    /// The events whose values look like this. For the first shown value also those of hidden tombstones: who edits it settles them.
    pub dots: Vec<Dot>,
}

/// What a body shows: the name keeper first, then the conflicted copies by falling stamp. Empty if it is deleted or has no value.
pub fn shown(body: &Body) -> Vec<Shown<'_>> {
    let mut living: Vec<&Value> = body.values().iter().filter(|v| !v.content.is_tombstone()).collect();
    living.sort_by_key(|v| std::cmp::Reverse(v.stamp));
    let mut out: Vec<Shown<'_>> = Vec::with_capacity(living.len());
    for value in living {
        match out.iter_mut().find(|o| o.value.content == value.content) {
            Some(equal) => equal.dots.push(value.dot),
            None => out.push(Shown { value, dots: vec![value.dot] }),
        }
    }
    if let Some(first) = out.first_mut() {
        first.dots.extend(body.values().iter().filter(|v| v.content.is_tombstone()).map(|v| v.dot));
    }
    for one in &mut out {
        one.dots.sort();
    }
    out
}

/// One claim of a node on a name in its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The node.
    pub node: NodeId,
    /// Nothing for what keeps the node's name; for a conflicted copy the event that wrote it.
    pub copy: Option<Dot>,
    /// What it shows.
    pub content: Content,
    /// The events that it stands for.
    pub dots: Vec<Dot>,
    /// Its place in the total order; the lowest for a directory that lives only through its children.
    pub stamp: Stamp,
    /// What a conflict name is made from.
    pub label: String,
}

/// The claims of a node: empty if it is neither alive by itself nor through a child.
pub fn rows_of(node: NodeId, state: &NodeState, has_living_child: bool) -> Vec<Row> {
    rows_with(node, state, has_living_child, &label)
}

fn rows_with(node: NodeId, state: &NodeState, has_living_child: bool, label: &dyn Fn(&Value) -> String) -> Vec<Row> {
    let values = shown(state.body());
    let first_is_dir = values.first().is_some_and(|s| s.value.content.is_dir());
    let mut rows = Vec::with_capacity(values.len() + 1);
    if has_living_child && !first_is_dir {
        let dots = if values.is_empty() { state.body().values().iter().map(|v| v.dot).collect() } else { Vec::new() };
        rows.push(Row { node, copy: None, content: Content::Dir, dots, stamp: Stamp::default(), label: String::new() });
    }
    let several = values.len() + rows.len() > 1;
    for one in values {
        // Only what can lose its name needs a label; with one value that is a clash of two nodes, rare enough to pay for always.
        let copy = (!rows.is_empty()).then_some(one.value.dot);
        let label = if several || !one.value.content.is_dir() { label(one.value) } else { String::new() };
        rows.push(Row { node, copy, content: one.value.content.clone(), dots: one.dots, stamp: one.value.stamp, label });
    }
    rows
}

/// One entry of a shown directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// The node that it shows; of directories shown as one, the one with the lowest stamp.
    pub node: NodeId,
    /// Nothing for what keeps the node's name; for a conflicted copy the event that wrote it.
    pub copy: Option<Dot>,
    /// What it is.
    pub content: Content,
    /// The events that it stands for: who edits it on the evidence of this entry replaces these.
    pub dots: Vec<Dot>,
    /// Claims hidden behind this entry: directories shown as one with it, files of equal bytes.
    pub twins: Vec<(NodeId, Option<Dot>, Vec<Dot>)>,
    /// Whether it stands under a name made by [`conflict_name`].
    pub is_conflict: bool,
}

impl Entry {
    /// The nodes whose children stand in it, if it is a directory: several where directories of one name are shown as one.
    pub fn directories(&self) -> Option<Vec<NodeId>> {
        self.content.is_dir().then(|| {
            let nodes: BTreeSet<NodeId> = std::iter::once(self.node).chain(self.twins.iter().map(|(node, _, _)| *node)).collect();
            nodes.into_iter().collect()
        })
    }
}

/// Settles all claims on one name of one directory: who keeps it, what the others are called, what is hidden.
///
/// `is_taken` says whether a name is in use in the directory: as the name of any claim, or made for an earlier name's conflict. The names
/// of a directory are settled in their order, so that every replica makes the same names.
pub fn settle_name(name: &Name, mut rows: Vec<Row>, is_taken: &mut dyn FnMut(&Name) -> bool) -> Vec<Entry> {
    rows.sort_by(|a, b| {
        let key = |r: &Row| (!r.content.is_dir(), r.copy.is_some(), r.stamp, r.node);
        key(a).cmp(&key(b)).then_with(|| a.copy.cmp(&b.copy))
    });
    let mut out: Vec<Entry> = Vec::with_capacity(rows.len());
    let mut made: BTreeSet<Name> = BTreeSet::new();
    for row in rows {
        let equal = out.iter_mut().find(|e| e.content == row.content);
        if let Some(equal) = equal {
            if equal.node != row.node || equal.copy != row.copy {
                equal.twins.push((row.node, row.copy, row.dots));
            }
            continue;
        }
        let is_conflict = !out.is_empty();
        let entry_name = if is_conflict {
            let mut extra = 0;
            loop {
                let candidate = conflict_name(name, &row.label, extra);
                if extra >= 250 || (!made.contains(&candidate) && !is_taken(&candidate)) {
                    break candidate;
                }
                extra += 1;
            }
        } else {
            name.clone()
        };
        if is_conflict {
            made.insert(entry_name.clone());
        }
        out.push(Entry {
            name: entry_name,
            node: row.node,
            copy: row.copy,
            content: row.content,
            dots: row.dots,
            twins: Vec::new(),
            is_conflict,
        });
    }
    out
}

/// Settles all names of one directory in their order. `claims` are the claims by name; `is_taken` says whether a name that is not among them is in use
/// in the directory all the same: a reader that has only a part of a directory asks for the rest there.
pub fn settle_names(claims: &BTreeMap<Name, Vec<Row>>, is_taken: &mut dyn FnMut(&Name) -> bool) -> Vec<Entry> {
    let mut made: BTreeSet<Name> = BTreeSet::new();
    let mut out = Vec::with_capacity(claims.len());
    for (name, rows) in claims {
        let entries = settle_name(name, rows.clone(), &mut |n| claims.contains_key(n) || made.contains(n) || is_taken(n));
        made.extend(entries.iter().filter(|e| e.is_conflict).map(|e| e.name.clone()));
        out.extend(entries);
    }
    out
}

/// Where a node stands when cycles are broken: the index into its places, or past their end for the root.
pub type PlaceIndex = usize;

/// The parent that a node has at this index of its places.
pub fn parent_at(state: &NodeState, index: PlaceIndex) -> NodeId {
    state.places().get(index).map_or(NodeId::ROOT, |p| p.parent)
}

/// The name that a node has at this index of its places: past their end, its newest name.
pub fn name_at(state: &NodeState, index: PlaceIndex) -> &Name {
    &state.places().get(index).unwrap_or(&state.places()[0]).name
}

fn stamp_at(state: &NodeState, index: PlaceIndex) -> Stamp {
    state.places().get(index).map_or(Stamp::default(), |p| p.stamp)
}

/// Breaks cycles: for each node whose newest place would close one, the index of the place that counts. Nodes at their newest place are
/// not in the answer.
///
/// While there is a cycle, in each one the node with the newest move falls back to its next older place, at last to the root.
pub fn break_cycles(states: &States) -> BTreeMap<NodeId, PlaceIndex> {
    let mut fallen: BTreeMap<NodeId, PlaceIndex> = BTreeMap::new();
    loop {
        let at = |id: &NodeId| fallen.get(id).copied().unwrap_or(0);
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        let mut newest: Vec<NodeId> = Vec::new();
        for start in states.keys() {
            let mut path: Vec<NodeId> = Vec::new();
            let mut node = *start;
            while node != NodeId::ROOT && !seen.contains(&node) {
                let Some(state) = states.get(&node) else { break };
                seen.insert(node);
                path.push(node);
                node = parent_at(state, at(&node));
            }
            if let Some(from) = path.iter().position(|n| *n == node) {
                let key = |id: &&NodeId| (stamp_at(&states[*id], at(id)), **id);
                newest.extend(path[from..].iter().max_by_key(key).copied());
            }
        }
        if newest.is_empty() {
            return fallen;
        }
        for node in newest {
            *fallen.entry(node).or_insert(0) += 1;
        }
    }
}

/// Where a node stands in the tree, and why it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'s> {
    /// The directory in which it stands: the root for a node whose parent nobody knows.
    pub parent: NodeId,
    /// The name that it claims there.
    pub name: &'s Name,
    /// Whether it shows something, by itself or through a child.
    pub is_alive: bool,
    /// Whether a node that stands in it is alive.
    pub has_living_child: bool,
}

/// Where each of these nodes stands.
pub fn standings(states: &States) -> BTreeMap<NodeId, Standing<'_>> {
    let fallen = break_cycles(states);
    let at = |id: &NodeId| fallen.get(id).copied().unwrap_or(0);
    let mut out: BTreeMap<NodeId, Standing<'_>> = BTreeMap::new();
    for (id, state) in states {
        let p = parent_at(state, at(id));
        let parent = if p == NodeId::ROOT || states.contains_key(&p) { p } else { NodeId::ROOT };
        out.insert(*id, Standing { parent, name: name_at(state, at(id)), is_alive: false, has_living_child: false });
    }
    for (id, _) in states.iter().filter(|(_, state)| state.body().has_living()) {
        let mut node = *id;
        while let Some(here) = out.get_mut(&node).filter(|here| !here.is_alive) {
            here.is_alive = true;
            node = here.parent;
            if let Some(parent) = out.get_mut(&node) {
                parent.has_living_child = true;
            }
        }
    }
    out
}

/// The tree that these states show: every entry by its path, parents before children.
pub fn resolve(states: &States) -> BTreeMap<RelPath, Entry> {
    resolve_with(states, &label)
}

/// [`resolve`] with another way to label conflicted copies; the golden vectors of `model.py` have their own.
pub fn resolve_with(states: &States, label: &dyn Fn(&Value) -> String) -> BTreeMap<RelPath, Entry> {
    let standings = standings(states);
    let mut children: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, here) in standings.iter().filter(|(_, here)| here.is_alive) {
        children.entry(here.parent).or_default().push(*id);
    }
    let mut out = BTreeMap::new();
    let mut open = vec![(RelPath::root(), vec![NodeId::ROOT])];
    while let Some((path, directories)) = open.pop() {
        let mut claims: BTreeMap<Name, Vec<Row>> = BTreeMap::new();
        for id in directories.iter().filter_map(|d| children.get(d)).flatten() {
            let here = &standings[id];
            let rows = rows_with(*id, &states[id], here.has_living_child, label);
            claims.entry(here.name.clone()).or_default().extend(rows);
        }
        for entry in settle_names(&claims, &mut |_| false) {
            let entry_path = path.join(&entry.name);
            if let Some(directories) = entry.directories() {
                open.push((entry_path.clone(), directories));
            }
            out.insert(entry_path, entry);
        }
    }
    out
}
