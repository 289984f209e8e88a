//! The five pages.

use super::grid::{Column, Grid, put, put_all};
use super::theme::Theme;
use crate::cli::status::{plural, state_word};
use crate::quantity;
use crate::tui::model::{Folder, Model, Peer, Trouble};
use crate::tui::text::{width, wrap};
use crate::ui::bar;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Sparkline, Widget};
use std::time::Duration;

/// From this width on a table shows most of its columns.
const WIDE: u16 = 76;
/// From this width on it shows all.
const WIDEST: u16 = 100;
/// Columns for a name.
const NAME: (usize, usize) = (6, 18);
/// Where the curves begin.
const CURVE_AT: u16 = 40;

/// The part of an area from a row on.
fn below(area: Rect, row: u16) -> Rect {
    let row = row.min(area.height);
    Rect { y: area.y + row, height: area.height - row, ..area }
}

/// Columns for the longest of these names, within reason.
fn name_width<'n>(names: impl Iterator<Item = &'n str>) -> u16 {
    let widest = names.map(width).max().unwrap_or(0).clamp(NAME.0, NAME.1);
    u16::try_from(widest).unwrap_or(0)
}

fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", quantity::bytes(bytes_per_s))
}

/// The whole: rates, totals, folders, devices nearby.
pub fn overview(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let Some(status) = &model.status else { return };
    let [lan_in, lan_out, relay_in, relay_out] = model.meter.rates();
    let columns = usize::from(area.width.saturating_sub(CURVE_AT));
    let curves = [
        (0, "LAN", theme.lan(), [lan_in, lan_out], model.meter.lan(columns)),
        (1, "Relay", theme.relay(), [relay_in, relay_out], model.meter.relay(columns)),
    ];
    for (row, name, style, [down, up], curve) in &curves {
        let words = format!("↓ {:<11} ↑ {:<11}", rate(*down), rate(*up));
        put_all(buf, area, *row, &[(&format!("{name:<8}"), *style), (&words, theme.plain())]);
        let place = Rect { x: area.x + CURVE_AT, y: area.y + row, width: area.width.saturating_sub(CURVE_AT), height: 1 };
        // Each on its own scale: beside a burst on the LAN a steady upload would not be seen.
        let highest = curve.iter().max().copied().unwrap_or(0).max(1);
        Sparkline::default().data(curve.iter().copied()).max(highest).style(*style).render(place.intersection(area), buf);
    }
    let [lan_in, lan_out, relay_in, relay_out] = status.totals;
    let (received, sent) = (lan_in.saturating_add(relay_in), lan_out.saturating_add(relay_out));
    let share = |lan: u64, all: u64| if all == 0 { String::new() } else { format!(" ({:.0} % by LAN)", lan as f64 * 100.0 / all as f64) };
    let totals =
        format!("↓ {}{}   ↑ {}{}", quantity::bytes(received), share(lan_in, received), quantity::bytes(sent), share(lan_out, sent));
    put_all(buf, area, 2, &[("So far  ", theme.dim()), (&totals, theme.plain())]);
    put_all(buf, area, 3, &[("Waits   ", theme.dim()), (&waits(model.folders.items()), theme.plain())]);
    let roomy = area.height >= 16;
    let tables = below(area, if roomy { 5 } else { 4 });
    let gap = u16::from(roomy);
    // Headings, and then a fair share of the rows for each.
    let rows = tables.height.saturating_sub(2 + gap);
    let (folders, peers) = (rows_for(model.folders.items().len()), rows_for(model.peers.items().len()));
    let for_folders = folders.min(rows.saturating_sub(peers.min(rows / 2)));
    folder_table(buf, Rect { height: (for_folders + 1).min(tables.height), ..tables }, model, theme, false);
    peer_table(buf, below(tables, for_folders + 1 + gap), model, theme);
}

/// Rows for so many items: at least one, for the words that there is none.
fn rows_for(items: usize) -> u16 {
    u16::try_from(items.max(1)).unwrap_or(u16::MAX)
}

/// What is not the same everywhere yet, over all folders.
fn waits(folders: &[Folder]) -> String {
    let sum = |part: &dyn Fn(&Folder) -> u64| folders.iter().fold(0u64, |sum, folder| sum.saturating_add(part(folder)));
    let mut words = Vec::new();
    for (arrow, items, bytes) in
        [("↓", sum(&|f| f.pending[1]), sum(&|f| f.pending_bytes[1])), ("↑", sum(&|f| f.pending[0]), sum(&|f| f.pending_bytes[0]))]
    {
        if items > 0 {
            words.push(format!("{arrow} {}, {}", plural(items, "item", "items"), quantity::bytes(bytes)));
        }
    }
    let deletes = sum(&|f| f.pending[2]);
    if deletes > 0 {
        words.push(plural(deletes, "delete", "deletes"));
    }
    if words.is_empty() { "nothing".into() } else { words.join("   ") }
}

