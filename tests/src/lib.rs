//! The harness: what the tests of the whole workspace stand on. docs/TESTING.md says which part answers which question.
//!
//! | module | what it does |
//! |---|---|
//! | [`attacker`] | the other end of a connection between devices, in the hands of a test |
//! | [`api`] | the relay's plain HTTP API, for what a person does in the web client |
//! | [`cluster`] | a relay and devices as real processes, with the checks that every scenario ends with |
//! | [`relay`], [`device`] | one process each, its home and its command line |
//! | [`tree`] | what is on a disk, read from the disk |
//! | [`content`] | content that proves itself, and the sampler that looks for half files |
//! | [`net`] | hosts and LANs as network namespaces, and a cluster on them |
//! | [`proxy`] | the link between a device and its relay, to be cut |
//! | [`s3`] | a real S3 server in a process of its own |
//! | [`sim`] | the simulated world: real engines on simulated disks |
//! | [`poll`] | waiting for conditions; the only place that sleeps |
//! | [`postgres`] | a PostgreSQL server of a test's own |
//! | [`redis`] | a Redis server of a test's own |
//! | [`programs`] | where the built programs are |
//! | [`terminal`] | a pseudo-terminal: keys, and what is seen |

pub mod api;
pub mod attacker;
pub mod cluster;
pub mod content;
pub mod device;
pub mod net;
pub mod poll;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod s3;
pub mod sim;
pub mod terminal;
pub mod tree;
