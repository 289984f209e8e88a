//! What a backup says of itself.

use super::{BackupError, hash_file, write_whole};
use crate::store::content::PackId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The form that this program writes and reads.
const FORMAT: u32 = 1;
const NAME: &str = "manifest.json";

/// Which kind of database was saved, and so which tool brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseKind {
    /// A file of SQLite.
    Sqlite,
    /// A dump of `pg_dump` in its own format.
    Postgres,
}

/// The manifest of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the backup.
    pub format: u32,
    /// The program that made it.
    pub made_by: String,
    /// When the database was read, RFC 3339.
    pub made_at: String,
    /// Which relay it is.
    pub relay_id: String,
    /// What kind of database it holds.
    pub database: DatabaseKind,
    /// Files by their path in the backup, all but packs.
    pub files: BTreeMap<String, FileRow>,
    /// The file that lists the packs.
    pub packs_list: String,
    /// How many packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// The packs of a backup by their ids.
pub type Packs = BTreeMap<PackId, FileRow>;

impl Manifest {
    pub(super) fn new(made_at: String, relay_id: String, database: DatabaseKind, packs_list: String) -> Self {
        let made_by = format!("ferry-relay {}", env!("CARGO_PKG_VERSION"));
        Self { format: FORMAT, made_by, made_at, relay_id, database, files: BTreeMap::new(), packs_list, packs: 0, pack_bytes: 0 }
    }

    /// Takes the file at `name` below `folder` up. Its bytes.
    pub(super) fn add(&mut self, folder: &Path, name: &str) -> Result<u64, BackupError> {
        let (sha256, bytes) = hash_file(&folder.join(name))?;
        self.files.insert(name.to_owned(), FileRow { bytes, sha256 });
        Ok(bytes)
    }

    /// Where the manifest of the backup in `folder` is.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// The manifest of the backup in `folder`; none if there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, BackupError> {
        let path = Self::path(folder);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(BackupError::file(&path))?,
        };
        let damaged = |why: String| BackupError::Damaged(format!("{} is not the manifest of a backup: {why}", path.display()));
        let manifest: Self = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!("it has the form {}, this ferry-relay reads {FORMAT}", manifest.format)));
        }
        // A path from a file must not lead elsewhere.
        if let Some(name) = manifest.files.keys().chain([&manifest.packs_list]).find(|n| !is_plain(n)) {
            return Err(damaged(format!("it names the file '{name}'")));
        }
        Ok(Some(manifest))
    }

    /// The same, where there must be one.
    pub fn must_read(folder: &Path) -> Result<Self, BackupError> {
        Self::read(folder)?
            .ok_or_else(|| BackupError::Damaged(format!("{} holds no whole backup: there is no {NAME} in it", folder.display())))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), BackupError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| BackupError::Damaged(e.to_string()))?;
        write_whole(&Self::path(folder), (text + "\n").as_bytes())
    }

    /// The files of the database, below `folder`.
    pub fn database_files(&self, folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
        let found: Vec<PathBuf> = self.files.keys().filter(|name| name.starts_with("database/")).map(|name| folder.join(name)).collect();
        if found.is_empty() { Err(BackupError::Damaged("the backup names no database".into())) } else { Ok(found) }
    }
}

/// A relative path that stays below its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\\')
}

/// Reads the list of packs. Damage is an error: a list that is only nearly right is worth nothing.
pub(super) fn read_packs(path: &Path) -> Result<Packs, BackupError> {
    let text = std::fs::read_to_string(path).map_err(BackupError::file(path))?;
    let mut packs = Packs::new();
    for (n, line) in text.lines().enumerate() {
        let row = parse(line).ok_or_else(|| BackupError::Damaged(format!("{}:{}: not a pack", path.display(), n + 1)))?;
        packs.insert(row.0, row.1);
    }
    Ok(packs)
}

fn parse(line: &str) -> Option<(PackId, FileRow)> {
    let mut fields = line.split('\t');
    let mut id = [0; 16];
    hex::decode_to_slice(fields.next()?, &mut id).ok()?;
    let bytes = fields.next()?.parse().ok()?;
    let sha256 = fields.next().filter(|s| s.len() == 64)?.to_owned();
    fields.next().is_none().then_some((PackId(id), FileRow { bytes, sha256 }))
}

pub(super) fn write_packs(path: &Path, packs: &Packs) -> Result<(), BackupError> {
    let mut text = String::new();
    for (id, row) in packs {
        let _ = writeln!(text, "{id}\t{}\t{}", row.bytes, row.sha256);
    }
    write_whole(path, text.as_bytes())
}

/// Where a pack stands in a backup.
pub(super) fn pack_path(folder: &Path, id: PackId) -> PathBuf {
    let name = id.to_string();
    folder.join("packs").join(&name[..2]).join(format!("{name}.pack"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_right_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Manifest::read(dir.path()).unwrap().is_none() && Manifest::must_read(dir.path()).is_err());
        std::fs::create_dir(dir.path().join("database")).unwrap();
        std::fs::write(dir.path().join("database/relay.db"), b"abc").unwrap();
        let mut manifest = Manifest::new("now".into(), "r".into(), DatabaseKind::Sqlite, "packs-1.tsv".into());
        manifest.add(dir.path(), "database/relay.db").unwrap();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::must_read(dir.path()).unwrap(), manifest);
        assert_eq!(manifest.database_files(dir.path()).unwrap(), [dir.path().join("database/relay.db")]);
        assert_eq!(manifest.files["database/relay.db"].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for name in ["../x", "/etc/passwd", "a//b", ""] {
            let mut bad = manifest.clone();
            bad.files.insert(name.into(), FileRow { bytes: 0, sha256: String::new() });
            bad.write(dir.path()).unwrap();
            assert!(Manifest::read(dir.path()).is_err(), "{name}");
        }
        Manifest { format: 2, ..manifest }.write(dir.path()).unwrap();
        assert!(Manifest::read(dir.path()).unwrap_err().to_string().contains("form 2"));
        let packs: Packs = [(PackId([7; 16]), FileRow { bytes: 5, sha256: "a".repeat(64) })].into();
        let list = dir.path().join("packs-1.tsv");
        write_packs(&list, &packs).unwrap();
        assert_eq!(read_packs(&list).unwrap(), packs);
        std::fs::write(&list, "zz\t1\tx\n").unwrap();
        assert!(read_packs(&list).is_err());
    }
}
