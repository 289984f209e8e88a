//! One request from its first byte to its last: what is counted, and the one line that the log has of it.
//!
//! The line is written when the answer's body has gone out or its receiver has left, so that its bytes are those that were sent. It holds ids, a route's
//! template and figures: no path, no query, no header, no body, so no file name, token or address of a link can be in it (R43, R65).

use super::routes::Service;
use crate::service::Caller;
use axum::body::{Body, HttpBody};
use axum::http::{Extensions, StatusCode};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What is known of a request.
pub(super) struct Record {
    id: String,
    route: String,
    method: &'static str,
    remote_ip: IpAddr,
    started: Instant,
    service: &'static str,
    status: Option<StatusCode>,
    until_answer: Duration,
    caller: Option<Caller>,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
    in_flight: Option<InFlight>,
}

impl Record {
    pub(super) fn new(id: String, route: String, method: &'static str, remote_ip: IpAddr) -> Self {
        Self {
            id,
            route,
            method,
            remote_ip,
            started: Instant::now(),
            service: "none",
            status: None,
            until_answer: Duration::ZERO,
            caller: None,
            bytes_in: Arc::default(),
            bytes_out: 0,
            in_flight: Some(InFlight::new()),
        }
    }

    /// The request's body, counted.
    pub(super) fn count_in(&self, body: Body) -> Body {
        Body::new(Counted { body, count: self.bytes_in.clone() })
    }

    /// The answer begins.
    pub(super) fn answered(&mut self, status: StatusCode, extensions: &Extensions) {
        self.in_flight = None;
        self.until_answer = self.started.elapsed();
        self.status = Some(status);
        self.service = extensions.get::<Service>().map_or("none", |s| s.0);
        self.caller = extensions.get::<Caller>().copied();
        let labels = [
            ("service", self.service.to_owned()),
            ("route", self.route.clone()),
            ("method", self.method.to_owned()),
            ("status", format!("{}xx", status.as_u16() / 100)),
        ];
        metrics::histogram!("ferry_relay_http_request_duration_seconds", &labels).record(self.until_answer.as_secs_f64());
        let labels = [("service", self.service.to_owned()), ("status", status.as_u16().to_string())];
        metrics::counter!("ferry_relay_http_responses_total", &labels).increment(1);
    }

    /// The answer's body; the record ends with it.
    pub(super) fn count_out(self, body: Body) -> Body {
        Body::new(Recorded { body, record: self })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let bytes_in = self.bytes_in.load(Ordering::Relaxed);
        metrics::counter!("ferry_relay_http_received_bytes_total", "service" => self.service).increment(bytes_in);
        metrics::counter!("ferry_relay_http_sent_bytes_total", "service" => self.service).increment(self.bytes_out);
        // The caller may have left before there was an answer: 499, as proxies write it.
        let status = self.status.map_or(499, |s| s.as_u16());
        let user_id = self.caller.map(|c| c.user_id.to_string());
        let device_id = self.caller.and_then(|c| c.device_id).map(|d| d.to_string());
        tracing::info!(
            target: "ferry_relay::request",
            request_id = self.id,
            service = self.service,
            method = self.method,
            route = self.route,
            status,
            duration_s = if self.status.is_some() { self.until_answer } else { self.started.elapsed() }.as_secs_f64(),
            total_s = self.started.elapsed().as_secs_f64(),
            bytes_in,
            bytes_out = self.bytes_out,
            user_id,
            device_id,
            remote_ip = %self.remote_ip,
            "request"
        );
    }
}

/// Counts down even when the caller goes away and the request's future is dropped.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        metrics::gauge!("ferry_relay_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("ferry_relay_http_requests_in_flight").decrement(1.0);
    }
}

/// A body that counts its bytes for somebody else.
struct Counted {
    body: Body,
    count: Arc<AtomicU64>,
}

/// A body that counts its bytes and holds the record of its request.
struct Recorded {
    body: Body,
    record: Record,
}

fn length(frame: &Poll<Option<Result<Frame<Bytes>, axum::Error>>>) -> u64 {
    match frame {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, |data| data.len() as u64),
        _ => 0,
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.count.fetch_add(length(&frame), Ordering::Relaxed);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.record.bytes_out += length(&frame);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
