//! Opens the blob stores that the configuration names.

use super::blob::BlobStore;
use super::blob_dir::DirBlobs;
use crate::StartError;
use crate::config::{BlobPlace, Config, S3Place};
use std::sync::Arc;

/// Opens the store in which chunks are kept.
pub async fn open_blobs(config: &Config) -> Result<Arc<dyn BlobStore>, StartError> {
    let mut places = config.blob_places()?;
    match places.remove(crate::config::DEFAULT_REGION) {
        Some(place) => open(config, place).await,
        None => Err(StartError::Data("no blob store is configured".into())),
    }
}

async fn open(config: &Config, place: BlobPlace) -> Result<Arc<dyn BlobStore>, StartError> {
    match place {
        BlobPlace::Directory(path) => {
            let store =
                DirBlobs::open(&path).map_err(|e| StartError::Data(format!("cannot use the chunk directory {}: {e}", path.display())))?;
            Ok(Arc::new(store))
        }
        BlobPlace::S3(place) => open_s3(config, place).await,
    }
}

#[cfg(feature = "cluster")]
async fn open_s3(config: &Config, place: S3Place) -> Result<Arc<dyn BlobStore>, StartError> {
    use super::blob_s3::{S3Blobs, S3Tuning};
    crate::install_tls_provider();
    let key = config.blobs.key(|name| std::env::var(name).ok())?;
    Ok(Arc::new(S3Blobs::open(place, &key, S3Tuning::default()).await?))
}

#[cfg(not(feature = "cluster"))]
async fn open_s3(_: &Config, place: S3Place) -> Result<Arc<dyn BlobStore>, StartError> {
    Err(StartError::Data(format!("this build of the relay cannot use {place}; use one with the feature 'cluster', or file:///PATH")))
}
