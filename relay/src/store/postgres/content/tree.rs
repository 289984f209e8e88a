//! Where nodes stand in the shown tree.

use super::write::PgTx;
use super::{BATCH, nodes};
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{NodeRow, Shard};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::node as node_id;
use crate::store::postgres::{Postgres, store_error};
use crate::store::search::fold;
use crate::store::tree::{ChildQuery, Order, PlacedNode, Stand, Standing, TreeStore, TreeTx};
use async_trait::async_trait;
use ferry_protocol::{Name, NamespaceId, NodeId};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::BTreeSet;

/// A node, then where it stands.
const PLACED: &str = "f.file_id, f.seq, f.created_at, f.updated_at, f.state, f.parent_id, f.file_name, f.standing, f.is_displaced,
    f.file_type = 'directory' AND NOT f.is_deleted";

/// The row of each node of `line`. A subquery that PostgreSQL looks into for each of them: it cannot know how many a recursion finds, and would rather read
/// the whole table.
const BY_ID: &str = "CROSS JOIN LATERAL (SELECT * FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id = line.id OFFSET 0) f";

fn name(row: &PgRow, column: usize) -> Result<Name, StoreError> {
    let raw: &[u8] = row.try_get(column).map_err(store_error)?;
    Name::new(raw).map_err(|e| StoreError::Corrupt(format!("a name in column {column}: {e}")))
}

/// From five columns and the node's id.
fn stand(row: &PgRow, node: NodeId, first: usize) -> Result<Stand, StoreError> {
    Ok(Stand {
        node,
        parent: node_id(row, first)?,
        name: name(row, first + 1)?,
        standing: Standing::of_code(row.try_get(first + 2).map_err(store_error)?)?,
        is_displaced: row.try_get(first + 3).map_err(store_error)?,
        is_directory: row.try_get(first + 4).map_err(store_error)?,
    })
}

fn placed(row: &PgRow) -> Result<PlacedNode, StoreError> {
    let node = nodes::node_row(row)?;
    Ok(PlacedNode { stand: stand(row, node.id, 5)?, row: node })
}

fn raw(ids: &[NodeId]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.as_bytes().to_vec()).collect()
}

async fn with_shown_child(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    ids: &[NodeId],
) -> Result<BTreeSet<NodeId>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM UNNEST($3::bytea[]) AS asked (id) WHERE EXISTS
         (SELECT 1 FROM files WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = id AND standing > 0)",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(raw(ids))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| node_id(row, 0)).collect()
}

#[async_trait]
impl TreeStore for Postgres {
    async fn children(&self, namespace: NamespaceId, query: ChildQuery<'_>) -> Result<Vec<PlacedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let (bound, name) = query.bound();
        let clause = query.clause("$6", "$5");
        let of = "FROM files f WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = $3";
        let sql = format!("(SELECT {PLACED} {of} AND standing = 1 AND {clause} LIMIT $4) UNION ALL SELECT {PLACED} {of} AND standing = 2");
        let mut statement = sqlx::query(AssertSqlSafe(sql))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(query.parent.as_bytes().to_vec())
            .bind(signed(query.limit as u64))
            .bind(name);
        if query.order != Order::Name {
            statement = statement.bind(bound);
        }
        statement.fetch_all(&mut *conn).await.map_err(store_error)?.iter().map(placed).collect()
    }

    async fn claims(&self, namespace: NamespaceId, parents: &[NodeId], contested_only: bool) -> Result<Vec<PlacedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let which = if contested_only { "standing = 2" } else { "standing > 0" };
        let sql = format!("SELECT {PLACED} FROM files f WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = ANY($3) AND {which}");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(raw(parents))
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(placed).collect()
    }

    async fn named(&self, namespace: NamespaceId, parent: NodeId, name: &Name) -> Result<Vec<PlacedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let of = "FROM files f WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = $3";
        let sql = format!("SELECT {PLACED} {of} AND standing = 1 AND file_name = $4 UNION ALL SELECT {PLACED} {of} AND standing = 2");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(parent.as_bytes().to_vec())
            .bind(name.as_bytes().to_vec())
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(placed).collect()
    }

    async fn taken(&self, namespace: NamespaceId, parent: NodeId, names: &BTreeSet<Name>) -> Result<BTreeSet<Name>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows = sqlx::query(
            "SELECT file_name FROM files WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = $3 AND standing = 1 AND file_name = ANY($4)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(parent.as_bytes().to_vec())
        .bind(names.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| name(row, 0)).collect()
    }

    async fn line(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        // Most of them stand in few directories: what is above is looked up once, not once for each.
        let sql = format!(
            "WITH RECURSIVE own AS MATERIALIZED (SELECT {PLACED} FROM files f WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)),
             above (id) AS (
                SELECT parent_id FROM own UNION SELECT u.parent_id FROM above CROSS JOIN LATERAL
                    (SELECT parent_id FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id = above.id OFFSET 0) u),
             line (id) AS (SELECT id FROM above WHERE id <> ALL($3))
             SELECT * FROM own UNION ALL SELECT {PLACED} FROM line {BY_ID}"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(raw(ids))
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(placed).collect()
    }

    async fn subtree(&self, namespace: NamespaceId, ids: &[NodeId], limit: usize) -> Result<Vec<PlacedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        // PostgreSQL stops the recursion when the outer LIMIT has its rows.
        let sql = format!(
            "WITH RECURSIVE below (id) AS (
                SELECT file_id FROM files WHERE shard_key = $1 AND namespace_id = $2 AND standing > 0 AND parent_id = ANY($3)
                UNION SELECT d.file_id FROM below CROSS JOIN LATERAL
                    (SELECT file_id FROM files WHERE shard_key = $1 AND namespace_id = $2 AND parent_id = below.id AND standing > 0 OFFSET 0) d),
             line (id) AS MATERIALIZED (SELECT id FROM below LIMIT $4)
             SELECT {PLACED} FROM line {BY_ID}"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(raw(ids))
            .bind(signed(limit as u64))
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(placed).collect()
    }

    async fn with_shown_child(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        with_shown_child(&mut conn, shard, namespace, ids).await
    }

    async fn is_contested(&self, namespace: NamespaceId) -> Result<bool, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let found = sqlx::query("SELECT 1 FROM files WHERE shard_key = $1 AND namespace_id = $2 AND standing = 2 LIMIT 1")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?;
        Ok(found.is_some())
    }
}

