//! Logins through another provider: a small one that the test runs on loopback, honest and not.

use super::signin_tests::{Browser, location, text};
use super::tests::*;
use crate::config::OidcSettings;
use crate::service::UserRole;
use axum::Router;
use axum::extract::{Form, State};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const CLIENT: &str = "ferry-here";

/// What the provider says of its next user, and how it lies.
#[derive(Clone)]
struct Says {
    claims: Value,
    /// The key that signs; the published one unless it lies.
    signs_with: usize,
    /// Sends the token unsigned, under `alg: none`.
    is_unsigned: bool,
    /// Signed with the client's secret.
    is_by_secret: bool,
    sends_token: bool,
}

struct Inner {
    url: String,
    keys: Vec<rcgen::KeyPair>,
    /// Which of them is published.
    published: usize,
    says: Says,
    /// The PKCE challenge of the login under way.
    challenge: String,
    nonce: String,
}

#[derive(Clone)]
struct Provider(Arc<Mutex<Inner>>);

impl Provider {
    async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let keys = (0..2).map(|_| rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()).collect();
        let says = Says { claims: json!({}), signs_with: 0, is_unsigned: false, is_by_secret: false, sends_token: true };
        let inner = Inner { url, keys, published: 0, says, challenge: String::new(), nonce: String::new() };
        let provider = Self(Arc::new(Mutex::new(inner)));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys_of))
            .route("/token", post(token))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        provider
    }

    fn url(&self) -> String {
        self.0.lock().unwrap().url.clone()
    }

    /// Whom it lets in next: these claims beside the right ones.
    fn says(&self, claims: Value) {
        self.change(|inner| inner.says.claims = claims);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.lock().unwrap());
    }
}

async fn discovery(State(provider): State<Provider>) -> axum::Json<Value> {
    let url = provider.url();
    axum::Json(json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    }))
}

async fn keys_of(State(provider): State<Provider>) -> axum::Json<Value> {
    let inner = provider.0.lock().unwrap();
    // An uncompressed point: 4, x, y.
    let point = inner.keys[inner.published].public_key_raw();
    let part = |range| URL_SAFE_NO_PAD.encode(&point[range]);
    let kid = format!("k{}", inner.published);
    axum::Json(
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": part(1..33), "y": part(33..65)}]}),
    )
}

