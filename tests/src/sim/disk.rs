//! A disk in memory: inodes with the facts that matter to a synchroniser (device, inode, birth, times, mode, links), inode reuse, hard links,
//! rename over and without replacing, a trash. It executes [`DiskAction`]s with the checks that the hands promise (I6).
//!
//! Paths below `.ferry` are Ferry's own and never listed.

use ferry_engine::{DiskAction, DiskOutcome, HashResult, HashTask, Kind, Listed, Look, LookResult, Obstacle, Stat};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Manifest, Name, RelPath};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a simulated file.
pub type Bytes = Arc<[u8]>;

/// Chunks of simulated files have this many bytes: small, so that small files have several.
pub const CHUNK_BYTES: usize = 8;

/// What an inode holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A directory: names and inodes.
    Dir(BTreeMap<Name, u64>),
    /// A file.
    File(Bytes),
    /// A symbolic link.
    Link(Bytes),
    /// A FIFO.
    Other,
}

#[derive(Debug, Clone)]
struct Inode {
    data: Data,
    birth_ns: i64,
    mtime_ns: i64,
    ctime_ns: i64,
    mode: u16,
    links: u32,
}

/// A disk. A clone is a snapshot.
#[derive(Debug, Clone)]
pub struct SimDisk {
    dev: u64,
    inodes: BTreeMap<u64, Inode>,
    free: Vec<u64>,
    next_ino: u64,
    now_ns: i64,
    /// Whether the filesystem knows when an inode was born.
    pub knows_birth: bool,
    /// Contents that the daemon displaced or removed.
    pub trash: Vec<Bytes>,
    /// Nothing more can be written by the daemon.
    pub full: bool,
    /// What is written cannot be made durable now.
    pub fails_syncs: bool,
    /// Inodes that cannot be read now.
    pub unreadable: BTreeSet<u64>,
    /// A planted bug: changes are made without looking at what stands there.
    pub careless: bool,
    /// What the daemon destroyed without keeping it, or changed although it was not as expected: always a bug.
    pub crimes: Vec<String>,
}

/// One thing on a disk, as the canonical digest sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// A file's bytes or a link's target.
    pub bytes: Vec<u8>,
    /// Permission bits; 0 for links.
    pub mode: u16,
}

const ROOT: u64 = 2;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A path from text.
pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a path")
}

/// The manifest of these bytes.
pub fn manifest_of(bytes: &[u8]) -> Manifest {
    let chunks: Vec<ChunkRef> = bytes.chunks(CHUNK_BYTES).map(|c| ChunkRef { id: ChunkId::of(c), len: c.len() as u32 }).collect();
    Manifest::new(ContentHash::of(bytes), chunks).expect("a manifest")
}

impl SimDisk {
    /// An empty disk, with Ferry's own directory.
    pub fn new(dev: u64) -> Self {
        let mut disk = Self {
            dev,
            inodes: BTreeMap::new(),
            free: Vec::new(),
            next_ino: ROOT + 1,
            now_ns: 1_000_000_000,
            knows_birth: true,
            trash: Vec::new(),
            full: false,
            fails_syncs: false,
            unreadable: BTreeSet::new(),
            careless: false,
            crimes: Vec::new(),
        };
        disk.inodes.insert(ROOT, Inode { data: Data::Dir(BTreeMap::new()), birth_ns: 0, mtime_ns: 0, ctime_ns: 0, mode: 0o755, links: 1 });
        disk.mkdir(&path(".ferry"));
        disk.mkdir(&path(".ferry/parked"));
        disk
    }

    fn tick(&mut self) -> i64 {
        self.now_ns += 1;
        self.now_ns
    }

    /// Lets time pass.
    pub fn advance_ns(&mut self, by: i64) {
        self.now_ns += by;
    }

    fn lookup(&self, path: &RelPath) -> Option<u64> {
        let mut at = ROOT;
        for name in path.names() {
            match &self.inodes.get(&at)?.data {
                Data::Dir(entries) => at = *entries.get(name)?,
                _ => return None,
            }
        }
        Some(at)
    }

