//! Who is written together is written as one after another (BA1), and who waits is not forgotten.

use super::super::batch::{Job, Trouble};
use super::super::commit::Brought;
use super::super::edit::Write;
use super::super::lanes::{Turn, Wish};
use super::super::testing::{World, Writer};
use super::tree::compare;
use crate::service::Caller;
use crate::service::content::Entry;
use crate::store::content::Identity;
use crate::store::testing::{Db, on_each_kind, on_each_store};
use ferry_protocol::wire::{CommitReply, CommitRequest, NodeUpdate, Role};
use ferry_protocol::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One wish: what, and three choices.
type Act = (u8, usize, usize, usize);

const NAMES: [&str; 4] = ["a", "b", "c.txt", "d"];
const BYTES: [&[u8]; 5] = [b"one", b"two two", b"three three", b"four", b"five five five five"];
/// So little that some are refused.
const LIMIT_BYTES: u64 = 36;

/// Two relays of one identity, in which the same is wished: in one together, in the other one after another.
struct Pair {
    together: World,
    apart: World,
    /// The owner, an editor, and somebody who may only look: in both.
    people: [Vec<Entry>; 2],
    writers: Vec<Writer>,
    /// What every device has heard of.
    heard: BTreeMap<NodeId, NodeUpdate>,
    /// Commits that were asked for, to ask again.
    asked: Vec<(usize, CommitRequest)>,
}

/// What somebody wishes.
enum Asked {
    Commit(CommitRequest),
    Edit(Vec<NodeId>, Write),
}

async fn world(kind: Db) -> (World, Vec<Caller>, Vec<Entry>) {
    let world = World::on(kind).await;
    let identity = Identity { epoch: Epoch::from_bytes([3; 16]), replica: ReplicaId::from_bytes([4; 16]) };
    world.content.meta.replace_identity(identity, 1).await.unwrap();
    world.content.refresh_identity().await.unwrap();
    let callers = vec![world.user(Some(LIMIT_BYTES)).await, world.user(None).await, world.user(None).await];
    let home = world.home(&callers[0]).await;
    let editor = world.share(&home, &callers[1], Role::Editor).await;
    let viewer = world.share(&home, &callers[2], Role::Viewer).await;
    (world, callers, vec![home, editor, viewer])
}

impl Pair {
    async fn new(kind: Db) -> Self {
        let (together, callers, here) = world(kind).await;
        let (apart, _, there) = world(kind).await;
        let writers = callers.iter().map(|caller| together.writer(caller)).collect();
        Self { together, apart, people: [here, there], writers, heard: BTreeMap::new(), asked: Vec::new() }
    }

    fn pick(&self, n: usize) -> Option<NodeUpdate> {
        self.heard.values().nth(n % self.heard.len().max(1)).cloned()
    }

