//! Moving packs from one region to another: read whole, hash every chunk, write, read back, and only then switch the row.
//!
//! The row is the one thing that decides, so a run that was killed is begun again and goes on: what was switched is not copied again, and a
//! blob without its row is written again or swept. The blob that was left goes after its row does not name it any more, by the next run if this one
//! is killed in between; whoever remembers the old place finds nothing there and looks where the rows say.

use super::regions::{rows_for, unplaced};
use super::{Content, patiently};
use crate::config::DEFAULT_REGION;
use crate::service::{ServiceError, ServiceResult};
use crate::store::StoreError;
use crate::store::blob::{BlobRow, BlobStore};
use crate::store::content::{ChunkLocation, PackId, PackRow, Scope};
use bytes::Bytes;
use ferry_protocol::ChunkId;
use ferry_protocol::limits::REQUEST_MAX_BYTES;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Packs looked at in one step.
const STEP: usize = 256;
/// No pack is longer: one request, or what the sweep gathers, with the frames.
const PACK_MAX_BYTES: u64 = 2 * REQUEST_MAX_BYTES as u64;
/// Packs listed by name that could not be moved; more are counted.
const LISTED_MAX: usize = 1000;

/// What a migration did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrateReport {
    /// Packs that are now where they should be.
    pub packs_moved: u64,
    /// Their bytes.
    pub bytes_moved: u64,
    /// Packs that stay where they were: they hold damaged bytes, or cannot be read.
    pub packs_left: u64,
    /// The first of them.
    pub left: Vec<String>,
    /// Old copies that were removed for an earlier run, which had moved their packs and was ended before it could.
    pub old_copies_removed: u64,
}

/// From where to where, and how.
#[derive(Debug, Clone, Copy)]
pub struct Migration<'a> {
    /// The region to empty.
    pub from: &'a str,
    /// The region to fill.
    pub to: &'a str,
    /// Keep the copies in `from`: from then on each pack is in both.
    pub keep: bool,
    /// Only count.
    pub dry_run: bool,
}

impl Content {
    /// Moves every pack of a region to another one. Twice is once; a run that was killed goes on where it was.
    pub async fn migrate_packs(&self, migration: Migration<'_>, mut progress: impl FnMut(&MigrateReport)) -> ServiceResult<MigrateReport> {
        let (from, to) = (self.region(migration.from)?, self.region(migration.to)?);
        if migration.from == migration.to {
            return Err(ServiceError::invalid("same_region", "A region cannot be migrated to itself."));
        }
        let mut report = MigrateReport::default();
        let mut after = None;
        loop {
            let packs = self.meta.packs_in(migration.from, migration.from == DEFAULT_REGION, after, STEP).await?;
            let Some(last) = packs.last() else { break };
            after = Some(last.id);
            let ids: Vec<PackId> = packs.iter().map(|p| p.id).collect();
            let copies = self.meta.copies(&ids).await?;
            for pack in packs {
                let has = copies.get(&pack.id).is_some_and(|regions| regions.contains(migration.to));
                if has && migration.keep {
                    continue;
                }
                if migration.dry_run || self.move_pack(&pack, &migration, &from, &to, has).await? {
                    report.packs_moved += 1;
                    report.bytes_moved += if has { 0 } else { pack.length_bytes };
                } else {
                    report.packs_left += 1;
                    if report.left.len() < LISTED_MAX {
                        report.left.push(pack.id.to_string());
                    }
                }
            }
            progress(&report);
        }
        if !migration.keep && !migration.dry_run {
            report.old_copies_removed = self.remove_old_copies(&migration, &from, &to).await?;
        }
        Ok(report)
    }

