//! What watches a relay finds what it looks for: metrics of the dashboard and the alerts, and the log's fields in the index.

use super::process::*;
use ferry_relay::telemetry::{FIGURES, Kind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A little of everything: users, uploads, the same content again, a download, a socket, failures.
fn workload(relay: &Relay) -> String {
    let token = relay.login();
    let wrong = json!({"email": EMAIL, "password": "not the password"});
    assert_eq!(relay.call("POST", "/auth/login", "none", Some(&wrong)).status, 401);
    let user = relay.call("GET", "/auth/me", &token, None).json()["user_id"].as_str().unwrap().to_owned();
    let mut socket = websocket(relay.addr, &user, &token);
    assert_eq!(frame(&mut socket).0, 1);
    let file = relay.upload(&token, "a very private name.txt", b"content that nobody else reads");
    relay.upload(&token, "another private name.txt", b"more of it");
    assert_eq!(frame(&mut socket).0, 1, "word of the change");
    assert_eq!(relay.call("GET", &format!("/download/{file}"), &token, None).text(), "content that nobody else reads");
    assert_eq!(relay.call("GET", "/sync/delta?since=0", &token, None).status, 200);
    assert_eq!(relay.call("GET", "/no/such/path", &token, None).status, 404);
    // A word of the caller's choice is no label.
    assert_eq!(ask(relay.addr, "BREW", "/auth/me", "", b"").unwrap().status, 405);
    token
}

fn scrape(relay: &Relay) -> String {
    let answer = get(relay.admin, "/metrics").unwrap();
    assert_eq!(answer.status, 200);
    answer.text()
}

/// The names that a text of Prometheus' format has samples of, histograms by their own name.
fn exported(text: &str) -> BTreeSet<String> {
    let histograms: BTreeSet<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    let samples = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    samples
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            base.filter(|base| histograms.contains(base)).unwrap_or(name).to_owned()
        })
        .collect()
}

/// The metrics of ours that an expression asks for.
fn asked_for(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = words.filter(|w| w.starts_with("ferry_relay_") || w.starts_with("process_"));
    ours.map(|name| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_histogram = |n: &&str| FIGURES.iter().any(|f| f.name == *n && f.kind == Kind::Histogram);
        base.filter(is_histogram).unwrap_or(name).to_owned()
    })
    .collect()
}

/// Every expression of the dashboard.
fn expressions(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" => out.push(text.to_owned()),
                    _ => expressions(value, out),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| expressions(v, out)),
        _ => {}
    }
}

#[test]
fn every_metric_that_is_watched_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(&dir.path().join("data"), &[]);
    workload(&relay);
    let text = scrape(&relay);
    let found = exported(&text);
    let mut watched = BTreeMap::new();
    let mut panels = Vec::new();
    expressions(&serde_json::from_str(&read("grafana/ferry-relay.json")).unwrap(), &mut panels);
    assert!(panels.len() > 30, "the dashboard has panels");
    for expression in panels {
        watched.extend(asked_for(&expression).into_iter().map(|name| (name, "the dashboard")));
    }
    watched.extend(asked_for(&read("prometheus/ferry-relay.rules.yml")).into_iter().map(|name| (name, "the rules")));
    let lacking: Vec<_> = watched.iter().filter(|(name, _)| !found.contains(*name)).collect();
    assert!(lacking.is_empty(), "watched, and not exported: {lacking:?}\n{text}");
    // What is exported is described, and what is described is exported.
    let described: BTreeSet<String> = FIGURES.iter().map(|f| f.name.to_owned()).collect();
    assert_eq!(found, described, "{text}");
    // TM2: nothing of a user's is a label, nor what a caller made up.
    for private in ["private name", EMAIL, "BREW", "/no/such/path"] {
        assert!(!text.contains(private), "{private}");
    }
    let is_id = |word: &str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(!text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_id), "{text}");
    assert!(text.contains("route=\"/download/{file_id}\"") && text.contains("service=\"download\""), "{text}");
}

