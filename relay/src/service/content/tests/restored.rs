//! A database that was restored from a backup without anybody saying so (P18, K44), and one that is simply served again.

use crate::service::content::testing::{World, Writer};
use crate::service::content::{Entry, Since};
use crate::service::{Caller, Kind};
use ferry_protocol::wire::{CommitReply, NodeUpdate};
use ferry_protocol::{NodeId, node};

async fn add(world: &World, home: &Entry, writer: &mut Writer, names: &[&str]) -> u64 {
    let mut head = 0;
    for name in names {
        (_, head) = world.add_file(home, writer, name, name.as_bytes()).await;
    }
    head
}

/// What a device that has read up to `since` is answered: the new names and the cursor, or nothing when it must start over.
async fn read(world: &World, caller: &Caller, since: u64) -> Option<(Vec<String>, u64)> {
    let home = world.home(caller).await;
    match world.content.feed(&home, since, Some(world.content.identity().epoch), 100).await {
        Ok(page) => Some((page.nodes.iter().map(|n| n.state.places()[0].name.to_string()).collect(), page.cursor)),
        Err(error) => {
            assert_eq!((error.kind(), error.code()), (Kind::Gone, "epoch_changed"));
            None
        }
    }
}

#[tokio::test]
async fn a_place_in_a_lost_life_of_the_feed_is_told_from_a_known_one() {
    let mut world = World::new().await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    assert_eq!(add(&world, &home, &mut writer, &["a", "b", "c"]).await, 3);
    world.backup("backup");
    assert_eq!(add(&world, &home, &mut writer, &["lost", "lost too"]).await, 5);
    let lost = world.content.changes(&alice, Since::TimeMs(0), 100).await.unwrap().cursor;
    world.begin_serving("backup").await;
    assert_eq!(read(&world, &alice, 5).await, None, "beyond the head");
    assert_eq!(read(&world, &alice, 3).await, Some((vec![], 3)));
    let kept = world.content.changes(&alice, Since::TimeMs(0), 100).await.unwrap().cursor;
    // The feed grows past where the device had read the lost life.
    let home = world.home(&alice).await;
    let new = ["d", "e", "f", "g"];
    let head = add(&world, &home, &mut world.writer(&alice), &new).await;
    for since in [4, 5] {
        assert_eq!(read(&world, &alice, since).await, None, "{since}");
    }
    assert_eq!(world.content.changes(&alice, Since::Cursor(lost), 100).await.unwrap_err().kind(), Kind::Gone);
    let names: Vec<String> = new.map(String::from).into();
    assert_eq!(read(&world, &alice, 3).await, Some((names.clone(), head)));
    assert_eq!(read(&world, &alice, 2).await.unwrap().0.len(), 5);
    assert_eq!(read(&world, &alice, head - 1).await, Some((vec!["g".into()], head)));
    let since_kept = world.content.changes(&alice, Since::Cursor(kept), 100).await.unwrap();
    assert_eq!(since_kept.changes.len(), 4);
}

#[tokio::test]
async fn a_relay_that_is_served_again_goes_on() {
    let mut world = World::new().await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let mut cursor = add(&world, &home, &mut writer, &["0"]).await;
    for name in ["1", "2", "3"] {
        world.begin_serving("relay.db").await;
        assert_eq!(read(&world, &alice, cursor).await, Some((vec![], cursor)), "nothing is new");
        let home = world.home(&alice).await;
        let request = world.request(vec![writer.node(NodeId::from_bytes(world.id()), name, node::Content::Dir)], &[], cursor);
        let reply = world.content.commit(&home, request).await.unwrap();
        let CommitReply::Accepted { head_seq, gapless: true } = reply else { panic!("{reply:?}") };
        assert!(head_seq > cursor + (1 << 28) && head_seq < cursor + (1 << 29) + 2);
        assert_eq!(read(&world, &alice, cursor).await, Some((vec![name.into()], head_seq)));
        assert_eq!(add(&world, &home, &mut writer, &[&format!("{name}x")]).await, head_seq + 1, "one gap a run");
        cursor = head_seq + 1;
    }
    assert_eq!(read(&world, &alice, 0).await.unwrap().0.len(), 7);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

/// What was written through the plain API and lost comes back from a device that had read it, and is not taken for what is written anew.
#[tokio::test]
async fn edits_of_the_web_that_were_lost_come_back_beside_new_ones() {
    let mut world = World::new().await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let file = world.add_file(&home, &mut world.writer(&alice), "f", b"f").await.0;
    world.backup("backup");
    let rename = |name: &str| crate::service::content::FileUpdate { name: Some(name.into()), ..Default::default() };
    world.content.update_file(&home, file, &rename("lost name")).await.unwrap();
    world.content.delete_file(&home, file, None).await.unwrap();
    let heard: Vec<NodeUpdate> = world.content.feed(&home, 0, None, 10).await.unwrap().nodes;
    world.begin_serving("backup").await;
    let home = world.home(&alice).await;
    world.content.delete_file(&home, file, None).await.unwrap();
    let head = world.content.feed(&home, 0, None, 10).await.unwrap().head;
    let reply = world.content.commit(&home, world.request(heard.clone(), &[], head)).await.unwrap();
    assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
    let now = &world.content.feed(&home, 0, None, 10).await.unwrap().nodes[0];
    assert!(now.state.includes(&heard[0].state));
    assert_eq!(now.state.body().values().len(), 2, "two deletions by two runs");
}
