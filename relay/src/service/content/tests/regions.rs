//! Several blob stores: whose packs go where, which copy is read, what is absent and what only cannot be reached, and moving from one to another.

use crate::service::content::testing::{Frail, World, collect, frames};
use crate::service::content::{Content, ContentConfig, Entry, MigrateReport, Migration};
use crate::store::blob::{BlobRegions, BlobStore};
use crate::store::blob_memory::MemoryBlobs;
use crate::store::content::Scope;
use ferry_protocol::ChunkId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const GRACE_MS: i64 = 1000;

fn config() -> ContentConfig {
    ContentConfig { grace_ms: GRACE_MS, merge_from_packs: 4, ..ContentConfig::default() }
}

/// A relay with the regions `default`, `eu` and `us`; `eu` may fail.
struct Regions {
    world: World,
    home: Entry,
    eu: Arc<MemoryBlobs>,
    frail: Arc<Frail>,
    us: Arc<MemoryBlobs>,
}

impl Regions {
    async fn new() -> Self {
        let mut world = World::with(config()).await;
        let clock = Arc::new(world.clock.clone());
        let (eu, us) = (Arc::new(MemoryBlobs::new(clock.clone())), Arc::new(MemoryBlobs::new(clock)));
        let frail = Frail::over(&eu);
        let alice = world.user(None).await;
        let home = world.home(&alice).await;
        let stores = stores(&world.blobs, &frail, &us);
        world.content = world.process(BlobRegions { stores, home: "default".into(), prefer: Vec::new() }, config()).await;
        Self { world, home, eu, frail, us }
    }

    async fn process(&self, prefer: &[&str]) -> Arc<Content> {
        let stores = stores(&self.world.blobs, &self.frail, &self.us);
        let prefer = prefer.iter().map(|name| (*name).to_owned()).collect();
        self.world.process(BlobRegions { stores, home: "default".into(), prefer }, config()).await
    }

    async fn put(&self, bytes: &[u8]) {
        let mut writer = self.world.writer(self.home.caller());
        self.world.add_file(&self.home, &mut writer, &format!("f{}", ChunkId::of(bytes)), bytes).await;
    }

    async fn live_in(&self, region: Option<&str>) {
        self.world.content.set_home_region(self.home.caller().user_id, region).await.unwrap();
    }

    /// How many blobs the three regions hold.
    async fn blobs(&self) -> [usize; 3] {
        let (a, b, c) = (self.world.blobs.list().await, self.eu.list().await, self.us.list().await);
        [a, b, c].map(|rows| rows.unwrap().len())
    }

    async fn migrate(&self, from: &str, to: &str, keep: bool) -> (u64, u64) {
        let report = self.world.content.migrate_packs(Migration { from, to, keep, dry_run: false }, |_| {}).await.unwrap();
        (report.packs_moved, report.packs_left)
    }
}

fn stores(default: &Arc<MemoryBlobs>, eu: &Arc<Frail>, us: &Arc<MemoryBlobs>) -> std::collections::BTreeMap<String, Arc<dyn BlobStore>> {
    let (default, eu, us): (Arc<dyn BlobStore>, Arc<dyn BlobStore>, Arc<dyn BlobStore>) = (default.clone(), eu.clone(), us.clone());
    [("default".to_owned(), default), ("eu".to_owned(), eu), ("us".to_owned(), us)].into()
}

async fn read(content: &Arc<Content>, home: &Entry, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    // Nothing when the store fails; an inner nothing when it says that the chunk is damaged.
    let stream = content.get_chunks(home, vec![ChunkId::of(bytes)]).await.ok()?;
    Some(collect(stream).await.remove(0))
}

