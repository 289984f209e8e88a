//! Problem documents (RFC 9457): the one shape of every answer that is not a success.
//!
//! A [`ServiceError`] becomes `{type, title, status, code, detail, hint?, request_id?, ...}`. What only the operator may know is logged here under the
//! request id and never sent (R59).

use crate::service::{Kind, ServiceError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

tokio::task_local! {
    /// The id of the request that this task answers; set by the outermost layer.
    pub(super) static REQUEST_ID: String;
}

/// An error on its way to the caller. Handlers return `Result<T, Problem>` and use `?` on service results.
#[derive(Debug)]
pub struct Problem(pub ServiceError);

impl<E: Into<ServiceError>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// The status of a kind of error.
pub fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Malformed => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Gone => StatusCode::GONE,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = self.0;
        let status = status_of(error.kind());
        if let Some(source) = error.source_text() {
            if status.is_server_error() {
                tracing::error!(code = error.code(), source, "request failed");
            } else {
                tracing::debug!(code = error.code(), source, "request refused");
            }
        }
        let mut response = document(status, error.code(), error.detail(), error.hint_text(), error.extra());
        if let Some(seconds) = error.retry_after_s() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ferry\""));
        }
        response
    }
}

/// A problem that no service made: unknown route, wrong method, a body that axum refused.
pub(super) fn plain(status: StatusCode, code: &str, detail: &str) -> Response {
    document(status, code, detail, None, &Map::new())
}

fn document(status: StatusCode, code: &str, detail: &str, hint: Option<&str>, extra: &Map<String, Value>) -> Response {
    let mut body = extra.clone();
    body.insert("type".into(), format!("urn:ferry:problem:{code}").into());
    body.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
    body.insert("status".into(), status.as_u16().into());
    body.insert("code".into(), code.into());
    body.insert("detail".into(), detail.into());
    if let Some(hint) = hint {
        body.insert("hint".into(), hint.into());
    }
    if let Ok(id) = REQUEST_ID.try_with(Clone::clone) {
        body.insert("request_id".into(), id.into());
    }
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Value::Object(body).to_string()).into_response()
}
