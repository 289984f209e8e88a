//! Measures the index: `cargo run --release --no-default-features --example index_bench -- redb [FILES] [relaxed]`, and the same with
//! `sled`.
//!
//! For every file an item (20-byte key in directory order, 300-byte value), a row in the names and inode tables and a node state (250 bytes);
//! batches of 500 files. docs/adr/0002-index-store.md has the figures.

use ferry_daemon::index::{Durability, IndexError, Kind, Table, WriteBatch, open};
use sha2::{Digest, Sha256};
use std::time::Instant;

const FILES_PER_DIRECTORY: u32 = 40;
const FILES_PER_BATCH: u32 = 500;
const GETS: u32 = 20_000;

/// Bytes that do not compress, the same in every run.
fn bytes_of(what: &str, n: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 32);
    for part in 0u32.. {
        bytes.extend_from_slice(&Sha256::digest([what.as_bytes(), &n.to_le_bytes(), &part.to_le_bytes()].concat()));
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}

/// Directory id (16 random bytes), then the position in it: what a scan yields one after the other.
fn item_key(n: u32) -> Vec<u8> {
    [bytes_of("directory", n / FILES_PER_DIRECTORY, 16), (n % FILES_PER_DIRECTORY).to_be_bytes().to_vec()].concat()
}

fn add_file(batch: &mut WriteBatch, n: u32) {
    let (item, node) = (item_key(n), bytes_of("node", n, 16));
    batch.put(Table::Items, item.clone(), bytes_of("item", n, 300));
    batch.put(Table::Names, [&item[..16], format!("file number {n}.txt").as_bytes()].concat(), node.clone());
    batch.put(Table::Inodes, u64::from(n + 1_000_000).to_be_bytes(), item);
    batch.put(Table::Nodes, node, bytes_of("state", n, 250));
}

/// Resident memory now, and its highest value, in MB.
fn memory_mb() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn main() -> Result<(), IndexError> {
    let mut arguments = std::env::args().skip(1);
    let kind = if arguments.next().as_deref() == Some("sled") { Kind::Sled } else { Kind::Redb };
    let files: u32 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let durability = if arguments.next().is_some() { Durability::Relaxed } else { Durability::Durable };
    let dir = std::env::temp_dir().join(format!("ferry-index-bench-{}", std::process::id()));
    let base = memory_mb().0;

    let opened = open(&dir, kind)?;
    let (started, mut slowest_ms) = (Instant::now(), 0);
    for first in (0..files).step_by(FILES_PER_BATCH as usize) {
        let mut batch = WriteBatch::new();
        (first..files.min(first + FILES_PER_BATCH)).for_each(|n| add_file(&mut batch, n));
        let begun = Instant::now();
        opened.store.commit(&batch, durability)?;
        slowest_ms = slowest_ms.max(begun.elapsed().as_millis());
    }
    let load = started.elapsed();
    let (rss, peak) = memory_mb();
    let disk_mb = opened.store.size_bytes()? / 1_000_000;
    println!(
        "{} {files} files, {durability:?}: load {:.2} s, slowest batch {slowest_ms} ms, RSS {rss} MB (before {base}, peak {peak}), disk {disk_mb} MB",
        kind.name(),
        load.as_secs_f64()
    );
    let started = Instant::now();
    drop(opened);
    let close = started.elapsed();

    let started = Instant::now();
    let opened = open(&dir, kind)?;
    let reopen = started.elapsed();
    let started = Instant::now();
    let mut found = 0;
    for i in 0..GETS {
        let n = (u64::from(i) * 2_654_435_761 % u64::from(files)) as u32;
        found += usize::from(opened.store.get(Table::Items, &item_key(n))?.is_some());
    }
    let gets = started.elapsed();
    let started = Instant::now();
    let mut one = WriteBatch::new();
    for n in 0..200 {
        one.clear();
        add_file(&mut one, n * 97 % files);
        opened.store.commit(&one, Durability::Durable)?;
    }
    let single = started.elapsed().as_micros() / 200;
    let (rss, peak) = memory_mb();
    println!(
        "{} close {:.2} s, reopen {:.3} s, {found} random gets {:.2} s, one durable file {single} us, RSS {rss} MB (peak {peak})",
        kind.name(),
        close.as_secs_f64(),
        reopen.as_secs_f64(),
        gets.as_secs_f64()
    );
    drop(opened);
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}
