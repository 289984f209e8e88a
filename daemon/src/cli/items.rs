//! Commands on single items: `why`, `ignore`, `conflict`, `trash`.

use super::args::{ConflictCommand, IgnoreCommand, KeepArgs, TrashCommand};
use super::client::{encode, encode_path};
use super::status::{clock, version_line};
use super::{Context, absolute, selector, tilde};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity;
use crate::ui::table::Table;
use crate::ui::{Style, Ui};
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn tell(ui: &Ui, answer: &Value, human: impl FnOnce()) {
    if ui.json { ui.document(answer) } else { human() }
}

/// What the daemon says of a path.
pub async fn ask_why(context: &Context, path: &Path) -> Outcome<Value> {
    context.client.get(&format!("/status/path?path={}", encode_path(&absolute(path)?))).await
}

/// Explains one path.
pub async fn why(context: &Context, path: &Path) -> Outcome<u8> {
    let report = ask_why(context, path).await?;
    tell(&context.ui, &report, || print_why(&context.ui, &report));
    Ok(if report["state"] == "unknown" { exit::NOT_FOUND } else { exit::OK })
}

/// A report in a few lines.
pub fn print_why(ui: &Ui, report: &Value) {
    ui.line(&format!("{}   {}", ui.paint(Style::Bold, &tilde(text(report, "absolute"))), text(report, "sentence")));
    for (name, label) in [("local", "here"), ("remote", "elsewhere"), ("synced", "last equal")] {
        if report[name].is_object() {
            ui.line(&format!("  {label:<11} {}", version_line(&report[name])));
        }
    }
    let rule = &report["rule"];
    if rule.is_object() {
        ui.line(&format!("  {:<11} {} ({}, line {})", "rule", text(rule, "pattern"), text(rule, "source"), rule["line"]));
    }
    let issue = &report["issue"];
    if issue.is_object() {
        ui.line(&format!("  {} {}   → {}", ui.paint(Style::Warn, "!"), text(issue, "message"), text(issue, "hint")));
    }
    for detail in report["details"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        ui.line(&format!("  {detail}"));
    }
}

/// Runs an ignore command.
pub async fn ignore(context: &Context, command: IgnoreCommand) -> Outcome<u8> {
    let (ui, client) = (&context.ui, &context.client);
    match command {
        IgnoreCommand::List { folder } => {
            let answer = client.get(&format!("/folders/{}/ignores", encode(selector(&folder)?))).await?;
            tell(ui, &answer, || {
                let mut table = Table::new(&["PATTERN", "FROM", "LINE"]).right(2);
                for rule in answer["rules"].as_array().into_iter().flatten() {
                    table.row(vec![text(rule, "pattern").into(), text(rule, "source").into(), rule["line"].to_string()]);
                }
                table.print(ui, "nothing is ignored");
            });
        }
        IgnoreCommand::Add { folder, patterns } => return edit_rules(context, &folder, |rules| add_rules(rules, &patterns)).await,
        IgnoreCommand::Remove { folder, patterns } => return edit_rules(context, &folder, |rules| remove_rules(rules, &patterns)).await,
        IgnoreCommand::Check { paths } => {
            let mut hex_paths = Vec::new();
            for path in &paths {
                hex_paths.push(hex::encode(absolute(path)?.as_os_str().as_bytes()));
            }
            let answer = client.post("/folders/-/ignores/check", &json!({"paths_hex": hex_paths})).await?;
            tell(ui, &answer, || answer["paths"].as_array().into_iter().flatten().for_each(|verdict| print_verdict(ui, verdict)));
        }
    }
    Ok(exit::OK)
}

fn print_verdict(ui: &Ui, verdict: &Value) {
    let rule = &verdict["rule"];
    let because = match rule.is_object() {
        true => format!("   {} ({}, line {})", text(rule, "pattern"), text(rule, "source"), rule["line"]),
        false => String::new(),
    };
    let word = if verdict["ignored"] == true { "ignored" } else { "synced " };
    ui.line(&format!("{word}   {}{because}", tilde(text(verdict, "absolute"))));
}

