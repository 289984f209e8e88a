//! Who listens for wake-ups: membership, and a bound on connections per user (I14).
//!
//! A wake-up reaches every connection of a process, and each asks whether it concerns its user. They ask together: one look at a namespace's members serves
//! all of them, as long as it is younger than the moment since which the connection believes nothing older.

use super::Content;
use crate::service::{Caller, ServiceError, ServiceResult};
use ferry_protocol::{NamespaceId, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Connections that one user may hold open to this process.
const WATCHES_MAX: u32 = 64;
/// Namespaces whose members are remembered; above it all are forgotten (I14).
const MEMBERS_MAX: usize = 10_000;

/// The members of a namespace, and when the store was asked; nothing before it was. Who asks holds the lock, so that the others wait for the answer.
type Looked = Arc<tokio::sync::Mutex<Option<(Instant, BTreeSet<UserId>)>>>;

/// The members of namespaces that wake-ups were about.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<BTreeMap<NamespaceId, Looked>>);

impl Members {
    fn of(&self, namespace: NamespaceId) -> Looked {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MEMBERS_MAX && !map.contains_key(&namespace) {
            map.clear();
        }
        map.entry(namespace).or_default().clone()
    }
}

/// How many connections each user holds open.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Mutex<BTreeMap<UserId, u32>>>);

/// One open connection of a user; dropping it gives the place back.
#[derive(Debug)]
pub struct WatchGuard {
    watches: Watches,
    user: UserId,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut map = self.watches.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = map.get_mut(&self.user) {
            *open -= 1;
            if *open == 0 {
                map.remove(&self.user);
            }
        }
    }
}

impl Content {
    /// Takes one of the places that a user has for open connections; 429 when all are taken.
    pub fn watch(&self, user: UserId) -> ServiceResult<WatchGuard> {
        let mut map = self.watches.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = map.entry(user).or_default();
        if *open >= WATCHES_MAX {
            return Err(ServiceError::too_many(60));
        }
        *open += 1;
        Ok(WatchGuard { watches: self.watches.clone(), user })
    }

    /// Whether the caller was a member of the namespace at some moment since `since`.
    pub async fn is_member(&self, caller: &Caller, namespace: NamespaceId, since: Instant) -> ServiceResult<bool> {
        let looked = self.members.of(namespace);
        let mut looked = looked.lock().await;
        if let Some((at, members)) = &*looked
            && *at >= since
        {
            return Ok(members.contains(&caller.user_id));
        }
        // What the store says was true after this moment, however long it takes to say it.
        let at = Instant::now();
        let members: BTreeSet<UserId> = self.meta.members(namespace).await?.into_iter().map(|(user, _)| user).collect();
        let is_member = members.contains(&caller.user_id);
        *looked = Some((at, members));
        Ok(is_member)
    }
}
