//! `ferry-relay serve`: listeners, the banner, readiness for systemd, shutdown.

use super::{Failure, Global, Outcome};
use crate::config::{BlobPlace, Config, DEFAULT_REGION, LogFormat, Role};
use crate::embedded::{bind, drain, server_tls};
use crate::http::{self, AppState, Listener};
use crate::lock::DataLock;
use crate::{App, StartError, prepare_data_dir};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sd_notify::NotifyState;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Which parts to serve: all, or a list of auth,metadata,upload,download,sync,web,dav
    #[arg(long, value_name = "ROLES")]
    role: Option<String>,
    /// The certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
}

pub(super) async fn serve(global: &Global, args: ServeArgs) -> Outcome {
    let mut config = global.load()?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(role) = args.role {
        config.role = role;
    }
    if let (Some(cert), Some(key)) = (args.tls_cert, args.tls_key) {
        (config.tls.cert, config.tls.key) = (cert, key);
    }
    config.check()?;
    init_logging(&config)?;
    let mut stop = Stop::new()?;
    prepare_data_dir(&config.data)?;
    let mut lock = take_lock(&config)?;
    let tls = load_tls(&config)?;
    let socket = bind(config.listen_addr()?).await?;
    let addr = socket.local_addr().map_err(|e| StartError::Listen(e.to_string()))?;
    let mut of_roles = Vec::new();
    for (role, addr) in config.compat_addrs()? {
        of_roles.push((role, bind(addr).await?));
    }
    // Links show the port that was really taken.
    config.listen = addr.to_string();
    if let Some(lock) = &mut lock {
        lock.announce(&config.listen).map_err(|e| StartError::Data(format!("cannot write {}: {e}", config.data.display())))?;
    }
    let admin = bind_admin(&config).await?;
    let admin_addr = admin.as_ref().and_then(|a| a.local_addr().ok());

    let app = AppState::new(App::open(&config).await?);
    let (router, _) = http::router(&app, &app.roles);
    http::listen(&app, Listener { socket, tls: tls.clone() }, router);
    for (role, socket) in of_roles {
        let (router, _) = http::router(&app, &[role]);
        http::listen(&app, Listener { socket, tls: tls.clone() }, router);
    }
    if let Some(socket) = admin {
        let (router, _) = http::admin_router(&app);
        http::listen_to_operator(&app, Listener { socket, tls: None }, router);
    }
    crate::upkeep::start(&app);
    announce(&app, &config, addr, admin_addr).await?;
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&format!("Serving on {addr}"))]);

    stop.wait().await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("stopping: running requests may finish");
    tokio::select! {
        () = drain(&app) => tracing::info!("stopped"),
        () = stop.wait() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

/// The data directory is one process's own where the database in it is. Where the database is shared, so may the directory be: then the process that came
/// first is the one that commands on this machine find.
fn take_lock(config: &Config) -> Result<Option<DataLock>, StartError> {
    match DataLock::take(&config.data) {
        Err(StartError::Busy(_)) if config.database()?.is_shared() => Ok(None),
        taken => taken.map(Some),
    }
}

/// SIGTERM and Ctrl-C. The first asks to end, a second one insists.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::new(1, "signal", format!("cannot listen for signals: {e}")));
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn init_logging(config: &Config) -> Outcome {
    let level = &config.log.level;
    let filter = EnvFilter::try_new(level).map_err(|e| Failure::new(2, "config", format!("log.level is '{level}': {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match config.log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    // A logger that is there already belongs to whoever embeds us.
    drop(set);
    Ok(())
}

fn load_tls(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let (cert, key) = (&config.tls.cert, &config.tls.key);
    if cert.is_empty() {
        return Ok(None);
    }
    let failed = |file: &str, e: &dyn std::fmt::Display| StartError::Data(format!("cannot use {file} for TLS: {e}"));
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| failed(cert, &e))?;
    if chain.is_empty() {
        return Err(failed(cert, &"it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
    server_tls(chain, private).map(Some).map_err(|e| failed(cert, &e))
}

/// The operator's listener. The default address may be taken by another relay of this machine; one that was asked for may not.
async fn bind_admin(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(addr) = config.admin_addr()? else { return Ok(None) };
    match bind(addr).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if config.admin.listen == Config::default().admin.listen => {
            tracing::warn!(%error, "no metrics: set admin.listen to another address");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn announce(app: &AppState, config: &Config, addr: SocketAddr, admin: Option<SocketAddr>) -> Outcome {
    if config.log.format == LogFormat::Json {
        // No secret in a log: the operator asks for the set-up link.
        let is_set_up = app.accounts.is_set_up().await?;
        tracing::info!(%addr, data = %config.data.display(), is_set_up, "ferry-relay serves; without an administrator run: ferry-relay setup-url");
        return Ok(());
    }
    let mut text = banner(config, app.db.name(), addr, admin);
    // The page that takes it is a page; a process of another part has none.
    let code = if app.roles.contains(&Role::Web) { app.accounts.create_setup_code().await? } else { None };
    if let Some(code) = code {
        let _ = writeln!(
            text,
            "\n  No administrator yet. Open this link within 30 minutes to create one:\n    {}/setup#k={}\n  \
             (new link: ferry-relay setup-url   ·   without a browser: ferry-relay user add --admin EMAIL)\n",
            app.base_url, code.secret
        );
    }
    // Whoever started us may have stopped reading; that is no reason to stop serving.
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes());
    Ok(())
}

/// Where chunks are kept, for the banner.
fn blobs_named(config: &Config) -> String {
    match config.blob_places().unwrap_or_default().get(DEFAULT_REGION) {
        Some(BlobPlace::S3(place)) => format!("chunks in {place}"),
        _ => "filesystem blobs".into(),
    }
}

fn banner(config: &Config, database: &str, addr: SocketAddr, admin: Option<SocketAddr>) -> String {
    let scheme = if config.tls.cert.is_empty() { "http" } else { "https" };
    let roles = config.roles().unwrap_or_default();
    let served = if roles.len() == Role::ALL.len() { "all roles".to_owned() } else { config.role.clone() };
    let mut text = format!("ferry-relay {}\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "  data      {}   ({database}, {})", config.data.display(), blobs_named(config));
    let _ = writeln!(text, "  listening {scheme}://{addr}      ({served})");
    for (role, addr) in config.compat_addrs().unwrap_or_default() {
        let _ = writeln!(text, "  listening {scheme}://{addr}      ({})", role.name());
    }
    if let Some(admin) = admin {
        let _ = writeln!(text, "  metrics   http://{admin}/metrics");
    }
    if config.public_url.is_empty() {
        let _ = writeln!(text, "  public    not set — share links and join codes will use {}", config.base_url());
        let _ = writeln!(text, "            set public_url in the configuration file or FERRY_RELAY__PUBLIC_URL");
    } else {
        let _ = writeln!(text, "  public    {}", config.base_url());
    }
    text
}
