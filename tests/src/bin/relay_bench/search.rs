//! Search in an account of many files with names as people give them: words that many, few and no names hold, the beginnings of words that one types, filters,
//! and later pages. Each kind is asked in turn, one request after another, with other words each time.

use super::Options;
use super::client::{Client, Folder, good, small_file};
use super::figures::{Figures, Latencies, Target};
use super::running::Running;
use anyhow::{Result, ensure};
use ferry_protocol::limits::COMMIT_NODES_MAX;
use ferry_protocol::{NodeId, node};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Instant;

/// Files when nobody says otherwise.
const FILES: usize = 100_000;
/// Files in one directory.
const FILES_EACH: usize = 1000;
/// Rounds of all kinds.
const ROUNDS: usize = 60;
const WORDS: [&str; 24] = [
    "report",
    "invoice",
    "holiday",
    "photo",
    "draft",
    "meeting",
    "budget",
    "notes",
    "summer",
    "Berlin",
    "Paris",
    "family",
    "contract",
    "offer",
    "tax",
    "letter",
    "music",
    "video",
    "scan",
    "backup",
    "project",
    "alpha",
    "Übersicht",
    "plan",
];
const ENDINGS: [&str; 5] = ["pdf", "docx", "txt", "md", "xlsx"];

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.throw(WORDS.len())]
    }
}

/// Two of five are pictures of a camera; the others have two words, a year and a number.
fn name(dice: &mut Dice, n: usize) -> String {
    if dice.throw(5) < 2 {
        return format!("IMG_{n:06}.jpg");
    }
    format!("{} {} {}-{n}.{}", dice.word(), dice.word(), 1990 + dice.throw(37), ENDINGS[dice.throw(ENDINGS.len())])
}

async fn fill(folder: &mut Folder, files: usize, options: &Options) -> Result<()> {
    let (mut nodes, mut chunks, mut directory, mut dice) = (Vec::new(), Vec::new(), NodeId::ROOT, Dice(1));
    for n in 0..files {
        if n % FILES_EACH == 0 {
            let node = folder.node(NodeId::ROOT, &format!("{} {:04}", dice.word(), n / FILES_EACH), node::Content::Dir);
            directory = node.id;
            nodes.push(node);
        }
        let (content, chunk) = small_file(&format!("content {}", n % FILES_EACH));
        nodes.push(folder.node(directory, &name(&mut dice, n), content));
        if n < FILES_EACH {
            chunks.push(chunk);
        }
        if nodes.len() >= COMMIT_NODES_MAX - 1 || n + 1 == files {
            folder.commit(std::mem::take(&mut nodes), std::mem::take(&mut chunks)).await?;
        }
        if n % 100_000 == 99_999 {
            folder.client = Client::login(&folder.client.url, &options.email, &options.password).await?;
        }
    }
    Ok(())
}

/// A search of this kind, with words of its own.
fn ask(kind: &str, dice: &mut Dice, files: usize, space: &str) -> String {
    match kind {
        "one file" => format!("q=img_{:06}", dice.throw(files)),
        "two words" => format!("q={}+{}", dice.word(), 1990 + dice.throw(37)),
        "many names" => "q=img".into(),
        "the first letter" => format!("q={}", char::from(b'a' + dice.throw(26) as u8)),
        "nothing" => format!("q=zzz{}", dice.throw(1000)),
        "a kind and a size" => format!("q={}&type=document&min_size=1", dice.word()),
        _ => format!("q={}&space_id={space}&path=/", dice.word()),
    }
}

const KINDS: [&str; 7] = ["one file", "two words", "many names", "the first letter", "nothing", "a kind and a size", "in one directory"];

async fn measured(client: &Client, path: &str) -> Result<(std::time::Duration, Value)> {
    let begun = Instant::now();
    let page = good(client.request(Method::GET, path).send().await?).await?.json().await?;
    Ok((begun.elapsed(), page))
}

/// Fills an account and searches in it.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let files = options.files.unwrap_or(FILES);
    let mut client = Client::login(running.url(0), &options.email, &options.password).await?;
    let mut folder = client.folder("search").await?;
    let begun = Instant::now();
    fill(&mut folder, files, options).await?;
    let filled = begun.elapsed();
    client = Client::login(running.url(0), &options.email, &options.password).await?;
    let space = folder.id.to_string();
    let listed: Value = good(client.request(Method::GET, &format!("/metadata/files?space_id={space}&path=/&limit=1000")).send().await?)
        .await?
        .json()
        .await?;
    let directories: Vec<String> =
        listed["files"].as_array().into_iter().flatten().filter_map(|d| d["file_path"].as_str().map(str::to_owned)).collect();
    ensure!(!directories.is_empty(), "no directories");
    let (mut dice, mut all, mut pages) = (Dice(7), Latencies::default(), Latencies::default());
    let mut by_kind: Vec<(&str, Latencies)> = KINDS.iter().map(|kind| (*kind, Latencies::default())).collect();
    for _ in 0..ROUNDS {
        for (kind, latencies) in &mut by_kind {
            let mut asked = ask(kind, &mut dice, files, &space);
            if *kind == "in one directory" {
                asked = asked.replace(
                    "path=/",
                    &format!("path={}", directories[dice.throw(directories.len())].replace(' ', "%20").replace('Ü', "%C3%9C")),
                );
            }
            let (took, page) = measured(&client, &format!("/api/v1/search?{asked}")).await?;
            let found = page["files"].as_array().map_or(0, Vec::len);
            ensure!(
                (*kind == "nothing") == (found == 0) || matches!(*kind, "one file" | "in one directory" | "two words" | "the first letter"),
                "{asked}: {found}"
            );
            latencies.add(took);
            all.add(took);
            if let (Some(cursor), "many names") = (page["cursor"].as_str(), *kind) {
                let (took, _) = measured(&client, &format!("/api/v1/search?{asked}&cursor={cursor}")).await?;
                pages.add(took);
                all.add(took);
            }
        }
    }
    figures.row("search", format!("{files} files, filled in"), filled.as_secs_f64().round(), "s", Target::None);
    figures.row("search", "a search, p50", all.ms(0.5), "ms", Target::None);
    figures.row("search", "a search, p95", all.ms(0.95), "ms", Target::AtMost(100.0));
    for (kind, latencies) in by_kind.iter_mut().map(|(kind, latencies)| (*kind, latencies)).chain([("a second page", &mut pages)]) {
        figures.row("search", format!("{kind}, p50"), latencies.ms(0.5), "ms", Target::None);
        figures.row("search", format!("{kind}, p95"), latencies.ms(0.95), "ms", Target::AtMost(100.0));
    }
    let kinds: serde_json::Map<String, Value> =
        by_kind.iter_mut().map(|(kind, latencies)| ((*kind).to_owned(), latencies.json())).collect();
    figures.put(
        "search",
        json!({"files": files, "fill_s": filled.as_secs_f64().round(), "all": all.json(), "second_page": pages.json(), "by_kind": kinds}),
    );
    Ok(())
}
