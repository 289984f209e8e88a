//! A commit: many node states joined in one transaction, all or nothing.
//!
//! * **CM1** Numbers are given in commit order inside the writing transaction, so no reader skips one (I11).
//! * **CM2** The same commit again gives the same answer and changes nothing (I8, R4).
//! * **CM3** A file of several chunks is hashed as a whole before it is committed (I5); of one chunk, the chunk's hash is the file's.
//! * **CM4** A value that is new here was written by a device of a member, and not under the replica id of this run of the relay (I13).
//! * **CM5** A node that is new here, or moved, stands in the root or in a node that is here or comes with it (I10, R34).

use super::batch::Done;
use super::derive::{node_write, version_write};
use super::lanes::{Turn, Wish};
use super::settle::{Reached, put_nodes, rows_and_stands};
use super::stage::{Staged, VerifiedFrames, verify_frames};
use super::whole::{Checked, wrong_length};
use super::{Content, Entry};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::bus::Wake;
use crate::store::content::{CommitRecord, ContentTx, NamespaceRow, NodeRow, NodeWrite, Scope, VersionWrite};
use bytes::{Bytes, BytesMut};
use ferry_protocol::limits::LAMPORT_JUMP_MAX;
use ferry_protocol::wire::{ChunkFrame, CommitReply, CommitRequest, NodeUpdate, Role};
use ferry_protocol::{ChunkId, DeviceId, NamespaceId, NodeId, ReplicaId, UserId, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often a commit begins anew because the store changed under it.
const ATTEMPTS_MAX: usize = 5;
/// No counter may come near the end of its range.
const COUNTER_MAX: u64 = 1 << 62;

/// What is to be written of somebody's wish.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) writes: Vec<NodeWrite>,
    pub(super) versions: Vec<VersionWrite>,
    /// The highest counter after it.
    pub(super) max_counter: u64,
}

/// A commit as it came, with what can be known of it beforehand.
pub(super) struct Brought {
    pub(super) request: CommitRequest,
    digest: [u8; 32],
    /// The chunks that it carries.
    pub(super) inline: VerifiedFrames,
}

impl Brought {
    /// Checks what can be checked of a commit by itself.
    pub(super) async fn new(request: CommitRequest) -> ServiceResult<Self> {
        let digest = digest(&request)?;
        let mut ids = BTreeSet::new();
        if let Some(twice) = request.nodes.iter().find(|n| !ids.insert(n.id)) {
            return Err(ServiceError::invalid("node_twice", "A commit names each node once.").with("node", twice.id.to_string()));
        }
        let inline = verify_frames(as_frames(&request)).await?;
        Ok(Self { request, digest, inline })
    }

    /// The answer that is remembered for it.
    pub(super) fn record(&self, head_seq: u64, gapless: bool) -> CommitRecord {
        CommitRecord { digest: self.digest, head_seq, gapless }
    }
}

/// How one attempt ended.
enum Attempt {
    /// With this answer.
    Reply(CommitReply),
    /// A reused chunk is gone: stage without reuse.
    Restage,
    /// A file's chunks arrived meanwhile: hash it first.
    Recheck,
}

impl Content {
    /// Commits. [`CommitReply::Accepted`] means joined and durable; every other reply, and every error, that nothing was done;
    /// but where the store broke off while it committed nobody knows, and the same commit again finds out (CM2).
    pub async fn commit(&self, entry: &Entry, request: CommitRequest) -> ServiceResult<CommitReply> {
        let done = self.commit_unmeasured(entry, request).await;
        let result = match &done {
            Ok(CommitReply::Accepted { .. }) => "accepted",
            Ok(CommitReply::MissingChunks(_)) => "missing_chunks",
            Ok(CommitReply::Stale(_)) => "stale",
            Ok(CommitReply::EpochChanged(_)) => "epoch_changed",
            Err(_) => "error",
        };
        metrics::counter!("ferry_relay_sync_commits_total", "result" => result).increment(1);
        done
    }