#[test]
fn promtool_accepts_configuration_and_rules() {
    let promtool = |words: &[&str], file: &str| {
        let mut command = Command::new("promtool");
        let output = command.args(words).arg(deploy(file)).output().expect("promtool (Debian package prometheus) is there");
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    };
    promtool(&["check", "config"], "prometheus/prometheus.yml");
    promtool(&["check", "rules", "--lint-fatal"], "prometheus/ferry-relay.rules.yml");
    promtool(&["test", "rules"], "prometheus/ferry-relay.test.yml");
}

/// Each alert has a test of its own and a paragraph for whoever it wakes.
#[test]
fn every_alert_is_tested_and_explained() {
    let rules = read("prometheus/ferry-relay.rules.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    let tests = read("prometheus/ferry-relay.test.yml");
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md")).unwrap();
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
        assert!(docs.contains(&format!("`{alert}`")), "docs/OPERATIONS.md does not explain {alert}");
    }
}

/// What the pipeline's renames make of a line: Elasticsearch's `rename`, `remove` and `date`, no more.
fn through_pipeline(line: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    flatten("ferry", line, &mut fields);
    let pipeline: Value = serde_json::from_str(&read("filebeat/ingest-pipeline.json")).unwrap();
    for processor in pipeline["processors"].as_array().unwrap() {
        let (kind, settings) = processor.as_object().unwrap().iter().next().unwrap();
        let field = settings["field"].as_str().unwrap();
        match kind.as_str() {
            "date" => {
                let at = fields[field].as_str().unwrap().to_owned();
                at.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("{at}: {e}"));
                fields.insert(settings["target_field"].as_str().unwrap().into(), at.into());
            }
            "remove" => fields.retain(|name, _| name != field && !name.starts_with(&format!("{field}."))),
            "rename" => {
                let Some(value) = fields.remove(field) else {
                    assert_eq!(settings["ignore_missing"], true, "{field} is not always there");
                    continue;
                };
                let target = settings["target_field"].as_str().unwrap();
                let before = fields.insert(target.into(), value);
                assert!(before.is_none() || settings["override"] == true, "{target} is there already");
            }
            other => panic!("the pipeline has a processor that this test does not know: {other}"),
        }
    }
    fields
}

fn flatten(above: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{above}.{key}"), value, out)),
        Value::Null => {}
        other => _ = out.insert(above.to_owned(), other.clone()),
    }
}

/// The mapped fields of the index with their types.
fn mapped(properties: &Value, above: &str, out: &mut BTreeMap<String, String>) {
    for (name, field) in properties.as_object().unwrap() {
        let full = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match field["type"].as_str() {
            Some(kind) => _ = out.insert(full, kind.to_owned()),
            None => mapped(&field["properties"], &full, out),
        }
    }
}

