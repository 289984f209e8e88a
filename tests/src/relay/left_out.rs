//! The tests that are about a relay of one process with its directory, with the reason of each. On the topology they are left out, said and counted.
//! A house rule (`tests/suite/tidy.rs`) compares this list with the tests.

use super::Kind;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Test function, and why it has no meaning for a relay of many processes.
pub const EMBEDDED_ONLY: &[(&str, &str)] = &[(
    "k30_the_power_of_the_relay_goes",
    "cuts the power of the one disk that all of an embedded relay is on; PostgreSQL and the S3 server of the topology have disks of their own",
)];

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Whether this run plays the topology, for which the named test has no meaning; says so where no test's output is held back.
///
/// # Panics
///
/// When the test is not in [`EMBEDDED_ONLY`].
pub fn embedded_only(test: &str) -> bool {
    let reason = EMBEDDED_ONLY.iter().find(|(name, _)| *name == test).map(|(_, reason)| reason);
    let reason = reason.unwrap_or_else(|| panic!("{test} is not in the list of tests for one process"));
    if Kind::of_this_run() == Kind::Embedded {
        return false;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = writeln!(std::io::stderr(), "NOT RUN on the topology ({count} of {}): {test}: {reason}", EMBEDDED_ONLY.len());
    true
}
