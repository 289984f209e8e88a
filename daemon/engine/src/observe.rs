//! The local tree, as its difference from the synced tree: what was looked at, what was found, what is missing.
//!
//! Hints and scans both end in *looks*: a directory, or some names in it. What stands there unchanged costs one comparison. What is new or
//! changed is *found*; what is not there is *missing*. Before either becomes a change of ours:
//!
//! * Found things are matched with items by inode, so that a move is a move (the evidence: same device, inode, kind and birth, and the old
//!   place no longer holds it). A new inode under an old name is an edit, unless the old inode turned up elsewhere: then the old one moved.
//! * Missing things wait until nothing else is going on, are looked for a second time (K18), and pass the brake.
//! * Unreadable is not missing, ignored is not missing (E8).

use crate::disk::{Kind, Listed, Obstacle, Stat};
use crate::engine::Engine;
use crate::policy::Planted;
use crate::trees::{Item, ItemContent, ItemKey, PARKED, Result, Trees};
use ferry_protocol::{Manifest, Name, NodeId, RelPath};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A place on disk: a directory that is an item (or the root), and a name in it.
pub(crate) type Spot = (NodeId, Name);

/// A directory to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Which; [`NodeId::ROOT`] for the folder itself.
    pub directory: NodeId,
    /// Where it stands.
    pub path: RelPath,
    /// Only these names; all of them if absent.
    pub names: Option<BTreeSet<Name>>,
    /// Whether directories in it are to be looked at as well.
    pub deep: bool,
}

/// What a [`Look`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookResult {
    /// The directory's own stat, and its entries: all of them, or of the asked names those that are there.
    Listed(Stat, Vec<Listed>),
    /// There is no such directory.
    Gone,
    /// It cannot be told what is there.
    Unreadable(Obstacle),
}

/// A file or link whose content is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTask {
    /// In which directory.
    pub directory: NodeId,
    /// Under which name.
    pub name: Name,
    /// Where that is.
    pub path: RelPath,
    /// What was seen there.
    pub stat: Stat,
}

/// What a [`HashTask`] read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashResult {
    /// A file's content, and its stat after reading: the same as before.
    File(Manifest, Stat),
    /// A link's target, and its stat.
    Link(Arc<[u8]>, Stat),
    /// It is no longer what was seen.
    Changed,
    /// It cannot be read.
    Unreadable(Obstacle),
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    names: Option<BTreeSet<Name>>,
    deep: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Missing {
    /// Where it was asked for a second time.
    asked_again: bool,
    /// Whether it was still not there.
    pub confirmed: bool,
    /// Where it stood, if something else stands there now.
    pub home: Option<Spot>,
}

/// What is known of the disk beyond the items.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    wanted: BTreeMap<NodeId, Wanted>,
    order: VecDeque<NodeId>,
    in_flight: usize,
    pub found: BTreeMap<Spot, Stat>,
    found_inodes: BTreeMap<(u64, u64), Spot>,
    unmatched: BTreeSet<Spot>,
    asked: BTreeSet<Spot>,
    hash_queue: VecDeque<Spot>,
    hashing: usize,
    pub missing: BTreeMap<ItemKey, Missing>,
    last_missing_ms: u64,
    /// How often in a row was asked for what is missing.
    missing_rounds: u32,
    /// Nodes to plan again once something missing has turned up or is deleted.
    pub after_missing: BTreeSet<NodeId>,
    /// Issues that looks met, with the full look in which they did.
    issues: BTreeMap<RelPath, u64>,
    /// How many full looks were begun, and the last one that is known to be over.
    sweep: u64,
    swept: u64,
    /// Nodes to plan again once the disk has been looked at.
    pub after_looks: BTreeSet<NodeId>,
}

impl Observations {
    /// How much is being looked at or read.
    pub fn open(&self) -> usize {
        self.order.len() + self.in_flight + self.found.len()
    }

    fn looks_idle(&self) -> bool {
        self.order.is_empty() && self.in_flight == 0
    }

    /// When the missing are due for the next step.
    pub fn missing_deadline(&self, grace_ms: u64) -> Option<u64> {
        let waiting = self.missing.values().any(|m| !m.confirmed);
        (waiting && self.looks_idle()).then_some(self.missing_due_ms(grace_ms))
    }

