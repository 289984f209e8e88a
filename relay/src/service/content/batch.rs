//! Many writers of one namespace in one transaction: each costs its own rows, and all together one lock, one pack, one of each statement and one
//! durable commit.
//!
//! * **BA1** Everybody is answered as if they had written one after another: those who are in the transaction in the order in which they came, with the
//!   numbers and the head that each would have got; after them the others, each alone.
//! * **BA2** In the transaction is only what is accepted as it is, and touches no node that another one in it touches. Whatever else there is to say to
//!   somebody (stale, missing, refused, asked twice, full), a transaction of their own says. So one wish harms no other.
//! * **BA3** When the transaction fails, nothing was done, and everybody goes alone. When it is not known whether it was committed, a commit is asked
//!   again, which is answered from its record (CM2), and an edit is told so.
//!
//! What is accepted is decided by [`decide`], which is pure, from what was read under the namespace's lock.

use super::commit::{Changes, asked_parents, is_own, join_all, other_authors, stale, strangers};
use super::edit::Pen;
use super::lanes::{Answer, Turn, Wish};
use super::settle::{Reached, put_nodes, rows_and_stands};
use super::stage::{Staged, VerifiedFrames};
use super::{Content, Entry, check_membership};
use crate::service::{ServiceError, ServiceResult};
use crate::store::StoreError;
use crate::store::bus::Wake;
use crate::store::content::{CommitRecord, ContentTx, HeldChunk, Identity, NamespaceRow, NodeRow, NodeWrite, Scope, VersionWrite};
use crate::store::tree::Stand;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, CommitId, DeviceId, NodeId, UserId};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

/// Most wishes of one transaction.
pub(super) const GROUP_MAX: usize = 128;

/// Somebody's wish, and where they wait.
pub(super) struct Job {
    entry: Entry,
    wish: Wish,
    answer: oneshot::Sender<Turn>,
}

impl Job {
    pub(super) fn new(entry: Entry, wish: Wish) -> (Self, Answer) {
        let (answer, hears) = oneshot::channel();
        (Self { entry, wish, answer }, hears)
    }

    /// Whether nobody waits any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn answer(self, turn: Turn) {
        // Who went away hears nothing.
        let _ = self.answer.send(turn);
    }

    /// The nodes that it may change.
    fn nodes(&self) -> Vec<NodeId> {
        match &self.wish {
            Wish::Commit(brought) => brought.request.nodes.iter().map(|n| n.id).collect(),
            Wish::Edit { nodes, .. } => nodes.clone(),
        }
    }

    fn user(&self) -> UserId {
        self.entry.caller.user_id
    }
}

/// What became of a wish that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// The feed's head after it.
    pub(super) head_seq: u64,
    /// Of a commit: whether nobody else had changed the feed since its base.
    pub(super) gapless: bool,
    /// Of an edit: how many entries it was about.
    pub(super) count: usize,
}

/// Why nobody was written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was done.
    Nothing(ServiceError),
    /// The store did not say whether it was.
    Unknown(ServiceError),
}

