//! The relay's configuration: a TOML file, then credentials of the service manager, then the environment (`FERRY_RELAY__SECTION__KEY`, or `..._FILE`
//! with the path of a file that holds the value), then the command line. Unknown keys are errors, so that a typing mistake never means "default".
//! All defaults stand in [`Config::default`].

mod load;
pub mod print;
mod roles;

pub use load::{Loaded, Source};

mod blobs;
mod database;

pub use blobs::{BlobPlace, BlobRegion, Blobs, DEFAULT_REGION, S3Key, S3Place, is_region_name};
pub use database::{Database, DatabaseUrl};

pub use roles::Role;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used: one sentence that names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything that can be set. An empty string means "not set".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The directory that holds the database, the chunks and the keys.
    pub data: PathBuf,
    /// Where the relay listens, `ADDRESS:PORT`; not set: `0.0.0.0:8000`, or the port of the one role that is served.
    pub listen: String,
    /// Whether each role is also served on its own port (8001 to 8005), with its own routes only.
    pub compat_ports: bool,
    /// The address under which people and devices reach the relay: `https://files.example.org`.
    pub public_url: String,
    /// Which parts this process serves: `all`, or a list of `auth,metadata,upload,download,sync,web,dav`.
    pub role: String,
    /// Proxies whose `X-Forwarded-For` is believed: addresses or networks (`10.0.0.0/8`). None by default.
    pub trusted_proxies: Vec<String>,
    /// Metadata.
    pub database: Database,
    /// Chunks.
    pub blobs: Blobs,
    /// What several processes of one relay share: wake-ups and rate limits.
    pub redis: Redis,
    /// TLS by files.
    pub tls: Tls,
    /// Accounts.
    pub auth: Auth,
    /// The listener for the operator: metrics and health.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
    /// How the relay ends.
    pub drain: Drain,
    /// The audit log.
    pub audit: Audit,
    /// Small pictures of files.
    pub thumbnails: ThumbnailSettings,
}

/// What several processes of one relay share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis://[:PASSWORD@]HOST[:PORT][/DATABASE]` or `redis+unix:///PATH`; not set: one process.
    pub url: String,
}

/// TLS without a proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Who may have an account, and how long a login lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// `closed`: only an administrator adds users. `invite`: with an invitation. `open`: anyone.
    pub registration: Registration,
    /// How long an access token is good, in seconds.
    pub access_ttl_s: u32,
    /// How long a login lasts without being used, in days.
    pub refresh_ttl_days: u32,
    /// Storage of a new user, in bytes; 0 is no limit.
    pub default_storage_limit_bytes: u64,
    /// The file of the key that signs access tokens (PEM, Ed25519); not set: `jwt.key` in the data directory, made at the first start.
    pub jwt_key: String,
    /// The file of the key under which secrets of second factors are encrypted (64 hexadecimal digits); not set: `secrets.key` in the data directory, made
    /// at the first start. Several processes of one relay need the same one; without it, second factors must be reset.
    pub secrets_key: String,
    /// The file of the key that signs grants, by which devices know each other without the relay (PEM, Ed25519); not set: `grant.key` in the data
    /// directory, made at the first start. Several processes of one relay need the same one. Devices take another one with their next token.
    pub grant_key: String,
    /// Other providers through which people log in (OpenID Connect), by a short name that stands in addresses: `[auth.oidc.NAME]`.
    pub oidc: BTreeMap<String, OidcSettings>,
    /// How long a grant is good, in seconds: for so long devices that cannot reach the relay go on together.
    pub grant_ttl_s: u32,
}

/// A provider of identities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OidcSettings {
    /// Its address: `/.well-known/openid-configuration` stands below it.
    pub issuer: String,
    /// The name under which this relay is registered there. The address to which it sends people back is `PUBLIC_URL/auth/oidc/NAME/callback`.
    pub client_id: String,
    /// The secret that goes with it; not set: a public client.
    pub client_secret: String,
    /// A file that holds the secret, instead.
    pub client_secret_file: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Its name for people; not set: NAME.
    pub label: String,
    /// Whether somebody without an account here gets one.
    pub allow_new_users: bool,
    /// Whether somebody whose e-mail address the provider has verified is let into the account that has this address here. Whoever controls the
    /// provider can then log in as anyone.
    pub link_by_email: bool,
    /// The domains whose addresses are taken; none: all.
    pub email_domains: Vec<String>,
}

impl Default for OidcSettings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            client_secret: String::new(),
            client_secret_file: String::new(),
            scopes: vec!["email".into(), "profile".into()],
            label: String::new(),
            allow_new_users: false,
            link_by_email: false,
            email_domains: Vec::new(),
        }
    }
}

