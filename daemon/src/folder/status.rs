//! What a folder says of itself. Serialised for the control socket, never read back.

use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, RelPath};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// What a folder is doing, worst first in [`FolderState::severity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderState {
    /// Everything here is everywhere reachable, and the reverse (F2).
    UpToDate,
    /// The first pass over the disk since the start, or a full rescan, is under way.
    Scanning,
    /// Something is pending.
    Syncing,
    /// The user has paused it.
    Paused,
    /// The brake: many deletes wait for `ferry folder approve` or `reject`.
    Held,
    /// It cannot go on, or some items failed; the issues say why.
    Error,
}

impl FolderState {
    /// The name in JSON and human output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Scanning => "scanning",
            Self::Syncing => "syncing",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Error => "error",
        }
    }

    /// For the state of the whole device: the folder with the highest decides.
    pub fn severity(self) -> u8 {
        match self {
            Self::UpToDate => 0,
            Self::Paused => 1,
            Self::Scanning => 2,
            Self::Syncing => 3,
            Self::Held => 4,
            Self::Error => 5,
        }
    }
}

/// Whether the relay can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// The last exchange succeeded.
    Connected,
    /// Trying.
    Connecting,
    /// Not reachable; trying again later.
    Offline,
    /// Turned off, or not logged in.
    None,
}

/// A folder's view of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RelayLink {
    /// Reachability.
    pub state: RelayState,
    /// How many changes of the relay's feed are known to exist but not yet read; 0 means that the cursor is at the head.
    pub lag: u64,
}

impl Default for RelayLink {
    fn default() -> Self {
        Self { state: RelayState::None, lag: 0 }
    }
}

/// Items that are not the same here and elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Pending {
    /// Changed here, to be sent.
    pub upload: u64,
    /// Changed elsewhere, to be fetched or applied.
    pub download: u64,
    /// To be deleted, here or elsewhere.
    pub delete: u64,
}

impl Pending {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.upload + self.download + self.delete
    }
}

/// Content still to travel, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PendingBytes {
    /// To be sent.
    pub upload: u64,
    /// To be fetched.
    pub download: u64,
}

/// Throughput over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Rates {
    /// Bytes per second sent.
    pub up_bytes_per_s: u64,
    /// Bytes per second received.
    pub down_bytes_per_s: u64,
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ScanProgress {
    /// Entries seen in this pass.
    pub entries: u64,
    /// Bytes hashed in this pass.
    pub hashed_bytes: u64,
}

/// Deletes that wait for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeldDeletes {
    /// How many items would go.
    pub count: u64,
    /// Of how many.
    pub total: u64,
    /// Whether the deletes were made on this device (they are held from being sent) or elsewhere (from being applied here).
    pub made_here: bool,
}

/// Something that needs a look, by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Where, below the root; the root itself for an issue of the whole folder.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// The stable code, such as `permission_denied` (see `Obstacle::code`).
    pub code: &'static str,
    /// One sentence: what is wrong.
    pub message: String,
    /// One sentence: what the user can do.
    pub hint: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
}

/// What a folder says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FolderStatus {
    /// The namespace.
    pub id: NamespaceId,
    /// Its name on this device.
    pub name: String,
    /// Its root.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// What it is doing.
    pub state: FolderState,
    /// Why, in one sentence, where the state alone does not say it.
    pub state_reason: Option<String>,
    /// Since when it is in this state, in milliseconds since 1970.
    pub state_since_ms: i64,
    /// Files in the folder.
    pub files: u64,
    /// Bytes in the folder.
    pub bytes: u64,
    /// What is not the same yet.
    pub pending: Pending,
    /// Content still to travel, of what is being sent or fetched.
    pub pending_bytes: PendingBytes,
    /// Of what is pending, how many items something stands in the way of; see the issues.
    pub blocked: u64,
    /// Throughput.
    pub rates: Rates,
    /// The scan under way, if any.
    pub scan: Option<ScanProgress>,
    /// What needs a look: at most the first 1000.
    pub issues: Vec<Issue>,
    /// How many issues there are.
    pub issues_total: u64,
    /// Conflicted copies that are shown in the folder.
    pub conflicts: u64,
    /// Deletes that wait for the user.
    pub held: Option<HeldDeletes>,
    /// The relay, as this folder sees it.
    pub relay: RelayLink,
    /// When the folder was last up to date, in milliseconds since 1970.
    pub last_sync_ms: Option<i64>,
    /// What this user may do in it, as the relay said last; the supervisor knows, not the folder.
    pub role: Option<Role>,
}

impl FolderStatus {
    /// The status of a folder that has just been started: it knows nothing yet, so it is scanning.
    pub fn starting(id: NamespaceId, name: String, path: PathBuf, now_ms: i64) -> Self {
        Self {
            id,
            name,
            path,
            state: FolderState::Scanning,
            state_reason: None,
            state_since_ms: now_ms,
            files: 0,
            bytes: 0,
            pending: Pending::default(),
            pending_bytes: PendingBytes::default(),
            blocked: 0,
            rates: Rates::default(),
            scan: None,
            issues: Vec::new(),
            issues_total: 0,
            conflicts: 0,
            held: None,
            relay: RelayLink::default(),
            last_sync_ms: None,
            role: None,
        }
    }
}

/// Which way content travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To others.
    Upload,
    /// From others.
    Download,
}

/// Which way content took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The relay.
    Relay,
    /// A peer on the LAN.
    Lan,
    /// Nothing travelled: the content was already on this disk.
    Local,
}

/// Serialises a path below a root for people and programs: escaped, so that no control byte leaves the daemon.
pub fn shown<S: Serializer>(path: &RelPath, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(path)
}

/// Like [`shown`], for a path of the file system.
pub fn shown_path<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
    use std::os::unix::ffi::OsStrExt;
    s.serialize_str(&ferry_protocol::name::display_bytes(path.as_os_str().as_bytes()))
}
