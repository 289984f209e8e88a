//! Messages and times, against a session and its grants.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferry_fuzz::peer_session(bytes));
