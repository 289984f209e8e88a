//! Sharing with people: whole folders (a namespace gets members) and single files, by invitation.
//!
//! * **SH1** Only the owner of a folder invites, changes roles and removes; a member leaves. The owner's own role cannot be taken or given away (R18).
//! * **SH2** An invitation is to an address. Nobody looks whether it is somebody's, so that no answer tells (R39); whoever has the account of that
//!   address finds it. A folder's waits until it is accepted; a file's is taken when its receiver looks.
//! * **SH3** The end of a share counts with the next request. Whoever is concerned is woken: sockets, and the devices' grants, whose epoch rises (I13).
//! * **SH4** The owner sees everything that is open or given for a folder and what is in it, and nothing else gives access (R22).

mod change;
mod list;

pub use list::{Listed, ShareDoc, ShareState, Shared as SharedThing, With};

use super::accounts::Accounts;
use super::content::Content;
use super::peers::Peers;
use super::shared::Shared;
use super::{Caller, ServiceError, ServiceResult};
use crate::clock::Clock;
use crate::store::bus::Wake;
use crate::store::limits::Meter;
use crate::store::shares::{InviteBounds, ShareId, ShareStore};
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use std::sync::Arc;

/// Most members of a folder, and most people of a file, open invitations counted.
pub const PEOPLE_MAX: u64 = 100;
/// Most open invitations of one user.
pub const OPEN_MAX: u64 = 200;
/// Most shares in one answer.
pub const LIST_MAX: u32 = 5000;
/// Invitations of one user in a minute: for people, not for whoever tries addresses.
const PER_MINUTE: u32 = 20;

/// The service of shares.
pub struct Sharing {
    store: Arc<dyn ShareStore>,
    content: Arc<Content>,
    accounts: Arc<Accounts>,
    peers: Arc<Peers>,
    shared: Shared,
    clock: Arc<dyn Clock>,
}

/// Which share is meant. For callers one word; what kind of share it is shows in its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareRef {
    /// An invitation, or a shared file.
    Row(ShareId),
    /// A member of a folder.
    Member(NamespaceId, UserId),
}

impl std::fmt::Display for ShareRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Row(id) => f.write_str(&hex::encode(id)),
            Self::Member(namespace, user) => write!(f, "{namespace}{user}"),
        }
    }
}

impl std::str::FromStr for ShareRef {
    type Err = ServiceError;

    /// What is no id of a share does not exist.
    fn from_str(text: &str) -> ServiceResult<Self> {
        let bytes = hex::decode(text.replace('-', "")).map_err(|_| ServiceError::not_found())?;
        match bytes.len() {
            16 => bytes.try_into().map(Self::Row).map_err(|_| ServiceError::not_found()),
            32 => {
                let ids = (NamespaceId::from_slice(&bytes[..16]), UserId::from_slice(&bytes[16..]));
                if let (Some(namespace), Some(user)) = ids { Ok(Self::Member(namespace, user)) } else { Err(ServiceError::not_found()) }
            }
            _ => Err(ServiceError::not_found()),
        }
    }
}

/// What is to be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A folder.
    Folder(NamespaceId),
    /// A file, and the folder in which it is meant.
    File(NodeId, Option<NamespaceId>),
}

impl Sharing {
    /// The service over these parts.
    pub fn new(
        store: Arc<dyn ShareStore>,
        content: Arc<Content>,
        accounts: Arc<Accounts>,
        peers: Arc<Peers>,
        shared: Shared,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, content, accounts, peers, shared, clock }
    }

    fn bounds() -> InviteBounds {
        InviteBounds { here: PEOPLE_MAX, open: OPEN_MAX }
    }

    /// The form of the caller's address under which invitations to it are kept.
    async fn own_key(&self, caller: &Caller) -> ServiceResult<String> {
        Ok(self.accounts.user(caller.user_id).await?.email_key)
    }

    /// Counts an invitation; refuses when there were too many.
    async fn step(&self, caller: &Caller) -> ServiceResult<()> {
        let bucket = Meter::Bucket { key: self.shared.meter_key("invite", caller.user_id.as_bytes()), per_minute: PER_MINUTE };
        match self.shared.limits.count(&[bucket], self.clock.now_ms()).await? {
            0 => Ok(()),
            wait_ms => Err(ServiceError::too_many(wait_ms.unsigned_abs().div_ceil(1000))),
        }
    }

    /// What this user may see has changed: sockets of all processes look again and say so.
    fn wake(&self, user: UserId) {
        self.shared.bus.publish(Wake::access(user));
    }

    /// Wakes whoever has an account of this address.
    async fn wake_address(&self, email: &str) {
        // Woken or not, they find it when they look.
        if let Ok(user) = self.accounts.user_by_email(email).await {
            self.wake(user.user_id);
        }
    }

    /// The members of a folder or their roles have changed: everybody in it is woken, and the one who may be out of it, and devices ask for new grants.
    async fn members_changed(&self, namespace: NamespaceId, user: UserId) -> ServiceResult<()> {
        self.wake(user);
        for (member, _) in self.content.members_of(namespace).await? {
            if member != user {
                self.wake(member);
            }
        }
        self.peers.tell(&[namespace], None);
        Ok(())
    }
}

/// A role that can be given: the owner's cannot.
pub fn given_role(text: &str) -> ServiceResult<Role> {
    match text {
        "viewer" | "read" => Ok(Role::Viewer),
        "editor" | "write" => Ok(Role::Editor),
        _ => Err(ServiceError::invalid("invalid_role", "A role is 'viewer' or 'editor'; of a file 'read' or 'write'.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Kind;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        let member = ShareRef::Member(NamespaceId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        for one in [ShareRef::Row([7; 16]), member] {
            assert_eq!(one.to_string().parse::<ShareRef>().unwrap(), one);
        }
        for wrong in ["", "x", "00", "../x", &"0".repeat(31), &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(wrong.parse::<ShareRef>().unwrap_err().kind(), Kind::NotFound, "{wrong}");
        }
        for wrong in ["owner", "", "Editor"] {
            assert!(given_role(wrong).is_err(), "{wrong}");
        }
    }
}
