//! `ferry status` and `ferry wait`.

use super::args::{StatusArgs, WaitArgs};
use super::{Context, items, selector, tilde, watch};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity;
use crate::supervisor::now_ms;
use crate::ui::table::Table;
use crate::ui::{Style, Ui};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::time::Duration;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// Runs `ferry status`.
pub async fn run(context: &Context, args: StatusArgs) -> Outcome<u8> {
    if args.watch {
        return watch::status(context).await;
    }
    if !args.paths.is_empty() {
        return paths(context, &args.paths).await;
    }
    let status = context.client.get("/status").await?;
    let ui = &context.ui;
    if args.issues {
        issues(context).await?;
    } else if ui.json {
        ui.document(&status);
    } else if ui.plain {
        table(ui, &status).print(ui, "");
    } else if !(args.check && ui.quiet) {
        ui.text(&render(ui, &status));
    }
    Ok(if args.check { check_code(&status) } else { exit::OK })
}

/// A count with its word.
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", quantity::count(count), if count == 1 { one } else { many })
}

/// The exit code of `--check`.
fn check_code(status: &Value) -> u8 {
    match text(status, "state") {
        "up_to_date" if number(&status["issues"], "errors") > 0 => 12,
        "up_to_date" => exit::OK,
        "paused" => 11,
        "held" | "error" => 12,
        _ => 10,
    }
}

async fn paths(context: &Context, paths: &[std::path::PathBuf]) -> Outcome<u8> {
    let mut reports = Vec::new();
    for path in paths {
        reports.push(items::ask_why(context, path).await?);
    }
    if context.ui.json {
        context.ui.document(&json!({"type": "paths", "paths": reports}));
    } else {
        for report in &reports {
            context.ui.line(&format!("{}   {}", context.ui.paint(Style::Bold, &tilde(text(report, "absolute"))), text(report, "sentence")));
            let rule = report["rule"]["pattern"].as_str().map(|r| format!("     rule  {r}")).unwrap_or_default();
            for (name, label) in [("local", "local "), ("remote", "remote")] {
                if report[name].is_object() {
                    context.ui.line(&format!("  {label}  {}{}", version_line(&report[name]), if name == "local" { &rule } else { "" }));
                }
            }
        }
    }
    Ok(exit::OK)
}

async fn issues(context: &Context) -> Outcome<()> {
    let answer = context.client.get("/issues").await?;
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(());
    }
    let mut table = Table::new(&["FOLDER", "PATH", "CODE", "WHAT", "WHAT TO DO"]);
    for issue in answer["issues"].as_array().into_iter().flatten() {
        table.row(
            [text(issue, "folder"), place(text(issue, "path")), text(issue, "code"), text(issue, "message"), text(issue, "hint")]
                .map(String::from)
                .to_vec(),
        );
    }
    table.print(&context.ui, "nothing needs attention");
    Ok(())
}

fn place(path: &str) -> &str {
    if path.is_empty() { "(the folder)" } else { path }
}

/// The home page: one line on the whole, one for each folder, what needs attention.
pub fn render(ui: &Ui, status: &Value) -> String {
    let mut out = String::new();
    out.push_str(&headline(ui, status));
    out.push('\n');
    if status["folders"].as_array().is_some_and(|f| !f.is_empty()) {
        out.push_str(&table(ui, status).render(ui, "  "));
    } else {
        out.push_str("  no folder is synced yet; add one with: ferry folder add PATH\n");
    }
    let transfer = &status["transfer"];
    let received = number(transfer, "lan_in_bytes") + number(transfer, "relay_in_bytes");
    let sent = number(transfer, "lan_out_bytes") + number(transfer, "relay_out_bytes");
    if received + sent > 0 {
        let lan = (number(transfer, "lan_in_bytes") * 100).checked_div(received).unwrap_or(0);
        let share = if lan > 0 { format!(" ({lan} % from LAN)") } else { String::new() };
        out.push_str(&format!("\n  Transfers since start  ↓ {}{share}   ↑ {}\n", quantity::bytes(received), quantity::bytes(sent)));
    }
    for peer in status["peers"].as_array().into_iter().flatten() {
        let (down, up) = (number(peer, "in_bytes_per_s"), number(peer, "out_bytes_per_s"));
        // Below this it is only the keeping in touch.
        if down + up >= 1000 {
            let (name, address) = (text(peer, "name"), text(peer, "address"));
            out.push_str(&format!("  {name} (LAN, {address})  ↓ {}/s   ↑ {}/s\n", quantity::bytes(down), quantity::bytes(up)));
        }
    }
    out.push_str(&attention(ui, status));
    out
}

