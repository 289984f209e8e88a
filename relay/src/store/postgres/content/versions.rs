//! Versions of files and the commits of the recent past.

use super::BATCH;
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{CommitRecord, DegradedVersion, Shard, VersionRow, VersionWrite};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, device, namespace as namespace_id, node as node_id};
use crate::store::postgres::store_error;
use ferry_protocol::{ChunkId, ChunkRef, CommitId, ContentHash, Dot, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

fn version_row(row: &PgRow) -> Result<VersionRow, StoreError> {
    Ok(VersionRow {
        version_id: bytes(row, 0)?,
        node: node_id(row, 1)?,
        number: count(row, 2)?,
        dot: Dot { replica: ReplicaId::from_bytes(bytes(row, 3)?), counter: count(row, 4)? },
        hash: ContentHash::from_bytes(bytes(row, 5)?),
        size_bytes: count(row, 6)?,
        mtime_ns: row.try_get(7).map_err(store_error)?,
        author_device: device(row, 8)?,
        author_name: row.try_get(9).map_err(store_error)?,
        wall_ms: row.try_get(10).map_err(store_error)?,
        created_at_ms: row.try_get(11).map_err(store_error)?,
        label: row.try_get(12).map_err(store_error)?,
    })
}

pub(super) async fn of_file(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    node: NodeId,
) -> Result<Vec<VersionRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT version_id, file_id, version_number, dot_replica, dot_counter, file_hash, file_size, mtime_ns, author_device, author_name,
         wall_ms, created_at, label FROM file_versions WHERE shard_key = $1 AND namespace_id = $2 AND file_id = $3 ORDER BY version_number DESC",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(node.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(version_row).collect()
}

pub(super) async fn one(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    version_id: [u8; 16],
) -> Result<Option<VersionRow>, StoreError> {
    let row = sqlx::query(
        "SELECT version_id, file_id, version_number, dot_replica, dot_counter, file_hash, file_size, mtime_ns, author_device, author_name,
         wall_ms, created_at, label FROM file_versions WHERE shard_key = $1 AND namespace_id = $2 AND version_id = $3",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(version_id.to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    row.as_ref().map(version_row).transpose()
}

pub(super) async fn chunks(conn: &mut PgConnection, shard: Shard, version_id: [u8; 16]) -> Result<Vec<ChunkRef>, StoreError> {
    let rows = sqlx::query("SELECT chunk_hash, chunk_size FROM file_chunks WHERE shard_key = $1 AND version_id = $2 ORDER BY chunk_index")
        .bind(key(shard))
        .bind(version_id.to_vec())
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| super::chunks::chunk_ref(row, 0)).collect()
}

/// Versions of a shard that name a damaged chunk.
pub(super) async fn degraded(conn: &mut PgConnection, shard: Shard, limit: usize) -> Result<(u64, Vec<DegradedVersion>), StoreError> {
    let row = sqlx::query(
        "SELECT count(*) FROM file_versions v WHERE v.shard_key = $1 AND EXISTS (SELECT 1 FROM file_chunks fc
         JOIN chunks c USING (shard_key, chunk_hash) WHERE fc.shard_key = $1 AND fc.version_id = v.version_id AND c.damaged_at IS NOT NULL)",
    )
    .bind(key(shard))
    .fetch_one(&mut *conn)
    .await
    .map_err(store_error)?;
    let total = count(&row, 0)?;
    if total == 0 {
        return Ok((0, Vec::new()));
    }
    let rows = sqlx::query(
        "SELECT v.namespace_id, v.file_id, coalesce(f.file_name, ''::bytea), v.version_number FROM file_versions v
         LEFT JOIN files f ON f.shard_key = $1 AND f.namespace_id = v.namespace_id AND f.file_id = v.file_id
         WHERE v.shard_key = $1 AND EXISTS (SELECT 1 FROM file_chunks fc
         JOIN chunks c USING (shard_key, chunk_hash) WHERE fc.shard_key = $1 AND fc.version_id = v.version_id AND c.damaged_at IS NOT NULL)
         ORDER BY v.namespace_id, v.file_id, v.version_number LIMIT $2",
    )
    .bind(key(shard))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &PgRow| {
        Ok(DegradedVersion {
            namespace: namespace_id(row, 0)?,
            node: node_id(row, 1)?,
            name: row.try_get(2).map_err(store_error)?,
            number: count(row, 3)?,
        })
    };
    Ok((total, rows.iter().map(read).collect::<Result<_, StoreError>>()?))
}

/// Keeps versions that are not kept yet, and counts their chunks. The namespace is locked (PG1).
pub(super) async fn add(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    versions: &[VersionWrite],
) -> Result<(), StoreError> {
    let mut known: BTreeSet<([u8; 16], [u8; 16], u64)> = BTreeSet::new();
    let mut next: BTreeMap<NodeId, u64> = BTreeMap::new();
    for batch in versions.chunks(BATCH) {
        let ids: Vec<Vec<u8>> = batch.iter().map(|v| v.row.node.as_bytes().to_vec()).collect();
        let rows = sqlx::query(
            "SELECT file_id, dot_replica, dot_counter, version_number FROM file_versions
             WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(ids)
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            known.insert((bytes(row, 0)?, bytes(row, 1)?, count(row, 2)?));
            let next = next.entry(node_id(row, 0)?).or_insert(1);
            *next = (*next).max(count(row, 3)? + 1);
        }
    }
    let is_new = |v: &&VersionWrite| known.insert((*v.row.node.as_bytes(), *v.row.dot.replica.as_bytes(), v.row.dot.counter));
    let new: Vec<&VersionWrite> = versions.iter().filter(is_new).collect();
    for batch in new.chunks(BATCH) {
        insert(conn, shard, namespace, batch, &mut next).await?;
    }
    let chunks: Vec<([u8; 16], usize, ChunkRef)> =
        new.iter().flat_map(|v| v.chunks.iter().enumerate().map(|(i, c)| (v.row.version_id, i, *c))).collect();
    for batch in chunks.chunks(BATCH) {
        insert_chunks(conn, shard, batch).await?;
    }
    let mut refs: BTreeMap<ChunkId, u64> = BTreeMap::new();
    for (_, _, chunk) in &chunks {
        *refs.entry(chunk.id).or_default() += 1;
    }
    let refs: Vec<(ChunkId, u64)> = refs.into_iter().collect();
    for batch in refs.chunks(BATCH) {
        add_refs(conn, shard, namespace, batch).await?;
    }
    Ok(())
}

