//! The relay's trash over the control socket: what was deleted from a folder on any device, passed on with the device's login.

use super::files::{body, query};
use crate::problem::Problem;
use crate::relay::Method;
use crate::supervisor::{Daemon, Running, now_ms};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// Entries of one answer.
const ENTRIES: usize = 1000;

fn chosen(daemon: &Daemon, folder: Option<String>) -> Result<Running, Problem> {
    let needed = || Problem::usage("the relay's trash is one for each folder").hint("name the folder with --folder");
    daemon.find(&folder.ok_or_else(needed)?)
}

/// `GET /v1/relay/trash?folder=`: the newest of it.
pub async fn list(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let config = chosen(&daemon, query(&uri, "folder")?)?.record.config;
    let path = format!("/api/v1/trash?space_id={}&limit={ENTRIES}", config.id);
    let answer = daemon.relay_client().await?.json(Method::GET, &path, None).await?;
    Ok(Json(json!({"type": "relay_trash", "folder": config.name, "items": answer["files"], "has_more": answer["has_more"]})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    #[serde(default)]
    ids: Vec<String>,
    older_than_ms: Option<u64>,
    #[serde(default)]
    folder: Option<String>,
}

/// An id as a part of an address: the relay's ids need nothing else.
fn id_of(text: &str) -> Result<&str, Problem> {
    let is_id = !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_id.then_some(text).ok_or_else(|| {
        let shown = super::files::shown(text);
        Problem::not_found("trash_item_not_found", format!("'{shown}' is no id of the relay's trash"))
            .hint("list it with: ferry trash list --relay")
    })
}

/// `POST /v1/relay/trash/restore` with `{"folder", "ids": [...]}`
pub async fn restore(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Chosen { ids, folder, .. } = body(&bytes)?;
    let config = chosen(&daemon, folder)?.record.config;
    let relay = daemon.relay_client().await?;
    let mut restored = Vec::new();
    for id in ids {
        let wish = json!({"file_id": id_of(&id)?, "space_id": config.id});
        let answer = relay.json(Method::POST, "/api/v1/trash/restore", Some(&wish)).await?;
        restored.push(json!({"id": id, "folder": config.name, "path": answer["file_path"], "count": answer["restored"]}));
    }
    Ok(Json(json!({"type": "restored", "items": restored})))
}

/// `POST /v1/relay/trash/purge` with `{"folder", "ids": [...]}` or `{"folder", "older_than_ms": 0}`
pub async fn purge(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Chosen { ids, older_than_ms, folder } = body(&bytes)?;
    let config = chosen(&daemon, folder)?.record.config;
    let relay = daemon.relay_client().await?;
    let mut wishes = Vec::new();
    for id in &ids {
        wishes.push(format!("file_id={}", id_of(id)?));
    }
    if ids.is_empty() {
        // A list that came out empty does not mean everything.
        let older_than_ms = older_than_ms.ok_or_else(|| Problem::usage("give 'ids', or 'older_than_ms' (0 for everything)"))?;
        let before_s = now_ms().saturating_sub(i64::try_from(older_than_ms).unwrap_or(i64::MAX)).max(0) / 1000;
        wishes.push(if older_than_ms == 0 { "all=true".into() } else { format!("before={before_s}") });
    }
    let (mut count, mut freed) = (0, 0);
    for wish in wishes {
        let answer = relay.json(Method::DELETE, &format!("/api/v1/trash?space_id={}&{wish}", config.id), None).await?;
        count += answer["purged"].as_u64().unwrap_or(0);
        freed += answer["freed_bytes"].as_u64().unwrap_or(0);
    }
    Ok(Json(json!({"type": "purged", "folder": config.name, "count": count, "freed_bytes": freed})))
}
