//! Merges of texts: what comes out of three texts, and that devices which merge on their own come to the same end and lose nothing.

use ferry_protocol::limits::{BASES_MAX, MERGE_CHANGED_LINES_MAX, MERGE_LINES_MAX, MERGE_MAX_BYTES};
use ferry_protocol::merge::{Candidate, bases, candidate, lines, merged_content};
use ferry_protocol::node::{Author, Base, Content, Dot, FileContent, NodeState, Place, Stamp, Value};
use ferry_protocol::read::shown;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, DeviceId, Manifest, Name, NodeId, ReplicaId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn merged(base: &str, newer: &str, older: &str) -> Option<String> {
    lines(base.as_bytes(), newer.as_bytes(), older.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn edits_of_different_lines_become_one_text() {
    let base = "one\ntwo\nthree\nfour\nfive\n";
    assert_eq!(merged(base, "ONE\ntwo\nthree\nfour\nfive\n", "one\ntwo\nthree\nfour\nFIVE\n").unwrap(), "ONE\ntwo\nthree\nfour\nFIVE\n");
    assert_eq!(merged(base, "two\nthree\nfour\nfive\n", "one\ntwo\nthree\nfour\nfive\nsix\n").unwrap(), "two\nthree\nfour\nfive\nsix\n");
    let same = "one\n2\nthree\nfour\nfive\n";
    assert_eq!(merged(base, same, same).unwrap(), same, "the same edit twice is one");
}

#[test]
fn edits_of_the_same_or_of_touching_lines_do_not() {
    let base = "one\ntwo\nthree\n";
    for (newer, older) in [
        ("ONE\ntwo\nthree\n", "Uno\ntwo\nthree\n"),
        ("ONE\ntwo\nthree\n", "one\nTWO\nthree\n"),
        ("one\ntwo\nthree\nfour\n", "one\ntwo\nthree\nvier\n"),
        ("one\nthree\n", "one\nTWO\nthree\n"),
        ("", "one\ntwo\nTHREE\n"),
        ("one\r\ntwo\r\nthree\r\n", "one\ntwo\nTHREE\n"),
    ] {
        assert_eq!(merged(base, newer, older), None, "{newer:?} and {older:?}");
    }
}

#[test]
fn line_endings_marks_and_a_missing_last_newline_stay() {
    assert_eq!(merged("a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n").unwrap(), "A\r\nb\r\nC\r\n");
    assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nc").unwrap(), "A\nb\nc");
    assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nc\n").unwrap(), "A\nb\nc\n", "one side ends the last line");
    assert_eq!(merged("\u{FEFF}a\nb\nc\n", "a\nb\nc\n", "\u{FEFF}a\nb\nC\n").unwrap(), "a\nb\nC\n", "one side takes the mark away");
    assert_eq!(merged("a\nb\nc\n", "a\nb\nc", "a\nb\nc\nd\n"), None, "what would join two lines is no merge");
}

#[test]
fn only_bounded_text_is_merged() {
    assert_eq!(lines(b"a\nb\nc\n", b"a\nb\nc\xff\n", b"A\nb\nc\n"), None);
    assert_eq!(lines(b"a\nb\nc\n", b"a\nb\nc\0\n", b"A\nb\nc\n"), None);
    let long = vec![b'x'; MERGE_MAX_BYTES as usize + 1];
    assert_eq!(lines(b"x", &long, b"x"), None);
    for line in ["y\n", "y\r", "y\r\n"] {
        let text = |count| line.repeat(count);
        assert_eq!(merged(line, &text(MERGE_LINES_MAX + 1), line), None, "{line:?}");
        assert!(merged(line, &text(MERGE_LINES_MAX), line).is_some(), "{line:?}");
    }
}

/// The work of a merge grows with the square of what was changed, so what one side changed may not span too much. Where it stands is no matter.
#[test]
fn only_bounded_changes_are_merged() {
    for end in ["\n", "\r", "\r\n"] {
        let text = |changed: &dyn Fn(usize) -> bool| -> String {
            (0..60_000).map(|n| if changed(n) { format!("new {n}{end}") } else { format!("line {n}{end}") }).collect()
        };
        // Too long to be shown where it fails.
        let becomes = |newer: &str, older: &str, out: Option<&str>| merged(&text(&|_| false), newer, older).as_deref() == out;
        let (base, first, last) = (text(&|_| false), text(&|n| n == 0), text(&|n| n == 59_999));
        assert!(becomes(&first, &last, Some(&text(&|n| n == 0 || n == 59_999))), "{end:?}: far apart");
        let wide = text(&|n| n == 1_000 || n == 1_000 + MERGE_CHANGED_LINES_MAX);
        assert!(becomes(&wide, &last, None) && becomes(&last, &wide, None), "{end:?}");
        assert!(becomes(&wide, &base, Some(&wide)) && becomes(&base, &wide, Some(&wide)), "{end:?}: nothing to join");
        let narrow = |also: usize| text(&|n| n == 1_000 || n == 999 + MERGE_CHANGED_LINES_MAX || n == also);
        assert!(becomes(&narrow(1_000), &last, Some(&narrow(59_999))), "{end:?}");
    }
}

/// Few words and all endings: much that repeats, and last lines of every kind.
fn text() -> impl Strategy<Value = String> {
    let ending = prop_oneof![5 => Just("\n"), 1 => Just("\r\n"), 2 => Just("\r")];
    let line = (0usize..4, ending).prop_map(|(word, end)| ["", "a", "b", "}"][word].to_owned() + end);
    (proptest::collection::vec(line, 0..16), "[ab]?").prop_map(|(lines, last)| lines.concat() + &last)
}

/// Where lines are taken out or put in.
fn edits() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec((0usize..40, any::<bool>()), 0..6)
}

fn edited(base: &[String], edits: &[(usize, bool)], who: &str) -> Vec<String> {
    let mut out = base.to_vec();
    for (number, (at, insert)) in edits.iter().enumerate() {
        let at = at % (out.len() + 1);
        if *insert {
            out.insert(at, format!("{who}{number}\n"));
        } else if at < out.len() {
            out.remove(at);
        }
    }
    out
}

/// The lines of a text, with their endings.
fn split(mut text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let end = text.find(['\n', '\r']).map_or(text.len(), |at| at + if text[at..].starts_with("\r\n") { 2 } else { 1 });
        let (line, rest) = text.split_at(end);
        out.push(line);
        text = rest;
    }
    out
}

