//! What the database reads to answer: a page costs what is on it, however long the feed is.

use super::{follow, nodes};
use crate::store::testing::{Db, cluster};

/// Nodes of the namespace, each a millisecond after the one before it.
const NODES: u64 = 20_000;
/// What one of these statements may read: about twice what it looks at by itself.
const READ_MAX: u64 = 4_000;

/// The rows that a plan has read, by what it says of itself.
fn rows_read(plan: &str) -> u64 {
    let after = |line: &str, word: &str| {
        let rest = line.split_once(word)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    plan.lines()
        .map(|line| match after(line, "actual rows=") {
            Some(rows) => rows * after(line, "loops=").unwrap_or(1),
            None => after(line, "Rows Removed by Filter: ").unwrap_or(0),
        })
        .max()
        .unwrap_or(0)
}

#[tokio::test]
async fn a_page_of_a_long_feed_reads_no_more_than_it_shows() {
    let dir = tempfile::tempdir().unwrap();
    let url = Db::Postgres.url(dir.path());
    let _store = Db::Postgres.open(&url).await;
    let database = url.rsplit('/').next().unwrap();
    cluster().sql(
        database,
        &format!(
            "INSERT INTO owners (shard_key, user_id) VALUES (0, '\\x01');
             INSERT INTO namespaces (shard_key, namespace_id, owner_id, name, created_at, head_seq) VALUES (0, '\\x02', '\\x01', '', 0, {NODES});
             INSERT INTO files (shard_key, namespace_id, file_id, seq, state, user_id, parent_id, file_name, file_size, file_type, is_deleted,
                created_at, updated_at)
             SELECT 0, '\\x02', decode(md5(n::text), 'hex'), n, '\\x00', '\\x01', '\\x03', decode(md5(n::text), 'hex'), 1, 'text/plain', false, n, n
             FROM generate_series(1, {NODES}) n; ANALYZE"
        ),
    );
    for (statement, values) in [
        (nodes::NEXT_IN_TIME, format!("{}, 1000", NODES - 10)),
        (nodes::NEXT_IN_TIME, "10, 1000".to_owned()),
        (nodes::BEFORE_IN_FEED, format!("{}, 1000, {}", NODES - 10, NODES - 10)),
        (nodes::BEFORE_IN_FEED, "10, 1000, 10".to_owned()),
        (follow::PAGE, "10, 100".to_owned()),
        (follow::PAGE, format!("{}, 100", NODES - 10)),
    ] {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let types = ["smallint", "bytea", "bigint", "bigint", "bigint"][..values.split(',').count() + 2].join(", ");
            let plan = cluster().sql(
                database,
                &format!(
                    "SET plan_cache_mode = {mode}; SET jit = off; PREPARE asked ({types}) AS {statement};
                     EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE asked (0::smallint, '\\x02', {values})"
                ),
            );
            assert!(rows_read(&plan) <= READ_MAX, "{mode}, {values}:\n{plan}");
        }
    }
}
