//! Ways in, over the real router: the device flow, browsers and their forms, second factors.

use super::tests::*;
use crate::service::UserRole;
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

/// A browser: it keeps its cookies and says where its requests come from.
pub(super) struct Browser<'a> {
    world: &'a World,
    cookies: std::cell::RefCell<std::collections::BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self { world, cookies: Default::default() }
    }

    fn cookie_header(&self) -> String {
        self.cookies.borrow().iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ")
    }

    /// Sends a request as the browser would, with these headers beside the usual ones.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&str>, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("host", "files.example.org").header("cookie", self.cookie_header());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some(form) => request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(form.to_owned())),
            None => request.body(Body::empty()),
        };
        let answer = self.world.send(request.unwrap()).await;
        for set in answer.headers.get_all("set-cookie") {
            let text = set.to_str().unwrap();
            assert!(
                text.starts_with("__Host-") && text.contains("; Path=/") && text.contains("; HttpOnly") && text.contains("; Secure"),
                "{text}"
            );
            assert!(text.contains("; SameSite=Lax") || text.contains("; SameSite=Strict"), "{text}");
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() || text.contains("Max-Age=0") {
                self.cookies.borrow_mut().remove(name);
            } else {
                self.cookies.borrow_mut().insert(name.into(), value.into());
            }
        }
        answer
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[("sec-fetch-site", "none")]).await
    }

    /// Sends a form of one of our pages.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, Some(&form(fields)), &[("sec-fetch-site", "same-origin"), ("origin", "https://files.example.org")])
            .await
    }

    /// Logs in with the password; answers where it was sent, or the page that came instead.
    pub(super) async fn login(&self, email: &str, next: &str) -> Answer {
        let page = self.get(&format!("/login?next={next}")).await;
        assert_eq!(page.status, 200);
        let csrf = hidden(&page, "csrf");
        self.post("/login", &[("csrf", &csrf), ("next", &hidden(&page, "next")), ("email", email), ("password", PASSWORD)]).await
    }
}

pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
    fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&")
}

pub(super) fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

/// The value of a hidden field.
pub(super) fn hidden(answer: &Answer, name: &str) -> String {
    let page = text(answer);
    let at = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name} in {page}")).1;
    at.split('"').next().unwrap().replace("&amp;", "&")
}

pub(super) fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", String::from_utf8_lossy(&answer.body));
    answer.headers["location"].to_str().unwrap().to_owned()
}

async fn oauth(world: &World, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded").body(Body::from(form(fields))).unwrap();
    let answer = world.send(request).await;
    assert!(answer.headers["cache-control"].to_str().unwrap().contains("no-store"));
    let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status.as_u16(), body)
}

