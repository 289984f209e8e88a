//! The metadata database as files, read at one moment, and back. SQLite does it itself; for PostgreSQL its own tools do, which must be in the `PATH`.

mod postgres;

use super::StoreError;
use super::content::{PackId, PackRow};
use super::sqlite;
use crate::StartError;
use crate::backup::BackupError;
use crate::backup::manifest::DatabaseKind;
use crate::config::{Config, DatabaseUrl};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The name of SQLite's file in a backup.
const SQLITE_FILE: &str = "relay.db";
/// The end of the name of a dump of PostgreSQL.
const DUMP: &str = ".dump";

/// The database that a configuration names.
enum Place {
    Sqlite(PathBuf),
    /// Each database of PostgreSQL by its name in a backup, with its address: the shards, and last the directory. In this order they are copied and
    /// come back. A namespace that is made meanwhile is in the directory at most, where it is nothing yet and can be made again; and while the directory
    /// is not back, the shards are those of another relay, and nobody serves them.
    Postgres(Vec<(String, String)>),
}

impl Place {
    fn of(config: &Config) -> Result<Self, StartError> {
        Ok(match config.database()? {
            DatabaseUrl::Postgres(url) => {
                let shards = (1..).zip(&config.database.shards).map(|(n, url): (u32, _)| (format!("shard{n}"), url.clone()));
                Self::Postgres(shards.chain([("relay".into(), url)]).collect())
            }
            DatabaseUrl::Sqlite(path) => Self::Sqlite(path),
        })
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let name = path.display().to_string();
    move |e| BackupError::File(name.clone(), e)
}

/// Writes the database of `config` to files in `folder`, each whole or not at all. Which kind it is, and the files' names.
pub async fn take(config: &Config, folder: &Path) -> Result<(DatabaseKind, Vec<String>), BackupError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let temp = folder.join("snapshot.tmp");
    let (kind, names) = match Place::of(config)? {
        Place::Sqlite(path) => {
            remove_if_there(&temp)?;
            sqlite::snapshot(&path, &temp).await?;
            place(&temp, &folder.join(SQLITE_FILE))?;
            (DatabaseKind::Sqlite, vec![SQLITE_FILE.to_owned()])
        }
        Place::Postgres(all) => {
            let mut names = Vec::new();
            for (name, url) in all {
                remove_if_there(&temp)?;
                postgres::dump(&url, &temp).await?;
                names.push(name + DUMP);
                place(&temp, &folder.join(&names[names.len() - 1]))?;
            }
            (DatabaseKind::Postgres, names)
        }
    };
    Ok((kind, names))
}

fn remove_if_there(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error(path)(e)),
        _ => Ok(()),
    }
}

/// Gives a finished file its name, durably.
fn place(temp: &Path, to: &Path) -> Result<(), BackupError> {
    let placed = (|| {
        fs::File::open(temp)?.sync_all()?;
        fs::rename(temp, to)?;
        to.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    })();
    placed.map_err(file_error(to))
}

/// Refuses a database of another kind, and one that holds something: a restore overwrites nothing, and begins with nothing that it cannot end.
pub async fn must_fit(config: &Config, kind: DatabaseKind) -> Result<(), BackupError> {
    let place = Place::of(config)?;
    let taken = match place {
        Place::Sqlite(_) if kind != DatabaseKind::Sqlite => return Err(other_kind("PostgreSQL", "SQLite")),
        Place::Postgres(_) if kind != DatabaseKind::Postgres => return Err(other_kind("SQLite", "PostgreSQL")),
        Place::Sqlite(path) => path.exists().then(|| format!("there is a database already: {}", path.display())),
        Place::Postgres(all) => {
            let mut taken = None;
            for (name, url) in all {
                let tables = postgres::tables(&url).await?;
                if tables > 0 {
                    taken = Some(format!("the PostgreSQL database '{name}' of the configuration holds {tables} tables already"));
                }
            }
            taken
        }
    };
    match taken {
        None => Ok(()),
        Some(what) => Err(BackupError::InTheWay(format!("{what}; restore into an empty one, nothing was changed"))),
    }
}

fn other_kind(is: &str, named: &str) -> BackupError {
    BackupError::InTheWay(format!("the backup is of {is}, but database.url names {named}; set database.url to an empty {is} database"))
}

/// Puts the database from a backup's files in its place: whole or not at all. The place fits ([`must_fit`]).
pub async fn put(config: &Config, files: &[PathBuf]) -> Result<(), BackupError> {
    match Place::of(config)? {
        Place::Sqlite(path) => {
            let Some(from) = files.first() else { return Err(BackupError::Damaged("the backup names no database".into())) };
            let temp = path.with_extension("restoring");
            fs::copy(from, &temp).map_err(file_error(&temp))?;
            place(&temp, &path)
        }
        Place::Postgres(all) => {
            for (name, url) in all {
                let wanted = name.clone() + DUMP;
                let file = files.iter().find(|f| f.file_name().is_some_and(|n| n == wanted.as_str()));
                let Some(file) = file else {
                    return Err(BackupError::Damaged(format!("the backup has no dump for the database '{name}' of the configuration")));
                };
                postgres::restore(&url, file).await?;
            }
            Ok(())
        }
    }
}

/// The packs that a saved SQLite database names, after a look at its integrity. The file is not changed.
pub async fn packs_of_sqlite(path: &Path) -> Result<Vec<PackRow>, StoreError> {
    sqlite::packs_of(path).await
}

/// The packs that a dump of PostgreSQL names; its tools must be able to read it.
pub async fn packs_of_dump(path: &Path) -> Result<Vec<(PackId, u64)>, BackupError> {
    postgres::packs(path).await
}
