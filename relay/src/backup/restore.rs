//! Bringing a relay back from a backup, into an empty data directory and an empty database. Broken off anywhere, it is begun again and goes on: packs
//! and databases that have come whole are not brought again, and a mark at each database says of which backup they are until the end.

use super::manifest::{Manifest, Packs, pack_path, read_packs};
use super::{BackupError, hash_file};
use crate::config::Config;
use crate::store::blob::BlobStore;
use crate::store::content::PackId;
use crate::store::open_blobs::open_blobs;
use crate::store::snapshot;
use crate::{App, prepare_data_dir};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// When the backup was made.
    pub made_at: String,
    /// The epoch of the feeds from now on.
    pub epoch: String,
    /// Packs.
    pub packs: u64,
    /// Packs that a restore which was broken off had brought already.
    pub packs_there: u64,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// Restores the backup in `folder` to the stores that `config` names.
pub async fn restore(config: &Config, folder: &Path) -> Result<RestoreReport, BackupError> {
    let manifest = Manifest::must_read(folder)?;
    for (name, row) in &manifest.files {
        let (sha256, _) = hash_file(&folder.join(name))?;
        if sha256 != row.sha256 {
            return Err(BackupError::Damaged(format!("{name} is not what was backed up; nothing was restored")));
        }
    }
    let (backup, _) = hash_file(&Manifest::path(folder))?;
    snapshot::must_fit(config, manifest.database, &backup).await?;
    prepare_data_dir(&config.data)?;
    restore_keys(config, &manifest, folder)?;
    let blobs = open_blobs(config).await?;
    let packs = read_packs(&folder.join(&manifest.packs_list))?;
    let home = blobs.stores.get(&blobs.home).ok_or_else(|| BackupError::Damaged("no blob store is configured".into()))?;
    let packs_there = restore_packs(&**home, &packs, folder).await?;
    snapshot::put(config, &manifest.database_files(folder)?, &backup).await?;
    // The database is in its place, with the epoch of its former life: nobody serves it before it has a new one (the caller holds the directory's lock).
    let app = App::open(config).await?;
    // Wherever they were: they are in the home region now.
    app.content.place_packs(&packs.keys().copied().collect::<Vec<_>>()).await?;
    let epoch = app.content.renew_identity().await?;
    app.accounts.note_operation("backup.restored", &manifest.made_at).await;
    app.close().await;
    snapshot::ended(config).await?;
    Ok(RestoreReport {
        made_at: manifest.made_at,
        epoch: epoch.to_string(),
        packs: packs.len() as u64,
        packs_there,
        pack_bytes: manifest.pack_bytes,
    })
}

/// Puts the keys where the configuration has them. A key that is there already and is another one stays: tokens of the former life end.
fn restore_keys(config: &Config, manifest: &Manifest, folder: &Path) -> Result<(), BackupError> {
    for name in manifest.files.keys().filter_map(|n| n.strip_prefix("keys/")) {
        let configured = match name {
            "jwt.key" => &config.auth.jwt_key,
            "grant.key" => &config.auth.grant_key,
            "secrets.key" => &config.auth.secrets_key,
            _ => "",
        };
        let to = if configured.is_empty() { config.data.join(name) } else { configured.into() };
        if to.exists() {
            tracing::warn!(key = name, "a key is there already and stays");
            continue;
        }
        let from = folder.join("keys").join(name);
        let bytes = fs::read(&from).map_err(BackupError::file(&from))?;
        crate::store::keyfile::write(&to, &bytes).map_err(BackupError::file(&to))?;
    }
    Ok(())
}

/// Stores every pack that is not there whole; each is hashed before. Returns how many were there.
async fn restore_packs(blobs: &dyn BlobStore, packs: &Packs, folder: &Path) -> Result<u64, BackupError> {
    let there: BTreeMap<PackId, u64> = blobs.list().await?.into_iter().map(|b| (b.id, b.length_bytes)).collect();
    let mut kept = 0;
    for (id, row) in packs {
        if there.get(id) == Some(&row.bytes) {
            kept += 1;
            continue;
        }
        let path = pack_path(folder, *id);
        let bytes = fs::read(&path).map_err(BackupError::file(&path))?;
        if hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)) != row.sha256 {
            return Err(BackupError::Damaged(format!(
                "{} is not what was backed up; restore another backup, or take it out of the list to go on without it",
                path.display()
            )));
        }
        blobs.put(*id, vec![Bytes::from(bytes)]).await?;
    }
    Ok(kept)
}
