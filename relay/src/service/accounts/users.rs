//! Users and their devices: registration, the first administrator, administration.

use super::login::{OneTimeCode, check_device_name, refusal_of_code};
use super::secrets::code_hash;
use super::{Accounts, passwords, random};
use crate::config::Registration;
use crate::service::{Caller, Kind, ServiceError, ServiceResult, UserRole};
use crate::store::accounts::{AuditEntry, CodeKind, Device, FirstAdmin, NewCode, User, UserChange};
use ferry_protocol::{DeviceId, UserId};
use std::net::IpAddr;

/// Longest address, in bytes.
const EMAIL_MAX_BYTES: usize = 254;
/// Longest name of a person, in bytes.
const NAME_MAX_BYTES: usize = 128;
/// How long a set-up link is good, in milliseconds.
const SETUP_TTL_MS: i64 = 30 * 60_000;
/// How long an invitation is good, in milliseconds.
const INVITE_TTL_MS: i64 = 7 * 24 * 3600 * 1000;
/// The longest that one may be, in milliseconds.
const INVITE_TTL_MAX_MS: i64 = 366 * 24 * 3600 * 1000;
/// Invitations that are looked at.
const INVITES_MAX: u32 = 10_000;
/// Bytes of a code's hash that name it: nobody finds the code by them.
const INVITE_ID_BYTES: usize = 8;

/// An invitation that can still be used. Its code was shown when it was made, and never again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Names it, for taking it back: 16 hexadecimal digits.
    pub id: String,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// In milliseconds since 1970.
    pub expires_at_ms: i64,
}

fn invite_id(code: &NewCode) -> String {
    hex::encode(&code.hash[..INVITE_ID_BYTES])
}
/// How long a reset code is good, in milliseconds.
const RESET_TTL_MS: i64 = 24 * 3600 * 1000;

/// A user who is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewUser<'a> {
    /// The address.
    pub email: &'a str,
    /// For people; not given: the part of the address before the `@`.
    pub name: Option<&'a str>,
    /// The password in clear.
    pub password: &'a str,
}

impl Accounts {
    /// Registers a user as far as the relay's policy allows (R14).
    pub async fn register(&self, new: NewUser<'_>, invite: Option<&str>, ip: IpAddr) -> ServiceResult<User> {
        match (self.policy.registration, invite) {
            (Registration::Open, _) => {}
            (Registration::Closed, _) => {
                return Err(ServiceError::new(
                    Kind::Forbidden,
                    "registration_closed",
                    "This relay takes no registrations. Its administrator adds users.",
                ));
            }
            (Registration::Invite, None) => {
                return Err(ServiceError::new(
                    Kind::Forbidden,
                    "invitation_needed",
                    "This relay takes registrations with an invitation only.",
                ));
            }
            (Registration::Invite, Some(_)) => {}
        }
        let user = self.prepare(new, UserRole::User).await?;
        if let (Registration::Invite, Some(code)) = (self.policy.registration, invite) {
            // Looked at before the code is spent, so that a typing mistake does not cost the invitation.
            if self.store.user_by_email(&user.email_key).await?.is_some() {
                return Err(email_taken());
            }
            self.use_code(code, CodeKind::Invite, ip).await?;
        }
        self.insert(user, "user.registered", Some(ip)).await
    }

    /// Adds a user, whatever the policy: for administrators, the command line and a host process.
    pub async fn add_user(&self, new: NewUser<'_>, role: UserRole) -> ServiceResult<User> {
        let user = self.prepare(new, role).await?;
        self.insert(user, "user.added", None).await
    }

    async fn insert(&self, user: User, event: &str, ip: Option<IpAddr>) -> ServiceResult<User> {
        if !self.store.insert_user(&user).await? {
            return Err(email_taken());
        }
        self.note(event, Some(user.user_id), None, ip, "").await;
        Ok(user)
    }

