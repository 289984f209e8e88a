//! A real daemon process with its home, driven by the command line as a person would.

use crate::net::Host;
use crate::poll::{until, until_true};
use crate::programs::program;
use crate::relay::{EMAIL, PASSWORD};
use crate::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a command said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// One device: a home, a synced folder, a daemon that runs or not.
pub struct Device {
    name: String,
    home: PathBuf,
    root: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    host: Option<Host>,
    lan: Option<u16>,
    /// Programs that each start the next one, and at last the daemon in their own place.
    behind: Vec<String>,
    env: Vec<(String, String)>,
}

impl Device {
    /// A device below `folder`; its daemon does not run yet. The synced folder is made empty.
    pub fn new(folder: &Path, name: &str) -> Self {
        let home = folder.join(format!("{name}.home"));
        let root = folder.join(name);
        std::fs::create_dir_all(&home).expect("a home");
        std::fs::create_dir_all(&root).expect("a folder");
        Self {
            name: name.into(),
            home,
            root,
            log: folder.join(format!("{name}.log")),
            child: None,
            host: None,
            lan: None,
            behind: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Another place for the synced folder.
    pub fn with_root(mut self, root: &Path) -> Self {
        self.root = root.into();
        self
    }

    /// Its daemon is started by these words, which end by executing what stands behind them: the process stays the daemon's.
    pub fn behind(mut self, words: &[&str]) -> Self {
        self.put_behind(words);
        self
    }

    /// [`Device::behind`] from the next start on.
    pub fn put_behind(&mut self, words: &[&str]) {
        self.behind = words.iter().map(|w| (*w).to_owned()).collect();
    }

    /// A variable of the daemon's environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// On a host of a test network; what it runs, runs there.
    pub fn on_host(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// On this machine's own network, but listening for other devices on a port of loopback that nobody is told of by announcements.
    pub fn with_lan(mut self) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        self.lan = Some(socket.local_addr().expect("it is bound").port());
        self
    }

    /// Where it listens for other devices.
    ///
    /// # Panics
    /// Without [`Device::with_lan`].
    pub fn lan_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.lan.expect("the device has a LAN")))
    }

    /// The host of a test network that it is on.
    ///
    /// # Panics
    /// If it is on none.
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("the device is on a host of a test network")
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `FERRY_HOME` of this device.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The synced folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the synced folder.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The daemon's log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The daemon's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn command(&self) -> Command {
        self.command_of(program("ferry"))
    }

    fn command_of(&self, program: PathBuf) -> Command {
        let mut command = self.host.as_ref().map_or_else(|| Command::new(&program), |host| host.command(&program));
        command.env("FERRY_HOME", &self.home).env("HOME", &self.home).env("NO_COLOR", "1").current_dir(&self.home);
        if let Some(port) = self.lan {
            command.env("FERRY_LAN_LISTEN", format!("127.0.0.1:{port}")).env("FERRY_LAN_DISCOVERY", "false");
        } else if self.host.is_none() {
            // On this machine's own network everything goes through the relay: what a test cuts is then cut, and tests do not meet.
            command.env("FERRY_LAN_ENABLED", "false");
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the daemon of {} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = match self.behind.split_first() {
            None => self.command(),
            Some((first, more)) => {
                let mut command = self.command_of(first.into());
                command.args(more).arg(program("ferry"));
                command
            }
        };
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.arg("daemon").stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("ferry starts"));
        until("the daemon answers", Duration::from_secs(60), || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("it ended with {status}; log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default()));
            }
            let answer = self.run(&["status", "--json"]);
            if answer.code == 0 { Ok(()) } else { Err(answer.err) }
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; it must end well.
    pub fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child, &self.name, &self.log);
        }
    }

    /// Runs `ferry …` for this device.
    pub fn run(&self, words: &[&str]) -> Answer {
        self.run_with_input(words, "")
    }

    /// [`Device::run`] with standard input.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Answer {
        let mut command = self.command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ferry starts");
        // A command that does not read its input may have ended already.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("ferry ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Begins `ferry …` with its output piped, for a command that waits for somebody.
    pub fn begin(&self, words: &[&str]) -> Child {
        let mut command = self.command();
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("ferry starts")
    }

    /// Runs a shell command line in a terminal of its own, for this device; `$FERRY` is the program.
    pub fn terminal(&self, line: &str) -> Terminal {
        let mut command = self.command();
        command.env("FERRY", program("ferry"));
        Terminal::run(&command, line)
    }

    /// Runs `ferry …`, which must succeed; its output.
    pub fn ok(&self, words: &[&str]) -> String {
        let answer = self.run(words);
        assert!(answer.code == 0, "{}: ferry {words:?} ended {}: {}{}", self.name, answer.code, answer.out, answer.err);
        answer.out
    }

    /// Links this device with the relay at `url`.
    pub fn login(&self, url: &str) {
        self.login_as(url, EMAIL, PASSWORD);
    }

    /// [`Device::login`] as another user.
    pub fn login_as(&self, url: &str, email: &str, password: &str) {
        let words = ["login", "--relay", url, "--email", email, "--password-stdin", "--name", &self.name];
        let answer = self.run_with_input(&words, &format!("{password}\n"));
        assert!(answer.code == 0, "{}: login ended {}: {}{}", self.name, answer.code, answer.out, answer.err);
    }

    /// Makes the folder a new namespace.
    pub fn add_new(&self, namespace: &str) {
        self.ok(&["folder", "add", &self.root.display().to_string(), "--name", namespace]);
    }

    /// Attaches the folder to a namespace that the relay has.
    pub fn attach(&self, namespace: &str) {
        self.ok(&["folder", "add", &self.root.display().to_string(), "--remote", namespace]);
    }

    /// `ferry status --json`, or why there is none.
    pub fn try_status(&self) -> Result<Json, String> {
        let answer = self.run(&["status", "--json"]);
        if answer.code != 0 {
            return Err(format!("{}: status ended {}: {}", self.name, answer.code, answer.err));
        }
        serde_json::from_str(&answer.out).map_err(|e| format!("{}: status is no JSON: {e}: {}", self.name, answer.out))
    }

    /// `ferry status --json`.
    pub fn status(&self) -> Json {
        self.try_status().expect("a status")
    }

    /// Whether all folders are up to date with nothing pending; otherwise what is not.
    pub fn is_quiet(&self) -> Result<(), String> {
        let status = self.try_status()?;
        for folder in status["folders"].as_array().into_iter().flatten() {
            let pending = ["upload", "download", "delete"].iter().map(|k| folder["pending"][k].as_u64().unwrap_or(0)).sum::<u64>();
            if folder["state"] != "up_to_date" || pending > 0 {
                return Err(format!("{}: {folder}", self.name));
            }
        }
        Ok(())
    }

    /// State of the only folder: `up_to_date`, `scanning`, `syncing`, `paused`, `held`, `error`.
    pub fn folder_state(&self) -> String {
        self.status()["folders"][0]["state"].as_str().unwrap_or("none").to_string()
    }

    /// Codes and paths of the issues of the only folder.
    pub fn issues(&self) -> Vec<(String, String)> {
        let status = self.status();
        let text = |v: &Json| v.as_str().unwrap_or("").to_string();
        let issues = status["folders"][0]["issues"].as_array().cloned().unwrap_or_default();
        issues.iter().map(|i| (text(&i["code"]), text(&i["path"]))).collect()
    }

    /// Waits until an issue names this path.
    pub fn until_issue(&self, path: &str) -> String {
        until(&format!("{} reports {path}", self.name), Duration::from_secs(60), || {
            let issues = self.issues();
            issues.iter().find(|(_, p)| p.ends_with(path)).map(|(code, _)| code.clone()).ok_or(format!("{issues:?}"))
        })
    }

    /// Waits until the only folder has this state.
    pub fn until_state(&self, state: &str) {
        until(&format!("{} is {state}", self.name), Duration::from_secs(60), || {
            let status = self.try_status()?;
            if status["folders"][0]["state"] == state { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Bytes that crossed to and from the relay, by the daemon's own count: in, out.
    pub fn relay_bytes(&self) -> (u64, u64) {
        let transfer = self.status()["transfer"].clone();
        (transfer["relay_in_bytes"].as_u64().unwrap_or(0), transfer["relay_out_bytes"].as_u64().unwrap_or(0))
    }

    /// Resident memory of the daemon in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
    }

    /// Open files of the daemon.
    pub fn open_files(&self) -> usize {
        self.pid().map_or(0, |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
    }

    /// Processor time that the daemon used so far, in milliseconds.
    pub fn cpu_ms(&self) -> u64 {
        let text = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
        let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<u64> = after.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        // Fields 14 and 15 of proc(5): user and system time in hundredths of a second.
        fields.get(11).zip(fields.get(12)).map_or(0, |(user, system)| (user + system) * 10)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends a process by SIGTERM; it must end with code 0 in time.
pub fn end(child: Child, who: &str, log: &Path) {
    end_all(vec![child], who, log);
}

/// Ends processes by SIGTERM, all at once; each must end with code 0 in time.
pub fn end_all(children: Vec<Child>, who: &str, log: &Path) {
    for pid in children.iter().filter_map(|child| Pid::from_raw(child.id() as i32)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    children.into_iter().for_each(|child| await_end(child, who, log));
}

fn await_end(mut child: Child, who: &str, log: &Path) {
    let mut status = None;
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until_true("it ends after SIGTERM", Duration::from_secs(30), || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
    }));
    if waited.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(status.is_some_and(|s| s.success()), "{who} ended with {status:?} after SIGTERM; log:\n{}", tail(&log, 30));
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
