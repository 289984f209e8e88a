//! What the relay keeps, behind traits: no rule lives here (R1). Each trait has one contract suite that runs against every implementation (R6).

pub mod accounts;
pub mod activity;
pub mod blob;
#[cfg(test)]
mod blob_contract;
pub mod blob_dir;
pub mod blob_memory;
#[cfg(feature = "cluster")]
pub mod blob_s3;
pub mod bus;
mod columns;
pub mod content;
#[cfg(test)]
mod contract;
pub mod dav;
#[cfg(test)]
mod dav_contract;
pub mod history;
pub mod keyfile;
pub mod limits;
pub mod links;
pub mod metered;
pub mod migration;
pub mod moves;
pub mod open_blobs;
pub mod peers;
#[cfg(feature = "cluster")]
pub mod postgres;
#[cfg(feature = "cluster")]
pub mod redis;
pub mod search;
pub mod shares;
pub mod signin;
pub mod snapshot;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
pub mod thumbnails;
pub mod tree;
pub mod versions;
#[cfg(test)]
mod versions_contract;

use crate::StartError;
use crate::config::{Config, DatabaseUrl};
use accounts::AccountStore;
use async_trait::async_trait;
use content::ContentStore;
use links::LinkStore;
use peers::PeerStore;
use shares::ShareStore;
use std::sync::Arc;

/// A metadata database: all that the relay keeps beside bytes, and what keeps it running.
#[async_trait]
pub trait MetaStore: AccountStore + PeerStore + ContentStore + ShareStore + LinkStore {
    /// What it is, for people.
    fn name(&self) -> &'static str;
    /// Answers when it can be read: the readiness check.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Looks for damage, as far as the database can tell.
    async fn integrity(&self) -> Result<(), StoreError>;
    /// Waits for running statements and closes the connections. Closed, it answers nothing any more.
    async fn close(&self);
    /// Whether it was closed.
    fn is_closed(&self) -> bool;
    /// The pools of connections, as they are now.
    fn pools(&self) -> Vec<PoolState>;
}

/// A pool of connections to a database, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Which pool.
    pub name: &'static str,
    /// Connections that are open.
    pub open: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// Most connections.
    pub max: u32,
}

/// Opens the metadata database that the configuration names, and brings it to this binary's schema. The one place that knows them all.
pub async fn open_meta(config: &Config) -> Result<Arc<dyn MetaStore>, StartError> {
    match config.database()? {
        DatabaseUrl::Sqlite(path) => {
            let failed = |e| StartError::Data(format!("cannot open the database {}: {e}", path.display()));
            Ok(Arc::new(sqlite::Sqlite::open(&path).await.map_err(failed)?))
        }
        #[cfg(feature = "cluster")]
        DatabaseUrl::Postgres(url) => {
            crate::install_tls_provider();
            let database = &config.database;
            let replicas = database.replicas_by_shard()?.into_iter().map(|(shard, urls)| (content::Shard(shard), urls)).collect();
            Ok(Arc::new(postgres::Postgres::open_with_replicas(&url, &database.shards, &replicas, &database.settings()).await?))
        }
        #[cfg(not(feature = "cluster"))]
        DatabaseUrl::Postgres(_) => Err(StartError::Data(
            "this build of the relay cannot use PostgreSQL; use one with the feature 'cluster', or sqlite://PATH".into(),
        )),
    }
}

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer now; nothing was done, or the transaction was rolled back. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A uniqueness or reference rule of the schema stands against the write; nothing was done.
    #[error("the write conflicts with {0}")]
    Conflict(String),
    /// What was read cannot be what was written: someone must look.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Another transaction stood in the way, and this one was rolled back. Done again from its beginning it may well succeed.
    #[error("another transaction stood in the way: {0}")]
    Contended(String),
    /// The store broke off while it made a transaction durable: whether that was done is not known. What its rows may name must stay.
    #[error("the store did not say whether this was done: {0}")]
    InDoubt(String),
    /// No space is left; nothing was done.
    #[error("the store is full: {0}")]
    Full(String),
}

/// How well something does that the relay can go on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As it should.
    Good,
    /// Not; the relay goes on, and this sentence says what is worse.
    Degraded(String),
}
