//! `WS /ws/sync/{user_id}`: wake-ups. A message says that something changed, never what (R5); the feed says what.

use super::auth::Credential;
use super::browser::is_own_origin;
use super::{Access, AppState, ClientIp, Path, Problem, Route, Routes};
use crate::service::content::WatchGuard;
use crate::service::{Caller, ServiceError};
use crate::store::bus::{Heard, Wake};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use ferry_protocol::{NamespaceId, UserId};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

/// Pings without any answer after which a connection is dead.
const MISSES_MAX: u32 = 2;
/// How long word of changed devices waits for more of it: a device that comes is news in each of its namespaces.
const PEERS_WAIT: Duration = Duration::from_millis(100);
/// Largest message from a client, in bytes.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// Messages from a client between two pings.
const MESSAGES_MAX: u32 = 1000;
/// The types of our messages.
const MESSAGES: [&str; 6] = ["hello", "file_change", "peers", "namespaces", "gap", "bye"];
/// Close codes: RFC 6455 for restart and policy, ours for credentials.
const RESTART: u16 = 1012;
const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const TOKEN_ENDED: u16 = 4401;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app).add(Route::get("/ws/sync/{user_id}", Access::User, "Wake-ups (WebSocket)").no_timeout(), connect)
}

async fn connect(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Path(user): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    // The dashed form of a UUID is the same id.
    let named = user.replace('-', "").parse::<UserId>().ok();
    if named != Some(caller.user_id) {
        return Err(ServiceError::forbidden("The token is of another user than the address names.").into());
    }
    let Some(credential) = Credential::of(&app, &headers, None) else { return Err(ServiceError::unauthenticated().into()) };
    // A browser names the page's origin; programs send none. A cookie is a browser's.
    let is_ours = match headers.get(header::ORIGIN) {
        Some(origin) => is_own_origin(&app, &headers, origin),
        None => matches!(credential, Credential::Bearer(_)),
    };
    if !is_ours {
        return Err(ServiceError::forbidden("A page of another origin may not open this connection.").into());
    }
    let guard = app.content.watch(caller.user_id)?;
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &app).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Err(ServiceError::malformed(rejection.body_text()).into()),
    };
    let upgrade = upgrade.protocols(["ferry.v1"]).max_message_size(MESSAGE_MAX_BYTES).max_frame_size(MESSAGE_MAX_BYTES);
    let tracker = app.connections.clone();
    Ok(upgrade
        .on_upgrade(move |socket| {
            tracker
                .track_future(async move { Connection { app, caller, credential, ip, socket, peers_at: None, _guard: guard }.run().await })
        })
        .into_response())
}

struct Connection {
    app: AppState,
    caller: Caller,
    credential: Credential,
    ip: IpAddr,
    socket: WebSocket,
    /// When to say that devices have changed.
    peers_at: Option<Instant>,
    _guard: WatchGuard,
}

