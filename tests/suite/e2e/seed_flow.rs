//! The flows of the relay's HTTP API as a program without Ferry sees them: `tests/seed_flow.sh`, by curl alone.

use ferry_tests::relay::Relay;
use std::path::Path;
use std::process::Command;

#[test]
fn the_flows_work_by_curl_alone() {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let mut relay = Relay::start_with(
        folder.path(),
        &[("FERRY_RELAY__AUTH__REGISTRATION", "open"), ("FERRY_RELAY__AUTH__DEFAULT_STORAGE_LIMIT_BYTES", "20000000")],
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("seed_flow.sh");
    let output = Command::new("bash").arg(script).arg(folder.path()).env("BASE", relay.url()).output().expect("bash is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    relay.stop();
    relay.verify();
}
