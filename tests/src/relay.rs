//! A real relay process with its data directory.

use crate::net::Host;
use crate::poll::until;
use crate::programs::{free_port, program};
use crate::tree;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The one user of most tests.
pub const EMAIL: &str = "anna@example.org";
/// Her password.
pub const PASSWORD: &str = "correct horse battery staple";

/// A relay: running or not, its data stays.
pub struct Relay {
    data: PathBuf,
    log: PathBuf,
    address: SocketAddrV4,
    child: Option<Child>,
    env: Vec<(String, String)>,
    host: Option<Host>,
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

    /// One more process of a relay that has its user already: the settings name what they share.
    pub fn beside(folder: &Path, env: &[(&str, &str)]) -> Self {
        let mut relay = Self::at(folder, env, SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()), None);
        relay.resume();
        relay
    }

    fn begin(folder: &Path, env: &[(&str, &str)], address: SocketAddrV4, host: Option<Host>) -> Self {
        let mut relay = Self::at(folder, env, address, host);
        relay.add_user(EMAIL, PASSWORD);
        relay.resume();
        relay
    }

    fn at(folder: &Path, env: &[(&str, &str)], address: SocketAddrV4, host: Option<Host>) -> Self {
        let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let relay = Self { data: folder.join("relay"), log: folder.join("relay.log"), address, child: None, env, host };
        std::fs::create_dir_all(&relay.data).expect("a data directory");
        relay
    }

    /// `ferry-relay user add`; the relay need not run.
    pub fn add_user(&self, email: &str, password: &str) {
        let mut child = self
            .command()
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

    /// Starts the process again on the same port and data.
    pub fn resume(&mut self) {
        assert!(self.child.is_none(), "the relay runs already");
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = self
            .command()
            .args(["serve", "--listen", &self.address.to_string(), "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("ferry-relay starts");
        self.child = Some(child);
        until("the relay listens", Duration::from_secs(60), || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("it ended with {status}; log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default()));
            }
            let knock = || TcpStream::connect(self.address).map(drop).map_err(|e| e.to_string());
            self.host.as_ref().map_or_else(knock, |host| host.inside(knock))
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
            crate::device::end(child, "the relay", &self.log);
        }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://ADDRESS:PORT`, for those on its host's network.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// All stored chunk bytes, to look for content in.
    pub fn stored_bytes(&self) -> Vec<u8> {
        let files = tree::all_files(&self.data.join("blobs"));
        files.iter().filter_map(|p| std::fs::read(p).ok()).flatten().collect()
    }

    /// `ferry-relay storage verify` finds nothing wrong (I5, I7).
    pub fn verify(&self) {
        let output = self.storage(&["verify"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "storage verify: {text}");
    }

    /// `ferry-relay storage …` on this relay's data.
    pub fn storage(&self, words: &[&str]) -> std::process::Output {
        self.command().arg("storage").args(words).arg("--data").arg(&self.data).output().expect("ferry-relay starts")
    }

    /// The same, begun: the caller ends it.
    pub fn begin_storage(&self, words: &[&str]) -> Child {
        let mut command = self.command();
        command.arg("storage").args(words).arg("--data").arg(&self.data).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("ferry-relay starts")
    }

    /// `ferry-relay …` on this relay's data.
    pub fn run(&self, words: &[&str]) -> std::process::Output {
        self.command().args(words).arg("--data").arg(&self.data).output().expect("ferry-relay starts")
    }

    fn command(&self) -> Command {
        let program = program("ferry-relay");
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