impl From<ServiceError> for Trouble {
    fn from(error: ServiceError) -> Self {
        Self::Nothing(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Nothing(error.into())
    }
}

/// What is known when it is decided; read under the namespace's lock.
struct Ground {
    identity: Identity,
    now_ms: i64,
    /// The namespace as each user sees it.
    namespaces: BTreeMap<UserId, NamespaceRow>,
    /// After which number the first write goes on.
    base_seq: u64,
    /// Commits that were accepted before.
    known: BTreeSet<(UserId, CommitId)>,
    current: BTreeMap<NodeId, NodeRow>,
    /// Where these stand.
    stands: BTreeMap<NodeId, Stand>,
    /// Nodes that are there, of those that something may come to stand in.
    parents: BTreeSet<NodeId>,
    strangers: BTreeSet<DeviceId>,
    /// Chunks that the namespace holds.
    held: BTreeMap<ChunkId, HeldChunk>,
}

/// What is to be written.
#[derive(Default)]
struct Plan {
    /// What becomes of each wish; nothing for those who go alone.
    done: Vec<Option<Done>>,
    writes: Vec<NodeWrite>,
    versions: Vec<VersionWrite>,
    records: Vec<(UserId, CommitId, CommitRecord)>,
    /// Chunks that came with those who are accepted.
    carried: BTreeMap<ChunkId, u32>,
    head_seq: u64,
    max_counter: u64,
}

/// Who is accepted, and what that writes. Without `held` every chunk counts as there: to find out which ones are to be asked for.
fn decide(ground: &Ground, jobs: &[Job], held: Option<&BTreeMap<ChunkId, HeldChunk>>) -> Plan {
    let Some(first) = ground.namespaces.values().next() else { return Plan { done: vec![None; jobs.len()], ..Plan::default() } };
    let mut plan = Plan { head_seq: first.head_seq, max_counter: first.max_counter, ..Plan::default() };
    let (mut touched, mut made) = (BTreeSet::new(), BTreeSet::new());
    for job in jobs {
        let nodes = job.nodes();
        let accepted = match nodes.iter().any(|id| touched.contains(id)) {
            true => None,
            false => accept(ground, job, &plan, &made),
        };
        let Some(Accepted { changes, gapless, count }) = accepted.filter(|a| held.is_none_or(|held| a.has_chunks(job, held))) else {
            plan.done.push(None);
            continue;
        };
        touched.extend(nodes.into_iter().chain(changes.writes.iter().map(|w| w.id)));
        made.extend(changes.writes.iter().map(|w| w.id));
        plan.head_seq = changes.writes.last().map_or(plan.head_seq, |w| w.seq);
        plan.max_counter = plan.max_counter.max(changes.max_counter);
        plan.writes.extend(changes.writes);
        plan.versions.extend(changes.versions);
        if let Wish::Commit(brought) = &job.wish {
            plan.carried.extend(brought.inline.chunks());
            plan.records.push((job.user(), brought.request.commit, brought.record(plan.head_seq, gapless)));
        }
        plan.done.push(Some(Done { head_seq: plan.head_seq, gapless, count }));
    }
    plan
}

/// A wish that is accepted.
struct Accepted {
    changes: Changes,
    gapless: bool,
    count: usize,
}

impl Accepted {
    /// Whether every chunk that it names is there in good state or came along (R3).
    fn has_chunks(&self, job: &Job, held: &BTreeMap<ChunkId, HeldChunk>) -> bool {
        let carried: BTreeMap<ChunkId, u32> = match &job.wish {
            Wish::Commit(brought) => brought.inline.chunks().into_iter().collect(),
            Wish::Edit { .. } => BTreeMap::new(),
        };
        let is_there = |id: &ChunkId, len: u32| match carried.get(id) {
            Some(came) => *came == len,
            None => held.get(id).is_some_and(|chunk| chunk.len == len && !chunk.is_damaged),
        };
        self.changes.versions.iter().flat_map(|v| &v.chunks).all(|c| is_there(&c.id, c.len))
    }
}

/// One wish, after those that are in the plan; nothing if there is anything else to say than that it is accepted.
fn accept(ground: &Ground, job: &Job, plan: &Plan, made: &BTreeSet<NodeId>) -> Option<Accepted> {
    let namespace = ground.namespaces.get(&job.user())?;
    check_membership(&job.entry.caller, namespace, Role::Editor).ok()?;
    let namespace = NamespaceRow { head_seq: plan.head_seq, max_counter: plan.max_counter, ..namespace.clone() };
    let base_seq = if plan.writes.is_empty() { ground.base_seq } else { plan.head_seq };
    match &job.wish {
        Wish::Commit(brought) => {
            let request = &brought.request;
            let key = (job.user(), request.commit);
            let is_repeated = ground.known.contains(&key) || plan.records.iter().any(|(user, id, _)| (*user, *id) == key);
            if is_repeated || request.epoch != ground.identity.epoch || !stale(request, &ground.current).is_empty() {
                return None;
            }
            let changes = join_all(&namespace, base_seq, (request, job.entry.caller.device_id), &ground.current, ground.now_ms).ok()?;
            let others = other_authors(&job.entry.caller, request, &ground.current, ground.identity.replica).ok()?;
            if others.keys().any(|device| ground.strangers.contains(device)) {
                return None;
            }
            let asked = asked_parents(&changes.writes, &job.nodes(), &ground.current);
            let is_there = |id: &NodeId| ground.parents.contains(id) || ground.current.contains_key(id) || made.contains(id);
            let is_hashed = changes.versions.iter().all(|v| v.chunks.len() <= 1);
            (is_hashed && asked.keys().all(is_there)).then_some(Accepted {
                gapless: request.base_seq == namespace.head_seq,
                changes,
                count: 0,
            })
        }
        Wish::Edit { nodes, write } => {
            let before = nodes.iter().filter_map(|id| Some((*id, ground.current.get(id)?.state.clone()))).collect();
            let mut pen = Pen::new(namespace, ground.identity.replica, job.user(), before, ground.now_ms);
            let count = write(&mut pen).ok()?;
            Some(Accepted { changes: pen.changes(base_seq), gapless: false, count })
        }
    }
}

impl Content {
    /// Writes these together and answers them; those who cannot be, go alone.
    pub(super) async fn write_together(&self, jobs: Vec<Job>) {
        match self.try_together(&jobs).await {
            Ok(done) => {
                metrics::counter!("ferry_relay_sync_batches_total").increment(1);
                metrics::counter!("ferry_relay_sync_batched_writes_total").increment(done.iter().flatten().count() as u64);
                for (job, done) in jobs.into_iter().zip(done) {
                    job.answer(done.map_or(Turn::Alone(None), Turn::Done));
                }
            }
            Err(Trouble::Nothing(error)) => {
                tracing::debug!(%error, "writers go alone");
                jobs.into_iter().for_each(|job| job.answer(Turn::Alone(None)));
            }
            Err(Trouble::Unknown(error)) => {
                for job in jobs {
                    let turn = match job.wish {
                        Wish::Commit(_) => Turn::Alone(None),
                        Wish::Edit { .. } => Turn::Failed(error.again()),
                    };
                    job.answer(turn);
                }
            }
        }
    }

