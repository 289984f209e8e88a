//! The rules of content, on real databases.

mod chunks;
mod commits;
mod lacks;
mod organise;
mod plain;
mod refs;
mod restored;
#[cfg(feature = "cluster")]
mod shared;
mod storage;
mod together;
mod trash;
