//! Views that keep showing: `status --watch`, `transfers --watch`.

use super::{Context, status};
use crate::problem::{Outcome, exit};
use crate::quantity;
use crate::ui::table::Table;
use crate::ui::{Style, Ui, bar};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How many transfers are shown below the folders.
const TRANSFERS_SHOWN: usize = 8;
/// Width of a bar in characters.
const BAR: usize = 24;

/// Shows the status until interrupted. With `--json` or without a terminal: one record (or block) per change.
pub async fn status(context: &Context) -> Outcome<u8> {
    let ui = &context.ui;
    let mut drawn = 0;
    let mut peaks = Peaks::default();
    let mut speed = Speed::default();
    let mut last = Value::Null;
    loop {
        let status = context.client.get("/status").await?;
        if ui.json {
            if status != last {
                ui.record(&status);
            }
        } else if ui.out_is_terminal {
            let transfers = context.client.get("/transfers").await.unwrap_or_default();
            let page =
                format!("{}{}{}{}", status::render(ui, &status), speed.line(&status), peaks.bars(&status), transfer_lines(&transfers));
            drawn = ui.redraw(drawn, &page);
        } else if status != last {
            ui.text(&status::render(ui, &status));
        }
        last = status;
        tokio::time::sleep(REDRAW).await;
    }
}

/// Bytes per second on the wire between two looks, smoothed.
#[derive(Debug, Default)]
struct Speed {
    last: Option<(Instant, [u64; 2])>,
    rates: [f64; 2],
}

impl Speed {
    fn line(&mut self, status: &Value) -> String {
        let sum = |names: [&str; 2]| names.iter().map(|n| status["transfer"][n].as_u64().unwrap_or(0)).sum::<u64>();
        let now = (Instant::now(), [sum(["lan_in_bytes", "relay_in_bytes"]), sum(["lan_out_bytes", "relay_out_bytes"])]);
        if let Some((then, before)) = self.last.replace(now) {
            let seconds = now.0.duration_since(then).as_secs_f64().max(0.001);
            for (i, rate) in self.rates.iter_mut().enumerate() {
                *rate = (*rate + now.1[i].saturating_sub(before[i]) as f64 / seconds) / 2.0;
            }
        }
        let [down, up] = self.rates.map(|rate| rate as u64);
        // Below this it is only the keeping in touch.
        if down + up < 1000 {
            return String::new();
        }
        format!("  Now                    ↓ {}/s   ↑ {}/s\n", quantity::bytes(down), quantity::bytes(up))
    }
}

/// The most that was pending since a folder last was at rest: what a bar's whole length stands for. In bytes, or in items where no byte waits.
#[derive(Debug, Default)]
struct Peaks(BTreeMap<String, u64>);

