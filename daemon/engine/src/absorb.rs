//! Taking in what was changed on disk: each change becomes an operation on the remote tree, and the item follows in the same commit.
//!
//! An edit or delete replaces exactly the events that the item showed, never what was heard since (CR2, CR3, I2). A thing that stands where
//! the remote tree wants the very same thing is adopted, without an operation (B60, K26).

use crate::disk::Stat;
use crate::engine::{ChangeKind, Engine, Event};
use crate::missing::LIMBO;
use crate::observe::Spot;
use crate::plan::Aside;
use crate::policy::Planted;
use crate::trees::{Item, ItemContent, ItemKey, NodeRecord, PARKED, Result, Trees};
use crate::view::{Desired, Reading};
use ferry_protocol::conflict::{conflict_name, label};
use ferry_protocol::merge;
use ferry_protocol::{Content, Dot, FileContent, Name, NodeId, NodeState, Place, Stamp, Stamped, Value};
use std::collections::BTreeSet;

pub(crate) const MODE_BITS: u16 = 0o777;

/// The mode that a new node of this kind has unless it says otherwise.
fn default_mode(content: &ItemContent) -> u16 {
    if *content == ItemContent::Dir { 0o755 } else { 0o644 }
}

/// The mode that is synced for a stat: what the owner needs to read is always there.
fn synced_mode(content: &ItemContent, stat: &Stat) -> u16 {
    let owner = if *content == ItemContent::Dir { 0o700 } else { 0o400 };
    stat.mode & MODE_BITS | owner
}

pub(crate) fn to_content(content: &ItemContent, mtime_ns: i64) -> Content {
    match content {
        ItemContent::Dir => Content::Dir,
        ItemContent::File(manifest) => Content::File(FileContent::new(manifest.clone(), mtime_ns)),
        ItemContent::Symlink(target) => Content::Symlink(target.clone()),
    }
}

/// Whether an item holds this content.
pub(crate) fn matches(item: &ItemContent, content: &Content) -> bool {
    match (item, content) {
        (ItemContent::Dir, Content::Dir) => true,
        (ItemContent::File(manifest), Content::File(file)) => {
            manifest.hash() == file.manifest.hash() && manifest.size() == file.manifest.size()
        }
        (ItemContent::Symlink(a), Content::Symlink(b)) => a == b,
        _ => false,
    }
}

impl<T: Trees> Engine<T> {
    pub(crate) fn new_value(&mut self, state: &NodeState, content: Content) -> Value {
        let stamp = self.next_stamp();
        // Not the next number of the node, which an index that was set back would give again: see `begin_run`.
        let next = state.body().next_dot(stamp.replica);
        let dot = Dot { counter: next.counter.max(stamp.counter), ..next };
        Value { dot, stamp, content, author: self.device.clone(), wall_ms: self.wall_ms }
    }

    /// Something stands at a place: an edit of the item there, or something new.
    pub(crate) fn absorb_content(&mut self, spot: &Spot, stat: Stat, content: ItemContent) -> Result<()> {
        if let Some(path) = self.path_at(spot.0, &spot.1)? {
            self.issues.remove(&path);
        }
        if let Some(key) = self.trees.item_at(spot.0, &spot.1)?
            && let Some(item) = self.trees.item(key)?
        {
            let same_kind = item.stat.kind == stat.kind;
            if !same_kind {
                // Something else came to stand for this place while it was read.
                self.observed.want(spot.0, Some(spot.1.clone()), true);
                return Ok(());
            }
            return self.absorb_edit(key, item, stat, content);
        }
        self.absorb_new(spot, stat, content)
    }

