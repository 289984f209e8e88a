//! What becomes of a node when its folder goes back to a time: decided from its history alone, without touching anything.
//!
//! A node may show several values: its own content, and conflicted copies beside it. What it showed then is what it is to show, with two limits:
//!
//! * **RW4** With a choice of devices only values that one of them wrote go. If somebody else's that came later stands, nothing older is put over it.
//! * **RW5** Where it was not kept yet which copies stood beside a content, the copies that stand now stay.

use super::rewind::{RewindCounts, RewindWish};
use crate::store::content::{Before, BeforeKind, Changed, VersionRow};
use ferry_protocol::limits::VALUES_MAX;
use ferry_protocol::{Body, DeviceId, Dot, Name, NodeId, Value, node, read};

/// What is to be done to a node, if anything, before its contents are looked up.
#[derive(Debug)]
pub(super) enum Decision<'c> {
    Nothing,
    /// Somebody else has changed it since (RW3).
    KeptForOthers,
    Back {
        place: Option<(NodeId, Name)>,
        /// What it showed; nothing for something that came later.
        before: Option<&'c Before>,
    },
}

/// A content that a node is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What a directory or link is, or what stands in the state.
    Content(node::Content),
    /// A kept version, whose chunks are read when it is put back.
    Version(VersionRow),
}

impl Wanted {
    /// Whether a value shows this already, whoever wrote it (CR1).
    pub fn is_shown_by(&self, content: &node::Content) -> bool {
        match self {
            Self::Content(wanted) => wanted == content,
            Self::Version(row) => content.file().is_some_and(|f| f.manifest.hash() == row.hash && f.manifest.size() == row.size_bytes),
        }
    }
}

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put {
    pub replaces: Vec<Dot>,
    pub wanted: Wanted,
}

/// What is to be done to what a node shows: values that go without another in their place, then values to write, the node's own last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub settles: Vec<Dot>,
    pub puts: Vec<Put>,
    /// Whether it shows nothing afterwards.
    pub is_removal: bool,
}

/// What is to be done to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub place: Option<(NodeId, Name)>,
    pub change: Option<Change>,
    pub was_deleted: bool,
    /// Contents that it showed and that are not kept.
    pub not_kept: u64,
}

impl Task {
    /// Whether anything is to be done.
    pub fn is_any(&self) -> bool {
        self.place.is_some() || self.change.is_some()
    }

    pub fn acts(&self) -> Vec<&'static str> {
        let content = self.change.as_ref().map(|change| match self.was_deleted {
            _ if change.is_removal => "removed",
            true => "restored",
            false => "reverted",
        });
        let not_kept = (self.not_kept > 0).then_some("not_kept");
        content.into_iter().chain(self.place.as_ref().map(|_| "moved")).chain(not_kept).collect()
    }

    pub fn count(&self, counts: &mut RewindCounts) {
        counts.not_kept += self.not_kept;
        for act in self.acts() {
            match act {
                "removed" => counts.removed += 1,
                "restored" => counts.restored += 1,
                "reverted" => counts.reverted += 1,
                "moved" => counts.moved += 1,
                _ => {}
            }
        }
    }
}

fn is_chosen(wish: &RewindWish, device: Option<DeviceId>) -> bool {
    wish.only_by.as_ref().is_none_or(|set| device.is_some_and(|d| set.contains(&d)))
}

/// Which way a node goes (RW3).
pub(super) fn decide<'c>(changed: &'c Changed, wish: &RewindWish) -> Decision<'c> {
    let state = &changed.row.state;
    let is_new = changed.row.created_at_ms > wish.to_ms;
    if is_new && wish.only_by.is_none() {
        return Decision::Back { place: None, before: None };
    }
    let Some(first) = &changed.first else { return Decision::Nothing };
    if !changed.last.as_ref().is_some_and(|last| is_chosen(wish, last.changed_by)) {
        return Decision::KeptForOthers;
    }
    let before = &first.before;
    let here = &state.places()[0];
    // Also of what was deleted: a directory is shown as long as something in it lives.
    // What a new node was before it was made stood nowhere.
    let stood = !(is_new && before.kind == BeforeKind::Deleted);
    let moved = stood && (here.parent != before.parent || here.name != before.name);
    Decision::Back { place: moved.then(|| (before.parent, before.name.clone())), before: Some(before) }
}

