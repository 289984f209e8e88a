//! The trait behind sharing with people: invitations that wait for an answer, members of namespaces, single files shared with one user.

#[cfg(test)]
mod contract;

use super::StoreError;
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};

/// The id of an invitation or of a shared file.
pub type ShareId = [u8; 16];

/// What was offered to an address and not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub share_id: ShareId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The one file of it; nothing for the whole.
    pub file: Option<NodeId>,
    /// The address as it was typed.
    pub email: String,
    /// The form under which two spellings are one account.
    pub email_key: String,
    /// What whoever takes it may do: viewer or editor.
    pub role: Role,
    /// Who invites.
    pub invited_by: UserId,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
}

/// Bounds of invitations (I14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteBounds {
    /// Most members and invitations of one namespace together, or users and invitations of one file.
    pub here: u64,
    /// Most invitations that one user has open.
    pub open: u64,
}

/// What became of an invitation that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invited {
    /// It is there, under this id: the one that it had, if the address was invited to the same before.
    Stored(ShareId),
    /// The namespace or the file has as many as it may.
    FullHere,
    /// The user has as many open invitations as a user may.
    FullForUser,
}

/// A member of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Who.
    pub user: UserId,
    /// The user's address.
    pub email: String,
    /// The user's name.
    pub name: String,
    /// What the member may do.
    pub role: Role,
    /// Since when, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A file that is shared with one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFile {
    /// Its id.
    pub share_id: ShareId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The file.
    pub file: NodeId,
    /// Who shares it.
    pub owner: UserId,
    /// With whom.
    pub with: UserId,
    /// That user's address.
    pub email: String,
    /// That user's name.
    pub name: String,
    /// What that user may do: viewer or editor.
    pub role: Role,
    /// Since when, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// Which shares are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Those of one namespace.
    Namespace(NamespaceId),
    /// Those of all namespaces that this user owns.
    Owner(UserId),
}

impl Of {
    /// The namespace and the owner that it names.
    pub(super) fn parts(self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match self {
            Self::Namespace(id) => (Some(id.as_bytes().to_vec()), None),
            Self::Owner(user) => (None, Some(user.as_bytes().to_vec())),
        }
    }
}

/// Shares in a database. Contract: `store/shares/contract.rs`.
#[async_trait]
pub trait ShareStore: Send + Sync + 'static {
    /// Stores an invitation within the bounds. Of one address there is one to the same: again changes the role and keeps the id.
    async fn invite(&self, invitation: &Invitation, bounds: InviteBounds) -> Result<Invited, StoreError>;
    /// An invitation.
    async fn invitation(&self, share_id: ShareId) -> Result<Option<Invitation>, StoreError>;
    /// What is open for an address, oldest first, at most `limit`.
    async fn invitations_to(&self, email_key: &str, limit: u32) -> Result<Vec<Invitation>, StoreError>;
    /// What is open, oldest first, at most `limit`.
    async fn invitations_of(&self, of: Of, limit: u32) -> Result<Vec<Invitation>, StoreError>;
    /// Changes what an invitation offers; false when it is gone.
    async fn set_invitation_role(&self, share_id: ShareId, role: Role) -> Result<bool, StoreError>;
    /// Withdraws or declines; false when it is gone.
    async fn drop_invitation(&self, share_id: ShareId) -> Result<bool, StoreError>;
    /// Makes of an invitation a membership or a shared file of this user, in one step; nothing when it is gone. Nobody loses a role by it.
    async fn take_invitation(&self, share_id: ShareId, user: UserId, now_ms: i64) -> Result<Option<Invitation>, StoreError>;

    /// Members with their names, by namespace and since when, at most `limit`.
    async fn members_of(&self, of: Of, limit: u32) -> Result<Vec<MemberRow>, StoreError>;
    /// Gives a member that is not the owner another role; false when there is no such member.
    async fn change_member(&self, namespace: NamespaceId, user: UserId, role: Role) -> Result<bool, StoreError>;
    /// Ends the membership of somebody who is not the owner; false when there is none. What they wrote stays theirs: see
    /// [`devices_of_members`](super::content::ContentTx::devices_of_members), as with a file that is shared to write.
    async fn end_membership(&self, namespace: NamespaceId, user: UserId) -> Result<bool, StoreError>;

    /// A shared file by its id.
    async fn shared_file(&self, share_id: ShareId) -> Result<Option<SharedFile>, StoreError>;
    /// Files that are shared with a user, oldest first, at most `limit`.
    async fn files_shared_with(&self, user: UserId, limit: u32) -> Result<Vec<SharedFile>, StoreError>;
    /// Files that are shared, oldest first, at most `limit`.
    async fn files_shared_of(&self, of: Of, limit: u32) -> Result<Vec<SharedFile>, StoreError>;
    /// Changes what the user may do with a shared file; false when it is not shared any more.
    async fn set_shared_file_role(&self, share_id: ShareId, role: Role) -> Result<bool, StoreError>;
    /// Ends the sharing of a file; false when it is over already.
    async fn drop_shared_file(&self, share_id: ShareId) -> Result<bool, StoreError>;
}
