//! X14: whatever is deleted, brought back, deleted again and purged, alone and with directories, with chunks that files share, and wherever the
//! process ends in between: the counts of references, and what each user uses, are what the versions say. The truth is computed here, from what
//! the store tells of versions, for whichever store it is.

use crate::service::content::testing::{World, Writer, frames, manifest};
use crate::service::content::{ContentConfig, Entry, PurgeWhat};
use crate::service::{Kind, ServiceResult};
use crate::store::blob::BlobStore;
use crate::store::content::Purged;
use crate::store::content::Scope;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{NodeUpdate, Role};
use ferry_protocol::{ChunkId, FileContent, NodeId, node};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

const GRACE_MS: i64 = 1000;
const CONTENTS: u8 = 5;

#[derive(Debug, Clone)]
enum Step {
    Create { directory: usize, chunks: Vec<u8> },
    Edit { file: usize, chunks: Vec<u8> },
    Delete(usize),
    Restore(usize),
    Purge(usize),
    PurgeAll,
    OtherPut(Vec<u8>),
    Wait(i64),
    Sweep,
}

/// A step, and after how many polls it is ended in the middle.
type Played = (Step, Option<usize>);

fn steps() -> impl Strategy<Value = Vec<Played>> {
    let some = || proptest::collection::vec(0..CONTENTS, 1..4);
    let step = prop_oneof![
        4 => (0usize..3, some()).prop_map(|(directory, chunks)| Step::Create { directory, chunks }),
        2 => (0usize..8, some()).prop_map(|(file, chunks)| Step::Edit { file, chunks }),
        4 => (0usize..10).prop_map(Step::Delete),
        2 => (0usize..10).prop_map(Step::Restore),
        4 => (0usize..10).prop_map(Step::Purge),
        1 => Just(Step::PurgeAll),
        1 => some().prop_map(Step::OtherPut),
        1 => (1i64..1500).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
    ];
    proptest::collection::vec((step, proptest::option::weighted(0.4, 0usize..60)), 1..25)
}

fn content(i: u8) -> Vec<u8> {
    vec![b'a' + i; usize::from(i) + 3]
}

