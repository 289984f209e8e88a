//! Every body that crosses a network or lies in a store, from bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferry_fuzz::frame_decode(bytes));
