//! Two edits of one text that become one: when that is asked for, and what becomes of it.
//!
//! What may be merged and how is the protocol's ([`ferry_protocol::merge`]). Here it is an edit of this device: the hands join the bytes and stage the
//! result, it is put in place like anything else, and only then is it a value that replaces both sides (E7). So a crash before that leaves two sides
//! that are merged again, or a file that is an edit of one of them.
//!
//! While a merge is asked for nothing else is planned for its node, so that no conflicted copy comes and goes. Where it is not to be had, the plan is
//! what it would be without it.

use crate::absorb::matches;
use crate::disk::{DiskAction, Obstacle, Stat};
use crate::engine::{Engine, Event};
use crate::missing::LIMBO;
use crate::plan::{Draft, Effect, LocalSource};
use crate::policy::Planted;
use crate::trees::{Item, ItemContent, ItemKey, NodeRecord, PARKED, Result, Trees};
use crate::view::Desired;
use ferry_protocol::merge::{self, Candidate};
use ferry_protocol::read::shown;
use ferry_protocol::{Content, Dot, FileContent, Manifest, NodeId, NodeState, RelPath};
use std::collections::BTreeMap;

/// Three texts to be joined. Answer with [`Engine::handle_merge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Names the merge in the answer.
    pub id: u64,
    /// Where the file stands.
    pub path: RelPath,
    /// What both sides were edited from.
    pub base: Manifest,
    /// The side with the higher stamp.
    pub newer: Manifest,
    /// The other one.
    pub older: Manifest,
    /// Chunks that files of this folder hold.
    pub local: Vec<LocalSource>,
}

/// What became of a [`Merge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The result is staged.
    Clean(Manifest),
    /// It is not clean, or one of the three is no text.
    Conflict,
    /// Nobody that can be reached has the base.
    NoBase,
    /// One of the sides is not to be had, or the result cannot be staged. What is placed instead says so, if it meets the same.
    Unavailable(Obstacle),
}

/// A version that merges may need as a base later, because it is about to be the last that is known everywhere. The hands keep its bytes if it is a
/// text and they have room: once it is edited here, no disk holds it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Where it stands.
    pub path: RelPath,
    /// Its version when it was hashed.
    pub stat: Stat,
    /// The content.
    pub manifest: Manifest,
}

/// So many versions to keep are told in one plan.
const KEEPS_MAX: usize = 512;

/// A conflict of two texts.
#[derive(Debug)]
struct Known {
    id: u64,
    of: Vec<Dot>,
    state: State,
    /// How often something was lacking.
    lacked: u32,
}

#[derive(Debug)]
enum State {
    /// The relay is to have both sides first, or its history would not hold them.
    Waits,
    Asked,
    Clean(Manifest),
    Refused,
    /// The base or a side is out of reach: a conflict as ever, so that what can be had is placed. Tried again when something is back.
    Lacking,
    /// What was lacking may be there.
    Again,
}

/// The merges that are known.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    known: BTreeMap<NodeId, Known>,
    next: u64,
    relay_is_near: bool,
}

impl Merging {
    /// Nothing is asked for any more; answers that still come are to older questions.
    pub fn again(&mut self) -> Self {
        Self { next: self.next, relay_is_near: self.relay_is_near, ..Self::default() }
    }

    /// How many merges are under way.
    pub fn open(&self) -> usize {
        self.known.values().filter(|k| matches!(k.state, State::Asked)).count()
    }

    /// Whether a merge of this node waits for the relay.
    pub fn waits(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|k| matches!(k.state, State::Waits))
    }
}

impl<T: Trees> Engine<T> {
    /// Whether texts are merged here. Everything is compared anew when that changes.
    pub fn set_merging(&mut self, on: bool) {
        if self.policy.merge_text != on {
            self.policy.merge_text = on;
            self.merging = self.merging.again();
            self.opening = Some(None);
        }
    }

    /// Whether a relay takes what it is sent: then it is to have both sides of a merge before their successor.
    pub fn set_relay_near(&mut self, near: bool) {
        if std::mem::replace(&mut self.merging.relay_is_near, near) && !near {
            let waiting = self.merging.known.iter().filter(|(_, k)| matches!(k.state, State::Waits));
            self.dirty.extend(waiting.map(|(node, _)| *node));
        }
    }

