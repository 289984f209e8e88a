//! The trash: what Ferry displaced or removed, with the path it had (I2).
//!
//! An entry is a file `.ferry/trash/<id>` and a line of the log `.ferry/trash/log` with the same id. The line is durable before the
//! entry can exist, so an entry always knows where it came from; a line without an entry means nothing. One batch writes one piece of the
//! log, and no entry is ever synced by itself: ten thousand removals cost two fsyncs.

use super::handle::{PathError, obstacle, open_parent, statx_at};
use super::hash::now_ns;
use super::root::{OpenRoot, Root, TRASH};
use ferry_engine::disk::{Kind, Obstacle, Stat};
use ferry_protocol::{Name, RelPath};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::sync::{MutexGuard, PoisonError};

const LOG: &str = "log";
const LOG_NEW: &str = "log.new";

/// Why something is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrashReason {
    /// Another version took its place.
    Replaced,
    /// It was deleted on another device.
    Removed,
    /// It was in the way of a name that differs only in case; only a crash leaves it here, and [`recover`] puts it back.
    Moving,
}

/// One thing in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashEntry {
    /// Its id: the name of the file that holds it.
    pub id: String,
    /// Where it was.
    #[serde(with = "path_hex")]
    pub path: RelPath,
    /// When it was displaced, in milliseconds since 1970.
    pub time_ms: i64,
    /// Why.
    pub reason: TrashReason,
    /// What was expected to be displaced, by size and times.
    pub stat: Stat,
    /// Inode of the version that took its place; until then that version waits under this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incoming_ino: Option<u64>,
}

mod path_hex {
    use ferry_protocol::RelPath;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(path: &RelPath, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(path.to_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<RelPath, D::Error> {
        let bytes = hex::decode(String::deserialize(d)?).map_err(D::Error::custom)?;
        RelPath::parse(&bytes).map_err(D::Error::custom)
    }
}

/// An entry whose content is not the one that was displaced: somebody wrote on through an open handle (H15), or wrote just before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateWrite {
    /// The entry.
    pub entry: TrashEntry,
    /// What it is now.
    pub now: Stat,
}

/// The trash of one root, open for one call.
pub(crate) struct Trash<'r> {
    pub dir: OwnedFd,
    log: OwnedFd,
    next: u32,
    salt: u32,
    /// The log is written anew only while nobody else has it open.
    _alone: MutexGuard<'r, ()>,
}

impl<'r> Trash<'r> {
    pub fn open(root: &'r Root, open: &OpenRoot) -> Result<Self, PathError> {
        let alone = root.trash_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = open.own_dir(TRASH)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::openat(&dir, LOG, flags, Mode::RUSR | Mode::WUSR)?;
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(|_| PathError::Blocked(Obstacle::Busy))?;
        Ok(Self { dir, log, next: 0, salt: u32::from_le_bytes(salt), _alone: alone })
    }

    /// A record for something that is about to be displaced.
    pub fn record(&mut self, path: &RelPath, reason: TrashReason, stat: Stat, incoming_ino: Option<u64>) -> TrashEntry {
        let time_ms = now_ns() / 1_000_000;
        let id = format!("{time_ms:011x}-{:08x}-{:05x}", self.salt, self.next);
        self.next += 1;
        TrashEntry { id, path: path.clone(), time_ms, reason, stat, incoming_ino }
    }

    /// Appends records to the log in one write; not durable yet.
    pub fn log(&self, entries: &[TrashEntry]) -> Result<(), Errno> {
        append(&self.log, entries)
    }

    /// Makes the log durable.
    pub fn sync_log(&self) -> Result<(), Errno> {
        rustix::fs::fdatasync(&self.log)
    }

