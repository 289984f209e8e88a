//! What is read a part at a time is what the law of reading says of the whole (TS1): over histories of several replicas with twins, cycles, edits beside
//! deletions and nodes whose parents come later.

use super::super::derive::node_write;
use super::super::settle::{Reached, put_nodes, rows_and_stands};
use super::super::testing::{START_MS, World, manifest};
use super::super::tree::Tree;
use crate::service::content::{Entry, ListCursor, ListQuery, SearchCursor, SearchQuery, Sort};
use crate::service::{Caller, ServiceResult};
use crate::store::content::Scope;
use crate::store::search::Kind;
use crate::store::testing::{Db, on_each_store};
use crate::store::tree::Standing;
use ferry_protocol::read::States;
use ferry_protocol::wire::Role;
use ferry_protocol::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;

/// One act: of which replica, what, and three choices.
type Act = (usize, u8, usize, usize, usize);

const REPLICAS: usize = 3;
const NAMES: [&str; 5] = ["a", "b", "a.txt", "c", "a (conflicted copy, LAPTOP, 2026-11-22 10-30)"];

struct Replica {
    id: ReplicaId,
    states: States,
    counter: u64,
}

impl Replica {
    fn stamp(&mut self) -> Stamp {
        let known = self.states.values().map(NodeState::max_counter).max().unwrap_or(0);
        self.counter = self.counter.max(known) + 1;
        Stamp { counter: self.counter, replica: self.id }
    }

    fn put(&mut self, id: NodeId, content: node::Content, replaces_all: bool) {
        let stamp = self.stamp();
        let Some(state) = self.states.get_mut(&id) else { return };
        let dots: Vec<Dot> = state.body().values().iter().filter(|_| replaces_all).map(|v| v.dot).collect();
        let author = Author { device: DeviceId::default(), name: "LAPTOP".into() };
        let value = Value { dot: state.body().next_dot(self.id), stamp, content, author, wall_ms: START_MS };
        state.body_mut().put(&dots, value);
    }

    fn hear(&mut self, other: &States) {
        for (id, state) in other {
            match self.states.get_mut(id) {
                Some(mine) => _ = mine.join(state),
                None => _ = self.states.insert(*id, state.clone()),
            }
        }
    }

    fn pick(&self, n: usize) -> Option<NodeId> {
        self.states.keys().nth(n % self.states.len().max(1)).copied()
    }
}

fn content(n: usize) -> node::Content {
    match n % 5 {
        0 | 1 => node::Content::Dir,
        2 => node::Content::Symlink(b"there".as_slice().into()),
        n => node::Content::File(FileContent::new(manifest(&[&[7; 9][..n]]), 1)),
    }
}

/// What the relay is told: as a commit does it, with nodes whose parents it does not know too.
async fn tell(world: &World, caller: &Caller, namespace: NamespaceId, updates: &States) {
    let mut tx = world.content.meta.begin(Scope::Namespace(namespace)).await.unwrap();
    let row = tx.namespace_for(namespace, caller.user_id).await.unwrap().unwrap();
    let ids: Vec<NodeId> = updates.keys().copied().collect();
    let (current, stands) = rows_and_stands(tx.placed(namespace, &ids).await.unwrap());
    let (mut writes, mut head_seq) = (Vec::new(), row.head_seq);
    for (id, update) in updates {
        let before = current.get(id).map(|row| &row.state);
        let mut state = before.unwrap_or(update).clone();
        if before.is_some() && !state.join(update) {
            continue;
        }
        head_seq += 1;
        writes.push(node_write(*id, head_seq, state, before, None));
    }
    // Some changes share their time, so that names decide between them.
    let reached = Reached { head_seq, max_counter: row.max_counter, now_ms: START_MS + (head_seq / 4) as i64 };
    put_nodes(&mut *tx, &row, &writes, stands, reached).await.unwrap();
    tx.commit().await.unwrap();
}

async fn list(world: &World, home: &Entry, mut query: ListQuery) -> ServiceResult<Vec<crate::service::content::FileInfo>> {
    let mut all = Vec::new();
    loop {
        let page = world.content.list_files(home, &query).await?;
        all.extend(page.files);
        let Some(next) = page.next else { return Ok(all) };
        assert_eq!(ListCursor::parse(&next.to_text()), Some(next.clone()));
        query.after = Some(next);
        assert!(all.len() < 10_000, "pages without an end");
    }
}

