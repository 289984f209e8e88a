//! Two devices of one system that keep a folder the same, and the work that is measured on every such pair in the same way.

use crate::Options;
use crate::table::Table;
use anyhow::{Result, bail, ensure};
use ferry_tests::net::host::Traffic;
use ferry_tests::net::{Host, Lan, Net};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files of the works `small` and `rename`.
pub const SMALL_FILES: usize = 10_000;
/// Directories of the small files.
const SMALL_DIRS: usize = 100;
const SMALL_BYTES: usize = 4096;
/// Size of the work `big`, in bytes.
pub const BIG_BYTES: usize = 1 << 30;
/// How long one work may take before the run gives up.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Two hosts on one LAN and a folder for files. The namespaces go last.
pub struct Place {
    /// The sender.
    pub a: Host,
    /// The receiver.
    pub b: Host,
    /// Their LAN.
    pub lan: Lan,
    /// For all files of the system.
    pub folder: tempfile::TempDir,
    _net: Net,
}

impl Place {
    /// A new network and a new folder below `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let mut net = Net::new();
        let lan = net.lan();
        let (a, b) = (net.host("A", lan), net.host("B", lan));
        Ok(Self { a, b, lan, folder: tempfile::Builder::new().prefix("ferry-bench-").tempdir_in(dir)?, _net: net })
    }

    /// What crossed the receiver's port so far.
    pub fn traffic(&self) -> Traffic {
        self.b.traffic(self.lan)
    }
}

/// A system with two devices that run and share a folder.
pub trait Pair {
    /// The column of the table.
    fn name(&self) -> String;
    /// Where it runs.
    fn place(&self) -> &Place;
    /// The shared folder on the sender and on the receiver.
    fn roots(&self) -> (PathBuf, PathBuf);
    /// Waits until both have nothing to do.
    fn quiet(&self) -> Result<()>;
    /// Resident memory of the sender and of the receiver, in bytes.
    fn resident_bytes(&self) -> (u64, u64);
    /// Ends both and starts them again; seconds from the start to their being connected.
    fn reconnect(&mut self) -> Result<f64>;
    /// How many files the measurement of latency takes.
    fn latency_files(&self) -> usize;
}

/// The work on one pair.
pub struct Work<'a> {
    pair: &'a mut dyn Pair,
    options: &'a Options,
    table: &'a mut Table,
}

impl<'a> Work<'a> {
    /// Work on this pair.
    pub fn new(pair: &'a mut dyn Pair, options: &'a Options, table: &'a mut Table) -> Self {
        Self { pair, options, table }
    }

    /// Does everything that was asked for.
    pub fn all(&mut self) -> Result<()> {
        if self.options.wants("discover") {
            let mut all = (0..5).map(|_| self.pair.reconnect()).collect::<Result<Vec<_>>>()?;
            all.sort_by(f64::total_cmp);
            self.table.note("start to connected, median", &self.pair.name(), all[2], None, format!("worst {:.2}", all[4]));
        }
        if self.options.wants("latency") {
            self.latency()?;
        }
        if ["small", "rename", "memory"].iter().any(|work| self.options.wants(work)) {
            self.small()?;
        }
        if ["big", "head"].iter().any(|work| self.options.wants(work)) {
            self.big()?;
        }
        if self.options.wants("gigabit") {
            let place = self.pair.place();
            place.a.limit(place.lan, 1000);
            let (seconds, wire) = self.one_big("gigabit", 2)?;
            self.table.note("1 GiB at 1 Gbit/s", &self.pair.name(), seconds, Some(wire), "");
        }
        Ok(())
    }

    /// Does `act`, waits until `there` holds on the receiver; the seconds, and the bytes at the receiver's port until both rest.
    fn timed(&self, act: impl FnOnce() -> Result<()>, mut there: impl FnMut() -> bool) -> Result<(f64, (u64, u64))> {
        self.pair.quiet()?;
        let before = self.pair.place().traffic();
        let start = Instant::now();
        act()?;
        while !there() {
            ensure!(start.elapsed() < LIMIT, "{}: not there after {LIMIT:?}", self.pair.name());
            std::thread::sleep(Duration::from_millis(3));
        }
        let seconds = start.elapsed().as_secs_f64();
        self.pair.quiet()?;
        let crossed = self.pair.place().traffic().since(before);
        Ok((seconds, (crossed.in_bytes, crossed.out_bytes)))
    }

