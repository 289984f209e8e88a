//! Namespaces, nodes and versions: reads that a transaction and a reader share.

use super::{BATCH, bytes, count, decode_state, role, signed, user};
use crate::store::StoreError;
use crate::store::columns::permission;
use crate::store::content::{CommitRecord, DeletedRow, NamespaceRow, NodeRow, TIMES_LOOKED_AT, TrashedNode, VersionRow};
use crate::store::sqlite::store_error;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkRef, CommitId, ContentHash, DeviceId, Dot, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

const NAMESPACE: &str = "SELECT n.namespace_id, n.owner_id, n.name, n.is_home, n.head_seq, n.max_counter, n.run_id, m.role,
    n.settled_seq
    FROM members m JOIN namespaces n USING (namespace_id) WHERE m.user_id = ";

/// A row of a namespace; the last column says what the user may do, in words that `role_of` reads.
fn namespace_row(row: &SqliteRow, role_of: fn(&str) -> Result<Role, StoreError>) -> Result<NamespaceRow, StoreError> {
    Ok(NamespaceRow {
        id: NamespaceId::from_bytes(bytes(row, 0)?),
        owner: user(row, 1)?,
        name: row.try_get(2).map_err(store_error)?,
        is_home: row.try_get(3).map_err(store_error)?,
        head_seq: count(row, 4)?,
        settled_seq: count(row, 8)?,
        max_counter: count(row, 5)?,
        run: run_id(row)?,
        role: role_of(row.try_get(7).map_err(store_error)?)?,
    })
}

fn run_id(row: &SqliteRow) -> Result<Option<ReplicaId>, StoreError> {
    let is_given = row.try_get::<Option<&[u8]>, _>(6).map_err(store_error)?.is_some();
    if is_given { Ok(Some(ReplicaId::from_bytes(bytes(row, 6)?))) } else { Ok(None) }
}

pub(super) async fn namespaces_of(conn: &mut SqliteConnection, user: UserId) -> Result<Vec<NamespaceRow>, StoreError> {
    let mut query = QueryBuilder::new(NAMESPACE);
    query.push_bind(user.as_bytes().to_vec()).push(" ORDER BY n.owner_id <> m.user_id OR n.is_home = 0, n.name, n.namespace_id");
    query.build().fetch_all(conn).await.map_err(store_error)?.iter().map(|row| namespace_row(row, role)).collect()
}

pub(super) async fn namespace_for(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    user: UserId,
) -> Result<Option<NamespaceRow>, StoreError> {
    let mut query = QueryBuilder::new(NAMESPACE);
    query.push_bind(user.as_bytes().to_vec()).push(" AND m.namespace_id = ").push_bind(namespace.as_bytes().to_vec());
    query.build().fetch_optional(conn).await.map_err(store_error)?.as_ref().map(|row| namespace_row(row, role)).transpose()
}

/// The members of a namespace, by rising id.
pub(super) async fn members(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
    let rows = sqlx::query("SELECT user_id, role FROM members WHERE namespace_id = ?1 ORDER BY user_id")
        .bind(namespace.as_bytes().to_vec())
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| Ok((user(row, 0)?, role(row.try_get(1).map_err(store_error)?)?))).collect()
}

