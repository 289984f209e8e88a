//! Public links for those who make them (8002): list, make, change, revoke. What visitors see is in [`super::share`].

use super::plain::{bytes_of, namespace_of, node_of, parse_time_ns, path_text, uuid};
use super::{Access, AppState, Json, Path, Problem, Query, Route, Routes, time_text};
use crate::service::content::parse_path;
use crate::service::links::{LinkKind, LinkState, LinkUpdate, LinkView, NewLink, Target};
use crate::service::{Caller, ServiceError, ServiceResult};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use qrcode::{Color, QrCode};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt::Write;
use utoipa::ToSchema;

const BODY_MAX_BYTES: usize = 16 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::User;
    Routes::new(app)
        .add(
            Route::get("/api/v1/links", User, "The caller's public links, and all those into the caller's namespaces").gives::<LinksDoc>(),
            list,
        )
        .add(
            Route::post("/api/v1/links", User, "Make a public link to a file or folder")
                .body_max(BODY_MAX_BYTES)
                .takes::<LinkBody>()
                .gives::<OneLinkDoc>(),
            create,
        )
        .add(
            Route::patch("/api/v1/links/{link_id}", User, "Change a public link: what is not named stays, null removes")
                .body_max(BODY_MAX_BYTES)
                .takes::<LinkPatch>()
                .gives::<OneLinkDoc>(),
            change,
        )
        .add(Route::get("/api/v1/links/{link_id}/qr", User, "The address of a public link as a QR code (SVG)"), qr)
        .add(Route::delete("/api/v1/links/{link_id}", User, "Revoke a public link"), revoke)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    /// The file or folder.
    file_id: Option<String>,
    /// Instead of `file_id`: where it stands; `/` is the whole namespace.
    path: Option<String>,
    /// The namespace of `path`; without it the caller's home. With `file_id` the one in which the file is meant.
    space_id: Option<String>,
    /// `download` if nothing is said.
    #[schema(value_type = Option<LinkKind>)]
    kind: Option<LinkKind>,
    password: Option<String>,
    /// RFC 3339, or seconds since 1970.
    expires_at: Option<String>,
    /// Instead of `expires_at`: in so many seconds.
    expires_in: Option<u64>,
    max_downloads: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinkPatch {
    /// `view` or `download`; a link for uploads stays one.
    #[schema(value_type = Option<LinkKind>)]
    kind: Option<LinkKind>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    password: Option<Option<String>>,
    /// RFC 3339, or seconds since 1970.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
    /// Instead of `expires_at`: in so many seconds.
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>)]
    max_downloads: Option<Option<u64>>,
}

/// A member that is there, even if it is null.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

#[derive(Serialize, ToSchema)]
struct LinkDoc {
    link_id: String,
    /// The address; null when the relay cannot read its secret any more.
    url: Option<String>,
    state: LinkState,
    kind: LinkKind,
    space_id: String,
    file_id: String,
    /// Where what it opens is now; null when it is gone.
    path: Option<String>,
    is_directory: Option<bool>,
    has_password: bool,
    expires_at: Option<String>,
    max_downloads: Option<u64>,
    downloads: u64,
    created_at: String,
    /// Whether the caller made it.
    own: bool,
}

#[derive(Serialize, ToSchema)]
struct LinksDoc {
    links: Vec<LinkDoc>,
}

#[derive(Serialize, ToSchema)]
struct OneLinkDoc {
    link: LinkDoc,
}

fn document(app: &AppState, caller: &Caller, view: LinkView) -> LinkDoc {
    let link = view.link;
    LinkDoc {
        link_id: uuid(&link.link_id),
        url: view.token.map(|token| format!("{}/s/{token}", app.base_url)),
        state: view.state,
        kind: link.kind,
        space_id: uuid(link.namespace.as_bytes()),
        file_id: uuid(link.node.as_bytes()),
        path: view.path.as_ref().map(path_text),
        is_directory: view.item.map(|item| item.is_directory),
        has_password: link.password_hash.is_some(),
        expires_at: link.expires_at_ms.map(time_text),
        max_downloads: link.max_downloads,
        downloads: link.downloads,
        created_at: time_text(link.created_at_ms),
        own: link.maker == caller.user_id,
    }
}

#[derive(Deserialize)]
struct Which {
    /// Only those to this file or folder.
    file_id: Option<String>,
    /// Only those into this namespace.
    space_id: Option<String>,
}

