//! Single files that are shared with somebody who is no member: the way to the one file, and to nothing beside it (I13).
//!
//! Asked each time, so that the end of a share counts at once. The share is of the node: the file may be renamed or moved, is gone while it is in the
//! trash, and there again when it was restored. Its receiver sees the newest content under the file's name, neither older versions nor where it stands.

use super::{Content, Entry, check_membership, folder_of};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::content::NamespaceRow;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, RelPath, UserId, node};

impl Entry {
    /// Refuses all but the open file, and of that all but its newest content, where one file is open.
    pub(super) fn check_shown(&self, file: NodeId, an_older_version: bool) -> ServiceResult<()> {
        match self.only {
            Some(only) if only != file || an_older_version => Err(ServiceError::not_found()),
            _ => Ok(()),
        }
    }
}

impl Content {
    /// As [`Content::enter_by_file`], and besides for somebody with whom the file is shared: for what keeps to the one file.
    pub async fn enter_file(&self, caller: &Caller, file: NodeId, space: Option<NamespaceId>, role: Role) -> ServiceResult<Entry> {
        let refusal = match self.enter_by_file(caller, file, space, role).await {
            Err(e) => e,
            entered => return entered,
        };
        self.enter_shared(caller, space, file, role, refusal).await
    }

    /// An entry for one file by its share, in this namespace if one is named, where another way was refused: a member who may only read may have a file
    /// shared to write. Without a share the refusal stands.
    pub(super) async fn enter_shared(
        &self,
        caller: &Caller,
        namespace: Option<NamespaceId>,
        file: NodeId,
        role: Role,
        refusal: ServiceError,
    ) -> ServiceResult<Entry> {
        // An app password of one folder opens what is in it, and nothing of others.
        if !matches!(refusal.kind(), Kind::NotFound | Kind::Forbidden) || folder_of(caller).is_some() {
            return Err(refusal);
        }
        let rows = self.meta.locate_shared(caller.user_id, file).await?;
        let Some(row) = rows.into_iter().find(|row| namespace.is_none_or(|wanted| wanted == row.id)) else { return Err(refusal) };
        check_membership(caller, &row, role)?;
        Ok(Entry { caller: *caller, row, within: RelPath::root(), only: Some(file) })
    }

    /// A file that is to be shared or is shared, as its owner has it: nothing while it is not there, or is no file.
    pub(in crate::service) async fn file_to_share(&self, namespace: NamespaceId, file: NodeId) -> ServiceResult<Option<super::FileInfo>> {
        let shown = self.view(namespace).of_node(file).await?;
        let Some(shown) = shown.filter(|shown| matches!(shown.entry.content, node::Content::File(_))) else { return Ok(None) };
        let mut info = self.describe(namespace, &shown).await?;
        hide_place(&mut info);
        Ok(Some(info))
    }

    /// The members of a namespace.
    pub(in crate::service) async fn members_of(&self, namespace: NamespaceId) -> ServiceResult<Vec<(UserId, Role)>> {
        Ok(self.meta.members(namespace).await?)
    }

    /// The namespaces that a user is a member of.
    pub(in crate::service) async fn spaces_of(&self, user: UserId) -> ServiceResult<Vec<NamespaceRow>> {
        Ok(self.meta.namespaces_of(user).await?)
    }

    /// The name of a namespace, as one of its members sees it.
    pub(in crate::service) async fn name_of_namespace(&self, namespace: NamespaceId, member: UserId) -> ServiceResult<Option<String>> {
        Ok(self.meta.namespace_for(namespace, member).await?.map(|row| row.name))
    }
}

/// Leaves the file's name and takes away where it stands.
pub(super) fn hide_place(info: &mut super::FileInfo) {
    if let Some(name) = info.path.names().last().cloned() {
        info.path = RelPath::root().join(&name);
    }
}
