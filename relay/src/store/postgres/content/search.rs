//! Search by name: one look through the index of a namespace's names, which holds all that is asked about.

use super::BATCH;
use super::write::PgTx;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::Shard;
use crate::store::postgres::places::key;
use crate::store::postgres::rows::node as node_id;
use crate::store::postgres::{Postgres, store_error};
use crate::store::search::{Kind, NameHit, NameQuery, SearchStore, SearchTx, fold};
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId};
use sqlx::{PgConnection, QueryBuilder, Row};

type Builder = QueryBuilder<sqlx::Postgres>;

/// Whether every name is as it is searched (SN1).
async fn is_folded(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM namespaces WHERE shard_key = $1 AND namespace_id = $2 AND folded_seq = head_seq")
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    Ok(row.is_some())
}

fn raw(ids: &[NodeId]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.as_bytes().to_vec()).collect()
}

fn push_place(sql: &mut Builder, shard: Shard, namespace: NamespaceId) {
    sql.push(" FROM files WHERE shard_key = ").push_bind(key(shard)).push(" AND namespace_id = ").push_bind(namespace.as_bytes().to_vec());
}

/// The directories below others as `below`, those themselves among them. What is contested may be a directory whatever its column says.
fn push_below(sql: &mut Builder, shard: Shard, namespace: NamespaceId, tops: &[NodeId]) {
    sql.push("WITH RECURSIVE dirs (id, parent) AS MATERIALIZED (SELECT file_id, parent_id");
    push_place(sql, shard, namespace);
    sql.push(" AND (standing = 1 AND file_type = 'directory' OR standing = 2)), below (id) AS (SELECT UNNEST(").push_bind(raw(tops));
    sql.push("::bytea[]) UNION SELECT dirs.id FROM below JOIN dirs ON dirs.parent = below.id) ");
}

fn push_kind(sql: &mut Builder, kind: Kind) {
    match kind {
        Kind::Any => {}
        Kind::Directory => _ = sql.push(" AND file_type = 'directory'"),
        Kind::Symlink => _ = sql.push(" AND file_type = 'symlink'"),
        Kind::File | Kind::Ending(_) => _ = sql.push(" AND file_type NOT IN ('directory', 'symlink')"),
    }
    let endings = kind.endings_by_length();
    for (n, (length, list)) in endings.iter().enumerate() {
        sql.push(if n == 0 { " AND (" } else { " OR " }).push(format!("right(search_name, {length}) = ANY("));
        sql.push_bind(list.clone()).push(if n + 1 == endings.len() { "))" } else { ")" });
    }
}

fn push_rank(sql: &mut Builder, text: &str) {
    if text.is_empty() {
        sql.push("2::bigint");
        return;
    }
    // Most names do not begin so: that is asked first.
    let length = text.chars().count();
    sql.push("CASE WHEN NOT starts_with(search_name, ").push_bind(text.to_owned()).push(") THEN 2::bigint WHEN search_name = ");
    sql.push_bind(text.to_owned());
    sql.push(format!(" OR (substr(search_name, {}, 1) = '.' AND strpos(substr(search_name, {}), '.') = 0)", length + 1, length + 2));
    sql.push(" THEN 0::bigint ELSE 1::bigint END");
}

#[async_trait]
impl SearchStore for Postgres {
    async fn search_names(&self, namespace: NamespaceId, query: &NameQuery<'_>) -> Result<Option<Vec<NameHit>>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        if !is_folded(&mut conn, shard, namespace).await? {
            return Ok(None);
        }
        let mut sql = Builder::new("");
        if let Some(tops) = query.below {
            push_below(&mut sql, shard, namespace, tops);
        }
        sql.push("SELECT file_id, rank, updated_at FROM (SELECT file_id, updated_at, ");
        push_rank(&mut sql, query.text);
        sql.push(" AS rank");
        push_place(&mut sql, shard, namespace);
        sql.push(" AND standing = 1");
        push_kind(&mut sql, query.kind);
        for word in query.words {
            sql.push(" AND strpos(search_name, ").push_bind(word.clone()).push(") > 0");
        }
        if let Some(min) = query.min_size {
            sql.push(" AND file_size >= ").push_bind(signed(min));
        }
        if let Some(max) = query.max_size {
            sql.push(" AND file_size <= ").push_bind(signed(max));
        }
        if let Some(since) = query.since_ms {
            sql.push(" AND updated_at >= ").push_bind(since);
        }
        if !query.not_in.is_empty() {
            sql.push(" AND parent_id <> ALL(").push_bind(raw(query.not_in)).push(")");
        }
        if query.below.is_some() {
            sql.push(" AND parent_id IN (SELECT id FROM below)");
        }
        sql.push(") AS hits");
        if let Some((rank, newest, node)) = query.bound() {
            sql.push(" WHERE (rank, -updated_at, file_id) >= (").push_bind(rank).push(", ").push_bind(newest).push(", ");
            sql.push_bind(node).push(")");
        }
        sql.push(" ORDER BY rank, -updated_at, file_id LIMIT ").push_bind(signed(query.limit as u64));
        let rows = sql.build().fetch_all(&mut *conn).await.map_err(store_error)?;
        let hit = |row: &sqlx::postgres::PgRow| {
            let rank: i64 = row.try_get(1).map_err(store_error)?;
            let updated_at_ms = row.try_get(2).map_err(store_error)?;
            Ok(NameHit { node: node_id(row, 0)?, rank: u8::try_from(rank).unwrap_or(u8::MAX), updated_at_ms })
        };
        rows.iter().map(hit).collect::<Result<_, _>>().map(Some)
    }

    async fn contested_parents(&self, namespace: NamespaceId) -> Result<Vec<NodeId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let rows = sqlx::query("SELECT DISTINCT parent_id FROM files WHERE shard_key = $1 AND namespace_id = $2 AND standing = 2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(|row| node_id(row, 0)).collect()
    }
}

#[async_trait]
impl SearchTx for PgTx {
    async fn fold_names(&mut self, namespace: NamespaceId) -> Result<u64, StoreError> {
        let shard = self.shard;
        let (mut after, mut changed) = (Vec::new(), 0);
        loop {
            let rows = sqlx::query(
                "SELECT file_id, file_name, search_name FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id > $3
                 ORDER BY file_id LIMIT $4",
            )
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(after.clone())
            .bind(signed(BATCH as u64))
            .fetch_all(self.conn())
            .await
            .map_err(store_error)?;
            let (mut ids, mut names): (Vec<Vec<u8>>, Vec<String>) = (Vec::new(), Vec::new());
            for row in &rows {
                after = row.try_get(0).map_err(store_error)?;
                let folded = fold(row.try_get(1).map_err(store_error)?);
                if row.try_get::<&str, _>(2).map_err(store_error)? != folded {
                    ids.push(after.clone());
                    names.push(folded);
                }
            }
            if !ids.is_empty() {
                changed += sqlx::query(
                    "UPDATE files SET search_name = t.name FROM UNNEST($3::bytea[], $4::text[]) AS t (id, name)
                     WHERE shard_key = $1 AND namespace_id = $2 AND file_id = t.id",
                )
                .bind(key(shard))
                .bind(namespace.as_bytes().to_vec())
                .bind(ids)
                .bind(names)
                .execute(self.conn())
                .await
                .map_err(store_error)?
                .rows_affected();
            }
            if rows.len() < BATCH {
                break;
            }
        }
        sqlx::query("UPDATE namespaces SET folded_seq = head_seq WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(changed)
    }
}