/// Which events wrote what a node showed: its own content first. `None` stands for what has no event: a directory or a link.
pub(super) fn dots_of(before: &Before) -> Vec<Option<Dot>> {
    let own = match before.kind {
        BeforeKind::Deleted => return Vec::new(),
        BeforeKind::Directory | BeforeKind::Symlink => None,
        BeforeKind::File => before.dot,
    };
    std::iter::once(own).chain(before.copies.iter().flatten().map(|dot| Some(*dot))).collect()
}

/// What takes a body to showing `wanted`, the node's own content first. `Err` if somebody else's work keeps it as it is.
pub(super) fn change(
    body: &Body,
    mut wanted: Vec<Wanted>,
    before: Option<&Before>,
    wish: &RewindWish,
) -> Result<Option<Change>, KeptForOthers> {
    let shown = read::shown(body);
    if before.is_some_and(|b| b.copies.is_none()) {
        // RW5
        wanted.extend(shown.iter().skip(1).map(|s| Wanted::Content(s.value.content.clone())));
    }
    let is_wanted = |content: &node::Content| wanted.iter().any(|w| w.is_shown_by(content));
    let living = |dots: &[Dot]| -> Vec<Dot> { dots.iter().copied().filter(|d| is_living(body, *d)).collect() };
    let may_go = |dots: &[Dot]| dots.iter().filter_map(|d| body.value(*d)).all(|v| is_chosen(wish, Some(v.author.device)));
    let (stay, go): (Vec<_>, Vec<_>) = shown.iter().partition(|s| is_wanted(&s.value.content) || !may_go(&living(&s.dots)));
    let settles: Vec<Dot> = go.iter().flat_map(|s| living(&s.dots)).collect();
    if stay.iter().any(|s| !is_wanted(&s.value.content)) {
        // RW4
        let change = Change { settles, ..Change::default() };
        return if change.settles.is_empty() { Err(KeptForOthers) } else { Ok(Some(change)) };
    }
    let tombstones = || body.values().iter().filter(|v| v.content.is_tombstone()).map(|v| v.dot);
    let Some(own) = wanted.first() else {
        let gone = || Put { replaces: tombstones().collect(), wanted: Wanted::Content(node::Content::Tombstone) };
        return Ok((!settles.is_empty()).then(|| Change { puts: vec![gone()], settles, is_removal: true }));
    };
    let mut change = Change { settles, ..Change::default() };
    let is_shown = |w: &Wanted| stay.iter().any(|s| w.is_shown_by(&s.value.content));
    let room = VALUES_MAX.saturating_sub(body.values().len() + 1);
    let copies = wanted.iter().skip(1).filter(|w| !is_shown(w)).take(room);
    change.puts.extend(copies.map(|w| Put { replaces: Vec::new(), wanted: w.clone() }));
    // The highest stamp keeps the name: what is put back as a copy must not take it.
    let keeps_name = stay.first().is_some_and(|s| own.is_shown_by(&s.value.content)) && change.puts.is_empty();
    if !keeps_name {
        let equal = stay.iter().filter(|s| own.is_shown_by(&s.value.content)).flat_map(|s| living(&s.dots));
        change.puts.push(Put { replaces: equal.chain(tombstones()).collect(), wanted: own.clone() });
    }
    Ok((change != Change::default()).then_some(change))
}

/// Somebody else's work stands, and nothing of it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptForOthers;

