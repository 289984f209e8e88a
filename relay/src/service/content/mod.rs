//! Content: namespaces, commits, feeds, chunks, uploads, downloads, the sweep and verification.
//!
//! * **RC1** A namespace is used only through an [`Entry`], and an entry is made only by checking the caller's membership and role (I13). Whoever is no
//!   member and has one file of it shared gets an entry for that file alone, from the few places that ask for such a one (`shared_files.rs`).
//! * **RC2** No committed version names a chunk that its namespace does not hold (R3, I7).
//! * **RC3** A hash is never a capability: a namespace holds a chunk only after its bytes came through that namespace.
//! * **RC4** What is served was hashed just before (I5).
//! * **RC5** A user's used bytes are the sum of the lengths of the chunks that each namespace of the user holds; checked before anything is stored.
//! * **RC6** Every run of a relay goes on with numbers far above those that it found, and is a replica of its own (I3, I11): see `feed.rs`.
//! * **RC7** Who writes in a namespace at the same moment as others may be written with them in one transaction, and is answered as if alone: see
//!   `batch.rs`.

mod activity;
mod archive;
mod batch;
mod changes;
mod chunks;
mod commit;
mod dav;
mod derive;
mod diff;
mod download;
mod edit;
mod feed;
mod files;
mod going_back;
mod history;
mod lacks;
mod lanes;
mod links;
mod listing;
mod migrate;
mod organise;
mod public;
mod purge;
mod read;
mod recheck;
mod regions;
mod relocate;
mod repair;
mod retention;
mod rewind;
mod rewrite;
mod search;
mod settle;
mod shared_files;
mod signed;
mod stage;
mod sweep;
mod trash;
mod tree;
mod uploads;
mod verify;
mod view;
mod watch;
mod whole;
mod zip;

/// How often a transaction that another one stood in the way of is done again.
const AGAIN_MAX: u32 = 5;

/// Does an attempt again, a few times and after a moment, as long as another transaction stood in its way: nothing was done by then.
macro_rules! patiently {
    ($attempt:expr) => {{
        let mut again = 0;
        loop {
            match $attempt {
                Err(error) if again < $crate::service::content::AGAIN_MAX && error.is_contended() => {
                    again += 1;
                    $crate::service::content::pause(again).await;
                }
                other => break other,
            }
        }
    }};
}
pub(crate) use patiently;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use activity::{Act, ActCursor, ActivityPage, ActivityQuery};
pub use archive::Archive;
pub use changes::{Change, ChangePage, Since};
pub use chunks::ChunkStream;
pub use dav::{DavEntry, DavKind, DavLock, DavProp, DavWrite, LockWish, WriteTerms};
pub use diff::{Comparison, DIFF_MAX_BYTES, Hunk, Line, LineKind, Side};
pub use download::Download;
pub use files::parse_path;
pub use files::{FileInfo, FileUpdate, Usage};
pub use history::{HistoryPage, HistoryWish, Place, VersionInfo};
pub(crate) use links::hmac_sha256;
pub use listing::{FilePage, ListCursor, ListQuery, Sort, parse_cursor};
pub use migrate::{MigrateReport, Migration};
pub use organise::{Conflict, Keep};
pub use public::PublicItem;
pub use purge::PurgeWhat;
pub use recheck::Recheck;
pub use relocate::{MoveReport, MoveStep, MoveWish, Told};
pub use repair::RepairReport;
pub use retention::{Retention, RetentionFile, RetentionReport, RetentionRule};
pub use rewind::{RewindCounts, RewindEntry, RewindPlan, RewindWish, Rewound};
pub use search::{Found, SearchCursor, SearchPage, SearchQuery, kind_of};
pub use signed::{SIGNED_FOR, SignedChunk};
pub use sweep::SweepReport;
pub use trash::{Restored, TrashItem};
pub use uploads::{Completed, NewUpload, UploadBegun, UploadProgress, UploadState};
pub use verify::VerifyReport;
pub use watch::WatchGuard;

use super::{Caller, ServiceError, ServiceResult, TokenFolder};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::blob::BlobRegions;
use crate::store::bus::{Bus, Wakes};
use crate::store::content::{ContentStore, ContentTx, Identity, NamespaceRow, Scope};
use ferry_protocol::limits::NAMESPACE_NAME_MAX_BYTES;
use ferry_protocol::wire::{NamespaceInfo, Role};
use ferry_protocol::{Epoch, NamespaceId, NodeId, RelPath, ReplicaId, UserId};
use std::sync::{Arc, RwLock};
use tree::Times;

