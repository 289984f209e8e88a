//! WebDAV (RFC 4918) under `/dav/`: the list of the caller's folders, and in each what it shows. Any file manager and any backup program can use it.
//!
//! Reading order: [`request`] (what is asked, refused where it is malformed), [`visit`] (who asks, and for which folder), [`files`] and [`locks`] (what the
//! protocol's library asks of us), [`answer`] (errors in words). The library speaks the protocol; whole files are sent by the plain API's own code.

mod answer;
mod auth;
mod files;
mod locks;
mod meta;
mod request;
mod upload;
mod visit;

#[cfg(test)]
mod tests;

pub(super) use auth::require_app_password;

use super::{Access, AppState, Problem, Route, Routes};
use crate::service::{Caller, Scope, ServiceError};
use answer::finite_depth;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use dav_server::{DavConfig, DavMethod, DavMethodSet};
use files::Files;
use locks::Locks;
use request::{Asked, Depth};
use std::sync::Arc;
use visit::Visit;

/// Where it is.
pub(super) const PREFIX: &str = "/dav";
/// Every method with what it is for. The first few are HTTP's own.
const METHODS: [(&str, &str); 12] = [
    ("GET", "WebDAV: a file"),
    ("PUT", "WebDAV: write a file"),
    ("DELETE", "WebDAV: move to the trash"),
    ("OPTIONS", "WebDAV: what is supported"),
    ("HEAD", "WebDAV: a file's headers"),
    ("PROPFIND", "WebDAV: properties, and what is in a directory"),
    ("PROPPATCH", "WebDAV: set and remove properties"),
    ("MKCOL", "WebDAV: make a directory"),
    ("COPY", "WebDAV: copy without moving a byte"),
    ("MOVE", "WebDAV: move or rename"),
    ("LOCK", "WebDAV: lock"),
    ("UNLOCK", "WebDAV: end a lock"),
];
/// Entries that one PROPFIND of infinite depth may be about.
const INFINITE_MAX: usize = 1000;

pub(super) fn routes(app: &AppState) -> Routes {
    let all = |path: &'static str| -> Vec<Route> {
        let made = METHODS.iter().filter(|(name, _)| *name != "HEAD").map(|(name, summary)| {
            let method = Method::from_bytes(name.as_bytes()).unwrap_or_default();
            Route::new(method, path, Access::AppPassword, summary).body_max(ferry_protocol::limits::FILE_MAX_BYTES as usize).no_timeout()
        });
        made.collect()
    };
    ["/dav", "/dav/", "/dav/{*path}"].into_iter().fold(Routes::new(app), |routes, path| routes.add_methods(Scope::Dav, all(path), handle))
}

async fn handle(State(app): State<AppState>, caller: Caller, request: Request) -> Response {
    match serve(app, caller, request).await {
        Ok(response) => response,
        Err(Problem(error)) => answer::problem(error),
    }
}

async fn serve(app: AppState, caller: Caller, request: Request) -> Result<Response, Problem> {
    if !METHODS.iter().any(|(name, _)| *name == request.method().as_str()) {
        return Ok(answer::no_method());
    }
    let (asked, mut request) = Asked::read(request).await?;
    let visit = Visit::begin(app, caller, &asked).await?;
    let Some(entry) = visit.entry() else {
        if asked.is_write() {
            return Err(
                ServiceError::forbidden("This is the list of your folders. It is changed in the web client or by 'ferry folder'.").into()
            );
        }
        return top(visit, &asked, request).await;
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer::content(&visit, &asked, request.headers(), request.method()).await;
    }
    if asked.depth == Depth::Infinite && request.method().as_str() == "PROPFIND" {
        if visit.app.content.dav_has_more_than(entry, &asked.place.path, INFINITE_MAX).await? {
            return Ok(finite_depth());
        }
        // The library takes an infinite depth from a test suite only; here it is bounded for everybody.
        request.headers_mut().insert("x-litmus", HeaderValue::from_static("bounded"));
    }
    speak(visit, &asked, request).await
}

/// The list of folders.
async fn top(visit: Visit, asked: &Asked, request: Request) -> Result<Response, Problem> {
    match request.method().as_str() {
        "GET" | "HEAD" => Ok(answer::directory()),
        "PROPFIND" if asked.depth == Depth::Infinite => Ok(finite_depth()),
        _ => speak(visit, asked, request).await,
    }
}

/// Lets the library answer.
async fn speak(visit: Visit, asked: &Asked, request: Request) -> Result<Response, Problem> {
    let visit = Arc::new(visit);
    let handler = DavConfig::new()
        .strip_prefix(PREFIX)
        .filesystem(Box::new(Files))
        .locksystem(Box::new(Locks::of(visit.clone())?))
        .methods(methods())
        .build_handler();
    let said = Box::pin(handler.handle_guarded(request, format!("{PREFIX}/"), visit.clone())).await;
    Ok(answer::in_words(&visit, asked, said))
}

fn methods() -> DavMethodSet {
    let mut set = DavMethodSet::none();
    for (name, _) in METHODS {
        let method = Method::from_bytes(name.as_bytes()).ok();
        if let Some(method) = method.and_then(|m| DavMethod::try_from(&m).ok()) {
            set.add(method);
        }
    }
    set
}
