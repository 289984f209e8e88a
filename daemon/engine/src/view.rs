//! Reading the remote tree a part at a time, by the one law of reading.
//!
//! [`ferry_protocol::read::resolve`] reads a whole namespace. Here the same steps are applied to one name of one directory, so that a
//! change costs what changed. What is kept in memory for it is small: directories that are shown as one (twins), names with more than
//! one content (contested), nodes that fell back to an older place because of a cycle (fallen). A property test holds that the sum of the
//! parts is the whole.

use crate::engine::Engine;
use crate::trees::{ItemKey, NodeRecord, Result, Trees};
use ferry_protocol::read::{self, Entry, Row, States};
use ferry_protocol::{Content, Dot, Name, NodeId, NodeState};
use std::collections::{BTreeMap, BTreeSet};

/// The part of the reading that is kept in memory.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Directories shown as one: the one that stands for all, and the others.
    twins: BTreeMap<NodeId, Vec<NodeId>>,
    /// The same, from the others to the one.
    canonical: BTreeMap<NodeId, NodeId>,
    /// Names of a directory that more than one content claims: what they show hangs on each other by the names that are made for conflicts.
    contested: BTreeMap<NodeId, BTreeSet<Name>>,
    /// Nodes that do not stand at their newest place.
    fallen: BTreeSet<NodeId>,
}

impl View {
    /// Names that more than one content claims, with their directories.
    pub fn contested_names(&self) -> Vec<(NodeId, Name)> {
        self.contested.iter().flat_map(|(dir, names)| names.iter().map(|name| (*dir, name.clone()))).collect()
    }
}

/// What should stand on disk for one item.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub key: ItemKey,
    pub parent: NodeId,
    pub name: Name,
    pub content: Content,
    pub dots: Vec<Dot>,
    pub mode: u16,
    pub mtime_ns: i64,
    pub twins: Vec<(NodeId, Option<Dot>, Vec<Dot>)>,
}

/// What a node should look like on disk.
pub(crate) enum Reading {
    /// Nothing to show.
    Nothing,
    /// Its directory is not known yet: the feed is still being read.
    Orphan(NodeId),
    /// These things, the primary first.
    Shows(Vec<Desired>),
}

impl<T: Trees> Engine<T> {
    /// The directory under whose id this directory is shown.
    pub(crate) fn canonical(&self, directory: NodeId) -> NodeId {
        self.view.canonical.get(&directory).copied().unwrap_or(directory)
    }

    /// All directories shown under this id.
    pub(crate) fn members(&self, canonical: NodeId) -> Vec<NodeId> {
        let mut out = vec![canonical];
        out.extend(self.view.twins.get(&canonical).into_iter().flatten());
        out
    }

    /// Whether the node is part of the shown tree: alive by itself or through a child.
    pub(crate) fn is_alive(&self, id: NodeId, record: &NodeRecord) -> Result<bool> {
        Ok(record.state.body().has_living() || self.has_living_child(id)?)
    }

    fn has_living_child(&self, id: NodeId) -> Result<bool> {
        Ok(!self.trees.kids_after(id, None, 1)?.is_empty())
    }

    /// Writes a node's new state and keeps everything that follows from it: our feed, the index of living children, what is dirty.
    pub(crate) fn update_node(&mut self, id: NodeId, state: NodeState) -> Result<()> {
        let old = self.trees.node(id)?;
        let moved = old.as_ref().is_none_or(|o| o.state.places()[0] != state.places()[0]);
        // An older move that is heard later changes where a node stands that fell back.
        let reordered = old.as_ref().is_some_and(|o| o.state.places() != state.places());
        let place = if moved { 0 } else { old.as_ref().map_or(0, |o| o.place) };
        // What was carried was the state before this one.
        self.publishing.carried.release(id);
        let meta = self.trees.meta_mut();
        meta.seq += 1;
        meta.clock = meta.clock.max(state.max_counter());
        let record = NodeRecord { state, seq: meta.seq, place };
        self.dissolve(id)?;
        self.place_node(id, old.as_ref(), record)?;
        if (moved && self.closes_cycle(id)?) || (reordered && self.fallen_hang_on(id)?) {
            self.break_cycles()?;
        }
        Ok(())
    }

