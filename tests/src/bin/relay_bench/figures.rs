//! Figures, as they are printed and as they are kept.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// It is only told.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}"),
            Self::AtLeast(least) => format!(">= {least}"),
            Self::None => String::new(),
        }
    }
}

struct Row {
    work: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    target: Target,
}

/// Everything that was measured.
pub struct Figures {
    relay: Value,
    of: Map<String, Value>,
    rows: Vec<Row>,
}

impl Figures {
    /// No figures yet of this relay.
    pub fn new(relay: Value) -> Self {
        Self { relay, of: Map::new(), rows: Vec::new() }
    }

    /// Keeps what was measured, with its circumstances.
    pub fn put(&mut self, name: &str, value: Value) {
        self.of.insert(name.into(), value);
    }

    /// A line of the table.
    pub fn row(&mut self, work: &'static str, what: impl Into<String>, value: f64, unit: &'static str, target: Target) {
        let what = what.into();
        eprintln!("   {what}: {value} {unit} {}", target.text());
        self.rows.push(Row { work, what, value, unit, target });
    }

    /// All of them.
    pub fn json(&self) -> Value {
        let row = |r: &Row| json!({"work": r.work, "what": r.what, "value": r.value, "unit": r.unit, "target": r.target.text(), "met": r.target.is_met(r.value)});
        json!({"relay": self.relay, "cores": cores(), "table": self.rows.iter().map(row).collect::<Vec<_>>(), "figures": self.of})
    }

    /// The table; each part under the command that measures it alone. `command` is this run's, without what was chosen.
    pub fn table(&self, command: &str) -> String {
        let mut out = format!("relay: {}, {} cores shared by relay, stores and clients\n", self.relay, cores());
        let wide = self.rows.iter().map(|r| r.what.len()).max().unwrap_or(0);
        let mut work = "";
        for row in &self.rows {
            if row.work != work {
                work = row.work;
                let _ = writeln!(out, "\n{command} --only {work}");
            }
            let met = if row.target.is_met(row.value) { "" } else { "  MISSED" };
            let _ = writeln!(out, "  {:wide$}  {:>10} {:6} {:>10}{met}", row.what, row.value, row.unit, row.target.text());
        }
        out
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
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

    /// Each of them.
    pub fn into_inner(self) -> Vec<Duration> {
        self.0
    }

    /// The time within which this share was done, in milliseconds; 0 where nothing was.
    pub fn ms(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let at = self.0.get(((self.0.len() as f64 * share).ceil() as usize).max(1) - 1);
        at.map_or(0.0, |d| (d.as_secs_f64() * 1e5).round() / 100.0)
    }

    /// Count, percentiles and the longest, in milliseconds.
    pub fn json(&mut self) -> Value {
        json!({"count": self.0.len(), "p50_ms": self.ms(0.5), "p95_ms": self.ms(0.95), "p99_ms": self.ms(0.99), "max_ms": self.ms(1.0)})
    }
}

/// Megabytes a second.
pub fn mb_per_s(bytes: usize, took: Duration) -> f64 {
    (bytes as f64 / 1e6 / took.as_secs_f64() * 10.0).round() / 10.0
}
