//! Streaming replicas of a database: asked only for what may be some seconds old, and for pages of feeds that they have already (`content/follow.rs`). One that does not answer is left alone for a while, and the primary
//! answers instead.

use super::database::Settings;
use super::{StoreError, database};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a replica may take to give a connection.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long one that did not answer is left alone.
const REST: Duration = Duration::from_secs(10);

/// A replica, and until when it is left alone.
struct Replica {
    pool: PgPool,
    rests_until: Mutex<Option<Instant>>,
}

/// The replicas of one database, asked in turn.
#[derive(Default)]
pub(super) struct Replicas {
    all: Vec<Replica>,
    next: AtomicUsize,
}

impl Replicas {
    /// Connects when one is asked first.
    pub(super) fn open(urls: &[String], settings: &Settings) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for url in urls {
            let options = database::options(url, settings)?;
            let pool = PgPoolOptions::new().max_connections(settings.pool_size).acquire_timeout(ANSWER_MAX).connect_lazy_with(options);
            all.push(Replica { pool, rests_until: Mutex::new(None) });
        }
        Ok(Self { all, next: AtomicUsize::new(0) })
    }

    /// Whether there are any.
    pub(super) fn exist(&self) -> bool {
        !self.all.is_empty()
    }

    /// A connection to a replica that answers; nothing if none does.
    pub(super) async fn read(&self) -> Option<PoolConnection<Postgres>> {
        self.first(async |pool| pool.acquire().await).await
    }

    /// One snapshot of a replica that answers; nothing if none does.
    pub(super) async fn snapshot(&self) -> Option<Transaction<'static, Postgres>> {
        self.first(async |pool| database::begun(pool, Some(database::SNAPSHOT)).await).await
    }

    async fn first<T>(&self, ask: impl AsyncFn(&PgPool) -> Result<T, sqlx::Error>) -> Option<T> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for n in 0..self.all.len() {
            let replica = &self.all[(first.wrapping_add(n)) % self.all.len()];
            if replica.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until) {
                continue;
            }
            match ask(&replica.pool).await {
                Ok(found) => return Some(found),
                Err(error) => {
                    tracing::warn!(%error, "a replica of the database does not answer; the primary is asked instead");
                    *replica.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
                }
            }
        }
        None
    }

    pub(super) async fn close(&self) {
        for replica in &self.all {
            replica.pool.close().await;
        }
    }
}
