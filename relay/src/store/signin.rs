//! The trait behind the ways in that are not a password: devices approved on a page, browsers, second factors, app passwords, other providers.
//!
//! As in [`accounts`](super::accounts) each method is one transaction, and what needs a decision and a write together is one method.

#[cfg(test)]
mod contract;

use super::StoreError;
use super::accounts::{SecretHash, Session, User};
use crate::service::{Scopes, SessionId, TokenFolder, UserRole};
use async_trait::async_trait;
use ferry_protocol::UserId;

/// A device that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The hash of the code that the device holds.
    pub device_code: SecretHash,
    /// The hash of the code that a person compares.
    pub user_code: SecretHash,
    /// The device's name, for people.
    pub device_name: String,
    /// Its key: Ed25519.
    pub public_key: [u8; 32],
    /// What it says that it runs on.
    pub system: String,
    /// Where it asks from.
    pub remote_ip: String,
    /// The network by which requests are counted.
    pub remote_net: String,
    /// How long it must wait between two questions, in milliseconds.
    pub interval_ms: i64,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// In milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// What became of a request that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStored {
    /// It is there.
    Stored,
    /// The person's code is in use: draw another.
    CodeTaken,
    /// Its network asked too often; when it may again, in milliseconds since 1970.
    TooMany {
        /// That time.
        again_at_ms: i64,
    },
}

/// What became of a device's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestState {
    /// Nobody has decided.
    Waiting,
    /// This user lets it in.
    Approved(UserId),
    /// Somebody said no.
    Denied,
    /// It has its tokens.
    Used,
}

/// What a device that asks for its tokens is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll {
    /// There is no such request.
    Unknown,
    /// It is too late.
    Expired,
    /// It asked before its interval was over; that is longer now.
    TooSoon,
    /// Nobody has decided.
    Waiting,
    /// Somebody said no.
    Denied,
    /// It was let in by this user, and has its tokens by this call and no other.
    Approved(Box<DeviceRequest>, UserId),
}

/// A user's second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totp {
    /// Its secret, encrypted.
    pub sealed: Vec<u8>,
    /// Whether the user has shown a code of it: before, it asks for nothing.
    pub is_confirmed: bool,
    /// The time step of the newest code that was used.
    pub last_step: u64,
}

/// An app password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub token_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// The only folder that it opens.
    pub folder: Option<TokenFolder>,
    /// Where that folder was when the token was made.
    pub path: Option<String>,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it ends by itself, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// In milliseconds since 1970; a minute coarse.
    pub last_used_at_ms: Option<i64>,
    /// From where.
    pub last_used_ip: Option<String>,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// An app password that somebody showed, with what its user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAccess {
    /// The token.
    pub token: ApiToken,
    /// What its user may do on the relay as a whole.
    pub role: UserRole,
    /// The normal form of its user's address.
    pub email_key: String,
    /// Whether its user is locked out.
    pub disabled: bool,
}

/// Who somebody is at another provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider.
    pub issuer: String,
    /// The provider's name of the account, which never becomes another's.
    pub subject: String,
    /// The address there when it was linked.
    pub email: String,
}

