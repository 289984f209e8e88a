//! Statements of the sweep and of verification.

use super::{bytes, count, signed};
use crate::store::StoreError;
use crate::store::content::{ChunkLocation, DegradedVersion, PackId, PackRow, RowFaults};
use crate::store::sqlite::store_error;
use ferry_protocol::wire::FRAME_HEADER_BYTES;
use ferry_protocol::{NamespaceId, NodeId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};

pub(super) fn pack_row(row: &SqliteRow) -> Result<PackRow, StoreError> {
    Ok(PackRow { id: PackId(bytes(row, 0)?), length_bytes: count(row, 1)?, created_at_ms: row.try_get(2).map_err(store_error)? })
}

pub(super) async fn mark_damaged(
    conn: &mut SqliteConnection,
    list: &[(ChunkLocation, &'static str)],
    now_ms: i64,
) -> Result<(), StoreError> {
    for (location, reason) in list {
        // Only while it stands where it was read: a chunk healed meanwhile is not marked. Once: since when it is lost is when that was first seen.
        let marked = sqlx::query("UPDATE chunks SET damaged_at = ?3 WHERE chunk_hash = ?1 AND pack_id = ?2 AND damaged_at IS NULL")
            .bind(location.id.as_bytes().to_vec())
            .bind(location.pack.0.to_vec())
            .bind(now_ms)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
        if marked.rows_affected() > 0 {
            sqlx::query("INSERT OR REPLACE INTO damage (chunk_hash, pack_id, reason, found_at) VALUES (?1, ?2, ?3, ?4)")
                .bind(location.id.as_bytes().to_vec())
                .bind(location.pack.0.to_vec())
                .bind(*reason)
                .bind(now_ms)
                .execute(&mut *conn)
                .await
                .map_err(store_error)?;
        }
    }
    Ok(())
}

pub(super) async fn drop_leases(conn: &mut SqliteConnection, now_ms: i64, limit: usize) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM namespace_chunks WHERE (namespace_id, chunk_hash) IN
         (SELECT namespace_id, chunk_hash FROM namespace_chunks WHERE refs = 0 AND lease_until < ?1 LIMIT ?2)
         RETURNING (SELECT owner_id FROM namespaces n WHERE n.namespace_id = namespace_chunks.namespace_id),
         (SELECT length FROM chunks c WHERE c.chunk_hash = namespace_chunks.chunk_hash)",
    )
    .bind(now_ms)
    .bind(signed(limit as u64))
    .fetch_all(&mut *conn)
    .await
    .map_err(store_error)?;
    let mut freed = std::collections::BTreeMap::<[u8; 16], u64>::new();
    for row in &rows {
        *freed.entry(bytes(row, 0)?).or_default() += count(row, 1)?;
    }
    for (owner, length) in freed {
        sqlx::query("UPDATE users SET storage_used = max(0, storage_used - ?2) WHERE user_id = ?1")
            .bind(owner.to_vec())
            .bind(signed(length))
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
    }
    Ok(rows.len() as u64)
}

pub(super) async fn drop_expired(conn: &mut SqliteConnection, uploads_before_ms: i64, commits_before_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM uploads WHERE expires_at < ?1").bind(uploads_before_ms).execute(&mut *conn).await.map_err(store_error)?;
    sqlx::query("DELETE FROM commits WHERE created_at < ?1").bind(commits_before_ms).execute(&mut *conn).await.map_err(store_error)?;
    Ok(())
}

const HELD: &str = "EXISTS (SELECT 1 FROM namespace_chunks n WHERE n.chunk_hash = chunks.chunk_hash)";

pub(super) async fn mark_orphans(conn: &mut SqliteConnection, now_ms: i64) -> Result<u64, StoreError> {
    let mut query = QueryBuilder::new("UPDATE chunks SET orphaned_at = NULL WHERE orphaned_at IS NOT NULL AND ");
    query.push(HELD).build().execute(&mut *conn).await.map_err(store_error)?;
    let mut query = QueryBuilder::new("UPDATE chunks SET orphaned_at = ");
    query.push_bind(now_ms).push(" WHERE orphaned_at IS NULL AND NOT ").push(HELD);
    Ok(query.build().execute(conn).await.map_err(store_error)?.rows_affected())
}

pub(super) async fn delete_orphans(conn: &mut SqliteConnection, before_ms: i64, limit: usize) -> Result<(u64, u64), StoreError> {
    let mut query = QueryBuilder::new("DELETE FROM chunks WHERE chunk_hash IN (SELECT chunk_hash FROM chunks WHERE orphaned_at < ");
    query.push_bind(before_ms).push(" AND NOT ").push(HELD).push(" LIMIT ").push_bind(signed(limit as u64)).push(") RETURNING length");
    let rows = query.build().fetch_all(conn).await.map_err(store_error)?;
    let mut freed = 0;
    for row in &rows {
        freed += count(row, 0)?;
    }
    Ok((rows.len() as u64, freed))
}

pub(super) async fn delete_empty_packs(conn: &mut SqliteConnection, before_ms: i64, limit: usize) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM packs WHERE pack_id IN (SELECT pack_id FROM packs p WHERE created_at < ?1
         AND coalesce(retired_at, created_at) < ?1 AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.pack_id = p.pack_id) LIMIT ?2) RETURNING pack_id, length, created_at",
    )
    .bind(before_ms)
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(pack_row).collect()
}

