//! Two devices and a relay with a real tree, for example the unpacked sources of all dependencies: first sync, edits on both sides, renames, deletes, a
//! conflict, a git repository worked in on one side and checked on the other. After each step the disks are compared, modes and modification times too.
//!
//! ```text
//! cargo build --release --bins && cargo run --release -p ferry-tests --bin real_tree -- ~/.cargo/registry/src
//! ```

use anyhow::{Context, Result, ensure};
use ferry_tests::cluster::Cluster;
use ferry_tests::tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(900);

fn main() -> Result<()> {
    let source = PathBuf::from(std::env::args().nth(1).context("which tree? give a folder")?);
    let source = source.canonicalize().with_context(|| source.display().to_string())?;
    let mut cluster = Cluster::new(2);
    let [a, b] = [0, 1].map(|i| cluster.devices[i].root().to_path_buf());
    step(&mut cluster, "first sync", || {
        let done = Command::new("cp").arg("-a").arg(&source).arg(a.join("tree")).status()?;
        ensure!(done.success(), "cp");
        Ok(())
    })?;
    let files = tree::all_files(&a.join("tree"));
    println!("{} files", files.len());
    let same = Command::new("diff").args(["-r", "--no-dereference"]).arg(a.join("tree")).arg(b.join("tree")).status()?;
    ensure!(same.success(), "diff -r finds the two trees the same");

    step(&mut cluster, "edits on both sides", || {
        for (i, path) in files.iter().enumerate().step_by(97) {
            let here = if i % 2 == 0 { path.clone() } else { b.join(path.strip_prefix(&a)?) };
            append(&here, format!("\n// edit {i}\n").as_bytes())?;
        }
        Ok(())
    })?;
    let dirs: Vec<PathBuf> = fs::read_dir(largest_dir(&a.join("tree"))?)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    ensure!(dirs.len() >= 6, "the tree holds a folder of at least 6 folders");
    step(&mut cluster, "renames of folders on both sides", || {
        fs::rename(&dirs[0], dirs[0].with_file_name("renamed on A"))?;
        let there = b.join(dirs[1].strip_prefix(&a)?);
        fs::rename(&there, b.join("moved to the top on B"))?;
        Ok(())
    })?;
    step(&mut cluster, "deletes of folders on both sides", || {
        fs::remove_dir_all(&dirs[2])?;
        Ok(fs::remove_dir_all(b.join(dirs[3].strip_prefix(&a)?))?)
    })?;

    let fought = tree::all_files(&dirs[4]).into_iter().next().context("a file")?;
    cluster.links.iter().for_each(|link| link.cut());
    append(&fought, b"A was here\n")?;
    append(&b.join(fought.strip_prefix(&a)?), b"B was here\n")?;
    for device in &cluster.devices {
        device.ok(&["folder", "scan", ferry_tests::cluster::NAMESPACE]);
    }
    step(&mut cluster, "a conflict", || Ok(()))?;
    let copies = tree::all_files(&dirs[4]).iter().filter(|p| p.to_string_lossy().contains("conflicted copy")).count();
    ensure!(copies == 1, "one conflicted copy, not {copies}");

    work_in_git(&mut cluster, &dirs[5])?;
    cluster.finish();
    println!("nothing is lost, nothing outside was touched, the relay's store is sound");
    Ok(())
}

/// A repository is worked in on A, then on B; it is checked on the other side each time.
fn work_in_git(cluster: &mut Cluster, from: &Path) -> Result<()> {
    let [a, b] = [0, 1].map(|i| cluster.devices[i].root().to_path_buf());
    let repository = a.join("repository");
    step(cluster, "a git repository worked in on A", || {
        let from = Command::new("cp").arg("-a").arg(from).arg(&repository).status()?;
        ensure!(from.success(), "cp");
        git(&repository, &["init", "-q"])?;
        for round in 0..20 {
            append(&repository.join("notes"), format!("round {round}\n").as_bytes())?;
            git(&repository, &["add", "-A"])?;
            git(&repository, &["commit", "-q", "-m", &format!("round {round}")])?;
        }
        git(&repository, &["gc", "-q"])
    })?;
    git(&b.join("repository"), &["fsck", "--strict"])?;
    step(cluster, "and then on B", || {
        append(&b.join("repository/notes"), b"from B\n")?;
        git(&b.join("repository"), &["commit", "-q", "-a", "-m", "from B"])
    })?;
    git(&repository, &["fsck", "--strict"])?;
    let heads = [&a, &b].map(|root| head(&root.join("repository")));
    ensure!(heads[0].as_ref().ok() == heads[1].as_ref().ok() && heads[0].is_ok(), "both repositories have one head");
    println!("git fsck finds nothing on either side");
    Ok(())
}

/// Acts, heals the links, and waits until the disks are the same.
fn step(cluster: &mut Cluster, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    act().with_context(|| what.to_owned())?;
    cluster.links.iter().for_each(|link| link.heal());
    cluster.settle_within(LIMIT);
    println!("{what}: the same on both after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut file = fs::File::options().create(true).append(true).open(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(bytes)?)
}

/// Goes down while there is one folder only.
fn largest_dir(top: &Path) -> Result<PathBuf> {
    let mut at = top.to_path_buf();
    loop {
        let dirs: Vec<PathBuf> = fs::read_dir(&at)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        match &dirs[..] {
            [only] => at = only.clone(),
            _ => return Ok(at),
        }
    }
}

fn git(at: &Path, words: &[&str]) -> Result<()> {
    let user = ["-c", "user.name=Anna", "-c", "user.email=anna@example.org"];
    let output = Command::new("git").arg("-C").arg(at).args(user).args(words).output()?;
    ensure!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn head(at: &Path) -> Result<String> {
    let output = Command::new("git").arg("-C").arg(at).args(["rev-parse", "HEAD"]).output()?;
    ensure!(output.status.success(), "git rev-parse: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