    /// What becomes of each; nothing for those who go alone.
    pub(super) async fn try_together(&self, jobs: &[Job]) -> Result<Vec<Option<Done>>, Trouble> {
        let Some(entry) = jobs.first().map(|job| &job.entry) else { return Ok(Vec::new()) };
        let carried = jobs.iter().filter_map(|job| match &job.wish {
            Wish::Commit(brought) => Some(&brought.inline),
            Wish::Edit { .. } => None,
        });
        let frames = VerifiedFrames::together(carried);
        let staged = match frames.len() {
            0 => None,
            _ => {
                self.precheck_quota(entry, &frames.chunks()).await?;
                Some(self.stage(entry, &frames, true).await?)
            }
        };
        let done = self.in_one_transaction(entry, jobs, staged.as_ref()).await;
        let is_unused = match &done {
            Ok((_, is_pack_used)) => !is_pack_used,
            // What may be committed may name what stands in the pack.
            Err(trouble) => matches!(trouble, Trouble::Nothing(_)),
        };
        if let Some(staged) = staged.as_ref().filter(|_| is_unused) {
            self.discard(staged).await;
        }
        done.map(|(done, _)| done)
    }

    /// The same, and whether the pack is named now.
    async fn in_one_transaction(&self, entry: &Entry, jobs: &[Job], staged: Option<&Staged>) -> Result<(Vec<Option<Done>>, bool), Trouble> {
        let namespace_id = entry.row.id;
        let mut tx = self.meta.begin(Scope::Namespace(namespace_id)).await?;
        let mut ground = self.look(&mut *tx, jobs).await?;
        let wanted = decide(&ground, jobs, None);
        let chunks: BTreeSet<ChunkId> = wanted.versions.iter().flat_map(|v| &v.chunks).map(|c| c.id).collect();
        if !chunks.is_empty() {
            ground.held = tx.held(namespace_id, &chunks.into_iter().collect::<Vec<_>>()).await?;
        }
        let plan = decide(&ground, jobs, Some(&ground.held));
        let stands = std::mem::take(&mut ground.stands);
        let Some(namespace) = ground.namespaces.values().next().filter(|_| plan.done.iter().any(Option::is_some)) else {
            tx.rollback().await?;
            return Ok((plan.done, false));
        };
        let staged = staged.map(|staged| staged.only(&plan.carried)).filter(|staged| !staged.is_empty());
        let new_bytes = match &staged {
            None => 0,
            Some(staged) => match self.admit_rows(&mut *tx, entry, staged).await? {
                Some(new_bytes) => new_bytes,
                None => return Err(Trouble::Nothing(ServiceError::unavailable("A chunk that the store had is gone."))),
            },
        };
        if !plan.writes.is_empty() {
            self.keep_gap(&mut *tx, namespace, ground.base_seq, ground.identity.replica).await?;
        }
        let reached = Reached { head_seq: plan.head_seq, max_counter: plan.max_counter, now_ms: ground.now_ms };
        put_nodes(&mut *tx, namespace, &plan.writes, stands, reached).await?;
        tx.add_versions(namespace_id, &plan.versions).await?;
        tx.add_commit_records(namespace_id, &plan.records, ground.now_ms).await?;
        self.charge(&mut *tx, entry, new_bytes).await?;
        if let Err(error) = tx.commit().await {
            let error = ServiceError::from(error);
            return Err(if error.is_in_doubt() { Trouble::Unknown(error) } else { Trouble::Nothing(error) });
        }
        if !plan.writes.is_empty() {
            self.bus.publish(Wake::feed(namespace_id, plan.head_seq));
        }
        Ok((plan.done, staged.is_some_and(|staged| staged.has_pack())))
    }

