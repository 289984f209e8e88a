//! The thinking of a device. Pure (sans-IO): no I/O, clock, randomness, threads or logging.
//!
//! ```text
//!  looks, hashes --> observe --> absorb --+--> remote tree (node states) --> view --> plan --> fetches, disk actions
//!  pages of feeds -----> hear, peers -----+         |                                            |
//!                                                   +--> publish --> commits      synced tree <--+-- outcome
//!                                                   +--> serve --> pages and chunks for peers
//! ```
//!
//! Invariants, by number in docs/ARCHITECTURE.md:
//!
//! * **E1** Same inputs, same outputs. * **E2** In every tree each node has a parent, and there are no cycles. * **E3** One writer per tree: `remote` by
//!   hear and absorb, `synced` by absorb and outcome; the planner only reads. * **E4** Work is never stored. * **E5** It comes to rest.
//! * **E6** No action discards bytes that exist only on this disk. * **E7** `synced` moves last, by what really happened. * **E8** Ignored, unreadable,
//!   absent and unknown are four different things. * **E9** Losing the index degrades to union and conflicts, never to a delete.
//! * **E10** The brake halts deletes until a person answers.

#![forbid(unsafe_code)]

mod absorb;
mod alarm;
mod backoff;
mod brake;
mod carried;
mod clearing;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod disk;
mod durable;
mod engine;
mod hear;
mod keeping;
mod matching;
pub mod memory;
mod merging;
mod missing;
mod observe;
mod outcome;
mod overlap;
mod peers;
#[cfg(test)]
mod peers_test;
mod plan;
pub mod policy;
mod publish;
mod query;
mod runs;
mod serve;
pub mod trees;
mod view;
#[cfg(test)]
mod view_test;

pub use alarm::MassChange;
pub use disk::{DiskAction, DiskOutcome, Kind, Listed, Obstacle, Stat};
pub use durable::seen_again;
pub use engine::{ChangeKind, Engine, Event, Issue, Pending};
pub use hear::{HearError, Heard};
pub use merging::{Keep, Merge, Merged};
pub use observe::{HashResult, HashTask, Look, LookResult};
pub use plan::{Batch, Fetch, LocalSource, Plan};
pub use policy::{Filter, NoFilter, Planted, Policy};
pub use publish::{ChunkAt, Commit};
pub use query::{Conflict, WhyFacts};
pub use serve::{ChunkPlace, OwnPage};
pub use trees::{FeedRun, Item, ItemContent, ItemKey, Meta, NodeRecord, PeerCursor, TreeError, Trees};
