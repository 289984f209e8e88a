//! Looks and batches overlap: a look may see a place before a batch changes it and be answered after, or the other way round.
//!
//! What was seen at a place that a batch touched, while both were under way, says nothing about the place: it is looked at again once the
//! batch is answered. What a look wanted to know of a directory's inside stays wanted under the directory's own id, wherever the batch put it.

use crate::engine::Engine;
use crate::observe::{Look, Spot};
use crate::trees::{ItemContent, ItemKey, Result, Trees};
use ferry_protocol::{Name, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Which looks are under way, and where batches changed something meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Overlap {
    /// Serial numbers of the looks under way, with the last batch that had been answered when they were given out.
    looks: BTreeMap<u64, u64>,
    next_look: u64,
    /// The last batch that was answered.
    answered: u64,
    /// Places that the batch under way touches, each with the node that is concerned.
    running: BTreeMap<Spot, NodeId>,
    /// Places that answered batches touched while a look was under way: the batch and the node.
    touched: BTreeMap<Spot, (u64, NodeId)>,
    /// Places to be looked at again when the batch under way is answered.
    again: BTreeSet<Spot>,
}

impl Overlap {
    /// How many looks are under way, and how many wait for the batch.
    pub fn open(&self) -> usize {
        self.looks.len() + self.again.len()
    }

    /// A look is given out: its serial number.
    pub fn begin_look(&mut self) -> u64 {
        self.next_look += 1;
        self.looks.insert(self.next_look, self.answered);
        self.next_look
    }

    /// The serial number of the last look that was given out.
    pub fn last_look(&self) -> u64 {
        self.next_look
    }

    /// A look is answered: the last batch that had been answered when it was given out; nothing for a look that nobody waits for.
    fn end_look(&mut self, serial: u64) -> Option<u64> {
        let since = self.looks.remove(&serial);
        if self.looks.is_empty() {
            self.touched.clear();
        }
        since
    }

    /// A batch is given out.
    pub fn begin_batch(&mut self, spots: BTreeMap<Spot, NodeId>) {
        self.running = spots;
    }

    /// The batch is answered: the places to look at again.
    pub fn end_batch(&mut self, id: u64) -> BTreeSet<Spot> {
        self.answered = id;
        let running = std::mem::take(&mut self.running);
        if !self.looks.is_empty() {
            self.touched.extend(running.into_iter().map(|(spot, node)| (spot, (id, node))));
        }
        std::mem::take(&mut self.again)
    }

    /// Whether something at this place is known only when the batch under way is answered.
    pub fn waits(&self, spot: &Spot) -> bool {
        self.again.contains(spot)
    }

    /// All looks are forgotten: their answers will be dropped. The batch under way stays, for its answer is still to come.
    pub fn forget_looks(&mut self) {
        self.looks.clear();
        self.touched.clear();
        self.again.clear();
    }
}

/// What a look saw that does not count, because a batch touched the place meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Doubtful {
    names: BTreeSet<Name>,
    /// Whether what it saw of the directory itself does not count.
    pub own: bool,
}

impl Doubtful {
    pub fn contains(&self, name: &Name) -> bool {
        self.names.contains(name)
    }
}

impl<T: Trees> Engine<T> {
    /// A look is answered: what of it does not count. Nothing if nobody waits for it.
    pub(crate) fn end_look(&mut self, look: &Look) -> Result<Option<Doubtful>> {
        let own = self.trees.item(ItemKey::primary(look.directory))?.map(|item| (item.parent, item.name));
        let overlap = &mut self.observed.overlap;
        let seen = |spot: &Spot| {
            let inside = spot.0 == look.directory && look.names.as_ref().is_none_or(|names| names.contains(&spot.1));
            inside || own.as_ref() == Some(spot)
        };
        let since = overlap.looks.get(&look.serial).copied();
        let running: Vec<(Spot, NodeId)> = overlap.running.iter().filter(|(s, _)| seen(s)).map(|(s, n)| (s.clone(), *n)).collect();
        let older = overlap.touched.iter().filter(|(spot, (id, _))| since.is_some_and(|since| *id > since) && seen(spot));
        let older: Vec<(Spot, NodeId)> = older.map(|(s, (_, n))| (s.clone(), *n)).collect();
        if overlap.end_look(look.serial).is_none() {
            return Ok(None);
        }
        let mut doubtful = Doubtful::default();
        for (spot, node) in running.iter().chain(&older) {
            if spot.0 == look.directory {
                doubtful.names.insert(spot.1.clone());
                if look.deep {
                    self.look_into(*node)?;
                }
            }
            doubtful.own |= own.as_ref() == Some(spot);
        }
        self.observed.overlap.again.extend(running.into_iter().map(|(spot, _)| spot));
        for (spot, _) in older {
            if !self.observed.overlap.waits(&spot) {
                self.observed.want(spot.0, Some(spot.1), true);
            }
        }
        Ok(Some(doubtful))
    }

    /// What is in this directory is to be looked at, if it is one.
    fn look_into(&mut self, node: NodeId) -> Result<()> {
        if self.trees.item(ItemKey::primary(node))?.is_some_and(|item| item.content == ItemContent::Dir) {
            self.observed.want(node, None, true);
        }
        Ok(())
    }
}
