//! The relay's API, call by call.

use super::chunks::ChunkStream;
use super::error::RelayError;
use super::http::{ANY, Body, Http, JSON, OnSent, Request, Timing, Traffic};
use super::session::{CLIENT_ID, DeviceInfo, KeepCredentials, Session};
use super::url::RelayUrl;
use super::wakeups::{self, Wakeups};
use crate::bandwidth::Limiter;
use crate::identity::Credentials;
use bytes::Bytes;
use ferry_protocol::limits::{CHUNK_IDS_MAX, NAMESPACE_NAME_MAX_BYTES, REQUEST_MAX_BYTES};
use ferry_protocol::wire::{
    self, CHUNKS_CONTENT_TYPE, CONTENT_TYPE, ChunkFrame, ChunkIds, CommitReply, CommitRequest, FeedPage, LACKS_HEADER, NamespaceInfo,
};
use ferry_protocol::{ChunkId, Epoch, NamespaceId, VerifiedChunk};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

/// What a client is made with.
#[derive(Debug, Clone, Default)]
pub struct RelayOptions {
    /// The upload limit; all that share a limit share one clone of it.
    pub up: Limiter,
    /// The download limit.
    pub down: Limiter,
    /// How long to wait.
    pub timing: Timing,
}

/// What a relay says of itself to everyone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Its name for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it can do.
    pub features: Vec<String>,
    /// Its own idea of its address, for people and devices; may be empty.
    pub url: String,
}

/// A one-time secret with which another device of the same user may join.
#[derive(Clone, Deserialize)]
pub struct JoinSecret {
    /// The secret: a part of a [`super::JoinCode`].
    #[serde(alias = "code_secret")]
    pub secret: String,
    /// When it ends: RFC 3339 or Unix seconds, as the relay wrote it.
    pub expires_at: serde_json::Value,
}

/// What a device is given that asks to be let in. The device code is a secret, so there is no `Debug`.
#[derive(Clone, Deserialize, serde::Serialize)]
pub struct LoginCodes {
    /// For this device: with it, it asks for its tokens.
    pub device_code: String,
    /// For the person.
    pub user_code: String,
    /// The page on which to type it.
    pub verification_uri: String,
    /// The same page with the code in it.
    pub verification_uri_complete: String,
    /// In how many seconds all this ends.
    pub expires_in: u64,
    /// How many seconds to wait between two questions.
    #[serde(default = "five")]
    pub interval: u64,
}

/// RFC 8628: without a word of the server.
fn five() -> u64 {
    5
}

/// The answer to the feed's one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeltaReply {
    /// A page.
    Page {
        /// The page.
        page: FeedPage,
        /// When the relay last found that it has lost bytes of the namespace, in milliseconds since 1970; nothing while it has all. See
        /// [`RelayClient::lacks`].
        lacks_since_ms: Option<i64>,
    },
    /// The feed has this epoch, or the cursor is beyond its head: read it from the start, send what it lacks, delete nothing (I11).
    EpochChanged(Epoch),
}

/// A relay. Cheap to clone.
#[derive(Clone)]
pub struct RelayClient {
    http: Arc<Http>,
    session: Arc<Session>,
}

impl RelayClient {
    /// A client for the relay at `url`. With `credentials` it speaks for that user and device; without, log in or join first.
    pub fn new(
        url: RelayUrl,
        options: RelayOptions,
        credentials: Option<Credentials>,
        keep: Arc<dyn KeepCredentials>,
    ) -> Result<Self, RelayError> {
        let http = Arc::new(Http::new(url, options.up, options.down, options.timing)?);
        let session = Arc::new(Session::new(Arc::clone(&http), keep, credentials));
        Ok(Self { http, session })
    }

    /// The relay's address.
    pub fn url(&self) -> &RelayUrl {
        &self.http.base
    }

    /// Bytes sent and received so far.
    pub fn traffic(&self) -> &Traffic {
        &self.http.traffic
    }

