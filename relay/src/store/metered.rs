//! A store that measures another: it does what that does, and counts.
//!
//! Whoever adds a method to [`BlobStore`] or [`Bus`] passes it on here, default methods too: what is not passed on would do something else.

use super::blob::{BlobRow, BlobStore, SignedRead};
use super::bus::{Bus, Wake, Wakes};
use super::content::PackId;
use super::{Health, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A measured blob store.
pub struct MeteredBlobs(pub Arc<dyn BlobStore>);

/// A measured bus.
pub struct MeteredBus(pub Arc<dyn Bus>);

async fn timed<T>(operation: &'static str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let started = Instant::now();
    let done = work.await;
    metrics::histogram!("ferry_relay_blob_operation_duration_seconds", "operation" => operation).record(started.elapsed().as_secs_f64());
    if done.is_err() {
        metrics::counter!("ferry_relay_blob_operation_errors_total", "operation" => operation).increment(1);
    }
    done
}

#[async_trait]
impl BlobStore for MeteredBlobs {
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let length: u64 = parts.iter().map(|p| p.len() as u64).sum();
        timed("put", self.0.put(id, parts)).await?;
        metrics::counter!("ferry_relay_blob_written_bytes_total").increment(length);
        Ok(())
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        let read = timed("read", self.0.read(id, offset, len)).await?;
        metrics::counter!("ferry_relay_blob_read_bytes_total").increment(read.as_ref().map_or(0, |b| b.len() as u64));
        Ok(read)
    }

    async fn delete(&self, id: PackId) -> Result<(), StoreError> {
        timed("delete", self.0.delete(id)).await
    }

    async fn list(&self) -> Result<Vec<BlobRow>, StoreError> {
        timed("list", self.0.list()).await
    }

    async fn signed_read(&self, id: PackId, offset: u64, len: usize, duration: Duration) -> Result<Option<SignedRead>, StoreError> {
        self.0.signed_read(id, offset, len, duration).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

#[async_trait]
impl Bus for MeteredBus {
    fn publish(&self, wake: Wake) {
        let about = match wake {
            Wake::Feed { .. } => "feed",
            Wake::Peers { .. } => "peers",
            Wake::Access { .. } => "access",
        };
        metrics::counter!("ferry_relay_bus_wakes_total", "about" => about).increment(1);
        self.0.publish(wake);
    }

    fn subscribe(&self) -> Wakes {
        self.0.subscribe()
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    async fn flush(&self, limit: Duration) -> bool {
        self.0.flush(limit).await
    }
}
