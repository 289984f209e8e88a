//! A laboratory for the engine: real engines on simulated disks, driven in large steps, with a batch executed as honestly or as badly as a property
//! asks for. After every answer to an engine the trees are checked.

use ferry_engine::memory::MemoryTrees;
use ferry_engine::trees::{PARKED, Trees};
use ferry_engine::{Batch, Commit, DiskAction, DiskOutcome, Engine, Fetch, HearError, ItemContent, ItemKey, Planted, Policy};
use ferry_protocol::wire::{CommitReply, CommitRequest};
use ferry_protocol::{Author, ChunkId, CommitId, ContentHash, DeviceId, NodeId, read};
use ferry_tests::sim::calm::{Tree, text};
use ferry_tests::sim::device::replica;
use ferry_tests::sim::disk::Bytes;
use ferry_tests::sim::{Rng, SimDisk, SimRelay};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rounds after which a device that still works does not come to rest (I9): a plan is one round, and so is a look around.
const ROUNDS_MAX: u32 = 50;
/// How often a device that has nothing to do is woken by its own deadline.
const WAITS_MAX: u32 = 8;

/// How the actions of a batch are executed.
#[derive(Debug, Clone)]
pub enum Way {
    /// In their order, and answered.
    Honest,
    /// In a random order, and answered.
    Shuffled(Rng),
    /// Some of them, in a random order, then the daemon dies and starts again; so often at most.
    Crashing(Rng, u32),
}

/// One device.
pub struct Hand {
    pub disk: SimDisk,
    pub engine: Engine<MemoryTrees>,
    pub way: Way,
    /// Whether a person approves what the brake holds, at once.
    pub approves: bool,
    /// Everything that was done to the disk.
    pub actions: Vec<DiskAction>,
    /// Chunks that were fetched from the relay although this disk held them, and chunks sent although the relay held their content.
    pub needless: Vec<ChunkId>,
    /// How many commits were made.
    pub commits: u64,
    index: usize,
    lives: u64,
    policy: Policy,
    now_ms: u64,
    staged: BTreeMap<ContentHash, Bytes>,
}

/// Devices and a relay.
pub struct Lab {
    pub hands: Vec<Hand>,
    pub relay: SimRelay,
}

fn author(index: usize) -> Author {
    Author { device: DeviceId::from_bytes([index as u8; 16]), name: Arc::from(format!("D{index}")) }
}

impl Lab {
    /// So many fresh devices under this policy.
    pub fn new(count: usize, policy: &Policy) -> Self {
        Self { hands: (0..count).map(|i| Hand::new(i, policy.clone())).collect(), relay: SimRelay::default() }
    }

    /// Lets one device work until it rests.
    pub fn settle(&mut self, index: usize) {
        self.hands[index].settle(Some(&mut self.relay));
    }

    /// Lets one device take in what its user did, without the relay.
    pub fn settle_alone(&mut self, index: usize) {
        self.hands[index].settle(None);
    }

    /// Lets all devices work, in this order, until all rest.
    pub fn settle_in_order(&mut self, order: &[usize]) {
        for _ in 0..ROUNDS_MAX {
            let before = self.progress();
            order.iter().for_each(|i| self.settle(*i));
            if self.progress() == before {
                return;
            }
        }
        panic!("the devices do not come to rest: {:?}", self.trees());
    }

    /// Lets all devices work until all rest.
    pub fn settle_all(&mut self) {
        let order: Vec<usize> = (0..self.hands.len()).collect();
        self.settle_in_order(&order);
    }

    fn progress(&self) -> (u64, Vec<usize>) {
        (self.relay.head, self.hands.iter().map(|h| h.actions.len()).collect())
    }

    /// What stands on a disk.
    pub fn tree(&self, index: usize) -> Tree {
        text(&self.hands[index].disk.tree())
    }

    fn trees(&self) -> Vec<Tree> {
        (0..self.hands.len()).map(|i| self.tree(i)).collect()
    }

