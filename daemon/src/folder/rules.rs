//! The folder's ignore rules as they are now: shared by the engine, the watcher and the commands; read anew when an ignore file changes.

use super::IgnoreRule;
use super::opening::Opened;
use crate::fs::Root;
use crate::fs::ignore::{IGNORE_FILE, IgnoreRules, Verdict};
use ferry_engine::{Filter, Kind, Look, LookResult, Stat};
use ferry_protocol::RelPath;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The rules, and which version of each ignore file they come from.
pub(super) struct Rules {
    shared: SharedRules,
    loaded: BTreeMap<RelPath, Stat>,
}

/// The rules for whoever asks.
#[derive(Clone)]
pub(super) struct SharedRules(Arc<RwLock<IgnoreRules>>);

impl SharedRules {
    /// What the rules say of a path.
    pub fn check(&self, path: &RelPath, is_dir: bool) -> Verdict {
        // A reader that panicked has changed nothing.
        self.0.read().unwrap_or_else(PoisonError::into_inner).check(path, is_dir)
    }
}

impl Filter for SharedRules {
    fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        self.check(path, is_dir).is_ignored()
    }
}

impl Rules {
    /// The built-in rules, if they are wanted, and those of the file at the root; files below are read when their directories are looked at.
    pub fn load(root: &Root, defaults: bool) -> Self {
        let mut rules = IgnoreRules::new();
        rules.set_defaults(defaults);
        if let Err(error) = rules.load(root, &RelPath::root()) {
            tracing::warn!(?error, "the ignore file of the folder cannot be read; only the built-in rules apply");
        }
        Self { shared: SharedRules(Arc::new(RwLock::new(rules))), loaded: BTreeMap::new() }
    }

    /// Turns the built-in rules on or off. Whether the rules changed: then everything is to be compared anew.
    pub fn set_defaults(&self, on: bool) -> bool {
        self.shared.0.write().unwrap_or_else(PoisonError::into_inner).set_defaults(on)
    }

    /// The rules, to share.
    pub fn shared(&self) -> SharedRules {
        self.shared.clone()
    }

    /// The directories whose ignore files are in force.
    pub fn files(&self) -> impl Iterator<Item = &RelPath> {
        self.loaded.keys()
    }

    /// Takes note of ignore files in what was looked at. Whether the rules changed: then everything is to be compared anew.
    pub fn notice(&mut self, root: &Root, look: &Look, result: &LookResult) -> bool {
        let LookResult::Listed(_, entries) = result else { return false };
        let asked = look.names.as_ref().is_none_or(|names| names.iter().any(|n| n.as_bytes() == IGNORE_FILE.as_bytes()));
        if !asked {
            return false;
        }
        let file = entries.iter().find(|e| e.name.as_bytes() == IGNORE_FILE.as_bytes()).and_then(|e| e.stat.as_ref().ok());
        let file = file.filter(|stat| stat.kind == Kind::File);
        let known = self.loaded.get(&look.path);
        match (file, known) {
            (None, None) => return false,
            (Some(stat), Some(known)) if stat.same_version(known) => return false,
            (Some(stat), _) => self.loaded.insert(look.path.clone(), *stat),
            (None, Some(_)) => self.loaded.remove(&look.path),
        };
        let mut rules = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        match rules.load(root, &look.path) {
            Ok(bad) => {
                for line in bad {
                    tracing::warn!(path = %look.path, line = line.line, reason = %line.reason, "a line of an ignore file is no rule");
                }
                true
            }
            Err(error) => {
                tracing::warn!(path = %look.path, ?error, "an ignore file cannot be read; the rules stay as they were");
                self.loaded.remove(&look.path);
                false
            }
        }
    }
}

/// The rules that are in force, in the order of their files.
pub(super) fn list(state: &Opened) -> Vec<IgnoreRule> {
    let built_in = crate::fs::ignore::BUILT_IN.iter().map(|p| ("built in".to_owned(), 0, (*p).to_owned()));
    let mut rules: Vec<_> = built_in.collect();
    for dir in state.rules.files() {
        let Ok(Some(text)) = crate::fs::ignore::read_ignore_file(&state.root, dir) else { continue };
        let source = if dir.is_root() { IGNORE_FILE.to_owned() } else { format!("{dir}/{IGNORE_FILE}") };
        for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let line = line.trim_end();
            if !line.is_empty() && !line.starts_with('#') {
                rules.push((source.clone(), index as u64 + 1, line.to_owned()));
            }
        }
    }
    let rule = |(source, line, pattern): (String, u64, String)| {
        let negated = pattern.starts_with('!');
        IgnoreRule { source, line, pattern, negated }
    };
    rules.into_iter().map(rule).collect()
}
