//! What PostgreSQL's planner knows of a young database.
//!
//! Without statistics it takes every condition for as good as every other, and looks a node up by reading all of its namespace: a hundred times the work,
//! in each statement. PostgreSQL gathers them by itself, but a minute or two after the rows came, and a dump brings none along. So whoever writes the
//! first rows has them gathered, and again whenever there are twice as many, until there are enough that any later statistics are as good. From then on
//! it is PostgreSQL's own affair (`autovacuum`). A transaction that brings many nodes while little is known has its own ones looked at before it goes on.

use super::database::Database;
use super::{StoreError, store_error};
use sqlx::{Connection, PgConnection, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Statistics of fewer nodes than this are worth little.
const FIRST_NODES: u64 = 500;
/// Statistics of so many nodes are good for any number: what is told from them are shares, not sizes.
const ENOUGH_NODES: u64 = 20_000;

/// The tables that grow with content. One that somebody else gathers now is left out: its statistics come anyway.
const GATHER: &str =
    "ANALYZE (SKIP_LOCKED) files, file_versions, file_chunks, chunks, namespace_chunks, packs, node_history, commits, uploads,
    namespaces, owners, members";

/// Within a transaction that has written many nodes: what is asked next is about them. Whoever else does so is not waited for.
const GATHER_OWN: &str = "ANALYZE (SKIP_LOCKED) files";

/// How soon the server notices that nobody waits for the statistics any more, and gives them up.
const NOTICED_WITHIN: &str = "SET client_connection_check_interval = '200ms'";

/// Nodes that this process has written since it last looked at the statistics.
pub(super) struct Young {
    written: AtomicU64,
    /// At how many it looks again.
    look_at: AtomicU64,
    /// Rows were there at the start, and no statistics of them.
    is_unknown: bool,
    looking: Mutex<()>,
    /// Who looks gives up: the database is closed.
    ends: CancellationToken,
}

impl Young {
    /// Of a database that was just opened.
    pub(super) async fn of(conn: &mut PgConnection) -> Result<Self, StoreError> {
        let (known, is_empty) = known(conn).await?;
        Ok(Self::new(known, known == 0 && !is_empty))
    }

    fn new(known: u64, is_unknown: bool) -> Self {
        let young = Self {
            written: AtomicU64::new(0),
            look_at: AtomicU64::new(0),
            is_unknown,
            looking: Mutex::new(()),
            ends: CancellationToken::new(),
        };
        young.looked(Some(known));
        young
    }

    /// Whether a transaction has now written so many nodes that what is known says nothing of them.
    fn is_surprised(&self, before: u64, now: u64) -> bool {
        let look_at = self.look_at.load(Ordering::Relaxed);
        before < look_at && now >= look_at
    }

    /// Counts so many more. Whether it is time to look, which one caller is told.
    fn counts(&self, nodes: u64) -> bool {
        let (before, look_at) = (self.written.fetch_add(nodes, Ordering::Relaxed), self.look_at.load(Ordering::Relaxed));
        before < look_at && before.saturating_add(nodes) >= look_at
    }

    /// The statistics are of so many nodes now; nothing: nobody knows, and it is tried again.
    fn looked(&self, known: Option<u64>) {
        if let Some(known) = known {
            self.look_at.store(if known < ENOUGH_NODES { known.max(FIRST_NODES) } else { u64::MAX }, Ordering::Relaxed);
        }
        self.written.store(0, Ordering::Relaxed);
    }

    /// Ends looking, also what is under way: nobody who ends waits for statistics. They are gathered after the next start.
    pub(super) async fn end(&self) {
        self.ends.cancel();
        self.rest().await;
    }

    /// Returns when nobody looks any more.
    async fn rest(&self) {
        drop(self.looking.lock().await);
    }
}

impl Database {
    /// The database was opened: if it came from a dump, its statistics are gathered now.
    pub(super) fn began(self: &Arc<Self>) {
        if self.young.is_unknown {
            self.look_at_statistics();
        }
    }

    /// So many nodes were written here.
    pub(super) fn grew(self: &Arc<Self>, nodes: u64) {
        if nodes > 0 && self.young.counts(nodes) {
            self.look_at_statistics();
        }
    }

    /// The statistics of the nodes that a transaction has written, so that it finds them again. It had written so many before.
    pub(super) async fn grows(&self, conn: &mut PgConnection, before: u64, now: u64) -> Result<(), StoreError> {
        match self.young.is_surprised(before, now) {
            true => sqlx::raw_sql(GATHER_OWN).execute(conn).await.map(drop).map_err(store_error),
            false => Ok(()),
        }
    }

    /// Gathers statistics if there are too few, beside whatever else goes on.
    fn look_at_statistics(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            let looking = this.young.looking.lock().await;
            let Some(known) = this.young.ends.run_until_cancelled(this.renew_statistics()).await else { return };
            this.young.looked(known.as_ref().ok().copied());
            if let Err(error) = known {
                tracing::debug!(%error, "the statistics of a young database were not gathered");
            }
            drop(looking);
        });
    }

    /// By a connection of its own: it takes longer than a statement may, and nobody waits for it.
    async fn renew_statistics(&self) -> Result<u64, StoreError> {
        let mut conn = self.apart().await?;
        let nodes = gathered(&mut conn).await;
        let _ = conn.close().await;
        nodes
    }
}

