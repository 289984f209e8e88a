//! Inviting, accepting, changing roles, ending.

use super::{OPEN_MAX, PEOPLE_MAX, ShareRef, Sharing, What};
use crate::service::accounts::email_key;
use crate::service::{Caller, ServiceError, ServiceResult};
use crate::store::shares::{Invitation, Invited, Of, ShareId, SharedFile};
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};

/// Which side of an invitation somebody is on.
enum Side {
    Owner,
    Invited,
}

impl Sharing {
    /// Invites whoever has the account of an address. The answer is the same whether somebody has it or not (SH2); the same again changes the role.
    pub async fn invite(&self, caller: &Caller, what: What, email: &str, role: Role) -> ServiceResult<ShareRef> {
        let key = email_key(email).ok_or_else(|| ServiceError::invalid("invalid_email", "This is no e-mail address."))?;
        let (namespace, file) = self.owned(caller, what).await?;
        self.step(caller).await?;
        self.check_is_news(caller, namespace, file, &key).await?;
        let invitation = Invitation {
            share_id: crate::service::content::random_id()?,
            namespace,
            file,
            email: email.trim().to_owned(),
            email_key: key,
            role,
            invited_by: caller.user_id,
            created_at_ms: self.clock.now_ms(),
        };
        let share_id = match self.store.invite(&invitation, Self::bounds()).await? {
            Invited::Stored(share_id) => share_id,
            Invited::FullHere => {
                let detail = format!("At most {PEOPLE_MAX} people can share this, open invitations counted.");
                return Err(ServiceError::conflict("too_many_people", detail).with("limit", PEOPLE_MAX));
            }
            Invited::FullForUser => {
                let detail = format!("You have {OPEN_MAX} open invitations. Withdraw some of them first.");
                return Err(ServiceError::conflict("too_many_invitations", detail).with("limit", OPEN_MAX));
            }
        };
        let detail = format!("{} as {}", place(namespace, file), word(role));
        self.accounts.note_act(caller, "share.invited", &detail).await;
        self.wake_address(email).await;
        Ok(ShareRef::Row(share_id))
    }

    /// The namespace that the caller owns, and the file of it if one is meant.
    async fn owned(&self, caller: &Caller, what: What) -> ServiceResult<(NamespaceId, Option<NodeId>)> {
        match what {
            What::Folder(namespace) => Ok((self.content.enter(caller, namespace, Role::Owner).await?.namespace(), None)),
            What::File(file, space) => {
                let entry = self.content.enter_by_file(caller, file, space, Role::Owner).await?;
                match self.content.file_to_share(entry.namespace(), file).await? {
                    Some(_) => Ok((entry.namespace(), Some(file))),
                    None => {
                        let detail = "Only files and whole folders can be shared. Share the folder that this is in, or sync this one as a folder of its own.";
                        Err(ServiceError::conflict("not_a_file", detail))
                    }
                }
            }
        }
    }

    /// Refuses an invitation of somebody who has it already. Tells nothing new: the owner sees who that is.
    async fn check_is_news(&self, caller: &Caller, namespace: NamespaceId, file: Option<NodeId>, key: &str) -> ServiceResult<()> {
        if self.own_key(caller).await? == key {
            return Err(ServiceError::conflict("own_address", "This is your own address."));
        }
        let has = |email: &str| email_key(email).as_deref() == Some(key);
        let known = match file {
            None => self.store.members_of(Of::Namespace(namespace), super::LIST_MAX).await?.iter().any(|m| has(&m.email)),
            Some(file) => {
                let shared = self.store.files_shared_of(Of::Namespace(namespace), super::LIST_MAX).await?;
                shared.iter().any(|s| s.file == file && has(&s.email))
            }
        };
        if known {
            return Err(ServiceError::conflict("already_shared", "This is shared with this address already. Change the role instead."));
        }
        Ok(())
    }

