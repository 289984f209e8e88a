//! The workloads of the project's figures on two hosts joined by one virtual link: Ferry beside Syncthing, rsync and plain copies, in one run.
//!
//! ```text
//! cargo build --release --bins && cargo run --release -p ferry-tests --bin lan_bench -- [--json FILE] [--only NAME,…] [--systems NAME,…] [--dir FOLDER]
//! ```
//!
//! Systems: ferry, syncthing (as it comes), syncthing-1s (its watcher told to wait 1 s instead of 10 s), plain (TCP and tar), rsync.
//! Work: discover, latency, small, rename, memory, big, head, gigabit, uplink (Ferry only). Needs root, and `syncthing` and `rsync` where they take
//! part. Everything runs in namespaces and a temporary folder and is removed at the end; each wait is bounded.

mod ferry;
mod pair;
mod plain;
mod syncthing;
mod table;

use anyhow::{Context, Result, bail, ensure};
use pair::Work;
use std::collections::BTreeSet;
use std::path::PathBuf;
use table::Table;

/// What was asked for.
pub struct Options {
    only: BTreeSet<String>,
    systems: BTreeSet<String>,
    /// Where the temporary folders are made.
    pub dir: PathBuf,
}

impl Options {
    /// Whether this work is to be done.
    pub fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.contains(work)
    }

    fn takes_part(&self, system: &str) -> bool {
        self.systems.is_empty() || self.systems.contains(system)
    }
}

const WORK: [&str; 9] = ["discover", "latency", "small", "rename", "memory", "big", "head", "gigabit", "uplink"];
const SYSTEMS: [&str; 5] = ["plain", "rsync", "ferry", "syncthing", "syncthing-1s"];

fn main() -> Result<()> {
    let (options, json_file) = options()?;
    let mut table = Table::new();
    for system in SYSTEMS.iter().filter(|system| options.takes_part(system)) {
        eprintln!("== {system}");
        match *system {
            "plain" => plain::copies(&options, &mut table)?,
            "rsync" => plain::rsync(&options, &mut table)?,
            "ferry" => {
                Work::new(&mut ferry::Ferry::start(&options.dir)?, &options, &mut table).all()?;
                if options.wants("uplink") {
                    ferry::uplink(&options.dir, &mut table)?;
                }
            }
            _ => {
                let delay_s = if *system == "syncthing" { 10 } else { 1 };
                Work::new(&mut syncthing::Syncthing::start(&options.dir, system, delay_s)?, &options, &mut table).all()?;
            }
        }
    }
    table.print();
    if let Some(path) = json_file {
        std::fs::write(&path, serde_json::to_string_pretty(&table.json())? + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn options() -> Result<(Options, Option<PathBuf>)> {
    let mut options = Options { only: BTreeSet::new(), systems: BTreeSet::new(), dir: std::env::temp_dir() };
    let mut json_file = None;
    let mut words = std::env::args().skip(1);
    let list = |value: &str, known: &[&str]| -> Result<BTreeSet<String>> {
        let names: BTreeSet<String> = value.split(',').map(String::from).collect();
        ensure!(names.iter().all(|n| known.contains(&n.as_str())), "{value}: there are {}", known.join(", "));
        Ok(names)
    };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} wants a value"))?;
        match word.as_str() {
            "--json" => json_file = Some(PathBuf::from(value)),
            "--only" => options.only = list(&value, &WORK)?,
            "--systems" => options.systems = list(&value, &SYSTEMS)?,
            "--dir" => options.dir = PathBuf::from(value),
            _ => bail!("unknown option {word}; there are --json FILE, --only NAMES, --systems NAMES, --dir FOLDER"),
        }
    }
    Ok((options, json_file))
}