async fn token(State(provider): State<Provider>, Form(form): Form<HashMap<String, String>>) -> (axum::http::StatusCode, axum::Json<Value>) {
    let inner = provider.0.lock().unwrap();
    let verifier = form.get("code_verifier").cloned().unwrap_or_default();
    if form.get("code").map(String::as_str) != Some("the-code") || URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != inner.challenge {
        return (axum::http::StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_grant"})));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"iss": inner.url, "aud": CLIENT, "sub": "s-1", "exp": now + 300, "iat": now, "nonce": inner.nonce});
    claims.as_object_mut().unwrap().extend(inner.says.claims.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    let sign = |algorithm, key: &EncodingKey| {
        let header = Header { kid: Some(format!("k{}", inner.says.signs_with)), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, key).unwrap()
    };
    let id_token = if inner.says.is_unsigned {
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()))
    } else if inner.says.is_by_secret {
        sign(Algorithm::HS256, &EncodingKey::from_secret(b"client secret"))
    } else {
        sign(Algorithm::ES256, &EncodingKey::from_ec_der(&inner.keys[inner.says.signs_with].serialize_der()))
    };
    let mut answer = json!({"access_token": "at", "token_type": "Bearer"});
    if inner.says.sends_token {
        answer["id_token"] = id_token.into();
    }
    (axum::http::StatusCode::OK, axum::Json(answer))
}

async fn world(provider: &Provider, set: impl FnOnce(&mut OidcSettings)) -> World {
    let mut settings =
        OidcSettings { issuer: provider.url(), client_id: CLIENT.into(), client_secret: "client secret".into(), ..OidcSettings::default() };
    set(&mut settings);
    World::with(|config| drop(config.auth.oidc.insert("here".into(), settings))).await
}

/// Goes to the provider and comes back as it says; what the browser is answered in the end.
async fn through(browser: &Browser<'_>, provider: &Provider) -> Answer {
    let to = location(&browser.get("/auth/oidc/here/start?next=%2Fdevice").await);
    assert!(to.starts_with(&format!("{}/authorize?", provider.url())), "{to}");
    let asked: HashMap<String, String> =
        to.split_once('?').unwrap().1.split('&').filter_map(|p| p.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    assert_eq!(
        (asked["response_type"].as_str(), asked["client_id"].as_str(), asked["code_challenge_method"].as_str()),
        ("code", CLIENT, "S256")
    );
    assert!(asked["scope"].contains("openid") && asked["scope"].contains("email"));
    assert_eq!(asked["redirect_uri"], "https%3A%2F%2Ffiles.example.org%2Fauth%2Foidc%2Fhere%2Fcallback");
    provider.change(|inner| (inner.challenge, inner.nonce) = (asked["code_challenge"].clone(), asked["nonce"].clone()));
    browser.get(&format!("/auth/oidc/here/callback?code=the-code&state={}", asked["state"])).await
}

fn ana() -> Value {
    json!({"email": "Ana@example.org", "email_verified": true, "name": "Ana"})
}

#[tokio::test]
async fn somebody_new_comes_in_through_a_provider_and_comes_back() {
    let provider = Provider::start().await;
    let world = world(&provider, |s| s.allow_new_users = true).await;
    assert!(world.get("/api/v1/server", None).await.json()["auth_methods"].as_array().unwrap().contains(&json!("oidc")));
    let browser = Browser::new(&world);
    assert!(text(&browser.get("/login?next=/device").await).contains("href=\"/auth/oidc/here/start?next=%2Fdevice\""));
    provider.says(ana());
    assert_eq!(location(&through(&browser, &provider).await), "/device");
    assert!(text(&browser.get("/device").await).contains("ana@example.org"));
    // The address may change; the subject is who it is.
    provider.says(json!({"email": "other@example.org", "email_verified": false}));
    let again = Browser::new(&world);
    assert_eq!(location(&through(&again, &provider).await), "/device");
    assert!(text(&again.get("/device").await).contains("ana@example.org"));
    // A locked account stays locked.
    let admin = world.token("root@example.org", UserRole::Admin, None).await;
    let users = world.get("/api/v1/admin/users", Some(&admin)).await.json();
    let ana = users["users"].as_array().unwrap().iter().find(|u| u["email"] == "ana@example.org").unwrap()["user_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let lock =
        world.call(axum::http::Method::PATCH, &format!("/api/v1/admin/users/{ana}"), Some(&admin), Some(json!({"disabled": true}))).await;
    assert_eq!(lock.status, 200);
    assert_eq!(through(&Browser::new(&world), &provider).await.status, 403);
}

/// O1: each thing that may be wrong with a token, alone.
#[tokio::test]
async fn a_token_that_is_not_right_lets_nobody_in() {
    let provider = Provider::start().await;
    let world = world(&provider, |s| s.allow_new_users = true).await;
    let right = provider.0.lock().unwrap().says.clone();
    let with = |name: &str, value: Value| {
        let mut claims = ana();
        claims[name] = value;
        Says { claims, ..right.clone() }
    };
    let lies: Vec<(&str, Says)> = vec![
        ("wrong nonce", with("nonce", json!("other"))),
        ("no nonce", with("nonce", Value::Null)),
        ("wrong audience", with("aud", json!("somebody-else"))),
        ("one audience too many", with("aud", json!([CLIENT, "somebody-else"]))),
        ("wrong issuer", with("iss", json!("https://evil.example"))),
        ("expired", with("exp", json!(1_000_000_000))),
        ("no expiry", with("exp", Value::Null)),
        ("no subject", with("sub", Value::Null)),
        ("unsigned", Says { claims: ana(), is_unsigned: true, ..right.clone() }),
        ("by the shared secret", Says { claims: ana(), is_by_secret: true, ..right.clone() }),
        ("by another key", Says { claims: ana(), signs_with: 1, ..right.clone() }),
        ("no token", Says { claims: ana(), sends_token: false, ..right.clone() }),
    ];
    for (what, says) in lies {
        provider.change(|inner| inner.says = says);
        let browser = Browser::new(&world);
        let answer = through(&browser, &provider).await;
        assert!(matches!(answer.status.as_u16(), 403 | 503), "{what}: {} {}", answer.status, text(&answer));
        assert!(location(&browser.get("/device").await).starts_with("/login"), "{what}");
    }
    provider.change(|inner| inner.says = Says { claims: ana(), ..right.clone() });
    assert_eq!(location(&through(&Browser::new(&world), &provider).await), "/device", "the provider of this test can be honest");
}

/// State, cookie and code: the end of a login works once, in the browser that began it.
#[tokio::test]
async fn a_login_ends_in_the_browser_that_began_it() {
    let provider = Provider::start().await;
    let world = world(&provider, |s| s.allow_new_users = true).await;
    provider.says(ana());
    let (browser, other) = (Browser::new(&world), Browser::new(&world));
    let to = location(&browser.get("/auth/oidc/here/start").await);
    let part = |name: &str| to.split(['?', '&']).find_map(|p| p.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    provider.change(|inner| (inner.challenge, inner.nonce) = (part("code_challenge"), part("nonce")));
    let back = format!("/auth/oidc/here/callback?code=the-code&state={}", part("state"));
    assert_eq!(other.get(&back).await.status, 403, "another browser");
    location(&other.get("/auth/oidc/here/start").await);
    assert_eq!(other.get(&back).await.status, 403, "another login's state");
    for wrong in ["?code=the-code", "?code=the-code&state=", "?code=the-code&state=x", "", "?state=%ff"] {
        let answer = browser.get(&format!("/auth/oidc/here/callback{wrong}")).await;
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{wrong}: {}", answer.status);
    }
    assert_eq!(browser.get(&back.replace("the-code", "another")).await.status, 403);
    assert_eq!(location(&browser.get(&back).await), "/");
    assert_eq!(browser.get(&back).await.status, 403, "it is over");
    for path in ["/auth/oidc/nobody/start", "/auth/oidc/nobody/callback?code=x&state=y"] {
        assert_eq!(browser.get(path).await.status, 404);
    }
}

/// Who is let into which account: nobody by an address alone unless the operator says so.
#[tokio::test]
async fn an_address_opens_an_account_only_where_that_is_allowed() {
    let provider = Provider::start().await;
    let closed = world(&provider, |_| {}).await;
    closed.token("ana@example.org", UserRole::User, None).await;
    provider.says(ana());
    assert_eq!(through(&Browser::new(&closed), &provider).await.status, 403, "an account of that address exists");
    provider.says(json!({"sub": "s-2", "email": "bob@example.org", "email_verified": true}));
    assert_eq!(through(&Browser::new(&closed), &provider).await.status, 403, "nobody new");

    let open = world(&provider, |s| (s.allow_new_users, s.link_by_email, s.email_domains) = (true, true, vec!["example.org".into()])).await;
    open.token("ana@example.org", UserRole::User, None).await;
    for refused in [
        json!({"email": "ana@example.org", "email_verified": false}),
        json!({"email": "ana@example.org"}),
        json!({"email_verified": true}),
        json!({"email": "not an address", "email_verified": true}),
        json!({"email": "eve@evil.example", "email_verified": true}),
        json!({"email": "eve@example.org.evil.example", "email_verified": true}),
    ] {
        provider.says(refused.clone());
        assert_eq!(through(&Browser::new(&open), &provider).await.status, 403, "{refused}");
    }
    provider.says(ana());
    let browser = Browser::new(&open);
    assert_eq!(location(&through(&browser, &provider).await), "/device");
    assert!(text(&browser.get("/device").await).contains("ana@example.org"));
}

/// The provider changes its key: the relay looks again, once, and goes on.
#[tokio::test]
async fn a_provider_that_changed_its_key_is_looked_at_again() {
    let provider = Provider::start().await;
    let world = world(&provider, |s| s.allow_new_users = true).await;
    provider.says(ana());
    assert_eq!(location(&through(&Browser::new(&world), &provider).await), "/device");
    provider.change(|inner| (inner.published, inner.says.signs_with) = (1, 1));
    // What is known of the provider must be some seconds old before it is asked again: wait for that.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let answer = through(&Browser::new(&world), &provider).await;
        if answer.status == 303 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", text(&answer));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// A5: the account's own second factor is asked for here too.
#[tokio::test]
async fn a_provider_does_not_pass_by_the_second_factor() {
    let provider = Provider::start().await;
    let world = world(&provider, |s| s.link_by_email = true).await;
    let token = world.token("ana@example.org", UserRole::User, None).await;
    let new = world.post("/api/v1/me/totp", Some(&token), json!({"password": PASSWORD})).await.json();
    let app = super::signin_tests::Authenticator::new(new["secret"].as_str().unwrap());
    assert_eq!(world.post("/api/v1/me/totp/confirm", Some(&token), json!({"code": app.code(-1)})).await.status, 200);
    provider.says(ana());
    let browser = Browser::new(&world);
    let page = through(&browser, &provider).await;
    assert!(page.status == 200 && text(&page).contains("six digits"), "{}", text(&page));
    assert!(location(&browser.get("/device").await).starts_with("/login"));
    let fields = [
        ("csrf", super::signin_tests::hidden(&page, "csrf")),
        ("next", "/device".into()),
        ("mfa_token", super::signin_tests::hidden(&page, "mfa_token")),
        ("code", app.code(0)),
    ];
    let done = browser.post("/login/code", &fields.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()).await;
    assert_eq!(location(&done), "/device");
}