/// The namespaces of a user in which a node exists.
pub(super) async fn locate_node(conn: &mut SqliteConnection, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError> {
    let mut query = QueryBuilder::new(NAMESPACE);
    query
        .push_bind(user.as_bytes().to_vec())
        .push(" AND EXISTS (SELECT 1 FROM files f WHERE f.namespace_id = n.namespace_id AND f.file_id = ")
        .push_bind(node.as_bytes().to_vec())
        .push(") ORDER BY n.owner_id <> m.user_id OR n.is_home = 0, n.namespace_id");
    query.build().fetch_all(conn).await.map_err(store_error)?.iter().map(|row| namespace_row(row, role)).collect()
}

/// The namespaces in which a file is shared with a user; of one of them only with `namespace`.
pub(super) async fn shared_namespaces(
    conn: &mut SqliteConnection,
    user: UserId,
    file: NodeId,
    namespace: Option<NamespaceId>,
) -> Result<Vec<NamespaceRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT n.namespace_id, n.owner_id, n.name, n.is_home, n.head_seq, n.max_counter, n.run_id, s.permission,
                n.settled_seq
         FROM shared_files s JOIN namespaces n USING (namespace_id)
         WHERE s.shared_with_user_id = ?1 AND s.file_id = ?2 AND (?3 IS NULL OR s.namespace_id = ?3) ORDER BY n.namespace_id",
    )
    .bind(user.as_bytes().to_vec())
    .bind(file.as_bytes().to_vec())
    .bind(namespace.map(|n| n.as_bytes().to_vec()))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| namespace_row(row, permission)).collect()
}

pub(super) const NODE: &str = "SELECT file_id, seq, created_at, updated_at, state FROM files WHERE namespace_id = ";

pub(super) fn node_row(row: &SqliteRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        id: NodeId::from_bytes(bytes(row, 0)?),
        seq: count(row, 1)?,
        created_at_ms: row.try_get(2).map_err(store_error)?,
        updated_at_ms: row.try_get(3).map_err(store_error)?,
        state: decode_state(row.try_get(4).map_err(store_error)?)?,
    })
}

pub(super) async fn nodes(conn: &mut SqliteConnection, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
    let mut out = Vec::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new(NODE);
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND file_id IN (");
        let mut list = query.separated(',');
        for id in batch {
            list.push_bind(id.as_bytes().to_vec());
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.push(node_row(&row)?);
        }
    }
    Ok(out)
}

const VERSION: &str = "SELECT version_id, file_id, version_number, dot_replica, dot_counter, file_hash, file_size, mtime_ns, author_device,
    author_name, wall_ms, created_at, label FROM file_versions WHERE namespace_id = ";

fn version_row(row: &SqliteRow) -> Result<VersionRow, StoreError> {
    Ok(VersionRow {
        version_id: bytes(row, 0)?,
        node: NodeId::from_bytes(bytes(row, 1)?),
        number: count(row, 2)?,
        dot: Dot { replica: ReplicaId::from_bytes(bytes(row, 3)?), counter: count(row, 4)? },
        hash: ContentHash::from_bytes(bytes(row, 5)?),
        size_bytes: count(row, 6)?,
        mtime_ns: row.try_get(7).map_err(store_error)?,
        author_device: DeviceId::from_bytes(bytes(row, 8)?),
        author_name: row.try_get(9).map_err(store_error)?,
        wall_ms: row.try_get(10).map_err(store_error)?,
        created_at_ms: row.try_get(11).map_err(store_error)?,
        label: row.try_get(12).map_err(store_error)?,
    })
}

pub(super) async fn deleted(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    before_seq: u64,
    limit: usize,
) -> Result<Vec<DeletedRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT file_id, parent_id, file_name, file_size, file_type, file_hash, updated_at, seq FROM files
         WHERE namespace_id = ?1 AND is_deleted = 1 AND purged_at IS NULL AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
    )
    .bind(namespace.as_bytes().to_vec())
    .bind(signed(before_seq))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(deleted_row).collect()
}

/// A row of the trash: id, parent, name, size, type, hash, time, number.
pub(super) fn deleted_row(row: &SqliteRow) -> Result<DeletedRow, StoreError> {
    let has_hash = row.try_get::<Option<&[u8]>, _>(5).map_err(store_error)?.is_some();
    Ok(DeletedRow {
        id: NodeId::from_bytes(bytes(row, 0)?),
        parent: NodeId::from_bytes(bytes(row, 1)?),
        name: row.try_get(2).map_err(store_error)?,
        size_bytes: count(row, 3)?,
        file_type: row.try_get(4).map_err(store_error)?,
        hash: if has_hash { Some(ContentHash::from_bytes(bytes(row, 5)?)) } else { None },
        deleted_at_ms: row.try_get(6).map_err(store_error)?,
        seq: count(row, 7)?,
    })
}

