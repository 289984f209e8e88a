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

/// Refuses a database of another kind, and one that holds something: a restore overwrites nothing, and begins with nothing that it cannot end. What a
/// restore of the same backup brought before it was broken off does not stand in its way; `backup` is the hash that says which backup it is.
pub async fn must_fit(config: &Config, kind: DatabaseKind, backup: &str) -> Result<(), BackupError> {
    match Place::of(config)? {
        Place::Sqlite(_) if kind != DatabaseKind::Sqlite => Err(other_kind("PostgreSQL", "SQLite")),
        Place::Postgres(_) if kind != DatabaseKind::Postgres => Err(other_kind("SQLite", "PostgreSQL")),
        Place::Sqlite(path) => {
            let is_taken = path.exists();
            fits(is_taken, read_mark(&mark_of(&path))?.as_deref(), backup, || format!("there is a database already: {}", path.display()))
        }
        Place::Postgres(all) => {
            for (name, url) in all {
                let tables = postgres::tables(&url).await?;
                let mark = if tables > 0 { postgres::mark(&url).await? } else { None };
                fits(tables > 0, mark.as_deref(), backup, || {
                    format!("the PostgreSQL database '{name}' of the configuration holds {tables} tables already")
                })?;
            }
            Ok(())
        }
    }
}

/// Whether a database that holds something is what a restore of this backup has brought.
fn fits(is_taken: bool, mark: Option<&str>, backup: &str, what: impl FnOnce() -> String) -> Result<(), BackupError> {
    let advice = match mark {
        _ if !is_taken => return Ok(()),
        Some(mark) if mark == backup => return Ok(()),
        Some(_) => "a restore of another backup was broken off there: restore that one again, or empty it",
        None => "restore into an empty one",
    };
    Err(BackupError::InTheWay(format!("{}; {advice}. Nothing was changed", what())))
}

/// The file beside a database of SQLite that says which backup is being restored there.
fn mark_of(database: &Path) -> PathBuf {
    database.with_extension("restore")
}

fn read_mark(path: &Path) -> Result<Option<String>, BackupError> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(other.map_err(file_error(path))?)),
    }
}

fn other_kind(is: &str, named: &str) -> BackupError {
    BackupError::InTheWay(format!("the backup is of {is}, but database.url names {named}; set database.url to an empty {is} database"))
}

/// Puts the database from a backup's files in its place. The place fits ([`must_fit`]). Each database comes whole or not at all, so one that a broken-off
/// restore has brought is there, and stays: it is marked until the restore has ended ([`ended`]).
pub async fn put(config: &Config, files: &[PathBuf], backup: &str) -> Result<(), BackupError> {
    match Place::of(config)? {
        Place::Sqlite(path) => {
            let Some(from) = files.first() else { return Err(BackupError::Damaged("the backup names no database".into())) };
            let temp = path.with_extension("restoring");
            fs::write(&temp, backup).map_err(file_error(&temp))?;
            place(&temp, &mark_of(&path))?;
            if path.exists() {
                return Ok(());
            }
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
                postgres::set_mark(&url, backup).await?;
                if postgres::tables(&url).await? == 0 {
                    postgres::restore(&url, file).await?;
                }
            }
            Ok(())
        }
    }
}

/// The restore has ended: from now on the database is one like any other.
pub async fn ended(config: &Config) -> Result<(), BackupError> {
    match Place::of(config)? {
        Place::Sqlite(path) => remove_if_there(&mark_of(&path)),
        Place::Postgres(all) => {
            for (_, url) in all {
                postgres::remove_mark(&url).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), BackupError>) -> Option<String> {
        result.err().map(|e| e.to_string())
    }

    /// The database of SQLite is put in its place by a rename: a restore that ended after that goes on, and only that one.
    #[tokio::test]
    async fn a_restore_that_was_broken_off_goes_on_and_only_that_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("relay.db"), dir.path().join("saved"));
        fs::write(&file, b"as it was saved").unwrap();
        let mut config = Config { data: dir.path().to_owned(), ..Config::default() };
        config.database.url = format!("sqlite://{}", path.display());
        let fits = async |backup: &str| code(must_fit(&config, DatabaseKind::Sqlite, backup).await);
        assert_eq!(fits("a").await, None);
        put(&config, std::slice::from_ref(&file), "a").await.unwrap();
        assert_eq!(fits("a").await, None);
        assert!(fits("b").await.unwrap().contains("restore of another backup was broken off"));
        fs::write(&path, b"with a new epoch").unwrap();
        put(&config, &[file], "a").await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"with a new epoch", "what has come is not replaced");
        ended(&config).await.unwrap();
        assert!(fits("a").await.unwrap().contains("restore into an empty one"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no mark is left");
    }
}