/// Why a connection ends: a close code and a word.
struct End(u16, &'static str);

impl Connection {
    async fn run(mut self) {
        metrics::gauge!("ferry_relay_ws_connections").increment(1.0);
        let end = self.serve().await;
        let why = end.as_ref().map_or_else(|End(_, reason)| *reason, |()| "left");
        metrics::counter!("ferry_relay_ws_closed_total", "reason" => why).increment(1);
        if let Err(End(code, reason)) = end {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // The other side may be gone already.
            let _ = timeout(self.app.patience.message, self.socket.send(close)).await;
        }
        metrics::gauge!("ferry_relay_ws_connections").decrement(1.0);
    }

    /// Serves until the other side goes (`Ok`) or we end it.
    async fn serve(&mut self) -> Result<(), End> {
        // Heard before `hello` is composed, so that no change falls between the two.
        let mut wakes = self.app.content.subscribe();
        let hello = self.hello().await?;
        self.send(hello).await?;
        let drain = self.app.drain.clone();
        let left_ms = u64::try_from(self.caller.expires_at_ms - self.app.clock.now_ms()).unwrap_or(0);
        let expiry = tokio::time::sleep(Duration::from_millis(left_ms));
        tokio::pin!(expiry);
        // With each ping it looks again whether the token still counts (R21).
        let ping_every = self.app.patience.ping_every;
        let mut ticks = interval_at(Instant::now() + ping_every, ping_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut misses, mut received) = (0, 0);
        loop {
            let peers_at = self.peers_at;
            tokio::select! {
                () = drain.cancelled() => {
                    self.send(json!({"type": "bye"})).await?;
                    return Err(End(RESTART, "restart"));
                }
                () = &mut expiry => return Err(End(TOKEN_ENDED, "token expired")),
                _ = ticks.tick() => {
                    if misses >= MISSES_MAX {
                        return Ok(());
                    }
                    self.recheck().await?;
                    (misses, received) = (misses + 1, 0);
                    self.message(Message::Ping(Default::default())).await?;
                }
                heard = wakes.next() => match heard {
                    Some(Heard::Wake(wake)) => self.pass_on(wake).await?,
                    Some(Heard::Missed) => {
                        metrics::counter!("ferry_relay_bus_lagged_total").increment(1);
                        // Perhaps also that the token ended, or a membership.
                        self.app.content.forget_members();
                        self.recheck().await?;
                        self.send(json!({"type": "gap"})).await?;
                    }
                    None => return Err(End(RESTART, "restart")),
                },
                () = sleep_until(peers_at.unwrap_or_else(Instant::now)), if peers_at.is_some() => {
                    self.peers_at = None;
                    self.send(json!({"type": "peers"})).await?;
                }
                message = self.socket.recv() => {
                    match message {
                        None | Some(Ok(Message::Close(_))) => return Ok(()),
                        // The library tells its errors apart by words only.
                        Some(Err(error)) if error.to_string().contains("too long") => return Err(End(TOO_LARGE, "message too large")),
                        Some(Err(_)) => return Ok(()),
                        Some(Ok(_)) => {}
                    }
                    (misses, received) = (0, received + 1);
                    if received > MESSAGES_MAX {
                        return Err(End(POLICY, "too many messages"));
                    }
                }
            }
        }
    }

    async fn hello(&mut self) -> Result<Value, End> {
        let namespaces = self.app.content.namespaces(&self.caller).await.map_err(|_| End(RESTART, "store"))?;
        let list: Vec<Value> = namespaces.iter().map(|n| json!({"namespace_id": n.id, "seq": n.head_seq, "epoch": n.epoch})).collect();
        Ok(
            json!({"type": "hello", "data": {"user_id": self.caller.user_id, "server_time_ms": self.app.clock.now_ms(), "namespaces": list}}),
        )
    }

    /// The token may have been taken away since (R21, R53).
    async fn recheck(&mut self) -> Result<(), End> {
        match self.credential.check_anew(&self.app, self.ip).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == crate::service::Kind::Unauthenticated => Err(End(TOKEN_ENDED, "token ended")),
            Err(_) => Err(End(RESTART, "store")),
        }
    }

    async fn pass_on(&mut self, wake: Wake) -> Result<(), End> {
        match wake {
            Wake::Access { user } if user == self.caller.user_id => {
                self.app.content.forget_members();
                self.recheck().await?;
                // Perhaps it was a folder or an invitation that came or went: whoever listens asks for the list.
                self.send(json!({"type": "namespaces"})).await
            }
            Wake::Access { .. } => Ok(()),
            Wake::Feed { namespace, seq } if self.is_member(namespace).await? => {
                let data = json!({"namespace_id": namespace, "seq": seq});
                self.send(json!({"type": "file_change", "data": data})).await
            }
            Wake::Peers { by: Some(by), .. } if self.caller.device_id == Some(by) => Ok(()),
            Wake::Peers { namespace, .. } if self.is_member(namespace).await? => {
                self.peers_at = self.peers_at.or(Some(Instant::now() + PEERS_WAIT));
                Ok(())
            }
            Wake::Feed { .. } | Wake::Peers { .. } => Ok(()),
        }
    }

    async fn is_member(&mut self, namespace: NamespaceId) -> Result<bool, End> {
        self.app.content.listens(&self.caller, namespace).await.map_err(|_| End(RESTART, "store"))
    }

    async fn send(&mut self, value: Value) -> Result<(), End> {
        let kind = MESSAGES.iter().find(|kind| value["type"] == **kind).copied().unwrap_or("other");
        metrics::counter!("ferry_relay_ws_messages_total", "type" => kind).increment(1);
        self.message(Message::text(value.to_string())).await
    }

    async fn message(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.app.patience.message, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End(POLICY, "gone")),
            Err(_) => Err(End(POLICY, "too slow")),
        }
    }
}