    async fn commit_unmeasured(&self, entry: &Entry, request: CommitRequest) -> ServiceResult<CommitReply> {
        let identity = self.identity();
        if request.epoch != identity.epoch {
            return Ok(CommitReply::EpochChanged(identity.epoch));
        }
        let brought = Arc::new(Brought::new(request).await?);
        let lane = match self.turn(entry, Wish::Commit(brought.clone())).await {
            Turn::Done(Done { head_seq, gapless, .. }) => return Ok(CommitReply::Accepted { head_seq, gapless }),
            Turn::Failed(error) => return Err(error),
            Turn::Alone(lane) => lane,
        };
        let done = self.commit_alone(entry, &brought).await;
        drop(lane);
        done
    }

    /// A commit in a transaction of its own.
    pub(super) async fn commit_alone(&self, entry: &Entry, brought: &Brought) -> ServiceResult<CommitReply> {
        let Brought { request, inline, .. } = brought;
        self.precheck_quota(entry, &inline.chunks()).await?;
        let mut reuse = true;
        for is_last in (0..ATTEMPTS_MAX).map(|n| n + 1 == ATTEMPTS_MAX) {
            let checked = match self.check_files(entry, &request.nodes, inline).await? {
                Ok(checked) => checked,
                Err(missing) => return Ok(CommitReply::MissingChunks(missing)),
            };
            let staged = self.stage(entry, inline, reuse).await?;
            let attempt = self.attempt(entry, brought, &checked, &staged).await;
            match attempt {
                Ok(Attempt::Reply(reply @ CommitReply::Accepted { .. })) => return Ok(reply),
                Ok(Attempt::Reply(reply)) => {
                    self.discard(&staged).await;
                    if matches!(reply, CommitReply::MissingChunks(_)) {
                        // The others wait until these have come.
                        self.renew_leases(entry, &self.meta.held(entry.row.id, &chunks_of(&request.nodes)).await?).await?;
                    }
                    return Ok(reply);
                }
                Ok(Attempt::Restage) => reuse = false,
                Ok(Attempt::Recheck) => {}
                Err(error) if error.is_contended() && !is_last => super::pause(1).await,
                Err(error) => {
                    self.discard_after(&staged, &error).await;
                    return Err(error);
                }
            }
            self.discard(&staged).await;
        }
        Err(ServiceError::unavailable("The namespace changes faster than this commit can be checked. Try again."))
    }

