//! A client of the relay's API, made for measuring: it sends what it is told, at once, and keeps nothing.

use anyhow::{Context, Result, bail, ensure};
use ferry_protocol::wire::{
    self, CHUNKS_CONTENT_TYPE, CONTENT_TYPE, ChunkFrame, ChunkIds, CommitReply, CommitRequest, FeedPage, InlineChunk, NamespaceInfo,
    NodeUpdate,
};
use ferry_protocol::{
    Author, ChunkId, ChunkRef, CommitId, ContentHash, DeviceId, Dot, Epoch, FileContent, Manifest, Name, NamespaceId, NodeId, NodeState,
    Place, ReplicaId, Stamp, Value, node,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// No single request takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Someone who is logged in.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Where the relay's process listens.
    pub url: String,
    /// The access token.
    pub token: String,
    /// Whose it is.
    pub user_id: String,
    /// Whoever edits through the web is named by the user's own id.
    author: DeviceId,
}

impl Client {
    /// Logs in.
    pub async fn login(url: &str, email: &str, password: &str) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).tcp_nodelay(true).build()?;
        let answer = http.post(format!("{url}/auth/login")).json(&json!({"email": email, "password": password})).send().await?;
        let body: serde_json::Value = good(answer).await?.json().await?;
        let text = |key: &str| body[key].as_str().map(str::to_owned).with_context(|| format!("the login's answer has no {key}"));
        let user_id = text("user_id")?;
        let raw = hex::decode(user_id.replace('-', "")).ok().and_then(|raw| raw.try_into().ok()).context("the user's id is 16 bytes")?;
        Ok(Self { http, url: url.into(), token: text("access_token")?, user_id, author: DeviceId::from_bytes(raw) })
    }

    /// The same user through another process of the relay.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.into(), ..self.clone() }
    }

    /// A request to a route.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// A request with a body that both sides encode.
    pub fn wire(&self, path: &str, body: Vec<u8>) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", CONTENT_TYPE).body(body)
    }

    /// Adds a user and logs in as it.
    pub async fn add_user(&self, email: &str, password: &str) -> Result<Self> {
        let body = json!({"email": email, "password": password});
        let answer = self.request(Method::POST, "/api/v1/admin/users").json(&body).send().await?;
        ensure!(answer.status().is_success() || answer.status() == StatusCode::CONFLICT, "adding a user: {}", answer.status());
        Self::login(&self.url, email, password).await
    }

    /// A new folder of the user.
    pub async fn folder(&self, name: &str) -> Result<Folder> {
        let answer = self.request(Method::POST, "/sync/v1/namespaces").json(&json!({"name": name})).send().await?;
        let info: NamespaceInfo = good(answer).await?.json().await?;
        let replica = ReplicaId::from_bytes(id());
        Ok(Folder { client: self.clone(), id: info.id, epoch: info.epoch, replica, counter: 0 })
    }
}

/// The answer, if it is one of success.
pub async fn good(answer: Response) -> Result<Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let (status, url) = (answer.status(), answer.url().path().to_owned());
    bail!("{url}: {status}: {}", answer.text().await.unwrap_or_default())
}

/// Sixteen bytes that nobody else has.
pub fn id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the system gives random bytes");
    id
}

/// A folder, as one replica writes to it.
#[derive(Clone)]
pub struct Folder {
    /// Who writes.
    pub client: Client,
    /// The folder.
    pub id: NamespaceId,
    epoch: Epoch,
    replica: ReplicaId,
    counter: u64,
}

impl Folder {
    fn stamp(&mut self) -> Stamp {
        self.counter += 1;
        Stamp { counter: self.counter, replica: self.replica }
    }

    fn put(&mut self, state: &mut NodeState, content: node::Content) {
        let dots: Vec<Dot> = state.body().values().iter().map(|v| v.dot).collect();
        let author = Author { device: self.client.author, name: "bench".into() };
        let value = Value { dot: state.body().next_dot(self.replica), stamp: self.stamp(), content, author, wall_ms: 0 };
        state.body_mut().put(&dots, value);
    }

