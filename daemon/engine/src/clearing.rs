//! Making a place free for what is to stand there: what stands in the way leaves first, is parked, or stands for another node from now on.

use crate::absorb::matches;
use crate::disk::{DiskAction, Obstacle};
use crate::engine::{Engine, parked_name};
use crate::plan::{Draft, Effect};
use crate::policy::Planted;
use crate::trees::{Item, ItemContent, ItemKey, PARKED, Result, Trees};
use crate::view::{Desired, Reading};
use ferry_protocol::{Name, NodeId};

impl<T: Trees> Engine<T> {
    /// Whether the place of a desired thing is free, or is made free by actions before it.
    pub(crate) fn clear_place(&mut self, id: NodeId, desired: &Desired, draft: &mut Draft) -> Result<bool> {
        if self.policy.folds_names && self.clashes(desired, draft)? {
            if let Some(path) = self.target_path(desired, draft)? {
                self.block(id, path, Obstacle::NameClash)?;
            }
            return Ok(false);
        }
        let Some(key) = self.trees.item_at(desired.parent, &desired.name)? else { return Ok(true) };
        let Some(item) = self.trees.item(key)? else { return Ok(true) };
        if draft.keys.contains(&key) {
            draft.later.insert(id);
            return Ok(false);
        }
        if self.is_missing(key, item.parent)? {
            self.observed.after_missing.insert(id);
            return Ok(false);
        }
        let twin = key.node == id || desired.twins.iter().any(|(node, _, _)| *node == key.node);
        if twin && matches(&item.content, &desired.content) && self.trees.item(desired.key)?.is_none() {
            if draft.puts_into(key.node) {
                // What is put there already in this plan will stand under this id.
                draft.later.insert(id);
                return Ok(false);
            }
            self.rebind(key, item, desired)?;
            self.dirty.insert(id);
            return Ok(false);
        }
        self.evacuate(id, key, &item, draft)
    }

    /// The same thing on disk stands for another node from now on: twins change which of them stands for all.
    pub(crate) fn rebind(&mut self, from: ItemKey, item: Item, desired: &Desired) -> Result<()> {
        self.trees.put_item(from, None)?;
        self.trees.put_item(desired.key, Some(&Item { dots: desired.dots.clone(), ..item.clone() }))?;
        self.dirty.insert(from.node);
        if item.content == ItemContent::Dir && from.node != desired.key.node {
            // What was seen in it was seen under its old node.
            self.observed.forget_directory(from.node);
            self.observed.want(desired.key.node, None, true);
            loop {
                let page = self.trees.items_in(from.node, None, 256)?;
                if page.is_empty() {
                    break;
                }
                for (_, key) in page {
                    if let Some(child) = self.trees.item(key)? {
                        self.trees.put_item(key, Some(&Item { parent: desired.key.node, ..child }))?;
                        self.dirty.insert(key.node);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes what stands in the way leave: removed if nothing wants it, else parked.
    pub(crate) fn evacuate(&mut self, id: NodeId, key: ItemKey, item: &Item, draft: &mut Draft) -> Result<bool> {
        let reading = match self.trees.node(key.node)? {
            Some(record) => self.read_node(key.node, &record)?,
            None => Reading::Nothing,
        };
        let wanted = match reading {
            Reading::Shows(list) => list.into_iter().find(|d| d.key == key),
            _ => None,
        };
        if wanted.as_ref().is_some_and(|d| (d.parent, &d.name) == (item.parent, &item.name)) {
            // Both are wanted here only while one of them is still being read anew.
            self.dirty.insert(key.node);
            let path = self.item_path(item)?.unwrap_or_default();
            self.block(id, path, Obstacle::Busy)?;
            return Ok(false);
        }
        let empty = self.trees.items_in(key.node, None, 1)?.is_empty();
        if wanted.is_none() && (item.content != ItemContent::Dir || empty) {
            if self.waits_for_missing(id, key, item)? {
                return Ok(false);
            }
            self.plan_removal(key, item, draft)?;
            return Ok(draft.keys.contains(&key));
        }
        let (Some(from), Some(name)) = (self.item_path(item)?, parked_name(key)) else { return Ok(false) };
        let Some(to) = self.path_at(PARKED, &name)? else { return Ok(false) };
        draft.push(DiskAction::Move { from, expect: item.stat, to }, Effect::Moved(key, PARKED, name));
        self.dirty.insert(key.node);
        if item.content == ItemContent::Dir {
            draft.full = true;
            draft.later.insert(id);
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether this disk takes another name of the directory for the same (CR11).
    pub(crate) fn clashes(&self, desired: &Desired, draft: &Draft) -> Result<bool> {
        if self.planted(Planted::FoldingIgnored) {
            return Ok(false);
        }
        let key = desired.name.fold_key();
        let planned = draft.actions.iter().filter_map(|(_, effect)| effect.target());
        if planned.into_iter().any(|(parent, name)| parent == desired.parent && name != desired.name && name.fold_key() == key) {
            return Ok(true);
        }
        let mut after: Option<Name> = None;
        loop {
            let page = self.trees.items_in(desired.parent, after.as_ref(), 1024)?;
            let Some((last, _)) = page.last() else { return Ok(false) };
            after = Some(last.clone());
            if page.iter().any(|(name, k)| *k != desired.key && *name != desired.name && name.fold_key() == key) {
                return Ok(true);
            }
        }
    }
}
