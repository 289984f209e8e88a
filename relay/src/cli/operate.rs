//! Commands for the operator: configuration, health, keys, and the documents that the program writes of itself.

use super::{Failure, Global, Outcome, show};
use crate::App;
use crate::config::{Config, Loaded, Role};
use crate::http::{self, AppState, openapi};
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How long a health check waits for the relay.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

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
pub(super) fn local_url(config: &Config) -> Result<String, Failure> {
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
pub(super) async fn get(url: &str, path: &str) -> Result<(u16, String), String> {
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

#[derive(clap::Args)]
pub(super) struct KeygenArgs {
    /// The file, which must not be there; only its owner can read it
    #[arg(long, short)]
    output: PathBuf,
}

/// A key for `auth.jwt_key` or `auth.grant_key`: several processes of one relay need the same.
pub(super) fn keygen(global: &Global, args: &KeygenArgs) -> Outcome {
    let path = &args.output;
    if path.exists() {
        return Err(Failure::new(8, "exists", format!("{} is there already; a key is not overwritten", path.display())));
    }
    crate::store::keyfile::ed25519(path, "key").map_err(|e| Failure::new(1, "key", e))?;
    show(global, format!("an Ed25519 key is in {}", path.display()), &json!({"key": path.display().to_string()}));
    Ok(())
}

#[derive(clap::Args)]
pub(super) struct ManArgs {
    /// The directory for the pages
    #[arg(long, short)]
    output: PathBuf,
}

/// A manual page for the program and for each command.
pub(super) fn man(global: &Global, args: &ManArgs) -> Outcome {
    let failed = |e: std::io::Error| Failure::new(1, "man", format!("cannot write pages to {}: {e}", args.output.display()));
    std::fs::create_dir_all(&args.output).map_err(failed)?;
    clap_mangen::generate_to(super::program(), &args.output).map_err(failed)?;
    show(global, format!("pages are in {}", args.output.display()), &json!({"directory": args.output.display().to_string()}));
    Ok(())
}
