//! Download (8004): whole files, ranges, older versions, signed addresses. As an attachment, unless it is of a type that a browser shows and never runs:
//! what it might run is never shown under the relay's own origin (R47).

use super::chunks::body_of;
use super::plain::{InFolder, bytes_of, namespace_of, node_of, time};
use super::{Access, AppState, Json, Path, Problem, Query, RawBody, Route, Routes};
use crate::service::content::{Download, Entry};
use crate::service::{Caller, Kind, Scope, ServiceError};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::wire::Role;
use ferry_protocol::{ContentHash, NodeId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::Range;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(
            Route::get("/download/{file_id}", Access::User, "A file, a part of it, or an older version")
                .scope(Scope::FilesRead)
                .in_folder()
                .no_timeout(),
            file,
        )
        .add(Route::post("/download/{file_id}/url", Access::User, "A signed address that expires").in_folder(), sign)
        .add(Route::get("/d/{token}", Access::Signed, "A file by its signed address").no_timeout(), signed)
}

#[derive(Deserialize)]
struct Which {
    version: Option<String>,
    space_id: Option<String>,
    /// Whether a browser is to show it, not to save it. Heeded for documents that it shows in a viewer of its own.
    inline: Option<String>,
}

async fn file(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(which): Query<Which>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = node_of(&file_id)?;
    let space = which.space_id.as_deref().map(namespace_of).transpose()?;
    let entry = app.content.enter_file(&caller, file, space, Role::Viewer).await?;
    let download = app.content.download(&entry, file, which.version.as_deref()).await?.watched(app.content.still_reads(&entry));
    if which.inline.is_some() && has_viewer(download.media_type) {
        return in_viewer(answer(&app, &download, &method, &headers, true, etag_of).await?);
    }
    answer(&app, &download, &method, &headers, false, etag_of).await
}

/// An answer that a browser's own viewer shows inside a page of ours, and of nobody else. The viewer is no part of this origin: what a document holds runs
/// there if it runs at all. A sandbox would forbid the viewer itself.
fn in_viewer(mut response: Response) -> Result<Response, Problem> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(VIEWER_CSP));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    Ok(response)
}

async fn signed(State(app): State<AppState>, Path(token): Path<String>, method: Method, headers: HeaderMap) -> Result<Response, Problem> {
    let (entry, file, version) = app.content.open_link(&token).await?;
    serve(&app, &entry, file, version.map(hex::encode).as_deref(), &method, &headers, etag_of).await
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Sign {
    expires_in: Option<u64>,
    version: Option<String>,
}

async fn sign(
    State(app): State<AppState>,
    caller: Caller,
    Path(file_id): Path<String>,
    Query(folder): Query<InFolder>,
    RawBody(body): RawBody,
) -> Result<Json<Value>, Problem> {
    let wish: Sign = if body.is_empty() {
        Sign::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| ServiceError::malformed(format!("The body is not what this route takes: {e}.")))?
    };
    let file = node_of(&file_id)?;
    let entry = app.content.enter_file(&caller, file, folder.namespace()?, Role::Viewer).await?;
    let version = wish.version.as_deref().map(bytes_of).transpose()?;
    // Signed only for what can be downloaded now.
    app.content.download(&entry, file, version.map(hex::encode).as_deref()).await?;
    let (token, expires_at_ms) = app.content.sign_link(&entry, file, version, wish.expires_in)?;
    Ok(Json(json!({"url": format!("{}/d/{token}", app.base_url), "expires_at": time(expires_at_ms)})))
}

/// The ETag of the plain API: the content's hash.
pub(super) fn etag_of(hash: &ContentHash) -> String {
    format!("\"{hash}\"")
}

/// Answers with a file, or a part of it, under the ETag that this protocol gives it.
pub(super) async fn serve(
    app: &AppState,
    entry: &Entry,
    file: NodeId,
    version: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
    etag_of: fn(&ContentHash) -> String,
) -> Result<Response, Problem> {
    let download = app.content.download(entry, file, version).await?.watched(app.content.still_reads(entry));
    answer(app, &download, method, headers, false, etag_of).await
}

/// A file, or the part of it that the headers ask for. `inline` is for what a browser shows and never runs ([`is_shown`]).
pub(super) async fn answer(
    app: &AppState,
    download: &Download,
    method: &Method,
    headers: &HeaderMap,
    inline: bool,
    etag_of: fn(&ContentHash) -> String,
) -> Result<Response, Problem> {
    let etag = etag_of(&download.hash);
    if has_etag(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, common(download, &etag, inline)?).into_response());
    }
    let range = match wanted(headers, &etag, download.size_bytes) {
        Wanted::Whole => None,
        Wanted::Part(range) => Some(range),
        Wanted::Beyond => {
            let error = ServiceError::new(Kind::RangeNotSatisfiable, "range", format!("The file has {} bytes.", download.size_bytes));
            let mut response = Problem(error).into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{}", download.size_bytes))?);
            return Ok(response);
        }
    };
    let bytes = range.clone().unwrap_or(0..download.size_bytes);
    let mut out = common(download, &etag, inline)?;
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    let status = match range {
        None => StatusCode::OK,
        Some(_) => {
            out.insert(header::CONTENT_RANGE, text(format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, download.size_bytes))?);
            StatusCode::PARTIAL_CONTENT
        }
    };
    let body = if method == Method::HEAD || bytes.is_empty() {
        Body::empty()
    } else {
        body_of(app.content.read_file(download, bytes).await?, false)
    };
    Ok((status, out, body).into_response())
}

