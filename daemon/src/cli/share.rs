//! `ferry share`: folders and files shared with people.

use super::args::ShareCommand;
use super::client::encode;
use super::{Context, absolute, selector, tilde};
use crate::folder::path_text;
use crate::problem::{Outcome, exit};
use crate::ui::Ui;
use crate::ui::table::Table;
use serde_json::{Value, json};
use std::path::Path;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn tell(ui: &Ui, answer: &Value, human: impl FnOnce()) {
    if ui.json { ui.document(answer) } else { human() }
}

/// What the user named: a folder's name or id, or a path.
fn target(path: &Path) -> Outcome<Value> {
    let mut target = json!({"folder": selector(&path.to_string_lossy())?});
    target["path"] = path_text::serialize(&absolute(path)?, serde_json::value::Serializer).unwrap_or_default();
    Ok(target)
}

/// Runs a share command.
pub async fn run(context: &Context, command: ShareCommand) -> Outcome<u8> {
    let (ui, client) = (&context.ui, &context.client);
    match command {
        ShareCommand::Link(command) => return super::share_link::run(context, command).await,
        ShareCommand::Invite { path, user, role } => {
            let wish = json!({"target": target(&path)?, "email": user, "role": role.as_str()});
            let answer = client.post("/relay/shares", &wish).await?;
            tell(ui, &answer, || ui.done(&invited(&answer)));
        }
        ShareCommand::Members { path } => {
            let answer = client.post("/relay/shares/people", &json!({"target": target(&path)?})).await?;
            tell(ui, &answer, || members(ui, &answer));
        }
        ShareCommand::Remove { path, user } => {
            let answer = client.post("/relay/shares/remove", &json!({"target": target(&path)?, "email": user})).await?;
            tell(ui, &answer, || {
                ui.done(&format!(
                    "\"{}\" is no longer shared with {}; what is on their devices stays there",
                    shared(&answer),
                    text(&answer, "email")
                ));
            });
        }
        ShareCommand::Leave { path } => {
            ui.confirm("Leave the folder? The files here stay, and are not synced any more")?;
            let answer = client.post("/relay/shares/leave", &json!({"target": target(&path)?})).await?;
            tell(ui, &answer, || {
                ui.done(&format!("You left \"{}\"; its files stay in {}", text(&answer, "folder"), tilde(text(&answer, "path"))));
            });
        }
        ShareCommand::Pending => {
            let answer = client.get("/relay/shares?with=me&state=pending").await?;
            tell(ui, &answer, || pending(ui, &answer));
        }
        ShareCommand::Accept { id, folder, name } => {
            let mut wish = json!({});
            if let Some(folder) = &folder {
                let path = std::path::absolute(folder)?;
                wish["add"] = json!({ "name": name });
                wish["add"]["path"] = path_text::serialize(&path, serde_json::value::Serializer).unwrap_or_default();
            }
            let answer = client.post(&format!("/relay/shares/{}/accept", encode(&id)), &wish).await?;
            tell(ui, &answer, || accepted(ui, &answer));
        }
        ShareCommand::Decline { id } => {
            let answer = client.post(&format!("/relay/shares/{}/decline", encode(&id)), &json!({})).await?;
            tell(ui, &answer, || ui.done("Declined"));
        }
    }
    Ok(exit::OK)
}

/// What is shared, in words.
fn shared(answer: &Value) -> String {
    let folder = text(answer, "folder");
    if answer["file_id"].is_string() { format!("a file in {folder}") } else { folder.to_owned() }
}

fn invited(answer: &Value) -> String {
    let (email, role) = (text(answer, "email"), text(answer, "role"));
    match text(answer, "state") {
        "accepted" => format!("{email} is {role} of \"{}\" now", shared(answer)),
        _ => format!("{email} is invited to \"{}\" as {role}; whoever has the account of this address finds it there", shared(answer)),
    }
}

fn members(ui: &Ui, answer: &Value) {
    let mut table = Table::new(&["PERSON", "NAME", "ROLE", "STATE"]);
    for share in answer["members"].as_array().into_iter().flatten() {
        let name = share["with"]["name"].as_str().unwrap_or("-");
        let state = if text(share, "state") == "pending" { "invited" } else { "member" };
        table.row(vec![text(&share["with"], "email").into(), name.into(), text(share, "role").into(), state.into()]);
    }
    table.print(ui, "it is shared with nobody; invite somebody with: ferry share invite PATH USER");
}

fn pending(ui: &Ui, answer: &Value) {
    let mut table = Table::new(&["FOLDER", "FROM", "ROLE", "ID"]);
    for share in answer["shares"].as_array().into_iter().flatten() {
        let id = text(share, "share_id");
        let id = if ui.plain { id } else { id.get(..8).unwrap_or(id) };
        let cells = [text(share, "name"), text(&share["shared_by"], "email"), text(share, "role"), id];
        table.row(cells.map(|cell| ferry_protocol::name::display_bytes(cell.as_bytes())).to_vec());
    }
    table.print(ui, "no invitation waits");
}

fn accepted(ui: &Ui, answer: &Value) {
    match answer["path"].as_str() {
        Some(path) => ui.done(&format!("Syncing {} as \"{}\" ({})", tilde(path), text(answer, "folder"), text(answer, "role"))),
        None => {
            ui.done(&format!("Accepted, as {}", text(answer, "role")));
            ui.line(&format!("  sync it here with: ferry folder add PATH --remote {}", text(answer, "id").replace('-', "")));
        }
    }
}
