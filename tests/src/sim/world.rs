//! The simulated world: devices, users and faults chosen by a seed (swarm), then everything healed, then what must be true.
//!
//! * **Safety phase**: users write, rename, delete; messages are lost, answers are lost after the work was done, daemons die, disks lose what
//!   was not synced, fill up, cannot be read; clocks are off; the relay, a device or an index goes back in time.
//! * **The LAN** (in the runs of [`Options::lan_of`]): devices read each other's feeds and fetch from each other's disks over links that hold, or
//!   come and go; the relay is away for long, and then the devices must be equal among themselves; it comes back as it was, older, or empty.
//! * **Heal**: faults end, everybody looks again.
//! * **Liveness phase**: within a bounded number of rounds all devices rest, and then the disks are equal (I1), every content that no user
//!   replaced or deleted is visible on every disk (I2), each engine's trees are what its disk holds.

mod lan;

use crate::sim::calm::{Calm, check_device, text};
use crate::sim::device::{Device, STEPS, Step};
use crate::sim::disk::{CHUNK_BYTES, SimDisk};
use crate::sim::relay::SimRelay;
use crate::sim::rng::Rng;
use crate::sim::user;
use ferry_engine::memory::MemoryTrees;
use ferry_engine::{Planted, Policy};
use ferry_protocol::{ChunkId, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// What a seed stands for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// How many devices.
    pub devices: usize,
    /// How many steps the safety phase has.
    pub steps: usize,
    /// Of a hundred steps, how many are a user's.
    pub user_percent: u64,
    /// The faults of this run.
    pub faults: BTreeSet<Fault>,
    /// Whether the devices have a LAN.
    pub lan: LanKind,
    /// Whether users edit texts by lines, and some of the devices merge them.
    pub merges: bool,
    /// A bug that should be caught.
    pub planted: Option<Planted>,
    /// Whether every step is printed.
    pub verbose: bool,
}

/// Whether the devices have a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanKind {
    /// They have none.
    Off,
    /// All hear all.
    On,
    /// Links come and go, one direction after the other.
    Flapping,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The watcher says nothing of some changes.
    LostHints,
    /// Answers to commits are lost, before or after the work was done.
    LostAnswers,
    /// Pages come twice and late.
    OldPages,
    /// A device is without a network for a while.
    Offline,
    /// A batch is cut off.
    CutBatch,
    /// The daemon is stopped and started.
    Restart,
    /// The power fails: the index and the disk lose what was not durable.
    PowerCut,
    /// The disk is full for a while.
    Full,
    /// What is written cannot be made durable for a while, and may be forgotten then, as after a power cut.
    FailedSyncs,
    /// Something cannot be read for a while.
    Unreadable,
    /// Wall clocks jump.
    Clock,
    /// The relay is restored from a backup.
    RelayRestored,
    /// A device is restored from a backup: disk and index.
    DeviceRestored,
    /// The index is lost.
    IndexLost,
    /// The filesystem does not know births of inodes.
    NoBirth,
    /// Nobody reaches the relay for a while. Only with a LAN.
    RelayOff,
    /// The relay is replaced by an empty one. Only with a LAN.
    RelayReplaced,
}

const FAULTS: [Fault; 14] = [
    Fault::LostHints,
    Fault::LostAnswers,
    Fault::OldPages,
    Fault::Offline,
    Fault::CutBatch,
    Fault::Restart,
    Fault::PowerCut,
    Fault::Full,
    Fault::Unreadable,
    Fault::Clock,
    Fault::RelayRestored,
    Fault::DeviceRestored,
    Fault::IndexLost,
    Fault::NoBirth,
];

