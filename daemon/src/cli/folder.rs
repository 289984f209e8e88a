//! `ferry folder`, `pause`, `resume`.

use super::args::{FolderCommand, PauseArgs};
use super::client::encode;
use super::{Context, items, rewind, selector, tilde};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity;
use crate::supervisor::now_ms;
use crate::ui::table::Table;
use jiff::Zoned;
use serde_json::{Value, json};

/// Runs a folder command.
pub async fn run(context: &Context, command: FolderCommand) -> Outcome<u8> {
    let client = &context.client;
    match command {
        FolderCommand::List { remote: false } => list(context).await?,
        FolderCommand::List { remote: true } => list_remote(context).await?,
        FolderCommand::Add { path, name, remote } => {
            // Links are resolved by the daemon, once.
            let path = std::path::absolute(&path)?;
            let mut request = json!({"name": name, "remote": remote});
            request["path"] = crate::folder::path_text::serialize(&path, serde_json::value::Serializer).unwrap_or_default();
            let folder = client.post("/folders", &request).await?;
            tell(context, &folder, |ui| {
                ui.done(&format!(
                    "Syncing {} as \"{}\"   —   watch it with: ferry status --watch",
                    shown_root(&folder),
                    text(&folder, "name")
                ));
            });
        }
        FolderCommand::Show { folder } => {
            let folder = client.get(&format!("/folders/{}", encode(selector(&folder)?))).await?;
            tell(context, &folder, |_| show(context, &folder));
        }
        FolderCommand::Remove { folder } => {
            let answer = client.delete(&format!("/folders/{}", encode(selector(&folder)?))).await?;
            tell(context, &answer, |ui| {
                ui.done(&format!("\"{}\" is no longer synced here; its files stay in {}", text(&answer, "name"), shown_root(&answer)));
            });
        }
        FolderCommand::Approve { folder, reject } => {
            let action = if reject { "reject" } else { "approve" };
            let answer = act(context, &folder, action, &json!({})).await?;
            let count = quantity::count(answer["count"].as_u64().unwrap_or(0));
            let what = if reject { "files are brought back" } else { "deletes go through" };
            tell(context, &answer, |ui| ui.done(&format!("{count} {what}")));
        }
        FolderCommand::Dismiss { folder } => {
            let answer = act(context, &folder, "dismiss", &json!({})).await?;
            let count = quantity::count(answer["count"].as_u64().unwrap_or(0));
            tell(context, &answer, |ui| ui.done(&format!("{count} notices are dismissed")));
        }
        FolderCommand::Rewind(args) => return rewind::run(context, args).await,
        FolderCommand::Scan { folder: Some(folder) } => {
            let answer = act(context, &folder, "scan", &json!({})).await?;
            tell(context, &answer, |ui| ui.done(&format!("Scanning \"{}\"", text(&answer, "name"))));
        }
        FolderCommand::Scan { folder: None } => scan_all(context).await?,
        FolderCommand::Set { folder, settings } => set(context, &folder, &settings).await?,
        FolderCommand::Ignore(command) => return items::ignore(context, command).await,
    }
    Ok(exit::OK)
}

fn tell(context: &Context, answer: &Value, human: impl FnOnce(&crate::ui::Ui)) {
    if context.ui.json { context.ui.document(answer) } else { human(&context.ui) }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn shown_root(folder: &Value) -> String {
    tilde(text(folder, "path"))
}

async fn act(context: &Context, folder: &str, action: &str, body: &Value) -> Outcome<Value> {
    context.client.post(&format!("/folders/{}/{action}", encode(selector(folder)?)), body).await
}

async fn scan_all(context: &Context) -> Outcome<()> {
    let folders = context.client.get("/folders").await?;
    let ids: Vec<&str> = folders["folders"].as_array().into_iter().flatten().filter_map(|f| f["id"].as_str()).collect();
    for id in &ids {
        act(context, id, "scan", &json!({})).await?;
    }
    tell(context, &json!({"type": "done", "action": "scan", "count": ids.len()}), |ui| ui.done(&format!("Scanning {} folders", ids.len())));
    Ok(())
}

async fn list(context: &Context) -> Outcome<()> {
    let answer = context.client.get("/folders").await?;
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(());
    }
    let mut table = Table::new(&["FOLDER", "LOCAL", "STATE", "FILES", "SIZE", "ID"]).right(3).right(4);
    for folder in answer["folders"].as_array().into_iter().flatten() {
        table.row(vec![
            text(folder, "name").into(),
            if context.ui.plain { text(folder, "path").into() } else { shown_root(folder) },
            if context.ui.plain { text(folder, "state").into() } else { text(folder, "state").replace('_', " ") },
            folder["files"].as_u64().unwrap_or(0).to_string(),
            if context.ui.plain { folder["bytes"].to_string() } else { quantity::bytes(folder["bytes"].as_u64().unwrap_or(0)) },
            text(folder, "id").into(),
        ]);
    }
    table.print(&context.ui, "no folder is synced yet; add one with: ferry folder add PATH");
    Ok(())
}

