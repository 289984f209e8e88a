//! Answers: a file's content, errors in words where the library has only a number, and what it says too much or too little of.

use super::meta::etag_of;
use super::request::Asked;
use super::visit::Visit;
use crate::http::Problem;
use crate::http::download;
use crate::http::error::plain;
use crate::service::content::DavKind;
use crate::service::{Kind, ServiceError};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dav_server::body::{Body as Said, BodyType};

const XML: &str = "application/xml; charset=utf-8";

/// A failure as an answer. A full quota has a status of its own in WebDAV, which its clients know.
pub(super) fn problem(error: ServiceError) -> Response {
    let status = match (error.kind(), error.code()) {
        (_, "quota_exceeded") => Some(StatusCode::INSUFFICIENT_STORAGE),
        (_, "locked") => Some(StatusCode::LOCKED),
        _ => None,
    };
    let mut response = Problem(error).into_response();
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    response
}

/// A method that is none of WebDAV's.
pub(super) fn no_method() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "WebDAV has no such method here.");
    let allowed = super::METHODS.map(|(name, _)| name).join(", ");
    if let Ok(value) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// Everything below at once is too much to ask (RFC 4918, 9.1).
pub(super) fn finite_depth() -> Response {
    let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";
    (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, XML)], body).into_response()
}

/// A directory for whoever comes with a browser.
pub(super) fn directory() -> Response {
    let body = "This is a folder for WebDAV clients. Mount it in a file manager; in a browser use the web client.\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// A file's content, or a part of it, as the plain API sends it: never as something that a browser would run (R47).
pub(super) async fn content(visit: &Visit, asked: &Asked, headers: &HeaderMap, method: &Method) -> Result<Response, Problem> {
    let entry = visit.entry().ok_or_else(ServiceError::not_found)?;
    let place = &asked.place.path;
    let there = visit.app.content.dav_look(entry, place).await?.ok_or_else(ServiceError::not_found)?;
    let DavKind::File { mtime_ns, .. } = there.kind else { return Ok(directory()) };
    let modified = http_date(mtime_ns);
    let (node, version) = visit.app.content.dav_version(entry, place).await?;
    let asks_time = !headers.contains_key(header::IF_NONE_MATCH) && !headers.contains_key(header::RANGE);
    let mut response = if asks_time && headers.get(header::IF_MODIFIED_SINCE).is_some_and(|v| Some(v) == modified.as_ref()) {
        (StatusCode::NOT_MODIFIED, Body::empty()).into_response()
    } else {
        download::serve(&visit.app, entry, node, version.as_deref(), method, headers, |hash| format!("\"{}\"", etag_of(hash))).await?
    };
    if let Some(modified) = modified {
        response.headers_mut().insert(header::LAST_MODIFIED, modified);
    }
    Ok(response)
}

/// A time of HTTP.
fn http_date(ns: i64) -> Option<HeaderValue> {
    let at = jiff::Timestamp::from_second(ns.div_euclid(1_000_000_000).max(0)).ok()?;
    HeaderValue::try_from(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

/// What the library said, with the reason where it said only a number.
pub(super) fn in_words(visit: &Visit, asked: &Asked, said: axum::http::Response<Said>) -> Response {
    let (mut parts, body) = said.into_parts();
    if parts.status == StatusCode::BAD_GATEWAY {
        // The library's word for a body that did not arrive. A proxy would take it for a failure of ours.
        parts.status = StatusCode::BAD_REQUEST;
    }
    // Of many parts of one act, one failed: the act is one edit here.
    let is_failure = parts.status.as_u16() >= 400 || (parts.status == StatusCode::MULTI_STATUS && is_one_edit(asked));
    if let Some(error) = visit.take_error().filter(|_| is_failure) {
        return reasoned(parts.status, error);
    }
    if parts.status.as_u16() >= 400 && matches!(body.inner, BodyType::Empty) {
        return plain(parts.status, code_of(parts.status), words_of(parts.status));
    }
    if asked.method == "OPTIONS" {
        // Parts of files cannot be written here.
        parts.headers.insert(HeaderName::from_static("dav"), HeaderValue::from_static("1, 2, 3"));
    }
    if asked.terms.mtime_ns.is_some() && parts.status.is_success() {
        parts.headers.insert(HeaderName::from_static("x-oc-mtime"), HeaderValue::from_static("accepted"));
    }
    Response::from_parts(parts, Body::new(body))
}

fn is_one_edit(asked: &Asked) -> bool {
    matches!(asked.method.as_str(), "DELETE" | "COPY" | "MOVE")
}

/// A failure that the visit remembers, under the status that fits: where the protocol has one of its own for the case, the library's.
fn reasoned(said: StatusCode, error: ServiceError) -> Response {
    let own = match error.kind() {
        Kind::Conflict if error.code() != "locked" && said.is_client_error() => Some(said),
        _ => None,
    };
    let mut response = problem(error);
    if let Some(status) = own {
        *response.status_mut() = status;
    }
    response
}

fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::LOCKED => "locked",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PRECONDITION_FAILED => "precondition_failed",
        StatusCode::METHOD_NOT_ALLOWED => "exists",
        StatusCode::FORBIDDEN => "forbidden",
        _ => "refused",
    }
}

fn words_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "There is nothing here under this address.",
        StatusCode::LOCKED => "Somebody has locked this. Wait until the lock ends, or ask whoever holds it.",
        StatusCode::CONFLICT => "The directory above it is not there, or something else is in its place.",
        StatusCode::PRECONDITION_FAILED => "A stated precondition does not hold: something is there, or has changed, or is not locked.",
        StatusCode::METHOD_NOT_ALLOWED => "This cannot be done with what is there.",
        StatusCode::FORBIDDEN => "This may not be done here.",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "This method takes no body.",
        _ => "The request cannot be understood.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_http() {
        let text = |ns| http_date(ns).unwrap().to_str().unwrap().to_owned();
        assert_eq!(text(784_111_777_999_999_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(-1), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
