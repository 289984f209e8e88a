//! Logins of browsers: a cookie instead of tokens. The cookie's secret is random, lives in an HttpOnly cookie and nowhere else, and its session is listed
//! and revoked like every other.

use super::secrets::{Bearer, csrf_token};
use super::{Accounts, random};
use crate::service::{Caller, ServiceError, ServiceResult, SessionId};
use crate::store::accounts::{Session, User};
use std::net::IpAddr;

/// How long a browser stays logged in, in milliseconds.
pub const BROWSER_TTL_MS: i64 = 30 * 24 * 3600 * 1000;

/// A browser that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserLogin {
    /// The cookie's value.
    pub cookie: String,
    /// In how many seconds it ends.
    pub max_age_s: i64,
}

impl Accounts {
    /// Logs a browser in with a password. Where the account has a second factor, the error `mfa_required` carries the token for
    /// [`Accounts::login_browser_mfa`].
    pub async fn login_browser(&self, email: &str, password: &str, ip: IpAddr) -> ServiceResult<BrowserLogin> {
        let user = self.pass_password(email, password, ip).await?;
        self.begin_browser(&user, ip, "login.web").await
    }

    /// The second step of a login.
    pub async fn login_browser_mfa(&self, mfa_token: &str, code: &str, ip: IpAddr) -> ServiceResult<BrowserLogin> {
        let user = self.pass_second_factor(mfa_token, code, ip).await?;
        self.begin_browser(&user, ip, "login.web").await
    }

    pub(super) async fn begin_browser(&self, user: &User, ip: IpAddr, event: &str) -> ServiceResult<BrowserLogin> {
        let now_ms = self.clock.now_ms();
        let (cookie, hash) = Bearer::Cookie.mint()?;
        let session = Session {
            session_id: SessionId::from_bytes(random()?),
            user_id: user.user_id,
            device_id: None,
            created_at_ms: now_ms,
            last_used_at_ms: now_ms,
            expires_at_ms: now_ms + BROWSER_TTL_MS,
            revoked_at_ms: None,
        };
        self.store.insert_web_session(&session, hash).await?;
        self.note(event, Some(user.user_id), None, Some(ip), "").await;
        Ok(BrowserLogin { cookie, max_age_s: BROWSER_TTL_MS / 1000 })
    }

    /// Who this browser is logged in as (A1, A4).
    pub async fn authenticate_cookie(&self, cookie: &str) -> ServiceResult<Caller> {
        let hash = Bearer::Cookie.hash(cookie).ok_or_else(ServiceError::unauthenticated)?;
        let now_ms = self.clock.now_ms();
        let (session_id, expires_at_ms) = self.store.web_session(hash).await?.ok_or_else(ServiceError::unauthenticated)?;
        if expires_at_ms <= now_ms {
            return Err(ServiceError::unauthenticated());
        }
        let access = self.access(session_id, now_ms).await?;
        if !access.live {
            return Err(ServiceError::unauthenticated());
        }
        Ok(Caller { user_id: access.user_id, device_id: None, session_id, role: access.role, expires_at_ms, token: None })
    }

    /// The same, asking the store whatever is remembered: for a connection that has just heard of a revocation.
    pub async fn authenticate_cookie_anew(&self, cookie: &str) -> ServiceResult<Caller> {
        if let Some(hash) = Bearer::Cookie.hash(cookie)
            && let Some((session_id, _)) = self.store.web_session(hash).await?
        {
            self.cache().sessions.remove(&session_id);
        }
        self.authenticate_cookie(cookie).await
    }

    /// What a request must carry beside this cookie to change something (R51). Any string has one: a page that nobody is logged in on too.
    pub fn csrf_token(cookie: &str) -> String {
        csrf_token(cookie)
    }

    /// A cookie for the forms of a browser that nobody is logged in on.
    pub fn anonymous_cookie() -> ServiceResult<String> {
        Ok(hex::encode(random::<16>()?))
    }
}
