//! The LAN as the daemon runs it: its settings, the grants on disk, and what the relay is told and asked for it.
//!
//! * **SL1** Grants are on disk before they count after a restart, and count only with the key of the relay that this device is logged in to.

use super::{Account, Daemon};
use crate::durable;
use crate::identity::{CredentialsFile, GrantKey};
use crate::lan::dial::TargetKey;
use crate::lan::{self, Hub, LanSettings, LanState, addresses_here};
use crate::paths::Paths;
use crate::relay::{Announce, RelayClient, RelayError, Report};
use ferry_protocol::grant::SignedGrant;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The daemon's side of the LAN.
pub struct LanService {
    /// Connections and grants.
    pub hub: Arc<Hub>,
    /// What it follows.
    pub settings: watch::Sender<LanSettings>,
    /// What it does.
    pub state: watch::Sender<LanState>,
}

/// A grant on disk, in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptGrant {
    body: String,
    signature: String,
}

/// Writes grants on a thread that may block; older ones never over newer ones. Call it inside a runtime.
pub(super) fn grant_keeper(paths: Paths) -> Box<dyn Fn(Vec<SignedGrant>) + Send + Sync> {
    let (newest, written) = (AtomicU64::new(0), Arc::new(Mutex::new(0)));
    Box::new(move |grants| {
        let number = newest.fetch_add(1, Ordering::AcqRel) + 1;
        let (paths, written) = (paths.clone(), written.clone());
        tokio::task::spawn_blocking(move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            if number > *written {
                *written = number;
                keep_grants(&paths, grants);
            }
        });
    })
}

/// Writes the grants; a disk that does not take them costs the LAN after a restart without the relay, nothing else.
fn keep_grants(paths: &Paths, grants: Vec<SignedGrant>) {
    let kept: Vec<KeptGrant> =
        grants.into_iter().map(|g| KeptGrant { body: hex::encode(g.body), signature: hex::encode(g.signature) }).collect();
    if let Err(error) = durable::replace_json(&paths.grants_file(), &kept) {
        tracing::warn!(%error, "the grants of the relay cannot be kept");
    }
}

fn kept_grants(paths: &Paths) -> Vec<SignedGrant> {
    let kept: Vec<KeptGrant> = match durable::read_json(&paths.grants_file()) {
        Ok(kept) => kept.unwrap_or_default(),
        Err(error) => {
            // The relay gives them again.
            tracing::warn!(%error, "the kept grants are not used");
            return Vec::new();
        }
    };
    let decode = |g: KeptGrant| Some(SignedGrant { body: hex::decode(g.body).ok()?, signature: hex::decode(g.signature).ok()? });
    kept.into_iter().filter_map(decode).collect()
}

/// The key of the relay that this device is logged in to.
fn relay_key(paths: &Paths) -> Option<GrantKey> {
    CredentialsFile::new(&paths.state_dir).load().ok()??.grant_key
}

/// Runs the LAN, and follows the login.
pub(super) async fn run(daemon: Arc<Daemon>) {
    let mut account = daemon.account.subscribe();
    let follow = {
        let daemon = daemon.clone();
        async move {
            loop {
                let has_account = account.borrow_and_update().is_some();
                let key = if has_account { relay_key(&daemon.paths) } else { None };
                daemon.lan.hub.set_key(key, &kept_grants(&daemon.paths));
                if account.changed().await.is_err() {
                    return;
                }
            }
        }
    };
    let serve = lan::run(
        daemon.lan.hub.clone(),
        daemon.identity.clone(),
        daemon.lan.settings.subscribe(),
        daemon.lan.state.clone(),
        daemon.stop.clone(),
    );
    tokio::select! {
        () = follow => {}
        () = serve => {}
    }
}

/// Where others may reach this device now; nowhere while the LAN is off.
pub(super) fn addresses(daemon: &Daemon) -> Vec<SocketAddr> {
    let settings = daemon.lan.settings.borrow().clone();
    let port = daemon.lan.state.borrow().port;
    port.filter(|_| settings.enabled).map(|port| addresses_here(settings.listen, port)).unwrap_or_default()
}

/// What the device's user may want to know of it.
fn report(daemon: &Daemon) -> Report {
    let system = format!("{} {}", if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS }, std::env::consts::ARCH);
    Report {
        run_at_ms: daemon.started_ms,
        lan_bytes: daemon.counters.lan_in_bytes.load(Ordering::Relaxed),
        relay_bytes: daemon.counters.relay_in_bytes.load(Ordering::Relaxed),
        system,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Tells the relay where this device is, and takes the grants and the others' addresses. Whether a grant was new: roles may have changed.
pub(super) async fn announce(daemon: &Daemon, client: &RelayClient, account: &Account) -> Result<bool, RelayError> {
    let addresses = addresses(daemon);
    let hub = &daemon.lan.hub;
    let epochs = hub.book().epochs();
    let announced = client.announce(&Announce { addresses, epochs, report: report(daemon) }).await?;
    hub.set_time(announced.server_time_ms);
    let grants: Vec<SignedGrant> = announced.grants.into_iter().map(|(_, grant)| grant).collect();
    if relay_key(&daemon.paths).as_ref() != Some(&announced.grant_key) {
        // Said over the connection whose certificate was checked: the relay may renew its key.
        tracing::info!(relay = account.relay_url(), "the relay signs grants with a key that is new here");
        if let Err(error) = client.keep_grant_key(announced.grant_key.clone()).await {
            tracing::warn!(%error, "the relay's key cannot be kept");
        }
        hub.set_key(Some(announced.grant_key), &grants);
    }
    let learned = hub.take_grants(&grants);
    let named: Vec<_> = announced.peers.iter().map(|peer| peer.device).collect();
    hub.targets.retain(|key| if let TargetKey::Device(device) = key { named.contains(device) } else { true });
    for peer in announced.peers {
        // Both are told at about the same time: the smaller id begins.
        let patient = hub.own() > peer.device;
        hub.targets.hint(TargetKey::Device(peer.device), peer.addresses, patient);
    }
    Ok(learned)
}
