//! The shape of `ferry.toml`, and its keys by name.

use super::{ConfigError, clean_device_name, shown};
use crate::quantity::{Rate, Span};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::net::SocketAddr;
use std::path::Path;
use toml::{Table, Value};

/// How the text of a value becomes TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Number,
    /// A list of whole numbers: `1000,1001`.
    Numbers,
    /// A list of texts: `10.0.0.2:4711,10.0.0.3:4711`.
    Texts,
    /// Text, with a form of its own for rates, spans and addresses.
    Text,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// What is in force when it is not set; empty for none.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

impl Key {
    /// The environment variable that sets it.
    pub fn env(&self) -> String {
        format!("FERRY_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Section and name within it.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// The key of this name.
    pub fn find(name: &str) -> Result<&'static Key, ConfigError> {
        KEYS.iter().find(|k| k.name == name).ok_or_else(|| {
            let names: Vec<_> = KEYS.iter().map(|k| k.name).collect();
            ConfigError::new(format!("'{name}' is not a setting; settings are: {}", names.join(", ")))
        })
    }
}

/// The lowest limit for devices nearby, in bytes per second: below it, who waits for his part of it cannot be told from one who is gone.
const LIMIT_LAN_MIN: u64 = 64_000;

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

/// Every setting.
pub const KEYS: &[Key] = &[
    key("brake.count", Kind::Number, "100", "more deletes than this at once, and more than brake.percent, wait for your approval"),
    key("brake.percent", Kind::Number, "30", "see brake.count; in per cent of the folder's items"),
    key("control.allow_uids", Kind::Numbers, "", "other users who may read the status over the control socket"),
    key("device.name", Kind::Text, "", "name of this device; not set: the host's name"),
    key("ignore.defaults", Kind::Bool, "true", "leave out editors' temporary files and the like"),
    key("lan.enabled", Kind::Bool, "true", "exchange files with devices on the local network"),
    key("lan.listen", Kind::Text, "[::]:0", "address and port for other devices; port 0 takes a free one"),
    key("lan.discovery", Kind::Bool, "true", "look for devices by announcements on the network (mDNS)"),
    key("lan.offload", Kind::Bool, "true", "let the network card cut and join packets; turn it off for drivers that do it badly"),
    key("lan.peers", Kind::Texts, "", "addresses of devices that are always tried: 10.0.0.2:4711,[fd00::2]:4711"),
    key("limit.down", Kind::Text, "none", "most bytes received from the relay per second, for example 2MB/s"),
    key("limit.lan", Kind::Text, "none", "most bytes exchanged with devices nearby per second, in each direction, for example 20MB/s"),
    key("limit.up", Kind::Text, "none", "most bytes sent to the relay per second, for example 500kB/s"),
    key("log.level", Kind::Text, "info", "error, warn, info, debug or trace"),
    key("relay.enabled", Kind::Bool, "true", "exchange files through the relay"),
    key("relay.url", Kind::Text, "", "the relay that login takes when none is named"),
    key("scan.interval", Kind::Text, "1h", "how often a folder is scanned although nothing was reported"),
    key("scan.watch", Kind::Bool, "true", "take up changes from file events"),
    key("trash.retention", Kind::Text, "30d", "how long displaced and deleted versions are kept in .ferry/trash"),
];

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty $(, $with:literal)?;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $(
            $(#[$field_doc])*
            #[serde(default, skip_serializing_if = "Option::is_none" $(, deserialize_with = $with)?)]
            pub $field: Option<$type>,
        )* }
    };
}
section! { /// `[device]`
Device { /// Name for people.
    name: String, "device_name"; } }
section! { /// `[relay]`
Relay { /// Use it.
    enabled: bool; /// Its address.
    url: String, "relay_url"; } }
section! { /// `[lan]`
Lan { /// Use it.
    enabled: bool; /// Where to listen.
    listen: SocketAddr; /// mDNS.
    discovery: bool; /// GSO and GRO.
    offload: bool; /// Always tried.
    peers: Vec<SocketAddr>, "lan_peers"; } }
section! { /// `[limit]`
Limit { /// Sending.
    up: Rate; /// Receiving.
    down: Rate; /// Devices nearby.
    lan: Rate, "limit_lan"; } }
section! { /// `[ignore]`
Ignore { /// Built-in rules.
    defaults: bool; } }
section! { /// `[scan]`
Scan { /// File events.
    watch: bool; /// Full scans.
    interval: Span, "scan_interval"; } }
section! { /// `[trash]`
Trash { /// Kept how long.
    retention: Span; } }
