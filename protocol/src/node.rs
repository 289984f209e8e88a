//! The state of a node: where it stands (places), what it is (body), and its attributes.
//!
//! * **Places**: the newest [`PLACES_MAX`] moves, newest first. The newest that closes no cycle decides.
//! * **Body**: a dotted version vector set (Almeida, Baquero, Gonçalves, Preguiça, Fonte, "Scalable and Accurate Causality Tracking for
//!   Eventually Consistent Stores", 2014): concurrent values, each under the dot of the event that wrote it, and a context of all
//!   events seen. One value is the rule; several are concurrent edits.
//! * **Attributes**: mode and touched modification time, each a last-writer-wins register, so that a mode and new bytes written at once both
//!   survive (CR10). They are no part of what makes two values equal.
//!
//! A state read from outside is valid or it is refused as a whole: ordering, dots covered by the context, limits (I10, P4).

use crate::bounded;
use crate::id::{DeviceId, NodeId, ReplicaId};
use crate::limits::{BASES_MAX, CONTEXT_MAX, DEVICE_NAME_MAX_BYTES, PLACES_MAX, SYMLINK_TARGET_MAX_BYTES, VALUES_MAX};
use crate::manifest::Manifest;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The one total order of operations: a Lamport counter, ties settled by the replica. Wall clocks never decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Larger than every counter that the writer had heard of.
    pub counter: u64,
    /// Who wrote.
    pub replica: ReplicaId,
}

/// One move: since `stamp` the node stands in `parent` under `name`. Ordered by stamp first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// When, in the total order.
    pub stamp: Stamp,
    /// The directory; [`NodeId::ROOT`] for the folder itself.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
}

/// One writing event of one replica on one node: a counter of the replica that grows with each of its events on this node, from 1. It may skip numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote.
    pub replica: ReplicaId,
    /// The replica's number of this event: above those of its earlier events on this node.
    pub counter: u64,
}

/// Who wrote a value, for people and for names of conflicted copies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Author {
    /// The device.
    pub device: DeviceId,
    /// Its display name when it wrote; at most [`DEVICE_NAME_MAX_BYTES`].
    pub name: Arc<str>,
}

/// Content of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileContent {
    /// Chunks and whole hash.
    pub manifest: Manifest,
    /// Modification time in nanoseconds since 1970, as the writer's disk had it. Not part of equality.
    pub mtime_ns: i64,
    /// What it was edited from, newest first, where its writer merges texts: see [`crate::merge`]. Not part of equality.
    #[serde(skip)]
    pub bases: Vec<Base>,
}

/// A content that a later one was edited from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Base {
    /// The event that wrote it.
    pub dot: Dot,
    /// The content.
    pub manifest: Manifest,
}

impl FileContent {
    /// A content of which nobody says what it was edited from.
    pub fn new(manifest: Manifest, mtime_ns: i64) -> Self {
        Self { manifest, mtime_ns, bases: Vec::new() }
    }
}

impl PartialEq for FileContent {
    /// Equal bytes are equal content, however they were cut, whenever they were written and from what (CR1).
    fn eq(&self, other: &Self) -> bool {
        self.manifest.hash() == other.manifest.hash() && self.manifest.size() == other.manifest.size()
    }
}
impl Eq for FileContent {}
impl std::hash::Hash for FileContent {
    fn hash<H: std::hash::Hasher>(&self, to: &mut H) {
        self.manifest.hash().hash(to);
        self.manifest.size().hash(to);
    }
}

/// What a value says the node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "ContentForm", into = "ContentForm")]
pub enum Content {
    /// A directory.
    Dir,
    /// A file.
    File(FileContent),
    /// A symbolic link with this target, never followed.
    Symlink(Arc<[u8]>),
    /// Deleted. Hidden by any living value.
    Tombstone,
}

