//! What to do next on this disk: the difference between what the remote tree shows and the items, as actions that say what they expect.
//!
//! The planner reads the trees and writes none (E3). It examines dirty nodes only, so a plan costs what changed. An action is planned when
//! everything that it needs is so: its directory is on disk, its place is free, its content is staged. What stands in its place and is to
//! go leaves first; what is to move on is parked in between (a swap, a rotation). What is being looked at is left alone until it is known.

use crate::absorb::matches;
use crate::disk::{DiskAction, Obstacle, Stat};
use crate::engine::Engine;
use crate::merging::{Keep, Merge};
use crate::missing::LIMBO;
use crate::observe::Spot;
use crate::policy::Planted;
use crate::trees::{Item, ItemContent, ItemKey, PARKED, Result, Trees};
use crate::view::{Desired, Reading};
use ferry_protocol::{ChunkId, Content, ContentHash, Dot, Manifest, Name, NodeId, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// What to do next: contents to fetch, and at most one batch of actions.
#[derive(Debug, Default)]
pub struct Plan {
    /// Contents to stage. Answer each with [`Engine::handle_fetch`].
    pub fetches: Vec<Fetch>,
    /// Texts to join. Answer each with [`Engine::handle_merge`].
    pub merges: Vec<Merge>,
    /// Versions to keep for merges. They need no answer, but another plan after them: there may be more.
    pub keeps: Vec<Keep>,
    /// Actions, to be done in their order. Answer with [`Engine::handle_batch`]; until then there is no other batch.
    pub batch: Option<Batch>,
}

/// A content to stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The content.
    pub manifest: Manifest,
    /// Where one of the files with it is to stand.
    pub path: RelPath,
    /// Chunks that files of this folder hold.
    pub local: Vec<LocalSource>,
}

/// A chunk in a file of this folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSource {
    /// The chunk.
    pub chunk: ChunkId,
    /// The file.
    pub path: RelPath,
    /// Its version when it was hashed.
    pub stat: Stat,
    /// Where in it the chunk stands, in bytes.
    pub offset: u64,
}

/// Actions to be done in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Names the batch in the answer.
    pub id: u64,
    /// The actions.
    pub actions: Vec<DiskAction>,
}

/// What an action means for the items once it is done.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// The item stands there, with a new stat.
    Put(ItemKey, Box<Item>),
    /// The item is a merged version: its content, and the events that it replaces.
    Merged(ItemKey, Box<Item>, Box<(Content, Vec<Dot>)>),
    /// The item stands at another place.
    Moved(ItemKey, NodeId, Name),
    /// The item is gone.
    Removed(ItemKey),
    /// The item has this mode and time.
    Attributes(ItemKey, u16, i64),
    /// A viewer's own version made room for this item.
    Aside(ItemKey, Spot),
}

impl Effect {
    /// Where something stands once it is done.
    pub fn target(&self) -> Option<Spot> {
        match self {
            Self::Put(_, item) | Self::Merged(_, item, _) => Some((item.parent, item.name.clone())),
            Self::Moved(_, parent, name) => Some((*parent, name.clone())),
            Self::Removed(_) | Self::Attributes(..) | Self::Aside(..) => None,
        }
    }

    pub fn key(&self) -> ItemKey {
        match self {
            Self::Put(key, _)
            | Self::Merged(key, _, _)
            | Self::Moved(key, _, _)
            | Self::Removed(key)
            | Self::Attributes(key, _, _)
            | Self::Aside(key, _) => *key,
        }
    }
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    pub fetching: BTreeMap<ContentHash, (u64, BTreeSet<NodeId>)>,
    pub fetching_bytes: u64,
    pub staged: BTreeSet<ContentHash>,
    pub batch: Option<(u64, Vec<(DiskAction, Effect)>)>,
    pub next_batch: u64,
    /// A viewer's own versions that stand where something else should.
    pub asides: BTreeMap<Spot, Aside>,
    pub aside_tries: BTreeMap<Spot, usize>,
    /// How often in a row the disk was not as a node's plan expected.
    pub stale: BTreeMap<NodeId, u32>,
}

