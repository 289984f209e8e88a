//! `ferry activity`.

use super::Context;
use super::args::ActivityArgs;
use super::client::encode;
use super::status::clock;
use crate::problem::{Outcome, Problem, exit};
use crate::quantity;
use crate::supervisor::now_ms;
use crate::ui::Style;
use serde_json::Value;

/// Shows what happened, and with `--follow` what happens.
pub async fn run(context: &Context, args: ActivityArgs) -> Outcome<u8> {
    let since = args.since.map_or(0, |s| now_ms().saturating_sub(i64::try_from(s.0.as_millis()).unwrap_or(i64::MAX)));
    let mut path = format!("/activity?since_ms={since}&limit={}", args.limit);
    if let Some(folder) = &args.folder {
        path.push_str(&format!("&folder={}", encode(super::selector(folder)?)));
    }
    let answer = context.client.get(&path).await?;
    let past = answer["events"].as_array().cloned().unwrap_or_default();
    if !args.follow {
        if context.ui.json {
            context.ui.document(&answer);
        } else if past.is_empty() {
            context.ui.message("nothing has happened yet");
        } else {
            past.iter().for_each(|event| print(context, event));
        }
        return Ok(exit::OK);
    }
    past.iter().for_each(|event| print(context, event));
    let mut events = context.client.events(&format!("/events?since={}", answer["newest"])).await?;
    while let Some(event) = events.next().await {
        let other = args.folder.as_ref().is_some_and(|f| event["folder"] != **f && event["folder_id"] != **f);
        if !other || event["type"] == "gap" {
            print(context, &event);
        }
    }
    Err(Problem::no_daemon().hint("it has stopped; start it with: ferry service start"))
}

fn print(context: &Context, event: &Value) {
    let ui = &context.ui;
    if ui.json {
        ui.record(event);
    } else if ui.plain {
        let cells = ["id", "ts_ms", "type", "folder", "path"].map(|name| match &event[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        ui.line(&cells.join("\t"));
    } else {
        let when = event["ts_ms"].as_i64().map(clock).unwrap_or_default();
        ui.line(&format!("{}  {}", ui.paint(Style::Dim, &when), sentence(event)));
    }
}

/// An event in words.
pub fn sentence(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let place = match (text("folder"), text("path")) {
        ("", "") => String::new(),
        ("", path) => path.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    };
    let size = event["bytes"].as_u64().map(|n| format!(" ({})", quantity::bytes(n))).unwrap_or_default();
    let whose = if text("origin") == "here" { "here" } else { "elsewhere" };
    match text("type") {
        "file_uploaded" => format!("↑ {place}{size}"),
        "file_downloaded" => format!("↓ {place}{size} from {}", if text("peer").is_empty() { text("via") } else { text("peer") }),
        "created" => format!("+ {place} created {whose}"),
        "deleted" => format!("- {place} deleted {whose}"),
        "moved" => format!("→ {place} moved {whose}, was {}", text("from")),
        "conflict" => format!("! {place} was changed on two sides; the other version is {}", text("copy")),
        "merged" => format!("⋎ {place} was changed on two sides; both edits were merged"),
        "issue" => format!("! {place}: {}", text("message")),
        "issue_resolved" => format!("✓ {place}: solved ({})", text("code").replace('_', " ")),
        "deletes_held" => format!("! {place}: {} deletes wait for: ferry folder approve {}", event["count"], text("folder")),
        "folder_state" => {
            let reason = if text("reason").is_empty() { String::new() } else { format!(" ({})", text("reason")) };
            format!("{place}: {}{reason}", text("state").replace('_', " "))
        }
        "invited" => format!("✉ {} invites you to \"{}\" as {}: ferry share pending", text("by"), text("name"), text("role")),
        "role_changed" => format!("{place}: you are {} now", text("role")),
        "not_shared" => format!("! {place}: {}", text("reason")),
        "folder_added" => format!("{place}: added"),
        "folder_removed" => format!("{place}: removed from this device"),
        "scan_finished" => format!("{place}: scanned {} files", event["files"]),
        "relay_state" => {
            format!("relay {}{}", text("state"), if text("message").is_empty() { String::new() } else { format!(": {}", text("message")) })
        }
        "daemon_started" => format!("ferry {} started", text("version")),
        "gap" => "… some events are missing here".into(),
        other => format!("{} {place}", other.replace('_', " ")),
    }
}
