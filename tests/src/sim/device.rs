//! One device: a real engine, a simulated disk, and the driver between them cut into small steps, so that anything may happen between two.

use crate::sim::disk::{Bytes, CHUNK_BYTES, SimDisk};
use crate::sim::relay::SimRelay;
use ferry_engine::memory::MemoryTrees;
use ferry_engine::{
    Batch, Commit, DiskOutcome, Engine, Fetch, HashTask, HearError, Heard, LocalSource, Look, LookResult, Merge, Obstacle, Policy,
};
use ferry_protocol::wire::{CommitReply, CommitRequest};
use ferry_protocol::{Author, ChunkId, CommitId, ContentHash, DeviceId, Epoch, Manifest, RelPath, ReplicaId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What a device can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Deliver the watcher's hints.
    Hints,
    /// Ask the engine for looks.
    TakeLooks,
    /// Answer one look.
    AnswerLook,
    /// Ask the engine for hashes.
    TakeHashes,
    /// Answer one hash.
    AnswerHash,
    /// Read a page of the relay's feed.
    Hear,
    /// Ask for a plan.
    Plan,
    /// Answer one fetch.
    AnswerFetch,
    /// Execute the next action of the batch.
    Act,
    /// Answer the batch.
    FinishBatch,
    /// Assemble a commit; the index is durable before it leaves.
    TakeCommit,
    /// Send the commit and take the answer.
    SendCommit,
    /// Make the index durable.
    Flush,
}

/// All steps, in the order of a calm round.
pub const STEPS: [Step; 13] = [
    Step::Hints,
    Step::Hear,
    Step::TakeLooks,
    Step::AnswerLook,
    Step::TakeHashes,
    Step::AnswerHash,
    Step::Plan,
    Step::AnswerFetch,
    Step::Act,
    Step::FinishBatch,
    Step::TakeCommit,
    Step::SendCommit,
    Step::Flush,
];

/// A commit on its way.
#[derive(Debug, Clone)]
pub struct Sending {
    request: CommitRequest,
    commit: Commit,
}

/// A device.
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: usize,
    /// Its disk.
    pub disk: SimDisk,
    /// Its engine.
    pub engine: Engine<MemoryTrees>,
    /// The index as a power cut would find it.
    pub durable: MemoryTrees,
    /// What the engine may do.
    pub policy: Policy,
    /// The watcher's hints, not delivered yet.
    pub hints: Vec<RelPath>,
    /// The commit on its way.
    pub sending: Option<Sending>,
    /// How far this device's wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// All that this disk holds was made durable since this was last asked.
    pub is_synced: bool,
    /// How many actions were executed.
    pub actions: u64,
    /// The last steps, for people.
    pub log: VecDeque<String>,
    /// Whether each step is printed.
    pub verbose: bool,
    /// A hash over everything that happened here.
    pub trace: u64,
    /// Looks under way: every second one has seen the disk already and its answer is late.
    looks: VecDeque<(Look, Option<LookResult>)>,
    hashes: VecDeque<HashTask>,
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) merges: VecDeque<Merge>,
    /// Versions that were kept for merges.
    pub(super) kept: BTreeMap<ContentHash, Bytes>,
    /// How many merges were clean.
    pub merged: u64,
    /// How many merged versions became the next version here.
    pub replaced: u64,
    pub(super) staged: BTreeMap<ContentHash, Bytes>,
    batch: Option<(Batch, Vec<DiskOutcome>)>,
    /// A batch that could not be made durable.
    unsynced: Option<(Batch, Vec<DiskOutcome>)>,
    lives: u64,
    opens: u64,
    commits: u64,
    now_ms: u64,
}

impl Device {
    /// A fresh device with an empty disk.
    pub fn new(index: usize, policy: Policy) -> Self {
        let trees = MemoryTrees::new(replica(index, 1));
        let mut device = Self {
            name: format!("D{index}"),
            index,
            disk: SimDisk::new(100 + index as u64),
            engine: open(trees.clone(), index, 1, &policy),
            durable: trees,
            policy,
            hints: Vec::new(),
            sending: None,
            skew_ms: 0,
            is_synced: false,
            actions: 0,
            log: VecDeque::new(),
            verbose: false,
            trace: 0xCBF2_9CE4_8422_2325,
            looks: VecDeque::new(),
            hashes: VecDeque::new(),
            fetches: VecDeque::new(),
            merges: VecDeque::new(),
            kept: BTreeMap::new(),
            merged: 0,
            replaced: 0,
            staged: BTreeMap::new(),
            batch: None,
            unsynced: None,
            lives: 1,
            opens: 1,
            commits: 0,
            now_ms: 0,
        };
        device.engine.rescan();
        device
    }

