//! Coming in and staying in: login, refresh, logout, join by code, password changes.

use super::device_flow::{device_of_another_user, device_revoked};
use super::secrets::{Bearer, code_hash, new_code, new_refresh_token, refresh_hash};
use super::users::email_key;
use super::{Accounts, passwords, random};
use crate::service::{Caller, ServiceError, ServiceResult, SessionId};
use crate::store::accounts::{CodeKind, CodeUse, Device, DeviceStored, NewCode, NewToken, Rotation, Session, User};
use ferry_protocol::limits::DEVICE_NAME_MAX_BYTES;
use ferry_protocol::{DeviceId, UserId};
use std::net::IpAddr;

/// How long after an exchange of a refresh token a second one counts as parallel, in milliseconds (R07).
const PARALLEL_REFRESH_MS: i64 = 10_000;
/// How long a join code is good, in milliseconds.
const JOIN_TTL_MS: i64 = 15 * 60_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A device that introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIntro {
    /// For people.
    pub name: String,
    /// Ed25519, in hexadecimal.
    pub public_key: String,
}

/// What a login gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// The bearer token for requests.
    pub access_token: String,
    /// In how many seconds it ends.
    pub expires_in_s: u32,
    /// Exchanged once for the next set.
    pub refresh_token: String,
    /// Who logged in.
    pub user_id: UserId,
    /// The device that logged in.
    pub device_id: Option<DeviceId>,
    /// The public key with which the relay's grants are checked: 64 hexadecimal digits.
    pub grant_key: String,
}

/// A secret for one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneTimeCode {
    /// What the other side gives back.
    pub secret: String,
    /// In milliseconds since 1970.
    pub expires_at_ms: i64,
}

impl Accounts {
    /// Logs a user in. Where the account has a second factor, the error `mfa_required` carries the token for [`Accounts::login_mfa`].
    pub async fn login(&self, email: &str, password: &str, device: Option<&DeviceIntro>, ip: IpAddr) -> ServiceResult<TokenSet> {
        let device = device.map(check_device).transpose()?;
        let user = self.pass_password(email, password, ip).await?;
        self.begin_session(&user, device, ip, "login").await
    }

    /// The second step of a login: the code of the second factor, or a recovery code.
    pub async fn login_mfa(&self, mfa_token: &str, code: &str, device: Option<&DeviceIntro>, ip: IpAddr) -> ServiceResult<TokenSet> {
        let device = device.map(check_device).transpose()?;
        let user = self.pass_second_factor(mfa_token, code, ip).await?;
        self.begin_session(&user, device, ip, "login").await
    }

    /// The user with this address and password. One answer for an unknown address and a wrong password, at one cost (A3); whoever has a second factor
    /// is not through yet (A5).
    pub(super) async fn pass_password(&self, email: &str, password: &str, ip: IpAddr) -> ServiceResult<User> {
        let key = email_key(email).unwrap_or_default();
        self.may_guess(ip, &key).await?;
        let user = self.store.user_by_email(&key).await?;
        let verdict = self.passwords.verify(password, user.as_ref().map(|u| u.password_hash.as_str())).await?;
        let user = match user {
            Some(user) if verdict.good => user,
            other => {
                // Of many guesses at once, those over the limit learn nothing from their answer.
                self.limiter.failed(ip, &key, self.clock.now_ms()).await?;
                self.note("login.failed", other.map(|u| u.user_id), None, Some(ip), "").await;
                return Err(ServiceError::new(
                    crate::service::Kind::Unauthenticated,
                    "wrong_credentials",
                    "The e-mail address or the password is wrong.",
                ));
            }
        };
        // Asked again, for the same reason.
        self.may_guess(ip, &key).await?;
        if user.disabled {
            self.note("login.disabled", Some(user.user_id), None, Some(ip), "").await;
            return Err(account_disabled());
        }
        if verdict.outdated {
            let hash = self.passwords.hash(password).await?;
            self.store.replace_password(user.user_id, &user.password_hash, &hash).await?;
        }
        // Counts begin anew only when all of the login is done: the right password alone must not buy guesses of the second factor.
        self.ask_second_factor(&user, ip).await?;
        self.limiter.succeeded(ip, &key, self.clock.now_ms()).await?;
        Ok(user)
    }