/// How many nodes the statistics are of, which are gathered before if it is too few.
async fn gathered(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let (nodes, _) = known(conn).await?;
    if nodes >= ENOUGH_NODES {
        return Ok(nodes);
    }
    // Where the server cannot look after its clients, it ends by itself, a little later.
    let _ = sqlx::raw_sql(NOTICED_WITHIN).execute(&mut *conn).await;
    for statement in ["SET statement_timeout = 0", GATHER] {
        sqlx::raw_sql(statement).execute(&mut *conn).await.map_err(store_error)?;
    }
    Ok(known(conn).await?.0)
}

/// How many nodes the statistics are of, and whether there are none. The number of rows alone says nothing: it is known of whatever an index was made of,
/// as after a dump, and stays when a transaction that gathered statistics is rolled back.
async fn known(conn: &mut PgConnection) -> Result<(u64, bool), StoreError> {
    let asked = "SELECT CASE WHEN EXISTS (SELECT FROM pg_stats WHERE schemaname = nspname AND tablename = relname) THEN greatest(reltuples, 0) ELSE 0 END::bigint,
            pg_relation_size(files.oid) = 0
         FROM pg_class files JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE files.oid = 'files'::regclass";
    let row = sqlx::query(asked).fetch_one(conn).await.map_err(store_error)?;
    Ok((super::rows::count(&row, 0)?, row.try_get(1).map_err(store_error)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MetaStore;
    use crate::store::content::{ContentStore, NamespaceRow, NodeWrite, Scope};
    use crate::store::postgres::Postgres;
    use crate::store::testing::{Db, cluster, settings};
    use crate::store::tree::Standing;
    use ferry_protocol::wire::Role;
    use ferry_protocol::{Name, NamespaceId, NodeId, NodeState, Place, ReplicaId, Stamp, UserId};
    use std::time::{Duration, Instant};

    const NAMESPACE: [u8; 16] = [2; 16];

    /// A database in which PostgreSQL gathers nothing by itself, with one namespace; its address and its name.
    async fn left_alone() -> (String, String) {
        let url = Db::Postgres.url(std::path::Path::new("/"));
        let store = Postgres::open(&url, &[], &[], &settings()).await.unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let rows = "ALTER TABLE files SET (autovacuum_enabled = false); INSERT INTO owners (shard_key, user_id) VALUES (0, '\\x01');
             INSERT INTO namespaces (shard_key, namespace_id, owner_id, name, created_at)
             VALUES (0, decode(repeat('02', 16), 'hex'), '\\x01', '', 0)";
        cluster().sql(&database, rows);
        store.close().await;
        (url, database)
    }

    /// Waits until the statistics are of so many nodes.
    async fn until_known(database: &str, nodes: &str) {
        let gathered = "SELECT 'known ' || reltuples::bigint FROM pg_class WHERE oid = 'files'::regclass AND EXISTS (SELECT FROM pg_stats WHERE tablename = 'files')";
        let begun = Instant::now();
        loop {
            let known = cluster().sql(database, gathered);
            if known.split_whitespace().any(|word| word == nodes) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{known}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn write(store: &Postgres, numbers: std::ops::RangeInclusive<u64>) {
        let (id, replica) = (NamespaceId::from_bytes(NAMESPACE), ReplicaId::from_bytes([7; 16]));
        let row = NamespaceRow {
            id,
            owner: UserId::from_bytes([1; 16]),
            name: String::new(),
            is_home: false,
            head_seq: 0,
            settled_seq: 0,
            max_counter: 0,
            run: None,
            role: Role::Owner,
        };
        let node = |n: u64| NodeWrite {
            id: NodeId::from_bytes((u128::from(n) << 64).to_be_bytes()),
            seq: n,
            state: NodeState::new(Place {
                stamp: Stamp { counter: n, replica },
                parent: NodeId::ROOT,
                name: Name::new(format!("file {n}")).unwrap(),
            }),
            size_bytes: 1,
            file_type: "text/plain",
            hash: None,
            link_target: None,
            is_deleted: false,
            standing: Standing::Plain,
            before: None,
            changed_by: None,
        };
        let last = *numbers.end();
        let nodes: Vec<NodeWrite> = numbers.map(node).collect();
        let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
        tx.put_nodes(&row, &nodes, last, last, 1).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_first_nodes_bring_statistics_and_a_node_is_looked_up_by_its_id() {
        let (url, database) = left_alone().await;
        let store = Postgres::open(&url, &[], &[], &settings()).await.unwrap();
        write(&store, 1..=FIRST_NODES - 1).await;
        write(&store, FIRST_NODES..=FIRST_NODES).await;
        until_known(&database, &FIRST_NODES.to_string()).await;
        store.0.directory.young.rest().await;
        write(&store, FIRST_NODES + 1..=4000).await;
        until_known(&database, "4000").await;
        let plan = cluster().sql(
            &database,
            "SET plan_cache_mode = force_generic_plan; PREPARE asked (smallint, bytea, bytea[]) AS
             SELECT state FROM files WHERE shard_key = $1 AND namespace_id = $2 AND file_id = ANY ($3);
             EXPLAIN (COSTS OFF) EXECUTE asked (0::smallint, '\\x02', '{}')",
        );
        assert!(plan.contains("file_id = ANY") && !plan.contains("Filter: (file_id"), "{plan}");
        store.close().await;
    }

    /// How many gather statistics in a database now.
    fn gathering(database: &str) -> u64 {
        let asked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' AND query LIKE 'ANALYZE%' AND wait_event = 'PgSleep'"
        );
        cluster().sql("postgres", &asked).trim().parse().unwrap()
    }

    /// Statistics that take longer than anybody waits keep nobody from ending, and the server gives them up, too.
    #[tokio::test]
    async fn nobody_who_ends_waits_for_statistics() {
        let (url, database) = left_alone().await;
        // What is indexed is worked out for statistics as well; only there it takes its time.
        let slow = "CREATE FUNCTION slow(bytea) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN IF current_query() LIKE 'ANALYZE%' THEN PERFORM pg_sleep(3600); END IF; RETURN 1; END $$;
             CREATE INDEX slow ON files (slow(file_id))";
        cluster().sql(&database, slow);
        let store = Postgres::open(&url, &[], &[], &settings()).await.unwrap();
        // Not all at once: whoever writes that many has statistics of their own gathered, and waits for them.
        write(&store, 1..=FIRST_NODES - 1).await;
        write(&store, FIRST_NODES..=FIRST_NODES).await;
        let within = async |expected: u64| {
            let begun = Instant::now();
            while gathering(&database) != expected {
                assert!(begun.elapsed() < Duration::from_secs(60), "not {expected}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(1).await;
        tokio::time::timeout(Duration::from_secs(60), store.close()).await.expect("it waits for the statistics");
        within(0).await;
    }

    #[tokio::test]
    async fn rows_of_a_dump_get_statistics_at_the_start() {
        let (url, database) = left_alone().await;
        cluster().sql(
            &database,
            "INSERT INTO files (shard_key, namespace_id, file_id, seq, state, user_id, parent_id, file_name, file_size, file_type, is_deleted,
                created_at, updated_at)
             SELECT 0, decode(repeat('02', 16), 'hex'), decode(md5(n::text), 'hex'), n, '\\x00', '\\x01', '\\x03', decode(md5(n::text), 'hex'), 1,
                'text/plain', false, n, n FROM generate_series(1, 300) n;
             REINDEX TABLE files",
        );
        let rows = cluster().sql(&database, "SELECT 'known ' || reltuples::bigint FROM pg_class WHERE oid = 'files'::regclass");
        assert!(rows.contains("known 300"), "as a dump leaves it, whose indexes are made last: {rows}");
        let store = Postgres::open(&url, &[], &[], &settings()).await.unwrap();
        until_known(&database, "300").await;
        store.close().await;
    }

    #[test]
    fn it_is_looked_at_when_there_are_twice_as_many_until_there_are_enough() {
        let young = Young::new(0, false);
        assert!(!young.is_surprised(0, FIRST_NODES - 1) && young.is_surprised(1, FIRST_NODES));
        assert!(!young.is_surprised(FIRST_NODES, 2 * FIRST_NODES), "once in a transaction");
        assert!(!young.counts(FIRST_NODES - 1));
        assert!(young.counts(1), "the first ones");
        assert!(!young.counts(10_000), "who looks already is not joined");
        young.looked(None);
        assert!(young.counts(FIRST_NODES), "it failed, and is tried again");
        young.looked(Some(3000));
        assert!(!young.counts(2999));
        assert!(young.counts(1), "twice as many");
        young.looked(Some(ENOUGH_NODES));
        assert!(!young.counts(u64::MAX / 2) && !young.is_surprised(0, u64::MAX / 2), "enough for good");
        assert!(!Young::new(ENOUGH_NODES, false).counts(u64::MAX / 2), "and at the next start");
    }
}
