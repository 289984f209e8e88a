//! Waiting for a condition, never for time: the one place in the tests that sleeps.

use std::time::{Duration, Instant};

/// Asks until there is an answer. Panics after `limit` with what was waited for and the last reason that was given.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() >= deadline => panic!("not after {limit:?}: {what}\n{reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(60)),
        }
    }
}

/// [`until`] for a plain condition.
pub fn until_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    until(what, limit, || if ask() { Ok(()) } else { Err("still false".into()) })
}

/// A pause of a scripted writer: part of what is played, not a wait for an effect.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}
