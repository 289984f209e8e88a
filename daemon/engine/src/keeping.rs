//! What stays on disk for a while although nothing wants it there: it may be all that is left of something (E6).

use crate::absorb::matches;
use crate::engine::Engine;
use crate::trees::{Item, ItemContent, ItemKey, PARKED, Result, Trees};
use ferry_protocol::NodeId;

impl<T: Trees> Engine<T> {
    /// Whether a node waits for an item to be removed, because what should stand here instead is missing, or the equal that it is hidden behind: if that
    /// is deleted, this is all that is left of both (E6).
    pub(crate) fn waits_for_missing(&mut self, id: NodeId, key: ItemKey, item: &Item) -> Result<bool> {
        if item.parent == PARKED || item.content == ItemContent::Dir {
            return Ok(false);
        }
        if let Some(other) = self.hidden_behind(key)?
            && let Some(stands) = self.trees.item(other)?
        {
            if item.stat.same_inode(&stands.stat) && item.stat.links == 1 {
                return self.rejoin(id, (key, item), (other, stands));
            }
            return self.wait_for_missing(id, other, stands.parent);
        }
        if self.observed.missing.is_empty() {
            return Ok(false);
        }
        match self.desired_at(item.parent, &item.name)? {
            Some(desired) if desired.key != key => self.wait_for_missing(id, desired.key, desired.parent),
            _ => Ok(false),
        }
    }

    /// The file or link of equal content that stands for this one too.
    fn hidden_behind(&mut self, key: ItemKey) -> Result<Option<ItemKey>> {
        let Some(record) = self.trees.node(key.node)? else { return Ok(None) };
        let (parent, name) = crate::view::position(&record);
        let entries = self.settled(self.canonical(parent), &name)?;
        let stands = entries.into_iter().find(|e| e.twins.iter().any(|(node, copy, _)| (*node, *copy) == (key.node, key.copy)));
        Ok(stands.map(|e| ItemKey { node: e.node, copy: e.copy }))
    }

    /// One inode with one name cannot stand at two places: a user put the file that stands for both in this one's place (`mv a b`). If it went
    /// with that alone, another device that tidies the twins and this one that notes what left would bury both. So it stands for the older again,
    /// at its new place. Until the older is known to be gone from its place, that place is looked at.
    fn rejoin(&mut self, id: NodeId, (key, item): (ItemKey, &Item), (other, stands): (ItemKey, Item)) -> Result<bool> {
        if !self.observed.missing.contains_key(&other) {
            self.observed.want(stands.parent, Some(stands.name), false);
            self.observed.after_looks.insert(id);
        } else if item.content != stands.content || self.is_missing(key, item.parent)? {
            self.observed.after_missing.insert(id);
        } else {
            self.observed.not_missing(other);
            self.trees.put_item(key, None)?;
            self.settle_item(other, &Item { dots: stands.dots, ..item.clone() })?;
            self.dirty.extend([id, key.node, other.node]);
        }
        Ok(true)
    }

    fn wait_for_missing(&mut self, id: NodeId, key: ItemKey, parent: NodeId) -> Result<bool> {
        let waits = self.is_missing(key, parent)?;
        if waits {
            self.observed.after_missing.insert(id);
        }
        Ok(waits)
    }

    /// Whether this file alone holds what was written here, never arrived anywhere and is still shown, as a conflicted copy: that one is placed
    /// first, from these bytes (E6).
    pub(crate) fn is_last_holder(&self, id: NodeId, key: ItemKey, item: &Item) -> Result<bool> {
        if self.may_be_held_elsewhere(item, id)? {
            return Ok(false);
        }
        let Some(record) = self.trees.node(id)? else { return Ok(false) };
        let lives = record.state.body().values().iter().any(|v| item.dots.contains(&v.dot) && matches(&item.content, &v.content));
        Ok(lives && !self.trees.items_of(id)?.iter().any(|(other, held)| *other != key && held.content == item.content))
    }
}
