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
//! | [`link`] | one connection: its streams |
//! | `serve`, [`fetch`] | giving and asking for chunks; serving our feed |
//! | [`folder`] | a folder's side: its peers and what they have |
//! | [`offers`] | files that are still being read |
//! | [`warm`] | chunks that came a moment ago |
//!
//! Nothing here decides what may be said to whom: that is `ferry_protocol::lan::Session`. The LAN is only faster: with it turned off the
//! result is the same.

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

/// How often a socket that could not be opened is tried again.
const OPEN_RETRY: Duration = Duration::from_secs(10);

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
    loop {
        let now = settings.borrow_and_update().clone();
        let serve = async {
            if !now.enabled {
                state.send_replace(LanState::default());
                return std::future::pending().await;
            }
            serve(&hub, &identity, &now, &state).await;
        };
        tokio::select! {
            () = serve => {}
            changed = settings.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return hub.close_all(),
        }
        hub.close_all();
    }
}

/// One life of the socket. Ends when it could not be opened, after a pause.
async fn serve(hub: &Arc<Hub>, identity: &Identity, settings: &LanSettings, state: &watch::Sender<LanState>) {
    let opened = tls::Tls::new(identity).map_err(endpoint::EndpointError::from);
    let opened = opened.and_then(|tls| Ok((endpoint::open(settings.listen, &tls, settings.offload)?, tls)));
    let (endpoint, tls) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "the LAN is not used now");
            state.send_replace(LanState { port: None, problem: Some(error.to_string()) });
            return tokio::time::sleep(OPEN_RETRY).await;
        }
    };
    let endpoint = Closing(endpoint);
    let port = endpoint.0.local_addr().map(|a| a.port()).unwrap_or_default();
    tracing::info!(port, "listening for devices nearby");
    state.send_replace(LanState { port: Some(port), problem: None });
    hub.targets.retain(|key| !matches!(key, TargetKey::Tag(_) | TargetKey::Address(_)));
    for address in &settings.peers {
        hub.targets.hint(TargetKey::Address(*address), [*address], false);
    }
    let find = async {
        if settings.discovery {
            mdns::run(hub.clone(), port).await
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(dial::run(hub.clone(), endpoint.0.clone(), tls, settings.offload), dial::accept(hub.clone(), endpoint.0.clone()), find);
}

/// Closes the socket when it is dropped.
struct Closing(quinn::Endpoint);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"");
    }
}
