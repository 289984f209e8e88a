//! What deduplication saves on ten versions of a real source tree, from the history of a git repository: each is exported, cut and hashed as a device
//! does, and what the relay lacks is sent. Between two versions only changed files are new content; the saving counts against sending every version
//! whole.

use super::Options;
use super::client::{Client, Folder, file, frames};
use super::figures::{Figures, Target};
use super::running::Running;
use anyhow::{Context, Result, ensure};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, NodeId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

const VERSIONS: usize = 10;
/// Bytes gathered into one body.
const BODY_BYTES: usize = 8 << 20;
/// Files in one commit.
const COMMIT_FILES: usize = 1000;

fn git(repo: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new("git").arg("-C").arg(repo).args(words).output().context("git is installed")?;
    ensure!(output.status.success(), "git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ten commits, evenly over the history, the oldest first.
fn versions(repo: &Path) -> Result<Vec<String>> {
    let log = git(repo, &["log", "--first-parent", "--reverse", "--format=%H"])?;
    let commits: Vec<&str> = log.lines().collect();
    ensure!(commits.len() >= VERSIONS, "{} has {} commits; {VERSIONS} are needed", repo.display(), commits.len());
    // Not from the first one: a tree that has hardly begun shares little and says little.
    let from = commits.len() / 2;
    Ok((0..VERSIONS).map(|n| commits[from + n * (commits.len() - 1 - from) / (VERSIONS - 1)].to_owned()).collect())
}

fn export(repo: &Path, commit: &str, into: &Path) -> Result<()> {
    let mut archive = Command::new("git").arg("-C").arg(repo).args(["archive", commit]).stdout(Stdio::piped()).spawn().context("git")?;
    let tar =
        Command::new("tar").arg("-x").arg("-C").arg(into).stdin(archive.stdout.take().context("it is piped")?).status().context("tar")?;
    ensure!(archive.wait()?.success() && tar.success(), "git archive {commit} cannot be unpacked");
    Ok(())
}

fn cut(bytes: &[u8]) -> Vec<&[u8]> {
    let sizes = ChunkSizes::for_file(bytes.len() as u64);
    let (mut chunks, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let at = sizes.next_cut(rest, true).unwrap_or(rest.len());
        let (chunk, more) = rest.split_at(at);
        chunks.push(chunk);
        rest = more;
    }
    chunks
}

#[derive(Default)]
struct Sums {
    logical: u64,
    sent: u64,
}

/// Sends one tree as a folder's content. Files that did not change are not looked at again by a device; they are counted as whole here.
async fn sync(folder: &mut Folder, tree: &Path, sums: &mut Sums) -> Result<()> {
    let mut nodes = Vec::new();
    let mut chunks: BTreeMap<ChunkId, Vec<u8>> = BTreeMap::new();
    for (n, path) in ferry_tests::tree::all_files(tree).iter().enumerate() {
        let bytes = std::fs::read(path)?;
        sums.logical += bytes.len() as u64;
        let mut refs = Vec::new();
        for chunk in cut(&bytes) {
            let id = ChunkId::of(chunk);
            refs.push(ChunkRef { id, len: chunk.len() as u32 });
            chunks.insert(id, chunk.to_vec());
        }
        nodes.push(folder.node(NodeId::ROOT, &format!("{}-{n}", hex::encode(super::client::id())), file(ContentHash::of(&bytes), refs)?));
    }
    let ids: Vec<ChunkId> = chunks.keys().copied().collect();
    let missing: BTreeSet<ChunkId> = folder.missing(ids).await?.into_iter().collect();
    let (mut body, mut gathered) = (Vec::new(), 0);
    for id in &missing {
        let bytes = &chunks[id];
        sums.sent += bytes.len() as u64;
        gathered += bytes.len();
        body.push((*id, bytes.as_slice()));
        if gathered >= BODY_BYTES {
            folder.send(frames(std::mem::take(&mut body))).await?;
            gathered = 0;
        }
    }
    if !body.is_empty() {
        folder.send(frames(body)).await?;
    }
    for batch in nodes.chunks(COMMIT_FILES) {
        folder.commit(batch.to_vec(), Vec::new()).await?;
    }
    Ok(())
}

/// Sends ten versions one after another.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let client = Client::login(running.url(0), &options.email, &options.password).await?;
    let mut folder = client.folder("dedup").await?;
    let commits = versions(&options.repo)?;
    let mut sums = Sums::default();
    let mut first_sent = 0;
    for (n, commit) in commits.iter().enumerate() {
        let dir = tempfile::tempdir_in(&options.dir)?;
        export(&options.repo, commit, dir.path())?;
        sync(&mut folder, dir.path(), &mut sums).await?;
        if n == 0 {
            first_sent = sums.sent;
        }
    }
    let saved = 1.0 - sums.sent as f64 / sums.logical.max(1) as f64;
    figures.row("dedup", "saved over ten versions", (saved * 1000.0).round() / 10.0, "%", Target::AtLeast(30.0));
    figures.row("dedup", "bytes of the versions", (sums.logical as f64 / 1e6).round(), "MB", Target::None);
    figures.row("dedup", "bytes that were sent", (sums.sent as f64 / 1e6).round(), "MB", Target::None);
    figures.put(
        "dedup",
        json!({"versions": commits, "logical_bytes": sums.logical, "stored_bytes": sums.sent, "stored_bytes_of_the_first": first_sent,
            "saved_percent": (saved * 1000.0).round() / 10.0}),
    );
    Ok(())
}