async fn ask(world: &World, name: &str, key: u8) -> Value {
    let key = hex::encode([key; 32]);
    let fields = [("client_id", "ferry"), ("device_name", name), ("device_public_key", &key), ("system", "Linux <6>")];
    let (status, body) = oauth(world, "/oauth/device_authorization", &fields).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn redeem(world: &World, codes: &Value) -> (u16, Value) {
    let code = codes["device_code"].as_str().unwrap();
    oauth(
        world,
        "/oauth/token",
        &[("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code), ("client_id", "ferry")],
    )
    .await
}

#[tokio::test]
async fn a_device_comes_in_by_a_page() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "<b>laptop</b>", 7).await;
    assert_eq!((codes["expires_in"].as_u64(), codes["interval"].as_u64()), (Some(600), Some(5)));
    assert_eq!(codes["verification_uri"], "https://files.example.org/device");
    let code = codes["user_code"].as_str().unwrap();
    assert_eq!(codes["verification_uri_complete"], format!("https://files.example.org/device?user_code={code}"));
    let (status, body) = redeem(&world, &codes).await;
    assert_eq!((status, &body["error"], &body["code"]), (400, &json!("authorization_pending"), &json!("authorization_pending")));
    assert!(body["error_description"].is_string());
    assert_eq!(redeem(&world, &codes).await.1["error"], "slow_down");

    let browser = Browser::new(&world);
    let path = format!("/device?user_code={code}");
    let to = location(&browser.get(&path).await);
    assert_eq!(to, format!("/login?next=%2Fdevice%3Fuser_code%3D{code}"));
    let to = location(&browser.login("ana@example.org", to.strip_prefix("/login?next=").unwrap()).await);
    assert_eq!(to, path);
    let page = browser.get(&to).await;
    let shown = text(&page);
    assert!(shown.contains(code) && shown.contains("ana@example.org"), "{shown}");
    assert!(shown.contains("&lt;b&gt;laptop&lt;/b&gt;") && shown.contains("Linux &lt;6&gt;") && !shown.contains("<b>laptop"), "{shown}");
    let done = browser.post("/device", &[("csrf", &hidden(&page, "csrf")), ("user_code", code), ("decision", "approve")]).await;
    assert!(done.status == 200 && text(&done).contains("linked"), "{}", text(&done));
    assert_eq!(browser.get(&path).await.status, 404, "decided is decided");

    // The second question came too soon, so the device waits longer; the test's clock is the real one.
    let (status, body) = redeem(&world, &codes).await;
    assert_eq!((status, &body["error"]), (400, &json!("slow_down")));
}

/// What a device gets is what a login gives; it gets it once.
#[tokio::test]
async fn an_approved_device_has_tokens_once() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "laptop", 7).await;
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let page = browser.get(&format!("/device?user_code={}", codes["user_code"].as_str().unwrap().to_lowercase())).await;
    let fields = [("csrf", &*hidden(&page, "csrf")), ("user_code", codes["user_code"].as_str().unwrap()), ("decision", "approve")];
    assert_eq!(browser.post("/device", &fields).await.status, 200);
    let (status, set) = redeem(&world, &codes).await;
    assert_eq!((status, set["token_type"].as_str(), set["device_id"].is_string()), (200, Some("Bearer"), true), "{set}");
    let token = set["access_token"].as_str().unwrap();
    assert_eq!(world.get("/auth/verify", Some(token)).await.json()["device_id"], set["device_id"]);
    assert_eq!(redeem(&world, &codes).await.1["error"], "invalid_grant");
    let refresh = set["refresh_token"].as_str().unwrap();
    let (status, next) = oauth(&world, "/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(status, 200, "{next}");
    let (status, _) = oauth(&world, "/oauth/revoke", &[("token", next["refresh_token"].as_str().unwrap())]).await;
    assert_eq!(status, 200);
    world.get("/auth/verify", Some(token)).await.problem(401);
    for unknown in ["", "x", refresh, token, "frt_00"] {
        assert_eq!(oauth(&world, "/oauth/revoke", &[("token", unknown)]).await.0, 200, "revoking what is not there is no error");
    }
}

#[tokio::test]
async fn a_refused_device_gets_nothing() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "laptop", 7).await;
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let code = codes["user_code"].as_str().unwrap();
    let page = browser.get(&format!("/device?user_code={code}")).await;
    assert_eq!(browser.post("/device", &[("csrf", &hidden(&page, "csrf")), ("user_code", code), ("decision", "deny")]).await.status, 200);
    assert_eq!(redeem(&world, &codes).await.1["error"], "access_denied");
    assert_eq!(
        browser.post("/device", &[("csrf", &hidden(&page, "csrf")), ("user_code", code), ("decision", "approve")]).await.status,
        404
    );
}

/// A key that is another user's is refused while the person reads it, and decides nothing.
#[tokio::test]
async fn a_key_of_another_user_is_not_linked() {
    let world = World::new().await;
    world.token("bob@example.org", UserRole::User, Some(7)).await;
    world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "laptop", 7).await;
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let code = codes["user_code"].as_str().unwrap();
    let page = browser.get(&format!("/device?user_code={code}")).await;
    let refused = browser.post("/device", &[("csrf", &hidden(&page, "csrf")), ("user_code", code), ("decision", "approve")]).await;
    assert!(refused.status == 409 && text(&refused).contains("another account"), "{}", text(&refused));
    assert_eq!(redeem(&world, &codes).await.1["error"], "authorization_pending");
}

