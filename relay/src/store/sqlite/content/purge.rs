//! Statements that take deleted nodes out of the trash for good, and versions out of the history.

use super::{BATCH, bytes, chunks, count, signed};
use crate::store::StoreError;
use crate::store::content::{NamespaceRow, Purged};
use crate::store::sqlite::store_error;
use ferry_protocol::{ChunkId, NodeId};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

/// ` IN (…)`, as blobs.
fn push_nodes(query: &mut QueryBuilder<Sqlite>, ids: &[NodeId]) {
    query.push(" IN (");
    let mut list = query.separated(',');
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
    query.push(")");
}

pub(super) async fn purge(
    conn: &mut SqliteConnection,
    namespace: &NamespaceRow,
    nodes: &[(NodeId, u64)],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    for batch in nodes.chunks(BATCH) {
        purged += purge_batch(conn, namespace, batch, now_ms).await?;
    }
    Ok(purged)
}

async fn purge_batch(
    conn: &mut SqliteConnection,
    namespace: &NamespaceRow,
    nodes: &[(NodeId, u64)],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let of = namespace.id.as_bytes().to_vec();
    let mut query = QueryBuilder::new("UPDATE files SET purged_at = ");
    query.push_bind(now_ms).push(", file_size = 0, file_hash = NULL, link_target = NULL WHERE is_deleted = 1 AND purged_at IS NULL");
    // What changed since it was looked at is another thing: it stays.
    query.push(" AND namespace_id = ").push_bind(of.clone()).push(" AND (file_id, seq) IN (");
    query.push_values(nodes, |mut b, (id, seq)| {
        b.push_bind(id.as_bytes().to_vec()).push_bind(signed(*seq));
    });
    let rows = query.push(") RETURNING file_id").build().fetch_all(&mut *conn).await.map_err(store_error)?;
    let gone = rows.iter().map(|row| bytes(row, 0).map(NodeId::from_bytes)).collect::<Result<Vec<_>, _>>()?;
    let mut purged = Purged { entries: gone.len() as u64, ..Purged::default() };
    if gone.is_empty() {
        return Ok(purged);
    }

    let mut query = QueryBuilder::new(
        "SELECT fc.chunk_hash, count(*) FROM file_versions v JOIN file_chunks fc USING (version_id) WHERE v.namespace_id = ",
    );
    query.push_bind(of.clone()).push(" AND v.file_id");
    push_nodes(&mut query, &gone);
    let rows = query.push(" GROUP BY 1").build().fetch_all(&mut *conn).await.map_err(store_error)?;
    let refs = rows.iter().map(|row| Ok((chunks::chunk_id(row, 0)?, count(row, 1)?))).collect::<Result<Vec<_>, StoreError>>()?;

    let mut query =
        QueryBuilder::new("DELETE FROM file_chunks WHERE version_id IN (SELECT version_id FROM file_versions WHERE namespace_id = ");
    query.push_bind(of.clone()).push(" AND file_id");
    push_nodes(&mut query, &gone);
    query.push(")").build().execute(&mut *conn).await.map_err(store_error)?;
    // What it was called and where links pointed goes too: a rewind brings nothing of it back.
    let mut query = QueryBuilder::new("DELETE FROM node_history WHERE namespace_id = ");
    query.push_bind(of.clone()).push(" AND file_id");
    push_nodes(&mut query, &gone);
    query.build().execute(&mut *conn).await.map_err(store_error)?;
    let mut query = QueryBuilder::new("DELETE FROM dav_props WHERE namespace_id = ");
    query.push_bind(of.clone()).push(" AND file_id");
    push_nodes(&mut query, &gone);
    query.build().execute(&mut *conn).await.map_err(store_error)?;
    let mut query = QueryBuilder::new("DELETE FROM file_versions WHERE namespace_id = ");
    query.push_bind(of).push(" AND file_id");
    push_nodes(&mut query, &gone);
    purged.versions = query.build().execute(&mut *conn).await.map_err(store_error)?.rows_affected();

    purged.freed_bytes = release_all(conn, namespace, &refs, now_ms).await?;
    Ok(purged)
}

