//! Joining two edits of one text line by line, where that is clean.
//!
//! A merge is an edit like any other: a new value that replaces both sides. Nothing in [`join`](mod@crate::join) or [`read`](crate::read) knows of
//! it. What makes it safe is that everybody decides alike, from the state alone:
//!
//! * [`candidate`]: whether there is something to merge. Both sides say what they were edited from ([`Base`]), and have an event in common. A base
//!   that only looks like one is never taken: to merge from a version that one side had not seen would undo what that version brought.
//! * [`lines`]: what comes out, a pure function of three texts. The sides are put in the order of their stamps, so two devices that merge at the same
//!   time make the same bytes, and equal bytes are one (CR1): there is nothing to merge again, and no ping-pong.
//!
//! Bases are remembered sparsely ([`bases`]): the newest, the oldest, and fewer and fewer between. An older event in common than the newest one
//! is good as well: what came after it stands on both sides, and the same change on both sides is one.

use crate::limits::{BASES_MAX, MERGE_CHANGED_LINES_MAX, MERGE_LINES_MAX, MERGE_MAX_BYTES};
use crate::manifest::Manifest;
use crate::node::{Base, Body, Content, Dot, FileContent, Value};
use crate::read::{Shown, shown};
use similar::{Algorithm, MergeResolution, TextMerge, TextMergeConfig};

/// Two edits of one file that may be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The side with the higher stamp, which keeps the name.
    pub newer: FileContent,
    /// The other one.
    pub older: FileContent,
    /// What both were edited from.
    pub base: Base,
    /// The events of both sides: what the merged version replaces.
    pub replaces: Vec<Dot>,
}

/// The size of a file that may be merged.
pub fn is_small_enough(manifest: &Manifest) -> bool {
    (1..=MERGE_MAX_BYTES).contains(&manifest.size())
}

/// The two edits that a body shows, if it shows exactly two, nobody deleted it meanwhile, and both come from one base.
pub fn candidate(body: &Body) -> Option<Candidate> {
    if body.values().len() < 2 || body.values().iter().any(|v| v.content.is_tombstone()) {
        return None;
    }
    let sides = shown(body);
    let [newer, older] = &sides[..] else { return None };
    let file = |side: &Shown<'_>| side.value.content.file().filter(|f| is_small_enough(&f.manifest)).cloned();
    let (newer_file, older_file) = (file(newer)?, file(older)?);
    let (newer_bases, older_bases) = (bases_of(body, newer), bases_of(body, older));
    let equal =
        same_made_twice(&newer_bases, &older_file, &older_bases).or_else(|| same_made_twice(&older_bases, &newer_file, &newer_bases));
    let base: &Base = equal.or_else(|| newer_bases.iter().find(|base| older_bases.contains(base)).copied())?;
    if !is_small_enough(&base.manifest) {
        return None;
    }
    let mut replaces: Vec<Dot> = newer.dots.iter().chain(&older.dots).copied().collect();
    replaces.sort();
    Some(Candidate { newer: newer_file, older: older_file, base: base.clone(), replaces })
}

/// What one side was edited from, if the other side is that very content, made from the same: two devices have merged the same, and one went on.
/// Nothing is newer in common. Equal bytes alone say nothing: whoever takes a change back writes what stood before, and that is an edit.
fn same_made_twice<'b>(bases: &[&'b Base], other: &FileContent, other_bases: &[&'b Base]) -> Option<&'b Base> {
    let is_equal = |base: &&&Base| base.manifest.hash() == other.manifest.hash();
    let at = bases.iter().position(|base| is_equal(&base))?;
    let made_from = |bases: &[&'b Base]| bases.iter().find(|base| !is_equal(base)).copied();
    let from = made_from(&bases[at..])?;
    (made_from(other_bases) == Some(from)).then_some(bases[at])
}

/// Everything that a shown content was edited from: of equal ones, that of the highest stamp first.
fn bases_of<'b>(body: &'b Body, side: &Shown<'_>) -> Vec<&'b Base> {
    let mut values: Vec<&Value> = side.dots.iter().filter_map(|dot| body.value(*dot)).collect();
    values.sort_by_key(|v| std::cmp::Reverse(v.stamp));
    values.into_iter().filter_map(|v| v.content.file()).flat_map(|f| &f.bases).collect()
}

/// What a new content was edited from that replaces the content `manifest` of these events.
///
/// The body may have gone on since: then what it remembers of these events stands among the bases of what replaced them.
pub fn bases(body: &Body, manifest: &Manifest, replaced: &[Dot]) -> Vec<Base> {
    let mut out: Vec<Base> = replaced.iter().map(|dot| Base { dot: *dot, manifest: manifest.clone() }).collect();
    let files = || body.values().iter().filter_map(|v| v.content.file().map(|f| (v.dot, f)));
    for dot in replaced {
        let of_it = files().find(|(own, _)| own == dot).map(|(_, f)| &f.bases[..]);
        let before_it = || files().find_map(|(_, f)| f.bases.iter().position(|b| b.dot == *dot).map(|at| &f.bases[at + 1..]));
        out.extend(of_it.or_else(before_it).into_iter().flatten().cloned());
    }
    thinned(out)
}

/// What a merged version was edited from.
pub fn bases_of_merged(candidate: &Candidate, body: &Body) -> Vec<Base> {
    let sides = body.values().iter().filter(|v| candidate.replaces.contains(&v.dot)).filter_map(|v| v.content.file().map(|f| (v, f)));
    let mut sides: Vec<(&Value, &FileContent)> = sides.collect();
    sides.sort_by_key(|(v, _)| std::cmp::Reverse(v.stamp));
    let themselves = sides.iter().map(|(v, f)| Base { dot: v.dot, manifest: f.manifest.clone() });
    let before = sides.iter().flat_map(|(_, f)| f.bases.iter()).filter(|b| b.dot != candidate.base.dot).cloned();
    // What is known to be in common stands before what one side alone was edited from.
    let out = themselves.chain([candidate.base.clone()]).chain(before).collect();
    thinned(out)
}

/// At most [`BASES_MAX`], each once: the two newest, the newest of another writer, the oldest, and between them fewer the further
/// back: each number has a rank, every second one at least 1, every fourth at least 2 and so on, and the low ranks go first. So a writer who was alone for many
/// edits still names what the others saw last, or something shortly before it.
fn thinned(mut bases: Vec<Base>) -> Vec<Base> {
    let mut seen = std::collections::BTreeSet::new();
    bases.retain(|base| seen.insert(base.dot));
    while bases.len() > BASES_MAX {
        let heard = bases.iter().position(|base| base.dot.replica != bases[0].dot.replica);
        let between = (2..bases.len() - 1).filter(|at| Some(*at) != heard);
        let least = between.min_by_key(|at| (rank(bases[*at].dot.counter), std::cmp::Reverse(*at)));
        bases.remove(least.unwrap_or(bases.len() - 1));
    }
    bases
}

/// The rank of a number among others. The numbers of a node's events skip, often by an even stride, so their own last bits would not do
/// (Knuth's multiplicative hash, TAOCP 3, 6.4).
fn rank(number: u64) -> u32 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).leading_zeros()
}

