//! `ferry share link`: public links to files and folders.

use super::args::PasswordArgs;
use super::client::{encode, encode_path};
use super::login::qr;
use super::status::plural;
use super::{Context, absolute, tilde};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity::Span;
use crate::ui::Ui;
use crate::ui::table::Table;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// `ferry share link`
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Make a link
    #[command(
        after_long_help = "Examples:\n  ferry share link create ~/Ferry/plan.odt --expires 7d --max-downloads 5\n  ferry share link create ~/Ferry/photos --password-stdin < password\n  ferry share link create ~/Ferry/inbox --upload-only      others put files in and see nothing\n\nWhoever has the address may use it; --view-only offers no download, which keeps nobody from keeping what a browser shows."
    )]
    Create(CreateArgs),
    /// List links
    List {
        /// Only those to this path and what is below it
        path: Option<PathBuf>,
    },
    /// Show one link
    Show {
        /// Its address or id
        link: String,
        /// Also as a QR code
        #[arg(long)]
        qr: bool,
    },
    /// Change a link
    #[command(
        after_long_help = "Examples:\n  ferry share link edit URL --expires 30d\n  ferry share link edit URL --password-stdin < password     whoever gave the old one has to give the new one\n  ferry share link edit URL --no-password --no-limit"
    )]
    Edit(EditArgs),
    /// End links, at once and for everybody
    Revoke {
        /// Their addresses or ids
        #[arg(required = true)]
        links: Vec<String>,
    },
}

/// `ferry share link create`
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// A file or folder in a synced folder
    pub path: PathBuf,
    /// End the link after this time, for example 7d
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Span>,
    /// How a password for the link is given
    #[command(flatten)]
    pub password: PasswordArgs,
    /// End the link after so many downloads
    #[arg(long, value_name = "N", conflicts_with = "upload_only")]
    pub max_downloads: Option<u64>,
    /// Let others put files into the folder, and see nothing of it
    #[arg(long, conflicts_with = "view_only")]
    pub upload_only: bool,
    /// Offer no download
    #[arg(long)]
    pub view_only: bool,
    /// Also as a QR code
    #[arg(long)]
    pub qr: bool,
}

/// `ferry share link edit`
#[derive(Debug, Clone, Args)]
pub struct EditArgs {
    /// Its address or id
    pub link: String,
    /// End it after this time from now
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Span>,
    /// It does not end by itself
    #[arg(long, conflicts_with = "expires")]
    pub no_expiry: bool,
    /// How a new password is given
    #[command(flatten)]
    pub password: PasswordArgs,
    /// It needs no password
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
    pub no_password: bool,
    /// So many downloads, those so far included
    #[arg(long, value_name = "N")]
    pub max_downloads: Option<u64>,
    /// Any number of downloads
    #[arg(long, conflicts_with = "max_downloads")]
    pub no_limit: bool,
    /// Offer no download
    #[arg(long)]
    pub view_only: bool,
    /// Offer the download
    #[arg(long, conflicts_with = "view_only")]
    pub download: bool,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Runs a link command.
pub async fn run(context: &Context, command: LinkCommand) -> Outcome<u8> {
    match command {
        LinkCommand::Create(args) => create(context, args).await,
        LinkCommand::List { path } => list(context, path).await,
        LinkCommand::Show { link, qr } => {
            let mut found = find(context, &link).await?;
            if context.ui.json {
                found["type"] = "link".into();
                context.ui.document(&found);
            } else {
                show(&context.ui, &found, qr);
            }
            Ok(exit::OK)
        }
        LinkCommand::Edit(args) => edit(context, args).await,
        LinkCommand::Revoke { links } => revoke(context, &links).await,
    }
}

async fn create(context: &Context, args: CreateArgs) -> Outcome<u8> {
    let path = absolute(&args.path)?;
    let path = path.to_str().ok_or_else(|| Problem::usage("the path is not UTF-8; share its folder, or rename it").code("path_invalid"))?;
    let kind = match (args.upload_only, args.view_only) {
        (true, _) => "upload",
        (_, true) => "view",
        _ => "download",
    };
    let mut request = json!({"path": path, "kind": kind});
    if let Some(Span(after)) = args.expires {
        request["expires_in"] = after.as_secs().into();
    }
    if let Some(password) = password(context, &args.password)? {
        request["password"] = password.into();
    }
    if let Some(max) = args.max_downloads {
        request["max_downloads"] = max.into();
    }
    let answer = context.client.post("/relay/links", &request).await?;
    tell(context, &answer, args.qr);
    Ok(exit::OK)
}

/// A changed or new link: the address alone on the first line, so that it can be taken from there.
fn tell(context: &Context, answer: &Value, with_qr: bool) {
    let link = &answer["link"];
    if context.ui.json {
        context.ui.document(answer);
    } else {
        show(&context.ui, link, with_qr);
    }
}

fn show(ui: &Ui, link: &Value, with_qr: bool) {
    let url = link["url"].as_str().unwrap_or("(the relay cannot show this address any more: make another link)");
    ui.line(url);
    ui.line(&format!("  {}", bounds(link)));
    ui.line(&format!("  {}  {}", opens(link), text(link, "link_id")));
    if with_qr && let Some(code) = link["url"].as_str().and_then(qr) {
        ui.line(&code);
    }
}

/// What bounds a link, in words.
fn bounds(link: &Value) -> String {
    let mut parts = Vec::new();
    match text(link, "state") {
        "expired" => parts.push("has ended".into()),
        "used_up" => parts.push("used up".into()),
        "gone" => parts.push("what it opened is gone".into()),
        _ => {}
    }
    parts.push(match link["expires_at"].as_str() {
        Some(at) => format!("expires {}", local(at)),
        None => "does not expire".to_owned(),
    });
    let downloads = link["downloads"].as_u64().unwrap_or(0);
    match (text(link, "kind"), link["max_downloads"].as_u64()) {
        ("upload", _) => parts.push("uploads only".into()),
        (kind, max) => {
            parts.push(match max {
                Some(max) => format!("{downloads} of {max} downloads"),
                None => plural(downloads, "download", "downloads"),
            });
            if kind == "view" {
                parts.push("view only".into());
            }
        }
    }
    parts.push(if link["has_password"] == true { "password".into() } else { "no password".into() });
    parts.join(" · ")
}

fn opens(link: &Value) -> String {
    let at = link["absolute"].as_str().map(tilde).or_else(|| link["path"].as_str().map(str::to_owned));
    at.map_or_else(|| "(gone)".to_owned(), |at| ferry_protocol::name::display_bytes(at.as_bytes()))
}

fn local(at: &str) -> String {
    let zoned = at.parse::<Timestamp>().map(|at| at.to_zoned(TimeZone::system()));
    zoned.map_or_else(|_| at.to_owned(), |at| at.strftime("%a %d %b %Y %H:%M").to_string())
}

async fn list(context: &Context, path: Option<PathBuf>) -> Outcome<u8> {
    let query = match path {
        Some(path) => format!("?path={}", encode_path(&absolute(&path)?)),
        None => String::new(),
    };
    let answer = context.client.get(&format!("/relay/links{query}")).await?;
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(exit::OK);
    }
    let mut table = Table::new(&["ADDRESS", "OPENS", "BOUNDS"]);
    for link in answer["links"].as_array().into_iter().flatten() {
        let address = link["url"].as_str().unwrap_or_else(|| text(link, "link_id"));
        table.row(vec![address.to_owned(), opens(link), bounds(link)]);
    }
    table.print(&context.ui, "there is no link");
    Ok(exit::OK)
}