fn folder_style(folder: &Folder, theme: Theme) -> Style {
    match folder.state.as_str() {
        // Most folders are well most of the time: only the others stand out.
        "up_to_date" => theme.plain(),
        state => theme.of(state_word(state).0),
    }
}

fn folder_table(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme, chosen: bool) {
    let folders = model.folders.items();
    let wide = area.width >= WIDE;
    let name = name_width(folders.iter().map(|f| f.name.as_str()));
    let mut columns = vec![Column::left("FOLDER", name), Column::rest("STATE")];
    if wide && chosen {
        columns.push(Column::left("LOCAL", 18).path());
    }
    if wide {
        columns.push(Column::right("FILES", 10));
    }
    columns.push(Column::right("SIZE", 7));
    let row = |index: usize| {
        let folder = &folders[index];
        let mut cells = vec![(folder.name.clone(), theme.bold()), (model.words(folder), folder_style(folder, theme))];
        if wide && chosen {
            cells.push((model.path(&folder.path), theme.dim()));
        }
        if wide {
            cells.push((quantity::count(folder.files), theme.plain()));
        }
        cells.push((quantity::bytes(folder.bytes), theme.plain()));
        cells
    };
    let chosen = if chosen { model.folders.at() } else { None };
    Grid { columns: &columns, count: folders.len(), chosen, row: &row }.draw(buf, area, theme);
    if folders.is_empty() && model.status.is_some() {
        put(buf, area, 1, 0, "no folder is synced yet; add one with: ferry folder add PATH", theme.plain());
    }
}

fn peer_table(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let peers = model.peers.items();
    let wide = area.width >= WIDE;
    let name = name_width(peers.iter().map(|p| p.name.as_str()));
    let mut columns = vec![Column::left("NEARBY", name), Column::left("STATE", 11), Column::rest("FOUND BY")];
    if wide {
        columns.push(Column::left("ADDRESS", 18).path());
    }
    columns.push(Column::right("RTT", 7));
    let row = |index: usize| {
        let peer: &Peer = &peers[index];
        let style = if peer.state == "connected" { theme.good() } else { theme.dim() };
        // Why it is not there, or what it does, tells more than how it was found once.
        let mut found = String::new();
        for (arrow, bytes_per_s) in [("↓", peer.rates[0]), ("↑", peer.rates[1])] {
            // Below this it is only the keeping in touch.
            if bytes_per_s >= 1000 {
                found.push_str(&format!("{arrow} {}  ", rate(bytes_per_s)));
            }
        }
        found.push_str(if peer.state != "connected" && !peer.reason.is_empty() { &peer.reason } else { &peer.found });
        let mut cells = vec![(peer.name.clone(), theme.bold()), (peer.state.clone(), style), (found, theme.plain())];
        if wide {
            cells.push((peer.address.clone(), theme.dim()));
        }
        cells.push((peer.rtt_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default(), theme.plain()));
        cells
    };
    Grid { columns: &columns, count: peers.len(), chosen: None, row: &row }.draw(buf, area, theme);
    if peers.is_empty() {
        put(buf, area, 1, 0, "no other device shares a folder with this one: ferry join", theme.dim());
    }
}

