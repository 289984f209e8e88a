//! Versions one by one, and how long they are kept.

use super::{SqliteTx, bytes, chunks, count, nodes, purge, signed, user};
use crate::store::StoreError;
use crate::store::content::{AuthorRow, DeletedRow, NamespaceRow, Purged, VersionRow};
use crate::store::sqlite::{Sqlite, store_error};
use crate::store::versions::{KeptContent, RetentionRow, VersionStore, VersionTx};
use async_trait::async_trait;
use ferry_protocol::{ContentHash, DeviceId, Name, NamespaceId, NodeId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};
use std::collections::BTreeMap;

/// From file, hash, time and a chunk in rows that follow each other by file and place; the chunk of a file without any is null.
fn add_content(out: &mut BTreeMap<NodeId, KeptContent>, row: &SqliteRow) -> Result<(), StoreError> {
    let (hash, mtime_ns) = (ContentHash::from_bytes(bytes(row, 1)?), row.try_get(2).map_err(store_error)?);
    let content = out.entry(NodeId::from_bytes(bytes(row, 0)?)).or_insert(KeptContent { hash, mtime_ns, chunks: Vec::new() });
    if row.try_get::<Option<&[u8]>, _>(3).map_err(store_error)?.is_some() {
        content.chunks.push(chunks::chunk_ref(row, 3)?);
    }
    Ok(())
}

#[async_trait]
impl VersionStore for Sqlite {
    async fn newest_contents(&self, namespace: NamespaceId, files: &[NodeId]) -> Result<BTreeMap<NodeId, KeptContent>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let mut out = BTreeMap::new();
        for batch in files.chunks(super::BATCH) {
            // Beside max() SQLite gives the other columns of the row in which it was found.
            let mut query = QueryBuilder::new(
                "SELECT v.file_id, v.file_hash, v.mtime_ns, c.chunk_hash, c.chunk_size FROM (
                     SELECT version_id, file_id, file_hash, mtime_ns, max(version_number) FROM file_versions WHERE namespace_id = ",
            );
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND file_id IN (");
            let mut list = query.separated(',');
            for file in batch {
                list.push_bind(file.as_bytes().to_vec());
            }
            query.push(") GROUP BY file_id) v LEFT JOIN file_chunks c ON c.version_id = v.version_id ORDER BY v.file_id, c.chunk_index");
            for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
                add_content(&mut out, &row)?;
            }
        }
        Ok(out)
    }

    async fn version_costs(&self, namespace: NamespaceId, versions: &[[u8; 16]]) -> Result<BTreeMap<[u8; 16], u64>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let mut out = BTreeMap::new();
        for batch in versions.chunks(super::BATCH) {
            let mut query = QueryBuilder::new(
                "SELECT t.version_id, sum(t.size) FROM (SELECT fc.version_id, fc.chunk_hash, count(*) AS refs, max(fc.chunk_size) AS size
                 FROM file_chunks fc JOIN file_versions v USING (version_id) WHERE v.namespace_id = ",
            );
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND fc.version_id");
            purge::push_versions(&mut query, batch);
            query.push(
                " GROUP BY 1, 2) t JOIN namespace_chunks n ON n.chunk_hash = t.chunk_hash AND n.refs = t.refs WHERE n.namespace_id = ",
            );
            query.push_bind(namespace.as_bytes().to_vec()).push(" GROUP BY 1");
            for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
                out.insert(bytes(&row, 0)?, count(&row, 1)?);
            }
        }
        Ok(out)
    }

    async fn deleted_at(
        &self,
        namespace: NamespaceId,
        parents: &[NodeId],
        name: &Name,
        limit: usize,
    ) -> Result<Vec<DeletedRow>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT file_id, parent_id, file_name, file_size, file_type, file_hash, updated_at, seq FROM files WHERE namespace_id = ",
        );
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND standing = 0 AND is_deleted = 1 AND purged_at IS NULL AND file_name = ");
        query.push_bind(name.as_bytes().to_vec()).push(" AND parent_id IN (");
        let mut list = query.separated(',');
        for parent in parents {
            list.push_bind(parent.as_bytes().to_vec());
        }
        query.push(") ORDER BY seq DESC LIMIT ").push_bind(signed(limit as u64));
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        query.build().fetch_all(&mut *conn).await.map_err(store_error)?.iter().map(nodes::deleted_row).collect()
    }

    async fn authors_among(&self, devices: &[DeviceId]) -> Result<Vec<AuthorRow>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let mut out = Vec::new();
        for batch in devices.chunks(super::BATCH).filter(|batch| !batch.is_empty()) {
            let mut query = QueryBuilder::new("WITH a (id) AS (VALUES ");
            let mut list = query.separated(", ");
            for device in batch {
                list.push("(").push_bind_unseparated(device.as_bytes().to_vec()).push_unseparated(")");
            }
            query.push(
                ") SELECT a.id, coalesce(d.name, 'web'), u.user_id, u.email FROM a LEFT JOIN devices d ON d.device_id = a.id
                 LEFT JOIN users u ON u.user_id = coalesce(d.user_id, a.id) ORDER BY a.id",
            );
            for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
                out.push(author_row(&row)?);
            }
        }
        Ok(out)
    }

    async fn files_with_history(&self, namespace: NamespaceId, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let rows = sqlx::query(
            "SELECT file_id FROM file_versions WHERE namespace_id = ?1 AND file_id > ?2 GROUP BY file_id HAVING count(*) > 1
             ORDER BY file_id LIMIT ?3",
        )
        .bind(namespace.as_bytes().to_vec())
        .bind(after.map_or(Vec::new(), |after| after.as_bytes().to_vec()))
        .bind(signed(limit as u64))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| bytes(row, 0).map(NodeId::from_bytes)).collect()
    }

    async fn retention(&self, namespace: NamespaceId) -> Result<Option<RetentionRow>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let row = sqlx::query(
            "SELECT n.retention, u.retention, n.retained_at, n.owner_id FROM namespaces n JOIN users u ON u.user_id = n.owner_id
             WHERE n.namespace_id = ?1",
        )
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(&mut *conn)
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(RetentionRow {
            rule: row.try_get(0).map_err(store_error)?,
            owner_rule: row.try_get(1).map_err(store_error)?,
            retained_at_ms: row.try_get(2).map_err(store_error)?,
            owner: user(&row, 3)?,
        }))
    }

    async fn user_retention(&self, user: UserId) -> Result<Option<String>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        let row = sqlx::query("SELECT retention FROM users WHERE user_id = ?1")
            .bind(user.as_bytes().to_vec())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(store_error))
    }

    async fn set_user_retention(&self, user: UserId, rule: Option<&str>) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE users SET retention = ?2 WHERE user_id = ?1")
            .bind(user.as_bytes().to_vec())
            .bind(rule)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }
}

