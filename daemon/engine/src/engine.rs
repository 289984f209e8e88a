//! The engine of one folder on one device: what it knows, and the order of calls.
//!
//! The driver calls, in any order and as often as it likes:
//!
//! | it has | it calls | it then asks |
//! |---|---|---|
//! | the time | [`Engine::set_time`] before anything else | |
//! | what it was opened on made durable | [`Engine::handle_sync`], when [`Engine::next_sync`] asks for it | [`Engine::next_looks`] |
//! | a hint of the watcher | [`Engine::handle_hints`], [`Engine::rescan`] | [`Engine::next_looks`] |
//! | what a directory holds | [`Engine::handle_look`] | [`Engine::next_looks`], [`Engine::next_hashes`] |
//! | what a file's content is | [`Engine::handle_hash`] | [`Engine::next_commit`] |
//! | a page of the relay's feed | [`Engine::handle_page`] | [`Engine::plan`] |
//! | a page of another device's feed | [`Engine::handle_peer_page`] | [`Engine::plan`] |
//! | a fetched content, a finished batch | [`Engine::handle_fetch`], [`Engine::handle_batch`] | [`Engine::plan`] |
//! | the relay's answer | [`Engine::handle_commit`] | [`Engine::next_commit`] |
//!
//! Nothing to do is stored: what is dirty is derived from the trees when they are opened, and again from each change (E4). No call reads a
//! clock, a disk, a socket or a random source; equal calls on equal trees give equal answers (E1).

use crate::alarm::Alarm;
use crate::backoff::Blocked;
use crate::brake::Brake;
use crate::disk::Obstacle;
use crate::durable::Owed;
use crate::merging::Merging;
use crate::observe::Observations;
use crate::plan::Plans;
use crate::policy::{Filter, NoFilter, Planted, Policy};
use crate::publish::Publishing;
use crate::runs::Run;
use crate::trees::{Item, ItemKey, Meta, Result, Trees};
use crate::view::View;
use ferry_protocol::{Author, Dot, Name, NodeId, NodeState, RelPath, Stamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The engine of one folder. See the module for the order of calls.
pub struct Engine<T> {
    pub(crate) trees: T,
    pub(crate) device: Author,
    pub(crate) policy: Policy,
    pub(crate) filter: Box<dyn Filter>,
    pub(crate) now_ms: u64,
    pub(crate) wall_ms: i64,
    pub(crate) view: View,
    /// Nodes whose shown form may differ from their items. Derived: see `opening`.
    pub(crate) dirty: BTreeSet<NodeId>,
    /// How far the comparison of all nodes has come that every opening begins with.
    pub(crate) opening: Option<Option<NodeId>>,
    pub(crate) orphans: BTreeMap<NodeId, BTreeSet<NodeId>>,
    pub(crate) observed: Observations,
    pub(crate) plans: Plans,
    pub(crate) publishing: Publishing,
    pub(crate) merging: Merging,
    pub(crate) brake: Brake,
    pub(crate) alarm: Alarm,
    pub(crate) blocked: BTreeMap<NodeId, Blocked>,
    pub(crate) issues: BTreeMap<RelPath, Issue>,
    /// A sync that is owed: what is on the disk might not outlive a crash.
    pub(crate) owed: Option<Owed>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) run: Run,
}

/// Something about one path that a person should know. It stays until it is no longer true (I15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// A stable code.
    pub code: &'static str,
    /// What is the matter, in one sentence.
    pub message: String,
    /// What to do, in one sentence.
    pub hint: &'static str,
}

/// Something that happened, for the activity log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A change made here was taken in.
    LocalChange {
        /// What kind of change.
        kind: ChangeKind,
        /// Where.
        path: RelPath,
    },
    /// A change made elsewhere is on this disk.
    RemoteChange {
        /// What kind of change.
        kind: ChangeKind,
        /// Where.
        path: RelPath,
    },
    /// A conflicted copy appeared.
    Conflict {
        /// Where the copy stands.
        path: RelPath,
    },
    /// Two edits of a text were merged here.
    Merged {
        /// Where it stands.
        path: RelPath,
    },
    /// Deletes are held until a person decides.
    Held {
        /// How many items.
        count: u64,
        /// Of how many.
        total: u64,
    },
}

/// Kinds of change in an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Something new.
    Created,
    /// New content.
    Edited,
    /// Another place or name.
    Moved,
    /// Mode or modification time only.
    Attributes,
    /// Gone.
    Deleted,
}

/// Counts of what is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Nodes that the relay may lack.
    pub upload: u64,
    /// Things to fetch or place.
    pub download: u64,
    /// Local deletes that are not confirmed or are held.
    pub delete: u64,
    /// Directories to look at and files to hash.
    pub scan: u64,
}