    /// Writes a record and moves its entry among the living children.
    fn place_node(&mut self, id: NodeId, old: Option<&NodeRecord>, record: NodeRecord) -> Result<()> {
        let alive = self.is_alive(id, &record)?;
        let (parent, name) = position(&record);
        // The record first: what is refreshed below must see where the node stands from now on, or it is entered at its old place again.
        self.trees.put_node(id, &record)?;
        let left = old.map(position).filter(|(old_parent, old_name)| (*old_parent, old_name) != (parent, &name) || !alive);
        if let Some((old_parent, old_name)) = &left {
            self.trees.set_kid(*old_parent, old_name, id, false)?;
            self.touch_name(*old_parent, old_name)?;
        }
        if alive {
            self.trees.set_kid(parent, &name, id, true)?;
            self.refresh_alive(parent)?;
        }
        if let Some((old_parent, _)) = left {
            self.refresh_alive(old_parent)?;
        }
        self.touch_name(parent, &name)?;
        self.dirty.insert(id);
        self.wake_orphans(id);
        Ok(())
    }

    /// A directory's entry among the living children follows whether it is alive; so up to the root.
    fn refresh_alive(&mut self, directory: NodeId) -> Result<()> {
        let mut id = directory;
        while let Some(record) = self.trees.node(id)? {
            let (parent, name) = position(&record);
            let alive = self.is_alive(id, &record)?;
            let listed = self.trees.kids_named(parent, &name)?.contains(&id);
            self.dirty.insert(id);
            if alive == listed {
                // A file that holds something since now, or no longer, claims its name in another way.
                if read::shown(record.state.body()).first().is_none_or(|s| !s.value.content.is_dir()) {
                    self.touch_name(parent, &name)?;
                }
                return Ok(());
            }
            self.dissolve(id)?;
            self.trees.set_kid(parent, &name, id, alive)?;
            self.touch_name(parent, &name)?;
            id = parent;
        }
        Ok(())
    }

    /// Everything that claims this name, or whose conflict name could hang on it, must be looked at again.
    pub(crate) fn touch_name(&mut self, parent: NodeId, name: &Name) -> Result<()> {
        let canonical = self.canonical(parent);
        let mut names: Vec<Name> = self.view.contested.get(&canonical).into_iter().flatten().cloned().collect();
        names.push(name.clone());
        for member in self.members(canonical) {
            for name in &names {
                self.dirty.extend(self.trees.kids_named(member, name)?);
            }
        }
        Ok(())
    }

    fn closes_cycle(&self, id: NodeId) -> Result<bool> {
        let mut at = id;
        for _ in 0..=ferry_protocol::limits::PATH_DEPTH_MAX {
            let Some(record) = self.trees.node(at)? else { return Ok(false) };
            at = position(&record).0;
            if at == id {
                return Ok(!self.planted(crate::policy::Planted::CycleAccepted));
            }
        }
        // Deeper than any path that is materialised: let the law decide.
        Ok(true)
    }

    /// Whether the places of fallen nodes, or of what is above them, depend on this node.
    fn fallen_hang_on(&self, id: NodeId) -> Result<bool> {
        let mut open: Vec<NodeId> = self.view.fallen.iter().copied().collect();
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        while let Some(at) = open.pop() {
            if at == id {
                return Ok(true);
            }
            if seen.insert(at)
                && let Some(record) = self.trees.node(at)?
            {
                open.extend((0..=usize::from(record.place)).map(|index| read::parent_at(&record.state, index)));
            }
        }
        Ok(false)
    }

    /// Applies the law's rule for cycles to all nodes that can be part of one: those in which something stands or stood.
    fn break_cycles(&mut self) -> Result<()> {
        let mut parents: BTreeSet<NodeId> = BTreeSet::new();
        self.each_node(|_, record| parents.extend(record.state.places().iter().map(|p| p.parent)))?;
        let mut states = States::new();
        self.each_node(|id, record| {
            if parents.contains(&id) {
                states.insert(id, record.state);
            }
        })?;
        let now = read::break_cycles(&states);
        let changed: BTreeSet<NodeId> = now.keys().copied().chain(self.view.fallen.iter().copied()).collect();
        for id in changed {
            let index = now.get(&id).copied().unwrap_or(0) as u8;
            if let Some(old) = self.trees.node(id)?
                && old.place != index
            {
                self.dissolve(id)?;
                let record = NodeRecord { place: index, ..old.clone() };
                self.place_node(id, Some(&old), record)?;
            }
        }
        self.view.fallen = now.into_keys().collect();
        Ok(())
    }

