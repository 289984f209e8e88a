//! What a relay does by itself, now and then: sweep away what has ended, and what nothing refers to.

use crate::http::AppState;
use crate::telemetry::{jobs, start_sampler};
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(3600);

/// Works until the relay stops.
pub(crate) fn start(app: &AppState) {
    start_sampler(app);
    let app = app.clone();
    app.connections.clone().spawn(async move {
        loop {
            let now_ms = app.clock.now_ms();
            jobs::run("sessions", now_ms, app.accounts.forget_ended()).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = app.drain.cancelled() => return,
            }
            if let Some(report) = jobs::run("sweep", app.clock.now_ms(), app.content.sweep(false)).await
                && report.chunks_deleted > 0
            {
                tracing::info!(?report, "unreferenced chunks swept");
            }
        }
    });
}
