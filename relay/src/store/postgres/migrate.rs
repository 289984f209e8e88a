//! Brings a database to the schema of this binary: `migrations/postgres/NNNN_name.sql`, in the order of their numbers.
//!
//! Each file runs in one transaction together with the row that records it, so that a crash leaves either nothing or all of it. An advisory lock of
//! the session keeps others that start at the same time waiting. A changed file and a schema from a newer binary are refused before anything is touched.

use super::{StoreError, store_error};
use crate::store::migration::{Applied, Migration, check_known, checksum_of};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

/// The number of the advisory lock: "ferrymig".
const LOCK: i64 = 0x6665_7272_796d_6967;

/// All migrations, in the order of their numbers.
pub const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "accounts", sql: include_str!("../../../../migrations/postgres/0001_accounts.sql") },
    Migration { number: 2, name: "content", sql: include_str!("../../../../migrations/postgres/0002_content.sql") },
    Migration { number: 3, name: "feed_gaps", sql: include_str!("../../../../migrations/postgres/0003_feed_gaps.sql") },
    Migration { number: 4, name: "link_targets", sql: include_str!("../../../../migrations/postgres/0004_link_targets.sql") },
    Migration { number: 5, name: "retired_packs", sql: include_str!("../../../../migrations/postgres/0005_retired_packs.sql") },
    Migration { number: 6, name: "peers", sql: include_str!("../../../../migrations/postgres/0006_peers.sql") },
    Migration { number: 7, name: "regions", sql: include_str!("../../../../migrations/postgres/0007_regions.sql") },
    Migration { number: 8, name: "audit", sql: include_str!("../../../../migrations/postgres/0008_audit.sql") },
    Migration { number: 9, name: "purged", sql: include_str!("../../../../migrations/postgres/0009_purged.sql") },
    Migration { number: 10, name: "signin", sql: include_str!("../../../../migrations/postgres/0010_signin.sql") },
    Migration { number: 11, name: "history", sql: include_str!("../../../../migrations/postgres/0011_history.sql") },
    Migration { number: 12, name: "history_copies", sql: include_str!("../../../../migrations/postgres/0012_history_copies.sql") },
    Migration { number: 13, name: "shard_moves", sql: include_str!("../../../../migrations/postgres/0013_shard_moves.sql") },
    Migration { number: 14, name: "standing", sql: include_str!("../../../../migrations/postgres/0014_standing.sql") },
    Migration { number: 15, name: "shares", sql: include_str!("../../../../migrations/postgres/0015_shares.sql") },
    Migration { number: 16, name: "public_links", sql: include_str!("../../../../migrations/postgres/0016_public_links.sql") },
    Migration { number: 17, name: "dav_locks", sql: include_str!("../../../../migrations/postgres/0017_dav_locks.sql") },
    Migration { number: 18, name: "retention", sql: include_str!("../../../../migrations/postgres/0018_retention.sql") },
    Migration { number: 19, name: "search", sql: include_str!("../../../../migrations/postgres/0019_search.sql") },
    Migration { number: 20, name: "upload_place", sql: include_str!("../../../../migrations/postgres/0020_upload_place.sql") },
];

/// Applies what is missing, on a connection that is used for nothing else.
pub async fn run(conn: &mut PgConnection) -> Result<(), StoreError> {
    apply(conn, MIGRATIONS).await
}

