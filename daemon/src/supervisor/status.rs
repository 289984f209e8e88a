//! What the daemon says of itself as a whole.

use super::Daemon;
use super::folders::Running;
use crate::folder::{FolderState, FolderStatus, RelayState};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// The relay, as the session sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// Reachability.
    pub state: RelayState,
    /// Its address, when logged in.
    pub url: Option<String>,
    /// Why, where there is more to say.
    pub message: Option<String>,
    /// Whether only a new login helps.
    pub login_needed: bool,
}

impl RelayStatus {
    /// No relay.
    pub fn none() -> Self {
        Self { state: RelayState::None, url: None, message: None, login_needed: false }
    }
}

impl Daemon {
    /// A folder's status, made true where the folder itself cannot know better (I15): it is not up to date while the relay is still being
    /// asked for the first time, or does not yet know the folder.
    pub fn folder_status(&self, running: &Running) -> FolderStatus {
        let mut status = (*running.handle.status()).clone();
        let relay = self.relay.borrow().clone();
        let waits_for_relay = match relay.state {
            RelayState::Connecting => Some("the relay is being asked for changes"),
            RelayState::Connected if running.relay.borrow().is_none() => Some("the relay does not know this folder yet"),
            _ => None,
        };
        status.role = self.role(status.id);
        if let Some(reason) = self.refused().get(&status.id).filter(|_| relay.state != RelayState::None) {
            status.state = FolderState::Error;
            status.state_reason = Some(reason.clone());
        } else if status.state == FolderState::UpToDate
            && let Some(reason) = waits_for_relay
        {
            status.state = FolderState::Syncing;
            status.state_reason = Some(reason.into());
        }
        status
    }

    /// The state of the device: that of the folder that is furthest from up to date.
    pub fn overall_state(statuses: &[FolderStatus]) -> FolderState {
        statuses.iter().map(|s| s.state).max_by_key(|s| s.severity()).unwrap_or(FolderState::UpToDate)
    }

    /// All folders' statuses, by name.
    pub fn folder_statuses(&self) -> Vec<FolderStatus> {
        self.folders().iter().map(|r| self.folder_status(r)).collect()
    }

    /// The document of `ferry status --json`.
    pub fn status_document(&self) -> Value {
        self.count_traffic();
        let folders = self.folder_statuses();
        let relay = self.relay.borrow().clone();
        let settings = self.settings.borrow().clone();
        let account = self.account.borrow().clone();
        let errors: u64 = folders.iter().map(|f| f.issues_total).sum();
        let conflicts: u64 = folders.iter().map(|f| f.conflicts).sum();
        let author = self.author.borrow().clone();
        let lan = self.lan.state.borrow().clone();
        let peers: Vec<_> = self.peers().into_iter().filter(|p| p.state == "connected").collect();
        json!({
            "type": "status",
            "state": Self::overall_state(&folders),
            "version": env!("CARGO_PKG_VERSION"),
            "device": {"id": author.device, "name": &*author.name},
            "account": account.map(|a| json!({"user": a.user_name(), "user_id": a.user_id, "relay": a.relay_url()})),
            "relay": {
                "state": relay.state, "url": relay.url, "message": relay.message, "enabled": settings.relay_enabled,
                "login_needed": relay.login_needed,
            },
            "lan": {"enabled": settings.lan_enabled, "port": lan.port, "message": lan.problem},
            "peers": peers,
            "folders": folders,
            "transfer": {
                "lan_in_bytes": self.counters.lan_in_bytes.load(Relaxed),
                "lan_out_bytes": self.counters.lan_out_bytes.load(Relaxed),
                "relay_in_bytes": self.counters.relay_in_bytes.load(Relaxed),
                "relay_out_bytes": self.counters.relay_out_bytes.load(Relaxed),
            },
            "invitations": self.invitations(),
            "issues": {"conflicts": conflicts, "errors": errors},
            "started_ms": self.started_ms,
        })
    }

    /// The devices that share a folder with this one, connected or not.
    pub fn peers(&self) -> Vec<crate::lan::PeerDoc> {
        let state = self.lan.state.borrow().clone();
        self.lan.hub.peers(&state, self.settings.borrow().lan_enabled)
    }

    /// One line for `systemctl status`.
    pub fn status_line(&self) -> String {
        let folders = self.folder_statuses();
        let state = match Self::overall_state(&folders) {
            FolderState::UpToDate => "Up to date",
            FolderState::Scanning => "Scanning",
            FolderState::Syncing => "Syncing",
            FolderState::Paused => "Paused",
            FolderState::Held => "Deletes wait for approval",
            FolderState::Error => "Some items need attention",
        };
        let relay = match self.relay.borrow().state {
            RelayState::Connected => "relay connected",
            RelayState::Connecting => "relay connecting",
            RelayState::Offline => "relay offline",
            RelayState::None => "no relay",
        };
        let count = folders.len();
        format!("{state}: {count} folder{}, {relay}", if count == 1 { "" } else { "s" })
    }
}
