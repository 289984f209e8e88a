//! Where the built programs are, and free ports of the loopback address.

use std::net::TcpListener;
use std::path::PathBuf;

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

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
