//! Every route x who calls x whose ids: generated from the router, so that a new route is in it, or fails it until it says what belongs into its path.

use super::content_tests::*;
use super::*;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use ferry_protocol::wire::{CHUNKS_CONTENT_TYPE, CONTENT_TYPE, ChunkIds, NamespaceInfo, Role as Member, encode};
use ferry_protocol::{ChunkId, ContentHash, Epoch};
use serde_json::json;

const JSON: &str = "application/json";
/// Where a reader asks for the object store's own addresses; a relay gives none unless it is told to (`blobs.presign`).
const ADDRESSES: &str = "/download/v1/{ns}/urls";

/// Things of alice's, by the name of the path parameter that names such a thing.
struct Things(Vec<(&'static str, String)>);

impl Things {
    async fn of(world: &World, alice: &User) -> Self {
        let file = world.upload(alice, "secret", b"secret").await;
        let init = json!({"file_name": "open", "file_size": 4, "file_hash": ContentHash::of(b"open")});
        let upload = world.json(alice, Method::POST, "/upload/init", init).await.text("version_id");
        let made = world.json(alice, Method::POST, "/api/v1/me/tokens", json!({"name": "x", "scopes": ["dav"]})).await;
        let invited = json!({"space_id": alice.home, "email": "nobody@example.org", "role": "viewer"});
        let share = world.json(alice, Method::POST, "/api/v1/shares", invited).await.text("share_id");
        let link = world.json(alice, Method::POST, "/api/v1/links", json!({"file_id": file})).await;
        let session = world.app.accounts.sessions(alice.id).await.unwrap()[0].session_id;
        Self(vec![
            ("ns", alice.home.to_string()),
            ("file_id", file),
            ("version_id", upload),
            ("index", "0".into()),
            ("device_id", alice.device.to_string()),
            ("session_id", session.to_string()),
            ("user_id", alice.id.to_string()),
            ("share_id", share),
            ("link_id", link.json()["link"]["link_id"].as_str().unwrap().into()),
            ("token_id", made.json()["token"]["token_id"].as_str().unwrap().into()),
            ("*path", format!("{}/secret", alice.home)),
        ])
    }

    /// A route's path with these things in it; none when it names nothing.
    fn path(&self, route: &Route) -> Option<String> {
        let mut named = false;
        let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            None => part.to_owned(),
            Some(name) => {
                let thing = self.0.iter().find(|(n, _)| *n == name);
                thing.unwrap_or_else(|| panic!("{}: say in this test what {{{name}}} is, and whose", route.path)).1.clone()
            }
        };
        let parts: Vec<String> = route.path.split('/').inspect(|p| named |= p.starts_with('{')).map(part).collect();
        named.then(|| parts.join("/"))
    }
}

/// A body that the route takes, as far as its form goes.
fn body_of(route: &Route) -> (&'static str, Vec<u8>) {
    let ids = || encode(&ChunkIds { ids: vec![ChunkId::of(b"secret")] });
    match route.path {
        "/sync/v1/{ns}/commit" => (CONTENT_TYPE, encode(&commit(1, Epoch::default(), vec![]))),
        "/upload/v1/{ns}/missing" | "/download/v1/{ns}/chunks" | ADDRESSES => (CONTENT_TYPE, ids()),
        "/upload/v1/{ns}/chunks" => (CHUNKS_CONTENT_TYPE, frames(b"x")),
        "/upload/{version_id}/chunks/{index}" => ("application/octet-stream", b"open".to_vec()),
        "/metadata/files/{file_id}" if route.method == Method::PUT => (JSON, json!({"file_name": "mine"}).to_string().into_bytes()),
        "/api/v1/devices/{device_id}" if route.method == Method::PATCH => (JSON, json!({"name": "mine"}).to_string().into_bytes()),
        "/api/v1/files/{file_id}/diff" if route.method == Method::POST => (JSON, json!({"text": ""}).to_string().into_bytes()),
        "/api/v1/shares/{share_id}" if route.method == Method::PATCH => (JSON, json!({"role": "editor"}).to_string().into_bytes()),
        "/api/v1/links/{link_id}" if route.method == Method::PATCH => (JSON, json!({"kind": "view"}).to_string().into_bytes()),
        _ => (JSON, b"{}".to_vec()),
    }
}

/// What shows a file in another form refuses one that has none, and so says that the caller may have it.
fn is_refused_by_content(route: &Route, answer: &Answer) -> bool {
    ["/api/v1/thumbnails/{file_id}", "/api/v1/previews/{file_id}"].contains(&route.path) && answer.status == 422
}

async fn call(world: &World, token: &str, route: &Route, path: &str) -> Answer {
    let (kind, body) = body_of(route);
    let request = Request::builder().method(route.method.clone()).uri(path).header("authorization", format!("Bearer {token}"));
    world.send(request.header("content-type", kind).body(Body::from(body)).unwrap()).await
}

/// An app password for WebDAV.
async fn dav_password(world: &World, user: &User) -> String {
    world.json(user, Method::POST, "/api/v1/me/tokens", json!({"name": "dav", "scopes": ["dav"]})).await.text("secret")
}

fn protected(world: &World) -> Vec<Route> {
    let (_, routes) = router(&world.app, &world.app.roles);
    routes.into_iter().filter(|r| !matches!(r.access, Access::Public | Access::Signed)).collect()
}

on_each_store!(what_is_named_in_a_path_is_its_owners);

/// R16: what is alice's does not exist for another user, whatever kind of thing it is, and nothing happens to it.
async fn what_is_named_in_a_path_is_its_owners(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let things = Things::of(&world, &alice).await;
    let (password, own_password) = (dav_password(&world, &mal).await, dav_password(&world, &alice).await);
    let token = |route: &Route, login: &str, password: &str| if route.access == Access::AppPassword { password } else { login }.to_owned();
    let mut seen = 0;
    for route in protected(&world) {
        let Some(path) = things.path(&route) else { continue };
        let answer = call(&world, &token(&route, &mal.token, &password), &route, &path).await;
        let expected = match (route.access, route.path) {
            (Access::Admin, _) => 403,
            // The id is the caller's own by definition: another one is refused, not missing.
            (_, "/ws/sync/{user_id}") => 403,
            _ => 404,
        };
        assert_eq!(answer.status, expected, "{} {path}", route.method);
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
    // All of it is as it was.
    for route in protected(&world).iter().filter(|r| r.method == Method::GET && matches!(r.access, Access::User | Access::AppPassword)) {
        let Some(path) = things.path(route).filter(|_| !route.path.starts_with("/ws/")) else { continue };
        let answer = call(&world, &token(route, &alice.token, &own_password), route, &path).await;
        assert!(answer.status < 300 || is_refused_by_content(route, &answer), "{path}: {}", answer.status);
    }
}

on_each_store!(each_role_does_what_it_may);

/// R17: what each role may do with a folder that is shared with it.
async fn each_role_does_what_it_may(kind: Db) {
    for role in [Member::Viewer, Member::Editor] {
        let world = World::on(kind).await;
        let (alice, guest) = (world.user(1).await, world.user(2).await);
        let things = Things::of(&world, &alice).await;
        let mut tx = world.app.db.begin(crate::store::content::Scope::Namespace(alice.home)).await.unwrap();
        tx.set_member(alice.home, guest.id, role, 0).await.unwrap();
        tx.commit().await.unwrap();
        let mut seen = 0;
        for route in protected(&world) {
            let names = |name: &str| route.path.split('/').any(|p| p == format!("{{{name}}}"));
            // Deleting comes last, by being left to the test above: here it would take the file from the others.
            if !(names("ns") || names("file_id")) || (role == Member::Editor && route.method == Method::DELETE) {
                continue;
            }
            let path = things.path(&route).unwrap();
            // Questions that need a body are asked with POST.
            // What the relay lacks is asked for by those who can send it.
            let reads = (route.method == Method::GET && !route.path.ends_with("/lacks"))
                || ["/download/v1/{ns}/chunks", "/download/{file_id}/url", "/api/v1/files/{file_id}/diff", ADDRESSES].contains(&route.path);
            let answer = call(&world, &guest.token, &route, &path).await;
            // How long things are kept is for the owner to say.
            let is_owners = route.method != Method::GET && route.path.starts_with("/api/v1/folders/{ns}/retention");
            let may = (reads || role == Member::Editor) && !is_owners;
            assert_eq!(answer.status == 403, !may, "{role:?} {} {path}: {}", route.method, answer.status);
            // The upload's id is no version of the file.
            assert!(
                answer.status != 401 && (answer.status != 404 || names("version_id") || route.path == ADDRESSES),
                "{role:?} {} {path}: {}",
                route.method,
                answer.status
            );
            seen += 1;
        }
        assert!(seen > 8, "{seen}");
    }
}

on_each_store!(a_receiver_of_one_file_gets_at_that_alone);

/// R16, R17: with whom one file is shared, to write even, gets at it by the routes that keep to it, and at nothing of the folder by any other.
async fn a_receiver_of_one_file_gets_at_that_alone(kind: Db) {
    let world = World::on(kind).await;
    let (alice, guest) = (world.user(1).await, world.user(2).await);
    let things = Things::of(&world, &alice).await;
    let file = things.0.iter().find(|(name, _)| *name == "file_id").unwrap().1.clone();
    let invited = json!({"file_id": file, "email": "u2@example.org", "permission": "write"});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/shares", invited).await.status, 201);
    assert_eq!(world.get(&guest, "/api/v1/shares?with=me").await.json()["shares"][0]["file_id"], json!(file));
    let open = [
        (Method::GET, "/metadata/files/{file_id}"),
        (Method::GET, "/download/{file_id}"),
        (Method::POST, "/download/{file_id}/url"),
        (Method::GET, "/api/v1/thumbnails/{file_id}"),
        (Method::GET, "/api/v1/previews/{file_id}"),
    ];
    let (mut seen, mut opened) = (0, 0);
    for route in protected(&world) {
        let Some(path) = things.path(&route).filter(|_| route.access == Access::User && !route.path.starts_with("/ws/")) else { continue };
        let answer = call(&world, &guest.token, &route, &path).await;
        let may = open.contains(&(route.method.clone(), route.path));
        let is_open = answer.status == 200 || is_refused_by_content(&route, &answer);
        assert!(if may { is_open } else { answer.status == 404 }, "{} {path}: {}", route.method, answer.status);
        (seen, opened) = (seen + 1, opened + usize::from(may));
    }
    assert!(seen > 20 && opened == open.len(), "{seen} {opened}");
}

on_each_store!(an_id_in_two_folders_is_never_guessed_at);

/// R16: ids of nodes and folders are chosen by devices. Whoever sees a file can make a folder of their own with a file of the same id and share it with
/// others who have the first one: no route takes the one for the other.
async fn an_id_in_two_folders_is_never_guessed_at(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let (hers, his) = ("f".repeat(32), format!("{:032x}", 1));
    for (user, other, id, bytes) in [(&alice, &mal, &hers, &b"hers"[..]), (&mal, &alice, &his, b"his")] {
        let made = world.json(user, Method::POST, "/sync/v1/namespaces", json!({"name": "Plans", "id": id})).await;
        assert_eq!(made.status, 201);
        let info: NamespaceInfo = serde_json::from_value(made.json()).unwrap();
        let headers = [("content-type", CHUNKS_CONTENT_TYPE)];
        assert_eq!(world.call(user, Method::POST, &format!("/upload/v1/{id}/chunks"), &headers, frames(bytes)).await.status, 200);
        let request = commit(1, info.epoch, vec![file(user, 7, bytes)]);
        assert_eq!(world.wire(user, &format!("/sync/v1/{id}/commit"), &request).await.status, 200);
        let mut tx = world.app.db.begin(crate::store::content::Scope::Namespace(info.id)).await.unwrap();
        tx.set_member(info.id, other.id, Member::Editor, 0).await.unwrap();
        tx.commit().await.unwrap();
    }
    let id = uuid::Uuid::from_bytes([7; 16]).to_string();
    let version = |space: &str| format!("/api/v1/files/{id}/versions?space_id={space}");
    let version = world.get(&alice, &version(&hers)).await.json()["versions"][0]["version_id"].as_str().unwrap().to_owned();
    let things = Things(vec![("file_id", id.clone()), ("version_id", version)]);

    // Every route with a file in its path; those that delete come last.
    let mut routes: Vec<Route> = protected(&world).into_iter().filter(|route| route.path.contains("{file_id}")).collect();
    routes.sort_by_key(|route| route.method == Method::DELETE);
    assert!(routes.len() >= 7, "{}", routes.len());
    for route in &routes {
        let path = things.path(route).unwrap();
        let answer = call(&world, &alice.token, route, &path).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (409, "ambiguous_file"), "{} {path}", route.method);
    }
    // Those that name it elsewhere.
    let hash = ContentHash::of(b"new");
    let upload = json!({"file_name": "x", "file_size": 3, "file_hash": hash, "file_id": id});
    let asked = [
        ("/upload/init", upload, 200),
        ("/api/v1/links", json!({"file_id": id}), 201),
        ("/api/v1/shares", json!({"file_id": id, "email": "nobody@example.org", "role": "editor"}), 201),
        ("/api/v1/archives", json!({"file_ids": [id]}), 200),
    ];
    for (path, body, expected) in asked {
        let answer = world.json(&alice, Method::POST, path, body.clone()).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (409, "ambiguous_file"), "{path}");
        let mut named = body;
        named["space_id"] = json!(hers);
        assert_eq!(world.json(&alice, Method::POST, path, named).await.status, expected, "{path}");
    }
    for path in [format!("/api/v1/shares?file_id={id}"), format!("/metadata/files?parent={id}")] {
        assert_eq!(world.get(&alice, &path).await.status, 409, "{path}");
    }
    let listed = world.get(&alice, &format!("/api/v1/shares?file_id={id}&space_id={hers}")).await.json();
    assert_eq!(listed["shares"].as_array().unwrap().len(), 1);
    let count = async |space: &str| {
        let links = world.get(&alice, &format!("/api/v1/links?file_id={id}&space_id={space}")).await.json();
        links["links"].as_array().unwrap().len()
    };
    assert_eq!((count(&hers).await, count(&his).await), (1, 0));

    // With the folder's name it is the file of that folder.
    for (space, bytes) in [(&hers, "hers"), (&his, "his")] {
        let got = world.get(&alice, &format!("/download/{id}?space_id={space}")).await;
        assert_eq!((got.status, got.body), (200, bytes.into()));
    }
    for route in &routes {
        let path = format!("{}?space_id={hers}", things.path(route).unwrap());
        let answer = call(&world, &alice.token, route, &path).await;
        if route.path.ends_with("/restore") {
            assert_eq!(answer.text("code"), "already_current", "of that folder's file");
        } else if !is_refused_by_content(route, &answer) {
            assert_eq!(answer.status, 200, "{} {path}", route.method);
        }
    }
    assert_eq!(world.get(&alice, &format!("/download/{id}?space_id={hers}")).await.status, 404, "it was deleted");
    let untouched = world.get(&alice, &format!("/metadata/files/{id}?space_id={his}")).await;
    assert_eq!((untouched.status, untouched.text("file_name").as_str()), (200, "f7"));
    let restore = |wish| world.json(&alice, Method::POST, "/api/v1/trash/restore", wish);
    assert_eq!(restore(json!({"file_id": id})).await.status, 409);
    assert_eq!(restore(json!({"file_id": id, "space_id": hers})).await.status, 200);
    let purge = async |query: &str| world.call(&alice, Method::DELETE, &format!("/api/v1/trash?file_id={id}{query}"), &[], "").await.status;
    assert_eq!(purge("").await, 409);
}

