//! Search by name: one look through the index of a namespace's names, which holds all that is asked about.

use super::{BATCH, SqliteTx, bytes, signed};
use crate::store::StoreError;
use crate::store::search::{Kind, NameHit, NameQuery, SearchStore, SearchTx, fold};
use crate::store::sqlite::{Sqlite, store_error};
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId};
use sqlx::{QueryBuilder, Row, SqliteConnection};

type Builder = QueryBuilder<sqlx::Sqlite>;

/// Whether every name is as it is searched (SN1).
async fn is_folded(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM namespaces WHERE namespace_id = ?1 AND folded_seq = head_seq")
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    Ok(row.is_some())
}

fn push_ids(sql: &mut Builder, ids: &[NodeId]) {
    let mut list = sql.separated(',');
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
}

/// The directories below others as `below`, those themselves among them. What is contested may be a directory whatever its column says.
fn push_below(sql: &mut Builder, namespace: NamespaceId, tops: &[NodeId]) {
    sql.push("WITH RECURSIVE dirs (id, parent) AS MATERIALIZED (SELECT file_id, parent_id FROM files WHERE namespace_id = ");
    sql.push_bind(namespace.as_bytes().to_vec()).push(" AND standing = 1 AND file_type = 'directory' UNION ALL ");
    sql.push("SELECT file_id, parent_id FROM files WHERE namespace_id = ").push_bind(namespace.as_bytes().to_vec());
    sql.push(" AND standing = 2), below (id) AS (SELECT * FROM (VALUES ");
    let mut list = sql.separated(',');
    for id in tops {
        list.push("(").push_bind_unseparated(id.as_bytes().to_vec()).push_unseparated(")");
    }
    sql.push(") UNION SELECT dirs.id FROM below JOIN dirs ON dirs.parent = below.id) ");
}

fn push_kind(sql: &mut Builder, kind: Kind) {
    match kind {
        Kind::Any => {}
        Kind::Directory => _ = sql.push(" AND file_type = 'directory'"),
        Kind::Symlink => _ = sql.push(" AND file_type = 'symlink'"),
        Kind::File | Kind::Ending(_) => _ = sql.push(" AND file_type NOT IN ('directory', 'symlink')"),
    }
    let groups = kind.endings_by_length();
    for (n, (length, endings)) in groups.iter().enumerate() {
        sql.push(if n == 0 { " AND (" } else { " OR " }).push(format!("substr(search_name, -{length}) IN ("));
        let mut list = sql.separated(',');
        for ending in endings {
            list.push_bind(*ending);
        }
        sql.push(if n + 1 == groups.len() { "))" } else { ")" });
    }
}

fn push_rank(sql: &mut Builder, text: &str) {
    if text.is_empty() {
        sql.push("2");
        return;
    }
    // Most names do not begin so: that is asked first.
    let length = text.chars().count();
    sql.push(format!("CASE WHEN substr(search_name, 1, {length}) <> ")).push_bind(text.to_owned());
    sql.push(" THEN 2 WHEN search_name = ").push_bind(text.to_owned());
    sql.push(format!(
        " OR (substr(search_name, {}, 1) = '.' AND instr(substr(search_name, {}), '.') = 0) THEN 0 ELSE 1 END",
        length + 1,
        length + 2
    ));
}

#[async_trait]
impl SearchStore for Sqlite {
    async fn search_names(&self, namespace: NamespaceId, query: &NameQuery<'_>) -> Result<Option<Vec<NameHit>>, StoreError> {
        let mut conn = self.reader().acquire().await.map_err(store_error)?;
        if !is_folded(&mut conn, namespace).await? {
            return Ok(None);
        }
        let mut sql = Builder::new("");
        if let Some(tops) = query.below {
            push_below(&mut sql, namespace, tops);
        }
        sql.push("SELECT file_id, rank, updated_at FROM (SELECT file_id, updated_at, ");
        push_rank(&mut sql, query.text);
        sql.push(" AS rank FROM files INDEXED BY files_search WHERE namespace_id = ").push_bind(namespace.as_bytes().to_vec());
        sql.push(" AND standing = 1");
        push_kind(&mut sql, query.kind);
        for word in query.words {
            sql.push(" AND instr(search_name, ").push_bind(word.clone()).push(") > 0");
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
            sql.push(" AND parent_id NOT IN (");
            push_ids(&mut sql, query.not_in);
            sql.push(")");
        }
        if query.below.is_some() {
            sql.push(" AND parent_id IN (SELECT id FROM below)");
        }
        sql.push(")");
        if let Some((rank, newest, node)) = query.bound() {
            sql.push(" WHERE (rank, -updated_at, file_id) >= (").push_bind(rank).push(", ").push_bind(newest).push(", ");
            sql.push_bind(node).push(")");
        }
        sql.push(" ORDER BY rank, -updated_at, file_id LIMIT ").push_bind(signed(query.limit as u64));
        let rows = sql.build().fetch_all(&mut *conn).await.map_err(store_error)?;
        let hit = |row: &sqlx::sqlite::SqliteRow| {
            let rank: i64 = row.try_get(1).map_err(store_error)?;
            let updated_at_ms = row.try_get(2).map_err(store_error)?;
            Ok(NameHit { node: NodeId::from_bytes(bytes(row, 0)?), rank: u8::try_from(rank).unwrap_or(u8::MAX), updated_at_ms })
        };
        rows.iter().map(hit).collect::<Result<_, _>>().map(Some)
    }

    async fn contested_parents(&self, namespace: NamespaceId) -> Result<Vec<NodeId>, StoreError> {
        let sql = "SELECT DISTINCT parent_id FROM files INDEXED BY files_contested WHERE namespace_id = ?1 AND standing = 2";
        let rows = sqlx::query(sql).bind(namespace.as_bytes().to_vec()).fetch_all(self.reader()).await.map_err(store_error)?;
        rows.iter().map(|row| Ok(NodeId::from_bytes(bytes(row, 0)?))).collect()
    }
}

#[async_trait]
impl SearchTx for SqliteTx {
    async fn fold_names(&mut self, namespace: NamespaceId) -> Result<u64, StoreError> {
        let (mut after, mut changed) = (Vec::new(), 0);
        loop {
            let rows = sqlx::query(
                "SELECT file_id, file_name, search_name FROM files WHERE namespace_id = ?1 AND file_id > ?2 ORDER BY file_id LIMIT ?3",
            )
            .bind(namespace.as_bytes().to_vec())
            .bind(after.clone())
            .bind(BATCH as i64)
            .fetch_all(self.conn())
            .await
            .map_err(store_error)?;
            for row in &rows {
                after = row.try_get(0).map_err(store_error)?;
                let folded = fold(row.try_get(1).map_err(store_error)?);
                if row.try_get::<&str, _>(2).map_err(store_error)? == folded {
                    continue;
                }
                changed += sqlx::query("UPDATE files SET search_name = ?3 WHERE namespace_id = ?1 AND file_id = ?2")
                    .bind(namespace.as_bytes().to_vec())
                    .bind(after.clone())
                    .bind(folded)
                    .execute(self.conn())
                    .await
                    .map_err(store_error)?
                    .rows_affected();
            }
            if rows.len() < BATCH {
                break;
            }
        }
        sqlx::query("UPDATE namespaces SET folded_seq = head_seq WHERE namespace_id = ?1")
            .bind(namespace.as_bytes().to_vec())
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(changed)
    }
}
