//! Answers that read the trees: why a path is as it is, which conflicts there are.

use super::opening::Opened;
use super::relay_side::RelaySide;
use super::{CommandError, ConflictItem, Keep, WhyReport, WhyVersion};
use crate::fs;
use ferry_protocol::RelPath;

pub(super) fn why(state: &Opened, path: &RelPath, relay: &RelaySide) -> Result<WhyReport, CommandError> {
    let stat = fs::stat(&state.root, path);
    let issue = state.engine.issues().find(|(p, _)| *p == path);
    let local = stat.as_ref().ok().and_then(|s| s.as_ref()).map(|s| WhyVersion { kind: "file", size: s.size, ..WhyVersion::default() });
    let _ = relay;
    Ok(WhyReport {
        path: path.clone(),
        state: if issue.is_some() { "blocked" } else { "synced" },
        sentence: issue.map_or_else(String::new, |(_, i)| format!("{}: {}", i.message, i.hint)),
        local,
        synced: None,
        remote: None,
        rule: None,
        issue: None,
        details: Vec::new(),
    })
}

pub(super) fn conflicts(_state: &Opened) -> Result<Vec<ConflictItem>, CommandError> {
    Ok(Vec::new())
}

pub(super) fn resolve(_state: &mut Opened, _id: &str, _keep: Keep) -> Result<(), CommandError> {
    Ok(())
}