impl Options {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let share = *rng.pick(&[0, 0, 15, 40]);
        let faults = FAULTS.into_iter().filter(|_| rng.percent(share)).collect();
        Self {
            seed,
            devices: 2 + rng.below(3),
            steps: *rng.pick(&[100, 400, 1200]),
            user_percent: *rng.pick(&[1, 4, 12]),
            faults,
            lan: LanKind::Off,
            merges: false,
            planted: None,
            verbose: false,
        }
    }

    /// The run of a seed on disks that lose what is not durable, and cannot always make it so.
    pub fn unsynced_of(seed: u64) -> Self {
        let mut options = Self::of(seed);
        options.faults.extend([Fault::FailedSyncs, Fault::PowerCut, Fault::Restart]);
        options
    }

    /// The run of a seed with a LAN.
    pub fn lan_of(seed: u64) -> Self {
        let mut options = Self::of(seed);
        let mut rng = Rng::new(seed ^ 0x1A4);
        options.lan = *rng.pick(&[LanKind::On, LanKind::Flapping]);
        options.faults.extend([Fault::RelayOff, Fault::RelayReplaced, Fault::RelayRestored].into_iter().filter(|_| rng.percent(40)));
        options
    }

    /// The run of a seed in which texts are edited by lines and some devices merge them; every second one with a LAN.
    pub fn merging_of(seed: u64) -> Self {
        let options = if seed.is_multiple_of(2) { Self::of(seed) } else { Self::lan_of(seed) };
        let mut rng = Rng::new(seed ^ 0x3E6);
        // Long enough, and busy enough, that two often write before they have heard each other.
        let (steps, user_percent) = (*rng.pick(&[400, 1200, 2400]), *rng.pick(&[4, 8, 12]));
        Self { merges: true, steps, user_percent, ..options }
    }

    /// Whether a user may overwrite what some state names and nobody else holds: a relay that was set back lacks it, or peers have heard of it
    /// and have not fetched it. Faults are recoverable, so such a content is kept.
    fn may_overwrite_last_copies(&self) -> bool {
        self.faults.contains(&Fault::RelayRestored) || self.lan != LanKind::Off
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        let kind = match self.lan {
            _ if self.merges => " --merging",
            LanKind::On | LanKind::Flapping => " --lan",
            LanKind::Off if self.faults.contains(&Fault::FailedSyncs) => " --unsynced",
            LanKind::Off => "",
        };
        format!("cargo run -p ferry-tests --bin sim -- --from {} --seeds 1{kind} --verbose", self.seed)
    }
}

/// What a user wrote, and whether users or a power cut undid it.
#[derive(Debug, Default)]
pub struct Ledger {
    written: BTreeMap<Vec<u8>, Fate>,
    /// Each line counts by itself: where texts are merged, a version that was written may be shown nowhere any more.
    pub by_lines: bool,
}

/// What became of one content.
#[derive(Debug, Default)]
struct Fate {
    /// Somebody undid the last file with it on a disk.
    undone: bool,
    /// In how many files it stood on one disk, at most.
    files: usize,
    /// How often somebody undid one of several on his disk.
    fewer: usize,
    /// Somebody exchanged the file with another: it came to stand for another node, while others may still have it for both. Or he renamed one of
    /// several files of it, which his daemon made of one before it had seen that: an edit of that one is an edit of them all.
    moved_about: bool,
}

impl Ledger {
    /// Notes what one act changed on one disk.
    pub fn compare(&mut self, before: &SimDisk, after: &SimDisk) {
        let all = user::contents(before).into_iter().chain(user::contents(after)).collect();
        self.lose(before, after, &all);
    }

    /// Notes what a disk has lost: as [`Ledger::compare`] for these contents, which nobody else need have.
    pub fn lose(&mut self, before: &SimDisk, after: &SimDisk, these: &BTreeSet<Vec<u8>>) {
        let count = if self.by_lines { user::counted_lines } else { user::counted };
        let (before, after) = (count(before), count(after));
        let parts: BTreeSet<Vec<u8>> = these.iter().flat_map(|bytes| self.parts(bytes)).collect();
        for bytes in &parts {
            let count = |side: &BTreeMap<Vec<u8>, usize>| side.get(bytes).copied().unwrap_or(0);
            let (was, is) = (count(&before), count(&after));
            let fate = self.written.entry(bytes.clone()).or_default();
            fate.files = fate.files.max(was).max(is);
            fate.undone |= is == 0;
            fate.fewer += was.saturating_sub(is);
        }
    }

