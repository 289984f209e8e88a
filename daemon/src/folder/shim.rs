//! Stand-ins until the watcher and the ignore rules are merged.
#![allow(missing_docs)]
use crate::fs::Root;
use ferry_protocol::RelPath;
use std::sync::Arc;
pub const FILE_NAME: &[u8] = b".ferryignore";
#[derive(Debug)]
pub enum Hint {
    Paths(Vec<RelPath>),
    Rescan(String),
}
pub struct Watcher;
pub struct Health {
    pub exhausted: Option<String>,
}
impl Watcher {
    pub fn start(_root: &Arc<Root>, _f: impl Fn(Hint) + Send + 'static) -> Result<Self, std::io::Error> {
        Ok(Self)
    }
    pub fn health(&self) -> Health {
        Health { exhausted: None }
    }
}
pub struct Ignore;
#[derive(Clone)]
pub struct Rule {
    pub source: String,
    pub line: u64,
    pub pattern: String,
    pub negated: bool,
}
pub struct Verdict;
impl Verdict {
    pub fn is_ignored(&self) -> bool {
        false
    }
    pub fn rule(&self) -> Option<Rule> {
        None
    }
}
impl Ignore {
    pub fn load(_root: &Root, _d: bool) -> Self {
        Self
    }
    pub fn check(&self, _p: &RelPath, _d: bool) -> Verdict {
        Verdict
    }
    pub fn rules(&self) -> Vec<Rule> {
        Vec::new()
    }
}
