//! Stand-ins for what is merged separately: a folder's task that only reports `scanning`, and the relay client's types.

use super::{COMMANDS_MAX, FolderCommand, FolderConfig, FolderDeps, FolderHandle, FolderStatus};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Stand-in for the relay client.
#[derive(Debug)]
pub struct RelayClient;

/// Stand-in for the bandwidth limits.
#[derive(Debug, Default)]
pub struct Bandwidth;

/// A task that reports `scanning` and answers nothing.
pub fn spawn(config: FolderConfig, deps: FolderDeps) -> FolderHandle {
    let (commands, mut inbox) = mpsc::channel(COMMANDS_MAX);
    let status = FolderStatus::starting(config.id, config.name, config.path, jiff::Timestamp::now().as_millisecond());
    let (status_tx, status_rx) = watch::channel(Arc::new(status));
    let task = tokio::spawn(async move {
        let _held = (status_tx, deps);
        while let Some(command) = inbox.recv().await {
            if matches!(command, FolderCommand::Stop) {
                break;
            }
        }
    });
    FolderHandle::new(commands, status_rx, task)
}
