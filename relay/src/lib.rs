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
//! | [`backup`] | making, checking and restoring backups |
//! | [`store`] | traits and their implementations, each with a contract suite |
//! | [`telemetry`] | what the relay says about itself in figures |
//! | [`embedded`] | a relay inside another process (`ferry up`) |
//!
//! Invariants R1 to R8 are stated in docs/ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod http;
mod lock;
pub mod oidc;
pub mod service;
pub mod store;
pub mod telemetry;
mod upkeep;

use clock::{Clock, SystemClock};
use config::{BlobPlace, Config, ConfigError, Drain, Network, Role};
use metrics_exporter_prometheus::PrometheusHandle;
use service::ServiceError;
use service::accounts::Accounts;
use service::content::{Content, ContentConfig};
use service::links::Links;
use service::peers::Peers;
use service::shared::Shared;
use service::sharing::Sharing;
use service::thumbnails::{ThumbnailConfig, Thumbnails};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::bus::Bus;
use store::open_blobs::open_blobs;
use store::thumbnails::ThumbnailCache;
use store::{Health, MetaStore, StoreError};
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
    /// Public links.
    pub links: Arc<Links>,
    /// Grants, and where devices are.
    pub peers: Arc<Peers>,
    /// Folders and files shared with people.
    pub sharing: Arc<Sharing>,
    /// Small pictures of files.
    pub thumbnails: Arc<Thumbnails>,
    /// Other providers through which people log in.
    pub oidc: Vec<Arc<oidc::Provider>>,
    /// What the processes of this relay share besides the database.
    pub shared: Shared,
    /// The metadata database.
    pub db: Arc<dyn MetaStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The address for people: links and codes are made of it, never of a request's `Host` (R56).
    pub base_url: String,
    /// Which parts this process serves.
    pub roles: Vec<Role>,
    /// Proxies whose word on the caller's address is taken.
    pub proxies: Vec<Network>,
    /// Cancelled when the relay is told to stop: it is not ready any more, and goes on as before.
    pub stopping: CancellationToken,
    /// Cancelled when the relay shuts down: connections finish, WebSockets close with 1012.
    pub drain: CancellationToken,
    /// Cancelled when all connections have ended: the operator's listener goes last.
    pub ended: CancellationToken,
    /// How long each of these takes.
    pub drain_for: Drain,
    /// How long it waits for slow callers.
    pub patience: http::Patience,
    /// Every connection, WebSockets included, but the operator's.
    pub connections: TaskTracker,
    /// Where this process writes, by name: their free space is watched.
    pub places: Vec<(String, PathBuf)>,
    /// How long entries of the audit log are kept, in days; 0 for ever.
    pub audit_keep_days: u32,
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
        let db = store::open_meta(config).await?;
        let shared = open_shared(config, &db, &*clock).await?;
        let peers = Arc::new(Peers::open(&config.data, &config.auth, db.clone(), shared.clone(), clock.clone())?);
        let accounts =
            Arc::new(Accounts::open(&config.data, &config.auth, db.clone(), peers.clone(), shared.clone(), clock.clone()).await?);
        accounts.heed();
        let content = Arc::new(open_content(config, &db, shared.bus.clone(), clock.clone()).await?);
        let sharing = Arc::new(Sharing::new(db.clone(), content.clone(), accounts.clone(), peers.clone(), shared.clone(), clock.clone()));
        // In the database, so that every process of one relay knows whom another one let in.
        let link_key = shared_key(&db, "public_link_key", &*clock).await?;
        let links = Links::new(db.clone(), content.clone(), accounts.clone(), shared.clone(), clock.clone(), link_key);
        let cache = ThumbnailCache::new(&config.data.join("thumbnails"), config.thumbnails.cache_bytes);
        let bounds = ThumbnailConfig { memory_bytes: config.thumbnails.memory_bytes };
        let thumbnails = Thumbnails::new(content.clone(), cache, bounds);
        Ok(Self {
            accounts,
            content,
            links: Arc::new(links),
            peers,
            sharing,
            thumbnails: Arc::new(thumbnails),
            oidc: open_providers(config)?,
            shared,
            db,
            clock,
            base_url: config.base_url(),
            roles: config.roles()?,
            proxies: config.proxies()?,
            stopping: CancellationToken::new(),
            drain: CancellationToken::new(),
            ended: CancellationToken::new(),
            drain_for: config.drain.clone(),
            patience: http::Patience::default(),
            connections: TaskTracker::new(),
            places: places(config)?,
            audit_keep_days: config.audit.keep_days,
            metrics: telemetry::handle(),
            metrics_token: config.admin.metrics_token.clone(),
        })
    }

    /// What stands between the relay and serving, check by check. Each store has [`READY_TIMEOUT`] to answer.
    pub async fn readiness(&self) -> Vec<(&'static str, Check)> {
        let must = |result: Result<(), String>| result.map_or_else(Check::Failed, |()| Check::Good);
        let stopping = if self.stopping.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) };
        let (database, blobs, redis) = tokio::join!(in_time(self.db.ping()), in_time(self.content.ping()), self.shared.health());
        let mut checks = vec![("accepting", must(stopping)), ("database", must(database)), ("blobs", must(blobs))];
        checks.extend(redis.map(|health| {
            let check = match health {
                Health::Good => Check::Good,
                Health::Degraded(why) => Check::Degraded(why),
            };
            ("redis", check)
        }));
        checks
    }

    /// Closes what is open: tells the other processes what is still to be told, and ends the database's connections.
    pub async fn close(&self) {
        if !self.shared.bus.flush(FLUSH_MAX).await {
            tracing::warn!("the other processes did not hear of the last changes; they notice within seconds");
        }
        self.db.close().await;
    }
}

