//! Uploads of the plain API.

use crate::store::StoreError;
use crate::store::columns::{hash_column, hash_said, signed};
use crate::store::content::{Shard, UploadRow};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, namespace, node, user};
use crate::store::postgres::store_error;
use ferry_protocol::{ChunkRef, ContentHash, NodeId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::BTreeMap;

pub(super) async fn get(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError> {
    let row = sqlx::query(
        "SELECT version_id, namespace_id, user_id, file_id, path, file_hash, file_size, mtime_ns, chunk_size, num_chunks,
         completed_at, created_at, expires_at, below_id FROM uploads WHERE shard_key = $1 AND version_id = $2",
    )
    .bind(key(shard))
    .bind(version_id.to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(UploadRow {
        version_id: bytes(&row, 0)?,
        namespace: namespace(&row, 1)?,
        user: user(&row, 2)?,
        node: node(&row, 3)?,
        path: row.try_get(4).map_err(store_error)?,
        hash: hash_said(bytes(&row, 5)?),
        size_bytes: count(&row, 6)?,
        mtime_ns: row.try_get(7).map_err(store_error)?,
        chunk_size_bytes: count(&row, 8)?,
        num_chunks: count(&row, 9)?,
        completed_at_ms: row.try_get(10).map_err(store_error)?,
        created_at_ms: row.try_get(11).map_err(store_error)?,
        expires_at_ms: row.try_get(12).map_err(store_error)?,
        below: below(&row)?,
    }))
}

fn below(row: &PgRow) -> Result<Option<NodeId>, StoreError> {
    let bytes: Option<Vec<u8>> = row.try_get(13).map_err(store_error)?;
    bytes
        .map(|bytes| NodeId::from_slice(&bytes).ok_or_else(|| StoreError::Corrupt("the id of a directory has another length".into())))
        .transpose()
}

pub(super) async fn chunks(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16]) -> Result<BTreeMap<u64, ChunkRef>, StoreError> {
    let rows = sqlx::query("SELECT chunk_index, chunk_hash, chunk_size FROM upload_chunks WHERE shard_key = $1 AND version_id = $2")
        .bind(key(shard))
        .bind(version_id.to_vec())
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| Ok((count(row, 0)?, super::chunks::chunk_ref(row, 1)?))).collect()
}

pub(super) async fn chunk_count(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16]) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM upload_chunks WHERE shard_key = $1 AND version_id = $2")
        .bind(key(shard))
        .bind(version_id.to_vec())
        .fetch_one(conn)
        .await
        .map_err(store_error)?;
    count(&row, 0)
}

/// The leases first, as whoever sends chunks takes them before the upload's row.
pub(super) async fn prolong(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16], until_ms: i64) -> Result<(), StoreError> {
    for sql in [
        "UPDATE namespace_chunks SET lease_until = $3 WHERE shard_key = $1 AND lease_until < $3
         AND namespace_id = (SELECT namespace_id FROM uploads WHERE shard_key = $1 AND version_id = $2)
         AND chunk_hash IN (SELECT chunk_hash FROM upload_chunks WHERE shard_key = $1 AND version_id = $2)",
        "UPDATE uploads SET expires_at = greatest(expires_at, $3) WHERE shard_key = $1 AND version_id = $2",
    ] {
        let statement = sqlx::query(sql).bind(key(shard)).bind(version_id.to_vec()).bind(until_ms);
        statement.execute(&mut *conn).await.map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn put(conn: &mut PgConnection, shard: Shard, u: &UploadRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO uploads (shard_key, version_id, namespace_id, user_id, file_id, path, file_hash, file_size, mtime_ns, chunk_size, num_chunks,
         completed_at, created_at, expires_at, below_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(key(shard))
    .bind(u.version_id.to_vec())
    .bind(u.namespace.as_bytes().to_vec())
    .bind(u.user.as_bytes().to_vec())
    .bind(u.node.as_bytes().to_vec())
    .bind(u.path.clone())
    .bind(hash_column(u.hash))
    .bind(signed(u.size_bytes))
    .bind(u.mtime_ns)
    .bind(signed(u.chunk_size_bytes))
    .bind(signed(u.num_chunks))
    .bind(u.completed_at_ms)
    .bind(u.created_at_ms)
    .bind(u.expires_at_ms)
    .bind(u.below.map(|node| node.as_bytes().to_vec()))
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

pub(super) async fn put_chunk(
    conn: &mut PgConnection,
    shard: Shard,
    version_id: [u8; 16],
    index: u64,
    chunk: ChunkRef,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO upload_chunks (shard_key, version_id, chunk_index, chunk_hash, chunk_size) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (shard_key, version_id, chunk_index) DO UPDATE SET chunk_hash = excluded.chunk_hash, chunk_size = excluded.chunk_size",
    )
    .bind(key(shard))
    .bind(version_id.to_vec())
    .bind(signed(index))
    .bind(chunk.id.as_bytes().to_vec())
    .bind(i64::from(chunk.len))
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

pub(super) async fn complete(
    conn: &mut PgConnection,
    shard: Shard,
    version_id: [u8; 16],
    node: NodeId,
    hash: ContentHash,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE uploads SET completed_at = $3, file_id = $4, file_hash = $5 WHERE shard_key = $1 AND version_id = $2")
        .bind(key(shard))
        .bind(version_id.to_vec())
        .bind(now_ms)
        .bind(node.as_bytes().to_vec())
        .bind(hash_column(Some(hash)))
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn delete(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM uploads WHERE shard_key = $1 AND version_id = $2")
        .bind(key(shard))
        .bind(version_id.to_vec())
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}
