//! `ferry-relay doctor`: looks for what commonly goes wrong, and says how to mend it. It changes nothing.

use super::operate::{HEALTH_TIMEOUT, get, local_url};
use super::{Failure, Global, Outcome, show};
use crate::backup::create::LAST_SUCCESS;
use crate::config::Config;
use crate::lock::DataLock;
use crate::telemetry::free_bytes;
use crate::{App, prepare_data_dir};
use serde_json::{Value, json};
use std::path::Path;

/// Below this the doctor warns, in bytes.
const FREE_MIN_BYTES: u64 = 1 << 30;
/// Below so many open files the doctor warns.
const OPEN_FILES_MIN: u64 = 4096;
/// Older than this a backup is no comfort, in milliseconds.
const BACKUP_MAX_AGE_MS: i64 = 7 * 24 * 3600 * 1000;
/// A body larger than what proxies let through by default (nginx: 1 MiB), in bytes.
const LARGE_BODY_BYTES: usize = 5 << 20;

/// One finding: what was looked at, and what to do when it is not in order.
struct Finding {
    what: String,
    mend: Option<String>,
}

/// What was found, in the order in which it was looked at.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn note(&mut self, what: impl Into<String>, result: Result<(), String>) {
        self.0.push(Finding { what: what.into(), mend: result.err() });
    }
}

pub(super) async fn doctor(global: &Global) -> Outcome {
    let config = global.load_beside()?;
    let mut findings = Findings::default();
    findings.note("configuration", Ok(()));
    findings.note(format!("data directory {}", config.data.display()), prepare_data_dir(&config.data).map_err(|e| e.to_string()));
    let running = DataLock::is_held(&config.data);
    findings.note(format!("relay {}", if running { "is running" } else { "is not running" }), Ok(()));
    let relay_id = stores(&config, &mut findings).await?;
    findings.note("free space", free_space(&config.data));
    findings.note("open files", open_files());
    findings.note("public_url", public_url(&config));
    if running {
        let url = local_url(&config)?;
        findings.note(format!("answer of {url}"), answers(&url).await);
        if let (Some(relay_id), false) = (relay_id, config.public_url.is_empty()) {
            through_proxy(&config, &relay_id, &mut findings).await;
        }
    }
    report(global, &findings.0)
}

/// Opens the stores and looks into them; the relay's id, if they can be opened.
async fn stores(config: &Config, findings: &mut Findings) -> Result<Option<String>, Failure> {
    let app = match App::open(config).await {
        Ok(app) => app,
        Err(error) => {
            findings.note("stores", Err(error.to_string()));
            return Ok(None);
        }
    };
    for (name, check) in app.readiness().await {
        findings.note(name, check.into_result());
    }
    findings.note("database integrity", app.db.integrity().await.map_err(|e| e.to_string()));
    let set_up = app.accounts.is_set_up().await?;
    findings.note("administrator", if set_up { Ok(()) } else { Err("none yet; run: ferry-relay user add EMAIL --admin".into()) });
    let damaged = app.content.storage_totals().await?.damaged_chunks;
    let sound = if damaged == 0 {
        Ok(())
    } else {
        Err(format!(
            "{damaged} are damaged; run: ferry-relay storage verify --read-data, and restore the chunk directory or let devices send again"
        ))
    };
    findings.note("stored chunks", sound);
    let last = app.accounts.setting(LAST_SUCCESS).await?.and_then(|text| text.parse::<i64>().ok());
    findings.note("backup", backup_age(last, app.clock.now_ms()));
    let relay_id = app.accounts.relay_id().to_owned();
    app.close().await;
    Ok(Some(relay_id))
}

fn backup_age(last_ms: Option<i64>, now_ms: i64) -> Result<(), String> {
    match last_ms {
        None => Err("none yet; run: ferry-relay backup create -o DIR".into()),
        Some(at) if now_ms - at > BACKUP_MAX_AGE_MS => {
            Err(format!("the newest is of {}; run: ferry-relay backup create -o DIR", crate::http::time_text(at)))
        }
        Some(_) => Ok(()),
    }
}

fn free_space(path: &Path) -> Result<(), String> {
    match free_bytes(path) {
        Some(free) if free < FREE_MIN_BYTES => Err(format!("only {free} bytes are free in {}; make room", path.display())),
        Some(_) => Ok(()),
        None => Err(format!("cannot tell how much is free in {}", path.display())),
    }
}

fn open_files() -> Result<(), String> {
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(most) if most < OPEN_FILES_MIN => {
            Err(format!("this session allows {most}; a relay with many devices needs more: LimitNOFILE=65536 in its unit, or ulimit -n"))
        }
        _ => Ok(()),
    }
}