/// Polls a future so often and then drops it, as the end of a process does; without a number to its end.
pub(super) async fn ended<T>(future: impl Future<Output = T>, polls: Option<usize>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(move |context| {
        if polls.is_some_and(|polls| polled >= polls) {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

struct Run {
    world: World,
    home: Entry,
    other: Entry,
    writer: Writer,
    /// The root's two directories, one in the other, and the files.
    nodes: Vec<NodeId>,
}

impl Run {
    async fn new() -> Self {
        let world = World::with(ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await;
        let (alice, bob) = (world.user(None).await, world.user(None).await);
        let (home, other) = (world.home(&alice).await, world.home(&bob).await);
        let mut writer = world.writer(&alice);
        let outer = writer.node(NodeId::from_bytes(world.id()), "outer", node::Content::Dir);
        let inner = writer.node_in(outer.id, NodeId::from_bytes(world.id()), "inner", node::Content::Dir);
        let nodes = vec![outer.id, inner.id];
        world.content.commit(&home, world.request(vec![outer, inner], &[], u64::MAX)).await.unwrap();
        Self { world, home, other, writer, nodes }
    }

    fn node(&self, number: usize) -> NodeId {
        self.nodes[number % self.nodes.len()]
    }

    async fn step(&mut self, (step, polls): &Played) {
        let content_service = self.world.content.clone();
        match step {
            Step::Create { directory, chunks } => {
                let (id, parent) = (NodeId::from_bytes(self.world.id()), [NodeId::ROOT, self.nodes[0], self.nodes[1]][*directory]);
                let bytes: Vec<Vec<u8>> = chunks.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                let file = node::Content::File(FileContent::new(manifest(&slices), 1));
                let update = self.writer.node_in(parent, id, &format!("f{}", self.nodes.len()), file);
                self.commit(update, &slices, *polls).await;
                self.nodes.push(id);
            }
            Step::Edit { file, chunks } => {
                let Some(id) = self.nodes.get(2 + file % self.nodes.len()).copied() else { return };
                let Some(row) = content_service.meta.nodes(self.home.namespace(), &[id]).await.unwrap().into_iter().next() else { return };
                let bytes: Vec<Vec<u8>> = chunks.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                self.writer.counter = self.writer.counter.max(row.state.max_counter());
                let update = self.writer.edit(&NodeUpdate { id, state: row.state }, &slices);
                self.commit(update, &slices, *polls).await;
            }
            // What is not as it should be for the step is refused, which is fine.
            Step::Delete(number) => drop(ended(content_service.delete_file(&self.home, self.node(*number), None), *polls).await),
            Step::Restore(number) => drop(ended(content_service.restore(&self.home, self.node(*number)), *polls).await),
            Step::Purge(number) => {
                drop(ended(content_service.purge(&self.home, PurgeWhat::Entry(self.node(*number))), *polls).await);
            }
            Step::PurgeAll => drop(ended(content_service.purge(&self.home, PurgeWhat::Before(i64::MAX)), *polls).await),
            Step::OtherPut(chunks) => {
                let bytes: Vec<Vec<u8>> = chunks.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                drop(ended(content_service.put_chunks(&self.other, frames(&slices)), *polls).await);
            }
            Step::Wait(ms) => self.world.clock.advance_ms(*ms),
            Step::Sweep => drop(ended(content_service.sweep(false), *polls).await),
        }
        // Whoever writes next waits for what was under way: it has been carried out now, or dropped.
        drop(content_service.meta.begin(Scope::Namespace(self.home.namespace())).await.unwrap());
    }

    async fn commit(&self, update: NodeUpdate, chunks: &[&[u8]], polls: Option<usize>) {
        let request = self.world.request(vec![update], chunks, u64::MAX);
        if let Some(reply) = ended(self.world.content.commit(&self.home, request), polls).await {
            reply.unwrap();
        }
    }

    async fn check(&self, after: &str) {
        let faults = self.world.content.meta.check_rows().await.unwrap();
        assert_eq!(faults, Default::default(), "the store's own word after {after}");
        for entry in [&self.home, &self.other] {
            let (refs, used_bytes) = self.truth(entry).await;
            let ids: Vec<ChunkId> = (0..CONTENTS).map(|i| ChunkId::of(&content(i))).collect();
            let held = self.world.content.meta.held(entry.namespace(), &ids).await.unwrap();
            for id in &ids {
                let counted = held.get(id).map_or(0, |h| h.refs);
                assert_eq!(counted, refs.get(id).copied().unwrap_or(0), "references to {id} after {after}");
            }
            let holds: u64 = held.values().map(|h| u64::from(h.len)).sum();
            assert!(used_bytes <= holds, "what versions name is held");
            assert_eq!(self.world.content.usage(entry.caller()).await.unwrap().used_bytes, holds, "used bytes after {after}");
        }
    }

    /// How often the versions of a namespace name each chunk, and the sum of the lengths of those chunks.
    async fn truth(&self, entry: &Entry) -> (BTreeMap<ChunkId, u64>, u64) {
        let (mut refs, mut lengths) = (BTreeMap::<ChunkId, u64>::new(), BTreeMap::new());
        for node in self.world.content.meta.all_nodes(entry.namespace()).await.unwrap().nodes {
            for version in self.world.content.meta.versions(entry.namespace(), node.id).await.unwrap() {
                for chunk in self.world.content.meta.version_chunks(entry.namespace(), version.version_id).await.unwrap() {
                    *refs.entry(chunk.id).or_default() += 1;
                    lengths.insert(chunk.id, u64::from(chunk.len));
                }
            }
        }
        (refs, lengths.into_values().sum())
    }

    /// Everything is deleted, purged and swept: nothing is left but tombstones.
    async fn end(&self) {
        for id in &self.nodes {
            drop(self.world.content.delete_file(&self.home, *id, None).await);
        }
        self.world.content.purge(&self.home, PurgeWhat::Before(i64::MAX)).await.unwrap();
        self.check("the last purge").await;
        for _ in 0..3 {
            self.world.clock.advance_ms(2 * GRACE_MS);
            self.world.content.sweep(false).await.unwrap();
        }
        self.check("the last sweep").await;
        let totals = self.world.content.storage_totals().await.unwrap();
        assert_eq!((totals.versions, totals.chunks, totals.packs), (0, 0, 0), "{totals:?}");
        assert!(self.world.blobs.list().await.unwrap().is_empty());
        assert_eq!(self.world.content.usage(self.home.caller()).await.unwrap().used_bytes, 0);
        assert!(self.world.content.trash(&self.home, None, 10).await.unwrap().0.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x14_references_are_what_the_versions_say(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in &steps {
                run.step(step).await;
                run.check(&format!("{step:?}")).await;
            }
            run.end().await;
        });
    }
}

async fn purge(world: &World, entry: &Entry, file: NodeId) -> ServiceResult<Purged> {
    world.content.purge(entry, PurgeWhat::Entry(file)).await
}

on_each_store!(a_purge_frees_what_nothing_else_needs_and_the_deletion_stays);

async fn a_purge_frees_what_nothing_else_needs_and_the_deletion_stays(kind: Db) {
    let world = World::with_on(kind, ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let (gone, _) = world.add_file(&home, &mut writer, "gone", b"shared bytes").await;
    world.add_file(&home, &mut writer, "stays", b"shared bytes").await;
    let (alone, _) = world.add_file(&home, &mut writer, "alone", b"alone").await;
    let refused = purge(&world, &home, gone).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Conflict, "not_in_trash"));
    for file in [gone, alone] {
        world.content.delete_file(&home, file, None).await.unwrap();
    }
    world.clock.advance_ms(GRACE_MS + 1);
    let purged = purge(&world, &home, gone).await.unwrap();
    assert_eq!(purged, Purged { entries: 1, versions: 1, freed_bytes: 0 }, "the other file needs the chunk");
    assert_eq!(purge(&world, &home, alone).await.unwrap(), Purged { entries: 1, versions: 1, freed_bytes: 5 });
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, 12);
    assert!(world.content.trash(&home, None, 10).await.unwrap().0.is_empty());
    assert_eq!(purge(&world, &home, gone).await.unwrap_err().code(), "not_in_trash", "twice is once");
    let nothing_left = world.content.restore(&home, gone).await.unwrap_err();
    assert_eq!(nothing_left.code(), "content_not_kept");
    // The tombstone is told on.
    let feed = world.content.feed(&home, 0, None, 100).await.unwrap();
    let state = &feed.nodes.iter().find(|n| n.id == gone).unwrap().state;
    assert!(!state.body().has_living());
    // An edit that was made meanwhile, and that the deletion had not seen, lives, and can be deleted and brought back (CR3).
    let before = writer.file(alone, "alone", &[b"alone"]);
    let edit = writer.edit(&before, &[b"edited meanwhile"]);
    world.content.commit(&home, world.request(vec![edit], &[b"edited meanwhile"], u64::MAX)).await.unwrap();
    world.content.delete_file(&home, alone, None).await.unwrap();
    assert_eq!(world.content.trash(&home, None, 10).await.unwrap().0.len(), 1);
    assert_eq!(world.content.restore(&home, alone).await.unwrap().count, 1);
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

on_each_store!(a_directory_is_purged_with_what_was_deleted_in_it_and_only_by_an_owner);

async fn a_directory_is_purged_with_what_was_deleted_in_it_and_only_by_an_owner(kind: Db) {
    let world = World::with_on(kind, ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let home = world.home(&alice).await;
    let his = world.share(&home, &bob, Role::Editor).await;
    let mut writer = world.writer(&alice);
    let directory = writer.node(NodeId::from_bytes(world.id()), "d", node::Content::Dir);
    let file = |bytes: &[u8]| node::Content::File(FileContent::new(manifest(&[bytes]), 1));
    let a = writer.node_in(directory.id, NodeId::from_bytes(world.id()), "a", file(b"aa"));
    let b = writer.node_in(directory.id, NodeId::from_bytes(world.id()), "b", file(b"bbb"));
    let id = directory.id;
    world.content.commit(&home, world.request(vec![directory, a, b], &[b"aa", b"bbb"], u64::MAX)).await.unwrap();
    world.content.delete_file(&his, id, None).await.unwrap();
    world.clock.advance_ms(GRACE_MS + 1);
    // Who may delete may not destroy (L23).
    for what in [PurgeWhat::Entry(id), PurgeWhat::Before(i64::MAX)] {
        assert_eq!(world.content.purge(&his, what).await.unwrap_err().kind(), Kind::Forbidden);
    }
    let now = crate::clock::Clock::now_ms(&world.clock);
    let early = world.content.purge(&home, PurgeWhat::Before(now - GRACE_MS - 1)).await.unwrap();
    assert_eq!(early, Purged::default(), "it was deleted later than that");
    assert_eq!(purge(&world, &home, id).await.unwrap(), Purged { entries: 3, versions: 2, freed_bytes: 5 });
    assert!(world.content.trash(&home, None, 10).await.unwrap().0.is_empty());
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, 0);
}
