//! Proofs of the protocol: that the laws hold, that the code agrees with its executable specification, that hostile bytes are refused,
//! and that the formats stay what they are.
//!
//! | module | question |
//! |---|---|
//! | [`vectors`] | do `join` and `resolve` agree with `model.py`? |
//! | [`laws`] | do the laws of `faults.md` 5.3 hold on random histories of three replicas? |
//! | [`roundtrip`] | is decoding the inverse of encoding, for every body? |
//! | [`hostile`] | are damaged and lying bytes refused, without a panic and within bounded memory? |
//! | [`grants`] | are grants that lie or are not signed refused? |
//! | [`lan`] | what do a stranger, a revoked device and a viewer get of a session? |
//! | [`merging`] | are merges of texts the same everywhere, and is nothing lost in them? |
//! | [`golden`] | are the bytes of every format still those that are written down? |
//! | [`cuts`] | does the chunker cut where it always cut? |
//!
//! [`history`] makes the random histories. Repeat a failure by the seed that proptest prints and keeps in `proptest-regressions`.

mod allocation;
mod cuts;
mod golden;
mod grants;
mod history;
mod hostile;
mod lan;
mod laws;
mod merging;
mod roundtrip;
mod vectors;