fn public_url(config: &Config) -> Result<(), String> {
    if config.public_url.is_empty() {
        return Err(format!("not set: links will use {}; set public_url to the address that people use", config.base_url()));
    }
    if config.public_url.starts_with("http://") && !config.public_url.contains("localhost") && !config.public_url.contains("127.0.0.1") {
        return Err("it is not encrypted: passwords cross the network in clear; put TLS in front, or set tls.cert and tls.key".into());
    }
    Ok(())
}

async fn answers(url: &str) -> Result<(), String> {
    let answer = tokio::time::timeout(HEALTH_TIMEOUT, get(url, "/readyz")).await.unwrap_or_else(|_| Err("no answer in 5 s".into()));
    match answer {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => Err(format!("status {status}: {body}")),
        Err(why) => Err(format!("{why}; is `listen` the address that the relay was started with?")),
    }
}

/// Asks the relay by the address that people use, as a device would: what a proxy takes away on the way is found here.
async fn through_proxy(config: &Config, relay_id: &str, findings: &mut Findings) {
    crate::install_tls_provider();
    let base = config.base_url();
    let client = match reqwest::Client::builder().timeout(HEALTH_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build() {
        Ok(client) => client,
        Err(e) => return findings.note(base, Err(e.to_string())),
    };
    let server = async { client.get(format!("{base}/api/v1/server")).send().await?.json::<Value>().await };
    match server.await {
        Err(e) => return findings.note(base, Err(format!("cannot be reached from here: {}", root_cause(&e)))),
        Ok(server) if server["relay_id"] != relay_id => {
            return findings
                .note(base, Err("it leads to another program than this relay; look at the proxy's upstream and at public_url".into()));
        }
        Ok(_) => findings.note(format!("{base} leads to this relay"), Ok(())),
    }
    let seen = async {
        let asked = client.get(format!("{base}/healthz")).header("connection", "Upgrade").header("upgrade", "websocket").send();
        asked.await?.json::<Value>().await
    };
    match seen.await {
        Err(e) => findings.note("WebSocket through the proxy", Err(root_cause(&e))),
        Ok(answer) => {
            let seen = &answer["seen"];
            findings.note("WebSocket through the proxy", upgrade_arrives(seen));
            let host = base.split("://").nth(1).unwrap_or_default();
            findings.note(
                "Host through the proxy",
                if seen["host"] == host {
                    Ok(())
                } else {
                    Err(format!("the relay is asked for {}, not for {host}. nginx: proxy_set_header Host $http_host;", seen["host"]))
                },
            );
        }
    }
    let large = client.post(format!("{base}/auth/login")).header("content-type", "application/json").body(vec![b' '; LARGE_BODY_BYTES]);
    let result = match large.send().await {
        // The relay itself refuses it, in its own words; a proxy that does has others.
        Ok(answer) if answer.headers().get("content-type").is_some_and(|t| t == "application/problem+json") => Ok(()),
        Ok(answer) => Err(format!("a body of 5 MiB is answered with {} by the proxy. nginx: client_max_body_size 70m;", answer.status())),
        // The relay may answer and close while the body is still on its way.
        Err(e) if e.is_body() || e.is_request() => Ok(()),
        Err(e) => Err(root_cause(&e)),
    };
    findings.note("large bodies through the proxy", result);
}

fn upgrade_arrives(seen: &Value) -> Result<(), String> {
    if seen["upgrade"] == true {
        return Ok(());
    }
    Err("the proxy does not forward Upgrade, so that devices hear of changes late. nginx, inside location /ws/: proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";"
        .into())
}

/// The innermost reason of a failure: what a person can act on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(below) = at.source() {
        at = below;
    }
    at.to_string()
}

fn report(global: &Global, findings: &[Finding]) -> Outcome {
    let lines: Vec<String> = findings
        .iter()
        .map(|f| match &f.mend {
            None => format!("✓ {}", f.what),
            Some(mend) => format!("✗ {}\n    {mend}", f.what),
        })
        .collect();
    let rows: Vec<_> = findings.iter().map(|f| json!({"check": f.what, "ok": f.mend.is_none(), "detail": f.mend})).collect();
    show(global, lines.join("\n"), &json!({"checks": rows}));
    match findings.iter().filter(|f| f.mend.is_some()).count() {
        0 => Ok(()),
        count => Err(Failure::new(6, "findings", format!("{count} of {} checks found something", findings.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_wanted_now_and_then() {
        assert!(backup_age(None, 0).unwrap_err().contains("backup create"));
        assert!(backup_age(Some(0), BACKUP_MAX_AGE_MS).is_ok());
        assert!(backup_age(Some(0), BACKUP_MAX_AGE_MS + 1).is_err());
    }
}
