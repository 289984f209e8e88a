//! The trait behind grants and rendezvous: which devices may take part in a namespace, and where they say that they can be reached.

#[cfg(test)]
mod contract;

use super::StoreError;
use async_trait::async_trait;
use ferry_protocol::grant::Member;
use ferry_protocol::{DeviceId, NamespaceId, UserId};
use std::net::SocketAddr;

/// What was last granted for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The grant's epoch.
    pub epoch: u64,
    /// A digest of the members that it lists.
    pub digest: [u8; 32],
    /// In milliseconds since 1970.
    pub issued_at_ms: i64,
}

/// Decides from what was issued before (none: never) and the members of now what is issued now. Pure: a store may ask twice.
pub type Decide<'a> = &'a (dyn Fn(Option<&Issued>, &[Member]) -> Issued + Send + Sync);

/// Where a device says that it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Hints, the best first.
    pub addresses: Vec<SocketAddr>,
    /// In milliseconds since 1970.
    pub announced_at_ms: i64,
}

/// Another device that shares a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub device_id: DeviceId,
    /// For people.
    pub name: String,
    /// Where it was last.
    pub at: Whereabouts,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When its daemon started, by its own clock, in milliseconds since 1970.
    pub run_at_ms: i64,
    /// Bytes that came over the LAN since then.
    pub lan_bytes: u64,
    /// Bytes that came from the relay since then.
    pub relay_bytes: u64,
    /// What it runs on.
    pub system: String,
    /// Which Ferry.
    pub version: String,
}

/// A device's report, with what its earlier runs received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReport {
    /// The newest.
    pub report: Report,
    /// Over the LAN, in runs before this one.
    pub earlier_lan_bytes: u64,
    /// From the relay, in runs before this one.
    pub earlier_relay_bytes: u64,
    /// When it came, in milliseconds since 1970.
    pub reported_at_ms: i64,
}

impl KeptReport {
    /// Bytes that came over the LAN, ever.
    pub fn lan_bytes(&self) -> u64 {
        self.earlier_lan_bytes.saturating_add(self.report.lan_bytes)
    }

    /// Bytes that came from the relay, ever.
    pub fn relay_bytes(&self) -> u64 {
        self.earlier_relay_bytes.saturating_add(self.report.relay_bytes)
    }
}

/// What is known of a device beside its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNow {
    /// The device.
    pub device_id: DeviceId,
    /// What it said of itself.
    pub report: Option<KeptReport>,
    /// Where it was last.
    pub at: Option<Whereabouts>,
}

/// Grants and addresses in a database. A device counts while it is not revoked, its user is not locked out, and it is logged in. Contract:
/// `store/peers/contract.rs`.
#[async_trait]
pub trait PeerStore: Send + Sync + 'static {
    /// The namespaces that a user is a member of, by rising id, at most `limit`.
    async fn member_namespaces(&self, user_id: UserId, limit: u32) -> Result<Vec<NamespaceId>, StoreError>;
    /// The devices that count in a namespace at `now_ms`, by rising id and at most `limit`, with what `decide` makes of them; that is remembered
    /// if it is new, in the transaction that read the members. None when no device counts.
    async fn issue(
        &self,
        namespace: NamespaceId,
        now_ms: i64,
        limit: u32,
        decide: Decide<'_>,
    ) -> Result<Option<(Issued, Vec<Member>)>, StoreError>;

    /// Where a device said that it can be reached.
    async fn whereabouts(&self, device_id: DeviceId) -> Result<Option<Whereabouts>, StoreError>;
    /// Remembers where a device can be reached; no addresses: forgets it.
    async fn put_whereabouts(&self, device_id: DeviceId, at: &Whereabouts) -> Result<(), StoreError>;
    /// What a device said of itself.
    async fn report(&self, device_id: DeviceId) -> Result<Option<KeptReport>, StoreError>;
    /// Remembers what a device says of itself.
    async fn put_report(&self, device_id: DeviceId, kept: &KeptReport) -> Result<(), StoreError>;
    /// What is known of the devices of a user that are not revoked, by id.
    async fn reports(&self, user_id: UserId) -> Result<Vec<DeviceNow>, StoreError>;
    /// The devices that count in a namespace of this user at `now_ms` and announced themselves after `after_ms`, except one; the newest first, at
    /// most `limit`.
    async fn peers(
        &self,
        user_id: UserId,
        except: Option<DeviceId>,
        now_ms: i64,
        after_ms: i64,
        limit: u32,
    ) -> Result<Vec<Peer>, StoreError>;
}
