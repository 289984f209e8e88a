//! The wake-up connection: a WebSocket on which the relay says that a namespace changed.
//!
//! Wake-ups carry no facts. One may be lost, doubled or early: whoever gets one asks the feed. While the connection is down the caller polls.

use super::error::RelayError;
use super::http::{Http, Timing};
use super::session::Session;
use ferry_protocol::NamespaceId;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Longest message that is read, in bytes.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// Wake-ups that wait for their reader; then the connection waits too.
const QUEUE_MAX: usize = 64;
/// The relay pings every 25 s; after this much silence the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// News of the wake-up connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// It is up. Ask every feed once: what changed while it was down was not told.
    Connected,
    /// It is down, and will be tried again. Poll meanwhile.
    Disconnected(RelayError),
    /// A namespace changed; its feed had reached at least this number, if the relay said so.
    Changed {
        /// The namespace.
        namespace: NamespaceId,
        /// Its feed's head.
        seq: Option<u64>,
    },
    /// Devices, their roles or their addresses changed: announce this device again.
    Peers,
    /// Something changed that the relay did not name, or the list of namespaces did: ask for everything.
    Everything,
}

/// The wake-ups of one client. Dropping it closes the connection.
#[derive(Debug)]
pub struct Wakeups {
    receiver: mpsc::Receiver<Wakeup>,
}

impl Wakeups {
    /// The next news; nothing only when the runtime stops.
    pub async fn next(&mut self) -> Option<Wakeup> {
        self.receiver.recv().await
    }
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}
type Socket = WebSocketStream<Box<dyn Transport>>;

/// The messages of the relay that matter here. Both spellings of a change are taken.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    namespace_id: Option<NamespaceId>,
    seq: Option<u64>,
}

pub(super) fn start(http: Arc<Http>, session: Arc<Session>) -> Wakeups {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = run(&http, &session, &sender) => {}
        }
    });
    Wakeups { receiver }
}

async fn run(http: &Http, session: &Arc<Session>, news: &mpsc::Sender<Wakeup>) {
    let mut failures = 0;
    loop {
        let ended = match session.with_token(|token| connect(http, session, token)).await {
            Ok(socket) => {
                failures = 0;
                if news.send(Wakeup::Connected).await.is_err() {
                    return;
                }
                listen(http, socket, news).await
            }
            Err(error) => error,
        };
        let asked = ended.retry_after();
        if news.send(Wakeup::Disconnected(ended)).await.is_err() {
            return;
        }
        let mut random = [0; 8];
        // Without random numbers the wait is the longest: still right, only less spread.
        let spread = getrandom::fill(&mut random).map_or(u64::MAX, |()| u64::from_le_bytes(random));
        tokio::time::sleep(backoff(&http.timing, failures, spread).max(asked.unwrap_or_default())).await;
        failures = failures.saturating_add(1);
    }
}

/// How long to wait after so many failures in a row: doubling, up to a limit, and somewhere in its upper half, so that a thousand devices
/// do not come back in the same second (P28).
fn backoff(timing: &Timing, failures: u32, spread: u64) -> Duration {
    let longest = timing.reconnect_min.saturating_mul(1 << failures.min(16)).min(timing.reconnect_max);
    longest / 2 + longest.mul_f64(spread as f64 / u64::MAX as f64) / 2
}

async fn connect(http: &Http, session: &Session, token: String) -> Result<Socket, RelayError> {
    let user = session.credentials().await.ok_or(RelayError::LoginRequired { reason: "This device is not logged in.".into() })?.user_id;
    let handshake = async {
        let stream = transport(http).await?;
        let mut url = http.base.join(&format!("/ws/sync/{user}"));
        let cannot = |_| RelayError::retry("The wake-up connection cannot be asked for.");
        url.set_scheme(if http.base.is_tls() { "wss" } else { "ws" }).map_err(cannot)?;
        let mut request = url.as_str().into_client_request().map_err(|e| RelayError::retry(e.to_string()))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| RelayError::retry(e.to_string()))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = 4096;
        config.write_buffer_size = 0;
        config.max_message_size = Some(MESSAGE_MAX_BYTES);
        config.max_frame_size = Some(MESSAGE_MAX_BYTES);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await.map_err(|e| sorted(&e))?;
        Ok(socket)
    };
    let timeout = RelayError::retry("The relay did not open the wake-up connection in time; ferry polls and tries again.");
    tokio::time::timeout(http.timing.connect * 2, handshake).await.unwrap_or(Err(timeout))
}

