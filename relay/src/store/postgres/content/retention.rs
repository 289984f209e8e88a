//! Versions one by one, and how long they are kept. What writes holds the namespace (PG1).

use super::write::PgTx;
use super::{chunks, history, nodes, purge, versions};
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{AuthorRow, DeletedRow, NamespaceRow, Purged, VersionRow};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, node as node_id, user};
use crate::store::postgres::{Postgres, store_error};
use crate::store::versions::{KeptContent, RetentionRow, VersionStore, VersionTx};
use async_trait::async_trait;
use ferry_protocol::{ContentHash, DeviceId, Name, NamespaceId, NodeId, UserId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;

/// From file, hash, time and a chunk in rows that follow each other by file and place; the chunk of a file without any is null.
fn add_content(out: &mut BTreeMap<NodeId, KeptContent>, row: &PgRow) -> Result<(), StoreError> {
    let (hash, mtime_ns) = (ContentHash::from_bytes(bytes(row, 1)?), row.try_get(2).map_err(store_error)?);
    let content = out.entry(node_id(row, 0)?).or_insert(KeptContent { hash, mtime_ns, chunks: Vec::new() });
    if row.try_get::<Option<&[u8]>, _>(3).map_err(store_error)?.is_some() {
        content.chunks.push(chunks::chunk_ref(row, 3)?);
    }
    Ok(())
}

#[async_trait]
impl VersionStore for Postgres {
    async fn newest_contents(&self, namespace: NamespaceId, files: &[NodeId]) -> Result<BTreeMap<NodeId, KeptContent>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let mut out = BTreeMap::new();
        for batch in files.chunks(super::BATCH) {
            // Looked up for each: how many there are is not known when it is planned.
            let rows = sqlx::query(
                "SELECT v.file_id, v.file_hash, v.mtime_ns, c.chunk_hash, c.chunk_size FROM UNNEST($3::bytea[]) AS asked (id)
                 CROSS JOIN LATERAL (SELECT version_id, file_id, file_hash, mtime_ns FROM file_versions
                     WHERE shard_key = $1 AND namespace_id = $2 AND file_id = asked.id ORDER BY version_number DESC LIMIT 1) v
                 LEFT JOIN LATERAL (SELECT chunk_hash, chunk_size, chunk_index FROM file_chunks
                     WHERE shard_key = $1 AND version_id = v.version_id OFFSET 0) c ON true
                 ORDER BY v.file_id, c.chunk_index",
            )
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(batch.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>())
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
            for row in &rows {
                add_content(&mut out, row)?;
            }
        }
        Ok(out)
    }

    async fn version_costs(&self, namespace: NamespaceId, versions: &[[u8; 16]]) -> Result<BTreeMap<[u8; 16], u64>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows = sqlx::query(
            "SELECT t.version_id, sum(t.size)::bigint FROM (
                 SELECT fc.version_id, fc.chunk_hash, count(*) AS refs, max(fc.chunk_size) AS size
                 FROM file_chunks fc JOIN file_versions v USING (shard_key, version_id)
                 WHERE fc.shard_key = $1 AND v.namespace_id = $2 AND fc.version_id = ANY($3) GROUP BY 1, 2) t
             JOIN namespace_chunks n ON n.shard_key = $1 AND n.namespace_id = $2 AND n.chunk_hash = t.chunk_hash AND n.refs = t.refs GROUP BY 1",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(versions.iter().map(|id| id.to_vec()).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| Ok((bytes(row, 0)?, count(row, 1)?))).collect()
    }

    async fn deleted_at(
        &self,
        namespace: NamespaceId,
        parents: &[NodeId],
        name: &Name,
        limit: usize,
    ) -> Result<Vec<DeletedRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows = sqlx::query(
            "SELECT file_id, parent_id, file_name, file_size, file_type, file_hash, updated_at, seq FROM files
             WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = ANY($3) AND standing = 0 AND file_name = $4 AND is_deleted
             AND purged_at IS NULL ORDER BY seq DESC LIMIT $5",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(parents.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(name.as_bytes().to_vec())
        .bind(signed(limit as u64))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        rows.iter().map(nodes::deleted_row).collect()
    }

    async fn authors_among(&self, devices: &[DeviceId]) -> Result<Vec<AuthorRow>, StoreError> {
        let nameless = devices.iter().map(|device| (*device, None)).collect();
        history::authors(&mut *self.directory().read().await?, nameless).await
    }

    async fn files_with_history(&self, namespace: NamespaceId, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows = sqlx::query(
            "SELECT file_id FROM file_versions WHERE shard_key = $1 AND namespace_id = $2 AND file_id > $3 GROUP BY file_id
             HAVING count(*) > 1 ORDER BY file_id LIMIT $4",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(after.map_or(Vec::new(), |after| after.as_bytes().to_vec()))
        .bind(signed(limit as u64))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| node_id(row, 0)).collect()
    }

    async fn retention(&self, namespace: NamespaceId) -> Result<Option<RetentionRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let row = sqlx::query("SELECT retention, retained_at, owner_id FROM namespaces WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?;
        drop(conn);
        let Some(row) = row else { return Ok(None) };
        let owner = user(&row, 2)?;
        Ok(Some(RetentionRow {
            rule: row.try_get(0).map_err(store_error)?,
            owner_rule: self.user_retention(owner).await?,
            retained_at_ms: row.try_get(1).map_err(store_error)?,
            owner,
        }))
    }

    async fn user_retention(&self, user: UserId) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT retention FROM users WHERE user_id = $1")
            .bind(user.as_bytes().to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(store_error))
    }

    async fn set_user_retention(&self, user: UserId, rule: Option<&str>) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE users SET retention = $2 WHERE user_id = $1")
            .bind(user.as_bytes().to_vec())
            .bind(rule)
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }
}

#[async_trait]
impl VersionTx for PgTx {
    async fn versions(&mut self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError> {
        let shard = self.shard;
        versions::of_file(self.conn(), shard, namespace, node).await
    }

    async fn set_label(
        &mut self,
        namespace: NamespaceId,
        node: NodeId,
        version_id: [u8; 16],
        label: Option<&str>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE file_versions SET label = $5 WHERE shard_key = $1 AND namespace_id = $2 AND file_id = $3 AND version_id = $4",
        )
        .bind(key(self.shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(node.as_bytes().to_vec())
        .bind(version_id.to_vec())
        .bind(label)
        .execute(self.conn())
        .await
        .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }

    async fn drop_versions(&mut self, namespace: &NamespaceRow, versions: &[[u8; 16]], now_ms: i64) -> Result<Purged, StoreError> {
        let shard = self.shard;
        purge::drop_versions(self.conn(), shard, namespace, versions, now_ms).await
    }

    async fn set_retention(&mut self, namespace: NamespaceId, rule: Option<&str>) -> Result<(), StoreError> {
        sqlx::query("UPDATE namespaces SET retention = $3 WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(self.shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(rule)
            .execute(self.conn())
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn begin_retention(&mut self, namespace: NamespaceId, since_ms: i64, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE namespaces SET retained_at = $4 WHERE shard_key = $1 AND namespace_id = $2 AND retained_at <= $3")
            .bind(key(self.shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(since_ms)
            .bind(now_ms)
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }
}
