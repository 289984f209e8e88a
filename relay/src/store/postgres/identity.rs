//! Which life of which relay a database is, and whether it is still the one that was written last (docs/adr/0004-numbers-of-a-feed.md).
//!
//! Processes that share a database share a run. The run is noted with a mark of the database: its cluster, itself in that, the timeline that it writes (a new one
//! begins when a copy is promoted or a backup is brought to a point in time), and the `relay` table itself (a dump that is read in makes a new one).
//! Each transaction that writes compares; on another mark a new run begins first.

use super::database::Database;
use super::rows::bytes;
use super::{Postgres, StoreError, store_error};
use crate::store::content::Identity;
use ferry_protocol::{Epoch, ReplicaId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::sync::atomic::Ordering;

/// What hardly ever changes under a connection, kept in its session: the cluster and the timeline that it writes. A server that is promoted goes on with
/// its sessions, so [`remember`] is asked again before a run ends for what a session remembers.
const REMEMBER_CLUSTER: &str =
    "SELECT set_config('ferry.cluster', (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
     (SELECT oid::text FROM pg_database WHERE datname = current_database()) || '/' || CASE WHEN pg_is_in_recovery() THEN 'copy' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, false)";

/// Remembers in the session what is written to by it. A standby is an error: whoever writes must not be led there, and waits until it is promoted.
pub(super) async fn remember(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let cluster: String = sqlx::query_scalar(REMEMBER_CLUSTER).fetch_one(conn).await?;
    match cluster.ends_with("/copy") {
        true => Err(sqlx::Error::Protocol("this server is a standby; the address in the configuration must lead to the primary".into())),
        false => Ok(()),
    }
}

/// The same if `found` says that the database has gone back, and what is found after that: the session may have begun before a promotion.
pub(super) async fn looked_again(conn: &mut PgConnection, found: Option<Found>) -> Result<Option<Found>, StoreError> {
    match found {
        Some(found) if found.has_gone_back => {
            remember(&mut *conn).await.map_err(store_error)?;
            read(conn).await
        }
        found => Ok(found),
    }
}

/// The `relay` row with the mark as it was noted and as it is.
const READ: &str = "SELECT r.epoch, r.replica, r.mark, current_setting('ferry.cluster') || '/' || r.tableoid::text FROM relay r";

/// The `relay` row as a transaction finds it.
pub(super) struct Found {
    pub(super) identity: Identity,
    /// Whether the database is not the one any more that the run was noted for.
    pub(super) has_gone_back: bool,
}

/// From four columns.
pub(super) fn found(row: &PgRow, column: usize) -> Result<Found, StoreError> {
    let (noted, now): (&str, &str) = (row.try_get(column + 2).map_err(store_error)?, row.try_get(column + 3).map_err(store_error)?);
    Ok(Found {
        identity: Identity { epoch: Epoch::from_bytes(bytes(row, column)?), replica: ReplicaId::from_bytes(bytes(row, column + 1)?) },
        has_gone_back: noted != now,
    })
}

pub(super) async fn read(conn: &mut PgConnection) -> Result<Option<Found>, StoreError> {
    let row = sqlx::query(READ).fetch_optional(conn).await.map_err(store_error)?;
    row.map(|row| found(&row, 0)).transpose()
}

/// Begins a new run, unless another process has just done so.
pub(super) async fn renew_run(db: &Database) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    remember(tx.conn()).await.map_err(store_error)?;
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|e| StoreError::Unavailable(e.to_string()))?;
    let done = sqlx::query(
        "UPDATE relay SET replica = $1, mark = current_setting('ferry.cluster') || '/' || tableoid::text
         WHERE one = 1 AND mark <> current_setting('ferry.cluster') || '/' || tableoid::text",
    )
    .bind(fresh.to_vec())
    .execute(tx.conn())
    .await
    .map_err(store_error)?;
    tx.commit().await?;
    if done.rows_affected() > 0 {
        tracing::warn!(
            database = db.label(),
            "the database has another past than at the last write (restored, or a copy that was promoted): a new run of the feeds begins"
        );
    }
    Ok(())
}

async fn insert(db: &Database, identity: Identity, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    sqlx::query(
        "INSERT INTO relay (one, epoch, replica, mark, created_at)
         VALUES (1, $1, $2, current_setting('ferry.cluster') || '/' || 'relay'::regclass::oid::text, $3) ON CONFLICT DO NOTHING",
    )
    .bind(identity.epoch.as_bytes().to_vec())
    .bind(identity.replica.as_bytes().to_vec())
    .bind(now_ms)
    .execute(tx.conn())
    .await
    .map_err(store_error)?;
    tx.commit().await
}

