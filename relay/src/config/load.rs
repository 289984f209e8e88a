//! Where settings come from, and which of two wins: the defaults, the file, credentials of the service manager, the environment, the command line.
//! Every setting remembers where it came from, so that `ferry-relay config print` and an error can say so.

use super::{BlobRegion, Config, ConfigError, is_region_name};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// The environment's names of settings begin with this.
const PREFIX: &str = "FERRY_RELAY__";

/// Files of `$CREDENTIALS_DIRECTORY` that are taken up, the setting that each is for, and whether the setting is the file's path or its content.
const CREDENTIALS: &[(&str, &str, bool)] = &[
    ("jwt_key", "auth.jwt_key", true),
    ("grant_key", "auth.grant_key", true),
    ("secrets_key", "auth.secrets_key", true),
    ("metrics_token", "admin.metrics_token", false),
    ("database_url", "database.url", false),
    ("redis_url", "redis.url", false),
];

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration file, and the line in it.
    File(PathBuf, usize),
    /// A credential that the service manager handed over, by its name.
    Credential(String),
    /// A variable of the environment, by its name.
    Environment(String),
    /// An option of the command line.
    CommandLine(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine(option) => write!(f, "command line {option}"),
        }
    }
}

/// A configuration with where each setting came from. A setting that is not named has its default.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// By the dotted name of a setting (`auth.jwt_key`).
    pub sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// Reads the file (if one is named), the credentials and the environment. What is unknown or of the wrong type is refused with its place; whether
    /// the values can be used is [`Loaded::check`]'s matter.
    pub fn read(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut layers = Layers { table: Table::new(), sources: BTreeMap::new(), shape: shape()? };
        if let Some(path) = file {
            layers.file(path)?;
        }
        let variables: BTreeMap<String, String> =
            env.filter(|(name, _)| name.starts_with(PREFIX) || name == "CREDENTIALS_DIRECTORY").collect();
        if let Some(dir) = variables.get("CREDENTIALS_DIRECTORY") {
            layers.credentials(Path::new(dir))?;
        }
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            layers.variable(name, value)?;
        }
        let config = layers.table.try_into().map_err(|e: toml::de::Error| ConfigError(format!("in the configuration: {}", e.message())))?;
        Ok(Self { config, sources: layers.sources })
    }

    /// Whether the values can be used. An error says where the setting that it names came from.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.config.check().map_err(|ConfigError(text)| {
            let is_about = |key: &str| text.strip_prefix(key).is_some_and(|rest| rest.starts_with(' '));
            match self.sources.iter().find(|(key, _)| is_about(key)) {
                Some((_, source)) => ConfigError(format!("{text} ({source})")),
                None => ConfigError(text),
            }
        })
    }

    /// An option of the command line takes the place of whatever a setting was.
    pub fn option(&mut self, key: &str, option: &'static str) {
        self.sources.insert(key.to_owned(), Source::CommandLine(option));
    }
}

/// Every setting with its default: says which settings there are, and of which type each is.
pub(super) fn shape() -> Result<Table, ConfigError> {
    Table::try_from(Config::default()).map_err(|e| ConfigError(e.to_string()))
}

/// What was read so far; each layer replaces what is below it.
struct Layers {
    table: Table,
    sources: BTreeMap<String, Source>,
    shape: Table,
}

impl Layers {
    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|e| ConfigError(format!("cannot read the configuration {}: {e}", path.display())))?;
        let wrong = |e: toml::de::Error| {
            let (line, column) = place(&text, e.span());
            // The parser's own words take several lines for what is one place.
            ConfigError(format!("{}:{line}:{column}: {}", path.display(), e.message().replace('\n', "; ")))
        };
        // Read as a whole once, for the places of what is unknown or of the wrong type.
        toml::from_str::<Config>(&text).map_err(wrong)?;
        self.table = text.parse::<Table>().map_err(wrong)?;
        let spans = DeTable::parse(&text).map_err(wrong)?;
        let mut lines = BTreeMap::new();
        leaves(spans.get_ref(), "", &mut lines);
        for (key, span) in lines {
            self.sources.insert(key, Source::File(path.to_owned(), place(&text, Some(span)).0));
        }
        Ok(())
    }

    fn credentials(&mut self, dir: &Path) -> Result<(), ConfigError> {
        for (name, key, is_path) in CREDENTIALS {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            let value = if *is_path { path.display().to_string() } else { read_secret(&path, name)? };
            self.set(key, Value::String(value), Source::Credential((*name).to_owned()))?;
        }
        Ok(())
    }

    /// `FERRY_RELAY__SECTION__KEY`, or `..._FILE` with the path of a file that holds the value.
    fn variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace("__", ".");
        let (key, kind, text) = match (self.kind(&key), key.strip_suffix("_file").and_then(|k| Some((k.to_owned(), self.kind(k)?)))) {
            (Some(kind), _) => (key, kind, value.to_owned()),
            (None, Some((key, kind))) => (key, kind, read_secret(Path::new(value), name)?),
            (None, None) => {
                return Err(ConfigError(format!("{name} is not a setting of ferry-relay; see: ferry-relay config print --defaults")));
            }
        };
        let wrong = |expected: &str| ConfigError(format!("{name} must be {expected}"));
        let parsed = match kind {
            Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("a number"))?),
            Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
            Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
            Value::Array(_) => {
                Value::Array(text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| Value::String(s.into())).collect())
            }
            _ => Value::String(text),
        };
        self.set(&key, parsed, Source::Environment(name.to_owned()))
    }

    /// The default of a setting; none for a section and for what does not exist.
    fn kind(&self, key: &str) -> Option<Value> {
        // A region has a name that the operator chooses.
        if let Some((name, key)) = key.strip_prefix("blobs.regions.").and_then(|rest| rest.split_once('.')) {
            let shape = Table::try_from(BlobRegion::default()).ok().filter(|_| is_region_name(name))?;
            return shape.get(key).cloned();
        }
        if let Some((name, field)) = key.strip_prefix("auth.oidc.").and_then(|rest| rest.split_once('.')) {
            // Providers have the names that the operator gives them.
            let shape = Table::try_from(super::OidcSettings::default()).ok()?;
            return shape.get(field).filter(|_| !name.is_empty()).cloned();
        }
        let mut parts = key.split('.');
        let first = self.shape.get(parts.next()?)?;
        parts.try_fold(first, |at, part| at.as_table()?.get(part)).filter(|v| !v.is_table()).cloned()
    }

    fn set(&mut self, key: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        let mut at = &mut self.table;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.into(), value);
                break;
            }
            let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
            at = next.as_table_mut().ok_or_else(|| ConfigError(format!("'{part}' must be a section of the configuration")))?;
        }
        self.sources.insert(key.to_owned(), source);
        Ok(())
    }
}

