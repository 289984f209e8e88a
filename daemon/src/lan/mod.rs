//! The LAN: devices find each other, prove who they are, and exchange feeds and chunks directly over QUIC (design: docs/ARCHITECTURE.md, bytes:
//! docs/PROTOCOL.md).
//!
//! | module | what it does |
//! |---|---|
//! | [`tls`] | certificates of the devices' keys |
//! | [`endpoint`] | the socket and QUIC's settings |
//! | [`dial`] | where devices may be found, who is tried when; accepting |
//! | `mdns` | announcements on the network |
//! | [`hub`] | the connections, the grants, and which folder each message is for |
//! | [`link`], `body` | one connection: its streams, and reading them |
//! | `serve`, [`fetch`] | giving and asking for chunks; serving our feed |
//! | [`folder`] | a folder's side: its peers and what they have |
//! | [`offers`] | files that are still being read |
//! | [`warm`] | chunks that came a moment ago |
//!
//! Nothing here decides what may be said to whom: that is `ferry_protocol::lan::Session`. The LAN is only faster: with it turned off the
//! result is the same.

mod body;
pub mod dial;
pub mod endpoint;
pub mod fetch;
pub mod folder;
mod handshakes;
pub mod hub;
pub mod link;
mod mdns;
pub mod offers;
mod serve;
mod show;
pub mod tls;
pub mod warm;

pub use folder::{LanFolder, PeerWake};
pub use hub::Hub;
pub use link::Link;
pub use show::{PeerDoc, addresses_here};

use crate::identity::Identity;
use dial::TargetKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pauses before a socket that could not be opened is tried again: the first, doubled up to the last. A port that was in use a moment ago, perhaps by
/// this device itself, is free soon.
const OPEN_RETRY_MIN: Duration = Duration::from_millis(100);
const OPEN_RETRY_MAX: Duration = Duration::from_secs(10);
/// After so many failures somebody is told.
const OPEN_TRIES_SILENT: u32 = 3;

/// What the LAN follows of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanSettings {
    /// Whether it is used.
    pub enabled: bool,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether devices are looked for by announcements.
    pub discovery: bool,
    /// Addresses of devices that are always tried.
    pub peers: Vec<SocketAddr>,
    /// Whether the network card cuts and joins packets (GSO, GRO).
    pub offload: bool,
}

impl LanSettings {
    /// Whether other settings need another socket. What else changes is taken up by the one that there is, with its connections.
    fn needs_another_socket(&self, other: &Self) -> bool {
        (self.enabled, self.listen, self.offload) != (other.enabled, other.listen, other.offload)
    }
}

/// What the LAN is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanState {
    /// The port it listens on.
    pub port: Option<u16>,
    /// Why it does not.
    pub problem: Option<String>,
}

/// Runs the LAN until the daemon stops; follows the settings.
pub async fn run(
    hub: Arc<Hub>,
    identity: Identity,
    mut settings: watch::Receiver<LanSettings>,
    state: watch::Sender<LanState>,
    stop: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let now = settings.borrow_and_update().clone();
        let follow = settings.clone();
        let serve = async {
            if !now.enabled {
                state.send_replace(LanState::default());
                return std::future::pending().await;
            }
            serve(&hub, &identity, follow, &state, failures).await;
        };
        let changed = async {
            loop {
                settings.changed().await?;
                if settings.borrow_and_update().needs_another_socket(&now) {
                    return Ok::<_, watch::error::RecvError>(());
                }
            }
        };
        tokio::select! {
            () = serve => failures += 1,
            changed = changed => match changed {
                Ok(()) => failures = 0,
                Err(_) => return,
            },
            () = stop.cancelled() => return hub.close_all(),
        }
        hub.close_all();
    }
}

