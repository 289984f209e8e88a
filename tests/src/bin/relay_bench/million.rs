//! An account with very many files, filled through ordinary commits of as many nodes as one takes. Then pages: of one directory as people see it, of
//! everything, and of the feed as a device reads it.

use super::Options;
use super::client::{Client, Folder, good, small_file};
use super::figures::{Figures, Latencies};
use super::running::Running;
use anyhow::Result;
use ferry_protocol::limits::COMMIT_NODES_MAX;
use ferry_protocol::{NodeId, node};
use reqwest::Method;
use serde_json::json;
use std::time::Instant;

/// Files in one directory.
const FILES_EACH: usize = 1000;
/// Pages that are asked for.
const PAGES: usize = 200;

/// Commits so many files in directories. All have one of a thousand contents: what is measured is the metadata.
async fn fill(folder: &mut Folder, files: usize) -> Result<u64> {
    let (mut nodes, mut chunks, mut directory, mut head) = (Vec::new(), Vec::new(), NodeId::ROOT, 0);
    for n in 0..files {
        if n % FILES_EACH == 0 {
            let node = folder.node(NodeId::ROOT, &format!("dir{:05}", n / FILES_EACH), node::Content::Dir);
            directory = node.id;
            nodes.push(node);
        }
        let (content, chunk) = small_file(&format!("content {}", n % FILES_EACH));
        nodes.push(folder.node(directory, &format!("file{:04}.txt", n % FILES_EACH), content));
        if n < FILES_EACH {
            chunks.push(chunk);
        }
        if nodes.len() >= COMMIT_NODES_MAX - 1 || n + 1 == files {
            head = folder.commit(std::mem::take(&mut nodes), std::mem::take(&mut chunks)).await?;
        }
        if n % 100_000 == 99_999 {
            eprintln!("   {} files", n + 1);
        }
    }
    Ok(head)
}

async fn pages(client: &Client, path: impl Fn(usize) -> String) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    for n in 0..PAGES {
        let begun = Instant::now();
        good(client.request(Method::GET, &path(n)).send().await?).await?.bytes().await?;
        latencies.add(begun.elapsed());
    }
    Ok(latencies)
}

/// Fills an account and measures pages of it.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let client = Client::login(running.url(0), &options.email, &options.password).await?;
    let mut folder = client.folder("million").await?;
    let begun = Instant::now();
    let head = fill(&mut folder, options.files).await?;
    let filled = begun.elapsed();
    let space = folder.id.to_string();
    let directories = options.files.div_ceil(FILES_EACH);
    let first = Instant::now();
    good(client.request(Method::GET, &format!("/metadata/files?space_id={space}&path=/dir00000&limit=100")).send().await?).await?;
    let first = first.elapsed();
    let one = |n: usize| format!("/metadata/files?space_id={space}&path=/dir{:05}&limit=100&cursor={}", n * 37 % directories, n % 9 * 100);
    let everything = |n: usize| format!("/metadata/files?space_id={space}&limit=100&cursor={}", n * 4999 % options.files);
    let mut delta = Latencies::default();
    for n in 0..PAGES as u64 {
        let begun = Instant::now();
        folder.delta(n * 4999 % head.saturating_sub(1000).max(1), 1000).await?;
        delta.add(begun.elapsed());
    }
    let mut fresh = Latencies::default();
    for n in 0..10 {
        // Somebody edits between two looks.
        let (content, chunk) = small_file(&format!("fresh {n} {space}"));
        let node = folder.node(NodeId::ROOT, &format!("fresh{n}"), content);
        folder.commit(vec![node], vec![chunk]).await?;
        let begun = Instant::now();
        good(client.request(Method::GET, &one(n)).send().await?).await?.bytes().await?;
        fresh.add(begun.elapsed());
    }
    figures.put(
        "million",
        json!({
            "files": options.files, "filled_by": "commits of 4096 nodes", "fill_s": filled.as_secs_f64().round(),
            "first_page_ms": first.as_millis() as u64,
            "list_directory_page": pages(&client, one).await?.json(),
            "list_everything_page": pages(&client, everything).await?.json(),
            "list_after_an_edit": fresh.json(),
            "delta_page_of_1000": delta.json(),
        }),
    );
    Ok(())
}
