//! One contract suite for every implementation of [`Trees`]. Each check panics with what is broken.

use crate::disk::{Kind, Stat};
use crate::memory::MemoryTrees;
use crate::trees::{FeedRun, Item, ItemContent, ItemKey, NodeRecord, PARKED, PeerCursor, Trees};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Dot, Epoch, Manifest, Name, NodeId, NodeState, Place, ReplicaId, Stamp};

/// Runs the whole suite. `make` gives fresh, empty trees each time.
pub fn run<T: Trees>(mut make: impl FnMut() -> T) {
    nodes_and_feed(make());
    kids(make());
    items_and_their_indexes(make());
    two_items_meet_at_one_place(make());
    unsent(make());
    meta_counts(make());
    runs_and_peers(make());
    pages_are_complete(make());
    many_links_to_one_inode(make());
    a_cleared_tree_is_empty(make());
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn record(seq: u64, at: &str) -> NodeRecord {
    let stamp = Stamp { counter: seq, replica: ReplicaId::from_bytes([1; 16]) };
    NodeRecord { state: NodeState::new(Place { stamp, parent: NodeId::ROOT, name: name(at) }), seq, place: 0 }
}

fn file(parent: NodeId, at: &str, ino: u64, chunks: &[&[u8]]) -> Item {
    let whole: Vec<u8> = chunks.concat();
    let refs = chunks.iter().map(|c| ChunkRef { id: ChunkId::of(c), len: c.len() as u32 }).collect();
    let manifest = Manifest::new(ContentHash::of(&whole), refs).expect("a manifest");
    let stat = Stat {
        dev: 1,
        ino,
        birth_ns: Some(ino as i64),
        kind: Kind::File,
        size: whole.len() as u64,
        mtime_ns: -5,
        ctime_ns: i64::MAX,
        mode: 0o640,
        links: 1,
    };
    let dots = vec![Dot { replica: ReplicaId::from_bytes([1; 16]), counter: 1 }];
    Item { parent, name: name(at), stat, content: ItemContent::File(manifest), dots, mode: 0o640, mtime_ns: -5 }
}

fn a_cleared_tree_is_empty<T: Trees>(mut trees: T) {
    let (key, item) = (ItemKey::primary(id(1)), file(NodeId::ROOT, "a", 7, &[b"content"]));
    trees.put_node(id(1), &record(1, "a")).expect("put");
    trees.set_kid(NodeId::ROOT, &name("a"), id(1), true).expect("put");
    trees.put_item(key, Some(&item)).expect("put");
    trees.set_unsent(id(1), true).expect("put");
    trees.meta_mut().clock = 9;
    trees.set_feed_runs(&[run_of(1, 0)]).expect("put");
    trees.set_peer_cursor(peer(1), Some(read_to(1, 4))).expect("put");
    let replica = trees.meta().replica;
    trees.clear().expect("clear");
    assert_eq!((trees.node(id(1)), trees.nodes_after(None, 9), trees.feed_after(0, 9)), (Ok(None), Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!((trees.kids_named(NodeId::ROOT, &name("a")), trees.kids_after(NodeId::ROOT, None, 9)), (Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!((trees.item(key), trees.items_of(id(1)), trees.item_at(NodeId::ROOT, &name("a"))), (Ok(None), Ok(Vec::new()), Ok(None)));
    assert_eq!((trees.items_of_inode(1, 7), trees.holders(ChunkId::of(b"content"), 9)), (Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!((trees.is_unsent(id(1)), trees.unsent_after(None, 9)), (Ok(false), Ok(Vec::new())));
    assert_eq!(
        (trees.peer_cursor(peer(1)), trees.feed_runs()),
        (Ok(None), Ok(vec![run_of(1, 0)])),
        "what was heard is forgotten, what was told is not"
    );
    let meta = trees.meta();
    assert_eq!((meta.items, meta.bytes, meta.clock, meta.replica), (0, 0, 9, replica), "the counts follow, the rest stays");
    trees.put_item(key, Some(&item)).expect("put");
    assert_eq!(trees.item_at(NodeId::ROOT, &name("a")), Ok(Some(key)), "and it is used again");
}

fn nodes_and_feed<T: Trees>(mut trees: T) {
    assert_eq!(trees.node(id(1)), Ok(None));
    trees.put_node(id(1), &record(1, "a")).expect("put");
    trees.put_node(id(2), &record(2, "b")).expect("put");
    assert_eq!(trees.node(id(1)), Ok(Some(record(1, "a"))), "a read sees earlier writes");
    assert_eq!(trees.feed_after(0, 10), Ok(vec![(1, id(1)), (2, id(2))]));
    trees.put_node(id(1), &record(3, "a2")).expect("put");
    assert_eq!(trees.feed_after(0, 10), Ok(vec![(2, id(2)), (3, id(1))]), "a node stands in the feed once, at its newest change");
    assert_eq!(trees.feed_after(2, 10), Ok(vec![(3, id(1))]), "after is exclusive");
    assert_eq!(trees.feed_after(0, 1), Ok(vec![(2, id(2))]));
    let ids: Vec<NodeId> = trees.nodes_after(None, 10).expect("nodes").into_iter().map(|(n, _)| n).collect();
    assert_eq!(ids, [id(1), id(2)]);
    assert_eq!(trees.nodes_after(Some(id(1)), 10).expect("nodes").len(), 1);
}

fn kids<T: Trees>(mut trees: T) {
    for (parent, at, node) in [(9, "b", 1), (9, "a", 2), (9, "a", 3), (9, "ab", 4), (8, "a", 5)] {
        trees.set_kid(id(parent), &name(at), id(node), true).expect("set");
    }
    trees.set_kid(id(9), &name("a"), id(2), true).expect("twice is once");
    assert_eq!(trees.kids_named(id(9), &name("a")), Ok(vec![id(2), id(3)]), "neither a longer name nor another directory");
    let all = [("a", 2), ("a", 3), ("ab", 4), ("b", 1)].map(|(n, i)| (name(n), id(i)));
    assert_eq!(trees.kids_after(id(9), None, 10), Ok(all.to_vec()));
    assert_eq!(trees.kids_after(id(9), Some((&name("a"), id(2))), 2), Ok(all[1..3].to_vec()));
    trees.set_kid(id(9), &name("a"), id(3), false).expect("remove");
    trees.set_kid(id(9), &name("a"), id(3), false).expect("twice is once");
    assert_eq!(trees.kids_named(id(9), &name("a")), Ok(vec![id(2)]));
    assert_eq!(trees.kids_after(NodeId::ROOT, None, 10), Ok(Vec::new()));
}

fn items_and_their_indexes<T: Trees>(mut trees: T) {
    let (key, copy) = (ItemKey::primary(id(1)), ItemKey { node: id(1), copy: Some(Dot { replica: ReplicaId::default(), counter: 7 }) });
    let first = file(NodeId::ROOT, "f", 11, &[b"one", b"two"]);
    let second = file(id(9), "f (copy)", 12, &[b"two", b"three"]);
    trees.put_item(copy, Some(&second)).expect("put");
    trees.put_item(key, Some(&first)).expect("put");
    assert_eq!(trees.item(key), Ok(Some(first.clone())));
    let both: Vec<ItemKey> = trees.items_of(id(1)).expect("items").into_iter().map(|(k, _)| k).collect();
    assert_eq!(both, [key, copy], "the primary first");
    assert_eq!(trees.item_at(NodeId::ROOT, &name("f")), Ok(Some(key)));
    assert_eq!(trees.items_of_inode(1, 11), Ok(vec![key]));
    assert_eq!(trees.items_of_inode(2, 11), Ok(Vec::new()));
    assert_eq!(trees.holders(ChunkId::of(b"two"), 10), Ok(vec![key, copy]));
    assert_eq!(trees.holders(ChunkId::of(b"two"), 1).map(|h| h.len()), Ok(1));
    let moved = file(id(9), "g", 13, &[b"four"]);
    trees.put_item(key, Some(&moved)).expect("put");
    assert_eq!(trees.item_at(NodeId::ROOT, &name("f")), Ok(None), "the old place is given up");
    assert_eq!(trees.items_of_inode(1, 11), Ok(Vec::new()));
    assert_eq!(trees.holders(ChunkId::of(b"two"), 10), Ok(vec![copy]));
    assert_eq!(trees.items_in(id(9), None, 10), Ok(vec![(name("f (copy)"), copy), (name("g"), key)]));
    assert_eq!(trees.items_in(id(9), Some(&name("f (copy)")), 10), Ok(vec![(name("g"), key)]));
    trees.put_item(key, None).expect("remove");
    trees.put_item(key, None).expect("twice is once");
    assert_eq!((trees.item(key), trees.item_at(id(9), &name("g"))), (Ok(None), Ok(None)));
    assert_eq!(trees.holders(ChunkId::of(b"four"), 10), Ok(Vec::new()));
}

/// For a moment two items may claim one place; the newest one is found there, and removing the older one does not hide it.
fn two_items_meet_at_one_place<T: Trees>(mut trees: T) {
    let (old, new) = (ItemKey::primary(id(1)), ItemKey::primary(id(2)));
    trees.put_item(old, Some(&file(NodeId::ROOT, "f", 11, &[b"x"]))).expect("put");
    trees.put_item(new, Some(&file(NodeId::ROOT, "f", 11, &[b"x"]))).expect("put");
    assert_eq!(trees.item_at(NodeId::ROOT, &name("f")), Ok(Some(new)));
    assert_eq!(trees.items_of_inode(1, 11), Ok(vec![old, new]));
    trees.put_item(old, None).expect("remove");
    assert_eq!(trees.item_at(NodeId::ROOT, &name("f")), Ok(Some(new)));
    assert_eq!(trees.items_of_inode(1, 11), Ok(vec![new]));
    assert_eq!(trees.holders(ChunkId::of(b"x"), 10), Ok(vec![new]));
}

fn unsent<T: Trees>(mut trees: T) {
    assert_eq!(trees.is_unsent(id(1)), Ok(false));
    for n in [3, 1, 2] {
        trees.set_unsent(id(n), true).expect("set");
    }
    trees.set_unsent(id(2), true).expect("twice is once");
    assert_eq!(trees.unsent_after(None, 10), Ok(vec![id(1), id(2), id(3)]));
    assert_eq!(trees.unsent_after(Some(id(1)), 1), Ok(vec![id(2)]));
    trees.set_unsent(id(2), false).expect("set");
    assert_eq!((trees.is_unsent(id(1)), trees.is_unsent(id(2)), trees.unsent()), (Ok(true), Ok(false), 2));
}

fn meta_counts<T: Trees>(mut trees: T) {
    let key = ItemKey::primary(id(1));
    trees.put_item(key, Some(&file(NodeId::ROOT, "f", 1, &[b"12345"]))).expect("put");
    trees.put_item(ItemKey::primary(id(2)), Some(&file(NodeId::ROOT, "g", 2, &[b"123"]))).expect("put");
    assert_eq!((trees.meta().items, trees.meta().bytes), (2, 8));
    trees.put_item(key, Some(&file(NodeId::ROOT, "f", 1, &[b"1"]))).expect("put");
    assert_eq!((trees.meta().items, trees.meta().bytes), (2, 4));
    trees.put_item(key, None).expect("remove");
    assert_eq!((trees.meta().items, trees.meta().bytes), (1, 3));
    trees.meta_mut().clock = 42;
    assert_eq!(trees.meta().clock, 42);
}

fn life(n: u8) -> Epoch {
    Epoch::from_bytes([n; 16])
}

fn peer(n: u8) -> ReplicaId {
    ReplicaId::from_bytes([n; 16])
}

fn read_to(n: u8, seq: u64) -> PeerCursor {
    PeerCursor { run: life(n), seq, at_end: seq.is_multiple_of(2) }
}

fn run_of(n: u8, began: u64) -> FeedRun {
    FeedRun { id: life(n), began, leap: (began / 2, began) }
}

fn runs_and_peers<T: Trees>(mut trees: T) {
    assert_eq!((trees.feed_runs(), trees.peer_cursor(peer(1))), (Ok(Vec::new()), Ok(None)));
    trees.set_feed_runs(&[run_of(1, 0), run_of(2, u64::MAX)]).expect("set");
    assert_eq!(trees.feed_runs(), Ok(vec![run_of(1, 0), run_of(2, u64::MAX)]));
    trees.set_feed_runs(&[run_of(2, 7)]).expect("set");
    assert_eq!(trees.feed_runs(), Ok(vec![run_of(2, 7)]));
    trees.set_peer_cursor(peer(1), Some(read_to(1, 4))).expect("set");
    trees.set_peer_cursor(peer(0xFF), Some(read_to(2, 5))).expect("set");
    trees.set_peer_cursor(peer(1), Some(read_to(3, 6))).expect("set");
    assert_eq!((trees.peer_cursor(peer(1)), trees.peer_cursor(peer(0xFF))), (Ok(Some(read_to(3, 6))), Ok(Some(read_to(2, 5)))));
    trees.set_peer_cursor(peer(1), None).expect("remove");
    trees.set_peer_cursor(peer(1), None).expect("twice is once");
    assert_eq!((trees.peer_cursor(peer(1)), trees.peer_cursor(peer(0xFF))), (Ok(None), Ok(Some(read_to(2, 5)))));
}

fn pages_are_complete<T: Trees>(mut trees: T) {
    for n in 1..=200u8 {
        trees.put_node(id(n), &record(u64::from(n), "n")).expect("put");
        trees.put_item(ItemKey::primary(id(n)), Some(&file(NodeId::ROOT, &format!("n{n:03}"), u64::from(n), &[b"same"]))).expect("put");
    }
    let (mut after, mut count) = (None, 0);
    loop {
        let page = trees.nodes_after(after, 7).expect("a page");
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        count += page.len();
    }
    assert_eq!(count, 200);
    let (mut after, mut count): (Option<Name>, usize) = (None, 0);
    loop {
        let page = trees.items_in(NodeId::ROOT, after.as_ref(), 7).expect("a page");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        count += page.len();
    }
    assert_eq!(count, 200);
}

fn many_links_to_one_inode<T: Trees>(mut trees: T) {
    for n in 1..=150u8 {
        trees.put_item(ItemKey::primary(id(n)), Some(&file(NodeId::ROOT, &format!("n{n:03}"), 7, &[b"same"]))).expect("put");
    }
    assert_eq!(trees.items_of_inode(1, 7).map(|keys| keys.len()), Ok(150), "all items of an inode");
    assert_eq!(trees.holders(ChunkId::of(b"same"), usize::MAX).map(|keys| keys.len()), Ok(150));
}

/// A random history on these trees and on [`MemoryTrees`]: after every write all reads answer alike. `between` may commit, close and open the
/// trees between two writes; it is given a random number.
pub fn agrees_with_memory<T: Trees>(mut trees: T, seed: u64, writes: usize, mut between: impl FnMut(T, u64) -> T) {
    let mut memory = MemoryTrees::new(trees.meta().replica);
    let mut numbers = Numbers(seed);
    for turn in 0..writes {
        write(&mut numbers.clone(), &mut memory, turn);
        write(&mut numbers, &mut trees, turn);
        trees = between(trees, numbers.next());
        let (limit, after) = (1 + numbers.below(9), numbers.clone());
        let (reads, wanted) = (all_reads(&trees, limit, after.clone()), all_reads(&memory, limit, after));
        assert_eq!(reads, wanted, "seed {seed}, after write {turn}");
        assert_eq!(trees.meta(), memory.meta(), "seed {seed}, after write {turn}");
    }
}

/// Numbers that a seed repeats.
#[derive(Clone)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const CHUNKS: [&[u8]; 4] = [b"one", b"two", b"three", b""];

fn some_id(numbers: &mut Numbers) -> NodeId {
    [NodeId::ROOT, id(1), id(2), id(3), id(0xFE), PARKED][numbers.below(6)]
}

fn some_name(numbers: &mut Numbers) -> Name {
    Name::new([&b"a"[..], b"ab", b"b", b"\xFF", b"\x01", &[b'x'; 255]][numbers.below(6)]).expect("a name")
}

fn some_key(numbers: &mut Numbers) -> ItemKey {
    let dot = Dot { replica: ReplicaId::from_bytes([numbers.below(2) as u8; 16]), counter: [1, 255, 256][numbers.below(3)] };
    ItemKey { node: some_id(numbers), copy: (numbers.below(2) == 0).then_some(dot) }
}

fn some_item(numbers: &mut Numbers) -> Item {
    let chunks: Vec<&[u8]> = (0..numbers.below(3)).map(|_| CHUNKS[numbers.below(3)]).collect();
    let mut item = file(some_id(numbers), "a", [1, 256, u64::MAX][numbers.below(3)], &chunks);
    item.name = some_name(numbers);
    item.content = match numbers.below(4) {
        0 => ItemContent::Dir,
        1 => ItemContent::Symlink(b"target"[..].into()),
        _ => item.content,
    };
    item
}

fn write<T: Trees>(numbers: &mut Numbers, trees: &mut T, turn: usize) {
    let wrote = match numbers.below(11) {
        0 | 1 => trees.put_node(some_id(numbers), &record(turn as u64 + 1, "n")),
        2 | 3 => trees.set_kid(some_id(numbers), &some_name(numbers), some_id(numbers), numbers.below(3) > 0),
        4 => trees.put_item(some_key(numbers), None),
        5..8 => trees.put_item(some_key(numbers), Some(&some_item(numbers))),
        8 => trees.set_unsent(some_id(numbers), numbers.below(2) == 0),
        9 => trees.set_feed_runs(&[run_of(numbers.below(9) as u8, turn as u64)]),
        _ => trees
            .set_peer_cursor(peer(numbers.below(3) as u8), (numbers.below(3) > 0).then(|| read_to(numbers.below(3) as u8, turn as u64))),
    };
    wrote.expect("a write");
    trees.meta_mut().seq = turn as u64 + 1;
}

/// Everything that can be asked, in pages of `limit` and from random places, as text.
fn all_reads<T: Trees>(trees: &T, limit: usize, mut numbers: Numbers) -> Vec<String> {
    let mut out = vec![
        format!("{:?}", trees.nodes_after(None, limit)),
        format!("{:?}", trees.nodes_after(Some(some_id(&mut numbers)), limit)),
        format!("{:?}", trees.feed_after(numbers.below(40) as u64, limit)),
        format!("{:?} {}", trees.unsent_after(None, limit), trees.unsent()),
        format!("{:?}", trees.unsent_after(Some(some_id(&mut numbers)), limit)),
    ];
    for node in [NodeId::ROOT, id(1), id(2), id(3), id(0xFE), PARKED] {
        let (name, from) = (some_name(&mut numbers), some_id(&mut numbers));
        out.push(format!("{:?} {:?}", trees.node(node), trees.is_unsent(node)));
        out.push(format!("{:?} {:?}", trees.items_of(node), trees.item(some_key(&mut numbers))));
        out.push(format!("{:?} {:?}", trees.kids_named(node, &name), trees.kids_after(node, Some((&name, from)), limit)));
        out.push(format!("{:?} {:?}", trees.kids_after(node, None, limit), trees.item_at(node, &name)));
        out.push(format!("{:?} {:?}", trees.items_in(node, None, limit), trees.items_in(node, Some(&name), limit)));
    }
    out.push(format!("{:?} {:?}", trees.feed_runs(), [0, 1, 2].map(|n| trees.peer_cursor(peer(n)))));
    for ino in [1, 256, u64::MAX] {
        out.push(format!("{:?}", trees.items_of_inode(1, ino)));
    }
    for chunk in CHUNKS {
        out.push(format!("{:?} {:?}", trees.holders(ChunkId::of(chunk), usize::MAX), trees.holders(ChunkId::of(chunk), limit)));
    }
    out
}