    /// Something new stands at a place: adopted if the remote tree wants the very same there, else minted.
    pub(crate) fn absorb_new(&mut self, spot: &Spot, stat: Stat, content: ItemContent) -> Result<()> {
        let (mode, mtime_ns) = (synced_mode(&content, &stat), stat.mtime_ns);
        let item = Item { parent: spot.0, name: spot.1.clone(), stat, content, dots: Vec::new(), mode, mtime_ns };
        if spot.0 == PARKED {
            return self.recover(item);
        }
        if let Some(desired) = self.desired_at(spot.0, &spot.1)?
            && desired.parent == spot.0
            && self.trees.item(desired.key)?.is_none()
            && matches(&item.content, &desired.content)
        {
            self.dirty.insert(desired.key.node);
            let adopted = Item { dots: desired.dots, ..item };
            self.settle_item(desired.key, &adopted)?;
            self.wake_orphans(desired.key.node);
            return Ok(());
        }
        if !self.may_send() {
            return self.refuse_change(spot, stat);
        }
        self.create(item, spot.clone())?;
        self.local_event(ChangeKind::Created, spot)
    }

    /// Something that was parked when the index was lost or fell back: it stands for its node again, or is shown as something recovered.
    fn recover(&mut self, item: Item) -> Result<()> {
        let node = std::str::from_utf8(item.name.as_bytes()).ok().and_then(|n| n.parse::<NodeId>().ok());
        let record = match node {
            Some(node) => self.trees.node(node)?.map(|record| (node, record)),
            None => None,
        };
        let mut shown_name = item.name.clone();
        if let Some((node, record)) = record {
            shown_name = crate::view::position(&record).1;
            if let Reading::Shows(desired) = self.read_node(node, &record)?
                && let Some(desired) = desired.into_iter().find(|d| d.key.copy.is_none() && matches(&item.content, &d.content))
                && self.trees.item(desired.key)?.is_none()
            {
                self.dirty.insert(node);
                return self.settle_item(desired.key, &Item { dots: desired.dots, ..item });
            }
        }
        if !self.policy.may_write {
            return self.refuse_change(&(item.parent, item.name.clone()), item.stat);
        }
        let mut name = b"recovered-".to_vec();
        name.extend_from_slice(shown_name.as_bytes());
        name.truncate(ferry_protocol::limits::NAME_MAX_BYTES);
        let name = Name::new(name).unwrap_or(shown_name);
        self.create(item, (NodeId::ROOT, name))?;
        Ok(())
    }

    /// Mints a node for an item and writes both. The node's place is where the item is to stand.
    fn create(&mut self, item: Item, place: Spot) -> Result<NodeId> {
        let id = self.mint();
        let mut state = NodeState::new(Place { stamp: self.next_stamp(), parent: place.0, name: place.1 });
        if item.mode != default_mode(&item.content) {
            state.attributes_mut().mode = Some(Stamped { stamp: self.next_stamp(), value: item.mode });
        }
        let value = self.new_value(&state, to_content(&item.content, item.mtime_ns));
        let item = Item { dots: vec![value.dot], ..item };
        state.body_mut().put(&[], value);
        self.settle_item(ItemKey::primary(id), &item)?;
        self.write(id, state)?;
        Ok(id)
    }

    fn absorb_edit(&mut self, key: ItemKey, item: Item, stat: Stat, content: ItemContent) -> Result<()> {
        let same = matches(&item.content, &to_content(&content, 0));
        if same {
            return self.absorb_attributes(key, &item, stat);
        }
        let spot = (item.parent, item.name.clone());
        if let Some(desired) = self.desired_at(spot.0, &spot.1)?
            && desired.key == key
            && matches(&content, &desired.content)
        {
            // Placed by our own hands just before a crash, or the very same: no edit over what it replaced.
            let (mode, mtime_ns) = (synced_mode(&content, &stat), stat.mtime_ns);
            self.dirty.insert(key.node);
            return self.trees.put_item(key, Some(&Item { stat, content, mode, mtime_ns, dots: desired.dots, ..item }));
        }
        if !self.policy.may_write {
            // What he wrote makes room for what the others wrote, and is kept beside it (CR12).
            self.trees.put_item(key, None)?;
            self.dirty.insert(key.node);
            return self.refuse_change(&spot, stat);
        }
        let Some(record) = self.trees.node(key.node)? else { return Ok(()) };
        let (mode, mtime_ns) = (synced_mode(&content, &stat), stat.mtime_ns);
        let new = Item { stat, content, mode, mtime_ns, ..item.clone() };
        let mut replaces = item.dots.clone();
        if key.copy.is_some() {
            return self.own_copy(key, new);
        }
        self.settle_twins(key, &item, &mut replaces)?;
        let mut state = record.state;
        if self.planted(Planted::EditReplacesHeard) {
            replaces = state.body().values().iter().map(|v| v.dot).collect();
        }
        if self.planted(Planted::EditReplacesNothing) {
            replaces.clear();
        }
        let content = self.edited_content(&state, &item, &new);
        let value = self.new_value(&state, content);
        let new = Item { dots: vec![value.dot], ..new };
        state.body_mut().put(&replaces, value);
        if new.mode != item.mode {
            state.attributes_mut().mode = Some(Stamped { stamp: self.next_stamp(), value: new.mode });
        }
        self.trees.put_item(key, Some(&new))?;
        self.write(key.node, state)?;
        self.local_event(ChangeKind::Edited, &spot)
    }