/// The link with this address or id.
async fn find(context: &Context, wanted: &str) -> Outcome<Value> {
    let answer = context.client.get("/relay/links").await?;
    // The secret alone, or with whatever page of it was open.
    let secret = |url: &str| url.split_once("/s/").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned());
    let wanted_secret = secret(wanted).filter(|s| !s.is_empty());
    let is_it = |link: &&Value| match &wanted_secret {
        Some(wanted) => link["url"].as_str().and_then(secret).as_ref() == Some(wanted),
        None => text(link, "link_id").replace('-', "").eq_ignore_ascii_case(&wanted.replace('-', "")),
    };
    answer["links"].as_array().into_iter().flatten().find(is_it).cloned().ok_or_else(|| {
        let shown = ferry_protocol::name::display_bytes(wanted.as_bytes());
        Problem::not_found("link_not_found", format!("there is no link '{shown}'")).hint("list them with: ferry share link list")
    })
}

async fn edit(context: &Context, args: EditArgs) -> Outcome<u8> {
    let mut change = Map::new();
    if let Some(Span(after)) = args.expires {
        change.insert("expires_in".into(), after.as_secs().into());
    }
    if args.no_expiry {
        change.insert("expires_at".into(), Value::Null);
    }
    if let Some(password) = password(context, &args.password)? {
        change.insert("password".into(), password.into());
    }
    if args.no_password {
        change.insert("password".into(), Value::Null);
    }
    if args.no_limit {
        change.insert("max_downloads".into(), Value::Null);
    }
    if let Some(max) = args.max_downloads {
        change.insert("max_downloads".into(), max.into());
    }
    if args.view_only || args.download {
        change.insert("kind".into(), if args.view_only { "view" } else { "download" }.into());
    }
    if change.is_empty() {
        return Err(Problem::usage("what is to change?").hint("see: ferry share link edit --help"));
    }
    let link = find(context, &args.link).await?;
    let answer = context.client.patch(&format!("/relay/links/{}", encode(text(&link, "link_id"))), &Value::Object(change)).await?;
    tell(context, &answer, false);
    Ok(exit::OK)
}

async fn revoke(context: &Context, links: &[String]) -> Outcome<u8> {
    // All are found before the first ends: a mistyped one ends none.
    let mut found = Vec::new();
    for link in links {
        found.push(find(context, link).await?);
    }
    let mut ended = Vec::new();
    for link in &found {
        let id = text(link, "link_id");
        context.client.delete(&format!("/relay/links/{}", encode(id))).await?;
        context.ui.done(&format!("The link to {} has ended", opens(link)));
        ended.push(id.to_owned());
    }
    if context.ui.json {
        context.ui.document(&json!({"type": "links_revoked", "link_ids": ended}));
    }
    Ok(exit::OK)
}

/// The password, if one is to be given.
fn password(context: &Context, args: &PasswordArgs) -> Outcome<Option<String>> {
    let is_given = args.password_stdin || args.password_file.is_some();
    is_given.then(|| super::daemon::password(context, args)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_a_sentence() {
        let link = json!({"state": "active", "kind": "download", "downloads": 2, "max_downloads": 5, "has_password": false});
        assert_eq!(bounds(&link), "does not expire · 2 of 5 downloads · no password");
        let link = json!({"state": "gone", "kind": "upload", "downloads": 0, "has_password": true});
        assert_eq!(bounds(&link), "what it opened is gone · does not expire · uploads only · password");
        let link = json!({"state": "active", "kind": "view", "downloads": 1, "expires_at": "2026-11-29T10:41:00Z", "has_password": false});
        assert!(bounds(&link).starts_with("expires ") && bounds(&link).contains("2026") && bounds(&link).contains("view only"));
    }
}
