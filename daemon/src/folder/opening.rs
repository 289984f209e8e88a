//! Opening a folder: its root is proved, what a crash left is put right, the index is opened, the engine starts, the watcher listens.

use super::driver::{FolderEngine, Wake};
use super::index_trees::IndexTrees;
use super::notices::Notices;
use super::rules::Rules;
use super::{FolderConfig, FolderDeps};
use crate::fs::bases::Bases;
use crate::fs::watch::Watcher;
use crate::fs::{self, FolderMarker, InstanceId, Root, RootError, RootIdentity};
use crate::index;
use crossbeam_channel::Sender;
use ferry_engine::{Engine, Look, LookResult, Policy};
use ferry_protocol::{DeviceId, Epoch, ReplicaId};
use std::sync::Arc;
use std::time::Duration;

/// Unfinished downloads older than this are dropped, at the start and with each look at the whole folder.
pub(super) const KEEP_PARTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// An open folder.
pub(super) struct Opened {
    pub root: Arc<Root>,
    pub engine: FolderEngine,
    /// Versions that merges may need.
    pub bases: Arc<Bases>,
    pub rules: Rules,
    /// Notices that a person has not taken note of.
    pub notices: Notices,
    /// This device.
    pub device: DeviceId,
    /// Ends with the folder.
    pub watcher: Option<Watcher>,
    /// Why there is no watcher.
    watch_problem: Option<String>,
}

/// Why a folder cannot be opened now. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The root is not there, or not the one that was attached.
    #[error("{0}")]
    Root(#[from] RootError),
    /// The index cannot be used.
    #[error("{0}")]
    Index(String),
    /// A mistake of ours ended what was under way; what was in memory is thrown away, and read anew from the index (K37).
    #[error("a part of Ferry failed on this folder; the log says where")]
    Failed,
    /// The root's identity could not be stored.
    #[error("the folder's identity cannot be stored: {0}")]
    Save(String),
}

impl OpenError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Root(_) => "root_gone",
            Self::Index(_) => "index_unusable",
            Self::Failed => "internal_error",
            Self::Save(_) => "state_unwritable",
        }
    }

    /// What to do, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Root(_) => {
                "mount the disk or bring the folder back; or remove it with 'ferry folder remove' and add it again. Nothing is deleted."
            }
            Self::Failed => "Ferry tries again by itself, less and less often; please report it with the log. Nothing is deleted.",
            Self::Index(_) | Self::Save(_) => "free some space for Ferry's state, or check the disk; Ferry tries again by itself",
        }
    }
}

/// Opens everything. `config` gets the identity of a root that is attached for the first time.
pub(super) fn open(config: &mut FolderConfig, deps: &FolderDeps, wakes: &Sender<Wake>) -> Result<Opened, OpenError> {
    let (root, first) = open_root(config, deps)?;
    let root = Arc::new(root);
    let recovered = fs::trash::recover(&root, KEEP_PARTS.as_millis() as i64);
    if let Err(error) = &recovered {
        tracing::warn!(folder = %config.name, ?error, "what a crash may have left could not be put right yet");
    }
    let opened = index::open(&deps.index_dir, index::DEFAULT_KIND).map_err(|e| OpenError::Index(e.to_string()))?;
    let fresh = matches!(opened.origin, index::Origin::New);
    let mut trees = IndexTrees::open(opened, ReplicaId::from_bytes(super::random_bytes())).map_err(|e| OpenError::Index(e.to_string()))?;
    if first && fresh && config.created_here {
        // Nobody else can know of a namespace that was made here just now.
        ferry_engine::Trees::meta_mut(&mut trees).heard = true;
    }
    if let Err(error) = fs::case::probe(&root) {
        tracing::info!(folder = %config.name, ?error, "whether this disk folds names could not be told");
    }
    let settings = deps.settings.borrow().clone();
    let policy = Policy {
        merge_text: config.merge_text,
        folds_names: root.folds_names(),
        brake_items: settings.held_deletes_count,
        brake_percent: u64::from(settings.held_deletes_percent),
        ..Policy::default()
    };
    let author = deps.author.borrow().clone();
    let mut engine = Engine::open(trees, author, policy).map_err(|e| OpenError::Index(e.to_string()))?;
    // Our feed's numbers are good for this run; an index that was set back would give them again.
    engine.begin_run(Epoch::from_bytes(super::random_bytes())).map_err(|e| OpenError::Index(e.to_string()))?;
    let rules = Rules::load(&root, settings.ignore_defaults);
    engine.set_filter(Box::new(rules.shared()));
    let (watcher, watch_problem) = watch(&root, settings.watch, &rules, wakes);
    let device = deps.author.borrow().device;
    let notices = Notices::open(&deps.index_dir, &mut engine);
    let bases = Arc::new(Bases::new(root.clone(), config.merge_text));
    bases.clear();
    Ok(Opened { root, engine, bases, rules, notices, device, watcher, watch_problem })
}

impl Opened {
    /// Takes note of ignore files in what was looked at; if the rules changed, everything is compared anew.
    pub fn notice_rules(&mut self, look: &Look, result: &LookResult) {
        if self.rules.notice(&self.root, look, result) {
            self.follow_rules();
        }
    }

    /// Follows the setting of the built-in rules.
    pub fn follow_defaults(&mut self, on: bool) {
        if self.rules.set_defaults(on) {
            self.follow_rules();
        }
    }

    fn follow_rules(&mut self) {
        self.engine.set_filter(Box::new(self.rules.shared()));
        self.engine.rescan();
        if let Some(watcher) = &self.watcher {
            watcher.rewatch();
        }
    }

    /// Why changes may be noticed late.
    pub fn watch_problem(&self) -> Option<String> {
        self.watch_problem.clone().or_else(|| self.watcher.as_ref().and_then(|w| w.health().exhausted))
    }
}

fn open_root(config: &mut FolderConfig, deps: &FolderDeps) -> Result<(Root, bool), OpenError> {
    if let Some(value) = &config.root {
        let identity: RootIdentity = serde_json::from_value(value.clone()).map_err(|_| RootError::Unmarked)?;
        return Ok((Root::open(&config.path, &identity)?, false));
    }
    let marker = FolderMarker { namespace: config.id, instance: InstanceId(super::random_bytes()) };
    let root = Root::attach(&config.path, &marker)?;
    let value = serde_json::to_value(root.identity()).map_err(|e| OpenError::Save(e.to_string()))?;
    (deps.save_root)(value.clone()).map_err(|e| OpenError::Save(e.to_string()))?;
    config.root = Some(value);
    Ok((root, true))
}

fn watch(root: &Arc<Root>, wanted: bool, rules: &Rules, wakes: &Sender<Wake>) -> (Option<Watcher>, Option<String>) {
    if !wanted {
        return (None, Some("file events are turned off; the folder is scanned from time to time".into()));
    }
    let (wakes, rules) = (wakes.clone(), rules.shared());
    let wanted = move |path: &ferry_protocol::RelPath| !rules.check(path, true).is_ignored();
    match Watcher::start(root.clone(), wanted, move |hint| drop(wakes.send(Wake::Hint(hint)))) {
        Ok(watcher) => (Some(watcher), None),
        Err(error) => (None, Some(error.to_string())),
    }
}
