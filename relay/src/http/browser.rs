//! Browsers: the cookie that says who is logged in, and how we know that a request which would change something came from a page of ours (R51).

use super::AppState;
use crate::service::accounts::{Accounts, BrowserLogin};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use subtle::ConstantTimeEq;

/// Carries the form's token in requests that no form makes.
pub(super) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How long a page with a form may stand open before anybody is logged in, in seconds.
const FORM_TTL_S: i64 = 24 * 3600;

/// A cookie of ours. Over TLS its name has the prefix with which browsers promise that no other host has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// Who is logged in.
    Session,
    /// Ties a form to the browser that fetched it, before anybody is logged in.
    Form,
    /// A login that is under way at another provider.
    Oidc,
    /// A visit of a public link; only sent to that link's addresses.
    Link,
}

impl Cookie {
    fn name(self, app: &AppState) -> &'static str {
        match (self, is_secure(app)) {
            (Self::Session, true) => "__Host-ferry-session",
            (Self::Session, false) => "ferry-session",
            (Self::Form, true) => "__Host-ferry-form",
            (Self::Form, false) => "ferry-form",
            (Self::Link, true) => "__Secure-ferry-link",
            (Self::Link, false) => "ferry-link",
            (Self::Oidc, true) => "__Host-ferry-oidc",
            (Self::Oidc, false) => "ferry-oidc",
        }
    }

    /// Its value in a request.
    pub(super) fn read(self, app: &AppState, headers: &HeaderMap) -> Option<String> {
        let name = self.name(app);
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
        let mut found = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(n, v)| *n == name && !v.is_empty()).map(|(_, v)| v);
        match (found.next(), found.next()) {
            // Two of one name: somebody planted one, and nobody can tell which.
            (Some(value), None) => Some(value.to_owned()),
            _ => None,
        }
    }

    /// Sets it; no time removes it.
    pub(super) fn set(self, app: &AppState, value: &str, max_age_s: i64) -> ServiceResult<HeaderValue> {
        self.set_for(app, "/", value, max_age_s)
    }

    /// Sets it for the addresses below a path.
    pub(super) fn set_for(self, app: &AppState, path: &str, value: &str, max_age_s: i64) -> ServiceResult<HeaderValue> {
        // The session comes along when somebody follows a link to us, the login when a provider sends somebody back; the form's needs not.
        let same_site = if self == Self::Form { "Strict" } else { "Lax" };
        let secure = if is_secure(app) { "; Secure" } else { "" };
        let text = format!("{}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite={same_site}{secure}", self.name(app));
        HeaderValue::from_str(&text).map_err(ServiceError::internal)
    }
}

fn is_secure(app: &AppState) -> bool {
    app.base_url.starts_with("https://")
}

/// The browser that sent a request.
#[derive(Debug, Clone)]
pub(super) struct Browser {
    /// Who is logged in.
    pub(super) caller: Caller,
    /// What its forms must carry.
    pub(super) csrf: String,
}

/// Who is logged in on the browser that sent this. An ended login is none; a store that does not answer is an error (A4).
pub(super) async fn browser(app: &AppState, headers: &HeaderMap) -> ServiceResult<Option<Browser>> {
    let Some(cookie) = Cookie::Session.read(app, headers) else { return Ok(None) };
    match app.accounts.authenticate_cookie(&cookie).await {
        Ok(caller) => Ok(Some(Browser { caller, csrf: Accounts::csrf_token(&cookie) })),
        Err(e) if e.kind() == Kind::Unauthenticated => Ok(None),
        Err(e) => Err(e),
    }
}

/// The cookies of a login that just was made.
pub(super) fn logged_in(app: &AppState, login: &BrowserLogin) -> ServiceResult<HeaderValue> {
    Cookie::Session.set(app, &login.cookie, login.max_age_s)
}

/// What the forms of a browser carry on which nobody is logged in, and the cookie that has to be set for it.
pub(super) fn form(app: &AppState, headers: &HeaderMap) -> ServiceResult<(String, Option<HeaderValue>)> {
    if let Some(cookie) = Cookie::Form.read(app, headers) {
        return Ok((Accounts::csrf_token(&cookie), None));
    }
    let cookie = Accounts::anonymous_cookie()?;
    Ok((Accounts::csrf_token(&cookie), Some(Cookie::Form.set(app, &cookie, FORM_TTL_S)?)))
}

/// Refuses what no page of ours sent: the browser's own word on where the request began, and the token that only our pages know.
pub(super) fn check_form(app: &AppState, headers: &HeaderMap, cookie: Cookie, token: &str) -> ServiceResult<()> {
    let Some(cookie) = cookie.read(app, headers) else {
        let detail = "The browser sent no cookie of this page.";
        let hint = format!("Allow cookies for {0}, open the page under {0}, and try again.", app.base_url);
        return Err(ServiceError::new(Kind::Forbidden, "no_cookie", detail).hint(hint));
    };
    check_origin(app, headers)?;
    if !bool::from(Accounts::csrf_token(&cookie).as_bytes().ct_eq(token.as_bytes())) {
        return Err(foreign());
    }
    Ok(())
}

/// Refuses a request that did not begin on a page of this relay. A browser says so in `Sec-Fetch-Site`, older ones in `Origin`; whoever says neither is
/// refused.
pub(super) fn check_origin(app: &AppState, headers: &HeaderMap) -> ServiceResult<()> {
    let is_ours = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_some_and(|origin| is_own_origin(app, headers, origin)),
    };
    if is_ours { Ok(()) } else { Err(foreign()) }
}

/// Whether an `Origin` is this relay's: the configured address, or the host that the request came to.
pub(super) fn is_own_origin(app: &AppState, headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    origin == app.base_url || origin.split_once("://").is_some_and(|(_, rest)| !host.is_empty() && rest == host)
}

fn foreign() -> ServiceError {
    ServiceError::new(Kind::Forbidden, "foreign_form", "This form was not sent by a page of this relay, or the page is too old.")
        .hint("Open the page again and repeat.")
}
