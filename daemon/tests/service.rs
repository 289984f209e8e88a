//! The daemon under a service manager: what it says when, and whether the units are sound.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use support::PATIENCE;

/// Waits for a message that has this line.
fn hear(socket: &UnixDatagram, line: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{line} was not said: {e}"));
        let said = std::str::from_utf8(&buffer[..length]).unwrap();
        if said.lines().any(|l| l == line || (line.ends_with('=') && l.starts_with(line))) {
            return;
        }
    }
}

#[test]
fn the_service_manager_hears_of_every_stage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_ferry"))
        .args(["daemon", "--home"])
        .arg(dir.path().join("home"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    hear(&socket, "READY=1");
    hear(&socket, "WATCHDOG=1");
    kill_process(pid, Signal::HUP).unwrap();
    hear(&socket, "RELOADING=1");
    hear(&socket, "STATUS=Up to date: 0 folders, no relay");
    kill_process(pid, Signal::TERM).unwrap();
    hear(&socket, "STOPPING=1");
    assert!(daemon.wait().unwrap().success());
}

/// `systemd-analyze` works without a running systemd; where it is missing, the greps in the crate hold the units.
#[test]
fn systemd_understands_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    for (name, user, exposure) in [("ferry.service", true, "65"), ("ferry@.service", false, "25")] {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join(name);
        let text = std::fs::read_to_string(units.join(name)).unwrap();
        std::fs::write(&unit, text.replace("/usr/bin/ferry", env!("CARGO_BIN_EXE_ferry"))).unwrap();
        for check in [&["--man=no", "verify"][..], &["--offline=true", "--threshold", exposure, "security"]] {
            let mut command = Command::new("systemd-analyze");
            command.env("XDG_RUNTIME_DIR", dir.path()).args(if user { &["--user"][..] } else { &[] }).args(check).arg(&unit);
            let Ok(output) = command.output() else { return };
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {check:?}: {said}");
        }
    }
}
