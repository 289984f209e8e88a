//! Logins through another provider: whose account an identity opens. What makes an identity is (issuer, subject); an address alone never does.

use super::login::account_disabled;
use super::users::email_key;
use super::{Accounts, BrowserLogin, NewUser, random};
use crate::config::OidcSettings;
use crate::oidc::{Flow, Verified};
use crate::service::{Kind, ServiceError, ServiceResult, UserRole};
use crate::store::accounts::User;
use crate::store::signin::Identity;
use std::net::IpAddr;

/// What a sealed login at a provider is for.
const PURPOSE: &str = "oidc";
/// How long somebody may take at a provider, in milliseconds.
pub const FLOW_TTL_MS: i64 = 10 * 60_000;

impl Accounts {
    /// Seals a login that is under way, for the browser's cookie.
    pub fn seal_flow(&self, flow: &Flow) -> ServiceResult<String> {
        let bytes = serde_json::to_vec(&(flow, self.clock.now_ms() + FLOW_TTL_MS)).map_err(ServiceError::internal)?;
        Ok(hex::encode(self.seal.seal(PURPOSE, flow.provider.as_bytes(), &bytes)?))
    }

    /// The login that a cookie holds; none when it is not ours, of another provider, or over.
    pub fn open_flow(&self, provider: &str, sealed: &str) -> Option<Flow> {
        let bytes = self.seal.open(PURPOSE, provider.as_bytes(), &hex::decode(sealed).ok()?)?;
        let (flow, expires_at_ms): (Flow, i64) = serde_json::from_slice(&bytes).ok()?;
        (expires_at_ms > self.clock.now_ms()).then_some(flow)
    }

    /// Logs a browser in as whom the provider says. A second factor of the account here is asked for too (A5).
    pub async fn login_identity(&self, who: &Verified, policy: &OidcSettings, ip: IpAddr) -> ServiceResult<BrowserLogin> {
        let user = self.user_of_identity(who, policy, ip).await?;
        if user.disabled {
            self.note("login.disabled", Some(user.user_id), None, Some(ip), "").await;
            return Err(account_disabled());
        }
        self.ask_second_factor(&user, ip).await?;
        self.begin_browser(&user, ip, "login.oidc").await
    }

    async fn user_of_identity(&self, who: &Verified, policy: &OidcSettings, ip: IpAddr) -> ServiceResult<User> {
        let now_ms = self.clock.now_ms();
        if let Some(user_id) = self.store.use_identity(&who.issuer, &who.subject, now_ms).await? {
            return self.store.user(user_id).await?.ok_or_else(ServiceError::unauthenticated);
        }
        let email = self.trusted_email(who, policy)?;
        let identity = Identity { issuer: who.issuer.clone(), subject: who.subject.clone(), email: email.clone() };
        if let Some(user) = self.store.user_by_email(&email).await? {
            if !policy.link_by_email {
                return Err(refused("There is an account with this e-mail address, and it is not linked to this provider.")
                    .hint("Log in with the password, or ask the administrator."));
            }
            if !self.store.link_identity(&identity, user.user_id, now_ms).await? {
                return Err(ServiceError::conflict(
                    "identity_taken",
                    "This account of the provider was linked at the same time. Try again.",
                ));
            }
            self.note("identity.linked", Some(user.user_id), None, Some(ip), &identity.issuer).await;
            return Ok(user);
        }
        if !policy.allow_new_users {
            return Err(refused("There is no account for you here.").hint("Ask the administrator to add one with your e-mail address."));
        }
        // Nobody knows this password: the account has none until its owner sets one with a reset code.
        let password = hex::encode(random::<32>()?);
        let name = who.name.as_deref().filter(|n| super::users::check_name(n).is_ok());
        let user = self.prepare(NewUser { email: &email, name, password: &password }, UserRole::User).await?;
        if !self.store.insert_user_of_identity(&user, &identity).await? {
            return Err(ServiceError::conflict("identity_taken", "This account was made at the same time. Try again."));
        }
        self.note("user.registered", Some(user.user_id), None, Some(ip), &identity.issuer).await;
        Ok(user)
    }

    /// The address in its normal form, if the provider has made sure of it and the operator takes its domain.
    fn trusted_email(&self, who: &Verified, policy: &OidcSettings) -> ServiceResult<String> {
        let email = who.email.as_deref().and_then(email_key);
        let email = email.filter(|_| who.is_email_verified).ok_or_else(|| {
            refused("The provider does not say which e-mail address is surely yours.")
                .hint("Confirm your address at the provider, then try again.")
        })?;
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        if !policy.email_domains.is_empty() && !policy.email_domains.iter().any(|d| d.eq_ignore_ascii_case(domain)) {
            return Err(refused(format!("Addresses of {domain} are not taken here.")));
        }
        Ok(email)
    }
}

fn refused(detail: impl Into<String>) -> ServiceError {
    ServiceError::new(Kind::Forbidden, "identity_refused", detail)
}
