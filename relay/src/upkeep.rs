//! What a relay does by itself, now and then: sweep away what has ended, and what nothing refers to.

use crate::http::AppState;
use crate::telemetry::{jobs, start_sampler};
use std::time::Duration;

/// How often a process looks whether another one, or a restore, has changed the relay's identity.
const IDENTITY_EVERY: Duration = Duration::from_secs(5);
/// How often the rest is done.
const EVERY: Duration = Duration::from_secs(3600);
/// How long after the start the first sweep begins: a relay that is started anew each hour sweeps too, and a start is not made slower by it.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(300);

/// Works until the relay stops.
pub(crate) fn start(app: &AppState) {
    start_sampler(app);
    let follower = app.clone();
    app.connections.clone().spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(IDENTITY_EVERY) => {}
                () = follower.drain.cancelled() => return,
            }
            if let Err(error) = follower.content.refresh_identity().await {
                tracing::debug!(%error, "the relay's identity cannot be read");
            }
        }
    });
    let app = app.clone();
    app.connections.clone().spawn(async move {
        let mut wait = FIRST_SWEEP_AFTER;
        loop {
            let now_ms = app.clock.now_ms();
            // Database and chunks may come from different backups: what is lost is to be known before somebody asks for it.
            if let Some(chunks) = jobs::run("packs", now_ms, app.content.find_lost_packs()).await
                && chunks > 0
            {
                tracing::error!(chunks, "stored chunks are missing; devices that have them are asked for their bytes");
            }
            jobs::run("sessions", now_ms, app.accounts.forget_ended()).await;
            jobs::run("links", now_ms, app.links.forget_ended()).await;
            jobs::run("audit", now_ms, app.accounts.forget_audit(app.audit_keep_days)).await;
            jobs::run("thumbnails", now_ms, app.thumbnails.expire()).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = app.drain.cancelled() => return,
            }
            wait = EVERY;
            if let Some(report) = jobs::run("retention", app.clock.now_ms(), app.content.keep_to_rules()).await
                && (report.versions > 0 || report.trash_entries > 0)
            {
                tracing::info!(versions = report.versions, trash = report.trash_entries, "what folders keep no longer is gone");
            }
            if let Some(report) = jobs::run("sweep", app.clock.now_ms(), app.content.sweep(false)).await
                && report.chunks_deleted > 0
            {
                tracing::info!(?report, "unreferenced chunks swept");
            }
        }
    });
}