    async fn attempt(&self, entry: &Entry, brought: &Brought, checked: &Checked, staged: &Staged) -> ServiceResult<Attempt> {
        let (namespace_id, user, request) = (entry.row.id, entry.caller.user_id, &brought.request);
        let mut tx = self.meta.begin(Scope::Namespace(namespace_id)).await?;
        let identity = self.identity_in(&mut *tx).await?;
        if request.epoch != identity.epoch {
            return Ok(Attempt::Reply(CommitReply::EpochChanged(identity.epoch)));
        }
        // The role is looked at again inside the transaction: it may have been taken away since (R21).
        let namespace = tx.namespace_for(namespace_id, user).await?.ok_or_else(ServiceError::not_found)?;
        super::check_membership(&entry.caller, &namespace, Role::Editor)?;
        if let Some(record) = tx.commit_records(namespace_id, user, &[request.commit]).await?.remove(&request.commit) {
            self.discard(staged).await;
            return repeated(record, brought.digest).map(Attempt::Reply);
        }
        let ids: Vec<NodeId> = request.nodes.iter().map(|n| n.id).collect();
        let (current, stands) = rows_and_stands(tx.placed(namespace_id, &ids).await?);
        let stale = stale(request, &current);
        if !stale.is_empty() {
            return Ok(Attempt::Reply(CommitReply::Stale(stale)));
        }
        let now_ms = self.clock.now_ms();
        let base_seq = self.numbers_after(&namespace, identity.replica)?;
        let joined = join_all(&namespace, base_seq, (request, entry.caller.device_id), &current, now_ms)?;
        check_authors(&mut *tx, entry, request, &current, identity.replica).await?;
        check_parents(&mut *tx, namespace_id, &joined.writes, &ids, &current).await?;
        let Some(new_bytes) = self.admit_rows(&mut *tx, entry, staged).await? else { return Ok(Attempt::Restage) };
        let missing = missing_of(&mut *tx, namespace_id, &joined.versions).await?;
        if !missing.is_empty() {
            return Ok(Attempt::Reply(CommitReply::MissingChunks(missing)));
        }
        if joined.versions.iter().any(|v| v.chunks.len() > 1 && !checked.contains(&(v.row.node, v.row.dot))) {
            return Ok(Attempt::Recheck);
        }
        let gapless = request.base_seq == namespace.head_seq;
        let mut head_seq = namespace.head_seq;
        if !joined.writes.is_empty() {
            self.keep_gap(&mut *tx, &namespace, base_seq, identity.replica).await?;
            head_seq = base_seq + joined.writes.len() as u64;
        }
        let reached = Reached { head_seq, max_counter: joined.max_counter, now_ms };
        put_nodes(&mut *tx, &namespace, &joined.writes, stands, reached).await?;
        tx.add_versions(namespace_id, &joined.versions).await?;
        tx.add_commit_records(namespace_id, &[(user, request.commit, brought.record(head_seq, gapless))], now_ms).await?;
        self.charge(&mut *tx, entry, new_bytes).await?;
        tx.commit().await?;
        if !joined.writes.is_empty() {
            self.bus.publish(Wake::feed(namespace_id, head_seq));
        }
        Ok(Attempt::Reply(CommitReply::Accepted { head_seq, gapless }))
    }
}

/// Joins every node with what is there, numbers those that change after `base_seq`, and collects the file contents that are new.
pub(super) fn join_all(
    namespace: &NamespaceRow,
    base_seq: u64,
    (request, device): (&CommitRequest, Option<DeviceId>),
    current: &BTreeMap<NodeId, NodeRow>,
    now_ms: i64,
) -> ServiceResult<Changes> {
    let mut out = Changes { max_counter: namespace.max_counter, ..Changes::default() };
    for update in &request.nodes {
        check_counters(namespace.max_counter, update, current.get(&update.id))?;
        let before = current.get(&update.id).map(|row| &row.state);
        let mut state = before.unwrap_or(&update.state).clone();
        if before.is_some() && !state.join(&update.state) {
            continue;
        }
        let is_new = |v: &&Value| before.is_none_or(|b| b.body().value(v.dot).is_none());
        let versions = state.body().values().iter().filter(is_new);
        out.versions.extend(versions.filter_map(|v| version_write(namespace.id, update.id, v, now_ms)));
        out.max_counter = out.max_counter.max(state.max_counter());
        let seq = base_seq + out.writes.len() as u64 + 1;
        let writer = device.map(|device| (request.replica, device));
        out.writes.push(node_write(update.id, seq, state, before, writer));
    }
    Ok(out)
}

/// The devices that the caller is not and that wrote values that the relay has not seen, with the nodes of those values (CM4).
pub(super) fn other_authors(
    caller: &Caller,
    request: &CommitRequest,
    current: &BTreeMap<NodeId, NodeRow>,
    own: ReplicaId,
) -> ServiceResult<BTreeMap<DeviceId, BTreeSet<NodeId>>> {
    let mut others: BTreeMap<DeviceId, BTreeSet<NodeId>> = BTreeMap::new();
    for update in &request.nodes {
        for value in update.state.body().values() {
            if current.get(&update.id).is_some_and(|row| row.state.body().covers(value.dot)) {
                continue;
            }
            // The stamp of content that a device put back is still that of the event that wrote it, perhaps one of the relay's own.
            if value.dot.replica == own {
                let detail = "A value claims to be written by this relay, which does not know it.";
                return Err(ServiceError::invalid("foreign_replica", detail).with("node", update.id.to_string()));
            }
            if !is_own(caller, value.author.device) {
                others.entry(value.author.device).or_default().insert(update.id);
            }
        }
    }
    Ok(others)
}

