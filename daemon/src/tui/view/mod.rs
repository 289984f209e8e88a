//! Draws a model. What is drawn depends on the model, the theme and the size alone.

mod grid;
mod pages;
mod popup;
mod theme;

pub use theme::Theme;

use super::model::{Model, Page};
use super::text::width;
use crate::cli::status::state_word;
use crate::quantity;
use grid::{put, put_all};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::time::Duration;

/// The smallest window that is drawn into: columns and rows.
pub const SMALLEST: (u16, u16) = (60, 15);

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    let buf = frame.buffer_mut();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        put(buf, area, 0, 0, &format!("The window is too small: Ferry needs {} x {}.", SMALLEST.0, SMALLEST.1), theme.bold());
        put(buf, area, 1, 0, "q ends it.", theme.dim());
        return;
    }
    let line = |row: u16| Rect { y: area.y + row, height: 1, ..area };
    tabs(buf, line(0), model, theme);
    headline(buf, line(1), model, theme);
    second_line(buf, line(2), model, theme);
    let body = Rect { y: area.y + 3, height: area.height - 4, ..area };
    match model.page {
        Page::Overview => pages::overview(buf, body, model, theme),
        Page::Transfers => pages::transfers(buf, body, model, theme),
        Page::Folders => pages::folders(buf, body, model, theme),
        Page::Issues => pages::issues(buf, body, model, theme),
        Page::Activity => pages::activity(buf, body, model, theme),
    }
    foot(buf, line(area.height - 1), model, theme);
    popup::draw(buf, body, model, theme);
}

/// A line with the pages' names; the open one is reversed.
fn tabs(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let mut at = 0;
    let (before, gap) = if area.width < 72 { ("", 0) } else { (" ", 1) };
    for (index, page) in Page::ALL.into_iter().enumerate() {
        let count = model.status.as_ref().map_or(0, |s| s.conflicts.saturating_add(s.errors));
        let mut name = format!("{before}{} {}", index + 1, page.name());
        if page == Page::Issues && count > 0 {
            name.push_str(&if count > 99 { " 99+".to_owned() } else { format!(" {count}") });
        }
        name.push(' ');
        let style = match page {
            _ if page == model.page => theme.chosen().patch(theme.bold()),
            Page::Issues if count > 0 => theme.warn(),
            _ => theme.plain(),
        };
        at += put(buf, area, 0, at, &name, style) + gap;
    }
    right(buf, area, at + 2, &[("ferry", theme.dim())]);
}

/// Texts at the right end of a line, if they fit behind what stands there.
fn right(buf: &mut Buffer, area: Rect, after: u16, parts: &[(&str, ratatui::style::Style)]) {
    let wide = u16::try_from(parts.iter().map(|(text, _)| width(text)).sum::<usize>()).unwrap_or(u16::MAX);
    if after.saturating_add(wide) <= area.width {
        let place = Rect { x: area.x + area.width - wide, width: wide, ..area };
        put_all(buf, place, 0, parts);
    }
}

/// The whole in one line: is all well, who and where, and how the relay and the LAN stand.
fn headline(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    if let Some((since_ms, problem)) = &model.lost {
        let text = format!("✗ {} (since {}); trying again", super::text::harmless(&problem.message), model.clock(*since_ms));
        put(buf, area, 0, 0, &text, theme.bad());
        return;
    }
    if let Some(ms) = model.silent_ms() {
        let span = quantity::span(Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        put(buf, area, 0, 0, &format!("! the daemon has not answered for {span}"), theme.bad());
        return;
    }
    let Some(status) = &model.status else {
        put(buf, area, 0, 0, "… asking the daemon", theme.dim());
        return;
    };
    let (style, word) = state_word(&status.state);
    let who = match &status.account {
        Some((user, host)) => format!("   {host} as {user} ({})", status.device),
        None => format!("   this device is \"{}\"", status.device),
    };
    let nearby = format!(" · {} nearby", status.nearby);
    let (relay, relay_style) = match status.relay.as_str() {
        "connected" => ("relay ok", theme.good()),
        "connecting" => ("relay connecting", theme.warn()),
        "offline" => ("relay offline", theme.warn()),
        _ if status.account.is_none() => ("not logged in", theme.dim()),
        _ => ("relay off", theme.dim()),
    };
    let lan = if status.lan { nearby.as_str() } else { " · LAN off" };
    let state = [("● ", theme.of(style)), (word, theme.bold())];
    let taken = u16::try_from(2 + width(word)).unwrap_or(0);
    let side = u16::try_from(width(relay) + width(lan)).unwrap_or(0);
    put_all(buf, area, 0, &state);
    let who_area = Rect { x: area.x + taken, width: area.width.saturating_sub(taken + side + 2), ..area };
    put(buf, who_area, 0, 0, &who, theme.plain());
    right(buf, area, taken, &[(relay, relay_style), (lan, if status.lan { theme.plain() } else { theme.dim() })]);
}

/// What to do while the daemon is away; else the worst that is to be said of the relay or the LAN.
fn second_line(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    if let Some((_, problem)) = &model.lost {
        let as_it_was = if model.status.is_some() { "  (below: as it was)" } else { "" };
        let hint = problem.hint.split("      ").next().unwrap_or_default();
        put_all(buf, area, 0, &[("  ", theme.plain()), (hint, theme.plain()), (as_it_was, theme.dim())]);
    } else if let Some(trouble) = model.status.as_ref().and_then(|s| s.troubles.first()) {
        put_all(buf, area, 0, &[("! ", theme.warn()), (trouble, theme.plain())]);
    }
}

/// A message, the filter that is being typed, or which keys there are.
fn foot(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    if let Some((_, message)) = &model.flash {
        put(buf, area, 0, 0, message, theme.bold());
        return;
    }
    let keys: &[(&str, &str)] = match model.page {
        _ if model.typing => &[("Enter", "keeps the filter"), ("Esc", "ends it")],
        Page::Overview => &[("1-5 Tab", "pages")],
        Page::Transfers => &[("↑↓", "choose"), ("Enter", "details")],
        Page::Folders => &[("p", "pause"), ("r", "resume"), ("s", "scan"), ("Enter", "details")],
        Page::Issues => &[("m", "mine"), ("t", "theirs"), ("b", "both"), ("Enter", "details")],
        Page::Activity => &[("/", "filter"), ("Enter", "details")],
    };
    let always: &[(&str, &str)] = if model.typing { &[] } else { &[("?", "help"), ("q", "quit")] };
    let mut at = 0;
    for (key, what) in keys.iter().chain(always) {
        at += put(buf, area, 0, at, key, theme.bold());
        at += put(buf, area, 0, at, &format!(" {what}  "), theme.dim());
    }
}
