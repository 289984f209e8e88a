//! Tables: aligned for people, tab-separated for `--plain`.

use super::{Style, Ui};

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), right: Vec::new() }
    }

    /// Sets a column flush right.
    pub fn right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it; an empty one prints nothing but, for people, `empty`.
    pub fn print(&self, ui: &Ui, empty: &str) {
        if ui.plain {
            for row in &self.rows {
                ui.line(&row.iter().map(|c| c.replace(['\t', '\n'], " ")).collect::<Vec<_>>().join("\t"));
            }
            return;
        }
        if self.rows.is_empty() {
            ui.message(empty);
            return;
        }
        ui.text(&self.render(ui, ""));
    }

    /// The table as text, each line behind `indent`.
    pub fn render(&self, ui: &Ui, indent: &str) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
            cells.chain([self.headings[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut out = String::new();
        let headings: Vec<String> = self.headings.iter().map(|h| (*h).to_owned()).collect();
        out.push_str(&format!("{indent}{}\n", ui.paint(Style::Dim, &self.set(&headings, &widths))));
        for row in &self.rows {
            out.push_str(&format!("{indent}{}\n", self.set(row, &widths)));
        }
        out
    }

    fn set(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths.get(column).copied().unwrap_or(0).saturating_sub(cell.chars().count()));
            if self.right.contains(&column) {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
            line.push_str("   ");
        }
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Color;

    #[test]
    fn columns_line_up() {
        let ui = Ui::new(false, false, Color::Never, false, false, false);
        let mut table = Table::new(&["A", "B", "C"]).right(1);
        table.row(vec!["ä".into(), "1".into(), "x".into()]);
        table.row(vec!["long".into(), "100".into(), String::new()]);
        assert_eq!(table.render(&ui, " "), " A        B   C\n ä        1   x\n long   100\n");
    }
}
