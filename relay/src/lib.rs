//! The relay: the authority for accounts, devices, sharing and quotas; keeps every version in object storage, and carries the delta whenever two devices
//! cannot reach each other.
//!
//! Three layers, each ignorant of the one above (R1): [`http`] parses and authenticates, [`service`] holds the rules, [`store`] keeps facts.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | everything that can be set, with its default |
//! | [`http`] | routers per role, extractors, problem documents, the server |
//! | [`service`] | accounts and tokens; content, sync, storage |
//! | [`store`] | traits and their implementations, each with a contract suite |
//! | [`embedded`] | a relay inside another process (`ferry up`) |
//!
//! Invariants R1 to R8 are stated in docs/ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod http;
mod lock;
pub mod service;
pub mod store;

use clock::{Clock, SystemClock};
use config::{Config, ConfigError, Network, Role};
use http::AppState;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use service::ServiceError;
use service::accounts::Accounts;
use service::content::{Content, ContentConfig};
use service::peers::Peers;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use store::StoreError;
use store::accounts::AccountStore;
use store::bus::{Bus, LocalBus};
use store::open_blobs::open_blobs;
use store::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a relay cannot start: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory, a key or a certificate cannot be used.
    #[error("{0}")]
    Data(String),
    /// Another process serves this data directory.
    #[error("another ferry-relay is using {0}; stop it first, or give this one a data directory of its own (--data)")]
    Busy(String),
    /// The address is taken or not ours.
    #[error("{0}")]
    Listen(String),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A service refused.
    #[error("{0}")]
    Service(#[from] ServiceError),
}

/// An opened relay: its stores and services. Handlers reach it through [`AppState`].
pub struct App {
    /// Users, devices, sessions, tokens.
    pub accounts: Arc<Accounts>,
    /// Namespaces, node states, versions, chunks.
    pub content: Arc<Content>,
    /// Grants, and where devices are.
    pub peers: Arc<Peers>,
    /// The metadata database.
    pub db: Sqlite,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The address for people: links and codes are made of it, never of a request's `Host` (R56).
    pub base_url: String,
    /// Which parts this process serves.
    pub roles: Vec<Role>,
    /// Proxies whose word on the caller's address is taken.
    pub proxies: Vec<Network>,
    /// Cancelled when the relay shuts down: connections finish, WebSockets close with 1012.
    pub drain: CancellationToken,
    /// Every connection, WebSockets included.
    pub connections: TaskTracker,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// When not empty, `/metrics` asks for it.
    pub metrics_token: String,
}

impl App {
    /// Opens the stores (creating what is missing) and the services. Nothing listens yet.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, Arc::new(SystemClock)).await
    }

    /// The same under another clock.
    pub async fn open_with(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        prepare_data_dir(&config.data)?;
        let path = config.database_path()?;
        let db = Sqlite::open(&path).await.map_err(|e| StartError::Data(format!("cannot open the database {}: {e}", path.display())))?;
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::default());
        let peers = Arc::new(Peers::open(&config.data, &config.auth, Arc::new(db.clone()), bus.clone(), clock.clone())?);
        let accounts = Accounts::open(&config.data, &config.auth, Arc::new(db.clone()), peers.clone(), clock.clone()).await?;
        let content = open_content(config, &db, bus, clock.clone()).await?;
        Ok(Self {
            accounts: Arc::new(accounts),
            content: Arc::new(content),
            peers,
            db,
            clock,
            base_url: config.base_url(),
            roles: config.roles()?,
            proxies: config.proxies()?,
            drain: CancellationToken::new(),
            connections: TaskTracker::new(),
            metrics: metrics_handle(),
            metrics_token: config.admin.metrics_token.clone(),
        })
    }

    /// What stands between the relay and serving, check by check.
    pub async fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let draining = if self.drain.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) };
        vec![
            ("accepting", draining),
            ("database", self.db.ping().await.map_err(|e| e.to_string())),
            ("blobs", self.content.ping().await.map_err(|e| e.to_string())),
        ]
    }
}

/// The content service over the configured blob store.
async fn open_content(config: &Config, db: &Sqlite, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Result<Content, StartError> {
    let blobs = open_blobs(config).await?;
    let limit = config.auth.default_storage_limit_bytes;
    let settings = ContentConfig { default_limit_bytes: (limit > 0).then_some(limit), ..ContentConfig::default() };
    // In the database, so that every process of one relay accepts what another signed.
    let fresh = service::content::random_key()?;
    let key = db.setting_or_insert("download_link_key", &hex::encode(fresh), clock.now_ms()).await?;
    let mut link_key = [0; 32];
    hex::decode_to_slice(&key, &mut link_key).map_err(|_| StoreError::Corrupt("the setting 'download_link_key' is not a key".into()))?;
    Ok(Content::open(Arc::new(db.clone()), blobs, bus, clock, settings, link_key).await?)
}

/// Creates the directory, closed to others, and makes sure that it can be written.
pub(crate) fn prepare_data_dir(data: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |e: std::io::Error| {
        StartError::Data(format!(
            "cannot write to the data directory {}: {e}. Create it for this user, or name another with --data",
            data.display()
        ))
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    let probe = data.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(failed)
}

/// The process's metrics: one recorder, however many relays it holds.
fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // A host process may have a recorder of its own; then this handle stays empty and the host's shows the figures.
            let _ = metrics::set_global_recorder(recorder);
            metrics::gauge!("ferry_relay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            handle
        })
        .clone()
}

/// Installs the process's TLS provider; harmless when there is one.
pub(crate) fn install_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// How often ended sessions and codes, and chunks that nothing refers to, are swept away.
const UPKEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(3600);

/// Sweeps now and then until the relay stops.
pub(crate) fn start_upkeep(app: &AppState) {
    let app = app.clone();
    app.connections.clone().spawn(async move {
        loop {
            if let Err(error) = app.accounts.forget_ended().await {
                tracing::warn!(%error, "cannot sweep ended sessions");
            }
            tokio::select! {
                () = tokio::time::sleep(UPKEEP_EVERY) => {}
                () = app.drain.cancelled() => return,
            }
            match app.content.sweep(false).await {
                Ok(report) if report.chunks_deleted > 0 => tracing::info!(?report, "unreferenced chunks swept"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot sweep unreferenced chunks"),
            }
        }
    });
}
