//! A Redis server of a test's own: on loopback, nothing on disk, ended with the value.

use crate::poll::until;
use crate::programs::free_port;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server.
pub struct Redis {
    port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// When Redis is not installed (Debian: `apt-get install redis-server`) or does not start.
    pub fn start() -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary folder"));
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts (Debian package redis-server)");
        let server = Self { port, child, _dir: dir };
        until("Redis listens", Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string()));
        server
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
