//! K42: the sweep and the purge of the trash are ended wherever they wait, as a crash ends them, and then done again: nothing that is referenced is gone,
//! and everything else goes in the end.

use crate::service::content::testing::{World, collect, frames};
use crate::service::content::{ContentConfig, PurgeWhat};
use crate::store::blob::BlobStore;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::ChunkId;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

const GRACE_MS: i64 = 1000;

/// A future that is asked so often and then no more.
struct Cut<F> {
    future: F,
    polls: u32,
}

impl<F: Future + Unpin> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        Pin::new(&mut self.future).poll(context).map(Some)
    }
}

/// Does it until it has waited so often, and drops it there; what it gave if it was done before.
async fn cut_off<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    Cut { future: pin!(future), polls }.await
}

on_each_store!(a_sweep_and_a_purge_may_end_anywhere);

async fn a_sweep_and_a_purge_may_end_anywhere(kind: Db) {
    let world = World::with_on(kind, ContentConfig { grace_ms: GRACE_MS, ..ContentConfig::default() }).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let mut kept = Vec::new();
    let (mut polls, mut was_done) = (1u32, false);
    while !was_done {
        let content = |what: &str| format!("{what} {polls} ").repeat(200).into_bytes();
        let (keep, shared, gone) = (content("kept"), content("shared"), content("gone"));
        world.add_file(&home, &mut writer, &format!("kept {polls}"), &keep).await;
        world.add_file(&home, &mut writer, &format!("shared {polls}"), &shared).await;
        kept.extend([keep, shared.clone()]);
        let mut deleted = Vec::new();
        for (n, bytes) in [&shared, &gone].into_iter().enumerate() {
            let (node, _) = world.add_file(&home, &mut writer, &format!("gone {n} {polls}"), bytes).await;
            world.content.delete_file(&home, node, None).await.unwrap();
            deleted.push(node);
        }
        world.content.put_chunks(&home, frames(&[&content("never committed")])).await.unwrap();

        let everything = PurgeWhat::Before(i64::MAX);
        let purged = cut_off(polls, world.content.purge(&home, everything)).await;
        // Whoever was cut off is asked again.
        world.content.purge(&home, everything).await.unwrap();
        assert!(world.content.trash(&home, None, 10).await.unwrap().0.is_empty(), "cut off after {polls}");
        let (mut swept, mut phases) = (true, 0);
        while phases < 3 {
            world.clock.advance_ms(GRACE_MS + 1);
            swept &= cut_off(polls, world.content.sweep(false)).await.is_some();
            assert!(world.content.verify(true).await.unwrap().is_sound(), "phase {phases}, cut off after {polls}");
            world.content.sweep(false).await.unwrap();
            phases += 1;
        }
        was_done = purged.is_some() && swept;
        assert!(world.content.verify(true).await.unwrap().is_sound(), "cut off after {polls}");
        let ids = kept.iter().map(|bytes| ChunkId::of(bytes)).collect();
        let read = collect(world.content.get_chunks(&home, ids).await.unwrap()).await;
        assert!(read.iter().zip(&kept).all(|(read, kept)| read.as_ref() == Some(kept)), "cut off after {polls}");
        assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, kept.iter().map(|b| b.len() as u64).sum::<u64>());
        // Every place at the beginning, where most is done; then further apart.
        polls += 1 + polls / 12;
        assert!(polls < 100_000, "it is never done");
    }
    // How often it waits depends on the machine: what comes while another process runs is there at once.
    assert!(polls > 3, "it was cut off");
    let packs = world.blobs.list().await.unwrap().len();
    assert!(packs <= kept.len(), "{packs} packs for {} chunks", kept.len());
}
