//! The command line: a client of the daemon. Interrupting it never interrupts syncing.

pub mod activity;
pub mod args;
pub mod client;
pub mod daemon;
mod doctor;
mod folder;
pub mod history;
mod items;
mod login;
pub mod peer;
pub mod retention;
mod rewind;
mod search;
mod service;
mod settings;
mod share;
mod share_link;
pub mod status;
pub mod watch;

use crate::paths::{Given, Paths};
use crate::problem::{Outcome, Problem, exit};
use crate::ui::{Color, Ui};
use args::{Cli, Command};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use client::Client;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What every command has at hand.
pub struct Context {
    /// The way to the user.
    pub ui: Ui,
    /// Where things are.
    pub paths: Paths,
    /// The way to the daemon.
    pub client: Client,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// Runs a command line; answers its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Before anything is parsed, an error must already know its form.
    let json = arguments.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json");
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => ExitCode::from(dispatch(cli)),
        Err(e) => ExitCode::from(refuse(&e, json)),
    }
}

fn refuse(error: &clap::Error, json: bool) -> u8 {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || !json {
        // Nobody is left to tell.
        let _ = error.print();
        return if asked { exit::OK } else { exit::USAGE };
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let hint = text.lines().skip(1).find(|l| l.trim_start().starts_with("tip:")).unwrap_or("see: ferry help").trim().to_owned();
    Ui::new(true, false, Color::Never, false, true, false).problem(&Problem::usage(message).hint(hint));
    exit::USAGE
}

fn dispatch(cli: Cli) -> u8 {
    let global = cli.global;
    let ui = Ui::new(global.json, global.plain, global.color, global.quiet, global.no_input, global.yes);
    let outcome = (|| {
        // One provider for the process; a second call finds the first and that is what is wanted.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let paths = Paths::find(&Given { home: global.home, config: global.config, socket: global.socket })
            .map_err(|e| Problem::failed("no_home", e.to_string()))?;
        let client = Client::new(&paths);
        let context = Context { ui, paths, client, verbose: global.verbose };
        runtime(&cli.command)?.block_on(async {
            // The daemon and `ferry up` end in order by themselves; everything else ends at once.
            if runs_daemon(&cli.command) {
                return command(&context, cli.command).await;
            }
            tokio::select! {
                done = command(&context, cli.command) => done,
                _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
            }
        })
    })();
    outcome.unwrap_or_else(|problem: Problem| {
        ui.problem(&problem);
        problem.exit_code
    })
}

fn runs_daemon(command: &Command) -> bool {
    matches!(command, Command::Daemon(_) | Command::Up(_)) || matches!(command, Command::Join(args) if args.code.is_some())
}

fn runtime(command: &Command) -> Outcome<tokio::runtime::Runtime> {
    let mut builder = if runs_daemon(command) {
        crate::memory::few_arenas();
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    Ok(builder.enable_all().build()?)
}

/// Runs one command; answers its exit code.
async fn command(context: &Context, command: Command) -> Outcome<u8> {
    match command {
        Command::Daemon(args) => daemon::run(context, args).await,
        Command::Up(args) => crate::up::up(context, args).await,
        Command::Join(args) => crate::up::join(context, args).await,
        // On the heap: the state of a login is large, and every command would carry it.
        Command::Login(args) => Box::pin(daemon::login(context, args)).await,
        Command::Logout => daemon::logout(context).await,
        Command::Whoami => daemon::whoami(context).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Wait(args) => status::wait(context, args).await,
        Command::Why { path } => items::why(context, &path).await,
        Command::Activity(args) => activity::run(context, args).await,
        Command::Search(args) => search::run(context, args).await,
        Command::Transfers { watch } => watch::transfers(context, watch).await,
        Command::Tui => Box::pin(crate::tui::run(context)).await,
        Command::Pause(args) => folder::pause(context, args).await,
        Command::Resume { folder } => folder::resume(context, folder).await,
        Command::Folder(args) => folder::run(context, args).await,
        Command::Share(args) => share::run(context, args).await,
        Command::Ignore(args) => items::ignore(context, args).await,
        Command::Conflict(args) => items::conflict(context, args).await,
        Command::History(args) => history::history(context, args).await,
        Command::Diff(args) => history::diff(context, args).await,
        Command::Restore(args) => history::restore(context, args).await,
        Command::Retention(args) => retention::run(context, args).await,
        Command::Trash(args) => items::trash(context, args).await,
        Command::Peer(args) => peer::run(context, args).await,
        Command::Limit(args) => settings::limit(context, args).await,
        Command::Config(args) => settings::config(context, args).await,
        Command::Doctor => doctor::run(context).await,
        Command::Service(args) => service::run(context, &args),
        Command::Completion { shell } => completion(context, shell),
        Command::Man { output } => man(context, &output),
        Command::Version => version(context).await,
    }
}

fn completion(context: &Context, shell: clap_complete::Shell) -> Outcome<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ferry", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.ui.json {
        context.ui.document(&json!({"type": "completion", "shell": shell.to_string(), "script": script}));
    } else {
        context.ui.text(&script);
    }
    Ok(exit::OK)
}

