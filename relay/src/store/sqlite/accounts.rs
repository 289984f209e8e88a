//! [`AccountStore`] on SQLite: users, devices, settings, codes, audit. Sessions are in [`super::sessions`].

use super::{Sqlite, sessions, store_error};
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{
    AccountStore, AuditEntry, CodeKind, CodeUse, Device, DeviceStored, FirstAdmin, NewCode, NewToken, Rotation, SecretHash, Session,
    SessionAccess, User, UserChange,
};
use crate::store::columns::{damaged, signed, user_role, user_role_text};
use async_trait::async_trait;
use ferry_protocol::{DeviceId, UserId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

const USER_COLUMNS: &str = "user_id, email, email_key, name, password_hash, role, storage_used, storage_limit, disabled, created_at";

pub(super) fn user_id_of(bytes: &[u8]) -> Result<UserId, StoreError> {
    UserId::from_slice(bytes).ok_or_else(|| damaged("user_id"))
}

pub(super) fn device_id_of(bytes: Option<Vec<u8>>) -> Result<Option<DeviceId>, StoreError> {
    bytes.map(|b| DeviceId::from_slice(&b).ok_or_else(|| damaged("device_id"))).transpose()
}

fn user_of(row: &SqliteRow) -> Result<User, StoreError> {
    Ok(User {
        user_id: user_id_of(row.try_get::<&[u8], _>(0).map_err(store_error)?)?,
        email: row.try_get(1).map_err(store_error)?,
        email_key: row.try_get(2).map_err(store_error)?,
        name: row.try_get(3).map_err(store_error)?,
        password_hash: row.try_get(4).map_err(store_error)?,
        role: user_role(row.try_get::<&str, _>(5).map_err(store_error)?)?,
        storage_used_bytes: u64::try_from(row.try_get::<i64, _>(6).map_err(store_error)?).map_err(|_| damaged("storage_used"))?,
        storage_limit_bytes: row.try_get::<Option<i64>, _>(7).map_err(store_error)?.and_then(|n| u64::try_from(n).ok()),
        disabled: row.try_get(8).map_err(store_error)?,
        created_at_ms: row.try_get(9).map_err(store_error)?,
    })
}

fn device_of(row: &SqliteRow) -> Result<Device, StoreError> {
    Ok(Device {
        device_id: device_id_of(row.try_get(0).map_err(store_error)?)?.ok_or_else(|| damaged("device_id"))?,
        user_id: user_id_of(row.try_get::<&[u8], _>(1).map_err(store_error)?)?,
        name: row.try_get(2).map_err(store_error)?,
        public_key: row.try_get::<&[u8], _>(3).map_err(store_error)?.try_into().map_err(|_| damaged("public_key"))?,
        created_at_ms: row.try_get(4).map_err(store_error)?,
        last_seen_at_ms: row.try_get(5).map_err(store_error)?,
        revoked_at_ms: row.try_get(6).map_err(store_error)?,
    })
}

/// Stores a user; false when the address is taken.
pub(super) async fn insert_user(connection: &mut SqliteConnection, user: &User) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO users (user_id, email, email_key, name, password_hash, role, storage_used, storage_limit, disabled, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )
    .bind(user.user_id.as_bytes().as_slice())
    .bind(&user.email)
    .bind(&user.email_key)
    .bind(&user.name)
    .bind(&user.password_hash)
    .bind(user_role_text(user.role))
    .bind(signed(user.storage_used_bytes))
    .bind(user.storage_limit_bytes.map(signed))
    .bind(user.disabled)
    .bind(user.created_at_ms)
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

/// Uses a code up.
async fn use_code(connection: &mut SqliteConnection, hash: SecretHash, kind: CodeKind, now_ms: i64) -> Result<CodeUse, StoreError> {
    let row = sqlx::query("SELECT user_id, expires_at, used_at FROM one_time_codes WHERE code_hash = ?1 AND kind = ?2")
        .bind(hash.as_slice())
        .bind(kind.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(store_error)?;
    let Some(row) = row else { return Ok(CodeUse::Unknown) };
    if row.get::<Option<i64>, _>(2).is_some() {
        return Ok(CodeUse::AlreadyUsed);
    }
    if row.get::<i64, _>(1) <= now_ms {
        return Ok(CodeUse::Expired);
    }
    sqlx::query("UPDATE one_time_codes SET used_at = ?2 WHERE code_hash = ?1")
        .bind(hash.as_slice())
        .bind(now_ms)
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(CodeUse::Used(row.get::<Option<Vec<u8>>, _>(0).map(|b| user_id_of(&b)).transpose()?))
}

async fn admins(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row =
        sqlx::query("SELECT count(*) FROM users WHERE role = 'admin' AND disabled = 0").fetch_one(connection).await.map_err(store_error)?;
    u64::try_from(row.get::<i64, _>(0)).map_err(|_| damaged("count"))
}

#[async_trait]
impl AccountStore for Sqlite {
    async fn setting_or_insert(&self, key: &str, value: &str, now_ms: i64) -> Result<String, StoreError> {
        sqlx::query("INSERT INTO settings (key, value, updated_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
            .bind(key)
            .bind(value)
            .bind(now_ms)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        let row = sqlx::query("SELECT value FROM settings WHERE key = ?1").bind(key).fetch_one(self.writer()).await.map_err(store_error)?;
        row.try_get(0).map_err(store_error)
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let row =
            sqlx::query("SELECT value FROM settings WHERE key = ?1").bind(key).fetch_optional(self.reader()).await.map_err(store_error)?;
        row.map(|row| row.try_get(0).map_err(store_error)).transpose()
    }

    async fn put_setting(&self, key: &str, value: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO settings (key, value, updated_at) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET value = ?2, updated_at = ?3",
        )
        .bind(key)
        .bind(value)
        .bind(now_ms)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn insert_user(&self, user: &User) -> Result<bool, StoreError> {
        let mut connection = self.writer().acquire().await.map_err(store_error)?;
        insert_user(&mut connection, user).await
    }

    async fn insert_first_admin(&self, user: &User, code: SecretHash, now_ms: i64) -> Result<FirstAdmin, StoreError> {
        let mut tx = self.begin().await?;
        if admins(&mut tx).await? > 0 {
            return Ok(FirstAdmin::Exists);
        }
        match use_code(&mut tx, code, CodeKind::Setup, now_ms).await? {
            CodeUse::Used(_) => {}
            other => return Ok(FirstAdmin::BadCode(other)),
        }
        if !insert_user(&mut tx, user).await? {
            return Err(StoreError::Conflict("a user of this address".into()));
        }
        sqlx::query("UPDATE one_time_codes SET used_at = ?1 WHERE kind = 'setup' AND used_at IS NULL")
            .bind(now_ms)
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(FirstAdmin::Made)
    }

    async fn user(&self, user_id: UserId) -> Result<Option<User>, StoreError> {
        let sql = select_user("WHERE user_id = ?1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(user_id.as_bytes().as_slice())
            .fetch_optional(self.reader())
            .await
            .map_err(store_error)?;
        row.as_ref().map(user_of).transpose()
    }

    async fn user_by_email(&self, email_key: &str) -> Result<Option<User>, StoreError> {
        let sql = select_user("WHERE email_key = ?1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(email_key).fetch_optional(self.reader()).await.map_err(store_error)?;
        row.as_ref().map(user_of).transpose()
    }

    async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, StoreError> {
        let sql = select_user("WHERE email_key > ?1 ORDER BY email_key LIMIT ?2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(limit).fetch_all(self.reader()).await.map_err(store_error)?;
        rows.iter().map(user_of).collect()
    }

    async fn update_user(&self, user_id: UserId, change: &UserChange) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE users SET name = coalesce(?2, name), role = coalesce(?3, role), disabled = coalesce(?4, disabled),
             storage_limit = CASE WHEN ?5 THEN ?6 ELSE storage_limit END WHERE user_id = ?1",
        )
        .bind(user_id.as_bytes().as_slice())
        .bind(change.name.as_deref())
        .bind(change.role.map(user_role_text))
        .bind(change.disabled)
        .bind(change.storage_limit_bytes.is_some())
        .bind(change.storage_limit_bytes.flatten().map(signed))
        .execute(self.writer())
        .await
        .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn replace_password(&self, user_id: UserId, expected: &str, hash: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE users SET password_hash = ?3 WHERE user_id = ?1 AND password_hash = ?2")
            .bind(user_id.as_bytes().as_slice())
            .bind(expected)
            .bind(hash)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete_user(&self, user_id: UserId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM users WHERE user_id = ?1")
            .bind(user_id.as_bytes().as_slice())
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn admins(&self) -> Result<u64, StoreError> {
        let mut connection = self.reader().acquire().await.map_err(store_error)?;
        admins(&mut connection).await
    }

    async fn put_device(&self, device: &Device) -> Result<DeviceStored, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT user_id, revoked_at FROM devices WHERE device_id = ?1")
            .bind(device.device_id.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await
            .map_err(store_error)?;
        if let Some(row) = row {
            if user_id_of(row.get::<&[u8], _>(0))? != device.user_id {
                return Ok(DeviceStored::OfAnotherUser);
            }
            if row.get::<Option<i64>, _>(1).is_some() {
                return Ok(DeviceStored::Revoked);
            }
        }
        sqlx::query(
            "INSERT INTO devices (device_id, user_id, name, public_key, created_at, last_seen_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (device_id) DO UPDATE SET name = excluded.name, last_seen_at = excluded.last_seen_at",
        )
        .bind(device.device_id.as_bytes().as_slice())
        .bind(device.user_id.as_bytes().as_slice())
        .bind(&device.name)
        .bind(device.public_key.as_slice())
        .bind(device.created_at_ms)
        .bind(device.last_seen_at_ms)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(DeviceStored::Stored)
    }

    async fn device(&self, device_id: DeviceId) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(
            "SELECT device_id, user_id, name, public_key, created_at, last_seen_at, revoked_at FROM devices WHERE device_id = ?1",
        )
        .bind(device_id.as_bytes().as_slice())
        .fetch_optional(self.reader())
        .await
        .map_err(store_error)?;
        row.as_ref().map(device_of).transpose()
    }

    async fn devices(&self, user_id: UserId) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT device_id, user_id, name, public_key, created_at, last_seen_at, revoked_at FROM devices WHERE user_id = ?1 ORDER BY created_at, device_id",
        )
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(self.reader())
        .await
        .map_err(store_error)?;
        rows.iter().map(device_of).collect()
    }

    async fn rename_device(&self, user_id: UserId, device_id: DeviceId, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE devices SET name = ?3 WHERE user_id = ?1 AND device_id = ?2 AND revoked_at IS NULL")
            .bind(user_id.as_bytes().as_slice())
            .bind(device_id.as_bytes().as_slice())
            .bind(name)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn revoke_device(&self, user_id: UserId, device_id: DeviceId, now_ms: i64) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE devices SET revoked_at = coalesce(revoked_at, ?3) WHERE user_id = ?1 AND device_id = ?2")
            .bind(user_id.as_bytes().as_slice())
            .bind(device_id.as_bytes().as_slice())
            .bind(now_ms)
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        sqlx::query("UPDATE sessions SET revoked_at = ?2, revoked_why = 'device revoked' WHERE device_id = ?1 AND user_id = ?3 AND revoked_at IS NULL")
            .bind(device_id.as_bytes().as_slice())
            .bind(now_ms)
            .bind(user_id.as_bytes().as_slice())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn insert_session(&self, session: &Session, token: &NewToken) -> Result<(), StoreError> {
        sessions::insert(self, session, token).await
    }

    async fn session_access(&self, session_id: SessionId) -> Result<Option<SessionAccess>, StoreError> {
        sessions::access(self, session_id).await
    }

    async fn rotate(&self, old: SecretHash, new: &NewToken, now_ms: i64, tolerance_ms: i64) -> Result<Rotation, StoreError> {
        sessions::rotate(self, old, new, now_ms, tolerance_ms).await
    }

    async fn sessions(&self, user_id: UserId, now_ms: i64) -> Result<Vec<Session>, StoreError> {
        sessions::list(self, user_id, now_ms).await
    }

    async fn revoke_session(&self, user_id: UserId, session_id: SessionId, why: &str, now_ms: i64) -> Result<bool, StoreError> {
        sessions::revoke(self, user_id, session_id, why, now_ms).await
    }

    async fn revoke_sessions(&self, user_id: UserId, except: Option<SessionId>, why: &str, now_ms: i64) -> Result<(), StoreError> {
        sessions::revoke_all(self, user_id, except, why, now_ms).await
    }

    async fn insert_code(&self, code: &NewCode) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO one_time_codes (code_hash, kind, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(code.hash.as_slice())
            .bind(code.kind.as_str())
            .bind(code.user_id.as_ref().map(|u| u.as_bytes().as_slice()))
            .bind(code.created_at_ms)
            .bind(code.expires_at_ms)
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn use_code(&self, hash: SecretHash, kind: CodeKind, now_ms: i64) -> Result<CodeUse, StoreError> {
        let mut tx = self.begin().await?;
        let found = use_code(&mut tx, hash, kind, now_ms).await?;
        tx.commit().await.map_err(store_error)?;
        Ok(found)
    }

    async fn open_codes(&self, kind: CodeKind, now_ms: i64, limit: u32) -> Result<Vec<NewCode>, StoreError> {
        let rows = sqlx::query(
            "SELECT code_hash, user_id, created_at, expires_at FROM one_time_codes WHERE kind = ?1 AND used_at IS NULL AND expires_at > ?2
             ORDER BY created_at, code_hash LIMIT ?3",
        )
        .bind(kind.as_str())
        .bind(now_ms)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(store_error)?;
        let read = |row: &SqliteRow| {
            let hash: &[u8] = row.try_get(0).map_err(store_error)?;
            let user: Option<&[u8]> = row.try_get(1).map_err(store_error)?;
            Ok(NewCode {
                hash: hash.try_into().map_err(|_| damaged("code_hash"))?,
                kind,
                user_id: user.map(user_id_of).transpose()?,
                created_at_ms: row.try_get(2).map_err(store_error)?,
                expires_at_ms: row.try_get(3).map_err(store_error)?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn revoke_code(&self, hash: SecretHash, kind: CodeKind) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM one_time_codes WHERE code_hash = ?1 AND kind = ?2 AND used_at IS NULL")
            .bind(hash.as_slice())
            .bind(kind.as_str())
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO audit (at, event, user_id, device_id, remote_ip, detail, actor_id, via) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(entry.at_ms)
        .bind(&entry.event)
        .bind(entry.user_id.as_ref().map(|u| u.as_bytes().as_slice()))
        .bind(entry.device_id.as_ref().map(|d| d.as_bytes().as_slice()))
        .bind(entry.remote_ip.as_deref())
        .bind(&entry.detail)
        .bind(entry.actor_id.as_ref().map(|u| u.as_bytes().as_slice()))
        .bind(&entry.via)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn audit_entries(&self, before_id: i64, user_id: Option<UserId>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query(
            "SELECT audit_id, at, event, user_id, device_id, remote_ip, detail, actor_id, via FROM audit
             WHERE audit_id < ?1 AND (?2 IS NULL OR user_id = ?2 OR actor_id = ?2) ORDER BY audit_id DESC LIMIT ?3",
        )
        .bind(before_id)
        .bind(user_id.as_ref().map(|u| u.as_bytes().as_slice()))
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok(AuditEntry {
                    audit_id: row.get(0),
                    at_ms: row.get(1),
                    event: row.get(2),
                    user_id: row.get::<Option<Vec<u8>>, _>(3).map(|b| user_id_of(&b)).transpose()?,
                    device_id: device_id_of(row.get(4))?,
                    remote_ip: row.get(5),
                    detail: row.get(6),
                    actor_id: row.get::<Option<Vec<u8>>, _>(7).map(|b| user_id_of(&b)).transpose()?,
                    via: row.get(8),
                })
            })
            .collect()
    }

    async fn forget_audit(&self, before_ms: i64, limit: u32) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM audit WHERE audit_id IN (SELECT audit_id FROM audit WHERE at < ?1 ORDER BY audit_id LIMIT ?2)")
            .bind(before_ms)
            .bind(limit)
            .execute(self.writer())
            .await
            .map(|done| done.rows_affected())
            .map_err(store_error)
    }

    async fn forget_ended(&self, before_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM sessions WHERE expires_at < ?1 OR revoked_at < ?1",
            "DELETE FROM refresh_tokens WHERE expires_at < ?1",
            "DELETE FROM one_time_codes WHERE expires_at < ?1",
        ] {
            sqlx::query(sql).bind(before_ms).execute(&mut *tx).await.map_err(store_error)?;
        }
        tx.commit().await.map_err(store_error)
    }
}

/// The one way to select users; `rest` is a literal of this file.
fn select_user(rest: &'static str) -> String {
    format!("SELECT {USER_COLUMNS} FROM users {rest}")
}
