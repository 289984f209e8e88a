//! Challenges and second factors. A code or an attempt is taken in one statement, so that of two callers with one code exactly one is first.

use super::super::accounts::user_id_of;
use super::super::{Sqlite, store_error};
use super::get;
use crate::store::StoreError;
use crate::store::accounts::SecretHash;
use crate::store::columns::damaged;
use crate::store::signin::Totp;
use ferry_protocol::UserId;
use sqlx::sqlite::SqliteConnection;

fn sql_step(step: u64) -> Result<i64, StoreError> {
    i64::try_from(step).map_err(|_| damaged("last_step"))
}

pub(super) async fn insert_challenge(db: &Sqlite, token: SecretHash, user_id: UserId, expires_at_ms: i64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO mfa_challenges (token_hash, user_id, expires_at) VALUES (?1, ?2, ?3)")
        .bind(token.as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(expires_at_ms)
        .execute(db.writer())
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn take_attempt(db: &Sqlite, token: SecretHash, now_ms: i64, attempts_max: u32) -> Result<Option<UserId>, StoreError> {
    let row = sqlx::query(
        "UPDATE mfa_challenges SET attempts = attempts + 1 WHERE token_hash = ?1 AND expires_at > ?2 AND attempts < ?3 RETURNING user_id",
    )
    .bind(token.as_slice())
    .bind(now_ms)
    .bind(i64::from(attempts_max))
    .fetch_optional(db.writer())
    .await
    .map_err(store_error)?;
    row.map(|row| user_id_of(get(&row, 0)?)).transpose()
}

pub(super) async fn end_challenge(db: &Sqlite, token: SecretHash) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM mfa_challenges WHERE token_hash = ?1")
        .bind(token.as_slice())
        .execute(db.writer())
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn put(db: &Sqlite, user_id: UserId, sealed: &[u8], now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO totp (user_id, sealed, created_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at WHERE totp.confirmed_at IS NULL",
    )
    .bind(user_id.as_bytes().as_slice())
    .bind(sealed)
    .bind(now_ms)
    .execute(db.writer())
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn get_totp(db: &Sqlite, user_id: UserId) -> Result<Option<Totp>, StoreError> {
    let row = sqlx::query("SELECT sealed, confirmed_at IS NOT NULL, last_step FROM totp WHERE user_id = ?1")
        .bind(user_id.as_bytes().as_slice())
        .fetch_optional(db.reader())
        .await
        .map_err(store_error)?;
    row.map(|row| {
        let last_step = u64::try_from(get::<i64>(&row, 2)?).map_err(|_| damaged("last_step"))?;
        Ok(Totp { sealed: get(&row, 0)?, is_confirmed: get(&row, 1)?, last_step })
    })
    .transpose()
}

async fn set_codes(connection: &mut SqliteConnection, user_id: UserId, codes: &[SecretHash]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = ?1")
        .bind(user_id.as_bytes().as_slice())
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    for code in codes {
        sqlx::query("INSERT INTO recovery_codes (user_id, code_hash) VALUES (?1, ?2)")
            .bind(user_id.as_bytes().as_slice())
            .bind(code.as_slice())
            .execute(&mut *connection)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn confirm(db: &Sqlite, user_id: UserId, step: u64, recovery: &[SecretHash], now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    let done = sqlx::query("UPDATE totp SET confirmed_at = ?2, last_step = ?3 WHERE user_id = ?1 AND confirmed_at IS NULL")
        .bind(user_id.as_bytes().as_slice())
        .bind(now_ms)
        .bind(sql_step(step)?)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    set_codes(&mut tx, user_id, recovery).await?;
    tx.commit().await.map_err(store_error)?;
    Ok(true)
}

pub(super) async fn use_step(db: &Sqlite, user_id: UserId, step: u64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE totp SET last_step = ?2 WHERE user_id = ?1 AND confirmed_at IS NOT NULL AND last_step < ?2")
        .bind(user_id.as_bytes().as_slice())
        .bind(sql_step(step)?)
        .execute(db.writer())
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn use_recovery_code(db: &Sqlite, user_id: UserId, code: SecretHash, now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE recovery_codes SET used_at = ?3 WHERE user_id = ?1 AND code_hash = ?2 AND used_at IS NULL")
        .bind(user_id.as_bytes().as_slice())
        .bind(code.as_slice())
        .bind(now_ms)
        .execute(db.writer())
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn replace_recovery_codes(db: &Sqlite, user_id: UserId, codes: &[SecretHash]) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    let row = sqlx::query("SELECT 1 FROM totp WHERE user_id = ?1 AND confirmed_at IS NOT NULL")
        .bind(user_id.as_bytes().as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(store_error)?;
    if row.is_none() {
        return Ok(false);
    }
    set_codes(&mut tx, user_id, codes).await?;
    tx.commit().await.map_err(store_error)?;
    Ok(true)
}

pub(super) async fn recovery_codes_left(db: &Sqlite, user_id: UserId) -> Result<u32, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM recovery_codes WHERE user_id = ?1 AND used_at IS NULL")
        .bind(user_id.as_bytes().as_slice())
        .fetch_one(db.reader())
        .await
        .map_err(store_error)?;
    u32::try_from(get::<i64>(&row, 0)?).map_err(|_| damaged("count"))
}

pub(super) async fn remove(db: &Sqlite, user_id: UserId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM totp WHERE user_id = ?1")
        .bind(user_id.as_bytes().as_slice())
        .execute(db.writer())
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}
