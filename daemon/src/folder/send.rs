//! Bringing a commit to the relay: its chunks first, then the nodes.
//!
//! Few small chunks travel inside the commit: one round trip for a small edit. Otherwise the relay says what it lacks, that is sent in
//! requests of some megabytes, and the nodes follow. Chunks are read from the files and hashed anew; what no longer verifies has been
//! edited since, and is left out (H03). Nodes whose directory the relay does not know are left out too, so that they do not hold up the others.

use super::early::Early;
use super::progress::Progress;
use super::uploads::{Uploads, in_order};
use crate::fs::{self, Root};
use crate::relay::{RelayClient, RelayError};
use ferry_engine::{ChunkAt, Commit};
use ferry_protocol::limits::{CHUNK_BATCH_TARGET_BYTES, COMMIT_INLINE_MAX_BYTES};
use ferry_protocol::wire::{CommitReply, CommitRequest, InlineChunk, NodeUpdate};
use ferry_protocol::{ChunkId, CommitId, Epoch, NamespaceId, NodeId, ReplicaId, VerifiedChunk};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests with chunks under way at once.
const UPLOADS_MAX: usize = 3;
/// How often the relay may answer that chunks are missing before the commit is given up for now.
const ROUNDS_MAX: usize = 4;
/// From so many nodes on it is cheaper to ask first what is missing than to send the nodes twice.
const ASK_FIRST_NODES: usize = 64;

/// How a commit ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// The relay's answer: accepted, stale, or another epoch.
    Answer(CommitReply),
    /// These chunks are neither at the relay nor, any more, on this disk.
    Unreadable(BTreeSet<ChunkId>),
    /// The relay does not know the directories of some nodes. Whether it took the others.
    Unplaced {
        /// The relay's words.
        error: RelayError,
        /// Whether the other nodes were accepted.
        others_accepted: bool,
    },
    /// The relay takes nothing with these nodes in it: others wrote them, and it does not know those as members.
    Refused(BTreeSet<NodeId>),
    /// It could not be brought there.
    Failed(RelayError),
}

/// Brings one commit to the relay.
pub(super) struct Sender {
    pub root: Arc<Root>,
    pub relay: Arc<RelayClient>,
    /// Chunks that were uploaded, or kept, while their files were read.
    pub early: Option<Arc<Early>>,
    pub progress: Progress,
    pub namespace: NamespaceId,
    pub replica: ReplicaId,
    pub epoch: Epoch,
    pub commit: CommitId,
}

type Places = BTreeMap<ChunkId, ChunkAt>;
/// Chunks that need not be read again.
type Held = BTreeMap<ChunkId, VerifiedChunk>;

impl Sender {
    pub async fn send(self, commit: Commit) -> Sent {
        match self.try_send(commit).await {
            Ok(sent) => sent,
            Err(error) => Sent::Failed(error),
        }
    }

    async fn try_send(&self, commit: Commit) -> Result<Sent, RelayError> {
        let mut places = Places::new();
        for chunk in commit.chunks {
            match places.get_mut(&chunk.chunk.id) {
                Some(known) if known.source.is_none() => *known = chunk,
                Some(_) => {}
                None => {
                    places.insert(chunk.chunk.id, chunk);
                }
            }
        }
        let mut held: Held = match &self.early {
            Some(early) => early.take(|id| places.contains_key(id)).into_iter().map(|c| (c.id(), c)).collect(),
            None => Held::new(),
        };
        let bytes: usize = places.values().map(|c| c.chunk.len as usize).sum();
        let mut request = CommitRequest {
            commit: self.commit,
            epoch: self.epoch,
            base_seq: commit.base_seq,
            replica: self.replica,
            nodes: commit.nodes,
            chunks: Vec::new(),
        };
        if bytes <= COMMIT_INLINE_MAX_BYTES && places.values().all(|c| c.source.is_some()) && request.nodes.len() < ASK_FIRST_NODES {
            let (chunks, _) = read_chunks(self.root.clone(), places.values().cloned().collect(), &mut held).await;
            request.chunks = chunks.into_iter().map(|c| InlineChunk { id: c.id(), bytes: c.into_bytes() }).collect();
        }
        let uploads = self.begin_uploads(&places);
        let sent = self.send_chunks_and_nodes(request, &places, &mut held, &uploads).await;
        if let Some(early) = &self.early {
            early.watch(None);
        }
        sent
    }