    pub(super) async fn prepare(&self, new: NewUser<'_>, role: UserRole) -> ServiceResult<User> {
        let email_key = email_key(new.email).ok_or_else(|| {
            ServiceError::invalid("invalid_email", "The e-mail address must look like name@example.org, in ASCII, at most 254 bytes.")
        })?;
        let name = check_name(new.name.unwrap_or_else(|| email_key.split('@').next().unwrap_or(&email_key)))?;
        passwords::check_new(new.password)?;
        let limit = self.policy.default_storage_limit_bytes;
        Ok(User {
            user_id: UserId::from_bytes(random()?),
            email: new.email.trim().to_owned(),
            email_key,
            name,
            password_hash: self.passwords.hash(new.password).await?,
            role,
            storage_used_bytes: 0,
            storage_limit_bytes: (limit > 0).then_some(limit),
            disabled: false,
            created_at_ms: self.clock.now_ms(),
        })
    }

    /// A code that makes the first administrator; none when there is one already.
    pub async fn create_setup_code(&self) -> ServiceResult<Option<OneTimeCode>> {
        if self.store.admins().await? > 0 {
            return Ok(None);
        }
        self.create_code(CodeKind::Setup, None, SETUP_TTL_MS).await.map(Some)
    }

    /// Makes the first administrator. Of two at once exactly one wins (R15).
    pub async fn setup(&self, code: &str, new: NewUser<'_>, ip: IpAddr) -> ServiceResult<User> {
        self.may_guess(ip, "").await?;
        let exists = || ServiceError::conflict("already_set_up", "This relay has an administrator already.");
        if self.store.admins().await? > 0 {
            return Err(exists());
        }
        let user = self.prepare(new, UserRole::Admin).await?;
        let refused = match code_hash(code) {
            None => FirstAdmin::BadCode(crate::store::accounts::CodeUse::Unknown),
            Some(hash) => self.store.insert_first_admin(&user, hash, self.clock.now_ms()).await?,
        };
        match refused {
            FirstAdmin::Made => {
                self.note("setup.done", Some(user.user_id), None, Some(ip), "").await;
                Ok(user)
            }
            FirstAdmin::Exists => Err(exists()),
            FirstAdmin::BadCode(found) => {
                self.limiter.failed(ip, "", self.clock.now_ms()).await?;
                Err(refusal_of_code(found))
            }
        }
    }

    /// A code with which one person may register, within a week.
    pub async fn create_invite(&self) -> ServiceResult<OneTimeCode> {
        self.create_invite_for(INVITE_TTL_MS).await
    }

    /// The same within this time, in milliseconds.
    pub async fn create_invite_for(&self, ttl_ms: i64) -> ServiceResult<OneTimeCode> {
        if !(1..=INVITE_TTL_MAX_MS).contains(&ttl_ms) {
            return Err(ServiceError::invalid("invalid_expiry", "An invitation lasts at most a year."));
        }
        self.create_code(CodeKind::Invite, None, ttl_ms).await
    }

    /// Invitations that can still be used, the oldest first.
    pub async fn invites(&self) -> ServiceResult<Vec<Invite>> {
        let open = self.store.open_codes(CodeKind::Invite, self.clock.now_ms(), INVITES_MAX).await?;
        Ok(open.iter().map(|c| Invite { id: invite_id(c), created_at_ms: c.created_at_ms, expires_at_ms: c.expires_at_ms }).collect())
    }

    /// Takes an invitation back, by its id or by the code itself.
    pub async fn revoke_invite(&self, id: &str) -> ServiceResult<()> {
        let open = self.store.open_codes(CodeKind::Invite, self.clock.now_ms(), INVITES_MAX).await?;
        let by_code = code_hash(id);
        let found = open.iter().find(|code| invite_id(code) == id || Some(code.hash) == by_code).ok_or_else(ServiceError::not_found)?;
        if !self.store.revoke_code(found.hash, CodeKind::Invite).await? {
            return Err(ServiceError::not_found());
        }
        self.note("code.revoked", None, None, None, CodeKind::Invite.as_str()).await;
        Ok(())
    }

