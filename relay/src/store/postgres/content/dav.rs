//! Locks and properties of WebDAV clients. What writes holds the namespace (PG1).

use super::write::PgTx;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::Shard;
use crate::store::dav::{DavLockRow, DavPropRow, DavStore, DavTx};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, node as node_id, user};
use crate::store::postgres::{Postgres, store_error};
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::BTreeSet;

fn lock_row(row: &PgRow) -> Result<DavLockRow, StoreError> {
    Ok(DavLockRow {
        token: bytes(row, 0)?,
        path: row.try_get(1).map_err(store_error)?,
        user: user(row, 2)?,
        owner_xml: row.try_get(3).map_err(store_error)?,
        is_shared: row.try_get(4).map_err(store_error)?,
        is_deep: row.try_get(5).map_err(store_error)?,
        timeout_s: count(row, 6)?,
        expires_at_ms: row.try_get(7).map_err(store_error)?,
    })
}

async fn locks(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId) -> Result<Vec<DavLockRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT token, path, user_id, owner_xml, is_shared, is_deep, timeout_s, expires_at FROM dav_locks
         WHERE shard_key = $1 AND namespace_id = $2 ORDER BY token",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(lock_row).collect()
}

async fn props(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId, node: NodeId) -> Result<Vec<DavPropRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT prop_space, prop_name, value FROM dav_props WHERE shard_key = $1 AND namespace_id = $2 AND file_id = $3
         ORDER BY prop_space COLLATE \"C\", prop_name COLLATE \"C\"",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(node.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let prop = |row: &PgRow| Ok(DavPropRow { space: row.try_get(0)?, name: row.try_get(1)?, value: row.try_get(2)? });
    rows.iter().map(prop).collect::<Result<_, sqlx::Error>>().map_err(store_error)
}

#[async_trait]
impl DavStore for Postgres {
    async fn dav_locks(&self, namespace: NamespaceId) -> Result<Vec<DavLockRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        locks(&mut conn, shard, namespace).await
    }

    async fn dav_prop_nodes(&self, namespace: NamespaceId, limit: usize) -> Result<BTreeSet<NodeId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows =
            sqlx::query("SELECT DISTINCT file_id FROM dav_props WHERE shard_key = $1 AND namespace_id = $2 ORDER BY file_id LIMIT $3")
                .bind(key(shard))
                .bind(namespace.as_bytes().to_vec())
                .bind(signed(limit as u64))
                .fetch_all(&mut *conn)
                .await
                .map_err(store_error)?;
        rows.iter().map(|row| node_id(row, 0)).collect()
    }

    async fn dav_props(&self, namespace: NamespaceId, node: NodeId) -> Result<Vec<DavPropRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        props(&mut conn, shard, namespace, node).await
    }
}

#[async_trait]
impl DavTx for PgTx {
    async fn dav_locks(&mut self, namespace: NamespaceId) -> Result<Vec<DavLockRow>, StoreError> {
        let shard = self.shard;
        locks(self.conn(), shard, namespace).await
    }

    async fn put_dav_lock(&mut self, namespace: NamespaceId, lock: &DavLockRow) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query(
            "INSERT INTO dav_locks (shard_key, namespace_id, token, path, user_id, owner_xml, is_shared, is_deep, timeout_s, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (shard_key, namespace_id, token) DO UPDATE SET path = excluded.path, user_id = excluded.user_id,
             owner_xml = excluded.owner_xml, is_shared = excluded.is_shared, is_deep = excluded.is_deep, timeout_s = excluded.timeout_s,
             expires_at = excluded.expires_at",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(lock.token.to_vec())
        .bind(lock.path.clone())
        .bind(lock.user.as_bytes().to_vec())
        .bind(lock.owner_xml.clone())
        .bind(lock.is_shared)
        .bind(lock.is_deep)
        .bind(signed(lock.timeout_s))
        .bind(lock.expires_at_ms)
        .execute(self.conn())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn delete_dav_locks(&mut self, namespace: NamespaceId, tokens: &[[u8; 16]]) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query("DELETE FROM dav_locks WHERE shard_key = $1 AND namespace_id = $2 AND token = ANY($3)")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(tokens.iter().map(|token| token.to_vec()).collect::<Vec<_>>())
            .execute(self.conn())
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn dav_props(&mut self, namespace: NamespaceId, node: NodeId) -> Result<Vec<DavPropRow>, StoreError> {
        let shard = self.shard;
        props(self.conn(), shard, namespace, node).await
    }

    async fn dav_prop_count(&mut self, namespace: NamespaceId) -> Result<u64, StoreError> {
        let shard = self.shard;
        let row = sqlx::query("SELECT count(*) FROM dav_props WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_one(self.conn())
            .await
            .map_err(store_error)?;
        count(&row, 0)
    }

    async fn put_dav_prop(&mut self, namespace: NamespaceId, node: NodeId, prop: &DavPropRow) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query(
            "INSERT INTO dav_props (shard_key, namespace_id, file_id, prop_space, prop_name, value) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (shard_key, namespace_id, file_id, prop_space, prop_name) DO UPDATE SET value = excluded.value",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(node.as_bytes().to_vec())
        .bind(prop.space.clone())
        .bind(prop.name.clone())
        .bind(prop.value.clone())
        .execute(self.conn())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn delete_dav_prop(&mut self, namespace: NamespaceId, node: NodeId, space: &str, name: &str) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query(
            "DELETE FROM dav_props WHERE shard_key = $1 AND namespace_id = $2 AND file_id = $3 AND prop_space = $4 AND prop_name = $5",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(node.as_bytes().to_vec())
        .bind(space.to_owned())
        .bind(name.to_owned())
        .execute(self.conn())
        .await
        .map(drop)
        .map_err(store_error)
    }
}
