//! What a visitor of a link carries: who it is, without a name, and that it gave the password. Signed, so that nothing of it is kept here; good for one
//! link, one password and a day (PL3).

use super::{Link, Links, hmac_sha256, network, random};
use crate::service::ServiceResult;
use crate::store::links::Visitor;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// How long a visit lasts, in milliseconds.
pub const VISIT_TTL_MS: i64 = 24 * 3600 * 1000;
/// Digits of the visitor and of the signature.
const VISITOR_DIGITS: usize = 32;
const MAC_DIGITS: usize = 64;

/// A pass as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    visitor: [u8; 16],
    ends_at_ms: i64,
}

impl Links {
    /// A new pass. For a link with a password only whoever gave it gets one.
    pub(super) fn pass(&self, link: &Link) -> ServiceResult<String> {
        let pass = Pass { visitor: random()?, ends_at_ms: self.clock.now_ms() + VISIT_TTL_MS };
        let said = format!("{}{:x}", hex::encode(pass.visitor), pass.ends_at_ms);
        Ok(format!("{}{said}", hex::encode(self.sign(link, &said))))
    }

    /// A pass for a visitor without a good one, if the link asks for no password.
    pub fn welcome(&self, link: &Link, pass: Option<&str>) -> ServiceResult<Option<String>> {
        if link.password_hash.is_some() || self.read(link, pass).is_some() {
            return Ok(None);
        }
        self.pass(link).map(Some)
    }

    /// Whether whoever carries this may come in.
    pub(super) fn passes(&self, link: &Link, pass: Option<&str>) -> bool {
        link.password_hash.is_none() || self.read(link, pass).is_some()
    }

    fn read(&self, link: &Link, pass: Option<&str>) -> Option<Pass> {
        let text = pass?;
        let (mac, said) = text.split_at_checked(MAC_DIGITS)?;
        let mac = hex::decode(mac).ok()?;
        if !bool::from(self.sign(link, said)[..].ct_eq(&mac)) {
            return None;
        }
        let (visitor, ends) = said.split_at_checked(VISITOR_DIGITS)?;
        let mut read = Pass { visitor: [0; 16], ends_at_ms: i64::from_str_radix(ends, 16).ok()? };
        hex::decode_to_slice(visitor, &mut read.visitor).ok()?;
        (read.ends_at_ms > self.clock.now_ms()).then_some(read)
    }

    fn sign(&self, link: &Link, said: &str) -> [u8; 32] {
        // Another password is another hash, and so another signature; no password is none of them.
        let password = Sha256::digest(link.password_hash.as_deref().unwrap_or_default());
        hmac_sha256(&self.key, &[&link.link_id[..], &password, said.as_bytes()].concat())
    }

    /// Who visits, for counting: by the pass, and without one by network and program, so that a download that is continued without a cookie is one too.
    pub fn visitor(&self, link: &Link, pass: Option<&str>, ip: IpAddr, program: &[u8]) -> Visitor {
        match self.read(link, pass) {
            Some(pass) => self.shared.meter_key("link-pass", &pass.visitor),
            None => self.shared.meter_key("link-visitor", &[&network(ip), program].concat()),
        }
    }
}