/// Whether this is who is calling: the device, or the web access of the user. That the user is a member was looked at before.
pub(super) fn is_own(caller: &Caller, device: DeviceId) -> bool {
    Some(device) == caller.device_id || device == web_device(caller.user_id)
}

/// Of these devices, those that belong to nobody who may, or once could, write in the namespace.
pub(super) async fn strangers(
    tx: &mut dyn ContentTx,
    namespace: NamespaceId,
    devices: impl IntoIterator<Item = DeviceId>,
) -> ServiceResult<BTreeSet<DeviceId>> {
    let mut strangers: BTreeSet<DeviceId> = devices.into_iter().collect();
    if strangers.is_empty() {
        return Ok(strangers);
    }
    for (user, _) in tx.members(namespace).await? {
        strangers.remove(&web_device(user));
    }
    if !strangers.is_empty() {
        let asked: Vec<DeviceId> = strangers.iter().copied().collect();
        let known = tx.devices_of_members(namespace, &asked).await?;
        strangers.retain(|device| !known.contains(device));
    }
    Ok(strangers)
}

/// CM4: of values that the relay has not seen.
async fn check_authors(
    tx: &mut dyn ContentTx,
    entry: &Entry,
    request: &CommitRequest,
    current: &BTreeMap<NodeId, NodeRow>,
    own: ReplicaId,
) -> ServiceResult<()> {
    let mut others = other_authors(&entry.caller, request, current, own)?;
    let strangers = strangers(tx, entry.row.id, others.keys().copied()).await?;
    others.retain(|device, _| strangers.contains(device));
    let Some(stranger) = others.keys().next() else { return Ok(()) };
    // All of them are named, so that who carries what others wrote can send the rest.
    let nodes: BTreeSet<String> = others.values().flatten().map(ToString::to_string).collect();
    let detail = "A value names an author whose device belongs to no member of this namespace. Nothing was committed.";
    let refused = ServiceError::new(Kind::Forbidden, "foreign_author", detail).with("device", stranger.to_string());
    Err(refused.with("nodes", nodes.into_iter().collect::<Vec<_>>()))
}

/// The device that stands for a user's edits through the plain API: the user's own id, so that membership decides who may be named.
pub(super) fn web_device(user: UserId) -> DeviceId {
    DeviceId::from_bytes(*user.as_bytes())
}

/// The chunks that a commit carries, as the frames that are stored.
fn as_frames(request: &CommitRequest) -> Bytes {
    let mut out = BytesMut::new();
    for chunk in request.chunks.iter().filter(|c| !c.bytes.is_empty()) {
        out.extend_from_slice(&ChunkFrame::header(chunk.id, chunk.bytes.len()));
        out.extend_from_slice(&chunk.bytes);
    }
    out.freeze()
}

