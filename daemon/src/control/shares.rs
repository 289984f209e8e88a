//! Sharing with people over the control socket: the relay does it, this finds what is meant and passes it on with the device's login.

use super::files::body;
use crate::folder::path_text;
use crate::problem::{Outcome, Problem};
use crate::relay::{Method, RelayClient};
use crate::supervisor::{AddFolder, Daemon};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as Part, State};
use axum::http::Uri;
use ferry_protocol::{NamespaceId, RelPath};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// Entries of one page of a directory, and most pages that are looked through for a file.
const PAGE: usize = 1000;
const PAGES_MAX: usize = 100;

/// `GET /v1/relay/shares?with=me` or `?by=me`; with `&state=pending` only the invitations that wait.
pub async fn list(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Answer {
    let wanted = match uri.query().unwrap_or_default() {
        "with=me" => "with=me",
        "by=me" | "" => "by=me",
        "with=me&state=pending" => "with=me&state=pending",
        _ => return Err(Problem::usage("ask with=me or by=me").code("invalid_request")),
    };
    let answer = daemon.relay_client().await?.json(Method::GET, &format!("/api/v1/shares?{wanted}"), None).await?;
    Ok(Json(json!({"type": "shares", "shares": answer["shares"]})))
}

/// What is shared: a folder of this device by its name, id or path, or a path in one.
#[derive(Deserialize)]
struct Target {
    /// Name, id, or a path as text.
    folder: String,
    /// The same as an absolute path.
    #[serde(with = "path_text")]
    path: PathBuf,
}

/// A folder, or a file in it, as the relay names them.
struct Found {
    namespace: NamespaceId,
    folder: String,
    file_id: Option<String>,
}

impl Found {
    fn query(&self) -> String {
        match &self.file_id {
            Some(file) => format!("file_id={file}&space_id={}", self.namespace),
            None => format!("space_id={}", self.namespace),
        }
    }
}

async fn find(daemon: &Daemon, relay: &RelayClient, target: &Target) -> Outcome<Found> {
    let (config, below) = match daemon.find(&target.folder) {
        Ok(running) => (running.record.config, RelPath::root()),
        Err(unknown) => match daemon.folder_of_path(&target.path) {
            Ok((running, below)) => (running.record.config, below),
            // Whoever named no path named no folder either.
            Err(elsewhere) => return Err(if target.folder.contains('/') { elsewhere } else { unknown }),
        },
    };
    let file_id = match below.split_last() {
        None => None,
        Some((directory, name)) => Some(file_id(relay, config.id, &directory, name.as_bytes()).await?),
    };
    Ok(Found { namespace: config.id, folder: config.name, file_id })
}

/// The relay's id of a file.
async fn file_id(relay: &RelayClient, namespace: NamespaceId, directory: &RelPath, name: &[u8]) -> Outcome<String> {
    let wanted = String::from_utf8_lossy(name);
    let directory = crate::cli::client::encode(directory.to_bytes());
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/metadata/files?space_id={namespace}&path=/{directory}&limit={PAGE}{after}");
        let page = relay.json(Method::GET, &path, None).await?;
        let entry = page["files"].as_array().into_iter().flatten().find(|f| f["file_name"] == *wanted);
        if let Some(id) = entry.and_then(|f| f["file_id"].as_str()) {
            return Ok(id.to_owned());
        }
        match page["cursor"].as_str() {
            Some(cursor) => after = format!("&cursor={}", crate::cli::client::encode(cursor)),
            None => break,
        }
    }
    let shown = ferry_protocol::name::display_bytes(name);
    Err(Problem::not_found("not_on_relay", format!("the relay does not have '{shown}' yet")).hint("wait until it is synced: ferry wait"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    target: Target,
    email: String,
    role: String,
}

/// `POST /v1/relay/shares` with `{"target", "email", "role"}`
pub async fn invite(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let wish: Invite = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &wish.target).await?;
    let mut request = json!({"email": wish.email, "role": wish.role, "space_id": found.namespace});
    if let Some(file) = &found.file_id {
        request["file_id"] = json!(file);
    }
    // An address that has it already gets the role.
    let people = people_of(&relay, &found).await?;
    let has = person(&people, &wish.email).filter(|share| share["state"] == "accepted" && share["role"] != "owner");
    let answer = match has.and_then(|share| share["share_id"].as_str()) {
        Some(id) => {
            relay.json(Method::PATCH, &format!("/api/v1/shares/{id}"), Some(&json!({"role": wish.role}))).await?;
            json!({"share_id": id, "state": "accepted"})
        }
        None => relay.json(Method::POST, "/api/v1/shares", Some(&request)).await?,
    };
    Ok(Json(json!({
        "type": "invited", "folder": found.folder, "file_id": found.file_id, "email": wish.email, "role": wish.role,
        "share_id": answer["share_id"], "state": answer["state"],
    })))
}

async fn people_of(relay: &RelayClient, found: &Found) -> Outcome<Vec<Value>> {
    let answer = relay.json(Method::GET, &format!("/api/v1/shares?{}", found.query()), None).await?;
    Ok(answer["shares"].as_array().cloned().unwrap_or_default())
}

fn person<'a>(people: &'a [Value], email: &str) -> Option<&'a Value> {
    people.iter().find(|share| share["with"]["email"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(email.trim())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    target: Target,
}

/// `POST /v1/relay/shares/people` with `{"target"}`: who shares it.
pub async fn people(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Of { target } = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &target).await?;
    let people = people_of(&relay, &found).await?;
    Ok(Json(json!({"type": "members", "folder": found.folder, "file_id": found.file_id, "members": people})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    target: Target,
    email: String,
}

/// `POST /v1/relay/shares/remove` with `{"target", "email"}`
pub async fn remove(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Remove { target, email } = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &target).await?;
    let people = people_of(&relay, &found).await?;
    let shown = ferry_protocol::name::display_bytes(email.as_bytes());
    let Some(id) = person(&people, &email).and_then(|share| share["share_id"].as_str()) else {
        return Err(Problem::not_found("not_shared_with", format!("this is not shared with '{shown}'"))
            .hint("see with whom it is: ferry share members PATH"));
    };
    relay.json(Method::DELETE, &format!("/api/v1/shares/{id}"), None).await?;
    Ok(Json(json!({"type": "share_removed", "folder": found.folder, "file_id": found.file_id, "email": email})))
}

/// `POST /v1/relay/shares/leave` with `{"target"}`: this user is no member any more, and the folder is not synced here; its files stay.
pub async fn leave(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let Of { target } = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let found = find(&daemon, &relay, &target).await?;
    if found.file_id.is_some() {
        return Err(Problem::usage("only a whole folder can be left"));
    }
    let account = daemon.account.borrow().clone().ok_or_else(Problem::login_required)?;
    relay.json(Method::DELETE, &format!("/api/v1/shares/{}{}", found.namespace, account.user_id), None).await?;
    let record = daemon.remove_folder(&found.namespace.to_string()).await?;
    let path = crate::config::shown(&record.config.path);
    Ok(Json(json!({"type": "share_left", "folder": found.folder, "id": found.namespace, "path": path})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accept {
    /// Where the folder is to be on this device; nowhere yet without it.
    #[serde(default)]
    add: Option<AddFolder>,
}

/// `POST /v1/relay/shares/{share}/accept|decline` with `{"add"?}`
pub async fn answer(State(daemon): State<Arc<Daemon>>, Part((share, answer)): Part<(String, String)>, bytes: Bytes) -> Answer {
    let Accept { add } = body(&bytes)?;
    let relay = daemon.relay_client().await?;
    let id = chosen(&relay, &share).await?;
    match answer.as_str() {
        "decline" => {
            relay.json(Method::POST, &format!("/api/v1/shares/{id}/decline"), None).await?;
            daemon.folders_changed.notify_one();
            Ok(Json(json!({"type": "share_declined", "share_id": id})))
        }
        "accept" => {
            let accepted = relay.json(Method::POST, &format!("/api/v1/shares/{id}/accept"), None).await?;
            daemon.folders_changed.notify_one();
            let mut document = json!({"type": "share_accepted", "share_id": id, "id": accepted["space_id"], "role": accepted["role"]});
            if let Some(mut add) = add {
                add.remote = accepted["space_id"].as_str().map(|id| id.replace('-', ""));
                let running = daemon.add_folder(add).await.map_err(|problem| {
                    let hint = "the invitation is accepted; put the folder somewhere with: ferry folder add PATH --remote FOLDER";
                    Problem { hint: if problem.hint.is_empty() { hint.into() } else { format!("{}; {hint}", problem.hint) }, ..problem }
                })?;
                document["folder"] = json!(running.record.config.name);
                document["path"] = json!(crate::config::shown(&running.record.config.path));
            }
            Ok(Json(document))
        }
        _ => Err(Problem::not_found("no_such_endpoint", "an invitation is accepted or declined")),
    }
}

/// The invitation that is meant: by its id, the beginning of it, or the folder's name, if that is one only.
async fn chosen(relay: &RelayClient, wanted: &str) -> Outcome<String> {
    let answer = relay.json(Method::GET, "/api/v1/shares?with=me&state=pending", None).await?;
    let waiting = answer["shares"].as_array().cloned().unwrap_or_default();
    let id = |share: &Value| share["share_id"].as_str().unwrap_or_default().to_owned();
    let mut meant = waiting.iter().filter(|share| (wanted.len() >= 4 && id(share).starts_with(wanted)) || share["name"] == wanted);
    let shown = ferry_protocol::name::display_bytes(wanted.as_bytes());
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(id(one)),
        (None, _) => Err(Problem::not_found("invitation_not_found", format!("no invitation '{shown}' waits for you"))
            .hint("list them with: ferry share pending")),
        _ => {
            Err(Problem::conflict("ambiguous", format!("'{shown}' fits several invitations"))
                .hint("name it by its id: ferry share pending"))
        }
    }
}
