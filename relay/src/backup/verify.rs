//! Whether a backup is whole: without a relay, and without changing anything.

use super::manifest::{DatabaseKind, FileRow, Manifest, pack_path, read_packs};
use super::{BackupError, hash_file};
use crate::store::content::PackId;
use crate::store::snapshot;
use serde::Serialize;
use std::path::Path;

/// Faults that are listed; more are counted.
const LISTED_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// When the backup was made.
    pub made_at: String,
    /// Files looked at, packs included.
    pub files: u64,
    /// Bytes read and hashed.
    pub bytes_read: u64,
    /// Packs that the database names and the backup lacks.
    pub packs_missing: u64,
    /// How many files are missing or not what the manifest says, and rows without their pack.
    pub faults: u64,
    /// The first of them.
    pub listed: Vec<String>,
}

impl VerifyReport {
    /// Whether everything is there and whole.
    pub fn is_sound(&self) -> bool {
        self.faults == 0
    }

    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(what);
        }
    }

    fn check(&mut self, path: &Path, row: &FileRow) {
        self.files += 1;
        match hash_file(path) {
            Ok((sha256, bytes)) => {
                self.bytes_read += bytes;
                if sha256 != row.sha256 {
                    self.fault(format!("{} is not what was backed up", path.display()));
                }
            }
            Err(e) => self.fault(e.to_string()),
        }
    }
}

/// Verifies the backup in `folder`: every hash, and that the database is readable and names no pack that is not there.
pub async fn verify(folder: &Path) -> Result<VerifyReport, BackupError> {
    let manifest = Manifest::must_read(folder)?;
    let mut report = VerifyReport { made_at: manifest.made_at.clone(), ..VerifyReport::default() };
    for (name, row) in &manifest.files {
        report.check(&folder.join(name), row);
    }
    let list = &manifest.packs_list;
    if !manifest.files.contains_key(list) {
        report.fault(format!("the manifest does not vouch for {list}"));
    }
    let packs = read_packs(&folder.join(list))?;
    if (packs.len() as u64) != manifest.packs {
        report.fault(format!("{list} lists {} packs, the manifest says {}", packs.len(), manifest.packs));
    }
    for (id, row) in &packs {
        report.check(&pack_path(folder, *id), row);
    }
    for database in manifest.database_files(folder)? {
        let named: Result<Vec<(PackId, u64)>, String> = match manifest.database {
            DatabaseKind::Sqlite => {
                let rows = snapshot::packs_of_sqlite(&database).await.map_err(|e| format!("the database cannot be read: {e}"));
                rows.map(|rows| rows.into_iter().map(|p| (p.id, p.length_bytes)).collect())
            }
            DatabaseKind::Postgres => snapshot::packs_of_dump(&database).await.map_err(|e| e.to_string()),
        };
        match named {
            Ok(named) => {
                for (id, _) in named.iter().filter(|(id, bytes)| packs.get(id).is_none_or(|row| row.bytes != *bytes)) {
                    report.packs_missing += 1;
                    report.fault(format!("the database names pack {id}, which the backup lacks"));
                }
            }
            Err(fault) => report.fault(fault),
        }
    }
    Ok(report)
}
