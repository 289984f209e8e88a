//! The real router over a real store: who gets in where, what malformed requests get, and that no answer tells too much.

use super::*;
use crate::config::{Auth, Config, Registration};
use crate::service::UserRole;
use crate::service::accounts::NewUser;
use crate::store::testing::{Db, on_each_store};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(super) const PASSWORD: &str = "correct horse";

pub(super) struct World {
    pub(super) app: AppState,
    router: Router,
    pub(super) routes: Vec<Route>,
    _dir: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts that it is a problem document of this status, and gives its code.
    pub(super) fn problem(&self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert!(body["detail"].as_str().is_some_and(|d| !d.is_empty()) && body["request_id"].is_string(), "{text}");
        for leak in ["SELECT", "sqlx", "panicked", ".rs:", "/tmp"] {
            assert!(!text.contains(leak), "{text}");
        }
        body["code"].as_str().unwrap().to_owned()
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::made(Db::Sqlite, set).await
    }

    pub(super) async fn on(kind: Db) -> Self {
        Self::made(kind, |_| {}).await
    }

    async fn made(kind: Db, set: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth { registration: Registration::Open, ..Auth::default() };
        let mut config = Config {
            data: dir.path().into(),
            database: kind.config(dir.path()),
            auth,
            public_url: "https://files.example.org".into(),
            ..Config::default()
        };
        set(&mut config);
        let app = AppState::new(App::open(&config).await.unwrap());
        let (router, routes) = router(&app, &app.roles);
        Self { app, router, routes, _dir: dir }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    pub(super) async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.call(Method::POST, path, token, Some(body)).await
    }

    pub(super) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.call(Method::GET, path, token, None).await
    }

    pub(super) async fn token(&self, email: &str, role: UserRole, device: Option<u8>) -> String {
        let new = NewUser { email, name: None, password: PASSWORD };
        self.app.accounts.add_user(new, role).await.unwrap();
        let mut body = json!({"email": email, "password": PASSWORD});
        if let Some(n) = device {
            body["device"] = json!({"name": "laptop", "public_key": hex::encode([n; 32])});
        }
        let answer = self.post("/auth/login", None, body).await;
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }
}

/// The route's path with something in place of each parameter.
pub(super) fn filled(path: &str) -> String {
    path.split('/').map(|p| if p.starts_with('{') { "00112233445566778899aabbccddeeff" } else { p }).collect::<Vec<_>>().join("/")
}

on_each_store!(without_credentials_only_public_routes_answer);