/// The database's identity, written if it has none, in a new run if its past has changed.
async fn settle(db: &Database, fresh: Identity, now_ms: i64) -> Result<Identity, StoreError> {
    for _ in 0..3 {
        let mut conn = db.read().await?;
        let found = read(&mut conn).await?;
        let found = looked_again(&mut conn, found).await?;
        drop(conn);
        match found {
            Some(found) if !found.has_gone_back => return Ok(found.identity),
            Some(_) => renew_run(db).await?,
            None => insert(db, fresh, now_ms).await?,
        }
    }
    Err(StoreError::Unavailable(format!("the identity of {} changes faster than it can be read", db.label())))
}

impl Postgres {
    pub(super) async fn settle_identity(&self, fresh: Identity, now_ms: i64) -> Result<Identity, StoreError> {
        let identity = settle(self.directory(), fresh, now_ms).await?;
        if !self.0.identified.load(Ordering::Acquire) {
            for db in self.databases().into_iter().skip(1) {
                let own = Identity { epoch: identity.epoch, replica: fresh.replica };
                if settle(db, own, now_ms).await?.epoch != identity.epoch {
                    set_epoch(db, identity.epoch).await?;
                }
            }
            self.0.identified.store(true, Ordering::Release);
        }
        Ok(identity)
    }

    pub(super) async fn renew_identity(&self, fresh: Identity, now_ms: i64) -> Result<(), StoreError> {
        // The shards follow the directory: cut short, a shard takes the epoch up at the next start.
        for db in self.databases() {
            insert(db, fresh, now_ms).await?;
            let mut tx = db.begin().await?;
            sqlx::query(
                "UPDATE relay SET epoch = $1, replica = $2, created_at = $3, mark = current_setting('ferry.cluster') || '/' || tableoid::text",
            )
            .bind(fresh.epoch.as_bytes().to_vec())
            .bind(fresh.replica.as_bytes().to_vec())
            .bind(now_ms)
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
            tx.commit().await?;
        }
        Ok(())
    }
}

async fn set_epoch(db: &Database, epoch: Epoch) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    sqlx::query("UPDATE relay SET epoch = $1").bind(epoch.as_bytes().to_vec()).execute(tx.conn()).await.map_err(store_error)?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::content::{ContentStore, Scope, Shard};
    use crate::store::testing::{cluster, server::Cluster, settings};
    use sqlx::Connection;

    fn fresh(byte: u8) -> Identity {
        Identity { epoch: Epoch::from_bytes([byte; 16]), replica: ReplicaId::from_bytes([byte; 16]) }
    }

    /// A session that remembers what its server was before a promotion is not a database with another past.
    #[tokio::test]
    async fn an_old_session_begins_no_run() {
        let store = Postgres::open(&cluster().database(), &[], &[], &settings()).await.unwrap();
        let identity = store.identity(fresh(1), 1).await.unwrap();
        let age = async || {
            let sql = "SELECT set_config('ferry.cluster', '1/2/copy', false)";
            sqlx::query(sql).execute(&mut *store.directory().read().await.unwrap()).await.unwrap();
        };
        for _ in 0..3 {
            age().await;
            let mut tx = store.begin(Scope::Shard(Shard::default())).await.unwrap();
            assert_eq!(tx.identity().await.unwrap(), identity);
            tx.rollback().await.unwrap();
            age().await;
            assert_eq!(store.identity(fresh(2), 1).await.unwrap(), identity);
            age().await;
            renew_run(store.directory()).await.unwrap();
            assert_eq!(store.identity(fresh(3), 1).await.unwrap(), identity);
        }
    }

    #[tokio::test]
    async fn a_standby_is_refused_until_it_is_promoted() {
        let primary = Cluster::start_with(&["wal_level=replica"]);
        let standby = primary.replica();
        let mut conn = PgConnection::connect(&standby.url("postgres")).await.unwrap();
        assert!(remember(&mut conn).await.unwrap_err().to_string().contains("standby"));
        standby.promote();
        remember(&mut conn).await.unwrap();
        let mark: String = sqlx::query_scalar("SELECT current_setting('ferry.cluster')").fetch_one(&mut conn).await.unwrap();
        assert!(mark.ends_with("/00000002"), "{mark}");
    }
}
