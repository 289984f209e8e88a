//! Real processes: a relay and daemons on loopback, looked at from outside. Each row of `faults.md` 4 that is played here is named by its id.
//!
//! | module | rows |
//! |---|---|
//! | [`basic`] | B: what a person does with files, from each device to the other |
//! | [`special`] | B: ignored, unreadable, odd and adopted files |
//! | [`editors`] | E: how programs save |
//! | [`conflicts`] | C01-C21: edits on two devices that do not know of each other |
//! | [`races`] | C30-C33: a remote change meets a local one that nobody has scanned |
//! | [`crashes`] | K: kill -9, full disk, lost and damaged index |
//! | [`limits`] | K10 to K12, K39, Q: open files, connections, full disks of state and relay, a folder that is removed |
//! | [`roots`] | K20-K24: roots that vanish, deletes that need a yes |
//! | [`relays`] | P, X: cut connections, a restored relay, lost wake-ups, damaged chunks |
//! | [`restores`] | P19: database and chunks of different times |
//! | [`stores`] | a relay that keeps its chunks on S3, and packs that move |
//! | [`watches`] | Q01, Q02: too few watches, events that are lost |
//! | [`links`] | R39-R43: public links by the command line |
//! | [`members`] | L23, P15: an infected device, one that was away for long |
//! | [`merging`] | two edits of one text that become one version |
//! | [`history`] | versions by the command line, and how long they are kept |
//! | [`panics`] | K37: mistakes of ours over one path or one folder |
//! | [`model`] | C41: random reads, writes and deletes, explained by a model or not |
//! | [`terminal`] | `ferry tui` in a pseudo-terminal, as a person sees it |
//! | [`sharing`] | folders and files shared with another person; R18, R21 |
//! | [`seed_flow`] | the flows of the relay's HTTP API by curl alone |
//!
//! To repeat one: `bash tests/run NAME`, for example `bash tests/run e2e::conflicts`.

mod basic;
mod conflicts;
mod crashes;
mod editors;
mod history;
mod limits;
mod links;
mod members;
mod merging;
mod model;
mod panics;
mod races;
mod relays;
mod restores;
mod roots;
pub mod rows;
mod seed_flow;
mod sharing;
mod special;
mod stores;
mod terminal;
mod watches;

pub use crashes::Dice;
pub use roots::{Mount, can_mount, make_image};
