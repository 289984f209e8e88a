//! Statements of the sweep and of verification. The sweep waits for no row (PG2): what somebody holds, it leaves for the next time. A row that it has
//! locked was looked at again under the lock, as PostgreSQL does for rows that changed since the statement began.

use super::chunks::insert_pack;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{ChunkLocation, PackId, PackRow, RowFaults, Shard, StorageTotals};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count};
use crate::store::postgres::store_error;
use ferry_protocol::wire::FRAME_HEADER_BYTES;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn pack_row(row: &PgRow) -> Result<PackRow, StoreError> {
    Ok(PackRow { id: PackId(bytes(row, 0)?), length_bytes: count(row, 1)?, created_at_ms: row.try_get(2).map_err(store_error)? })
}

pub(super) async fn mark_damaged(
    conn: &mut PgConnection,
    shard: Shard,
    list: &[(ChunkLocation, &'static str)],
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut list: Vec<_> = list.to_vec();
    list.sort_by_key(|(location, _)| location.id);
    for (location, reason) in list {
        // Only while it stands where it was read: a chunk healed meanwhile is not marked. Once: since when it is lost is when that was first seen.
        let marked = sqlx::query(
            "UPDATE chunks SET damaged_at = $4 WHERE shard_key = $1 AND chunk_hash = $2 AND pack_id = $3 AND damaged_at IS NULL",
        )
        .bind(key(shard))
        .bind(location.id.as_bytes().to_vec())
        .bind(location.pack.0.to_vec())
        .bind(now_ms)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        if marked.rows_affected() > 0 {
            sqlx::query(
                "INSERT INTO damage (shard_key, chunk_hash, pack_id, reason, found_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (shard_key, chunk_hash) DO UPDATE SET pack_id = excluded.pack_id, reason = excluded.reason, found_at = excluded.found_at",
            )
            .bind(key(shard))
            .bind(location.id.as_bytes().to_vec())
            .bind(location.pack.0.to_vec())
            .bind(reason)
            .bind(now_ms)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
        }
    }
    Ok(())
}

/// The namespaces are locked too: a commit that relies on a lease holds its namespace, so the lease stays.
pub(super) async fn drop_leases(conn: &mut PgConnection, shard: Shard, now_ms: i64, limit: usize) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "WITH ended AS MATERIALIZED (
            SELECT l.namespace_id, l.chunk_hash, n.owner_id FROM namespace_chunks l
            JOIN namespaces n ON n.shard_key = l.shard_key AND n.namespace_id = l.namespace_id
            WHERE l.shard_key = $1 AND l.refs = 0 AND l.lease_until < $2 AND n.moving_to IS NULL LIMIT $3
            FOR UPDATE OF n, l SKIP LOCKED),
         gone AS (
            DELETE FROM namespace_chunks l USING ended e
            WHERE l.shard_key = $1 AND l.namespace_id = e.namespace_id AND l.chunk_hash = e.chunk_hash RETURNING l.chunk_hash, e.owner_id)
         SELECT g.owner_id, c.length FROM gone g JOIN chunks c ON c.shard_key = $1 AND c.chunk_hash = g.chunk_hash",
    )
    .bind(key(shard))
    .bind(now_ms)
    .bind(signed(limit as u64))
    .fetch_all(&mut *conn)
    .await
    .map_err(store_error)?;
    let mut freed = BTreeMap::<[u8; 16], u64>::new();
    for row in &rows {
        *freed.entry(bytes(row, 0)?).or_default() += count(row, 1)?;
    }
    for (owner, length) in freed {
        sqlx::query("UPDATE owners SET storage_used = greatest(0, storage_used - $3) WHERE shard_key = $1 AND user_id = $2")
            .bind(key(shard))
            .bind(owner.to_vec())
            .bind(signed(length))
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
    }
    Ok(rows.len() as u64)
}