/// One life of the socket. Ends when it could not be opened, after a pause; `failures` is how often that was so before.
async fn serve(hub: &Arc<Hub>, identity: &Identity, follow: watch::Receiver<LanSettings>, state: &watch::Sender<LanState>, failures: u32) {
    let settings = follow.borrow().clone();
    let opened = tls::Tls::new(identity).map_err(endpoint::EndpointError::from);
    let opened = opened.and_then(|tls| Ok((endpoint::open(settings.listen, &tls, settings.offload)?, tls)));
    let (endpoint, tls) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if failures >= OPEN_TRIES_SILENT {
                tracing::warn!(%error, "the LAN is not used now");
            }
            state.send_replace(LanState { port: None, problem: Some(error.to_string()) });
            return tokio::time::sleep(OPEN_RETRY_MIN.saturating_mul(1 << failures.min(10)).min(OPEN_RETRY_MAX)).await;
        }
    };
    let endpoint = Closing(endpoint);
    let port = endpoint.0.local_addr().map(|a| a.port()).unwrap_or_default();
    tracing::info!(port, "listening for devices nearby");
    state.send_replace(LanState { port: Some(port), problem: None });
    // What was there before the socket is tried anew.
    hub.targets.retain(|key| !matches!(key, TargetKey::Address(_)));
    tokio::join!(
        dial::run(hub.clone(), endpoint.0.clone(), tls, settings.offload),
        dial::accept(hub.clone(), endpoint.0.clone()),
        written_down(hub, follow.clone()),
        discover(hub, follow, port),
    );
}

/// Keeps the targets that the configuration names: a new one is due at once.
async fn written_down(hub: &Hub, mut settings: watch::Receiver<LanSettings>) {
    loop {
        let peers = settings.borrow_and_update().peers.clone();
        hub.targets.retain(|key| if let TargetKey::Address(address) = key { peers.contains(address) } else { true });
        for address in peers {
            hub.targets.hint(TargetKey::Address(address), [address], false);
        }
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Looks for devices by announcements while that is turned on.
async fn discover(hub: &Arc<Hub>, mut settings: watch::Receiver<LanSettings>, port: u16) {
    loop {
        hub.targets.retain(|key| !matches!(key, TargetKey::Tag(_)));
        let wanted = settings.borrow_and_update().discovery;
        let look = async {
            if wanted {
                mdns::run(hub.clone(), port).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            () = look => return,
            changed = settings.wait_for(|settings| settings.discovery != wanted) => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// Closes the socket when it is dropped.
struct Closing(quinn::Endpoint);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::Author;

    /// A device that is written down while the daemon runs is tried by the socket that there is, with all its connections.
    #[tokio::test]
    async fn a_new_address_is_tried_without_another_socket() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(&dir.path().join("key")).unwrap();
        let author = Author { device: identity.device_id(), name: "A".into() };
        let hub = Hub::new(&identity, watch::channel(author).1, Arc::default(), Arc::default(), Box::new(|_| {}));
        let listen = "127.0.0.1:0".parse().unwrap();
        let off = LanSettings { enabled: true, listen, discovery: false, peers: Vec::new(), offload: false };
        let (settings, (state, stop)) = (watch::channel(off.clone()).0, (watch::channel(LanState::default()).0, CancellationToken::new()));
        let running = tokio::spawn(run(hub, identity, settings.subscribe(), state.clone(), stop.clone()));
        let mut seen = state.subscribe();
        let port = seen.wait_for(|state| state.port.is_some()).await.unwrap().port;
        seen.borrow_and_update();
        let there = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        settings.send_replace(LanSettings { peers: vec![there.local_addr().unwrap()], ..off.clone() });
        let (_, from) = there.recv_from(&mut [0; 2000]).await.unwrap();
        assert_eq!(Some(from.port()), port, "by the socket that there is");
        assert!(!seen.has_changed().unwrap(), "which was not opened anew");
        // Another address to listen on is another matter.
        settings.send_replace(LanSettings { enabled: false, ..off });
        seen.wait_for(|state| state.port.is_none()).await.unwrap();
        stop.cancel();
        running.await.unwrap();
    }
}
