//! Who writes in a namespace, one turn at a time in this process: what comes while somebody writes waits, and then goes together (`batch.rs`). Who is
//! alone writes at once, as if nobody waited for anybody.
//!
//! Other processes meet at the namespace's row, as ever: a lane only saves what waiting there would cost.

use super::batch::{Done, GROUP_MAX, Job};
use super::commit::Brought;
use super::edit::Write;
use super::{Content, Entry};
use crate::service::ServiceError;
use ferry_protocol::{NamespaceId, NodeId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// What writes more nodes than this is in no need of company.
const NODES_MAX: usize = 64;
/// Or carries more bytes.
const BYTES_MAX: usize = 256 * 1024;
/// So many may wait in a lane (I14); whoever comes then waits in the store, as somebody large does.
const WAITING_MAX: usize = 1024;

/// Lanes in which somebody writes, with those who wait there.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<NamespaceId, VecDeque<Job>>>);

/// What somebody wants to write.
#[derive(Clone)]
pub(super) enum Wish {
    /// What a device has brought.
    Commit(Arc<Brought>),
    /// An edit of these nodes, by the relay itself.
    Edit {
        /// The nodes that it may change; it may make new ones.
        nodes: Vec<NodeId>,
        /// What it does.
        write: Write,
    },
}

impl Wish {
    /// Whether it may go together with others: it is small, and nothing has to be read from the blob store for it.
    fn is_sociable(&self) -> bool {
        match self {
            Self::Commit(brought) => {
                let nodes = &brought.request.nodes;
                let mut manifests = nodes.iter().flat_map(|n| n.state.body().values()).filter_map(|v| v.content.file());
                nodes.len() <= NODES_MAX && brought.inline.byte_len() <= BYTES_MAX && manifests.all(|f| f.manifest.chunks().len() <= 1)
            }
            Self::Edit { nodes, .. } => nodes.len() <= NODES_MAX,
        }
    }
}

/// What comes of waiting.
pub(super) enum Turn {
    /// It is written, with what others wished.
    Done(Done),
    /// It may or may not be written: the store did not say.
    Failed(ServiceError),
    /// Nothing was done; who has waited does it alone. With a lane, others wait until it is dropped.
    Alone(Option<Lane>),
}

/// The turn in a namespace. Dropping it gives the turn to those who wait.
pub(super) struct Lane {
    content: Content,
    namespace: NamespaceId,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.content.pass_on(self.namespace);
    }
}

impl Lanes {
    /// How many wait in a lane.
    #[cfg(test)]
    pub(super) fn waiting(&self, namespace: NamespaceId) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&namespace).map_or(0, VecDeque::len)
    }
}

impl Content {
    /// Waits for a turn, or is written by somebody whose turn it is.
    pub(super) async fn turn(&self, entry: &Entry, wish: Wish) -> Turn {
        let namespace = entry.namespace();
        if entry.only.is_some() || !wish.is_sociable() {
            return Turn::Alone(None);
        }
        let answer = {
            let mut lanes = self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner);
            match lanes.get_mut(&namespace) {
                None => {
                    lanes.insert(namespace, VecDeque::new());
                    None
                }
                Some(waiting) if waiting.len() >= WAITING_MAX => return Turn::Alone(None),
                Some(waiting) => {
                    let (job, answer) = Job::new(entry.clone(), wish);
                    waiting.push_back(job);
                    Some(answer)
                }
            }
        };
        match answer {
            None => Turn::Alone(Some(self.lane(namespace))),
            // Whoever was to write it is gone without a word: nothing was done.
            Some(answer) => answer.await.unwrap_or(Turn::Alone(None)),
        }
    }

    fn lane(&self, namespace: NamespaceId) -> Lane {
        Lane { content: self.clone(), namespace }
    }

    /// Gives the turn to those who wait: to one as it is, to several together.
    fn pass_on(&self, namespace: NamespaceId) {
        let mut jobs = {
            let mut lanes = self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(waiting) = lanes.get_mut(&namespace) else { return };
            waiting.retain(|job| !job.is_given_up());
            let jobs: Vec<Job> = waiting.drain(..waiting.len().min(GROUP_MAX)).collect();
            if jobs.is_empty() {
                lanes.remove(&namespace);
                return;
            }
            jobs
        };
        let lane = self.lane(namespace);
        if jobs.len() == 1
            && let Some(job) = jobs.pop()
        {
            return job.answer(Turn::Alone(Some(lane)));
        }
        // Without a runtime nobody waits for an answer any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let content = self.clone();
        // Apart from any request: who goes away takes nobody's turn along.
        runtime.spawn(async move {
            content.write_together(jobs).await;
            drop(lane);
        });
    }
}

/// A job's ear.
pub(super) type Answer = oneshot::Receiver<Turn>;
