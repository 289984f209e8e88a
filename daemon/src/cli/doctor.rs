//! `ferry doctor`: looks for what could be wrong on this device, and says what to do about it.

use super::Context;
use crate::config;
use crate::identity::CredentialsFile;
use crate::problem::{Outcome, exit};
use crate::quantity;
use crate::relay::{RelayClient, RelayOptions};
use crate::supervisor::{Account, InstanceLock, now_ms};
use crate::ui::{Style, Ui};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Fewer watches than this and a large tree is only scanned.
const WATCHES_MIN: u64 = 65_536;
/// Less space than this and syncing soon stops, in bytes.
const SPACE_MIN_BYTES: u64 = 1_000_000_000;
/// A larger difference between the clocks confuses people, in seconds; Ferry itself does not decide by clocks.
const SKEW_MAX_S: i64 = 60;
/// How long the relay may take to answer.
const RELAY_MAX: Duration = Duration::from_secs(10);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One check.
struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
    hint: String,
}

fn check(name: &'static str, verdict: Verdict, text: impl Into<String>, hint: &str) -> Check {
    Check { name, verdict, text: text.into(), hint: if verdict == Verdict::Good { String::new() } else { hint.into() } }
}

/// Runs all checks. Exit code 6 if one is bad.
pub async fn run(context: &Context) -> Outcome<u8> {
    let mut checks = vec![settings(context), socket(context).await, permissions(context), watches()];
    checks.extend(relay(context).await);
    checks.extend(folders(context).await);
    let bad = checks.iter().any(|c| c.verdict == Verdict::Bad);
    if context.ui.json {
        let list: Vec<Value> =
            checks.iter().map(|c| json!({"name": c.name, "verdict": c.verdict, "text": c.text, "hint": c.hint})).collect();
        context.ui.document(&json!({"type": "doctor", "healthy": !bad, "checks": list}));
    } else {
        checks.iter().for_each(|c| print(&context.ui, c));
    }
    Ok(if bad { exit::PARTIAL } else { exit::OK })
}

fn print(ui: &Ui, check: &Check) {
    let mark = match check.verdict {
        Verdict::Good => ui.paint(Style::Good, "✓"),
        Verdict::Warning => ui.paint(Style::Warn, "!"),
        Verdict::Bad => ui.paint(Style::Bad, "✗"),
    };
    ui.line(&format!("{mark} {:<12} {}", check.name, check.text));
    if !check.hint.is_empty() {
        ui.line(&format!("    {}", check.hint));
    }
}

fn settings(context: &Context) -> Check {
    let file = &context.paths.config_file;
    match config::load(file, config::process_env, &[]) {
        Ok(_) => check("settings", Verdict::Good, config::shown(file), ""),
        Err(e) => check("settings", Verdict::Bad, e.message, "fix it with: ferry config edit"),
    }
}

async fn socket(context: &Context) -> Check {
    let socket = context.paths.socket.display();
    match context.client.get("/version").await {
        Ok(answer) if answer["version"] == env!("CARGO_PKG_VERSION") => check("daemon", Verdict::Good, format!("answers on {socket}"), ""),
        Ok(answer) => {
            let text = format!("is version {}, this is {}", answer["version"].as_str().unwrap_or("?"), env!("CARGO_PKG_VERSION"));
            check("daemon", Verdict::Warning, text, "restart it with: ferry service restart")
        }
        Err(_) if InstanceLock::is_taken(&context.paths.lock_file()) => {
            check("daemon", Verdict::Bad, format!("runs but does not answer on {socket}"), "restart it with: ferry service restart")
        }
        Err(_) => check("daemon", Verdict::Bad, "is not running", "start it with: ferry service start, or: ferry daemon"),
    }
}

/// State, keys and socket are for their owner only.
fn permissions(context: &Context) -> Check {
    let paths = &context.paths;
    let own = rustix::process::geteuid().as_raw();
    let dirs = [Some(paths.state_dir.as_path()), paths.socket.parent()];
    for path in dirs.into_iter().flatten() {
        let Ok(meta) = std::fs::metadata(path) else { continue };
        if meta.uid() != own {
            return check(
                "permissions",
                Verdict::Bad,
                format!("{} belongs to another user", path.display()),
                "give it to yourself with chown",
            );
        }
        if meta.permissions().mode() & 0o077 != 0 {
            let hint = format!("close it with: chmod 700 {}", path.display());
            return check("permissions", Verdict::Bad, format!("{} is open to others", path.display()), &hint);
        }
    }
    check("permissions", Verdict::Good, format!("{} is private", paths.state_dir.display()), "")
}

