//! Writing single keys of `ferry.toml` (G2).

use super::file::{self, Key};
use super::{ConfigError, read};
use crate::durable;
use std::path::Path;
use toml_edit::{Array, DocumentMut, Item, Table, Value};

/// Sets a key; makes the file if it does not exist. Answers the value as it now reads.
pub fn set(path: &Path, name: &str, text: &str) -> Result<String, ConfigError> {
    let key = Key::find(name)?;
    let value = match file::value(key, text)? {
        toml::Value::Boolean(b) => Value::from(b),
        toml::Value::Integer(n) => Value::from(n),
        toml::Value::Array(items) => Value::Array(items.iter().filter_map(plain).collect::<Array>()),
        _ => Value::from(text),
    };
    // Refused here with a message that names the key rather than a line of the file.
    file::ConfigFile::default().put(key, text).map_err(|e| ConfigError::new(format!("{name}: {e}")))?;
    let (section, field) = key.parts();
    let mut now = String::new();
    change(path, |document| {
        let table = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
        let table = table.as_table_like_mut().ok_or_else(|| ConfigError::new(format!("'{section}' is not a section")))?;
        match table.get_mut(field) {
            // In place, so that a comment behind the value stays.
            Some(Item::Value(old)) => {
                let decor = old.decor().clone();
                *old = value;
                *old.decor_mut() = decor;
            }
            _ => {
                table.insert(field, Item::Value(value));
            }
        }
        Ok(())
    })
    .map(|file| now = file.get(key).unwrap_or_default())?;
    Ok(now)
}

/// An item of a list as the editor writes it. Lists hold numbers or texts.
fn plain(item: &toml::Value) -> Option<Value> {
    item.as_integer().map(Value::from).or_else(|| item.as_str().map(Value::from))
}

/// Removes a key, so that its default is in force. Answers whether it was set.
pub fn unset(path: &Path, name: &str) -> Result<bool, ConfigError> {
    let (section, field) = Key::find(name)?.parts();
    let mut was_set = false;
    change(path, |document| {
        if let Some(table) = document.get_mut(section).and_then(Item::as_table_like_mut) {
            was_set = table.remove(field).is_some();
        }
        Ok(())
    })?;
    Ok(was_set)
}

fn change(path: &Path, edit: impl FnOnce(&mut DocumentMut) -> Result<(), ConfigError>) -> Result<file::ConfigFile, ConfigError> {
    let text = read(path)?;
    file::parse(&text, path)?;
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| ConfigError::new(e.message().replace('\n', " ")))?;
    edit(&mut document)?;
    let changed = document.to_string();
    let file = file::parse(&changed, path)?;
    if changed != text {
        let cannot = |e: std::io::Error| ConfigError::new(format!("cannot write {}: {e}", super::shown(path)));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(cannot)?;
        }
        durable::replace(path, changed.as_bytes()).map_err(cannot)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn comments_and_order_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("conf/ferry.toml");
        assert_eq!(set(&path, "lan.enabled", "off").unwrap(), "false");
        std::fs::write(&path, "# mine\n[lan]\nenabled = false # at work\n\n[limit] # of the house\nup = \"1MB/s\"\n").unwrap();
        set(&path, "lan.enabled", "true").unwrap();
        set(&path, "limit.down", "2MB/s").unwrap();
        set(&path, "brake.count", "50").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected =
            "# mine\n[lan]\nenabled = true # at work\n\n[limit] # of the house\nup = \"1MB/s\"\ndown = \"2MB/s\"\n\n[brake]\ncount = 50\n";
        assert_eq!(text, expected);
        assert!(unset(&path, "limit.up").unwrap());
        assert!(!unset(&path, "limit.up").unwrap());
        assert!(std::fs::read_to_string(&path).unwrap().contains("# of the house"));
    }

    #[test]
    fn every_key_can_be_set_to_its_default_and_unset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.toml");
        for key in KEYS.iter().filter(|k| !k.default.is_empty()) {
            assert_eq!(set(&path, key.name, key.default).unwrap(), key.default, "{}", key.name);
            assert!(unset(&path, key.name).unwrap());
        }
    }

    #[test]
    fn lists_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.toml");
        let peers = "10.0.0.2:4711,[fd00::2]:4711";
        assert_eq!(set(&path, "lan.peers", peers).unwrap(), peers);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#"["10.0.0.2:4711", "[fd00::2]:4711"]"#), "{text}");
    }

    #[test]
    fn nothing_wrong_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.toml");
        for (key, value) in
            [("lan.enabeld", "true"), ("lan.enabled", "2"), ("limit.up", "fast"), ("brake.percent", "0"), ("relay.url", "ftp://x")]
        {
            assert!(set(&path, key, value).is_err(), "{key}");
            assert!(!path.exists());
        }
        std::fs::write(&path, "[lan\n").unwrap();
        assert!(set(&path, "lan.enabled", "true").unwrap_err().message.contains("ferry.toml:1:"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[lan\n");
    }
}
