//! Sessions and refresh tokens on SQLite. A token is exchanged in one transaction, so that of two callers exactly one is first.

use super::accounts::{device_id_of, user_id_of};
use super::{Sqlite, store_error};
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{NewToken, Rotation, SecretHash, Session, SessionAccess};
use crate::store::columns::user_role;
use ferry_protocol::UserId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

const LIVE: &str = "s.revoked_at IS NULL AND u.disabled = 0 AND (d.device_id IS NULL OR d.revoked_at IS NULL)";
const JOINED: &str = "sessions s JOIN users u ON u.user_id = s.user_id LEFT JOIN devices d ON d.device_id = s.device_id";

fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    let id: &[u8] = row.try_get(0).map_err(store_error)?;
    Ok(Session {
        session_id: SessionId::from_slice(id).ok_or_else(|| StoreError::Corrupt("column session_id holds what it cannot hold".into()))?,
        user_id: user_id_of(row.try_get::<&[u8], _>(1).map_err(store_error)?)?,
        device_id: device_id_of(row.try_get(2).map_err(store_error)?)?,
        created_at_ms: row.try_get(3).map_err(store_error)?,
        last_used_at_ms: row.try_get(4).map_err(store_error)?,
        expires_at_ms: row.try_get(5).map_err(store_error)?,
        revoked_at_ms: row.try_get(6).map_err(store_error)?,
    })
}

async fn insert_token(
    connection: &mut SqliteConnection,
    session_id: SessionId,
    parent: Option<SecretHash>,
    token: &NewToken,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, parent_hash, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(token.hash.as_slice())
        .bind(session_id.as_bytes().as_slice())
        .bind(parent.as_ref().map(SecretHash::as_slice))
        .bind(now_ms)
        .bind(token.expires_at_ms)
        .execute(connection)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn insert(db: &Sqlite, session: &Session, token: &NewToken) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    insert_row(&mut tx, session).await?;
    insert_token(&mut tx, session.session_id, None, token, session.created_at_ms).await?;
    tx.commit().await.map_err(store_error)
}

pub(super) async fn insert_row(connection: &mut SqliteConnection, session: &Session) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (session_id, user_id, device_id, created_at, last_used_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(session.session_id.as_bytes().as_slice())
    .bind(session.user_id.as_bytes().as_slice())
    .bind(session.device_id.as_ref().map(|d| d.as_bytes().as_slice()))
    .bind(session.created_at_ms)
    .bind(session.last_used_at_ms)
    .bind(session.expires_at_ms)
    .execute(connection)
    .await
    .map(drop)
    .map_err(store_error)
}