    /// The content of an edit; where texts are merged, with what it was edited from.
    fn edited_content(&self, state: &NodeState, old: &Item, new: &Item) -> Content {
        let mut content = to_content(&new.content, new.mtime_ns);
        if let (Content::File(file), ItemContent::File(before)) = (&mut content, &old.content)
            && self.policy.merge_text
            && [&file.manifest, before].into_iter().all(merge::is_small_enough)
        {
            file.bases = merge::bases(state.body(), before, &old.dots);
        }
        content
    }

    /// A changed copy is a file of its own; its node settles that side of the conflict.
    fn own_copy(&mut self, key: ItemKey, new: Item) -> Result<()> {
        let Some(record) = self.trees.node(key.node)? else { return Ok(()) };
        let spot = (new.parent, new.name.clone());
        let mut state = record.state;
        state.body_mut().settle(&new.dots);
        self.trees.put_item(key, None)?;
        self.write(key.node, state)?;
        self.create(new, spot.clone())?;
        self.local_event(ChangeKind::Edited, &spot)
    }

    /// Same content, perhaps another mode or time: registers of their own, never a new version (B22, B24, CR10).
    pub(crate) fn absorb_attributes(&mut self, key: ItemKey, item: &Item, stat: Stat) -> Result<()> {
        let mode = synced_mode(&item.content, &stat);
        let mode_changed = stat.mode & MODE_BITS != item.stat.mode & MODE_BITS && mode != item.mode;
        let touched = matches!(item.content, ItemContent::File(_)) && stat.mtime_ns != item.stat.mtime_ns && stat.mtime_ns != item.mtime_ns;
        let mut new = Item { stat, ..item.clone() };
        if mode_changed && self.policy.may_write && key.copy.is_some() {
            return self.own_copy(key, Item { mode, mtime_ns: stat.mtime_ns, ..new });
        }
        if (mode_changed || touched)
            && self.policy.may_write
            && key.copy.is_none()
            && let Some(record) = self.trees.node(key.node)?
        {
            let mut state = record.state;
            if mode_changed {
                new.mode = mode;
                state.attributes_mut().mode = Some(Stamped { stamp: self.next_stamp(), value: mode });
            }
            if touched {
                new.mtime_ns = stat.mtime_ns;
                state.attributes_mut().mtime_ns = Some(Stamped { stamp: self.next_stamp(), value: stat.mtime_ns });
            }
            self.trees.put_item(key, Some(&new))?;
            self.write(key.node, state)?;
            return self.local_event(ChangeKind::Attributes, &(new.parent, new.name));
        }
        self.trees.put_item(key, Some(&new))
    }

