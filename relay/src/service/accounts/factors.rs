//! The second factor: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for the day when the app is gone.
//!
//! * **A5** A second factor that was confirmed is asked for at every login with a password or through another provider. A code counts once.
//! * **A6** Its secret rests encrypted under a key that is not in the database; recovery codes rest as hashes.

use super::secrets::{Bearer, new_recovery_codes, recovery_hash};
use super::{Accounts, random};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::accounts::User;
use ferry_protocol::UserId;
use std::net::IpAddr;

/// What a sealed secret of a second factor is for.
const PURPOSE: &str = "totp";
/// The name under which an authenticator app shows the account.
const ISSUER: &str = "Ferry";
/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;
/// How long a login waits for its second factor, in milliseconds.
const CHALLENGE_TTL_MS: i64 = 5 * 60_000;
/// Wrong codes of one login.
const ATTEMPTS_MAX: u32 = 5;

/// A second factor that is to be confirmed.
#[derive(Clone, PartialEq, Eq)]
pub struct NewTotp {
    /// The secret in base 32, for people who type.
    pub secret: String,
    /// The same as an `otpauth:` address, for a QR code.
    pub url: String,
}

/// What a user's second factor is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotpState {
    /// Whether logins ask for it.
    pub is_enabled: bool,
    /// Recovery codes that were not used.
    pub recovery_codes_left: u32,
}

impl Accounts {
    /// Whether the caller has a second factor.
    pub async fn totp_state(&self, user_id: UserId) -> ServiceResult<TotpState> {
        let is_enabled = self.store.totp(user_id).await?.is_some_and(|t| t.is_confirmed);
        Ok(TotpState { is_enabled, recovery_codes_left: self.store.recovery_codes_left(user_id).await? })
    }

    /// Begins a second factor. It counts when a code of it was shown. The password is asked for, so that a borrowed login cannot lock its owner out.
    pub async fn begin_totp(&self, caller: &Caller, password: &str, ip: IpAddr) -> ServiceResult<NewTotp> {
        let user = self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        self.check_own_password(&user, password, ip).await?;
        let secret = random::<20>()?;
        let sealed = self.seal.seal(PURPOSE, user.user_id.as_bytes(), &secret)?;
        if !self.store.put_totp(user.user_id, &sealed, self.clock.now_ms()).await? {
            return Err(
                ServiceError::conflict("totp_enabled", "A second factor is set up already.").hint("Remove it first to set up another.")
            );
        }
        let totp = totp_of(&secret, &user.email_key)?;
        let url = totp.to_url().map_err(ServiceError::internal)?;
        Ok(NewTotp { secret: totp.secret().to_base32(), url })
    }

    /// Confirms the second factor with a code of it, and gives the recovery codes: this once.
    pub async fn confirm_totp(&self, caller: &Caller, code: &str, ip: IpAddr) -> ServiceResult<Vec<String>> {
        let user = self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        let now_ms = self.clock.now_ms();
        let nothing = || ServiceError::conflict("totp_not_begun", "There is no second factor to confirm.").hint("Begin one first.");
        let totp = self.store.totp(user.user_id).await?.filter(|t| !t.is_confirmed).ok_or_else(nothing)?;
        self.limiter.take_place(ip, &user.email_key, now_ms).await?;
        let Some(step) = self.matching_step(user.user_id, &totp.sealed, code)? else {
            return Err(wrong_code(Kind::Forbidden));
        };
        self.limiter.give_back(ip, &user.email_key, now_ms).await?;
        let (codes, hashes) = new_recovery_codes(user.user_id, RECOVERY_CODES)?;
        if !self.store.confirm_totp(user.user_id, step, &hashes, self.clock.now_ms()).await? {
            return Err(nothing());
        }
        self.note("totp.enabled", Some(user.user_id), caller.device_id, Some(ip), "").await;
        Ok(codes)
    }

    /// Removes the second factor. A code of it, or a recovery code, is asked for.
    pub async fn remove_totp(&self, caller: &Caller, code: &str, ip: IpAddr) -> ServiceResult<()> {
        let user = self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        self.check_code(&user, code, ip).await?;
        self.store.remove_totp(user.user_id).await?;
        self.note("totp.removed", Some(user.user_id), caller.device_id, Some(ip), "").await;
        Ok(())
    }