    fn each_node(&self, mut take: impl FnMut(NodeId, NodeRecord)) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.trees.nodes_after(after, 512)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            page.into_iter().for_each(|(id, record)| take(id, record));
        }
    }

    /// Remembers a node that stood at an older place when the trees were opened.
    pub(crate) fn remember_fallen(&mut self, id: NodeId, record: &NodeRecord) {
        if record.place > 0 {
            self.view.fallen.insert(id);
        }
    }

    /// Takes apart directories shown as one, because one of them changed; who reads them next joins them again.
    fn dissolve(&mut self, id: NodeId) -> Result<()> {
        let canonical = self.canonical(id);
        let Some(others) = self.view.twins.remove(&canonical) else { return Ok(()) };
        let mut members = others;
        for twin in &members {
            self.view.canonical.remove(twin);
        }
        members.push(canonical);
        self.view.contested.remove(&canonical);
        for member in members {
            self.dirty.insert(member);
            self.touch_children(member)?;
        }
        Ok(())
    }

    fn touch_children(&mut self, directory: NodeId) -> Result<()> {
        let mut after: Option<(Name, NodeId)> = None;
        loop {
            let page = self.trees.kids_after(directory, after.as_ref().map(|(n, i)| (n, *i)), 512)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            self.dirty.extend(page.into_iter().map(|(_, id)| id));
            after = Some(last);
        }
    }

    /// Notes which directories one entry shows as one.
    fn join_twins(&mut self, entry: &Entry) -> Result<()> {
        let mut others: Vec<NodeId> = entry.twins.iter().map(|(id, _, _)| *id).filter(|id| *id != entry.node).collect();
        others.sort();
        others.dedup();
        if self.canonical(entry.node) == entry.node && self.view.twins.get(&entry.node).map_or(&[][..], |v| v) == others {
            return Ok(());
        }
        for id in others.iter().copied().chain([entry.node]) {
            self.dissolve(id)?;
        }
        for twin in &others {
            self.view.canonical.insert(*twin, entry.node);
        }
        if !others.is_empty() {
            for member in others.iter().copied().chain([entry.node]) {
                self.touch_children(member)?;
            }
            self.view.twins.insert(entry.node, others);
        }
        Ok(())
    }

    /// All claims on one name of one directory.
    fn rows(&self, canonical: NodeId, name: &Name) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for member in self.members(canonical) {
            for id in self.trees.kids_named(member, name)? {
                if let Some(record) = self.trees.node(id)? {
                    rows.extend(read::rows_of(id, &record.state, self.has_living_child(id)?));
                }
            }
        }
        Ok(rows)
    }

    /// What one name of one directory shows.
    pub(crate) fn settled(&mut self, canonical: NodeId, name: &Name) -> Result<Vec<Entry>> {
        // Claims of one content are shown as one: such a name makes none and hangs on no other, however many of them a directory has.
        let alone = read::settle_name(name, self.rows(canonical, name)?, &mut |_| false);
        let entries = if alone.len() <= 1 {
            if let Some(names) = self.view.contested.get_mut(&canonical) {
                names.remove(name);
            }
            alone
        } else {
            self.view.contested.entry(canonical).or_default().insert(name.clone());
            self.settle_contested(canonical, name)?
        };
        for entry in entries.iter().filter(|e| e.content.is_dir()) {
            self.join_twins(entry)?;
        }
        Ok(entries)
    }

    /// Settles the contested names of a directory in their order up to this one, as the law does.
    fn settle_contested(&self, canonical: NodeId, name: &Name) -> Result<Vec<Entry>> {
        let members = self.members(canonical);
        let mut made: BTreeSet<Name> = BTreeSet::new();
        let names: Vec<Name> = self.view.contested.get(&canonical).into_iter().flatten().filter(|n| *n <= name).cloned().collect();
        for earlier in &names {
            let mut failed = None;
            let entries = read::settle_name(earlier, self.rows(canonical, earlier)?, &mut |candidate| {
                made.contains(candidate)
                    || members.iter().any(|m| match self.trees.kids_named(*m, candidate) {
                        Ok(ids) => !ids.is_empty(),
                        Err(error) => {
                            failed = Some(error);
                            true
                        }
                    })
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if earlier == name {
                return Ok(entries);
            }
            made.extend(entries.into_iter().filter(|e| e.is_conflict).map(|e| e.name));
        }
        Ok(Vec::new())
    }

    /// What a node should look like on disk.
    pub(crate) fn read_node(&mut self, id: NodeId, record: &NodeRecord) -> Result<Reading> {
        if !self.is_alive(id, record)? {
            return Ok(Reading::Nothing);
        }
        let (parent, name) = position(record);
        if parent != NodeId::ROOT && self.trees.node(parent)?.is_none() {
            return Ok(Reading::Orphan(parent));
        }
        let canonical = self.canonical(parent);
        let mut out = Vec::new();
        for entry in self.settled(canonical, &name)? {
            if entry.node == id {
                out.push(desired(canonical, entry, &record.state));
            }
        }
        Ok(Reading::Shows(out))
    }

    /// What should stand at one place, whether under a node's own name or under a conflict name.
    pub(crate) fn desired_at(&mut self, parent: NodeId, name: &Name) -> Result<Option<Desired>> {
        let canonical = self.canonical(parent);
        if self.opening.is_some() && is_conflict_like(name) {
            // What was placed just before a crash must be known again, or it is taken for new.
            self.find_contested(canonical)?;
        }
        let contested: Vec<Name> = self.view.contested.get(&canonical).into_iter().flatten().cloned().collect();
        for claimed in std::iter::once(name).chain(contested.iter()) {
            for entry in self.settled(canonical, claimed)? {
                if entry.name == *name
                    && let Some(record) = self.trees.node(entry.node)?
                {
                    return Ok(Some(desired(canonical, entry, &record.state)));
                }
            }
        }
        Ok(None)
    }

    /// Reads all names of a directory of which not all nodes have been read since the opening.
    fn find_contested(&mut self, canonical: NodeId) -> Result<()> {
        for member in self.members(canonical) {
            let mut after: Option<(Name, NodeId)> = None;
            loop {
                let page = self.trees.kids_after(member, after.as_ref().map(|(n, i)| (n, *i)), 512)?;
                after = page.last().cloned();
                if after.is_none() {
                    break;
                }
                for (name, _) in page {
                    self.settled(canonical, &name)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a name looks as if it was made for a conflicted copy.
fn is_conflict_like(name: &Name) -> bool {
    name.as_bytes().windows(18).any(|w| w == b" (conflicted copy,")
}

/// Parent and name that count for a node.
pub(crate) fn position(record: &NodeRecord) -> (NodeId, Name) {
    let index = usize::from(record.place);
    (read::parent_at(&record.state, index), read::name_at(&record.state, index).clone())
}

fn desired(parent: NodeId, entry: Entry, state: &NodeState) -> Desired {
    let key = ItemKey { node: entry.node, copy: entry.copy };
    let value = entry.dots.iter().filter_map(|d| state.body().value(*d)).filter(|v| v.content == entry.content).max_by_key(|v| v.stamp);
    let mtime_ns = match (value, entry.copy) {
        (Some(value), None) => state.mtime_ns(value).unwrap_or(0),
        (Some(value), Some(_)) => value.content.file().map_or(0, |f| f.mtime_ns),
        (None, _) => 0,
    };
    // The owner can always read what is synced, and list and change a directory; more than permission bits never arrive (B54).
    let mode = match (&entry.content, state.attributes().mode) {
        (Content::Dir, mode) => mode.map_or(0o755, |m| m.value) & 0o777 | 0o700,
        (_, mode) => mode.map_or(0o644, |m| m.value) & 0o777 | 0o400,
    };
    Desired { key, parent, name: entry.name, content: entry.content, dots: entry.dots, mode, mtime_ns, twins: entry.twins }
}
