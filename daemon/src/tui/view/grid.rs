//! Text at places, and tables with a chosen row. Nothing is drawn outside of the area that was given.

use super::theme::Theme;
use crate::tui::text::{fit, fit_path, width};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Puts a text into a row of an area, cut where it ends. Answers the columns it took.
pub fn put(buf: &mut Buffer, area: Rect, row: u16, column: u16, text: &str, style: Style) -> u16 {
    let area = area.intersection(*buf.area());
    if row >= area.height || column >= area.width {
        return 0;
    }
    let text = fit(text, usize::from(area.width - column));
    let taken = width(&text);
    buf.set_stringn(area.x + column, area.y + row, &text, taken, style);
    u16::try_from(taken).unwrap_or(u16::MAX)
}

/// Puts texts one after the other into a row.
pub fn put_all(buf: &mut Buffer, area: Rect, row: u16, parts: &[(&str, Style)]) -> u16 {
    parts.iter().fold(0, |column, (text, style)| column + put(buf, area, row, column, text, *style))
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    /// Columns of the terminal; 0 takes what the others leave.
    width: u16,
    right: bool,
    path: bool,
}

impl Column {
    /// So wide, flush left.
    pub fn left(title: &'static str, width: u16) -> Self {
        Self { title, width, right: false, path: false }
    }

    /// So wide, flush right.
    pub fn right(title: &'static str, width: u16) -> Self {
        Self { title, width, right: true, path: false }
    }

    /// What the others leave, cut at its end.
    pub fn rest(title: &'static str) -> Self {
        Self { title, width: 0, right: false, path: false }
    }

    /// Cut in its middle, as a path is.
    pub fn path(mut self) -> Self {
        self.path = true;
        self
    }
}

/// A cell: its text and style.
pub type Cell = (String, Style);

/// Blanks between two columns.
const GAP: u16 = 2;

/// A table.
pub struct Grid<'g> {
    /// Its columns.
    pub columns: &'g [Column],
    /// How many rows there are.
    pub count: usize,
    /// The chosen row.
    pub chosen: Option<usize>,
    /// Makes a row: one cell a column.
    pub row: &'g dyn Fn(usize) -> Vec<Cell>,
}

impl Grid<'_> {
    /// Draws the heading and the rows that fit; without a chosen row the last place says how many there are besides.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, theme: Theme) {
        let widths = self.widths(area.width);
        self.line(buf, area, 0, &widths, &self.columns.iter().map(|c| (c.title.to_owned(), theme.dim())).collect::<Vec<_>>());
        let places = usize::from(area.height.saturating_sub(1));
        let first = match self.chosen {
            Some(chosen) => chosen.saturating_sub(places / 2).min(self.count.saturating_sub(places)),
            None => 0,
        };
        for (place, index) in (first..self.count).take(places).enumerate() {
            let row = u16::try_from(place + 1).unwrap_or(u16::MAX);
            if self.chosen.is_none() && place + 1 == places && index + 1 < self.count {
                put(buf, area, row, 0, &format!("… and {} more", self.count - index), theme.dim());
                break;
            }
            let mut cells = (self.row)(index);
            if self.chosen == Some(index) {
                cells.iter_mut().for_each(|(_, style)| *style = Style::new());
                self.line(buf, area, row, &widths, &cells);
                let across = Rect { y: area.y + row, height: 1, ..area };
                buf.set_style(across.intersection(*buf.area()), theme.chosen());
            } else {
                self.line(buf, area, row, &widths, &cells);
            }
        }
    }

    fn widths(&self, all: u16) -> Vec<u16> {
        let gaps = GAP * u16::try_from(self.columns.len().saturating_sub(1)).unwrap_or(0);
        let fixed: u16 = self.columns.iter().map(|c| c.width).sum();
        let rests = u16::try_from(self.columns.iter().filter(|c| c.width == 0).count()).unwrap_or(1).max(1);
        let rest = all.saturating_sub(fixed + gaps) / rests;
        self.columns.iter().map(|c| if c.width == 0 { rest } else { c.width }).collect()
    }

    fn line(&self, buf: &mut Buffer, area: Rect, row: u16, widths: &[u16], cells: &[Cell]) {
        let mut at = 0;
        for ((column, wide), (text, style)) in self.columns.iter().zip(widths).zip(cells) {
            let columns = usize::from(*wide);
            let text = if column.path { fit_path(text, columns) } else { fit(text, columns) };
            let pad = if column.right { columns.saturating_sub(width(&text)) } else { 0 };
            put(buf, area, row, at + u16::try_from(pad).unwrap_or(0), &text, *style);
            at += wide + GAP;
        }
    }
}
