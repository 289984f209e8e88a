//! Backups: a directory that holds everything a relay needs to come back, made while it serves.
//!
//! ```text
//! manifest.json            what this is, and the hashes of all that follows but packs
//! packs-STAMP.tsv          one line a pack: id, length in bytes, SHA-256
//! database/STAMP/relay.db  (or NAME.dump of pg_dump: relay, the directory, and shard1, shard2 ...)
//! keys/jwt.key ...         the keys of the data directory
//! packs/ab/abcd...pack     the chunks
//! ```
//!
//! * **BK1** The database is read at one moment, packs after it, while the sweep leaves blobs alone: no row of the database lacks its pack.
//! * **BK2** The manifest is written last, whole, and durable: a backup that has one is complete. A second backup into the same directory adds what is new
//!   beside the older one's files, replaces the manifest, and removes what only the older one needed after that: broken off anywhere, one is whole.
//! * **BK3** A restore goes into what is empty, and puts the database in its place last: one that was broken off is begun again, never taken for done.
//! * **BK4** A restored relay has a new epoch: devices send again what it lacks, and delete nothing (I2, I3, I11).
//! * **BK5** Of several databases the shards are read first and the directory last, and no user moves between two of them meanwhile.

pub mod create;
pub mod manifest;
pub mod restore;
pub mod verify;

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Names of the keys that a backup takes along, as far as they are there.
pub(crate) const KEYS: [&str; 5] = ["jwt.key", "grant.key", "secrets.key", "tls.key.der", "tls.crt.der"];

/// Why a backup could not be made, checked or restored: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// What is there stands in the way.
    #[error("{0}")]
    InTheWay(String),
    /// The backup is not one, or not whole.
    #[error("{0}")]
    Damaged(String),
    /// A program that is needed is missing or failed.
    #[error("{0}")]
    Program(String),
    /// The relay's stores failed.
    #[error(transparent)]
    Service(#[from] crate::service::ServiceError),
    /// The relay's stores cannot be opened.
    #[error(transparent)]
    Start(#[from] crate::StartError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl BackupError {
    fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        let name = path.display().to_string();
        move |e| Self::File(name.clone(), e)
    }
}

/// The SHA-256 of a file, in hexadecimal, and its length.
fn hash_file(path: &Path) -> Result<(String, u64), BackupError> {
    let mut file = File::open(path).map_err(BackupError::file(path))?;
    let (mut hash, mut length, mut part) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut part).map_err(BackupError::file(path))?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), length));
        }
        hash.update(&part[..read]);
        length += read as u64;
    }
}

/// Writes a file whole and durable: nobody finds a part of it under its name.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let temp = path.with_extension("tmp");
    let written = (|| {
        let mut file = File::create(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temp, path)?;
        sync_folder(path)
    })();
    written.map_err(BackupError::file(path))
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
