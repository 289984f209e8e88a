//! SQLite: one file, one writer connection, a pool of readers.
//!
//! SQLite has one writer at a time. Giving the writer a pool of exactly one connection makes writers queue in this process, in order, instead of meeting
//! `SQLITE_BUSY` in the middle of a transaction. WAL lets the readers go on meanwhile; `synchronous = FULL` makes a commit durable before it is answered (I7).

mod accounts;
mod content;
mod links;
pub mod migrate;
mod peers;
mod sessions;
mod shares;
mod signin;

use super::content::Identity;
use super::{MetaStore, PoolState, StoreError};
use async_trait::async_trait;
use sqlx::sqlite::{Sqlite as Dialect, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Transaction};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Readers at once.
const READERS_MAX: u32 = 8;
/// How long another process (a command of the operator) may hold the write lock, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 10_000;

/// An open database with its schema up to date.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: SqlitePool,
    reader: SqlitePool,
    /// The relay's identity in this process, once it was asked for.
    identity: Arc<Mutex<Option<Identity>>>,
}

impl Sqlite {
    /// Opens (or creates) the database at `path` and applies the migrations that it lacks.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
            .pragma("cache_size", "-16384")
            .pragma("temp_store", "memory");
        let pool = |max: u32| {
            let pool = SqlitePoolOptions::new().max_connections(max).acquire_timeout(Duration::from_secs(30));
            // A file does not hang up.
            pool.max_lifetime(None).idle_timeout(None).test_before_acquire(false)
        };
        let writer = pool(1).min_connections(1).connect_with(options.clone()).await.map_err(store_error)?;
        migrate::run(&writer).await?;
        let reader = pool(READERS_MAX).connect_with(options.pragma("query_only", "true")).await.map_err(store_error)?;
        Ok(Self { writer, reader, identity: Arc::default() })
    }

    /// The one connection that writes. Hold it (begin a transaction) only while there is something to write.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that writes; it holds the write lock from the start, so that what it reads stays true until it commits.
    pub async fn begin(&self) -> Result<Transaction<'static, Dialect>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)
    }

    /// Connections that read committed state and cannot write.
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }
}

#[async_trait]
impl MetaStore for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM settings LIMIT 1").execute(&self.reader).await.map(drop).map_err(store_error)
    }

    /// Looks through the whole file.
    async fn integrity(&self) -> Result<(), StoreError> {
        let mut connection = self.reader.acquire().await.map_err(store_error)?;
        check_integrity(&mut connection).await
    }

    fn pools(&self) -> Vec<PoolState> {
        let state = |name, pool: &SqlitePool, max| PoolState { name, open: pool.size(), idle: pool.num_idle() as u32, max };
        vec![state("writer", &self.writer, 1), state("reader", &self.reader, READERS_MAX)]
    }

    fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Writes the database at `path`, as it is at one moment, to the new file `to`; whoever writes to it goes on meanwhile.
pub async fn snapshot(path: &Path, to: &Path) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS));
    let mut connection = options.connect().await.map_err(store_error)?;
    let to = to.to_str().ok_or_else(|| StoreError::Unavailable(format!("{} is not a name that SQLite takes", to.display())))?;
    let done = sqlx::query("VACUUM INTO ?1").bind(to).execute(&mut connection).await.map(drop).map_err(store_error);
    connection.close().await.map_err(store_error)?;
    done
}

/// The packs that the database in the file at `path` names, after a look at its integrity. Nothing is written, not even beside it.
pub async fn packs_of(path: &Path) -> Result<Vec<super::content::PackRow>, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut connection = options.connect().await.map_err(store_error)?;
    check_integrity(&mut connection).await?;
    content::packs_of(&mut connection).await
}

async fn check_integrity(connection: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
    use sqlx::Row;
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(store_error)?;
    match row.try_get::<String, _>(0).map_err(store_error)?.as_str() {
        "ok" => Ok(()),
        damage => Err(StoreError::Corrupt(format!("{damage}; restore the newest backup"))),
    }
}

/// A driver error as a store error: what the caller can do about it decides the kind.
pub fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(db) if db.is_unique_violation() || db.is_foreign_key_violation() || db.is_check_violation() => {
            StoreError::Conflict(db.message().to_owned())
        }
        sqlx::Error::Database(db) => match db.code().and_then(|c| c.parse::<u32>().ok()).map(|c| c & 0xff) {
            // SQLITE_FULL; SQLITE_CORRUPT and SQLITE_NOTADB.
            Some(13) => StoreError::Full(db.message().to_owned()),
            Some(11 | 26) => StoreError::Corrupt(db.message().to_owned()),
            _ => StoreError::Unavailable(db.message().to_owned()),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// The same for an error of COMMIT. A lock or a rule of the schema refuses and nothing was done; after a failure of the disk the end of the
/// transaction may stand in the log, and be found there at the next start.
fn commit_error(error: sqlx::Error) -> StoreError {
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_CONSTRAINT.
    let is_refused = |code: &str| code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 19));
    match &error {
        sqlx::Error::Database(db) if db.code().is_some_and(|code| is_refused(&code)) => store_error(error),
        _ => StoreError::InDoubt(error.to_string()),
    }
}

/// Statements of a test straight to the database of an address.
#[cfg(test)]
pub(crate) async fn run_sql(url: &str, sql: &'static str) {
    use sqlx::Connection;
    let mut conn = sqlx::SqliteConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that is looked at when a transaction ends refuses it; anything else that COMMIT meets leaves it open what is in the file.
    #[tokio::test]
    async fn only_a_refusal_says_that_nothing_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("relay.db")).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        sqlx::query("CREATE TABLE one (n INTEGER PRIMARY KEY)").execute(&mut *tx).await.unwrap();
        sqlx::query("CREATE TABLE two (n INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED)").execute(&mut *tx).await.unwrap();
        sqlx::query("INSERT INTO two VALUES (1)").execute(&mut *tx).await.unwrap();
        let refused = commit_error(tx.commit().await.unwrap_err());
        assert!(matches!(refused, StoreError::Conflict(_) | StoreError::Unavailable(_)), "{refused}");
        let disk = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert!(matches!(commit_error(disk), StoreError::InDoubt(_)));
    }
}