    fn read_log(&self) -> Result<BTreeMap<String, TrashEntry>, PathError> {
        let mut text = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::openat(&self.dir, LOG, flags, Mode::empty())?);
        std::io::BufReader::new(file)
            .read_to_end(&mut text)
            .map_err(|e| PathError::Blocked(Errno::from_io_error(&e).map_or(Obstacle::Io, obstacle)))?;
        let lines = text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<TrashEntry>(line).ok());
        Ok(lines.map(|entry| (entry.id.clone(), entry)).collect())
    }

    fn ids(&self) -> Result<BTreeSet<String>, PathError> {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut ids = BTreeSet::new();
        let dir = rustix::fs::openat(&self.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut raw = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if !matches!(&*name, "." | ".." | LOG | LOG_NEW) {
                ids.insert(name.into_owned());
            }
        }
        Ok(ids)
    }

    /// The entries that exist, oldest first, each with what it is now. What has no line in the log is shown under its own name.
    fn entries(&self, open: &OpenRoot) -> Result<Vec<(TrashEntry, Stat)>, PathError> {
        let mut log = self.read_log()?;
        let mut found = Vec::new();
        for id in self.ids()? {
            let now = match statx_at(&self.dir, id.as_bytes()) {
                Ok(raw) => open.view.stat(&raw),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let entry = match log.remove(&id) {
                // The new version, staged here for an exchange that did not happen.
                Some(entry) if entry.incoming_ino == Some(now.ino) => continue,
                Some(entry) => entry,
                None => {
                    let path = Name::new(&id).map(|name| RelPath::root().join(&name)).unwrap_or_default();
                    TrashEntry { id, path, time_ms: now.ctime_ns / 1_000_000, reason: TrashReason::Removed, stat: now, incoming_ino: None }
                }
            };
            found.push((entry, now));
        }
        Ok(found)
    }

    /// Writes the log anew with only the lines of entries that exist.
    fn compact(&self, open: &OpenRoot) -> Result<(), PathError> {
        let keep: Vec<TrashEntry> = self.entries(open)?.into_iter().map(|(entry, _)| entry).collect();
        let _ = rustix::fs::unlinkat(&self.dir, LOG_NEW, AtFlags::empty());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let log = rustix::fs::openat(&self.dir, LOG_NEW, flags, Mode::RUSR | Mode::WUSR)?;
        append(&log, &keep)?;
        rustix::fs::fdatasync(&log)?;
        rustix::fs::renameat(&self.dir, LOG_NEW, &self.dir, LOG)?;
        Ok(rustix::fs::fsync(&self.dir)?)
    }
}

fn append(log: &OwnedFd, entries: &[TrashEntry]) -> Result<(), Errno> {
    let mut lines = Vec::new();
    for entry in entries {
        // A torn last line, if there is one, ends here.
        lines.push(b'\n');
        serde_json::to_writer(&mut lines, entry).map_err(|_| Errno::INVAL)?;
    }
    lines.push(b'\n');
    let mut file = std::fs::File::from(rustix::io::dup(log)?);
    file.write_all(&lines).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn enter(root: &Root) -> Result<(OpenRoot, Trash<'_>), PathError> {
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    let trash = Trash::open(root, &open)?;
    Ok((open, trash))
}

/// What is in the trash, oldest first.
pub fn list(root: &Root) -> Result<Vec<TrashEntry>, PathError> {
    let (open, trash) = enter(root)?;
    Ok(trash.entries(&open)?.into_iter().map(|(entry, _)| entry).collect())
}

/// Moves an entry out of the trash, to `to` or to where it was. If something is there, a free name beside it is taken. Missing parent
/// directories are made. Where it stands now.
pub fn restore(root: &Root, id: &str, to: Option<&RelPath>) -> Result<RelPath, PathError> {
    let (open, trash) = enter(root)?;
    let (entry, _) = trash.entries(&open)?.into_iter().find(|(entry, _)| entry.id == id).ok_or(PathError::Gone)?;
    let at = put_back(&open, &trash, &entry, to.unwrap_or(&entry.path))?;
    rustix::fs::fsync(&trash.dir)?;
    Ok(at)
}

/// Removes the entries that were displaced before a time, in milliseconds since 1970; how many.
pub fn purge(root: &Root, before_ms: i64) -> Result<usize, PathError> {
    purge_if(root, |entry| entry.time_ms < before_ms)
}

/// Removes these entries. If one of them is not there, none is removed.
pub fn purge_ids(root: &Root, ids: &[String]) -> Result<usize, PathError> {
    let there: BTreeSet<String> = list(root)?.into_iter().map(|entry| entry.id).collect();
    if !ids.iter().all(|id| there.contains(id)) {
        return Err(PathError::Gone);
    }
    purge_if(root, |entry| ids.contains(&entry.id))
}

fn purge_if(root: &Root, goes: impl Fn(&TrashEntry) -> bool) -> Result<usize, PathError> {
    let (open, trash) = enter(root)?;
    let mut purged = 0;
    for (entry, _) in trash.entries(&open)? {
        if goes(&entry) {
            remove_all(&trash.dir, entry.id.as_bytes())?;
            purged += 1;
        }
    }
    if purged > 0 {
        trash.compact(&open)?;
    }
    Ok(purged)
}

/// The entries displaced at or after `since_ms` whose content differs from what was displaced (H15). Each is told again until it is
/// [accepted](accept_late_write), restored or purged.
pub fn check_late_writes(root: &Root, since_ms: i64) -> Result<Vec<LateWrite>, PathError> {
    let (open, trash) = enter(root)?;
    let is_late = |entry: &TrashEntry, now: &Stat| {
        let same = entry.stat.same_inode(now) && entry.stat.size == now.size && entry.stat.mtime_ns == now.mtime_ns;
        entry.time_ms >= since_ms && now.kind == Kind::File && !same
    };
    let late = trash.entries(&open)?.into_iter().filter(|(entry, now)| is_late(entry, now));
    Ok(late.map(|(entry, now)| LateWrite { entry, now }).collect())
}

/// Notes that a late write has been taken care of, as far as `now` tells.
pub fn accept_late_write(root: &Root, late: &LateWrite) -> Result<(), PathError> {
    let (_, trash) = enter(root)?;
    trash.log(&[TrashEntry { stat: late.now, ..late.entry.clone() }])?;
    Ok(trash.sync_log()?)
}

/// What [`recover`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Paths at which something was put back that a crash had left between two names. Scan them.
    pub put_back: Vec<RelPath>,
    /// New versions that waited for an exchange that did not happen; they were removed.
    pub unplaced: usize,
}

