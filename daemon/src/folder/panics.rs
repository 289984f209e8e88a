//! Mistakes of ours that a test plants: a panic at a place, over a name (K37). A release build knows none.

/// Panics if the environment says so: `FERRY_TEST_PANIC` is `PLACE:NAME`, several divided by commas.
#[cfg(debug_assertions)]
pub(super) fn planted(place: &str, name: &[u8]) {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let Some(planted) = PLANTED.get_or_init(|| std::env::var("FERRY_TEST_PANIC").ok()) else { return };
    let here = |one: &str| one.split_once(':').is_some_and(|(at, of)| at == place && of.as_bytes() == name);
    assert!(!planted.split(',').any(here), "a test planted this panic");
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) fn planted(_: &str, _: &[u8]) {}
