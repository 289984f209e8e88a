//! Sockets: accepts connections, speaks TLS where asked, bounds slow callers (I14), and ends gracefully.
//!
//! Shutdown: the token `app.drain` is cancelled; listeners stop accepting, each connection finishes the request that it is in, and WebSockets (which watch
//! the same token) close with 1012. The caller waits for the tracker with a limit of its own. The operator's listener goes on until `app.ended`.

use super::AppState;
use super::layers::RemoteAddr;
use super::patience::{Paced, Patience, Patient};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections at once per listener; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// Largest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// A bound socket, not yet served.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, when it speaks it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Listener {
    /// Where it listens.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves `router` on `listener` until `app.drain` is cancelled. Connections run on `app.connections`.
pub fn listen(app: &AppState, listener: Listener, router: Router) {
    serve(listener, router, app.drain.clone(), app.connections.clone(), app.patience.clone());
}

/// Serves the operator until `app.ended` is cancelled: health and metrics tell also of the end. Nobody waits for these connections.
pub fn listen_to_operator(app: &AppState, listener: Listener, router: Router) {
    serve(listener, router, app.ended.clone(), TaskTracker::new(), app.patience.clone());
}

fn serve(listener: Listener, router: Router, stop: CancellationToken, tracker: TaskTracker, patience: Patience) {
    let connections = tracker.clone();
    tracker.spawn(async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let tls = listener.tls.map(TlsAcceptor::from);
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, or a caller that left: neither ends the relay.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (stop, router, tls, patience) = (stop.clone(), router.clone(), tls.clone(), patience.clone());
            connections.spawn(async move {
                let open = Open::new();
                serve_stream(&stop, stream, peer, tls, router, &patience).await;
                drop((slot, open));
            });
        }
    });
}

/// Counts an open connection for as long as it lives.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!("ferry_relay_http_connections").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("ferry_relay_http_connections").decrement(1.0);
    }
}

async fn serve_stream(
    stop: &CancellationToken,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    patience: &Patience,
) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_connection(stop, stream, peer, router, patience).await,
        Some(acceptor) => match tokio::time::timeout(patience.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve_connection(stop, stream, peer, router, patience).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn serve_connection<S>(stop: &CancellationToken, stream: S, peer: SocketAddr, router: Router, patience: &Patience)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Patient::new(stream, patience);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_MAX_BYTES.max(400 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .adaptive_window(true)
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.head);
    let patience = patience.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(|body| Body::new(Paced::new(body, &patience)));
        request.extensions_mut().insert(RemoteAddr(peer));
        router.clone().oneshot(request)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
