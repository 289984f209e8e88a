//! Who may take part in a namespace: a list of devices that the relay signs. Devices check it without asking the relay, and hand it on.
//!
//! The newest grant of a namespace is the one with the greatest epoch, then the latest time of issue ([`Grant::is_newer_than`]). A device takes
//! part while the newest grant known lists it and has not expired. A revocation is a grant of a higher epoch that no longer lists the device:
//! whoever holds it refuses older ones, wherever they come from (I13).

use crate::bounded;
use crate::id::{DeviceId, NamespaceId, UserId};
use crate::limits::{DEVICE_NAME_MAX_BYTES, GRANT_MAX_BYTES, GRANT_MEMBERS_MAX};
use crate::wire::{self, Body, DecodeError, Role};
use serde::{Deserialize, Serialize};

/// What stands before the body in what is signed, so that a signature for another purpose is never one of a grant.
const CONTEXT: &[u8] = b"ferry grant 1\0";
/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// A device that may take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Whose it is.
    pub user: UserId,
    /// What it may do in the namespace.
    pub role: Role,
    /// Its display name; at most [`DEVICE_NAME_MAX_BYTES`].
    pub name: String,
}

/// The devices of a namespace, as the relay saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The namespace, the only one that this speaks of.
    pub namespace: NamespaceId,
    /// Grows with each change of the members.
    pub epoch: u64,
    /// When the relay signed, in milliseconds since 1970.
    pub issued_ms: i64,
    /// From when on it no longer counts, in milliseconds since 1970; after `issued_ms`.
    pub expires_ms: i64,
    /// The devices, by rising id, each once.
    #[serde(deserialize_with = "bounded::list::<GRANT_MEMBERS_MAX, _, _>")]
    pub members: Vec<Member>,
}

impl Grant {
    /// What is granted to a device, if anything.
    pub fn member(&self, device: DeviceId) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&device, |m| m.device).ok()?;
        self.members.get(at)
    }

    /// Whether it still counts at this time, in milliseconds since 1970.
    pub fn is_live(&self, now_ms: i64) -> bool {
        now_ms < self.expires_ms
    }

    /// Whether it takes the place of another grant of the same namespace.
    pub fn is_newer_than(&self, other: &Grant) -> bool {
        (self.epoch, self.issued_ms) > (other.epoch, other.issued_ms)
    }
}

impl Body for Grant {
    fn check(&self) -> Result<(), DecodeError> {
        if self.members.len() > GRANT_MEMBERS_MAX {
            return Err(DecodeError::Limit("members of a grant"));
        }
        if self.members.iter().any(|m| m.name.len() > DEVICE_NAME_MAX_BYTES) {
            return Err(DecodeError::Limit("bytes of a device's name"));
        }
        if self.members.windows(2).any(|pair| pair[0].device >= pair[1].device) {
            return Err(DecodeError::Malformed("the members of a grant stand by rising device id, each once".into()));
        }
        if self.issued_ms >= self.expires_ms {
            return Err(DecodeError::Malformed("a grant expires after it was issued".into()));
        }
        Ok(())
    }
}

/// Why a signed grant is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// More bytes than a grant can have.
    #[error("the grant has {0} bytes; at most {GRANT_MAX_BYTES} are possible")]
    TooLong(usize),
    /// Not by the key that counts, or changed since.
    #[error("the grant is not signed by this relay")]
    Signature,
    /// Signed, but not a grant that this side understands.
    #[error(transparent)]
    Body(#[from] DecodeError),
}

/// A grant as it travels and rests: the bytes that were signed stay as they are, so that the next reader can check them too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGrant {
    /// The encoded [`Grant`].
    #[serde(deserialize_with = "bounded::list::<GRANT_MAX_BYTES, _, _>")]
    pub body: Vec<u8>,
    /// Ed25519 over [`SignedGrant::signed_bytes`]; [`SIGNATURE_BYTES`] long.
    #[serde(deserialize_with = "bounded::list::<SIGNATURE_BYTES, _, _>")]
    pub signature: Vec<u8>,
}

impl SignedGrant {
    /// What the relay signs for a body.
    pub fn signed_bytes(body: &[u8]) -> Vec<u8> {
        [CONTEXT, body].concat()
    }

    /// The grant, if `verify` finds the signature (second argument) good for the message (first). Nothing is decoded before that.
    ///
    /// # Errors
    /// A body that is too long, a signature that does not fit, or a body that is not a grant.
    pub fn open(&self, verify: impl FnOnce(&[u8], &[u8]) -> bool) -> Result<Grant, GrantError> {
        if self.body.len() > GRANT_MAX_BYTES {
            return Err(GrantError::TooLong(self.body.len()));
        }
        if self.signature.len() != SIGNATURE_BYTES || !verify(&Self::signed_bytes(&self.body), &self.signature) {
            return Err(GrantError::Signature);
        }
        Ok(wire::decode(&self.body)?)
    }
}

impl Body for SignedGrant {
    fn check(&self) -> Result<(), DecodeError> {
        if self.body.len() > GRANT_MAX_BYTES {
            return Err(DecodeError::Limit("bytes of a grant"));
        }
        if self.signature.len() != SIGNATURE_BYTES {
            return Err(DecodeError::Malformed(format!("a signature has {SIGNATURE_BYTES} bytes, not {}", self.signature.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(devices: &[u8]) -> Grant {
        let member = |d: &u8| Member {
            device: DeviceId::from_bytes([*d; 16]),
            user: UserId::from_bytes([9; 16]),
            role: Role::Editor,
            name: format!("device {d}"),
        };
        let namespace = NamespaceId::from_bytes([1; 16]);
        Grant { namespace, epoch: 7, issued_ms: 1000, expires_ms: 2000, members: devices.iter().map(member).collect() }
    }

    #[test]
    fn a_grant_names_its_members_until_it_expires() {
        let grant = grant(&[2, 4, 6]);
        assert_eq!(grant.member(DeviceId::from_bytes([4; 16])).unwrap().name, "device 4");
        assert_eq!(grant.member(DeviceId::from_bytes([3; 16])), None);
        assert!(grant.is_live(1999) && !grant.is_live(2000));
    }

    #[test]
    fn the_epoch_counts_before_the_time_of_issue() {
        let old = grant(&[1, 2]);
        let renewed = Grant { issued_ms: 1500, ..old.clone() };
        let revoked = Grant { epoch: 8, issued_ms: 900, ..grant(&[1]) };
        assert!(renewed.is_newer_than(&old) && !old.is_newer_than(&renewed) && !old.is_newer_than(&old));
        assert!(revoked.is_newer_than(&renewed) && !renewed.is_newer_than(&revoked));
    }

    #[test]
    fn nothing_is_decoded_before_the_signature_is_good() {
        let signed = SignedGrant { body: b"not a grant".to_vec(), signature: vec![0; SIGNATURE_BYTES] };
        assert_eq!(signed.open(|_, _| false), Err(GrantError::Signature));
        assert!(matches!(signed.open(|_, _| true), Err(GrantError::Body(_))));
        let signed = SignedGrant { body: wire::encode(&grant(&[1])), signature: vec![3; SIGNATURE_BYTES] };
        let opened = signed.open(|message, signature| message == SignedGrant::signed_bytes(&signed.body) && signature == [3; 64]);
        assert_eq!(opened, Ok(grant(&[1])));
        let short = SignedGrant { signature: vec![3; 63], ..signed };
        assert_eq!(short.open(|_, _| true), Err(GrantError::Signature));
    }
}
