//! Statements that set right what verification found. The transaction is the only writer.

use super::signed;
use crate::store::StoreError;
use crate::store::content::ChunkLocation;
use crate::store::sqlite::store_error;
use sqlx::SqliteConnection;

pub(super) async fn recount(conn: &mut SqliteConnection) -> Result<(u64, u64), StoreError> {
    let refs = sqlx::query(
        "UPDATE namespace_chunks AS n SET refs = w.refs FROM
            (SELECT h.namespace_id, h.chunk_hash, coalesce(t.refs, 0) AS refs FROM namespace_chunks h LEFT JOIN
                (SELECT v.namespace_id, fc.chunk_hash, count(*) AS refs FROM file_chunks fc JOIN file_versions v USING (version_id) GROUP BY 1, 2) t
                ON t.namespace_id = h.namespace_id AND t.chunk_hash = h.chunk_hash WHERE h.refs <> coalesce(t.refs, 0)) w
         WHERE w.namespace_id = n.namespace_id AND w.chunk_hash = n.chunk_hash",
    );
    let refs = refs.execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    let usage = sqlx::query(
        "UPDATE users AS o SET storage_used = w.used FROM
            (SELECT u.user_id, coalesce(t.used, 0) AS used FROM users u LEFT JOIN
                (SELECT s.owner_id, sum(c.length) AS used FROM namespace_chunks n JOIN namespaces s USING (namespace_id)
                 JOIN chunks c USING (chunk_hash) GROUP BY 1) t ON t.owner_id = u.user_id WHERE u.storage_used <> coalesce(t.used, 0)) w
         WHERE w.user_id = o.user_id",
    );
    let usage = usage.execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    Ok((refs, usage))
}

pub(super) async fn mark_sound(conn: &mut SqliteConnection, chunks: &[ChunkLocation]) -> Result<u64, StoreError> {
    let mut marked = 0;
    for chunk in chunks {
        let healed = sqlx::query(
            "UPDATE chunks SET damaged_at = NULL WHERE chunk_hash = ?1 AND pack_id = ?2 AND offset = ?3 AND damaged_at IS NOT NULL",
        );
        let healed = healed.bind(chunk.id.as_bytes().to_vec()).bind(chunk.pack.0.to_vec()).bind(signed(chunk.offset));
        marked += healed.execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    }
    Ok(marked)
}
