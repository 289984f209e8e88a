//! How far the files of a commit have gone out, whichever way their chunks take: from memory while they are read, or read again afterwards.

use super::progress::{Moving, Progress};
use super::{Direction, Via};
use ferry_protocol::{ChunkId, RelPath};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One transfer for each file; over when this is dropped.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<ChunkId, Part>>);

struct Part {
    file: Arc<Moving>,
    /// Bytes of the chunk that are not there yet.
    left: u64,
}

impl Uploads {
    /// Begins a transfer for each file: chunks, their lengths in bytes, and where they stand.
    pub fn begin<'c>(progress: &Progress, chunks: impl Iterator<Item = (ChunkId, u64, &'c RelPath)> + Clone) -> Self {
        let mut totals: BTreeMap<&RelPath, u64> = BTreeMap::new();
        for (_, bytes, path) in chunks.clone() {
            *totals.entry(path).or_default() += bytes;
        }
        let begin = |(path, total): (&'c RelPath, u64)| (path, Arc::new(progress.begin(path.clone(), Direction::Upload, total)));
        let files: BTreeMap<&RelPath, Arc<Moving>> = totals.into_iter().map(begin).collect();
        let part = |(id, left, path)| Some((id, Part { file: files.get(path)?.clone(), left }));
        Self(Mutex::new(chunks.filter_map(part).collect()))
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<ChunkId, Part>> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes of a chunk went out. Whether it is one of these.
    pub fn sent(&self, chunk: &ChunkId, bytes: u64) -> bool {
        let mut parts = self.parts();
        let Some(part) = parts.get_mut(chunk) else { return false };
        let bytes = bytes.min(part.left);
        part.left -= bytes;
        part.file.add(bytes, Via::Relay);
        true
    }

    /// A chunk is there, or need not be sent.
    pub fn is_there(&self, chunk: &ChunkId) {
        if let Some(part) = self.parts().get_mut(chunk) {
            part.file.is_there(std::mem::take(&mut part.left));
        }
    }
}

/// Tells of the bytes of a request that went out which chunk they are of: the chunks go out one after the other.
pub(super) fn in_order(
    chunks: Vec<(ChunkId, u64)>,
    tell: impl Fn(&ChunkId, u64) + Send + Sync + 'static,
) -> Arc<dyn Fn(u64) + Send + Sync> {
    let at = Mutex::new((0, 0));
    Arc::new(move |mut bytes| {
        let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((id, len)) = chunks.get(at.0).filter(|_| bytes > 0) {
            let step = bytes.min(len - at.1);
            tell(id, step);
            bytes -= step;
            *at = if at.1 + step == *len { (at.0 + 1, 0) } else { (at.0, at.1 + step) };
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_whichever_way_they_go() {
        let progress = Progress::default();
        let (file, other) = (RelPath::parse(b"a").unwrap(), RelPath::parse(b"b").unwrap());
        let ids = [b"1", b"2", b"3"].map(|b| ChunkId::of(b));
        let uploads = Arc::new(Uploads::begin(&progress, [(ids[0], 10, &file), (ids[1], 20, &file), (ids[2], 5, &other)].into_iter()));
        let done = || progress.transfers().iter().map(|t| t.done_bytes).collect::<Vec<_>>();
        let tell = {
            let uploads = uploads.clone();
            in_order(vec![(ids[0], 10), (ids[1], 20)], move |id, bytes| {
                uploads.sent(id, bytes);
            })
        };
        tell(4);
        assert_eq!(done(), [4, 0]);
        tell(12);
        assert_eq!(done(), [16, 0]);
        uploads.is_there(&ids[1]);
        tell(100);
        assert_eq!(done(), [30, 0], "never more than there is");
        uploads.is_there(&ids[2]);
        assert_eq!(done(), [30, 5]);
        assert!(!uploads.sent(&ChunkId::of(b"?"), 1));
        drop(uploads);
        drop(tell);
        assert!(progress.transfers().is_empty());
    }
}