    /// The daemon dies and starts again from what was durable.
    pub fn restart(&mut self) {
        let trees = self.durable.clone();
        self.restart_with(trees);
    }

    /// The daemon starts on another disk and index, as after a restore from a backup.
    pub fn restore(&mut self, disk: SimDisk, trees: MemoryTrees) {
        self.disk = disk;
        self.restart_with(trees);
    }

    /// The index is lost: the daemon starts on a fresh one.
    pub fn lose_index(&mut self) {
        self.lives += 1;
        self.restart_with(MemoryTrees::new(replica(self.index, self.lives)));
    }

    fn restart_with(&mut self, trees: MemoryTrees) {
        self.note("restart");
        self.durable = trees.clone();
        self.opens += 1;
        self.engine = open(trees, self.index, self.opens, &self.policy);
        self.engine.set_time(self.now_ms, self.now_ms as i64 + self.skew_ms);
        self.engine.rescan();
        self.hints.clear();
        self.sending = None;
        self.looks.clear();
        self.hashes.clear();
        self.fetches.clear();
        self.merges.clear();
        self.staged.clear();
        self.batch = None;
        self.unsynced = None;
        self.is_synced = false;
    }

    /// Tells the time.
    pub fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.engine.set_time(now_ms, now_ms as i64 + self.skew_ms);
    }

    /// Remembers what happened.
    pub fn note(&mut self, what: impl Into<String>) {
        let line = format!("{} {}", self.name, what.into());
        if self.verbose {
            eprintln!("{line}");
        }
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
        if self.log.len() >= 400 {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Does one step. Whether anything was there to do.
    pub fn step(&mut self, step: Step, relay: &mut SimRelay) -> bool {
        match step {
            Step::Hints => self.deliver_hints(),
            Step::TakeLooks => self.take_looks(),
            Step::AnswerLook => self.answer_look(),
            Step::TakeHashes => self.take_hashes(),
            Step::AnswerHash => self.answer_hash(),
            Step::Hear => self.hear(relay, 3),
            Step::Plan => self.plan(4),
            Step::AnswerFetch => self.answer_fetch(Some(relay), &BTreeMap::new()),
            Step::Act => self.act(),
            Step::FinishBatch => self.finish_batch(),
            Step::TakeCommit => self.take_commit(4),
            Step::SendCommit => self.send_commit(relay),
            Step::Flush => {
                self.durable = self.engine.trees().clone();
                false
            }
        }
    }

    fn deliver_hints(&mut self) -> bool {
        let hints = std::mem::take(&mut self.hints);
        self.engine.handle_hints(&hints).expect("trees in memory");
        !hints.is_empty()
    }

    fn take_looks(&mut self) -> bool {
        let synced = self.sync_if_due();
        let looks = self.engine.next_looks(3).expect("trees in memory");
        let any = synced || !looks.is_empty();
        for look in looks {
            let seen = (look.serial % 2 == 0).then(|| self.disk.look(&look));
            self.looks.push_back((look, seen));
        }
        any
    }

    fn answer_look(&mut self) -> bool {
        let Some((look, seen)) = self.looks.pop_front() else { return false };
        let late = if seen.is_some() { "late " } else { "" };
        let result = seen.unwrap_or_else(|| self.disk.look(&look));
        self.note(format!("{late}look {look:?} -> {result:?}"));
        self.engine.handle_look(&look, result).expect("trees in memory");
        true
    }

    fn take_hashes(&mut self) -> bool {
        let tasks = self.engine.next_hashes(3).expect("trees in memory");
        let any = !tasks.is_empty();
        self.hashes.extend(tasks);
        any
    }

    fn answer_hash(&mut self) -> bool {
        let Some(task) = self.hashes.pop_front() else { return false };
        let result = self.disk.hash(&task);
        self.note(format!("hash {:?} -> {result:?}", task.path));
        self.engine.handle_hash(&task, result).expect("trees in memory");
        true
    }

    /// Reads one page. Whether it brought anything.
    pub fn hear(&mut self, relay: &SimRelay, limit: usize) -> bool {
        let after = match self.engine.relay_cursor() {
            Some((epoch, cursor)) if epoch == relay.epoch => cursor,
            _ => 0,
        };
        let is_heard = self.engine.meta().heard && !self.engine.waits_for_relay();
        if is_heard && self.engine.relay_cursor() == Some((relay.epoch, relay.head)) {
            return false;
        }
        let page = relay.page(after, limit);
        let mut result = self.engine.handle_page(&page, after);
        if let Err(HearError::Epoch(epoch)) = result {
            self.note("epoch changed");
            self.engine.handle_epoch(epoch).expect("trees in memory");
            result = self.engine.handle_page(&relay.page(0, limit), 0);
        }
        self.note(format!("hear after {after}: {:?} -> {result:?}", page.nodes.iter().map(|u| u.id).collect::<Vec<_>>()));
        self.take_heard(result);
        true
    }

    /// What an honest page brought. A device whose index is older than what others heard from it goes on as a new replica.
    pub(super) fn take_heard(&mut self, result: Result<Heard, HearError>) -> Heard {
        if result == Err(HearError::RolledBack) {
            self.lives += 1;
            let life = replica(self.index, self.lives);
            self.note("begins a new life");
            self.engine.begin_new_life(life).expect("trees in memory");
            self.engine.rescan();
            return Heard::default();
        }
        result.expect("an honest page")
    }

    /// A page that was asked for from anywhere comes: one that was read before, or one from beyond what was read, because it was asked for before
    /// the feed began again.
    pub fn hear_any(&mut self, relay: &SimRelay, random: u64) {
        if self.engine.relay_cursor().is_some_and(|(epoch, _)| epoch == relay.epoch) {
            let since = random % (relay.head + 1);
            let page = relay.page(since, 3);
            let result = self.engine.handle_page(&page, since);
            self.note(format!("hears any page from {since} to {}: {result:?}", page.cursor));
        }
    }

    fn plan(&mut self, max: usize) -> bool {
        let plan = self.engine.plan(max).expect("trees in memory");
        self.count_merges();
        let any = !plan.fetches.is_empty() || !plan.merges.is_empty() || !plan.keeps.is_empty() || plan.batch.is_some();
        plan.keeps.into_iter().for_each(|keep| self.keep(keep));
        for merge in plan.merges {
            self.note(format!("plan: merge {:?} of {}, {}, {}", merge.path, merge.base.hash(), merge.newer.hash(), merge.older.hash()));
            self.merges.push_back(merge);
        }
        if !plan.fetches.is_empty() || plan.batch.is_some() {
            let fetches: Vec<_> = plan.fetches.iter().map(|f| &f.path).collect();
            self.note(format!("plan: fetch {fetches:?}, do {:#?}", plan.batch.as_ref().map(brief)));
        }
        self.fetches.extend(plan.fetches);
        if let Some(batch) = plan.batch {
            assert!(self.batch.is_none(), "one batch at a time");
            self.batch = Some((batch, Vec::new()));
        }
        any
    }

    /// Answers a fetch from this disk, from what peers gave, and from the relay if it is there.
    pub(super) fn answer_fetch(&mut self, relay: Option<&SimRelay>, peers: &BTreeMap<ChunkId, Vec<u8>>) -> bool {
        if let Some(merge) = self.merges.pop_front() {
            self.answer_merge(merge, relay, peers);
            return true;
        }
        let Some(fetch) = self.fetches.pop_front() else { return false };
        let result = match self.assemble(&fetch.manifest, &fetch.local, relay, peers) {
            _ if self.disk.full => Err(Obstacle::NoSpace),
            Some(bytes) => {
                self.staged.insert(fetch.manifest.hash(), bytes);
                Ok(())
            }
            None => Err(Obstacle::Unavailable),
        };
        self.note(format!("fetch {:?} {:?} -> {result:?}", fetch.path, fetch.manifest.hash()));
        self.engine.handle_fetch(fetch.manifest.hash(), result).expect("trees in memory");
        true
    }

    /// The bytes of a content, from this disk's files, from peers and from the relay, each chunk verified.
    pub(super) fn assemble(
        &self,
        manifest: &Manifest,
        local: &[LocalSource],
        relay: Option<&SimRelay>,
        peers: &BTreeMap<ChunkId, Vec<u8>>,
    ) -> Option<Bytes> {
        let mut out = Vec::new();
        for chunk in manifest.chunks() {
            let local = local.iter().filter(|l| l.chunk == chunk.id).find_map(|l| {
                let stat = self.disk.stat(&l.path)?;
                if !stat.same_version(&l.stat) {
                    return None;
                }
                let bytes = self.disk.read(&l.path)?;
                let at = l.offset as usize;
                bytes.get(at..at + chunk.len as usize).map(<[u8]>::to_vec)
            });
            let verified = |bytes: &Vec<u8>| ChunkId::of(bytes) == chunk.id;
            let near = local.filter(verified).or_else(|| peers.get(&chunk.id).cloned().filter(verified));
            let bytes = near.or_else(|| relay?.chunk(chunk.id))?;
            out.extend_from_slice(&bytes);
        }
        (ContentHash::of(&out) == manifest.hash()).then(|| out.into())
    }

    fn act(&mut self) -> bool {
        let Some((batch, outcomes)) = &mut self.batch else { return false };
        let Some(action) = batch.actions.get(outcomes.len()) else { return false };
        let action = action.clone();
        let outcome = self.disk.execute(&action, &self.staged);
        outcomes.push(outcome.clone());
        self.actions += 1;
        self.note(format!("{action:?} -> {outcome:?}"));
        true
    }

    fn finish_batch(&mut self) -> bool {
        match &self.batch {
            Some((batch, outcomes)) if batch.actions.len() == outcomes.len() => {}
            _ => return false,
        }
        if let Some((batch, outcomes)) = self.batch.take() {
            self.answer_batch(batch, outcomes);
            self.count_merges();
        }
        for content in self.engine.take_unused_staged() {
            self.staged.remove(&content);
        }
        true
    }

    /// The batch is cut off: what was not tried has no outcome.
    pub fn cut_batch(&mut self) -> bool {
        let Some((batch, outcomes)) = self.batch.take() else { return false };
        self.answer_batch(batch, outcomes);
        true
    }

    /// A batch is over: it is made durable and answered, or the sync is owed.
    fn answer_batch(&mut self, batch: Batch, outcomes: Vec<DiskOutcome>) {
        if self.disk.fails_syncs {
            self.note("the batch cannot be made durable");
            self.engine.handle_unsynced(batch.id, Obstacle::Io).expect("trees in memory");
            self.unsynced = Some((batch, outcomes));
        } else {
            self.is_synced = true;
            self.engine.handle_batch(batch.id, outcomes).expect("trees in memory");
        }
    }

    /// Tries the sync that is owed, if it is due. Whether it was.
    fn sync_if_due(&mut self) -> bool {
        if !self.engine.next_sync() {
            return false;
        }
        self.note(format!("sync, fails: {}", self.disk.fails_syncs));
        match self.unsynced.take() {
            Some((batch, outcomes)) => {
                let outcomes = if self.disk.fails_syncs { outcomes } else { self.disk.look_again(&batch.actions, outcomes) };
                self.answer_batch(batch, outcomes);
            }
            None if self.disk.fails_syncs => self.engine.handle_sync(Err(Obstacle::Io)),
            None => {
                self.is_synced = true;
                self.engine.handle_sync(Ok(()));
            }
        }
        true
    }

    /// Whether a batch waits for a sync.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced.is_some()
    }

    fn take_commit(&mut self, max_nodes: usize) -> bool {
        if self.sending.is_some() {
            return false;
        }
        let Some(commit) = self.engine.next_commit(max_nodes, 1 << 20).expect("trees in memory") else { return false };
        let (epoch, _) = self.engine.relay_cursor().expect("a commit has a base");
        self.commits += 1;
        let mut id = [self.index as u8; 16];
        id[1..9].copy_from_slice(&self.commits.to_be_bytes());
        let request = CommitRequest {
            commit: CommitId::from_bytes(id),
            epoch,
            base_seq: commit.base_seq,
            replica: self.engine.meta().replica,
            nodes: commit.nodes.clone(),
            chunks: Vec::new(),
        };
        // What others may hear of is never forgotten here (P16).
        self.durable = self.engine.trees().clone();
        self.note(format!("commit {:?}", request.nodes.iter().map(|u| u.id).collect::<Vec<_>>()));
        self.sending = Some(Sending { request, commit });
        true
    }

    fn send_commit(&mut self, relay: &mut SimRelay) -> bool {
        let Some(sending) = self.sending.take() else { return false };
        let mut reply = relay.commit(&sending.request);
        if let CommitReply::MissingChunks(missing) = &reply {
            let unreadable = self.upload(&sending.commit, missing, relay);
            if !unreadable.is_empty() {
                self.note(format!("withholds {unreadable:?}"));
                self.engine.withhold(&unreadable).expect("trees in memory");
                return true;
            }
            reply = relay.commit(&sending.request);
        }
        self.note(format!("commit -> {reply:?}"));
        self.engine.handle_commit(&reply).expect("trees in memory");
        true
    }

    /// The commit is applied but its answer is lost, or the other way round.
    pub fn lose_answer(&mut self, relay: &mut SimRelay, applied: bool) {
        if let Some(sending) = self.sending.take() {
            if applied && let CommitReply::MissingChunks(missing) = relay.commit(&sending.request) {
                self.upload(&sending.commit, &missing, relay);
                relay.commit(&sending.request);
            }
            self.note(format!("loses the answer to a commit, applied: {applied}"));
            self.engine.drop_commit();
        }
    }

    fn upload(&self, commit: &Commit, missing: &[ChunkId], relay: &mut SimRelay) -> BTreeSet<ChunkId> {
        let mut unreadable = BTreeSet::new();
        for id in missing {
            let sources = commit.chunks.iter().filter(|c| c.chunk.id == *id).filter_map(|c| c.source.as_ref().map(|s| (c.chunk, s)));
            let bytes = sources.into_iter().find_map(|(chunk, (path, stat, offset))| {
                self.disk.stat(path).filter(|s| s.same_version(stat))?;
                let bytes = self.disk.read(path)?;
                bytes.get(*offset as usize..*offset as usize + chunk.len as usize).map(<[u8]>::to_vec)
            });
            match bytes.filter(|b| ChunkId::of(b) == *id) {
                Some(bytes) => relay.upload(&bytes),
                None => {
                    unreadable.insert(*id);
                }
            }
        }
        unreadable
    }

    /// Whether nothing is on its way between engine and disk, and the relay lacks nothing.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && self.sending.is_none() && self.engine.is_idle().expect("trees in memory")
    }

    /// The same, whatever the relay may lack.
    pub fn is_settled(&self) -> bool {
        self.looks.is_empty()
            && self.hashes.is_empty()
            && self.fetches.is_empty()
            && self.merges.is_empty()
            && self.batch.is_none()
            && self.engine.is_settled()
    }

    /// One calm round: every step until it has nothing more to do. Whether anything was done.
    pub fn round(&mut self, relay: &mut SimRelay) -> bool {
        round(|step| self.step(step, relay))
    }

    /// How many chunks a content has.
    pub fn chunks_of(bytes: &[u8]) -> usize {
        bytes.len().div_ceil(CHUNK_BYTES)
    }
}

