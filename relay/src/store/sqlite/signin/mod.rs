//! [`SigninStore`] on SQLite. Rooms: [`devices`] (requests of devices, browsers), [`factors`] (challenges, second factors), [`tokens`] (app passwords),
//! [`identities`] (other providers).

mod devices;
mod factors;
mod identities;
mod tokens;

use super::{Sqlite, store_error};
use crate::service::SessionId;
use crate::store::StoreError;
use crate::store::accounts::{SecretHash, Session, User};
use crate::store::signin::{ApiToken, DeviceRequest, Identity, Poll, RequestState, RequestStored, SigninStore, TokenAccess, Totp};
use async_trait::async_trait;
use ferry_protocol::UserId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Type};

/// A column's value, or why there is none.
fn get<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T, StoreError>
where
    T: Decode<'r, sqlx::Sqlite> + Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(store_error)
}

#[async_trait]
impl SigninStore for Sqlite {
    async fn insert_device_request(&self, request: &DeviceRequest, max: u32, window_ms: i64) -> Result<RequestStored, StoreError> {
        devices::insert(self, request, max, window_ms).await
    }

    async fn device_request(&self, user_code: SecretHash) -> Result<Option<(DeviceRequest, RequestState)>, StoreError> {
        devices::by_user_code(self, user_code).await
    }

    async fn decide_device_request(&self, user_code: SecretHash, by: Option<UserId>, now_ms: i64) -> Result<bool, StoreError> {
        devices::decide(self, user_code, by, now_ms).await
    }

    async fn poll_device_request(&self, device_code: SecretHash, now_ms: i64, slow_by_ms: i64) -> Result<Poll, StoreError> {
        devices::poll(self, device_code, now_ms, slow_by_ms).await
    }

    async fn insert_web_session(&self, session: &Session, cookie: SecretHash) -> Result<(), StoreError> {
        devices::insert_web_session(self, session, cookie).await
    }

    async fn web_session(&self, cookie: SecretHash) -> Result<Option<(SessionId, i64)>, StoreError> {
        devices::web_session(self, cookie).await
    }

    async fn insert_challenge(&self, token: SecretHash, user_id: UserId, expires_at_ms: i64) -> Result<(), StoreError> {
        factors::insert_challenge(self, token, user_id, expires_at_ms).await
    }

    async fn take_attempt(&self, token: SecretHash, now_ms: i64, attempts_max: u32) -> Result<Option<UserId>, StoreError> {
        factors::take_attempt(self, token, now_ms, attempts_max).await
    }

    async fn end_challenge(&self, token: SecretHash) -> Result<bool, StoreError> {
        factors::end_challenge(self, token).await
    }

    async fn put_totp(&self, user_id: UserId, sealed: &[u8], now_ms: i64) -> Result<bool, StoreError> {
        factors::put(self, user_id, sealed, now_ms).await
    }

    async fn totp(&self, user_id: UserId) -> Result<Option<Totp>, StoreError> {
        factors::get_totp(self, user_id).await
    }

    async fn confirm_totp(&self, user_id: UserId, step: u64, recovery: &[SecretHash], now_ms: i64) -> Result<bool, StoreError> {
        factors::confirm(self, user_id, step, recovery, now_ms).await
    }

    async fn use_totp_step(&self, user_id: UserId, step: u64) -> Result<bool, StoreError> {
        factors::use_step(self, user_id, step).await
    }

    async fn use_recovery_code(&self, user_id: UserId, code: SecretHash, now_ms: i64) -> Result<bool, StoreError> {
        factors::use_recovery_code(self, user_id, code, now_ms).await
    }

    async fn replace_recovery_codes(&self, user_id: UserId, codes: &[SecretHash]) -> Result<bool, StoreError> {
        factors::replace_recovery_codes(self, user_id, codes).await
    }

    async fn recovery_codes_left(&self, user_id: UserId) -> Result<u32, StoreError> {
        factors::recovery_codes_left(self, user_id).await
    }

    async fn remove_totp(&self, user_id: UserId) -> Result<bool, StoreError> {
        factors::remove(self, user_id).await
    }

    async fn insert_api_token(&self, token: &ApiToken, hash: SecretHash, tokens_max: u32) -> Result<bool, StoreError> {
        tokens::insert(self, token, hash, tokens_max).await
    }

    async fn api_tokens(&self, user_id: UserId, now_ms: i64) -> Result<Vec<ApiToken>, StoreError> {
        tokens::list(self, user_id, now_ms).await
    }

    async fn api_token(&self, hash: SecretHash) -> Result<Option<TokenAccess>, StoreError> {
        tokens::by_hash(self, hash).await
    }

    async fn touch_api_token(&self, token_id: SessionId, ip: &str, now_ms: i64) -> Result<(), StoreError> {
        tokens::touch(self, token_id, ip, now_ms).await
    }

    async fn revoke_api_token(&self, user_id: UserId, token_id: SessionId, now_ms: i64) -> Result<bool, StoreError> {
        tokens::revoke(self, user_id, token_id, now_ms).await
    }

    async fn use_identity(&self, issuer: &str, subject: &str, now_ms: i64) -> Result<Option<UserId>, StoreError> {
        identities::use_one(self, issuer, subject, now_ms).await
    }

    async fn link_identity(&self, identity: &Identity, user_id: UserId, now_ms: i64) -> Result<bool, StoreError> {
        identities::link(self, identity, user_id, now_ms).await
    }

    async fn insert_user_of_identity(&self, user: &User, identity: &Identity) -> Result<bool, StoreError> {
        identities::insert_user(self, user, identity).await
    }

    async fn identities(&self, user_id: UserId) -> Result<Vec<Identity>, StoreError> {
        identities::list(self, user_id).await
    }

    async fn session_of_refresh(&self, token: SecretHash) -> Result<Option<(UserId, SessionId)>, StoreError> {
        devices::session_of_refresh(self, token).await
    }

    async fn forget_ended_signins(&self, before_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM device_requests WHERE expires_at < ?1",
            "DELETE FROM mfa_challenges WHERE expires_at < ?1",
            "DELETE FROM api_tokens WHERE expires_at < ?1 OR revoked_at < ?1",
        ] {
            sqlx::query(sql).bind(before_ms).execute(&mut *tx).await.map_err(store_error)?;
        }
        tx.commit().await.map_err(store_error)
    }
}
