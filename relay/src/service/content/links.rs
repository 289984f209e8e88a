//! Signed download addresses: short-lived, for one file, good only while their maker may read it (R55).

use super::{Content, Entry};
use crate::service::{Caller, Kind, ServiceError, ServiceResult, SessionId, UserRole};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::{NamespaceId, NodeId, UserId, wire::Role};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long an address is good when nobody says otherwise, in seconds.
pub const LINK_TTL_DEFAULT_S: u64 = 300;
/// The longest that an address may be good, in seconds.
pub const LINK_TTL_MAX_S: u64 = 3600;

type Payload = (UserId, NamespaceId, NodeId, Option<[u8; 16]>, i64);

impl Content {
    /// The token of an address for this file, and when it ends in milliseconds since 1970.
    pub fn sign_link(&self, entry: &Entry, file: NodeId, version: Option<[u8; 16]>, ttl_s: Option<u64>) -> ServiceResult<(String, i64)> {
        let ttl_s = ttl_s.unwrap_or(LINK_TTL_DEFAULT_S);
        if !(1..=LINK_TTL_MAX_S).contains(&ttl_s) {
            return Err(ServiceError::invalid("invalid_expiry", format!("An address is good for 1 to {LINK_TTL_MAX_S} seconds.")));
        }
        let expires_at_ms = self.clock.now_ms().saturating_add(ttl_s as i64 * 1000);
        let payload: Payload = (entry.caller.user_id, entry.row.id, file, version, expires_at_ms);
        let payload = postcard::to_stdvec(&payload).map_err(ServiceError::internal)?;
        let mac = hmac_sha256(&self.link_key, &payload);
        Ok((format!("{}.{}", URL_SAFE_NO_PAD.encode(&payload), URL_SAFE_NO_PAD.encode(mac)), expires_at_ms))
    }

    /// What a token opens. Wrong tokens and files that its maker may no longer read do not exist; an ended one says so.
    pub async fn open_link(&self, token: &str) -> ServiceResult<(Entry, NodeId, Option<[u8; 16]>)> {
        let parts = token.split_once('.').and_then(|(p, m)| Some((URL_SAFE_NO_PAD.decode(p).ok()?, URL_SAFE_NO_PAD.decode(m).ok()?)));
        let (payload, mac) = parts.ok_or_else(ServiceError::not_found)?;
        if !bool::from(hmac_sha256(&self.link_key, &payload)[..].ct_eq(&mac)) {
            return Err(ServiceError::not_found());
        }
        let (user_id, namespace, file, version, expires_at_ms): Payload =
            postcard::from_bytes(&payload).map_err(|_| ServiceError::not_found())?;
        if expires_at_ms <= self.clock.now_ms() {
            return Err(ServiceError::new(Kind::Gone, "link_expired", "This address has ended. Ask for a new one."));
        }
        let session_id = SessionId::from_bytes([0; 16]);
        let caller = Caller { user_id, device_id: None, session_id, role: UserRole::User, expires_at_ms, token: None };
        let entry = match self.enter(&caller, namespace, Role::Viewer).await {
            Err(e) => self.enter_shared(&caller, Some(namespace), file, Role::Viewer, e).await?,
            Ok(entry) => entry,
        };
        Ok((entry, file, version))
    }
}

/// HMAC-SHA-256 (RFC 2104) with a key of half a block.
pub(crate) fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_is_the_one_of_the_standard() {
        // RFC 4231, test case 1 has a key of 20 bytes; zeros up to the block's end are the same key.
        let mut key = [0; 32];
        key[..20].copy_from_slice(&[0x0b; 20]);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(hmac_sha256(&key, b"Hi There")), expected);
    }
}
