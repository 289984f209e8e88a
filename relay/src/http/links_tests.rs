//! Public links over the real router: what they open, to whom, for how long, and above all what they do not open (R39 to R43).

use super::content_tests::*;
use super::*;
use crate::store::links::LinkChange;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{Method, Request};
use ferry_protocol::ContentHash;
use ferry_protocol::wire::Role as Member;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const COOKIE: &str = "__Secure-ferry-link";

/// A visitor: nobody who is logged in, with a cookie or without.
#[derive(Clone, Default)]
struct Visitor(Option<String>);

impl Visitor {
    async fn send(&self, world: &World, method: Method, path: &str, headers: Headers<'_>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.0 {
            request = request.header("cookie", format!("{COOKIE}={cookie}"));
        }
        world.send(request.body(body.into()).unwrap()).await
    }

    async fn get(&self, world: &World, path: &str) -> Answer {
        self.send(world, Method::GET, path, &[], "").await
    }

    /// Somebody who has opened the page and keeps its cookie.
    async fn of_page(world: &World, link: &Link) -> Self {
        let page = Self::default().get(world, &link.path).await;
        assert_eq!(page.status, 200, "{}", text(&page));
        Self(cookie_of(&page))
    }

    async fn unlock(world: &World, link: &Link, password: &str) -> (u16, Self) {
        let body = format!("password={password}");
        let answer = Self::default().send(world, Method::POST, &format!("{}/unlock", link.path), &[FORM], body).await;
        (answer.status, Self(cookie_of(&answer)))
    }
}