pub(super) async fn deleted_below(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    node: NodeId,
    limit: usize,
) -> Result<Vec<TrashedNode>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE below (file_id) AS (
            SELECT file_id FROM files WHERE namespace_id = ?1 AND file_id = ?2 AND is_deleted = 1
            UNION SELECT f.file_id FROM below b JOIN files f ON f.namespace_id = ?1 AND f.parent_id = b.file_id AND f.is_deleted = 1)
         SELECT f.file_id, f.seq, f.created_at, f.updated_at, f.state, f.file_type, f.link_target
         FROM below b JOIN files f ON f.namespace_id = ?1 AND f.file_id = b.file_id WHERE f.purged_at IS NULL LIMIT ?3",
    )
    .bind(namespace.as_bytes().to_vec())
    .bind(node.as_bytes().to_vec())
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &SqliteRow| {
        let (file_type, link_target) = (row.try_get(5).map_err(store_error)?, row.try_get(6).map_err(store_error)?);
        Ok(TrashedNode { row: node_row(row)?, file_type, link_target })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn versions(conn: &mut SqliteConnection, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError> {
    let mut query = QueryBuilder::new(VERSION);
    query.push_bind(namespace.as_bytes().to_vec()).push(" AND file_id = ").push_bind(node.as_bytes().to_vec());
    query.push(" ORDER BY version_number DESC");
    query.build().fetch_all(conn).await.map_err(store_error)?.iter().map(version_row).collect()
}

pub(super) async fn version(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    version_id: [u8; 16],
) -> Result<Option<VersionRow>, StoreError> {
    let mut query = QueryBuilder::new(VERSION);
    query.push_bind(namespace.as_bytes().to_vec()).push(" AND version_id = ").push_bind(version_id.to_vec());
    query.build().fetch_optional(conn).await.map_err(store_error)?.as_ref().map(version_row).transpose()
}

pub(super) async fn version_chunks(conn: &mut SqliteConnection, version_id: [u8; 16]) -> Result<Vec<ChunkRef>, StoreError> {
    let rows = sqlx::query("SELECT chunk_hash, chunk_size FROM file_chunks WHERE version_id = ?1 ORDER BY chunk_index")
        .bind(version_id.to_vec())
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| super::chunks::chunk_ref(row, 0)).collect()
}

pub(super) async fn commit_records(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    user: UserId,
    ids: &[CommitId],
) -> Result<BTreeMap<CommitId, CommitRecord>, StoreError> {
    let mut out = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT commit_id, digest, head_seq, gapless FROM commits WHERE namespace_id = ");
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND user_id = ").push_bind(user.as_bytes().to_vec());
        query.push(" AND commit_id IN (");
        let mut list = query.separated(',');
        for id in batch {
            list.push_bind(id.as_bytes().to_vec());
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            let gapless = row.try_get(3).map_err(store_error)?;
            let record = CommitRecord { digest: bytes(&row, 1)?, head_seq: count(&row, 2)?, gapless };
            out.insert(CommitId::from_bytes(bytes(&row, 0)?), record);
        }
    }
    Ok(out)
}

