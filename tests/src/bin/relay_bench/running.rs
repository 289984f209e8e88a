//! The relay that is measured: one that runs already, or one that is started here and ends with us.

use super::Options;
use anyhow::{Result, bail};
use ferry_tests::relay::Relay;
use ferry_tests::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use serde_json::{Value, json};

/// A relay, by the addresses of its processes.
pub struct Running {
    /// Where its processes listen.
    pub urls: Vec<String>,
    kind: String,
    // In this order: the relay ends before what it stands on.
    _relay: Option<Relay>,
    _s3: Option<S3Server>,
    _dir: Option<tempfile::TempDir>,
}

impl Running {
    /// Starts what was asked for.
    pub fn start(options: &Options) -> Result<Self> {
        if !options.urls.is_empty() {
            return Ok(Self { urls: options.urls.clone(), kind: "given".into(), _relay: None, _s3: None, _dir: None });
        }
        let dir = tempfile::tempdir_in(&options.dir)?;
        let s3 = (options.start == "s3").then(|| S3Server::start(&dir.path().join("s3")));
        let blobs = s3.as_ref().map(|s3| s3.blobs_url("bench"));
        let env: Vec<(&str, &str)> = match (options.start.as_str(), &blobs) {
            ("embedded", _) => vec![],
            ("s3", Some(url)) => vec![
                ("FERRY_RELAY__BLOBS__URL", url),
                ("FERRY_RELAY__BLOBS__ACCESS_KEY", ACCESS_KEY),
                ("FERRY_RELAY__BLOBS__SECRET_KEY", SECRET_KEY),
            ],
            _ => bail!("--start takes embedded or s3"),
        };
        let relay = Relay::start_with(dir.path(), &env);
        Ok(Self { urls: vec![relay.url()], kind: options.start.clone(), _relay: Some(relay), _s3: s3, _dir: Some(dir) })
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
