//! The rules of content, on real databases.

mod chunks;
mod commits;
mod cut_off;
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