    fn missing_due_ms(&self, grace_ms: u64) -> u64 {
        self.last_missing_ms.saturating_add(grace_ms << self.missing_rounds.min(9))
    }

    /// Something more is missing since now.
    fn note_missing(&mut self, now_ms: u64) {
        self.last_missing_ms = now_ms;
        self.missing_rounds = 0;
    }

    /// Asks for a look, joined with what is already asked of the same directory.
    pub fn want(&mut self, directory: NodeId, name: Option<Name>, deep: bool) {
        match self.wanted.get_mut(&directory) {
            Some(wanted) => {
                wanted.deep |= deep;
                match (name, &mut wanted.names) {
                    (Some(name), Some(names)) => {
                        names.insert(name);
                    }
                    (None, names) => *names = None,
                    (Some(_), None) => {}
                }
            }
            None => {
                self.wanted.insert(directory, Wanted { names: name.map(|n| BTreeSet::from([n])), deep });
                self.order.push_back(directory);
            }
        }
    }

    fn set_found(&mut self, spot: Spot, stat: Stat) {
        self.forget_found(&spot);
        self.found_inodes.insert((stat.dev, stat.ino), spot.clone());
        self.unmatched.insert(spot.clone());
        self.found.insert(spot, stat);
    }

    pub fn forget_found(&mut self, spot: &Spot) {
        if let Some(stat) = self.found.remove(spot)
            && self.found_inodes.get(&(stat.dev, stat.ino)) == Some(spot)
        {
            self.found_inodes.remove(&(stat.dev, stat.ino));
        }
        self.unmatched.remove(spot);
    }

    /// What was seen in a directory is forgotten, and so is that it was to be looked at.
    pub fn forget_directory(&mut self, directory: NodeId) {
        let spots: Vec<Spot> = self.found.keys().filter(|spot| spot.0 == directory).cloned().collect();
        for spot in spots {
            self.forget_found(&spot);
        }
        self.wanted.remove(&directory);
    }

    /// It is not missing any more: found, deleted or forgotten.
    pub fn not_missing(&mut self, key: ItemKey) {
        if self.missing.remove(&key).is_some() {
            self.after_looks.append(&mut self.after_missing);
        }
    }

    fn found_elsewhere(&self, stat: &Stat, here: &Spot) -> bool {
        let spot = self.found_inodes.get(&(stat.dev, stat.ino)).filter(|s| *s != here);
        spot.and_then(|s| self.found.get(s)).is_some_and(|found| found.same_inode(stat))
    }
}

impl<T: Trees> Engine<T> {
    /// Looks at everything again.
    pub fn rescan(&mut self) {
        self.observed.sweep += 1;
        self.observed.want(NodeId::ROOT, None, true);
        self.observed.want(PARKED, None, true);
    }

    /// Takes the watcher's hints: something happened at these paths.
    pub fn handle_hints(&mut self, paths: &[RelPath]) -> Result<()> {
        for path in paths {
            let mut directory = NodeId::ROOT;
            let mut known = true;
            for name in path.names() {
                match self.trees.item_at(directory, name)? {
                    Some(key) if self.is_directory(key)? => directory = key.node,
                    _ => {
                        self.observed.want(directory, Some(name.clone()), true);
                        known = false;
                        break;
                    }
                }
            }
            if known {
                // A known directory: its entries may have changed before it was watched, and so may the directory itself.
                self.observed.want(directory, None, false);
                if let (Some(item), Some(name)) = (self.trees.item(ItemKey::primary(directory))?, path.names().last()) {
                    self.observed.want(item.parent, Some(name.clone()), false);
                }
            }
        }
        Ok(())
    }

    /// Takes the watcher's word that these directories are new here, or came from elsewhere: all that is in them is looked at.
    pub fn walk(&mut self, paths: &[RelPath]) -> Result<()> {
        self.handle_hints(paths)?;
        for path in paths {
            let mut directory = NodeId::ROOT;
            for name in path.names() {
                match self.trees.item_at(directory, name)? {
                    Some(key) if self.is_directory(key)? => directory = key.node,
                    _ => break,
                }
            }
            self.observed.want(directory, None, true);
        }
        Ok(())
    }

