//! The rules of content, on a real SQLite.

mod chunks;
mod commits;
mod organise;
mod lacks;
mod plain;
mod refs;
mod restored;
mod storage;
mod together;
mod trash;
