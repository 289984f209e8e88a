//! The one command for a newcomer: `ferry up`, and `ferry join` on the next device.
//!
//! Both run the daemon in this process if none runs yet, and tell it what to do over its socket, as every other command does. Run again they
//! find what is there and go on (U4).

mod addresses;
#[cfg(feature = "embedded-relay")]
mod relay;
mod show;

pub use addresses::addresses_of;

use crate::cli::Context;
use crate::cli::args::{JoinArgs, UpArgs};
use crate::cli::daemon::{log_to_stderr, password, perform};
use crate::problem::{Outcome, Problem, exit};
use crate::relay::{JoinCode, RelayUrl};
use crate::supervisor::{self, Daemon};
use ferry_protocol::NamespaceId;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "embedded-relay")]
use relay::HostedRelay;

/// The daemon that does the work: in this process, or one that was running already.
enum Foreground {
    Here { daemon: Arc<Daemon>, ended: tokio::task::JoinHandle<Outcome<()>> },
    Elsewhere,
}

impl Foreground {
    async fn start(context: &Context) -> Outcome<Self> {
        if context.client.is_running().await {
            return Ok(Self::Elsewhere);
        }
        let started = supervisor::start(supervisor::Options { paths: context.paths.clone(), flags: Vec::new() }).await?;
        let daemon = started.daemon.clone();
        Ok(Self::Here { daemon, ended: tokio::spawn(started.run()) })
    }

    /// Runs `work` until it ends or the daemon is told to stop; then stops the daemon, if it is ours.
    async fn during(self, work: impl Future<Output = Outcome<()>>) -> Outcome<u8> {
        match self {
            Self::Elsewhere => {
                tokio::select! {
                    done = work => done.map(|()| exit::OK),
                    _ = tokio::signal::ctrl_c() => Ok(exit::OK),
                }
            }
            Self::Here { daemon, mut ended } => {
                let done = tokio::select! {
                    done = work => done,
                    ended = &mut ended => return ended.map_err(|e| Problem::failed("daemon_failed", e.to_string()))?.map(|()| exit::OK),
                };
                let asked_to_stop = daemon.stop.is_cancelled();
                daemon.stop.cancel();
                let ended = ended.await.map_err(|e| Problem::failed("daemon_failed", e.to_string()))?;
                // A stop by signal closes the socket under the display: that is the end that was asked for.
                if asked_to_stop { ended } else { done.and(ended) }.map(|()| exit::OK)
            }
        }
    }
}

/// Runs `ferry up`.
pub async fn up(context: &Context, args: UpArgs) -> Outcome<u8> {
    quiet_log(context)?;
    match &args.relay {
        Some(_) => {
            let foreground = Foreground::start(context).await?;
            foreground.during(with_relay(context, &args)).await
        }
        None => host(context, &args).await,
    }
}

/// The log goes to the terminal beside the display: only what matters, unless asked for.
fn quiet_log(context: &Context) -> Outcome<()> {
    if context.verbose == 0 && std::env::var_os("FERRY_LOG_LEVEL").is_none() {
        let filter = tracing_subscriber::EnvFilter::new("warn");
        // A second start in one process keeps the first subscriber.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
        return Ok(());
    }
    log_to_stderr(context)
}

#[cfg(not(feature = "embedded-relay"))]
async fn host(_context: &Context, _args: &UpArgs) -> Outcome<u8> {
    Err(Problem::usage("this ferry was built without a relay")
        .code("no_embedded_relay")
        .hint("name one with: ferry up --relay URL --email EMAIL"))
}

#[cfg(feature = "embedded-relay")]
async fn host(context: &Context, args: &UpArgs) -> Outcome<u8> {
    let relay = HostedRelay::start(&context.paths, args.port).await?;
    let done = match Foreground::start(context).await {
        Ok(foreground) => foreground.during(with_hosted_relay(context, args, &relay)).await,
        Err(problem) => Err(problem),
    };
    relay.stop().await;
    done
}

#[cfg(feature = "embedded-relay")]
async fn with_hosted_relay(context: &Context, args: &UpArgs, relay: &HostedRelay) -> Outcome<()> {
    let linked = linked_to(context, |url| at(url) == relay.device_address()).await?;
    match linked {
        Some(user) if user == relay.user().to_string() => rename(context, args.name.as_deref()).await?,
        Some(_) => return Err(linked_elsewhere("the account of another relay")),
        None => {
            let request = json!({"code": relay.join_code(false).await?, "name": args.name});
            context.client.post("/join", &request).await?;
        }
    }
    let folder = attach(context, args.folder.clone(), Some(relay.home)).await?;
    let code = relay.join_code(true).await?;
    let (email, password) = relay.account();
    let ui = &context.ui;
    if ui.json {
        ui.record(&json!({
            "type": "ready", "web": relay.web_url(), "email": email, "password": relay.is_new.then_some(password), "code": code,
            "folder": folder["path"], "folder_id": folder["id"],
        }));
    } else {
        ui.done(&format!("Syncing {} through the relay on this machine", text(&folder, "path")));
        ui.line(&format!("  Web    {}", relay.web_url()));
        match relay.is_new {
            true => ui.line(&format!("         account {email}   password {password}   (kept in {})", context.paths.up_file().display())),
            false => ui.line(&format!("         account {email}   (its password is in {})", context.paths.up_file().display())),
        }
        ui.line("  On the next device (within 15 minutes; a new code: ferry join):");
        ui.line(&format!("         ferry join {code}"));
        ui.line("  Stop with Ctrl-C; running it again goes on.");
    }
    show::until_stopped(context).await
}