    fn is_directory(&self, key: ItemKey) -> Result<bool> {
        Ok(self.trees.item(key)?.is_some_and(|i| i.content == ItemContent::Dir))
    }

    /// Directories to look at now, at most so many. Answer each with [`Engine::handle_look`].
    pub fn next_looks(&mut self, max: usize) -> Result<Vec<Look>> {
        self.settle_missing()?;
        let mut out = Vec::new();
        while out.len() < max {
            let Some(directory) = self.observed.order.pop_front() else { break };
            let Some(wanted) = self.observed.wanted.remove(&directory) else { continue };
            if let Some(path) = self.directory_path(directory)? {
                self.observed.in_flight += 1;
                out.push(Look { directory, path, names: wanted.names, deep: wanted.deep });
            }
        }
        if out.is_empty() && self.observed.looks_idle() {
            self.forget_old_issues();
            self.match_found()?;
            self.dirty.append(&mut self.observed.after_looks);
        }
        Ok(out)
    }

    fn set_look_issue(&mut self, path: RelPath, obstacle: Obstacle) {
        self.observed.issues.insert(path.clone(), self.observed.sweep);
        self.set_issue(path, obstacle);
    }

    /// What was the matter somewhere before everything was looked at again, and was not met again, is no longer so.
    fn forget_old_issues(&mut self) {
        let (now, swept) = (self.observed.sweep, self.observed.swept);
        if now == swept || !self.observed.found.is_empty() {
            return;
        }
        self.observed.swept = now;
        for (path, _) in self.observed.issues.extract_if(.., |_, seen| *seen < now) {
            self.issues.remove(&path);
        }
    }

    /// Takes what a look saw.
    pub fn handle_look(&mut self, look: &Look, result: LookResult) -> Result<()> {
        self.observed.in_flight = self.observed.in_flight.saturating_sub(1);
        match result {
            LookResult::Gone => self.look_at_itself(look.directory)?,
            LookResult::Unreadable(obstacle) => {
                self.set_look_issue(look.path.clone(), obstacle);
                if self.planted(Planted::UnreadableIsMissing) {
                    self.handle_entries(look, Vec::new())?;
                }
            }
            LookResult::Listed(stat, entries) => {
                let item = self.trees.item(ItemKey::primary(look.directory))?;
                let same = [NodeId::ROOT, PARKED].contains(&look.directory) || item.is_some_and(|i| i.stat.same_inode(&stat));
                if same {
                    self.issues.remove(&look.path);
                    self.handle_entries(look, entries)?;
                } else {
                    self.look_at_itself(look.directory)?;
                }
            }
        }
        self.match_found()
    }

    /// The directory is not what it was: its own place is to be looked at.
    fn look_at_itself(&mut self, directory: NodeId) -> Result<()> {
        if let Some(item) = self.trees.item(ItemKey::primary(directory))? {
            self.observed.want(item.parent, Some(item.name), true);
        }
        Ok(())
    }

