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
use crate::missing::Missing;
use crate::overlap::{Doubtful, Overlap};
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
    /// Which look this is: an answer to one that nobody waits for any more is dropped.
    pub serial: u64,
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

/// What is known of the disk beyond the items.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    wanted: BTreeMap<NodeId, Wanted>,
    order: VecDeque<NodeId>,
    pub overlap: Overlap,
    pub found: BTreeMap<Spot, Stat>,
    pub found_inodes: BTreeMap<(u64, u64), Spot>,
    pub unmatched: BTreeSet<Spot>,
    /// Places that were asked what they hold, because what stood there was found elsewhere; and those that still hold it.
    pub asked: BTreeSet<Spot>,
    pub at_home: BTreeSet<Spot>,
    pub hash_queue: VecDeque<Spot>,
    /// What is being read, each with the full look in which that began.
    pub hashing: BTreeMap<Spot, u64>,
    pub missing: BTreeMap<ItemKey, Missing>,
    pub last_missing_ms: u64,
    /// How often in a row was asked for what is missing.
    pub missing_rounds: u32,
    /// Nodes to plan again once something missing has turned up or is deleted.
    pub after_missing: BTreeSet<NodeId>,
    /// Issues that looks met, with the full look in which they did.
    issues: BTreeMap<RelPath, u64>,
    /// How many full looks were begun, and the last one that is known to be over.
    pub sweep: u64,
    swept: u64,
    /// The last look that was given out before the newest full look began: what it and those before it meet is older news.
    looks_before: u64,
    /// Nodes to plan again once the disk has been looked at.
    pub after_looks: BTreeSet<NodeId>,
}

impl Observations {
    /// In which full look an issue counts as met that this look meets.
    fn sweep_of(&self, look: &Look) -> u64 {
        self.sweep.saturating_sub(u64::from(look.serial <= self.looks_before))
    }

    /// Nothing is known any more; the looks under way are forgotten, the batch under way is not.
    pub fn again(&mut self) -> Self {
        let mut overlap = std::mem::take(&mut self.overlap);
        overlap.forget_looks();
        Self { overlap, ..Self::default() }
    }

    /// How much is being looked at or read.
    pub fn open(&self) -> usize {
        self.order.len() + self.overlap.open() + self.found.len()
    }

    pub fn looks_idle(&self) -> bool {
        self.order.is_empty() && self.overlap.open() == 0
    }

    /// When the missing are due for the next step.
    pub fn missing_deadline(&self, grace_ms: u64) -> Option<u64> {
        let waiting = self.missing.values().any(|m| !m.confirmed);
        (waiting && self.looks_idle()).then_some(self.missing_due_ms(grace_ms))
    }

    pub fn missing_due_ms(&self, grace_ms: u64) -> u64 {
        self.last_missing_ms.saturating_add(grace_ms << self.missing_rounds.min(9))
    }

