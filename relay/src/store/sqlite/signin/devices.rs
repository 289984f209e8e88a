//! Devices that ask to be let in, and the cookies of browsers.

use super::super::accounts::user_id_of;
use super::super::{Sqlite, store_error};
use super::get;
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{SecretHash, Session};
use crate::store::columns::damaged;
use crate::store::signin::{DeviceRequest, Poll, RequestState, RequestStored};
use ferry_protocol::UserId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

const COLUMNS: &str = "device_code_hash, user_code_hash, device_name, public_key, system, remote_ip, interval_ms, created_at, expires_at, state, user_id, next_poll_at, remote_net";

fn hash_of(row: &SqliteRow, column: usize) -> Result<SecretHash, StoreError> {
    get::<&[u8]>(row, column)?.try_into().map_err(|_| damaged("a hash"))
}

fn session_id_of(bytes: &[u8]) -> Result<SessionId, StoreError> {
    SessionId::from_slice(bytes).ok_or_else(|| damaged("session_id"))
}

/// A request, what became of it, and when it may be asked about next.
fn request_of(row: &SqliteRow) -> Result<(DeviceRequest, RequestState, i64), StoreError> {
    let request = DeviceRequest {
        device_code: hash_of(row, 0)?,
        user_code: hash_of(row, 1)?,
        device_name: get(row, 2)?,
        public_key: hash_of(row, 3)?,
        system: get(row, 4)?,
        remote_ip: get(row, 5)?,
        remote_net: get(row, 12)?,
        interval_ms: get(row, 6)?,
        created_at_ms: get(row, 7)?,
        expires_at_ms: get(row, 8)?,
    };
    let user = get::<Option<&[u8]>>(row, 10)?.map(user_id_of).transpose()?;
    let state = match (get::<&str>(row, 9)?, user) {
        ("waiting", _) => RequestState::Waiting,
        ("approved", Some(user)) => RequestState::Approved(user),
        ("denied", _) => RequestState::Denied,
        ("used", _) => RequestState::Used,
        _ => return Err(damaged("state")),
    };
    Ok((request, state, get(row, 11)?))
}

pub(super) async fn insert(db: &Sqlite, request: &DeviceRequest, max: u32, window_ms: i64) -> Result<RequestStored, StoreError> {
    let mut tx = db.begin().await?;
    let since_ms = request.created_at_ms.saturating_sub(window_ms);
    let row = sqlx::query("SELECT count(*), min(created_at) FROM device_requests WHERE remote_net = ?1 AND created_at > ?2")
        .bind(&request.remote_net)
        .bind(since_ms)
        .fetch_one(&mut *tx)
        .await
        .map_err(store_error)?;
    if get::<i64>(&row, 0)? >= i64::from(max) {
        let first_ms = get::<Option<i64>>(&row, 1)?.unwrap_or(since_ms);
        return Ok(RequestStored::TooMany { again_at_ms: first_ms.saturating_add(window_ms) });
    }
    let done = sqlx::query(
        "INSERT INTO device_requests (device_code_hash, user_code_hash, device_name, public_key, system, remote_ip, remote_net, next_poll_at,
         interval_ms, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (user_code_hash) DO NOTHING",
    )
    .bind(request.device_code.as_slice())
    .bind(request.user_code.as_slice())
    .bind(&request.device_name)
    .bind(request.public_key.as_slice())
    .bind(&request.system)
    .bind(&request.remote_ip)
    .bind(&request.remote_net)
    .bind(request.created_at_ms)
    .bind(request.interval_ms)
    .bind(request.created_at_ms)
    .bind(request.expires_at_ms)
    .execute(&mut *tx)
    .await
    .map_err(store_error)?;
    tx.commit().await.map_err(store_error)?;
    Ok(if done.rows_affected() == 1 { RequestStored::Stored } else { RequestStored::CodeTaken })
}

pub(super) async fn by_user_code(db: &Sqlite, user_code: SecretHash) -> Result<Option<(DeviceRequest, RequestState)>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM device_requests WHERE user_code_hash = ?1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user_code.as_slice()).fetch_optional(db.reader()).await.map_err(store_error)?;
    row.as_ref().map(|row| request_of(row).map(|(request, state, _)| (request, state))).transpose()
}