    /// A code with which a user sets a new password.
    pub async fn create_reset_code(&self, user_id: UserId) -> ServiceResult<OneTimeCode> {
        self.user(user_id).await?;
        self.create_code(CodeKind::Reset, Some(user_id), RESET_TTL_MS).await
    }

    /// A user.
    pub async fn user(&self, user_id: UserId) -> ServiceResult<User> {
        self.store.user(user_id).await?.ok_or_else(ServiceError::not_found)
    }

    /// A user by address.
    pub async fn user_by_email(&self, email: &str) -> ServiceResult<User> {
        let key = email_key(email).ok_or_else(ServiceError::not_found)?;
        self.store.user_by_email(&key).await?.ok_or_else(ServiceError::not_found)
    }

    /// Users in the order of their addresses, beginning after `after`.
    pub async fn users(&self, after: &str, limit: u32) -> ServiceResult<Vec<User>> {
        Ok(self.store.users(&after.trim().to_ascii_lowercase(), limit.clamp(1, 1000)).await?)
    }

    /// Changes a user. The last administrator stays one.
    pub async fn update_user(&self, user_id: UserId, change: &UserChange) -> ServiceResult<User> {
        let user = self.user(user_id).await?;
        if change.disabled == Some(true) || change.role == Some(UserRole::User) {
            self.keep_an_admin(&user).await?;
        }
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        self.store.update_user(user_id, change).await?;
        if change.disabled == Some(true) {
            self.store.revoke_sessions(user_id, None, "account locked", self.clock.now_ms()).await?;
        }
        self.forget_cached(user_id);
        if change.disabled.is_some() {
            self.peers.changed(user_id).await;
        }
        self.note("user.changed", Some(user_id), None, None, &describe(change)).await;
        self.user(user_id).await
    }

    /// Sets a user's password; all sessions end.
    pub async fn set_password(&self, user_id: UserId, new: &str) -> ServiceResult<()> {
        passwords::check_new(new)?;
        let user = self.user(user_id).await?;
        let hash = self.passwords.hash(new).await?;
        if !self.store.replace_password(user_id, &user.password_hash, &hash).await? {
            return Err(ServiceError::conflict("password_changed", "The password was changed at the same time. Try again."));
        }
        self.store.revoke_sessions(user_id, None, "password set", self.clock.now_ms()).await?;
        self.forget_cached(user_id);
        self.peers.changed(user_id).await;
        self.note("password.set", Some(user_id), None, None, "").await;
        Ok(())
    }

    /// Deletes a user with devices and sessions. The last administrator stays.
    pub async fn delete_user(&self, user_id: UserId) -> ServiceResult<()> {
        let user = self.user(user_id).await?;
        self.keep_an_admin(&user).await?;
        let audience = self.peers.audience(user_id).await;
        // First nobody acts for the user any more: what a request makes while the content goes would be left.
        self.store.update_user(user_id, &UserChange { disabled: Some(true), ..UserChange::default() }).await?;
        self.store.revoke_sessions(user_id, None, "account deleted", self.clock.now_ms()).await?;
        self.forget_cached(user_id);
        self.store.delete_user(user_id).await?;
        self.forget_cached(user_id);
        self.peers.tell(&audience, None);
        self.note("user.deleted", Some(user_id), None, None, &user.email_key).await;
        Ok(())
    }

    async fn keep_an_admin(&self, user: &User) -> ServiceResult<()> {
        if user.role == UserRole::Admin && !user.disabled && self.store.admins().await? <= 1 {
            return Err(ServiceError::conflict("last_admin", "This is the last administrator. Make another one first."));
        }
        Ok(())
    }

    /// A user's devices, the revoked ones too.
    pub async fn devices(&self, user_id: UserId) -> ServiceResult<Vec<Device>> {
        Ok(self.store.devices(user_id).await?)
    }

