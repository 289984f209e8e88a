//! What nodes showed before they changed, and rewinds.

use super::{BATCH, bytes, count, nodes, signed};
use crate::store::StoreError;
use crate::store::content::{
    AuthorRow, Before, BeforeKind, Changed, ChangesQuery, HistoryRow, NodeWrite, RewindRow, dots_column, dots_of_column, within,
};
use crate::store::sqlite::store_error;
use ferry_protocol::{DeviceId, Dot, Name, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};
use std::collections::BTreeMap;

pub(super) async fn add(conn: &mut SqliteConnection, namespace: NamespaceId, writes: &[NodeWrite], now_ms: i64) -> Result<(), StoreError> {
    let changed: Vec<(&NodeWrite, &Before)> = writes.iter().filter_map(|w| Some((w, w.before.as_ref()?))).collect();
    for batch in changed.chunks(BATCH) {
        let mut query = QueryBuilder::new(
            "INSERT INTO node_history (namespace_id, file_id, seq, changed_at, device_id, parent_id, file_name, kind, link_target, dot_replica,
             dot_counter, copies) ",
        );
        query.push_values(batch, |mut b, (write, before)| {
            b.push_bind(namespace.as_bytes().to_vec())
                .push_bind(write.id.as_bytes().to_vec())
                .push_bind(signed(write.seq))
                .push_bind(now_ms)
                .push_bind(write.changed_by.map(|d| d.as_bytes().to_vec()))
                .push_bind(before.parent.as_bytes().to_vec())
                .push_bind(before.name.as_bytes().to_vec())
                .push_bind(before.kind.as_str())
                .push_bind(before.link_target.clone())
                .push_bind(before.dot.map(|d| d.replica.as_bytes().to_vec()))
                .push_bind(before.dot.map(|d| signed(d.counter)))
                .push_bind(before.copies.as_deref().map(dots_column));
        });
        query.build().execute(&mut *conn).await.map_err(store_error)?;
    }
    Ok(())
}

fn is_there(row: &SqliteRow, column: usize) -> Result<bool, StoreError> {
    Ok(row.try_get::<Option<&[u8]>, _>(column).map_err(store_error)?.is_some())
}

