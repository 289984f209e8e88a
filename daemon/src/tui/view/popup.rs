//! What stands before a page: help, all of one item, a question.

use super::grid::put;
use super::theme::Theme;
use crate::tui::model::{HELP, Model, Popup};
use crate::tui::text::{fit_path, wrap};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Clear, Widget};

/// Columns that are left free on both sides together.
const MARGIN: u16 = 8;
/// The widest that is still easy to read.
const WIDEST: u16 = 90;

/// Draws it, if there is one.
pub fn draw(buf: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    match &model.popup {
        None => {}
        Some(Popup::Help { scroll }) => {
            let lines: Vec<(&str, String)> = HELP.iter().map(|(key, what)| (*key, (*what).to_owned())).collect();
            frame(buf, area, "Keys", &labelled(area, &lines, theme), *scroll, "Esc closes", theme);
        }
        Some(Popup::Detail { title, lines, scroll }) => {
            let lines: Vec<(&str, String)> = lines.iter().map(|(label, text)| (*label, text.clone())).collect();
            frame(buf, area, title, &labelled(area, &lines, theme), *scroll, "Esc closes", theme);
        }
        Some(Popup::Confirm { question, .. }) => {
            let lines = wrap(question, inner(area)).into_iter().map(|line| vec![(0, line, theme.plain())]).collect::<Vec<_>>();
            frame(buf, area, "Sure?", &lines, 0, "y does it, any other key does not", theme);
        }
    }
}

/// Pieces of one row: where, what and how.
type Row = Vec<(u16, String, Style)>;

/// Columns inside of a frame.
fn inner(area: Rect) -> usize {
    usize::from(area.width.saturating_sub(MARGIN).min(WIDEST).saturating_sub(4))
}

/// Labels in front of texts, which are broken into rows.
fn labelled(area: Rect, lines: &[(&str, String)], theme: Theme) -> Vec<Row> {
    let label = lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let indent = if label == 0 { 0 } else { label + 2 };
    let mut rows = Vec::new();
    for (name, text) in lines {
        let style = if text.is_empty() { theme.bold() } else { theme.dim() };
        for (i, part) in wrap(text, inner(area).saturating_sub(indent)).into_iter().enumerate() {
            let mut row = vec![(u16::try_from(indent).unwrap_or(0), part, theme.plain())];
            if i == 0 {
                row.push((0, (*name).to_owned(), style));
            }
            rows.push(row);
        }
    }
    rows
}

fn frame(buf: &mut Buffer, area: Rect, title: &str, rows: &[Row], scroll: usize, how: &str, theme: Theme) {
    let wide = u16::try_from(inner(area) + 4).unwrap_or(area.width).min(area.width);
    let high = u16::try_from(rows.len() + 2).unwrap_or(area.height).clamp(3, area.height);
    let place = Rect { x: area.x + (area.width - wide) / 2, y: area.y + (area.height - high) / 2, width: wide, height: high };
    Clear.render(place, buf);
    let title = format!(" {} ", fit_path(title, inner(area).saturating_sub(2)));
    Block::bordered().title(title).title_style(theme.bold()).title_bottom(format!(" {how} ")).render(place, buf);
    let text = Rect { x: place.x + 2, y: place.y + 1, width: wide.saturating_sub(4), height: high - 2 };
    let first = scroll.min(rows.len().saturating_sub(usize::from(text.height)));
    for (at, row) in rows.iter().skip(first).take(usize::from(text.height)).enumerate() {
        for (column, piece, style) in row {
            put(buf, text, u16::try_from(at).unwrap_or(u16::MAX), *column, piece, *style);
        }
    }
    if first + usize::from(text.height) < rows.len() {
        put(buf, Rect { y: place.y + high - 1, height: 1, ..text }, 0, text.width.saturating_sub(8), " ↓ more ", theme.dim());
    }
}
