//! What the properties are tried on: one tree, made on a first device and brought to all, and lists of what the user of each device then does to it
//! while nobody hears of the others. Lists shrink to the few acts that matter; few names and few nodes, so that the devices meet.

use ferry_engine::Kind;
use ferry_protocol::{Name, RelPath};
use ferry_tests::sim::SimDisk;
use ferry_tests::sim::user::contents;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt;

/// Something that a user does. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Write { dir: u8, name: u8, content: u8 },
    Mkdir { dir: u8, name: u8 },
    Link { dir: u8, name: u8 },
    Edit { at: u8, content: u8, renamed_over: bool },
    Rename { at: u8, dir: u8, name: u8, over: bool },
    Exchange { a: u8, b: u8 },
    Remove { at: u8 },
    Chmod { at: u8, mode: u8 },
    Touch { at: u8 },
}

/// One case: what the first user makes, and what each user does after that.
#[derive(Clone)]
pub struct Case {
    pub base: Vec<Act>,
    pub acts: [Vec<Act>; 3],
    /// Decides what a property leaves open: orders, which part of a batch is done.
    pub seed: u64,
}

impl fmt::Debug for Case {
    /// One line for each user, however it is asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, acts: [a, b, c], seed } = self;
        let lines = [format!("\n  base: {base:?}"), format!("\n  D0: {a:?}"), format!("\n  D1: {b:?}"), format!("\n  D2: {c:?}")];
        write!(f, "{}\n  seed: {seed}", lines.concat())
    }
}

const NAMES: [&[u8]; 8] =
    [b"a", b"b", b"c.txt", b"A", "é".as_bytes(), "e\u{301}".as_bytes(), b"a (conflicted copy, D0, 1970-01-01 00-00)", &[b'x'; 255]];

/// Everything that users do.
pub fn any_act() -> impl Strategy<Value = Act> + Clone {
    prop_oneof![
        4 => new_file(),
        3 => (any::<u8>(), 0..8u8).prop_map(|(dir, name)| Act::Mkdir { dir, name }),
        1 => (any::<u8>(), 0..8u8).prop_map(|(dir, name)| Act::Link { dir, name }),
        4 => edit(),
        5 => rename(true),
        1 => exchange(),
        3 => any::<u8>().prop_map(|at| Act::Remove { at }),
        1 => attribute(),
    ]
}

/// What changes no byte and makes nothing new: renames, modes, times.
pub fn same_bytes() -> impl Strategy<Value = Act> + Clone {
    prop_oneof![
        5 => rename(false),
        1 => exchange(),
        1 => attribute(),
    ]
}

/// What can make two files claim one name, one act for each.
pub fn contest() -> impl Strategy<Value = Act> + Clone {
    prop_oneof![
        3 => new_file(),
        3 => edit(),
    ]
}

fn new_file() -> impl Strategy<Value = Act> + Clone {
    (any::<u8>(), 0..8u8, any::<u8>()).prop_map(|(dir, name, content)| Act::Write { dir, name, content })
}

/// A file whose content nobody else writes.
fn own_file() -> impl Strategy<Value = Act> + Clone {
    (any::<u8>(), 0..8u8, any::<u8>()).prop_map(|(dir, name, content)| Act::Write { dir, name, content: content | 1 })
}

fn rename(over: bool) -> impl Strategy<Value = Act> + Clone {
    (any::<u8>(), any::<u8>(), 0..8u8).prop_map(move |(at, dir, name)| Act::Rename { at, dir, name, over })
}

fn exchange() -> impl Strategy<Value = Act> + Clone {
    (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Act::Exchange { a, b })
}

fn edit() -> impl Strategy<Value = Act> + Clone {
    (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(at, content, renamed_over)| Act::Edit { at, content, renamed_over })
}

fn attribute() -> impl Strategy<Value = Act> + Clone {
    prop_oneof![(any::<u8>(), 0..4u8).prop_map(|(at, mode)| Act::Chmod { at, mode }), any::<u8>().prop_map(|at| Act::Touch { at }),]
}