async fn list(State(app): State<AppState>, caller: Caller, Query(which): Query<Which>) -> Result<Json<LinksDoc>, Problem> {
    let only = which.file_id.as_deref().map(node_of).transpose()?;
    let space = which.space_id.as_deref().map(namespace_of).transpose()?;
    let mut links = app.links.list(&caller).await?;
    links.retain(|view| only.is_none_or(|node| view.link.node == node) && space.is_none_or(|space| view.link.namespace == space));
    Ok(Json(LinksDoc { links: links.into_iter().map(|view| document(&app, &caller, view)).collect() }))
}

async fn create(
    State(app): State<AppState>,
    caller: Caller,
    Json(body): Json<LinkBody>,
) -> Result<(StatusCode, Json<OneLinkDoc>), Problem> {
    let target = match (&body.file_id, &body.path) {
        (Some(id), None) => Target::Node(node_of(id)?),
        (None, Some(path)) => Target::Path(parse_path(path)?),
        _ => return Err(ServiceError::invalid("invalid_body", "Name the file or folder with either 'file_id' or 'path'.").into()),
    };
    let new = NewLink {
        namespace: body.space_id.as_deref().map(namespace_of).transpose()?,
        target,
        kind: body.kind.unwrap_or(LinkKind::Download),
        password: body.password,
        expires_at_ms: ends(&app, body.expires_at.as_deref(), body.expires_in)?,
        max_downloads: body.max_downloads,
    };
    let view = app.links.create(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(OneLinkDoc { link: document(&app, &caller, view) })))
}

fn ends(app: &AppState, at: Option<&str>, within_s: Option<u64>) -> ServiceResult<Option<i64>> {
    match (at, within_s) {
        (Some(_), Some(_)) => Err(ServiceError::invalid("invalid_expiry", "Say either 'expires_at' or 'expires_in'.")),
        (Some(at), None) => {
            let ns = parse_time_ns(at);
            let ns = ns.ok_or_else(|| ServiceError::invalid("invalid_expiry", "'expires_at' is RFC 3339 or seconds since 1970."))?;
            Ok(Some(ns.div_euclid(1_000_000)))
        }
        (None, Some(seconds)) => {
            let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
            Ok(Some(app.clock.now_ms().saturating_add(ms)))
        }
        (None, None) => Ok(None),
    }
}

async fn change(
    State(app): State<AppState>,
    caller: Caller,
    Path(link_id): Path<String>,
    Json(body): Json<LinkPatch>,
) -> Result<Json<OneLinkDoc>, Problem> {
    let expires_at_ms = match body.expires_at {
        Some(None) if body.expires_in.is_none() => Some(None),
        at => ends(&app, at.flatten().as_deref(), body.expires_in)?.map(Some),
    };
    let update = LinkUpdate { kind: body.kind, password: body.password, expires_at_ms, max_downloads: body.max_downloads };
    let view = app.links.change(&caller, bytes_of(&link_id)?, update).await?;
    Ok(Json(OneLinkDoc { link: document(&app, &caller, view) }))
}

async fn revoke(State(app): State<AppState>, caller: Caller, Path(link_id): Path<String>) -> Result<StatusCode, Problem> {
    app.links.revoke(&caller, bytes_of(&link_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn qr(State(app): State<AppState>, caller: Caller, Path(link_id): Path<String>) -> Result<Response, Problem> {
    let view = app.links.get(&caller, bytes_of(&link_id)?).await?;
    let token = view.token.ok_or_else(ServiceError::not_found)?;
    let image = drawn(&format!("{}/s/{token}", app.base_url)).map_err(ServiceError::internal)?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "private, no-store")], image).into_response())
}

/// Quiet modules around the code.
const QUIET: usize = 4;

/// A QR code as a picture: one path of unit squares.
fn drawn(text: &str) -> Result<String, qrcode::types::QrError> {
    let code = QrCode::new(text.as_bytes())?;
    let (width, size) = (code.width(), code.width() + 2 * QUIET);
    let mut path = String::new();
    for (at, _) in code.to_colors().iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
        // A String takes everything.
        let _ = write!(path, "M{} {}h1v1h-1z", at % width + QUIET, at / width + QUIET);
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/><path d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_as_squares() {
        let image = drawn("https://files.example.org/s/AZaz09-_AZaz09-_AZaz09-_").unwrap();
        assert!(image.starts_with("<svg ") && image.ends_with("</svg>"));
        // The corner of the first finder pattern, behind the quiet zone.
        assert!(image.contains("M4 4h1v1h-1z") && !image.contains("M3 4h1"));
    }
}