    fn parent_of<'p>(&self, path: &'p RelPath) -> Option<(u64, &'p Name)> {
        let (parent, last) = path.split_last()?;
        let ino = self.lookup(&parent)?;
        matches!(self.inodes[&ino].data, Data::Dir(_)).then_some((ino, last))
    }

    fn entries(&mut self, dir: u64) -> &mut BTreeMap<Name, u64> {
        let now = self.tick();
        let inode = self.inodes.get_mut(&dir).expect("a directory");
        inode.mtime_ns = now;
        inode.ctime_ns = now;
        match &mut inode.data {
            Data::Dir(entries) => entries,
            _ => unreachable!("callers looked"),
        }
    }

    fn stat_of(&self, ino: u64) -> Stat {
        let inode = &self.inodes[&ino];
        let (kind, size) = match &inode.data {
            Data::Dir(_) => (Kind::Dir, 4096),
            Data::File(bytes) => (Kind::File, bytes.len() as u64),
            Data::Link(target) => (Kind::Symlink, target.len() as u64),
            Data::Other => (Kind::Other, 0),
        };
        Stat {
            dev: self.dev,
            ino,
            birth_ns: self.knows_birth.then_some(inode.birth_ns),
            kind,
            size,
            mtime_ns: inode.mtime_ns,
            ctime_ns: inode.ctime_ns,
            mode: inode.mode,
            links: inode.links,
        }
    }

    /// What stands at a path.
    pub fn stat(&self, path: &RelPath) -> Option<Stat> {
        self.lookup(path).map(|ino| self.stat_of(ino))
    }

    /// The bytes of the file at a path.
    pub fn read(&self, path: &RelPath) -> Option<Bytes> {
        match &self.inodes[&self.lookup(path)?].data {
            Data::File(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Makes a new inode: the number that was freed last comes back first, as real filesystems do.
    fn create(&mut self, data: Data, mode: u16) -> u64 {
        let ino = self.free.pop().unwrap_or_else(|| {
            self.next_ino += 1;
            self.next_ino
        });
        let now = self.tick();
        self.inodes.insert(ino, Inode { data, birth_ns: now, mtime_ns: now, ctime_ns: now, mode, links: 1 });
        ino
    }

    fn unlink(&mut self, ino: u64) {
        let now = self.tick();
        let inode = self.inodes.get_mut(&ino).expect("an inode");
        inode.links -= 1;
        inode.ctime_ns = now;
        if inode.links == 0 {
            self.inodes.remove(&ino);
            self.unreadable.remove(&ino);
            self.free.push(ino);
        }
    }

    // --- what users do -----------------------------------------------------------------------------------------------

    /// Makes a directory. Whether it could be made.
    pub fn mkdir(&mut self, path: &RelPath) -> bool {
        self.place_new(path, Data::Dir(BTreeMap::new()), 0o755)
    }

    fn place_new(&mut self, path: &RelPath, data: Data, mode: u16) -> bool {
        let Some((dir, last)) = self.parent_of(path) else { return false };
        if self.lookup(path).is_some() {
            return false;
        }
        let ino = self.create(data, mode);
        self.entries(dir).insert(last.clone(), ino);
        true
    }

    /// Writes a file: in place if one stands there.
    pub fn write(&mut self, path: &RelPath, bytes: &[u8]) -> bool {
        match self.lookup(path) {
            None => self.place_new(path, Data::File(bytes.into()), 0o644),
            Some(ino) => {
                let now = self.tick();
                let inode = self.inodes.get_mut(&ino).expect("an inode");
                if !matches!(inode.data, Data::File(_)) {
                    return false;
                }
                inode.data = Data::File(bytes.into());
                inode.mtime_ns = now;
                inode.ctime_ns = now;
                true
            }
        }
    }

    /// Writes other bytes of the same size into a file within the clock's granule: no stat shows it. Whether there is such a file.
    pub fn rewrite_unseen(&mut self, path: &RelPath, bytes: &[u8]) -> bool {
        let Some(inode) = self.lookup(path).and_then(|ino| self.inodes.get_mut(&ino)) else { return false };
        let fits = matches!(&inode.data, Data::File(old) if old.len() == bytes.len());
        if fits {
            inode.data = Data::File(bytes.into());
        }
        fits
    }

    /// Writes a file beside it and renames it over, as careful editors do.
    pub fn save(&mut self, target: &RelPath, bytes: &[u8]) -> bool {
        let Some((parent, last)) = target.split_last() else { return false };
        if self.stat(target).is_some_and(|s| s.kind == Kind::Dir) {
            return false;
        }
        let mut temporary = last.as_bytes().to_vec();
        temporary.extend_from_slice(b".tmp~");
        let temporary = parent.join(&Name::new(temporary).expect("short names"));
        self.write(&temporary, bytes) && self.rename(&temporary, target)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, path: &RelPath, target: &[u8]) -> bool {
        self.place_new(path, Data::Link(target.into()), 0o777)
    }

    /// Makes a FIFO.
    pub fn fifo(&mut self, path: &RelPath) -> bool {
        self.place_new(path, Data::Other, 0o644)
    }

    /// Makes another name for a file.
    pub fn link(&mut self, from: &RelPath, to: &RelPath) -> bool {
        let (Some(ino), Some((dir, last))) = (self.lookup(from), self.parent_of(to)) else { return false };
        if self.lookup(to).is_some() || !matches!(self.inodes[&ino].data, Data::File(_)) {
            return false;
        }
        let now = self.tick();
        let inode = self.inodes.get_mut(&ino).expect("an inode");
        inode.links += 1;
        inode.ctime_ns = now;
        self.entries(dir).insert(last.clone(), ino);
        true
    }

    /// rename(2): over a file or an empty directory.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> bool {
        if to.starts_with(from) || from.is_root() || to.is_root() {
            return false;
        }
        let (Some(ino), Some((to_dir, to_name))) = (self.lookup(from), self.parent_of(to)) else { return false };
        if let Some(over) = self.lookup(to) {
            let fits = match (&self.inodes[&ino].data, &self.inodes[&over].data) {
                (Data::Dir(_), Data::Dir(entries)) => entries.is_empty(),
                (Data::Dir(_), _) | (_, Data::Dir(_)) => false,
                _ => true,
            };
            if !fits || over == ino {
                return false;
            }
            self.entries(to_dir).remove(to_name);
            self.unlink(over);
        }
        self.shift(from, to);
        true
    }

    fn shift(&mut self, from: &RelPath, to: &RelPath) {
        let ino = self.lookup(from).expect("callers looked");
        let (from_dir, from_name) = self.parent_of(from).expect("callers looked");
        let (to_dir, to_name) = self.parent_of(to).expect("callers looked");
        self.entries(from_dir).remove(from_name);
        self.entries(to_dir).insert(to_name.clone(), ino);
        let now = self.tick();
        self.inodes.get_mut(&ino).expect("an inode").ctime_ns = now;
    }

    /// Two names change places.
    pub fn exchange(&mut self, a: &RelPath, b: &RelPath) -> bool {
        if a.starts_with(b) || b.starts_with(a) {
            return false;
        }
        let (Some(x), Some(y)) = (self.lookup(a), self.lookup(b)) else { return false };
        let (a_dir, a_name) = self.parent_of(a).expect("it is there");
        let (b_dir, b_name) = self.parent_of(b).expect("it is there");
        self.entries(a_dir).insert(a_name.clone(), y);
        self.entries(b_dir).insert(b_name.clone(), x);
        let now = self.tick();
        for ino in [x, y] {
            self.inodes.get_mut(&ino).expect("an inode").ctime_ns = now;
        }
        true
    }

    /// Removes a file, a link or a whole tree.
    pub fn remove(&mut self, path: &RelPath) -> bool {
        if path.is_root() {
            return false;
        }
        let Some(ino) = self.lookup(path) else { return false };
        if let Data::Dir(entries) = &self.inodes[&ino].data {
            let below: Vec<RelPath> = entries.keys().map(|n| path.join(n)).collect();
            for one in below {
                self.remove(&one);
            }
        }
        let (dir, last) = self.parent_of(path).expect("it is there");
        self.entries(dir).remove(last);
        self.unlink(ino);
        true
    }

    /// Sets permission bits.
    pub fn chmod(&mut self, path: &RelPath, mode: u16) -> bool {
        let now = self.tick();
        let Some(ino) = self.lookup(path) else { return false };
        let inode = self.inodes.get_mut(&ino).expect("an inode");
        if matches!(inode.data, Data::Link(_)) {
            return false;
        }
        inode.mode = mode;
        inode.ctime_ns = now;
        true
    }

    /// Sets the modification time to now.
    pub fn touch(&mut self, path: &RelPath) -> bool {
        let now = self.tick();
        let Some(ino) = self.lookup(path) else { return false };
        let inode = self.inodes.get_mut(&ino).expect("an inode");
        inode.mtime_ns = now;
        inode.ctime_ns = now;
        true
    }

    /// Makes what stands at a path unreadable, or readable again.
    pub fn set_unreadable(&mut self, path: &RelPath, unreadable: bool) {
        if let Some(ino) = self.lookup(path) {
            if unreadable {
                self.unreadable.insert(ino);
            } else {
                self.unreadable.remove(&ino);
            }
        }
    }

    // --- what is seen ------------------------------------------------------------------------------------------------

    /// Everything on the disk but Ferry's own, by path.
    pub fn tree(&self) -> BTreeMap<RelPath, Seen> {
        let mut out = BTreeMap::new();
        self.walk(ROOT, &RelPath::root(), &mut out);
        out.retain(|p, _| !p.names()[0].is_bookkeeping());
        out
    }

    /// What Ferry holds outside the tree: parked things that were not put back.
    pub fn parked(&self) -> BTreeMap<RelPath, Seen> {
        let mut out = BTreeMap::new();
        let parked = path(".ferry/parked");
        if let Some(ino) = self.lookup(&parked) {
            self.walk(ino, &parked, &mut out);
        }
        out
    }

    fn walk(&self, dir: u64, at: &RelPath, out: &mut BTreeMap<RelPath, Seen>) {
        let Data::Dir(entries) = &self.inodes[&dir].data else { return };
        for (name, ino) in entries {
            let inode = &self.inodes[ino];
            let path = at.join(name);
            let (kind, bytes) = match &inode.data {
                Data::Dir(_) => (Kind::Dir, Vec::new()),
                Data::File(bytes) => (Kind::File, bytes.to_vec()),
                Data::Link(target) => (Kind::Symlink, target.to_vec()),
                Data::Other => (Kind::Other, Vec::new()),
            };
            let mode = if kind == Kind::Symlink { 0 } else { inode.mode };
            out.insert(path.clone(), Seen { kind, bytes, mode });
            self.walk(*ino, &path, out);
        }
    }

    /// Answers a look.
    pub fn look(&self, look: &Look) -> LookResult {
        let Some(ino) = self.lookup(&look.path) else { return LookResult::Gone };
        let Data::Dir(entries) = &self.inodes[&ino].data else { return LookResult::Gone };
        if self.unreadable.contains(&ino) {
            return LookResult::Unreadable(Obstacle::Denied);
        }
        let hidden = |n: &Name| look.path.is_root() && n.is_bookkeeping();
        let wanted = |n: &Name| look.names.as_ref().is_none_or(|names| names.contains(n));
        let listed = entries.iter().filter(|(n, _)| !hidden(n) && wanted(n));
        let listed = listed.map(|(n, ino)| Listed { name: n.clone(), stat: Ok(self.stat_of(*ino)) });
        LookResult::Listed(self.stat_of(ino), listed.collect())
    }

    /// Answers a hash task.
    pub fn hash(&self, task: &HashTask) -> HashResult {
        let Some(ino) = self.lookup(&task.path) else { return HashResult::Changed };
        let stat = self.stat_of(ino);
        if !stat.same_version(&task.stat) {
            return HashResult::Changed;
        }
        if self.unreadable.contains(&ino) {
            return HashResult::Unreadable(Obstacle::Denied);
        }
        match &self.inodes[&ino].data {
            Data::File(bytes) => HashResult::File(manifest_of(bytes), stat),
            Data::Link(target) => HashResult::Link(target.clone(), stat),
            Data::Dir(_) | Data::Other => HashResult::Changed,
        }
    }

    // --- what the daemon does ----------------------------------------------------------------------------------------

    /// Executes an action, with the identity checks right before the change. `staged` gives staged contents.
    pub fn execute(&mut self, action: &DiskAction, staged: &BTreeMap<ContentHash, Bytes>) -> DiskOutcome {
        match self.try_execute(action, staged) {
            Ok(stat) => DiskOutcome::Done(stat),
            Err(outcome) => outcome,
        }
    }

    fn try_execute(&mut self, action: &DiskAction, staged: &BTreeMap<ContentHash, Bytes>) -> Result<Option<Stat>, DiskOutcome> {
        match action {
            DiskAction::MakeDir { path, mode } => {
                self.room()?;
                self.free_place(path)?;
                self.place_new(path, Data::Dir(BTreeMap::new()), *mode);
            }
            DiskAction::PutFile { path, expect, content, mode, mtime_ns } => {
                self.room()?;
                let bytes = staged.get(content).cloned().ok_or(DiskOutcome::Stale(None))?;
                self.put(path, *expect, Data::File(bytes), *mode)?;
                let ino = self.lookup(path).expect("just put");
                self.inodes.get_mut(&ino).expect("an inode").mtime_ns = *mtime_ns;
            }
            DiskAction::PutLink { path, expect, target } => {
                self.room()?;
                self.put(path, *expect, Data::Link(target.clone()), 0o777)?;
            }
            DiskAction::Move { from, expect, to } => {
                self.expected(from, expect)?;
                self.free_place(to)?;
                if to.starts_with(from) {
                    self.crimes.push(format!("{from} moved into itself: {to}"));
                    return Err(DiskOutcome::Stale(None));
                }
                self.shift(from, to);
                return Ok(self.stat(to));
            }
            DiskAction::Remove { path, expect } => {
                self.expected(path, expect)?;
                self.discard(path)?;
                return Ok(None);
            }
            DiskAction::SetAttributes { path, expect, mode, mtime_ns } => {
                self.expected(path, expect)?;
                let ino = self.lookup(path).ok_or(DiskOutcome::Stale(None))?;
                let now = self.tick();
                let inode = self.inodes.get_mut(&ino).expect("an inode");
                inode.mode = mode.unwrap_or(inode.mode);
                inode.mtime_ns = mtime_ns.unwrap_or(inode.mtime_ns);
                inode.ctime_ns = now;
            }
        }
        Ok(self.stat(action.path()))
    }

    /// The outcomes of actions, as far as what was done is still there: a disk that failed to make it durable may have forgotten it.
    pub fn look_again(&self, actions: &[DiskAction], outcomes: Vec<DiskOutcome>) -> Vec<DiskOutcome> {
        ferry_engine::seen_again(actions, outcomes, |path| self.stat(path))
    }

    fn room(&self) -> Result<(), DiskOutcome> {
        if self.full { Err(DiskOutcome::Blocked(Obstacle::NoSpace)) } else { Ok(()) }
    }

    fn free_place(&self, path: &RelPath) -> Result<(), DiskOutcome> {
        if self.parent_of(path).is_none() {
            return Err(DiskOutcome::Stale(None));
        }
        match self.stat(path) {
            Some(stat) => Err(DiskOutcome::Stale(Some(stat))),
            None => Ok(()),
        }
    }

    fn expected(&mut self, path: &RelPath, expect: &Stat) -> Result<(), DiskOutcome> {
        match self.stat(path) {
            Some(stat) if stat.same_version(expect) => Ok(()),
            Some(stat) if self.careless && stat.kind == expect.kind => {
                let what = self.read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
                self.crimes.push(format!("{path} was changed although it was not as expected ({what:?})"));
                Ok(())
            }
            other => Err(DiskOutcome::Stale(other)),
        }
    }

    fn put(&mut self, path: &RelPath, expect: Option<Stat>, data: Data, mode: u16) -> Result<(), DiskOutcome> {
        match expect {
            None => self.free_place(path)?,
            Some(expect) => {
                self.expected(path, &expect)?;
                self.discard(path)?;
            }
        }
        self.place_new(path, data, mode);
        Ok(())
    }

    fn discard(&mut self, path: &RelPath) -> Result<(), DiskOutcome> {
        let ino = self.lookup(path).ok_or(DiskOutcome::Stale(None))?;
        match &self.inodes[&ino].data {
            Data::Dir(entries) if !entries.is_empty() => return Err(DiskOutcome::Blocked(Obstacle::NotEmpty)),
            Data::File(bytes) => self.trash.push(bytes.clone()),
            _ => {}
        }
        let (dir, last) = self.parent_of(path).ok_or(DiskOutcome::Stale(None))?;
        self.entries(dir).remove(last);
        self.unlink(ino);
        Ok(())
    }

    /// The daemon's own directory as a fresh installation finds it: what was parked comes back into the tree under a name of its own.
    pub fn unpark(&mut self) -> Vec<RelPath> {
        let parked = path(".ferry/parked");
        let Some(ino) = self.lookup(&parked) else { return Vec::new() };
        let Data::Dir(entries) = &self.inodes[&ino].data else { return Vec::new() };
        let names: Vec<Name> = entries.keys().cloned().collect();
        let mut out = Vec::new();
        for one in names {
            let to = RelPath::root().join(&name(&format!("recovered-{}", one.display())));
            if self.rename(&parked.join(&one), &to) {
                out.push(to);
            }
        }
        out
    }
}
