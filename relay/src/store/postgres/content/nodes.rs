//! Namespaces, members and nodes: reads that a transaction and a reader share.

use super::BATCH;
use crate::store::StoreError;
use crate::store::columns::{decode_state, role, signed};
use crate::store::content::{DeletedRow, NamespaceRow, NodeRow, Shard, TIMES_LOOKED_AT, TrashedNode};
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count, maybe_bytes, namespace as namespace_id, node as node_id, user};
use crate::store::postgres::store_error;
use ferry_protocol::wire::Role;
use ferry_protocol::{ContentHash, DeviceId, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::BTreeSet;

/// A row of a namespace from its first eight columns, as somebody of this role sees it.
fn namespace_row(row: &PgRow, role: Role) -> Result<NamespaceRow, StoreError> {
    Ok(NamespaceRow {
        id: namespace_id(row, 0)?,
        owner: user(row, 1)?,
        name: row.try_get(2).map_err(store_error)?,
        is_home: row.try_get(3).map_err(store_error)?,
        head_seq: count(row, 4)?,
        settled_seq: count(row, 7)?,
        max_counter: count(row, 5)?,
        run: maybe_bytes(row, 6)?.map(ReplicaId::from_bytes),
        role,
    })
}

/// The rows of these namespaces; `role` is what the directory says of each.
pub(super) async fn namespaces(
    conn: &mut PgConnection,
    shard: Shard,
    wanted: &[(NamespaceId, Role)],
) -> Result<Vec<NamespaceRow>, StoreError> {
    let ids: Vec<Vec<u8>> = wanted.iter().map(|(id, _)| id.as_bytes().to_vec()).collect();
    let rows = sqlx::query(
        "SELECT namespace_id, owner_id, name, is_home, head_seq, max_counter, run_id, settled_seq FROM namespaces
         WHERE shard_key = $1 AND namespace_id = ANY($2)",
    )
    .bind(key(shard))
    .bind(ids)
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &PgRow| {
        let id = namespace_id(row, 0)?;
        namespace_row(row, wanted.iter().find(|(n, _)| *n == id).map_or(Role::Viewer, |(_, role)| *role))
    };
    rows.iter().map(read).collect()
}

/// Memberships with their namespaces, where directory and shard are one database: what every request begins with is one round trip there.
macro_rules! seen_by {
    ($more:literal) => {
        concat!(
            "SELECT n.namespace_id, n.owner_id, n.name, n.is_home, n.head_seq, n.max_counter, n.run_id, n.settled_seq, m.role
             FROM members m JOIN namespaces n ON n.shard_key = $1 AND n.namespace_id = m.namespace_id WHERE m.user_id = $2",
            $more
        )
    };
}

fn seen(row: &PgRow) -> Result<NamespaceRow, StoreError> {
    namespace_row(row, role(row.try_get(8).map_err(store_error)?)?)
}

/// All namespaces of a user, from the one database that there is.
pub(super) async fn all_seen_by(conn: &mut PgConnection, shard: Shard, user: UserId) -> Result<Vec<NamespaceRow>, StoreError> {
    let asked = sqlx::query(seen_by!("")).bind(key(shard)).bind(user.as_bytes().to_vec());
    asked.fetch_all(conn).await.map_err(store_error)?.iter().map(seen).collect()
}

/// One of them.
pub(super) async fn one_seen_by(
    conn: &mut PgConnection,
    shard: Shard,
    user: UserId,
    namespace: NamespaceId,
) -> Result<Option<NamespaceRow>, StoreError> {
    let asked = sqlx::query(seen_by!(" AND m.namespace_id = $3"));
    let asked = asked.bind(key(shard)).bind(user.as_bytes().to_vec()).bind(namespace.as_bytes().to_vec());
    asked.fetch_optional(conn).await.map_err(store_error)?.as_ref().map(seen).transpose()
}

/// Those in which a node exists.
pub(super) async fn holding_seen_by(
    conn: &mut PgConnection,
    shard: Shard,
    user: UserId,
    node: NodeId,
) -> Result<Vec<NamespaceRow>, StoreError> {
    let asked =
        sqlx::query(seen_by!(" AND n.namespace_id IN (SELECT f.namespace_id FROM files f WHERE f.shard_key = $1 AND f.file_id = $3)"));
    let asked = asked.bind(key(shard)).bind(user.as_bytes().to_vec()).bind(node.as_bytes().to_vec());
    asked.fetch_all(conn).await.map_err(store_error)?.iter().map(seen).collect()
}

/// The members of a namespace, by rising id. From the directory.
pub(super) async fn members(conn: &mut PgConnection, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
    let rows = sqlx::query("SELECT user_id, role FROM members WHERE namespace_id = $1 ORDER BY user_id")
        .bind(namespace.as_bytes().to_vec())
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| Ok((user(row, 0)?, role(row.try_get(1).map_err(store_error)?)?))).collect()
}

