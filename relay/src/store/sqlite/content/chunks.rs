//! Chunks: what a namespace holds, where bytes stand.

use super::{BATCH, bytes, count, signed};
use crate::store::StoreError;
use crate::store::content::{ChunkLocation, HeldChunk, PackId, Quota};
use crate::store::sqlite::store_error;
use ferry_protocol::{ChunkId, ChunkRef, NamespaceId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn chunk_id(row: &SqliteRow, column: usize) -> Result<ChunkId, StoreError> {
    bytes(row, column).map(ChunkId::from_bytes)
}

fn length(row: &SqliteRow, column: usize) -> Result<u32, StoreError> {
    u32::try_from(count(row, column)?).map_err(|_| StoreError::Corrupt("the length of a chunk is out of range".into()))
}

/// A hash and a length in two columns.
pub(super) fn chunk_ref(row: &SqliteRow, column: usize) -> Result<ChunkRef, StoreError> {
    Ok(ChunkRef { id: chunk_id(row, column)?, len: length(row, column + 1)? })
}

/// A hash, a length, a pack and an offset in four columns.
pub(super) fn location(row: &SqliteRow, column: usize) -> Result<ChunkLocation, StoreError> {
    Ok(ChunkLocation {
        id: chunk_id(row, column)?,
        len: length(row, column + 1)?,
        pack: PackId(bytes(row, column + 2)?),
        offset: count(row, column + 3)?,
    })
}

pub(super) fn push_ids(query: &mut QueryBuilder<Sqlite>, ids: &[ChunkId]) {
    query.push(" IN (");
    let mut list = query.separated(',');
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
    query.push(")");
}

pub(super) async fn held(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    ids: &[ChunkId],
) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new(
            "SELECT chunk_hash, c.length, n.refs, c.damaged_at IS NOT NULL, n.lease_until FROM namespace_chunks n JOIN chunks c USING (chunk_hash)
             WHERE n.namespace_id = ",
        );
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND chunk_hash");
        push_ids(&mut query, batch);
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            let held = HeldChunk {
                len: length(&row, 1)?,
                refs: count(&row, 2)?,
                is_damaged: row.try_get(3).map_err(store_error)?,
                lease_until_ms: row.try_get(4).map_err(store_error)?,
            };
            out.insert(chunk_id(&row, 0)?, held);
        }
    }
    Ok(out)
}

pub(super) async fn locate(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    ids: &[ChunkId],
    committed_only: bool,
) -> Result<BTreeMap<ChunkId, ChunkLocation>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new(
            "SELECT chunk_hash, c.length, c.pack_id, c.offset FROM namespace_chunks n JOIN chunks c USING (chunk_hash) WHERE n.namespace_id = ",
        );
        query.push_bind(namespace.as_bytes().to_vec());
        if committed_only {
            query.push(" AND n.refs > 0");
        }
        query.push(" AND chunk_hash");
        push_ids(&mut query, batch);
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            let found = location(&row, 0)?;
            out.insert(found.id, found);
        }
    }
    Ok(out)
}

pub(super) async fn stored(conn: &mut SqliteConnection, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
    let mut out = BTreeSet::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT chunk_hash FROM chunks WHERE damaged_at IS NULL AND chunk_hash");
        push_ids(&mut query, batch);
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.insert(chunk_id(&row, 0)?);
        }
    }
    Ok(out)
}

/// From the few damaged chunks to the namespace, not the other way round: this is asked with every page of a feed.
const LACKS: &str = "FROM chunks c CROSS JOIN namespace_chunks n ON n.chunk_hash = c.chunk_hash AND n.refs > 0
    WHERE c.damaged_at IS NOT NULL AND n.namespace_id = ";

pub(super) async fn lacks_since(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<Option<i64>, StoreError> {
    let mut query = QueryBuilder::new("SELECT max(c.damaged_at) ");
    query.push(LACKS).push_bind(namespace.as_bytes().to_vec());
    query.build().fetch_one(conn).await.map_err(store_error)?.try_get(0).map_err(store_error)
}

pub(super) async fn lacks(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<ChunkId>, StoreError> {
    let mut query = QueryBuilder::new("SELECT c.chunk_hash ");
    query.push(LACKS).push_bind(namespace.as_bytes().to_vec());
    if let Some(after) = after {
        query.push(" AND c.chunk_hash > ").push_bind(after.as_bytes().to_vec());
    }
    query.push(" ORDER BY c.chunk_hash LIMIT ").push_bind(signed(limit as u64));
    query.build().fetch_all(conn).await.map_err(store_error)?.iter().map(|row| chunk_id(row, 0)).collect()
}

pub(super) async fn quota(conn: &mut SqliteConnection, user: UserId) -> Result<Quota, StoreError> {
    let row = sqlx::query("SELECT storage_used, storage_limit FROM users WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?
        .ok_or_else(|| StoreError::Conflict("a user who is gone".into()))?;
    let limit: Option<i64> = row.try_get(1).map_err(store_error)?;
    Ok(Quota { used_bytes: count(&row, 0)?, limit_bytes: limit.map(|l| u64::try_from(l).unwrap_or(0)) })
}