/// A viewer's own version of something.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    /// What should stand there.
    pub key: ItemKey,
    /// What does.
    pub stat: Stat,
}

impl Plans {
    /// Nothing is planned any more; the batch under way has no effect but is still waited for.
    pub fn again(&mut self) -> Self {
        let batch = self.batch.take().map(|(id, _)| (id, Vec::new()));
        Self { batch, next_batch: self.next_batch, ..Self::default() }
    }

    pub fn waiting(&self) -> u64 {
        let fetching: usize = self.fetching.values().map(|(_, nodes)| nodes.len()).sum();
        fetching as u64 + self.batch.as_ref().map_or(0, |(_, actions)| actions.len() as u64)
    }
}

/// At most so many contents are fetched at once.
const FETCHES_MAX: usize = 4096;
/// At most so many bytes are being fetched at once, but for one content of any size.
const FETCHING_MAX_BYTES: u64 = 512 << 20;

/// A plan in the making.
#[derive(Default)]
pub(crate) struct Draft {
    pub fetches: Vec<Fetch>,
    pub merges: Vec<Merge>,
    pub keeps: Vec<Keep>,
    pub actions: Vec<(DiskAction, Effect)>,
    pub keys: BTreeSet<ItemKey>,
    pub made: BTreeMap<NodeId, RelPath>,
    pub contents: BTreeSet<ContentHash>,
    pub later: BTreeSet<NodeId>,
    pub full: bool,
}

impl Draft {
    /// Whether something is put into this directory.
    pub fn puts_into(&self, directory: NodeId) -> bool {
        self.actions.iter().any(|(_, effect)| effect.target().is_some_and(|(parent, _)| parent == directory))
    }

    pub fn push(&mut self, action: DiskAction, effect: Effect) {
        self.keys.insert(effect.key());
        self.actions.push((action, effect));
    }
}

impl<T: Trees> Engine<T> {
    /// What to do next, with at most so many actions.
    pub fn plan(&mut self, max_actions: usize) -> Result<Plan> {
        self.open_page()?;
        let now = self.now_ms;
        self.dirty.extend(self.blocked.iter().filter(|(_, b)| b.until_ms <= now).map(|(id, _)| *id));
        let mut draft = Draft::default();
        if self.plans.batch.is_some() || self.may_not_look() {
            return Ok(Plan::default());
        }
        self.plan_asides(&mut draft)?;
        while !draft.full && draft.actions.len() < max_actions {
            let Some(id) = self.dirty.pop_first() else {
                if self.opening.is_none() {
                    break;
                }
                self.open_page()?;
                continue;
            };
            if self.blocked.get(&id).is_some_and(|b| b.until_ms > now) {
                continue;
            }
            self.examine(id, &mut draft)?;
        }
        self.dirty.append(&mut draft.later);
        let mut plan = Plan { fetches: draft.fetches, merges: draft.merges, keeps: draft.keeps, batch: None };
        if !draft.actions.is_empty() {
            self.plans.next_batch += 1;
            let id = self.plans.next_batch;
            if self.planted(Planted::BaseFirst) {
                self.move_base_first(&draft.actions)?;
            }
            plan.batch = Some(Batch { id, actions: draft.actions.iter().map(|(a, _)| a.clone()).collect() });
            let spots = self.touched_spots(&draft.actions)?;
            self.observed.overlap.begin_batch(spots);
            self.plans.batch = Some((id, draft.actions));
        }
        Ok(plan)
    }

