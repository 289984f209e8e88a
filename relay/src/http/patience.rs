//! How long the relay waits for a caller who is slow, or means to be (I14, R54, R64); and the body and the stream that hold to it.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The limits; each names what happens at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request, the TLS handshake, and the next request of an open connection. After it the connection is closed.
    pub head: Duration,
    /// How long the relay waits, all waits added up, for [`Self::body_least_bytes`] more of a body or its end. After it the request is refused (408).
    pub body: Duration,
    /// See [`Self::body`]: 16 KiB in 30 seconds is slower than any link that people use.
    pub body_least_bytes: u64,
    /// How long a connection takes nothing of what it asked for. After it the connection is closed.
    pub write: Duration,
    /// How often a connection that stays (WebSocket, HTTP/2) is pinged; two pings without an answer end a WebSocket, one an HTTP/2 connection.
    pub ping_every: Duration,
    /// How long one message of a WebSocket may take to leave. After it the reader is dropped, and resumes by its cursor.
    pub message: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { head: s(20), body: s(30), body_least_bytes: 16 * 1024, write: s(60), ping_every: s(25), message: s(20) }
    }
}

/// A body that comes too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body comes too slowly")
    }
}

impl std::error::Error for TooSlow {}

impl TooSlow {
    /// Whether this is what an error comes from.
    pub(super) fn is_in(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<Self>())
    }
}

/// A request's body that must come at some speed. Only waiting counts, not what the relay does with what came.
pub(super) struct Paced<B> {
    body: B,
    patience: Duration,
    least_bytes: u64,
    /// Bytes that came since enough of them had come.
    came_bytes: u64,
    /// Waited since then, and since when this wait goes on.
    waited: Duration,
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, patience: &Patience) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        let (patience, least_bytes) = (patience.body, patience.body_least_bytes);
        Self { body, patience, least_bytes, came_bytes: 0, waited: Duration::ZERO, since: None, timer }
    }

    fn came(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.came_bytes += bytes;
        if self.came_bytes >= self.least_bytes {
            (self.came_bytes, self.waited) = (0, Duration::ZERO);
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let data = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref);
            this.came(data.map_or(0, |d| d.len() as u64));
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        if this.since.is_none() {
            let now = Instant::now();
            this.since = Some(now);
            this.timer.as_mut().reset(now + this.patience.saturating_sub(this.waited));
        }
        ready!(this.timer.as_mut().poll(context));
        Poll::Ready(Some(Err(Box::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose other end must say something soon, and take what is written to it.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Until when the first byte must come, before it came: nobody else waits for it with a limit, while the version of HTTP is not known.
    silent: Option<Pin<Box<Sleep>>>,
    /// Until when the other end must take something, while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: &Patience) -> Self {
        Self { stream, patience: patience.write, silent: Some(Box::pin(tokio::time::sleep(patience.head))), stalled: None }
    }

    /// Passes an answer on, and ends the wait for one that does not come.
    fn waited<T>(&mut self, context: &mut Context<'_>, answer: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if answer.is_ready() {
            self.stalled = None;
            return answer;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let answer = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &mut self.silent {
            Some(timer) if answer.is_pending() => {
                ready!(timer.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing")))
            }
            _ => {
                self.silent = None;
                answer
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.waited(context, answer)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.waited(context, answer)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = Pin::new(&mut self.stream).poll_flush(context);
        self.waited(context, answer)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = Pin::new(&mut self.stream).poll_shutdown(context);
        self.waited(context, answer)
    }
}
