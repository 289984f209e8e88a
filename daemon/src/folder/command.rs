//! What a folder can be told and asked, and its answers.

use super::status::{Direction, Issue, Via, shown};
use ferry_protocol::RelPath;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Where an answer goes. The asker may have gone away: sending it may fail and that is no error.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// Which class an error belongs to: decides the exit code of the command line and the HTTP status of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such path, conflict or trash item.
    NotFound,
    /// The folder is not in a state that allows it, or something changed meanwhile.
    Conflict,
    /// The caller may not (a viewer, for example).
    Forbidden,
    /// Trying again later helps.
    Temporary,
    /// Anything else.
    Failed,
}

/// Why a command was not carried out; nothing is half done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The class.
    pub kind: ErrorKind,
    /// The stable code.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What the user can do; may be empty.
    pub hint: String,
}

/// What a folder can be told and asked.
#[derive(Debug)]
pub enum FolderCommand {
    /// Stop sending and applying changes; keep observing the disk cheaply or not at all.
    Pause,
    /// Go on after a pause; scans first.
    Resume,
    /// Scan the whole folder now.
    Scan,
    /// Let the held deletes go through. Answers how many.
    Approve {
        /// The answer.
        reply: Reply<u64>,
    },
    /// Bring the held deletes' items back instead. Answers how many.
    Reject {
        /// The answer.
        reply: Reply<u64>,
    },
    /// A person has taken note of the mass changes. Answers how many there were.
    Dismiss {
        /// The answer.
        reply: Reply<u64>,
    },
    /// Explain one path.
    Why {
        /// Which, below the root.
        path: RelPath,
        /// The answer.
        reply: Reply<WhyReport>,
    },
    /// Merge two edits of one text where that is clean, or no longer.
    MergeText(bool),
    /// List the conflicted copies.
    Conflicts {
        /// The answer.
        reply: Reply<Vec<ConflictItem>>,
    },
    /// Settle one conflict.
    ResolveConflict {
        /// [`ConflictItem::id`].
        id: String,
        /// What to keep.
        keep: Keep,
        /// The answer.
        reply: Reply<()>,
    },
    /// List what rests in the folder's local trash.
    TrashList {
        /// The answer, newest first.
        reply: Reply<Vec<TrashItem>>,
    },
    /// Put one item back where it was, or beside it if the place is taken. Answers where.
    TrashRestore {
        /// [`TrashItem::id`].
        id: String,
        /// The answer.
        reply: Reply<RelPath>,
    },
    /// Remove items from the local trash for good. Answers how many.
    TrashPurge {
        /// Only items that are older than this, in milliseconds; 0 for all. Ignored when `ids` is not empty.
        older_than_ms: u64,
        /// [`TrashItem::id`]s; empty for all that are old enough.
        ids: Vec<String>,
        /// The answer.
        reply: Reply<u64>,
    },
    /// Say for each path whether it is ignored, and by which rule.
    IgnoreCheck {
        /// The paths and whether each is to be taken as a directory where nothing stands there.
        paths: Vec<(RelPath, bool)>,
        /// The answer, in the same order.
        reply: Reply<Vec<IgnoreVerdict>>,
    },
    /// List the rules that apply at the root (`.ferryignore` and built-in ones).
    IgnoreList {
        /// The answer, in order of application.
        reply: Reply<Vec<IgnoreRule>>,
    },
    /// List the transfers under way and those that wait next (at most 1000).
    Transfers {
        /// The answer.
        reply: Reply<Vec<Transfer>>,
    },
    /// The relay says that the namespace's feed has reached `seq`; nothing known: read the feed.
    WakeRelay {
        /// The head, if the wake-up carried it.
        seq: Option<u64>,
    },
    /// Answered once everything that stood on the disk when the command came has been taken up, and the relay (if any) was asked for its head:
    /// [`super::FolderStatus::state`] tells the truth about that moment or a later one.
    Flush {
        /// The answer.
        reply: Reply<()>,
    },
    /// End the task, see [`super::FolderHandle::stop`].
    Stop,
}

/// One version of an item, as one tree has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WhyVersion {
    /// `file`, `dir`, `symlink`, `deleted` or `other`.
    pub kind: &'static str,
    /// Bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970.
    pub mtime_ms: Option<i64>,
    /// Hash of the content, in hexadecimal, where it is known.
    pub hash: Option<String>,
    /// Permission bits.
    pub mode: Option<u16>,
    /// Name of the device that wrote it, where known.
    pub device: Option<String>,
    /// When it was written there, in milliseconds since 1970 of its wall clock.
    pub wall_ms: Option<i64>,
}

/// Why a path is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyReport {
    /// The path below the root.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// A stable code: `synced`, `waiting_to_upload`, `waiting_to_download`, `waiting_to_delete`, `being_written`, `ignored`, `issue`,
    /// `conflict`, `held`, `paused`, `scanning`, `unknown` (nothing here and nothing elsewhere).
    pub state: &'static str,
    /// One sentence for people.
    pub sentence: String,
    /// What the disk holds.
    pub local: Option<WhyVersion>,
    /// What both held last.
    pub synced: Option<WhyVersion>,
    /// What the others hold.
    pub remote: Option<WhyVersion>,
    /// The rule that ignores or includes it.
    pub rule: Option<IgnoreRule>,
    /// What stands in the way.
    pub issue: Option<Issue>,
    /// Further lines, most interesting first.
    pub details: Vec<String>,
}

/// One conflicted copy that is shown in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConflictItem {
    /// Stable while the conflict stands.
    pub id: String,
    /// The path that won the name.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// The copy beside it.
    #[serde(serialize_with = "shown")]
    pub copy: RelPath,
    /// The device that wrote the copy.
    pub device: String,
    /// When, in milliseconds since 1970.
    pub wall_ms: i64,
    /// Bytes of the copy.
    pub size: u64,
    /// Whether the copy is this device's own version.
    pub copy_is_local: bool,
}

/// How to settle a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// This device's version gets the name; the others go (to the trash).
    Local,
    /// The others' version keeps the name; this device's goes (to the trash).
    Remote,
    /// What has the name stays, whoever wrote it; the copy goes.
    Current,
    /// The copy gets the name, whoever wrote it; what has it goes.
    Copy,
    /// Both stay, each a file of its own.
    Both,
}

/// Something in the local trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrashItem {
    /// For restore and purge.
    pub id: String,
    /// Where it stood.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// When it was put there, in milliseconds since 1970.
    pub trashed_ms: i64,
    /// `deleted` or `replaced`.
    pub reason: &'static str,
}

/// A rule of `.ferryignore`, or a built-in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoreRule {
    /// The file that holds it, below the root; `built-in` otherwise.
    pub source: String,
    /// Its line, from 1; 0 for built-in rules.
    pub line: u64,
    /// The pattern as written.
    pub pattern: String,
    /// Whether it takes back an earlier rule (`!pattern`).
    pub negated: bool,
}

/// Whether a path is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoreVerdict {
    /// The path.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// The verdict.
    pub ignored: bool,
    /// The rule that decided; nothing if none matches.
    pub rule: Option<IgnoreRule>,
}

/// One file on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// The path.
    #[serde(serialize_with = "shown")]
    pub path: RelPath,
    /// Which way.
    pub direction: Direction,
    /// From or to where; nothing while it waits.
    pub via: Option<Via>,
    /// Bytes of the file.
    pub total_bytes: u64,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Of those, how many came from devices nearby.
    pub lan_bytes: u64,
}