/// What is on its way.
pub fn transfers(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let transfers = model.transfers.items();
    if transfers.is_empty() {
        let waiting = waits(model.folders.items());
        let text =
            if waiting == "nothing" { "nothing is on its way".to_owned() } else { format!("nothing is on its way; waits: {waiting}") };
        put(buf, area, 0, 0, &text, theme.plain());
        return;
    }
    let wide = area.width >= WIDE;
    let mut columns = vec![Column::left("", 1), Column::rest("FILE").path()];
    if area.width >= WIDEST {
        columns.push(Column::left("BY", 8));
    }
    if wide {
        columns.push(Column::right("SIZE", 7));
    }
    columns.extend([Column::left("", 10), Column::right("", 5), Column::right("RATE", 9), Column::right("LEFT", 7)]);
    let row = |index: usize| {
        let transfer = &transfers[index];
        let left = transfer.total.saturating_sub(transfer.done) as f64 / transfer.rate;
        let left = if left.is_finite() && transfer.rate >= 1.0 { quantity::span(Duration::from_secs(left as u64)) } else { String::new() };
        let mut cells = vec![
            (if transfer.up { "↑" } else { "↓" }.to_owned(), theme.busy()),
            (format!("{}/{}", transfer.folder, transfer.path), theme.plain()),
        ];
        if area.width >= WIDEST {
            cells.push((transfer.way.clone(), theme.dim()));
        }
        if wide {
            cells.push((quantity::bytes(transfer.total), theme.plain()));
        }
        cells.push((bar(transfer.part(), 10), theme.busy()));
        cells.push((format!("{:.0} %", (transfer.part() * 100.0).floor()), theme.plain()));
        cells.push((if transfer.waits { "waits".to_owned() } else { rate(transfer.rate as u64) }, theme.plain()));
        cells.push((left, theme.plain()));
        cells
    };
    Grid { columns: &columns, count: transfers.len(), chosen: model.transfers.at(), row: &row }.draw(buf, area, theme);
}

/// Synced folders.
pub fn folders(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    folder_table(buf, area, model, theme, true);
}

/// Conflicts and issues, and what to do about the chosen one.
pub fn issues(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let troubles = model.troubles.items();
    let Some(chosen) = model.troubles.chosen() else {
        let text = if model.status.is_some() { "nothing needs attention" } else { "" };
        put(buf, area, 0, 0, text, theme.plain());
        return;
    };
    let columns = [Column::left("", 1), Column::rest("WHERE").path(), Column::rest("WHAT")];
    let row = |index: usize| match &troubles[index] {
        trouble @ Trouble::Conflict { device, wall_ms, .. } => vec![
            ("≠".to_owned(), theme.warn()),
            (trouble.place(), theme.plain()),
            (format!("two versions; copy by {device}, {}", model.clock(*wall_ms)), theme.plain()),
        ],
        trouble @ Trouble::Issue { message, .. } => {
            vec![("!".to_owned(), theme.bad()), (trouble.place(), theme.plain()), (message.clone(), theme.plain())]
        }
    };
    let hint = match chosen {
        Trouble::Conflict { copy, copy_is_local, .. } => {
            let whose = if *copy_is_local { "mine" } else { "theirs" };
            format!("{whose} is {copy}   m keeps mine, t theirs, b both")
        }
        Trouble::Issue { hint, .. } => hint.clone(),
    };
    let rows = if area.height >= 16 { 4 } else { 3 };
    let table = Rect { height: area.height - rows, ..area };
    Grid { columns: &columns, count: troubles.len(), chosen: model.troubles.at(), row: &row }.draw(buf, table, theme);
    let place = below(area, area.height - rows + 1);
    for (at, line) in wrap(&format!("→ {hint}"), usize::from(area.width)).iter().take(usize::from(rows - 1)).enumerate() {
        put(buf, place, u16::try_from(at).unwrap_or(u16::MAX), 0, line, theme.bold());
    }
}

/// What happened, the newest first.
pub fn activity(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let shown = model.shown.items();
    let mut place = area;
    if model.typing || !model.filter.is_empty() {
        let cursor = if model.typing { "▏" } else { "" };
        let count = format!("   {} of {}", quantity::count(shown.len() as u64), quantity::count(model.happened() as u64));
        put_all(buf, area, 0, &[("Filter: ", theme.dim()), (&model.filter, theme.bold()), (cursor, theme.bold()), (&count, theme.dim())]);
        place = below(area, 1);
    }
    if shown.is_empty() {
        let text = if model.happened() == 0 { "nothing has happened yet" } else { "nothing of this" };
        put(buf, place, 0, 0, text, theme.plain());
        return;
    }
    let columns = [Column::left("WHEN", 16), Column::rest("WHAT").path()];
    let row = |index: usize| {
        let happening = &shown[index];
        let style = match happening.kind.as_str() {
            "conflict" | "issue" | "deletes_held" | "gap" => theme.warn(),
            "file_uploaded" | "file_downloaded" | "created" | "deleted" | "moved" => theme.plain(),
            _ => theme.dim(),
        };
        vec![(model.clock(happening.ts_ms), theme.dim()), (happening.line.clone(), style)]
    };
    Grid { columns: &columns, count: shown.len(), chosen: model.shown.at(), row: &row }.draw(buf, place, theme);
}
