//! The page of a public link: a folder's list, a file with its preview, a form for the password, a form for uploads.

use super::super::body::Form;
use super::super::download::is_shown;
use super::super::error::status_of;
use super::super::html::{Html, fill};
use super::super::language::{filled, message};
use super::super::login::{alert, problem_page, see_other};
use super::super::{AppState, Path, Problem};
use super::{Visit, cookie, encoded, encoded_path, path_of_query};
use crate::service::content::PublicItem;
use crate::service::links::{LinkKind, Opened, used_up};
use crate::service::{Kind, ServiceError, ServiceResult};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::{Name, RelPath};
use serde::Deserialize;
use std::ops::Range;

/// Only what this relay gives; no frames. Scripts are those of the page for uploads.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; base-uri 'none'; \
                   form-action 'self'; frame-ancestors 'none'";
/// So much of a text is shown, in bytes.
const TEXT_SHOWN: Range<u64> = 0..64 * 1024;
/// Entries of a folder that are listed on its page.
const LISTED_MAX: usize = 2000;

#[derive(Deserialize)]
pub(super) struct UnlockForm {
    password: String,
}

/// An answer, or an error as a page. Neither names a referrer nor is found by search engines (R43).
pub(super) struct SharePage(ServiceResult<Response>);

impl IntoResponse for SharePage {
    fn into_response(self) -> Response {
        let mut response = self.0.unwrap_or_else(problem_page);
        for (name, value) in [(header::REFERRER_POLICY, "no-referrer"), (HeaderName::from_static("x-robots-tag"), "noindex, nofollow")] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The parts of a page.
struct Parts {
    status: StatusCode,
    title: String,
    head: Html,
    path: Html,
    body: Html,
}

impl Parts {
    fn new(title: impl Into<String>, body: Html) -> Self {
        Self { status: StatusCode::OK, title: title.into(), head: Html::default(), path: Html::default(), body }
    }

    fn into_response(self) -> Response {
        let values =
            [("title", (&self.title).into()), ("head", (&self.head).into()), ("path", (&self.path).into()), ("body", (&self.body).into())];
        let page = fill(include_str!("../pages/share.html"), &values).into_text();
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, CSP),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (self.status, headers, page).into_response()
    }
}

pub(super) async fn look(State(app): State<AppState>, visit: Visit, path: Result<Path<String>, Problem>, uri: Uri) -> SharePage {
    SharePage(page(&app, &visit, path, &uri).await)
}

async fn page(app: &AppState, visit: &Visit, path: Result<Path<String>, Problem>, uri: &Uri) -> ServiceResult<Response> {
    let Path(token) = path.map_err(|p| p.0)?;
    let opened = match visit.open(app, &token).await {
        Ok(opened) => opened,
        Err(e) if e.code() == "password_required" => return Ok(locked(&token, None)),
        Err(e) => return Err(e),
    };
    if opened.is_used_up() {
        return Err(used_up());
    }
    let welcome = app.links.welcome(&opened.link, visit.pass.as_deref())?;
    let mut response = show(app, &opened, &token, &path_of_query(uri.query())?).await?.into_response();
    if let Some(pass) = welcome {
        response.headers_mut().append(header::SET_COOKIE, cookie(app, &token, &pass)?);
    }
    Ok(response)
}

pub(super) async fn unlock(
    State(app): State<AppState>,
    visit: Visit,
    path: Result<Path<String>, Problem>,
    body: Result<Form<UnlockForm>, Problem>,
) -> SharePage {
    SharePage(enter(&app, &visit, path, body).await)
}

async fn enter(
    app: &AppState,
    visit: &Visit,
    path: Result<Path<String>, Problem>,
    body: Result<Form<UnlockForm>, Problem>,
) -> ServiceResult<Response> {
    let Path(token) = path.map_err(|p| p.0)?;
    let Form(body) = body.map_err(|p| p.0)?;
    match app.links.unlock(&token, &body.password, visit.ip).await {
        Ok(pass) => {
            let mut response = see_other(&format!("/s/{token}"))?;
            response.headers_mut().append(header::SET_COOKIE, cookie(app, &token, &pass)?);
            Ok(response)
        }
        Err(e) if e.source_text().is_none() && matches!(e.kind(), Kind::Unauthenticated | Kind::TooMany) => {
            let mut response = locked(&token, Some(&e));
            if let Some(seconds) = e.retry_after_s() {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(response)
        }
        Err(e) => Err(e),
    }
}

/// Nothing of what the link opens is on this page, not even its name.
fn locked(token: &str, error: Option<&ServiceError>) -> Response {
    let alert = alert(error);
    let body = fill(include_str!("../pages/share_locked.html"), &[("alert", (&alert).into()), ("token", token.into())]);
    let status = error.map_or(StatusCode::UNAUTHORIZED, |e| status_of(e.kind()));
    Parts { status, ..Parts::new(message("share.title"), body) }.into_response()
}

async fn show(app: &AppState, opened: &Opened, token: &str, path: &RelPath) -> ServiceResult<Parts> {
    if opened.link.kind == LinkKind::Upload {
        let root = app.content.public_item(&opened.entry, &RelPath::root()).await?;
        let body = fill(include_str!("../pages/share_upload.html"), &[("token", token.into())]);
        let head = fill(include_str!("../pages/share_script.html"), &[]);
        return Ok(Parts { head, ..Parts::new(filled("share.filesFor", &[("name", &text_of(&root.name))]), body) });
    }
    let item = app.content.public_item(&opened.entry, path).await?;
    let body = if item.is_directory { folder(app, opened, token, path).await? } else { file(app, opened, token, path, &item).await? };
    let head = if opened.link.password_hash.is_none() { preview_tags(app, opened, token, path, &item) } else { Html::default() };
    let crumbs = crumbs(app, opened, token, path).await?;
    Ok(Parts { head, path: crumbs, ..Parts::new(text_of(&item.name), body) })
}

/// What a messenger shows of an address: only of a link that anybody may open who has it.
fn preview_tags(app: &AppState, opened: &Opened, token: &str, path: &RelPath, item: &PublicItem) -> Html {
    let about = if item.is_directory { message("share.folder").to_owned() } else { size_text(item.size_bytes) };
    let mut tags = vec![
        ("og:site_name", "Ferry".to_owned()),
        ("og:type", "website".to_owned()),
        ("og:title", text_of(&item.name)),
        ("og:description", about),
        ("og:url", format!("{}/s/{token}", app.base_url)),
    ];
    if item.media_type.starts_with("image/") && is_shown(item.media_type) && opened.link.max_downloads.is_none() {
        tags.push(("og:image", format!("{}{}?inline=1", app.base_url, raw_address(token, path, item))));
    }
    let tag = |(property, content): (&str, String)| {
        fill(include_str!("../pages/share_meta.html"), &[("property", property.into()), ("content", (&content).into())])
    };
    Html::concat(tags.into_iter().map(tag))
}

async fn crumbs(app: &AppState, opened: &Opened, token: &str, path: &RelPath) -> ServiceResult<Html> {
    if path.is_root() {
        return Ok(Html::default());
    }
    let root = app.content.public_item(&opened.entry, &RelPath::root()).await?;
    if !root.is_directory {
        return Ok(Html::default());
    }
    let crumb =
        |to: String, name: String| fill(include_str!("../pages/share_crumb.html"), &[("to", (&to).into()), ("name", (&name).into())]);
    let mut list = vec![crumb(format!("/s/{token}"), text_of(&root.name))];
    let names = path.names();
    for depth in 1..names.len() {
        let above = RelPath::from_names(names[..depth].to_vec());
        list.push(crumb(format!("/s/{token}?path={}", encoded_path(&above)), text_of(names[depth - 1].as_bytes())));
    }
    let list = Html::concat(list);
    Ok(fill(include_str!("../pages/share_crumbs.html"), &[("crumbs", (&list).into())]))
}

async fn folder(app: &AppState, opened: &Opened, token: &str, path: &RelPath) -> ServiceResult<Html> {
    let items = app.content.public_list(&opened.entry, path).await?;
    if items.is_empty() {
        return Ok(fill(include_str!("../pages/share_empty.html"), &[]));
    }
    let before = if path.is_root() { String::new() } else { format!("{}/", encoded_path(path)) };
    let row = |item: &PublicItem| {
        let to = format!("/s/{token}?path={before}{}", encoded(&item.name));
        let name = text_of(&item.name);
        let (kind, label, size) = if item.is_directory {
            ("folder", message("share.folder"), String::new())
        } else {
            ("file", message("share.file"), size_text(item.size_bytes))
        };
        let values =
            [("to", (&to).into()), ("kind", kind.into()), ("label", label.into()), ("name", (&name).into()), ("size", (&size).into())];
        fill(include_str!("../pages/share_row.html"), &values)
    };
    let rows = Html::concat(items.iter().take(LISTED_MAX).map(row));
    let download = match opened.link.kind {
        LinkKind::Download => button(&format!("/s/{token}/zip?path={}", encoded_path(path)), message("share.zip")),
        LinkKind::View | LinkKind::Upload => Html::default(),
    };
    let list = fill(include_str!("../pages/share_folder.html"), &[("download", (&download).into()), ("rows", (&rows).into())]);
    if items.len() <= LISTED_MAX {
        return Ok(list);
    }
    Ok(Html::concat([list, aside(&filled("share.listed", &[("shown", &LISTED_MAX.to_string()), ("count", &items.len().to_string())]))]))
}

async fn file(app: &AppState, opened: &Opened, token: &str, path: &RelPath, item: &PublicItem) -> ServiceResult<Html> {
    let raw = raw_address(token, path, item);
    let shown = is_shown(item.media_type);
    let mut parts = vec![aside(&size_text(item.size_bytes))];
    // Each look takes one of a limited link's downloads, so there is none that nobody asked for.
    if shown && opened.link.max_downloads.is_none() {
        parts.push(preview(app, opened, path, item, &format!("{raw}?inline=1")).await?);
    }
    match opened.link.kind {
        LinkKind::Download => parts.push(button(&raw, message("share.download"))),
        LinkKind::View if shown && opened.link.max_downloads.is_some() => parts.push(button(&raw, message("share.show"))),
        LinkKind::View if !shown => parts.push(aside(message("share.notShown"))),
        LinkKind::View | LinkKind::Upload => {}
    }
    Ok(Html::concat(parts))
}

async fn preview(app: &AppState, opened: &Opened, path: &RelPath, item: &PublicItem, src: &str) -> ServiceResult<Html> {
    let name = text_of(&item.name);
    let template = match item.media_type.split('/').next() {
        Some("image") => include_str!("../pages/share_image.html"),
        Some("video") => include_str!("../pages/share_video.html"),
        Some("audio") => include_str!("../pages/share_audio.html"),
        _ => return text_preview(app, opened, path, &name).await,
    };
    Ok(fill(template, &[("src", src.into()), ("name", (&name).into())]))
}

async fn text_preview(app: &AppState, opened: &Opened, path: &RelPath, name: &str) -> ServiceResult<Html> {
    let (_, download) = app.content.public_download(&opened.entry, path).await?;
    let end = TEXT_SHOWN.end.min(download.size_bytes);
    let mut bytes = Vec::new();
    if end > 0 {
        let mut stream = app.content.read_file(&download, TEXT_SHOWN.start..end).await?;
        while let Some(part) = stream.recv().await {
            bytes.extend_from_slice(&part?);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let more = if end < download.size_bytes { aside(message("share.beginning")) } else { Html::default() };
    let values = [("name", name.into()), ("text", (&*text).into()), ("more", (&more).into())];
    Ok(fill(include_str!("../pages/share_text.html"), &values))
}

/// Where the bytes of a file are: by its path below the link's folder, or its name for a link to a file.
fn raw_address(token: &str, path: &RelPath, item: &PublicItem) -> String {
    let path = if path.is_root() {
        Name::new(&item.name).map_or_else(|_| RelPath::root(), |name| RelPath::root().join(&name))
    } else {
        path.clone()
    };
    format!("/s/{token}/raw/{}", encoded_path(&path))
}

fn button(to: &str, label: &str) -> Html {
    fill(include_str!("../pages/share_button.html"), &[("to", to.into()), ("label", label.into())])
}

fn aside(text: &str) -> Html {
    fill(include_str!("../pages/share_aside.html"), &[("text", text.into())])
}

fn text_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A size for people.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} {}", message("bytes"));
    }
    let (mut value, mut unit) = (bytes as f64 / 1000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit]).replace('.', message("decimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in
            [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_999, "1.0 MB"), (5_300_000_000, "5.3 GB")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }
}
