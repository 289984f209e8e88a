//! What the relay keeps, behind traits: no rule lives here (R1). Each trait has one contract suite that runs against every implementation (R6).

pub mod accounts;
pub mod blob;
pub mod blob_dir;
pub mod blob_memory;
#[cfg(feature = "cluster")]
pub mod blob_s3;
pub mod bus;
pub mod content;
#[cfg(test)]
mod contract;
pub mod keyfile;
pub mod limits;
pub mod metered;
pub mod open_blobs;
pub mod peers;
#[cfg(feature = "cluster")]
pub mod redis;
pub mod snapshot;
pub mod sqlite;

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
