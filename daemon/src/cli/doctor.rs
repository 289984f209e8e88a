//! `ferry doctor`.

use super::Context;
use crate::problem::{Outcome, exit};

/// Looks for what could be wrong.
pub async fn run(_context: &Context) -> Outcome<u8> {
    Ok(exit::OK)
}