    /// Where these actions change something.
    fn touched_spots(&self, actions: &[(DiskAction, Effect)]) -> Result<BTreeMap<Spot, NodeId>> {
        let mut out = BTreeMap::new();
        for (_, effect) in actions {
            let key = effect.key();
            let from = match effect {
                Effect::Aside(_, spot) => Some(spot.clone()),
                _ => self.trees.item(key)?.map(|item| (item.parent, item.name)),
            };
            out.extend(from.into_iter().chain(effect.target()).map(|spot| (spot, key.node)));
        }
        Ok(out)
    }

    /// What a viewer wrote where something else should stand makes room for it.
    fn plan_asides(&mut self, draft: &mut Draft) -> Result<()> {
        for (spot, aside) in std::mem::take(&mut self.plans.asides) {
            let name = self.aside_name(&spot);
            if let (Some(from), Some(to)) = (self.path_at(spot.0, &spot.1)?, self.path_at(spot.0, &name)?) {
                draft.push(DiskAction::Move { from, expect: aside.stat, to }, Effect::Aside(aside.key, spot));
            }
        }
        Ok(())
    }

    /// The bug of moving the base before the disk, for tests of the tests.
    fn move_base_first(&mut self, actions: &[(DiskAction, Effect)]) -> Result<()> {
        for (_, effect) in actions {
            match effect {
                Effect::Put(key, item) => self.trees.put_item(*key, Some(item))?,
                Effect::Removed(key) => self.trees.put_item(*key, None)?,
                Effect::Merged(..) | Effect::Moved(..) | Effect::Attributes(..) | Effect::Aside(..) => {}
            }
        }
        Ok(())
    }

    /// Goes on comparing all nodes with their items, as every opening begins with.
    fn open_page(&mut self) -> Result<()> {
        if self.opening == Some(None) {
            self.recall_displaced()?;
        }
        while let Some(after) = self.opening {
            if self.dirty.len() >= 2048 {
                return Ok(());
            }
            let page = self.trees.nodes_after(after, 512)?;
            self.opening = page.last().map(|(id, _)| Some(*id));
            for (id, record) in page {
                self.remember_fallen(id, &record);
                self.dirty.insert(id);
            }
        }
        Ok(())
    }

    fn examine(&mut self, id: NodeId, draft: &mut Draft) -> Result<()> {
        let Some(record) = self.trees.node(id)? else { return Ok(()) };
        let items = self.trees.items_of(id)?;
        for (_, item) in &items {
            if self.is_unsettled(item.parent, &item.name)? {
                self.observed.after_looks.insert(id);
                return Ok(());
            }
        }
        let desired = match self.read_node(id, &record)? {
            Reading::Nothing => Vec::new(),
            Reading::Orphan(parent) => {
                self.orphans.entry(parent).or_default().insert(id);
                return Ok(());
            }
            Reading::Shows(desired) => desired,
        };
        let actions = draft.actions.len();
        if self.plan_merge((id, &record), &items, &desired, draft)? {
            return Ok(());
        }
        for one in &desired {
            let item = items.iter().find(|(key, _)| *key == one.key).map(|(_, item)| item);
            self.examine_desired(id, one, item, draft)?;
        }
        // Read again: what was a copy may stand for the node itself by now.
        for (key, item) in self.trees.items_of(id)? {
            if !desired.iter().any(|d| d.key == key) {
                self.examine_undesired(key, &item, draft)?;
            }
        }
        if draft.actions.len() == actions && !draft.later.contains(&id) && self.blocked.get(&id).is_some_and(|b| b.until_ms <= self.now_ms)
        {
            self.unblock(id);
        }
        Ok(())
    }

