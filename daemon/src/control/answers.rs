//! Answers about the daemon as a whole, and the form of every error.

use crate::problem::Problem;
use crate::supervisor::Daemon;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], self.to_details().to_string()).into_response()
    }
}

/// `GET /v1/version`
pub async fn version() -> Json<Value> {
    let mut features = vec!["relay"];
    if cfg!(feature = "embedded-relay") {
        features.push("embedded-relay");
    }
    Json(
        json!({"type": "version", "version": env!("CARGO_PKG_VERSION"), "api": [super::API], "features": features, "pid": std::process::id()}),
    )
}

/// `GET /v1/status`
pub async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Value> {
    Json(daemon.status_document())
}

/// No such path.
pub async fn unknown(uri: Uri) -> Problem {
    Problem::not_found("no_such_endpoint", format!("the control socket has no {}", uri.path()))
        .hint("is the daemon of the same version? see: ferry version")
}

/// The path exists, the method does not.
pub async fn wrong_method(uri: Uri) -> Problem {
    let mut problem = Problem::usage(format!("{} does not take this method", uri.path()));
    problem.http_status = 405;
    problem
}

/// `GET /v1/metrics`, in the text format of Prometheus.
pub async fn metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    let text = metrics_text(&daemon);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn metrics_text(daemon: &Daemon) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP ferry_{name} {help}\n# TYPE ferry_{name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "ferry_{name}{labels} {value}");
        }
    };
    let counters = &daemon.counters;
    let wire = |counter: &std::sync::atomic::AtomicU64, via: &str, direction: &str| {
        (format!("{{via=\"{via}\",direction=\"{direction}\"}}"), counter.load(Relaxed))
    };
    let rows = [
        wire(&counters.lan_in_bytes, "lan", "in"),
        wire(&counters.lan_out_bytes, "lan", "out"),
        wire(&counters.relay_in_bytes, "relay", "in"),
        wire(&counters.relay_out_bytes, "relay", "out"),
    ];
    metric("transfer_bytes_total", "counter", "Bytes on the wire since the daemon started.", &rows);
    let peers: Vec<_> = daemon.peers().into_iter().filter(|p| p.state == "connected").collect();
    metric("lan_peers", "gauge", "Devices nearby that are connected.", &[(String::new(), peers.len() as u64)]);
    let by_peer: Vec<(String, u64)> = peers
        .iter()
        .flat_map(|p| {
            [("in", p.in_bytes), ("out", p.out_bytes)].map(|(way, bytes)| (format!("{{peer=\"{}\",direction=\"{way}\"}}", p.id), bytes))
        })
        .collect();
    metric("lan_peer_bytes", "gauge", "Bytes exchanged with a device nearby since it connected.", &by_peer);
    let folders = daemon.folder_statuses();
    let each = |value: &dyn Fn(&crate::folder::FolderStatus) -> u64| -> Vec<(String, u64)> {
        folders.iter().map(|f| (format!("{{folder=\"{}\",id=\"{}\"}}", label(&f.name), f.id), value(f))).collect()
    };
    metric("folder_up_to_date", "gauge", "1 if the folder is up to date.", &each(&|f| u64::from(f.state.severity() == 0)));
    metric("folder_files", "gauge", "Files in the folder.", &each(&|f| f.files));
    metric("folder_bytes", "gauge", "Bytes in the folder.", &each(&|f| f.bytes));
    metric("folder_pending_items", "gauge", "Items not yet the same everywhere.", &each(&|f| f.pending.total()));
    metric("folder_issues", "gauge", "Items that need attention.", &each(&|f| f.issues_total));
    metric("folder_conflicts", "gauge", "Conflicted copies.", &each(&|f| f.conflicts));
    let connected = daemon.relay.borrow().state == crate::folder::RelayState::Connected;
    metric("relay_connected", "gauge", "1 if the relay answers.", &[(String::new(), u64::from(connected))]);
    metric(
        "start_time_seconds",
        "gauge",
        "Start of the daemon, in seconds since 1970.",
        &[(String::new(), (daemon.started_ms / 1000) as u64)],
    );
    out
}

/// A text as it may stand in a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
