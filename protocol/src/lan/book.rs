//! The grants that this device knows: of each namespace the newest, signed by the relay whose key was pinned at login.

use crate::grant::{Grant, SignedGrant};
use crate::id::{DeviceId, NamespaceId};
use crate::limits::LAN_NAMESPACES_MAX;
use crate::wire::Role;
use std::collections::BTreeMap;

/// Checks an Ed25519 signature (message, signature) by the relay's key.
pub type Verify = Box<dyn Fn(&[u8], &[u8]) -> bool + Send + Sync>;

/// What became of a grant that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is newer than what was known, and counts now.
    Learned(NamespaceId),
    /// Nothing new.
    Known(NamespaceId),
    /// Malformed, signed by somebody else, or one more than fit.
    Refused,
}

/// The grants. Which of two is newer is decided by membership epoch, then by the time of issue; so a revocation, once learned, stays learned.
pub struct GrantBook {
    verify: Verify,
    grants: BTreeMap<NamespaceId, (SignedGrant, Grant)>,
    /// Namespaces that have ended for this device, and the newest grant that was known of each: (epoch, time of issue).
    ended: BTreeMap<NamespaceId, (u64, i64)>,
    /// The latest time known to have been: a clock that was set back does not revive a grant.
    latest_ms: i64,
}

impl GrantBook {
    /// No grants; `verify` knows the relay's key.
    pub fn new(verify: Verify) -> Self {
        Self { verify, grants: BTreeMap::new(), ended: BTreeMap::new(), latest_ms: i64::MIN }
    }

    /// Takes a grant from anybody: its signature counts, not who brings it. `own` is this device.
    ///
    /// A namespace that is new here is taken only with a grant that lists this device: else anyone could fill the book.
    pub fn offer(&mut self, own: DeviceId, signed: &SignedGrant) -> Offered {
        let Ok(grant) = signed.open(|message, signature| (self.verify)(message, signature)) else { return Offered::Refused };
        let namespace = grant.namespace;
        if self.ended.get(&namespace).is_some_and(|known| *known >= (grant.epoch, grant.issued_ms)) {
            return Offered::Refused;
        }
        match self.grants.get(&namespace) {
            Some((_, known)) if !grant.is_newer_than(known) => return Offered::Known(namespace),
            Some(_) => {}
            None if grant.member(own).is_none() || self.grants.len() >= LAN_NAMESPACES_MAX => return Offered::Refused,
            None => {}
        }
        self.latest_ms = self.latest_ms.max(grant.issued_ms);
        self.grants.insert(namespace, (signed.clone(), grant));
        Offered::Learned(namespace)
    }

    /// Forgets a namespace: the relay no longer counts this device among its members. What a peer still holds of it does not bring it back; a newer
    /// grant does.
    pub fn forget(&mut self, namespace: NamespaceId) {
        if let Some((_, grant)) = self.grants.remove(&namespace)
            && self.ended.len() < LAN_NAMESPACES_MAX
        {
            self.ended.insert(namespace, (grant.epoch, grant.issued_ms));
        }
    }

    /// What a device may do in a namespace at this time (milliseconds since 1970); nothing if it is not listed or the grant has expired.
    pub fn role(&self, namespace: NamespaceId, device: DeviceId, now_ms: i64) -> Option<Role> {
        let (_, grant) = self.grants.get(&namespace)?;
        grant.is_live(now_ms.max(self.latest_ms)).then(|| grant.member(device).map(|m| m.role)).flatten()
    }

    /// The namespaces in which both devices take part at this time.
    pub fn shared(&self, own: DeviceId, peer: DeviceId, now_ms: i64) -> Vec<NamespaceId> {
        let both = |namespace: &NamespaceId| [own, peer].iter().all(|device| self.role(*namespace, *device, now_ms).is_some());
        self.grants.keys().copied().filter(both).collect()
    }

    /// The newest grant of a namespace, and as it was signed.
    pub fn get(&self, namespace: NamespaceId) -> Option<&(SignedGrant, Grant)> {
        self.grants.get(&namespace)
    }

    /// All grants.
    pub fn all(&self) -> impl Iterator<Item = &(SignedGrant, Grant)> {
        self.grants.values()
    }

    /// The newest membership epoch known of each namespace.
    pub fn epochs(&self) -> BTreeMap<NamespaceId, u64> {
        self.grants.iter().map(|(namespace, (_, grant))| (*namespace, grant.epoch)).collect()
    }

    /// When the next grant expires, in milliseconds since 1970.
    pub fn next_expiry_ms(&self) -> Option<i64> {
        self.grants.values().map(|(_, grant)| grant.expires_ms).min()
    }
}