    /// Asks a user who is logged in for the password once more, before something that a borrowed login must not do.
    pub(super) async fn check_own_password(&self, user: &User, password: &str, ip: IpAddr) -> ServiceResult<()> {
        let now_ms = self.clock.now_ms();
        self.limiter.take_place(ip, &user.email_key, now_ms).await?;
        let verdict = self.passwords.verify(password, Some(&user.password_hash)).await;
        if !matches!(&verdict, Ok(verdict) if !verdict.good) {
            self.limiter.give_back(ip, &user.email_key, now_ms).await?;
        }
        if verdict?.good {
            return Ok(());
        }
        Err(ServiceError::new(crate::service::Kind::Forbidden, "wrong_password", "The current password is wrong."))
    }

    /// A code with which one more device of this user can come in.
    pub async fn create_join_code(&self, user_id: UserId) -> ServiceResult<OneTimeCode> {
        self.create_code(CodeKind::Join, Some(user_id), JOIN_TTL_MS).await
    }

    /// Brings a device in with a join code, which is used up.
    pub async fn join(&self, secret: &str, device: &DeviceIntro, ip: IpAddr) -> ServiceResult<TokenSet> {
        let device = check_device(device)?;
        let user_id = self.use_code(secret, CodeKind::Join, ip).await?.ok_or_else(ServiceError::unauthenticated)?;
        let user = self.store.user(user_id).await?.filter(|u| !u.disabled).ok_or_else(ServiceError::unauthenticated)?;
        self.begin_session(&user, Some(device), ip, "join").await
    }

    /// Exchanges a refresh token for a new set of tokens. A token that was exchanged before ends the whole session (R07).
    pub async fn refresh(&self, token: &str, ip: IpAddr) -> ServiceResult<TokenSet> {
        let ended = || ServiceError::new(crate::service::Kind::Unauthenticated, "session_ended", "The login has ended. Log in again.");
        let old = refresh_hash(token).ok_or_else(ended)?;
        let now_ms = self.clock.now_ms();
        let (next, hash) = new_refresh_token()?;
        let new = NewToken { hash, expires_at_ms: now_ms + self.refresh_ttl_ms() };
        match self.store.rotate(old, &new, now_ms, PARALLEL_REFRESH_MS).await? {
            Rotation::Rotated(session) => self.token_set(&session, next, now_ms),
            Rotation::Dead => Err(ended()),
            Rotation::Reused(session) => {
                self.forget_cached(session.user_id);
                self.peers.changed(session.user_id).await;
                tracing::warn!(session_id = %session.session_id, "a refresh token was used twice; its session is revoked");
                self.note("refresh.reused", Some(session.user_id), session.device_id, Some(ip), "session revoked").await;
                Err(ended())
            }
        }
    }

    /// Ends what a token is of, whatever kind it is: the whole session of a refresh or an access token. A token that is not known is no error.
    pub async fn revoke_token(&self, token: &str, ip: IpAddr) -> ServiceResult<()> {
        let now_ms = self.clock.now_ms();
        if let Some(hash) = Bearer::App.hash(token) {
            if let Some(found) = self.store.api_token(hash).await?
                && self.store.revoke_api_token(found.token.user_id, found.token.token_id, now_ms).await?
            {
                self.note("token.revoked", Some(found.token.user_id), None, Some(ip), "app password").await;
            }
            return Ok(());
        }
        let found = if let Some(hash) = refresh_hash(token) {
            self.store.session_of_refresh(hash).await?
        } else if let Some(claims) = self.key.verify(token, now_ms) {
            claims.sid.parse().ok().map(|session| (claims.sub, session))
        } else {
            None
        };
        let Some((user_id, session_id)) = found else { return Ok(()) };
        if self.store.revoke_session(user_id, session_id, "token revoked", now_ms).await? {
            self.forget_cached(user_id);
            self.peers.changed(user_id).await;
            self.note("token.revoked", Some(user_id), None, Some(ip), "").await;
        }
        Ok(())
    }

