//! Devices that talk without the relay: it says who may take part (grants) and where they are (rendezvous).
//!
//! * **G1** A grant lists the devices that count when it is signed, and no other: not revoked, logged in, of a user who is a member and not locked
//!   out (I13).
//! * **G2** The epoch of a namespace's grants grows with each change of that list and never falls, also when the clock was set back or the
//!   database was restored from a backup: then it goes above the highest epoch that a device has seen.
//! * **G3** While nothing changes everybody gets the same bytes, until the grant is old enough to be renewed: devices that hand grants on come to
//!   rest (I9).
//! * **G4** Addresses are hints that only devices of a common namespace see; nothing is decided by them.

mod addresses;
mod issue;
mod pace;
mod report;

#[cfg(test)]
mod tests;

use super::shared::Shared;
use super::{Caller, ServiceError, ServiceResult};
use crate::StartError;
use crate::clock::Clock;
use crate::config::Auth;
use crate::store::bus::Wake;
use crate::store::keyfile;
use crate::store::peers::{Peer, PeerStore, Whereabouts};
use ferry_protocol::grant::{Grant, SignedGrant};
use ferry_protocol::limits::GRANT_MEMBERS_MAX;
use ferry_protocol::{DeviceId, NamespaceId, UserId, wire};
use rcgen::{PublicKeyData, SigningKey};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Namespaces in one announcement, of its question and of its answer.
pub const NAMESPACES_MAX: u32 = 1024;
/// Most peers in one answer, the newest ones.
const PEERS_MAX: u32 = 1024;
/// After so long without an announcement a device's addresses are no longer told, in milliseconds.
const FRESH_MS: i64 = 5 * 60_000;
/// An announcement that repeats the one before is stored again after this long, in milliseconds.
const REPEAT_MS: i64 = 60_000;
/// A grant is renewed when this part of its life is over.
const RENEW_PART: i64 = 8;

/// What a device hears when it announces itself.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// The time, in milliseconds since 1970.
    pub server_time_ms: i64,
    /// The newest grant of each of the caller's namespaces.
    pub grants: Vec<(NamespaceId, SignedGrant)>,
    /// Where the other devices are.
    pub peers: Vec<Peer>,
}

/// The service of grants and rendezvous.
pub struct Peers {
    store: Arc<dyn PeerStore>,
    shared: Shared,
    clock: Arc<dyn Clock>,
    key: rcgen::KeyPair,
    ttl_ms: i64,
}

impl Peers {
    /// Opens the service; makes the signing key at the first start.
    pub fn open(data: &Path, policy: &Auth, store: Arc<dyn PeerStore>, shared: Shared, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let path = if policy.grant_key.is_empty() { data.join("grant.key") } else { (&policy.grant_key).into() };
        let key = keyfile::ed25519(&path, "grant key").map_err(StartError::Data)?;
        Ok(Self { store, shared, clock, key, ttl_ms: i64::from(policy.grant_ttl_s) * 1000 })
    }

    /// The public key with which grants are checked: 64 hexadecimal digits.
    pub fn grant_key(&self) -> String {
        hex::encode(self.key.der_bytes())
    }

    /// A device says where it can be reached (nowhere: it withdraws) and which epochs it knows, and hears who may take part and where the others
    /// are. The others hear of it when something changed.
    pub async fn announce(&self, caller: &Caller, addresses: &[String], known: &BTreeMap<NamespaceId, u64>) -> ServiceResult<Announcement> {
        let device_id = caller.device_id.ok_or_else(ServiceError::unauthenticated)?;
        let now_ms = self.clock.now_ms();
        pace::step(&self.shared, device_id, now_ms).await?;
        if known.len() > NAMESPACES_MAX as usize {
            return Err(ServiceError::invalid("too_many_epochs", format!("At most {NAMESPACES_MAX} epochs are taken at once.")));
        }
        let addresses = addresses::check(addresses)?;
        metrics::counter!("ferry_relay_announcements_total").increment(1);
        let namespaces = self.store.member_namespaces(caller.user_id, NAMESPACES_MAX).await?;
        if self.keep(device_id, addresses, now_ms).await? {
            self.tell(&namespaces, Some(device_id));
        }
        let mut grants = Vec::with_capacity(namespaces.len());
        for namespace in namespaces {
            let known = known.get(&namespace).copied().unwrap_or(0);
            if let Some(grant) = self.grant(namespace, known, now_ms).await? {
                grants.push((namespace, grant));
            }
        }
        Ok(Announcement { server_time_ms: now_ms, grants, peers: self.peers_at(caller, now_ms).await? })
    }

