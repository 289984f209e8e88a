//! What users do to a disk: random acts over a small alphabet of names, so that they collide. Every write has content of its own.

use crate::sim::disk::SimDisk;
use crate::sim::rng::Rng;
use ferry_engine::Kind;
use ferry_protocol::{Name, RelPath};
use std::collections::{BTreeMap, BTreeSet};

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
