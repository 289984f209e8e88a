//! The command line's way to the daemon: HTTP over the control socket.

use crate::paths::Paths;
use crate::problem::{Outcome, Problem, exit};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::net::UnixStream;

/// A daemon's control socket.
#[derive(Debug, Clone)]
pub struct Client {
    paths: Paths,
}

impl Client {
    /// For the daemon of these places; nothing is sent yet.
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone() }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Response<Incoming>> {
        let stream = self.connect().await?;
        let lost =
            |e: hyper::Error| Problem::no_daemon().hint(format!("the connection to it was lost ({e}); see its log: ferry service logs"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1{path}"))
            .header("host", "ferry")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Problem::usage(format!("cannot ask the daemon for {path}: {e}")))?;
        sender.send_request(request).await.map_err(lost)
    }

    async fn connect(&self) -> Outcome<UnixStream> {
        let stream = match self.paths.socket_address() {
            Ok(address) => UnixStream::connect(&address.path).await,
            Err(e) => Err(e),
        };
        stream.map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                let mut problem = Problem::forbidden(format!("the control socket {} belongs to another user", self.paths.socket.display()));
                problem.exit_code = exit::NO_DAEMON;
                problem
            }
            _ => Problem::no_daemon(),
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|_| Problem::no_daemon())?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(value) } else { Err(Problem::from_details(status.as_u16(), &value)) }
    }

    /// Whether a daemon answers.
    pub async fn is_running(&self) -> bool {
        self.get("/version").await.is_ok()
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// Does something.
    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Changes something.
    pub async fn patch(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Removes something.
    pub async fn delete(&self, path: &str) -> Outcome<Value> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Reads bytes, and gives them on as they come.
    pub async fn download(&self, path: &str, mut sink: impl FnMut(&[u8]) -> std::io::Result<()>) -> Outcome<()> {
        let response = self.send(Method::GET, path, None).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let bytes = body.collect().await.map_err(|_| Problem::no_daemon())?.to_bytes();
            return Err(Problem::from_details(status.as_u16(), &serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::temporary("cut_off", "the relay broke off in the middle").hint("try again"))?;
            if let Some(data) = frame.data_ref() {
                sink(data)?;
            }
        }
        Ok(())
    }

    /// Follows a stream of server-sent events.
    pub async fn events(&self, path: &str) -> Outcome<Events> {
        let response = self.send(Method::GET, path, None).await?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.map_err(|_| Problem::no_daemon())?.to_bytes();
            return Err(Problem::from_details(status, &serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
        }
        Ok(Events { body: response.into_body(), buffer: Vec::new() })
    }
}

/// A stream of server-sent events.
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The data of the next event; nothing when the daemon has stopped.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data:")
                    && let Ok(value) = serde_json::from_slice(data)
                {
                    return Some(value);
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// Text as one part of a path or query.
pub fn encode(text: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for byte in text.as_ref() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A path of the file system as one part of a query.
pub fn encode_path(path: &Path) -> String {
    encode(path.as_os_str().as_bytes())
}