async fn with_relay(context: &Context, args: &UpArgs) -> Outcome<()> {
    let relay = args.relay.as_deref().unwrap_or_default();
    let url: RelayUrl = relay.parse()?;
    let same = format!("{}:{}", url.host(), url.port());
    if linked_to(context, |url| at(url) == same).await?.is_none() {
        let email =
            args.email.clone().ok_or_else(|| Problem::usage("which account?").code("email_needed").hint("name it with --email EMAIL"))?;
        let password = password(context, &args.password)?;
        let answer =
            context.client.post("/login", &json!({"relay": relay, "email": email, "password": password, "name": args.name})).await?;
        if let Some(warning) = answer["warning"].as_str() {
            context.ui.warning(warning);
        }
    } else {
        rename(context, args.name.as_deref()).await?;
    }
    let folder = attach(context, args.folder.clone(), None).await?;
    ready(context, &folder);
    show::until_stopped(context).await
}

/// Runs `ferry join`: with a code it joins; without one it shows a code for another device.
pub async fn join(context: &Context, args: JoinArgs) -> Outcome<u8> {
    let Some(code) = &args.code else { return show_code(context).await };
    quiet_log(context)?;
    let parsed: JoinCode =
        code.parse().map_err(|e: crate::relay::join_code::JoinCodeError| Problem::usage(e.to_string()).code("join_code_invalid"))?;
    let foreground = Foreground::start(context).await?;
    let elsewhere = matches!(foreground, Foreground::Elsewhere);
    foreground
        .during(async {
            let linked = linked_to(context, |url| parsed.addresses.iter().any(|a| *a == at(url))).await?;
            if linked.is_none() {
                perform(context, "/join", json!({"code": code, "name": args.name})).await?;
            } else {
                rename(context, args.name.as_deref()).await?;
            }
            let folder = attach(context, args.folder.clone(), None).await?;
            ready(context, &folder);
            if elsewhere {
                context.ui.message("the daemon that is running here goes on with it; watch it with: ferry status --watch");
                return Ok(());
            }
            show::until_stopped(context).await
        })
        .await
}

async fn show_code(context: &Context) -> Outcome<u8> {
    let answer = context.client.post("/join-code", &json!({})).await?;
    if context.ui.json {
        context.ui.document(&answer);
    } else {
        context.ui.line(&format!("ferry join {}", text(&answer, "code")));
        context.ui.message("good once, for 15 minutes");
    }
    Ok(exit::OK)
}

fn ready(context: &Context, folder: &Value) {
    if context.ui.json {
        context.ui.record(&json!({"type": "ready", "folder": folder["path"], "folder_id": folder["id"]}));
    } else {
        context.ui.done(&format!("Syncing {}", text(folder, "path")));
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// `host:port` of a relay's address; empty if it is none.
fn at(url: &str) -> String {
    url.parse::<RelayUrl>().map(|u| format!("{}:{}", u.host(), u.port())).unwrap_or_default()
}

/// The user under whom this device is linked to a relay that `is` the one wanted; nothing if it is not linked.
async fn linked_to(context: &Context, is: impl Fn(&str) -> bool) -> Outcome<Option<String>> {
    match context.client.get("/whoami").await {
        Ok(who) if is(text(&who, "relay")) => Ok(Some(text(&who, "user_id").to_owned())),
        Ok(who) => Err(linked_elsewhere(text(&who, "relay"))),
        Err(problem) if problem.code == "login_required" => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn linked_elsewhere(what: &str) -> Problem {
    Problem::conflict("linked_elsewhere", format!("this device is already linked to {what}"))
        .hint("unlink it first with: ferry logout, or give this device another FERRY_HOME")
}

async fn rename(context: &Context, name: Option<&str>) -> Outcome<()> {
    if let Some(name) = name {
        context.client.patch("/config", &json!({"device.name": name})).await?;
    }
    Ok(())
}

/// Makes sure that the user's folder is synced here; answers it. `home` is the namespace to attach to, if it is known.
async fn attach(context: &Context, wanted: Option<PathBuf>, home: Option<NamespaceId>) -> Outcome<Value> {
    let path = match &wanted {
        Some(path) => std::path::absolute(path)?,
        None => default_folder()?,
    };
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let here = context.client.get("/folders").await?;
    let folders = here["folders"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(folder) = folders.iter().find(|f| text(f, "path") == crate::config::shown(&real)) {
        return Ok(folder.clone());
    }
    let home = match home {
        Some(home) => Some(home.to_string()),
        None => remote_home(context).await?,
    };
    let attached = folders.iter().find(|f| home.as_deref() == Some(text(f, "id")));
    let mut request = json!({});
    request["path"] = crate::folder::path_text::serialize(&path, serde_json::value::Serializer).unwrap_or_default();
    match (attached, &wanted, home) {
        // Running it again without naming the folder goes on with the one that is there.
        (Some(folder), None, _) => return Ok(folder.clone()),
        // The home folder stands elsewhere already: this is another folder.
        (Some(_), Some(_), _) | (None, _, None) => {}
        (None, _, Some(home)) => request["remote"] = home.into(),
    }
    context.client.post("/folders", &request).await
}

/// The account's home folder on the relay: the one that accounts are made with, else the only one there is.
async fn remote_home(context: &Context) -> Outcome<Option<String>> {
    let answer = context.client.get("/relay/folders").await?;
    let all = answer["folders"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = all.iter().find(|f| f["name"] == "Ferry" && f["role"] == "owner");
    let only = if all.len() == 1 { all.first() } else { None };
    Ok(own.or(only).map(|f| text(f, "id").to_owned()))
}

fn default_folder() -> Outcome<PathBuf> {
    let home = std::env::var_os("HOME").filter(|h| !h.is_empty());
    home.map(|home| PathBuf::from(home).join("Ferry")).ok_or_else(|| Problem::usage("which folder?").hint("name it: ferry up FOLDER"))
}
