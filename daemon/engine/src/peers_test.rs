//! Feeds between devices: whatever is lost, late, twice, or read by a device that was set back, everybody ends with the same states.

use crate::engine::Engine;
use crate::hear::HearError;
use crate::memory::MemoryTrees;
use crate::policy::Policy;
use crate::serve::OwnPage;
use crate::trees::{Item, ItemContent, ItemKey, Trees};
use crate::{Kind, Stat};
use ferry_protocol::wire::{FeedPage, NodeUpdate};
use ferry_protocol::{
    Author, ChunkId, ChunkRef, Content, ContentHash, DeviceId, Epoch, Manifest, Name, NodeId, NodeState, Place, ReplicaId,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type TestEngine = Engine<MemoryTrees>;

const RELAY: ReplicaId = ReplicaId::from_bytes([0xEE; 16]);

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn replica(device: u8, life: u8) -> ReplicaId {
    let mut bytes = [life; 16];
    bytes[0] = device;
    ReplicaId::from_bytes(bytes)
}

fn run(n: u8) -> Epoch {
    Epoch::from_bytes([n; 16])
}

fn open(trees: MemoryTrees, number: u8) -> TestEngine {
    let author = Author { device: DeviceId::default(), name: Arc::from("T") };
    let mut engine = Engine::open(trees, author, Policy::default()).unwrap();
    engine.begin_run(run(number)).unwrap();
    assert!(engine.next_sync());
    engine.handle_sync(Ok(()));
    engine
}

fn fresh(device: u8, number: u8) -> TestEngine {
    let mut trees = MemoryTrees::new(replica(device, 1));
    trees.meta_mut().heard = true;
    open(trees, number)
}

/// A link is made, moved or changed here.
fn write(engine: &mut TestEngine, node: NodeId, name: u8) {
    let known = engine.trees.node(node).unwrap().map(|r| r.state);
    let place = Place { stamp: engine.next_stamp(), parent: NodeId::ROOT, name: Name::new([b'a' + name % 20]).unwrap() };
    let mut state = known.unwrap_or_else(|| NodeState::new(place.clone()));
    if name.is_multiple_of(2) {
        state.move_to(place);
    }
    let dots: Vec<_> = state.body().values().iter().map(|v| v.dot).collect();
    let value = engine.new_value(&state, Content::Symlink([name].into()));
    state.body_mut().put(&dots, value);
    engine.write(node, state).unwrap();
}

fn page(engine: &TestEngine, reader: &TestEngine, limit: usize) -> OwnPage {
    let cursor = reader.peer_cursor(engine.meta().replica).unwrap();
    engine.feed_page(cursor, limit).unwrap().expect("heard")
}

fn take(engine: &mut TestEngine, page: &OwnPage) -> Result<crate::Heard, HearError> {
    engine.handle_peer_page(&page.page, page.since, false, false)
}

fn read_all(from: &TestEngine, to: &mut TestEngine, limit: usize) {
    for turn in 0.. {
        assert!(turn < 1000, "a feed never ends");
        let page = page(from, to, limit);
        let heard = take(to, &page).expect("an honest page");
        if heard.follows && !page.page.has_more {
            return;
        }
    }
}

/// What a relay's feed with these states looks like.
fn relay_page(engine: &TestEngine, nodes: &[NodeId], head: u64) -> FeedPage {
    let state = |id: &NodeId| NodeUpdate { id: *id, state: engine.trees.node(*id).unwrap().unwrap().state };
    FeedPage { epoch: run(0xE0), replica: RELAY, cursor: head, head, has_more: false, nodes: nodes.iter().map(state).collect() }
}

#[test]
fn a_feed_is_read_once_and_goes_on_after_a_restart() {
    let (mut a, mut b) = (fresh(1, 1), fresh(2, 2));
    (1..=5).for_each(|n| write(&mut a, id(n), n));
    read_all(&a, &mut b, 2);
    assert_eq!(b.trees.states(), a.trees.states());
    let mut a = open(a.into_trees(), 3);
    write(&mut a, id(2), 9);
    assert_eq!(page(&a, &b, 10).page.nodes, [], "nothing new is told before somebody was heard");
    read_all(&b, &mut a, 10);
    let next = page(&a, &b, 10);
    assert_eq!((next.since, next.page.nodes.len()), (Some((run(1), 5)), 1), "only what is new");
    take(&mut b, &next).unwrap();
    assert_eq!(b.peer_cursor(replica(1, 1)), Ok(Some((run(3), 6))));
    assert_eq!(page(&a, &b, 10).page.nodes, []);
}

#[test]
fn nothing_is_served_before_the_others_were_heard_or_a_run_has_begun() {
    let trees = MemoryTrees::new(replica(1, 1));
    assert_eq!(open(trees.clone(), 1).feed_page(None, 10), Ok(None));
    let author = Author { device: DeviceId::default(), name: Arc::from("T") };
    let mut engine = Engine::open(trees, author, Policy::default()).unwrap();
    engine.trees_mut().meta_mut().heard = true;
    assert_eq!(engine.feed_page(None, 10), Ok(None));
}

#[test]
fn the_end_of_a_peers_feed_counts_as_heard_if_it_may() {
    let mut a = fresh(1, 1);
    (1..=3).for_each(|n| write(&mut a, id(n), n));
    let mut b = open(MemoryTrees::new(replica(2, 1)), 2);
    let first = page(&a, &b, 2);
    b.handle_peer_page(&first.page, first.since, false, true).unwrap();
    assert!(!b.meta().heard, "not in the middle");
    let last = page(&a, &b, 2);
    b.handle_peer_page(&last.page, last.since, false, false).unwrap();
    assert!(!b.meta().heard, "not if it may not");
    b.handle_peer_page(&last.page, last.since, false, true).unwrap();
    assert!(b.meta().heard);
}

/// An index that was set back gives its numbers again. A reader in the middle of its feed may have been about to read a node that has moved back
/// to a number before.
#[test]
fn a_reader_of_an_index_that_was_set_back_misses_nothing() {
    let mut a = fresh(1, 1);
    (1..=6).for_each(|n| write(&mut a, id(n), n));
    let backup = a.trees().clone();
    write(&mut a, id(1), 9);
    let mut b = fresh(2, 2);
    let first = page(&a, &b, 2);
    take(&mut b, &first).unwrap();
    assert!(b.trees.node(id(1)).unwrap().is_none() && first.page.cursor < 6, "passed over: it stands further behind now");
    let a = open(backup, 3);
    let next = page(&a, &b, 100);
    assert_eq!(take(&mut b, &next).map(|h| h.follows), Ok(false), "the middle of a feed is not carried over");
    read_all(&a, &mut b, 3);
    assert_eq!(b.trees.states().len(), 6);
    // From beyond the end of a run, and of a run that nobody knows.
    for cursor in [(run(1), 7), (run(9), 1), (run(3), 7)] {
        assert_eq!(a.feed_page(Some(cursor), 9).unwrap().unwrap().since, None);
    }
    assert_eq!(a.feed_page(Some((run(1), 6)), 9).unwrap().unwrap().since, Some((run(1), 6)));
}

#[test]
fn what_peers_told_is_unsent_and_carried_until_the_relay_or_time_tells() {
    let (mut a, mut b) = (fresh(1, 1), fresh(2, 2));
    (1..=2).for_each(|n| write(&mut a, id(n), n));
    b.handle_page(&relay_page(&a, &[], 1), 0).unwrap();
    let told = page(&a, &b, 10);
    b.handle_peer_page(&told.page, told.since, true, false).unwrap();
    assert_eq!((b.trees.unsent(), b.carried(), b.next_commit(9, 99)), (2, 2, Ok(None)), "the peer brings it");
    let due = b.deadline_ms().unwrap();
    write(&mut b, id(1), 7);
    let commit = b.next_commit(9, 99).unwrap().expect("our own change is ours to bring");
    assert_eq!((commit.nodes.len(), b.carried()), (1, 1));
    b.drop_commit();
    // Told again, with something new of it: what we did the peer does not have.
    write(&mut a, id(1), 5);
    let told = page(&a, &b, 10);
    b.handle_peer_page(&told.page, told.since, true, false).unwrap();
    assert_eq!(b.carried(), 1, "still ours to bring");
    b.handle_page(&relay_page(&b, &[id(1)], 2), 1).unwrap();
    assert_eq!((b.trees.unsent(), b.carried(), b.next_commit(9, 99)), (1, 1, Ok(None)));
    let trees = b.trees().clone();
    b.set_time(due, 0);
    assert_eq!((b.carried(), b.next_commit(9, 99).unwrap().map(|c| c.nodes.len())), (0, Some(1)), "in the end it is sent from here");
    let mut again = open(trees, 4);
    assert_eq!(again.next_commit(9, 99), Ok(None), "the relay is heard first");
    again.handle_page(&relay_page(&b, &[], 2), 2).unwrap();
    assert_eq!(again.next_commit(9, 99).unwrap().map(|c| c.nodes.len()), Some(1), "after a restart too");
}

#[test]
fn what_a_peer_carried_is_sent_when_it_leaves() {
    let (mut a, mut b) = (fresh(1, 1), fresh(2, 2));
    (1..=3).for_each(|n| write(&mut a, id(n), n));
    b.handle_page(&relay_page(&a, &[], 1), 0).unwrap();
    read_all(&a, &mut b, 2);
    assert_eq!((b.trees.unsent(), b.carried()), (3, 0), "the peer has no relay");
    write(&mut a, id(4), 4);
    let told = page(&a, &b, 10);
    b.handle_peer_page(&told.page, told.since, true, false).unwrap();
    assert_eq!(b.carried(), 1);
    b.drop_carrier(replica(9, 9));
    assert_eq!(b.carried(), 1);
    b.drop_carrier(replica(1, 1));
    assert_eq!((b.carried(), b.next_commit(9, 99).unwrap().map(|c| c.nodes.len())), (0, Some(4)));
}

#[test]
fn chunks_are_found_where_they_stand() {
    let mut engine = fresh(1, 1);
    let parts: [&[u8]; 3] = [b"one", b"three", b"one"];
    let refs = parts.iter().map(|c| ChunkRef { id: ChunkId::of(c), len: c.len() as u32 }).collect();
    let manifest = Manifest::new(ContentHash::of(&parts.concat()), refs).unwrap();
    let stat = Stat { dev: 1, ino: 2, birth_ns: None, kind: Kind::File, size: 11, mtime_ns: 3, ctime_ns: 4, mode: 0o644, links: 1 };
    let item = Item {
        parent: NodeId::ROOT,
        name: Name::new("f").unwrap(),
        stat,
        content: ItemContent::File(manifest),
        dots: Vec::new(),
        mode: 0o644,
        mtime_ns: 3,
    };
    engine.trees_mut().put_item(ItemKey::primary(id(1)), Some(&item)).unwrap();
    let ids = [b"three".as_slice(), b"two", b"one"].map(ChunkId::of);
    let places = engine.chunk_places(&ids).unwrap();
    let found: Vec<_> = places.iter().map(|p| p.as_ref().map(|p| (p.path.to_string(), p.stat, p.offset, p.chunk.len))).collect();
    assert_eq!(found[..2], [Some(("f".to_owned(), stat, 3, 5)), None]);
    assert!(matches!(&found[2], Some((_, _, 0 | 8, 3))), "at one of its places");
}

/// Engines, and pages on their way.
struct Lan {
    engines: Vec<TestEngine>,
    pages: Vec<(usize, OwnPage)>,
    backups: Vec<Option<MemoryTrees>>,
    runs: u8,
}

impl Lan {
    fn new(count: usize) -> Self {
        let engines = (0..count).map(|i| fresh(i as u8 + 1, i as u8 + 1)).collect();
        Self { engines, pages: Vec::new(), backups: vec![None; count], runs: count as u8 }
    }

    fn reopen(&mut self, who: usize, trees: MemoryTrees) {
        self.runs += 1;
        self.engines[who] = open(trees, self.runs);
    }

    fn take(&mut self, who: usize, page: &OwnPage) {
        match take(&mut self.engines[who], page) {
            Ok(_) => {}
            Err(HearError::RolledBack) => {
                self.runs += 1;
                self.engines[who].begin_new_life(replica(who as u8 + 1, self.runs)).unwrap();
                self.engines[who].trees_mut().meta_mut().heard = true;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn act(&mut self, (who, what, x, y): (u8, u8, u8, u8)) {
        let count = self.engines.len();
        let who = usize::from(who) % count;
        match what % 16 {
            0..4 => write(&mut self.engines[who], id(1 + x % 6), y),
            4..9 => {
                let reader = (who + 1 + usize::from(x) % (count - 1)) % count;
                let page = page(&self.engines[who], &self.engines[reader], 1 + usize::from(y % 3));
                self.pages.push((reader, page));
            }
            9..13 if !self.pages.is_empty() => {
                let at = usize::from(x) % self.pages.len();
                // Some come twice, some never.
                let (reader, page) = if y.is_multiple_of(3) { self.pages[at].clone() } else { self.pages.swap_remove(at) };
                if y % 5 > 0 {
                    self.take(reader, &page);
                }
            }
            13 => self.reopen(who, self.engines[who].trees().clone()),
            14 => self.backups[who] = Some(self.engines[who].trees().clone()),
            15 if y % 3 == 0 => {
                if let Some(trees) = self.backups[who].clone() {
                    self.reopen(who, trees);
                }
            }
            _ => {}
        }
    }

    /// Everybody reads everybody until nobody hears anything new.
    fn settle(&mut self) {
        for _ in 0..100 {
            let now = |e: &TestEngine| (e.meta().seq, e.meta().replica, e.feed_head());
            let before: Vec<_> = self.engines.iter().map(now).collect();
            for from in 0..self.engines.len() {
                for to in (0..self.engines.len()).filter(|to| *to != from) {
                    for turn in 0.. {
                        assert!(turn < 200, "a feed never ends");
                        let page = page(&self.engines[from], &self.engines[to], 2);
                        self.take(to, &page);
                        let cursor = self.engines[to].peer_cursor(self.engines[from].meta().replica).unwrap();
                        if cursor == Some((page.page.epoch, page.page.cursor)) && !page.page.has_more {
                            break;
                        }
                    }
                }
            }
            if self.engines.iter().map(now).eq(before) {
                return;
            }
        }
        panic!("they do not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn feeds_in_any_order_end_in_one_state(count in 2usize..5, acts in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..80)) {
        let mut lan = Lan::new(count);
        acts.into_iter().for_each(|act| lan.act(act));
        let held: Vec<BTreeMap<_, _>> = lan.engines.iter().map(|e| e.trees().states()).collect();
        lan.settle();
        let end = lan.engines[0].trees().states();
        for engine in &lan.engines {
            prop_assert_eq!(&engine.trees().states(), &end);
            let unsent = engine.trees().unsent_after(None, 99).unwrap();
            prop_assert!(end.keys().all(|id| unsent.contains(id)), "the relay has heard nothing of all this");
        }
        // Who began a new life has forgotten what nobody else had heard.
        let lives = lan.engines.iter().any(|e| e.meta().replica.as_bytes()[1] != 1);
        for (id, state) in held.into_iter().flatten().filter(|_| !lives) {
            prop_assert!(end.get(&id).is_some_and(|e| e.includes(&state)), "{} is gone", id);
        }
    }
}