impl OidcSettings {
    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, what: &str| Err(ConfigError(format!("auth.oidc.{name}{key} {what}")));
        if name.is_empty() || name.len() > 32 || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return wrong("", "is no name for a provider: up to 32 of a-z, 0-9 and -");
        }
        if !crate::oidc::is_safe(&self.issuer) {
            return wrong(".issuer", "must begin with https:// (http:// on this machine only)");
        }
        if self.client_id.is_empty() {
            return wrong(".client_id", "is missing");
        }
        if !self.client_secret.is_empty() && !self.client_secret_file.is_empty() {
            return wrong(".client_secret", "and client_secret_file are not needed together");
        }
        Ok(())
    }

    /// The settings with the secret that a file holds.
    pub fn with_secret(&self) -> Result<Self, ConfigError> {
        if self.client_secret_file.is_empty() {
            return Ok(self.clone());
        }
        let text = std::fs::read_to_string(&self.client_secret_file)
            .map_err(|e| ConfigError(format!("auth.oidc: cannot read {}: {e}", self.client_secret_file)))?;
        Ok(Self { client_secret: text.trim().to_owned(), ..self.clone() })
    }
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Nobody; administrators add users.
    Closed,
    /// Whoever holds an invitation.
    Invite,
    /// Anyone.
    Open,
}

/// The operator's listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// `ADDRESS:PORT`; not set: no such listener.
    pub listen: String,
    /// When set, `/metrics` asks for it as a bearer token.
    pub metrics_token: String,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// What is logged, for example `info` or `ferry_relay=debug,warn`.
    pub level: String,
}

/// How the relay ends when it is told to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long the relay goes on as before while `/readyz` already says that it is not ready, in seconds: as long as a load balancer takes to notice.
    pub delay_s: u32,
    /// How long running requests may take to finish after that, in seconds.
    pub deadline_s: u32,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// How long entries are kept, in days; 0 keeps them for ever.
    pub keep_days: u32,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: default_data_dir(),
            listen: String::new(),
            compat_ports: false,
            public_url: String::new(),
            role: "all".into(),
            trusted_proxies: Vec::new(),
            database: Database::default(),
            blobs: Blobs::default(),
            redis: Redis::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            admin: Admin::default(),
            log: Log::default(),
            drain: Drain::default(),
            audit: Audit::default(),
            thumbnails: ThumbnailSettings::default(),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_s: 0, deadline_s: 25 }
    }
}

/// Small pictures of files, for lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThumbnailSettings {
    /// Bytes of small pictures that are kept in the data directory, a cache; 0 keeps none.
    pub cache_bytes: u64,
    /// Memory of all pictures that are decoded at once, in bytes: the largest that can be shown has a twelfth of that in pixels. 0: none are made.
    pub memory_bytes: u64,
}

impl Default for ThumbnailSettings {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, memory_bytes: 640 << 20 }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep_days: 400 }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            registration: Registration::Closed,
            access_ttl_s: 15 * 60,
            refresh_ttl_days: 60,
            default_storage_limit_bytes: 0,
            jwt_key: String::new(),
            secrets_key: String::new(),
            oidc: BTreeMap::new(),
            grant_key: String::new(),
            grant_ttl_s: 7 * 24 * 3600,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9600".into(), metrics_token: String::new() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

fn default_data_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("STATE_DIRECTORY") {
        return dir.into();
    }
    match std::env::var_os("HOME") {
        Some(home) if !rustix::process::geteuid().is_root() => Path::new(&home).join(".local/share/ferry-relay"),
        _ => "/var/lib/ferry-relay".into(),
    }
}

