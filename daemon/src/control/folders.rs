//! Folders over the control socket.

use super::files::{ask, body, shown};
use crate::folder::FolderCommand;
use crate::problem::{Outcome, Problem};
use crate::supervisor::{AddFolder, Daemon, Running, now_ms};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// A folder as a document: its status and what is recorded of it.
fn document(daemon: &Daemon, running: &Running) -> Value {
    let mut document = serde_json::to_value(daemon.folder_status(running)).unwrap_or_default();
    let config = &running.record.config;
    document["type"] = "folder".into();
    document["paused"] = config.paused.into();
    document["pause_until_ms"] = config.pause_until_ms.into();
    document["merge_text"] = config.merge_text.into();
    document["created_here"] = config.created_here.into();
    document["registered"] = running.record.registered_with.is_some().into();
    document
}

/// `GET /v1/folders`
pub async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Value> {
    let folders: Vec<_> = daemon.folders().iter().map(|r| document(&daemon, r)).collect();
    Json(json!({"type": "folders", "folders": folders}))
}

/// `POST /v1/folders` with `{"path", "name"?, "remote"?}`
pub async fn add(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Result<(StatusCode, Json<Value>), Problem> {
    let add: AddFolder = body(&bytes)?;
    let running = daemon.add_folder(add).await?;
    Ok((StatusCode::CREATED, Json(document(&daemon, &running))))
}

/// `GET /v1/folders/{folder}`
pub async fn show(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>) -> Answer {
    let running = daemon.find(&folder)?;
    Ok(Json(document(&daemon, &running)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    paused: Option<bool>,
    #[serde(default)]
    merge_text: Option<bool>,
}

/// `PATCH /v1/folders/{folder}` with `{"name"?, "paused"?, "merge_text"?}`
pub async fn change(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>, bytes: Bytes) -> Answer {
    let change: Change = body(&bytes)?;
    let running = daemon.find(&folder)?;
    let id = running.record.config.id.to_string();
    if let Some(name) = change.name {
        daemon.rename_folder(&running, &name).await?;
    }
    if let Some(on) = change.merge_text {
        daemon.set_merge_text(&daemon.find(&id)?, on).await?;
    }
    match change.paused {
        Some(true) => daemon.pause_folder(&daemon.find(&id)?, None).await?,
        Some(false) => daemon.resume_folder(&daemon.find(&id)?).await?,
        None => {}
    }
    show(State(daemon), Path(id)).await
}

/// `DELETE /v1/folders/{folder}`: no longer synced here; the files stay.
pub async fn remove(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>) -> Answer {
    let record = daemon.remove_folder(&folder).await?;
    let path = crate::config::shown(&record.config.path);
    Ok(Json(json!({"type": "folder_removed", "id": record.config.id, "name": record.config.name, "path": path})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    #[serde(default)]
    until_ms: Option<i64>,
}

/// `POST /v1/folders/{folder}/scan|pause|resume|approve|reject|dismiss`
pub async fn act(State(daemon): State<Arc<Daemon>>, Path((folder, action)): Path<(String, String)>, bytes: Bytes) -> Answer {
    let running = daemon.find(&folder)?;
    let mut count = None;
    match action.as_str() {
        "scan" => running.handle.command(FolderCommand::Scan).await?,
        "pause" => daemon.pause_folder(&running, pause_until(&bytes)?).await?,
        "resume" => daemon.resume_folder(&running).await?,
        "approve" => count = Some(ask(&running, |reply| FolderCommand::Approve { reply }).await?),
        "dismiss" => count = Some(ask(&running, |reply| FolderCommand::Dismiss { reply }).await?),
        "reject" => count = Some(ask(&running, |reply| FolderCommand::Reject { reply }).await?),
        _ => return Err(Problem::not_found("no_such_endpoint", format!("a folder has no '{}'", shown(&action)))),
    }
    let config = &running.record.config;
    Ok(Json(json!({"type": "done", "action": action, "id": config.id, "name": config.name, "count": count})))
}

fn pause_until(bytes: &[u8]) -> Outcome<Option<i64>> {
    let Pause { until_ms } = body(bytes)?;
    if until_ms.is_some_and(|until| until <= now_ms()) {
        return Err(Problem::usage("the pause would already be over"));
    }
    Ok(until_ms)
}

/// `POST /v1/pause`: all folders.
pub async fn pause_all(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let until_ms = pause_until(&bytes)?;
    let folders = daemon.folders();
    for running in &folders {
        daemon.pause_folder(running, until_ms).await?;
    }
    Ok(Json(json!({"type": "done", "action": "pause", "count": folders.len()})))
}

/// `POST /v1/resume`: all folders.
pub async fn resume_all(State(daemon): State<Arc<Daemon>>) -> Answer {
    let folders = daemon.folders();
    for running in &folders {
        daemon.resume_folder(running).await?;
    }
    Ok(Json(json!({"type": "done", "action": "resume", "count": folders.len()})))
}

/// `GET /v1/folders/{folder}/ignores`
pub async fn ignores(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>) -> Answer {
    let running = daemon.find(&folder)?;
    let rules = ask(&running, |reply| FolderCommand::IgnoreList { reply }).await?;
    Ok(Json(json!({"type": "ignores", "folder": running.record.config.name, "rules": rules})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    /// Absolute paths, as bytes in hexadecimal.
    paths_hex: Vec<String>,
}

/// `POST /v1/folders/{folder}/ignores/check` with `{"paths_hex": [...]}`; the folder `-` stands for "whichever holds the path".
pub async fn ignores_check(State(daemon): State<Arc<Daemon>>, Path(folder): Path<String>, bytes: Bytes) -> Answer {
    let Check { paths_hex } = body(&bytes)?;
    let only = if folder == "-" { None } else { Some(daemon.find(&folder)?.record.config.id) };
    let mut verdicts = Vec::new();
    for path in paths_hex {
        let path = hex::decode(&path).map_err(|_| Problem::usage("a path is not hexadecimal").code("invalid_request"))?;
        let path = PathBuf::from(OsString::from_vec(path));
        let (running, below) = daemon.folder_of_path(&path)?;
        if only.is_some_and(|id| id != running.record.config.id) {
            return Err(Problem::not_found("path_not_in_folder", format!("{} is not in this folder", crate::config::shown(&path))));
        }
        // A rule that was written just now counts.
        ask(&running, |reply| FolderCommand::Flush { reply }).await?;
        let is_dir = path.is_dir();
        let mut answer = ask(&running, |reply| FolderCommand::IgnoreCheck { paths: vec![(below, is_dir)], reply }).await?;
        let verdict = answer.pop().ok_or_else(|| Problem::failed("ignore_check", "the folder gave no answer"))?;
        let mut verdict = serde_json::to_value(verdict).unwrap_or_default();
        verdict["absolute"] = crate::config::shown(&path).into();
        verdict["folder"] = running.record.config.name.clone().into();
        verdicts.push(verdict);
    }
    Ok(Json(json!({"type": "ignore_check", "paths": verdicts})))
}
