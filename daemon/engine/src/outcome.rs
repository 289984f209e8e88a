//! What became of fetches and batches: the synced tree moves last, and by what really happened (E7).

use crate::disk::{DiskAction, DiskOutcome, Obstacle, Stat};
use crate::engine::{ChangeKind, Engine, Event};
use crate::observe::Spot;
use crate::plan::Effect;
use crate::trees::{Item, ItemContent, ItemKey, PARKED, Result, Trees};
use ferry_protocol::{ContentHash, NodeId, RelPath};

/// So often in a row a node is planned again at once when the disk is not as expected.
const STALE_TRIES: u32 = 3;

impl<T: Trees> Engine<T> {
    /// A content is staged (verified and complete), or something stood in the way.
    pub fn handle_fetch(&mut self, content: ContentHash, result: std::result::Result<(), Obstacle>) -> Result<()> {
        let Some((bytes, nodes)) = self.plans.fetching.remove(&content) else { return Ok(()) };
        self.plans.fetching_bytes = self.plans.fetching_bytes.saturating_sub(bytes);
        match result {
            Ok(()) => {
                self.plans.staged.insert(content);
                nodes.iter().for_each(|node| self.merge_may_be_had(*node));
                self.dirty.extend(nodes);
            }
            Err(obstacle) => {
                for id in nodes {
                    let path = self.node_path(id)?;
                    self.block(id, path, obstacle)?;
                }
            }
        }
        Ok(())
    }

