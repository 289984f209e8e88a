//! Files as a browser can show them (8004): Markdown as a tree of elements.

use super::download::{common_headers, has_etag, text};
use super::plain::{InFolder, node_of};
use super::{Access, AppState, Path, Problem, Query, Route, Routes};
use crate::service::markdown;
use crate::service::{Caller, Scope, ServiceError};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::wire::Role;
use serde::Deserialize;
use serde_json::json;

/// So much of a text is read, in bytes.
const TEXT_MAX_BYTES: u64 = 512 * 1024;
/// Of which files there is one.
const ENDINGS: [&[u8]; 2] = [b".md", b".markdown"];

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app).add(
        Route::get("/api/v1/previews/{file_id}", Access::User, "Markdown as a tree of elements: ?v=VERSION for an older one")
            .scope(Scope::FilesRead)
            .in_folder(),
        preview,
    )
}

#[derive(Deserialize)]
struct Which {
    v: Option<String>,
}

async fn preview(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(which): Query<Which>,
    Query(folder): Query<InFolder>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    let download = app.content.download(&entry, file, which.v.as_deref()).await?;
    let name = download.name.as_bytes().to_ascii_lowercase();
    if !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        let error = ServiceError::invalid("no_preview", "There are previews of Markdown only.").hint("Download the file to see it.");
        return Err(error.into());
    }
    let mut out = common_headers();
    let etag = format!("\"{}-markdown\"", download.hash);
    out.insert(header::ETAG, text(etag.clone())?);
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if has_etag(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, out).into_response());
    }
    let end = download.size_bytes.min(TEXT_MAX_BYTES);
    let mut bytes = Vec::new();
    if end > 0 {
        let mut stream = app.content.read_file(&download, 0..end).await?;
        while let Some(part) = stream.recv().await {
            bytes.extend_from_slice(&part?);
        }
    }
    let made = tokio::task::spawn_blocking(move || markdown::parse(&String::from_utf8_lossy(&bytes)));
    let document = made.await.map_err(ServiceError::internal)?;
    let is_cut = document.is_cut || end < download.size_bytes;
    Ok((StatusCode::OK, out, axum::Json(json!({"kind": "markdown", "nodes": document.nodes, "is_cut": is_cut}))).into_response())
}