    /// An item stands at another place.
    pub(crate) fn absorb_move(&mut self, key: ItemKey, item: Item, spot: &Spot, stat: Stat) -> Result<()> {
        // A moved file keeps its old change time until it has been read again; a directory has none that counts.
        let stat = if item.content == ItemContent::Dir { Stat { mode: item.stat.mode, ..stat } } else { item.stat };
        let new = Item { parent: spot.0, name: spot.1.clone(), stat, ..item.clone() };
        let Some(record) = self.trees.node(key.node)? else { return Ok(()) };
        // Moved by our own hands, whose answer is still to come, or just as somebody else moved it: no change of the namespace.
        let known = match self.read_node(key.node, &record)? {
            Reading::Shows(desired) => desired.iter().any(|d| d.key == key && (d.parent, &d.name) == (spot.0, &spot.1)),
            _ => false,
        };
        self.dirty.insert(item.parent);
        if known || spot.0 == PARKED || !self.policy.may_write {
            self.settle_item(key, &new)?;
            self.publishing.reconsider(key.node);
            self.dirty.insert(key.node);
            return Ok(());
        }
        if key.copy.is_some() || (self.planted(Planted::RenameAsCreate) && item.content != ItemContent::Dir) {
            self.trees.put_item(key, None)?;
            let mut state = record.state;
            if key.copy.is_some() {
                state.body_mut().settle(&item.dots);
            } else {
                let gone = self.new_value(&state, Content::Tombstone);
                state.body_mut().put(&item.dots, gone);
            }
            self.write(key.node, state)?;
            self.create(new, spot.clone())?;
            return self.local_event(ChangeKind::Moved, spot);
        }
        if item.content == ItemContent::Dir {
            for twin in self.members(key.node).into_iter().filter(|id| *id != key.node) {
                // One with a directory of its own on this disk only shares the name for a moment: a swap or rotation is half taken in.
                if self.trees.item(ItemKey::primary(twin))?.is_none() {
                    self.move_node(twin, spot)?;
                }
            }
        }
        self.settle_item(key, &new)?;
        self.move_node(key.node, spot)?;
        self.local_event(ChangeKind::Moved, spot)
    }

    /// Writes a move of a node.
    pub(crate) fn move_node(&mut self, id: NodeId, spot: &Spot) -> Result<()> {
        let Some(record) = self.trees.node(id)? else { return Ok(()) };
        let mut state = record.state;
        state.move_to(Place { stamp: self.next_stamp(), parent: spot.0, name: spot.1.clone() });
        self.write(id, state)
    }

    /// Turns what is missing for certain into deletes, if the brake lets it pass.
    pub(crate) fn absorb_deletes(&mut self) -> Result<()> {
        let confirmed: Vec<ItemKey> = self.observed.missing.iter().filter(|(_, m)| m.confirmed).map(|(k, _)| *k).collect();
        if confirmed.is_empty() {
            return Ok(());
        }
        let keys = self.with_descendants(&confirmed)?;
        // What others deleted is our own removal that a crash left unrecorded, or theirs and a user's at once: nobody's loss.
        let mut agreed = 0;
        for key in &keys {
            agreed += u64::from(self.trees.node(key.node)?.is_some_and(|record| !record.state.body().has_living()));
        }
        let (count, total) = (keys.len() as u64 - agreed, self.trees.meta().items.saturating_sub(agreed));
        // With nothing to ask about, what was deleted shortly before must not make it a question.
        let hold = count > 0 && self.brake.must_hold(&self.policy, self.now_ms, count, total) && !self.planted(Planted::NoBrake);
        if hold {
            if self.brake.hold(count, total) {
                self.emit(Event::Held { count, total });
            }
            return Ok(());
        }
        self.delete_all(keys, count)
    }

    fn delete_all(&mut self, keys: BTreeSet<ItemKey>, count: u64) -> Result<()> {
        self.brake.passed(self.now_ms, count);
        for key in keys {
            let home = self.observed.missing.get(&key).and_then(|m| m.home.clone());
            self.observed.not_missing(key);
            self.absorb_delete(key, home)?;
        }
        Ok(())
    }

    /// The person says that the held deletes are meant. How many they were.
    pub fn approve_deletes(&mut self) -> Result<u64> {
        let missing: Vec<ItemKey> = self.observed.missing.iter().filter(|(_, m)| m.confirmed).map(|(k, _)| *k).collect();
        if !self.brake.is_holding() || missing.is_empty() {
            return Ok(0);
        }
        let keys = self.with_descendants(&missing)?;
        let count = keys.len() as u64;
        self.delete_all(keys, 0)?;
        Ok(count)
    }