    /// A device by its id, whoever's it is: for the command line.
    pub async fn device(&self, device_id: DeviceId) -> ServiceResult<Device> {
        self.store.device(device_id).await?.ok_or_else(ServiceError::not_found)
    }

    /// Renames a user's device.
    pub async fn rename_device(&self, user_id: UserId, device_id: DeviceId, name: &str) -> ServiceResult<Device> {
        let name = check_device_name(name)?;
        if !self.store.rename_device(user_id, device_id, &name).await? {
            return Err(ServiceError::not_found());
        }
        self.peers.changed(user_id).await;
        self.note("device.renamed", Some(user_id), Some(device_id), None, "").await;
        self.device(device_id).await
    }

    /// Revokes a user's device: its tokens are worth nothing from now on (A1).
    pub async fn revoke_device(&self, user_id: UserId, device_id: DeviceId) -> ServiceResult<()> {
        let found = self.store.revoke_device(user_id, device_id, self.clock.now_ms()).await?;
        self.forget_cached(user_id);
        if !found {
            return Err(ServiceError::not_found());
        }
        self.peers.changed(user_id).await;
        self.note("device.revoked", Some(user_id), Some(device_id), None, "").await;
        Ok(())
    }

    /// The newest entries of the audit log before `before_id`.
    pub async fn audit_entries(&self, before_id: Option<i64>, user_id: Option<UserId>, limit: u32) -> ServiceResult<Vec<AuditEntry>> {
        Ok(self.store.audit_entries(before_id.unwrap_or(i64::MAX), user_id, limit.clamp(1, 1000)).await?)
    }

    /// The caller's own account.
    pub async fn me(&self, caller: &Caller) -> ServiceResult<User> {
        self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)
    }
}

fn email_taken() -> ServiceError {
    ServiceError::conflict("email_taken", "There is an account with this e-mail address already.")
}

fn describe(change: &UserChange) -> String {
    let mut words = Vec::new();
    if change.name.is_some() {
        words.push("name".to_owned());
    }
    if let Some(role) = change.role {
        words.push(format!("role={}", if role == UserRole::Admin { "admin" } else { "user" }));
    }
    if let Some(limit) = change.storage_limit_bytes {
        words.push(limit.map_or("quota=none".to_owned(), |n| format!("quota={n}")));
    }
    if let Some(disabled) = change.disabled {
        words.push(format!("disabled={disabled}"));
    }
    words.join(" ")
}

/// The form under which two spellings of an address are one account; none when it is not an address. ASCII only: letters that merely look alike cannot make
/// a second account of the same appearance.
pub(in crate::service) fn email_key(email: &str) -> Option<String> {
    let email = email.trim();
    let (local, domain) = email.rsplit_once('@')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&b);
    let host = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let right =
        email.len() <= EMAIL_MAX_BYTES && !local.is_empty() && !domain.is_empty() && local.bytes().all(plain) && domain.bytes().all(host);
    (right && !domain.starts_with(['.', '-']) && !domain.ends_with(['.', '-'])).then(|| email.to_ascii_lowercase())
}

pub(super) fn check_name(name: &str) -> ServiceResult<String> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(ServiceError::invalid("invalid_name", format!("A name has 1 to {NAME_MAX_BYTES} bytes and no control characters.")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_normal_form() {
        assert_eq!(email_key(" Ana@Example.org "), Some("ana@example.org".into()));
        assert_eq!(email_key("me@localhost"), Some("me@localhost".into()));
        let long = format!("{}@x", "a".repeat(254));
        for wrong in ["", "admin", "@x", "x@", "a b@x", "a@b@c", "../x", "аna@example.org", "<b>@x", "a@.x", "a\n@x", "a@x/../y", &long] {
            assert_eq!(email_key(wrong), None, "{wrong}");
        }
    }
}
