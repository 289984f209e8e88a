//! Opens the blob stores that the configuration names.

use super::blob::{BlobRegions, BlobStore};
use super::blob_dir::DirBlobs;
use super::metered::MeteredBlobs;
use crate::StartError;
use crate::config::{BlobPlace, Config, S3Place};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Opens every store in which chunks are kept.
pub async fn open_blobs(config: &Config) -> Result<BlobRegions, StartError> {
    let mut stores = BTreeMap::new();
    for (region, place) in config.blob_places()? {
        let store: Arc<dyn BlobStore> = Arc::new(MeteredBlobs(open(config, &region, place).await?));
        stores.insert(region, store);
    }
    Ok(BlobRegions { stores, home: config.blobs.home_region(), prefer: config.blobs.prefer.clone() })
}

async fn open(config: &Config, region: &str, place: BlobPlace) -> Result<Arc<dyn BlobStore>, StartError> {
    match place {
        BlobPlace::Directory(path) => {
            let store =
                DirBlobs::open(&path).map_err(|e| StartError::Data(format!("cannot use the chunk directory {}: {e}", path.display())))?;
            Ok(Arc::new(store))
        }
        BlobPlace::S3(place) => open_s3(config, region, place).await,
    }
}

#[cfg(feature = "cluster")]
async fn open_s3(config: &Config, region: &str, place: S3Place) -> Result<Arc<dyn BlobStore>, StartError> {
    use super::blob_s3::{S3Blobs, S3Tuning};
    crate::install_tls_provider();
    let key = config.blobs.key(region, |name| std::env::var(name).ok())?;
    Ok(Arc::new(S3Blobs::open(place, &key, S3Tuning::default()).await?))
}

#[cfg(not(feature = "cluster"))]
async fn open_s3(_: &Config, _: &str, place: S3Place) -> Result<Arc<dyn BlobStore>, StartError> {
    Err(StartError::Data(format!("this build of the relay cannot use {place}; use one with the feature 'cluster', or file:///PATH")))
}