fn cookie_of(answer: &Answer) -> Option<String> {
    let set = answer.headers.get("set-cookie")?.to_str().unwrap();
    let (pair, rest) = set.split_once(';').unwrap();
    assert!(rest.contains("HttpOnly") && rest.contains("Secure") && rest.contains("Path=/s/"), "{set}");
    Some(pair.strip_prefix(&format!("{COOKIE}=")).unwrap().to_owned())
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

struct Link {
    id: String,
    /// `/s/TOKEN`
    path: String,
}

async fn link(world: &World, user: &User, body: Value) -> Link {
    let answer = world.json(user, Method::POST, "/api/v1/links", body).await;
    assert_eq!(answer.status, 201, "{}", text(&answer));
    let made = answer.json();
    let url = made["link"]["url"].as_str().unwrap();
    Link { id: made["link"]["link_id"].as_str().unwrap().into(), path: url.strip_prefix("https://files.example.org").unwrap().to_owned() }
}

async fn upload_to(world: &World, user: &User, directory: &str, name: &str, bytes: &[u8]) -> String {
    let init = json!({"file_name": name, "path": directory, "file_size": bytes.len(), "file_hash": ContentHash::of(bytes)});
    let begun = world.json(user, Method::POST, "/upload/init", init).await.json();
    if begun["deduplication"] == true {
        return begun["file_id"].as_str().unwrap().into();
    }
    let id = begun["version_id"].as_str().unwrap().to_owned();
    if !bytes.is_empty() {
        assert_eq!(world.call(user, Method::PUT, &format!("/upload/{id}/chunks/0"), &[], bytes.to_vec()).await.status, 200);
    }
    world.call(user, Method::POST, &format!("/upload/complete/{id}"), &[], "").await.text("file_id")
}

/// `d/in.txt`, `d/sub/deep.txt`, `d2/secret.txt`, `top.txt` of alice's.
async fn tree(world: &World, alice: &User) {
    upload_to(world, alice, "/d", "in.txt", b"inside").await;
    upload_to(world, alice, "/d/sub", "deep.txt", b"deep").await;
    upload_to(world, alice, "/d2", "secret.txt", b"secret").await;
    upload_to(world, alice, "/", "top.txt", b"top").await;
}

async fn id_of(world: &World, user: &User, path: &str) -> String {
    let all = world.get(user, "/metadata/files").await.json();
    let found = all["files"].as_array().unwrap().iter().find(|f| f["file_path"] == path).unwrap_or_else(|| panic!("{path} in {all}"));
    found["file_id"].as_str().unwrap().to_owned()
}

/// Every route of a link, filled in so that it would work for the link of `d` that it is for.
fn sub_routes(world: &World) -> Vec<Route> {
    let (_, routes) = router(&world.app, &world.app.roles);
    let of_links: Vec<Route> = routes.into_iter().filter(|r| r.path.starts_with("/s/") && !r.path.ends_with("/unlock")).collect();
    assert!(of_links.len() >= 7, "{}", of_links.len());
    of_links
}

async fn call(world: &World, visitor: &Visitor, link: &Link, route: &Route) -> Answer {
    let path = route.path.replace("/s/{token}", &link.path).replace("{*path}", "in.txt");
    let (path, body) = match path.rsplit('/').next().unwrap() {
        "init" => (path, json!({"file_name": "x", "file_size": 1, "file_hash": ContentHash::of(b"x")}).to_string()),
        "chunk" => (format!("{path}?upload_id={}&chunk_index=0", uuid::Uuid::nil()), "x".into()),
        "complete" => (path, json!({"upload_id": uuid::Uuid::nil()}).to_string()),
        _ => (path, String::new()),
    };
    visitor.send(world, route.method.clone(), &path, &[JSON], body).await
}

/// That every route of the link answers this.
async fn all_answer(world: &World, visitor: &Visitor, link: &Link, status: u16, what: &str) {
    for route in sub_routes(world) {
        let answer = call(world, visitor, link, &route).await;
        assert_eq!(answer.status, status, "{what}: {} {}: {}", route.method, route.path, text(&answer));
        assert!(!text(&answer).contains("inside") && !text(&answer).contains("in.txt"), "{what}: {}", route.path);
        assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{}", route.path);
    }
}

async fn expire(world: &World, link: &Link) {
    let id = uuid::Uuid::parse_str(&link.id).unwrap().into_bytes();
    let past = LinkChange { expires_at_ms: Some(Some(1)), ..LinkChange::default() };
    assert!(world.app.db.update_link(id, &past).await.unwrap());
}

async fn set_role(world: &World, ns: ferry_protocol::NamespaceId, user: ferry_protocol::UserId, role: Option<Member>) {
    let mut tx = world.app.db.begin(crate::store::content::Scope::Namespace(ns)).await.unwrap();
    match role {
        Some(role) => tx.set_member(ns, user, role, 0).await.unwrap(),
        None => assert!(tx.remove_member(ns, user).await.unwrap()),
    }
    tx.commit().await.unwrap();
}

on_each_store!(a_folder_opens_to_whoever_has_its_address);

async fn a_folder_opens_to_whoever_has_its_address(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let made = link(&world, &alice, json!({"path": "/d"})).await;
    let visitor = Visitor::of_page(&world, &made).await;
    let page = visitor.get(&world, &made.path).await;
    for (name, value) in [("referrer-policy", "no-referrer"), ("x-robots-tag", "noindex, nofollow"), ("cache-control", "no-store")] {
        assert_eq!(page.headers[name], value);
    }
    let html = text(&page);
    assert!(
        html.contains("noindex")
            && html.contains("in.txt")
            && html.contains(r##"#folder"/></svg><span>sub<"##)
            && !html.contains("secret.txt"),
        "{html}"
    );
    assert!(html.contains(r#"property="og:title" content="d""#), "{html}");
    let list = visitor.get(&world, &format!("{}/list", made.path)).await.json();
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|i| (i["name"].as_str().unwrap(), i["kind"].as_str().unwrap())).collect();
    assert_eq!(names, [("sub", "directory"), ("in.txt", "file")]);
    let deep = visitor.get(&world, &format!("{}/list?path=sub", made.path)).await.json();
    let raw = deep["items"][0]["raw"].as_str().unwrap();
    assert_eq!(raw, format!("{}/raw/sub/deep.txt", made.path));
    let got = visitor.get(&world, raw).await;
    assert_eq!((got.status, text(&got).as_str()), (200, "deep"));
    assert!(got.headers["content-disposition"].to_str().unwrap().starts_with("attachment;"));
    assert!(got.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    let shown = visitor.get(&world, &format!("{raw}?inline=1")).await;
    assert!(shown.headers["content-disposition"].to_str().unwrap().starts_with("inline;"));
    assert!(shown.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    let part = visitor.send(&world, Method::GET, raw, &[("range", "bytes=1-2")], "").await;
    assert_eq!((part.status, text(&part).as_str()), (206, "ee"));
    let zip = visitor.get(&world, &format!("{}/zip", made.path)).await;
    assert_eq!((zip.status, &zip.body[..4]), (200, &b"PK\x03\x04"[..]));
    // A file of its own.
    let single = link(&world, &alice, json!({"file_id": id_of(&world, &alice, "/top.txt").await})).await;
    let visitor = Visitor::of_page(&world, &single).await;
    assert!(text(&visitor.get(&world, &single.path).await).contains("<pre"), "its text is shown");
    assert_eq!(text(&visitor.get(&world, &format!("{}/raw/top.txt", single.path)).await), "top");
    for other in ["raw/d/in.txt", "raw/in.txt", "list", "zip"] {
        assert_eq!(visitor.get(&world, &format!("{}/{other}", single.path)).await.status, 404, "{other}");
    }
    // All of a namespace.
    let all = link(&world, &alice, json!({"path": "/"})).await;
    assert_eq!(text(&Visitor::default().get(&world, &format!("{}/raw/d2/secret.txt", all.path)).await), "secret");
}

on_each_store!(nothing_outside_is_reached);

/// R42: whatever is written after the link's address, nothing outside of what it opens is there.
async fn nothing_outside_is_reached(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let made = link(&world, &alice, json!({"path": "/d"})).await;
    let visitor = Visitor::of_page(&world, &made).await;
    for outside in [
        "../top.txt",
        "..%2ftop.txt",
        "%2e%2e/top.txt",
        "%2e%2e%2ftop.txt",
        "%252e%252e/top.txt",
        "%252e%252e%252ftop.txt",
        "sub/../../top.txt",
        "sub%2f..%2f..%2ftop.txt",
        "..\\top.txt",
        "..%5ctop.txt",
        "/top.txt",
        "//top.txt",
        "%2ftop.txt",
        "d/in.txt",
        "../d2/secret.txt",
        "2/secret.txt",
        "d2/secret.txt",
        "secret.txt",
        "./in.txt",
        "in.txt/",
        "in.txt%00",
        "sub%2fdeep.txt",
        "IN.TXT",
        "%ff",
        "%c0%ae%c0%ae/top.txt",
    ] {
        for route in ["raw/", "list?path=", "zip?path=", "?path="] {
            let at =
                if route.starts_with('?') { format!("{}{route}{outside}", made.path) } else { format!("{}/{route}{outside}", made.path) };
            // Written with slashes around it, or with an encoded one in a query, it is the same place inside.
            if route == "?path=" && ["in.txt/", "sub%2fdeep.txt"].contains(&outside) {
                continue;
            }
            let answer = visitor.get(&world, &at).await;
            assert_eq!(answer.status, 404, "{at}: {}", text(&answer));
            assert!(!text(&answer).contains("secret") && !text(&answer).contains("top.txt"), "{at}");
        }
    }
    assert_eq!(visitor.get(&world, &format!("{}/raw/", made.path)).await.status, 404);
    assert_eq!(visitor.get(&world, &format!("{}/raw/in.txt", made.path)).await.status, 200, "what is inside is");
}

on_each_store!(an_address_that_is_none_does_not_exist);

/// R39: what is no address has one answer, and who tries many is told to wait.
async fn an_address_that_is_none_does_not_exist(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let made = link(&world, &alice, json!({"path": "/d"})).await;
    let token = made.path.trim_start_matches("/s/");
    assert!(token.len() * 6 >= 128, "{token}");
    let swapped: String =
        token.chars().map(|c| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() }).collect();
    for wrong in [swapped.as_str(), &token[1..], &format!("{token}A"), "x", "..", "%00", "%ff", &"A".repeat(24), &"A".repeat(4000)] {
        if wrong == token {
            continue;
        }
        let fake = Link { id: String::new(), path: format!("/s/{wrong}") };
        for end in ["/list", "/raw/in.txt"] {
            let answer = Visitor::default().get(&world, &format!("{}{end}", fake.path)).await;
            assert!([404, 429].contains(&answer.status), "{wrong}: {}", answer.status);
        }
    }
    let mut last = 0;
    for n in 0..40 {
        last = Visitor::default().get(&world, &format!("/s/{n:024}/list")).await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(Visitor::default().get(&world, &format!("{}/list", made.path)).await.status, 200, "who has an address is not kept out");
}

on_each_store!(a_password_stands_before_every_route);

/// R40, R41: without the password nothing is told; one link's password opens no other, and a new one shuts out whoever gave the old one.
async fn a_password_stands_before_every_route(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    for what in ["download", "view", "upload"] {
        let one = link(&world, &alice, json!({"path": "/d", "kind": what, "password": "open sesame"})).await;
        let other = link(&world, &alice, json!({"path": "/d", "kind": what, "password": "open sesame"})).await;
        all_answer(&world, &Visitor::default(), &one, 401, what).await;
        assert!(!text(&Visitor::default().get(&world, &one.path).await).contains("og:"), "nothing for messengers");
        let (status, visitor) = Visitor::unlock(&world, &one, "open+sesame").await;
        assert_eq!(status, 303);
        assert_eq!(visitor.get(&world, &one.path).await.status, 200);
        assert_ne!(call(&world, &visitor, &one, &sub_routes(&world)[1]).await.status, 401);
        assert!(!text(&visitor.get(&world, &one.path).await).contains("og:"));
        all_answer(&world, &visitor, &other, 401, "the cookie of another link").await;
        for broken in ["", "x", &"0".repeat(108), &visitor.0.clone().unwrap().replace(['0', '1', '2', '3', '4'], "5")] {
            all_answer(&world, &Visitor(Some(broken.to_owned())), &one, 401, "a cookie that is none").await;
        }
        let changed = world.json(&alice, Method::PATCH, &format!("/api/v1/links/{}", one.id), json!({"password": "another one"})).await;
        assert_eq!(changed.status, 200);
        all_answer(&world, &visitor, &one, 401, "the password is another one").await;
    }
    // What was unlocked without a password does not open what has got one.
    let open = link(&world, &alice, json!({"path": "/d"})).await;
    let visitor = Visitor::of_page(&world, &open).await;
    world.json(&alice, Method::PATCH, &format!("/api/v1/links/{}", open.id), json!({"password": "now there is one"})).await;
    all_answer(&world, &visitor, &open, 401, "a password came later").await;
    // Ten wrong ones a minute, whoever tries.
    let guessed = link(&world, &alice, json!({"path": "/d", "password": "open sesame"})).await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(Visitor::unlock(&world, &guessed, "wrong-wrong").await.0);
    }
    assert_eq!((seen.iter().filter(|s| **s == 401).count(), seen.last()), (10, Some(&429)), "{seen:?}");
    assert_eq!(Visitor::unlock(&world, &guessed, "open+sesame").await.0, 429);
}

on_each_store!(what_has_ended_ends_every_route);

/// R40: revoked, over, in the trash, and a maker who may no longer; each for every route at once.
async fn what_has_ended_ends_every_route(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    tree(&world, &alice).await;
    set_role(&world, alice.home, bob.id, Some(Member::Editor)).await;
    let space = alice.home.to_string();
    for what in ["download", "view", "upload"] {
        // Being locked out ends every login.
        let bob = world.browser(&bob).await;
        let revoked = link(&world, &alice, json!({"path": "/d", "kind": what})).await;
        let visitor = Visitor::of_page(&world, &revoked).await;
        assert_eq!(world.call(&alice, Method::DELETE, &format!("/api/v1/links/{}", revoked.id), &[], "").await.status, 204);
        all_answer(&world, &visitor, &revoked, 410, "revoked").await;
        let over = link(&world, &alice, json!({"path": "/d", "kind": what, "expires_in": 3600})).await;
        let visitor = Visitor::of_page(&world, &over).await;
        expire(&world, &over).await;
        all_answer(&world, &visitor, &over, 410, "expired").await;
        let bobs = link(&world, &bob, json!({"path": "/d", "space_id": space, "kind": what})).await;
        let visitor = Visitor::of_page(&world, &bobs).await;
        set_role(&world, alice.home, bob.id, Some(Member::Viewer)).await;
        all_answer(&world, &visitor, &bobs, 410, "its maker is a viewer now").await;
        set_role(&world, alice.home, bob.id, None).await;
        all_answer(&world, &visitor, &bobs, 410, "its maker is no member").await;
        set_role(&world, alice.home, bob.id, Some(Member::Editor)).await;
        assert_eq!(visitor.get(&world, &bobs.path).await.status, 200, "and open again");
        // In the trash and back.
        let folder = id_of(&world, &alice, "/d").await;
        assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{folder}"), &[], "").await.status, 200);
        all_answer(&world, &visitor, &bobs, 410, "in the trash").await;
        assert_eq!(world.json(&alice, Method::POST, "/api/v1/trash/restore", json!({"file_id": folder})).await.status, 200);
        assert_eq!(visitor.get(&world, &bobs.path).await.status, 200, "restored");
        // Moved: the link goes with it.
        let to = |name: &str| json!({"file_name": name});
        assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{folder}"), to("moved")).await.status, 200);
        assert_eq!(visitor.get(&world, &bobs.path).await.status, 200, "moved");
        assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{folder}"), to("d")).await.status, 200);
        let lock = |disabled| crate::store::accounts::UserChange { disabled: Some(disabled), ..Default::default() };
        world.app.accounts.update_user(bob.id, &lock(true)).await.unwrap();
        all_answer(&world, &visitor, &bobs, 410, "its maker is locked out").await;
        world.app.accounts.update_user(bob.id, &lock(false)).await.unwrap();
    }
    let bobs = link(&world, &world.browser(&bob).await, json!({"path": "/d", "space_id": space})).await;
    world.app.accounts.delete_user(bob.id).await.unwrap();
    all_answer(&world, &Visitor::default(), &bobs, 404, "its maker's account is gone").await;
}

on_each_store!(each_kind_does_what_it_is_for);

/// R40: a link for looking hands nothing out, one for uploads shows nothing, and one for downloads takes nothing.
async fn each_kind_does_what_it_is_for(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    upload_to(&world, &alice, "/d", "page.html", b"<script>alert(1)</script>").await;
    upload_to(&world, &alice, "/d", "pic.svg", b"<svg onload='alert(1)'/>").await;
    let at = |link: &Link, end: &str| format!("{}{end}", link.path);
    let view = link(&world, &alice, json!({"path": "/d", "kind": "view"})).await;
    let visitor = Visitor::of_page(&world, &view).await;
    assert!(!text(&visitor.get(&world, &view.path).await).contains("Download"));
    for end in ["/zip", "/raw/page.html", "/raw/pic.svg", "/raw/pic.svg?inline=1"] {
        assert_eq!(visitor.get(&world, &at(&view, end)).await.status, 403, "{end}");
    }
    for end in ["/raw/in.txt", "/raw/in.txt?inline=0"] {
        let shown = visitor.get(&world, &at(&view, end)).await;
        assert!(shown.headers["content-disposition"].to_str().unwrap().starts_with("inline"), "{end}");
    }
    let download = link(&world, &alice, json!({"path": "/d"})).await;
    for end in ["/raw/page.html?inline=1", "/raw/pic.svg?inline=1"] {
        let got = visitor.get(&world, &at(&download, end)).await;
        assert!(got.headers["content-disposition"].to_str().unwrap().starts_with("attachment"), "{end}");
        assert_eq!(got.headers["x-content-type-options"], "nosniff");
    }
    let html = text(&visitor.get(&world, &at(&download, "?path=page.html")).await);
    assert!(!html.contains("<script") && html.contains("Download"), "{html}");
    let drop = link(&world, &alice, json!({"path": "/d", "kind": "upload"})).await;
    let page = text(&visitor.get(&world, &drop.path).await);
    assert!(!page.contains("in.txt") && !text(&visitor.get(&world, &at(&drop, "?path=sub")).await).contains("deep"));
    for end in ["/list", "/raw/in.txt", "/zip"] {
        assert_eq!(visitor.get(&world, &at(&drop, end)).await.status, 403, "{end}");
    }
    for other in [&view, &download] {
        for route in sub_routes(&world).iter().filter(|r| r.method == Method::POST) {
            assert_eq!(call(&world, &visitor, other, route).await.status, 403, "{}", route.path);
        }
    }
    let file = id_of(&world, &alice, "/top.txt").await;
    let refused = world.json(&alice, Method::POST, "/api/v1/links", json!({"file_id": file, "kind": "upload"})).await;
    assert_eq!((refused.status, refused.text("code").as_str()), (422, "not_a_directory"));
}

on_each_store!(downloads_are_limited_and_counted_once);

async fn downloads_are_limited_and_counted_once(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let made = link(&world, &alice, json!({"path": "/d", "max_downloads": 2})).await;
    let raw = format!("{}/raw/in.txt", made.path);
    let downloads = async || {
        let links = world.get(&alice, "/api/v1/links").await.json();
        links["links"][0]["downloads"].as_u64().unwrap()
    };
    let (one, two, three) =
        (Visitor::of_page(&world, &made).await, Visitor::of_page(&world, &made).await, Visitor::of_page(&world, &made).await);
    assert_eq!(one.send(&world, Method::HEAD, &raw, &[], "").await.status, 200);
    assert_eq!(downloads().await, 0, "a look at the headers is no download");
    for range in ["bytes=0-1", "bytes=2-", "bytes=0-"] {
        assert_eq!(one.send(&world, Method::GET, &raw, &[("range", range)], "").await.status, 206);
    }
    assert_eq!((one.get(&world, &raw).await.status, downloads().await), (200, 1), "parts of one download are one");
    assert_eq!((two.get(&world, &format!("{}/zip", made.path)).await.status, downloads().await), (200, 2));
    for (range, what) in [("bytes=0-", "from the start"), ("bytes=3-", "from the middle")] {
        let refused = three.send(&world, Method::GET, &raw, &[("range", range)], "").await;
        assert_eq!((refused.status, refused.text("code").as_str()), (410, "link_used_up"), "{what}");
    }
    assert_eq!(two.get(&world, &raw).await.status, 410, "another file is another download");
    assert_eq!(one.get(&world, &raw).await.status, 200, "whoever began may finish");
    assert_eq!(three.get(&world, &made.path).await.status, 410);
    assert_eq!((three.get(&world, &format!("{}/list", made.path)).await.status, downloads().await), (410, 2));
    // Without a cookie it is the network and the program that count.
    let again = link(&world, &alice, json!({"path": "/d", "max_downloads": 1})).await;
    let raw = format!("{}/raw/in.txt", again.path);
    let curl = [("user-agent", "curl/8")];
    for _ in 0..2 {
        assert_eq!(Visitor::default().send(&world, Method::GET, &raw, &curl, "").await.status, 200);
    }
    assert_eq!(Visitor::default().get(&world, &raw).await.status, 410);
    let patch = world.json(&alice, Method::PATCH, &format!("/api/v1/links/{}", again.id), json!({"max_downloads": null})).await;
    assert_eq!((patch.status, patch.json()["link"]["state"].clone()), (200, json!("active")));
    assert_eq!(Visitor::default().get(&world, &raw).await.status, 200);
}

async fn send_up(world: &World, visitor: &Visitor, link: &Link, name: &str, bytes: &[u8]) -> u16 {
    let at = |end: &str| format!("{}/upload/{end}", link.path);
    let init = json!({"file_name": name, "file_size": bytes.len(), "file_hash": ContentHash::of(bytes)}).to_string();
    let begun = visitor.send(world, Method::POST, &at("init"), &[JSON], init).await;
    if begun.status != 200 {
        return begun.status;
    }
    let id = begun.text("upload_id");
    let mut members: Vec<String> = begun.json().as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["chunk_size", "expires_at", "num_chunks", "upload_id"]);
    if !bytes.is_empty() {
        let sent = visitor.send(world, Method::POST, &at(&format!("chunk?upload_id={id}&chunk_index=0")), &[], bytes.to_vec()).await;
        assert_eq!(sent.status, 200, "{}", text(&sent));
    }
    let done = visitor.send(world, Method::POST, &at("complete"), &[JSON], json!({"upload_id": id}).to_string()).await;
    if done.status == 200 {
        assert_eq!(done.json(), json!({"status": "completed", "size": bytes.len()}), "and no more is told");
    }
    done.status
}

on_each_store!(uploads_come_in_and_replace_nothing);

async fn uploads_come_in_and_replace_nothing(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let drop = link(&world, &alice, json!({"path": "/d", "kind": "upload", "password": "open sesame"})).await;
    assert_eq!(send_up(&world, &Visitor::default(), &drop, "x.txt", b"x").await, 401);
    let (_, visitor) = Visitor::unlock(&world, &drop, "open+sesame").await;
    for (name, bytes) in
        [("new.txt", &b"new"[..]), ("in.txt", b"not yours"), ("in.txt", b"nor this"), ("sub", b"no folder"), ("empty", b"")]
    {
        assert_eq!(send_up(&world, &visitor, &drop, name, bytes).await, 200, "{name}");
    }
    // What alice holds elsewhere is not there for the asking: the bytes have to come.
    assert_eq!(send_up(&world, &visitor, &drop, "guess.txt", b"secret").await, 200);
    let all = world.get(&alice, "/metadata/files").await.json();
    let mut paths: Vec<&str> = all["files"].as_array().unwrap().iter().map(|f| f["file_path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    let expected = [
        "/d",
        "/d/empty",
        "/d/guess.txt",
        "/d/in (2).txt",
        "/d/in (3).txt",
        "/d/in.txt",
        "/d/new.txt",
        "/d/sub",
        "/d/sub (2)",
        "/d/sub/deep.txt",
        "/d2",
        "/d2/secret.txt",
        "/top.txt",
    ];
    assert_eq!(paths, expected);
    let content = async |path: &str| text(&world.get(&alice, &format!("/download/{}", id_of(&world, &alice, path).await)).await);
    assert_eq!((content("/d/in.txt").await, content("/d/in (2).txt").await), ("inside".into(), "not yours".into()));
    for name in ["../x", "a/b", "..", "", "\0", &"x".repeat(300)] {
        assert_eq!(send_up(&world, &visitor, &drop, name, b"x").await, 422, "{name:?}");
    }
    // An upload of somebody else's, into another place, is not reached through the link.
    let init = json!({"file_name": "mine", "file_size": 1, "file_hash": ContentHash::of(b"x")});
    let mine = world.json(&alice, Method::POST, "/upload/init", init).await.text("version_id");
    let chunk = format!("{}/upload/chunk?upload_id={mine}&chunk_index=0", drop.path);
    assert_eq!(visitor.send(&world, Method::POST, &chunk, &[], "x").await.status, 404);
    let complete = format!("{}/upload/complete", drop.path);
    assert_eq!(visitor.send(&world, Method::POST, &complete, &[JSON], json!({"upload_id": mine}).to_string()).await.status, 404);
    // R30: the owner's quota counts, and is not told.
    let full = crate::store::accounts::UserChange { storage_limit_bytes: Some(Some(100)), ..Default::default() };
    world.app.accounts.update_user(alice.id, &full).await.unwrap();
    let init = json!({"file_name": "big", "file_size": 1000, "file_hash": ContentHash::of(b"x")}).to_string();
    let refused = visitor.send(&world, Method::POST, &format!("{}/upload/init", drop.path), &[JSON], init).await;
    assert_eq!((refused.status, refused.text("code").as_str()), (413, "quota_exceeded"));
    assert!(!text(&refused).contains("bytes"), "{}", text(&refused));
}

on_each_store!(editors_make_links_and_owners_see_them);

/// R17, R18, R22: viewers let nobody in; an editor's links are the editor's and the owner's to see and end.
async fn editors_make_links_and_owners_see_them(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob, carol, mal) = (world.user(1).await, world.user(2).await, world.user(3).await, world.user(4).await);
    tree(&world, &alice).await;
    set_role(&world, alice.home, bob.id, Some(Member::Editor)).await;
    set_role(&world, alice.home, carol.id, Some(Member::Viewer)).await;
    let space = alice.home.to_string();
    let folder = id_of(&world, &alice, "/d").await;
    for body in [json!({"file_id": folder}), json!({"path": "/d", "space_id": space}), json!({"path": "/", "space_id": space})] {
        assert_eq!(world.json(&carol, Method::POST, "/api/v1/links", body.clone()).await.status, 403, "{body}");
        assert_eq!(world.json(&mal, Method::POST, "/api/v1/links", body.clone()).await.status, 404, "{body}");
    }
    let bobs = link(&world, &bob, json!({"file_id": folder, "expires_in": 86400, "max_downloads": 5})).await;
    let alices = link(&world, &alice, json!({"path": "/d2", "password": "open sesame", "kind": "view"})).await;
    let listed = async |user: &User| {
        let list = world.get(user, "/api/v1/links").await.json();
        list["links"].as_array().unwrap().iter().map(|l| l["link_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&bob).await, std::slice::from_ref(&bobs.id));
    let mut both = vec![bobs.id.clone(), alices.id.clone()];
    both.sort();
    let mut seen = listed(&alice).await;
    seen.sort();
    assert_eq!((seen, listed(&carol).await, listed(&mal).await), (both, vec![], vec![]));
    let list = world.get(&alice, &format!("/api/v1/links?file_id={folder}")).await.json();
    let one = &list["links"][0];
    assert_eq!(
        (list["links"].as_array().unwrap().len(), &one["own"], &one["path"], &one["kind"]),
        (1, &json!(false), &json!("/d"), &json!("download"))
    );
    assert_eq!(one["url"], format!("https://files.example.org{}", bobs.path), "R56: of the configured address, and shown again");
    assert_eq!((&one["max_downloads"], &one["has_password"], &one["is_directory"]), (&json!(5), &json!(false), &json!(true)));
    for other in [&carol, &mal] {
        for id in [&bobs.id, &alices.id] {
            let at = format!("/api/v1/links/{id}");
            assert_eq!(world.json(other, Method::PATCH, &at, json!({"password": null})).await.status, 404);
            assert_eq!(world.call(other, Method::DELETE, &at, &[], "").await.status, 404);
        }
    }
    assert_eq!(world.call(&bob, Method::DELETE, &format!("/api/v1/links/{}", alices.id), &[], "").await.status, 404);
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/api/v1/links/{}", bobs.id), &[], "").await.status, 204);
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/api/v1/links/{}", bobs.id), &[], "").await.status, 404);
    assert_eq!(Visitor::default().get(&world, &bobs.path).await.status, 410);
    let audit = world.app.db.audit_entries(i64::MAX, None, 50).await.unwrap();
    for event in ["link.made", "link.revoked"] {
        assert!(audit.iter().any(|e| e.event == event && e.detail.contains(&bobs.id.replace('-', ""))), "{event}");
    }
    let token = bobs.path.trim_start_matches("/s/");
    assert!(audit.iter().all(|e| !e.detail.contains(token)), "R65: no address in the audit log");
    for wrong in [
        json!({}),
        json!({"path": "/d", "file_id": folder}),
        json!({"path": "/d", "kind": "all"}),
        json!({"path": "/d", "expires_in": 0}),
        json!({"path": "/d", "expires_at": "1999-01-01T00:00:00Z"}),
        json!({"path": "/d", "expires_at": "soon"}),
        json!({"path": "/d", "expires_in": u64::MAX}),
        json!({"path": "/d", "max_downloads": 0}),
        json!({"path": "/d", "max_downloads": -1}),
        json!({"path": "/d", "kind": "upload", "max_downloads": 1}),
        json!({"path": "/d", "password": "short"}),
        json!({"path": "/d", "surprise": 1}),
    ] {
        assert_eq!(world.json(&alice, Method::POST, "/api/v1/links", wrong.clone()).await.status, 422, "{wrong}");
    }
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/links", json!({"path": "/none"})).await.status, 404);
}

on_each_store!(uploads_under_way_follow_their_folder);

/// The folder of a link for uploads is renamed and moved while somebody sends a file, which comes in where the folder is then.
async fn uploads_under_way_follow_their_folder(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    tree(&world, &alice).await;
    let (drop, visitor) = (link(&world, &alice, json!({"path": "/d", "kind": "upload"})).await, Visitor::default());
    let at = |end: &str| format!("{}/upload/{end}", drop.path);
    let init = json!({"file_name": "late.txt", "file_size": 4, "file_hash": ContentHash::of(b"late")}).to_string();
    let id = visitor.send(&world, Method::POST, &at("init"), &[JSON], init).await.text("upload_id");
    let d = id_of(&world, &alice, "/d").await;
    let moved = json!({"file_name": "inbox", "path": "/d2"});
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{d}"), moved).await.status, 200);
    // Something else stands now where the folder was.
    upload_to(&world, &alice, "/d", "other.txt", b"other").await;
    let sent = visitor.send(&world, Method::POST, &at(&format!("chunk?upload_id={id}&chunk_index=0")), &[], "late").await;
    assert_eq!(sent.status, 200, "{}", text(&sent));
    let renamed = json!({"file_name": "incoming"});
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{d}"), renamed).await.status, 200);
    let done = visitor.send(&world, Method::POST, &at("complete"), &[JSON], json!({"upload_id": id}).to_string()).await;
    assert_eq!(done.status, 200, "{}", text(&done));
    let file = id_of(&world, &alice, "/d2/incoming/late.txt").await;
    assert_eq!(world.get(&alice, &format!("/download/{file}")).await.body, b"late");
    // In the trash it takes nothing any more.
    let init = json!({"file_name": "later.txt", "file_size": 4, "file_hash": ContentHash::of(b"late")}).to_string();
    let id = visitor.send(&world, Method::POST, &at("init"), &[JSON], init).await.text("upload_id");
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{d}"), &[], "").await.status, 200);
    let sent = visitor.send(&world, Method::POST, &at(&format!("chunk?upload_id={id}&chunk_index=0")), &[], "late").await;
    assert_eq!(sent.status, 410);
}

on_each_store!(an_archive_breaks_off_when_its_link_is_revoked);

/// R21, R44: over the real router, by what a visitor and a member are being sent when it ends.
async fn an_archive_breaks_off_when_its_link_is_revoked(kind: Db) {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(1).await, world.user(2).await);
    let mut state = 1u32;
    for n in 0..6 {
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        upload_to(&world, &alice, "/d", &format!("f{n}"), &noise.take(1_000_000).collect::<Vec<u8>>()).await;
    }
    let made = link(&world, &alice, json!({"path": "/d"})).await;
    set_role(&world, alice.home, bob.id, Some(Member::Viewer)).await;
    let archive = format!("/api/v1/archives?space_id={}&file_ids={}", alice.home, id_of(&world, &alice, "/d").await);
    for (path, token) in [(format!("{}/zip", made.path), None), (archive, Some(&bob.token))] {
        let mut request = Request::get(&path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        match token {
            None => assert_eq!(world.call(&alice, Method::DELETE, &format!("/api/v1/links/{}", made.id), &[], "").await.status, 204),
            Some(_) => set_role(&world, alice.home, bob.id, None).await,
        }
        let mut body = response.into_body();
        let mut bytes = 0;
        let broken = loop {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, bytes::Bytes::len),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        // What was on its way already still comes; how much that is depends on who ran when.
        assert!(broken && bytes < 5_000_000, "{path}: {bytes}");
    }
}