/// Changes a folder's `.ferryignore`: it is an ordinary file, and syncs as one.
async fn edit_rules(context: &Context, folder: &str, edit: impl FnOnce(&str) -> Outcome<String>) -> Outcome<u8> {
    let folder = context.client.get(&format!("/folders/{}", encode(selector(folder)?))).await?;
    let path = Path::new(text(&folder, "path")).join(".ferryignore");
    let old = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        old => old?,
    };
    let new = edit(&old)?;
    if new != old {
        // Written aside and renamed, so that no half rule is ever in force; in the bookkeeping, which is not synced.
        let bookkeeping = path.with_file_name(".ferry");
        std::fs::create_dir_all(&bookkeeping)?;
        let temporary = bookkeeping.join(format!("ferryignore.{}.tmp", std::process::id()));
        std::fs::write(&temporary, &new)?;
        std::fs::rename(&temporary, &path)?;
    }
    let answer = json!({"type": "ignores_changed", "path": crate::config::shown(&path), "changed": new != old});
    tell(&context.ui, &answer, || {
        context.ui.done(&format!("{} is {}", crate::config::shown(&path), if new == old { "unchanged" } else { "changed" }))
    });
    Ok(exit::OK)
}

fn add_rules(old: &str, patterns: &[String]) -> Outcome<String> {
    let mut new = old.to_owned();
    for pattern in patterns {
        if pattern.trim().is_empty() || pattern.contains(['\n', '\r', '\0']) {
            return Err(Problem::usage("a pattern is one line that is not empty"));
        }
        if old.lines().any(|line| line == pattern) {
            continue;
        }
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(pattern);
        new.push('\n');
    }
    Ok(new)
}

fn remove_rules(old: &str, patterns: &[String]) -> Outcome<String> {
    if let Some(missing) = patterns.iter().find(|p| !old.lines().any(|line| line == *p)) {
        let shown = ferry_protocol::name::display_bytes(missing.as_bytes());
        return Err(
            Problem::not_found("rule_not_found", format!("there is no rule '{shown}'")).hint("list them with: ferry ignore list FOLDER")
        );
    }
    Ok(old.lines().filter(|line| !patterns.iter().any(|p| p == line)).map(|line| format!("{line}\n")).collect())
}

/// Runs a conflict command.
pub async fn conflict(context: &Context, command: ConflictCommand) -> Outcome<u8> {
    let (ui, client) = (&context.ui, &context.client);
    match command {
        ConflictCommand::List => {
            let answer = client.get("/conflicts").await?;
            tell(ui, &answer, || {
                let mut table = Table::new(&["ID", "FOLDER", "FILE", "OTHER VERSION", "FROM", "WHEN"]);
                for item in answer["conflicts"].as_array().into_iter().flatten() {
                    let when = item["wall_ms"].as_i64().map(clock).unwrap_or_default();
                    table.row(
                        [text(item, "id"), text(item, "folder"), text(item, "path"), text(item, "copy"), text(item, "device"), &when]
                            .map(String::from)
                            .to_vec(),
                    );
                }
                table.print(ui, "there is no conflict");
            });
        }
        ConflictCommand::Show { id } => {
            let item = find_conflict(context, &id).await?;
            tell(ui, &item, || {
                ui.line(&format!("{}/{}", tilde(text(&item, "root")), text(&item, "path")));
                let when = item["wall_ms"].as_i64().map(clock).unwrap_or_default();
                let size = quantity::bytes(item["size"].as_u64().unwrap_or(0));
                ui.line(&format!("  other version   {}, {size}, by {}, {when}", text(&item, "copy"), text(&item, "device")));
                ui.line(&format!("  settle it with  ferry conflict resolve {id} --keep-local | --keep-remote | --keep-both"));
                ui.line("                  or, by its place,  --keep-current | --keep-copy");
            });
        }
        ConflictCommand::Resolve { id, keep } => {
            let keep = keep_word(&keep);
            let answer = client.post(&format!("/conflicts/{}/resolve", encode(&id)), &json!({"keep": keep})).await?;
            tell(ui, &answer, || ui.done("The conflict is settled"));
        }
    }
    Ok(exit::OK)
}

fn keep_word(keep: &KeepArgs) -> &'static str {
    let words = [
        (keep.keep_local, "local"),
        (keep.keep_remote, "remote"),
        (keep.keep_current, "current"),
        (keep.keep_copy, "copy"),
        (true, "both"),
    ];
    words.into_iter().find(|(chosen, _)| *chosen).map_or("both", |(_, word)| word)
}

