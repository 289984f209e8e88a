//! R39-R43: public links by the command line, used by somebody without an account; and that no log and no database tells an address.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::device::{Answer, Device};
use serde_json::Value;
use std::path::Path;

const PASSWORD: &str = "open sesame";

/// The path of an address, on the relay as the test reaches it.
fn at(cluster: &Cluster, link: &Value, end: &str) -> String {
    let url = link["url"].as_str().expect("an address");
    let path = &url[url.find("/s/").expect("a link's address")..];
    format!("{}{path}{end}", cluster.relay.url())
}

fn fetched(client: &reqwest::blocking::Client, url: &str) -> (u16, Vec<u8>) {
    let answer = client.get(url).send().expect("the relay answers");
    (answer.status().as_u16(), answer.bytes().expect("a body").to_vec())
}

fn share(device: &Device, words: &[&str], input: &str) -> Answer {
    device.run_with_input(&[&["share", "link"], words].concat(), input)
}

fn made(device: &Device, path: &Path, words: &[&str], input: &str) -> Value {
    let path = path.display().to_string();
    let answer = share(device, &[&["create", &path, "--json"], words].concat(), input);
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    serde_json::from_str::<Value>(&answer.out).expect("JSON")["link"].take()
}

fn listed(device: &Device, words: &[&str]) -> Vec<Value> {
    let answer = share(device, &[&["list", "--json"], words].concat(), "");
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    serde_json::from_str::<Value>(&answer.out).expect("JSON")["links"].as_array().expect("a list").clone()
}

/// Everything that the relay's database and its log hold.
fn kept(cluster: &Cluster) -> Vec<u8> {
    let mut all = std::fs::read(cluster.relay.log()).expect("a log");
    all.extend(cluster.relay.database_bytes());
    all
}

#[test]
fn r43_links_are_made_used_and_ended_and_no_address_is_kept() {
    let mut cluster = Cluster::new(1);
    let dir = cluster.devices[0].path("d");
    put(&dir, "plan.odt", 1);
    put(&dir, "deep/er/x", 2);
    put(&dir, "other", 3);
    cluster.settle();
    let device = &cluster.devices[0];
    // A second call finds the first and that is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client =
        reqwest::blocking::Client::builder().user_agent("guest/1").redirect(reqwest::redirect::Policy::none()).build().expect("a client");

    let plain = made(device, &dir.join("plan.odt"), &["--expires", "7d", "--max-downloads", "1"], "");
    assert_eq!((&plain["max_downloads"], &plain["has_password"], &plain["state"]), (&1.into(), &false.into(), &"active".into()));
    assert!(plain["expires_at"].is_string() && plain["absolute"].as_str().is_some_and(|p| p.ends_with("/d/plan.odt")), "{plain}");
    assert_eq!(fetched(&client, &at(&cluster, &plain, "/raw/plan.odt")), (200, bytes(&dir, 1)));
    assert_eq!(fetched(&client, &at(&cluster, &plain, "/raw/other")).0, 404);

    let folder = made(device, &dir.join("deep"), &["--password-stdin"], &format!("{PASSWORD}\n"));
    assert_eq!(fetched(&client, &at(&cluster, &folder, "/raw/er/x")).0, 401);
    let form = format!("password={}", PASSWORD.replace(' ', "+"));
    let unlock = client.post(at(&cluster, &folder, "/unlock")).header("content-type", "application/x-www-form-urlencoded").body(form);
    let unlocked = unlock.send().expect("the relay answers");
    let cookie = unlocked.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
    let got = client.get(at(&cluster, &folder, "/raw/er/x")).header("cookie", &cookie).send().expect("the relay answers");
    assert_eq!((got.status().as_u16(), got.bytes().expect("a body").to_vec()), (200, bytes(&dir, 2)));

    // What the relay does not have yet, and what is in no folder, is told apart.
    let outside = share(device, &["create", "/etc/hostname"], "");
    assert_eq!((outside.code, outside.err.contains("in no synced folder")), (7, true), "{}", outside.err);
    let missing = share(device, &["create", &dir.join("missing").display().to_string()], "");
    assert_eq!((missing.code, missing.err.contains("not on the relay")), (7, true), "{}", missing.err);

    assert_eq!(listed(device, &[]).len(), 2);
    assert_eq!(listed(device, &[&dir.join("deep").display().to_string()]).len(), 1);
    assert_eq!(listed(device, &[&dir.display().to_string()]).len(), 2);
    let url = plain["url"].as_str().expect("an address");
    let shown = share(device, &["show", url, "--qr"], "");
    assert!(
        shown.code == 0 && shown.out.starts_with(url) && shown.out.contains("1 of 1 downloads") && shown.out.contains('█'),
        "{}",
        shown.out
    );
    let edited = share(device, &["edit", url, "--no-limit", "--no-expiry", "--json"], "");
    let edited: Value = serde_json::from_str(&edited.out).expect("JSON");
    assert_eq!((&edited["link"]["max_downloads"], &edited["link"]["expires_at"]), (&Value::Null, &Value::Null));
    assert_eq!(share(device, &["edit", url], "").code, 2);
    assert_eq!(share(device, &["revoke", url, "https://x/s/none"], "").code, 7, "and nothing ended");
    assert_eq!(fetched(&client, &at(&cluster, &plain, "/raw/plan.odt")).0, 200);
    assert_eq!(share(device, &["revoke", url], "").code, 0);
    assert_eq!(fetched(&client, &at(&cluster, &plain, "/raw/plan.odt")).0, 410);
    assert_eq!(listed(device, &[]).len(), 1);

    let kept = kept(&cluster);
    for link in [&plain, &folder] {
        let token = link["url"].as_str().expect("an address").rsplit('/').next().expect("a secret").to_owned();
        assert!(!kept.windows(token.len()).any(|w| w == token.as_bytes()), "R43, R65: an address stands in the log or the database");
    }
    assert!(!kept.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "R65: a password stands in the log or the database");
    cluster.finish();
}
