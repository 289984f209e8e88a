//! L23: what a hostile or infected device did to a folder is taken back in one operation, however far it came before it was ended.

use super::refs::ended;
use crate::clock::Clock;
use crate::service::Kind;
use crate::service::content::testing::{World, Writer, manifest};
use crate::service::content::{Entry, FileInfo, FileUpdate, ListQuery, RewindCounts, RewindWish};
use ferry_protocol::wire::{CommitReply, NodeUpdate, Role};
use ferry_protocol::{ContentHash, DeviceId, FileContent, NodeId, node, read};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn file(bytes: &[u8]) -> node::Content {
    node::Content::File(FileContent::new(manifest(&[bytes]), 1))
}

async fn commit(world: &World, home: &Entry, nodes: Vec<NodeUpdate>, chunks: &[&[u8]]) {
    let reply = world.content.commit(home, world.request(nodes, chunks, u64::MAX)).await.unwrap();
    assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
}

/// Every path with the hash of its content.
async fn shown(world: &World, home: &Entry) -> BTreeMap<String, Option<ContentHash>> {
    let page = world.content.list_files(home, &ListQuery { limit: 1000, ..Default::default() }).await.unwrap();
    assert!(page.next.is_none());
    page.files.iter().map(|f| (f.path.to_string(), f.content.file().map(|c| c.manifest.hash()))).collect()
}

/// Every path with the hash of its content; a conflicted copy by its node only, as one that is put back is named after who did that.
async fn shown_loosely(world: &World, home: &Entry) -> BTreeSet<(String, Option<ContentHash>)> {
    let page = world.content.list_files(home, &ListQuery { limit: 1000, ..Default::default() }).await.unwrap();
    let name = |f: &FileInfo| if f.is_conflict { format!("copy of {}", f.node) } else { f.path.to_string() };
    page.files.iter().map(|f| (name(f), f.content.file().map(|c| c.manifest.hash()))).collect()
}

async fn state(world: &World, home: &Entry, id: NodeId) -> NodeUpdate {
    let row = world.content.meta.nodes(home.namespace(), &[id]).await.unwrap().remove(0);
    NodeUpdate { id, state: row.state }
}

fn now(world: &World) -> i64 {
    world.clock.now_ms()
}

fn all(to_ms: i64) -> RewindWish {
    RewindWish { to_ms, only_by: None }
}

/// Alice's folder, with Mallory as an editor whose device is in wrong hands.
struct Scene {
    world: World,
    home: Entry,
    mallory: Entry,
    anna: Writer,
    evil: Writer,
    directory: NodeId,
    a: NodeId,
    b: NodeId,
    good_ms: i64,
    good: BTreeMap<String, Option<ContentHash>>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let (alice, mallory) = (world.user(None).await, world.user(None).await);
        let home = world.home(&alice).await;
        let shared = world.share(&home, &mallory, Role::Editor).await;
        let (mut anna, evil) = (world.writer(&alice), world.writer(&mallory));
        let directory = anna.node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
        let a = anna.node_in(directory.id, NodeId::from_bytes(world.id()), "a.txt", file(b"aaa"));
        let b = anna.node_in(directory.id, NodeId::from_bytes(world.id()), "b.txt", file(b"bbb"));
        let link = anna.node_in(directory.id, NodeId::from_bytes(world.id()), "link", node::Content::Symlink((*b"a.txt").into()));
        let ids = (directory.id, a.id, b.id);
        commit(&world, &home, vec![directory, a, b, link], &[b"aaa", b"bbb"]).await;
        world.clock.advance_ms(10);
        let (good_ms, good) = (now(&world), shown(&world, &home).await);
        world.clock.advance_ms(10);
        Self { world, home, mallory: shared, anna, evil, directory: ids.0, a: ids.1, b: ids.2, good_ms, good }
    }

    /// Everything is encrypted, renamed, deleted, and there is a note.
    async fn attack(&mut self) {
        let Self { world, mallory, evil, .. } = self;
        let a = state(world, mallory, self.a).await;
        evil.counter = evil.counter.max(a.state.max_counter());
        let crypt = evil.edit(&a, &[b"x8f2"]);
        let locked = evil.moved(&crypt, self.directory, "a.txt.locked");
        let note = evil.node(NodeId::from_bytes(world.id()), "PAY ME", file(b"pay"));
        commit(world, mallory, vec![locked, note], &[b"x8f2", b"pay"]).await;
        world.clock.advance_ms(5);
        let gone = [self.b, self.directory];
        for id in gone {
            let update = state(world, mallory, id).await;
            let deleted = evil.deleted(&update);
            commit(world, mallory, vec![deleted], &[]).await;
            world.clock.advance_ms(5);
        }
    }

    fn evil_device(&self) -> DeviceId {
        self.mallory.caller().device_id.unwrap()
    }
}

