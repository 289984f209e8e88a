//! What is different between two texts: versions of one file, or a version and a text that the caller has.
//!
//! Text is UTF-8 without a zero byte. Sizes are checked before anything is read, and the comparison is given a time: what is not done by then is told
//! less finely, never wrongly.

use super::{Content, Download, Entry, off_thread};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::VersionRow;
use ferry_protocol::{NodeId, read};
use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use std::sync::Arc;
use std::time::Duration;

/// The largest text that is compared, in bytes.
pub const DIFF_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// Lines of an answer.
const LINES_MAX: usize = 20_000;
/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// After this time the comparison ends with what it has.
const TIME_MAX: Duration = Duration::from_secs(2);

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A version, by id or by number.
    Version(String),
    /// What the file shows now.
    Current,
    /// The version before the other side's; nothing if that is the first.
    Previous,
    /// A text that the caller has.
    Text(String),
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// It is in both.
    Same,
    /// It is in the old text only.
    Removed,
    /// It is in the new text only.
    Added,
}

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What became of it.
    pub kind: LineKind,
    /// The line.
    pub text: String,
    /// Whether it is the last one and has no end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// Changes that stand close together, with the lines around them. Lines are counted from 1; a start of 0 is before the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hunk {
    /// The first line in the old text.
    pub old_start: usize,
    /// How many lines of the old text.
    pub old_lines: usize,
    /// The first line in the new text.
    pub new_start: usize,
    /// How many lines of the new text.
    pub new_lines: usize,
    /// The lines.
    pub lines: Vec<Line>,
}

/// What is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The version that is the old text; nothing for a text without a version.
    pub from: Option<VersionRow>,
    /// The version that is the new text.
    pub to: Option<VersionRow>,
    /// Lines that came.
    pub added: usize,
    /// Lines that went.
    pub removed: usize,
    /// Whether there is more than the hunks show.
    pub is_cut: bool,
    /// The changes.
    pub hunks: Vec<Hunk>,
}

impl Content {
    /// Compares two sides.
    pub async fn compare(self: &Arc<Self>, entry: &Entry, file: NodeId, from: Side, to: Side) -> ServiceResult<Comparison> {
        entry.check_shown(file, true)?;
        let nodes = self.meta.nodes(entry.row.id, &[file]).await?;
        let state = &nodes.first().ok_or_else(ServiceError::not_found)?.state;
        let current = read::shown(state.body()).first().map(|s| s.value.dot);
        let rows = self.meta.versions(entry.row.id, file).await?;
        // What is deleted shows nothing: then it is the newest.
        let now = rows.iter().find(|row| Some(row.dot) == current).or(rows.first());
        let find = |side: &Side, other: Option<&VersionRow>| match side {
            Side::Version(wanted) => {
                let is_it = |row: &&VersionRow| super::download::is_version(wanted, row.version_id, row.number);
                rows.iter().find(is_it).map(|row| Some(row.clone())).ok_or_else(|| no_version(wanted))
            }
            Side::Current => Ok(now.cloned()),
            Side::Previous => Ok(rows.iter().find(|row| other.or(now).is_some_and(|other| row.number < other.number)).cloned()),
            Side::Text(_) => Ok(None),
        };
        let to_row = find(&to, None)?;
        let from_row = find(&from, to_row.as_ref())?;
        let (old, new) = (self.text_of(entry, file, from, from_row.as_ref()).await?, self.text_of(entry, file, to, to_row.as_ref()).await?);
        let (hunks, added, removed, is_cut) = off_thread(move || hunks(&old, &new)).await?;
        Ok(Comparison { from: from_row, to: to_row, added, removed, is_cut, hunks })
    }

    async fn text_of(self: &Arc<Self>, entry: &Entry, file: NodeId, side: Side, row: Option<&VersionRow>) -> ServiceResult<String> {
        let Some(row) = row else {
            let Side::Text(text) = side else { return Ok(String::new()) };
            return checked(text.into_bytes(), "The text that was sent");
        };
        let what = format!("Version {}", row.number);
        if row.size_bytes > DIFF_MAX_BYTES {
            return Err(too_large(&what));
        }
        let download: Download = self.download(entry, file, Some(&hex::encode(row.version_id))).await?;
        let mut bytes = Vec::with_capacity(row.size_bytes as usize);
        if row.size_bytes > 0 {
            let mut stream = self.read_file(&download, 0..row.size_bytes).await?;
            while let Some(part) = stream.recv().await {
                bytes.extend_from_slice(&part?);
            }
        }
        checked(bytes, &what)
    }
}

fn no_version(wanted: &str) -> ServiceError {
    let shown: String = wanted.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
    ServiceError::new(Kind::NotFound, "version_not_found", format!("The file has no version '{shown}'."))
}

fn too_large(what: &str) -> ServiceError {
    let detail = format!("{what} is too large to be compared: at most {DIFF_MAX_BYTES} bytes are.");
    ServiceError::new(Kind::TooLarge, "too_large_to_compare", detail).with("limit_bytes", DIFF_MAX_BYTES)
}

