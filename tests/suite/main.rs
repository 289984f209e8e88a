//! All tests of the workspace as a whole, in one binary (one link).
//!
//! | module | question | needs |
//! |---|---|---|
//! | [`convergence`] | do named scenarios end as the catalogue says? | nothing (simulated disks and relay) |
//! | [`e2e`] | do a real relay and real daemons do what the catalogue says? | the built programs; root for the rows that mount |
//! | [`lan`] | do devices on real networks, with and without a relay, do what the catalogue says? | the built programs, root, network namespaces |
//! | [`login`] | does a person let a device in on the page, and is a second factor asked for? | the built programs |
//! | [`merging`] | do two edits of one text become one where that is clean, and a conflict where not? | nothing (simulated disks and relay) |
//! | [`power_cut`] | what is on the disk after the power went? | root, a loop device |
//! | [`crash`] | do hundreds of random runs with faults end well? | nothing (the simulated world) |
//! | [`peers`] | do rows of the catalogue hold between devices of one LAN? | nothing (simulated disks and relay) |
//! | [`planner`] | is each planted bug caught? | nothing (the simulated world) |
//! | [`races`] | what if a user acts while a batch is carried out? | nothing (the simulated world) |
//! | [`properties`] | does the planner keep its fourteen properties on generated trees? | nothing (simulated disks and relay) |
//! | [`scenarios`] | do rows of the catalogue hold that happen between two steps of a device? | nothing (simulated disks and relay) |
//! | [`set_back`] | what if a store goes back in time, or an answer comes late? | nothing (the simulated world) |
//! | [`tidy`] | does the repository keep the house rules? | nothing |
//! | [`units`] | does systemd accept the units, and are they as closed as we say? | `systemd-analyze` |
//! | [`web`] | does the web client do in a browser what it promises? | the built programs, Node.js with npm, Chromium |
//! | [`webdav`] | do litmus, rclone, davfs2 and cadaver get on with the relay, and devices with them? | the built programs, those programs; root to mount |
//!
//! docs/TESTING.md says which harness answers which question and how a failure is repeated.

mod convergence;
mod crash;
mod e2e;
mod lan;
mod login;
mod merging;
mod peers;
mod planner;
mod power_cut;
mod properties;
mod races;
mod scenarios;
mod set_back;
mod tidy;
mod units;
mod web;
mod webdav;