pub(super) async fn drop_expired(
    conn: &mut PgConnection,
    shard: Shard,
    uploads_before_ms: i64,
    commits_before_ms: i64,
) -> Result<(), StoreError> {
    for (sql, before) in [
        ("DELETE FROM uploads WHERE shard_key = $1 AND expires_at < $2", uploads_before_ms),
        ("DELETE FROM commits WHERE shard_key = $1 AND created_at < $2", commits_before_ms),
    ] {
        sqlx::query(sql).bind(key(shard)).bind(before).execute(&mut *conn).await.map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn mark_orphans(conn: &mut PgConnection, shard: Shard, now_ms: i64) -> Result<u64, StoreError> {
    sqlx::query(
        "UPDATE chunks SET orphaned_at = NULL WHERE shard_key = $1 AND chunk_hash IN (
            SELECT c.chunk_hash FROM chunks c WHERE c.shard_key = $1 AND c.orphaned_at IS NOT NULL
            AND EXISTS (SELECT 1 FROM namespace_chunks n WHERE n.shard_key = $1 AND n.chunk_hash = c.chunk_hash)
            FOR NO KEY UPDATE OF c SKIP LOCKED)",
    )
    .bind(key(shard))
    .execute(&mut *conn)
    .await
    .map_err(store_error)?;
    let done = sqlx::query(
        "UPDATE chunks SET orphaned_at = $2 WHERE shard_key = $1 AND chunk_hash IN (
            SELECT c.chunk_hash FROM chunks c WHERE c.shard_key = $1 AND c.orphaned_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM namespace_chunks n WHERE n.shard_key = $1 AND n.chunk_hash = c.chunk_hash)
            FOR NO KEY UPDATE OF c SKIP LOCKED)",
    )
    .bind(key(shard))
    .bind(now_ms)
    .execute(conn)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn delete_orphans(conn: &mut PgConnection, shard: Shard, before_ms: i64, limit: usize) -> Result<(u64, u64), StoreError> {
    let rows = sqlx::query(
        "DELETE FROM chunks WHERE shard_key = $1 AND chunk_hash IN (
            SELECT c.chunk_hash FROM chunks c WHERE c.shard_key = $1 AND c.orphaned_at < $2
            AND NOT EXISTS (SELECT 1 FROM namespace_chunks n WHERE n.shard_key = $1 AND n.chunk_hash = c.chunk_hash)
            LIMIT $3 FOR UPDATE OF c SKIP LOCKED) RETURNING length",
    )
    .bind(key(shard))
    .bind(before_ms)
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let mut freed = 0;
    for row in &rows {
        freed += count(row, 0)?;
    }
    Ok((rows.len() as u64, freed))
}

pub(super) async fn delete_empty_packs(
    conn: &mut PgConnection,
    shard: Shard,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM packs WHERE shard_key = $1 AND pack_id IN (
            SELECT p.pack_id FROM packs p WHERE p.shard_key = $1 AND p.created_at < $2 AND coalesce(p.retired_at, p.created_at) < $2
            AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id)
            LIMIT $3 FOR UPDATE OF p SKIP LOCKED) RETURNING pack_id, length, created_at",
    )
    .bind(key(shard))
    .bind(before_ms)
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(pack_row).collect()
}

pub(super) async fn sparse_packs(
    conn: &mut PgConnection,
    shard: Shard,
    before_ms: i64,
    live_percent: u64,
    limit: usize,
) -> Result<Vec<(PackRow, u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.pack_id, p.length, p.created_at, sum(c.length)::bigint FROM packs p
         JOIN chunks c ON c.shard_key = p.shard_key AND c.pack_id = p.pack_id WHERE p.shard_key = $1 AND p.created_at < $2
         GROUP BY p.pack_id, p.length, p.created_at
         HAVING (sum(c.length) + $3 * count(*)) * 100 < $4 * p.length AND max(c.damaged_at) IS NULL LIMIT $5",
    )
    .bind(key(shard))
    .bind(before_ms)
    .bind(signed(FRAME_HEADER_BYTES as u64))
    .bind(signed(live_percent))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| Ok((pack_row(row)?, count(row, 3)?))).collect()
}

pub(super) async fn small_packs(
    conn: &mut PgConnection,
    shard: Shard,
    before_ms: i64,
    below_bytes: u64,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.pack_id, p.length, p.created_at FROM packs p WHERE p.shard_key = $1 AND p.created_at < $2 AND p.length < $3
         AND EXISTS (SELECT 1 FROM chunks c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id)
         AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id AND c.damaged_at IS NOT NULL)
         ORDER BY p.created_at, p.pack_id LIMIT $4",
    )
    .bind(key(shard))
    .bind(before_ms)
    .bind(signed(below_bytes))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(pack_row).collect()
}

pub(super) async fn move_chunks(
    conn: &mut PgConnection,
    shard: Shard,
    pack: PackRow,
    chunks: &[(ChunkLocation, PackId)],
    now_ms: i64,
) -> Result<(), StoreError> {
    insert_pack(conn, shard, pack).await?;
    let mut by_hash: Vec<&(ChunkLocation, PackId)> = chunks.iter().collect();
    by_hash.sort_by_key(|(location, _)| location.id);
    for (location, from) in by_hash {
        // Only while it stands where it was read: one that was healed or moved meanwhile stays where it is.
        sqlx::query(
            "UPDATE chunks SET pack_id = $4, \"offset\" = $5 WHERE shard_key = $1 AND chunk_hash = $2 AND pack_id = $3 AND damaged_at IS NULL",
        )
        .bind(key(shard))
        .bind(location.id.as_bytes().to_vec())
        .bind(from.0.to_vec())
        .bind(pack.id.0.to_vec())
        .bind(signed(location.offset))
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    }
    let emptied: BTreeSet<PackId> = chunks.iter().map(|(_, from)| *from).collect();
    let emptied: Vec<Vec<u8>> = emptied.iter().map(|p| p.0.to_vec()).collect();
    sqlx::query(
        "UPDATE packs p SET retired_at = $3 WHERE p.shard_key = $1 AND p.pack_id = ANY($2)
         AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.shard_key = $1 AND c.pack_id = p.pack_id)",
    )
    .bind(key(shard))
    .bind(emptied)
    .bind(now_ms)
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

