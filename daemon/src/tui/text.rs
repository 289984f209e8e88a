//! Text from outside, made fit for a cell grid: harmless, and of a given width.

use ferry_protocol::name::display_bytes;
use ratatui::buffer::CellWidth;
use ratatui::style::Style;
use ratatui::text::Span;

/// Most characters of one text; no name or path of Ferry's is longer.
const CHARS_MAX: usize = 4096;

/// Invisible characters that move or hide others and that [`display_bytes`] lets pass. The joiners that emoji and some scripts need stay.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// The text as it may be shown: what could move a cursor, hide or reorder is written out. Doing it twice changes nothing.
pub fn harmless(text: &str) -> String {
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let mut out = String::with_capacity(short.len());
    for c in display_bytes(short.as_bytes()).chars() {
        if is_hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Columns of a terminal that the text takes: the sum of its pieces, as they are put into cells.
pub fn width(text: &str) -> usize {
    pieces(text).iter().map(|(_, wide)| wide).sum()
}

/// The text's pieces that take a place of their own, with their widths.
fn pieces(text: &str) -> Vec<(String, usize)> {
    let span = Span::raw(text);
    span.styled_graphemes(Style::new()).map(|g| (g.symbol.to_owned(), usize::from(g.symbol.cell_width()))).collect()
}

/// The text in at most `columns`, cut at its end.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    head(&pieces(text), columns)
}

/// The text in at most `columns`, cut in its middle: of a path both the folder and the file's name tell something, the name more.
pub fn fit_path(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let pieces = pieces(text);
    if columns < 8 {
        return head(&pieces, columns);
    }
    let (mut tail, mut used) = (Vec::new(), 0);
    for (symbol, wide) in pieces.iter().rev() {
        if used + wide > columns * 2 / 3 {
            break;
        }
        used += wide;
        tail.push(symbol.as_str());
    }
    let mut out = head(&pieces[..pieces.len() - tail.len()], columns - used);
    out.extend(tail.into_iter().rev());
    out
}

/// As many pieces as fit before an ellipsis.
fn head(pieces: &[(String, usize)], columns: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    for (symbol, wide) in pieces {
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        out.push_str(symbol);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text in lines of at most `columns`, broken at blanks where there are any.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let wide = width(word);
        if used > 0 && used + 1 + wide > columns {
            lines.push(std::mem::take(&mut line));
            used = 0;
        } else if used > 0 {
            line.push(' ');
            used += 1;
        }
        if wide <= columns {
            line.push_str(word);
            used += wide;
            continue;
        }
        for (symbol, wide) in pieces(word) {
            // One character of several signs can be wider than a line.
            let (symbol, wide) = if wide > columns { ("…".to_owned(), 1) } else { (symbol, wide) };
            if used + wide > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(&symbol);
            used += wide;
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_moves_hides_or_reorders_is_written_out() {
        let shown = harmless("a\x1b[2Jb\r\n\tc\u{202e}d\u{200b}e\u{7f}");
        assert_eq!(shown, "a\\u{1b}[2Jb\\r\\n\\tc\\u{202e}d\\u{200b}e\\u{7f}");
        assert_eq!(harmless("日本語/naïve.txt"), "日本語/naïve.txt");
        assert!(harmless(&"x".repeat(1 << 20)).chars().count() <= CHARS_MAX + 1);
    }

    #[test]
    fn a_path_keeps_its_end() {
        assert_eq!(fit_path("Photos/2026/holiday/IMG_2231.dng", 20), "Photos…/IMG_2231.dng");
        assert_eq!(fit("up to date", 6), "up to…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(wrap("set the mode of it", 8), ["set the", "mode of", "it"]);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_place(text in "\\PC{0,60}|[ -~]{0,60}", columns in 0usize..50) {
            let text = harmless(&text);
            prop_assert!(width(&fit(&text, columns)) <= columns);
            prop_assert!(width(&fit_path(&text, columns)) <= columns);
            for line in wrap(&text, columns) {
                prop_assert!(width(&line) <= columns.max(2));
            }
        }

        #[test]
        fn harmless_text_stays_as_it_is(text in any::<String>()) {
            let once = harmless(&text);
            prop_assert!(!once.chars().any(|c| c.is_control() || is_hidden(c)));
            if once.chars().count() < CHARS_MAX {
                prop_assert_eq!(harmless(&once), once);
            }
        }
    }
}