    /// Something more is missing since now.
    pub fn note_missing(&mut self, now_ms: u64) {
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

    /// Whether all that is in a directory of this name is to be looked at.
    pub fn wants_inside(&self, spot: &Spot) -> bool {
        self.wanted.get(&spot.0).is_some_and(|w| w.deep && w.names.as_ref().is_none_or(|names| names.contains(&spot.1)))
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

    /// The names under which something was found in a directory.
    fn found_in(&self, directory: NodeId) -> Vec<Name> {
        // No name is smaller: one byte, and none holds a zero.
        let Ok(least) = Name::new([1]) else { return Vec::new() };
        let here = self.found.range((directory, least)..).take_while(|(spot, _)| spot.0 == directory);
        here.map(|(spot, _)| spot.1.clone()).collect()
    }

    /// What was seen in a directory is forgotten, and so is that it was to be looked at.
    pub fn forget_directory(&mut self, directory: NodeId) {
        for name in self.found_in(directory) {
            self.forget_found(&(directory, name));
        }
        self.wanted.remove(&directory);
    }

    /// It is not missing any more: found, deleted or forgotten.
    pub fn not_missing(&mut self, key: ItemKey) {
        if self.missing.remove(&key).is_some() {
            self.after_looks.append(&mut self.after_missing);
        }
    }

    pub fn found_elsewhere(&self, stat: &Stat, here: &Spot) -> bool {
        let spot = self.found_inodes.get(&(stat.dev, stat.ino)).filter(|s| *s != here);
        spot.and_then(|s| self.found.get(s)).is_some_and(|found| found.same_inode(stat))
    }
}

impl<T: Trees> Engine<T> {
    /// Looks at everything again.
    pub fn rescan(&mut self) {
        self.observed.sweep += 1;
        self.observed.looks_before = self.observed.overlap.last_look();
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
    ///
    /// None while a sync is owed of what the engine was opened on.
    pub fn next_looks(&mut self, max: usize) -> Result<Vec<Look>> {
        if self.may_not_look() {
            return Ok(Vec::new());
        }
        self.settle_missing()?;
        let mut out = Vec::new();
        while out.len() < max {
            let Some(directory) = self.observed.order.pop_front() else { break };
            let Some(wanted) = self.observed.wanted.remove(&directory) else { continue };
            if let Some(path) = self.directory_path(directory)? {
                let serial = self.observed.overlap.begin_look();
                out.push(Look { directory, path, names: wanted.names, deep: wanted.deep, serial });
            }
        }
        if out.is_empty() && self.observed.looks_idle() {
            self.forget_old_issues();
            self.match_found()?;
            self.dirty.append(&mut self.observed.after_looks);
        }
        Ok(out)
    }

    /// Something was met that a person should know, by what began in this full look.
    pub(crate) fn set_look_issue(&mut self, path: RelPath, obstacle: Obstacle, sweep: u64) {
        let met = self.observed.issues.entry(path.clone()).or_insert(sweep);
        *met = sweep.max(*met);
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
        let Some(doubtful) = self.end_look(look)? else { return Ok(()) };
        match result {
            LookResult::Gone => self.look_at_itself(look.directory)?,
            LookResult::Unreadable(obstacle) => {
                self.set_look_issue(look.path.clone(), obstacle, self.observed.sweep_of(look));
                if self.planted(Planted::UnreadableIsMissing) {
                    self.handle_entries(look, Vec::new(), &doubtful)?;
                }
            }
            LookResult::Listed(stat, entries) => {
                let item = self.trees.item(ItemKey::primary(look.directory))?;
                let same = [NodeId::ROOT, PARKED].contains(&look.directory) || item.as_ref().is_some_and(|i| i.stat.same_inode(&stat));
                if same {
                    self.issues.remove(&look.path);
                    if let Some(item) = item.filter(|i| !doubtful.own && i.stat.mode != stat.mode) {
                        self.absorb_attributes(ItemKey::primary(look.directory), &item, stat)?;
                    }
                    self.handle_entries(look, entries, &doubtful)?;
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

    fn handle_entries(&mut self, look: &Look, entries: Vec<Listed>, doubtful: &Doubtful) -> Result<()> {
        let mut present: BTreeSet<Name> = BTreeSet::new();
        for entry in entries {
            let spot = (look.directory, entry.name.clone());
            let path = look.path.join(&entry.name);
            let counts = !doubtful.contains(&entry.name);
            present.insert(entry.name);
            match entry.stat {
                _ if !counts => {}
                Err(obstacle) => self.set_look_issue(path, obstacle, self.observed.sweep_of(look)),
                Ok(stat) if self.is_ignored(spot.0, &spot.1, &path, stat.kind == Kind::Dir)? => self.handle_ignored(&spot)?,
                Ok(stat) => self.handle_entry(look, spot, path, stat)?,
            }
        }
        match &look.names {
            Some(names) => {
                for name in names.difference(&present).filter(|name| !doubtful.contains(name)) {
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
                        if !present.contains(&name) && !doubtful.contains(&name) {
                            self.handle_absent(look, &name)?;
                        }
                    }
                }
                // What an earlier look found and has left since stood for no item yet, or for one that is known elsewhere by now.
                for name in self.observed.found_in(look.directory) {
                    if !present.contains(&name) && !doubtful.contains(&name) {
                        self.handle_absent(look, &name)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_entry(&mut self, look: &Look, spot: Spot, path: RelPath, stat: Stat) -> Result<()> {
        let key = self.trees.item_at(spot.0, &spot.1)?;
        if stat.kind == Kind::Other {
            self.set_look_issue(path, Obstacle::Unsupported, self.observed.sweep_of(look));
            if let Some(key) = key {
                self.mark_missing(key);
            }
            return Ok(());
        }
        if let Some((key, item)) = self.item_of(key)?
            && item.stat.same_inode(&stat)
        {
            self.observed.not_missing(key);
            if self.observed.asked.contains(&spot) {
                self.observed.at_home.insert(spot.clone());
            }
            let unchanged = item.stat.same_version(&stat) && item.stat.mode == stat.mode;
            if stat.kind == Kind::Dir {
                if look.deep {
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

    pub(crate) fn item_of(&self, key: Option<ItemKey>) -> Result<Option<(ItemKey, Item)>> {
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

    /// Whether something at this place, or in place of a directory above it, is being looked at or read: no plan is made for it until that is
    /// known.
    pub(crate) fn is_unsettled(&self, parent: NodeId, name: &Name) -> Result<bool> {
        let mut spot = (parent, name.clone());
        for _ in 0..ferry_protocol::limits::PATH_DEPTH_MAX {
            if self.observed.found.is_empty() {
                return Ok(false);
            }
            if self.observed.found.contains_key(&spot) {
                return Ok(true);
            }
            match self.trees.item(ItemKey::primary(spot.0))? {
                Some(item) => spot = (item.parent, item.name),
                None => return Ok(false),
            }
        }
        Ok(false)
    }
}
