//! Uploads and downloads of fresh bytes: a client alone, and several at once. Bodies are made before the clock starts, and what came is hashed after
//! it has stopped: client and relay share the machine.

use super::Options;
use super::client::{Client, Folder, file, frames, good};
use super::figures::{Figures, Target, mb_per_s};
use super::running::Running;
use anyhow::{Result, ensure};
use bytes::Bytes;
use ferry_protocol::wire::ChunkFrame;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, NodeId};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// What a device sends in one body.
const BODY_CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 1 << 20;
/// Requests of one client on their way at once, as a device has.
const AT_ONCE: usize = 2;

struct Load {
    folder: Folder,
    bodies: Vec<Bytes>,
    refs: Vec<ChunkRef>,
    whole: ContentHash,
}

/// Bytes that repeat nowhere.
fn noise(len: usize) -> Vec<u8> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the system gives random bytes");
    let mut x = u64::from_le_bytes(seed) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

async fn load(client: &Client, mib: usize) -> Result<Load> {
    let folder = client.folder("transfer").await?;
    let bytes = tokio::task::spawn_blocking(move || noise(mib * CHUNK_BYTES)).await?;
    let chunks: Vec<(ChunkId, &[u8])> = bytes.chunks(CHUNK_BYTES).map(|c| (ChunkId::of(c), c)).collect();
    let refs = chunks.iter().map(|(id, c)| ChunkRef { id: *id, len: c.len() as u32 }).collect();
    let bodies = chunks.chunks(BODY_CHUNKS).map(|body| frames(body.iter().copied())).collect();
    Ok(Load { folder, bodies, refs, whole: ContentHash::of(&bytes) })
}

impl Load {
    /// Sends everything and commits it as one file. Returns its node.
    async fn upload(&mut self) -> Result<NodeId> {
        let folder = &self.folder;
        let sent = stream::iter(std::mem::take(&mut self.bodies)).map(|body| folder.send(body)).buffer_unordered(AT_ONCE);
        sent.try_collect::<Vec<()>>().await?;
        let node = self.folder.node(NodeId::ROOT, "large", file(self.whole, self.refs.clone())?);
        let id = node.id;
        self.folder.commit(vec![node], Vec::new()).await?;
        Ok(id)
    }

    /// Fetches everything as chunks.
    async fn download(&self) -> Result<Vec<Bytes>> {
        let ids: Vec<ChunkId> = self.refs.iter().map(|r| r.id).collect();
        let asked = ids.chunks(BODY_CHUNKS).map(|ids| self.folder.fetch(ids.to_vec())).collect::<Vec<_>>();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    fn check(&self, bodies: &[Bytes]) -> Result<()> {
        let mut found = Vec::new();
        for body in bodies {
            let mut at = 0;
            while let Some((frame, taken)) = ChunkFrame::parse(&body[at..])? {
                let ChunkFrame::Chunk(id, bytes) = frame else { anyhow::bail!("the relay has no good copy of a chunk") };
                ensure!(ChunkId::of(bytes) == id, "wrong bytes");
                found.push(id);
                at += taken;
            }
        }
        ensure!(found == self.refs.iter().map(|r| r.id).collect::<Vec<_>>(), "other chunks than were asked for");
        Ok(())
    }
}

/// One client's three rates, and from when to when each lasted.
struct Rates {
    up: Duration,
    down: Duration,
    plain: Duration,
}

async fn one(mut load: Load, barrier: &tokio::sync::Barrier) -> Result<Rates> {
    barrier.wait().await;
    let begun = Instant::now();
    let node = load.upload().await?;
    let up = begun.elapsed();
    barrier.wait().await;
    let begun = Instant::now();
    let bodies = load.download().await?;
    let down = begun.elapsed();
    barrier.wait().await;
    let begun = Instant::now();
    let answer = load.folder.client.request(Method::GET, &format!("/download/{}", dashed(node))).send().await?;
    let whole = good(answer).await?.bytes().await?;
    let plain = begun.elapsed();
    barrier.wait().await;
    load.check(&bodies)?;
    ensure!(ContentHash::of(&whole) == load.whole, "the plain download has other bytes");
    Ok(Rates { up, down, plain })
}

fn dashed(node: NodeId) -> String {
    let hex = hex::encode(node.as_bytes());
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// How long the slowest client took.
fn rate(rates: &[Rates], took: fn(&Rates) -> Duration) -> Duration {
    rates.iter().map(took).max().unwrap_or_default()
}

/// Measures a client alone, then several at once.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    for clients in [1, options.clients] {
        let mut loads = Vec::new();
        for number in 0..clients {
            let client = Client::login(running.url(number), &options.email, &options.password).await?;
            loads.push(load(&client, options.mib).await?);
        }
        let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(clients));
        // The first that fails ends the others, which would wait for it.
        let mut tasks = tokio::task::JoinSet::new();
        for load in loads {
            let barrier = barrier.clone();
            tasks.spawn(async move { one(load, &barrier).await });
        }
        let mut rates = Vec::new();
        while let Some(done) = tasks.join_next().await {
            rates.push(done??);
        }
        let bytes = options.mib * CHUNK_BYTES;
        let show = |took: fn(&Rates) -> Duration| {
            let slowest = rate(&rates, took);
            json!({"per_client_mb_s": mb_per_s(bytes, slowest), "summed_mb_s": mb_per_s(bytes * clients, slowest)})
        };
        let figure = json!({"clients": clients, "mib_each": options.mib, "upload": show(|r| r.up), "download_chunks": show(|r| r.down),
            "download_file": show(|r| r.plain)});
        let rows = [("upload", rate(&rates, |r| r.up), 50.0), ("download of chunks", rate(&rates, |r| r.down), 100.0)];
        for (what, took, least) in rows.into_iter().chain([("download of a file", rate(&rates, |r| r.plain), 100.0)]) {
            figures.row("transfer", format!("{what}, {clients} at once, each"), mb_per_s(bytes, took), "MB/s", Target::AtLeast(least));
            if clients > 1 {
                let target = if what == "upload" { Target::None } else { Target::AtLeast(300.0) };
                figures.row("transfer", format!("{what}, {clients} at once, summed"), mb_per_s(bytes * clients, took), "MB/s", target);
            }
        }
        figures.put(if clients == 1 { "transfer_alone" } else { "transfer_together" }, figure);
    }
    Ok(())
}
