//! The trait behind accounts: users, devices, sessions, one-time codes, settings, audit.
//!
//! Each method is one transaction. What needs a decision and a write together (rotating a token, using a code, making the first administrator) is one
//! method whose answer says what was found; which of them is a refusal is the service's matter.

#[cfg(test)]
mod contract;

use super::StoreError;
use super::signin::SigninStore;
use crate::service::{SessionId, UserRole};
use async_trait::async_trait;
use ferry_protocol::{DeviceId, UserId};

/// A SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub user_id: UserId,
    /// The address as it was typed.
    pub email: String,
    /// The form under which two spellings are one account.
    pub email_key: String,
    /// For people.
    pub name: String,
    /// A PHC string (argon2id) or a bcrypt hash.
    pub password_hash: String,
    /// What the user may do on the relay as a whole.
    pub role: UserRole,
    /// Bytes in use.
    pub storage_used_bytes: u64,
    /// Most bytes in use; none is no limit.
    pub storage_limit_bytes: Option<u64>,
    /// Whether the user is locked out.
    pub disabled: bool,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The name.
    pub name: Option<String>,
    /// The role.
    pub role: Option<UserRole>,
    /// The limit; the inner none removes it.
    pub storage_limit_bytes: Option<Option<u64>>,
    /// Locked out or not.
    pub disabled: Option<bool>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id, derived from the key.
    pub device_id: DeviceId,
    /// Whose it is.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// Ed25519.
    pub public_key: [u8; 32],
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// In milliseconds since 1970; moves with logins and refreshes.
    pub last_seen_at_ms: i64,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// What became of a device that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceStored {
    /// It is there now, new or renewed.
    Stored,
    /// Its key is another user's.
    OfAnotherUser,
    /// It was revoked; nothing changed.
    Revoked,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The device that logged in.
    pub device_id: Option<DeviceId>,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it was last refreshed, in milliseconds since 1970.
    pub last_used_at_ms: i64,
    /// When it ends unless it is refreshed, in milliseconds since 1970.
    pub expires_at_ms: i64,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// A refresh token that is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewToken {
    /// Its hash.
    pub hash: SecretHash,
    /// In milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// What decides whether an access token is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionAccess {
    /// Whose session it is.
    pub user_id: UserId,
    /// The device that logged in.
    pub device_id: Option<DeviceId>,
    /// What the user may do on the relay as a whole.
    pub role: UserRole,
    /// Whether session, device and user are all still good.
    pub live: bool,
}

/// What a refresh token was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// Good: the new token took its place.
    Rotated(Session),
    /// No such token, or its session, device or user is no longer good.
    Dead,
    /// It had been exchanged before: the whole session is revoked now.
    Reused(Session),
}

/// What a one-time code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// Links a device to the user who made it.
    Join,
    /// Makes the first administrator.
    Setup,
    /// Lets one person register.
    Invite,
    /// Sets a new password for its user.
    Reset,
}

impl CodeKind {
    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Setup => "setup",
            Self::Invite => "invite",
            Self::Reset => "reset",
        }
    }
}

/// A one-time code that is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewCode {
    /// The hash of the secret.
    pub hash: SecretHash,
    /// What it is for.
    pub kind: CodeKind,
    /// For whom.
    pub user_id: Option<UserId>,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// In milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// What a one-time code was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeUse {
    /// Good, and used up by this call.
    Used(Option<UserId>),
    /// No such code.
    Unknown,
    /// Too late.
    Expired,
    /// Used before.
    AlreadyUsed,
}

/// What became of the first administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstAdmin {
    /// Made; every set-up code is used up.
    Made,
    /// There is one already.
    Exists,
    /// The code does not open the door.
    BadCode(CodeUse),
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows; 0 when it is to be stored.
    pub audit_id: i64,
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// What happened: a stable word such as `login.failed`.
    pub event: String,
    /// To whom it was done, or who did it to themselves.
    pub user_id: Option<UserId>,
    /// On whose behalf it was done, when that is known.
    pub actor_id: Option<UserId>,
    /// By which way: `http`, `cli` or `relay`.
    pub via: String,
    /// Through which device.
    pub device_id: Option<DeviceId>,
    /// From where.
    pub remote_ip: Option<String>,
    /// More, without secrets.
    pub detail: String,
}

