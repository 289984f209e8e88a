//! Verification: do rows and blobs agree, and, when asked, is every byte what its hash says? Changes nothing but the marks of damage.

use super::Content;
use super::read::runs;
use crate::service::ServiceResult;
use crate::store::content::{ChunkLocation, DegradedVersion, PackId, PackRow, RowFaults, Shard, ShardTotals, StorageTotals};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Chunks looked at in one step.
const STEP: usize = 4096;
/// Faults listed by name; more are counted.
const LISTED_MAX: usize = 1000;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Chunks looked at.
    pub chunks: u64,
    /// Bytes read and hashed; 0 without reading.
    pub bytes_read: u64,
    /// Chunks whose pack is gone or too short, or whose bytes are wrong.
    pub damaged: u64,
    /// The first of them, by hash.
    pub damaged_chunks: Vec<String>,
    /// Kept versions that name a damaged chunk: they cannot be served until a device sends the bytes again.
    pub versions_degraded: u64,
    /// The first of them.
    pub degraded_versions: Vec<DegradedLine>,
    /// Pack rows without a blob, or with one of another length.
    pub packs_wrong: u64,
    /// Packs that could not be looked for: in a region that does not answer, or that this process does not know. Nothing is said about their chunks.
    pub packs_unknown: u64,
    /// Blobs without a pack row. Harmless: an upload that is under way, or the sweep's next work.
    pub stray_blobs: u64,
    /// Node states that cannot be decoded.
    pub states_wrong: u64,
    /// Rows that disagree with each other.
    pub rows: RowFaults,
}

/// A version that cannot be served now, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DegradedLine {
    /// The namespace.
    pub space_id: String,
    /// The file.
    pub file_id: String,
    /// Its name.
    pub file_name: String,
    /// The version's number within the file.
    pub version_number: u64,
}

impl VerifyReport {
    /// Whether everything that is referred to is there and whole.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.packs_wrong == 0 && self.states_wrong == 0 && self.rows == RowFaults::default()
    }
}

/// How long the packs are of which a verification knows.
#[derive(Default)]
struct Lengths {
    /// The longest copy that a list showed.
    listed: BTreeMap<PackId, u64>,
    /// Packs that were looked for apart from the lists.
    asked: BTreeSet<PackId>,
}

impl Content {
    /// Verifies the store; with `read_data` every chunk is read and hashed.
    pub async fn verify(&self, read_data: bool) -> ServiceResult<VerifyReport> {
        let mut report = VerifyReport { rows: self.meta.check_rows().await?, ..VerifyReport::default() };
        // Rows before blobs: a pack stored meanwhile is a stray blob at worst, never a missing one.
        let packs = self.meta.packs().await?;
        let ids: Vec<PackId> = packs.iter().map(|p| p.id).collect();
        let copies = self.blobs.copies_of(&ids).await?;
        let mut listed: BTreeMap<(PackId, String), u64> = BTreeMap::new();
        for (region, rows) in self.blobs.list().await? {
            listed.extend(rows.into_iter().map(|b| ((b.id, region.clone()), b.length_bytes)));
        }
        // The longest copy of each pack: what can be served.
        let mut blobs = Lengths::default();
        for pack in &packs {
            for region in &copies[&pack.id] {
                let found = listed.remove(&(pack.id, region.clone()));
                let longest = blobs.listed.entry(pack.id).or_default();
                *longest = (*longest).max(found.unwrap_or(0));
                if found != Some(pack.length_bytes) {
                    self.note_pack(pack, region, found, &mut report).await?;
                }
            }
        }
        report.stray_blobs = listed.len() as u64;
        for shard in self.meta.shards() {
            self.verify_chunks(shard, &mut blobs, read_data, &mut report).await?;
        }
        let (total, first) = self.degraded(LISTED_MAX).await?;
        report.versions_degraded = total;
        report.degraded_versions = first.into_iter().map(line).collect();
        for namespace in self.meta.namespace_ids().await? {
            report.states_wrong += self.meta.check_states(namespace).await?;
        }
        Ok(report)
    }

