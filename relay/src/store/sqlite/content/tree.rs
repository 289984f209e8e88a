//! Where nodes stand in the shown tree.

use super::{BATCH, SqliteTx, bytes, nodes, signed};
use crate::store::StoreError;
use crate::store::content::NodeRow;
use crate::store::search::fold;
use crate::store::sqlite::{Sqlite, store_error};
use crate::store::tree::{ChildQuery, Order, PlacedNode, Stand, Standing, TreeStore, TreeTx};
use async_trait::async_trait;
use ferry_protocol::{Name, NamespaceId, NodeId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};
use std::collections::BTreeSet;

/// A node, then where it stands.
const PLACED: &str = "f.file_id, f.seq, f.created_at, f.updated_at, f.state, f.parent_id, f.file_name, f.standing, f.is_displaced,
    f.file_type = 'directory' AND f.is_deleted = 0";

fn name(row: &SqliteRow, column: usize) -> Result<Name, StoreError> {
    let raw: &[u8] = row.try_get(column).map_err(store_error)?;
    Name::new(raw).map_err(|e| StoreError::Corrupt(format!("a name in column {column}: {e}")))
}

/// From five columns and the node's id.
fn stand(row: &SqliteRow, node: NodeId, first: usize) -> Result<Stand, StoreError> {
    Ok(Stand {
        node,
        parent: NodeId::from_bytes(bytes(row, first)?),
        name: name(row, first + 1)?,
        standing: Standing::of_code(row.try_get(first + 2).map_err(store_error)?)?,
        is_displaced: row.try_get(first + 3).map_err(store_error)?,
        is_directory: row.try_get(first + 4).map_err(store_error)?,
    })
}

fn placed(row: &SqliteRow) -> Result<PlacedNode, StoreError> {
    let node = nodes::node_row(row)?;
    Ok(PlacedNode { stand: stand(row, node.id, 5)?, row: node })
}

fn push_ids(query: &mut QueryBuilder<sqlx::Sqlite>, ids: &[NodeId]) {
    let mut list = query.separated(',');
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
}

async fn children(conn: &mut SqliteConnection, namespace: NamespaceId, query: ChildQuery<'_>) -> Result<Vec<PlacedNode>, StoreError> {
    let (key, name) = query.bound();
    let clause = query.clause("?5", "?4");
    let of = "FROM files f WHERE namespace_id = ?1 AND parent_id = ?2";
    let sql = format!(
        "SELECT * FROM (SELECT {PLACED} {of} AND standing = 1 AND {clause} LIMIT ?3) UNION ALL SELECT {PLACED} {of} AND standing = 2"
    );
    let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(namespace.as_bytes().to_vec())
        .bind(query.parent.as_bytes().to_vec())
        .bind(signed(query.limit as u64))
        .bind(name);
    if query.order != Order::Name {
        statement = statement.bind(key);
    }
    statement.fetch_all(conn).await.map_err(store_error)?.iter().map(placed).collect()
}

async fn claims(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    parents: &[NodeId],
    contested_only: bool,
) -> Result<Vec<PlacedNode>, StoreError> {
    let mut out = Vec::new();
    for batch in parents.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(PLACED).push(" FROM files f WHERE namespace_id = ").push_bind(namespace.as_bytes().to_vec()).push(" AND parent_id IN (");
        push_ids(&mut query, batch);
        query.push(if contested_only { ") AND standing = 2" } else { ") AND standing > 0" });
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.push(placed(&row)?);
        }
    }
    Ok(out)
}

async fn with_shown_child(conn: &mut SqliteConnection, namespace: NamespaceId, ids: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError> {
    let mut out = BTreeSet::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new("WITH asked (id) AS (VALUES (");
        let mut list = query.separated("),(");
        for id in batch {
            list.push_bind(id.as_bytes().to_vec());
        }
        query.push(")) SELECT id FROM asked WHERE EXISTS (SELECT 1 FROM files WHERE namespace_id = ");
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND parent_id = id AND standing > 0)");
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.insert(NodeId::from_bytes(bytes(&row, 0)?));
        }
    }
    Ok(out)
}

#[async_trait]
impl TreeStore for Sqlite {
    async fn children(&self, namespace: NamespaceId, query: ChildQuery<'_>) -> Result<Vec<PlacedNode>, StoreError> {
        children(&mut *self.reader().acquire().await.map_err(store_error)?, namespace, query).await
    }

    async fn claims(&self, namespace: NamespaceId, parents: &[NodeId], contested_only: bool) -> Result<Vec<PlacedNode>, StoreError> {
        claims(&mut *self.reader().acquire().await.map_err(store_error)?, namespace, parents, contested_only).await
    }