#[tokio::test]
async fn what_oauth_does_not_take_is_said_in_its_words() {
    let world = World::new().await;
    let key = hex::encode([7; 32]);
    for (path, fields, error) in [
        (
            "/oauth/device_authorization",
            vec![("client_id", "x"), ("device_name", "d"), ("device_public_key", key.as_str())],
            "invalid_client",
        ),
        ("/oauth/device_authorization", vec![("client_id", "ferry"), ("device_name", "d"), ("device_public_key", "00")], "invalid_request"),
        ("/oauth/device_authorization", vec![("client_id", "ferry")], "invalid_request"),
        ("/oauth/device_authorization", vec![("client_id", "ferry"), ("client_id", "ferry"), ("device_name", "d")], "invalid_request"),
        ("/oauth/token", vec![("grant_type", "password"), ("username", "a")], "unsupported_grant_type"),
        ("/oauth/token", vec![("grant_type", "refresh_token")], "invalid_request"),
        ("/oauth/token", vec![("grant_type", "refresh_token"), ("refresh_token", "x")], "invalid_grant"),
        ("/oauth/token", vec![("grant_type", "refresh_token"), ("refresh_token", "x"), ("client_id", "y")], "invalid_client"),
        ("/oauth/revoke", vec![], "invalid_request"),
    ] {
        let (status, body) = oauth(&world, path, &fields).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(error)), "{path} {fields:?} {body}");
    }
    let json = world.post("/oauth/token", None, json!({"grant_type": "refresh_token"})).await;
    assert_eq!((json.status.as_u16(), json.json()["error"].as_str()), (415, Some("invalid_request")));
    let described = world.get("/.well-known/oauth-authorization-server", None).await.json();
    assert_eq!(described["issuer"], "https://files.example.org");
    for (endpoint, path) in [("token_endpoint", "/oauth/token"), ("device_authorization_endpoint", "/oauth/device_authorization")] {
        assert_eq!(described[endpoint], format!("https://files.example.org{path}"));
    }
}

/// So many requests of one address, and so many guesses of a code.
#[tokio::test]
async fn codes_are_asked_for_and_guessed_so_often() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    for n in 1..=10 {
        ask(&world, "laptop", n).await;
    }
    let key = hex::encode([11; 32]);
    let fields = form(&[("client_id", "ferry"), ("device_name", "d"), ("device_public_key", &key)]);
    let request = Request::post("/oauth/device_authorization").header("content-type", "application/x-www-form-urlencoded");
    let answer = world.send(request.body(Body::from(fields)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"].as_str()), (429, Some("slow_down")));
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 3000);
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    for _ in 0..5 {
        assert_eq!(browser.get("/device?user_code=BCDFGHJK").await.status, 404);
    }
    let page = browser.get("/device?user_code=BCDFGHJK").await;
    assert_eq!(page.status, 429, "{}", text(&page));
}

