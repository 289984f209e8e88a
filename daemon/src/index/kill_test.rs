//! `kill -9` in the middle of writing: every acknowledged batch is there afterwards, and no part of another.

use super::*;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Tells the re-executed test binary where to write, and on what.
const CHILD: &str = "FERRY_TEST_INDEX_CHILD";
const ROWS_PER_BATCH: u32 = 40;

/// Writes durable batches for ever and prints the number of each when it is acknowledged.
fn write_until_killed(dir: &Path, kind: Kind) {
    let opened = open(dir, kind).unwrap();
    let first = opened.store.get(Table::Meta, b"batch").unwrap().map_or(0, |v| u32::from_le_bytes(v.try_into().unwrap()) + 1);
    for n in first.. {
        let mut batch = WriteBatch::new();
        for row in 0..ROWS_PER_BATCH {
            let key = [n.to_be_bytes(), row.to_be_bytes()].concat();
            batch.put(Table::Items, key, [n as u8; 100]);
        }
        batch.put(Table::Meta, b"batch", n.to_le_bytes());
        opened.store.commit(&batch, Durability::Durable).unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {n}").and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (kind, dir) = arguments.split_once(':').unwrap();
    write_until_killed(Path::new(dir), if kind == "sled" { Kind::Sled } else { Kind::Redb });
}

/// Runs the child until it acknowledged `batches`, kills it, and gives the last number that it acknowledged.
fn run_and_kill(dir: &Path, kind: Kind, batches: usize) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["index::kill_test::child", "--exact", "--nocapture"])
        .env(CHILD, format!("{}:{}", kind.name(), dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = lines.map_while(Result::ok).filter_map(|l| l.split_once("acknowledged ")?.1.parse::<u32>().ok());
    let mut last = acknowledged.by_ref().nth(batches - 1).unwrap();
    child.kill().unwrap();
    // What was acknowledged before the signal arrived is still in the pipe.
    for n in acknowledged {
        last = n;
    }
    child.wait().unwrap();
    last
}

#[test]
fn every_acknowledged_batch_survives_and_no_part_of_another() {
    for kind in [Kind::Redb, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let last = run_and_kill(dir.path(), kind, 15 + round * 4);
            let opened = open(dir.path(), kind).unwrap();
            assert_eq!(opened.origin, Origin::Existing);
            let stored = u32::from_le_bytes(opened.store.get(Table::Meta, b"batch").unwrap().unwrap().try_into().unwrap());
            assert!(stored >= last, "{}: batch {last} was acknowledged, the store ends at {stored}", kind.name());
            let rows = opened.store.range(Table::Items, b"", None, usize::MAX).unwrap();
            assert_eq!(rows.len() as u32, (stored + 1) * ROWS_PER_BATCH, "{}", kind.name());
        }
    }
}
