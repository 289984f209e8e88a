//! The program as its operator meets it: start, refusals in one sentence, readiness, commands beside a running relay, an orderly end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Longer than anything here may take; a hang fails instead of standing still.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry-relay"));
    command.env_clear().env("FERRY_RELAY__DATA", data).env("FERRY_RELAY__ADMIN__LISTEN", "").stdin(Stdio::null());
    command
}

fn run(data: &Path, words: &[&str]) -> Output {
    program(data).args(words).output().unwrap()
}

/// A refusal: its exit code, and that it is one line that says `part`.
fn refused(output: &Output, code: i32, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error:")).collect();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(errors.len() == 1 && errors[0].contains(part), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running relay; killed when the test ends without it.
struct Relay {
    child: Child,
    addr: SocketAddr,
    banner: String,
}

impl Relay {
    fn start(data: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = program(data);
        command.args(["serve", "--listen", "127.0.0.1:0"]).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        // With an administrator the banner ends with the public address, without one with the set-up link.
        let last = if data.join("has-admin").exists() { "FERRY_RELAY__PUBLIC_URL" } else { "without a browser" };
        while !banner.contains(last) {
            assert!(out.read_line(&mut banner).unwrap() > 0, "it ended early: {banner}");
        }
        let line = banner.lines().find_map(|l| l.trim().strip_prefix("listening ")).unwrap();
        let addr = line.split("://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        Self { child, addr, banner }
    }

    fn term(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn ends_well(mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: evil\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.ask(&(head + body))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails when it has ended, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn add_admin(data: &Path, email: &str) -> Output {
    let mut child = program(data)
        .args(["user", "add", email, "--admin", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    child.wait_with_output().unwrap()
}

const LOGIN: &str = "{\"email\":\"ana@example.org\",\"password\":\"correct horse\"}";

#[test]
fn a_first_start_and_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    assert!(relay.get("/readyz").starts_with("HTTP/1.1 200"), "it says that it listens when it does");
    let code = relay.banner.split("/setup#k=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    refused(&run(&data, &["serve", "--listen", "127.0.0.1:0"]), 8, "--data");
    let other = dir.path().join("other");
    refused(&run(&other, &["serve", "--listen", &relay.addr.to_string()]), 1, "--listen");
    assert!(
        stdout(&run(&data, &["setup-url"])).contains(&format!("http://{}/setup#k=", relay.addr)),
        "the link leads to the running relay"
    );
    assert_eq!(stdout(&run(&data, &["healthcheck"])).trim(), "ready");
    let body = format!("{{\"token\":\"{code}\",\"email\":\"ana@example.org\",\"password\":\"correct horse\"}}");
    assert!(relay.post("/api/v1/setup", &body).starts_with("HTTP/1.1 201"));
    assert!(relay.post("/api/v1/setup", &body).starts_with("HTTP/1.1 409"));
    assert!(relay.post("/auth/login", LOGIN).starts_with("HTTP/1.1 200"));
    refused(&run(&data, &["setup-url"]), 8, "administrator already");
    relay.term();
    relay.ends_well();
    refused(&run(&data, &["healthcheck", "--url", "http://127.0.0.1:1"]), 5, "does not answer");
}

#[test]
fn a_running_request_is_finished_and_new_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(add_admin(dir.path(), "ana@example.org").status.success());
    std::fs::write(dir.path().join("has-admin"), "").unwrap();
    let relay = Relay::start(dir.path(), &[]);
    let mut slow = relay.connect();
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        LOGIN.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    // The handler waits for the body: the request is under way.
    let mut start = [0; 25];
    slow.read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"HTTP/1.1 100 Continue"));
    relay.term();
    // The listener closes first; from then on nobody new comes in.
    while TcpStream::connect(relay.addr).is_ok() {
        std::thread::yield_now();
    }
    slow.write_all(LOGIN.as_bytes()).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access_token"), "{answer}");
    relay.ends_well();
}

#[test]
fn a_killed_relay_starts_again_and_knows_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    assert!(add_admin(dir.path(), "ana@example.org").status.success());
    std::fs::write(dir.path().join("has-admin"), "").unwrap();
    let relay = Relay::start(dir.path(), &[]);
    let answer = relay.post("/auth/login", LOGIN);
    let token = answer.split("\"access_token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    drop(relay);
    let relay = Relay::start(dir.path(), &[]);
    let asked = format!("GET /auth/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    assert!(relay.ask(&asked).starts_with("HTTP/1.1 200"));
}

#[test]
fn what_cannot_work_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    refused(&run(Path::new("/proc/nowhere"), &["serve", "--listen", "127.0.0.1:0"]), 1, "data directory /proc/nowhere");
    refused(&run(data, &["serve", "--listen", "here"]), 2, "ADDRESS:PORT");
    refused(&run(data, &["serve", "--listen", "192.0.2.1:0"]), 1, "not an address of this machine");
    refused(&run(data, &["serve", "--listen", "127.0.0.1:0", "--database", "mysql://u:secret@h/d"]), 2, "postgres://USER");
    refused(&run(data, &["serve", "--listen", "127.0.0.1:0", "--blobs", "s3://b"]), 2, "the name of a bucket");
    refused(&run(data, &["serve", "--listen", "127.0.0.1:0", "--redis", "rediss://:secret@h"]), 2, "redis.url");
    refused(&run(data, &["serve", "--listen", "127.0.0.1:0", "--role", "cook"]), 2, "'cook' is not a role");
    let missing = data.join("none.pem").display().to_string();
    refused(&run(data, &["serve", "--listen", "127.0.0.1:0", "--tls-cert", &missing, "--tls-key", &missing]), 1, "for TLS");
    refused(&program(data).env("FERRY_RELAY__LISEN", "x").arg("check-config").output().unwrap(), 2, "FERRY_RELAY__LISEN");
    std::fs::write(data.join("jwt.key"), "secret").unwrap();
    refused(&run(data, &["user", "list"]), 1, "jwt.key");
    // A directory of its own: beside a database's log SQLite would make the file whole again.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("relay.db"), "this is not a database, however long one looks at it").unwrap();
    refused(&run(other.path(), &["serve", "--listen", "127.0.0.1:0"]), 1, "relay.db");
    assert_eq!(run(data, &["frobnicate"]).status.code(), Some(2));
}

#[test]
fn users_are_managed_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    assert!(add_admin(data, "ana@example.org").status.success());
    refused(&add_admin(data, "Ana@Example.org"), 8, "already");
    refused(&add_admin(data, "nobody"), 1, "e-mail address");
    refused(&run(data, &["user", "add", "bob@example.org"]), 2, "no password");
    refused(&run(data, &["user", "show", "bob@example.org"]), 7, "nothing here");
    refused(&run(data, &["user", "delete", "ana@example.org"]), 8, "confirmation");
    refused(&run(data, &["user", "delete", "ana@example.org", "--yes"]), 8, "last administrator");
    refused(&run(data, &["user", "set", "ana@example.org", "quota=much"]), 2, "not a change");
    let listed = stdout(&run(data, &["user", "set", "ana@example.org", "quota=50GB", "--json"]));
    assert!(listed.contains("\"storage_limit\":50000000000"), "{listed}");
    assert!(add_admin(data, "eve@example.org").status.success());
    assert!(stdout(&run(data, &["user", "disable", "eve@example.org"])).contains("locked out"));
    assert!(stdout(&run(data, &["user", "enable", "eve@example.org"])).contains("let in again"));
    assert!(stdout(&run(data, &["user", "delete", "eve@example.org", "--yes"])).contains("deleted"));
    assert_eq!(stdout(&run(data, &["user", "list"])).lines().count(), 1);
    assert!(stdout(&run(data, &["audit", "list", "--json"])).contains("user.deleted"));
    let object = run(data, &["user", "show", "bob@example.org", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&object.stderr).unwrap();
    assert_eq!((object["type"].as_str(), object["exit_code"].as_u64()), (Some("error"), Some(7)));
}

#[test]
fn the_store_is_looked_after_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    assert!(stdout(&run(data, &["storage", "stats", "--json"])).contains("\"chunks\":0"));
    assert!(stdout(&run(data, &["storage", "verify", "--read-data"])).contains("there and whole"));
    assert!(stdout(&run(data, &["storage", "gc", "--dry-run", "--json"])).contains("\"chunks_deleted\":0"));
    assert!(stdout(&run(data, &["storage", "gc"])).contains("0 chunks"));
}

#[test]
fn files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(add_admin(dir.path(), "ana@example.org").status.success());
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn logs_for_machines_are_json_and_hold_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    // The default address of the operator's listener may be taken: that is a line of the log, not the end.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = program(dir.path())
        .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
        .env("FERRY_RELAY__LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let line = log.next().unwrap().unwrap();
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        seen.push(line);
        if object["message"].as_str().is_some_and(|m| m.contains("ferry-relay serves")) {
            break;
        }
    }
    let relay = Relay { addr: SocketAddr::from(([127, 0, 0, 1], port)), banner: String::new(), child };
    relay.post("/auth/login", "{\"email\":\"ana@example.org\",\"password\":\"a very secret one\"}");
    relay.term();
    for line in log {
        let line = line.unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
        seen.push(line);
    }
    let all = seen.join("\n");
    assert!(all.contains("\"route\":\"/auth/login\"") && all.contains("\"status\":401"), "{all}");
    assert!(!all.contains("secret") && !all.contains("setup#k"), "{all}");
    relay.ends_well();
}

#[test]
fn tls_by_files() {
    use rustls::pki_types::{CertificateDer, ServerName};
    use std::sync::Arc;
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let env = [("FERRY_RELAY__TLS__CERT", cert.to_str().unwrap()), ("FERRY_RELAY__TLS__KEY", key.to_str().unwrap())];
    let relay = Relay::start(&dir.path().join("data"), &env);
    assert!(relay.banner.contains("listening https://"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = relay.connect();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    // An idle connection does not hold the end up.
    relay.term();
    relay.ends_well();
}
