//! The activity log: the newest events in a file, so that they survive a restart. Bounded (I14); lost lines after a power cut are no harm.

use crate::events::EventSink;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// When the file is set aside for a new one, in bytes. At most two are kept.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The log and how far the ring has been written into it.
#[derive(Debug)]
pub struct Activity {
    path: PathBuf,
    events: EventSink,
    written: Mutex<u64>,
}

impl Activity {
    /// Opens the log: the ring's ids continue where it ends (V1).
    pub fn open(path: PathBuf) -> Self {
        // A line that a crash cut short must not swallow the next one.
        let torn = std::fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|b| *b != b'\n'));
        if torn && let Ok(mut file) = OpenOptions::new().append(true).open(&path) {
            let _ = file.write_all(b"\n");
        }
        let last = read(&path).last().and_then(|line| line["id"].as_u64()).unwrap_or(0);
        Self { path, events: EventSink::new(last + 1), written: Mutex::new(last) }
    }

    /// Where events go.
    pub fn events(&self) -> &EventSink {
        &self.events
    }

    /// Writes what is new since the last call.
    pub fn flush(&self) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.events.since(*written, usize::MAX);
        let Some(last) = new.events.last().map(|e| e.id) else { return Ok(()) };
        let mut lines = Vec::new();
        for event in &new.events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() > FILE_MAX_BYTES {
            std::fs::rename(&self.path, older(&self.path))?;
            file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        }
        file.write_all(&lines)?;
        *written = last;
        Ok(())
    }

    /// The newest `limit` events since `since_ms` (milliseconds since 1970) of a folder (its id or name) or of all, oldest first.
    pub fn newest(&self, since_ms: i64, folder: Option<&str>, limit: usize) -> Vec<Value> {
        if let Err(e) = self.flush() {
            tracing::warn!("cannot write the activity log: {e}");
        }
        let mut found: Vec<Value> = read(&older(&self.path)).chain(read(&self.path)).collect();
        found.retain(|event| {
            event["ts_ms"].as_i64().unwrap_or(0) >= since_ms
                && folder.is_none_or(|f| event["folder_id"].as_str() == Some(f) || event["folder"].as_str() == Some(f))
        });
        found.drain(..found.len().saturating_sub(limit));
        found
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

fn read(path: &Path) -> impl Iterator<Item = Value> + use<> {
    // A line that a crash cut short is skipped.
    let lines = File::open(path).ok().map(|file| BufReader::new(file).lines().map_while(Result::ok));
    lines.into_iter().flatten().filter_map(|line| serde_json::from_str(&line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventKind;

    #[test]
    fn events_survive_a_restart_and_ids_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("activity.jsonl");
        let log = Activity::open(path.clone());
        log.events().emit(EventKind::FolderAdded);
        log.events().emit(EventKind::FolderRemoved);
        assert_eq!(log.newest(0, None, 1)[0]["type"], "folder_removed");
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"id\":").unwrap();
        let log = Activity::open(path);
        log.events().emit(EventKind::FolderAdded);
        assert_eq!(log.events().since(0, 10).events[0].id, 3);
        assert_eq!(log.newest(0, None, 10).len(), 3);
        assert_eq!(log.newest(i64::MAX, None, 10).len(), 0);
        assert_eq!(log.newest(0, Some("x"), 10).len(), 0);
    }
}