#[tokio::test]
async fn packs_go_to_the_region_of_the_owner() {
    let regions = Regions::new().await;
    regions.put(b"one").await;
    regions.live_in(Some("eu")).await;
    regions.put(b"two").await;
    regions.world.content.put_chunks(&regions.home, frames(&[b"three"])).await.unwrap();
    regions.live_in(Some("us")).await;
    // A guest's bytes are the owner's.
    let guest = regions.world.user(None).await;
    regions.world.content.set_home_region(guest.user_id, Some("eu")).await.unwrap();
    let guest = regions.world.share(&regions.home, &guest, ferry_protocol::wire::Role::Editor).await;
    regions.world.content.put_chunks(&guest, frames(&[b"four"])).await.unwrap();
    regions.live_in(None).await;
    regions.put(b"five").await;
    assert_eq!(regions.blobs().await, [2, 2, 1]);
    assert_eq!(read(&regions.world.content, &regions.home, b"two").await, Some(Some(b"two".to_vec())));
    assert!(regions.world.content.verify(true).await.unwrap().is_sound());
    assert_eq!(regions.world.content.verify(true).await.unwrap().stray_blobs, 0);
    let unknown = regions.world.content.set_home_region(regions.home.caller().user_id, Some("asia")).await.unwrap_err();
    assert!(unknown.to_string().contains("default, eu, us"), "{unknown}");
}

#[tokio::test]
async fn a_region_that_cannot_be_reached_is_no_damage() {
    let regions = Regions::new().await;
    regions.live_in(Some("eu")).await;
    regions.put(b"far").await;
    regions.frail.is_away.store(true, Ordering::SeqCst);
    assert_eq!(read(&regions.world.content, &regions.home, b"far").await, None);
    assert!(regions.world.content.put_chunks(&regions.home, frames(&[b"new"])).await.is_err(), "not stored elsewhere in silence");
    regions.world.content.ping().await.unwrap();
    // A process that was not told of the region does not know; it must not say that the chunk is gone.
    let without = regions.world.process(regions.world.blobs.clone(), config()).await;
    assert_eq!(read(&without, &regions.home, b"far").await, None);
    regions.frail.is_away.store(false, Ordering::SeqCst);
    assert_eq!(read(&regions.world.content, &regions.home, b"far").await, Some(Some(b"far".to_vec())));
    assert_eq!(regions.world.content.storage_totals().await.unwrap().damaged_chunks, 0);
}

/// A process that was not told of a region, and lists that are not of one moment, are no reason to ask devices for bytes that are there.
#[tokio::test]
async fn what_a_list_lacks_is_looked_for_before_it_is_marked() {
    let regions = Regions::new().await;
    regions.live_in(Some("eu")).await;
    regions.put(b"far").await;
    let damaged = async || regions.world.content.storage_totals().await.unwrap().damaged_chunks;
    let without = regions.world.process(regions.world.blobs.clone(), config()).await;
    assert_eq!(without.find_lost_packs().await.unwrap(), 0);
    let report = without.verify(false).await.unwrap();
    assert_eq!((report.damaged, report.packs_wrong, damaged().await), (0, 0, 0));
    assert!(report.packs_unknown > 0, "and it says so");

    // Between the list of `default`, which is made first, and that of `eu` the pack moves.
    let moves = async || {
        let content = regions.world.content.clone();
        *regions.frail.before_list.lock().unwrap() = Some(Box::pin(async move {
            content.migrate_packs(Migration { from: "eu", to: "default", keep: false, dry_run: false }, |_| {}).await.unwrap();
        }));
    };
    moves().await;
    assert_eq!(regions.world.content.find_lost_packs().await.unwrap(), 0);
    assert_eq!((regions.blobs().await, damaged().await), ([1, 0, 0], 0));
    regions.migrate("default", "eu", false).await;
    moves().await;
    let report = regions.world.content.verify(false).await.unwrap();
    assert!(report.is_sound() && report.packs_unknown == 0, "{report:?}");
    assert_eq!((regions.blobs().await, damaged().await), ([1, 0, 0], 0));

    // What is gone is gone, and found.
    regions.world.blobs.delete(regions.world.blobs.list().await.unwrap()[0].id).await.unwrap();
    assert_eq!(regions.world.content.verify(false).await.unwrap().damaged, 1);
    assert_eq!(regions.world.content.find_lost_packs().await.unwrap(), 1);
}

