//! The rules of content, on a real SQLite.

mod chunks;
mod commits;
mod organise;
mod plain;
mod restored;
mod storage;
mod together;
mod trash;
