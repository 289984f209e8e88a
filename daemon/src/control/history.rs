//! Versions of files over the control socket: the relay keeps them, this passes on what is asked with the device's login, and says what the disk holds.

use super::files::{body, query, query_bytes};
use crate::problem::{Outcome, Problem, exit};
use crate::relay::{Method, RelayClient, RelayError};
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use ferry_protocol::{ContentHash, NamespaceId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// Versions of one request to the relay, and most that one answer holds.
const PAGE: usize = 1000;
const VERSIONS_MAX: usize = 10_000;
/// What the relay compares at most, in bytes.
const TEXT_MAX_BYTES: u64 = 2 * 1024 * 1024;

/// A file of this device on the relay.
struct Found {
    namespace: NamespaceId,
    folder: String,
    file_id: String,
    name: String,
    /// Whether it lies in the trash.
    is_deleted: bool,
    /// How many more of this name lie there.
    deleted_besides: usize,
}

/// What a path of this device is on the relay; `deleted` asks for what was deleted there, although something stands there now.
async fn find(daemon: &Daemon, relay: &RelayClient, path: &Path, deleted: bool) -> Outcome<Found> {
    let (running, below) = daemon.folder_of_path(path)?;
    let shown = crate::config::shown(path);
    let config = running.record.config;
    let text = String::from_utf8(below.to_bytes()).map_err(|_| {
        Problem::usage(format!("the name of {shown} is not UTF-8, so the relay cannot be asked for it")).code("path_invalid")
    })?;
    if text.is_empty() {
        let problem = Problem::usage(format!("{shown} is a whole folder; versions are of files")).code("not_a_file");
        return Err(problem.hint("take a folder back to a time with: ferry folder rewind FOLDER --to TIME --dry-run"));
    }
    let asked = format!("/api/v1/files/by-path?space_id={}&path=/{}", config.id, crate::cli::client::encode(&text));
    let place = relay.json(Method::GET, &asked, None).await?;
    let trash = place["deleted"].as_array().map_or(0, Vec::len);
    let is_deleted = deleted || place["file"].is_null();
    let file = if is_deleted { &place["deleted"][0] } else { &place["file"] };
    let Some(file_id) = file["file_id"].as_str() else {
        let what = if deleted { "nothing of this name lies in the trash" } else { "the relay has nothing of this name" };
        return Err(Problem::not_found("not_on_relay", format!("{shown}: {what}"))
            .hint("wait until it is synced with ferry wait, or look with: ferry why PATH"));
    };
    if !is_deleted && file["kind"] != "file" {
        let problem = Problem::usage(format!("{shown} is no file; versions are of files")).code("not_a_file");
        return Err(problem.hint("take a folder back to a time with: ferry folder rewind FOLDER --to TIME --dry-run"));
    }
    Ok(Found {
        namespace: config.id,
        folder: config.name,
        file_id: id_of(file_id)?.to_owned(),
        name: file["file_name"].as_str().unwrap_or_default().to_owned(),
        is_deleted,
        deleted_besides: trash.saturating_sub(usize::from(is_deleted)),
    })
}

/// An id as a part of an address.
fn id_of(text: &str) -> Outcome<&str> {
    let is_id = !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_id
        .then_some(text)
        .ok_or_else(|| Problem::usage(format!("'{}' is no id of the relay", super::files::shown(text))).code("invalid_request"))
}

/// The newest versions of a file, at most `limit`, with the relay's words around them.
async fn versions_of(relay: &RelayClient, file_id: &str, limit: usize, with_cost: bool) -> Outcome<(Vec<Value>, Value)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = (limit - all.len()).min(PAGE);
        let path = format!("/api/v1/files/{file_id}/versions?cost={with_cost}&limit={page}{after}");
        let answer = relay.json(Method::GET, &path, None).await?;
        all.extend(answer["versions"].as_array().into_iter().flatten().cloned());
        match answer["cursor"].as_str() {
            Some(cursor) if all.len() < limit => after = format!("&cursor={}", crate::cli::client::encode(cursor)),
            _ => return Ok((all, answer)),
        }
    }
}