#[tokio::test]
async fn the_nearest_copy_is_read_and_another_one_if_that_fails() {
    let regions = Regions::new().await;
    regions.live_in(Some("eu")).await;
    regions.put(b"copied").await;
    assert_eq!(regions.migrate("eu", "us", true).await, (1, 0));
    assert_eq!(regions.migrate("eu", "us", true).await, (0, 0), "twice is once");
    assert_eq!(regions.blobs().await, [0, 1, 1]);
    let pack = regions.us.list().await.unwrap()[0].id;
    assert_eq!(regions.world.content.regions_of(pack).await.unwrap(), BTreeSet::from(["eu".to_owned(), "us".to_owned()]));
    let (eu_first, us_first) = (regions.process(&["eu"]).await, regions.process(&["us"]).await);
    regions.frail.is_away.store(true, Ordering::SeqCst);
    assert_eq!(read(&eu_first, &regions.home, b"copied").await, Some(Some(b"copied".to_vec())));
    regions.frail.is_away.store(false, Ordering::SeqCst);
    regions.eu.damage(pack, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(read(&eu_first, &regions.home, b"copied").await, Some(Some(b"copied".to_vec())), "the other copy is good");
    assert_eq!(read(&us_first, &regions.home, b"copied").await, Some(Some(b"copied".to_vec())));
    assert_eq!(eu_first.storage_totals().await.unwrap().damaged_chunks, 0);
    regions.us.damage(pack, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(read(&us_first, &regions.home, b"copied").await, Some(None), "no good copy is left");
    assert_eq!(us_first.storage_totals().await.unwrap().damaged_chunks, 1);
}

#[tokio::test]
async fn a_migration_moves_everything_and_readers_follow() {
    let regions = Regions::new().await;
    let reader = regions.process(&["default"]).await;
    for n in 0..5u8 {
        regions.put(&[b'x', n]).await;
        // Where it is is known to the reader from now on.
        assert!(read(&reader, &regions.home, &[b'x', n]).await.unwrap().is_some());
    }
    let rehearsal = Migration { from: "default", to: "us", keep: false, dry_run: true };
    let rehearsal = regions.world.content.migrate_packs(rehearsal, |_| {}).await.unwrap();
    assert_eq!((rehearsal.packs_moved, regions.blobs().await), (5, [5, 0, 0]));
    assert_eq!(regions.migrate("default", "us", false).await, (5, 0));
    assert_eq!(regions.blobs().await, [0, 0, 5]);
    for n in 0..5u8 {
        assert!(read(&reader, &regions.home, &[b'x', n]).await.unwrap().is_some());
    }
    // And back, into the region that needs no rows.
    assert_eq!(regions.migrate("us", "default", false).await, (5, 0));
    assert_eq!(regions.blobs().await, [5, 0, 0]);
    let alone = regions.world.process(regions.world.blobs.clone(), config()).await;
    assert!(alone.verify(true).await.unwrap().is_sound(), "as if there had never been regions");
    for migration in [("us", "us"), ("asia", "us"), ("us", "asia")] {
        let migration = Migration { from: migration.0, to: migration.1, keep: false, dry_run: true };
        regions.world.content.migrate_packs(migration, |_| {}).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_migration_that_was_killed_goes_on() {
    let regions = Regions::new().await;
    for n in 0..5u8 {
        regions.put(&[b'x', n]).await;
    }
    // Killed after a blob was written and before its row was switched.
    regions.frail.dies_after_put.store(true, Ordering::SeqCst);
    let migration = Migration { from: "default", to: "eu", keep: false, dry_run: false };
    regions.world.content.migrate_packs(migration, |_| {}).await.unwrap_err();
    assert_eq!(regions.blobs().await, [5, 1, 0]);
    assert!(regions.world.content.verify(true).await.unwrap().is_sound());
    // Killed after a row was switched and before the old blob was deleted.
    let pack = regions.eu.list().await.unwrap()[0].id;
    let mut tx = regions.world.content.meta.begin(Scope::Shard(regions.world.content.meta.shards()[0])).await.unwrap();
    tx.set_copies(pack, &["eu".to_owned()].into()).await.unwrap();
    tx.commit().await.unwrap();
    let report = regions.world.content.migrate_packs(migration, |_| {}).await.unwrap();
    assert_eq!((report.packs_moved, report.packs_left, report.old_copies_removed), (4, 0, 1));
    assert_eq!(regions.blobs().await, [0, 5, 0], "also what had been switched and not removed");
    assert_eq!(regions.world.content.migrate_packs(migration, |_| {}).await.unwrap(), MigrateReport::default());
    assert!(regions.world.content.verify(true).await.unwrap().is_sound());
}

/// A copy that a migration the other way has just written, and not switched yet, is not what an earlier run left.
#[tokio::test]
async fn a_copy_that_is_younger_than_the_pack_is_not_removed() {
    let regions = Regions::new().await;
    regions.live_in(Some("eu")).await;
    regions.put(b"there").await;
    let pack = regions.eu.list().await.unwrap()[0];
    let bytes = regions.eu.read(pack.id, 0, pack.length_bytes as usize).await.unwrap().unwrap();
    regions.world.clock.advance_ms(1);
    regions.world.blobs.put(pack.id, vec![bytes]).await.unwrap();
    assert_eq!(regions.migrate("default", "eu", false).await, (0, 0));
    assert_eq!(regions.blobs().await, [1, 1, 0]);
}

/// After a restore every pack is in one store, wherever it was before; what is not where its row says is never swept away before it is.
#[tokio::test]
async fn packs_that_are_elsewhere_are_kept_until_they_are_placed() {
    let regions = Regions::new().await;
    regions.live_in(Some("us")).await;
    regions.put(b"restored").await;
    let pack = regions.us.list().await.unwrap()[0].id;
    let bytes = regions.us.read(pack, 0, 45).await.unwrap().unwrap();
    regions.us.delete(pack).await.unwrap();
    regions.world.blobs.put(pack, vec![bytes]).await.unwrap();
    regions.world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(regions.world.content.sweep(false).await.unwrap().stray_blobs_deleted, 0);
    assert_eq!(read(&regions.world.content, &regions.home, b"restored").await, Some(Some(b"restored".to_vec())));
    assert!(!regions.world.content.verify(false).await.unwrap().is_sound());
    regions.world.content.place_packs(&[pack, crate::store::content::PackId([9; 16])]).await.unwrap();
    assert!(regions.world.content.verify(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn damaged_packs_stay_and_are_named() {
    let regions = Regions::new().await;
    for n in 0..4u8 {
        regions.put(&[b'x', n]).await;
    }
    let packs = regions.world.blobs.list().await.unwrap();
    regions.world.blobs.damage(packs[0].id, |bytes| *bytes.last_mut().unwrap() ^= 1);
    regions.world.blobs.delete(packs[1].id).await.unwrap();
    let migration = Migration { from: "default", to: "us", keep: false, dry_run: false };
    let report = regions.world.content.migrate_packs(migration, |_| {}).await.unwrap();
    let left: BTreeSet<String> = report.left.into_iter().collect();
    assert_eq!((report.packs_moved, left), (2, packs[..2].iter().map(|b| b.id.to_string()).collect()));
    assert_eq!(regions.blobs().await, [1, 0, 2]);
}

#[tokio::test]
async fn sweeping_keeps_regions_apart() {
    let regions = Regions::new().await;
    for region in [None, Some("eu"), Some("us")] {
        regions.live_in(region).await;
        for n in 0..5u8 {
            regions.put(&[region.map_or(0, str::len) as u8, region.map_or(0, |r| r.as_bytes()[0]), n]).await;
        }
    }
    regions.migrate("us", "eu", true).await;
    regions.world.clock.advance_ms(GRACE_MS + 1);
    let report = regions.world.content.sweep(false).await.unwrap();
    assert_eq!(report.packs_merged, 15);
    regions.world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(regions.world.content.sweep(false).await.unwrap().packs_deleted, 15);
    assert_eq!(regions.blobs().await, [1, 2, 1], "one merged pack a place, and that of two places in both");
    let report = regions.world.content.verify(true).await.unwrap();
    assert!(report.is_sound() && report.stray_blobs == 0, "{report:?}");
}
