//! Answers to what a folder is told and asked.

use super::driver::Driver;
use super::opening::Opened;
use super::{CommandError, ErrorKind, FolderCommand, IgnoreRule, IgnoreVerdict, Reply, TrashItem};
use crate::fs::ignore::Verdict;
use crate::fs::{self, PathError};
use ferry_engine::TreeError;
use ferry_protocol::RelPath;

/// Carries out a command. Its answer may find nobody who still waits for it.
pub(super) fn handle(driver: &mut Driver, command: FolderCommand) -> Result<(), TreeError> {
    match command {
        FolderCommand::Pause => driver.paused = true,
        FolderCommand::Resume => {
            driver.paused = false;
            driver.rescan_now();
            driver.follow_changes();
        }
        FolderCommand::Scan => driver.rescan_now(),
        FolderCommand::MergeText(on) => driver.set_merging(on),
        FolderCommand::WakeRelay { .. } => driver.relay.want_pull(),
        FolderCommand::Approve { reply } => decide(driver, reply, |state| state.engine.approve_deletes())?,
        FolderCommand::Reject { reply } => decide(driver, reply, |state| state.engine.reject_deletes())?,
        FolderCommand::Dismiss { reply } => {
            let count = driver.dismiss_notices();
            drop(reply.send(count));
        }
        FolderCommand::Flush { reply } => driver.begin_flush(reply),
        FolderCommand::Stop => {}
        other => query(driver, other)?,
    }
    Ok(())
}

/// Commands that read, or touch only the trash.
fn query(driver: &mut Driver, command: FolderCommand) -> Result<(), TreeError> {
    let Some(state) = &mut driver.state else {
        refuse(command);
        return Ok(());
    };
    match command {
        FolderCommand::TrashList { reply } => drop(reply.send(trash_list(state))),
        FolderCommand::TrashRestore { id, reply } => {
            let restored = fs::trash::restore(&state.root, &id, None).map_err(path_error);
            if let Ok(path) = &restored {
                state.engine.handle_hints(std::slice::from_ref(path))?;
            }
            drop(reply.send(restored));
        }
        FolderCommand::TrashPurge { older_than_ms, ids, reply } => {
            let before = super::report::now_ms() - i64::try_from(older_than_ms).unwrap_or(i64::MAX);
            let purged = if ids.is_empty() { fs::trash::purge(&state.root, before) } else { fs::trash::purge_ids(&state.root, &ids) };
            drop(reply.send(purged.map(|n| n as u64).map_err(path_error)));
        }
        FolderCommand::IgnoreCheck { paths, reply } => {
            let verdicts = paths.into_iter().map(|(path, is_dir)| verdict(state, path, is_dir)).collect();
            drop(reply.send(Ok(verdicts)));
        }
        FolderCommand::IgnoreList { reply } => drop(reply.send(Ok(super::rules::list(state)))),
        FolderCommand::Transfers { reply } => drop(reply.send(Ok(driver.progress.transfers()))),
        FolderCommand::Why { path, reply } => drop(reply.send(super::answers::why(state, &path, &driver.relay))),
        FolderCommand::Conflicts { reply } => drop(reply.send(super::answers::conflicts(state))),
        FolderCommand::ResolveConflict { id, keep, reply } => {
            let result = super::answers::resolve(state, &id, keep);
            drop(reply.send(result));
        }
        _ => {}
    }
    Ok(())
}

fn decide(driver: &mut Driver, reply: Reply<u64>, decision: impl FnOnce(&mut Opened) -> Result<u64, TreeError>) -> Result<(), TreeError> {
    let Some(state) = &mut driver.state else {
        drop(reply.send(Err(not_open())));
        return Ok(());
    };
    if state.engine.held_deletes().is_none() {
        drop(reply.send(Err(CommandError {
            kind: ErrorKind::NotFound,
            code: "nothing_held",
            message: "no deletes are held in this folder".into(),
            hint: "see: ferry status".into(),
        })));
        return Ok(());
    }
    let count = decision(state)?;
    drop(reply.send(Ok(count)));
    Ok(())
}

fn not_open() -> CommandError {
    CommandError {
        kind: ErrorKind::Temporary,
        code: "folder_not_open",
        message: "the folder is not open now".into(),
        hint: "see: ferry status".into(),
    }
}

/// Answers a question while the folder is not open.
fn refuse(command: FolderCommand) {
    match command {
        FolderCommand::TrashList { reply } => drop(reply.send(Err(not_open()))),
        FolderCommand::TrashRestore { reply, .. } => drop(reply.send(Err(not_open()))),
        FolderCommand::TrashPurge { reply, .. } => drop(reply.send(Err(not_open()))),
        FolderCommand::IgnoreCheck { reply, .. } => drop(reply.send(Err(not_open()))),
        FolderCommand::IgnoreList { reply } => drop(reply.send(Err(not_open()))),
        FolderCommand::Transfers { reply } => drop(reply.send(Err(not_open()))),
        FolderCommand::Why { reply, .. } => drop(reply.send(Err(not_open()))),
        FolderCommand::Conflicts { reply } => drop(reply.send(Err(not_open()))),
        FolderCommand::ResolveConflict { reply, .. } => drop(reply.send(Err(not_open()))),
        _ => {}
    }
}

fn trash_list(state: &Opened) -> Result<Vec<TrashItem>, CommandError> {
    let entries = fs::trash::list(&state.root).map_err(path_error)?;
    Ok(entries
        .into_iter()
        .map(|e| TrashItem {
            size: e.stat.size,
            trashed_ms: e.time_ms,
            reason: match e.reason {
                fs::trash::TrashReason::Replaced => "replaced",
                fs::trash::TrashReason::Removed => "removed",
                fs::trash::TrashReason::Moving => "moving",
            },
            path: e.path,
            id: e.id,
        })
        .collect())
}

fn verdict(state: &Opened, path: RelPath, is_dir: bool) -> IgnoreVerdict {
    match state.rules.shared().check(&path, is_dir) {
        Verdict::Included => IgnoreVerdict { path, ignored: false, rule: None },
        Verdict::Ignored { rule, source, line } => {
            let source = source.map_or_else(|| "built in".to_owned(), |path| path.to_string());
            let rule = IgnoreRule { source, line: line as u64, negated: false, pattern: rule };
            IgnoreVerdict { path, ignored: true, rule: Some(rule) }
        }
    }
}

/// What went wrong on the disk, for whoever asked.
pub(super) fn path_error(error: PathError) -> CommandError {
    match error {
        PathError::Gone => CommandError {
            kind: ErrorKind::NotFound,
            code: "not_found",
            message: "there is no such entry".into(),
            hint: "list what there is with: ferry trash list".into(),
        },
        PathError::Blocked(obstacle) => CommandError {
            kind: ErrorKind::Failed,
            code: obstacle.code(),
            message: format!("the disk does not allow it ({})", obstacle.code()),
            hint: obstacle.hint().into(),
        },
    }
}
