//! Extractors for bodies, queries and path parameters whose refusals are problem documents.

use super::error::{Problem, plain};
use super::patience::TooSlow;
use crate::service::{Kind, ServiceError};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON in and out. Needs `Content-Type: application/json`, so that a form of a foreign page cannot make one (R51).
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(not_json());
        }
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// JSON that may be left out.
#[derive(Debug, Clone, Copy)]
pub struct Maybe<T>(pub Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Maybe<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        match bytes.is_empty() {
            true => Ok(Self(None)),
            // `null` says nothing, too.
            false if is_json => parse(&bytes).map(Self),
            false => Err(not_json()),
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|e| {
        let detail = format!("The body is not what this route takes: {e}.");
        match e.classify() {
            serde_json::error::Category::Data => ServiceError::invalid("invalid_body", detail).into(),
            _ => ServiceError::malformed(detail).into(),
        }
    })
}

fn not_json() -> Problem {
    let detail = "Send JSON with 'Content-Type: application/json'.";
    ServiceError::new(Kind::UnsupportedMedia, "unsupported_media_type", detail).into()
}

/// A form, as the pages and OAuth send it: `application/x-www-form-urlencoded`.
#[derive(Debug, Clone, Copy)]
pub struct Form<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        use axum::extract::rejection::FormRejection;
        let is_get = request.method() == axum::http::Method::GET;
        match axum::extract::Form::<T>::from_request(request, state).await {
            Ok(axum::extract::Form(value)) if !is_get => Ok(Self(value)),
            Ok(_) => Err(ServiceError::malformed("Send the form in the body.").into()),
            Err(FormRejection::InvalidFormContentType(_)) => {
                let detail = "Send a form with 'Content-Type: application/x-www-form-urlencoded'.";
                Err(ServiceError::new(Kind::UnsupportedMedia, "unsupported_media_type", detail).into())
            }
            Err(FormRejection::BytesRejection(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
                Err(ServiceError::too_large("The body is larger than this route takes.").into())
            }
            Err(e) => Err(ServiceError::malformed(format!("The form is not what this route takes: {}.", e.body_text())).into()),
        }
    }
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json") || (essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json"))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response(),
            Err(e) => Problem(ServiceError::internal(e)).into_response(),
        }
    }
}

/// The whole body as bytes, within the route's limit.
#[derive(Debug, Clone)]
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_))) => {
                Err(ServiceError::too_large("The body is larger than this route takes.").into())
            }
            Err(error) if TooSlow::is_in(&error) => Err(ServiceError::new(Kind::TooSlow, "too_slow", "The body came too slowly.").into()),
            Err(_) => Err(ServiceError::malformed("The body ended early.").into()),
        }
    }
}

/// The query string, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(e) => Err(ServiceError::malformed(format!("The query is not what this route takes: {}.", e.body_text())).into()),
        }
    }
}

/// Path parameters, decoded. What is not an id of the right form does not exist: 404.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(ServiceError::not_found().into()),
        }
    }
}

/// 404 for a path that no route has.
pub(super) async fn no_route() -> Response {
    plain(StatusCode::NOT_FOUND, "not_found", "There is nothing here under this address.")
}

/// 405 for a method that a route does not have.
pub(super) async fn no_method() -> Response {
    plain(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This address does not take this method.")
}
