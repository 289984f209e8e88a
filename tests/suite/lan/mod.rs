//! Real processes on networks of namespaces. Each row of `faults.md` 4 that is played here is named by its id.
//!
//! | module | rows |
//! |---|---|
//! | [`relay_only`] | the LAN is only faster: with it off, or with no way between the devices, all is the same |
//!
//! Results are read from disks; what a device says is looked at only where the row is about what it says.

mod relay_only;
