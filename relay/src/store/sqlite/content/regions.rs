//! In which blob stores packs are, and where a user's packs go.

use super::{BATCH, bytes, signed, sweep};
use crate::store::StoreError;
use crate::store::content::{PackId, PackRow};
use crate::store::sqlite::store_error;
use ferry_protocol::UserId;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn copies(conn: &mut SqliteConnection, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
    let mut out = BTreeMap::<PackId, BTreeSet<String>>::new();
    for batch in packs.chunks(BATCH) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT pack_id, region FROM pack_copies WHERE pack_id IN (");
        let mut list = query.separated(',');
        for pack in batch {
            list.push_bind(pack.0.to_vec());
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.entry(PackId(bytes(&row, 0)?)).or_default().insert(row.try_get(1).map_err(store_error)?);
        }
    }
    Ok(out)
}

pub(super) async fn packs_in(
    conn: &mut SqliteConnection,
    region: &str,
    or_unplaced: bool,
    after: Option<PackId>,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT p.pack_id, p.length, p.created_at FROM packs p WHERE (EXISTS
         (SELECT 1 FROM pack_copies c WHERE c.pack_id = p.pack_id AND c.region = ",
    );
    query.push_bind(region.to_owned()).push(")");
    if or_unplaced {
        query.push(" OR NOT EXISTS (SELECT 1 FROM pack_copies c WHERE c.pack_id = p.pack_id)");
    }
    query.push(")");
    if let Some(after) = after {
        query.push(" AND p.pack_id > ").push_bind(after.0.to_vec());
    }
    query.push(" ORDER BY p.pack_id LIMIT ").push_bind(signed(limit as u64));
    let rows = query.build().fetch_all(conn).await.map_err(store_error)?;
    rows.iter().map(sweep::pack_row).collect()
}

pub(super) async fn set_copies(conn: &mut SqliteConnection, pack: PackId, regions: &BTreeSet<String>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pack_copies WHERE pack_id = ?1").bind(pack.0.to_vec()).execute(&mut *conn).await.map_err(store_error)?;
    for region in regions {
        sqlx::query("INSERT INTO pack_copies (pack_id, region) VALUES (?1, ?2)")
            .bind(pack.0.to_vec())
            .bind(region)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn home_region(conn: &mut SqliteConnection, user: UserId) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT home_region FROM users WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(None), |row| row.try_get(0).map_err(store_error))
}

pub(super) async fn set_home_region(conn: &mut SqliteConnection, user: UserId, region: Option<&str>) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE users SET home_region = ?2 WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .bind(region)
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() > 0)
}