section! { /// `[brake]`
Brake { /// Deletes.
    count: u64, "brake_count"; /// Per cent.
    percent: u8, "brake_percent"; } }
section! { /// `[control]`
Control { /// Readers.
    allow_uids: Vec<u32>; } }
section! { /// `[log]`
Log { /// Filter.
    level: String, "log_level"; } }

/// The file. What is not set is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// `[device]`
    pub device: Device,
    /// `[relay]`
    pub relay: Relay,
    /// `[lan]`
    pub lan: Lan,
    /// `[limit]`
    pub limit: Limit,
    /// `[ignore]`
    pub ignore: Ignore,
    /// `[scan]`
    pub scan: Scan,
    /// `[trash]`
    pub trash: Trash,
    /// `[brake]`
    pub brake: Brake,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
}

fn checked<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
    ok: impl Fn(&T) -> bool,
    expected: &'static str,
) -> Result<Option<T>, D::Error> {
    let value = T::deserialize(d)?;
    if ok(&value) { Ok(Some(value)) } else { Err(D::Error::custom(expected)) }
}
fn lan_peers<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<SocketAddr>>, D::Error> {
    checked(
        d,
        |peers: &Vec<SocketAddr>| peers.len() <= 256 && peers.iter().all(|p| p.port() != 0),
        "at most 256 addresses, each with its port",
    )
}
fn device_name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    checked(d, |name: &String| clean_device_name(name).as_ref() == Some(name), "a device name has 1 to 64 bytes and no control characters")
}
fn relay_url<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    checked(
        d,
        |url: &String| url.starts_with("https://") || url.starts_with("http://"),
        "a relay's address begins with https:// or http://",
    )
}
fn limit_lan<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Rate>, D::Error> {
    checked(
        d,
        |Rate(rate)| rate.is_none_or(|rate| rate >= LIMIT_LAN_MIN),
        "a limit for devices nearby is at least 64kB/s, or none; turn the LAN off with lan.enabled",
    )
}
fn scan_interval<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Span>, D::Error> {
    checked(d, |Span(d)| d.as_secs() >= 5, "a scan interval is at least 5s")
}
fn brake_count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    checked(d, |n: &u64| *n >= 1, "the brake's count is at least 1")
}
fn brake_percent<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u8>, D::Error> {
    checked(d, |n: &u64| (1..=100).contains(n), "the brake's percentage is between 1 and 100").map(|n| n.map(|n| n as u8))
}
fn log_level<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    checked(
        d,
        |level: &String| level.parse::<tracing_subscriber::EnvFilter>().is_ok(),
        "a log level is error, warn, info, debug, trace or a filter",
    )
}

/// Reads the file's text. Errors name `path:line:column`.
pub fn parse(text: &str, path: &Path) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ConfigError::new(format!("{}:{line}:{column}: {}", shown(path), e.message().replace('\n', " ")))
    })
}

impl ConfigFile {
    /// A key's value as text, if it is set.
    pub fn get(&self, key: &Key) -> Option<String> {
        let table = Table::try_from(self).ok()?;
        let (section, name) = key.parts();
        Some(match table.get(section)?.get(name)? {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        })
    }

    /// Sets a key from text.
    pub fn put(&mut self, key: &Key, text: &str) -> Result<(), ConfigError> {
        let mut table = Table::try_from(&*self).map_err(|e| ConfigError::new(e.to_string()))?;
        let (section, name) = key.parts();
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(entry) = entry {
            entry.insert(name.into(), value(key, text)?);
        }
        *self = Self::deserialize(table).map_err(|e| ConfigError::new(e.message().replace('\n', " ")))?;
        Ok(())
    }
}

/// A key's text as a TOML value.
pub fn value(key: &Key, text: &str) -> Result<Value, ConfigError> {
    let number = |text: &str| {
        text.trim().parse::<i64>().map(Value::Integer).map_err(|_| ConfigError::new(format!("'{}' is not a whole number", text.trim())))
    };
    Ok(match key.kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::Number => number(text)?,
        Kind::Numbers => Value::Array(text.split(',').filter(|t| !t.trim().is_empty()).map(number).collect::<Result<_, _>>()?),
        Kind::Texts => {
            Value::Array(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| Value::String(t.to_owned())).collect())
        }
        Kind::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Boolean(true),
            "false" | "no" | "off" | "0" => Value::Boolean(false),
            other => return Err(ConfigError::new(format!("'{other}' is neither true nor false"))),
        },
    })
}
