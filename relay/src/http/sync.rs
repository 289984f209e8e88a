//! Sync (8005): namespaces, feeds, commits, and the plain delta.

use super::plain::{kind, parse_time_ns, path_text, time, uuid};
use super::wire::{CanEdit, CanRead, Wire, answer};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::content::{Change, Since as ChangedSince};
use crate::service::{Caller, Scope, ServiceError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ferry_protocol::limits::{COMMIT_NODES_MAX, REQUEST_MAX_BYTES};
use ferry_protocol::wire::{CommitReply, CommitRequest, LACKS_HEADER, NamespaceInfo};
use ferry_protocol::{Epoch, NamespaceId};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(Route::get("/sync/delta", Access::User, "Files changed since a time or a cursor").scope(Scope::FilesRead), changes)
        .add(Route::get("/sync/v1/namespaces", Access::User, "The namespaces that the caller is a member of"), list)
        .add(Route::post("/sync/v1/namespaces", Access::User, "Create a namespace"), create)
        .add(Route::get("/sync/v1/{ns}/delta", Access::User, "Node states changed after a number of the feed"), delta)
        .add(
            Route::post("/sync/v1/{ns}/commit", Access::User, "Join node states, all or nothing").body_max(REQUEST_MAX_BYTES).no_timeout(),
            commit,
        )
}

async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<Vec<NamespaceInfo>>, Problem> {
    Ok(Json(app.content.namespaces(&caller).await?))
}

#[derive(Deserialize)]
struct NewNamespace {
    name: String,
    /// The id that the device has minted; without one the relay mints it.
    #[serde(default)]
    id: Option<NamespaceId>,
}

async fn create(
    State(app): State<AppState>,
    caller: Caller,
    Json(new): Json<NewNamespace>,
) -> Result<(StatusCode, Json<NamespaceInfo>), Problem> {
    Ok((StatusCode::CREATED, Json(app.content.create_namespace(&caller, new.id, &new.name).await?)))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
    epoch: Option<Epoch>,
    limit: Option<usize>,
}

async fn delta(
    State(app): State<AppState>,
    CanRead(entry): CanRead,
    Query(query): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let page = app.content.feed(&entry, query.since, query.epoch, query.limit.unwrap_or(COMMIT_NODES_MAX)).await?;
    let mut answered = answer(StatusCode::OK, &page, &headers).await?;
    if let Some(since_ms) = app.content.lacks_since(&entry).await? {
        answered.headers_mut().insert(LACKS_HEADER, since_ms.into());
    }
    Ok(answered)
}

async fn commit(
    State(app): State<AppState>,
    CanEdit(entry): CanEdit,
    headers: HeaderMap,
    Wire(request): Wire<CommitRequest>,
) -> Result<Response, Problem> {
    let reply = app.content.commit(&entry, request).await?;
    let status = if matches!(reply, CommitReply::Accepted { .. }) { StatusCode::OK } else { StatusCode::CONFLICT };
    answer(status, &reply, &headers).await
}

#[derive(Deserialize)]
struct PlainSince {
    since: Option<String>,
    limit: Option<usize>,
}

/// The seed's delta. `since` is RFC 3339, seconds since 1970, or the cursor of an earlier answer; without it, everything.
async fn changes(State(app): State<AppState>, caller: Caller, Query(query): Query<PlainSince>) -> Result<Json<Value>, Problem> {
    // A plus sign that nobody encoded arrives as a space.
    let text = query.since.as_deref().unwrap_or("0").trim().replace(' ', "+");
    let since = match parse_time_ns(&text) {
        Some(ns) => ChangedSince::TimeMs(ns.div_euclid(1_000_000)),
        None if text.starts_with('c') => ChangedSince::Cursor(text),
        None => {
            let detail = "'since' is neither a time (RFC 3339 or seconds since 1970) nor a cursor of this relay.";
            return Err(ServiceError::malformed(detail).into());
        }
    };
    let page = app.content.changes(&caller, since, query.limit.unwrap_or(500)).await?;
    Ok(Json(json!({
        "changes": page.changes.iter().map(change_json).collect::<Vec<_>>(),
        "cursor": page.cursor,
        "has_more": page.has_more,
        "server_time": time(page.server_time_ms),
    })))
}

fn change_json(change: &Change) -> Value {
    let file = change.content.as_ref().and_then(|c| c.file());
    json!({
        "file_id": uuid(change.node.as_bytes()),
        "space_id": uuid(change.namespace.as_bytes()),
        "file_name": String::from_utf8_lossy(change.name.as_bytes()),
        "file_path": change.path.as_ref().map(path_text),
        "file_size": file.map_or(0, |f| f.manifest.size()),
        "file_hash": file.map(|f| f.manifest.hash()),
        "kind": change.content.as_ref().map_or("deleted", kind),
        "is_deleted": change.path.is_none(),
        "updated_at": time(change.updated_at_ms),
        "seq": change.seq,
    })
}
