//! Rules over the real router: who sets them, what is refused, and that a preview does nothing.

use super::content_tests::World;
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use serde_json::json;

on_each_store!(a_folder_has_a_rule_its_owners_or_none);

async fn a_folder_has_a_rule_its_owners_or_none(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let path = format!("/api/v1/folders/{}/retention", alice.home);
    let before = world.get(&alice, &path).await.json();
    assert_eq!((&before["rule"], &before["owner_rule"], &before["next_at"]), (&json!(null), &json!(null), &json!(null)));
    assert_eq!((&before["effective"]["all_days"], &before["can_change"]), (&json!(null), &json!(true)));
    let mine = json!({"rule": {"all_days": 30, "daily_days": 365, "trash_days": 90}});
    assert_eq!(world.json(&alice, Method::PUT, "/api/v1/me/retention", mine.clone()).await.status, 200);
    assert_eq!(world.get(&alice, "/api/v1/me/retention").await.json()["rule"]["daily_days"], 365);
    let inherited = world.get(&alice, &path).await.json();
    assert_eq!((&inherited["rule"], &inherited["effective"]["trash_days"]), (&json!(null), &json!(90)));
    assert!(inherited["next_at"].is_string());
    let own = world.json(&alice, Method::PUT, &path, json!({"rule": {"max_versions": 5}})).await.json();
    assert_eq!(
        (&own["effective"]["max_versions"], &own["effective"]["trash_days"]),
        (&json!(5), &json!(null)),
        "its own rule alone counts"
    );
    for wrong in [json!({"all_days": 0}), json!({"daily_days": 3}), json!({"max_versions": 0})] {
        let refused = world.json(&alice, Method::PUT, &path, json!({ "rule": wrong })).await;
        assert_eq!(refused.text("code"), "invalid_retention", "{wrong}");
    }
    for wrong in [json!({"rule": {"days": 3}}), json!({"rule": {"all_days": -1}}), json!({"keep": 1})] {
        assert_eq!(world.json(&alice, Method::PUT, &path, wrong.clone()).await.status, 422, "{wrong}");
    }
    for (method, path) in [(Method::GET, path.clone()), (Method::PUT, path.clone()), (Method::POST, format!("{path}/preview"))] {
        assert_eq!(world.json(&mal, method, &path, json!({"rule": null})).await.status, 404);
    }
    assert_eq!(world.json(&alice, Method::PUT, &path, json!({"rule": null})).await.json()["effective"]["all_days"], 30);
    let events = world.app.accounts.audit_entries(None, Some(alice.id), 100).await.unwrap();
    assert!(events.iter().filter(|event| event.event == "retention.changed").count() >= 3);
}

#[tokio::test]
async fn a_preview_says_what_would_go_and_does_nothing() {
    let world = World::on(Db::Sqlite).await;
    let alice = world.user(1).await;
    for text in [&b"1"[..], b"22", b"333", b"4444"] {
        world.upload(&alice, "a.txt", text).await;
    }
    let file = world.upload(&alice, "b.txt", b"other").await;
    let preview = json!({"rule": {"max_versions": 1}});
    for path in [format!("/api/v1/folders/{}/retention/preview", alice.home), "/api/v1/me/retention/preview".to_owned()] {
        let report = world.json(&alice, Method::POST, &path, preview.clone()).await.json();
        let counts = ["files", "versions", "trash_entries"].map(|name| report[name].as_u64().unwrap());
        assert_eq!(counts, [1, 2, 0], "{report}");
        assert_eq!((&report["named"][0]["path"], &report["named"][0]["versions"]), (&json!("/a.txt"), &json!([1, 2])));
        let nothing = world.json(&alice, Method::POST, &path, json!({})).await.json();
        assert_eq!(nothing["versions"], 0, "the rule that counts keeps everything");
    }
    let versions = world.get(&alice, &format!("/api/v1/files/{file}/versions")).await.json();
    assert_eq!(versions["total"], 1);
    let a = world.get(&alice, &format!("/api/v1/files/by-path?space_id={}&path=/a.txt", alice.home)).await.json();
    let a = a["file"]["file_id"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&alice, &format!("/api/v1/files/{a}/versions")).await.json()["total"], 4, "nothing went");
}
