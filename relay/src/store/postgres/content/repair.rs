//! Statements that set right what verification found.

use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{ChunkLocation, Shard};
use crate::store::postgres::places::key;
use crate::store::postgres::store_error;
use sqlx::PgConnection;

pub(super) async fn recount(conn: &mut PgConnection, shard: Shard) -> Result<(u64, u64), StoreError> {
    // What is counted must not change until the counts are written: writers wait, readers do not.
    let lock = sqlx::query("LOCK TABLE file_chunks, file_versions, namespace_chunks, chunks, owners IN SHARE ROW EXCLUSIVE MODE");
    lock.execute(&mut *conn).await.map_err(store_error)?;
    let refs = sqlx::query(
        "UPDATE namespace_chunks AS n SET refs = w.refs FROM
            (SELECT h.namespace_id, h.chunk_hash, coalesce(t.refs, 0) AS refs FROM namespace_chunks h LEFT JOIN
                (SELECT v.namespace_id, fc.chunk_hash, count(*) AS refs FROM file_chunks fc
                 JOIN file_versions v USING (shard_key, version_id) WHERE fc.shard_key = $1 GROUP BY 1, 2) t
                ON t.namespace_id = h.namespace_id AND t.chunk_hash = h.chunk_hash
             WHERE h.shard_key = $1 AND h.refs <> coalesce(t.refs, 0)) w
         WHERE n.shard_key = $1 AND w.namespace_id = n.namespace_id AND w.chunk_hash = n.chunk_hash",
    );
    let refs = refs.bind(key(shard)).execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    let usage = sqlx::query(
        "UPDATE owners AS o SET storage_used = w.used FROM
            (SELECT u.user_id, coalesce(t.used, 0)::bigint AS used FROM owners u LEFT JOIN
                (SELECT s.owner_id, sum(c.length) AS used FROM namespace_chunks n JOIN namespaces s USING (shard_key, namespace_id)
                 JOIN chunks c USING (shard_key, chunk_hash) WHERE n.shard_key = $1 GROUP BY 1) t ON t.owner_id = u.user_id
             WHERE u.shard_key = $1 AND u.storage_used <> coalesce(t.used, 0)) w
         WHERE o.shard_key = $1 AND w.user_id = o.user_id",
    );
    let usage = usage.bind(key(shard)).execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    Ok((refs, usage))
}

pub(super) async fn mark_sound(conn: &mut PgConnection, shard: Shard, chunks: &[ChunkLocation]) -> Result<u64, StoreError> {
    let mut marked = 0;
    for chunk in chunks {
        let healed = sqlx::query(
            "UPDATE chunks SET damaged_at = NULL
             WHERE shard_key = $1 AND chunk_hash = $2 AND pack_id = $3 AND \"offset\" = $4 AND damaged_at IS NOT NULL",
        );
        let healed = healed.bind(key(shard)).bind(chunk.id.as_bytes().to_vec()).bind(chunk.pack.0.to_vec()).bind(signed(chunk.offset));
        marked += healed.execute(&mut *conn).await.map_err(store_error)?.rows_affected();
    }
    Ok(marked)
}
