//! [`AccountStore`] on PostgreSQL: users, devices, settings, codes, audit, all in the directory database. Sessions are in [`super::sessions`].

use super::places::{key, shard, used_bytes};
use super::rows::{bytes, device, maybe_device, maybe_user, user as user_id_of};
use super::{Postgres, sessions, store_error};
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{
    AccountStore, AuditEntry, CodeKind, CodeUse, Device, DeviceStored, FirstAdmin, NewCode, NewToken, Rotation, SecretHash, Session,
    SessionAccess, User, UserChange,
};
use crate::store::columns::{damaged, signed, user_role, user_role_text};
use crate::store::content::Shard;
use async_trait::async_trait;
use ferry_protocol::{DeviceId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::BTreeMap;

/// The number of the advisory lock under which the first administrator is made: "ferryadm".
const FIRST_ADMIN_LOCK: i64 = 0x6665_7272_7961_646d;

/// A user without what stands in the shard, and the shard.
fn user_of(row: &PgRow) -> Result<(User, Shard), StoreError> {
    let user = User {
        user_id: user_id_of(row, 0)?,
        email: row.try_get(1).map_err(store_error)?,
        email_key: row.try_get(2).map_err(store_error)?,
        name: row.try_get(3).map_err(store_error)?,
        password_hash: row.try_get(4).map_err(store_error)?,
        role: user_role(row.try_get::<&str, _>(5).map_err(store_error)?)?,
        storage_used_bytes: 0,
        storage_limit_bytes: row.try_get::<Option<i64>, _>(6).map_err(store_error)?.and_then(|n| u64::try_from(n).ok()),
        disabled: row.try_get(7).map_err(store_error)?,
        created_at_ms: row.try_get(8).map_err(store_error)?,
    };
    Ok((user, shard(row, 9)?))
}

fn device_of(row: &PgRow) -> Result<Device, StoreError> {
    Ok(Device {
        device_id: device(row, 0)?,
        user_id: user_id_of(row, 1)?,
        name: row.try_get(2).map_err(store_error)?,
        public_key: bytes(row, 3)?,
        created_at_ms: row.try_get(4).map_err(store_error)?,
        last_seen_at_ms: row.try_get(5).map_err(store_error)?,
        revoked_at_ms: row.try_get(6).map_err(store_error)?,
    })
}

const USER_COLUMNS: &str = "user_id, email, email_key, name, password_hash, role, storage_limit, disabled, created_at, shard_key";
const DEVICE_COLUMNS: &str = "device_id, user_id, name, public_key, created_at, last_seen_at, revoked_at";

/// The one way to select users; `rest` is a literal of this file.
fn select_user(rest: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("SELECT {USER_COLUMNS} FROM users {rest}"))
}

fn select_device(rest: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("SELECT {DEVICE_COLUMNS} FROM devices {rest}"))
}

