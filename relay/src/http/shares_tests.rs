//! Sharing over the real router: invitations, roles, single files, and what their end ends. R16, R18, R21, R22, R39.

use super::content_tests::*;
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use ferry_protocol::wire::NamespaceInfo;
use ferry_protocol::{ContentHash, Epoch, NamespaceId};
use serde_json::{Value, json};

const SHARES: &str = "/api/v1/shares";

/// A folder of this user beside the home.
async fn folder(world: &World, user: &User, name: &str) -> NamespaceId {
    let made = world.json(user, Method::POST, "/sync/v1/namespaces", json!({ "name": name })).await;
    serde_json::from_value::<NamespaceInfo>(made.json()).unwrap().id
}

async fn invite(world: &World, by: &User, what: Value, email: &str, role: &str) -> Answer {
    let mut body = what;
    body["email"] = email.into();
    body["role"] = role.into();
    world.json(by, Method::POST, SHARES, body).await
}

async fn shares(world: &World, user: &User, query: &str) -> Vec<Value> {
    let answer = world.get(user, &format!("{SHARES}?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()["shares"].as_array().unwrap().clone()
}

async fn act(world: &World, user: &User, id: &str, action: &str) -> Answer {
    world.call(user, Method::POST, &format!("{SHARES}/{id}/{action}"), &[], "").await
}

async fn set_role(world: &World, user: &User, id: &str, role: &str) -> u16 {
    world.json(user, Method::PATCH, &format!("{SHARES}/{id}"), json!({ "role": role })).await.status
}

async fn end(world: &World, user: &User, id: &str) -> u16 {
    world.call(user, Method::DELETE, &format!("{SHARES}/{id}"), &[], "").await.status
}

fn id_of(share: &Value) -> String {
    share["share_id"].as_str().unwrap().to_owned()
}

on_each_store!(a_folder_is_shared_accepted_and_left);

async fn a_folder_is_shared_accepted_and_left(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    let ns = folder(&world, &alice, "Plans").await;
    let what = json!({"space_id": ns});
    let invited = invite(&world, &alice, what.clone(), "U2@Example.org", "viewer").await;
    assert_eq!((invited.status, invited.text("state").as_str()), (201, "pending"));
    let id = invited.text("share_id");
    // Nothing is open before it is accepted.
    assert_eq!(world.get(&bob, &format!("/sync/v1/{ns}/delta?since=0")).await.status, 404);
    let open = shares(&world, &bob, "with=me").await;
    assert_eq!((open.len(), id_of(&open[0])), (1, id.clone()));
    let shown = (&open[0]["kind"], &open[0]["name"], &open[0]["role"], &open[0]["state"], &open[0]["shared_by"]["email"]);
    assert_eq!(shown, (&json!("folder"), &json!("Plans"), &json!("viewer"), &json!("pending"), &json!("u1@example.org")));
    assert_eq!(shares(&world, &alice, &format!("space_id={ns}")).await.len(), 2, "the owner and the open invitation");
    assert_eq!(act(&world, &alice, &id, "accept").await.status, 404, "it is not hers");
    let accepted = act(&world, &bob, &id, "accept").await;
    assert_eq!((accepted.status, accepted.text("role").as_str()), (200, "viewer"));
    assert_eq!(act(&world, &bob, &id, "accept").await.status, 404, "once");
    let spaces = world.get(&bob, "/api/v1/spaces").await.json();
    let plans = spaces["spaces"].as_array().unwrap().iter().find(|s| s["name"] == "Plans").unwrap().clone();
    assert_eq!((&plans["role"], &plans["shared_by"]["email"]), (&json!("viewer"), &json!("u1@example.org")));
    let hers = world.get(&alice, "/api/v1/spaces").await.json();
    let plans = hers["spaces"].as_array().unwrap().iter().find(|s| s["name"] == "Plans").unwrap().clone();
    assert_eq!((&plans["role"], &plans["shared_by"], &plans["members"]), (&json!("owner"), &Value::Null, &json!(1)));

    let commit_path = format!("/sync/v1/{ns}/commit");
    let epoch = Epoch::default();
    assert_eq!(world.get(&bob, &format!("/sync/v1/{ns}/delta?since=0")).await.status, 200);
    assert_eq!(world.wire(&bob, &commit_path, &commit(1, epoch, vec![])).await.status, 403, "a viewer");
    let of_ns = shares(&world, &alice, &format!("space_id={ns}")).await;
    let member = of_ns.iter().find(|s| s["with"]["email"] == "u2@example.org").unwrap().clone();
    assert_eq!((&member["state"], &member["with"]["name"].is_string()), (&json!("accepted"), &true));
    let member = id_of(&member);
    assert_eq!(set_role(&world, &alice, &member, "editor").await, 200);
    assert_eq!(world.wire(&bob, &commit_path, &commit(1, epoch, vec![])).await.status, 409, "an editor, of another epoch");
    assert_eq!(end(&world, &bob, &member).await, 204, "leaves");
    assert_eq!(world.get(&bob, &format!("/sync/v1/{ns}/delta?since=0")).await.status, 404);
    assert_eq!(end(&world, &bob, &member).await, 404);
    assert_eq!(shares(&world, &bob, "with=me").await, [] as [Value; 0]);
    assert_eq!(shares(&world, &alice, "by=me").await, [] as [Value; 0]);

    // Declined, and withdrawn.
    let id = invite(&world, &alice, what.clone(), "u2@example.org", "editor").await.text("share_id");
    assert_eq!(act(&world, &bob, &id, "decline").await.status, 204);
    assert_eq!(act(&world, &bob, &id, "accept").await.status, 404);
    let id = invite(&world, &alice, what, "u2@example.org", "editor").await.text("share_id");
    assert_eq!(end(&world, &alice, &id).await, 204);
    assert_eq!(act(&world, &bob, &id, "accept").await.status, 404);
    let audit: Vec<String> = {
        let entries = world.app.db.audit_entries(i64::MAX, Some(bob.id), 50).await.unwrap();
        entries.into_iter().map(|e| e.event).filter(|e| e.starts_with("share.")).collect()
    };
    assert_eq!(audit, ["share.declined", "share.ended", "share.accepted"], "newest first");
}

on_each_store!(nobody_gives_what_is_not_theirs_to_give);

/// R18: only the owner gives; nobody gives ownership, gives to themselves or takes the owner's.
async fn nobody_gives_what_is_not_theirs_to_give(kind: Db) {
    let world = World::on(kind).await;
    let (alice, ed, mal) = (world.user(1).await, world.user(2).await, world.user(3).await);
    let ns = folder(&world, &alice, "F").await;
    let what = json!({"space_id": ns});
    let id = invite(&world, &alice, what.clone(), "u2@example.org", "editor").await.text("share_id");
    assert_eq!(act(&world, &ed, &id, "accept").await.status, 200);
    let file = world.upload(&alice, "file", b"bytes").await;
    for role in ["viewer", "editor", "owner"] {
        let refused = invite(&world, &ed, what.clone(), "u3@example.org", role).await.status;
        assert_eq!(refused, if role == "owner" { 422 } else { 403 }, "{role}");
    }
    assert_eq!(invite(&world, &alice, what.clone(), "u3@example.org", "owner").await.status, 422);
    assert_eq!(invite(&world, &alice, what.clone(), "u1@example.org", "viewer").await.status, 409, "oneself");
    assert_eq!(invite(&world, &alice, what.clone(), "u2@example.org", "viewer").await.status, 409, "a member");
    assert_eq!(invite(&world, &alice, what.clone(), "no address", "viewer").await.status, 422);
    assert_eq!(invite(&world, &mal, what.clone(), "u2@example.org", "viewer").await.status, 404);
    assert_eq!(invite(&world, &mal, json!({ "file_id": file }), "u2@example.org", "viewer").await.status, 404);
    assert_eq!(invite(&world, &alice, json!({}), "u2@example.org", "viewer").await.status, 400);
    let (owner, editor) = (format!("{ns}{}", alice.id), format!("{ns}{}", ed.id));
    assert_eq!(set_role(&world, &ed, &editor, "editor").await, 403, "not to oneself");
    assert_eq!(set_role(&world, &ed, &owner, "viewer").await, 403);
    assert_eq!(end(&world, &ed, &owner).await, 403);
    assert_eq!(set_role(&world, &alice, &owner, "viewer").await, 409, "the owner stays");
    assert_eq!(end(&world, &alice, &owner).await, 409);
    assert_eq!(set_role(&world, &alice, &editor, "owner").await, 422);
    for (stranger, expected) in [(&mal, 404), (&alice, 200)] {
        assert_eq!(set_role(&world, stranger, &editor, "editor").await, expected);
    }
    assert_eq!(end(&world, &mal, &editor).await, 404);
    let gone = format!("{ns}{}", mal.id);
    assert_eq!((set_role(&world, &alice, &gone, "editor").await, end(&world, &alice, &gone).await), (404, 404), "no member");
    for wrong in ["x", "00", "..%2fx"] {
        assert_eq!(end(&world, &alice, wrong).await, 404, "{wrong}");
    }
    assert_eq!(world.app.db.members(ns).await.unwrap().len(), 2);
}

on_each_store!(no_answer_tells_whose_an_address_is);

/// R39: a known address and an unknown one get the same answer; the unknown one's owner finds the invitation after registering; there is a pace.
async fn no_answer_tells_whose_an_address_is(kind: Db) {
    let world = World::on(kind).await;
    let (alice, _bob) = (world.user(1).await, world.user(2).await);
    let ns = folder(&world, &alice, "F").await;
    let what = json!({"space_id": ns});
    let shape = |answer: &Answer| {
        let names: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
        (answer.status, names, answer.text("state"), answer.text("share_id").len())
    };
    let (known, unknown) = (
        invite(&world, &alice, what.clone(), "u2@example.org", "viewer").await,
        invite(&world, &alice, what.clone(), "u9@example.org", "viewer").await,
    );
    assert_eq!(shape(&known), shape(&unknown));
    let listed = shares(&world, &alice, "by=me").await;
    let other: Vec<Value> = listed
        .iter()
        .map(|share| {
            let mut share = share.clone();
            for name in ["share_id", "created_at"] {
                share[name] = Value::Null;
            }
            share["with"]["email"] = Value::Null;
            share
        })
        .collect();
    assert_eq!((other.len(), &other[0]), (2, &other[1]), "nor does the list");
    let late = world.user(9).await;
    assert_eq!(shares(&world, &late, "with=me").await.len(), 1);
    assert_eq!(act(&world, &late, &unknown.text("share_id"), "accept").await.status, 200);
    let mut refused = 0;
    for n in 0..25 {
        let answer = invite(&world, &alice, what.clone(), &format!("probe{n}@example.org"), "viewer").await;
        assert!(answer.status == 201 || answer.status == 429, "{}", answer.status);
        refused += usize::from(answer.status == 429);
    }
    assert!(refused >= 3, "{refused}");
}

/// A new version of a shared file by its receiver; the status of the step that failed, or of the last.
async fn write_version(world: &World, user: &User, file: &str, bytes: &[u8]) -> u16 {
    let init = json!({"file_name": "ignored", "file_size": bytes.len(), "file_hash": ContentHash::of(bytes), "file_id": file});
    let begun = world.json(user, Method::POST, "/upload/init", init).await;
    if begun.status != 200 {
        return begun.status;
    }
    let id = begun.text("version_id");
    let put = world.call(user, Method::PUT, &format!("/upload/{id}/chunks/0"), &[], bytes.to_vec()).await;
    if put.status != 200 {
        return put.status;
    }
    world.call(user, Method::POST, &format!("/upload/complete/{id}"), &[], "").await.status
}

on_each_store!(a_file_is_shared_read_and_written);

async fn a_file_is_shared_read_and_written(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob, mal) = (world.user(1).await, world.user(2).await, world.user(3).await);
    let (file, beside) = (world.upload(&alice, "plan.txt", b"one").await, world.upload(&alice, "secret.txt", b"secret").await);
    let invited = invite(&world, &alice, json!({ "file_id": file }), "u2@example.org", "read").await;
    assert_eq!(invited.status, 201);
    let with_me = shares(&world, &bob, "with=me").await;
    let (share, id) = (with_me[0].clone(), id_of(&with_me[0]));
    assert_eq!(
        (with_me.len(), &share["kind"], &share["permission"], &share["name"]),
        (1, &json!("file"), &json!("read"), &json!("plan.txt"))
    );
    let download = format!("/download/{file}");
    for (user, expected) in [(&bob, 200), (&mal, 404)] {
        assert_eq!(world.get(user, &download).await.status, expected);
        assert_eq!(world.get(user, &format!("/metadata/files/{file}")).await.status, expected);
        assert_eq!(world.json(user, Method::POST, &format!("{download}/url"), json!({})).await.status, expected);
    }
    let signed = world.json(&bob, Method::POST, &format!("{download}/url"), json!({})).await.text("url");
    let signed = signed.strip_prefix("https://files.example.org").unwrap().to_owned();
    assert_eq!(world.get(&mal, &signed).await.body, b"one", "whoever has the address");
    // The one file, as it is now, and nothing beside it.
    assert_eq!(world.get(&bob, &format!("/download/{beside}")).await.status, 404);
    assert_eq!(world.get(&bob, &format!("{download}?version=1")).await.status, 404);
    for path in [
        format!("/api/v1/files/{file}/versions"),
        format!("/metadata/files?space_id={}", alice.home),
        format!("{SHARES}?file_id={file}"),
        format!("/sync/v1/{}/delta?since=0", alice.home),
    ] {
        assert_eq!(world.get(&bob, &path).await.status, 404, "{path}");
    }
    assert_eq!(world.json(&bob, Method::PUT, &format!("/metadata/files/{file}"), json!({"file_name": "mine"})).await.status, 404);
    assert_eq!(world.call(&bob, Method::DELETE, &format!("/metadata/files/{file}"), &[], "").await.status, 404);
    assert_eq!(write_version(&world, &bob, &file, b"two").await, 403, "only to read");
    assert_eq!(set_role(&world, &bob, &id, "write").await, 403);
    assert_eq!(set_role(&world, &alice, &id, "write").await, 200);
    assert_eq!(write_version(&world, &bob, &file, b"two").await, 200);
    assert_eq!(write_version(&world, &mal, &file, b"no").await, 404);
    assert_eq!(world.get(&alice, &download).await.body, b"two");
    let versions = world.get(&alice, &format!("/api/v1/files/{file}/versions")).await.json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);

    // Moved and renamed it stays shared, and does not say where it stands; deleted it is gone, restored it is back.
    let moved = json!({"action": "mkdir", "path": "/", "file_name": "private"});
    world.json(&alice, Method::POST, "/api/v1/files/batch", json!({ "actions": [moved] })).await;
    let renamed = json!({"file_name": "plan2.txt", "path": "/private"});
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{file}"), renamed).await.status, 200);
    assert_eq!(world.get(&bob, &format!("/metadata/files/{file}")).await.text("file_path"), "/plan2.txt");
    assert_eq!(write_version(&world, &bob, &file, b"three").await, 200, "wherever it is");
    assert_eq!(world.get(&alice, &download).await.body, b"three");
    assert_eq!(world.get(&alice, &format!("/metadata/files/{file}")).await.text("file_path"), "/private/plan2.txt");
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{file}"), &[], "").await.status, 200);
    assert_eq!(world.get(&bob, &download).await.status, 404);
    assert_eq!(write_version(&world, &bob, &file, b"four").await, 404);
    assert_eq!(shares(&world, &bob, "with=me").await, [] as [Value; 0]);
    assert_eq!(shares(&world, &alice, "by=me").await.len(), 1, "the owner still sees it (R22)");
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/trash/restore", json!({ "file_id": file })).await.status, 200);
    assert_eq!(world.get(&bob, &download).await.body, b"three");
    // Over, at once, on every way.
    assert_eq!(end(&world, &alice, &id).await, 204);
    assert_eq!((world.get(&bob, &download).await.status, world.get(&mal, &signed).await.status), (404, 404));
    assert_eq!(world.get(&bob, &format!("/metadata/files/{file}")).await.status, 404);
    assert_eq!(write_version(&world, &bob, &file, b"five").await, 404);
}