fn man(context: &Context, folder: &Path) -> Outcome<u8> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|e| Problem::failed("man", format!("cannot write pages to {}: {e}", crate::config::shown(folder))))?;
    if context.ui.json {
        context.ui.document(&json!({"type": "man", "directory": crate::config::shown(folder)}));
    } else {
        context.ui.done(&format!(
            "pages are in {}; read one with: man -l {}/ferry.1",
            tilde(&crate::config::shown(folder)),
            crate::config::shown(folder)
        ));
    }
    Ok(exit::OK)
}

async fn version(context: &Context) -> Outcome<u8> {
    let own = env!("CARGO_PKG_VERSION");
    let daemon = context.client.get("/version").await.ok();
    let theirs = daemon.as_ref().and_then(|v| v["version"].as_str());
    if context.ui.json {
        context.ui.document(&json!({"type": "version", "version": own, "daemon": daemon}));
    } else {
        context.ui.line(&format!("ferry {own}"));
        context.ui.line(&theirs.map_or("daemon not running".into(), |v| format!("daemon {v}")));
    }
    if theirs.is_some_and(|v| v != own) {
        context.ui.warning("the running daemon is of another version: run ferry service restart");
    }
    Ok(exit::OK)
}

/// A path as the user gave it, made absolute: links in its directory are resolved, but not the last part, which may be a synced link or gone.
pub fn absolute(path: &Path) -> Outcome<PathBuf> {
    let lexical = normal(&std::path::absolute(path)?);
    let (Some(dir), Some(name)) = (lexical.parent(), lexical.file_name()) else { return Ok(lexical) };
    // The nearest directory that exists; what is below it may be gone on this device.
    let mut existing = dir;
    let mut rest = vec![name];
    while !existing.exists() {
        let (Some(parent), Some(part)) = (existing.parent(), existing.file_name()) else { break };
        rest.push(part);
        existing = parent;
    }
    let mut found = existing.canonicalize().unwrap_or_else(|_| existing.to_owned());
    found.extend(rest.into_iter().rev());
    Ok(found)
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// A path of this machine for people: the home directory as `~`.
pub fn tilde(path: &str) -> String {
    tilde_of(path, &std::env::var("HOME").unwrap_or_default())
}

/// [`tilde`] for this home directory.
pub fn tilde_of(path: &str, home: &str) -> String {
    match path.strip_prefix(home).filter(|_| home.len() > 1) {
        Some("") => "~".into(),
        Some(rest) if rest.starts_with('/') => format!("~{rest}"),
        _ => path.to_owned(),
    }
}

/// What a user may give for a folder: a name, an id, or a path; a path is made absolute.
pub fn selector(text: &str) -> Outcome<String> {
    if text.contains('/') || matches!(text, "." | "..") || text.starts_with('~') {
        let path = Path::new(text);
        let path = path.canonicalize().or_else(|_| std::path::absolute(path))?;
        return Ok(path.to_string_lossy().into_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn there_is_a_manual_page_for_each_command() {
        let dir = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
        let mut stack = vec![(Cli::command(), "ferry".to_owned())];
        while let Some((command, name)) = stack.pop() {
            let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(page.contains(".SH DESCRIPTION"), "{name}");
            stack.extend(command.get_subcommands().map(|sub| (sub.clone(), format!("{name}-{}", sub.get_name()))));
        }
    }

    #[test]
    fn paths_are_made_absolute_without_following_the_last_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        assert_eq!(absolute(&root.join("link")).unwrap(), root.join("link"));
        assert_eq!(absolute(&root.join("link/file")).unwrap(), root.join("real/file"));
        assert_eq!(absolute(&root.join("gone/../gone/./deeper/file")).unwrap(), root.join("gone/deeper/file"));
    }
}
