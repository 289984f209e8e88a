//! Answers that read the trees: why a path is as it is, which conflicts there are, and settling one.

use super::opening::Opened;
use super::relay_side::RelaySide;
use super::{CommandError, ConflictItem, ErrorKind, IgnoreRule, Issue, Keep, WhyReport, WhyVersion};
use crate::fs;
use crate::fs::ignore::Verdict;
use ferry_engine::{Conflict, DiskAction, DiskOutcome, Item, ItemContent, Kind, Stat, TreeError, WhyFacts};
use ferry_protocol::{Content, Dot, Name, RelPath};

fn tree_error(error: TreeError) -> CommandError {
    CommandError {
        kind: ErrorKind::Failed,
        code: "index_unusable",
        message: error.to_string(),
        hint: "check the disk that holds Ferry's state; see: ferry doctor".into(),
    }
}

/// Explains one path.
pub(super) fn why(state: &mut Opened, path: &RelPath, relay: &RelaySide) -> Result<WhyReport, CommandError> {
    let facts = state.engine.why(path).map_err(tree_error)?;
    let disk = fs::stat(&state.root, path);
    let issue = state.engine.issues().find(|(p, _)| *p == path).map(|(path, issue)| Issue {
        path: path.clone(),
        code: issue.code,
        message: issue.message.clone(),
        hint: issue.hint.to_owned(),
        since_ms: super::report::now_ms(),
    });
    let on_disk = disk.as_ref().ok().copied().flatten();
    if on_disk.is_none() && facts.item.is_none() && facts.wanted.is_none() && issue.is_none() {
        return Err(CommandError {
            kind: ErrorKind::NotFound,
            code: "not_found",
            message: format!("nothing is known of {path}"),
            hint: "check the spelling; see what the folder holds with: ferry folder show".into(),
        });
    }
    let rule = match state.rules.shared().check(path, on_disk.is_some_and(|s| s.kind == Kind::Dir)) {
        Verdict::Included => None,
        Verdict::Ignored { rule, source, line } => Some(IgnoreRule {
            source: source.map_or_else(|| "built in".to_owned(), |s| s.to_string()),
            line: line as u64,
            negated: false,
            pattern: rule,
        }),
    };
    let (word, sentence) = verdict(&facts, on_disk.as_ref(), issue.as_ref(), rule.as_ref(), relay);
    let mut details = Vec::new();
    if let Err(obstacle) = disk {
        details.push(format!("this disk says: {}", obstacle.code()));
    }
    if facts.is_unsent {
        details.push("the relay may not have the newest version yet".into());
    }
    Ok(WhyReport {
        path: path.clone(),
        state: word,
        sentence,
        local: on_disk.as_ref().map(local_version),
        synced: facts.item.as_ref().map(synced_version),
        remote: facts.wanted.as_ref().map(|_| remote_version(&facts)),
        rule,
        issue,
        details,
    })
}

/// The state in a word, and a sentence that says why.
fn verdict(
    facts: &WhyFacts,
    disk: Option<&Stat>,
    issue: Option<&Issue>,
    rule: Option<&IgnoreRule>,
    relay: &RelaySide,
) -> (&'static str, String) {
    if let Some(rule) = rule {
        return ("ignored", format!("It is ignored by the rule '{}' ({}).", rule.pattern, rule.source));
    }
    if let Some(issue) = issue {
        return ("blocked", format!("It waits because {}; {}.", issue.message, issue.hint));
    }
    if let Some(obstacle) = facts.obstacle {
        return ("blocked", format!("It waits ({}): {}.", obstacle.code(), obstacle.hint()));
    }
    if facts.is_being_read {
        return ("reading", "It changed here and is being read.".into());
    }
    if facts.is_missing {
        return (
            "missing",
            "It is gone from this disk; that is sent as a delete once it is certain, or approved if very much is gone.".into(),
        );
    }
    if facts.is_planned || (facts.wanted.is_some() && facts.item.is_none()) {
        return ("downloading", "A version from elsewhere is being fetched or placed.".into());
    }
    if facts.is_unsent {
        return match &relay.error {
            Some(error) => ("uploading", format!("It waits to be sent: {error}")),
            None => ("uploading", "It is being sent to the relay.".into()),
        };
    }
    match (disk, &facts.item) {
        (Some(stat), Some(item)) if item.stat.same_version(stat) => ("synced", "It is the same here and on the relay.".into()),
        (Some(_), _) => ("changed", "It changed here and has not been looked at yet.".into()),
        (None, _) => ("missing", "It is not on this disk.".into()),
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "link",
        Kind::Other => "other",
    }
}