on_each_store!(what_was_begun_ends_with_the_share);

/// R21: an upload that was begun by a member or a receiver does not complete after the share is over.
async fn what_was_begun_ends_with_the_share(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    let ns = folder(&world, &alice, "F").await;
    let file = world.upload(&alice, "plan", b"one").await;
    let mut begun = Vec::new();
    for what in [json!({"space_id": ns}), json!({ "file_id": file })] {
        let id = invite(&world, &alice, what.clone(), "u2@example.org", "write").await.text("share_id");
        if what["space_id"].is_string() {
            assert_eq!(act(&world, &bob, &id, "accept").await.status, 200);
        }
        shares(&world, &bob, "with=me").await;
        let mut init = json!({"file_name": "new", "file_size": 3, "file_hash": ContentHash::of(b"two")});
        for (name, value) in what.as_object().unwrap() {
            init[name] = value.clone();
        }
        begun.push(world.json(&bob, Method::POST, "/upload/init", init).await.text("version_id"));
    }
    for share in shares(&world, &bob, "with=me").await {
        assert_eq!(end(&world, &alice, &id_of(&share)).await, 204);
    }
    for id in begun {
        let put = world.call(&bob, Method::PUT, &format!("/upload/{id}/chunks/0"), &[], "two").await;
        let done = world.call(&bob, Method::POST, &format!("/upload/complete/{id}"), &[], "").await;
        assert_eq!((put.status, done.status, world.get(&bob, &format!("/upload/{id}")).await.status), (404, 404, 404));
    }
    assert_eq!(world.get(&alice, &format!("/download/{file}")).await.body, b"one");
}