/// Uses a code up; of two at once one waits and finds it used.
async fn use_code(conn: &mut PgConnection, hash: SecretHash, kind: CodeKind, now_ms: i64) -> Result<CodeUse, StoreError> {
    let row = sqlx::query("SELECT user_id, expires_at, used_at FROM one_time_codes WHERE code_hash = $1 AND kind = $2 FOR UPDATE")
        .bind(hash.to_vec())
        .bind(kind.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(store_error)?;
    let Some(row) = row else { return Ok(CodeUse::Unknown) };
    if row.try_get::<Option<i64>, _>(2).map_err(store_error)?.is_some() {
        return Ok(CodeUse::AlreadyUsed);
    }
    if row.try_get::<i64, _>(1).map_err(store_error)? <= now_ms {
        return Ok(CodeUse::Expired);
    }
    sqlx::query("UPDATE one_time_codes SET used_at = $2 WHERE code_hash = $1")
        .bind(hash.to_vec())
        .bind(now_ms)
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(CodeUse::Used(maybe_user(&row, 0)?))
}

async fn admins(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT count(*) FROM users WHERE role = 'admin' AND NOT disabled").fetch_one(conn).await.map_err(store_error)?;
    super::rows::count(&row, 0)
}

impl Postgres {
    /// Stores a user, in a transaction; false when the address or the id is taken.
    pub(super) async fn insert_user_row(&self, conn: &mut PgConnection, user: &User) -> Result<bool, StoreError> {
        let shard = self.shard_of_new(conn, user.user_id).await?;
        let done = sqlx::query(
            "INSERT INTO users (user_id, email, email_key, name, password_hash, role, storage_limit, disabled, created_at, shard_key)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        )
        .bind(user.user_id.as_bytes().to_vec())
        .bind(&user.email)
        .bind(&user.email_key)
        .bind(&user.name)
        .bind(&user.password_hash)
        .bind(user_role_text(user.role))
        .bind(user.storage_limit_bytes.map(signed))
        .bind(user.disabled)
        .bind(user.created_at_ms)
        .bind(key(shard))
        .execute(conn)
        .await
        .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    /// Adds to users what they use in their shards.
    async fn with_usage(&self, rows: Vec<PgRow>) -> Result<Vec<User>, StoreError> {
        let mut users = rows.iter().map(user_of).collect::<Result<Vec<_>, _>>()?;
        let mut by_shard: BTreeMap<Shard, Vec<Vec<u8>>> = BTreeMap::new();
        for (user, shard) in &users {
            by_shard.entry(*shard).or_default().push(user.user_id.as_bytes().to_vec());
        }
        for (of, ids) in by_shard {
            let used = used_bytes(&mut *self.shard(of)?.read().await?, of, &ids).await?;
            for (user, _) in users.iter_mut().filter(|(_, shard)| *shard == of) {
                let bytes = used.get(user.user_id.as_bytes()).copied().unwrap_or(0);
                user.storage_used_bytes = u64::try_from(bytes).map_err(|_| damaged("storage_used"))?;
            }
        }
        Ok(users.into_iter().map(|(user, _)| user).collect())
    }
}

#[async_trait]
impl AccountStore for Postgres {
    async fn setting_or_insert(&self, name: &str, value: &str, now_ms: i64) -> Result<String, StoreError> {
        let mut conn = self.directory().read().await?;
        sqlx::query("INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(value)
            .bind(now_ms)
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
        let row = sqlx::query("SELECT value FROM settings WHERE key = $1").bind(name).fetch_one(&mut *conn).await.map_err(store_error)?;
        row.try_get(0).map_err(store_error)
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut conn = self.directory().read().await?;
        let row =
            sqlx::query("SELECT value FROM settings WHERE key = $1").bind(name).fetch_optional(&mut *conn).await.map_err(store_error)?;
        row.map(|row| row.try_get(0).map_err(store_error)).transpose()
    }

    async fn put_setting(&self, name: &str, value: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        )
        .bind(name)
        .bind(value)
        .bind(now_ms)
        .execute(&mut *self.directory().read().await?)
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn insert_user(&self, user: &User) -> Result<bool, StoreError> {
        let mut tx = self.directory().begin().await?;
        let is_new = self.insert_user_row(tx.conn(), user).await?;
        tx.commit().await?;
        Ok(is_new)
    }

    async fn insert_first_admin(&self, user: &User, code: SecretHash, now_ms: i64) -> Result<FirstAdmin, StoreError> {
        let mut tx = self.directory().begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(FIRST_ADMIN_LOCK).execute(tx.conn()).await.map_err(store_error)?;
        if admins(tx.conn()).await? > 0 {
            return Ok(FirstAdmin::Exists);
        }
        match use_code(tx.conn(), code, CodeKind::Setup, now_ms).await? {
            CodeUse::Used(_) => {}
            other => return Ok(FirstAdmin::BadCode(other)),
        }
        if !self.insert_user_row(tx.conn(), user).await? {
            return Err(StoreError::Conflict("a user of this address".into()));
        }
        sqlx::query("UPDATE one_time_codes SET used_at = $1 WHERE kind = 'setup' AND used_at IS NULL")
            .bind(now_ms)
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(FirstAdmin::Made)
    }

    async fn user(&self, user_id: UserId) -> Result<Option<User>, StoreError> {
        let row = sqlx::query(select_user("WHERE user_id = $1"))
            .bind(user_id.as_bytes().to_vec())
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(self.with_usage(row).await?.pop())
    }

    async fn user_by_email(&self, email_key: &str) -> Result<Option<User>, StoreError> {
        let row = sqlx::query(select_user("WHERE email_key = $1"))
            .bind(email_key)
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(self.with_usage(row).await?.pop())
    }

    async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query(select_user("WHERE email_key > $1 ORDER BY email_key LIMIT $2"))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read_stale().await?)
            .await
            .map_err(store_error)?;
        self.with_usage(rows).await
    }

    async fn update_user(&self, user_id: UserId, change: &UserChange) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE users SET name = coalesce($2, name), role = coalesce($3, role), disabled = coalesce($4, disabled),
             storage_limit = CASE WHEN $5 THEN $6 ELSE storage_limit END WHERE user_id = $1",
        )
        .bind(user_id.as_bytes().to_vec())
        .bind(change.name.as_deref())
        .bind(change.role.map(user_role_text))
        .bind(change.disabled)
        .bind(change.storage_limit_bytes.is_some())
        .bind(change.storage_limit_bytes.flatten().map(signed))
        .execute(&mut *self.directory().read().await?)
        .await
        .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn replace_password(&self, user_id: UserId, expected: &str, hash: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2")
            .bind(user_id.as_bytes().to_vec())
            .bind(expected)
            .bind(hash)
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    /// The content first: cut short between the two, the user is still there and can be deleted again. And once more after: what a request made meanwhile
    /// nobody would own. Whoever is making it now is waited for (its owner's row stands in the way of ours), whoever comes later finds no user.
    async fn delete_user(&self, user_id: UserId) -> Result<bool, StoreError> {
        for (of, db) in &self.0.shards {
            let mut tx = db.begin().await?;
            tx.unhurried().await?;
            sqlx::query("DELETE FROM owners WHERE shard_key = $1 AND user_id = $2")
                .bind(key(*of))
                .bind(user_id.as_bytes().to_vec())
                .execute(tx.conn())
                .await
                .map_err(store_error)?;
            tx.commit().await?;
        }
        let done = sqlx::query("DELETE FROM users WHERE user_id = $1")
            .bind(user_id.as_bytes().to_vec())
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        for (of, db) in &self.0.shards {
            let mut tx = db.begin().await?;
            tx.unhurried().await?;
            for sql in [
                "INSERT INTO owners (shard_key, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                "DELETE FROM owners WHERE shard_key = $1 AND user_id = $2",
            ] {
                let statement = sqlx::query(sql).bind(key(*of)).bind(user_id.as_bytes().to_vec());
                statement.execute(tx.conn()).await.map_err(store_error)?;
            }
            tx.commit().await?;
        }
        Ok(done.rows_affected() == 1)
    }

    async fn admins(&self) -> Result<u64, StoreError> {
        admins(&mut *self.directory().read().await?).await
    }

    async fn put_device(&self, device: &Device) -> Result<DeviceStored, StoreError> {
        let mut conn = self.directory().read().await?;
        let done = sqlx::query(
            "INSERT INTO devices (device_id, user_id, name, public_key, created_at, last_seen_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (device_id) DO UPDATE SET name = excluded.name, last_seen_at = excluded.last_seen_at
             WHERE devices.user_id = excluded.user_id AND devices.revoked_at IS NULL",
        )
        .bind(device.device_id.as_bytes().to_vec())
        .bind(device.user_id.as_bytes().to_vec())
        .bind(&device.name)
        .bind(device.public_key.to_vec())
        .bind(device.created_at_ms)
        .bind(device.last_seen_at_ms)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        if done.rows_affected() == 1 {
            return Ok(DeviceStored::Stored);
        }
        let row = sqlx::query("SELECT user_id FROM devices WHERE device_id = $1")
            .bind(device.device_id.as_bytes().to_vec())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?
            .ok_or_else(|| StoreError::Contended("a device that was deleted at the same time".into()))?;
        Ok(if user_id_of(&row, 0)? == device.user_id { DeviceStored::Revoked } else { DeviceStored::OfAnotherUser })
    }

    async fn device(&self, device_id: DeviceId) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(select_device("WHERE device_id = $1"))
            .bind(device_id.as_bytes().to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.as_ref().map(device_of).transpose()
    }

    async fn devices(&self, user_id: UserId) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(select_device("WHERE user_id = $1 ORDER BY created_at, device_id"))
            .bind(user_id.as_bytes().to_vec())
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(device_of).collect()
    }

    async fn rename_device(&self, user_id: UserId, device_id: DeviceId, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE devices SET name = $3 WHERE user_id = $1 AND device_id = $2 AND revoked_at IS NULL")
            .bind(user_id.as_bytes().to_vec())
            .bind(device_id.as_bytes().to_vec())
            .bind(name)
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn revoke_device(&self, user_id: UserId, device_id: DeviceId, now_ms: i64) -> Result<bool, StoreError> {
        let mut tx = self.directory().begin().await?;
        let done = sqlx::query("UPDATE devices SET revoked_at = coalesce(revoked_at, $3) WHERE user_id = $1 AND device_id = $2")
            .bind(user_id.as_bytes().to_vec())
            .bind(device_id.as_bytes().to_vec())
            .bind(now_ms)
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        sqlx::query(
            "UPDATE sessions SET revoked_at = $2, revoked_why = 'device revoked' WHERE device_id = $1 AND user_id = $3 AND revoked_at IS NULL",
        )
        .bind(device_id.as_bytes().to_vec())
        .bind(now_ms)
        .bind(user_id.as_bytes().to_vec())
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
        tx.commit().await?;
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
        sqlx::query("INSERT INTO one_time_codes (code_hash, kind, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(code.hash.to_vec())
            .bind(code.kind.as_str())
            .bind(code.user_id.map(|u| u.as_bytes().to_vec()))
            .bind(code.created_at_ms)
            .bind(code.expires_at_ms)
            .execute(&mut *self.directory().read().await?)
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn use_code(&self, hash: SecretHash, kind: CodeKind, now_ms: i64) -> Result<CodeUse, StoreError> {
        let mut tx = self.directory().begin().await?;
        let found = use_code(tx.conn(), hash, kind, now_ms).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn open_codes(&self, kind: CodeKind, now_ms: i64, limit: u32) -> Result<Vec<NewCode>, StoreError> {
        sessions::open_codes(&mut *self.directory().read().await?, kind, now_ms, limit).await
    }

    async fn revoke_code(&self, hash: SecretHash, kind: CodeKind) -> Result<bool, StoreError> {
        sessions::revoke_code(&mut *self.directory().read().await?, hash, kind).await
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO audit (at, event, user_id, device_id, remote_ip, detail, actor_id, via) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(entry.at_ms)
        .bind(&entry.event)
        .bind(entry.user_id.map(|u| u.as_bytes().to_vec()))
        .bind(entry.device_id.map(|d| d.as_bytes().to_vec()))
        .bind(entry.remote_ip.as_deref())
        // A line of the log is never lost for a character that the database cannot hold.
        .bind(entry.detail.replace('\0', "\u{fffd}"))
        .bind(entry.actor_id.map(|u| u.as_bytes().to_vec()))
        .bind(&entry.via)
        .execute(&mut *self.directory().read().await?)
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn audit_entries(&self, before_id: i64, user_id: Option<UserId>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query(
            "SELECT audit_id, at, event, user_id, device_id, remote_ip, detail, actor_id, via FROM audit
             WHERE audit_id < $1 AND ($2::bytea IS NULL OR user_id = $2 OR actor_id = $2) ORDER BY audit_id DESC LIMIT $3",
        )
        .bind(before_id)
        .bind(user_id.map(|u| u.as_bytes().to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.directory().read_stale().await?)
        .await
        .map_err(store_error)?;
        let read = |row: &PgRow| {
            Ok(AuditEntry {
                audit_id: row.try_get(0).map_err(store_error)?,
                at_ms: row.try_get(1).map_err(store_error)?,
                event: row.try_get(2).map_err(store_error)?,
                user_id: maybe_user(row, 3)?,
                device_id: maybe_device(row, 4)?,
                remote_ip: row.try_get(5).map_err(store_error)?,
                detail: row.try_get(6).map_err(store_error)?,
                actor_id: maybe_user(row, 7)?,
                via: row.try_get(8).map_err(store_error)?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn forget_audit(&self, before_ms: i64, limit: u32) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM audit WHERE audit_id IN (SELECT audit_id FROM audit WHERE at < $1 ORDER BY audit_id LIMIT $2)")
            .bind(before_ms)
            .bind(i64::from(limit))
            .execute(&mut *self.directory().read().await?)
            .await
            .map(|done| done.rows_affected())
            .map_err(store_error)
    }

    async fn forget_ended(&self, before_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.directory().begin().await?;
        tx.unhurried().await?;
        for sql in [
            "DELETE FROM sessions WHERE expires_at < $1 OR revoked_at < $1",
            "DELETE FROM refresh_tokens WHERE expires_at < $1",
            "DELETE FROM one_time_codes WHERE expires_at < $1",
        ] {
            sqlx::query(sql).bind(before_ms).execute(tx.conn()).await.map_err(store_error)?;
        }
        tx.commit().await
    }
}