fn read_secret(path: &Path, name: &str) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError(format!("{name}: cannot read {}: {e}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The settings of a parsed file with the places of their values.
fn leaves(table: &DeTable<'_>, above: &str, out: &mut BTreeMap<String, Range<usize>>) {
    for (name, value) in table {
        let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(below) => leaves(below, &key, out),
            _ => _ = out.insert(key, name.span()),
        }
    }
}

/// Line and column of a place, each counted from 1.
fn place(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let at = span.map_or(0, |s| s.start).min(text.len());
    let before = text.get(..at).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn each_setting_says_where_it_came_from_and_the_later_wins() {
        let (dir, path) =
            file("listen = \"127.0.0.1:1\"\n\n[auth]\nregistration = \"open\"\naccess_ttl_s = 90\n[admin]\nmetrics_token = \"a\"\n");
        let creds = dir.path().join("creds");
        std::fs::create_dir(&creds).unwrap();
        std::fs::write(creds.join("metrics_token"), "from the store\n").unwrap();
        std::fs::write(creds.join("jwt_key"), "pem").unwrap();
        let vars = [
            ("CREDENTIALS_DIRECTORY", creds.to_str().unwrap()),
            ("FERRY_RELAY__AUTH__ACCESS_TTL_S", "120"),
            ("FERRY_RELAY__ROLE", "auth"),
            ("PATH", "/bin"),
        ];
        let loaded = Loaded::read(Some(&path), env(&vars)).unwrap();
        let config = &loaded.config;
        assert_eq!((config.listen.as_str(), config.auth.access_ttl_s, config.role.as_str()), ("127.0.0.1:1", 120, "auth"));
        assert_eq!(config.admin.metrics_token, "from the store");
        assert_eq!(Path::new(&config.auth.jwt_key), creds.join("jwt_key"));
        let source = |key: &str| loaded.sources.get(key).map(ToString::to_string);
        assert_eq!(source("listen"), Some(format!("{}:1", path.display())));
        assert_eq!(source("auth.registration"), Some(format!("{}:4", path.display())));
        assert_eq!(source("auth.access_ttl_s").as_deref(), Some("environment FERRY_RELAY__AUTH__ACCESS_TTL_S"));
        assert_eq!(source("admin.metrics_token").as_deref(), Some("credential metrics_token"));
        assert_eq!(source("log.level"), None);
    }

    #[test]
    fn errors_have_a_place() {
        for (text, part) in [
            ("listen = \"127.0.0.1:1\"\nlisen = \"x\"\n", ":2:1: unknown field `lisen`"),
            ("[auth]\n  access_ttl_s = \"soon\"\n", ":2:18: invalid type"),
            ("[auth]\nregistration = \"maybe\"\n", ":2:16: unknown variant `maybe`"),
            ("listen = \n", ":1:"),
            ("[storage]\nx = 1\n", ":1:2: unknown field `storage`"),
        ] {
            let (_dir, path) = file(text);
            let error = Loaded::read(Some(&path), env(&[])).unwrap_err().0;
            assert!(error.starts_with(&path.display().to_string()) && error.contains(part), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_names_its_source() {
        let (_dir, path) = file("# the address\nlisten = \"here\"\n");
        let error = Loaded::read(Some(&path), env(&[])).unwrap().check().unwrap_err().0;
        assert!(error.contains("listen is 'here'") && error.ends_with("relay.toml:2)"), "{error}");
        let error = Loaded::read(None, env(&[("FERRY_RELAY__LISTEN", "there")])).unwrap().check().unwrap_err().0;
        assert!(error.ends_with("(environment FERRY_RELAY__LISTEN)"), "{error}");
    }
}