    /// An invitation as one of its two sides; to everybody else it does not exist.
    async fn invitation(&self, caller: &Caller, share_id: ShareId) -> ServiceResult<Option<(Invitation, Side)>> {
        let Some(invitation) = self.store.invitation(share_id).await? else { return Ok(None) };
        if self.owns(caller, invitation.namespace).await? {
            return Ok(Some((invitation, Side::Owner)));
        }
        let is_mine = self.own_key(caller).await? == invitation.email_key;
        Ok(is_mine.then_some((invitation, Side::Invited)))
    }

    async fn owns(&self, caller: &Caller, namespace: NamespaceId) -> ServiceResult<bool> {
        match self.content.enter(caller, namespace, Role::Owner).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), crate::service::Kind::NotFound | crate::service::Kind::Forbidden) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The caller's own open invitation.
    async fn own_invitation(&self, caller: &Caller, share: ShareRef) -> ServiceResult<Invitation> {
        let ShareRef::Row(share_id) = share else { return Err(ServiceError::not_found()) };
        let found = self.store.invitation(share_id).await?.ok_or_else(ServiceError::not_found)?;
        if found.email_key == self.own_key(caller).await? { Ok(found) } else { Err(ServiceError::not_found()) }
    }

    /// Accepts an invitation. The folder that it is to, or the namespace of the file.
    pub async fn accept(&self, caller: &Caller, share: ShareRef) -> ServiceResult<Invitation> {
        let found = self.own_invitation(caller, share).await?;
        let taken = self.store.take_invitation(found.share_id, caller.user_id, self.clock.now_ms()).await?;
        let taken = taken.ok_or_else(ServiceError::not_found)?;
        self.accounts.note_act(caller, "share.accepted", &place(taken.namespace, taken.file)).await;
        match taken.file {
            None => self.members_changed(taken.namespace, caller.user_id).await?,
            Some(_) => self.wake(taken.invited_by),
        }
        Ok(taken)
    }

    /// Takes the files that were shared with the caller's address since it last looked (SH2).
    pub(super) async fn take_files(&self, caller: &Caller, open: &[Invitation]) -> ServiceResult<()> {
        for invitation in open.iter().filter(|i| i.file.is_some()) {
            if self.store.take_invitation(invitation.share_id, caller.user_id, self.clock.now_ms()).await?.is_some() {
                self.accounts.note_act(caller, "share.accepted", &place(invitation.namespace, invitation.file)).await;
                self.wake(invitation.invited_by);
            }
        }
        Ok(())
    }

    /// Declines an invitation.
    pub async fn decline(&self, caller: &Caller, share: ShareRef) -> ServiceResult<()> {
        let found = self.own_invitation(caller, share).await?;
        if !self.store.drop_invitation(found.share_id).await? {
            return Err(ServiceError::not_found());
        }
        self.accounts.note_act(caller, "share.declined", &place(found.namespace, found.file)).await;
        self.wake(caller.user_id);
        self.wake(found.invited_by);
        Ok(())
    }

    /// Changes a role: of an open invitation, a member, or somebody with whom a file is shared.
    pub async fn set_role(&self, caller: &Caller, share: ShareRef, role: Role) -> ServiceResult<()> {
        let (namespace, file, user) = match share {
            ShareRef::Member(namespace, user) => {
                self.content.enter(caller, namespace, Role::Owner).await?;
                if user == caller.user_id {
                    return Err(owners_own());
                }
                if !self.store.change_member(namespace, user, role).await? {
                    return Err(ServiceError::not_found());
                }
                self.members_changed(namespace, user).await?;
                (namespace, None, Some(user))
            }
            ShareRef::Row(share_id) => match self.invitation(caller, share_id).await? {
                Some((invitation, Side::Owner)) => {
                    if !self.store.set_invitation_role(share_id, role).await? {
                        return Err(ServiceError::not_found());
                    }
                    self.wake_address(&invitation.email).await;
                    (invitation.namespace, invitation.file, None)
                }
                Some((_, Side::Invited)) => return Err(owners_only()),
                None => {
                    let shared = self.shared_file(caller, share_id).await?;
                    if !self.owns(caller, shared.namespace).await? {
                        return Err(owners_only());
                    }
                    if !self.store.set_shared_file_role(share_id, role).await? {
                        return Err(ServiceError::not_found());
                    }
                    self.wake(shared.with);
                    (shared.namespace, Some(shared.file), Some(shared.with))
                }
            },
        };
        let detail = format!("{} as {}{}", place(namespace, file), word(role), whom(user));
        self.accounts.note_act(caller, "share.role", &detail).await;
        Ok(())
    }

    /// A shared file as one of its two sides; to everybody else it does not exist.
    async fn shared_file(&self, caller: &Caller, share_id: ShareId) -> ServiceResult<SharedFile> {
        let shared = self.store.shared_file(share_id).await?.ok_or_else(ServiceError::not_found)?;
        if shared.with == caller.user_id || self.owns(caller, shared.namespace).await? {
            Ok(shared)
        } else {
            Err(ServiceError::not_found())
        }
    }

    /// Ends a share: the owner withdraws or removes, the other side declines or leaves. It counts at once (SH3).
    pub async fn end(&self, caller: &Caller, share: ShareRef) -> ServiceResult<()> {
        match share {
            ShareRef::Member(namespace, user) => {
                let needed = if user == caller.user_id { Role::Viewer } else { Role::Owner };
                let entry = self.content.enter(caller, namespace, needed).await?;
                if user == caller.user_id && entry.role() == Role::Owner {
                    return Err(owners_own());
                }
            }
            ShareRef::Row(share_id) => {
                if self.invitation(caller, share_id).await?.is_none() {
                    self.shared_file(caller, share_id).await?;
                }
            }
        }
        self.revoke(Some(caller), share).await
    }

    /// Ends a share, whoever asks: for the owner, the other side, or the relay's operator (no caller).
    pub async fn revoke(&self, by: Option<&Caller>, share: ShareRef) -> ServiceResult<()> {
        let (namespace, file, user) = match share {
            ShareRef::Member(namespace, user) => {
                if !self.store.end_membership(namespace, user).await? {
                    return Err(ServiceError::not_found());
                }
                self.members_changed(namespace, user).await?;
                (namespace, None, Some(user))
            }
            ShareRef::Row(share_id) => {
                if let Some(invitation) = self.store.invitation(share_id).await?
                    && self.store.drop_invitation(share_id).await?
                {
                    self.wake_address(&invitation.email).await;
                    self.wake(invitation.invited_by);
                    (invitation.namespace, invitation.file, None)
                } else {
                    let shared = self.store.shared_file(share_id).await?.ok_or_else(ServiceError::not_found)?;
                    if !self.store.drop_shared_file(share_id).await? {
                        return Err(ServiceError::not_found());
                    }
                    self.wake(shared.with);
                    self.wake(shared.owner);
                    (shared.namespace, Some(shared.file), Some(shared.with))
                }
            }
        };
        let detail = format!("{}{}", place(namespace, file), whom(user));
        match by {
            Some(caller) => self.accounts.note_act(caller, "share.ended", &detail).await,
            None => self.accounts.note_operation("share.ended", &detail).await,
        }
        Ok(())
    }
}

fn owners_only() -> ServiceError {
    ServiceError::forbidden("Only the folder's owner may do this.")
}

fn owners_own() -> ServiceError {
    ServiceError::conflict("is_owner", "The owner of a folder stays its owner: the role can be neither changed nor left.")
}

/// What is shared, for the audit log: ids, no names.
fn place(namespace: NamespaceId, file: Option<NodeId>) -> String {
    match file {
        None => format!("folder {namespace}"),
        Some(file) => format!("file {file} of folder {namespace}"),
    }
}

fn whom(user: Option<UserId>) -> String {
    user.map(|user| format!(", user {user}")).unwrap_or_default()
}

fn word(role: Role) -> &'static str {
    if role >= Role::Editor { "editor" } else { "viewer" }
}
