//! Files for people (metadata service): several actions in one request, conflicts settled.

use super::plain::{file_json, node_of};
use super::{Access, AppState, Json, Problem, Query, Route, Routes, metadata};
use crate::service::content::{Entry, FileUpdate, Keep, parse_path};
use crate::service::{Caller, ServiceError, ServiceResult};
use axum::extract::State;
use ferry_protocol::wire::Role;
use serde::Deserialize;
use serde_json::{Value, json};

/// Most actions of one request.
const ACTIONS_MAX: usize = 1000;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(
            Route::post("/api/v1/files/batch", Access::User, "Make directories, move, delete and restore; each by itself").no_timeout(),
            batch,
        )
        .add(Route::get("/api/v1/conflicts", Access::User, "Conflicted copies and what they are in conflict with"), conflicts)
        .add(Route::post("/api/v1/conflicts/resolve", Access::User, "Settle a conflict: keep the current file, the copy, or both"), resolve)
}

#[derive(Deserialize)]
struct Batch {
    space_id: Option<String>,
    actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Action {
    /// A directory of this name in the directory `path`.
    Mkdir { path: String, file_name: String },
    /// To the directory `path`, under a new name if one is given.
    Move { file_id: String, path: String, file_name: Option<String> },
    /// To the trash.
    Delete { file_id: String },
    /// Out of the trash.
    Restore { file_id: String },
}

async fn batch(State(app): State<AppState>, caller: Caller, Json(body): Json<Batch>) -> Result<Json<Value>, Problem> {
    if body.actions.len() > ACTIONS_MAX {
        let detail = format!("One request holds at most {ACTIONS_MAX} actions.");
        return Err(ServiceError::too_large(detail).with("limit", ACTIONS_MAX).into());
    }
    let entry = metadata::space(&app, &caller, body.space_id.as_deref(), Role::Editor).await?;
    let mut results = Vec::with_capacity(body.actions.len());
    for action in &body.actions {
        results.push(match act(&app, &entry, action).await {
            Ok(file) => json!({"ok": true, "file": file}),
            Err(e) if e.source_text().is_some() => return Err(e.into()),
            Err(e) => json!({"ok": false, "code": e.code(), "detail": e.detail(), "hint": e.hint_text()}),
        });
    }
    Ok(Json(json!({ "results": results })))
}

async fn act(app: &AppState, entry: &Entry, action: &Action) -> ServiceResult<Value> {
    match action {
        Action::Mkdir { path, file_name } => Ok(file_json(&app.content.make_directory(entry, &parse_path(path)?, file_name).await?)),
        Action::Move { file_id, path, file_name } => {
            let update = FileUpdate { name: file_name.clone(), directory: Some(parse_path(path)?), if_seq: None };
            Ok(file_json(&app.content.update_file(entry, node_of(file_id)?, &update).await?))
        }
        Action::Delete { file_id } => {
            let deleted = app.content.delete_file(entry, node_of(file_id)?, None).await?;
            Ok(json!({"file_id": file_id, "is_deleted": true, "deleted": deleted}))
        }
        Action::Restore { file_id } => {
            let file = node_of(file_id)?;
            app.content.restore(entry, file).await?;
            Ok(file_json(&app.content.file_info(entry, file).await?))
        }
    }
}

#[derive(Deserialize)]
struct Space {
    space_id: Option<String>,
}

async fn conflicts(State(app): State<AppState>, caller: Caller, Query(query): Query<Space>) -> Result<Json<Value>, Problem> {
    let entry = metadata::space(&app, &caller, query.space_id.as_deref(), Role::Viewer).await?;
    let found = app.content.conflicts(&entry).await?;
    let list: Vec<Value> =
        found.iter().map(|c| json!({"current": c.current.as_ref().map(file_json), "copy": file_json(&c.copy)})).collect();
    Ok(Json(json!({ "conflicts": list })))
}

#[derive(Deserialize)]
struct Resolve {
    space_id: Option<String>,
    /// Where the conflicted copy is shown.
    path: String,
    keep: Keep,
}

async fn resolve(State(app): State<AppState>, caller: Caller, Json(body): Json<Resolve>) -> Result<Json<Value>, Problem> {
    let entry = metadata::space(&app, &caller, body.space_id.as_deref(), Role::Editor).await?;
    Ok(Json(file_json(&app.content.settle(&entry, &parse_path(&body.path)?, body.keep).await?)))
}