    /// One small file, from the end of its writing to its being readable on the other side.
    fn latency(&mut self) -> Result<()> {
        let (a, b) = self.pair.roots();
        let mut all = Vec::new();
        self.pair.quiet()?;
        for n in 0..self.pair.latency_files() {
            let (name, content) = (format!("latency {n}"), format!("small file number {n}\n").repeat(20));
            fs::write(a.join(&name), &content)?;
            let start = Instant::now();
            while !fs::read(b.join(&name)).is_ok_and(|got| got == content.as_bytes()) {
                if start.elapsed() > LIMIT {
                    bail!("{}: a small file did not arrive", self.pair.name());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            all.push(start.elapsed().as_secs_f64());
            // Not in step with anybody's timer.
            std::thread::sleep(Duration::from_millis(150 + 37 * (n as u64 % 11)));
        }
        all.sort_by(f64::total_cmp);
        let (name, files) = (self.pair.name(), format!("{} files", all.len()));
        self.table.note("one small file, p50", &name, all[all.len() / 2], None, files.clone());
        self.table.note("one small file, p95", &name, all[all.len() * 95 / 100], None, files);
        Ok(())
    }

    fn small(&mut self) -> Result<()> {
        let (a, b) = self.pair.roots();
        let prepared = self.pair.place().folder.path().join("prepared");
        small_files(&prepared)?;
        let (from, to) = (a.join("small"), b.join("small"));
        let name = self.pair.name();
        let mut counting = Counting::default();
        let (seconds, wire) = self.timed(|| Ok(fs::rename(&prepared, &from)?), || counting.is_all(&to))?;
        self.table.note("10,000 files of 4 KiB", &name, seconds, Some(wire), "");
        let (of_a, of_b) = self.pair.resident_bytes();
        self.table.note("MiB resident at 10,000 files", &name, of_a.max(of_b) as f64 / 1048576.0, None, "the larger of both");
        let (renamed, other) = (a.join("renamed"), b.join("renamed"));
        let mut counting = Counting::default();
        let there = || !to.exists() && counting.is_all(&other);
        let (seconds, wire) = self.timed(|| Ok(fs::rename(&from, &renamed)?), there)?;
        self.table.note("rename of their directory", &name, seconds, Some(wire), "");
        Ok(())
    }

    fn one_big(&self, file: &str, seed: u64) -> Result<(f64, (u64, u64))> {
        let (a, b) = self.pair.roots();
        let prepared = self.pair.place().folder.path().join("big");
        big_file(&prepared, seed, b"")?;
        self.timed(|| Ok(fs::rename(&prepared, a.join(file))?), || is_long(&b.join(file), BIG_BYTES))
    }

    fn big(&mut self) -> Result<()> {
        let name = self.pair.name();
        let (seconds, wire) = self.one_big("big", 1)?;
        self.table.note("1 GiB file", &name, seconds, Some(wire), "");
        if !self.options.wants("head") {
            return Ok(());
        }
        let (a, b) = self.pair.roots();
        let prepared = self.pair.place().folder.path().join("big");
        big_file(&prepared, 1, b"!")?;
        let there = || is_long(&b.join("big"), BIG_BYTES + 1);
        let (seconds, wire) = self.timed(|| Ok(fs::rename(&prepared, a.join("big"))?), there)?;
        self.table.note("one byte put in at its head", &name, seconds, Some(wire), "");
        let same = std::process::Command::new("cmp").arg(a.join("big")).arg(b.join("big")).status()?.success();
        ensure!(same, "{name}: the big file differs");
        Ok(())
    }
}

/// A directory of 100 directories with 10,000 files.
pub fn small_files(folder: &Path) -> Result<()> {
    for n in 0..SMALL_FILES {
        let dir = folder.join((n % SMALL_DIRS).to_string());
        if n < SMALL_DIRS {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(n.to_string()), noise(SMALL_BYTES, n as u64))?;
    }
    Ok(())
}

/// A file of 1 GiB that does not compress, behind these bytes.
pub fn big_file(path: &Path, seed: u64, head: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(head)?;
    for part in 0..BIG_BYTES >> 20 {
        file.write_all(&noise(1 << 20, seed << 20 | part as u64))?;
    }
    // What is being measured begins with bytes that are on the disk.
    file.sync_all()?;
    ensure!(file.seek(SeekFrom::End(0))? == (BIG_BYTES + head.len()) as u64, "{} is short", path.display());
    Ok(())
}

/// Whether the file has this length.
pub fn is_long(path: &Path, len: usize) -> bool {
    fs::metadata(path).is_ok_and(|m| m.len() == len as u64)
}

/// Counts the files in the directories of a directory, hidden ones aside. A directory that is full is not looked at again, so that looking takes
/// little from what is being measured.
#[derive(Default)]
pub struct Counting {
    full: BTreeSet<OsString>,
}

impl Counting {
    /// Whether all the [`small_files`] are there.
    pub fn is_all(&mut self, folder: &Path) -> bool {
        for dir in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !self.full.contains(&dir.file_name()) {
                let files = fs::read_dir(dir.path()).into_iter().flatten().flatten();
                if files.filter(|e| !e.file_name().as_encoded_bytes().starts_with(b".")).count() < SMALL_FILES / SMALL_DIRS {
                    return false;
                }
                self.full.insert(dir.file_name());
            }
        }
        self.full.len() == SMALL_DIRS
    }
}

/// Pseudo-random bytes.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
