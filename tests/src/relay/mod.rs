//! A real relay with its stores: one process with everything in a directory, or, with `FERRY_TEST_RELAY=topology`, the deployment of many processes.
//!
//! | module | what it does |
//! |---|---|
//! | [`stores`] | what a test reads and changes behind the relay's back: chunks, database, copies of both |
//! | [`topology`] | NGINX, five services and pages over PostgreSQL, Redis and an S3 server |
//! | [`left_out`] | the tests that are about one process with its directory, and why |
//!
//! A test need not know which one it got: address, commands, start and end, and the stores are the same words.

pub mod left_out;
pub mod stores;
pub mod topology;

use crate::device::end_all;
use crate::net::Host;
use crate::poll::until;
use crate::programs::{free_port, program};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use topology::Topology;

/// The one user of most tests.
pub const EMAIL: &str = "anna@example.org";
/// Her password.
pub const PASSWORD: &str = "correct horse battery staple";

/// Which relay tests get: `FERRY_TEST_RELAY` is `embedded` (or not set) or `topology`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One process, SQLite, a directory.
    Embedded,
    /// NGINX, each service as a process, PostgreSQL, Redis, S3.
    Topology,
}

impl Kind {
    /// The kind of this run.
    ///
    /// # Panics
    ///
    /// When the variable holds another word: a test of the wrong thing would pass.
    pub fn of_this_run() -> Self {
        match std::env::var("FERRY_TEST_RELAY").as_deref() {
            Err(_) | Ok("" | "embedded") => Self::Embedded,
            Ok("topology") => Self::Topology,
            Ok(other) => panic!("FERRY_TEST_RELAY is {other}; there are embedded and topology"),
        }
    }
}

/// A relay: running or not, its data stays.
pub struct Relay {
    data: PathBuf,
    log: PathBuf,
    address: SocketAddrV4,
    /// The processes that run now; what they stand on is not among them.
    children: Vec<Child>,
    env: Vec<(String, String)>,
    host: Option<Host>,
    topology: Option<Topology>,
}

/// The port of a relay on a host of a test network, where nothing else listens.
const PORT: u16 = 8080;