impl<T: Trees> Engine<T> {
    /// Opens the trees. `device` is who writes. The first thing to do is then [`Engine::rescan`].
    pub fn open(trees: T, device: Author, policy: Policy) -> Result<Self> {
        Ok(Self {
            trees,
            device,
            policy,
            filter: Box::new(NoFilter),
            now_ms: 0,
            wall_ms: 0,
            view: View::default(),
            dirty: BTreeSet::new(),
            opening: Some(None),
            orphans: BTreeMap::new(),
            observed: Observations::default(),
            plans: Plans::default(),
            publishing: Publishing::default(),
            merging: Merging::default(),
            brake: Brake::default(),
            alarm: Alarm::default(),
            blocked: BTreeMap::new(),
            issues: BTreeMap::new(),
            owed: Some(Owed::at_first()),
            events: VecDeque::new(),
            run: Run::default(),
        })
    }

    /// Tells the time: `now_ms` grows and is for patience; `wall_ms` is for people and decides nothing.
    pub fn set_time(&mut self, now_ms: u64, wall_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.wall_ms = wall_ms;
        self.expire_carriers();
    }

    /// The trees.
    pub fn trees(&self) -> &T {
        &self.trees
    }

    /// The trees, for their owner to commit them. Nothing else may be written.
    pub fn trees_mut(&mut self) -> &mut T {
        &mut self.trees
    }

    /// The trees again, closing the engine.
    pub fn into_trees(self) -> T {
        self.trees
    }

    /// What is known beside the trees.
    pub fn meta(&self) -> &Meta {
        self.trees.meta()
    }

    /// What the device may do.
    pub fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// Takes new ignore rules. Everything is compared anew: what was ignored may now be wanted, and the other way round.
    pub fn set_filter(&mut self, filter: Box<dyn Filter>) {
        self.filter = filter;
        self.opening = Some(None);
    }

