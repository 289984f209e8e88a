//! The layer above every library: one key space, checksums per value, the number of the last batch, and damage that is noticed once and
//! remembered (X1 to X3).

use super::{Durability, IndexError, IndexStore, Row, Table, WriteBatch};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The format of rows, written into every index (X5).
pub(super) const FORMAT: u32 = 1;

/// Bytes of checksum behind every value.
const CHECKSUM_BYTES: usize = 4;

/// The table number of this layer's own rows.
const SYSTEM: u8 = 0;
const FORMAT_KEY: &[u8] = b"\0format";
const SEQUENCE_KEY: &[u8] = b"\0sequence";

/// Marks an index in which damage was seen while it was open; the next opening sets it aside.
pub(super) const DAMAGE_MARK: &str = "damaged";
/// Holds the number of the last durable batch (X3).
pub(super) const SEAL: &str = "seal";

/// A write in the library's one key space: the key, and its value unless it is deleted.
pub(super) type RawWrite = (Vec<u8>, Option<Vec<u8>>);

/// What a library must do: one ordered key space, atomic batches.
pub(super) trait Backend: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Rows from `from` up to and without `until`, in order, at most `limit`.
    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, IndexError>;
    /// Applies all or nothing. The keys are sorted and each is there once.
    fn apply(&self, writes: Vec<RawWrite>, durability: Durability) -> Result<(), IndexError>;
    /// Bytes on disk.
    fn size_bytes(&self) -> Result<u64, IndexError>;
}

/// An [`IndexStore`] on a library.
pub(super) struct Checked<B: Backend> {
    backend: B,
    /// The directory of seal and damage mark; nothing for memory.
    dir: Option<PathBuf>,
    seal: Option<File>,
    state: Mutex<Sequence>,
    stopped: AtomicBool,
}

struct Sequence {
    /// Number of the last batch.
    last: u64,
    /// Whether a relaxed batch came after the last durable one.
    relaxed: bool,
}

impl<B: Backend> Checked<B> {
    /// Takes over an opened library: reads the format and the last batch's number, and compares it with the seal.
    pub(super) fn new(backend: B, dir: Option<PathBuf>) -> Result<Self, IndexError> {
        let seal = dir.as_deref().map(open_seal).transpose()?;
        let store = Self { backend, dir, seal, state: Mutex::new(Sequence { last: 0, relaxed: false }), stopped: AtomicBool::new(false) };
        match store.system_row(FORMAT_KEY)? {
            Some(bytes) => store.take_over(&bytes)?,
            None if !store.guarded(|| store.backend.range(&[0], &[u8::MAX], 1))?.is_empty() => {
                return Err(IndexError::damaged("rows without a format record"));
            }
            None if store.sealed_sequence()? > 0 => return Err(IndexError::damaged("an empty store where batches were durable")),
            None => {
                let row = (FORMAT_KEY.to_vec(), Some(sealed_value(FORMAT_KEY, &FORMAT.to_le_bytes())));
                store.guarded(|| store.backend.apply(vec![row], Durability::Durable))?;
            }
        }
        Ok(store)
    }

    fn take_over(&self, format: &[u8]) -> Result<(), IndexError> {
        let format = format.try_into().map(u32::from_le_bytes).map_err(|_| IndexError::damaged("the format record"))?;
        if format > FORMAT {
            return Err(IndexError::Newer { found: format, known: FORMAT });
        }
        let last = match self.system_row(SEQUENCE_KEY)? {
            Some(bytes) => bytes.as_slice().try_into().map(u64::from_le_bytes).map_err(|_| IndexError::damaged("the batch number"))?,
            None => 0,
        };
        let sealed = self.sealed_sequence()?;
        if last < sealed {
            return Err(IndexError::damaged(format!("the store ends at batch {last}, batch {sealed} was durable")));
        }
        self.sequence().last = last;
        Ok(())
    }

    fn system_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let raw = self.guarded(|| self.backend.get(key))?;
        raw.map(|value| opened_value(key, value)).transpose()
    }

    fn sequence(&self) -> std::sync::MutexGuard<'_, Sequence> {
        // A panic below the lock is caught inside it, so the state behind a poisoned lock is still whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The number in the seal; 0 when it is missing or was torn by a power cut: then the store's own word counts.
    fn sealed_sequence(&self) -> Result<u64, IndexError> {
        let Some(mut file) = self.seal.as_ref() else { return Ok(0) };
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).and_then(|()| file.take(64).read_to_end(&mut bytes)).map_err(|e| io("reading the seal", e))?;
        let [number @ .., _, _, _, _] = bytes.as_slice() else { return Ok(0) };
        let Ok(number) = <[u8; 8]>::try_from(number) else { return Ok(0) };
        Ok(if bytes[8..] == checksum(b"seal", &number) { u64::from_le_bytes(number) } else { 0 })
    }

    /// Not synced on purpose: a seal that the power takes back only claims less.
    fn write_seal(&self, last: u64) -> Result<(), IndexError> {
        let Some(file) = &self.seal else { return Ok(()) };
        let number = last.to_le_bytes();
        let mut bytes = number.to_vec();
        bytes.extend(checksum(b"seal", &number));
        file.write_all_at(&bytes, 0).map_err(|e| io("writing the seal", e))
    }

    /// Calls the library; a panic inside it is damage, and damage leaves a mark for the next opening.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        let result = catching(call);
        if let Err(IndexError::Damaged { detail }) = &result {
            self.mark_damage(detail);
        }
        result
    }

    fn mark_damage(&self, detail: &str) {
        self.stopped.store(true, Ordering::Release);
        if let Some(dir) = &self.dir {
            // Without the mark the next opening still has its own checks; nothing more can be done here.
            let _ = std::fs::write(dir.join(DAMAGE_MARK), detail);
        }
    }

    fn verified(&self, key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, IndexError> {
        opened_value(key, value).inspect_err(|e| self.mark_damage(&e.to_string()))
    }

    fn apply(&self, mut writes: Vec<RawWrite>, durability: Durability) -> Result<(), IndexError> {
        let mut sequence = self.sequence();
        if self.stopped.load(Ordering::Acquire) {
            return Err(IndexError::Stopped);
        }
        let last = sequence.last + 1;
        writes.push((SEQUENCE_KEY.to_vec(), Some(sealed_value(SEQUENCE_KEY, &last.to_le_bytes()))));
        let result = self.guarded(|| self.backend.apply(sorted(writes), durability));
        let result = result.and_then(|()| {
            *sequence = Sequence { last, relaxed: durability == Durability::Relaxed };
            if durability == Durability::Durable { self.write_seal(last) } else { Ok(()) }
        });
        // What is in memory and what is on disk may now differ: only opening again tells.
        result.inspect_err(|_| self.stopped.store(true, Ordering::Release))
    }
}