    /// Ends the caller's session: its access token too, at once on this process (A1).
    pub async fn logout(&self, caller: &Caller) -> ServiceResult<()> {
        self.store.revoke_session(caller.user_id, caller.session_id, "logout", self.clock.now_ms()).await?;
        self.forget_cached(caller.user_id);
        self.peers.changed(caller.user_id).await;
        self.note("logout", Some(caller.user_id), caller.device_id, None, "").await;
        Ok(())
    }

    /// A user's running sessions.
    pub async fn sessions(&self, user_id: UserId) -> ServiceResult<Vec<Session>> {
        Ok(self.store.sessions(user_id, self.clock.now_ms()).await?)
    }

    /// Ends one session of a user.
    pub async fn revoke_session(&self, user_id: UserId, session_id: SessionId) -> ServiceResult<()> {
        let found = self.store.revoke_session(user_id, session_id, "revoked", self.clock.now_ms()).await?;
        self.forget_cached(user_id);
        if !found {
            return Err(ServiceError::not_found());
        }
        self.peers.changed(user_id).await;
        self.note("session.revoked", Some(user_id), None, None, &session_id.to_string()).await;
        Ok(())
    }

    /// Replaces the caller's password; all other sessions end.
    pub async fn change_password(&self, caller: &Caller, current: &str, new: &str, ip: IpAddr) -> ServiceResult<()> {
        passwords::check_new(new)?;
        let user = self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        self.check_own_password(&user, current, ip).await?;
        let hash = self.passwords.hash(new).await?;
        if !self.store.replace_password(user.user_id, &user.password_hash, &hash).await? {
            return Err(ServiceError::conflict("password_changed", "The password was changed at the same time. Log in again."));
        }
        self.store.revoke_sessions(user.user_id, Some(caller.session_id), "password changed", self.clock.now_ms()).await?;
        self.forget_cached(user.user_id);
        self.peers.changed(user.user_id).await;
        self.note("password.changed", Some(user.user_id), caller.device_id, Some(ip), "").await;
        Ok(())
    }

    /// Sets a user's password with a reset code; all sessions end.
    pub async fn reset_password(&self, code: &str, new: &str, ip: IpAddr) -> ServiceResult<()> {
        passwords::check_new(new)?;
        let user_id = self.use_code(code, CodeKind::Reset, ip).await?.ok_or_else(ServiceError::unauthenticated)?;
        self.set_password(user_id, new).await
    }

    /// Refuses when too many guesses failed.
    pub(super) async fn may_guess(&self, ip: IpAddr, account: &str) -> ServiceResult<()> {
        self.limiter.check(ip, account, self.clock.now_ms()).await
    }

    pub(super) async fn create_code(&self, kind: CodeKind, user_id: Option<UserId>, ttl_ms: i64) -> ServiceResult<OneTimeCode> {
        let now_ms = self.clock.now_ms();
        let (secret, hash) = new_code()?;
        let expires_at_ms = now_ms + ttl_ms;
        self.store.insert_code(&NewCode { hash, kind, user_id, created_at_ms: now_ms, expires_at_ms }).await?;
        self.note("code.created", user_id, None, None, kind.as_str()).await;
        Ok(OneTimeCode { secret, expires_at_ms })
    }

    /// Uses a code up; wrong ones count as failed guesses.
    pub(super) async fn use_code(&self, secret: &str, kind: CodeKind, ip: IpAddr) -> ServiceResult<Option<UserId>> {
        self.may_guess(ip, "").await?;
        let now_ms = self.clock.now_ms();
        let found = match code_hash(secret) {
            Some(hash) => self.store.use_code(hash, kind, now_ms).await?,
            None => CodeUse::Unknown,
        };
        match found {
            CodeUse::Used(user_id) => Ok(user_id),
            refused => {
                self.limiter.failed(ip, "", now_ms).await?;
                self.note("code.refused", None, None, Some(ip), kind.as_str()).await;
                Err(refusal_of_code(refused))
            }
        }
    }