    /// Contents that must be visible everywhere. One that stood in several files, as after the loss of an index or when two devices made a
    /// conflicted copy their own, may be undone here in the one file and there in the other, and is on neither disk undone altogether.
    pub fn visible(&self) -> impl Iterator<Item = &Vec<u8>> {
        // A line stands in a text and in its conflicted copies: whoever takes it out of one may see the others go.
        let by_lines = self.by_lines;
        let fewer = move |fate: &Fate| fate.fewer > 0 && (by_lines || fate.moved_about);
        let stands = move |fate: &Fate| !fate.undone && fate.fewer < fate.files && !fewer(fate);
        self.written.iter().filter(move |(_, fate)| stands(fate)).map(|(bytes, _)| bytes)
    }

    /// Notes that what stands at these paths of a disk was moved by a user: what stands there in several files, or all of an exchange.
    fn note_moved(&mut self, disk: &SimDisk, paths: &[RelPath], is_exchange: bool) {
        let counts = user::counted(disk);
        let files = disk.tree().into_iter().filter(|(path, _)| paths.iter().any(|p| path.starts_with(p))).map(|(_, seen)| seen.bytes);
        for bytes in files.filter(|bytes| is_exchange || counts.get(bytes).is_some_and(|files| *files > 1)) {
            self.parts(&bytes).into_iter().for_each(|part| self.written.entry(part).or_default().moved_about = true);
        }
    }

    /// What is counted of a content.
    fn parts(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if self.by_lines { bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect() } else { vec![bytes.to_vec()] }
    }
}

/// A run.
pub struct World {
    options: Options,
    rng: Rng,
    calm: Calm,
    ledger: Ledger,
    undo: Vec<Vec<SimDisk>>,
    /// What users wrote on each disk since all on it was made durable last.
    mine: Vec<BTreeSet<Vec<u8>>>,
    relay_backup: SimRelay,
    device_backups: Vec<Option<(SimDisk, MemoryTrees)>>,
    written: u64,
}

/// The end of a run that held everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A hash over everything that happened.
    pub trace: u64,
    /// How many files and directories stood at the end.
    pub entries: usize,
    /// How many actions the daemons did.
    pub actions: u64,
    /// How many merged versions replaced two sides.
    pub merged: u64,
}

/// Runs a seed. Panics with what is wrong.
pub fn run(options: &Options) -> Report {
    let mut world = World::new(options.clone());
    world.safety();
    world.heal();
    world.end_of_lan();
    world.liveness();
    world.report()
}

impl World {
    fn new(options: Options) -> Self {
        let policy = Policy { planted: options.planted, ..Policy::default() };
        let mut calm = Calm::with_policy(options.devices, policy);
        for device in &mut calm.devices {
            device.verbose = options.verbose;
            device.disk.knows_birth = !options.faults.contains(&Fault::NoBirth);
            // In every second pair of runs all of them merge.
            device.policy.merge_text =
                options.merges && (options.seed % 4 < 2 || !(options.seed as usize + device.index).is_multiple_of(3));
            device.engine.set_merging(device.policy.merge_text);
            device.disk.careless = options.planted == Some(Planted::NoIdentityCheck);
        }
        let count = options.devices;
        if options.lan != LanKind::Off {
            calm.lan.connect_all(count);
            calm.keeps_trash = true;
        }
        Self {
            rng: Rng::new(options.seed ^ 0x5EED),
            calm,
            ledger: Ledger { by_lines: options.merges, ..Ledger::default() },
            undo: vec![Vec::new(); count],
            mine: vec![BTreeSet::new(); count],
            relay_backup: SimRelay::default(),
            device_backups: vec![None; count],
            written: 0,
            options,
        }
    }

