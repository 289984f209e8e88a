//! Accounts at other providers.

use super::super::accounts::{insert_user as insert_user_row, user_id_of};
use super::super::{Sqlite, store_error};
use super::get;
use crate::store::StoreError;
use crate::store::accounts::User;
use crate::store::signin::Identity;
use ferry_protocol::UserId;
use sqlx::sqlite::SqliteConnection;

async fn insert(connection: &mut SqliteConnection, identity: &Identity, user_id: UserId, now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO identities (issuer, subject, user_id, email, created_at, last_used_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .bind(user_id.as_bytes().as_slice())
    .bind(&identity.email)
    .bind(now_ms)
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn use_one(db: &Sqlite, issuer: &str, subject: &str, now_ms: i64) -> Result<Option<UserId>, StoreError> {
    let row = sqlx::query("UPDATE identities SET last_used_at = ?3 WHERE issuer = ?1 AND subject = ?2 RETURNING user_id")
        .bind(issuer)
        .bind(subject)
        .bind(now_ms)
        .fetch_optional(db.writer())
        .await
        .map_err(store_error)?;
    row.map(|row| user_id_of(get(&row, 0)?)).transpose()
}

pub(super) async fn link(db: &Sqlite, identity: &Identity, user_id: UserId, now_ms: i64) -> Result<bool, StoreError> {
    let mut connection = db.writer().acquire().await.map_err(store_error)?;
    insert(&mut connection, identity, user_id, now_ms).await
}

pub(super) async fn insert_user(db: &Sqlite, user: &User, identity: &Identity) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    if !insert_user_row(&mut tx, user).await? || !insert(&mut tx, identity, user.user_id, user.created_at_ms).await? {
        return Ok(false);
    }
    tx.commit().await.map_err(store_error)?;
    Ok(true)
}

pub(super) async fn list(db: &Sqlite, user_id: UserId) -> Result<Vec<Identity>, StoreError> {
    let rows = sqlx::query("SELECT issuer, subject, email FROM identities WHERE user_id = ?1 ORDER BY issuer, subject")
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(db.reader())
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| Ok(Identity { issuer: get(row, 0)?, subject: get(row, 1)?, email: get(row, 2)? })).collect()
}