fn is_living(body: &Body, dot: Dot) -> bool {
    body.value(dot).is_some_and(|v: &Value| !v.content.is_tombstone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::{Author, ContentHash, FileContent, Manifest, ReplicaId, Stamp};

    fn file(bytes: &[u8]) -> node::Content {
        let chunk = ferry_protocol::ChunkRef { id: ferry_protocol::ChunkId::of(bytes), len: bytes.len() as u32 };
        node::Content::File(FileContent::new(Manifest::new(ContentHash::of(bytes), vec![chunk]).unwrap(), 0))
    }

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 16])
    }

    /// A body with a value by each of these devices; the later, the higher its stamp.
    fn body(values: &[(u8, node::Content)]) -> Body {
        let mut body = Body::default();
        for (at, (who, content)) in values.iter().enumerate() {
            let replica = ReplicaId::from_bytes([*who; 16]);
            let (dot, stamp) = (body.next_dot(replica), Stamp { counter: at as u64, replica });
            let author = Author { device: device(*who), name: "D".into() };
            body.put(&[], Value { dot, stamp, content: content.clone(), author, wall_ms: 0 });
        }
        body
    }

    /// What a body shows once all is done, its own content first.
    fn after(body: &Body, change: &Change) -> Vec<node::Content> {
        let mut body = body.clone();
        body.settle(&change.settles);
        for (n, put) in change.puts.iter().enumerate() {
            let replica = ReplicaId::from_bytes([0xEE; 16]);
            let (dot, stamp) = (body.next_dot(replica), Stamp { counter: 1000 + n as u64, replica });
            let Wanted::Content(content) = put.wanted.clone() else { panic!("a version") };
            body.put(&put.replaces, Value { dot, stamp, content, author: Author { device: device(0xEE), name: "web".into() }, wall_ms: 0 });
        }
        read::shown(&body).iter().map(|s| s.value.content.clone()).collect()
    }

    fn before(copies: Option<Vec<Dot>>) -> Before {
        let (kind, dot) = (BeforeKind::File, Some(Dot { replica: ReplicaId::default(), counter: 1 }));
        Before { parent: NodeId::ROOT, name: Name::new("n").unwrap(), kind, link_target: None, dot, copies }
    }

    fn go(
        body: &Body,
        wanted: &[node::Content],
        copies_are_known: bool,
        by: Option<u8>,
    ) -> Result<Option<Vec<node::Content>>, KeptForOthers> {
        let wish = RewindWish { to_ms: 0, only_by: by.map(|n| [device(n)].into()) };
        let wanted = wanted.iter().cloned().map(Wanted::Content).collect();
        let before = before(copies_are_known.then(Vec::new));
        change(body, wanted, Some(&before), &wish).map(|change| change.map(|change| after(body, &change)))
    }

    #[test]
    fn what_is_shown_afterwards_is_what_was() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| file(bytes));
        let gone = node::Content::Tombstone;
        let bodies = [
            vec![(1, a.clone())],
            vec![(1, gone.clone())],
            vec![(1, a.clone()), (2, b.clone())],
            vec![(2, b.clone()), (1, a.clone())],
            vec![(1, c.clone()), (2, a.clone()), (3, gone), (4, node::Content::Dir)],
            vec![(1, a.clone()), (2, a.clone()), (3, c.clone())],
        ];
        for values in bodies {
            let body = body(&values);
            for wanted in
                [vec![], vec![a.clone()], vec![a.clone(), b.clone()], vec![b.clone(), a.clone(), c.clone()], vec![node::Content::Dir]]
            {
                let shown: Vec<_> = read::shown(&body).iter().map(|s| s.value.content.clone()).collect();
                let got = go(&body, &wanted, true, None).unwrap();
                let same =
                    |x: &[node::Content]| x.first() == wanted.first() && x.len() == wanted.len() && wanted.iter().all(|w| x.contains(w));
                match got {
                    Some(shown) => assert!(same(&shown), "{values:?} to {wanted:?} shows {shown:?}"),
                    None => assert!(same(&shown), "{values:?} to {wanted:?} needs a change"),
                }
            }
        }
    }

    #[test]
    fn of_what_others_wrote_nothing_goes() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| file(bytes));
        let both = body(&[(1, b.clone()), (2, c.clone())]);
        assert_eq!(go(&both, std::slice::from_ref(&a), true, Some(2)), Ok(Some(vec![b.clone()])));
        assert_eq!(go(&both, &[], true, Some(2)), Ok(Some(vec![b.clone()])));
        assert_eq!(go(&both, std::slice::from_ref(&a), true, Some(3)), Err(KeptForOthers));
        assert_eq!(
            go(&both, &[a.clone(), b.clone()], true, Some(2)),
            Ok(Some(vec![a.clone(), b.clone()])),
            "what was there is no work since"
        );
        let equal = body(&[(1, b.clone()), (2, b.clone())]);
        assert_eq!(go(&equal, &[a], true, Some(2)), Err(KeptForOthers), "both wrote it");
    }

    #[test]
    fn copies_of_which_nothing_is_known_stay() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| file(bytes));
        let both = body(&[(1, b.clone()), (2, c.clone())]);
        assert_eq!(go(&both, std::slice::from_ref(&a), false, None), Ok(Some(vec![a.clone(), b])));
        assert_eq!(go(&both, std::slice::from_ref(&a), true, None), Ok(Some(vec![a])));
    }
}
