//! The configuration as an operator reads it: each setting with where it came from, and no secret.

use super::load::{Loaded, shape};
use super::{Config, ConfigError, without_password};
use std::fmt::Write;
use toml::{Table, Value};

/// Stands in the place of a secret.
pub const HIDDEN: &str = "(set)";

/// Names of settings whose values are secrets end with one of these. A path of a file that holds a secret is none.
const SECRETS: &[&str] = &["token", "secret", "password", "secret_key"];

impl Loaded {
    /// The settings as TOML, each line with its source; secrets are hidden.
    pub fn to_text(&self) -> Result<String, ConfigError> {
        let table = visible(&self.config)?;
        let mut out = String::new();
        let (sections, settings): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
        for (key, value) in settings {
            self.line(&mut out, key, key, value);
        }
        for (section, value) in sections {
            let _ = write!(out, "\n[{section}]\n");
            for (key, value) in value.as_table().into_iter().flatten() {
                self.line(&mut out, &format!("{section}.{key}"), key, value);
            }
        }
        Ok(out)
    }

    fn line(&self, out: &mut String, full: &str, key: &str, value: &Value) {
        let setting = format!("{key} = {value}");
        let source = self.sources.get(full).map_or("default".to_owned(), ToString::to_string);
        let _ = writeln!(out, "{setting:<60} # {source}");
    }

    /// The settings with their sources as JSON; secrets are hidden.
    pub fn to_json(&self) -> Result<serde_json::Value, ConfigError> {
        let config = serde_json::to_value(visible(&self.config)?).map_err(|e| ConfigError(e.to_string()))?;
        let sources: serde_json::Map<String, serde_json::Value> =
            keys(&shape()?, "").into_iter().map(|key| (key.clone(), self.source_json(&key))).collect();
        Ok(serde_json::json!({"config": config, "sources": sources}))
    }

    fn source_json(&self, key: &str) -> serde_json::Value {
        self.sources.get(key).map_or("default".to_owned(), ToString::to_string).into()
    }
}

/// The configuration without its secrets.
pub fn visible(config: &Config) -> Result<Table, ConfigError> {
    let mut table = Table::try_from(config).map_err(|e| ConfigError(e.to_string()))?;
    hide(&mut table);
    Ok(table)
}

fn hide(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(below) => hide(below),
            Value::String(text) if SECRETS.iter().any(|end| key.ends_with(end)) && !text.is_empty() => *text = HIDDEN.to_owned(),
            Value::String(text) => *text = without_password(text),
            Value::Array(list) => {
                for text in list.iter_mut() {
                    if let Value::String(text) = text {
                        *text = without_password(text);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The dotted names of all settings of a table.
fn keys(table: &Table, above: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (key, value) in table {
        let full = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match value {
            Value::Table(below) => out.extend(keys(below, &full)),
            _ => out.push(full),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown_once_and_no_secret() {
        let vars = [
            ("FERRY_RELAY__ADMIN__METRICS_TOKEN", "a very secret token"),
            ("FERRY_RELAY__DATABASE__URL", "postgres://u:a very secret word@h/db"),
            ("FERRY_RELAY__LOG__LEVEL", "debug"),
        ];
        let loaded = Loaded::read(None, vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap();
        let (text, json) = (loaded.to_text().unwrap(), loaded.to_json().unwrap());
        assert!(!text.contains("very secret") && !json.to_string().contains("very secret"), "{text}");
        assert!(text.contains("level = \"debug\"") && text.contains("# environment FERRY_RELAY__LOG__LEVEL"), "{text}");
        // What is printed is a configuration of the same settings, each once.
        let printed: Table = text.parse().unwrap();
        assert_eq!(keys(&printed, ""), keys(&shape().unwrap(), ""));
        assert_eq!(json["sources"]["log.level"], "environment FERRY_RELAY__LOG__LEVEL");
        assert_eq!(json["sources"]["log.format"], "default");
        assert_eq!(json["config"]["admin"]["metrics_token"], HIDDEN);
    }
}