fn local_version(stat: &Stat) -> WhyVersion {
    let (kind, mtime_ms) = (kind_word(stat.kind), Some(stat.mtime_ns / 1_000_000));
    WhyVersion { kind, size: stat.size, mtime_ms, mode: Some(stat.mode), ..WhyVersion::default() }
}

fn synced_version(item: &Item) -> WhyVersion {
    let hash = if let ItemContent::File(manifest) = &item.content { Some(manifest.hash().to_string()) } else { None };
    let mtime_ms = hash.is_some().then_some(item.mtime_ns / 1_000_000);
    WhyVersion { kind: kind_word(item.stat.kind), size: item.size(), mtime_ms, hash, mode: Some(item.mode), ..WhyVersion::default() }
}

fn remote_version(facts: &WhyFacts) -> WhyVersion {
    let mut version = WhyVersion::default();
    let Some((content, author)) = &facts.wanted else { return version };
    match content {
        Content::Dir => version.kind = "directory",
        Content::Symlink(_) => version.kind = "link",
        Content::Tombstone => version.kind = "deleted",
        Content::File(file) => {
            version.kind = "file";
            version.size = file.manifest.size();
            version.hash = Some(file.manifest.hash().to_string());
            version.mtime_ms = facts.wanted_attributes.map(|(_, mtime_ns)| mtime_ns / 1_000_000);
        }
    }
    version.mode = facts.wanted_attributes.map(|(mode, _)| mode);
    if let Some((author, wall_ms)) = author {
        version.device = Some(author.name.to_string());
        version.wall_ms = Some(*wall_ms);
    }
    version
}

fn conflict_id(conflict: &Conflict) -> String {
    let node = conflict.key.node.to_string();
    match conflict.key.copy {
        None => node[..16].to_owned(),
        Some(Dot { replica, counter }) => format!("{}-{}-{counter}", &node[..16], &replica.to_string()[..8]),
    }
}

/// The conflicted copies that are shown now.
pub(super) fn conflicts(state: &mut Opened) -> Result<Vec<ConflictItem>, CommandError> {
    let here = state.device;
    let conflicts = state.engine.conflicts().map_err(tree_error)?;
    let item = |c: Conflict| ConflictItem {
        id: conflict_id(&c),
        path: c.original,
        copy: c.copy,
        device: c.author.name.to_string(),
        wall_ms: c.wall_ms,
        size: c.size,
        copy_is_local: c.author.device == here,
    };
    Ok(conflicts.into_iter().map(item).collect())
}

