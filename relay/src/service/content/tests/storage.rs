//! The sweep and verification: nothing that is needed goes, what is not needed does, and what is wrong is found.

use crate::service::content::testing::{World, Writer, collect, frames};
use crate::service::content::{ContentConfig, Entry, NewUpload, SweepReport, UploadBegun};
use crate::store::blob::BlobStore;
use crate::store::content::Scope;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{CommitReply, NodeUpdate};
use ferry_protocol::{ChunkId, NodeId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const GRACE_MS: i64 = 1000;

async fn world(kind: Db) -> World {
    World::with_on(kind, ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await
}

on_each_store!(a_leased_chunk_goes_only_after_both_grace_periods);

async fn a_leased_chunk_goes_only_after_both_grace_periods(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "kept", b"kept").await;
    world.content.put_chunks(&home, frames(&[b"loose"])).await.unwrap();
    world.clock.advance_ms(GRACE_MS);
    assert_eq!(world.content.sweep(false).await.unwrap(), SweepReport::default());
    world.clock.advance_ms(1);
    let rehearsal = world.content.sweep(true).await.unwrap();
    assert_eq!((rehearsal.leases_dropped, rehearsal.chunks_marked, rehearsal.chunks_deleted), (1, 1, 0));
    let first = world.content.sweep(false).await.unwrap();
    assert_eq!((first.leases_dropped, first.chunks_marked, first.chunks_deleted), (1, 1, 0));
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, 4);
    world.clock.advance_ms(GRACE_MS + 1);
    let second = world.content.sweep(false).await.unwrap();
    assert_eq!((second.chunks_deleted, second.bytes_deleted, second.packs_deleted), (1, 5, 1));
    assert!(world.content.verify(true).await.unwrap().is_sound());
    assert_eq!(world.blobs.list().await.unwrap().len(), 1);
}

on_each_store!(no_blob_goes_while_somebody_holds_them);

/// A backup reads rows at one moment and blobs after it: what those rows name stays until it has been read (BK1).
async fn no_blob_goes_while_somebody_holds_them(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.content.put_chunks(&home, frames(&[b"loose"])).await.unwrap();
    let packs = world.content.packs().await.unwrap();
    let advance = || world.clock.advance_ms(GRACE_MS + 1);
    let now_ms = || crate::clock::Clock::now_ms(&world.clock);
    advance();
    assert_eq!(world.content.sweep(false).await.unwrap().chunks_marked, 1);
    advance();
    world.content.hold_sweep([1; 16], now_ms() + 100 * GRACE_MS).await.unwrap();
    let held = world.content.sweep(false).await.unwrap();
    assert_eq!((held.chunks_deleted, held.stray_blobs_deleted), (1, 0));
    let read = world.content.read_pack(&packs[0], 0, packs[0].length_bytes as usize).await.unwrap();
    assert!(read.is_some(), "the row is gone, the blob is there");
    advance();
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 0);
    // Whoever held them has gone without a word.
    world.clock.advance_ms(200 * GRACE_MS);
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 1);
    assert!(world.blobs.list().await.unwrap().is_empty());
}

on_each_store!(an_upload_may_take_longer_than_the_grace_period);

