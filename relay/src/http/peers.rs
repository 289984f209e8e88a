//! Grants and rendezvous (8005): devices of one namespace that talk without the relay.

use super::{Access, AppState, Json, Problem, Route, Routes};
use crate::service::Caller;
use crate::service::peers::Announcement;
use crate::store::peers::{Peer, Report};
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferry_protocol::{DeviceId, NamespaceId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// 32 addresses and 1024 epochs, with room.
const BODY_MAX_BYTES: usize = 128 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(
            Route::post(
                "/api/v1/peers/announce",
                Access::Device,
                "Say where this device is; hear who may take part and where the others are",
            )
            .body_max(BODY_MAX_BYTES)
            .takes::<AnnounceBody>()
            .gives::<AnnouncementDoc>(),
            announce,
        )
        .add(Route::get("/api/v1/peers", Access::User, "Where the caller's other devices are").gives::<PeersDoc>(), peers)
}

#[derive(Deserialize, ToSchema)]
struct AnnounceBody {
    /// `ADDRESS:PORT` or `[ADDRESS]:PORT`, at most 32, the best first; none withdraws the device.
    addresses: Vec<String>,
    /// By namespace: the highest epoch of a grant that the device knows.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u64>)]
    epochs: BTreeMap<NamespaceId, u64>,
    /// What the device says of itself, for its user.
    report: Option<ReportBody>,
}

#[derive(Deserialize, ToSchema)]
struct ReportBody {
    /// When its daemon started, by its own clock, in milliseconds since 1970.
    run_at_ms: i64,
    /// Bytes that came over the LAN since then.
    lan_bytes: u64,
    /// Bytes that came from the relay since then.
    relay_bytes: u64,
    /// What it runs on.
    #[serde(default)]
    system: String,
    /// Which Ferry.
    #[serde(default)]
    version: String,
}

#[derive(Serialize, ToSchema)]
struct AnnouncementDoc {
    /// The public key with which grants are checked, 64 hexadecimal digits.
    grant_key: String,
    server_time_ms: i64,
    /// One for each of the caller's namespaces.
    grants: Vec<GrantDoc>,
    peers: Vec<PeerDoc>,
}

#[derive(Serialize, ToSchema)]
struct GrantDoc {
    #[schema(value_type = String)]
    namespace_id: NamespaceId,
    /// The signed bytes, in base64.
    body: String,
    /// Ed25519, in base64.
    signature: String,
}

#[derive(Serialize, ToSchema)]
struct PeersDoc {
    peers: Vec<PeerDoc>,
}

#[derive(Serialize, ToSchema)]
struct PeerDoc {
    #[schema(value_type = String)]
    device_id: DeviceId,
    name: String,
    /// Hints, the best first.
    addresses: Vec<String>,
    announced_at_ms: i64,
}

impl From<Peer> for PeerDoc {
    fn from(peer: Peer) -> Self {
        Self {
            device_id: peer.device_id,
            name: peer.name,
            addresses: peer.at.addresses.iter().map(ToString::to_string).collect(),
            announced_at_ms: peer.at.announced_at_ms,
        }
    }
}

async fn announce(State(app): State<AppState>, caller: Caller, Json(body): Json<AnnounceBody>) -> Result<Json<AnnouncementDoc>, Problem> {
    let Announcement { server_time_ms, grants, peers } = app.peers.announce(&caller, &body.addresses, &body.epochs).await?;
    if let Some(ReportBody { run_at_ms, lan_bytes, relay_bytes, system, version }) = body.report {
        app.peers.take_report(&caller, Report { run_at_ms, lan_bytes, relay_bytes, system, version }).await?;
    }
    let grants = grants.into_iter().map(|(namespace_id, signed)| GrantDoc {
        namespace_id,
        body: STANDARD.encode(&signed.body),
        signature: STANDARD.encode(&signed.signature),
    });
    Ok(Json(AnnouncementDoc {
        grant_key: app.peers.grant_key(),
        server_time_ms,
        grants: grants.collect(),
        peers: peers.into_iter().map(PeerDoc::from).collect(),
    }))
}

async fn peers(State(app): State<AppState>, caller: Caller) -> Result<Json<PeersDoc>, Problem> {
    let peers = app.peers.peers(&caller).await?;
    Ok(Json(PeersDoc { peers: peers.into_iter().map(PeerDoc::from).collect() }))
}
