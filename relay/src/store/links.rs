//! The trait behind public links: addresses that open one file or folder to whoever knows them.
//!
//! What a link opens and whether it still does is the service's matter; here is only what was said when it was made, and how often it was used.

#[cfg(test)]
mod contract;

use super::StoreError;
use super::accounts::SecretHash;
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId, UserId};

/// What whoever opens a link may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Look at what a browser can show; nothing is offered for keeping.
    View,
    /// Look, and download.
    Download,
    /// Put files into the folder, and see nothing of it.
    Upload,
}

impl LinkKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// A link's id.
pub type LinkId = [u8; 16];
/// Who fetches through a link, as a hash.
pub type Visitor = [u8; 16];

/// A public link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id: no secret.
    pub link_id: LinkId,
    /// The secret of its address, encrypted.
    pub token_sealed: Vec<u8>,
    /// Where it leads.
    pub namespace: NamespaceId,
    /// The file or directory; the root for all of the namespace.
    pub node: NodeId,
    /// Who made it.
    pub maker: UserId,
    /// What it is for.
    pub kind: LinkKind,
    /// The hash of its password (PHC string), if it has one.
    pub password_hash: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Most downloads.
    pub max_downloads: Option<u64>,
    /// Downloads so far.
    pub downloads: u64,
    /// In milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it was revoked, in milliseconds since 1970.
    pub revoked_at_ms: Option<i64>,
}

/// A change of a link; what is `None` stays, an inner `None` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// What it is for.
    pub kind: Option<LinkKind>,
    /// The hash of the password.
    pub password_hash: Option<Option<String>>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: Option<Option<i64>>,
    /// Most downloads.
    pub max_downloads: Option<Option<u64>>,
}

/// What became of a download that was to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is one more.
    New,
    /// This visitor has fetched this file before.
    Again,
    /// No more are allowed; nothing was counted.
    UsedUp,
}

/// Public links in a database. Contract: `store/links/contract.rs`.
#[async_trait]
pub trait LinkStore: Send + Sync + 'static {
    /// Stores a link under the hash of its address's secret, unless its maker has `links_max` that are not revoked.
    async fn insert_link(&self, link: &Link, token: SecretHash, links_max: u32) -> Result<bool, StoreError>;
    /// The link with this hash, good or not, and whether its maker is locked out.
    async fn link_of_token(&self, token: SecretHash) -> Result<Option<(Link, bool)>, StoreError>;
    /// A link by its id, good or not.
    async fn link(&self, link_id: LinkId) -> Result<Option<Link>, StoreError>;
    /// The links that are not revoked and that this user made, or that lead into a namespace that this user owns, newest first.
    async fn links_of(&self, user: UserId) -> Result<Vec<Link>, StoreError>;
    /// Changes a link that is not revoked; false when there is none.
    async fn update_link(&self, link_id: LinkId, change: &LinkChange) -> Result<bool, StoreError>;
    /// Revokes a link; false when there is none to revoke.
    async fn revoke_link(&self, link_id: LinkId, now_ms: i64) -> Result<bool, StoreError>;
    /// Counts a download of a file, once for each visitor, unless there were `max_downloads`. Who has fetched what is remembered for a link with such a
    /// limit; for one without, no more is remembered after `remembered_max` downloads, and each counts.
    async fn count_download(
        &self,
        link_id: LinkId,
        visitor: Visitor,
        node: NodeId,
        remembered_max: u64,
        now_ms: i64,
    ) -> Result<Counted, StoreError>;
    /// Forgets who fetched what before `visits_before_ms`, and links that were revoked or ended before `ended_before_ms`.
    async fn forget_links(&self, visits_before_ms: i64, ended_before_ms: i64) -> Result<(), StoreError>;
}