    /// A wish, and whose it is.
    fn wish(&mut self, (what, a, b, c): Act) -> (usize, Asked) {
        // Mostly of those who may.
        let who = [0, 0, 1, 1, 1, 2][a % 6];
        let (bytes, name) = (BYTES[b % BYTES.len()], NAMES[c % NAMES.len()]);
        let picked = self.pick(b);
        let id = NodeId::from_bytes(self.together.id());
        let directory = picked.as_ref().map_or(NodeId::ROOT, |n| n.id);
        let writer = &mut self.writers[who];
        let file = |bytes: &[u8]| node::Content::File(FileContent::new(super::super::testing::manifest(&[bytes]), 1));
        let (update, carried) = match (what % 11, picked) {
            (0 | 1, _) => (writer.node(id, name, file(bytes)), vec![bytes]),
            // Perhaps nobody has the bytes.
            (2, _) => (writer.node(id, name, file(bytes)), vec![]),
            (3, _) => (writer.node(id, name, node::Content::Dir), vec![]),
            (4, _) => (writer.node_in(directory, id, name, file(bytes)), vec![bytes]),
            (5, Some(old)) => (writer.edit(&old, &[bytes]), vec![bytes]),
            (6, Some(old)) => {
                (writer.moved(&old, self.heard.keys().nth(a % self.heard.len()).copied().unwrap_or(NodeId::ROOT), name), vec![])
            }
            (7, Some(old)) => (writer.deleted(&old), vec![]),
            (8, Some(old)) => {
                let (id, name) = (old.id, Name::new(name).unwrap());
                let write: Write = Arc::new(move |pen| {
                    pen.move_to(id, NodeId::ROOT, name.clone())?;
                    Ok(1)
                });
                return (who, Asked::Edit(vec![id], write));
            }
            (9, Some(old)) => {
                let id = old.id;
                let write: Write = Arc::new(move |pen| {
                    let dots: Vec<Dot> = pen.state(id).map(|s| s.body().values().iter().map(|v| v.dot).collect()).unwrap_or_default();
                    pen.put(id, &dots, node::Content::Tombstone)?;
                    Ok(dots.len())
                });
                return (who, Asked::Edit(vec![id], write));
            }
            (10, Some(_)) if !self.asked.is_empty() => {
                let (who, again) = self.asked[a % self.asked.len()].clone();
                return (who, Asked::Commit(again));
            }
            _ => (writer.node_in(NodeId::from_bytes([0xEE; 16]), id, name, node::Content::Dir), vec![]),
        };
        // Now and then somebody has not heard of the newest.
        let base_seq = if c % 5 == 0 { 1 } else { u64::MAX };
        let request = self.together.request(vec![update.clone()], &carried, base_seq);
        self.asked.push((who, request.clone()));
        // Told from device to device before the relay knows: so the next one in this round may stand in it.
        if what % 2 == 0 {
            self.heard.insert(update.id, update);
        }
        (who, Asked::Commit(request))
    }

    /// One after another; as words, so that errors compare too.
    async fn alone(&self, world: usize, who: usize, asked: &Asked) -> Result<(u64, bool, usize), String> {
        let content = [&self.together, &self.apart][world].content.clone();
        let entry = &self.people[world][who];
        match asked {
            Asked::Commit(request) => match content.commit(entry, request.clone()).await {
                Ok(CommitReply::Accepted { head_seq, gapless }) => Ok((head_seq, gapless, 0)),
                Ok(other) => Err(format!("{other:?}")),
                Err(error) => Err(error.code().to_owned()),
            },
            Asked::Edit(nodes, write) => match content.write(entry, nodes.clone(), write.clone()).await {
                Ok(wrote) => Ok((wrote.head_seq, false, wrote.count)),
                Err(error) => Err(error.code().to_owned()),
            },
        }
    }

    /// Some wishes at one moment. How many were written together.
    async fn round(&mut self, acts: &[Act]) -> usize {
        let wishes: Vec<(usize, Asked)> = acts.iter().map(|act| self.wish(*act)).collect();
        let mut jobs = Vec::new();
        for (who, asked) in &wishes {
            let wish = match asked {
                Asked::Commit(request) => Wish::Commit(Arc::new(Brought::new(request.clone()).await.unwrap())),
                Asked::Edit(nodes, write) => Wish::Edit { nodes: nodes.clone(), write: write.clone() },
            };
            jobs.push(Job::new(self.people[0][*who].clone(), wish).0);
        }
        let done = match self.together.content.try_together(&jobs).await {
            Ok(done) => done,
            Err(Trouble::Nothing(error)) => {
                assert_eq!(error.code(), "quota_exceeded", "{error}");
                vec![None; jobs.len()]
            }
            Err(Trouble::Unknown(error)) => panic!("{error}"),
        };
        for ((who, asked), done) in wishes.iter().zip(&done).filter_map(|(wish, done)| Some((wish, (*done)?))) {
            let is = self.alone(1, *who, asked).await;
            assert_eq!(is, Ok((done.head_seq, done.gapless, done.count)), "{acts:?}");
        }
        for ((who, asked), _) in wishes.iter().zip(&done).filter(|(_, done)| done.is_none()) {
            assert_eq!(self.alone(0, *who, asked).await, self.alone(1, *who, asked).await, "{acts:?}");
        }
        let written = done.iter().flatten().count();
        let feed = self.feed(0).await;
        assert_eq!(feed, self.feed(1).await, "{acts:?}");
        self.heard.extend(feed.into_iter().map(|(_, update)| (update.id, update)));
        written
    }

