//! One process per data directory: a lock on a file in it, released by the kernel however the process ends.

use crate::StartError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Held while a process serves a data directory.
#[derive(Debug)]
pub struct DataLock {
    file: File,
}

impl DataLock {
    /// Takes the lock, or says who is in the way.
    pub(crate) fn take(data: &Path) -> Result<Self, StartError> {
        let path = data.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| StartError::Data(format!("cannot open {}: {e}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Busy(data.display().to_string())),
            Err(e) => Err(StartError::Data(format!("cannot lock {}: {e}", path.display()))),
        }
    }

    /// Leaves word in the lock's file where the relay listens, so that commands on this machine find it.
    pub(crate) fn announce(&mut self, listen: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(listen.as_bytes())
    }

    /// Where the relay that holds the lock said that it listens.
    pub(crate) fn announced(data: &Path) -> Option<String> {
        if !Self::is_held(data) {
            return None;
        }
        std::fs::read_to_string(data.join("lock")).ok().filter(|text| !text.is_empty())
    }

    /// Whether a process holds the lock now.
    pub fn is_held(data: &Path) -> bool {
        // Asking must not make a data directory.
        data.join("lock").exists() && matches!(Self::take(data), Err(StartError::Busy(_)))
    }
}