on_each_store!(a_shared_file_is_not_another_of_its_id);

/// The same, where the one is a file that is shared by itself.
async fn a_shared_file_is_not_another_of_its_id(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    let id = world.upload(&alice, "plan", b"hers").await;
    let invited = json!({"file_id": id, "email": "u2@example.org", "permission": "read"});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/shares", invited).await.status, 201);
    assert_eq!(world.get(&bob, "/api/v1/shares?with=me").await.json()["shares"][0]["file_id"], json!(id));
    let headers = [("content-type", CHUNKS_CONTENT_TYPE)];
    assert_eq!(world.call(&bob, Method::POST, &format!("/upload/v1/{}/chunks", bob.home), &headers, frames(b"his")).await.status, 200);
    let info: Vec<NamespaceInfo> = serde_json::from_value(world.get(&bob, "/sync/v1/namespaces").await.json()).unwrap();
    let mut node = file(&bob, 7, b"his");
    node.id = ferry_protocol::NodeId::from_bytes(*uuid::Uuid::parse_str(&id).unwrap().as_bytes());
    let answer = world.wire(&bob, &format!("/sync/v1/{}/commit", bob.home), &commit(1, info[0].epoch, vec![node])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.get(&bob, &format!("/download/{id}")).await.status, 409);
    assert_eq!(world.call(&bob, Method::DELETE, &format!("/metadata/files/{id}"), &[], "").await.status, 409);
    for (space, bytes) in [(alice.home, "hers"), (bob.home, "his")] {
        let got = world.get(&bob, &format!("/download/{id}?space_id={space}")).await;
        assert_eq!((got.status, got.body), (200, bytes.into()));
    }
}

