//! Around every request, from the outside in: request id, log line and metrics, panic to 500, security headers.

use super::AppState;
use super::error::{REQUEST_ID, plain};
use super::language;
use super::measured::Record;
use crate::config::Network;
use crate::service::origin::{self, Origin, Via};
use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use std::any::Any;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

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
        Ok(Self(client_of(app, &parts.extensions, &parts.headers)))
    }
}

/// The address that a request comes from, for those who have no extractor.
pub(super) fn client_of(app: &AppState, extensions: &Extensions, headers: &HeaderMap) -> IpAddr {
    let peer = extensions.get::<RemoteAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |r| r.0.ip().to_canonical());
    client_ip(peer, headers, &app.proxies)
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

/// Gives the request its id, measures it, and writes one log line when the answer has gone out.
async fn observe(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |p| p.as_str().to_owned());
    let peer = request.extensions().get::<RemoteAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |r| r.0.ip().to_canonical());
    let remote_ip = client_ip(peer, request.headers(), &app.proxies);
    let mut record = Record::new(id.clone(), route, method_name(request.method()), remote_ip);
    let wanted = language::Language::wanted(request.headers());
    let request = request.map(|body| record.count_in(body));
    // Whatever is logged on the way carries the id: an operator finds a failure by it. Of the highest level, so that no filter takes it away.
    let span = tracing::error_span!("request", request_id = %id);
    let from = Origin { actor: None, ip: Some(remote_ip), via: Via::Http };
    let mut response =
        origin::within(from, REQUEST_ID.scope(id.clone(), language::within(wanted, next.run(request)))).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    record.answered(response.status(), response.extensions());
    response.map(|body| record.count_out(body))
}

/// The method, for logs and metrics: a caller may send any word.
fn method_name(method: &Method) -> &'static str {
    const OF_WEBDAV: [&str; 7] = ["PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"];
    const KNOWN: [(Method, &str); 8] = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::CONNECT, "CONNECT"),
    ];
    let of_webdav = || OF_WEBDAV.into_iter().find(|name| *name == method.as_str());
    KNOWN.iter().find(|(known, _)| known == method).map(|(_, name)| *name).or_else(of_webdav).unwrap_or("other")
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
