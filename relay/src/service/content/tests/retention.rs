//! Rules carried out: what goes, what stays, when, and that counts and storage stay right.

use crate::service::Caller;
use crate::service::content::testing::World;
use crate::service::content::{Entry, NewUpload, RetentionRule, UploadBegun};
use crate::store::content::RowFaults;
use crate::store::testing::{Db, on_each_store};
use bytes::Bytes;
use ferry_protocol::{ContentHash, NodeId};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

async fn put(world: &World, caller: &Caller, name: &str, text: &'static str) -> NodeId {
    let new = NewUpload {
        file_name: name.into(),
        directory: String::new(),
        namespace: None,
        size_bytes: text.len() as u64,
        hash: Some(ContentHash::of(text.as_bytes())),
        mtime_ns: None,
    };
    let UploadBegun::Begun(row) = world.content.begin_upload(caller, &new).await.unwrap() else { panic!("deduplicated") };
    world.content.put_upload_chunk(caller, row.version_id, 0, Bytes::from_static(text.as_bytes()), None).await.unwrap();
    world.content.complete_upload(caller, row.version_id, None).await.unwrap().node
}

async fn numbers(world: &World, home: &Entry, file: NodeId) -> Vec<u64> {
    world.content.file_versions(home, file).await.unwrap().iter().map(|v| v.row.number).collect()
}

on_each_store!(a_rule_takes_what_is_old_and_leaves_what_is_kept);

async fn a_rule_takes_what_is_old_and_leaves_what_is_kept(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let rule = RetentionRule { all_days: Some(30), daily_days: Some(0), trash_days: Some(10), ..RetentionRule::default() };
    let file = put(&world, &alice, "a", "one").await;
    for text in ["two", "three", "four"] {
        put(&world, &alice, "a", text).await;
    }
    let labelled = world.content.file_versions(&home, file).await.unwrap()[2].row.version_id;
    world.content.label_version(&home, file, labelled, Some("kept")).await.unwrap();
    let gone = put(&world, &alice, "b", "in the trash").await;
    world.content.delete_file(&home, gone, None).await.unwrap();
    world.content.set_retention(&home, Some(rule)).await.unwrap();

    world.clock.advance_ms(DAY_MS - 1);
    assert_eq!(world.content.keep_to_rules().await.unwrap().versions, 0, "not before a day has gone by");
    world.clock.advance_ms(28 * DAY_MS + 1);
    let report = world.content.keep_to_rules().await.unwrap();
    assert_eq!((report.files, report.versions, report.trash_entries), (0, 1, 1), "{report:?}");
    assert_eq!(numbers(&world, &home, file).await, [4, 3, 2, 1]);
    assert!(numbers(&world, &home, gone).await.is_empty());

    world.clock.advance_ms(11 * DAY_MS);
    let used = world.content.usage(&alice).await.unwrap().used_bytes;
    let rehearsed = world.content.rehearse_retention(&home, rule).await.unwrap();
    assert_eq!((rehearsed.files, rehearsed.versions, rehearsed.freed_bytes), (1, 2, 3 + 5));
    assert_eq!(numbers(&world, &home, file).await, [4, 3, 2, 1], "a rehearsal does nothing");
    let done = world.content.keep_to_rules().await.unwrap();
    assert_eq!(done, rehearsed, "and says what will be");
    assert_eq!(numbers(&world, &home, file).await, [4, 2], "what it shows, and what has a label");
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, used - 8);
    assert_eq!(world.content.retain_now(None, false).await.unwrap().versions, 0, "again nothing");
    assert_eq!(world.db.check_rows().await.unwrap(), RowFaults::default());
    // The next one goes on counting.
    put(&world, &alice, "a", "five").await;
    assert_eq!(numbers(&world, &home, file).await, [5, 4, 2]);
    // What lies in the trash can be brought back whole, whatever the rule says of versions.
    world.content.delete_file(&home, file, None).await.unwrap();
    world.clock.advance_ms(9 * DAY_MS);
    world.content.retain_now(None, false).await.unwrap();
    assert_eq!(world.content.restore(&home, file).await.unwrap().count, 1);
}

on_each_store!(the_owners_rule_counts_where_a_folder_has_none);

async fn the_owners_rule_counts_where_a_folder_has_none(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let file = put(&world, &alice, "a", "one").await;
    for text in ["two", "three"] {
        put(&world, &alice, "a", text).await;
    }
    let rule = RetentionRule { max_versions: Some(1), ..RetentionRule::default() };
    world.content.set_user_retention(alice.user_id, Some(rule)).await.unwrap();
    world.content.set_retention(&home, Some(RetentionRule::default())).await.unwrap();
    world.clock.advance_ms(2 * DAY_MS);
    assert_eq!(world.content.keep_to_rules().await.unwrap().versions, 0, "its own says for ever");
    world.content.set_retention(&home, None).await.unwrap();
    assert_eq!(world.content.retain_now(Some(alice.user_id), true).await.unwrap().versions, 1);
    assert_eq!(world.content.retain_now(Some(alice.user_id), false).await.unwrap().versions, 1);
    assert_eq!(numbers(&world, &home, file).await, [3, 2]);
    let other = world.user(None).await;
    assert_eq!(world.content.retain_now(Some(other.user_id), false).await.unwrap().versions, 0);
}
