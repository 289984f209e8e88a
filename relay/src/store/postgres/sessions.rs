//! Sessions and refresh tokens on PostgreSQL. A token is exchanged under the lock of its session's row, so that of two callers exactly one is first.

use super::rows::{bytes, maybe_device, maybe_user, user};
use super::{Postgres, store_error};
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{CodeKind, NewCode, NewToken, Rotation, SecretHash, Session, SessionAccess};
use crate::store::columns::user_role;
use ferry_protocol::UserId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

fn session_of(row: &PgRow) -> Result<Session, StoreError> {
    Ok(Session {
        session_id: SessionId::from_bytes(bytes(row, 0)?),
        user_id: user(row, 1)?,
        device_id: maybe_device(row, 2)?,
        created_at_ms: row.try_get(3).map_err(store_error)?,
        last_used_at_ms: row.try_get(4).map_err(store_error)?,
        expires_at_ms: row.try_get(5).map_err(store_error)?,
        revoked_at_ms: row.try_get(6).map_err(store_error)?,
    })
}

async fn insert_token(
    conn: &mut PgConnection,
    session_id: SessionId,
    parent: Option<SecretHash>,
    token: &NewToken,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, parent_hash, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(token.hash.to_vec())
        .bind(session_id.as_bytes().to_vec())
        .bind(parent.map(|p| p.to_vec()))
        .bind(now_ms)
        .bind(token.expires_at_ms)
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn insert(db: &Postgres, session: &Session, token: &NewToken) -> Result<(), StoreError> {
    let mut tx = db.directory().begin().await?;
    insert_row(tx.conn(), session).await?;
    insert_token(tx.conn(), session.session_id, None, token, session.created_at_ms).await?;
    tx.commit().await
}

pub(super) async fn insert_row(conn: &mut PgConnection, session: &Session) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (session_id, user_id, device_id, created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(session.session_id.as_bytes().to_vec())
    .bind(session.user_id.as_bytes().to_vec())
    .bind(session.device_id.map(|d| d.as_bytes().to_vec()))
    .bind(session.created_at_ms)
    .bind(session.last_used_at_ms)
    .bind(session.expires_at_ms)
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

pub(super) async fn access(db: &Postgres, session_id: SessionId) -> Result<Option<SessionAccess>, StoreError> {
    let row = sqlx::query(
        "SELECT s.user_id, s.device_id, u.role,
         s.revoked_at IS NULL AND NOT u.disabled AND (d.device_id IS NULL OR d.revoked_at IS NULL)
         FROM sessions s JOIN users u ON u.user_id = s.user_id LEFT JOIN devices d ON d.device_id = s.device_id WHERE s.session_id = $1",
    )
    .bind(session_id.as_bytes().to_vec())
    .fetch_optional(&mut *db.directory().read().await?)
    .await
    .map_err(store_error)?;
    row.map(|row| {
        Ok(SessionAccess {
            user_id: user(&row, 0)?,
            device_id: maybe_device(&row, 1)?,
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

/// Locks the session of a token, then reads both as they are under the lock.
async fn find(conn: &mut PgConnection, hash: SecretHash) -> Result<Option<Found>, StoreError> {
    let locked =
        sqlx::query("SELECT 1 FROM sessions WHERE session_id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1) FOR UPDATE")
            .bind(hash.to_vec())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?;
    if locked.is_none() {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT s.session_id, s.user_id, s.device_id, s.created_at, s.last_used_at, s.expires_at, s.revoked_at,
         s.revoked_at IS NULL AND NOT u.disabled AND (d.device_id IS NULL OR d.revoked_at IS NULL), t.expires_at, t.used_at,
         EXISTS (SELECT 1 FROM refresh_tokens c WHERE c.parent_hash = t.token_hash AND c.used_at IS NOT NULL)
         FROM refresh_tokens t JOIN sessions s ON s.session_id = t.session_id JOIN users u ON u.user_id = s.user_id
         LEFT JOIN devices d ON d.device_id = s.device_id WHERE t.token_hash = $1",
    )
    .bind(hash.to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
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

pub(super) async fn rotate(db: &Postgres, old: SecretHash, new: &NewToken, now_ms: i64, tolerance_ms: i64) -> Result<Rotation, StoreError> {
    let mut tx = db.directory().begin().await?;
    let Some(found) = find(tx.conn(), old).await? else { return Ok(Rotation::Dead) };
    let mut session = found.session;
    if !found.live || found.token_expires_at_ms <= now_ms {
        return Ok(Rotation::Dead);
    }
    let parallel = !found.successor_used && found.used_at_ms.is_some_and(|used| now_ms - used <= tolerance_ms);
    if found.used_at_ms.is_some() && !parallel {
        revoke_one(tx.conn(), session.session_id, "refresh token used twice", now_ms).await?;
        tx.commit().await?;
        return Ok(Rotation::Reused(session));
    }
    sqlx::query("UPDATE refresh_tokens SET used_at = coalesce(used_at, $2) WHERE token_hash = $1")
        .bind(old.to_vec())
        .bind(now_ms)
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
    insert_token(tx.conn(), session.session_id, Some(old), new, now_ms).await?;
    sqlx::query("UPDATE sessions SET last_used_at = $2, expires_at = greatest(expires_at, $3) WHERE session_id = $1")
        .bind(session.session_id.as_bytes().to_vec())
        .bind(now_ms)
        .bind(new.expires_at_ms)
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
    sqlx::query("UPDATE devices SET last_seen_at = greatest(last_seen_at, $2) WHERE device_id = $1")
        .bind(session.device_id.map(|d| d.as_bytes().to_vec()))
        .bind(now_ms)
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
    tx.commit().await?;
    session.last_used_at_ms = now_ms;
    session.expires_at_ms = session.expires_at_ms.max(new.expires_at_ms);
    Ok(Rotation::Rotated(session))
}

pub(super) async fn list(db: &Postgres, user_id: UserId, now_ms: i64) -> Result<Vec<Session>, StoreError> {
    let rows = sqlx::query(
        "SELECT session_id, user_id, device_id, created_at, last_used_at, expires_at, revoked_at FROM sessions
         WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY created_at, session_id",
    )
    .bind(user_id.as_bytes().to_vec())
    .bind(now_ms)
    .fetch_all(&mut *db.directory().read().await?)
    .await
    .map_err(store_error)?;
    rows.iter().map(session_of).collect()
}

async fn revoke_one(conn: &mut PgConnection, session_id: SessionId, why: &str, now_ms: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE sessions SET revoked_at = $2, revoked_why = $3 WHERE session_id = $1 AND revoked_at IS NULL")
        .bind(session_id.as_bytes().to_vec())
        .bind(now_ms)
        .bind(why)
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn revoke(db: &Postgres, user_id: UserId, session_id: SessionId, why: &str, now_ms: i64) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE sessions SET revoked_at = $3, revoked_why = $4 WHERE session_id = $1 AND user_id = $2 AND revoked_at IS NULL")
            .bind(session_id.as_bytes().to_vec())
            .bind(user_id.as_bytes().to_vec())
            .bind(now_ms)
            .bind(why)
            .execute(&mut *db.directory().read().await?)
            .await
            .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn revoke_all(
    db: &Postgres,
    user_id: UserId,
    except: Option<SessionId>,
    why: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sessions SET revoked_at = $3, revoked_why = $4
         WHERE user_id = $1 AND session_id IS DISTINCT FROM $2 AND revoked_at IS NULL",
    )
    .bind(user_id.as_bytes().to_vec())
    .bind(except.map(|s| s.as_bytes().to_vec()))
    .bind(now_ms)
    .bind(why)
    .execute(&mut *db.directory().read().await?)
    .await
    .map(drop)
    .map_err(store_error)
}

/// The codes of a kind that can still be used, the oldest first.
pub(super) async fn open_codes(conn: &mut PgConnection, kind: CodeKind, now_ms: i64, limit: u32) -> Result<Vec<NewCode>, StoreError> {
    let rows = sqlx::query(
        "SELECT code_hash, user_id, created_at, expires_at FROM one_time_codes WHERE kind = $1 AND used_at IS NULL AND expires_at > $2
         ORDER BY created_at, code_hash LIMIT $3",
    )
    .bind(kind.as_str())
    .bind(now_ms)
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row: &PgRow| {
        Ok(NewCode {
            hash: bytes(row, 0)?,
            kind,
            user_id: maybe_user(row, 1)?,
            created_at_ms: row.try_get(2).map_err(store_error)?,
            expires_at_ms: row.try_get(3).map_err(store_error)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Takes a code back that was not used.
pub(super) async fn revoke_code(conn: &mut PgConnection, hash: SecretHash, kind: CodeKind) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM one_time_codes WHERE code_hash = $1 AND kind = $2 AND used_at IS NULL")
        .bind(hash.to_vec())
        .bind(kind.as_str())
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}
