//! Pages of a peer's feed against an engine.

use crate::input::Input;
use ferry_engine::memory::MemoryTrees;
use ferry_engine::{Engine, HearError, Policy, Trees};
use ferry_protocol::limits::LAMPORT_JUMP_MAX;
use ferry_protocol::node::{Attributes, Author, Content, Dot, FileContent, NodeState, Place, Stamp, Stamped, Value};
use ferry_protocol::read::resolve;
use ferry_protocol::wire::{self, FeedPage, NodeUpdate};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, DeviceId, Epoch, Manifest, Name, NodeId, ReplicaId};

const NAMES: [&[u8]; 8] = [b"a", b"b", b"A", b".ferry", b"a (conflicted copy)", b"\xff\xfe", b"\x1b[2J", b"con"];
const OWN: u8 = 1;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn replica(n: u8) -> ReplicaId {
    ReplicaId::from_bytes([n; 16])
}

fn stamp(input: &mut Input<'_>) -> Stamp {
    Stamp { counter: input.number(), replica: replica(1 + input.below(4)) }
}

fn content(input: &mut Input<'_>) -> Option<Content> {
    Some(match input.below(5) {
        0 => Content::Dir,
        1 => Content::Tombstone,
        2 => Content::Symlink([&b"/etc/x"[..], b"..", b"a"][usize::from(input.below(3))].into()),
        3 => Content::File(FileContent::new(Manifest::empty(), input.number() as i64)),
        _ => {
            let text = input.bytes(4);
            let len = u32::try_from(input.number()).unwrap_or(u32::MAX);
            let chunk = ChunkRef { id: ChunkId::of(text), len };
            let manifest = Manifest::new(ContentHash::of(text), vec![chunk; 1 + usize::from(input.below(3))]).ok()?;
            Content::File(FileContent::new(manifest, 0))
        }
    })
}

/// A state as a peer might send it; most are valid, some are not and are never made.
fn update(input: &mut Input<'_>) -> Option<NodeUpdate> {
    let node = id(input.below(10));
    let mut places = Vec::new();
    for _ in 0..1 + input.below(3) {
        let name = Name::new(NAMES[usize::from(input.below(8))]).ok()?;
        places.push(Place { stamp: stamp(input), parent: id(input.below(12)), name });
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.stamp));
    let (mut values, mut context) = (Vec::new(), Vec::new());
    for n in 1..5 {
        let seen = input.number();
        for _ in 0..input.below(3) {
            let author = Author { device: DeviceId::from_bytes([n; 16]), name: "P".into() };
            let dot = Dot { replica: replica(n), counter: input.number().min(seen) };
            values.push(Value { dot, stamp: stamp(input), content: content(input)?, author, wall_ms: input.number() as i64 });
        }
        if seen > 0 {
            context.push((replica(n), seen));
        }
    }
    values.sort_by_key(|value| value.dot);
    let mode = input.flag().then(|| Stamped { stamp: stamp(input), value: u16::from(input.byte()) });
    let mtime_ns = input.flag().then(|| Stamped { stamp: stamp(input), value: input.number() as i64 });
    let state = NodeState::from_parts(places, values, context, Attributes { mode, mtime_ns }).ok()?;
    Some(NodeUpdate { id: node, state })
}

/// A page as it comes off the wire, if it does.
fn page(input: &mut Input<'_>) -> Option<FeedPage> {
    if input.below(8) == 7 {
        return wire::decode(input.bytes(255)).ok();
    }
    let nodes = (0..1 + input.below(5)).filter_map(|_| update(input)).collect();
    let page = FeedPage {
        epoch: Epoch::from_bytes([input.below(3); 16]),
        replica: replica(1 + input.below(4)),
        cursor: input.number(),
        head: input.number(),
        has_more: input.flag(),
        nodes,
    };
    wire::decode(&wire::encode(&page)).ok()
}

/// The tree that is shown is one: each entry stands in a directory of it, and no counter was used up.
fn check(engine: &Engine<MemoryTrees>) {
    let states = engine.trees().states();
    let tree = resolve(&states);
    for path in tree.keys() {
        let (parent, _) = path.split_last().expect("no entry is the root");
        assert!(parent.is_root() || tree.get(&parent).is_some_and(|entry| entry.content.is_dir()), "{path} stands in a directory");
    }
    for (node, state) in &states {
        assert!(*node != NodeId::ROOT && state.places().iter().all(|p| p.parent != *node));
        // What was checked when it came cannot fail when it is read again.
        let again = NodeState::from_parts(
            state.places().to_vec(),
            state.body().values().to_vec(),
            state.body().context().to_vec(),
            state.attributes().clone(),
        );
        assert_eq!(again.as_ref(), Ok(state));
    }
}

/// A list of pages.
pub fn page_apply(bytes: &[u8]) {
    let author = Author { device: DeviceId::default(), name: "T".into() };
    let mut engine = Engine::open(MemoryTrees::new(replica(OWN)), author, Policy::default()).expect("memory does not fail");
    engine.begin_run(Epoch::from_bytes([9; 16])).expect("memory does not fail");
    assert!(engine.next_sync(), "before all else what is on the disk is made durable");
    engine.handle_sync(Ok(()));
    let (mut input, mut lives, mut now_ms) = (Input(bytes), 100, 0);
    while !input.is_empty() {
        let since = input.flag().then(|| (Epoch::from_bytes([input.below(3); 16]), input.number()));
        let (carries, counts) = (input.flag(), input.flag());
        let Some(page) = page(&mut input) else { continue };
        let (before, clock) = (engine.trees().states(), engine.trees().meta().clock);
        match engine.handle_peer_page(&page, since, carries, counts) {
            Ok(heard) if !heard.follows => assert_eq!(engine.trees().states(), before, "a page after a gap is not taken in"),
            Ok(_) => {
                let now = engine.trees().states();
                for update in &page.nodes {
                    let mut joined = now.get(&update.id).cloned().unwrap_or_else(|| panic!("{:?} is not there: {page:?}", update.id));
                    assert!(!joined.join(&update.state), "a page that was taken in brings nothing new");
                }
                let leap = LAMPORT_JUMP_MAX.saturating_mul(page.nodes.len() as u64);
                assert!(engine.trees().meta().clock <= clock.saturating_add(leap).saturating_add(64), "no leap of the clock");
            }
            Err(HearError::RolledBack) => {
                assert_eq!(engine.trees().states(), before, "nothing of a page that is refused is taken in");
                lives = if lives == u8::MAX { 100 } else { lives + 1 };
                engine.begin_new_life(replica(lives)).expect("memory does not fail");
            }
            Err(HearError::ClockJump | HearError::Epoch(_)) => assert_eq!(engine.trees().states(), before),
            Err(HearError::Trees(error)) => panic!("{error}"),
        }
        check(&engine);
        now_ms += 1000;
        engine.set_time(now_ms, 0);
        let mut cursor = None;
        for _ in 0..4 {
            let Ok(Some(own)) = engine.feed_page(cursor, 3) else { break };
            wire::decode::<FeedPage>(&wire::encode(&own.page)).expect("what we tell on is what others take in");
            cursor = Some((own.page.epoch, own.page.cursor));
        }
        engine.plan(64).expect("a plan can be made");
    }
}