/// The directories of this machine that the relay writes to: its data, and blob stores by their names.
fn places(config: &Config) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    let mut places = vec![("data".to_owned(), config.data.clone())];
    for (name, place) in config.blob_places()? {
        if let BlobPlace::Directory(path) = place {
            places.push((format!("blobs:{name}"), path));
        }
    }
    Ok(places)
}

/// How long a store may take to answer before the relay says that it is not ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(2);

async fn in_time(check: impl Future<Output = Result<(), StoreError>>) -> Result<(), String> {
    match tokio::time::timeout(READY_TIMEOUT, check).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer in {} s", READY_TIMEOUT.as_secs())),
    }
}

/// How long the last wake-ups may take to leave.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// How one part of a relay does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Well.
    Good,
    /// The relay serves without it, worse.
    Degraded(String),
    /// The relay cannot serve.
    Failed(String),
}

impl Check {
    /// An error that says what is worse than it should be.
    pub fn into_result(self) -> Result<(), String> {
        match self {
            Self::Good => Ok(()),
            Self::Degraded(why) | Self::Failed(why) => Err(why),
        }
    }
}

/// Wake-ups and counters, under the relay's own id.
async fn open_shared(config: &Config, db: &Arc<dyn MetaStore>, clock: &dyn Clock) -> Result<Shared, StartError> {
    let fresh = service::content::random_key()?;
    let relay_id = db.setting_or_insert("relay_id", &hex::encode(&fresh[..16]), clock.now_ms()).await?;
    let secret = shared_key(db, "limit_key", clock).await?;
    Shared::open(config, &relay_id, secret).await
}

/// A key that all processes of this relay read in the database; made by the first.
async fn shared_key(db: &Arc<dyn MetaStore>, name: &str, clock: &dyn Clock) -> Result<[u8; 32], StartError> {
    let fresh = service::content::random_key()?;
    let text = db.setting_or_insert(name, &hex::encode(fresh), clock.now_ms()).await?;
    let mut key = [0; 32];
    hex::decode_to_slice(&text, &mut key).map_err(|_| StoreError::Corrupt(format!("the setting '{name}' is not a key")))?;
    Ok(key)
}

/// The other providers that the operator has named. Nothing is asked of them before somebody logs in.
fn open_providers(config: &Config) -> Result<Vec<Arc<oidc::Provider>>, StartError> {
    let base_url = config.base_url();
    let made = config.auth.oidc.iter().map(|(name, settings)| {
        let provider = oidc::Provider::new(name, &settings.with_secret()?, &base_url).map_err(StartError::Data)?;
        Ok(Arc::new(provider))
    });
    made.collect()
}

/// The content service over the configured blob store.
async fn open_content(config: &Config, db: &Arc<dyn MetaStore>, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Result<Content, StartError> {
    let blobs = open_blobs(config).await?;
    let limit = config.auth.default_storage_limit_bytes;
    let presign = config.blobs.presign;
    let grace_ms = i64::from(config.blobs.grace_hours) * 60 * 60 * 1000;
    let settings = ContentConfig { default_limit_bytes: (limit > 0).then_some(limit), grace_ms, presign, ..ContentConfig::default() };
    // In the database, so that every process of one relay accepts what another signed.
    let link_key = shared_key(db, "download_link_key", &*clock).await?;
    Ok(Content::open(db.clone(), blobs, bus, clock, settings, link_key).await?)
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

/// Installs the process's TLS provider; harmless when there is one.
pub(crate) fn install_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
