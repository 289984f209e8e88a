//! Random histories of three replicas: a list of small steps, so that proptest can shrink a failure to the few that matter.

use ferry_protocol::node::{Author, Content, FileContent, NodeState, Place, Stamp, Stamped, Value};
use ferry_protocol::read::{States, shown};
use ferry_protocol::{ChunkRef, ContentHash, DeviceId, Manifest, Name, NodeId, ReplicaId, VerifiedChunk};
use proptest::prelude::*;

/// Names that collide, fold together, look like conflicted copies, or leave no room for one.
pub fn names() -> Vec<Name> {
    let texts = ["a", "b", "A", "é", "e\u{301}", "a.tar.gz", ".hidden", "a (conflicted copy, P, 2026-11-22 10-30)"];
    let mut names: Vec<Name> = texts.iter().map(|t| Name::new(t).unwrap()).collect();
    names.push(Name::new("ü".repeat(127)).unwrap());
    names.push(Name::new(b"\xff\xfe").unwrap());
    names
}

/// What one step of a history does. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
pub enum Step {
    Create { at: u8, parent: u8, name: u8, content: u8 },
    Move { at: u8, node: u8, parent: u8, name: u8 },
    Edit { at: u8, node: u8, content: u8 },
    EditCopy { at: u8, node: u8, copy: u8, content: u8 },
    Delete { at: u8, node: u8 },
    Chmod { at: u8, node: u8, mode: u16 },
    Touch { at: u8, node: u8, mtime_ns: i64 },
    Hear { at: u8, from: u8 },
    HearNode { at: u8, from: u8, node: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, any::<u8>(), 0..10u8, 0..6u8).prop_map(|(at, parent, name, content)| Step::Create { at, parent, name, content }),
        4 => (0..3u8, any::<u8>(), any::<u8>(), 0..10u8).prop_map(|(at, node, parent, name)| Step::Move { at, node, parent, name }),
        3 => (0..3u8, any::<u8>(), 0..6u8).prop_map(|(at, node, content)| Step::Edit { at, node, content }),
        1 => (0..3u8, any::<u8>(), any::<u8>(), 0..6u8).prop_map(|(at, node, copy, content)| Step::EditCopy { at, node, copy, content }),
        2 => (0..3u8, any::<u8>()).prop_map(|(at, node)| Step::Delete { at, node }),
        1 => (0..3u8, any::<u8>(), 0..0o1000u16).prop_map(|(at, node, mode)| Step::Chmod { at, node, mode }),
        1 => (0..3u8, any::<u8>(), any::<i64>()).prop_map(|(at, node, mtime_ns)| Step::Touch { at, node, mtime_ns }),
        2 => (0..3u8, 0..3u8).prop_map(|(at, from)| Step::Hear { at, from }),
        1 => (0..3u8, 0..3u8, any::<u8>()).prop_map(|(at, from, node)| Step::HearNode { at, from, node }),
    ]
}

/// Up to 40 steps.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..40)
}

/// One of the contents: a directory, a link, or files of four different bytes, one of them empty and one of two chunks.
pub fn content(which: u8, mtime_ns: i64) -> Content {
    let file = |parts: &[&[u8]]| {
        let chunks = parts.iter().map(|p| ChunkRef { id: VerifiedChunk::of(*p).id(), len: p.len() as u32 }).collect();
        Content::File(FileContent::new(Manifest::new(ContentHash::of(&parts.concat()), chunks).unwrap(), mtime_ns))
    };
    match which % 6 {
        0 => Content::Dir,
        1 => Content::Symlink(b"../elsewhere".as_slice().into()),
        2 => file(&[]),
        3 => file(&[b"x"]),
        4 => file(&[b"y"]),
        _ => file(&[b"first ", b"second"]),
    }
}

/// One replica: what it holds, its Lamport clock and how many nodes it minted.
#[derive(Debug, Clone)]
pub struct Replica {
    pub id: ReplicaId,
    pub states: States,
    clock: u64,
    minted: u8,
    device: String,
}

impl Replica {
    fn new(index: u8) -> Self {
        let device = ["P", "a device name of just sixty-four bytes, the longest of them all.", "Gerät"][index as usize];
        assert!(device.len() <= 64);
        Self { id: ReplicaId::from_bytes([index + 1; 16]), states: States::new(), clock: 0, minted: 0, device: device.into() }
    }

    fn stamp(&mut self) -> Stamp {
        self.clock += 1;
        Stamp { counter: self.clock, replica: self.id }
    }

    fn pick(&self, index: u8) -> Option<NodeId> {
        let count = self.states.len();
        (count > 0).then(|| *self.states.keys().nth(index as usize % count).unwrap())
    }

    fn pick_directory(&self, index: u8) -> NodeId {
        let is_dir = |s: &NodeState| shown(s.body()).first().is_some_and(|v| v.value.content.is_dir());
        let dirs: Vec<NodeId> =
            std::iter::once(NodeId::ROOT).chain(self.states.iter().filter(|(_, s)| is_dir(s)).map(|(i, _)| *i)).collect();
        dirs[index as usize % dirs.len()]
    }

