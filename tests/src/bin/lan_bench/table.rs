//! The results: a row for each work, a column for each system.

use serde_json::{Value as Json, json};

/// One figure.
struct Cell {
    work: String,
    system: String,
    /// Seconds, or mebibytes for memory, or a ratio where the work says so.
    value: f64,
    /// Bytes that crossed the receiver's port, in and out.
    wire: Option<(u64, u64)>,
    more: String,
}

/// All figures of a run.
pub struct Table(Vec<Cell>);

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes a figure, and shows it at once.
    pub fn note(&mut self, work: &str, system: &str, value: f64, wire: Option<(u64, u64)>, more: impl Into<String>) {
        let more = more.into();
        let crossed = wire.map_or(String::new(), |(received, sent)| format!("received {received}, sent {sent}"));
        println!("{system:<14} {work:<34} {value:>10.3}  {crossed} {more}");
        self.0.push(Cell { work: work.into(), system: system.into(), value, wire, more });
    }

    fn names(&self, of: impl Fn(&Cell) -> &String) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for cell in &self.0 {
            if !names.contains(of(cell)) {
                names.push(of(cell).clone());
            }
        }
        names
    }

    /// Prints the rows; behind each figure how many times Ferry's it is.
    pub fn print(&self) {
        let (rows, columns) = (self.names(|c| &c.work), self.names(|c| &c.system));
        let find = |work: &str, system: &str| self.0.iter().find(|c| c.work == work && c.system == system);
        println!("\n| work | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
        for row in &rows {
            let ferry = find(row, "ferry").map(|c| c.value);
            let shown = columns.iter().map(|column| match (find(row, column), ferry) {
                (None, _) => String::new(),
                (Some(cell), Some(ferry)) if column != "ferry" && ferry > 0.0 => {
                    format!("{} ({:.2} x){}", number(cell.value), cell.value / ferry, wire(cell))
                }
                (Some(cell), _) => number(cell.value) + &wire(cell),
            });
            println!("| {row} | {} |", shown.collect::<Vec<_>>().join(" | "));
        }
    }

    /// All figures for other programs.
    pub fn json(&self) -> Json {
        let row = |c: &Cell| {
            json!({ "work": c.work, "system": c.system, "value": c.value, "more": c.more,
                "received_bytes": c.wire.map(|w| w.0), "sent_bytes": c.wire.map(|w| w.1) })
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        json!({ "cores": cores, "profile": profile, "results": self.0.iter().map(row).collect::<Vec<_>>() })
    }
}

fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

fn wire(cell: &Cell) -> String {
    cell.wire.map_or(String::new(), |(received, sent)| format!("; {} B on the wire", received + sent))
}
