//! Chunks: what a namespace holds, where bytes stand, who pays for them.

use super::BATCH;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{ChunkLocation, HeldChunk, PackId, PackRow, Shard};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, chunk as chunk_id, count, sorted};
use crate::store::postgres::store_error;
use ferry_protocol::{ChunkId, ChunkRef, NamespaceId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

fn length(row: &PgRow, column: usize) -> Result<u32, StoreError> {
    u32::try_from(count(row, column)?).map_err(|_| StoreError::Corrupt("the length of a chunk is out of range".into()))
}

/// A hash and a length in two columns.
pub(super) fn chunk_ref(row: &PgRow, column: usize) -> Result<ChunkRef, StoreError> {
    Ok(ChunkRef { id: chunk_id(row, column)?, len: length(row, column + 1)? })
}

/// A hash, a length, a pack and an offset in four columns.
pub(in crate::store::postgres) fn location(row: &PgRow, column: usize) -> Result<ChunkLocation, StoreError> {
    Ok(ChunkLocation {
        id: chunk_id(row, column)?,
        len: length(row, column + 1)?,
        pack: PackId(bytes(row, column + 2)?),
        offset: count(row, column + 3)?,
    })
}

pub(super) async fn held(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    ids: &[ChunkId],
) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let rows = sqlx::query(
            "SELECT n.chunk_hash, c.length, n.refs, c.damaged_at IS NOT NULL, n.lease_until
             FROM namespace_chunks n JOIN chunks c USING (shard_key, chunk_hash)
             WHERE n.shard_key = $1 AND n.namespace_id = $2 AND n.chunk_hash = ANY($3)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(sorted(batch))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            let held = HeldChunk {
                len: length(row, 1)?,
                refs: count(row, 2)?,
                is_damaged: row.try_get(3).map_err(store_error)?,
                lease_until_ms: row.try_get(4).map_err(store_error)?,
            };
            out.insert(chunk_id(row, 0)?, held);
        }
    }
    Ok(out)
}

pub(super) async fn locate(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    ids: &[ChunkId],
    committed_only: bool,
) -> Result<BTreeMap<ChunkId, ChunkLocation>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let rows = sqlx::query(
            "SELECT n.chunk_hash, c.length, c.pack_id, c.\"offset\" FROM namespace_chunks n JOIN chunks c USING (shard_key, chunk_hash)
             WHERE n.shard_key = $1 AND n.namespace_id = $2 AND n.chunk_hash = ANY($3) AND (n.refs > 0 OR NOT $4)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(sorted(batch))
        .bind(committed_only)
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            let found = location(row, 0)?;
            out.insert(found.id, found);
        }
    }
    Ok(out)
}

pub(super) async fn stored(conn: &mut PgConnection, shard: Shard, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
    let mut out = BTreeSet::new();
    for batch in ids.chunks(BATCH) {
        let rows = sqlx::query("SELECT chunk_hash FROM chunks WHERE shard_key = $1 AND damaged_at IS NULL AND chunk_hash = ANY($2)")
            .bind(key(shard))
            .bind(sorted(batch))
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        for row in &rows {
            out.insert(chunk_id(row, 0)?);
        }
    }
    Ok(out)
}

/// When a chunk that versions name was last found to be damaged.
pub(super) async fn lacks_since(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId) -> Result<Option<i64>, StoreError> {
    // From the few damaged chunks to the namespace: this is asked with every page of a feed.
    let row = sqlx::query(
        "SELECT max(c.damaged_at) FROM chunks c JOIN namespace_chunks n ON n.shard_key = $1 AND n.chunk_hash = c.chunk_hash AND n.refs > 0
         WHERE c.shard_key = $1 AND c.damaged_at IS NOT NULL AND n.namespace_id = $2",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .fetch_one(conn)
    .await
    .map_err(store_error)?;
    row.try_get(0).map_err(store_error)
}

/// The damaged chunks that versions name.
pub(super) async fn lacks(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<ChunkId>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.chunk_hash FROM chunks c JOIN namespace_chunks n ON n.shard_key = $1 AND n.chunk_hash = c.chunk_hash AND n.refs > 0
         WHERE c.shard_key = $1 AND c.damaged_at IS NOT NULL AND n.namespace_id = $2 AND ($3::bytea IS NULL OR c.chunk_hash > $3)
         ORDER BY c.chunk_hash LIMIT $4",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(after.map(|id| id.as_bytes().to_vec()))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| chunk_id(row, 0)).collect()
}

/// Which of these chunks are stored undamaged; nobody deletes them before the transaction ends.
pub(super) async fn stored_and_locked(conn: &mut PgConnection, shard: Shard, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
    let mut out = BTreeSet::new();
    let all = sorted(ids);
    for batch in all.chunks(BATCH) {
        let rows = sqlx::query(
            "SELECT chunk_hash FROM chunks WHERE shard_key = $1 AND damaged_at IS NULL AND chunk_hash = ANY($2)
             ORDER BY chunk_hash FOR KEY SHARE",
        )
        .bind(key(shard))
        .bind(batch)
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            out.insert(chunk_id(row, 0)?);
        }
    }
    Ok(out)
}

