//! Content on SQLite. Reads run on the reader pool, a [`ContentTx`] on the one writer connection.

mod chunks;
mod nodes;
mod purge;
mod read;
mod regions;
mod sweep;
mod uploads;
mod write;

use super::{Sqlite, StoreError, store_error};
use crate::store::content::{ContentTx, PackRow};
use ferry_protocol::wire::Role;
use ferry_protocol::{NodeState, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, Transaction};

/// Values in one `IN (…)` list or rows in one statement: large enough that the cost per statement vanishes, small enough to be prepared quickly.
const BATCH: usize = 400;
/// The format of the `state` column: this byte, then postcard.
const STATE_FORMAT: u8 = 1;

/// The setting that says until when the sweep leaves blobs alone.
const SWEEP_HELD: &str = "sweep_held_until_ms";

/// Every pack that a database names.
pub(super) async fn packs_of(conn: &mut SqliteConnection) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query("SELECT pack_id, length, created_at FROM packs").fetch_all(conn).await.map_err(store_error)?;
    rows.iter().map(sweep::pack_row).collect()
}

/// A writing transaction. Dropping it rolls back.
struct SqliteTx(Transaction<'static, sqlx::Sqlite>);

impl Sqlite {
    async fn begin_content(&self) -> Result<Box<dyn ContentTx>, StoreError> {
        let tx = self.writer().begin_with("BEGIN IMMEDIATE").await.map_err(store_error)?;
        Ok(Box::new(SqliteTx(tx)))
    }
}

/// An id or hash of `N` bytes from a column.
fn bytes<const N: usize>(row: &SqliteRow, column: usize) -> Result<[u8; N], StoreError> {
    let slice: &[u8] = row.try_get(column).map_err(store_error)?;
    slice.try_into().map_err(|_| StoreError::Corrupt(format!("column {column} has {} bytes instead of {N}", slice.len())))
}

/// A count that the schema keeps as a signed number.
fn count(row: &SqliteRow, column: usize) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(store_error)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("column {column} is negative")))
}

/// A number as the schema keeps it. What does not fit was refused by the service; saturating keeps the order.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn encode_state(state: &NodeState) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(state, vec![STATE_FORMAT]).map_err(|e| StoreError::Corrupt(format!("a node state cannot be encoded: {e}")))
}

fn decode_state(bytes: &[u8]) -> Result<NodeState, StoreError> {
    match bytes.split_first() {
        Some((&STATE_FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|e| StoreError::Corrupt(format!("a node state cannot be decoded: {e}")))
        }
        _ => Err(StoreError::Corrupt("a node state has an unknown format".into())),
    }
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Owner => "owner",
    }
}

pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "editor" => Ok(Role::Editor),
        "owner" => Ok(Role::Owner),
        _ => Err(StoreError::Corrupt(format!("unknown role '{text}'"))),
    }
}

fn user(row: &SqliteRow, column: usize) -> Result<UserId, StoreError> {
    bytes(row, column).map(UserId::from_bytes)
}
