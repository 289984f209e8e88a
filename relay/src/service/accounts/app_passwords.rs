//! App passwords: secrets with a narrow purpose for programs that cannot log in. Shown once, stored as a hash, listed and revoked by their owner.
//!
//! * **A7** An app password does only what one of its scopes names, in the one folder that it names, if it names one; and nothing of its owner's account.

use super::secrets::Bearer;
use super::{Accounts, random};
use crate::service::{Caller, Kind, Scope, Scopes, ServiceError, ServiceResult, SessionId, TokenFolder, TokenLimits};
use crate::store::signin::ApiToken;
use ferry_protocol::{DeviceId, UserId};
use std::net::IpAddr;

/// App passwords of one user.
const TOKENS_MAX: u32 = 100;
/// Longest name, in bytes.
const NAME_MAX_BYTES: usize = 64;
/// How exactly the last use is kept, in milliseconds: not every request writes.
const LAST_USED_COARSE_MS: i64 = 60_000;
/// Longest life that may be asked for, in milliseconds.
const TTL_MAX_MS: i64 = 10 * 366 * 24 * 3600 * 1000;

/// An app password that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAppPassword {
    /// For people.
    pub name: String,
    /// Names of scopes.
    pub scopes: Vec<String>,
    /// The only folder that it opens, and where that is now, for people.
    pub folder: Option<(TokenFolder, String)>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

impl Accounts {
    /// Makes an app password; the first value is the secret, which nobody sees again.
    pub async fn create_app_password(&self, caller: &Caller, new: NewAppPassword, ip: IpAddr) -> ServiceResult<(String, ApiToken)> {
        self.make_app_password((caller.user_id, caller.device_id), new, Some(ip)).await
    }

    /// The same for an operator, in the name of a user.
    pub async fn create_app_password_for(&self, user_id: UserId, new: NewAppPassword) -> ServiceResult<(String, ApiToken)> {
        self.user(user_id).await?;
        self.make_app_password((user_id, None), new, None).await
    }

    async fn make_app_password(
        &self,
        (user_id, device_id): (UserId, Option<DeviceId>),
        new: NewAppPassword,
        ip: Option<IpAddr>,
    ) -> ServiceResult<(String, ApiToken)> {
        let now_ms = self.clock.now_ms();
        let name = new.name.trim();
        if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
            let detail = format!("An app password's name has 1 to {NAME_MAX_BYTES} bytes and no control characters.");
            return Err(ServiceError::invalid("invalid_name", detail));
        }
        if new.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms || at_ms > now_ms + TTL_MAX_MS) {
            return Err(ServiceError::invalid("invalid_expiry", "'expires_at' must be in the future, at most ten years from now."));
        }
        let (folder, path) = new.folder.map_or((None, None), |(folder, path)| (Some(folder), Some(path)));
        let token = ApiToken {
            token_id: SessionId::from_bytes(random()?),
            user_id,
            name: name.to_owned(),
            scopes: scopes_of(&new.scopes)?,
            folder,
            path,
            created_at_ms: now_ms,
            expires_at_ms: new.expires_at_ms,
            last_used_at_ms: None,
            last_used_ip: None,
            revoked_at_ms: None,
        };
        let (secret, hash) = Bearer::App.mint()?;
        if !self.store.insert_api_token(&token, hash, TOKENS_MAX).await? {
            return Err(ServiceError::conflict(
                "too_many_tokens",
                format!("There are {TOKENS_MAX} app passwords. Revoke those not needed."),
            ));
        }
        let detail = format!("{} {}", token.token_id, token.scopes.names().join(" "));
        self.note("app_password.made", Some(user_id), device_id, ip, &detail).await;
        Ok((secret, token))
    }

    /// A user's app passwords.
    pub async fn app_passwords(&self, user_id: UserId) -> ServiceResult<Vec<ApiToken>> {
        Ok(self.store.api_tokens(user_id, self.clock.now_ms()).await?)
    }

    /// Ends an app password of a user, at once and everywhere.
    pub async fn revoke_app_password(&self, user_id: UserId, token_id: SessionId) -> ServiceResult<()> {
        if !self.store.revoke_api_token(user_id, token_id, self.clock.now_ms()).await? {
            return Err(ServiceError::not_found());
        }
        self.note("app_password.revoked", Some(user_id), None, None, &token_id.to_string()).await;
        Ok(())
    }

    /// Who holds this app password; with an address, it must be its user's. Nothing is believed from memory: a revoked one ends everywhere at once.
    pub async fn authenticate_app_password(&self, secret: &str, email: Option<&str>, ip: IpAddr) -> ServiceResult<Caller> {
        let hash = Bearer::App.hash(secret).ok_or_else(ServiceError::unauthenticated)?;
        let access = self.store.api_token(hash).await?.ok_or_else(ServiceError::unauthenticated)?;
        let (token, now_ms) = (access.token, self.clock.now_ms());
        let expires_at_ms = token.expires_at_ms.unwrap_or(i64::MAX);
        let is_theirs = email.is_none_or(|email| super::users::email_key(email).as_deref() == Some(&access.email_key));
        if access.disabled || token.revoked_at_ms.is_some() || expires_at_ms <= now_ms || !is_theirs {
            return Err(ServiceError::unauthenticated());
        }
        if token.last_used_at_ms.is_none_or(|at_ms| now_ms - at_ms >= LAST_USED_COARSE_MS) {
            // For people only: a store that cannot write it now does not lock anybody out.
            if let Err(error) = self.store.touch_api_token(token.token_id, &ip.to_canonical().to_string(), now_ms).await {
                tracing::warn!(%error, "cannot note the use of an app password");
            }
        }
        Ok(Caller {
            user_id: token.user_id,
            device_id: None,
            session_id: token.token_id,
            role: access.role,
            expires_at_ms,
            token: Some(TokenLimits { scopes: token.scopes, folder: token.folder }),
        })
    }

    /// [`Accounts::authenticate_app_password`] for WebDAV, which every program tries with whatever it was given: what fails is counted, and after some
    /// failures from one address the answer is to wait. Who is right is never made to wait: nobody guesses 256 bits, and behind one address are many.
    pub async fn authenticate_for_dav(&self, secret: &str, email: Option<&str>, ip: IpAddr) -> ServiceResult<Caller> {
        let error = match self.authenticate_app_password(secret, email, ip).await {
            Err(error) if error.kind() == Kind::Unauthenticated => error,
            decided => return decided,
        };
        if email.is_some() || Self::is_app_password(secret) {
            self.limiter.app_password_failed(ip, self.clock.now_ms()).await?;
        }
        let detail = "WebDAV takes an app password with your e-mail address as the name, never the account's own password.";
        Err(ServiceError::new(error.kind(), "unauthenticated", detail)
            .hint("Make one with the scope 'dav' in the web client under Settings, App passwords; it is shown once."))
    }

    /// Whether a secret claims to be an app password.
    pub fn is_app_password(secret: &str) -> bool {
        secret.starts_with(Bearer::App.prefix())
    }
}

fn scopes_of(names: &[String]) -> ServiceResult<Scopes> {
    let known = Scope::ALL.map(|(_, name)| name).join(", ");
    let scopes = names.iter().map(|name| {
        name.parse::<Scope>().map_err(|()| ServiceError::invalid("invalid_scope", format!("'{name}' is not a scope. Scopes are: {known}.")))
    });
    Scopes::of(scopes.collect::<ServiceResult<Vec<_>>>()?)
        .ok_or_else(|| ServiceError::new(Kind::Invalid, "invalid_scope", format!("Name at least one scope of: {known}.")))
}
