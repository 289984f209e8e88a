//! Where chunks are kept: one store, or several under names (regions), each a directory or an S3 bucket.

use super::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of the store that `blobs.url` names.
pub const DEFAULT_REGION: &str = "default";
/// Longest name of a region, in bytes.
const REGION_NAME_MAX_BYTES: usize = 32;
/// What S3 servers without regions expect.
const S3_REGION_DEFAULT: &str = "us-east-1";

/// Where chunks are kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blobs {
    /// `file:///PATH`, or `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`; not set: `blobs` in the data directory.
    pub url: String,
    /// The id of the S3 key; not set: `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// The secret of the S3 key; not set: `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: String,
    /// The token of a temporary S3 key; not set: `AWS_SESSION_TOKEN`, if the key comes from the environment.
    pub session_token: String,
    /// The region in which packs of users without a region of their own are written; not set: `default`, the store that `url` names.
    pub home: String,
    /// Regions in the order in which this process reads from them: the nearest first. Those that are missing come after.
    pub prefer: Vec<String>,
    /// Give clients addresses under which they read chunks from the bucket itself, each for five minutes. The bucket must be reachable for them.
    pub presign: bool,
    /// How long a chunk that was sent waits for the commit that names it, and one that nothing names any more until it is deleted, in hours. Who goes on
    /// with an upload within half of that holds what has arrived, however long it takes.
    pub grace_hours: u32,
    /// More stores, by name.
    pub regions: BTreeMap<String, BlobRegion>,
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            url: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
            session_token: String::new(),
            home: String::new(),
            prefer: Vec::new(),
            presign: false,
            grace_hours: 24,
            regions: BTreeMap::new(),
        }
    }
}

/// One more store. A key that is not set is that of `blobs`.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobRegion {
    /// As `blobs.url`.
    pub url: String,
    /// The id of the S3 key.
    pub access_key: String,
    /// The secret of the S3 key.
    pub secret_key: String,
    /// The token of a temporary S3 key.
    pub session_token: String,
}

impl fmt::Debug for BlobRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobRegion").field("url", &self.url).finish_non_exhaustive()
    }
}

// A key must not reach a log by way of a debug print.
impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("url", &self.url).field("regions", &self.regions).finish_non_exhaustive()
    }
}

/// A blob store, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobPlace {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Place),
}

/// A bucket, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; empty, or with a `/` at its end.
    pub prefix: String,
    /// The server; not set: Amazon's for the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
}

impl fmt::Display for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bucket '{}' at {}", self.bucket, self.endpoint.as_deref().unwrap_or("Amazon S3"))
    }
}

/// A key of an S3 server. Its debug form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Key {
    /// Its id.
    pub access: String,
    /// Its secret.
    pub secret: String,
    /// The token of a temporary key.
    pub token: Option<String>,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Key(..)")
    }
}

impl Blobs {
    /// Every store by its name.
    pub fn places(&self, data: &Path) -> Result<BTreeMap<String, BlobPlace>, ConfigError> {
        let mut places = BTreeMap::from([(DEFAULT_REGION.to_owned(), parse("blobs.url", &self.url, data)?)]);
        for (name, region) in &self.regions {
            if !is_region_name(name) || name == DEFAULT_REGION {
                return Err(ConfigError(format!(
                    "blobs.regions.{name}: the name of a region is 1 to {REGION_NAME_MAX_BYTES} small letters, digits, '-' and '_', \
                     and not '{DEFAULT_REGION}', which blobs.url names"
                )));
            }
            let setting = format!("blobs.regions.{name}.url");
            if region.url.is_empty() {
                return Err(ConfigError(format!("{setting} is not set: a region needs a store of its own")));
            }
            let place = parse(&setting, &region.url, data)?;
            if let Some((other, _)) = places.iter().find(|(_, p)| **p == place) {
                return Err(ConfigError(format!("{setting} is the store of the region '{other}': two regions must not share one")));
            }
            places.insert(name.clone(), place);
        }
        for (setting, name) in self.prefer.iter().map(|n| ("blobs.prefer", n)).chain([("blobs.home", &self.home_region())]) {
            if !places.contains_key(name) {
                let names = places.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(ConfigError(format!("{setting} names '{name}'; the regions are: {names}")));
            }
        }
        Ok(places)
    }

    /// The region of users without one of their own.
    pub fn home_region(&self) -> String {
        if self.home.is_empty() { DEFAULT_REGION.into() } else { self.home.clone() }
    }