/// Chunks of a large file that come in over several grace periods, while the relay sweeps, as a device sends them and as a browser does.
async fn an_upload_may_take_longer_than_the_grace_period(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let parts: Vec<Vec<u8>> = (0..12u8).map(|n| vec![n; 100]).collect();
    let ids: Vec<ChunkId> = parts.iter().map(|part| ChunkId::of(part)).collect();
    let all: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let commit = world.request(vec![world.writer(&alice).file(NodeId::from_bytes(world.id()), "slow", &all)], &[], 0);
    for (n, part) in parts.iter().enumerate() {
        // Half of those who go on ask first, the others try their luck.
        let missing = match n % 2 {
            0 => world.content.missing_chunks(&home, &ids).await.unwrap(),
            _ => match world.content.commit(&home, commit.clone()).await.unwrap() {
                CommitReply::MissingChunks(missing) => missing,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(missing.len(), parts.len() - n, "what has arrived is held");
        world.content.put_chunks(&home, frames(&[part])).await.unwrap();
        world.clock.advance_ms(GRACE_MS * 3 / 5);
        world.content.sweep(false).await.unwrap();
    }
    assert!(matches!(world.content.commit(&home, commit).await.unwrap(), CommitReply::Accepted { .. }));

    const PART: usize = 4 << 20;
    let bytes: Vec<u8> = (0..5u8).flat_map(|n| std::iter::repeat_n(n, PART)).collect();
    let new = NewUpload {
        file_name: "slow too".into(),
        directory: String::new(),
        namespace: None,
        size_bytes: bytes.len() as u64,
        hash: Some(ferry_protocol::ContentHash::of(&bytes)),
        mtime_ns: None,
    };
    let UploadBegun::Begun(upload) = world.content.begin_upload(&alice, &new).await.unwrap() else { panic!("nobody has it") };
    for (n, part) in bytes.chunks(PART).enumerate() {
        let part = bytes::Bytes::copy_from_slice(part);
        let progress = world.content.put_upload_chunk(&alice, upload.version_id, n as u64, part, None).await.unwrap();
        assert_eq!(progress.remaining, 4 - n as u64);
        world.clock.advance_ms(GRACE_MS * 3 / 5);
        world.content.sweep(false).await.unwrap();
    }
    world.content.complete_upload(&alice, upload.version_id, None).await.unwrap();
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(a_marked_chunk_that_comes_again_stays);

async fn a_marked_chunk_that_comes_again_stays(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.content.put_chunks(&home, frames(&[b"again"])).await.unwrap();
    world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(world.content.sweep(false).await.unwrap().chunks_marked, 1);
    world.clock.advance_ms(GRACE_MS + 1);
    world.content.put_chunks(&home, frames(&[b"again"])).await.unwrap();
    assert_eq!(world.content.sweep(false).await.unwrap().chunks_deleted, 0);
    world.add_file(&home, &mut world.writer(&alice), "f", b"again").await;
    world.clock.advance_ms(10 * GRACE_MS);
    assert_eq!(world.content.sweep(false).await.unwrap().chunks_deleted, 0);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(a_crash_between_blob_and_row_leaves_an_orphan_only);

async fn a_crash_between_blob_and_row_leaves_an_orphan_only(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let verified = crate::service::content::stage::verify_frames(frames(&[b"lost"])).await.unwrap();
    world.content.stage(&home, &verified, true).await.unwrap();
    let report = world.content.verify(true).await.unwrap();
    assert!(report.is_sound());
    assert_eq!((report.stray_blobs, report.chunks), (1, 0));
    // Young, it may be an upload between its blob and its row.
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 0);
    world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(world.content.sweep(true).await.unwrap().stray_blobs_deleted, 1);
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 1);
    assert_eq!(world.content.usage(home.caller()).await.unwrap().used_bytes, 0);
}

on_each_store!(the_sweep_between_look_and_transaction_makes_the_upload_write_again);

async fn the_sweep_between_look_and_transaction_makes_the_upload_write_again(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    world.content.put_chunks(&home, frames(&[b"again"])).await.unwrap();
    let verified = crate::service::content::stage::verify_frames(frames(&[b"again"])).await.unwrap();
    let staged = world.content.stage(&home, &verified, true).await.unwrap();
    for _ in 0..2 {
        world.clock.advance_ms(GRACE_MS + 1);
        world.content.sweep(false).await.unwrap();
    }
    let mut tx = world.content.meta.begin(Scope::Namespace(home.namespace())).await.unwrap();
    assert!(!world.content.admit(&mut *tx, &home, &staged).await.unwrap());
    drop(tx);
    world.content.put_chunks(&home, frames(&[b"again"])).await.unwrap();
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(verification_finds_each_kind_of_damage);

async fn verification_finds_each_kind_of_damage(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.add_file(&home, &mut writer, "flipped", b"flipped").await;
    let flipped = world.blobs.list().await.unwrap()[0].id;
    world.add_file(&home, &mut writer, "gone", b"gone").await;
    let gone = world.blobs.list().await.unwrap().iter().find(|b| b.id != flipped).unwrap().id;
    assert!(world.content.verify(true).await.unwrap().is_sound());
    world.blobs.damage(flipped, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(world.content.verify(false).await.unwrap().is_sound(), "without reading, a flipped bit is not seen");
    world.blobs.delete(gone).await.unwrap();
    let quick = world.content.verify(false).await.unwrap();
    assert_eq!((quick.damaged, quick.packs_wrong, quick.bytes_read), (1, 1, 0));
    assert_eq!(quick.damaged_chunks, [ChunkId::of(b"gone").to_string()]);
    let full = world.content.verify(true).await.unwrap();
    assert_eq!((full.damaged, full.packs_wrong, full.chunks), (2, 1, 2));
    assert!(!full.is_sound());
}

on_each_store!(a_mostly_dead_pack_is_rewritten_and_goes_a_grace_period_later);

async fn a_mostly_dead_pack_is_rewritten_and_goes_a_grace_period_later(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let (large, small) = (vec![1u8; 400], vec![2u8; 100]);
    for name in ["one", "two"] {
        let bytes = [small.as_slice(), name.as_bytes()].concat();
        world.content.put_chunks(&home, frames(&[&[&large, name.as_bytes()].concat(), &bytes])).await.unwrap();
        world.add_file(&home, &mut writer, name, &bytes).await;
    }
    world.clock.advance_ms(GRACE_MS + 1);
    assert_eq!(world.content.sweep(false).await.unwrap().chunks_marked, 2);
    world.clock.advance_ms(GRACE_MS + 1);
    let reading =
        world.content.meta.locate_chunks(home.namespace(), &[ChunkId::of(&[small.as_slice(), b"one"].concat())], true).await.unwrap();
    let rehearsal = world.content.sweep(true).await.unwrap();
    let report = world.content.sweep(false).await.unwrap();
    assert_eq!(report, rehearsal);
    assert_eq!((report.chunks_deleted, report.packs_rewritten, report.bytes_rewritten, report.packs_deleted), (2, 2, 206, 0));
    assert_eq!(world.blobs.list().await.unwrap().len(), 3, "both old ones stay for their readers");
    let run = crate::service::content::read::runs(reading.into_values()).remove(0);
    assert!(world.content.read_run(run).await.unwrap()[0].1.is_some(), "somebody who looked before reads on");
    assert!(world.content.verify(true).await.unwrap().is_sound());
    world.clock.advance_ms(GRACE_MS + 1);
    let report = world.content.sweep(false).await.unwrap();
    assert_eq!((report.packs_rewritten, report.packs_deleted), (0, 2));
    assert_eq!(world.blobs.list().await.unwrap().len(), 1, "what lives stands in one");
    let totals = world.content.storage_totals().await.unwrap();
    assert_eq!((totals.packs, totals.chunk_bytes, totals.pack_bytes), (1, 206, 206 + 2 * 37));
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_store!(a_pack_with_a_damaged_chunk_is_not_rewritten);

async fn a_pack_with_a_damaged_chunk_is_not_rewritten(kind: Db) {
    let world = world(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    world.content.put_chunks(&home, frames(&[&[1u8; 900], b"good", b"bad"])).await.unwrap();
    world.add_file(&home, &mut writer, "good", b"good").await;
    world.add_file(&home, &mut writer, "bad", b"bad").await;
    let pack = world.blobs.list().await.unwrap()[0].id;
    world.blobs.damage(pack, |bytes| *bytes.last_mut().unwrap() ^= 1);
    for _ in 0..3 {
        world.clock.advance_ms(GRACE_MS + 1);
        assert_eq!(world.content.sweep(false).await.unwrap().packs_rewritten, 0);
    }
    let got = collect(world.content.get_chunks(&home, vec![ChunkId::of(b"good"), ChunkId::of(b"bad")]).await.unwrap()).await;
    assert_eq!(got, [Some(b"good".to_vec()), None]);
    // Healed by its bytes, it stands elsewhere, and the rest can move.
    assert_eq!(world.content.missing_chunks(&home, &[ChunkId::of(b"bad")]).await.unwrap().len(), 1);
    world.content.put_chunks(&home, frames(&[b"bad"])).await.unwrap();
    assert_eq!(world.content.sweep(false).await.unwrap().packs_rewritten, 1);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    Commit(Vec<u8>),
    Edit(usize, Vec<u8>),
    Delete(usize),
    Restore(usize),
    Wait(i64),
    Sweep,
    OtherPut(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0u8..6, 1..3);
    let step = prop_oneof![
        3 => some().prop_map(Step::Put),
        3 => some().prop_map(Step::Commit),
        1 => (0usize..4, some()).prop_map(|(i, c)| Step::Edit(i, c)),
        1 => (0usize..4).prop_map(Step::Delete),
        1 => (0usize..4).prop_map(Step::Restore),
        2 => (1i64..1500).prop_map(Step::Wait),
        3 => Just(Step::Sweep),
        1 => some().prop_map(Step::OtherPut),
    ];
    proptest::collection::vec(step, 1..25)
}

fn content(i: u8) -> Vec<u8> {
    vec![b'a' + i; usize::from(i) + 3]
}

struct Run {
    world: World,
    home: Entry,
    other: Entry,
    writer: Writer,
    files: Vec<NodeUpdate>,
    /// Chunks sent, with the time until which they must stay without a commit.
    leased: BTreeMap<u8, i64>,
    committed: Vec<u8>,
}

impl Run {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Put(which) => self.put(which).await,
            Step::OtherPut(which) => {
                let bytes: Vec<Vec<u8>> = which.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                self.world.content.put_chunks(&self.other, frames(&slices)).await.unwrap();
            }
            Step::Commit(which) => {
                let node = NodeId::from_bytes(self.world.id());
                let bytes: Vec<Vec<u8>> = which.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                let update = self.writer.file(node, &format!("f{}", self.files.len()), &slices);
                self.commit(&update, which).await;
                self.files.push(update);
            }
            Step::Edit(i, which) if !self.files.is_empty() => {
                let bytes: Vec<Vec<u8>> = which.iter().map(|i| content(*i)).collect();
                let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
                let i = i % self.files.len();
                let update = self.writer.edit(&self.files[i], &slices);
                self.commit(&update, which).await;
                // The next edit stands on this one: a replica never gives one dot to two contents.
                self.files[i] = update;
            }
            Step::Delete(i) if !self.files.is_empty() => {
                let file = self.files[i % self.files.len()].id;
                // Gone already is fine.
                let _ = self.world.content.delete_file(&self.home, file, None).await;
            }
            Step::Restore(i) if !self.files.is_empty() => {
                let i = i % self.files.len();
                let file = self.files[i].id;
                // There already is fine. What comes back is an edit by the web: the next one by the device stands on it.
                let _ = self.world.content.restore(&self.home, file).await;
                let row = self.world.content.meta.nodes(self.home.namespace(), &[file]).await.unwrap().remove(0);
                self.writer.counter = self.writer.counter.max(row.state.max_counter());
                self.files[i].state = row.state;
            }
            Step::Edit(..) | Step::Delete(_) | Step::Restore(_) => {}
            Step::Wait(ms) => self.world.clock.advance_ms(*ms),
            Step::Sweep => drop(self.world.content.sweep(false).await.unwrap()),
        }
    }

    async fn put(&mut self, which: &[u8]) {
        use crate::clock::Clock;
        let bytes: Vec<Vec<u8>> = which.iter().map(|i| content(*i)).collect();
        let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        self.world.content.put_chunks(&self.home, frames(&slices)).await.unwrap();
        let until = self.world.clock.now_ms() + GRACE_MS;
        self.leased.extend(which.iter().map(|i| (*i, until)));
    }

    /// Commits without inline chunks; what is missing is sent once, as a device does.
    async fn commit(&mut self, update: &NodeUpdate, which: &[u8]) {
        let request = self.world.request(vec![update.clone()], &[], u64::MAX);
        let mut reply = self.world.content.commit(&self.home, request.clone()).await.unwrap();
        if let CommitReply::MissingChunks(missing) = &reply {
            for id in missing {
                assert!(
                    !which.iter().any(|i| ChunkId::of(&content(*i)) == *id && self.committed.contains(i)),
                    "a committed chunk is missing"
                );
            }
            self.put(which).await;
            reply = self.world.content.commit(&self.home, request).await.unwrap();
        }
        assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
        self.committed.extend_from_slice(which);
    }

    async fn check(&self) {
        use crate::clock::Clock;
        let report = self.world.content.verify(true).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        let ids: Vec<ChunkId> = self.committed.iter().map(|i| ChunkId::of(&content(*i))).collect();
        let got = collect(self.world.content.get_chunks(&self.home, ids).await.unwrap()).await;
        assert!(got.iter().all(Option::is_some), "a committed chunk is gone");
        let now = self.world.clock.now_ms();
        let live: Vec<ChunkId> = self.leased.iter().filter(|(_, until)| **until >= now).map(|(i, _)| ChunkId::of(&content(*i))).collect();
        assert!(self.world.content.missing_chunks(&self.home, &live).await.unwrap().is_empty(), "a leased chunk is gone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_sweep_never_takes_what_is_needed(steps in steps()) {
        play(Db::Sqlite, &steps);
    }
}

#[cfg(feature = "cluster")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_sweep_on_postgres_never_takes_what_is_needed(steps in steps()) {
        play(Db::Postgres, &steps);
    }
}

/// R8 over interleavings of uploads, commits, edits, deletions, waiting and sweeping, with two users who share bytes.
fn play(kind: Db, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = world(kind).await;
        let (alice, bob) = (world.user(None).await, world.user(None).await);
        let (home, other) = (world.home(&alice).await, world.home(&bob).await);
        let writer = world.writer(&alice);
        let mut run = Run { world, home, other, writer, files: Vec::new(), leased: BTreeMap::new(), committed: Vec::new() };
        for step in steps {
            run.step(step).await;
        }
        run.check().await;
        run.world.clock.advance_ms(3 * GRACE_MS);
        run.world.content.sweep(false).await.unwrap();
        run.world.clock.advance_ms(3 * GRACE_MS);
        run.world.content.sweep(false).await.unwrap();
        run.world.clock.advance_ms(3 * GRACE_MS);
        run.world.content.sweep(false).await.unwrap();
        run.check().await;
        let totals = run.world.content.storage_totals().await.unwrap();
        assert!(totals.pack_bytes <= 2 * (totals.chunk_bytes + 37 * totals.chunks), "no pack is mostly dead: {totals:?}");
        let needed: std::collections::BTreeSet<u8> = run.committed.iter().copied().collect();
        assert_eq!(run.world.content.storage_totals().await.unwrap().chunks, needed.len() as u64, "what nothing needs is gone");
    });
}
