//! Figures that have to be looked up: readiness, pools, free space, totals of the store. None of it holds a request up.

use super::{jobs, process};
use crate::backup::create::LAST_SUCCESS;
use crate::http::AppState;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often what is cheap is looked up. Prometheus commonly asks every 15 seconds.
const EVERY: Duration = Duration::from_secs(10);
/// How often the store is counted through.
const TOTALS_EVERY: Duration = Duration::from_secs(300);

/// Looks up until the relay has ended.
pub(crate) fn start(app: &AppState) {
    let app = app.clone();
    tokio::spawn(async move {
        let mut totals_at: Option<Instant> = None;
        while !app.db.is_closed() {
            // Without it the histograms' samples gather until somebody asks for them.
            app.metrics.run_upkeep();
            process::sample();
            for (check, result) in app.readiness().await {
                metrics::gauge!("ferry_relay_ready", "check" => check).set(if result == crate::Check::Good { 1.0 } else { 0.0 });
            }
            for pool in app.db.pools() {
                for (state, count) in [("idle", pool.idle), ("used", pool.open.saturating_sub(pool.idle))] {
                    metrics::gauge!("ferry_relay_db_pool_connections", "pool" => pool.name, "state" => state).set(f64::from(count));
                }
                metrics::gauge!("ferry_relay_db_pool_max_connections", "pool" => pool.name).set(f64::from(pool.max));
            }
            free_space(&app);
            backup(&app).await;
            if totals_at.is_none_or(|at| at.elapsed() >= TOTALS_EVERY) {
                totals_at = Some(Instant::now());
                totals(&app).await;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = app.ended.cancelled() => return,
            }
        }
    });
}

fn free_space(app: &AppState) {
    for (place, path) in &app.places {
        if let Some(bytes) = free_bytes(path) {
            metrics::gauge!("ferry_relay_storage_free_bytes", "place" => place.clone()).set(bytes as f64);
        }
    }
}

/// What an unprivileged process may still write where `path` is, in bytes.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Backups are made by another process; what it leaves word of is the same for all of the relay's.
async fn backup(app: &AppState) {
    if let Ok(at) = app.accounts.setting(LAST_SUCCESS).await {
        let at_ms = at.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        metrics::gauge!("ferry_relay_backup_last_success_timestamp_seconds").set((at_ms / 1000) as f64);
    }
}

async fn totals(app: &AppState) {
    let Some(t) = jobs::run("totals", app.clock.now_ms(), app.content.storage_totals()).await else { return };
    for (name, value) in [
        ("ferry_relay_storage_namespaces", t.namespaces),
        ("ferry_relay_storage_nodes", t.nodes),
        ("ferry_relay_storage_version_bytes", t.version_bytes),
        ("ferry_relay_storage_chunks", t.chunks),
        ("ferry_relay_storage_chunk_bytes", t.chunk_bytes),
        ("ferry_relay_storage_blob_bytes", t.pack_bytes),
        ("ferry_relay_storage_orphaned_chunks", t.orphaned_chunks),
        ("ferry_relay_storage_damaged_chunks", t.damaged_chunks),
        ("ferry_relay_uploads_active", t.uploads_open),
    ] {
        metrics::gauge!(name).set(value as f64);
    }
}
