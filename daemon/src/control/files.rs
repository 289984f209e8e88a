//! Single items over the control socket: why, issues, conflicts, transfers, trash. And the reading of bodies and queries.

use crate::folder::{CommandError, FolderCommand, FolderState, FolderStopped, Keep, RelayState, Reply, WhyReport};
use crate::problem::{Outcome, Problem};
use crate::supervisor::{Daemon, Running};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

type Answer = Result<Json<Value>, Problem>;

/// How long a folder may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Reads a JSON body; an empty one is an empty object.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Outcome<T> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|e| Problem::usage(format!("the request's body is wrong: {e}")).code("invalid_request"))
}

/// One parameter of a query, as text.
pub fn query(uri: &Uri, name: &str) -> Outcome<Option<String>> {
    let bytes = query_bytes(uri, name)?;
    bytes.map(String::from_utf8).transpose().map_err(|_| Problem::usage(format!("{name} must be UTF-8")))
}

/// One parameter of a query, as bytes: paths need not be UTF-8.
pub fn query_bytes(uri: &Uri, name: &str) -> Outcome<Option<Vec<u8>>> {
    for pair in uri.query().unwrap_or_default().split('&') {
        if let Some(value) = pair.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return percent_decode(value).map(Some);
        }
    }
    Ok(None)
}

fn percent_decode(text: &str) -> Outcome<Vec<u8>> {
    let wrong = || Problem::usage("a '%' in the query is not followed by two hexadecimal digits").code("invalid_request");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().ok_or_else(wrong)?, bytes.next().ok_or_else(wrong)?];
            let mut decoded = [0];
            hex::decode_to_slice(digits, &mut decoded).map_err(|_| wrong())?;
            out.push(decoded[0]);
        } else {
            out.push(byte);
        }
    }
    Ok(out)
}

/// Puts a question to a folder and waits for the answer.
pub async fn ask<T>(running: &Running, question: impl FnOnce(Reply<T>) -> FolderCommand) -> Outcome<T> {
    let (reply, answer) = oneshot::channel::<Result<T, CommandError>>();
    running.handle.command(question(reply)).await?;
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) => Ok(answer?),
        Ok(Err(_)) => Err(FolderStopped.into()),
        Err(_) => Err(Problem::temporary("folder_busy", format!("the folder '{}' did not answer in time", running.record.config.name))
            .hint("try again")),
    }
}

/// The folders that a query's `folder` chooses; all without it.
fn chosen(daemon: &Daemon, uri: &Uri) -> Outcome<Vec<Running>> {
    Ok(match query(uri, "folder")? {
        Some(selector) => vec![daemon.find(&selector)?],
        None => daemon.folders(),
    })
}

/// Marks items with their folder.
fn marked<T: serde::Serialize>(running: &Running, items: &[T], out: &mut Vec<Value>) {
    let config = &running.record.config;
    for item in items {
        let mut item = serde_json::to_value(item).unwrap_or_default();
        item["folder"] = config.name.clone().into();
        item["folder_id"] = config.id.to_string().into();
        item["root"] = crate::config::shown(&config.path).into();
        out.push(item);
    }
}

/// `GET /v1/status/path?path=`: an absolute path, percent-encoded.
pub async fn why(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let path = query_bytes(&uri, "path")?.ok_or_else(|| Problem::usage("path is missing").code("invalid_request"))?;
    let path = PathBuf::from(OsString::from_vec(path));
    let (running, below) = daemon.folder_of_path(&path)?;
    let mut report = ask(&running, |reply| FolderCommand::Why { path: below, reply }).await?;
    explain(&daemon, &running, &mut report, path.is_dir()).await?;
    if let Some(reason) = daemon.refusal(running.record.config.id) {
        // Whatever was true of it while it was synced.
        (report.state, report.sentence) = ("not_shared", reason);
    }
    let mut out = Vec::new();
    marked(&running, &[report], &mut out);
    let mut report = out.remove(0);
    report["type"] = "why".into();
    report["absolute"] = crate::config::shown(&path).into();
    report["relay"] = json!({"state": daemon.relay.borrow().state});
    Ok(Json(report))
}

/// Completes a report that has no sentence yet by what holds for the whole folder: its ignore rules and its state.
async fn explain(daemon: &Daemon, running: &Running, report: &mut WhyReport, is_dir: bool) -> Outcome<()> {
    if !report.sentence.is_empty() {
        return Ok(());
    }
    let path = report.path.clone();
    let verdict = ask(running, |reply| FolderCommand::IgnoreCheck { paths: vec![(path, is_dir)], reply }).await?.pop();
    let folder = daemon.folder_status(running);
    let (state, sentence) = match verdict.filter(|v| v.ignored).map(|v| v.rule) {
        Some(rule) => {
            report.rule = rule;
            ("ignored", "ignored: a rule leaves it out, so it stays on this device only".to_owned())
        }
        None if report.local.is_none() && report.remote.is_none() && report.synced.is_none() => {
            ("unknown", "nothing of this name stands here".to_owned())
        }
        None => match (folder.state, folder.relay.state) {
            (FolderState::UpToDate, RelayState::Connected) => ("synced", "up to date here and on the relay".into()),
            (FolderState::UpToDate, _) => ("synced", "taken up here; the relay is not connected".into()),
            (FolderState::Paused, _) => ("paused", "the folder is paused".into()),
            (FolderState::Held, _) => ("held", "the folder waits until its deletes are approved or rejected".into()),
            (FolderState::Scanning, _) => ("scanning", "the folder is being scanned".into()),
            (FolderState::Syncing | FolderState::Error, _) => {
                (report.state, folder.state_reason.unwrap_or_else(|| "the folder is syncing; it may be among what waits".into()))
            }
        },
    };
    report.state = state;
    report.sentence = sentence;
    Ok(())
}