    fn examine_desired(&mut self, id: NodeId, desired: &Desired, item: Option<&Item>, draft: &mut Draft) -> Result<()> {
        if draft.keys.contains(&desired.key) {
            draft.later.insert(id);
            return Ok(());
        }
        let Some(path) = self.target_path(desired, draft)? else {
            self.orphans.entry(desired.parent).or_default().insert(id);
            return Ok(());
        };
        if self.is_missing(desired.key, desired.parent)? {
            self.observed.after_missing.insert(id);
            return Ok(());
        }
        if self.is_ignored(desired.parent, &desired.name, &path, desired.content.is_dir())? {
            return Ok(());
        }
        if self.is_unsettled(desired.parent, &desired.name)? {
            self.observed.after_looks.insert(id);
            return Ok(());
        }
        if path.names().len() > ferry_protocol::limits::PATH_DEPTH_MAX {
            return self.block(id, path, Obstacle::Unrepresentable);
        }
        match item {
            None => self.plan_create(id, desired, path, draft),
            Some(item) if (item.parent, &item.name) != (desired.parent, &desired.name) => self.plan_move(id, desired, item, path, draft),
            Some(item) => self.plan_in_place(id, desired, item, path, draft),
        }
    }

    /// Whether an item or a directory above it is missing: what is planned there waits until it is found or deleted.
    pub(crate) fn is_missing(&self, key: ItemKey, parent: NodeId) -> Result<bool> {
        if self.observed.missing.is_empty() {
            return Ok(false);
        }
        let (mut key, mut parent) = (key, parent);
        for _ in 0..ferry_protocol::limits::PATH_DEPTH_MAX {
            if self.observed.missing.contains_key(&key) {
                return Ok(true);
            }
            if parent == NodeId::ROOT {
                return Ok(false);
            }
            key = ItemKey::primary(parent);
            match self.trees.item(key)? {
                Some(item) => parent = item.parent,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Where a desired thing is to stand; nothing while its directory is not on disk.
    pub(crate) fn target_path(&self, desired: &Desired, draft: &Draft) -> Result<Option<RelPath>> {
        match draft.made.get(&desired.parent) {
            Some(parent) => Ok(Some(parent.join(&desired.name))),
            None if desired.parent != NodeId::ROOT && draft.keys.contains(&ItemKey::primary(desired.parent)) => Ok(None),
            None => self.path_at(desired.parent, &desired.name),
        }
    }

    /// The item stands where it should: its content, then its attributes.
    fn plan_in_place(&mut self, id: NodeId, desired: &Desired, item: &Item, path: RelPath, draft: &mut Draft) -> Result<()> {
        if !matches(&item.content, &desired.content) {
            let same_kind = matches!(
                (&item.content, &desired.content),
                (ItemContent::File(_), Content::File(_)) | (ItemContent::Symlink(_), Content::Symlink(_))
            );
            if !same_kind {
                draft.later.insert(id);
                return self.plan_removal(desired.key, item, draft);
            }
            return self.plan_put(id, desired, Some(item), path, draft);
        }
        let time_differs = desired.content.file().is_some() && item.mtime_ns != desired.mtime_ns;
        let mode_differs = !matches!(item.content, ItemContent::Symlink(_)) && item.mode != desired.mode;
        if time_differs || mode_differs || self.planted(Planted::AttributesForever) {
            let action = DiskAction::SetAttributes {
                path,
                expect: item.stat,
                mode: mode_differs.then_some(desired.mode),
                mtime_ns: time_differs.then_some(desired.mtime_ns),
            };
            draft.push(action, Effect::Attributes(desired.key, desired.mode, desired.mtime_ns));
            return Ok(());
        }
        if item.dots != desired.dots {
            self.trees.put_item(desired.key, Some(&Item { dots: desired.dots.clone(), ..item.clone() }))?;
        }
        self.keep_for_merges(item, &path, draft);
        self.wake_orphans(id);
        if !desired.twins.is_empty() && self.policy.may_write && self.trees.meta().heard {
            self.tidy_twins(desired)?;
        }
        Ok(())
    }

    fn plan_create(&mut self, id: NodeId, desired: &Desired, path: RelPath, draft: &mut Draft) -> Result<()> {
        if !self.clear_place(id, desired, draft)? {
            return Ok(());
        }
        if let Content::Dir = desired.content {
            let action = DiskAction::MakeDir { path: path.clone(), mode: desired.mode };
            draft.push(action, Effect::Put(desired.key, Box::new(new_item(desired, ItemContent::Dir))));
            if desired.key.copy.is_none() {
                draft.made.insert(id, path);
                self.wake_orphans(id);
            }
            return Ok(());
        }
        self.plan_put(id, desired, None, path, draft)
    }

    /// A file or link in place of nothing or of its older self.
    fn plan_put(&mut self, id: NodeId, desired: &Desired, item: Option<&Item>, path: RelPath, draft: &mut Draft) -> Result<()> {
        if let Some(item) = item
            && self.is_last_holder(id, desired.key, item)?
        {
            draft.later.insert(id);
            return Ok(());
        }
        let expect = item.map(|i| i.stat);
        match &desired.content {
            Content::Symlink(target) => {
                let effect = Effect::Put(desired.key, Box::new(new_item(desired, ItemContent::Symlink(target.clone()))));
                draft.push(DiskAction::PutLink { path, expect, target: target.clone() }, effect);
            }
            Content::File(file) => {
                let content = file.manifest.hash();
                if !self.plans.staged.contains(&content) {
                    return self.plan_fetch(id, &file.manifest, path, draft);
                }
                // A staged content serves one file; the next one copies it from there.
                if !draft.contents.insert(content) {
                    draft.later.insert(id);
                    return Ok(());
                }
                let action = DiskAction::PutFile { path, expect, content, mode: desired.mode, mtime_ns: desired.mtime_ns };
                draft.push(action, Effect::Put(desired.key, Box::new(new_item(desired, ItemContent::File(file.manifest.clone())))));
            }
            Content::Dir | Content::Tombstone => {}
        }
        Ok(())
    }

    fn plan_fetch(&mut self, id: NodeId, manifest: &Manifest, path: RelPath, draft: &mut Draft) -> Result<()> {
        if let Some((_, nodes)) = self.plans.fetching.get_mut(&manifest.hash()) {
            nodes.insert(id);
            return Ok(());
        }
        let busy = self.plans.fetching.len();
        if busy >= FETCHES_MAX || (busy > 0 && self.plans.fetching_bytes + manifest.size() > FETCHING_MAX_BYTES) {
            draft.later.insert(id);
            draft.full = true;
            return Ok(());
        }
        self.plans.fetching.insert(manifest.hash(), (manifest.size(), BTreeSet::from([id])));
        self.plans.fetching_bytes += manifest.size();
        let local = self.local_sources(manifest)?;
        draft.fetches.push(Fetch { manifest: manifest.clone(), path, local });
        Ok(())
    }

    /// Which chunks of a content stand in files of this folder.
    pub(crate) fn local_sources(&self, manifest: &Manifest) -> Result<Vec<LocalSource>> {
        let wanted: BTreeSet<ChunkId> = manifest.chunks().iter().map(|c| c.id).collect();
        let wanted: Vec<ChunkId> = wanted.into_iter().collect();
        let places = self.chunk_places(&wanted)?.into_iter().flatten();
        Ok(places.map(|p| LocalSource { chunk: p.chunk.id, path: p.path, stat: p.stat, offset: p.offset }).collect())
    }

    fn plan_move(&mut self, id: NodeId, desired: &Desired, item: &Item, path: RelPath, draft: &mut Draft) -> Result<()> {
        let Some(from) = self.item_path(item)? else {
            self.observed.after_looks.insert(id);
            return Ok(());
        };
        // Into itself: something between must move out first.
        if item.content == ItemContent::Dir && path.starts_with(&from) {
            draft.later.insert(id);
            return Ok(());
        }
        // It gives way to what is missing from this very place: if that is deleted, it need not.
        let canonical = self.canonical(item.parent);
        let keepers = if item.parent == desired.parent { self.settled(canonical, &item.name)? } else { Vec::new() };
        if keepers.iter().any(|e| e.name == item.name && self.observed.missing.contains_key(&ItemKey { node: e.node, copy: e.copy })) {
            self.observed.after_missing.insert(id);
            return Ok(());
        }
        if !self.clear_place(id, desired, draft)? {
            return Ok(());
        }
        let action = DiskAction::Move { from, expect: item.stat, to: path };
        draft.push(action, Effect::Moved(desired.key, desired.parent, desired.name.clone()));
        // Paths below a moved directory are other paths now: they wait for the next plan.
        draft.full |= item.content == ItemContent::Dir;
        Ok(())
    }

    fn examine_undesired(&mut self, key: ItemKey, item: &Item, draft: &mut Draft) -> Result<()> {
        if draft.keys.contains(&key) {
            draft.later.insert(key.node);
            return Ok(());
        }
        if item.parent == LIMBO || self.is_missing(key, item.parent)? {
            self.observed.after_missing.insert(key.node);
            return Ok(());
        }
        if item.content == ItemContent::Dir {
            // A twin that no longer stands for all hands its place over to the one that does; it goes if that one stands elsewhere already.
            if item.parent != PARKED
                && let Some(desired) = self.desired_at(item.parent, &item.name)?
                && desired.key != key
                && desired.content.is_dir()
                && desired.twins.iter().any(|(node, _, _)| *node == key.node)
                && self.trees.item(desired.key)?.is_none()
            {
                self.dirty.insert(desired.key.node);
                return Ok(());
            }
            if !self.trees.items_in(key.node, None, 1)?.is_empty() {
                return Ok(());
            }
        } else if self.waits_for_missing(key.node, key, item)? {
            return Ok(());
        }
        self.plan_removal(key, item, draft)
    }

    pub(crate) fn plan_removal(&mut self, key: ItemKey, item: &Item, draft: &mut Draft) -> Result<()> {
        match self.item_path(item)? {
            Some(path) => draft.push(DiskAction::Remove { path, expect: item.stat }, Effect::Removed(key)),
            None => {
                self.observed.after_looks.insert(key.node);
            }
        }
        Ok(())
    }

    /// Nothing stands in the way of this node any more.
    pub(crate) fn unblock(&mut self, id: NodeId) {
        if let Some(blocked) = self.blocked.remove(&id) {
            self.issues.remove(&blocked.path);
        }
    }

    /// Something stands in the way: said, and tried again after a pause.
    pub(crate) fn block(&mut self, id: NodeId, path: RelPath, obstacle: Obstacle) -> Result<()> {
        let tries = self.blocked.get(&id).filter(|b| b.obstacle == obstacle).map_or(0, |b| b.tries + 1);
        let until_ms = self.now_ms + crate::backoff::pause_ms(&self.policy, tries);
        self.unblock(id);
        self.blocked.insert(id, crate::backoff::Blocked { path: path.clone(), obstacle, until_ms, tries });
        // Once is a moment's matter.
        if obstacle != Obstacle::Busy || tries > 0 {
            self.set_issue(path, obstacle);
        }
        Ok(())
    }
}

fn new_item(desired: &Desired, content: ItemContent) -> Item {
    Item {
        parent: desired.parent,
        name: desired.name.clone(),
        stat: Stat { dev: 0, ino: 0, birth_ns: None, kind: kind(&content), size: 0, mtime_ns: 0, ctime_ns: 0, mode: 0, links: 0 },
        content,
        dots: desired.dots.clone(),
        mode: desired.mode,
        mtime_ns: desired.mtime_ns,
    }
}

fn kind(content: &ItemContent) -> crate::disk::Kind {
    match content {
        ItemContent::Dir => crate::disk::Kind::Dir,
        ItemContent::File(_) => crate::disk::Kind::File,
        ItemContent::Symlink(_) => crate::disk::Kind::Symlink,
    }
}
