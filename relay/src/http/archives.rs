//! Archives of chosen files and folders (8004): one zip, made while it is sent.

use super::chunks::body_of;
use super::download::disposition;
use super::plain::{namespace_of, node_of};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::content::{Archive, Entry};
use crate::service::{Caller, Scope, ServiceError};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::NodeId;
use ferry_protocol::wire::Role;
use serde::Deserialize;
use utoipa::ToSchema;

/// Files and folders that one request names.
const CHOSEN_MAX: usize = 10_000;
const BODY_MAX_BYTES: usize = 1024 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    let summary = "Files and folders as one zip, made while it is sent";
    Routes::new(app)
        .add(
            Route::post("/api/v1/archives", Access::User, summary)
                .scope(Scope::FilesRead)
                .body_max(BODY_MAX_BYTES)
                .takes::<ArchiveBody>()
                .no_timeout(),
            post,
        )
        .add(
            Route::get("/api/v1/archives", Access::User, "The same for a browser's own download: ?file_ids=ID,ID&space_id=ID")
                .scope(Scope::FilesRead)
                .no_timeout(),
            get,
        )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ArchiveBody {
    /// What goes in; a folder with all that is below it. The id of zeros is the whole namespace.
    file_ids: Vec<String>,
    /// The namespace; without it that of the first file.
    space_id: Option<String>,
}

#[derive(Deserialize)]
struct ArchiveQuery {
    file_ids: String,
    space_id: Option<String>,
}

async fn post(State(app): State<AppState>, caller: Caller, Json(body): Json<ArchiveBody>) -> Result<Response, Problem> {
    let ids: Vec<&str> = body.file_ids.iter().map(String::as_str).collect();
    make(&app, &caller, &ids, body.space_id.as_deref()).await
}

async fn get(State(app): State<AppState>, caller: Caller, Query(query): Query<ArchiveQuery>) -> Result<Response, Problem> {
    let ids: Vec<&str> = query.file_ids.split(',').filter(|id| !id.is_empty()).collect();
    make(&app, &caller, &ids, query.space_id.as_deref()).await
}

async fn make(app: &AppState, caller: &Caller, ids: &[&str], space_id: Option<&str>) -> Result<Response, Problem> {
    if ids.len() > CHOSEN_MAX {
        let detail = format!("One archive is made of at most {CHOSEN_MAX} named files and folders.");
        return Err(ServiceError::too_large(detail).with("limit", CHOSEN_MAX).into());
    }
    let nodes = ids.iter().map(|id| node_of(id)).collect::<Result<Vec<NodeId>, _>>()?;
    let first = *nodes.first().ok_or_else(|| ServiceError::invalid("nothing_chosen", "Name at least one file or folder in 'file_ids'."))?;
    let entry: Entry = match space_id {
        Some(id) => app.content.enter_to_list(caller, Some(namespace_of(id)?)).await?,
        None if first == NodeId::ROOT => app.content.enter_to_list(caller, None).await?,
        None => app.content.enter_by_file(caller, first, None, Role::Viewer).await?,
    };
    let archive = app.content.plan_archive(&entry, &nodes).await?.watched(app.content.still_reads(&entry));
    send(app, archive).await
}

/// The archive as an answer. Its length is not known before its end.
pub(super) async fn send(app: &AppState, archive: Archive) -> Result<Response, Problem> {
    let name = disposition(format!("{}.zip", archive.name).as_bytes(), false);
    let name = HeaderValue::try_from(name).map_err(ServiceError::internal)?;
    let body = body_of(app.content.read_archive(archive).await?, false);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, body).into_response())
}
