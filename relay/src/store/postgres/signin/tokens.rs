//! App passwords.

use super::super::{Postgres, store_error};
use super::{get, user_id_of};
use crate::service::{Scopes, SessionId, TokenFolder};
use crate::store::StoreError;
use crate::store::accounts::SecretHash;
use crate::store::columns::{damaged, user_role};
use crate::store::signin::{ApiToken, TokenAccess};
use ferry_protocol::{NamespaceId, NodeId, UserId};
use sqlx::postgres::PgRow;

const COLUMNS: &str =
    "t.token_id, t.user_id, t.name, t.scopes, t.namespace_id, t.directory_id, t.path, t.created_at, t.expires_at, t.last_used_at,
    t.last_used_ip, t.revoked_at";
const GOOD: &str = "user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";

fn token_of(row: &PgRow) -> Result<ApiToken, StoreError> {
    let folder = match (get::<Option<&[u8]>>(row, 4)?, get::<Option<&[u8]>>(row, 5)?) {
        (Some(namespace), Some(directory)) => Some(TokenFolder {
            namespace: NamespaceId::from_slice(namespace).ok_or_else(|| damaged("namespace_id"))?,
            directory: NodeId::from_slice(directory).ok_or_else(|| damaged("directory_id"))?,
        }),
        _ => None,
    };
    Ok(ApiToken {
        token_id: SessionId::from_slice(get(row, 0)?).ok_or_else(|| damaged("token_id"))?,
        user_id: user_id_of(get(row, 1)?)?,
        name: get(row, 2)?,
        scopes: u8::try_from(get::<i64>(row, 3)?).ok().and_then(Scopes::from_bits).ok_or_else(|| damaged("scopes"))?,
        folder,
        path: get(row, 6)?,
        created_at_ms: get(row, 7)?,
        expires_at_ms: get(row, 8)?,
        last_used_at_ms: get(row, 9)?,
        last_used_ip: get(row, 10)?,
        revoked_at_ms: get(row, 11)?,
    })
}

pub(super) async fn insert(db: &Postgres, token: &ApiToken, hash: SecretHash, tokens_max: u32) -> Result<bool, StoreError> {
    let mut tx = db.directory().begin().await?;
    // Counted and stored as one.
    sqlx::query("SELECT 1 FROM users WHERE user_id = $1 FOR UPDATE")
        .bind(token.user_id.as_bytes().to_vec())
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM api_tokens WHERE {GOOD}")))
        .bind(token.user_id.as_bytes().to_vec())
        .bind(token.created_at_ms)
        .fetch_one(tx.conn())
        .await
        .map_err(store_error)?;
    if get::<i64>(&row, 0)? >= i64::from(tokens_max) {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO api_tokens (token_id, token_hash, user_id, name, scopes, namespace_id, directory_id, path, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(token.token_id.as_bytes().to_vec())
    .bind(hash.to_vec())
    .bind(token.user_id.as_bytes().to_vec())
    .bind(&token.name)
    .bind(i64::from(token.scopes.bits()))
    .bind(token.folder.as_ref().map(|f| f.namespace.as_bytes().to_vec()))
    .bind(token.folder.as_ref().map(|f| f.directory.as_bytes().to_vec()))
    .bind(token.path.as_deref())
    .bind(token.created_at_ms)
    .bind(token.expires_at_ms)
    .execute(tx.conn())
    .await
    .map_err(store_error)?;
    tx.commit().await?;
    Ok(true)
}

pub(super) async fn list(db: &Postgres, user_id: UserId, now_ms: i64) -> Result<Vec<ApiToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_tokens t WHERE {GOOD} ORDER BY created_at, token_id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user_id.as_bytes().to_vec())
        .bind(now_ms)
        .fetch_all(&mut *db.directory().read().await?)
        .await
        .map_err(store_error)?;
    rows.iter().map(token_of).collect()
}

pub(super) async fn by_hash(db: &Postgres, hash: SecretHash) -> Result<Option<TokenAccess>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, u.role, u.email_key, u.disabled FROM api_tokens t JOIN users u ON u.user_id = t.user_id WHERE t.token_hash = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(hash.to_vec())
        .fetch_optional(&mut *db.directory().read().await?)
        .await
        .map_err(store_error)?;
    row.map(|row| {
        Ok(TokenAccess { token: token_of(&row)?, role: user_role(get(&row, 12)?)?, email_key: get(&row, 13)?, disabled: get(&row, 14)? })
    })
    .transpose()
}

pub(super) async fn touch(db: &Postgres, token_id: SessionId, ip: &str, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE api_tokens SET last_used_at = greatest(coalesce(last_used_at, 0), $2), last_used_ip = $3 WHERE token_id = $1")
        .bind(token_id.as_bytes().to_vec())
        .bind(now_ms)
        .bind(ip)
        .execute(&mut *db.directory().read().await?)
        .await
        .map(drop)
        .map_err(store_error)
}

pub(super) async fn revoke(db: &Postgres, user_id: UserId, token_id: SessionId, now_ms: i64) -> Result<bool, StoreError> {
    let sql = format!("UPDATE api_tokens SET revoked_at = $2 WHERE {GOOD} AND token_id = $3");
    let done = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user_id.as_bytes().to_vec())
        .bind(now_ms)
        .bind(token_id.as_bytes().to_vec())
        .execute(&mut *db.directory().read().await?)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}
