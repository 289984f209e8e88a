//! The hands of a device: watch, scan, disk, index, relay client, control socket, command line.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`ui`], [`up`] | the command line, its printing, and the one-command start |
//! | [`tui`] | `ferry tui`: the daemon on one screen |
//! | [`control`] | the daemon's socket |
//! | [`supervisor`] | the daemon as a whole: folders, the relay session, signals |
//! | [`folder`] | one task per synced folder: the only owner of its engine |
//! | [`fs`] | the hands on the disk: roots, listings, hashing, staging, applying, trash, watching, ignore rules |
//! | [`events`] | what happened, for the activity log and the event stream |
//! | [`index`] | what a device knows between two runs: an ordered store that is right or set aside |
//! | [`lan`] | devices nearby, directly over QUIC |
//! | [`relay`] | the client of the relay |
//! | [`identity`] | this device's key and its login |
//! | [`bandwidth`], [`memory`] | limits on bytes per second; what the allocator keeps |
//! | [`paths`], [`config`], [`quantity`] | where things are kept, settings, and quantities as people write them |
//! | [`problem`], [`durable`] | what went wrong, as every surface tells it; small files that are never half written |

pub mod bandwidth;
pub mod cli;
pub mod config;
pub mod control;
pub mod durable;
pub mod events;
pub mod folder;
pub mod fs;
pub mod identity;
pub mod index;
pub mod lan;
pub mod memory;
pub mod paths;
pub mod problem;
pub mod quantity;
pub mod relay;
pub mod supervisor;
pub mod tui;
pub mod ui;
pub mod up;
