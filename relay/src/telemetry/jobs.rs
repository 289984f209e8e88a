//! The relay's own work, measured: how often, how long, how it ended. The label is `task`: Prometheus calls `job` what it scrapes.

use std::fmt::Display;
use std::future::Future;
use std::time::Instant;

/// Runs one piece of work and records its outcome. A failure is logged; the next run is another chance.
pub async fn run<T, E: Display>(job: &'static str, now_ms: i64, work: impl Future<Output = Result<T, E>>) -> Option<T> {
    let started = Instant::now();
    let done = work.await;
    let result = if done.is_ok() { "ok" } else { "failed" };
    metrics::counter!("ferry_relay_job_runs_total", "task" => job, "result" => result).increment(1);
    metrics::histogram!("ferry_relay_job_duration_seconds", "task" => job).record(started.elapsed().as_secs_f64());
    match done {
        Ok(value) => {
            metrics::gauge!("ferry_relay_job_last_success_timestamp_seconds", "task" => job).set((now_ms / 1000) as f64);
            Some(value)
        }
        Err(error) => {
            tracing::warn!(job, %error, "a job of the relay failed; it is tried again later");
            None
        }
    }
}
