//! What users do to a disk: random acts over a small alphabet of names, so that they collide. Every write has content of its own.

use crate::sim::disk::SimDisk;
use crate::sim::rng::Rng;
use ferry_engine::Kind;
use ferry_protocol::{Name, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of a text when it is begun.
const TEXT_LINES: usize = 24;
/// Its parts, of which each user has one.
const PARTS: usize = 4;
const NAMES: [&str; 7] = ["a", "b", "c.txt", "d", "e", "Ä", ".h"];

/// The contents of all files on a disk, Ferry's own parked ones too.
pub fn contents(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let (tree, parked) = (disk.tree(), disk.parked());
    tree.into_values().chain(parked.into_values()).filter(|s| s.kind == Kind::File).map(|s| s.bytes).collect()
}

/// The same, and in how many files each stands.
pub fn counted(disk: &SimDisk) -> BTreeMap<Vec<u8>, usize> {
    let mut out = BTreeMap::new();
    let files = disk.tree().into_values().chain(disk.parked().into_values()).filter(|s| s.kind == Kind::File);
    files.for_each(|s| *out.entry(s.bytes).or_insert(0) += 1);
    out
}

/// The lines of all files on a disk, and how often each stands there: where texts are merged, these are what must not be lost.
pub fn counted_lines(disk: &SimDisk) -> BTreeMap<Vec<u8>, usize> {
    let mut out = BTreeMap::new();
    for (bytes, files) in counted(disk) {
        bytes.split_inclusive(|b| *b == b'\n').for_each(|line| *out.entry(line.to_vec()).or_insert(0) += files);
    }
    out
}

fn fresh(rng: &mut Rng, who: usize, written: &mut u64) -> Vec<u8> {
    *written += 1;
    let mut text = format!("D{who}#{written}");
    for _ in 0..rng.below(4) {
        text.push_str(&format!(" {:06x}", rng.next() & 0xFF_FFFF));
    }
    text.into_bytes()
}

struct Sight {
    dirs: Vec<RelPath>,
    files: Vec<RelPath>,
    all: Vec<RelPath>,
}

fn look(disk: &SimDisk) -> Sight {
    let tree = disk.tree();
    let of = |kind: Kind| tree.iter().filter(|(_, s)| s.kind == kind).map(|(p, _)| p.clone()).collect::<Vec<_>>();
    let mut dirs = of(Kind::Dir);
    dirs.retain(|d| d.names().len() < 4);
    dirs.push(RelPath::root());
    Sight { dirs, files: of(Kind::File), all: tree.keys().cloned().collect() }
}

fn somewhere(rng: &mut Rng, sight: &Sight) -> RelPath {
    let name = Name::new(*rng.pick(&NAMES)).expect("names");
    rng.pick(&sight.dirs).join(&name)
}

/// A user edits one line of a text, or begins one. What it was, for people, and the path that a watcher would name.
pub fn edit_lines(disk: &mut SimDisk, rng: &mut Rng, who: usize, written: &mut u64) -> (String, Vec<RelPath>) {
    let sight = look(disk);
    let texts: Vec<&RelPath> = sight.files.iter().filter(|at| disk.read(at).is_some_and(|b| b.ends_with(b"\n"))).collect();
    // Each line says of which part of its text it is.
    let line = |part: usize, written: &mut u64| {
        *written += 1;
        format!("D{who}#{written} of {part}\n").into_bytes()
    };
    if texts.is_empty() || rng.percent(3) {
        let at = somewhere(rng, &sight);
        let lines: Vec<Vec<u8>> = (0..TEXT_LINES).map(|n| line(n * PARTS / TEXT_LINES, written)).collect();
        return (format!("begin {at} {}", disk.write(&at, &lines.concat())), vec![at]);
    }
    // Mostly one text, so that two of them meet in it.
    let at = if rng.percent(70) { texts[0].clone() } else { (*rng.pick(&texts)).clone() };
    let bytes = disk.read(&at).unwrap_or_default();
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    // And mostly each in a part of his own: what touches is no clean merge.
    let part = if rng.percent(90) { who % PARTS } else { rng.below(PARTS) };
    let own: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].ends_with(format!(" of {part}\n").as_bytes())).collect();
    let place = if own.is_empty() { rng.below(lines.len()) } else { *rng.pick(&own) };
    match rng.below(10) {
        0..6 => lines.insert(place, line(part, written)),
        6..9 => lines[place] = line(part, written),
        _ if lines.len() > 1 => drop(lines.remove(place)),
        _ => {}
    }
    let text = lines.concat();
    let done = if rng.percent(50) { disk.write(&at, &text) } else { disk.save(&at, &text) };
    (format!("edit line {place} of {at} {:?} {done}", String::from_utf8_lossy(&text)), vec![at])
}

/// One act of a user. What it was, for people, and the paths that a watcher would name.
pub fn act(disk: &mut SimDisk, rng: &mut Rng, who: usize, written: &mut u64) -> (String, Vec<RelPath>) {
    let sight = look(disk);
    let to = somewhere(rng, &sight);
    let existing = (!sight.all.is_empty()).then(|| rng.pick(&sight.all).clone());
    let file = (!sight.files.is_empty()).then(|| rng.pick(&sight.files).clone());
    match (rng.below(100), existing, file) {
        (0..25, _, _) | (_, None, _) => {
            let bytes = fresh(rng, who, written);
            (format!("write {to} {:?} {}", String::from_utf8_lossy(&bytes), disk.write(&to, &bytes)), vec![to])
        }
        (25..37, _, _) => (format!("mkdir {to} {}", disk.mkdir(&to)), vec![to]),
        (37..47, _, Some(file)) => {
            let bytes = fresh(rng, who, written);
            (format!("edit {file} {:?} {}", String::from_utf8_lossy(&bytes), disk.write(&file, &bytes)), vec![file])
        }
        (47..57, _, Some(file)) => {
            let bytes = fresh(rng, who, written);
            (format!("save {file} {:?} {}", String::from_utf8_lossy(&bytes), disk.save(&file, &bytes)), vec![file])
        }
        (57..76, Some(from), _) => (format!("rename {from} {to} {}", disk.rename(&from, &to)), vec![from, to]),
        (76..80, Some(a), Some(b)) => (format!("exchange {a} {b} {}", disk.exchange(&a, &b)), vec![a, b]),
        (80..92, Some(at), _) => (format!("remove {at} {}", disk.remove(&at)), vec![at]),
        (92..95, Some(at), _) => {
            let mode = *rng.pick(&[0o755, 0o644, 0o700, 0o600]);
            let mode = if disk.stat(&at).is_some_and(|s| s.kind == Kind::Dir) { mode | 0o700 } else { mode };
            (format!("chmod {at} {mode:o} {}", disk.chmod(&at, mode)), vec![at])
        }
        (95..97, Some(at), _) => (format!("touch {at} {}", disk.touch(&at)), vec![at]),
        (_, Some(at), _) => {
            *written += 1;
            let target = format!("{who}/{written}");
            let done = disk.symlink(&to, target.as_bytes());
            (format!("symlink {to} {target} {done} beside {at}"), vec![to])
        }
    }
}