pub(super) async fn devices_of_members(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    devices: &[DeviceId],
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let mut out = BTreeSet::new();
    for batch in devices.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT d.device_id FROM devices d JOIN (SELECT user_id FROM members WHERE namespace_id = ");
        query.push_bind(namespace.as_bytes().to_vec()).push(" UNION SELECT user_id FROM past_writers WHERE namespace_id = ");
        query.push_bind(namespace.as_bytes().to_vec()).push(") w USING (user_id) WHERE d.device_id IN (");
        push_ids(&mut query, batch);
        // The web of a user has the user's id.
        query.push(") UNION SELECT user_id FROM past_writers WHERE namespace_id = ");
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND user_id IN (");
        push_ids(&mut query, batch);
        query.push(")");
        for row in query.build().fetch_all(&mut *conn).await.map_err(store_error)? {
            out.insert(DeviceId::from_bytes(bytes(&row, 0)?));
        }
    }
    Ok(out)
}

fn push_ids(query: &mut QueryBuilder<sqlx::Sqlite>, ids: &[DeviceId]) {
    let mut list = query.separated(',');
    for id in ids {
        list.push_bind(id.as_bytes().to_vec());
    }
}

/// The feed's head, as this connection's snapshot has it; 0 for a namespace that is not there.
pub(super) async fn head(conn: &mut SqliteConnection, namespace: NamespaceId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT head_seq FROM namespaces WHERE namespace_id = ?1")
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(0), |row| count(&row, 0))
}

/// Whether a number was given, or may have been: it is not inside of a gap.
pub(super) async fn is_known(conn: &mut SqliteConnection, namespace: NamespaceId, seq: u64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT to_seq FROM feed_gaps WHERE namespace_id = ?1 AND from_seq < ?2 ORDER BY from_seq DESC LIMIT 1")
        .bind(namespace.as_bytes().to_vec())
        .bind(signed(seq))
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(true), |row| Ok(count(&row, 0)? <= seq))
}

/// See [`crate::store::content::ContentStore::first_seq_since`].
pub(super) async fn first_seq_since(conn: &mut SqliteConnection, namespace: NamespaceId, since_ms: i64) -> Result<Option<u64>, StoreError> {
    let mut first: Option<i64> = None;
    loop {
        let of_these = match first {
            None => {
                "SELECT min(seq) FROM (SELECT seq FROM files WHERE namespace_id = ?1 AND updated_at >= ?2 ORDER BY updated_at LIMIT ?3)"
            }
            Some(_) => {
                "SELECT min(seq) FILTER (WHERE updated_at >= ?2)
                 FROM (SELECT seq, updated_at FROM files WHERE namespace_id = ?1 AND seq < ?4 ORDER BY seq DESC LIMIT ?3)"
            }
        };
        let statement = sqlx::query(of_these).bind(namespace.as_bytes().to_vec()).bind(since_ms).bind(signed(TIMES_LOOKED_AT));
        let asked = match first {
            Some(first) => statement.bind(first),
            None => statement,
        };
        let found: Option<i64> = asked.fetch_one(&mut *conn).await.map_err(store_error)?.try_get(0).map_err(store_error)?;
        match found {
            Some(lower) => first = Some(lower),
            None => return Ok(first.and_then(|seq| u64::try_from(seq).ok())),
        }
    }
}

/// Nodes in the order of the feed.
pub(super) async fn feed(
    conn: &mut SqliteConnection,
    namespace: NamespaceId,
    since: u64,
    limit_nodes: usize,
    limit_bytes: usize,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut out: Vec<NodeRow> = Vec::new();
    let (mut after, mut size) = (since, 0usize);
    while out.len() < limit_nodes {
        let want = BATCH.min(limit_nodes - out.len());
        let mut query = QueryBuilder::new(NODE);
        query.push_bind(namespace.as_bytes().to_vec()).push(" AND seq > ").push_bind(signed(after));
        query.push(" ORDER BY seq LIMIT ").push_bind(want as i64);
        let rows = query.build().fetch_all(&mut *conn).await.map_err(store_error)?;
        for row in &rows {
            let state: &[u8] = row.try_get(4).map_err(store_error)?;
            size = size.saturating_add(state.len());
            if size > limit_bytes && !out.is_empty() {
                return Ok(out);
            }
            let node = node_row(row)?;
            after = node.seq;
            out.push(node);
        }
        if rows.len() < want {
            break;
        }
    }
    Ok(out)
}
