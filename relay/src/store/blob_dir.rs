//! Blobs in a directory: `ROOT/ab/abcdef….pack`, written to `ROOT/tmp/`, synced, renamed into place, the directory synced (BS1).

use super::StoreError;
use super::blob::{BlobRow, BlobStore};
use super::content::PackId;
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// No write of one blob takes longer than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// Blobs below one directory of this machine.
#[derive(Debug, Clone)]
pub struct DirBlobs {
    root: Arc<Path>,
}

impl DirBlobs {
    /// Opens (or creates) the directory, and removes what a crash left half written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let tmp = root.join("tmp");
        fs::create_dir_all(&tmp).map_err(io_error)?;
        remove_leftovers(&tmp).map_err(io_error)?;
        for first in 0..=255u8 {
            let dir = root.join(hex::encode([first]));
            match fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(e)),
                _ => {}
            }
        }
        sync_dir(root).map_err(io_error)?;
        Ok(Self { root: root.into() })
    }

    fn path(&self, id: PackId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(format!("{name}.pack"))
    }

    fn put_blocking(&self, id: PackId, parts: &[Bytes]) -> io::Result<()> {
        // Each write has a name of its own: a process that was killed may have left half of this very blob, and another may be writing it now.
        let mut own = [0; 8];
        getrandom::fill(&mut own).map_err(|e| io::Error::other(e.to_string()))?;
        let tmp = self.root.join("tmp").join(format!("{id}.{}", hex::encode(own)));
        let path = self.path(id);
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).open(&tmp)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_data()?;
            fs::rename(&tmp, &path)
        })();
        if written.is_err() {
            // The error that matters is the first one; a leftover is removed at the next start.
            let _ = fs::remove_file(&tmp);
        }
        written?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    fn list_blocking(&self) -> io::Result<Vec<BlobRow>> {
        let mut rows = Vec::new();
        for shard in fs::read_dir(&self.root)? {
            let shard = shard?;
            if shard.file_name().len() != 2 || !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".pack")).and_then(parse_id) else { continue };
                let meta = match entry.metadata() {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    other => other?,
                };
                let written = meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
                rows.push(BlobRow { id, length_bytes: meta.len(), written_at_ms: written });
            }
        }
        Ok(rows)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static) -> Result<T, StoreError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|e| StoreError::Unavailable(e.to_string()))?.map_err(io_error)
    }
}

/// Removes what a crash left half written. Young files may belong to another process that is writing them now: a command of the operator beside
/// a relay that serves.
fn remove_leftovers(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        let age = entry.metadata().and_then(|m| m.modified()).map(|at| at.elapsed().unwrap_or_default());
        match age {
            Ok(age) if age > LEFTOVER_AGE => remove_if_there(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn parse_id(text: &str) -> Option<PackId> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| PackId(bytes))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn io_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[async_trait]
impl BlobStore for DirBlobs {
    async fn put(&self, id: PackId, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.blocking(move |s| s.put_blocking(id, &parts)).await
    }

    async fn read(&self, id: PackId, offset: u64, len: usize) -> Result<Option<Bytes>, StoreError> {
        self.blocking(move |s| {
            let file = match File::open(s.path(id)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            // The length comes from a row; a file that is too short must not make us allocate for it.
            if offset.checked_add(len as u64).is_none_or(|end| file.metadata().map_or(true, |m| m.len() < end)) {
                return Ok(None);
            }
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(Some(Bytes::from(bytes)))
        })
        .await
    }

    async fn delete(&self, id: PackId) -> Result<(), StoreError> {
        self.blocking(move |s| remove_if_there(&s.path(id))).await
    }

    async fn list(&self) -> Result<Vec<BlobRow>, StoreError> {
        self.blocking(|s| s.list_blocking()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.blocking(|s| {
            let probe = s.root.join("tmp").join("probe");
            fs::write(&probe, b"ok")?;
            remove_if_there(&probe)
        })
        .await
    }
}
