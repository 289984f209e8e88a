//! File events as hints: what to look at again. Events are never facts; what counts is what a look at the disk finds.
//!
//! Each directory has one watch, placed before the directory is listed, so that nothing falls between. Of Ferry's own directory only the
//! files directly in it are watched, for [`Watcher::ring`]. What cannot be told in single paths (lost events, too many, no watch left) becomes a
//! rescan. The only user of `notify`.

pub mod coalesce;

use super::handle::PathError;
use super::list::{stat, subdirs};
use super::root::Root;
use coalesce::{Batch, Coalescer, Signal};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ferry_engine::disk::Kind;
use ferry_protocol::{Name, RelPath};
use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Look at these entries.
    Paths(Vec<RelPath>),
    /// Walk these directories with all that is in them: they are new here, or came from elsewhere.
    Trees(Vec<RelPath>),
    /// Look at everything.
    Rescan(RescanReason),
    /// All that was seen before this [`Watcher::ring`] has been told.
    Rung(u64),
}

/// Why everything is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanReason {
    /// The kernel's queue was full, or more happened at one time than is kept.
    Overflow,
    /// The root itself was moved or deleted: prove it first.
    RootMoved,
    /// No watch is left, or watching failed: some directories are only scanned from now on.
    Unwatched,
}

/// How well the folder is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchHealth {
    /// Directories with a watch.
    pub watches: usize,
    /// Set when some directories have none: what to do about it. The folder must be scanned from time to time.
    pub exhausted: Option<String>,
}

const WATCHES_HINT: &str = "not every directory can be watched; raise the limit: sysctl fs.inotify.max_user_watches=1048576";
const INSTANCES_HINT: &str = "no inotify instance is left; raise the limit: sysctl fs.inotify.max_user_instances=1024";
/// Events that may wait to be read; above that they are given up for a rescan (I14).
const QUEUE_MAX: usize = 200_000;

/// Beginning of the names of the files whose events are our own.
const RING: &str = "ring-";

enum Message {
    Event(Event),
    Failed(notify::Error),
    Rewatch,
    Stop,
}

/// Watches a folder until it is dropped.
pub struct Watcher {
    root: Arc<Root>,
    messages: Sender<Message>,
    health: Arc<Mutex<WatchHealth>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch. When this returns, every wanted directory has a watch (or the health says otherwise), so that a scan from now on
    /// misses nothing.
    ///
    /// `wanted` tells which directories are watched at all (not the ignored ones). `sink` is called on a thread of its own.
    pub fn start(
        root: Arc<Root>,
        wanted: impl Fn(&RelPath) -> bool + Send + 'static,
        sink: impl Fn(Hint) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (messages, inbox) = unbounded();
        let health = Arc::new(Mutex::new(WatchHealth::default()));
        let overflow = Arc::new(AtomicBool::new(false));
        let notify = start_notify(messages.clone(), overflow.clone());
        let mut thread = Thread {
            base: root.resolved_path().to_path_buf(),
            root: root.clone(),
            notify: None,
            watched: BTreeSet::new(),
            wanted: Box::new(wanted),
            sink: Box::new(sink),
            health: health.clone(),
            coalescer: Coalescer::default(),
            started: Instant::now(),
            overflow,
        };
        match notify {
            Ok(notify) => {
                thread.notify = Some(notify);
                thread.watch_everything();
            }
            Err(error) => thread.unwatched(&error, INSTANCES_HINT),
        }
        let handle = std::thread::Builder::new().name("ferry-watch".into()).spawn(move || thread.run(&inbox))?;
        Ok(Self { root, messages, health, thread: Some(handle) })
    }

    /// How well the folder is watched now.
    pub fn health(&self) -> WatchHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an event of our own, of which [`Hint::Rung`] tells once everything that happened before has been hinted at. False if that cannot be:
    /// not every directory is watched, or the disk takes no file.
    pub fn ring(&self, number: u64) -> bool {
        self.health().exhausted.is_none() && self.root.ring(&format!("{RING}{number}")).is_ok()
    }

