//! Merges of texts on a simulated device: what is kept for them, and their answers.

use crate::sim::device::Device;
use crate::sim::disk::manifest_of;
use crate::sim::relay::SimRelay;
use ferry_engine::{Event, Keep, Merge, Merged, Obstacle};
use ferry_protocol::{ChunkId, ContentHash, Manifest, merge};
use std::collections::BTreeMap;

impl Device {
    /// Keeps a version that a merge may need, if it still stands there.
    pub(super) fn keep(&mut self, keep: Keep) {
        let stands = self.disk.stat(&keep.path).is_some_and(|stat| stat.same_version(&keep.stat));
        if let Some(bytes) = self.disk.read(&keep.path).filter(|bytes| stands && ContentHash::of(bytes) == keep.manifest.hash()) {
            self.kept.insert(keep.manifest.hash(), bytes);
        }
    }

    pub(super) fn answer_merge(&mut self, merge: Merge, relay: Option<&SimRelay>, peers: &BTreeMap<ChunkId, Vec<u8>>) {
        let get =
            |manifest: &Manifest| self.kept.get(&manifest.hash()).cloned().or_else(|| self.assemble(manifest, &merge.local, relay, peers));
        let result = match (get(&merge.base), get(&merge.newer), get(&merge.older)) {
            (_, Some(_), Some(_)) if self.disk.full => Merged::Unavailable(Obstacle::NoSpace),
            (Some(base), Some(newer), Some(older)) => match merge::lines(&base, &newer, &older) {
                Some(bytes) => {
                    let manifest = manifest_of(&bytes);
                    self.staged.insert(manifest.hash(), bytes.into());
                    self.merged += 1;
                    Merged::Clean(manifest)
                }
                None => Merged::Conflict,
            },
            (None, Some(_), Some(_)) => Merged::NoBase,
            _ => Merged::Unavailable(Obstacle::Unavailable),
        };
        self.note(format!("merge {:?} -> {result:?}", merge.path));
        self.engine.handle_merge(merge.id, result).expect("trees in memory");
    }

    /// The contents that this device gets next: of a merge, or of a fetch.
    pub(super) fn wanted(&self) -> Vec<&Manifest> {
        match (self.merges.front(), self.fetches.front()) {
            (Some(merge), _) => vec![&merge.base, &merge.newer, &merge.older],
            (None, fetch) => fetch.map(|f| &f.manifest).into_iter().collect(),
        }
    }

    /// Counts the merged versions that were taken in.
    pub(super) fn count_merges(&mut self) {
        self.replaced += self.engine.take_events().iter().filter(|e| matches!(e, Event::Merged { .. })).count() as u64;
    }

    /// How many versions are kept for merges.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Forgets what was kept for merges, as when there was no room for it.
    pub fn forget_kept(&mut self) {
        self.kept.clear();
    }
}
