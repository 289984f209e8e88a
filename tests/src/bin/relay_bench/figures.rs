//! Figures, as they are printed and as they are kept.

use serde_json::{Map, Value, json};
use std::time::Duration;

/// Everything that was measured.
pub struct Figures {
    relay: Value,
    of: Map<String, Value>,
}

impl Figures {
    /// No figures yet of this relay.
    pub fn new(relay: Value) -> Self {
        Self { relay, of: Map::new() }
    }

    /// Keeps a figure and shows it.
    pub fn put(&mut self, name: &str, value: Value) {
        eprintln!("   {name}: {value}");
        self.of.insert(name.into(), value);
    }

    /// All of them.
    pub fn json(&self) -> Value {
        json!({"relay": self.relay, "cores": std::thread::available_parallelism().map_or(0, usize::from), "figures": self.of})
    }
}

/// How long things took.
#[derive(Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Those of another.
    pub fn extend(&mut self, other: impl IntoIterator<Item = Duration>) {
        self.0.extend(other);
    }

    /// Count, percentiles and the longest, in milliseconds.
    pub fn json(&mut self) -> Value {
        self.0.sort_unstable();
        let ms = |d: Duration| (d.as_secs_f64() * 1e5).round() / 100.0;
        let at = |share: f64| self.0.get(((self.0.len() as f64 * share).ceil() as usize).max(1) - 1).copied().map(ms);
        json!({"count": self.0.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": self.0.last().copied().map(ms)})
    }
}

/// Megabytes a second.
pub fn mb_per_s(bytes: usize, took: Duration) -> f64 {
    (bytes as f64 / 1e6 / took.as_secs_f64() * 10.0).round() / 10.0
}
