//! One daemon per state directory (K35).

use crate::problem::{Outcome, Problem};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held by the running daemon; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock, or says which process holds it.
    pub fn take(path: &Path) -> Outcome<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim();
                let who = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
                return Err(Problem::conflict("already_running", format!("a ferry daemon is already running here{who}"))
                    .hint("talk to it with: ferry status, or give this one another FERRY_HOME"));
            }
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }

    /// Whether somebody holds the lock.
    pub fn is_taken(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!InstanceLock::is_taken(&path));
        let first = InstanceLock::take(&path).unwrap();
        assert!(InstanceLock::is_taken(&path));
        let refused = InstanceLock::take(&path).unwrap_err();
        assert_eq!(refused.code, "already_running");
        assert!(refused.message.contains(&std::process::id().to_string()));
        drop(first);
        InstanceLock::take(&path).unwrap();
    }
}
