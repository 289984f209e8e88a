//! Versions over the real router: who made them, what they cost, labels, differences, and what stood at a place.

use super::content_tests::World;
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use serde_json::json;

on_each_store!(a_history_says_who_what_and_at_what_cost);

async fn a_history_says_who_what_and_at_what_cost(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let file = world.upload(&alice, "a.txt", b"one\n").await;
    for text in [&b"one\ntwo\n"[..], b"three\n", b"one\n"] {
        assert_eq!(world.upload(&alice, "a.txt", text).await, file);
    }
    let list = async |query: &str| world.get(&alice, &format!("/api/v1/files/{file}/versions{query}")).await.json();
    let all = list("?cost=true").await;
    let of = |n: usize| &all["versions"][n];
    assert_eq!((all["total"].as_u64(), all["has_more"].as_bool(), all["versions"].as_array().unwrap().len()), (Some(4), Some(false), 4));
    assert_eq!(
        (of(0)["version_number"].as_u64(), of(0)["is_current"].as_bool(), of(0)["same_as"].as_u64()),
        (Some(4), Some(true), Some(1))
    );
    let who = |n: usize| (of(n)["origin"].as_str(), of(n)["user_email"].as_str(), of(n)["by_me"].as_bool(), of(n)["device_name"].as_str());
    assert_eq!(who(1), (Some("web"), Some("u1@example.org"), Some(true), Some("web")));
    // The first and the fourth hold the same chunk: neither alone holds it up.
    let costs: Vec<u64> = (0..4).map(|n| of(n)["cost_bytes"].as_u64().unwrap()).collect();
    assert_eq!(costs, [0, 6, 8, 0]);
    assert_eq!(list("").await["versions"][0]["cost_bytes"], json!(null), "counted only for who asks");
    let first = list("?limit=3").await;
    assert_eq!((first["has_more"].as_bool(), first["cursor"].as_str()), (Some(true), Some("2")));
    let rest = list("?limit=3&cursor=2").await;
    assert_eq!((rest["versions"].as_array().unwrap().len(), rest["versions"][0]["version_number"].as_u64()), (1, Some(1)));
}

on_each_store!(a_version_gets_a_label_and_loses_it);

async fn a_version_gets_a_label_and_loses_it(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "a.txt", b"one\n").await;
    let path = format!("/api/v1/files/{file}/versions");
    let version = world.get(&alice, &path).await.json()["versions"][0]["version_id"].as_str().unwrap().to_owned();
    let label = async |who, label| world.json(who, Method::PATCH, &format!("{path}/{version}"), json!({ "label": label })).await;
    assert_eq!(label(&alice, json!("  sent to the printer ")).await.text("label"), "sent to the printer");
    assert_eq!(world.get(&alice, &path).await.json()["versions"][0]["label"], "sent to the printer");
    for wrong in [json!("a\nb"), json!("x".repeat(101))] {
        assert_eq!(label(&alice, wrong).await.text("code"), "invalid_label");
    }
    assert_eq!(label(&mal, json!("mine")).await.status, 404);
    let other = world.upload(&alice, "b.txt", b"two\n").await;
    let elsewhere = format!("/api/v1/files/{other}/versions/{version}");
    assert_eq!(world.json(&alice, Method::PATCH, &elsewhere, json!({"label": "x"})).await.status, 404, "a version of another file");
    assert_eq!(label(&alice, json!(null)).await.json()["label"], json!(null));
    assert_eq!(world.get(&alice, &path).await.json()["versions"][0]["label"], json!(null));
}

on_each_store!(two_versions_are_compared_line_by_line);

async fn two_versions_are_compared_line_by_line(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "a.txt", b"one\ntwo\n").await;
    world.upload(&alice, "a.txt", b"one\nzwei\n").await;
    world.upload(&alice, "a.txt", b"\xff\xfe").await;
    world.upload(&alice, "a.txt", b"one\nzwei\ndrei").await;
    let diff = async |query: &str| world.get(&alice, &format!("/api/v1/files/{file}/diff{query}")).await;
    let answer = diff("?from=1&to=2").await.json();
    assert_eq!((answer["added"].as_u64(), answer["removed"].as_u64(), answer["is_cut"].as_bool()), (Some(1), Some(1), Some(false)));
    let lines = json!([{"kind": "same", "text": "one"}, {"kind": "removed", "text": "two"}, {"kind": "added", "text": "zwei"}]);
    assert_eq!(answer["hunks"][0]["lines"], lines);
    assert_eq!((answer["from"]["version_number"].as_u64(), answer["to"]["version_number"].as_u64()), (Some(1), Some(2)));
    assert_eq!(diff("?to=1").await.json()["from"], json!(null), "there is none before the first");
    let refused = diff("").await;
    assert_eq!((refused.status, refused.text("code")), (409, "not_text".into()), "the one before the newest is no text");
    assert_eq!(diff("?from=2").await.json()["hunks"][0]["lines"][2], json!({"kind": "added", "text": "drei", "is_cut": true}));
    let unknown = diff("?from=9").await;
    assert_eq!((unknown.status, unknown.text("code")), (404, "version_not_found".into()));
    assert_eq!(world.get(&mal, &format!("/api/v1/files/{file}/diff")).await.status, 404);
    let with = async |text: &str| {
        world.json(&alice, Method::POST, &format!("/api/v1/files/{file}/diff"), json!({"text": text, "from": "2"})).await
    };
    assert_eq!(with("one\nzwei\n").await.json()["hunks"], json!([]));
    assert_eq!(with("one\n").await.json()["removed"], 1);
    assert_eq!(with(&"x".repeat(2 * 1024 * 1024 + 1)).await.status, 413);
    let large = world.upload(&alice, "large.txt", &vec![b'a'; 2 * 1024 * 1024 + 1]).await;
    let refused = world.get(&alice, &format!("/api/v1/files/{large}/diff")).await;
    assert_eq!((refused.status, refused.text("code")), (413, "too_large_to_compare".into()));
}

on_each_store!(a_place_remembers_what_stood_there);

async fn a_place_remembers_what_stood_there(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let actions = json!({"actions": [{"action": "mkdir", "path": "/", "file_name": "d"}]});
    let made = world.json(&alice, Method::POST, "/api/v1/files/batch", actions).await.json();
    let directory = made["results"][0]["file"]["file_id"].as_str().unwrap().to_owned();
    let file = world.upload(&alice, "a.txt", b"one").await;
    let put = json!({"path": "/d"});
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{file}"), put).await.status, 200);
    let at = async |who, path: &str| world.get(who, &format!("/api/v1/files/by-path?space_id={}&path={path}", alice.home)).await;
    let found = at(&alice, "/d/a.txt").await.json();
    assert_eq!((found["file"]["file_id"].as_str(), found["deleted"].as_array().unwrap().len()), (Some(file.as_str()), 0));
    assert_eq!(at(&mal, "/d/a.txt").await.status, 404);
    // The directory goes, and the file with it: both are found where they stood.
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{directory}"), &[], "").await.status, 200);
    let gone = at(&alice, "/d/a.txt").await.json();
    assert_eq!((&gone["file"], gone["deleted"][0]["file_id"].as_str()), (&json!(null), Some(file.as_str())));
    assert_eq!(at(&alice, "/d").await.json()["deleted"][0]["file_id"], json!(directory));
    assert_eq!(at(&alice, "/d/b.txt").await.json()["deleted"], json!([]));
    assert_eq!(world.get(&alice, &format!("/api/v1/files/{file}/versions")).await.json()["total"], 1, "its versions are there");
}
