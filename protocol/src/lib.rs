//! The words that a device and a relay share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | ids of fixed size: devices, replicas, namespaces, nodes, chunks |
//! | [`name`] | one safe path component ([`Name`]), relative paths, the fold key for names that clash on some disks |
//! | [`node`] | the state of a node: its places, its body (a dotted version vector set), its attributes |
//! | [`join`](mod@join) | the one law of merging: a semilattice on node states |
//! | [`read`] | the one law of reading: which tree a set of node states shows |
//! | [`conflict`] | names of conflicted copies |
//! | [`merge`] | when two edits of one text are joined line by line, and how |
//! | [`manifest`] | what a file's content is: chunks and the hash of the whole |
//! | [`chunker`] | where a file is cut (FastCDC) |
//! | [`wire`] | bodies that cross a network or rest on a disk, with their versions |
//! | [`grant`] | which devices may take part in a namespace, signed by the relay |
//! | [`lan`] | what two devices say to each other on a LAN: messages, grants that are known, the session |
//! | [`limits`] | every cap, with units in its name |
//!
//! This crate neither reads a clock nor touches a disk, a socket or a random source. Its invariants:
//!
//! * **P1** Decoding what we encoded returns the same value; golden bytes hold every format.
//! * **P2** A [`Name`] that could leave the folder cannot be constructed, decoded or deserialised.
//! * **P3** Chunk bytes of unknown origin and verified bytes are different types; only hashing converts one to the other.
//! * **P4** A length from outside is compared with [`limits`] before anything is allocated.

#![forbid(unsafe_code)]

mod bounded;
pub mod chunker;
pub mod conflict;
pub mod grant;
pub mod id;
pub mod join;
pub mod lan;
pub mod limits;
pub mod manifest;
pub mod merge;
pub mod name;
pub mod node;
pub mod read;
pub mod wire;

pub use id::{ChunkId, CommitId, ContentHash, DeviceId, Epoch, NamespaceId, NodeId, ReplicaId, UserId};
pub use manifest::{ChunkRef, Manifest, VerifiedChunk};
pub use name::{Name, NameError, RelPath};
pub use node::{Attributes, Author, Base, Body, Content, Dot, FileContent, NodeState, Place, Stamp, Stamped, Value};
