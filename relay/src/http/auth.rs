//! Who is calling. The router puts [`require`] in front of every route that is not public, so a handler behind it cannot run without a checked caller.

use super::AppState;
use super::error::Problem;
use super::routes::Access;
use crate::service::{Caller, ServiceError, UserRole, origin};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

/// Checks the request's credentials for a route of class `access` and leaves the [`Caller`] for the handler (I13).
pub(super) async fn require(
    State((app, access)): State<(AppState, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let token = bearer(request.headers()).ok_or_else(ServiceError::unauthenticated)?;
    let caller = app.accounts.authenticate(&token).await?;
    match access {
        Access::Public | Access::Signed | Access::User => {}
        Access::Device if caller.device_id.is_some() => {}
        Access::Device => {
            return Err(ServiceError::forbidden("Only a linked device may do this.")
                .hint("Log in with a device name and its public key.")
                .into());
        }
        Access::Admin if caller.role == UserRole::Admin => {}
        Access::Admin => return Err(ServiceError::forbidden("Only an administrator may do this.").into()),
    }
    request.extensions_mut().insert(caller);
    // Log and metrics know by the answer who was calling.
    let mut response = origin::as_user(caller.user_id, next.run(request)).await;
    response.extensions_mut().insert(caller);
    Ok(response)
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

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Absent only on a public route: there nobody is calling.
        parts.extensions.get::<Caller>().copied().ok_or_else(|| ServiceError::unauthenticated().into())
    }
}