    /// Tries again what lacked something.
    pub(crate) fn retry_merges(&mut self) {
        let lacking: Vec<NodeId> = self.merging.known.extract_if(.., |_, k| matches!(k.state, State::Lacking)).map(|(id, _)| id).collect();
        self.dirty.extend(lacking);
    }

    /// A content of this node was fetched: what its merge lacked may be it. Once, or a fetch and a merge would call for each other without end.
    pub(crate) fn merge_may_be_had(&mut self, node: NodeId) {
        if let Some(known) = self.merging.known.get_mut(&node).filter(|k| matches!(k.state, State::Lacking) && k.lacked <= 1) {
            known.state = State::Again;
        }
    }

    /// Takes what became of a merge.
    pub fn handle_merge(&mut self, id: u64, result: Merged) -> Result<()> {
        let Some((node, known)) = self.merging.known.iter_mut().find(|(_, k)| k.id == id && matches!(k.state, State::Asked)) else {
            return Ok(());
        };
        let node = *node;
        self.dirty.insert(node);
        match result {
            Merged::Clean(manifest) => {
                self.plans.staged.insert(manifest.hash());
                known.state = State::Clean(manifest);
            }
            Merged::Conflict => known.state = State::Refused,
            Merged::NoBase | Merged::Unavailable(_) => {
                known.state = State::Lacking;
                known.lacked += 1;
            }
        }
        Ok(())
    }

    /// Plans the merge of what a node shows. Whether that is all that is planned for it now.
    pub(crate) fn plan_merge(
        &mut self,
        (id, record): (NodeId, &NodeRecord),
        items: &[(ItemKey, Item)],
        desired: &[Desired],
        draft: &mut Draft,
    ) -> Result<bool> {
        if !self.policy.merge_text {
            return Ok(false);
        }
        let key = ItemKey::primary(id);
        let candidate = merge::candidate(record.state.body()).filter(|_| self.policy.may_write && self.trees.meta().heard);
        let item = items.iter().find(|(of, item)| *of == key && ![PARKED, LIMBO].contains(&item.parent)).map(|(_, item)| item);
        let wanted = desired.iter().find(|d| d.key == key);
        let (Some(mut candidate), Some(item), Some(wanted)) = (candidate, item, wanted) else {
            self.merging.known.remove(&id);
            return Ok(false);
        };
        if self.planted(Planted::MergeFromAnyBase) {
            candidate.base = candidate.newer.bases.first().cloned().unwrap_or(candidate.base);
        }
        let Some(path) = self.item_path(item)?.filter(|_| matches!(item.content, ItemContent::File(_))) else { return Ok(false) };
        if self.is_missing(key, item.parent)? || self.is_ignored(item.parent, &item.name, &path, false)? {
            return Ok(false);
        }
        match self.merging.known.get(&id).filter(|k| k.of == candidate.replaces).map(|k| &k.state) {
            Some(State::Refused | State::Lacking) => return Ok(false),
            Some(State::Asked) => return Ok(true),
            Some(State::Clean(merged)) if self.plans.staged.contains(&merged.hash()) => {
                let merged = merged.clone();
                let content = merge::merged_content(&candidate, record.state.body(), merged);
                if self.planted(Planted::MergeWrittenFirst) {
                    return self.write_merged_first(id, &record.state, content, &candidate.replaces);
                }
                self.place_merged(key, item, (path, wanted.mode), (content, candidate.replaces), draft)?;
                return Ok(true);
            }
            _ => {}
        }
        let waits = self.merging.relay_is_near && self.trees.is_unsent(id)? && self.can_be_sent(id, record, items);
        self.ask_for_merge(id, path, candidate, waits, draft)?;
        // What stood in the way before is tried again by this.
        self.unblock(id);
        Ok(true)
    }

    /// Whether the relay will have this state before long: what was written here stands here.
    fn can_be_sent(&self, id: NodeId, record: &NodeRecord, items: &[(ItemKey, Item)]) -> bool {
        let own = self.trees.meta().replica;
        let mut written_here = record.state.body().values().iter().filter(|v| v.dot.replica == own);
        !self.publishing.withholds(id) && written_here.all(|v| items.iter().any(|(_, item)| matches(&item.content, &v.content)))
    }