async fn find_conflict(context: &Context, id: &str) -> Outcome<Value> {
    let answer = context.client.get("/conflicts").await?;
    let mut item = answer["conflicts"].as_array().into_iter().flatten().find(|c| c["id"] == id).cloned().ok_or_else(|| {
        let shown = ferry_protocol::name::display_bytes(id.as_bytes());
        Problem::not_found("conflict_not_found", format!("there is no conflict '{shown}'")).hint("list them with: ferry conflict list")
    })?;
    item["type"] = "conflict".into();
    Ok(item)
}

/// Runs a trash command.
pub async fn trash(context: &Context, command: TrashCommand) -> Outcome<u8> {
    let (ui, client) = (&context.ui, &context.client);
    match command {
        TrashCommand::List { folder, relay: true } => {
            let query = folder.map(|f| selector(&f)).transpose()?.map(|f| format!("?folder={}", encode(f))).unwrap_or_default();
            let answer = client.get(&format!("/relay/trash{query}")).await?;
            tell(ui, &answer, || {
                let mut table = Table::new(&["ID", "NAME", "SIZE", "WHEN"]).right(2);
                for item in answer["items"].as_array().into_iter().flatten() {
                    let size = quantity::bytes(item["file_size"].as_u64().unwrap_or(0));
                    let name = ferry_protocol::name::display_bytes(text(item, "file_name").as_bytes());
                    table.row([text(item, "file_id"), &name, &size, text(item, "deleted_at")].map(String::from).to_vec());
                }
                table.print(ui, "the relay's trash of this folder is empty");
            });
        }
        TrashCommand::List { folder, relay: false } => {
            let query = folder.map(|f| selector(&f)).transpose()?.map(|f| format!("?folder={}", encode(f))).unwrap_or_default();
            let answer = client.get(&format!("/trash{query}")).await?;
            tell(ui, &answer, || {
                let mut table = Table::new(&["ID", "FOLDER", "PATH", "WHY", "SIZE", "WHEN"]).right(4);
                for item in answer["items"].as_array().into_iter().flatten() {
                    let when = item["trashed_ms"].as_i64().map(clock).unwrap_or_default();
                    let size = quantity::bytes(item["size"].as_u64().unwrap_or(0));
                    table.row(
                        [text(item, "id"), text(item, "folder"), text(item, "path"), text(item, "reason"), &size, &when]
                            .map(String::from)
                            .to_vec(),
                    );
                }
                table.print(ui, "the trash is empty");
            });
        }
        TrashCommand::Restore { ids, folder, relay } => {
            let path = if relay { "/relay/trash/restore" } else { "/trash/restore" };
            let answer = client.post(path, &json!({"ids": ids, "folder": folder.map(|f| selector(&f)).transpose()?})).await?;
            tell(ui, &answer, || {
                for item in answer["items"].as_array().into_iter().flatten() {
                    ui.done(&format!("{}/{} is back", text(item, "folder"), text(item, "path")));
                }
            });
        }
        TrashCommand::Purge { ids, all, older_than, folder, relay } => {
            if ids.is_empty() && !all && older_than.is_none() {
                return Err(Problem::usage("what is to be removed?").hint("name ids, or give --all or --older-than 30d"));
            }
            ui.confirm("Remove this from the trash for good")?;
            let older_than_ms = older_than.map_or(0, |s| u64::try_from(s.0.as_millis()).unwrap_or(u64::MAX));
            let request = json!({"ids": ids, "older_than_ms": older_than_ms, "folder": folder.map(|f| selector(&f)).transpose()?});
            let path = if relay { "/relay/trash/purge" } else { "/trash/purge" };
            let answer = client.post(path, &request).await?;
            tell(ui, &answer, || ui.done(&format!("{} items are gone", answer["count"])));
        }
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_added_once_and_removed_exactly() {
        let patterns = ["*.o".to_owned(), "target/".to_owned()];
        let rules = add_rules("# mine\n*.o", &patterns).unwrap();
        assert_eq!(rules, "# mine\n*.o\ntarget/\n");
        assert_eq!(remove_rules(&rules, &patterns).unwrap(), "# mine\n");
        assert_eq!(remove_rules(&rules, &["x".into()]).unwrap_err().code, "rule_not_found");
        assert!(add_rules("", &["a\nb".into()]).is_err());
    }
}