#[tokio::test]
async fn everything_is_taken_back_in_one_operation_and_that_too() {
    let mut scene = Scene::new().await;
    scene.attack().await;
    let Scene { world, home, .. } = &scene;
    let attacked = shown(world, home).await;
    let plan = world.content.rewind_plan(home, &all(scene.good_ms), None, 100).await.unwrap();
    let expected = RewindCounts { restored: 2, reverted: 1, moved: 1, removed: 1, ..Default::default() };
    assert_eq!(plan.counts, expected);
    assert_eq!((plan.entries.len(), plan.next), (4, None));
    let locked = plan.entries.iter().find(|e| e.node == scene.a).unwrap();
    assert_eq!((locked.path.as_str(), &locked.acts[..]), ("d/a.txt.locked", &["reverted", "moved"][..]));
    assert_eq!(shown(world, home).await, attacked, "a plan changes nothing");
    let first = world.content.rewind_plan(home, &all(scene.good_ms), None, 3).await.unwrap();
    let second = world.content.rewind_plan(home, &all(scene.good_ms), first.next, 3).await.unwrap();
    assert_eq!([first.entries, second.entries].concat(), plan.entries);

    let id = world.id();
    let done = world.content.rewind(home, id, &all(scene.good_ms)).await.unwrap();
    assert!(done.is_finished);
    assert_eq!(done.counts, expected);
    assert_eq!(shown(world, home).await, scene.good);
    // Asked again, it says what it did, also when somebody has worked on since.
    world.clock.advance_ms(10);
    world.content.update_file(home, scene.b, &FileUpdate { name: Some("c.txt".into()), ..Default::default() }).await.unwrap();
    let worked_on = shown(world, home).await;
    assert_eq!(world.content.rewind(home, id, &all(scene.good_ms)).await.unwrap(), done);
    assert_eq!(shown(world, home).await, worked_on);
    let other = world.content.rewind(home, id, &all(scene.good_ms - 1)).await.unwrap_err();
    assert_eq!(other.code(), "rewind_id_reused");
    // It is made of edits, and is itself taken back.
    world.content.rewind(home, world.id(), &all(done.started_at_ms - 1)).await.unwrap();
    assert_eq!(shown(world, home).await, attacked);
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

#[tokio::test]
async fn only_what_one_device_did_is_taken_back() {
    let mut scene = Scene::new().await;
    // Anna goes on working before and after.
    let mine = scene.anna.node(NodeId::from_bytes(scene.world.id()), "mine", file(b"mine"));
    commit(&scene.world, &scene.home, vec![mine.clone()], &[b"mine"]).await;
    scene.world.clock.advance_ms(5);
    scene.attack().await;
    scene.world.content.restore(&scene.home, scene.b).await.unwrap();
    scene.world.clock.advance_ms(5);
    let Scene { world, home, .. } = &scene;
    for (name, wanted) in [("LAPTOP", "ambiguous"), ("PHONE", "no_such_author")] {
        let refused = world.content.rewind_authors(home, Some(name), None).await.unwrap_err();
        assert_eq!(refused.code(), wanted, "{name}");
    }
    let by_id = world.content.rewind_authors(home, Some(&scene.evil_device().to_string()), None).await.unwrap();
    let email = format!("{}@example.org", scene.mallory.caller().user_id);
    let by_user = world.content.rewind_authors(home, None, Some(&email)).await.unwrap();
    assert!(by_id.contains(&scene.evil_device()) && by_id == by_user);
    let wish = RewindWish { to_ms: scene.good_ms, only_by: Some(by_id) };
    let done = world.content.rewind(home, world.id(), &wish).await.unwrap();
    let expected = RewindCounts { restored: 1, reverted: 1, moved: 1, removed: 1, kept_for_others: 1, ..Default::default() };
    assert_eq!(done.counts, expected, "what somebody else has brought back since stays as it is");
    let mut good = scene.good.clone();
    good.insert("mine".into(), Some(ContentHash::of(b"mine")));
    assert_eq!(shown(world, home).await, good);
}

/// What others have made since the time is given back as they made it, whatever was done to it.
#[tokio::test]
async fn what_others_made_meanwhile_is_given_back_too() {
    let mut scene = Scene::new().await;
    let Scene { world, home, mallory, anna, evil, .. } = &mut scene;
    let [over, gone] = ["over", "gone"].map(|name| anna.node(NodeId::from_bytes(world.id()), name, file(name.as_bytes())));
    commit(world, home, vec![over.clone(), gone.clone()], &[b"over", b"gone"]).await;
    world.clock.advance_ms(5);
    let wanted = shown(world, home).await;
    evil.counter = evil.counter.max(anna.counter);
    let harm = [evil.edit(&over, &[b"x8f2"]), evil.deleted(&gone)];
    commit(world, mallory, harm.to_vec(), &[b"x8f2"]).await;
    let note = evil.node(NodeId::from_bytes(world.id()), "PAY ME", file(b"pay"));
    commit(world, mallory, vec![note.clone()], &[b"pay"]).await;
    commit(world, mallory, vec![evil.moved(&note, NodeId::ROOT, "PAY ME NOW")], &[]).await;
    world.clock.advance_ms(5);
    let by = mallory.caller().device_id.unwrap();
    let wish = RewindWish { to_ms: scene.good_ms, only_by: Some([by].into()) };
    let done = scene.world.content.rewind(&scene.home, scene.world.id(), &wish).await.unwrap();
    assert_eq!(done.counts, RewindCounts { restored: 1, reverted: 1, removed: 1, ..Default::default() });
    assert_eq!(shown(&scene.world, &scene.home).await, wanted);
}

#[tokio::test]
async fn who_may_rewind_and_to_when() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let bob = world.user(None).await;
    let viewer = world.share(&scene.home, &bob, Role::Viewer).await;
    assert_eq!(world.content.rewind(&viewer, world.id(), &all(scene.good_ms)).await.unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(world.content.rewind_plan(&viewer, &all(scene.good_ms), None, 1).await.unwrap_err().kind(), Kind::Forbidden);
    let future = world.content.rewind(&scene.home, world.id(), &all(now(world) + 1)).await.unwrap_err();
    assert_eq!(future.code(), "time_to_come");
    let empty = world.content.rewind(&scene.home, world.id(), &all(scene.good_ms)).await.unwrap();
    assert_eq!((empty.is_finished, empty.counts), (true, RewindCounts::default()));
}

/// A file with two values that were written at once: `a.txt` with another content as its conflicted copy.
async fn forked(scene: &mut Scene) {
    let Scene { world, home, anna, .. } = scene;
    let mut other = world.writer(home.caller());
    let a = state(world, home, scene.a).await;
    other.counter = anna.counter + 10;
    let fork = other.fork(&a, &[b"beside"]);
    anna.counter = other.counter + 1;
    commit(world, home, vec![fork], &[b"beside"]).await;
    scene.world.clock.advance_ms(10);
    scene.good_ms = now(&scene.world);
    scene.good = shown(&scene.world, &scene.home).await;
    assert_eq!(scene.good.len(), 5, "d, a.txt, its copy, b.txt, link");
    scene.world.clock.advance_ms(10);
}

#[tokio::test]
async fn a_conflicted_copy_that_was_there_stays_and_one_that_came_goes() {
    let mut scene = Scene::new().await;
    forked(&mut scene).await;
    let loosely = shown_loosely(&scene.world, &scene.home).await;
    let Scene { world, home, mallory, evil, a, .. } = &mut scene;
    for n in 0..4 {
        let mut fork = state(world, home, *a).await;
        evil.counter = evil.counter.max(fork.state.max_counter());
        // Only what keeps the name, all of it, one value more, and nothing.
        let harm = match n {
            0 => {
                let own = read::shown(fork.state.body())[0].dots.clone();
                let value = evil.value(&fork.state, file(b"x8f2"));
                fork.state.body_mut().put(&own, value);
                fork
            }
            1 => evil.edit(&fork, &[b"x8f2"]),
            2 => evil.fork(&fork, &[b"x8f2"]),
            _ => evil.deleted(&fork),
        };
        let before_ms = now(world);
        world.clock.advance_ms(5);
        commit(world, mallory, vec![harm], &[b"x8f2"]).await;
        world.clock.advance_ms(5);
        assert_ne!(shown_loosely(world, home).await, loosely, "{n}");
        let by = mallory.caller().device_id.unwrap();
        let only_by = if n % 2 == 0 { None } else { Some([by].into()) };
        let wish = RewindWish { to_ms: before_ms, only_by };
        let plan = world.content.rewind_plan(home, &wish, None, 10).await.unwrap();
        let done = world.content.rewind(home, world.id(), &wish).await.unwrap();
        assert_eq!((done.counts, plan.entries.len()), (plan.counts, 1), "{n}");
        assert_eq!(shown_loosely(world, home).await, loosely, "{n}");
        assert!(world.content.rewind_plan(home, &wish, None, 10).await.unwrap().entries.is_empty(), "nothing is left to do: {n}");
    }
}

/// RW4.
#[tokio::test]
async fn what_somebody_else_wrote_at_the_same_time_stays() {
    let mut scene = Scene::new().await;
    let (good_ms, good) = (scene.good_ms, scene.good.clone());
    let Scene { world, home, mallory, anna, evil, a, .. } = &mut scene;
    let a = state(world, home, *a).await;
    let by = mallory.caller().device_id.unwrap();
    (anna.counter, evil.counter) = (a.state.max_counter() + 1, a.state.max_counter() + 5);
    // Both saw the old content. Mallory's is heard last, and keeps the name.
    commit(world, home, vec![anna.edit(&a, &[b"hers"])], &[b"hers"]).await;
    world.clock.advance_ms(5);
    commit(world, mallory, vec![evil.edit(&a, &[b"x8f2"])], &[b"x8f2"]).await;
    world.clock.advance_ms(5);
    let wish = RewindWish { to_ms: good_ms, only_by: Some([by].into()) };
    let done = world.content.rewind(home, world.id(), &wish).await.unwrap();
    assert_eq!(done.counts, RewindCounts { reverted: 1, ..Default::default() });
    let mut wanted = good.clone();
    wanted.insert("d/a.txt".into(), Some(ContentHash::of(b"hers")));
    assert_eq!(shown(world, home).await, wanted, "hers keeps the name, and nothing older is put over it");
    // Without a choice it is the time alone that counts.
    world.content.rewind(home, world.id(), &all(good_ms)).await.unwrap();
    assert_eq!(shown(world, home).await, good);
}

#[tokio::test]
async fn two_that_begin_one_rewind_at_once_are_told_the_same() {
    let mut scene = Scene::new().await;
    scene.attack().await;
    let Scene { world, home, .. } = &scene;
    let (id, wish) = (world.id(), all(scene.good_ms));
    let (one, two) = tokio::join!(world.content.rewind(home, id, &wish), world.content.rewind(home, id, &wish));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(one.counts, RewindCounts { restored: 2, reverted: 1, moved: 1, removed: 1, ..Default::default() });
    assert_eq!(shown(world, home).await, scene.good);
}

/// R3: what the store has lost is not put back. What else there is goes back, and the plan says what does not.
#[tokio::test]
async fn what_the_store_has_lost_is_named_and_nothing_points_at_it() {
    let mut scene = Scene::new().await;
    scene.attack().await;
    let Scene { world, home, .. } = &scene;
    let lost = ferry_protocol::ChunkId::of(b"bbb");
    let at = world.db.locate_chunks(home.namespace(), &[lost], true).await.unwrap()[&lost];
    let mut tx = world.db.begin(crate::store::content::Scope::Namespace(home.namespace())).await.unwrap();
    tx.mark_damaged(&[(at, "missing")], now(world)).await.unwrap();
    tx.commit().await.unwrap();
    let refused = world.content.restore(home, scene.b).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Conflict, "content_lost"));
    let plan = world.content.rewind_plan(home, &all(scene.good_ms), None, 100).await.unwrap();
    let expected = RewindCounts { restored: 1, reverted: 1, moved: 1, removed: 1, not_kept: 1, ..Default::default() };
    assert_eq!(plan.counts, expected);
    assert_eq!(plan.entries.iter().find(|e| e.node == scene.b).unwrap().acts, ["not_kept"]);
    let done = world.content.rewind(home, world.id(), &all(scene.good_ms)).await.unwrap();
    assert_eq!(done.counts, expected);
    let mut wanted = scene.good.clone();
    wanted.remove("d/b.txt");
    assert_eq!(shown(world, home).await, wanted);
    // Sent again, it comes back.
    let row = world.content.commit(home, world.request(vec![], &[b"bbb"], u64::MAX)).await.unwrap();
    assert!(matches!(row, CommitReply::Accepted { .. }), "{row:?}");
    world.content.restore(home, scene.b).await.unwrap();
    assert_eq!(shown(world, home).await, scene.good);
}