impl<B: Backend> IndexStore for Checked<B> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let key = raw_key(table.number(), key);
        let raw = self.guarded(|| self.backend.get(&key))?;
        raw.map(|value| self.verified(&key, value)).transpose()
    }

    fn range(&self, table: Table, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, IndexError> {
        if limit == 0 || until.is_some_and(|until| until <= from) {
            return Ok(Vec::new());
        }
        let from = raw_key(table.number(), from);
        let until = until.map_or_else(|| vec![table.number() + 1], |until| raw_key(table.number(), until));
        let mut rows = self.guarded(|| self.backend.range(&from, &until, limit))?;
        for (key, value) in &mut rows {
            *value = self.verified(key, std::mem::take(value))?;
            key.remove(0);
        }
        Ok(rows)
    }

    fn commit(&self, batch: &WriteBatch, durability: Durability) -> Result<(), IndexError> {
        if batch.is_empty() && (durability == Durability::Relaxed || !self.sequence().relaxed) {
            return Ok(());
        }
        let write = |write: &super::Write| {
            let key = raw_key(write.table.number(), &write.key);
            let value = write.value.as_deref().map(|value| sealed_value(&key, value));
            (key, value)
        };
        self.apply(batch.writes().iter().map(write).collect(), durability)
    }

    fn size_bytes(&self) -> Result<u64, IndexError> {
        self.guarded(|| self.backend.size_bytes())
    }
}

impl<B: Backend> Drop for Checked<B> {
    fn drop(&mut self) {
        // A clean end keeps the relaxed batches. A failure here loses what a kill would lose.
        if self.sequence().relaxed && !self.stopped.load(Ordering::Acquire) {
            let _ = self.apply(Vec::new(), Durability::Durable);
        }
    }
}

/// Runs a library's code; a panic in it comes back as damage.
pub(super) fn catching<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(IndexError::damaged(format!("the store gave up: {}", text.unwrap_or("no reason given"))))
    })
}

fn open_seal(dir: &Path) -> Result<File, IndexError> {
    let options = File::options().read(true).write(true).create(true).truncate(false).open(dir.join(SEAL));
    options.map_err(|e| io("opening the seal", e))
}

fn io(doing: &'static str, source: std::io::Error) -> IndexError {
    IndexError::Io { doing, source }
}

fn raw_key(table: u8, key: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(key.len() + 1);
    raw.push(table);
    raw.extend_from_slice(key);
    raw
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    // The length keeps a byte from moving between key and value unnoticed.
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

fn sealed_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&checksum(key, value));
    sealed
}

fn opened_value(key: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, IndexError> {
    let table = key.first().copied().unwrap_or(SYSTEM);
    let Some(length) = sealed.len().checked_sub(CHECKSUM_BYTES) else {
        return Err(IndexError::damaged(format!("a value of table {table} is too short")));
    };
    if sealed[length..] != checksum(key, &sealed[..length]) {
        return Err(IndexError::damaged(format!("a value of table {table} does not match its checksum")));
    }
    sealed.truncate(length);
    Ok(sealed)
}

/// In key order, the last write of each key: stores are faster that way, and order inside a batch means nothing below this line.
fn sorted(mut writes: Vec<RawWrite>) -> Vec<RawWrite> {
    writes.reverse();
    writes.sort_by(|a, b| a.0.cmp(&b.0));
    writes.dedup_by(|later, kept| later.0 == kept.0);
    writes
}

/// Writes another format into a store, as a newer version would have.
#[cfg(test)]
pub(super) fn write_format(backend: &impl Backend, format: u32) {
    let row = (FORMAT_KEY.to_vec(), Some(sealed_value(FORMAT_KEY, &format.to_le_bytes())));
    backend.apply(vec![row], Durability::Durable).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_writes_of_one_key_the_later_stays() {
        let write = |key: u8, value: Option<u8>| (vec![key], value.map(|v| vec![v]));
        let writes = sorted(vec![write(2, Some(1)), write(1, Some(1)), write(2, None), write(2, Some(3))]);
        assert_eq!(writes, [write(1, Some(1)), write(2, Some(3))]);
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        let sealed = sealed_value(b"\x01key", b"value");
        assert_eq!(hex::encode(&sealed), format!("{}{}", hex::encode("value"), hex::encode(checksum(b"\x01key", b"value"))));
        assert_eq!(opened_value(b"\x01key", sealed.clone()).unwrap(), b"value");
        assert!(opened_value(b"\x01kez", sealed.clone()).unwrap_err().is_damage());
        assert!(opened_value(b"\x01key", sealed[1..].to_vec()).unwrap_err().is_damage());
        assert!(opened_value(b"\x01key", vec![1, 2]).unwrap_err().is_damage());
    }
}
