//! The web client in Chromium: `tests/web/run` drives it against a real relay and a real device.

use ferry_tests::programs::program;
use std::process::Command;

/// One test for all of it, so that relay, device and browser start once; the names of what failed stand in the output.
#[test]
fn the_web_client_in_a_browser() {
    let programs = program("ferry-relay").parent().expect("a program lies in a folder").to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/web/run");
    let output = Command::new("bash").arg(script).env("FERRY_BIN", programs).output().expect("bash starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // All of it ran: the modules, and the client with its largest suite.
    assert!(out.contains("the hash in pieces is the hash of the whole") && out.contains("hostile names are text"), "{out}");
}
