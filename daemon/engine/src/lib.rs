//! The thinking of a device. Pure: no I/O, clock, randomness or logging.

#![forbid(unsafe_code)]

pub mod disk;

pub use disk::{DiskAction, DiskOutcome, Kind, Listed, Obstacle, Stat};
