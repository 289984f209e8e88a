//! Devices nearby over the control socket: what is known of them, how far they are, and looking for one anew.

use super::files::body;
use crate::lan::{PeerDoc, fetch};
use crate::problem::{Problem, exit};
use crate::supervisor::Daemon;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use ferry_protocol::name::display_bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

type Answer = Result<Json<Value>, Problem>;

/// Pings of one request.
const PINGS_MAX: u32 = 100;
/// Pause between two of them.
const PING_PAUSE: Duration = Duration::from_millis(200);
/// Characters of an id that are enough to name a device.
const ID_PREFIX_MIN: usize = 6;

/// `GET /v1/peers`
pub async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Value> {
    Json(json!({"type": "peers", "peers": daemon.peers()}))
}

/// The one that is meant: by its id or the beginning of it, or by its name.
fn find(peers: Vec<PeerDoc>, selector: &str) -> Result<PeerDoc, Problem> {
    let shown = display_bytes(selector.as_bytes());
    let by_id = |peer: &&PeerDoc| selector.len() >= ID_PREFIX_MIN && peer.id.to_string().starts_with(selector);
    let mut found: Vec<&PeerDoc> = peers.iter().filter(|peer| peer.name == selector || by_id(peer)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(peer), true) => Ok(peer.clone()),
        (Some(_), false) => Err(Problem::conflict("peer_ambiguous", format!("several devices are meant by '{shown}'"))
            .hint("name one by its id; list them with: ferry peer list --json")),
        (None, _) => Err(Problem::not_found("peer_not_found", format!("no device that shares a folder with this one is called '{shown}'"))
            .hint("list them with: ferry peer list")),
    }
}

/// `GET /v1/peers/{peer}`
pub async fn show(State(daemon): State<Arc<Daemon>>, Path(peer): Path<String>) -> Answer {
    let peer = find(daemon.peers(), &peer)?;
    let names: Vec<Value> = daemon
        .folders()
        .iter()
        .filter(|running| peer.folders.contains(&running.record.config.id))
        .map(|running| json!({"id": running.record.config.id, "name": running.record.config.name}))
        .collect();
    let mut document = serde_json::to_value(&peer).unwrap_or_default();
    document["type"] = json!("peer");
    document["folders"] = json!(names);
    Ok(Json(document))
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    #[serde(default = "one")]
    count: u32,
}

/// `POST /v1/peers/{peer}/ping` with `{"count": 5}`
pub async fn ping(State(daemon): State<Arc<Daemon>>, Path(peer): Path<String>, bytes: Bytes) -> Answer {
    let Ping { count } = body(&bytes)?;
    if !(1..=PINGS_MAX).contains(&count) {
        return Err(Problem::usage(format!("a count is between 1 and {PINGS_MAX}")));
    }
    let peer = find(daemon.peers(), &peer)?;
    let mut probes = Vec::new();
    for number in 0..count {
        if number > 0 {
            tokio::time::sleep(PING_PAUSE).await;
        }
        // Asked for each time: it may have gone, or have come again.
        let Some(link) = daemon.lan.hub.link(peer.id) else {
            probes.push(Err("it is not connected".to_owned()));
            continue;
        };
        probes.push(fetch::ping(&link).await.map_err(|error| error.to_string()));
    }
    if !probes.iter().any(Result::is_ok) && daemon.lan.hub.link(peer.id).is_none() {
        let why = peer.reason.unwrap_or_else(|| "it has just gone".into());
        let mut problem = Problem::temporary("peer_not_connected", format!("'{}' is not connected: {why}", peer.name));
        problem.exit_code = exit::UNREACHABLE;
        return Err(problem.hint("files reach it by the relay; see: ferry peer list"));
    }
    Ok(Json(pinged(&peer, &probes)))
}

fn pinged(peer: &PeerDoc, probes: &[Result<Duration, String>]) -> Value {
    let ms = |rtt: &Duration| rtt.as_secs_f64() * 1000.0;
    let came: Vec<f64> = probes.iter().flatten().map(ms).collect();
    let average = came.iter().sum::<f64>() / came.len().max(1) as f64;
    let some = |value: f64| (!came.is_empty()).then_some(value);
    let each = |probe: &Result<Duration, String>| match probe {
        Ok(rtt) => json!({"rtt_ms": ms(rtt)}),
        Err(error) => json!({"error": error}),
    };
    json!({
        "type": "ping",
        "id": peer.id,
        "name": peer.name,
        "address": peer.address,
        "probes": probes.iter().map(each).collect::<Vec<_>>(),
        "sent": probes.len(),
        "received": came.len(),
        "min_ms": came.iter().copied().reduce(f64::min),
        "average_ms": some(average),
        "max_ms": came.iter().copied().reduce(f64::max),
    })
}

/// `POST /v1/peers/{peer}/forget`
pub async fn forget(State(daemon): State<Arc<Daemon>>, Path(peer): Path<String>) -> Answer {
    let peer = find(daemon.peers(), &peer)?;
    let (addresses, was_connected) = daemon.lan.hub.forget_peer(peer.id);
    // The relay is asked anew where it is.
    daemon.folders_changed.notify_one();
    Ok(Json(json!({"type": "forgotten", "id": peer.id, "name": peer.name, "addresses": addresses, "was_connected": was_connected})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::DeviceId;

    fn peer(id: u8, name: &str) -> PeerDoc {
        PeerDoc {
            id: DeviceId::from_bytes([id; 16]),
            name: name.into(),
            state: "connected",
            address: Some("10.0.0.2:7".into()),
            addresses: Default::default(),
            via: "lan",
            found: Default::default(),
            reason: None,
            rtt_ms: None,
            in_bytes: 0,
            out_bytes: 0,
            in_bytes_per_s: 0,
            out_bytes_per_s: 0,
            folders: Vec::new(),
        }
    }

    #[test]
    fn a_device_is_named_by_name_or_the_beginning_of_its_id() {
        let peers = || vec![peer(1, "tv"), peer(2, "nas"), peer(3, "nas")];
        let id = |found: Result<PeerDoc, Problem>| found.map(|p| p.id.as_bytes()[0]).map_err(|p| p.code);
        assert_eq!(id(find(peers(), "tv")), Ok(1));
        assert_eq!(id(find(peers(), &DeviceId::from_bytes([2; 16]).to_string())), Ok(2));
        assert_eq!(id(find(peers(), &DeviceId::from_bytes([3; 16]).to_string()[..ID_PREFIX_MIN])), Ok(3));
        assert_eq!(id(find(peers(), "nas")), Err("peer_ambiguous".into()));
        for unknown in ["", "t", "TV", &DeviceId::from_bytes([1; 16]).to_string()[..ID_PREFIX_MIN - 1]] {
            assert_eq!(id(find(peers(), unknown)), Err("peer_not_found".into()), "{unknown}");
        }
    }

    #[test]
    fn pings_are_summed_up_whatever_came_of_them() {
        let ms = Duration::from_millis;
        let some = pinged(&peer(1, "tv"), &[Ok(ms(4)), Err("late".into()), Ok(ms(2))]);
        let figures = |v: &Value| ["sent", "received", "min_ms", "average_ms", "max_ms"].map(|name| v[name].as_f64());
        assert_eq!(figures(&some), [Some(3.0), Some(2.0), Some(2.0), Some(3.0), Some(4.0)]);
        assert_eq!((&some["probes"][1]["error"], &some["probes"][2]["rtt_ms"]), (&json!("late"), &json!(2.0)));
        assert_eq!(figures(&pinged(&peer(1, "tv"), &[Err("late".into())])), [Some(1.0), Some(0.0), None, None, None]);
    }
}
