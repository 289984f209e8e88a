//! What happened, and what an account's storage goes to (metadata service): `GET /api/v1/activity`, `GET /api/v1/me/storage`.

use super::plain::{namespace_of, path_text, time, uuid};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::content::{Act, ActCursor, ActivityQuery};
use crate::service::{Caller, Kind, Scope, ServiceError, ServiceResult};
use axum::extract::State;
use ferry_protocol::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Acts of a page when nobody says otherwise.
const LIMIT_DEFAULT: usize = 100;

pub(super) fn routes(app: &AppState) -> Routes {
    let what = "What happened in the caller's folders, the newest first";
    Routes::new(app)
        .add(Route::get("/api/v1/activity", Access::User, what).scope(Scope::FilesRead), activity)
        .add(Route::get("/api/v1/me/storage", Access::User, "What the caller's storage goes to"), storage)
}

#[derive(Deserialize)]
struct Wish {
    space_id: Option<String>,
    /// Only by this device; for somebody's web access, the user's id.
    device_id: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn activity(State(app): State<AppState>, caller: Caller, Query(wish): Query<Wish>) -> Result<Json<Value>, Problem> {
    let no_device = |_| ServiceError::malformed("'device_id' is no id of a device.");
    let query = ActivityQuery {
        space: wish.space_id.as_deref().map(namespace_of).transpose()?,
        device: wish.device_id.as_deref().map(str::parse::<DeviceId>).transpose().map_err(no_device)?,
        after: wish.cursor.as_deref().map(ActCursor::parse).transpose()?,
        limit: wish.limit.unwrap_or(LIMIT_DEFAULT),
    };
    let page = app.content.activity(&caller, &query).await?;
    let mut people: BTreeMap<DeviceId, Value> = BTreeMap::new();
    for device in page.acts.iter().filter_map(|act| act.device) {
        if let Entry::Vacant(place) = people.entry(device) {
            place.insert(who(&app, &caller, device).await?);
        }
    }
    let acts: Vec<Value> = page.acts.iter().map(|act| act_json(act, &people)).collect();
    Ok(Json(json!({"acts": acts, "cursor": page.next.map(ActCursor::to_text), "has_more": page.next.is_some()})))
}

fn act_json(act: &Act, people: &BTreeMap<DeviceId, Value>) -> Value {
    json!({
        "at": time(act.at_ms),
        "space_id": uuid(act.namespace.as_bytes()),
        "file_id": uuid(act.node.as_bytes()),
        "kind": act.kind,
        "acts": act.acts,
        "name": act.name,
        "old_name": act.old_name,
        "file_path": act.path.as_ref().map(path_text),
        "directory": act.directory.as_ref().map(path_text),
        "by": act.device.and_then(|device| people.get(&device)),
    })
}

/// What is there or was: an account or a device that went is nobody.
fn known<T>(found: ServiceResult<T>) -> ServiceResult<Option<T>> {
    match found {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A device and its user, as members of a folder see each other.
async fn who(app: &AppState, caller: &Caller, id: DeviceId) -> ServiceResult<Value> {
    let device = known(app.accounts.device(id).await)?;
    let user_id = device.as_ref().map_or_else(|| UserId::from_bytes(*id.as_bytes()), |device| device.user_id);
    let user = known(app.accounts.user(user_id).await)?;
    Ok(json!({
        "device_id": id,
        // Nothing for somebody's web access.
        "device": device.map(|device| device.name),
        "name": user.as_ref().map(|user| &user.name),
        "email": user.as_ref().map(|user| &user.email),
        "is_me": user_id == caller.user_id,
    }))
}

async fn storage(State(app): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    let usage = app.content.usage(&caller).await?;
    let spaces: Vec<Value> = app
        .content
        .totals(&caller)
        .await?
        .into_iter()
        .map(|(id, name, totals)| {
            json!({
                "space_id": uuid(id.as_bytes()),
                "name": name,
                "files": totals.files,
                "file_bytes": totals.file_bytes,
                "trash": totals.trash,
                "trash_bytes": totals.trash_bytes,
                "versions": totals.versions,
                "version_bytes": totals.version_bytes,
            })
        })
        .collect();
    Ok(Json(json!({"storage_used": usage.used_bytes, "storage_limit": usage.limit_bytes, "spaces": spaces})))
}
