//! The hands of a device: watch, scan, disk, index, relay client, control socket, command line.
//!
//! | module | what it does |
//! |---|---|
//! | [`folder`] | one task per synced folder: the only owner of its engine |
//! | [`fs`] | the hands on the disk: roots, listings, hashing, staging, applying, trash, watching, ignore rules |
//! | [`events`] | what happened, for the activity log and the event stream |
//! | [`index`] | what a device knows between two runs: an ordered store that is right or set aside |
//! | [`relay`] | the client of the relay |
//! | [`identity`] | this device's key and its login |
//! | [`bandwidth`] | limits on bytes per second |

pub mod bandwidth;
pub mod events;
pub mod folder;
pub mod fs;
pub mod identity;
pub mod index;
pub mod relay;