#[derive(Debug, Clone)]
enum Act {
    Create(usize),
    Edit(usize),
    /// Another value beside those that are there.
    Fork(usize),
    /// A conflicted copy is taken away.
    Settle(usize),
    Delete(usize),
    Move(usize, usize),
    Restore(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0usize..3).prop_map(Act::Create),
        3 => (0usize..9).prop_map(Act::Edit),
        3 => (0usize..9).prop_map(Act::Fork),
        1 => (0usize..9).prop_map(Act::Settle),
        2 => (0usize..9).prop_map(Act::Delete),
        2 => (0usize..9, 0usize..3).prop_map(|(n, to)| Act::Move(n, to)),
        1 => (0usize..9).prop_map(Act::Restore),
    ];
    proptest::collection::vec(act, 1..14)
}

struct Play {
    world: World,
    home: Entry,
    writer: Writer,
    /// The root's two directories, one in the other, and the files.
    nodes: Vec<NodeId>,
    made: u32,
}

impl Play {
    async fn new() -> Self {
        let world = World::new().await;
        let alice = world.user(None).await;
        let home = world.home(&alice).await;
        let mut writer = world.writer(&alice);
        let outer = writer.node(NodeId::from_bytes(world.id()), "outer", node::Content::Dir);
        let inner = writer.node_in(outer.id, NodeId::from_bytes(world.id()), "inner", node::Content::Dir);
        let nodes = vec![outer.id, inner.id];
        commit(&world, &home, vec![outer, inner], &[]).await;
        Self { world, home, writer, nodes, made: 0 }
    }

