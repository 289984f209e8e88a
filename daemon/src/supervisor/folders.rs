//! The folders of this device: persisted, running, found by id, name or path.
//!
//! * **S1** A folder is recorded, durable, before it starts, and its record is removed before anything else of it is (K39).
//! * **S2** Removing a folder here never deletes a file of it, here or elsewhere; a folder is added without what an earlier life of it knew.
//! * **S3** No folder lies in another, and none holds or lies in the daemon's own state.

use super::Daemon;
use crate::durable;
use crate::events::EventKind;
use crate::folder::{self, FolderCommand, FolderConfig, FolderDeps, FolderHandle};
use crate::problem::{Outcome, Problem};
use crate::relay::RelayClient;
use ferry_protocol::{NamespaceId, RelPath};
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// A folder as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What the folder's task is given.
    pub config: FolderConfig,
    /// The user and relay under which the relay knows the namespace; nothing until it was registered there or found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_with: Option<String>,
    /// Whether another user owns the namespace: then this device never makes it anew on a relay that does not know it, and becomes nobody's owner by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_anothers: bool,
}

/// A folder that runs.
#[derive(Clone)]
pub struct Running {
    /// Its record.
    pub record: Record,
    /// Its task.
    pub handle: FolderHandle,
    /// What its task sees of the relay.
    pub relay: watch::Sender<Option<Arc<RelayClient>>>,
}

/// What `folder add` was asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddFolder {
    /// The root, absolute.
    #[serde(with = "crate::folder::path_text")]
    pub path: PathBuf,
    /// The name; the directory's name if not given.
    #[serde(default)]
    pub name: Option<String>,
    /// Attach to an existing folder of the relay: its id or name.
    #[serde(default)]
    pub remote: Option<String>,
}

impl Daemon {
    /// Starts every recorded folder.
    pub(super) fn start_recorded_folders(self: &Arc<Self>) -> Outcome<()> {
        let records: Vec<Record> = durable::read_json(&self.paths.folders_file())?.unwrap_or_default();
        for record in records {
            let running = self.start(record)?;
            self.lock_folders().insert(running.record.config.id, running);
        }
        Ok(())
    }

    fn start(self: &Arc<Self>, record: Record) -> Outcome<Running> {
        let config = record.config.clone();
        let index_dir = self.paths.index_dir(config.id);
        durable::private_dir(&index_dir)?;
        let (relay, relay_seen) = watch::channel(None);
        let daemon = Arc::downgrade(self);
        let id = config.id;
        let deps = FolderDeps {
            relay: relay_seen,
            author: self.author.subscribe(),
            settings: self.folder_settings.subscribe(),
            limits: self.limits.clone(),
            events: self.activity.events().of_folder(config.id, &config.name),
            counters: self.counters.clone(),
            index_dir,
            lan: self.lan.hub.folder(config.id),
            save_root: Arc::new(move |root| {
                let daemon = daemon.upgrade().ok_or_else(|| std::io::Error::other("the daemon is stopping"))?;
                daemon.change_record(id, |record| record.config.root = Some(root))
            }),
        };
        Ok(Running { record, handle: folder::spawn(config, deps), relay })
    }

    pub(super) fn lock_folders(&self) -> std::sync::MutexGuard<'_, super::Folders> {
        // Changes of the map are single insertions and removals, so a poisoned map is still whole.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All folders, by name.
    pub fn folders(&self) -> Vec<Running> {
        let mut all: Vec<_> = self.lock_folders().values().cloned().collect();
        all.sort_by(|a, b| a.record.config.name.cmp(&b.record.config.name));
        all
    }

    /// Changes a folder's record, durable when it returns. Nothing is changed if it cannot be written.
    pub fn change_record(&self, id: NamespaceId, change: impl FnOnce(&mut Record)) -> std::io::Result<()> {
        let mut folders = self.lock_folders();
        let mut records: Vec<Record> = folders.values().map(|r| r.record.clone()).collect();
        let Some(record) = records.iter_mut().find(|r| r.config.id == id) else {
            // A folder that is just being added: its task saves the root before it stands in the map.
            return self.change_starting(id, change);
        };
        let before = record.clone();
        change(record);
        if *record == before {
            return Ok(());
        }
        let changed = record.clone();
        durable::replace_json(&self.paths.folders_file(), &records)?;
        if let Some(running) = folders.get_mut(&id) {
            running.record = changed;
        }
        Ok(())
    }

