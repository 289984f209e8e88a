//! Pages of a feed, handed to an engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferry_fuzz::page_apply(bytes));