    async fn send_chunks_and_nodes(
        &self,
        mut request: CommitRequest,
        places: &Places,
        held: &mut Held,
        uploads: &Arc<Uploads>,
    ) -> Result<Sent, RelayError> {
        if let Some(early) = self.early.as_ref().filter(|_| request.chunks.is_empty()) {
            early.settle().await;
        }
        if request.nodes.len() >= ASK_FIRST_NODES && !places.is_empty() {
            let ids: Vec<ChunkId> = places.keys().copied().collect();
            let missing = self.relay.missing(self.namespace, &ids).await?;
            if let Some(unreadable) = self.upload(places, missing, held, uploads).await? {
                return Ok(Sent::Unreadable(unreadable));
            }
        }
        let (mut unplaced, mut others_accepted) = (None, false);
        for _ in 0..ROUNDS_MAX {
            match (self.relay.commit(self.namespace, &request).await, &unplaced) {
                (Ok(CommitReply::MissingChunks(missing)), _) => {
                    request.chunks.clear();
                    if let Some(unreadable) = self.upload(places, missing, held, uploads).await? {
                        return Ok(Sent::Unreadable(unreadable));
                    }
                }
                (Ok(CommitReply::Accepted { .. }), Some(_)) => {
                    others_accepted = true;
                    break;
                }
                (Ok(answer), _) => return Ok(Sent::Answer(answer)),
                (Err(error), _) => {
                    if let Some(refused) = nodes_of(&error, "foreign_author") {
                        return Ok(Sent::Refused(refused));
                    }
                    let refused = nodes_of(&error, "unknown_parent").ok_or_else(|| error.clone())?;
                    take_out(&mut request.nodes, refused);
                    unplaced = Some(error);
                    if request.nodes.is_empty() {
                        break;
                    }
                }
            }
        }
        if let Some(error) = unplaced {
            return Ok(Sent::Unplaced { error, others_accepted });
        }
        Err(RelayError::Retry { after: None, reason: "The relay still lacks chunks that were just sent to it.".into() })
    }

    /// Whatever is sent from now on counts for the transfers of these files.
    fn begin_uploads(&self, places: &Places) -> Arc<Uploads> {
        let chunks = places.values().filter_map(|at| Some((at.chunk.id, u64::from(at.chunk.len), &at.source.as_ref()?.0)));
        let uploads = Arc::new(Uploads::begin(&self.progress, chunks));
        if let Some(early) = &self.early {
            early.watch(Some(uploads.clone()));
        }
        uploads
    }