#[test]
fn every_field_of_the_log_has_its_place_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    let token = workload(&relay);
    let given = ask(relay.addr, "GET", "/healthz", "X-Request-Id: of-the-proxy-1\r\n", b"").unwrap();
    assert!(given.head.to_ascii_lowercase().contains("x-request-id: of-the-proxy-1"), "{}", given.head);
    let forged = ask(relay.addr, "GET", "/healthz", "X-Request-Id: a b\"c\r\n", b"").unwrap();
    assert!(!forged.head.contains("a b\"c"), "{}", forged.head);
    relay.call("POST", "/auth/logout", &token, None);
    relay.term();
    let log = relay.log.clone();
    relay.ends_well();
    let log = std::fs::read_to_string(log).unwrap();
    let template: Value = serde_json::from_str(&read("filebeat/index-template.json")).unwrap();
    let mut types = BTreeMap::new();
    mapped(&template["template"]["mappings"]["properties"], "", &mut types);
    let (mut requests, mut audited) = (Vec::new(), Vec::new());
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let fields = through_pipeline(&line);
        for (name, value) in &fields {
            let Some(kind) = types.get(name) else { panic!("{name} has no place in the index: {line}") };
            let fits = match kind.as_str() {
                "long" | "short" => value.is_i64() || value.is_u64(),
                "double" => value.is_number(),
                "boolean" => value.is_boolean(),
                "ip" => value.as_str().is_some_and(|v| v.parse::<std::net::IpAddr>().is_ok()),
                _ => value.is_string(),
            };
            assert!(fits, "{name} is {value}, the index has it as {kind}: {line}");
        }
        match line["target"].as_str() {
            Some("ferry_relay::request") => requests.push(fields),
            Some("ferry_relay::audit") => audited.push(fields),
            _ => {}
        }
    }
    let me = requests.iter().find(|r| r["ferry.route"] == "/auth/me" && r["http.response.status_code"] == 200).expect("a line of /auth/me");
    assert!(me["user.id"].is_string() && me["http.response.body.bytes"].as_u64() > Some(20) && me["service.name"] == "auth", "{me:?}");
    let download = requests.iter().find(|r| r["ferry.route"] == "/download/{file_id}").expect("a line of the download");
    assert_eq!(download["http.response.body.bytes"], "content that nobody else reads".len(), "the bytes that went out");
    assert!(requests.iter().any(|r| r["http.request.id"] == "of-the-proxy-1"));
    let events: BTreeSet<&str> = audited.iter().filter_map(|a| a["ferry.event"].as_str()).collect();
    assert!(["login", "login.failed", "logout"].iter().all(|e| events.contains(e)), "{events:?}");
    // R65: what may not be in a log.
    for secret in ["private name", "nobody else reads", PASSWORD, "not the password", &token, token.split('.').nth(2).unwrap()] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}

/// The caller of a request that failed has its id; under it the operator finds the reason, which the caller does not learn.
#[test]
fn a_failure_is_found_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let relay = Relay::start(&data, &[]);
    let token = relay.login();
    std::fs::remove_dir_all(data.join("blobs")).unwrap();
    let content = b"nowhere to go";
    let init = json!({"file_name": "f", "file_size": content.len(), "file_hash": ferry_protocol::ContentHash::of(content).to_string()});
    let version = relay.call("POST", "/upload/init", &token, Some(&init)).json()["version_id"].as_str().unwrap().to_owned();
    let headers = format!("Content-Type: application/octet-stream\r\nAuthorization: Bearer {token}\r\n");
    let failed = ask(relay.addr, "PUT", &format!("/upload/{version}/chunks/0"), &headers, content).unwrap();
    assert_eq!(failed.status, 503, "{}", failed.text());
    let id = failed.json()["request_id"].as_str().unwrap().to_owned();
    assert!(!failed.text().contains("No such file"), "{}", failed.text());
    let log = std::fs::read_to_string(&relay.log).unwrap();
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let reason =
        lines.iter().find(|l| l["span"]["request_id"] == id.as_str() && l["message"] == "request failed").expect("a line with the reason");
    assert!(reason["source"].as_str().is_some_and(|s| s.contains("No such file")), "{reason}");
    // Not ready, and it says why to the operator only.
    assert_eq!(get(relay.addr, "/readyz").unwrap().json()["checks"]["blobs"], json!({"ok": false}));
    let why = get(relay.admin, "/readyz").unwrap().json();
    assert!(why["checks"]["blobs"]["detail"].is_string() && get(relay.addr, "/healthz").unwrap().status == 200, "{why}");
}

#[test]
fn filebeat_reads_what_the_relay_writes() {
    let filebeat = read("filebeat/filebeat.yml");
    // The fields of a line go below the name that the pipeline takes them from.
    assert!(filebeat.matches("target: \"ferry\"").count() == 2 && filebeat.contains("pipeline: ferry-relay"));
    let template: Value = serde_json::from_str(&read("filebeat/index-template.json")).unwrap();
    assert_eq!(template["index_patterns"], json!(["ferry-relay-*"]));
    assert!(filebeat.contains("index: \"ferry-relay-%{"));
}