fn common(download: &Download, etag: &str, inline: bool) -> Result<HeaderMap, Problem> {
    let mut out = common_headers();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(download.media_type));
    out.insert(header::ETAG, text(etag.to_owned())?);
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    out.insert(header::CONTENT_DISPOSITION, text(disposition(download.name.as_bytes(), inline))?);
    Ok(out)
}

/// What goes with whatever somebody stored: it is of the type that we say, and it runs nothing (R47).
pub(super) fn common_headers() -> HeaderMap {
    let mut out = HeaderMap::new();
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    out
}

/// Whether the caller has what this ETag names.
pub(super) fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    lists(headers, header::IF_NONE_MATCH, etag)
}

pub(super) fn text(value: String) -> Result<HeaderValue, Problem> {
    Ok(HeaderValue::try_from(value).map_err(ServiceError::internal)?)
}

/// The policy of a document in the browser's viewer.
const VIEWER_CSP: &str =
    "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Whether browsers have a viewer for this type, apart from the page that shows it.
fn has_viewer(media_type: &str) -> bool {
    media_type == "application/pdf"
}

/// Whether a browser shows files of this type by itself and runs nothing of them.
pub(super) fn is_shown(media_type: &str) -> bool {
    let is_plain_picture = ["image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"].contains(&media_type);
    is_plain_picture || media_type.starts_with("audio/") || media_type.starts_with("video/") || media_type == "text/plain; charset=utf-8"
}

/// `attachment` with the name twice (RFC 6266): plain ASCII for old readers, and percent-encoded UTF-8 without what could fool a reader.
pub(super) fn disposition(name: &[u8], inline: bool) -> String {
    let name = String::from_utf8_lossy(name);
    let is_bidi = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let clean: String = name.chars().map(|c| if c.is_control() || is_bidi(c) { '_' } else { c }).collect();
    let ascii: String = clean.chars().map(|c| if c.is_ascii() && !matches!(c, '"' | '\\' | '%') { c } else { '_' }).collect();
    let mut encoded = String::new();
    for byte in clean.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let how = if inline { "inline" } else { "attachment" };
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

fn lists(headers: &HeaderMap, name: header::HeaderName, etag: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|one| one.trim().trim_start_matches("W/") == etag || one.trim() == "*")
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Beyond,
}

/// Which bytes the caller wants. Several ranges, other units and ranges of another version (`If-Range`) mean the whole file.
fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let Some(spec) = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if headers.get(header::IF_RANGE).is_some_and(|v| v.as_bytes() != etag.as_bytes()) || spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((from, to)) = spec.split_once('-') else { return Wanted::Whole };
    match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => part(from, to.saturating_add(1), size),
        (Ok(from), Err(_)) if to.trim().is_empty() => part(from, size, size),
        (Err(_), Ok(last)) if from.trim().is_empty() => match last {
            0 => Wanted::Beyond,
            last => part(size.saturating_sub(last), size, size),
        },
        _ => Wanted::Whole,
    }
}

fn part(from: u64, to: u64, size: u64) -> Wanted {
    if from >= size { Wanted::Beyond } else { Wanted::Part(from..to.min(size)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let with = |range: &str| wanted(&HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]), "\"e\"", 10);
        assert_eq!(with("bytes=0-3"), Wanted::Part(0..4));
        assert_eq!(with("bytes=8-99"), Wanted::Part(8..10));
        assert_eq!(with("bytes=4-"), Wanted::Part(4..10));
        assert_eq!(with("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(with("bytes=-99"), Wanted::Part(0..10));
        for beyond in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert_eq!(with(beyond), Wanted::Beyond, "{beyond}");
        }
        for whole in ["bytes=3-1", "lines=1-2", "bytes=a-b", "bytes=0-1,3-4", "bytes=", "bytes=99999999999999999999-"] {
            assert_eq!(with(whole), Wanted::Whole, "{whole}");
        }
        let mut headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-3".parse().unwrap())]);
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"e\"", 10), Wanted::Whole);
        headers.insert(header::IF_RANGE, "\"e\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"e\"", 10), Wanted::Part(0..4));
        headers.insert(header::RANGE, "bytes=0-".parse().unwrap());
        assert_eq!(wanted(&headers, "\"e\"", 0), Wanted::Beyond);
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        let odd = disposition("a\"b\\c\r\nX: y;é\u{202e}gpj.exe".as_bytes(), false);
        assert_eq!(odd, "attachment; filename=\"a_b_c__X: y;__gpj.exe\"; filename*=UTF-8''a%22b%5Cc__X%3A%20y%3B%C3%A9_gpj.exe");
        assert!(HeaderValue::try_from(disposition(b"\xff\xfe", true)).is_ok());
    }

    const ODD: [&[u8]; 13] = [
        b"\r\n",
        b"\"",
        b"\\",
        b"\0",
        b"; filename*=",
        b"\"; filename=\"",
        b"%22",
        b"'",
        b"\xff",
        b"\xc3\xa9",
        b"\xe2\x80\xae",
        b"a",
        b" ",
    ];

    proptest::proptest! {
        /// Whatever the bytes, the header has its one shape, and the second name is the first one's full form.
        #[test]
        fn every_name_makes_the_same_header(parts in proptest::collection::vec(proptest::sample::select(&ODD[..]), 0..12)) {
            let value = disposition(&parts.concat(), false);
            HeaderValue::try_from(value.clone()).unwrap();
            let rest = value.strip_prefix("attachment; filename=\"").unwrap();
            let (plain, encoded) = rest.split_once("\"; filename*=UTF-8''").unwrap();
            assert!(plain.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\' && b != b'%'), "{value}");
            assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~%-".contains(&b)), "{value}");
        }
    }
}