    /// Places the watches anew: after ignore rules changed, or when the limit was raised.
    pub fn rewatch(&self) {
        // The thread ends only with this value.
        let _ = self.messages.send(Message::Rewatch);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn start_notify(messages: Sender<Message>, overflow: Arc<AtomicBool>) -> notify::Result<INotifyWatcher> {
    let handler = move |event: notify::Result<Event>| {
        let message = match event {
            // Reading is no change; our own hashing causes most of these.
            Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) => return,
            Ok(event) => Message::Event(event),
            Err(error) => Message::Failed(error),
        };
        if messages.len() >= QUEUE_MAX {
            overflow.store(true, Ordering::Relaxed);
        } else {
            // Nobody listens any more only when the watcher is being dropped.
            let _ = messages.send(message);
        }
    };
    INotifyWatcher::new(handler, Config::default().with_follow_symlinks(false))
}

struct Thread {
    base: PathBuf,
    root: Arc<Root>,
    notify: Option<INotifyWatcher>,
    watched: BTreeSet<RelPath>,
    wanted: Box<dyn Fn(&RelPath) -> bool + Send>,
    sink: Box<dyn Fn(Hint) + Send>,
    health: Arc<Mutex<WatchHealth>>,
    coalescer: Coalescer,
    started: Instant,
    overflow: Arc<AtomicBool>,
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let message = match self.coalescer.next_ms() {
                Some(next) => inbox.recv_timeout(Duration::from_millis(next.saturating_sub(self.now_ms()))),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Event(event)) => self.event(&event),
                Ok(Message::Failed(error)) => self.failed(&error),
                Ok(Message::Rewatch) => self.watch_all(),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.overflow.swap(false, Ordering::Relaxed) {
                self.overflowed();
            }
            while let Some(batch) = self.coalescer.poll(self.now_ms()) {
                self.tell(batch);
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, batch: Batch) {
        if batch.everything {
            (self.sink)(Hint::Rescan(RescanReason::Overflow));
        }
        if !batch.trees.is_empty() {
            (self.sink)(Hint::Trees(batch.trees));
        }
        if !batch.paths.is_empty() {
            (self.sink)(Hint::Paths(batch.paths));
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.coalescer.signal(self.now_ms(), signal);
    }

    fn event(&mut self, event: &Event) {
        if event.attrs.flag() == Some(Flag::Rescan) {
            self.overflowed();
            return;
        }
        // Of a rename both halves came before.
        if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both)) {
            return;
        }
        for path in &event.paths {
            let Some(path) = self.relative(path) else { continue };
            if path.names().first().is_some_and(Name::is_bookkeeping) {
                if matches!(event.kind, EventKind::Create(_)) {
                    self.rung(&path);
                }
                continue;
            }
            if path.is_root() {
                if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                    (self.sink)(Hint::Rescan(RescanReason::RootMoved));
                }
                continue;
            }
            self.path_event(event.kind, path);
        }
    }

    fn rung(&mut self, path: &RelPath) {
        let [_, name] = path.names() else { return };
        let number = std::str::from_utf8(name.as_bytes()).ok().and_then(|n| n.strip_prefix(RING)?.parse().ok());
        if let Some(number) = number {
            let batch = self.coalescer.take(self.now_ms());
            self.tell(batch);
            (self.sink)(Hint::Rung(number));
        }
    }

    fn path_event(&mut self, kind: EventKind, path: RelPath) {
        match kind {
            EventKind::Access(_) => self.signal(Signal::Closed(path)),
            EventKind::Modify(ModifyKind::Data(_)) => self.signal(Signal::Writing(path)),
            EventKind::Create(CreateKind::Folder) => self.new_dir(path),
            // The event does not tell what was moved here.
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.forget(&path);
                match stat(&self.root, &path) {
                    Ok(Some(stat)) if stat.kind == Kind::Dir => self.new_dir(path),
                    _ => self.signal(Signal::Changed(path)),
                }
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                self.forget(&path);
                self.signal(Signal::Changed(path));
            }
            _ => self.signal(Signal::Changed(path)),
        }
    }

    /// A directory came: first its watches, then the hint, so that the look that follows misses nothing.
    fn new_dir(&mut self, path: RelPath) {
        self.watch_tree(&path);
        self.signal(Signal::Tree(path));
    }

    fn failed(&mut self, error: &notify::Error) {
        self.unwatched(error, WATCHES_HINT);
        (self.sink)(Hint::Rescan(RescanReason::Unwatched));
    }

    /// Events were lost, among them perhaps those of new directories.
    fn overflowed(&mut self) {
        self.watch_all();
        (self.sink)(Hint::Rescan(RescanReason::Overflow));
    }

    fn watch_all(&mut self) {
        self.lock_health().exhausted = None;
        self.watched.clear();
        self.watch_everything();
    }

    fn watch_everything(&mut self) {
        let own = self.base.join(OsStr::from_bytes(ferry_protocol::name::BOOKKEEPING));
        if let Some(notify) = &mut self.notify
            && let Err(error) = notify.watch(&own, RecursiveMode::NonRecursive)
        {
            // Whoever rings then waits a little longer, for a scan.
            tracing::debug!(%error, "Ferry's own directory is not watched");
        }
        self.watch_tree(&RelPath::root());
    }

    /// Places a watch on a directory and on every directory below it. A watch that is there already is placed again: the kernel keeps one.
    fn watch_tree(&mut self, top: &RelPath) {
        let mut left = vec![top.clone()];
        while let Some(path) = left.pop() {
            if !path.is_root() && !(self.wanted)(&path) {
                continue;
            }
            let absolute = self.absolute(&path);
            let Some(notify) = &mut self.notify else { return };
            match notify.watch(&absolute, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone());
                }
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    self.unwatched(&error, WATCHES_HINT);
                    if matches!(error.kind, ErrorKind::MaxFilesWatch) {
                        break;
                    }
                    continue;
                }
            }
            match subdirs(&self.root, &path) {
                Ok(names) => left.extend(names.iter().map(|name| path.join(name))),
                Err(PathError::Gone) => {}
                Err(PathError::Blocked(obstacle)) => tracing::debug!(%path, code = obstacle.code(), "not watched below"),
            }
        }
        self.lock_health().watches = self.watched.len();
    }

    fn forget(&mut self, path: &RelPath) {
        if !self.watched.contains(path) {
            return;
        }
        let below: Vec<RelPath> = self.watched.range(path.clone()..).take_while(|p| p.starts_with(path)).cloned().collect();
        for path in below {
            self.watched.remove(&path);
        }
        self.lock_health().watches = self.watched.len();
    }

    fn unwatched(&self, error: &notify::Error, hint: &str) {
        tracing::warn!(%error, "{hint}");
        self.lock_health().exhausted = Some(hint.to_owned());
    }

    fn lock_health(&self) -> std::sync::MutexGuard<'_, WatchHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relative(&self, path: &Path) -> Option<RelPath> {
        RelPath::parse(path.strip_prefix(&self.base).ok()?.as_os_str().as_bytes()).ok()
    }

    fn absolute(&self, path: &RelPath) -> PathBuf {
        if path.is_root() {
            return self.base.clone();
        }
        self.base.join(OsStr::from_bytes(&path.to_bytes()))
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