    fn change_starting(&self, id: NamespaceId, change: impl FnOnce(&mut Record)) -> std::io::Result<()> {
        let mut records: Vec<Record> = durable::read_json(&self.paths.folders_file())?.unwrap_or_default();
        let record = records.iter_mut().find(|r| r.config.id == id);
        change(record.ok_or_else(|| std::io::Error::other("the folder was removed"))?);
        durable::replace_json(&self.paths.folders_file(), &records)
    }

    /// The folder with this id, name or path.
    pub fn find(&self, selector: &str) -> Outcome<Running> {
        let folders = self.lock_folders();
        if let Some(found) = selector.parse::<NamespaceId>().ok().and_then(|id| folders.get(&id)) {
            return Ok(found.clone());
        }
        let matches = |r: &&Running| r.record.config.name == selector || r.record.config.path == Path::new(selector);
        folders.values().find(matches).cloned().ok_or_else(|| {
            let shown = ferry_protocol::name::display_bytes(selector.as_bytes());
            Problem::not_found("folder_not_found", format!("no folder here is called '{shown}'")).hint("list them with: ferry folder list")
        })
    }

    /// The folder that holds an absolute path, and the path below its root.
    pub fn folder_of_path(&self, path: &Path) -> Outcome<(Running, RelPath)> {
        let shown = crate::config::shown(path);
        let found = self.lock_folders().values().find(|r| path.starts_with(&r.record.config.path)).cloned();
        let Some(running) = found else {
            return Err(Problem::not_found("path_not_in_folder", format!("{shown} is in no synced folder"))
                .hint("list them with: ferry folder list; add one with: ferry folder add PATH"));
        };
        let below = path.strip_prefix(&running.record.config.path).unwrap_or(path);
        let below = RelPath::parse(below.as_os_str().as_bytes())
            .map_err(|e| Problem::usage(format!("{shown} is not a path that can be synced: {e}")).code("path_invalid"))?;
        Ok((running, below))
    }

    /// Adds a folder and starts it.
    pub async fn add_folder(self: &Arc<Self>, add: AddFolder) -> Outcome<Running> {
        let _one_at_a_time = self.changing_folders.lock().await;
        let remote = match &add.remote {
            Some(wanted) => Some(self.remote_folder(wanted).await?),
            None => None,
        };
        let path = self.prepare_root(&add.path)?;
        let remote_name = remote.as_ref().map(|r| r.name.as_str());
        let name = match add.name.as_deref().or(remote_name).or_else(|| path.file_name().and_then(|n| n.to_str())) {
            Some(name) => clean_folder_name(name)?,
            None => return Err(Problem::usage("the folder needs a name").hint("give one with: --name NAME")),
        };
        let own = self.account.borrow().as_ref().map(|account| account.user_id);
        let is_anothers = remote.as_ref().is_some_and(|r| Some(r.owner) != own);
        let namespace = remote.map(|r| r.id);
        self.check_free(&path, &name, namespace)?;
        if namespace.is_none() {
            self.check_new_on_relay(&name).await?;
        }
        let id = match namespace {
            Some(id) => id,
            None => NamespaceId::from_bytes(random_id()?),
        };
        let config = FolderConfig {
            id,
            name,
            path,
            root: None,
            paused: false,
            pause_until_ms: None,
            merge_text: false,
            created_here: namespace.is_none(),
        };
        let record = Record { config, registered_with: None, is_anothers };
        self.remove_index(id)?;
        {
            let folders = self.lock_folders();
            let mut records: Vec<Record> = folders.values().map(|r| r.record.clone()).collect();
            records.push(record.clone());
            durable::replace_json(&self.paths.folders_file(), &records)?;
        }
        if namespace.is_some() {
            // With the grant the folder's task knows from the start whether what stands here may be given to the others.
            self.fetch_grants().await;
        }
        let running = self.start(record)?;
        self.activity.events().of_folder(id, &running.record.config.name).emit(EventKind::FolderAdded);
        self.insert_started(id, running);
        self.folders_changed.notify_one();
        self.find(&id.to_string())
    }