    /// Everything that a person should know now, by path.
    pub fn issues(&self) -> impl Iterator<Item = (&RelPath, &Issue)> {
        let owed = self.owed.as_ref().and_then(Owed::issue);
        // One issue for each path; that one stands in the way of all others.
        self.issues.iter().filter(move |(path, _)| owed.is_none_or(|(at, _)| at != *path)).chain(owed)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// What is left to do.
    pub fn pending(&self) -> Result<Pending> {
        Ok(Pending {
            upload: if self.policy.may_write { self.trees.unsent() } else { 0 },
            download: self.plans.waiting()
                + self.merging.open() as u64
                + self.dirty.len() as u64
                + (self.observed.after_looks.len() + self.observed.after_missing.len()) as u64,
            delete: self.observed.missing.len() as u64,
            scan: self.observed.open() as u64,
        })
    }

    /// Whether nothing is left to do here: the disk is looked at, and every tree is equal but for what is held or blocked.
    pub fn is_idle(&self) -> Result<bool> {
        Ok(self.is_settled() && (!self.policy.may_write || self.trees.unsent_after(None, 1)?.is_empty()))
    }

    /// The same, whatever the relay may lack: all that a device can do by itself.
    pub fn is_settled(&self) -> bool {
        self.opening.is_none()
            && self.owed.is_none()
            && self.dirty.is_empty()
            && self.plans.waiting() == 0
            && self.merging.open() == 0
            && self.observed.open() == 0
            && self.observed.after_looks.is_empty()
            && (self.observed.missing.is_empty() || self.brake.is_holding())
    }

    /// Whether the disk has been looked at, as far as was asked for, and what follows from it is planned.
    pub fn is_looked_at(&self) -> bool {
        self.observed.open() == 0 && self.observed.after_looks.is_empty() && !self.may_not_look()
    }

    /// How many nodes something stands in the way of: they are tried again after a pause.
    pub fn blocked(&self) -> usize {
        self.blocked.len()
    }

    /// Ends all pauses: something that stood in the way may be gone (the relay is back, the disk has room again).
    pub fn retry_now(&mut self) {
        let now = self.now_ms;
        self.blocked.values_mut().for_each(|b| b.until_ms = now);
        if let Some(owed) = &mut self.owed {
            owed.hurry(now);
        }
        self.retry_withheld();
        self.retry_merges();
    }

    /// When, in `now_ms`, something is due that no other call would bring about.
    pub fn deadline_ms(&self) -> Option<u64> {
        let missing = self.observed.missing_deadline(self.policy.missing_grace_ms).filter(|_| !self.brake.is_holding());
        let blocked = self.blocked.values().map(|b| b.until_ms).min();
        let withheld = self.publishing.deadline_ms(self.now_ms).filter(|_| self.policy.may_write);
        let owed = self.owed.as_ref().and_then(Owed::deadline_ms);
        missing.into_iter().chain(blocked).chain(withheld).chain(owed).min()
    }

    pub(crate) fn planted(&self, bug: Planted) -> bool {
        #[cfg(feature = "planted")]
        return self.policy.planted == Some(bug);
        #[cfg(not(feature = "planted"))]
        {
            let _ = bug;
            false
        }
    }

    pub(crate) fn next_stamp(&mut self) -> Stamp {
        let meta = self.trees.meta_mut();
        meta.clock += 1;
        Stamp { counter: meta.clock, replica: meta.replica }
    }

    /// A new id: unique because the replica id is, and because the count only grows; in an index that was set back, because the run is another.
    pub(crate) fn mint(&mut self) -> NodeId {
        let meta = self.trees.meta_mut();
        meta.minted += 1;
        let mut seed = [0u8; 40];
        seed[..16].copy_from_slice(meta.replica.as_bytes());
        seed[16..24].copy_from_slice(&meta.minted.to_be_bytes());
        seed[24..].copy_from_slice(self.run.id.as_bytes());
        let hash = ferry_protocol::ChunkId::of(&seed);
        let mut id = [0u8; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        NodeId::from_bytes(id)
    }

    /// Writes to a node as this device: joined here, and to be sent.
    pub(crate) fn write(&mut self, id: NodeId, state: NodeState) -> Result<()> {
        self.update_node(id, state)?;
        self.trees.set_unsent(id, true)
    }

    /// The relay has all that is known of a node.
    pub(crate) fn note_sent(&mut self, id: NodeId) -> Result<()> {
        self.publishing.carried.release(id);
        self.merge_may_go_on(id);
        self.trees.set_unsent(id, false)
    }

    /// A merge that waited for the relay need not any more.
    pub(crate) fn merge_may_go_on(&mut self, id: NodeId) {
        if self.merging.waits(id) {
            self.dirty.insert(id);
        }
    }

    pub(crate) fn wake_orphans(&mut self, parent: NodeId) {
        if let Some(kids) = self.orphans.remove(&parent) {
            self.dirty.extend(kids);
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        // Bounded: a driver that does not listen loses the oldest news, never memory.
        if self.events.len() >= 10_000 {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn set_issue(&mut self, path: RelPath, obstacle: Obstacle) {
        self.issues.insert(path, Issue { code: obstacle.code(), message: obstacle.sentence().to_owned(), hint: obstacle.hint() });
    }

    /// The path of an entry of a directory, by where the directory's items stand; nothing if the directory is not on disk.
    pub(crate) fn path_at(&self, parent: NodeId, name: &Name) -> Result<Option<RelPath>> {
        let mut names = vec![name.clone()];
        let mut at = parent;
        while at != NodeId::ROOT {
            if at == crate::trees::PARKED {
                return Ok(Some(parked(names)));
            }
            let Some(item) = self.trees.item(ItemKey::primary(at))? else { return Ok(None) };
            names.push(item.name);
            at = item.parent;
            if names.len() > ferry_protocol::limits::PATH_DEPTH_MAX {
                return Ok(None);
            }
        }
        names.reverse();
        Ok(Some(RelPath::from_names(names)))
    }

    /// Whether what stands, or is to stand, at a place is none of our business. In a parked directory the rules are asked for the path that it
    /// has in the tree: where it stands for the moment tells nothing of what is ignored in it.
    pub(crate) fn is_ignored(&self, parent: NodeId, name: &Name, path: &RelPath, is_dir: bool) -> Result<bool> {
        if !path.names().first().is_some_and(Name::is_bookkeeping) {
            return Ok(self.filter.is_ignored(path, is_dir));
        }
        let mut names = vec![name.clone()];
        let mut at = parent;
        while at != NodeId::ROOT && at != crate::trees::PARKED && names.len() <= ferry_protocol::limits::PATH_DEPTH_MAX {
            let item = self.trees.item(ItemKey::primary(at))?.filter(|item| item.parent != crate::trees::PARKED);
            let (above, name) = match (item, self.trees.node(at)?) {
                (Some(item), _) => (item.parent, item.name),
                (None, Some(record)) => crate::view::position(&record),
                (None, None) => break,
            };
            names.push(name);
            at = self.canonical(above);
        }
        names.reverse();
        Ok(at == NodeId::ROOT && self.filter.is_ignored(&RelPath::from_names(names), is_dir))
    }

    /// The path of an item.
    pub fn item_path(&self, item: &Item) -> Result<Option<RelPath>> {
        self.path_at(item.parent, &item.name)
    }

    /// The path of a directory that is on disk.
    pub(crate) fn directory_path(&self, directory: NodeId) -> Result<Option<RelPath>> {
        if directory == NodeId::ROOT {
            return Ok(Some(RelPath::root()));
        }
        if directory == crate::trees::PARKED {
            return Ok(Some(parked(Vec::new())));
        }
        match self.trees.item(ItemKey::primary(directory))? {
            Some(item) => self.item_path(&item),
            None => Ok(None),
        }
    }
}

/// Where something parked stands.
fn parked(mut names: Vec<Name>) -> RelPath {
    for name in ["parked", ".ferry"] {
        // Constants that are names.
        names.extend(Name::new(name).ok());
    }
    names.reverse();
    RelPath::from_names(names)
}

/// The name under which an item is parked.
pub(crate) fn parked_name(key: ItemKey) -> Option<Name> {
    let copy = key.copy.map_or(String::new(), |Dot { replica, counter }| format!("-{replica}-{counter}"));
    Name::new(format!("{}{copy}", key.node)).ok()
}
