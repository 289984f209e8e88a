//! The rules: who may do what, and what happens then. No axum, no SQL, no S3 types (R1); the time comes from a [`Clock`](crate::clock::Clock).

pub mod accounts;
pub mod content;
mod error;
pub mod links;
pub mod markdown;
pub mod origin;
pub mod peers;
mod scopes;
pub mod shared;
pub mod sharing;
pub mod thumbnails;

pub use error::{Kind, ServiceError, ServiceResult};
pub use scopes::{Scope, Scopes, TokenFolder};

use ferry_protocol::id::{DeviceId, UserId};

/// One login: a family of refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A session id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A session id from a slice of exactly the right length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for SessionId {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What a user may do on the relay as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// Keeps files.
    User,
    /// Also manages users and the relay.
    Admin,
}

/// Who is calling: the result of checking an access token, and the only proof of identity that a service takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The device that the token was issued to; none for a login without a device (a browser, curl).
    pub device_id: Option<DeviceId>,
    /// The session.
    pub session_id: SessionId,
    /// What the user may do on the relay as a whole.
    pub role: UserRole,
    /// When the token ends, in milliseconds since 1970: a long-lived connection must not outlive it.
    pub expires_at_ms: i64,
    /// What the app password that called may do; none for a login, which may do all that its user may.
    pub token: Option<TokenLimits>,
}

/// The bounds of an app password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// What it is for.
    pub scopes: Scopes,
    /// The only folder that it opens.
    pub folder: Option<TokenFolder>,
}