async fn insert(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    batch: &[&VersionWrite],
    next: &mut BTreeMap<NodeId, u64>,
) -> Result<(), StoreError> {
    let column = |of: fn(&VersionWrite) -> Vec<u8>| batch.iter().map(|v| of(v)).collect::<Vec<_>>();
    let number = |of: fn(&VersionWrite) -> i64| batch.iter().map(|v| of(v)).collect::<Vec<_>>();
    let mut numbers = Vec::with_capacity(batch.len());
    for version in batch {
        let next = next.entry(version.row.node).or_insert(1);
        numbers.push(signed(*next));
        *next += 1;
    }
    sqlx::query(
        "INSERT INTO file_versions (shard_key, namespace_id, version_id, file_id, version_number, dot_replica, dot_counter, file_hash, file_size,
         mtime_ns, author_device, author_name, wall_ms, created_at)
         SELECT $1, $2, t.* FROM UNNEST($3::bytea[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bigint[], $8::bytea[], $9::bigint[],
         $10::bigint[], $11::bytea[], $12::text[], $13::bigint[], $14::bigint[]) AS t",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(column(|v| v.row.version_id.to_vec()))
    .bind(column(|v| v.row.node.as_bytes().to_vec()))
    .bind(numbers)
    .bind(column(|v| v.row.dot.replica.as_bytes().to_vec()))
    .bind(number(|v| signed(v.row.dot.counter)))
    .bind(column(|v| v.row.hash.as_bytes().to_vec()))
    .bind(number(|v| signed(v.row.size_bytes)))
    .bind(number(|v| v.row.mtime_ns))
    .bind(column(|v| v.row.author_device.as_bytes().to_vec()))
    // The only character that a text of ours may hold and PostgreSQL's may not.
    .bind(batch.iter().map(|v| v.row.author_name.replace('\0', "\u{fffd}")).collect::<Vec<_>>())
    .bind(number(|v| v.row.wall_ms))
    .bind(number(|v| v.row.created_at_ms))
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

async fn insert_chunks(conn: &mut PgConnection, shard: Shard, batch: &[([u8; 16], usize, ChunkRef)]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO file_chunks (shard_key, version_id, chunk_index, chunk_hash, chunk_size)
         SELECT $1, t.* FROM UNNEST($2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[]) AS t",
    )
    .bind(key(shard))
    .bind(batch.iter().map(|(version, _, _)| version.to_vec()).collect::<Vec<_>>())
    .bind(batch.iter().map(|(_, index, _)| signed(*index as u64)).collect::<Vec<_>>())
    .bind(batch.iter().map(|(_, _, chunk)| chunk.id.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(batch.iter().map(|(_, _, chunk)| i64::from(chunk.len)).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

async fn add_refs(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId, batch: &[(ChunkId, u64)]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO namespace_chunks (shard_key, namespace_id, chunk_hash, refs, lease_until)
         SELECT $1, $2, t.h, t.refs, 0 FROM UNNEST($3::bytea[], $4::bigint[]) AS t (h, refs)
         ON CONFLICT (shard_key, namespace_id, chunk_hash) DO UPDATE SET refs = namespace_chunks.refs + excluded.refs",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(batch.iter().map(|(id, _)| id.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(batch.iter().map(|(_, refs)| signed(*refs)).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

pub(super) async fn commit_records(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    user: UserId,
    ids: &[CommitId],
) -> Result<BTreeMap<CommitId, CommitRecord>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let rows = sqlx::query(
            "SELECT commit_id, digest, head_seq, gapless FROM commits
             WHERE shard_key = $1 AND namespace_id = $2 AND user_id = $3 AND commit_id = ANY($4)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .bind(batch.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            let gapless = row.try_get(3).map_err(store_error)?;
            let record = CommitRecord { digest: bytes(row, 1)?, head_seq: count(row, 2)?, gapless };
            out.insert(CommitId::from_bytes(bytes(row, 0)?), record);
        }
    }
    Ok(out)
}

pub(super) async fn add_commit_records(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    records: &[(UserId, CommitId, CommitRecord)],
    now_ms: i64,
) -> Result<(), StoreError> {
    for batch in records.chunks(BATCH) {
        sqlx::query(
            "INSERT INTO commits (shard_key, namespace_id, created_at, user_id, commit_id, digest, head_seq, gapless)
             SELECT $1, $2, $3, t.* FROM UNNEST($4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[], $8::boolean[]) AS t",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(now_ms)
        .bind(batch.iter().map(|(user, ..)| user.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(_, id, _)| id.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(.., r)| r.digest.to_vec()).collect::<Vec<_>>())
        .bind(batch.iter().map(|(.., r)| signed(r.head_seq)).collect::<Vec<_>>())
        .bind(batch.iter().map(|(.., r)| r.gapless).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    }
    Ok(())
}