    /// Removes the index of a folder that is not synced here. One that a removal left behind (the daemon was killed) must not be found by a later
    /// attachment: what was done to the files in between would be taken for changes, and what is gone for deletes (K39).
    fn remove_index(&self, id: NamespaceId) -> Outcome<()> {
        match std::fs::remove_dir_all(self.paths.index_dir(id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Problem::from(e)),
            _ => Ok(()),
        }
    }

    /// A second folder of a name that the account already has is nearly always a mistake. Not asked while the relay is not reachable.
    async fn check_new_on_relay(&self, name: &str) -> Outcome<()> {
        let client = self.client.borrow().clone();
        let Some(client) = client else { return Ok(()) };
        match client.namespaces().await {
            Ok(all) if all.iter().any(|n| n.name == name) => {
                Err(Problem::conflict("remote_folder_exists", format!("the account already has a folder '{name}'"))
                    .hint(format!("attach to it with --remote '{name}', or give another name with --name")))
            }
            _ => Ok(()),
        }
    }

    fn insert_started(&self, id: NamespaceId, mut running: Running) {
        let mut folders = self.lock_folders();
        // The task may have saved its root since the record was written.
        if let Ok(Some(records)) = durable::read_json::<Vec<Record>>(&self.paths.folders_file())
            && let Some(record) = records.into_iter().find(|r| r.config.id == id)
        {
            running.record = record;
        }
        folders.insert(id, running);
    }

