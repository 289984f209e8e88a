//! What is shared with whom: as its owner, as a member and as a receiver sees it.

use super::{LIST_MAX, ShareRef, Sharing};
use crate::service::content::FileInfo;
use crate::service::{Caller, ServiceResult};
use crate::store::shares::{Invitation, MemberRow, Of, SharedFile};
use ferry_protocol::wire::{NamespaceInfo, Role};
use ferry_protocol::{NamespaceId, NodeId, UserId};
use std::collections::BTreeMap;

/// Which shares are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Everything that the caller shares.
    ByMe,
    /// Everything that is shared with the caller, open invitations too.
    WithMe,
    /// The folders to which the caller is invited and has not answered.
    Open,
    /// Everybody who shares this folder.
    Folder(NamespaceId),
    /// Everybody with whom this file is shared, and the folder in which it is meant.
    File(NodeId, Option<NamespaceId>),
}

/// Whether a share was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareState {
    /// An invitation that waits.
    Pending,
    /// It counts.
    Accepted,
}

/// What is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// A folder, with its name.
    Folder(String),
    /// A file; nothing while it is in the trash or gone.
    File(NodeId, Option<Box<FileInfo>>),
}

/// A person, as far as the other side may see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct With {
    /// The address.
    pub email: String,
    /// The name, of somebody who has accepted.
    pub name: Option<String>,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareDoc {
    /// By which it is changed and ended.
    pub share: ShareRef,
    /// The namespace.
    pub namespace: NamespaceId,
    /// What is shared.
    pub what: Shared,
    /// With whom.
    pub with: With,
    /// What they may do.
    pub role: Role,
    /// Whether it was taken.
    pub state: ShareState,
    /// Who shares it.
    pub by: With,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
}

/// Names that are asked for several times in one answer.
#[derive(Default)]
struct Names {
    people: BTreeMap<UserId, With>,
    folders: BTreeMap<NamespaceId, String>,
    files: BTreeMap<(NamespaceId, NodeId), Option<Box<FileInfo>>>,
}

impl Sharing {
    /// Shares as the caller may see them: members see each other, the owner also what is open.
    pub async fn list(&self, caller: &Caller, wanted: Listed) -> ServiceResult<Vec<ShareDoc>> {
        match wanted {
            Listed::ByMe => {
                let mut list = self.of(Of::Owner(caller.user_id), caller.user_id, true).await?;
                list.retain(|share| share.role != Role::Owner);
                Ok(list)
            }
            Listed::WithMe => self.with_me(caller).await,
            Listed::Open => self.open(caller).await,
            Listed::Folder(namespace) => {
                let entry = self.content.enter(caller, namespace, Role::Viewer).await?;
                let mut list = self.of(Of::Namespace(namespace), caller.user_id, entry.role() == Role::Owner).await?;
                list.retain(|share| matches!(share.what, Shared::Folder(_)));
                Ok(list)
            }
            Listed::File(file, space) => {
                let entry = self.content.enter_by_file(caller, file, space, Role::Owner).await?;
                let mut list = self.of(Of::Namespace(entry.namespace()), caller.user_id, true).await?;
                list.retain(|share| matches!(share.what, Shared::File(of, _) if of == file));
                Ok(list)
            }
        }
    }

    /// Everything that is shared with a user or by a user, or by anybody: for the relay's operator.
    pub async fn list_for_operator(&self, user: UserId) -> ServiceResult<Vec<ShareDoc>> {
        let mut list = self.of(Of::Owner(user), user, true).await?;
        list.retain(|share| share.role != Role::Owner);
        list.extend(self.received(user, &self.accounts.user(user).await?.email_key).await?);
        Ok(list)
    }

    /// Who owns each of these folders, and how many people have it beside the owner.
    pub async fn owners(&self, spaces: &[NamespaceInfo]) -> ServiceResult<BTreeMap<NamespaceId, (With, usize)>> {
        let (mut names, mut owners) = (Names::default(), BTreeMap::new());
        for space in spaces {
            let members = self.content.members_of(space.id).await?.len();
            owners.insert(space.id, (self.person(space.owner, &mut names).await?, members.saturating_sub(1)));
        }
        Ok(owners)
    }

    /// The single files that are shared with the caller.
    pub async fn files_of(&self, caller: &Caller) -> ServiceResult<Vec<(NamespaceId, NodeId)>> {
        let files = self.store.files_shared_with(caller.user_id, LIST_MAX).await?;
        Ok(files.into_iter().map(|shared| (shared.namespace, shared.file)).collect())
    }

    async fn open(&self, caller: &Caller) -> ServiceResult<Vec<ShareDoc>> {
        let (mut names, mut list) = (Names::default(), Vec::new());
        for invitation in self.store.invitations_to(&self.own_key(caller).await?, LIST_MAX).await? {
            if invitation.file.is_none() {
                list.extend(self.pending(invitation, &mut names).await?);
            }
        }
        Ok(list)
    }

    async fn with_me(&self, caller: &Caller) -> ServiceResult<Vec<ShareDoc>> {
        let key = self.own_key(caller).await?;
        let open = self.store.invitations_to(&key, LIST_MAX).await?;
        self.take_files(caller, &open).await?;
        self.received(caller.user_id, &key).await
    }

