//! Routes of the auth service (8001): accounts, tokens, devices.

use super::{Access, AppState, Json, Route, Routes};
use crate::service::Caller;
use serde_json::{Value, json};

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app).add(Route::get("/auth/verify", Access::User, "Whether the token is good, and whose it is"), verify)
}

async fn verify(caller: Caller) -> Json<Value> {
    Json(json!({"valid": true, "user_id": caller.user_id, "device_id": caller.device_id, "expires_at": caller.expires_at_ms / 1000}))
}