/// Which of these devices belong to members. From the directory.
pub(super) async fn devices_of_members(
    conn: &mut PgConnection,
    namespace: NamespaceId,
    devices: &[DeviceId],
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let ids: Vec<Vec<u8>> = devices.iter().map(|d| d.as_bytes().to_vec()).collect();
    // The web of a user has the user's id.
    let rows = sqlx::query(
        "SELECT d.device_id FROM devices d
         JOIN (SELECT user_id FROM members WHERE namespace_id = $1 UNION SELECT user_id FROM past_writers WHERE namespace_id = $1) w USING (user_id)
         WHERE d.device_id = ANY($2)
         UNION SELECT user_id FROM past_writers WHERE namespace_id = $1 AND user_id = ANY($2)",
    )
            .bind(namespace.as_bytes().to_vec())
            .bind(ids)
            .fetch_all(conn)
            .await
            .map_err(store_error)?;
    rows.iter().map(|row| bytes(row, 0).map(DeviceId::from_bytes)).collect()
}

pub(super) fn node_row(row: &PgRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        id: node_id(row, 0)?,
        seq: count(row, 1)?,
        created_at_ms: row.try_get(2).map_err(store_error)?,
        updated_at_ms: row.try_get(3).map_err(store_error)?,
        state: decode_state(row.try_get(4).map_err(store_error)?)?,
    })
}

pub(super) async fn nodes(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    ids: &[NodeId],
) -> Result<Vec<NodeRow>, StoreError> {
    let mut out = Vec::new();
    for batch in ids.chunks(BATCH) {
        let ids: Vec<Vec<u8>> = batch.iter().map(|id| id.as_bytes().to_vec()).collect();
        let rows = sqlx::query(
            "SELECT file_id, seq, created_at, updated_at, state FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY($3)",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(ids)
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        for row in &rows {
            out.push(node_row(row)?);
        }
    }
    Ok(out)
}

/// Of these namespaces, those in which a node exists.
pub(super) async fn holding(
    conn: &mut PgConnection,
    shard: Shard,
    namespaces: &[NamespaceId],
    node: NodeId,
) -> Result<BTreeSet<NamespaceId>, StoreError> {
    let ids: Vec<Vec<u8>> = namespaces.iter().map(|n| n.as_bytes().to_vec()).collect();
    let rows = sqlx::query("SELECT namespace_id FROM files WHERE shard_key = $1 AND file_id = $2 AND namespace_id = ANY($3)")
        .bind(key(shard))
        .bind(node.as_bytes().to_vec())
        .bind(ids)
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| namespace_id(row, 0)).collect()
}

pub(super) async fn deleted(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    before_seq: u64,
    limit: usize,
) -> Result<Vec<DeletedRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT file_id, parent_id, file_name, file_size, file_type, file_hash, updated_at, seq FROM files
         WHERE shard_key = $1 AND namespace_id = $2 AND is_deleted AND purged_at IS NULL AND seq < $3 ORDER BY seq DESC LIMIT $4",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(signed(before_seq))
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(deleted_row).collect()
}

/// A row of the trash: id, parent, name, size, type, hash, time, number.
pub(super) fn deleted_row(row: &PgRow) -> Result<DeletedRow, StoreError> {
    Ok(DeletedRow {
        id: node_id(row, 0)?,
        parent: node_id(row, 1)?,
        name: row.try_get(2).map_err(store_error)?,
        size_bytes: count(row, 3)?,
        file_type: row.try_get(4).map_err(store_error)?,
        hash: maybe_bytes(row, 5)?.map(ContentHash::from_bytes),
        deleted_at_ms: row.try_get(6).map_err(store_error)?,
        seq: count(row, 7)?,
    })
}

