//! What the tests of this module stand on: an attached folder in a temporary directory, and a canary beside it.

use super::{FolderMarker, InstanceId, Root, Stage, stat};
use ferry_engine::disk::{DiskAction, DiskOutcome, Stat};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::{ChunkRef, ContentHash, Manifest, NamespaceId, RelPath, VerifiedChunk};
use std::path::PathBuf;
use std::sync::Arc;

/// A folder, and what lies beside it.
pub(super) struct Folder {
    pub temp: tempfile::TempDir,
    pub root: Arc<Root>,
}

pub(super) const MARKER: FolderMarker = FolderMarker { namespace: NamespaceId::from_bytes([1; 16]), instance: InstanceId([2; 16]) };

pub(super) fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// The manifest of some bytes.
pub(super) fn manifest(bytes: &[u8]) -> Manifest {
    let (mut chunks, mut at) = (Vec::new(), 0);
    while let Some(len) = ChunkSizes::for_file(bytes.len() as u64).next_cut(&bytes[at..], true) {
        chunks.push(ChunkRef { id: VerifiedChunk::of(&bytes[at..at + len]).id(), len: len as u32 });
        at += len;
    }
    Manifest::new(ContentHash::of(bytes), chunks).unwrap()
}

/// Bytes that cannot be compressed or cut at the maximum everywhere.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

impl Folder {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (folder, canary) = (temp.path().join("folder"), temp.path().join("canary"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "canary").unwrap();
        Self { root: Arc::new(Root::attach(&folder, &MARKER).unwrap()), temp }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join("folder").join(path)
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Stat {
        std::fs::write(self.path(path), bytes).unwrap();
        self.stat(path).unwrap()
    }

    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(path)).ok()
    }

    pub fn stat(&self, path: &str) -> Option<Stat> {
        stat(&self.root, &rel(path)).unwrap()
    }

    /// Stages some bytes.
    pub fn stage(&self, bytes: &[u8]) -> ContentHash {
        let manifest = manifest(bytes);
        let stage = Stage::begin(&self.root, &manifest).unwrap();
        for (_, offset, chunk) in stage.missing() {
            let at = offset as usize;
            stage.put(offset, &VerifiedChunk::of(bytes[at..at + chunk.len as usize].to_vec())).unwrap();
        }
        stage.finish().unwrap().content
    }

    /// Stages some bytes, and the action that puts them in place.
    pub fn put(&self, path: &str, expect: Option<Stat>, bytes: &[u8]) -> DiskAction {
        DiskAction::PutFile { path: rel(path), expect, content: self.stage(bytes), mode: 0o644, mtime_ns: 1_000_000_007 }
    }

    pub fn apply(&self, action: DiskAction) -> DiskOutcome {
        let mut outcomes = super::apply(&self.root, &[action]).unwrap();
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// The canary beside the folder, which nothing may change.
    pub fn assert_canary(&self) {
        let canary = self.temp.path().join("canary");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1);
        assert_eq!(std::fs::read(canary.join("file")).unwrap(), b"canary");
    }

    /// Names in one of Ferry's own directories.
    pub fn own(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(".ferry").join(dir)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|name| name != "log").collect()
    }
}