/// Everything that is read a part at a time, against the whole.
pub(super) async fn compare(world: &World, home: &Entry, what: &dyn std::fmt::Debug) {
    let namespace = home.namespace();
    let law = Tree::new(world.content.meta.all_nodes(namespace).await.unwrap().nodes);
    let view = world.content.view(namespace);
    let mut of_nodes: BTreeMap<NodeId, &RelPath> = BTreeMap::new();
    for (path, entry) in &law.entries {
        let shown = view.at(path).await.unwrap().unwrap_or_else(|| panic!("nothing at {path}: {what:?}"));
        assert_eq!((&shown.entry, &shown.path, shown.times), (entry, path, law.rows[&entry.node]), "{what:?}");
        let own = std::iter::once((entry.node, entry.copy)).chain(entry.twins.iter().map(|(node, copy, _)| (*node, *copy)));
        of_nodes.extend(own.filter(|(_, copy)| copy.is_none()).map(|(node, _)| (node, path)));
        assert!(view.at(&path.join(&Name::new("nothing").unwrap())).await.unwrap().is_none());
    }
    let ids: Vec<NodeId> = law.rows.keys().copied().collect();
    let found = view.of_nodes(&ids).await.unwrap();
    assert_eq!(found.iter().map(|(id, s)| (*id, &s.path)).collect::<BTreeMap<_, _>>(), of_nodes, "{what:?}");
    shown_to_others(world, home, &law).await;
    let mut directories: Vec<Option<RelPath>> = vec![None, Some(RelPath::root())];
    directories.extend(law.entries.iter().filter(|(_, e)| e.content.is_dir()).map(|(path, _)| Some(path.clone())));
    for directory in directories {
        for (sort, descending, limit) in
            [(Sort::Name, false, 2), (Sort::Name, true, 3), (Sort::Size, false, 2), (Sort::Modified, true, 2), (Sort::Size, true, 1000)]
        {
            let is_in = |path: &RelPath| directory.as_ref().is_none_or(|d| path.split_last().is_some_and(|(parent, _)| parent == *d));
            let mut wanted: Vec<(&RelPath, &read::Entry)> = law.entries.iter().filter(|(path, _)| is_in(path)).collect();
            wanted.sort_by_key(|(path, entry)| match sort {
                Sort::Name => (0, (*path).clone()),
                Sort::Size => (entry.content.file().map_or(0, |f| f.manifest.size() as i64), (*path).clone()),
                Sort::Modified => (law.rows[&entry.node].updated_at_ms, (*path).clone()),
            });
            if descending {
                wanted.reverse();
            }
            let query = ListQuery { directory: directory.clone(), sort, descending, after: None, limit };
            let files = list(world, home, query).await.unwrap();
            let is_same = files.len() == wanted.len()
                && files
                    .iter()
                    .zip(&wanted)
                    .all(|(f, (path, e))| f.path == **path && f.node == e.node && f.content == e.content && f.is_conflict == e.is_conflict);
            let paths: Vec<&RelPath> = files.iter().map(|f| &f.path).collect();
            let law: Vec<&RelPath> = wanted.iter().map(|(path, _)| *path).collect();
            assert!(is_same, "{directory:?} by {sort:?}, falling {descending}:\n read {paths:?}\n law  {law:?}\n of {what:?}");
        }
    }
}

