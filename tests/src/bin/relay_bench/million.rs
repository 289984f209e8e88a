//! An account with very many files, filled through ordinary commits of as many nodes as one takes, some at once. Then pages: of one directory as people see it, of
//! everything, and of the feed as a device reads it.

use super::Options;
use super::client::{Client, Folder, good, small_file};
use super::figures::{Figures, Latencies, Target};
use super::running::Running;
use anyhow::{Result, ensure};
use ferry_protocol::limits::COMMIT_NODES_MAX;
use ferry_protocol::wire::{InlineChunk, NodeUpdate};
use ferry_protocol::{NodeId, node};
use reqwest::Method;
use serde_json::{Value, json};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

/// Files when nobody says otherwise.
const FILES: usize = 1_000_000;
/// Files in one directory.
const FILES_EACH: usize = 1000;
/// Directories in one commit: as many as it may hold.
const DIRECTORIES_EACH: usize = COMMIT_NODES_MAX / (FILES_EACH + 1);
/// Pages that are asked for.
const PAGES: usize = 200;

/// The nodes of some whole directories, and what the files of the first one hold: all have one of a thousand contents, as what is measured is the metadata.
fn directories(folder: &mut Folder, numbers: Range<usize>, files: usize) -> (Vec<NodeUpdate>, Vec<InlineChunk>) {
    let (mut nodes, mut chunks) = (Vec::new(), Vec::new());
    for n in numbers {
        let directory = folder.node(NodeId::ROOT, &format!("dir{n:05}"), node::Content::Dir);
        for k in 0..FILES_EACH.min(files - n * FILES_EACH) {
            let (content, chunk) = small_file(&format!("content {k}"));
            nodes.push(folder.node(directory.id, &format!("file{k:04}.txt"), content));
            if n == 0 {
                chunks.push(chunk);
            }
        }
        nodes.push(directory);
    }
    (nodes, chunks)
}

/// Commits so many files in directories, as large as a commit may be, some commits on their way at once. The head at the end.
async fn fill(folder: &mut Folder, files: usize, options: &Options) -> Result<u64> {
    let count = files.div_ceil(FILES_EACH);
    let (mut under_way, mut head, mut next) = (tokio::task::JoinSet::new(), 0, 0);
    while next < count || !under_way.is_empty() {
        // What the first one brings the others name.
        let room = if next == 0 || head > 0 { options.writers } else { 1 };
        if next < count && under_way.len() < room {
            let numbers = next..(next + DIRECTORIES_EACH).min(count);
            next = numbers.end;
            let (nodes, chunks) = directories(folder, numbers, files);
            let folder = folder.clone();
            under_way.spawn(async move { folder.commit(nodes, chunks).await });
            continue;
        }
        let Some(done) = under_way.join_next().await else { break };
        head = head.max(done??);
        let directories = next.saturating_sub(under_way.len() * DIRECTORIES_EACH);
        if directories % 100 < DIRECTORIES_EACH {
            eprintln!("   {} files", directories * FILES_EACH);
            // An access token may end before all are there.
            folder.client = Client::login(&folder.client.url, &options.email, &options.password).await?;
        }
    }
    Ok(head)
}

/// Pages that follow each other, from a first one on; at the end from the start again.
async fn pages(client: &Client, first: &str, number: usize) -> Result<Latencies> {
    let (mut latencies, mut cursor) = (Latencies::default(), None::<String>);
    for _ in 0..number {
        let path = cursor.as_ref().map_or_else(|| first.to_owned(), |cursor| format!("{first}&cursor={cursor}"));
        let begun = Instant::now();
        let page: Value = good(client.request(Method::GET, &path).send().await?).await?.json().await?;
        latencies.add(begun.elapsed());
        ensure!(page["files"].as_array().is_some_and(|files| !files.is_empty()), "an empty page: {path}");
        cursor = page["cursor"].as_str().map(str::to_owned);
    }
    Ok(latencies)
}

/// Pages of the feed, from all over it.
async fn feed_pages(folder: &Folder, head: u64, count: u64) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    for n in 0..PAGES as u64 {
        let begun = Instant::now();
        let page = folder.delta(head - (1000 + n * 4999 % count).min(count - 1), 1000).await?;
        latencies.add(begun.elapsed());
        ensure!(!page.nodes.is_empty(), "an empty page of the feed");
    }
    Ok(latencies)
}

