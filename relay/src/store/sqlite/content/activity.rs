//! What happened in a namespace, and what it holds.

use super::{bytes, count, signed};
use crate::store::StoreError;
use crate::store::activity::{ActKey, ActRow, ActivityStore, ShownThen, SpaceTotals};
use crate::store::content::BeforeKind;
use crate::store::sqlite::{Sqlite, store_error};
use async_trait::async_trait;
use ferry_protocol::{DeviceId, Dot, NamespaceId, NodeId, ReplicaId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};

/// A change, what it found, and what the next change of the same node found: that is what it left.
const ACT: &str = "SELECT h.changed_at, h.file_id, h.seq, h.device_id,
    NOT EXISTS (SELECT 1 FROM node_history o WHERE o.namespace_id = h.namespace_id AND o.file_id = h.file_id AND o.seq < h.seq),
    h.kind, h.parent_id, h.file_name, h.dot_replica, h.dot_counter, n.kind, n.parent_id, n.file_name, n.dot_replica, n.dot_counter
    FROM node_history h LEFT JOIN node_history n ON n.namespace_id = h.namespace_id AND n.file_id = h.file_id AND n.seq =
        (SELECT min(m.seq) FROM node_history m WHERE m.namespace_id = h.namespace_id AND m.file_id = h.file_id AND m.seq > h.seq)
    WHERE h.namespace_id = ";

fn is_there(row: &SqliteRow, column: usize) -> Result<bool, StoreError> {
    Ok(row.try_get::<Option<&[u8]>, _>(column).map_err(store_error)?.is_some())
}

/// From five columns; nothing where there is no such row.
fn shown_then(row: &SqliteRow, first: usize) -> Result<Option<ShownThen>, StoreError> {
    let Some(kind) = row.try_get::<Option<&str>, _>(first).map_err(store_error)? else { return Ok(None) };
    let dot = match is_there(row, first + 3)? {
        true => Some(Dot { replica: ReplicaId::from_bytes(bytes(row, first + 3)?), counter: count(row, first + 4)? }),
        false => None,
    };
    Ok(Some(ShownThen {
        kind: BeforeKind::parse(kind)?,
        parent: NodeId::from_bytes(bytes(row, first + 1)?),
        name: row.try_get(first + 2).map_err(store_error)?,
        dot,
    }))
}

fn act(row: &SqliteRow) -> Result<ActRow, StoreError> {
    let before = shown_then(row, 5)?.ok_or_else(|| StoreError::Corrupt("a change without a kind".into()))?;
    Ok(ActRow {
        key: (row.try_get(0).map_err(store_error)?, NodeId::from_bytes(bytes(row, 1)?), count(row, 2)?),
        device: if is_there(row, 3)? { Some(DeviceId::from_bytes(bytes(row, 3)?)) } else { None },
        is_first: row.try_get(4).map_err(store_error)?,
        before,
        after: shown_then(row, 10)?,
    })
}

#[async_trait]
impl ActivityStore for Sqlite {
    async fn activity(
        &self,
        namespace: NamespaceId,
        before: Option<ActKey>,
        by: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<ActRow>, StoreError> {
        let mut sql = QueryBuilder::<sqlx::Sqlite>::new(ACT);
        sql.push_bind(namespace.as_bytes().to_vec());
        if let Some((at_ms, node, seq)) = before {
            sql.push(" AND (h.changed_at, h.file_id, h.seq) < (").push_bind(at_ms).push(", ").push_bind(node.as_bytes().to_vec());
            sql.push(", ").push_bind(signed(seq)).push(")");
        }
        if let Some(device) = by {
            sql.push(" AND h.device_id = ").push_bind(device.as_bytes().to_vec());
        }
        sql.push(" ORDER BY h.changed_at DESC, h.file_id DESC, h.seq DESC LIMIT ").push_bind(signed(limit as u64));
        sql.build().fetch_all(self.reader()).await.map_err(store_error)?.iter().map(act).collect()
    }

    async fn space_totals(&self, namespace: NamespaceId) -> Result<SpaceTotals, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE is_deleted = 0), coalesce(sum(file_size) FILTER (WHERE is_deleted = 0), 0),
                 count(*) FILTER (WHERE is_deleted = 1), coalesce(sum(file_size) FILTER (WHERE is_deleted = 1), 0),
                 (SELECT count(*) FROM file_versions WHERE namespace_id = ?1),
                 (SELECT coalesce(sum(file_size), 0) FROM file_versions WHERE namespace_id = ?1)
             FROM files WHERE namespace_id = ?1 AND file_type NOT IN ('directory', 'symlink') AND purged_at IS NULL",
        )
        .bind(namespace.as_bytes().to_vec())
        .fetch_one(self.reader())
        .await
        .map_err(store_error)?;
        Ok(SpaceTotals {
            files: count(&row, 0)?,
            file_bytes: count(&row, 1)?,
            trash: count(&row, 2)?,
            trash_bytes: count(&row, 3)?,
            versions: count(&row, 4)?,
            version_bytes: count(&row, 5)?,
        })
    }
}