pub(super) async fn decide(db: &Sqlite, user_code: SecretHash, by: Option<UserId>, now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE device_requests SET state = CASE WHEN ?2 IS NULL THEN 'denied' ELSE 'approved' END, user_id = ?2
         WHERE user_code_hash = ?1 AND state = 'waiting' AND expires_at > ?3",
    )
    .bind(user_code.as_slice())
    .bind(by.as_ref().map(|u| u.as_bytes().as_slice()))
    .bind(now_ms)
    .execute(db.writer())
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn poll(db: &Sqlite, device_code: SecretHash, now_ms: i64, slow_by_ms: i64) -> Result<Poll, StoreError> {
    let mut tx = db.begin().await?;
    let sql = format!("SELECT {COLUMNS} FROM device_requests WHERE device_code_hash = ?1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(device_code.as_slice()).fetch_optional(&mut *tx).await.map_err(store_error)?;
    let Some(row) = row else { return Ok(Poll::Unknown) };
    let (request, state, next_poll_at_ms) = request_of(&row)?;
    let answer = match state {
        RequestState::Used => return Ok(Poll::Unknown),
        _ if request.expires_at_ms <= now_ms => return Ok(Poll::Expired),
        RequestState::Denied => return Ok(Poll::Denied),
        _ if now_ms < next_poll_at_ms => {
            pace(&mut tx, device_code, now_ms, request.interval_ms.saturating_add(slow_by_ms)).await?;
            Poll::TooSoon
        }
        RequestState::Waiting => {
            pace(&mut tx, device_code, now_ms, request.interval_ms).await?;
            Poll::Waiting
        }
        RequestState::Approved(user) => {
            sqlx::query("UPDATE device_requests SET state = 'used' WHERE device_code_hash = ?1")
                .bind(device_code.as_slice())
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
            Poll::Approved(Box::new(request), user)
        }
    };
    tx.commit().await.map_err(store_error)?;
    Ok(answer)
}

async fn pace(connection: &mut SqliteConnection, device_code: SecretHash, now_ms: i64, interval_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE device_requests SET interval_ms = ?2, next_poll_at = ?3 WHERE device_code_hash = ?1")
        .bind(device_code.as_slice())
        .bind(interval_ms)
        .bind(now_ms.saturating_add(interval_ms))
        .execute(connection)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn insert_web_session(db: &Sqlite, session: &Session, cookie: SecretHash) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    super::super::sessions::insert_row(&mut tx, session).await?;
    sqlx::query("INSERT INTO web_sessions (cookie_hash, session_id) VALUES (?1, ?2)")
        .bind(cookie.as_slice())
        .bind(session.session_id.as_bytes().as_slice())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
    tx.commit().await.map_err(store_error)
}

pub(super) async fn web_session(db: &Sqlite, cookie: SecretHash) -> Result<Option<(SessionId, i64)>, StoreError> {
    let row = sqlx::query(
        "SELECT s.session_id, s.expires_at FROM web_sessions w JOIN sessions s ON s.session_id = w.session_id WHERE w.cookie_hash = ?1",
    )
    .bind(cookie.as_slice())
    .fetch_optional(db.reader())
    .await
    .map_err(store_error)?;
    row.map(|row| Ok((session_id_of(get(&row, 0)?)?, get(&row, 1)?))).transpose()
}

pub(super) async fn session_of_refresh(db: &Sqlite, token: SecretHash) -> Result<Option<(UserId, SessionId)>, StoreError> {
    let row = sqlx::query(
        "SELECT s.user_id, s.session_id FROM refresh_tokens t JOIN sessions s ON s.session_id = t.session_id WHERE t.token_hash = ?1",
    )
    .bind(token.as_slice())
    .fetch_optional(db.reader())
    .await
    .map_err(store_error)?;
    row.map(|row| Ok((user_id_of(get(&row, 0)?)?, session_id_of(get(&row, 1)?)?))).transpose()
}
