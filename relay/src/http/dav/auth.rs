//! Who is calling: an app password that is for WebDAV, in `Authorization: Basic` with the account's address, or as a bearer token. Nothing else: the
//! account's password would pass by the second factor, and a cookie is sent by any page's request.
//!
//! The check is a SHA-256 and one row, so nothing of it is remembered: an app password that is revoked ends at once (A7).

use crate::http::AppState;
use crate::http::auth::{basic, bearer, check_scope};
use crate::http::error::Problem;
use crate::http::layers::client_of;
use crate::service::{Caller, Kind, Scope, ServiceResult, origin};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Lets the request in, and leaves the [`Caller`] for the handler; or says what is needed.
pub(in crate::http) async fn require_app_password(
    State((app, scope)): State<(AppState, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    let (email, secret) = shown(request.headers());
    let ip = client_of(&app, request.extensions(), request.headers());
    match check(&app, scope, email.as_deref(), &secret, ip).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let mut response = origin::as_user(caller.user_id, next.run(request)).await;
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => {
            let asks = error.kind() == Kind::Unauthenticated;
            let mut response = Problem(error).into_response();
            if asks {
                let how = HeaderValue::from_static("Basic realm=\"Ferry\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
            }
            response
        }
    }
}

/// The name and the secret that a request brought; both may be missing.
fn shown(headers: &HeaderMap) -> (Option<String>, String) {
    match (basic(headers), bearer(headers)) {
        (Some((email, secret)), _) => (Some(email), secret),
        (None, secret) => (None, secret.unwrap_or_default()),
    }
}

async fn check(app: &AppState, scope: Scope, email: Option<&str>, secret: &str, ip: IpAddr) -> ServiceResult<Caller> {
    let caller = app.accounts.authenticate_for_dav(secret, email, ip).await?;
    check_scope(&caller, Some(scope))?;
    Ok(caller)
}
