//! Grants and rendezvous over the real router.

use super::content_tests::{User, World};
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferry_protocol::grant::{Grant, SignedGrant};
use libp2p_identity::ed25519::PublicKey;
use serde_json::{Value, json};

const ANNOUNCE: &str = "/api/v1/peers/announce";

async fn announce(world: &World, user: &User, body: Value) -> Value {
    let answer = world.json(user, Method::POST, ANNOUNCE, body).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn opened(answer: &Value, at: usize) -> Grant {
    let key = PublicKey::try_from_bytes(&hex::decode(answer["grant_key"].as_str().unwrap()).unwrap()).unwrap();
    let part = |name: &str| STANDARD.decode(answer["grants"][at][name].as_str().unwrap()).unwrap();
    let signed = SignedGrant { body: part("body"), signature: part("signature") };
    signed.open(|message, signature| key.verify(message, signature)).unwrap()
}

on_each_store!(a_device_announces_itself_and_gets_grants_and_peers);

async fn a_device_announces_itself_and_gets_grants_and_peers(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let phone = world.device(&alice, 2).await;
    let first = announce(&world, &alice, json!({"addresses": ["10.0.0.1:4711", "[fe80::1%2]:4711"], "epochs": {}})).await;
    assert_eq!(first["peers"], json!([]));
    let grant = opened(&first, 0);
    assert_eq!((first["grants"].as_array().unwrap().len(), grant.namespace), (1, alice.home));
    assert!(grant.member(alice.device).is_some() && grant.member(phone.device).is_some() && grant.members.len() == 2);
    let second = announce(&world, &phone, json!({"addresses": ["10.0.0.2:4711"], "epochs": {alice.home.to_string(): grant.epoch}})).await;
    assert_eq!(second["grants"], first["grants"]);
    let peer = &second["peers"][0];
    assert_eq!(peer["device_id"], json!(alice.device));
    assert_eq!(peer["addresses"], json!(["10.0.0.1:4711", "[fe80::1]:4711"]));
    assert!(peer["announced_at_ms"].as_i64().unwrap() > 0 && second["server_time_ms"].as_i64().unwrap() > 0);
    let listed = world.get(&alice, "/api/v1/peers").await.json();
    assert_eq!(listed["peers"][0]["device_id"], json!(phone.device));
    assert_eq!(world.get(&alice, "/api/v1/server").await.text("grant_key"), first["grant_key"].as_str().unwrap());

    let gone = world.json(&alice, Method::DELETE, &format!("/api/v1/devices/{}", phone.device), json!({})).await;
    assert_eq!(gone.status, 204);
    let after = announce(&world, &alice, json!({"addresses": []})).await;
    let grant_after = opened(&after, 0);
    assert!(grant_after.epoch > grant.epoch && grant_after.member(phone.device).is_none());
    assert_eq!(after["peers"], json!([]));
    assert_eq!(world.json(&phone, Method::POST, ANNOUNCE, json!({"addresses": []})).await.status, 401);
}

on_each_store!(what_is_wrong_is_refused);

async fn what_is_wrong_is_refused(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let long = json!({"addresses": ["x".repeat(200 * 1024)]});
    for (body, status) in [
        (json!({}), 422),
        (json!({"addresses": "10.0.0.1:1"}), 422),
        (json!({"addresses": ["10.0.0.1"]}), 422),
        (json!({"addresses": ["<script>:1"]}), 422),
        (json!({"addresses": [], "epochs": {"x": 1}}), 422),
        (json!({"addresses": [], "epochs": {alice.home.to_string(): -1}}), 422),
        (long, 413),
    ] {
        let answer = world.json(&alice, Method::POST, ANNOUNCE, body.clone()).await;
        assert_eq!(answer.status, status, "{}", body.to_string().chars().take(100).collect::<String>());
    }
    let browser = world.browser(&alice).await;
    assert_eq!(world.json(&browser, Method::POST, ANNOUNCE, json!({"addresses": []})).await.status, 403, "no device");
    assert_eq!(world.get(&browser, "/api/v1/peers").await.status, 200);
}