/// Settles a conflict the way a person would with a file manager; what loses goes to the trash. The engine sees it as any local change.
pub(super) fn resolve(state: &mut Opened, id: &str, keep: Keep) -> Result<(), CommandError> {
    let mut conflicts = state.engine.conflicts().map_err(tree_error)?;
    let wanted = |c: &Conflict| conflict_id(c) == id || c.copy.to_string() == id;
    let Some(conflict) = conflicts.iter().position(wanted).map(|at| conflicts.swap_remove(at)) else {
        return Err(CommandError {
            kind: ErrorKind::NotFound,
            code: "not_found",
            message: format!("there is no conflict {id}"),
            hint: "list them with: ferry conflict list".into(),
        });
    };
    let stat = |path: &RelPath| fs::stat(&state.root, path).ok().flatten();
    let (Some(copy), original) = (stat(&conflict.copy), stat(&conflict.original)) else { return Err(changed()) };
    let copy_is_local = conflict.author.device == state.device;
    let keep_copy = match keep {
        Keep::Local | Keep::Remote if !copy_is_local && !is_ours(state, &conflict.original)? => return Err(neither_is_ours()),
        Keep::Local => copy_is_local,
        Keep::Remote => !copy_is_local,
        Keep::Current => false,
        Keep::Copy => true,
        Keep::Both => {
            let to = free_name(state, &conflict)?;
            return carry_out(state, vec![DiskAction::Move { from: conflict.copy.clone(), expect: copy, to }]);
        }
    };
    let mut actions = Vec::new();
    if !keep_copy {
        actions.push(DiskAction::Remove { path: conflict.copy.clone(), expect: copy });
    } else {
        if let Some(original) = original {
            actions.push(DiskAction::Remove { path: conflict.original.clone(), expect: original });
        }
        actions.push(DiskAction::Move { from: conflict.copy.clone(), expect: copy, to: conflict.original.clone() });
    }
    carry_out(state, actions)
}

/// Whether what has the name was written on this device.
fn is_ours(state: &mut Opened, original: &RelPath) -> Result<bool, CommandError> {
    let facts = state.engine.why(original).map_err(tree_error)?;
    Ok(facts.wanted.and_then(|(_, author)| author).is_some_and(|(author, _)| author.device == state.device))
}

fn neither_is_ours() -> CommandError {
    CommandError {
        kind: ErrorKind::Conflict,
        code: "neither_is_local",
        message: "neither of the two versions was written on this device".into(),
        hint: "say which one: --keep-current keeps the file that has the name, --keep-copy the copy, --keep-both both".into(),
    }
}

fn changed() -> CommandError {
    CommandError {
        kind: ErrorKind::Conflict,
        code: "changed_meanwhile",
        message: "one of the two files changed meanwhile; nothing was done".into(),
        hint: "look again with: ferry conflict list".into(),
    }
}

fn carry_out(state: &mut Opened, actions: Vec<DiskAction>) -> Result<(), CommandError> {
    let paths: Vec<RelPath> = actions
        .iter()
        .flat_map(|action| match action {
            DiskAction::Move { from, to, .. } => vec![from.clone(), to.clone()],
            other => vec![other.path().clone()],
        })
        .collect();
    let applied = fs::apply(&state.root, &actions);
    state.engine.handle_hints(&paths).map_err(tree_error)?;
    let outcomes = applied.map_err(|unsynced| {
        state.engine.owe_sync(unsynced.obstacle());
        super::commands::path_error(fs::PathError::Blocked(unsynced.obstacle()))
    })?;
    match outcomes.iter().find(|o| !matches!(o, DiskOutcome::Done(_))) {
        None => Ok(()),
        Some(DiskOutcome::Blocked(obstacle)) => Err(super::commands::path_error(fs::PathError::Blocked(*obstacle))),
        Some(_) => Err(changed()),
    }
}

/// A name for a copy that is to stay: the original's, with the device's name and a number.
fn free_name(state: &Opened, conflict: &Conflict) -> Result<RelPath, CommandError> {
    let Some((directory, name)) = conflict.original.split_last() else { return Err(changed()) };
    for number in 1..1000 {
        let label = if number == 1 { format!(" ({})", conflict.author.name) } else { format!(" ({} {number})", conflict.author.name) };
        let bytes = name.as_bytes();
        let dot = bytes.iter().skip(1).position(|b| *b == b'.').map_or(bytes.len(), |at| at + 1);
        let Ok(candidate) = Name::new([&bytes[..dot], label.replace('/', "_").as_bytes(), &bytes[dot..]].concat()) else { break };
        let path = directory.join(&candidate);
        if matches!(fs::stat(&state.root, &path), Ok(None)) {
            return Ok(path);
        }
    }
    Err(changed())
}
