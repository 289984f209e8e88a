//! How long old versions and the trash are kept: of a folder, and of all folders of a user.

use super::plain::{time, uuid};
use super::wire::{CanRead, Owns};
use super::{Access, AppState, Json, Problem, Route, Routes};
use crate::service::Caller;
use crate::service::content::{Entry, Retention, RetentionReport, RetentionRule};
use axum::extract::State;
use ferry_protocol::wire::Role;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes(app: &AppState) -> Routes {
    let set = "Give a folder a rule of its own, or (with null) none; it is kept to from a day later on";
    let all = "Set the rule for all own folders that have none, or (with null) none; it is kept to from a day later on";
    Routes::new(app)
        .add(Route::get("/api/v1/folders/{ns}/retention", Access::User, "How long a folder keeps old versions and its trash"), of_folder)
        .add(Route::put("/api/v1/folders/{ns}/retention", Access::User, set), set_of_folder)
        .add(
            Route::post("/api/v1/folders/{ns}/retention/preview", Access::User, "What a rule would take away now; nothing is done")
                .no_timeout(),
            preview,
        )
        .add(Route::get("/api/v1/me/retention", Access::User, "How long the own folders keep old versions and their trash"), of_user)
        .add(Route::put("/api/v1/me/retention", Access::User, all), set_of_user)
        .add(
            Route::post(
                "/api/v1/me/retention/preview",
                Access::User,
                "What a rule for all own folders would take away now; nothing is done",
            )
            .no_timeout(),
            preview_of_user,
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    rule: Option<RetentionRule>,
}

fn retention_json(entry: &Entry, retention: &Retention) -> Value {
    json!({
        "space_id": uuid(entry.namespace().as_bytes()),
        "rule": retention.own,
        "owner_rule": retention.owners,
        "effective": retention.effective,
        "can_change": entry.role() == Role::Owner,
        "next_at": retention.next_at_ms.map(time),
    })
}

fn report_json(report: &RetentionReport) -> Value {
    let mut answer = json!(report);
    let file = |file: &crate::service::content::RetentionFile| json!({"file_id": uuid(file.node.as_bytes()), "path": file.path, "versions": file.versions});
    answer["named"] = report.named.iter().map(file).collect();
    answer
}

async fn of_folder(State(app): State<AppState>, CanRead(entry): CanRead) -> Result<Json<Value>, Problem> {
    Ok(Json(retention_json(&entry, &app.content.retention(&entry).await?)))
}

async fn set_of_folder(State(app): State<AppState>, Owns(entry): Owns, Json(body): Json<Wish>) -> Result<Json<Value>, Problem> {
    let retention = app.content.set_retention(&entry, body.rule).await?;
    let detail = format!("folder {}: {}", entry.namespace(), said(body.rule));
    app.accounts.note_act(entry.caller(), "retention.changed", &detail).await;
    Ok(Json(retention_json(&entry, &retention)))
}

/// A rule for the audit log.
fn said(rule: Option<RetentionRule>) -> String {
    rule.and_then(|rule| serde_json::to_string(&rule).ok()).unwrap_or_else(|| "no rule".to_owned())
}

async fn preview(State(app): State<AppState>, Owns(entry): Owns, Json(body): Json<Wish>) -> Result<Json<Value>, Problem> {
    let rule = match body.rule {
        Some(rule) => rule,
        None => app.content.retention(&entry).await?.effective,
    };
    Ok(Json(report_json(&app.content.rehearse_retention(&entry, rule).await?)))
}

async fn of_user(State(app): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "rule": app.content.user_retention(caller.user_id).await? })))
}

async fn set_of_user(State(app): State<AppState>, caller: Caller, Json(body): Json<Wish>) -> Result<Json<Value>, Problem> {
    let rule = app.content.set_user_retention(caller.user_id, body.rule).await?;
    app.accounts.note_act(&caller, "retention.changed", &format!("all folders: {}", said(rule))).await;
    Ok(Json(json!({ "rule": rule })))
}

async fn preview_of_user(State(app): State<AppState>, caller: Caller, Json(body): Json<Wish>) -> Result<Json<Value>, Problem> {
    let rule = match body.rule {
        Some(rule) => rule,
        None => app.content.user_retention(caller.user_id).await?.unwrap_or_default(),
    };
    Ok(Json(report_json(&app.content.rehearse_user_retention(&caller, rule).await?)))
}