    fn ask_for_merge(&mut self, id: NodeId, path: RelPath, candidate: Candidate, waits: bool, draft: &mut Draft) -> Result<()> {
        self.merging.next += 1;
        let serial = self.merging.next;
        let state = if waits { State::Waits } else { State::Asked };
        let lacked = self.merging.known.get(&id).filter(|k| k.of == candidate.replaces).map_or(0, |k| k.lacked);
        self.merging.known.insert(id, Known { id: serial, of: candidate.replaces, state, lacked });
        if waits {
            return Ok(());
        }
        let (base, newer, older) = (candidate.base.manifest, candidate.newer.manifest, candidate.older.manifest);
        let mut local = Vec::new();
        for manifest in [&base, &newer, &older] {
            local.extend(self.local_sources(manifest)?);
        }
        draft.merges.push(Merge { id: serial, path, base, newer, older, local });
        Ok(())
    }

    /// The merged version takes the place of what stands there.
    fn place_merged(
        &mut self,
        key: ItemKey,
        item: &Item,
        (path, mode): (RelPath, u16),
        (content, replaces): (Content, Vec<Dot>),
        draft: &mut Draft,
    ) -> Result<()> {
        let Content::File(FileContent { manifest, mtime_ns, .. }) = &content else { return Ok(()) };
        let (hash, mtime_ns) = (manifest.hash(), *mtime_ns);
        if matches(&item.content, &content) {
            return self.take_merged(key, item.clone(), content, &replaces);
        }
        // A staged content serves one file.
        if draft.keys.contains(&key) || !draft.contents.insert(hash) {
            draft.later.insert(key.node);
            return Ok(());
        }
        let new = Item { content: ItemContent::File(manifest.clone()), mode, mtime_ns, ..item.clone() };
        let action = DiskAction::PutFile { path, expect: Some(item.stat), content: hash, mode, mtime_ns };
        draft.push(action, Effect::Merged(key, Box::new(new), Box::new((content, replaces))));
        Ok(())
    }

    /// The merged version stands on disk: it is the next version, and replaces both sides. What was heard since stays beside it.
    pub(crate) fn take_merged(&mut self, key: ItemKey, item: Item, content: Content, replaces: &[Dot]) -> Result<()> {
        self.merging.known.remove(&key.node);
        let Some(record) = self.trees.node(key.node)? else { return self.trees.put_item(key, Some(&item)) };
        self.dirty.insert(key.node);
        let body = record.state.body();
        let shows = shown(body);
        if let [only] = &shows[..]
            && only.value.content == content
            && replaces.iter().all(|dot| body.value(*dot).is_none())
        {
            // Somebody else was as quick.
            return self.settle_item(key, &Item { dots: only.dots.clone(), ..item });
        }
        let all: Vec<Dot> = body.values().iter().map(|v| v.dot).collect();
        let replaces = if self.planted(Planted::MergeReplacesHeard) { &all[..] } else { replaces };
        let mut state = record.state.clone();
        let value = self.new_value(&state, content);
        let path = self.item_path(&item)?;
        self.settle_item(key, &Item { dots: vec![value.dot], ..item })?;
        state.body_mut().put(replaces, value);
        self.write(key.node, state)?;
        if let Some(path) = path {
            self.emit(Event::Merged { path });
        }
        Ok(())
    }

    /// The bug of a version that is written before it stands on disk, for tests of the tests.
    fn write_merged_first(&mut self, id: NodeId, state: &NodeState, content: Content, replaces: &[Dot]) -> Result<bool> {
        let mut state = state.clone();
        let value = self.new_value(&state, content);
        state.body_mut().put(replaces, value);
        self.write(id, state)?;
        Ok(true)
    }

    /// What stands everywhere as it stands here may be the base of a merge. Who may not write never merges.
    pub(crate) fn keep_for_merges(&self, item: &Item, path: &RelPath, draft: &mut Draft) {
        if let ItemContent::File(manifest) = &item.content
            && self.policy.merge_text
            && self.policy.may_write
            && merge::is_small_enough(manifest)
        {
            draft.keeps.push(Keep { path: path.clone(), stat: item.stat, manifest: manifest.clone() });
            draft.full |= draft.keeps.len() >= KEEPS_MAX;
        }
    }
}
