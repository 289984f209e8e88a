//! The rows of one namespace: compared between two databases, and carried over as they are. Which columns a table has, the database says: a column that
//! a later migration adds goes along.

use crate::store::StoreError;
use crate::store::content::Shard;
use crate::store::postgres::places::key;
use crate::store::postgres::rows::count;
use crate::store::postgres::store_error;
use crate::store::postgres::tables::{Home, TABLES, rows_of};
use ferry_protocol::NamespaceId;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

/// What is of the shard and not of the user: it differs between the two.
const OF_THE_SHARD: [&str; 3] = ["shard_key", "moving_to", "moving_until"];

/// Tables that hold rows of namespaces, parents first.
pub(super) fn tables() -> impl Iterator<Item = (&'static str, Home)> {
    TABLES.iter().copied().filter(|(_, home)| matches!(home, Home::Namespaces | Home::VersionsOf(_)))
}

/// How many rows, and the sum of their hashes: the order does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) rows: u64,
    sum: String,
}

/// Nothing ends a transaction that waits for the other database, and values are printed as everywhere.
pub(super) async fn prepare(conn: &mut PgConnection) -> Result<(), StoreError> {
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0; SET LOCAL bytea_output = 'hex'")
        .await
        .map(drop)
        .map_err(store_error)
}

async fn columns(conn: &mut PgConnection, table: &'static str) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
         ORDER BY attname",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| row.try_get(0).map_err(store_error)).collect()
}

fn condition(home: Home, shard: Shard, namespace: NamespaceId) -> Result<String, StoreError> {
    rows_of(home, key(shard), &hex::encode(namespace.as_bytes()))
        .ok_or_else(|| StoreError::Unavailable("a table without rows of namespaces".into()))
}

/// How many rows of a table are a namespace's.
pub(super) async fn number(
    conn: &mut PgConnection,
    (table, home): (&'static str, Home),
    shard: Shard,
    namespace: NamespaceId,
) -> Result<u64, StoreError> {
    // Names and numbers of ours, and an id in hexadecimal.
    let sql = format!("SELECT count(*) FROM {table} t WHERE {}", condition(home, shard, namespace)?);
    count(&sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(store_error)?, 0)
}

/// The digest of a namespace's rows in a table, without what is of the shard.
pub(super) async fn digest(
    conn: &mut PgConnection,
    (table, home): (&'static str, Home),
    shard: Shard,
    namespace: NamespaceId,
) -> Result<Digest, StoreError> {
    let columns = columns(conn, table).await?;
    let kept: Vec<String> = columns.iter().filter(|c| !OF_THE_SHARD.contains(&c.as_str())).map(|c| format!("t.{c}")).collect();
    let sql = format!(
        "SELECT count(*), coalesce(sum(('x' || substr(md5(ROW({})::text), 1, 16))::bit(64)::bigint::numeric), 0)::text FROM {table} t WHERE {}",
        kept.join(", "),
        condition(home, shard, namespace)?
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(store_error)?;
    Ok(Digest { rows: count(&row, 0)?, sum: row.try_get(1).map_err(store_error)? })
}

/// Carries a namespace's rows of a table from one database to another. There they are marked as a copy that has just come.
pub(super) async fn carry(
    source: &mut PgConnection,
    target: &mut PgConnection,
    (table, home): (&'static str, Home),
    (from, to): (Shard, Shard),
    namespace: NamespaceId,
) -> Result<(), StoreError> {
    let columns = columns(source, table).await?;
    let to = key(to);
    let value = |column: &String| match column.as_str() {
        "shard_key" | "moving_to" => format!("{to}::smallint"),
        "moving_until" => "NULL::bigint".to_owned(),
        other => format!("t.{other}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let rows = condition(home, from, namespace)?;
    let out = format!("COPY (SELECT {} FROM {table} t WHERE {rows}) TO STDOUT (FORMAT binary)", values.join(", "));
    let into = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "));
    let mut out = source.copy_out_raw(&out).await.map_err(store_error)?;
    let mut into = target.copy_in_raw(&into).await.map_err(store_error)?;
    while let Some(part) = out.try_next().await.map_err(store_error)? {
        into.send(part).await.map_err(store_error)?;
    }
    into.finish().await.map(drop).map_err(store_error)
}
