//! All tests of the workspace as a whole, in one binary (one link).
//!
//! | module | question | needs |
//! |---|---|---|
//! | [`convergence`] | do named scenarios end as the catalogue says? | nothing (simulated disks and relay) |
//! | [`tidy`] | does the repository keep the house rules? | nothing |
//!
//! docs/TESTING.md says which harness answers which question and how a failure is repeated.

mod convergence;
mod tidy;
