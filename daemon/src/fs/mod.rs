//! The hands on the disk: everything that reads or changes a synced folder.
//!
//! | module | what it does |
//! |---|---|
//! | [`root`] | attaches, opens and proves the root of a folder (I3) |
//! | [`list`](mod@list) | lists directories, tells what stands under a name |
//! | [`hash`] | reads files: manifests for the index, verified chunks for others |
//! | [`early`] | collects a file that its sender still reads |
//! | [`stage`] | collects the chunks of a file that is on its way (I5) |
//! | [`apply`](mod@apply) | changes the disk in batches (I4, I6, I7) |
//! | [`bases`] | keeps versions of texts that a merge may need |
//! | [`trash`] | keeps what was displaced or removed (I2) |
//! | [`watch`] | file events as hints |
//! | [`ignore`] | which paths are not synced |
//! | [`case`] | whether the disk folds case or normalises names |
//!
//! All functions block and are meant for worker threads. The rules that hold in this module:
//!
//! * **F1** A path below the root is resolved once, to a directory handle, without following any link or crossing a mount point; what
//!   happens then happens through that handle (I12).
//! * **F2** No handle outlives the call that opened it, save the file of a [`stage::Stage`]: the disk can be unmounted at rest.
//! * **F3** Every call that goes by a root first proves that its path still leads to the directory that was attached (I3).
//! * **F4** What belonged to the user is never unlinked: it is renamed, at the most into the trash (I2). Only empty directories and
//!   Ferry's own temporary files are unlinked.

pub mod apply;
pub mod bases;
pub mod case;
pub mod early;
#[cfg(test)]
mod fixture;
mod handle;
pub mod hash;
pub mod ignore;
pub mod list;
pub mod root;
pub mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_disk;
pub mod trash;
pub mod watch;

pub use self::ignore::{IgnoreRules, Verdict};
pub use apply::{Unsynced, apply, apply_each, sync};
pub use early::EarlyStage;
pub use handle::PathError;
pub use hash::{HashOutcome, OnChunk, hash_file, read_chunk};
pub use list::{list, read_link, stat};
pub use root::{FolderMarker, InstanceId, Root, RootError, RootIdentity};
pub use stage::{Stage, Staged};
pub use watch::{Hint, RescanReason, WatchHealth, Watcher};
