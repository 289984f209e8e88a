//! Pages for people: the landing page and the set-up page. No inline script, no foreign source (R50).

use super::{Access, AppState, Json, Path, Problem, Route, Routes};
use super::{assets, html, openapi};
use crate::service::ServiceError;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Only files of this relay, no frames, no plug-ins, no forms to elsewhere.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The same for the client, which also plays media, frames documents, has a manifest and workers, and logs out by a form. No text becomes a script by mistake of ours:
/// addresses of scripts come from one policy only.
const CLIENT_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; media-src 'self'; frame-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types ferry";
/// Nothing of the machine: a file manager needs none of it.
const PERMISSIONS: &str =
    "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), hid=(), bluetooth=(), midi=(), display-capture=()";
/// A name that changes with the content is good for ever.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked again each time.
const ASK_AGAIN: &str = "no-cache";

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Public;
    Routes::new(app)
        .add(Route::get("/", Public, "The web client"), client)
        .add(Route::get("/sw.js", Public, "The web client's service worker"), service_worker)
        .add(Route::get("/assets/{build}/{file}", Public, "A file of the web client"), asset_at_root)
        .add(Route::get("/assets/{build}/{folder}/{file}", Public, "A file of the web client, in a folder"), asset_in_folder)
        .add(Route::get("/setup", Public, "The page that makes the first administrator"), setup)
        .add(Route::get("/assets/setup.js", Public, "Script of the set-up page"), setup_js)
        .add(Route::get("/assets/relay.css", Public, "Style of the pages"), css)
        .add(Route::get("/openapi.json", Public, "This document"), openapi_json)
}

fn asset(content_type: &'static str, body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=3600")], body).into_response()
}

fn page(body: String) -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, CSP), (header::CACHE_CONTROL, "no-store")],
        body,
    )
        .into_response()
}

/// The client's one page. It holds nothing of anybody: who is logged in the client asks.
async fn client(headers: HeaderMap) -> Result<Response, Problem> {
    let mut response = assets::find("index.html").ok_or_else(ServiceError::not_found)?.answer(&headers, ASK_AGAIN);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CLIENT_CSP),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Not `no-referrer`: a browser would then hide the origin of our own form, by which the relay knows it (R51).
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn service_worker(headers: HeaderMap) -> Result<Response, Problem> {
    Ok(assets::find("sw.js").ok_or_else(ServiceError::not_found)?.answer(&headers, ASK_AGAIN))
}

async fn asset_at_root(Path((build, file)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, Problem> {
    asset_of(&build, &file, &headers)
}

async fn asset_in_folder(Path((build, folder, file)): Path<(String, String, String)>, headers: HeaderMap) -> Result<Response, Problem> {
    asset_of(&build, &format!("{folder}/{file}"), &headers)
}

fn asset_of(build: &str, name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let asset = assets::find(name).ok_or_else(ServiceError::not_found)?;
    // A page of before an upgrade still gets its files, but keeps none of them under the old name.
    Ok(asset.answer(headers, if build == assets::build() { FOR_EVER } else { "no-store" }))
}

async fn setup() -> Response {
    page(html::fill(include_str!("pages/setup.html"), &[]).into_text())
}

async fn setup_js() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("pages/setup.js"))
}

async fn css() -> Response {
    asset("text/css; charset=utf-8", include_str!("pages/relay.css"))
}

async fn openapi_json(State(app): State<AppState>) -> Json<Value> {
    // Of the whole relay, whoever serves it.
    let (_, routes) = super::router(&app, &crate::config::Role::ALL.map(|(role, _)| role));
    Json(openapi::document(&routes))
}
