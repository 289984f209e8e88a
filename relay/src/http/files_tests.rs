//! Batches, versions and conflicts over the real router: shapes, and who gets in where.

use super::content_tests::World;
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use serde_json::json;

on_each_store!(a_batch_answers_for_each_action_by_itself);

async fn a_batch_answers_for_each_action_by_itself(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let file = world.upload(&alice, "a.txt", b"hello").await;
    let batch = async |actions| world.json(&alice, Method::POST, "/api/v1/files/batch", json!({ "actions": actions })).await;
    let answer = batch(json!([
        {"action": "mkdir", "path": "/", "file_name": "d"},
        {"action": "mkdir", "path": "/", "file_name": "d"},
        {"action": "move", "file_id": file, "path": "/d", "file_name": "b.txt"},
        {"action": "move", "file_id": file, "path": "/nowhere"},
    ]))
    .await
    .json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|r| r["ok"].as_bool().unwrap()).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!((results[0]["file"]["kind"].as_str(), results[1]["code"].as_str()), (Some("directory"), Some("name_taken")));
    assert_eq!((results[2]["file"]["file_path"].as_str(), results[3]["code"].as_str()), (Some("/d/b.txt"), Some("not_found")));
    let gone = batch(json!([{"action": "delete", "file_id": file}])).await.json();
    assert_eq!(gone["results"][0]["file"]["is_deleted"], true);
    let back = batch(json!([{"action": "restore", "file_id": file}])).await.json();
    assert_eq!(back["results"][0]["file"]["file_path"], "/d/b.txt");
    for (wrong, status) in [(json!([{"action": "chown"}]), 422), (json!({}), 422)] {
        assert_eq!(batch(wrong.clone()).await.status, status, "{wrong}");
    }
    let many: Vec<_> = (0..1001).map(|_| json!({"action": "delete", "file_id": file})).collect();
    assert_eq!(batch(json!(many)).await.status, 413);
    assert_eq!(world.get(&alice, &format!("/metadata/files/{file}")).await.status, 200);
}

#[tokio::test]
async fn who_names_a_folder_brings_back_only_what_is_in_it() {
    let world = World::on(Db::Sqlite).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "a.txt", b"one").await;
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{file}"), &[], "").await.status, 200);
    let restore = async |who, wish| world.json(who, Method::POST, "/api/v1/trash/restore", wish).await.status;
    // Neither what stands elsewhere, nor what stands in another's folder, for whichever folder is named.
    assert_eq!(restore(&mal, json!({"file_id": file, "space_id": mal.home})).await, 404);
    assert_eq!(restore(&mal, json!({"file_id": file, "space_id": alice.home})).await, 404);
    assert_eq!(restore(&alice, json!({"file_id": file, "space_id": mal.home})).await, 404);
    assert_eq!(restore(&alice, json!({"file_id": file, "space_id": alice.home})).await, 200);
}

on_each_store!(nobody_acts_on_what_is_anothers);

async fn nobody_acts_on_what_is_anothers(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "a.txt", b"one").await;
    let version = world.get(&alice, &format!("/api/v1/files/{file}/versions")).await.json()["versions"][0]["version_id"].clone();
    let version = version.as_str().unwrap();
    let delete = json!({"actions": [{"action": "delete", "file_id": file}]});
    let answer = world.json(&mal, Method::POST, "/api/v1/files/batch", delete).await.json();
    assert_eq!((answer["results"][0]["ok"].as_bool(), answer["results"][0]["code"].as_str()), (Some(false), Some("not_found")));
    let inside = json!({"space_id": alice.home, "actions": [{"action": "mkdir", "path": "/", "file_name": "x"}]});
    assert_eq!(world.json(&mal, Method::POST, "/api/v1/files/batch", inside).await.status, 404);
    let restore = format!("/api/v1/files/{file}/versions/{version}/restore");
    assert_eq!(world.json(&mal, Method::POST, &restore, json!({})).await.status, 404);
    assert_eq!(world.get(&mal, &format!("/api/v1/conflicts?space_id={}", alice.home)).await.status, 404);
    let settle = json!({"space_id": alice.home, "path": "/a.txt", "keep": "both"});
    assert_eq!(world.json(&mal, Method::POST, "/api/v1/conflicts/resolve", settle).await.status, 404);
    // And its owner hears why nothing is done.
    assert_eq!(world.json(&alice, Method::POST, &restore, json!({})).await.text("code"), "already_current");
    assert_eq!(world.get(&alice, "/api/v1/conflicts").await.json(), json!({"conflicts": []}));
    let settle = json!({"path": "/a.txt", "keep": "both"});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/conflicts/resolve", settle).await.text("code"), "no_conflict");
}
