//! Settings: flag > environment (`FERRY_SECTION_KEY`) > `ferry.toml` > default.
//!
//! * **G1** An unknown key or a wrong value is an error with its line and column; the settings that were in force stay in force.
//! * **G2** A command that writes the file keeps comments and order, and replaces the file only with one that reads back without error.

mod edit;
mod file;

pub use edit::{set, unset};
pub use file::{ConfigFile, KEYS, Key, Kind};

use crate::folder::FolderSettings;
use crate::quantity::{Rate, Span};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why settings cannot be used: one sentence that names the file, line and column, or the variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The sentence.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Env,
    /// `ferry.toml`.
    File,
    /// Built in.
    Default,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of this device for people; nothing: the host's name.
    pub device_name: Option<String>,
    /// Whether the relay is used.
    pub relay_enabled: bool,
    /// The relay that `ferry login` and `ferry up` take when none is named.
    pub relay_url: Option<String>,
    /// Whether the LAN is used.
    pub lan_enabled: bool,
    /// Where QUIC listens.
    pub lan_listen: SocketAddr,
    /// Whether devices are looked for by announcements.
    pub lan_discovery: bool,
    /// Whether the network card cuts and joins packets.
    pub lan_offload: bool,
    /// Addresses that are always tried.
    pub lan_peers: Vec<SocketAddr>,
    /// Limit of sending to the relay.
    pub limit_up: Rate,
    /// Limit of receiving from the relay.
    pub limit_down: Rate,
    /// Limit of exchanging with devices nearby, in each direction.
    pub limit_lan: Rate,
    /// What folders follow.
    pub folder: FolderSettings,
    /// Other users who may read the status over the control socket.
    pub allow_uids: Vec<u32>,
    /// What is logged: `warn`, `info`, `debug`, or a filter such as `ferry_daemon=debug,warn`.
    pub log_level: String,
    /// Where each key's value comes from.
    pub sources: BTreeMap<&'static str, Source>,
    /// Each key's value as text.
    pub values: BTreeMap<&'static str, String>,
}

/// Reads the file (one that does not exist is empty), then the environment, then flags (`key`, `value`).
pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>, flags: &[(&'static str, String)]) -> Result<Settings, ConfigError> {
    let text = read(path)?;
    parse(&text, path, env, flags)
}

/// The text of the file; empty if it does not exist.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(ConfigError::new(format!("cannot read {}: {e}", path.display()))),
    }
}