    /// Reads what a decision about these needs, but for the chunks.
    async fn look(&self, tx: &mut dyn ContentTx, jobs: &[Job]) -> ServiceResult<Ground> {
        let Some(namespace_id) = jobs.first().map(|job| job.entry.row.id) else { return Err(ServiceError::not_found()) };
        let identity = self.identity_in(tx).await?;
        let users: BTreeSet<UserId> = jobs.iter().map(Job::user).collect();
        let (mut namespaces, mut known) = (BTreeMap::new(), BTreeSet::new());
        for user in users {
            // The role is looked at again inside the transaction: it may have been taken away since (R21).
            if let Some(row) = tx.namespace_for(namespace_id, user).await? {
                namespaces.insert(user, row);
            }
            let commits = jobs.iter().filter(|job| job.user() == user).filter_map(|job| match &job.wish {
                Wish::Commit(brought) => Some(brought.request.commit),
                Wish::Edit { .. } => None,
            });
            let commits: Vec<CommitId> = commits.collect();
            if !commits.is_empty() {
                known.extend(tx.commit_records(namespace_id, user, &commits).await?.into_keys().map(|id| (user, id)));
            }
        }
        let ids: BTreeSet<NodeId> = jobs.iter().flat_map(Job::nodes).collect();
        let (current, stands) = rows_and_stands(tx.placed(namespace_id, &ids.into_iter().collect::<Vec<_>>()).await?);
        let (mut asked, mut devices) = (BTreeSet::new(), BTreeSet::new());
        for job in jobs {
            let Wish::Commit(brought) = &job.wish else { continue };
            for update in &brought.request.nodes {
                asked.insert(update.state.places()[0].parent);
                let authors = update.state.body().values().iter().map(|v| v.author.device);
                devices.extend(authors.filter(|device| !is_own(&job.entry.caller, *device)));
            }
        }
        asked.retain(|id| *id != NodeId::ROOT && !current.contains_key(id));
        let parents = match asked.is_empty() {
            true => BTreeSet::new(),
            false => tx.stands(namespace_id, &asked.into_iter().collect::<Vec<_>>()).await?.into_iter().map(|s| s.node).collect(),
        };
        let base_seq = match namespaces.values().next() {
            Some(row) => self.numbers_after(row, identity.replica)?,
            None => 0,
        };
        let strangers = strangers(tx, namespace_id, devices).await?;
        let now_ms = self.clock.now_ms();
        Ok(Ground { identity, now_ms, namespaces, base_seq, known, current, stands, parents, strangers, held: BTreeMap::new() })
    }
}