    /// Counts a pack that a list did not show whole in a region, unless it is there after all, or need not be.
    async fn note_pack(&self, pack: &PackRow, region: &str, found: Option<u64>, report: &mut VerifyReport) -> ServiceResult<()> {
        // A pack that nothing stands in any more, healed by another or about to be swept, may be gone.
        if self.standing_in(pack.id).await?.is_empty() {
            return Ok(());
        }
        // Moved to another region since its rows were read, or stored there while the list was made.
        if !self.blobs.ask_copies(pack.id).await?.contains(region) {
            return Ok(());
        }
        let last: ServiceResult<_> = match self.blobs.store(region) {
            Ok(store) => store.read(pack.id, pack.length_bytes.saturating_sub(1), 1).await.map_err(Into::into),
            Err(unknown) => Err(unknown),
        };
        match last {
            Ok(Some(_)) if found.is_none() => {}
            Ok(_) => {
                tracing::error!(pack = %pack.id, region, expected_bytes = pack.length_bytes, "a pack is missing or has another length");
                report.packs_wrong += 1;
            }
            Err(error) => {
                tracing::warn!(pack = %pack.id, region, %error, "whether a pack is there cannot be said");
                report.packs_unknown += 1;
            }
        }
        Ok(())
    }

    /// Whether the pack of a chunk reaches as far as its end; of what the list does not show the stores are asked, once for each pack.
    async fn is_there(&self, chunk: &ChunkLocation, blobs: &mut Lengths, report: &mut VerifyReport) -> bool {
        let end = chunk.offset + u64::from(chunk.len);
        let listed = blobs.listed.get(&chunk.pack).copied().unwrap_or(0);
        if end <= listed || !blobs.asked.insert(chunk.pack) {
            return end <= listed;
        }
        let is_gone = self.blobs.is_gone(chunk.pack, end).await;
        if let Err(error) = &is_gone {
            tracing::warn!(pack = %chunk.pack, %error, "whether a pack is there cannot be said; its chunks are left as they are");
            report.packs_unknown += 1;
        }
        if matches!(is_gone, Ok(true)) {
            return false;
        }
        // It was stored or moved while the lists were made, or nobody can say: no mark for any chunk of it.
        blobs.listed.insert(chunk.pack, u64::MAX);
        true
    }

    /// The chunks that stand in a pack, whichever shard it is of.
    pub(super) async fn standing_in(&self, pack: PackId) -> ServiceResult<Vec<ChunkLocation>> {
        let mut found = Vec::new();
        for shard in self.meta.shards() {
            found.extend(self.meta.pack_chunks(shard, pack).await?);
        }
        Ok(found)
    }

    async fn verify_chunks(&self, shard: Shard, blobs: &mut Lengths, read_data: bool, report: &mut VerifyReport) -> ServiceResult<()> {
        let mut after = None;
        loop {
            let step = self.meta.stored_chunks(shard, after, STEP).await?;
            let Some(last) = step.last() else { return Ok(()) };
            after = Some(last.location.id);
            report.chunks += step.len() as u64;
            let mut locations: Vec<ChunkLocation> = step.iter().map(|s| s.location).collect();
            if read_data {
                // In the order in which they stand, so that neighbours are read at once.
                locations.sort_by_key(|l| (l.pack, l.offset));
                for run in runs(locations) {
                    for (id, bytes) in self.read_run(run).await? {
                        report.bytes_read += bytes.as_ref().map_or(0, |b| b.len() as u64);
                        if bytes.is_none() {
                            note(report, id.to_string());
                        }
                    }
                }
            } else {
                let mut bad: Vec<(ChunkLocation, &'static str)> = Vec::new();
                for location in locations {
                    if !self.is_there(&location, blobs, report).await {
                        bad.push((location, "missing"));
                    }
                }
                self.report_damage(&bad).await;
                for (location, _) in bad {
                    note(report, location.id.to_string());
                }
            }
        }
    }

    /// Totals.
    pub async fn storage_totals(&self) -> ServiceResult<StorageTotals> {
        let mut sum = StorageTotals::default();
        for shard in self.meta.shard_totals().await? {
            sum += shard.totals;
        }
        Ok(sum)
    }

    /// Totals of each shard.
    pub async fn shard_totals(&self) -> ServiceResult<Vec<ShardTotals>> {
        Ok(self.meta.shard_totals().await?)
    }
}

fn line(version: DegradedVersion) -> DegradedLine {
    DegradedLine {
        space_id: version.namespace.to_string(),
        file_id: version.node.to_string(),
        file_name: ferry_protocol::name::display_bytes(&version.name),
        version_number: version.number,
    }
}

fn note(report: &mut VerifyReport, chunk: String) {
    report.damaged += 1;
    if report.damaged_chunks.len() < LISTED_MAX {
        report.damaged_chunks.push(chunk);
    }
}
