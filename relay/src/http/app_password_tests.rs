//! App passwords over the real router: they are shown once, do what their scopes name in the folder that they name, and end when they are told to.

use super::content_tests::*;
use super::*;
use crate::service::Scope;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine;
use ferry_protocol::ContentHash;
use serde_json::{Value, json};

/// Makes an app password; its secret and its id.
async fn make(world: &World, user: &User, body: Value) -> (String, String) {
    let made = world.json(user, Method::POST, "/api/v1/me/tokens", body).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let id = made.json()["token"]["token_id"].as_str().unwrap().to_owned();
    (made.text("secret"), id)
}

async fn ask(world: &World, secret: &str, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {secret}"));
    world.send(request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()).await
}

/// Uploads with an app password; the answer that ended it.
async fn upload(world: &World, secret: &str, directory: &str, name: &str, bytes: &[u8]) -> Answer {
    let init = json!({"file_name": name, "path": directory, "file_size": bytes.len(), "file_hash": ContentHash::of(bytes)});
    let begun = ask(world, secret, Method::POST, "/upload/init", init).await;
    if begun.status != 200 || begun.json()["deduplication"] == true {
        return begun;
    }
    let id = begun.text("version_id");
    let chunk = Request::put(format!("/upload/{id}/chunks/0")).header("authorization", format!("Bearer {secret}"));
    assert_eq!(world.send(chunk.body(Body::from(bytes.to_vec())).unwrap()).await.status, 200);
    ask(world, secret, Method::POST, &format!("/upload/complete/{id}"), json!({})).await
}

on_each_store!(an_app_password_is_shown_once_and_ends_when_told);