/// R51: nothing that a page of somebody else can make a browser send changes anything.
#[tokio::test]
async fn a_form_of_another_site_is_refused() {
    let world = World::new().await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "laptop", 7).await;
    let code = codes["user_code"].as_str().unwrap();
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let page = browser.get(&format!("/device?user_code={code}")).await;
    let csrf = hidden(&page, "csrf");
    let right = form(&[("csrf", &csrf), ("user_code", code), ("decision", "approve")]);
    let wrong = form(&[("csrf", &"0".repeat(64)), ("user_code", code), ("decision", "approve")]);
    let none = form(&[("csrf", ""), ("user_code", code), ("decision", "approve")]);
    let own = ("origin", "https://files.example.org");
    let cases: [(&str, &[(&str, &str)]); 8] = [
        (&right, &[("sec-fetch-site", "cross-site"), own]),
        (&right, &[("sec-fetch-site", "same-site"), own]),
        (&right, &[("origin", "https://evil.example")]),
        (&right, &[("origin", "https://files.example.org.evil.example")]),
        (&right, &[("origin", "null")]),
        (&right, &[]),
        (&wrong, &[("sec-fetch-site", "same-origin"), own]),
        (&none, &[("sec-fetch-site", "same-origin"), own]),
    ];
    for (body, headers) in cases {
        for path in ["/device", "/logout", "/login"] {
            let answer = browser.send(Method::POST, path, Some(body), headers).await;
            assert!(matches!(answer.status.as_u16(), 400 | 403), "{path} {headers:?}: {}", answer.status);
        }
    }
    // Forms of other kinds are no forms.
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        let request = Request::post("/device").header("cookie", browser.cookie_header()).header("sec-fetch-site", "same-origin");
        let answer = world.send(request.header("content-type", kind).body(Body::from(right.clone())).unwrap()).await;
        assert_eq!(answer.status, 415, "{kind}");
    }
    // Of two cookies of one name one was planted.
    let twice = format!("{0}; {0}", browser.cookie_header());
    let request = Request::get("/device").header("cookie", twice).body(Body::empty()).unwrap();
    assert!(location(&world.send(request).await).starts_with("/login"));
    assert_eq!(redeem(&world, &codes).await.1["error"], "authorization_pending", "none of it decided anything");
    // An older browser says its origin only.
    assert_eq!(browser.send(Method::POST, "/device", Some(&right), &[own]).await.status, 200);
    assert_eq!(world.get("/auth/me", Some(&token)).await.status, 200);
}

/// R51: the API takes the cookie for reading; to change something the page's token is needed too.
#[tokio::test]
async fn a_cookie_reads_and_a_token_of_the_page_writes() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let csrf = hidden(&browser.get("/device").await, "csrf");
    assert_eq!(browser.send(Method::GET, "/auth/me", None, &[]).await.json()["email"], "ana@example.org");
    // The web client asks for it; whoever has no cookie needs none.
    assert_eq!(browser.send(Method::GET, "/api/v1/me/browser", None, &[]).await.json()["csrf_token"], csrf.as_str());
    let own = ("sec-fetch-site", "same-origin");
    // What takes no session at all takes no cookie either.
    let without = |access| matches!(access, super::Access::Public | super::Access::Signed | super::Access::AppPassword);
    let mutating: Vec<_> = world.routes.iter().filter(|r| !r.method.is_safe() && !without(r.access)).collect();
    assert!(mutating.len() > 20);
    for route in &mutating {
        let path = filled(route.path);
        for headers in [
            &[own][..],
            &[own, ("x-csrf-token", "0")],
            &[("x-csrf-token", &csrf)],
            &[("sec-fetch-site", "cross-site"), ("x-csrf-token", &csrf)],
        ] {
            let answer = browser.send(route.method.clone(), &path, None, headers).await;
            let code = answer.problem(403);
            assert_eq!(code, "foreign_form", "{} {path} {headers:?}", route.method);
        }
    }
    let made = browser.send(Method::POST, "/api/v1/join-codes", None, &[own, ("x-csrf-token", &csrf)]).await;
    assert_eq!(made.status, 201);
    // An `Authorization` header counts alone.
    let answer = browser.send(Method::GET, "/auth/me", None, &[("authorization", "Bearer x")]).await;
    answer.problem(401);
}

#[tokio::test]
async fn a_browser_logs_out_and_a_revoked_one_is_out() {
    let world = World::new().await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    let browser = Browser::new(&world);
    location(&browser.login("ana@example.org", "/").await);
    let stolen = Browser { world: &world, cookies: browser.cookies.clone() };
    assert_eq!(location(&browser.get("/login?next=//evil").await), "/", "logged in already, and no way out of this relay");
    let page = browser.get("/device").await;
    let out = browser.post("/logout", &[("csrf", &hidden(&page, "csrf"))]).await;
    assert_eq!(location(&out), "/login");
    assert!(out.headers["clear-site-data"].to_str().unwrap().contains("storage"));
    for gone in [&browser, &stolen] {
        assert!(location(&gone.get("/device").await).starts_with("/login"));
    }
    // Listed and revoked like every login.
    location(&browser.login("ana@example.org", "/").await);
    let sessions = world.get("/api/v1/me/sessions", Some(&token)).await.json();
    let web = sessions["sessions"].as_array().unwrap().iter().find(|s| s["current"] == false).unwrap().clone();
    let path = format!("/api/v1/me/sessions/{}", web["session_id"].as_str().unwrap());
    assert_eq!(world.call(Method::DELETE, &path, Some(&token), None).await.status, 204);
    assert!(location(&browser.get("/device").await).starts_with("/login"));
}

