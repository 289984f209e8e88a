//! The rules of content, on real databases.

mod archive;
mod chunks;
mod commits;
#[cfg(feature = "cluster")]
mod follow;
mod cut_off;
mod lacks;
mod merging;
#[cfg(feature = "cluster")]
mod moved;
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
mod tree;