    /// Contents that were staged and are no longer wanted by anything; the driver may drop them once nothing is pending.
    pub fn take_unused_staged(&mut self) -> Vec<ContentHash> {
        if self.plans.batch.is_some() || !self.dirty.is_empty() || !self.observed.after_looks.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.plans.staged).into_iter().collect()
    }

    /// Where a node stands or is to stand, as well as that is known.
    pub(crate) fn node_path(&self, id: NodeId) -> Result<RelPath> {
        if let Some(item) = self.trees.item(ItemKey::primary(id))?
            && let Some(path) = self.item_path(&item)?
        {
            return Ok(path);
        }
        match self.trees.node(id)? {
            Some(record) => {
                let (parent, name) = crate::view::position(&record);
                Ok(self.path_at(self.canonical(parent), &name)?.unwrap_or_else(|| RelPath::from_names(vec![name])))
            }
            None => Ok(RelPath::root()),
        }
    }

    /// Takes what became of a batch: one outcome for each action, in their order. All of it is durable.
    pub fn handle_batch(&mut self, id: u64, outcomes: Vec<DiskOutcome>) -> Result<()> {
        let Some((expected, actions)) = self.plans.batch.take() else { return Ok(()) };
        if expected != id {
            self.plans.batch = Some((expected, actions));
            return Ok(());
        }
        self.end_sync_of(id);
        let again = self.observed.overlap.end_batch(id);
        let mut outcomes = outcomes.into_iter();
        for (action, effect) in actions {
            // An action without an outcome was not tried.
            let outcome = outcomes.next().unwrap_or(DiskOutcome::Stale(None));
            let node = effect.key().node;
            match outcome {
                DiskOutcome::Done(stat) => {
                    self.unblock(node);
                    self.plans.stale.remove(&node);
                    self.issues.remove(action.path());
                    self.apply_effect(&action, effect, stat)?;
                    self.dirty.insert(node);
                }
                DiskOutcome::Stale(_) => self.handle_stale(&action, &effect)?,
                DiskOutcome::Blocked(obstacle) => {
                    if let (DiskAction::PutFile { content, .. }, Obstacle::Corrupt) = (&action, obstacle) {
                        // What was staged is no longer there, or was thrown away because it could not be made durable (K15).
                        self.plans.staged.remove(content);
                    }
                    self.block(node, action.path().clone(), obstacle)?;
                }
            }
        }
        for (directory, name) in again {
            self.observed.want(directory, Some(name), true);
        }
        self.match_found()
    }

    fn apply_effect(&mut self, action: &DiskAction, effect: Effect, stat: Option<Stat>) -> Result<()> {
        // A look between the action and its outcome may have missed what had just left.
        self.observed.not_missing(effect.key());
        self.publishing.reconsider(effect.key().node);
        let Some(effect) = self.where_it_stands(&effect)? else {
            // Its directory was not made here but by somebody else: what stands there is looked at.
            return self.handle_stale(action, &effect);
        };
        if let Some((parent, _)) = effect.target()
            && self.directory_path(parent)?.is_none()
        {
            // It is in a directory that a user made where ours was to stand: found there once that directory is known.
            return self.handle_stale(action, &effect);
        }
        match (effect, stat) {
            (Effect::Put(key, item), Some(stat)) => {
                if let DiskAction::PutFile { content, .. } = action {
                    self.plans.staged.remove(content);
                }
                let replaced = self.trees.item(key)?.is_some();
                self.settle_item(key, &Item { stat, ..*item })?;
                self.wake_orphans(key.node);
                let path = action.path().clone();
                if key.copy.is_some() && !replaced {
                    self.emit(Event::Conflict { path });
                } else {
                    self.emit(Event::RemoteChange { kind: if replaced { ChangeKind::Edited } else { ChangeKind::Created }, path });
                }
            }
            (Effect::Merged(key, item, merged), Some(stat)) => {
                if let DiskAction::PutFile { content, .. } = action {
                    self.plans.staged.remove(content);
                }
                let (content, replaces) = *merged;
                self.take_merged(key, Item { stat, ..*item }, content, &replaces)?;
            }
            (Effect::Moved(key, parent, name), Some(stat)) => self.apply_move(action, key, (parent, name), stat)?,
            (Effect::Removed(key), _) => {
                if let Some(item) = self.trees.item(key)? {
                    self.displace_children(key)?;
                    self.trees.put_item(key, None)?;
                    let canonical = self.canonical(key.node);
                    self.dirty.insert(canonical);
                    // A directory that was kept for this may go now.
                    self.dirty.insert(item.parent);
                }
                self.emit(Event::RemoteChange { kind: ChangeKind::Deleted, path: action.path().clone() });
            }
            (Effect::Attributes(key, mode, mtime_ns), Some(stat)) => {
                if let Some(item) = self.trees.item(key)? {
                    self.trees.put_item(key, Some(&Item { stat, mode, mtime_ns, ..item }))?;
                    self.emit(Event::RemoteChange { kind: ChangeKind::Attributes, path: action.path().clone() });
                }
            }
            (Effect::Aside(_, spot), Some(_)) => {
                self.plans.aside_tries.remove(&spot);
                self.set_issue(action.path().clone(), Obstacle::ViewerOnly);
            }
            // Done without a stat where one belongs: looked at like anything unexpected.
            (effect, None) => self.handle_stale(action, &effect)?,
        }
        Ok(())
    }

    /// A directory was empty when it was removed: what was put into it since that was planned, and taken in, had left again.
    fn displace_children(&mut self, directory: ItemKey) -> Result<()> {
        while let Some((_, child)) = self.trees.items_in(directory.node, None, 1)?.pop().filter(|_| directory.copy.is_none()) {
            match self.trees.item(child)? {
                Some(item) => self.displace(child, item)?,
                None => break,
            }
        }
        Ok(())
    }

    fn apply_move(&mut self, action: &DiskAction, key: ItemKey, (parent, name): Spot, stat: Stat) -> Result<()> {
        let Some(item) = self.trees.item(key)? else { return Ok(()) };
        let mut mode = stat.mode;
        if item.content == ItemContent::Dir {
            if self.observed.wants_inside(&(item.parent, item.name.clone())) {
                // It is no longer where it would have been looked into.
                self.observed.want(key.node, None, true);
            }
            if mode != item.stat.mode {
                // Nothing was expected of a directory's mode: a user changed it.
                mode = item.stat.mode;
                self.observed.want(parent, Some(name.clone()), false);
            }
        }
        // A directory that was kept for this may go now.
        self.dirty.insert(item.parent);
        self.settle_item(key, &Item { parent, name, stat: Stat { mode, ..stat }, ..item })?;
        self.wake_orphans(key.node);
        if parent != PARKED {
            self.emit(Event::RemoteChange { kind: ChangeKind::Moved, path: action.path().clone() });
        }
        Ok(())
    }

    /// The effect below the directory that stands for its own on disk: while the batch was under way a twin may have taken its place. Nothing if
    /// no such directory is known on disk.
    fn where_it_stands(&self, effect: &Effect) -> Result<Option<Effect>> {
        let standing = |directory: NodeId| -> Result<Option<NodeId>> {
            for at in [directory, self.canonical(directory)] {
                if at == NodeId::ROOT || at == PARKED || self.trees.item(ItemKey::primary(at))?.is_some() {
                    return Ok(Some(at));
                }
            }
            Ok(None)
        };
        Ok(match effect {
            Effect::Put(key, item) => {
                standing(item.parent)?.map(|parent| Effect::Put(*key, Box::new(Item { parent, ..Item::clone(item) })))
            }
            Effect::Merged(key, item, merged) => {
                standing(item.parent)?.map(|parent| Effect::Merged(*key, Box::new(Item { parent, ..Item::clone(item) }), merged.clone()))
            }
            Effect::Moved(key, parent, name) => standing(*parent)?.map(|parent| Effect::Moved(*key, parent, name.clone())),
            other => Some(other.clone()),
        })
    }

    /// Something else stood there than was expected: it is looked at, and the node planned again after that.
    fn handle_stale(&mut self, action: &DiskAction, effect: &Effect) -> Result<()> {
        let key = effect.key();
        if let Some(item) = self.trees.item(key)? {
            self.observed.want(item.parent, Some(item.name), true);
        }
        match effect {
            Effect::Put(_, item) | Effect::Merged(_, item, _) => self.observed.want(item.parent, Some(item.name.clone()), true),
            Effect::Moved(_, parent, name) => self.observed.want(*parent, Some(name.clone()), true),
            Effect::Aside(_, (parent, name)) => self.observed.want(*parent, Some(name.clone()), true),
            Effect::Removed(_) | Effect::Attributes(..) => {}
        }
        if let DiskAction::PutFile { content, .. } = action {
            // Whether the staged file survived is not known; staging it again costs no transfer if it did.
            self.plans.staged.remove(content);
        }
        self.observed.after_looks.insert(key.node);
        // What stands in the way and cannot be taken in (a FIFO, something unreadable) must not be tried without end (E5).
        let tries = self.plans.stale.entry(key.node).or_insert(0);
        *tries += 1;
        if *tries > STALE_TRIES {
            self.block(key.node, action.path().clone(), Obstacle::Busy)?;
        }
        Ok(())
    }
}
