//! The incremental reading equals the law: random histories of several replicas are heard in pieces; only what became dirty is read again,
//! as the planner does, and the sum of what was read is `resolve` of the states.

use crate::engine::Engine;
use crate::hear::Teller;
use crate::memory::MemoryTrees;
use crate::policy::Policy;
use crate::trees::Trees;
use crate::view::{Desired, Reading};
use ferry_protocol::read::{States, parent_at, resolve};
use ferry_protocol::{
    Author, Content, ContentHash, DeviceId, FileContent, Manifest, Name, NodeId, NodeState, Place, RelPath, ReplicaId, Stamp, Value,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One act of one replica, as small numbers: they shrink well.
#[derive(Debug, Clone, Copy)]
struct Act {
    who: u8,
    what: u8,
    node: u8,
    to: u8,
    name: u8,
    content: u8,
}

struct Replica {
    id: ReplicaId,
    states: States,
    clock: u64,
    minted: u8,
}

fn name(n: u8) -> Name {
    Name::new(["a", "b", "a (conflicted copy, P, 1970-01-01 00-00)", "c"][usize::from(n % 4)]).unwrap()
}

fn file(n: u8) -> Content {
    let bytes = [n % 3];
    let chunk = ferry_protocol::ChunkRef { id: ferry_protocol::ChunkId::of(&bytes), len: 1 };
    Content::File(FileContent::new(Manifest::new(ContentHash::of(&bytes), vec![chunk]).unwrap(), i64::from(n)))
}

impl Replica {
    fn new(n: u8) -> Self {
        Self { id: ReplicaId::from_bytes([n; 16]), states: States::new(), clock: 0, minted: 0 }
    }

    fn stamp(&mut self) -> Stamp {
        self.clock += 1;
        Stamp { counter: self.clock, replica: self.id }
    }

    fn hear(&mut self, states: &States) {
        for (id, state) in states {
            self.clock = self.clock.max(state.max_counter());
            self.states
                .entry(*id)
                .and_modify(|s| {
                    s.join(state);
                })
                .or_insert_with(|| state.clone());
        }
    }

    fn put(&mut self, id: NodeId, content: Content) {
        let stamp = self.stamp();
        let state = self.states.get_mut(&id).unwrap();
        let replaces: Vec<_> = state.body().values().iter().map(|v| v.dot).collect();
        let author = Author { device: DeviceId::default(), name: Arc::from("P") };
        let value = Value { dot: state.body().next_dot(self.id), stamp, content, author, wall_ms: 0 };
        state.body_mut().put(&replaces, value);
    }

    fn act(&mut self, act: Act) {
        let ids: Vec<NodeId> = self.states.keys().copied().collect();
        let pick = |n: u8| ids.get(usize::from(n) % ids.len().max(1)).copied();
        let is_dir = |id: NodeId| self.states[&id].body().values().iter().any(|v| v.content == Content::Dir);
        let parent = if act.to.is_multiple_of(3) { NodeId::ROOT } else { pick(act.to).filter(|id| is_dir(*id)).unwrap_or(NodeId::ROOT) };
        match (act.what % 10, pick(act.node)) {
            (0..4, _) | (_, None) => {
                self.minted += 1;
                let mut bytes = [self.minted; 16];
                bytes[0] = self.id.as_bytes()[0];
                let id = NodeId::from_bytes(bytes);
                let place = Place { stamp: self.stamp(), parent, name: name(act.name) };
                self.states.insert(id, NodeState::new(place));
                self.put(id, if act.content.is_multiple_of(2) { Content::Dir } else { file(act.content) });
            }
            (4..7, Some(id)) if id != parent => {
                let place = Place { stamp: self.stamp(), parent, name: name(act.name) };
                self.states.get_mut(&id).unwrap().move_to(place);
            }
            (7, Some(id)) => self.put(id, file(act.content)),
            (8, Some(id)) => self.put(id, Content::Tombstone),
            (_, Some(id)) => self.put(id, Content::Dir),
        }
    }
}

type Cache = BTreeMap<NodeId, Vec<Desired>>;

/// Reads what is dirty until nothing is, as the planner does.
fn drain(engine: &mut Engine<MemoryTrees>, cache: &mut Cache) {
    for turn in 0.. {
        assert!(turn < 10_000, "reading does not end");
        let Some(id) = engine.dirty.pop_first() else { return };
        let Some(record) = engine.trees.node(id).unwrap() else { continue };
        match engine.read_node(id, &record).unwrap() {
            Reading::Nothing => drop(cache.remove(&id)),
            Reading::Orphan(parent) => {
                cache.remove(&id);
                engine.orphans.entry(parent).or_default().insert(id);
            }
            Reading::Shows(desired) => drop(cache.insert(id, desired)),
        }
    }
}

fn path_of(cache: &Cache, parent: NodeId, name: &Name) -> Option<RelPath> {
    let mut names = vec![name.clone()];
    let mut at = parent;
    while at != NodeId::ROOT {
        let desired = cache.get(&at)?.iter().find(|d| d.key.copy.is_none() && d.content.is_dir())?;
        names.push(desired.name.clone());
        at = desired.parent;
        if names.len() > 100 {
            return None;
        }
    }
    names.reverse();
    Some(RelPath::from_names(names))
}

fn check(cache: &Cache, states: &States) -> Result<(), TestCaseError> {
    let law: BTreeMap<RelPath, String> = resolve(states)
        .into_iter()
        .map(|(path, e)| (path, format!("{:?} {:?} {:?} {:?} {:?}", e.node, e.copy, e.content, e.dots, e.twins)))
        .collect();
    let mut read = BTreeMap::new();
    for desired in cache.values().flatten() {
        let Some(path) = path_of(cache, desired.parent, &desired.name) else { continue };
        let text = format!("{:?} {:?} {:?} {:?} {:?}", desired.key.node, desired.key.copy, desired.content, desired.dots, desired.twins);
        prop_assert!(read.insert(path.clone(), text).is_none(), "two things at {}", path);
    }
    prop_assert_eq!(read, law);
    Ok(())
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = (0u8..3, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    let one = one.prop_map(|(who, what, node, to, name, content)| Act { who, what, node, to, name, content });
    proptest::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn reading_in_pieces_equals_the_law(acts in acts(), order in any::<u64>()) {
        let mut replicas: Vec<Replica> = (1..4).map(Replica::new).collect();
        let author = Author { device: DeviceId::default(), name: Arc::from("T") };
        let mut engine = Engine::open(MemoryTrees::new(ReplicaId::from_bytes([9; 16])), author, Policy { may_write: false, ..Policy::default() }).unwrap();
        engine.opening = None;
        let (mut cache, mut heard) = (Cache::new(), States::new());
        for (turn, act) in acts.iter().enumerate() {
            let who = usize::from(act.who);
            if act.what % 11 == 10 {
                let states = replicas[(who + 1) % 3].states.clone();
                replicas[who].hear(&states);
            } else {
                replicas[who].act(*act);
            }
            if (order >> (turn % 60)) & 3 == 0 || turn + 1 == acts.len() {
                let all: Vec<usize> = if turn + 1 == acts.len() { vec![0, 1, 2] } else { vec![who] };
                for who in all {
                    let mut states: Vec<_> = replicas[who].states.iter().map(|(id, s)| (*id, s.clone())).collect();
                    if order & 1 == 0 {
                        states.reverse();
                    }
                    for (id, state) in states {
                        engine.hear_node(id, &state, Teller::Peer(None)).unwrap();
                        heard.entry(id).and_modify(|s| { s.join(&state); }).or_insert(state);
                        if order & 2 == 0 {
                            drain(&mut engine, &mut cache);
                        }
                    }
                }
                drain(&mut engine, &mut cache);
                prop_assert!(heard.values().all(|s| { let p = parent_at(s, 0); p == NodeId::ROOT || heard.contains_key(&p) }), "parents travel along");
                check(&cache, &heard)?;
            }
        }
    }
}

/// Reading one of them again must not cost all of them: a directory that two devices filled alike has as many twins as files.
#[test]
fn equal_twins_contest_no_name() {
    let author = Author { device: DeviceId::default(), name: Arc::from("T") };
    let policy = Policy { may_write: false, ..Policy::default() };
    let mut engine = Engine::open(MemoryTrees::new(ReplicaId::from_bytes([9; 16])), author, policy).unwrap();
    engine.opening = None;
    let mut cache = Cache::new();
    let mut hear = |who: u8, named: &str, content: u8| {
        let mut replica = Replica::new(who);
        let id = NodeId::from_bytes([named.as_bytes()[0], who, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let place = Place { stamp: replica.stamp(), parent: NodeId::ROOT, name: Name::new(named).unwrap() };
        replica.states.insert(id, NodeState::new(place));
        replica.put(id, file(content));
        engine.hear_node(id, &replica.states[&id], Teller::Peer(None)).unwrap();
        drain(&mut engine, &mut cache);
        (engine.contested(), cache.values().flatten().count())
    };
    for named in ["p", "q", "r"] {
        hear(1, named, 0);
        hear(2, named, 0);
    }
    assert_eq!(hear(3, "p", 0), (0, 3), "nine claims, three files");
    assert_eq!(hear(4, "q", 1), (1, 4), "one that differs is a conflict, of its name alone");
}
