//! Opening a folder: its root is proved, what a crash left is put right, the index is opened, the engine starts, the watcher listens.

use super::driver::{FolderEngine, Wake};
use super::index_trees::IndexTrees;
use super::shim::{Ignore, Watcher};
use super::{FolderConfig, FolderDeps};
use crate::fs::{self, FolderMarker, InstanceId, Root, RootError, RootIdentity};
use crate::index;
use crossbeam_channel::Sender;
use ferry_engine::{Engine, Filter, Policy};
use ferry_protocol::{RelPath, ReplicaId};
use std::sync::Arc;
use std::time::Duration;

/// Unfinished downloads older than this are dropped at the start.
const KEEP_PARTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// An open folder.
pub(super) struct Opened {
    pub root: Arc<Root>,
    pub engine: FolderEngine,
    pub ignore: Arc<Ignore>,
    /// Ends with the folder.
    pub watcher: Option<Watcher>,
    /// Why there is no watcher, or only a partial one.
    pub watch_problem: Option<String>,
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
            Self::Save(_) => "state_unwritable",
        }
    }

    /// What to do, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Root(_) => {
                "mount the disk or bring the folder back; or remove it with 'ferry folder remove' and add it again. Nothing is deleted."
            }
            Self::Index(_) | Self::Save(_) => "free some space for Ferry's state, or check the disk; Ferry tries again by itself",
        }
    }
}

/// The engine's view of the ignore rules.
struct Rules(Arc<Ignore>);

impl Filter for Rules {
    fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        self.0.check(path, is_dir).is_ignored()
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
    let settings = deps.settings.borrow().clone();
    let policy = Policy {
        folds_names: root.folds_names(),
        brake_items: settings.held_deletes_count,
        brake_percent: u64::from(settings.held_deletes_percent),
        ..Policy::default()
    };
    let author = deps.author.borrow().clone();
    let mut engine = Engine::open(trees, author, policy).map_err(|e| OpenError::Index(e.to_string()))?;
    let ignore = Arc::new(Ignore::load(&root, settings.ignore_defaults));
    engine.set_filter(Box::new(Rules(ignore.clone())));
    let (watcher, watch_problem) = watch(&root, settings.watch, wakes);
    Ok(Opened { root, engine, ignore, watcher, watch_problem })
}

impl Opened {
    /// Reads the ignore rules again; everything is compared anew.
    pub fn reload_filter(&mut self, deps: &FolderDeps) {
        self.ignore = Arc::new(Ignore::load(&self.root, deps.settings.borrow().ignore_defaults));
        self.engine.set_filter(Box::new(Rules(self.ignore.clone())));
        self.engine.rescan();
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

fn watch(root: &Arc<Root>, wanted: bool, wakes: &Sender<Wake>) -> (Option<Watcher>, Option<String>) {
    if !wanted {
        return (None, Some("file events are turned off; the folder is scanned from time to time".into()));
    }
    let wakes = wakes.clone();
    match Watcher::start(root, move |hint| drop(wakes.send(Wake::Hint(hint)))) {
        Ok(watcher) => {
            let problem = watcher.health().exhausted;
            (Some(watcher), problem)
        }
        Err(error) => (None, Some(error.to_string())),
    }
}