async fn apply(conn: &mut PgConnection, migrations: &[Migration]) -> Result<(), StoreError> {
    conn.execute("SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        .await
        .map_err(store_error)?;
    // Held until the connection ends, however it ends.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *conn).await.map_err(store_error)?;
    conn.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
    )
    .await
    .map_err(store_error)?;
    let rows = sqlx::query("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
    let applied: Vec<Applied> = rows.iter().map(|row| Applied { number: row.get(0), name: row.get(1), checksum: row.get(2) }).collect();
    check_known(&applied, migrations)?;
    for migration in migrations.iter().filter(|m| applied.iter().all(|a| a.number != m.number)) {
        apply_one(conn, migration).await?;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(conn).await.map(drop).map_err(store_error)
}

async fn apply_one(conn: &mut PgConnection, migration: &Migration) -> Result<(), StoreError> {
    let mut tx = conn.begin().await.map_err(store_error)?;
    sqlx::raw_sql(AssertSqlSafe(migration.sql)).execute(&mut *tx).await.map_err(store_error)?;
    sqlx::query(
        "INSERT INTO schema_migrations (number, name, checksum, applied_at)
         VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
    )
    .bind(migration.number)
    .bind(migration.name)
    .bind(checksum_of(migration))
    .execute(&mut *tx)
    .await
    .map_err(store_error)?;
    tx.commit().await.map_err(store_error)?;
    tracing::info!(number = migration.number, name = migration.name, "migration applied");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::cluster;
    use sqlx::PgConnection;

    const ONE: Migration = Migration { number: 1, name: "one", sql: "CREATE TABLE a (x int); INSERT INTO a VALUES (1)" };
    const TWO: Migration = Migration { number: 2, name: "two", sql: "CREATE TABLE b (x int)" };

    async fn connect(url: &str) -> PgConnection {
        PgConnection::connect(url).await.unwrap()
    }

    async fn count(conn: &mut PgConnection, table: &'static str) -> i64 {
        sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(conn).await.unwrap().get(0)
    }

    /// U05: of several that start at once each migration is applied by one.
    #[tokio::test]
    async fn relays_that_start_at_once_migrate_once() {
        let url = cluster().database();
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { run(&mut connect(&url).await).await })
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
        assert_eq!(count(&mut connect(&url).await, "schema_migrations").await as usize, MIGRATIONS.len());
    }

    #[tokio::test]
    async fn a_changed_file_and_a_newer_schema_are_refused() {
        let url = cluster().database();
        let mut conn = connect(&url).await;
        apply(&mut conn, &[ONE, TWO]).await.unwrap();
        assert!(matches!(apply(&mut conn, &[ONE]).await, Err(StoreError::Unavailable(m)) if m.contains("schema 2")));
        // Its connection is what holds the lock.
        conn = connect(&url).await;
        let edited = Migration { sql: "CREATE TABLE a (y int)", ..ONE };
        assert!(matches!(apply(&mut conn, &[edited, TWO]).await, Err(StoreError::Corrupt(_))));
    }

    /// U05: a migration that is cut off after each of its statements leaves nothing of it, and the next start applies it whole.
    #[tokio::test]
    async fn a_migration_that_is_cut_off_anywhere_leaves_nothing_of_it() {
        let url = cluster().database();
        let whole = MIGRATIONS[1].sql;
        run_until(&url, &MIGRATIONS[..1]).await;
        let statements = whole.matches(";\n").count();
        assert!(statements > 20, "{statements}");
        for kept in (0..statements).step_by(4) {
            // The database ends the connection in the middle, as it does when the process on its other end is killed.
            let cut: String = whole.split_inclusive(";\n").take(kept).collect();
            let sql: &'static str = Box::leak(format!("{cut} SELECT pg_terminate_backend(pg_backend_pid());").into_boxed_str());
            let killed = Migration { sql, ..MIGRATIONS[1] };
            assert!(apply(&mut connect(&url).await, &[MIGRATIONS[0], killed]).await.is_err(), "{kept}");
            let mut conn = connect(&url).await;
            assert_eq!(count(&mut conn, "schema_migrations").await, 1);
            let left: i64 = sqlx::query("SELECT count(*) FROM pg_class WHERE relname IN ('relay', 'namespaces', 'files', 'damage')")
                .fetch_one(&mut conn)
                .await
                .unwrap()
                .get(0);
            assert_eq!(left, 0, "after {kept} statements");
        }
        run_until(&url, MIGRATIONS).await;
        assert_eq!(count(&mut connect(&url).await, "files").await, 0);
    }

    async fn run_until(url: &str, migrations: &[Migration]) {
        apply(&mut connect(url).await, migrations).await.unwrap();
    }
}
