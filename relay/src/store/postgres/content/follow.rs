//! Feeds read from replicas. A feed is what devices ask for most, and most of what it costs is its pages; so the primary is asked where the feed stands,
//! which is one row, and a replica for the pages, if it has come as far. So no reader finds less than was there when it asked: what it has written
//! itself, or was told of, is in the page, and a cursor is never beyond the head that it is answered with.

use super::{BATCH, nodes};
use crate::store::StoreError;
use crate::store::columns::signed;
use crate::store::content::{FeedSlice, Shard};
use crate::store::postgres::database::Database;
use crate::store::postgres::places::key;
use crate::store::postgres::rows::{bytes, count};
use crate::store::postgres::store_error;
use ferry_protocol::NamespaceId;
use sqlx::{PgConnection, Row};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) shard: Shard,
    pub(super) namespace: NamespaceId,
    pub(super) since: u64,
    pub(super) limit_nodes: usize,
    pub(super) limit_bytes: usize,
}

impl Page {
    /// Whether one statement, which is a snapshot by itself, answers it.
    pub(super) fn is_one_statement(self) -> bool {
        self.limit_nodes <= BATCH
    }
}

/// One slice, on a connection that has a snapshot, or of a page that is one statement.
pub(super) async fn slice(conn: &mut PgConnection, page: Page) -> Result<FeedSlice, StoreError> {
    if page.is_one_statement() {
        return at_once(conn, page).await;
    }
    let Page { shard, namespace, since, limit_nodes, limit_bytes } = page;
    let head_seq = nodes::head(&mut *conn, shard, namespace).await?;
    let since_is_known = since == 0 || nodes::is_known(&mut *conn, shard, namespace, since).await?;
    let nodes = nodes::feed(conn, shard, namespace, since, limit_nodes, limit_bytes).await?;
    Ok(FeedSlice { head_seq, since_is_known, nodes })
}

/// Head, whether the number is known, and a page, in one statement.
pub(super) const PAGE: &str =
    "SELECT f.file_id, f.seq, f.created_at, f.updated_at, f.state, n.head_seq, coalesce((SELECT g.to_seq <= $3 FROM feed_gaps g
        WHERE g.shard_key = $1 AND g.namespace_id = $2 AND g.from_seq < $3 ORDER BY g.from_seq DESC LIMIT 1), true)
    FROM namespaces n LEFT JOIN LATERAL (SELECT file_id, seq, created_at, updated_at, state FROM files
        WHERE shard_key = $1 AND namespace_id = $2 AND seq > $3 ORDER BY seq LIMIT $4) f ON true
    WHERE n.shard_key = $1 AND n.namespace_id = $2 ORDER BY f.seq";

/// The same in one round trip: devices ask for nothing more often.
async fn at_once(conn: &mut PgConnection, page: Page) -> Result<FeedSlice, StoreError> {
    let rows = sqlx::query(PAGE)
        .bind(key(page.shard))
        .bind(page.namespace.as_bytes().to_vec())
        .bind(signed(page.since))
        .bind(signed(page.limit_nodes as u64))
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    let Some(first) = rows.first() else { return Ok(FeedSlice { head_seq: 0, since_is_known: true, nodes: Vec::new() }) };
    let (head_seq, since_is_known) = (count(first, 5)?, first.try_get(6).map_err(store_error)?);
    let (mut found, mut size) = (Vec::new(), 0usize);
    for row in &rows {
        let Some(state) = row.try_get::<Option<&[u8]>, _>(4).map_err(store_error)? else { break };
        size = size.saturating_add(state.len());
        if size > page.limit_bytes && !found.is_empty() {
            break;
        }
        found.push(nodes::node_row(row)?);
    }
    Ok(FeedSlice { head_seq, since_is_known, nodes: found })
}

/// Where a feed stands, and in which run of the relay its database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    head_seq: u64,
    run: [u8; 16],
    /// Whether the server follows another one.
    is_replica: bool,
}

async fn position(conn: &mut PgConnection, page: Page) -> Result<Option<Position>, StoreError> {
    let row = sqlx::query(
        "SELECT n.head_seq, r.replica, pg_is_in_recovery() FROM namespaces n, relay r WHERE n.shard_key = $1 AND n.namespace_id = $2",
    )
    .bind(key(page.shard))
    .bind(page.namespace.as_bytes().to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    let read = |row| Ok(Position { head_seq: count(&row, 0)?, run: bytes(&row, 1)?, is_replica: row.try_get(2).map_err(store_error)? });
    row.map(read).transpose()
}

/// A slice from a replica; nothing if none has come as far as the primary, or none answers.
pub(super) async fn from_replica(db: &Database, page: Page) -> Result<Option<FeedSlice>, StoreError> {
    if !db.has_replicas() {
        return Ok(None);
    }
    let Some(now) = position(&mut *db.read().await?, page).await? else { return Ok(None) };
    let (answered, slice) = match read(db, page, now).await {
        Ok(Some(slice)) => ("replica", Some(slice)),
        Ok(None) => ("behind", None),
        // A replica ends what stands in the way of what it replays; the primary has no such trouble.
        Err(error) => {
            tracing::debug!(%error, "a replica did not give a page of a feed");
            ("failed", None)
        }
    };
    metrics::counter!("ferry_relay_db_replica_feeds_total", "answer" => answered).increment(1);
    Ok(slice)
}

async fn read(db: &Database, page: Page, now: Position) -> Result<Option<FeedSlice>, StoreError> {
    let Some(mut snapshot) = db.replica().await else { return Ok(None) };
    let Some(there) = position(&mut snapshot, page).await? else { return Ok(None) };
    // Of another run is one that follows what the primary was before it was restored; one that follows nobody is no replica any more.
    if !there.is_replica || there.run != now.run || there.head_seq < now.head_seq {
        return Ok(None);
    }
    let slice = slice(&mut snapshot, page).await?;
    snapshot.commit().await.map_err(store_error)?;
    if there.head_seq > now.head_seq {
        // A commit came in between; or the primary has gone back, and nobody has written there yet.
        let again = position(&mut *db.read().await?, page).await?;
        return Ok(again.is_some_and(|again| again.run == there.run && again.head_seq >= there.head_seq).then_some(slice));
    }
    Ok(Some(slice))
}
