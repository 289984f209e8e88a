//! One synced folder: its configuration, what its task needs, and the handle that the supervisor and the control socket hold.
//!
//! The supervisor persists a [`FolderConfig`], gives [`FolderDeps`] and calls [`spawn`]. From then on it talks to the folder only by
//! [`FolderCommand`]s and reads its [`FolderStatus`]; the folder reports what happened as events.
//!
//! * **F1** A folder's task never ends by itself: a root that is gone, a full disk or a damaged index is a state, not an exit (I3, I15).
//! * **F2** [`FolderState::UpToDate`] is only reported when the scan is finished, nothing is pending, no item failed, and the cursor is at the
//!   relay's head or the relay is shown as not connected (I15).
//! * **F3** A command is answered or its reply channel is dropped; it never hangs for longer than the work it asks for.

mod answers;
mod command;
mod commands;
mod driver;
mod durable;
mod early;
mod fetch;
mod flush;
mod index_trees;
mod lan_side;
mod mend;
mod merging;
mod notices;
mod opening;
mod panics;
mod prefetch;
mod progress;
mod relay_side;
mod report;
mod rules;
mod send;
mod sources;
mod status;
mod uploads;
mod work;

pub use crate::relay::RelayClient;
pub use command::{
    CommandError, ConflictItem, ErrorKind, FolderCommand, IgnoreRule, IgnoreVerdict, Keep, Reply, Transfer, TrashItem, WhyReport,
    WhyVersion,
};
pub use index_trees::IndexTrees;
pub use status::{
    Direction, FolderState, FolderStatus, HeldDeletes, Issue, Pending, PendingBytes, Rates, RelayLink, RelayState, ScanProgress, Via,
    shown, shown_path,
};

use crate::events::EventSink;
use ferry_protocol::{Author, NamespaceId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How many commands may wait for a folder's task.
pub const COMMANDS_MAX: usize = 256;

/// What this device remembers of a synced folder, apart from its index. Persisted by the supervisor: atomically, durable before `folder add`
/// is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// The namespace.
    pub id: NamespaceId,
    /// The name on this device, for people; unique among this device's folders.
    pub name: String,
    /// The root: an absolute path, as the user gave it (symbolic links in it are resolved once, at `folder add`).
    #[serde(with = "crate::folder::path_text")]
    pub path: PathBuf,
    /// What tells this root from another directory that later stands at the same path (I3): opaque to the supervisor, written by the folder's
    /// task through [`FolderDeps::save_root`]. Nothing until the task has attached the folder for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<serde_json::Value>,
    /// Whether the user has paused the folder.
    #[serde(default)]
    pub paused: bool,
    /// When a pause ends, in milliseconds since 1970; nothing for a pause that lasts until `resume`. The supervisor sends the resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_until_ms: Option<i64>,
    /// Whether two edits of one text are merged here where that is clean.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merge_text: bool,
    /// Whether this device made the namespace (`folder add --name`), rather than attached to an existing one (`--remote`).
    #[serde(default)]
    pub created_here: bool,
}

/// Settings from `ferry.toml` that a folder follows; they may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSettings {
    /// Whether the built-in ignore rules (editors' temporary files and the like) apply below the user's own.
    pub ignore_defaults: bool,
    /// Whether file events are used; without them the folder only scans.
    pub watch: bool,
    /// How often the whole folder is scanned although nothing was reported.
    pub rescan_interval: Duration,
    /// How long displaced and deleted versions stay in `.ferry/trash`.
    pub trash_retention: Duration,
    /// The brake: more deletes than this in one go, and more than [`FolderSettings::held_deletes_percent`], wait for `ferry folder approve`.
    pub held_deletes_count: u64,
    /// See [`FolderSettings::held_deletes_count`]; in per cent of the folder's items.
    pub held_deletes_percent: u8,
}

impl Default for FolderSettings {
    fn default() -> Self {
        Self {
            ignore_defaults: true,
            watch: true,
            rescan_interval: Duration::from_secs(3600),
            trash_retention: Duration::from_secs(30 * 24 * 3600),
            held_deletes_count: 100,
            held_deletes_percent: 30,
        }
    }
}

/// Bytes on the wire since the daemon started, over all folders. What is counted: bodies as sent, framing of HTTP excluded.
#[derive(Debug, Default)]
pub struct Counters {
    /// From LAN peers.
    pub lan_in_bytes: AtomicU64,
    /// To LAN peers.
    pub lan_out_bytes: AtomicU64,
    /// From the relay.
    pub relay_in_bytes: AtomicU64,
    /// To the relay.
    pub relay_out_bytes: AtomicU64,
}

/// Bandwidth limits of this device, shared by everything that transfers.
#[derive(Debug, Clone, Default)]
pub struct Bandwidth {
    /// To the relay.
    pub up: crate::bandwidth::Limiter,
    /// From the relay.
    pub down: crate::bandwidth::Limiter,
    /// From all devices nearby together.
    pub lan_in: crate::bandwidth::Limiter,
    /// To all devices nearby together.
    pub lan_out: crate::bandwidth::Limiter,
}

/// Stores the opaque identity of a root in the folder's [`FolderConfig`]; durable when it returns.
pub type SaveRoot = Arc<dyn Fn(serde_json::Value) -> std::io::Result<()> + Send + Sync>;