    async fn named(&self, namespace: NamespaceId, parent: NodeId, name: &Name) -> Result<Vec<PlacedNode>, StoreError> {
        let sql = format!(
            "SELECT {PLACED} FROM files f WHERE namespace_id = ?1 AND parent_id = ?2 AND standing = 1 AND file_name = ?3
             UNION ALL SELECT {PLACED} FROM files f WHERE namespace_id = ?1 AND parent_id = ?2 AND standing = 2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(namespace.as_bytes().to_vec())
            .bind(parent.as_bytes().to_vec())
            .bind(name.as_bytes().to_vec())
            .fetch_all(self.reader())
            .await
            .map_err(store_error)?;
        rows.iter().map(placed).collect()
    }

    async fn taken(&self, namespace: NamespaceId, parent: NodeId, names: &BTreeSet<Name>) -> Result<BTreeSet<Name>, StoreError> {
        let mut out = BTreeSet::new();
        let names: Vec<&Name> = names.iter().collect();
        for batch in names.chunks(BATCH) {
            let mut query = QueryBuilder::new("SELECT file_name FROM files WHERE namespace_id = ");
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND parent_id = ").push_bind(parent.as_bytes().to_vec());
            query.push(" AND standing = 1 AND file_name IN (");
            let mut list = query.separated(',');
            for name in batch {
                list.push_bind(name.as_bytes().to_vec());
            }
            query.push(")");
            for row in query.build().fetch_all(self.reader()).await.map_err(store_error)? {
                out.insert(name(&row, 0)?);
            }
        }
        Ok(out)
    }

    async fn line(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError> {
        let mut out: Vec<PlacedNode> = Vec::new();
        for batch in ids.chunks(BATCH) {
            // Most of them stand in few directories: what is above is looked up once, not once for each.
            let mut query = QueryBuilder::new("WITH RECURSIVE own AS MATERIALIZED (SELECT ");
            query.push(PLACED).push(" FROM files f WHERE f.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
            query.push(" AND f.file_id IN (");
            push_ids(&mut query, batch);
            // CROSS JOIN: what is above comes first. SQLite knows no figures, and would read all of the namespace and look each up there.
            query.push(
                ")), above (id) AS (SELECT parent_id FROM own UNION SELECT u.parent_id FROM above CROSS JOIN files u ON u.namespace_id = ",
            );
            query
                .push_bind(namespace.as_bytes().to_vec())
                .push(" AND u.file_id = above.id) SELECT * FROM own UNION ALL SELECT ")
                .push(PLACED);
            query.push(" FROM above CROSS JOIN files f ON f.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
            query.push(" AND f.file_id = above.id WHERE above.id NOT IN (SELECT file_id FROM own)");
            for row in query.build().fetch_all(self.reader()).await.map_err(store_error)? {
                out.push(placed(&row)?);
            }
        }
        Ok(out)
    }

    async fn subtree(&self, namespace: NamespaceId, ids: &[NodeId], limit: usize) -> Result<Vec<PlacedNode>, StoreError> {
        let mut out: Vec<PlacedNode> = Vec::new();
        for batch in ids.chunks(BATCH) {
            let mut query = QueryBuilder::new("WITH RECURSIVE below (id) AS (SELECT file_id FROM files WHERE namespace_id = ");
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND standing > 0 AND parent_id IN (");
            push_ids(&mut query, batch);
            query.push(") UNION SELECT d.file_id FROM below JOIN files d ON d.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
            query.push(" AND d.parent_id = below.id AND d.standing > 0 LIMIT ").push_bind(signed(limit.saturating_sub(out.len()) as u64));
            query.push(") SELECT ").push(PLACED).push(" FROM below CROSS JOIN files f ON f.namespace_id = ");
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND f.file_id = below.id");
            for row in query.build().fetch_all(self.reader()).await.map_err(store_error)? {
                out.push(placed(&row)?);
            }
        }
        Ok(out)
    }

    async fn with_shown_child(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError> {
        with_shown_child(&mut *self.reader().acquire().await.map_err(store_error)?, namespace, ids).await
    }

    async fn is_contested(&self, namespace: NamespaceId) -> Result<bool, StoreError> {
        // Said which index, because SQLite knows no figures and would read all that is shown.
        let found = sqlx::query("SELECT 1 FROM files INDEXED BY files_contested WHERE namespace_id = ?1 AND standing = 2 LIMIT 1")
            .bind(namespace.as_bytes().to_vec())
            .fetch_optional(self.reader())
            .await
            .map_err(store_error)?;
        Ok(found.is_some())
    }
}

const STAND: &str = "SELECT file_id, parent_id, file_name, standing, is_displaced, file_type = 'directory' AND is_deleted = 0 FROM files
    WHERE namespace_id = ";

fn stand_of(row: &SqliteRow) -> Result<Stand, StoreError> {
    stand(row, NodeId::from_bytes(bytes(row, 0)?), 1)
}

#[async_trait]
impl TreeTx for SqliteTx {
    async fn all_nodes(&mut self, namespace: NamespaceId) -> Result<Vec<NodeRow>, StoreError> {
        nodes::feed(self.conn(), namespace, 0, usize::MAX, usize::MAX).await
    }

    async fn placed(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<PlacedNode>, StoreError> {
        let mut out = Vec::new();
        for batch in ids.chunks(BATCH) {
            let mut query = QueryBuilder::new("SELECT ");
            query
                .push(PLACED)
                .push(" FROM files f WHERE namespace_id = ")
                .push_bind(namespace.as_bytes().to_vec())
                .push(" AND file_id IN (");
            push_ids(&mut query, batch);
            query.push(")");
            for row in query.build().fetch_all(self.conn()).await.map_err(store_error)? {
                out.push(placed(&row)?);
            }
        }
        Ok(out)
    }

    async fn stands(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<Stand>, StoreError> {
        let mut out = Vec::new();
        for batch in ids.chunks(BATCH) {
            let mut query = QueryBuilder::new(STAND);
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND file_id IN (");
            push_ids(&mut query, batch);
            query.push(")");
            for row in query.build().fetch_all(self.conn()).await.map_err(store_error)? {
                out.push(stand_of(&row)?);
            }
        }
        Ok(out)
    }

    async fn displaced(&mut self, namespace: NamespaceId) -> Result<Vec<Stand>, StoreError> {
        let mut query = QueryBuilder::new(STAND);
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND is_displaced = 1");
        query.build().fetch_all(self.conn()).await.map_err(store_error)?.iter().map(stand_of).collect()
    }

    async fn crowded(&mut self, namespace: NamespaceId, places: &[(NodeId, Name)]) -> Result<Vec<PlacedNode>, StoreError> {
        let mut out = Vec::new();
        for batch in places.chunks(BATCH / 2) {
            let mut query = QueryBuilder::new("WITH asked (parent, name) AS (");
            query.push_values(batch, |mut b, (parent, name)| {
                b.push_bind(parent.as_bytes().to_vec()).push_bind(name.as_bytes().to_vec());
            });
            // CROSS JOIN: the asked places come first, and each is one look into the index.
            query.push("), crowd (parent, name) AS (SELECT parent, name FROM asked CROSS JOIN files g WHERE g.namespace_id = ");
            query.push_bind(namespace.as_bytes().to_vec());
            query.push(
                " AND g.parent_id = parent AND g.standing IN (1, 2) AND g.file_name = name GROUP BY parent, name
                 HAVING count(*) > 1 OR max(g.standing) = 2) SELECT ",
            );
            query.push(PLACED).push(" FROM crowd CROSS JOIN files f WHERE f.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
            query.push(" AND f.parent_id = parent AND f.standing IN (1, 2) AND f.file_name = name");
            for row in query.build().fetch_all(self.conn()).await.map_err(store_error)? {
                out.push(placed(&row)?);
            }
        }
        Ok(out)
    }

    async fn with_shown_child(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<BTreeSet<NodeId>, StoreError> {
        with_shown_child(self.conn(), namespace, ids).await
    }

    async fn set_stands(&mut self, namespace: NamespaceId, stands: &[Stand]) -> Result<(), StoreError> {
        for one in stands {
            sqlx::query(
                "UPDATE files SET parent_id = ?3, file_name = ?4, standing = ?5, is_displaced = ?6, search_name = ?7 WHERE namespace_id = ?1 AND file_id = ?2",
            )
            .bind(namespace.as_bytes().to_vec())
            .bind(one.node.as_bytes().to_vec())
            .bind(one.parent.as_bytes().to_vec())
            .bind(one.name.as_bytes().to_vec())
            .bind(one.standing.code())
            .bind(one.is_displaced)
            .bind(fold(one.name.as_bytes()))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        }
        Ok(())
    }

    async fn set_settled(&mut self, namespace: NamespaceId, seq: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE namespaces SET settled_seq = ?2 WHERE namespace_id = ?1")
            .bind(namespace.as_bytes().to_vec())
            .bind(signed(seq))
            .execute(self.conn())
            .await
            .map(drop)
            .map_err(store_error)
    }
}