    /// Removes what a run that was ended between row and blob left in the old region: copies of packs that the rows place in the new one. Of two
    /// equal copies the older is the one that was left: a migration the other way, which writes one here now and switches its row next, keeps it.
    async fn remove_old_copies(&self, migration: &Migration<'_>, from: &Arc<dyn BlobStore>, to: &Arc<dyn BlobStore>) -> ServiceResult<u64> {
        let there: BTreeMap<PackId, BlobRow> = to.list().await?.into_iter().map(|blob| (blob.id, blob)).collect();
        let is_older = |old: &BlobRow| {
            let new = there.get(&old.id);
            new.is_some_and(|new| new.length_bytes == old.length_bytes && old.written_at_ms <= new.written_at_ms)
        };
        let twice: Vec<PackId> = from.list().await?.into_iter().filter(is_older).map(|blob| blob.id).collect();
        let mut removed = 0;
        for (pack, regions) in self.blobs.copies_of(&twice).await? {
            if regions.contains(migration.to) && !regions.contains(migration.from) {
                from.delete(pack).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn region(&self, name: &str) -> ServiceResult<Arc<dyn BlobStore>> {
        self.blobs.store(name).cloned().map_err(|_| {
            let names = self.blobs.names().join(", ");
            ServiceError::invalid("unknown_region", format!("There is no region '{name}'. The configuration has: {names}."))
        })
    }

    /// Returns whether the pack is where it should be now.
    async fn move_pack(
        &self,
        pack: &PackRow,
        migration: &Migration<'_>,
        from: &Arc<dyn BlobStore>,
        to: &Arc<dyn BlobStore>,
        has: bool,
    ) -> ServiceResult<bool> {
        if !has && !self.copy_pack(pack, from, to).await? {
            return Ok(false);
        }
        let switched = self.switch(pack.id, |regions| {
            regions.insert(migration.to.to_owned());
            if !migration.keep {
                regions.remove(migration.from);
            }
        });
        if !switched.await? {
            // Swept meanwhile: nobody needs it in either place.
            to.delete(pack.id).await?;
        }
        self.blobs.forget(pack.id);
        if !migration.keep
            && let Err(error) = from.delete(pack.id).await
        {
            tracing::warn!(pack = %pack.id, %error, "a pack that was moved stays in its old place until the next migration or the sweep");
        }
        Ok(true)
    }

    /// Changes the regions of a pack, in the shard that has it. Returns whether one has.
    async fn switch(&self, pack: PackId, change: impl Fn(&mut BTreeSet<String>)) -> ServiceResult<bool> {
        let mut found = false;
        for shard in self.meta.shards() {
            let attempt = async || {
                let mut tx = self.meta.begin(Scope::Shard(shard)).await?;
                let mut regions = tx.copies(&[pack]).await?.remove(&pack).unwrap_or_else(unplaced);
                change(&mut regions);
                match tx.set_copies(pack, &rows_for(&regions)).await {
                    // Not of this shard.
                    Err(StoreError::Conflict(_)) => ServiceResult::Ok(false),
                    other => {
                        other?;
                        tx.commit().await?;
                        Ok(true)
                    }
                }
            };
            found |= patiently!(attempt().await)?;
        }
        Ok(found)
    }

    async fn copy_pack(&self, pack: &PackRow, from: &Arc<dyn BlobStore>, to: &Arc<dyn BlobStore>) -> ServiceResult<bool> {
        let read = async |store: &Arc<dyn BlobStore>| match pack.length_bytes {
            length if length <= PACK_MAX_BYTES => store.read(pack.id, 0, length as usize).await,
            length => Err(StoreError::Corrupt(format!("the row of pack {} says that it has {length} bytes", pack.id))),
        };
        let Some(bytes) = read(from).await? else {
            tracing::error!(pack = %pack.id, "a pack is missing or too short and cannot be moved");
            return Ok(false);
        };
        let chunks = self.standing_in(pack.id).await?;
        let bad = damaged(bytes.clone(), chunks).await?;
        if !bad.is_empty() {
            self.report_damage(&bad).await;
            return Ok(false);
        }
        to.put(pack.id, vec![bytes.clone()]).await?;
        if read(to).await?.as_ref() == Some(&bytes) {
            return Ok(true);
        }
        // It would be the only copy: never switch to what was not seen.
        to.delete(pack.id).await?;
        Err(ServiceError::unavailable(
            "A pack that was written to the other region reads differently. Nothing was switched; see to that store.",
        )
        .source(pack.id))
    }

    /// Says where a user's packs are written from now on; `None` for where the relay's configuration says. What is stored stays where it is.
    pub async fn set_home_region(&self, user: ferry_protocol::UserId, region: Option<&str>) -> ServiceResult<()> {
        if let Some(name) = region {
            self.region(name)?;
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Owner(user)).await?;
            if !tx.set_home_region(user, region).await? {
                return Err(ServiceError::not_found());
            }
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)
    }

    /// Says that these packs are in the home region, and only there: after they were restored to it.
    pub async fn place_packs(&self, packs: &[PackId]) -> ServiceResult<()> {
        let home = self.blobs.home();
        // Those that the database does not name are strays, which the sweep removes.
        let named: BTreeSet<PackId> = self.meta.packs().await?.into_iter().map(|p| p.id).collect();
        for pack in packs.iter().filter(|id| named.contains(id)) {
            self.switch(*pack, |regions| *regions = [home.to_owned()].into()).await?;
        }
        Ok(())
    }

    /// The regions that a pack is in, for tests and operators.
    pub async fn regions_of(&self, pack: PackId) -> ServiceResult<BTreeSet<String>> {
        Ok(self.meta.copies(&[pack]).await?.remove(&pack).unwrap_or_else(unplaced))
    }
}

/// The chunks whose bytes are not what their hashes say.
async fn damaged(bytes: Bytes, chunks: Vec<ChunkLocation>) -> ServiceResult<Vec<(ChunkLocation, &'static str)>> {
    super::off_thread(move || {
        let is_good = |chunk: &ChunkLocation| {
            let end = chunk.offset.checked_add(u64::from(chunk.len)).filter(|end| *end <= bytes.len() as u64);
            end.is_some_and(|end| ChunkId::of(&bytes[chunk.offset as usize..end as usize]) == chunk.id)
        };
        chunks.into_iter().filter(|chunk| !is_good(chunk)).map(|chunk| (chunk, "wrong bytes")).collect()
    })
    .await
}
