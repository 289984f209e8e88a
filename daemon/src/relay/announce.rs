//! Telling the relay where this device is, and hearing who may take part and where the others are.

use super::client::{RelayClient, from_json};
use super::error::RelayError;
use super::http::{Body, JSON, Request};
use crate::identity::GrantKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferry_protocol::grant::SignedGrant;
use ferry_protocol::limits::GRANT_MAX_BYTES;
use ferry_protocol::{DeviceId, NamespaceId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Most addresses of one device that the relay takes; the best ones come first.
pub const ADDRESSES_MAX: usize = 32;

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announce {
    /// Where it can be reached, the best first; at most [`ADDRESSES_MAX`] are sent. None withdraws it.
    pub addresses: Vec<SocketAddr>,
    /// The highest epoch that it knows of each namespace's grants.
    pub epochs: BTreeMap<NamespaceId, u64>,
    /// What it says of itself, for its user.
    pub report: Report,
}

/// What a device says of itself: counters since its daemon started, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// When the daemon started, in milliseconds since 1970: a run that began later counts from zero.
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

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The key of the relay's grants.
    pub grant_key: GrantKey,
    /// The relay's clock, in milliseconds since 1970.
    pub server_time_ms: i64,
    /// The newest grants, by the namespace that the relay says they are of; not checked yet.
    pub grants: Vec<(NamespaceId, SignedGrant)>,
    /// The other devices of a common namespace that announced themselves lately.
    pub peers: Vec<AnnouncedPeer>,
}

/// Another device. All of it is a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedPeer {
    /// Its id, which a connection must prove.
    pub device: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Where it said that it can be reached, the best first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// When, by the relay's clock, in milliseconds since 1970.
    pub announced_at_ms: i64,
}

#[derive(Deserialize)]
struct Answer {
    grant_key: GrantKey,
    server_time_ms: i64,
    grants: Vec<GrantText>,
    peers: Vec<PeerText>,
}

#[derive(Deserialize)]
struct GrantText {
    namespace_id: NamespaceId,
    body: String,
    signature: String,
}

#[derive(Deserialize)]
struct PeerText {
    device_id: DeviceId,
    name: String,
    addresses: Vec<String>,
    announced_at_ms: i64,
}

impl RelayClient {
    /// Says where this device is and hears of the others. Again changes nothing; call it about twice a minute, and when something changed.
    ///
    /// # Errors
    /// As every call; a relay of before grants answers [`RelayError::NotFound`].
    pub async fn announce(&self, announce: &Announce) -> Result<Announced, RelayError> {
        let addresses: Vec<String> = announce.addresses.iter().take(ADDRESSES_MAX).map(SocketAddr::to_string).collect();
        let body = Body::json(&json!({ "addresses": addresses, "epochs": announce.epochs, "report": announce.report }));
        let reply = self.call(Request::post("/api/v1/peers/announce", body, Some(JSON))).await?;
        understood(from_json(&reply)?)
    }
}

fn understood(answer: Answer) -> Result<Announced, RelayError> {
    let grants = answer.grants.into_iter().map(|grant| Ok((grant.namespace_id, signed(&grant)?))).collect::<Result<_, RelayError>>()?;
    let peer = |peer: PeerText| AnnouncedPeer {
        device: peer.device_id,
        name: peer.name,
        // An address that this version cannot read is one hint less.
        addresses: peer.addresses.iter().filter_map(|a| a.parse().ok()).take(ADDRESSES_MAX).collect(),
        announced_at_ms: peer.announced_at_ms,
    };
    let peers = answer.peers.into_iter().map(peer).collect();
    Ok(Announced { grant_key: answer.grant_key, server_time_ms: answer.server_time_ms, grants, peers })
}

fn signed(text: &GrantText) -> Result<SignedGrant, RelayError> {
    let fault = || RelayError::peer_fault("a grant that is not one");
    // Four characters for three bytes: what is too long is not decoded.
    if text.body.len() > GRANT_MAX_BYTES.div_ceil(3) * 4 {
        return Err(fault());
    }
    let decoded = |text: &str| STANDARD.decode(text).map_err(|_| fault());
    Ok(SignedGrant { body: decoded(&text.body)?, signature: decoded(&text.signature)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(change: impl FnOnce(&mut serde_json::Value)) -> Result<Announced, RelayError> {
        let key = hex::encode(libp2p_identity::ed25519::Keypair::generate().public().to_bytes());
        let mut answer = json!({
            "grant_key": key,
            "server_time_ms": 5,
            "grants": [{"namespace_id": "07".repeat(16), "body": "AQI=", "signature": "Aw=="}],
            "peers": [{"device_id": "09".repeat(16), "name": "tv", "addresses": ["10.0.0.1:1"], "announced_at_ms": 4}],
        });
        change(&mut answer);
        understood(from_json(answer.to_string().as_bytes())?)
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let heard = heard(|_| {}).unwrap();
        let signed = SignedGrant { body: vec![1, 2], signature: vec![3] };
        assert_eq!(heard.grants, [(NamespaceId::from_bytes([7; 16]), signed)]);
        assert_eq!((heard.peers[0].device, heard.peers[0].addresses.len()), (DeviceId::from_bytes([9; 16]), 1));
    }

    #[test]
    fn what_cannot_be_is_refused_and_hints_are_dropped() {
        let grant = |name: &'static str, text: String| heard(move |a| a["grants"][0][name] = json!(text));
        assert!(matches!(grant("body", "?".into()), Err(RelayError::PeerFault { .. })));
        assert!(matches!(grant("body", "A".repeat(2 * GRANT_MAX_BYTES)), Err(RelayError::PeerFault { .. })));
        assert!(matches!(grant("signature", "A".into()), Err(RelayError::PeerFault { .. })));
        assert!(heard(|a| a["grant_key"] = json!("00")).is_err());
        let odd = heard(|a| a["peers"][0]["addresses"] = json!(["relay.example:1", "[fe80::1]:2", ""])).unwrap();
        assert_eq!(odd.peers[0].addresses, ["[fe80::1]:2".parse().unwrap()]);
        let many = heard(|a| a["peers"][0]["addresses"] = json!(vec!["10.0.0.1:1"; 100])).unwrap();
        assert_eq!(many.peers[0].addresses.len(), ADDRESSES_MAX);
    }
}