async fn an_app_password_is_shown_once_and_ends_when_told(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let (secret, id) = make(&world, &alice, json!({"name": "camera", "scopes": ["files:read"]})).await;
    assert!(secret.starts_with("fap_"));
    let list = || async { world.get(&alice, "/api/v1/me/tokens").await.json() };
    let listed = list().await;
    assert_eq!((listed["tokens"][0]["name"].as_str(), listed["tokens"][0]["last_used_at"].is_null()), (Some("camera"), true));
    assert!(!listed.to_string().contains(&secret[4..]));
    assert_eq!(ask(&world, &secret, Method::GET, "/metadata/files", json!({})).await.status, 200);
    assert!(list().await["tokens"][0]["last_used_at"].is_string());
    let path = format!("/api/v1/me/tokens/{id}");
    assert_eq!(world.call(&mal, Method::DELETE, &path, &[], "").await.status, 404);
    assert_eq!(ask(&world, &secret, Method::GET, "/metadata/files", json!({})).await.status, 200);
    assert_eq!(world.call(&alice, Method::DELETE, &path, &[], "").await.status, 204);
    assert_eq!(ask(&world, &secret, Method::GET, "/metadata/files", json!({})).await.status, 401);
    assert_eq!(world.call(&alice, Method::DELETE, &path, &[], "").await.status, 404);
    for wrong in [
        json!({"name": "", "scopes": ["dav"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["admin"]}),
        json!({"name": "x", "scopes": ["dav"], "expires_at": "2001-01-01T00:00:00Z"}),
        json!({"name": "x", "scopes": ["dav"], "expires_at": "soon"}),
        json!({"name": "x\ny", "scopes": ["dav"]}),
        json!({"name": "x", "scopes": ["dav"], "path": "/../x"}),
    ] {
        assert_eq!(world.json(&alice, Method::POST, "/api/v1/me/tokens", wrong.clone()).await.status, 422, "{wrong}");
    }
    for nowhere in
        [json!({"name": "x", "scopes": ["dav"], "path": "/nowhere"}), json!({"name": "x", "scopes": ["dav"], "space_id": mal.home})]
    {
        assert_eq!(world.json(&alice, Method::POST, "/api/v1/me/tokens", nowhere).await.status, 404);
    }
}

on_each_store!(a_scope_opens_the_routes_that_name_it_and_no_other);

/// Every route x every set of scopes: what a route does not name, no app password may.
async fn a_scope_opens_the_routes_that_name_it_and_no_other(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let (_, routes) = router(&world.app, &world.app.roles);
    let protected: Vec<&Route> = routes.iter().filter(|r| !matches!(r.access, Access::Public | Access::Signed)).collect();
    let (mut opened, mut closed) = (0, 0);
    for bits in 1..=7u8 {
        let scopes = crate::service::Scopes::from_bits(bits).unwrap();
        let (secret, _) = make(&world, &alice, json!({"name": "x", "scopes": scopes.names()})).await;
        for route in &protected {
            let answer = ask(&world, &secret, route.method.clone(), &super::tests::filled(route.path), json!({})).await;
            let refused = answer.status == 403 && answer.text("code") == "scope_missing";
            let may = route.scope.is_some_and(|s| scopes.has(s));
            assert_eq!(refused, !may, "{} {} with {:?}: {}", route.method, route.path, scopes.names(), answer.status);
            if may { opened += 1 } else { closed += 1 }
        }
    }
    assert!(opened > 40 && closed > 200, "{opened} {closed}");
    // Nothing of the account, of devices or of administration is for app passwords.
    for route in protected.iter().filter(|r| r.scope.is_some() && r.access != Access::AppPassword) {
        let is_files = [
            "/metadata/",
            "/download/",
            "/upload/",
            "/sync/delta",
            "/api/v1/files/",
            "/api/v1/spaces",
            "/api/v1/trash",
            "/api/v1/me/usage",
            "/api/v1/archives",
            "/api/v1/search",
            "/api/v1/activity",
            "/api/v1/thumbnails/",
            "/api/v1/previews/",
        ];
        assert!(route.access == Access::User && is_files.iter().any(|p| route.path.starts_with(p)), "{}", route.path);
        // An archive is asked for with a list, by POST, and changes nothing.
        let reads = (route.method == Method::GET && !route.path.starts_with("/upload/")) || route.path == "/api/v1/archives";
        assert_eq!(route.scope, Some(if reads { Scope::FilesRead } else { Scope::FilesWrite }), "{} {}", route.method, route.path);
    }
}

on_each_store!(an_app_password_of_a_folder_keeps_to_it);

/// An app password of one folder sees, writes and keeps to that folder, by every way.
async fn an_app_password_of_a_folder_keeps_to_it(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let (all, _) = make(&world, &alice, json!({"name": "all", "scopes": ["files:read", "files:write"]})).await;
    let inside = upload(&world, &all, "/Photos/2026", "in.txt", b"inside").await.text("file_id");
    let sibling = upload(&world, &all, "/Photos2", "next.txt", b"beside").await.text("file_id");
    let outside = upload(&world, &all, "", "out.txt", b"outside").await.text("file_id");
    let (secret, _) = make(&world, &alice, json!({"name": "one", "scopes": ["files:read", "files:write"], "path": "/Photos"})).await;
    let get = |path: String| {
        let (world, secret) = (&world, &secret);
        async move { ask(world, secret, Method::GET, &path, json!({})).await }
    };
    let names = |answer: Answer| -> Vec<String> {
        answer.json()["files"].as_array().unwrap().iter().map(|f| f["file_path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(get("/metadata/files".into()).await), ["/Photos/2026", "/Photos/2026/in.txt"]);
    assert_eq!(names(get("/metadata/files?path=/Photos".into()).await), ["/Photos/2026"]);
    for path in ["/metadata/files?path=/", "/metadata/files?path=/Photos2", "/metadata/files?path=/Photos/../Photos2"] {
        assert!(matches!(get(path.into()).await.status, 404 | 422), "{path}");
    }
    assert_eq!(get(format!("/download/{inside}")).await.body, b"inside");
    for id in [&sibling, &outside] {
        for path in [
            format!("/metadata/files/{id}"),
            format!("/download/{id}"),
            format!("/api/v1/files/{id}/versions"),
            format!("/metadata/files?parent={id}"),
        ] {
            assert_eq!(get(path.clone()).await.status, 404, "{path}");
        }
        assert_eq!(ask(&world, &secret, Method::DELETE, &format!("/metadata/files/{id}"), json!({})).await.status, 404);
        assert_eq!(ask(&world, &secret, Method::PUT, &format!("/metadata/files/{id}"), json!({"path": "/Photos"})).await.status, 404);
    }
    for path in ["/sync/delta", "/api/v1/trash"] {
        assert_eq!(get(path.into()).await.status, 403, "{path}");
    }
    // Ways in.
    assert_eq!(upload(&world, &secret, "/Photos", "new.txt", b"new").await.status, 200);
    for directory in ["", "/", "/Photos2", "/other"] {
        assert_eq!(upload(&world, &secret, directory, "new.txt", b"new2").await.status, 404, "{directory}");
    }
    // A hash brings nothing of the rest of the account into the folder.
    let init = json!({"file_name": "x", "path": "/Photos", "file_size": 7, "file_hash": ContentHash::of(b"outside")});
    assert_eq!(ask(&world, &secret, Method::POST, "/upload/init", init).await.json()["deduplication"], false);
    // An upload that somebody else began outside of the folder is not there.
    let init = json!({"file_name": "later", "file_size": 5, "file_hash": ContentHash::of(b"later")});
    let begun = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    for (method, path) in [
        (Method::GET, format!("/upload/{begun}")),
        (Method::DELETE, format!("/upload/{begun}")),
        (Method::POST, format!("/upload/complete/{begun}")),
    ] {
        assert_eq!(ask(&world, &secret, method, &path, json!({})).await.status, 404, "{path}");
    }
    // Ways out.
    for body in [json!({"path": "/"}), json!({"path": "/Photos2"}), json!({"path": "/Photos", "file_name": "../x"})] {
        let moved = ask(&world, &secret, Method::PUT, &format!("/metadata/files/{inside}"), body.clone()).await;
        assert!(matches!(moved.status, 404 | 422), "{body}: {}", moved.status);
    }
    assert_eq!(ask(&world, &secret, Method::PUT, &format!("/metadata/files/{inside}"), json!({"path": "/Photos"})).await.status, 200);
    // The folder itself is its owner's; renamed, it stays open.
    let folder = world.get(&alice, "/metadata/files?path=/").await.json();
    let photos =
        folder["files"].as_array().unwrap().iter().find(|f| f["file_path"] == "/Photos").unwrap()["file_id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&world, &secret, Method::DELETE, &format!("/metadata/files/{photos}"), json!({})).await.status, 404);
    assert_eq!(ask(&world, &secret, Method::PUT, &format!("/metadata/files/{photos}"), json!({"file_name": "Mine"})).await.status, 404);
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{photos}"), json!({"file_name": "Pictures"})).await.status, 200);
    assert_eq!(get(format!("/download/{inside}")).await.body, b"inside");
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{photos}"), &[], "").await.status, 200);
    assert_eq!(get("/metadata/files".into()).await.status, 404, "a folder that is gone opens nothing");
}

on_each_store!(basic_is_for_webdav_and_app_passwords_only);

/// `Basic` is for WebDAV's routes, with an app password: the account's own password would pass by the second factor.
async fn basic_is_for_webdav_and_app_passwords_only(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    async fn mounted(caller: crate::service::Caller) -> String {
        caller.user_id.to_string()
    }
    let (dav, _) = make(&world, &alice, json!({"name": "dav", "scopes": ["dav"]})).await;
    let (read, _) = make(&world, &alice, json!({"name": "read", "scopes": ["files:read"]})).await;
    let routes = Routes::new(&world.app)
        .add(Route::get("/mounted", Access::User, "For this test").scope(Scope::Dav), mounted)
        .merge(super::metadata::routes(&world.app));
    let (router, _) = finish(&world.app, routes);
    let world = World { router, ..world };
    let basic = |path: &'static str, name: &'static str, secret: String| {
        let value = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}"));
        let request = Request::get(path).header("authorization", format!("Basic {value}")).body(Body::empty()).unwrap();
        world.send(request)
    };
    assert_eq!(basic("/mounted", "U1@example.org", dav.clone()).await.body, alice.id.to_string().as_bytes());
    assert_eq!(basic("/mounted", "u2@example.org", dav.clone()).await.status, 401, "another user's name");
    assert_eq!(basic("/mounted", "u1@example.org", read).await.status, 403);
    assert_eq!(basic("/mounted", "u1@example.org", PASSWORD.into()).await.status, 401);
    assert_eq!(basic("/mounted", "u1@example.org", alice.token.clone()).await.status, 401);
    assert_eq!(basic("/metadata/files", "u1@example.org", dav.clone()).await.status, 401, "not WebDAV's");
    assert_eq!(ask(&world, &dav, Method::GET, "/mounted", json!({})).await.status, 200);
}