fn headline(ui: &Ui, status: &Value) -> String {
    let (dot, word) = state_word(text(status, "state"));
    let device = text(&status["device"], "name");
    let who = match status["account"].as_object() {
        Some(account) => {
            let relay = account.get("relay").and_then(Value::as_str).unwrap_or_default();
            let host = relay.split("://").last().unwrap_or_default();
            format!("{host} as {} ({device})", account.get("user").and_then(Value::as_str).unwrap_or_default())
        }
        None => format!("this device is \"{device}\""),
    };
    let peers = status["peers"].as_array().map_or(0, Vec::len);
    let relay = match text(&status["relay"], "state") {
        "connected" => "relay ok".to_owned(),
        "connecting" => "relay connecting".into(),
        "offline" => ui.paint(Style::Warn, "relay offline"),
        _ if status["account"].is_null() => "not logged in".into(),
        _ => "relay off".into(),
    };
    let peers = plural(peers as u64, "LAN peer", "LAN peers");
    format!("{} {}   {who}          {relay} · {peers}", ui.paint(dot, "●"), ui.paint(Style::Bold, word))
}

/// The state of a folder, or of all together, in a word or two.
pub fn state_word(state: &str) -> (Style, &'static str) {
    match state {
        "up_to_date" => (Style::Good, "Up to date"),
        "scanning" => (Style::Busy, "Scanning"),
        "syncing" => (Style::Busy, "Syncing"),
        "paused" => (Style::Dim, "Paused"),
        "held" => (Style::Warn, "Waiting for you"),
        _ => (Style::Bad, "Needs attention"),
    }
}

fn table(ui: &Ui, status: &Value) -> Table {
    let mut table = Table::new(&["FOLDER", "LOCAL", "STATE", "SIZE", "FILES"]).right(3).right(4);
    for folder in status["folders"].as_array().into_iter().flatten() {
        let (state, path, size, files) = if ui.plain {
            (
                text(folder, "state").to_owned(),
                text(folder, "path").to_owned(),
                number(folder, "bytes").to_string(),
                number(folder, "files").to_string(),
            )
        } else {
            (
                state_words(folder),
                tilde(text(folder, "path")),
                quantity::bytes(number(folder, "bytes")),
                plural(number(folder, "files"), "file", "files"),
            )
        };
        table.row(vec![text(folder, "name").into(), path, state, size, files]);
    }
    table
}

/// A folder's state in a few words.
pub fn state_words(folder: &Value) -> String {
    state_words_at(folder, now_ms())
}

/// [`state_words`] at a moment (milliseconds since 1970).
pub fn state_words_at(folder: &Value, now_ms: i64) -> String {
    let reason = folder["state_reason"].as_str();
    match text(folder, "state") {
        "up_to_date" => match folder["last_sync_ms"].as_i64() {
            Some(at) => format!("up to date {}", ago(at, now_ms)),
            None => "up to date".into(),
        },
        "scanning" => match folder["scan"]["entries"].as_u64() {
            Some(entries) if entries > 0 => format!("scanning, {} entries", quantity::count(entries)),
            _ => "scanning".into(),
        },
        "syncing" => syncing_words(folder, reason),
        "held" => match folder["held"]["count"].as_u64() {
            Some(count) => format!("{} deletes wait: ferry folder approve {}", quantity::count(count), text(folder, "name")),
            None => "waits for: ferry folder approve".into(),
        },
        "paused" => reason.map_or("paused".into(), |r| format!("paused, {r}")),
        _ => reason.map_or("needs attention".into(), |r| format!("error: {r}")),
    }
}

