//! A real S3 server inside the test process, on loopback, with a layer before it that fails on demand.

use super::{S3Blobs, S3Tuning};
use crate::config::{S3Key, S3Place};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const BUCKET: &str = "chunks";
pub(crate) const ACCESS: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret";

/// What the layer does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this status and code; the server never hears of the request.
    Refuse(u16, &'static str),
    /// Answers with this status and body.
    Answer(u16, String),
    /// Closes the connection; the server never hears of the request.
    Drop,
    /// Lets the server do it, then closes the connection.
    DropAnswer,
    /// Never answers.
    Stall,
    /// Announces the whole body, sends half of it, and closes the connection.
    Truncate,
}

/// Faults for the next requests of which the first line (`METHOD /path?query`) holds these words.
type Planned = Vec<(String, Fault)>;

pub(crate) struct S3Server {
    pub(crate) dir: tempfile::TempDir,
    addr: SocketAddr,
    planned: Arc<Mutex<Planned>>,
    seen: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl S3Server {
    /// A server with the one bucket.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS, SECRET));
        let service = service.build();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (planned, seen) = (Arc::<Mutex<Planned>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let layer = Layer { service, planned: planned.clone(), seen: seen.clone() };
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = socket.accept().await else { return };
                let layer = layer.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| layer.clone().answer(request));
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { dir, addr, planned, seen, serving }
    }

    pub(crate) fn place(&self, prefix: &str) -> S3Place {
        let endpoint = Some(format!("http://{}", self.addr));
        S3Place { bucket: BUCKET.into(), prefix: prefix.into(), endpoint, region: "us-east-1".into() }
    }

    pub(crate) async fn open(&self, prefix: &str) -> S3Blobs {
        S3Blobs::open(self.place(prefix), &key(), quick()).await.unwrap()
    }

    /// The next `times` requests whose first line holds `words` fail so.
    pub(crate) fn plan(&self, words: &str, fault: &Fault, times: usize) {
        let mut planned = self.planned.lock().unwrap();
        planned.extend(std::iter::repeat_n((words.to_owned(), fault.clone()), times));
    }

    /// Whether every planned fault has happened.
    pub(crate) fn is_over(&self) -> bool {
        self.planned.lock().unwrap().is_empty()
    }

    /// What was planned and has not happened does not happen any more.
    pub(crate) fn planned_away(&self) {
        self.planned.lock().unwrap().clear();
    }

    /// The first lines of requests that hold these words.
    pub(crate) fn seen(&self, words: &str) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

pub(crate) fn key() -> S3Key {
    S3Key { access: ACCESS.into(), secret: SECRET.into(), token: None }
}

/// Patience for tests: it fails soon, and cuts small.
pub(crate) fn quick() -> S3Tuning {
    S3Tuning {
        attempts: 3,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(10),
        first_byte: Duration::from_secs(2),
        attempt: Duration::from_secs(2),
        ping: Duration::from_secs(1),
        large_bytes: 12 * 1024 * 1024,
        part_bytes: 5 * 1024 * 1024,
        page_objects: 7,
        ..S3Tuning::default()
    }
}

#[derive(Clone)]
struct Layer {
    service: S3Service,
    planned: Arc<Mutex<Planned>>,
    seen: Arc<Mutex<Vec<String>>>,
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Broken>>;

#[derive(Debug, thiserror::Error)]
#[error("broken off")]
struct Broken;

impl Layer {
    async fn answer(self, request: Request<Incoming>) -> Result<Answer, Broken> {
        let line = format!("{} {}", request.method(), request.uri());
        let fault = {
            let mut planned = self.planned.lock().unwrap();
            planned.iter().position(|(words, _)| line.contains(words.as_str())).map(|at| planned.remove(at).1)
        };
        self.seen.lock().unwrap().push(line);
        match fault {
            None => self.pass(request).await,
            Some(Fault::Refuse(status, code)) => {
                let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as planned</Message></Error>");
                Ok(Self::made(status, body))
            }
            Some(Fault::Answer(status, body)) => Ok(Self::made(status, body)),
            Some(Fault::Drop) => Err(Broken),
            Some(Fault::DropAnswer) => {
                self.pass(request).await?;
                Err(Broken)
            }
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Truncate) => {
                let (mut head, body) = self.pass(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                head.headers.insert("content-length", body.len().into());
                let half = futures_util::stream::iter([Ok(Frame::data(body.slice(..body.len() / 2))), Err(Broken)]);
                Ok(Response::from_parts(head, StreamBody::new(half).boxed_unsync()))
            }
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Answer, Broken> {
        let answer = hyper::service::Service::call(&self.service, request).await.map_err(|_| Broken)?;
        Ok(answer.map(|body| StreamBody::new(body.map(|part| part.map(Frame::data).map_err(|_| Broken))).boxed_unsync()))
    }

    fn made(status: u16, body: String) -> Answer {
        let body = http_body_util::Full::new(Bytes::from(body)).map_err(|never| match never {});
        Response::builder().status(status).header("content-type", "application/xml").body(body.boxed_unsync()).unwrap()
    }
}