/// What WebDAV, links and archives show of each directory, against the whole.
async fn shown_to_others(world: &World, home: &Entry, law: &Tree) {
    let is_link = |e: &read::Entry| matches!(e.content, node::Content::Symlink(_));
    let mut directories = vec![RelPath::root()];
    directories.extend(law.entries.iter().filter(|(_, e)| e.content.is_dir()).map(|(path, _)| path.clone()));
    for directory in directories {
        let depth = directory.names().len();
        let below: Vec<(&RelPath, &read::Entry)> =
            law.entries.iter().filter(|(path, e)| path.names().len() > depth && path.starts_with(&directory) && !is_link(e)).collect();
        let inside: Vec<&RelPath> = below.iter().filter(|(path, _)| path.names().len() == depth + 1).map(|(path, _)| *path).collect();
        let listed = world.content.dav_list(home, &directory).await.unwrap();
        assert_eq!(listed.iter().map(|e| &e.path).collect::<Vec<_>>(), inside, "WebDAV in {directory}");
        let public = world.content.public_list(home, &directory).await.unwrap();
        let names = |all: Vec<Vec<u8>>| all.into_iter().collect::<std::collections::BTreeSet<Vec<u8>>>();
        let last = |path: &RelPath| path.names().last().unwrap().as_bytes().to_vec();
        assert_eq!(names(public.into_iter().map(|i| i.name).collect()), names(inside.iter().map(|p| last(p)).collect()), "{directory}");
        let with_links = law.entries.keys().filter(|path| path.names().len() > depth && path.starts_with(&directory)).count();
        for most in [0, with_links.saturating_sub(1), with_links] {
            assert_eq!(world.content.dav_has_more_than(home, &directory, most).await.unwrap(), with_links > most, "{directory}");
        }
        let archive = world.content.public_archive(home, &directory).await.unwrap();
        let with_itself = usize::from(depth > 0) + usize::from(with_links > below.len());
        assert_eq!(archive.len(), below.len() + with_itself, "an archive of {directory}");
    }
}

/// Every page of a search, joined.
async fn search(world: &World, caller: &Caller, mut query: SearchQuery) -> Vec<(RelPath, NodeId)> {
    let mut all = Vec::new();
    loop {
        let page = world.content.search(caller, &query, &[]).await.unwrap();
        all.extend(page.found.into_iter().map(|f| (f.info.path, f.info.node)));
        let Some(next) = page.next else { return all };
        assert_eq!(SearchCursor::parse(&next.to_text()).unwrap(), next);
        query.after = Some(next);
        assert!(all.len() < 10_000, "pages without an end");
    }
}

/// SQ1: a search finds what the law shows, best first, each entry once.
async fn compare_search(world: &World, caller: &Caller, home: &Entry, what: &dyn std::fmt::Debug) {
    let namespace = home.namespace();
    let law = Tree::new(world.content.meta.all_nodes(namespace).await.unwrap().nodes);
    let mut directories = vec![RelPath::root()];
    directories.extend(law.entries.iter().filter(|(_, e)| e.content.is_dir()).map(|(path, _)| path.clone()));
    for (text, limit) in [("a", 2), ("A.TXT", 1000), ("laptop copy", 1), ("b", 3), ("t", 1000)] {
        for directory in &directories {
            for kind in [Kind::Any, Kind::Directory, Kind::File, Kind::Ending(&[".txt"])] {
                let mut wanted: Vec<_> = Vec::new();
                for (path, entry) in law.entries.iter().filter(|(path, _)| path != &directory && path.starts_with(directory)) {
                    let name = String::from_utf8_lossy(entry.name.as_bytes()).to_lowercase();
                    let is_kind = match kind {
                        Kind::Any | Kind::Symlink => true,
                        Kind::Directory => entry.content.is_dir(),
                        Kind::File => entry.content.file().is_some(),
                        Kind::Ending(_) => entry.content.file().is_some() && name.ends_with(".txt"),
                    };
                    let typed = text.to_lowercase();
                    if is_kind && typed.split(' ').all(|word| name.contains(word)) {
                        let is_it = name == typed || name.strip_prefix(&format!("{typed}.")).is_some_and(|rest| !rest.contains('.'));
                        let rank = if is_it { 0 } else { 2 - u8::from(name.starts_with(&typed)) };
                        wanted.push(((rank, -law.rows[&entry.node].updated_at_ms, entry.node), path.clone()));
                    }
                }
                wanted.sort();
                let wanted: Vec<(RelPath, NodeId)> = wanted.into_iter().map(|((_, _, node), path)| (path, node)).collect();
                let query = SearchQuery {
                    text: text.into(),
                    space: Some(namespace),
                    directory: Some(directory.clone()),
                    kind,
                    limit,
                    ..SearchQuery::default()
                };
                let found = search(world, caller, query).await;
                assert_eq!(found, wanted, "'{text}' in {directory}, {kind:?}: {what:?}");
            }
        }
    }
}