fn syncing_words(folder: &Value, reason: Option<&str>) -> String {
    let (pending, bytes, rates) = (&folder["pending"], &folder["pending_bytes"], &folder["rates"]);
    let mut words = Vec::new();
    for (arrow, items, size, rate) in [
        ("↓", number(pending, "download"), number(bytes, "download"), number(rates, "down_bytes_per_s")),
        ("↑", number(pending, "upload"), number(bytes, "upload"), number(rates, "up_bytes_per_s")),
    ] {
        if items > 0 {
            let mut word = format!("{arrow} {}", plural(items, "file", "files"));
            if size > 0 {
                word.push_str(&format!(", {}", quantity::bytes(size)));
            }
            if rate > 0 {
                word.push_str(&format!(" at {}/s, {} left", quantity::bytes(rate), quantity::span(Duration::from_secs(size / rate))));
            }
            words.push(word);
        }
    }
    if number(pending, "delete") > 0 {
        words.push(plural(number(pending, "delete"), "delete", "deletes"));
    }
    if words.is_empty() {
        return reason.unwrap_or("syncing").to_owned();
    }
    words.join("   ")
}

fn attention(ui: &Ui, status: &Value) -> String {
    let mut out = String::new();
    let (conflicts, errors) = (number(&status["issues"], "conflicts"), number(&status["issues"], "errors"));
    let relay = &status["relay"];
    if let Some(message) = relay["message"].as_str().filter(|_| text(relay, "state") != "connected") {
        out.push_str(&format!("\n{} relay: {message}\n", ui.paint(Style::Warn, "!")));
    }
    if let Some(waiting) = status["invitations"].as_array().map(Vec::len).filter(|n| *n > 0) {
        let words = plural(waiting as u64, "invitation", "invitations");
        out.push_str(&format!("\n{} {words}: ferry share pending\n", ui.paint(Style::Warn, "!")));
    }
    if conflicts + errors == 0 {
        return out;
    }
    let words: Vec<String> = [(conflicts, "conflict", "conflicts"), (errors, "item needs attention", "items need attention")]
        .into_iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, many)| plural(n, one, many))
        .collect();
    out.push_str(&format!("\n{} {}\n", ui.paint(Style::Warn, "!"), words.join(", ")));
    if conflicts > 0 {
        out.push_str("  ferry conflict list\n");
    }
    let all =
        status["folders"].as_array().into_iter().flatten().flat_map(|f| f["issues"].as_array().into_iter().flatten().map(move |i| (f, i)));
    for (folder, issue) in all.take(5) {
        let path = if text(issue, "path").is_empty() {
            text(folder, "name").to_owned()
        } else {
            format!("{}/{}", text(folder, "name"), text(issue, "path"))
        };
        out.push_str(&format!("  {path}   {}   → {}\n", text(issue, "message"), text(issue, "hint")));
    }
    if errors > 5 {
        out.push_str("  all of them: ferry status --issues\n");
    }
    out
}

/// One version of an item in a line.
pub fn version_line(version: &Value) -> String {
    let mut words = vec![match text(version, "kind") {
        "file" => format!("{} B", quantity::count(number(version, "size"))),
        kind => kind.to_owned(),
    }];
    if let Some(mtime) = version["mtime_ms"].as_i64() {
        words.push(format!("modified {}", clock(mtime)));
    }
    if let Some(device) = version["device"].as_str() {
        words.push(format!("by {device}"));
    }
    if let Some(wall) = version["wall_ms"].as_i64() {
        words.push(clock(wall));
    }
    words.join(", ")
}

/// A moment (milliseconds since 1970) for people: the time if it is today, else with the date.
pub fn clock(ms: i64) -> String {
    clock_at(ms, now_ms(), &TimeZone::system())
}

/// [`clock`] as it is at `now_ms` in this time zone.
pub fn clock_at(ms: i64, now_ms: i64, zone: &TimeZone) -> String {
    let stamp = |ms| Timestamp::from_millisecond(ms).map(|stamp| stamp.to_zoned(zone.clone()));
    let (Ok(when), Ok(today)) = (stamp(ms), stamp(now_ms)) else { return "?".into() };
    if when.date() == today.date() { when.strftime("%H:%M:%S").to_string() } else { when.strftime("%Y-%m-%d %H:%M").to_string() }
}