impl Peaks {
    fn bars(&mut self, status: &Value) -> String {
        let mut out = String::new();
        for folder in status["folders"].as_array().into_iter().flatten() {
            let name = folder["name"].as_str().unwrap_or_default();
            let pending = ["upload", "download"].iter().map(|d| folder["pending_bytes"][d].as_u64().unwrap_or(0)).sum::<u64>();
            let items = ["upload", "download", "delete"].iter().map(|d| folder["pending"][d].as_u64().unwrap_or(0)).sum::<u64>();
            let (pending, left) = match pending {
                0 => (items, status::plural(items, "item", "items")),
                bytes => (bytes, quantity::bytes(bytes)),
            };
            if folder["state"] == "up_to_date" || pending == 0 {
                self.0.remove(name);
                continue;
            }
            let peak = self.0.entry(name.to_owned()).or_default();
            *peak = pending.max(*peak);
            let part = 1.0 - pending as f64 / *peak as f64;
            out.push_str(&format!("\n  {name}  {} {:>3.0} %   {} left", bar(part, BAR), part * 100.0, left));
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }
}

fn transfer_lines(answer: &Value) -> String {
    let all = answer["transfers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = String::new();
    let under_way: Vec<&Value> = all.iter().filter(|t| !t["via"].is_null()).collect();
    for transfer in under_way.iter().take(TRANSFERS_SHOWN) {
        let (done, total) = (transfer["done_bytes"].as_u64().unwrap_or(0), transfer["total_bytes"].as_u64().unwrap_or(0));
        let arrow = if transfer["direction"] == "upload" { "↑" } else { "↓" };
        let path = transfer["path"].as_str().unwrap_or_default();
        let part = if total == 0 { 1.0 } else { done as f64 / total as f64 };
        out.push_str(&format!("\n  {arrow} {} {:>8}  {path}  {}", bar(part, BAR), quantity::bytes(total), way(transfer)));
    }
    if all.len() > under_way.len().min(TRANSFERS_SHOWN) {
        out.push_str(&format!("\n    and {} more", all.len() - under_way.len().min(TRANSFERS_SHOWN)));
    }
    out
}

/// Runs `ferry transfers`.
pub async fn transfers(context: &Context, watch: bool) -> Outcome<u8> {
    let ui = &context.ui;
    let mut drawn = 0;
    let mut last = Value::Null;
    loop {
        let answer = context.client.get("/transfers").await?;
        if !watch {
            if ui.json {
                ui.document(&answer)
            } else {
                table(&answer).print(ui, "nothing is on its way")
            }
            return Ok(exit::OK);
        }
        if ui.json {
            if answer != last {
                ui.record(&answer);
            }
        } else if ui.out_is_terminal {
            let page = transfer_lines(&answer);
            drawn = ui.redraw(drawn, if page.is_empty() { "  nothing is on its way" } else { page.trim_start_matches('\n') });
        } else if answer != last {
            ui.line(&summary(ui, &answer));
        }
        last = answer;
        tokio::time::sleep(REDRAW).await;
    }
}

fn summary(ui: &Ui, answer: &Value) -> String {
    let count = answer["transfers"].as_array().map_or(0, Vec::len);
    ui.paint(Style::Dim, &format!("{count} on their way"))
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["", "FOLDER", "PATH", "VIA", "DONE", "OF"]).right(4).right(5);
    for transfer in answer["transfers"].as_array().into_iter().flatten() {
        let text = |name: &str| transfer[name].as_str().unwrap_or("waits").to_owned();
        let size = |name: &str| quantity::bytes(transfer[name].as_u64().unwrap_or(0));
        let arrow = if transfer["direction"] == "upload" { "↑" } else { "↓" };
        table.row(vec![arrow.into(), text("folder"), text("path"), way(transfer), size("done_bytes"), size("total_bytes")]);
    }
    table
}

/// Which way a transfer takes, and how much of it came over the LAN.
pub fn way(transfer: &Value) -> String {
    let number = |name: &str| transfer[name].as_u64().unwrap_or(0);
    let (lan, done) = (number("lan_bytes"), number("done_bytes"));
    match transfer["via"].as_str() {
        None => "waits".into(),
        Some(_) if lan > 0 && lan < done => format!("LAN {} %", u128::from(lan) * 100 / u128::from(done)),
        Some("lan") => "LAN".into(),
        Some(via) => via.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_way_says_how_much_came_over_the_lan() {
        let way = |via: Value, lan: u64| way(&json!({"via": via, "lan_bytes": lan, "done_bytes": 200}));
        assert_eq!([way(Value::Null, 0), way("relay".into(), 0), way("lan".into(), 200)], ["waits", "relay", "LAN"]);
        assert_eq!(way("relay".into(), 50), "LAN 25 %");
    }

    #[test]
    fn a_bar_starts_anew_after_rest() {
        let mut peaks = Peaks::default();
        let status = |state: &str, pending: u64| json!({"folders": [{"name": "f", "state": state, "pending_bytes": {"upload": pending, "download": 0}}]});
        assert!(peaks.bars(&status("syncing", 100)).contains("  0 %"));
        assert!(peaks.bars(&status("syncing", 25)).contains(" 75 %"));
        assert_eq!(peaks.bars(&status("up_to_date", 0)), "");
        assert!(peaks.bars(&status("syncing", 25)).contains("  0 %"));
    }

    #[test]
    fn transfers_are_shown_up_to_a_limit() {
        let transfer = |i: u64| json!({"path": format!("f{i}"), "via": "relay", "direction": "upload", "done_bytes": i, "total_bytes": 20});
        let answer = json!({"transfers": (0..12).map(transfer).collect::<Vec<_>>()});
        let lines = transfer_lines(&answer);
        assert_eq!(lines.lines().filter(|l| l.contains('↑')).count(), TRANSFERS_SHOWN);
        assert!(lines.contains("and 4 more"));
        assert_eq!(transfer_lines(&json!({"transfers": []})), "");
    }
}