    /// Who this client speaks for.
    pub async fn credentials(&self) -> Option<Credentials> {
        self.session.credentials().await
    }

    /// Keeps the key of the relay's grants, which the relay itself has told over its connection.
    pub async fn keep_grant_key(&self, key: crate::identity::GrantKey) -> Result<(), RelayError> {
        self.session.keep_grant_key(key).await
    }

    /// Asks the relay what it is; needs no login.
    pub async fn server_info(&self) -> Result<ServerInfo, RelayError> {
        let reply = self.http.call(&Request::get("/api/v1/server", JSON), None).await?;
        from_json(&reply)
    }

    /// Logs in and links this device. The credentials are stored when this returns.
    pub async fn login(&self, email: &str, password: &str, device: &DeviceInfo) -> Result<Credentials, RelayError> {
        self.session.login(email, password, None, device).await
    }

    /// The same for an account with a second factor; `code` is one of it.
    pub async fn login_with_code(&self, email: &str, password: &str, code: &str, device: &DeviceInfo) -> Result<Credentials, RelayError> {
        self.session.login(email, password, Some(code), device).await
    }

    /// Asks to be let in (RFC 8628): a person compares a code on the relay's page. Needs no login.
    pub async fn ask_for_login(&self, device: &DeviceInfo, system: &str) -> Result<LoginCodes, RelayError> {
        let key = hex::encode(device.public_key);
        let fields = [("client_id", CLIENT_ID), ("device_name", &*device.name), ("device_public_key", &*key), ("system", system)];
        let reply = self.http.call(&Request::post("/oauth/device_authorization", Body::form(&fields), Some(JSON)), None).await?;
        from_json(&reply)
    }

    /// Links this device once a person has let it in; before, the error's code is `authorization_pending`. The credentials are stored when this returns.
    pub async fn redeem(&self, device_code: &str) -> Result<Credentials, RelayError> {
        self.session.redeem(device_code).await
    }

    /// Links this device with the one-time secret of a join code. The credentials are stored when this returns.
    pub async fn join(&self, secret: &str, device: &DeviceInfo) -> Result<Credentials, RelayError> {
        self.session.join(secret, device).await
    }

    /// The account's e-mail address.
    pub async fn email(&self) -> Result<String, RelayError> {
        #[derive(Deserialize)]
        struct Me {
            email: String,
        }
        let reply = self.call(Request::get("/auth/me", JSON)).await?;
        from_json::<Me>(&reply).map(|me| me.email)
    }

    /// Forgets the credentials, and ends the session on the relay. An error means that the relay was not told; this side is logged out.
    pub async fn logout(&self) -> Result<(), RelayError> {
        self.session.logout().await
    }

    /// A secret for another device.
    pub async fn create_join_secret(&self) -> Result<JoinSecret, RelayError> {
        let reply = self.call(Request::post("/api/v1/join-codes", Body::json(&json!({})), Some(JSON))).await?;
        from_json(&reply)
    }

