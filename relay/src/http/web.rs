//! Pages for people: the landing page.

use super::{Access, AppState, Route, Routes};
use axum::response::{Html, IntoResponse};

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app).add(Route::get("/", Access::Public, "The landing page"), landing)
}

async fn landing() -> impl IntoResponse {
    Html("<!doctype html><title>Ferry relay</title><h1>This is a Ferry relay</h1>")
}
