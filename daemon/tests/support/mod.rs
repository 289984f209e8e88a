//! A device under a home of its own, driven by the real program.

#![allow(dead_code, reason = "each test program uses a part of it")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of the program gave.
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its data.
    pub out: String,
    /// Its messages.
    pub err: String,
}

impl Ran {
    /// The document on stdout.
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not one JSON document ({e}): {:?} {:?}", self.out, self.err))
    }

    /// The error object on stderr.
    pub fn error(&self) -> Value {
        let last = self.err.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("no error object ({e}): {:?} {:?}", self.out, self.err))
    }
}

/// A device.
pub struct Device {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Device {
    /// A new one; nothing runs.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), daemon: None }
    }

    /// A path beside the device's home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir.path());
        command.env("FERRY_HOME", self.path("home")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, "")
    }

    /// Runs the program with something on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts a long run in the background.
    pub fn spawn(&self, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (child, out)
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        let child = self.command(&["daemon"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.daemon = Some(child);
        until("the daemon answers", || self.run(&["status", "--json"]).code == 0);
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Asks the daemon to stop; answers its exit code.
    pub fn stop_daemon(&mut self) -> i32 {
        let child = self.daemon.take().unwrap();
        stop(child, rustix::process::Signal::TERM)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process of ours and waits for its end; answers its exit code.
pub fn stop(mut child: Child, signal: rustix::process::Signal) -> i32 {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
    child.wait().unwrap().code().unwrap_or(-1)
}

/// Polls a condition until it holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// The next line of a stream, as JSON.
pub fn next_record(out: &mut impl BufRead) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("not a record ({e}): {line:?}"))
}