    fn handle_entries(&mut self, look: &Look, entries: Vec<Listed>) -> Result<()> {
        let mut present: BTreeSet<Name> = BTreeSet::new();
        for entry in entries {
            let spot = (look.directory, entry.name.clone());
            let path = look.path.join(&entry.name);
            present.insert(entry.name);
            match entry.stat {
                Err(obstacle) => self.set_look_issue(path, obstacle),
                Ok(stat) if self.is_ignored(spot.0, &spot.1, &path, stat.kind == Kind::Dir)? => self.handle_ignored(&spot)?,
                Ok(stat) => self.handle_entry(spot, path, stat, look.deep)?,
            }
        }
        match &look.names {
            Some(names) => {
                for name in names.difference(&present) {
                    self.handle_absent(look, name)?;
                }
            }
            None => {
                let mut after: Option<Name> = None;
                loop {
                    let page = self.trees.items_in(look.directory, after.as_ref(), 1024)?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(last.clone());
                    for (name, _) in page {
                        if !present.contains(&name) {
                            self.handle_absent(look, &name)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_entry(&mut self, spot: Spot, path: RelPath, stat: Stat, deep: bool) -> Result<()> {
        let key = self.trees.item_at(spot.0, &spot.1)?;
        if stat.kind == Kind::Other {
            self.set_look_issue(path, Obstacle::Unsupported);
            if let Some(key) = key {
                self.mark_missing(key);
            }
            return Ok(());
        }
        if let Some((key, item)) = self.item_of(key)?
            && item.stat.same_inode(&stat)
        {
            self.observed.not_missing(key);
            let unchanged = item.stat.same_version(&stat) && item.stat.mode == stat.mode;
            if stat.kind == Kind::Dir {
                if deep {
                    self.observed.want(key.node, None, true);
                }
                if !unchanged {
                    self.absorb_attributes(key, &item, stat)?;
                }
            }
            if unchanged || stat.kind == Kind::Dir {
                self.observed.forget_found(&spot);
                if !self.blocked.contains_key(&key.node) {
                    self.issues.remove(&path);
                }
                return Ok(());
            }
        }
        self.observed.set_found(spot, stat);
        Ok(())
    }

    fn item_of(&self, key: Option<ItemKey>) -> Result<Option<(ItemKey, Item)>> {
        match key {
            Some(key) => Ok(self.trees.item(key)?.map(|item| (key, item))),
            None => Ok(None),
        }
    }

    fn handle_absent(&mut self, look: &Look, name: &Name) -> Result<()> {
        let spot = (look.directory, name.clone());
        self.observed.forget_found(&spot);
        self.issues.remove(&look.path.join(name));
        if let Some((key, item)) = self.item_of(self.trees.item_at(spot.0, &spot.1)?)? {
            let path = look.path.join(name);
            if self.is_ignored(spot.0, &spot.1, &path, item.content == ItemContent::Dir)? {
                self.forget_items(key)?;
            } else {
                self.mark_missing(key);
            }
        }
        Ok(())
    }

    /// What is ignored here is none of our business any more: not a change, not a delete (B44, B45).
    fn handle_ignored(&mut self, spot: &Spot) -> Result<()> {
        self.observed.forget_found(spot);
        if let Some(key) = self.trees.item_at(spot.0, &spot.1)? {
            self.forget_items(key)?;
        }
        Ok(())
    }

    fn mark_missing(&mut self, key: ItemKey) {
        let (now, at_once) = (self.now_ms, self.planted(Planted::NoSecondLook));
        let mut news = false;
        let missing = self.observed.missing.entry(key).or_insert_with(|| {
            news = true;
            Missing { asked_again: false, confirmed: at_once, home: None }
        });
        missing.confirmed |= missing.asked_again;
        if news {
            self.observed.note_missing(now);
        }
    }

    /// Matches what was found with what is known: moves, edits, new things.
    pub(crate) fn match_found(&mut self) -> Result<()> {
        let idle = self.observed.looks_idle();
        for spot in std::mem::take(&mut self.observed.unmatched) {
            let Some(stat) = self.observed.found.get(&spot).copied() else { continue };
            if self.directory_path(spot.0)?.is_none() {
                self.observed.forget_found(&spot);
                continue;
            }
            if self.plans.batch_spots.contains(&spot) || !self.match_one(&spot, stat, idle)? {
                self.observed.unmatched.insert(spot);
            }
        }
        if self.observed.looks_idle() && self.observed.unmatched.is_empty() {
            self.observed.asked.clear();
        }
        Ok(())
    }

    /// Whether the thing at this spot could be matched already.
    fn match_one(&mut self, spot: &Spot, stat: Stat, idle: bool) -> Result<bool> {
        if let Some((key, item)) = self.item_of(self.trees.item_at(spot.0, &spot.1)?)? {
            if item.stat.same_inode(&stat) {
                self.observed.hash_queue.push_back(spot.clone());
                return Ok(true);
            }
            // Another inode under a known name: whether the old one moved shows only when everything has been looked at.
            if !idle {
                return Ok(false);
            }
            let same_kind = item.stat.kind == stat.kind;
            if same_kind && !self.observed.found_elsewhere(&item.stat, spot) {
                self.observed.not_missing(key);
                if stat.kind == Kind::Dir {
                    self.absorb_attributes(key, &item, stat)?;
                    self.observed.forget_found(spot);
                    self.observed.want(key.node, None, true);
                } else {
                    self.observed.hash_queue.push_back(spot.clone());
                }
                return Ok(true);
            }
            self.displace(key, item)?;
        }
        match self.moved_from(spot, &stat)? {
            Moved::AskFirst => return Ok(false),
            Moved::From(key, item) => {
                self.observed.not_missing(key);
                self.absorb_move(key, *item, spot, stat)?;
                if stat.kind == Kind::Dir {
                    self.observed.forget_found(spot);
                    if let Some((key, item)) = self.item_of(self.trees.item_at(spot.0, &spot.1)?)? {
                        self.absorb_attributes(key, &item, stat)?;
                        self.observed.want(key.node, None, true);
                    }
                    return Ok(true);
                }
            }
            Moved::No => {
                if stat.kind == Kind::Dir {
                    self.absorb_new(spot, stat, ItemContent::Dir)?;
                    self.observed.forget_found(spot);
                    if let Some(key) = self.trees.item_at(spot.0, &spot.1)? {
                        self.observed.want(key.node, None, true);
                    }
                    return Ok(true);
                }
            }
        }
        self.observed.hash_queue.push_back(spot.clone());
        Ok(true)
    }

    /// Writes an item. What was thought to stand at its place does not: one place, one item.
    pub(crate) fn settle_item(&mut self, key: ItemKey, item: &Item) -> Result<()> {
        if let Some((other, old)) = self.item_of(self.trees.item_at(item.parent, &item.name)?)?
            && other != key
        {
            self.displace(other, old)?;
        }
        self.trees.put_item(key, Some(item))
    }

    /// Takes an item out of its place although it is not known where it went: it is missing until it is found.
    fn displace(&mut self, key: ItemKey, item: Item) -> Result<()> {
        let Some(name) = crate::engine::parked_name(key) else { return Ok(()) };
        let home = Some((item.parent, item.name.clone()));
        self.trees.put_item(key, Some(&Item { parent: LIMBO, name, ..item }))?;
        self.observed.note_missing(self.now_ms);
        self.observed.missing.insert(key, Missing { asked_again: true, confirmed: false, home });
        Ok(())
    }

    /// What was displaced when the trees were last open is missing until it is found.
    pub(crate) fn recall_displaced(&mut self) -> Result<()> {
        let mut after: Option<Name> = None;
        loop {
            let page = self.trees.items_in(LIMBO, after.as_ref(), 1024)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, key) in page {
                self.observed.note_missing(self.now_ms);
                self.observed.missing.entry(key).or_insert(Missing { asked_again: true, confirmed: false, home: None });
            }
        }
    }

    /// Whether what was found is an item that stood elsewhere before.
    fn moved_from(&mut self, spot: &Spot, stat: &Stat) -> Result<Moved> {
        for key in self.trees.items_of_inode(stat.dev, stat.ino)? {
            let Some(item) = self.trees.item(key)? else { continue };
            let home: Spot = (item.parent, item.name.clone());
            if home == *spot || !item.stat.same_inode(stat) {
                continue;
            }
            let left = item.parent == LIMBO
                || self.observed.missing.contains_key(&key)
                || self.observed.found.get(&home).is_some_and(|found| !found.same_inode(stat))
                // A directory has one place.
                || stat.kind == Kind::Dir;
            if left {
                return Ok(Moved::From(key, Box::new(item)));
            }
            if self.observed.asked.insert(home.clone()) {
                self.observed.want(home.0, Some(home.1), false);
                return Ok(Moved::AskFirst);
            }
            if !self.observed.looks_idle() {
                return Ok(Moved::AskFirst);
            }
            // It is still at home: a hard link. Another name, another file.
        }
        Ok(Moved::No)
    }

    /// Files and links to read now, at most so many. Answer each with [`Engine::handle_hash`].
    pub fn next_hashes(&mut self, max: usize) -> Result<Vec<HashTask>> {
        let mut out = Vec::new();
        while out.len() < max {
            let Some(spot) = self.observed.hash_queue.pop_front() else { break };
            let Some(stat) = self.observed.found.get(&spot).copied() else { continue };
            match self.path_at(spot.0, &spot.1)? {
                Some(path) => {
                    self.observed.hashing += 1;
                    out.push(HashTask { directory: spot.0, name: spot.1, path, stat });
                }
                None => self.observed.forget_found(&spot),
            }
        }
        Ok(out)
    }

    /// Takes what was read.
    pub fn handle_hash(&mut self, task: &HashTask, result: HashResult) -> Result<()> {
        self.observed.hashing = self.observed.hashing.saturating_sub(1);
        let spot = (task.directory, task.name.clone());
        if self.observed.found.get(&spot) != Some(&task.stat) {
            return Ok(());
        }
        if self.directory_path(task.directory)?.is_none() {
            // The directory went or stands for another node now; it is looked at anew under that one.
            self.observed.forget_found(&spot);
            return Ok(());
        }
        match result {
            HashResult::File(manifest, stat) => {
                self.observed.forget_found(&spot);
                self.absorb_content(&spot, stat, ItemContent::File(manifest))
            }
            HashResult::Link(target, stat) => {
                self.observed.forget_found(&spot);
                self.absorb_content(&spot, stat, ItemContent::Symlink(target))
            }
            HashResult::Changed => {
                self.observed.forget_found(&spot);
                self.observed.want(spot.0, Some(spot.1), true);
                Ok(())
            }
            HashResult::Unreadable(obstacle) => {
                self.observed.forget_found(&spot);
                self.set_look_issue(task.path.clone(), obstacle);
                Ok(())
            }
        }
    }

    /// What stands there was changed within the clock's granule when it was read: a later change may carry the same times, so it is read once
    /// more (B26).
    pub fn distrust(&mut self, directory: NodeId, name: &Name) -> Result<()> {
        if let Some((key, item)) = self.item_of(self.trees.item_at(directory, name)?)? {
            self.trees.put_item(key, Some(&Item { stat: Stat { ctime_ns: 0, ..item.stat }, ..item }))?;
            self.observed.want(directory, Some(name.clone()), false);
        }
        Ok(())
    }

    /// Whether something at this place is being looked at or read: no plan is made for it until that is known.
    pub(crate) fn is_unsettled(&self, parent: NodeId, name: &Name) -> bool {
        self.observed.found.contains_key(&(parent, name.clone()))
    }

    /// Brings the missing a step on: a second look, then the brake, then a delete.
    fn settle_missing(&mut self) -> Result<()> {
        if self.observed.missing.is_empty() {
            self.brake.release();
            return Ok(());
        }
        if !self.observed.looks_idle() || !self.observed.found.is_empty() {
            return Ok(());
        }
        let due = self.observed.missing_due_ms(self.policy.missing_grace_ms);
        if self.now_ms >= due || self.planted(Planted::NoSecondLook) {
            self.ask_again()?;
        }
        if self.observed.looks_idle() {
            self.absorb_deletes()?;
        }
        Ok(())
    }

    /// Asks once more for what is missing, where that can be asked. What stays unanswered is asked at growing intervals.
    fn ask_again(&mut self) -> Result<()> {
        let keys: Vec<ItemKey> = self.observed.missing.iter().filter(|(_, m)| !m.confirmed).map(|(k, _)| *k).collect();
        for key in keys {
            let Some(item) = self.trees.item(key)? else {
                self.observed.not_missing(key);
                continue;
            };
            // What left its place, or whose directory did, cannot be asked for there.
            let nowhere = item.parent == LIMBO || self.directory_path(item.parent)?.is_none();
            // Below something missing there is nothing to ask: it is settled with that.
            if !nowhere && item.parent != NodeId::ROOT && self.is_missing(ItemKey::primary(item.parent), item.parent)? {
                continue;
            }
            self.observed.last_missing_ms = self.now_ms;
            if let Some(missing) = self.observed.missing.get_mut(&key) {
                missing.asked_again = true;
                missing.confirmed |= nowhere;
            }
            if !nowhere {
                self.observed.want(item.parent, Some(item.name), false);
            }
        }
        self.observed.missing_rounds += 1;
        Ok(())
    }
}

/// The pretended parent of items that left their place for one not known yet.
pub(crate) const LIMBO: NodeId = NodeId::from_bytes([0xFE; 16]);

enum Moved {
    From(ItemKey, Box<Item>),
    AskFirst,
    No,
}