/// The name of every user's home namespace.
pub const HOME_NAME: &str = "Ferry";

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct ContentConfig {
    /// How many bytes a user without a limit of its own may use; nothing for any number.
    pub default_limit_bytes: Option<u64>,
    /// How long an uploaded chunk is held before a commit names it, and an unreferenced chunk before it is deleted, in milliseconds (R8). An upload
    /// may take longer: who goes on with one holds what has arrived.
    pub grace_ms: i64,
    /// The sweep merges small packs when there are so many in one region.
    pub merge_from_packs: usize,
    /// Clients may be given addresses of the object store.
    pub presign: bool,
}

impl Default for ContentConfig {
    fn default() -> Self {
        Self { default_limit_bytes: None, grace_ms: 24 * 60 * 60 * 1000, merge_from_packs: 16, presign: false }
    }
}

/// The content service. Holds no state that matters (R7). Copies are the same service.
#[derive(Clone)]
pub struct Content(Arc<Inner>);

/// What the copies have in common.
pub struct Inner {
    meta: Arc<dyn ContentStore>,
    blobs: Arc<regions::Packs>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    config: ContentConfig,
    identity: RwLock<Identity>,
    watches: watch::Watches,
    listeners: watch::Listeners,
    trees: tree::Trees,
    lanes: lanes::Lanes,
    link_key: [u8; 32],
}

impl std::ops::Deref for Content {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A namespace that a caller was found to be allowed to use (RC1).
#[derive(Debug, Clone)]
pub struct Entry {
    caller: Caller,
    row: NamespaceRow,
    /// The part of the namespace that is open, for an app password of one folder; the root for all others.
    within: RelPath,
    /// The one file that is open, for somebody who is no member and with whom it is shared.
    only: Option<NodeId>,
}

impl Entry {
    /// The namespace.
    pub fn namespace(&self) -> NamespaceId {
        self.row.id
    }

    /// Who is calling.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the caller may do.
    pub fn role(&self) -> Role {
        self.row.role
    }

    /// The open part of the namespace; the root when all of it is.
    pub fn within(&self) -> &RelPath {
        &self.within
    }

    /// Refuses a place outside of the open part: there is nothing there, as far as this caller is told.
    fn confine(&self, path: &RelPath) -> ServiceResult<()> {
        if path.starts_with(&self.within) { Ok(()) } else { Err(ServiceError::not_found()) }
    }

    /// The same, and refuses the open part itself where it is not the whole: whoever was given a folder may not rename or delete it.
    fn confine_below(&self, path: &RelPath) -> ServiceResult<()> {
        self.confine(path)?;
        if self.within.is_root() || *path != self.within { Ok(()) } else { Err(ServiceError::not_found()) }
    }
}

impl Content {
    /// The service over these stores. Mints the relay's identity if the database has none. `link_key` signs download addresses.
    pub async fn open(
        meta: Arc<dyn ContentStore>,
        blobs: impl Into<BlobRegions>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        config: ContentConfig,
        link_key: [u8; 32],
    ) -> ServiceResult<Self> {
        let blobs = Arc::new(regions::Packs::new(meta.clone(), blobs.into()));
        // The epoch is the database's, the replica the run's: after a restore nobody gives an event's name to another event.
        let identity = meta.identity(fresh_identity()?, clock.now_ms()).await?;
        Ok(Self(Arc::new(Inner {
            meta,
            blobs,
            bus,
            clock,
            config,
            identity: RwLock::new(identity),
            watches: watch::Watches::default(),
            listeners: watch::Listeners::default(),
            trees: tree::Trees::default(),
            lanes: lanes::Lanes::default(),
            link_key,
        })))
    }

    /// Gives the relay a new epoch and replica: after its database was restored from a backup (I3, I11).
    pub async fn renew_identity(&self) -> ServiceResult<Epoch> {
        let fresh = fresh_identity()?;
        self.meta.replace_identity(fresh, self.clock.now_ms()).await?;
        self.remember(fresh);
        Ok(fresh.epoch)
    }

    /// Takes up what another process of this relay, or the database's own past, has changed about its identity.
    pub async fn refresh_identity(&self) -> ServiceResult<()> {
        let identity = self.meta.identity(fresh_identity()?, self.clock.now_ms()).await?;
        self.remember(identity);
        Ok(())
    }

