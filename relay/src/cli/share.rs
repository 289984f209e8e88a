//! Commands for shares. They work on the database itself, whether the relay runs or not: what is revoked opens nothing from then on, and devices that
//! are connected hear of it with their next question.

use super::accounts::{all_users, done, open};
use super::{Global, Outcome};
use crate::http::time_text;
use crate::service::sharing::{ShareDoc, ShareRef, ShareState, SharedThing};
use clap::Subcommand;
use ferry_protocol::wire::Role;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Subcommand)]
pub(super) enum ShareCommand {
    /// What a user shares and what is shared with the user, or all shares
    List {
        /// The e-mail address
        email: Option<String>,
    },
    /// End a share: an invitation, a membership or a shared file
    Revoke {
        /// Its id, as the list shows it
        share_id: String,
    },
}

pub(super) async fn share(global: &Global, command: ShareCommand) -> Outcome {
    let app = open(global).await?;
    match command {
        ShareCommand::List { email } => {
            let users = match email {
                Some(email) => vec![app.accounts.user_by_email(&email).await?],
                None => all_users(&app).await?,
            };
            // A share of two users is one.
            let mut shares: BTreeMap<String, ShareDoc> = BTreeMap::new();
            for user in users {
                let list = app.sharing.list_for_operator(user.user_id).await?;
                shares.extend(list.into_iter().map(|share| (share.share.to_string(), share)));
            }
            let lines: Vec<String> = shares.values().map(line).collect();
            let rows: Vec<Value> = shares.values().map(row).collect();
            done(global, &app, lines.join("\n"), json!({"shares": rows})).await
        }
        ShareCommand::Revoke { share_id } => {
            let share: ShareRef = share_id.parse()?;
            app.sharing.revoke(None, share).await?;
            done(global, &app, "share ended".into(), json!({"share_id": share.to_string(), "revoked": true})).await
        }
    }
}

fn role(share: &ShareDoc) -> &'static str {
    if share.role >= Role::Editor { "editor" } else { "viewer" }
}

fn state(share: &ShareDoc) -> &'static str {
    if share.state == ShareState::Pending { "pending" } else { "accepted" }
}

/// Folders by their names, files by their ids: an operator need not know what people keep.
fn what(share: &ShareDoc) -> (&'static str, String) {
    match &share.what {
        SharedThing::Folder(name) => ("folder", ferry_protocol::name::display_bytes(name.as_bytes())),
        SharedThing::File(id, _) => ("file", id.to_string()),
    }
}

fn line(share: &ShareDoc) -> String {
    let (kind, name) = what(share);
    let since = time_text(share.created_at_ms);
    format!("{}\t{kind} {name}\t{} -> {}\t{}\t{}\tsince {since}", share.share, share.by.email, share.with.email, role(share), state(share))
}

fn row(share: &ShareDoc) -> Value {
    let (kind, name) = what(share);
    json!({
        "share_id": share.share.to_string(), "kind": kind, "what": name, "space_id": share.namespace, "shared_by": share.by.email,
        "with": share.with.email, "role": role(share), "state": state(share), "created_at": time_text(share.created_at_ms),
    })
}
