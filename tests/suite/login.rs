//! Logging in with real processes: a device that a person lets in on the relay's page, and a second factor.

use ferry_tests::device::Device;
use ferry_tests::poll::until;
use ferry_tests::relay::{EMAIL, PASSWORD, Relay};
use reqwest::blocking::{Client, Response};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// A browser with its cookies.
struct Browser {
    client: Client,
    relay: String,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new(relay: &str) -> Self {
        // The test's client must speak TLS of some kind to be made; all of this is plain HTTP on loopback.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().expect("a client");
        Self { client, relay: relay.into(), cookies: BTreeMap::new() }
    }

    fn keep(&mut self, response: Response) -> (u16, String, String) {
        for set in response.headers().get_all(SET_COOKIE) {
            let (name, value) = set.to_str().expect("text").split(';').next().expect("a pair").split_once('=').expect("a pair");
            self.cookies.insert(name.into(), value.into());
        }
        let to = response.headers().get(LOCATION).map(|v| v.to_str().expect("text").to_owned()).unwrap_or_default();
        (response.status().as_u16(), to, response.text().expect("a page"))
    }

    fn cookie(&self) -> String {
        self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ")
    }

    fn get(&mut self, path: &str) -> (u16, String, String) {
        let response = self.client.get(format!("{}{path}", self.relay)).header(COOKIE, self.cookie()).send().expect("an answer");
        self.keep(response)
    }

    /// Sends a form with the token of the page that it was on.
    fn post(&mut self, path: &str, page: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
        let csrf = page.split_once("name=\"csrf\" value=\"").expect("a form").1.split('"').next().expect("a value");
        let pairs = fields.iter().copied().chain([("csrf", csrf)]).map(|(n, v)| format!("{n}={}", encode(v)));
        let response = self
            .client
            .post(format!("{}{path}", self.relay))
            .header(COOKIE, self.cookie())
            .header("origin", &self.relay)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(pairs.collect::<Vec<_>>().join("&"))
            .send()
            .expect("an answer");
        self.keep(response)
    }

    fn login(&mut self) {
        let (_, _, page) = self.get("/login");
        let (status, _, text) = self.post("/login", &page, &[("email", EMAIL), ("password", PASSWORD)]);
        assert_eq!(status, 303, "{text}");
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// `ferry login` that has shown its code and waits.
struct Waiting {
    child: std::process::Child,
    shown: Value,
    rest: BufReader<std::process::ChildStdout>,
}

impl Waiting {
    fn begin(device: &Device, relay: &Relay) -> Self {
        let mut child = device.begin(&["login", "--relay", &relay.url(), "--no-browser", "--json", "--name", device.name()]);
        let mut rest = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        rest.read_line(&mut line).expect("a line");
        let shown: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Self { child, shown, rest }
    }

    /// How it ended, and its last line on the terminal.
    fn end(mut self) -> (i32, String) {
        let mut out = String::new();
        until("ferry login ends", Duration::from_secs(60), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        while self.rest.read_line(&mut out).expect("text") > 0 {}
        let output = self.child.wait_with_output().expect("it ended");
        (output.status.code().unwrap_or(-1), out + &String::from_utf8_lossy(&output.stderr))
    }
}

/// A person lets a device in on the page, with and without a running daemon, and refuses a third.
#[test]
fn a_person_lets_devices_in_on_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path());
    let mut browser = Browser::new(&relay.url());
    browser.login();
    let mut with_daemon = Device::new(folder.path(), "alpha");
    with_daemon.start();
    let without = Device::new(folder.path(), "beta");
    let refused = Device::new(folder.path(), "gamma");
    for (device, decision) in [(&with_daemon, "approve"), (&without, "approve"), (&refused, "deny")] {
        let waiting = Waiting::begin(device, &relay);
        assert_eq!(waiting.shown["type"], "login_code");
        assert!(waiting.shown.get("device_code").is_none(), "the device's own code is not for the terminal");
        let page_at = waiting.shown["verification_uri_complete"].as_str().expect("an address");
        let path = page_at.strip_prefix(&relay.url()).expect("of this relay");
        let (status, _, page) = browser.get(path);
        let code = waiting.shown["user_code"].as_str().expect("a code").to_owned();
        assert!(status == 200 && page.contains(&code) && page.contains(device.name()), "{page}");
        let (status, _, done) = browser.post("/device", &page, &[("user_code", &code), ("decision", decision)]);
        assert_eq!(status, 200, "{done}");
        let (exit, text) = waiting.end();
        if decision == "approve" {
            assert!(exit == 0 && text.contains("\"type\":\"login\""), "{exit} {text}");
            assert!(device.ok(&["whoami", "--json"]).contains(EMAIL));
        } else {
            assert!(exit == 4 && text.contains("login_failed"), "{exit} {text}");
            assert_eq!(device.run(&["whoami"]).code, 4);
        }
    }
    with_daemon.add_new("docs");
    until("the daemon syncs with its new login", Duration::from_secs(60), || with_daemon.is_quiet());
    let log = std::fs::read_to_string(relay.log()).expect("a log");
    for secret in ["fdc_", "fws_", "frt_", PASSWORD] {
        assert!(!log.contains(secret), "{secret} in the relay's log");
    }
    with_daemon.stop();
}

/// The code of a second factor is asked for, given, and taken away by the operator.
#[test]
fn a_second_factor_is_typed_at_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path());
    let browser = Browser::new(&relay.url());
    let api = |path: &str, token: &str, body: Value| -> Value {
        let request = browser.client.post(format!("{}{path}", relay.url())).bearer_auth(token).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().expect("an answer");
        serde_json::from_str(&response.text().expect("text")).expect("JSON")
    };
    let token = api("/auth/login", "", json!({"email": EMAIL, "password": PASSWORD}))["access_token"].as_str().expect("a token").to_owned();
    let begun = api("/api/v1/me/totp", &token, json!({"password": PASSWORD}));
    let secret = totp_rs::Secret::try_from_base32(begun["secret"].as_str().expect("a secret")).expect("base 32");
    let app = totp_rs::Builder::new().with_secret(secret).build().expect("a second factor");
    let confirmed = api("/api/v1/me/totp/confirm", &token, json!({"code": app.generate_current().to_string()}));
    let recovery = confirmed["recovery_codes"][0].as_str().unwrap_or_else(|| panic!("{confirmed}")).to_owned();
    let device = Device::new(folder.path(), "alpha");
    let words = ["login", "--relay", &relay.url(), "--email", EMAIL, "--password-stdin", "--json"];
    let asked = device.run_with_input(&words, &format!("{PASSWORD}\n"));
    assert!(asked.code == 4 && asked.err.contains("mfa_required"), "{asked:?}");
    let wrong = device.run_with_input(&[&words[..], &["--code", "000000"]].concat(), &format!("{PASSWORD}\n"));
    assert_eq!(wrong.code, 4, "{wrong:?}");
    let right = device.run_with_input(&[&words[..], &["--code", &recovery]].concat(), &format!("{PASSWORD}\n"));
    assert_eq!(right.code, 0, "{right:?}");
    let reset = relay.run(&["user", "reset-totp", EMAIL]);
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    let free = device.run_with_input(&words, &format!("{PASSWORD}\n"));
    assert_eq!(free.code, 0, "{free:?}");
}
