//! Grants and signed grants, from bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferry_fuzz::grant(bytes));
