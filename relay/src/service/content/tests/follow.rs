//! Feeds that are read from replicas: a replica that is behind never answers, however far behind it is.

use crate::service::content::testing::World;
use crate::service::content::{Content, Entry};
use crate::store::MetaStore;
use crate::store::postgres::Postgres;
use crate::store::testing::server::Cluster;
use crate::store::testing::settings;
use ferry_protocol::wire::CommitReply;
use ferry_protocol::{NodeId, ReplicaId};
use std::sync::Arc;
use std::time::Duration;

/// A primary with a replica that tests hold back, and two processes of one relay on them.
struct Pair {
    primary: Cluster,
    replica: Cluster,
    name: String,
    world: World,
    second: Arc<Content>,
}

impl Pair {
    async fn start() -> Self {
        let primary = Cluster::start();
        let url = primary.database();
        drop(Postgres::open(&url, &[], &[], &settings()).await.unwrap());
        let replica = primary.replica();
        let name = url.rsplit('/').next().unwrap().to_owned();
        let urls = [replica.url(&name)];
        let open = async || {
            let store: Arc<dyn MetaStore> = Arc::new(Postgres::open(&url, &[], &urls, &settings()).await.unwrap());
            store
        };
        let mut world = World::new().await;
        world.db = open().await;
        world.content = world.second(world.db.clone()).await;
        let second = world.second(open().await).await;
        Self { primary, replica, name, world, second }
    }

    /// Waits until the replica has what the primary has now.
    fn follow(&self) {
        let lsn = self.primary.sql(&self.name, "SELECT pg_current_wal_lsn()");
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", lsn.trim());
        while self.replica.sql(&self.name, &question).trim() != "t" {}
    }

    fn pause(&self) {
        self.replica.sql(&self.name, "SELECT pg_wal_replay_pause()");
        while self.replica.sql(&self.name, "SELECT pg_get_wal_replay_pause_state()").trim() != "paused" {}
    }

    fn resume(&self) {
        self.replica.sql(&self.name, "SELECT pg_wal_replay_resume()");
    }

    /// Commits a file and gives the head after it.
    async fn commit(&self, content: &Content, home: &Entry) -> u64 {
        let mut writer = super::super::testing::Writer {
            replica: ReplicaId::from_bytes(self.world.id()),
            device: home.caller().device_id.unwrap(),
            counter: 0,
        };
        let node = NodeId::from_bytes(self.world.id());
        let update = writer.file(node, &node.to_string(), &[b"f"]);
        match content.commit(home, self.world.request(vec![update], &[b"f"], u64::MAX)).await.unwrap() {
            CommitReply::Accepted { head_seq, .. } => head_seq,
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever has written, in whichever process, reads it: from a replica that has it, or from the primary.
#[tokio::test]
async fn a_replica_gives_pages_that_it_has_and_no_others() {
    let pair = Pair::start().await;
    let (first, second) = (&pair.world.content, &pair.second);
    let alice = pair.world.user(None).await;
    let home = pair.world.home(&alice).await;
    for head in 1..=3 {
        assert_eq!(pair.commit(first, &home).await, head);
    }
    pair.follow();
    pair.pause();
    // Nobody reads nodes from the primary now: the page is of the replica.
    pair.primary.sql(&pair.name, "ALTER TABLE files RENAME TO files_aside");
    let read = async |content: &Content, since| {
        let asked = content.feed(&home, since, Some(content.identity().epoch), 100);
        tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap().map(|page| (page.head, page.nodes.len()))
    };
    assert_eq!(read(first, 0).await.unwrap(), (3, 3));
    assert_eq!(read(second, 2).await.unwrap(), (3, 1));
    assert_eq!(first.tree(home.namespace()).await.unwrap().rows.len(), 3, "listings are read there too");
    pair.primary.sql(&pair.name, "ALTER TABLE files_aside RENAME TO files");
    // Behind by one: the primary answers, both who wrote and who was told of it.
    assert_eq!(pair.commit(second, &home).await, 4);
    for content in [first, second] {
        assert_eq!(read(content, 4).await.unwrap(), (4, 0), "a cursor that the replica has not reached is no cursor of another life");
        assert_eq!(read(content, 3).await.unwrap(), (4, 1));
        assert_eq!(content.tree(home.namespace()).await.unwrap().rows.len(), 4);
    }
    // A folder that the replica has not heard of.
    let new = first.create_namespace(&alice, None, "New").await.unwrap();
    let new = first.enter(&alice, new.id, ferry_protocol::wire::Role::Owner).await.unwrap();
    assert_eq!(pair.commit(first, &new).await, 1);
    assert_eq!(second.feed(&new, 0, None, 10).await.unwrap().nodes.len(), 1);
    // Promoted, it is no replica any more, whatever it holds.
    pair.resume();
    pair.follow();
    pair.replica.promote();
    pair.replica.sql(&pair.name, "DELETE FROM files");
    assert_eq!(read(first, 0).await.unwrap(), (4, 4));
    pair.replica.crash();
    assert_eq!(read(second, 0).await.unwrap(), (4, 4));
}

/// Writes, reads, and a replica that stops and goes on, in generated orders: every read has the head of the last write.
#[test]
fn no_read_is_older_than_the_write_before_it_however_the_replica_lags() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = runtime.block_on(Pair::start());
    let steps = proptest::collection::vec((0u8..5, any::<bool>()), 1..14);
    let config = Config { cases: 12, max_shrink_iters: 30, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let alice = pair.world.user(None).await;
            let home = pair.world.home(&alice).await;
            let mut head = 0;
            for (step, in_second) in steps {
                let content = if in_second { &pair.second } else { &pair.world.content };
                match step {
                    0 => pair.pause(),
                    1 => pair.resume(),
                    2 => {
                        pair.resume();
                        pair.follow();
                    }
                    _ => head = pair.commit(content, &home).await,
                }
                for reader in [&pair.world.content, &pair.second] {
                    let page = reader.feed(&home, head.saturating_sub(1), Some(reader.identity().epoch), 10).await.unwrap();
                    prop_assert_eq!((page.head, page.nodes.len() as u64), (head, head.min(1)));
                }
            }
            pair.resume();
            Ok(())
        })
    });
    result.unwrap();
}