/// Puts right what a crash left between two steps of [`super::apply()`]. To be called once, before the folder is scanned or changed.
pub fn recover(root: &Root, keep_parts_ms: i64) -> Result<Recovered, PathError> {
    let (open, trash) = enter(root)?;
    let mut recovered = Recovered::default();
    let mut log = trash.read_log()?;
    for id in trash.ids()? {
        let (Some(entry), Ok(raw)) = (log.remove(&id), statx_at(&trash.dir, id.as_bytes())) else { continue };
        if entry.incoming_ino == Some(raw.stx_ino) {
            super::stage::remove_own(&trash.dir, id.as_bytes());
            recovered.unplaced += 1;
        } else if entry.reason == TrashReason::Moving {
            recovered.put_back.push(put_back(&open, &trash, &entry, &entry.path)?);
        }
    }
    trash.compact(&open)?;
    super::stage::sweep(&open, keep_parts_ms.saturating_mul(1_000_000))?;
    Ok(recovered)
}

/// Removes what has waited to be placed for longer than this. How many files that were.
pub fn drop_old_parts(root: &Root, keep_ms: i64) -> Result<usize, PathError> {
    let (open, _) = enter(root)?;
    super::stage::drop_old(&open, keep_ms.saturating_mul(1_000_000))
}

fn put_back(open: &OpenRoot, trash: &Trash<'_>, entry: &TrashEntry, to: &RelPath) -> Result<RelPath, PathError> {
    let (parent, name) = to.split_last().ok_or(PathError::Blocked(Obstacle::Unrepresentable))?;
    make_dirs(open, &parent)?;
    let (dir, _) = open_parent(open, to)?;
    for attempt in 0..100 {
        let name = beside(name, attempt);
        match rustix::fs::renameat_with(&trash.dir, entry.id.as_bytes(), &dir, name.as_bytes(), RenameFlags::NOREPLACE) {
            Ok(()) => {
                rustix::fs::fsync(super::handle::open_dir(open, &parent)?)?;
                return Ok(parent.join(&name));
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(PathError::Blocked(Obstacle::NameClash))
}

/// The name itself, then `stem (restored).ext`, `stem (restored 2).ext` and so on, within 255 bytes.
fn beside(name: &Name, attempt: u32) -> Name {
    let mark = match attempt {
        0 => return name.clone(),
        1 => " (restored)".to_owned(),
        n => format!(" (restored {n})"),
    };
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && bytes.len() - at <= 32).unwrap_or(bytes.len());
    let (stem, extension) = bytes.split_at(dot);
    let mut end = stem.len().min(255 - mark.len() - extension.len());
    // Not inside a character.
    while end > 1 && end < stem.len() && stem[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    let joined = [&stem[..end], mark.as_bytes(), extension].concat();
    Name::new(joined).unwrap_or_else(|_| name.clone())
}

fn make_dirs(open: &OpenRoot, path: &RelPath) -> Result<(), PathError> {
    for depth in 1..=path.names().len() {
        let part = RelPath::from_names(path.names()[..depth].to_vec());
        let (dir, name) = open_parent(open, &part)?;
        match rustix::fs::mkdirat(&dir, name.as_bytes(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Removes an entry for good; a directory with all that it holds.
fn remove_all(dir: &OwnedFd, name: &[u8]) -> Result<(), PathError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut raw = RawDir::new(&inner, &mut buffer);
    while let Some(entry) = raw.next() {
        names.push(entry?.file_name().to_bytes().to_vec());
    }
    for name in names.iter().filter(|n| *n != b"." && *n != b"..") {
        remove_all(&inner, name)?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