    /// The person says that the held deletes are not meant: what is missing is fetched again. How many items that is.
    pub fn reject_deletes(&mut self) -> Result<u64> {
        let missing: Vec<ItemKey> = self.observed.missing.keys().copied().collect();
        if !self.brake.is_holding() {
            return Ok(0);
        }
        self.brake.release();
        let keys = self.with_descendants(&missing)?;
        for key in &keys {
            self.observed.not_missing(*key);
            self.trees.put_item(*key, None)?;
            self.dirty.insert(key.node);
        }
        Ok(keys.len() as u64)
    }

    /// How many of how many items are held.
    pub fn held_deletes(&self) -> Option<(u64, u64)> {
        self.brake.held()
    }

    /// These items and everything below them.
    pub(crate) fn with_descendants(&self, keys: &[ItemKey]) -> Result<BTreeSet<ItemKey>> {
        let mut out = BTreeSet::new();
        let mut open: Vec<ItemKey> = keys.to_vec();
        while let Some(key) = open.pop() {
            if !out.insert(key) || key.copy.is_some() {
                continue;
            }
            let mut after = None;
            loop {
                let page = self.trees.items_in(key.node, after.as_ref(), 1024)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                open.extend(page.into_iter().map(|(_, k)| k));
            }
        }
        Ok(out)
    }

    /// Whether the content of an item may be had from others: not if it was written here and never arrived anywhere.
    pub(crate) fn may_be_held_elsewhere(&self, item: &Item, node: NodeId) -> Result<bool> {
        let own = self.trees.meta().replica;
        let is_file = matches!(item.content, ItemContent::File(_));
        Ok(!(is_file && item.dots.iter().any(|d| d.replica == own) && self.trees.is_unsent(node)?))
    }

    /// Whether a node was moved away from this place, where its item stood. A conflict name is no move.
    fn moved_elsewhere(&self, item: &Item, record: &NodeRecord, home: &Spot) -> bool {
        let (parent, name) = crate::view::position(record);
        if self.canonical(parent) != self.canonical(home.0) {
            return true;
        }
        let values = record.state.body().values().iter().filter(|v| item.dots.contains(&v.dot));
        name != home.1 && !values.map(label).any(|l| (0..8).any(|extra| conflict_name(&name, &l, extra) == home.1))
    }

    fn absorb_delete(&mut self, key: ItemKey, home: Option<Spot>) -> Result<()> {
        let Some(item) = self.trees.item(key)? else { return Ok(()) };
        let spot = (item.parent, item.name.clone());
        self.dirty.insert(item.parent);
        if ![LIMBO, PARKED].contains(&spot.0) {
            self.local_event(ChangeKind::Deleted, &spot)?;
        }
        if !self.policy.may_write || (spot.0 == PARKED && self.may_be_held_elsewhere(&item, key.node)?) {
            // What a viewer deletes comes back. So does what was parked: no user deleted it. Unless it was written here and nobody else has it: it
            // was back in its place before a crash, and a user changed or deleted it there.
            self.trees.put_item(key, None)?;
            self.dirty.insert(key.node);
            return Ok(());
        }
        let Some(record) = self.trees.node(key.node)? else { return self.trees.put_item(key, None) };
        if key.copy.is_none()
            && self.may_be_held_elsewhere(&item, key.node)?
            && self.moved_elsewhere(&item, &record, home.as_ref().unwrap_or(&spot))
        {
            // What was deleted here was moved elsewhere meanwhile, and a move counts as a change (CR3): it lives at its new place.
            self.trees.put_item(key, None)?;
            self.dirty.insert(key.node);
            return Ok(());
        }
        let mut replaces = item.dots.clone();
        if key.copy.is_none() {
            self.settle_twins(key, &item, &mut replaces)?;
        }
        self.trees.put_item(key, None)?;
        let mut state = record.state;
        if key.copy.is_some() {
            state.body_mut().settle(&replaces);
        } else {
            if self.planted(Planted::DeleteWins) {
                replaces = state.body().values().iter().map(|v| v.dot).collect();
            }
            let gone = self.new_value(&state, Content::Tombstone);
            state.body_mut().put(&replaces, gone);
        }
        self.write(key.node, state)
    }