impl Relay {
    /// Makes the user and starts a relay below `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// [`Relay::start`] with settings in the environment, such as `FERRY_RELAY__AUTH__REGISTRATION`.
    pub fn start_with(folder: &Path, env: &[(&str, &str)]) -> Self {
        Self::begin(folder, env, SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()), None)
    }

    /// [`Relay::start_with`] on a host of a test network.
    pub fn start_on(host: &Host, folder: &Path, env: &[(&str, &str)]) -> Self {
        Self::begin(folder, env, SocketAddrV4::new(host.address(), PORT), Some(host.clone()))
    }

    /// Another process of the relay that these settings describe, with a data directory of its own below `folder`: what the processes share, users
    /// included, is where the settings say.
    pub fn start_another(folder: &Path, env: &[(&str, &str)]) -> Self {
        let mut relay = Self::stopped(folder, env, SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()), None);
        relay.resume();
        relay
    }

    fn begin(folder: &Path, env: &[(&str, &str)], address: SocketAddrV4, host: Option<Host>) -> Self {
        let mut relay = Self::stopped(folder, env, address, host);
        relay.add_user(EMAIL, PASSWORD);
        relay.resume();
        relay
    }

    fn stopped(folder: &Path, env: &[(&str, &str)], address: SocketAddrV4, host: Option<Host>) -> Self {
        let topology = (Kind::of_this_run() == Kind::Topology).then(|| Topology::start(folder, address, host.as_ref()));
        let own = topology.iter().flat_map(|t| t.settings().to_vec());
        // What a test asks for wins.
        let env = own.chain(env.iter().map(|(k, v)| ((*k).into(), (*v).into()))).collect();
        let (data, log) = (folder.join("relay"), folder.join("relay.log"));
        let relay = Self { data, log, address, children: Vec::new(), env, host, topology };
        std::fs::create_dir_all(&relay.data).expect("a data directory");
        relay
    }

    /// `ferry-relay user add`; the relay need not run.
    pub fn add_user(&self, email: &str, password: &str) {
        let mut child = self
            .command("ferry-relay")
            .args(["user", "add", email, "--password-stdin", "--admin", "--data"])
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ferry-relay starts");
        child.stdin.take().expect("it is piped").write_all(format!("{password}\n").as_bytes()).expect("it reads the password");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "user add: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it again on the same port and data.
    pub fn resume(&mut self) {
        assert!(self.children.is_empty(), "the relay runs already");
        match self.topology.as_ref().map(|t| (t.services(), t.nginx_conf())) {
            None => {
                let mut command = self.command("ferry-relay");
                command.args(["serve", "--listen", &self.address.to_string(), "--data"]).arg(&self.data);
                self.children.push(self.spawn(command));
                self.until_listens(self.address);
            }
            Some((services, nginx_conf)) => {
                for service in &services {
                    let mut command = self.command("ferry-relay");
                    let data = self.data.with_file_name(format!("relay-{}", service.role));
                    command.args(["serve", "--role", service.serves(), "--listen", &service.address.to_string(), "--data"]).arg(data);
                    self.children.push(self.spawn(command));
                }
                services.iter().for_each(|service| self.until_listens(service.address));
                let mut nginx = self.command("nginx");
                nginx.args(["-e", "stderr", "-g", "daemon off; master_process off;", "-c"]).arg(nginx_conf);
                self.children.push(self.spawn(nginx));
                self.until_listens(self.address);
            }
        }
    }

    fn spawn(&self, mut command: Command) -> Child {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let second = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(second).stderr(log).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    fn until_listens(&mut self, address: SocketAddrV4) {
        until("the relay listens", Duration::from_secs(60), || {
            for child in &mut self.children {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("it ended with {status}; log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default()));
                }
            }
            let knock = || TcpStream::connect(address).map(drop).map_err(|e| e.to_string());
            self.host.as_ref().map_or_else(knock, |host| host.inside(knock))
        });
    }

    /// kill -9 of every process of the relay itself, its proxy too.
    pub fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; it must end well. Of the topology the services end first, while the proxy answers in their place, and the proxy last.
    pub fn stop(&mut self) {
        let mut children = std::mem::take(&mut self.children);
        let proxy = self.topology.as_ref().and_then(|_| children.pop());
        end_all(children, "the relay", &self.log);
        end_all(proxy.into_iter().collect(), "the proxy", &self.log);
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://ADDRESS:PORT`, for those on its host's network.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The ids of its processes, while it runs.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// `ferry-relay storage verify` finds nothing wrong (I5, I7).
    pub fn verify(&self) {
        let output = self.storage(&["verify"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "storage verify: {text}");
    }

    /// `ferry-relay storage …` on this relay's data.
    pub fn storage(&self, words: &[&str]) -> std::process::Output {
        self.command("ferry-relay").arg("storage").args(words).arg("--data").arg(&self.data).output().expect("ferry-relay starts")
    }

    /// The same, begun: the caller ends it.
    pub fn begin_storage(&self, words: &[&str]) -> Child {
        let mut command = self.command("ferry-relay");
        command.arg("storage").args(words).arg("--data").arg(&self.data).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("ferry-relay starts")
    }

    /// `ferry-relay …` on this relay's data.
    pub fn run(&self, words: &[&str]) -> std::process::Output {
        self.command("ferry-relay").args(words).arg("--data").arg(&self.data).output().expect("ferry-relay starts")
    }

    /// One of our programs or of the system's, on the relay's host and with the relay's settings.
    fn command(&self, name: &str) -> Command {
        let program = if name.starts_with("ferry") { program(name) } else { topology::system_program(name) };
        let mut command = self.host.as_ref().map_or_else(|| Command::new(&program), |host| host.command(&program));
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}