async fn list_remote(context: &Context) -> Outcome<()> {
    let answer = context.client.get("/relay/folders").await?;
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(());
    }
    let mut table = Table::new(&["FOLDER", "ROLE", "HERE", "ID"]);
    for folder in answer["folders"].as_array().into_iter().flatten() {
        let here = folder["path"].as_str().map_or("-".into(), tilde);
        table.row(vec![text(folder, "name").into(), text(folder, "role").into(), here, text(folder, "id").into()]);
    }
    table.print(&context.ui, "the account has no folder yet; add one with: ferry folder add PATH");
    Ok(())
}

fn show(context: &Context, folder: &Value) {
    let ui = &context.ui;
    let number = |name: &str| folder[name].as_u64().unwrap_or(0);
    ui.line(&format!("{}   {}", text(folder, "name"), shown_root(folder)));
    let reason = folder["state_reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
    ui.line(&format!("  state     {}{reason}", text(folder, "state").replace('_', " ")));
    ui.line(&format!("  holds     {}, {}", super::status::plural(number("files"), "file", "files"), quantity::bytes(number("bytes"))));
    let pending = &folder["pending"];
    ui.line(&format!("  pending   {} up, {} down, {} deletes", pending["upload"], pending["download"], pending["delete"]));
    ui.line(&format!("  relay     {}", text(&folder["relay"], "state")));
    if folder["merge_text"] == true {
        ui.line("  texts     edits on two sides are merged where that is clean");
    }
    ui.line(&format!("  id        {}", text(folder, "id")));
    for issue in folder["issues"].as_array().into_iter().flatten() {
        ui.line(&format!("  ! {}   {}   → {}", text(issue, "path"), text(issue, "message"), text(issue, "hint")));
    }
}

async fn set(context: &Context, folder: &str, settings: &[String]) -> Outcome<()> {
    let mut change = json!({});
    for setting in settings {
        match setting.split_once('=') {
            Some(("name", name)) => change["name"] = name.into(),
            Some((switch @ ("paused" | "merge-text"), value)) => {
                let on = value.parse::<bool>().map_err(|_| Problem::usage(format!("{switch} is true or false")))?;
                change[switch.replace('-', "_")] = on.into();
            }
            _ => {
                let shown = ferry_protocol::name::display_bytes(setting.as_bytes());
                return Err(Problem::usage(format!("'{shown}' is not a setting of a folder"))
                    .hint("settings are: name=NAME, paused=true|false, merge-text=true|false"));
            }
        }
    }
    let folder = context.client.patch(&format!("/folders/{}", encode(selector(folder)?)), &change).await?;
    tell(context, &folder, |ui| ui.done(&format!("\"{}\" is changed", text(&folder, "name"))));
    Ok(())
}

/// Pauses one folder or all.
pub async fn pause(context: &Context, args: PauseArgs) -> Outcome<u8> {
    let until_ms = match (&args.duration, &args.until) {
        (Some(span), _) => Some(now_ms().saturating_add(i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX))),
        (None, Some(time)) => Some(next_time_of_day(time)?),
        (None, None) => None,
    };
    let body = json!({"until_ms": until_ms});
    let answer = match &args.folder {
        Some(folder) => act(context, folder, "pause", &body).await?,
        None => context.client.post("/pause", &body).await?,
    };
    let until = until_ms.map(|ms| format!(" until {}", super::status::clock(ms))).unwrap_or_default();
    tell(context, &answer, |ui| ui.done(&format!("Paused{until}; go on with: ferry resume")));
    Ok(exit::OK)
}

/// The next moment at which the clock shows `HH:MM`.
fn next_time_of_day(text: &str) -> Outcome<i64> {
    let wrong = || {
        Problem::usage(format!("'{}' is not a time of day", ferry_protocol::name::display_bytes(text.as_bytes())))
            .hint("write it like 18:00")
    };
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let (hour, minute): (i8, i8) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    let now = Zoned::now();
    let today = now.with().hour(hour).minute(minute).second(0).subsec_nanosecond(0).build().map_err(|_| wrong())?;
    let next = if today > now { today } else { today.tomorrow().map_err(|_| wrong())? };
    Ok(next.timestamp().as_millisecond())
}

/// Lets one folder or all go on.
pub async fn resume(context: &Context, folder: Option<String>) -> Outcome<u8> {
    let answer = match &folder {
        Some(folder) => act(context, folder, "resume", &json!({})).await?,
        None => context.client.post("/resume", &json!({})).await?,
    };
    tell(context, &answer, |ui| ui.done("Syncing again"));
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let next = next_time_of_day("18:00").unwrap();
        assert!(next > now_ms() && next <= now_ms() + 25 * 3600 * 1000);
        for wrong in ["", "18", "25:00", "18:60", "x:y", "-1:00"] {
            assert!(next_time_of_day(wrong).is_err(), "{wrong}");
        }
    }
}