/// See [`load`]; from text.
pub fn parse(
    text: &str,
    path: &Path,
    env: impl Fn(&str) -> Option<String>,
    flags: &[(&'static str, String)],
) -> Result<Settings, ConfigError> {
    let mut file = file::parse(text, path)?;
    let mut sources = BTreeMap::new();
    for key in KEYS {
        let mut source = if file.get(key).is_some() { Source::File } else { Source::Default };
        if let Some(value) = env(&key.env()) {
            file.put(key, &value).map_err(|e| ConfigError::new(format!("{}: {e}", key.env())))?;
            source = Source::Env;
        }
        if let Some((_, value)) = flags.iter().find(|(name, _)| *name == key.name) {
            file.put(key, value).map_err(|e| ConfigError::new(format!("{}: {e}", key.name)))?;
            source = Source::Flag;
        }
        sources.insert(key.name, source);
    }
    Ok(settings(file, sources))
}

fn settings(file: ConfigFile, sources: BTreeMap<&'static str, Source>) -> Settings {
    let values = KEYS.iter().map(|key| (key.name, file.get(key).unwrap_or_else(|| key.default.into()))).collect();
    let base = FolderSettings::default();
    Settings {
        device_name: file.device.name,
        relay_enabled: file.relay.enabled.unwrap_or(true),
        relay_url: file.relay.url,
        lan_enabled: file.lan.enabled.unwrap_or(true),
        lan_listen: file.lan.listen.unwrap_or_else(|| SocketAddr::from(([0u16; 8], 0))),
        lan_discovery: file.lan.discovery.unwrap_or(true),
        lan_offload: file.lan.offload.unwrap_or(true),
        lan_peers: file.lan.peers.clone().unwrap_or_default(),
        limit_up: file.limit.up.unwrap_or_default(),
        limit_down: file.limit.down.unwrap_or_default(),
        limit_lan: file.limit.lan.unwrap_or_default(),
        folder: FolderSettings {
            ignore_defaults: file.ignore.defaults.unwrap_or(base.ignore_defaults),
            watch: file.scan.watch.unwrap_or(base.watch),
            rescan_interval: file.scan.interval.map_or(base.rescan_interval, |Span(d)| d),
            trash_retention: file.trash.retention.map_or(base.trash_retention, |Span(d)| d),
            held_deletes_count: file.brake.count.unwrap_or(base.held_deletes_count),
            held_deletes_percent: file.brake.percent.unwrap_or(base.held_deletes_percent),
        },
        allow_uids: file.control.allow_uids.unwrap_or_default(),
        log_level: file.log.level.unwrap_or_else(|| "info".into()),
        sources,
        values,
    }
}

impl Settings {
    /// What the LAN follows.
    pub fn lan(&self) -> crate::lan::LanSettings {
        crate::lan::LanSettings {
            enabled: self.lan_enabled,
            listen: self.lan_listen,
            discovery: self.lan_discovery,
            peers: self.lan_peers.clone(),
            offload: self.lan_offload,
        }
    }

    /// The name of this device: as set, else the host's name, else `device`. Control characters become spaces; at most 64 bytes.
    pub fn device_name(&self) -> String {
        let name = self.device_name.clone().unwrap_or_else(host_name);
        clean_device_name(&name).unwrap_or_else(|| "device".into())
    }
}

/// A device name as it may be shown and stored: no control characters, trimmed, at most 64 bytes; nothing if nothing is left.
pub fn clean_device_name(name: &str) -> Option<String> {
    let mut clean: String = name.chars().map(|c| if c.is_control() || c == '/' { ' ' } else { c }).collect();
    while clean.len() > ferry_protocol::limits::DEVICE_NAME_MAX_BYTES {
        clean.pop();
    }
    let clean = clean.trim().to_owned();
    (!clean.is_empty()).then_some(clean)
}

/// The host's name, without its domain.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

/// Reads a process's environment.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The path of the file, for messages.
pub fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    ferry_protocol::name::display_bytes(PathBuf::from(path).as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn flag_wins_over_environment_over_file_over_default() {
        let text = "[limit]\nup = \"1MB/s\"\ndown = \"2MB/s\"\nlan = \"64kB/s\"\n[lan]\nenabled = false\nlisten = \"[::1]:7\"\n";
        let env = |name: &str| match name {
            "FERRY_LIMIT_DOWN" => Some("3MB/s".to_owned()),
            "FERRY_LAN_LISTEN" => Some("[::1]:8".to_owned()),
            _ => None,
        };
        let settings = parse(text, Path::new("f"), env, &[("lan.listen", "[::1]:9".into())]).unwrap();
        assert_eq!((settings.limit_up, settings.limit_lan), (Rate(Some(1_000_000)), Rate(Some(64_000))));
        assert_eq!(settings.limit_down, Rate(Some(3_000_000)));
        assert_eq!(settings.lan_listen.port(), 9);
        assert!(!settings.lan_enabled && settings.relay_enabled);
        let source = |key| settings.sources[key];
        assert_eq!(
            (source("limit.up"), source("limit.down"), source("lan.listen"), source("relay.enabled")),
            (Source::File, Source::Env, Source::Flag, Source::Default)
        );
    }

    #[test]
    fn a_wrong_file_is_refused_with_line_and_column() {
        for (text, place, word) in [
            ("[lan]\nenabeld = true\n", "f:2:1", "enabeld"),
            ("[lan]\nenabled = 3\n", "f:2:11", "boolean"),
            ("\n[limit]\nup = \"fast\"\n", "f:3:6", "rate"),
            ("[limit]\nlan = \"10kB/s\"\n", "f:2:7", "lan.enabled"),
            ("[lan\n", "f:1:", ""),
            ("[brake]\npercent = 200\n", "f:2:11", "between 1 and 100"),
            ("[device]\nname = \"\\u0007\"\n", "f:2:8", "name"),
        ] {
            let error = parse(text, Path::new("f"), no_env, &[]).unwrap_err().message;
            assert!(error.starts_with(place) && error.contains(word), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let env = |name: &str| (name == "FERRY_LAN_ENABLED").then(|| "perhaps".to_owned());
        assert!(parse("", Path::new("f"), env, &[]).unwrap_err().message.contains("FERRY_LAN_ENABLED"));
    }

    #[test]
    fn every_key_has_a_default_that_is_in_force() {
        let settings = parse("", Path::new("f"), no_env, &[]).unwrap();
        for key in KEYS {
            assert_eq!(settings.values[key.name], key.default, "{}", key.name);
            if !key.default.is_empty() {
                let again = parse("", Path::new("f"), no_env, &[(key.name, key.default.into())]).unwrap();
                assert_eq!(again.values[key.name], key.default, "{}", key.name);
                assert_eq!(again.folder, settings.folder, "{}", key.name);
            }
        }
    }

    #[test]
    fn device_names_are_clean() {
        assert_eq!(clean_device_name("a\x1b[31m/b\n").as_deref(), Some("a [31m b"));
        assert_eq!(clean_device_name(" \n"), None);
        assert_eq!(clean_device_name(&"ü".repeat(60)).unwrap().len(), 64);
    }
}
