//! What happened in a namespace, and what it holds.

use crate::store::StoreError;
use crate::store::activity::{ActKey, ActRow, ActivityStore, ShownThen, SpaceTotals};
use crate::store::columns::signed;
use crate::store::content::BeforeKind;
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, maybe_bytes, maybe_device, node as node_id};
use crate::store::postgres::{Postgres, store_error};
use async_trait::async_trait;
use ferry_protocol::{DeviceId, Dot, NamespaceId, NodeId, ReplicaId};
use sqlx::postgres::PgRow;
use sqlx::{QueryBuilder, Row};

/// A change, what it found, and what the next change of the same node found: that is what it left.
const ACT: &str = "SELECT h.changed_at, h.file_id, h.seq, h.device_id,
    NOT EXISTS (SELECT 1 FROM node_history o WHERE o.shard_key = h.shard_key AND o.namespace_id = h.namespace_id AND o.file_id = h.file_id
        AND o.seq < h.seq),
    h.kind, h.parent_id, h.file_name, h.dot_replica, h.dot_counter, n.kind, n.parent_id, n.file_name, n.dot_replica, n.dot_counter
    FROM node_history h LEFT JOIN LATERAL (SELECT m.kind, m.parent_id, m.file_name, m.dot_replica, m.dot_counter FROM node_history m
        WHERE m.shard_key = h.shard_key AND m.namespace_id = h.namespace_id AND m.file_id = h.file_id AND m.seq > h.seq ORDER BY m.seq LIMIT 1) n
        ON true
    WHERE h.shard_key = ";

/// From five columns; nothing where there is no such row.
fn shown_then(row: &PgRow, first: usize) -> Result<Option<ShownThen>, StoreError> {
    let Some(kind) = row.try_get::<Option<&str>, _>(first).map_err(store_error)? else { return Ok(None) };
    let dot = match maybe_bytes(row, first + 3)? {
        Some(replica) => Some(Dot { replica: ReplicaId::from_bytes(replica), counter: count(row, first + 4)? }),
        None => None,
    };
    let name = row.try_get(first + 2).map_err(store_error)?;
    Ok(Some(ShownThen { kind: BeforeKind::parse(kind)?, parent: NodeId::from_bytes(bytes(row, first + 1)?), name, dot }))
}

fn act(row: &PgRow) -> Result<ActRow, StoreError> {
    let before = shown_then(row, 5)?.ok_or_else(|| StoreError::Corrupt("a change without a kind".into()))?;
    Ok(ActRow {
        key: (row.try_get(0).map_err(store_error)?, node_id(row, 1)?, count(row, 2)?),
        device: maybe_device(row, 3)?,
        is_first: row.try_get(4).map_err(store_error)?,
        before,
        after: shown_then(row, 10)?,
    })
}

#[async_trait]
impl ActivityStore for Postgres {
    async fn activity(
        &self,
        namespace: NamespaceId,
        before: Option<ActKey>,
        by: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<ActRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let mut sql = QueryBuilder::<sqlx::Postgres>::new(ACT);
        sql.push_bind(key(shard)).push(" AND h.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
        if let Some((at_ms, node, seq)) = before {
            sql.push(" AND (h.changed_at, h.file_id, h.seq) < (").push_bind(at_ms).push(", ").push_bind(node.as_bytes().to_vec());
            sql.push(", ").push_bind(signed(seq)).push(")");
        }
        if let Some(device) = by {
            sql.push(" AND h.device_id = ").push_bind(device.as_bytes().to_vec());
        }
        sql.push(" ORDER BY h.changed_at DESC, h.file_id DESC, h.seq DESC LIMIT ").push_bind(signed(limit as u64));
        sql.build().fetch_all(&mut *conn).await.map_err(store_error)?.iter().map(act).collect()
    }

    async fn space_totals(&self, namespace: NamespaceId) -> Result<SpaceTotals, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE NOT is_deleted), coalesce(sum(file_size) FILTER (WHERE NOT is_deleted), 0)::bigint,
                 count(*) FILTER (WHERE is_deleted), coalesce(sum(file_size) FILTER (WHERE is_deleted), 0)::bigint,
                 (SELECT count(*) FROM file_versions WHERE shard_key = $1 AND namespace_id = $2),
                 (SELECT coalesce(sum(file_size), 0)::bigint FROM file_versions WHERE shard_key = $1 AND namespace_id = $2)
             FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_type NOT IN ('directory', 'symlink') AND purged_at IS NULL",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .fetch_one(&mut *conn)
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