    fn safety(&mut self) {
        for _ in 0..self.options.steps {
            self.calm.now_ms += if self.rng.percent(3) { 200 } else { self.rng.below(5) as u64 };
            let who = self.rng.below(self.calm.devices.len());
            let now = self.calm.now_ms;
            self.calm.devices[who].set_time(now);
            if self.options.lan != LanKind::Off && self.rng.percent(30) {
                self.lan_step(who);
            } else if self.rng.percent(self.options.user_percent) {
                if self.options.may_overwrite_last_copies() {
                    self.keeping_last_copies(|world| world.user(who));
                } else {
                    self.user(who);
                }
            } else if self.rng.percent(3) {
                self.fault(who);
            } else {
                self.device_step(who);
            }
        }
    }

    fn user(&mut self, who: usize) {
        let before = self.calm.devices[who].disk.clone();
        for _ in 0..1 + self.rng.below(3) {
            let device = &mut self.calm.devices[who];
            let by_lines = self.options.merges && self.rng.percent(85);
            let act = if by_lines { user::edit_lines } else { user::act };
            let (what, touched) = act(&mut device.disk, &mut self.rng, who, &mut self.written);
            device.note(format!("USER {what}"));
            if what.starts_with("exchange") || what.starts_with("rename") {
                self.ledger.note_moved(&device.disk, &touched, what.starts_with("exchange"));
            }
            let lossy = self.options.faults.contains(&Fault::LostHints);
            device.hints.extend(touched.into_iter().filter(|_| !lossy || self.rng.percent(50)));
        }
        self.ledger.compare(&before, &self.calm.devices[who].disk);
        self.mine[who].extend(user::contents(&self.calm.devices[who].disk).difference(&user::contents(&before)).cloned());
        self.undo[who].push(before);
    }

    fn device_step(&mut self, who: usize) {
        let step = *self.rng.pick(&STEPS);
        let waits = if self.options.lan == LanKind::Off { &[Step::Hear, Step::SendCommit, Step::AnswerFetch][..] } else { &[] };
        if self.calm.no_relay.contains(&who) && waits.contains(&step) {
            return;
        }
        let reaches = self.calm.reaches_relay(who);
        self.calm.devices[who].engine.set_relay_near(reaches);
        if step == Step::Act {
            self.undo[who].push(self.calm.devices[who].disk.clone());
        }
        if step == Step::AnswerFetch && self.options.lan != LanKind::Off {
            self.fetch_from_peers(who);
        } else if self.options.lan == LanKind::Off {
            self.calm.devices[who].step(step, &mut self.calm.relay);
        } else {
            self.calm.step(who, step);
        }
        self.note_synced(who);
        let device = &mut self.calm.devices[who];
        if device.engine.held_deletes().is_some() && self.rng.percent(10) {
            device.note("approves deletes");
            device.engine.approve_deletes().expect("trees in memory");
        }
    }

    fn fault(&mut self, who: usize) {
        let list: Vec<Fault> = self.options.faults.iter().copied().collect();
        if list.is_empty() {
            return;
        }
        let fault = *self.rng.pick(&list);
        let applied = self.rng.percent(50);
        let relay_is_away = self.options.lan != LanKind::Off && !self.calm.reaches_relay(who);
        let device = &mut self.calm.devices[who];
        match fault {
            Fault::LostHints => device.engine.rescan(),
            // With a LAN a relay may be away; then nothing comes from it.
            Fault::LostAnswers | Fault::OldPages if relay_is_away => {}
            Fault::LostAnswers => device.lose_answer(&mut self.calm.relay, applied),
            Fault::OldPages => {
                device.hear_any(&self.calm.relay, self.rng.next());
            }
            Fault::Offline if applied => drop(self.calm.no_relay.insert(who)),
            Fault::Offline => drop(self.calm.no_relay.remove(&who)),
            Fault::CutBatch => {
                device.cut_batch();
                self.note_synced(who);
            }
            Fault::Restart => {
                device.durable = device.engine.trees().clone();
                device.restart();
            }
            Fault::PowerCut => self.keeping_last_copies(|world| world.power_cut(who)),
            Fault::Full => device.disk.full = applied,
            Fault::FailedSyncs => self.keeping_last_copies(|world| world.failed_syncs(who, applied)),
            Fault::Unreadable => self.unreadable(who, applied),
            Fault::Clock => device.skew_ms = self.rng.below(2_000_000) as i64 - 1_000_000,
            Fault::RelayRestored => {
                if applied {
                    self.relay_backup = self.calm.relay.clone();
                } else if self.rng.percent(30) {
                    device.note("RELAY RESTORED");
                    self.keeping_last_copies(|world| world.calm.relay.restore(&world.relay_backup));
                }
            }
            Fault::DeviceRestored => self.keeping_last_copies(|world| world.device_restored(who, applied)),
            Fault::IndexLost => {
                if self.rng.percent(30) {
                    device.note("INDEX LOST");
                    device.lose_index();
                }
            }
            Fault::NoBirth => {}
            Fault::RelayOff => self.relay_off(applied),
            Fault::RelayReplaced => self.relay_replaced(),
        }
    }