    /// All of the feed.
    async fn feed(&self, world: usize) -> Vec<(u64, NodeUpdate)> {
        let meta = &[&self.together, &self.apart][world].content.meta;
        let slice = meta.all_nodes(self.people[world][0].namespace()).await.unwrap();
        slice.nodes.into_iter().map(|row| (row.seq, NodeUpdate { id: row.id, state: row.state })).collect()
    }

    /// All that is kept beside the feed.
    async fn kept(&self, world: usize) -> Vec<String> {
        let (world, entry) = ([&self.together, &self.apart][world], &self.people[world][0]);
        let (meta, namespace) = (&world.content.meta, entry.namespace());
        let mut out = vec![format!("{:?}", meta.quota(entry.caller().user_id).await.unwrap())];
        for id in self.heard.keys() {
            for version in meta.versions(namespace, *id).await.unwrap() {
                let chunks = meta.version_chunks(namespace, version.version_id).await.unwrap();
                out.push(format!("{id} {} {:?} {} {chunks:?}", version.number, version.dot, version.hash));
            }
        }
        let ids: Vec<ChunkId> = BYTES.iter().map(|b| ChunkId::of(b)).collect();
        out.push(format!("{:?}", meta.held(namespace, &ids).await.unwrap()));
        let report = world.content.verify(true).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        out
    }
}

on_each_store!(together_is_as_one_after_another);

async fn together_is_as_one_after_another(kind: Db) {
    let histories = if kind == Db::Sqlite { 24 } else { 6 };
    let mut runner = TestRunner::deterministic();
    let round = prop::collection::vec((any::<u8>(), 0..1000usize, 0..1000usize, 0..1000usize), 1..8);
    let strategy = prop::collection::vec(round, 1..10);
    let mut written = 0;
    for _ in 0..histories {
        let history = strategy.new_tree(&mut runner).unwrap().current();
        let mut pair = Pair::new(kind).await;
        for acts in &history {
            written += pair.round(acts).await;
        }
        assert_eq!(pair.kept(0).await, pair.kept(1).await, "{history:?}");
        compare(&pair.together, &pair.people[0][0], &history).await;
    }
    assert!(written > histories, "some were written together: {written}");
}

on_each_kind!(who_waits_is_written_together, flavor = "multi_thread", worker_threads = 2);

/// While somebody writes, others wait; then one pack and one transaction are for all of them, and who went away takes nobody along.
async fn who_waits_is_written_together(kind: Db) {
    let world = Arc::new(World::on(kind).await);
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let nobody: Write = Arc::new(|_| Ok(0));
    let Turn::Alone(Some(lane)) = world.content.turn(&home, Wish::Edit { nodes: Vec::new(), write: nobody }).await else {
        panic!("nobody writes yet")
    };
    let mut tasks = Vec::new();
    for n in 0..20u8 {
        let update = writer.file(NodeId::from_bytes(world.id()), &format!("f{n}"), &[&[n; 9]]);
        let request = world.request(vec![update], &[&[n; 9]], 0);
        let (world, home) = (world.clone(), home.clone());
        tasks.push(tokio::spawn(async move { world.content.commit(&home, request).await.unwrap() }));
    }
    while world.content.lanes.waiting(home.namespace()) < 20 {
        tokio::task::yield_now().await;
    }
    for gone in tasks.drain(..5) {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    drop(lane);
    let mut heads = Vec::new();
    for task in tasks {
        let CommitReply::Accepted { head_seq, .. } = task.await.unwrap() else { panic!("accepted") };
        heads.push(head_seq);
    }
    heads.sort_unstable();
    assert_eq!(heads, (1..=15).collect::<Vec<u64>>(), "each has the number that it would have alone");
    assert_eq!(world.content.feed(&home, 0, None, 100).await.unwrap().nodes.len(), 15);
    assert_eq!(world.content.storage_totals().await.unwrap().packs, 1, "one pack for all");
    assert!(world.content.verify(true).await.unwrap().is_sound());
    let (_, alone) = world.add_file(&home, &mut writer, "after them", b"alone").await;
    assert_eq!(alone, 16, "the lane is free again");
}