pub(super) async fn deleted_below(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    node: NodeId,
    limit: usize,
) -> Result<Vec<TrashedNode>, StoreError> {
    // PostgreSQL stops the recursion when the outer LIMIT has its rows.
    let rows = sqlx::query(
        "WITH RECURSIVE below (file_id, is_kept) AS (
            SELECT file_id, purged_at IS NULL FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id = $3 AND is_deleted
            UNION SELECT f.file_id, f.purged_at IS NULL FROM below b JOIN files f
                ON f.shard_key = $1 AND f.namespace_id = $2 AND f.parent_id = b.file_id AND f.is_deleted),
         chosen (file_id) AS MATERIALIZED (SELECT file_id FROM below WHERE is_kept LIMIT $4)
         SELECT f.file_id, f.seq, f.created_at, f.updated_at, f.state, f.file_type, f.link_target
         FROM chosen s JOIN files f ON f.shard_key = $1 AND f.namespace_id = $2 AND f.file_id = s.file_id",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(node.as_bytes().to_vec())
    .bind(signed(limit as u64))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &PgRow| {
        let (file_type, link_target) = (row.try_get(5).map_err(store_error)?, row.try_get(6).map_err(store_error)?);
        Ok(TrashedNode { row: node_row(row)?, file_type, link_target })
    };
    rows.iter().map(read).collect()
}

/// The feed's head, as this connection's snapshot has it; 0 for a namespace that is not there.
pub(super) async fn head(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT head_seq FROM namespaces WHERE shard_key = $1 AND namespace_id = $2")
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map_or(Ok(0), |row| count(&row, 0))
}

/// Whether a number was given, or may have been: it is not inside of a gap.
pub(super) async fn is_known(conn: &mut PgConnection, shard: Shard, namespace: NamespaceId, seq: u64) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT to_seq FROM feed_gaps WHERE shard_key = $1 AND namespace_id = $2 AND from_seq < $3 ORDER BY from_seq DESC LIMIT 1",
    )
    .bind(key(shard))
    .bind(namespace.as_bytes().to_vec())
    .bind(signed(seq))
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    row.map_or(Ok(true), |row| Ok(count(&row, 0)? <= seq))
}

/// The lowest number of those nodes whose times come next after a time. An index has them in the order of their times; one that is asked for the lowest
/// number of all that changed since reads them all, or the whole feed up to them.
pub(super) const NEXT_IN_TIME: &str = "SELECT min(seq) FROM (SELECT seq FROM files
    WHERE shard_key = $1 AND namespace_id = $2 AND updated_at >= $3 ORDER BY updated_at LIMIT $4) AS next";

/// The lowest number of such a node among those just before a number.
pub(super) const BEFORE_IN_FEED: &str = "SELECT min(seq) FILTER (WHERE updated_at >= $3) FROM (SELECT seq, updated_at FROM files
    WHERE shard_key = $1 AND namespace_id = $2 AND seq < $5 ORDER BY seq DESC LIMIT $4) AS before";

/// See [`crate::store::content::ContentStore::first_seq_since`].
pub(super) async fn first_seq_since(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    since_ms: i64,
) -> Result<Option<u64>, StoreError> {
    let mut first: Option<i64> = None;
    loop {
        let statement = sqlx::query(if first.is_none() { NEXT_IN_TIME } else { BEFORE_IN_FEED })
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .bind(since_ms)
            .bind(signed(TIMES_LOOKED_AT));
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
    conn: &mut PgConnection,
    shard: Shard,
    namespace: NamespaceId,
    since: u64,
    limit_nodes: usize,
    limit_bytes: usize,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut out: Vec<NodeRow> = Vec::new();
    let (mut after, mut size) = (since, 0usize);
    while out.len() < limit_nodes {
        let want = BATCH.min(limit_nodes - out.len());
        let rows = sqlx::query(
            "SELECT file_id, seq, created_at, updated_at, state FROM files
             WHERE shard_key = $1 AND namespace_id = $2 AND seq > $3 ORDER BY seq LIMIT $4",
        )
        .bind(key(shard))
        .bind(namespace.as_bytes().to_vec())
        .bind(signed(after))
        .bind(signed(want as u64))
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
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