    pub(super) async fn begin_session(
        &self,
        user: &User,
        device: Option<CheckedDevice>,
        ip: IpAddr,
        event: &str,
    ) -> ServiceResult<TokenSet> {
        let now_ms = self.clock.now_ms();
        let device_id = match device {
            None => None,
            Some(device) => Some(self.put_device(user, device, now_ms).await?),
        };
        let (token, hash) = new_refresh_token()?;
        let expires_at_ms = now_ms + self.refresh_ttl_ms();
        let session = Session {
            session_id: SessionId::from_bytes(random()?),
            user_id: user.user_id,
            device_id,
            created_at_ms: now_ms,
            last_used_at_ms: now_ms,
            expires_at_ms,
            revoked_at_ms: None,
        };
        self.store.insert_session(&session, &NewToken { hash, expires_at_ms }).await?;
        if device_id.is_some() {
            self.peers.changed(user.user_id).await;
        }
        self.note(event, Some(user.user_id), device_id, Some(ip), "").await;
        self.token_set(&session, token, now_ms)
    }

    async fn put_device(&self, user: &User, device: CheckedDevice, now_ms: i64) -> ServiceResult<DeviceId> {
        let device_id = DeviceId::of_public_key(&device.public_key);
        let row = Device {
            device_id,
            user_id: user.user_id,
            name: device.name,
            public_key: device.public_key,
            created_at_ms: now_ms,
            last_seen_at_ms: now_ms,
            revoked_at_ms: None,
        };
        match self.store.put_device(&row).await? {
            DeviceStored::Stored => Ok(device_id),
            DeviceStored::OfAnotherUser => Err(device_of_another_user()),
            DeviceStored::Revoked => Err(device_revoked()),
        }
    }

    fn token_set(&self, session: &Session, refresh_token: String, now_ms: i64) -> ServiceResult<TokenSet> {
        let expires_in_s = self.policy.access_ttl_s;
        let expires_at_ms = now_ms + i64::from(expires_in_s) * 1000;
        let access_token = self.key.sign(session.user_id, session.device_id, session.session_id, now_ms, expires_at_ms)?;
        Ok(TokenSet {
            access_token,
            expires_in_s,
            refresh_token,
            user_id: session.user_id,
            device_id: session.device_id,
            grant_key: self.peers.grant_key(),
        })
    }

    fn refresh_ttl_ms(&self) -> i64 {
        i64::from(self.policy.refresh_ttl_days) * DAY_MS
    }
}

/// A right password of an account that is locked.
pub(super) fn account_disabled() -> ServiceError {
    ServiceError::new(crate::service::Kind::Forbidden, "account_disabled", "This account is locked. Ask the relay's administrator.")
}

/// Why a code did not open the door.
pub(super) fn refusal_of_code(found: CodeUse) -> ServiceError {
    use crate::service::Kind::{Gone, Unauthenticated};
    match found {
        CodeUse::Expired => ServiceError::new(Gone, "code_expired", "This code is too old. Ask for a new one."),
        CodeUse::AlreadyUsed => ServiceError::new(Gone, "code_used", "This code was used before. Ask for a new one."),
        CodeUse::Unknown | CodeUse::Used(_) => {
            ServiceError::new(Unauthenticated, "code_unknown", "This code is not known here. Check it, or ask for a new one.")
        }
    }
}

/// A device whose name and key are in order.
pub(super) struct CheckedDevice {
    pub(super) name: String,
    pub(super) public_key: [u8; 32],
}

pub(super) fn check_device(device: &DeviceIntro) -> ServiceResult<CheckedDevice> {
    let mut public_key = [0; 32];
    hex::decode_to_slice(&device.public_key, &mut public_key).map_err(|_| {
        ServiceError::invalid("invalid_device_key", "device.public_key must be 64 hexadecimal digits: an Ed25519 public key.")
    })?;
    if public_key == [0; 32] {
        return Err(ServiceError::invalid("invalid_device_key", "device.public_key is not a key."));
    }
    Ok(CheckedDevice { name: check_device_name(&device.name)?, public_key })
}

/// A device's name: for people, on one line.
pub(super) fn check_device_name(name: &str) -> ServiceResult<String> {
    let name = name.trim();
    if name.is_empty() || name.len() > DEVICE_NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(ServiceError::invalid(
            "invalid_device_name",
            format!("A device's name has 1 to {DEVICE_NAME_MAX_BYTES} bytes and no control characters."),
        ));
    }
    Ok(name.to_owned())
}