/// Ways in, in a database. Contract: `store/signin/contract.rs`.
#[async_trait]
pub trait SigninStore: Send + Sync + 'static {
    /// Stores a device's request, unless its network has made `max` of them in the last `window_ms`.
    async fn insert_device_request(&self, request: &DeviceRequest, max: u32, window_ms: i64) -> Result<RequestStored, StoreError>;
    /// The request with this person's code.
    async fn device_request(&self, user_code: SecretHash) -> Result<Option<(DeviceRequest, RequestState)>, StoreError>;
    /// Decides a request, once, while it waits and is not too late: this user lets it in, or nobody does. False when there is nothing to decide.
    async fn decide_device_request(&self, user_code: SecretHash, by: Option<UserId>, now_ms: i64) -> Result<bool, StoreError>;
    /// What a device is told that asks; each question too early makes its interval longer by `slow_by_ms`.
    async fn poll_device_request(&self, device_code: SecretHash, now_ms: i64, slow_by_ms: i64) -> Result<Poll, StoreError>;

    /// Stores a browser's session and the hash of its cookie.
    async fn insert_web_session(&self, session: &Session, cookie: SecretHash) -> Result<(), StoreError>;
    /// The session of a cookie and when it ends in milliseconds since 1970; whether it is still good says `session_access`.
    async fn web_session(&self, cookie: SecretHash) -> Result<Option<(SessionId, i64)>, StoreError>;

    /// Stores that a user's password was right.
    async fn insert_challenge(&self, token: SecretHash, user_id: UserId, expires_at_ms: i64) -> Result<(), StoreError>;
    /// Takes one of `attempts_max` attempts of a challenge; whose it is, or none when it is unknown, too late or used up.
    async fn take_attempt(&self, token: SecretHash, now_ms: i64, attempts_max: u32) -> Result<Option<UserId>, StoreError>;
    /// Ends a challenge that was met; false when somebody else has ended it.
    async fn end_challenge(&self, token: SecretHash) -> Result<bool, StoreError>;

    /// Stores a second factor that is to be confirmed, in place of one that never was; false when there is a confirmed one.
    async fn put_totp(&self, user_id: UserId, sealed: &[u8], now_ms: i64) -> Result<bool, StoreError>;
    /// A user's second factor.
    async fn totp(&self, user_id: UserId) -> Result<Option<Totp>, StoreError>;
    /// Confirms a second factor by the code of this step and stores its recovery codes; false when there is none to confirm.
    async fn confirm_totp(&self, user_id: UserId, step: u64, recovery: &[SecretHash], now_ms: i64) -> Result<bool, StoreError>;
    /// Uses the code of a time step up; false when a code of this step or a later one was used.
    async fn use_totp_step(&self, user_id: UserId, step: u64) -> Result<bool, StoreError>;
    /// Uses a recovery code up; false when there is no such unused one.
    async fn use_recovery_code(&self, user_id: UserId, code: SecretHash, now_ms: i64) -> Result<bool, StoreError>;
    /// Stores other recovery codes in place of all; false when there is no confirmed second factor.
    async fn replace_recovery_codes(&self, user_id: UserId, codes: &[SecretHash]) -> Result<bool, StoreError>;
    /// How many recovery codes are unused.
    async fn recovery_codes_left(&self, user_id: UserId) -> Result<u32, StoreError>;
    /// Removes a second factor with its recovery codes; false when there is none.
    async fn remove_totp(&self, user_id: UserId) -> Result<bool, StoreError>;

    /// Stores an app password; false when its user has `tokens_max` good ones.
    async fn insert_api_token(&self, token: &ApiToken, hash: SecretHash, tokens_max: u32) -> Result<bool, StoreError>;
    /// A user's app passwords that are neither revoked nor over, oldest first.
    async fn api_tokens(&self, user_id: UserId, now_ms: i64) -> Result<Vec<ApiToken>, StoreError>;
    /// The app password with this hash, good or not.
    async fn api_token(&self, hash: SecretHash) -> Result<Option<TokenAccess>, StoreError>;
    /// Notes that an app password was used.
    async fn touch_api_token(&self, token_id: SessionId, ip: &str, now_ms: i64) -> Result<(), StoreError>;
    /// Revokes a user's app password; false when there is none to revoke.
    async fn revoke_api_token(&self, user_id: UserId, token_id: SessionId, now_ms: i64) -> Result<bool, StoreError>;

    /// Whose account an identity opens; notes that it was used.
    async fn use_identity(&self, issuer: &str, subject: &str, now_ms: i64) -> Result<Option<UserId>, StoreError>;
    /// Links an identity to a user; false when it is linked already.
    async fn link_identity(&self, identity: &Identity, user_id: UserId, now_ms: i64) -> Result<bool, StoreError>;
    /// Stores a user and the identity that opens it, in one step; false when the address or the identity is taken.
    async fn insert_user_of_identity(&self, user: &User, identity: &Identity) -> Result<bool, StoreError>;
    /// A user's identities.
    async fn identities(&self, user_id: UserId) -> Result<Vec<Identity>, StoreError>;

    /// Whose session a refresh token is of, used or not.
    async fn session_of_refresh(&self, token: SecretHash) -> Result<Option<(UserId, SessionId)>, StoreError>;
    /// Drops requests, challenges and app passwords that ended before `before_ms`.
    async fn forget_ended_signins(&self, before_ms: i64) -> Result<(), StoreError>;
}
