//! The index on sled 0.34: one tree, so that a batch is one atomic `apply_batch`.
//!
//! sled checks its log records, but drops a damaged part of the log in silence: rows from there are then missing, not wrong. The seal (X3)
//! notices when the end of the log is gone; a hole in the middle it cannot notice.

use super::checked::{Backend, RawWrite};
use super::{CACHE_MAX_BYTES, Durability, IndexError, Row};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often sled writes relaxed batches by itself, in milliseconds.
const FLUSH_EVERY_MS: u64 = 2000;

/// How long an index that this process just closed may take to let go of its own lock.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// A sled directory.
pub(super) struct SledBackend {
    database: ::sled::Db,
}

impl SledBackend {
    /// Opens or creates the directory.
    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_MAX_BYTES as u64)
            .mode(::sled::Mode::LowSpace)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let deadline = Instant::now() + CLOSING_MAX;
        loop {
            match config.open() {
                // The index's own lock is held, so this is an earlier opening whose flusher thread has not ended yet.
                Err(::sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return Ok(Self { database: result.map_err(sorted)? }),
            }
        }
    }
}

fn sorted(error: ::sled::Error) -> IndexError {
    match error {
        ::sled::Error::Io(source) => IndexError::of_io("using its directory", source),
        // Another configuration or version: whole, but not for us (X5).
        ::sled::Error::Unsupported(why) => IndexError::Io { doing: "opening its directory", source: std::io::Error::other(why) },
        other => IndexError::damaged(other.to_string()),
    }
}

impl Backend for SledBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.database.get(key).map_err(sorted)?.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let rows = self.database.range(from..until).take(limit);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(sorted)).collect()
    }

    fn apply(&self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), IndexError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.database.apply_batch(batch).map_err(sorted)?;
        if durability == Durability::Durable {
            self.database.flush().map_err(sorted)?;
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, IndexError> {
        self.database.size_on_disk().map_err(sorted)
    }
}