    /// The namespaces that this user is a member of.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>, RelayError> {
        let reply = self.call(Request::get("/sync/v1/namespaces", JSON)).await?;
        from_json(&reply)
    }

    /// Makes a namespace of this id, or answers the one that is there: after an unknown result ask again.
    pub async fn create_namespace(&self, id: NamespaceId, name: &str) -> Result<NamespaceInfo, RelayError> {
        if name.is_empty() || name.len() > NAMESPACE_NAME_MAX_BYTES {
            let detail = format!("A folder's name on the relay has 1 to {NAMESPACE_NAME_MAX_BYTES} bytes; choose another.");
            return Err(RelayError::Blocked(super::Problem { code: "invalid_name".into(), detail, ..Default::default() }));
        }
        let body = Body::json(&json!({ "id": id, "name": name }));
        let reply = self.call(Request::post("/sync/v1/namespaces", body, Some(JSON))).await?;
        from_json(&reply)
    }

    /// What changed after `since` in `epoch` (nothing: from the start of whatever epoch the feed has). At most about `limit` nodes.
    pub async fn delta(&self, namespace: NamespaceId, since: u64, epoch: Option<Epoch>, limit: usize) -> Result<DeltaReply, RelayError> {
        let epoch = epoch.map(|epoch| format!("&epoch={epoch}")).unwrap_or_default();
        let path = format!("/sync/v1/{namespace}/delta?since={since}&limit={limit}{epoch}");
        let request = Request::get(path, CONTENT_TYPE);
        match self.session.with_token(|token| self.send(&request, token)).await {
            Ok(response) => {
                let lacks = response.headers().get(LACKS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
                let page = decoded(self.http.read(response, REQUEST_MAX_BYTES).await?).await?;
                Ok(DeltaReply::Page { page, lacks_since_ms: lacks })
            }
            Err(RelayError::Blocked(problem)) if problem.status == 410 => match problem.epoch.as_deref().map(str::parse) {
                Some(Ok(epoch)) => Ok(DeltaReply::EpochChanged(epoch)),
                _ => Err(RelayError::peer_fault("a new epoch without its id")),
            },
            Err(error) => Err(error),
        }
    }

    /// Commits nodes. Every [`CommitReply`] is an answer, not an error.
    pub async fn commit(&self, namespace: NamespaceId, request: &CommitRequest) -> Result<CommitReply, RelayError> {
        let body = Body::wire(wire::encode(request));
        let mut request = Request::post(format!("/sync/v1/{namespace}/commit"), body, Some(CONTENT_TYPE));
        request.conflict_is_answer = true;
        decoded(self.call(request).await?).await
    }

    /// Which of these chunks the relay lacks for this namespace.
    pub async fn missing(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<Vec<ChunkId>, RelayError> {
        let mut missing = Vec::new();
        for ids in ids.chunks(CHUNK_IDS_MAX) {
            let body = Body::wire(wire::encode(&ChunkIds { ids: ids.to_vec() }));
            let reply: ChunkIds =
                decoded(self.call(Request::post(format!("/upload/v1/{namespace}/missing"), body, Some(CONTENT_TYPE))).await?).await?;
            let asked: HashSet<&ChunkId> = ids.iter().collect();
            if reply.ids.iter().any(|id| !asked.contains(id)) {
                return Err(RelayError::peer_fault("a missing chunk that nobody asked about"));
            }
            missing.extend(reply.ids);
        }
        Ok(missing)
    }

    /// Chunks of the namespace whose bytes the relay has lost, by rising id after `after`: some of them, none at the end.
    pub async fn lacks(&self, namespace: NamespaceId, after: Option<ChunkId>) -> Result<Vec<ChunkId>, RelayError> {
        let after = after.map(|id| format!("?after={id}")).unwrap_or_default();
        let reply: ChunkIds = decoded(self.call(Request::get(format!("/upload/v1/{namespace}/lacks{after}"), CONTENT_TYPE)).await?).await?;
        Ok(reply.ids)
    }

    /// Stores chunks, in one request: keep their sum near [`ferry_protocol::limits::CHUNK_BATCH_TARGET_BYTES`]. They are durable when this returns.
    pub async fn put_chunks<B>(&self, namespace: NamespaceId, chunks: Vec<VerifiedChunk<B>>) -> Result<(), RelayError>
    where
        B: AsRef<[u8]> + Into<Bytes>,
    {
        self.put_chunks_telling(namespace, chunks, None).await
    }

    /// [`RelayClient::put_chunks`], telling how many more bytes have gone out.
    pub async fn put_chunks_telling<B>(
        &self,
        namespace: NamespaceId,
        chunks: Vec<VerifiedChunk<B>>,
        on_sent: Option<OnSent>,
    ) -> Result<(), RelayError>
    where
        B: AsRef<[u8]> + Into<Bytes>,
    {
        let mut parts = Vec::with_capacity(chunks.len() * 2);
        for chunk in chunks {
            let id = chunk.id();
            let bytes: Bytes = chunk.into_bytes().into();
            if !bytes.is_empty() {
                parts.push(Bytes::copy_from_slice(&ChunkFrame::header(id, bytes.len())));
                parts.push(bytes);
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let request = Request::post(format!("/upload/v1/{namespace}/chunks"), Body::frames(parts, on_sent), None);
        self.call(request).await.map(drop)
    }

    /// Asks for chunks, in one request. They come verified, in the relay's order; ids that are there twice are asked for once.
    pub async fn get_chunks(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<ChunkStream, RelayError> {
        if ids.len() > CHUNK_IDS_MAX {
            let detail = format!("At most {CHUNK_IDS_MAX} chunks are asked for at once.");
            return Err(RelayError::Blocked(super::Problem { code: "too_many_chunks".into(), detail, ..Default::default() }));
        }
        let wanted: HashSet<ChunkId> = ids.iter().copied().collect();
        if wanted.is_empty() {
            return Ok(ChunkStream::new(Arc::clone(&self.http), None, wanted));
        }
        let mut seen = HashSet::new();
        let ids = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
        let body = Body::wire(wire::encode(&ChunkIds { ids }));
        let request = Request::post(format!("/download/v1/{namespace}/chunks"), body, Some(CHUNKS_CONTENT_TYPE));
        let response = self.session.with_token(|token| self.send(&request, token)).await?;
        Ok(ChunkStream::new(Arc::clone(&self.http), Some(response), wanted))
    }

    /// Any other call of the relay's JSON API, with this device's login: `path` begins with '/'. An answer without content is `null`.
    pub async fn json(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Result<serde_json::Value, RelayError> {
        let reply = self.call(Request::json(method, path, body)).await?;
        if reply.is_empty() { Ok(serde_json::Value::Null) } else { from_json(&reply) }
    }

    /// The bytes that an address of the relay gives, of whatever type, as they come. Who takes them checks their hash: they are not verified here.
    pub async fn download(&self, path: &str) -> Result<Download, RelayError> {
        let request = Request::get(path, ANY);
        let response = self.session.with_token(|token| self.send(&request, token)).await?;
        Ok(Download { http: Arc::clone(&self.http), response })
    }

    /// Opens the wake-up connection and keeps it open until the result is dropped. Call it inside a runtime.
    pub fn wakeups(&self) -> Wakeups {
        wakeups::start(Arc::clone(&self.http), Arc::clone(&self.session))
    }

    async fn send(&self, request: &Request, token: String) -> Result<reqwest::Response, RelayError> {
        self.http.send(request, Some(&token)).await
    }

    pub(super) async fn call(&self, request: Request) -> Result<Bytes, RelayError> {
        let response = self.session.with_token(|token| self.send(&request, token)).await?;
        self.http.read(response, REQUEST_MAX_BYTES).await
    }
}

/// Bytes from the relay, as they come. Dropping it ends the request.
pub struct Download {
    http: Arc<Http>,
    response: reqwest::Response,
}

impl Download {
    /// The next bytes; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RelayError> {
        self.http.next_piece(&mut self.response).await
    }
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RelayError> {
    serde_json::from_slice(bytes).map_err(|e| RelayError::VersionMismatch {
        detail: format!("The relay's answer is not what this version expects ({e}): upgrade the older side."),
    })
}

async fn decoded<B: wire::Body + Send + 'static>(bytes: Bytes) -> Result<B, RelayError> {
    let decoded = tokio::task::spawn_blocking(move || wire::decode(&bytes)).await;
    decoded.map_err(|_| RelayError::retry("ferry is stopping."))?.map_err(|e| match e {
        wire::DecodeError::Format(_) => RelayError::VersionMismatch { detail: format!("The relay speaks another version: {e}.") },
        other => RelayError::peer_fault(other.to_string()),
    })
}
