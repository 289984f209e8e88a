//! Content on PostgreSQL. Statements that one shard answers take a connection and the shard's key; [`read`] routes reads, [`write`] is the transaction.

mod activity;
mod begin;
pub(super) mod chunks;
mod dav;
mod follow;
mod history;
mod nodes;
#[cfg(all(test, feature = "cluster"))]
mod plans;
mod purge;
mod read;
mod regions;
mod repair;
mod retention;
mod search;
mod sweep;
mod tree;
mod uploads;
mod versions;
mod write;

pub(super) use write::PgTx;

/// Rows in one statement: large enough that the cost per statement vanishes, small enough to be held in memory twice.
const BATCH: usize = 2000;