/// A text after some edits: lines taken out, or put in.
fn edited_text(base: &str, edits: &[(usize, Option<&str>)]) -> String {
    let mut lines = split(base);
    for (at, new) in edits {
        let at = at % (lines.len() + 1);
        match new {
            Some(line) => lines.insert(at, line),
            None if at < lines.len() => drop(lines.remove(at)),
            None => {}
        }
    }
    lines.concat()
}

/// Edits with lines of all endings.
fn text_edits() -> impl Strategy<Value = Vec<(usize, Option<&'static str>)>> {
    let line = prop_oneof![Just(None), Just(Some("\n")), Just(Some("x\r")), Just(Some("\r\n")), Just(Some("y\n"))];
    proptest::collection::vec((0usize..40, line), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_line_is_made_of_two(base in text(), a in text_edits(), b in text_edits()) {
        let (a, b) = (edited_text(&base, &a), edited_text(&base, &b));
        if let Some(out) = merged(&base, &a, &b) {
            let sides = [split(&a), split(&b)].concat();
            prop_assert!(split(&out).iter().all(|line| sides.contains(line)), "{base:?}: {a:?} and {b:?} gave {out:?}");
        }
    }

    #[test]
    fn a_side_that_changed_nothing_takes_the_other(base in text(), side in text()) {
        prop_assert_eq!(merged(&base, &side, &base), Some(side.clone()));
        prop_assert_eq!(merged(&base, &base, &side), Some(side.clone()));
        prop_assert_eq!(merged(&base, &side, &side), Some(side));
    }

    #[test]
    fn the_order_of_the_sides_does_not_matter(base in text(), a in text(), b in text()) {
        prop_assert_eq!(merged(&base, &a, &b), merged(&base, &b, &a));
    }

    #[test]
    fn every_line_of_either_side_is_there(count in 0usize..30, a in edits(), b in edits()) {
        let base: Vec<String> = (0..count).map(|n| format!("line {n}\n")).collect();
        let (a, b) = (edited(&base, &a, "a"), edited(&base, &b, "b"));
        if let Some(out) = merged(&base.concat(), &a.concat(), &b.concat()) {
            let out: Vec<String> = out.split_inclusive('\n').map(str::to_owned).collect();
            let expected: BTreeSet<&String> = a.iter().chain(&b).filter(|l| !base.contains(l) || (a.contains(l) && b.contains(l))).collect();
            prop_assert_eq!(out.iter().collect::<BTreeSet<_>>(), expected, "what both kept, and what each brought");
            for side in [&a, &b] {
                let kept: Vec<&String> = out.iter().filter(|l| side.contains(l)).collect();
                let in_order: Vec<&String> = side.iter().filter(|l| out.contains(l)).collect();
                prop_assert_eq!(kept, in_order, "in the order of each side");
            }
        }
    }

    #[test]
    fn devices_that_merge_on_their_own_agree(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(*act);
        }
        world.settle();
        world.check();
    }
}

