//! Statements that take deleted nodes out of the trash for good, and versions out of the history. The namespace is locked (PG1).

use super::BATCH;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{NamespaceRow, Purged, Shard};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count};
use crate::store::postgres::store_error;
use ferry_protocol::NodeId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// What goes with a purged node beside its versions: names that it had, and what WebDAV clients left with it.
const FORGET: [&str; 2] = [
    "DELETE FROM node_history WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)",
    "DELETE FROM dav_props WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)",
];

pub(super) async fn purge(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    nodes: &[(NodeId, u64)],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    for batch in nodes.chunks(BATCH) {
        purged += purge_batch(conn, shard, namespace, batch, now_ms).await?;
    }
    Ok(purged)
}

/// Marks them, and answers which.
async fn mark(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    nodes: &[(NodeId, u64)],
    now_ms: i64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    // What changed since it was looked at is another thing: it stays.
    let rows = sqlx::query(
        "UPDATE files SET purged_at = $4, file_size = 0, file_hash = NULL, link_target = NULL
         WHERE shard_key = $1 AND namespace_id = $2 AND (file_id, seq) IN (SELECT * FROM UNNEST($3::bytea[], $5::bigint[]))
         AND is_deleted AND purged_at IS NULL RETURNING file_id",
    )
    .bind(key(shard))
    .bind(namespace.id.as_bytes().to_vec())
    .bind(nodes.iter().map(|(id, _)| id.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(now_ms)
    .bind(nodes.iter().map(|(_, seq)| signed(*seq)).collect::<Vec<_>>())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| bytes::<16>(row, 0).map(|id| id.to_vec())).collect()
}

async fn purge_batch(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    nodes: &[(NodeId, u64)],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let of = namespace.id.as_bytes().to_vec();
    let gone = mark(conn, shard, namespace, nodes, now_ms).await?;
    let mut purged = Purged { entries: gone.len() as u64, ..Purged::default() };
    if gone.is_empty() {
        return Ok(purged);
    }
    let refs = sqlx::query(
        "SELECT fc.chunk_hash, count(*) FROM file_versions v JOIN file_chunks fc USING (shard_key, version_id)
         WHERE v.shard_key = $1 AND v.namespace_id = $2 AND v.file_id = ANY($3) GROUP BY 1 ORDER BY 1",
    )
    .bind(key(shard))
    .bind(of.clone())
    .bind(gone.clone())
    .fetch_all(&mut *conn)
    .await
    .map_err(store_error)?;
    // What it was called and where links pointed goes too: a rewind brings nothing of it back.
    for statement in FORGET {
        let forget = sqlx::query(statement).bind(key(shard)).bind(of.clone()).bind(gone.clone());
        forget.execute(&mut *conn).await.map_err(store_error)?;
    }
    // The chunks of the versions go with them.
    purged.versions = sqlx::query("DELETE FROM file_versions WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)")
        .bind(key(shard))
        .bind(of)
        .bind(gone)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?
        .rows_affected();
    purged.freed_bytes = release_all(conn, shard, namespace, &refs, now_ms).await?;
    Ok(purged)
}

/// Drops versions that no file shows; their chunks go with them.
pub(super) async fn drop_versions(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    versions: &[[u8; 16]],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    for batch in versions.chunks(BATCH) {
        let ids: Vec<Vec<u8>> = batch.iter().map(|id| id.to_vec()).collect();
        let refs = sqlx::query(
            "SELECT fc.chunk_hash, count(*) FROM file_versions v JOIN file_chunks fc USING (shard_key, version_id)
             WHERE v.shard_key = $1 AND v.namespace_id = $2 AND v.version_id = ANY($3) GROUP BY 1 ORDER BY 1",
        )
        .bind(key(shard))
        .bind(namespace.id.as_bytes().to_vec())
        .bind(ids.clone())
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        purged.versions += sqlx::query("DELETE FROM file_versions WHERE shard_key = $1 AND namespace_id = $2 AND version_id = ANY($3)")
            .bind(key(shard))
            .bind(namespace.id.as_bytes().to_vec())
            .bind(ids)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?
            .rows_affected();
        purged.freed_bytes += release_all(conn, shard, namespace, &refs, now_ms).await?;
    }
    Ok(purged)
}

/// Counts references down, rows of a chunk and a number, and what the owner uses. The bytes that this frees.
async fn release_all(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    refs: &[PgRow],
    now_ms: i64,
) -> Result<u64, StoreError> {
    let mut counted = Vec::with_capacity(refs.len());
    for row in refs {
        counted.push((bytes::<32>(row, 0)?.to_vec(), signed(count(row, 1)?)));
    }
    let mut freed_bytes = 0;
    for batch in counted.chunks(BATCH) {
        freed_bytes += release(conn, shard, namespace, batch, now_ms).await?;
    }
    if freed_bytes > 0 {
        sqlx::query("UPDATE owners SET storage_used = greatest(0, storage_used - $3) WHERE shard_key = $1 AND user_id = $2")
            .bind(key(shard))
            .bind(namespace.owner.as_bytes().to_vec())
            .bind(signed(freed_bytes))
            .execute(conn)
            .await
            .map_err(store_error)?;
    }
    Ok(freed_bytes)
}

/// Counts references down; what nothing refers to and no lease protects is held no longer. The bytes that this frees.
async fn release(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    refs: &[(Vec<u8>, i64)],
    now_ms: i64,
) -> Result<u64, StoreError> {
    let ids: Vec<Vec<u8>> = refs.iter().map(|(id, _)| id.clone()).collect();
    sqlx::query(
        "UPDATE namespace_chunks n SET refs = n.refs - t.refs FROM UNNEST($3::bytea[], $4::bigint[]) AS t (h, refs)
         WHERE n.shard_key = $1 AND n.namespace_id = $2 AND n.chunk_hash = t.h",
    )
    .bind(key(shard))
    .bind(namespace.id.as_bytes().to_vec())
    .bind(ids.clone())
    .bind(refs.iter().map(|(_, refs)| *refs).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await
    .map_err(store_error)?;
    let row = sqlx::query(
        "WITH gone AS (DELETE FROM namespace_chunks WHERE shard_key = $1 AND namespace_id = $2 AND chunk_hash = ANY($3) AND refs = 0
            AND lease_until < $4 RETURNING chunk_hash)
         SELECT coalesce(sum(c.length), 0)::bigint FROM gone g JOIN chunks c ON c.shard_key = $1 AND c.chunk_hash = g.chunk_hash",
    )
    .bind(key(shard))
    .bind(namespace.id.as_bytes().to_vec())
    .bind(ids)
    .bind(now_ms)
    .fetch_one(conn)
    .await
    .map_err(store_error)?;
    let freed: i64 = row.try_get(0).map_err(store_error)?;
    Ok(u64::try_from(freed).unwrap_or(0))
}