pub(super) async fn insert_pack(conn: &mut PgConnection, shard: Shard, pack: PackRow) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO packs (shard_key, pack_id, length, created_at) VALUES ($1, $2, $3, $4)")
        .bind(key(shard))
        .bind(pack.id.0.to_vec())
        .bind(signed(pack.length_bytes))
        .bind(pack.created_at_ms)
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn add_pack(conn: &mut PgConnection, shard: Shard, pack: PackRow, locations: &[ChunkLocation]) -> Result<(), StoreError> {
    insert_pack(conn, shard, pack).await?;
    // By rising hash (PG2).
    let by_hash: BTreeMap<ChunkId, ChunkLocation> = locations.iter().map(|l| (l.id, *l)).collect();
    let by_hash: Vec<ChunkLocation> = by_hash.into_values().collect();
    for batch in by_hash.chunks(BATCH) {
        // A damaged chunk is healed by good bytes: it moves to the new pack.
        sqlx::query(
            "INSERT INTO chunks (shard_key, chunk_hash, length, pack_id, \"offset\", created_at)
             SELECT $1, t.h, t.length, t.pack, t.place, $6 FROM UNNEST($2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[]) AS t (h, length, pack, place)
             ORDER BY t.h
             ON CONFLICT (shard_key, chunk_hash) DO UPDATE SET pack_id = excluded.pack_id, \"offset\" = excluded.\"offset\", damaged_at = NULL
             WHERE chunks.damaged_at IS NOT NULL",
        )
        .bind(key(shard))
        .bind(batch.iter().map(|l| l.id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|l| i64::from(l.len)).collect::<Vec<_>>())
        .bind(batch.iter().map(|l| l.pack.0.to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|l| signed(l.offset)).collect::<Vec<_>>())
        .bind(pack.created_at_ms)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn lease(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    list: &[(ChunkId, u32)],
    until_ms: i64,
) -> Result<u64, StoreError> {
    let wanted: BTreeMap<ChunkId, u32> = list.iter().copied().collect();
    let ids: Vec<ChunkId> = wanted.keys().copied().collect();
    let held = held(conn, shard, namespace, &ids).await?;
    let new = wanted.iter().filter(|(id, _)| !held.contains_key(id)).map(|(_, len)| u64::from(*len)).sum();
    let all = sorted(&ids);
    for batch in all.chunks(BATCH) {
        // First the marks, in order: once locked, the sweep leaves them alone.
        sqlx::query(
            "UPDATE chunks SET orphaned_at = NULL WHERE shard_key = $1 AND chunk_hash IN
             (SELECT chunk_hash FROM chunks WHERE shard_key = $1 AND chunk_hash = ANY($2) AND orphaned_at IS NOT NULL ORDER BY chunk_hash
              FOR NO KEY UPDATE)",
        )
        .bind(key(shard))
        .bind(batch)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        sqlx::query(
            "INSERT INTO namespace_chunks (shard_key, namespace_id, chunk_hash, refs, lease_until)
             SELECT $1, $2, t.h, 0, $4 FROM UNNEST($3::bytea[]) AS t (h) ORDER BY t.h
             ON CONFLICT (shard_key, namespace_id, chunk_hash)
             DO UPDATE SET lease_until = greatest(namespace_chunks.lease_until, excluded.lease_until)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(batch)
        .bind(until_ms)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    }
    Ok(new)
}

/// What a user uses in this shard; with `lock` nobody else changes it before the transaction ends (RC5).
pub(super) async fn used(conn: &mut PgConnection, shard: Shard, user: UserId, lock: bool) -> Result<u64, StoreError> {
    let sql = if lock {
        "SELECT storage_used FROM owners WHERE shard_key = $1 AND user_id = $2 FOR UPDATE"
    } else {
        "SELECT storage_used FROM owners WHERE shard_key = $1 AND user_id = $2"
    };
    let row = sqlx::query(sql).bind(key(shard)).bind(user.as_bytes().to_vec()).fetch_optional(conn).await.map_err(store_error)?;
    row.map_or(Ok(0), |row| count(&row, 0))
}

/// The user's own limit, from the directory.
pub(super) async fn limit(conn: &mut PgConnection, user: UserId) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT storage_limit FROM users WHERE user_id = $1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?
        .ok_or_else(|| StoreError::Conflict("a user who is gone".into()))?;
    Ok(row.try_get::<Option<i64>, _>(0).map_err(store_error)?.map(|l| u64::try_from(l).unwrap_or(0)))
}

pub(super) async fn add_usage(conn: &mut PgConnection, shard: Shard, user: UserId, bytes: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO owners (shard_key, user_id, storage_used) VALUES ($1, $2, $3)
         ON CONFLICT (shard_key, user_id) DO UPDATE SET storage_used = owners.storage_used + excluded.storage_used",
    )
    .bind(key(shard))
    .bind(user.as_bytes().to_vec())
    .bind(signed(bytes))
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}
