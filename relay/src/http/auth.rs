//! Who is calling. The router puts [`require`] in front of every route that is not public, so a handler behind it cannot run without a checked caller.

use super::AppState;
use super::browser::{CSRF_HEADER, Cookie, check_form};
use super::error::Problem;
use super::layers::client_of;
use super::routes::Access;
use crate::service::accounts::Accounts;
use crate::service::{Caller, Kind, Scope, ServiceError, ServiceResult, UserRole, origin};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;

/// What a route demands of its caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) access: Access,
    pub(super) scope: Option<Scope>,
}

/// What a request brought to show who is calling.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// An access token, or an app password.
    Bearer(String),
    /// An address and an app password, as WebDAV's clients send them.
    Basic(String, String),
    /// A browser's cookie.
    Cookie(String),
}

impl Credential {
    /// What this request brought. An `Authorization` header counts alone: whatever it says, no cookie helps it.
    /// `Basic` is looked at where the route is WebDAV's.
    pub(super) fn of(app: &AppState, headers: &HeaderMap, scope: Option<Scope>) -> Option<Self> {
        if headers.contains_key(header::AUTHORIZATION) {
            let basic = || basic(headers).filter(|_| scope == Some(Scope::Dav)).map(|(email, secret)| Self::Basic(email, secret));
            return bearer(headers).map(Self::Bearer).or_else(basic);
        }
        bearer(headers).map(Self::Bearer).or_else(|| Cookie::Session.read(app, headers).map(Self::Cookie))
    }

    /// Who it is of, as of now.
    pub(super) async fn check(&self, app: &AppState, ip: IpAddr) -> ServiceResult<Caller> {
        match self {
            Self::Bearer(token) if Accounts::is_app_password(token) => app.accounts.authenticate_app_password(token, None, ip).await,
            Self::Bearer(token) => app.accounts.authenticate(token).await,
            // The account's password is never taken here: it would pass by the second factor.
            Self::Basic(email, secret) => app.accounts.authenticate_app_password(secret, Some(email), ip).await,
            Self::Cookie(cookie) => app.accounts.authenticate_cookie(cookie).await,
        }
    }
}

impl Credential {
    /// [`Credential::check`] by the store, whatever is remembered.
    pub(super) async fn check_anew(&self, app: &AppState, ip: IpAddr) -> ServiceResult<Caller> {
        match self {
            // The store is asked about app passwords each time.
            Self::Basic(..) => self.check(app, ip).await,
            Self::Bearer(token) if Accounts::is_app_password(token) => self.check(app, ip).await,
            Self::Bearer(token) => app.accounts.authenticate_anew(token).await,
            Self::Cookie(cookie) => app.accounts.authenticate_cookie_anew(cookie).await,
        }
    }
}

/// Checks the request's credentials against what the route demands and leaves the [`Caller`] for the handler (I13).
pub(super) async fn require(
    State((app, demand)): State<(AppState, Demand)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let credential = Credential::of(&app, request.headers(), demand.scope).ok_or_else(ServiceError::unauthenticated)?;
    let ip = client_of(&app, request.extensions(), request.headers());
    let caller = credential.check(&app, ip).await?;
    if matches!(credential, Credential::Cookie(_)) && !request.method().is_safe() {
        // A browser sends the cookie along whatever page asks it to (R51).
        let token = request.headers().get(CSRF_HEADER).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        check_form(&app, request.headers(), Cookie::Session, &token)?;
    }
    check_scope(&caller, demand.scope)?;
    match demand.access {
        Access::Public | Access::Signed | Access::User => {}
        Access::Device if caller.device_id.is_some() => {}
        Access::Device => {
            return Err(ServiceError::forbidden("Only a linked device may do this.")
                .hint("Log in with a device name and its public key.")
                .into());
        }
        Access::Admin if caller.role == UserRole::Admin => {}
        // Such a route has a check of its own: `Routes::add_methods`.
        Access::AppPassword => return Err(ServiceError::forbidden("This takes an app password.").into()),
        Access::Admin => return Err(ServiceError::forbidden("Only an administrator may do this.").into()),
    }
    request.extensions_mut().insert(caller);
    // Log and metrics know by the answer who was calling.
    let mut response = origin::as_user(caller.user_id, next.run(request)).await;
    response.extensions_mut().insert(caller);
    Ok(response)
}

/// An app password calls only routes that take one of its scopes.
pub(super) fn check_scope(caller: &Caller, demanded: Option<Scope>) -> ServiceResult<()> {
    let Some(limits) = caller.token else { return Ok(()) };
    match demanded {
        Some(scope) if limits.scopes.has(scope) => Ok(()),
        Some(scope) => {
            Err(ServiceError::new(Kind::Forbidden, "scope_missing", format!("This app password is not for '{}'.", scope.as_str()))
                .with("scope", scope.as_str()))
        }
        None => Err(ServiceError::new(Kind::Forbidden, "scope_missing", "No app password may do this; log in instead.")),
    }
}

/// The token of `Authorization: Bearer ...`, or of a WebSocket handshake's `Sec-WebSocket-Protocol: ferry.v1, bearer.<jwt>`. Never of the query (R53).
/// Two `Authorization` headers are none (R02).
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim().to_owned())
        }
        (None, _) if headers.contains_key(header::UPGRADE) => {
            let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
            protocols.split(',').find_map(|p| p.trim().strip_prefix("bearer.")).map(str::to_owned)
        }
        _ => None,
    }
}

/// Name and secret of `Authorization: Basic ...` (RFC 7617).
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    text.split_once(':').map(|(name, secret)| (name.to_owned(), secret.to_owned()))
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Absent only on a public route: there nobody is calling.
        parts.extensions.get::<Caller>().copied().ok_or_else(|| ServiceError::unauthenticated().into())
    }
}