async fn without_credentials_only_public_routes_answer(kind: Db) {
    let world = World::on(kind).await;
    assert!(world.routes.len() > 30);
    let bad_headers: [&[(&str, &str)]; 6] = [
        &[],
        &[("authorization", "Bearer x")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")],
        &[("cookie", "token=x"), ("x-http-method-override", "GET")],
    ];
    for route in world.routes.iter().filter(|r| !matches!(r.access, Access::Public | Access::Signed)) {
        for headers in bad_headers {
            let mut request = Request::builder().method(route.method.clone()).uri(filled(route.path));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = world.send(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.problem(401), "unauthenticated", "{} {}", route.method, route.path);
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
}

on_each_store!(the_public_routes_are_exactly_these);

async fn the_public_routes_are_exactly_these(kind: Db) {
    let world = World::on(kind).await;
    let mut open: Vec<String> =
        world.routes.iter().filter(|r| r.access == Access::Public).map(|r| format!("{} {}", r.method, r.path)).collect();
    open.sort();
    let expected = [
        "GET /",
        "GET /.well-known/oauth-authorization-server",
        "GET /api/v1/server",
        "GET /assets/relay.css",
        "GET /assets/setup.js",
        "GET /assets/{build}/{file}",
        "GET /assets/{build}/{folder}/{file}",
        "GET /auth/oidc/{provider}/callback",
        "GET /auth/oidc/{provider}/start",
        "GET /device",
        "GET /healthz",
        "GET /login",
        "GET /openapi.json",
        "GET /readyz",
        "GET /setup",
        "GET /sw.js",
        "POST /api/v1/setup",
        "POST /auth/join",
        "POST /auth/login",
        "POST /auth/mfa",
        "POST /auth/password/reset",
        "POST /auth/refresh",
        "POST /auth/register",
        "POST /device",
        "POST /login",
        "POST /login/code",
        "POST /logout",
        "POST /oauth/device_authorization",
        "POST /oauth/revoke",
        "POST /oauth/token",
    ];
    assert_eq!(open, expected);
}

on_each_store!(tokens_of_the_query_are_never_taken);

async fn tokens_of_the_query_are_never_taken(kind: Db) {
    let world = World::on(kind).await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    world.get(&format!("/auth/me?access_token={token}&token={token}"), None).await.problem(401);
    assert_eq!(world.get("/auth/me", Some(&token)).await.status, StatusCode::OK);
}

on_each_store!(administration_is_for_administrators);

async fn administration_is_for_administrators(kind: Db) {
    let world = World::on(kind).await;
    let user = world.token("ana@example.org", UserRole::User, Some(1)).await;
    let admin = world.token("root@example.org", UserRole::Admin, None).await;
    for route in world.routes.iter().filter(|r| r.access == Access::Admin) {
        let answer = world.call(route.method.clone(), &filled(route.path), Some(&user), Some(json!({}))).await;
        assert_eq!(answer.problem(403), "forbidden", "{}", route.path);
    }
    let users = world.get("/api/v1/admin/users?limit=1", Some(&admin)).await.json();
    assert_eq!((users["users"].as_array().unwrap().len(), users["next_after"].as_str()), (1, Some("ana@example.org")));
    let made = world.post("/api/v1/admin/users", Some(&admin), json!({"email": "bob@example.org", "password": PASSWORD})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let path = format!("/api/v1/admin/users/{}", made.json()["user_id"].as_str().unwrap());
    let patch = |body| world.call(Method::PATCH, &path, Some(&admin), Some(body));
    assert_eq!(patch(json!({"storage_limit": 5})).await.json()["storage_limit"], 5);
    assert_eq!(patch(json!({"name": "Bob"})).await.json()["storage_limit"], 5);
    assert_eq!(patch(json!({"storage_limit": null})).await.json()["storage_limit"], Value::Null);
    patch(json!({"storage_limit": -1})).await.problem(422);
    assert_eq!(world.call(Method::DELETE, &path, Some(&admin), None).await.status, StatusCode::NO_CONTENT);
    world.get(&path, Some(&admin)).await.problem(404);
    assert!(!world.get("/api/v1/admin/audit", Some(&admin)).await.json()["entries"].as_array().unwrap().is_empty());
}

on_each_store!(a_route_for_devices_refuses_a_login_without_one);

async fn a_route_for_devices_refuses_a_login_without_one(kind: Db) {
    let world = World::on(kind).await;
    let plain = world.token("ana@example.org", UserRole::User, None).await;
    for route in world.routes.iter().filter(|r| r.access == Access::Device) {
        let answer = world.call(route.method.clone(), &filled(route.path), Some(&plain), Some(json!({}))).await;
        answer.problem(403);
    }
}

on_each_store!(malformed_bodies_get_a_problem_on_every_route);

async fn malformed_bodies_get_a_problem_on_every_route(kind: Db) {
    let world = World::on(kind).await;
    let admin = world.token("root@example.org", UserRole::Admin, Some(1)).await;
    let deep = "[".repeat(10_000);
    let bodies: [(&str, Vec<u8>); 9] = [
        ("application/json", b"".to_vec()),
        ("application/json", b"{".to_vec()),
        ("application/json", b"null".to_vec()),
        ("application/json", b"[1, 2]".to_vec()),
        ("application/json", b"{\"email\": NaN}".to_vec()),
        ("application/json", b"{\"email\": \"a\", \"email\": \"b\"}".to_vec()),
        ("application/json", b"\xff\xfe".to_vec()),
        ("application/json", deep.into_bytes()),
        ("text/plain", b"{}".to_vec()),
    ];
    for route in world.routes.iter().filter(|r| r.method != Method::GET && r.request.is_some() && !r.takes_form) {
        for (content_type, body) in &bodies {
            let request = Request::builder()
                .method(route.method.clone())
                .uri(filled(route.path))
                .header("authorization", format!("Bearer {admin}"))
                .header("content-type", *content_type)
                .body(Body::from(body.clone()));
            let answer = world.send(request.unwrap()).await;
            assert!(answer.status.is_client_error(), "{} {} {body:?}: {}", route.method, route.path, answer.status);
            answer.problem(answer.status.as_u16());
        }
    }
}

on_each_store!(nonsense_never_makes_a_server_error);

async fn nonsense_never_makes_a_server_error(kind: Db) {
    let world = World::on(kind).await;
    let admin = world.token("root@example.org", UserRole::Admin, Some(1)).await;
    let bodies: [&[u8]; 5] = [b"", b"{", b"{\"name\": 5, \"ids\": {}}", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", &[0; 64]];
    // The one route that ends the login of this test comes last by being left out.
    for route in world.routes.iter().filter(|r| r.path != "/auth/logout") {
        for (content_type, body) in ["application/json", ferry_protocol::wire::CONTENT_TYPE, "multipart/form-data; boundary=x", ""]
            .iter()
            .flat_map(|c| bodies.iter().map(move |b| (*c, *b)))
        {
            let request = Request::builder()
                .method(route.method.clone())
                .uri(filled(route.path) + "?since=%ff&limit=-1&cursor=x&expires=x&signature=x")
                .header("authorization", format!("Bearer {admin}"))
                .header("content-type", content_type)
                .header("range", "bytes=9-1,-0,x")
                .body(Body::from(body.to_vec()));
            let answer = world.send(request.unwrap()).await;
            assert!(!answer.status.is_server_error(), "{} {} {content_type} {body:?}: {}", route.method, route.path, answer.status);
            let kind = answer.headers.get("content-type").map(|v| v.to_str().unwrap());
            match route.path {
                _ if !answer.status.is_client_error() => {}
                _ if route.is_page => assert_eq!(kind, Some("text/html; charset=utf-8"), "{}", route.path),
                path if path.starts_with("/oauth/") => assert!(answer.json()["error"].is_string(), "{path}"),
                _ => drop(answer.problem(answer.status.as_u16())),
            }
        }
    }
}

on_each_store!(large_bodies_are_refused_before_and_while_they_are_read);

async fn large_bodies_are_refused_before_and_while_they_are_read(kind: Db) {
    let world = World::on(kind).await;
    let body = json!({"email": "a@x", "password": "x".repeat(1 << 20)}).to_string();
    let request = |body: Body| Request::post("/auth/login").header("content-type", "application/json").body(body).unwrap();
    let mut announced = request(Body::from(body.clone()));
    announced.headers_mut().insert("content-length", body.len().into());
    assert_eq!(world.send(announced).await.problem(413), "too_large");
    let stream =
        futures_util::stream::iter(body.into_bytes().chunks(4096).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>());
    assert_eq!(world.send(request(Body::from_stream(stream))).await.problem(413), "too_large");
}

on_each_store!(unknown_addresses_and_methods_are_problems);

async fn unknown_addresses_and_methods_are_problems(kind: Db) {
    let world = World::on(kind).await;
    for path in ["/nope", "/auth", "/auth/login/", "//auth/login", "/auth/%2e%2e/auth/me", "/metrics", "/debug", "/admin", "/AUTH/ME"] {
        world.get(path, None).await.problem(404);
    }
    for method in [Method::PUT, Method::TRACE, Method::from_bytes(b"BREW").unwrap()] {
        world.call(method, "/auth/login", None, None).await.problem(405);
    }
    world.call(Method::OPTIONS, "/auth/me", None, None).await.problem(405);
}

on_each_store!(what_is_not_an_id_is_not_there);

async fn what_is_not_an_id_is_not_there(kind: Db) {
    let world = World::on(kind).await;
    let token = world.token("root@example.org", UserRole::Admin, None).await;
    for path in ["/api/v1/devices/x", "/api/v1/devices/..%2fx", "/api/v1/me/sessions/x", "/api/v1/devices/00112233445566778899aabbccddeeff"]
    {
        world.call(Method::DELETE, path, Some(&token), None).await.problem(404);
    }
}

on_each_store!(a_life_of_an_account);

async fn a_life_of_an_account(kind: Db) {
    let world = World::on(kind).await;
    let body =
        json!({"email": "Ana@Example.org", "password": PASSWORD, "is_admin": true, "role": "admin", "storage_limit": 0, "user_id": "x"});
    let made = world.post("/auth/register", None, body.clone()).await;
    assert_eq!((made.status, &made.json()["role"]), (StatusCode::CREATED, &json!("user")));
    assert_eq!(world.post("/auth/register", None, body).await.problem(409), "email_taken");
    let device = |n: u8| json!({"name": "laptop", "public_key": hex::encode([n; 32])});
    let set = world.post("/auth/login", None, json!({"email": "ana@example.org", "password": PASSWORD, "device": device(1)})).await.json();
    assert_eq!((set["token_type"].as_str(), set["expires_in"].as_u64()), (Some("Bearer"), Some(900)));
    let token = set["access_token"].as_str().unwrap();
    let verified = world.get("/auth/verify", Some(token)).await.json();
    assert_eq!(
        (&verified["valid"], &verified["user_id"], &verified["device_id"]),
        (&json!(true), &made.json()["user_id"], &set["device_id"])
    );
    assert_eq!(world.get("/auth/me", Some(token)).await.json()["email"], "Ana@Example.org");
    let code = world.post("/api/v1/join-codes", Some(token), json!({})).await.json();
    let second = world.post("/auth/join", None, json!({"secret": code["code_secret"], "device": device(2)})).await.json();
    let second_token = second["access_token"].as_str().unwrap();
    let devices = world.get("/api/v1/devices", Some(token)).await.json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/api/v1/me/sessions", Some(token)).await.json()["sessions"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/devices/{}", second["device_id"].as_str().unwrap());
    assert_eq!(world.call(Method::PATCH, &path, Some(token), Some(json!({"name": "desk"}))).await.json()["name"], "desk");
    assert_eq!(world.call(Method::DELETE, &path, Some(token), None).await.status, StatusCode::NO_CONTENT);
    world.get("/auth/me", Some(second_token)).await.problem(401);
    let next = world.post("/auth/refresh", None, json!({"refresh_token": set["refresh_token"]})).await.json();
    let token = next["access_token"].as_str().unwrap();
    assert_eq!(world.post("/auth/logout", Some(token), json!({})).await.status, StatusCode::NO_CONTENT);
    world.get("/auth/verify", Some(token)).await.problem(401);
    world.post("/auth/refresh", None, json!({"refresh_token": next["refresh_token"]})).await.problem(401);
}

on_each_store!(too_many_guesses_are_told_when_to_come_back);

async fn too_many_guesses_are_told_when_to_come_back(kind: Db) {
    let world = World::on(kind).await;
    let guess = || world.post("/auth/login", None, json!({"email": "a@x", "password": "wrong horse"}));
    for _ in 0..5 {
        guess().await.problem(401);
    }
    let answer = guess().await;
    assert_eq!(answer.problem(429), "too_many_requests");
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
}

on_each_store!(pages_hold_no_inline_script_and_no_foreign_source);

async fn pages_hold_no_inline_script_and_no_foreign_source(kind: Db) {
    let world = World::on(kind).await;
    for path in ["/", "/setup"] {
        let page = world.get(path, None).await;
        let csp = page.headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(csp.starts_with("default-src 'none'") && !csp.contains("unsafe") && csp.contains("frame-ancestors 'none'"));
        let text = String::from_utf8(page.body).unwrap();
        assert!(!text.contains("<script>") && !text.contains("onclick") && !text.contains("style="));
        for source in text.split("src=\"").skip(1) {
            assert!(source.starts_with("/assets/"));
        }
        assert!(["no-referrer", "same-origin"].contains(&page.headers["referrer-policy"].to_str().unwrap()));
    }
    assert!(world.get("/assets/setup.js", None).await.headers["content-type"].to_str().unwrap().starts_with("text/javascript"));
}

on_each_store!(health_tells_the_truth);

async fn health_tells_the_truth(kind: Db) {
    let world = World::on(kind).await;
    assert_eq!(world.get("/healthz", None).await.status, StatusCode::OK);
    assert_eq!(world.get("/readyz", None).await.status, StatusCode::OK);
    world.app.db.close().await;
    assert_eq!(world.get("/readyz", None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.get("/healthz", None).await.status, StatusCode::OK);
    let world = World::on(kind).await;
    world.app.stopping.cancel();
    let answer = world.get("/readyz", None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["checks"]["accepting"]["ok"], false);
}

on_each_store!(metrics_are_for_the_operator);

async fn metrics_are_for_the_operator(kind: Db) {
    let world = World::on(kind).await;
    let (router, _) = admin_router(&world.app);
    let admin = World { router, ..world };
    admin.get("/healthz", None).await;
    let text = String::from_utf8(admin.get("/metrics", None).await.body).unwrap();
    assert!(text.contains("ferry_relay_http_request_duration_seconds"));
    admin.get("/auth/me", None).await.problem(404);
}

on_each_store!(roles_serve_their_part_only);

async fn roles_serve_their_part_only(kind: Db) {
    let world = World::on(kind).await;
    let (router, routes) = router(&world.app, &[Role::Auth]);
    assert!(routes.iter().all(|r| !r.path.starts_with("/sync") && r.path != "/"));
    let auth = World { router, ..world };
    auth.get("/auth/me", None).await.problem(401);
    auth.get("/setup", None).await.problem(404);
    auth.get("/sync/delta", None).await.problem(404);
}

/// What a proxy sends to a role by the table of paths, that role serves, and nothing else but health.
#[tokio::test]
async fn every_route_is_served_by_the_role_that_its_path_names() {
    let world = World::on(Db::Sqlite).await;
    let mut seen = 0;
    for (role, name) in Role::ALL {
        let (_, routes) = router(&world.app, &[role]);
        for route in routes.iter().filter(|r| !["/healthz", "/readyz"].contains(&r.path)) {
            assert_eq!(Role::of_path(route.path), role, "{} is served by {name}", route.path);
            seen += 1;
        }
        for path in ["/healthz", "/readyz"] {
            assert!(routes.iter().any(|r| r.path == path), "{name} has no {path}");
        }
    }
    assert_eq!(seen + 2, world.routes.len(), "all roles together serve everything, each route once");
}

on_each_store!(every_answer_carries_the_request_id);

async fn every_answer_carries_the_request_id(kind: Db) {
    let world = World::on(kind).await;
    let ask = |id: &'static str| world.send(Request::get("/nope").header("x-request-id", id).body(Body::empty()).unwrap());
    let answer = ask("abc-123").await;
    assert_eq!((answer.headers["x-request-id"].to_str().unwrap(), answer.json()["request_id"].as_str()), ("abc-123", Some("abc-123")));
    assert_ne!(ask("<script>").await.headers["x-request-id"], "<script>");
}

on_each_store!(a_panic_is_one_request_only);

async fn a_panic_is_one_request_only(kind: Db) {
    let world = World::on(kind).await;
    async fn boom() -> &'static str {
        panic!("secret detail")
    }
    let routes = Routes::new(&world.app).add(Route::get("/boom", Access::Public, "Fails"), boom).merge(web::routes(&world.app));
    let (router, _) = finish(&world.app, routes);
    let world = World { router, ..world };
    let answer = world.get("/boom", None).await;
    assert_eq!(answer.problem(500), "internal");
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    assert_eq!(world.get("/", None).await.status, StatusCode::OK);
}

on_each_store!(the_document_is_the_router);

/// `FERRY_UPDATE_DOCS=1 cargo test -p ferry-relay the_document` writes the document anew.
async fn the_document_is_the_router(kind: Db) {
    let world = World::on(kind).await;
    let document = serde_json::to_string_pretty(&openapi::document(&world.routes)).unwrap() + "\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os("FERRY_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &document).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == document,
        "docs/openapi.json is not of this router; write it with: FERRY_UPDATE_DOCS=1 cargo test -p ferry-relay the_document"
    );
    let mut names = std::collections::HashMap::new();
    for schema in world.routes.iter().flat_map(|r| [&r.request, &r.response]).flatten() {
        for (name, value) in &schema.components {
            assert_eq!(names.entry(name.clone()).or_insert_with(|| value.clone()), value, "two types are called {name}");
        }
    }
}
