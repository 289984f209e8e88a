//! The one command for a newcomer: `ferry up`, and `ferry join` on the next device.

mod addresses;

pub use addresses::addresses_of;

use crate::cli::Context;
use crate::cli::args::{JoinArgs, UpArgs};
use crate::problem::{Outcome, Problem};

/// Runs `ferry up`.
pub async fn up(_context: &Context, _args: UpArgs) -> Outcome<u8> {
    Err(Problem::failed("not_built", "not built"))
}

/// Runs `ferry join`.
pub async fn join(_context: &Context, _args: JoinArgs) -> Outcome<u8> {
    Err(Problem::failed("not_built", "not built"))
}
