//! Files of a public link: what a folder holds, bytes, archives.

use super::super::download::{answer, etag_of, is_shown};
use super::super::plain::time_ns;
use super::super::{AppState, Json, Path, Problem, archives};
use super::{Visit, encoded, encoded_path, path_of, path_of_query};
use crate::service::links::{LinkKind, used_up};
use crate::service::{Kind, ServiceError};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::{Value, json};

/// What is served is for looking and downloading.
const READERS: &[LinkKind] = &[LinkKind::View, LinkKind::Download];

pub(super) async fn list(State(app): State<AppState>, visit: Visit, Path(token): Path<String>, uri: Uri) -> Result<Json<Value>, Problem> {
    let opened = visit.open_for(&app, &token, READERS).await?;
    if opened.is_used_up() {
        return Err(used_up().into());
    }
    let path = path_of_query(uri.query())?;
    let before = if path.is_root() { String::new() } else { format!("{}/", encoded_path(&path)) };
    let items = app.content.public_list(&opened.entry, &path).await?;
    let one = |item: &crate::service::content::PublicItem| {
        let raw = (!item.is_directory).then(|| format!("/s/{token}/raw/{before}{}", encoded(&item.name)));
        json!({
            "name": String::from_utf8_lossy(&item.name),
            "kind": if item.is_directory { "directory" } else { "file" },
            "size": item.size_bytes,
            "media_type": item.media_type,
            "modified_at": item.mtime_ns.map(time_ns),
            "raw": raw,
        })
    };
    Ok(Json(json!({ "items": items.iter().map(one).collect::<Vec<_>>() })))
}

pub(super) async fn raw(
    State(app): State<AppState>,
    visit: Visit,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // As it was sent: the framework's own decoding knows no names that are not UTF-8, and no difference between a slash and an encoded one.
    let mut parts = uri.path().splitn(5, '/').skip(2);
    let (token, encoded) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let opened = visit.open_for(&app, token, READERS).await?;
    let (node, download) = app.content.public_download(&opened.entry, &path_of(encoded)?).await?;
    let shown = is_shown(download.media_type);
    let is_wanted = uri.query().is_some_and(|q| q.split('&').any(|pair| pair == "inline=1"));
    let inline = shown && (is_wanted || opened.link.kind == LinkKind::View);
    if opened.link.kind == LinkKind::View && !shown {
        return Err(ServiceError::new(
            Kind::Forbidden,
            "view_only",
            "This link is for looking only, and a browser does not show this file.",
        )
        .into());
    }
    if method != Method::HEAD {
        visit.count(&app, &opened, node).await?;
    }
    let download = download.watched(app.links.still_open(&opened));
    answer(&app, &download, &method, &headers, inline, etag_of).await
}

pub(super) async fn zip(
    State(app): State<AppState>,
    visit: Visit,
    Path(token): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response, Problem> {
    let opened = visit.open_for(&app, &token, &[LinkKind::Download]).await?;
    let path = path_of_query(uri.query())?;
    let archive = app.content.public_archive(&opened.entry, &path).await?.watched(app.links.still_open(&opened));
    if method != Method::HEAD {
        let node = app.content.public_item(&opened.entry, &path).await?.node;
        visit.count(&app, &opened, node).await?;
    }
    archives::send(&app, archive).await
}