    /// I1: all disks are equal, modes and all, and are what the relay's states show. The common tree.
    pub fn check_equal(&self) -> Tree {
        let shown: BTreeSet<String> = read::resolve(&self.relay.states()).keys().map(ToString::to_string).collect();
        let first = self.hands[0].disk.tree();
        let held: BTreeSet<String> = first.keys().map(ToString::to_string).collect();
        assert_eq!(held, shown, "the disk is not what the relay's states show");
        for (index, hand) in self.hands.iter().enumerate() {
            assert_eq!(text(&first), self.tree(index), "D{index} differs from D0");
            assert_eq!(first, hand.disk.tree(), "D{index} differs from D0 in a mode");
            assert!(hand.disk.parked().is_empty(), "D{index} left something parked");
        }
        self.tree(0)
    }
}

impl Hand {
    /// A fresh device with an empty disk.
    pub fn new(index: usize, policy: Policy) -> Self {
        let trees = MemoryTrees::new(replica(index, 1));
        let mut disk = SimDisk::new(100 + index as u64);
        disk.careless = policy.planted == Some(Planted::NoIdentityCheck);
        let mut engine = Engine::open(trees, author(index), policy.clone()).expect("trees in memory");
        engine.rescan();
        Self {
            disk,
            engine,
            way: Way::Honest,
            approves: true,
            actions: Vec::new(),
            needless: Vec::new(),
            commits: 0,
            index,
            lives: 1,
            policy,
            now_ms: 0,
            staged: BTreeMap::new(),
        }
    }

    /// The daemon starts again on these trees.
    pub fn reopen(&mut self, trees: MemoryTrees) {
        self.engine = Engine::open(trees, author(self.index), self.policy.clone()).expect("trees in memory");
        self.engine.set_time(self.now_ms, self.now_ms as i64);
        self.engine.rescan();
        self.staged.clear();
    }

    /// The index is lost.
    pub fn lose_index(&mut self) {
        self.lives += 1;
        self.reopen(MemoryTrees::new(replica(self.index, self.lives)));
    }

    /// Works until nothing is left to do, with or without the relay.
    pub fn settle(&mut self, mut relay: Option<&mut SimRelay>) {
        let mut waits = 0;
        for _ in 0..ROUNDS_MAX {
            // What is on a fresh device's disk is compared with what the others have (adoption).
            let mut busy = relay.as_deref().is_some_and(|relay| self.hear(relay, 3));
            while self.look_around() {}
            busy |= self.work(relay.as_deref_mut());
            if let Some(relay) = relay.as_deref_mut() {
                busy |= self.say(relay);
            }
            if busy {
                continue;
            }
            if self.approves && self.engine.held_deletes().is_some() {
                self.engine.approve_deletes().expect("trees in memory");
                continue;
            }
            match self.engine.deadline_ms() {
                // What is blocked is tried again and again: for a while.
                Some(at) if waits < WAITS_MAX => {
                    waits += 1;
                    self.set_time(at);
                }
                _ => return,
            }
        }
        panic!(
            "D{} does not come to rest: {:?}, {:?}",
            self.index,
            self.engine.pending(),
            self.actions.iter().rev().take(6).collect::<Vec<_>>()
        );
    }

    fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.engine.set_time(now_ms, now_ms as i64);
    }

    /// Looks at what the engine asks for. Whether it asked.
    pub fn look_around(&mut self) -> bool {
        if self.engine.next_sync() {
            self.engine.handle_sync(Ok(()));
        }
        let looks = self.engine.next_looks(8).expect("trees in memory");
        for look in &looks {
            let result = self.disk.look(look);
            self.engine.handle_look(look, result).expect("trees in memory");
            self.check();
        }
        let tasks = self.engine.next_hashes(8).expect("trees in memory");
        for task in &tasks {
            let result = self.disk.hash(task);
            self.engine.handle_hash(task, result).expect("trees in memory");
            self.check();
        }
        !looks.is_empty() || !tasks.is_empty()
    }

    /// Reads what the relay has, in pages of this size. Whether there was anything.
    pub fn hear(&mut self, relay: &SimRelay, limit: usize) -> bool {
        let mut any = false;
        loop {
            let cursor = self.engine.relay_cursor();
            if self.engine.meta().heard && cursor == Some((relay.epoch, relay.head)) {
                return any;
            }
            let after = cursor.filter(|(epoch, _)| *epoch == relay.epoch).map_or(0, |(_, cursor)| cursor);
            any = true;
            match self.engine.handle_page(&relay.page(after, limit), after) {
                Err(HearError::Epoch(epoch)) => self.engine.handle_epoch(epoch).expect("trees in memory"),
                result => drop(result.expect("an honest page")),
            }
            self.check();
        }
    }

    /// Does what the engine plans. Whether it planned anything.
    pub fn work(&mut self, relay: Option<&mut SimRelay>) -> bool {
        let plan = self.engine.plan(6).expect("trees in memory");
        let any = !plan.fetches.is_empty() || plan.batch.is_some();
        for fetch in &plan.fetches {
            let relay = relay.as_deref().expect("without a relay nothing new is wanted");
            let bytes = self.assemble(fetch, relay);
            self.staged.insert(fetch.manifest.hash(), bytes);
            self.engine.handle_fetch(fetch.manifest.hash(), Ok(())).expect("trees in memory");
        }
        if let Some(batch) = plan.batch {
            self.execute(batch);
        }
        for content in self.engine.take_unused_staged() {
            self.staged.remove(&content);
        }
        self.check();
        any
    }

    fn assemble(&mut self, fetch: &Fetch, relay: &SimRelay) -> Bytes {
        let own: BTreeSet<ChunkId> = self.chunks_on_disk();
        let mut out = Vec::new();
        for chunk in fetch.manifest.chunks() {
            let local = fetch.local.iter().filter(|l| l.chunk == chunk.id).find_map(|l| {
                let bytes = self.disk.stat(&l.path).filter(|s| s.same_version(&l.stat)).and_then(|_| self.disk.read(&l.path))?;
                bytes.get(l.offset as usize..l.offset as usize + chunk.len as usize).map(<[u8]>::to_vec)
            });
            if local.is_none() && own.contains(&chunk.id) {
                self.needless.push(chunk.id);
            }
            let bytes = local.filter(|b| ChunkId::of(b) == chunk.id).or_else(|| relay.chunk(chunk.id));
            out.extend_from_slice(&bytes.expect("what is committed is there (I7)"));
        }
        assert_eq!(ContentHash::of(&out), fetch.manifest.hash(), "I5");
        out.into()
    }

    fn chunks_on_disk(&self) -> BTreeSet<ChunkId> {
        let files = self.disk.tree().into_values().filter(|s| s.kind == ferry_engine::Kind::File);
        files.flat_map(|s| s.bytes.chunks(ferry_tests::sim::disk::CHUNK_BYTES).map(ChunkId::of).collect::<Vec<_>>()).collect()
    }

    fn execute(&mut self, batch: Batch) {
        let trees = self.engine.trees().clone();
        let mut order: Vec<usize> = (0..batch.actions.len()).collect();
        let mut dies = false;
        match &mut self.way {
            Way::Honest => {}
            Way::Shuffled(rng) => shuffle(&mut order, rng),
            Way::Crashing(rng, left) => {
                if *left > 0 {
                    *left -= 1;
                    dies = true;
                    shuffle(&mut order, rng);
                    order.truncate(rng.below(batch.actions.len() + 1));
                }
            }
        }
        let mut outcomes = vec![DiskOutcome::Stale(None); batch.actions.len()];
        for at in order {
            let action = &batch.actions[at];
            outcomes[at] = self.disk.execute(action, &self.staged);
            if matches!(outcomes[at], DiskOutcome::Done(_)) {
                self.actions.push(action.clone());
            }
        }
        assert!(self.disk.crimes.is_empty(), "I6: {:?}", self.disk.crimes);
        if dies {
            self.reopen(trees);
        } else {
            self.engine.handle_batch(batch.id, outcomes).expect("trees in memory");
        }
    }

    /// Sends what the relay may lack. Whether there was anything.
    pub fn say(&mut self, relay: &mut SimRelay) -> bool {
        let Some(commit) = self.engine.next_commit(4, 1 << 20).expect("trees in memory") else { return false };
        self.commits += 1;
        let mut id = [self.index as u8; 16];
        id[1..9].copy_from_slice(&self.commits.to_be_bytes());
        id[9..].copy_from_slice(&self.lives.to_be_bytes()[1..]);
        let (epoch, _) = self.engine.relay_cursor().expect("a commit has a base");
        let request = CommitRequest {
            commit: CommitId::from_bytes(id),
            epoch,
            base_seq: commit.base_seq,
            replica: self.engine.meta().replica,
            nodes: commit.nodes.clone(),
            chunks: Vec::new(),
        };
        let mut reply = relay.commit(&request);
        if let CommitReply::MissingChunks(missing) = &reply {
            let mut unreadable = BTreeSet::new();
            for id in missing {
                match self.read_chunk(&commit, *id) {
                    Some(bytes) => relay.upload(&bytes),
                    None => drop(unreadable.insert(*id)),
                }
            }
            if !unreadable.is_empty() {
                self.engine.withhold(&unreadable).expect("trees in memory");
                return true;
            }
            reply = relay.commit(&request);
        }
        self.engine.handle_commit(&reply).expect("trees in memory");
        self.check();
        true
    }

    /// The bytes of a chunk that a commit names, if the file that holds it is as it was.
    fn read_chunk(&self, commit: &Commit, id: ChunkId) -> Option<Vec<u8>> {
        let sources = commit.chunks.iter().filter(|c| c.chunk.id == id).filter_map(|c| c.source.as_ref().map(|s| (c.chunk, s)));
        let bytes = sources.into_iter().find_map(|(chunk, (path, stat, offset))| {
            self.disk.stat(path).filter(|s| s.same_version(stat))?;
            let bytes = self.disk.read(path)?;
            bytes.get(*offset as usize..*offset as usize + chunk.len as usize).map(<[u8]>::to_vec)
        });
        bytes.filter(|b| ChunkId::of(b) == id)
    }

    /// I10, E2: every item stands in a directory that is an item, every node under a node, without cycles.
    fn check(&self) {
        let trees = self.engine.trees();
        let limbo = NodeId::from_bytes([0xFE; 16]);
        for (key, item) in trees.all_items() {
            let (mut at, mut depth) = (item.parent, 0);
            while ![NodeId::ROOT, PARKED, limbo].contains(&at) {
                let parent = trees.item(ItemKey::primary(at)).expect("trees in memory");
                let parent = parent.unwrap_or_else(|| panic!("D{}: {key:?} stands in {at:?}, which is not on disk", self.index));
                assert_eq!(parent.content, ItemContent::Dir, "D{}: {key:?} stands in what is no directory", self.index);
                at = parent.parent;
                depth += 1;
                assert!(depth < 100, "D{}: {key:?} stands in a cycle", self.index);
            }
        }
        for (id, record) in trees.nodes_after(None, usize::MAX).expect("trees in memory") {
            let (mut at, mut place, mut depth) = (id, record, 0);
            while at != NodeId::ROOT {
                at = read::parent_at(&place.state, usize::from(place.place));
                let Some(record) = trees.node(at).expect("trees in memory") else { break };
                place = record;
                depth += 1;
                assert!(depth < 100, "D{}: {id} hangs in a cycle", self.index);
            }
        }
    }
}

fn shuffle(order: &mut [usize], rng: &mut Rng) {
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at + 1));
    }
}