const STAND: &str = "SELECT file_id, parent_id, file_name, standing, is_displaced, file_type = 'directory' AND NOT is_deleted FROM files
    WHERE shard_key = $1 AND namespace_id = $2";

fn stand_of(row: &PgRow) -> Result<Stand, StoreError> {
    stand(row, node_id(row, 0)?, 1)
}

#[async_trait]
impl TreeTx for PgTx {
    async fn all_nodes(&mut self, namespace: NamespaceId) -> Result<Vec<NodeRow>, StoreError> {
        let shard = self.shard;
        nodes::feed(self.conn(), shard, namespace, 0, usize::MAX, usize::MAX).await
    }

    async fn placed(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError> {
        let shard = self.shard;
        let sql = format!("SELECT {PLACED} FROM files f WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)");
        let mut out = Vec::new();
        for batch in ids.chunks(BATCH) {
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(key(shard))
                .bind(namespace.as_bytes().to_vec())
                .bind(raw(batch))
                .fetch_all(self.conn())
                .await
                .map_err(store_error)?;
            for row in &rows {
                out.push(placed(row)?);
            }
        }
        Ok(out)
    }

    async fn stands(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<Stand>, StoreError> {
        let shard = self.shard;
        let rows = sqlx::query(AssertSqlSafe(format!("{STAND} AND file_id = ANY($3)")))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(raw(ids))
            .fetch_all(self.conn())
            .await
            .map_err(store_error)?;
        rows.iter().map(stand_of).collect()
    }

    async fn displaced(&mut self, namespace: NamespaceId) -> Result<Vec<Stand>, StoreError> {
        let shard = self.shard;
        let rows = sqlx::query(AssertSqlSafe(format!("{STAND} AND is_displaced")))
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_all(self.conn())
            .await
            .map_err(store_error)?;
        rows.iter().map(stand_of).collect()
    }

    async fn crowded(&mut self, namespace: NamespaceId, places: &[(NodeId, Name)]) -> Result<Vec<PlacedNode>, StoreError> {
        let shard = self.shard;
        let sql = format!(
            "WITH crowd (parent, name) AS MATERIALIZED (
                SELECT asked.parent, asked.name FROM UNNEST($3::bytea[], $4::bytea[]) AS asked (parent, name)
                CROSS JOIN LATERAL (SELECT count(*) AS number, max(standing) AS most FROM files WHERE shard_key = $1 AND namespace_id = $2
                    AND parent_id = asked.parent AND standing IN (1, 2) AND file_name = asked.name) AS there
                WHERE there.number > 1 OR there.most = 2)
             SELECT {PLACED} FROM crowd JOIN files f ON f.shard_key = $1 AND f.namespace_id = $2 AND f.parent_id = crowd.parent
                AND f.standing IN (1, 2) AND f.file_name = crowd.name"
        );
        let mut out = Vec::new();
        for batch in places.chunks(BATCH) {
            let (parents, names): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
                batch.iter().map(|(parent, name)| (parent.as_bytes().to_vec(), name.as_bytes().to_vec())).unzip();
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(key(shard))
                .bind(namespace.as_bytes().to_vec())
                .bind(parents)
                .bind(names)
                .fetch_all(self.conn())
                .await
                .map_err(store_error)?;
            for row in &rows {
                out.push(placed(row)?);
            }
        }
        Ok(out)
    }

    async fn with_shown_child(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError> {
        let shard = self.shard;
        with_shown_child(self.conn(), shard, namespace, ids).await
    }

    async fn set_stands(&mut self, namespace: NamespaceId, stands: &[Stand]) -> Result<(), StoreError> {
        let shard = self.shard;
        for batch in stands.chunks(BATCH) {
            sqlx::query(
                "UPDATE files SET parent_id = t.parent, file_name = t.name, standing = t.standing, is_displaced = t.displaced,
                 search_name = t.folded
                 FROM UNNEST($3::bytea[], $4::bytea[], $5::bytea[], $6::smallint[], $7::boolean[], $8::text[])
                 AS t (id, parent, name, standing, displaced, folded)
                 WHERE shard_key = $1 AND namespace_id = $2 AND file_id = t.id",
            )
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(batch.iter().map(|s| s.node.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(batch.iter().map(|s| s.parent.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(batch.iter().map(|s| s.name.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(batch.iter().map(|s| s.standing.code()).collect::<Vec<_>>())
            .bind(batch.iter().map(|s| s.is_displaced).collect::<Vec<_>>())
            .bind(batch.iter().map(|s| fold(s.name.as_bytes())).collect::<Vec<_>>())
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        }
        Ok(())
    }

    async fn set_settled(&mut self, namespace: NamespaceId, seq: u64) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query("UPDATE namespaces SET settled_seq = $3 WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(signed(seq))
            .execute(self.conn())
            .await
            .map(drop)
            .map_err(store_error)
    }
}
