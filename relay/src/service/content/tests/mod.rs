//! The rules of content, on real databases.

mod archive;
mod chunks;
mod commits;
mod lacks;
mod merging;
mod organise;
mod plain;
mod refs;
mod regions;
mod restored;
mod rewind;
#[cfg(feature = "cluster")]
mod shared;
mod storage;
mod together;
mod trash;