impl Config {
    /// Reads the file (if one is named) and the environment, and checks the values.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let loaded = Loaded::read(file, env)?;
        loaded.check()?;
        Ok(loaded.config)
    }

    /// Whether the values can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.listen_addr()?;
        self.admin_addr()?;
        self.roles()?;
        self.database.check(&self.data)?;
        self.blob_places()?;
        #[cfg(feature = "cluster")]
        if !self.redis.url.is_empty() {
            crate::store::redis::check_url(&self.redis.url).map_err(|why| ConfigError(format!("redis.url cannot be used: {why}")))?;
        }
        let url = &self.public_url;
        if !(url.is_empty() || url.starts_with("https://") || url.starts_with("http://")) {
            return Err(ConfigError(format!("public_url is '{url}': it must begin with https:// or http://")));
        }
        if self.tls.cert.is_empty() != self.tls.key.is_empty() {
            return Err(ConfigError("tls.cert and tls.key are needed together".into()));
        }
        if !(60..=24 * 3600).contains(&self.auth.access_ttl_s) {
            return Err(ConfigError("auth.access_ttl_s must be between 60 and 86400 seconds".into()));
        }
        if !(1..=366).contains(&self.auth.refresh_ttl_days) {
            return Err(ConfigError("auth.refresh_ttl_days must be between 1 and 366".into()));
        }
        if !(1..=366 * 24 * 3600).contains(&self.auth.grant_ttl_s) {
            return Err(ConfigError("auth.grant_ttl_s must be between 1 second and 366 days, in seconds".into()));
        }
        if self.drain.delay_s > 600 || !(1..=3600).contains(&self.drain.deadline_s) {
            return Err(ConfigError("drain.delay_s must be at most 600 seconds, drain.deadline_s between 1 and 3600".into()));
        }
        if self.audit.keep_days != 0 && !(8..=36_500).contains(&self.audit.keep_days) {
            return Err(ConfigError("audit.keep_days must be between 8 and 36500; 0 keeps entries for ever".into()));
        }
        if !(1..=24 * 366).contains(&self.blobs.grace_hours) {
            return Err(ConfigError(
                "blobs.grace_hours must be between 1 and 8784: long enough for the longest pause within an upload".into(),
            ));
        }
        for (name, provider) in &self.auth.oidc {
            provider.check(name)?;
        }
        if !self.auth.oidc.is_empty() && self.public_url.is_empty() {
            return Err(ConfigError("public_url is needed for auth.oidc: providers send people back to it".into()));
        }
        self.proxies().map(drop)
    }

    /// Where to listen.
    pub fn listen_addr(&self) -> Result<SocketAddr, ConfigError> {
        if self.listen.is_empty() {
            let port = match self.roles()?[..] {
                [role] => role.port(),
                _ => Role::Web.port(),
            };
            return Ok((std::net::Ipv4Addr::UNSPECIFIED, port).into());
        }
        self.listen
            .parse()
            .map_err(|_| ConfigError(format!("listen is '{}': expected ADDRESS:PORT, for example 0.0.0.0:8000", self.listen)))
    }

    /// Where each role listens besides, if it does.
    pub fn compat_addrs(&self) -> Result<Vec<(Role, SocketAddr)>, ConfigError> {
        let main = self.listen_addr()?;
        let roles = if self.compat_ports { self.roles()? } else { Vec::new() };
        let own = roles
            .into_iter()
            .filter(|role| !matches!(role, Role::Web | Role::Dav))
            .map(|role| (role, SocketAddr::new(main.ip(), role.port())));
        Ok(own.filter(|(_, addr)| *addr != main).collect())
    }

    /// Where the operator's listener stands, if anywhere.
    pub fn admin_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.admin.listen.is_empty() {
            return Ok(None);
        }
        self.admin
            .listen
            .parse()
            .map(Some)
            .map_err(|_| ConfigError(format!("admin.listen is '{}': expected ADDRESS:PORT", self.admin.listen)))
    }

    /// Which parts this process serves.
    pub fn roles(&self) -> Result<Vec<Role>, ConfigError> {
        Role::parse_list(&self.role)
    }

    /// The proxies that are believed.
    pub fn proxies(&self) -> Result<Vec<Network>, ConfigError> {
        self.trusted_proxies.iter().map(|text| Network::parse(text)).collect()
    }

    /// The metadata database.
    pub fn database(&self) -> Result<DatabaseUrl, ConfigError> {
        self.database.place(&self.data)
    }

    /// Where chunks are kept, by the name of the region.
    pub fn blob_places(&self) -> Result<BTreeMap<String, BlobPlace>, ConfigError> {
        self.blobs.places(&self.data)
    }

    /// The address for people: `public_url`, or a guess for this machine.
    pub fn base_url(&self) -> String {
        if !self.public_url.is_empty() {
            return self.public_url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.tls.cert.is_empty() { "http" } else { "https" };
        match self.listen_addr() {
            Ok(addr) if addr.ip().is_unspecified() => format!("{scheme}://localhost:{}", addr.port()),
            Ok(addr) => format!("{scheme}://{addr}"),
            Err(_) => format!("{scheme}://localhost:8000"),
        }
    }
}

/// The URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError(format!("trusted_proxies has '{text}': expected an address or a network such as 10.0.0.0/8"));
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse::<u32>).map_err(|_| wrong())?;
        if prefix > width {
            return Err(wrong());
        }
        Ok(Self { bits: bits_of(address), prefix: prefix + 128 - width })
    }

    /// Whether the address is in this network.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.prefix == 0 || (bits_of(address) ^ self.bits) >> (128 - self.prefix) == 0
    }
}

