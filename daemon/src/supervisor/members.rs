//! What the relay says of this user's folders: roles, invitations that wait, memberships that ended.
//!
//! * **S8** A folder of which this user is no member any more stays on the disk as it is and is not synced; status and `why` say so (I15).

use super::Daemon;
use crate::events::EventKind;
use crate::relay::{Method, RelayClient, RelayError};
use ferry_protocol::NamespaceId;
use ferry_protocol::wire::{NamespaceInfo, Role};
use serde::Serialize;
use serde_json::Value;
use std::sync::{MutexGuard, PoisonError};

/// Invitations that are kept; a user has hardly more, and the list is for people.
const KEPT_MAX: usize = 100;

/// A folder to which this user is invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// The relay's id of it.
    pub share_id: String,
    /// The folder's name.
    pub name: String,
    /// Who invites: the address.
    pub by: String,
    /// `viewer` or `editor`.
    pub role: String,
}

impl Invitation {
    fn of(share: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            share_id: text(&share["share_id"])?,
            name: text(&share["name"])?,
            by: text(&share["shared_by"]["email"])?,
            role: text(&share["role"])?,
        })
    }
}

/// Why a folder of somebody else is not synced, in words for this user.
pub(super) fn not_shared(was_member: bool, name: &str) -> String {
    if was_member {
        format!(
            "this folder is no longer shared with you; the files here stay as they are and are not synced any more. Take it off the list with: ferry folder remove '{name}'"
        )
    } else {
        "this folder is another person's, who does not share it with this account".into()
    }
}

impl Daemon {
    /// Folders to which this user is invited, as the relay said last.
    pub fn invitations(&self) -> Vec<Invitation> {
        self.lock_invitations().clone()
    }

    /// What this user may do in a folder, as the relay said last.
    pub fn role(&self, id: NamespaceId) -> Option<Role> {
        self.lock_roles().get(&id).copied()
    }

    fn lock_invitations(&self) -> MutexGuard<'_, Vec<Invitation>> {
        // Only replaced as a whole.
        self.invitations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_roles(&self) -> MutexGuard<'_, std::collections::BTreeMap<NamespaceId, Role>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the account's folders and roles.
    pub(super) fn hear_memberships(&self, namespaces: &[NamespaceInfo]) {
        let now: std::collections::BTreeMap<_, _> = namespaces.iter().map(|n| (n.id, n.role)).collect();
        let before = std::mem::replace(&mut *self.lock_roles(), now.clone());
        for (id, role) in now {
            if before.get(&id).is_some_and(|was| *was != role) {
                self.tell_of_folder(id, EventKind::RoleChanged { role });
            }
        }
    }

    /// Asks which invitations wait. What cannot be asked now stays as it was.
    pub(super) async fn hear_invitations(&self, relay: &RelayClient) {
        let answer = match relay.json(Method::GET, "/api/v1/shares?with=me&state=pending", None).await {
            Ok(answer) => answer,
            // A relay of before invitations has none.
            Err(RelayError::NotFound(_)) => Value::Null,
            Err(error) => return tracing::debug!(%error, "asking for invitations"),
        };
        let now: Vec<Invitation> = answer["shares"].as_array().into_iter().flatten().filter_map(Invitation::of).take(KEPT_MAX).collect();
        let before = std::mem::replace(&mut *self.lock_invitations(), now.clone());
        for invitation in now.into_iter().filter(|invitation| !before.contains(invitation)) {
            self.activity.events().emit(EventKind::Invited { invitation });
        }
    }

    /// An event of a folder, if it is on this device.
    pub(super) fn tell_of_folder(&self, id: NamespaceId, kind: EventKind) {
        let name = self.lock_folders().get(&id).map(|running| running.record.config.name.clone());
        if let Some(name) = name {
            self.activity.events().of_folder(id, &name).emit(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_was_a_member_hears_that_it_is_over() {
        let over = not_shared(true, "Plans");
        assert!(over.contains("no longer shared with you") && over.contains("ferry folder remove 'Plans'"), "{over}");
        assert!(!not_shared(false, "Plans").contains("no longer"), "it never was");
    }

    #[test]
    fn an_invitation_of_another_relay_is_survived() {
        let good = json!({"share_id": "07", "name": "Plans", "shared_by": {"email": "a@b", "name": "A"}, "role": "viewer", "new": 1});
        assert_eq!(Invitation::of(&good).unwrap().by, "a@b");
        for wrong in [json!(null), json!({}), json!({"share_id": 7, "name": "x", "shared_by": {"email": "a@b"}, "role": "viewer"})] {
            assert_eq!(Invitation::of(&wrong), None, "{wrong}");
        }
    }
}