/// One history, compared each time after the relay was told something.
/// Returns how many nodes were contested and how many displaced in the end.
async fn play(world: &World, caller: &Caller, acts: &[Act]) -> (usize, usize) {
    let namespace = world.content.create_namespace(caller, None, "history").await.unwrap().id;
    let home = world.content.enter(caller, namespace, Role::Owner).await.unwrap();
    let replica = |n: usize| Replica { id: ReplicaId::from_bytes([n as u8 + 1; 16]), states: States::new(), counter: 0 };
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(replica).collect();
    for (who, what, a, b, c) in acts {
        let one = &mut replicas[*who];
        let name = Name::new(NAMES[c % NAMES.len()]).unwrap();
        let parent = one.pick(*b).filter(|_| b % 4 != 0).unwrap_or(NodeId::ROOT);
        match what {
            0..=5 => {
                let (id, stamp) = (NodeId::from_bytes(world.id()), one.stamp());
                one.states.insert(id, NodeState::new(Place { stamp, parent, name }));
                one.put(id, content(*a), true);
            }
            6..=9 => {
                let (Some(id), stamp) = (one.pick(*a), one.stamp()) else { continue };
                one.states.get_mut(&id).unwrap().move_to(Place { stamp, parent, name });
            }
            10..=12 => {
                if let Some(id) = one.pick(*a) {
                    one.put(id, content(*c), b % 8 != 0);
                }
            }
            13 | 14 => {
                if let Some(id) = one.pick(*a) {
                    one.put(id, node::Content::Tombstone, true);
                }
            }
            15 => {
                let all = world.content.meta.all_nodes(namespace).await.unwrap().nodes;
                one.hear(&all.into_iter().map(|row| (row.id, row.state)).collect());
            }
            // All, or every other node.
            _ => {
                let is_told = |n: usize| a % 3 != 0 || n % 2 == b % 2;
                let told = one.states.iter().enumerate().filter(|(n, _)| is_told(*n)).map(|(_, (id, s))| (*id, s.clone()));
                let told: States = told.collect();
                tell(world, caller, namespace, &told).await;
                compare(world, &home, &acts).await;
                compare_search(world, caller, &home, &acts).await;
            }
        }
    }
    // A release that does not know of standings has written in between: nothing of them can be believed.
    let mut tx = world.content.meta.begin(Scope::Namespace(namespace)).await.unwrap();
    let ids: Vec<NodeId> = tx.all_nodes(namespace).await.unwrap().iter().map(|row| row.id).collect();
    let mut stands = tx.stands(namespace, &ids).await.unwrap();
    let contested = stands.iter().filter(|s| s.standing == Standing::Contested).count();
    let displaced = stands.iter().filter(|s| s.is_displaced).count();
    for (n, stand) in stands.iter_mut().enumerate() {
        stand.standing = [Standing::Plain, Standing::Hidden, Standing::Contested][n % 3];
        (stand.parent, stand.is_displaced) = (NodeId::ROOT, false);
    }
    tx.set_stands(namespace, &stands).await.unwrap();
    tx.set_settled(namespace, i64::MAX as u64).await.unwrap();
    tx.commit().await.unwrap();
    let home = world.content.enter(caller, namespace, Role::Owner).await.unwrap();
    compare(world, &home, &acts).await;
    compare_search(world, caller, &home, &acts).await;
    (contested, displaced)
}

async fn histories(kind: Db, number: u32) {
    let world = World::on(kind).await;
    let caller = world.user(None).await;
    let mut runner = TestRunner::deterministic();
    let act = (0..REPLICAS, 0u8..19, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let act = act.prop_map(|(who, what, a, b, c)| (who, what, a.index(1000), b.index(1000), c.index(1000)));
    let acts = prop::collection::vec(act, 10..60);
    let mut seen = (0, 0);
    for _ in 0..number {
        let (contested, displaced) = play(&world, &caller, &acts.new_tree(&mut runner).unwrap().current()).await;
        seen = (seen.0 + usize::from(contested > 0), seen.1 + usize::from(displaced > 0));
    }
    assert!(seen.0 >= 5 && seen.1 >= 5, "histories without conflicts ({}) or without cycles ({}) say little", seen.0, seen.1);
}

on_each_store!(pages_are_what_the_law_says);

async fn pages_are_what_the_law_says(kind: Db) {
    histories(kind, 40).await;
}