    /// The identity that a transaction writes under.
    async fn identity_in(&self, tx: &mut dyn ContentTx) -> ServiceResult<Identity> {
        let identity = tx.identity().await?;
        self.remember(identity);
        Ok(identity)
    }

    fn remember(&self, identity: Identity) {
        if self.identity() != identity {
            *self.identity.write().unwrap_or_else(std::sync::PoisonError::into_inner) = identity;
        }
    }

    fn identity(&self) -> Identity {
        *self.identity.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Answers when both stores do.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.blobs.ping().await
    }

    /// Hears wake-ups of every namespace; whoever passes them on checks membership.
    pub fn subscribe(&self) -> Wakes {
        self.bus.subscribe()
    }

    /// The namespaces that the caller is a member of, the home first.
    pub async fn namespaces(&self, caller: &Caller) -> ServiceResult<Vec<NamespaceInfo>> {
        let mut rows = self.meta.namespaces_of(caller.user_id).await?;
        if !rows.iter().any(|r| r.is_home && r.owner == caller.user_id) {
            self.ensure_home(caller.user_id).await?;
            rows = self.meta.namespaces_of(caller.user_id).await?;
        }
        rows.retain(|row| folder_of(caller).is_none_or(|folder| folder.namespace == row.id));
        Ok(rows.into_iter().map(|r| self.info(r)).collect())
    }

    /// Creates a namespace that the caller owns, of the given id if there is one: then twice is once (I8). Names may repeat.
    pub async fn create_namespace(&self, caller: &Caller, id: Option<NamespaceId>, name: &str) -> ServiceResult<NamespaceInfo> {
        let name = name.trim();
        if name.is_empty() || name.len() > NAMESPACE_NAME_MAX_BYTES || name.chars().any(char::is_control) {
            let detail = format!("A namespace's name has 1 to {NAMESPACE_NAME_MAX_BYTES} bytes and no control characters.");
            return Err(ServiceError::invalid("invalid_name", detail));
        }
        let Some(id) = id else { return Ok(self.info(self.insert_namespace(None, caller.user_id, name, false).await?)) };
        if let Some(row) = self.meta.namespace_for(id, caller.user_id).await? {
            return Ok(self.info(row));
        }
        let row = self.insert_namespace(Some(id), caller.user_id, name, false).await.map_err(|e| match e.kind() {
            super::Kind::Conflict => {
                ServiceError::conflict("namespace_taken", "A folder of this id exists and this account is no member of it.")
            }
            _ => e,
        })?;
        Ok(self.info(row))
    }

    /// The home namespace of a user, created if it is not there: for account creation and as a safety net. Twice is once.
    pub async fn ensure_home(&self, user: UserId) -> ServiceResult<NamespaceId> {
        if let Some(home) = self.home(user).await? {
            return Ok(home.id);
        }
        match self.insert_namespace(None, user, HOME_NAME, true).await {
            Ok(row) => Ok(row.id),
            Err(e) if e.kind() == super::Kind::Conflict => {
                // Somebody else created it at the same time.
                self.home(user).await?.map(|r| r.id).ok_or(e)
            }
            Err(e) => Err(e),
        }
    }

    async fn home(&self, user: UserId) -> ServiceResult<Option<NamespaceRow>> {
        Ok(self.meta.namespaces_of(user).await?.into_iter().find(|r| r.is_home && r.owner == user))
    }

