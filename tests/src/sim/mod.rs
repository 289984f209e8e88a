//! The simulated world: real engines on simulated disks, with a simulated relay between them. One thread, no clock, no sockets: the same
//! seed gives the same run.

pub mod calm;
pub mod device;
pub mod disk;
pub mod lan;
mod merging;
pub mod relay;
pub mod rng;
pub mod user;
pub mod world;

pub use calm::Calm;
pub use device::{Device, Step};
pub use disk::{SimDisk, path};
pub use lan::Lan;
pub use relay::SimRelay;
pub use rng::Rng;