/// What a folder's task needs from the rest of the daemon.
#[derive(Clone)]
pub struct FolderDeps {
    /// The relay, logged in and with this namespace known to it. Nothing while the source is off, the device is logged out, or the namespace
    /// is not yet registered there. A value says nothing about reachability: requests may still fail.
    pub relay: watch::Receiver<Option<Arc<RelayClient>>>,
    /// Who writes: this device, under its present name.
    pub author: watch::Receiver<Author>,
    /// Settings; follow the changes.
    pub settings: watch::Receiver<FolderSettings>,
    /// Bandwidth limits, shared by all folders.
    pub limits: Arc<Bandwidth>,
    /// Where events go.
    pub events: EventSink,
    /// Bytes on the wire.
    pub counters: Arc<Counters>,
    /// A directory of this folder alone, for its index; exists, mode 0700.
    pub index_dir: PathBuf,
    /// Stores the identity of the root.
    pub save_root: SaveRoot,
    /// The folder's side of the LAN.
    pub lan: crate::lan::LanFolder,
}

/// The folder's task has ended (the folder was removed, or the daemon is stopping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the folder is not running")]
pub struct FolderStopped;

/// A running folder. Cheap to clone; the task ends on [`FolderHandle::stop`] or when the last handle is dropped.
#[derive(Clone)]
pub struct FolderHandle {
    commands: mpsc::Sender<FolderCommand>,
    status: watch::Receiver<Arc<FolderStatus>>,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl FolderHandle {
    /// A handle from its parts: for the folder's task.
    pub fn new(commands: mpsc::Sender<FolderCommand>, status: watch::Receiver<Arc<FolderStatus>>, task: JoinHandle<()>) -> Self {
        Self { commands, status, task: Arc::new(tokio::sync::Mutex::new(Some(task))) }
    }

    /// Sends a command; waits while [`COMMANDS_MAX`] others are queued. Answers come over the command's own reply channel.
    pub async fn command(&self, command: FolderCommand) -> Result<(), FolderStopped> {
        self.commands.send(command).await.map_err(|_| FolderStopped)
    }

    /// Sends a command if there is room: for wake-ups, of which the next will do as well.
    pub fn try_command(&self, command: FolderCommand) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// The newest status.
    pub fn status(&self) -> Arc<FolderStatus> {
        self.status.borrow().clone()
    }

    /// The status as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<FolderStatus>> {
        self.status.clone()
    }

    /// Stops the task: what is in place is made durable, temporary files are left clean. Waits until it has ended; call it again, or from
    /// several places, without harm.
    pub async fn stop(&self) {
        let _ = self.commands.send(FolderCommand::Stop).await;
        if let Some(task) = self.task.lock().await.take() {
            // A task that panicked has already reported; stopping it is then done.
            let _ = task.await;
        }
    }
}

/// Starts the task of a folder: a thread that owns the engine, and a task that hands it the commands. Call it inside a runtime.
pub fn spawn(config: FolderConfig, deps: FolderDeps) -> FolderHandle {
    let (commands, mut inbox) = mpsc::channel(COMMANDS_MAX);
    let status = FolderStatus::starting(config.id, config.name.clone(), config.path.clone(), report::now_ms());
    let (status_tx, status_rx) = watch::channel(Arc::new(status));
    let (wakes, wakes_rx) = crossbeam_channel::unbounded();
    let (mut relay, mut author, mut settings) = (deps.relay.clone(), deps.author.clone(), deps.settings.clone());
    let runtime = tokio::runtime::Handle::current();
    let channel = (wakes.clone(), wakes_rx);
    let (ended_tx, ended) = tokio::sync::oneshot::channel::<()>();
    let name = config.name.clone();
    let started = std::thread::Builder::new().name("ferry-folder".into()).spawn(move || {
        match driver::Driver::new(config, deps, channel, status_tx, runtime) {
            Ok(driver) => driver.run(),
            Err(error) => tracing::error!(folder = %name, %error, "the folder cannot start: no threads to be had"),
        }
        drop(ended_tx);
    });
    let task = tokio::spawn(async move {
        if started.is_err() {
            return;
        }
        loop {
            let wake = tokio::select! {
                command = inbox.recv() => driver::Wake::Command(command.unwrap_or(FolderCommand::Stop)),
                Ok(()) = relay.changed() => driver::Wake::Changed,
                Ok(()) = author.changed() => driver::Wake::Changed,
                Ok(()) = settings.changed() => driver::Wake::Changed,
            };
            let stop = matches!(wake, driver::Wake::Command(FolderCommand::Stop));
            if wakes.send(wake).is_err() || stop {
                break;
            }
        }
        // The sender is dropped, never used: this waits for the end of the thread.
        let _ = ended.await;
    });
    FolderHandle::new(commands, status_rx, task)
}

/// Random bytes of the operating system.
pub(crate) fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Without randomness ids could repeat, and repeated ids lose data: better no daemon.
        tracing::error!("the operating system has no random bytes; stopping");
        std::process::abort();
    }
    bytes
}

pub(crate) fn random_u16() -> u16 {
    let bytes = random_bytes();
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// Paths in text formats: a string where the path is UTF-8, else `{"hex": "…"}`, so that every path round-trips.
pub mod path_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        Plain(String),
        Hex { hex: String },
    }

    /// Writes a path.
    pub fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Text::Plain(text.into()),
            None => Text::Hex { hex: hex::encode(path.as_os_str().as_bytes()) },
        }
        .serialize(s)
    }

    /// Reads a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        Ok(match Text::deserialize(d)? {
            Text::Plain(text) => text.into(),
            Text::Hex { hex } => OsString::from_vec(hex::decode(hex).map_err(D::Error::custom)?).into(),
        })
    }
}
