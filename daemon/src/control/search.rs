//! Search over the control socket: the relay searches, this adds where a hit lies on this device.

use super::files::query;
use crate::problem::Problem;
use crate::relay::Method;
use crate::supervisor::{Daemon, now_ms};
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is passed on as it is; the relay checks it.
const PASSED_ON: [&str; 6] = ["q", "type", "min_size", "max_size", "limit", "cursor"];

/// `GET /v1/search?q=&folder=&type=&min_size=&max_size=&within_s=&limit=&cursor=`
pub async fn search(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let mut wish: Vec<String> = Vec::new();
    for name in PASSED_ON {
        if let Some(value) = query(&uri, name)? {
            wish.push(format!("{name}={}", crate::cli::client::encode(&value)));
        }
    }
    if let Some(within) = query(&uri, "within_s")? {
        let seconds: i64 = within.parse().map_err(|_| Problem::usage("within_s is a number of seconds"))?;
        wish.push(format!("since={}", (now_ms() / 1000).saturating_sub(seconds).max(0)));
    }
    let relay = daemon.relay_client().await?;
    let namespaces = relay.namespaces().await?;
    let here = daemon.folders();
    if let Some(selector) = query(&uri, "folder")? {
        // A folder of this device, or one that is only on the relay.
        let id = match daemon.find(&selector) {
            Ok(running) => running.record.config.id,
            Err(problem) => namespaces.iter().find(|n| n.name == selector || n.id.to_string() == selector).map(|n| n.id).ok_or(problem)?,
        };
        wish.push(format!("space_id={id}"));
    }
    let mut answer = relay.json(Method::GET, &format!("/api/v1/search?{}", wish.join("&")), None).await?;
    for file in answer["files"].as_array_mut().into_iter().flatten() {
        let space = file["space_id"].as_str().unwrap_or_default().replace('-', "");
        if file["is_shared_file"] == true {
            continue;
        }
        file["folder"] = namespaces.iter().find(|n| n.id.to_string() == space).map(|n| n.name.clone()).into();
        let root = here.iter().find(|r| r.record.config.id.to_string() == space).map(|r| &r.record.config.path);
        let path = file["file_path"].as_str().unwrap_or_default().trim_start_matches('/');
        file["local_path"] = root.map(|root| crate::config::shown(&root.join(path))).into();
    }
    answer["type"] = json!("search");
    Ok(Json(answer))
}
