//! Pages for people: the landing page and the set-up page. No inline script, no foreign source (R50).

use super::openapi;
use super::{Access, AppState, Json, Route, Routes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Only files of this relay, no frames, no plug-ins, no forms to elsewhere.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Public;
    Routes::new(app)
        .add(Route::get("/", Public, "The landing page"), landing)
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

async fn landing(State(app): State<AppState>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let url = escape(&app.base_url);
    page(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Ferry relay</title>\n<link rel=\"stylesheet\" href=\"/assets/relay.css\">\n</head>\n<body>\n<main>\n<h1>This is a Ferry relay</h1>\n\
         <p>Version {version}. Folders of its users are kept the same on all of their devices.</p>\n\
         <p>Link this computer: <code>ferry login --relay {url}</code></p>\n\
         <p><a href=\"/openapi.json\">The interface for programs</a> · <a href=\"/readyz\">State</a></p>\n</main>\n</body>\n</html>\n"
    ))
}

async fn setup() -> Response {
    page(include_str!("pages/setup.html").to_owned())
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
