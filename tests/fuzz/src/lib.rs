//! What each fuzz target asserts. The targets themselves only pass bytes on; `cargo test` here runs the kept corpus through the same functions.
//!
//! | module | question |
//! |---|---|
//! | [`decode`] | does every decoder refuse or accept within bounded memory, and is what it accepts encoded to the same? |
//! | [`names`] | is an accepted name a single component that stays where it is put? |
//! | [`session`] | does anything that a peer says open what no grant allows? |
//! | [`apply`] | does an engine take or refuse any page as a whole, with trees that stay trees? |
//! | [`input`] | choices out of bytes |
//!
//! Run one with `bash tests/fuzz/run 60 NAME`; docs/TESTING.md has the rest.

#[path = "../../../protocol/tests/suite/allocation.rs"]
mod allocation;
mod apply;
mod decode;
mod input;
mod names;
mod session;

pub use apply::page_apply;
pub use decode::{frame_decode, grant};
pub use names::path_component;
pub use session::peer_session;

#[cfg(test)]
mod corpus;
