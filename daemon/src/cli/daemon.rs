//! `ferry daemon`, `login`, `logout`, `whoami`.

use super::Context;
use super::args::{DaemonArgs, LoginArgs, PasswordArgs};
use crate::problem::{Outcome, Problem, exit};
use crate::{config, supervisor};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Runs the daemon until it is told to stop.
pub async fn run(context: &Context, args: DaemonArgs) -> Outcome<u8> {
    let flags = args.listen.map(|addr| ("lan.listen", addr.to_string())).into_iter().collect();
    log_to_stderr(context)?;
    let started = supervisor::start(supervisor::Options { paths: context.paths.clone(), flags }).await?;
    started.run().await?;
    Ok(exit::OK)
}

/// Starts logging: to stderr, which the journal reads under systemd.
pub fn log_to_stderr(context: &Context) -> Outcome<()> {
    let level = match context.verbose {
        0 => config::load(&context.paths.config_file, config::process_env, &[])?.log_level,
        1 => "ferry_daemon=debug,ferry_engine=debug,info".into(),
        _ => "debug".into(),
    };
    let filter = EnvFilter::try_new(&level).map_err(|e| Problem::config(format!("log.level: {e}")))?;
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = if in_journal { builder.without_time().try_init() } else { builder.try_init() };
    Ok(())
}

/// The password: from where the flags say, else asked for on a terminal.
pub fn password(context: &Context, args: &PasswordArgs) -> Outcome<String> {
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let password = if args.password_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        first_line(&line)
    } else if let Some(path) = &args.password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Problem::usage(format!("cannot read the password from {}: {e}", config::shown(path))))?;
        first_line(&text)
    } else if context.ui.no_input || context.ui.json || !std::io::stdin().is_terminal() {
        return Err(Problem::usage("a password is needed")
            .code("password_needed")
            .hint("give it with --password-stdin or --password-file FILE"));
    } else {
        rpassword::prompt_password("Password: ")?
    };
    if password.is_empty() {
        return Err(Problem::usage("the password is empty").code("password_needed"));
    }
    Ok(password)
}

/// Logs this device in: through the running daemon, or without one.
pub async fn login(context: &Context, args: LoginArgs) -> Outcome<u8> {
    let settings = config::load(&context.paths.config_file, config::process_env, &[])?;
    let relay = args
        .relay
        .or(settings.relay_url)
        .ok_or_else(|| Problem::usage("which relay?").code("relay_needed").hint("name it with: ferry login --relay URL --email EMAIL"))?;
    let by_password = args.password.password_stdin || args.password.password_file.is_some();
    let answer = match &args.email {
        None if by_password => return Err(Problem::usage("which account?").code("email_needed").hint("name it with --email EMAIL")),
        None => super::login::by_page(context, &relay, args.name.as_deref(), args.no_browser).await?,
        Some(email) => {
            let password = password(context, &args.password)?;
            let mut request = json!({"relay": relay, "email": email, "password": password, "name": args.name});
            if let Some(code) = &args.code {
                request["mfa_code"] = code.as_str().into();
            }
            with_second_factor(context, request).await?
        }
    };
    report_login(context, &answer);
    Ok(exit::OK)
}

/// Logs in, and once more with the code of the second factor if one is needed and somebody is there to type it.
async fn with_second_factor(context: &Context, mut request: Value) -> Outcome<Value> {
    match perform(context, "/login", request.clone()).await {
        Err(problem) if problem.code == "mfa_required" && request.get("mfa_code").is_none() => {
            if context.ui.no_input || context.ui.json || !std::io::stdin().is_terminal() {
                return Err(problem);
            }
            request["mfa_code"] = rpassword::prompt_password("Code of the authenticator app: ")?.trim().into();
            perform(context, "/login", request).await
        }
        answer => answer,
    }
}

/// Sends a login or a join to the daemon, or does it here if none runs.
pub async fn perform(context: &Context, path: &str, request: Value) -> Outcome<Value> {
    match context.client.post(path, &request).await {
        Err(problem) if problem.code == "daemon_unreachable" => supervisor::enter_without_daemon(&context.paths, request).await,
        answer => answer,
    }
}

/// Tells who is logged in where.
pub fn report_login(context: &Context, answer: &Value) {
    let ui = &context.ui;
    if let Some(warning) = answer["warning"].as_str() {
        ui.warning(warning);
    }
    if ui.json {
        ui.document(answer);
    } else {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let user = if text("user").is_empty() { String::new() } else { format!(" as {}", text("user")) };
        ui.done(&format!("Linked as \"{}\" to {}{user}", text("device"), text("relay")));
    }
}

/// Unlinks this device.
pub async fn logout(context: &Context) -> Outcome<u8> {
    let answer = match context.client.post("/logout", &json!({})).await {
        Err(problem) if problem.code == "daemon_unreachable" => supervisor::logout_without_daemon(&context.paths).await?,
        answer => answer?,
    };
    if context.ui.json {
        context.ui.document(&answer);
    } else {
        context.ui.done("This device is no longer linked; its files stay");
        if let Some(warning) = answer["warning"].as_str() {
            context.ui.warning(warning);
        }
    }
    Ok(exit::OK)
}

/// Who this device is logged in as.
pub async fn whoami(context: &Context) -> Outcome<u8> {
    let answer = match context.client.get("/whoami").await {
        Err(problem) if problem.code == "daemon_unreachable" => supervisor::whoami(&context.paths)?,
        answer => answer?,
    };
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(exit::OK);
    }
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    context.ui.line(&format!("{} on {}, this device is \"{}\"", text("user"), text("relay"), text("device")));
    Ok(exit::OK)
}
