//! PostgreSQL: several processes share one database, or a directory and shards (docs/adr/0007-sharding-by-user.md).
//!
//! * **PG1** A transaction that writes in a namespace first locks the namespace's row: numbers are given in commit order (CS1, I11), and what it
//!   reads of the namespace stays true until it ends. It runs at READ COMMITTED.
//! * **PG2** Locks are taken in one order: namespace, then chunks by rising hash, then the owner's row. The sweep waits for no row: what is locked, it
//!   leaves for the next time. A deadlock or a time-out that comes nevertheless is [`StoreError::Contended`], and its caller begins anew.
//! * **PG3** Nobody who holds a connection waits for another one of the same pool (Q07). Of the directory and a shard, the shard comes first.
//! * **PG4** What is asked of the run (docs/adr/0004-numbers-of-a-feed.md) is read in the transaction that writes.

mod accounts;
mod content;
mod database;
mod identity;
mod links;
pub mod migrate;
mod moves;
mod peers;
mod places;
mod replicas;
mod rows;
mod sessions;
mod shares;
mod signin;
mod statistics;
mod tables;

pub use database::Settings;

use super::content::Shard;
use super::{MetaStore, PoolState, StoreError};
use async_trait::async_trait;
use database::Database;
use places::Places;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An open relay's database with its schema up to date.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    /// Accounts, members, placements.
    directory: Arc<Database>,
    /// Content by shard key. The directory itself is shard 0.
    shards: BTreeMap<Shard, Arc<Database>>,
    places: Places,
    /// Whether every database's `relay` row was looked at.
    identified: AtomicBool,
}

impl Postgres {
    /// Connects to the database of `url`, of which there may be replicas, and to those of the shards, and applies the migrations that are missing.
    pub async fn open(url: &str, shards: &[String], replicas: &[String], settings: &Settings) -> Result<Self, StoreError> {
        Self::open_with_replicas(url, shards, &BTreeMap::from([(Shard::default(), replicas.to_vec())]), settings).await
    }

    /// The same with replicas of shards; those of the database of `url` are of shard 0.
    pub async fn open_with_replicas(
        url: &str,
        shards: &[String],
        replicas: &BTreeMap<Shard, Vec<String>>,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let of = |shard| replicas.get(&shard).map_or(&[][..], Vec::as_slice);
        let directory = Arc::new(Database::open(url, of(Shard::default()), settings).await?);
        let mut by_key = BTreeMap::from([(Shard::default(), directory.clone())]);
        for (number, url) in (1..).zip(shards) {
            by_key.insert(Shard(number), Arc::new(Database::open(url, of(Shard(number)), settings).await?));
        }
        let identified = AtomicBool::new(false);
        let opened = Self(Arc::new(Inner { directory, shards: by_key, places: Places::default(), identified }));
        opened.check_shards().await?;
        opened.databases().into_iter().for_each(Database::began);
        Ok(opened)
    }

    /// The database of users and members.
    fn directory(&self) -> &Database {
        &self.0.directory
    }

    /// The database of a shard.
    fn shard(&self, shard: Shard) -> Result<&Arc<Database>, StoreError> {
        self.0.shards.get(&shard).ok_or_else(|| {
            StoreError::Unavailable(format!("shard {shard} is not configured in this process; name its database in database.shards"))
        })
    }

    /// Whether a shard's rows stand in the directory database.
    fn is_directory(&self, shard: Shard) -> bool {
        self.0.shards.get(&shard).is_some_and(|db| Arc::ptr_eq(db, &self.0.directory))
    }

    /// Every database once, the directory first.
    fn databases(&self) -> Vec<&Arc<Database>> {
        let mut all = vec![&self.0.directory];
        all.extend(self.0.shards.values().filter(|db| !Arc::ptr_eq(db, &self.0.directory)));
        all
    }
}

#[async_trait]
impl MetaStore for Postgres {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        for db in self.databases() {
            sqlx::query("SELECT 1 FROM settings LIMIT 1").execute(&mut *db.read().await?).await.map(drop).map_err(store_error)?;
        }
        Ok(())
    }

    /// PostgreSQL checks pages as it reads them (`initdb --data-checksums`); what remains is whether it has found any wrong.
    async fn integrity(&self) -> Result<(), StoreError> {
        use sqlx::Row;
        for db in self.databases() {
            let row = sqlx::query("SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()")
                .fetch_one(&mut *db.read().await?)
                .await
                .map_err(store_error)?;
            let failures: i64 = row.try_get(0).map_err(store_error)?;
            if failures > 0 {
                return Err(StoreError::Corrupt(format!(
                    "PostgreSQL has found {failures} damaged pages in {}; restore a backup",
                    db.label()
                )));
            }
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.directory().is_closed()
    }

    fn pools(&self) -> Vec<PoolState> {
        let state = |name, db: &Database| PoolState { name, ..db.pool_state() };
        let shards = self.databases().into_iter().skip(1).map(|db| state("shard", db));
        std::iter::once(state("directory", self.directory())).chain(shards).collect()
    }

    async fn close(&self) {
        for db in self.databases() {
            db.close().await;
        }
    }
}

/// A driver error as a store error: what the caller can do about it decides the kind. No message of ours holds an address or a password.
pub fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(db) => {
            let (code, message) = (db.code().unwrap_or_default(), db.message().to_owned());
            match code.as_ref() {
                "40001" | "40P01" | "55P03" => StoreError::Contended(message),
                "23505" | "23503" | "23514" | "23502" => StoreError::Conflict(message),
                // Text that no text can be, a number that no number can be.
                "22021" | "22003" | "22P05" => StoreError::Conflict(message),
                "53100" => StoreError::Full(message),
                "XX001" | "XX002" => StoreError::Corrupt(message),
                "57014" => StoreError::Unavailable(format!("a statement took longer than database.statement_timeout_s: {message}")),
                _ => StoreError::Unavailable(message),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        sqlx::Error::PoolTimedOut => StoreError::Unavailable("no connection was free in time; see database.pool_size".into()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// The same for an error of COMMIT. Only an answer that refuses says that nothing was done: a connection that breaks, a server that ends or has no more
/// room may have made it durable before.
fn commit_error(error: sqlx::Error) -> StoreError {
    let is_refused = |code: &str| (code.starts_with("40") && code != "40003") || code.starts_with("23") || code == "55P03";
    match &error {
        sqlx::Error::Database(db) if db.code().is_some_and(|code| is_refused(&code)) => store_error(error),
        _ => StoreError::InDoubt(error.to_string()),
    }
}

/// Statements of a test straight to the database of an address.
#[cfg(test)]
pub(crate) async fn run_sql(url: &str, sql: &'static str) {
    use sqlx::Connection;
    let mut conn = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
}
