//! Search (metadata service): `GET /api/v1/search`.

use super::plain::{file_json, namespace_of, parse_time_ns};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::content::{SearchCursor, SearchQuery, kind_of, parse_path};
use crate::service::{Caller, Scope, ServiceError};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// Hits of a page when nobody says otherwise.
const LIMIT_DEFAULT: usize = 50;

pub(super) fn routes(app: &AppState) -> Routes {
    let summary = "Search by name, over all that the caller may see";
    Routes::new(app).add(Route::get("/api/v1/search", Access::User, summary).scope(Scope::FilesRead), search)
}

#[derive(Deserialize)]
struct Wish {
    /// Words; a name holds all of them, in any order.
    #[serde(default)]
    q: String,
    /// Only this folder.
    space_id: Option<String>,
    /// Only what is below this directory of the folder.
    path: Option<String>,
    /// directory, file, symlink, image, video, audio, document or archive.
    r#type: Option<String>,
    min_size: Option<u64>,
    max_size: Option<u64>,
    /// Changed since: RFC 3339, or seconds since 1970.
    since: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn search(State(app): State<AppState>, caller: Caller, Query(wish): Query<Wish>) -> Result<Json<Value>, Problem> {
    if wish.path.is_some() && wish.space_id.is_none() {
        return Err(ServiceError::malformed("'path' is a place in a folder: give 'space_id' too.").into());
    }
    let no_time = || ServiceError::malformed("'since' is no time (RFC 3339 or seconds since 1970).");
    let since = wish.since.as_deref().map(|text| parse_time_ns(text).ok_or_else(no_time)).transpose()?;
    let query = SearchQuery {
        text: wish.q,
        space: wish.space_id.as_deref().map(namespace_of).transpose()?,
        directory: wish.path.as_deref().map(parse_path).transpose()?,
        kind: wish.r#type.as_deref().map(kind_of).transpose()?.unwrap_or_default(),
        min_size: wish.min_size,
        max_size: wish.max_size,
        since_ms: since.map(|ns| ns.div_euclid(1_000_000)),
        after: wish.cursor.as_deref().map(SearchCursor::parse).transpose()?,
        limit: wish.limit.unwrap_or(LIMIT_DEFAULT),
    };
    let files = app.sharing.files_of(&caller).await?;
    let page = app.content.search(&caller, &query, &files).await?;
    let found = page.found.iter().map(|found| {
        let mut file = file_json(&found.info);
        file["is_shared_file"] = found.is_shared_file.into();
        file
    });
    Ok(Json(json!({
        "files": found.collect::<Vec<_>>(),
        "cursor": page.next.as_ref().map(SearchCursor::to_text),
        "has_more": page.next.is_some(),
    })))
}
