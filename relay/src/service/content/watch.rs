//! Who listens for wake-ups: membership, and a bound on connections per user (I14).

use super::Content;
use crate::service::{Caller, ServiceError, ServiceResult};
use ferry_protocol::{NamespaceId, UserId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections that one user may hold open to this process.
const WATCHES_MAX: u32 = 64;

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

    /// Whether the caller is a member of the namespace now.
    pub async fn is_member(&self, caller: &Caller, namespace: NamespaceId) -> ServiceResult<bool> {
        Ok(self.meta.namespace_for(namespace, caller.user_id).await?.is_some())
    }
}
