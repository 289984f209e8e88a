//! Commands for the operator: configuration, health, doctor, the OpenAPI document.

use super::{Failure, Global, Outcome, show};
use crate::config::{Config, Loaded, Role};
use crate::http::{self, AppState, openapi};
use crate::lock::DataLock;
use crate::{App, prepare_data_dir};
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a health check waits for the relay.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Below this the doctor warns, in bytes.
const FREE_MIN_BYTES: u64 = 1 << 30;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration in force, each setting with where it came from; secrets are hidden
    Print {
        /// Print the defaults instead
        #[arg(long)]
        defaults: bool,
    },
    /// Whether the configuration can be used
    Validate,
}

#[derive(clap::Args)]
pub(super) struct HealthArgs {
    /// The relay's address, http only; default: this machine's, as configured
    #[arg(long)]
    url: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct OpenapiArgs {
    /// Write it to this file
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(super) fn config(global: &Global, command: ConfigCommand) -> Outcome {
    let loaded = match command {
        ConfigCommand::Validate => return check_config(global),
        ConfigCommand::Print { defaults: true } => Loaded { config: Config::default(), sources: BTreeMap::new() },
        ConfigCommand::Print { defaults: false } => global.load_with_sources()?,
    };
    show(global, loaded.to_text()?.trim_end(), &loaded.to_json()?);
    Ok(())
}

pub(super) fn check_config(global: &Global) -> Outcome {
    global.load()?;
    show(global, "the configuration can be used", &json!({"ok": true}));
    Ok(())
}

pub(super) async fn healthcheck(global: &Global, args: HealthArgs) -> Outcome {
    let url = match args.url {
        Some(url) => url,
        None => local_url(&global.load_beside()?)?,
    };
    let down = |why: String| {
        Failure::new(5, "unreachable", format!("the relay at {url} does not answer: {why}"))
            .hint("is it running? start it with: ferry-relay serve")
    };
    let asked = tokio::time::timeout(HEALTH_TIMEOUT, get(&url, "/readyz")).await;
    match asked.unwrap_or_else(|_| Err("no answer in 5 s".into())).map_err(down)? {
        (200, body) => {
            show(global, "ready", &serde_json::from_str(&body).unwrap_or(json!({"status": "ready"})));
            Ok(())
        }
        (status, body) => Err(Failure::new(75, "not_ready", format!("the relay at {url} is not ready: status {status}, {body}"))),
    }
}

/// Where the running relay can be asked without TLS.
fn local_url(config: &Config) -> Result<String, Failure> {
    let listen = config.listen_addr()?;
    let addr = match (config.tls.cert.is_empty(), config.admin_addr()?) {
        (false, Some(admin)) => admin,
        _ => listen,
    };
    let ip = if addr.ip().is_unspecified() { "127.0.0.1".to_owned() } else { addr.ip().to_string() };
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
    Ok(format!("http://{ip}:{}", addr.port()))
}

/// A plain `GET`: status and body.
async fn get(url: &str, path: &str) -> Result<(u16, String), String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// addresses can be asked")?;
    let authority = rest.split('/').next().unwrap_or(rest).to_owned();
    let target = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.clone()
    } else {
        format!("{authority}:80")
    };
    let stream = tokio::net::TcpStream::connect(&target).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", authority).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// One finding of the doctor: what was looked at, and what to do when it is not in order.
struct Finding {
    what: String,
    mend: Option<String>,
}

pub(super) async fn doctor(global: &Global) -> Outcome {
    let config = global.load_beside()?;
    let mut findings = Vec::new();
    let mut note = |what: String, result: Result<(), String>| findings.push(Finding { what, mend: result.err() });
    note("configuration".into(), Ok(()));
    note(format!("data directory {}", config.data.display()), prepare_data_dir(&config.data).map_err(|e| e.to_string()));
    let running = DataLock::is_held(&config.data);
    note(format!("relay {}", if running { "is running" } else { "is not running" }), Ok(()));
    match App::open(&config).await {
        Err(error) => note("stores".into(), Err(error.to_string())),
        Ok(app) => {
            for (name, check) in app.readiness().await {
                note(name.into(), check.into_result());
            }
            note("database integrity".into(), app.db.integrity().await.map_err(|e| e.to_string()));
            let set_up = app.accounts.is_set_up().await?;
            note("administrator".into(), if set_up { Ok(()) } else { Err("none yet; run: ferry-relay user add EMAIL --admin".into()) });
            app.close().await;
        }
    }
    note("free space".into(), free_space(&config.data));
    note("public_url".into(), public_url(&config));
    if running {
        let url = local_url(&config)?;
        let answer = tokio::time::timeout(HEALTH_TIMEOUT, get(&url, "/readyz")).await.unwrap_or_else(|_| Err("no answer in 5 s".into()));
        note(
            format!("answer of {url}"),
            match answer {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("status {status}: {body}")),
                Err(why) => Err(format!("{why}; is `listen` the address that the relay was started with?")),
            },
        );
    }
    report(global, &findings)
}

fn report(global: &Global, findings: &[Finding]) -> Outcome {
    let lines: Vec<String> = findings
        .iter()
        .map(|f| match &f.mend {
            None => format!("✓ {}", f.what),
            Some(mend) => format!("✗ {}\n    {mend}", f.what),
        })
        .collect();
    let rows: Vec<_> = findings.iter().map(|f| json!({"check": f.what, "ok": f.mend.is_none(), "detail": f.mend})).collect();
    show(global, lines.join("\n"), &json!({"checks": rows}));
    match findings.iter().filter(|f| f.mend.is_some()).count() {
        0 => Ok(()),
        count => Err(Failure::new(6, "findings", format!("{count} of {} checks found something", findings.len()))),
    }
}

fn free_space(path: &Path) -> Result<(), String> {
    let stat = rustix::fs::statvfs(path).map_err(|e| e.to_string())?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= FREE_MIN_BYTES { Ok(()) } else { Err(format!("only {free} bytes are free in {}; make room", path.display())) }
}

fn public_url(config: &Config) -> Result<(), String> {
    if config.public_url.is_empty() {
        return Err(format!("not set: links will use {}; set public_url to the address that people use", config.base_url()));
    }
    if config.public_url.starts_with("http://") && !config.public_url.contains("localhost") && !config.public_url.contains("127.0.0.1") {
        return Err("it is not encrypted: passwords cross the network in clear; put TLS in front, or set tls.cert and tls.key".into());
    }
    Ok(())
}

pub(super) async fn openapi(args: OpenapiArgs) -> Outcome {
    let failed = |e: &dyn std::fmt::Display| Failure::new(1, "openapi", format!("cannot write the document: {e}"));
    let text = openapi_text().await?;
    match args.output {
        None => {
            let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), (text + "\n").as_bytes());
        }
        Some(path) => std::fs::write(&path, text + "\n").map_err(|e| failed(&e))?,
    }
    Ok(())
}

/// The document of a relay that serves everything; a relay in an empty directory has the same routes as any other.
async fn openapi_text() -> Result<String, Failure> {
    let data = std::env::temp_dir().join(format!("ferry-relay-openapi-{}", uuid::Uuid::new_v4().simple()));
    let config = Config { data: data.clone(), ..Config::default() };
    let app = AppState::new(App::open(&config).await?);
    let (_, routes) = http::router(&app, &Role::ALL.map(|(role, _)| role));
    let text = serde_json::to_string_pretty(&openapi::document(&routes)).unwrap_or_default();
    app.close().await;
    // Only what was just made is removed; what cannot be is left to the system's own cleaning.
    let _ = std::fs::remove_dir_all(&data);
    Ok(text)
}