/// Every step until it has nothing more to do. Whether anything was done.
pub(super) fn round(mut act: impl FnMut(Step) -> bool) -> bool {
    let mut any = false;
    for step in STEPS {
        for turn in 0.. {
            assert!(turn < 10_000, "{step:?} never ends");
            if !act(step) {
                break;
            }
            any = true;
            if step == Step::Plan || step == Step::TakeCommit {
                break;
            }
        }
    }
    any
}

fn brief(batch: &Batch) -> Vec<String> {
    batch.actions.iter().map(|a| format!("{a:?}")).collect()
}

/// The replica id of a life of a device.
pub fn replica(index: usize, life: u64) -> ReplicaId {
    let mut bytes = [0; 16];
    bytes[0] = 1 + index as u8;
    bytes[8..].copy_from_slice(&life.to_be_bytes());
    ReplicaId::from_bytes(bytes)
}

fn open(trees: MemoryTrees, index: usize, opens: u64, policy: &Policy) -> Engine<MemoryTrees> {
    let author = Author { device: DeviceId::from_bytes([index as u8; 16]), name: Arc::from(format!("D{index}")) };
    let mut engine = Engine::open(trees, author, policy.clone()).expect("trees in memory");
    engine.begin_run(Epoch::from_bytes(*replica(index, opens).as_bytes())).expect("trees in memory");
    engine
}
