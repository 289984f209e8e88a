//! Going back to a time, over the control socket: the relay does it, this passes it on with the device's login.

use super::files::body;
use crate::problem::Problem;
use crate::relay::Method;
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// What is asked; the relay checks it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    to: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by_device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by_user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

/// `POST /v1/folders/{folder}/rewind` with `{"to", "dry_run"?, "id"?, "by_device"?, "by_user"?, "cursor"?, "limit"?}`
pub async fn rewind(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>, bytes: Bytes) -> Result<Json<Value>, Problem> {
    let wish: Wish = body(&bytes)?;
    let config = daemon.find(&folder)?.record.config;
    let wish = serde_json::to_value(&wish).unwrap_or_default();
    let path = format!("/api/v1/folders/{}/rewind", config.id);
    let mut answer = daemon.relay_client().await?.json(Method::POST, &path, Some(&wish)).await?;
    answer["type"] = json!("rewind");
    answer["folder"] = json!(config.name);
    Ok(Json(answer))
}