/// A content as it is encoded: a file that says what it was edited from is a kind of its own, so that all others have the bytes they always had.
#[derive(Serialize, Deserialize)]
enum ContentForm {
    Dir,
    File(FileContent),
    Symlink(#[serde(with = "target")] Arc<[u8]>),
    Tombstone,
    EditedFile(FileContent, #[serde(deserialize_with = "bounded::list::<BASES_MAX, _, _>")] Vec<Base>),
}

impl From<Content> for ContentForm {
    fn from(content: Content) -> Self {
        match content {
            Content::Dir => Self::Dir,
            Content::File(file) if file.bases.is_empty() => Self::File(file),
            Content::File(mut file) => {
                let bases = std::mem::take(&mut file.bases);
                Self::EditedFile(file, bases)
            }
            Content::Symlink(target) => Self::Symlink(target),
            Content::Tombstone => Self::Tombstone,
        }
    }
}

impl TryFrom<ContentForm> for Content {
    type Error = &'static str;
    fn try_from(form: ContentForm) -> Result<Self, Self::Error> {
        Ok(match form {
            ContentForm::Dir => Self::Dir,
            ContentForm::File(file) => Self::File(file),
            ContentForm::Symlink(target) => Self::Symlink(target),
            ContentForm::Tombstone => Self::Tombstone,
            // One state has one encoding.
            ContentForm::EditedFile(_, bases) if bases.is_empty() => return Err("an edited file says what it was edited from"),
            ContentForm::EditedFile(file, bases) => Self::File(FileContent { bases, ..file }),
        })
    }
}

impl Content {
    /// Whether this is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Content::Tombstone)
    }
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Content::Dir)
    }
    /// The file, if it is one.
    pub fn file(&self) -> Option<&FileContent> {
        if let Content::File(file) = self { Some(file) } else { None }
    }
}

mod target {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};
    pub fn serialize<S: Serializer>(target: &Arc<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(target)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<[u8]>, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        if bytes.is_empty() || bytes.len() > SYMLINK_TARGET_MAX_BYTES || bytes.contains(&0) {
            return Err(D::Error::custom("not a link target"));
        }
        Ok(bytes.into())
    }
}

/// One value of a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The event that wrote it.
    pub dot: Dot,
    /// Its place in the total order.
    pub stamp: Stamp,
    /// What the node is.
    pub content: Content,
    /// Who wrote.
    pub author: Author,
    /// The writer's wall clock in milliseconds since 1970: for people, never for decisions.
    pub wall_ms: i64,
}

/// A dotted version vector set: concurrent values, ordered by dot, and the context of all events seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Body {
    #[serde(deserialize_with = "bounded::list::<VALUES_MAX, _, _>")]
    pub(crate) values: Vec<Value>,
    #[serde(deserialize_with = "bounded::list::<CONTEXT_MAX, _, _>")]
    pub(crate) context: Vec<(ReplicaId, u64)>,
}

impl Body {
    /// The concurrent values, ordered by dot.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Per replica the highest counter of its events seen here, ordered by replica: all events up to it were seen.
    pub fn context(&self) -> &[(ReplicaId, u64)] {
        &self.context
    }

    /// The highest counter of the events of this replica that were seen; 0 if none was.
    pub fn counter(&self, replica: ReplicaId) -> u64 {
        self.context.binary_search_by_key(&replica, |(r, _)| *r).map_or(0, |i| self.context[i].1)
    }

    /// Whether this event was seen, even if its value has been replaced since.
    pub fn covers(&self, dot: Dot) -> bool {
        self.counter(dot.replica) >= dot.counter
    }

    /// The value written by this event, if it still stands.
    pub fn value(&self, dot: Dot) -> Option<&Value> {
        self.values.binary_search_by_key(&dot, |v| v.dot).ok().map(|i| &self.values[i])
    }

    /// Whether any value is not a tombstone.
    pub fn has_living(&self) -> bool {
        self.values.iter().any(|v| !v.content.is_tombstone())
    }

    /// The least dot that the next event of this replica may have.
    pub fn next_dot(&self, replica: ReplicaId) -> Dot {
        Dot { replica, counter: self.counter(replica) + 1 }
    }

    /// Writes a value that replaces exactly the events in `replaces`: what the writer saw. Other values stay, concurrent with it.
    pub fn put(&mut self, replaces: &[Dot], value: Value) {
        self.values.retain(|v| !replaces.contains(&v.dot));
        self.cover(value.dot);
        let at = self.values.partition_point(|v| v.dot < value.dot);
        self.values.insert(at, value);
    }

    /// Settles values without writing a new one: the events stay covered, their values go.
    pub fn settle(&mut self, dots: &[Dot]) {
        self.values.retain(|v| !dots.contains(&v.dot));
    }

    fn cover(&mut self, dot: Dot) {
        match self.context.binary_search_by_key(&dot.replica, |(r, _)| *r) {
            Ok(i) => self.context[i].1 = self.context[i].1.max(dot.counter),
            Err(i) => self.context.insert(i, (dot.replica, dot.counter)),
        }
    }

