//! Small pictures of files (8004): for whoever may download the file.

use super::download::{common_headers, has_etag, text};
use super::plain::{InFolder, node_of};
use super::{Access, AppState, Path, Problem, Query, Route, Routes};
use crate::service::thumbnails::Size;
use crate::service::{Caller, Scope};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::wire::Role;
use serde::Deserialize;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app).add(
        Route::get(
            "/api/v1/thumbnails/{file_id}",
            Access::User,
            "A small picture of a file: ?s=256 or ?s=1024, ?v=VERSION for an older one",
        )
        .scope(Scope::FilesRead)
        .in_folder(),
        thumbnail,
    )
}

#[derive(Deserialize)]
struct Which {
    /// Pixels that a side should have.
    s: Option<u32>,
    /// A version, by id or by number.
    v: Option<String>,
}

async fn thumbnail(
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
    let size = Size::at_least(which.s.unwrap_or(0));
    let etag = format!("\"{}-{}\"", download.hash, size.side());
    if has_etag(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, thumbnail_headers(&etag)?).into_response());
    }
    let picture = app.thumbnails.get(&entry, &download, size).await?;
    let mut out = thumbnail_headers(&etag)?;
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(picture.media_type));
    Ok((StatusCode::OK, out, picture.bytes).into_response())
}

/// A browser may keep it and asks each time whether it still may show it: who lost the file loses its picture.
fn thumbnail_headers(etag: &str) -> Result<HeaderMap, Problem> {
    let mut out = common_headers();
    out.insert(header::ETAG, text(etag.to_owned())?);
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    out.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    Ok(out)
}