    /// Writes a value that replaces what this replica sees: all of it, or one conflicted copy.
    fn put(&mut self, node: NodeId, content: Content, only_copy: Option<u8>) {
        let stamp = self.stamp();
        let author = Author { device: DeviceId::from_bytes(*self.id.as_bytes()), name: self.device.as_str().into() };
        let body = self.states.get_mut(&node).unwrap().body_mut();
        let replaces = match only_copy {
            None => body.values().iter().map(|v| v.dot).collect(),
            Some(copy) => {
                let all = shown(body);
                if all.is_empty() { Vec::new() } else { all[copy as usize % all.len()].dots.clone() }
            }
        };
        // Two minutes a step: conflicted copies of one device have names of their own, or not, as in life.
        let wall_ms = 1_795_343_400_000 + (stamp.counter as i64) * 20_000;
        let value = Value { dot: body.next_dot(self.id), stamp, content, author, wall_ms };
        body.put(&replaces, value);
    }

    fn take(&mut self, id: NodeId, state: &NodeState) {
        self.clock = self.clock.max(state.max_counter());
        match self.states.get_mut(&id) {
            Some(own) => {
                own.join(state);
            }
            None => {
                self.states.insert(id, state.clone());
            }
        }
    }
}

/// Three replicas after these steps.
pub fn run(steps: &[Step]) -> Vec<Replica> {
    run_keeping(steps).0
}

/// Three replicas after these steps, and every state that one of them held after a step of its own: what may still be on its way.
pub fn run_keeping(steps: &[Step]) -> (Vec<Replica>, Vec<(NodeId, NodeState)>) {
    let names = names();
    let mut all: Vec<Replica> = (0..3).map(Replica::new).collect();
    let mut messages = Vec::new();
    for step in steps {
        if let Some((at, node)) = act(&mut all, &names, step) {
            messages.push((node, all[at].states[&node].clone()));
        }
    }
    (all, messages)
}

/// Does one step; the replica and node that it wrote to.
fn act(all: &mut [Replica], names: &[Name], step: &Step) -> Option<(usize, NodeId)> {
    let name = |n: u8| names[n as usize % names.len()].clone();
    match *step {
        Step::Hear { at, from } => {
            for (id, state) in all[from as usize].states.clone() {
                all[at as usize].take(id, &state);
            }
            return None;
        }
        Step::HearNode { at, from, node } => {
            let id = all[from as usize].pick(node)?;
            let state = all[from as usize].states[&id].clone();
            all[at as usize].take(id, &state);
            return None;
        }
        _ => {}
    }
    let (at, node) = match *step {
        Step::Create { at, .. } => (at, None),
        Step::Move { at, node, .. } | Step::Edit { at, node, .. } | Step::EditCopy { at, node, .. } => (at, Some(node)),
        Step::Delete { at, node } | Step::Chmod { at, node, .. } | Step::Touch { at, node, .. } => (at, Some(node)),
        Step::Hear { .. } | Step::HearNode { .. } => return None,
    };
    let me = &mut all[at as usize];
    let id = match node {
        Some(node) => me.pick(node)?,
        None => {
            me.minted += 1;
            let mut bytes = *me.id.as_bytes();
            bytes[15] = me.minted;
            NodeId::from_bytes(bytes)
        }
    };
    match *step {
        Step::Create { parent, name: n, content: c, .. } => {
            let place = Place { parent: me.pick_directory(parent), name: name(n), stamp: me.stamp() };
            me.states.insert(id, NodeState::new(place));
            me.put(id, content(c, 7), None);
        }
        Step::Move { parent, name: n, .. } => {
            let parent = me.pick_directory(parent);
            // No replica moves a directory into itself; cycles come from moves that do not know of each other.
            let place = Place { parent: if parent == id { NodeId::ROOT } else { parent }, name: name(n), stamp: me.stamp() };
            me.states.get_mut(&id)?.move_to(place);
        }
        Step::Edit { content: c, .. } => me.put(id, content(c, 8), None),
        Step::EditCopy { copy, content: c, .. } => me.put(id, content(c, 9), Some(copy)),
        Step::Delete { .. } => me.put(id, Content::Tombstone, None),
        Step::Chmod { mode, .. } => {
            let stamp = me.stamp();
            me.states.get_mut(&id)?.attributes_mut().mode = Some(Stamped { stamp, value: mode });
        }
        Step::Touch { mtime_ns, .. } => {
            let stamp = me.stamp();
            me.states.get_mut(&id)?.attributes_mut().mtime_ns = Some(Stamped { stamp, value: mtime_ns });
        }
        Step::Hear { .. } | Step::HearNode { .. } => {}
    }
    Some((at as usize, id))
}

/// The join of all that these replicas hold.
pub fn all_joined(replicas: &[Replica]) -> States {
    let mut out = States::new();
    for (id, state) in replicas.iter().flat_map(|r| &r.states) {
        out.entry(*id).and_modify(|s| _ = s.join(state)).or_insert_with(|| state.clone());
    }
    out
}