    async fn insert_namespace(&self, id: Option<NamespaceId>, owner: UserId, name: &str, is_home: bool) -> ServiceResult<NamespaceRow> {
        let id = match id {
            Some(id) => id,
            None => NamespaceId::from_bytes(random()?),
        };
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Owner(owner)).await?;
            let run = Some(self.identity_in(&mut *tx).await?.replica);
            let row = NamespaceRow {
                id,
                owner,
                name: name.to_owned(),
                is_home,
                head_seq: 0,
                settled_seq: 0,
                max_counter: 0,
                run,
                role: Role::Owner,
            };
            tx.create_namespace(&row, self.clock.now_ms()).await?;
            tx.commit().await?;
            ServiceResult::Ok(row)
        };
        patiently!(attempt().await)
    }

    fn info(&self, row: NamespaceRow) -> NamespaceInfo {
        let epoch = self.identity().epoch;
        NamespaceInfo { id: row.id, name: row.name, role: row.role, owner: row.owner, epoch, head_seq: row.head_seq }
    }

    /// Checks that the caller is a member with at least this role (RC1). Not visible is 404, visible but not allowed is 403.
    pub async fn enter(&self, caller: &Caller, namespace: NamespaceId, role: Role) -> ServiceResult<Entry> {
        let row = self.meta.namespace_for(namespace, caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
        let entry = self.entry(caller, row, role)?;
        self.settled(&entry.row).await?;
        Ok(entry)
    }

    /// The caller's home, with the caller as its owner.
    pub async fn enter_home(&self, caller: &Caller) -> ServiceResult<Entry> {
        let home = self.ensure_home(caller.user_id).await?;
        self.enter(caller, home, Role::Owner).await
    }

    fn entry(&self, caller: &Caller, row: NamespaceRow, role: Role) -> ServiceResult<Entry> {
        check_membership(caller, &row, role)?;
        if folder_of(caller).is_some_and(|f| f.directory != NodeId::ROOT) {
            let detail = "This app password opens one folder; this needs the whole namespace.";
            return Err(ServiceError::new(super::Kind::Forbidden, "one_folder_only", detail));
        }
        Ok(Entry { caller: *caller, row, within: RelPath::root(), only: None })
    }

    /// As [`Content::enter`] (nothing: the caller's home), for what keeps to the open part by itself.
    pub(super) async fn enter_part(&self, caller: &Caller, namespace: Option<NamespaceId>, role: Role) -> ServiceResult<Entry> {
        let namespace = match (namespace, folder_of(caller)) {
            (Some(namespace), _) => namespace,
            (None, Some(folder)) => folder.namespace,
            (None, None) => return self.enter_home(caller).await,
        };
        let row = self.meta.namespace_for(namespace, caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
        self.part(caller, row, role).await
    }

    /// An entry to the part that the caller's app password opens; to all of it for everybody else.
    async fn part(&self, caller: &Caller, row: NamespaceRow, role: Role) -> ServiceResult<Entry> {
        check_membership(caller, &row, role)?;
        self.settled(&row).await?;
        let within = match folder_of(caller) {
            Some(folder) if folder.directory != NodeId::ROOT => {
                // The folder may have been moved since, or be gone: then nothing is open.
                self.shown(row.id, folder.directory).await?.path
            }
            _ => RelPath::root(),
        };
        Ok(Entry { caller: *caller, row, within, only: None })
    }

    /// The folder of an app password that is to be made, and where it is.
    pub async fn token_folder(&self, caller: &Caller, namespace: Option<NamespaceId>, path: &str) -> ServiceResult<(TokenFolder, String)> {
        let entry = match namespace {
            Some(namespace) => self.enter(caller, namespace, Role::Viewer).await?,
            None => self.enter_home(caller).await?,
        };
        let path = parse_path(path)?;
        let directory = self.view(entry.row.id).directory(&path).await?.node();
        Ok((TokenFolder { namespace: entry.row.id, directory }, format!("/{path}")))
    }
}

/// The one folder that the caller's app password opens.
fn folder_of(caller: &Caller) -> Option<TokenFolder> {
    caller.token.and_then(|limits| limits.folder)
}

/// Whether a caller who is a member has this role, and an app password opens this namespace at all.
fn check_membership(caller: &Caller, row: &NamespaceRow, role: Role) -> ServiceResult<()> {
    if folder_of(caller).is_some_and(|folder| folder.namespace != row.id) {
        return Err(ServiceError::not_found());
    }
    if row.role < role {
        let needed = if role == Role::Owner { "owner" } else { "editor" };
        return Err(ServiceError::forbidden(format!("This needs the role '{needed}' in the namespace.")));
    }
    Ok(())
}

/// Waits some milliseconds, more each time and never the same for two that met.
async fn pause(again: u32) {
    let spread = random::<1>().map_or(0, |[byte]| u64::from(byte));
    tokio::time::sleep(std::time::Duration::from_millis((spread * u64::from(again)) / 16)).await;
}

/// Random bytes.
fn random<const N: usize>() -> ServiceResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(ServiceError::internal)?;
    Ok(bytes)
}

/// A fresh id of 16 bytes.
pub(crate) fn random_id() -> ServiceResult<[u8; 16]> {
    random()
}

/// A fresh key for [`Content::open`].
pub fn random_key() -> ServiceResult<[u8; 32]> {
    random()
}

fn fresh_identity() -> ServiceResult<Identity> {
    Ok(Identity { epoch: Epoch::from_bytes(random()?), replica: ReplicaId::from_bytes(random()?) })
}

/// Runs work that computes for long off the threads that serve requests.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(ServiceError::internal)
}