    /// A new node.
    pub fn node(&mut self, parent: NodeId, name: &str, content: node::Content) -> NodeUpdate {
        let place = Place { stamp: self.stamp(), parent, name: Name::new(name).expect("names of the bench are good") };
        let mut state = NodeState::new(place);
        self.put(&mut state, content);
        NodeUpdate { id: NodeId::from_bytes(id()), state }
    }

    /// A new content of a file that is there.
    pub fn edit(&mut self, node: &mut NodeUpdate, content: node::Content) {
        self.put(&mut node.state, content);
    }

    /// The body of a commit.
    pub fn encoded(&self, nodes: Vec<NodeUpdate>, chunks: Vec<InlineChunk>) -> Vec<u8> {
        let (commit, replica) = (CommitId::from_bytes(id()), self.replica);
        wire::encode(&CommitRequest { commit, epoch: self.epoch, base_seq: u64::MAX, replica, nodes, chunks })
    }

    /// Commits; every chunk must be there or travel along.
    pub async fn commit(&self, nodes: Vec<NodeUpdate>, chunks: Vec<InlineChunk>) -> Result<u64> {
        let answer = self.client.wire(&format!("/sync/v1/{}/commit", self.id), self.encoded(nodes, chunks)).send().await?;
        match wire::decode(&good(answer).await?.bytes().await?)? {
            CommitReply::Accepted { head_seq, .. } => Ok(head_seq),
            other => bail!("a commit was answered {other:?}"),
        }
    }

    /// Which of these the relay lacks.
    pub async fn missing(&self, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>> {
        let body = wire::encode(&ChunkIds { ids });
        let answer = self.client.wire(&format!("/upload/v1/{}/missing", self.id), body).send().await?;
        Ok(wire::decode::<ChunkIds>(&good(answer).await?.bytes().await?)?.ids)
    }

    /// Sends a body of chunk frames.
    pub async fn send(&self, frames: bytes::Bytes) -> Result<()> {
        let path = format!("/upload/v1/{}/chunks", self.id);
        let request = self.client.request(Method::POST, &path).header("content-type", CHUNKS_CONTENT_TYPE).body(frames);
        good(request.send().await?).await.map(drop)
    }

    /// Fetches chunks, as frames.
    pub async fn fetch(&self, ids: Vec<ChunkId>) -> Result<bytes::Bytes> {
        let body = wire::encode(&ChunkIds { ids });
        Ok(good(self.client.wire(&format!("/download/v1/{}/chunks", self.id), body).send().await?).await?.bytes().await?)
    }

    /// The path of a page of the feed.
    pub fn delta_path(&self, since: u64, limit: usize) -> String {
        format!("/sync/v1/{}/delta?since={since}&epoch={}&limit={limit}", self.id, self.epoch)
    }

    /// A page of the feed.
    pub async fn delta(&self, since: u64, limit: usize) -> Result<FeedPage> {
        let path = self.delta_path(since, limit);
        Ok(wire::decode(&good(self.client.request(Method::GET, &path).send().await?).await?.bytes().await?)?)
    }
}

/// The frames of these chunks.
pub fn frames<'c>(chunks: impl IntoIterator<Item = (ChunkId, &'c [u8])>) -> bytes::Bytes {
    let mut out = Vec::new();
    for (id, bytes) in chunks {
        out.extend_from_slice(&ChunkFrame::header(id, bytes.len()));
        out.extend_from_slice(bytes);
    }
    out.into()
}

/// A file of these chunks.
pub fn file(hash: ContentHash, chunks: Vec<ChunkRef>) -> Result<node::Content> {
    Ok(node::Content::File(FileContent::new(Manifest::new(hash, chunks)?, 1)))
}

/// A file of one small chunk, with the chunk.
pub fn small_file(text: &str) -> (node::Content, InlineChunk) {
    let (id, len) = (ChunkId::of(text.as_bytes()), text.len() as u32);
    let content = file(ContentHash::of(text.as_bytes()), vec![ChunkRef { id, len }]).expect("one chunk is a manifest");
    (content, InlineChunk { id, bytes: text.as_bytes().to_vec() })
}