    fn fresh(&mut self) -> (String, Vec<u8>) {
        self.made += 1;
        (format!("n{}", self.made), format!("content {}", self.made).into_bytes())
    }

    async fn act(&mut self, act: &Act) {
        self.world.clock.advance_ms(1);
        let (name, bytes) = self.fresh();
        let pick = |n: usize| self.nodes[n % self.nodes.len()];
        match act {
            Act::Create(directory) => {
                let parent = [NodeId::ROOT, self.nodes[0], self.nodes[1]][*directory];
                let id = NodeId::from_bytes(self.world.id());
                let update = self.writer.node_in(parent, id, &name, file(&bytes));
                commit(&self.world, &self.home, vec![update], &[&bytes]).await;
                self.nodes.push(id);
            }
            Act::Edit(n) if self.nodes.len() > 2 => {
                let id = self.nodes[2 + n % (self.nodes.len() - 2)];
                let now = state(&self.world, &self.home, id).await;
                self.writer.counter = self.writer.counter.max(now.state.max_counter());
                let update = self.writer.edit(&now, &[&bytes]);
                commit(&self.world, &self.home, vec![update], &[&bytes]).await;
            }
            Act::Fork(n) if self.nodes.len() > 2 => {
                let now = state(&self.world, &self.home, self.nodes[2 + n % (self.nodes.len() - 2)]).await;
                self.writer.counter = self.writer.counter.max(now.state.max_counter());
                let update = self.writer.fork(&now, &[&bytes]);
                commit(&self.world, &self.home, vec![update], &[&bytes]).await;
            }
            Act::Settle(n) if self.nodes.len() > 2 => {
                let mut now = state(&self.world, &self.home, self.nodes[2 + n % (self.nodes.len() - 2)]).await;
                let copy = read::shown(now.state.body()).get(1).map(|copy| copy.dots.clone()).unwrap_or_default();
                now.state.body_mut().settle(&copy);
                commit(&self.world, &self.home, vec![now], &[]).await;
            }
            Act::Edit(_) | Act::Fork(_) | Act::Settle(_) => {}
            // What is not as it should be for the act is refused, which is fine.
            Act::Delete(n) => drop(self.world.content.delete_file(&self.home, pick(*n), None).await),
            Act::Restore(n) => drop(self.world.content.restore(&self.home, pick(*n)).await),
            Act::Move(n, to) => {
                let directory = ["", "outer", "outer/inner"][*to];
                let directory = Some(crate::service::content::parse_path(directory).unwrap());
                let update = FileUpdate { name: Some(name), directory, if_seq: None };
                drop(self.world.content.update_file(&self.home, pick(*n), &update).await);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was done before and after a time, and wherever the rewind is ended: asked again it leads to what was shown then.
    #[test]
    fn a_rewind_leads_to_what_was(before in acts(), after in acts(), cuts in proptest::collection::vec(0usize..80, 0..4)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new().await;
            for act in &before {
                play.act(act).await;
            }
            let (then_ms, then) = (now(&play.world), shown_loosely(&play.world, &play.home).await);
            for act in &after {
                play.act(act).await;
            }
            play.world.clock.advance_ms(1);
            let (id, wish) = (play.world.id(), all(then_ms));
            for polls in cuts {
                drop(ended(play.world.content.rewind(&play.home, id, &wish), Some(polls)).await);
                let scope = crate::store::content::Scope::Namespace(play.home.namespace());
                drop(play.world.content.meta.begin(scope).await.unwrap());
                play.world.clock.advance_ms(1);
            }
            let done = play.world.content.rewind(&play.home, id, &wish).await.unwrap();
            assert!(done.is_finished && done.counts.changed_meanwhile == 0, "{done:?}");
            assert_eq!(shown_loosely(&play.world, &play.home).await, then, "{before:?} | {after:?}");
            let again = play.world.content.rewind_plan(&play.home, &wish, None, 10).await.unwrap();
            assert_eq!(again.counts, RewindCounts::default(), "nothing is left to do");
            assert_eq!(play.world.content.meta.check_rows().await.unwrap(), Default::default());
        });
    }
}
