//! Making a backup of a relay that may be serving.

use super::manifest::{FileRow, Manifest, Packs, pack_path, read_packs, write_packs};
use super::{BackupError, KEYS, sync_folder};
use crate::App;
use crate::config::Config;
use crate::http::time_text;
use crate::store::content::{PackId, PackRow};
use crate::store::snapshot;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// The setting that holds when a backup was last made, in milliseconds since 1970.
pub const LAST_SUCCESS: &str = "backup_last_success_at";
/// How long the sweep leaves blobs alone after the last sign of life of a backup, in milliseconds.
const HOLD_MS: i64 = 10 * 60 * 1000;
/// How often a backup gives such a sign, in milliseconds.
const HOLD_EVERY_MS: u64 = 60 * 1000;
/// The names of lists of packs begin with this.
const PACKS_LIST: &str = "packs-";
/// Bytes that are copied at once.
const PART_BYTES: u64 = 4 << 20;

/// What a backup holds, and what was done for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CreateReport {
    /// Packs that it holds.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that were copied now; the others were there from an earlier backup.
    pub packs_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Packs of an earlier backup that this one does not need.
    pub packs_removed: u64,
    /// Bytes of the database's copy.
    pub database_bytes: u64,
}

/// Makes a backup in `folder`: new, empty, or one of earlier backups of the same relay.
pub async fn create(config: &Config, app: &App, folder: &Path) -> Result<CreateReport, BackupError> {
    let before = prepare(app, folder)?;
    let hold = Hold::begin(app, Duration::from_millis(HOLD_EVERY_MS)).await?;
    let done = hold.beside(fill(config, app, folder, &before)).await;
    hold.release().await;
    let report = done?;
    let now_ms = app.clock.now_ms();
    app.accounts.put_setting(LAST_SUCCESS, &now_ms.to_string()).await?;
    app.accounts.note_operation("backup.created", &format!("{} packs of {} bytes", report.packs, report.pack_bytes)).await;
    Ok(report)
}

/// The packs that an earlier backup left in the folder; refuses a folder with something else in it.
fn prepare(app: &App, folder: &Path) -> Result<Packs, BackupError> {
    fs::create_dir_all(folder).map_err(BackupError::file(folder))?;
    let Some(manifest) = Manifest::read(folder)? else {
        // What a broken-off first backup left is ours too.
        let is_ours = |name: &str| ["database", "keys", "packs", "manifest.tmp"].contains(&name) || name.starts_with(PACKS_LIST);
        for entry in fs::read_dir(folder).map_err(BackupError::file(folder))? {
            let name = entry.map_err(BackupError::file(folder))?.file_name();
            if !name.to_str().is_some_and(is_ours) {
                let text = format!("{} holds '{}', which is no backup; name an empty directory", folder.display(), name.display());
                return Err(BackupError::InTheWay(text));
            }
        }
        return Ok(Packs::new());
    };
    if manifest.relay_id != app.accounts.relay_id() {
        let text = format!("{} holds a backup of another relay ({}); name another directory", folder.display(), manifest.relay_id);
        return Err(BackupError::InTheWay(text));
    }
    read_packs(&folder.join(&manifest.packs_list))
}

