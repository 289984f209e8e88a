//! What the parts of a relay on this machine spend of its processors while something is measured, told apart by the names of their programs.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Programs that take part, and what they are.
const PARTS: [(&str, &str); 5] =
    [("ferry-relay", "relay"), ("postgres", "postgresql"), ("redis-server", "redis"), ("s3_server", "s3"), ("relay_bench", "clients")];
/// What `/proc` counts in: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Time of processors that each part has spent so far.
fn spent() -> BTreeMap<&'static str, Duration> {
    let mut out = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for stat in processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok()) {
        // `PID (NAME) STATE ...`, and a name may hold what it likes.
        let Some((name, fields)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let Some((_, part)) = PARTS.iter().find(|(program, _)| *program == name) else { continue };
        let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u32>().ok()).sum();
        *out.entry(*part).or_default() += TICK * ticks;
    }
    out
}

/// A beginning, from which on it is counted.
pub struct Cpu {
    begun: Instant,
    before: BTreeMap<&'static str, Duration>,
}

impl Cpu {
    /// From now on.
    pub fn start() -> Self {
        Self { begun: Instant::now(), before: spent() }
    }

    /// Milliseconds of a processor for each of so many requests, of each part; and how many processors were busy with all parts together.
    pub fn per_request(&self, requests: usize) -> Value {
        let (lasted, mut all, mut by_part) = (self.begun.elapsed(), Duration::ZERO, Map::new());
        for (part, now) in spent() {
            let took = now.saturating_sub(self.before.get(part).copied().unwrap_or_default());
            all += took;
            by_part.insert(format!("{part}_ms"), json!(rounded(took.as_secs_f64() * 1e3 / requests.max(1) as f64)));
        }
        by_part.insert("cores_busy".into(), json!(rounded(all.as_secs_f64() / lasted.as_secs_f64())));
        by_part.into()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
