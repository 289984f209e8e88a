//! Shards in which nobody new is placed: a setting in the directory, read by whoever places a user in the transaction that does.

use crate::store::StoreError;
use crate::store::content::Shard;
use crate::store::postgres::store_error;
use sqlx::{PgConnection, Row};
use std::collections::BTreeSet;

/// The setting: numbers with commas between them.
const CLOSED: &str = "shards_closed";
/// The number of the advisory lock in the directory: "ferrypla".
const LOCK: i64 = 0x6665_7272_7970_6c61;

/// Why the lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) enum For {
    /// A user is placed.
    Placing,
    /// The setting is changed.
    Change,
}

/// Holds until the transaction ends: users are placed at the same time, but none while the setting changes, so that whoever has changed it sees all
/// that were placed before.
pub(in crate::store::postgres) async fn lock(conn: &mut PgConnection, why: For) -> Result<(), StoreError> {
    let sql = match why {
        For::Placing => "SELECT pg_advisory_xact_lock_shared($1)",
        For::Change => "SELECT pg_advisory_xact_lock($1)",
    };
    sqlx::query(sql).bind(LOCK).execute(conn).await.map(drop).map_err(store_error)
}

pub(in crate::store::postgres) async fn read(conn: &mut PgConnection) -> Result<BTreeSet<Shard>, StoreError> {
    let row = sqlx::query("SELECT value FROM settings WHERE key = $1").bind(CLOSED).fetch_optional(conn).await.map_err(store_error)?;
    let text: String = row.map_or(Ok(String::new()), |row| row.try_get(0).map_err(store_error))?;
    let numbers = text.split(',').filter(|number| !number.is_empty());
    let all = numbers.map(|number| number.parse().map(Shard)).collect::<Result<_, _>>();
    all.map_err(|_| StoreError::Corrupt(format!("the setting {CLOSED} is '{text}'")))
}

pub(super) async fn write(conn: &mut PgConnection, all: &BTreeSet<Shard>, now_ms: i64) -> Result<(), StoreError> {
    let text = all.iter().map(Shard::to_string).collect::<Vec<_>>().join(",");
    sqlx::query(
        "INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(CLOSED)
    .bind(text)
    .bind(now_ms)
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}