async fn transport(http: &Http) -> Result<Box<dyn Transport>, RelayError> {
    let host = http.base.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let unreachable = |e: std::io::Error| {
        RelayError::retry(format!("The relay cannot be reached ({e}); check that it runs and that this device is online."))
    };
    let stream = TcpStream::connect((host.as_str(), http.base.port())).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    if !http.base.is_tls() {
        return Ok(Box::new(stream));
    }
    let config = Arc::new(super::tls::client_config(http.base.pin())?);
    let name = ServerName::try_from(host).map_err(|e| RelayError::retry(format!("The relay's address has no valid host name ({e}).")))?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?;
    Ok(Box::new(stream))
}

fn sorted(error: &Error) -> RelayError {
    match error {
        Error::Http(response) if response.status() == StatusCode::UNAUTHORIZED => {
            RelayError::LoginRequired { reason: "The relay did not accept this device's login.".into() }
        }
        Error::Http(response) => {
            RelayError::retry(format!("The relay refused the wake-up connection ({}); ferry polls instead.", response.status()))
        }
        other => RelayError::retry(format!("The wake-up connection broke ({other}); ferry polls and tries again.")),
    }
}

/// Passes on what the relay says until the connection ends; gives the reason.
async fn listen(http: &Http, mut socket: Socket, news: &mpsc::Sender<Wakeup>) -> RelayError {
    loop {
        let message = match next_message(&mut socket).await {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(_)) => return RelayError::retry("The relay closed the wake-up connection; ferry polls and tries again."),
            Ok(_) => continue,
            Err(error) => return error,
        };
        http.traffic.add_received(message.len());
        if let Some(wakeup) = understood(message.as_str())
            && news.send(wakeup).await.is_err()
        {
            return RelayError::retry("ferry is stopping.");
        }
    }
}

async fn next_message<S>(socket: &mut S) -> Result<Message, RelayError>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    let silence = || RelayError::retry("The wake-up connection fell silent; ferry polls and tries again.");
    let message = tokio::time::timeout(SILENCE_MAX, socket.next()).await.map_err(|_| silence())?;
    let message = message.unwrap_or(Err(Error::ConnectionClosed)).map_err(|e| sorted(&e))?;
    if matches!(message, Message::Ping(_)) {
        // The answer is queued by the library; this sends it.
        socket.flush().await.map_err(|e| sorted(&e))?;
    }
    Ok(message)
}

/// Nothing for messages that wake nobody, and for those of a newer relay.
fn understood(text: &str) -> Option<Wakeup> {
    let told: Told = serde_json::from_str(text).ok()?;
    match (told.kind.as_str(), told.data.namespace_id) {
        ("change" | "file_change", Some(namespace)) => Some(Wakeup::Changed { namespace, seq: told.data.seq }),
        ("change" | "file_change" | "gap" | "namespaces", _) => Some(Wakeup::Everything),
        ("peers", _) => Some(Wakeup::Peers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_wake_and_the_rest_does_not() {
        let namespace = NamespaceId::from_bytes([7; 16]);
        for kind in ["change", "file_change"] {
            let text = format!(r#"{{"type":"{kind}","data":{{"namespace_id":"{namespace}","seq":9,"other":1}}}}"#);
            assert_eq!(understood(&text), Some(Wakeup::Changed { namespace, seq: Some(9) }));
        }
        assert_eq!(understood(r#"{"type":"gap"}"#), Some(Wakeup::Everything));
        assert_eq!(understood(r#"{"type":"peers"}"#), Some(Wakeup::Peers));
        assert_eq!(understood(r#"{"type":"change","data":{}}"#), Some(Wakeup::Everything));
        for text in [
            "",
            "[]",
            "<html>",
            r#"{"type":"hello"}"#,
            r#"{"type":"presence","data":{}}"#,
            r#"{"type":"change","data":{"namespace_id":"x"}}"#,
        ] {
            assert_eq!(understood(text), None, "{text}");
        }
    }

    #[test]
    fn attempts_spread_out_and_stay_within_bounds() {
        let timing = Timing::default();
        assert_eq!(backoff(&timing, 0, 0), Duration::from_millis(500));
        assert_eq!(backoff(&timing, 0, u64::MAX), Duration::from_secs(1));
        assert_eq!(backoff(&timing, 3, u64::MAX), Duration::from_secs(8));
        for failures in [6, 31, u32::MAX] {
            assert!((30..=60).contains(&backoff(&timing, failures, failures.into()).as_secs()));
        }
    }
}
