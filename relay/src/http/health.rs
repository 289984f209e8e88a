//! Health and metrics. `/healthz` says that the process lives, `/readyz` that it can serve; metrics are on the operator's listener only (R60).

use super::{Access, AppState, ClientIp, Json, Route, Routes};
use crate::Check;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

pub(super) fn public_routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(Route::get("/healthz", Access::Public, "Whether the process lives"), healthz)
        .add(Route::get("/readyz", Access::Public, "Whether the relay can serve now, check by check"), readyz)
}

pub(super) fn admin_routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(Route::get("/healthz", Access::Public, "Whether the process lives"), healthz)
        .add(Route::get("/readyz", Access::Public, "Whether the relay can serve now, check by check, with reasons"), readyz_for_operator)
        .add(Route::get("/metrics", Access::Public, "Metrics for Prometheus"), metrics)
}

/// With what arrived here of the caller's own request, by which `ferry-relay doctor` finds what a proxy took away.
async fn healthz(ClientIp(ip): ClientIp, headers: HeaderMap) -> Json<Value> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let upgrade = text(header::UPGRADE).is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
    let seen = json!({"host": text(header::HOST), "upgrade": upgrade, "client_ip": ip.to_string()});
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "seen": seen}))
}

/// Which check fails is for everybody; why is for the operator, since it may name hosts and paths.
async fn readyz(State(app): State<AppState>) -> Response {
    ready(&app, false).await
}

async fn readyz_for_operator(State(app): State<AppState>) -> Response {
    ready(&app, true).await
}

async fn ready(app: &AppState, with_reasons: bool) -> Response {
    let checks = app.readiness().await;
    let failed = checks.iter().any(|(_, check)| matches!(check, Check::Failed(_)));
    let degraded = checks.iter().any(|(_, check)| matches!(check, Check::Degraded(_)));
    let checks: serde_json::Map<String, Value> = checks
        .into_iter()
        .map(|(name, check)| {
            (
                name.to_owned(),
                match check {
                    Check::Good => json!({"ok": true}),
                    // The relay serves all the same: a proxy that looks at the status goes on sending requests here.
                    Check::Degraded(why) if with_reasons => json!({"ok": true, "degraded": true, "detail": why}),
                    Check::Degraded(_) => json!({"ok": true, "degraded": true}),
                    Check::Failed(why) if with_reasons => json!({"ok": false, "detail": why}),
                    Check::Failed(_) => json!({"ok": false}),
                },
            )
        })
        .collect();
    let (status, word) = match (failed, degraded) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::OK, "ready"),
    };
    (status, Json(json!({"status": word, "checks": checks}))).into_response()
}

async fn metrics(State(app): State<AppState>, headers: HeaderMap) -> Response {
    if !app.metrics_token.is_empty() {
        let given = super::auth::bearer(&headers).unwrap_or_default();
        if !bool::from(given.as_bytes().ct_eq(app.metrics_token.as_bytes())) {
            return super::Problem(crate::service::ServiceError::unauthenticated()).into_response();
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}
