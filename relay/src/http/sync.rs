//! Sync (8005): namespaces, feeds, commits.

use super::wire::{CanEdit, CanRead, Wire, answer};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::Caller;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ferry_protocol::Epoch;
use ferry_protocol::limits::{COMMIT_NODES_MAX, REQUEST_MAX_BYTES};
use ferry_protocol::wire::{CommitReply, CommitRequest, NamespaceInfo};
use serde::Deserialize;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
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
}

async fn create(
    State(app): State<AppState>,
    caller: Caller,
    Json(new): Json<NewNamespace>,
) -> Result<(StatusCode, Json<NamespaceInfo>), Problem> {
    Ok((StatusCode::CREATED, Json(app.content.create_namespace(&caller, &new.name).await?)))
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
    answer(StatusCode::OK, &page, &headers).await
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
