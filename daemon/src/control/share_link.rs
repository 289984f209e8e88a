//! Public links over the control socket: the relay keeps them, this passes on what is asked with the device's login, and says where on this device what
//! they open is.

use super::files::{body, query_bytes};
use crate::problem::{Outcome, Problem};
use crate::relay::Method;
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::Uri;
use ferry_protocol::NamespaceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// Where a path of this device is on the relay: the namespace, and the path there.
fn place(daemon: &Daemon, path: &std::path::Path) -> Outcome<(NamespaceId, String)> {
    let (running, below) = daemon.folder_of_path(path)?;
    let shown = || crate::config::shown(path);
    let below = String::from_utf8(below.to_bytes())
        .map_err(|_| Problem::usage(format!("{} is not UTF-8; share its folder, or rename it", shown())).code("path_invalid"))?;
    Ok((running.record.config.id, format!("/{below}")))
}

/// A link with the path of what it opens on this device, as far as that is in a folder here.
fn located(daemon: &Daemon, mut link: Value) -> Value {
    let root = link["space_id"].as_str().and_then(|id| daemon.find(&id.replace('-', "")).ok()).map(|r| r.record.config.path.clone());
    if let (Some(root), Some(path)) = (root, link["path"].as_str()) {
        link["absolute"] = crate::config::shown(&root.join(path.trim_start_matches('/'))).into();
    }
    link
}

/// `GET /v1/relay/links?path=`: all, or those to an absolute path and what is below it.
pub async fn list(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let only = match query_bytes(&uri, "path")? {
        Some(path) => Some(place(&daemon, &PathBuf::from(OsString::from_vec(path)))?),
        None => None,
    };
    let answer = daemon.relay_client().await?.json(Method::GET, "/api/v1/links", None).await?;
    let links = answer["links"].as_array().cloned().unwrap_or_default();
    let is_wanted = |link: &Value| {
        let Some((space, path)) = &only else { return true };
        let is_there = link["space_id"].as_str().is_some_and(|id| id.replace('-', "") == space.to_string());
        let at = link["path"].as_str().unwrap_or_default();
        is_there && (at == path || path == "/" || at.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')))
    };
    let links: Vec<Value> = links.into_iter().filter(is_wanted).map(|link| located(&daemon, link)).collect();
    Ok(Json(json!({"type": "links", "links": links})))
}

#[derive(Deserialize)]
struct Wish {
    /// An absolute path of this device.
    path: PathBuf,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `POST /v1/relay/links` with `{"path", "kind"?, "password"?, "expires_in"?, "max_downloads"?}`
pub async fn create(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Wish { path, rest } = body(&bytes)?;
    let (space, below) = place(&daemon, &path)?;
    let mut request = rest;
    request.insert("space_id".into(), space.to_string().into());
    request.insert("path".into(), below.into());
    let made = daemon.relay_client().await?.json(Method::POST, "/api/v1/links", Some(&Value::Object(request))).await;
    let answer = made.map_err(|error| {
        let problem = Problem::from(error);
        match problem.code.as_str() {
            "not_found" => Problem::not_found("not_on_relay", format!("{} is not on the relay", crate::config::shown(&path)))
                .hint("a link opens what the relay has: wait with ferry wait, and look with ferry why PATH"),
            _ => problem,
        }
    })?;
    Ok(Json(json!({"type": "link", "link": located(&daemon, answer["link"].clone())})))
}

/// An id as a part of an address.
fn id_of(text: &str) -> Outcome<&str> {
    let is_id = !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_id.then_some(text).ok_or_else(|| {
        let shown = ferry_protocol::name::display_bytes(text.as_bytes());
        Problem::not_found("link_not_found", format!("there is no link '{shown}'")).hint("list them with: ferry share link list")
    })
}

/// `PATCH /v1/relay/links/{id}` with what is to change.
pub async fn change(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let wish: Map<String, Value> = body(&bytes)?;
    let path = format!("/api/v1/links/{}", id_of(&id)?);
    let answer = daemon.relay_client().await?.json(Method::PATCH, &path, Some(&Value::Object(wish))).await?;
    Ok(Json(json!({"type": "link", "link": located(&daemon, answer["link"].clone())})))
}

/// `DELETE /v1/relay/links/{id}`
pub async fn revoke(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>) -> Answer {
    daemon.relay_client().await?.json(Method::DELETE, &format!("/api/v1/links/{}", id_of(&id)?), None).await?;
    Ok(Json(json!({"type": "link_revoked", "link_id": id})))
}
