//! Metadata (8002): list, look at, rename and move, delete; trash, usage.

use super::plain::{InFolder, etag, file_json, namespace_of, node_of, parse_etag, parse_time_ns, time, uuid};
use super::{Access, AppState, Json, Path, Problem, Query, Route, Routes};
use crate::service::content::{Entry, FileUpdate, ListCursor, ListQuery, PurgeWhat, Sort, TrashItem, parse_cursor, parse_path};
use crate::service::{Caller, Scope, ServiceError, ServiceResult};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::wire::Role;
use serde::Deserialize;
use serde_json::{Value, json};

/// Entries of a page when nobody says otherwise.
const LIMIT_DEFAULT: usize = 200;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(Route::get("/metadata/files", Access::User, "List files: all, or those of a directory").scope(Scope::FilesRead), list)
        .add(Route::get("/metadata/files/{file_id}", Access::User, "One file").scope(Scope::FilesRead).in_folder(), info)
        .add(Route::put("/metadata/files/{file_id}", Access::User, "Rename or move").scope(Scope::FilesWrite).in_folder(), update)
        .add(Route::delete("/metadata/files/{file_id}", Access::User, "Delete to the trash").scope(Scope::FilesWrite).in_folder(), delete)
        .add(Route::get("/api/v1/trash", Access::User, "What was deleted").scope(Scope::FilesRead), trash)
        .add(Route::post("/api/v1/trash/restore", Access::User, "Bring something back from the trash").scope(Scope::FilesWrite), restore)
        .add(Route::delete("/api/v1/trash", Access::User, "Remove one thing, or all that is old enough, from the trash for good"), purge)
        .add(Route::get("/api/v1/me/usage", Access::User, "Storage used and allowed").scope(Scope::FilesRead), usage)
}

/// The named namespace or the caller's home.
pub(super) async fn space(app: &AppState, caller: &Caller, space_id: Option<&str>, role: Role) -> ServiceResult<Entry> {
    match space_id {
        Some(id) => app.content.enter(caller, namespace_of(id)?, role).await,
        None => app.content.enter_home(caller).await,
    }
}

#[derive(Deserialize)]
struct List {
    path: Option<String>,
    parent: Option<String>,
    space_id: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    sort: Option<String>,
}

async fn list(State(app): State<AppState>, caller: Caller, Query(query): Query<List>) -> Result<Json<Value>, Problem> {
    let (entry, directory) = match (&query.parent, &query.path) {
        (Some(parent), None) => {
            let node = node_of(parent)?;
            let namespace = query.space_id.as_deref().map(namespace_of).transpose()?;
            let entry = app.content.enter_by_file(&caller, node, namespace, Role::Viewer).await?;
            let path = app.content.file_info(&entry, node).await?.path;
            (entry, Some(path))
        }
        (None, path) => {
            let namespace = query.space_id.as_deref().map(namespace_of).transpose()?;
            let entry = app.content.enter_to_list(&caller, namespace).await?;
            (entry, path.as_deref().map(parse_path).transpose()?)
        }
        (Some(_), Some(_)) => return Err(ServiceError::malformed("Give 'path' or 'parent', not both.").into()),
    };
    let (sort, descending) = sort_of(query.sort.as_deref().unwrap_or("name"))?;
    let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let wish = ListQuery { directory, sort, descending, after, limit: query.limit.unwrap_or(LIMIT_DEFAULT) };
    let page = app.content.list_files(&entry, &wish).await?;
    Ok(Json(json!({
        "files": page.files.iter().map(file_json).collect::<Vec<_>>(),
        "space_id": uuid(entry.namespace().as_bytes()),
        "cursor": page.next.as_ref().map(ListCursor::to_text),
        "has_more": page.next.is_some(),
    })))
}

fn sort_of(text: &str) -> ServiceResult<(Sort, bool)> {
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
    let sort = match name {
        "name" => Sort::Name,
        "size" => Sort::Size,
        "modified" | "updated_at" => Sort::Modified,
        _ => return Err(ServiceError::malformed("'sort' is name, size or modified, with '-' before it for the other direction.")),
    };
    Ok((sort, descending))
}

async fn info(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
) -> Result<Response, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    let info = app.content.file_info(&entry, file).await?;
    Ok(([(header::ETAG, etag(info.seq))], Json(file_json(&info))).into_response())
}

fn if_match(headers: &HeaderMap) -> ServiceResult<Option<u64>> {
    match headers.get(header::IF_MATCH).map(|v| v.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => parse_etag(text),
        Some(Err(_)) => Err(ServiceError::malformed("'If-Match' is not text.")),
    }
}

#[derive(Deserialize)]
struct Update {
    file_name: Option<String>,
    path: Option<String>,
    parent_id: Option<String>,
}

