//! What the relay says about itself in figures: the list of all metrics, the recorder that `/metrics` shows, and what has to be looked up to be known.
//!
//! * **TM1** Every metric is in [`FIGURES`], with its unit in its name, and what it means. A metric is where it is measured; here it is only described.
//! * **TM2** Labels have few values that nobody outside chooses: a route is its template, a method one that we know. No user, file, address or token
//!   is ever a label (R60).

mod figures;
pub mod jobs;
mod process;
mod sampler;

pub use figures::{FIGURES, Figure, Kind, Start};
pub(crate) use sampler::{free_bytes, start as start_sampler};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The same for the relay's own work, which may take long.
const JOB_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// The process's metrics: one recorder, however many relays it holds.
pub fn handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
            let handle = recorder.handle();
            // A host process may have a recorder of its own; then this handle stays empty and the host's shows the figures.
            let _ = metrics::set_global_recorder(recorder);
            figures::describe();
            metrics::gauge!("ferry_relay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            handle
        })
        .clone()
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets(SECONDS)?
        .set_buckets_for_metric(Matcher::Full("ferry_relay_job_duration_seconds".to_owned()), JOB_SECONDS)
}
