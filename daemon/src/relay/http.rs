//! One request and its answer: bodies in measured pieces, types checked before anything is parsed (N2), limits and stalled connections (N5).

use super::error::{Problem, RelayError, not_a_relay};
use super::url::RelayUrl;
use crate::bandwidth::Limiter;
use bytes::{Bytes, BytesMut};
use ferry_protocol::limits::REQUEST_MAX_BYTES;
use ferry_protocol::wire::{CHUNKS_CONTENT_TYPE, CONTENT_TYPE as WIRE};
use futures_util::stream;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const JSON: &str = "application/json";
/// Of an answer whose bytes are checked by their hash: any type.
pub(super) const ANY: &str = "*/*";
const FORM: &str = "application/x-www-form-urlencoded";
const PROBLEM: &str = "application/problem+json";
/// Bodies go out in pieces of at most this size, in bytes: what a limit waits for.
const PIECE_BYTES: usize = 64 * 1024;
/// Bodies below this are not worth compressing, in bytes.
const COMPRESS_MIN_BYTES: usize = 1024;
/// Longest problem document that is read, in bytes.
const PROBLEM_MAX_BYTES: usize = 64 * 1024;
/// Longest wait that a relay may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How long the client waits.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For a connection.
    pub connect: Duration,
    /// Without any progress on a request or an answer.
    pub idle: Duration,
    /// For the first new attempt of the wake-up connection; doubles from there.
    pub reconnect_min: Duration,
    /// At most between two attempts of it.
    pub reconnect_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
        }
    }
}

/// Bytes of bodies since the start, for the status.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Sent to the relay.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Received from the relay, before decompression.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A body to send.
#[derive(Clone)]
pub(super) struct Body {
    content_type: &'static str,
    parts: Vec<Bytes>,
    compress: bool,
    /// Told of bytes as they go out; of some twice when the request is repeated.
    on_sent: Option<OnSent>,
}

/// Is told how many more bytes of a body went out.
pub type OnSent = Arc<dyn Fn(u64) + Send + Sync>;

impl Body {
    /// A JSON body.
    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self { content_type: JSON, parts: vec![value.to_string().into()], compress: false, on_sent: None }
    }

    /// A form.
    pub(super) fn form(fields: &[(&str, &str)]) -> Self {
        let text = ::url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Self { content_type: FORM, parts: vec![text.into()], compress: false, on_sent: None }
    }

    /// An encoded body of the protocol; compressed when the relay takes that.
    pub(super) fn wire(bytes: Vec<u8>) -> Self {
        Self { content_type: WIRE, parts: vec![bytes.into()], compress: true, on_sent: None }
    }

    /// Chunk frames, in parts.
    pub(super) fn frames(parts: Vec<Bytes>, on_sent: Option<OnSent>) -> Self {
        Self { content_type: CHUNKS_CONTENT_TYPE, parts, compress: false, on_sent }
    }
}

/// A request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query on the relay.
    pub(super) path: String,
    pub(super) body: Option<Body>,
    /// The only type of answer that is read; nothing: the answer has no content.
    pub(super) expect: Option<&'static str>,
    /// Whether 409 with the expected type is an answer too.
    pub(super) conflict_is_answer: bool,
}

impl Request {
    pub(super) fn get(path: impl Into<String>, expect: &'static str) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, expect: Some(expect), conflict_is_answer: false }
    }

    /// Whose answer is JSON, or nothing.
    pub(super) fn json(method: Method, path: &str, body: Option<&serde_json::Value>) -> Self {
        Self { method, path: path.to_owned(), body: body.map(Body::json), expect: None, conflict_is_answer: false }
    }

    pub(super) fn post(path: impl Into<String>, body: Body, expect: Option<&'static str>) -> Self {
        Self { method: Method::POST, path: path.into(), body: Some(body), expect, conflict_is_answer: false }
    }
}

/// The connection to one relay.
pub(super) struct Http {
    client: Client,
    pub(super) base: RelayUrl,
    pub(super) traffic: Traffic,
    pub(super) up: Limiter,
    pub(super) down: Limiter,
    pub(super) timing: Timing,
    /// Whether the relay takes compressed bodies; until it refuses one, yes.
    takes_zstd: AtomicBool,
}

/// How far the body of a request has gone.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    /// Waiting for our own limit: not the relay's fault.
    throttled: AtomicBool,
    /// Told of what goes out.
    on_sent: Option<OnSent>,
}

/// Why a request has no answer.
enum Failure {
    /// The other side closed the connection while we wrote.
    CutOff(RelayError),
    /// Anything else.
    Other(RelayError),
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        let sorted = RelayError::of_transport(error);
        let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let cut = causes.any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            matches!(io, Some(BrokenPipe | ConnectionReset | ConnectionAborted))
        });
        if cut { Self::CutOff(sorted) } else { Self::Other(sorted) }
    }
}