/// `GET /v1/relay/history?path=&limit=&deleted=`: an absolute path, percent-encoded. What versions cost is counted for who asks for some of them.
pub async fn history(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let path = query_bytes(&uri, "path")?.ok_or_else(|| Problem::usage("path is missing").code("invalid_request"))?;
    let path = PathBuf::from(OsString::from_vec(path));
    let asked: Option<usize> = query(&uri, "limit")?.and_then(|text| text.parse().ok());
    let limit = asked.unwrap_or(VERSIONS_MAX).clamp(1, VERSIONS_MAX);
    let deleted = query(&uri, "deleted")?.as_deref() == Some("true");
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &path, deleted).await?;
    let (versions, answer) = versions_of(&relay, &found.file_id, limit, asked.is_some()).await?;
    Ok(Json(json!({
        "type": "history", "path": crate::config::shown(&path), "folder": found.folder, "space_id": found.namespace, "file_id": found.file_id,
        "file_name": found.name, "is_deleted": found.is_deleted, "deleted_besides": found.deleted_besides, "versions": versions,
        "total": answer["total"], "has_more": answer["has_more"],
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compare {
    /// An absolute path of this device.
    #[serde(with = "crate::folder::path_text")]
    path: PathBuf,
    /// A version by number or id.
    from: Option<String>,
    /// Another; what the disk holds when nobody says.
    to: Option<String>,
}

/// `POST /v1/relay/diff` with `{"path", "from"?, "to"?}`
pub async fn diff(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let wish: Compare = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &wish.path, false).await?;
    let side = |name: &str, version: &str| format!("{name}={}", crate::cli::client::encode(version));
    let address = format!("/api/v1/files/{}/diff", found.file_id);
    let asked = match (&wish.from, &wish.to) {
        (Some(from), Some(to)) => relay.json(Method::GET, &format!("{address}?{}&{}", side("from", from), side("to", to)), None).await,
        (None, Some(to)) => relay.json(Method::GET, &format!("{address}?{}", side("to", to)), None).await,
        (from, None) => {
            let disk = on_disk(wish.path.clone()).await?;
            let (versions, _) = versions_of(&relay, &found.file_id, PAGE, false).await?;
            let hash = disk.hash.to_string();
            // What is synced is a version: the relay need not be told its text.
            match versions.iter().position(|version| version["file_hash"] == hash) {
                Some(at) => {
                    let older = versions[at..].iter().find(|version| version["file_hash"] != hash);
                    let from = from.clone().or_else(|| older.map(number_text));
                    let from = from.map(|from| format!("&{}", side("from", &from))).unwrap_or_default();
                    let to = number_text(&versions[at]);
                    let mut answer = relay.json(Method::GET, &format!("{address}?{}{from}", side("to", &to)), None).await;
                    if let Ok(answer) = &mut answer {
                        answer["to"]["is_on_disk"] = true.into();
                    }
                    answer
                }
                None => {
                    let mut request = json!({"text": text_of(&wish.path, disk.bytes)?});
                    if let Some(from) = from {
                        request["from"] = from.clone().into();
                    }
                    let mut answer = relay.json(Method::POST, &address, Some(&request)).await;
                    if let Ok(answer) = &mut answer {
                        answer["to"] = json!({"is_on_disk": true});
                    }
                    answer
                }
            }
        }
    };
    let mut answer = asked.map_err(compared)?;
    answer["type"] = "diff".into();
    answer["path"] = crate::config::shown(&wish.path).into();
    Ok(Json(answer))
}

fn number_text(version: &Value) -> String {
    version["version_number"].as_u64().unwrap_or(0).to_string()
}

/// That something is no text, or too much of it, is no conflict that waiting ends.
fn compared(error: RelayError) -> Problem {
    let mut problem = Problem::from(error);
    if matches!(problem.code.as_str(), "not_text" | "too_large_to_compare") {
        problem.exit_code = exit::FAILED;
        problem = problem.hint("save one beside the file and look at it: ferry restore PATH --version N --to COPY");
    }
    problem
}

/// What the disk holds at a path.
struct OnDisk {
    bytes: Vec<u8>,
    hash: ContentHash,
}

async fn on_disk(path: PathBuf) -> Outcome<OnDisk> {
    let read = move || {
        let shown = crate::config::shown(&path);
        let about = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Problem::not_found("not_on_disk", format!("{shown} is not on this device")).hint("name two versions: ferry diff PATH A B")
            }
            _ => Problem::from(std::io::Error::new(e.kind(), format!("{shown} cannot be read: {e}"))),
        };
        let facts = std::fs::symlink_metadata(&path).map_err(about)?;
        if !facts.is_file() {
            return Err(Problem::usage(format!("{shown} is no file on this device")).code("not_a_file"));
        }
        if facts.len() > TEXT_MAX_BYTES {
            return Err(Problem::failed(
                "too_large_to_compare",
                format!("{shown} is too large to be compared: at most {TEXT_MAX_BYTES} bytes are"),
            )
            .hint("save a version beside it and compare them with a program for such files: ferry restore PATH --version N --to COPY"));
        }
        let mut bytes = Vec::new();
        // It may grow while it is read.
        std::fs::File::open(&path).and_then(|file| file.take(TEXT_MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(about)?;
        Ok(OnDisk { hash: ContentHash::of(&bytes), bytes })
    };
    tokio::task::spawn_blocking(read).await.map_err(|e| Problem::failed("internal", e.to_string()))?
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Outcome<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(|| {
        let shown = crate::config::shown(path);
        Problem::failed("not_text", format!("{shown} is not text (UTF-8), so its lines cannot be compared"))
            .hint("save a version beside it and look at both: ferry restore PATH --version N --to COPY")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    file_id: String,
    space_id: String,
    /// The version; out of the trash as it was when nobody says.
    version_id: Option<String>,
}

/// `POST /v1/relay/versions/restore` with `{"file_id", "space_id", "version_id"?}`
pub async fn restore(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Restore { file_id, space_id, version_id } = body(&bytes)?;
    let (file_id, relay) = (id_of(&file_id)?, daemon.relay_client().await?);
    let answer = match &version_id {
        Some(version) => {
            relay.json(Method::POST, &format!("/api/v1/files/{file_id}/versions/{}/restore", id_of(version)?), Some(&json!({}))).await?
        }
        None => relay.json(Method::POST, "/api/v1/trash/restore", Some(&json!({"file_id": file_id, "space_id": space_id}))).await?,
    };
    Ok(Json(json!({"type": "version_restored", "file_id": file_id, "version_id": version_id, "file_path": answer["file_path"]})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    file_id: String,
    version_id: String,
    label: Option<String>,
}

/// `POST /v1/relay/versions/label` with `{"file_id", "version_id", "label"}`
pub async fn label(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Label { file_id, version_id, label } = body(&bytes)?;
    let path = format!("/api/v1/files/{}/versions/{}", id_of(&file_id)?, id_of(&version_id)?);
    let mut answer = daemon.relay_client().await?.json(Method::PATCH, &path, Some(&json!({ "label": label }))).await?;
    answer["type"] = "version_label".into();
    Ok(Json(answer))
}

/// `GET /v1/relay/versions/content?file_id=&version_id=`: the bytes of a version, as they come.
pub async fn content(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Result<Response, Problem> {
    let wanted = |name: &str| query(&uri, name)?.ok_or_else(|| Problem::usage(format!("{name} is missing")).code("invalid_request"));
    let (file, version) = (wanted("file_id")?, wanted("version_id")?);
    let path = format!("/download/{}?version={}", id_of(&file)?, id_of(&version)?);
    let stream = daemon.relay_client().await?.download(&path).await?;
    let pieces = futures_util::stream::try_unfold(stream, |mut stream| async move {
        Ok::<_, RelayError>(stream.next().await?.map(|piece| (piece, stream)))
    });
    Ok(Body::from_stream(pieces).into_response())
}
