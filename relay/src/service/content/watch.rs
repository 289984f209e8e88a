//! Who listens for wake-ups: membership, asked once for all connections of this process, and a bound on connections per user (I14).

use super::Content;
use crate::service::{Caller, ServiceError, ServiceResult};
use ferry_protocol::{NamespaceId, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Connections that one user may hold open to this process.
const WATCHES_MAX: u32 = 64;
/// How long the members of a namespace are believed without asking the store, in milliseconds: as long as a session (A1).
const MEMBERS_KEPT_MS: i64 = crate::service::accounts::CACHE_MS;
/// Most namespaces whose members are remembered; beyond this the memory starts anew.
const MEMBERS_MAX: usize = 100_000;

/// The members of a namespace, once one of those who wait for them has asked.
type Members = Arc<OnceCell<BTreeSet<UserId>>>;

/// The members of namespaces of which wake-ups came lately. Every connection hears every wake-up and must know whether it is for its user: what one has
/// asked for, the others need not.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<HashMap<NamespaceId, (i64, Members)>>);

impl Listeners {
    fn of(&self, namespace: NamespaceId, now_ms: i64) -> Members {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MEMBERS_MAX {
            map.clear();
        }
        let entry = map.entry(namespace).or_insert_with(|| (now_ms, Members::default()));
        if now_ms - entry.0 >= MEMBERS_KEPT_MS {
            *entry = (now_ms, Members::default());
        }
        entry.1.clone()
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

    /// Whether wake-ups of a namespace are for the caller: a member, as of the last seconds or since [`Content::forget_members`].
    pub async fn listens(&self, caller: &Caller, namespace: NamespaceId) -> ServiceResult<bool> {
        let members = self.listeners.of(namespace, self.clock.now_ms());
        let ask = async || ServiceResult::Ok(self.meta.members(namespace).await?.into_iter().map(|(user, _)| user).collect());
        Ok(members.get_or_try_init(ask).await?.contains(&caller.user_id))
    }

    /// Asks again who is a member of what: somebody's rights have changed. Who has begun to ask before is answered as of before.
    pub fn forget_members(&self) {
        self.listeners.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use crate::service::content::testing::World;
    use ferry_protocol::wire::Role;

    #[tokio::test]
    async fn membership_is_remembered_for_a_moment_and_until_rights_change() {
        let world = World::new().await;
        let (alice, bob) = (world.user(None).await, world.user(None).await);
        let home = world.home(&alice).await;
        let listens = async || world.content.listens(&bob, home.namespace()).await.unwrap();
        assert!(!listens().await);
        world.share(&home, &bob, Role::Viewer).await;
        assert!(!listens().await, "nobody asks twice in a moment");
        world.content.forget_members();
        assert!(listens().await && world.content.listens(&alice, home.namespace()).await.unwrap());
        assert!(world.db.end_membership(home.namespace(), bob.user_id).await.unwrap());
        assert!(listens().await);
        world.clock.advance_ms(super::MEMBERS_KEPT_MS);
        assert!(!listens().await, "without a wake-up it ends by itself");
    }
}
