//! Settings and limits over the control socket.

use super::files::body;
use crate::config::{self, KEYS, Settings};
use crate::problem::Problem;
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// `GET /v1/config`
pub async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Value> {
    Json(document(&daemon.settings.borrow(), &daemon.paths.config_file))
}

/// The settings as a document.
pub fn document(settings: &Settings, file: &std::path::Path) -> Value {
    let keys: Vec<Value> = KEYS
        .iter()
        .map(|key| {
            json!({
                "key": key.name, "value": settings.values[key.name], "source": settings.sources[key.name], "default": key.default,
                "env": key.env(), "help": key.help,
            })
        })
        .collect();
    json!({"type": "config", "file": config::shown(file), "settings": keys})
}

/// `PATCH /v1/config` with `{"key": "value" or null}`: written to the file, then taken up.
pub async fn change(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let changes: Map<String, Value> = body(&bytes)?;
    for key in changes.keys() {
        config::Key::find(key).map_err(|e| Problem::not_found("unknown_setting", e.message))?;
    }
    for (key, value) in &changes {
        apply(&daemon, key, value)?;
    }
    let settings = daemon.reload()?;
    Ok(Json(document(&settings, &daemon.paths.config_file)))
}

fn apply(daemon: &Daemon, key: &str, value: &Value) -> Result<(), Problem> {
    let file = &daemon.paths.config_file;
    let wrong = |e: config::ConfigError| Problem::usage(e.message).code("config_invalid");
    match value {
        Value::Null => config::unset(file, key).map(drop).map_err(wrong),
        Value::String(text) => config::set(file, key, text).map(drop).map_err(wrong),
        Value::Bool(_) | Value::Number(_) => config::set(file, key, &value.to_string()).map(drop).map_err(wrong),
        _ => Err(Problem::usage(format!("{key} needs a text, a number, true, false or null"))),
    }
}

/// `POST /v1/reload`
pub async fn reload(State(daemon): State<Arc<Daemon>>) -> Answer {
    let settings = daemon.reload()?;
    Ok(Json(document(&settings, &daemon.paths.config_file)))
}

/// `GET /v1/limits`
pub async fn limits(State(daemon): State<Arc<Daemon>>) -> Json<Value> {
    Json(limits_document(&daemon.settings.borrow()))
}

fn limits_document(settings: &Settings) -> Value {
    json!({
        "type": "limits",
        "up": settings.limit_up, "up_bytes_per_s": settings.limit_up.0,
        "down": settings.limit_down, "down_bytes_per_s": settings.limit_down.0,
        "lan": settings.limit_lan, "lan_bytes_per_s": settings.limit_lan.0,
    })
}

/// `PATCH /v1/limits` with `{"up": "2MB/s", "down": "none", "lan": "20MB/s"}`.
pub async fn set_limits(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let changes: Map<String, Value> = body(&bytes)?;
    if let Some(key) = changes.keys().find(|k| !matches!(k.as_str(), "up" | "down" | "lan")) {
        return Err(Problem::usage(format!("'{key}' is not a limit; limits are: up, down, lan")));
    }
    for (key, value) in &changes {
        apply(&daemon, &format!("limit.{key}"), value)?;
    }
    let settings = daemon.reload()?;
    Ok(Json(limits_document(&settings)))
}