    /// What is hidden behind an item because it is equal goes with it: who changes what is shown has seen all of it.
    fn settle_twins(&mut self, key: ItemKey, item: &Item, replaces: &mut Vec<Dot>) -> Result<()> {
        let Some(desired) = self.desired_at(item.parent, &item.name)? else { return Ok(()) };
        if desired.key != key || !matches(&item.content, &desired.content) {
            return Ok(());
        }
        for (twin, copy, dots) in desired.twins {
            if twin == key.node {
                replaces.extend(dots);
            } else if self.trees.item(ItemKey { node: twin, copy })?.is_none() {
                self.bury(twin, &dots)?;
            }
        }
        Ok(())
    }

    /// Writes a tombstone over these events of a node.
    pub(crate) fn bury(&mut self, id: NodeId, dots: &[Dot]) -> Result<()> {
        let Some(record) = self.trees.node(id)? else { return Ok(()) };
        let mut state = record.state;
        let gone = self.new_value(&state, Content::Tombstone);
        state.body_mut().put(dots, gone);
        self.write(id, state)
    }

    /// Nothing stands for these nodes here any more, and that says nothing about the nodes (un-sync is not delete).
    pub(crate) fn forget_items(&mut self, key: ItemKey) -> Result<()> {
        for key in self.with_descendants(&[key])? {
            self.observed.not_missing(key);
            self.trees.put_item(key, None)?;
            self.dirty.insert(key.node);
        }
        Ok(())
    }

    /// Removes twins that everybody sees as one thing: children move over, the twin is deleted. Ordinary operations, done by whoever sees it.
    pub(crate) fn tidy_twins(&mut self, desired: &Desired) -> Result<()> {
        for (twin, copy, dots) in &desired.twins {
            if *twin == desired.key.node || self.trees.item(ItemKey { node: *twin, copy: *copy })?.is_some() {
                continue;
            }
            if desired.content.is_dir() {
                let mut after = None;
                loop {
                    let page = self.trees.kids_after(*twin, after.as_ref().map(|(n, i)| (n, *i)), 256)?;
                    let Some(last) = page.last().cloned() else { break };
                    after = Some(last);
                    for (name, kid) in page {
                        self.move_node(kid, &(desired.key.node, name))?;
                    }
                }
            }
            self.bury(*twin, dots)?;
        }
        Ok(())
    }

    /// A viewer's change is no change of the namespace: it stays on this disk, beside what should stand there (CR12).
    fn refuse_change(&mut self, spot: &Spot, stat: Stat) -> Result<()> {
        if let Some(path) = self.path_at(spot.0, &spot.1)? {
            self.set_issue(path, crate::disk::Obstacle::ViewerOnly);
        }
        if let Some(desired) = self.desired_at(spot.0, &spot.1)? {
            self.dirty.insert(desired.key.node);
            self.plans.asides.insert(spot.clone(), Aside { key: desired.key, stat });
        }
        Ok(())
    }

    /// The name under which a viewer's own version is kept.
    pub(crate) fn aside_name(&mut self, spot: &Spot) -> Name {
        let tries = self.plans.aside_tries.entry(spot.clone()).or_insert(0);
        *tries += 1;
        let extra = *tries - 1;
        let dot = Dot { replica: self.trees.meta().replica, counter: 1 };
        let author = self.device.clone();
        let value = Value { dot, stamp: Stamp::default(), content: Content::Dir, author, wall_ms: self.wall_ms };
        conflict_name(&spot.1, &label(&value), extra)
    }

    fn local_event(&mut self, kind: ChangeKind, spot: &Spot) -> Result<()> {
        if let Some(path) = self.path_at(spot.0, &spot.1)? {
            self.emit(Event::LocalChange { kind, path });
        }
        Ok(())
    }
}
