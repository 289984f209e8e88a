//! One process per data directory: a lock on a file in it, released by the kernel however the process ends.

use crate::StartError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Held while a process serves a data directory.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock, or says who is in the way.
    pub(crate) fn take(data: &Path) -> Result<Self, StartError> {
        let path = data.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| StartError::Data(format!("cannot open {}: {e}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Busy(data.display().to_string())),
            Err(e) => Err(StartError::Data(format!("cannot lock {}: {e}", path.display()))),
        }
    }

    /// Whether a process holds the lock now.
    pub fn is_held(data: &Path) -> bool {
        matches!(Self::take(data), Err(StartError::Busy(_)))
    }
}
