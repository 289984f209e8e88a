//! What WebDAV needs of content: places by path, files written as a stream, locks, properties. The protocol itself is `http/dav`.
//!
//! * **WD1** Everything goes through an [`Entry`], keeps to its open part, and is an edit like any other: roles, quota, versions, trash and feed hold.
//! * **WD2** A file that is written is seen when it is whole and durable, or never (I4). What stood in its place is among the versions, or in the trash.
//! * **WD3** COPY and MOVE are one transaction each, what they replace included. A copy shares its chunks; what is moved keeps its node.
//! * **WD4** A lock holds between WebDAV clients, whichever process of the relay they speak to. It never stops a device: what a device commits becomes
//!   the newest version, as always.

mod locks;
mod look;
mod place;
mod props;
mod write;

pub use locks::{DavLock, LockWish};
pub use look::{DavEntry, DavKind};
pub use props::DavProp;
pub use write::{DavWrite, WriteTerms};

use super::{Content, Entry};
use crate::service::{Caller, ServiceResult};
use ferry_protocol::NamespaceId;
use ferry_protocol::wire::Role;

impl Content {
    /// Enters a namespace for WebDAV: an app password of one folder keeps to that folder.
    pub async fn dav_enter(&self, caller: &Caller, namespace: NamespaceId, role: Role) -> ServiceResult<Entry> {
        self.enter_part(caller, Some(namespace), role).await
    }

    /// What the owner of a namespace uses, and may use if there is a limit, in bytes.
    pub async fn dav_quota(&self, entry: &Entry) -> ServiceResult<(u64, Option<u64>)> {
        let quota = self.meta.quota(entry.row.owner).await?;
        Ok((quota.used_bytes, quota.limit_bytes.or(self.config.default_limit_bytes)))
    }
}
