//! Values out of rows.

use super::{StoreError, store_error};
use crate::store::columns::damaged;
use ferry_protocol::{ChunkId, DeviceId, NamespaceId, NodeId, UserId};
use sqlx::Row;
use sqlx::postgres::PgRow;

/// An id or hash of `N` bytes from a column.
pub(super) fn bytes<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N], StoreError> {
    let slice: &[u8] = row.try_get(column).map_err(store_error)?;
    slice.try_into().map_err(|_| StoreError::Corrupt(format!("column {column} has {} bytes instead of {N}", slice.len())))
}

/// The same from a column that may be null.
pub(super) fn maybe_bytes<const N: usize>(row: &PgRow, column: usize) -> Result<Option<[u8; N]>, StoreError> {
    let is_given = row.try_get::<Option<&[u8]>, _>(column).map_err(store_error)?.is_some();
    if is_given { bytes(row, column).map(Some) } else { Ok(None) }
}

/// A count that the schema keeps as a signed number.
pub(super) fn count(row: &PgRow, column: usize) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(store_error)?;
    u64::try_from(value).map_err(|_| damaged("of a count"))
}

pub(super) fn user(row: &PgRow, column: usize) -> Result<UserId, StoreError> {
    bytes(row, column).map(UserId::from_bytes)
}

pub(super) fn maybe_user(row: &PgRow, column: usize) -> Result<Option<UserId>, StoreError> {
    Ok(maybe_bytes(row, column)?.map(UserId::from_bytes))
}

pub(super) fn device(row: &PgRow, column: usize) -> Result<DeviceId, StoreError> {
    bytes(row, column).map(DeviceId::from_bytes)
}

pub(super) fn maybe_device(row: &PgRow, column: usize) -> Result<Option<DeviceId>, StoreError> {
    Ok(maybe_bytes(row, column)?.map(DeviceId::from_bytes))
}

pub(super) fn namespace(row: &PgRow, column: usize) -> Result<NamespaceId, StoreError> {
    bytes(row, column).map(NamespaceId::from_bytes)
}

pub(super) fn node(row: &PgRow, column: usize) -> Result<NodeId, StoreError> {
    bytes(row, column).map(NodeId::from_bytes)
}

pub(super) fn chunk(row: &PgRow, column: usize) -> Result<ChunkId, StoreError> {
    bytes(row, column).map(ChunkId::from_bytes)
}

/// Ids as one array, by rising bytes and each once: locks are taken in that order (PG2).
pub(super) fn sorted<'a>(ids: impl IntoIterator<Item = &'a ChunkId>) -> Vec<Vec<u8>> {
    let set: std::collections::BTreeSet<&ChunkId> = ids.into_iter().collect();
    set.into_iter().map(|id| id.as_bytes().to_vec()).collect()
}
