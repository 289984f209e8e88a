//! A small S3 server for tests and benches of several processes: s3s-fs below a directory, on loopback.
//!
//! ```text
//! s3_server --dir DIR --access-key ID --secret-key SECRET [--port N] [--bucket NAME]...
//! ```
//!
//! Prints its address, `http://127.0.0.1:PORT`, when it can be used, and ends when its standard input does: so it goes with whoever started it,
//! however that ends. Buckets that are named are made.

use anyhow::{Context, Result, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::path::PathBuf;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[derive(Default)]
struct Options {
    dir: PathBuf,
    access_key: String,
    secret_key: String,
    port: u16,
    buckets: Vec<String>,
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} wants a value"))?;
        match word.as_str() {
            "--dir" => options.dir = value.into(),
            "--access-key" => options.access_key = value,
            "--secret-key" => options.secret_key = value,
            "--port" => options.port = value.parse().with_context(|| format!("{value} is no port"))?,
            "--bucket" => options.buckets.push(value),
            _ => bail!("unknown option {word}; there are --dir, --access-key, --secret-key, --port, --bucket"),
        }
    }
    if options.dir.as_os_str().is_empty() || options.access_key.is_empty() || options.secret_key.is_empty() {
        bail!("--dir, --access-key and --secret-key are needed");
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    for bucket in &options.buckets {
        std::fs::create_dir_all(options.dir.join(bucket)).with_context(|| options.dir.display().to_string())?;
    }
    let files = s3s_fs::FileSystem::new(&options.dir).map_err(|e| anyhow::anyhow!("{}: {e:?}", options.dir.display()))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(options.access_key, options.secret_key));
    let socket = TcpListener::bind(("127.0.0.1", options.port)).await.context("cannot listen")?;
    println!("http://{}", socket.local_addr()?);
    tokio::select! {
        done = serve(socket, service.build()) => done,
        () = stdin_ends() => Ok(()),
    }
}

async fn serve(socket: TcpListener, service: S3Service) -> Result<()> {
    loop {
        let (stream, _) = socket.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            // A connection that breaks is its client's matter.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn stdin_ends() {
    let mut nothing = [0; 64];
    while tokio::io::stdin().read(&mut nothing).await.is_ok_and(|n| n > 0) {}
}