/// Row faults, each counted by one statement.
pub(super) async fn check_rows(conn: &mut PgConnection, shard: Shard) -> Result<RowFaults, StoreError> {
    let row = sqlx::query(
        "SELECT
         (SELECT count(*) FROM file_chunks fc JOIN file_versions v USING (shard_key, version_id)
            LEFT JOIN namespace_chunks n ON n.shard_key = $1 AND n.namespace_id = v.namespace_id AND n.chunk_hash = fc.chunk_hash
            LEFT JOIN chunks c ON c.shard_key = $1 AND c.chunk_hash = fc.chunk_hash
            WHERE fc.shard_key = $1 AND (n.chunk_hash IS NULL OR c.chunk_hash IS NULL OR c.length <> fc.chunk_size)),
         (SELECT count(*) FROM namespace_chunks n LEFT JOIN (SELECT v.namespace_id, fc.chunk_hash, count(*) AS refs FROM file_chunks fc
            JOIN file_versions v USING (shard_key, version_id) WHERE fc.shard_key = $1 GROUP BY 1, 2) t
            ON t.namespace_id = n.namespace_id AND t.chunk_hash = n.chunk_hash
            WHERE n.shard_key = $1 AND n.refs <> coalesce(t.refs, 0)),
         (SELECT count(*) FROM owners o LEFT JOIN (SELECT s.owner_id, sum(c.length) AS used FROM namespace_chunks n
            JOIN namespaces s USING (shard_key, namespace_id) JOIN chunks c USING (shard_key, chunk_hash) WHERE n.shard_key = $1 GROUP BY 1) t
            ON t.owner_id = o.user_id WHERE o.shard_key = $1 AND o.storage_used <> coalesce(t.used, 0)),
         (SELECT count(*) FROM chunks c LEFT JOIN packs p USING (shard_key, pack_id) WHERE c.shard_key = $1 AND p.pack_id IS NULL)",
    )
    .bind(key(shard))
    .fetch_one(conn)
    .await
    .map_err(store_error)?;
    Ok(RowFaults {
        chunks_missing: count(&row, 0)?,
        refs_wrong: count(&row, 1)?,
        usage_wrong: count(&row, 2)?,
        packs_missing: count(&row, 3)?,
    })
}

/// What a shard holds.
pub(super) async fn totals(conn: &mut PgConnection, shard: Shard) -> Result<StorageTotals, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM namespaces WHERE shard_key = $1), (SELECT count(*) FROM files WHERE shard_key = $1),
         (SELECT count(*) FROM file_versions WHERE shard_key = $1),
         (SELECT coalesce(sum(file_size), 0)::bigint FROM file_versions WHERE shard_key = $1),
         (SELECT count(*) FROM chunks WHERE shard_key = $1), (SELECT coalesce(sum(length), 0)::bigint FROM chunks WHERE shard_key = $1),
         (SELECT count(*) FROM packs WHERE shard_key = $1), (SELECT coalesce(sum(length), 0)::bigint FROM packs WHERE shard_key = $1),
         (SELECT count(*) FROM chunks WHERE shard_key = $1 AND orphaned_at IS NOT NULL),
         (SELECT count(*) FROM chunks WHERE shard_key = $1 AND damaged_at IS NOT NULL),
         (SELECT count(*) FROM uploads WHERE shard_key = $1 AND completed_at IS NULL)",
    )
    .bind(key(shard))
    .fetch_one(conn)
    .await
    .map_err(store_error)?;
    Ok(StorageTotals {
        namespaces: count(&row, 0)?,
        nodes: count(&row, 1)?,
        versions: count(&row, 2)?,
        version_bytes: count(&row, 3)?,
        chunks: count(&row, 4)?,
        chunk_bytes: count(&row, 5)?,
        packs: count(&row, 6)?,
        pack_bytes: count(&row, 7)?,
        orphaned_chunks: count(&row, 8)?,
        damaged_chunks: count(&row, 9)?,
        uploads_open: count(&row, 10)?,
    })
}
