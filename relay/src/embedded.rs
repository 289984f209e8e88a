//! A relay inside another process: what `ferry up` starts.

use crate::config::{Config, Role};
use crate::http::{self, AppState};
use crate::{App, StartError, lock, prepare_data_dir, upkeep};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One address to listen on.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Where; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Whether to speak TLS with the relay's own self-signed certificate (kept in the data directory), for callers that pin it.
    pub tls_self_signed: bool,
}

/// What an embedded relay needs.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The directory for the database, the chunks and the keys.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// The address for people, when it is known.
    pub public_url: Option<String>,
}

/// A running relay. Dropping it does not stop it; call [`Running::shutdown`].
pub struct Running {
    /// The relay's services: make users and join codes here.
    pub app: AppState,
    /// Where it listens, in the order of the configuration.
    pub addrs: Vec<SocketAddr>,
    /// The SHA-256 of the self-signed certificate (its DER), for pinning; present when a listener speaks TLS.
    pub certificate_sha256: Option<[u8; 32]>,
    _lock: lock::DataLock,
}

/// Starts a relay in this process, on the current tokio runtime.
pub async fn start(config: EmbeddedConfig) -> Result<Running, StartError> {
    prepare_data_dir(&config.data_dir)?;
    let lock = lock::DataLock::take(&config.data_dir)?;
    let certificate = if config.listeners.iter().any(|l| l.tls_self_signed) { Some(self_signed(&config.data_dir)?) } else { None };
    let mut bound = Vec::new();
    for listener in &config.listeners {
        let tls = match &certificate {
            Some((tls, _)) if listener.tls_self_signed => Some(tls.clone()),
            _ => None,
        };
        bound.push(http::Listener { socket: bind(listener.addr).await?, tls });
    }
    let addrs = bound.iter().map(http::Listener::addr).collect::<Result<Vec<_>, _>>().map_err(|e| StartError::Listen(e.to_string()))?;
    let settings = settings(&config, &addrs);
    // Boxed: the stores open each other in many steps, and whoever embeds the relay must be able to await them.
    let app = AppState::new(Box::pin(App::open(&settings)).await?);
    let (router, _) = http::router(&app, &Role::ALL.map(|(role, _)| role));
    for listener in bound {
        http::listen(&app, listener, router.clone());
    }
    upkeep::start(&app);
    Ok(Running { app, addrs, certificate_sha256: certificate.map(|(_, sha256)| sha256), _lock: lock })
}

/// The configuration of an embedded relay: defaults, and the first listener's address where no other is known.
fn settings(config: &EmbeddedConfig, addrs: &[SocketAddr]) -> Config {
    let defaults = Config::default();
    Config {
        data: config.data_dir.clone(),
        listen: addrs.first().map_or(defaults.listen.clone(), SocketAddr::to_string),
        public_url: config.public_url.clone().unwrap_or_default(),
        ..defaults
    }
}

impl Running {
    /// Stops accepting, lets running requests finish for a while, closes WebSockets with 1012 and the database last.
    pub async fn shutdown(self) {
        drain(&self.app).await;
    }
}

/// Ends a relay in order: it says that it is not ready, then takes nobody new, then lets running requests finish while WebSockets close with 1012;
/// the operator's listener, which tells of all this, and the database go last. How long each step takes is the configuration's matter ([`crate::config::Drain`]).
pub async fn drain(app: &AppState) {
    app.stopping.cancel();
    tokio::time::sleep(Duration::from_secs(app.drain_for.delay_s.into())).await;
    app.drain.cancel();
    app.connections.close();
    let deadline = Duration::from_secs(app.drain_for.deadline_s.into());
    if tokio::time::timeout(deadline, app.connections.wait()).await.is_err() {
        tracing::warn!(open = app.connections.len(), "some requests did not end in time and are cut off");
    }
    app.ended.cancel();
    app.close().await;
}

/// Binds an address, or says in one sentence why not.
pub async fn bind(addr: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    tokio::net::TcpListener::bind(addr).await.map_err(|e| {
        StartError::Listen(match e.kind() {
            std::io::ErrorKind::AddrInUse => format!("{addr} is in use by another program; stop it, or choose another port with --listen"),
            std::io::ErrorKind::AddrNotAvailable => format!("{addr} is not an address of this machine; choose another with --listen"),
            std::io::ErrorKind::PermissionDenied => {
                format!("may not listen on {addr}: ports below 1024 need a privilege; choose another with --listen")
            }
            _ => format!("cannot listen on {addr}: {e}"),
        })
    })
}

/// The relay's own certificate, made once and kept, so that a pin stays good; and its SHA-256.
fn self_signed(data: &Path) -> Result<(Arc<rustls::ServerConfig>, [u8; 32]), StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Data(format!("cannot use the relay's own certificate in {}: {e}", data.display()));
    let (cert_path, key_path) = (data.join("tls.crt.der"), data.join("tls.key.der"));
    if !(cert_path.exists() && key_path.exists()) {
        let made = rcgen::generate_simple_self_signed(vec!["ferry-relay.invalid".to_owned()]).map_err(|e| failed(&e))?;
        crate::store::keyfile::write(&key_path, &made.signing_key.serialize_der()).map_err(|e| failed(&e))?;
        crate::store::keyfile::write(&cert_path, made.cert.der()).map_err(|e| failed(&e))?;
    }
    let cert = CertificateDer::from(std::fs::read(&cert_path).map_err(|e| failed(&e))?);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(std::fs::read(&key_path).map_err(|e| failed(&e))?));
    let sha256 = Sha256::digest(&cert).into();
    Ok((server_tls(vec![cert], key).map_err(|e| failed(&e))?, sha256))
}

/// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1.
pub fn server_tls(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    crate::install_tls_provider();
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