/// R50: all pages.
#[tokio::test]
async fn pages_are_strict() {
    let world = World::new().await;
    world.token("ana@example.org", UserRole::User, None).await;
    let codes = ask(&world, "laptop", 7).await;
    let browser = Browser::new(&world);
    let mut pages = vec![browser.get("/login").await, browser.get("/login?next=%ff").await, browser.login("nobody@example.org", "/").await];
    location(&browser.login("ana@example.org", "/").await);
    for path in
        ["/device", "/device?user_code=x", &format!("/device?user_code={}", codes["user_code"].as_str().unwrap()), "/device?user_code=%ff"]
    {
        pages.push(browser.get(path).await);
    }
    pages.push(browser.post("/device", &[("csrf", "x")]).await);
    for page in pages {
        let header = |name: &str| page.headers[name].to_str().unwrap().to_owned();
        let csp = header("content-security-policy");
        for word in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(csp.contains(word) && !csp.contains("unsafe") && !csp.contains("script-src"), "{csp}");
        }
        assert_eq!((header("x-frame-options").as_str(), header("cache-control").as_str()), ("DENY", "no-store"));
        assert!(header("strict-transport-security").contains("max-age="));
        let text = text(&page);
        for word in ["<script", "style=", "<style", "onclick", "javascript:", "http://", "{{", "}}"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

#[tokio::test]
async fn a_second_factor_is_asked_for() {
    let world = World::new().await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    assert_eq!(world.get("/api/v1/me/totp", Some(&token)).await.json()["enabled"], false);
    let begun = |password: &'static str| world.post("/api/v1/me/totp", Some(&token), json!({"password": password}));
    assert_eq!(begun("wrong horse").await.problem(403), "wrong_password");
    let new = begun(PASSWORD).await.json();
    assert!(new["url"].as_str().unwrap().starts_with("otpauth://totp/Ferry:ana"), "{new}");
    let app = Authenticator::new(new["secret"].as_str().unwrap());
    let login = || world.post("/auth/login", None, json!({"email": "ana@example.org", "password": PASSWORD}));
    assert_eq!(login().await.status, 200, "not confirmed: not asked for");
    let confirm = |code: String| world.post("/api/v1/me/totp/confirm", Some(&token), json!({"code": code}));
    let confirmed = confirm(app.code(-1)).await.json();
    let recovery: Vec<&str> = confirmed["recovery_codes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(recovery.len(), 10);
    let asked = login().await;
    assert_eq!(asked.problem(401), "mfa_required");
    let mfa = asked.json()["mfa_token"].as_str().unwrap().to_owned();
    let device = json!({"name": "laptop", "public_key": hex::encode([5; 32])});
    let step = |mfa: String, code: String| world.post("/auth/mfa", None, json!({"mfa_token": mfa, "code": code, "device": device}));
    assert_eq!(step(mfa.clone(), app.code(-1)).await.problem(401), "wrong_code", "the code that confirmed it is used up");
    let now = app.code(0);
    let set = step(mfa.clone(), now.clone()).await.json();
    assert!(set["access_token"].is_string() && set["device_id"].is_string(), "{set}");
    assert_eq!(step(mfa, app.code(1)).await.problem(401), "mfa_expired", "a login is finished once");
    let mfa = login().await.json()["mfa_token"].as_str().unwrap().to_owned();
    assert_eq!(step(mfa.clone(), now).await.problem(401), "wrong_code", "a code counts once");
    assert_eq!(step(mfa, recovery[0].to_lowercase()).await.status, 200);
    assert_eq!(world.get("/api/v1/me/totp", Some(&token)).await.json(), json!({"enabled": true, "recovery_codes_left": 9}));
    world.get("/auth/me", Some("fmt_0000")).await.problem(401);
}

/// A user who has a second factor, and its recovery codes.
async fn with_second_factor(world: &World) -> (String, Vec<String>) {
    let token = world.token("ana@example.org", UserRole::User, None).await;
    let new = world.post("/api/v1/me/totp", Some(&token), json!({"password": PASSWORD})).await.json();
    let code = Authenticator::new(new["secret"].as_str().unwrap()).code(0);
    let confirmed = world.post("/api/v1/me/totp/confirm", Some(&token), json!({"code": code})).await.json();
    (token, confirmed["recovery_codes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn the_page_asks_for_the_second_factor_and_its_owner_removes_it() {
    let world = World::new().await;
    let (token, recovery) = with_second_factor(&world).await;
    let browser = Browser::new(&world);
    let page = browser.login("ana@example.org", "%2Fdevice").await;
    assert!(page.status == 200 && text(&page).contains("six digits"), "{}", text(&page));
    let fields = |code: &str| {
        vec![
            ("csrf", hidden(&page, "csrf")),
            ("next", hidden(&page, "next")),
            ("mfa_token", hidden(&page, "mfa_token")),
            ("code", code.to_owned()),
        ]
    };
    let send = |code: &str| {
        let fields = fields(code);
        let browser = &browser;
        async move { browser.post("/login/code", &fields.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()).await }
    };
    assert!(text(&send("123").await).contains("wrong"));
    assert_eq!(location(&send(&recovery[1]).await), "/device");

    let remove = |code: &str| world.call(Method::DELETE, "/api/v1/me/totp", Some(&token), Some(json!({"code": code})));
    assert_eq!(remove(&recovery[1]).await.problem(403), "wrong_code");
    let renewed = world.post("/api/v1/me/recovery-codes", Some(&token), json!({"code": recovery[2]})).await.json();
    assert_eq!(renewed["recovery_codes"].as_array().unwrap().len(), 10);
    assert_eq!(remove(renewed["recovery_codes"][0].as_str().unwrap()).await.status, 204);
    let login = world.post("/auth/login", None, json!({"email": "ana@example.org", "password": PASSWORD})).await;
    assert_eq!(login.status, 200);
}

/// An authenticator app.
pub(super) struct Authenticator(totp_rs::Totp);

impl Authenticator {
    pub(super) fn new(secret: &str) -> Self {
        let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
        Self(totp_rs::Builder::new().with_secret(secret).build().unwrap())
    }

    /// The code so many steps from now.
    pub(super) fn code(&self, steps: i64) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        self.0.generate(now.saturating_add_signed(steps * 30)).to_string()
    }
}

/// An administrator takes a second factor away, which is written down.
#[tokio::test]
async fn an_administrator_resets_a_second_factor() {
    let world = World::new().await;
    let admin = world.token("root@example.org", UserRole::Admin, None).await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    let new = world.post("/api/v1/me/totp", Some(&token), json!({"password": PASSWORD})).await.json();
    let app = Authenticator::new(new["secret"].as_str().unwrap());
    assert_eq!(world.post("/api/v1/me/totp/confirm", Some(&token), json!({"code": app.code(0)})).await.status, 200);
    let login = || world.post("/auth/login", None, json!({"email": "ana@example.org", "password": PASSWORD}));
    login().await.problem(401);
    let ana = world.get("/auth/me", Some(&token)).await.json()["user_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/admin/users/{ana}/totp");
    assert_eq!(world.call(Method::DELETE, &path, Some(&token), None).await.problem(403), "forbidden");
    assert_eq!(world.call(Method::DELETE, &path, Some(&admin), None).await.status, 204);
    assert_eq!(login().await.status, 200);
    let audit = text(&world.get("/api/v1/admin/audit", Some(&admin)).await);
    assert!(audit.contains("totp.reset") && audit.contains("totp.enabled") && !audit.contains(new["secret"].as_str().unwrap()));
}