fn manifest(text: &str) -> Manifest {
    let chunks = if text.is_empty() { vec![] } else { vec![ChunkRef { id: ChunkId::of(text.as_bytes()), len: text.len() as u32 }] };
    Manifest::new(ContentHash::of(text.as_bytes()), chunks).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// A replica puts a line in at this place of what it shows.
    Insert(usize, usize),
    /// A replica takes a line out.
    Remove(usize, usize),
    /// A replica hears another.
    Hear(usize, usize),
    /// A replica merges what it shows, if it may.
    Merge(usize),
}

const REPLICAS: usize = 3;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = prop_oneof![
        4 => (0..REPLICAS, 0usize..40).prop_map(|(who, at)| Act::Insert(who, at)),
        1 => (0..REPLICAS, 0usize..40).prop_map(|(who, at)| Act::Remove(who, at)),
        4 => (0..REPLICAS, 0..REPLICAS).prop_map(|(who, from)| Act::Hear(who, from)),
        2 => (0..REPLICAS).prop_map(Act::Merge),
    ];
    proptest::collection::vec(one, 0..40)
}

/// Replicas of one file, with the texts of all versions and what each event came from.
struct World {
    states: Vec<NodeState>,
    clocks: Vec<u64>,
    texts: BTreeMap<ContentHash, String>,
    before: BTreeMap<Dot, BTreeSet<Dot>>,
    written: u64,
    removed: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let place = Place { stamp: stamp(1, 0), parent: NodeId::ROOT, name: Name::new("f").unwrap() };
        let mut world = Self {
            states: vec![NodeState::new(place); REPLICAS],
            clocks: vec![1; REPLICAS],
            texts: BTreeMap::new(),
            before: BTreeMap::new(),
            written: 0,
            removed: BTreeSet::new(),
        };
        let text: String = (0..12).map(|n| format!("line {n}\n")).collect();
        world.write(0, &text, vec![], vec![]);
        (1..REPLICAS).for_each(|who| world.hear(who, 0));
        world
    }

    fn text(&self, file: &Manifest) -> &str {
        &self.texts[&file.hash()]
    }

    fn write(&mut self, who: usize, text: &str, replaces: Vec<Dot>, bases: Vec<Base>) {
        let content = Content::File(FileContent { bases, ..FileContent::new(manifest(text), 0) });
        self.put(who, content, text, &replaces);
    }

    fn put(&mut self, who: usize, content: Content, text: &str, replaces: &[Dot]) {
        self.clocks[who] += 1;
        self.texts.insert(ContentHash::of(text.as_bytes()), text.to_owned());
        let author = Author { device: DeviceId::from_bytes([who as u8; 16]), name: "D".into() };
        let dot = self.states[who].body().next_dot(replica(who));
        let past = replaces.iter().flat_map(|d| self.before[d].iter().copied().chain([*d])).collect();
        self.before.insert(dot, past);
        let value = Value { dot, stamp: stamp(self.clocks[who], who), content, author, wall_ms: 0 };
        self.states[who].body_mut().put(replaces, value);
    }

    fn edit(&mut self, who: usize, change: impl FnOnce(&mut Vec<String>, &mut u64, &mut BTreeSet<String>)) {
        let sides = shown(self.states[who].body());
        let (dots, file) = (sides[0].dots.clone(), sides[0].value.content.file().unwrap().manifest.clone());
        let mut lines: Vec<String> = self.text(&file).split_inclusive('\n').map(str::to_owned).collect();
        change(&mut lines, &mut self.written, &mut self.removed);
        let bases = bases(self.states[who].body(), &file, &dots);
        self.write(who, &lines.concat(), dots, bases);
    }

    fn hear(&mut self, who: usize, from: usize) {
        let heard = self.states[from].clone();
        self.states[who].join(&heard);
        self.clocks[who] = self.clocks[who].max(heard.max_counter());
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Insert(who, at) => self.edit(who, |lines, written, _| {
                *written += 1;
                lines.insert(at % (lines.len() + 1), format!("D{who} wrote {written}\n"));
            }),
            Act::Remove(who, at) => self.edit(who, |lines, _, removed| {
                if lines.len() > 1 {
                    removed.insert(lines.remove(at % lines.len()));
                }
            }),
            Act::Hear(who, from) => self.hear(who, from),
            Act::Merge(who) => _ = self.merge(who),
        }
    }

    fn merge(&mut self, who: usize) -> bool {
        let Some(found) = candidate(self.states[who].body()) else { return false };
        self.check_candidate(&found);
        let three = [&found.base.manifest, &found.newer.manifest, &found.older.manifest];
        let [base, newer, older] = three.map(|manifest| self.text(manifest).to_owned());
        let Some(text) = merged(&base, &newer, &older) else { return false };
        let content = merged_content(&found, self.states[who].body(), manifest(&text));
        self.put(who, content, &text, &found.replaces);
        true
    }

    /// The base is an event that both sides came from, or the very content of one side, which the other came from.
    fn check_candidate(&self, found: &Candidate) {
        let base = &found.base;
        let came_from_it = |file: &FileContent| {
            let dots = self.before.iter().filter(|(dot, past)| found.replaces.contains(dot) && past.contains(&base.dot));
            let is_equal = file.manifest == base.manifest;
            is_equal
                || dots
                    .into_iter()
                    .any(|(dot, _)| self.states.iter().any(|s| s.body().value(*dot).is_some_and(|v| v.content.file() == Some(file))))
        };
        assert!(came_from_it(&found.newer) && came_from_it(&found.older), "{found:?}");
    }

    /// Everybody hears everybody and merges until nothing changes: that is soon.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 12, "they merge without end");
            for who in 0..REPLICAS {
                (0..REPLICAS).for_each(|from| self.hear(who, from));
            }
            // All at once: nobody has heard the other's merge.
            let any = (0..REPLICAS).filter(|who| self.merge(*who)).count() > 0;
            if !any {
                break;
            }
        }
    }

    fn check(&self) {
        assert!(self.states.iter().all(|s| s == &self.states[0]), "all states are equal");
        let sides = shown(self.states[0].body());
        let shown: BTreeSet<&str> =
            sides.iter().flat_map(|s| self.text(&s.value.content.file().unwrap().manifest).split_inclusive('\n')).collect();
        let written = self.texts.values().flat_map(|t| t.split_inclusive('\n')).filter(|line| !self.removed.contains(*line));
        for line in written {
            assert!(shown.contains(line), "{line:?} is gone; nobody took it out");
        }
        for state in &self.states {
            assert!(state.body().values().iter().filter_map(|v| v.content.file()).all(|f| f.bases.len() <= BASES_MAX));
        }
    }
}

