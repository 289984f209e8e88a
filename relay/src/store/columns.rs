//! How values stand in columns, the same in every SQL store.

use super::StoreError;
use super::links::LinkKind;
use crate::service::UserRole;
use ferry_protocol::wire::Role;
use ferry_protocol::{ContentHash, NodeState};

/// The format of the `state` column: this byte, then postcard.
const STATE_FORMAT: u8 = 1;

/// A node state as the `state` column holds it.
pub(super) fn encode_state(state: &NodeState) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(state, vec![STATE_FORMAT]).map_err(|e| StoreError::Corrupt(format!("a node state cannot be encoded: {e}")))
}

/// Back again.
pub(super) fn decode_state(bytes: &[u8]) -> Result<NodeState, StoreError> {
    match bytes.split_first() {
        Some((&STATE_FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|e| StoreError::Corrupt(format!("a node state cannot be decoded: {e}")))
        }
        _ => Err(StoreError::Corrupt("a node state has an unknown format".into())),
    }
}

/// A number as the schema keeps it. What does not fit was refused by the service; saturating keeps the order.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The hash of an upload as its column holds it, which no row may lack: nobody has said it is 32 zeros, a hash that nothing is known to have.
pub(super) fn hash_column(hash: Option<ContentHash>) -> Vec<u8> {
    hash.unwrap_or(HASH_NOT_SAID).as_bytes().to_vec()
}

/// Back again.
pub(super) fn hash_said(bytes: [u8; 32]) -> Option<ContentHash> {
    Some(ContentHash::from_bytes(bytes)).filter(|hash| *hash != HASH_NOT_SAID)
}

const HASH_NOT_SAID: ContentHash = ContentHash::from_bytes([0; 32]);

/// A member's role.
pub(super) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Owner => "owner",
    }
}

/// Back again.
pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "editor" => Ok(Role::Editor),
        "owner" => Ok(Role::Owner),
        _ => Err(StoreError::Corrupt(format!("unknown role '{text}'"))),
    }
}

/// A user's role on the relay as a whole.
pub(super) fn user_role_text(role: UserRole) -> &'static str {
    match role {
        UserRole::User => "user",
        UserRole::Admin => "admin",
    }
}

/// Back again.
pub(super) fn user_role(text: &str) -> Result<UserRole, StoreError> {
    match text {
        "user" => Ok(UserRole::User),
        "admin" => Ok(UserRole::Admin),
        _ => Err(damaged("role")),
    }
}

/// What a public link is for.
pub(super) fn link_kind(text: &str) -> Result<LinkKind, StoreError> {
    match text {
        "view" => Ok(LinkKind::View),
        "download" => Ok(LinkKind::Download),
        "upload" => Ok(LinkKind::Upload),
        _ => Err(damaged("kind")),
    }
}

/// A column that holds what no writer of ours puts there.
pub(super) fn damaged(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column} holds what it cannot hold"))
}

/// What a user may do with a shared file, in the words of its table.
pub(super) fn permission_text(role: Role) -> &'static str {
    if role >= Role::Editor { "write" } else { "read" }
}

/// Back again. A word that is not ours opens nothing.
pub(super) fn permission(text: &str) -> Result<Role, StoreError> {
    match text {
        "write" => Ok(Role::Editor),
        "read" => Ok(Role::Viewer),
        _ => Err(damaged("permission")),
    }
}