    /// New recovery codes in place of the old ones.
    pub async fn renew_recovery_codes(&self, caller: &Caller, code: &str, ip: IpAddr) -> ServiceResult<Vec<String>> {
        let user = self.store.user(caller.user_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        self.check_code(&user, code, ip).await?;
        let (codes, hashes) = new_recovery_codes(user.user_id, RECOVERY_CODES)?;
        if !self.store.replace_recovery_codes(user.user_id, &hashes).await? {
            return Err(not_enabled());
        }
        self.note("totp.recovery_codes", Some(user.user_id), caller.device_id, Some(ip), "").await;
        Ok(codes)
    }

    /// Removes a user's second factor, for an administrator whose user lost it. False when there was none.
    pub async fn reset_totp(&self, user_id: UserId) -> ServiceResult<bool> {
        self.user(user_id).await?;
        let removed = self.store.remove_totp(user_id).await?;
        if removed {
            self.note("totp.reset", Some(user_id), None, None, "").await;
        }
        Ok(removed)
    }

    /// Lets through who has no second factor; for others the error `mfa_required` carries a token that the next step takes (A5).
    pub(super) async fn ask_second_factor(&self, user: &User, ip: IpAddr) -> ServiceResult<()> {
        if !self.store.totp(user.user_id).await?.is_some_and(|t| t.is_confirmed) {
            return Ok(());
        }
        let (token, hash) = Bearer::Mfa.mint()?;
        self.store.insert_challenge(hash, user.user_id, self.clock.now_ms() + CHALLENGE_TTL_MS).await?;
        self.note("login.mfa_required", Some(user.user_id), None, Some(ip), "").await;
        let detail = "The password is right. Now the code of your authenticator app is needed, or a recovery code.";
        Err(ServiceError::new(Kind::Unauthenticated, "mfa_required", detail).with("mfa_token", token))
    }

    /// The second step of a login. Wrong codes are counted for the login, the address and the account.
    pub(super) async fn pass_second_factor(&self, mfa_token: &str, code: &str, ip: IpAddr) -> ServiceResult<User> {
        self.may_guess(ip, "").await?;
        let now_ms = self.clock.now_ms();
        let over = || {
            ServiceError::new(Kind::Unauthenticated, "mfa_expired", "This login took too long or had too many wrong codes. Begin again.")
        };
        let hash = Bearer::Mfa.hash(mfa_token);
        let user_id = match hash {
            Some(hash) => self.store.take_attempt(hash, now_ms, ATTEMPTS_MAX).await?,
            None => None,
        };
        let (Some(hash), Some(user_id)) = (hash, user_id) else {
            self.limiter.failed(ip, "", now_ms).await?;
            return Err(over());
        };
        let user = self.store.user(user_id).await?.filter(|u| !u.disabled).ok_or_else(over)?;
        match self.check_code(&user, code, ip).await {
            Ok(()) => {}
            // An administrator took the second factor away in between: the password was right.
            Err(e) if e.code() == "totp_not_enabled" => {}
            Err(e) if e.code() == "wrong_code" => return Err(wrong_code(Kind::Unauthenticated)),
            Err(e) => return Err(e),
        }
        if !self.store.end_challenge(hash).await? {
            return Err(over());
        }
        self.limiter.succeeded(ip, &user.email_key, now_ms).await?;
        Ok(user)
    }

    /// Whether this is a code of the user's second factor or a recovery code; it is used up.
    async fn check_code(&self, user: &User, code: &str, ip: IpAddr) -> ServiceResult<()> {
        let totp = self.store.totp(user.user_id).await?.filter(|t| t.is_confirmed).ok_or_else(not_enabled)?;
        let now_ms = self.clock.now_ms();
        self.limiter.take_place(ip, &user.email_key, now_ms).await?;
        if self.is_code(user, &totp.sealed, code, ip, now_ms).await? {
            return self.limiter.give_back(ip, &user.email_key, now_ms).await;
        }
        self.note("totp.failed", Some(user.user_id), None, Some(ip), "").await;
        Err(wrong_code(Kind::Forbidden))
    }

    async fn is_code(&self, user: &User, sealed: &[u8], code: &str, ip: IpAddr, now_ms: i64) -> ServiceResult<bool> {
        if let Some(step) = self.matching_step(user.user_id, sealed, code)?
            && self.store.use_totp_step(user.user_id, step).await?
        {
            return Ok(true);
        }
        if let Some(hash) = recovery_hash(user.user_id, code)
            && self.store.use_recovery_code(user.user_id, hash, now_ms).await?
        {
            let left = self.store.recovery_codes_left(user.user_id).await?;
            self.note("totp.recovery_used", Some(user.user_id), None, Some(ip), &format!("{left} left")).await;
            return Ok(true);
        }
        Ok(false)
    }

    /// The time step whose code this is, if it is one of now, just before or just after.
    fn matching_step(&self, user_id: UserId, sealed: &[u8], code: &str) -> ServiceResult<Option<u64>> {
        let secret = self.seal.open(PURPOSE, user_id.as_bytes(), sealed).ok_or_else(|| {
            ServiceError::internal("the secret of a second factor does not open: the secrets key is another one than it was sealed with")
        })?;
        let digits: String = code.chars().filter(|c| *c != ' ').collect();
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let now_s = u64::try_from(self.clock.now_ms() / 1000).unwrap_or(0);
        Ok(totp_of(&secret, "")?.check(&digits, now_s))
    }
}

/// Six digits, every 30 seconds, SHA-1: what every authenticator app can do.
fn totp_of(secret: &[u8], account: &str) -> ServiceResult<totp_rs::Totp> {
    totp_rs::Builder::new()
        .with_algorithm(totp_rs::Algorithm::SHA1)
        .with_digits(6)
        .with_skew(1)
        .with_step_duration(30)
        .with_secret(secret.to_vec())
        .with_issuer(Some(ISSUER))
        .with_account_name(account.replace(':', ""))
        .build()
        .map_err(ServiceError::internal)
}

fn wrong_code(kind: Kind) -> ServiceError {
    ServiceError::new(kind, "wrong_code", "The code is wrong or was used before.").hint("Wait for the next code of the app.")
}

fn not_enabled() -> ServiceError {
    ServiceError::conflict("totp_not_enabled", "There is no second factor.")
}