async fn fill(config: &Config, app: &App, folder: &Path, before: &Packs) -> Result<CreateReport, BackupError> {
    // Listed before the database is read and again after: between them they hold every pack that it can name, and no blob goes away meanwhile (BK1).
    let mut wanted: BTreeMap<PackId, PackRow> = app.content.packs().await?.into_iter().map(|p| (p.id, p)).collect();
    let now_ms = app.clock.now_ms();
    // Beside the files of an earlier backup, which stays whole until this one is.
    let database = format!("database/{now_ms}");
    // Of several databases each is read at a moment of its own: nobody's rows go from one to another in between (BK5).
    let still = app.content.hold_moves().await?;
    let (kind, files) = snapshot::take(config, &folder.join(&database)).await?;
    drop(still);
    for pack in app.content.packs().await? {
        wanted.insert(pack.id, pack);
    }
    let mut report = CreateReport::default();
    let mut packs = Packs::new();
    for (id, pack) in &wanted {
        let row = match before.get(id) {
            // Packs never change: what is there is good if it is whole.
            Some(row) if row.bytes == pack.length_bytes && has_length(&pack_path(folder, *id), row.bytes) => Some(row.clone()),
            _ => {
                let copied = copy_pack(app, pack, &pack_path(folder, *id)).await?;
                if let Some(row) = &copied {
                    report.packs_copied += 1;
                    report.bytes_copied += row.bytes;
                }
                copied
            }
        };
        // A pack that was there for the first list only was retired before the database was read.
        let Some(row) = row else { continue };
        report.packs += 1;
        report.pack_bytes += row.bytes;
        packs.insert(*id, row);
    }
    let list = format!("{PACKS_LIST}{now_ms}.tsv");
    let mut manifest = Manifest::new(time_text(now_ms), app.accounts.relay_id().to_owned(), kind, list.clone());
    (manifest.packs, manifest.pack_bytes) = (report.packs, report.pack_bytes);
    write_packs(&folder.join(&list), &packs)?;
    manifest.add(folder, &list)?;
    for file in files {
        report.database_bytes += manifest.add(folder, &format!("{database}/{file}"))?;
    }
    for key in copy_keys(config, folder)? {
        manifest.add(folder, &key)?;
    }
    manifest.write(folder)?;
    report.packs_removed = remove_others(folder, before, &packs)?;
    remove_older(folder, now_ms, &list)?;
    Ok(report)
}

fn has_length(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == bytes)
}

/// Copies a pack; nothing if it is gone.
async fn copy_pack(app: &App, pack: &PackRow, path: &Path) -> Result<Option<FileRow>, BackupError> {
    let failed = BackupError::file(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(&failed)?;
    }
    let temp = path.with_extension("tmp");
    let mut file = File::create(&temp).map_err(&failed)?;
    let (mut hash, mut at) = (Sha256::new(), 0);
    while at < pack.length_bytes {
        let len = PART_BYTES.min(pack.length_bytes - at);
        let Some(part) = app.content.read_pack(pack, at, len as usize).await? else {
            drop(file);
            fs::remove_file(&temp).map_err(&failed)?;
            // Rows that name it are for `storage verify`: a backup holds what there is.
            tracing::warn!(pack = %pack.id, "a pack is not in the blob store and cannot be backed up");
            return Ok(None);
        };
        hash.update(&part);
        file.write_all(&part).map_err(&failed)?;
        at += len;
    }
    file.sync_all().map_err(&failed)?;
    fs::rename(&temp, path).and_then(|()| sync_folder(path)).map_err(&failed)?;
    Ok(Some(FileRow { bytes: pack.length_bytes, sha256: hex::encode(hash.finalize()) }))
}

/// Copies the keys, and says which there are. Keys outside of the data directory come along under the same names.
fn copy_keys(config: &Config, folder: &Path) -> Result<Vec<String>, BackupError> {
    let to = folder.join("keys");
    fs::create_dir_all(&to).map_err(BackupError::file(&to))?;
    let mut copied = Vec::new();
    for name in KEYS {
        let from = match name {
            "jwt.key" if !config.auth.jwt_key.is_empty() => config.auth.jwt_key.clone().into(),
            "secrets.key" if !config.auth.secrets_key.is_empty() => config.auth.secrets_key.clone().into(),
            "grant.key" if !config.auth.grant_key.is_empty() => config.auth.grant_key.clone().into(),
            _ => config.data.join(name),
        };
        if from.exists() {
            let bytes = fs::read(&from).map_err(BackupError::file(&from))?;
            crate::store::keyfile::write(&to.join(name), &bytes).map_err(BackupError::file(&to))?;
            copied.push(format!("keys/{name}"));
        }
    }
    Ok(copied)
}

