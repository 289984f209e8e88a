//! A relay process of a test, and requests to it as plain as they go over the wire.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here may take; a hang fails instead of standing still.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const EMAIL: &str = "ana@example.org";
pub const PASSWORD: &str = "correct horse battery";

/// The program with nothing of this machine's environment but the `PATH`.
pub fn program(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry-relay"));
    command.env_clear().env("FERRY_RELAY__DATA", data).stdin(Stdio::null());
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

pub fn run(data: &Path, words: &[&str]) -> Output {
    run_with(data, &[], words)
}

/// [`run`] with settings of the environment.
pub fn run_with(data: &Path, env: &[(&str, &str)], words: &[&str]) -> Output {
    program(data).args(words).envs(env.iter().copied()).output().unwrap()
}

/// What a command that must succeed wrote.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same, as JSON.
pub fn json(data: &Path, words: &[&str]) -> Value {
    json_with(data, &[], words)
}

/// [`json`] with settings of the environment.
pub fn json_with(data: &Path, env: &[(&str, &str)], words: &[&str]) -> Value {
    serde_json::from_str(&stdout(&run_with(data, env, words))).unwrap()
}

/// Asks until the answer is yes. Panics after [`PATIENCE`].
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running relay with one administrator; killed when the test ends without it.
pub struct Relay {
    pub child: Child,
    pub addr: SocketAddr,
    /// The operator's listener.
    pub admin: SocketAddr,
    pub log: PathBuf,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Relay {
    /// Starts it on `data`; adds the administrator if there is none.
    pub fn start(data: &Path, env: &[(&str, &str)]) -> Self {
        if json_with(data, env, &["user", "list", "--json"])["users"].as_array().unwrap().is_empty() {
            add_user_with(data, env, EMAIL);
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = data.with_extension("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = program(data)
            .args(["serve", "--listen", &addr.to_string()])
            .env("FERRY_RELAY__ADMIN__LISTEN", admin.to_string())
            .env("FERRY_RELAY__LOG__FORMAT", "json")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut relay = Self { child, addr, admin, log };
        until("the relay is ready", || {
            assert!(relay.child.try_wait().unwrap().is_none(), "it ended: {}", std::fs::read_to_string(&relay.log).unwrap());
            get(relay.addr, "/readyz").is_ok_and(|a| a.status == 200)
        });
        relay
    }

    pub fn term(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub fn ends_well(mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    /// A request with a token and a body of JSON; the answer must come.
    pub fn call(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        ask(self.addr, method, path, &format!("{kind}Authorization: Bearer {token}\r\n"), body.as_bytes()).unwrap()
    }

    /// A token of the administrator.
    pub fn login(&self) -> String {
        self.login_as(EMAIL)
    }

    /// A token of a user that [`add_user_with`] made.
    pub fn login_as(&self, email: &str) -> String {
        let body = serde_json::json!({"email": email, "password": PASSWORD});
        let answer = self.call("POST", "/auth/login", "none", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Uploads a small file by the plain interface; its id.
    pub fn upload(&self, token: &str, name: &str, content: &[u8]) -> String {
        let hash = ferry_protocol::ContentHash::of(content).to_string();
        let init = serde_json::json!({"file_name": name, "file_size": content.len(), "file_hash": hash});
        let begun = self.call("POST", "/upload/init", token, Some(&init)).json();
        if begun["deduplication"] == true {
            return begun["file_id"].as_str().unwrap().to_owned();
        }
        let version = begun["version_id"].as_str().unwrap_or_else(|| panic!("{begun}"));
        let headers = format!("Content-Type: application/octet-stream\r\nAuthorization: Bearer {token}\r\n");
        let put = ask(self.addr, "PUT", &format!("/upload/{version}/chunks/0"), &headers, content).unwrap();
        assert_eq!(put.status, 200, "{}", put.text());
        let done = self.call("POST", &format!("/upload/complete/{version}"), token, None);
        assert_eq!(done.status, 200, "{}", done.text());
        done.json()["file_id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails when it has ended, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn add_user(data: &Path, email: &str) {
    add_user_with(data, &[], email);
}

pub fn add_user_with(data: &Path, env: &[(&str, &str)], email: &str) {
    let mut child = program(data)
        .envs(env.iter().copied())
        .args(["user", "add", email, "--admin", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

pub fn get(at: SocketAddr, path: &str) -> std::io::Result<Answer> {
    ask(at, "GET", path, "", b"")
}

/// One request on a connection of its own.
pub fn ask(at: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")?;
    stream.write_all(body)?;
    read_answer(&mut stream)
}

/// Reads to the end of the connection.
pub fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let broken = || std::io::Error::other("the answer ends early");
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.get(9..12).and_then(|s| s.parse().ok()).ok_or_else(broken)?;
    let mut body = all.split_off(end + 4);
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body).ok_or_else(broken)?;
    }
    Ok(Answer { status, head, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 4 + length..)?;
    }
}

/// Opens a WebSocket for the token's user; the stream stands after the handshake's answer.
pub fn websocket(at: SocketAddr, user: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /ws/sync/{user} HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// The next frame from a relay: opcode and payload.
pub fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut more = [0; 2];
            stream.read_exact(&mut more).unwrap();
            u16::from_be_bytes(more) as usize
        }
        short => short as usize,
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 15, payload)
}