async fn update(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    headers: HeaderMap,
    Json(body): Json<Update>,
) -> Result<Response, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Editor).await?;
    let directory = match (&body.path, &body.parent_id) {
        (None, None) => None,
        (Some(path), None) => Some(parse_path(path)?),
        (None, Some(parent)) => Some(app.content.file_info(&entry, node_of(parent)?).await?.path),
        (Some(_), Some(_)) => return Err(ServiceError::malformed("Give 'path' or 'parent_id', not both.").into()),
    };
    if body.file_name.is_none() && directory.is_none() {
        return Err(ServiceError::invalid("nothing_to_do", "Give 'file_name' to rename, 'path' or 'parent_id' to move.").into());
    }
    let update = FileUpdate { name: body.file_name, directory, if_seq: if_match(&headers)? };
    let info = app.content.update_file(&entry, file, &update).await?;
    Ok(([(header::ETAG, etag(info.seq))], Json(file_json(&info))).into_response())
}

async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let file = node_of(&file_id)?;
    let entry = app.content.enter_by_file(&caller, file, folder.namespace()?, Role::Editor).await?;
    let deleted = app.content.delete_file(&entry, file, if_match(&headers)?).await?;
    Ok(Json(json!({"file_id": uuid(file.as_bytes()), "is_deleted": true, "deleted": deleted})))
}

#[derive(Deserialize)]
struct TrashQuery {
    space_id: Option<String>,
    cursor: Option<u64>,
    limit: Option<usize>,
}

async fn trash(State(app): State<AppState>, caller: Caller, Query(query): Query<TrashQuery>) -> Result<Json<Value>, Problem> {
    let entry = space(&app, &caller, query.space_id.as_deref(), Role::Viewer).await?;
    let (items, next) = app.content.trash(&entry, query.cursor, query.limit.unwrap_or(LIMIT_DEFAULT)).await?;
    let list: Vec<Value> = items.iter().map(|item| trash_json(&entry, item)).collect();
    Ok(Json(json!({"files": list, "cursor": next.map(|n| n.to_string()), "has_more": next.is_some()})))
}

pub(super) fn trash_json(entry: &Entry, item: &TrashItem) -> Value {
    json!({
        "file_id": uuid(item.id.as_bytes()),
        "space_id": uuid(entry.namespace().as_bytes()),
        "parent_id": uuid(item.parent.as_bytes()),
        "file_name": String::from_utf8_lossy(&item.name),
        "file_size": item.size_bytes,
        "file_type": item.file_type,
        "file_hash": item.hash,
        "is_deleted": true,
        "deleted_at": time(item.deleted_at_ms),
    })
}

#[derive(Deserialize)]
struct Restore {
    file_id: String,
    /// The folder that is meant, for whoever knows it.
    space_id: Option<String>,
}

async fn restore(State(app): State<AppState>, caller: Caller, Json(body): Json<Restore>) -> Result<Json<Value>, Problem> {
    let file = node_of(&body.file_id)?;
    let entry = match body.space_id.as_deref() {
        // Who names a folder means what is in it.
        Some(id) => space(&app, &caller, Some(id), Role::Editor).await?,
        None => app.content.enter_by_file(&caller, file, None, Role::Editor).await?,
    };
    let restored = app.content.restore(&entry, file).await?;
    let info = app.content.file_info(&entry, file).await?;
    let mut answer = file_json(&info);
    answer["restored"] = restored.count.into();
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct PurgeQuery {
    space_id: Option<String>,
    /// The one thing.
    file_id: Option<String>,
    /// Everything that was deleted before this time: RFC 3339, or seconds since 1970.
    before: Option<String>,
    /// Everything.
    all: Option<bool>,
}

async fn purge(State(app): State<AppState>, caller: Caller, Query(query): Query<PurgeQuery>) -> Result<Json<Value>, Problem> {
    let what = match (&query.file_id, &query.before, query.all.unwrap_or(false)) {
        (Some(file), None, false) => PurgeWhat::Entry(node_of(file)?),
        (None, Some(text), false) => {
            let ns = parse_time_ns(text).ok_or_else(|| ServiceError::malformed("'before' is no time (RFC 3339 or seconds since 1970)."))?;
            PurgeWhat::Before(ns.div_euclid(1_000_000))
        }
        (None, None, true) => PurgeWhat::Before(i64::MAX),
        _ => return Err(ServiceError::malformed("Give one of 'file_id', 'before' and 'all=true'.").into()),
    };
    let entry = match what {
        PurgeWhat::Entry(file) => {
            let namespace = query.space_id.as_deref().map(namespace_of).transpose()?;
            app.content.enter_by_file(&caller, file, namespace, Role::Owner).await?
        }
        PurgeWhat::Before(_) => space(&app, &caller, query.space_id.as_deref(), Role::Owner).await?,
    };
    let purged = app.content.purge(&entry, what).await?;
    let detail = format!("{} entries, {} versions of folder {}", purged.entries, purged.versions, entry.namespace());
    app.accounts.note_act(&caller, "trash.purged", &detail).await;
    Ok(Json(json!({"purged": purged.entries, "versions": purged.versions, "freed_bytes": purged.freed_bytes})))
}

async fn usage(State(app): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    let usage = app.content.usage(&caller).await?;
    Ok(Json(json!({"storage_used": usage.used_bytes, "storage_limit": usage.limit_bytes})))
}