fn bits_of(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn the_environment_wins_over_the_file_and_files_hold_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.toml");
        let secret = dir.path().join("token");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\n[auth]\nregistration = \"open\"\n").unwrap();
        std::fs::write(&secret, "1234\n").unwrap();
        let vars = [
            ("FERRY_RELAY__LISTEN", "127.0.0.1:2"),
            ("FERRY_RELAY__ADMIN__METRICS_TOKEN_FILE", secret.to_str().unwrap()),
            ("FERRY_RELAY__AUTH__ACCESS_TTL_S", "60"),
            ("FERRY_RELAY__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("FERRY_RELAY__BLOBS__REGIONS__EU__URL", "s3://chunks"),
            ("FERRY_RELAY__BLOBS__REGIONS__EU__SECRET_KEY_FILE", secret.to_str().unwrap()),
            ("FERRY_RELAY__BLOBS__PREFER", "eu,default"),
            ("PATH", "/bin"),
        ];
        let config = Config::load(Some(&file), env(&vars)).unwrap();
        assert_eq!(config.listen, "127.0.0.1:2");
        assert_eq!(config.auth.registration, Registration::Open);
        assert_eq!(config.admin.metrics_token, "1234");
        assert_eq!(config.auth.access_ttl_s, 60);
        assert_eq!(config.proxies().unwrap().len(), 2);
        assert_eq!((config.blobs.regions["eu"].url.as_str(), config.blobs.regions["eu"].secret_key.as_str()), ("s3://chunks", "1234"));
        assert_eq!(config.blobs.prefer, ["eu", "default"]);
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.toml");
        std::fs::write(&file, "lisen = \"127.0.0.1:1\"\n").unwrap();
        assert!(Config::load(Some(&file), env(&[])).unwrap_err().0.contains("lisen"));
        for (name, value) in [
            ("FERRY_RELAY__LISEN", "x"),
            ("FERRY_RELAY__AUTH", "x"),
            ("FERRY_RELAY__LISTEN", "8000"),
            ("FERRY_RELAY__AUTH__ACCESS_TTL_S", "soon"),
            ("FERRY_RELAY__AUTH__GRANT_TTL_S", "0"),
            ("FERRY_RELAY__AUTH__REGISTRATION", "maybe"),
            ("FERRY_RELAY__ROLE", "auth,cook"),
            ("FERRY_RELAY__ROLE", ","),
            ("FERRY_RELAY__DATABASE__POOL_SIZE", "1"),
            ("FERRY_RELAY__DATABASE__LOCK_TIMEOUT_S", "0"),
            ("FERRY_RELAY__DATABASE__SHARDS", "postgres://h/1"),
            ("FERRY_RELAY__DATABASE__REPLICAS", "postgres://h/1"),
            ("FERRY_RELAY__PUBLIC_URL", "files.example.org"),
            ("FERRY_RELAY__TLS__CERT", "/x"),
            ("FERRY_RELAY__BLOBS__REGIONS__EU__COLOUR", "x"),
            ("FERRY_RELAY__BLOBS__REGIONS__*__URL", "s3://chunks"),
            ("FERRY_RELAY__BLOBS__HOME", "eu"),
            ("FERRY_RELAY__TRUSTED_PROXIES", "10.0.0.0/33"),
        ] {
            assert!(Config::load(None, env(&[(name, value)])).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn networks_hold_what_they_say() {
        let net = Network::parse("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.2.3".parse().unwrap()) && net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.0.1".parse().unwrap()) && !net.contains("::1".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn stores_are_named_by_url() {
        let mut config = Config { data: "/d".into(), ..Config::default() };
        assert_eq!(config.database().unwrap(), DatabaseUrl::Sqlite("/d/relay.db".into()));
        config.database.url = "sqlite:///x/y.db".into();
        assert_eq!(config.database().unwrap(), DatabaseUrl::Sqlite("/x/y.db".into()));
        config.database.url = "postgres://u:secret@h/db".into();
        let url = config.database().unwrap();
        assert!(url.is_shared() && url == DatabaseUrl::Postgres(config.database.url.clone()));
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        config.database.url = "mysql://u:secret@h/db".into();
        let message = config.database().unwrap_err().0;
        assert!(!message.contains("secret") && message.contains("sqlite://") && message.contains("postgres://"), "{message}");
        config.blobs.url = "file://relative".into();
        assert!(config.blob_places().is_err());
    }
}
