//! In which blob stores packs are, and where a user's packs go.

use super::sweep::pack_row;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{PackId, PackRow, Shard};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::bytes;
use crate::store::postgres::store_error;
use ferry_protocol::UserId;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn copies(
    conn: &mut PgConnection,
    shard: Shard,
    packs: &[PackId],
) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
    let ids: Vec<Vec<u8>> = packs.iter().map(|p| p.0.to_vec()).collect();
    let rows = sqlx::query("SELECT pack_id, region FROM pack_copies WHERE shard_key = $1 AND pack_id = ANY($2)")
        .bind(key(shard))
        .bind(ids)
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    let mut out = BTreeMap::<PackId, BTreeSet<String>>::new();
    for row in &rows {
        out.entry(PackId(bytes(row, 0)?)).or_default().insert(row.try_get(1).map_err(store_error)?);
    }
    Ok(out)
}

pub(super) async fn packs_in(
    conn: &mut PgConnection,
    shard: Shard,
    region: &str,
    or_unplaced: bool,
    after: Option<PackId>,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.pack_id, p.length, p.created_at FROM packs p WHERE p.shard_key = $1
         AND (EXISTS (SELECT 1 FROM pack_copies c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id AND c.region = $2)
              OR ($3 AND NOT EXISTS (SELECT 1 FROM pack_copies c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id)))
         AND ($4::bytea IS NULL OR p.pack_id > $4) ORDER BY p.pack_id LIMIT $5",
    )
    .bind(key(shard))
    .bind(region)
    .bind(or_unplaced)
    .bind(after.map(|p| p.0.to_vec()))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(pack_row).collect()
}

pub(super) async fn set_copies(conn: &mut PgConnection, shard: Shard, pack: PackId, regions: &BTreeSet<String>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pack_copies WHERE shard_key = $1 AND pack_id = $2")
        .bind(key(shard))
        .bind(pack.0.to_vec())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    let regions: Vec<String> = regions.iter().cloned().collect();
    sqlx::query("INSERT INTO pack_copies (shard_key, pack_id, region) SELECT $1, $2, t.region FROM UNNEST($3::text[]) AS t (region)")
        .bind(key(shard))
        .bind(pack.0.to_vec())
        .bind(regions)
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}

/// From the directory.
pub(super) async fn home_region(conn: &mut PgConnection, user: UserId) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT home_region FROM users WHERE user_id = $1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(None), |row| row.try_get(0).map_err(store_error))
}

/// In the directory.
pub(super) async fn set_home_region(conn: &mut PgConnection, user: UserId, region: Option<&str>) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE users SET home_region = $2 WHERE user_id = $1")
        .bind(user.as_bytes().to_vec())
        .bind(region)
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() > 0)
}
