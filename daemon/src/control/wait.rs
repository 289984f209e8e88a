//! Waiting until everything is up to date.

use super::files::body;
use crate::folder::{FolderCommand, FolderState, FolderStatus};
use crate::problem::{Outcome, Problem};
use crate::supervisor::{Daemon, Running};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a problem must stand still before a wait ends with it: many pass by themselves.
const PROBLEM_STANDS: Duration = Duration::from_secs(3);
/// Longest wait of one request.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the state is looked at besides every change of a folder.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    folders: Vec<String>,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// `POST /v1/wait` with `{"folders": [], "timeout_ms": 600000}`. The answer's `result` is `up_to_date`, `timeout` or `problem`.
pub async fn wait(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Result<Json<Value>, Problem> {
    let wait: Wait = body(&bytes)?;
    for selector in &wait.folders {
        daemon.find(selector)?;
    }
    let limit = wait.timeout_ms.map_or(WAIT_MAX, Duration::from_millis).min(WAIT_MAX);
    let result = tokio::select! {
        result = settled(&daemon, &wait.folders) => result?,
        () = tokio::time::sleep(limit) => "timeout",
        () = daemon.stop.cancelled() => return Err(Problem::temporary("daemon_stopping", "the ferry daemon is stopping")),
    };
    let statuses: Vec<_> = chosen(&daemon, &wait.folders).iter().map(|r| daemon.folder_status(r)).collect();
    Ok(Json(json!({"type": "wait", "result": result, "state": Daemon::overall_state(&statuses), "folders": statuses})))
}

fn chosen(daemon: &Daemon, selectors: &[String]) -> Vec<Running> {
    if selectors.is_empty() { daemon.folders() } else { selectors.iter().filter_map(|s| daemon.find(s).ok()).collect() }
}

/// Ends when all are up to date after a flush, or when a problem stands still.
async fn settled(daemon: &Daemon, selectors: &[String]) -> Outcome<&'static str> {
    let mut still: Option<(Vec<FolderStatus>, Instant)> = None;
    loop {
        let looked = look(daemon, selectors);
        if looked.iter().all(|s| s.state == FolderState::UpToDate) {
            // What the disk and the relay hold now may not have been seen: ask, and look once more.
            flush(&chosen(daemon, selectors)).await?;
            let again = look(daemon, selectors);
            if again.iter().all(|s| s.state == FolderState::UpToDate) {
                return Ok("up_to_date");
            }
            continue;
        }
        let ended = |s: &FolderStatus| match s.state {
            FolderState::UpToDate | FolderState::Paused | FolderState::Held | FolderState::Error => true,
            FolderState::Syncing => s.blocked > 0 && s.pending.download == s.blocked,
            FolderState::Scanning => false,
        };
        if looked.iter().all(ended) {
            match &still {
                Some((before, since)) if *before == looked => {
                    if since.elapsed() >= PROBLEM_STANDS {
                        return Ok("problem");
                    }
                }
                _ => still = Some((looked, Instant::now())),
            }
        } else {
            still = None;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn look(daemon: &Daemon, selectors: &[String]) -> Vec<FolderStatus> {
    chosen(daemon, selectors).iter().map(|r| daemon.folder_status(r)).collect()
}

async fn flush(folders: &[Running]) -> Outcome<()> {
    let mut answers = Vec::new();
    for running in folders {
        let (reply, answer) = oneshot::channel();
        running.handle.command(FolderCommand::Flush { reply }).await?;
        answers.push(answer);
    }
    for answer in answers {
        // A folder that stops meanwhile, or cannot flush, shows in its state.
        let _ = answer.await;
    }
    Ok(())
}
