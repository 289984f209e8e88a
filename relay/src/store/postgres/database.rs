//! One PostgreSQL database: a bounded pool whose connections are set up alike, with room for readers beside writers that wait for each other.

use super::replicas::Replicas;
use super::statistics::Young;
use super::{StoreError, commit_error, migrate, store_error};
use crate::store::PoolState;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, Postgres, Transaction};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a transaction may stand idle before the database ends it: a process that hangs must not keep others out.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// A connection that has been idle for so long is tried before it is used again.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// Statements that a connection keeps prepared: all that the relay has. What falls out is parsed and planned anew each time.
const STATEMENTS_KEPT: usize = 500;

/// How a transaction for several reads begins.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const UNHURRIED: &str = "SET LOCAL statement_timeout = 0";

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections of this process to each database, at least 2.
    pub pool_size: u32,
    /// How long a request waits for one.
    pub acquire_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a row that another transaction holds.
    pub lock_timeout: Duration,
}

/// An open database.
pub(super) struct Database {
    pool: PgPool,
    writers: Arc<Semaphore>,
    wait: Duration,
    label: String,
    replicas: Replicas,
    pub(super) young: Young,
}

/// A transaction that writes. Dropping it rolls back.
pub(super) struct Writing {
    tx: Transaction<'static, Postgres>,
    _place: OwnedSemaphorePermit,
}

impl Writing {
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Lifts the limit on statements: for work on many rows that no request waits for.
    pub(super) async fn unhurried(&mut self) -> Result<(), StoreError> {
        self.tx.execute(UNHURRIED).await.map(drop).map_err(store_error)
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(commit_error)
    }

    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        self.tx.rollback().await.map_err(store_error)
    }
}

/// Begins a transaction, wholly even if the caller goes away meanwhile: a connection that is given back between the statement and its answer would keep
/// the transaction open, and whoever gets it next would be in it.
pub(super) async fn begun(pool: &PgPool, statement: Option<&'static str>) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let begin = tokio::spawn(async move {
        match statement {
            Some(statement) => pool.begin_with(statement).await,
            None => pool.begin().await,
        }
    });
    begin.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

impl Database {
    /// Connects, applies the migrations that are missing, and opens the pool.
    pub(super) async fn open(url: &str, replicas: &[String], settings: &Settings) -> Result<Self, StoreError> {
        let options = options(url, settings)?;
        let label = format!("{}/{}", options.get_host(), options.get_database().unwrap_or("postgres"));
        let unreachable = |e: sqlx::Error| match store_error(e) {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("cannot use the database {label}: {why}")),
            other => other,
        };
        // Its own connection: a migration may take longer than any statement of ours.
        let connect = tokio::time::timeout(settings.acquire_timeout, PgConnection::connect_with(&options));
        let mut first = connect
            .await
            .map_err(|_| StoreError::Unavailable(format!("cannot use the database {label}: no answer in time")))?
            .map_err(unreachable)?;
        migrate::run(&mut first).await?;
        let young = Young::of(&mut first).await?;
        // It was only for that.
        let _ = first.close().await;
        let pool = PgPoolOptions::new()
            .max_connections(settings.pool_size)
            .acquire_timeout(settings.acquire_timeout)
            // A ping before each statement would double the round trips; a connection that was just used is believed.
            .test_before_acquire(false)
            .before_acquire(|conn, known| {
                Box::pin(async move {
                    if known.idle_for >= BELIEVED_FOR {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|conn, _| Box::pin(super::identity::remember(conn)))
            .connect_lazy_with(options);
        let writers = settings.pool_size - (settings.pool_size / 4).max(1);
        Ok(Self {
            pool,
            writers: Arc::new(Semaphore::new(writers.max(1) as usize)),
            wait: settings.acquire_timeout,
            label,
            replicas: Replicas::open(replicas, settings)?,
            young,
        })
    }

    /// Host and database, for people.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// A connection for statements that stand alone.
    pub(super) async fn read(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.pool.acquire().await.map_err(store_error)
    }

    /// A connection for statements whose answer may be some seconds old: to a replica, if there is one that answers.
    pub(super) async fn read_stale(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        match self.replicas.read().await {
            Some(conn) => Ok(conn),
            None => self.read().await,
        }
    }

    /// A connection that is in no pool and ends with its value.
    pub(super) async fn apart(&self) -> Result<PgConnection, StoreError> {
        let options = self.pool.connect_options();
        let connect = PgConnection::connect_with(&options);
        tokio::time::timeout(self.wait, connect)
            .await
            .map_err(|_| StoreError::Unavailable(format!("{} does not answer in time", self.label)))?
            .map_err(store_error)
    }

    /// Whether there are replicas at all.
    pub(super) fn has_replicas(&self) -> bool {
        self.replicas.exist()
    }

    /// One snapshot of a replica that answers; nothing if none does.
    pub(super) async fn replica(&self) -> Option<Transaction<'static, Postgres>> {
        self.replicas.snapshot().await
    }

    /// One snapshot for several statements.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        begun(&self.pool, Some(SNAPSHOT)).await.map_err(store_error)
    }

    /// A snapshot for statements that go through all rows.
    pub(super) async fn unhurried(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut tx = self.snapshot().await?;
        tx.execute(UNHURRIED).await.map_err(store_error)?;
        Ok(tx)
    }

    /// Begins a transaction that writes, when one of the places for writers is free.
    pub(super) async fn begin(&self) -> Result<Writing, StoreError> {
        let place = tokio::time::timeout(self.wait, self.writers.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable("too many transactions wait to write; see database.pool_size".into()))?
            .map_err(|_| StoreError::Unavailable("the database is closed".into()))?;
        let tx = begun(&self.pool, None).await.map_err(store_error)?;
        Ok(Writing { tx, _place: place })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// How many connections there are.
    pub(super) fn pool_state(&self) -> PoolState {
        PoolState {
            name: "pool",
            open: self.pool.size(),
            idle: self.pool.num_idle() as u32,
            max: self.pool.options().get_max_connections(),
        }
    }

    pub(super) async fn close(&self) {
        self.writers.close();
        self.replicas.close().await;
        self.pool.close().await;
        self.young.end().await;
    }
}

pub(super) fn options(url: &str, settings: &Settings) -> Result<PgConnectOptions, StoreError> {
    // The driver's own message may quote the address, and with it the password.
    let parsed = PgConnectOptions::from_str(url).map_err(|_| {
        StoreError::Unavailable("database.url is not an address of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE".into())
    })?;
    let ms = |d: Duration| d.as_millis().to_string();
    Ok(parsed.application_name("ferry-relay").statement_cache_capacity(STATEMENTS_KEPT).options([
        ("client_min_messages", "warning".to_owned()),
        ("statement_timeout", ms(settings.statement_timeout)),
        ("lock_timeout", ms(settings.lock_timeout)),
        ("idle_in_transaction_session_timeout", ms(IDLE_IN_TRANSACTION_MAX)),
        // A recursion looks expensive before it is known how short it is; compiling it took ten times as long as running it.
        ("jit", "off".to_owned()),
    ]))
}