/// Drops versions that no file shows.
pub(super) async fn drop_versions(
    conn: &mut SqliteConnection,
    namespace: &NamespaceRow,
    versions: &[[u8; 16]],
    now_ms: i64,
) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    for batch in versions.chunks(BATCH) {
        let of = namespace.id.as_bytes().to_vec();
        let mut query = QueryBuilder::new(
            "SELECT fc.chunk_hash, count(*) FROM file_versions v JOIN file_chunks fc USING (version_id) WHERE v.namespace_id = ",
        );
        query.push_bind(of.clone()).push(" AND v.version_id");
        push_versions(&mut query, batch);
        let rows = query.push(" GROUP BY 1").build().fetch_all(&mut *conn).await.map_err(store_error)?;
        let refs = rows.iter().map(|row| Ok((chunks::chunk_id(row, 0)?, count(row, 1)?))).collect::<Result<Vec<_>, StoreError>>()?;
        // Their chunks go with them.
        let mut query = QueryBuilder::new("DELETE FROM file_versions WHERE namespace_id = ");
        query.push_bind(of).push(" AND version_id");
        push_versions(&mut query, batch);
        purged.versions += query.build().execute(&mut *conn).await.map_err(store_error)?.rows_affected();
        purged.freed_bytes += release_all(conn, namespace, &refs, now_ms).await?;
    }
    Ok(purged)
}

/// ` IN (…)`, as blobs.
pub(super) fn push_versions(query: &mut QueryBuilder<Sqlite>, versions: &[[u8; 16]]) {
    query.push(" IN (");
    let mut list = query.separated(',');
    for id in versions {
        list.push_bind(id.to_vec());
    }
    query.push(")");
}

/// Counts references down, and what the owner uses. The bytes that this frees.
async fn release_all(
    conn: &mut SqliteConnection,
    namespace: &NamespaceRow,
    refs: &[(ChunkId, u64)],
    now_ms: i64,
) -> Result<u64, StoreError> {
    let mut freed_bytes = 0;
    for batch in refs.chunks(BATCH) {
        freed_bytes += release(conn, namespace, batch, now_ms).await?;
    }
    if freed_bytes > 0 {
        sqlx::query("UPDATE users SET storage_used = max(0, storage_used - ?2) WHERE user_id = ?1")
            .bind(namespace.owner.as_bytes().to_vec())
            .bind(signed(freed_bytes))
            .execute(conn)
            .await
            .map_err(store_error)?;
    }
    Ok(freed_bytes)
}

/// Counts references down; what nothing refers to and no lease protects is held no longer. The bytes that this frees.
async fn release(conn: &mut SqliteConnection, namespace: &NamespaceRow, refs: &[(ChunkId, u64)], now_ms: i64) -> Result<u64, StoreError> {
    let of = namespace.id.as_bytes().to_vec();
    let mut query = QueryBuilder::new("INSERT INTO namespace_chunks (namespace_id, chunk_hash, refs, lease_until) ");
    query.push_values(refs, |mut b, (id, refs)| {
        b.push_bind(of.clone()).push_bind(id.as_bytes().to_vec()).push_bind(-signed(*refs)).push_bind(0i64);
    });
    query.push(" ON CONFLICT (namespace_id, chunk_hash) DO UPDATE SET refs = refs + excluded.refs");
    query.build().execute(&mut *conn).await.map_err(store_error)?;
    let ids: Vec<ChunkId> = refs.iter().map(|(id, _)| *id).collect();
    let mut query = QueryBuilder::new("DELETE FROM namespace_chunks WHERE refs = 0 AND lease_until < ");
    query.push_bind(now_ms).push(" AND namespace_id = ").push_bind(of).push(" AND chunk_hash");
    chunks::push_ids(&mut query, &ids);
    query.push(" RETURNING (SELECT length FROM chunks c WHERE c.chunk_hash = namespace_chunks.chunk_hash)");
    let rows = query.build().fetch_all(conn).await.map_err(store_error)?;
    rows.iter().try_fold(0, |sum, row| Ok(sum + count(row, 0)?))
}