pub(super) async fn sparse_packs(
    conn: &mut SqliteConnection,
    before_ms: i64,
    live_percent: u64,
    limit: usize,
) -> Result<Vec<(PackRow, u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.pack_id, p.length, p.created_at, sum(c.length) FROM packs p JOIN chunks c USING (pack_id) WHERE p.created_at < ?1
         GROUP BY p.pack_id HAVING (sum(c.length) + ?2 * count(*)) * 100 < ?3 * p.length AND max(c.damaged_at) IS NULL LIMIT ?4",
    )
    .bind(before_ms)
    .bind(FRAME_HEADER_BYTES as i64)
    .bind(signed(live_percent))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| Ok((pack_row(row)?, count(row, 3)?))).collect()
}

pub(super) async fn small_packs(
    conn: &mut SqliteConnection,
    before_ms: i64,
    below_bytes: u64,
    limit: usize,
) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.pack_id, p.length, p.created_at FROM packs p WHERE p.created_at < ?1 AND p.length < ?2
         AND EXISTS (SELECT 1 FROM chunks c WHERE c.pack_id = p.pack_id)
         AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.pack_id = p.pack_id AND c.damaged_at IS NOT NULL)
         ORDER BY p.created_at, p.pack_id LIMIT ?3",
    )
    .bind(before_ms)
    .bind(signed(below_bytes))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(pack_row).collect()
}

pub(super) async fn move_chunks(
    conn: &mut SqliteConnection,
    pack: PackRow,
    chunks: &[(ChunkLocation, PackId)],
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO packs (pack_id, length, created_at) VALUES (?1, ?2, ?3)")
        .bind(pack.id.0.to_vec())
        .bind(signed(pack.length_bytes))
        .bind(pack.created_at_ms)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    for (location, from) in chunks {
        // Only while it stands where it was read: one that was healed or moved meanwhile stays where it is.
        sqlx::query("UPDATE chunks SET pack_id = ?3, offset = ?4 WHERE chunk_hash = ?1 AND pack_id = ?2 AND damaged_at IS NULL")
            .bind(location.id.as_bytes().to_vec())
            .bind(from.0.to_vec())
            .bind(pack.id.0.to_vec())
            .bind(signed(location.offset))
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
    }
    for from in chunks.iter().map(|(_, from)| from).collect::<std::collections::BTreeSet<_>>() {
        sqlx::query("UPDATE packs SET retired_at = ?2 WHERE pack_id = ?1 AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.pack_id = ?1)")
            .bind(from.0.to_vec())
            .bind(now_ms)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

/// Versions that name a damaged chunk.
pub(super) async fn degraded_versions(conn: &mut SqliteConnection, limit: usize) -> Result<(u64, Vec<DegradedVersion>), StoreError> {
    const OF: &str = "FROM file_versions v WHERE EXISTS (SELECT 1 FROM file_chunks fc JOIN chunks c USING (chunk_hash)
        WHERE fc.version_id = v.version_id AND c.damaged_at IS NOT NULL)";
    let mut query = QueryBuilder::new("SELECT count(*) ");
    let total = count(&query.push(OF).build().fetch_one(&mut *conn).await.map_err(store_error)?, 0)?;
    if total == 0 {
        return Ok((0, Vec::new()));
    }
    let mut query = QueryBuilder::new(
        "SELECT v.namespace_id, v.file_id, coalesce((SELECT f.file_name FROM files f
         WHERE f.namespace_id = v.namespace_id AND f.file_id = v.file_id), x''), v.version_number ",
    );
    query.push(OF).push(" ORDER BY v.namespace_id, v.file_id, v.version_number LIMIT ").push_bind(signed(limit as u64));
    let rows = query.build().fetch_all(conn).await.map_err(store_error)?;
    let read = |row: &SqliteRow| {
        Ok(DegradedVersion {
            namespace: NamespaceId::from_bytes(bytes(row, 0)?),
            node: NodeId::from_bytes(bytes(row, 1)?),
            name: row.try_get(2).map_err(store_error)?,
            number: count(row, 3)?,
        })
    };
    Ok((total, rows.iter().map(read).collect::<Result<_, StoreError>>()?))
}

/// Row faults, each counted by one statement.
pub(super) async fn check_rows(conn: &mut SqliteConnection) -> Result<RowFaults, StoreError> {
    let row = sqlx::query(
        "SELECT
         (SELECT count(*) FROM file_chunks fc JOIN file_versions v USING (version_id) LEFT JOIN namespace_chunks n
            ON n.namespace_id = v.namespace_id AND n.chunk_hash = fc.chunk_hash LEFT JOIN chunks c ON c.chunk_hash = fc.chunk_hash
            WHERE n.chunk_hash IS NULL OR c.chunk_hash IS NULL OR c.length <> fc.chunk_size),
         (SELECT count(*) FROM namespace_chunks n LEFT JOIN (SELECT v.namespace_id, fc.chunk_hash, count(*) AS refs FROM file_chunks fc
            JOIN file_versions v USING (version_id) GROUP BY 1, 2) t ON t.namespace_id = n.namespace_id AND t.chunk_hash = n.chunk_hash
            WHERE n.refs <> coalesce(t.refs, 0)),
         (SELECT count(*) FROM users u LEFT JOIN (SELECT s.owner_id, sum(c.length) AS used FROM namespace_chunks n
            JOIN namespaces s USING (namespace_id) JOIN chunks c USING (chunk_hash) GROUP BY 1) t ON t.owner_id = u.user_id
            WHERE u.storage_used <> coalesce(t.used, 0)),
         (SELECT count(*) FROM chunks c LEFT JOIN packs p USING (pack_id) WHERE p.pack_id IS NULL)",
    )
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
