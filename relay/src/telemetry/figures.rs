//! Every metric that a relay exports (TM1).

use metrics::Unit;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// What it says.
    pub help: &'static str,
    /// The values of its one label that are exported from the start, so that an alert on their growth sees the first; empty for a metric without a
    /// label, which is exported as a whole, and for one whose labels are not known before.
    pub from_start: Start,
}

/// What of a metric is exported before anything was measured.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// The metric: it has no label.
    Whole,
    /// These values of this label.
    Label(&'static str, &'static [&'static str]),
    /// Nothing.
    Nothing,
}

const fn figure(name: &'static str, kind: Kind, unit: Unit, from_start: Start, help: &'static str) -> Figure {
    Figure { name, kind, unit, help, from_start }
}

/// The work that a relay does by itself.
pub(super) const JOBS: &[&str] = &["sweep", "sessions", "links", "audit", "totals"];

use Kind::{Counter, Gauge, Histogram};
use Start::{Label, Nothing, Whole};
use Unit::{Bytes, Count, Seconds};

/// All metrics.
pub const FIGURES: &[Figure] = &[
    figure("ferry_relay_build_info", Gauge, Count, Nothing, "1, with the version of the program."),
    figure("ferry_relay_ready", Gauge, Count, Nothing, "1 when this check of /readyz is well, 0 when it fails or is degraded, by check."),
    // Requests.
    figure(
        "ferry_relay_http_request_duration_seconds",
        Histogram,
        Seconds,
        Nothing,
        "Time until an answer begins, by service, route template, method and class of status.",
    ),
    figure("ferry_relay_http_responses_total", Counter, Count, Nothing, "Answers, by service and status."),
    figure("ferry_relay_http_requests_in_flight", Gauge, Count, Whole, "Requests whose answer has not begun."),
    figure("ferry_relay_http_received_bytes_total", Counter, Bytes, Nothing, "Bytes of request bodies, by service."),
    figure("ferry_relay_http_sent_bytes_total", Counter, Bytes, Nothing, "Bytes of answers' bodies, by service."),
    figure("ferry_relay_http_connections", Gauge, Count, Whole, "Open connections."),
    figure("ferry_relay_ws_connections", Gauge, Count, Whole, "Open WebSockets."),
    figure("ferry_relay_ws_messages_total", Counter, Count, Nothing, "Messages sent to WebSockets, by type."),
    figure(
        "ferry_relay_ws_closed_total",
        Counter,
        Count,
        Label("reason", &["left", "restart", "gone"]),
        "WebSockets that ended, by reason.",
    ),
    // Accounts.
    figure(
        "ferry_relay_auth_events_total",
        Counter,
        Count,
        Label("event", &["login", "login.failed", "refresh.reused"]),
        "Events of the audit log, by event.",
    ),
    // Content.
    figure("ferry_relay_chunks_received_total", Counter, Count, Whole, "Chunks that came in."),
    figure("ferry_relay_upload_bytes_total", Counter, Bytes, Whole, "Bytes of chunks that came in."),
    figure("ferry_relay_download_bytes_total", Counter, Bytes, Whole, "Bytes of chunks and files that went out."),
    figure("ferry_relay_dedup_chunks_total", Counter, Count, Whole, "Chunks that came in and were stored already."),
    figure(
        "ferry_relay_dedup_saved_bytes_total",
        Counter,
        Bytes,
        Whole,
        "Bytes of chunks that came in and were not written, because they were stored already.",
    ),
    figure("ferry_relay_chunks_damaged_total", Counter, Count, Whole, "Chunks found missing or damaged in the store."),
    figure(
        "ferry_relay_sync_commits_total",
        Counter,
        Count,
        Label("result", &["accepted", "missing_chunks", "stale", "epoch_changed", "error"]),
        "Commits, by result.",
    ),
    figure("ferry_relay_sync_batches_total", Counter, Count, Whole, "Transactions that wrote for several at once."),
    figure("ferry_relay_sync_batched_writes_total", Counter, Count, Whole, "Commits and edits that were written in those."),
    figure("ferry_relay_sync_delta_entries_total", Counter, Count, Whole, "Node states given out by feeds."),
    figure("ferry_relay_announcements_total", Counter, Count, Whole, "Addresses that devices announced."),
    // Stores.
    figure(
        "ferry_relay_blob_operation_duration_seconds",
        Histogram,
        Seconds,
        Nothing,
        "Time of one operation of the blob store, by operation.",
    ),
    figure(
        "ferry_relay_blob_operation_errors_total",
        Counter,
        Count,
        Label("operation", &["put", "read", "delete", "list"]),
        "Operations of the blob store that failed, by operation.",
    ),
    figure("ferry_relay_blob_written_bytes_total", Counter, Bytes, Whole, "Bytes written to the blob store."),
    figure("ferry_relay_blob_read_bytes_total", Counter, Bytes, Whole, "Bytes read from the blob store."),
    figure(
        "ferry_relay_bus_wakes_total",
        Counter,
        Count,
        Label("about", &["feed", "peers", "access"]),
        "Wake-ups given to the bus, by what they are about.",
    ),
    figure(
        "ferry_relay_bus_lagged_total",
        Counter,
        Count,
        Whole,
        "Times that a listener was too slow for the bus, or the bus had a gap, and it was told to ask again.",
    ),
    figure(
        "ferry_relay_bus_reconnects_total",
        Counter,
        Count,
        Whole,
        "Times that the subscription to the other processes' wake-ups was lost.",
    ),
    figure("ferry_relay_bus_messages_ignored_total", Counter, Count, Whole, "Messages on the bus that are none of this version."),
    figure("ferry_relay_limits_local_total", Counter, Count, Whole, "Decisions on rate limits that were made without Redis."),
    figure("ferry_relay_db_pool_connections", Gauge, Count, Nothing, "Connections to the database, by pool and state (idle, used)."),
    figure("ferry_relay_db_pool_max_connections", Gauge, Count, Nothing, "Most connections to the database, by pool."),
    figure(
        "ferry_relay_db_replica_feeds_total",
        Counter,
        Count,
        Label("answer", &["replica", "behind", "failed"]),
        "Pages of feeds that were asked of a replica, by what came of it (replica, behind, failed): but for the first, the primary answered.",
    ),
    figure(
        "ferry_relay_share_link_hits_total",
        Counter,
        Count,
        Label("result", &["opened", "unknown", "ended", "used_up", "locked", "unlocked", "wrong_password", "too_many"]),
        "Requests to public links, by what became of them.",
    ),
    figure("ferry_relay_chunks_signed_total", Counter, Count, Whole, "Chunks for which an address of the object store was given out."),
    figure("ferry_relay_blob_region_up", Gauge, Count, Nothing, "1 when the blob store of this region answers, else 0, by region."),
    figure("ferry_relay_storage_free_bytes", Gauge, Bytes, Nothing, "Free space where the data directory and the blobs are, by place."),
    figure("ferry_relay_storage_namespaces", Gauge, Count, Nothing, "Namespaces."),
    figure("ferry_relay_storage_nodes", Gauge, Count, Nothing, "Files, directories and links, deleted ones included."),
    figure(
        "ferry_relay_storage_version_bytes",
        Gauge,
        Bytes,
        Nothing,
        "Sum of the sizes of all kept versions: what would be stored without deduplication.",
    ),
    figure("ferry_relay_storage_chunks", Gauge, Count, Nothing, "Distinct chunks."),
    figure("ferry_relay_storage_chunk_bytes", Gauge, Bytes, Nothing, "Sum of the lengths of distinct chunks."),
    figure("ferry_relay_storage_blob_bytes", Gauge, Bytes, Nothing, "Bytes that the blob store holds, by the rows of the database."),
    figure(
        "ferry_relay_storage_orphaned_chunks",
        Gauge,
        Count,
        Nothing,
        "Chunks that nothing refers to, waiting for the end of their grace period.",
    ),
    figure("ferry_relay_storage_damaged_chunks", Gauge, Count, Nothing, "Chunks found damaged and not healed yet."),
    figure("ferry_relay_uploads_active", Gauge, Count, Nothing, "Uploads of the plain API that are begun and not completed."),
    // The relay's own work.
    figure("ferry_relay_job_runs_total", Counter, Count, Nothing, "Runs of the relay's own work, by task and result."),
    figure("ferry_relay_job_duration_seconds", Histogram, Seconds, Nothing, "Time of one run, by task."),
    figure(
        "ferry_relay_job_last_success_timestamp_seconds",
        Gauge,
        Seconds,
        Nothing,
        "When a job last succeeded in this process, in seconds since 1970, by task.",
    ),
    figure(
        "ferry_relay_gc_last_success_timestamp_seconds",
        Gauge,
        Seconds,
        Whole,
        "When this process last swept, in seconds since 1970; 0 for not yet.",
    ),
    figure("ferry_relay_gc_deleted_bytes_total", Counter, Bytes, Whole, "Bytes of chunks that the sweep removed."),
    figure(
        "ferry_relay_backup_last_success_timestamp_seconds",
        Gauge,
        Seconds,
        Nothing,
        "When a backup was last made, in seconds since 1970; 0 for never.",
    ),
    // The process.
    figure("process_cpu_seconds_total", Counter, Seconds, Nothing, "Processor time, of user and system."),
    figure("process_resident_memory_bytes", Gauge, Bytes, Nothing, "Resident memory."),
    figure("process_open_fds", Gauge, Count, Nothing, "Open file descriptors."),
    figure("process_max_fds", Gauge, Count, Nothing, "Most open file descriptors."),
    figure("process_threads", Gauge, Count, Nothing, "Threads."),
    figure("process_start_time_seconds", Gauge, Seconds, Nothing, "When the process started, in seconds since 1970."),
];

/// Describes all metrics to the recorder, and exports those that begin at nothing.
pub(super) fn describe() {
    for f in FIGURES {
        match f.kind {
            Counter => metrics::describe_counter!(f.name, f.unit, f.help),
            Gauge => metrics::describe_gauge!(f.name, f.unit, f.help),
            Histogram => metrics::describe_histogram!(f.name, f.unit, f.help),
        }
        let labels: Vec<Vec<metrics::Label>> = match f.from_start {
            Whole => vec![Vec::new()],
            Label(name, values) => values.iter().map(|v| vec![metrics::Label::from_static_parts(name, v)]).collect(),
            Nothing => Vec::new(),
        };
        for labels in labels {
            match f.kind {
                Counter => metrics::counter!(f.name, labels).increment(0),
                Gauge => metrics::gauge!(f.name, labels).increment(0.0),
                Histogram => {}
            }
        }
    }
    for job in JOBS {
        for result in ["ok", "failed"] {
            metrics::counter!("ferry_relay_job_runs_total", "task" => *job, "result" => result).increment(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of Prometheus: our prefix, the base unit at the end, `_total` for what only grows.
    #[test]
    fn names_say_what_they_count() {
        let mut seen = std::collections::BTreeSet::new();
        for f in FIGURES {
            assert!(seen.insert(f.name), "{} is there twice", f.name);
            assert!(f.name.starts_with("ferry_relay_") || f.name.starts_with("process_"), "{}", f.name);
            assert!(f.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{}", f.name);
            assert_eq!(f.name.ends_with("_total"), f.kind == Kind::Counter, "{}", f.name);
            let base = f.name.trim_end_matches("_total");
            match f.unit {
                Unit::Seconds => assert!(base.ends_with("_seconds"), "{}", f.name),
                Unit::Bytes => assert!(base.ends_with("_bytes"), "{}", f.name),
                _ => assert!(!base.ends_with("_seconds") && !base.ends_with("_bytes"), "{}", f.name),
            }
            assert!(f.help.ends_with('.') && f.help.len() > 1, "{}", f.name);
        }
    }
}
