//! The audit log of a running relay: who did what to whom, by which way and from where; and that nobody rewrites it.

use super::process::*;
use serde_json::{Value, json};
use std::process::Command;

fn entries(data: &std::path::Path, words: &[&str]) -> Vec<Value> {
    let all = [&["audit", "list", "--json"][..], words].concat();
    json(data, &all)["entries"].as_array().unwrap().clone()
}

#[test]
fn the_audit_log_says_who_did_what_to_whom_and_from_where() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[("FERRY_RELAY__TRUSTED_PROXIES", "127.0.0.1")]);
    let token = relay.login();
    let me = relay.call("GET", "/auth/me", &token, None).json()["user_id"].clone();
    let headers = format!("Authorization: Bearer {token}\r\nX-Forwarded-For: 203.0.113.9\r\nContent-Type: application/json\r\n");
    let body = json!({"email": "bob@example.org", "password": PASSWORD}).to_string();
    let added = ask(relay.addr, "POST", "/api/v1/admin/users", &headers, body.as_bytes()).unwrap();
    assert_eq!(added.status, 201, "{}", added.text());
    let bob = added.json()["user_id"].clone();
    stdout(&run(&data, &["user", "disable", "bob@example.org"]));
    let wrong = json!({"email": "bob@example.org", "password": "no"});
    assert_eq!(relay.call("POST", "/auth/login", "none", Some(&wrong)).status, 401);

    let about_bob = entries(&data, &["--user", "bob@example.org"]);
    let event = |name: &str| about_bob.iter().find(|e| e["event"] == name).unwrap_or_else(|| panic!("no {name} in {about_bob:?}"));
    let added = event("user.added");
    assert_eq!((&added["actor_id"], &added["via"], &added["remote_ip"]), (&me, &json!("http"), &json!("203.0.113.9")), "{added}");
    let changed = event("user.changed");
    assert_eq!((&changed["actor_id"], &changed["via"], &changed["remote_ip"]), (&Value::Null, &json!("cli"), &Value::Null), "{changed}");
    assert_eq!((&event("login.failed")["user_id"], &event("login.failed")["actor_id"]), (&bob, &Value::Null));
    // The same by HTTP, for an administrator only.
    let by_http = relay.call("GET", "/api/v1/admin/audit?limit=1000", &token, None).json();
    let found = by_http["entries"].as_array().unwrap().iter().any(|e| e["event"] == "user.added" && e["actor_id"] == me);
    assert!(found, "{by_http}");
    assert_eq!(ask(relay.addr, "GET", "/api/v1/admin/audit", "", b"").unwrap().status, 401);

    // Handed on: all of it, each line whole.
    let lines = stdout(&run(&data, &["audit", "export"]));
    let all = entries(&data, &["--limit", "1000"]);
    let exported: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(exported, all);
    let file = dir.path().join("audit.csv");
    stdout(&run(&data, &["audit", "export", "--format", "csv", "--since", "1h", "-o", file.to_str().unwrap()]));
    let csv = std::fs::read_to_string(&file).unwrap();
    assert_eq!(csv.lines().count(), all.len() + 1);
    assert!(csv.starts_with("at,event,user_id,actor_id,via,device_id,remote_ip,detail\n") && csv.contains(",203.0.113.9,"), "{csv}");
    assert_eq!(run(&data, &["audit", "export", "-o", file.to_str().unwrap()]).status.code(), Some(1), "nothing is overwritten");
    assert!(entries(&data, &["--since", "2999-01-01T00:00:00Z"]).is_empty());
    assert_eq!(run(&data, &["audit", "list", "--since", "soon"]).status.code(), Some(2));
    assert!(!lines.contains(PASSWORD) && !lines.contains(&token));

    // Whoever has the database cannot rewrite it by accident.
    for statement in ["UPDATE audit SET event = 'nothing'", "DELETE FROM audit"] {
        let output = Command::new("sqlite3").arg(data.join("relay.db")).arg(statement).output().expect("sqlite3 is there");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("append only"), "{statement}: {said}");
    }
    assert_eq!(entries(&data, &["--limit", "1000"]), all);
}
