//! The index on redb: one file, copy-on-write B-tree, a checksum on every page.

use super::checked::{Backend, RawWrite};
use super::{CACHE_MAX_BYTES, Durability, IndexError, Row};
use ::redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// After so many relaxed batches one is made durable: redb cannot reuse space that a durable state still needs.
const RELAXED_MAX: u32 = 16;

/// The rows as they were at one moment.
type Snapshot = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A redb file.
pub(super) struct RedbBackend {
    /// The rows as they are now, between two batches: to open them anew costs more than to read one. Dropped before the database.
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    database: Database,
    path: PathBuf,
    relaxed: AtomicU32,
}

impl RedbBackend {
    /// Opens or creates the file and checks every page of it, so that a damaged one is found now and not in the middle of work.
    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        let database =
            Database::builder().set_cache_size(CACHE_MAX_BYTES).set_check_integrity_on_open(true).create(path).map_err(sorted)?;
        let transaction = database.begin_write().map_err(sorted)?;
        transaction.open_table(ROWS).map_err(sorted)?;
        transaction.commit().map_err(sorted)?;
        Ok(Self { snapshot: Mutex::default(), database, path: path.to_owned(), relaxed: AtomicU32::new(0) })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        // Replaced as a whole.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows as they are now.
    fn rows(&self) -> Result<Arc<Snapshot>, IndexError> {
        let mut kept = self.kept();
        if let Some(rows) = &*kept {
            return Ok(rows.clone());
        }
        let rows = Arc::new(self.database.begin_read().map_err(sorted)?.open_table(ROWS).map_err(sorted)?);
        *kept = Some(rows.clone());
        Ok(rows)
    }

    fn durability(&self, wanted: Durability) -> ::redb::Durability {
        let relaxed = self.relaxed.load(Ordering::Relaxed);
        if wanted == Durability::Durable || relaxed >= RELAXED_MAX {
            self.relaxed.store(0, Ordering::Relaxed);
            ::redb::Durability::Immediate
        } else {
            self.relaxed.store(relaxed + 1, Ordering::Relaxed);
            ::redb::Durability::None
        }
    }
}

fn sorted(error: impl Into<::redb::Error>) -> IndexError {
    use ::redb::Error;
    match error.into() {
        Error::Io(source) => IndexError::of_io("using its file", source),
        Error::PreviousIo | Error::DatabaseClosed => IndexError::Stopped,
        // Somebody else's lock, and files of a newer redb, are whole: never set those aside (X4, X5).
        whole @ (Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch | Error::UpgradeRequired(_) | Error::Unsupported) => {
            IndexError::Io { doing: "opening its file", source: std::io::Error::other(whole.to_string()) }
        }
        other => IndexError::damaged(other.to_string()),
    }
}

impl Backend for RedbBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let table = self.rows()?;
        Ok(table.get_owned(key).map_err(sorted)?.map(|value| value.value().to_vec()))
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let table = self.rows()?;
        let mut rows = Vec::new();
        for row in table.range_owned::<&[u8]>(from..until).map_err(sorted)?.take(limit) {
            let (key, value) = row.map_err(sorted)?;
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(rows)
    }

    fn apply(&self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), IndexError> {
        // A snapshot keeps the space of what is replaced from being used again.
        *self.kept() = None;
        let mut transaction = self.database.begin_write().map_err(sorted)?;
        transaction.set_durability(self.durability(durability)).map_err(sorted)?;
        {
            let mut table = transaction.open_table(ROWS).map_err(sorted)?;
            for (key, value) in &writes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()).map_err(sorted)?,
                    None => table.remove(key.as_slice()).map_err(sorted)?,
                };
            }
        }
        let committed = transaction.commit().map_err(sorted);
        // One that was opened meanwhile is of before.
        *self.kept() = None;
        committed
    }

    fn size_bytes(&self) -> Result<u64, IndexError> {
        let metadata = std::fs::metadata(&self.path).map_err(|source| IndexError::Io { doing: "asking for its size", source })?;
        Ok(metadata.len())
    }
}