    /// The key for a region's store; `env` looks up a variable of the environment.
    pub fn key(&self, region: &str, env: impl Fn(&str) -> Option<String>) -> Result<S3Key, ConfigError> {
        let own = self.regions.get(region).map(|r| (format!("blobs.regions.{region}"), &r.access_key, &r.secret_key, &r.session_token));
        let common = ("blobs".to_owned(), &self.access_key, &self.secret_key, &self.session_token);
        for (section, access, secret, token) in own.into_iter().chain([common]) {
            if access.is_empty() != secret.is_empty() {
                return Err(ConfigError(format!("{section}.access_key and {section}.secret_key are needed together")));
            }
            if !access.is_empty() {
                let token = Some(token.clone()).filter(|t| !t.is_empty());
                return Ok(S3Key { access: access.clone(), secret: secret.clone(), token });
            }
        }
        let env = |name: &str| env(name).filter(|v| !v.is_empty());
        match (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
            (Some(access), Some(secret)) => Ok(S3Key { access, secret, token: env("AWS_SESSION_TOKEN") }),
            _ => Err(ConfigError(
                "chunks are to be kept on S3, but there is no key: set blobs.access_key and blobs.secret_key \
                 (FERRY_RELAY__BLOBS__SECRET_KEY_FILE names a file that holds it), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .into(),
            )),
        }
    }
}