    /// Sends chunks. Those that cannot be read, if there are any.
    async fn upload(
        &self,
        places: &Places,
        missing: Vec<ChunkId>,
        held: &mut Held,
        uploads: &Arc<Uploads>,
    ) -> Result<Option<BTreeSet<ChunkId>>, RelayError> {
        let slots = Arc::new(Semaphore::new(UPLOADS_MAX));
        let mut tasks = tokio::task::JoinSet::new();
        let mut unreadable = BTreeSet::new();
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        let mut batches = Vec::new();
        let mut wanted: Vec<&ChunkAt> = Vec::new();
        for id in missing {
            match places.get(&id) {
                Some(at) if at.source.is_some() => wanted.push(at),
                _ => {
                    unreadable.insert(id);
                }
            }
        }
        // In the order of the files, so that the disk is read forwards.
        wanted.sort_by(|a, b| key(a).cmp(&key(b)));
        let going: BTreeSet<ChunkId> = wanted.iter().map(|at| at.chunk.id).collect();
        places.keys().filter(|id| !going.contains(id)).for_each(|id| uploads.is_there(id));
        for at in wanted {
            bytes += at.chunk.len as usize;
            batch.push(at.clone());
            if bytes >= CHUNK_BATCH_TARGET_BYTES {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        for batch in batches {
            let permit = slots.clone().acquire_owned().await;
            let (root, relay, namespace) = (self.root.clone(), self.relay.clone(), self.namespace);
            let mut held: Held = batch.iter().filter_map(|at| held.remove_entry(&at.chunk.id)).collect();
            let uploads = uploads.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let (chunks, unreadable) = read_chunks(root, batch, &mut held).await;
                let lengths = chunks.iter().map(|c| (c.id(), c.bytes().len() as u64)).collect();
                let on_sent = in_order(lengths, move |id, bytes| {
                    uploads.sent(id, bytes);
                });
                let sent = if chunks.is_empty() { Ok(()) } else { relay.put_chunks_telling(namespace, chunks, Some(on_sent)).await };
                sent.map(|()| unreadable)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or_else(|_| Err(RelayError::Retry { after: None, reason: "An upload stopped.".into() }));
            unreadable.extend(done?);
        }
        Ok((!unreadable.is_empty()).then_some(unreadable))
    }
}

/// The nodes that were refused for this reason, if that is the error.
fn nodes_of(error: &RelayError, code: &str) -> Option<BTreeSet<NodeId>> {
    let problem = error.problem().filter(|p| p.code == code)?;
    let nodes: BTreeSet<NodeId> = problem.nodes.iter().filter_map(|id| id.parse().ok()).collect();
    (!nodes.is_empty()).then_some(nodes)
}

/// Takes nodes out of a commit, and what stands in them.
fn take_out(nodes: &mut Vec<NodeUpdate>, mut gone: BTreeSet<NodeId>) {
    loop {
        let before = nodes.len();
        nodes.retain(|update| {
            let stays = !gone.contains(&update.id) && !gone.contains(&update.state.places()[0].parent);
            if !stays {
                gone.insert(update.id);
            }
            stays
        });
        if nodes.len() == before {
            return;
        }
    }
}

fn key(at: &ChunkAt) -> Option<(&ferry_protocol::RelPath, u64)> {
    at.source.as_ref().map(|(path, _, offset)| (path, *offset))
}

/// Takes chunks from those held, reads and verifies the others; and those for which that did not work.
async fn read_chunks(root: Arc<Root>, chunks: Vec<ChunkAt>, held: &mut Held) -> (Vec<VerifiedChunk>, BTreeSet<ChunkId>) {
    let mut ready: Vec<VerifiedChunk> = Vec::with_capacity(chunks.len());
    let chunks: Vec<ChunkAt> = chunks.into_iter().filter(|at| held.remove(&at.chunk.id).map(|chunk| ready.push(chunk)).is_none()).collect();
    if chunks.is_empty() {
        return (ready, BTreeSet::new());
    }
    let ids: BTreeSet<ChunkId> = chunks.iter().map(|c| c.chunk.id).collect();
    let read = tokio::task::spawn_blocking(move || {
        let mut good = Vec::with_capacity(chunks.len());
        let mut bad = BTreeSet::new();
        for at in chunks {
            match at.source.as_ref().map(|(path, _, offset)| fs::read_chunk(&root, path, *offset, &at.chunk)) {
                Some(Ok(chunk)) => good.push(chunk),
                _ => {
                    bad.insert(at.chunk.id);
                }
            }
        }
        (good, bad)
    });
    let (good, bad) = read.await.unwrap_or((Vec::new(), ids));
    ready.extend(good);
    (ready, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Problem;
    use ferry_protocol::{Name, NodeState, Place, Stamp};

    fn node(id: u8, parent: u8) -> NodeUpdate {
        let place = Place { stamp: Stamp::default(), parent: NodeId::from_bytes([parent; 16]), name: Name::new("n").unwrap() };
        NodeUpdate { id: NodeId::from_bytes([id; 16]), state: NodeState::new(place) }
    }

    #[test]
    fn what_cannot_be_placed_is_left_out_with_what_stands_in_it() {
        let mut nodes = vec![node(5, 4), node(1, 0), node(4, 2), node(2, 9), node(3, 1)];
        let problem =
            Problem { code: "unknown_parent".into(), nodes: [node(2, 9).id.to_string()].into(), status: 422, ..Problem::default() };
        let refused = nodes_of(&RelayError::Blocked(problem.clone()), "unknown_parent").unwrap();
        take_out(&mut nodes, refused);
        assert_eq!(nodes.iter().map(|n| n.id.as_bytes()[0]).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(nodes_of(&RelayError::Blocked(Problem { code: "node_twice".into(), ..problem.clone() }), "unknown_parent"), None);
        assert_eq!(nodes_of(&RelayError::Blocked(Problem { nodes: ["?".into()].into(), ..problem }), "unknown_parent"), None);
    }
}
