//! Around every request, from the outside in: request id, log line and metrics, panic to 500, security headers.

use super::AppState;
use super::error::{REQUEST_ID, plain};
use crate::config::Network;
use crate::service::Caller;
use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use std::any::Any;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The address of the connection's other end; put into each request by the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteAddr(pub SocketAddr);

/// The address that the request comes from: the connection's other end or, behind a trusted proxy, what that proxy says (R10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl FromRequestParts<AppState> for ClientIp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<RemoteAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |r| r.0.ip().to_canonical());
        Ok(Self(client_ip(peer, &parts.headers, &app.proxies)))
    }
}

/// Walks `X-Forwarded-For` from the right while the hop that wrote it is trusted.
fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let mut at = peer;
    let said: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for hop in said.iter().rev() {
        if !trusted.iter().any(|n| n.contains(at)) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(address) => at = address.to_canonical(),
            Err(_) => break,
        }
    }
    at
}

pub(super) fn wrap(router: Router<AppState>, app: &AppState) -> Router<AppState> {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response_with_state(app.clone(), security_headers))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has logged message and place; the caller learns the request id only.
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "The relay failed to answer. The operator finds the reason in the log under the request id.",
    )
}

async fn security_headers(State(app): State<AppState>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if app.base_url.starts_with("https://") {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static("max-age=31536000"));
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "private, no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Gives the request its id, and writes one log line and one measurement when it is answered.
async fn observe(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |p| p.as_str().to_owned());
    let peer = request.extensions().get::<RemoteAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |r| r.0.ip().to_canonical());
    let remote_ip = client_ip(peer, request.headers(), &app.proxies);
    let started = Instant::now();
    metrics::gauge!("ferry_relay_http_requests_in_flight").increment(1.0);
    let in_flight = InFlight;
    let mut response = REQUEST_ID.scope(id.clone(), next.run(request)).await;
    drop(in_flight);
    let status = response.status().as_u16();
    let duration_s = started.elapsed().as_secs_f64();
    let labels = [("route", route.clone()), ("method", method.to_string()), ("status", status.to_string())];
    metrics::histogram!("ferry_relay_http_request_duration_seconds", &labels).record(duration_s);
    let caller = response.extensions().get::<Caller>().copied();
    let user_id = caller.map(|c| c.user_id.to_string());
    let device_id = caller.and_then(|c| c.device_id).map(|d| d.to_string());
    tracing::info!(target: "ferry_relay::request", request_id = id, %method, route, status, duration_s, user_id, device_id, %remote_ip, "request");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// Counts down even when the caller goes away and the request's future is dropped.
struct InFlight;

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("ferry_relay_http_requests_in_flight").decrement(1.0);
    }
}

/// The caller's id when it is harmless in a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(X_REQUEST_ID).and_then(|v| v.to_str().ok());
    match given {
        Some(id) if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
            id.to_owned()
        }
        _ => uuid::Uuid::new_v4().simple().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let config = Config { trusted_proxies: vec!["10.0.0.0/8".into()], ..Config::default() };
        let trusted = config.proxies().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 9.9.9.9"));
        let ip = |peer: &str| client_ip(peer.parse().unwrap(), &headers, &trusted).to_string();
        assert_eq!(ip("10.0.0.1"), "9.9.9.9");
        assert_eq!(ip("8.8.8.8"), "8.8.8.8");
        assert_eq!(client_ip("127.0.0.1".parse().unwrap(), &headers, &[]).to_string(), "127.0.0.1");
    }
}
