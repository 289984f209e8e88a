//! How fast a relay is, and how it grows: uploads and downloads, every metadata route under an open-loop load, wake-ups over many sockets, an account
//! of a million files, and what deduplication saves on real versions. Its own client, sockets on loopback, everything bounded; JSON at the end.
//!
//! ```text
//! cargo build --release --bins && cargo run --release -p ferry-tests --bin relay_bench -- [OPTION VALUE]...
//!   --only NAMES       of: transfer, routes, mixed, sockets, million, search, dedup      (all)
//!   --start KIND       starts a relay itself: embedded (SQLite and a directory), s3 (SQLite and an S3 server), shared (PostgreSQL, Redis and a
//!                      directory), cluster (PostgreSQL, Redis and an S3 server)      (embedded)
//!   --processes N      processes of a relay that is shared or a cluster, asked in turn (1)
//!   --postgres S,S     settings of the PostgreSQL that is started, each NAME=VALUE, such as shared_preload_libraries=pg_stat_statements
//!   --urls URL,URL     measures relays that run already instead; several are processes of one relay, asked in turn
//!   --email, --password  an administrator's account there
//!   --clients N        clients at once in transfer (4)      --mib N      MiB that each sends (128)
//!   --rate N           requests a second in routes and mixed (500)    --seconds N  how long each route, or the mix, is asked (5)
//!   --accounts N       accounts in mixed (50)
//!   --folders N        folders that are asked about in turn in routes (8)
//!   --routes WORDS     of routes only those that one of these words stands in, divided by commas      (all)
//!   --sockets N        open WebSockets (1000)               --commits N  commits in sockets (64)
//!   --files N          files in million (1000000) and in search (100000)
//!   --writers N        commits on their way at once while it is filled (2)
//!   --repo DIR         a git repository for dedup (.)
//!   --minutes N        no part takes longer (20)
//!   --dir FOLDER       where temporary folders are made     --json FILE  where the figures go
//! ```
//!
//! A table goes to standard error, each part under the command that measures it alone; a part that fails or takes too long is said, the others go on, and
//! the exit code is 1. What was started ends with the bench, however that ends but by a kill -9.
//!
//! Latencies in `routes` count from the moment at which a request was due, not from when it could be sent: a relay that stalls is not excused for the
//! requests that waited meanwhile.

mod client;
mod cpu;
mod dedup;
mod figures;
mod million;
mod mixed;
mod routes;
mod running;
mod search;
mod sockets;
mod transfer;

use anyhow::{Context, Result, bail, ensure};
use figures::Figures;
use running::Running;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const WORK: [&str; 7] = ["transfer", "routes", "mixed", "sockets", "million", "search", "dedup"];

/// What was asked for.
pub struct Options {
    only: BTreeSet<String>,
    start: String,
    processes: usize,
    minutes: u64,
    postgres: Vec<String>,
    urls: Vec<String>,
    email: String,
    password: String,
    clients: usize,
    mib: usize,
    rate: u64,
    folders: usize,
    routes: Vec<String>,
    accounts: usize,
    writers: usize,
    seconds: u64,
    sockets: usize,
    commits: usize,
    files: Option<usize>,
    repo: PathBuf,
    dir: PathBuf,
    json: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: BTreeSet::new(),
            start: "embedded".into(),
            processes: 1,
            minutes: 20,
            postgres: Vec::new(),
            urls: Vec::new(),
            email: ferry_tests::relay::EMAIL.into(),
            password: ferry_tests::relay::PASSWORD.into(),
            clients: 4,
            mib: 128,
            rate: 500,
            folders: 8,
            routes: Vec::new(),
            accounts: 50,
            writers: 2,
            seconds: 5,
            sockets: 1000,
            commits: 64,
            files: None,
            repo: ".".into(),
            dir: std::env::temp_dir(),
            json: None,
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} wants a value; the head of the source says what there is"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{word} wants a number"));
        match word.as_str() {
            "--only" => options.only = value.split(',').map(String::from).collect(),
            "--start" => options.start.clone_from(&value),
            "--processes" => options.processes = number()?.max(1),
            "--minutes" => options.minutes = number()? as u64,
            "--postgres" => options.postgres = value.split(',').map(String::from).collect(),
            "--urls" => options.urls = value.split(',').map(|u| u.trim_end_matches('/').to_owned()).collect(),
            "--email" => options.email.clone_from(&value),
            "--password" => options.password.clone_from(&value),
            "--clients" => options.clients = number()?,
            "--mib" => options.mib = number()?,
            "--rate" => options.rate = number()? as u64,
            "--accounts" => options.accounts = number()?.max(1),
            "--writers" => options.writers = number()?.max(1),
            "--routes" => options.routes = value.split(',').map(String::from).collect(),
            "--folders" => options.folders = number()?.max(1),
            "--seconds" => options.seconds = number()? as u64,
            "--sockets" => options.sockets = number()?,
            "--commits" => options.commits = number()?,
            "--files" => options.files = Some(number()?.max(1)),
            "--repo" => options.repo = value.into(),
            "--dir" => options.dir = value.into(),
            "--json" => options.json = Some(value.into()),
            _ => bail!("unknown option {word}; the head of the source says what there is"),
        }
    }
    ensure!(options.only.iter().all(|n| WORK.contains(&n.as_str())), "--only takes {}", WORK.join(", "));
    Ok(options)
}

/// One part of the work.
async fn part(work: &str, options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    match work {
        "transfer" => transfer::run(options, running, figures).await,
        "routes" => routes::run(options, running, figures).await,
        "mixed" => mixed::run(options, running, figures).await,
        "sockets" => sockets::run(options, running, figures).await,
        "million" => million::run(options, running, figures).await,
        "search" => search::run(options, running, figures).await,
        _ => dedup::run(options, running, figures).await,
    }
}

/// Every part that was asked for, one after another. Those that failed.
async fn all(options: &Options, running: &Running, figures: &mut Figures) -> Vec<String> {
    let mut failed = Vec::new();
    for work in WORK.iter().filter(|work| options.only.is_empty() || options.only.contains(**work)) {
        eprintln!("== {work}");
        let limit = Duration::from_secs(options.minutes * 60);
        let done = tokio::time::timeout(limit, part(work, options, running, figures)).await;
        let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("not done in {} minutes", options.minutes)));
        if let Err(error) = done {
            eprintln!("   failed: {error:#}");
            failed.push(format!("{work}: {error:#}"));
        }
    }
    failed
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| anyhow::anyhow!("somebody chose cryptography already"))?;
    let running = Running::start(&options)?;
    let mut figures = Figures::new(running.describe());
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let failed = tokio::select! {
        failed = all(&options, &running, &mut figures) => failed,
        _ = tokio::signal::ctrl_c() => vec!["interrupted".into()],
        _ = asked_to_end.recv() => vec!["told to end".into()],
    };
    drop(running);
    eprintln!("\n{}", figures.table(&command()));
    let mut all = figures.json();
    all["command"] = std::env::args().collect::<Vec<_>>().join(" ").into();
    let text = serde_json::to_string_pretty(&all)? + "\n";
    match &options.json {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string())?,
        None => print!("{text}"),
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// This run's command without the choice of parts and without the file for figures.
fn command() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let kept = words.chunks(2).filter(|pair| !matches!(pair[0].as_str(), "--only" | "--json" | "--password"));
    std::iter::once("relay_bench".to_owned()).chain(kept.map(|pair| pair.join(" "))).collect::<Vec<_>>().join(" ")
}
