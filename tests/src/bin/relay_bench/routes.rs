//! Every metadata route at a fixed rate, open loop: a request is sent when it is due, whether or not earlier ones are answered, and its latency
//! counts from that moment.

use super::Options;
use super::client::{Client, Folder, good, small_file};
use super::cpu::Cpu;
use super::figures::{Figures, Latencies, Target};
use super::running::Running;
use anyhow::{Context, Result, ensure};
use ferry_protocol::wire::{self, ChunkIds, NodeUpdate};
use ferry_protocol::{ChunkId, NodeId, node};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories of the account, and files in each.
const DIRECTORIES: usize = 20;
const FILES_EACH: usize = 100;
/// A request that is not answered so long after it was due counts as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(30);

/// What the routes are asked about.
pub struct Ground {
    folder: Folder,
    space: String,
    files: Vec<String>,
    deleted: Vec<String>,
    doomed: Vec<String>,
    head: u64,
    cursor: String,
}

fn text(node: &NodeUpdate) -> String {
    hex::encode(node.id.as_bytes())
}

/// A folder of the client with files to ask about, of which so many may be deleted and as many restored.
pub async fn ground(client: &Client, doomed: usize) -> Result<Ground> {
    let mut folder = client.folder("routes").await?;
    let space = hex::encode(folder.id.as_bytes());
    let (mut nodes, mut chunks, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for d in 0..DIRECTORIES {
        let directory = folder.node(NodeId::ROOT, &format!("dir{d}"), node::Content::Dir);
        for f in 0..FILES_EACH {
            let (content, chunk) = small_file(&format!("file {f} of {d} in {space}"));
            let file = folder.node(directory.id, &format!("file{f}.txt"), content);
            files.push(text(&file));
            nodes.push(file);
            chunks.push(chunk);
        }
        nodes.push(directory);
    }
    folder.commit(nodes, chunks).await?;
    let mut gone = Vec::new();
    // Twice as many as are deleted while it is measured: half of them before, to be restored.
    for batch in (0..doomed * 2).collect::<Vec<_>>().chunks(2000) {
        let (mut nodes, mut chunks) = (Vec::new(), Vec::new());
        for n in batch {
            let (content, chunk) = small_file(&format!("doomed {n} in {space}"));
            let file = folder.node(NodeId::ROOT, &format!("doomed{n}.txt"), content);
            gone.push(file.clone());
            nodes.push(file);
            chunks.push(chunk);
        }
        folder.commit(nodes, chunks).await?;
    }
    let doomed_ids: Vec<String> = gone[..doomed].iter().map(text).collect();
    let mut head = 0;
    let mut deleted = Vec::new();
    for batch in gone[doomed..].chunks(2000) {
        let mut nodes = batch.to_vec();
        nodes.iter_mut().for_each(|n| folder.edit(n, node::Content::Tombstone));
        deleted.extend(nodes.iter().map(text));
        head = folder.commit(nodes, Vec::new()).await?;
    }
    let page: Value = good(client.request(Method::GET, "/sync/delta?limit=1").send().await?).await?.json().await?;
    let cursor = page["cursor"].as_str().context("the plain delta has a cursor")?.to_owned();
    Ok(Ground { folder, space, files, deleted, doomed: doomed_ids, head, cursor })
}

/// A route's request for each number.
pub type Make = Box<dyn Fn(&Ground, &Client, usize) -> RequestBuilder + Send + Sync>;

fn get(path: impl Fn(&Ground, usize) -> String + Send + Sync + 'static) -> Make {
    Box::new(move |ground, client, n| client.request(Method::GET, &path(ground, n)))
}

/// Every route that reads or changes metadata, with a request for each number.
pub fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("GET /auth/verify", get(|_, _| "/auth/verify".into())),
        ("GET /auth/me", get(|_, _| "/auth/me".into())),
        ("GET /api/v1/devices", get(|_, _| "/api/v1/devices".into())),
        ("GET /api/v1/me/usage", get(|_, _| "/api/v1/me/usage".into())),
        ("GET /api/v1/me/sessions", get(|_, _| "/api/v1/me/sessions".into())),
        ("GET /sync/v1/namespaces", get(|_, _| "/sync/v1/namespaces".into())),
        ("GET /metadata/files", get(|g, n| format!("/metadata/files?space_id={}&path=/dir{}&limit=100", g.space, n % DIRECTORIES))),
        ("GET /metadata/files/{id}", get(|g, n| format!("/metadata/files/{}", g.files[n % g.files.len()]))),
        ("GET /api/v1/files/{id}/versions", get(|g, n| format!("/api/v1/files/{}/versions", g.files[n % g.files.len()]))),
        ("GET /api/v1/trash", get(|g, _| format!("/api/v1/trash?space_id={}&limit=100", g.space))),
        ("GET /sync/delta", get(|g, _| format!("/sync/delta?since={}&limit=100", g.cursor))),
        ("GET /sync/v1/{ns}/delta", get(|g, n| g.folder.delta_path(g.head - 100 - (n as u64 % 100), 100))),
        (
            "POST /upload/v1/{ns}/missing",
            Box::new(|g, c, n| {
                let ids = (0..100).map(|k| ChunkId::of(format!("{n} {k}").as_bytes())).collect();
                c.wire(&format!("/upload/v1/{}/missing", g.space), wire::encode(&ChunkIds { ids }))
            }),
        ),
        (
            "POST /upload/init",
            Box::new(|g, c, n| {
                let hash = hex::encode(ChunkId::of(format!("init {n}").as_bytes()).as_bytes());
                let body = json!({"file_name": format!("init{n}"), "file_size": 1000, "file_hash": hash, "space_id": g.space});
                c.request(Method::POST, "/upload/init").json(&body)
            }),
        ),
        (
            "PUT /metadata/files/{id}",
            Box::new(|g, c, n| {
                let body = json!({"file_name": format!("renamed{n}.txt")});
                c.request(Method::PUT, &format!("/metadata/files/{}", g.files[n % g.files.len()])).json(&body)
            }),
        ),
        (
            "POST /sync/v1/{ns}/commit",
            Box::new(|g, c, n| {
                let mut folder = g.folder.clone();
                let (content, chunk) = small_file(&format!("commit {n} in {}", g.space));
                let node = folder.node(NodeId::ROOT, &format!("committed{n}.txt"), content);
                c.wire(&format!("/sync/v1/{}/commit", g.space), folder.encoded(vec![node], vec![chunk]))
            }),
        ),
        ("DELETE /metadata/files/{id}", Box::new(|g, c, n| c.request(Method::DELETE, &format!("/metadata/files/{}", g.doomed[n])))),
        (
            "POST /api/v1/trash/restore",
            Box::new(|g, c, n| c.request(Method::POST, "/api/v1/trash/restore").json(&json!({"file_id": g.deleted[n]}))),
        ),
    ]
}