    fn prepare_root(&self, path: &Path) -> Outcome<PathBuf> {
        let shown = crate::config::shown(path);
        if !path.is_absolute() {
            return Err(Problem::usage(format!("'{shown}' is not an absolute path")));
        }
        let failed = |e: std::io::Error| {
            let problem = Problem::from(std::io::Error::new(e.kind(), format!("cannot use {shown} as a folder: {e}")));
            problem.hint("choose a directory that you may write to")
        };
        match std::fs::metadata(path) {
            Ok(meta) if !meta.is_dir() => {
                return Err(Problem::usage(format!("{shown} is not a directory")).code("not_a_directory").hint("choose a directory"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(path).map_err(failed)?,
            Err(e) => return Err(failed(e)),
        }
        path.canonicalize().map_err(failed)
    }

    fn check_free(&self, path: &Path, name: &str, namespace: Option<NamespaceId>) -> Outcome<()> {
        let shown = crate::config::shown(path);
        for dir in [&self.paths.state_dir, self.paths.socket.parent().unwrap_or(&self.paths.state_dir)] {
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            if dir.starts_with(path) || path.starts_with(&dir) {
                return Err(Problem::conflict(
                    "folder_holds_state",
                    format!("{shown} and ferry's own state ({}) lie in one another", dir.display()),
                )
                .hint("choose another directory"));
            }
        }
        for (id, other) in self.lock_folders().iter() {
            let config = &other.record.config;
            if config.path == path {
                return Err(Problem::conflict("folder_exists", format!("{shown} is already synced, as '{}'", config.name)));
            }
            if config.path.starts_with(path) || path.starts_with(&config.path) {
                return Err(Problem::conflict("folder_nested", format!("{shown} and the folder '{}' lie in one another", config.name))
                    .hint("choose another directory, or remove that folder first: ferry folder remove"));
            }
            if namespace == Some(*id) {
                return Err(Problem::conflict(
                    "folder_exists",
                    format!("this folder is already synced here, at {}", crate::config::shown(&config.path)),
                ));
            }
            if config.name == name {
                return Err(Problem::conflict("folder_name_taken", format!("a folder here is already called '{name}'"))
                    .hint("give another with: --name NAME"));
            }
        }
        Ok(())
    }

    /// Removes a folder from this device (S2): its files stay.
    pub async fn remove_folder(&self, selector: &str) -> Outcome<Record> {
        let _one_at_a_time = self.changing_folders.lock().await;
        let running = self.find(selector)?;
        let id = running.record.config.id;
        {
            let folders = self.lock_folders();
            let records: Vec<_> = folders.values().filter(|r| r.record.config.id != id).map(|r| r.record.clone()).collect();
            durable::replace_json(&self.paths.folders_file(), &records)?;
        }
        running.handle.stop().await;
        self.lock_folders().remove(&id);
        self.lan.hub.drop_folder(id);
        self.accept(id);
        if let Err(e) = self.remove_index(id) {
            tracing::warn!("cannot remove the index of a removed folder: {}", e.message);
        }
        self.activity.events().of_folder(id, &running.record.config.name).emit(EventKind::FolderRemoved);
        Ok(running.record)
    }

    /// Pauses a folder, until a time (milliseconds since 1970) or until it is resumed.
    pub async fn pause_folder(&self, running: &Running, until_ms: Option<i64>) -> Outcome<()> {
        self.change_record(running.record.config.id, |record| {
            record.config.paused = true;
            record.config.pause_until_ms = until_ms;
        })?;
        Ok(running.handle.command(FolderCommand::Pause).await?)
    }

    /// Lets a folder go on.
    pub async fn resume_folder(&self, running: &Running) -> Outcome<()> {
        self.change_record(running.record.config.id, |record| {
            record.config.paused = false;
            record.config.pause_until_ms = None;
        })?;
        Ok(running.handle.command(FolderCommand::Resume).await?)
    }

    /// Whether two edits of one text are merged in a folder on this device.
    pub async fn set_merge_text(&self, running: &Running, on: bool) -> Outcome<()> {
        self.change_record(running.record.config.id, |record| record.config.merge_text = on)?;
        Ok(running.handle.command(FolderCommand::MergeText(on)).await?)
    }

    /// Resumes the folders whose pause has ended.
    pub(super) async fn end_pauses(&self, now_ms: i64) {
        for running in self.folders() {
            let config = &running.record.config;
            let over = config.paused && config.pause_until_ms.is_some_and(|until| until <= now_ms);
            if over && let Err(e) = self.resume_folder(&running).await {
                tracing::warn!("cannot resume '{}': {e}", config.name);
            }
        }
    }

    /// Renames a folder on this device. The name of the folder on the relay and on other devices stays.
    pub async fn rename_folder(self: &Arc<Self>, running: &Running, name: &str) -> Outcome<()> {
        let _one_at_a_time = self.changing_folders.lock().await;
        let name = clean_folder_name(name)?;
        let id = running.record.config.id;
        if self.lock_folders().iter().any(|(other, r)| *other != id && r.record.config.name == name) {
            return Err(Problem::conflict("folder_name_taken", format!("a folder here is already called '{name}'")));
        }
        self.change_record(id, |record| record.config.name = name)?;
        // The task carries the name in its status and events: it is started anew.
        running.handle.stop().await;
        let record = self.find(&id.to_string())?.record;
        let again = self.start(record)?;
        self.lock_folders().insert(id, again);
        self.folders_changed.notify_one();
        Ok(())
    }
}

/// A folder's name: 1 to 255 bytes, no control characters.
fn clean_folder_name(name: &str) -> Outcome<String> {
    let name = name.trim();
    let ok = !name.is_empty() && name.len() <= ferry_protocol::limits::NAMESPACE_NAME_MAX_BYTES && !name.chars().any(char::is_control);
    if ok {
        Ok(name.to_owned())
    } else {
        Err(Problem::usage("a folder's name has 1 to 255 bytes and no control characters").code("name_invalid"))
    }
}

/// Sixteen random bytes.
pub fn random_id() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Problem::failed("no_randomness", e.to_string()))?;
    Ok(bytes)
}
