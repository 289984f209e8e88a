//! Why the index did not answer, sorted by what the caller does next.

use std::io;
use std::path::PathBuf;

/// An error of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another process has it open (X5).
    #[error("another ferry daemon uses {}: stop it first, or choose another state directory", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by a newer version (X5); left as it is.
    #[error("the index has format {found}, this version knows format {known}: upgrade ferry")]
    Newer {
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The disk or its permissions; the index itself may be whole.
    #[error("the index cannot be used while {doing}: {source}; see that the disk has space and can be written, then start ferry again")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The files are damaged. Close the index and open it again: it is then set aside and a new one is made (X4).
    #[error("the index is damaged ({detail}); ferry sets it aside and scans the folders again when it restarts")]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// A commit failed earlier, so what is in memory and on disk may differ. Close the index and open it again.
    #[error("the index stopped after an earlier error: start ferry again")]
    Stopped,
}

impl IndexError {
    /// Whether the files are damaged, so that opening again makes a new index.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged { detail: detail.into() }
    }

    /// An error from a library's I/O: the disk's fault, or a sign that the files are not what they should be.
    pub(super) fn of_io(doing: &'static str, source: io::Error) -> Self {
        use io::ErrorKind as K;
        let of_the_disk = matches!(
            source.kind(),
            K::PermissionDenied
                | K::StorageFull
                | K::QuotaExceeded
                | K::ReadOnlyFilesystem
                | K::OutOfMemory
                | K::Interrupted
                | K::WouldBlock
        ) || (source.raw_os_error().is_some() && !matches!(source.kind(), K::InvalidInput | K::NotFound));
        if of_the_disk { Self::Io { doing, source } } else { Self::damaged(format!("{doing}: {source}")) }
    }
}
