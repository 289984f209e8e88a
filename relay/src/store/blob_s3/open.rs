//! Opening a bucket: the client with its time-outs and retries, and the look at whether it can be used, at the start and for readiness.

use super::error::Trouble;
use super::{PAGE_OBJECTS, S3Blobs};
use crate::config::{S3Key, S3Place};
use crate::store::StoreError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How patient the store is, and where it cuts. The defaults are for any server; tests take smaller ones.
#[derive(Debug, Clone)]
pub struct S3Tuning {
    /// How often a request is tried in all.
    pub attempts: u32,
    /// About how long the first pause between two tries is; each further one is twice as long, and every one is varied at random.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an answer may take to begin, and to go on.
    pub first_byte: Duration,
    /// How long one try may take until the answer begins.
    pub attempt: Duration,
    /// How long the readiness check may take.
    pub ping: Duration,
    /// Packs of so many bytes and more travel in parts.
    pub large_bytes: usize,
    /// The size of a part in bytes; S3 takes none below 5 MiB but the last.
    pub part_bytes: usize,
    /// Objects in one page of a listing.
    pub page_objects: i32,
}

impl Default for S3Tuning {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            attempt: Duration::from_secs(120),
            ping: Duration::from_secs(5),
            large_bytes: 16 * 1024 * 1024,
            part_bytes: 8 * 1024 * 1024,
            page_objects: PAGE_OBJECTS,
        }
    }
}

impl S3Tuning {
    /// The pause after so many tries.
    pub(super) fn backoff(&self, tried: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << tried.saturating_sub(1).min(16)).min(self.longest_pause);
        let mut random = [0; 1];
        // Without randomness all wait equally long, which is only less good.
        let _ = getrandom::fill(&mut random);
        doubled / 2 + doubled * u32::from(random[0]) / 512
    }
}

impl S3Blobs {
    /// Opens a bucket and makes sure that it can be written, so that a missing bucket or a wrong key is told at the start.
    pub async fn open(place: S3Place, key: &S3Key, tuning: S3Tuning) -> Result<Self, StoreError> {
        let store = Self { client: client(&place, key, &tuning), place: Arc::new(place), tuning };
        store.probe().await.map_err(|trouble| store.failed("opening the blob store", &trouble))?;
        let now_s = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs() as i64);
        match store.throw_away_leftovers(now_s).await {
            Ok(0) => {}
            Ok(thrown) => tracing::info!(thrown, "threw away the parts of broken-off uploads"),
            Err(trouble) => tracing::warn!(%trouble, "cannot look for broken-off uploads in the bucket; let its own rules remove them"),
        }
        Ok(store)
    }

    /// Writes and removes an object, as the store will have to.
    async fn probe(&self) -> Result<(), Trouble> {
        // A server may make a bucket that is written to; ours is there or the address is wrong.
        self.reach().await?;
        let key = format!("{}probe-{}", self.place.prefix, uuid::Uuid::new_v4().simple());
        self.put_whole(&key, Bytes::from_static(b"ok")).await?;
        self.client.delete_object().bucket(&self.place.bucket).key(key).send().await.map_err(Trouble::of)?;
        Ok(())
    }

    /// Whether the bucket answers now. Asked by each readiness check, so it costs as little as S3 has, and is not tried again.
    pub(super) async fn reach(&self) -> Result<(), Trouble> {
        let once = Config::builder().retry_config(RetryConfig::disabled());
        let head = self.client.head_bucket().bucket(&self.place.bucket).customize().config_override(once).send();
        match tokio::time::timeout(self.tuning.ping, head).await {
            Err(_) => Err(Trouble::broken("it does not answer in time")),
            Ok(answer) => answer.map(drop).map_err(|error| Trouble::of(error).of_a_bucket()),
        }
    }
}

fn client(place: &S3Place, key: &S3Key, tuning: &S3Tuning) -> Client {
    let credentials = Credentials::new(&key.access, &key.secret, key.token.clone(), None, "ferry-relay");
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(tuning.connect)
        .read_timeout(tuning.first_byte)
        .operation_attempt_timeout(tuning.attempt)
        .build();
    // Retries of one store do not use up those of another.
    let partition = RetryPartition::custom(place.to_string()).token_bucket(TokenBucket::default()).build();
    let retries = RetryConfig::standard()
        .with_max_attempts(tuning.attempts)
        .with_initial_backoff(tuning.first_pause)
        .with_max_backoff(tuning.longest_pause);
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(place.region.clone()))
        .credentials_provider(credentials)
        .timeout_config(timeouts)
        .retry_config(retries)
        .retry_partition(partition)
        // A body that comes too slowly is given up by our own clock, which knows how much was asked for.
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(tuning.first_byte).build())
        // The newer checksums are not known to every server, and what is read is hashed anyway.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(true);
    if let Some(endpoint) = &place.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let tuning = S3Tuning::default();
        for (tried, longest_ms) in [(1, 100), (2, 200), (3, 400), (9, 5000), (99, 5000)] {
            let pause = tuning.backoff(tried);
            assert!(pause <= Duration::from_millis(longest_ms) && pause >= Duration::from_millis(longest_ms / 2), "{tried}: {pause:?}");
        }
    }
}
