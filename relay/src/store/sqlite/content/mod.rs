//! Content on SQLite. Reads run on the reader pool, a [`ContentTx`] on the one writer connection.

mod activity;
mod chunks;
mod dav;
mod history;
mod nodes;
mod purge;
mod read;
mod regions;
mod repair;
mod search;
mod sweep;
mod tree;
mod uploads;
mod versions;
mod write;

use super::{Sqlite, StoreError, store_error};
use crate::store::columns::{decode_state, encode_state, role, role_text, signed};
use crate::store::content::{ContentTx, Identity, PackRow};
use ferry_protocol::UserId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, Transaction};

/// Values in one `IN (…)` list or rows in one statement: large enough that the cost per statement vanishes, small enough to be prepared quickly.
const BATCH: usize = 400;

/// Every pack that a database names.
pub(super) async fn packs_of(conn: &mut SqliteConnection) -> Result<Vec<PackRow>, StoreError> {
    let rows = sqlx::query("SELECT pack_id, length, created_at FROM packs").fetch_all(conn).await.map_err(store_error)?;
    rows.iter().map(sweep::pack_row).collect()
}

/// A writing transaction. Dropping it rolls back.
struct SqliteTx {
    tx: Transaction<'static, sqlx::Sqlite>,
    identity: Option<Identity>,
}

impl Sqlite {
    async fn begin_content(&self) -> Result<Box<dyn ContentTx>, StoreError> {
        let tx = self.writer().begin_with("BEGIN IMMEDIATE").await.map_err(store_error)?;
        Ok(Box::new(SqliteTx { tx, identity: self.known_identity() }))
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

fn user(row: &SqliteRow, column: usize) -> Result<UserId, StoreError> {
    bytes(row, column).map(UserId::from_bytes)
}