    /// Where the other devices of the caller's namespaces are.
    pub async fn peers(&self, caller: &Caller) -> ServiceResult<Vec<Peer>> {
        self.peers_at(caller, self.clock.now_ms()).await
    }

    async fn peers_at(&self, caller: &Caller, now_ms: i64) -> ServiceResult<Vec<Peer>> {
        Ok(self.store.peers(caller.user_id, caller.device_id, now_ms, now_ms - FRESH_MS, PEERS_MAX).await?)
    }

    /// Stores where a device is; whether that is news for the others.
    async fn keep(&self, device_id: DeviceId, addresses: Vec<std::net::SocketAddr>, now_ms: i64) -> ServiceResult<bool> {
        let before = self.store.whereabouts(device_id).await?;
        let age_ms = before.as_ref().map_or(i64::MAX, |b| now_ms - b.announced_at_ms);
        let same = before.map(|b| b.addresses).unwrap_or_default() == addresses;
        let nothing_to_store = same && (addresses.is_empty() || (0..REPEAT_MS).contains(&age_ms));
        if !nothing_to_store {
            self.store.put_whereabouts(device_id, &Whereabouts { addresses: addresses.clone(), announced_at_ms: now_ms }).await?;
        }
        Ok(!same || (age_ms > FRESH_MS && !addresses.is_empty()))
    }

    /// The newest grant of a namespace, signed; none when no device counts, or more than a grant can list.
    async fn grant(&self, namespace: NamespaceId, known: u64, now_ms: i64) -> ServiceResult<Option<SignedGrant>> {
        let terms = issue::Terms { known, now_ms, renew_after_ms: self.ttl_ms / RENEW_PART };
        let limit = GRANT_MEMBERS_MAX as u32 + 1;
        let Some((issued, members)) = self.store.issue(namespace, now_ms, limit, &|before, now| terms.next(before, now)).await? else {
            return Ok(None);
        };
        if members.len() > GRANT_MEMBERS_MAX {
            tracing::warn!(%namespace, limit = GRANT_MEMBERS_MAX, "no grant: the namespace has more devices than one can list");
            return Ok(None);
        }
        let expires_ms = issued.issued_at_ms.saturating_add(self.ttl_ms);
        let grant = Grant { namespace, epoch: issued.epoch, issued_ms: issued.issued_at_ms, expires_ms, members };
        let body = wire::encode(&grant);
        let signature = self.key.sign(&SignedGrant::signed_bytes(&body)).map_err(ServiceError::internal)?;
        Ok(Some(SignedGrant { body, signature }))
    }

    /// The namespaces whose devices care about this user's: ask before a change that takes the user out of them.
    pub async fn audience(&self, user_id: UserId) -> Vec<NamespaceId> {
        // What is not told now is heard with the next announcement.
        self.store.member_namespaces(user_id, NAMESPACES_MAX).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell the other devices of a change");
            Vec::new()
        })
    }

    /// Tells the devices of these namespaces that devices, roles or addresses have changed.
    pub fn tell(&self, namespaces: &[NamespaceId], by: Option<DeviceId>) {
        for namespace in namespaces {
            self.shared.bus.publish(Wake::peers(*namespace, by));
        }
    }

    /// Tells the devices that share a namespace with this user that one of its devices came, went or changed.
    pub async fn changed(&self, user_id: UserId) {
        self.tell(&self.audience(user_id).await, None);
    }
}
