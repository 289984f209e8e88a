//! What nodes showed before they changed, and rewinds.

use super::{BATCH, nodes};
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{
    AuthorRow, Before, BeforeKind, Changed, ChangesQuery, HistoryRow, NodeWrite, RewindRow, Shard, dots_column, dots_of_column, within,
};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, device, maybe_bytes, maybe_device, maybe_user, node};
use crate::store::postgres::store_error;
use ferry_protocol::{DeviceId, Dot, Name, NamespaceId, NodeId, ReplicaId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::BTreeMap;

pub(super) async fn add(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    writes: &[NodeWrite],
    now_ms: i64,
) -> Result<(), StoreError> {
    let changed: Vec<(&NodeWrite, &Before)> = writes.iter().filter_map(|w| Some((w, w.before.as_ref()?))).collect();
    for batch in changed.chunks(BATCH) {
        sqlx::query(
            "INSERT INTO node_history (shard_key, namespace_id, changed_at, file_id, seq, device_id, parent_id, file_name, kind, link_target,
             dot_replica, dot_counter, copies)
             SELECT $1, $2, $3, t.* FROM UNNEST($4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::text[], $10::bytea[],
             $11::bytea[], $12::bigint[], $13::bytea[]) AS t",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(now_ms)
        .bind(batch.iter().map(|(w, _)| w.id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(w, _)| signed(w.seq)).collect::<Vec<_>>())
        .bind(batch.iter().map(|(w, _)| w.changed_by.map(|d| d.as_bytes().to_vec())).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.parent.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.name.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.kind.as_str()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.link_target.clone()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.dot.map(|d| d.replica.as_bytes().to_vec())).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.dot.map(|d| signed(d.counter))).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, b)| b.copies.as_deref().map(dots_column)).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}

fn history_row(row: &PgRow) -> Result<HistoryRow, StoreError> {
    let replica = maybe_bytes(row, 7)?.map(ReplicaId::from_bytes);
    let dot = replica.map(|replica| Ok::<_, StoreError>(Dot { replica, counter: count(row, 8)? })).transpose()?;
    let name: &[u8] = row.try_get(4).map_err(store_error)?;
    let copies: Option<&[u8]> = row.try_get(9).map_err(store_error)?;
    Ok(HistoryRow {
        changed_at_ms: row.try_get(1).map_err(store_error)?,
        changed_by: maybe_device(row, 2)?,
        before: Before {
            parent: node(row, 3)?,
            name: Name::new(name).map_err(|e| StoreError::Corrupt(format!("a name in the history: {e}")))?,
            kind: BeforeKind::parse(row.try_get(5).map_err(store_error)?)?,
            link_target: row.try_get(6).map_err(store_error)?,
            dot,
            copies: copies.map(dots_of_column).transpose()?,
        },
    })
}

