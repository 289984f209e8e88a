//! The rules of content, on real databases.

mod archive;
mod batch;
mod chunks;
mod commits;
mod cut_off;
#[cfg(feature = "cluster")]
mod ends;
#[cfg(feature = "cluster")]
mod follow;
#[cfg(feature = "cluster")]
mod in_doubt;
mod lacks;
mod merging;
#[cfg(feature = "cluster")]
mod moved;
mod organise;
mod parts;
mod plain;
mod refs;
mod regions;
mod restored;
mod retention;
mod rewind;
#[cfg(feature = "cluster")]
mod shared;
mod storage;
mod together;
mod trash;
mod tree;