/// Removes packs that only the earlier backup named.
fn remove_others(folder: &Path, before: &Packs, now: &Packs) -> Result<u64, BackupError> {
    let mut removed = 0;
    for id in before.keys().filter(|id| !now.contains_key(id)) {
        let path = pack_path(folder, *id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => {
                other.map_err(BackupError::file(&path))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Removes databases and lists of earlier backups.
fn remove_older(folder: &Path, now_ms: i64, list: &str) -> Result<(), BackupError> {
    let databases = folder.join("database");
    let keep = now_ms.to_string();
    for entry in fs::read_dir(&databases).map_err(BackupError::file(&databases))? {
        let entry = entry.map_err(BackupError::file(&databases))?;
        if entry.file_name() != *keep {
            fs::remove_dir_all(entry.path()).map_err(BackupError::file(&entry.path()))?;
        }
    }
    for entry in fs::read_dir(folder).map_err(BackupError::file(folder))? {
        let entry = entry.map_err(BackupError::file(folder))?;
        let name = entry.file_name();
        if name != *list && name.to_str().is_some_and(|n| n.starts_with(PACKS_LIST)) {
            fs::remove_file(entry.path()).map_err(BackupError::file(&entry.path()))?;
        }
    }
    Ok(())
}

/// Keeps the sweep from blobs for as long as a backup gives signs of life.
struct Hold<'a> {
    app: &'a App,
    holder: [u8; 16],
    /// How often it gives one.
    every: Duration,
}

impl<'a> Hold<'a> {
    async fn begin(app: &'a App, every: Duration) -> Result<Self, BackupError> {
        let hold = Self { app, holder: crate::service::content::random_id()?, every };
        hold.keep().await?;
        Ok(hold)
    }

    async fn keep(&self) -> Result<(), BackupError> {
        Ok(self.app.content.hold_sweep(self.holder, self.app.clock.now_ms() + HOLD_MS).await?)
    }

    /// Gives signs of life while this is done, however long one step of it takes: the copy of a database may take hours.
    async fn beside<T>(&self, work: impl Future<Output = Result<T, BackupError>>) -> Result<T, BackupError> {
        let signs = async {
            loop {
                tokio::time::sleep(self.every).await;
                if let Err(error) = self.keep().await {
                    return error;
                }
            }
        };
        tokio::select! {
            done = work => done,
            error = signs => Err(error),
        }
    }

    async fn release(self) {
        // If this fails, it ends by itself.
        if let Err(error) = self.app.content.release_sweep(self.holder).await {
            tracing::warn!(%error, "the sweep leaves blobs alone for some minutes more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::sync::Arc;

    /// However long one step takes, the sweep leaves blobs alone; and who is done does not end what another needs.
    #[tokio::test]
    async fn a_long_step_keeps_the_sweep_from_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().into(), ..Config::default() };
        let clock = ManualClock::at(1_000_000);
        let app = App::open_with(&config, Arc::new(clock.clone())).await.unwrap();
        let is_held = async || app.content.sweep_is_held().await.unwrap();
        let every = Duration::from_millis(1);
        let other = Hold::begin(&app, every).await.unwrap();
        let hold = Hold::begin(&app, every).await.unwrap();
        let long = async {
            for _ in 0..5 {
                clock.advance_ms(HOLD_MS - 1);
                assert!(is_held().await);
                // The next sign of life: without it this never ends.
                let until_ms = async || app.content.sweep_held_until_ms().await.unwrap();
                while until_ms().await < app.clock.now_ms() + HOLD_MS {
                    tokio::time::sleep(every).await;
                }
            }
            Ok(())
        };
        hold.beside(long).await.unwrap();
        other.keep().await.unwrap();
        hold.release().await;
        assert!(is_held().await, "another needs them");
        other.release().await;
        assert!(!is_held().await);
    }
}
