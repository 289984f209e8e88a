//! Moving a user's content to another shard, step by step (docs/adr/0007-sharding-by-user.md). The order of the steps is the service's
//! (`service/content/relocate.rs`); each of them is done whole or not at all, and may be done again.
//!
//! * **MV1** A user's content counts where the directory says, and nowhere else. A copy that is not complete is in a shard to which nobody is led.
//! * **MV2** The directory is changed while the rows of the user's namespaces are locked in the old shard, and only as long as writers were kept out
//!   without a break since the copy was compared: no commit is lost between the two.
//! * **MV3** Writers are kept out for a time that ends by itself: a move that died holds nobody up.

use super::StoreError;
use super::content::{Shard, StoredChunk};
use async_trait::async_trait;
use ferry_protocol::{ChunkId, NamespaceId, UserId};
use std::collections::BTreeSet;

/// A move that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveRow {
    /// Whose content moves.
    pub user: UserId,
    /// Where it was when the move began.
    pub from: Shard,
    /// Where it goes.
    pub to: Shard,
    /// The directory leads to `to` already.
    pub is_switched: bool,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: i64,
}

/// What bringing a namespace found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brought {
    /// Rows that the namespace has, in all tables.
    pub rows: u64,
    /// Whether the other shard had something else before.
    pub has_changed: bool,
}

/// What became of the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// The directory leads to the new shard.
    Done,
    /// Writers were let in meanwhile; nothing was changed.
    Lapsed,
    /// There is no such user any more; nothing was changed.
    Gone,
}

/// Nobody else moves users, or copies all databases one after another, as long as this lives.
pub type Alone = Box<dyn Send + Sync>;

/// What a store of several shards can do.
#[async_trait]
pub trait ShardMoves: Send + Sync {
    /// Leave to move users; nothing if another process has it.
    async fn alone(&self) -> Result<Option<Alone>, StoreError>;
    /// Moves that are not finished, by user.
    async fn noted(&self) -> Result<Vec<MoveRow>, StoreError>;
    /// Notes that a user moves; one that is noted already stays as it is.
    async fn note(&self, user: UserId, from: Shard, to: Shard, now_ms: i64) -> Result<(), StoreError>;
    /// Forgets a move.
    async fn done(&self, user: UserId) -> Result<(), StoreError>;
    /// Whether new users may be placed in a shard. When this returns, whoever is placed there is there already, in every process.
    async fn set_closed(&self, shard: Shard, is_closed: bool, now_ms: i64) -> Result<(), StoreError>;
    /// Shards in which nobody new is placed.
    async fn closed(&self) -> Result<BTreeSet<Shard>, StoreError>;
    /// Where the directory says that a user is; nothing if there is no such user.
    async fn place_of(&self, user: UserId) -> Result<Option<Shard>, StoreError>;
    /// Users of a shard by rising id after `after`, at most `limit`.
    async fn users_in(&self, shard: Shard, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, StoreError>;

    /// The user's namespaces in either shard, by rising id.
    async fn namespaces(&self, of: &MoveRow) -> Result<Vec<NamespaceId>, StoreError>;
    /// How many rows a namespace has in a shard.
    async fn rows(&self, shard: Shard, namespace: NamespaceId) -> Result<u64, StoreError>;
    /// Of the chunks that a namespace holds in the old shard, `limit` looked at after `after` by rising id, those that the new one lacks, or has
    /// damaged where the old one has them whole; and after which to go on, if there are more.
    async fn lacking(
        &self,
        of: &MoveRow,
        namespace: NamespaceId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<(Vec<StoredChunk>, Option<ChunkId>), StoreError>;
    /// Makes the rows of a namespace in the new shard those that the old one has at this moment, compared by count and digest of every table; all
    /// of its chunks are there ([`ShardMoves::lacking`]), or it is a conflict.
    async fn bring(&self, of: &MoveRow, namespace: NamespaceId) -> Result<Brought, StoreError>;

    /// Keeps writers out of the user's namespaces in the old shard for so long, in milliseconds. Returns until when, by that shard's clock; commits
    /// that are under way are done before.
    async fn hold(&self, of: &MoveRow, for_ms: i64) -> Result<i64, StoreError>;
    /// Lets writers in again.
    async fn release(&self, of: &MoveRow) -> Result<(), StoreError>;
    /// Leads everybody to the new shard, if writers were kept out since [`ShardMoves::hold`] returned `until_ms` (MV2).
    async fn switch(&self, of: &MoveRow, until_ms: i64) -> Result<Switched, StoreError>;
    /// Takes the marks of a copy from what has come.
    async fn arrive(&self, of: &MoveRow) -> Result<(), StoreError>;
    /// Removes what a shard has of a user whom the directory does not lead there; a conflict if it does.
    async fn clear(&self, shard: Shard, user: UserId) -> Result<(), StoreError>;
}