    /// Faults are recoverable: what some state names is never destroyed everywhere at once. A store that lost the last copy gets it back.
    fn keeping_last_copies(&mut self, fault: impl FnOnce(&mut Self)) {
        let before = self.held_chunks();
        fault(self);
        let after = self.held_chunks();
        for id in self.named_chunks() {
            if let (None, Some(bytes)) = (after.get(&id), before.get(&id)) {
                self.calm.relay.upload(bytes);
            }
        }
    }

    fn held_chunks(&self) -> BTreeMap<ChunkId, Vec<u8>> {
        let disks = self.calm.devices.iter().flat_map(|d| user::contents(&d.disk));
        let chunks = disks.flat_map(|bytes| bytes.chunks(CHUNK_BYTES).map(|c| (ChunkId::of(c), c.to_vec())).collect::<Vec<_>>());
        chunks.chain(self.calm.relay.chunks().map(|(id, bytes)| (id, bytes.to_vec()))).collect()
    }

    fn named_chunks(&self) -> BTreeSet<ChunkId> {
        let states = self.calm.devices.iter().map(|d| d.engine.trees().states()).chain([self.calm.relay.states()]);
        // What is on its way between peers will be known.
        let on_their_way = self.calm.lan.pages.iter().flat_map(|sent| sent.page.page.nodes.iter().map(|u| u.state.clone()));
        let values = states.flat_map(|states| states.into_values()).chain(on_their_way).flat_map(|s| s.body().values().to_vec());
        values.filter_map(|v| v.content.file().map(|f| f.manifest.chunks().to_vec())).flatten().map(|c| c.id).collect()
    }

    fn power_cut(&mut self, who: usize) {
        let device = &mut self.calm.devices[who];
        device.note("POWER CUT");
        self.forget_unsynced(who);
        self.calm.devices[who].restart();
    }

    /// A disk goes back to some moment since all that it held was made durable last. A user's own writing may be gone with that for good; what the
    /// daemon had put there may not, for nothing was told of it.
    fn forget_unsynced(&mut self, who: usize) {
        let keep = self.rng.below(self.undo[who].len() + 1);
        let disk = &mut self.calm.devices[who].disk;
        let before = disk.clone();
        if let Some(earlier) = self.undo[who].get(keep) {
            *disk = earlier.clone();
            disk.fails_syncs = before.fails_syncs;
        }
        self.undo[who].clear();
        let mine = std::mem::take(&mut self.mine[who]);
        self.ledger.lose(&before, &self.calm.devices[who].disk, &mine);
    }

    /// The disk cannot make durable what is written, or can again; until then it may forget what a batch did.
    fn failed_syncs(&mut self, who: usize, fails: bool) {
        let device = &mut self.calm.devices[who];
        device.note(format!("FAILED SYNCS {fails}"));
        device.disk.fails_syncs = fails;
        if !fails && device.is_unsynced() && self.rng.percent(50) {
            self.forget_unsynced(who);
        }
    }

    /// What a device has made durable no power cut undoes.
    fn note_synced(&mut self, who: usize) {
        if std::mem::take(&mut self.calm.devices[who].is_synced) {
            self.undo[who].clear();
            self.mine[who].clear();
        }
    }