/// How long before `now_ms` a moment is.
fn ago(ms: i64, now_ms: i64) -> String {
    let passed = Duration::from_millis(u64::try_from(now_ms.saturating_sub(ms)).unwrap_or(0));
    if passed < Duration::from_secs(2) { "just now".into() } else { format!("{} ago", quantity::span(passed)) }
}

/// Runs `ferry wait`.
pub async fn wait(context: &Context, args: WaitArgs) -> Outcome<u8> {
    let folders: Vec<String> = args.folders.iter().map(|f| selector(f)).collect::<Outcome<_>>()?;
    let timeout_ms = args.timeout.map(|s| u64::try_from(s.0.as_millis()).unwrap_or(u64::MAX));
    let answer = context.client.post("/wait", &json!({"folders": folders, "timeout_ms": timeout_ms})).await?;
    let result = text(&answer, "result");
    let (code, problem) = match result {
        "up_to_date" => (exit::OK, None),
        "timeout" => (exit::TEMPORARY, Some("the time is over and not everything is up to date")),
        _ => (exit::PARTIAL, Some("something stands in the way")),
    };
    if context.ui.json {
        context.ui.document(&answer);
    } else if let Some(problem) = problem {
        let mut problem = Problem::temporary(result, problem).hint("see: ferry status");
        problem.exit_code = code;
        for folder in answer["folders"].as_array().into_iter().flatten().filter(|f| f["state"] != "up_to_date") {
            context.ui.message(&format!("  {}   {}", text(folder, "name"), state_words(folder)));
        }
        return Err(problem);
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Color;

    fn sample(state: &str) -> Value {
        json!({
            "state": state, "device": {"id": "00", "name": "thinkpad"}, "account": {"user": "ana", "relay": "https://files.example.org"},
            "relay": {"state": "connected", "url": "https://files.example.org"},
            "peers": [{"name": "tv", "address": "10.0.0.2:4711", "in_bytes_per_s": 6_000_000, "out_bytes_per_s": 0}],
            "folders": [{
                "name": "Photos", "path": "/data/photos", "state": state, "files": 41203, "bytes": 112_000_000_000u64,
                "pending": {"upload": 0, "download": 214, "delete": 0}, "pending_bytes": {"upload": 0, "download": 3_294_000_000u64},
                "rates": {"up_bytes_per_s": 0, "down_bytes_per_s": 6_100_000},
                "issues": [{"path": "raw/x.dng", "code": "permission_denied", "message": "permission denied", "hint": "fix the mode"}],
            }],
            "transfer": {"lan_in_bytes": 0, "lan_out_bytes": 0, "relay_in_bytes": 4_800_000_000u64, "relay_out_bytes": 0},
            "issues": {"conflicts": 1, "errors": 1},
        })
    }

    #[test]
    fn the_home_page_says_what_goes_on_and_what_to_do() {
        let ui = Ui::new(false, false, Color::Never, false, false, false);
        let page = render(&ui, &sample("syncing"));
        for part in [
            "● Syncing   files.example.org as ana (thinkpad)",
            "relay ok · 1 LAN peer",
            "tv (LAN, 10.0.0.2:4711)  ↓ 6.0 MB/s",
            "↓ 214 files, 3.3 GB at 6.1 MB/s, 9 min left",
            "112 GB",
            "41 203 files",
            "! 1 conflict, 1 item needs attention",
            "ferry conflict list",
            "Photos/raw/x.dng   permission denied   → fix the mode",
        ] {
            assert!(page.contains(part), "{part:?} is missing in\n{page}");
        }
        assert!(!page.contains('\x1b'));
    }

    #[test]
    fn the_check_tells_states_apart() {
        for (state, code) in [("up_to_date", 12), ("syncing", 10), ("scanning", 10), ("paused", 11), ("held", 12), ("error", 12)] {
            assert_eq!(check_code(&sample(state)), code, "{state}");
        }
        assert_eq!(check_code(&json!({"state": "up_to_date", "issues": {"errors": 0}})), 0);
    }
}
