//! The relay that is measured: one that runs already, or one that is started here and ends with us.

use super::Options;
use anyhow::{Result, bail, ensure};
use ferry_tests::postgres::Cluster;
use ferry_tests::redis::Redis;
use ferry_tests::relay::Relay;
use ferry_tests::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use serde_json::{Value, json};
use std::path::Path;

/// What a test's PostgreSQL leaves out, and a relay of people's files does not: what is committed is on the disk.
const DURABLE: [&str; 4] = ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=256MB"];

/// A relay, by the addresses of its processes.
pub struct Running {
    /// Where its processes listen.
    pub urls: Vec<String>,
    kind: String,
    // In this order: the relay ends before what it stands on.
    _relays: Vec<Relay>,
    _s3: Option<S3Server>,
    _redis: Option<Redis>,
    _database: Option<Cluster>,
    _dir: Option<tempfile::TempDir>,
}

impl Running {
    /// Starts what was asked for.
    pub fn start(options: &Options) -> Result<Self> {
        if !options.urls.is_empty() {
            let urls = options.urls.clone();
            return Ok(Self { urls, kind: "given".into(), _relays: Vec::new(), _s3: None, _redis: None, _database: None, _dir: None });
        }
        let (is_shared, has_s3) = match options.start.as_str() {
            "embedded" => (false, false),
            "s3" => (false, true),
            "shared" => (true, false),
            "cluster" => (true, true),
            _ => bail!("--start takes embedded, s3, shared or cluster"),
        };
        ensure!(is_shared || options.processes == 1, "several processes share a database: --start shared or cluster");
        let dir = tempfile::Builder::new().prefix("ferry-bench-").tempdir_in(&options.dir)?;
        let mut keys: Vec<(String, String)> = Vec::new();
        let mut env: Vec<(&str, String)> = Vec::new();
        let s3 = has_s3.then(|| S3Server::start(&dir.path().join("s3")));
        if let Some(s3) = &s3 {
            env.push(("FERRY_RELAY__BLOBS__URL", s3.blobs_url("bench")));
            env.push(("FERRY_RELAY__BLOBS__ACCESS_KEY", ACCESS_KEY.into()));
            env.push(("FERRY_RELAY__BLOBS__SECRET_KEY", SECRET_KEY.into()));
        } else if is_shared {
            std::fs::create_dir_all(dir.path().join("blobs"))?;
            env.push(("FERRY_RELAY__BLOBS__URL", format!("file://{}", dir.path().join("blobs").display())));
        }
        let settings: Vec<&str> = DURABLE.into_iter().chain(options.postgres.iter().map(String::as_str)).collect();
        let (database, redis) = (is_shared.then(|| Cluster::start_with(&settings)), is_shared.then(Redis::start));
        if let (Some(database), Some(redis)) = (&database, &redis) {
            env.push(("FERRY_RELAY__DATABASE__URL", database.database()));
            env.push(("FERRY_RELAY__REDIS__URL", redis.url()));
            std::fs::create_dir_all(dir.path().join("keys"))?;
            for (name, file) in [("JWT_KEY", "jwt.key"), ("GRANT_KEY", "grant.key"), ("SECRETS_KEY", "secrets.key")] {
                keys.push((format!("FERRY_RELAY__AUTH__{name}"), dir.path().join("keys").join(file).display().to_string()));
            }
        }
        env.extend(keys.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let relays = start_processes(dir.path(), options.processes, &env)?;
        let urls = relays.iter().map(Relay::url).collect();
        Ok(Self { urls, kind: options.start.clone(), _relays: relays, _s3: s3, _redis: redis, _database: database, _dir: Some(dir) })
    }

    /// What it is, for the record.
    pub fn describe(&self) -> Value {
        json!({"kind": self.kind, "processes": self.urls.len(), "build": if cfg!(debug_assertions) { "debug" } else { "release" }})
    }

    /// The process that this number gets.
    pub fn url(&self, number: usize) -> &str {
        &self.urls[number % self.urls.len()]
    }
}

/// The first one makes the user, the tables and the keys; the others find them.
fn start_processes(dir: &Path, number: usize, env: &[(&str, String)]) -> Result<Vec<Relay>> {
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut relays = Vec::new();
    for n in 0..number {
        let folder = dir.join(format!("process{n}"));
        std::fs::create_dir_all(&folder)?;
        relays.push(if n == 0 { Relay::start_with(&folder, &env) } else { Relay::start_another(&folder, &env) });
    }
    Ok(relays)
}