struct Outcome {
    latencies: Latencies,
    failed: u64,
    first_failure: Option<String>,
}

/// Asks one route at the rate for so long.
async fn ask(grounds: &Arc<Vec<Ground>>, clients: &[Client], make: &Arc<Make>, options: &Options) -> Result<Outcome> {
    let begun = Instant::now() + Duration::from_millis(50);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..(options.rate * options.seconds) as usize {
        let due = begun + Duration::from_secs_f64(n as f64 / options.rate as f64);
        let (grounds, make, client) = (grounds.clone(), make.clone(), clients[n % clients.len()].clone());
        tasks.spawn(async move {
            let request = make(&grounds[n % grounds.len()], &client, n / grounds.len());
            tokio::time::sleep_until(due.into()).await;
            let answer =
                tokio::time::timeout(LOST_AFTER, async { good(request.send().await?).await?.bytes().await.map_err(Into::into) }).await;
            (due.elapsed(), answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {LOST_AFTER:?}"))).err())
        });
    }
    let mut outcome = Outcome { latencies: Latencies::default(), failed: 0, first_failure: None };
    while let Some(done) = tasks.join_next().await {
        let (took, failure) = done?;
        outcome.latencies.add(took);
        if let Some(error) = failure {
            outcome.failed += 1;
            outcome.first_failure.get_or_insert(format!("{error:#}"));
        }
    }
    Ok(outcome)
}

/// Measures route after route.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let client = Client::login(running.url(0), &options.email, &options.password).await?;
    // Writers of one folder wait for each other; a relay has many.
    let each = ((options.rate * options.seconds) as usize).div_ceil(options.folders);
    let mut grounds = Vec::new();
    for _ in 0..options.folders {
        grounds.push(ground(&client, each).await?);
    }
    let grounds = Arc::new(grounds);
    let clients: Vec<Client> = running.urls.iter().map(|url| client.at(url)).collect();
    let mut all_routes = serde_json::Map::new();
    let is_asked = |name: &str| options.routes.is_empty() || options.routes.iter().any(|word| name.contains(word.as_str()));
    for (name, make) in all().into_iter().filter(|(name, _)| is_asked(name)) {
        let make = Arc::new(make);
        let cpu = Cpu::start();
        let mut outcome = ask(&grounds, &clients, &make, options).await?;
        let cpu = cpu.per_request((options.rate * options.seconds) as usize);
        let mut figure = outcome.latencies.json();
        eprintln!("   CPU for each: {cpu}");
        figure["cpu_each"] = cpu;
        if let Some(failure) = outcome.first_failure {
            figure["failed"] = outcome.failed.into();
            figure["first_failure"] = failure.into();
        }
        figures.row("routes", format!("{name}, p95"), outcome.latencies.ms(0.95), "ms", Target::AtMost(100.0));
        if outcome.failed > 0 {
            figures.row("routes", format!("{name}, failed: {}", figure["first_failure"]), outcome.failed as f64, "", Target::AtMost(0.0));
        }
        all_routes.insert(name.into(), figure);
    }
    ensure!(!all_routes.is_empty(), "no route was asked");
    figures.put(
        "routes",
        json!({"rate_per_s": options.rate, "seconds_each": options.seconds, "folders": options.folders, "by_route": all_routes}),
    );
    Ok(())
}
