//! How long the relay keeps old versions and the trash, over the control socket: passed on with the device's login.

use super::files::{body, query};
use crate::problem::{Outcome, Problem};
use crate::relay::Method;
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// The relay's address of a folder's rule, or of the rule for all, and the folder's name.
fn address(daemon: &Daemon, folder: Option<&str>) -> Outcome<(String, Option<String>)> {
    let Some(folder) = folder else { return Ok(("/api/v1/me/retention".into(), None)) };
    let config = daemon.find(folder)?.record.config;
    Ok((format!("/api/v1/folders/{}/retention", config.id), Some(config.name)))
}

fn named(mut answer: Value, kind: &str, folder: Option<String>) -> Json<Value> {
    answer["type"] = kind.into();
    answer["folder"] = folder.into();
    Json(answer)
}

/// `GET /v1/relay/retention?folder=`
pub async fn show(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let (path, folder) = address(&daemon, query(&uri, "folder")?.as_deref())?;
    Ok(named(daemon.relay_client().await?.json(Method::GET, &path, None).await?, "retention", folder))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    folder: Option<String>,
    /// The rule; the relay checks it.
    rule: Option<Value>,
    /// Only say what would go.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/relay/retention` with `{"folder"?, "rule", "dry_run"?}`
pub async fn set(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Wish { folder, rule, dry_run } = body(&bytes)?;
    let (path, folder) = address(&daemon, folder.as_deref())?;
    let (relay, rule) = (daemon.relay_client().await?, json!({ "rule": rule }));
    Ok(if dry_run {
        named(relay.json(Method::POST, &format!("{path}/preview"), Some(&rule)).await?, "retention_preview", folder)
    } else {
        named(relay.json(Method::PUT, &path, Some(&rule)).await?, "retention", folder)
    })
}
