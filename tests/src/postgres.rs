//! A PostgreSQL server of a test's own: on loopback, on a free port, in a temporary directory, gone when the process that started it ends in whatever way.
//!
//! This file stands alone (no crate but the standard library), because the relay's own tests include it too.

// Whoever includes the file uses a part of it.
#![allow(dead_code)]

use std::io::{Error, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Starts are tried again when somebody else took the port first.
const STARTS_MAX: u32 = 5;
static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// A running server without durability: what a test writes need not outlive it.
pub struct Cluster {
    port: u16,
    /// What it was started with, for the next start.
    options: String,
    dir: PathBuf,
    databases: AtomicU32,
    /// Waits for the end of its input, which comes however we end, and then stops the server.
    keeper: Child,
    input: Option<ChildStdin>,
}

impl Cluster {
    /// Makes and starts a server.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed (Debian: `apt-get install postgresql`) or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more settings, each `NAME=VALUE`.
    pub fn start_with(settings: &[&str]) -> Self {
        let dir = new_dir();
        run(as_server("initdb").args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"]).arg(dir.join("d")));
        Self::serve(dir, settings)
    }

    /// A streaming replica of this server. Needs `start_with(&["wal_level=replica"])`.
    pub fn replica(&self) -> Self {
        let dir = new_dir();
        let port = self.port.to_string();
        run(as_server("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-D"])
            .arg(dir.join("d")));
        Self::serve(dir, &[])
    }

    fn serve(dir: PathBuf, settings: &[&str]) -> Self {
        let (keeper, input) = keeper(&dir);
        let mut tried = 0;
        loop {
            tried += 1;
            let port = free_port();
            let mut options = format!(
                "-p {port} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=32MB -c max_connections=300",
                dir.display()
            );
            for setting in settings {
                options += &format!(" -c {setting}");
            }
            let mut start = as_server("pg_ctl");
            start.arg("-D").arg(dir.join("d")).args(["-w", "-t", "60", "-l"]).arg(dir.join("log")).args(["-o", &options, "start"]);
            if start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
                return Self { port, options, dir, databases: AtomicU32::new(0), keeper, input };
            }
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(tried < STARTS_MAX, "PostgreSQL does not start:\n{log}");
        }
    }

    /// A new, empty database; its address.
    pub fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        run(as_server("createdb").args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", &name]));
        self.url(&name)
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on, of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Copies a database that nobody is connected with into a new one.
    pub fn copy(&self, from: &str, to: &str) {
        run(as_server("createdb").args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-T", from, to]));
    }

    /// Removes a database and whoever is connected with it.
    pub fn remove(&self, database: &str) {
        run(as_server("dropdb").args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "--force", database]));
    }

    /// Lets SQL run in a database and gives what it printed, without headers.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        run(as_server("psql").args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            database,
            "-v",
            "ON_ERROR_STOP=1",
            "-AXqt",
            "-c",
            sql,
        ]))
    }

    /// Makes a replica a server of its own, as after the loss of its primary: a new timeline begins.
    pub fn promote(&self) {
        run(as_server("pg_ctl").arg("-D").arg(self.dir.join("d")).args(["-w", "promote"]));
    }

    /// `kill -9` of the server, whose own processes end with it.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.join("d/postmaster.pid")).expect("it runs");
        run(Command::new("kill").args(["-9", pid.lines().next().expect("its first line is the process")]));
    }

    /// Starts the server again on its port after [`Cluster::kill`] or [`Cluster::crash`].
    pub fn resume(&self) {
        let start = || {
            let mut start = as_server("pg_ctl");
            start.arg("-D").arg(self.dir.join("d")).args(["-w", "-t", "60", "-l"]).arg(self.dir.join("log")).args([
                "-o",
                &self.options,
                "start",
            ]);
            start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        // Processes of the one that was killed may be ending still.
        let started = (0..100).any(|_| {
            let is_up = start();
            if !is_up {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            is_up
        });
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert!(started, "PostgreSQL does not start again:\n{log}");
    }

    /// Stops the server at once, as a crash does. The directory stays until this value goes.
    pub fn crash(&self) {
        run(as_server("pg_ctl").arg("-D").arg(self.dir.join("d")).args(["-m", "immediate", "-w", "stop"]));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.input.take());
        // It has nobody to tell.
        let _ = self.keeper.wait();
    }
}

fn new_dir() -> PathBuf {
    let name = format!("ferry-postgres-{}-{}", std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(&dir));
    }
    dir
}

fn keeper(dir: &Path) -> (Child, Option<ChildStdin>) {
    let script = "trap '' INT TERM HUP; cat > /dev/null; \"$@\" > /dev/null 2>&1; cd /; rm -rf \"$DIR\"";
    let stop = as_server("pg_ctl");
    let mut keeper = Command::new("sh");
    keeper.args(["-c", script, "keeper"]).arg(stop.get_program()).args(stop.get_args());
    keeper.arg("-D").arg(dir.join("d")).args(["-m", "immediate", "-w", "stop"]).env("DIR", dir).current_dir("/");
    let mut child = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let input = child.stdin.take();
    (child, input)
}

/// One of PostgreSQL's programs as the user that may run a server: it refuses to be root.
fn as_server(program: &str) -> Command {
    let path = programs().join(program);
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/");
    command
}

/// The folder of the newest PostgreSQL that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = versions.filter_map(|v| Some((v.file_name().to_str()?.parse::<u32>().ok()?, v.path()))).max();
    let (_, path) = newest.expect("PostgreSQL is not installed; on Debian: apt-get install postgresql");
    path.join("bin")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map(|a| a.port()).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e: Error| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let _ = std::io::stderr().write_all(&output.stderr);
        panic!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    text
}
