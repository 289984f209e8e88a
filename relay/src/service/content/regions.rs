//! Where packs rest: one blob store, or several under names (regions).
//!
//! * A user's packs are written to the user's region. A pack may be in several; rows say in which. One without such a row is in `default`.
//! * A read goes to the nearest region that has the pack, in the order that this process prefers, then to its other copies, then to whatever else is
//!   there: rows may be older than a migration (after a restore), and what this process remembers may be too.
//! * A pack is absent only when every region that it may be in says so. A region that fails, or that this process does not know, makes a read fail:
//!   nothing is taken for damaged that only cannot be reached.

use crate::config::DEFAULT_REGION;
use crate::service::{ServiceError, ServiceResult};
use crate::store::StoreError;
use crate::store::blob::{BlobRegions, BlobRow, BlobStore, SignedRead};
use crate::store::content::{ContentStore, PackId};
use bytes::Bytes;
use ferry_protocol::UserId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Packs of which a process remembers the regions; beyond that it begins anew.
const REMEMBERED_MAX: usize = 65_536;

/// How often a pack is looked for that moves all the time.
const GONE_LOOKS_MAX: usize = 3;

/// How long the readiness check waits for a region that is not the home.
const ELSEWHERE_PATIENCE: Duration = Duration::from_secs(1);

/// The regions of a pack.
pub(super) type Copies = Arc<BTreeSet<String>>;

/// The blob stores, with the rows that say which has what.
pub(super) struct Packs {
    meta: Arc<dyn ContentStore>,
    regions: BlobRegions,
    remembered: Mutex<BTreeMap<PackId, Copies>>,
}

/// The regions that a pack without a row is in.
pub(super) fn unplaced() -> BTreeSet<String> {
    [DEFAULT_REGION.to_owned()].into()
}

/// What the rows say of a pack in these regions: nothing for one that is where all packs were before there were regions.
pub(super) fn rows_for(regions: &BTreeSet<String>) -> BTreeSet<String> {
    if *regions == unplaced() { BTreeSet::new() } else { regions.clone() }
}

impl Packs {
    pub(super) fn new(meta: Arc<dyn ContentStore>, regions: BlobRegions) -> Self {
        Self { meta, regions, remembered: Mutex::default() }
    }

    fn has_one_store(&self) -> bool {
        self.regions.stores.len() == 1
    }