pub(super) async fn access(db: &Sqlite, session_id: SessionId) -> Result<Option<SessionAccess>, StoreError> {
    let sql = format!("SELECT s.user_id, s.device_id, u.role, {LIVE} FROM {JOINED} WHERE s.session_id = ?1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(session_id.as_bytes().as_slice())
        .fetch_optional(db.reader())
        .await
        .map_err(store_error)?;
    row.map(|row| {
        Ok(SessionAccess {
            user_id: user_id_of(row.try_get::<&[u8], _>(0).map_err(store_error)?)?,
            device_id: device_id_of(row.try_get(1).map_err(store_error)?)?,
            role: user_role(row.try_get::<&str, _>(2).map_err(store_error)?)?,
            live: row.try_get(3).map_err(store_error)?,
        })
    })
    .transpose()
}

/// A refresh token as it stands, with its session.
struct Found {
    session: Session,
    live: bool,
    token_expires_at_ms: i64,
    used_at_ms: Option<i64>,
    successor_used: bool,
}

async fn find(connection: &mut SqliteConnection, hash: SecretHash) -> Result<Option<Found>, StoreError> {
    let sql = format!(
        "SELECT s.session_id, s.user_id, s.device_id, s.created_at, s.last_used_at, s.expires_at, s.revoked_at, {LIVE}, t.expires_at, t.used_at,
         EXISTS (SELECT 1 FROM refresh_tokens c WHERE c.parent_hash = t.token_hash AND c.used_at IS NOT NULL)
         FROM refresh_tokens t JOIN {JOINED} ON s.session_id = t.session_id WHERE t.token_hash = ?1",
        JOINED = "(sessions s JOIN users u ON u.user_id = s.user_id LEFT JOIN devices d ON d.device_id = s.device_id)"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(hash.as_slice()).fetch_optional(connection).await.map_err(store_error)?;
    row.map(|row| {
        Ok(Found {
            session: session_of(&row)?,
            live: row.try_get(7).map_err(store_error)?,
            token_expires_at_ms: row.try_get(8).map_err(store_error)?,
            used_at_ms: row.try_get(9).map_err(store_error)?,
            successor_used: row.try_get(10).map_err(store_error)?,
        })
    })
    .transpose()
}

pub(super) async fn rotate(db: &Sqlite, old: SecretHash, new: &NewToken, now_ms: i64, tolerance_ms: i64) -> Result<Rotation, StoreError> {
    let mut tx = db.begin().await?;
    let Some(found) = find(&mut tx, old).await? else { return Ok(Rotation::Dead) };
    let mut session = found.session;
    if !found.live || found.token_expires_at_ms <= now_ms {
        return Ok(Rotation::Dead);
    }
    let parallel = !found.successor_used && found.used_at_ms.is_some_and(|used| now_ms - used <= tolerance_ms);
    if found.used_at_ms.is_some() && !parallel {
        revoke_one(&mut tx, session.session_id, "refresh token used twice", now_ms).await?;
        tx.commit().await.map_err(store_error)?;
        return Ok(Rotation::Reused(session));
    }
    sqlx::query("UPDATE refresh_tokens SET used_at = coalesce(used_at, ?2) WHERE token_hash = ?1")
        .bind(old.as_slice())
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
    insert_token(&mut tx, session.session_id, Some(old), new, now_ms).await?;
    sqlx::query("UPDATE sessions SET last_used_at = ?2, expires_at = max(expires_at, ?3) WHERE session_id = ?1")
        .bind(session.session_id.as_bytes().as_slice())
        .bind(now_ms)
        .bind(new.expires_at_ms)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
    sqlx::query("UPDATE devices SET last_seen_at = max(last_seen_at, ?2) WHERE device_id = ?1")
        .bind(session.device_id.as_ref().map(|d| d.as_bytes().as_slice()))
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
    tx.commit().await.map_err(store_error)?;
    session.last_used_at_ms = now_ms;
    session.expires_at_ms = session.expires_at_ms.max(new.expires_at_ms);
    Ok(Rotation::Rotated(session))
}

pub(super) async fn list(db: &Sqlite, user_id: UserId, now_ms: i64) -> Result<Vec<Session>, StoreError> {
    let rows = sqlx::query(
        "SELECT session_id, user_id, device_id, created_at, last_used_at, expires_at, revoked_at FROM sessions
         WHERE user_id = ?1 AND revoked_at IS NULL AND expires_at > ?2 ORDER BY created_at, session_id",
    )
    .bind(user_id.as_bytes().as_slice())
    .bind(now_ms)
    .fetch_all(db.reader())
    .await
    .map_err(store_error)?;
    rows.iter().map(session_of).collect()
}

async fn revoke_one(connection: &mut SqliteConnection, session_id: SessionId, why: &str, now_ms: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE sessions SET revoked_at = ?2, revoked_why = ?3 WHERE session_id = ?1 AND revoked_at IS NULL")
        .bind(session_id.as_bytes().as_slice())
        .bind(now_ms)
        .bind(why)
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn revoke(db: &Sqlite, user_id: UserId, session_id: SessionId, why: &str, now_ms: i64) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE sessions SET revoked_at = ?3, revoked_why = ?4 WHERE session_id = ?1 AND user_id = ?2 AND revoked_at IS NULL")
            .bind(session_id.as_bytes().as_slice())
            .bind(user_id.as_bytes().as_slice())
            .bind(now_ms)
            .bind(why)
            .execute(db.writer())
            .await
            .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn revoke_all(db: &Sqlite, user_id: UserId, except: Option<SessionId>, why: &str, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET revoked_at = ?3, revoked_why = ?4 WHERE user_id = ?1 AND session_id IS NOT ?2 AND revoked_at IS NULL")
        .bind(user_id.as_bytes().as_slice())
        .bind(except.as_ref().map(|s| s.as_bytes().as_slice()))
        .bind(now_ms)
        .bind(why)
        .execute(db.writer())
        .await
        .map(drop)
        .map_err(store_error)
}