fn checked(bytes: Vec<u8>, what: &str) -> ServiceResult<String> {
    if bytes.len() as u64 > DIFF_MAX_BYTES {
        return Err(too_large(what));
    }
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| ServiceError::conflict("not_text", format!("{what} is not text (UTF-8), so its lines cannot be compared.")))
}

/// The hunks, how many lines came and went, and whether the hunks are not all.
fn hunks(old: &str, new: &str) -> (Vec<Hunk>, usize, usize, bool) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let diff = TextDiff::configure().timeout(TIME_MAX).diff_slices(&old, &new);
    let (mut out, mut added, mut removed, mut lines_left, mut is_cut) = (Vec::new(), 0, 0, LINES_MAX, false);
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (old, new) = (first.old_range().start..last.old_range().end, first.new_range().start..last.new_range().end);
        let start = |range: &std::ops::Range<usize>| if range.is_empty() { range.start } else { range.start + 1 };
        let mut hunk =
            Hunk { old_start: start(&old), old_lines: old.len(), new_start: start(&new), new_lines: new.len(), lines: Vec::new() };
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let kind = match change.tag() {
                ChangeTag::Equal => LineKind::Same,
                ChangeTag::Delete => LineKind::Removed,
                ChangeTag::Insert => LineKind::Added,
            };
            added += usize::from(kind == LineKind::Added);
            removed += usize::from(kind == LineKind::Removed);
            if lines_left == 0 {
                is_cut = true;
                continue;
            }
            lines_left -= 1;
            let line = change.value().strip_suffix('\n');
            hunk.lines.push(Line { kind, text: line.unwrap_or(change.value()).to_owned(), is_cut: line.is_none() });
        }
        if !hunk.lines.is_empty() {
            out.push(hunk);
        }
    }
    (out, added, removed, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The new text, as whoever applies the hunks to the old one gets it.
    fn applied(old: &str, hunks: &[Hunk]) -> String {
        let lines: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut out, mut at) = (String::new(), 0);
        for hunk in hunks {
            let start = if hunk.old_lines == 0 { hunk.old_start } else { hunk.old_start - 1 };
            out.extend(lines[at..start].iter().copied());
            at = start;
            for line in &hunk.lines {
                let whole = format!("{}{}", line.text, if line.is_cut { "" } else { "\n" });
                if line.kind != LineKind::Added {
                    assert_eq!(lines[at], whole, "the old side is what it was");
                    at += 1;
                }
                if line.kind != LineKind::Removed {
                    out.push_str(&whole);
                }
            }
        }
        out.extend(lines[at..].iter().copied());
        out
    }

    #[test]
    fn changes_stand_with_the_lines_around_them() {
        let old: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let new = old.replace("line 10\n", "line ten\n");
        let (hunks, added, removed, is_cut) = hunks(&old, &new);
        assert_eq!((hunks.len(), added, removed, is_cut), (1, 1, 1, false));
        assert_eq!((hunks[0].old_start, hunks[0].old_lines, hunks[0].new_start, hunks[0].new_lines), (7, 7, 7, 7));
        let kinds: Vec<LineKind> = hunks[0].lines.iter().map(|l| l.kind).collect();
        let same = LineKind::Same;
        assert_eq!(kinds, [same, same, same, LineKind::Removed, LineKind::Added, same, same, same]);
        assert_eq!(super::hunks("a\n", "a\n").0, []);
        let (cut, ..) = super::hunks("a\n", "a");
        assert_eq!(cut[0].lines.iter().map(|l| l.is_cut).collect::<Vec<_>>(), [false, true], "only the end of the line went");
        assert_eq!(super::hunks("", "a\n").0[0].old_start, 0);
    }

    #[test]
    fn an_answer_is_bounded_and_says_so() {
        let new = "x\n".repeat(LINES_MAX + 5);
        let (hunks, added, _, is_cut) = hunks("", &new);
        assert_eq!((hunks.iter().map(|h| h.lines.len()).sum::<usize>(), added, is_cut), (LINES_MAX, LINES_MAX + 5, true));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let code = |bytes: Vec<u8>| checked(bytes, "This").unwrap_err().code();
        assert_eq!((code(vec![0xff]), code(b"a\0b".to_vec())), ("not_text", "not_text"));
        assert_eq!(code(vec![b'a'; DIFF_MAX_BYTES as usize + 1]), "too_large_to_compare");
        assert_eq!(checked(b"\xc3\xa4\n".to_vec(), "This").unwrap(), "ä\n");
    }

    proptest! {
        #[test]
        fn the_hunks_lead_from_one_text_to_the_other(
            old in proptest::collection::vec(0u8..6, 0..60), new in proptest::collection::vec(0u8..6, 0..60), cut: (bool, bool),
        ) {
            let text = |lines: &[u8], cut: bool| {
                let all: String = lines.iter().map(|n| format!("{n}\n")).collect();
                if cut { all.trim_end_matches('\n').to_owned() } else { all }
            };
            let (old, new) = (text(&old, cut.0), text(&new, cut.1));
            let (hunks, added, removed, _) = hunks(&old, &new);
            prop_assert_eq!(applied(&old, &hunks), new.clone());
            prop_assert_eq!(old.split_inclusive('\n').count() + added, new.split_inclusive('\n').count() + removed);
        }
    }
}
