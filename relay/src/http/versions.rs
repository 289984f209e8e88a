//! Versions of files for people: which there are, what is different between them, what they are called; what once stood at a place.

use super::metadata::trash_json;
use super::plain::{InFolder, bytes_of, file_json, namespace_of, node_of, time, time_ns, uuid};
use super::{Access, AppState, Json, Path, Problem, Query, Route, Routes};
use crate::service::content::{Comparison, DIFF_MAX_BYTES, HistoryWish, Side, VersionInfo, parse_path};
use crate::service::{Caller, Scope, ServiceError};
use crate::store::content::VersionRow;
use axum::extract::State;
use ferry_protocol::wire::Role;
use ferry_protocol::{NodeId, RelPath};
use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of a page when nobody says otherwise.
const LIMIT_DEFAULT: usize = 200;
/// A body with a text: as JSON writes it, most characters take one byte, some two, few six.
const TEXT_BODY_MAX: usize = 2 * DIFF_MAX_BYTES as usize + 4096;

pub(super) fn routes(app: &AppState) -> Routes {
    let label = "Call a version something, which keeps it, or (with null) nothing";
    Routes::new(app)
        .add(
            Route::get("/api/v1/files/by-path", Access::User, "What stands at a path, and what was deleted there").scope(Scope::FilesRead),
            at,
        )
        .add(
            Route::get("/api/v1/files/{file_id}/versions", Access::User, "The versions of a file").scope(Scope::FilesRead).in_folder(),
            versions,
        )
        .add(Route::patch("/api/v1/files/{file_id}/versions/{version_id}", Access::User, label).in_folder(), change)
        .add(
            Route::post("/api/v1/files/{file_id}/versions/{version_id}/restore", Access::User, "Make a version the newest one").in_folder(),
            restore,
        )
        .add(
            Route::get("/api/v1/files/{file_id}/diff", Access::User, "What is different between the text of two versions").in_folder(),
            diff,
        )
        .add(
            Route::post("/api/v1/files/{file_id}/diff", Access::User, "What is different between a version and a text")
                .body_max(TEXT_BODY_MAX)
                .in_folder(),
            diff_with_text,
        )
}

#[derive(Deserialize)]
struct Place {
    path: Option<String>,
    space_id: Option<String>,
}

async fn at(State(app): State<AppState>, caller: Caller, Query(query): Query<Place>) -> Result<Json<Value>, Problem> {
    let namespace = query.space_id.as_deref().map(namespace_of).transpose()?;
    let entry = app.content.enter_to_list(&caller, namespace).await?;
    let path = query.path.as_deref().map_or(Ok(RelPath::root()), parse_path)?;
    let place = if path.is_root() { Default::default() } else { app.content.at_place(&entry, &path).await? };
    let deleted: Vec<Value> = place.deleted.iter().map(|item| trash_json(&entry, item)).collect();
    Ok(Json(json!({
        "space_id": uuid(entry.namespace().as_bytes()),
        "file": place.file.as_ref().map(file_json),
        "deleted": deleted,
    })))
}

#[derive(Deserialize)]
struct List {
    /// Where the page begins.
    cursor: Option<u64>,
    limit: Option<usize>,
    /// Whether to say what each costs.
    #[serde(default)]
    cost: bool,
}

async fn versions(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    Query(query): Query<List>,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    let wish = HistoryWish { before: query.cursor, limit: query.limit.unwrap_or(LIMIT_DEFAULT), with_cost: query.cost };
    let page = app.content.file_history(&entry, file, wish).await?;
    let list: Vec<Value> = page.versions.iter().map(|version| version_json(&caller, file, version)).collect();
    Ok(Json(json!({
        "versions": list,
        "total": page.total,
        "cursor": page.next.map(|next| next.to_string()),
        "has_more": page.next.is_some(),
    })))
}

fn version_json(caller: &Caller, file: NodeId, version: &VersionInfo) -> Value {
    let row = &version.row;
    json!({
        "version_id": uuid(&row.version_id),
        "file_id": uuid(file.as_bytes()),
        "version_number": row.number,
        "file_hash": row.hash,
        "file_size": row.size_bytes,
        "modified_at": time_ns(row.mtime_ns),
        "created_at": time(row.created_at_ms),
        "device_name": row.author_name,
        "origin": if version.by_web { "web" } else { "device" },
        "user_email": version.email,
        "by_me": version.user == Some(caller.user_id),
        "label": row.label,
        "same_as": version.same_as,
        "cost_bytes": version.cost_bytes,
        "is_current": version.is_current,
    })
}

async fn restore(
    State(app): State<AppState>,
    caller: Caller,
    Path((file_id, version_id)): Path<(String, String)>,
    Query(folder): Query<InFolder>,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Editor).await?;
    Ok(Json(file_json(&app.content.restore_version(&entry, file, bytes_of(&version_id)?).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    label: Option<String>,
}

async fn change(
    State(app): State<AppState>,
    caller: Caller,
    Path((file_id, version_id)): Path<(String, String)>,
    Query(folder): Query<InFolder>,
    Json(body): Json<Change>,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Editor).await?;
    let version_id = bytes_of(&version_id)?;
    let label = app.content.label_version(&entry, file, version_id, body.label.as_deref()).await?;
    Ok(Json(json!({"file_id": uuid(file.as_bytes()), "version_id": uuid(&version_id), "label": label})))
}

#[derive(Deserialize)]
struct Sides {
    /// A version, by id or number; the one before `to` when nobody says.
    from: Option<String>,
    /// A version; what the file shows now when nobody says.
    to: Option<String>,
}

async fn diff(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    Query(sides): Query<Sides>,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    let from = sides.from.map_or(Side::Previous, Side::Version);
    let to = sides.to.map_or(Side::Current, Side::Version);
    Ok(Json(comparison_json(file, &app.content.compare(&entry, file, from, to).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithText {
    /// A version, by id or number; what the file shows now when nobody says.
    from: Option<String>,
    /// The new text.
    text: String,
}

async fn diff_with_text(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    Json(body): Json<WithText>,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    if body.text.len() as u64 > DIFF_MAX_BYTES {
        let detail = format!("The text is too large to be compared: at most {DIFF_MAX_BYTES} bytes are.");
        return Err(ServiceError::too_large(detail).with("limit_bytes", DIFF_MAX_BYTES).into());
    }
    let from = body.from.map_or(Side::Current, Side::Version);
    Ok(Json(comparison_json(file, &app.content.compare(&entry, file, from, Side::Text(body.text)).await?)))
}

fn comparison_json(file: NodeId, comparison: &Comparison) -> Value {
    let side = |row: &VersionRow| {
        json!({
            "version_id": uuid(&row.version_id),
            "version_number": row.number,
            "created_at": time(row.created_at_ms),
            "device_name": row.author_name,
            "label": row.label,
        })
    };
    json!({
        "file_id": uuid(file.as_bytes()),
        "from": comparison.from.as_ref().map(side),
        "to": comparison.to.as_ref().map(side),
        "added": comparison.added,
        "removed": comparison.removed,
        "is_cut": comparison.is_cut,
        "hunks": comparison.hunks,
    })
}