/// Accounts in a database. Contract: `store/accounts/contract.rs`.
#[async_trait]
pub trait AccountStore: SigninStore {
    /// The value of a setting; stores `value` when there is none. All callers see one value.
    async fn setting_or_insert(&self, key: &str, value: &str, now_ms: i64) -> Result<String, StoreError>;
    /// The value of a setting.
    async fn setting(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Gives a setting a value, whatever it was.
    async fn put_setting(&self, key: &str, value: &str, now_ms: i64) -> Result<(), StoreError>;

    /// Stores a user; false when the address is taken.
    async fn insert_user(&self, user: &User) -> Result<bool, StoreError>;
    /// Stores the first administrator if there is none and the code is good, in one step.
    async fn insert_first_admin(&self, user: &User, code: SecretHash, now_ms: i64) -> Result<FirstAdmin, StoreError>;
    /// A user by id.
    async fn user(&self, user_id: UserId) -> Result<Option<User>, StoreError>;
    /// A user by the normal form of the address.
    async fn user_by_email(&self, email_key: &str) -> Result<Option<User>, StoreError>;
    /// Users in the order of their addresses, beginning after `after`.
    async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, StoreError>;
    /// Changes a user; false when there is none.
    async fn update_user(&self, user_id: UserId, change: &UserChange) -> Result<bool, StoreError>;
    /// Replaces the password hash if it still is `expected`; false otherwise.
    async fn replace_password(&self, user_id: UserId, expected: &str, hash: &str) -> Result<bool, StoreError>;
    /// Deletes a user with devices and sessions; false when there is none.
    async fn delete_user(&self, user_id: UserId) -> Result<bool, StoreError>;
    /// How many administrators are not locked out.
    async fn admins(&self) -> Result<u64, StoreError>;

    /// Stores a device, or renews name and time of the same user's.
    async fn put_device(&self, device: &Device) -> Result<DeviceStored, StoreError>;
    /// A device by id.
    async fn device(&self, device_id: DeviceId) -> Result<Option<Device>, StoreError>;
    /// A user's devices, the revoked ones too, oldest first.
    async fn devices(&self, user_id: UserId) -> Result<Vec<Device>, StoreError>;
    /// Renames a user's device; false when it is not theirs or revoked.
    async fn rename_device(&self, user_id: UserId, device_id: DeviceId, name: &str) -> Result<bool, StoreError>;
    /// Revokes a user's device and its sessions; false when it is not theirs. Again changes nothing.
    async fn revoke_device(&self, user_id: UserId, device_id: DeviceId, now_ms: i64) -> Result<bool, StoreError>;

    /// Stores a session and its first refresh token.
    async fn insert_session(&self, session: &Session, token: &NewToken) -> Result<(), StoreError>;
    /// What an access token of this session may still do.
    async fn session_access(&self, session_id: SessionId) -> Result<Option<SessionAccess>, StoreError>;
    /// Exchanges a refresh token for `new`, once. A second exchange within `tolerance_ms` of the first counts as parallel if no successor was exchanged yet;
    /// any other revokes the session.
    async fn rotate(&self, old: SecretHash, new: &NewToken, now_ms: i64, tolerance_ms: i64) -> Result<Rotation, StoreError>;
    /// A user's sessions that are neither revoked nor over, oldest first.
    async fn sessions(&self, user_id: UserId, now_ms: i64) -> Result<Vec<Session>, StoreError>;
    /// Revokes a session of this user; false when there is none to revoke.
    async fn revoke_session(&self, user_id: UserId, session_id: SessionId, why: &str, now_ms: i64) -> Result<bool, StoreError>;
    /// Revokes a user's sessions, except one.
    async fn revoke_sessions(&self, user_id: UserId, except: Option<SessionId>, why: &str, now_ms: i64) -> Result<(), StoreError>;

    /// Stores a one-time code.
    async fn insert_code(&self, code: &NewCode) -> Result<(), StoreError>;
    /// Uses a code up.
    async fn use_code(&self, hash: SecretHash, kind: CodeKind, now_ms: i64) -> Result<CodeUse, StoreError>;
    /// The codes of a kind that can still be used, the oldest first, at most `limit`.
    async fn open_codes(&self, kind: CodeKind, now_ms: i64, limit: u32) -> Result<Vec<NewCode>, StoreError>;
    /// Takes a code back that was not used. Returns whether there was such a one.
    async fn revoke_code(&self, hash: SecretHash, kind: CodeKind) -> Result<bool, StoreError>;

    /// Appends to the audit log.
    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError>;
    /// The newest entries before `before_id`, newest first; with a user, those that were done to or by that user.
    async fn audit_entries(&self, before_id: i64, user_id: Option<UserId>, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
    /// Drops at most `limit` entries of the audit log from before `before_ms`, and says how many. The schema refuses to drop young ones.
    async fn forget_audit(&self, before_ms: i64, limit: u32) -> Result<u64, StoreError>;

    /// Drops sessions, tokens and codes that ended before `before_ms`.
    async fn forget_ended(&self, before_ms: i64) -> Result<(), StoreError>;
}
