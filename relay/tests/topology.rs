//! The whole deployment as real processes behind a real NGINX: each service twice over PostgreSQL, Redis and an S3 server (`relay/deploy/topology`).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an operation is repeated before it counts as failed; Ferry's devices go on for ever.
const PATIENCE: Duration = Duration::from_secs(60);
const EMAIL: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const SERVICES: [&str; 6] = ["auth", "metadata", "upload", "download", "sync", "web"];
/// Clients at once.
const CLIENTS: usize = 4;

/// A running topology; ends with the test, in whatever way that ends, because its input does.
struct Topology {
    script: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Topology {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-topology-").tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/topology");
        let mut script = Command::new(script)
            .arg(folder.path())
            .args(["--bin", env!("CARGO_BIN_EXE_ferry-relay")])
            .arg("--s3-server")
            .arg(s3_server())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "it does not start; see what it said");
        let topology = Self { script, folder, url };
        topology.add_user();
        topology
    }

    /// By the command line beside the running relay.
    fn add_user(&self) {
        let mut command = Command::new("bash")
            .args(["-c", "source \"$1\"; exec \"$2\" user add \"$3\" --admin --password-stdin", "bash"])
            .arg(self.folder.path().join("env"))
            .args([env!("CARGO_BIN_EXE_ferry-relay"), EMAIL])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        command.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        assert!(command.wait().unwrap().success());
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("pids").join(name)
    }

    fn pid(&self, name: &str) -> rustix::process::Pid {
        let text = std::fs::read_to_string(self.pid_file(name)).unwrap();
        rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn kill(&self, name: &str) {
        rustix::process::kill_process(self.pid(name), rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let began = Instant::now();
        while self.script.try_wait().ok().flatten().is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.script.kill();
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.folder.path().join("log")).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- end of {}:\n{}", entry.path().display(), lines[lines.len().saturating_sub(8)..].join("\n"));
            }
        }
    }
}

/// The S3 server of the tests, which is another package's program; or Garage with `FERRY_TEST_GARAGE=FILE`.
fn s3_server() -> PathBuf {
    if std::env::var_os("FERRY_TEST_GARAGE").is_some() {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/garage_server");
    }
    let path = Path::new(env!("CARGO_BIN_EXE_ferry-relay")).with_file_name("s3_server");
    assert!(path.is_file(), "{} is not built; run `bash tests/run`, which builds it first", path.display());
    path
}

/// A client that repeats what did not go through, as a device does.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    user: String,
    repeats: Arc<AtomicUsize>,
}

impl Client {
    async fn log_in(topology: &Topology) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let mut client = Self { http, url: topology.url.clone(), token: String::new(), user: String::new(), repeats: Arc::default() };
        let answer = client.send("POST", "/auth/login", json!({"email": EMAIL, "password": PASSWORD}).to_string().into_bytes()).await;
        client.token = answer["access_token"].as_str().unwrap().to_owned();
        client.user = answer["user_id"].as_str().unwrap().to_owned();
        client
    }

    /// A wake-up socket through the proxy, after its greeting.
    async fn socket(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "GET /ws/sync/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.user, self.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        until(&mut stream, "\"hello\"").await;
        stream
    }

    /// The answer of a request, as JSON where it is.
    async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Value {
        let bytes = self.bytes(method, path, body).await;
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    /// The answer's bytes. Repeats after broken connections and 502, 503 and 504, with growing pauses.
    async fn bytes(&self, method: &str, path: &str, body: Vec<u8>) -> Vec<u8> {
        let (began, mut pause) = (Instant::now(), Duration::from_millis(50));
        loop {
            let kind = if path.contains("/chunks/") { "application/octet-stream" } else { "application/json" };
            let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url)).header("content-type", kind);
            let request = if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
            let why = match request.body(body.clone()).send().await {
                Err(error) => error.to_string(),
                Ok(answer) if [502, 503, 504].contains(&answer.status().as_u16()) => answer.status().to_string(),
                Ok(answer) => {
                    let status = answer.status();
                    match answer.bytes().await {
                        Ok(bytes) if status.is_success() => return bytes.to_vec(),
                        Ok(bytes) => panic!("{method} {path}: {status} {}", String::from_utf8_lossy(&bytes)),
                        Err(error) => error.to_string(),
                    }
                }
            };
            assert!(began.elapsed() < PATIENCE, "{method} {path} fails again and again: {why}");
            self.repeats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Uploads a file through the plain API; its id.
    async fn upload(&self, name: &str, content: &[u8]) -> String {
        let init = json!({"file_name": name, "file_size": content.len(), "file_hash": hex::encode(Sha256::digest(content))});
        let begun = self.send("POST", "/upload/init", init.to_string().into_bytes()).await;
        if begun["deduplication"] == true {
            // A repetition of what went through: the file is there.
            return begun["file_id"].as_str().unwrap_or_default().to_owned();
        }
        let version = begun["version_id"].as_str().unwrap_or_else(|| panic!("{begun}"));
        self.send("PUT", &format!("/upload/{version}/chunks/0"), content.to_vec()).await;
        let done = self.send("POST", &format!("/upload/complete/{version}"), Vec::new()).await;
        done["file_id"].as_str().unwrap_or_else(|| panic!("{done}")).to_owned()
    }
}