/// Cases in which every user does up to `max` of these.
pub fn cases(act: impl Strategy<Value = Act> + Clone + 'static, max: usize) -> impl Strategy<Value = Case> {
    let base = prop_oneof![3 => own_file().boxed(), 2 => (any::<u8>(), 0..8u8).prop_map(|(dir, name)| Act::Mkdir { dir, name }).boxed()];
    let list = || proptest::collection::vec(act.clone(), 0..=max);
    (proptest::collection::vec(base, 2..10), list(), list(), list(), any::<u64>()).prop_map(|(base, a, b, c, seed)| Case {
        base,
        acts: [a, b, c],
        seed,
    })
}

fn pick<X: Clone>(of: &[X], at: u8) -> Option<X> {
    of.get(usize::from(at) % of.len().max(1)).cloned()
}

/// Does this to a disk. The paths that a watcher would name.
pub fn act(disk: &mut SimDisk, act: Act, who: &str) -> Vec<RelPath> {
    let tree = disk.tree();
    let all: Vec<RelPath> = tree.keys().cloned().collect();
    let mut dirs: Vec<RelPath> = tree.iter().filter(|(p, s)| s.kind == Kind::Dir && p.names().len() < 4).map(|(p, _)| p.clone()).collect();
    dirs.insert(0, RelPath::root());
    let place = |dir: u8, name: u8| {
        let dir = if dir < 100 { RelPath::root() } else { pick(&dirs, dir).unwrap_or_default() };
        dir.join(&Name::new(NAMES[usize::from(name) % NAMES.len()]).expect("a name"))
    };
    // Every fourth content is one of three that others may write too.
    let bytes = |content: u8| match content % 4 {
        0 => format!("the same for all, {}", content / 4 % 3),
        _ => format!("{who} wrote {content}, and nobody else did"),
    };
    match act {
        Act::Write { dir, name, content } => {
            let at = place(dir, name);
            disk.write(&at, bytes(content).as_bytes());
            vec![at]
        }
        Act::Mkdir { dir, name } => {
            let at = place(dir, name);
            disk.mkdir(&at);
            vec![at]
        }
        Act::Link { dir, name } => {
            let at = place(dir, name);
            disk.symlink(&at, who.as_bytes());
            vec![at]
        }
        Act::Edit { at, content, renamed_over } => {
            let files: Vec<RelPath> = tree.iter().filter(|(_, s)| s.kind == Kind::File).map(|(p, _)| p.clone()).collect();
            let Some(at) = pick(&files, at) else { return Vec::new() };
            // A name of 255 bytes leaves no room for the temporary name beside it.
            if renamed_over && at.names().last().is_some_and(|n| n.as_bytes().len() < 240) {
                disk.save(&at, bytes(content).as_bytes());
            } else {
                disk.write(&at, bytes(content).as_bytes());
            }
            vec![at]
        }
        Act::Rename { at, dir, name, over } => {
            let Some(from) = pick(&all, at) else { return Vec::new() };
            let to = place(dir, name);
            if over || !tree.contains_key(&to) {
                disk.rename(&from, &to);
            }
            vec![from, to]
        }
        Act::Exchange { a, b } => {
            let (Some(a), Some(b)) = (pick(&all, a), pick(&all, b)) else { return Vec::new() };
            disk.exchange(&a, &b);
            vec![a, b]
        }
        Act::Remove { at } => {
            let Some(at) = pick(&all, at) else { return Vec::new() };
            disk.remove(&at);
            vec![at]
        }
        Act::Chmod { at, mode } => {
            let Some(at) = pick(&all, at) else { return Vec::new() };
            let owner = if tree[&at].kind == Kind::Dir { 0o700 } else { 0o400 };
            disk.chmod(&at, [0o755, 0o644, 0o700, 0o600][usize::from(mode % 4)] | owner);
            vec![at]
        }
        Act::Touch { at } => {
            let Some(at) = pick(&all, at) else { return Vec::new() };
            disk.touch(&at);
            vec![at]
        }
    }
}

/// The contents that one of these disks holds and that were not in the tree at the start: only whoever wrote one could undo it, and did not.
pub fn written<'d>(disks: impl IntoIterator<Item = &'d SimDisk>, base: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    disks.into_iter().flat_map(contents).filter(|bytes| !base.contains(bytes)).collect()
}
