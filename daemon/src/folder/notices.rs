//! Notices: many changes by another device, told until a person takes note, also after a restart (L23).

use super::driver::Driver;
use super::{CommandError, ErrorKind};
use crate::durable;
use ferry_engine::{Engine, MassChange, Trees};
use std::path::{Path, PathBuf};

/// The file in the folder's own directory of the state.
const FILE: &str = "notices.json";

/// What is kept of them.
pub(super) struct Notices {
    path: PathBuf,
    kept: Vec<MassChange>,
}

impl Notices {
    /// Those of the folder with this directory; the engine learns of them. A file that cannot be read tells nothing.
    pub fn open<T: Trees>(dir: &Path, engine: &mut Engine<T>) -> Self {
        let path = dir.join(FILE);
        let kept: Vec<MassChange> = durable::read_json(&path)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "old notices cannot be read");
                None
            })
            .unwrap_or_default();
        engine.recall_mass_changes(kept.clone());
        Self { path, kept }
    }

    /// Writes down what is new. A failure is said in the log: the status tells it all the same until the end of this run.
    pub fn keep<T: Trees>(&mut self, engine: &Engine<T>) {
        if engine.mass_changes().eq(self.kept.iter()) {
            return;
        }
        let now: Vec<MassChange> = engine.mass_changes().cloned().collect();
        for change in now.iter().filter(|change| !self.kept.iter().any(|k| k.device == change.device)) {
            tracing::warn!(device = %change.device, changed = change.changed, deleted = change.deleted, "another device changes much of the folder");
        }
        if let Err(error) = durable::replace_json(&self.path, &now) {
            tracing::warn!(path = %self.path.display(), %error, "a notice cannot be kept");
        }
        self.kept = now;
    }
}

impl Driver {
    /// To be called after a feed was heard.
    pub(super) fn keep_notices(&mut self) {
        if let Some(state) = &mut self.state {
            state.notices.keep(&state.engine);
        }
    }

    /// A person has taken note. How many there were.
    pub(super) fn dismiss_notices(&mut self) -> Result<u64, CommandError> {
        let count = self.state.as_mut().map_or(0, |state| state.engine.dismiss_mass_changes());
        if count == 0 {
            return Err(CommandError {
                kind: ErrorKind::NotFound,
                code: "nothing_to_dismiss",
                message: "there is no notice of many changes in this folder".into(),
                hint: "see: ferry status".into(),
            });
        }
        self.keep_notices();
        Ok(count)
    }
}

/// What is told of one, and what to do.
pub(super) fn sentence(change: &MassChange, folder: &str) -> (String, String) {
    let since = jiff::Timestamp::from_millisecond(change.since_ms).unwrap_or_default();
    // The time of its first change itself is too late to go back to.
    let before = jiff::Timestamp::from_millisecond(change.since_ms.saturating_sub(1000)).unwrap_or_default();
    let shown = ferry_protocol::name::display_bytes(change.name.as_bytes());
    let message = format!("{shown} changed {} and deleted {} of {} items since {since}", change.changed, change.deleted, change.total);
    let hint = format!(
        "if that is not meant, see what would be taken back with: ferry folder rewind '{folder}' --to {before} --only-by {} --dry-run; \
         otherwise: ferry folder dismiss '{folder}'",
        change.device
    );
    (message, hint)
}