on_each_store!(what_has_ended_opens_nothing);

/// R06: whatever has ended opens no route at all.
async fn what_has_ended_opens_nothing(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob, carol, dave) = (world.user(1).await, world.user(2).await, world.user(3).await, world.user(4).await);
    let made =
        world.json(&alice, Method::POST, "/api/v1/me/tokens", json!({"name": "x", "scopes": ["files:read", "files:write", "dav"]})).await;
    let password = made.text("secret");
    let id = made.json()["token"]["token_id"].as_str().unwrap().to_owned();
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/api/v1/me/tokens/{id}"), &[], "").await.status, 204);
    let logged_out = world.browser(&alice).await;
    assert_eq!(world.json(&logged_out, Method::POST, "/auth/logout", json!({})).await.status, 204);
    world.app.accounts.revoke_device(bob.id, bob.device).await.unwrap();
    let lock = crate::store::accounts::UserChange { disabled: Some(true), ..Default::default() };
    world.app.accounts.update_user(carol.id, &lock).await.unwrap();
    world.app.accounts.delete_user(dave.id).await.unwrap();
    let ended = [
        ("a revoked app password", &password),
        ("a login that ended", &logged_out.token),
        ("a revoked device", &bob.token),
        ("a locked user", &carol.token),
        ("a deleted user", &dave.token),
    ];
    for route in protected(&world) {
        for (what, token) in ended {
            let answer = call(&world, token, &route, &super::tests::filled(route.path)).await;
            assert_eq!(answer.status, 401, "{what}: {} {}", route.method, route.path);
        }
    }
    assert_eq!(world.get(&alice, "/auth/me").await.status, 200);
}