impl Http {
    pub(super) fn new(base: RelayUrl, up: Limiter, down: Limiter, timing: Timing) -> Result<Self, RelayError> {
        let mut builder = Client::builder()
            .user_agent(concat!("ferry/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .http1_only()
            .connect_timeout(timing.connect)
            .pool_idle_timeout(Duration::from_secs(50))
            .tls_backend_preconfigured(super::tls::client_config(base.pin())?);
        if !base.is_tls() {
            // This machine and private networks are not reached through a proxy.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| RelayError::of_transport(&e))?;
        Ok(Self { client, base, traffic: Traffic::default(), up, down, timing, takes_zstd: AtomicBool::new(true) })
    }

    /// Sends a request and gives the answer whose status and type are right; its body is still to be read.
    pub(super) async fn send(self: &Arc<Self>, request: &Request, token: Option<&str>) -> Result<Response, RelayError> {
        let compressed = self.compressed(request).await;
        let response = self.send_as(request, compressed.clone(), token).await?;
        if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && compressed.is_some() {
            // An older relay, or a proxy that takes no compressed bodies.
            self.takes_zstd.store(false, Ordering::Relaxed);
            return self.checked(request, self.send_as(request, None, token).await?).await;
        }
        self.checked(request, response).await
    }

    async fn compressed(&self, request: &Request) -> Option<Bytes> {
        let body = request.body.as_ref().filter(|body| body.compress && self.takes_zstd.load(Ordering::Relaxed))?;
        let bytes = body.parts.first().filter(|bytes| bytes.len() > COMPRESS_MIN_BYTES)?.clone();
        let packed = tokio::task::spawn_blocking(move || zstd::bulk::compress(&bytes, 1).ok().filter(|packed| packed.len() < bytes.len()));
        packed.await.ok().flatten().map(Bytes::from)
    }

    async fn send_as(self: &Arc<Self>, request: &Request, compressed: Option<Bytes>, token: Option<&str>) -> Result<Response, RelayError> {
        let mut builder = self.client.request(request.method.clone(), self.base.join(&request.path));
        builder = builder.header(ACCEPT, request.expect.unwrap_or(JSON));
        if request.expect != Some(CHUNKS_CONTENT_TYPE) && request.expect != Some(ANY) {
            // Chunks are mostly of files that do not compress: they come as they are.
            builder = builder.header(ACCEPT_ENCODING, "zstd");
        }
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let progress = Arc::new(Progress { on_sent: request.body.as_ref().and_then(|b| b.on_sent.clone()), ..Progress::default() });
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, body.content_type);
            let parts = match compressed {
                Some(packed) => {
                    builder = builder.header(CONTENT_ENCODING, "zstd");
                    vec![packed]
                }
                None => body.parts.clone(),
            };
            let length: usize = parts.iter().map(Bytes::len).sum();
            builder = builder.header(CONTENT_LENGTH, length).body(self.streamed(parts, Arc::clone(&progress)));
        }
        match self.with_progress(builder, &progress).await {
            Err(Failure::CutOff(error)) if request.body.is_some() && token.is_some() => Err(self.why_cut_off(token, error).await),
            Err(Failure::CutOff(error) | Failure::Other(error)) => Err(error),
            Ok(response) => Ok(response),
        }
    }

    /// A relay that refuses a token before it has read the body closes the connection, and its answer can be lost in our writing. Asked again
    /// without a body, it can be heard.
    async fn why_cut_off(&self, token: Option<&str>, error: RelayError) -> RelayError {
        let builder =
            self.client.get(self.base.join("/auth/verify")).header(AUTHORIZATION, format!("Bearer {}", token.unwrap_or_default()));
        match self.with_progress(builder, &Progress::default()).await {
            Ok(response)
                if response.status() == StatusCode::UNAUTHORIZED && content_type(response.headers()).as_deref() == Some(PROBLEM) =>
            {
                RelayError::LoginRequired { reason: "The relay no longer accepts this device's login.".into() }
            }
            _ => error,
        }
    }

    /// A body that waits for the upload limit and reports its progress.
    fn streamed(self: &Arc<Self>, parts: Vec<Bytes>, progress: Arc<Progress>) -> reqwest::Body {
        let state = (Arc::clone(self), parts.into_iter(), Bytes::new(), progress);
        let pieces = stream::unfold(state, |(http, mut parts, mut rest, progress)| async move {
            while rest.is_empty() {
                rest = parts.next()?;
            }
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            progress.throttled.store(true, Ordering::Relaxed);
            http.up.acquire(piece.len()).await;
            progress.throttled.store(false, Ordering::Relaxed);
            progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            http.traffic.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if let Some(on_sent) = &progress.on_sent {
                on_sent(piece.len() as u64);
            }
            Some((Ok::<_, Infallible>(piece), (http, parts, rest, progress)))
        });
        reqwest::Body::wrap_stream(pieces)
    }

    /// A slow upload may take its time; one that stands still may not (N5).
    async fn with_progress(&self, builder: reqwest::RequestBuilder, progress: &Progress) -> Result<Response, Failure> {
        let sending = builder.send();
        tokio::pin!(sending);
        let mut seen = 0;
        loop {
            match tokio::time::timeout(self.timing.idle, &mut sending).await {
                Ok(result) => return result.map_err(|e| Failure::of(&e)),
                Err(_) => {
                    let now = progress.bytes.load(Ordering::Relaxed);
                    if now == seen && !progress.throttled.load(Ordering::Relaxed) {
                        return Err(Failure::Other(stalled()));
                    }
                    seen = now;
                }
            }
        }
    }

    async fn checked(&self, request: &Request, response: Response) -> Result<Response, RelayError> {
        let status = response.status();
        let kind = content_type(response.headers());
        if status.is_success() || (status == StatusCode::CONFLICT && request.conflict_is_answer && kind.as_deref() == request.expect) {
            return match request.expect {
                Some(expect) if expect != ANY && kind.as_deref() != Some(expect) => {
                    Err(RelayError::retry(not_a_relay(&format!("sent {} instead of {expect}", kind.as_deref().unwrap_or("nothing")))))
                }
                // Without content there is still a type to betray a sign-in page.
                None if kind.as_deref().is_some_and(|kind| kind != JSON && kind != WIRE) => {
                    Err(RelayError::retry(not_a_relay("sent a page")))
                }
                _ if request.expect == Some(CHUNKS_CONTENT_TYPE) && response.headers().contains_key(CONTENT_ENCODING) => {
                    Err(RelayError::peer_fault("chunks in an encoding that was not asked for"))
                }
                _ => Ok(response),
            };
        }
        let retry_after = retry_after(response.headers());
        // OAuth's endpoints answer with plain JSON, as their standards ask; what they say is a problem document all the same.
        if !matches!(kind.as_deref(), Some(PROBLEM | JSON)) {
            return Err(RelayError::of_foreign_answer(status, retry_after));
        }
        let body = self.read(response, PROBLEM_MAX_BYTES).await?;
        let mut problem: Problem = serde_json::from_slice(&body).map_err(|_| RelayError::of_foreign_answer(status, retry_after))?;
        if kind.as_deref() == Some(JSON) && problem.code.is_empty() {
            return Err(RelayError::of_foreign_answer(status, retry_after));
        }
        problem.status = status.as_u16();
        Err(RelayError::of_problem(status, retry_after, problem))
    }

    /// Reads an answer up to `limit` bytes, before and after decompression (N5).
    pub(super) async fn read(&self, mut response: Response, limit: usize) -> Result<Bytes, RelayError> {
        let packed = header(response.headers(), CONTENT_ENCODING).is_some_and(|v| v.eq_ignore_ascii_case("zstd"));
        let mut body = BytesMut::new();
        while let Some(piece) = self.next_piece(&mut response).await? {
            if body.len() + piece.len() > limit {
                return Err(RelayError::peer_fault(format!("an answer of more than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        let body = body.freeze();
        if !packed {
            return Ok(body);
        }
        let unpacked = tokio::task::spawn_blocking(move || unpack(&body, limit)).await;
        unpacked.unwrap_or_else(|_| Err(RelayError::peer_fault("an answer that cannot be decompressed")))
    }

    /// The next bytes of an answer, after the download limit has let them through; nothing at its end.
    pub(super) async fn next_piece(&self, response: &mut Response) -> Result<Option<Bytes>, RelayError> {
        let piece = tokio::time::timeout(self.timing.idle, response.chunk()).await.map_err(|_| stalled())?;
        let piece = piece.map_err(|e| RelayError::of_transport(&e))?;
        if let Some(piece) = &piece {
            self.traffic.add_received(piece.len());
            self.down.acquire(piece.len()).await;
        }
        Ok(piece)
    }

    /// Sends and reads a whole answer.
    pub(super) async fn call(self: &Arc<Self>, request: &Request, token: Option<&str>) -> Result<Bytes, RelayError> {
        let response = self.send(request, token).await?;
        self.read(response, REQUEST_MAX_BYTES).await
    }
}

fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, RelayError> {
    let mut body = Vec::new();
    let reader = zstd::stream::read::Decoder::with_buffer(packed).map(|decoder| decoder.take(limit as u64 + 1));
    reader.and_then(|mut reader| reader.read_to_end(&mut body)).map_err(|e| RelayError::peer_fault(format!("a compressed answer: {e}")))?;
    if body.len() > limit { Err(RelayError::peer_fault(format!("an answer of more than {limit} bytes"))) } else { Ok(body.into()) }
}

fn stalled() -> RelayError {
    RelayError::retry("The relay stopped answering in the middle; ferry tries again by itself.")
}

fn header(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = header(headers, CONTENT_TYPE)?;
    Some(value.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

/// Seconds only: no relay of ours sends dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = header(headers, RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
