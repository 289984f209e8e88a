//! Who is at the other end of the control socket (T1).

use crate::problem::Problem;
use crate::supervisor::Daemon;
use axum::extract::{ConnectInfo, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Read.
    ReadOnly,
    /// Nothing.
    Refused,
}

/// A peer, as the kernel tells it.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    access: Access,
    uid: u32,
    pid: i32,
}

/// Asks the kernel about every peer.
pub struct PeerListener {
    listener: UnixListener,
    daemon: Arc<Daemon>,
}

impl PeerListener {
    /// Over a bound socket.
    pub fn new(listener: UnixListener, daemon: Arc<Daemon>) -> Self {
        Self { listener, daemon }
    }

    fn identify(&self, stream: &UnixStream) -> Peer {
        match stream.peer_cred() {
            Ok(cred) => {
                let own = rustix::process::geteuid().as_raw();
                let access = access(cred.uid(), own, &self.daemon.settings.borrow().allow_uids);
                Peer { access, uid: cred.uid(), pid: cred.pid().unwrap_or(0) }
            }
            // Unknown is refused.
            Err(_) => Peer { access: Access::Refused, uid: u32::MAX, pid: 0 },
        }
    }
}

fn access(uid: u32, own: u32, readers: &[u32]) -> Access {
    if uid == own || uid == 0 {
        Access::Full
    } else if readers.contains(&uid) {
        Access::ReadOnly
    } else {
        Access::Refused
    }
}

impl Listener for PeerListener {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        let peer = self.identify(&stream);
        (stream, peer)
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer { access: Access::Refused, uid: u32::MAX, pid: 0 })
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, PeerListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        *stream.remote_addr()
    }
}

/// Lets a request through, or refuses it; logs who changed something.
pub async fn authorise(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match peer.access {
        Access::Full => {}
        Access::ReadOnly if reads => {}
        Access::ReadOnly => return Problem::forbidden("this user may read the status, and change nothing").into_response(),
        Access::Refused => return Problem::forbidden("this daemon belongs to another user").into_response(),
    }
    if !reads {
        tracing::info!(uid = peer.uid, pid = peer.pid, method = %request.method(), path = request.uri().path(), "control request");
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_and_root_may_change_something() {
        assert_eq!(access(1000, 1000, &[]), Access::Full);
        assert_eq!(access(0, 1000, &[]), Access::Full);
        assert_eq!(access(1001, 1000, &[1001]), Access::ReadOnly);
        assert_eq!(access(1002, 1000, &[1001]), Access::Refused);
        assert_eq!(access(u32::MAX, 1000, &[1001]), Access::Refused);
    }
}