/// Every chunk that these states name, once.
fn chunks_of(nodes: &[NodeUpdate]) -> Vec<ChunkId> {
    let values = nodes.iter().flat_map(|n| n.state.body().values());
    let named = values.filter_map(|v| v.content.file()).flat_map(|f| f.manifest.chunks().iter().map(|c| c.id));
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

fn digest(request: &CommitRequest) -> ServiceResult<[u8; 32]> {
    let bytes = postcard::to_stdvec(&(&request.replica, &request.nodes)).map_err(ServiceError::internal)?;
    Ok(Sha256::digest(&bytes).into())
}

fn repeated(record: CommitRecord, digest: [u8; 32]) -> ServiceResult<CommitReply> {
    if record.digest != digest {
        let detail = "A commit with this id and other content was accepted before. Mint a new id for new content.";
        return Err(ServiceError::invalid("commit_id_reused", detail));
    }
    Ok(CommitReply::Accepted { head_seq: record.head_seq, gapless: record.gapless })
}

/// Nodes that changed after the commit's base in a way that the commit does not include.
pub(super) fn stale(request: &CommitRequest, current: &BTreeMap<NodeId, NodeRow>) -> Vec<NodeId> {
    let is_stale = |n: &&NodeUpdate| current.get(&n.id).is_some_and(|row| row.seq > request.base_seq && !n.state.includes(&row.state));
    request.nodes.iter().filter(is_stale).map(|n| n.id).collect()
}

/// Counters that jump far ahead would use the numbers up.
fn check_counters(known: u64, update: &NodeUpdate, before: Option<&NodeRow>) -> ServiceResult<()> {
    let far = |counter: u64, from: u64| counter > from.saturating_add(LAMPORT_JUMP_MAX).min(COUNTER_MAX);
    let stamp_is_far = far(update.state.max_counter(), known);
    // A device numbers its events on a node by its Lamport counter.
    let seen = |replica| before.map_or(known, |row| row.state.body().counter(replica).max(known));
    let dot_is_far = update.state.body().context().iter().any(|(replica, counter)| far(*counter, seen(*replica)));
    if stamp_is_far || dot_is_far {
        let detail = "A counter is too far ahead of everything known here.";
        return Err(ServiceError::invalid("counter_jump", detail).with("node", update.id.to_string()));
    }
    Ok(())
}

/// The directories in which nodes came to stand that are neither here nor along with them, and those nodes.
pub(super) fn asked_parents(writes: &[NodeWrite], sent: &[NodeId], current: &BTreeMap<NodeId, NodeRow>) -> BTreeMap<NodeId, Vec<NodeId>> {
    let sent: BTreeSet<NodeId> = sent.iter().copied().collect();
    let mut parents: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for write in writes {
        let place = &write.state.places()[0];
        let is_new = current.get(&write.id).is_none_or(|row| row.state.places()[0] != *place);
        if is_new && place.parent != NodeId::ROOT && !sent.contains(&place.parent) {
            parents.entry(place.parent).or_default().push(write.id);
        }
    }
    parents
}

/// CM5. A commit is joined or not as a whole, so what comes along is as good as here. The answer names the nodes, so that the sender can send the
/// others without them.
async fn check_parents(
    tx: &mut dyn ContentTx,
    namespace: NamespaceId,
    writes: &[NodeWrite],
    sent: &[NodeId],
    current: &BTreeMap<NodeId, NodeRow>,
) -> ServiceResult<()> {
    let mut parents = asked_parents(writes, sent, current);
    if parents.is_empty() {
        return Ok(());
    }
    let asked: Vec<NodeId> = parents.keys().copied().collect();
    for known in tx.stands(namespace, &asked).await? {
        parents.remove(&known.node);
    }
    if parents.is_empty() {
        return Ok(());
    }
    let nodes: Vec<String> = parents.into_values().flatten().map(|id| id.to_string()).collect();
    let detail = "A node stands in a directory that is neither here nor in the same commit. Nothing was committed.";
    Err(ServiceError::invalid("unknown_parent", detail).hint("Send the directory first, or with it.").with("nodes", nodes))
}

/// The chunks of these versions that the namespace does not hold in good state.
pub(super) async fn missing_of(tx: &mut dyn ContentTx, namespace: NamespaceId, versions: &[VersionWrite]) -> ServiceResult<Vec<ChunkId>> {
    let named: BTreeMap<ChunkId, u32> = versions.iter().flat_map(|v| v.chunks.iter().map(|c| (c.id, c.len))).collect();
    let ids: Vec<ChunkId> = named.keys().copied().collect();
    let held = tx.held(namespace, &ids).await?;
    let mut missing = Vec::new();
    for (id, len) in named {
        match held.get(&id) {
            Some(chunk) if chunk.len != len => return Err(wrong_length(id)),
            Some(chunk) if !chunk.is_damaged => {}
            _ => missing.push(id),
        }
    }
    Ok(missing)
}