fn history_row(row: &SqliteRow) -> Result<HistoryRow, StoreError> {
    let dot = if is_there(row, 7)? { Some(Dot { replica: ReplicaId::from_bytes(bytes(row, 7)?), counter: count(row, 8)? }) } else { None };
    let name: &[u8] = row.try_get(4).map_err(store_error)?;
    let copies: Option<&[u8]> = row.try_get(9).map_err(store_error)?;
    Ok(HistoryRow {
        changed_at_ms: row.try_get(1).map_err(store_error)?,
        changed_by: if is_there(row, 2)? { Some(DeviceId::from_bytes(bytes(row, 2)?)) } else { None },
        before: Before {
            parent: NodeId::from_bytes(bytes(row, 3)?),
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
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    asked: ChangesQuery<'_>,
) -> Result<Vec<Changed>, StoreError> {
    // Sizes first: states are of any size, and only what fits is read.
    let mut query = QueryBuilder::new("SELECT file_id, length(state) FROM files WHERE namespace_id = ");
    query.push_bind(namespace.as_bytes().to_vec()).push(" AND updated_at > ").push_bind(asked.since_ms);
    if let Some(after) = asked.after {
        query.push(" AND file_id > ").push_bind(after.as_bytes().to_vec());
    }
    query.push(" ORDER BY file_id LIMIT ").push_bind(signed(asked.limit_nodes as u64));
    let found = query.build().fetch_all(&mut *conn).await.map_err(store_error)?;
    let sizes = found.iter().map(|row| Ok((NodeId::from_bytes(bytes(row, 0)?), count(row, 1)?))).collect::<Result<Vec<_>, StoreError>>()?;
    let mut rows = nodes::nodes(conn, namespace, &within(sizes, asked.limit_bytes)).await?;
    rows.sort_by_key(|row| row.id);
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    for batch in rows.chunks(BATCH) {
        let mut query = QueryBuilder::new(
            "SELECT h.file_id, h.changed_at, h.device_id, h.parent_id, h.file_name, h.kind, h.link_target, h.dot_replica, h.dot_counter,
             h.copies, h.seq = e.first_seq, h.seq = e.last_seq
             FROM (SELECT file_id, max(seq) AS last_seq, min(CASE WHEN ",
        );
        match asked.by {
            None => _ = query.push("1 = 1"),
            Some(devices) => {
                query.push("device_id IN (");
                let mut list = query.separated(',');
                for device in devices {
                    list.push_bind(device.as_bytes().to_vec());
                }
                query.push(")");
            }
        }
        query.push(" THEN seq END) AS first_seq FROM node_history WHERE namespace_id = ").push_bind(namespace.as_bytes().to_vec());
        query.push(" AND changed_at > ").push_bind(asked.since_ms).push(" AND file_id IN (");
        let mut list = query.separated(',');
        for row in batch {
            list.push_bind(row.id.as_bytes().to_vec());
        }
        query.push(") GROUP BY file_id) e JOIN node_history h ON h.file_id = e.file_id AND h.seq IN (e.first_seq, e.last_seq)");
        query.push(" WHERE h.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            let (id, told) = (NodeId::from_bytes(bytes(&row, 0)?), history_row(&row)?);
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

pub(super) async fn history_since(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT history_since FROM namespaces WHERE namespace_id = ?1")
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(0), |row| row.try_get(0).map_err(store_error))
}

pub(super) async fn authors(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<Vec<AuthorRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.device_id, coalesce(max(d.name), max(a.name), 'web'), max(u.user_id), max(u.email)
         FROM (SELECT author_device AS device_id, author_name AS name FROM file_versions WHERE namespace_id = ?1
               UNION SELECT device_id, NULL FROM node_history WHERE namespace_id = ?1 AND device_id IS NOT NULL) a
         LEFT JOIN devices d ON d.device_id = a.device_id LEFT JOIN users u ON u.user_id = coalesce(d.user_id, a.device_id)
         GROUP BY a.device_id ORDER BY a.device_id",
    )
    .bind(namespace.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &SqliteRow| {
        Ok(AuthorRow {
            device: DeviceId::from_bytes(bytes(row, 0)?),
            name: row.try_get(1).map_err(store_error)?,
            user: if is_there(row, 2)? { Some(UserId::from_bytes(bytes(row, 2)?)) } else { None },
            email: row.try_get(3).map_err(store_error)?,
        })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn rewind(conn: &mut SqliteConnection, namespace: NamespaceId, id: [u8; 16]) -> Result<Option<RewindRow>, StoreError> {
    let row =
        sqlx::query("SELECT digest, started_at, position, is_finished, counts FROM rewinds WHERE namespace_id = ?1 AND rewind_id = ?2")
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
        position: if is_there(&row, 2)? { Some(NodeId::from_bytes(bytes(&row, 2)?)) } else { None },
        is_finished: row.try_get(3).map_err(store_error)?,
        counts: row.try_get(4).map_err(store_error)?,
    }))
}

pub(super) async fn begin_rewind(conn: &mut SqliteConnection, namespace: NamespaceId, row: &RewindRow) -> Result<RewindRow, StoreError> {
    sqlx::query(
        "INSERT INTO rewinds (namespace_id, rewind_id, digest, started_at, position, is_finished, counts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (namespace_id, rewind_id) DO NOTHING",
    )
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
    rewind(conn, namespace, row.id).await?.ok_or_else(|| StoreError::Conflict("the rewind is gone".into()))
}

pub(super) async fn advance_rewind(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    row: &RewindRow,
    from: Option<NodeId>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE rewinds SET position = ?3, is_finished = ?4, counts = ?5
         WHERE namespace_id = ?1 AND rewind_id = ?2 AND is_finished = 0 AND position IS NOT DISTINCT FROM ?6",
    )
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