    fn check(&self) -> Result<(), StateError> {
        if self.values.len() > VALUES_MAX || self.context.len() > CONTEXT_MAX {
            return Err(StateError::Limit);
        }
        if !self.values.is_sorted_by(|a, b| a.dot < b.dot) || !self.context.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(StateError::Order);
        }
        for value in &self.values {
            if value.dot.counter == 0 || !self.covers(value.dot) {
                return Err(StateError::Uncovered);
            }
            if value.author.name.len() > DEVICE_NAME_MAX_BYTES {
                return Err(StateError::Limit);
            }
        }
        Ok(())
    }
}

/// A last-writer-wins register: the value with the higher stamp stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// When, in the total order.
    pub stamp: Stamp,
    /// What.
    pub value: T,
}

/// Attributes of a node, independent of its content (CR10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits, at most `0o777`.
    pub mode: Option<Stamped<u16>>,
    /// A modification time set without new bytes (`touch`), in nanoseconds since 1970; counts while its stamp is above the shown value's.
    pub mtime_ns: Option<Stamped<i64>>,
}

/// The state of a node, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawNodeState")]
pub struct NodeState {
    pub(crate) places: Vec<Place>,
    pub(crate) body: Body,
    pub(crate) attributes: Attributes,
}

#[derive(Deserialize)]
struct RawNodeState {
    #[serde(deserialize_with = "bounded::list::<PLACES_MAX, _, _>")]
    places: Vec<Place>,
    body: Body,
    attributes: Attributes,
}

/// Why a node state from outside is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No place at all.
    #[error("a node has a place")]
    NoPlace,
    /// More of something than [`crate::limits`] allow.
    #[error("a node state is over a limit")]
    Limit,
    /// Places, values or context are not in their order, or doubled.
    #[error("a node state is not in canonical order")]
    Order,
    /// A value's event is not in the context.
    #[error("a value's dot is not covered by its context")]
    Uncovered,
    /// The mode has bits above `0o777`.
    #[error("a mode has only permission bits")]
    Mode,
}

impl TryFrom<RawNodeState> for NodeState {
    type Error = StateError;
    fn try_from(raw: RawNodeState) -> Result<Self, StateError> {
        NodeState::from_parts(raw.places, raw.body.values, raw.body.context, raw.attributes)
    }
}

impl NodeState {
    /// A node as its creator mints it: one place, no value yet. Put a value before anyone sees it.
    pub fn new(place: Place) -> Self {
        Self { places: vec![place], body: Body::default(), attributes: Attributes::default() }
    }

    /// A state from its parts, if they are canonical and within limits.
    pub fn from_parts(
        places: Vec<Place>,
        values: Vec<Value>,
        context: Vec<(ReplicaId, u64)>,
        attributes: Attributes,
    ) -> Result<Self, StateError> {
        if places.is_empty() {
            return Err(StateError::NoPlace);
        }
        if places.len() > PLACES_MAX {
            return Err(StateError::Limit);
        }
        if !places.is_sorted_by(|a, b| a > b) {
            return Err(StateError::Order);
        }
        if attributes.mode.is_some_and(|m| m.value > 0o777) {
            return Err(StateError::Mode);
        }
        let body = Body { values, context };
        body.check()?;
        Ok(Self { places, body, attributes })
    }

    /// The newest moves, newest first; never empty.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The body, to write to.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }

    /// The attributes.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The attributes, to write to.
    pub fn attributes_mut(&mut self) -> &mut Attributes {
        &mut self.attributes
    }

    /// Moves the node.
    pub fn move_to(&mut self, place: Place) {
        let at = self.places.partition_point(|p| *p > place);
        if self.places.get(at) != Some(&place) {
            self.places.insert(at, place);
            self.places.truncate(PLACES_MAX);
        }
    }

    /// The highest Lamport counter anywhere in the state.
    pub fn max_counter(&self) -> u64 {
        let places = self.places.iter().map(|p| p.stamp.counter);
        let values = self.body.values.iter().map(|v| v.stamp.counter);
        let mode = self.attributes.mode.iter().map(|m| m.stamp.counter);
        let mtime = self.attributes.mtime_ns.iter().map(|m| m.stamp.counter);
        places.chain(values).chain(mode).chain(mtime).max().unwrap_or(0)
    }

    /// Every replica that wrote something that still shows in this state, and every replica of the context.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        let places = self.places.iter().map(|p| p.stamp.replica);
        places.chain(self.body.context.iter().map(|(r, _)| *r))
    }

    /// The modification time that the primary value `shown` has, in nanoseconds since 1970.
    pub fn mtime_ns(&self, shown: &Value) -> Option<i64> {
        let own = shown.content.file().map(|f| f.mtime_ns);
        match self.attributes.mtime_ns {
            Some(touch) if touch.stamp > shown.stamp && own.is_some() => Some(touch.value),
            _ => own,
        }
    }
}