fn watches() -> Check {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let watches = limit("max_user_watches");
    if watches == 0 {
        return check("inotify", Verdict::Warning, "the limit of watches cannot be read", "changes are found by scanning");
    }
    if watches < WATCHES_MIN {
        let hint = "raise it: echo fs.inotify.max_user_watches=524288 | sudo tee /etc/sysctl.d/60-ferry.conf && sudo sysctl --system";
        return check(
            "inotify",
            Verdict::Warning,
            format!("only {} watches; larger trees are scanned instead", quantity::count(watches)),
            hint,
        );
    }
    check("inotify", Verdict::Good, format!("{} watches, {} instances", quantity::count(watches), limit("max_user_instances")), "")
}

async fn relay(context: &Context) -> Vec<Check> {
    let (account, credentials) = match Account::load(&context.paths) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return vec![check("relay", Verdict::Warning, "this device is not logged in", "log in with: ferry login, or: ferry up")];
        }
        Err(e) => return vec![check("relay", Verdict::Bad, e.message, &e.hint)],
    };
    let keep = Arc::new(CredentialsFile::new(&context.paths.state_dir));
    let url = match credentials.relay.parse::<crate::relay::RelayUrl>() {
        Ok(url) => url,
        Err(e) => return vec![check("relay", Verdict::Bad, e.to_string(), "log in again with: ferry login")],
    };
    let safe = if url.is_tls() { "TLS" } else { "no TLS" };
    // Without credentials: a check must not use up a refresh token of the running daemon.
    let answer = match RelayClient::new(url, RelayOptions::default(), None, keep) {
        Ok(client) => tokio::time::timeout(RELAY_MAX, client.server_info()).await.map_err(|_| "it did not answer in time".to_owned()),
        Err(e) => Ok(Err(e)),
    };
    let mut checks = vec![match answer {
        Ok(Ok(info)) => check("relay", Verdict::Good, format!("{} answers ({safe}, version {})", account.relay_url(), info.version), ""),
        Ok(Err(e)) => check("relay", Verdict::Bad, format!("{}: {e}", account.relay_url()), "Ferry tries again by itself"),
        Err(e) => check("relay", Verdict::Bad, format!("{}: {e}", account.relay_url()), "Ferry tries again by itself"),
    }];
    checks.extend(clock(&account).await);
    checks
}

/// Compares this clock with the relay's `Date` header, where that can be had without checking a pinned certificate.
async fn clock(account: &Account) -> Option<Check> {
    if account.relay.contains("#sha256:") {
        return None;
    }
    let client = reqwest::Client::builder().timeout(RELAY_MAX).build().ok()?;
    let response = client.get(format!("{}/healthz", account.relay_url())).send().await.ok()?;
    let date = response.headers().get("date")?.to_str().ok()?.to_owned();
    let theirs = jiff::fmt::rfc2822::parse(&date).ok()?.timestamp().as_second();
    let skew = now_ms() / 1000 - theirs;
    Some(if skew.abs() > SKEW_MAX_S {
        check("clock", Verdict::Warning, format!("differs from the relay's by {skew} s"), "set it with: timedatectl set-ntp true")
    } else {
        check("clock", Verdict::Good, "agrees with the relay's", "")
    })
}

async fn folders(context: &Context) -> Vec<Check> {
    let mut checks = vec![space("state", &context.paths.state_dir)];
    let Ok(answer) = context.client.get("/folders").await else { return checks };
    for folder in answer["folders"].as_array().into_iter().flatten() {
        let text = |name: &str| folder[name].as_str().unwrap_or_default();
        let path = Path::new(text("path"));
        if !path.is_dir() {
            let hint = "bring it back, or: ferry folder remove";
            checks.push(check("folder", Verdict::Bad, format!("{} is not there", text("path")), hint));
            continue;
        }
        if text("state") == "error" {
            let reason = folder["state_reason"].as_str().unwrap_or("some items need attention");
            checks.push(check("folder", Verdict::Bad, format!("{}: {reason}", text("name")), "see: ferry status --issues"));
        }
        checks.push(space("folder", path));
    }
    checks
}

fn space(name: &'static str, path: &Path) -> Check {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let verdict = if free < SPACE_MIN_BYTES { Verdict::Warning } else { Verdict::Good };
            check(name, verdict, format!("{}, {} free", path.display(), quantity::bytes(free)), "free some space on this disk")
        }
        Err(e) => check(name, Verdict::Warning, format!("{}: {e}", path.display()), "check the disk"),
    }
}
