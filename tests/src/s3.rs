//! A real S3 server in a process of its own, with one bucket: s3s-fs (`s3_server`), or Garage with `FERRY_TEST_GARAGE=FILE` (`tests/garage_server`), whose
//! objects are no files that a test could look at.

use crate::net::Host;
use crate::programs::program;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The bucket that is there.
pub const BUCKET: &str = "chunks";
/// The id of the one key, in the form that Garage wants.
pub const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
/// Its secret.
pub const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A running server. It ends when this is dropped, and with the process that started it.
pub struct S3Server {
    child: Child,
    url: String,
}

impl S3Server {
    /// Starts a server that keeps its objects below `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_on(None, folder)
    }

    /// [`S3Server::start`] on the loopback address of a host of a test network.
    pub fn start_on(host: Option<&Host>, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for the objects");
        let program = match std::env::var_os("FERRY_TEST_GARAGE") {
            Some(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("garage_server"),
            None => program("s3_server"),
        };
        let mut child = host
            .map_or_else(|| Command::new(&program), |host| host.command(&program))
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, "--bucket", BUCKET, "--dir"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("s3_server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it prints its address");
        let url = line.trim().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "s3_server printed: {url}");
        Self { child, url }
    }

    /// `blobs.url` of a relay that keeps its chunks here, below a prefix.
    pub fn blobs_url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}", self.url)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
