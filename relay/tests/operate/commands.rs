//! Commands of the operator beside a running relay, and the documents that the program writes of itself.

use super::process::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

fn checks(data: &std::path::Path, env: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
    let output = program(data).args(["doctor", "--json"]).envs(env.iter().copied()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 6)), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    rows.iter().map(|r| (r["check"].as_str().unwrap().to_owned(), r["detail"].as_str().map(str::to_owned))).collect()
}

#[test]
fn the_doctor_asks_by_the_address_that_people_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    let public = format!("http://{}", relay.addr);
    let found = checks(&data, &[("FERRY_RELAY__PUBLIC_URL", &public)]);
    let fine = |what: &str| assert_eq!(found.get(what), Some(&None), "{what}: {found:?}");
    for what in
        ["database", "blobs", "stored chunks", "WebSocket through the proxy", "Host through the proxy", "large bodies through the proxy"]
    {
        fine(what);
    }
    fine(&format!("{public} leads to this relay"));
    assert!(found["backup"].as_deref().is_some_and(|d| d.contains("backup create")), "{found:?}");
    json(&data, &["backup", "create", "-o", dir.path().join("b").to_str().unwrap(), "--json"]);
    assert_eq!(checks(&data, &[])["backup"], None);
    // An address where another relay answers, and one where nobody does.
    let other = Relay::start(&dir.path().join("other"), &[]);
    let elsewhere = format!("http://{}", other.addr);
    let found = checks(&data, &[("FERRY_RELAY__PUBLIC_URL", &elsewhere)]);
    assert!(found[&elsewhere].as_deref().is_some_and(|d| d.contains("another program")), "{found:?}");
    drop(other);
    let found = checks(&data, &[("FERRY_RELAY__PUBLIC_URL", &elsewhere)]);
    assert!(found[&elsewhere].as_deref().is_some_and(|d| d.contains("cannot be reached")), "{found:?}");
}

#[test]
fn what_would_be_deleted_is_said_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    add_user(&data, EMAIL);
    add_user(&data, "bob@example.org");
    assert!(stdout(&run(&data, &["user", "delete", "bob@example.org", "--dry-run"])).contains("would delete bob@example.org"));
    assert_eq!(json(&data, &["user", "list", "--json"])["users"].as_array().unwrap().len(), 2);
}

#[test]
fn a_key_is_made_once_and_serves_two_processes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("shared.key");
    let words = ["keygen", "-o", key.to_str().unwrap()];
    stdout(&run(dir.path(), &words));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(dir.path(), &words).status.code(), Some(8));
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[("FERRY_RELAY__AUTH__JWT_KEY", key.to_str().unwrap())]);
    relay.login();
    assert!(!data.join("jwt.key").exists() || std::fs::read(data.join("jwt.key")).unwrap() != std::fs::read(&key).unwrap());
}

/// A secret that the service manager hands over is used, and never shown.
#[test]
fn credentials_of_the_service_manager_are_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let (data, credentials) = (dir.path().join("data"), dir.path().join("credentials"));
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("metrics_token"), "of-the-manager\n").unwrap();
    let env = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let relay = Relay::start(&data, &env);
    assert_eq!(get(relay.admin, "/metrics").unwrap().status, 401);
    let asked = ask(relay.admin, "GET", "/metrics", "Authorization: Bearer of-the-manager\r\n", b"").unwrap();
    assert_eq!(asked.status, 200);
    let printed = program(&data).args(["config", "print"]).envs(env).output().unwrap();
    let printed = stdout(&printed);
    assert!(printed.contains("# credential metrics_token") && !printed.contains("of-the-manager"), "{printed}");
    let wrong = dir.path().join("relay.toml");
    std::fs::write(&wrong, "[admin]\nlisen = \"x\"\n").unwrap();
    let output = run(&data, &["config", "validate", "--json", "--config", wrong.to_str().unwrap()]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["exit_code"], 2);
    assert!(error["message"].as_str().unwrap().contains("relay.toml:2:1: unknown field `lisen`"), "{error}");
}

#[test]
fn pages_and_completions_are_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    stdout(&run(dir.path(), &["man", "-o", pages.to_str().unwrap()]));
    let mut count = 0;
    for page in std::fs::read_dir(&pages).unwrap() {
        let page = page.unwrap().path();
        // Style is the generator's; what a reader would stumble over is an error.
        let output = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page).output().expect("mandoc is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        count += 1;
    }
    assert!(count > 20 && pages.join("ferry-relay-backup-create.1").exists(), "a page for each command");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(dir.path(), &["completion", shell]));
        assert!(script.contains("backup") && script.contains("ferry-relay"));
        if shell == "bash" {
            let file = dir.path().join("completion");
            std::fs::write(&file, script).unwrap();
            let loads = Command::new("bash")
                .args(["--norc", "-c", "source \"$0\" && complete -p ferry-relay"])
                .arg(&file)
                .stdin(Stdio::null())
                .output();
            let loads = loads.expect("bash is there");
            assert!(loads.status.success(), "{}", String::from_utf8_lossy(&loads.stderr));
        }
    }
}