/// Whether a text can name a region: what rows and commands carry for good.
pub fn is_region_name(name: &str) -> bool {
    (1..=REGION_NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn parse(setting: &str, url: &str, data: &Path) -> Result<BlobPlace, ConfigError> {
    if url.is_empty() {
        return Ok(BlobPlace::Directory(data.join("blobs")));
    }
    if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        return Ok(BlobPlace::Directory(path.into()));
    }
    match url.strip_prefix("s3://") {
        Some(rest) => parse_s3(setting, rest).map(BlobPlace::S3),
        None => Err(ConfigError(format!(
            "{setting} is '{}': expected file:///PATH or s3://BUCKET/PREFIX?endpoint=URL&region=NAME",
            super::without_password(url)
        ))),
    }
}

fn parse_s3(setting: &str, rest: &str) -> Result<S3Place, ConfigError> {
    let wrong = |why: &str| ConfigError(format!("{setting}: {why}"));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.contains('@') {
        return Err(wrong("a key does not belong in the address; set blobs.access_key and blobs.secret_key"));
    }
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let is_bucket = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_bucket) {
        return Err(wrong("after s3:// comes the name of a bucket: 3 to 63 letters, digits, '.', '-' or '_'"));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.split('/').any(|part| part == "." || part == "..") || !prefix.bytes().all(|b| is_bucket(b) || b == b'/') {
        return Err(wrong("the prefix is made of letters, digits, '.', '-', '_' and '/'"));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let (mut endpoint, mut region) = (None, S3_REGION_DEFAULT.to_owned());
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        match pair.split_once('=') {
            Some(("endpoint", url)) if url.starts_with("http://") || url.starts_with("https://") => {
                if url.contains('@') {
                    return Err(wrong("a key does not belong in the endpoint; set blobs.access_key and blobs.secret_key"));
                }
                endpoint = Some(url.trim_end_matches('/').to_owned());
            }
            Some(("region", name)) if !name.is_empty() => region = name.to_owned(),
            _ => return Err(wrong("after '?' come endpoint=http://HOST:PORT (or https://) and region=NAME, joined by '&'")),
        }
    }
    Ok(S3Place { bucket: bucket.into(), prefix, endpoint, region })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<BlobPlace, ConfigError> {
        parse("blobs.url", url, Path::new("/d"))
    }

    #[test]
    fn a_store_is_named_by_its_address() {
        assert_eq!(place("").unwrap(), BlobPlace::Directory("/d/blobs".into()));
        assert_eq!(place("file:///x").unwrap(), BlobPlace::Directory("/x".into()));
        let s3 = |bucket: &str, prefix: &str, endpoint: Option<&str>, region: &str| {
            BlobPlace::S3(S3Place {
                bucket: bucket.into(),
                prefix: prefix.into(),
                endpoint: endpoint.map(str::to_owned),
                region: region.into(),
            })
        };
        assert_eq!(place("s3://chunks").unwrap(), s3("chunks", "", None, "us-east-1"));
        assert_eq!(
            place("s3://chunks/a/b/?endpoint=http://127.0.0.1:9000/&region=garage").unwrap(),
            s3("chunks", "a/b/", Some("http://127.0.0.1:9000"), "garage")
        );
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_secrets() {
        for wrong in [
            "chunks",
            "file://relative",
            "s3://",
            "s3://ab",
            "s3://bucket/../up",
            "s3://bucket?endpoint=127.0.0.1:9000",
            "s3://bucket?zone=x",
            "s3://bucket?region=",
            "s3://key:hunter2@bucket",
            "s3://bucket?endpoint=http://key:hunter2@host",
            "ftp://key:hunter2@host/x",
        ] {
            let message = place(wrong).unwrap_err().0;
            assert!(message.contains("blobs.url") && !message.contains("hunter2"), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_key_comes_from_the_settings_or_the_environment_and_is_never_shown() {
        let env = |name: &str| ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name).then(|| format!("env {name}"));
        let mut blobs = Blobs::default();
        assert_eq!(blobs.key("default", env).unwrap().access, "env AWS_ACCESS_KEY_ID");
        assert!(blobs.key("default", |_| None).unwrap_err().0.contains("blobs.secret_key"));
        blobs.access_key = "id".into();
        assert!(blobs.key("default", env).is_err(), "half a key");
        blobs.secret_key = "hunter2".into();
        let key = blobs.key("default", env).unwrap();
        assert_eq!((key.access.as_str(), key.secret.as_str(), &key.token), ("id", "hunter2", &None));
        assert!(!format!("{blobs:?}{key:?}").contains("hunter2"));
        let config = crate::config::Config { blobs, ..Default::default() };
        assert!(!crate::config::print::visible(&config).unwrap().to_string().contains("hunter2"));
    }

    #[test]
    fn regions_are_stores_of_their_own() {
        let region = |url: &str| BlobRegion { url: url.into(), ..BlobRegion::default() };
        let mut blobs =
            Blobs { regions: [("eu".into(), region("file:///eu")), ("us".into(), region("s3://chunks"))].into(), ..Blobs::default() };
        let names = |blobs: &Blobs| blobs.places(Path::new("/d")).map(|p| p.into_keys().collect::<Vec<_>>());
        assert_eq!(names(&blobs).unwrap(), ["default", "eu", "us"]);
        (blobs.home, blobs.prefer) = ("eu".into(), vec!["us".into()]);
        assert_eq!((names(&blobs).unwrap().len(), blobs.home_region()), (3, "eu".into()));
        let wrong = |change: &dyn Fn(&mut Blobs)| {
            let mut blobs = blobs.clone();
            change(&mut blobs);
            names(&blobs).unwrap_err().0
        };
        assert!(wrong(&|b| b.home = "asia".into()).contains("blobs.home"));
        assert!(wrong(&|b| b.prefer.push("asia".into())).contains("blobs.prefer"));
        assert!(wrong(&|b| drop(b.regions.insert("EU".into(), region("file:///x")))).contains("blobs.regions.EU"));
        assert!(wrong(&|b| drop(b.regions.insert("default".into(), region("file:///x")))).contains("blobs.url"));
        assert!(wrong(&|b| drop(b.regions.insert("x".into(), region("")))).contains("blobs.regions.x.url"));
        assert!(wrong(&|b| drop(b.regions.insert("x".into(), region("file:///eu")))).contains("share"));
        // A region's own key wins; half of one is an error, not somebody else's.
        blobs.access_key = "common".into();
        blobs.secret_key = "hunter2".into();
        let us = blobs.regions.get_mut("us").unwrap();
        us.access_key = "own".into();
        assert!(blobs.key("us", |_| None).unwrap_err().0.contains("blobs.regions.us.secret_key"));
        blobs.regions.get_mut("us").unwrap().secret_key = "hunter3".into();
        assert_eq!(blobs.key("us", |_| None).unwrap().access, "own");
        assert_eq!(blobs.key("default", |_| None).unwrap().access, "common");
        assert!(!format!("{blobs:?}").contains("hunter"));
        let config = crate::config::Config { blobs, ..Default::default() };
        assert!(!crate::config::print::visible(&config).unwrap().to_string().contains("hunter"));
    }

    #[test]
    fn names_of_regions() {
        assert!(["eu", "us-east-1", "a_b", "0"].iter().all(|n| is_region_name(n)));
        assert!(["", "EU", "-x", "a b", "a/b", &"x".repeat(33)].iter().all(|n| !is_region_name(n)));
    }
}