fn replica(who: usize) -> ReplicaId {
    ReplicaId::from_bytes([1 + who as u8; 16])
}

fn stamp(counter: u64, who: usize) -> Stamp {
    Stamp { counter, replica: replica(who) }
}

/// Who takes a change back writes the bytes of an older version. That is an edit, not a base.
#[test]
fn what_is_taken_back_stays_taken_back() {
    for taker in [0, 1] {
        let mut world = World::new();
        world.act(Act::Insert(0, 3));
        (1..REPLICAS).for_each(|who| world.hear(who, 0));
        let other = 1 - taker;
        world.edit(taker, |lines, _, removed| _ = removed.insert(lines.remove(3)));
        world.act(Act::Insert(other, 10));
        world.hear(2, 0);
        world.hear(2, 1);
        assert!(world.merge(2));
        let text = world.text(&shown(world.states[2].body())[0].value.content.file().unwrap().manifest).to_owned();
        assert!(!text.contains("wrote 1\n") && text.contains("wrote 2\n"), "{text}");
        world.settle();
        world.check();
    }
}

/// Two have merged the same, and one changed what came out where it was merged.
#[test]
fn who_goes_on_after_the_same_merge_is_followed() {
    let mut world = World::new();
    world.act(Act::Insert(0, 3));
    world.act(Act::Insert(1, 10));
    world.hear(0, 1);
    world.hear(1, 0);
    assert!(world.merge(0) && world.merge(1));
    world.edit(1, |lines, written, _| lines.iter_mut().filter(|l| l.contains("wrote")).for_each(|l| *l = format!("anew {written} {l}")));
    let text = world.text(&shown(world.states[1].body())[0].value.content.file().unwrap().manifest).to_owned();
    world.settle();
    let sides = shown(world.states[0].body());
    assert_eq!(sides.len(), 1);
    assert_eq!(world.text(&sides[0].value.content.file().unwrap().manifest), text);
}

/// A version that a device alone has edited a hundred times still names what the others saw last, or an event before it.
#[test]
fn many_edits_alone_keep_a_base() {
    let mut world = World::new();
    for _ in 0..5 {
        world.act(Act::Insert(0, 3));
    }
    (1..REPLICAS).for_each(|who| world.hear(who, 0));
    for _ in 0..100 {
        world.act(Act::Insert(0, 0));
    }
    world.act(Act::Insert(1, 17));
    world.hear(1, 0);
    assert!(world.merge(1), "{:?}", candidate(world.states[1].body()));
    world.settle();
    world.check();
    assert_eq!(shown(world.states[0].body()).len(), 1);
}