fn author_row(row: &SqliteRow) -> Result<AuthorRow, StoreError> {
    let has_user = row.try_get::<Option<&[u8]>, _>(2).map_err(store_error)?.is_some();
    Ok(AuthorRow {
        device: DeviceId::from_bytes(bytes(row, 0)?),
        name: row.try_get(1).map_err(store_error)?,
        user: if has_user { Some(user(row, 2)?) } else { None },
        email: row.try_get(3).map_err(store_error)?,
    })
}

#[async_trait]
impl VersionTx for SqliteTx {
    async fn versions(&mut self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError> {
        nodes::versions(&mut self.tx, namespace, node).await
    }

    async fn set_label(
        &mut self,
        namespace: NamespaceId,
        node: NodeId,
        version_id: [u8; 16],
        label: Option<&str>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE file_versions SET label = ?4 WHERE namespace_id = ?1 AND file_id = ?2 AND version_id = ?3")
            .bind(namespace.as_bytes().to_vec())
            .bind(node.as_bytes().to_vec())
            .bind(version_id.to_vec())
            .bind(label)
            .execute(&mut *self.tx)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }

    async fn drop_versions(&mut self, namespace: &NamespaceRow, versions: &[[u8; 16]], now_ms: i64) -> Result<Purged, StoreError> {
        purge::drop_versions(&mut self.tx, namespace, versions, now_ms).await
    }

    async fn set_retention(&mut self, namespace: NamespaceId, rule: Option<&str>) -> Result<(), StoreError> {
        sqlx::query("UPDATE namespaces SET retention = ?2 WHERE namespace_id = ?1")
            .bind(namespace.as_bytes().to_vec())
            .bind(rule)
            .execute(&mut *self.tx)
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn begin_retention(&mut self, namespace: NamespaceId, since_ms: i64, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE namespaces SET retained_at = ?3 WHERE namespace_id = ?1 AND retained_at <= ?2")
            .bind(namespace.as_bytes().to_vec())
            .bind(since_ms)
            .bind(now_ms)
            .execute(&mut *self.tx)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }
}
