//! All tests of the workspace as a whole, in one binary (one link).
//!
//! | module | question | needs |
//! |---|---|---|
//! | [`tidy`] | does the repository keep the house rules? | nothing |
//!
//! docs/TESTING.md says which harness answers which question and how a failure is repeated.

mod tidy;
