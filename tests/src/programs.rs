//! Where the built programs are, and free ports of the loopback address.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The program `name` beside the running test. Panics with what to do if it was not built.
pub fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("the running program has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built; run `bash tests/run`, which builds it first", path.display());
    path
}

/// Ports that the system gives to nobody's outgoing connections, so that one stays free while a relay is stopped.
const PORTS: std::ops::Range<u32> = 11_000..32_000;

/// A loopback port that was free a moment ago; no two calls of this process give the same one until all were given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes beside each other begin at different places.
    let begin = std::process::id().wrapping_mul(7919);
    (0..PORTS.len())
        .map(|_| (PORTS.start + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
