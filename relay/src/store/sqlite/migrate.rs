//! Brings a database to the schema of this binary: `migrations/sqlite/NNNN_name.sql`, in the order of their numbers.
//!
//! Each file runs in one transaction together with the row that records it, begun as a writer, so that a crash leaves either nothing or all of it and two processes
//! that start at once apply it once. A changed file and a schema from a newer binary are refused before anything is touched.

use super::{StoreError, store_error};
use crate::store::migration::{Applied, Migration, check_known, checksum_of};
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row};

/// All migrations, in the order of their numbers.
pub const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "accounts", sql: include_str!("../../../../migrations/sqlite/0001_accounts.sql") },
    Migration { number: 2, name: "content", sql: include_str!("../../../../migrations/sqlite/0002_content.sql") },
    Migration { number: 3, name: "feed_gaps", sql: include_str!("../../../../migrations/sqlite/0003_feed_gaps.sql") },
    Migration { number: 4, name: "link_targets", sql: include_str!("../../../../migrations/sqlite/0004_link_targets.sql") },
    Migration { number: 5, name: "retired_packs", sql: include_str!("../../../../migrations/sqlite/0005_retired_packs.sql") },
    Migration { number: 6, name: "peers", sql: include_str!("../../../../migrations/sqlite/0006_peers.sql") },
    Migration { number: 7, name: "regions", sql: include_str!("../../../../migrations/sqlite/0007_regions.sql") },
    Migration { number: 8, name: "audit", sql: include_str!("../../../../migrations/sqlite/0008_audit.sql") },
    Migration { number: 9, name: "purged", sql: include_str!("../../../../migrations/sqlite/0009_purged.sql") },
    Migration { number: 10, name: "signin", sql: include_str!("../../../../migrations/sqlite/0010_signin.sql") },
    Migration { number: 11, name: "history", sql: include_str!("../../../../migrations/sqlite/0011_history.sql") },
    Migration { number: 12, name: "history_copies", sql: include_str!("../../../../migrations/sqlite/0012_history_copies.sql") },
    Migration { number: 13, name: "shard_moves", sql: include_str!("../../../../migrations/sqlite/0013_shard_moves.sql") },
    Migration { number: 14, name: "standing", sql: include_str!("../../../../migrations/sqlite/0014_standing.sql") },
    Migration { number: 15, name: "shares", sql: include_str!("../../../../migrations/sqlite/0015_shares.sql") },
    Migration { number: 16, name: "public_links", sql: include_str!("../../../../migrations/sqlite/0016_public_links.sql") },
    Migration { number: 17, name: "dav_locks", sql: include_str!("../../../../migrations/sqlite/0017_dav_locks.sql") },
    Migration { number: 18, name: "retention", sql: include_str!("../../../../migrations/sqlite/0018_retention.sql") },
    Migration { number: 19, name: "search", sql: include_str!("../../../../migrations/sqlite/0019_search.sql") },
    Migration { number: 20, name: "upload_place", sql: include_str!("../../../../migrations/sqlite/0020_upload_place.sql") },
];

/// Applies what is missing.
pub async fn run(writer: &SqlitePool) -> Result<(), StoreError> {
    apply(writer, MIGRATIONS).await
}

/// The schema that this binary knows.
pub fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |m| m.number)
}

async fn apply(writer: &SqlitePool, migrations: &[Migration]) -> Result<(), StoreError> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL,
         applied_at INTEGER NOT NULL) STRICT",
    )
    .execute(writer)
    .await
    .map_err(store_error)?;
    let rows =
        sqlx::query("SELECT number, name, checksum FROM schema_migrations ORDER BY number").fetch_all(writer).await.map_err(store_error)?;
    let applied: Vec<Applied> = rows.iter().map(|row| Applied { number: row.get(0), name: row.get(1), checksum: row.get(2) }).collect();
    check_known(&applied, migrations)?;
    for migration in migrations {
        apply_one(writer, migration).await?;
    }
    Ok(())
}

async fn apply_one(writer: &SqlitePool, migration: &Migration) -> Result<(), StoreError> {
    // BEGIN IMMEDIATE takes the write lock first: whoever comes second sees the row and goes on.
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)?;
    let done = sqlx::query("SELECT 1 FROM schema_migrations WHERE number = ?1")
        .bind(migration.number)
        .fetch_optional(&mut *tx)
        .await
        .map_err(store_error)?;
    if done.is_some() {
        return Ok(());
    }
    sqlx::raw_sql(AssertSqlSafe(migration.sql)).execute(&mut *tx).await.map_err(store_error)?;
    sqlx::query("INSERT INTO schema_migrations (number, name, checksum, applied_at) VALUES (?1, ?2, ?3, CAST(unixepoch('subsec') * 1000 AS INTEGER))")
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
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    async fn empty(dir: &tempfile::TempDir) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(dir.path().join("db")).create_if_missing(true);
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap()
    }

    #[tokio::test]
    async fn all_apply_once_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let pool = empty(&dir).await;
        run(&pool).await.unwrap();
        run(&pool).await.unwrap();
        assert!(MIGRATIONS.windows(2).all(|w| w[0].number < w[1].number));
        let count: i64 = sqlx::query("SELECT count(*) FROM schema_migrations").fetch_one(&pool).await.unwrap().get(0);
        assert_eq!(count as usize, MIGRATIONS.len());
    }

    #[tokio::test]
    async fn a_changed_file_and_a_newer_schema_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pool = empty(&dir).await;
        let one = Migration { number: 1, name: "one", sql: "CREATE TABLE a (x)" };
        let two = Migration { number: 2, name: "two", sql: "CREATE TABLE b (x)" };
        apply(&pool, &[one, two]).await.unwrap();
        assert!(matches!(apply(&pool, &[one]).await, Err(StoreError::Unavailable(m)) if m.contains("schema 2")));
        let edited = Migration { sql: "CREATE TABLE a (y)", ..one };
        assert!(matches!(apply(&pool, &[edited, two]).await, Err(StoreError::Corrupt(_))));
    }

    #[tokio::test]
    async fn a_failing_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pool = empty(&dir).await;
        let bad = Migration { number: 1, name: "bad", sql: "CREATE TABLE a (x); CREATE TABLE a (x);" };
        assert!(apply(&pool, &[bad]).await.is_err());
        let good = Migration { sql: "CREATE TABLE a (x)", ..bad };
        apply(&pool, &[good]).await.unwrap();
    }
}
