//! The workloads of the project's figures, with real processes over a relay on loopback, and a plain TCP copy in the same run as the yardstick.
//!
//! ```text
//! cargo build --release --bins && cargo run --release -p ferry-tests --bin bench -- [--json FILE] [--only NAME[,NAME]] [--dir FOLDER]
//! ```
//!
//! Names: latency, small, rename, memory, idle, big, head, append, copy, scan, many (200,000 files; not run unless named), tcp.

use anyhow::{Context, Result, bail};
use ferry_tests::device::Device;
use ferry_tests::relay::Relay;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 4096;
const BIG_BYTES: usize = 1 << 30;
const LIMIT: Duration = Duration::from_secs(900);

struct Bench {
    folder: tempfile::TempDir,
    relay: Relay,
    a: Device,
    b: Device,
    only: BTreeSet<String>,
    results: Vec<Json>,
}

fn main() -> Result<()> {
    let (mut json_file, mut only, mut dir) = (None, BTreeSet::new(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} wants a value"))?;
        match word.as_str() {
            "--json" => json_file = Some(PathBuf::from(value)),
            "--only" => only.extend(value.split(',').map(String::from)),
            "--dir" => dir = Some(PathBuf::from(value)),
            _ => bail!("unknown option {word}; there are --json FILE, --only NAME, --dir FOLDER"),
        }
    }
    let dir = dir.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("ferry-bench-").tempdir_in(dir)?;
    let relay = Relay::start(folder.path());
    let mut devices = ["A", "B"].map(|name| Device::new(folder.path(), name));
    for (i, device) in devices.iter_mut().enumerate() {
        device.start();
        device.login(&relay.url());
        if i == 0 { device.add_new("Bench") } else { device.attach("Bench") }
    }
    let [a, b] = devices;
    let mut bench = Bench { folder, relay, a, b, only, results: Vec::new() };
    println!("work                              seconds         A sent     B received  more");
    bench.run()?;
    if let Some(path) = json_file {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let all = json!({ "cores": cores, "profile": if cfg!(debug_assertions) { "debug" } else { "release" }, "results": bench.results });
        fs::write(&path, serde_json::to_string_pretty(&all)? + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

impl Bench {
    fn run(&mut self) -> Result<()> {
        if self.wants("latency") {
            self.latency()?;
        }
        if self.wants("small") || self.wants("rename") || self.wants("memory") {
            self.small()?;
        }
        if self.wants("idle") {
            self.idle();
        }
        if ["big", "head", "append", "copy", "tcp"].iter().any(|n| self.wants(n)) {
            self.big()?;
        }
        if self.wants("scan") {
            self.scan()?;
        }
        if self.only.contains("many") {
            self.many()?;
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.contains(name)
    }

    fn report(&mut self, name: &str, seconds: f64, bytes: (u64, u64), more: Json) {
        println!("{name:<28} {seconds:>12.3} {:>14} {:>14}  {}", bytes.0, bytes.1, more.as_object().map_or(String::new(), shown));
        let mut row = json!({ "name": name, "seconds": seconds, "a_sent_bytes": bytes.0, "b_received_bytes": bytes.1 });
        if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
            row.extend(more.clone());
        }
        self.results.push(row);
    }

    /// Does `act`, waits until `there` holds on B; the seconds and the bytes that A sent and B received.
    fn timed(&self, act: impl FnOnce() -> Result<()>, mut there: impl FnMut() -> bool) -> Result<(f64, (u64, u64))> {
        self.quiet()?;
        let before = (self.a.relay_bytes().1, self.b.relay_bytes().0);
        let start = Instant::now();
        act()?;
        while !there() {
            if start.elapsed() > LIMIT {
                bail!("not there after {LIMIT:?}: {}", self.b.status());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let seconds = start.elapsed().as_secs_f64();
        self.quiet()?;
        Ok((seconds, (self.a.relay_bytes().1 - before.0, self.b.relay_bytes().0 - before.1)))
    }

    fn quiet(&self) -> Result<()> {
        for device in [&self.a, &self.b] {
            let answer = device.run(&["wait", "--timeout", "900"]);
            if answer.code != 0 {
                bail!("{} is not quiet: {}", device.name(), answer.err);
            }
        }
        Ok(())
    }

    /// One small file, from the end of its writing to its being readable on the other device.
    fn latency(&mut self) -> Result<()> {
        let mut all = Vec::new();
        self.quiet()?;
        for n in 0..50 {
            let name = format!("latency {n}");
            let content = format!("small file number {n}\n").repeat(20);
            let start = Instant::now();
            fs::write(self.a.path(&name), &content)?;
            let other = self.b.path(&name);
            while !fs::read(&other).is_ok_and(|got| got == content.as_bytes()) {
                if start.elapsed() > LIMIT {
                    bail!("a small file did not arrive");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            all.push(start.elapsed().as_secs_f64() * 1000.0);
            std::thread::sleep(Duration::from_millis(150));
        }
        all.sort_by(f64::total_cmp);
        let (p50, p95) = (all[all.len() / 2], all[all.len() * 95 / 100]);
        self.report("latency of one small file", p50 / 1000.0, (0, 0), json!({ "p50_ms": round(p50), "p95_ms": round(p95) }));
        Ok(())
    }

    fn small(&mut self) -> Result<()> {
        let prepared = self.folder.path().join("prepared");
        for n in 0..SMALL_FILES {
            let dir = prepared.join((n % 100).to_string());
            if n < 100 {
                fs::create_dir_all(&dir)?;
            }
            fs::write(dir.join(n.to_string()), noise(SMALL_BYTES, n as u64))?;
        }
        let (from, to) = (self.a.path("small"), self.b.path("small"));
        let (seconds, bytes) = self.timed(|| Ok(fs::rename(&prepared, &from)?), || count(&to) == SMALL_FILES)?;
        self.report("10,000 files of 4 KiB", seconds, bytes, json!({}));
        let (a, b) = (self.a.resident_bytes() >> 20, self.b.resident_bytes() >> 20);
        self.report("memory at 10,000 files", 0.0, (0, 0), json!({ "a_mib": a, "b_mib": b }));
        let (renamed, other) = (self.a.path("renamed"), self.b.path("renamed"));
        let (seconds, bytes) = self.timed(|| Ok(fs::rename(&from, &renamed)?), || other.is_dir() && !to.exists())?;
        self.report("rename of 10,000 files", seconds, bytes, json!({}));
        Ok(())
    }

    fn idle(&mut self) {
        let before = (self.a.cpu_ms(), self.b.cpu_ms());
        std::thread::sleep(Duration::from_secs(20));
        let (a, b) = (self.a.cpu_ms() - before.0, self.b.cpu_ms() - before.1);
        self.report("idle for 20 s", 20.0, (0, 0), json!({ "a_cpu_ms": a, "b_cpu_ms": b }));
    }

    fn big(&mut self) -> Result<()> {
        let prepared = self.folder.path().join("big");
        let mut data = noise(BIG_BYTES, 1);
        fs::write(&prepared, &data)?;
        let tcp = tcp_copy(&prepared, &self.folder.path().join("tcp"))?;
        self.report("1 GiB by plain TCP", tcp, (0, 0), json!({ "mb_per_s": round(BIG_BYTES as f64 / 1e6 / tcp) }));
        let (from, to) = (self.a.path("big"), self.b.path("big"));
        let is = |path: &Path, len: usize| fs::metadata(path).is_ok_and(|m| m.len() == len as u64);
        let (seconds, bytes) = self.timed(|| Ok(fs::rename(&prepared, &from)?), || is(&to, BIG_BYTES))?;
        self.report("1 GiB file", seconds, bytes, json!({ "times_tcp": round(seconds / tcp) }));
        data.insert(0, b'!');
        fs::write(&prepared, &data)?;
        let (seconds, bytes) = self.timed(|| Ok(fs::rename(&prepared, &from)?), || is(&to, BIG_BYTES + 1))?;
        self.report("one byte put in at its head", seconds, bytes, json!({}));
        let more = noise(1 << 20, 2);
        let append = || Ok(File::options().append(true).open(&from)?.write_all(&more)?);
        let (seconds, bytes) = self.timed(append, || is(&to, BIG_BYTES + 1 + (1 << 20)))?;
        self.report("1 MiB appended to it", seconds, bytes, json!({}));
        let (copy, copied) = (self.a.path("copy"), self.b.path("copy"));
        let (seconds, bytes) = self.timed(|| Ok(fs::copy(&from, &copy).map(drop)?), || is(&copied, BIG_BYTES + 1 + (1 << 20)))?;
        self.report("a copy of it", seconds, bytes, json!({}));
        if fs::read(&to)? != fs::read(&from)? {
            bail!("the big file differs");
        }
        Ok(())
    }

    /// A folder that is there before it is added: from `folder add` to everything being known, without the relay in the way.
    fn scan(&mut self) -> Result<()> {
        let mut device = Device::new(self.folder.path(), "Scanner");
        let (files, size) = (64u64, 16u64 << 20);
        for n in 0..files {
            fs::write(device.path(n.to_string()), noise(size as usize, 1000 + n))?;
        }
        device.start();
        device.login(&self.relay.url());
        device.ok(&["config", "set", "relay.enabled", "false"]);
        let start = Instant::now();
        device.add_new("Scan");
        let mut scanned = None;
        while scanned.is_none() {
            let folder = device.status()["folders"][0].clone();
            let known = folder["bytes"].as_u64().unwrap_or(0) >= files * size;
            if known {
                scanned = Some(start.elapsed().as_secs_f64());
            } else if start.elapsed() > LIMIT {
                bail!("not scanned: {folder}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let seconds = scanned.unwrap_or_default();
        self.report("first scan of 1 GiB", seconds, (0, 0), json!({ "mb_per_s": round((files * size) as f64 / 1e6 / seconds) }));
        let start = Instant::now();
        device.ok(&["config", "set", "relay.enabled", "true"]);
        let wait = device.run(&["wait", "--timeout", "600"]);
        if wait.code != 0 {
            bail!("the upload does not end: {}", wait.err);
        }
        let seconds = start.elapsed().as_secs_f64();
        self.report("upload of it", seconds, (device.relay_bytes().1, 0), json!({}));
        device.stop();
        Ok(())
    }

    fn many(&mut self) -> Result<()> {
        let mut device = Device::new(self.folder.path(), "Many");
        for n in 0..200_000usize {
            let dir = device.path(format!("{}/{}", n % 100, n / 10_000));
            if n % 10_000 < 100 {
                fs::create_dir_all(&dir)?;
            }
            fs::write(dir.join(n.to_string()), n.to_string())?;
        }
        device.start();
        device.login(&self.relay.url());
        let start = Instant::now();
        device.add_new("Many");
        let wait = device.run(&["wait", "--timeout", "900"]);
        let seconds = start.elapsed().as_secs_f64();
        let row = json!({ "mib": device.resident_bytes() >> 20, "up_to_date": wait.code == 0 });
        self.report("200,000 files, scan and upload", seconds, (device.relay_bytes().1, 0), row);
        device.stop();
        device.start();
        let _ = device.run(&["wait", "--timeout", "900"]);
        self.report("memory at 200,000 files", 0.0, (0, 0), json!({ "mib_after_restart": device.resident_bytes() >> 20 }));
        device.stop();
        Ok(())
    }
}

/// Sends a file through a TCP connection on loopback to a receiver that writes and syncs it; the seconds.
fn tcp_copy(from: &Path, to: &Path) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let to = to.to_path_buf();
    let start = Instant::now();
    let receiver = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut file = File::create(&to)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n])?;
        }
        file.sync_all()?;
        Ok(fs::remove_file(&to)?)
    });
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    std::io::copy(&mut File::open(from)?, &mut stream)?;
    drop(stream);
    receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    Ok(start.elapsed().as_secs_f64())
}

fn count(folder: &Path) -> usize {
    let dirs = fs::read_dir(folder).into_iter().flatten().flatten();
    dirs.map(|d| {
        fs::read_dir(d.path()).into_iter().flatten().flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('.')).count()
    })
    .sum()
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
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

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

fn shown(more: &serde_json::Map<String, Json>) -> String {
    more.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}
