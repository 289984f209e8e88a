//! What was found on disk is matched with what is known: moves, edits, new things. Then its content is read.

use crate::disk::{Kind, Stat};
use crate::engine::Engine;
use crate::missing::LIMBO;
use crate::observe::{HashResult, HashTask, Spot};
use crate::trees::{Item, ItemContent, ItemKey, Result, Trees};
use ferry_protocol::{Name, NodeId};

enum Moved {
    From(ItemKey, Box<Item>),
    AskFirst,
    /// What was seen here was older than what is known.
    OldNews,
    No,
}

impl<T: Trees> Engine<T> {
    /// Matches what was found with what is known: moves, edits, new things.
    pub(crate) fn match_found(&mut self) -> Result<()> {
        let idle = self.observed.looks_idle();
        for spot in std::mem::take(&mut self.observed.unmatched) {
            let Some(stat) = self.observed.found.get(&spot).copied() else { continue };
            if self.directory_path(spot.0)?.is_none() {
                self.observed.forget_found(&spot);
                continue;
            }
            if !self.match_one(&spot, stat, idle)? {
                self.observed.unmatched.insert(spot);
            }
        }
        if self.observed.looks_idle() && self.observed.unmatched.is_empty() {
            self.observed.asked.clear();
            self.observed.at_home.clear();
        }
        Ok(())
    }

    /// Whether the thing at this spot could be matched already.
    fn match_one(&mut self, spot: &Spot, stat: Stat, idle: bool) -> Result<bool> {
        if let Some((key, item)) = self.item_of(self.trees.item_at(spot.0, &spot.1)?)? {
            if item.stat.same_inode(&stat) {
                if stat.kind == Kind::Dir {
                    self.absorb_attributes(key, &item, stat)?;
                    self.observed.forget_found(spot);
                    self.observed.want(key.node, None, true);
                } else {
                    self.observed.hash_queue.push_back(spot.clone());
                }
                return Ok(true);
            }
            // Another inode under a known name: whether the old one moved shows only when everything has been looked at.
            if !idle {
                return Ok(false);
            }
            let same_kind = item.stat.kind == stat.kind;
            if same_kind && !self.observed.found_elsewhere(&item.stat, spot) && !self.came_from_elsewhere(spot, &stat)? {
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
            Moved::OldNews => {
                self.observed.forget_found(spot);
                self.observed.want(spot.0, Some(spot.1.clone()), true);
                return Ok(true);
            }
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

    /// Whether a directory that is known from another place stands here: moved where another one was removed, by a user or by our own hands just
    /// before a crash. Taken for the one that was known here, it would leave its own files behind as deleted.
    fn came_from_elsewhere(&self, spot: &Spot, stat: &Stat) -> Result<bool> {
        if stat.kind != Kind::Dir {
            return Ok(false);
        }
        for key in self.trees.items_of_inode(stat.dev, stat.ino)? {
            if self.trees.item(key)?.is_some_and(|item| (item.parent, &item.name) != (spot.0, &spot.1) && item.stat.same_inode(stat)) {
                return Ok(true);
            }
        }
        Ok(false)
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
                || self.observed.found.get(&home).is_some_and(|found| !found.same_inode(stat));
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
            if stat.kind == Kind::Dir {
                // A directory has one place. What was just seen at home left here before. Asked once: two places may show one directory (a bind
                // mount), and then the last one counts.
                let old = self.observed.at_home.contains(&home) && self.observed.asked.insert(spot.clone());
                return Ok(if old { Moved::OldNews } else { Moved::From(key, Box::new(item)) });
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
                    self.observed.hashing.insert(spot.clone(), self.observed.sweep);
                    out.push(HashTask { directory: spot.0, name: spot.1, path, stat });
                }
                None => self.observed.forget_found(&spot),
            }
        }
        Ok(out)
    }

    /// Takes what was read.
    pub fn handle_hash(&mut self, task: &HashTask, result: HashResult) -> Result<()> {
        let spot = (task.directory, task.name.clone());
        let sweep = self.observed.hashing.remove(&spot).unwrap_or(self.observed.sweep);
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
                self.set_look_issue(task.path.clone(), obstacle, sweep);
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
}