/// `GET /v1/transfers`
pub async fn transfers(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let mut out = Vec::new();
    for running in chosen(&daemon, &uri)? {
        marked(&running, &ask(&running, |reply| FolderCommand::Transfers { reply }).await?, &mut out);
    }
    Ok(Json(json!({"type": "transfers", "transfers": out})))
}

/// `GET /v1/issues`
pub async fn issues(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let mut out = Vec::new();
    for running in chosen(&daemon, &uri)? {
        marked(&running, &running.handle.status().issues, &mut out);
    }
    Ok(Json(json!({"type": "issues", "issues": out})))
}

/// `GET /v1/conflicts`
pub async fn conflicts(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let mut out = Vec::new();
    for running in chosen(&daemon, &uri)? {
        marked(&running, &ask(&running, |reply| FolderCommand::Conflicts { reply }).await?, &mut out);
    }
    Ok(Json(json!({"type": "conflicts", "conflicts": out})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    keep: Keep,
}

/// `POST /v1/conflicts/{id}/resolve` with `{"keep": "local" | "remote" | "current" | "copy" | "both"}`
pub async fn resolve(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let Resolve { keep } = body(&bytes)?;
    for running in daemon.folders() {
        let items = ask(&running, |reply| FolderCommand::Conflicts { reply }).await?;
        if items.iter().any(|item| item.id == id) {
            ask(&running, |reply| FolderCommand::ResolveConflict { id: id.clone(), keep, reply }).await?;
            return Ok(Json(json!({"type": "resolved", "id": id, "keep": keep})));
        }
    }
    Err(Problem::not_found("conflict_not_found", format!("there is no conflict '{}'", shown(&id)))
        .hint("list them with: ferry conflict list"))
}

/// `GET /v1/trash`
pub async fn trash(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let mut out = Vec::new();
    for running in chosen(&daemon, &uri)? {
        marked(&running, &ask(&running, |reply| FolderCommand::TrashList { reply }).await?, &mut out);
    }
    Ok(Json(json!({"type": "trash", "items": out})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    ids: Vec<String>,
    #[serde(default)]
    folder: Option<String>,
}

/// `POST /v1/trash/restore` with `{"ids": [...]}`
pub async fn restore(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Restore { ids, folder } = body(&bytes)?;
    let mut restored = Vec::new();
    for id in ids {
        let running = holder(&daemon, &id, folder.as_deref()).await?;
        let path = ask(&running, |reply| FolderCommand::TrashRestore { id: id.clone(), reply }).await?;
        restored.push(json!({"id": id, "folder": running.record.config.name, "path": path.to_string()}));
    }
    Ok(Json(json!({"type": "restored", "items": restored})))
}

async fn holder(daemon: &Daemon, id: &str, folder: Option<&str>) -> Outcome<Running> {
    let folders = match folder {
        Some(selector) => vec![daemon.find(selector)?],
        None => daemon.folders(),
    };
    let mut holders = Vec::new();
    for running in folders {
        if ask(&running, |reply| FolderCommand::TrashList { reply }).await?.iter().any(|item| item.id == id) {
            holders.push(running);
        }
    }
    let id = shown(id);
    match holders.len() {
        0 => Err(Problem::not_found("trash_item_not_found", format!("the trash has no '{id}'")).hint("list it with: ferry trash list")),
        1 => Ok(holders.remove(0)),
        _ => {
            Err(Problem::conflict("ambiguous", format!("'{id}' is in the trash of several folders")).hint("name the folder with --folder"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    #[serde(default)]
    ids: Vec<String>,
    older_than_ms: Option<u64>,
    #[serde(default)]
    folder: Option<String>,
}

/// `POST /v1/trash/purge` with `{"ids": [...]}` or `{"older_than_ms": 0}`
pub async fn purge(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Purge { ids, older_than_ms, folder } = body(&bytes)?;
    let mut purged = 0;
    if ids.is_empty() {
        // A list that came out empty does not mean everything.
        let older_than_ms = older_than_ms.ok_or_else(|| Problem::usage("give 'ids', or 'older_than_ms' (0 for everything)"))?;
        let folders = match &folder {
            Some(selector) => vec![daemon.find(selector)?],
            None => daemon.folders(),
        };
        for running in folders {
            purged += ask(&running, |reply| FolderCommand::TrashPurge { older_than_ms, ids: Vec::new(), reply }).await?;
        }
    }
    for id in ids {
        let running = holder(&daemon, &id, folder.as_deref()).await?;
        purged += ask(&running, |reply| FolderCommand::TrashPurge { older_than_ms: 0, ids: vec![id], reply }).await?;
    }
    Ok(Json(json!({"type": "purged", "count": purged})))
}

/// Text from outside as it may be shown.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    ferry_protocol::name::display_bytes(short.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_carry_any_bytes() {
        let uri: Uri = "/v1/status/path?a=1&path=%2Fx%20y%ff".parse().unwrap();
        assert_eq!(query_bytes(&uri, "path").unwrap().unwrap(), b"/x y\xff");
        assert!(query(&uri, "path").is_err());
        assert_eq!(query(&uri, "a").unwrap().as_deref(), Some("1"));
        assert_eq!(query(&uri, "b").unwrap(), None);
        for wrong in ["/?path=%", "/?path=%2", "/?path=%zz"] {
            assert!(query(&wrong.parse().unwrap(), "path").is_err(), "{wrong}");
        }
    }
}