    fn device_restored(&mut self, who: usize, backup: bool) {
        let device = &mut self.calm.devices[who];
        if backup {
            self.device_backups[who] = Some((device.disk.clone(), device.engine.trees().clone()));
        } else if let Some((disk, trees)) = self.device_backups[who].clone() {
            device.note("DEVICE RESTORED");
            self.ledger.compare(&device.disk, &disk);
            device.restore(disk, trees);
            self.undo[who].clear();
            self.mine[who].clear();
        }
    }

    fn unreadable(&mut self, who: usize, make: bool) {
        let device = &mut self.calm.devices[who];
        if make {
            let paths: Vec<RelPath> = device.disk.tree().into_keys().collect();
            if !paths.is_empty() {
                let path = self.rng.pick(&paths);
                device.note(format!("UNREADABLE {path}"));
                device.disk.set_unreadable(path, true);
            }
        } else {
            device.disk.unreadable.clear();
            device.engine.rescan();
        }
    }

    fn heal(&mut self) {
        self.calm.now_ms += 120_000;
        self.calm.no_relay.clear();
        for device in &mut self.calm.devices {
            device.note("HEAL");
            device.disk.full = false;
            device.disk.fails_syncs = false;
            device.disk.unreadable.clear();
            device.engine.rescan();
            device.engine.retry_withheld();
        }
    }

    /// Lets everybody work until all rest, a person approving what is held.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.calm.settle_all();
            let mut held = false;
            for device in &mut self.calm.devices {
                if device.engine.held_deletes().is_some() {
                    device.note("approves deletes");
                    held |= device.engine.approve_deletes().expect("trees in memory") > 0;
                }
            }
            let blocked = self.calm.devices.iter().filter_map(|d| d.engine.deadline_ms()).max();
            if !held && blocked.is_none() {
                break;
            }
            self.calm.now_ms = self.calm.now_ms.max(blocked.unwrap_or(0)) + 1;
        }
    }

    fn liveness(&mut self) {
        self.settle();
        self.check();
        self.check_relay();
    }

    /// What must be true at rest.
    fn check(&self) {
        self.calm.check();
        let count = if self.options.merges { user::counted_lines } else { user::counted };
        let first = count(&self.calm.devices[0].disk);
        for bytes in self.ledger.visible() {
            assert!(first.contains_key(bytes), "{:?} is gone; {}", String::from_utf8_lossy(bytes), self.tail());
        }
        // No user writes a line twice: a merge from the wrong base does.
        for bytes in user::contents(&self.calm.devices[0].disk).iter().filter(|bytes| self.options.merges && bytes.ends_with(b"\n")) {
            let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
            let once: BTreeSet<&&[u8]> = lines.iter().collect();
            assert_eq!(once.len(), lines.len(), "a line stands twice in {:?}", String::from_utf8_lossy(bytes));
        }
        for device in &self.calm.devices {
            check_device(device);
            let issues: Vec<_> = device.engine.issues().collect();
            assert!(issues.is_empty(), "{} still complains: {issues:?}", device.name);
        }
    }

    fn tail(&self) -> String {
        let trees: Vec<String> = self.calm.devices.iter().map(|d| format!("{}: {:#?}", d.name, text(&d.disk.tree()))).collect();
        trees.join("\n")
    }

    fn report(&self) -> Report {
        Report {
            trace: self.calm.devices.iter().fold(self.calm.relay.head, |hash, d| hash.rotate_left(5) ^ d.trace),
            entries: self.calm.devices[0].disk.tree().len(),
            actions: self.calm.devices.iter().map(|d: &Device| d.actions).sum(),
            merged: self.calm.devices.iter().map(|d: &Device| d.replaced).sum(),
        }
    }
}

/// The seeds in a file of `tests/seeds`: those that failed once, without a LAN (`failed_once.txt`) or with one (`failed_once_lan.txt`).
pub fn kept_seeds(file: &str) -> Vec<u64> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut out: Vec<u64> = text.lines().filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect();
    out.sort_unstable();
    out.dedup();
    out
}
