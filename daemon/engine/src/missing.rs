//! What is missing on disk: asked for a second time, held by the brake, and only then a delete (K18, I3).

use crate::engine::Engine;
use crate::observe::Spot;
use crate::policy::Planted;
use crate::trees::{Item, ItemKey, Result, Trees};
use ferry_protocol::{Name, NodeId};

/// The pretended parent of items that left their place for one not known yet.
pub(crate) const LIMBO: NodeId = NodeId::from_bytes([0xFE; 16]);

/// Something that was not found where its item stands.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    /// Where it was asked for a second time.
    asked_again: bool,
    /// Whether it was still not there.
    pub confirmed: bool,
    /// Where it stood, if something else stands there now.
    pub home: Option<Spot>,
}

impl<T: Trees> Engine<T> {
    pub(crate) fn mark_missing(&mut self, key: ItemKey) {
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

    /// Takes an item out of its place although it is not known where it went: it is missing until it is found.
    pub(crate) fn displace(&mut self, key: ItemKey, item: Item) -> Result<()> {
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

    /// Brings the missing a step on: a second look, then the brake, then a delete.
    pub(crate) fn settle_missing(&mut self) -> Result<()> {
        if self.observed.missing.is_empty() {
            self.brake.release();
            return Ok(());
        }
        if !self.observed.looks_idle() || !self.observed.unmatched.is_empty() {
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
    pub(crate) fn ask_again(&mut self) -> Result<()> {
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