    /// The names of all regions, the preferred ones first.
    pub(super) fn names(&self) -> Vec<&str> {
        let preferred = self.regions.prefer.iter().map(String::as_str);
        let mut names: Vec<&str> = Vec::new();
        for name in preferred.chain([self.regions.home.as_str()]).chain(self.regions.stores.keys().map(String::as_str)) {
            if self.regions.stores.contains_key(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The region of users without one of their own.
    pub(super) fn home(&self) -> &str {
        &self.regions.home
    }

    /// A region's store.
    pub(super) fn store(&self, region: &str) -> ServiceResult<&Arc<dyn BlobStore>> {
        self.regions.stores.get(region).ok_or_else(|| {
            StoreError::Unavailable(format!("this process knows no region '{region}'; add blobs.regions.{region} to its configuration"))
                .into()
        })
    }

    /// Where a user's packs are written.
    pub(super) async fn home_of(&self, user: UserId) -> ServiceResult<String> {
        if self.has_one_store() {
            return Ok(self.regions.home.clone());
        }
        let name = self.meta.home_region(user).await?.unwrap_or_else(|| self.regions.home.clone());
        self.store(&name)?;
        Ok(name)
    }

    /// The regions of a pack, as remembered.
    pub(super) async fn copies(&self, pack: PackId) -> ServiceResult<Copies> {
        if self.has_one_store() {
            return Ok(Arc::new(self.regions.stores.keys().cloned().collect()));
        }
        let remembered = self.lock().get(&pack).cloned();
        match remembered {
            Some(copies) => Ok(copies),
            None => self.ask_copies(pack).await,
        }
    }

    /// The same, as the rows say now.
    pub(super) async fn ask_copies(&self, pack: PackId) -> ServiceResult<Copies> {
        let copies = Arc::new(self.meta.copies(&[pack]).await?.remove(&pack).unwrap_or_else(unplaced));
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(pack, copies.clone());
        Ok(copies)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PackId, Copies>> {
        // A panic while the lock is held leaves a whole map: every change is one call.
        self.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at the rows again the next time.
    pub(super) fn forget(&self, pack: PackId) {
        self.lock().remove(&pack);
    }

    /// The same for many packs, as the rows say now.
    pub(super) async fn copies_of(&self, packs: &[PackId]) -> ServiceResult<BTreeMap<PackId, BTreeSet<String>>> {
        let mut rows = if self.has_one_store() { BTreeMap::new() } else { self.meta.copies(packs).await? };
        Ok(packs.iter().map(|pack| (*pack, rows.remove(pack).unwrap_or_else(unplaced))).collect())
    }

    /// Stores a pack in a region (BS1).
    pub(super) async fn put(&self, region: &str, id: PackId, parts: Vec<Bytes>) -> ServiceResult<()> {
        Ok(self.store(region)?.put(id, parts).await?)
    }

    /// Reads from the nearest copy; nothing if no region has these bytes.
    pub(super) async fn read(&self, pack: PackId, offset: u64, len: usize) -> ServiceResult<Option<Bytes>> {
        let copies = self.copies(pack).await?;
        let (near, far): (Vec<&str>, Vec<&str>) = self.names().into_iter().partition(|name| copies.contains(*name));
        let mut trouble = None;
        for region in near.into_iter().chain(far) {
            match self.store(region)?.read(pack, offset, len).await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(region, %pack, %error, "a region cannot be read; trying the next one");
                    trouble.get_or_insert(error);
                }
            }
        }
        match trouble {
            Some(error) => Err(error.into()),
            None => self.absent(pack).await.map(|()| None),
        }
    }

    /// An error if the pack may be where this process cannot look.
    async fn absent(&self, pack: PackId) -> ServiceResult<()> {
        self.lock().remove(&pack);
        for region in self.meta.copies(&[pack]).await?.remove(&pack).unwrap_or_else(unplaced) {
            self.store(&region)?;
        }
        Ok(())
    }

    /// Whether a pack surely has no byte before `end` in any region: for whoever did not find it in a list. A list of several regions is not of one
    /// moment, and the pack may have moved from one that was not read yet to one that was.
    pub(super) async fn is_gone(&self, pack: PackId, end: u64) -> ServiceResult<bool> {
        for _ in 0..GONE_LOOKS_MAX {
            self.forget(pack);
            let before = self.copies(pack).await?;
            if self.read(pack, end.saturating_sub(1), 1).await?.is_some() {
                return Ok(false);
            }
            if *self.copies(pack).await? == *before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leave to read these bytes from the nearest copy whose store gives it.
    pub(super) async fn signed_read(&self, pack: PackId, offset: u64, len: usize, duration: Duration) -> ServiceResult<Option<SignedRead>> {
        let copies = self.copies(pack).await?;
        for region in self.names().into_iter().filter(|name| copies.contains(*name)) {
            if let Some(signed) = self.store(region)?.signed_read(pack, offset, len, duration).await? {
                return Ok(Some(signed));
            }
        }
        Ok(None)
    }

    /// Every copy of these bytes that can be had, one after another: for whoever found that the nearest is wrong.
    pub(super) async fn read_all(&self, pack: PackId, offset: u64, len: usize) -> ServiceResult<Vec<Bytes>> {
        let copies = self.ask_copies(pack).await?;
        let mut found = Vec::new();
        for region in copies.iter().filter(|_| copies.len() > 1) {
            match self.store(region)?.read(pack, offset, len).await {
                Ok(bytes) => found.extend(bytes),
                Err(error) => tracing::warn!(region, %pack, %error, "a copy cannot be read"),
            }
        }
        Ok(found)
    }

    /// Deletes a pack wherever it may be. What cannot be reached is left for the sweep, which lists each region.
    pub(super) async fn delete(&self, pack: PackId) -> ServiceResult<()> {
        self.lock().remove(&pack);
        let mut trouble: Option<ServiceError> = None;
        for region in self.names() {
            if let Err(error) = self.store(region)?.delete(pack).await {
                trouble.get_or_insert(error.into());
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Every blob of every region.
    pub(super) async fn list(&self) -> ServiceResult<BTreeMap<String, Vec<BlobRow>>> {
        let mut listed = BTreeMap::new();
        for (region, store) in &self.regions.stores {
            listed.insert(region.clone(), store.list().await?);
        }
        Ok(listed)
    }

    /// Answers when packs can be written: when the region of users without one of their own does. Another that fails is a matter of its users only,
    /// and of the metric.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let looks = self.regions.stores.iter().map(|(region, store)| async move {
            let is_home = *region == self.regions.home;
            // The readiness of all must not wait for a region of some.
            let patience = if is_home { Duration::MAX } else { ELSEWHERE_PATIENCE };
            let late = |_| Err(StoreError::Unavailable("it does not answer in time".into()));
            (region, is_home, tokio::time::timeout(patience, store.ping()).await.unwrap_or_else(late))
        });
        let mut answer = Ok(());
        for (region, is_home, up) in futures_util::future::join_all(looks).await {
            metrics::gauge!("ferry_relay_blob_region_up", "region" => region.clone()).set(if up.is_ok() { 1.0 } else { 0.0 });
            if is_home {
                answer = up;
            } else if let Err(error) = up {
                tracing::warn!(region, %error, "a region does not answer");
            }
        }
        answer
    }
}
