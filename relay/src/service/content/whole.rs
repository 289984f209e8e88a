//! Files of several chunks are hashed as wholes before they are committed (CM3).

use super::stage::VerifiedFrames;
use super::{Content, Entry, off_thread, read};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::wire::NodeUpdate;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Dot, FileContent, Manifest, NodeId, NodeState, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Files whose whole hash was checked, by the event that wrote them.
pub(super) type Checked = BTreeSet<(NodeId, Dot)>;

impl Content {
    /// Hashes, as wholes, the files of several chunks that are new (CM3). Answers with the chunks that are missing, of any of the files.
    pub(super) async fn check_files(
        &self,
        entry: &Entry,
        nodes: &[NodeUpdate],
        inline: &VerifiedFrames,
    ) -> ServiceResult<Result<Checked, Vec<ChunkId>>> {
        let large = |v: &&Value| v.content.file().is_some_and(|f| f.manifest.chunks().len() > 1);
        let with_large: Vec<&NodeUpdate> = nodes.iter().filter(|n| n.state.body().values().iter().any(|v| large(&v))).collect();
        let mut checked = Checked::new();
        if with_large.is_empty() {
            return Ok(Ok(checked));
        }
        let ids: Vec<NodeId> = with_large.iter().map(|n| n.id).collect();
        let current: BTreeMap<NodeId, NodeState> =
            self.meta.nodes(entry.row.id, &ids).await?.into_iter().map(|n| (n.id, n.state)).collect();
        let mut missing = BTreeSet::new();
        for update in with_large {
            for value in update.state.body().values().iter().filter(large) {
                if current.get(&update.id).is_some_and(|s| s.body().covers(value.dot)) {
                    continue;
                }
                let Some(FileContent { manifest, .. }) = value.content.file() else { continue };
                if self.was_checked(entry, manifest).await? {
                    // What it needs is asked for again in the transaction.
                    checked.insert((update.id, value.dot));
                    continue;
                }
                match self.check_whole(entry, manifest.chunks(), Some(manifest.hash()), inline).await? {
                    Ok(_) => _ = checked.insert((update.id, value.dot)),
                    Err(lacking) => missing.extend(lacking),
                }
            }
        }
        if missing.is_empty() {
            return Ok(Ok(checked));
        }
        // The small files' missing chunks belong into the same answer, so that one more round is enough.
        let all: Vec<ChunkId> = nodes
            .iter()
            .flat_map(|n| n.state.body().values().iter().filter(|v| current.get(&n.id).is_none_or(|s| !s.body().covers(v.dot))))
            .filter_map(|v| v.content.file())
            .flat_map(|f| f.manifest.chunks().iter().map(|c| c.id))
            .filter(|id| inline.get(*id).is_none())
            .collect();
        missing.extend(self.missing_chunks(entry, &all).await?);
        Ok(Err(missing.into_iter().collect()))
    }

    /// The hash of these chunks, as stored, put together; an error if another one was promised. Streams them; missing and damaged ones are the answer.
    pub(super) async fn check_whole(
        &self,
        entry: &Entry,
        chunks: &[ChunkRef],
        promised: Option<ContentHash>,
        inline: &VerifiedFrames,
    ) -> ServiceResult<Result<ContentHash, Vec<ChunkId>>> {
        let stored: Vec<ChunkId> = chunks.iter().map(|c| c.id).filter(|id| inline.get(*id).is_none()).collect();
        let runs = match self.locate_all(entry.row.id, &stored, false).await? {
            Ok(runs) => runs,
            Err(missing) => return Ok(Err(missing)),
        };
        // A promised hash of the whole vouches for every chunk in it: they are hashed one by one only if it is wrong, to tell damage from a lie.
        let mut stored = self.read_ahead(runs.clone());
        let mut ready = std::collections::VecDeque::new();
        let mut hash = Sha256::new();
        for chunk in chunks {
            let bytes = match inline.get(chunk.id) {
                Some(bytes) => Some(bytes),
                None => {
                    if ready.is_empty()
                        && let Some(run) = stored.recv().await
                    {
                        ready.extend(run?);
                    }
                    ready.pop_front().and_then(|(_, bytes): read::ReadChunk| bytes)
                }
            };
            let Some(bytes) = bytes else { return self.damaged_of(runs, chunk.id).await.map(Err) };
            if bytes.len() != chunk.len as usize {
                return Err(wrong_length(chunk.id));
            }
            let check = {
                let (id, bytes) = (chunk.id, bytes.clone());
                async move { if promised.is_some() { Ok(true) } else { off_thread(move || ChunkId::of(&bytes) == id).await } }
            };
            let whole = off_thread(move || {
                hash.update(&bytes);
                hash
            });
            let is_good;
            (hash, is_good) = tokio::try_join!(whole, check)?;
            if !is_good {
                return self.damaged_of(runs, chunk.id).await.map(Err);
            }
        }
        let hash = ContentHash::from_bytes(hash.finalize().into());
        if let Some(promised) = promised.filter(|promised| *promised != hash) {
            let damaged = self.damaged(runs).await?;
            if !damaged.is_empty() {
                return Ok(Err(damaged));
            }
            let detail = "The chunks of a file, put together, have another hash than the file. Nothing was committed.";
            return Err(ServiceError::invalid("file_hash_mismatch", detail)
                .hint("Read the file again and send it anew.")
                .with("file_hash", promised.to_string()));
        }
        Ok(Ok(hash))
    }
}

impl Content {
    /// Which chunks of these runs are damaged or missing; each is reported.
    async fn damaged(&self, runs: Vec<read::Run>) -> ServiceResult<Vec<ChunkId>> {
        let mut out = Vec::new();
        for run in runs {
            out.extend(self.read_run(run).await?.into_iter().filter(|(_, bytes)| bytes.is_none()).map(|(id, _)| id));
        }
        Ok(out)
    }

    /// The same, where one is known to be missing.
    async fn damaged_of(&self, runs: Vec<read::Run>, missing: ChunkId) -> ServiceResult<Vec<ChunkId>> {
        let damaged = self.damaged(runs).await?;
        Ok(if damaged.is_empty() { vec![missing] } else { damaged })
    }

    /// Whether this very content was hashed as a whole before, for an earlier commit to the namespace.
    async fn was_checked(&self, entry: &Entry, manifest: &Manifest) -> ServiceResult<bool> {
        let found = self.meta.find_content(entry.caller.user_id, entry.row.id, manifest.hash(), manifest.size()).await?;
        let Some((_, node)) = found.filter(|(namespace, _)| *namespace == entry.row.id) else { return Ok(false) };
        let versions = self.meta.versions(entry.row.id, node).await?;
        match versions.iter().find(|v| v.hash == manifest.hash()) {
            Some(version) => Ok(self.meta.version_chunks(entry.row.id, version.version_id).await? == manifest.chunks()),
            None => Ok(false),
        }
    }
}

pub(super) fn wrong_length(chunk: ChunkId) -> ServiceError {
    ServiceError::invalid("chunk_length_mismatch", "A manifest gives a chunk another length than it has.").with("chunk", chunk.to_string())
}