/// The connection has a snapshot: a node and its history belong together.
pub(super) async fn changed_since(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    asked: ChangesQuery<'_>,
) -> Result<Vec<Changed>, StoreError> {
    // Sizes first: states are of any size, and only what fits is read.
    let found = sqlx::query(
        "SELECT file_id, octet_length(state)::bigint FROM files WHERE shard_key = $1 AND namespace_id = $2 AND updated_at > $3
         AND ($4::bytea IS NULL OR file_id > $4) ORDER BY file_id LIMIT $5",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(asked.since_ms)
    .bind(asked.after.map(|id| id.as_bytes().to_vec()))
    .bind(signed(asked.limit_nodes as u64))
    .fetch_all(&mut *conn)
    .await
    .map_err(store_error)?;
    let sizes = found.iter().map(|row| Ok((node(row, 0)?, count(row, 1)?))).collect::<Result<Vec<_>, StoreError>>()?;
    let mut rows = nodes::nodes(conn, shard, namespace, &within(sizes, asked.limit_bytes)).await?;
    rows.sort_by_key(|row| row.id);
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    for batch in rows.chunks(BATCH) {
        let found = sqlx::query(
            "SELECT h.file_id, h.changed_at, h.device_id, h.parent_id, h.file_name, h.kind, h.link_target, h.dot_replica, h.dot_counter,
             h.copies, h.seq = e.first_seq, h.seq = e.last_seq
             FROM (SELECT file_id, max(seq) AS last_seq, min(seq) FILTER (WHERE $5::bytea[] IS NULL OR device_id = ANY($5)) AS first_seq
                   FROM node_history WHERE shard_key = $1 AND namespace_id = $2 AND changed_at > $3 AND file_id = ANY($4) GROUP BY file_id) e
             JOIN node_history h ON h.file_id = e.file_id AND h.seq IN (e.first_seq, e.last_seq)
             WHERE h.shard_key = $1 AND h.namespace_id = $2",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(asked.since_ms)
        .bind(batch.iter().map(|row| row.id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(asked.by.map(|devices| devices.iter().map(|d| d.as_bytes().to_vec()).collect::<Vec<_>>()))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &found {
            let (id, told) = (node(row, 0)?, history_row(row)?);
            if row.try_get::<Option<bool>, _>(10).map_err(store_error)?.unwrap_or(false) {
                first.insert(id, told.clone());
            }
            if row.try_get(11).map_err(store_error)? {
                last.insert(id, told);
            }
        }
    }
    Ok(rows.into_iter().map(|row| Changed { first: first.remove(&row.id), last: last.remove(&row.id), row }).collect())
}

pub(super) async fn history_since(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT history_since FROM namespaces WHERE shard_key = $1 AND namespace_id = $2")
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(0), |row| row.try_get(0).map_err(store_error))
}

/// Devices that changed something, with the names that versions have for them.
pub(super) async fn writers(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
) -> Result<BTreeMap<DeviceId, Option<String>>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.device_id, max(a.name) FROM (SELECT author_device AS device_id, author_name AS name FROM file_versions
             WHERE shard_key = $1 AND namespace_id = $2
             UNION SELECT device_id, NULL FROM node_history WHERE shard_key = $1 AND namespace_id = $2 AND device_id IS NOT NULL) a
         GROUP BY a.device_id",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| Ok((device(row, 0)?, row.try_get(1).map_err(store_error)?))).collect()
}

/// Whose these devices are. From the directory.
pub(super) async fn authors(conn: &mut PgConnection, writers: BTreeMap<DeviceId, Option<String>>) -> Result<Vec<AuthorRow>, StoreError> {
    let ids: Vec<Vec<u8>> = writers.keys().map(|d| d.as_bytes().to_vec()).collect();
    let rows = sqlx::query(
        "SELECT a.id, d.name, u.user_id, u.email FROM UNNEST($1::bytea[]) AS a (id) LEFT JOIN devices d ON d.device_id = a.id
         LEFT JOIN users u ON u.user_id = coalesce(d.user_id, a.id)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let mut out = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = device(row, 0)?;
        let name: Option<String> = row.try_get(1).map_err(store_error)?;
        let name = name.or_else(|| writers.get(&id).cloned().flatten()).unwrap_or_else(|| "web".into());
        out.push(AuthorRow { device: id, name, user: maybe_user(row, 2)?, email: row.try_get(3).map_err(store_error)? });
    }
    out.sort_by_key(|author| author.device);
    Ok(out)
}

pub(super) async fn rewind(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    id: [u8; 16],
) -> Result<Option<RewindRow>, StoreError> {
    let row = sqlx::query(
        "SELECT digest, started_at, position, is_finished, counts FROM rewinds WHERE shard_key = $1 AND namespace_id = $2 AND rewind_id = $3",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(id.to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(RewindRow {
        id,
        digest: bytes(&row, 0)?,
        started_at_ms: row.try_get(1).map_err(store_error)?,
        position: maybe_bytes(&row, 2)?.map(NodeId::from_bytes),
        is_finished: row.try_get(3).map_err(store_error)?,
        counts: row.try_get(4).map_err(store_error)?,
    }))
}

pub(super) async fn begin_rewind(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    row: &RewindRow,
) -> Result<RewindRow, StoreError> {
    sqlx::query(
        "INSERT INTO rewinds (shard_key, namespace_id, rewind_id, digest, started_at, position, is_finished, counts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (shard_key, namespace_id, rewind_id) DO NOTHING",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(row.id.to_vec())
    .bind(row.digest.to_vec())
    .bind(row.started_at_ms)
    .bind(row.position.map(|p| p.as_bytes().to_vec()))
    .bind(row.is_finished)
    .bind(row.counts.clone())
    .execute(&mut *conn)
    .await
    .map_err(store_error)?;
    rewind(conn, shard, namespace, row.id).await?.ok_or_else(|| StoreError::Conflict("the rewind is gone".into()))
}

pub(super) async fn advance_rewind(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    row: &RewindRow,
    from: Option<NodeId>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE rewinds SET position = $4, is_finished = $5, counts = $6 WHERE shard_key = $1 AND namespace_id = $2 AND rewind_id = $3
         AND NOT is_finished AND position IS NOT DISTINCT FROM $7",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(row.id.to_vec())
    .bind(row.position.map(|p| p.as_bytes().to_vec()))
    .bind(row.is_finished)
    .bind(row.counts.clone())
    .bind(from.map(|p| p.as_bytes().to_vec()))
    .execute(conn)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() > 0)
}