/// Pages of the plain delta by time, from the beginning to just now.
async fn since_times(client: &Client, begun_at: SystemTime, filled: Duration) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    for n in 0..PAGES as u32 {
        let since = (begun_at + filled * n / PAGES as u32).duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let begun = Instant::now();
        let path = format!("/sync/delta?since={since}&limit=1000");
        good(client.request(Method::GET, &path).send().await?).await?.bytes().await?;
        latencies.add(begun.elapsed());
    }
    Ok(latencies)
}

/// Fills an account and measures pages of it.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let mut client = Client::login(running.url(0), &options.email, &options.password).await?;
    let mut folder = client.folder("million").await?;
    let (begun, begun_at) = (Instant::now(), SystemTime::now());
    let files = options.files.unwrap_or(FILES);
    let head = fill(&mut folder, files, options).await?;
    let filled = begun.elapsed();
    client = Client::login(running.url(0), &options.email, &options.password).await?;
    folder.client = client.clone();
    let space = folder.id.to_string();
    let directories = files.div_ceil(FILES_EACH);
    let list = |n: usize, more: &str| format!("/metadata/files?space_id={space}&path=/dir{:05}&limit=100{more}", n * 37 % directories);
    let begun = Instant::now();
    good(client.request(Method::GET, &list(0, "")).send().await?).await?;
    let first = begun.elapsed();
    let mut listed = Vec::new();
    for (what, more) in [("by name", ""), ("by size", "&sort=-size"), ("by time", "&sort=-modified")] {
        let mut latencies = Latencies::default();
        for n in 0..PAGES / 4 {
            latencies.extend(pages(&client, &list(n, more), 4).await?.into_inner());
        }
        listed.push((what, latencies));
    }
    let mut everything = pages(&client, &format!("/metadata/files?space_id={space}&limit=100"), PAGES).await?;
    // Numbers of this run's feed are without gaps from the first one on.
    let count = (files + directories) as u64;
    let mut delta = feed_pages(&folder, head, count).await?;
    let mut by_time = since_times(&client, begun_at, filled).await?;
    let mut fresh = Latencies::default();
    for n in 0..20 {
        // Somebody edits between two looks.
        let (content, chunk) = small_file(&format!("fresh {n} {space}"));
        let node = folder.node(NodeId::ROOT, &format!("fresh{n}"), content);
        folder.commit(vec![node], vec![chunk]).await?;
        let begun = Instant::now();
        good(client.request(Method::GET, &list(n, "")).send().await?).await?.bytes().await?;
        fresh.add(begun.elapsed());
    }
    figures.row("million", format!("{files} files, filled in"), filled.as_secs_f64().round(), "s", Target::None);
    figures.row("million", "the very first page", (first.as_secs_f64() * 1e4).round() / 10.0, "ms", Target::None);
    for (what, latencies) in &mut listed {
        figures.row("million", format!("page of 100 of a directory {what}, p95"), latencies.ms(0.95), "ms", Target::AtMost(50.0));
    }
    figures.row("million", "page of 100 of everything, p95", everything.ms(0.95), "ms", Target::AtMost(50.0));
    figures.row("million", "page of a directory just after an edit, p95", fresh.ms(0.95), "ms", Target::AtMost(50.0));
    figures.row("million", "page of 1000 of the feed, p95", delta.ms(0.95), "ms", Target::AtMost(50.0));
    figures.row("million", "page of 1000 of the plain delta by time, p95", by_time.ms(0.95), "ms", Target::AtMost(50.0));
    let mut by_order = serde_json::Map::new();
    for (what, latencies) in &mut listed {
        by_order.insert((*what).to_owned(), latencies.json());
    }
    figures.put(
        "million",
        json!({
            "files": files, "filled_by": format!("commits of {} nodes, {} at once", DIRECTORIES_EACH * (FILES_EACH + 1), options.writers), "fill_s": filled.as_secs_f64().round(),
            "first_page_ms": first.as_millis() as u64,
            "list_directory_page": by_order,
            "list_everything_page": everything.json(),
            "list_after_an_edit": fresh.json(),
            "delta_page_of_1000": delta.json(),
            "plain_delta_page_of_1000_by_time": by_time.json(),
        }),
    );
    Ok(())
}