    async fn received(&self, user: UserId, email_key: &str) -> ServiceResult<Vec<ShareDoc>> {
        let mut names = Names::default();
        let mut list = Vec::new();
        for invitation in self.store.invitations_to(email_key, LIST_MAX).await? {
            list.extend(self.pending(invitation, &mut names).await?);
        }
        for space in self.content.spaces_of(user).await?.into_iter().filter(|space| space.owner != user) {
            let mine = self.store.members_of(Of::Namespace(space.id), LIST_MAX).await?.into_iter().find(|m| m.user == user);
            if let Some(member) = mine {
                list.extend(self.membership(member, space.owner, &mut names).await?);
            }
        }
        for shared in self.store.files_shared_with(user, LIST_MAX).await? {
            // What is not there now is nothing that the receiver has.
            list.extend(self.shared(shared, &mut names).await?.filter(|doc| matches!(doc.what, Shared::File(_, Some(_)))));
        }
        Ok(list)
    }

    async fn of(&self, of: Of, seen_by: UserId, with_open: bool) -> ServiceResult<Vec<ShareDoc>> {
        let mut names = Names::default();
        let mut list = Vec::new();
        let members = self.store.members_of(of, LIST_MAX).await?;
        let owners: BTreeMap<NamespaceId, UserId> =
            members.iter().filter(|m| m.role == Role::Owner).map(|m| (m.namespace, m.user)).collect();
        for member in members {
            let owner = owners.get(&member.namespace).copied().unwrap_or(seen_by);
            list.extend(self.membership(member, owner, &mut names).await?);
        }
        if with_open {
            for invitation in self.store.invitations_of(of, LIST_MAX).await? {
                list.extend(self.pending(invitation, &mut names).await?);
            }
            for shared in self.store.files_shared_of(of, LIST_MAX).await? {
                list.extend(self.shared(shared, &mut names).await?);
            }
        }
        Ok(list)
    }

    async fn pending(&self, open: Invitation, names: &mut Names) -> ServiceResult<Option<ShareDoc>> {
        let what = match open.file {
            None => match self.folder_name(open.namespace, open.invited_by, names).await? {
                Some(name) => Shared::Folder(name),
                None => return Ok(None),
            },
            Some(file) => Shared::File(file, self.file(open.namespace, file, names).await?),
        };
        Ok(Some(ShareDoc {
            share: ShareRef::Row(open.share_id),
            namespace: open.namespace,
            what,
            with: With { email: open.email, name: None },
            role: open.role,
            state: ShareState::Pending,
            by: self.person(open.invited_by, names).await?,
            created_at_ms: open.created_at_ms,
        }))
    }

    async fn membership(&self, member: MemberRow, owner: UserId, names: &mut Names) -> ServiceResult<Option<ShareDoc>> {
        let Some(name) = self.folder_name(member.namespace, member.user, names).await? else { return Ok(None) };
        Ok(Some(ShareDoc {
            share: ShareRef::Member(member.namespace, member.user),
            namespace: member.namespace,
            what: Shared::Folder(name),
            with: With { email: member.email, name: Some(member.name) },
            role: member.role,
            state: ShareState::Accepted,
            by: self.person(owner, names).await?,
            created_at_ms: member.created_at_ms,
        }))
    }

    async fn shared(&self, shared: SharedFile, names: &mut Names) -> ServiceResult<Option<ShareDoc>> {
        Ok(Some(ShareDoc {
            share: ShareRef::Row(shared.share_id),
            namespace: shared.namespace,
            what: Shared::File(shared.file, self.file(shared.namespace, shared.file, names).await?),
            with: With { email: shared.email, name: Some(shared.name) },
            role: shared.role,
            state: ShareState::Accepted,
            by: self.person(shared.owner, names).await?,
            created_at_ms: shared.created_at_ms,
        }))
    }

    /// Nothing when the folder went meanwhile.
    async fn folder_name(&self, namespace: NamespaceId, member: UserId, names: &mut Names) -> ServiceResult<Option<String>> {
        if let Some(known) = names.folders.get(&namespace) {
            return Ok(Some(known.clone()));
        }
        let found = self.content.name_of_namespace(namespace, member).await?;
        if let Some(name) = &found {
            names.folders.insert(namespace, name.clone());
        }
        Ok(found)
    }

    async fn file(&self, namespace: NamespaceId, file: NodeId, names: &mut Names) -> ServiceResult<Option<Box<FileInfo>>> {
        if let Some(known) = names.files.get(&(namespace, file)) {
            return Ok(known.clone());
        }
        let found = self.content.file_to_share(namespace, file).await?.map(Box::new);
        names.files.insert((namespace, file), found.clone());
        Ok(found)
    }

    /// A person by id; an account that went meanwhile is nobody.
    async fn person(&self, user: UserId, names: &mut Names) -> ServiceResult<With> {
        if let Some(known) = names.people.get(&user) {
            return Ok(known.clone());
        }
        let found = match self.accounts.user(user).await {
            Ok(user) => With { email: user.email, name: Some(user.name) },
            Err(e) if e.kind() == crate::service::Kind::NotFound => With::default(),
            Err(e) => return Err(e),
        };
        names.people.insert(user, found.clone());
        Ok(found)
    }
}