/// The modification time of a merged version, in nanoseconds since 1970: the same wherever it is made. It is later than both, so that an editor that
/// has one of them open sees that the file changed; what is equal to one side keeps that side's.
pub fn merged_mtime_ns(candidate: &Candidate, merged: &Manifest) -> i64 {
    let equal = [&candidate.newer, &candidate.older].into_iter().find(|f| f.manifest.hash() == merged.hash());
    let latest = candidate.newer.mtime_ns.max(candidate.older.mtime_ns);
    equal.map_or(latest.saturating_add(1_000_000_000), |f| f.mtime_ns)
}

/// The content of a merged version.
pub fn merged_content(candidate: &Candidate, body: &Body, merged: Manifest) -> Content {
    let mtime_ns = merged_mtime_ns(candidate, &merged);
    Content::File(FileContent { bases: bases_of_merged(candidate, body), ..FileContent::new(merged, mtime_ns) })
}

/// Whether bytes are a text that is merged: UTF-8 without zero bytes, of a bounded size and number of lines.
pub fn is_text(bytes: &[u8]) -> bool {
    text(bytes).is_some()
}

fn text(bytes: &[u8]) -> Option<&str> {
    let is_bounded = bytes.len() as u64 <= MERGE_MAX_BYTES && !bytes.contains(&0);
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_bounded)?;
    (line_ends(bytes) <= MERGE_LINES_MAX).then_some(text)
}

/// How many lines end in these bytes: at a line feed, at a carriage return, or at both together, as `similar` cuts them.
fn line_ends(bytes: &[u8]) -> usize {
    let ends = |at: usize| bytes[at] == b'\n' || (bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    (0..bytes.len()).filter(|at| ends(*at)).count()
}

/// How many lines of either text the first and the last difference span, or one more.
fn changed_lines(one: &str, other: &str) -> usize {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    let before = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    (one, other) = (&one[before..], &other[before..]);
    let after = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    line_ends(&one[..one.len() - after]).max(line_ends(&other[..other.len() - after])) + 1
}

/// The three-way merge of two texts; nothing if one is no text, both changed the same lines or lines that touch, or what one changed spans too much.
///
/// Whole lines are taken as they are, with their endings and a byte order mark. A last line without an ending stays the last one.
pub fn lines(base: &[u8], newer: &[u8], older: &[u8]) -> Option<Vec<u8>> {
    let (base, newer, older) = (text(base)?, text(newer)?, text(older)?);
    if newer == base || older == base {
        return Some(if newer == base { older } else { newer }.as_bytes().to_vec());
    }
    if changed_lines(base, newer).max(changed_lines(base, older)) > MERGE_CHANGED_LINES_MAX {
        return None;
    }
    let mut config = TextMergeConfig::new();
    config.algorithm(Algorithm::Histogram);
    let merge: TextMerge<'_, '_, '_, str> = config.merge_lines(base, newer, older);
    let mut out = String::with_capacity(newer.len().max(older.len()));
    for region in merge.regions() {
        let from_older = match region.resolution() {
            MergeResolution::Unchanged | MergeResolution::Ours | MergeResolution::Both => false,
            MergeResolution::Theirs => true,
            _ => return None,
        };
        let range = if from_older { region.theirs_range() } else { region.ours_range() };
        for at in range {
            let line = if from_older { merge.theirs_line(at)? } else { merge.ours_line(at)? };
            // Two lines would become one, or their two endings.
            let has_ended = out.is_empty() || out.ends_with(['\n', '\r']);
            if !has_ended || (out.ends_with('\r') && line.starts_with('\n')) {
                return None;
            }
            out.push_str(line);
        }
    }
    Some(out.into_bytes())
}