/// Packs below a folder, and what Garage keeps.
fn objects(folder: &Path, garage: &Path) -> usize {
    let (mut count, mut left) = (0, vec![folder.to_owned()]);
    while let Some(folder) = left.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "pack") || path.starts_with(garage) {
                count += 1;
            }
        }
    }
    count
}

/// Reads until this was said.
async fn until(stream: &mut TcpStream, wanted: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let mut part = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(read > 0, "it ends before {wanted}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..read]);
    }
}

/// One instance of each service is killed under load: no request fails after its repetition, nothing that was committed is lost (R7, I7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_each_service_may_be_killed_under_load() {
    let topology = Topology::start();
    let client = Client::log_in(&topology).await;
    // Two sockets stand at the two sync processes; what the upload processes commit wakes both.
    let mut sockets = [client.socket().await, client.socket().await];
    client.upload("first", b"wakes").await;
    for socket in &mut sockets {
        until(socket, "\"file_change\"").await;
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|worker| {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut kept = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("w{worker}-{}", kept.len());
                    let content = format!("content of {name}").repeat(100).into_bytes();
                    let id = client.upload(&name, &content).await;
                    assert_eq!(
                        client.bytes("GET", &format!("/download/{id}"), Vec::new()).await,
                        content,
                        "what was written is read at once"
                    );
                    client.send("GET", "/auth/me", Vec::new()).await;
                    client.send("GET", &format!("/metadata/files/{id}"), Vec::new()).await;
                    client.send("GET", "/sync/v1/namespaces", Vec::new()).await;
                    client.bytes("GET", "/assets/relay.css", Vec::new()).await;
                    kept.push((name, id, content));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                kept
            })
        })
        .collect();
    // Each client has begun, and goes on after each kill.
    let more = async |count: usize| {
        let (from, began) = (done.load(Ordering::Relaxed), Instant::now());
        while done.load(Ordering::Relaxed) < from + count {
            assert!(began.elapsed() < 2 * PATIENCE, "the clients do not go on");
            assert!(workers.iter().all(|w| !w.is_finished()), "a client gave up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    more(CLIENTS).await;
    for (n, service) in SERVICES.iter().enumerate() {
        topology.kill(&format!("{service}-{}", n % 2 + 1));
        more(CLIENTS).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut files = 0;
    for worker in workers {
        for (name, id, content) in worker.await.unwrap() {
            assert_eq!(client.bytes("GET", &format!("/download/{id}"), Vec::new()).await, content, "{name}");
            files += 1;
        }
    }
    let folder = topology.folder.path();
    // What Garage keeps are blocks of its own.
    let garage = folder.join("s3/garage/data");
    let packs = objects(&folder.join("s3"), &garage);
    assert!(packs > 0 && objects(&folder.join("blobs"), &garage) == 0, "the chunks are in the bucket, and nowhere else");
    println!("{files} files in {packs} packs, {} requests repeated", client.repeats.load(Ordering::Relaxed));
}
